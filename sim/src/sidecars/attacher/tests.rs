//! Stories of external-attacher, with the attach-detach controller to give it work.

use serde_json::json;
use tonic::Code;

use super::says_something;
use crate::api::{Kind, names};
use crate::controllers::attach_detach::bench::{Answers, DRIVER, bench};
use crate::sidecars::connect::ControllerRpc;
use k8s_openapi::api::storage::v1::VolumeAttachment;

fn count(story: &[String], what: &str) -> usize {
    story.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn a_request_says_what_the_volume_says() {
    // Fact sheet 5.2; RWO is SINGLE_NODE_MULTI_WRITER for a driver that can tell (trace 03).
    let answers = Answers::plain();
    let published = answers.published.clone();
    bench(answers, |mut bench| async move {
        bench.pod("pod1", "node-a", "data");
        bench.run(500).await;
        bench
    });
    let published = published.lock().unwrap();
    let request = &published[0];
    assert_eq!(
        (request.volume_id.as_str(), request.node_id.as_str(), request.readonly),
        ("h", "node-a", false)
    );
    assert_eq!(request.volume_context.get("k").map(String::as_str), Some("v"));
    let mode = request.volume_capability.as_ref().unwrap().access_mode.unwrap().mode();
    assert_eq!(mode.as_str_name(), "SINGLE_NODE_MULTI_WRITER");
}

#[test]
fn the_start_asks_four_questions() {
    // Traces 18c, 19.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.mark();
        bench.cluster.kill(bench.attacher);
        bench.cluster.start(bench.attacher);
        bench.run(500).await;
        bench
    });
    let asked: Vec<&str> = story
        .iter()
        .filter_map(|l| l.split(' ').nth(2))
        .filter(|w| w.contains("Get") || *w == "Probe")
        .collect();
    assert_eq!(
        asked,
        [
            "Probe",
            "GetPluginInfo",
            "GetPluginCapabilities",
            "ControllerGetCapabilities"
        ]
    );
}

#[test]
fn an_attacher_that_dies_before_it_wrote_the_result_publishes_again() {
    // Appendix D 4; trace 19.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        let before = bench.cluster.now() + std::time::Duration::from_secs(1);
        let published = |cluster: &crate::cluster::Cluster| {
            cluster.trace().records().iter().any(|r| {
                matches!(&r.what,
                crate::trace::What::Reply { call, .. } if call.request.method() == "ControllerPublishVolume")
            })
        };
        assert!(bench.cluster.run_until(before, published).await);
        bench.cluster.kill(bench.attacher);
        bench.run(100).await;
        bench.cluster.start(bench.attacher);
        bench.run(2000).await;
        assert_eq!(bench.attachments(), ["node-a true"]);
        bench
    });
    assert_eq!(count(&story, "ControllerPublishVolume OK"), 2, "{}", story.join("\n"));
}

#[test]
fn a_driver_that_does_not_publish_has_its_attachments_marked_and_nothing_else() {
    // 5.1: the trivial handler.
    let story = bench(Answers::with(&[]), |mut bench| async move {
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(1000).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.run(1000).await;
        assert!(bench.attachments().is_empty());
        bench
    });
    let attacher: Vec<&String> = story.iter().filter(|l| l.contains(" attacher ")).collect();
    assert!(
        matches!(attacher[..], [line] if line.ends_with(r#"attacher patch va/status {"status":{"attached":true}} ok"#)),
        "{attacher:?}"
    );
}

#[test]
fn an_error_too_long_for_the_status_is_never_seen_and_the_attach_times_out() {
    // 5.2: the API server takes 1024 bytes, the attacher does not cut.
    let answers = Answers::plain().fail_publish(&[Code::Internal; 300]);
    let long = crate::cluster::Injection::on(
        "ControllerPublishVolume",
        300,
        crate::link::layers::Tamper::Refuse(Code::Internal, "x".repeat(1100)),
    );
    let story = bench(answers, |mut bench| async move {
        bench.mark();
        bench.cluster.inject(long);
        bench.pod("pod1", "node-a", "data");
        bench.run(125_000).await;
        bench
    });
    assert!(
        count(&story, "va/status") > 3 && count(&story, "va/status") == count(&story, " 422"),
        "{}",
        story.join("\n")
    );
    let told: Vec<&String> = story.iter().filter(|l| l.contains("FailedAttachVolume")).collect();
    assert!(
        matches!(told[..], [line] if line.contains("timed out waiting for external-attacher")),
        "{told:?}"
    );
}

#[test]
fn a_listing_that_disagrees_forces_another_publish() {
    // 5.5: once a minute; the status says attached, the driver does not.
    let answers = Answers::with(&[
        ControllerRpc::PublishUnpublishVolume,
        ControllerRpc::ListVolumes,
        ControllerRpc::ListVolumesPublishedNodes,
    ]);
    let listed = answers.listed.clone();
    let story = bench(answers, |mut bench| async move {
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(65_000).await;
        *listed.lock().unwrap() = vec![("h".into(), "node-a".into())];
        bench.run(60_000).await;
        bench
    });
    let publishes: Vec<&String> = story.iter().filter(|l| l.contains("ControllerPublishVolume")).collect();
    assert_eq!(count(&story, "ListVolumes"), 2, "{}", story.join("\n"));
    let last = publishes
        .last()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse::<u64>()
        .unwrap();
    assert!(
        (58_000..62_000).contains(&last),
        "published again after the first listing and not after the second: {publishes:?}"
    );
}

#[test]
fn a_deleted_volume_keeps_the_finalizer_while_attached_and_loses_it_by_index() {
    // 5.6; trace 03: 422 when another finalizer went first, then again at the next event.
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.pod("pod1", "node-a", "data");
        bench.run(1000).await;
        bench.delete(Kind::PersistentVolume, "", "vol");
        bench.mark();
        bench.run(1000).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.run(2000).await;
        bench
    });
    let ours: Vec<&str> = story
        .iter()
        .filter(|l| l.contains("patch pv"))
        .map(|l| l.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(
        ours,
        [r#"attacher patch pv vol [RemoveFinalizerAt { name: "external-attacher/hostpath-csi-k8s-io", index: 1 }] ok"#]
    );
    let unpublished = story.iter().position(|l| l.contains("ControllerUnpublish")).unwrap();
    let released = story.iter().position(|l| l.contains("patch pv")).unwrap();
    assert!(unpublished < released);
}

#[test]
fn a_volume_under_deletion_is_not_attached() {
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.delete(Kind::PersistentVolume, "", "vol");
        bench.run(100).await;
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(1000).await;
        bench
    });
    assert_eq!(count(&story, "ControllerPublish"), 0);
    assert!(
        count(
            &story,
            r#"FailedAttachVolume AttachVolume.Attach failed for volume "vol" : PersistentVolume "vol" is marked for deletion"#
        ) == 1,
        "{}",
        story.join("\n")
    );
}

#[test]
fn a_deletion_during_a_failing_publish_still_ends_in_unpublish() {
    // 5.2 and Appendix D 6: the finalizer stays after a failed publish.
    let answers = Answers::plain().fail_publish(&[Code::DeadlineExceeded; 3]);
    let story = bench(answers, |mut bench| async move {
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(600).await;
        bench.in_use("node-a", &["h"]);
        bench.run(100).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.run(3000).await;
        assert!(bench.attachments().is_empty());
        bench
    });
    assert_eq!(count(&story, "ControllerUnpublishVolume OK"), 1, "{}", story.join("\n"));
}

#[test]
fn a_missing_driver_on_the_node_is_an_error_before_anything_is_announced() {
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.patch(Kind::CSINode, "", "node-a", false, json!({"spec": {"drivers": []}}));
        bench.run(100).await;
        bench.mark();
        bench.pod("pod1", "node-a", "data");
        bench.run(900).await;
        bench
    });
    assert_eq!(count(&story, "ControllerPublish"), 0);
    assert_eq!(count(&story, "node-id"), 0);
    assert!(
        count(&story, "CSINode node-a does not contain driver") >= 1,
        "{}",
        story.join("\n")
    );
}

#[test]
fn only_its_own_error_words_are_filtered() {
    // 5.4.
    let attachment = |version: &str, status: serde_json::Value, annotation: &str| -> VolumeAttachment {
        serde_json::from_value(json!({
            "metadata": {"name": names::attachment_name(DRIVER, "h", "n"), "resourceVersion": version, "annotations": {"a": annotation}},
            "spec": {"attacher": DRIVER, "nodeName": "n", "source": {"persistentVolumeName": "vol"}},
            "status": status}))
        .unwrap()
    };
    let plain = attachment("1", json!({"attached": false}), "1");
    let failed = attachment("2", json!({"attached": false, "attachError": {"message": "m"}}), "1");
    let again = attachment("3", json!({"attached": false, "attachError": {"message": "n"}}), "1");
    let attached = attachment("4", json!({"attached": true}), "1");
    let annotated = attachment("5", json!({"attached": false, "attachError": {"message": "m"}}), "2");
    let cases = [
        (&plain, &failed, false),
        (&failed, &again, false),
        (&failed, &plain, false),
        (&failed, &failed, true),
        (&failed, &attached, true),
        (&failed, &annotated, true),
        (&plain, &attached, true),
    ];
    for (old, new, heard) in cases {
        assert_eq!(says_something(old, new), heard, "{old:?} {new:?}");
    }
}

#[test]
fn an_attach_that_timed_out_is_repeated_before_the_deletion_is_heeded() {
    // README of the traces, fact 30, and 5.2 step 6: two lost answers of 15 s each, and only then ControllerUnpublish.
    let lost = crate::cluster::Injection::on("ControllerPublishVolume", 2, crate::link::layers::Tamper::Lose);
    let story = bench(Answers::plain(), |mut bench| async move {
        bench.mark();
        bench.cluster.inject(lost);
        bench.pod("pod1", "node-a", "data");
        bench.run(2000).await;
        bench.in_use("node-a", &["h"]);
        bench.run(16_000).await;
        bench.delete(Kind::Pod, "default", "pod1");
        bench.in_use("node-a", &[]);
        bench.run(30_000).await;
        assert!(bench.attachments().is_empty());
        bench
    });
    let mut last = 0;
    let at = |line: &String| line.split(' ').next().unwrap().parse::<u64>().unwrap();
    let calls: Vec<(String, u64)> = story
        .iter()
        .filter(|l| l.contains("publishVolume") || l.contains("PublishVolume "))
        .map(|l| {
            let gap = at(l) - last;
            last = at(l);
            (l.split_once("Controller").unwrap().1.to_owned(), gap / 1000)
        })
        .collect();
    let expected = [
        ("PublishVolume DeadlineExceeded".to_owned(), 15),
        ("PublishVolume DeadlineExceeded".to_owned(), 15),
        ("UnpublishVolume OK".to_owned(), 0),
    ];
    assert_eq!(calls, expected, "{}", story.join("\n"));
}
