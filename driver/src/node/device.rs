//! A volume's device and the file system on it: up, down, and whether it is up. What lies between the two in an
//! encrypted volume is `layer`'s.
//!
//! Both ways may be repeated from any point between. Formatting happens at one place, [`Core::make_mountable`], and
//! only on a device that has just been read as blank.

use tonic::Status;

use super::Core;
use super::layer::Reach;
use crate::check::Form;
use crate::host::{HostErrorKind, Mount, MountSource, NewFs, Probe};
use crate::quirk::Quirk;
use crate::records::StagedRecord;
use crate::refuse;
use crate::units::{Bytes, DevicePath, FsKind, HostPath, VolumeId};

/// Mounts stacked over one another at one path before the driver gives up taking them away.
const STACKED: usize = 16;
/// File systems count in blocks of this size: a smaller rest of the device is never used.
const BLOCK: Bytes = Bytes(4096);

impl Core {
    /// Attaches the volume and, unless it is a block volume, mounts its file system at the record's path. What is up
    /// already stays.
    pub(super) async fn bring_up(
        &self,
        volume: &VolumeId,
        record: &StagedRecord,
        reach: &Reach,
    ) -> Result<DevicePath, Status> {
        let exported;
        let context = if record.exported {
            let context = self.pool.export(volume, &self.seat.id, record.access).await;
            exported = context.map_err(|error| refuse::pool("reaching for the volume", &error))?;
            &exported
        } else {
            &reach.context
        };
        let attached = self.host().attach(volume, context, record.access).await;
        attached.map_err(|error| match error.kind {
            HostErrorKind::NotFound => Status::not_found(format!("volume {volume} does not reach this node: {error}")),
            _ => refuse::host("attaching the volume", &error),
        })?;
        let device = self.identified(volume).await?;
        if !self.has(Quirk::OldSizeBelieved) {
            self.look_again(&device).await?;
        }
        let device = if self.has(Quirk::DeviceMixedUp) {
            self.last_device(device).await?
        } else {
            device
        };
        let device = if record.encrypted {
            self.unlock(volume, record, &device, reach).await?
        } else {
            device
        };
        if !record.capability.form.is_block() {
            self.mount(volume, record, &device).await?;
        }
        Ok(device)
    }

    /// The device that is the volume's by its identity: its link may still lead to what was there before, or nowhere.
    async fn identified(&self, volume: &VolumeId) -> Result<DevicePath, Status> {
        let lost = || Status::unavailable(format!("the device of volume {volume} has gone again"));
        self.bare(volume).await?.ok_or_else(lost)
    }

    /// A device that has just appeared may show the size of the one that was there before.
    async fn look_again(&self, device: &DevicePath) -> Result<Bytes, Status> {
        let size = self.host().rescan(device).await;
        size.map_err(|error| refuse::host("measuring the device", &error))
    }

    async fn mount(&self, volume: &VolumeId, record: &StagedRecord, device: &DevicePath) -> Result<(), Status> {
        let Form::Mount { fs, flags } = &record.capability.form else {
            return Ok(());
        };
        if self.is_mounted(&record.path, device).await? {
            return Ok(());
        }
        let kind = self.make_mountable(volume, record, *fs, device).await?;
        let mut is_small = kind.1 && !record.access.is_read_only() && !self.has(Quirk::CopyNotGrown);
        if is_small {
            let grown = self.host().grow_idle(device, kind.0).await;
            is_small = !grown.map_err(|error| refuse::host("growing the file system", &error))?;
        }
        if record.private {
            self.make_directories(&record.path).await?;
        }
        let mut flags = flags.clone();
        // A copy has its source's UUID, which XFS else mounts once per machine.
        if kind.0 == FsKind::Xfs && !flags.iter().any(|flag| flag == "nouuid") {
            flags.push("nouuid".to_owned());
        }
        let mount = Mount {
            device: device.clone(),
            target: record.path.clone(),
            kind: kind.0,
            flags,
            access: record.access,
        };
        let mut mounted = self.host().mount(&mount).await;
        if mounted.is_err() && self.has(Quirk::MountErrorFormats) {
            mounted = self.format_and_mount(volume, &mount).await;
        }
        mounted.map_err(|error| match error.kind {
            HostErrorKind::Invalid => Status::invalid_argument(format!("mounting the volume: {error}")),
            _ => refuse::host("mounting the volume", &error),
        })?;
        if is_small {
            let grown = self.host().grow_fs(&record.path).await;
            grown.map_err(|error| refuse::host("growing the file system", &error))?;
        }
        if let Some(group) = record.group.filter(|_| !record.access.is_read_only()) {
            let given = self.host().set_group(&record.path, group).await;
            given.map_err(|error| refuse::host("giving the file system to its group", &error))?;
        }
        Ok(())
    }

    /// Sees to it that the device holds a file system, and returns which, and whether it is smaller than its device.
    async fn make_mountable(
        &self,
        volume: &VolumeId,
        record: &StagedRecord,
        asked: Option<FsKind>,
        device: &DevicePath,
    ) -> Result<(FsKind, bool), Status> {
        let probe = self.host().probe(device).await;
        if probe.is_err() && self.has(Quirk::UnreadableMeansBlank) {
            return self
                .format(volume, device, asked.unwrap_or(self.config.default_fs))
                .await;
        }
        match probe.map_err(|error| refuse::host("reading the device", &error))? {
            Probe::Blank if !record.may_format() => Err(blank()),
            Probe::Blank => {
                let kind = asked.unwrap_or(self.config.default_fs);
                let made = self.host().mkfs(device, &new_fs(volume, kind)).await;
                made.map_err(|error| refuse::host("making the file system", &error))?;
                Ok((kind, false))
            }
            Probe::FileSystem { kind, .. } if asked.is_some_and(|asked| asked != kind) => Err(
                Status::failed_precondition(format!("the volume holds {kind}, and another file system is asked")),
            ),
            Probe::FileSystem { kind, size, .. } => {
                if record.may_format() {
                    let checked = self.host().fsck(device, kind).await;
                    checked.map_err(|error| refuse::host("checking the file system", &error))?;
                }
                let room = self.host().device_size(device).await;
                let room = room.map_err(|error| refuse::host("measuring the device", &error))?;
                Ok((kind, size.round_down(BLOCK) < room.round_down(BLOCK)))
            }
            Probe::Encrypted { .. } => Err(never_overwritten("an encryption layer")),
            Probe::Foreign(what) => Err(never_overwritten(&what)),
        }
    }

    /// Unmounts and detaches the volume, and undoes whatever else the driver did of its own accord for it.
    pub(super) async fn take_down(&self, volume: &VolumeId, record: &StagedRecord) -> Result<(), Status> {
        if !record.capability.form.is_block() {
            self.unmount_own(volume, &record.path).await?;
        }
        if !self.has(Quirk::DeviceLeftOnUnstage) {
            self.detach(volume).await?;
        }
        if record.private && !record.capability.form.is_block() {
            self.remove_directory(&record.path).await?;
        }
        if record.exported {
            let cut = self.pool.unexport(volume, &self.seat.id).await;
            cut.map_err(|error| refuse::pool("letting go of the volume", &error))?;
        }
        if record.ephemeral {
            let deleted = self.pool.delete(volume).await;
            deleted.map_err(|error| refuse::pool("deleting the ephemeral volume", &error))?;
        }
        Ok(())
    }

    /// Is the volume up as the record says?
    pub(super) async fn is_up(&self, volume: &VolumeId, record: &StagedRecord) -> Result<bool, Status> {
        match self.shown(volume, record).await? {
            None => Ok(false),
            Some(_) if record.capability.form.is_block() => Ok(true),
            Some(device) => self.is_mounted(&record.path, &device).await,
        }
    }

    /// Takes away a device that died: the storage system had cut this node off, so the device and what is mounted from it
    /// answer nothing any more, even after the volume reaches this node again.
    pub(super) async fn bury(&self, volume: &VolumeId, record: &StagedRecord) -> Result<(), Status> {
        let Some(device) = self.bare(volume).await? else {
            return Ok(());
        };
        match self.host().probe(&device).await {
            Err(error) if error.kind == HostErrorKind::Io => {}
            _ => return Ok(()),
        }
        let target = self
            .ledger
            .read(|tables| tables.targets_of(volume).map(|(path, _)| path.clone()).next());
        if let Some(target) = target {
            let text = format!("the device of volume {volume} is dead, and is still published at {target}");
            return Err(Status::unavailable(text));
        }
        if !record.capability.form.is_block() {
            self.unmount_own(volume, &record.path).await?;
        }
        self.detach(volume).await
    }

    /// Is this device what one sees at `path`?
    pub(super) async fn is_mounted(&self, path: &HostPath, device: &DevicePath) -> Result<bool, Status> {
        Ok(self
            .source_at(path)
            .await?
            .is_some_and(|source| source.device() == Some(device)))
    }

    /// What is mounted at `path`.
    pub(super) async fn source_at(&self, path: &HostPath) -> Result<Option<MountSource>, Status> {
        let entry = self.host().mount_at(path).await;
        let entry = entry.map_err(|error| refuse::host("reading the mount table", &error))?;
        Ok(entry.map(|entry| entry.source))
    }

    /// Unmounts whatever of this volume, and nothing else, is mounted at `path`.
    pub(super) async fn unmount_own(&self, volume: &VolumeId, path: &HostPath) -> Result<(), Status> {
        let Some(device) = self.attached(volume).await? else {
            return Ok(());
        };
        for _ in 0..STACKED {
            if !self.is_mounted(path, &device).await? {
                return Ok(());
            }
            match self.host().unmount(path).await {
                Err(error) if error.kind != HostErrorKind::NotMounted => {
                    return Err(refuse::host("unmounting the volume", &error));
                }
                _ => {}
            }
        }
        Err(Status::internal(format!(
            "{path} is still mounted after {STACKED} unmounts"
        )))
    }

    /// Makes a directory and those above it that are missing.
    async fn make_directories(&self, path: &HostPath) -> Result<(), Status> {
        let mut missing = Vec::new();
        let mut at = Some(path.clone());
        while let Some(here) = at {
            let kind = self.host().kind(&here).await;
            if kind
                .map_err(|error| refuse::host("looking at a directory", &error))?
                .is_some()
            {
                break;
            }
            at = here.parent();
            missing.push(here);
        }
        for path in missing.iter().rev() {
            match self.host().create_dir(path).await {
                Err(error) if error.kind != HostErrorKind::Exists => {
                    return Err(refuse::host("making a directory", &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn remove_directory(&self, path: &HostPath) -> Result<(), Status> {
        match self.host().remove_dir(path).await {
            Err(error) if error.kind != HostErrorKind::NotFound => Err(refuse::host("removing the directory", &error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove_file(&self, path: &HostPath) -> Result<(), Status> {
        match self.host().remove_file(path).await {
            Err(error) if error.kind != HostErrorKind::NotFound => Err(refuse::host("removing the file", &error)),
            _ => Ok(()),
        }
    }
}

impl StagedRecord {
    /// May this node make a layer or a file system on it?
    pub(super) fn may_format(&self) -> bool {
        !self.access.is_read_only() && !self.capability.mode.is_multi_node()
    }
}

pub(super) fn blank() -> Status {
    Status::failed_precondition("the volume is blank, and neither a read-only nor a shared one is formatted by a node")
}

pub(super) fn never_overwritten(what: &str) -> Status {
    Status::failed_precondition(format!("the volume holds {what}, which is never overwritten"))
}

/// A volume's file system, with a label and a UUID that follow from its handle.
pub(crate) fn new_fs(volume: &VolumeId, kind: FsKind) -> NewFs {
    NewFs {
        kind,
        label: blake3::hash(volume.as_str().as_bytes()).to_hex()[..12].to_owned(),
        uuid: uuid_of(volume, ""),
        forced: false,
    }
}

/// A UUID that follows from a volume's handle and what it is for.
pub(super) fn uuid_of(volume: &VolumeId, purpose: &str) -> String {
    let hex = blake3::hash(format!("{volume}{purpose}").as_bytes()).to_hex();
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[0..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}
