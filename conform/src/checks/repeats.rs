//! The same request gets the same answer, whatever happened in between.

use super::prelude::*;

checks! { Repeats:
    Must "repeat/every-step", "Every call on a volume's way to a pod answers the same when it is made again at once.", "Idempotency: RPCs can be retried",
        [Need::Volumes], every_step;
    Must "repeat/every-step-back", "Every call on the way back answers OK when it is made again at once.", "Idempotency: RPCs can be retried",
        [Need::Volumes], every_step_back;
    Must "repeat/create-in-use", "CreateVolume of a volume that is in use answers the same as at first.", "CreateVolume: this operation MUST be idempotent",
        [Need::Volumes], create_in_use;
    Must "repeat/attach-in-use", "ControllerPublishVolume of a volume that is in use answers the same as at first.",
        "ControllerPublishVolume: this operation MUST be idempotent", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], attach_in_use;
    Must "repeat/stage-while-published", "NodeStageVolume of a volume that is published answers OK and disturbs nothing.",
        "NodeStageVolume: this operation MUST be idempotent", [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], stage_while_published;
    Must "repeat/restore-after-source-is-gone", "CreateVolume from a snapshot answers the same again after the snapshot was deleted, if it can be deleted.",
        "CreateVolume: this operation MUST be idempotent", [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], restore_without_source;
}

async fn every_step(lab: &Lab) -> Outcome {
    let request = lab.create_request("v", !lab.profile().mount);
    let answer = lab.ok(request.clone()).await?;
    lab.again(0, request.clone(), &answer).await?;
    let volume = crate::lab::volume_of(request, answer)?;
    if lab.has(Rpc::PublishUnpublishVolume) {
        let answer = lab.ok(lab.attach_request(&volume, 0)).await?;
        lab.again(0, lab.attach_request(&volume, 0), &answer).await?;
    }
    let place = lab.staged(&volume, 0).await?;
    if let Some(stage) = &place.stage {
        lab.again(0, stage.clone(), &csi::NodeStageVolumeResponse {}).await?;
    }
    let answer = lab.ok(place.publish.clone()).await?;
    lab.again(0, place.publish.clone(), &answer).await
}

async fn every_step_back(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    for _ in 0..2 {
        lab.unpublish(&volume, &place).await?;
    }
    for _ in 0..2 {
        lab.unstage(&volume, &place).await?;
    }
    if lab.has(Rpc::PublishUnpublishVolume) {
        for _ in 0..2 {
            lab.ok(lab.detach_request(&volume, 0)).await?;
        }
    }
    for _ in 0..2 {
        lab.delete(&volume).await?;
    }
    Ok(())
}

async fn create_in_use(lab: &Lab) -> Outcome {
    let request = lab.create_request("v", !lab.profile().mount);
    let answer = lab.ok(request.clone()).await?;
    let volume = crate::lab::volume_of(request.clone(), answer.clone())?;
    let place = lab.up(&volume, 0).await?;
    lab.again(0, request, &answer).await?;
    lab.down(&volume, &place).await
}

async fn attach_in_use(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let answer = lab.ok(lab.attach_request(&volume, 0)).await?;
    let place = lab.up(&volume, 0).await?;
    lab.again(0, lab.attach_request(&volume, 0), &answer).await?;
    lab.down(&volume, &place).await
}

async fn stage_while_published(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    if let Some(stage) = &place.stage {
        lab.ok(stage.clone()).await?;
    }
    lab.ok(place.publish.clone()).await?;
    lab.down(&volume, &place).await
}

async fn restore_without_source(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::snapshot_source(&snapshot.snapshot_id),
        ..lab.create_request("restored", !lab.profile().mount)
    };
    let answer = lab.ok(request.clone()).await?;
    if lab
        .ok_or(
            super::snapshot::delete_request(&snapshot.snapshot_id),
            &[FailedPrecondition],
        )
        .await?
        .is_none()
    {
        return Err(Stop::NotApplicable(
            "a snapshot with a restored volume cannot be deleted".to_owned(),
        ));
    }
    lab.again(0, request, &answer).await
}
