//! Growing on the node: when it is noticed, what the claim is told, and which errors end it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};
use tonic::Code;

use super::{Bench, Fault, claim_ref, volume_ref};
use crate::api::{ObjKey, fields};
use crate::link::CsiRequest;

/// The resizer has grown the volume and hands the claim to the node.
fn grow(bench: &mut Bench, to: &str) {
    bench.patch(
        &claim_ref("data"),
        json!({"spec": {"resources": {"requests": {"storage": to}}}}),
    );
    bench.patch(&volume_ref("pvc-1"), json!({"spec": {"capacity": {"storage": to}}}));
    hand_over(bench, to, "NodeResizePending");
}

fn hand_over(bench: &mut Bench, to: &str, status: &str) {
    let conditions = json!([{"type": "FileSystemResizePending", "status": "True"}]);
    let status = json!({"status": {
        "allocatedResources": {"storage": to}, "allocatedResourceStatuses": {"storage": status}, "conditions": conditions,
    }});
    bench.patch_status(&claim_ref("data"), status);
}

fn claim(bench: &Bench) -> &PersistentVolumeClaim {
    bench.get(&ObjKey::new("default", "data")).expect("the claim is there")
}

fn status(bench: &Bench) -> Value {
    serde_json::to_value(claim(bench)).expect("objects serialise")["status"].clone()
}

fn expanding(fault: Option<(Fault, u32)>) -> Bench {
    let mut bench = Bench::new();
    bench.running("web");
    if let Some((fault, times)) = fault {
        bench.fault("NodeExpandVolume", fault, times);
    }
    grow(&mut bench, "2Gi");
    bench.run_ms(95_000);
    bench
}

#[test]
fn a_grown_volume_is_noticed_at_the_pods_resync() {
    let mut bench = Bench::new();
    bench.running("web");
    let asked = bench.now.as_millis();
    grow(&mut bench, "2Gi");
    bench.run_ms(95_000);
    let expanded = bench.moments("NodeExpandVolume")[0];
    assert!(expanded > asked + 40_000, "{} ms", expanded - asked);
    assert_eq!(fields::claim_capacity(claim(&bench)), 2 << 30);
    assert_eq!(
        (
            &status(&bench)["conditions"],
            &status(&bench)["allocatedResourceStatuses"]
        ),
        (&json!(null), &json!(null))
    );
    assert_eq!(
        bench.count("+FileSystemResizeSuccessful"),
        2,
        "the pod and the claim are told"
    );
}

#[test]
fn an_expansion_marks_the_claim_asks_twice_and_calls() {
    let bench = expanding(None);
    let lines = bench.lines();
    let at = lines
        .iter()
        .position(|l| *l == "NodeExpandVolume")
        .expect("it is expanded");
    assert_eq!(
        lines[at - 3..=at],
        [
            "patch pvc/status",
            "NodeGetCapabilities",
            "NodeGetCapabilities",
            "NodeExpandVolume"
        ]
    );
    let request = bench.requests.iter().find_map(|r| match r {
        CsiRequest::NodeExpandVolume(r) => Some(r),
        _ => None,
    });
    let request = request.expect("it is expanded");
    assert_eq!(
        request.capacity_range.expect("a size is asked for").required_bytes,
        2 << 30
    );
    assert!(request.volume_path.ends_with("/mount") && request.staging_target_path.ends_with("/globalmount"));
}

#[test]
fn offline_growth_is_a_part_of_the_next_mount() {
    let mut bench = Bench::new();
    grow(&mut bench, "2Gi");
    bench.attach("pvc-1", "h-1");
    let uid = bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    assert_eq!(
        bench.life(),
        ["NodeStageVolume", "NodePublishVolume", "NodeExpandVolume"]
    );
    assert!(bench.node.running.contains(&uid));
    assert_eq!(fields::claim_capacity(claim(&bench)), 2 << 30);
}

#[test]
fn a_failing_expansion_during_a_mount_keeps_the_containers_back() {
    let mut bench = Bench::new();
    grow(&mut bench, "2Gi");
    bench.attach("pvc-1", "h-1");
    bench.fault("NodeExpandVolume", Fault::Refuse(Code::Internal), 1000);
    let uid = bench.pod("web", &["data"]);
    bench.run_ms(20_000);
    assert!(!bench.node.running.contains(&uid));
    let failed = bench.count("NodeExpandVolume!Internal");
    assert!(
        failed > 2 && bench.count("NodePublishVolume") == failed,
        "each attempt is a whole mount"
    );
    bench.heal();
    bench.run_ms(20_000);
    assert!(bench.node.running.contains(&uid));
}

#[test]
fn an_ordinary_error_is_a_condition_and_a_back_off() {
    let bench = expanding(Some((Fault::Refuse(Code::Internal), 3)));
    let pauses = bench.pauses("NodeExpandVolume!Internal");
    assert!(
        (500..710).contains(&pauses[0]) && (1_000..1_210).contains(&pauses[1]),
        "{pauses:?}"
    );
    assert_eq!(bench.count("+VolumeResizeFailed"), 3);
    assert_eq!(bench.count("NodeExpandVolume"), 1);
}

#[test]
fn an_error_leaves_the_claim_in_progress() {
    let bench = expanding(Some((Fault::Refuse(Code::DeadlineExceeded), 1000)));
    assert_eq!(
        status(&bench)["allocatedResourceStatuses"]["storage"],
        "NodeResizeInProgress"
    );
    assert!(fields::claim_condition(claim(&bench), "NodeResizeError"));
}

#[test]
fn an_infeasible_error_ends_it() {
    for code in [Code::OutOfRange, Code::InvalidArgument, Code::NotFound] {
        let mut bench = expanding(Some((Fault::Refuse(code), 1000)));
        assert_eq!(
            status(&bench)["allocatedResourceStatuses"]["storage"],
            "NodeResizeInfeasible",
            "{code:?}"
        );
        let calls = bench
            .requests
            .iter()
            .filter(|r| r.method() == "NodeExpandVolume")
            .count();
        assert_eq!(calls, 1, "{code:?}: the claim's status says no");
        bench.run_ms(60_000);
        assert_eq!(
            bench
                .requests
                .iter()
                .filter(|r| r.method() == "NodeExpandVolume")
                .count(),
            1
        );
    }
}

#[test]
fn a_request_that_was_lowered_meanwhile_makes_any_second_error_infeasible() {
    let mut bench = expanding(Some((Fault::Refuse(Code::Internal), 1000)));
    assert_eq!(
        status(&bench)["allocatedResourceStatuses"]["storage"],
        "NodeResizeInProgress"
    );
    bench.patch(
        &claim_ref("data"),
        json!({"spec": {"resources": {"requests": {"storage": "1536Mi"}}}}),
    );
    bench.run_ms(60_000);
    assert_eq!(
        status(&bench)["allocatedResourceStatuses"]["storage"],
        "NodeResizeInfeasible"
    );
}

#[test]
fn a_volume_in_use_is_not_asked_again_until_it_leaves_the_node() {
    let mut bench = expanding(Some((Fault::Refuse(Code::FailedPrecondition), 1)));
    assert_eq!(bench.count("NodeExpandVolume!FailedPrecondition"), 1);
    bench.run_ms(200_000);
    assert_eq!(bench.count("NodeExpandVolume"), 0);
    bench.delete_pod("web", None);
    bench.run_ms(3_000);
    bench.pod("again", &["data"]);
    bench.run_ms(12_000);
    assert_eq!(bench.count("NodeExpandVolume"), 1);
}

#[test]
fn a_driver_that_cannot_expand_on_the_node_is_an_error() {
    let mut bench = Bench::new();
    bench.rpcs.pop();
    bench.running("web");
    grow(&mut bench, "2Gi");
    bench.run_ms(95_000);
    assert!(bench.was_told("NodeExpand is not supported by the CSI driver"));
    assert!(fields::claim_condition(claim(&bench), "NodeResizeError"));
}

#[test]
fn a_read_only_mount_does_not_grow() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}]);
    grow(&mut bench, "2Gi");
    let uid = bench.pod_like("web", &["data"], json!({"volumes": volumes}));
    bench.run_ms(12_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
    assert!(bench.was_told("requested read-only file system"));
    assert!(bench.node.running.contains(&uid), "that is no reason not to start");
}

#[test]
fn a_claim_that_the_controller_still_grows_is_left_alone() {
    let mut bench = Bench::new();
    bench.running("web");
    bench.patch(&volume_ref("pvc-1"), json!({"spec": {"capacity": {"storage": "2Gi"}}}));
    hand_over(&mut bench, "2Gi", "ControllerResizeInProgress");
    bench.run_ms(95_000);
    assert_eq!(bench.count("NodeExpandVolume"), 0);
    hand_over(&mut bench, "2Gi", "NodeResizePending");
    bench.run_ms(95_000);
    assert_eq!(bench.count("NodeExpandVolume"), 1);
}

#[test]
fn a_claim_of_an_old_resizer_is_grown_to_the_size_of_its_volume() {
    let mut bench = Bench::new();
    bench.patch(&volume_ref("pvc-1"), json!({"spec": {"capacity": {"storage": "3Gi"}}}));
    bench.attach("pvc-1", "h-1");
    bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    assert_eq!(bench.count("NodeExpandVolume"), 1);
    assert_eq!(fields::claim_capacity(claim(&bench)), 3 << 30);
}
