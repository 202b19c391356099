//! The resizer against a scripted driver and a modelled API server, compared with recorded traces. What kubelet does is done by hand.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use super::{Flags, INDEXES, shells};
use crate::api::{Kind, ObjKey, ObjectRef, fields, quantity};
use crate::link::{CsiReply, CsiRequest};
use crate::sidecars::bench::{Answer, Bench, assert_lines, controller_capabilities, plugin_capabilities, refuses};
use crate::sidecars::connect::{ControllerRpc, PluginService};

const DRIVER: &str = "csi.example";
const GIB: u64 = 1 << 30;

/// A driver that does everything it is asked for; whether the node has a part in expansions is said by `node`.
fn willing(request: &CsiRequest, node: bool) -> Answer {
    Ok(match request {
        CsiRequest::Probe(_) => CsiReply::Probe(csi::ProbeResponse::default()),
        CsiRequest::GetPluginInfo(_) => CsiReply::GetPluginInfo(csi::GetPluginInfoResponse {
            name: DRIVER.into(),
            ..Default::default()
        }),
        CsiRequest::GetPluginCapabilities(_) => plugin_capabilities(&[PluginService::ControllerService]),
        CsiRequest::ControllerGetCapabilities(_) => controller_capabilities(&[
            ControllerRpc::ExpandVolume,
            ControllerRpc::SingleNodeMultiWriter,
            ControllerRpc::ModifyVolume,
        ]),
        CsiRequest::ControllerExpandVolume(request) => {
            CsiReply::ControllerExpandVolume(csi::ControllerExpandVolumeResponse {
                capacity_bytes: request.capacity_range.unwrap().required_bytes,
                node_expansion_required: node,
            })
        }
        CsiRequest::ControllerModifyVolume(_) => {
            CsiReply::ControllerModifyVolume(csi::ControllerModifyVolumeResponse {})
        }
        other => panic!("the resizer never calls {}", other.method()),
    })
}

fn on_nodes(request: &CsiRequest) -> Answer {
    willing(request, true)
}

/// A driver that refuses the method with these codes first.
fn refusing(method: &'static str, codes: &'static [Code]) -> impl FnMut(&CsiRequest) -> Answer {
    let mut left = codes.iter();
    move |request| {
        if request.method() == method
            && let Some(code) = left.next()
        {
            return refuses(*code);
        }
        on_nodes(request)
    }
}

fn claim_ref() -> ObjectRef {
    ObjectRef::new(Kind::PersistentVolumeClaim, ObjKey::new("default", "data"))
}

fn volume_ref() -> ObjectRef {
    ObjectRef::new(Kind::PersistentVolume, ObjKey::cluster("pv"))
}

/// A running resizer and one Bound claim of 1Gi.
fn bench(driver: impl FnMut(&CsiRequest) -> Answer + 'static) -> Bench {
    bench_with(&Flags::default(), driver)
}

fn bench_with(flags: &Flags, driver: impl FnMut(&CsiRequest) -> Answer + 'static) -> Bench {
    let mut bench = Bench::new(shells(DRIVER, flags), INDEXES, driver);
    bench.watch = Duration::from_micros(2500);
    let class = json!({"metadata": {"name": "imm"}, "provisioner": DRIVER, "allowVolumeExpansion": true});
    bench.create(Kind::StorageClass, class);
    for (name, iops) in [("silver", "1000"), ("bronze", "100")] {
        let class = json!({"metadata": {"name": name}, "driverName": DRIVER, "parameters": {"iops": iops}});
        bench.create(Kind::VolumeAttributesClass, class);
    }
    let claim = json!({
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "imm", "volumeName": "pv",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
    });
    let claim = bench.create(Kind::PersistentVolumeClaim, claim);
    let volume = json!({
        "metadata": {"name": "pv"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "imm",
            "csi": {"driver": DRIVER, "volumeHandle": "handle"},
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data", "uid": claim.uid()}},
        "status": {"phase": "Bound"},
    });
    bench.create(Kind::PersistentVolume, volume);
    bench.start();
    bench.run_ms(100);
    bench
}

fn ask_for(bench: &mut Bench, size: &str) {
    bench.patch(
        &claim_ref(),
        json!({"spec": {"resources": {"requests": {"storage": size}}}}),
    );
}

fn ask_for_class(bench: &mut Bench, class: &str) {
    bench.patch(&claim_ref(), json!({"spec": {"volumeAttributesClassName": class}}));
}

fn claim(bench: &Bench) -> &PersistentVolumeClaim {
    bench.get::<PersistentVolumeClaim>(&claim_ref().key)
}

fn volume(bench: &Bench) -> &PersistentVolume {
    bench.get::<PersistentVolume>(&volume_ref().key)
}

/// The sizes asked of the driver, in GiB.
fn asked(bench: &Bench) -> Vec<u64> {
    let size = |call: &CsiRequest| match call {
        CsiRequest::ControllerExpandVolume(r) => Some(r.capacity_range.unwrap().required_bytes as u64 / GIB),
        _ => None,
    };
    bench.calls.iter().filter_map(size).collect()
}

#[test]
fn the_start_asks_for_capabilities_three_times() {
    // Trace 22.
    let mut bench = bench(on_nodes);
    assert_lines(
        &bench.take_log(),
        "Probe
        GetPluginInfo
        GetPluginCapabilities
        ControllerGetCapabilities
        ControllerGetCapabilities
        ControllerGetCapabilities",
    );
}

#[test]
fn an_expansion_is_handed_to_the_node_and_its_end_is_cleaned_up() {
    // Traces 06 and 08, their happy parts.
    let mut bench = bench(on_nodes);
    bench.take_log();
    ask_for(&mut bench, "2Gi");
    bench.run_ms(1000);
    assert_lines(
        &bench.take_log(),
        "patch pvc/status
        +Resizing
        ControllerGetCapabilities
        ControllerExpandVolume
        patch pv
        patch pvc/status
        +FileSystemResizeRequired",
    );
    let CsiRequest::ControllerExpandVolume(request) = bench.calls.last().unwrap() else {
        panic!("not a ControllerExpandVolume")
    };
    let mode = request.volume_capability.as_ref().unwrap().access_mode.unwrap().mode();
    assert_eq!(mode.as_str_name(), "SINGLE_NODE_MULTI_WRITER");
    assert_eq!(fields::volume_capacity(volume(&bench)), 2 * GIB);
    let noted = fields::annotation(
        &volume(&bench).metadata,
        "volume.alpha.kubernetes.io/pre-resize-capacity",
    );
    assert_eq!(noted, Some("1Gi"));
    assert_eq!(fields::claim_resize_status(claim(&bench)), "NodeResizePending");
    assert!(fields::claim_condition(claim(&bench), "FileSystemResizePending"));
    let done = json!({"capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": null, "conditions": null});
    bench.patch_status(&claim_ref(), json!({"status": done}));
    bench.run_ms(1000);
    assert_lines(&bench.take_log(), "patch pv");
    let noted = fields::annotation(
        &volume(&bench).metadata,
        "volume.alpha.kubernetes.io/pre-resize-capacity",
    );
    assert_eq!(noted, None);
}

#[test]
fn without_a_nodes_part_the_claim_is_done_at_once() {
    // Trace 07b.
    let mut bench = bench(|request| willing(request, false));
    bench.take_log();
    ask_for(&mut bench, "2Gi");
    bench.run_ms(1000);
    assert_lines(
        &bench.take_log(),
        "patch pvc/status
        +Resizing
        ControllerGetCapabilities
        ControllerExpandVolume
        patch pv
        patch pvc/status
        +VolumeResizeSuccessful",
    );
    let claim = claim(&bench);
    assert_eq!(
        (fields::claim_capacity(claim), fields::claim_resize_status(claim)),
        (2 * GIB, "")
    );
    assert_eq!(
        fields::claim_allocated(claim),
        Some(2 * GIB),
        "what was allocated stays"
    );
    let note = fields::annotation(&claim.metadata, "volume.kubernetes.io/node-expansion-not-required");
    assert_eq!(note, Some("true"));
}

#[test]
fn errors_come_in_pairs_because_own_writes_wake_the_resizer() {
    // Trace 08: 0, +0.03, then +1.04, +1.07, +1.39 s: two or three calls in a row, because mark and error each change bytes; the patches of the last round change
    // nothing and end the chain. The back-off of 1 s begins with the first failure. Whether the watch or the answer is faster does not matter.
    for watch in [1200, 2500] {
        let mut bench = bench(refusing("ControllerExpandVolume", &[Code::Internal; 9]));
        bench.watch = Duration::from_micros(watch);
        // In the middle of a second, so that each group stays within one.
        bench.run_ms(400);
        ask_for(&mut bench, "2Gi");
        bench.run_ms(1900);
        let calls = bench.moments("ControllerExpandVolume!Internal");
        let since: Vec<u64> = calls.iter().map(|t| t - calls[0]).collect();
        let (first, second): (Vec<u64>, Vec<u64>) = since.iter().partition(|t| **t < 500);
        for (group, start) in [(&first, 0..1), (&second, 1000..1050)] {
            assert!((2..=3).contains(&group.len()) && start.contains(&group[0]), "{since:?}");
            assert!(group.windows(2).all(|w| w[1] - w[0] < 50), "{since:?}");
        }
    }
}

#[test]
fn a_failed_expansion_is_told_on_the_claim() {
    // Trace 08.
    let mut bench = bench(refusing("ControllerExpandVolume", &[Code::Internal; 9]));
    ask_for(&mut bench, "2Gi");
    bench.run_ms(500);
    assert_eq!(fields::claim_resize_status(claim(&bench)), "ControllerResizeInProgress");
    let conditions = claim(&bench).status.as_ref().unwrap().conditions.as_ref().unwrap();
    let texts: Vec<_> = conditions
        .iter()
        .map(|c| (c.type_.as_str(), c.message.as_deref()))
        .collect();
    let error = "failed to expand pvc with rpc error: code = Internal desc = injected";
    assert_eq!(texts, [("Resizing", None), ("ControllerResizeError", Some(error))]);
    let told = "  resize volume \"pv\" by resizer \"csi.example\" failed: rpc error: code = Internal desc = injected";
    assert!(!bench.moments(told).is_empty());
}

#[test]
fn an_infeasible_expansion_is_asked_for_twice_and_then_waits_unless_the_request_changes() {
    // Golden README 25 and fact sheet 7.3.
    let mut bench = bench(|request: &CsiRequest| match request {
        CsiRequest::ControllerExpandVolume(r) if r.capacity_range.unwrap().required_bytes as u64 > 4 * GIB => {
            refuses(Code::OutOfRange)
        }
        other => on_nodes(other),
    });
    ask_for(&mut bench, "9Gi");
    bench.run_ms(25_000);
    assert_eq!(asked(&bench), [9, 9]);
    assert_eq!(fields::claim_resize_status(claim(&bench)), "ControllerResizeInfeasible");
    bench.run_ms(300_000);
    assert_eq!(asked(&bench), [9, 9, 9], "exactly once more after 5 minutes");
    ask_for(&mut bench, "3Gi");
    bench.run_ms(1000);
    assert_eq!(asked(&bench).last(), Some(&3));
    assert_eq!(fields::claim_resize_status(claim(&bench)), "NodeResizePending");
}

#[test]
fn an_uncertain_expansion_pins_its_size_and_a_final_error_frees_it() {
    // Fact sheet 7.3, size choice and step 6.
    let codes = Rc::new(Cell::new(Code::DeadlineExceeded));
    let code = Rc::clone(&codes);
    let mut bench = bench(move |request: &CsiRequest| match request {
        CsiRequest::ControllerExpandVolume(_) if code.get() != Code::Ok => refuses(code.get()),
        other => on_nodes(other),
    });
    ask_for(&mut bench, "4Gi");
    bench.run_ms(1000);
    ask_for(&mut bench, "2Gi");
    bench.run_ms(4000);
    assert!(
        asked(&bench).len() > 2 && asked(&bench).iter().all(|size| *size == 4),
        "{:?}",
        asked(&bench)
    );
    codes.set(Code::Internal);
    bench.run_ms(10_000);
    assert_eq!(
        asked(&bench).last(),
        Some(&2),
        "after the final answer the user's wish counts"
    );
    codes.set(Code::Ok);
    bench.run_ms(60_000);
    assert_eq!(fields::volume_capacity(volume(&bench)), 2 * GIB);
}

#[test]
fn after_a_crash_the_expansion_goes_on_with_the_size_it_had() {
    // Fact sheet 7.3 step 7: the memory of a final error is lost.
    let mut bench = bench(refusing("ControllerExpandVolume", &[Code::Internal; 2]));
    ask_for(&mut bench, "4Gi");
    bench.run_ms(100);
    ask_for(&mut bench, "2Gi");
    bench.restart();
    bench.run_ms(1000);
    assert_eq!(asked(&bench), [4, 4, 4]);
}

#[test]
fn a_driver_that_cannot_expand_in_use_is_not_asked_again_while_a_pod_names_the_claim() {
    // Fact sheet 7.3 step 2 and 7.5.
    let used = Rc::new(Cell::new(true));
    let in_use = Rc::clone(&used);
    let mut bench = bench(move |request: &CsiRequest| match request {
        CsiRequest::ControllerExpandVolume(_) if in_use.get() => refuses(Code::FailedPrecondition),
        other => on_nodes(other),
    });
    let pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    let pod = bench.create(Kind::Pod, pod);
    bench.run_ms(10);
    ask_for(&mut bench, "2Gi");
    bench.run_ms(20_000);
    assert_eq!(asked(&bench), [2], "once per process lifetime");
    let told = "  Unable to expand default/data because CSI driver csi.example only supports offline expansion and volume is currently in-use";
    assert!(bench.moments(told).len() > 3);
    bench.delete(&pod.to_ref());
    used.set(false);
    bench.run_ms(60_000);
    assert_eq!(asked(&bench), [2, 2]);
    assert_eq!(fields::volume_capacity(volume(&bench)), 2 * GIB);
}

#[test]
fn a_driver_that_expands_on_the_node_only_gets_a_larger_volume_object_and_no_call() {
    // Fact sheet 7.2: the trivial resizer.
    let capable = |request: &CsiRequest| match request {
        CsiRequest::ControllerGetCapabilities(_) => Ok(controller_capabilities(&[])),
        CsiRequest::NodeGetCapabilities(_) => {
            let rpc = csi::node_service_capability::Rpc {
                r#type: csi::node_service_capability::rpc::Type::ExpandVolume as i32,
            };
            let capability = csi::NodeServiceCapability {
                r#type: Some(csi::node_service_capability::Type::Rpc(rpc)),
            };
            let capabilities = vec![capability];
            Ok(CsiReply::NodeGetCapabilities(csi::NodeGetCapabilitiesResponse {
                capabilities,
            }))
        }
        other => on_nodes(other),
    };
    let mut bench = bench(capable);
    assert_lines(
        &bench.take_log(),
        "Probe
        GetPluginInfo
        GetPluginCapabilities
        ControllerGetCapabilities
        NodeGetCapabilities
        ControllerGetCapabilities",
    );
    ask_for(&mut bench, "2Gi");
    bench.run_ms(1000);
    assert_lines(
        &bench.take_log(),
        "patch pvc/status
        +Resizing
        patch pv
        patch pvc/status
        +FileSystemResizeRequired",
    );
}

#[test]
fn a_driver_that_does_neither_makes_the_process_exit() {
    let bench = bench(|request: &CsiRequest| match request {
        CsiRequest::ControllerGetCapabilities(_) => Ok(controller_capabilities(&[])),
        CsiRequest::NodeGetCapabilities(_) => Ok(CsiReply::NodeGetCapabilities(
            csi::NodeGetCapabilitiesResponse::default(),
        )),
        other => on_nodes(other),
    });
    assert_eq!(
        bench.exit.as_deref(),
        Some("CSI driver does not support resize nor modify")
    );
}

#[test]
fn what_the_driver_returns_is_taken_as_it_is() {
    // Fact sheet 7.3 step 5: a capacity of 0 is not guarded.
    let mut bench = bench(|request: &CsiRequest| match request {
        CsiRequest::ControllerExpandVolume(_) => {
            Ok(CsiReply::ControllerExpandVolume(csi::ControllerExpandVolumeResponse {
                capacity_bytes: 0,
                node_expansion_required: true,
            }))
        }
        other => on_nodes(other),
    });
    ask_for(&mut bench, "2Gi");
    bench.run_ms(100);
    let capacity = volume(&bench).spec.as_ref().unwrap().capacity.as_ref().unwrap();
    assert_eq!(quantity::bytes(&capacity["storage"]), 0);
}

#[test]
fn attributes_are_changed_with_retries_but_without_pairs() {
    // Trace 22, first part: Internal at 0 and 1.04 s, success at 3.07 s; every round is announced.
    let mut bench = bench(refusing("ControllerModifyVolume", &[Code::Internal; 2]));
    bench.take_log();
    ask_for_class(&mut bench, "silver");
    bench.run_ms(500);
    assert_lines(
        &bench.take_log(),
        "patch pvc/status
        +VolumeModify
        ControllerModifyVolume!Internal
        patch pvc/status
        +VolumeModifyFailed",
    );
    let conditions = claim(&bench).status.as_ref().unwrap().conditions.clone().unwrap();
    let texts: Vec<_> = conditions
        .iter()
        .map(|c| (&*c.type_, c.reason.as_deref(), c.message.as_deref().unwrap()))
        .collect();
    let waiting = "Modifying volume to \"silver\" failed. Waiting for retry.";
    let expected = [
        ("ModifyingVolume", None, waiting),
        ("ModifyVolumeError", Some("Internal"), "injected"),
    ];
    assert_eq!(texts, expected);
    bench.run_ms(3500);
    assert_lines(
        &bench.take_log(),
        "patch pvc/status
        +VolumeModify
        ControllerModifyVolume!Internal
        patch pvc/status
        +VolumeModifyFailed
        patch pvc/status
        +VolumeModify
        ControllerModifyVolume
        patch pv
        patch pvc/status
        +VolumeModifySuccessful",
    );
    let CsiRequest::ControllerModifyVolume(request) = bench.calls.last().unwrap() else {
        panic!("not a ControllerModifyVolume")
    };
    assert_eq!(
        request.mutable_parameters,
        [("iops".to_owned(), "1000".to_owned())].into()
    );
    let status = claim(&bench).status.as_ref().unwrap();
    assert_eq!(
        (
            status.current_volume_attributes_class_name.as_deref(),
            &status.conditions
        ),
        (Some("silver"), &None)
    );
    assert_eq!(
        volume(&bench)
            .spec
            .as_ref()
            .unwrap()
            .volume_attributes_class_name
            .as_deref(),
        Some("silver")
    );
}

#[test]
fn an_infeasible_class_waits_and_going_back_to_the_current_one_calls_the_driver_again() {
    // Trace 22, second part.
    let mut bench = bench(|request: &CsiRequest| match request {
        CsiRequest::ControllerModifyVolume(r) if r.mutable_parameters["iops"] == "100" => {
            refuses(Code::InvalidArgument)
        }
        other => on_nodes(other),
    });
    ask_for_class(&mut bench, "silver");
    bench.run_ms(1000);
    ask_for_class(&mut bench, "bronze");
    bench.run_ms(14_000);
    assert_eq!(bench.moments("ControllerModifyVolume!InvalidArgument").len(), 1);
    let modify = claim(&bench)
        .status
        .as_ref()
        .unwrap()
        .modify_volume_status
        .clone()
        .unwrap();
    assert_eq!(modify.status, "Infeasible");
    bench.take_log();
    ask_for_class(&mut bench, "silver");
    bench.run_ms(1000);
    assert_lines(
        &bench.take_log(),
        "patch pvc/status
        +VolumeModify
        ControllerModifyVolume
        patch pv
        patch pvc/status
        +VolumeModifySuccessful",
    );
    assert!(claim(&bench).status.as_ref().unwrap().modify_volume_status.is_none());
}

#[test]
fn an_uncertain_modification_keeps_its_target_also_over_a_restart() {
    // Fact sheet 7.6, steps 4, 8 and 9.
    let stuck = Rc::new(Cell::new(true));
    let hangs = Rc::clone(&stuck);
    let mut bench = bench(move |request: &CsiRequest| match request {
        CsiRequest::ControllerModifyVolume(_) if hangs.get() => refuses(Code::DeadlineExceeded),
        other => on_nodes(other),
    });
    ask_for_class(&mut bench, "bronze");
    bench.run_ms(100);
    ask_for_class(&mut bench, "silver");
    bench.run_ms(1500);
    bench.restart();
    bench.run_ms(1500);
    let iops = |bench: &Bench| {
        let of = |call: &CsiRequest| match call {
            CsiRequest::ControllerModifyVolume(r) => Some(r.mutable_parameters["iops"].clone()),
            _ => None,
        };
        bench.calls.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert!(
        iops(&bench).len() > 3 && iops(&bench).iter().all(|i| i == "100"),
        "{:?}",
        iops(&bench)
    );
    let told = "  rpc error: code = DeadlineExceeded desc = injected. Still modifying to VAC bronze";
    assert!(!bench.moments(told).is_empty());
    stuck.set(false);
    bench.run_ms(10_000);
    assert_eq!(
        iops(&bench).last().unwrap(),
        "1000",
        "first the old target, then the new wish"
    );
    let current = claim(&bench)
        .status
        .as_ref()
        .unwrap()
        .current_volume_attributes_class_name
        .clone();
    assert_eq!(current.as_deref(), Some("silver"));
}

#[test]
fn a_class_that_does_not_exist_leaves_the_claim_pending() {
    // Fact sheet 7.6 step 5: no retry; the next change of the wish counts.
    let mut bench = bench(on_nodes);
    bench.take_log();
    ask_for_class(&mut bench, "gold");
    bench.run_ms(60_000);
    assert_lines(
        &bench.take_log(),
        "+VolumeModifyFailed
        patch pvc/status",
    );
    let modify = claim(&bench)
        .status
        .as_ref()
        .unwrap()
        .modify_volume_status
        .clone()
        .unwrap();
    assert_eq!(
        (modify.status.as_str(), modify.target_volume_attributes_class_name),
        ("Pending", None)
    );
    ask_for_class(&mut bench, "silver");
    bench.run_ms(1000);
    assert_eq!(bench.moments("ControllerModifyVolume").len(), 1);
}
