//! `DeleteVolume`: what is gone may go again; what is in use stays.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use crate::check;
use crate::gate::operate;
use crate::quirk::Quirk;
use crate::records::{VolumePhase, VolumeRecord};
use crate::refuse;
use crate::units::{NodeId, VolumeId};

pub(super) async fn call(core: &Arc<Core>, wire: csi::DeleteVolumeRequest) -> Result<(), Status> {
    let id = check::volume_id(&wire.volume_id)?;
    check::secrets(&wire.secrets)?;
    let pass = core.gate.alone(&id)?;
    let span = tracing::info_span!("DeleteVolume", volume = %id);
    let work = delete(Arc::clone(core), id);
    operate(&core.runtime, pass, span, work).await
}

async fn delete(core: Arc<Core>, id: VolumeId) -> Result<(), Status> {
    core.settle_volume(&id).await?;
    if core.has(Quirk::UnreachableMeansGone) && core.pool.get(&id).await.is_err() {
        return core.forget(&id).await;
    }
    if core.record(&id).is_none() {
        return delete_unknown(&core, &id).await;
    }
    core.ledger
        .update(|draft| {
            let nodes: Vec<&NodeId> = draft.tables.published(&id).map(|(node, _)| node).collect();
            if !nodes.is_empty() {
                return Err(in_use(&id, nodes));
            }
            let record = draft.tables.volumes.get(&id).cloned();
            draft.volume(
                &id,
                record.map(|record| VolumeRecord {
                    phase: VolumePhase::Deleting,
                    ..record
                }),
            );
            Ok(())
        })
        .await?;
    let result = core.finish_deletion(&id).await;
    if result.is_err() {
        core.settle_volume_later(&id);
    }
    result
}

/// A volume that the ledger does not know: one that was never there, or one made by hand.
async fn delete_unknown(core: &Core, id: &VolumeId) -> Result<(), Status> {
    let found = core.pool.get(id).await;
    let found = found.map_err(|error| refuse::pool("looking for the volume", &error))?;
    let Some(volume) = found.filter(|_| !core.forgotten.has(id)) else {
        return Ok(());
    };
    if !volume.exports.is_empty() {
        return Err(in_use(id, volume.exports.keys().collect()));
    }
    core.pool
        .delete(id)
        .await
        .map_err(|error| refuse::pool("deleting the volume", &error))
}

fn in_use(id: &VolumeId, nodes: Vec<&NodeId>) -> Status {
    let nodes: Vec<&str> = nodes.into_iter().map(NodeId::as_str).collect();
    Status::failed_precondition(format!("volume {id} is published to {}", nodes.join(", ")))
}
