//! Obligations of DeleteVolume.

use super::prelude::*;
use crate::lab::delete_request;

checks! { Controller:
    Must "delete/needs-id", "DeleteVolume without a volume_id is refused.", "DeleteVolumeRequest, `volume_id` is REQUIRED", [Need::Volumes], needs_id;
    Must "delete/unknown", "DeleteVolume of a volume that does not exist answers OK.", "DeleteVolume: the Plugin MUST reply 0 OK", [Need::Volumes], unknown;
    Must "delete/twice", "DeleteVolume a second time answers OK.", "DeleteVolume: this operation MUST be idempotent", [Need::Volumes], twice;
    Must "delete/frees-the-name", "After DeleteVolume its name makes a new volume, also of another size.", "CreateVolumeRequest, `name`", [Need::Volumes], frees_name;
    Should "delete/attached", "DeleteVolume of a volume that is published to a node is refused with FAILED_PRECONDITION.",
        "DeleteVolume Errors: volume in use", [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], attached;
    Must "delete/with-snapshot", "DeleteVolume of a volume with a snapshot is refused with FAILED_PRECONDITION, or the snapshot stays usable.",
        "DeleteVolume: snapshots must stay usable", [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], with_snapshot;
    Must "delete/source-of-a-clone", "DeleteVolume of a clone's source is refused with FAILED_PRECONDITION, or the clone stays usable.",
        "DeleteVolume Errors: volume in use", [Need::Volumes, Need::Controller(Rpc::CloneVolume)], source_of_clone;
}

async fn needs_id(lab: &Lab) -> Outcome {
    lab.refused(csi::DeleteVolumeRequest::default(), &[InvalidArgument])
        .await
}

async fn unknown(lab: &Lab) -> Outcome {
    lab.ok(delete_request(NOBODY)).await.map(drop)
}

async fn twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.delete(&volume).await?;
    lab.delete(&volume).await
}

async fn frees_name(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.delete(&volume).await?;
    let request = csi::CreateVolumeRequest {
        capacity_range: range(lab.settings().grown),
        ..volume.request
    };
    let second = lab.make(request).await?;
    super::create::at_least("capacity_bytes", second.answer.capacity_bytes, lab.settings().grown)
}

async fn attached(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.attach(&volume, 0).await?;
    lab.refused(delete_request(&volume.id), &[FailedPrecondition]).await
}

async fn with_snapshot(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    if lab
        .ok_or(delete_request(&volume.id), &[FailedPrecondition])
        .await?
        .is_none()
    {
        return Ok(());
    }
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::snapshot_source(&snapshot.snapshot_id),
        ..lab.create_request("restored", !lab.profile().mount)
    };
    lab.make(request).await.map(drop)
}

async fn source_of_clone(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::volume_source(&volume.id),
        ..lab.create_request("clone", !lab.profile().mount)
    };
    let clone = lab.make(request).await?;
    lab.ok_or(delete_request(&volume.id), &[FailedPrecondition]).await?;
    let place = lab.up(&clone, 0).await?;
    lab.down(&clone, &place).await
}
