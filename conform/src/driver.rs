//! The driver under test and the machines it acts on, whatever lies between: the door through which a link comes in.

use std::time::Duration;

use async_trait::async_trait;

use crate::call::{Side, Wire};

/// A driver that can be called, and perhaps restarted. Node 0 is the first; its machine is where most checks look.
#[async_trait]
pub trait UnderTest: Send + Sync {
    /// A connection to one of its processes. Asked anew for each call, so that it may change with a restart.
    fn wire(&self, side: Side) -> Wire;

    /// How many nodes it serves; at least 1.
    fn nodes(&self) -> usize;

    /// The machine of the nth node.
    fn machine(&self, node: usize) -> &dyn Machine;

    /// Can [`Self::restart`] be asked for?
    ///
    /// # Errors
    /// Why not, for people.
    fn can_restart(&self) -> Result<(), String>;

    /// Kills every process of the driver without warning and starts it again with the same state.
    ///
    /// # Errors
    /// It did not come back.
    async fn restart(&self) -> Result<(), String>;

    /// Did a process end by itself? Says how, once, and starts it again if that is possible.
    async fn ended(&self) -> Option<String>;

    /// Completes after a while.
    async fn sleep(&self, duration: Duration);

    /// Time since some moment.
    fn now(&self) -> Duration;

    /// Everything that the storage system and the machines hold, if the link can look behind the driver's back.
    fn inventory(&self) -> Option<Vec<String>> {
        None
    }
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A block device, or a file over which one is bound.
    Device,
    /// A symbolic link or anything else.
    Other,
}

/// Why nothing could be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The volume may only be read.
    #[error("read-only file system")]
    ReadOnly,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A node's machine as kubelet and a pod use it. Pods write *marks*: short texts that a reader recognises.
#[async_trait]
pub trait Machine: Send + Sync {
    /// The directory below which staging and target paths are made, as kubelet's `/var/lib/kubelet`.
    fn root(&self) -> &str;

    /// Can mounts, devices and contents behind paths be seen?
    ///
    /// # Errors
    /// Why not, for people.
    fn sees_volumes(&self) -> Result<(), String>;

    /// `mkdir -p`.
    ///
    /// # Errors
    /// What the machine says.
    async fn make_dirs(&self, path: &str) -> Result<(), String>;

    /// Removes an empty directory or a link; a missing one is fine.
    ///
    /// # Errors
    /// What the machine says.
    async fn remove(&self, path: &str) -> Result<(), String>;

    /// A symbolic link.
    ///
    /// # Errors
    /// What the machine says.
    async fn link(&self, to: &str, at: &str) -> Result<(), String>;

    /// What is at a path; a link is not followed.
    ///
    /// # Errors
    /// What the machine says.
    async fn kind(&self, path: &str) -> Result<Kind, String>;

    /// The mount points at or below a path; none if they cannot be seen.
    ///
    /// # Errors
    /// What the machine says.
    async fn mounts_below(&self, path: &str) -> Result<Vec<String>, String>;

    /// As a pod with this UID: writes a mark into the volume published at `path` and syncs it.
    ///
    /// # Errors
    /// [`WriteError`].
    async fn write(&self, pod: &str, path: &str, mark: &str) -> Result<(), WriteError>;

    /// As a pod: the marks in the volume published at `path`, in order of writing; for a device the last one.
    ///
    /// # Errors
    /// What the machine says.
    async fn read(&self, pod: &str, path: &str) -> Result<Vec<String>, String>;
}
