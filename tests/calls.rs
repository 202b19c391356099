//! The calls of one volume's life without a cluster: answered by a script, or made straight to the driver.

use std::sync::Arc;
use std::time::Duration;

use wavetank_driver::{Bytes, Disk, NodeId, Segments};
use wavetank_proto::csi::v1 as csi;
use wavetank_sim::cluster::{Cluster, DriverSpec, ScriptedCall};
use wavetank_sim::host::{AtOnce, Fence, HostSeat, Machine, ModelDisk, ModelPool, Storage, StorageShape, Turns};
use wavetank_sim::link::{CsiReply, CsiRequest, InProcess, MachineOp, NodeSeat, Seat, Services, TankRuntime, Wire};
use wavetank_sim::play::reference;
use wavetank_sim::runtime::{Board, Tasks};

use crate::DRIVER;

/// Answers every call to the driver from a script: what remains is the cluster's own cost.
pub fn script(cluster: &mut Cluster) {
    let script = |call: &ScriptedCall<'_>| (Duration::from_millis(2), Ok(answer(call)));
    cluster.add_driver(DriverSpec::Scripted {
        driver: DRIVER.into(),
        script: Box::new(script),
    });
}

fn answer(call: &ScriptedCall<'_>) -> CsiReply {
    match &call.call.request {
        CsiRequest::GetPluginInfo(_) => CsiReply::GetPluginInfo(csi::GetPluginInfoResponse {
            name: DRIVER.into(),
            vendor_version: "1".into(),
            ..Default::default()
        }),
        CsiRequest::GetPluginCapabilities(_) => CsiReply::GetPluginCapabilities(plugin_capabilities()),
        CsiRequest::Probe(_) => CsiReply::Probe(csi::ProbeResponse { ready: Some(true) }),
        CsiRequest::ControllerGetCapabilities(_) => CsiReply::ControllerGetCapabilities(controller_capabilities()),
        CsiRequest::NodeGetCapabilities(_) => CsiReply::NodeGetCapabilities(node_capabilities()),
        CsiRequest::NodeGetInfo(_) => {
            let node_id = call.node.unwrap_or_default().to_owned();
            CsiReply::NodeGetInfo(csi::NodeGetInfoResponse {
                node_id,
                ..Default::default()
            })
        }
        CsiRequest::CreateVolume(request) => CsiReply::CreateVolume(csi::CreateVolumeResponse {
            volume: Some(csi::Volume {
                capacity_bytes: request.capacity_range.map_or(0, |r| r.required_bytes),
                volume_id: request.name.clone(),
                ..Default::default()
            }),
        }),
        CsiRequest::DeleteVolume(_) => CsiReply::DeleteVolume(csi::DeleteVolumeResponse {}),
        CsiRequest::ControllerPublishVolume(_) => CsiReply::ControllerPublishVolume(Default::default()),
        CsiRequest::ControllerUnpublishVolume(_) => {
            CsiReply::ControllerUnpublishVolume(csi::ControllerUnpublishVolumeResponse {})
        }
        CsiRequest::NodeStageVolume(_) => CsiReply::NodeStageVolume(csi::NodeStageVolumeResponse {}),
        CsiRequest::NodeUnstageVolume(_) => CsiReply::NodeUnstageVolume(csi::NodeUnstageVolumeResponse {}),
        CsiRequest::NodePublishVolume(_) => CsiReply::NodePublishVolume(csi::NodePublishVolumeResponse {}),
        CsiRequest::NodeUnpublishVolume(_) => CsiReply::NodeUnpublishVolume(csi::NodeUnpublishVolumeResponse {}),
        other => panic!("the script has no answer to {}", other.method()),
    }
}

fn plugin_capabilities() -> csi::GetPluginCapabilitiesResponse {
    use csi::plugin_capability::{Service, Type, service};
    let service = Service {
        r#type: service::Type::ControllerService.into(),
    };
    csi::GetPluginCapabilitiesResponse {
        capabilities: vec![csi::PluginCapability {
            r#type: Some(Type::Service(service)),
        }],
    }
}

fn controller_capabilities() -> csi::ControllerGetCapabilitiesResponse {
    use csi::controller_service_capability::{Rpc, Type, rpc};
    let all = [
        rpc::Type::CreateDeleteVolume,
        rpc::Type::PublishUnpublishVolume,
        rpc::Type::ExpandVolume,
    ];
    let capability = |t: rpc::Type| csi::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: t.into() })),
    };
    csi::ControllerGetCapabilitiesResponse {
        capabilities: all.into_iter().map(capability).collect(),
    }
}

fn node_capabilities() -> csi::NodeGetCapabilitiesResponse {
    use csi::node_service_capability::{Rpc, Type, rpc};
    let rpc = Rpc {
        r#type: rpc::Type::StageUnstageVolume.into(),
    };
    csi::NodeGetCapabilitiesResponse {
        capabilities: vec![csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(rpc)),
        }],
    }
}

/// The reference driver, controller and one node, with nobody around it: operations take no time and wait for no turn.
pub struct Bare {
    controller: Wire,
    node: Wire,
    machine: Machine,
}

impl Bare {
    /// Starts both processes. Only inside [`wavetank_sim::runtime::run`].
    pub async fn start() -> Bare {
        let storage = Storage::new(StorageShape::everywhere(Bytes(1 << 50)));
        storage.add_node(NodeId::from("node-1"), Segments::new(), None);
        let machine = Machine::new("node-1");
        let controller = wire(&storage, None).await;
        let node = wire(&storage, Some(&machine)).await;
        Bare {
            controller,
            node,
            machine,
        }
    }

    /// All calls of one volume's life, in the order in which a cluster makes them.
    ///
    /// # Panics
    /// If the driver refuses one.
    pub async fn life(&self, nth: usize) {
        let staging = format!("/var/lib/kubelet/plugins/kubernetes.io/csi/{DRIVER}/{nth}/globalmount");
        let pod = format!("/var/lib/kubelet/pods/{nth}/volumes/kubernetes.io~csi/pv");
        let target = format!("{pod}/mount");
        self.make(&staging);
        self.make(&pod);
        let created = send(&self.controller, create(nth)).await;
        let CsiReply::CreateVolume(csi::CreateVolumeResponse { volume: Some(volume) }) = created else {
            panic!("the driver made no volume")
        };
        let id = volume.volume_id;
        let attach = csi::ControllerPublishVolumeRequest {
            volume_id: id.clone(),
            node_id: "node-1".into(),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        let CsiReply::ControllerPublishVolume(attached) = send(&self.controller, attach).await else {
            panic!("the driver did not publish")
        };
        self.on_the_node(&id, &attached.publish_context, &staging, &target)
            .await;
        let detach = csi::ControllerUnpublishVolumeRequest {
            volume_id: id.clone(),
            node_id: "node-1".into(),
            ..Default::default()
        };
        send(&self.controller, detach).await;
        send(
            &self.controller,
            csi::DeleteVolumeRequest {
                volume_id: id,
                ..Default::default()
            },
        )
        .await;
    }

    async fn on_the_node(
        &self,
        id: &str,
        context: &std::collections::BTreeMap<String, String>,
        staging: &str,
        target: &str,
    ) {
        self.questions(3).await;
        let stage = csi::NodeStageVolumeRequest {
            volume_id: id.into(),
            publish_context: context.clone(),
            staging_target_path: staging.into(),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        send(&self.node, stage).await;
        self.questions(3).await;
        let publish = csi::NodePublishVolumeRequest {
            volume_id: id.into(),
            publish_context: context.clone(),
            staging_target_path: staging.into(),
            target_path: target.into(),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        send(&self.node, publish).await;
        send(
            &self.node,
            csi::NodeUnpublishVolumeRequest {
                volume_id: id.into(),
                target_path: target.into(),
            },
        )
        .await;
        self.questions(1).await;
        send(
            &self.node,
            csi::NodeUnstageVolumeRequest {
                volume_id: id.into(),
                staging_target_path: staging.into(),
            },
        )
        .await;
    }

    async fn questions(&self, count: usize) {
        for _ in 0..count {
            send(&self.node, csi::NodeGetCapabilitiesRequest {}).await;
        }
    }

    fn make(&self, path: &str) {
        let made = self
            .machine
            .perform(wavetank_sim::runtime::Time::ZERO, &MachineOp::MakeDirs(path.into()));
        made.expect("a fresh machine makes directories");
    }
}

fn create(nth: usize) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: format!("pvc-{nth:036}"),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: 1 << 30,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability()],
        ..Default::default()
    }
}

fn capability() -> csi::VolumeCapability {
    use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode {
            mode: access_mode::Mode::SingleNodeMultiWriter.into(),
        }),
    }
}

async fn send(wire: &Wire, request: impl Into<CsiRequest>) -> CsiReply {
    let request = request.into();
    let method = request.method();
    request
        .send(wire.clone(), Duration::from_secs(10))
        .await
        .unwrap_or_else(|e| panic!("{method}: {e}"))
}

async fn wire(storage: &Storage, machine: Option<&Machine>) -> Wire {
    let (fence, turns): (Fence, Arc<dyn Turns>) = (Fence::new(), Arc::new(AtOnce));
    let board = Arc::new(Board::default());
    let lane = board.lane("bare");
    let tasks = Tasks::new("bare");
    let host = machine.map(|machine| {
        let seat = HostSeat {
            driver: DRIVER.into(),
            node: NodeId::from("node-1"),
            storage: storage.clone(),
            fence: fence.clone(),
            turns: Arc::clone(&turns),
        };
        Arc::new(machine.host(seat)) as Arc<dyn wavetank_driver::Host>
    });
    let node = machine.map(|_| NodeSeat {
        name: "node-1".into(),
        topology: Default::default(),
        max_volumes: 0,
    });
    let options = wavetank_driver::Config {
        topology: false,
        ..Default::default()
    };
    let seat = Seat {
        driver: DRIVER.into(),
        node,
        host,
        pool: Arc::new(ModelPool::new(storage.clone(), fence.clone(), turns)),
        runtime: Arc::new(TankRuntime {
            tasks: tasks.clone(),
            board,
            lane,
        }),
        disk: Disk::new(ModelDisk::new().open(fence, None)),
        options: serde_json::to_value(options).expect("options serialise"),
    };
    let services: Services = reference()(seat)
        .await
        .unwrap_or_else(|e| panic!("the driver does not start: {e}"));
    Wire::new(InProcess { tasks, services })
}
