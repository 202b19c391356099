//! Bytes that a pod wrote and synced are there, where they belong, and nowhere else.

use super::prelude::*;
use crate::lab::{InUse, Volume};

checks! { Contents:
    Must "contents/after-unpublish", "What was written is there after the volume was unpublished and published again.", "NodeUnpublishVolume",
        [Need::Volumes, Need::Mount, Need::Contents], after_unpublish;
    Must "contents/after-detach", "What was written is there after the volume left its node and came back.", "ControllerUnpublishVolume",
        [Need::Volumes, Need::Mount, Need::Contents], after_detach;
    Must "contents/block", "What was written to a raw block volume is there after it left its node and came back.", "ControllerUnpublishVolume",
        [Need::Volumes, Need::Block, Need::Contents], block;
    Must "contents/new-is-blank", "A new volume shows nothing of a deleted one.", "DeleteVolume", [Need::Volumes, Need::Contents], new_is_blank;
    Must "contents/new-block-is-blank", "A new raw block volume shows nothing of a deleted one.", "DeleteVolume", [Need::Volumes, Need::Block, Need::Contents], new_block_is_blank;
    Must "contents/two-volumes", "What is written to one volume is not in another.", "CreateVolume", [Need::Volumes, Need::Contents], two_volumes;
    Must "contents/after-expansion", "What was written is there after the volume grew in use, and there is room for more.", "ControllerExpandVolume",
        [Need::Volumes, Need::Mount, Need::Contents, Need::OnlineExpansion, Need::Controller(Rpc::ExpandVolume)], after_expansion;
    Must "contents/restore", "A restored volume holds what the source held when the snapshot was cut, and not what came later.", "CreateSnapshot; CreateVolume",
        [Need::Volumes, Need::Contents, Need::Controller(Rpc::CreateDeleteSnapshot)], restore;
    Must "contents/larger-restore", "A volume restored to a larger size holds what the snapshot holds and can be used.", "CreateVolume, `capacity_range`",
        [Need::Volumes, Need::Mount, Need::Contents, Need::Controller(Rpc::CreateDeleteSnapshot)], larger_restore;
    Must "contents/clone", "A clone holds what its source holds, and neither sees what is written to the other later.", "CreateVolume, `volume_content_source`",
        [Need::Volumes, Need::Contents, Need::Controller(Rpc::CloneVolume)], clone;
    Must "contents/snapshot-outlives-changes", "A snapshot stays as it was cut, also when the volume is deleted, if that is allowed.", "CreateSnapshot",
        [Need::Volumes, Need::Contents, Need::Controller(Rpc::CreateDeleteSnapshot)], snapshot_stays;
    Must "contents/on-another-node", "What was written on one node is there on the next.", "ControllerPublishVolume",
        [Need::Volumes, Need::Mount, Need::Contents, Need::TwoNodes], other_node;
    Must "contents/staged-again", "NodeStageVolume never makes a file system over one that is there.", "Never destroys data",
        [Need::Volumes, Need::Mount, Need::Contents, Need::Node(NodeRpc::StageUnstageVolume)], staged_again;
}

/// As a pod: writes a mark and syncs it.
pub(super) async fn write(lab: &Lab, place: &InUse, mark: &str) -> Outcome {
    let written = lab.machine(place.node).write(&place.pod, place.target(), mark).await;
    written.map_err(|why| Stop::Broken(format!("a pod could not write to {}: {why}", place.target())))
}

/// As a pod: finds exactly these marks; on a raw device the last one.
pub(super) async fn reads(lab: &Lab, place: &InUse, marks: &[&str]) -> Outcome {
    let found = lab.machine(place.node).read(&place.pod, place.target()).await;
    let found = found.map_err(|why| Stop::Broken(format!("a pod could not read {}: {why}", place.target())))?;
    let is_block = place.target().contains("/volumeDevices/");
    let wanted: Vec<&str> = if is_block {
        marks.last().copied().into_iter().collect()
    } else {
        marks.to_vec()
    };
    expect(found == wanted, || {
        format!("a pod found {found:?}, expected {wanted:?}")
    })
}

async fn cycle(lab: &Lab, volume: &Volume) -> Outcome {
    let place = lab.up(volume, 0).await?;
    write(lab, &place, "first").await?;
    lab.down(volume, &place).await?;
    let place = lab.up(volume, 0).await?;
    reads(lab, &place, &["first"]).await?;
    write(lab, &place, "second").await?;
    lab.down(volume, &place).await?;
    let place = lab.up(volume, 0).await?;
    reads(lab, &place, &["first", "second"]).await?;
    lab.down(volume, &place).await
}

async fn after_unpublish(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    write(lab, &place, "kept").await?;
    lab.unpublish(&volume, &place).await?;
    lab.ok(place.publish.clone()).await?;
    reads(lab, &place, &["kept"]).await?;
    lab.down(&volume, &place).await
}

async fn after_detach(lab: &Lab) -> Outcome {
    cycle(lab, &lab.volume("v").await?).await
}

async fn block(lab: &Lab) -> Outcome {
    cycle(lab, &lab.block("v").await?).await
}

async fn blank(lab: &Lab, block: bool) -> Outcome {
    for round in 0..2 {
        let volume = lab.make(lab.create_request("v", block)).await?;
        let place = lab.up(&volume, 0).await?;
        reads(lab, &place, &[]).await?;
        write(lab, &place, &format!("secret of round {round}")).await?;
        lab.down(&volume, &place).await?;
        lab.delete(&volume).await?;
    }
    Ok(())
}

async fn new_is_blank(lab: &Lab) -> Outcome {
    blank(lab, !lab.profile().mount).await
}

async fn new_block_is_blank(lab: &Lab) -> Outcome {
    blank(lab, true).await
}

/// Brings a volume to a pod of its own.
async fn up(lab: &Lab, volume: &Volume, pod: &str) -> Result<InUse, Stop> {
    let mut place = lab.staged(volume, 0).await?;
    place.pod = lab.name(pod);
    place.publish.target_path = lab.target_path(&place.pod, volume.is_block(), 0);
    lab.parent(0, place.target()).await?;
    lab.ok(place.publish.clone()).await?;
    Ok(place)
}

async fn two_volumes(lab: &Lab) -> Outcome {
    let (one, other) = (lab.volume("one").await?, lab.volume("other").await?);
    let (at_one, at_other) = (up(lab, &one, "pod-1").await?, up(lab, &other, "pod-2").await?);
    write(lab, &at_one, "of one").await?;
    reads(lab, &at_other, &[]).await?;
    write(lab, &at_other, "of the other").await?;
    reads(lab, &at_one, &["of one"]).await?;
    lab.down(&one, &at_one).await?;
    lab.down(&other, &at_other).await
}

async fn after_expansion(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    write(lab, &place, "before").await?;
    super::expand::grow(lab, &volume, &place).await?;
    reads(lab, &place, &["before"]).await?;
    write(lab, &place, "after").await?;
    lab.down(&volume, &place).await?;
    let place = lab.up(&volume, 0).await?;
    reads(lab, &place, &["before", "after"]).await?;
    lab.down(&volume, &place).await
}

/// A volume with something in it, on its way down again.
async fn filled(lab: &Lab, mark: &str) -> Result<Volume, Stop> {
    let volume = lab.volume("source").await?;
    add(lab, &volume, mark).await?;
    Ok(volume)
}

async fn add(lab: &Lab, volume: &Volume, mark: &str) -> Outcome {
    let place = up(lab, volume, "pod-source").await?;
    write(lab, &place, mark).await?;
    lab.down(volume, &place).await
}

async fn holds(lab: &Lab, volume: &Volume, marks: &[&str]) -> Outcome {
    let place = up(lab, volume, "pod-copy").await?;
    reads(lab, &place, marks).await?;
    lab.down(volume, &place).await
}

async fn restored(lab: &Lab, what: &str, snapshot: &csi::Snapshot, size: i64) -> Result<Volume, Stop> {
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::snapshot_source(&snapshot.snapshot_id),
        capacity_range: range(size),
        ..lab.create_request(what, !lab.profile().mount)
    };
    lab.make(request).await
}

async fn restore(lab: &Lab) -> Outcome {
    let source = filled(lab, "before the cut").await?;
    let snapshot = lab.snapshot("s", &source).await?;
    add(lab, &source, "after the cut").await?;
    let copy = restored(lab, "copy", &snapshot, lab.settings().size).await?;
    holds(lab, &copy, &["before the cut"]).await?;
    holds(lab, &source, &["before the cut", "after the cut"]).await
}

async fn larger_restore(lab: &Lab) -> Outcome {
    let source = filled(lab, "small").await?;
    let snapshot = lab.snapshot("s", &source).await?;
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::snapshot_source(&snapshot.snapshot_id),
        capacity_range: range(lab.settings().grown),
        ..lab.create_request("copy", false)
    };
    let Some(answer) = lab.ok_or(request.clone(), &[OutOfRange]).await? else {
        return Err(Stop::NotApplicable(
            "the driver restores at the snapshot's size only".to_owned(),
        ));
    };
    let copy = crate::lab::volume_of(request, answer)?;
    let place = up(lab, &copy, "pod-copy").await?;
    reads(lab, &place, &["small"]).await?;
    write(lab, &place, "large").await?;
    reads(lab, &place, &["small", "large"]).await?;
    lab.down(&copy, &place).await
}

async fn clone(lab: &Lab) -> Outcome {
    let source = filled(lab, "shared").await?;
    let request = csi::CreateVolumeRequest {
        volume_content_source: super::create::volume_source(&source.id),
        ..lab.create_request("copy", !lab.profile().mount)
    };
    let copy = lab.make(request).await?;
    add(lab, &source, "in the source").await?;
    holds(lab, &copy, &["shared"]).await?;
    add(lab, &copy, "in the clone").await?;
    holds(lab, &source, &["shared", "in the source"]).await?;
    holds(lab, &copy, &["shared", "in the clone"]).await
}

async fn snapshot_stays(lab: &Lab) -> Outcome {
    let source = filled(lab, "at the cut").await?;
    let snapshot = lab.snapshot("s", &source).await?;
    add(lab, &source, "later").await?;
    let first = restored(lab, "first", &snapshot, lab.settings().size).await?;
    add(lab, &first, "in the first copy").await?;
    lab.ok_or(crate::lab::delete_request(&source.id), &[FailedPrecondition])
        .await?;
    let second = restored(lab, "second", &snapshot, lab.settings().size).await?;
    holds(lab, &second, &["at the cut"]).await
}

async fn other_node(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    write(lab, &place, "on the first").await?;
    lab.down(&volume, &place).await?;
    let place = lab.up(&volume, 1).await?;
    reads(lab, &place, &["on the first"]).await?;
    write(lab, &place, "on the second").await?;
    lab.down(&volume, &place).await?;
    let place = lab.up(&volume, 0).await?;
    reads(lab, &place, &["on the first", "on the second"]).await?;
    lab.down(&volume, &place).await
}

async fn staged_again(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    write(lab, &place, "kept").await?;
    lab.unpublish(&volume, &place).await?;
    for _ in 0..3 {
        lab.unstage(&volume, &place).await?;
        if let Some(stage) = &place.stage {
            lab.ok(stage.clone()).await?;
        }
    }
    lab.ok(place.publish.clone()).await?;
    reads(lab, &place, &["kept"]).await?;
    lab.down(&volume, &place).await
}
