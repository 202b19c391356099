//! The pool of the fake world.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::rig::{FakeSnapshot, FakeVolume, Outside, Trouble, refuse_pool, zone};
use crate::host::Probe;
use crate::pool::{
    Capacity, Extent, NewSnapshot, NewVolume, Pool, PoolErrorKind, PoolResult, PoolSnapshot, PoolVolume, Source,
};
use crate::units::{Access, Bytes, NodeId, PublishContext, Segments, SnapshotId, VolumeId};

#[async_trait]
impl Pool for Outside {
    async fn health(&self) -> PoolResult<()> {
        match self.life.trouble("health").await {
            Some(Trouble::Pool(kind)) => refuse_pool(kind),
            _ => Ok(()),
        }
    }

    async fn create(&self, new: &NewVolume) -> PoolResult<PoolVolume> {
        self.pool("create", |world| {
            if let Some(volume) = world.volumes.get(&new.id) {
                return Ok(volume.known.clone());
            }
            let place = if new.segments.is_empty() {
                zone("a")
            } else {
                new.segments.clone()
            };
            let Some(room) = world.room.get(&place).copied() else {
                return refuse_pool(PoolErrorKind::NoSuchPlace);
            };
            if room < new.size.0 {
                return refuse_pool(PoolErrorKind::NoSpace);
            }
            let copied = match &new.source {
                None => None,
                Some(Source::Volume(id)) => Some(
                    world
                        .volumes
                        .get(id)
                        .map(|source| (source.holds.clone(), source.layer.clone())),
                ),
                Some(Source::Snapshot(id)) => Some(
                    world
                        .snapshots
                        .get(id)
                        .map(|source| (source.holds.clone(), source.layer.clone())),
                ),
            };
            let copied = match copied {
                Some(None) => return refuse_pool(PoolErrorKind::NoSuchSource),
                copied => copied.flatten(),
            };
            let made = new.shared_fs.map(|kind| Probe::FileSystem {
                kind,
                size: new.size,
                uuid: String::new(),
                label: String::new(),
            });
            let known = PoolVolume {
                id: new.id.clone(),
                size: new.size,
                segments: place.clone(),
                source: new.source.clone(),
                exports: BTreeMap::new(),
                encrypted: new.encrypted,
                trouble: String::new(),
            };
            let (holds, layer) = copied.unwrap_or((made.unwrap_or(Probe::Blank), None));
            let volume = FakeVolume {
                known: known.clone(),
                holds,
                layer,
                settings: new.settings.clone(),
            };
            world.room.insert(place, room - new.size.0);
            world.volumes.insert(new.id.clone(), volume);
            Ok(known)
        })
        .await
    }

    async fn delete(&self, id: &VolumeId) -> PoolResult<()> {
        self.pool("delete", |world| {
            let Some(volume) = world.volumes.get(id) else {
                return Ok(());
            };
            if !volume.known.exports.is_empty() {
                return refuse_pool(PoolErrorKind::InUse);
            }
            let (place, size) = (volume.known.segments.clone(), volume.known.size.0);
            *world.room.entry(place).or_default() += size;
            world.volumes.remove(id);
            Ok(())
        })
        .await
    }

    async fn grow(&self, id: &VolumeId, size: Bytes) -> PoolResult<Bytes> {
        self.pool("grow", |world| {
            let Some(volume) = world.volumes.get_mut(id) else {
                return refuse_pool(PoolErrorKind::NotFound);
            };
            let more = size.0.saturating_sub(volume.known.size.0);
            let room = world.room.entry(volume.known.segments.clone()).or_default();
            if *room < more {
                return refuse_pool(PoolErrorKind::NoSpace);
            }
            *room -= more;
            volume.known.size = volume.known.size.max(size);
            Ok(volume.known.size)
        })
        .await
    }

    async fn modify(&self, id: &VolumeId, settings: &BTreeMap<String, String>) -> PoolResult<()> {
        self.pool("modify", |world| {
            let Some(volume) = world.volumes.get_mut(id) else {
                return refuse_pool(PoolErrorKind::NotFound);
            };
            volume.settings.extend(settings.clone());
            Ok(())
        })
        .await
    }

    async fn get(&self, id: &VolumeId) -> PoolResult<Option<PoolVolume>> {
        self.pool("get", |world| {
            Ok(world.volumes.get(id).map(|volume| volume.known.clone()))
        })
        .await
    }

    async fn list(&self) -> PoolResult<Vec<PoolVolume>> {
        self.pool("list", |world| {
            Ok(world.volumes.values().map(|volume| volume.known.clone()).collect())
        })
        .await
    }

    async fn capacity(&self, _: &str, segments: &Segments) -> PoolResult<Capacity> {
        self.pool("capacity", |world| {
            let rooms = world
                .room
                .iter()
                .filter(|(place, _)| segments.is_empty() || *place == segments);
            let rooms: Vec<u64> = rooms.map(|(_, room)| *room).collect();
            if rooms.is_empty() {
                return refuse_pool(PoolErrorKind::NoSuchPlace);
            }
            let largest = rooms.iter().max().map(|room| Bytes(*room));
            Ok(Capacity {
                available: Bytes(rooms.iter().sum()),
                largest,
            })
        })
        .await
    }

    async fn export(&self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext> {
        self.pool("export", |world| {
            if !world.nodes.contains(node) {
                return refuse_pool(PoolErrorKind::NoSuchNode);
            }
            let Some(volume) = world.volumes.get_mut(id) else {
                return refuse_pool(PoolErrorKind::NotFound);
            };
            volume.known.exports.insert(node.clone(), access);
            Ok(PublishContext::from([("portal".to_owned(), format!("{id}@{node}"))]))
        })
        .await
    }

    async fn unexport(&self, id: &VolumeId, node: &NodeId) -> PoolResult<()> {
        self.pool("unexport", |world| {
            if let Some(volume) = world.volumes.get_mut(id) {
                volume.known.exports.remove(node);
            }
            Ok(())
        })
        .await
    }

    async fn cut(&self, snapshots: &[NewSnapshot]) -> PoolResult<Vec<PoolSnapshot>> {
        self.pool("cut", |world| {
            if snapshots.iter().any(|new| !world.volumes.contains_key(&new.volume)) {
                return refuse_pool(PoolErrorKind::NotFound);
            }
            world.cuts += 1;
            let cut_at = Duration::from_secs(world.cuts);
            let mut cut = Vec::new();
            for new in snapshots {
                let volume = &world.volumes[&new.volume];
                let fresh = FakeSnapshot {
                    known: PoolSnapshot {
                        id: new.id.clone(),
                        volume: new.volume.clone(),
                        size: volume.known.size,
                        cut_at,
                        ready: !world.slow_cuts,
                    },
                    holds: volume.holds.clone(),
                    layer: volume.layer.clone(),
                    extents: Vec::new(),
                };
                let snapshot = world.snapshots.entry(new.id.clone()).or_insert(fresh);
                cut.push(snapshot.known.clone());
            }
            Ok(cut)
        })
        .await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> PoolResult<()> {
        self.pool("delete_snapshot", |world| {
            world.snapshots.remove(id);
            Ok(())
        })
        .await
    }

    async fn snapshot(&self, id: &SnapshotId) -> PoolResult<Option<PoolSnapshot>> {
        self.pool("snapshot", |world| {
            Ok(world.snapshots.get(id).map(|snapshot| snapshot.known.clone()))
        })
        .await
    }

    async fn extents(
        &self,
        base: Option<&SnapshotId>,
        target: &SnapshotId,
        offset: Bytes,
        limit: usize,
    ) -> PoolResult<Vec<Extent>> {
        self.pool("extents", |world| {
            let old = base.and_then(|base| world.snapshots.get(base));
            let old = old.map(|base| base.extents.clone()).unwrap_or_default();
            let Some(target) = world.snapshots.get(target) else {
                return refuse_pool(PoolErrorKind::NotFound);
            };
            let here = target.extents.iter().filter(|extent| !old.contains(extent));
            Ok(here
                .filter(|extent| extent.offset >= offset)
                .take(limit)
                .copied()
                .collect())
        })
        .await
    }
}
