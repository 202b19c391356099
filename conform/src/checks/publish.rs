//! Obligations of ControllerPublishVolume and ControllerUnpublishVolume.

use super::prelude::*;

checks! { Controller:
    Must "attach/needs-volume-id", "ControllerPublishVolume without a volume_id is refused.", "ControllerPublishVolumeRequest, `volume_id` is REQUIRED",
        [Need::Controller(Rpc::PublishUnpublishVolume)], needs_volume;
    Must "attach/needs-node-id", "ControllerPublishVolume without a node_id is refused.", "ControllerPublishVolumeRequest, `node_id` is REQUIRED",
        [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], needs_node;
    Must "attach/needs-capability", "ControllerPublishVolume without a volume_capability is refused.",
        "ControllerPublishVolumeRequest, `volume_capability` is REQUIRED", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], needs_capability;
    Must "attach/unknown-volume", "ControllerPublishVolume of a volume that does not exist is refused with NOT_FOUND.",
        "ControllerPublishVolume Errors: volume does not exist", [Need::Controller(Rpc::PublishUnpublishVolume)], unknown_volume;
    Must "attach/unknown-node", "ControllerPublishVolume to a node that does not exist is refused with NOT_FOUND.",
        "ControllerPublishVolume Errors: node does not exist", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], unknown_node;
    Must "attach/twice", "ControllerPublishVolume with the same request answers the same publish_context.",
        "ControllerPublishVolume: this operation MUST be idempotent", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], twice;
    Must "attach/other-access", "ControllerPublishVolume to the same node with another readonly is refused with ALREADY_EXISTS.",
        "ControllerPublishVolume Errors: incompatible", [Need::Volumes, Need::Controller(Rpc::PublishReadonly)], other_access;
    Must "attach/second-node", "A volume for one node that is published there is refused to a second node with FAILED_PRECONDITION.",
        "ControllerPublishVolume Errors: published to another node", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume), Need::TwoNodes], second_node;
    Must "attach/moves", "After ControllerUnpublishVolume a volume can be published to another node.",
        "ControllerUnpublishVolume", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume), Need::TwoNodes], moves;
    Must "attach/limit", "One volume more than max_volumes_per_node is refused with RESOURCE_EXHAUSTED.",
        "ControllerPublishVolume Errors: max volumes attached", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume), Need::AttachLimit], limit;
    Must "detach/needs-volume-id", "ControllerUnpublishVolume without a volume_id is refused.", "ControllerUnpublishVolumeRequest, `volume_id` is REQUIRED",
        [Need::Controller(Rpc::PublishUnpublishVolume)], detach_needs_volume;
    Must "detach/twice", "ControllerUnpublishVolume a second time answers OK.", "ControllerUnpublishVolume: this operation MUST be idempotent",
        [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], detach_twice;
    Must "detach/never-attached", "ControllerUnpublishVolume of a volume that was never published answers OK.",
        "ControllerUnpublishVolume: SHOULD reply 0 OK if not published", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], never_attached;
    Must "detach/unknown-volume", "ControllerUnpublishVolume of a volume that does not exist answers OK or NOT_FOUND.",
        "ControllerUnpublishVolume Errors", [Need::Controller(Rpc::PublishUnpublishVolume)], detach_unknown;
    Must "detach/from-all-nodes", "ControllerUnpublishVolume without a node_id takes the volume from every node.",
        "ControllerUnpublishVolumeRequest, `node_id`: if not set, from all nodes", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], from_all;
}

async fn needs_volume(lab: &Lab) -> Outcome {
    let request = csi::ControllerPublishVolumeRequest {
        node_id: lab.node_id(0),
        volume_capability: Some(crate::lab::capability(lab.settings(), false, crate::lab::WRITER)),
        ..Default::default()
    };
    lab.refused(request, &[InvalidArgument]).await
}

async fn needs_node(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::ControllerPublishVolumeRequest {
            node_id: String::new(),
            ..lab.attach_request(&volume, 0)
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_capability(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::ControllerPublishVolumeRequest {
            volume_capability: None,
            ..lab.attach_request(&volume, 0)
        },
        &[InvalidArgument],
    )
    .await
}

async fn unknown_volume(lab: &Lab) -> Outcome {
    let request = csi::ControllerPublishVolumeRequest {
        volume_id: NOBODY.to_owned(),
        node_id: lab.node_id(0),
        volume_capability: Some(crate::lab::capability(lab.settings(), false, crate::lab::WRITER)),
        ..Default::default()
    };
    lab.refused(request, &[NotFound]).await
}

async fn unknown_node(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::ControllerPublishVolumeRequest {
            node_id: NOBODY.to_owned(),
            ..lab.attach_request(&volume, 0)
        },
        &[NotFound],
    )
    .await
}

async fn twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let first = lab.ok(lab.attach_request(&volume, 0)).await?;
    lab.again(0, lab.attach_request(&volume, 0), &first).await
}

async fn other_access(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.attach(&volume, 0).await?;
    lab.refused(
        csi::ControllerPublishVolumeRequest {
            readonly: true,
            ..lab.attach_request(&volume, 0)
        },
        &[AlreadyExists],
    )
    .await
}

async fn second_node(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.attach(&volume, 0).await?;
    lab.refused(lab.attach_request(&volume, 1), &[FailedPrecondition]).await
}

async fn moves(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    for node in [0, 1, 0] {
        let place = lab.up(&volume, node).await?;
        lab.down(&volume, &place).await?;
    }
    Ok(())
}

async fn limit(lab: &Lab) -> Outcome {
    let most = lab.profile().nodes.first().map_or(0, |info| info.max_volumes_per_node);
    for nth in 0..most {
        let volume = lab.volume(&format!("v{nth}")).await?;
        lab.attach(&volume, 0).await?;
    }
    let volume = lab.volume("too-many").await?;
    lab.refused(lab.attach_request(&volume, 0), &[ResourceExhausted]).await
}

async fn detach_needs_volume(lab: &Lab) -> Outcome {
    lab.refused(
        csi::ControllerUnpublishVolumeRequest {
            node_id: lab.node_id(0),
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn detach_twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.attach(&volume, 0).await?;
    lab.ok(lab.detach_request(&volume, 0)).await?;
    lab.ok(lab.detach_request(&volume, 0)).await.map(drop)
}

async fn never_attached(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.ok(lab.detach_request(&volume, 0)).await.map(drop)
}

async fn detach_unknown(lab: &Lab) -> Outcome {
    let request = csi::ControllerUnpublishVolumeRequest {
        volume_id: NOBODY.to_owned(),
        node_id: lab.node_id(0),
        ..Default::default()
    };
    lab.ok_or(request, &[NotFound]).await.map(drop)
}

async fn from_all(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.attach(&volume, 0).await?;
    lab.ok(csi::ControllerUnpublishVolumeRequest {
        node_id: String::new(),
        ..lab.detach_request(&volume, 0)
    })
    .await?;
    if lab.has(Rpc::ListVolumesPublishedNodes) && lab.has(Rpc::ListVolumes) {
        let nodes = super::list::entry(lab, &volume.id)
            .await?
            .and_then(|entry| entry.status)
            .unwrap_or_default()
            .published_node_ids;
        expect(nodes.is_empty(), || format!("it is still published to {nodes:?}"))?;
    }
    lab.delete(&volume).await
}
