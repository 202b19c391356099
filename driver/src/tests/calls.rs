//! Requests as callers write them, short: one volume, its usual paths, its usual capability.

use tonic::{Code, Request, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::volume_capability::AccessType;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::rig::{Rig, path};
use crate::host::PathKind;
use crate::seat::Driver;

pub(super) const GI: i64 = 1 << 30;
pub(super) const TARGET: &str = "/var/lib/kubelet/pods/pod1";

pub(super) fn mount(mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(csi::volume_capability::MountVolume::default())),
        access_mode: Some(csi::volume_capability::AccessMode { mode: mode.into() }),
    }
}

pub(super) fn block(mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Block(csi::volume_capability::BlockVolume {})),
        ..mount(mode)
    }
}

pub(super) fn range(required_bytes: i64, limit_bytes: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes,
        limit_bytes,
    })
}

pub(super) fn text(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// The handle of the volume called `name`.
pub(super) fn id(name: &str) -> String {
    crate::controller::handle(name).as_str().to_owned()
}

pub(super) fn create(name: &str) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: range(GI, 0),
        volume_capabilities: vec![mount(Mode::SingleNodeMultiWriter)],
        ..Default::default()
    }
}

pub(super) fn clone_of(name: &str, source: &str) -> csi::CreateVolumeRequest {
    use csi::volume_content_source::{Type, VolumeSource};
    let source = Type::Volume(VolumeSource { volume_id: id(source) });
    csi::CreateVolumeRequest {
        volume_content_source: Some(csi::VolumeContentSource { r#type: Some(source) }),
        ..create(name)
    }
}

/// The handle of the snapshot called `name`.
pub(super) fn snapshot_id(name: &str) -> String {
    crate::controller::snapshot_handle(name).as_str().to_owned()
}

pub(super) fn cut(name: &str, volume: &str) -> csi::CreateSnapshotRequest {
    csi::CreateSnapshotRequest {
        source_volume_id: id(volume),
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(super) fn delete_snapshot(name: &str) -> csi::DeleteSnapshotRequest {
    csi::DeleteSnapshotRequest {
        snapshot_id: snapshot_id(name),
        ..Default::default()
    }
}

pub(super) fn restore(name: &str, snapshot: &str) -> csi::CreateVolumeRequest {
    use csi::volume_content_source::{SnapshotSource, Type};
    let source = Type::Snapshot(SnapshotSource {
        snapshot_id: snapshot_id(snapshot),
    });
    csi::CreateVolumeRequest {
        volume_content_source: Some(csi::VolumeContentSource { r#type: Some(source) }),
        ..create(name)
    }
}

pub(super) fn cut_group(name: &str, volumes: &[&str]) -> csi::CreateVolumeGroupSnapshotRequest {
    csi::CreateVolumeGroupSnapshotRequest {
        name: name.to_owned(),
        source_volume_ids: volumes.iter().map(|volume| id(volume)).collect(),
        ..Default::default()
    }
}

pub(super) fn delete(name: &str) -> csi::DeleteVolumeRequest {
    csi::DeleteVolumeRequest {
        volume_id: id(name),
        ..Default::default()
    }
}

pub(super) fn controller_publish(name: &str, node: &str) -> csi::ControllerPublishVolumeRequest {
    csi::ControllerPublishVolumeRequest {
        volume_id: id(name),
        node_id: node.to_owned(),
        volume_capability: Some(mount(Mode::SingleNodeMultiWriter)),
        ..Default::default()
    }
}

pub(super) fn controller_unpublish(name: &str, node: &str) -> csi::ControllerUnpublishVolumeRequest {
    csi::ControllerUnpublishVolumeRequest {
        volume_id: id(name),
        node_id: node.to_owned(),
        ..Default::default()
    }
}

pub(super) fn controller_expand(name: &str, required: i64) -> csi::ControllerExpandVolumeRequest {
    csi::ControllerExpandVolumeRequest {
        volume_id: id(name),
        capacity_range: range(required, 0),
        ..Default::default()
    }
}

pub(super) fn staging(name: &str) -> String {
    format!("/var/lib/kubelet/stage/{name}")
}

pub(super) fn stage(name: &str) -> csi::NodeStageVolumeRequest {
    csi::NodeStageVolumeRequest {
        volume_id: id(name),
        staging_target_path: staging(name),
        volume_capability: Some(mount(Mode::SingleNodeMultiWriter)),
        ..Default::default()
    }
}

/// The secrets of every call that brings a volume to a node.
pub(super) fn secrets() -> std::collections::BTreeMap<String, String> {
    text(&[(crate::key::KEY_SECRET, "xyzzy-key")])
}

/// Staging of a volume that is encrypted, as the controller's answer says.
pub(super) fn encrypted_stage(name: &str) -> csi::NodeStageVolumeRequest {
    csi::NodeStageVolumeRequest {
        publish_context: text(&[("wavetank.dev/encrypted", "true")]),
        secrets: secrets(),
        ..stage(name)
    }
}

pub(super) fn unstage(name: &str) -> csi::NodeUnstageVolumeRequest {
    csi::NodeUnstageVolumeRequest {
        volume_id: id(name),
        staging_target_path: staging(name),
    }
}

pub(super) fn publish(name: &str, target: &str) -> csi::NodePublishVolumeRequest {
    csi::NodePublishVolumeRequest {
        volume_id: id(name),
        staging_target_path: staging(name),
        target_path: target.to_owned(),
        volume_capability: Some(mount(Mode::SingleNodeMultiWriter)),
        ..Default::default()
    }
}

pub(super) fn unpublish(name: &str, target: &str) -> csi::NodeUnpublishVolumeRequest {
    csi::NodeUnpublishVolumeRequest {
        volume_id: id(name),
        target_path: target.to_owned(),
    }
}

pub(super) fn node_expand(name: &str, at: &str, required: i64) -> csi::NodeExpandVolumeRequest {
    csi::NodeExpandVolumeRequest {
        volume_id: id(name),
        volume_path: at.to_owned(),
        capacity_range: range(required, 0),
        ..Default::default()
    }
}

pub(super) fn stats(name: &str, at: &str) -> csi::NodeGetVolumeStatsRequest {
    csi::NodeGetVolumeStatsRequest {
        volume_id: id(name),
        volume_path: at.to_owned(),
        ..Default::default()
    }
}

/// A pod's inline volume, called by its handle.
pub(super) fn ephemeral(volume: &str, target: &str) -> csi::NodePublishVolumeRequest {
    csi::NodePublishVolumeRequest {
        volume_id: volume.to_owned(),
        target_path: target.to_owned(),
        volume_capability: Some(mount(Mode::SingleNodeMultiWriter)),
        volume_context: text(&[("csi.storage.k8s.io/ephemeral", "true"), ("size", "2Gi")]),
        secrets: secrets(),
        ..Default::default()
    }
}

pub(super) fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    let status = result.expect_err("a refusal was expected");
    assert!(!status.message().is_empty(), "a refusal says why");
    status.code()
}

/// Calls an RPC by the method's name: `call!(driver.controller.create_volume(request))`.
macro_rules! call {
    ($driver:ident.$service:ident.$method:ident($request:expr)) => {
        $driver
            .$service
            .as_ref()
            .unwrap()
            .$method(tonic::Request::new($request))
            .await
            .map(tonic::Response::into_inner)
    };
}
pub(super) use call;

/// Makes the directory that a cluster makes before it stages.
pub(super) fn make_staging_directory(rig: &Rig, name: &str) {
    rig.world
        .lock()
        .unwrap()
        .paths
        .insert(path(&staging(name)), PathKind::Directory);
}

pub(super) fn remove_staging_directory(rig: &Rig, name: &str) {
    rig.world.lock().unwrap().paths.remove(&path(&staging(name)));
}

/// Brings a volume all the way to a pod.
pub(super) async fn bring_to_pod(rig: &Rig, driver: &Driver, name: &str) {
    make_staging_directory(rig, name);
    let (controller, node) = (driver.controller.as_ref().unwrap(), driver.node.as_ref().unwrap());
    controller.create_volume(Request::new(create(name))).await.unwrap();
    let attached = controller
        .controller_publish_volume(Request::new(controller_publish(name, "n1")))
        .await
        .unwrap();
    let request = csi::NodeStageVolumeRequest {
        publish_context: attached.into_inner().publish_context,
        secrets: secrets(),
        ..stage(name)
    };
    node.node_stage_volume(Request::new(request)).await.unwrap();
    node.node_publish_volume(Request::new(publish(name, TARGET)))
        .await
        .unwrap();
}

/// Takes a volume away from its pod and out of the world; every step must succeed whatever came before.
pub(super) async fn tear_down(rig: &Rig, driver: &Driver, name: &str) {
    let (controller, node) = (driver.controller.as_ref().unwrap(), driver.node.as_ref().unwrap());
    node.node_unpublish_volume(Request::new(unpublish(name, TARGET)))
        .await
        .unwrap();
    node.node_unstage_volume(Request::new(unstage(name))).await.unwrap();
    controller
        .controller_unpublish_volume(Request::new(controller_unpublish(name, "n1")))
        .await
        .unwrap();
    controller.delete_volume(Request::new(delete(name))).await.unwrap();
    remove_staging_directory(rig, name);
}
