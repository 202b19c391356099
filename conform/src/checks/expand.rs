//! Obligations of ControllerExpandVolume and NodeExpandVolume.

use super::prelude::*;
use crate::lab::Volume;

checks! { Controller:
    Must "expand/needs-id", "ControllerExpandVolume without a volume_id is refused.", "ControllerExpandVolumeRequest, `volume_id` is REQUIRED",
        [Need::Controller(Rpc::ExpandVolume)], needs_id;
    Must "expand/needs-range", "ControllerExpandVolume without a capacity_range is refused.", "ControllerExpandVolumeRequest, `capacity_range` is REQUIRED",
        [Need::Volumes, Need::Controller(Rpc::ExpandVolume)], needs_range;
    Must "expand/unknown", "ControllerExpandVolume of a volume that does not exist is refused with NOT_FOUND.",
        "ControllerExpandVolume Errors: volume does not exist", [Need::Controller(Rpc::ExpandVolume)], unknown;
    Must "expand/grows", "ControllerExpandVolume answers a size that is at least what was asked.", "ControllerExpandVolumeResponse, `capacity_bytes`",
        [Need::Volumes, Need::Controller(Rpc::ExpandVolume)], grows;
    Must "expand/twice", "ControllerExpandVolume with the same request answers the same.", "ControllerExpandVolume: this operation MUST be idempotent",
        [Need::Volumes, Need::Controller(Rpc::ExpandVolume)], twice;
    Must "expand/never-shrinks", "ControllerExpandVolume to less than a volume has answers OK with the size it has.",
        "ControllerExpandVolume: larger already, SHOULD reply 0 OK", [Need::Volumes, Need::Controller(Rpc::ExpandVolume)], never_shrinks;
    Must "expand/created-again", "CreateVolume with the request that made a volume answers with it also after it grew.",
        "CreateVolume: this operation MUST be idempotent", [Need::Volumes, Need::Controller(Rpc::ExpandVolume)], created_again;
    Must "expand/listed-size", "After ControllerExpandVolume ListVolumes shows the new size.", "ListVolumesResponse.Entry, `volume`",
        [Need::Volumes, Need::Controller(Rpc::ExpandVolume), Need::Controller(Rpc::ListVolumes)], listed;
    Should "expand/limit-below-size", "ControllerExpandVolume with a limit below the size it has is refused with OUT_OF_RANGE.",
        "ControllerExpandVolume Errors: unsupported capacity_range", [Need::Volumes, Need::Controller(Rpc::ExpandVolume)], limit_below;
    Must "expand/in-use", "A volume that is published grows, if the driver says that it grows volumes online, all the way to its file system.",
        "PluginCapability.VolumeExpansion: ONLINE", [Need::Volumes, Need::Controller(Rpc::ExpandVolume), Need::OnlineExpansion], in_use;
    Must "expand/not-in-use", "A volume that grew while no node had it is as large when it is published.", "PluginCapability.VolumeExpansion: OFFLINE",
        [Need::Volumes, Need::Controller(Rpc::ExpandVolume)], not_in_use;
    Must "node-expand/needs-id", "NodeExpandVolume without a volume_id is refused.", "NodeExpandVolumeRequest, `volume_id` is REQUIRED",
        [Need::Node(NodeRpc::ExpandVolume)], node_needs_id;
    Must "node-expand/needs-path", "NodeExpandVolume without a volume_path is refused.", "NodeExpandVolumeRequest, `volume_path` is REQUIRED",
        [Need::Volumes, Need::Node(NodeRpc::ExpandVolume)], node_needs_path;
    Must "node-expand/unknown", "NodeExpandVolume of a volume that does not exist is refused with NOT_FOUND.", "NodeExpandVolume Errors: volume does not exist",
        [Need::Node(NodeRpc::ExpandVolume)], node_unknown;
    Must "node-expand/twice", "NodeExpandVolume of a volume that is as large already answers OK.", "NodeExpandVolume: SHOULD be idempotent",
        [Need::Volumes, Need::Node(NodeRpc::ExpandVolume)], node_twice;
}

pub(super) fn request(lab: &Lab, volume: &Volume) -> csi::ControllerExpandVolumeRequest {
    csi::ControllerExpandVolumeRequest {
        volume_id: volume.id.clone(),
        capacity_range: range(lab.settings().grown),
        volume_capability: Some(volume.capability.clone()),
        ..Default::default()
    }
}

async fn needs_id(lab: &Lab) -> Outcome {
    let request = csi::ControllerExpandVolumeRequest {
        capacity_range: range(lab.settings().grown),
        ..Default::default()
    };
    lab.refused(request, &[InvalidArgument]).await
}

async fn needs_range(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::ControllerExpandVolumeRequest {
            capacity_range: None,
            ..request(lab, &volume)
        },
        &[InvalidArgument],
    )
    .await
}

async fn unknown(lab: &Lab) -> Outcome {
    let request = csi::ControllerExpandVolumeRequest {
        volume_id: NOBODY.to_owned(),
        capacity_range: range(lab.settings().grown),
        ..Default::default()
    };
    lab.refused(request, &[NotFound]).await
}

async fn grows(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let answer = lab.ok(request(lab, &volume)).await?;
    let (has, wanted) = (answer.capacity_bytes, lab.settings().grown);
    expect(has >= wanted, || {
        format!("capacity_bytes is {has}, asked for were {wanted}")
    })
}

async fn twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let first = lab.ok(request(lab, &volume)).await?;
    lab.again(0, request(lab, &volume), &first).await
}

async fn never_shrinks(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.ok(request(lab, &volume)).await?;
    let smaller = csi::ControllerExpandVolumeRequest {
        capacity_range: range(lab.settings().size),
        ..request(lab, &volume)
    };
    let answer = lab.ok(smaller).await?;
    let (has, wanted) = (answer.capacity_bytes, lab.settings().grown);
    expect(has >= wanted, || {
        format!("capacity_bytes is {has}, the volume has {wanted}")
    })
}

async fn created_again(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.ok(request(lab, &volume)).await?;
    let again = lab.make(volume.request.clone()).await?;
    expect(again.id == volume.id, || format!("{} became {}", volume.id, again.id))
}

async fn listed(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let answer = lab.ok(request(lab, &volume)).await?;
    let listed = super::list::entry(lab, &volume.id)
        .await?
        .and_then(|entry| entry.volume)
        .unwrap_or_default();
    let sizes = (listed.capacity_bytes, answer.capacity_bytes);
    expect(sizes.0 == 0 || sizes.0 == sizes.1, || {
        format!("it has {} bytes, listed are {}", sizes.1, sizes.0)
    })
}

async fn limit_below(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let capacity_range = Some(csi::CapacityRange {
        required_bytes: 0,
        limit_bytes: lab.settings().size / 2,
    });
    lab.refused(
        csi::ControllerExpandVolumeRequest {
            capacity_range,
            ..request(lab, &volume)
        },
        &[OutOfRange, InvalidArgument],
    )
    .await
}

/// Bytes of the volume as the node sees them, if it says so.
pub(super) async fn bytes(lab: &Lab, volume: &Volume, path: &str) -> Result<Option<i64>, Stop> {
    if !lab.profile().node_has(NodeRpc::GetVolumeStats) {
        return Ok(None);
    }
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: volume.id.clone(),
        volume_path: path.to_owned(),
        ..Default::default()
    };
    let answer = lab.ok(request).await?;
    let unit: i32 = csi::volume_usage::Unit::Bytes.into();
    Ok(answer
        .usage
        .into_iter()
        .find(|usage| usage.unit == unit)
        .map(|usage| usage.total))
}

fn on_node(lab: &Lab, volume: &Volume, place: &crate::lab::InUse) -> csi::NodeExpandVolumeRequest {
    csi::NodeExpandVolumeRequest {
        volume_id: volume.id.clone(),
        volume_path: place.target().to_owned(),
        capacity_range: range(lab.settings().grown),
        staging_target_path: place.publish.staging_target_path.clone(),
        volume_capability: Some(volume.capability.clone()),
        ..Default::default()
    }
}

/// Grows a published volume as callers do: the controller first, the node if it is told to.
pub(super) async fn grow(lab: &Lab, volume: &Volume, place: &crate::lab::InUse) -> Outcome {
    let answer = lab.ok(request(lab, volume)).await?;
    if answer.node_expansion_required {
        let answer = lab.ok_on(place.node, on_node(lab, volume, place)).await?;
        super::create::at_least(
            "capacity_bytes of NodeExpandVolume",
            answer.capacity_bytes,
            lab.settings().grown,
        )?;
    }
    Ok(())
}

/// A file system takes some of its device for itself.
const MOST_OVERHEAD: i64 = 4;

async fn in_use(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    let before = bytes(lab, &volume, place.target()).await?;
    grow(lab, &volume, &place).await?;
    let after = bytes(lab, &volume, place.target()).await?;
    if let (Some(before), Some(after)) = (before, after) {
        let added = lab.settings().grown - lab.settings().size;
        expect(after >= before + added / MOST_OVERHEAD, || {
            format!("the node saw {before} bytes, and sees {after} after {added} more")
        })?;
    }
    lab.down(&volume, &place).await
}

async fn not_in_use(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let answer = lab.ok(request(lab, &volume)).await?;
    let place = lab.up(&volume, 0).await?;
    if answer.node_expansion_required {
        lab.ok(on_node(lab, &volume, &place)).await?;
    }
    if let Some(after) = bytes(lab, &volume, place.target()).await? {
        let least = lab.settings().size + (lab.settings().grown - lab.settings().size) / MOST_OVERHEAD;
        expect(after >= least, || {
            format!("the node sees {after} bytes of {}", lab.settings().grown)
        })?;
    }
    lab.down(&volume, &place).await
}

async fn node_needs_id(lab: &Lab) -> Outcome {
    let volume_path = lab.target_path("nobody", false, 0);
    lab.refused(
        csi::NodeExpandVolumeRequest {
            volume_path,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn node_needs_path(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::NodeExpandVolumeRequest {
            volume_id: volume.id,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn node_unknown(lab: &Lab) -> Outcome {
    let request = csi::NodeExpandVolumeRequest {
        volume_id: NOBODY.to_owned(),
        volume_path: lab.target_path("nobody", false, 0),
        capacity_range: range(lab.settings().grown),
        ..Default::default()
    };
    lab.refused(request, &[NotFound]).await
}

async fn node_twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    let request = csi::NodeExpandVolumeRequest {
        capacity_range: range(lab.settings().size),
        ..on_node(lab, &volume, &place)
    };
    let first = lab.ok(request.clone()).await?;
    lab.again(0, request, &first).await
}
