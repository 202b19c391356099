//! The storage system behind the driver, shared by every controller and node that talks to it.
//!
//! Volumes are named by their handle, which the driver derives from the CSI name: so every operation here can be
//! repeated after a lost answer without making a second volume. Each method is one operation that takes effect wholly
//! or not at all, and is durable once answered.
//!
//! Left out: everything that a caller of CSI sees (sizes are already rounded, modes already judged), and the machine
//! of a node (see [`crate::host`]).

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::units::{Access, Bytes, FsKind, NodeId, PublishContext, Segments, SnapshotId, VolumeId};

/// What a pool operation answers.
pub type PoolResult<T> = Result<T, PoolError>;

/// A pool operation that did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct PoolError {
    /// The class, on which the driver decides.
    pub kind: PoolErrorKind,
    /// What the storage system said, for people. Never holds a secret.
    pub text: String,
}

impl PoolError {
    /// An error of `kind`, explained by `text`.
    pub fn new(kind: PoolErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

/// Why a pool operation did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PoolErrorKind {
    /// No such volume or snapshot.
    NotFound,
    /// The volume or snapshot to copy from is not there.
    NoSuchSource,
    /// The node is unknown to the storage system.
    NoSuchNode,
    /// The pool has nothing in that part of the topology, or none of that type.
    NoSuchPlace,
    /// The handle is taken by something that differs from what is asked.
    Exists,
    /// Still exported, or something depends on it.
    InUse,
    /// No room left.
    NoSpace,
    /// A size that the storage system never gives.
    OutOfRange,
    /// The arguments make no sense to the storage system.
    Invalid,
    /// This storage system cannot do that.
    Unsupported,
    /// Cannot be reached just now; nothing is known to have happened.
    Unavailable,
    /// Given up after waiting; it may still happen.
    TimedOut,
    /// Damaged.
    Io,
    /// The process is dead: nothing it asks happens any more, and nothing it is told matters.
    Fenced,
}

/// How the room of a volume is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// When it is first written.
    #[default]
    Thin,
    /// At once.
    Thick,
}

/// What a volume is copied from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// Another volume, as it is at the moment of the copy.
    Volume(VolumeId),
    /// A snapshot.
    Snapshot(SnapshotId),
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its handle.
    pub id: VolumeId,
    /// Its exact size.
    pub size: Bytes,
    /// The storage type, by the name it has in the driver's configuration.
    pub kind: String,
    /// How its room is taken.
    pub provisioning: Provisioning,
    /// Where it must be; empty: the pool chooses.
    pub segments: Segments,
    /// What its first bytes are; `None`: zeroes. A source smaller than `size` is followed by zeroes.
    pub source: Option<Source>,
    /// The pool makes this file system in it before the volume can be seen. Only for volumes that several nodes will
    /// mount: two nodes staging at the same time must never both find it blank. Ignored with a source.
    pub shared_fs: Option<FsKind>,
    /// Its bytes will lie behind an encryption layer, for whose header the pool keeps
    /// [`LAYER_HEADER`](crate::host::LAYER_HEADER) in front of them. Sizes, offsets and extents never count it.
    pub encrypted: bool,
    /// Settings that may change later (`iops`).
    pub settings: BTreeMap<String, String>,
}

/// A volume that the pool has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolVolume {
    /// Its handle.
    pub id: VolumeId,
    /// Its size now.
    pub size: Bytes,
    /// Where it can be reached from; empty: everywhere.
    pub segments: Segments,
    /// What it was copied from.
    pub source: Option<Source>,
    /// Room for the header of an encryption layer lies in front of its bytes.
    pub encrypted: bool,
    /// The nodes to which it is exported.
    pub exports: BTreeMap<NodeId, Access>,
    /// Empty if it is sound, else what is wrong with it, for people.
    pub trouble: String,
}

/// Room in one part of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes that new volumes may still take.
    pub available: Bytes,
    /// The largest single volume that fits, if the pool can tell.
    pub largest: Option<Bytes>,
}

/// A snapshot to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its handle.
    pub id: SnapshotId,
    /// The volume it is cut of.
    pub volume: VolumeId,
}

/// A snapshot that the pool has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// Its handle.
    pub id: SnapshotId,
    /// The volume it was cut of.
    pub volume: VolumeId,
    /// The size of that volume at the cut.
    pub size: Bytes,
    /// When it was cut, since the Unix epoch.
    pub cut_at: Duration,
    /// Can a volume be made of it yet?
    pub ready: bool,
}

/// A range of bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Where it begins.
    pub offset: Bytes,
    /// How long it is; never 0.
    pub len: Bytes,
}

/// The storage system. Methods with a default answer belong to capabilities that a pool may lack.
#[async_trait]
pub trait Pool: Send + Sync + 'static {
    /// Can the storage system be reached? Answers at once; never waits behind another operation.
    async fn health(&self) -> PoolResult<()> {
        Ok(())
    }

    /// Makes a volume. There already and equal (size, segments within those asked, source): that one again.
    ///
    /// Errors: `Exists` (differs), `NoSpace`, `OutOfRange`, `NoSuchPlace`, `NoSuchSource`, `Invalid` (`encrypted` is not
    /// what its source is), `Unsupported` (for `shared_fs` or the source), `Unavailable`.
    async fn create(&self, volume: &NewVolume) -> PoolResult<PoolVolume>;

    /// Deletes a volume. Not there: nothing to do.
    ///
    /// Errors: `InUse` (still exported to a node), `Unavailable`.
    async fn delete(&self, id: &VolumeId) -> PoolResult<()>;

    /// Makes a volume at least `size` large and returns its size; never shrinks it. New bytes read as zeroes.
    ///
    /// Errors: `NotFound`, `NoSpace`, `OutOfRange`, `Unavailable`.
    async fn grow(&self, id: &VolumeId, size: Bytes) -> PoolResult<Bytes>;

    /// Changes settings; those not named stay.
    ///
    /// Errors: `NotFound`, `Invalid` (nothing was changed), `Unavailable`.
    async fn modify(&self, id: &VolumeId, settings: &BTreeMap<String, String>) -> PoolResult<()>;

    /// One volume; `None` if the pool has none of that handle.
    async fn get(&self, id: &VolumeId) -> PoolResult<Option<PoolVolume>>;

    /// Every volume, by handle.
    async fn list(&self) -> PoolResult<Vec<PoolVolume>>;

    /// Room for volumes of type `kind` in the part of the topology that `segments` name (empty: anywhere).
    ///
    /// Errors: `NoSuchPlace`, `Unavailable`.
    async fn capacity(&self, kind: &str, segments: &Segments) -> PoolResult<Capacity>;

    /// Makes a volume reachable from a node, and returns what the node needs to find it. Exported there already with
    /// the same access: the same answer again.
    ///
    /// Errors: `NotFound` (volume), `NoSuchNode`, `NoSuchPlace` (the node cannot reach it), `Exists` (other access),
    /// `NoSpace` (no free slot), `Unavailable`.
    async fn export(&self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext>;

    /// Cuts a node off from a volume: once answered, nothing that node still writes can arrive. Not exported there,
    /// or no such volume or node: nothing to do.
    async fn unexport(&self, id: &VolumeId, node: &NodeId) -> PoolResult<()>;

    /// Cuts one snapshot, or several at one and the same moment. Those that exist already and are equal: again.
    ///
    /// Errors: `NotFound` (volume), `Exists` (handle of a snapshot of another volume), `NoSpace`, `Unsupported`.
    async fn cut(&self, snapshots: &[NewSnapshot]) -> PoolResult<Vec<PoolSnapshot>> {
        let _ = snapshots;
        Err(PoolError::new(
            PoolErrorKind::Unsupported,
            "this pool takes no snapshots",
        ))
    }

    /// Deletes a snapshot. Not there: nothing to do.
    ///
    /// Errors: `InUse`, `Unavailable`.
    async fn delete_snapshot(&self, id: &SnapshotId) -> PoolResult<()> {
        let _ = id;
        Ok(())
    }

    /// One snapshot; `None` if the pool has none of that handle.
    async fn snapshot(&self, id: &SnapshotId) -> PoolResult<Option<PoolSnapshot>> {
        let _ = id;
        Ok(None)
    }

    /// At most `limit` ascending, disjoint extents from `offset` on that `target` holds and `base` holds differently;
    /// without `base`, those that `target` has allocated.
    ///
    /// Errors: `NotFound`, `OutOfRange` (offset), `Unsupported` (changes are not tracked).
    async fn extents(
        &self,
        base: Option<&SnapshotId>,
        target: &SnapshotId,
        offset: Bytes,
        limit: usize,
    ) -> PoolResult<Vec<Extent>> {
        let _ = (base, target, offset, limit);
        Err(PoolError::new(
            PoolErrorKind::Unsupported,
            "this pool does not track blocks",
        ))
    }
}
