//! What a driver says of itself, asked once before the checks: from it follows which of them apply.

use std::collections::BTreeSet;

use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use wavetank_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use wavetank_proto::csi::v1::plugin_capability::service::Type as PluginService;
use wavetank_proto::csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use wavetank_proto::csi::v1::{
    controller_service_capability, group_controller_service_capability, node_service_capability, plugin_capability,
};

use crate::call::{Side, Unary};
use crate::check::Need;
use crate::driver::UnderTest;
use crate::settings::Settings;

/// An attach limit up to which a check attaches one volume more than it allows.
pub(crate) const SMALL_LIMIT: i64 = 16;

/// What a driver says of itself.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The services it names.
    pub services: BTreeSet<i32>,
    /// Whether volumes grow in use.
    pub online: bool,
    /// Capabilities of the Controller service.
    pub controller: BTreeSet<i32>,
    /// Capabilities of the Node service.
    pub node: BTreeSet<i32>,
    /// Capabilities of the GroupController service.
    pub group: BTreeSet<i32>,
    /// What each node says of itself.
    pub nodes: Vec<csi::NodeGetInfoResponse>,
    /// It takes volumes with a file system.
    pub mount: bool,
    /// It takes raw block volumes.
    pub block: bool,
}

/// A driver that could not even be asked what it is.
#[derive(Debug, thiserror::Error)]
#[error("{method} was answered with {}: {message}", crate::lab::spell(*code))]
pub struct Unreachable {
    /// The call.
    pub method: &'static str,
    /// The code.
    pub code: Code,
    /// The text.
    pub message: String,
}

async fn ask<R: Unary>(
    driver: &dyn UnderTest,
    settings: &Settings,
    side: Side,
    mut request: R,
) -> Result<R::Answer, Status> {
    if let Some(secrets) = request.secrets() {
        secrets.extend(settings.secrets_of.get(R::METHOD).unwrap_or(&settings.secrets).clone());
    }
    let answer = Box::pin(request.send(driver.wire(side)));
    match futures::future::select(answer, driver.sleep(settings.call_limit)).await {
        futures::future::Either::Left((answer, _)) => answer,
        futures::future::Either::Right(_) => {
            let limit = settings.call_limit;
            Err(Status::deadline_exceeded(format!("no answer within {limit:?}")))
        }
    }
}

fn or_nothing<T: Default>(method: &'static str, answer: Result<T, Status>) -> Result<T, Unreachable> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(status) if status.code() == Code::Unimplemented => Ok(T::default()),
        Err(status) => Err(Unreachable {
            method,
            code: status.code(),
            message: status.message().to_owned(),
        }),
    }
}

impl Profile {
    /// Asks the driver what it is.
    ///
    /// # Errors
    /// [`Unreachable`] if one of the calls that every driver answers fails.
    pub async fn ask(driver: &dyn UnderTest, settings: &Settings) -> Result<Profile, Unreachable> {
        let main = Side::Controller;
        let info = ask(driver, settings, main, csi::GetPluginInfoRequest {}).await;
        let info = info.map_err(|status| Unreachable {
            method: "GetPluginInfo",
            code: status.code(),
            message: status.message().to_owned(),
        })?;
        let mut profile = Profile {
            name: info.name,
            version: info.vendor_version,
            ..Profile::default()
        };
        let plugin = ask(driver, settings, main, csi::GetPluginCapabilitiesRequest {}).await;
        profile.plugin(&or_nothing("GetPluginCapabilities", plugin)?);
        let controller = ask(driver, settings, main, csi::ControllerGetCapabilitiesRequest {}).await;
        let controller = or_nothing("ControllerGetCapabilities", controller)?;
        profile.controller = controller
            .capabilities
            .iter()
            .filter_map(|one| {
                let controller_service_capability::Type::Rpc(rpc) = one.r#type.as_ref()?;
                Some(rpc.r#type)
            })
            .collect();
        let group = ask(driver, settings, main, csi::GroupControllerGetCapabilitiesRequest {}).await;
        // A driver without the service may answer anything.
        profile.group = group
            .unwrap_or_default()
            .capabilities
            .iter()
            .filter_map(|one| {
                let group_controller_service_capability::Type::Rpc(rpc) = one.r#type.as_ref()?;
                Some(rpc.r#type)
            })
            .collect();
        let node = ask(driver, settings, Side::Node(0), csi::NodeGetCapabilitiesRequest {}).await;
        profile.node = or_nothing("NodeGetCapabilities", node)?
            .capabilities
            .iter()
            .filter_map(|one| {
                let node_service_capability::Type::Rpc(rpc) = one.r#type.as_ref()?;
                Some(rpc.r#type)
            })
            .collect();
        for node in 0..driver.nodes() {
            let info = ask(driver, settings, Side::Node(node), csi::NodeGetInfoRequest {}).await;
            profile.nodes.push(or_nothing("NodeGetInfo", info)?);
        }
        profile.forms(driver, settings).await;
        Ok(profile)
    }

    fn plugin(&mut self, answer: &csi::GetPluginCapabilitiesResponse) {
        for one in &answer.capabilities {
            match &one.r#type {
                Some(plugin_capability::Type::Service(service)) => {
                    self.services.insert(service.r#type);
                }
                Some(plugin_capability::Type::VolumeExpansion(expansion)) => {
                    self.online |= expansion.r#type == i32::from(Expansion::Online);
                }
                None => {}
            }
        }
    }

    /// Tries which kinds of volume it takes: no capability tells.
    async fn forms(&mut self, driver: &dyn UnderTest, settings: &Settings) {
        if !self.has(ControllerRpc::CreateDeleteVolume) {
            return;
        }
        for block in [false, true] {
            let request = csi::CreateVolumeRequest {
                name: format!("{}-tried-{}", settings.run, if block { "block" } else { "mount" }),
                capacity_range: Some(csi::CapacityRange {
                    required_bytes: settings.size,
                    limit_bytes: 0,
                }),
                volume_capabilities: vec![crate::lab::capability(settings, block, crate::lab::WRITER)],
                parameters: settings.parameters.clone(),
                ..csi::CreateVolumeRequest::default()
            };
            let made = ask(driver, settings, Side::Controller, request).await;
            let taken = match made {
                Ok(answer) => {
                    let volume_id = answer.volume.unwrap_or_default().volume_id;
                    let delete = csi::DeleteVolumeRequest {
                        volume_id,
                        ..csi::DeleteVolumeRequest::default()
                    };
                    // What stays is found by the checks of DeleteVolume.
                    let _ = ask(driver, settings, Side::Controller, delete).await;
                    true
                }
                // Other refusals are for the checks to report.
                Err(status) => !matches!(
                    status.code(),
                    Code::InvalidArgument | Code::Unimplemented | Code::FailedPrecondition | Code::OutOfRange
                ),
            };
            if block { self.block = taken } else { self.mount = taken }
        }
    }

    /// Has the Controller service this capability?
    pub fn has(&self, rpc: ControllerRpc) -> bool {
        self.controller.contains(&rpc.into())
    }

    /// Has the Node service this capability?
    pub fn node_has(&self, rpc: NodeRpc) -> bool {
        self.node.contains(&rpc.into())
    }

    /// Does it name this service?
    pub fn names(&self, service: PluginService) -> bool {
        self.services.contains(&service.into())
    }

    /// Why a need is not met, for people; `None` if it is.
    pub fn lacks(&self, need: Need, driver: &dyn UnderTest, settings: &Settings) -> Option<String> {
        let (met, why) = match need {
            Need::Volumes => (
                self.has(ControllerRpc::CreateDeleteVolume),
                "no capability CREATE_DELETE_VOLUME".to_owned(),
            ),
            Need::Controller(rpc) => (self.has(rpc), format!("no capability {}", rpc.as_str_name())),
            Need::Node(rpc) => (self.node_has(rpc), format!("no node capability {}", rpc.as_str_name())),
            Need::Group => (!self.group.is_empty(), "no GroupController service".to_owned()),
            Need::Metadata => (
                self.names(PluginService::SnapshotMetadataService),
                "no SnapshotMetadata service".to_owned(),
            ),
            Need::Topology => (
                self.names(PluginService::VolumeAccessibilityConstraints),
                "no VOLUME_ACCESSIBILITY_CONSTRAINTS".to_owned(),
            ),
            Need::Mount => (self.mount, "it takes no volumes with a file system".to_owned()),
            Need::Block => (self.block, "it takes no raw block volumes".to_owned()),
            Need::Contents => match driver.machine(0).sees_volumes() {
                Ok(()) => return None,
                Err(why) => (false, why),
            },
            Need::TwoNodes => (driver.nodes() > 1, "one node only".to_owned()),
            Need::Restart => match driver.can_restart() {
                Ok(()) => return None,
                Err(why) => (false, why),
            },
            Need::MutableParameters => (
                !settings.mutable_parameters.is_empty(),
                "no mutable parameters were named".to_owned(),
            ),
            Need::AttachLimit => {
                let most = self.nodes.first().map_or(0, |info| info.max_volumes_per_node);
                (
                    (1..=SMALL_LIMIT).contains(&most),
                    format!("the node reports no attach limit from 1 to {SMALL_LIMIT}"),
                )
            }
            Need::Ephemeral => (
                settings.ephemeral.is_some(),
                "inline ephemeral volumes were not asked for".to_owned(),
            ),
            Need::OnlineExpansion => (self.online, "volumes grow only while they are not in use".to_owned()),
        };
        (!met).then_some(why)
    }
}
