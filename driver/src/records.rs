//! What the ledger remembers: one record per entity, each with the phase in which a crash would find it.
//!
//! ```text
//! volume       Creating ─► Ready ─► Growing ──► Ready      publication  Publishing ─► Published ─► Unpublishing ─► (gone)
//!                 │          ├────► Modifying ► Ready      staged       Staging ────► Staged ────► Unstaging ────► (gone)
//!                 ▼          └────► Deleting ─► (gone)     target       Publishing ─► Published ─► Unpublishing ─► (gone)
//!               (gone)                                            snapshot     Cutting ────► Ready ─────► Deleting ─────► (gone)
//!                                                                group        Cutting ────► Ready ─────► Deleting ─────► (gone)
//! ```
//!
//! Only `Ready`, `Published` and `Staged` are at rest. A record in any other phase belongs to an operation in flight,
//! or, after a crash, is a *leftover*: `Growing` and `Modifying` are finished, `Creating`, `Cutting`, `Publishing` and
//! `Staging` are undone, the rest is finished. The snapshots of a group share its phase.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::{Capability, SizeRange};
use crate::pool::Source;
use crate::units::{Access, Bytes, DevicePath, GroupId, HostPath, PublishContext, Segments, SnapshotId, VolumeId};

/// In a publish context: the node's device takes no writes. `NodeStageVolume` has no field that says so.
pub(crate) const READ_ONLY_KEY: &str = "wavetank.dev/read-only";
/// In a publish context: the volume's bytes lie behind an encryption layer.
pub(crate) const ENCRYPTED_KEY: &str = "wavetank.dev/encrypted";

/// What `CreateVolume` was asked, secrets aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRequest {
    pub(crate) name: String,
    pub(crate) range: SizeRange,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) source: Option<Source>,
    pub(crate) places: Vec<Segments>,
}

/// What a volume is in the middle of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VolumePhase {
    Creating,
    Ready,
    Growing(Bytes),
    Modifying(BTreeMap<String, String>),
    Deleting,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub(crate) phase: VolumePhase,
    /// `None`: not made by this driver, but found in the pool.
    pub(crate) request: Option<VolumeRequest>,
    /// The size in the answer to `CreateVolume`, which never changes.
    pub(crate) created_size: Bytes,
    /// The size now.
    pub(crate) size: Bytes,
    pub(crate) segments: Segments,
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) kind: String,
    /// The pool made a file system in it that several nodes may mount.
    pub(crate) shared: bool,
    /// Its bytes lie behind an encryption layer.
    #[serde(default)]
    pub(crate) encrypted: bool,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) phase: SnapshotPhase,
    /// The volume it is cut of.
    pub(crate) volume: VolumeId,
    /// Parameters of the request; those of the group's, if it has one.
    pub(crate) parameters: BTreeMap<String, String>,
    /// The size of the volume at the cut.
    pub(crate) size: Bytes,
    /// When it was cut, since the Unix epoch.
    pub(crate) cut_at: Duration,
    /// Can volumes be made of it yet?
    pub(crate) ready: bool,
    /// The group with which it was cut and with which alone it goes.
    pub(crate) group: Option<GroupId>,
    /// Was the volume made for block access? `None`: nobody knows.
    pub(crate) block: Option<bool>,
    /// The volume's storage type.
    pub(crate) kind: String,
    /// Its bytes are an encryption layer's.
    #[serde(default)]
    pub(crate) encrypted: bool,
}

/// What a snapshot or a group is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotPhase {
    Cutting,
    Ready,
    Deleting,
}

/// Snapshots cut at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) phase: SnapshotPhase,
    pub(crate) parameters: BTreeMap<String, String>,
    /// In the order of the volumes in the request.
    pub(crate) snapshots: Vec<SnapshotId>,
}

/// A volume attached to a node, by the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublicationRecord {
    pub(crate) phase: PublicationPhase,
    pub(crate) capability: Capability,
    pub(crate) readonly: bool,
    pub(crate) context: PublishContext,
}

impl PublicationRecord {
    /// May the node write?
    pub(crate) fn access(&self) -> Access {
        Access::from_readonly(self.readonly || self.capability.mode.is_read_only())
    }
}

/// What a publication is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PublicationPhase {
    Publishing,
    Published,
    Unpublishing,
}

/// A volume staged on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedRecord {
    pub(crate) phase: StagedPhase,
    /// Where; for a block volume nothing is mounted there.
    pub(crate) path: HostPath,
    /// The driver chose the path and stages on its own account.
    pub(crate) private: bool,
    /// The driver made the volume for one pod, and deletes it with the last target.
    pub(crate) ephemeral: bool,
    /// The node exported the volume to itself, and takes that back.
    pub(crate) exported: bool,
    /// An encryption layer lies between the device and what is shown of it.
    #[serde(default)]
    pub(crate) encrypted: bool,
    /// Without its group: that of the first user decides, and another's is no other staging.
    pub(crate) capability: Capability,
    /// The group to which the file system was given when it was mounted.
    #[serde(default)]
    pub(crate) group: Option<u32>,
    pub(crate) access: Access,
    /// Known once staged; means nothing after a reboot.
    pub(crate) device: Option<DevicePath>,
}

/// What a staged volume is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StagedPhase {
    Staging,
    Staged,
    Unstaging,
}

/// A path at which a pod sees a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetRecord {
    pub(crate) phase: PublicationPhase,
    pub(crate) volume: VolumeId,
    pub(crate) capability: Capability,
    pub(crate) access: Access,
}
