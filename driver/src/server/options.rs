//! The options of the process, and what they make of the driver's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::config::{Config, StorageType};
use crate::linux::{Reach, StoreShape};
use crate::pool::Provisioning;
use crate::units::{Bytes, FsKind, HostPath, NodeId, Segments};

/// The storage types.
const TYPES: [&str; 3] = ["thin", "thick", "encrypted"];
/// The topology key that names the node, if no topology is given.
const NODE_SEGMENT: &str = "topology.wavetank.dev/node";

/// A CSI driver for local volumes: image files shown as loop devices.
///
/// It serves Identity, Controller, GroupController, SnapshotMetadata and Node on one socket, for one node. Run one on
/// each node, with a provisioner in node-deployment mode beside it.
///
/// A class chooses the storage type by its parameter `type`: `thin` (the default) takes room when it is written, `thick` at
/// once, `encrypted` is thin and keeps LUKS2 on each volume, which needs `cryptsetup`, the kernel's dm-crypt, and a node
/// stage secret with `encryptionPassphrase`.
#[derive(Clone, Debug, Parser)]
#[command(name = "wavetank-driver", version)]
pub struct Options {
    /// Where to serve: `unix:///path/to.sock`.
    #[arg(long, env = "CSI_ENDPOINT")]
    pub endpoint: String,

    /// The node's id, as Kubernetes names the node.
    #[arg(long, env = "NODE_ID")]
    pub node_id: String,

    /// Where volumes lie: `loop` keeps images below the state directory and needs root; `memory` keeps everything in
    /// this process and loses it with it; `array` keeps images below the controller's state directory, plugs them into
    /// nodes with a command, and finds them there as disks.
    #[arg(long, value_enum, default_value_t = Backend::Loop)]
    pub backend: Backend,

    /// What this process serves. `array` needs one of the two.
    #[arg(long, value_enum, default_value_t = Role::Both)]
    pub role: Role,

    /// What the controller of an `array` runs to plug a volume into a node and to take it away, words separated by spaces:
    /// `COMMAND plug NODE SERIAL IMAGE rw|ro`, `COMMAND unplug NODE SERIAL`, `COMMAND resize NODE SERIAL BYTES`.
    #[arg(long, value_name = "COMMAND")]
    pub plug: Option<String>,

    /// Holds the ledger and, for `loop`, the images.
    #[arg(long, default_value = "/var/lib/wavetank", env = "STATE_DIR")]
    pub state_dir: PathBuf,

    /// The driver's name.
    #[arg(long, default_value = "csi.wavetank.dev", env = "DRIVER_NAME")]
    pub driver_name: String,

    /// A directory below which staging and target paths must lie. May be given more than once.
    #[arg(long = "root", default_value = "/var/lib/kubelet", value_parser = parse_path)]
    pub roots: Vec<HostPath>,

    /// A segment of the topology, `key=value`. May be given more than once. Without it, the node is its own segment.
    #[arg(long = "topology", value_parser = parse_pair)]
    pub topology: Vec<(String, String)>,

    /// Volumes that the node may have attached; 0: no limit.
    #[arg(long, default_value_t = 0)]
    pub max_volumes_per_node: u32,

    /// The file system of volumes for which none is asked: ext4, xfs or btrfs.
    #[arg(long, default_value_t = FsKind::Ext4)]
    pub default_fs: FsKind,

    /// Bytes that all volumes together may be promised (`500Gi`). Default: what the state directory's file system has.
    #[arg(long)]
    pub capacity: Option<Bytes>,

    /// The most that volumes of a storage type (thin, thick, encrypted) may be promised, `type=size` (`thick=100Gi`). May
    /// be given more than once.
    #[arg(long = "type-capacity", value_parser = parse_limit)]
    pub type_capacity: Vec<(String, Bytes)>,

    /// Appends one line of JSON for every call that may change something.
    #[arg(long)]
    pub audit_log: Option<PathBuf>,

    /// Serves Prometheus metrics on this address (`127.0.0.1:9808`).
    #[arg(long)]
    pub metrics_address: Option<SocketAddr>,

    /// The least important lines that are logged: error, warn, info, debug or trace.
    #[arg(long, default_value = "info", env = "LOG_LEVEL")]
    pub log_level: tracing::Level,
}

/// Where volumes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Image files and loop devices.
    Loop,
    /// This process.
    Memory,
    /// Image files in one place, plugged into nodes as whole disks.
    Array,
}

/// What a process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The sidecars and kubelet.
    Both,
    /// The sidecars.
    Controller,
    /// Kubelet.
    Node,
}

/// An option that clap cannot judge alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    /// Not a unix socket.
    #[error("--endpoint `{0}` is no unix socket: write unix:///path/to.sock")]
    Endpoint(String),
    /// An array without a role or a command.
    #[error("--backend array needs --role controller with --plug, or --role node")]
    Array,
    /// A type that the driver does not have.
    #[error("--type-capacity names `{0}`: use thin, thick or encrypted")]
    Type(String),
    /// A path with `.`, `..` or the like.
    #[error("--state-dir must be an absolute, plain path")]
    StateDir,
}

fn parse_path(text: &str) -> Result<HostPath, String> {
    HostPath::parse(text).map_err(|why| why.to_string())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write key=value")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn parse_limit(text: &str) -> Result<(String, Bytes), String> {
    let (name, size) = parse_pair(text)?;
    let size = size.parse::<Bytes>().map_err(|why| why.to_string())?;
    Ok((name, size))
}

impl Options {
    /// The socket's path.
    ///
    /// # Errors
    /// The endpoint is no unix socket.
    pub fn socket(&self) -> Result<PathBuf, BadOption> {
        let path = self
            .endpoint
            .strip_prefix("unix://")
            .or_else(|| self.endpoint.strip_prefix("unix:"));
        let path = path.filter(|path| path.starts_with('/'));
        path.map(PathBuf::from)
            .ok_or_else(|| BadOption::Endpoint(self.endpoint.clone()))
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        NodeId::new(&self.node_id)
    }

    /// Its place in the topology.
    pub fn segments(&self) -> Segments {
        if self.topology.is_empty() {
            return Segments::from([(NODE_SEGMENT.to_owned(), self.node_id.clone())]);
        }
        self.topology.iter().cloned().collect()
    }

    /// The driver's configuration.
    ///
    /// # Errors
    /// An option that makes no sense.
    pub fn config(&self) -> Result<Config, BadOption> {
        let state = self.state_dir.to_str().and_then(|text| HostPath::parse(text).ok());
        let private = state
            .and_then(|state| state.join("private").ok())
            .ok_or(BadOption::StateDir)?;
        let kind = |provisioning| StorageType {
            provisioning,
            ..StorageType::default()
        };
        Ok(Config {
            name: self.driver_name.clone(),
            types: BTreeMap::from([
                ("thin".to_owned(), kind(Provisioning::Thin)),
                ("thick".to_owned(), kind(Provisioning::Thick)),
                (
                    "encrypted".to_owned(),
                    StorageType {
                        encrypted: true,
                        ..kind(Provisioning::Thin)
                    },
                ),
            ]),
            default_type: "thin".to_owned(),
            strict_parameters: true,
            // The node is the only one that reaches its images, so no file system is ever shared.
            shared_file_systems: self.backend == Backend::Memory,
            max_volumes_per_node: self.max_volumes_per_node,
            // An array is reached from everywhere.
            topology: self.backend != Backend::Array,
            default_fs: self.default_fs,
            roots: self.roots.clone(),
            private_root: private,
            ..Config::default()
        })
    }

    fn kinds(&self) -> Result<BTreeMap<String, Option<Bytes>>, BadOption> {
        let mut kinds: BTreeMap<String, Option<Bytes>> = TYPES.iter().map(|name| ((*name).to_owned(), None)).collect();
        for (name, limit) in &self.type_capacity {
            let kind = kinds.get_mut(name).ok_or_else(|| BadOption::Type(name.clone()))?;
            *kind = Some(*limit);
        }
        Ok(kinds)
    }

    /// What the store of images is told.
    ///
    /// # Errors
    /// An option that makes no sense.
    pub fn store_shape(&self) -> Result<StoreShape, BadOption> {
        Ok(StoreShape {
            root: self.state_dir.clone(),
            node: self.node(),
            segments: if self.backend == Backend::Array {
                Segments::new()
            } else {
                self.segments()
            },
            reach: self.reach()?,
            limit: self.capacity,
            kinds: self.kinds()?,
        })
    }

    fn reach(&self) -> Result<Reach, BadOption> {
        match (self.backend, self.role, &self.plug) {
            (Backend::Loop | Backend::Memory, _, _) => Ok(Reach::Own),
            (Backend::Array, Role::Controller, Some(plug)) => {
                Ok(Reach::Array(plug.split_whitespace().map(str::to_owned).collect()))
            }
            (Backend::Array, Role::Node, None) => Ok(Reach::Plugged),
            (Backend::Array, _, _) => Err(BadOption::Array),
        }
    }

    /// The room of the memory backend, for each type.
    pub fn memory_room(&self) -> BTreeMap<String, Bytes> {
        let whole = self.capacity.unwrap_or(Bytes::TI);
        let kinds = self.kinds().unwrap_or_default();
        kinds
            .into_iter()
            .map(|(name, limit)| (name, limit.unwrap_or(whole)))
            .collect()
    }

    /// Starts the log: one line of JSON for each event, to standard error.
    pub fn log(&self) {
        let log = tracing_subscriber::fmt()
            .json()
            .with_max_level(self.log_level)
            .with_writer(std::io::stderr);
        // An error means that the process logs already.
        let _ = log.try_init();
    }
}
