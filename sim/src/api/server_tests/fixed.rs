//! What may not change once it is there.

use super::super::Kind;
use super::super::write::Edit;
use super::{Bench, attachment, claim, class, code, pod, volume};
use k8s_openapi::api::storage::v1::{VolumeAttachmentStatus, VolumeError};
use serde_json::json;

#[test]
fn sizes_of_claims_grow_and_shrink_by_the_rules() {
    let size = |text: &str| json!({"spec": {"resources": {"requests": {"storage": text}}}});
    let mut bench = Bench::new();
    let bound = bench.bound_claim();
    assert_eq!(
        code(bench.merge(&bound, size("2Gi"))),
        200,
        "bound, and the class allows it"
    );
    assert_eq!(
        code(bench.merge(&bound, size("1536Mi"))),
        200,
        "back, but above the capacity"
    );
    let refusal = bench.merge(&bound, size("1Gi")).unwrap_err();
    assert!(
        refusal.is_invalid() && refusal.message.contains("less than status.capacity"),
        "{refusal}"
    );
    assert_eq!(code(bench.merge(&bound, size("0"))), 422);

    bench.made(Kind::StorageClass, class("rigid", json!({})));
    for (class, words) in [
        ("rigid", "must support resize"),
        ("none", "must support resize"),
        ("", "must support resize"),
    ] {
        let mut bench = Bench::new();
        bench.made(Kind::StorageClass, self::class("rigid", json!({})));
        let claim = bench.made(
            Kind::PersistentVolumeClaim,
            claim("data", json!({"storageClassName": class})),
        );
        let refusal = bench.merge(&claim, size("2Gi")).unwrap_err();
        assert!(refusal.is_invalid(), "an unbound claim's spec is fixed: {refusal}");
        let status = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        bench.patch_status(&claim, vec![Edit::Merge(status)]).unwrap();
        let refusal = bench.merge(&claim, size("2Gi")).unwrap_err();
        assert!(refusal.is_forbidden() && refusal.message.contains(words), "{refusal}");
    }
}

#[test]
fn the_rest_of_a_claim_is_fixed() {
    let mut bench = Bench::new();
    let bound = bench.bound_claim();
    for spec in [
        json!({"accessModes": ["ReadWriteMany"]}),
        json!({"storageClassName": "other"}),
        json!({"volumeName": "pv-2"}),
        json!({"volumeMode": "Block"}),
        json!({"selector": {"matchLabels": {"a": "b"}}}),
        json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "src"}}),
    ] {
        let refusal = bench.merge(&bound, json!({"spec": spec})).unwrap_err();
        assert!(
            refusal.is_invalid() && refusal.message.contains("spec is immutable"),
            "{spec}: {refusal}"
        );
    }
    let unset = bench.made(Kind::PersistentVolumeClaim, claim("late", json!({})));
    let class = json!({"spec": {"storageClassName": "fast"}});
    assert_eq!(
        code(bench.merge(&unset, class)),
        200,
        "a class may be filled in where none was set"
    );

    let gold = json!({"spec": {"volumeAttributesClassName": "gold"}});
    assert_eq!(code(bench.merge(&bound, gold)), 200, "bound claims may change it");
    let status = json!({"status": {"currentVolumeAttributesClassName": "gold"}});
    bench.patch_status(&bound, vec![Edit::Merge(status)]).unwrap();
    for none in [json!(null), json!("")] {
        let patch = json!({"spec": {"volumeAttributesClassName": none}});
        assert_eq!(code(bench.merge(&bound, patch)), 422, "but not take it away again");
    }
}

#[test]
fn what_is_fixed_in_other_kinds() {
    let mut bench = Bench::new();
    let pv = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let sc = bench.made(Kind::StorageClass, class("c", json!({"parameters": {"a": "b"}})));
    let driver = bench.made(
        Kind::CSIDriver,
        json!({"metadata": {"name": "csi.example.com"}, "spec": {}}),
    );
    let va = bench.made(Kind::VolumeAttachment, attachment("va"));
    let running = bench.made(Kind::Pod, pod("p", json!({})));
    let offers = json!({"metadata": {"name": "a"}, "spec": {"drivers": [
        {"name": "csi.example.com", "nodeID": "a", "topologyKeys": ["zone"], "allocatable": {"count": 3}}]}});
    let node = bench.made(Kind::CSINode, offers);
    let drivers = |id: &str, count: i32| {
        json!({"spec": {"drivers": [
            {"name": "csi.example.com", "nodeID": id, "topologyKeys": ["zone"], "allocatable": {"count": count}}]}})
    };
    for (object, patch, expected) in [
        (&pv, json!({"spec": {"csi": {"volumeHandle": "other"}}}), 422),
        (
            &pv,
            json!({"spec": {"csi": {"controllerExpandSecretRef": {"name": "s", "namespace": "n"}}}}),
            200,
        ),
        (
            &pv,
            json!({"spec": {"csi": {"controllerExpandSecretRef": {"name": "t", "namespace": "n"}}}}),
            422,
        ),
        (&pv, json!({"spec": {"volumeMode": "Block"}}), 422),
        (&pv, json!({"spec": {"capacity": {"storage": "2Gi"}}}), 200),
        (&pv, json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}), 200),
        (&sc, json!({"provisioner": "other"}), 422),
        (&sc, json!({"parameters": {"a": "c"}}), 422),
        (&sc, json!({"reclaimPolicy": "Retain"}), 422),
        (&sc, json!({"volumeBindingMode": "WaitForFirstConsumer"}), 422),
        (&sc, json!({"allowVolumeExpansion": true}), 200),
        (&driver, json!({"spec": {"attachRequired": false}}), 422),
        (&driver, json!({"spec": {"volumeLifecycleModes": ["Ephemeral"]}}), 422),
        (&driver, json!({"spec": {"podInfoOnMount": true}}), 200),
        (&va, json!({"spec": {"nodeName": "b"}}), 422),
        (&running, json!({"spec": {"nodeName": "b"}}), 422),
        (
            &running,
            json!({"spec": {"containers": [{"name": "c", "image": "j"}]}}),
            200,
        ),
        (&node, drivers("other", 3), 422),
        (&node, drivers("a", 5), 200),
    ] {
        let result = bench.merge(object, patch.clone());
        assert_eq!(
            code(result.clone()),
            expected,
            "{} {patch}: {result:?}",
            object.to_ref()
        );
    }
}

#[test]
fn an_attachments_error_has_at_most_1024_bytes() {
    let mut bench = Bench::new();
    let va = bench.made(Kind::VolumeAttachment, attachment("va"));
    for (length, expected) in [(1024, 200), (1025, 422)] {
        let status = VolumeAttachmentStatus {
            attach_error: Some(VolumeError {
                message: Some("x".repeat(length)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let edits = vec![Edit::AttachmentStatus(Box::new(status))];
        assert_eq!(code(bench.patch_status(&va, edits)), expected, "{length}");
    }
    let status = VolumeAttachmentStatus {
        attachment_metadata: Some([("k".to_string(), "x".repeat(256 * 1024))].into()),
        ..Default::default()
    };
    assert_eq!(
        code(bench.patch_status(&va, vec![Edit::AttachmentStatus(Box::new(status))])),
        422
    );
}
