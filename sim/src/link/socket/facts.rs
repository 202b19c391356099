//! What a driver says of itself: its name, its capabilities, its place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tonic::transport::Channel;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_client::ControllerClient;
use wavetank_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use wavetank_proto::csi::v1::identity_client::IdentityClient;
use wavetank_proto::csi::v1::node_client::NodeClient;
use wavetank_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use wavetank_proto::csi::v1::plugin_capability::service::Type as Service;
use wavetank_proto::csi::v1::{controller_service_capability, node_service_capability, plugin_capability};

use super::Outside;
use super::process::Process;
use super::run::Run;

/// What a driver said when it was asked once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The services that it offers, e.g. `CONTROLLER_SERVICE`.
    pub plugin: BTreeSet<String>,
    /// What its controller can do, e.g. `CREATE_DELETE_VOLUME`.
    pub controller: BTreeSet<String>,
    /// What its node can do, e.g. `STAGE_UNSTAGE_VOLUME`.
    pub node: BTreeSet<String>,
    /// The node's id, when it was told `node-1`.
    pub node_id: String,
    /// The node's place.
    pub topology: BTreeMap<String, String>,
    /// The most volumes of a node; 0: no limit.
    pub max_volumes: i64,
}

/// Starts the driver on `node-1`, asks, and ends it.
pub(super) fn ask(outside: &Arc<Outside>) -> Result<Facts, String> {
    let run = outside.begin();
    let found = ask_run(&run, outside.profile());
    run.end();
    let found = found.map_err(|why| run.hung().unwrap_or(why));
    run.clear();
    found
}

fn ask_run(run: &Arc<Run>, profile: &super::Profile) -> Result<Facts, String> {
    let mut facts = Facts::default();
    if let Some(shape) = &profile.combined {
        let process = started(run, "node-1", shape, profile)?;
        process.threads().block_on(identity(&process, &mut facts))?;
        if facts.plugin.contains(Service::ControllerService.as_str_name()) {
            process.threads().block_on(controller(&process, &mut facts))?;
        }
        process.threads().block_on(node(&process, &mut facts))?;
        return Ok(facts);
    }
    if let Some(shape) = &profile.controller {
        let process = started(run, "controller", shape, profile)?;
        process.threads().block_on(identity(&process, &mut facts))?;
        process.threads().block_on(controller(&process, &mut facts))?;
    }
    if let Some(shape) = &profile.node {
        let process = started(run, "node-1", shape, profile)?;
        process.threads().block_on(node(&process, &mut facts))?;
    }
    Ok(facts)
}

fn started(
    run: &Arc<Run>,
    node: &str,
    shape: &super::ProcessShape,
    profile: &super::Profile,
) -> Result<Arc<Process>, String> {
    let process = run.process(node, shape, &profile.name, false);
    process.start()?;
    Ok(process)
}

fn channel(process: &Process) -> Result<Channel, String> {
    let life = process.life().ok_or("it is gone")?;
    Ok(life.channel)
}

fn failed(method: &'static str) -> impl Fn(tonic::Status) -> String {
    move |status| format!("{method} answered {:?}: {}", status.code(), status.message())
}

async fn identity(process: &Process, facts: &mut Facts) -> Result<(), String> {
    let mut client = IdentityClient::new(channel(process)?);
    let info = client.get_plugin_info(csi::GetPluginInfoRequest {}).await;
    let info = info.map_err(failed("GetPluginInfo"))?.into_inner();
    (facts.name, facts.version) = (info.name, info.vendor_version);
    let found = client
        .get_plugin_capabilities(csi::GetPluginCapabilitiesRequest {})
        .await;
    let found = found.map_err(failed("GetPluginCapabilities"))?.into_inner();
    for capability in found.capabilities {
        if let Some(plugin_capability::Type::Service(service)) = capability.r#type {
            facts.plugin.insert(service.r#type().as_str_name().to_owned());
        }
    }
    Ok(())
}

async fn controller(process: &Process, facts: &mut Facts) -> Result<(), String> {
    let mut client = ControllerClient::new(channel(process)?);
    let found = client
        .controller_get_capabilities(csi::ControllerGetCapabilitiesRequest {})
        .await;
    let found = found.map_err(failed("ControllerGetCapabilities"))?.into_inner();
    for capability in found.capabilities {
        if let Some(controller_service_capability::Type::Rpc(rpc)) = capability.r#type {
            facts.controller.insert(rpc.r#type().as_str_name().to_owned());
        }
    }
    facts.controller.remove(ControllerRpc::Unknown.as_str_name());
    Ok(())
}

async fn node(process: &Process, facts: &mut Facts) -> Result<(), String> {
    let mut client = NodeClient::new(channel(process)?);
    let found = client.node_get_capabilities(csi::NodeGetCapabilitiesRequest {}).await;
    let found = found.map_err(failed("NodeGetCapabilities"))?.into_inner();
    for capability in found.capabilities {
        if let Some(node_service_capability::Type::Rpc(rpc)) = capability.r#type {
            facts.node.insert(rpc.r#type().as_str_name().to_owned());
        }
    }
    facts.node.remove(NodeRpc::Unknown.as_str_name());
    let info = client.node_get_info(csi::NodeGetInfoRequest {}).await;
    let info = info.map_err(failed("NodeGetInfo"))?.into_inner();
    facts.node_id = info.node_id;
    facts.max_volumes = info.max_volumes_per_node;
    facts.topology = info
        .accessible_topology
        .map(|topology| topology.segments.into_iter().collect())
        .unwrap_or_default();
    Ok(())
}

impl Facts {
    /// The capabilities as lines, for people.
    pub fn lines(&self) -> Vec<String> {
        let listed = |what: &str, set: &BTreeSet<String>| {
            let words: Vec<&str> = set.iter().map(String::as_str).collect();
            format!(
                "{what}: {}",
                if words.is_empty() {
                    "none".to_owned()
                } else {
                    words.join(", ")
                }
            )
        };
        vec![
            listed("services", &self.plugin),
            listed("controller", &self.controller),
            listed("node", &self.node),
        ]
    }
}

/// A path for things of this process in the system's directory for passing things.
pub fn scratch(name: &str) -> std::path::PathBuf {
    let root = std::env::temp_dir();
    // Drivers refuse paths with links in them.
    let root = root.canonicalize().unwrap_or(root);
    Path::new(&root).join(format!("wavetank-{}-{name}", std::process::id()))
}
