//! `NodeGetVolumeStats`: room, inodes and condition of a volume at a path.
//!
//! Besides the paths that the driver knows, any mount of the volume's device is good: for raw block volumes the caller
//! asks at a bind mount of its own.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use crate::check;
use crate::records::StagedRecord;
use crate::refuse;
use crate::units::{DevicePath, HostPath};

pub(super) async fn call(
    core: &Arc<Core>,
    wire: &csi::NodeGetVolumeStatsRequest,
) -> Result<csi::NodeGetVolumeStatsResponse, Status> {
    let volume = check::volume_id(&wire.volume_id)?;
    let path = check::known_path(&core.config, "volume_path", &wire.volume_path)?;
    let not_there = || Status::not_found(format!("volume {volume} is not at {path}"));
    let staged = core.staged(&volume).ok_or_else(not_there)?;
    let device = core.shown(&volume, &staged).await?;
    let is_mounted = match &device {
        Some(device) => core.is_mounted(&path, device).await?,
        None => false,
    };
    let is_known = core.recorded_at(&volume, &path).is_some();
    match device {
        Some(device) if is_mounted || (is_known && staged.capability.form.is_block()) => {
            let usage = usage(core, &staged, &path, &device).await?;
            Ok(answer(core, usage, None))
        }
        _ if is_known && core.config.volume_condition => Ok(answer(
            core,
            Vec::new(),
            Some("the volume is not mounted there any more"),
        )),
        _ => Err(not_there()),
    }
}

fn answer(core: &Core, usage: Vec<csi::VolumeUsage>, trouble: Option<&str>) -> csi::NodeGetVolumeStatsResponse {
    let condition = csi::VolumeCondition {
        abnormal: trouble.is_some(),
        message: trouble.unwrap_or("the volume is sound").to_owned(),
    };
    csi::NodeGetVolumeStatsResponse {
        usage,
        volume_condition: core.config.volume_condition.then_some(condition),
    }
}

async fn usage(
    core: &Core,
    staged: &StagedRecord,
    path: &HostPath,
    device: &DevicePath,
) -> Result<Vec<csi::VolumeUsage>, Status> {
    use csi::volume_usage::Unit;
    if staged.capability.form.is_block() {
        let size = core.host().device_size(device).await;
        let total = size
            .map_err(|error| refuse::host("measuring the device", &error))?
            .to_wire();
        return Ok(vec![csi::VolumeUsage {
            total,
            unit: Unit::Bytes.into(),
            ..Default::default()
        }]);
    }
    let usage = core.host().usage(path).await;
    let usage = usage.map_err(|error| refuse::host("looking at the file system", &error))?;
    let count = |inodes: u64| i64::try_from(inodes).unwrap_or(i64::MAX);
    Ok(vec![
        csi::VolumeUsage {
            available: usage.available.to_wire(),
            total: usage.total.to_wire(),
            used: usage.used.to_wire(),
            unit: Unit::Bytes.into(),
        },
        csi::VolumeUsage {
            available: count(usage.inodes_free),
            total: count(usage.inodes),
            used: count(usage.inodes_used),
            unit: Unit::Inodes.into(),
        },
    ])
}
