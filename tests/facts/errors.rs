//! Facts 27 to 31: what kubelet and attacher make of errors.

use wavetank_sim::scenario::{Builder, Call, Code, GoDuration, Inject};

use super::run::{each, fact};

fn fails(call: Call, code: Code, times: u32) -> Inject {
    Inject::into_call(call).code(code).times(times)
}

fn bound(story: Builder) -> Builder {
    story
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "10s")
}

fn pod(story: Builder, name: &str) -> Builder {
    story.pod(name, |pod| pod.mounts("data").on("node-1"))
}

fn running(story: Builder) -> Builder {
    pod(bound(story), "web").until("pod/web", "Ready", "3m").run("3s")
}

/// Half a second, doubled: the pauses of kubelet, without its loops.
const KUBELET: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];

#[test]
fn fact_27_the_way_up_backs_off_from_half_a_second() {
    for (call, method) in [
        (Call::NodeStageVolume, "NodeStageVolume"),
        (Call::NodePublishVolume, "NodePublishVolume"),
    ] {
        let story = running(fact("27", "failing mounts").inject(fails(call, Code::Internal, 5)));
        each(&story, |run| {
            run.paced(method, &run.gaps(method), &KUBELET, 0.2);
            if call == Call::NodeStageVolume {
                let asked = run.calls("NodeGetCapabilities");
                let asked = asked.iter().filter(|c| c.at < run.last(method)).count();
                assert_eq!(asked, 6 * 3, "each attempt asks three times");
            }
        });
    }
}

#[test]
fn fact_27_the_way_down_backs_off_likewise() {
    let story = running(fact("27", "failing unmounts"))
        .inject(fails(Call::NodeUnpublishVolume, Code::Internal, 4))
        .inject(fails(Call::NodeUnstageVolume, Code::Internal, 4))
        .delete("pod/web")
        .until("va/claim:data", "gone", "2m");
    each(&story, |run| {
        for method in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
            run.paced(method, &run.gaps(method), &KUBELET[..4], 0.2);
        }
        let gone = run.gone("Pod", "web");
        assert!(
            run.first("NodeUnstageVolume") < gone + 1.5,
            "the pod does not wait for the unstaging"
        );
        assert!(gone < run.last("NodeUnstageVolume"));
    });
}

#[test]
fn fact_28_only_an_uncertain_stage_is_taken_back() {
    let stuck = |code| {
        let story = bound(fact("28", "a pod deleted while staging fails"));
        pod(
            story.inject(Inject::into_call(Call::NodeStageVolume).code(code).always()),
            "web",
        )
        .until_called(Call::NodeStageVolume, 3, "30s")
        .delete("pod/web")
        .until("pod/web", "gone", "1m")
        .until("va/claim:data", "gone", "1m")
        .heal()
    };
    each(&stuck(Code::DeadlineExceeded), |run| {
        assert_eq!(run.calls("NodeUnstageVolume").len(), 1);
        assert!(run.calls("NodeUnpublishVolume").is_empty());
    });
    each(&stuck(Code::Internal), |run| {
        assert!(run.calls("NodeUnstageVolume").is_empty());
        assert_eq!(run.calls("ControllerUnpublishVolume").len(), 1);
    });
}

#[test]
fn fact_29_kubelet_gives_a_publish_up_after_two_minutes() {
    let story = running(
        fact("29", "NodePublish hangs").inject(Inject::into_call(Call::NodePublishVolume).delay(GoDuration::secs(600))),
    );
    each(&story, |run| {
        let calls = run.calls("NodePublishVolume");
        assert_eq!(calls.len(), 2);
        run.between("the first one", calls[0].took, 119.5, 120.0);
        run.between("the second one", calls[1].at - calls[0].at - calls[0].took, 0.5, 0.7);
    });
}

#[test]
fn fact_30_a_failed_attach_is_tried_again_at_once_and_then_backs_off_from_the_second_step() {
    let story = running(fact("30", "ControllerPublish fails").inject(fails(
        Call::ControllerPublishVolume,
        Code::Unavailable,
        5,
    )));
    each(&story, |run| {
        let gaps = run.gaps("ControllerPublishVolume");
        run.between("the second call", gaps[0], 0.001, 0.03);
        run.paced("ControllerPublish", &gaps[1..5], &[1.0, 4.0, 8.0, 16.0], 0.06);
    });
}

#[test]
fn fact_30_a_failed_detach_backs_off_from_one_second() {
    let story = running(fact("30", "ControllerUnpublish fails"))
        .inject(fails(Call::ControllerUnpublishVolume, Code::Internal, 4))
        .delete("pod/web")
        .until("va/claim:data", "gone", "1m");
    each(&story, |run| {
        run.paced(
            "ControllerUnpublish",
            &run.gaps("ControllerUnpublishVolume"),
            &[1.0, 2.0, 4.0, 8.0],
            0.06,
        );
    });
}

#[test]
fn fact_30_an_attach_that_timed_out_is_repeated_before_it_is_taken_back() {
    let hang = Inject::into_call(Call::ControllerPublishVolume)
        .delay(GoDuration::secs(60))
        .always();
    let story = bound(fact("30", "a pod deleted while its attach hangs"));
    let story = pod(story.inject(hang), "web")
        .until("pod/web", "event:FailedAttachVolume", "30s")
        .run("1s")
        .delete("pod/web")
        .until_called(Call::ControllerUnpublishVolume, 1, "2m")
        .heal();
    each(&story, |run| {
        let calls = run.calls("ControllerPublishVolume");
        let deleted = run
            .writes
            .iter()
            .find(|w| w.what.starts_with("delete volumeattachments"));
        let deleted = deleted.expect("the attachment is deleted").at;
        let under_way = calls.last().expect("it is called");
        assert!(
            under_way.at < deleted && deleted < under_way.at + 15.0,
            "one is under way when the attachment is deleted"
        );
        run.between("the deadline", under_way.took, 14.9, 15.1);
        run.between(
            "ControllerUnpublish",
            run.first("ControllerUnpublishVolume") - under_way.at,
            15.0,
            15.1,
        );
    });
}

#[test]
fn fact_31_a_driver_that_is_down_keeps_the_pod_until_it_is_back() {
    let story = running(fact("31", "the driver's node part is down"))
        .stop("driver-node/node-1")
        .run("1s")
        .delete("pod/web")
        .run("20s")
        .start("driver-node/node-1")
        .until("pod/web", "gone", "1m");
    each(&story, |run| {
        let calls = run.calls("NodeUnpublishVolume");
        assert!(calls.iter().rev().skip(1).all(|c| c.code == "Unavailable"));
        run.paced("NodeUnpublish", &run.gaps("NodeUnpublishVolume")[..5], &KUBELET, 0.2);
    });
}

#[test]
fn fact_31_an_unregistered_driver_hangs_pods_and_everything_resumes_when_it_is_back() {
    let story = running(fact("31", "the registration socket is gone"))
        .stop("registrar/node-1")
        .run("2s");
    let story = pod(story.delete("pod/web").run("1s"), "next")
        .run("20s")
        .start("registrar/node-1")
        .until("pod/next", "Ready", "1m")
        .until("pod/web", "gone", "1m");
    each(&story, |run| {
        let empty = run.since("CSINode", "node-1", |s| {
            s.object["spec"]["drivers"].as_array().is_none_or(Vec::is_empty)
        });
        let stopped = run.write("kubectl", "delete pods web").at - 2.01;
        run.between("the entry of the CSINode", empty - stopped, 0.0, 1.1);
        let back = run.since("CSINode", "node-1", |s| {
            s.at > empty && s.object["spec"]["drivers"].to_string().contains("csi.wavetank.dev")
        });
        for method in ["NodePublishVolume", "NodeUnpublishVolume"] {
            // The list of drivers is filled before the CSINode is written.
            run.between(method, run.last(method) - back, -0.03, 0.35);
        }
        assert_eq!(run.calls("NodeStageVolume").len(), 1);
        let failed = run.events("FailedMount");
        let counts: Vec<u64> = failed.iter().map(|e| e.object["count"].as_u64().unwrap_or(1)).collect();
        assert_eq!(counts.iter().max(), Some(&25), "the recorder stops there");
        let pause = failed[10].at - failed[9].at;
        run.between("the next attempt", pause, 0.18, 0.23);
    });
}
