//! The storage system as one incarnation of a driver's process manages it: every operation waits for its turn, and none happens after its death.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use wavetank_driver::pool::{Capacity, Extent, NewSnapshot, NewVolume, PoolSnapshot, PoolVolume};
use wavetank_driver::{
    Access, Bytes, NodeId, Pool, PoolError, PoolErrorKind, PoolResult, PublishContext, Segments, SnapshotId, VolumeId,
};

use super::storage::{Managed, Storage};
use super::turns::{Fence, Turn, Turns};

/// The modelled [`Pool`].
#[derive(Clone)]
pub struct ModelPool {
    storage: Storage,
    fence: Fence,
    turns: Arc<dyn Turns>,
}

impl ModelPool {
    /// The storage system for one incarnation of a process.
    pub fn new(storage: Storage, fence: Fence, turns: Arc<dyn Turns>) -> ModelPool {
        ModelPool { storage, fence, turns }
    }

    async fn step<T: Send>(
        &self,
        site: &'static str,
        subject: &str,
        effect: impl FnOnce(&mut Managed<'_>) -> PoolResult<T> + Send,
    ) -> PoolResult<T> {
        let turn = self.turns.turn(site, subject).await;
        if self.fence.is_frozen() {
            return Err(dead());
        }
        match turn {
            Turn::Proceed => self.storage.manage(effect),
            Turn::Fail(trouble) => Err(trouble.in_pool(subject)),
            Turn::Pretend(trouble) => self.storage.manage(effect).and(Err(trouble.in_pool(subject))),
            Turn::Fenced => Err(dead()),
        }
    }
}

fn dead() -> PoolError {
    PoolError::new(PoolErrorKind::Fenced, "the process is dead")
}

#[async_trait]
impl Pool for ModelPool {
    async fn health(&self) -> PoolResult<()> {
        if self.fence.is_frozen() {
            return Err(dead());
        }
        self.storage.manage(|_| Ok(()))
    }

    async fn create(&self, volume: &NewVolume) -> PoolResult<PoolVolume> {
        let subject = volume.id.as_str();
        self.step("pool.create", subject, |pool| pool.create(volume)).await
    }

    async fn delete(&self, id: &VolumeId) -> PoolResult<()> {
        self.step("pool.delete", id.as_str(), |pool| pool.delete(id)).await
    }

    async fn grow(&self, id: &VolumeId, size: Bytes) -> PoolResult<Bytes> {
        self.step("pool.grow", id.as_str(), |pool| pool.grow(id, size)).await
    }

    async fn modify(&self, id: &VolumeId, settings: &BTreeMap<String, String>) -> PoolResult<()> {
        let subject = id.as_str();
        self.step("pool.modify", subject, |pool| pool.modify(id, settings))
            .await
    }

    async fn get(&self, id: &VolumeId) -> PoolResult<Option<PoolVolume>> {
        self.step("pool.get", id.as_str(), |pool| Ok(pool.get(id))).await
    }

    async fn list(&self) -> PoolResult<Vec<PoolVolume>> {
        self.step("pool.list", "", |pool| Ok(pool.list())).await
    }

    async fn capacity(&self, kind: &str, segments: &Segments) -> PoolResult<Capacity> {
        self.step("pool.capacity", kind, |pool| pool.capacity(kind, segments))
            .await
    }

    async fn export(&self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext> {
        let subject = id.as_str();
        self.step("pool.export", subject, |pool| pool.export(id, node, access))
            .await
    }

    async fn unexport(&self, id: &VolumeId, node: &NodeId) -> PoolResult<()> {
        let subject = id.as_str();
        self.step("pool.unexport", subject, |pool| {
            pool.unexport(id, node);
            Ok(())
        })
        .await
    }

    async fn cut(&self, snapshots: &[NewSnapshot]) -> PoolResult<Vec<PoolSnapshot>> {
        let subject = snapshots.first().map_or("", |cut| cut.id.as_str());
        let turns = Arc::clone(&self.turns);
        self.step("pool.cut", subject, |pool| pool.cut(snapshots, turns.wall()))
            .await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> PoolResult<()> {
        let subject = id.as_str();
        self.step("pool.delete_snapshot", subject, |pool| {
            pool.delete_snapshot(id);
            Ok(())
        })
        .await
    }

    async fn snapshot(&self, id: &SnapshotId) -> PoolResult<Option<PoolSnapshot>> {
        let subject = id.as_str();
        self.step("pool.snapshot", subject, |pool| Ok(pool.snapshot(id))).await
    }

    async fn extents(
        &self,
        base: Option<&SnapshotId>,
        target: &SnapshotId,
        offset: Bytes,
        limit: usize,
    ) -> PoolResult<Vec<Extent>> {
        let subject = target.as_str();
        self.step("pool.extents", subject, |pool| {
            pool.extents(base, target, offset, limit)
        })
        .await
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
