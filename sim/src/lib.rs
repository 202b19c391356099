//! wavetank: a deterministic Kubernetes storage cluster around a real CSI driver.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod conform;
pub mod control;
pub mod controllers;
pub mod explore;
pub mod faults;
pub mod host;
pub mod kubelet;
pub mod link;
pub mod mutants;
pub mod oracles;
pub mod page;
pub mod play;
pub mod release;
pub mod runtime;
pub mod scenario;
pub mod sidecars;
pub mod storm;
pub mod trace;

/// What a driver of one's own needs to sit in the tank: the machine, the storage system and the runtime that its seat gives it.
pub mod seat {
    pub use wavetank_driver::host::{Host, HostError, HostErrorKind, Mount, MountEntry, NewFs, PathKind, Probe};
    pub use wavetank_driver::pool::{NewVolume, Pool, PoolError, PoolErrorKind, PoolVolume, Provisioning};
    pub use wavetank_driver::runtime::{Disk, Runtime};
    pub use wavetank_driver::units::{
        Access, Bytes, DevicePath, FsKind, HostPath, NodeId, PublishContext, Segments, SnapshotId, VolumeId,
    };
}
