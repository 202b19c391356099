//! Facts 38 to 41: a node that is lost, by the times of the recordings 20, 20b, 20c and 20e.
//!
//! The passes of the node lifecycle controller come every 5 s, those of the pod garbage collector every 20 s: what waits for a pass is given that much room.

use serde_json::{Value, json};
use wavetank_sim::scenario::{Builder, Step, Taint, TaintEffect};

use super::run::{Run, State, each, fact};

/// A pod on `node` that bears a lost node for so many seconds; 300 if it says nothing.
fn pod(name: &str, node: &str, bears: Option<u32>) -> Value {
    let toleration = |key: &str| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": bears});
    let tolerations = bears.map(|_| vec![toleration("unreachable"), toleration("not-ready")]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 5,
        "tolerations": tolerations,
        "containers": [{"name": "main", "image": "busybox", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }})
}

/// A pod runs on the second node, whose kubelet dies.
fn lost(story: Builder, bears: Option<u32>) -> Builder {
    story
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .manifest(pod("podb", "node-2", bears))
        .until("pod/podb", "Ready", "1m")
        .run("3s")
        .stop("kubelet/node-2")
}

fn is_condition(state: &State, kind: &str, status: &str) -> bool {
    let conditions = state.object["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == kind && c["status"] == status))
}

fn taints(state: &State) -> Vec<&str> {
    let taints = state.object["spec"]["taints"].as_array();
    taints
        .map(|list| list.iter().filter_map(|t| t["effect"].as_str()).collect())
        .unwrap_or_default()
}

/// When the second node was declared Unknown.
fn unknown(run: &Run) -> f64 {
    run.since("Node", "node-2", |s| is_condition(s, "Ready", "Unknown"))
}

/// When a pod's deletion began.
fn deleting(run: &Run, pod: &str) -> f64 {
    run.since("Pod", pod, |s| s.object["metadata"]["deletionTimestamp"].is_string())
}

#[test]
fn fact_38_a_silent_node_is_unknown_and_tainted_and_its_pods_go_when_they_bear_it_no_longer() {
    let story = lost(fact("38", "kubelet is killed"), Some(10)).run("70s");
    each(&story, |run| {
        let unknown = unknown(run);
        run.between("until Unknown", unknown - run.last_step(), 40.0, 55.1);
        let not_ready = run.since("Pod", "podb", |s| s.at > unknown && is_condition(s, "Ready", "False"));
        run.between("until the pod is not ready", not_ready - unknown, 0.001, 0.035);
        let tainted = |with: &'static str| run.since("Node", "node-2", move |s| taints(s).contains(&with));
        run.between("NoSchedule", tainted("NoSchedule") - unknown, 0.001, 0.035);
        let no_execute = tainted("NoExecute");
        run.between("NoExecute", no_execute - unknown, 0.08, 0.12);
        let marked = run.since("Pod", "podb", |s| is_condition(s, "DisruptionTarget", "True"));
        run.between("until it is marked", marked - no_execute, 10.0, 10.03);
        let deleting = deleting(run, "podb");
        run.between("from the mark to the deletion", deleting - marked, 0.001, 0.02);
        assert_eq!(run.events("TaintManagerEviction").len(), 1);
    });
}

#[test]
fn fact_39_a_pod_that_nobody_ends_keeps_its_volume_until_its_kubelet_is_back() {
    let story = lost(fact("39", "a pod is stuck on a dead node"), Some(10))
        .until("pod/podb", "event:TaintManagerEviction", "80s")
        .manifest(pod("poda", "node-1", None))
        .run("10m")
        .start("kubelet/node-2")
        .until("pod/poda", "Ready", "1m");
    each(&story, |run| {
        let back = run.last_step();
        assert!(
            run.first("ControllerUnpublishVolume") > back,
            "nothing is detached by force"
        );
        let multi_attach = run.event("FailedAttachVolume");
        assert!(
            multi_attach.object["message"]
                .as_str()
                .unwrap()
                .ends_with("already used by pod(s) podb")
        );
        assert_eq!(run.events("FailedAttachVolume").len(), 1);
        let ready = run.since("Node", "node-2", |s| s.at > back && is_condition(s, "Ready", "True"));
        run.between("until Ready", ready - back, 0.3, 0.7);
        let free =
            |effect: &'static str| run.since("Node", "node-2", move |s| s.at > back && !taints(s).contains(&effect));
        run.between("until NoSchedule goes", free("NoSchedule") - ready, 0.001, 0.1);
        run.between("until NoExecute goes", free("NoExecute") - ready, 0.001, 5.1);
        run.between("until the pod is gone", run.gone("Pod", "podb") - back, 1.0, 4.0);
        assert_eq!(
            run.life()[4..9],
            [
                "NodeStageVolume",
                "NodePublishVolume",
                "NodeUnpublishVolume",
                "NodeUnstageVolume",
                "ControllerUnpublishVolume"
            ],
            "{:?}",
            run.life()
        );
    });
}

#[test]
fn fact_39_six_minutes_begin_when_the_pod_is_gone() {
    let story = lost(fact("39", "a pod is force-deleted from a dead node"), None)
        .until("node/node-2", "Ready=Unknown", "1m")
        .delete_now("pod/podb")
        .manifest(pod("poda", "node-1", None))
        .until("pod/poda", "Ready", "7m");
    each(&story, |run| {
        let gone = run.gone("Pod", "podb");
        let detached = run.first("ControllerUnpublishVolume");
        run.between("until the forced detach", detached - gone, 360.0, 360.25);
        assert!(run.calls("NodeUnstageVolume").is_empty());
        let attached = run
            .times("ControllerPublishVolume")
            .into_iter()
            .find(|at| *at > detached);
        run.between("until the next attach", attached.unwrap() - detached, 0.5, 0.7);
    });
}

#[test]
fn fact_40_a_pod_follows_its_node_and_its_volume_follows_six_minutes_later() {
    let story = lost(fact("40", "a Node is deleted"), None)
        .run("2s")
        .delete("node/node-2")
        .manifest(pod("poda", "node-1", None))
        .until("pod/poda", "Ready", "9m");
    each(&story, |run| {
        let node = run.gone("Node", "node-2");
        run.between(
            "until the CSINode is gone",
            run.gone("CSINode", "node-2") - node,
            0.001,
            0.06,
        );
        let pod = run.gone("Pod", "podb");
        run.between("until the pod is gone", pod - node, 60.0, 80.1);
        let detached = &run.calls("ControllerUnpublishVolume")[0];
        run.between("until the forced detach", detached.at - pod, 360.0, 360.25);
        assert_eq!(detached.request["node_id"], "node-2", "the attachment remembers it");
        assert_eq!(detached.code, "OK");
        let reason = |s: &State| {
            let conditions = s.object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["reason"] == "DeletionByPodGC") && s.object["status"]["phase"] == "Failed"
        };
        run.since("Pod", "podb", reason);
        run.event("RemovingNode");
    });
}

#[test]
fn fact_41_out_of_service_ends_the_pod_at_the_next_collection_and_frees_its_volume_at_once() {
    let taint = Taint {
        node: "node-2".into(),
        key: "node.kubernetes.io/out-of-service".into(),
        value: Some("nodeshutdown".into()),
        effect: TaintEffect::NoExecute,
    };
    let story = lost(fact("41", "a node is tainted out-of-service"), None)
        .until("node/node-2", "Ready=Unknown", "1m")
        .manifest(pod("poda", "node-1", None))
        .run("5s")
        .step(Step::Taint(taint))
        .until("pod/poda", "Ready", "1m");
    each(&story, |run| {
        let out = run.since("Node", "node-2", |s| taints(s).len() == 3);
        run.between("until the pod is deleted", deleting(run, "podb") - out, 0.001, 0.035);
        let told = run.events("TaintManagerEviction");
        let said = |word: &str| {
            told.iter()
                .any(|e| e.object["message"].as_str().unwrap_or_default().starts_with(word))
        };
        assert!(said("Cancelling") && said("Marking"), "{told:?}");
        let gone = run.gone("Pod", "podb");
        run.between("until the pod is gone", gone - out, 0.001, 20.1);
        let detached = run.first("ControllerUnpublishVolume");
        run.between("until the detach", detached - gone, 0.001, 0.15);
        assert!(run.calls("NodeUnpublishVolume").is_empty() && run.calls("NodeUnstageVolume").is_empty());
        let attached = run
            .times("ControllerPublishVolume")
            .into_iter()
            .find(|at| *at > detached);
        run.between("until the next attach", attached.unwrap() - detached, 0.5, 0.7);
    });
}
