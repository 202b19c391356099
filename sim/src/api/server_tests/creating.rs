//! What a new object gets, and what is refused of it.

use super::super::write::ChangeType;
use super::super::{Clock, Kind, Object, fields, names};
use super::{Bench, attachment, claim, class, pod, volume};
use serde_json::{Value, json};

#[test]
fn a_new_claim_gets_what_the_server_and_admission_give() {
    let mut bench = Bench::new();
    bench.after(61);
    let object = bench.made(Kind::PersistentVolumeClaim, claim("data", json!({})));
    let Object::PersistentVolumeClaim(claim) = &object else {
        panic!("{object:?}")
    };
    let meta = &claim.metadata;
    assert_eq!(meta.namespace.as_deref(), Some("default"));
    assert_eq!(fields::finalizers(meta), [names::PVC_PROTECTION]);
    assert_eq!(meta.creation_timestamp, Some(Clock::EPOCH.time(bench.now)));
    assert_eq!(meta.generation, None, "claims count no generations");
    assert_eq!(fields::uid(meta).len(), 36);
    assert_eq!(fields::claim_phase(claim), "Pending");
    assert_eq!(claim.spec.as_ref().unwrap().volume_mode.as_deref(), Some("Filesystem"));
    assert_eq!(fields::claim_class(claim), None, "there is no default class");
    let changes = bench.changes();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].change, changes[0].nth), (ChangeType::Added, 1));
    assert_eq!(changes[0].version, object.version());
    assert_eq!(&*changes[0].by, "test");
}

#[test]
fn defaults_of_the_other_kinds() {
    let mut bench = Bench::new();
    let pv = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let Object::PersistentVolume(pv) = &pv else { panic!() };
    assert_eq!(fields::reclaim_policy(pv), "Retain");
    assert_eq!(fields::volume_phase(pv), "Pending");
    assert!(fields::has_finalizer(&pv.metadata, names::PV_PROTECTION));

    let sc = bench.made(Kind::StorageClass, class("c", json!({}))).to_json();
    assert_eq!(
        (&sc["reclaimPolicy"], &sc["volumeBindingMode"]),
        (&json!("Delete"), &json!("Immediate"))
    );

    let driver = bench
        .made(
            Kind::CSIDriver,
            json!({"metadata": {"name": "csi.example.com"}, "spec": {}}),
        )
        .to_json();
    assert_eq!(driver["spec"]["attachRequired"], json!(true));
    assert_eq!(driver["spec"]["volumeLifecycleModes"], json!(["Persistent"]));
    assert_eq!(driver["spec"]["fsGroupPolicy"], json!("ReadWriteOnceWithFSType"));

    let made = bench
        .made(Kind::Pod, pod("p", json!({"volumes": [{"name": "scratch"}]})))
        .to_json();
    assert_eq!(made["metadata"]["generation"], json!(1));
    assert_eq!(made["spec"]["restartPolicy"], json!("Always"));
    assert_eq!(made["spec"]["terminationGracePeriodSeconds"], json!(30));
    assert_eq!(
        made["spec"]["volumes"][0]["emptyDir"],
        json!({}),
        "a volume without a source is an emptyDir"
    );
    let tolerations = made["spec"]["tolerations"].as_array().unwrap();
    let keys: Vec<_> = tolerations
        .iter()
        .map(|t| (&t["key"], &t["tolerationSeconds"]))
        .collect();
    assert_eq!(
        keys,
        [
            (&json!(names::TAINT_NOT_READY), &json!(300)),
            (&json!(names::TAINT_UNREACHABLE), &json!(300))
        ]
    );

    let va = bench.made(Kind::VolumeAttachment, attachment("va")).to_json();
    assert_eq!(va["status"], json!({"attached": false}));
    let snapshot = json!({"metadata": {"name": "s"}, "spec": {"source": {"persistentVolumeClaimName": "data"}}});
    let snapshot = bench.made(Kind::VolumeSnapshot, snapshot).to_json();
    assert_eq!(
        snapshot["apiVersion"],
        json!("snapshot.storage.k8s.io/v1"),
        "ours say what they are, too"
    );
}

#[test]
fn own_tolerations_are_respected() {
    let mut bench = Bench::new();
    let own = json!([{"key": names::TAINT_UNREACHABLE, "operator": "Exists", "tolerationSeconds": 10}]);
    let made = bench.made(Kind::Pod, pod("p", json!({"tolerations": own}))).to_json();
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let all = bench
        .made(Kind::Pod, pod("q", json!({"tolerations": [{"operator": "Exists"}]})))
        .to_json();
    assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
}

#[test]
fn the_default_class_goes_to_claims_that_name_none() {
    let mut bench = Bench::new();
    let mut default = class("standard", json!({}));
    default["metadata"]["annotations"] = json!({names::IS_DEFAULT_CLASS: "true"});
    bench.made(Kind::StorageClass, default);
    for (spec, expected) in [
        (json!({}), "standard"),
        (json!({"storageClassName": ""}), ""),
        (json!({"storageClassName": "other"}), "other"),
    ] {
        let name = format!("c{}", bench.server.version());
        let made = bench.made(Kind::PersistentVolumeClaim, claim(&name, spec));
        assert_eq!(fields::claim_class(made.get().unwrap()), Some(expected));
    }
}

#[test]
fn a_data_source_is_written_in_both_spellings() {
    let mut bench = Bench::new();
    let source = json!({"kind": "PersistentVolumeClaim", "name": "src"});
    for field in ["dataSource", "dataSourceRef"] {
        let made = bench.made(
            Kind::PersistentVolumeClaim,
            claim(&field.to_lowercase(), json!({field: source})),
        );
        let json = made.to_json();
        assert_eq!(json["spec"]["dataSource"], source);
        assert_eq!(json["spec"]["dataSourceRef"], source);
    }
}

#[test]
fn names_are_unique_and_uids_belong_to_incarnations() {
    let mut bench = Bench::new();
    let first = bench.made(Kind::VolumeAttachment, attachment("va"));
    let again = bench.create(Kind::VolumeAttachment, attachment("va")).unwrap_err();
    assert!(again.is_already_exists(), "{again:?}");
    bench.delete(&first, None).unwrap();
    let second = bench.made(Kind::VolumeAttachment, attachment("va"));
    assert_ne!(first.uid(), second.uid());

    let mut other = Bench::new();
    other.made(Kind::Pod, pod("unrelated", json!({})));
    let same = other.made(Kind::VolumeAttachment, attachment("va"));
    assert_eq!(same.uid(), first.uid(), "what else was created does not matter");
}

#[test]
fn generated_names_are_made_and_free() {
    let mut bench = Bench::new();
    let mut names = Vec::new();
    for _ in 0..3 {
        let mut json = pod("", json!({}));
        json["metadata"] = json!({"generateName": "web-"});
        names.push(bench.made(Kind::Pod, json).key().name);
    }
    assert!(names.iter().all(|n| n.starts_with("web-") && n.len() == 9), "{names:?}");
    names.dedup();
    assert_eq!(names.len(), 3);
    let mut json = pod("", json!({}));
    json["metadata"] = json!({});
    let refusal = bench.create(Kind::Pod, json).unwrap_err();
    assert!(
        refusal.message.contains("name or generateName is required"),
        "{refusal}"
    );
}

#[test]
fn a_namespace_must_exist_and_be_alive() {
    let mut bench = Bench::new();
    let mut json = claim("data", json!({}));
    json["metadata"]["namespace"] = json!("team");
    let refusal = bench.create(Kind::PersistentVolumeClaim, json.clone()).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (404, "namespaces \"team\" not found")
    );
    let namespace = bench.made(Kind::Namespace, json!({"metadata": {"name": "team"}}));
    bench.made(Kind::PersistentVolumeClaim, json.clone());
    bench.delete(&namespace, None).unwrap();
    json["metadata"]["name"] = json!("late");
    let refusal = bench.create(Kind::PersistentVolumeClaim, json).unwrap_err();
    assert!(
        refusal.is_forbidden() && refusal.message.contains("being terminated"),
        "{refusal}"
    );
    let finalised = bench.merge(&namespace, json!({"spec": {"finalizers": null}})).unwrap();
    assert!(finalised.changed && bench.stored(&namespace).is_none());
}

/// Each object is refused with 422 and these words.
fn refused(table: &[(Kind, Value, &str)]) {
    let mut bench = Bench::new();
    for (kind, json, words) in table {
        let refusal = bench.create(*kind, json.clone()).expect_err(words);
        assert!(refusal.is_invalid(), "{refusal}");
        assert!(refusal.message.contains(words), "expected {words}, got {refusal}");
    }
}

#[test]
fn new_claims_are_checked_field_by_field() {
    let faulty = |spec| claim("a", spec);
    let table = [
        (claim("Data", json!({})), "metadata.name: Invalid value: \"Data\""),
        (faulty(json!({"accessModes": []})), "spec.accessModes: Required value"),
        (
            faulty(json!({"accessModes": ["RWO"]})),
            "spec.accessModes: Unsupported value: \"RWO\"",
        ),
        (
            faulty(json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]})),
            "may not use ReadWriteOncePod with other access modes",
        ),
        (
            faulty(json!({"resources": {}})),
            "spec.resources[storage]: Required value",
        ),
        (
            faulty(json!({"resources": {"requests": {"storage": "0"}}})),
            "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
        ),
        (
            faulty(json!({"resources": {"requests": {"storage": "5GB"}}})),
            "unable to parse quantity's suffix",
        ),
        (
            faulty(json!({"volumeMode": "Raw"})),
            "spec.volumeMode: Unsupported value",
        ),
        (
            faulty(json!({"dataSource": {"kind": "VolumeSnapshot", "name": "s"}})),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ),
    ];
    refused(&table.map(|(json, words)| (Kind::PersistentVolumeClaim, json, words)));
}

#[test]
fn new_volumes_are_checked_field_by_field() {
    let faulty = |spec| volume("a", spec);
    let table = [
        (
            faulty(json!({"csi": null})),
            "spec: Required value: must specify a volume type",
        ),
        (
            faulty(json!({"nfs": {"server": "s", "path": "/"}})),
            "may not specify more than 1 volume type",
        ),
        (faulty(json!({"capacity": {}})), "spec.capacity: Required value"),
        (faulty(json!({"accessModes": null})), "spec.accessModes: Required value"),
        (
            faulty(json!({"csi": {"driver": "d"}})),
            "spec.csi.volumeHandle: Required value",
        ),
        (
            faulty(json!({"csi": {"driver": "team/driver", "volumeHandle": "h"}})),
            "spec.csi.driver: Invalid value: \"team/driver\"",
        ),
    ];
    refused(&table.map(|(json, words)| (Kind::PersistentVolume, json, words)));
}

#[test]
fn new_pods_are_checked_field_by_field() {
    let faulty = |spec| pod("p", spec);
    let with_volumes = |volumes| pod("p", json!({"volumes": volumes}));
    let mounts = json!([{"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]);
    let devices = json!([{"name": "c", "image": "i", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}]);
    let table = [
        (faulty(json!({"containers": []})), "spec.containers: Required value"),
        (
            faulty(json!({"containers": [{"name": "c"}]})),
            "spec.containers[0].image: Required value",
        ),
        (
            faulty(json!({"containers": mounts})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
        ),
        (
            faulty(json!({"containers": devices, "volumes": [{"name": "v", "emptyDir": {}}]})),
            "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
        ),
        (
            with_volumes(json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}])),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (
            with_volumes(json!([{"name": "v", "csi": {}}])),
            "spec.volumes[0].csi.driver: Required value",
        ),
        (
            with_volumes(json!([{"name": "v", "persistentVolumeClaim": {}}])),
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value",
        ),
        (
            with_volumes(json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}])),
            "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value",
        ),
        (
            faulty(json!({"restartPolicy": "Maybe"})),
            "spec.restartPolicy: Unsupported value",
        ),
    ];
    refused(&table.map(|(json, words)| (Kind::Pod, json, words)));
}

#[test]
fn new_objects_of_other_kinds_are_checked_field_by_field() {
    refused(&[
        (
            Kind::StorageClass,
            json!({"metadata": {"name": "c"}}),
            "provisioner: Required value",
        ),
        (
            Kind::StorageClass,
            class("c", json!({"reclaimPolicy": "Recycle"})),
            "reclaimPolicy: Unsupported value",
        ),
        (
            Kind::StorageClass,
            class("c", json!({"volumeBindingMode": "Later"})),
            "volumeBindingMode: Unsupported value",
        ),
        (
            Kind::VolumeSnapshot,
            json!({"metadata": {"name": "s"}, "spec": {"source": {}}}),
            "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set",
        ),
        (
            Kind::CSIDriver,
            json!({"metadata": {"name": "d"}, "spec": {"volumeLifecycleModes": ["Sometimes"]}}),
            "spec.volumeLifecycleModes: Unsupported value",
        ),
    ]);
}
