//! The Identity service: who the driver is, what it can do, and whether it is well.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::identity_server;
use wavetank_proto::csi::v1::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};

use crate::config::{Config, Expansion};
use crate::ledger::Ledger;
use crate::pool::Pool;

/// The Identity service of a driver.
#[derive(Clone)]
pub struct Identity {
    config: Arc<Config>,
    ledger: Arc<Ledger>,
    pool: Arc<dyn Pool>,
}

impl Identity {
    pub(crate) fn new(config: Arc<Config>, ledger: Arc<Ledger>, pool: Arc<dyn Pool>) -> Self {
        Self { config, ledger, pool }
    }

    #[cfg(test)]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: self.config.name.clone(),
            vendor_version: self.config.version.clone(),
            manifest: BTreeMap::new(),
        }))
    }

    /// The same for every role: CSI wants one answer from all instances of one version.
    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        let service = |kind: service::Type| Type::Service(Service { r#type: kind.into() });
        let mut types = vec![service(service::Type::ControllerService)];
        if self.config.group_snapshots {
            types.push(service(service::Type::GroupControllerService));
        }
        if self.config.snapshot_metadata {
            types.push(service(service::Type::SnapshotMetadataService));
        }
        if self.config.topology {
            types.push(service(service::Type::VolumeAccessibilityConstraints));
        }
        let expansion = match self.config.expansion {
            Expansion::None => None,
            Expansion::Online if self.config.node_expansion => Some(volume_expansion::Type::Online),
            Expansion::Online | Expansion::Offline => Some(volume_expansion::Type::Offline),
        };
        types.extend(expansion.map(|kind| Type::VolumeExpansion(VolumeExpansion { r#type: kind.into() })));
        let capabilities = types
            .into_iter()
            .map(|kind| csi::PluginCapability { r#type: Some(kind) })
            .collect();
        Ok(Response::new(csi::GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Waits for no operation: it looks at the ledger's state, reads its disk anew if a write failed, and asks the pool
    /// whether it can be reached.
    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        if let Err(status) = self.ledger.mend().await {
            return Err(Status::failed_precondition(status.message()));
        }
        if let Err(error) = self.pool.health().await {
            return Err(Status::failed_precondition(format!(
                "the storage system cannot be reached: {error}"
            )));
        }
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}
