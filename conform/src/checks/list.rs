//! Obligations of ListVolumes and ControllerGetVolume towards one volume. Paging is in [`super::paging`].

use super::prelude::*;

checks! { Controller:
    Must "list/shows-new-volumes", "ListVolumes shows a volume that was made, with its id and size.", "Controller Service RPC: ListVolumes",
        [Need::Volumes, Need::Controller(Rpc::ListVolumes)], shows_new;
    Must "list/no-deleted-volumes", "ListVolumes shows no volume that was deleted.", "Controller Service RPC: ListVolumes",
        [Need::Volumes, Need::Controller(Rpc::ListVolumes)], no_deleted;
    Must "list/published-nodes", "ListVolumes names the node to which a volume is published, and no other.", "ListVolumesResponse.VolumeStatus, `published_node_ids`",
        [Need::Volumes, Need::Controller(Rpc::ListVolumesPublishedNodes), Need::Controller(Rpc::PublishUnpublishVolume)], published;
    Must "get/needs-id", "ControllerGetVolume without a volume_id is refused.", "ControllerGetVolumeRequest, `volume_id` is REQUIRED",
        [Need::Controller(Rpc::GetVolume)], get_needs_id;
    Must "get/unknown", "ControllerGetVolume of a volume that does not exist is refused with NOT_FOUND.", "ControllerGetVolume Errors: volume does not exist",
        [Need::Controller(Rpc::GetVolume)], get_unknown;
    Must "get/same-as-made", "ControllerGetVolume answers the volume that CreateVolume answered.", "ControllerGetVolumeResponse, `volume`",
        [Need::Volumes, Need::Controller(Rpc::GetVolume)], get_same;
    Must "get/condition", "ControllerGetVolume tells the condition of a sound volume: not abnormal, with a message.", "VolumeCondition",
        [Need::Volumes, Need::Controller(Rpc::GetVolume), Need::Controller(Rpc::VolumeCondition)], get_condition;
}

/// The entry of a volume, found by walking through all pages.
pub(super) async fn entry(lab: &Lab, id: &str) -> Result<Option<csi::list_volumes_response::Entry>, Stop> {
    let mut request = csi::ListVolumesRequest::default();
    loop {
        let answer = lab.ok(request.clone()).await?;
        let found = answer
            .entries
            .into_iter()
            .find(|entry| entry.volume.as_ref().is_some_and(|volume| volume.volume_id == id));
        if found.is_some() || answer.next_token.is_empty() {
            return Ok(found);
        }
        request.starting_token = answer.next_token;
    }
}

async fn shows_new(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let Some(listed) = entry(lab, &volume.id).await?.and_then(|entry| entry.volume) else {
        return broken(format!("{} is not listed", volume.id));
    };
    let sizes = (listed.capacity_bytes, volume.answer.capacity_bytes);
    expect(sizes.0 == sizes.1 || sizes.0 == 0, || {
        format!("it has {} bytes, listed are {}", sizes.1, sizes.0)
    })
}

async fn no_deleted(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.delete(&volume).await?;
    expect(entry(lab, &volume.id).await?.is_none(), || {
        format!("{} is listed after its deletion", volume.id)
    })
}

async fn published(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    for attached in [false, true, false] {
        let expected = if attached { vec![lab.node_id(0)] } else { Vec::new() };
        if attached {
            lab.attach(&volume, 0).await?;
        } else {
            lab.ok(lab.detach_request(&volume, 0)).await?;
        }
        let status = entry(lab, &volume.id)
            .await?
            .and_then(|entry| entry.status)
            .unwrap_or_default();
        expect(status.published_node_ids == expected, || {
            format!(
                "listed are {:?}, published is it to {expected:?}",
                status.published_node_ids
            )
        })?;
    }
    Ok(())
}

async fn get_needs_id(lab: &Lab) -> Outcome {
    lab.refused(csi::ControllerGetVolumeRequest::default(), &[InvalidArgument])
        .await
}

async fn get_unknown(lab: &Lab) -> Outcome {
    lab.refused(
        csi::ControllerGetVolumeRequest {
            volume_id: NOBODY.to_owned(),
        },
        &[NotFound],
    )
    .await
}

async fn get_same(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let answer = lab
        .ok(csi::ControllerGetVolumeRequest {
            volume_id: volume.id.clone(),
        })
        .await?;
    let got = answer.volume.unwrap_or_default();
    expect(answer.status.is_some(), || "status is REQUIRED and absent".to_owned())?;
    expect(got.volume_id == volume.id, || {
        format!("the answer is about `{}`", got.volume_id)
    })?;
    let sizes = (got.capacity_bytes, volume.answer.capacity_bytes);
    expect(sizes.0 == sizes.1 || sizes.0 == 0, || {
        format!("it has {} bytes, said are {}", sizes.1, sizes.0)
    })
}

async fn get_condition(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let answer = lab
        .ok(csi::ControllerGetVolumeRequest {
            volume_id: volume.id.clone(),
        })
        .await?;
    let Some(condition) = answer.status.and_then(|status| status.volume_condition) else {
        return broken("no volume_condition");
    };
    expect(!condition.abnormal, || format!("abnormal: {}", condition.message))?;
    expect(!condition.message.is_empty(), || {
        "the message is REQUIRED and empty".to_owned()
    })
}
