//! Remembers what a check made, from the answers it got, so that it can be undone.

use std::any::Any;

use wavetank_proto::csi::v1 as csi;

use crate::check::Outcome;
use crate::lab::Lab;

/// What stands at the moment, oldest first.
#[derive(Default)]
pub(crate) struct Books(Vec<Undo>);

/// One thing that is to be undone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Undo {
    Volume(String),
    Attachment { volume: String, node: String },
    Stage { on: usize, volume: String, path: String },
    Target { on: usize, volume: String, path: String },
    Snapshot(String),
    Group { group: String, snapshots: Vec<String> },
}

/// The ids in an answer of things that were made.
pub(crate) fn ids(answer: &dyn Any) -> Vec<String> {
    if let Some(answer) = answer.downcast_ref::<csi::CreateVolumeResponse>() {
        return answer.volume.iter().map(|volume| volume.volume_id.clone()).collect();
    }
    if let Some(answer) = answer.downcast_ref::<csi::CreateSnapshotResponse>() {
        return answer
            .snapshot
            .iter()
            .map(|snapshot| snapshot.snapshot_id.clone())
            .collect();
    }
    Vec::new()
}

impl Books {
    /// Learns from a call that succeeded.
    pub fn note(&mut self, on: usize, request: &dyn Any, answer: &dyn Any) {
        if let Some(undo) = made(on, request, answer) {
            if !self.0.contains(&undo) {
                self.0.push(undo);
            }
            return;
        }
        self.undone(on, request);
    }

    fn undone(&mut self, here: usize, request: &dyn Any) {
        if let Some(request) = request.downcast_ref::<csi::DeleteVolumeRequest>() {
            self.0
                .retain(|undo| !matches!(undo, Undo::Volume(id) if *id == request.volume_id));
        }
        if let Some(request) = request.downcast_ref::<csi::ControllerUnpublishVolumeRequest>() {
            let nodes = |node: &str| request.node_id.is_empty() || node == request.node_id;
            self.0.retain(|undo| !matches!(undo, Undo::Attachment { volume, node } if *volume == request.volume_id && nodes(node)));
        }
        if let Some(request) = request.downcast_ref::<csi::NodeUnstageVolumeRequest>() {
            self.0.retain(|undo| {
                !matches!(undo, Undo::Stage { on, volume, path }
                    if *on == here && *volume == request.volume_id && *path == request.staging_target_path)
            });
        }
        if let Some(request) = request.downcast_ref::<csi::NodeUnpublishVolumeRequest>() {
            self.0.retain(|undo| {
                !matches!(undo, Undo::Target { on, volume, path }
                    if *on == here && *volume == request.volume_id && *path == request.target_path)
            });
        }
        if let Some(request) = request.downcast_ref::<csi::DeleteSnapshotRequest>() {
            self.0
                .retain(|undo| !matches!(undo, Undo::Snapshot(id) if *id == request.snapshot_id));
        }
        if let Some(request) = request.downcast_ref::<csi::DeleteVolumeGroupSnapshotRequest>() {
            self.0
                .retain(|undo| !matches!(undo, Undo::Group { group, .. } if *group == request.group_snapshot_id));
        }
    }

    /// What is to be undone, in order: the way back of a volume first, then volumes and snapshots, newest first.
    pub fn undos(&self) -> Vec<Undo> {
        let mut all: Vec<Undo> = self.0.iter().rev().cloned().collect();
        all.sort_by_key(|undo| match undo {
            Undo::Target { .. } => 0,
            Undo::Stage { .. } => 1,
            Undo::Attachment { .. } => 2,
            Undo::Volume(_) | Undo::Snapshot(_) | Undo::Group { .. } => 3,
        });
        all
    }
}

fn made(on: usize, request: &dyn Any, answer: &dyn Any) -> Option<Undo> {
    if let Some(answer) = answer.downcast_ref::<csi::CreateVolumeResponse>() {
        return answer
            .volume
            .as_ref()
            .map(|volume| Undo::Volume(volume.volume_id.clone()));
    }
    if let Some(answer) = answer.downcast_ref::<csi::CreateSnapshotResponse>() {
        return answer
            .snapshot
            .as_ref()
            .map(|snapshot| Undo::Snapshot(snapshot.snapshot_id.clone()));
    }
    if let Some(answer) = answer.downcast_ref::<csi::CreateVolumeGroupSnapshotResponse>() {
        return answer.group_snapshot.as_ref().map(|group| Undo::Group {
            group: group.group_snapshot_id.clone(),
            snapshots: group.snapshots.iter().map(|one| one.snapshot_id.clone()).collect(),
        });
    }
    if let Some(request) = request.downcast_ref::<csi::ControllerPublishVolumeRequest>() {
        return Some(Undo::Attachment {
            volume: request.volume_id.clone(),
            node: request.node_id.clone(),
        });
    }
    if let Some(request) = request.downcast_ref::<csi::NodeStageVolumeRequest>() {
        return Some(Undo::Stage {
            on,
            volume: request.volume_id.clone(),
            path: request.staging_target_path.clone(),
        });
    }
    if let Some(request) = request.downcast_ref::<csi::NodePublishVolumeRequest>() {
        return Some(Undo::Target {
            on,
            volume: request.volume_id.clone(),
            path: request.target_path.clone(),
        });
    }
    None
}

impl Undo {
    /// Undoes it.
    pub async fn perform(self, lab: &Lab) -> Outcome {
        match self {
            Self::Volume(id) => lab.ok(crate::lab::delete_request(&id)).await.map(drop),
            Self::Attachment { volume, node } => {
                let request = csi::ControllerUnpublishVolumeRequest {
                    volume_id: volume,
                    node_id: node,
                    ..Default::default()
                };
                lab.ok(request).await.map(drop)
            }
            Self::Stage { on, volume, path } => {
                let request = csi::NodeUnstageVolumeRequest {
                    volume_id: volume,
                    staging_target_path: path,
                };
                lab.ok_on(on, request).await.map(drop)
            }
            Self::Target { on, volume, path } => {
                let request = csi::NodeUnpublishVolumeRequest {
                    volume_id: volume,
                    target_path: path,
                };
                lab.ok_on(on, request).await.map(drop)
            }
            Self::Snapshot(id) => {
                let request = csi::DeleteSnapshotRequest {
                    snapshot_id: id,
                    ..Default::default()
                };
                lab.ok(request).await.map(drop)
            }
            Self::Group { group, snapshots } => {
                let request = csi::DeleteVolumeGroupSnapshotRequest {
                    group_snapshot_id: group,
                    snapshot_ids: snapshots,
                    ..Default::default()
                };
                lab.ok(request).await.map(drop)
            }
        }
    }
}
