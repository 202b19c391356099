//! `NodeStageVolume` and `NodeUnstageVolume`: a volume's device and its one mount on this machine.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use super::layer::Reach;
use crate::check;
use crate::gate::operate;
use crate::host::PathKind;
use crate::quirk::Quirk;
use crate::records::READ_ONLY_KEY;
use crate::records::{StagedPhase, StagedRecord};
use crate::refuse;
use crate::units::{Access, HostPath, PublishContext, VolumeId};

pub(super) async fn stage(core: &Arc<Core>, wire: csi::NodeStageVolumeRequest) -> Result<(), Status> {
    let volume = check::volume_id(&wire.volume_id)?;
    let path = check::path(&core.config, "staging_target_path", &wire.staging_target_path)?;
    let mut capability = check::capability(wire.volume_capability.as_ref())?;
    check::is_offered(&core.config, &capability).map_err(Status::invalid_argument)?;
    check::secrets(&wire.secrets)?;
    check::map("volume_context", &wire.volume_context)?;
    check::map("publish_context", &wire.publish_context)?;
    let wanted = StagedRecord {
        phase: StagedPhase::Staging,
        path,
        private: false,
        ephemeral: false,
        exported: !core.config.attach,
        encrypted: false,
        group: capability.group.take(),
        access: access(&capability, &wire.publish_context),
        capability,
        device: None,
    };
    let pass = core.gate.alone(&volume)?;
    let span = tracing::info_span!("NodeStageVolume", %volume);
    let reach = Reach::new(wire.publish_context, &wire.secrets);
    let work = bring_up(Arc::clone(core), volume, wanted, reach);
    operate(&core.runtime, pass, span, work).await
}

/// May this node write to the volume?
pub(super) fn access(capability: &check::Capability, context: &PublishContext) -> Access {
    Access::from_readonly(capability.mode.is_read_only() || context.contains_key(READ_ONLY_KEY))
}

async fn bring_up(core: Arc<Core>, volume: VolumeId, mut wanted: StagedRecord, reach: Reach) -> Result<(), Status> {
    core.settle_volume(&volume).await.map_err(refuse::open)?;
    wanted.encrypted = core.is_encrypted(&volume, &reach).await?;
    if let Some(record) = core.staged(&volume) {
        compare(&volume, &record, &wanted)?;
        return restore(&core, &volume, &record, &reach).await.map_err(refuse::open);
    }
    if !wanted.capability.form.is_block() {
        refuse_unless_directory(&core, &wanted.path).await?;
        if let Some(source) = core.source_at(&wanted.path).await? {
            return Err(Status::failed_precondition(format!(
                "{source:?} is mounted at the staging path"
            )));
        }
    }
    core.put_staged(&volume, Some(wanted.clone())).await?;
    match core.bring_up(&volume, &wanted, &reach).await {
        Ok(device) => {
            let done = StagedRecord {
                phase: StagedPhase::Staged,
                device: Some(device),
                ..wanted
            };
            core.put_staged(&volume, Some(done)).await
        }
        Err(status) => Err(core.undo(&volume, status).await),
    }
}

/// Makes true again what was staged before, should the machine have lost it.
async fn restore(core: &Core, volume: &VolumeId, record: &StagedRecord, reach: &Reach) -> Result<(), Status> {
    core.bury(volume, record).await?;
    if !core.is_up(volume, record).await? {
        core.bring_up(volume, record, reach).await?;
    }
    Ok(())
}

/// Is what is staged what is wanted?
fn compare(volume: &VolumeId, record: &StagedRecord, wanted: &StagedRecord) -> Result<(), Status> {
    if record.path != wanted.path {
        let text = format!("volume {volume} is staged at {}", record.path);
        return Err(Status::failed_precondition(text));
    }
    if record.capability != wanted.capability || record.access != wanted.access {
        return Err(Status::already_exists(format!(
            "volume {volume} is staged with another capability"
        )));
    }
    Ok(())
}

async fn refuse_unless_directory(core: &Core, path: &HostPath) -> Result<(), Status> {
    let kind = core
        .host()
        .kind(path)
        .await
        .map_err(|error| refuse::host("looking at the staging path", &error))?;
    match kind {
        Some(PathKind::Directory) => Ok(()),
        Some(_) => Err(Status::invalid_argument("the staging path is not a directory")),
        None => Err(Status::failed_precondition("the staging path does not exist")),
    }
}

pub(super) async fn unstage(core: &Arc<Core>, wire: &csi::NodeUnstageVolumeRequest) -> Result<(), Status> {
    let volume = check::volume_id(&wire.volume_id)?;
    let path = check::path(&core.config, "staging_target_path", &wire.staging_target_path)?;
    let pass = if core.has(Quirk::OppositeCallsOverlap) {
        core.gate.enter(&[])?
    } else {
        core.gate.alone(&volume)?
    };
    let span = tracing::info_span!("NodeUnstageVolume", %volume);
    let work = take_down(Arc::clone(core), volume, path);
    operate(&core.runtime, pass, span, work).await
}

async fn take_down(core: Arc<Core>, volume: VolumeId, path: HostPath) -> Result<(), Status> {
    core.settle_volume(&volume).await?;
    let target = core
        .ledger
        .read(|tables| tables.targets_of(&volume).map(|(path, _)| path.clone()).next());
    let Some(record) = core.staged(&volume) else {
        if core.has(Quirk::UnstageNotIdempotent) {
            return Err(Status::internal(format!("volume {volume} is not staged")));
        }
        // Staged by a life whose ledger is lost, if at all: what is attached and mounted here is still the volume's.
        core.unmount_own(&volume, &path).await?;
        return core.detach(&volume).await;
    };
    if record.private || record.path != path {
        return Ok(());
    }
    if let Some(target) = target {
        return Err(Status::failed_precondition(format!(
            "volume {volume} is still published at {target}"
        )));
    }
    core.put_staged(
        &volume,
        Some(StagedRecord {
            phase: StagedPhase::Unstaging,
            ..record.clone()
        }),
    )
    .await?;
    let mut taken = core.take_down(&volume, &record).await;
    if core.has(Quirk::UnstageErrorDropped) {
        taken = Ok(());
    }
    if let Err(status) = taken {
        // Refused before anything was undone (a file is open): the volume stays usable.
        if core.is_up(&volume, &record).await.unwrap_or(false) {
            core.put_staged(&volume, Some(record)).await?;
        }
        return Err(status);
    }
    core.put_staged(&volume, None).await
}
