//! `NodeExpandVolume`: the device looks again how large it is, and the file system fills it.
//!
//! Each step may be repeated and nothing needs undoing, so nothing is recorded.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use crate::check::{self, SizeRange};
use crate::gate::operate;
use crate::quirk::Quirk;
use crate::records::StagedRecord;
use crate::refuse;
use crate::units::{Bytes, HostPath, VolumeId};

pub(super) async fn call(core: &Arc<Core>, wire: &csi::NodeExpandVolumeRequest) -> Result<Bytes, Status> {
    let volume = check::volume_id(&wire.volume_id)?;
    let path = check::known_path(&core.config, "volume_path", &wire.volume_path)?;
    if !wire.staging_target_path.is_empty() {
        check::path(&core.config, "staging_target_path", &wire.staging_target_path)?;
    }
    let range = check::range(wire.capacity_range.as_ref())?;
    if let Some(capability) = &wire.volume_capability {
        check::capability(Some(capability))?;
    }
    check::secrets(&wire.secrets)?;
    let pass = core.gate.alone(&volume)?;
    let span = tracing::info_span!("NodeExpandVolume", %volume);
    let work = expand(Arc::clone(core), volume, path, range);
    operate(&core.runtime, pass, span, work).await
}

async fn expand(core: Arc<Core>, volume: VolumeId, path: HostPath, range: SizeRange) -> Result<Bytes, Status> {
    core.settle_volume(&volume).await?;
    let record = core.recorded_at(&volume, &path);
    let record = record.ok_or_else(|| Status::not_found(format!("volume {volume} is not at {path}")))?;
    core.wrong.refuse_lost(&volume)?;
    let Some(device) = core.bare(&volume).await? else {
        return Err(Status::not_found(format!(
            "volume {volume} has no device on this node any more"
        )));
    };
    if core.has(Quirk::GrowBeforeRescan) {
        return core.grow_then_rescan(&record, &device).await;
    }
    let size = core.host().rescan(&device).await;
    let mut size = size.map_err(|error| refuse::host("measuring the device", &error))?;
    if record.encrypted && !core.has(Quirk::InnerLayerNotGrown) {
        let grown = core.host().grow_layer(&volume).await;
        size = grown.map_err(|error| refuse::host("growing the encryption layer", &error))?;
    }
    if let Some(limit) = range.limit.filter(|limit| size > *limit) {
        return Err(Status::out_of_range(format!(
            "the volume has {size}, more than the limit of {limit}"
        )));
    }
    if size < range.required {
        // Not OUT_OF_RANGE: the volume may have grown, and this machine not know it yet. Kubernetes gives an expansion up that is out of range.
        let text = format!(
            "the device shows {size}, less than the {} asked: not grown in the storage system, or not seen here yet",
            range.required
        );
        return Err(Status::unavailable(text));
    }
    if record.capability.form.is_block() {
        return Ok(size);
    }
    if record.access.is_read_only() {
        return Err(Status::failed_precondition(
            "a file system that is mounted read-only cannot grow",
        ));
    }
    let grown = core.host().grow_fs(&record.path).await;
    grown.map_err(|error| refuse::host("growing the file system", &error))?;
    Ok(size)
}

impl Core {
    /// The staged volume, if `path` is where it is staged or published.
    pub(super) fn recorded_at(&self, volume: &VolumeId, path: &HostPath) -> Option<StagedRecord> {
        self.ledger.read(|tables| {
            let staged = tables.staged.get(volume)?;
            let is_target = tables.targets.get(path).is_some_and(|record| record.volume == *volume);
            (is_target || staged.path == *path).then(|| staged.clone())
        })
    }
}
