//! How each unfinished operation ends: the last steps that operations share with the recovery of leftovers.
//!
//! A leftover is a record that is not at rest although no operation is at work on it: its process died, or the pool
//! could not be reached. It is settled at start-up, else in the background, else by the next call that holds the
//! volume alone. Every step may be repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::Core;
use crate::gate::{Hold, Subject};
use crate::ledger::Tables;
use crate::pool::PoolErrorKind;
use crate::quirk::Quirk;
use crate::records::{PublicationPhase, SnapshotPhase, VolumePhase, VolumeRecord};
use crate::refuse;
use crate::units::{Bytes, GroupId, NodeId, SnapshotId, VolumeId};

/// Something that is not at rest.
#[derive(Clone, Debug)]
pub(super) enum Leftover {
    Volume(VolumeId),
    Publication(VolumeId, NodeId),
    Snapshot(SnapshotId),
    Group(GroupId),
}

impl Leftover {
    /// All that the ledger knows.
    fn all(tables: &Tables) -> Vec<Leftover> {
        let volumes = tables.volumes.iter();
        let volumes = volumes.filter(|(_, record)| record.phase != VolumePhase::Ready);
        let publications = tables.publications.iter();
        let publications = publications.filter(|(_, record)| record.phase != PublicationPhase::Published);
        let groups = tables.groups.iter();
        let groups = groups.filter(|(_, record)| record.phase != SnapshotPhase::Ready);
        let snapshots = tables.snapshots.iter();
        let snapshots = snapshots.filter(|(_, record)| record.phase != SnapshotPhase::Ready && record.group.is_none());
        volumes
            .map(|(id, _)| Leftover::Volume(id.clone()))
            .chain(publications.map(|((volume, node), _)| Leftover::Publication(volume.clone(), node.clone())))
            .chain(groups.map(|(id, _)| Leftover::Group(id.clone())))
            .chain(snapshots.map(|(id, _)| Leftover::Snapshot(id.clone())))
            .collect()
    }

    fn is_at_rest(&self, tables: &Tables) -> bool {
        match self {
            Leftover::Volume(id) => {
                let record = tables.volumes.get(id);
                record.is_none_or(|record| record.phase == VolumePhase::Ready)
            }
            Leftover::Publication(volume, node) => {
                let record = tables.publications.get(&(volume.clone(), node.clone()));
                record.is_none_or(|record| record.phase == PublicationPhase::Published)
            }
            Leftover::Snapshot(id) => {
                let record = tables.snapshots.get(id);
                record.is_none_or(|record| record.phase == SnapshotPhase::Ready)
            }
            Leftover::Group(id) => {
                let record = tables.groups.get(id);
                record.is_none_or(|record| record.phase == SnapshotPhase::Ready)
            }
        }
    }

    /// What is held while it is settled.
    fn subjects(&self, tables: &Tables) -> Vec<(Subject, Hold)> {
        match self {
            Leftover::Volume(id) => vec![(Subject::Volume(id.clone()), Hold::Alone)],
            Leftover::Publication(volume, node) => vec![
                (Subject::Volume(volume.clone()), Hold::Together),
                (Subject::Publication(volume.clone(), node.clone()), Hold::Alone),
            ],
            Leftover::Snapshot(id) => vec![(Subject::Snapshot(id.clone()), Hold::Alone)],
            Leftover::Group(id) => {
                let members = tables.groups.get(id).map(|group| group.snapshots.clone());
                let members = members.unwrap_or_default().into_iter();
                let group = (Subject::Group(id.clone()), Hold::Alone);
                std::iter::once(group)
                    .chain(members.map(|id| (Subject::Snapshot(id), Hold::Alone)))
                    .collect()
            }
        }
    }
}

impl Core {
    /// Settles every leftover; what cannot be settled now is tried again in the background.
    pub(super) async fn settle_all(self: Arc<Self>) {
        if self.has(Quirk::RestartForgets) {
            self.forget_everything().await;
        }
        for leftover in self.ledger.read(Leftover::all) {
            if let Err(status) = self.settle(&leftover).await {
                tracing::warn!(
                    ?leftover,
                    "an unfinished operation is not settled yet: {}",
                    status.message()
                );
                self.settle_later(leftover);
            }
        }
    }

    async fn settle(&self, leftover: &Leftover) -> Result<(), Status> {
        match leftover {
            Leftover::Volume(id) => self.settle_volume(id).await,
            Leftover::Publication(volume, node) => self.settle_publication(volume, node).await,
            Leftover::Snapshot(id) => self.settle_snapshot(id).await,
            Leftover::Group(id) => self.settle_group(id).await,
        }
    }

    /// Brings a volume to rest. The caller holds it alone.
    pub(super) async fn settle_volume(&self, id: &VolumeId) -> Result<(), Status> {
        self.ledger.mend().await?;
        let Some(record) = self.record(id) else { return Ok(()) };
        match record.phase {
            VolumePhase::Ready => Ok(()),
            VolumePhase::Creating if self.has(Quirk::InterruptedCreateBelieved) => self.rest(id, |_| {}).await,
            VolumePhase::Creating => self.finish_uncreation(id, false).await,
            VolumePhase::Growing(_) if self.has(Quirk::ExpandStuckAfterFailure) => {
                Err(Status::internal("an earlier expansion was cut short"))
            }
            VolumePhase::Growing(size) => self.finish_growth(id, size).await.map(|_| ()),
            VolumePhase::Modifying(settings) => self.finish_modification(id, &settings).await,
            VolumePhase::Deleting => match self.finish_deletion(id).await {
                // In use after all: the volume is at rest again, and that is what settling is for.
                Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(()),
                result => result,
            },
        }
    }

    /// Brings a publication to rest: one that was never answered is taken back. The caller holds it alone.
    pub(super) async fn settle_publication(&self, volume: &VolumeId, node: &NodeId) -> Result<(), Status> {
        self.ledger.mend().await?;
        let phase = self.ledger.read(|tables| {
            let record = tables.publications.get(&(volume.clone(), node.clone()));
            record.map(|record| record.phase)
        });
        match phase {
            None | Some(PublicationPhase::Published) => Ok(()),
            Some(PublicationPhase::Publishing) if self.has(Quirk::InterruptedAttachBelieved) => {
                self.believe(volume, node).await
            }
            Some(PublicationPhase::Publishing | PublicationPhase::Unpublishing) => {
                self.finish_unpublication(volume, std::slice::from_ref(node)).await
            }
        }
    }

    /// Undoes a creation that failed.
    pub(super) async fn undo_creation(self: &Arc<Self>, id: &VolumeId, nothing_happened: bool) {
        if self.finish_uncreation(id, nothing_happened).await.is_err() {
            self.settle_volume_later(id);
        }
    }

    async fn finish_uncreation(&self, id: &VolumeId, nothing_happened: bool) -> Result<(), Status> {
        if !nothing_happened {
            self.pool
                .delete(id)
                .await
                .map_err(|error| refuse::pool("undoing the creation", &error))?;
        }
        self.forget(id).await
    }

    pub(super) async fn forget(&self, id: &VolumeId) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                draft.volume(id, None);
                Ok(())
            })
            .await
    }

    /// Puts a volume to rest, changed as `change` says.
    async fn rest(&self, id: &VolumeId, change: impl FnOnce(&mut VolumeRecord) + Send) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                if let Some(mut record) = draft.tables.volumes.get(id).cloned() {
                    record.phase = VolumePhase::Ready;
                    change(&mut record);
                    draft.volume(id, Some(record));
                }
                Ok(())
            })
            .await
    }

    /// Deletes a volume whose deletion is on record.
    pub(super) async fn finish_deletion(&self, id: &VolumeId) -> Result<(), Status> {
        if self.has(Quirk::DeleteCutsOffUsers) {
            self.cut_off_users(id).await?;
        }
        if self.has(Quirk::RecursiveDestroy) {
            self.destroy_copies(id).await?;
        }
        if self.has(Quirk::ParentCleanupTooBroad) {
            self.clear_beside(id).await?;
        }
        match self.pool.delete(id).await {
            Ok(()) => self.forget(id).await,
            Err(_) if self.has(Quirk::DeleteBelievesBackend) => self.forget(id).await,
            Err(error) => {
                if error.kind == PoolErrorKind::InUse {
                    self.rest(id, |_| {}).await?;
                }
                Err(refuse::pool("deleting the volume", &error))
            }
        }
    }

    /// Grows a volume whose growth is on record. If the pool refuses for certain, the volume keeps its size.
    pub(super) async fn finish_growth(&self, id: &VolumeId, size: Bytes) -> Result<Bytes, Status> {
        match self.pool.grow(id, size).await {
            Ok(size) => {
                self.rest(id, |record| record.size = record.size.max(size)).await?;
                Ok(size)
            }
            Err(error) => {
                if refuse::is_certain(error.kind) {
                    self.rest(id, |_| {}).await?;
                }
                Err(refuse::pool("growing the volume", &error))
            }
        }
    }

    /// Changes settings whose change is on record. If the pool refuses for certain, nothing has changed.
    pub(super) async fn finish_modification(
        &self,
        id: &VolumeId,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), Status> {
        match self.pool.modify(id, settings).await {
            Ok(()) => self.rest(id, |record| record.settings.extend(settings.clone())).await,
            Err(error) => {
                if refuse::is_certain(error.kind) {
                    self.rest(id, |_| {}).await?;
                }
                Err(refuse::pool("changing the volume", &error))
            }
        }
    }

    /// Undoes a publication that failed.
    pub(super) async fn undo_publication(self: &Arc<Self>, volume: &VolumeId, node: &NodeId, nothing_happened: bool) {
        let nodes = std::slice::from_ref(node);
        let result = if nothing_happened {
            self.forget_publications(volume, nodes).await
        } else {
            self.finish_unpublication(volume, nodes).await
        };
        if result.is_err() {
            self.settle_publication_later(volume, node);
        }
    }

    /// Cuts nodes off from a volume.
    pub(super) async fn finish_unpublication(&self, volume: &VolumeId, nodes: &[NodeId]) -> Result<(), Status> {
        for node in nodes {
            if self.has(Quirk::DetachDoesNotFence) {
                continue;
            }
            if self.has(Quirk::DetachAnsweredEarly) {
                self.unexport_later(volume, node, Duration::from_secs(30));
                continue;
            }
            let cut = self.pool.unexport(volume, node).await;
            if cut.is_err() && self.has(Quirk::LateDetachFires) {
                self.unexport_later(volume, node, Duration::from_secs(60));
            }
            if cut.is_err() && self.has(Quirk::DetachErrorDropped) {
                continue;
            }
            cut.map_err(|error| refuse::pool("unpublishing the volume", &error))?;
        }
        self.forget_publications(volume, nodes).await
    }

    async fn forget_publications(&self, volume: &VolumeId, nodes: &[NodeId]) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                nodes.iter().for_each(|node| draft.publication(volume, node, None));
                Ok(())
            })
            .await
    }

    /// Settles a publication in the background, until it rests.
    pub(super) fn settle_publication_later(self: &Arc<Self>, volume: &VolumeId, node: &NodeId) {
        self.settle_later(Leftover::Publication(volume.clone(), node.clone()));
    }

    /// Settles a volume in the background, until it rests.
    pub(super) fn settle_volume_later(self: &Arc<Self>, id: &VolumeId) {
        self.settle_later(Leftover::Volume(id.clone()));
    }

    /// Settles something in the background, until it rests.
    pub(super) fn settle_later(self: &Arc<Self>, leftover: Leftover) {
        if self.ledger.read(|tables| leftover.is_at_rest(tables)) {
            return;
        }
        let core = Arc::clone(self);
        let subjects = self.ledger.read(|tables| leftover.subjects(tables));
        self.runtime.spawn(Box::pin(async move {
            let settle = || core.settle(&leftover);
            core.gate.settle(&subjects, &*core.runtime, settle).await;
        }));
    }
}
