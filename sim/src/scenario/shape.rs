//! The shape of a cluster: its nodes, its drivers with their sidecars, and the flags of everything that runs in it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::api::storage::v1::CSIDriverSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use wavetank_driver::config::Config;

use super::flags::{
    ApiServerFlags, AttacherFlags, ControllerManagerFlags, KubeletFlags, ProvisionerFlags, RegistrarFlags,
    ResizerFlags, SchedulerFlags, SnapshotControllerFlags, SnapshotterFlags,
};

/// The driver of a cluster that names none.
pub const DEFAULT_DRIVER: &str = "csi.wavetank.dev";

/// The most nodes of a cluster, as Kubernetes itself has it.
pub const MAX_NODES: u32 = 5000;

/// The cluster that a scenario is played in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cluster {
    /// How many nodes (`node-1`, `node-2` …), or a list of them. Three if left out.
    #[serde(deserialize_with = "nodes")]
    #[schemars(with = "NodesSpelling")]
    pub nodes: Vec<NodeShape>,
    /// The drivers, each with its own sidecars. One named `csi.wavetank.dev` if left out.
    pub drivers: Vec<DriverShape>,
    /// Flags of every kubelet.
    pub kubelet: KubeletFlags,
    /// Flags of the controller manager.
    pub controller_manager: ControllerManagerFlags,
    /// Flags of the scheduler.
    pub scheduler: SchedulerFlags,
    /// Flags and latencies of the API server.
    pub api_server: ApiServerFlags,
    /// Flags of the snapshot controller, or `false` for a cluster without.
    #[serde(with = "switched")]
    #[schemars(with = "Switched<SnapshotControllerFlags>")]
    pub snapshot_controller: Option<SnapshotControllerFlags>,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            nodes: numbered(3),
            drivers: vec![DriverShape::named(DEFAULT_DRIVER)],
            kubelet: KubeletFlags::default(),
            controller_manager: ControllerManagerFlags::default(),
            scheduler: SchedulerFlags::default(),
            api_server: ApiServerFlags::default(),
            snapshot_controller: Some(SnapshotControllerFlags::default()),
        }
    }
}

impl Cluster {
    /// The driver of this name.
    pub fn driver(&self, name: &str) -> Option<&DriverShape> {
        self.drivers.iter().find(|driver| driver.name == name)
    }

    /// The only driver, if there is exactly one.
    pub fn only_driver(&self) -> Option<&DriverShape> {
        match &self.drivers[..] {
            [driver] => Some(driver),
            _ => None,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Nodes")]
enum NodesSpelling {
    Count(#[schemars(range(min = 1, max = 5000))] u32),
    List(#[schemars(length(min = 1))] Vec<NodeShape>),
}

fn nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeShape>, D::Error> {
    Ok(match NodesSpelling::deserialize(deserializer)? {
        NodesSpelling::Count(count) => numbered(count),
        NodesSpelling::List(nodes) => nodes,
    })
}

/// `node-1` to `node-<count>`.
pub(crate) fn numbered(count: u32) -> Vec<NodeShape> {
    (1..=count.min(MAX_NODES))
        .map(|n| NodeShape::named(&format!("node-{n}")))
        .collect()
}

/// A Kubernetes node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeShape {
    /// Its name.
    #[schemars(extend("format" = "dns-name"))]
    pub name: String,
    /// Labels beside those that every node has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where the drivers say that the node is: the segments that NodeGetInfo answers. They become labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topology: BTreeMap<String, String>,
    /// Taints from the beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// How many volumes of each driver fit: `max_volumes_per_node` of NodeGetInfo. No limit if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_volumes: Option<u32>,
}

impl NodeShape {
    /// A node with nothing but a name.
    pub fn named(name: &str) -> NodeShape {
        NodeShape {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            topology: BTreeMap::new(),
            taints: Vec::new(),
            max_volumes: None,
        }
    }
}

/// The driver's configuration without its name, which the shape gives.
struct Options;

impl JsonSchema for Options {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DriverOptions".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Config::json_schema(generator);
        if let Some(properties) = schema
            .get_mut("properties")
            .and_then(|properties| properties.as_object_mut())
        {
            properties.remove("name");
        }
        schema
    }
}

/// A CSI driver in the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DriverShape {
    /// Its name, as GetPluginInfo answers it.
    #[schemars(extend("format" = "dns-name"))]
    pub name: String,
    /// Options of the reference driver. Its name is the one above.
    #[serde(default)]
    #[schemars(with = "Options")]
    pub options: Config,
    /// Its sidecars.
    #[serde(default)]
    pub sidecars: Sidecars,
    /// What its CSIDriver object says beyond the defaults. A CSIDriver among the manifests replaces the object altogether.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi_driver: Option<CSIDriverSpec>,
}

impl DriverShape {
    /// A driver with all sidecars and every default.
    pub fn named(name: &str) -> DriverShape {
        DriverShape {
            name: name.to_owned(),
            options: Config {
                name: name.to_owned(),
                ..Config::default()
            },
            sidecars: Sidecars::default(),
            csi_driver: None,
        }
    }
}

/// The sidecars of a driver: their flags, or `false` for one that is not deployed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sidecars {
    /// The external-provisioner.
    #[serde(with = "switched")]
    #[schemars(with = "Switched<ProvisionerFlags>")]
    pub provisioner: Option<ProvisionerFlags>,
    /// The external-attacher.
    #[serde(with = "switched")]
    #[schemars(with = "Switched<AttacherFlags>")]
    pub attacher: Option<AttacherFlags>,
    /// The external-resizer.
    #[serde(with = "switched")]
    #[schemars(with = "Switched<ResizerFlags>")]
    pub resizer: Option<ResizerFlags>,
    /// The csi-snapshotter.
    #[serde(with = "switched")]
    #[schemars(with = "Switched<SnapshotterFlags>")]
    pub snapshotter: Option<SnapshotterFlags>,
    /// The node-driver-registrar, one on each node.
    #[serde(with = "switched")]
    #[schemars(with = "Switched<RegistrarFlags>")]
    pub registrar: Option<RegistrarFlags>,
}

impl Default for Sidecars {
    fn default() -> Sidecars {
        Sidecars {
            provisioner: Some(ProvisionerFlags::default()),
            attacher: Some(AttacherFlags::default()),
            resizer: Some(ResizerFlags::default()),
            snapshotter: Some(SnapshotterFlags::default()),
            registrar: Some(RegistrarFlags::default()),
        }
    }
}

/// The flags of a process, or whether it is there at all.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "{T}OrSwitch")]
enum Switched<T> {
    There(bool),
    Flags(T),
}

mod switched {
    //! `true` or flags for a process that is there, `false` for one that is not.

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Switched;

    pub(super) fn serialize<T: Serialize, S: Serializer>(flags: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match flags {
            Some(flags) => flags.serialize(serializer),
            None => serializer.serialize_bool(false),
        }
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(match Switched::deserialize(deserializer)? {
            Switched::There(there) => there.then(T::default),
            Switched::Flags(flags) => Some(flags),
        })
    }
}
