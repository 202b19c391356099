//! Stories of this controller with the external-attacher model beside it, told in the order of the recorded traces.

use serde_json::json;
use tonic::Code;

use super::bench::{Answers, Bench, bench, unique};
use crate::api::Kind;

/// When lines that contain `what` were told, in milliseconds.
fn times(story: &[String], what: &str) -> Vec<u64> {
    let lines = story.iter().filter(|line| line.contains(what));
    lines.map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// That something happened at these moments, give or take what latencies and the 100 ms grid make of them.
fn near(story: &[String], what: &str, expected: &[u64]) {
    let found = times(story, what);
    let close = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.abs_diff(*e) <= 120);
    assert!(
        close,
        "{what}: {found:?}, expected {expected:?} in\n{}",
        story.join("\n")
    );
}

/// Story lines without their times.
fn untimed(story: &[String]) -> Vec<&str> {
    story.iter().map(|line| line.split_once(' ').unwrap().1).collect()
}

/// A pod on node-a whose volume is attached and in use.
async fn settled(bench: &mut Bench) {
    bench.pod("pod1", "node-a", "data");
    bench.run(1000).await;
    bench.in_use("node-a", &["h"]);
    bench.run(1000).await;
    bench.mark();
}

#[test]
fn an_attach_and_a_detach_take_the_recorded_steps() {
    // Trace 03: the event half a second after the attachment was written, volumesAttached at the next pass; the finalizer goes before the status is said.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(1000).await;
        bench.in_use("node-a", &["h"]);
        bench.run(1000).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.run(1000).await;
        bench.in_use("node-a", &[]);
        bench.run(1000).await;
        bench
    });
    let finalizer = r#""finalizers":["external-attacher/hostpath-csi-k8s-io"]"#;
    let expected = [
        "kcm create va ok".to_owned(),
        r#"attacher patch pv vol [AppendFinalizer { name: "external-attacher/hostpath-csi-k8s-io", expect_none: false }] ok"#.into(),
        format!(r#"attacher patch va {{"metadata":{{"annotations":{{"csi.alpha.kubernetes.io/node-id":"node-a"}},{finalizer}}}}} ok"#),
        "attacher ControllerPublishVolume OK".into(),
        r#"attacher patch va/status {"status":{"attached":true}} ok"#.into(),
        r#"kcm event SuccessfulAttachVolume AttachVolume.Attach succeeded for volume "vol" "#.into(),
        format!("kcm patch node node-a/status attached {:?} ok", [unique("h")]),
        "kcm patch node node-a/status attached [] ok".into(),
        "kcm delete va ok".into(),
        "attacher ControllerUnpublishVolume OK".into(),
        r#"attacher patch va {"metadata":{"finalizers":null}} ok"#.into(),
        r#"attacher patch va/status {"status":{"attached":false}} 404"#.into(),
    ];
    assert_eq!(untimed(&story), expected);
    let (created, told) = (times(&story, "create va")[0], times(&story, "event")[0]);
    assert!((520..=540).contains(&(told - created)), "{story:?}");
    let reported = times(&story, "patch node")[0];
    assert!((595..=610).contains(&(reported - created)), "{story:?}");
}

#[test]
fn attacher_and_controller_retry_on_clocks_of_their_own() {
    // Trace 21b: calls in a pair, then 1, 4, 8, 16 s; each try of the controller costs its back-off and half a second; success noticed at 35.6 s.
    let answers = Answers::plain().fail_publish(&[Code::Unavailable; 5]);
    let story = bench(answers, |mut bench| async move {
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(40_000).await;
        bench
    });
    near(&story, "ControllerPublishVolume", &[30, 38, 1030, 5040, 13_050, 29_060]);
    near(&story, "FailedAttachVolume", &[530]);
    near(&story, "event again", &[1650, 3230, 5810, 10_440, 19_030]);
    near(&story, "SuccessfulAttachVolume", &[35_600]);
    assert_eq!(
        times(&story, "create va").len(),
        1,
        "a failed attach leaves its attachment"
    );
}

#[test]
fn a_failing_detach_is_asked_for_again_and_tells_nobody() {
    // Trace 21b: DELETE at 0, 1.1, 2.7, 5.4, 9.9 s; calls at 0, 1, 3, 7, 15 s. The last back-off outlives the attachment.
    let answers = Answers::plain().fail_unpublish(&[Code::Internal; 4]);
    let story = bench(answers, |mut bench| async move {
        settled(&mut bench).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.run(20_000).await;
        assert!(bench.attachments().is_empty());
        bench
    });
    near(&story, "delete va", &[30, 1130, 2730, 5330, 9930, 18_530]);
    near(&story, "ControllerUnpublishVolume", &[30, 1040, 3050, 7060, 15_070]);
    assert_eq!(
        times(&story, "patch node").len(),
        1,
        "withdrawn once:\n{}",
        story.join("\n")
    );
    assert!(
        !story.iter().any(|l| l.contains("event") || l.contains("errorCode")),
        "{story:?}"
    );
}

#[test]
fn a_second_node_waits_for_the_first_and_its_pod_is_told_once() {
    // Traces 20 and 20e: one event per pod; the next attach about 600 ms after the DELETE.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        bench.pod("pod2", "node-b", "data");
        bench.run(5000).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.run(1000).await;
        bench.in_use("node-a", &[]);
        bench.run(3000).await;
        assert_eq!(bench.attachments(), ["node-b true"]);
        bench
    });
    near(
        &story,
        "Multi-Attach error for volume \"vol\" Volume is already used by pod(s) pod1",
        &[30],
    );
    near(&story, "delete va", &[6030]);
    near(&story, "create va", &[6630]);
    near(&story, "SuccessfulAttachVolume", &[7150]);
}

#[test]
fn without_a_pod_on_the_other_node_the_message_is_another() {
    // Trace 20e.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.pod("pod2", "node-b", "data");
        bench.run(5000).await;
        bench
    });
    let told = "Volume is already exclusively attached to one node and can't be attached to another";
    near(&story, told, &[30]);
}

#[test]
fn a_silent_node_keeps_a_volume_for_six_minutes_after_its_pod_is_gone() {
    // Trace 20e: PATCH, DELETE and ControllerUnpublish 360 s after the deletion, without a look at the node.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        bench.ready("node-a", "Unknown");
        bench.run(10_000).await;
        bench.mark();
        bench.delete(Kind::Pod, "default", "pod1");
        bench.pod("pod2", "node-b", "data");
        bench.run(362_000).await;
        bench
    });
    near(&story, "patch node node-a/status attached []", &[360_030]);
    near(&story, "delete va", &[360_040]);
    near(&story, "create va", &[360_640]);
}

#[test]
fn a_terminating_pod_that_was_last_seen_running_keeps_its_volume_for_ever() {
    // Trace 20: 600 s of Multi-Attach, no force detach.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        let running = json!({"status": {"phase": "Running", "containerStatuses": [{"name": "c", "image": "pause", "imageID": "", "ready": true,
            "restartCount": 0, "state": {"running": {}}}]}});
        bench.patch(Kind::Pod, "default", "pod1", true, running);
        bench.ready("node-a", "Unknown");
        let mut delete = crate::api::Delete::new(crate::api::ObjectRef::new(
            Kind::Pod,
            crate::api::ObjKey::new("default", "pod1"),
        ));
        delete.grace_seconds = Some(30);
        bench.cluster.apply(&crate::api::Write::Delete(delete)).unwrap();
        bench.pod("pod2", "node-b", "data");
        bench.run(700_000).await;
        bench
    });
    assert_eq!(times(&story, "delete va"), Vec::<u64>::new());
    assert_eq!(times(&story, "Multi-Attach").len(), 1);
}

#[test]
fn the_out_of_service_taint_frees_a_volume_at_once() {
    // Trace 20b.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        bench.ready("node-a", "Unknown");
        let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
        bench.patch(Kind::Node, "", "node-a", false, taint);
        bench.run(1000).await;
        bench.mark();
        bench.delete(Kind::Pod, "default", "pod1");
        bench.run(1000).await;
        bench
    });
    near(&story, "delete va", &[40]);
}

#[test]
fn of_a_deleted_node_the_annotation_tells_the_drivers_name() {
    // Trace 20c: nobody to report to, detach 360 s after the pod's object went, node_id from the attachment.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        bench.delete(Kind::Node, "", "node-a");
        bench.delete(Kind::CSINode, "", "node-a");
        bench.run(5000).await;
        bench.mark();
        bench.delete(Kind::Pod, "default", "pod1");
        bench.run(362_000).await;
        assert!(bench.attachments().is_empty());
        bench
    });
    assert_eq!(times(&story, "patch node").len(), 0, "{}", story.join("\n"));
    near(&story, "delete va", &[360_030]);
    near(&story, "ControllerUnpublishVolume OK", &[360_040]);
}

#[test]
fn a_restart_finds_what_is_attached_and_does_nothing() {
    // Fact 35 of the traces' README.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        bench.cluster.kill(bench.kcm);
        bench.run(1000).await;
        bench.cluster.start(bench.kcm);
        bench.run(130_000).await;
        assert_eq!(bench.attachments(), ["node-a true"]);
        bench
    });
    let writes: Vec<&str> = untimed(&story)
        .into_iter()
        .filter(|l| l.contains(" va") || l.contains("event"))
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
}

#[test]
fn a_pod_deleted_while_the_controller_was_down_is_cleared_up_at_its_start() {
    // Fact 35: rebuilt from node status and attachments, detached at once.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        bench.cluster.kill(bench.kcm);
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.run(1000).await;
        bench.mark();
        bench.cluster.start(bench.kcm);
        bench.run(2000).await;
        assert!(bench.attachments().is_empty());
        bench
    });
    near(&story, "delete va", &[30]);
}

#[test]
fn an_attach_cut_short_by_a_restart_goes_on_with_the_same_attachment() {
    // 4.7: the attachment is uncertain after the restart and wanted: attached again without being written again.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(200).await;
        bench.cluster.kill(bench.kcm);
        bench.run(100).await;
        bench.cluster.start(bench.kcm);
        bench.run(2000).await;
        bench
    });
    assert_eq!(times(&story, "create va").len(), 1);
    near(&story, "SuccessfulAttachVolume", &[860]);
    near(&story, "patch node node-a/status", &[920]);
}

#[test]
fn an_attachment_that_no_node_was_told_of_counts_as_in_use_until_its_node_speaks() {
    // 4.2, 4.7: found at the start, wanted by nobody; kubelet reports itself unchanged after five minutes at the latest.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.pod("pod1", "node-a", "data");
        bench.run(300).await;
        bench.cluster.kill(bench.kcm);
        bench.delete(Kind::Pod, "default", "pod1");
        bench.run(1000).await;
        bench.mark();
        bench.cluster.start(bench.kcm);
        bench.run(302_000).await;
        assert!(bench.attachments().is_empty());
        bench
    });
    near(&story, "delete va", &[300_030]);
}

#[test]
fn an_attachment_taken_away_is_noticed_within_a_minute_and_made_anew() {
    // Appendix D 22.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        let name = crate::api::names::attachment_name(super::bench::DRIVER, "h", "node-a");
        bench.delete(Kind::VolumeAttachment, "", &name);
        bench.run(65_000).await;
        assert_eq!(bench.attachments(), ["node-a true"]);
        bench
    });
    let created = times(&story, "create va");
    assert!(
        matches!(created[..], [at] if at > 50_000 && at < 60_000),
        "{}",
        story.join("\n")
    );
    assert_eq!(times(&story, "ControllerUnpublishVolume").len(), 1);
    // Once, or twice in a pair (5.4).
    assert!(
        times(&story, "ControllerPublishVolume")
            .into_iter()
            .all(|at| at.abs_diff(created[0]) < 50)
    );
}

#[test]
fn a_volume_for_many_nodes_is_attached_to_each() {
    // Trace 05b.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.volume("many", "m", "shared", "ReadWriteMany");
        bench.run(100).await;
        bench.mark();
        bench.pod("poda", "node-a", "shared");
        bench.pod("podb", "node-b", "shared");
        bench.run(1000).await;
        assert_eq!(bench.attachments(), ["node-a true", "node-b true"]);
        bench
    });
    near(&story, "create va", &[30, 30]);
    near(&story, "SuccessfulAttachVolume", &[550, 550]);
}

#[test]
fn an_uncertain_attachment_blocks_nobody() {
    // 4.3: the detach from node-a keeps failing; node-b is attached all the same, between two of its tries.
    let answers = Answers::plain().fail_unpublish(&[Code::Internal; 30]);
    let story = bench(answers, |mut bench| async move {
        settled(&mut bench).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.pod("pod2", "node-b", "data");
        bench.run(3000).await;
        let attachments = bench.attachments();
        assert_eq!(
            attachments,
            ["node-a true", "node-b true"],
            "a known exception of safety property 1"
        );
        bench
    });
    near(&story, "SuccessfulAttachVolume", &[1150]);
}

#[test]
fn a_driver_that_needs_no_attach_gets_none() {
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.create(
            Kind::CSIDriver,
            json!({"metadata": {"name": super::bench::DRIVER}, "spec": {"attachRequired": false}}),
        );
        bench.run(100).await;
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(200_000).await;
        bench
    });
    assert!(story.is_empty(), "{story:?}");
}

#[test]
fn a_volume_seen_too_late_is_found_when_all_pods_are_looked_at_again() {
    // 4.2: passed over in silence until an event of the pod or the claim, or the list every three minutes.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.mark();
        let claim = json!({"metadata": {"name": "late", "namespace": "default"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x", "volumeName": "slow"}});
        bench.create(Kind::PersistentVolumeClaim, claim);
        let bound = json!({"status": {"phase": "Bound"}});
        bench.patch(Kind::PersistentVolumeClaim, "default", "late", true, bound);
        bench.pod("pod1", "node-a", "late");
        bench.run(1000).await;
        let key = crate::api::ObjKey::new("default", "late");
        let uid = bench
            .cluster
            .object(Kind::PersistentVolumeClaim, &key)
            .unwrap()
            .uid()
            .to_owned();
        bench.create(
            Kind::PersistentVolume,
            json!({"metadata": {"name": "slow"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "storageClassName": "x", "claimRef": {"namespace": "default", "name": "late", "uid": uid},
                "csi": {"driver": super::bench::DRIVER, "volumeHandle": "s"}}}),
        );
        bench.run(200_000).await;
        bench
    });
    near(&story, "create va", &[179_130]);
}

#[test]
fn what_a_vanished_claim_hides_is_removed_within_a_minute() {
    // 4.2: removal goes by claim and volume; when they are gone first, the populator removes what is left.
    let story = bench(Answers::plain(), |mut bench| async move {
        settled(&mut bench).await;
        let bare = json!({"metadata": {"finalizers": null}});
        bench.patch(Kind::PersistentVolumeClaim, "default", "data", false, bare);
        bench.delete(Kind::PersistentVolumeClaim, "default", "data");
        bench.run(100).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.run(65_000).await;
        bench
    });
    let deleted = times(&story, "delete va");
    assert!(
        matches!(deleted[..], [at] if at > 50_000 && at < 60_000),
        "{}",
        story.join("\n")
    );
}

#[test]
fn a_stale_deletion_fails_the_next_attach_until_the_attachment_is_gone() {
    // 4.5: wanted again while it is being deleted.
    let answers = Answers::plain().fail_unpublish(&[Code::Internal; 2]);
    let story = bench(answers, |mut bench| async move {
        settled(&mut bench).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.run(700).await;
        bench.pod("pod2", "node-a", "data");
        bench.run(10_000).await;
        assert_eq!(bench.attachments(), ["node-a true"]);
        bench
    });
    let told = "AttachVolume.Attach failed for volume \"vol\" : volume attachment is being deleted";
    assert!(!times(&story, told).is_empty(), "{}", story.join("\n"));
    assert_eq!(times(&story, "create va").len(), 1, "under the same name");
}
