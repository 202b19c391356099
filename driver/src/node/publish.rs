//! `NodePublishVolume` and `NodeUnpublishVolume`: the path at which a pod sees a volume.
//!
//! A driver without staging, and every inline ephemeral volume, is staged here on the driver's own account, with its
//! first target, and taken down with its last. An ephemeral volume is also made and deleted here.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use super::layer::Reach;
use super::stage::access;
use crate::check::{self, Capability, Form, Mode};
use crate::config::StorageType;
use crate::gate::operate;
use crate::host::PathKind;
use crate::pool::NewVolume;
use crate::quirk::Quirk;
use crate::records::{PublicationPhase, StagedPhase, StagedRecord, TargetRecord};
use crate::refuse;
use crate::units::{Access, Bytes, HostPath, VolumeId};

/// The volume is made for this one pod (Kubernetes' *CSI ephemeral inline volume*).
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// The storage type of an ephemeral volume.
const TYPE: &str = "type";
/// How large an ephemeral volume is to be.
const SIZE: &str = "size";

/// A parsed request.
struct Wanted {
    volume: VolumeId,
    target: HostPath,
    record: TargetRecord,
    staging: Staging,
}

/// Where the volume is, or will be, staged.
enum Staging {
    /// By `NodeStageVolume`, at this path.
    Public(HostPath),
    /// By the driver itself, at the path in the record.
    Private {
        record: Box<StagedRecord>,
        reach: Reach,
        /// The driver makes the volume, too.
        inline: Option<NewVolume>,
    },
}

pub(super) async fn publish(core: &Arc<Core>, wire: csi::NodePublishVolumeRequest) -> Result<(), Status> {
    let wanted = parse(core, wire)?;
    let pass = core.gate.alone(&wanted.volume)?;
    let span = tracing::info_span!("NodePublishVolume", volume = %wanted.volume);
    let work = grant(Arc::clone(core), wanted);
    operate(&core.runtime, pass, span, work).await
}

fn parse(core: &Core, wire: csi::NodePublishVolumeRequest) -> Result<Wanted, Status> {
    let config = &core.config;
    let volume = check::volume_id(&wire.volume_id)?;
    let target = check::path(config, "target_path", &wire.target_path)?;
    let capability = check::capability(wire.volume_capability.as_ref())?;
    check::is_offered(config, &capability).map_err(Status::invalid_argument)?;
    check::secrets(&wire.secrets)?;
    check::map("volume_context", &wire.volume_context)?;
    check::map("publish_context", &wire.publish_context)?;
    let record = TargetRecord {
        phase: PublicationPhase::Publishing,
        volume: volume.clone(),
        access: Access::from_readonly(wire.readonly || capability.mode.is_read_only()),
        capability: capability.clone(),
    };
    let ephemeral = wire.volume_context.get(EPHEMERAL).is_some_and(|value| value == "true");
    let staging = if ephemeral {
        inline(core, &volume, capability, wire)?
    } else if config.stage {
        if wire.staging_target_path.is_empty() {
            return Err(Status::failed_precondition(
                "staging_target_path is required: this driver stages volumes",
            ));
        }
        Staging::Public(check::path(config, "staging_target_path", &wire.staging_target_path)?)
    } else {
        let access = access(&capability, &wire.publish_context);
        Staging::Private {
            record: Box::new(private(core, &volume, capability, access)?),
            inline: None,
            reach: Reach::new(wire.publish_context, &wire.secrets),
        }
    };
    Ok(Wanted {
        volume,
        target,
        record,
        staging,
    })
}

/// A volume that the driver stages on its own account.
fn private(core: &Core, volume: &VolumeId, mut capability: Capability, access: Access) -> Result<StagedRecord, Status> {
    let digest = blake3::hash(volume.as_str().as_bytes()).to_hex();
    let path = core.config.private_root.join(&digest[..32]);
    Ok(StagedRecord {
        phase: StagedPhase::Staging,
        path: path.map_err(|why| Status::internal(format!("the driver's own directory: {why}")))?,
        private: true,
        ephemeral: false,
        exported: !core.config.attach,
        encrypted: false,
        group: capability.group.take(),
        access,
        capability,
        device: None,
    })
}

/// A volume that the driver also makes.
fn inline(
    core: &Core,
    volume: &VolumeId,
    capability: Capability,
    wire: csi::NodePublishVolumeRequest,
) -> Result<Staging, Status> {
    if capability.form.is_block() {
        return Err(Status::invalid_argument(
            "an ephemeral volume is mounted, never a block device",
        ));
    }
    let config = &core.config;
    let name = wire.volume_context.get(TYPE).unwrap_or(&config.default_type);
    if config.strict_parameters && !config.types.contains_key(name) {
        return Err(Status::invalid_argument(format!("type `{name}` is unknown")));
    }
    let kind = config.storage_type(name);
    let reach = Reach::new(wire.publish_context, &wire.secrets);
    if kind.encrypted {
        reach.require_key()?;
    }
    Ok(Staging::Private {
        record: Box::new(StagedRecord {
            ephemeral: true,
            exported: true,
            encrypted: kind.encrypted,
            ..private(core, volume, capability, Access::ReadWrite)?
        }),
        inline: Some(NewVolume {
            id: volume.clone(),
            size: inline_size(core, kind, wire.volume_context.get(SIZE))?,
            kind: name.clone(),
            provisioning: kind.provisioning,
            segments: core.seat.segments.clone(),
            source: None,
            encrypted: kind.encrypted,
            shared_fs: None,
            settings: Default::default(),
        }),
        reach,
    })
}

fn inline_size(core: &Core, kind: &StorageType, asked: Option<&String>) -> Result<Bytes, Status> {
    let config = &core.config;
    let asked = match asked {
        None => config.default_size,
        Some(text) => text
            .parse::<Bytes>()
            .map_err(|why| Status::invalid_argument(format!("size: {why}")))?,
    };
    let size = asked
        .max(kind.min_size)
        .round_up(config.allocation_unit)
        .filter(|size| *size <= kind.max_size);
    size.ok_or_else(|| Status::out_of_range(format!("size: {asked} is more than the {} allowed", kind.max_size)))
}

async fn grant(core: Arc<Core>, mut wanted: Wanted) -> Result<(), Status> {
    core.settle_volume(&wanted.volume).await.map_err(refuse::open)?;
    if let Staging::Private { record, reach, .. } = &mut wanted.staging
        && !record.ephemeral
    {
        record.encrypted = core.is_encrypted(&wanted.volume, reach).await?;
    }
    let Wanted {
        volume,
        target,
        record,
        staging,
    } = &wanted;
    let is_repeat = core.ledger.read(|tables| compare(tables.targets.get(target), record))?;
    if !is_repeat {
        refuse_second_target(&core, volume, target, record)?;
    }
    // What was granted before is not taken back by an error.
    let open = |status| if is_repeat { refuse::open(status) } else { status };
    let staged = find_staged(&core, volume, staging, record).await.map_err(open)?;
    if let Some(staged) = staged.as_ref().filter(|_| is_repeat) {
        if staged.ephemeral && core.has(Quirk::EphemeralRepublishForgets) {
            return core.put_target(target, None).await;
        }
        return repair(&core, &wanted, staged).await.map_err(refuse::open);
    }
    look_at_target(&core, volume, target, record).await?;
    let must_stage = match (&staged, staging) {
        (None, Staging::Private { record, inline, .. }) => {
            if inline.is_some() {
                refuse_strangers(&core, volume).await?;
            }
            Some(record)
        }
        _ => None,
    };
    core.ledger
        .update(|draft| {
            compare(draft.tables.targets.get(target), record)?;
            draft.target(target, Some(record.clone()));
            if let Some(staged) = must_stage {
                draft.staged(volume, Some(StagedRecord::clone(staged)));
            }
            Ok(())
        })
        .await?;
    let done = TargetRecord {
        phase: PublicationPhase::Published,
        ..record.clone()
    };
    match make_visible(&core, &wanted, staged.as_ref()).await {
        Ok(staged) => {
            let staged = must_stage.map(|_| staged);
            core.ledger
                .update(|draft| {
                    draft.target(target, Some(done));
                    if let Some(staged) = staged {
                        draft.staged(volume, Some(staged));
                    }
                    Ok(())
                })
                .await
        }
        Err(status) => Err(core.undo(volume, status).await),
    }
}

/// An ephemeral volume is deleted with its target, so it must not be one that somebody else made.
async fn refuse_strangers(core: &Core, volume: &VolumeId) -> Result<(), Status> {
    let found = core.pool.get(volume).await;
    match found.map_err(|error| refuse::pool("looking for the volume", &error))? {
        None => Ok(()),
        Some(_) => Err(Status::already_exists(format!(
            "volume {volume} exists, and was not made for this pod"
        ))),
    }
}

/// Is this target granted already? An error if it is granted to something else.
fn compare(existing: Option<&TargetRecord>, wanted: &TargetRecord) -> Result<bool, Status> {
    match existing {
        None => Ok(false),
        Some(record) if record.volume != wanted.volume => Err(Status::already_exists(format!(
            "the target path belongs to volume {}",
            record.volume
        ))),
        Some(record) if record.capability != wanted.capability || record.access != wanted.access => Err(
            Status::already_exists("the target path is published with another capability or readonly flag"),
        ),
        Some(_) => Ok(true),
    }
}

fn refuse_second_target(
    core: &Core,
    volume: &VolumeId,
    target: &HostPath,
    wanted: &TargetRecord,
) -> Result<(), Status> {
    let one_target = |mode: Mode| match mode {
        Mode::SingleNodeSingleWriter => true,
        Mode::SingleNodeWriter | Mode::SingleNodeReaderOnly => core.config.single_node_multi_writer,
        Mode::SingleNodeMultiWriter
        | Mode::MultiNodeReaderOnly
        | Mode::MultiNodeSingleWriter
        | Mode::MultiNodeMultiWriter => false,
    };
    core.ledger.read(|tables| {
        let others = tables.targets_of(volume).filter(|(path, _)| *path != target);
        for (path, other) in others {
            if one_target(wanted.capability.mode) || one_target(other.capability.mode) {
                let text = format!("volume {volume} is published at {path}, and its access mode allows one target");
                return Err(Status::failed_precondition(text));
            }
        }
        Ok(())
    })
}

/// The staged volume that the target will show; `None` if the driver must stage it itself first.
async fn find_staged(
    core: &Core,
    volume: &VolumeId,
    staging: &Staging,
    wanted: &TargetRecord,
) -> Result<Option<StagedRecord>, Status> {
    let staged = core.staged(volume);
    let staged = match (staging, staged) {
        (Staging::Private { .. }, None) => return Ok(None),
        (Staging::Private { reach, .. }, Some(staged)) => {
            if !core.is_up(volume, &staged).await? {
                core.bring_up(volume, &staged, reach).await?;
            }
            staged
        }
        (Staging::Public(path), Some(staged)) if staged.path == *path && !staged.private => {
            if !core.is_up(volume, &staged).await? {
                return Err(Status::failed_precondition(
                    "the volume is not mounted at the staging path any more",
                ));
            }
            staged
        }
        (Staging::Public(path), _) => {
            return Err(Status::failed_precondition(format!(
                "volume {volume} is not staged at {path}"
            )));
        }
    };
    fits(&staged, wanted)?;
    Ok(Some(staged))
}

/// Can what is staged be shown so?
fn fits(staged: &StagedRecord, wanted: &TargetRecord) -> Result<(), Status> {
    let refuse = |text: &str| Err(Status::failed_precondition(text.to_owned()));
    match (&staged.capability.form, &wanted.capability.form) {
        (Form::Block, Form::Mount { .. }) => return refuse("the volume is staged as a block device"),
        (Form::Mount { .. }, Form::Block) => return refuse("the volume is staged as a file system"),
        (Form::Mount { fs: Some(staged), .. }, Form::Mount { fs: Some(wanted), .. }) if staged != wanted => {
            return refuse("the volume is staged with another file system");
        }
        _ => {}
    }
    if staged.access.is_read_only() && !wanted.access.is_read_only() {
        return refuse("the volume is staged read-only");
    }
    Ok(())
}

/// Makes a granted target true again, should the machine have lost it.
async fn repair(core: &Core, wanted: &Wanted, staged: &StagedRecord) -> Result<(), Status> {
    let device = core.shown(&wanted.volume, staged).await?;
    let Some(device) = device else {
        return Err(Status::failed_precondition(
            "the volume's device is gone from this node",
        ));
    };
    if core.has(Quirk::PublishStacksMounts) {
        return make_visible(core, wanted, Some(staged)).await.map(drop);
    }
    if core.is_mounted(&wanted.target, &device).await? {
        return Ok(());
    }
    look_at_target(core, &wanted.volume, &wanted.target, &wanted.record).await?;
    make_visible(core, wanted, Some(staged)).await.map(|_| ())
}

/// Can the target be made here?
async fn look_at_target(
    core: &Core,
    volume: &VolumeId,
    target: &HostPath,
    wanted: &TargetRecord,
) -> Result<(), Status> {
    let kind = async |path: &HostPath| {
        core.host()
            .kind(path)
            .await
            .map_err(|error| refuse::host("looking at the target path", &error))
    };
    if let Some(parent) = target.parent()
        && kind(&parent).await? != Some(PathKind::Directory)
    {
        return Err(Status::failed_precondition(
            "the directory of the target path does not exist",
        ));
    }
    if let Some(source) = core.source_at(target).await? {
        let text = format!("{source:?} is mounted at the target path, and is not volume {volume}");
        return Err(Status::already_exists(text));
    }
    match (kind(target).await?, wanted.capability.form.is_block()) {
        (None, _) | (Some(PathKind::Directory), false) | (Some(PathKind::File), true) => Ok(()),
        (Some(_), false) => Err(Status::invalid_argument("the target path is not a directory")),
        (Some(_), true) => Err(Status::invalid_argument("the target path is not a file")),
    }
}

/// Stages the volume if that is the driver's own business, and shows it at the target.
async fn make_visible(core: &Core, wanted: &Wanted, staged: Option<&StagedRecord>) -> Result<StagedRecord, Status> {
    let staged = match (staged, &wanted.staging) {
        (Some(staged), _) => staged.clone(),
        (None, Staging::Private { record, reach, inline }) => {
            if let Some(new) = inline {
                let made = core.pool.create(new).await;
                made.map_err(|error| refuse::pool("making the ephemeral volume", &error))?;
            }
            let device = core.bring_up(&wanted.volume, record, reach).await?;
            StagedRecord {
                phase: StagedPhase::Staged,
                device: Some(device),
                ..StagedRecord::clone(record)
            }
        }
        (None, Staging::Public(_)) => return Err(Status::failed_precondition("the volume is not staged")),
    };
    let failed = |error: &_| refuse::host("publishing the volume", error);
    let host = core.host();
    let is_missing = host
        .kind(&wanted.target)
        .await
        .map_err(|error| failed(&error))?
        .is_none();
    let access = wanted.record.access;
    if wanted.record.capability.form.is_block() {
        let device = core.shown(&wanted.volume, &staged).await?;
        let device = device.ok_or_else(|| Status::internal("the volume's device went away"))?;
        if is_missing {
            host.create_file(&wanted.target).await.map_err(|error| failed(&error))?;
        }
        host.bind_device(&device, &wanted.target, access)
            .await
            .map_err(|error| failed(&error))?;
    } else {
        if let Some(group) = wanted.record.capability.group
            && !staged.access.is_read_only()
            && !access.is_read_only()
        {
            host.set_group(&staged.path, group)
                .await
                .map_err(|error| failed(&error))?;
        }
        if is_missing {
            host.create_dir(&wanted.target).await.map_err(|error| failed(&error))?;
        }
        let mut bound = host.bind(&staged.path, &wanted.target, access).await;
        if core.has(Quirk::PublishOkWithoutMount) {
            bound = Ok(());
        }
        bound.map_err(|error| failed(&error))?;
    }
    Ok(staged)
}

pub(super) async fn unpublish(core: &Arc<Core>, wire: &csi::NodeUnpublishVolumeRequest) -> Result<(), Status> {
    let volume = check::volume_id(&wire.volume_id)?;
    let target = check::path(&core.config, "target_path", &wire.target_path)?;
    let pass = core.gate.alone(&volume)?;
    let span = tracing::info_span!("NodeUnpublishVolume", %volume);
    let work = revoke(Arc::clone(core), volume, target);
    operate(&core.runtime, pass, span, work).await
}

async fn revoke(core: Arc<Core>, volume: VolumeId, target: HostPath) -> Result<(), Status> {
    core.settle_volume(&volume).await?;
    let record = core.ledger.read(|tables| tables.targets.get(&target).cloned());
    let Some(record) = record.filter(|record| record.volume == volume) else {
        if core.has(Quirk::UnpublishNotIdempotent) {
            return Err(Status::internal(format!("nothing is mounted at {target}")));
        }
        return core.sweep_unknown_target(&volume, &target).await;
    };
    let mut private = core.staged(&volume).filter(|staged| staged.private);
    if core.has(Quirk::InlineUnpublishWrongId) {
        private = None;
    }
    let is_last = core.ledger.read(|tables| tables.targets_of(&volume).count() == 1);
    let staged = private.filter(|_| is_last);
    core.ledger
        .update(|draft| {
            let leaving = TargetRecord {
                phase: PublicationPhase::Unpublishing,
                ..record.clone()
            };
            draft.target(&target, Some(leaving));
            if let Some(staged) = &staged {
                let leaving = StagedRecord {
                    phase: StagedPhase::Unstaging,
                    ..staged.clone()
                };
                draft.staged(&volume, Some(leaving));
            }
            Ok(())
        })
        .await?;
    if let Err(status) = hide(&core, &volume, &target, &record, staged.as_ref()).await {
        core.restore_target(&volume, &target, record, staged).await?;
        return Err(status);
    }
    core.ledger
        .update(|draft| {
            draft.target(&target, None);
            if staged.is_some() {
                draft.staged(&volume, None);
            }
            Ok(())
        })
        .await
}

async fn hide(
    core: &Core,
    volume: &VolumeId,
    target: &HostPath,
    record: &TargetRecord,
    staged: Option<&StagedRecord>,
) -> Result<(), Status> {
    core.remove_target(volume, target, record.capability.form.is_block())
        .await?;
    match staged {
        Some(staged) => core.take_down(volume, staged).await,
        None => Ok(()),
    }
}
