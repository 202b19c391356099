//! The reference CSI driver of the wave tank.
//!
//! It knows the wire (`wavetank-proto`) and three traits: [`Host`], what a node does to its machine; [`Pool`], the
//! storage system behind it; [`Runtime`], tasks and time. It never learns whether these are modelled or real.

pub mod host;
pub mod pool;
pub mod runtime;
pub mod units;

pub use host::{Host, HostError, HostErrorKind, HostResult};
pub use pool::{Pool, PoolError, PoolErrorKind, PoolResult};
pub use runtime::{Disk, Runtime};
pub use units::{Access, Bytes, DevicePath, FsKind, HostPath, NodeId, PublishContext, Segments, SnapshotId, VolumeId};
