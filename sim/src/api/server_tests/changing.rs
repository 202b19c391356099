//! Updates, patches, reads, and what watchers see of them.

use super::super::write::{ChangeType, Delete, Edit, Patch, Read, ReadAnswer, Write};
use super::super::{Clock, Kind, ObjKey, Object, ObjectRef, fields, names};
use super::{Bench, attachment, claim, class, code, pod, volume};
use crate::runtime::Time;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn an_update_needs_the_newest_version_or_a_kind_that_takes_none() {
    let mut bench = Bench::new();
    let stale = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let newest = bench
        .patch(&stale, vec![Edit::Label("a".into(), Some("b".into()))])
        .unwrap()
        .object;
    let refusal = bench.update(&stale).unwrap_err();
    assert!(
        refusal.is_conflict() && refusal.message.contains("please apply your changes"),
        "{refusal}"
    );
    let mut unconditional = stale.clone();
    unconditional.meta_mut().resource_version = None;
    assert!(bench.update(&unconditional).unwrap().changed, "last write wins");
    assert!(bench.update(&newest).unwrap_err().is_conflict());

    let mut va = bench.made(Kind::VolumeAttachment, attachment("va"));
    va.meta_mut().resource_version = None;
    let refusal = bench.update(&va).unwrap_err();
    assert!(
        refusal.is_invalid() && refusal.message.contains("must be specified for an update"),
        "{refusal}"
    );

    let mut other = newest.clone();
    other.meta_mut().uid = Some("another".into());
    assert!(
        bench.update(&other).unwrap_err().is_conflict(),
        "another object of that name"
    );
    let missing = Object::from_json(Kind::PersistentVolume, volume("none", json!({}))).unwrap();
    assert!(bench.update(&missing).unwrap_err().is_not_found());
}

#[test]
fn a_write_of_equal_bytes_changes_nothing_and_wakes_nobody() {
    let mut bench = Bench::new();
    let pv = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let node = bench.made(Kind::Node, json!({"metadata": {"name": "a"}}));
    bench.changes();
    let version = bench.server.version();
    let same_pv: Vec<Vec<Edit>> = vec![
        vec![],
        vec![Edit::RemoveFinalizer("none/here".into())],
        vec![Edit::AddFinalizer(names::PV_PROTECTION.into())],
        vec![Edit::Annotation("none".into(), None)],
        vec![Edit::VolumeCapacity(1 << 30)],
        vec![Edit::Merge(json!({"spec": {"capacity": {"storage": "1024Mi"}}}))],
        vec![Edit::Merge(json!({"metadata": {"labels": {}}}))],
    ];
    for edits in same_pv {
        let written = bench.patch(&pv, edits.clone()).unwrap();
        assert!(!written.changed, "{edits:?}");
        assert_eq!(written.object.version(), pv.version());
    }
    assert!(!bench.update(&pv).unwrap().changed);
    assert!(
        !bench
            .patch(&node, vec![Edit::Taints(vec![]), Edit::Unschedulable(false)])
            .unwrap()
            .changed
    );
    assert!(
        !bench
            .patch_status(&node, vec![Edit::VolumesInUse(vec![])])
            .unwrap()
            .changed
    );
    assert_eq!((bench.seen(), bench.server.version()), (vec![], version));
}

#[test]
fn status_and_spec_are_written_apart() {
    let mut bench = Bench::new();
    let claim = bench.made(Kind::PersistentVolumeClaim, claim("data", json!({})));
    let status =
        json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"volumeName": "x"}, "status": {"phase": "Lost"}});
    let written = bench.patch_status(&claim, vec![Edit::Merge(status)]).unwrap().object;
    let json = written.to_json();
    assert_eq!(json["spec"].get("volumeName"), None, "a status write keeps the spec");
    assert_eq!(
        json["metadata"]["annotations"],
        json!({"a": "b"}),
        "but lets annotations of a claim through"
    );
    assert_eq!(json["status"]["phase"], json!("Lost"));
    let written = bench.merge(&written, json!({"status": {"phase": "Bound"}})).unwrap();
    assert!(!written.changed, "a write to the object keeps the status");

    let va = bench.made(Kind::VolumeAttachment, attachment("va"));
    let both = json!({"metadata": {"annotations": {"a": "b"}}, "status": {"attached": true}});
    let written = bench
        .patch_status(&va, vec![Edit::Merge(both)])
        .unwrap()
        .object
        .to_json();
    assert_eq!(written["status"]["attached"], json!(true));
    assert_eq!(
        written["metadata"].get("annotations"),
        None,
        "an attachment's status write keeps all metadata"
    );

    let sc = bench.made(Kind::StorageClass, class("c", json!({})));
    assert_eq!(
        code(bench.write(&Write::UpdateStatus(sc))),
        404,
        "a class has no status"
    );
    let bug = bench.patch(&claim, vec![Edit::ClaimStatus(Box::default())]);
    assert_eq!(
        code(bug),
        400,
        "a typed status edit that the server would drop is a bug, and is told"
    );
}

#[test]
fn generations_count_changes_of_the_spec_and_the_deletion() {
    let mut bench = Bench::new();
    let generation = |object: &Object| object.meta().generation;
    let mut pod = bench.made(Kind::Pod, pod("p", json!({"nodeName": "a"})));
    pod = bench
        .patch(&pod, vec![Edit::Label("a".into(), Some("b".into()))])
        .unwrap()
        .object;
    assert_eq!(generation(&pod), Some(1));
    pod = bench
        .merge(&pod, json!({"spec": {"activeDeadlineSeconds": 9}}))
        .unwrap()
        .object;
    assert_eq!(generation(&pod), Some(2));
    pod = bench.delete(&pod, None).unwrap().object;
    assert_eq!(generation(&pod), Some(3));
}

#[test]
fn a_volumes_change_of_phase_is_stamped() {
    let mut bench = Bench::new();
    let pv = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let stamp = |o: &Object| {
        o.get::<PersistentVolume>()
            .unwrap()
            .status
            .as_ref()
            .unwrap()
            .last_phase_transition_time
            .clone()
    };
    assert_eq!(stamp(&pv), Some(Clock::EPOCH.time(Time::ZERO)));
    bench.after(5);
    let mut status = pv.get::<PersistentVolume>().unwrap().status.clone().unwrap();
    status.message = Some("same phase".into());
    let same = bench
        .patch_status(&pv, vec![Edit::VolumeStatus(Box::new(status.clone()))])
        .unwrap()
        .object;
    assert_eq!(stamp(&same), Some(Clock::EPOCH.time(Time::ZERO)));
    status.phase = Some("Available".into());
    let available = bench
        .patch_status(&pv, vec![Edit::VolumeStatus(Box::new(status))])
        .unwrap()
        .object;
    assert_eq!(stamp(&available), Some(Clock::EPOCH.time(bench.now)));
}

#[test]
fn patches_meet_the_newest_object_unless_they_carry_a_version() {
    let mut bench = Bench::new();
    let old = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    bench
        .patch(&old, vec![Edit::Label("a".into(), Some("b".into()))])
        .unwrap();
    let label = || vec![Edit::Label("c".into(), Some("d".into()))];
    let patch = |version, uid: Option<&str>| {
        let mut patch = Patch::new(old.to_ref(), label());
        (patch.version, patch.uid) = (version, uid.map(String::from));
        Write::Patch(patch)
    };
    assert!(
        bench
            .write(&patch(Some(old.version()), None))
            .unwrap_err()
            .is_conflict()
    );
    assert!(bench.write(&patch(None, Some("another"))).unwrap_err().is_conflict());
    let stale_body = json!({"metadata": {"resourceVersion": old.meta().resource_version, "labels": {"c": "d"}}});
    assert!(bench.merge(&old, stale_body).unwrap_err().is_conflict());
    assert!(
        bench.write(&patch(None, Some(old.uid()))).unwrap().changed,
        "no version, no conflict"
    );
}

#[test]
fn json_patches_of_finalizers_test_what_they_saw() {
    let mut bench = Bench::new();
    let pv = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let at = |name: &str, index| Edit::RemoveFinalizerAt {
        name: name.into(),
        index,
    };
    let append = |expect_none| Edit::AppendFinalizer {
        name: "x.io/f".into(),
        expect_none,
    };
    assert_eq!(code(bench.patch(&pv, vec![append(true)])), 422, "there is one already");
    bench.patch(&pv, vec![append(false)]).unwrap();
    assert_eq!(
        code(bench.patch(&pv, vec![at("x.io/f", 0)])),
        422,
        "another stands there"
    );
    assert_eq!(
        code(bench.patch(&pv, vec![at("x.io/f", 2)])),
        422,
        "nothing stands there"
    );
    bench.patch(&pv, vec![at("x.io/f", 1)]).unwrap();
    let left = bench.stored(&pv).unwrap();
    assert_eq!(fields::finalizers(left.meta()), [names::PV_PROTECTION]);
    let json = json!([{"op": "test", "path": "/metadata/finalizers/0", "value": "x.io/f"}]);
    assert_eq!(code(bench.patch(&pv, vec![Edit::Json(json)])), 422);
}

#[test]
fn a_users_patch_is_read_strictly() {
    let mut bench = Bench::new();
    let pv = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    for (patch, code_expected, words) in [
        (json!({"spec": {"capcity": {}}}), 400, "unknown field \"spec.capcity\""),
        (json!({"spec": {"accessModes": "ReadWriteOnce"}}), 400, "invalid type"),
        (
            json!({"metadata": {"name": "w"}}),
            400,
            "does not match the name on the URL",
        ),
        (json!({"metadata": {"uid": "w"}}), 409, "UID in precondition"),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            422,
            "field is immutable",
        ),
    ] {
        let refusal = bench.merge(&pv, patch.clone()).unwrap_err();
        assert_eq!(refusal.code, code_expected, "{patch}: {refusal}");
        assert!(refusal.message.contains(words), "{patch}: {refusal}");
    }
    let refusal = bench
        .patch(&pv, vec![Edit::Json(json!([{"op": "zap", "path": "/a"}]))])
        .unwrap_err();
    assert_eq!(refusal.code, 400);
}

#[test]
fn a_kubelet_writes_only_what_is_its_own() {
    let mut bench = Bench::new();
    bench.server.restrict_to_node("kubelet a", "a");
    let node_a = bench.made(Kind::Node, json!({"metadata": {"name": "a"}}));
    let node_b = bench.made(Kind::Node, json!({"metadata": {"name": "b"}}));
    let pod_a = bench.made(Kind::Pod, pod("pa", json!({"nodeName": "a"})));
    let pod_b = bench.made(Kind::Pod, pod("pb", json!({"nodeName": "b"})));
    let pv = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let label = |o: &Object| Write::Patch(Patch::new(o.to_ref(), vec![Edit::Label("x".into(), Some("y".into()))]));
    let status = |o: &Object| Write::Patch(Patch::status(o.to_ref(), vec![]));
    for (write, expected) in [
        (label(&node_a), 200),
        (label(&node_b), 403),
        (status(&pod_a), 200),
        (status(&pod_b), 403),
        (label(&pod_a), 403),
        (label(&pv), 403),
        (Write::Delete(Delete::new(pod_b.to_ref())), 403),
        (Write::Delete(Delete::new(pod_a.to_ref())), 200),
    ] {
        let result = bench.server.write("kubelet a", &write, Time::ZERO);
        assert_eq!(code(result), expected, "{write}");
    }
}

#[test]
fn reads_see_the_newest_state() {
    let mut bench = Bench::new();
    bench.made(Kind::Namespace, json!({"metadata": {"name": "team"}}));
    let here = bench.made(Kind::PersistentVolumeClaim, claim("data", json!({})));
    let mut json = claim("data", json!({}));
    json["metadata"]["namespace"] = json!("team");
    let there = bench.made(Kind::PersistentVolumeClaim, json);
    let list = |namespace: Option<&str>| Read::List {
        kind: Kind::PersistentVolumeClaim,
        namespace: namespace.map(String::from),
    };
    let server = &bench.server;
    assert_eq!(
        server.read(&list(None)),
        Ok(ReadAnswer::List(vec![here.clone(), there.clone()]))
    );
    assert_eq!(server.read(&list(Some("team"))), Ok(ReadAnswer::List(vec![there])));
    assert_eq!(server.read(&Read::Get(here.to_ref())), Ok(ReadAnswer::Object(here)));
    let missing = ObjectRef::to::<Pod>(&ObjKey::new("default", "none"));
    assert_eq!(
        server.read(&Read::Get(missing)).unwrap_err().message,
        "pods \"none\" not found"
    );
    assert_eq!(server.list::<PersistentVolumeClaim>().count(), 2);
    assert!(server.get::<StorageClass>(&ObjKey::cluster("none")).is_none());
}

#[test]
fn a_name_counts_its_changes_over_all_its_incarnations() {
    let mut bench = Bench::new();
    let va = bench.made(Kind::VolumeAttachment, attachment("va"));
    bench
        .patch(&va, vec![Edit::Label("a".into(), Some("b".into()))])
        .unwrap();
    bench.delete(&va, None).unwrap();
    bench.made(Kind::VolumeAttachment, attachment("va"));
    let changes = bench.changes();
    assert_eq!(changes.iter().map(|c| c.nth).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(changes.windows(2).all(|w| w[0].version < w[1].version));
    let modified = &changes[1];
    assert_eq!(modified.old.as_ref().unwrap().version(), va.version());
    assert_eq!(&*modified.key.name, "va");
}

#[test]
fn events_are_forgotten_some_time_after_their_last_write() {
    let mut bench = Bench::new();
    assert_eq!(bench.server.event_ttl, Duration::from_secs(3600), "an hour by default");
    bench.server.event_ttl = Duration::from_secs(600);
    let event =
        json!({"metadata": {"name": "data.1"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let event = bench.made(Kind::Event, event);
    bench.after(300);
    let seen = Edit::EventSeen {
        count: 2,
        message: None,
    };
    bench.patch(&event, vec![seen]).unwrap();
    bench.after(300);
    bench.server.expire_events(bench.now);
    assert!(bench.stored(&event).is_some(), "it was written five minutes ago");
    bench.after(300);
    assert_eq!(bench.server.next_expiry(), Some(bench.now));
    bench.server.expire_events(bench.now);
    assert!(bench.stored(&event).is_none());
    assert_eq!(bench.changes().last().unwrap().change, ChangeType::Deleted);
    assert_eq!(bench.server.next_expiry(), None);
}

#[test]
fn what_was_handed_out_never_changes() {
    let mut bench = Bench::new();
    let before = bench.made(Kind::PersistentVolume, volume("v", json!({})));
    let copy = before.to_json();
    bench.patch(&before, vec![Edit::VolumeCapacity(2 << 30)]).unwrap();
    assert_eq!(before.to_json(), copy, "caches share objects with the store");
    let stored = bench.server.get::<VolumeAttachment>(&ObjKey::cluster("none"));
    assert!(stored.map(Arc::clone).is_none());
}
