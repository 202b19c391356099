//! The Node service: a volume on one machine, from device to the path that a pod sees.
//!
//! The ledger says what was asked and granted; the machine says what is there. A repeat is answered only after looking
//! at both, so it stays true after a reboot, which empties the mount table and leaves the ledger. Nothing is unmounted,
//! detached or removed unless the device behind it is the volume's own.

mod device;
mod expand;
mod layer;
mod publish;
mod settle;
mod stage;
mod stats;
mod wrong;

#[cfg(feature = "linux")]
pub(crate) use device::new_fs;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::node_server;
use wavetank_proto::csi::v1::node_service_capability::rpc::Type as Rpc;

use crate::config::{Config, Expansion};
use crate::gate::Gate;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::note::taken;
use crate::pool::Pool;
use crate::quirk::Quirk;
use crate::records::StagedRecord;
use crate::runtime::Runtime;
use crate::seat::NodeSeat;
use crate::units::VolumeId;

/// The Node service of a driver.
#[derive(Clone)]
pub struct Node(Arc<Core>);

/// What every operation needs.
pub(crate) struct Core {
    config: Arc<Config>,
    seat: NodeSeat,
    pool: Arc<dyn Pool>,
    runtime: Arc<dyn Runtime>,
    ledger: Arc<Ledger>,
    gate: Gate,
    quirk: Option<Quirk>,
    wrong: wrong::Memory,
}

impl Node {
    pub(crate) fn new(
        config: Arc<Config>,
        seat: NodeSeat,
        pool: Arc<dyn Pool>,
        runtime: Arc<dyn Runtime>,
        ledger: Arc<Ledger>,
        quirk: Option<Quirk>,
    ) -> Self {
        Self(Arc::new(Core {
            config,
            seat,
            pool,
            runtime,
            ledger,
            gate: Gate::default(),
            quirk,
            wrong: wrong::Memory::default(),
        }))
    }

    /// Settles what an earlier life of this process left half done, and drops what a reboot has undone.
    pub(crate) async fn settle_all(&self) {
        self.0.settle_all().await;
    }
}

impl Core {
    /// Is the driver to make this mistake?
    fn has(&self, quirk: Quirk) -> bool {
        self.quirk == Some(quirk)
    }

    fn host(&self) -> &dyn Host {
        &*self.seat.host
    }

    fn staged(&self, volume: &VolumeId) -> Option<StagedRecord> {
        self.ledger.read(|tables| tables.staged.get(volume).cloned())
    }

    fn capabilities(&self) -> Vec<Rpc> {
        let config = &self.config;
        let switched = [
            (config.stage, Rpc::StageUnstageVolume),
            (config.stats, Rpc::GetVolumeStats),
            (self.expands(), Rpc::ExpandVolume),
            (config.stats && config.volume_condition, Rpc::VolumeCondition),
            (config.single_node_multi_writer, Rpc::SingleNodeMultiWriter),
            (config.volume_mount_group, Rpc::VolumeMountGroup),
        ];
        switched.into_iter().filter_map(|(on, rpc)| on.then_some(rpc)).collect()
    }

    fn expands(&self) -> bool {
        self.config.expansion != Expansion::None && self.config.node_expansion
    }
}

fn switched_off(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not offered by this driver"))
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        if !self.0.config.stage {
            return Err(switched_off("NodeStageVolume"));
        }
        stage::stage(&self.0, taken(request)).await?;
        Ok(Response::new(csi::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        if !self.0.config.stage {
            return Err(switched_off("NodeUnstageVolume"));
        }
        stage::unstage(&self.0, &taken(request)).await?;
        Ok(Response::new(csi::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        publish::publish(&self.0, taken(request)).await?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        publish::unpublish(&self.0, &taken(request)).await?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        if !self.0.config.stats {
            return Err(switched_off("NodeGetVolumeStats"));
        }
        stats::call(&self.0, &request.into_inner()).await.map(Response::new)
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        if !self.0.expands() {
            return Err(switched_off("NodeExpandVolume"));
        }
        let size = expand::call(&self.0, &taken(request)).await?;
        Ok(Response::new(csi::NodeExpandVolumeResponse {
            capacity_bytes: size.to_wire(),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        use csi::node_service_capability::{Rpc as RpcMessage, Type};
        let capability = |rpc: Rpc| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(RpcMessage { r#type: rpc.into() })),
        };
        let capabilities = self.0.capabilities().into_iter().map(capability).collect();
        Ok(Response::new(csi::NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        let core = &self.0;
        let has_place = core.config.topology && !core.seat.segments.is_empty();
        let mut max_volumes_per_node: i64 = core.config.max_volumes_per_node.into();
        if core.has(Quirk::AttachLimitAtStart) {
            max_volumes_per_node = core.less_what_is_staged(max_volumes_per_node);
        }
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: core.seat.id.as_str().to_owned(),
            max_volumes_per_node,
            accessible_topology: has_place.then(|| csi::Topology {
                segments: core.seat.segments.clone(),
            }),
        }))
    }
}
