//! How unfinished operations on snapshots and groups end: a cut that was not answered is undone, a deletion finished.
//!
//! Either way the pool deletes what there may be, and the ledger forgets. Every step may be repeated.

use tonic::Status;

use super::Core;
use super::settle::Leftover;
use crate::pool::PoolErrorKind;
use crate::records::{GroupRecord, SnapshotPhase, SnapshotRecord};
use crate::refuse;
use crate::units::{GroupId, SnapshotId};

impl Core {
    /// The snapshot as the ledger knows it.
    pub(super) fn snapshot(&self, id: &SnapshotId) -> Option<SnapshotRecord> {
        self.ledger.read(|tables| tables.snapshots.get(id).cloned())
    }

    /// The snapshot, if it is there and stays for now.
    pub(super) fn whole_snapshot(&self, id: &SnapshotId) -> Result<SnapshotRecord, Status> {
        let record = self.snapshot(id);
        record
            .filter(|record| record.phase == SnapshotPhase::Ready)
            .ok_or_else(|| Status::not_found(format!("snapshot {id} does not exist")))
    }

    /// The group as the ledger knows it.
    pub(super) fn group(&self, id: &GroupId) -> Option<GroupRecord> {
        self.ledger.read(|tables| tables.groups.get(id).cloned())
    }

    /// Brings a snapshot to rest. The caller holds it alone; one of a group is settled with its group.
    pub(super) async fn settle_snapshot(&self, id: &SnapshotId) -> Result<(), Status> {
        self.ledger.mend().await?;
        match self.snapshot(id) {
            Some(record) if record.phase != SnapshotPhase::Ready && record.group.is_some() => Err(Status::aborted(
                format!("an earlier operation on the group of snapshot {id} is not settled yet"),
            )),
            Some(record) if record.phase != SnapshotPhase::Ready => match self.finish_snapshot_deletion(id).await {
                // In use after all: it is at rest again, and that is what settling is for.
                Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(()),
                result => result,
            },
            _ => Ok(()),
        }
    }

    /// Brings a group to rest. The caller holds it and its snapshots alone.
    pub(super) async fn settle_group(&self, id: &GroupId) -> Result<(), Status> {
        self.ledger.mend().await?;
        match self.group(id) {
            Some(group) if group.phase != SnapshotPhase::Ready => self.finish_group_deletion(id).await,
            _ => Ok(()),
        }
    }

    /// Undoes a cut that failed.
    pub(super) async fn undo_cut(self: &std::sync::Arc<Self>, leftover: &Leftover, nothing_happened: bool) {
        let result = match leftover {
            Leftover::Snapshot(id) if nothing_happened => self.forget_snapshots(std::slice::from_ref(id), None).await,
            Leftover::Snapshot(id) => self.finish_snapshot_deletion(id).await,
            Leftover::Group(id) if nothing_happened => {
                let snapshots = self.group(id).map(|group| group.snapshots).unwrap_or_default();
                self.forget_snapshots(&snapshots, Some(id)).await
            }
            Leftover::Group(id) => self.finish_group_deletion(id).await,
            Leftover::Volume(_) | Leftover::Publication(..) => Ok(()),
        };
        if result.is_err() {
            self.settle_later(leftover.clone());
        }
    }

    /// Deletes a snapshot whose deletion is on record, or whose cut was never answered.
    pub(super) async fn finish_snapshot_deletion(&self, id: &SnapshotId) -> Result<(), Status> {
        match self.pool.delete_snapshot(id).await {
            Ok(()) => self.forget_snapshots(std::slice::from_ref(id), None).await,
            Err(error) => {
                if error.kind == PoolErrorKind::InUse {
                    self.rest_snapshot(id).await?;
                }
                Err(refuse::pool("deleting the snapshot", &error))
            }
        }
    }

    /// A snapshot that cannot be deleted now is as it was.
    async fn rest_snapshot(&self, id: &SnapshotId) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                if let Some(mut record) = draft.tables.snapshots.get(id).cloned()
                    && record.phase == SnapshotPhase::Deleting
                {
                    record.phase = SnapshotPhase::Ready;
                    draft.snapshot(id, Some(record));
                }
                Ok(())
            })
            .await
    }

    /// Deletes a group whose deletion is on record, or whose cut was never answered. Some of its snapshots may be gone
    /// already, so there is no way back.
    pub(super) async fn finish_group_deletion(&self, id: &GroupId) -> Result<(), Status> {
        let snapshots = self.group(id).map(|group| group.snapshots).unwrap_or_default();
        for snapshot in &snapshots {
            let deleted = self.pool.delete_snapshot(snapshot).await;
            deleted.map_err(|error| refuse::pool("deleting the group's snapshots", &error))?;
        }
        self.forget_snapshots(&snapshots, Some(id)).await
    }

    async fn forget_snapshots(&self, ids: &[SnapshotId], group: Option<&GroupId>) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                ids.iter().for_each(|id| draft.snapshot(id, None));
                if let Some(group) = group {
                    draft.group(group, None);
                }
                Ok(())
            })
            .await
    }
}
