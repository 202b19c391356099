//! CSI calls in a few words: what is asked, about which volume, and what came of it.

use wavetank_proto::csi::v1::{
    self as csi, CapacityRange, Topology, VolumeCapability, VolumeContentSource, volume_capability::AccessType,
    volume_capability::access_mode::Mode, volume_content_source::Type as SourceType,
};

use super::facts::bytes;
use super::lore::Lore;
use super::short;
use crate::link::{CsiReply, CsiRequest};

/// What a request asks for: the object first, then what is particular.
pub(super) fn asked(request: &CsiRequest, lore: &Lore) -> Vec<String> {
    let mut words = Vec::new();
    subject(request, lore, &mut words);
    match request {
        CsiRequest::CreateVolume(r) => {
            words.extend(range(r.capacity_range));
            words.extend(r.volume_capabilities.iter().flat_map(capability));
            let wanted = r.accessibility_requirements.as_ref();
            words.extend(wanted.and_then(|w| w.preferred.first()).map(place));
            words.extend(source(r.volume_content_source.as_ref(), lore));
        }
        CsiRequest::ControllerPublishVolume(r) => {
            words.push(format!("to {}", r.node_id));
            words.extend(r.readonly.then(|| "read-only".to_owned()));
        }
        CsiRequest::ControllerUnpublishVolume(r) if r.node_id.is_empty() => words.push("from every node".into()),
        CsiRequest::ControllerUnpublishVolume(r) => words.push(format!("from {}", r.node_id)),
        CsiRequest::ControllerExpandVolume(r) => words.extend(range(r.capacity_range).map(|s| format!("to {s}"))),
        CsiRequest::NodeExpandVolume(r) => words.extend(range(r.capacity_range).map(|s| format!("to {s}"))),
        CsiRequest::ControllerModifyVolume(r) => {
            words.extend(r.mutable_parameters.iter().map(|(k, v)| format!("{k}={v}")));
        }
        CsiRequest::NodeStageVolume(r) => words.extend(r.volume_capability.iter().flat_map(capability)),
        CsiRequest::NodePublishVolume(r) => {
            words.extend(pod(&r.target_path, lore).map(|pod| format!("for {pod}")));
            words.extend(r.readonly.then(|| "read-only".to_owned()));
        }
        CsiRequest::NodeUnpublishVolume(r) => words.extend(pod(&r.target_path, lore).map(|pod| format!("from {pod}"))),
        CsiRequest::GetCapacity(r) => words.extend(r.accessible_topology.iter().map(place)),
        _ => {}
    }
    words
}

/// What a reply says beyond that it is well.
pub(super) fn answered(reply: &CsiReply) -> Vec<String> {
    let mut words = Vec::new();
    match reply {
        CsiReply::CreateVolume(r) => {
            let Some(volume) = &r.volume else { return words };
            words.push(short::handle(&volume.volume_id).into_owned());
            words.extend(size(volume.capacity_bytes));
            words.extend(volume.accessible_topology.first().map(place));
        }
        CsiReply::ControllerPublishVolume(r) => {
            words.extend(r.publish_context.iter().map(|(k, v)| format!("{k}={}", short::ids(v))));
        }
        CsiReply::ControllerExpandVolume(r) => {
            words.extend(size(r.capacity_bytes));
            words.extend(r.node_expansion_required.then(|| "node must expand too".to_owned()));
        }
        CsiReply::NodeExpandVolume(r) => words.extend(size(r.capacity_bytes)),
        CsiReply::CreateSnapshot(csi::CreateSnapshotResponse { snapshot: Some(s) }) => {
            words.push(short::handle(&s.snapshot_id).into_owned());
            words.extend(size(s.size_bytes));
            words.push(if s.ready_to_use { "ready" } else { "not ready yet" }.into());
        }
        CsiReply::GetCapacity(r) => words.extend(size(r.available_capacity)),
        CsiReply::GetPluginInfo(r) => words.extend([r.name.clone(), r.vendor_version.clone()]),
        CsiReply::NodeGetInfo(r) => {
            words.push(r.node_id.clone());
            words.extend((r.max_volumes_per_node > 0).then(|| format!("at most {} volumes", r.max_volumes_per_node)));
            words.extend(r.accessible_topology.iter().map(place));
        }
        CsiReply::NodeGetVolumeStats(r) => words.extend(r.usage.iter().filter_map(usage)),
        _ => {}
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The object of a request: its name or id, and the claim behind it.
fn subject(request: &CsiRequest, lore: &Lore, words: &mut Vec<String>) {
    match request {
        CsiRequest::CreateVolume(r) => words.push(short::handle(&r.name).into_owned()),
        CsiRequest::CreateSnapshot(r) => words.push(format!("{} of", short::handle(&r.name))),
        CsiRequest::DeleteSnapshot(r) => {
            words.push(short::handle(&r.snapshot_id).into_owned());
            let snapshot = lore.snapshot_of_handle(&r.snapshot_id);
            words.extend(snapshot.map(|key| format!("(vs {})", short::key(key))));
        }
        _ => {}
    }
    words.extend(request.volume_id().map(|id| short::handle(id).into_owned()));
    let claim = lore.claim_of_request(request);
    words.extend(claim.map(|key| format!("(pvc {})", short::key(key))));
}

fn source(source: Option<&VolumeContentSource>, lore: &Lore) -> Option<String> {
    Some(match source?.r#type.as_ref()? {
        SourceType::Snapshot(s) => match lore.snapshot_of_handle(&s.snapshot_id) {
            Some(key) => format!("from vs {}", short::key(key)),
            None => format!("from snapshot {}", short::handle(&s.snapshot_id)),
        },
        SourceType::Volume(v) => match lore.claim_of_handle(&v.volume_id) {
            Some(key) => format!("from pvc {}", short::key(key)),
            None => format!("from volume {}", short::handle(&v.volume_id)),
        },
    })
}

fn capability(capability: &VolumeCapability) -> Vec<String> {
    let mut words = Vec::new();
    match &capability.access_type {
        Some(AccessType::Block(_)) => words.push("block".to_owned()),
        Some(AccessType::Mount(mount)) => {
            words.push(mount.fs_type.clone());
            words.push(mount.mount_flags.join(","));
        }
        None => {}
    }
    let mode = capability.access_mode.map(|m| m.mode());
    words.push(mode.map_or("", mode_name).to_owned());
    words.retain(|word| !word.is_empty());
    words
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Unknown => "",
        Mode::SingleNodeWriter => "single-node",
        Mode::SingleNodeReaderOnly => "single-node-reader",
        Mode::MultiNodeReaderOnly => "multi-node-reader",
        Mode::MultiNodeSingleWriter => "multi-node-single-writer",
        Mode::MultiNodeMultiWriter => "multi-node",
        Mode::SingleNodeSingleWriter => "single-node-single-writer",
        Mode::SingleNodeMultiWriter => "single-node-multi-writer",
    }
}

fn place(topology: &Topology) -> String {
    let segments = topology.segments.iter();
    let segments: Vec<String> = segments.map(|(k, v)| format!("{}={v}", short::qualified(k))).collect();
    format!("in {}", segments.join(","))
}

fn pod(path: &str, lore: &Lore) -> Option<String> {
    lore.pod_of_path(path).map(|key| format!("pod {}", short::key(key)))
}

fn range(range: Option<CapacityRange>) -> Option<String> {
    let range = range?;
    match (size(range.required_bytes), size(range.limit_bytes)) {
        (Some(least), None) => Some(least),
        (Some(least), Some(most)) if least == most => Some(least),
        (Some(least), Some(most)) => Some(format!("{least}…{most}")),
        (None, Some(most)) => Some(format!("at most {most}")),
        (None, None) => None,
    }
}

fn size(count: i64) -> Option<String> {
    let text = bytes(u64::try_from(count).unwrap_or(0));
    (!text.is_empty()).then_some(text)
}

fn usage(usage: &csi::VolumeUsage) -> Option<String> {
    let unit = usage.unit() == csi::volume_usage::Unit::Bytes;
    unit.then(|| {
        format!(
            "{} of {} used",
            size(usage.used).unwrap_or("0".into()),
            size(usage.total).unwrap_or("0".into())
        )
    })
}
