//! A first CSI driver: each volume is a directory below `--data`, bind-mounted where a pod wants it. One process serves everything.
//!
//! ```text
//! newcomer-driver --endpoint unix:///run/csi.sock --node node-1 --data /var/lib/newcomer
//! ```
//!
//! It is written as people write their first driver: it passes a demonstration, and has flaws that show when answers are lost, calls are repeated and
//! processes die. `docs/tutorial.md` finds them one by one. Do not copy it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::{Controller, ControllerServer};
use wavetank_proto::csi::v1::controller_service_capability::rpc::Type as Rpc;
use wavetank_proto::csi::v1::identity_server::{Identity, IdentityServer};
use wavetank_proto::csi::v1::node_server::{Node, NodeServer};
use wavetank_proto::csi::v1::plugin_capability::service::Type as Service;

const NAME: &str = "newcomer.csi.example.com";
const GIB: i64 = 1 << 30;

#[derive(Clone)]
struct Driver {
    node: String,
    data: PathBuf,
    /// The volumes, by id.
    volumes: Arc<Mutex<BTreeMap<String, csi::Volume>>>,
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn run(program: &str, args: &[&str]) -> Result<(), Status> {
    let output = Command::new(program).args(args).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Status::internal(String::from_utf8_lossy(&output.stderr).into_owned()))
}

impl Driver {
    /// A new volume gets the next free number.
    fn new_id(&self) -> String {
        let taken = |n: &usize| self.data.join(format!("vol-{n}")).exists();
        let free = (1..).find(|n| !taken(n)).unwrap_or_default();
        format!("vol-{free}")
    }

    fn volumes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, csi::Volume>> {
        self.volumes.lock().expect("nobody panics with the volumes in hand")
    }
}

#[tonic::async_trait]
impl Identity for Driver {
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
        let service = csi::plugin_capability::Service {
            r#type: Service::ControllerService.into(),
        };
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities: vec![csi::PluginCapability {
                r#type: Some(csi::plugin_capability::Type::Service(service)),
            }],
        }))
    }

    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Controller for Driver {
    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        let rpc = csi::controller_service_capability::Rpc {
            r#type: Rpc::CreateDeleteVolume.into(),
        };
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities: vec![csi::ControllerServiceCapability {
                r#type: Some(csi::controller_service_capability::Type::Rpc(rpc)),
            }],
        }))
    }

    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() || request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("a volume needs a name and capabilities"));
        }
        let asked = request.capacity_range.map_or(0, |range| range.required_bytes);
        let id = self.new_id();
        fs::create_dir(self.data.join(&id)).map_err(failed)?;
        let volume = csi::Volume {
            volume_id: id.clone(),
            capacity_bytes: if asked == 0 { GIB } else { asked },
            ..Default::default()
        };
        self.volumes().insert(id, volume.clone());
        Ok(Response::new(csi::CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("which volume?"));
        }
        // A volume that is not there is deleted already.
        if self.volumes().remove(&id).is_some() {
            fs::remove_dir_all(self.data.join(&id)).map_err(failed)?;
        }
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() || request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("which volume, and which capabilities?"));
        }
        if !self.volumes().contains_key(&request.volume_id) {
            return Err(Status::not_found("no such volume"));
        }
        let confirmed = csi::validate_volume_capabilities_response::Confirmed {
            volume_capabilities: request.volume_capabilities,
            ..Default::default()
        };
        Ok(Response::new(csi::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(confirmed),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        Ok(Response::new(csi::NodeGetCapabilitiesResponse::default()))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.node.clone(),
            ..Default::default()
        }))
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() || request.target_path.is_empty() || request.volume_capability.is_none() {
            return Err(Status::invalid_argument("which volume, and where?"));
        }
        let source = self.data.join(&request.volume_id);
        if !source.is_dir() {
            return Err(Status::not_found("no such volume"));
        }
        fs::create_dir_all(&request.target_path).map_err(failed)?;
        run(
            "mount",
            &["--bind", &source.display().to_string(), &request.target_path],
        )?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() || request.target_path.is_empty() {
            return Err(Status::invalid_argument("which volume, and where?"));
        }
        run("umount", &[&request.target_path])?;
        fs::remove_dir(&request.target_path).map_err(failed)?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }
}

/// The value of an option.
fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = option("--endpoint").ok_or("--endpoint is missing")?;
    let driver = Driver {
        node: option("--node").ok_or("--node is missing")?,
        data: option("--data").ok_or("--data is missing")?.into(),
        volumes: Arc::default(),
    };
    fs::create_dir_all(&driver.data)?;
    let socket = Path::new(endpoint.trim_start_matches("unix://"));
    let _ = fs::remove_file(socket);
    Server::builder()
        .add_service(IdentityServer::new(driver.clone()))
        .add_service(ControllerServer::new(driver.clone()))
        .add_service(NodeServer::new(driver))
        .serve_with_incoming(UnixListenerStream::new(UnixListener::bind(socket)?))
        .await?;
    Ok(())
}
