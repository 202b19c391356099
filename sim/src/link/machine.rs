//! The other half of a link: what kubelet, pods and oracles do on a node without asking the driver.

use std::collections::BTreeMap;

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
    /// To `Mounts`.
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
