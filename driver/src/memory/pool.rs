//! The storage system of the memory backend: sizes, exports, snapshots, and what a probe of each volume would say.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Content, Memory, Snapshot, Volume, World};
use crate::host::Probe;
use crate::pool::{
    Capacity, Extent, NewSnapshot, NewVolume, Pool, PoolError, PoolErrorKind, PoolResult, PoolSnapshot, PoolVolume,
    Source,
};
use crate::runtime::Runtime;
use crate::units::{Access, Bytes, NodeId, PublishContext, Segments, SnapshotId, VolumeId};

/// The [`Pool`] of the memory backend.
#[derive(Clone)]
pub struct MemoryPool {
    memory: Memory,
    runtime: Arc<dyn Runtime>,
}

impl MemoryPool {
    /// The storage system of a memory backend.
    pub fn new(memory: Memory, runtime: Arc<dyn Runtime>) -> Self {
        Self { memory, runtime }
    }
}

fn refused<T>(kind: PoolErrorKind, text: impl Into<String>) -> PoolResult<T> {
    Err(PoolError::new(kind, text))
}

impl World {
    fn left(&self, kind: &str, segments: &Segments) -> PoolResult<Bytes> {
        let own = &self.segments;
        let agrees = segments
            .iter()
            .all(|(key, value)| own.get(key).is_none_or(|here| here == value));
        let Some(room) = self.room.get(kind).filter(|_| agrees) else {
            return refused(
                PoolErrorKind::NoSuchPlace,
                format!("nothing of type `{kind}` in {segments:?}"),
            );
        };
        let taken = self.volumes.values().filter(|volume| volume.kind == kind);
        let taken: u64 = taken.map(|volume| volume.known.size.0).sum();
        Ok(Bytes(room.0.saturating_sub(taken)))
    }

    fn find(&mut self, id: &VolumeId) -> PoolResult<&mut Volume> {
        let missing = || PoolError::new(PoolErrorKind::NotFound, format!("no volume {id}"));
        self.volumes.get_mut(id).ok_or_else(missing)
    }

    fn source(&self, new: &NewVolume) -> PoolResult<Option<Content>> {
        let found = match &new.source {
            None => return Ok(None),
            Some(Source::Volume(id)) => self.volumes.get(id).map(|one| (one.known.size, &one.holds)),
            Some(Source::Snapshot(id)) => self.snapshots.get(id).map(|one| (one.known.size, &one.holds)),
        };
        match found {
            None => refused(PoolErrorKind::NoSuchSource, format!("volume {} has no source", new.id)),
            Some((size, _)) if new.size < size => {
                refused(PoolErrorKind::OutOfRange, format!("a copy is at least {size} large"))
            }
            Some((_, holds))
                if new.encrypted != matches!(holds.bare, Probe::Encrypted { .. }) && holds.bare != Probe::Blank =>
            {
                refused(PoolErrorKind::Invalid, "a copy is encrypted if its source is")
            }
            Some((_, holds)) => Ok(Some(holds.clone())),
        }
    }

    fn create(&mut self, new: &NewVolume) -> PoolResult<PoolVolume> {
        if let Some(volume) = self.volumes.get(&new.id) {
            return if volume.made == new.size && volume.known.source == new.source {
                Ok(volume.known.clone())
            } else {
                refused(
                    PoolErrorKind::Exists,
                    format!("volume {} is there, and differs", new.id),
                )
            };
        }
        let left = self.left(&new.kind, &new.segments)?;
        if left < new.size {
            return refused(PoolErrorKind::NoSpace, format!("{left} of {} are left", new.size));
        }
        let made = new.shared_fs.map(|kind| Probe::FileSystem {
            kind,
            size: new.size,
            uuid: String::new(),
            label: String::new(),
        });
        let blank = || Content::new(made.unwrap_or(Probe::Blank));
        let holds = self.source(new)?.unwrap_or_else(blank);
        let known = PoolVolume {
            id: new.id.clone(),
            size: new.size,
            segments: self.segments.clone(),
            source: new.source.clone(),
            encrypted: new.encrypted,
            exports: BTreeMap::new(),
            trouble: String::new(),
        };
        let volume = Volume {
            known: known.clone(),
            made: new.size,
            kind: new.kind.clone(),
            holds,
            settings: new.settings.clone(),
        };
        self.volumes.insert(new.id.clone(), volume);
        Ok(known)
    }

    fn export(&mut self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext> {
        let own = self.node.clone();
        let volume = self.find(id)?;
        if *node != own {
            return refused(PoolErrorKind::NoSuchNode, format!("no node {node}"));
        }
        match volume.known.exports.insert(node.clone(), access) {
            Some(there) if there != access => {
                volume.known.exports.insert(node.clone(), there);
                refused(
                    PoolErrorKind::Exists,
                    format!("volume {id} is exported with other access"),
                )
            }
            _ => Ok(PublishContext::from([("export".to_owned(), format!("{node}/{id}"))])),
        }
    }
}

#[async_trait]
impl Pool for MemoryPool {
    async fn create(&self, volume: &NewVolume) -> PoolResult<PoolVolume> {
        self.memory.world().create(volume)
    }

    async fn delete(&self, id: &VolumeId) -> PoolResult<()> {
        let mut world = self.memory.world();
        match world.volumes.get(id) {
            Some(volume) if !volume.known.exports.is_empty() => {
                refused(PoolErrorKind::InUse, format!("volume {id} is exported"))
            }
            _ => {
                world.volumes.remove(id);
                Ok(())
            }
        }
    }

    async fn grow(&self, id: &VolumeId, size: Bytes) -> PoolResult<Bytes> {
        let mut world = self.memory.world();
        let volume = world.find(id)?;
        let (old, kind) = (volume.known.size, volume.kind.clone());
        if size.0.saturating_sub(old.0) > world.left(&kind, &Segments::new())?.0 {
            return refused(PoolErrorKind::NoSpace, format!("no room to grow volume {id} to {size}"));
        }
        let volume = world.find(id)?;
        volume.known.size = old.max(size);
        Ok(volume.known.size)
    }

    async fn modify(&self, id: &VolumeId, settings: &BTreeMap<String, String>) -> PoolResult<()> {
        self.memory.world().find(id)?.settings.extend(settings.clone());
        Ok(())
    }

    async fn get(&self, id: &VolumeId) -> PoolResult<Option<PoolVolume>> {
        Ok(self.memory.world().volumes.get(id).map(|volume| volume.known.clone()))
    }

    async fn list(&self) -> PoolResult<Vec<PoolVolume>> {
        let world = self.memory.world();
        Ok(world.volumes.values().map(|volume| volume.known.clone()).collect())
    }

    async fn capacity(&self, kind: &str, segments: &Segments) -> PoolResult<Capacity> {
        let available = self.memory.world().left(kind, segments)?;
        Ok(Capacity {
            available,
            largest: Some(available),
        })
    }

    async fn export(&self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext> {
        self.memory.world().export(id, node, access)
    }

    async fn unexport(&self, id: &VolumeId, node: &NodeId) -> PoolResult<()> {
        if let Ok(volume) = self.memory.world().find(id) {
            volume.known.exports.remove(node);
        }
        Ok(())
    }

    async fn cut(&self, new: &[NewSnapshot]) -> PoolResult<Vec<PoolSnapshot>> {
        let now = self.runtime.wall();
        let mut world = self.memory.world();
        for cut in new {
            world.find(&cut.volume)?;
            if world
                .snapshots
                .get(&cut.id)
                .is_some_and(|there| there.known.volume != cut.volume)
            {
                return refused(
                    PoolErrorKind::Exists,
                    format!("snapshot {} is of another volume", cut.id),
                );
            }
        }
        let mut made = Vec::with_capacity(new.len());
        for cut in new {
            let source = world.find(&cut.volume)?.clone();
            let known = PoolSnapshot {
                id: cut.id.clone(),
                volume: cut.volume.clone(),
                size: source.known.size,
                cut_at: now,
                ready: true,
            };
            let holds = source.holds;
            let there = world.snapshots.entry(cut.id.clone());
            made.push(there.or_insert(Snapshot { known, holds }).known.clone());
        }
        Ok(made)
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> PoolResult<()> {
        self.memory.world().snapshots.remove(id);
        Ok(())
    }

    async fn snapshot(&self, id: &SnapshotId) -> PoolResult<Option<PoolSnapshot>> {
        Ok(self
            .memory
            .world()
            .snapshots
            .get(id)
            .map(|snapshot| snapshot.known.clone()))
    }

    /// Nobody can write to what only looks like a device: a snapshot holds a file system's first block, or nothing.
    async fn extents(
        &self,
        base: Option<&SnapshotId>,
        target: &SnapshotId,
        offset: Bytes,
        limit: usize,
    ) -> PoolResult<Vec<Extent>> {
        let world = self.memory.world();
        let find = |id: &SnapshotId| {
            let missing = || PoolError::new(PoolErrorKind::NotFound, format!("no snapshot {id}"));
            world
                .snapshots
                .get(id)
                .map(|snapshot| &snapshot.holds)
                .ok_or_else(missing)
        };
        let blank = Content::new(Probe::Blank);
        let old = base.map(find).transpose()?.unwrap_or(&blank);
        let differs = find(target)? != old && offset.0 < 4096 && limit > 0;
        let block = Extent {
            offset,
            len: Bytes(4096 - offset.0.min(4095)),
        };
        Ok(differs.then_some(block).into_iter().collect())
    }
}
