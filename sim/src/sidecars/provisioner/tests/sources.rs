//! Claims that are born with contents.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;

use super::{DRIVER, bench, bind, claim, claim_ref, manifest, willing};
use crate::api::snapshot::VolumeSnapshot;
use crate::api::{Kind, ObjKey, fields};
use crate::link::CsiRequest;
use crate::sidecars::bench::assert_lines;

#[test]
fn a_clone_protects_its_source_until_that_is_deleted() {
    // Trace 10: update of the source, CreateVolume with its handle, create PV; the finalizer goes when the source is deleted.
    let mut bench = bench(willing);
    let source = claim(&mut bench, "src", manifest("src", "imm"));
    bench.run_ms(100);
    bind(&mut bench, "src", &source);
    bench.run_ms(100);
    bench.take_log();
    let mut clone = manifest("clone", "imm");
    clone["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "src"});
    let cloned = claim(&mut bench, "clone", clone);
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        update pvc
        CreateVolume
        create pv
        +ProvisioningSucceeded",
    );
    let CsiRequest::CreateVolume(request) = bench.calls.last().unwrap() else {
        panic!("not a CreateVolume")
    };
    assert!(request.volume_content_source.is_some());
    bind(&mut bench, "clone", &cloned);
    bench.run_ms(100);
    assert_lines(&bench.take_log(), "");
    bench.delete(&claim_ref("src"));
    bench.run_ms(100);
    assert_lines(&bench.take_log(), "update pvc");
    let left = bench.get::<PersistentVolumeClaim>(&claim_ref("src").key);
    assert_eq!(fields::finalizers(&left.metadata), ["kubernetes.io/pvc-protection"]);
}

#[test]
fn a_clone_of_an_unbound_source_is_tried_again() {
    let mut bench = bench(willing);
    let mut clone = manifest("clone", "imm");
    clone["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "src"});
    claim(&mut bench, "clone", clone);
    bench.run_ms(500);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        +ProvisioningFailed",
    );
    bench.run_ms(1000);
    assert_eq!(bench.moments("+ProvisioningFailed").len(), 2);
}

#[test]
fn a_restore_protects_the_snapshot_while_it_runs() {
    // Trace 09: the finalizer is taken off after CreateVolume and before the volume object is created.
    let mut bench = bench(willing);
    let snapshot = bench.create(
        Kind::VolumeSnapshot,
        json!({"metadata": {"name": "snap", "namespace": "default"}, "spec": {"source": {"persistentVolumeClaimName": "src"}},
            "status": {"boundVolumeSnapshotContentName": "content", "readyToUse": true, "restoreSize": "1Gi"}}),
    );
    bench.create(
        Kind::VolumeSnapshotContent,
        json!({"metadata": {"name": "content"},
            "spec": {"deletionPolicy": "Delete", "driver": DRIVER, "source": {"volumeHandle": "h"},
                "volumeSnapshotRef": {"name": "snap", "namespace": "default", "uid": snapshot.uid()}},
            "status": {"snapshotHandle": "cut"}}),
    );
    let mut restore = manifest("restore", "imm");
    restore["spec"]["dataSource"] =
        json!({"kind": "VolumeSnapshot", "name": "snap", "apiGroup": "snapshot.storage.k8s.io"});
    claim(&mut bench, "restore", restore);
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        update vs
        CreateVolume
        update vs
        create pv
        +ProvisioningSucceeded",
    );
    let left = bench.get::<VolumeSnapshot>(&ObjKey::new("default", "snap"));
    assert!(fields::finalizers(&left.metadata).is_empty());
}

#[test]
fn a_source_of_another_kind_is_a_populators_business() {
    let mut bench = bench(willing);
    let mut populated = manifest("data", "imm");
    populated["spec"]["dataSource"] = json!({"kind": "Book", "name": "b", "apiGroup": "example.com"});
    claim(&mut bench, "data", populated);
    bench.run_ms(60_000);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        +Provisioning",
    );
}
