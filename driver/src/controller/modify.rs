//! `ControllerModifyVolume`: settings that may change while a volume lives. All of a request is applied, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use crate::check;
use crate::config::Config;
use crate::gate::operate;
use crate::records::{VolumePhase, VolumeRecord};
use crate::units::VolumeId;

/// Are these mutable parameters that the driver takes?
pub(super) fn check_settings(config: &Config, settings: &BTreeMap<String, String>) -> Result<(), Status> {
    check::map("mutable_parameters", settings)?;
    if !settings.is_empty() && !config.modify {
        return Err(Status::invalid_argument(
            "mutable_parameters need the capability MODIFY_VOLUME",
        ));
    }
    for (key, value) in settings {
        if !config.mutable_parameters.contains(key) {
            return Err(Status::invalid_argument(format!(
                "mutable parameter `{key}` is unknown"
            )));
        }
        if !value.parse::<u32>().is_ok_and(|number| number > 0) {
            let text = format!("mutable parameter `{key}` must be a positive whole number, not `{value}`");
            return Err(Status::invalid_argument(text));
        }
    }
    Ok(())
}

pub(super) async fn call(core: &Arc<Core>, wire: csi::ControllerModifyVolumeRequest) -> Result<(), Status> {
    let id = check::volume_id(&wire.volume_id)?;
    check::secrets(&wire.secrets)?;
    check_settings(&core.config, &wire.mutable_parameters)?;
    let pass = core.gate.alone(&id)?;
    let record = core.record(&id).filter(|record| record.phase == VolumePhase::Ready);
    if record.is_some_and(|record| holds(&record, &wire.mutable_parameters)) {
        return Ok(());
    }
    let span = tracing::info_span!("ControllerModifyVolume", volume = %id);
    let work = modify(Arc::clone(core), id, wire.mutable_parameters);
    operate(&core.runtime, pass, span, work).await
}

fn holds(record: &VolumeRecord, settings: &BTreeMap<String, String>) -> bool {
    settings
        .iter()
        .all(|(key, value)| record.settings.get(key) == Some(value))
}

async fn modify(core: Arc<Core>, id: VolumeId, settings: BTreeMap<String, String>) -> Result<(), Status> {
    core.settle_volume(&id).await?;
    let (record, _) = core.find(&id).await?;
    if holds(&record, &settings) {
        return Ok(());
    }
    core.ledger
        .update(|draft| {
            let intent = VolumeRecord {
                phase: VolumePhase::Modifying(settings.clone()),
                ..record
            };
            draft.volume(&id, Some(intent));
            Ok(())
        })
        .await?;
    let result = core.finish_modification(&id, &settings).await;
    if result.is_err() {
        core.settle_volume_later(&id);
    }
    result
}
