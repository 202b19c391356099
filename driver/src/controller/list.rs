//! The calls that look and change nothing: listing, one volume, capacity, and whether a volume can be used so.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::create::{check_parameters, type_name};
use super::publish::supports;
use super::{Core, modify};
use crate::check;
use crate::host::LAYER_HEADER;
use crate::pool::PoolErrorKind;
use crate::quirk::Quirk;
use crate::records::{PublicationPhase, VolumePhase, VolumeRecord};
use crate::refuse;
use crate::units::{Bytes, Segments, VolumeId};

/// A page token is this, followed by the last handle of the page before: it stays good while volumes come and go.
const TOKEN: &str = "after:";

pub(super) async fn list(core: &Arc<Core>, wire: &csi::ListVolumesRequest) -> Result<csi::ListVolumesResponse, Status> {
    let max = usize::try_from(wire.max_entries)
        .map_err(|_| Status::invalid_argument("max_entries is negative"))
        .map(|max| if max == 0 { usize::MAX } else { max })?;
    let after = match wire.starting_token.as_str() {
        "" => None,
        token => Some(start_of(token)?),
    };
    let (page, is_last) = core.ledger.read(|tables| {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut volumes = tables
            .volumes
            .range((from, std::ops::Bound::Unbounded))
            .filter(|(_, record)| record.phase != VolumePhase::Creating);
        let page: Vec<_> = volumes
            .by_ref()
            .take(max)
            .map(|(id, record)| (id.clone(), record.clone()))
            .collect();
        (page, volumes.next().is_none())
    });
    let next_token = match page.last() {
        Some((id, _)) if !is_last => format!("{TOKEN}{id}"),
        _ => String::new(),
    };
    let mut entries = Vec::with_capacity(page.len());
    for (id, record) in page {
        let (published_node_ids, volume_condition) = status(core, &id).await?;
        entries.push(csi::list_volumes_response::Entry {
            volume: Some(core.to_wire(&id, &record, record.size)),
            status: Some(csi::list_volumes_response::VolumeStatus {
                published_node_ids,
                volume_condition,
            }),
        });
    }
    Ok(csi::ListVolumesResponse { entries, next_token })
}

fn start_of(token: &str) -> Result<VolumeId, Status> {
    let id = token.strip_prefix(TOKEN).and_then(|id| check::volume_id(id).ok());
    id.ok_or_else(|| Status::aborted("starting_token is not one of this driver's: start from the beginning"))
}

/// The nodes that have a volume, and how it is.
async fn status(core: &Core, id: &VolumeId) -> Result<(Vec<String>, Option<csi::VolumeCondition>), Status> {
    let nodes: Vec<String> = core.ledger.read(|tables| {
        let published = tables
            .published(id)
            .filter(|(_, record)| record.phase != PublicationPhase::Publishing);
        published.map(|(node, _)| node.as_str().to_owned()).collect()
    });
    let nodes = if core.has(Quirk::ListForgetsNodes) {
        Vec::new()
    } else {
        nodes
    };
    if !core.config.volume_condition {
        return Ok((nodes, None));
    }
    let found = core
        .pool
        .get(id)
        .await
        .map_err(|error| refuse::pool("looking at the volume", &error))?;
    let message = match found {
        None => "the storage system does not have the volume".to_owned(),
        Some(volume) => volume.trouble,
    };
    Ok((
        nodes,
        Some(csi::VolumeCondition {
            abnormal: !message.is_empty(),
            message: or_sound(message),
        }),
    ))
}

fn or_sound(message: String) -> String {
    if message.is_empty() {
        "the volume is sound".to_owned()
    } else {
        message
    }
}

pub(super) async fn get(
    core: &Arc<Core>,
    wire: &csi::ControllerGetVolumeRequest,
) -> Result<csi::ControllerGetVolumeResponse, Status> {
    let id = check::volume_id(&wire.volume_id)?;
    let (record, _) = core.find(&id).await?;
    let (published_node_ids, volume_condition) = status(core, &id).await?;
    Ok(csi::ControllerGetVolumeResponse {
        volume: Some(core.to_wire(&id, &record, record.size)),
        status: Some(csi::controller_get_volume_response::VolumeStatus {
            published_node_ids,
            volume_condition,
        }),
    })
}

pub(super) async fn capacity(
    core: &Arc<Core>,
    wire: &csi::GetCapacityRequest,
) -> Result<csi::GetCapacityResponse, Status> {
    check_parameters(&core.config, &wire.parameters)?;
    let nothing = csi::GetCapacityResponse {
        available_capacity: 0,
        maximum_volume_size: None,
        minimum_volume_size: None,
    };
    for capability in &wire.volume_capabilities {
        let capability = check::capability(Some(capability))?;
        if check::is_offered(&core.config, &capability).is_err() {
            return Ok(nothing);
        }
    }
    let anywhere = Segments::new();
    let segments = wire
        .accessible_topology
        .as_ref()
        .map(check::segments)
        .transpose()?
        .unwrap_or(&anywhere);
    let name = type_name(&core.config, &wire.parameters);
    let capacity = match core.pool.capacity(name, segments).await {
        Ok(capacity) => capacity,
        Err(error) if error.kind == PoolErrorKind::NoSuchPlace => return Ok(nothing),
        Err(error) => return Err(refuse::pool("looking for room", &error)),
    };
    let kind = core.config.storage_type(name);
    // The header of a layer takes room that no volume shows.
    let header = if kind.encrypted { LAYER_HEADER } else { Bytes(0) };
    let less_header = |size: Bytes| Bytes(size.0.saturating_sub(header.0));
    let largest = capacity.largest.map_or(kind.max_size, less_header).min(kind.max_size);
    Ok(csi::GetCapacityResponse {
        available_capacity: less_header(capacity.available).to_wire(),
        maximum_volume_size: Some(largest.round_down(core.config.allocation_unit).to_wire()),
        minimum_volume_size: Some(kind.min_size.to_wire()),
    })
}

pub(super) async fn validate(
    core: &Arc<Core>,
    wire: csi::ValidateVolumeCapabilitiesRequest,
) -> Result<csi::ValidateVolumeCapabilitiesResponse, Status> {
    let id = check::volume_id(&wire.volume_id)?;
    check::secrets(&wire.secrets)?;
    check::map("volume_context", &wire.volume_context)?;
    let capabilities = check::capabilities(&wire.volume_capabilities)?;
    let (record, _) = core.find(&id).await?;
    for capability in &capabilities {
        let fits = check::is_offered(&core.config, capability).and_then(|()| supports(&record, capability));
        if let Err(message) = fits {
            return Ok(unconfirmed(message));
        }
    }
    if let Err(message) = same_origin(core, &record, &wire) {
        return Ok(unconfirmed(message));
    }
    Ok(csi::ValidateVolumeCapabilitiesResponse {
        confirmed: Some(csi::validate_volume_capabilities_response::Confirmed {
            volume_context: wire.volume_context,
            volume_capabilities: wire.volume_capabilities,
            parameters: wire.parameters,
            mutable_parameters: wire.mutable_parameters,
        }),
        message: String::new(),
    })
}

fn unconfirmed(message: String) -> csi::ValidateVolumeCapabilitiesResponse {
    csi::ValidateVolumeCapabilitiesResponse {
        confirmed: None,
        message,
    }
}

/// Do context and parameters, if given, belong to this volume?
fn same_origin(
    core: &Core,
    record: &VolumeRecord,
    wire: &csi::ValidateVolumeCapabilitiesRequest,
) -> Result<(), String> {
    let holds = |key: &String, value: &String| record.context.get(key) == Some(value);
    if !record.context.is_empty()
        && !wire.volume_context.is_empty()
        && !record
            .context
            .keys()
            .all(|key| wire.volume_context.get(key).is_some_and(|value| holds(key, value)))
    {
        return Err("volume_context is not this volume's".to_owned());
    }
    check_parameters(&core.config, &wire.parameters).map_err(|status| status.message().to_owned())?;
    let made_with = record.request.as_ref().map(|request| &request.parameters);
    if !wire.parameters.is_empty() && made_with.is_some_and(|made_with| *made_with != wire.parameters) {
        return Err("parameters are not those the volume was made with".to_owned());
    }
    modify::check_settings(&core.config, &wire.mutable_parameters).map_err(|status| status.message().to_owned())
}
