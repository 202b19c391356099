//! The cluster that was recorded, and a driver that answers as csi-driver-host-path did: the same capabilities, the same durations.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_sim::cluster::{Cluster, DriverSpec, ScriptedCall};
use wavetank_sim::link::{CsiReply, CsiRequest};
use wavetank_sim::scenario;

use crate::fixture::Fixture;

impl Fixture {
    /// What the recorded driver itself refused: its n-th answer to this caller. What the recording injected is injected anew instead.
    fn refusal(&self, caller: &str, method: &str, nth: usize) -> Option<Status> {
        let mut calls = self
            .seen
            .rpcs
            .iter()
            .filter(|rpc| rpc.caller == caller && rpc.method == method && !rpc.injected);
        let code = match calls.nth(nth)?.code.as_str() {
            "Internal" => Code::Internal,
            "NotFound" => Code::NotFound,
            "OK" | "Canceled" => return None,
            other => panic!("the recorded driver answers {other}: say which code that is"),
        };
        Some(Status::new(code, "as recorded"))
    }
}

/// The recorded driver.
pub const DRIVER: &str = "hostpath.csi.k8s.io";
const TOPOLOGY: &str = "topology.hostpath.csi/node";

/// Two nodes that say they are one place, one driver, the sidecars' recorded flags.
pub fn shape() -> scenario::Cluster {
    let text = format!(
        "because: recorded\n\
         cluster:\n  nodes:\n  - {{name: node-a, topology: {{{TOPOLOGY}: node-a}}}}\n  - {{name: node-b, topology: {{{TOPOLOGY}: node-a}}}}\n\
         \x20 drivers:\n  - name: {DRIVER}\n    sidecars:\n      provisioner: {{feature-gates: {{Topology: true}}, extra-create-metadata: true}}\n\
         \x20   csiDriver: {{attachRequired: true, podInfoOnMount: true, fsGroupPolicy: File, volumeLifecycleModes: [Persistent, Ephemeral]}}\n\
         steps:\n- run: 1s\n"
    );
    let scenario = scenario::parse("recorded", text, std::path::Path::new("."));
    scenario.unwrap_or_else(|e| panic!("{}", e.render(120, false))).cluster
}

/// The classes that the recordings use.
pub fn classes() -> Vec<serde_json::Value> {
    let class = |name: &str, mode: &str, policy: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": DRIVER,
            "volumeBindingMode": mode, "reclaimPolicy": policy, "allowVolumeExpansion": true})
    };
    let attributes = |name: &str, iops: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": name}, "driverName": DRIVER,
            "parameters": {"iops": iops}})
    };
    vec![
        attributes("gold", "3000"),
        attributes("silver", "1000"),
        attributes("bronze", "100"),
        class("imm", "Immediate", "Delete"),
        class("wffc", "WaitForFirstConsumer", "Delete"),
        class("retain", "Immediate", "Retain"),
    ]
}

/// What the driver's flags decide.
#[derive(Clone, Copy)]
struct Able {
    node_expansion: bool,
    modifies: bool,
}

/// Puts the script in the driver's place.
pub fn install(cluster: &mut Cluster, fixture: &Fixture) {
    let fixture = fixture.clone();
    let able = Able {
        node_expansion: !fixture.driver_flag("--disable-node-expansion"),
        modifies: fixture.driver_flag("--enable-controller-modify-volume"),
    };
    let mut counts: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
    let script = move |call: &ScriptedCall<'_>| {
        let method = call.call.request.method();
        let took = Duration::from_secs_f64(fixture.duration_ms(method) / 1000.0);
        let count = counts.entry((call.process.to_owned(), method)).or_default();
        *count += 1;
        let refusal = fixture.refusal(&crate::replay::caller(call.process), method, *count - 1);
        (took, refusal.map_or_else(|| answer(call, able), Err))
    };
    cluster.add_driver(DriverSpec::Scripted {
        driver: DRIVER.into(),
        script: Box::new(script),
    });
}

fn answer(
    call: &ScriptedCall<'_>,
    Able {
        node_expansion,
        modifies,
    }: Able,
) -> Result<CsiReply, Status> {
    Ok(match &call.call.request {
        CsiRequest::GetPluginInfo(_) => csi::GetPluginInfoResponse {
            name: DRIVER.into(),
            ..Default::default()
        }
        .into_reply(),
        CsiRequest::Probe(_) => csi::ProbeResponse::default().into_reply(),
        CsiRequest::GetPluginCapabilities(_) => plugin_capabilities().into_reply(),
        CsiRequest::ControllerGetCapabilities(_) => controller_capabilities(modifies).into_reply(),
        CsiRequest::ControllerModifyVolume(_) => csi::ControllerModifyVolumeResponse {}.into_reply(),
        CsiRequest::NodeGetCapabilities(_) => node_capabilities(node_expansion).into_reply(),
        CsiRequest::NodeGetInfo(_) => csi::NodeGetInfoResponse {
            node_id: call.node.unwrap_or_default().to_owned(),
            accessible_topology: Some(place()),
            ..Default::default()
        }
        .into_reply(),
        CsiRequest::CreateVolume(request) => csi::CreateVolumeResponse {
            volume: Some(volume(request)),
        }
        .into_reply(),
        CsiRequest::DeleteVolume(_) => csi::DeleteVolumeResponse {}.into_reply(),
        CsiRequest::ControllerPublishVolume(_) => csi::ControllerPublishVolumeResponse::default().into_reply(),
        CsiRequest::ControllerUnpublishVolume(_) => csi::ControllerUnpublishVolumeResponse {}.into_reply(),
        CsiRequest::ControllerExpandVolume(request) => csi::ControllerExpandVolumeResponse {
            capacity_bytes: request.capacity_range.map_or(0, |range| range.required_bytes),
            node_expansion_required: node_expansion,
        }
        .into_reply(),
        CsiRequest::NodeStageVolume(_) => csi::NodeStageVolumeResponse {}.into_reply(),
        CsiRequest::NodeUnstageVolume(_) => csi::NodeUnstageVolumeResponse {}.into_reply(),
        CsiRequest::NodePublishVolume(_) => csi::NodePublishVolumeResponse {}.into_reply(),
        CsiRequest::NodeUnpublishVolume(_) => csi::NodeUnpublishVolumeResponse {}.into_reply(),
        CsiRequest::NodeExpandVolume(request) => csi::NodeExpandVolumeResponse {
            capacity_bytes: request.capacity_range.map_or(0, |range| range.required_bytes),
        }
        .into_reply(),
        CsiRequest::NodeGetVolumeStats(_) => stats().into_reply(),
        other => return Err(Status::unimplemented(other.method())),
    })
}

/// A message as the answer to its method.
trait IntoReply {
    fn into_reply(self) -> CsiReply;
}

macro_rules! replies {
    ($($method:ident $message:ident,)*) => {
        $(impl IntoReply for csi::$message {
            fn into_reply(self) -> CsiReply {
                CsiReply::$method(self)
            }
        })*
    };
}

replies! {
    GetPluginInfo GetPluginInfoResponse,
    Probe ProbeResponse,
    GetPluginCapabilities GetPluginCapabilitiesResponse,
    ControllerGetCapabilities ControllerGetCapabilitiesResponse,
    NodeGetCapabilities NodeGetCapabilitiesResponse,
    NodeGetInfo NodeGetInfoResponse,
    CreateVolume CreateVolumeResponse,
    DeleteVolume DeleteVolumeResponse,
    ControllerPublishVolume ControllerPublishVolumeResponse,
    ControllerUnpublishVolume ControllerUnpublishVolumeResponse,
    ControllerExpandVolume ControllerExpandVolumeResponse,
    ControllerModifyVolume ControllerModifyVolumeResponse,
    NodeStageVolume NodeStageVolumeResponse,
    NodeUnstageVolume NodeUnstageVolumeResponse,
    NodePublishVolume NodePublishVolumeResponse,
    NodeUnpublishVolume NodeUnpublishVolumeResponse,
    NodeExpandVolume NodeExpandVolumeResponse,
    NodeGetVolumeStats NodeGetVolumeStatsResponse,
}

fn place() -> csi::Topology {
    csi::Topology {
        segments: [(TOPOLOGY.to_owned(), "node-a".to_owned())].into(),
    }
}

fn volume(request: &csi::CreateVolumeRequest) -> csi::Volume {
    csi::Volume {
        capacity_bytes: request.capacity_range.map_or(0, |range| range.required_bytes),
        volume_id: format!("handle-of-{}", request.name),
        volume_context: request.parameters.clone(),
        content_source: request.volume_content_source.clone(),
        accessible_topology: vec![place()],
    }
}

fn stats() -> csi::NodeGetVolumeStatsResponse {
    let usage = csi::VolumeUsage {
        available: 1 << 30,
        total: 1 << 30,
        used: 0,
        unit: csi::volume_usage::Unit::Bytes.into(),
    };
    csi::NodeGetVolumeStatsResponse {
        usage: vec![usage],
        ..Default::default()
    }
}

fn plugin_capabilities() -> csi::GetPluginCapabilitiesResponse {
    use csi::plugin_capability::{Service, Type, service};
    let all = [
        service::Type::ControllerService,
        service::Type::GroupControllerService,
        service::Type::VolumeAccessibilityConstraints,
    ];
    let capability = |t: service::Type| csi::PluginCapability {
        r#type: Some(Type::Service(Service { r#type: t.into() })),
    };
    csi::GetPluginCapabilitiesResponse {
        capabilities: all.into_iter().map(capability).collect(),
    }
}

fn controller_capabilities(modifies: bool) -> csi::ControllerGetCapabilitiesResponse {
    use csi::controller_service_capability::{Rpc, Type, rpc};
    let mut all = vec![
        rpc::Type::CreateDeleteVolume,
        rpc::Type::GetVolume,
        rpc::Type::GetCapacity,
        rpc::Type::CreateDeleteSnapshot,
        rpc::Type::ListSnapshots,
        rpc::Type::GetSnapshot,
        rpc::Type::ListVolumes,
        rpc::Type::CloneVolume,
        rpc::Type::VolumeCondition,
        rpc::Type::SingleNodeMultiWriter,
        rpc::Type::PublishUnpublishVolume,
        rpc::Type::ExpandVolume,
    ];
    if modifies {
        all.push(rpc::Type::ModifyVolume);
    }
    let capability = |t: rpc::Type| csi::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: t.into() })),
    };
    csi::ControllerGetCapabilitiesResponse {
        capabilities: all.into_iter().map(capability).collect(),
    }
}

fn node_capabilities(expansion: bool) -> csi::NodeGetCapabilitiesResponse {
    use csi::node_service_capability::{Rpc, Type, rpc};
    let mut all = vec![
        rpc::Type::StageUnstageVolume,
        rpc::Type::VolumeCondition,
        rpc::Type::GetVolumeStats,
        rpc::Type::SingleNodeMultiWriter,
    ];
    if expansion {
        all.push(rpc::Type::ExpandVolume);
    }
    let capability = |t: rpc::Type| csi::NodeServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: t.into() })),
    };
    csi::NodeGetCapabilitiesResponse {
        capabilities: all.into_iter().map(capability).collect(),
    }
}
