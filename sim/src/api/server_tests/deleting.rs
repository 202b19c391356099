//! How objects end, and how a pod is bound.

use super::super::write::{ChangeType, Delete, Edit, Write};
use super::super::{Clock, Kind, Object, fields, names};
use super::{Bench, attachment, claim, pod};
use serde_json::json;

#[test]
fn finalizers_hold_an_object_and_the_last_one_takes_it_along() {
    let mut bench = Bench::new();
    let claim = bench.made(Kind::PersistentVolumeClaim, claim("data", json!({})));
    bench.changes();
    bench.after(7);
    let deleting = bench.delete(&claim, None).unwrap().object;
    assert_eq!(deleting.meta().deletion_timestamp, Some(Clock::EPOCH.time(bench.now)));
    assert_eq!(deleting.meta().deletion_grace_period_seconds, Some(0));
    assert_eq!(bench.seen(), [ChangeType::Modified]);

    bench.after(1);
    let again = bench.delete(&claim, None).unwrap();
    assert!(!again.changed, "a second DELETE changes nothing");
    assert_eq!(again.object, deleting);

    let late = bench
        .patch(&claim, vec![Edit::AddFinalizer("x.io/late".into())])
        .unwrap_err();
    assert!(
        late.is_invalid() && late.message.contains("no new finalizers can be added"),
        "{late}"
    );

    let last = bench
        .patch(&claim, vec![Edit::RemoveFinalizer(names::PVC_PROTECTION.into())])
        .unwrap();
    assert!(fields::finalizers(last.object.meta()).is_empty());
    let changes = bench.changes();
    assert_eq!(changes.len(), 1, "no MODIFIED before the DELETED");
    assert_eq!(changes[0].change, ChangeType::Deleted);
    assert_eq!(
        changes[0].object.version(),
        bench.server.version(),
        "the last state has a version of its own"
    );
    let seen = fields::finalizers(changes[0].object.meta());
    assert_eq!(seen, [names::PVC_PROTECTION], "watchers see what was stored");
    assert!(bench.stored(&claim).is_none());
    assert!(bench.delete(&claim, None).unwrap_err().is_not_found());
}

#[test]
fn deletes_check_their_preconditions() {
    let mut bench = Bench::new();
    let va = bench.made(Kind::VolumeAttachment, attachment("va"));
    let delete = |uid: Option<&str>, version| {
        Write::Delete(Delete {
            uid: uid.map(String::from),
            version,
            ..Delete::new(va.to_ref())
        })
    };
    assert!(bench.write(&delete(Some("another"), None)).unwrap_err().is_conflict());
    assert!(bench.write(&delete(None, Some(1))).unwrap_err().is_conflict());
    assert!(
        bench
            .write(&delete(Some(va.uid()), Some(va.version())))
            .unwrap()
            .changed
    );
    let changes = bench.changes();
    assert_eq!(changes.last().unwrap().change, ChangeType::Deleted);
    assert!(changes.last().unwrap().version > va.version());
}

#[test]
fn a_running_pod_is_granted_its_grace_and_it_only_shrinks() {
    let mut bench = Bench::new();
    let pod = bench.made(Kind::Pod, pod("p", json!({"nodeName": "a"})));
    bench.changes();
    let end = |o: &Object| {
        let meta = o.meta();
        (
            meta.deletion_timestamp
                .as_ref()
                .map(|t| Clock::EPOCH.moment(t).as_secs()),
            meta.deletion_grace_period_seconds,
        )
    };
    bench.after(100);
    assert_eq!(end(&bench.delete(&pod, None).unwrap().object), (Some(130), Some(30)));
    assert!(!bench.delete(&pod, None).unwrap().changed);
    assert!(!bench.delete(&pod, Some(60)).unwrap().changed, "it cannot be prolonged");
    bench.after(5);
    assert_eq!(
        end(&bench.delete(&pod, Some(20)).unwrap().object),
        (Some(120), Some(20))
    );
    assert_eq!(
        end(&bench.delete(&pod, Some(2)).unwrap().object),
        (Some(105), Some(1)),
        "not into the past"
    );
    bench.changes();
    let last = bench.delete(&pod, Some(0)).unwrap().object;
    assert_eq!(end(&last), (Some(105), Some(0)));
    assert_eq!(
        bench.seen(),
        [ChangeType::Modified, ChangeType::Deleted],
        "as recorded from the real server"
    );
    assert!(bench.stored(&pod).is_none());
}

#[test]
fn a_pod_that_no_kubelet_runs_goes_at_once() {
    for (spec, phase) in [
        (json!({}), "Pending"),
        (json!({"nodeName": "a"}), "Succeeded"),
        (json!({"nodeName": "a"}), "Failed"),
    ] {
        let mut bench = Bench::new();
        let pod = bench.made(Kind::Pod, pod("p", spec));
        let status = json!({"status": {"phase": phase}});
        bench.patch_status(&pod, vec![Edit::Merge(status)]).unwrap();
        bench.delete(&pod, None).unwrap();
        assert!(bench.stored(&pod).is_none(), "{phase}");
    }
}

#[test]
fn a_finalizer_holds_a_pod_even_against_force() {
    let mut bench = Bench::new();
    let mut json = pod("p", json!({"nodeName": "a"}));
    json["metadata"]["finalizers"] = json!(["x.io/f"]);
    let pod = bench.made(Kind::Pod, json);
    bench.delete(&pod, Some(0)).unwrap();
    assert_eq!(
        bench.stored(&pod).unwrap().meta().deletion_grace_period_seconds,
        Some(0)
    );
    assert!(!bench.delete(&pod, Some(0)).unwrap().changed);
    bench.patch(&pod, vec![Edit::RemoveFinalizer("x.io/f".into())]).unwrap();
    assert!(bench.stored(&pod).is_none());

    let mut json = self::pod("q", json!({"nodeName": "a"}));
    json["metadata"]["finalizers"] = json!(["x.io/f"]);
    let pod = bench.made(Kind::Pod, json);
    bench.delete(&pod, None).unwrap();
    bench.patch(&pod, vec![Edit::RemoveFinalizer("x.io/f".into())]).unwrap();
    assert!(
        bench.stored(&pod).is_some(),
        "within its grace it waits for kubelet, finalizers or not"
    );
}

#[test]
fn a_pod_is_bound_once() {
    let mut bench = Bench::new();
    let pod = bench.made(Kind::Pod, pod("p", json!({})));
    let nominated = json!({"status": {"nominatedNodeName": "a"}});
    bench.patch_status(&pod, vec![Edit::Merge(nominated)]).unwrap();
    let bind = |uid: Option<&str>| Write::Bind {
        pod: pod.key(),
        uid: uid.map(String::from),
        node: "a".into(),
    };
    assert!(bench.write(&bind(Some("another"))).unwrap_err().is_conflict());
    let bound = bench.write(&bind(Some(pod.uid()))).unwrap().object;
    let json = bound.to_json();
    assert_eq!(json["spec"]["nodeName"], json!("a"));
    assert_eq!(
        json["metadata"]["generation"],
        json!(1),
        "binding is no change of the spec"
    );
    assert_eq!(json["status"]["conditions"][0]["type"], json!("PodScheduled"));
    assert_eq!(json["status"].get("nominatedNodeName"), None);
    let refusal = bench.write(&bind(None)).unwrap_err();
    assert!(
        refusal.is_conflict() && refusal.message.contains("already assigned"),
        "{refusal}"
    );
}
