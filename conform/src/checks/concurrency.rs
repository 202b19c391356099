//! Calls at the same time: duplicates, opposites, and calls that have nothing to do with one another.

use futures::future::join;
use tonic::Code;

use super::prelude::*;
use crate::call::Unary;
use crate::lab::{NoAnswer, delete_request, same, unstage_request};

checks! { Concurrency:
    Must "concurrent/same-create", "Duplicates of CreateVolume in flight make one volume: each answers the same or ABORTED.",
        "Concurrency: SHOULD handle with ABORTED; Idempotency", [Need::Volumes], same_create;
    Must "concurrent/same-delete", "Duplicates of DeleteVolume in flight answer OK or ABORTED, and the volume is gone.", "Concurrency; Idempotency",
        [Need::Volumes], same_delete;
    Must "concurrent/same-attach", "Duplicates of ControllerPublishVolume in flight answer the same or ABORTED.", "Concurrency; Idempotency",
        [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], same_attach;
    Must "concurrent/same-snapshot", "Duplicates of CreateSnapshot in flight make one snapshot: each answers the same or ABORTED.", "Concurrency; Idempotency",
        [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], same_snapshot;
    Must "concurrent/same-stage", "Duplicates of NodeStageVolume in flight answer OK or ABORTED, and one NodeUnstageVolume undoes them.", "Concurrency; Idempotency",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], same_stage;
    Must "concurrent/same-publish", "Duplicates of NodePublishVolume in flight answer OK or ABORTED, and one NodeUnpublishVolume undoes them.",
        "Concurrency; Idempotency", [Need::Volumes], same_publish;
    Must "concurrent/create-and-delete", "CreateVolume and DeleteVolume at once do not overlap: afterwards the name makes a usable volume.", "Concurrency",
        [Need::Volumes], create_and_delete;
    Must "concurrent/stage-and-unstage", "NodeStageVolume and NodeUnstageVolume at once do not overlap: afterwards either can be made again and undone.",
        "Concurrency", [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], stage_and_unstage;
    Must "concurrent/publish-and-unpublish", "NodePublishVolume and NodeUnpublishVolume at once do not overlap: afterwards nothing is left that cannot be undone.",
        "Concurrency", [Need::Volumes], publish_and_unpublish;
    Must "concurrent/attach-and-detach", "ControllerPublishVolume and ControllerUnpublishVolume at once do not overlap.", "Concurrency",
        [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume)], attach_and_detach;
    Must "concurrent/two-nodes", "Of two ControllerPublishVolume at once to two nodes at most one succeeds for a volume for one node.",
        "ControllerPublishVolume Errors: published to another node",
        [Need::Volumes, Need::Controller(Rpc::PublishUnpublishVolume), Need::TwoNodes], two_nodes;
    Must "concurrent/one-name-two-sizes", "Of two CreateVolume at once with one name and two sizes exactly one makes the volume.", "CreateVolume Errors: ALREADY_EXISTS",
        [Need::Volumes], two_sizes;
    Must "concurrent/many-volumes", "Many volumes are made and deleted at once, each with an id of its own.", "Concurrency", [Need::Volumes], many;
    Must "concurrent/different-volumes-on-a-node", "Several volumes go to their pods and back at once.", "Concurrency", [Need::Volumes], on_a_node;
}

const DUPLICATES: usize = 6;

/// Judges duplicates: OK with equal answers, or ABORTED. Gives the answer.
async fn judged<R: Unary>(lab: &Lab, request: R) -> Result<R::Answer, Stop> {
    let answers = lab.at_once(vec![request.clone(); DUPLICATES]).await;
    let settled = lab.ok(request).await?;
    for answer in answers {
        match answer {
            Ok(answer) => same::<R>(&answer, &settled)?,
            Err(stop) => pending::<R>(stop)?,
        }
    }
    Ok(settled)
}

/// ABORTED is the refusal of a call that met another.
fn pending<R: Unary>(stop: NoAnswer) -> Outcome {
    if stop.code() == Some(Code::Aborted) {
        return Ok(());
    }
    Err(stop.unexpected::<R>("expected OK or ABORTED"))
}

fn either<R: Unary>(answer: Result<R::Answer, NoAnswer>, codes: &[Code]) -> Outcome {
    match answer {
        Ok(_) => Ok(()),
        Err(stop) if stop.code().is_some_and(|code| codes.contains(&code)) => Ok(()),
        Err(stop) => pending::<R>(stop),
    }
}

async fn same_create(lab: &Lab) -> Outcome {
    judged(lab, lab.create_request("v", !lab.profile().mount))
        .await
        .map(drop)
}

async fn same_delete(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    judged(lab, delete_request(&volume.id)).await?;
    if lab.has(Rpc::ListVolumes) {
        expect(super::list::entry(lab, &volume.id).await?.is_none(), || {
            "it is still listed".to_owned()
        })?;
    }
    Ok(())
}

async fn same_attach(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    judged(lab, lab.attach_request(&volume, 0)).await?;
    lab.ok(lab.detach_request(&volume, 0)).await?;
    lab.delete(&volume).await
}

async fn same_snapshot(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab
        .ok(lab.snapshot_request("warm", &volume))
        .await?
        .snapshot
        .unwrap_or_default();
    if !snapshot.ready_to_use {
        return Err(Stop::NotApplicable(
            "snapshots become ready later, so that answers change".to_owned(),
        ));
    }
    judged(lab, lab.snapshot_request("s", &volume)).await.map(drop)
}

async fn same_stage(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let context = lab.attach(&volume, 0).await?;
    let request = lab.stage_request(&volume, 0, &context);
    lab.dir(0, &request.staging_target_path).await?;
    judged(lab, request.clone()).await?;
    lab.ok(unstage_request(&volume, &request)).await.map(drop)
}

async fn same_publish(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.staged(&volume, 0).await?;
    judged(lab, place.publish.clone()).await?;
    lab.down(&volume, &place).await
}

async fn create_and_delete(lab: &Lab) -> Outcome {
    let request = lab.create_request("v", !lab.profile().mount);
    let mut volume = lab.make(request.clone()).await?;
    for _ in 0..4 {
        let (create, delete) = join(lab.call(request.clone()), lab.call(delete_request(&volume.id))).await;
        either::<csi::CreateVolumeRequest>(create, &[])?;
        either::<csi::DeleteVolumeRequest>(delete, &[])?;
        volume = lab.make(request.clone()).await?;
    }
    let place = lab.up(&volume, 0).await?;
    lab.down(&volume, &place).await
}

async fn stage_and_unstage(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let context = lab.attach(&volume, 0).await?;
    let request = lab.stage_request(&volume, 0, &context);
    let back = unstage_request(&volume, &request);
    lab.dir(0, &request.staging_target_path).await?;
    for _ in 0..4 {
        let (stage, unstage) = join(lab.call(request.clone()), lab.call(back.clone())).await;
        either::<csi::NodeStageVolumeRequest>(stage, &[])?;
        either::<csi::NodeUnstageVolumeRequest>(unstage, &[])?;
    }
    lab.ok(request).await?;
    lab.ok(back).await.map(drop)
}

async fn publish_and_unpublish(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.staged(&volume, 0).await?;
    let back = csi::NodeUnpublishVolumeRequest {
        volume_id: volume.id.clone(),
        target_path: place.target().to_owned(),
    };
    for _ in 0..4 {
        let (publish, unpublish) = join(lab.call(place.publish.clone()), lab.call(back.clone())).await;
        either::<csi::NodePublishVolumeRequest>(publish, &[])?;
        either::<csi::NodeUnpublishVolumeRequest>(unpublish, &[])?;
    }
    lab.ok(place.publish.clone()).await?;
    lab.down(&volume, &place).await
}

async fn attach_and_detach(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    for _ in 0..4 {
        let (attach, detach) = join(
            lab.call(lab.attach_request(&volume, 0)),
            lab.call(lab.detach_request(&volume, 0)),
        )
        .await;
        either::<csi::ControllerPublishVolumeRequest>(attach, &[])?;
        either::<csi::ControllerUnpublishVolumeRequest>(detach, &[])?;
    }
    let place = lab.up(&volume, 0).await?;
    lab.down(&volume, &place).await
}

async fn two_nodes(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let (one, other) = join(
        lab.call(lab.attach_request(&volume, 0)),
        lab.call(lab.attach_request(&volume, 1)),
    )
    .await;
    expect(one.is_err() || other.is_err(), || "it is published to both".to_owned())?;
    either::<csi::ControllerPublishVolumeRequest>(one, &[FailedPrecondition])?;
    either::<csi::ControllerPublishVolumeRequest>(other, &[FailedPrecondition])
}

async fn two_sizes(lab: &Lab) -> Outcome {
    let small = lab.create_request("v", !lab.profile().mount);
    let large = csi::CreateVolumeRequest {
        capacity_range: range(lab.settings().grown),
        ..small.clone()
    };
    let (one, other) = join(lab.call(small), lab.call(large)).await;
    expect(one.is_err() || other.is_err(), || "both were answered OK".to_owned())?;
    either::<csi::CreateVolumeRequest>(one, &[AlreadyExists])?;
    either::<csi::CreateVolumeRequest>(other, &[AlreadyExists])
}

async fn many(lab: &Lab) -> Outcome {
    let requests: Vec<_> = (0..16)
        .map(|nth| lab.create_request(&format!("v{nth}"), !lab.profile().mount))
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for (answer, request) in lab.at_once(requests.clone()).await.into_iter().zip(&requests) {
        let volume = match answer {
            Ok(answer) => crate::lab::volume_of(request.clone(), answer)?,
            Err(stop) => {
                pending::<csi::CreateVolumeRequest>(stop)?;
                lab.make(request.clone()).await?
            }
        };
        ids.insert(volume.id);
    }
    expect(ids.len() == requests.len(), || {
        format!("{} volumes have {} ids", requests.len(), ids.len())
    })?;
    for answer in lab.at_once(ids.iter().map(|id| delete_request(id)).collect()).await {
        either::<csi::DeleteVolumeRequest>(answer, &[])?;
    }
    Ok(())
}

async fn on_a_node(lab: &Lab) -> Outcome {
    let one_way = async |nth: usize| {
        let volume = lab.volume(&format!("v{nth}")).await?;
        let mut place = lab.staged(&volume, 0).await?;
        let pod = lab.name(&format!("pod-{nth}"));
        place.publish.target_path = lab.target_path(&pod, volume.is_block(), 0);
        place.pod = pod;
        lab.parent(0, place.target()).await?;
        lab.ok(place.publish.clone()).await?;
        lab.down(&volume, &place).await?;
        lab.delete(&volume).await
    };
    let ways = [
        Box::pin(one_way(0)),
        Box::pin(one_way(1)),
        Box::pin(one_way(2)),
        Box::pin(one_way(3)),
    ];
    futures::future::join_all(ways).await.into_iter().collect()
}
