//! The volume controller against the model of the API server: the order of its writes, its events, and what repeats.
//!
//! When a claim names its volume already, both workers want the volume's phase after the first write of a binding, and one of them gets a 409. Tests
//! that do not mean this race hold the volume's events back.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Binder, Flags, INDEXES};
use crate::api::{Kind, ObjKey};
use crate::control::Shell;
use crate::controllers::bench::{Bench, merged};
use crate::runtime::Time;

const CLAIM: Kind = Kind::PersistentVolumeClaim;
const VOLUME: Kind = Kind::PersistentVolume;

const WAITS: &str = "N WaitForFirstConsumer pvc default/data: waiting for first consumer to be created before binding";
const HANDED_OVER: &str = "N ExternalProvisioning pvc default/data: Waiting for a volume to be created either by the external provisioner 'csi.example.com' \
     or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.";

fn data() -> ObjKey {
    ObjKey::new("default", "data")
}

fn v() -> ObjKey {
    ObjKey::cluster("v")
}

fn bench() -> Bench {
    let mut bench = Bench::new(INDEXES, vec![Box::new(Shell::new(Binder::new(Flags::default())))]);
    for (name, mode) in [("imm", "Immediate"), ("wffc", "WaitForFirstConsumer")] {
        bench.create(
            Kind::StorageClass,
            json!({"metadata": {"name": name}, "provisioner": "csi.example.com", "volumeBindingMode": mode}),
        );
    }
    bench
}

fn claim(class: Option<&str>, spec: &Value) -> Value {
    let base = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": class});
    json!({"metadata": {"name": "data", "namespace": "default"}, "spec": merged(base, spec)})
}

fn volume(name: &str, spec: &Value) -> Value {
    let base = json!({
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "storageClassName": "imm", "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "csi.example.com", "volumeHandle": name}
    });
    json!({"metadata": {"name": name}, "spec": merged(base, spec)})
}

fn seconds(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn provisioned(bench: &Bench, policy: &str) -> Value {
    let uid = bench.json(CLAIM, &data())["metadata"]["uid"].clone();
    let reference = json!({"claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data", "uid": uid}, "persistentVolumeReclaimPolicy": policy});
    let mut volume = volume("v", &reference);
    volume["metadata"]["annotations"] = json!({"pv.kubernetes.io/provisioned-by": "csi.example.com"});
    volume
}

#[test]
fn a_claim_is_handed_to_its_provisioner_and_bound_to_what_that_makes() {
    // Trace 01: the annotations, the event twice because the own write wakes the claim; then three writes, for the volume names its claim already.
    let mut bench = bench();
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    assert_eq!(bench.take_log(), ["update pvc default/data", HANDED_OVER, HANDED_OVER]);
    let made = provisioned(&bench, "Delete");
    bench.create(VOLUME, made);
    assert_eq!(
        bench.take_log(),
        [
            "update pv v /status",
            "update pvc default/data",
            "update pvc default/data /status"
        ]
    );
    let bound = bench.json(CLAIM, &data());
    assert_eq!(
        bound["status"],
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}})
    );
    bench.run_to(seconds(100));
    assert_eq!(bench.take_log(), [""; 0], "a bound claim is quiet");
    bench.delete(CLAIM, &data());
    bench.patch(CLAIM, &data(), false, json!({"metadata": {"finalizers": null}}));
    assert_eq!(bench.take_log(), ["update pv v /status"]);
    assert_eq!(bench.json(VOLUME, &v())["status"]["phase"], "Released");
}

#[test]
fn a_claim_that_waits_says_so_at_every_resync() {
    // Trace 02: WaitForFirstConsumer again on the 15 s tick; after the node is selected the claim is handed over.
    let mut bench = bench();
    bench.run_to(seconds(4));
    bench.create(CLAIM, claim(Some("wffc"), &json!({})));
    assert_eq!(bench.take_log(), [WAITS]);
    bench.run_to(seconds(14));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(seconds(31));
    assert_eq!(bench.take_log(), [WAITS, WAITS], "at 15 s and at 30 s");
    let pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}});
    bench.create(Kind::Pod, pod);
    assert_eq!(bench.take_log(), [""; 0], "a pod wakes nobody here");
    bench.run_to(seconds(45));
    assert_eq!(
        bench.take_log(),
        ["N WaitForPodScheduled pvc default/data: waiting for pod web to be scheduled"]
    );
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    bench.patch(CLAIM, &data(), false, selected);
    assert_eq!(bench.take_log(), ["update pvc default/data", HANDED_OVER, HANDED_OVER]);
    bench.run_to(seconds(61));
    assert_eq!(bench.take_log(), [HANDED_OVER], "as long as nothing is made");
}

#[test]
fn a_static_volume_is_bound_in_four_writes() {
    let mut bench = bench();
    bench.create(VOLUME, volume("v", &json!({})));
    assert_eq!(bench.take_log(), ["update pv v /status"]);
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let four = [
        "update pv v",
        "update pv v /status",
        "update pvc default/data",
        "update pvc default/data /status",
    ];
    assert_eq!(bench.take_log(), four);
    let volume = bench.json(VOLUME, &v());
    assert_eq!(
        volume["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"],
        "yes"
    );
    assert_eq!(volume["status"]["phase"], "Bound");
}

#[test]
fn a_binding_is_resumed_at_the_first_missing_write() {
    // 1.7: any failure aborts, the next sync goes on where the objects say it stopped. The controller may have died in between.
    let writes = [
        "update pv v",
        "update pv v /status",
        "update pvc default/data",
        "update pvc default/data /status",
    ];
    for done in 0..=4 {
        let mut bench = bench();
        bench.create(VOLUME, volume("v", &json!({})));
        bench.create(CLAIM, claim(Some("imm"), &json!({})));
        bench.hold(VOLUME);
        bench.hold(CLAIM);
        if done < 4 {
            bench.patch(
                CLAIM,
                &data(),
                true,
                json!({"status": {"phase": "Pending", "capacity": null, "accessModes": null}}),
            );
        }
        if done < 3 {
            bench.patch(
                CLAIM,
                &data(),
                false,
                json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": null}}}),
            );
        }
        if done < 2 {
            bench.patch(VOLUME, &v(), true, json!({"status": {"phase": "Available"}}));
        }
        if done < 1 {
            bench.patch(VOLUME, &v(), false, json!({"spec": {"claimRef": null}}));
        }
        let _ = bench.take_log();
        bench.restart_holding(&[VOLUME]);
        let mut log = bench.take_log();
        log.retain(|line| !line.ends_with("409"));
        assert_eq!(log, writes[done..], "{done} of the four were done");
    }
}

#[test]
fn a_conflict_is_retried_after_the_back_off_with_what_the_informer_shows_then() {
    let mut bench = bench();
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    bench.hold(CLAIM);
    bench.patch(CLAIM, &data(), false, json!({"metadata": {"labels": {"a": "b"}}}));
    let _ = bench.take_log();
    let made = provisioned(&bench, "Delete");
    bench.create(VOLUME, made);
    let twice = [
        "update pv v /status",
        "update pvc default/data 409",
        "update pvc default/data 409",
    ];
    assert_eq!(
        bench.take_log(),
        twice,
        "the volume's own event queues the claim again: an event bypasses the back-off"
    );
    bench.run_to(Time(5_000_000));
    assert_eq!(
        bench.take_log(),
        ["update pvc default/data 409"],
        "5 ms later the informer is as old as before"
    );
    bench.release();
    assert_eq!(
        bench.take_log(),
        ["update pvc default/data", "update pvc default/data /status"]
    );
}

#[test]
fn own_writes_are_read_before_the_informers_show_them() {
    // 1.3: claims and volumes that the controller wrote are in its own copies at once, so late events of earlier versions do nothing.
    let mut bench = bench();
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let _ = bench.take_log();
    bench.hold(CLAIM);
    let made = provisioned(&bench, "Delete");
    bench.create(VOLUME, made);
    assert_eq!(
        bench.take_log(),
        [
            "update pv v /status",
            "update pvc default/data",
            "update pvc default/data /status"
        ]
    );
    bench.run_to(seconds(31));
    assert_eq!(
        bench.take_log(),
        [""; 0],
        "two resyncs with an informer that still shows it unbound"
    );
    bench.release();
    assert_eq!(bench.take_log(), [""; 0]);
}

#[test]
fn a_claim_without_class_gets_the_default_later_and_only_then_its_provisioner() {
    let mut bench = bench();
    bench.create(CLAIM, claim(None, &json!({})));
    let nothing =
        "N FailedBinding pvc default/data: no persistent volumes available for this claim and no storage class is set";
    assert_eq!(bench.take_log(), [nothing]);
    bench.patch(
        Kind::StorageClass,
        &ObjKey::cluster("imm"),
        false,
        json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}),
    );
    assert_eq!(bench.take_log(), [""; 0], "classes wake nobody");
    bench.run_to(seconds(15));
    assert_eq!(
        bench.take_log(),
        [
            "update pvc default/data",
            "update pvc default/data",
            HANDED_OVER,
            HANDED_OVER
        ]
    );
    assert_eq!(bench.json(CLAIM, &data())["spec"]["storageClassName"], "imm");
}

#[test]
fn an_empty_class_is_never_replaced_by_the_default() {
    let mut bench = bench();
    bench.patch(
        Kind::StorageClass,
        &ObjKey::cluster("imm"),
        false,
        json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}),
    );
    bench.create(CLAIM, claim(Some(""), &json!({})));
    bench.run_to(seconds(16));
    let log = bench.take_log();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log.iter().all(|line| line.starts_with("N FailedBinding")), "{log:?}");
}

#[test]
fn a_class_that_cannot_provision_is_reported_at_every_resync() {
    let mut bench = bench();
    bench.create(CLAIM, claim(Some("none"), &json!({})));
    let missing = "W ProvisioningFailed pvc default/data: storageclass.storage.k8s.io \"none\" not found";
    assert_eq!(bench.take_log(), [missing]);
    bench.run_to(seconds(15));
    assert_eq!(bench.take_log(), [missing]);
    bench.create(
        Kind::StorageClass,
        json!({"metadata": {"name": "none"}, "provisioner": "kubernetes.io/no-provisioner"}),
    );
    bench.run_to(seconds(30));
    assert_eq!(
        bench.take_log(),
        ["W ProvisioningFailed pvc default/data: no volume plugin matched name: kubernetes.io/no-provisioner"]
    );
}

#[test]
fn a_released_volume_stays_so_until_its_reference_is_removed() {
    // Trace 12 and hidden 13: Retain. A claim that names the volume is refused at every resync; without claimRef the volume is Available, and is found
    // at the next resync of the claim.
    let mut bench = bench();
    bench.create(VOLUME, volume("v", &json!({})));
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    bench.delete(CLAIM, &data());
    bench.patch(CLAIM, &data(), false, json!({"metadata": {"finalizers": null}}));
    assert_eq!(bench.json(VOLUME, &v())["status"]["phase"], "Released");
    let _ = bench.take_log();
    bench.create(CLAIM, claim(Some("imm"), &json!({"volumeName": "v"})));
    let refused = "W FailedBinding pvc default/data: volume \"v\" already bound to a different claim.";
    assert_eq!(bench.take_log(), [refused]);
    bench.run_to(seconds(30));
    assert_eq!(bench.take_log(), [refused, refused]);
    assert_eq!(bench.json(VOLUME, &v())["status"]["phase"], "Released");
    bench.patch(VOLUME, &v(), false, json!({"spec": {"claimRef": null}}));
    assert_eq!(bench.take_log(), ["update pv v /status"], "Available");
    bench.hold(VOLUME);
    bench.run_to(seconds(45));
    assert_eq!(
        bench.take_log(),
        [
            "update pv v",
            "update pv v /status",
            "update pvc default/data",
            "update pvc default/data /status"
        ]
    );
}

#[test]
fn a_volume_that_does_not_satisfy_the_claim_that_names_it_is_refused() {
    let mismatch =
        |why: &str| format!("W VolumeMismatch pvc default/data: Cannot bind to requested volume \"v\": {why}");
    let table = [
        (
            json!({"resources": {"requests": {"storage": "3Gi"}}}),
            "requested PV is too small",
        ),
        (json!({"storageClassName": "wffc"}), "storageClassName does not match"),
        (json!({"volumeMode": "Block"}), "incompatible volumeMode"),
        (json!({"accessModes": ["ReadWriteMany"]}), "incompatible accessMode"),
        (
            json!({"volumeAttributesClassName": "gold"}),
            "volumeAttributesClassName does not match",
        ),
    ];
    for (difference, why) in table {
        let mut bench = bench();
        bench.create(VOLUME, volume("v", &json!({})));
        let _ = bench.take_log();
        let named = merged(difference, &json!({"volumeName": "v"}));
        bench.create(CLAIM, claim(Some("imm"), &named));
        assert_eq!(bench.take_log(), [mismatch(why)]);
        bench.run_to(seconds(15));
        assert_eq!(bench.take_log(), [mismatch(why)], "and again");
    }
}

#[test]
fn a_claim_that_names_a_missing_volume_waits_in_silence() {
    let mut bench = bench();
    bench.create(CLAIM, claim(Some("imm"), &json!({"volumeName": "v"})));
    bench.run_to(seconds(20));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.create(VOLUME, volume("v", &json!({})));
    assert_eq!(bench.take_log(), ["update pv v /status"], "a new volume wakes no claim");
    bench.hold(VOLUME);
    bench.run_to(seconds(30));
    assert_eq!(bench.take_log().len(), 4);
    assert_eq!(
        bench.json(CLAIM, &data())["metadata"]["annotations"].get("pv.kubernetes.io/bound-by-controller"),
        None
    );
}

#[test]
fn a_prebound_volume_keeps_its_users_reference_without_a_mark() {
    let mut bench = bench();
    bench.create(
        VOLUME,
        volume("v", &json!({"claimRef": {"namespace": "default", "name": "data"}})),
    );
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let log = bench.take_log();
    assert_eq!(
        log[1..],
        [
            "update pv v",
            "update pv v /status",
            "update pvc default/data",
            "update pvc default/data /status"
        ]
    );
    assert_eq!(bench.json(VOLUME, &v())["metadata"]["annotations"], Value::Null);
}

#[test]
fn a_claim_whose_volume_is_gone_is_lost_and_recovers_when_it_returns() {
    let mut bench = bench();
    bench.create(VOLUME, volume("v", &json!({})));
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let kept = bench.json(VOLUME, &v())["spec"].clone();
    let _ = bench.take_log();
    bench.delete(VOLUME, &v());
    bench.patch(VOLUME, &v(), false, json!({"metadata": {"finalizers": null}}));
    let lost = "W ClaimLost pvc default/data: Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    assert_eq!(bench.take_log(), ["update pvc default/data /status", lost]);
    assert_eq!(bench.json(CLAIM, &data())["status"], json!({"phase": "Lost"}));
    bench.run_to(seconds(30));
    assert_eq!(bench.take_log(), [""; 0], "said once");
    bench.create(VOLUME, json!({"metadata": {"name": "v"}, "spec": kept}));
    bench.run_to(seconds(45));
    assert_eq!(
        bench.take_log(),
        ["update pv v /status", "update pvc default/data /status"]
    );
    assert_eq!(bench.json(CLAIM, &data())["status"]["phase"], "Bound");
}

#[test]
fn a_bound_pair_is_repaired_when_the_volumes_reference_is_removed() {
    // 1.4: a bound claim whose volume names nobody binds it again; only the resync tells it.
    let mut bench = bench();
    bench.create(VOLUME, volume("v", &json!({})));
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let _ = bench.take_log();
    bench.patch(VOLUME, &v(), false, json!({"spec": {"claimRef": null}}));
    assert_eq!(bench.take_log(), ["update pv v /status"]);
    bench.hold(VOLUME);
    bench.run_to(seconds(15));
    assert_eq!(bench.take_log(), ["update pv v", "update pv v /status"]);
    bench.release();
    assert_eq!(bench.take_log(), [""; 0]);
}

#[test]
fn two_claims_bound_to_one_volume_leave_one_lost() {
    let mut bench = bench();
    bench.create(VOLUME, volume("v", &json!({})));
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let mut thief = claim(Some("imm"), &json!({"volumeName": "v"}));
    thief["metadata"] =
        json!({"name": "thief", "namespace": "default", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}});
    let _ = bench.take_log();
    bench.create(CLAIM, thief);
    let lost =
        "W ClaimMisbound pvc default/thief: Two claims are bound to the same volume, this one is bound incorrectly";
    assert_eq!(bench.take_log(), ["update pvc default/thief /status", lost]);
}

#[test]
fn a_second_volume_provisioned_for_a_bound_claim_is_released() {
    // 1.5 (8): this is how a doubled provisioning is cleaned up. A retained one is let go instead.
    for (policy, phase, claimed) in [("Delete", "Released", true), ("Retain", "Available", false)] {
        let mut bench = bench();
        bench.create(CLAIM, claim(Some("imm"), &json!({})));
        let first = provisioned(&bench, "Delete");
        bench.create(VOLUME, first);
        let mut second = provisioned(&bench, policy);
        second["metadata"]["name"] = json!("second");
        second["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"] = json!("yes");
        bench.create(VOLUME, second);
        let second = bench.json(VOLUME, &ObjKey::cluster("second"));
        assert_eq!(second["status"]["phase"], phase);
        assert_eq!(second["spec"].get("claimRef").is_some(), claimed);
        assert_eq!(bench.json(VOLUME, &v())["status"]["phase"], "Bound");
    }
}

#[test]
fn a_volume_made_for_a_claim_that_is_gone_is_released_at_once() {
    // Trace 21a3: the provisioner finishes after the claim was deleted.
    let mut bench = bench();
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let late = provisioned(&bench, "Delete");
    bench.delete(CLAIM, &data());
    let log = bench.take_log();
    assert_eq!(
        log.last().map(String::as_str),
        Some(HANDED_OVER),
        "a claim that is being deleted is still waited for"
    );
    bench.patch(CLAIM, &data(), false, json!({"metadata": {"finalizers": null}}));
    bench.create(VOLUME, late);
    assert_eq!(bench.take_log(), ["update pv v /status"]);
    assert_eq!(bench.json(VOLUME, &v())["status"]["phase"], "Released");
}

#[test]
fn a_claim_missing_in_the_informers_is_looked_up_before_its_volume_is_released() {
    // 1.5 (4): under load the volume's event can come first; a live GET finds the claim.
    let mut bench = bench();
    bench.hold(CLAIM);
    bench.create(CLAIM, claim(Some("imm"), &json!({})));
    let made = provisioned(&bench, "Delete");
    bench.create(VOLUME, made);
    assert_eq!(bench.take_log(), [""; 0]);
    assert_eq!(bench.json(VOLUME, &v())["status"]["phase"], "Pending");
    bench.release();
    assert_eq!(
        bench.take_log(),
        [
            "update pv v /status",
            "update pvc default/data",
            "update pvc default/data /status"
        ]
    );
}

#[test]
fn what_nobody_can_reclaim_fails_once() {
    let table = [
        (
            json!({"persistentVolumeReclaimPolicy": "Recycle"}),
            "W VolumeFailedRecycle pv v: No recycler plugin found for the volume!",
        ),
        (
            json!({"persistentVolumeReclaimPolicy": "Delete", "csi": null, "nfs": {"server": "s", "path": "/"}}),
            "W VolumeFailedDelete pv v: error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched",
        ),
        (
            json!({"persistentVolumeReclaimPolicy": "Delete", "csi": null, "hostPath": {"path": "/data"}}),
            "W VolumeFailedDelete pv v: host_path deleter only supports /tmp/.+ but received provided /data",
        ),
    ];
    for (spec, event) in table {
        let mut bench = bench();
        bench.create(VOLUME, volume("v", &spec));
        bench.create(CLAIM, claim(Some("imm"), &json!({})));
        bench.delete(CLAIM, &data());
        let _ = bench.take_log();
        bench.patch(CLAIM, &data(), false, json!({"metadata": {"finalizers": null}}));
        assert_eq!(
            bench.take_log(),
            ["update pv v /status", "update pv v /status", event],
            "Released, then Failed"
        );
        bench.run_to(seconds(31));
        assert_eq!(bench.take_log(), [""; 0]);
    }
}
