//! What one block of 4 KiB holds: bytes, or the stamp of a pod's writer, by which a reader sees who wrote it, when and for which volume.

use std::fmt;
use std::sync::Arc;

use wavetank_driver::VolumeId;

/// Bytes in a block.
pub const BLOCK: u64 = 4096;

/// Which volume a writer means, whatever lies behind its path. The cluster chooses the text (a claim, a handle); the generation tells a new volume
/// from a deleted one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeKey {
    /// The name.
    pub name: Arc<str>,
    /// Counts the volumes that have had this name.
    pub generation: u64,
}

impl VolumeKey {
    /// A volume by name and generation.
    pub fn new(name: impl Into<Arc<str>>, generation: u64) -> VolumeKey {
        VolumeKey {
            name: name.into(),
            generation,
        }
    }
}

impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.generation)
    }
}

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// The volume it means to write to.
    pub volume: VolumeKey,
}

/// What a pod's writer leaves in a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Who wrote.
    pub origin: Arc<Origin>,
    /// The file it was written to; empty for a raw device.
    pub file: Arc<str>,
    /// Which block of the file or device.
    pub block: u64,
    /// Counts the blocks written to this volume, over all its writers.
    pub sequence: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { pod, node, volume, .. } = &*self.origin;
        let Stamp {
            file, block, sequence, ..
        } = self;
        write!(f, "write {sequence} by {pod} on {node} to {volume} {file}[{block}]")
    }
}

/// The contents of a block that was ever written. One that never was reads as zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A writer's stamp.
    Stamp(Stamp),
    /// Other bytes, at most a block of them; the rest is zeroes.
    Bytes(Arc<[u8]>),
    /// Half a writer's stamp: the power failed while the block was written.
    Torn(Stamp),
}

impl Cell {
    /// What a power loss in the middle of the write leaves, and how many bytes of it.
    pub(super) fn torn(&self) -> (Cell, u64) {
        match self {
            Cell::Stamp(stamp) | Cell::Torn(stamp) => (Cell::Torn(stamp.clone()), BLOCK / 2),
            Cell::Bytes(bytes) => {
                let half: Arc<[u8]> = bytes[..bytes.len() / 2].into();
                let len = half.len() as u64;
                (Cell::Bytes(half), len)
            }
        }
    }

    /// As plain bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Cell::Bytes(bytes) => bytes.to_vec(),
            Cell::Stamp(stamp) => stamp.to_string().into_bytes(),
            Cell::Torn(stamp) => {
                let mut text = stamp.to_string().into_bytes();
                text.truncate(text.len() / 2);
                text
            }
        }
    }
}

/// One block that a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file, by its path in the volume; empty for a raw device.
    pub file: Arc<str>,
    /// Which block of it.
    pub block: u64,
    /// What it holds.
    pub cell: Cell,
}

/// What a path led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// This volume of this driver.
    Volume {
        /// The driver.
        driver: Arc<str>,
        /// Its handle.
        id: VolumeId,
    },
    /// Something is mounted there on a real machine, which does not say which volume: the kind of file system.
    Mounted(String),
    /// The node's own disk: nothing is mounted there.
    NodeDisk,
}

/// Everything a reader found behind one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// What the path led to.
    pub on: Backing,
    /// Every block that was ever written, by file and block.
    pub found: Vec<Found>,
}
