//! Volumes: adopted, deleted, counted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::json;
use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use super::{DRIVER, Flags, INDEXES, bench, bind, claim, manifest, shells, willing};
use crate::api::{Kind, ObjKey, ObjectRef, fields};
use crate::link::{CsiReply, CsiRequest};
use crate::sidecars::bench::{Bench, assert_lines, refuses};

#[test]
fn a_released_volume_is_deleted_and_how_often_is_a_race() {
    // Traces 01 and 10: DeleteVolume, DELETE, patch. The events of the latter two queue the volume again; whether the informer still shows the finalizer
    // then decides about a second round (trace 01: one, trace 10: none).
    let once = "DeleteVolume
        delete pv
        patch pv";
    let twice = "DeleteVolume
        delete pv
        patch pv
        DeleteVolume
        delete pv";
    for (watch, expected) in [(1200, once), (2500, twice)] {
        let mut bench = bench(willing);
        let volume = claim(&mut bench, "data", manifest("data", "imm"));
        bench.run_ms(100);
        bind(&mut bench, "data", &volume);
        bench.run_ms(1000);
        bench.take_log();
        bench.watch = Duration::from_micros(watch);
        bench.patch_status(&volume, json!({"status": {"phase": "Released"}}));
        bench.run_ms(3000);
        assert_lines(&bench.take_log(), expected);
        let left = bench.get::<PersistentVolume>(&volume.key);
        assert_eq!(fields::finalizers(&left.metadata), ["kubernetes.io/pv-protection"]);
    }
}

#[test]
fn a_hand_made_volume_of_policy_delete_is_adopted() {
    // Trace 13: the finalizer is added when the volume is Bound, DeleteVolume is called on release.
    let mut bench = bench(willing);
    let volume = json!({
        "metadata": {"name": "static"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": DRIVER, "volumeHandle": "mine"}},
    });
    let volume = bench.create(Kind::PersistentVolume, volume).to_ref();
    bench.run_ms(100);
    assert_lines(&bench.take_log(), "");
    bench.patch_status(&volume, json!({"status": {"phase": "Bound"}}));
    bench.run_ms(100);
    assert_lines(&bench.take_log(), "patch pv");
    let kept = bench.get::<PersistentVolume>(&volume.key);
    assert!(fields::has_finalizer(
        &kept.metadata,
        "external-provisioner.volume.kubernetes.io/finalizer"
    ));
    bench.patch(&volume, json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}));
    bench.run_ms(100);
    assert_lines(&bench.take_log(), "patch pv");
    bench.patch_status(&volume, json!({"status": {"phase": "Released"}}));
    bench.run_ms(100);
    assert_lines(&bench.take_log(), "");
    bench.patch(&volume, json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}));
    bench.run_ms(100);
    assert_eq!(bench.take_log()[0], "DeleteVolume");
}

#[test]
fn an_attached_volume_is_not_deleted_and_its_detachment_wakes_nobody() {
    // Trace 11: "still attached" at 0, 1, 3 s, DeleteVolume at 7 s although the attachment was gone earlier.
    let mut bench = bench(willing);
    let volume = claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(100);
    let attachment = bench.create(
        Kind::VolumeAttachment,
        json!({"metadata": {"name": "va"}, "spec": {"attacher": DRIVER, "nodeName": "node-a",
            "source": {"persistentVolumeName": &*volume.key.name}}}),
    );
    bind(&mut bench, "data", &volume);
    bench.run_ms(100);
    bench.take_log();
    bench.patch_status(&volume, json!({"status": {"phase": "Released"}}));
    bench.run_ms(3500);
    bench.delete(&attachment.to_ref());
    bench.run_ms(5000);
    let told = format!(
        "  persistentvolume {} is still attached to node node-a",
        volume.key.name
    );
    let refusals = bench.moments(&told);
    assert_eq!(
        refusals.iter().map(|t| (t - refusals[0]) / 10 * 10).collect::<Vec<_>>(),
        [0, 1000, 3000]
    );
    let first = bench.moments("DeleteVolume")[0];
    assert_eq!((first - refusals[0]) / 100 * 100, 7000);
}

#[test]
fn a_failed_deletion_is_told_and_repeated() {
    // Trace 21e; NotFound is an error like any other (fact sheet 3.7).
    let failures = Rc::new(Cell::new(2));
    let left = Rc::clone(&failures);
    let mut bench = bench(move |request: &CsiRequest| match request {
        CsiRequest::DeleteVolume(_) if left.get() > 0 => {
            left.set(left.get() - 1);
            refuses(Code::NotFound)
        }
        other => willing(other),
    });
    let volume = claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(100);
    bench.take_log();
    bench.patch_status(&volume, json!({"status": {"phase": "Released"}}));
    bench.run_ms(4000);
    let log = bench.take_log();
    assert_lines(
        &log[..7],
        "DeleteVolume!NotFound
        +VolumeFailedDelete
        DeleteVolume!NotFound
        +VolumeFailedDelete
        DeleteVolume
        delete pv
        patch pv",
    );
    assert_eq!(failures.get(), 0);
}

#[test]
fn secrets_are_read_live_for_creating_and_for_deleting() {
    let mut bench = bench(willing);
    let volume = claim(&mut bench, "data", manifest("data", "secret"));
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        +ProvisioningFailed",
    );
    bench.create(
        Kind::Secret,
        json!({"metadata": {"name": "key", "namespace": "default"}, "data": {"token": "c2VzYW1l"}}),
    );
    bench.run_ms(2000);
    let secrets = |bench: &Bench| match bench.calls.last().unwrap() {
        CsiRequest::CreateVolume(r) => r.secrets.clone(),
        CsiRequest::DeleteVolume(r) => r.secrets.clone(),
        other => panic!("{} has no secrets here", other.method()),
    };
    assert_eq!(secrets(&bench), [("token".to_owned(), "sesame".to_owned())].into());
    let made = bench.get::<PersistentVolume>(&volume.key);
    let noted = |key: &str| fields::annotation(&made.metadata, key).map(str::to_owned);
    assert_eq!(
        noted("volume.kubernetes.io/provisioner-deletion-secret-name").as_deref(),
        Some("key")
    );
    assert_eq!(
        noted("volume.kubernetes.io/provisioner-deletion-secret-namespace").as_deref(),
        Some("default")
    );
    bench.delete(&ObjectRef::new(Kind::Secret, ObjKey::new("default", "key")));
    bench.patch_status(&volume, json!({"status": {"phase": "Released"}}));
    bench.run_ms(50);
    assert!(secrets(&bench).is_empty(), "a missing secret does not keep the volume");
}

#[test]
fn capacities_are_published_per_class_and_segment_and_refreshed_when_something_was_made() {
    // Fact sheet 3.9.
    let flags = Flags {
        enable_capacity: true,
        ..Flags::default()
    };
    let mut bench = Bench::new(shells(DRIVER, &flags), INDEXES, willing);
    for node in ["node-a", "node-b"] {
        bench.create(
            Kind::Node,
            json!({"metadata": {"name": node, "labels": {"zone": node}}}),
        );
        let registered = json!({"name": DRIVER, "nodeID": node, "topologyKeys": ["zone"]});
        bench.create(
            Kind::CSINode,
            json!({"metadata": {"name": node}, "spec": {"drivers": [registered]}}),
        );
    }
    for (name, mode) in [("imm", "Immediate"), ("wffc", "WaitForFirstConsumer")] {
        let class = json!({"metadata": {"name": name}, "provisioner": DRIVER, "volumeBindingMode": mode, "parameters": {"k": "v"}});
        bench.create(Kind::StorageClass, class);
    }
    bench.start();
    bench.run_ms(1000);
    let published = |bench: &Bench| {
        let all = bench.server.list::<CSIStorageCapacity>();
        all.map(|c| c.capacity.as_ref().unwrap().0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        published(&bench),
        ["1Ti", "1Ti"],
        "not for the class with Immediate binding"
    );
    bench.drive(|request| match request {
        CsiRequest::GetCapacity(request) => {
            assert_eq!(request.parameters["k"], "v");
            Ok(CsiReply::GetCapacity(csi::GetCapacityResponse {
                available_capacity: 1 << 30,
                ..Default::default()
            }))
        }
        other => willing(other),
    });
    let mut late = manifest("data", "wffc");
    late["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!("node-b");
    claim(&mut bench, "data", late);
    bench.run_ms(1000);
    assert_eq!(
        bench.moments("update csisc").len(),
        1,
        "only the segment of the new volume"
    );
    bench.run_ms(60_000);
    assert_eq!(published(&bench), ["1Gi", "1Gi"]);
    bench.delete(&ObjectRef::new(Kind::StorageClass, ObjKey::cluster("wffc")));
    bench.run_ms(1000);
    assert!(published(&bench).is_empty());
}
