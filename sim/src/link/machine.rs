//! The other half of a link: what kubelet, pods and oracles do on a node without asking the driver.

use std::collections::BTreeMap;

use crate::host::{Inventory, PodError, PodWrite, ReadBack, Written};

/// One operation on the caller's own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineOp {
    /// `mkdir -p`.
    MakeDirs(String),
    /// `rmdir`: only an empty directory that is no mount point.
    RemoveDir(String),
    /// `rm` of one file; a missing one is fine.
    RemoveFile(String),
    /// `rm -r` of plain files and directories; stops at mount points.
    RemoveAll(String),
    /// Writes a whole file, without a sync: a power loss may leave it empty or torn.
    WriteFile(String, Vec<u8>),
    /// Reads a whole file.
    ReadFile(String),
    /// What is at a path.
    Stat(String),
    /// The names in a directory, in order.
    ListDir(String),
    /// The mount table: target to source.
    Mounts,
    /// A symbolic link (kubelet's block device maps).
    Link {
        /// Where it points.
        to: String,
        /// Where it is.
        at: String,
    },
    /// Asks the container runtime to start the containers of a pod. They survive kubelet and die with the node.
    StartPod(String),
    /// Asks the container runtime to stop the containers of a pod; answered when they are gone.
    StopPod {
        /// The pod's UID.
        uid: String,
        /// Seconds between TERM and KILL.
        grace_seconds: i64,
    },
    /// The pods whose containers run, by UID.
    RunningPods,
}

/// A machine that is not modelled: what kubelet, pods and oracles do there is done for real.
pub trait RealMachine: Send + Sync {
    /// Is it up?
    fn is_up(&self) -> bool;
    /// How often it was booted; 1 for one that never crashed.
    fn boots(&self) -> u64;
    /// Does one operation of kubelet.
    ///
    /// # Errors
    /// [`MachineError`], as the kernel refuses.
    fn perform(&self, op: &MachineOp) -> Result<MachineAnswer, MachineError>;
    /// A pod writes to one of its volumes.
    ///
    /// # Errors
    /// [`PodError`] if nothing can be written at all.
    fn pod_write(&self, write: &PodWrite) -> Result<Written, PodError>;
    /// A pod reads everything in one of its volumes.
    ///
    /// # Errors
    /// [`PodError`].
    fn pod_read(&self, uid: &str, path: &str) -> Result<ReadBack, PodError>;
    /// How many bytes the file system behind a path offers in all. Nothing if nobody can tell.
    fn room(&self, path: &str) -> Option<u64> {
        let _ = path;
        None
    }
    /// A pod syncs one of its volumes.
    ///
    /// # Errors
    /// [`PodError`].
    fn pod_sync(&self, uid: &str, path: &str) -> Result<(), PodError>;
    /// What it holds.
    fn inventory(&self) -> Inventory;
    /// Everything below a directory, mounts included.
    fn paths_below(&self, path: &str) -> Vec<(String, PathKind)>;
    /// It loses its power.
    fn crash(&self);
    /// It has its power again.
    fn boot(&self);
    /// It writes out what it has in memory, because it is about to end orderly.
    fn write_out(&self);
    /// It stands still, or goes on.
    fn pause(&self, still: bool);
    /// The devices of volumes on it answer everything with an error, or work again.
    fn fail_devices(&self, failing: bool);
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// A directory or file that something is mounted on.
    MountPoint,
    /// A regular file.
    File,
    /// A block device, or a file bound to one.
    Device,
    /// A symbolic link.
    Link,
}

/// The answer to a [`MachineOp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineAnswer {
    /// Done.
    Done,
    /// To `Stat`.
    Path(PathKind),
    /// To `ReadFile`.
    Bytes(Vec<u8>),
    /// To `ListDir` and `RunningPods`.
    Names(Vec<String>),
    /// To `Mounts`: what is seen (`MountEntry::shown`), by mount point.
    Mounts(BTreeMap<String, String>),
}

/// Why an operation on the machine failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The path is not there.
    #[error("{0}: no such file or directory")]
    Missing(String),
    /// The directory is not empty, or something is mounted there.
    #[error("{0}: device or resource busy")]
    Busy(String),
    /// It is there already, as something else.
    #[error("{0}: file exists")]
    Exists(String),
    /// The device behind the path failed.
    #[error("{0}: input/output error")]
    Io(String),
    /// The node is down.
    #[error("the node is down")]
    Down,
}
