//! `CreateSnapshot` and `DeleteSnapshot`: one name, one cut, one answer for ever.
//!
//! The handle is derived from the name, as that of a volume is. A cut that nobody was told of is undone: a repeat cuts
//! anew, later. A snapshot stands on its own: the volume may go before it, and volumes made of it may stay after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::prost_types::Timestamp;

use super::Core;
use super::settle::Leftover;
use crate::check;
use crate::config::Config;
use crate::gate::{Hold, Subject, operate};
use crate::pool::{NewSnapshot, PoolSnapshot};
use crate::records::{SnapshotPhase, SnapshotRecord, VolumePhase, VolumeRecord};
use crate::refuse;
use crate::units::{SnapshotId, VolumeId};

/// Keys with this prefix are the cluster's own.
const CLUSTER_PREFIX: &str = "csi.storage.k8s.io/";

/// The handle of the snapshot called `name`.
pub(crate) fn handle(name: &str) -> SnapshotId {
    let digest = blake3::hash(name.as_bytes()).to_hex();
    SnapshotId::new(format!("snap-{}", &digest[..32]))
}

/// A parsed request.
struct Wanted {
    name: String,
    id: SnapshotId,
    volume: VolumeId,
    parameters: BTreeMap<String, String>,
}

pub(super) async fn create(core: &Arc<Core>, wire: csi::CreateSnapshotRequest) -> Result<csi::Snapshot, Status> {
    let name = check::name(&wire.name)?;
    let volume = check::source_volume_id(&wire.source_volume_id)?;
    check::secrets(&wire.secrets)?;
    check_parameters(&core.config, &wire.parameters)?;
    let wanted = Wanted {
        id: handle(&name),
        name,
        volume,
        parameters: wire.parameters,
    };
    let pass = core.gate.enter(&[
        (Subject::Snapshot(wanted.id.clone()), Hold::Alone),
        (Subject::Volume(wanted.volume.clone()), Hold::Together),
    ])?;
    if let Some(answer) = repeat(core, &wanted)? {
        return Ok(answer);
    }
    let span = tracing::info_span!("CreateSnapshot", snapshot = %wanted.id, volume = %wanted.volume);
    let work = cut(Arc::clone(core), wanted);
    operate(&core.runtime, pass, span, work).await
}

/// Are these parameters of a snapshot class that the driver serves? It has none of its own.
pub(super) fn check_parameters(config: &Config, parameters: &BTreeMap<String, String>) -> Result<(), Status> {
    check::map("parameters", parameters)?;
    let foreign = parameters.keys().find(|key| !key.starts_with(CLUSTER_PREFIX));
    match foreign.filter(|_| config.strict_parameters) {
        Some(key) => Err(Status::invalid_argument(format!("parameter `{key}` is unknown"))),
        None => Ok(()),
    }
}

/// The answer to a request whose snapshot is there and ready; `None` if it is not.
fn repeat(core: &Core, wanted: &Wanted) -> Result<Option<csi::Snapshot>, Status> {
    let Some(record) = core.snapshot(&wanted.id) else {
        return Ok(None);
    };
    if record.phase != SnapshotPhase::Ready {
        return Ok(None);
    }
    let refuse = |what: &str| {
        let text = format!("a snapshot named `{}` exists {what}", wanted.name);
        Err(Status::already_exists(text))
    };
    if record.volume != wanted.volume {
        return refuse(&format!("of volume {}", record.volume));
    }
    if record.parameters != wanted.parameters {
        return refuse("with other parameters");
    }
    Ok(record.ready.then(|| to_wire(&wanted.id, &record)))
}

async fn cut(core: Arc<Core>, wanted: Wanted) -> Result<csi::Snapshot, Status> {
    core.settle_snapshot(&wanted.id).await?;
    if let Some(answer) = repeat(&core, &wanted)? {
        return Ok(answer);
    }
    let found = core.pool.snapshot(&wanted.id).await;
    let found = found.map_err(|error| refuse::pool("looking for the snapshot", &error))?;
    if let Some(record) = core.snapshot(&wanted.id) {
        return look_again(&core, &wanted.id, record, found).await;
    }
    let source = cuttable(&core, &wanted.volume).await?;
    let record = SnapshotRecord {
        parameters: wanted.parameters.clone(),
        ..intended(&wanted.volume, &source)
    };
    if let Some(found) = found {
        if found.volume != wanted.volume {
            let text = format!("the pool has a snapshot {} of volume {}", wanted.id, found.volume);
            return Err(Status::already_exists(text));
        }
        return finish(&core, &wanted.id, record, &found).await;
    }
    put(&core, &wanted.id, Some(record.clone())).await?;
    let new = NewSnapshot {
        id: wanted.id.clone(),
        volume: wanted.volume.clone(),
    };
    let made = core.pool.cut(std::slice::from_ref(&new)).await;
    let made = made.map(|made| made.into_iter().find(|made| made.id == wanted.id));
    match made {
        Ok(Some(made)) => finish(&core, &wanted.id, record, &made).await,
        Ok(None) => {
            core.undo_cut(&Leftover::Snapshot(wanted.id), false).await;
            Err(Status::internal("the pool answered without the snapshot"))
        }
        Err(error) => {
            let leftover = Leftover::Snapshot(wanted.id);
            core.undo_cut(&leftover, refuse::is_certain(error.kind)).await;
            Err(refuse::pool("cutting the snapshot", &error))
        }
    }
}

/// The volume, if it can be cut just now.
pub(super) async fn cuttable(core: &Core, volume: &VolumeId) -> Result<VolumeRecord, Status> {
    let (record, _) = core.find(volume).await?;
    match record.phase {
        VolumePhase::Ready => Ok(record),
        VolumePhase::Deleting => Err(Status::not_found(format!("volume {volume} is being deleted"))),
        VolumePhase::Creating | VolumePhase::Growing(_) | VolumePhase::Modifying(_) => Err(Status::aborted(format!(
            "an earlier operation on volume {volume} is not settled yet"
        ))),
    }
}

/// The record of a snapshot that is about to be cut.
pub(super) fn intended(volume: &VolumeId, source: &VolumeRecord) -> SnapshotRecord {
    let request = source.request.as_ref();
    SnapshotRecord {
        phase: SnapshotPhase::Cutting,
        volume: volume.clone(),
        parameters: BTreeMap::new(),
        size: source.size,
        cut_at: Duration::ZERO,
        ready: false,
        group: None,
        block: request.map(|request| request.capabilities[0].form.is_block()),
        kind: source.kind.clone(),
        encrypted: source.encrypted,
    }
}

/// The record of a snapshot that has been cut.
pub(super) fn made(record: SnapshotRecord, made: &PoolSnapshot) -> SnapshotRecord {
    SnapshotRecord {
        phase: SnapshotPhase::Ready,
        size: made.size,
        cut_at: made.cut_at,
        ready: made.ready,
        ..record
    }
}

async fn finish(
    core: &Core,
    id: &SnapshotId,
    record: SnapshotRecord,
    found: &PoolSnapshot,
) -> Result<csi::Snapshot, Status> {
    let record = made(record, found);
    put(core, id, Some(record.clone())).await?;
    Ok(to_wire(id, &record))
}

/// A snapshot that was cut and was not ready when it was last looked at.
async fn look_again(
    core: &Core,
    id: &SnapshotId,
    record: SnapshotRecord,
    found: Option<PoolSnapshot>,
) -> Result<csi::Snapshot, Status> {
    let Some(found) = found else {
        return Err(Status::internal("the storage system has lost the snapshot"));
    };
    if !found.ready {
        return Ok(to_wire(id, &record));
    }
    finish(core, id, record, &found).await
}

pub(super) async fn put(core: &Core, id: &SnapshotId, record: Option<SnapshotRecord>) -> Result<(), Status> {
    core.ledger
        .update(|draft| {
            draft.snapshot(id, record);
            Ok(())
        })
        .await
}

/// The snapshot as callers see it.
pub(super) fn to_wire(id: &SnapshotId, record: &SnapshotRecord) -> csi::Snapshot {
    csi::Snapshot {
        size_bytes: record.size.to_wire(),
        snapshot_id: id.as_str().to_owned(),
        source_volume_id: record.volume.as_str().to_owned(),
        creation_time: Some(timestamp(record.cut_at)),
        ready_to_use: record.ready,
        group_snapshot_id: record.group.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

pub(super) fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_epoch.subsec_nanos()).unwrap_or(0),
    }
}

pub(super) async fn delete(core: &Arc<Core>, wire: &csi::DeleteSnapshotRequest) -> Result<(), Status> {
    let id = check::snapshot_id(&wire.snapshot_id)?;
    check::secrets(&wire.secrets)?;
    let pass = core.gate.enter(&[(Subject::Snapshot(id.clone()), Hold::Alone)])?;
    let span = tracing::info_span!("DeleteSnapshot", snapshot = %id);
    let work = discard(Arc::clone(core), id);
    operate(&core.runtime, pass, span, work).await
}

async fn discard(core: Arc<Core>, id: SnapshotId) -> Result<(), Status> {
    core.settle_snapshot(&id).await?;
    let Some(record) = core.snapshot(&id) else {
        // Never there, or made by a life whose ledger is lost.
        let deleted = core.pool.delete_snapshot(&id).await;
        return deleted.map_err(|error| refuse::pool("deleting the snapshot", &error));
    };
    if let Some(group) = &record.group {
        let text = format!("snapshot {id} belongs to group {group}, and goes only with it");
        return Err(Status::invalid_argument(text));
    }
    let leaving = SnapshotRecord {
        phase: SnapshotPhase::Deleting,
        ..record
    };
    put(&core, &id, Some(leaving)).await?;
    let result = core.finish_snapshot_deletion(&id).await;
    if result.is_err() {
        core.settle_later(Leftover::Snapshot(id));
    }
    result
}
