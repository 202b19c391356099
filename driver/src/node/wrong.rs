//! What the node does instead of the honest thing, for those of its [`Quirk`](crate::Quirk)s that take more than a line.
//!
//! Nothing here is reached without one, apart from [`Memory`], which then is empty.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tonic::Status;

use super::Core;
use super::device::new_fs;
use crate::host::{HostResult, Mount, NewFs};
use crate::records::StagedRecord;
use crate::refuse;
use crate::units::{Bytes, DevicePath, FsKind, VolumeId};

/// What a wrong driver remembers in memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Volumes whose devices an earlier process knew.
    lost: Mutex<BTreeSet<VolumeId>>,
    /// The device that was attached last.
    last: Mutex<Option<DevicePath>>,
}

impl Memory {
    pub(super) fn refuse_lost(&self, volume: &VolumeId) -> Result<(), Status> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.contains(volume) {
            return Err(Status::internal(format!("the device of volume {volume} is not there")));
        }
        Ok(())
    }
}

/// A file system over whatever is there.
fn over(volume: &VolumeId, kind: FsKind) -> NewFs {
    NewFs {
        forced: true,
        ..new_fs(volume, kind)
    }
}

impl Core {
    pub(super) fn lose_devices(&self) {
        let staged = self.ledger.read(|tables| tables.staged.keys().cloned().collect());
        *self.wrong.lost.lock().unwrap_or_else(PoisonError::into_inner) = staged;
    }

    pub(super) fn less_what_is_staged(&self, limit: i64) -> i64 {
        let staged = self.ledger.read(|tables| tables.staged.len());
        let left = limit - i64::try_from(staged).unwrap_or(i64::MAX);
        if limit == 0 { 0 } else { left.max(1) }
    }

    pub(super) async fn last_device(&self, device: DevicePath) -> Result<DevicePath, Status> {
        let last = || self.wrong.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last() = Some(device.clone());
        let size = self.host().device_size(&device).await;
        size.map_err(|error| refuse::host("measuring the device", &error))?;
        let found = last().clone();
        Ok(found.unwrap_or(device))
    }

    pub(super) async fn format_and_mount(&self, volume: &VolumeId, mount: &Mount) -> HostResult<()> {
        self.host().mkfs(&mount.device, &over(volume, mount.kind)).await?;
        self.host().mount(mount).await
    }

    pub(super) async fn format(
        &self,
        volume: &VolumeId,
        device: &DevicePath,
        kind: FsKind,
    ) -> Result<(FsKind, bool), Status> {
        let made = self.host().mkfs(device, &over(volume, kind)).await;
        made.map_err(|error| refuse::host("making the file system", &error))?;
        Ok((kind, false))
    }

    pub(super) async fn grow_then_rescan(&self, record: &StagedRecord, device: &DevicePath) -> Result<Bytes, Status> {
        if !record.capability.form.is_block() {
            let grown = self.host().grow_fs(&record.path).await;
            grown.map_err(|error| refuse::host("growing the file system", &error))?;
        }
        let size = self.host().rescan(device).await;
        size.map_err(|error| refuse::host("measuring the device", &error))
    }
}
