//! What the API server is told: the Node's rounds, pods' statuses, and how statistics are taken.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{Bench, node_ref};
use crate::api::{Kind, ObjKey, ObjectRef, fields};
use crate::kubelet::csi_client::NodeRpc;
use crate::link::CsiRequest;

#[test]
fn rounds_come_every_ten_seconds_and_say_something_only_when_it_is_new() {
    let mut bench = Bench::new();
    bench.run_ms(60_000);
    bench.forget();
    bench.run_ms(60_000);
    assert_eq!(bench.count("patch node/status"), 0, "nothing changes");
    let mut moments = Vec::new();
    for nth in 0..4 {
        bench.forget();
        bench.pod(&format!("pod-{nth}"), &["data"]);
        bench.run_ms(10_600);
        moments.extend(bench.moments("patch node/status"));
        bench.delete_pod(&format!("pod-{nth}"), None);
        bench.run_ms(12_000);
        moments.extend(bench.moments("patch node/status").into_iter().skip(1));
    }
    assert_eq!(moments.len(), 8);
    for pair in moments.windows(2) {
        let rounds = (pair[1] - pair[0]) as f64 / 10_000.0;
        let (least, most) = (rounds.floor().max(1.0), rounds.ceil());
        assert!(rounds >= least && rounds <= most * 1.04 + 0.01, "{moments:?}");
    }
}

#[test]
fn a_node_that_was_called_unready_is_ready_again_at_the_next_round() {
    let mut bench = Bench::new();
    bench.run_ms(12_000);
    let unready = json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}, {"type": "Custom", "status": "True"}]);
    bench.patch_status(&node_ref(), json!({"status": {"conditions": unready}}));
    bench.run_ms(10_500);
    let node = bench
        .get::<k8s_openapi::api::core::v1::Node>(&ObjKey::cluster("node-a"))
        .expect("it is there");
    assert!(fields::is_node_ready(node));
    let conditions = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    assert!(
        conditions.iter().any(|c| c.type_ == "Custom"),
        "conditions of others stay"
    );
}

#[test]
fn a_status_leaves_conditions_of_others_alone() {
    let mut bench = Bench::new();
    bench.running("web");
    let target = ObjectRef::new(Kind::Pod, ObjKey::new("default", "web"));
    let pod = bench.get::<Pod>(&target.key).expect("it is there");
    let mut conditions = serde_json::to_value(&pod.status).expect("objects serialise")["conditions"].clone();
    let own = conditions.as_array_mut().expect("there are some");
    own.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}));
    bench.patch_status(&target, json!({"status": {"conditions": conditions}}));
    bench.patch(&target, json!({"metadata": {"finalizers": ["test/held"]}}));
    bench.delete_pod("web", None);
    bench.run_ms(5_000);
    let pod = bench.get::<Pod>(&target.key).expect("it is held");
    let kinds = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    assert!(kinds.iter().any(|c| c.type_ == "DisruptionTarget"), "{kinds:?}");
    assert!(kinds.iter().any(|c| c.type_ == "Ready" && c.status == "False"));
}

#[test]
fn a_status_that_somebody_else_changed_is_written_again() {
    let mut bench = Bench::new();
    bench.running("web");
    let target = ObjectRef::new(Kind::Pod, ObjKey::new("default", "web"));
    bench.patch_status(
        &target,
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
    );
    bench.run_ms(1_000);
    let pod = bench.get::<Pod>(&target.key).expect("it is there");
    let conditions = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    assert!(
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        "{conditions:?}"
    );
}

#[test]
fn a_pod_is_deleted_by_its_uid_when_nothing_of_it_is_left() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.delete_pod("web", None);
    bench.run_ms(5_000);
    let lines = bench.lines();
    let at = |line: &str| lines.iter().position(|l| *l == line);
    assert!(at("NodeUnpublishVolume") < at("delete pod"));
    assert_eq!(bench.count("delete pod"), 1);
}

fn stats(bench: &Bench) -> Vec<&wavetank_proto::csi::v1::NodeGetVolumeStatsRequest> {
    let found = bench.requests.iter().filter_map(|r| match r {
        CsiRequest::NodeGetVolumeStats(r) => Some(r),
        _ => None,
    });
    found.collect()
}

#[test]
fn statistics_are_taken_every_one_to_two_minutes_and_end_with_the_pod() {
    let mut bench = Bench::new();
    bench.rpcs.push(NodeRpc::GetVolumeStats);
    bench.running("web");
    bench.run_ms(600_000);
    let pauses = bench.pauses("NodeGetVolumeStats");
    assert!(
        pauses.len() >= 4 && pauses.iter().all(|p| (59_900..=120_100).contains(p)),
        "{pauses:?}"
    );
    let request = stats(&bench)[0];
    assert!(request.volume_path.ends_with("/mount") && request.staging_target_path.is_empty());
    bench.delete_pod("web", None);
    bench.run_ms(10_000);
    bench.forget();
    bench.run_ms(300_000);
    assert!(stats(&bench).is_empty());
}

#[test]
fn a_driver_without_statistics_is_only_asked_whether_it_has_them() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.run_ms(300_000);
    assert!(stats(&bench).is_empty());
    assert!(bench.count("NodeGetCapabilities") >= 2);
}

#[test]
fn a_call_for_statistics_that_fails_says_nothing_and_comes_again() {
    let mut bench = Bench::new();
    bench.rpcs.push(NodeRpc::GetVolumeStats);
    bench.running("web");
    bench.fault("NodeGetVolumeStats", super::Fault::Refuse(tonic::Code::Internal), 1);
    bench.run_ms(300_000);
    assert_eq!(bench.count("NodeGetVolumeStats!Internal"), 1);
    assert!(bench.count("NodeGetVolumeStats") >= 1);
    assert!(!bench.lines().iter().any(|l| l.starts_with('+')));
}

#[test]
fn an_idle_kubelet_does_nothing_at_all() {
    let mut bench = Bench::new();
    bench.run_ms(30_000);
    bench.forget();
    bench.run_ms(3_600_000);
    assert_eq!(bench.lines(), Vec::<&str>::new());
    assert!(bench.ops.is_empty());
}
