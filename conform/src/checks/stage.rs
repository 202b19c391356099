//! Obligations of NodeStageVolume and NodeUnstageVolume.

use super::prelude::*;
use crate::lab::unstage_request;

checks! { Node:
    Must "stage/needs-volume-id", "NodeStageVolume without a volume_id is refused.", "NodeStageVolumeRequest, `volume_id` is REQUIRED",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], needs_id;
    Must "stage/needs-path", "NodeStageVolume without a staging_target_path is refused.", "NodeStageVolumeRequest, `staging_target_path` is REQUIRED",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], needs_path;
    Must "stage/needs-capability", "NodeStageVolume without a volume_capability is refused.", "NodeStageVolumeRequest, `volume_capability` is REQUIRED",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], needs_capability;
    Must "stage/unknown-volume", "NodeStageVolume of a volume that does not exist is refused with NOT_FOUND.", "NodeStageVolume Errors: volume does not exist",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], unknown;
    Must "stage/twice", "NodeStageVolume with the same request answers OK again.", "NodeStageVolume: this operation MUST be idempotent",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], twice;
    Must "stage/other-capability", "NodeStageVolume at the same path as something else is refused with ALREADY_EXISTS.",
        "NodeStageVolume Errors: incompatible capability", [Need::Volumes, Need::Mount, Need::Block, Need::Node(NodeRpc::StageUnstageVolume)], other;
    Should "stage/after-a-link", "NodeStageVolume is not led astray by a symbolic link at the staging path.", "Never acts outside the path it was given",
        [Need::Volumes, Need::Mount, Need::Node(NodeRpc::StageUnstageVolume), Need::Contents], astray;
    Must "unstage/needs-volume-id", "NodeUnstageVolume without a volume_id is refused.", "NodeUnstageVolumeRequest, `volume_id` is REQUIRED",
        [Need::Node(NodeRpc::StageUnstageVolume)], unstage_needs_id;
    Must "unstage/needs-path", "NodeUnstageVolume without a staging_target_path is refused.", "NodeUnstageVolumeRequest, `staging_target_path` is REQUIRED",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], unstage_needs_path;
    Must "unstage/twice", "NodeUnstageVolume a second time answers OK.", "NodeUnstageVolume: this operation MUST be idempotent",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], unstage_twice;
    Must "unstage/never-staged", "NodeUnstageVolume of a volume that was never staged answers OK.", "NodeUnstageVolume: MUST reply 0 OK",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], never_staged;
    Must "unstage/unmounts", "After NodeUnstageVolume nothing is mounted at the staging path.", "NodeUnstageVolume: MUST undo the work of NodeStageVolume",
        [Need::Volumes, Need::Mount, Need::Node(NodeRpc::StageUnstageVolume), Need::Contents], unmounts;
}

async fn base(lab: &Lab) -> Result<csi::NodeStageVolumeRequest, Stop> {
    let volume = lab.volume("v").await?;
    let context = lab.attach(&volume, 0).await?;
    let request = lab.stage_request(&volume, 0, &context);
    lab.dir(0, &request.staging_target_path).await?;
    Ok(request)
}

async fn needs_id(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodeStageVolumeRequest {
            volume_id: String::new(),
            ..request
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_path(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodeStageVolumeRequest {
            staging_target_path: String::new(),
            ..request
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_capability(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodeStageVolumeRequest {
            volume_capability: None,
            ..request
        },
        &[InvalidArgument],
    )
    .await
}

async fn unknown(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodeStageVolumeRequest {
            volume_id: NOBODY.to_owned(),
            ..request
        },
        &[NotFound],
    )
    .await
}

async fn twice(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    let first = lab.ok(request.clone()).await?;
    lab.again(0, request, &first).await
}

async fn other(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.ok(request.clone()).await?;
    let volume_capability = Some(crate::lab::capability(lab.settings(), true, crate::lab::WRITER));
    lab.refused(
        csi::NodeStageVolumeRequest {
            volume_capability,
            ..request
        },
        &[AlreadyExists],
    )
    .await
}

async fn astray(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let context = lab.attach(&volume, 0).await?;
    let request = lab.stage_request(&volume, 0, &context);
    let elsewhere = lab.stage_path("elsewhere", 0);
    lab.dir(0, &elsewhere).await?;
    let parent = request
        .staging_target_path
        .rsplit_once('/')
        .map_or("/", |(parent, _)| parent);
    lab.dir(0, parent).await?;
    lab.link(0, &elsewhere, &request.staging_target_path).await?;
    // Refusing is best; what matters is that nothing happens elsewhere.
    let staged = lab.call(request.clone()).await.is_ok();
    let mounts = lab.machine(0).mounts_below(&elsewhere).await.unwrap_or_default();
    if staged {
        lab.ok(unstage_request(&volume, &request)).await?;
    }
    expect(mounts.is_empty(), || format!("it mounted at {}", mounts[0]))
}

async fn unstage_needs_id(lab: &Lab) -> Outcome {
    let staging_target_path = lab.stage_path("nobody", 0);
    lab.refused(
        csi::NodeUnstageVolumeRequest {
            staging_target_path,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn unstage_needs_path(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::NodeUnstageVolumeRequest {
            volume_id: volume.id,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn unstage_twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.staged(&volume, 0).await?;
    lab.unstage(&volume, &place).await?;
    lab.unstage(&volume, &place).await
}

async fn never_staged(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let request = lab.stage_request(&volume, 0, &Default::default());
    lab.dir(0, &request.staging_target_path).await?;
    lab.ok(unstage_request(&volume, &request)).await.map(drop)
}

async fn unmounts(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.staged(&volume, 0).await?;
    lab.unstage(&volume, &place).await?;
    let path = place.publish.staging_target_path;
    let mounts = lab.machine(0).mounts_below(&path).await.unwrap_or_default();
    expect(mounts.is_empty(), || format!("still mounted: {}", mounts[0]))
}
