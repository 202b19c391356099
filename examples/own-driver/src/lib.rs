//! A CSI driver as somebody might begin one: volumes without attachment and without staging, mounted straight at the pod's path.
//!
//! It knows nothing of the tank but its door: [`factory`] gives the services of one process from the seat that the tank hands out.

use std::sync::Arc;

use futures::FutureExt;
use tonic::{Request, Response, Status};
use wavetank_proto::csi::v1::controller_server::{Controller, ControllerServer};
use wavetank_proto::csi::v1::identity_server::{Identity, IdentityServer};
use wavetank_proto::csi::v1::node_server::{Node, NodeServer};
use wavetank_proto::csi::v1::{self as csi};
use wavetank_sim::link::{Factory, Seat, Services};
use wavetank_sim::seat::{
    Access, Bytes, FsKind, HostPath, Mount, NewFs, NewVolume, NodeId, PoolErrorKind, Probe, Provisioning, Segments,
    VolumeId,
};

/// The driver's name.
pub const NAME: &str = "own.csi.example.com";

/// Gives the tank the driver: called at each start of one of its processes.
pub fn factory() -> Factory {
    Arc::new(|seat: Seat| {
        async move {
            let own = Own(Arc::new(seat));
            let services = Services::new().with(IdentityServer::new(own.clone()));
            Ok(match own.0.host {
                None => services.with(ControllerServer::new(own)),
                Some(_) => services.with(NodeServer::new(own)),
            })
        }
        .boxed()
    })
}

#[derive(Clone)]
struct Own(Arc<Seat>);

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

#[async_trait::async_trait]
impl Identity for Own {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: NAME.into(),
            vendor_version: "0.1".into(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        use csi::plugin_capability::{Service, Type, service};
        let service = Service {
            r#type: service::Type::ControllerService.into(),
        };
        let capabilities = vec![csi::PluginCapability {
            r#type: Some(Type::Service(service)),
        }];
        Ok(Response::new(csi::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}

#[async_trait::async_trait]
impl Controller for Own {
    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        use csi::controller_service_capability::{Rpc, Type, rpc};
        let rpc = Rpc {
            r#type: rpc::Type::CreateDeleteVolume.into(),
        };
        let capabilities = vec![csi::ControllerServiceCapability {
            r#type: Some(Type::Rpc(rpc)),
        }];
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() || request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("a volume needs a name and capabilities"));
        }
        let wanted = request.capacity_range.map_or(0, |r| r.required_bytes).max(1 << 20);
        // The name is the id: the same request finds the same volume, also after a restart.
        let id = VolumeId::from(request.name.as_str());
        let volume = NewVolume {
            id: id.clone(),
            size: Bytes(u64::try_from(wanted).map_err(failed)?),
            kind: "standard".into(),
            provisioning: Provisioning::Thin,
            segments: Segments::new(),
            source: None,
            encrypted: false,
            shared_fs: None,
            settings: Default::default(),
        };
        let made = match self.0.pool.create(&volume).await {
            Ok(made) => made,
            Err(error) if error.kind == PoolErrorKind::Exists => {
                let there = self.0.pool.get(&id).await.map_err(failed)?;
                there.ok_or_else(|| Status::aborted("the volume is being deleted"))?
            }
            Err(error) if error.kind == PoolErrorKind::NoSpace => {
                return Err(Status::resource_exhausted(error.to_string()));
            }
            Err(error) => return Err(failed(error)),
        };
        if made.size.0 < wanted as u64 {
            return Err(Status::already_exists("there is a smaller volume of this name"));
        }
        let volume = csi::Volume {
            capacity_bytes: made.size.0 as i64,
            volume_id: request.name,
            ..Default::default()
        };
        Ok(Response::new(csi::CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let id = VolumeId::from(request.into_inner().volume_id.as_str());
        match self.0.pool.delete(&id).await {
            Err(error) if error.kind != PoolErrorKind::NotFound => Err(failed(error)),
            _ => Ok(Response::new(csi::DeleteVolumeResponse {})),
        }
    }
}

#[async_trait::async_trait]
impl Node for Own {
    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        let node_id = self.0.node.as_ref().map(|n| n.name.clone()).unwrap_or_default();
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id,
            ..Default::default()
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        Ok(Response::new(csi::NodeGetCapabilitiesResponse::default()))
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (host, id, target) = self.reach(&request.volume_id, &request.target_path)?;
        if host.mount_at(&target).await.map_err(failed)?.is_some() {
            return Ok(Response::new(csi::NodePublishVolumeResponse {}));
        }
        let access = Access::from_readonly(request.readonly);
        let context = self.0.pool.export(&id, &self.node_id(), access).await.map_err(failed)?;
        let device = host.attach(&id, &context, access).await.map_err(failed)?;
        if host.probe(&device).await.map_err(failed)? == Probe::Blank {
            let fs = NewFs {
                kind: FsKind::Ext4,
                label: String::new(),
                uuid: request.volume_id.clone(),
                forced: false,
            };
            host.mkfs(&device, &fs).await.map_err(failed)?;
        }
        host.create_dir(&target).await.map_err(failed)?;
        let mount = Mount {
            device,
            target,
            kind: FsKind::Ext4,
            flags: Vec::new(),
            access,
        };
        host.mount(&mount).await.map_err(failed)?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (host, id, target) = self.reach(&request.volume_id, &request.target_path)?;
        if host.mount_at(&target).await.map_err(failed)?.is_some() {
            host.unmount(&target).await.map_err(failed)?;
        }
        if host.kind(&target).await.map_err(failed)?.is_some() {
            host.remove_dir(&target).await.map_err(failed)?;
        }
        if host.attached(&id).await.map_err(failed)?.is_some() {
            host.detach(&id).await.map_err(failed)?;
        }
        self.0.pool.unexport(&id, &self.node_id()).await.map_err(failed)?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }
}

impl Own {
    fn node_id(&self) -> NodeId {
        NodeId::from(self.0.node.as_ref().map(|n| n.name.as_str()).unwrap_or_default())
    }

    fn reach(&self, volume: &str, target: &str) -> Result<(&dyn wavetank_sim::seat::Host, VolumeId, HostPath), Status> {
        let host = self
            .0
            .host
            .as_deref()
            .ok_or_else(|| Status::failed_precondition("this process serves no node"))?;
        if volume.is_empty() {
            return Err(Status::invalid_argument("a volume id is needed"));
        }
        let target = HostPath::parse(target).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok((host, VolumeId::from(volume), target))
    }
}
