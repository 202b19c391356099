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

pub mod disk;
pub mod turns;

pub use disk::{ModelDisk, OpenDisk};
pub use turns::{AtOnce, Fence, Gate, Loss, OpGate, Trouble, Turn, Turns};
