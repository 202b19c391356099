//! Errors on the way up: which of them say something about the volume, what is taken back, and who waits for whom.

use serde_json::json;
use tonic::Code;

use super::{Bench, Fault};

fn mounting(fault: (&'static str, Fault, u32)) -> Bench {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    bench.fault(fault.0, fault.1, fault.2);
    bench.pod("web", &["data"]);
    bench.forget();
    bench.run_ms(12_000);
    bench
}

fn has_stage(bench: &Bench) -> bool {
    bench
        .node
        .has("/var/lib/kubelet/plugins/kubernetes.io/csi/hostpath.csi.k8s.io/")
        || bench.node.dirs.iter().any(|d| d.ends_with("/globalmount"))
}

#[test]
fn a_final_error_of_staging_removes_what_was_made_for_it() {
    let mut bench = mounting(("NodeStageVolume", Fault::Refuse(Code::Internal), 1000));
    assert!(
        bench.was_told(
            "MountVolume.MountDevice failed for volume \"pvc-1\" : rpc error: code = Internal desc = injected"
        )
    );
    assert!(!has_stage(&bench), "{:?}", bench.node.dirs);
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(bench.count("NodeUnstageVolume") + bench.count("NodeUnpublishVolume"), 0);
    assert!(bench.in_use().is_empty() && !bench.has_pod("web"));
}

#[test]
fn an_uncertain_error_of_staging_leaves_it_and_unstages_later() {
    for code in [
        Code::DeadlineExceeded,
        Code::Unavailable,
        Code::Aborted,
        Code::ResourceExhausted,
        Code::Cancelled,
    ] {
        let mut bench = mounting(("NodeStageVolume", Fault::Lose(code), 1000));
        assert!(has_stage(&bench), "{code:?}");
        bench.delete_pod("web", None);
        bench.run_ms(15_000);
        assert_eq!(bench.count("NodeUnstageVolume"), 1, "{code:?}");
        assert!(bench.node.mounts.is_empty() && bench.in_use().is_empty());
    }
}

#[test]
fn a_final_error_after_an_uncertain_one_settles_it() {
    let mut bench = mounting(("NodeStageVolume", Fault::Refuse(Code::DeadlineExceeded), 1000));
    bench.fault("NodeStageVolume", Fault::Refuse(Code::Internal), 1000);
    bench.run_ms(20_000);
    assert!(bench.count("NodeStageVolume!Internal") > 0);
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(bench.count("NodeUnstageVolume"), 0);
}

#[test]
fn a_call_that_hangs_is_given_up_after_two_minutes_and_repeated() {
    let mut bench = mounting(("NodeStageVolume", Fault::Hang, 1));
    bench.run_ms(130_000);
    let hung = bench.moments("NodeStageVolume!DeadlineExceeded")[0];
    let again = bench.moments("NodeStageVolume")[0];
    // The two minutes are for the whole of the device's mount, questions included.
    assert!((120_400..120_800).contains(&(again - hung)), "{}", again - hung);
}

#[test]
fn a_final_error_of_publishing_is_taken_back_but_not_the_stage() {
    let mut bench = mounting(("NodePublishVolume", Fault::Refuse(Code::Internal), 1000));
    assert_eq!(bench.count("NodeStageVolume"), 1, "it is staged once");
    let targets = bench.node.files.keys().filter(|p| p.contains("/pods/"));
    assert_eq!(targets.count(), 0, "no metadata is left beside the target");
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(
        (bench.count("NodeUnpublishVolume"), bench.count("NodeUnstageVolume")),
        (0, 1)
    );
}

#[test]
fn an_uncertain_error_of_publishing_is_unpublished_later() {
    let mut bench = mounting(("NodePublishVolume", Fault::Lose(Code::Unavailable), 1000));
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(
        (bench.count("NodeUnpublishVolume"), bench.count("NodeUnstageVolume")),
        (1, 1)
    );
    assert!(bench.node.mounts.is_empty() && !bench.has_pod("web"));
}

#[test]
fn a_dead_driver_makes_a_device_uncertain_that_it_was_never_asked_about() {
    // Quirk A: the first question answers Unavailable, and its error is not wrapped. There is no metadata yet, so nothing is unstaged after all.
    let mut bench = mounting(("NodeGetCapabilities", Fault::Gone, 1000));
    assert_eq!(bench.count("NodeStageVolume"), 0);
    bench.heal();
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert!(bench.life().is_empty());
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_wrapped_question_turns_an_uncertain_mount_into_none_and_leaks_it() {
    // Quirk B: the publish may have happened; on the retry the question before it fails, and that error is wrapped: final.
    let mut bench = mounting(("NodePublishVolume", Fault::Lose(Code::Unavailable), 1000));
    assert!(bench.count("NodePublishVolume!Unavailable") > 0);
    bench.fault("NodeGetCapabilities", Fault::Gone, 1000);
    bench.run_ms(20_000);
    bench.delete_pod("web", Some(0));
    bench.run_ms(5_000);
    bench.heal();
    bench.run_ms(120_000);
    assert_eq!(bench.count("NodeUnpublishVolume"), 0, "nobody remembers the mount");
    assert_eq!(bench.node.mounts.len(), 2, "it blocks the unstaging");
    assert_eq!(bench.in_use().len(), 1);
    bench.restart();
    bench.run_ms(20_000);
    assert!(
        bench.node.mounts.is_empty() && !bench.has_pod("web"),
        "until a new kubelet finds it"
    );
}

#[test]
fn a_pod_that_kubelet_still_knows_keeps_its_wish_until_the_mount_is_there() {
    // The same, but the pod goes with its grace: it is mounted once more when the driver is back, and then taken away.
    let mut bench = mounting(("NodePublishVolume", Fault::Lose(Code::Unavailable), 1000));
    bench.fault("NodeGetCapabilities", Fault::Gone, 1000);
    bench.run_ms(20_000);
    bench.delete_pod("web", None);
    bench.run_ms(5_000);
    bench.heal();
    bench.run_ms(120_000);
    assert_eq!(bench.count("NodeUnpublishVolume"), 1);
    assert!(bench.node.mounts.is_empty() && !bench.has_pod("web"));
}

#[test]
fn every_attempt_doubles_the_pause_up_to_two_minutes_and_two_seconds() {
    let mut bench = mounting(("NodeStageVolume", Fault::Refuse(Code::Internal), 1000));
    bench.run_ms(900_000);
    let pauses = bench.pauses("NodeStageVolume!Internal");
    for (pause, want) in pauses.iter().zip([
        500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 122_000, 122_000,
    ]) {
        assert!((want..want + 220).contains(pause), "{pauses:?}");
    }
}

#[test]
fn a_pod_whose_mount_fails_delays_the_other_pods_of_the_volume() {
    let mut bench = mounting(("NodePublishVolume", Fault::Refuse(Code::Internal), 1000));
    bench.pod("other", &["data"]);
    bench.forget();
    bench.run_ms(30_000);
    let calls = bench.count("NodePublishVolume!Internal");
    assert!(calls <= 4, "both pods wait under one key: {calls} calls in 30 s");
}

#[test]
fn a_driver_that_is_not_registered_is_no_word_about_the_volume() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    bench.signal(&crate::control::Signal::SocketRemoved(super::SOCKET.into()));
    bench.run_ms(2_000);
    bench.pod("web", &["data"]);
    bench.run_ms(15_000);
    assert!(bench.life().is_empty());
    assert!(bench.was_told("not found in the list of registered CSI drivers"));
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert!(
        !bench.has_pod("web") && bench.in_use().is_empty(),
        "there is nothing to take back"
    );
}

#[test]
fn a_mount_and_an_unmount_that_both_fail_reset_each_other() {
    // Trace 18b: about every 200 ms, until the recorder has had enough.
    let mut bench = Bench::new();
    bench.running("web");
    bench.signal(&crate::control::Signal::SocketRemoved(super::SOCKET.into()));
    bench.run_ms(2_000);
    bench.delete_pod("web", None);
    bench.run_ms(2_000);
    bench.pod("next", &["data"]);
    bench.run_ms(10_000);
    let pauses = bench.pauses("+FailedMount");
    assert!(pauses.len() > 20, "{pauses:?}");
    assert!(pauses.iter().skip(1).all(|p| (190..=215).contains(p)), "{pauses:?}");
}

#[test]
fn a_read_that_fails_is_tried_again_like_a_call() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    let more = json!({"csi": {"driver": "hostpath.csi.k8s.io", "volumeHandle": "h-5", "nodePublishSecretRef": {"name": "no", "namespace": "default"}}});
    bench.volume("locked", "pvc-5", "h-5", more);
    bench.attach("pvc-5", "h-5");
    bench.pod("web", &["locked"]);
    bench.run_ms(12_000);
    assert_eq!(
        bench.life(),
        ["NodeStageVolume"],
        "staged once; the secret is missing for publishing only"
    );
    assert!(bench.was_told("MountVolume.SetUp failed for volume \"pvc-5\""));
}
