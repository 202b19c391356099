//! A driver whose storage system and devices live in this process's memory, and end with it.
//!
//! It serves everything that a caller of CSI can see: the paths are real, the devices and mounts behind them are only
//! remembered. For trying callers out on a machine on which nothing may be mounted.

mod host;
mod pool;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::{MountEntry, Probe};
use crate::pool::{PoolSnapshot, PoolVolume};
use crate::units::{Access, Bytes, DevicePath, NodeId, Segments, SnapshotId, VolumeId};

pub use host::MemoryHost;
pub use pool::MemoryPool;

/// What both of them remember. A clone is the same one.
#[derive(Clone)]
pub struct Memory(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    node: NodeId,
    segments: Segments,
    /// Bytes that may be promised to volumes of each type.
    room: BTreeMap<String, Bytes>,
    volumes: BTreeMap<VolumeId, Volume>,
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    devices: BTreeMap<VolumeId, Device>,
    mounts: Vec<MountEntry>,
}

/// What a probe of a volume would say, and of the layer on it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    bare: Probe,
    layer: Option<Layer>,
}

/// An encryption layer: by what its key is known, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    check: blake3::Hash,
    holds: Probe,
}

#[derive(Clone, Debug)]
struct Volume {
    known: PoolVolume,
    made: Bytes,
    kind: String,
    holds: Content,
    settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Snapshot {
    known: PoolSnapshot,
    holds: Content,
}

#[derive(Clone, Debug)]
struct Device {
    path: DevicePath,
    size: Bytes,
    access: Access,
    /// The open encryption layer on it: its device and size.
    layer: Option<(DevicePath, Bytes)>,
}

impl Memory {
    /// An empty storage system on one node, with room for each type of storage.
    pub fn new(node: NodeId, segments: Segments, room: BTreeMap<String, Bytes>) -> Self {
        Self(Arc::new(Mutex::new(World {
            node,
            segments,
            room,
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            devices: BTreeMap::new(),
            mounts: Vec::new(),
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn new(bare: Probe) -> Self {
        Self { bare, layer: None }
    }
}

impl Device {
    fn has(&self, device: &DevicePath) -> bool {
        self.path == *device || self.layer.as_ref().is_some_and(|(path, _)| path == device)
    }

    /// The size of one of its devices.
    fn size_of(&self, device: &DevicePath) -> Bytes {
        match &self.layer {
            Some((path, size)) if path == device => *size,
            _ => self.size,
        }
    }
}

impl World {
    fn volume_of(&mut self, device: &DevicePath) -> Option<&mut Volume> {
        let id = self.devices.iter().find(|(_, found)| found.has(device))?.0;
        self.volumes.get_mut(id)
    }

    /// What is to be found on a device, be it a volume's own or that of its layer.
    fn holds(&mut self, device: &DevicePath) -> Option<&mut Probe> {
        let bare = self.devices.values().any(|found| found.path == *device);
        let content = &mut self.volume_of(device)?.holds;
        if bare {
            Some(&mut content.bare)
        } else {
            content.layer.as_mut().map(|layer| &mut layer.holds)
        }
    }

    fn is_shown(&self, device: &DevicePath) -> bool {
        self.mounts.iter().any(|entry| entry.source.device() == Some(device))
    }
}
