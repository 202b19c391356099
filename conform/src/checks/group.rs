//! Obligations of the GroupController service.

use std::collections::BTreeSet;

use wavetank_proto::csi::v1::group_controller_service_capability::rpc::Type as GroupRpc;

use super::prelude::*;
use crate::lab::Volume;

checks! { GroupController:
    Must "group-capabilities/are-known", "GroupControllerGetCapabilities names no UNKNOWN capability.", "GroupControllerGetCapabilities", [Need::Group], known;
    Must "group/needs-name", "CreateVolumeGroupSnapshot without a name is refused.", "CreateVolumeGroupSnapshotRequest, `name` is REQUIRED",
        [Need::Volumes, Need::Group], needs_name;
    Must "group/needs-sources", "CreateVolumeGroupSnapshot without source_volume_ids is refused.",
        "CreateVolumeGroupSnapshotRequest, `source_volume_ids` is REQUIRED", [Need::Group], needs_sources;
    Must "group/unknown-source", "CreateVolumeGroupSnapshot of a volume that does not exist is refused with NOT_FOUND, and cuts nothing.",
        "CreateVolumeGroupSnapshot Errors", [Need::Volumes, Need::Group], unknown_source;
    Must "group/complete", "CreateVolumeGroupSnapshot answers one snapshot of each volume, each with the group's id.", "VolumeGroupSnapshot",
        [Need::Volumes, Need::Group], complete;
    Must "group/same-name-same-group", "CreateVolumeGroupSnapshot with the same request answers the same group, field by field.",
        "CreateVolumeGroupSnapshot: this operation MUST be idempotent", [Need::Volumes, Need::Group], again;
    Must "group/same-name-other-volumes", "CreateVolumeGroupSnapshot with a known name of other volumes is refused with ALREADY_EXISTS.",
        "CreateVolumeGroupSnapshot Errors: ALREADY_EXISTS", [Need::Volumes, Need::Group], other_volumes;
    Must "group/get", "GetVolumeGroupSnapshot answers the group that was made.", "GetVolumeGroupSnapshotResponse", [Need::Volumes, Need::Group], get;
    Must "group/get-needs-id", "GetVolumeGroupSnapshot without a group_snapshot_id is refused.", "GetVolumeGroupSnapshotRequest, `group_snapshot_id` is REQUIRED",
        [Need::Group], get_needs_id;
    Must "group/get-unknown", "GetVolumeGroupSnapshot of a group that does not exist is refused with NOT_FOUND.",
        "GetVolumeGroupSnapshot Errors: group does not exist", [Need::Group], get_unknown;
    Must "group/delete-needs-id", "DeleteVolumeGroupSnapshot without a group_snapshot_id is refused.",
        "DeleteVolumeGroupSnapshotRequest, `group_snapshot_id` is REQUIRED", [Need::Group], delete_needs_id;
    Must "group/delete-unknown", "DeleteVolumeGroupSnapshot of a group that does not exist answers OK.", "DeleteVolumeGroupSnapshot: MUST reply 0 OK",
        [Need::Group], delete_unknown;
    Must "group/delete-other-members", "DeleteVolumeGroupSnapshot with snapshot_ids that are not the group's is refused with INVALID_ARGUMENT.",
        "DeleteVolumeGroupSnapshot Errors: snapshot list mismatch", [Need::Volumes, Need::Group], delete_mismatch;
    Must "group/delete-twice", "DeleteVolumeGroupSnapshot a second time answers OK, and its snapshots are gone.",
        "DeleteVolumeGroupSnapshot: this operation MUST be idempotent", [Need::Volumes, Need::Group], delete_twice;
    Must "group/member-alone", "DeleteSnapshot of a member is refused with INVALID_ARGUMENT if it cannot go without its group.",
        "DeleteSnapshot Errors: snapshot is part of a group", [Need::Volumes, Need::Group], member_alone;
    Must "group/restore", "A volume can be made from a member.", "CreateVolume", [Need::Volumes, Need::Group], restore;
}

async fn known(lab: &Lab) -> Outcome {
    expect(!lab.profile().group.contains(&GroupRpc::Unknown.into()), || {
        "a capability is UNKNOWN".to_owned()
    })
}

fn request(lab: &Lab, volumes: &[&Volume]) -> csi::CreateVolumeGroupSnapshotRequest {
    csi::CreateVolumeGroupSnapshotRequest {
        name: lab.name("g"),
        source_volume_ids: volumes.iter().map(|volume| volume.id.clone()).collect(),
        parameters: lab.settings().snapshot_parameters.clone(),
        ..Default::default()
    }
}

/// Two volumes and their group, when volumes can be made from it.
async fn made(lab: &Lab) -> Result<([Volume; 2], csi::VolumeGroupSnapshot), Stop> {
    let volumes = [lab.volume("one").await?, lab.volume("two").await?];
    for _ in 0..20 {
        let answer = lab.ok(request(lab, &[&volumes[0], &volumes[1]])).await?;
        let Some(group) = answer.group_snapshot else {
            return broken("CreateVolumeGroupSnapshot answered without a group");
        };
        if group.ready_to_use {
            return Ok((volumes, group));
        }
        lab.sleep(std::time::Duration::from_millis(500)).await;
    }
    Err(Stop::NotApplicable(
        "the group did not become ready to use in time".to_owned(),
    ))
}

fn members(group: &csi::VolumeGroupSnapshot) -> Vec<String> {
    group.snapshots.iter().map(|one| one.snapshot_id.clone()).collect()
}

fn delete_request(group: &csi::VolumeGroupSnapshot) -> csi::DeleteVolumeGroupSnapshotRequest {
    csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group.group_snapshot_id.clone(),
        snapshot_ids: members(group),
        ..Default::default()
    }
}

async fn needs_name(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::CreateVolumeGroupSnapshotRequest {
            name: String::new(),
            ..request(lab, &[&volume])
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_sources(lab: &Lab) -> Outcome {
    lab.refused(request(lab, &[]), &[InvalidArgument]).await
}

async fn unknown_source(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let source_volume_ids = vec![volume.id.clone(), NOBODY.to_owned()];
    lab.refused(
        csi::CreateVolumeGroupSnapshotRequest {
            source_volume_ids,
            ..request(lab, &[])
        },
        &[NotFound],
    )
    .await?;
    if lab.has(Rpc::ListSnapshots) {
        let listed = lab
            .ok(csi::ListSnapshotsRequest {
                source_volume_id: volume.id.clone(),
                ..Default::default()
            })
            .await?;
        expect(listed.entries.is_empty(), || {
            "the other volume was cut nevertheless".to_owned()
        })?;
    }
    Ok(())
}

async fn complete(lab: &Lab) -> Outcome {
    let (volumes, group) = made(lab).await?;
    let sources: BTreeSet<&str> = group
        .snapshots
        .iter()
        .map(|one| one.source_volume_id.as_str())
        .collect();
    let wanted: BTreeSet<&str> = volumes.iter().map(|volume| volume.id.as_str()).collect();
    expect(sources == wanted && group.snapshots.len() == 2, || {
        format!("the snapshots are of {sources:?}")
    })?;
    expect(group.creation_time.is_some(), || {
        "creation_time is REQUIRED and absent".to_owned()
    })?;
    let strangers = group
        .snapshots
        .iter()
        .filter(|one| one.group_snapshot_id != group.group_snapshot_id)
        .count();
    expect(strangers == 0, || {
        format!("{strangers} snapshots do not name the group")
    })
}

async fn again(lab: &Lab) -> Outcome {
    let (_, first) = made(lab).await?;
    let (_, second) = made(lab).await?;
    crate::lab::same::<csi::CreateVolumeGroupSnapshotRequest>(
        &csi::CreateVolumeGroupSnapshotResponse {
            group_snapshot: Some(first),
        },
        &csi::CreateVolumeGroupSnapshotResponse {
            group_snapshot: Some(second),
        },
    )
}

async fn other_volumes(lab: &Lab) -> Outcome {
    let (volumes, _) = made(lab).await?;
    lab.refused(request(lab, &[&volumes[0]]), &[AlreadyExists]).await
}

async fn get(lab: &Lab) -> Outcome {
    let (_, group) = made(lab).await?;
    let request = csi::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: group.group_snapshot_id.clone(),
        snapshot_ids: members(&group),
        ..Default::default()
    };
    let answer = lab.ok(request).await?;
    crate::lab::same::<csi::CreateVolumeGroupSnapshotRequest>(
        &csi::CreateVolumeGroupSnapshotResponse {
            group_snapshot: Some(group),
        },
        &csi::CreateVolumeGroupSnapshotResponse {
            group_snapshot: answer.group_snapshot,
        },
    )
}

async fn get_needs_id(lab: &Lab) -> Outcome {
    lab.refused(csi::GetVolumeGroupSnapshotRequest::default(), &[InvalidArgument])
        .await
}

async fn get_unknown(lab: &Lab) -> Outcome {
    lab.refused(
        csi::GetVolumeGroupSnapshotRequest {
            group_snapshot_id: NOBODY.to_owned(),
            ..Default::default()
        },
        &[NotFound],
    )
    .await
}

async fn delete_needs_id(lab: &Lab) -> Outcome {
    lab.refused(csi::DeleteVolumeGroupSnapshotRequest::default(), &[InvalidArgument])
        .await
}

async fn delete_unknown(lab: &Lab) -> Outcome {
    lab.ok(csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: NOBODY.to_owned(),
        ..Default::default()
    })
    .await
    .map(drop)
}

async fn delete_mismatch(lab: &Lab) -> Outcome {
    let (_, group) = made(lab).await?;
    let snapshot_ids = vec![NOBODY.to_owned()];
    lab.refused(
        csi::DeleteVolumeGroupSnapshotRequest {
            snapshot_ids,
            ..delete_request(&group)
        },
        &[InvalidArgument],
    )
    .await
}

async fn delete_twice(lab: &Lab) -> Outcome {
    let (_, group) = made(lab).await?;
    lab.ok(delete_request(&group)).await?;
    lab.ok(delete_request(&group)).await?;
    if lab.has(Rpc::ListSnapshots) {
        for snapshot_id in members(&group) {
            let listed = lab
                .ok(csi::ListSnapshotsRequest {
                    snapshot_id: snapshot_id.clone(),
                    ..Default::default()
                })
                .await?;
            expect(listed.entries.is_empty(), || format!("{snapshot_id} is still listed"))?;
        }
    }
    Ok(())
}

async fn member_alone(lab: &Lab) -> Outcome {
    let (_, group) = made(lab).await?;
    let Some(member) = members(&group).first().cloned() else {
        return broken("the group has no snapshots");
    };
    lab.ok_or(super::snapshot::delete_request(&member), &[InvalidArgument])
        .await
        .map(drop)
}

async fn restore(lab: &Lab) -> Outcome {
    let (_, group) = made(lab).await?;
    let member = members(&group).first().cloned().unwrap_or_default();
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::snapshot_source(&member),
        ..lab.create_request("restored", !lab.profile().mount)
    };
    lab.make(request).await.map(drop)
}
