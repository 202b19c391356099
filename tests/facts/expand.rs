//! Facts 23 to 26, 37: growing and changing volumes.

use serde_json::json;
use wavetank_driver::Bytes;
use wavetank_sim::scenario::{Builder, Call, Code, Inject};

use super::run::{each, fact, one};

const GROWN: &str = "{.status.capacity.storage}=2Gi";

fn running(story: Builder) -> Builder {
    story
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "1m")
        .run("3s")
}

#[test]
fn fact_23_the_node_follows_the_controller_only_at_the_pods_resync() {
    let story = running(fact("23", "online expansion"))
        .grow("data", "2Gi")
        .until("pvc/data", GROWN, "3m");
    for seed in 0..8 {
        let run = one(&story, seed);
        let asked = run.write("kubectl", "patch persistentvolumeclaims data").at;
        run.between(
            "ControllerExpand",
            run.first("ControllerExpandVolume") - asked,
            0.005,
            0.06,
        );
        run.between(
            "NodeExpand",
            run.first("NodeExpandVolume") - run.first("ControllerExpandVolume"),
            50.0,
            92.0,
        );
        let pending = run.since("PersistentVolumeClaim", "data", |s| {
            s.object["status"]["allocatedResourceStatuses"]["storage"] == "NodeResizePending"
        });
        let volume = run.since("PersistentVolume", "pvc-", |s| {
            s.object["spec"]["capacity"]["storage"] == "2Gi"
        });
        assert!(volume < pending);
        let done = run.since("PersistentVolumeClaim", "data", |s| {
            s.object["status"]["capacity"]["storage"] == "2Gi"
        });
        run.between("the status", done - run.first("NodeExpandVolume"), 0.002, 0.05);
    }
}

#[test]
fn fact_23_offline_the_node_grows_the_volume_in_the_mount_of_the_next_pod() {
    let story = fact("23", "offline expansion")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "10s")
        .grow("data", "2Gi")
        .until("pvc/data", "FileSystemResizePending", "10s")
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pvc/data", GROWN, "1m")
        .until("pod/web", "Ready", "10s")
        .run("1s");
    each(&story, |run| {
        assert!(run.first("ControllerExpandVolume") < run.first("NodeStageVolume"));
        run.between(
            "NodeExpand",
            run.first("NodeExpandVolume") - run.first("NodePublishVolume"),
            0.005,
            0.1,
        );
        let started = run.event("Started").at;
        assert!(run.first("NodeExpandVolume") < started, "it is a part of the mount");
    });
}

#[test]
fn fact_24_without_a_part_for_the_node_the_claim_is_done_at_once() {
    let story = fact("24", "controller-only expansion")
        .cluster(|cluster| cluster.drivers[0].options.node_expansion = false)
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "10s")
        .grow("data", "2Gi")
        .until("pvc/data", GROWN, "5s");
    each(&story, |run| {
        let done = run.since("PersistentVolumeClaim", "data", |s| {
            s.object["status"]["capacity"]["storage"] == "2Gi"
        });
        run.between("the claim", done - run.first("ControllerExpandVolume"), 0.001, 0.1);
        assert!(run.calls("NodeExpandVolume").is_empty());
    });
}

#[test]
fn fact_25_failed_expansions_come_in_pairs_because_the_resizer_wakes_itself() {
    let story = running(fact("25", "ControllerExpand fails four times"))
        .inject(
            Inject::into_call(Call::ControllerExpandVolume)
                .code(Code::Internal)
                .times(4),
        )
        .grow("data", "2Gi")
        .until("pvc/data", "FileSystemResizePending", "30s");
    each(&story, |run| {
        let gaps = run.gaps("ControllerExpandVolume");
        assert_eq!(gaps.len(), 4);
        run.between("the second call", gaps[0], 0.005, 0.06);
        // A back-off alone would take 1, 2 and 4 s. Two writes of a sync wake it twice if the second one is seen late: then there are three.
        run.between("the first four", gaps[..3].iter().sum(), 0.95, 1.4);
    });
}

#[test]
fn fact_25_an_infeasible_expansion_rests_until_the_request_is_lowered() {
    let story = running(fact("25", "more than there is").cluster(|cluster| {
        let types = &mut cluster.drivers[0].options.types;
        types.values_mut().for_each(|t| t.max_size = Bytes(10 << 30));
    }))
    .grow("data", "100Gi")
    .until(
        "pvc/data",
        "{.status.allocatedResourceStatuses.storage}=ControllerResizeInfeasible",
        "10s",
    )
    .run("25s")
    .grow("data", "2Gi")
    .until("pvc/data", GROWN, "3m");
    each(&story, |run| {
        let calls = run.calls("ControllerExpandVolume");
        let codes: Vec<&str> = calls.iter().map(|c| c.code.as_str()).collect();
        assert_eq!(codes, ["OutOfRange", "OutOfRange", "OK"]);
        run.between("the second call", calls[1].at - calls[0].at, 0.005, 0.06);
        let lowered = run.writes("kubectl", "patch persistentvolumeclaims data")[1].at;
        run.between("the call for less", calls[2].at - lowered, 0.002, 0.06);
        assert_eq!(
            calls[2].request["capacity_range"]["required_bytes"],
            json!("2147483648")
        );
    });
}

#[test]
fn fact_26_a_failing_node_expansion_backs_off_like_every_volume_operation() {
    let story = running(fact("26", "NodeExpand fails three times"))
        .inject(Inject::into_call(Call::NodeExpandVolume).code(Code::Internal).times(3))
        .grow("data", "2Gi")
        .until("pvc/data", GROWN, "3m");
    each(&story, |run| {
        run.paced("NodeExpand", &run.gaps("NodeExpandVolume"), &[0.55, 1.05, 2.05], 0.1);
        assert_eq!(
            run.events("VolumeResizeFailed")
                .iter()
                .map(|e| e.object["count"].as_u64().unwrap_or(1))
                .max(),
            Some(3)
        );
    });
}

fn attributes(name: &str, iops: &str) -> serde_json::Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": name},
        "driverName": "csi.wavetank.dev", "parameters": {"iops": iops},
    })
}

fn wants(class: &str) -> serde_json::Value {
    json!({"spec": {"volumeAttributesClassName": class}})
}

#[test]
fn fact_37_modifications_back_off_without_pairs_and_infeasible_ones_rest() {
    let is = |class: &str| format!("{{.status.currentVolumeAttributesClassName}}={class}");
    let story = fact("37", "VolumeAttributesClass")
        .cluster(|cluster| {
            let options = &mut cluster.drivers[0].options;
            options.modify = true;
            options.mutable_parameters = ["iops".to_owned()].into();
        })
        .manifest(attributes("gold", "100"))
        .manifest(attributes("silver", "50"))
        .manifest(attributes("bronze", "none"))
        .manifest(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "imm", "volumeAttributesClassName": "gold",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))
        .until("pvc/data", "Bound", "10s")
        .run("1s")
        .inject(
            Inject::into_call(Call::ControllerModifyVolume)
                .code(Code::Internal)
                .times(2),
        )
        .patch("pvc/data", wants("silver"))
        .until("pvc/data", &is("silver"), "30s")
        .patch("pvc/data", wants("bronze"))
        .run("15s")
        .patch("pvc/data", wants("silver"))
        .until_called(Call::ControllerModifyVolume, 5, "30s")
        .run("1s");
    each(&story, |run| {
        let calls = run.calls("ControllerModifyVolume");
        let codes: Vec<&str> = calls.iter().map(|c| c.code.as_str()).collect();
        assert_eq!(codes, ["Internal", "Internal", "OK", "InvalidArgument", "OK"]);
        run.paced(
            "ControllerModify",
            &run.gaps("ControllerModifyVolume")[..2],
            &[1.0, 2.0],
            0.06,
        );
    });
}
