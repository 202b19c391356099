//! Obligations of NodePublishVolume and NodeUnpublishVolume.

use std::collections::BTreeMap;

use wavetank_proto::csi::v1::volume_capability::AccessType;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::prelude::*;
use crate::driver::{Kind, WriteError};

checks! { Node:
    Must "publish/needs-volume-id", "NodePublishVolume without a volume_id is refused.", "NodePublishVolumeRequest, `volume_id` is REQUIRED", [Need::Volumes], needs_id;
    Must "publish/needs-target", "NodePublishVolume without a target_path is refused.", "NodePublishVolumeRequest, `target_path` is REQUIRED", [Need::Volumes], needs_target;
    Must "publish/needs-capability", "NodePublishVolume without a volume_capability is refused.", "NodePublishVolumeRequest, `volume_capability` is REQUIRED",
        [Need::Volumes], needs_capability;
    Must "publish/needs-staging-path", "NodePublishVolume of a driver that stages is refused without a staging_target_path.",
        "NodePublishVolume Errors: staging_target_path is not set", [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], needs_staging;
    Must "publish/unknown-volume", "NodePublishVolume of a volume that does not exist is refused with NOT_FOUND, or FAILED_PRECONDITION because it is not staged.", "NodePublishVolume Errors: volume does not exist",
        [Need::Volumes], unknown;
    Must "publish/twice", "NodePublishVolume with the same request answers OK again.", "NodePublishVolume: this operation MUST be idempotent", [Need::Volumes], twice;
    Must "publish/other-access", "NodePublishVolume at the same path with another readonly is refused with ALREADY_EXISTS.",
        "NodePublishVolume Errors: incompatible", [Need::Volumes], other_access;
    Must "publish/makes-the-target", "NodePublishVolume makes the target, a directory or a device, and NodeUnpublishVolume takes it away.",
        "NodePublishVolumeRequest, `target_path`; NodeUnpublishVolume: MUST delete the file or directory it created", [Need::Volumes], makes_target;
    Must "publish/block-device", "NodePublishVolume of a raw block volume makes a device at the target.", "NodePublishVolumeRequest, `target_path`",
        [Need::Volumes, Need::Block, Need::Contents], block_device;
    Must "publish/read-only", "Through a target that is published read-only nothing can be written.", "NodePublishVolumeRequest, `readonly`",
        [Need::Volumes, Need::Mount, Need::Contents], read_only;
    Must "publish/single-writer", "SINGLE_NODE_SINGLE_WRITER: a second target on the node is refused with FAILED_PRECONDITION.",
        "NodePublishVolume Errors: exceeds capabilities", [Need::Volumes, Need::Node(NodeRpc::SingleNodeMultiWriter)], single_writer;
    Must "publish/multi-writer", "SINGLE_NODE_MULTI_WRITER: a second target on the node is made.", "VolumeCapability.AccessMode: SINGLE_NODE_MULTI_WRITER",
        [Need::Volumes, Need::Node(NodeRpc::SingleNodeMultiWriter)], multi_writer;
    Must "publish/mount-group", "A driver with VOLUME_MOUNT_GROUP takes a volume_mount_group.", "NodeServiceCapability.RPC: VOLUME_MOUNT_GROUP",
        [Need::Volumes, Need::Mount, Need::Node(NodeRpc::VolumeMountGroup)], mount_group;
    Must "publish/ephemeral", "An inline ephemeral volume is made by NodePublishVolume and gone after NodeUnpublishVolume.",
        "Kubernetes: CSI inline volumes, KEP 596", [Need::Ephemeral], ephemeral;
    Must "unpublish/needs-volume-id", "NodeUnpublishVolume without a volume_id is refused.", "NodeUnpublishVolumeRequest, `volume_id` is REQUIRED", [], unpublish_needs_id;
    Must "unpublish/needs-target", "NodeUnpublishVolume without a target_path is refused.", "NodeUnpublishVolumeRequest, `target_path` is REQUIRED",
        [Need::Volumes], unpublish_needs_target;
    Must "unpublish/twice", "NodeUnpublishVolume a second time answers OK.", "NodeUnpublishVolume: this operation MUST be idempotent", [Need::Volumes], unpublish_twice;
    Must "unpublish/unknown-volume", "NodeUnpublishVolume of a volume that does not exist answers OK or NOT_FOUND.", "NodeUnpublishVolume Errors",
        [], unpublish_unknown;
}

async fn base(lab: &Lab) -> Result<csi::NodePublishVolumeRequest, Stop> {
    let volume = lab.volume("v").await?;
    Ok(lab.staged(&volume, 0).await?.publish)
}

async fn needs_id(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodePublishVolumeRequest {
            volume_id: String::new(),
            ..request
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_target(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodePublishVolumeRequest {
            target_path: String::new(),
            ..request
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_capability(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodePublishVolumeRequest {
            volume_capability: None,
            ..request
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_staging(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    let request = csi::NodePublishVolumeRequest {
        staging_target_path: String::new(),
        ..request
    };
    lab.refused(request, &[FailedPrecondition, InvalidArgument]).await
}

async fn unknown(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.refused(
        csi::NodePublishVolumeRequest {
            volume_id: NOBODY.to_owned(),
            ..request
        },
        &[NotFound, FailedPrecondition],
    )
    .await
}

async fn twice(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    let first = lab.ok(request.clone()).await?;
    lab.again(0, request, &first).await
}

async fn other_access(lab: &Lab) -> Outcome {
    let request = base(lab).await?;
    lab.ok(request.clone()).await?;
    lab.refused(
        csi::NodePublishVolumeRequest {
            readonly: true,
            ..request
        },
        &[AlreadyExists],
    )
    .await
}

async fn makes_target(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    let kind = lab.machine(0).kind(place.target()).await.map_err(Stop::NotApplicable)?;
    let fits = match kind {
        Kind::Directory => !volume.is_block(),
        Kind::File | Kind::Device => volume.is_block(),
        Kind::Missing | Kind::Other => false,
    };
    expect(fits, || format!("at the target is: {kind:?}"))?;
    lab.unpublish(&volume, &place).await?;
    let kind = lab.machine(0).kind(place.target()).await.map_err(Stop::NotApplicable)?;
    expect(kind == Kind::Missing, || {
        format!("after NodeUnpublishVolume the target is still there: {kind:?}")
    })
}

async fn block_device(lab: &Lab) -> Outcome {
    let volume = lab.block("v").await?;
    let place = lab.up(&volume, 0).await?;
    let kind = lab.machine(0).kind(place.target()).await.map_err(Stop::NotApplicable)?;
    expect(kind == Kind::Device, || format!("at the target is: {kind:?}"))?;
    lab.down(&volume, &place).await
}

async fn read_only(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let mut place = lab.staged(&volume, 0).await?;
    place.publish.readonly = true;
    lab.ok(place.publish.clone()).await?;
    let written = lab
        .machine(0)
        .write(&place.pod, place.target(), "must not be written")
        .await;
    expect(written == Err(WriteError::ReadOnly), || {
        format!("writing was answered with {written:?}")
    })?;
    lab.down(&volume, &place).await
}

async fn in_mode(lab: &Lab, mode: Mode) -> Result<crate::lab::Volume, Stop> {
    let mut request = lab.create_request("v", !lab.profile().mount);
    request.volume_capabilities = vec![crate::lab::capability(lab.settings(), !lab.profile().mount, mode)];
    Ok(lab.make(request).await?.in_mode(mode))
}

async fn single_writer(lab: &Lab) -> Outcome {
    let volume = in_mode(lab, Mode::SingleNodeSingleWriter).await?;
    let place = lab.up(&volume, 0).await?;
    let second = lab.second_pod(&volume, &place).await?;
    lab.refused(second.publish, &[FailedPrecondition]).await?;
    lab.down(&volume, &place).await
}

async fn multi_writer(lab: &Lab) -> Outcome {
    let volume = in_mode(lab, Mode::SingleNodeMultiWriter).await?;
    let place = lab.up(&volume, 0).await?;
    let second = lab.second_pod(&volume, &place).await?;
    lab.ok(second.publish.clone()).await?;
    if lab.sees_volumes() && !volume.is_block() {
        super::contents::write(lab, &place, "by the first").await?;
        super::contents::reads(lab, &second, &["by the first"]).await?;
    }
    lab.unpublish(&volume, &second).await?;
    lab.down(&volume, &place).await
}

async fn mount_group(lab: &Lab) -> Outcome {
    let mut request = lab.create_request("v", false);
    if let Some(AccessType::Mount(mount)) = &mut request.volume_capabilities[0].access_type {
        mount.volume_mount_group = "4711".to_owned();
    }
    let volume = lab.make(request).await?;
    let place = lab.up(&volume, 0).await?;
    lab.down(&volume, &place).await
}

async fn ephemeral(lab: &Lab) -> Outcome {
    let pod = lab.name("pod");
    let mut volume_context = lab.settings().ephemeral.clone().unwrap_or_default();
    let about = BTreeMap::from([
        ("csi.storage.k8s.io/ephemeral", "true".to_owned()),
        ("csi.storage.k8s.io/pod.name", pod.clone()),
        ("csi.storage.k8s.io/pod.namespace", "default".to_owned()),
        ("csi.storage.k8s.io/pod.uid", pod.clone()),
        ("csi.storage.k8s.io/serviceAccount.name", "default".to_owned()),
    ]);
    volume_context.extend(about.into_iter().map(|(key, value)| (key.to_owned(), value)));
    let request = csi::NodePublishVolumeRequest {
        volume_id: format!("csi-{}", lab.name("inline")),
        target_path: lab.target_path(&pod, false, 0),
        volume_capability: Some(crate::lab::capability(lab.settings(), false, crate::lab::WRITER)),
        volume_context,
        ..Default::default()
    };
    lab.parent(0, &request.target_path).await?;
    let first = lab.ok(request.clone()).await?;
    lab.again(0, request.clone(), &first).await?;
    if lab.sees_volumes() {
        let written = lab.machine(0).write(&pod, &request.target_path, "for a while").await;
        expect(written.is_ok(), || format!("writing was answered with {written:?}"))?;
    }
    let back = csi::NodeUnpublishVolumeRequest {
        volume_id: request.volume_id.clone(),
        target_path: request.target_path.clone(),
    };
    lab.ok(back.clone()).await?;
    lab.ok(back).await?;
    let kind = lab
        .machine(0)
        .kind(&request.target_path)
        .await
        .map_err(Stop::NotApplicable)?;
    expect(kind == Kind::Missing, || {
        format!("after NodeUnpublishVolume the target is still there: {kind:?}")
    })
}

async fn unpublish_needs_id(lab: &Lab) -> Outcome {
    let target_path = lab.target_path("nobody", false, 0);
    lab.refused(
        csi::NodeUnpublishVolumeRequest {
            target_path,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn unpublish_needs_target(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::NodeUnpublishVolumeRequest {
            volume_id: volume.id,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn unpublish_twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    lab.unpublish(&volume, &place).await?;
    lab.unpublish(&volume, &place).await
}

async fn unpublish_unknown(lab: &Lab) -> Outcome {
    let target_path = lab.target_path("nobody", false, 0);
    lab.ok_or(
        csi::NodeUnpublishVolumeRequest {
            volume_id: NOBODY.to_owned(),
            target_path,
        },
        &[NotFound],
    )
    .await
    .map(drop)
}
