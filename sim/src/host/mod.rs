//! The modelled machines: what a driver, kubelet, pods and oracles find behind their system calls.
//!
//! ```text
//! driver process ── ModelDisk (its ledger)
//!      │
//!      ├─ Host ──► Machine of a node: tree, mounts, devices, containers ──┐ blocks
//!      └─ Pool ──► Storage: volumes, exports, room ◄──────────────────────┘
//! kubelet, pods ──► Machine
//! ```
//!
//! The storage system is another machine: it survives every crash of processes and nodes. A node's machine loses its mounts, devices, containers
//! and unsynced bytes when it crashes. Everything is plain data behind one lock per machine; the asynchronous operations of a driver wait for their
//! turn before they touch it and never hold a lock meanwhile.

mod cache;
mod cell;
mod deed;
mod device;
mod disk;
mod errno;
mod extents;
mod filesystem;
mod flags;
mod kernel;
mod lag;
mod machine;
mod modelled;
mod mounts;
mod pods;
mod pool;
mod storage;
#[cfg(test)]
mod tests;
mod turns;
mod volume;
mod witness;

pub use cell::{BLOCK, Backing, Cell, Found, Origin, ReadBack, Stamp, VolumeKey};
pub use deed::Deed;
pub use disk::{ModelDisk, OpenDisk};
pub use errno::Errno;
pub use filesystem::FsImage;
pub use machine::{Inventory, Machine, OpenFile};
pub use modelled::{HostSeat, ModelHost};
pub use pods::{PodError, PodWrite, Written};
pub use pool::ModelPool;
pub use storage::{Fate, PlaceShape, Storage, StorageShape, VolumeTrouble};
pub use turns::{AtOnce, Fence, Gate, Loss, OpGate, Trouble, Turn, Turns};
pub use witness::{Finding, FindingKind, Report, Witnesses};
