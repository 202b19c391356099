//! Facts 1 to 8, 11: attaching, detaching, binding, and what the driver is told.

use serde_json::json;
use wavetank_sim::scenario::Builder;

use super::run::{Run, each, fact, names, one};

/// A bound claim of class `imm` and, three seconds later, a pod on node-1 that runs.
fn running(story: Builder) -> Builder {
    story
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "10s")
        .run("3s")
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "1m")
}

/// The same, and the pod deleted until nothing is attached any more.
fn whole_life(story: Builder) -> Builder {
    running(story)
        .run("7s")
        .delete("pod/web")
        .until("pod/web", "gone", "1m")
        .until("va/claim:data", "gone", "1m")
}

fn in_use(body: &serde_json::Value) -> Option<Vec<String>> {
    let list = body["status"].get("volumesInUse")?;
    let names = list.as_array().map(Vec::as_slice).unwrap_or_default();
    Some(
        names
            .iter()
            .map(|n| n.as_str().unwrap_or_default().to_owned())
            .collect(),
    )
}

/// When node-1 says what it uses, and whether that is anything.
fn reports(run: &Run, node: &str) -> Vec<(f64, bool)> {
    let writes = run.writes(&format!("kubelet/{node}"), "patch nodes/status");
    let reports = writes.iter().filter_map(|w| Some((w.at, !in_use(&w.body)?.is_empty())));
    reports.collect()
}

#[test]
fn fact_1_a_bound_pod_is_attached_within_110_ms_by_these_writes() {
    each(&running(fact("1", "from the binding of a pod to the call")), |run| {
        let bind = run.write("scheduler", "create pods/binding").at;
        let created = run.write("controller-manager", "create volumeattachments").at;
        run.between("the VolumeAttachment", created - bind, 0.001, 0.115);
        let volume = run.write("attacher", "patch persistentvolumes");
        let attachment = run.write("attacher", "patch volumeattachments ");
        let status = run.write("attacher", "patch volumeattachments/status");
        let call = run.first("ControllerPublishVolume");
        assert!(volume.at < attachment.at && attachment.at < call && call < status.at);
        assert!(
            volume.body.to_string().contains("external-attacher/"),
            "{}",
            volume.body
        );
        let metadata = attachment.body["metadata"].to_string();
        assert!(metadata.contains("csi.alpha.kubernetes.io/node-id") && metadata.contains("external-attacher/"));
        assert_eq!(status.body["status"]["attached"], true);
    });
}

#[test]
fn fact_2_the_controller_looks_after_half_a_second_and_then_says_attached() {
    each(&running(fact("2", "how long an attachment goes unnoticed")), |run| {
        let call = run.first("ControllerPublishVolume");
        let event = run.event("SuccessfulAttachVolume").at;
        let node = run.write("controller-manager", "patch nodes/status").at;
        run.between("the event", event - call, 0.49, 0.56);
        run.between("volumesAttached", node - call, 0.49, 0.60);
    });
}

#[test]
fn fact_2_a_volume_that_moves_is_created_anew_600_ms_after_its_attachment_is_gone() {
    let story = running(fact("2", "a ReadWriteOnce volume moves to another node"))
        .pod("next", |pod| pod.mounts("data").on("node-2"))
        .run("15s")
        .delete("pod/web")
        .until("pod/next", "Ready", "1m");
    each(&story, |run| {
        let gone = run.gone("VolumeAttachment", "csi-");
        let created = run.writes("controller-manager", "create volumeattachments");
        run.between("the next attachment", created[1].at - gone, 0.45, 0.70);
        // Nobody waits for the status tick any more: the second node has said for long that it uses the volume.
        run.between("NodeStage", run.last("NodeStageVolume") - created[1].at, 0.6, 0.95);
    });
}

#[test]
fn fact_3_staging_waits_until_the_node_has_said_that_it_uses_the_volume() {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for seed in 0..12 {
        let story = running(fact("3", "mounting and detaching ride on the status tick"))
            .run(&format!("{}ms", 850 * seed))
            .delete("pod/web")
            .until("va/claim:data", "gone", "1m");
        let run = one(&story, seed);
        let reports = reports(&run, "node-1");
        let [(used, true), (unused, false)] = reports[..] else {
            panic!("seed {seed}: {reports:?}")
        };
        let attached = run.write("controller-manager", "patch nodes/status").at;
        let stage = run.first("NodeStageVolume");
        run.between("NodeStage", stage - used.max(attached), 0.05, 0.26);
        run.between(
            "the detach",
            run.first("ControllerUnpublishVolume") - unused,
            0.01,
            0.13,
        );
        up.push(stage - run.first("ControllerPublishVolume"));
        down.push(run.first("ControllerUnpublishVolume") - run.first("NodeUnstageVolume"));
    }
    for (what, waits) in [("up", up), ("down", down)] {
        let (least, most) = waits
            .iter()
            .fold((f64::MAX, 0.0_f64), |(a, b), w| (a.min(*w), b.max(*w)));
        assert!(most <= 10.6 && most > 6.0 && least < 4.0, "{what}: {waits:.1?}");
    }
}

#[test]
fn fact_4_a_mount_asks_for_capabilities_three_times_twice_over() {
    each(
        &whole_life(fact("4", "the calls of one mount and one unmount")),
        |run| {
            let node = run.rpcs.iter().filter(|r| r.caller == "kubelet/node-1");
            let calls: Vec<&str> = node
                .map(|r| r.method.as_str())
                .filter(|m| *m != "NodeGetVolumeStats")
                .collect();
            let ask = "NodeGetCapabilities";
            let up = [ask, ask, ask, "NodeStageVolume", ask, ask, ask, "NodePublishVolume"];
            assert_eq!(calls[..8], up);
            let down = ["NodeUnpublishVolume", ask, "NodeUnstageVolume"];
            assert_eq!(calls[calls.len() - 3..], down);
            let pause = run.first("NodeUnstageVolume") - run.first("NodeUnpublishVolume");
            run.between("NodeUnstage", pause, 0.09, 0.12);
        },
    );
}

#[test]
fn fact_5_calls_come_twice_now_and_then() {
    let story = whole_life(fact("5", "stale caches and events double calls"))
        .delete("pvc/data")
        .until("pv/claim:data", "gone", "1m");
    let (mut attaches, mut deletes) = ([0; 3], [0; 3]);
    for seed in 0..24 {
        let run = one(&story, seed);
        attaches[run.calls("ControllerPublishVolume").len()] += 1;
        deletes[run.calls("DeleteVolume").len()] += 1;
        for gap in run.gaps("ControllerPublishVolume") {
            run.between("the second ControllerPublish", gap, 0.001, 0.03);
        }
        for gap in run.gaps("DeleteVolume") {
            run.between("the second DeleteVolume", gap, 0.001, 0.08);
        }
        assert!(run.rpcs.iter().all(|rpc| rpc.code == "OK"));
    }
    assert!(attaches[1] > 0 && attaches[2] > 0, "once and twice: {attaches:?}");
    assert!(deletes[1] > 0 && deletes[2] > 0, "once and twice: {deletes:?}");
}

#[test]
fn fact_6_watchers_see_an_attachment_go_while_it_is_still_attached() {
    each(
        &whole_life(fact("6", "the order of writes of a detach")).run("1s"),
        |run| {
            let call = run.first("ControllerUnpublishVolume");
            let last = run.states("VolumeAttachment", "csi-");
            let last = last.last().expect("there was one");
            assert_eq!(
                (last.event.as_str(), &last.object["status"]["attached"]),
                ("DELETED", &json!(true))
            );
            let too_late = run.writes("attacher", "patch volumeattachments/status");
            let too_late = too_late.last().expect("it says that nothing is attached");
            assert!(call < last.at && last.at < too_late.at);
            assert_eq!(
                (too_late.code, &too_late.body["status"]["attached"]),
                (404, &json!(false))
            );
        },
    );
}

#[test]
fn fact_6_three_parties_race_for_the_finalizers_of_a_volume() {
    let story = whole_life(fact("6", "the end of a volume"))
        .delete("pvc/data")
        .until("pv/claim:data", "gone", "1m");
    let mut conflicts = 0;
    for seed in 0..8 {
        let run = one(&story, seed);
        let writes = run
            .writes
            .iter()
            .filter(|w| w.what.contains(" persistentvolumes pvc-") && w.at > run.first("DeleteVolume"));
        let writes: Vec<_> = writes.collect();
        for party in ["provisioner", "attacher", "controller-manager"] {
            let done = writes.iter().any(|w| w.user == party && w.code == 200);
            assert!(done, "seed {seed}: {party} takes its finalizer off");
        }
        conflicts += writes.iter().filter(|w| matches!(w.code, 409 | 422)).count();
    }
    assert!(
        conflicts >= 4,
        "they run into each other nearly every time: {conflicts} of 8"
    );
}

#[test]
fn fact_7_a_claim_is_bound_by_two_writes_after_its_volume() {
    let story = fact("7", "the order of binding")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "10s");
    each(&story, |run| {
        let pending = run.since("PersistentVolume", "pvc-", |s| s.event == "ADDED");
        let bound = run.since("PersistentVolume", "pvc-", |s| s.object["status"]["phase"] == "Bound");
        let named = |s: &super::run::State| s.object["spec"]["volumeName"].is_string();
        let claims = run.states("PersistentVolumeClaim", "data");
        let first = claims.iter().find(|s| named(s)).expect("it is bound");
        assert_eq!(first.object["status"]["phase"], "Pending");
        assert!(first.object["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"].is_string());
        let done = run.since("PersistentVolumeClaim", "data", |s| {
            s.object["status"]["phase"] == "Bound"
        });
        assert!(pending < bound && bound < first.at && first.at < done);
        let fresh = run.states("PersistentVolume", "pvc-")[0];
        let phase = fresh.object["status"]["phase"].as_str().unwrap_or("Pending");
        assert_eq!(phase, "Pending");
    });
}

#[test]
fn fact_8_the_driver_is_told_modes_empty_mounts_and_the_pod() {
    let story = running(fact("8", "what the requests say"))
        .claim("alone", "1Gi", |claim| claim.class("imm").access("ReadWriteOncePod"))
        .pod("lonely", |pod| pod.mounts("alone").on("node-1"))
        .until("pod/lonely", "Ready", "1m");
    each(&story, |run| {
        let modes = |method: &str| -> Vec<serde_json::Value> {
            let calls = run.calls(method);
            calls
                .iter()
                .map(|c| c.request["volume_capability"]["access_mode"]["mode"].clone())
                .collect()
        };
        let both = [json!("SINGLE_NODE_MULTI_WRITER"), json!("SINGLE_NODE_SINGLE_WRITER")];
        assert_eq!(modes("NodeStageVolume"), both);
        assert_eq!(modes("NodePublishVolume"), both);
        let stage = &run.calls("NodeStageVolume")[0].request;
        assert_eq!(stage["volume_capability"]["mount"], json!({}));
        assert!(
            !stage.to_string().contains("csi.storage.k8s.io/pod"),
            "staging is not told of pods"
        );
        let publish = &run.calls("NodePublishVolume")[0].request;
        assert_eq!(publish["staging_target_path"], stage["staging_target_path"]);
        assert_eq!(publish["volume_context"]["csi.storage.k8s.io/ephemeral"], "false");
        assert_eq!(publish["volume_context"]["csi.storage.k8s.io/pod.name"], "web");
    });
}

#[test]
fn fact_11_a_pod_that_waits_is_told_once_and_its_node_already_uses_the_volume() {
    let story = running(fact("11", "Multi-Attach"))
        .pod("next", |pod| pod.mounts("data").on("node-2"))
        .run("10m");
    each(&story, |run| {
        let told = run.events("FailedAttachVolume");
        assert_eq!(told.len(), 1);
        let message = told[0].object["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("Multi-Attach error for volume"), "{message}");
        let waiting = reports(run, "node-2");
        assert!(matches!(waiting[..], [(_, true)]), "{waiting:?}");
        assert_eq!(
            run.calls("ControllerPublishVolume")
                .iter()
                .filter(|c| c.request["node_id"] == "node-2")
                .count(),
            0
        );
        let node = run.states("Node", "node-2");
        let node = node.last().expect("it changed");
        assert!(names(&node.object["status"]["volumesAttached"]).is_empty());
    });
}
