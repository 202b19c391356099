//! The controller alone, without latency: when a node is declared Unknown, and which taints follow.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::taints::{self, Sort};
use super::zones::Zones;
use super::{Flags, INDEXES, NodeLifecycle};
use crate::api::{Kind, ObjKey};
use crate::control::{Shell, Signal};
use crate::controllers::bench::Bench;
use crate::runtime::Time;

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn ready(status: &str) -> Value {
    json!({"conditions": [{"type": "Ready", "status": status}]})
}

fn node(name: &str, zone: &str, status: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}, "status": ready(status)})
}

fn typed(name: &str, zone: &str, status: &str) -> Node {
    serde_json::from_value(node(name, zone, status)).unwrap()
}

/// A bench whose nodes' kubelets live, after the nodes were announced.
fn bench(nodes: &[&str]) -> Bench {
    let mut bench = Bench::new(INDEXES, vec![Box::new(Shell::new(NodeLifecycle::default()))]);
    for name in nodes {
        bench.signal(&Signal::HeartbeatsBegin { node: (*name).into() });
        bench.create(Kind::Node, node(name, "", "True"));
    }
    bench.run_to(at(5_001));
    assert_eq!(bench.take_log().len(), nodes.len(), "each is announced");
    bench
}

fn silence(bench: &mut Bench, node: &str, last: Time) {
    bench.signal(&Signal::HeartbeatsEnd {
        node: node.into(),
        last,
    });
}

fn taints(bench: &Bench, node: &str) -> Vec<String> {
    let json = bench.json(Kind::Node, &ObjKey::cluster(node));
    let taints = json["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    taints
        .iter()
        .map(|t| format!("{}:{}", text(&t["key"]), text(&t["effect"])))
        .collect()
}

#[test]
fn a_silent_node_is_unknown_fifty_seconds_after_the_pass_that_saw_its_last_sign() {
    // Fact sheet 10.6: passes every 5 s, 50 s of grace counted from the pass that noticed.
    let mut bench = bench(&["n1", "n2"]);
    bench.create(
        Kind::Pod,
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}),
    );
    bench.patch(
        Kind::Pod,
        &ObjKey::new("default", "web"),
        true,
        json!({ "status": ready("True") }),
    );
    silence(&mut bench, "n1", at(11_000));
    bench.run_to(at(64_999));
    assert_eq!(bench.take_log(), ["patch pod default/web /status"; 0]);
    bench.run_to(at(65_000));
    assert_eq!(
        bench.take_log(),
        [
            "update node n1 /status",
            "N NodeNotReady node n1: Node n1 status is now: NodeNotReady",
            "update pod default/web /status",
            "W NodeNotReady pod default/web: Node is not ready",
            "patch node n1",
        ]
    );
    assert_eq!(taints(&bench, "n1"), ["unreachable:NoSchedule"]);
    bench.run_to(at(65_100));
    assert_eq!(
        taints(&bench, "n1"),
        ["unreachable:NoSchedule", "unreachable:NoExecute"]
    );
    let status = bench.json(Kind::Node, &ObjKey::cluster("n1"))["status"]["conditions"].clone();
    assert_eq!(
        status.as_array().unwrap().len(),
        4,
        "those that kubelet never wrote, too"
    );
    assert!(status.as_array().unwrap().iter().all(|c| c["status"] == "Unknown"));
}

#[test]
fn a_node_that_comes_back_loses_no_schedule_at_once_and_no_execute_at_the_next_pass() {
    // Traces 20 and 20e.
    let mut bench = bench(&["n1", "n2"]);
    silence(&mut bench, "n1", at(4_000));
    bench.run_to(at(61_000));
    assert_eq!(
        taints(&bench, "n1"),
        ["unreachable:NoSchedule", "unreachable:NoExecute"]
    );
    bench.signal(&Signal::HeartbeatsBegin { node: "n1".into() });
    let back = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:01:01Z"}]}});
    bench.patch(Kind::Node, &ObjKey::cluster("n1"), true, back);
    assert_eq!(taints(&bench, "n1"), ["unreachable:NoExecute"]);
    bench.run_to(at(64_999));
    assert_eq!(taints(&bench, "n1"), ["unreachable:NoExecute"]);
    bench.run_to(at(65_000));
    assert_eq!(taints(&bench, "n1"), [""; 0]);
}

#[test]
fn a_kubelet_that_is_back_within_the_grace_period_is_never_missed() {
    let mut bench = bench(&["n1", "n2"]);
    silence(&mut bench, "n1", at(4_000));
    bench.run_to(at(40_000));
    bench.signal(&Signal::HeartbeatsBegin { node: "n1".into() });
    bench.run_to(at(200_000));
    assert_eq!(bench.take_log(), [""; 0]);
}

#[test]
fn the_grace_period_begins_anew_with_the_controller() {
    let mut bench = bench(&["n1", "n2"]);
    silence(&mut bench, "n1", at(4_000));
    bench.run_to(at(30_000));
    bench.restart_holding(&[]);
    bench.signal(&Signal::HeartbeatsBegin { node: "n2".into() });
    bench.signal(&Signal::HeartbeatsEnd {
        node: "n1".into(),
        last: at(4_000),
    });
    bench.take_log();
    bench.run_to(at(79_999));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(at(80_000));
    assert_eq!(bench.take_log()[0], "update node n1 /status");
}

#[test]
fn idle_nodes_cost_nothing() {
    let names: Vec<String> = (0..50).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = bench(&names);
    assert_eq!(bench.next_due(), None, "nobody is woken");
}

#[test]
fn nodes_of_a_zone_are_tainted_one_in_ten_seconds() {
    let mut bench = bench(&["n1", "n2", "n3", "n4", "n5"]);
    silence(&mut bench, "n1", at(4_000));
    silence(&mut bench, "n2", at(4_000));
    let both = |bench: &Bench| [taints(bench, "n1").len(), taints(bench, "n2").len()];
    bench.run_to(at(55_100));
    assert_eq!(both(&bench), [2, 1]);
    bench.run_to(at(65_000));
    assert_eq!(both(&bench), [2, 1]);
    bench.run_to(at(65_100));
    assert_eq!(both(&bench), [2, 2]);
}

#[test]
fn nobody_is_evicted_while_no_node_is_ready() {
    let mut bench = bench(&["n1", "n2"]);
    silence(&mut bench, "n1", at(4_000));
    bench.run_to(at(61_000));
    assert_eq!(taints(&bench, "n1").len(), 2);
    silence(&mut bench, "n2", at(60_500));
    bench.run_to(at(120_000));
    assert_eq!(taints(&bench, "n1"), ["unreachable:NoSchedule"], "what was there goes");
    assert_eq!(taints(&bench, "n2"), ["unreachable:NoSchedule"]);
    bench.signal(&Signal::HeartbeatsBegin { node: "n2".into() });
    bench.patch(
        Kind::Node,
        &ObjKey::cluster("n2"),
        true,
        json!({ "status": ready("True") }),
    );
    bench.run_to(at(131_000));
    assert_eq!(
        taints(&bench, "n1"),
        ["unreachable:NoSchedule", "unreachable:NoExecute"]
    );
    assert_eq!(taints(&bench, "n2"), [""; 0]);
}

#[test]
fn a_node_that_is_deleted_is_told_of_at_the_next_pass() {
    // Trace 20c.
    let mut bench = bench(&["n1", "n2"]);
    bench.delete(Kind::Node, &ObjKey::cluster("n1"));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(at(10_000));
    assert_eq!(
        bench.take_log(),
        ["N RemovingNode node n1: Node n1 event: Removing Node n1 from Controller"]
    );
}

#[test]
fn conditions_ask_for_taints() {
    let with = |json: Value| serde_json::from_value::<Node>(json).unwrap();
    let both = |node: &Node| {
        (
            taints::wanted(node, Sort::NoSchedule, false),
            taints::wanted(node, Sort::NoExecute, false),
        )
    };
    let not_ready = "node.kubernetes.io/not-ready";
    let unreachable = "node.kubernetes.io/unreachable";
    assert_eq!(both(&typed("n", "", "True")), (vec![], vec![]));
    assert_eq!(both(&typed("n", "", "False")), (vec![not_ready], vec![not_ready]));
    assert_eq!(both(&typed("n", "", "Unknown")), (vec![unreachable], vec![unreachable]));
    let pressed = json!({"metadata": {}, "spec": {"unschedulable": true}, "status": {"conditions": [
        {"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "Unknown"}]}});
    let expected = vec!["node.kubernetes.io/disk-pressure", "node.kubernetes.io/unschedulable"];
    assert_eq!(both(&with(pressed)), (expected, vec![]));
    assert!(taints::wanted(&typed("n", "", "Unknown"), Sort::NoExecute, true).is_empty());
}

#[test]
fn a_zone_with_too_many_silent_nodes_is_left_alone_until_it_is_better() {
    // Fact sheet 10.6: more than two, and 55 % or more.
    let flags = Flags::default();
    let mut zones = Zones::default();
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        zones.change(None, Some(&typed(name, "z", "True")), &flags);
    }
    let other = typed("x", "other", "True");
    zones.change(None, Some(&other), &flags);
    let silent = typed("a", "z", "Unknown");
    for name in &names[..2] {
        zones.change(
            Some(&typed(name, "z", "True")),
            Some(&typed(name, "z", "Unknown")),
            &flags,
        );
        assert!(zones.turn(&silent, &flags).is_some());
    }
    zones.change(
        Some(&typed("c", "z", "True")),
        Some(&typed("c", "z", "Unknown")),
        &flags,
    );
    assert_eq!(zones.turn(&silent, &flags), None);
    assert!(zones.turn(&other, &flags).is_some(), "another zone is not concerned");
    let changed = zones.change(
        Some(&typed("c", "z", "Unknown")),
        Some(&typed("c", "z", "True")),
        &flags,
    );
    assert!(changed.eased && !changed.all_down_began);
    assert!(!zones.all_down());
}
