//! Pod workers: when pods start, stop, start again and are over.

use serde_json::json;

use super::Bench;
use crate::api::{Kind, ObjKey, ObjectRef, fields};
use crate::control::Signal;
use crate::kubelet::status::restarts_of;
use k8s_openapi::api::core::v1::Pod;

fn pod<'a>(bench: &'a Bench, name: &str) -> &'a Pod {
    bench
        .get::<Pod>(&ObjKey::new("default", name))
        .expect("the pod is there")
}

fn exit(bench: &mut Bench, uid: &str, code: i32) {
    bench.node.running.remove(uid);
    bench.signal(&Signal::PodExited(uid.to_owned(), code));
}

#[test]
fn a_pod_without_volumes_starts_at_once() {
    let mut bench = Bench::new();
    let uid = bench.pod("web", &[]);
    bench.run_ms(1_000);
    assert!(bench.node.running.contains(&uid));
    assert_eq!(fields::pod_phase(pod(&bench, "web")), "Running");
}

#[test]
fn containers_that_end_start_again_first_at_once_and_then_with_growing_pauses() {
    let mut bench = Bench::new();
    let uid = bench.running("web");
    let mut waits = Vec::new();
    for _ in 0..4 {
        let ended = bench.now.as_millis();
        bench.forget();
        exit(&mut bench, &uid, 1);
        bench.run_ms(60_000);
        waits.push(bench.moments("+Started")[0] - ended);
    }
    for (wait, want) in waits.iter().zip([0, 10_000, 20_000, 40_000]) {
        assert!((want..want + 1_900).contains(wait), "{waits:?}");
    }
    assert_eq!(restarts_of(pod(&bench, "web")), 4);
    assert!(bench.life().is_empty(), "volumes are not touched");
}

#[test]
fn a_pod_that_has_done_its_work_gives_its_volume_up_and_keeps_its_object() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    let uid = bench.pod_like("job", &["data"], json!({"restartPolicy": "Never"}));
    bench.run_ms(12_000);
    bench.forget();
    exit(&mut bench, &uid, 0);
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert_eq!(fields::pod_phase(pod(&bench, "job")), "Succeeded");
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_failed_job_is_failed_and_one_that_may_try_again_does() {
    let mut bench = Bench::new();
    let never = bench.pod_like("never", &[], json!({"restartPolicy": "Never"}));
    let on_failure = bench.pod_like("again", &[], json!({"restartPolicy": "OnFailure"}));
    bench.run_ms(3_000);
    exit(&mut bench, &never, 3);
    exit(&mut bench, &on_failure, 3);
    bench.run_ms(5_000);
    assert_eq!(fields::pod_phase(pod(&bench, "never")), "Failed");
    assert!(bench.node.running.contains(&on_failure));
    exit(&mut bench, &on_failure, 0);
    bench.run_ms(15_000);
    assert_eq!(fields::pod_phase(pod(&bench, "again")), "Succeeded");
}

#[test]
fn a_pod_deleted_while_it_waits_for_its_volume_goes_after_the_next_relist() {
    let mut bench = Bench::new();
    bench.pod("web", &["data"]);
    bench.run_ms(5_000);
    bench.delete_pod("web", None);
    let deleted = bench.now.as_millis();
    bench.run_ms(4_000);
    assert!(!bench.has_pod("web"));
    let gone = bench.moments("delete pod")[0] - deleted;
    assert!(gone < 2_300, "{gone} ms");
}

#[test]
fn a_pod_that_was_never_started_ends_as_failed_with_an_unknown_container() {
    let mut bench = Bench::new();
    bench.pod("web", &["data"]);
    bench.run_ms(5_000);
    bench.patch(
        &ObjectRef::new(Kind::Pod, ObjKey::new("default", "web")),
        json!({"metadata": {"finalizers": ["test/held"]}}),
    );
    bench.delete_pod("web", None);
    bench.run_ms(4_000);
    let status = serde_json::to_value(pod(&bench, "web")).expect("objects serialise")["status"].clone();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(
        status["containerStatuses"][0]["state"]["terminated"]["reason"],
        "ContainerStatusUnknown"
    );
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let mut bench = Bench::new();
    let first = bench.running("web");
    bench.delete_pod("web", Some(0));
    let second = bench.pod("web", &["data"]);
    bench.run_ms(15_000);
    assert!(!bench.node.running.contains(&first) && bench.node.running.contains(&second));
    let life = bench.life();
    let (down, up) = (
        life.iter().position(|l| *l == "NodeUnpublishVolume"),
        life.iter().position(|l| *l == "NodePublishVolume"),
    );
    assert!(down.is_some() && up.is_some(), "{life:?}");
    assert_eq!(fields::pod_phase(pod(&bench, "web")), "Running");
}

#[test]
fn pods_of_other_nodes_are_not_seen() {
    let mut bench = Bench::new();
    let uid = bench.pod_like("elsewhere", &["data"], json!({"nodeName": "node-b"}));
    bench.run_ms(12_000);
    assert!(!bench.node.running.contains(&uid) && bench.in_use().is_empty());
}

#[test]
fn directories_with_something_in_them_are_not_removed_by_housekeeping() {
    let mut bench = Bench::new();
    let uid = bench.running("web");
    let stray = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/pvc-1/stray");
    bench.kill();
    bench.delete_pod("web", Some(0));
    let target = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/pvc-1");
    bench.node.mounts.clear();
    bench.node.dirs.remove(&format!("{target}/mount"));
    bench.node.files.remove(&format!("{target}/vol_data.json"));
    bench.node.files.insert(stray.clone(), Vec::new());
    bench.restart();
    bench.run_ms(30_000);
    assert!(bench.life().is_empty(), "no call is made here");
    assert!(bench.node.has(&target) && bench.node.files.contains_key(&stray));
    bench.node.files.remove(&stray);
    bench.run_ms(60_000);
    assert!(!bench.node.has(&format!("/var/lib/kubelet/pods/{uid}")));
}
