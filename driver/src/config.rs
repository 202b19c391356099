//! What a driver is told about itself, once, when it starts.
//!
//! The switches exist so that one driver can stand in for the many kinds there are: with and without attachment, with
//! and without staging, growing on the node or only in the storage system. Every instance of a driver gets the same
//! configuration; what differs from node to node is in [`crate::seat::NodeSeat`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::check;
use crate::pool::Provisioning;
use crate::units::{Bytes, FsKind, HostPath, Segments};

/// The configuration of a driver. Every key may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// The driver's name, as in `CSIDriver` and `StorageClass.provisioner`.
    pub name: String,
    /// What `GetPluginInfo` calls the vendor's version.
    pub version: String,

    /// Volumes are attached by the controller (`PUBLISH_UNPUBLISH_VOLUME`). Without it a node reaches for a volume
    /// itself when it stages it.
    pub attach: bool,
    /// Volumes are staged before they are published (`STAGE_UNSTAGE_VOLUME`). Without it publishing does both.
    pub stage: bool,
    /// Volumes are bound to a part of the topology (`VOLUME_ACCESSIBILITY_CONSTRAINTS`).
    pub topology: bool,
    /// When volumes may grow.
    pub expansion: Expansion,
    /// The node has its part in growing (`NodeExpandVolume`). Without it the file system grows when it is next
    /// staged.
    pub node_expansion: bool,
    /// Volumes can be copied from volumes (`CLONE_VOLUME`).
    pub clone: bool,
    /// Snapshots can be cut of volumes, listed, and made into volumes (`CREATE_DELETE_SNAPSHOT`, `LIST_SNAPSHOTS`).
    pub snapshots: bool,
    /// Snapshots of several volumes can be cut at one moment (the GroupController service). Needs `snapshots`.
    pub group_snapshots: bool,
    /// Which blocks a snapshot holds, and which differ from another's, can be asked (the SnapshotMetadata service).
    /// Needs `snapshots`.
    pub snapshot_metadata: bool,
    /// `ControllerModifyVolume` works (`MODIFY_VOLUME`).
    pub modify: bool,
    /// `ListVolumes` works, with the nodes to which each volume is published.
    pub list: bool,
    /// `GetCapacity` works.
    pub capacity: bool,
    /// `NodeGetVolumeStats` works.
    pub stats: bool,
    /// Volumes report their condition.
    pub volume_condition: bool,
    /// Volumes can be published read-only (`PUBLISH_READONLY`).
    pub publish_readonly: bool,
    /// The modes `SINGLE_NODE_SINGLE_WRITER` and `SINGLE_NODE_MULTI_WRITER` are told apart; `SINGLE_NODE_WRITER` then
    /// means one target only. Without it, `SINGLE_NODE_WRITER` allows several targets on its node, as clusters expect.
    pub single_node_multi_writer: bool,
    /// A caller may say to which group everything in a mounted volume is to belong (`VOLUME_MOUNT_GROUP`).
    pub volume_mount_group: bool,
    /// Several nodes may mount one file system: the pool makes it (see `NewVolume::shared_fs`). Raw block volumes may
    /// be shared in any case.
    pub shared_file_systems: bool,

    /// Volumes that one node may have attached; 0: no limit.
    pub max_volumes_per_node: u32,
    /// The size of a volume for which none is asked.
    pub default_size: Bytes,
    /// Sizes are multiples of this.
    pub allocation_unit: Bytes,
    /// The storage types, by the name used in the parameter `type`.
    pub types: BTreeMap<String, StorageType>,
    /// The type of a volume for which none is asked, or an unknown one if `strictParameters` is off.
    pub default_type: String,
    /// Refuse unknown parameter keys and unknown types. Classes found in the wild carry many of both, so this is off.
    pub strict_parameters: bool,
    /// Mutable parameters that this driver takes; each is a positive whole number.
    pub mutable_parameters: BTreeSet<String>,
    /// Hand the parameters on as the volume's context, as some drivers do.
    pub context_from_parameters: bool,
    /// The file system of a volume for which none is asked.
    pub default_fs: FsKind,

    /// Directories below which staging and target paths must lie.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub roots: Vec<HostPath>,
    /// Where the driver mounts volumes that it must stage on its own account.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub private_root: HostPath,
}

/// When volumes may grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Expansion {
    /// Never.
    None,
    /// Only while no node has the volume.
    Offline,
    /// At any time.
    #[default]
    Online,
}

/// One kind of storage that the driver offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StorageType {
    /// How room is taken.
    pub provisioning: Provisioning,
    /// What volumes hold reaches the storage system encrypted: each node puts an encryption layer between device and file
    /// system, with a key from the secrets of the call that stages (see [`crate::key::KEY_SECRET`]).
    pub encrypted: bool,
    /// The smallest volume.
    pub min_size: Bytes,
    /// The largest volume.
    pub max_size: Bytes,
}

impl Default for StorageType {
    fn default() -> Self {
        Self {
            provisioning: Provisioning::Thin,
            encrypted: false,
            min_size: Bytes::MI,
            max_size: Bytes::TI.times(64),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "csi.wavetank.dev".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            attach: true,
            stage: true,
            topology: true,
            expansion: Expansion::Online,
            node_expansion: true,
            clone: true,
            snapshots: true,
            group_snapshots: true,
            snapshot_metadata: true,
            modify: true,
            list: true,
            capacity: true,
            stats: true,
            volume_condition: true,
            publish_readonly: true,
            single_node_multi_writer: true,
            volume_mount_group: true,
            shared_file_systems: true,
            max_volumes_per_node: 0,
            default_size: Bytes::GI,
            allocation_unit: Bytes::MI,
            types: BTreeMap::from([("standard".to_owned(), StorageType::default())]),
            default_type: "standard".to_owned(),
            strict_parameters: false,
            mutable_parameters: BTreeSet::from(["iops".to_owned()]),
            context_from_parameters: false,
            default_fs: FsKind::Ext4,
            roots: vec![HostPath::fixed("/var/lib/kubelet")],
            private_root: HostPath::fixed("/var/lib/wavetank"),
        }
    }
}

/// A configuration with which no driver can start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// CSI's rules for names of drivers.
    #[error("`{0}` is no name for a driver: at most 63 letters, digits, `-` and `.`, alphanumeric at both ends")]
    Name(String),
    /// The type of last resort is not among the types.
    #[error("defaultType `{0}` is not among the types")]
    DefaultType(String),
    /// A type whose smallest volume is larger than its largest, or has no size.
    #[error("type `{0}` allows no size: minSize must be above 0 and at most maxSize")]
    TypeSizes(String),
    /// A service that builds on snapshots, without them.
    #[error("{0} needs snapshots")]
    NeedsSnapshots(&'static str),
    /// Nothing can be a multiple of nothing.
    #[error("allocationUnit must be above 0")]
    AllocationUnit,
    /// No path could ever be accepted.
    #[error("roots must name at least one directory")]
    NoRoots,
    /// The node's name is empty or too long.
    #[error("`{0}` is no node id: 1 to 256 bytes without control characters")]
    NodeId(String),
    /// CSI's rules for topology segments.
    #[error("topology segment `{key}={value}`: {why}")]
    Segment {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The rule it breaks.
        why: String,
    },
}

impl Config {
    /// Can a driver start with it?
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !check::is_driver_name(&self.name) {
            return Err(ConfigError::Name(self.name.clone()));
        }
        if !self.types.contains_key(&self.default_type) {
            return Err(ConfigError::DefaultType(self.default_type.clone()));
        }
        for (name, kind) in &self.types {
            if kind.min_size.0 == 0 || kind.min_size > kind.max_size {
                return Err(ConfigError::TypeSizes(name.clone()));
            }
        }
        let builds_on_snapshots = [
            (self.group_snapshots, "groupSnapshots"),
            (self.snapshot_metadata, "snapshotMetadata"),
        ];
        if let Some((_, key)) = builds_on_snapshots.iter().find(|(on, _)| *on && !self.snapshots) {
            return Err(ConfigError::NeedsSnapshots(key));
        }
        if self.allocation_unit.0 == 0 {
            return Err(ConfigError::AllocationUnit);
        }
        if self.roots.is_empty() {
            return Err(ConfigError::NoRoots);
        }
        Ok(())
    }

    /// Are these segments what `NodeGetInfo` may report?
    ///
    /// # Errors
    /// The first segment that breaks a rule of CSI.
    pub fn validate_segments(segments: &Segments) -> Result<(), ConfigError> {
        for (key, value) in segments {
            if let Err(why) = check::segment(key, value) {
                return Err(ConfigError::Segment {
                    key: key.clone(),
                    value: value.clone(),
                    why,
                });
            }
        }
        Ok(())
    }

    /// Is any storage type encrypted?
    pub(crate) fn encrypts(&self) -> bool {
        self.types.values().any(|kind| kind.encrypted)
    }

    /// The storage type called `name`; the default one for an unknown name.
    pub(crate) fn storage_type(&self, name: &str) -> &StorageType {
        self.types
            .get(name)
            .or_else(|| self.types.get(&self.default_type))
            .expect("validate() saw the default type among the types")
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError};
    use crate::units::Bytes;

    #[test]
    fn an_empty_file_is_a_whole_configuration() {
        let config: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(config, Config::default());
        config.validate().unwrap();
    }

    #[test]
    fn keys_are_read_as_kubernetes_spells_them() {
        let config: Config =
            serde_json::from_str(r#"{"nodeExpansion": false, "defaultSize": "2Gi", "roots": ["/tmp"]}"#).unwrap();
        assert!(!config.node_expansion);
        assert_eq!(config.default_size, Bytes::gi(2));
        let error = serde_json::from_str::<Config>(r#"{"nodeExpand": false}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `nodeExpand`"), "{error}");
    }

    #[test]
    fn what_cannot_work_is_refused_at_the_start() {
        let wrong = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert_eq!(wrong(|c| c.name = "-x".into()), ConfigError::Name("-x".into()));
        assert_eq!(
            wrong(|c| c.default_type = "gold".into()),
            ConfigError::DefaultType("gold".into())
        );
        assert_eq!(wrong(|c| c.allocation_unit = Bytes(0)), ConfigError::AllocationUnit);
        assert_eq!(wrong(|c| c.roots.clear()), ConfigError::NoRoots);
        assert_eq!(
            wrong(|c| c.types.get_mut("standard").unwrap().min_size = Bytes(0)),
            ConfigError::TypeSizes("standard".into())
        );
    }
}
