//! The controller alone, without latency: who is deleted when, and what is told of it.

use std::time::Duration;

use serde_json::{Value, json};

use super::TaintEviction;
use crate::api::{Index, Kind, ObjKey};
use crate::control::Shell;
use crate::controllers::bench::Bench;
use crate::runtime::Time;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn bench() -> Bench {
    let mut bench = Bench::new(&[Index::PodsByNode], vec![Box::new(Shell::new(TaintEviction))]);
    bench.create(Kind::Node, json!({"metadata": {"name": "n1"}}));
    bench
}

fn pod(bench: &mut Bench, tolerations: &Value) {
    let spec = json!({"nodeName": "n1", "tolerations": tolerations, "containers": [{"name": "c", "image": "i"}]});
    bench.create(
        Kind::Pod,
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}),
    );
}

fn taint(bench: &mut Bench, keys: &[&str]) {
    let taints: Vec<Value> = keys
        .iter()
        .map(|key| json!({"key": key, "effect": "NoExecute"}))
        .collect();
    bench.patch(
        Kind::Node,
        &ObjKey::cluster("n1"),
        false,
        json!({"spec": {"taints": taints}}),
    );
}

fn tolerate(seconds: u64) -> Value {
    json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}])
}

const MARKING: &str = "N TaintManagerEviction pod default/web: Marking for deletion Pod default/web";
const CANCELLING: &str = "N TaintManagerEviction pod default/web: Cancelling deletion of Pod default/web";
const DELETED: [&str; 3] = [MARKING, "patch pod default/web /status", "delete pod default/web"];

#[test]
fn a_pod_goes_when_its_toleration_ends() {
    // Trace 20: 10 s after the taint, condition first. It has its grace, and then it stays.
    let mut bench = bench();
    pod(&mut bench, &tolerate(10));
    bench.now = at(50);
    taint(&mut bench, &[UNREACHABLE]);
    bench.run_to(Time(at(60).0 - 1));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(at(60));
    assert_eq!(bench.take_log(), DELETED);
    let json = bench.json(Kind::Pod, &ObjKey::new("default", "web"));
    let condition = &json["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("DisruptionTarget"), &json!("DeletionByTaintManager"))
    );
    assert_eq!(json["metadata"]["deletionGracePeriodSeconds"], 30);
    bench.run_to(at(10_000));
    assert_eq!(bench.take_log(), [""; 0], "once is enough");
}

#[test]
fn a_pod_without_a_word_of_its_own_stays_for_five_minutes() {
    // DefaultTolerationSeconds.
    let mut bench = bench();
    pod(&mut bench, &json!([]));
    taint(&mut bench, &[UNREACHABLE]);
    bench.run_to(Time(at(300).0 - 1));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(at(300));
    assert_eq!(bench.take_log(), DELETED);
}

#[test]
fn the_end_of_the_taint_cancels_the_deletion() {
    let mut bench = bench();
    pod(&mut bench, &json!([]));
    taint(&mut bench, &[UNREACHABLE]);
    bench.run_to(at(200));
    taint(&mut bench, &[]);
    assert_eq!(bench.take_log(), [CANCELLING]);
    bench.run_to(at(1000));
    assert_eq!(bench.take_log(), [""; 0]);
}

#[test]
fn a_taint_that_is_not_tolerated_takes_the_place_of_the_timer() {
    // Trace 20b: out-of-service on top of unreachable.
    let mut bench = bench();
    pod(&mut bench, &json!([]));
    taint(&mut bench, &[UNREACHABLE]);
    bench.run_to(at(5));
    taint(&mut bench, &[UNREACHABLE, "node.kubernetes.io/out-of-service"]);
    let cancelled: Vec<&str> = [CANCELLING].into_iter().chain(DELETED).collect();
    assert_eq!(bench.take_log(), cancelled);
}

#[test]
fn a_second_taint_does_not_move_a_timer_that_runs() {
    let mut bench = bench();
    let other = "node.kubernetes.io/not-ready";
    pod(
        &mut bench,
        &json!([
            {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 100},
            {"key": other, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20}]),
    );
    taint(&mut bench, &[UNREACHABLE]);
    bench.run_to(at(5));
    taint(&mut bench, &[UNREACHABLE, other]);
    bench.run_to(at(99));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(at(100));
    assert_eq!(bench.take_log(), DELETED);
}

#[test]
fn a_pod_that_comes_to_a_tainted_node_or_leaves_it_is_seen() {
    let mut bench = bench();
    taint(&mut bench, &[UNREACHABLE]);
    bench.run_to(at(100));
    pod(&mut bench, &tolerate(10));
    bench.run_to(at(105));
    let mut delete = crate::api::Delete::new(crate::api::ObjectRef::new(Kind::Pod, ObjKey::new("default", "web")));
    delete.grace_seconds = Some(0);
    bench.user(&crate::api::Write::Delete(delete));
    assert_eq!(bench.take_log(), [CANCELLING]);
    bench.run_to(at(200));
    assert_eq!(bench.take_log(), [""; 0]);
}

#[test]
fn tolerations_begin_anew_with_the_controller() {
    let mut bench = bench();
    pod(&mut bench, &tolerate(10));
    taint(&mut bench, &[UNREACHABLE]);
    bench.run_to(at(8));
    bench.restart_holding(&[]);
    bench.run_to(Time(at(18).0 - 1));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(at(18));
    assert_eq!(bench.take_log(), DELETED);
}
