//! What a node driver does to its machine: paths, devices, file systems, mounts.
//!
//! Every method is one operation that takes effect wholly or not at all, and each is a place where a crash may
//! strike; so the driver composes small ones instead of asking for a large one. Two arms implement the trait: a
//! modelled machine and real Linux. The contract is written so that Linux can keep it with plain system calls.
//!
//! Left out: reading and writing of file contents (pods do that), and anything about a volume's place in the pool
//! (see [`crate::pool`]).

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::units::{Access, Bytes, DevicePath, FsKind, HostPath, PublishContext, VolumeId};

/// What the header of an encryption layer takes of its device: the layer's own device is smaller by this.
pub const LAYER_HEADER: Bytes = Bytes::mi(16);

/// What a host operation answers.
pub type HostResult<T> = Result<T, HostError>;

/// A host operation that did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct HostError {
    /// The class, on which the driver decides.
    pub kind: HostErrorKind,
    /// What the machine said, for people. Never holds a secret.
    pub text: String,
}

impl HostError {
    /// An error of `kind`, explained by `text`.
    pub fn new(kind: HostErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

/// Why a host operation did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostErrorKind {
    /// The path, its parent or the device is not there.
    NotFound,
    /// Something is there already.
    Exists,
    /// In use: open files, a mount point, a mounted device.
    Busy,
    /// A directory that must be empty is not.
    NotEmpty,
    /// The target of an unmount is not a mount point.
    NotMounted,
    /// No room left.
    NoSpace,
    /// The arguments make no sense there: a file where a directory is needed, an unknown mount flag.
    Invalid,
    /// Writing is forbidden on this path or device.
    ReadOnly,
    /// Not permitted to this process.
    Denied,
    /// The device or the file system is damaged or gone.
    Io,
    /// Given up after waiting; it may still happen.
    TimedOut,
    /// This machine cannot do that.
    Unsupported,
    /// The process is dead: nothing it asks happens any more, and nothing it is told matters.
    Fenced,
}

/// What is at a path (`lstat`: a symbolic link is never followed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A block device, or a file over which one is bind-mounted.
    BlockDevice,
    /// Anything else.
    Other,
}

/// What a device holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Provably nothing: every place where a known signature could be was read and is empty.
    Blank,
    /// A file system that the driver knows.
    FileSystem {
        /// Which.
        kind: FsKind,
        /// Its own size by its superblock.
        size: Bytes,
        /// Its UUID, as text.
        uuid: String,
        /// Its label; may be empty.
        label: String,
    },
    /// The header of an encryption layer (LUKS); what lies behind it is ciphertext.
    Encrypted {
        /// Its UUID, as text.
        uuid: String,
    },
    /// A signature or data that is not ours to touch, named for people (`LVM2_member`, `gpt`, `data`).
    Foreign(String),
}

/// What to make a file system of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFs {
    /// Which.
    pub kind: FsKind,
    /// Its label, at most 12 bytes.
    pub label: String,
    /// Its UUID; given, so that the same volume has the same one in every run.
    pub uuid: String,
    /// Over whatever the device holds, as `mkfs -F` does. This driver never does so, but for two of its known mistakes.
    pub forced: bool,
}

/// How a check of a file system ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsck {
    /// Nothing was wrong.
    Clean,
    /// Something was wrong and is mended.
    Repaired,
}

/// One mount of a file system that lies on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The device.
    pub device: DevicePath,
    /// Where; an existing directory.
    pub target: HostPath,
    /// The file system on it.
    pub kind: FsKind,
    /// Mount flags (`noatime`, `discard`, …) without `ro` and `rw`.
    pub flags: Vec<String>,
    /// May one write through it?
    pub access: Access,
}

/// What lies behind a mount point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// The file system on this device: the mount itself, or a bind of a directory in it.
    FileSystem(DevicePath),
    /// The device node itself, bound over a file (a raw block volume).
    Device(DevicePath),
    /// Something else (`tmpfs`, a network file system), named for people.
    Other(String),
}

impl MountSource {
    /// The device behind it, if there is one.
    pub fn device(&self) -> Option<&DevicePath> {
        match self {
            Self::FileSystem(device) | Self::Device(device) => Some(device),
            Self::Other(_) => None,
        }
    }
}

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// What lies behind it.
    pub source: MountSource,
    /// The directory within the source's file system that is visible here (`/` for the whole of it).
    pub root: String,
    /// The mount point.
    pub target: HostPath,
    /// The file system's name as the kernel spells it.
    pub fs: String,
    /// Mount flags, without `ro` and `rw`.
    pub flags: Vec<String>,
    /// May one write through it?
    pub access: Access,
}

impl MountEntry {
    /// What is seen there, as findmnt writes it: a device or the name of a file system, and in brackets which directory of it if that is not the whole.
    /// Kubelet takes two mounts that show the same for references of each other (`SearchMountPoints` in mount-utils: device number and root).
    pub fn shown(&self) -> String {
        let whole = self.root == "/";
        match &self.source {
            MountSource::Device(device) => device.to_string(),
            MountSource::FileSystem(device) if whole => device.to_string(),
            MountSource::FileSystem(device) => format!("{device}[{}]", self.root),
            MountSource::Other(name) if whole => name.clone(),
            MountSource::Other(name) => format!("{name}[{}]", self.root),
        }
    }
}

/// Room and inodes of a mounted file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Bytes altogether.
    pub total: Bytes,
    /// Bytes that an ordinary user may still write.
    pub available: Bytes,
    /// Bytes in use.
    pub used: Bytes,
    /// Inodes altogether; 0 if the file system does not count them.
    pub inodes: u64,
    /// Inodes free.
    pub inodes_free: u64,
    /// Inodes in use.
    pub inodes_used: u64,
}

/// One machine, as one driver process may act on it.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// What is at `path` (never follows a link); `None` if nothing is.
    ///
    /// Errors: `Invalid` if a component above it is a symbolic link or not a directory: nobody is led astray.
    async fn kind(&self, path: &HostPath) -> HostResult<Option<PathKind>>;

    /// Makes a directory; its parent must exist.
    ///
    /// Errors: `Exists`, `NotFound` (parent), `NoSpace`, `ReadOnly`.
    async fn create_dir(&self, path: &HostPath) -> HostResult<()>;

    /// Removes an empty directory.
    ///
    /// Errors: `NotFound`, `NotEmpty`, `Busy` (a mount point), `Invalid` (not a directory).
    async fn remove_dir(&self, path: &HostPath) -> HostResult<()>;

    /// Makes an empty regular file; its parent must exist.
    ///
    /// Errors: `Exists`, `NotFound` (parent), `NoSpace`, `ReadOnly`.
    async fn create_file(&self, path: &HostPath) -> HostResult<()>;

    /// Removes an empty regular file. Refuses one that holds bytes: the driver never deletes data.
    ///
    /// Errors: `NotFound`, `NotEmpty`, `Busy` (a mount point), `Invalid` (not a file).
    async fn remove_file(&self, path: &HostPath) -> HostResult<()>;

    /// Makes a volume that the pool has exported to this node appear as a block device. Attached already with the
    /// same access: the same device again.
    ///
    /// The answer is what the device's link shows, and the machine may be late to turn it: [`Host::attached`] goes by the
    /// identity of the volume. The size of a new device may be that of an earlier one until [`Host::rescan`].
    ///
    /// Errors: `NotFound` (no such volume reaches this node), `Exists` (attached with other access), `NoSpace` (no
    /// free device), `TimedOut`, `Io`.
    async fn attach(&self, volume: &VolumeId, context: &PublishContext, access: Access) -> HostResult<DevicePath>;

    /// The device as which a volume is attached here; `None` if it is not.
    async fn attached(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>>;

    /// Takes a volume's device away. Not attached: nothing to do. Works also after the pool fenced this node off.
    ///
    /// Errors: `Busy` (mounted, bound or open).
    async fn detach(&self, volume: &VolumeId) -> HostResult<()>;

    /// Makes an encryption layer on a blank device that `key` opens. Until something is written through it, by
    /// [`Host::mkfs`] or after [`Host::bind_device`], the host may take it for not made: the device is then read as blank
    /// again after a crash.
    ///
    /// Errors: `Exists` (not blank), `Busy`, `ReadOnly`, `NoSpace` (no room for the header), `Io`.
    async fn encrypt(&self, device: &DevicePath, uuid: &str, key: &Key) -> HostResult<()> {
        let _ = (device, uuid, key);
        Err(HostError::new(
            HostErrorKind::Unsupported,
            "this machine has no encryption layer",
        ))
    }

    /// Opens the encryption layer of an attached volume and returns the device on which its plaintext is seen. Open
    /// already with the same access: the same device again.
    ///
    /// Errors: `Denied` (another key), `NotFound` (not attached), `Invalid` (no layer on it), `Exists` (open with
    /// other access), `Io`.
    async fn unlock(&self, volume: &VolumeId, key: &Key, access: Access) -> HostResult<DevicePath> {
        let _ = (volume, key, access);
        Err(HostError::new(
            HostErrorKind::Unsupported,
            "this machine has no encryption layer",
        ))
    }

    /// The device on which an open encryption layer shows a volume's plaintext; `None` if none is open.
    async fn unlocked(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        let _ = volume;
        Ok(None)
    }

    /// Grows an open encryption layer to the size of its device, and returns its size. A layer keeps the size with which
    /// it was opened until it is told.
    ///
    /// Errors: `NotFound` (not open), `Io`.
    async fn grow_layer(&self, volume: &VolumeId) -> HostResult<Bytes> {
        Err(HostError::new(
            HostErrorKind::NotFound,
            format!("volume {volume} has no open encryption layer"),
        ))
    }

    /// Closes the encryption layer of a volume. Not open: nothing to do.
    ///
    /// Errors: `Busy` (mounted, bound or open).
    async fn lock(&self, volume: &VolumeId) -> HostResult<()> {
        let _ = volume;
        Ok(())
    }

    /// The size of a device as the machine knows it now.
    async fn device_size(&self, device: &DevicePath) -> HostResult<Bytes>;

    /// Looks again how large the storage behind a device is, and returns the new size. The machine may see growth late.
    async fn rescan(&self, device: &DevicePath) -> HostResult<Bytes>;

    /// Reads what a device holds.
    ///
    /// Errors: `Io` if any byte that matters cannot be read: an unreadable device is never blank.
    async fn probe(&self, device: &DevicePath) -> HostResult<Probe>;

    /// Makes a file system. The driver calls it only on a device that it has just probed blank; the host refuses any
    /// other, unless it is forced.
    ///
    /// Errors: `Exists` (not blank), `Busy` (mounted), `ReadOnly`, `NoSpace` (too small), `Io`.
    async fn mkfs(&self, device: &DevicePath, fs: &NewFs) -> HostResult<()>;

    /// Checks an unmounted file system and mends what can be mended without losing data.
    ///
    /// Errors: `Io` (damage that needs a person), `Busy` (mounted), `Invalid` (not this kind).
    async fn fsck(&self, device: &DevicePath, kind: FsKind) -> HostResult<Fsck>;

    /// Grows an unmounted file system to the size of its device; `false` if this machine grows that kind only while it
    /// is mounted.
    ///
    /// Errors: `Busy` (mounted), `Io`.
    async fn grow_idle(&self, device: &DevicePath, kind: FsKind) -> HostResult<bool> {
        let _ = (device, kind);
        Ok(false)
    }

    /// Mounts a file system on an existing directory.
    ///
    /// Errors: `NotFound` (target or device), `Busy` (a mount is at the target), `Invalid` (flags, kind, not a
    /// directory), `ReadOnly` (read-write asked of a read-only device), `Io`.
    async fn mount(&self, mount: &Mount) -> HostResult<()>;

    /// Makes the directory `source` visible at the existing directory `target`, read-only if so asked whatever the
    /// source allows.
    ///
    /// Errors: `NotFound`, `Invalid` (not directories), `Busy` (a mount is at the target).
    async fn bind(&self, source: &HostPath, target: &HostPath, access: Access) -> HostResult<()>;

    /// Makes a device node visible at the existing regular file `target`. `ReadOnly`: writes through the target are
    /// refused.
    ///
    /// Errors: `NotFound`, `Invalid` (not a file), `Busy` (a mount is at the target).
    async fn bind_device(&self, device: &DevicePath, target: &HostPath, access: Access) -> HostResult<()>;

    /// Unmounts the topmost mount at `target`.
    ///
    /// Errors: `NotMounted`, `Busy` (open files, or a mount below it), `Io`.
    async fn unmount(&self, target: &HostPath) -> HostResult<()>;

    /// The mount table, oldest first; of several at one target the last is the visible one.
    async fn mounts(&self) -> HostResult<Vec<MountEntry>>;

    /// The visible mount at exactly `target`.
    async fn mount_at(&self, target: &HostPath) -> HostResult<Option<MountEntry>> {
        let table = self.mounts().await?;
        Ok(table.into_iter().rev().find(|entry| entry.target == *target))
    }

    /// Grows the file system mounted at `target` to the size of its device, online; nothing to do if it fills it
    /// already. Returns the size of the file system afterwards.
    ///
    /// Errors: `NotMounted`, `ReadOnly`, `Unsupported`, `Io`.
    async fn grow_fs(&self, target: &HostPath) -> HostResult<Bytes>;

    /// Gives everything in the file system that is mounted at `path` to a group: it may read and write all files, enter all
    /// directories, and what is made in them belongs to it (set-group-id). The root comes last and is looked at first: if
    /// it is as it should be, nothing is done.
    ///
    /// Errors: `NotMounted`, `ReadOnly`, `Invalid` (a device is bound there), `Io`.
    async fn set_group(&self, path: &HostPath, group: u32) -> HostResult<()> {
        let _ = (path, group);
        Err(HostError::new(
            HostErrorKind::Unsupported,
            "this machine gives no file system to a group",
        ))
    }

    /// Room and inodes of the file system at `path`.
    async fn usage(&self, path: &HostPath) -> HostResult<FsUsage>;

    /// Makes everything written to the file system at `path` durable.
    async fn sync(&self, path: &HostPath) -> HostResult<()>;
}
