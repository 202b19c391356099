//! Facts 15 to 20: making and deleting volumes when the driver says no.

use wavetank_sim::scenario::{Call, Code, GoDuration, Inject};

use super::run::{each, fact, one};

fn create_fails(code: Code, times: u32) -> Inject {
    Inject::into_call(Call::CreateVolume).code(code).times(times)
}

#[test]
fn fact_15_failed_creations_wait_twice_as_long_each_time() {
    for (code, word) in [
        (Code::DeadlineExceeded, "DeadlineExceeded"),
        (Code::Internal, "Internal"),
    ] {
        let story = fact("15", "the back-off of CreateVolume")
            .inject(create_fails(code, 5))
            .claim("data", "1Gi", |claim| claim.class("imm"))
            .until("pvc/data", "Bound", "1m");
        each(&story, |run| {
            run.paced(word, &run.gaps("CreateVolume"), &[1.0, 2.0, 4.0, 8.0, 16.0], 0.05);
            let codes: Vec<&str> = run.calls("CreateVolume").iter().map(|c| c.code.as_str()).collect();
            assert_eq!(codes, [word, word, word, word, word, "OK"]);
        });
    }
}

#[test]
fn fact_15_a_lost_answer_costs_the_deadline_besides() {
    let story = fact("15", "the answers of CreateVolume are lost")
        .inject(
            Inject::into_call(Call::CreateVolume)
                .delay(GoDuration::secs(60))
                .after()
                .times(2),
        )
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "1m");
    each(&story, |run| {
        run.paced("CreateVolume", &run.gaps("CreateVolume"), &[11.0, 12.0], 0.05);
        let names: Vec<_> = run
            .calls("CreateVolume")
            .iter()
            .map(|c| c.request["name"].clone())
            .collect();
        assert!(names.iter().all(|name| *name == names[0]), "the same name each time");
    });
}

#[test]
fn fact_16_an_infeasible_claim_is_not_tried_again_for_five_minutes() {
    let story = fact("16", "InvalidArgument")
        .inject(create_fails(Code::InvalidArgument, 1))
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .run("8s")
        .until("pvc/data", "Bound", "10m");
    each(&story, |run| {
        let gaps = run.gaps("CreateVolume");
        assert_eq!(gaps.len(), 1);
        // The queue goes on doubling its pauses: 1 + 2 + … + 256 s is the first attempt after the five minutes.
        run.between("the next attempt", gaps[0], 300.0, 511.5);
        let failed = run.events("ProvisioningFailed");
        let delayed = failed.iter().any(|e| {
            e.object["message"]
                .as_str()
                .unwrap_or_default()
                .contains("etries will be delayed")
        });
        assert!(delayed, "{failed:#?}");
    });
}

#[test]
fn fact_17_an_uncertain_creation_goes_on_after_the_claim_is_deleted() {
    let story = fact("17", "a claim deleted while CreateVolume is uncertain")
        .inject(create_fails(Code::DeadlineExceeded, 3))
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until_called(Call::CreateVolume, 1, "10s")
        .run("1s")
        .delete("pvc/data")
        .until_called(Call::DeleteVolume, 1, "30s")
        .run("10s");
    each(&story, |run| {
        let deleted = run.write("kubectl", "delete persistentvolumeclaims data").at;
        let calls = run.calls("CreateVolume");
        assert_eq!(calls.len(), 4);
        assert!(calls.last().is_some_and(|c| c.code == "OK" && c.at > deleted));
        // The deletion itself is one more attempt, outside the back-off.
        assert!(
            calls.iter().any(|c| (0.0..0.03).contains(&(c.at - deleted))),
            "{:.3?}",
            run.times("CreateVolume")
        );
        let volume = run.states("PersistentVolume", "pvc-");
        assert!(volume.iter().any(|s| s.object["status"]["phase"] == "Released"));
        run.between(
            "DeleteVolume",
            run.first("DeleteVolume") - run.last("CreateVolume"),
            0.005,
            0.1,
        );
    });
}

#[test]
fn fact_17_a_failed_creation_is_tried_once_more_when_the_claim_is_deleted() {
    let story = fact("17", "a claim deleted after CreateVolume has failed")
        .inject(create_fails(Code::Internal, 4))
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until_called(Call::CreateVolume, 3, "10s")
        .run("1s")
        .delete("pvc/data")
        .run("15s");
    each(&story, |run| {
        let deleted = run.write("kubectl", "delete persistentvolumeclaims data").at;
        assert_eq!(run.calls("CreateVolume").len(), 4);
        run.between("the last attempt", run.last("CreateVolume") - deleted, 0.001, 0.03);
        assert!(run.calls("DeleteVolume").is_empty());
    });
}

#[test]
fn fact_18_without_room_the_scheduler_chooses_again_at_its_own_pace() {
    // Without topology nobody would give the choice back to the scheduler.
    let story = fact("18", "ResourceExhausted and WaitForFirstConsumer")
        .cluster(|cluster| {
            for node in &mut cluster.nodes {
                node.topology.insert("zone".into(), "a".into());
            }
        })
        .inject(create_fails(Code::ResourceExhausted, 2))
        .claim("data", "1Gi", |claim| claim.class("wffc"))
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "1m");
    each(&story, |run| {
        run.paced("CreateVolume", &run.gaps("CreateVolume"), &[2.95, 3.95], 0.1);
        let first = run.first("CreateVolume");
        let key = "volume.kubernetes.io/selected-node";
        let claims = run.states("PersistentVolumeClaim", "data");
        let removed = claims
            .iter()
            .find(|s| s.at > first && s.object["metadata"]["annotations"][key].is_null());
        run.between(
            "the removal",
            removed.expect("selected-node is removed").at - first,
            0.001,
            0.05,
        );
        let failed = run.event("FailedScheduling");
        let message = failed.object["message"].as_str().unwrap_or_default();
        assert!(message.contains("provisioning failed for PVC"), "{message}");
        run.between("FailedScheduling", failed.at - first, 0.9, 1.1);
    });
}

#[test]
fn fact_19_a_volume_is_not_deleted_while_it_is_attached() {
    let story = fact("19", "a claim deleted in use")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "1m")
        .delete("pvc/data")
        .run("5s")
        .delete("pod/web")
        .until("pv/claim:data", "gone", "2m");
    let mut refusals = 0;
    for seed in 0..8 {
        let run = one(&story, seed);
        assert!(run.first("ControllerUnpublishVolume") < run.first("DeleteVolume"));
        let failed = run.events("VolumeFailedDelete");
        for event in &failed {
            let message = event.object["message"].as_str().unwrap_or_default();
            assert!(message.contains("is still attached to node node-1"), "{message}");
        }
        let pauses: Vec<f64> = failed.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        run.paced(
            "VolumeFailedDelete",
            &pauses,
            &[1.0, 2.0, 4.0, 8.0][..pauses.len()],
            0.2,
        );
        refusals += failed.len();
    }
    assert!(refusals > 8, "the status tick is later than the claim: {refusals}");
}

fn by_hand(policy: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "by-hand"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": "imm",
            "claimRef": {"namespace": "default", "name": "data"},
            "csi": {"driver": "csi.wavetank.dev", "volumeHandle": "made-by-hand"},
        },
    })
}

#[test]
fn fact_20_a_volume_made_by_hand_with_policy_delete_is_adopted_and_deleted() {
    let story = fact("20", "a volume made by hand")
        .manifest(by_hand("Delete"))
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "30s")
        .run("1s")
        .delete("pvc/data")
        .until("pv/by-hand", "gone", "1m");
    each(&story, |run| {
        assert!(run.calls("CreateVolume").is_empty());
        assert_eq!(run.calls("DeleteVolume")[0].request["volume_id"], "made-by-hand");
        let adopted = run.since("PersistentVolume", "by-hand", |s| {
            s.object["metadata"]["finalizers"]
                .to_string()
                .contains("external-provisioner.volume.kubernetes.io/finalizer")
        });
        let bound = run.since("PersistentVolume", "by-hand", |s| {
            s.object["status"]["phase"] == "Bound"
        });
        run.between("the adoption", adopted - bound, 0.0, 0.05);
        let states = run.states("PersistentVolume", "by-hand");
        assert!(
            states
                .iter()
                .all(|s| s.object["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"].is_null())
        );
    });
}

#[test]
fn fact_20_a_retained_volume_stays_released_until_its_claim_is_taken_out() {
    let story = fact("20", "a retained volume")
        .manifest(by_hand("Retain"))
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "30s")
        .delete("pvc/data")
        .until("pv/by-hand", "Released", "30s")
        .manifest(serde_json::json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "heir"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "imm", "volumeName": "by-hand",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))
        .run("50s")
        .patch("pv/by-hand", serde_json::json!({"spec": {"claimRef": null}}))
        .until("pvc/heir", "Bound", "1m");
    each(&story, |run| {
        assert!(run.calls("DeleteVolume").is_empty());
        let failed = run.events("FailedBinding");
        assert!((3..=5).contains(&failed.len()), "{} events in 50 s", failed.len());
        let pause = failed[2].at - failed[1].at;
        run.between("the next resync", pause, 14.9, 15.1);
        let freed = run.write("kubectl", "patch persistentvolumes by-hand").at;
        let states = run.states("PersistentVolume", "by-hand");
        assert!(
            states
                .iter()
                .any(|s| s.at >= freed && s.object["status"]["phase"] == "Available")
        );
    });
}
