//! The reference CSI driver of the wave tank.
//!
//! It knows the wire (`wavetank-proto`) and three traits: [`Host`], what a node does to its machine; [`Pool`], the
//! storage system behind it; [`Runtime`], tasks and time. It never learns whether these are modelled or real.

//!
//! [`Driver::open`] starts one process of it: see [`seat`].

mod check;
pub mod config;
pub mod controller;
mod gate;
pub mod host;
pub mod identity;
pub mod key;
pub mod ledger;
#[cfg(all(feature = "linux", target_os = "linux"))]
pub mod linux;
#[cfg(all(feature = "server", target_os = "linux"))]
pub mod memory;
pub mod node;
pub mod note;
pub mod pool;
pub mod quirk;
mod records;
mod refuse;
pub mod runtime;
pub mod seat;
#[cfg(all(feature = "server", target_os = "linux"))]
pub mod server;
#[cfg(test)]
mod tests;
pub mod units;

pub use config::{Config, ConfigError, Expansion, StorageType};

pub use key::Key;

pub use host::{Host, HostError, HostErrorKind, HostResult};
pub use pool::{Pool, PoolError, PoolErrorKind, PoolResult};
pub use quirk::Quirk;
pub use runtime::{Disk, Runtime};
pub use seat::{Driver, NodeSeat, OpenError, Seat};
pub use units::{
    Access, Bytes, DevicePath, FsKind, GroupId, HostPath, NodeId, PublishContext, Segments, SnapshotId, VolumeId,
};
