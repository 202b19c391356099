//! `ControllerExpandVolume`: volumes grow and never shrink.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use super::publish::supports;
use crate::check::{self, SizeRange};
use crate::config::Expansion;
use crate::gate::operate;
use crate::quirk::Quirk;
use crate::records::{VolumePhase, VolumeRecord};
use crate::refuse;
use crate::units::{Bytes, VolumeId};

/// The new size, and whether the node has work to do.
pub(super) async fn call(core: &Arc<Core>, wire: csi::ControllerExpandVolumeRequest) -> Result<(Bytes, bool), Status> {
    let id = check::volume_id(&wire.volume_id)?;
    check::secrets(&wire.secrets)?;
    if wire.capacity_range.is_none() {
        return Err(Status::invalid_argument("capacity_range is required"));
    }
    let range = check::range(wire.capacity_range.as_ref())?;
    let capability = wire
        .volume_capability
        .as_ref()
        .map(|wire| check::capability(Some(wire)))
        .transpose()?;
    let node = core.config.node_expansion;
    if let Some(size) = core.intended(&id).filter(|_| core.has(Quirk::ExpandBelievesTarget)) {
        return Ok((size, node));
    }
    let pass = core.gate.alone(&id)?;
    if let Some(record) = core.record(&id).filter(|record| record.phase == VolumePhase::Ready) {
        if let Some(capability) = &capability {
            supports(&record, capability).map_err(Status::invalid_argument)?;
        }
        if let Some(answer) = repeat(&record, range)? {
            return Ok((answer, node && !core.has(Quirk::ExpandRetryDropsNodeFlag)));
        }
    }
    let span = tracing::info_span!("ControllerExpandVolume", volume = %id);
    let work = expand(Arc::clone(core), id, range);
    let size = operate(&core.runtime, pass, span, work).await?;
    Ok((size, node))
}

/// The size of a volume that is large enough already.
fn repeat(record: &VolumeRecord, range: SizeRange) -> Result<Option<Bytes>, Status> {
    if let Some(limit) = range.limit.filter(|limit| record.size > *limit) {
        let text = format!("the volume has {} already, more than the limit of {limit}", record.size);
        return Err(Status::out_of_range(text));
    }
    Ok((record.size >= range.required).then_some(record.size))
}

async fn expand(core: Arc<Core>, id: VolumeId, range: SizeRange) -> Result<Bytes, Status> {
    core.settle_volume(&id).await?;
    let (record, _) = core.find(&id).await?;
    if let Some(answer) = repeat(&record, range)? {
        return Ok(answer);
    }
    let size = target(&core, &record, range)?;
    refuse_if_in_use(&core, &id).await?;
    let intent = VolumeRecord {
        phase: VolumePhase::Growing(size),
        ..record
    };
    core.ledger
        .update(|draft| {
            draft.volume(&id, Some(intent.clone()));
            Ok(())
        })
        .await?;
    let result = core.finish_growth(&id, size).await;
    if result.is_err() {
        core.settle_volume_later(&id);
    }
    result
}

/// The size to grow to.
fn target(core: &Core, record: &VolumeRecord, range: SizeRange) -> Result<Bytes, Status> {
    let kind = core.config.storage_type(&record.kind);
    let size = range.required.round_up(core.config.allocation_unit);
    let size = size.filter(|size| *size <= kind.max_size).ok_or_else(|| {
        let text = format!(
            "{} is more than the {} a volume of this type may have",
            range.required, kind.max_size
        );
        Status::out_of_range(text)
    })?;
    match range.limit.filter(|limit| size > *limit) {
        Some(limit) => Err(Status::out_of_range(format!(
            "rounded up to {size}, more than the limit of {limit}"
        ))),
        None => Ok(size),
    }
}

/// Without expansion on the node nothing would tell a mounted file system, so such a driver grows idle volumes only.
async fn refuse_if_in_use(core: &Core, id: &VolumeId) -> Result<(), Status> {
    if core.config.expansion == Expansion::Online && core.config.node_expansion {
        return Ok(());
    }
    let node = if core.config.attach {
        core.ledger
            .read(|tables| tables.published(id).map(|(node, _)| node.clone()).next())
    } else {
        let volume = core
            .pool
            .get(id)
            .await
            .map_err(|error| refuse::pool("looking for the volume", &error))?;
        volume.and_then(|volume| volume.exports.into_keys().next())
    };
    match node {
        Some(node) => {
            let text = format!("volume {id} is in use by node {node}, and grows only while it is not");
            Err(Status::failed_precondition(text))
        }
        None => Ok(()),
    }
}
