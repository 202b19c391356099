//! The way down: its order, what it waits for, and what stands in its way.

use tonic::Code;

use super::{Bench, Fault};
use crate::link::CsiRequest;

#[test]
fn unpublish_comes_before_unstage_and_the_pod_does_not_wait_for_the_latter() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.fault("NodeUnstageVolume", Fault::Refuse(Code::Internal), 3);
    bench.delete_pod("web", None);
    bench.run_ms(3_000);
    assert!(!bench.has_pod("web"), "its object is gone");
    assert_eq!(bench.life()[..2], ["NodeUnpublishVolume", "NodeUnstageVolume!Internal"]);
    bench.run_ms(5_000);
    assert_eq!(bench.life().last(), Some(&"NodeUnstageVolume"));
    assert!(bench.node.mounts.is_empty());
}

#[test]
fn containers_stop_before_their_volume_goes() {
    let mut bench = Bench::new();
    let uid = bench.running("web");
    bench.delete_pod("web", None);
    bench.run_ms(10_000);
    let ops = &bench.ops;
    let at = |text: &str| ops.iter().position(|op| op.contains(text));
    let stopped = at("StopPod").expect("the containers are stopped");
    let cleaned = at("RemoveFile").expect("the metadata is removed");
    assert!(stopped < cleaned);
    assert!(
        !bench.node.has(&format!("/var/lib/kubelet/pods/{uid}")),
        "housekeeping took the directories"
    );
}

#[test]
fn a_volume_stays_in_use_until_it_is_unstaged_and_leaves_at_the_next_round() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.fault("NodeUnstageVolume", Fault::Refuse(Code::Internal), 6);
    bench.delete_pod("web", None);
    bench.run_ms(25_000);
    assert_eq!(bench.in_use().len(), 1);
    bench.run_ms(25_000);
    let (unstaged, reported) = (
        bench.moments("NodeUnstageVolume")[0],
        bench.moments("patch node/status"),
    );
    assert!(bench.in_use().is_empty());
    let reported = reported.last().copied().expect("it says so");
    assert!(
        reported > unstaged && reported - unstaged <= 10_500,
        "{unstaged} {reported}"
    );
}

#[test]
fn an_unpublish_that_fails_keeps_the_pod_for_ever_and_says_nothing() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.fault("NodeUnpublishVolume", Fault::Refuse(Code::NotFound), 1000);
    bench.delete_pod("web", None);
    bench.run_ms(900_000);
    assert!(bench.has_pod("web"));
    let pauses = bench.pauses("NodeUnpublishVolume!NotFound");
    let (first, last) = (pauses[..5].to_vec(), *pauses.last().expect("there are many"));
    for (pause, want) in first.iter().zip([500, 1_000, 2_000, 4_000, 8_000]) {
        assert!((want..want + 210).contains(pause), "{first:?}");
    }
    assert!(
        (122_000..122_210).contains(&last),
        "never longer than 2 min 2 s: {last}"
    );
    assert_eq!(bench.count("+FailedUnMount") + bench.count("+FailedMount"), 0);
    bench.heal();
    bench.run_ms(130_000);
    assert!(!bench.has_pod("web"));
}

#[test]
fn what_a_driver_leaves_at_the_target_makes_it_unpublish_again() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.node.litters = true;
    bench.delete_pod("web", None);
    bench.run_ms(5_000);
    assert!(bench.count("NodeUnpublishVolume") >= 3 && bench.has_pod("web"));
    bench.node.litters = false;
    bench.run_ms(10_000);
    assert!(!bench.has_pod("web"));
}

#[test]
fn the_stage_stays_until_the_last_pod_is_gone() {
    let mut bench = Bench::new();
    bench.pod("one", &["data"]);
    bench.running("two");
    bench.delete_pod("one", None);
    bench.run_ms(20_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"]);
    bench.delete_pod("two", None);
    bench.run_ms(20_000);
    assert_eq!(
        bench.life(),
        ["NodeUnpublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]
    );
}

#[test]
fn pods_that_end_together_are_unpublished_side_by_side() {
    let mut bench = Bench::new();
    bench.pod("one", &["data"]);
    bench.running("two");
    bench.fault("NodeUnpublishVolume", Fault::Hang, 1);
    bench.delete_pod("one", None);
    bench.delete_pod("two", None);
    bench.run_ms(10_000);
    let made = bench
        .lines()
        .iter()
        .filter(|l| l.starts_with("NodeUnpublishVolume"))
        .count();
    assert_eq!(made, 2, "a call that hangs keeps no other pod");
    assert_eq!(
        [bench.has_pod("one"), bench.has_pod("two")]
            .iter()
            .filter(|there| **there)
            .count(),
        1
    );
}

#[test]
fn a_mount_that_somebody_else_holds_keeps_the_device() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.node.mounts.insert("/elsewhere".into(), "h-1".into());
    bench.delete_pod("web", None);
    bench.run_ms(20_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"], "the driver is not even asked");
    bench.node.mounts.remove("/elsewhere");
    bench.run_ms(20_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
}

fn staging_record(bench: &Bench) -> String {
    let records = bench
        .node
        .files
        .keys()
        .filter(|p| p.contains("/plugins/kubernetes.io/csi/"));
    let records: Vec<&String> = records.collect();
    assert_eq!(records.len(), 1);
    records[0].clone()
}

#[test]
fn without_its_metadata_a_stage_counts_as_unstaged() {
    let mut bench = Bench::new();
    bench.running("web");
    let record = staging_record(&bench);
    bench.node.files.remove(&record);
    bench.delete_pod("web", None);
    bench.run_ms(20_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"]);
    assert!(bench.in_use().is_empty(), "a leak that nobody will notice");
}

#[test]
fn with_torn_metadata_a_stage_stays_for_ever() {
    let mut bench = Bench::new();
    bench.running("web");
    let record = staging_record(&bench);
    bench.node.files.insert(record, b"{\"volume".to_vec());
    bench.delete_pod("web", None);
    bench.run_ms(60_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"]);
    assert_eq!(bench.in_use().len(), 1);
}

#[test]
fn a_driver_that_does_not_stage_is_not_asked_to_unstage() {
    let mut bench = Bench::new();
    bench.rpcs = Vec::new();
    bench.running("web");
    bench.delete_pod("web", None);
    bench.run_ms(20_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"]);
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_pod_that_comes_back_within_the_round_stages_anew() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.delete_pod("web", None);
    bench.run_ms(2_500);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    bench.pod("again", &["data"]);
    bench.run_ms(12_000);
    assert_eq!(bench.life()[2..], ["NodeStageVolume", "NodePublishVolume"]);
    let (staged, reported) = (bench.moments("NodeStageVolume"), bench.moments("patch node/status"));
    assert!(
        reported.iter().all(|at| *at < staged[0]) || reported.is_empty(),
        "the new entry waits for a round of its own"
    );
}

#[test]
fn a_force_deleted_pod_is_taken_down_without_its_object() {
    let mut bench = Bench::new();
    let uid = bench.running("web");
    bench.delete_pod("web", Some(0));
    assert!(!bench.has_pod("web"));
    bench.run_ms(5_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert!(!bench.node.running.contains(&uid));
    assert_eq!(bench.count("delete pod"), 0);
}

#[test]
fn an_unregistered_driver_keeps_what_is_mounted_and_is_asked_when_it_is_back() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.signal(&crate::control::Signal::SocketRemoved(super::SOCKET.into()));
    bench.run_ms(2_000);
    bench.delete_pod("web", None);
    bench.run_ms(60_000);
    assert!(bench.life().is_empty() && bench.has_pod("web"));
    bench.signal(&crate::control::Signal::SocketCreated(super::SOCKET.into()));
    bench.run_ms(70_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert!(!bench.has_pod("web"));
}

#[test]
fn the_paths_on_the_way_down_are_those_of_the_way_up() {
    let mut bench = Bench::new();
    bench.pod("web", &["data"]);
    bench.attach("pvc-1", "h-1");
    bench.run_ms(12_000);
    bench.delete_pod("web", None);
    bench.run_ms(20_000);
    let mut paths = Vec::new();
    for request in &bench.requests {
        match request {
            CsiRequest::NodeStageVolume(r) => paths.push(r.staging_target_path.clone()),
            CsiRequest::NodePublishVolume(r) => paths.push(r.target_path.clone()),
            CsiRequest::NodeUnpublishVolume(r) => paths.push(r.target_path.clone()),
            CsiRequest::NodeUnstageVolume(r) => paths.push(r.staging_target_path.clone()),
            _ => {}
        }
    }
    let [stage, publish, unpublish, unstage] = &paths[..] else {
        panic!("{paths:?}")
    };
    assert!(stage == unstage && publish == unpublish);
    let left: Vec<_> = bench.node.files.keys().collect();
    assert_eq!(left, Vec::<&String>::new());
    assert!(bench.node.mounts.is_empty());
}
