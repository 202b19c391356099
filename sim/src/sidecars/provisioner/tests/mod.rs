//! The provisioner against a scripted driver and a modelled API server, compared with recorded traces. What the volume controller does is done by hand.

mod sources;
mod volumes;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};
use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use super::{Flags, INDEXES, shells};
use crate::api::{Kind, ObjKey, ObjectRef, fields};
use crate::link::{CsiReply, CsiRequest};
use crate::sidecars::bench::{
    Answer, Bench, assert_lines, controller_capabilities, gone, plugin_capabilities, refuses,
};
use crate::sidecars::connect::{ControllerRpc, PluginService};

const DRIVER: &str = "csi.example";

/// A driver that does everything it is asked for.
fn willing(request: &CsiRequest) -> Answer {
    Ok(match request {
        CsiRequest::Probe(_) => CsiReply::Probe(csi::ProbeResponse::default()),
        CsiRequest::GetPluginInfo(_) => CsiReply::GetPluginInfo(csi::GetPluginInfoResponse {
            name: DRIVER.into(),
            ..Default::default()
        }),
        CsiRequest::GetPluginCapabilities(_) => plugin_capabilities(&[
            PluginService::ControllerService,
            PluginService::VolumeAccessibilityConstraints,
        ]),
        CsiRequest::ControllerGetCapabilities(_) => controller_capabilities(&[
            ControllerRpc::CreateDeleteVolume,
            ControllerRpc::CreateDeleteSnapshot,
            ControllerRpc::CloneVolume,
            ControllerRpc::PublishUnpublishVolume,
            ControllerRpc::SingleNodeMultiWriter,
            ControllerRpc::ModifyVolume,
        ]),
        CsiRequest::CreateVolume(request) => CsiReply::CreateVolume(csi::CreateVolumeResponse {
            volume: Some(csi::Volume {
                capacity_bytes: request.capacity_range.unwrap().required_bytes,
                volume_id: format!("handle-{}", request.name),
                volume_context: request.parameters.clone(),
                content_source: request.volume_content_source.clone(),
                accessible_topology: request
                    .accessibility_requirements
                    .iter()
                    .flat_map(|r| r.preferred.first().cloned())
                    .collect(),
            }),
        }),
        CsiRequest::DeleteVolume(_) => CsiReply::DeleteVolume(csi::DeleteVolumeResponse {}),
        CsiRequest::GetCapacity(_) => CsiReply::GetCapacity(csi::GetCapacityResponse {
            available_capacity: 1 << 40,
            ..Default::default()
        }),
        other => panic!("the provisioner never calls {}", other.method()),
    })
}

/// A driver that refuses CreateVolume with these codes first.
fn refusing(codes: &'static [Code]) -> impl FnMut(&CsiRequest) -> Answer {
    let mut left = codes.iter();
    move |request| match request {
        CsiRequest::CreateVolume(_) => left.next().map_or_else(|| willing(request), |code| refuses(*code)),
        other => willing(other),
    }
}

/// A running provisioner with two nodes in one zone, classes `imm`, `wffc` and a secretive one.
fn bench_with(flags: &Flags, driver: impl FnMut(&CsiRequest) -> Answer + 'static) -> Bench {
    let mut bench = Bench::new(shells(DRIVER, flags), INDEXES, driver);
    for node in ["node-a", "node-b"] {
        bench.create(
            Kind::Node,
            json!({"metadata": {"name": node, "labels": {"zone": node}}}),
        );
        let registered = json!({"name": DRIVER, "nodeID": node, "topologyKeys": ["zone"]});
        bench.create(
            Kind::CSINode,
            json!({"metadata": {"name": node}, "spec": {"drivers": [registered]}}),
        );
    }
    let secret = json!({
        "csi.storage.k8s.io/provisioner-secret-name": "key",
        "csi.storage.k8s.io/provisioner-secret-namespace": "${pvc.namespace}",
    });
    let classes = [
        ("imm", "Immediate", json!({})),
        ("wffc", "WaitForFirstConsumer", json!({})),
        ("secret", "Immediate", secret),
    ];
    for (name, mode, parameters) in classes {
        bench.create(
            Kind::StorageClass,
            json!({"metadata": {"name": name}, "provisioner": DRIVER, "volumeBindingMode": mode, "parameters": parameters}),
        );
    }
    bench.start();
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "Probe
        GetPluginInfo
        GetPluginCapabilities
        ControllerGetCapabilities",
    );
    bench.calls.clear();
    bench
}

fn bench(driver: impl FnMut(&CsiRequest) -> Answer + 'static) -> Bench {
    bench_with(&Flags::default(), driver)
}

fn manifest(name: &str, class: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "annotations": {"volume.kubernetes.io/storage-provisioner": DRIVER}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn claim_ref(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::PersistentVolumeClaim, ObjKey::new("default", name))
}

/// Creates a claim and names the volume that is made for it.
fn claim(bench: &mut Bench, name: &str, manifest: Value) -> ObjectRef {
    let claim = bench.create(Kind::PersistentVolumeClaim, manifest);
    assert_eq!(&*claim.key().name, name);
    ObjectRef::new(Kind::PersistentVolume, ObjKey::cluster(format!("pvc-{}", claim.uid())))
}

/// Binds claim and volume as the volume controller does.
fn bind(bench: &mut Bench, name: &str, volume: &ObjectRef) {
    bench.patch_status(volume, json!({"status": {"phase": "Bound"}}));
    bench.patch(&claim_ref(name), json!({"spec": {"volumeName": &*volume.key.name}}));
    bench.patch_status(&claim_ref(name), json!({"status": {"phase": "Bound"}}));
}

/// Deletes a claim, its protection included.
fn unclaim(bench: &mut Bench, name: &str) {
    bench.delete(&claim_ref(name));
    bench.patch(&claim_ref(name), json!({"metadata": {"finalizers": null}}));
}

#[test]
fn a_claim_gets_a_volume_made_and_saved() {
    // Trace 01: Provisioning, CreateVolume, create PV, ProvisioningSucceeded.
    let mut bench = bench(willing);
    let volume = claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        CreateVolume
        create pv
        +ProvisioningSucceeded",
    );
    let CsiRequest::CreateVolume(request) = &bench.calls[0] else {
        panic!("not a CreateVolume")
    };
    let zones = |terms: &[csi::Topology]| terms.iter().map(|t| t.segments["zone"].clone()).collect::<Vec<_>>();
    let requirements = request.accessibility_requirements.as_ref().unwrap();
    assert_eq!(zones(&requirements.requisite), ["node-a", "node-b"]);
    bind(&mut bench, "data", &volume);
    bench.run_ms(1000);
    assert_lines(&bench.take_log(), "");
}

#[test]
fn deadline_exceeded_doubles_without_jitter() {
    // Trace 21a2: gaps of 1, 2, 4, 8 s.
    let mut bench = bench(refusing(&[Code::DeadlineExceeded; 4]));
    claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(30_000);
    let failures = bench.moments("CreateVolume!DeadlineExceeded");
    let gaps: Vec<u64> = failures.windows(2).map(|w| (w[1] - w[0]) / 100 * 100).collect();
    assert_eq!(gaps, [1000, 2000, 4000]);
    assert_eq!(bench.moments("CreateVolume").len(), 1);
}

#[test]
fn a_volume_in_the_background_is_driven_on_although_its_claim_is_gone() {
    // Trace 21a3: the deletion and its completion each trigger a call at once; the success is saved, without an event to nobody.
    let mut bench = bench(refusing(&[Code::DeadlineExceeded; 3]));
    let volume = claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(1100);
    unclaim(&mut bench, "data");
    bench.run_ms(10_000);
    let happened = bench.take_log();
    let calls: Vec<&String> = happened.iter().filter(|l| !l.starts_with('+')).collect();
    assert_lines(
        &calls,
        "CreateVolume!DeadlineExceeded
        CreateVolume!DeadlineExceeded
        CreateVolume!DeadlineExceeded
        CreateVolume
        create pv",
    );
    assert!(!happened.contains(&"+ProvisioningSucceeded".to_owned()));
    assert!(bench.server.get::<PersistentVolume>(&volume.key).is_some());
}

#[test]
fn what_is_in_the_background_is_forgotten_with_the_process_and_leaks() {
    // Fact sheet 3.8.
    let mut bench = bench(refusing(&[Code::DeadlineExceeded; 9]));
    claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(100);
    unclaim(&mut bench, "data");
    bench.run_ms(100);
    bench.restart();
    bench.take_log();
    bench.run_ms(60_000);
    assert_lines(
        &bench.take_log(),
        "GetPluginInfo
        GetPluginCapabilities
        ControllerGetCapabilities",
    );
}

#[test]
fn after_a_final_error_the_deletion_triggers_one_more_call_and_then_silence() {
    // Trace 21a5.
    let mut bench = bench(refusing(&[Code::Internal; 99]));
    claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(100);
    assert_eq!(bench.moments("CreateVolume!Internal").len(), 1);
    bench.delete(&claim_ref("data"));
    bench.run_ms(20);
    bench.patch(&claim_ref("data"), json!({"metadata": {"finalizers": null}}));
    bench.run_ms(60_000);
    assert_eq!(bench.moments("CreateVolume!Internal").len(), 2);
}

#[test]
fn an_infeasible_claim_waits_five_minutes_whatever_happens_to_it() {
    // Trace 21a3, first part: one call in 8 s, none on deletion; fact sheet 3.2.
    let mut bench = bench(refusing(&[Code::InvalidArgument]));
    claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(1000);
    bench.patch(&claim_ref("data"), json!({"metadata": {"labels": {"a": "b"}}}));
    bench.run_ms(298_000);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        CreateVolume!InvalidArgument
        +ProvisioningFailed",
    );
    let told = "  Volume provisioning failed with infeasible error. Retries will be delayed. rpc error: code = InvalidArgument desc = injected";
    assert_eq!(bench.moments(told).len(), 1);
    bench.run_ms(300_000);
    assert_eq!(
        bench.moments("CreateVolume").len(),
        1,
        "the back-off meanwhile went on counting"
    );
}

#[test]
fn resource_exhausted_asks_the_scheduler_for_another_node() {
    // Golden README 18: the annotation is removed right away, and nothing is retried until the scheduler chooses again.
    let mut bench = bench(refusing(&[Code::ResourceExhausted]));
    let mut late = manifest("data", "wffc");
    late["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!("node-b");
    claim(&mut bench, "data", late);
    bench.run_ms(10_000);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        CreateVolume!ResourceExhausted
        +ProvisioningFailed
        update pvc",
    );
    let left = bench.get::<PersistentVolumeClaim>(&claim_ref("data").key);
    assert_eq!(
        fields::annotation(&left.metadata, "volume.kubernetes.io/selected-node"),
        None
    );
    bench.patch(
        &claim_ref("data"),
        json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "node-a"}}}),
    );
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        CreateVolume
        create pv
        +ProvisioningSucceeded",
    );
    let CsiRequest::CreateVolume(request) = bench.calls.last().unwrap() else {
        panic!("not a CreateVolume")
    };
    let preferred = &request.accessibility_requirements.as_ref().unwrap().preferred;
    assert_eq!(preferred[0].segments["zone"], "node-a");
}

#[test]
fn without_a_selected_node_resource_exhausted_is_just_final() {
    let mut bench = bench(refusing(&[Code::ResourceExhausted]));
    claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(1500);
    assert_eq!(bench.moments("update pvc"), [0u64; 0]);
    assert_eq!(bench.moments("CreateVolume").len(), 1, "after 1 s");
}

#[test]
fn a_volume_that_is_too_small_is_deleted_and_asked_for_again() {
    // Fact sheet 3.4: five DeleteVolume calls in a row if they fail, then the volume is an orphan.
    let small = |request: &CsiRequest| match (request, willing(request)) {
        (CsiRequest::DeleteVolume(_), _) => refuses(Code::Internal),
        (_, Ok(CsiReply::CreateVolume(mut reply))) => {
            reply.volume.as_mut().unwrap().capacity_bytes = 1;
            Ok(CsiReply::CreateVolume(reply))
        }
        (_, other) => other,
    };
    let mut bench = bench(small);
    claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(500);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        CreateVolume
        DeleteVolume!Internal
        DeleteVolume!Internal
        DeleteVolume!Internal
        DeleteVolume!Internal
        DeleteVolume!Internal
        +ProvisioningFailed",
    );
    unclaim(&mut bench, "data");
    bench.run_ms(2000);
    assert!(
        bench.moments("CreateVolume").len() > 1,
        "in the background, so the claim's end changes nothing"
    );
}

#[test]
fn mutable_parameters_come_from_the_attributes_class() {
    let mut bench = bench(willing);
    let mut gold = manifest("data", "imm");
    gold["spec"]["volumeAttributesClassName"] = json!("gold");
    let volume = claim(&mut bench, "data", gold);
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        +ProvisioningFailed",
    );
    bench.create(
        Kind::VolumeAttributesClass,
        json!({"metadata": {"name": "gold"}, "driverName": DRIVER, "parameters": {"iops": "9"}}),
    );
    bench.run_ms(2000);
    let CsiRequest::CreateVolume(request) = bench.calls.last().unwrap() else {
        panic!("not a CreateVolume")
    };
    assert_eq!(request.mutable_parameters, [("iops".to_owned(), "9".to_owned())].into());
    let made = bench.get::<PersistentVolume>(&volume.key);
    assert_eq!(
        made.spec.as_ref().unwrap().volume_attributes_class_name.as_deref(),
        Some("gold")
    );
}

#[test]
fn a_lost_connection_ends_the_process_and_the_pending_claim_goes_out_after_the_restart() {
    // Traces 18d, 19: the same name is sent again at once after the start.
    let mut bench = bench(|request: &CsiRequest| match request {
        CsiRequest::CreateVolume(_) => gone(),
        other => willing(other),
    });
    let volume = claim(&mut bench, "data", manifest("data", "imm"));
    bench.run_ms(1000);
    assert_lines(
        &bench.take_log(),
        "+Provisioning
        CreateVolume!Unavailable",
    );
    assert_eq!(bench.exit.as_deref(), Some("Lost connection to CSI driver, exiting"));
    bench.drive(willing);
    bench.restart();
    bench.run_ms(100);
    assert_lines(
        &bench.take_log(),
        "Probe
        GetPluginInfo
        GetPluginCapabilities
        ControllerGetCapabilities
        +Provisioning
        CreateVolume
        create pv
        +ProvisioningSucceeded",
    );
    let made = bench.get::<PersistentVolume>(&volume.key);
    let attributes = made
        .spec
        .as_ref()
        .unwrap()
        .csi
        .as_ref()
        .unwrap()
        .volume_attributes
        .clone()
        .unwrap();
    let identity = &attributes["storage.kubernetes.io/csiProvisionerIdentity"];
    assert!(
        identity.starts_with("1767225601100-") && identity.ends_with("-csi.example"),
        "{identity}"
    );
}

#[test]
fn claims_of_others_are_left_alone() {
    let mut bench = bench(willing);
    let mut other = manifest("other", "imm");
    other["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] = json!("else");
    claim(&mut bench, "other", other);
    let mut bound = manifest("bound", "imm");
    bound["spec"]["volumeName"] = json!("pv");
    claim(&mut bench, "bound", bound);
    claim(&mut bench, "late", manifest("late", "wffc"));
    bench.run_ms(1000);
    assert_lines(&bench.take_log(), "");
}
