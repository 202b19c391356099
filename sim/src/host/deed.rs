//! What was done to a storage system, one operation after the other. Oracles read it; nothing else does.

use wavetank_driver::pool::Source;
use wavetank_driver::{Access, Bytes, NodeId, SnapshotId, VolumeId};

/// One thing that was done to a storage system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A volume was made.
    Created {
        /// Its handle.
        volume: VolumeId,
        /// Its size.
        size: Bytes,
        /// What it is a copy of.
        source: Option<Source>,
    },
    /// A volume has another size.
    Resized {
        /// Its handle.
        volume: VolumeId,
        /// The size before.
        from: Bytes,
        /// The size now.
        to: Bytes,
    },
    /// A volume is gone.
    Deleted(VolumeId),
    /// A node can reach a volume.
    Exported {
        /// The handle.
        volume: VolumeId,
        /// The node.
        node: NodeId,
        /// How.
        access: Access,
    },
    /// A node cannot reach a volume any more.
    CutOff {
        /// The handle.
        volume: VolumeId,
        /// The node.
        node: NodeId,
        /// Its machine had a device for it.
        in_use: bool,
    },
    /// A file system was made on a volume.
    Formatted {
        /// The handle.
        volume: VolumeId,
        /// There was something on it.
        over: bool,
    },
    /// A snapshot was cut.
    Cut {
        /// Its handle.
        snapshot: SnapshotId,
        /// The volume.
        volume: VolumeId,
    },
    /// A snapshot is gone.
    SnapshotDeleted(SnapshotId),
}
