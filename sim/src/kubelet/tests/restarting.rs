//! A new kubelet: what it finds, what it mounts again, what it takes down, what it will never know of.

use tonic::Code;

use super::{Bench, Fault, node_ref};

#[test]
fn a_wanted_volume_is_staged_and_published_again() {
    let mut bench = Bench::new();
    let uid = bench.running("web");
    bench.restart();
    bench.run_ms(5_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
    let again = bench.moments("NodeStageVolume")[0];
    assert!(bench.node.running.contains(&uid) && again > 0);
    assert_eq!(bench.count("+Started"), 0, "its containers have run all along");
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(bench.life()[2..], ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert!(bench.node.mounts.is_empty());
}

#[test]
fn the_remount_comes_about_a_second_and_a_half_after_the_start() {
    let mut bench = Bench::new();
    bench.running("web");
    let killed = bench.now.as_millis();
    bench.restart();
    bench.run_ms(5_000);
    let remount = bench.moments("NodeStageVolume")[0] - killed;
    assert!((1_300..1_750).contains(&remount), "{remount} ms");
}

#[test]
fn what_is_not_wanted_any_more_is_taken_down_after_the_first_whole_pass() {
    let mut bench = Bench::new();
    let uid = bench.running("web");
    bench.kill();
    bench.delete_pod("web", Some(0));
    bench.start();
    bench.signal(&crate::control::Signal::SocketCreated(super::SOCKET.into()));
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert!(!bench.node.running.contains(&uid), "housekeeping stops its containers");
    assert!(!bench.node.has(&format!("/var/lib/kubelet/pods/{uid}")));
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_terminating_pod_is_mounted_again_before_it_is_unmounted() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.kill();
    bench.delete_pod("web", None);
    bench.start();
    bench.signal(&crate::control::Signal::SocketCreated(super::SOCKET.into()));
    bench.run_ms(15_000);
    let expected = [
        "NodeStageVolume",
        "NodePublishVolume",
        "NodeUnpublishVolume",
        "NodeUnstageVolume",
    ];
    assert_eq!(bench.life(), expected);
    assert!(!bench.has_pod("web"));
}

#[test]
fn a_kubelet_that_dies_in_the_middle_of_unstaging_leaves_the_stage_for_ever() {
    // Global mounts without a pod directory are not reconstructed: the driver may have unstaged or not, and nobody asks again. The volume leaves volumesInUse.
    let mut bench = Bench::new();
    bench.running("web");
    bench.fault("NodeUnstageVolume", Fault::Hang, 1);
    bench.delete_pod("web", None);
    bench.run_ms(5_000);
    assert_eq!(
        bench.life(),
        ["NodeUnpublishVolume", "NodeUnstageVolume!DeadlineExceeded"]
    );
    bench.restart();
    bench.run_ms(60_000);
    assert_eq!(bench.life().len(), 2, "{:?}", bench.life());
    assert_eq!(bench.node.mounts.len(), 1, "it is still staged");
    assert!(bench.in_use().is_empty(), "and may be detached");
}

#[test]
fn a_volume_that_was_only_staged_is_forgotten_with_its_pod() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    bench.fault("NodePublishVolume", Fault::Refuse(Code::Internal), 1000);
    bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    bench.kill();
    bench.delete_pod("web", Some(0));
    bench.forget();
    bench.restart();
    bench.run_ms(30_000);
    assert!(bench.life().is_empty());
    assert_eq!(bench.node.mounts.len(), 1, "a leak");
}

#[test]
fn a_stage_under_way_is_repeated_when_its_pod_is_still_there() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    bench.fault("NodeStageVolume", Fault::Hang, 1);
    bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    bench.restart();
    bench.run_ms(12_000);
    assert_eq!(bench.life()[1..], ["NodeStageVolume", "NodePublishVolume"]);
}

fn pod_record(bench: &Bench) -> String {
    let records: Vec<&String> = bench.node.files.keys().filter(|p| p.contains("/pods/")).collect();
    assert_eq!(records.len(), 1);
    records[0].clone()
}

#[test]
fn a_torn_record_makes_a_mount_invisible() {
    let mut bench = Bench::new();
    bench.running("web");
    let record = pod_record(&bench);
    bench.node.files.insert(record, Vec::new());
    bench.kill();
    bench.delete_pod("web", Some(0));
    bench.restart();
    bench.run_ms(60_000);
    assert!(bench.life().is_empty(), "no call can be made without it");
    assert_eq!(bench.node.mounts.len(), 2);
}

#[test]
fn a_torn_record_is_made_anew_for_a_pod_that_is_still_there() {
    let mut bench = Bench::new();
    bench.running("web");
    let record = pod_record(&bench);
    bench.node.files.insert(record, Vec::new());
    bench.restart();
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert!(bench.node.mounts.is_empty() && !bench.has_pod("web"));
}

#[test]
fn what_was_detached_by_force_leaves_the_report_before_it_is_unmounted() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.kill();
    bench.delete_pod("web", Some(0));
    bench.patch_status(&node_ref(), serde_json::json!({"status": {"volumesAttached": null}}));
    bench.restart();
    bench.run_ms(15_000);
    let (reported, unpublished) = (
        bench.moments("patch node/status")[0],
        bench.moments("NodeUnpublishVolume")[0],
    );
    assert!(reported < unpublished, "{reported} {unpublished}");
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
}

#[test]
fn the_report_of_the_time_before_protects_until_everything_is_resolved() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.kill();
    bench.delete_pod("web", Some(0));
    assert_eq!(bench.in_use().len(), 1);
    bench.fault("NodeUnpublishVolume", Fault::Refuse(Code::Internal), 3);
    bench.restart();
    bench.run_ms(3_000);
    assert_eq!(bench.in_use().len(), 1, "it is attached and still mounted");
    bench.run_ms(20_000);
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_final_error_of_the_remount_says_nothing_of_the_mount_of_the_time_before() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.fault("NodePublishVolume", Fault::Refuse(Code::Internal), 1000);
    bench.restart();
    bench.run_ms(10_000);
    assert!(bench.count("NodePublishVolume!Internal") > 1);
    assert!(!pod_record(&bench).is_empty(), "the record stays");
    bench.delete_pod("web", None);
    bench.run_ms(60_000);
    assert_eq!(bench.count("NodeUnpublishVolume"), 1);
    assert!(bench.node.mounts.is_empty());
}

#[test]
fn an_inline_volume_is_found_by_its_record() {
    let mut bench = Bench::new();
    let volumes = serde_json::json!([{"name": "scratch", "csi": {"driver": super::DRIVER}}]);
    bench.pod_like("job", &["scratch"], serde_json::json!({"volumes": volumes}));
    bench.run_ms(5_000);
    bench.kill();
    bench.delete_pod("job", Some(0));
    bench.forget();
    bench.restart();
    bench.run_ms(10_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"]);
}

#[test]
fn a_node_that_lost_its_power_mounts_everything_again_and_counts_the_restart() {
    let mut bench = Bench::new();
    let uid = bench.running("web");
    bench.kill();
    bench.node.lose_power();
    bench.restart();
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
    assert!(bench.node.running.contains(&uid));
    let pod = bench.get::<k8s_openapi::api::core::v1::Pod>(&crate::api::ObjKey::new("default", "web"));
    assert_eq!(crate::kubelet::status::restarts_of(pod.expect("it is there")), 1);
}
