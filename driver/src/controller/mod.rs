//! The Controller service: volumes in the storage system, and which node may reach them.
//!
//! Each mutating call parses its request, takes the gate for what it works on, answers a repeat from the ledger, and
//! otherwise runs as an operation of its own (`crate::gate::operate`): intent into the ledger, effects in the pool,
//! outcome into the ledger. What a crash leaves half done is settled in `settle`.

mod create;
mod delete;
mod expand;
mod group;
mod list;
mod metadata;
mod modify;
mod publish;
mod settle;
mod snapshot;
mod snapshots;
mod uncut;
mod wrong;

#[cfg(test)]
pub(crate) use create::handle;
pub use group::GroupController;
#[cfg(test)]
pub(crate) use group::{handle as group_handle, member as group_member};
pub use metadata::SnapshotMetadata;
#[cfg(test)]
pub(crate) use snapshot::handle as snapshot_handle;
pub(crate) use wrong::unfinished;

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server;
use wavetank_proto::csi::v1::controller_service_capability::rpc::Type as Rpc;

use crate::config::{Config, Expansion};
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::note::taken;
use crate::pool::{Pool, PoolVolume, Source};
use crate::quirk::Quirk;
use crate::records::{VolumePhase, VolumeRecord};
use crate::refuse;
use crate::runtime::Runtime;
use crate::units::VolumeId;

/// The Controller service of a driver.
#[derive(Clone)]
pub struct Controller(Arc<Core>);

/// What every operation needs.
pub(crate) struct Core {
    config: Arc<Config>,
    pool: Arc<dyn Pool>,
    runtime: Arc<dyn Runtime>,
    ledger: Arc<Ledger>,
    gate: Gate,
    quirk: Option<Quirk>,
    starved: wrong::Starved,
    forgotten: wrong::Forgotten,
}

impl Controller {
    pub(crate) fn new(
        config: Arc<Config>,
        pool: Arc<dyn Pool>,
        runtime: Arc<dyn Runtime>,
        ledger: Arc<Ledger>,
        quirk: Option<Quirk>,
    ) -> Self {
        Self(Arc::new(Core {
            config,
            pool,
            runtime,
            ledger,
            gate: Gate::default(),
            quirk,
            starved: wrong::Starved::default(),
            forgotten: wrong::Forgotten::default(),
        }))
    }

    /// Settles what an earlier life of this process left half done.
    pub(crate) async fn settle_all(&self) {
        Arc::clone(&self.0).settle_all().await;
    }
}

impl Core {
    /// Is the driver to make this mistake?
    fn has(&self, quirk: Quirk) -> bool {
        self.quirk == Some(quirk)
    }

    /// The volume as the ledger knows it.
    fn record(&self, id: &VolumeId) -> Option<VolumeRecord> {
        self.ledger.read(|tables| tables.volumes.get(id).cloned())
    }

    /// The volume as the ledger or, failing that, the pool knows it: a volume may have been made before the driver
    /// was, or by hand. The flag says that the ledger does not know it yet.
    async fn find(&self, id: &VolumeId) -> Result<(VolumeRecord, bool), Status> {
        if let Some(record) = self.record(id) {
            return match record.phase {
                VolumePhase::Creating => Err(Status::not_found(format!("volume {id} does not exist"))),
                _ => Ok((record, false)),
            };
        }
        let found = self
            .pool
            .get(id)
            .await
            .map_err(|error| refuse::pool("looking for the volume", &error))?;
        match found {
            Some(volume) if !self.forgotten.has(id) => Ok((self.adopt(volume), true)),
            _ => Err(Status::not_found(format!("volume {id} does not exist"))),
        }
    }

    /// A record for a volume that the driver did not make.
    fn adopt(&self, volume: PoolVolume) -> VolumeRecord {
        VolumeRecord {
            phase: VolumePhase::Ready,
            request: None,
            created_size: volume.size,
            size: volume.size,
            segments: volume.segments,
            encrypted: volume.encrypted,
            context: BTreeMap::new(),
            settings: BTreeMap::new(),
            kind: self.config.default_type.clone(),
            shared: true,
        }
    }

    /// The volume as callers see it, with the size given.
    fn to_wire(&self, id: &VolumeId, record: &VolumeRecord, size: crate::units::Bytes) -> csi::Volume {
        let has_place = self.config.topology && !record.segments.is_empty();
        let source = record.request.as_ref().and_then(|request| request.source.as_ref());
        csi::Volume {
            capacity_bytes: size.to_wire(),
            volume_id: id.as_str().to_owned(),
            volume_context: record.context.clone(),
            content_source: source.map(source_to_wire),
            accessible_topology: if has_place {
                vec![csi::Topology {
                    segments: record.segments.clone(),
                }]
            } else {
                Vec::new()
            },
        }
    }

    fn capabilities(&self) -> Vec<Rpc> {
        let config = &self.config;
        let switched = [
            (true, Rpc::CreateDeleteVolume),
            (config.attach, Rpc::PublishUnpublishVolume),
            (config.list, Rpc::ListVolumes),
            (config.capacity, Rpc::GetCapacity),
            (config.snapshots, Rpc::CreateDeleteSnapshot),
            (config.snapshots, Rpc::ListSnapshots),
            (config.snapshots, Rpc::GetSnapshot),
            (config.clone, Rpc::CloneVolume),
            (config.attach && config.publish_readonly, Rpc::PublishReadonly),
            (config.expansion != Expansion::None, Rpc::ExpandVolume),
            (config.list && config.attach, Rpc::ListVolumesPublishedNodes),
            (config.volume_condition, Rpc::VolumeCondition),
            (true, Rpc::GetVolume),
            (config.single_node_multi_writer, Rpc::SingleNodeMultiWriter),
            (config.modify, Rpc::ModifyVolume),
        ];
        switched.into_iter().filter_map(|(on, rpc)| on.then_some(rpc)).collect()
    }
}

fn source_to_wire(source: &Source) -> csi::VolumeContentSource {
    use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
    let kind = match source {
        Source::Volume(id) => Type::Volume(VolumeSource {
            volume_id: id.as_str().to_owned(),
        }),
        Source::Snapshot(id) => Type::Snapshot(SnapshotSource {
            snapshot_id: id.as_str().to_owned(),
        }),
    };
    csi::VolumeContentSource { r#type: Some(kind) }
}

fn switched_off(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not offered by this driver"))
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let request = taken(request);
        let told = wrong::told(&self.0, &request.secrets);
        self.0.ledger.mend().await?;
        let mut volume = create::call(&self.0, request).await?;
        volume.volume_context.extend(told);
        Ok(Response::new(csi::CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        delete::call(&self.0, taken(request)).await?;
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerPublishVolumeResponse>, Status> {
        if !self.0.config.attach {
            return Err(switched_off("ControllerPublishVolume"));
        }
        self.0.ledger.mend().await?;
        let publish_context = publish::publish(&self.0, taken(request)).await?;
        Ok(Response::new(csi::ControllerPublishVolumeResponse { publish_context }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerUnpublishVolumeResponse>, Status> {
        if !self.0.config.attach {
            return Err(switched_off("ControllerUnpublishVolume"));
        }
        self.0.ledger.mend().await?;
        publish::unpublish(&self.0, taken(request)).await?;
        Ok(Response::new(csi::ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        list::validate(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Result<Response<csi::ListVolumesResponse>, Status> {
        if !self.0.config.list {
            return Err(switched_off("ListVolumes"));
        }
        self.0.ledger.mend().await?;
        list::list(&self.0, &request.into_inner()).await.map(Response::new)
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Result<Response<csi::GetCapacityResponse>, Status> {
        if !self.0.config.capacity {
            return Err(switched_off("GetCapacity"));
        }
        list::capacity(&self.0, &request.into_inner()).await.map(Response::new)
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        use csi::controller_service_capability::{Rpc as RpcMessage, Type};
        let capability = |rpc: Rpc| csi::ControllerServiceCapability {
            r#type: Some(Type::Rpc(RpcMessage { r#type: rpc.into() })),
        };
        let capabilities = self.0.capabilities().into_iter().map(capability).collect();
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Result<Response<csi::ControllerExpandVolumeResponse>, Status> {
        if self.0.config.expansion == Expansion::None {
            return Err(switched_off("ControllerExpandVolume"));
        }
        let (size, node_expansion_required) = expand::call(&self.0, taken(request)).await?;
        Ok(Response::new(csi::ControllerExpandVolumeResponse {
            capacity_bytes: size.to_wire(),
            node_expansion_required,
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Result<Response<csi::CreateSnapshotResponse>, Status> {
        if !self.0.config.snapshots {
            return Err(switched_off("CreateSnapshot"));
        }
        self.0.ledger.mend().await?;
        let snapshot = Some(snapshot::create(&self.0, taken(request)).await?);
        Ok(Response::new(csi::CreateSnapshotResponse { snapshot }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Result<Response<csi::DeleteSnapshotResponse>, Status> {
        if !self.0.config.snapshots {
            return Err(switched_off("DeleteSnapshot"));
        }
        snapshot::delete(&self.0, &taken(request)).await?;
        Ok(Response::new(csi::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Result<Response<csi::ListSnapshotsResponse>, Status> {
        if !self.0.config.snapshots {
            return Err(switched_off("ListSnapshots"));
        }
        self.0.ledger.mend().await?;
        snapshots::list(&self.0, &request.into_inner()).map(Response::new)
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Result<Response<csi::GetSnapshotResponse>, Status> {
        if !self.0.config.snapshots {
            return Err(switched_off("GetSnapshot"));
        }
        self.0.ledger.mend().await?;
        let snapshot = Some(snapshots::get(&self.0, &request.into_inner())?);
        Ok(Response::new(csi::GetSnapshotResponse { snapshot }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Result<Response<csi::ControllerGetVolumeResponse>, Status> {
        self.0.ledger.mend().await?;
        list::get(&self.0, &request.into_inner()).await.map(Response::new)
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Result<Response<csi::ControllerModifyVolumeResponse>, Status> {
        if !self.0.config.modify {
            return Err(switched_off("ControllerModifyVolume"));
        }
        modify::call(&self.0, taken(request)).await?;
        Ok(Response::new(csi::ControllerModifyVolumeResponse {}))
    }
}
