//! Obligations of NodeGetVolumeStats.

use super::prelude::*;

checks! { Node:
    Must "stats/needs-volume-id", "NodeGetVolumeStats without a volume_id is refused.", "NodeGetVolumeStatsRequest, `volume_id` is REQUIRED",
        [Need::Node(NodeRpc::GetVolumeStats)], needs_id;
    Must "stats/needs-path", "NodeGetVolumeStats without a volume_path is refused.", "NodeGetVolumeStatsRequest, `volume_path` is REQUIRED",
        [Need::Volumes, Need::Node(NodeRpc::GetVolumeStats)], needs_path;
    Must "stats/unknown-volume", "NodeGetVolumeStats of a volume that does not exist is refused with NOT_FOUND.",
        "NodeGetVolumeStats Errors: volume does not exist", [Need::Node(NodeRpc::GetVolumeStats)], unknown;
    Must "stats/wrong-path", "NodeGetVolumeStats at a path where the volume is not is refused with NOT_FOUND.",
        "NodeGetVolumeStats Errors: volume does not exist on the volume_path", [Need::Volumes, Need::Node(NodeRpc::GetVolumeStats)], wrong_path;
    Must "stats/bytes", "NodeGetVolumeStats of a published volume gives its bytes: none negative, and not more used than there are.", "VolumeUsage",
        [Need::Volumes, Need::Node(NodeRpc::GetVolumeStats)], bytes;
    Must "stats/block", "NodeGetVolumeStats of a raw block volume gives its size.", "VolumeUsage, `total`",
        [Need::Volumes, Need::Block, Need::Node(NodeRpc::GetVolumeStats)], block;
    Must "stats/condition", "A driver with the node capability VOLUME_CONDITION tells the condition of a sound volume: not abnormal, with a message.",
        "VolumeCondition", [Need::Volumes, Need::Node(NodeRpc::GetVolumeStats), Need::Node(NodeRpc::VolumeCondition)], condition;
}

async fn needs_id(lab: &Lab) -> Outcome {
    let volume_path = lab.target_path("nobody", false, 0);
    lab.refused(
        csi::NodeGetVolumeStatsRequest {
            volume_path,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_path(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::NodeGetVolumeStatsRequest {
            volume_id: volume.id,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn unknown(lab: &Lab) -> Outcome {
    let volume_path = lab.target_path("nobody", false, 0);
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: NOBODY.to_owned(),
        volume_path,
        ..Default::default()
    };
    lab.refused(request, &[NotFound]).await
}

async fn wrong_path(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    let volume_path = lab.target_path("nobody", false, 0);
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: volume.id.clone(),
        volume_path,
        ..Default::default()
    };
    lab.refused(request, &[NotFound]).await?;
    lab.down(&volume, &place).await
}

fn request(volume: &crate::lab::Volume, place: &crate::lab::InUse) -> csi::NodeGetVolumeStatsRequest {
    csi::NodeGetVolumeStatsRequest {
        volume_id: volume.id.clone(),
        volume_path: place.target().to_owned(),
        staging_target_path: place.publish.staging_target_path.clone(),
    }
}

async fn bytes(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    let answer = lab.ok(request(&volume, &place)).await?;
    let unit: i32 = csi::volume_usage::Unit::Bytes.into();
    expect(answer.usage.iter().any(|usage| usage.unit == unit), || {
        "no usage in BYTES".to_owned()
    })?;
    for usage in &answer.usage {
        let sane = usage.total >= 0
            && usage.available >= 0
            && usage.used >= 0
            && (usage.total == 0 || usage.used <= usage.total);
        expect(sane && usage.unit != 0, || format!("{usage:?}"))?;
    }
    lab.down(&volume, &place).await
}

async fn block(lab: &Lab) -> Outcome {
    let volume = lab.block("v").await?;
    let place = lab.up(&volume, 0).await?;
    let total = super::expand::bytes(lab, &volume, place.target()).await?;
    let wanted = lab.settings().size;
    expect(total.is_some_and(|total| total >= wanted), || {
        format!("total is {total:?}, the volume has {wanted}")
    })?;
    lab.down(&volume, &place).await
}

async fn condition(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    let Some(condition) = lab.ok(request(&volume, &place)).await?.volume_condition else {
        return broken("no volume_condition");
    };
    expect(!condition.abnormal, || format!("abnormal: {}", condition.message))?;
    expect(!condition.message.is_empty(), || {
        "the message is REQUIRED and empty".to_owned()
    })?;
    lab.down(&volume, &place).await
}
