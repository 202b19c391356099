//! Facts 9, 10, 12 to 14b: pods that wait, share, bring their own volumes, map devices, and come back.

use serde_json::json;

use super::run::{Run, each, fact, one};

#[test]
fn fact_9_a_pod_is_bound_a_second_after_the_scheduler_chose_its_node() {
    let story = fact("9", "WaitForFirstConsumer")
        .claim("data", "1Gi", |claim| claim.class("wffc"))
        .run("50s")
        .pod("web", |pod| pod.mounts("data").on("node-2"))
        .until("pod/web", "Ready", "1m");
    each(&story, |run| {
        let nominated = run.write("scheduler", "patch pods/status web");
        assert_eq!(nominated.body["status"]["nominatedNodeName"], "node-2");
        let chosen = run
            .writes
            .iter()
            .find(|w| w.user == "scheduler" && w.what.contains("persistentvolumeclaims data"));
        let chosen = chosen.expect("the scheduler chooses a node");
        assert!(chosen.body.to_string().contains("volume.kubernetes.io/selected-node"));
        assert!(nominated.at < chosen.at && chosen.at < run.first("CreateVolume"));
        let bind = run.write("scheduler", "create pods/binding").at;
        run.between("the binding", bind - chosen.at, 0.99, 1.1);
        let waiting = run.events("WaitForFirstConsumer");
        assert!((3..=5).contains(&waiting.len()), "{} events in 50 s", waiting.len());
        let pauses: Vec<f64> = waiting.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        let last = pauses.last().copied().unwrap_or_default();
        run.between("the next resync", last, 14.9, 15.1);
    });
}

#[test]
fn fact_10_two_pods_of_a_node_share_attachment_and_stage() {
    let story = fact("10", "two pods, one node")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .pod("one", |pod| pod.mounts("data").on("node-1"))
        .pod("two", |pod| pod.mounts("data").on("node-1"))
        .until("pod/one", "Ready", "1m")
        .until("pod/two", "Ready", "1m")
        .run("5s")
        .delete("pod/one")
        .until("pod/one", "gone", "1m")
        .run("25s")
        .delete("pod/two")
        .until("va/claim:data", "gone", "1m");
    each(&story, |run| {
        let count = |method: &str| run.calls(method).len();
        assert_eq!((count("NodeStageVolume"), count("NodePublishVolume")), (1, 2));
        assert_eq!((count("NodeUnpublishVolume"), count("NodeUnstageVolume")), (2, 1));
        assert!(run.first("NodeUnstageVolume") > run.last("NodeUnpublishVolume"));
        assert!(run.first("ControllerUnpublishVolume") > run.first("NodeUnstageVolume"));
    });
}

#[test]
fn fact_10_a_pod_that_waits_for_a_read_write_once_pod_volume_is_bound_when_the_other_is_over() {
    let story = fact("10", "ReadWriteOncePod")
        .claim("data", "1Gi", |claim| claim.class("imm").access("ReadWriteOncePod"))
        .pod("one", |pod| pod.mounts("data").on("node-1"))
        .until("pod/one", "Ready", "1m")
        .pod("two", |pod| pod.mounts("data").on("node-1"))
        .until("pod/two", "event:FailedScheduling", "10s")
        .run("20s")
        .delete("pod/one")
        .until("pod/two", "Ready", "1m")
        .until("pod/one", "gone", "10s");
    each(&story, |run| {
        let deleted = run.write("kubectl", "delete pods one").at;
        let bound = run.writes("scheduler", "create pods/binding")[1].at;
        run.between("the binding of the second pod", bound - deleted, 0.05, 0.45);
        assert!(bound < run.gone("Pod", "one"), "before the object of the first is gone");
        assert_eq!(run.calls("NodeStageVolume").len(), 1);
        assert!(run.calls("NodeUnstageVolume").is_empty());
        let (first, second) = (run.first("NodeUnpublishVolume"), run.last("NodePublishVolume"));
        assert!(first < second, "it is published only after the first gave it up");
    });
}

fn scratch(volume: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "job"},
        "spec": {
            "containers": [{"name": "main", "image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [volume],
        },
    })
}

#[test]
fn fact_12_an_inline_volume_is_published_and_unpublished_and_nothing_else() {
    let volume = json!({"name": "v", "csi": {"driver": "csi.wavetank.dev", "volumeAttributes": {"size": "64Mi"}}});
    let story = fact("12", "an inline volume")
        .manifest(scratch(&volume))
        .until("pod/job", "Ready", "30s")
        .delete("pod/job")
        .until("pod/job", "gone", "1m")
        .run("30s");
    each(&story, |run| {
        assert_eq!(run.life(), ["NodePublishVolume", "NodeUnpublishVolume"]);
        let request = &run.calls("NodePublishVolume")[0].request;
        let id = request["volume_id"].as_str().unwrap_or_default();
        let digits = id.strip_prefix("csi-").unwrap_or_default();
        assert!(
            digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(request["volume_context"]["csi.storage.k8s.io/ephemeral"], "true");
        assert_eq!(request["volume_context"]["size"], "64Mi");
        assert!(run.states("VolumeAttachment", "").is_empty());
    });
}

#[test]
fn fact_12_a_generic_ephemeral_volume_fails_to_schedule_once_and_is_then_like_any_other() {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "wffc", "resources": {"requests": {"storage": "1Gi"}}}});
    let story = fact("12", "a generic ephemeral volume")
        .manifest(scratch(
            &json!({"name": "v", "ephemeral": {"volumeClaimTemplate": template}}),
        ))
        .step(wait_for_pod())
        .delete("pod/job")
        .until("pvc/job-v", "gone", "1m");
    each(&story, |run| {
        let message = run.event("FailedScheduling").object["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            message.contains("waiting for ephemeral volume controller to create the persistentvolumeclaim \"job-v\""),
            "{message}"
        );
        let (claim, stage) = (
            run.since("PersistentVolumeClaim", "job-v", |_| true),
            run.first("NodeStageVolume"),
        );
        assert!(claim < run.first("CreateVolume") && run.first("CreateVolume") < stage);
        assert!(run.gone("Pod", "job") < run.gone("PersistentVolumeClaim", "job-v"));
    });
}

fn wait_for_pod() -> wavetank_sim::scenario::Step {
    use wavetank_sim::scenario::{Condition, GoDuration, KindName, ObjectCondition, Step, Target, Wait};
    let target = Target {
        kind: KindName(wavetank_sim::api::Kind::Pod),
        name: Some("job".into()),
        claim: None,
        snapshot: None,
        node: None,
        namespace: None,
    };
    let until = Condition::Object(ObjectCondition {
        condition: Some("Ready".into()),
        ..ObjectCondition::on(target)
    });
    Step::Wait(Wait {
        until,
        within: GoDuration::secs(60),
    })
}

#[test]
fn fact_13_a_raw_block_volume_has_paths_of_its_own() {
    let story = fact("13", "a raw block volume")
        .claim("disk", "1Gi", |claim| claim.class("imm").block())
        .pod("web", |pod| pod.device("disk").on("node-1"))
        .until("pod/web", "Ready", "1m")
        .delete("pod/web")
        .until("va/claim:disk", "gone", "1m");
    each(&story, |run| {
        let volume = &run.states("PersistentVolume", "pvc-")[0].name;
        let uid = run.states("Pod", "web")[0].object["metadata"]["uid"]
            .as_str()
            .unwrap_or_default();
        let devices = "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices";
        let stage = &run.calls("NodeStageVolume")[0].request;
        assert_eq!(stage["staging_target_path"], format!("{devices}/staging/{volume}"));
        assert_eq!(stage["volume_capability"]["block"], json!({}));
        let publish = &run.calls("NodePublishVolume")[0].request;
        assert_eq!(publish["target_path"], format!("{devices}/publish/{volume}/{uid}"));
        assert_eq!(
            run.calls("NodeUnpublishVolume")[0].request["target_path"],
            publish["target_path"]
        );
        // Two questions before staging and one before publishing, where a file system has three and three.
        let node = run
            .rpcs
            .iter()
            .filter(|r| r.caller == "kubelet/node-1" && r.at <= run.first("NodePublishVolume"));
        let calls: Vec<&str> = node.map(|r| r.method.as_str()).collect();
        let ask = "NodeGetCapabilities";
        assert_eq!(calls, [ask, ask, "NodeStageVolume", ask, "NodePublishVolume"]);
    });
}

#[test]
fn fact_14_statistics_follow_a_clock_of_the_node() {
    let story = fact("14", "statistics of volumes")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .claim("disk", "1Gi", |claim| claim.class("imm").block())
        .pod("web", |pod| pod.mounts("data").device("disk").on("node-1"))
        .until("pod/web", "Ready", "1m")
        .run("10m");
    let mut firsts = Vec::new();
    for seed in 0..8 {
        let run = one(&story, seed);
        let calls = run.calls("NodeGetVolumeStats");
        let volumes: std::collections::BTreeSet<&str> =
            calls.iter().filter_map(|c| c.request["volume_id"].as_str()).collect();
        assert_eq!(volumes.len(), 2, "of the block volume, too");
        let first = run.first("NodeGetVolumeStats") - run.last("NodePublishVolume");
        run.between("the first statistics", first, 0.0, 60.5);
        firsts.push(first);
        each_is_asked_for(&run);
    }
    let (least, most) = firsts
        .iter()
        .fold((f64::MAX, 0.0_f64), |(a, b), w| (a.min(*w), b.max(*w)));
    assert!(most - least > 15.0, "they do not follow the mount: {firsts:.0?}");
}

/// Each call follows a question about capabilities, and comes again after one to two minutes.
fn each_is_asked_for(run: &Run) {
    let node: Vec<_> = run.rpcs.iter().filter(|r| r.caller == "kubelet/node-1").collect();
    for (at, rpc) in node
        .iter()
        .enumerate()
        .filter(|(_, r)| r.method == "NodeGetVolumeStats")
    {
        assert_eq!(node[at - 1].method, "NodeGetCapabilities");
        let again = node[at + 1..]
            .iter()
            .find(|r| r.method == rpc.method && r.request["volume_id"] == rpc.request["volume_id"]);
        if let Some(again) = again {
            run.between("the next statistics", again.at - rpc.at, 59.9, 120.1);
        }
    }
}

fn options_class() -> serde_json::Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "options"},
        "provisioner": "csi.wavetank.dev",
        "mountOptions": ["noatime"],
        "parameters": {"csi.storage.k8s.io/fstype": "ext4"},
    })
}

fn reader() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "node-1"},
            "containers": [{"name": "main", "image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}],
        },
    })
}

#[test]
fn fact_14b_mount_options_and_type_are_told_everywhere_and_read_only_only_to_publish() {
    let story = fact("14b", "readOnly, mountOptions, fstype")
        .manifest(options_class())
        .claim("data", "1Gi", |claim| claim.class("options"))
        .manifest(reader())
        .until("pod/reader", "Ready", "1m");
    each(&story, |run| {
        let mount = json!({"fs_type": "ext4", "mount_flags": ["noatime"]});
        let create = &run.calls("CreateVolume")[0].request;
        assert_eq!(create["volume_capabilities"][0]["mount"], mount);
        for method in ["ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume"] {
            let request = &run.calls(method)[0].request;
            assert_eq!(request["volume_capability"]["mount"], mount, "{method}");
            let readonly = request["readonly"].as_bool().unwrap_or(false);
            assert_eq!(readonly, method == "NodePublishVolume", "{method}");
        }
    });
}

#[test]
fn fact_14b_a_pod_that_comes_back_before_the_status_tick_needs_no_attach() {
    let story = fact("14b", "a pod comes back before the status tick")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "1m")
        .run("3s")
        .delete("pod/web")
        .until("pod/web", "gone", "1m")
        .run("150ms")
        .pod("again", |pod| pod.mounts("data").on("node-1"))
        .until("pod/again", "Ready", "1m");
    let mut before_the_tick = 0;
    for seed in 0..8 {
        let run = one(&story, seed);
        assert_eq!(
            run.calls("NodeStageVolume").len(),
            2,
            "seed {seed}: it was unstaged in between"
        );
        if run.calls("ControllerUnpublishVolume").is_empty() {
            before_the_tick += 1;
            assert_eq!(run.writes("controller-manager", "create volumeattachments").len(), 1);
        }
    }
    assert!(
        before_the_tick >= 5,
        "the tick rarely comes in between: {before_the_tick} of 8"
    );
}
