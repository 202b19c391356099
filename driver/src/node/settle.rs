//! How each unfinished operation on this machine ends, and what a reboot leaves of the ledger.
//!
//! Leftovers of staging and publishing are undone: nobody was told that they succeeded. Leftovers of unstaging and
//! unpublishing are finished. Either way that is the same: take down what is up, remove what was made, forget.

use std::sync::Arc;

use tonic::Status;

use super::Core;
use crate::gate::{Hold, Subject};
use crate::host::PathKind;
use crate::quirk::Quirk;
use crate::records::{PublicationPhase, StagedPhase, StagedRecord, TargetRecord};
use crate::refuse;
use crate::units::{HostPath, VolumeId};

impl Core {
    /// Settles every leftover, then drops what a reboot has undone. What fails now is tried again in the background: kubelet may have nothing more to ask
    /// about the volume, and as long as it is up here nobody can delete it.
    pub(super) async fn settle_all(self: &Arc<Self>) {
        if self.has(Quirk::RestartBreaksExpand) {
            self.lose_devices();
        }
        let volumes: Vec<VolumeId> = self.ledger.read(|tables| {
            let mut volumes: Vec<_> = tables.staged.keys().cloned().collect();
            volumes.extend(tables.targets.values().map(|record| record.volume.clone()));
            volumes.sort();
            volumes.dedup();
            volumes
        });
        for volume in volumes {
            if let Err(status) = self.settle_after_start(&volume).await {
                tracing::warn!(%volume, "an unfinished operation is not settled yet: {}", status.message());
                self.settle_later(volume);
            }
        }
    }

    async fn settle_after_start(&self, volume: &VolumeId) -> Result<(), Status> {
        self.settle_volume(volume).await?;
        self.drop_what_is_gone(volume).await
    }

    fn settle_later(self: &Arc<Self>, volume: VolumeId) {
        let core = Arc::clone(self);
        self.runtime.spawn(Box::pin(async move {
            let alone = [(Subject::Volume(volume.clone()), Hold::Alone)];
            let settle = || core.settle_after_start(&volume);
            core.gate.settle(&alone, &*core.runtime, settle).await;
        }));
    }

    /// Brings a volume to rest. The caller holds it alone.
    pub(super) async fn settle_volume(&self, volume: &VolumeId) -> Result<(), Status> {
        self.ledger.mend().await?;
        let (targets, staged) = self.ledger.read(|tables| {
            let targets = tables
                .targets_of(volume)
                .filter(|(_, record)| record.phase != PublicationPhase::Published);
            let targets: Vec<_> = targets.map(|(path, record)| (path.clone(), record.clone())).collect();
            let staged = tables
                .staged
                .get(volume)
                .filter(|record| record.phase != StagedPhase::Staged);
            (targets, staged.cloned())
        });
        for (path, record) in targets {
            self.remove_target(volume, &path, record.capability.form.is_block())
                .await?;
            self.put_target(&path, None).await?;
        }
        if let Some(record) = staged {
            self.take_down(volume, &record).await?;
            self.put_staged(volume, None).await?;
        }
        Ok(())
    }

    /// Undoes an operation that failed, and says what to answer. What cannot be undone now is settled by the next call:
    /// the answer leaves open what is there, so that one comes.
    pub(super) async fn undo(&self, volume: &VolumeId, failed: Status) -> Status {
        match self.settle_volume(volume).await {
            Ok(()) => failed,
            Err(status) => {
                tracing::warn!(%volume, "a failed operation is not undone yet: {}", status.message());
                refuse::open(failed)
            }
        }
    }

    /// A reboot empties the mount table and takes the devices away: whatever was at rest and is not there any more is
    /// forgotten, since it will be asked for anew. An ephemeral volume is kept: only its target's end deletes it.
    async fn drop_what_is_gone(&self, volume: &VolumeId) -> Result<(), Status> {
        let (staged, targets) = self.ledger.read(|tables| {
            let targets: Vec<(HostPath, TargetRecord)> = tables
                .targets_of(volume)
                .map(|(path, record)| (path.clone(), record.clone()))
                .collect();
            (tables.staged.get(volume).cloned(), targets)
        });
        if staged.as_ref().is_some_and(|record| record.ephemeral) {
            return Ok(());
        }
        let device = self.attached(volume).await?;
        let mut remaining = targets.len();
        for (path, record) in targets {
            let is_there = match &device {
                Some(device) => self.is_mounted(&path, device).await?,
                None => false,
            };
            if !is_there {
                self.remove_target(volume, &path, record.capability.form.is_block())
                    .await?;
                self.put_target(&path, None).await?;
                remaining -= 1;
            }
        }
        if let Some(record) = staged.filter(|_| remaining == 0)
            && !self.is_up(volume, &record).await?
        {
            self.take_down(volume, &record).await?;
            self.put_staged(volume, None).await?;
        }
        Ok(())
    }

    /// Unmounts a target and removes the path that was made for it.
    pub(super) async fn remove_target(
        &self,
        volume: &VolumeId,
        target: &HostPath,
        is_block: bool,
    ) -> Result<(), Status> {
        self.unmount_own(volume, target).await?;
        let kind = self.host().kind(target).await;
        match (
            kind.map_err(|error| refuse::host("looking at the target path", &error))?,
            is_block,
        ) {
            (Some(PathKind::Directory), false) => self.remove_directory(target).await,
            (Some(PathKind::File), true) => self.remove_file(target).await,
            // Nothing, or something that the driver never makes for such a target.
            _ => Ok(()),
        }
    }

    /// A target that the ledger does not know: if this volume is mounted there all the same, it is taken away.
    pub(super) async fn sweep_unknown_target(&self, volume: &VolumeId, target: &HostPath) -> Result<(), Status> {
        let Some(device) = self.attached(volume).await? else {
            return Ok(());
        };
        let Some(source) = self.source_at(target).await? else {
            return Ok(());
        };
        if source.device() != Some(&device) {
            return Ok(());
        }
        let is_block = matches!(source, crate::host::MountSource::Device(_));
        self.remove_target(volume, target, is_block).await
    }

    /// Puts a target back that could not be taken away (a file in it is open), if it is all still there.
    pub(super) async fn restore_target(
        &self,
        volume: &VolumeId,
        target: &HostPath,
        record: TargetRecord,
        staged: Option<StagedRecord>,
    ) -> Result<(), Status> {
        let Ok(Some(device)) = self.attached(volume).await else {
            return Ok(());
        };
        if !self.is_mounted(target, &device).await.unwrap_or(false) {
            return Ok(());
        }
        self.ledger
            .update(|draft| {
                draft.target(target, Some(record));
                if let Some(staged) = staged {
                    draft.staged(volume, Some(staged));
                }
                Ok(())
            })
            .await
    }

    pub(super) async fn put_staged(&self, volume: &VolumeId, record: Option<StagedRecord>) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                draft.staged(volume, record);
                Ok(())
            })
            .await
    }

    pub(super) async fn put_target(&self, path: &HostPath, record: Option<TargetRecord>) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                draft.target(path, record);
                Ok(())
            })
            .await
    }
}
