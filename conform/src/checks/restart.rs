//! The driver is killed and started again between calls, with the same state.

use super::prelude::*;

checks! { Restart:
    Must "restart/still-itself", "After a restart the driver has the same name and capabilities, and its node the same id.", "NodeGetInfo; GetPluginInfo",
        [Need::Restart], still_itself;
    Must "restart/every-step", "After a restart every call on a volume's way to a pod answers as before, field by field.",
        "Idempotency: a plugin may crash at any time", [Need::Volumes, Need::Restart], every_step;
    Must "restart/the-way-back", "The way back works across a restart between any two calls.", "Idempotency: a plugin may crash at any time",
        [Need::Volumes, Need::Restart], way_back;
    Must "restart/snapshots", "After a restart CreateSnapshot, ListSnapshots and a restore answer as before, field by field.", "Idempotency",
        [Need::Volumes, Need::Restart, Need::Controller(Rpc::CreateDeleteSnapshot)], snapshots;
    Must "restart/clone", "After a restart CreateVolume from a volume answers as before, field by field.", "Idempotency",
        [Need::Volumes, Need::Restart, Need::Controller(Rpc::CloneVolume)], clone;
    Must "restart/group", "After a restart CreateVolumeGroupSnapshot answers as before, field by field.", "Idempotency",
        [Need::Volumes, Need::Restart, Need::Group], group;
    Must "restart/expansion", "After a restart ControllerExpandVolume answers as before, and CreateVolume gives the volume that grew.", "Idempotency",
        [Need::Volumes, Need::Restart, Need::Controller(Rpc::ExpandVolume)], expansion;
    Must "restart/second-node", "After a restart a volume that is published to a node is still refused to a second one.", "ControllerPublishVolume Errors",
        [Need::Volumes, Need::Restart, Need::Controller(Rpc::PublishUnpublishVolume), Need::TwoNodes], second_node;
    Must "restart/contents", "A published volume can be read and written across a restart of the driver.", "The driver is not in the data path of a mount",
        [Need::Volumes, Need::Restart, Need::Mount, Need::Contents], contents;
}

async fn still_itself(lab: &Lab) -> Outcome {
    let (info, plugin) = (
        lab.ok(csi::GetPluginInfoRequest {}).await?,
        lab.ok(csi::GetPluginCapabilitiesRequest {}).await?,
    );
    let (node, rpcs) = (
        lab.ok(csi::NodeGetInfoRequest {}).await?,
        lab.ok(csi::NodeGetCapabilitiesRequest {}).await?,
    );
    lab.restart().await?;
    lab.again(0, csi::GetPluginInfoRequest {}, &info).await?;
    lab.again(0, csi::GetPluginCapabilitiesRequest {}, &plugin).await?;
    lab.again(0, csi::NodeGetInfoRequest {}, &node).await?;
    lab.again(0, csi::NodeGetCapabilitiesRequest {}, &rpcs).await
}

async fn every_step(lab: &Lab) -> Outcome {
    let request = lab.create_request("v", !lab.profile().mount);
    let answer = lab.ok(request.clone()).await?;
    lab.restart().await?;
    lab.again(0, request.clone(), &answer).await?;
    let volume = crate::lab::volume_of(request.clone(), answer.clone())?;
    if lab.has(Rpc::PublishUnpublishVolume) {
        let attached = lab.ok(lab.attach_request(&volume, 0)).await?;
        lab.restart().await?;
        lab.again(0, lab.attach_request(&volume, 0), &attached).await?;
    }
    let place = lab.staged(&volume, 0).await?;
    lab.restart().await?;
    if let Some(stage) = &place.stage {
        lab.again(0, stage.clone(), &csi::NodeStageVolumeResponse {}).await?;
    }
    let published = lab.ok(place.publish.clone()).await?;
    lab.restart().await?;
    lab.again(0, place.publish.clone(), &published).await?;
    lab.again(0, request, &answer).await?;
    lab.down(&volume, &place).await
}

async fn way_back(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    for _ in 0..2 {
        lab.unpublish(&volume, &place).await?;
        lab.restart().await?;
    }
    for _ in 0..2 {
        lab.unstage(&volume, &place).await?;
        lab.restart().await?;
    }
    if lab.has(Rpc::PublishUnpublishVolume) {
        for _ in 0..2 {
            lab.ok(lab.detach_request(&volume, 0)).await?;
            lab.restart().await?;
        }
    }
    lab.delete(&volume).await?;
    lab.restart().await?;
    lab.delete(&volume).await?;
    if lab.has(Rpc::ListVolumes) {
        expect(super::list::entry(lab, &volume.id).await?.is_none(), || {
            "it is listed again".to_owned()
        })?;
    }
    Ok(())
}

async fn snapshots(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    let first = csi::CreateSnapshotResponse {
        snapshot: Some(snapshot.clone()),
    };
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::snapshot_source(&snapshot.snapshot_id),
        ..lab.create_request("restored", !lab.profile().mount)
    };
    let restored = lab.ok(request.clone()).await?;
    lab.restart().await?;
    lab.again(0, lab.snapshot_request("s", &volume), &first).await?;
    lab.again(0, request, &restored).await?;
    if lab.has(Rpc::ListSnapshots) {
        let listed = lab
            .ok(csi::ListSnapshotsRequest {
                snapshot_id: snapshot.snapshot_id.clone(),
                ..Default::default()
            })
            .await?;
        let there = csi::CreateSnapshotResponse {
            snapshot: listed.entries.into_iter().find_map(|entry| entry.snapshot),
        };
        crate::lab::same::<csi::CreateSnapshotRequest>(&first, &there)?;
    }
    Ok(())
}

async fn clone(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::volume_source(&volume.id),
        ..lab.create_request("clone", !lab.profile().mount)
    };
    let cloned = lab.ok(request.clone()).await?;
    lab.restart().await?;
    lab.again(0, request, &cloned).await
}

async fn group(lab: &Lab) -> Outcome {
    let volumes = [lab.volume("one").await?, lab.volume("two").await?];
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: lab.name("g"),
        source_volume_ids: volumes.iter().map(|volume| volume.id.clone()).collect(),
        parameters: lab.settings().snapshot_parameters.clone(),
        ..Default::default()
    };
    let first = lab.ok(request.clone()).await?;
    lab.restart().await?;
    lab.again(0, request, &first).await
}

async fn expansion(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let request = super::expand::request(lab, &volume);
    let grown = lab.ok(request.clone()).await?;
    lab.restart().await?;
    lab.again(0, request, &grown).await?;
    let again = lab.make(volume.request.clone()).await?;
    expect(again.id == volume.id, || format!("{} became {}", volume.id, again.id))
}

async fn second_node(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.attach(&volume, 0).await?;
    lab.restart().await?;
    lab.refused(lab.attach_request(&volume, 1), &[FailedPrecondition]).await
}

async fn contents(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    super::contents::write(lab, &place, "before").await?;
    lab.restart().await?;
    super::contents::reads(lab, &place, &["before"]).await?;
    super::contents::write(lab, &place, "after").await?;
    lab.ok(place.publish.clone()).await?;
    super::contents::reads(lab, &place, &["before", "after"]).await?;
    lab.down(&volume, &place).await
}
