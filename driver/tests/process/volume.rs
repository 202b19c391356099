//! One volume on its way to a pod and back, and what the pod does with it.

use std::collections::BTreeMap;
use std::fs;

use tonic::Status;
use wavetank_driver::key::KEY_SECRET;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_capability::{AccessType, BlockVolume};
use wavetank_proto::csi::v1::volume_content_source::Type;

use super::rig::{Callers, Place, mount, size};

pub const MI: i64 = 1 << 20;
pub const BYTES: &[u8] = b"what the pod wrote and synced";

/// The names of one volume and of the paths at which it is seen.
pub struct Volume {
    /// No other volume on the machine has it: the file system's UUID follows from it.
    pub name: String,
    pub id: String,
    pub stage: String,
    pub target: String,
    pub fs: &'static str,
    pub size: i64,
    /// The storage type.
    pub kind: &'static str,
    /// The key that comes with staging.
    pub key: &'static str,
    /// The group to which it is to belong.
    pub group: &'static str,
    pub block: bool,
}

impl Volume {
    pub fn new(place: &Place, name: &'static str, fs: &'static str, size: i64) -> Self {
        let pods = place.path("pods");
        fs::create_dir_all(&pods).expect("a directory for targets");
        Self {
            name: format!("{name}-{}", place.text(".").replace('/', "-")),
            id: String::new(),
            stage: place.text(&format!("stage-{name}")),
            target: place.text(&format!("pods/{name}")),
            fs,
            size,
            kind: "thin",
            key: "",
            group: "",
            block: false,
        }
    }

    /// Creates it and brings it to its pod. Every step may have been done before.
    pub async fn up(&mut self, calls: &mut Callers, source: Option<Type>) -> Result<(), Status> {
        let create = csi::CreateVolumeRequest {
            name: self.name.clone(),
            capacity_range: size(self.size),
            volume_capabilities: vec![self.capability()],
            parameters: [("type".to_owned(), self.kind.to_owned())].into(),
            volume_content_source: source.map(|source| csi::VolumeContentSource { r#type: Some(source) }),
            ..Default::default()
        };
        let volume = calls.controller.create_volume(create).await?.into_inner().volume;
        self.id = volume.expect("an answer has a volume").volume_id;
        let attach = csi::ControllerPublishVolumeRequest {
            volume_id: self.id.clone(),
            node_id: "n1".to_owned(),
            volume_capability: Some(self.capability()),
            ..Default::default()
        };
        let context = calls
            .controller
            .controller_publish_volume(attach)
            .await?
            .into_inner()
            .publish_context;
        fs::create_dir_all(&self.stage).expect("a staging directory");
        let stage = csi::NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.stage.clone(),
            volume_capability: Some(self.capability()),
            publish_context: context.clone(),
            secrets: self.secrets(),
            ..Default::default()
        };
        calls.node.node_stage_volume(stage).await?;
        self.show_with(calls, context).await
    }

    /// Shows it, staged already, at its target.
    pub async fn show(&self, calls: &mut Callers) -> Result<(), Status> {
        self.show_with(calls, BTreeMap::new()).await
    }

    async fn show_with(&self, calls: &mut Callers, publish_context: BTreeMap<String, String>) -> Result<(), Status> {
        let publish = csi::NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.stage.clone(),
            target_path: self.target.clone(),
            volume_capability: Some(self.capability()),
            publish_context,
            ..Default::default()
        };
        calls.node.node_publish_volume(publish).await.map(drop)
    }

    /// Takes it from its target.
    pub async fn hide(&self, calls: &mut Callers) -> Result<(), Status> {
        let (volume_id, target_path) = (self.id.clone(), self.target.clone());
        let unpublish = csi::NodeUnpublishVolumeRequest { volume_id, target_path };
        calls.node.node_unpublish_volume(unpublish).await.map(drop)
    }

    /// Takes it from its node.
    pub async fn leave(&self, calls: &mut Callers) -> Result<(), Status> {
        self.hide(calls).await?;
        let unstage = csi::NodeUnstageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.stage.clone(),
        };
        calls.node.node_unstage_volume(unstage).await.map(drop)
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        let key = (!self.key.is_empty()).then(|| (KEY_SECRET.to_owned(), self.key.to_owned()));
        key.into_iter().collect()
    }

    fn capability(&self) -> csi::VolumeCapability {
        let mut capability = mount(self.fs);
        if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
            mount.volume_mount_group = self.group.to_owned();
        }
        if self.block {
            capability.access_type = Some(AccessType::Block(BlockVolume {}));
        }
        capability
    }

    /// Takes it from its pod and deletes it. Every step may have been done before.
    pub async fn down(&self, calls: &mut Callers) -> Result<(), Status> {
        self.leave(calls).await?;
        let detach = csi::ControllerUnpublishVolumeRequest {
            volume_id: self.id.clone(),
            node_id: "n1".to_owned(),
            ..Default::default()
        };
        calls.controller.controller_unpublish_volume(detach).await?;
        let delete = csi::DeleteVolumeRequest {
            volume_id: self.id.clone(),
            ..Default::default()
        };
        calls.controller.delete_volume(delete).await?;
        Ok(())
    }

    /// As a pod: writes and syncs, unless it did so before.
    pub fn write(&self) {
        let path = format!("{}/data", self.target);
        if fs::read(&path).is_ok_and(|found| found == BYTES) {
            return;
        }
        fs::write(&path, BYTES).expect("the pod writes");
        fs::File::open(&path)
            .and_then(|file| file.sync_all())
            .expect("the pod syncs");
    }

    pub fn read(&self) -> Vec<u8> {
        fs::read(format!("{}/data", self.target)).unwrap_or_default()
    }
}

pub async fn bytes_of(calls: &mut Callers, volume: &Volume) -> i64 {
    let stats = csi::NodeGetVolumeStatsRequest {
        volume_id: volume.id.clone(),
        volume_path: volume.target.clone(),
        ..Default::default()
    };
    let stats = calls
        .node
        .node_get_volume_stats(stats)
        .await
        .expect("statistics")
        .into_inner();
    stats.usage[0].total
}

/// Growing ext4 while it is mounted needs a right that a container may lack, so only the others are grown here.
pub async fn grow(calls: &mut Callers, volume: &Volume, to: i64) {
    let before = bytes_of(calls, volume).await;
    let expand = csi::ControllerExpandVolumeRequest {
        volume_id: volume.id.clone(),
        capacity_range: size(to),
        ..Default::default()
    };
    let answer = calls
        .controller
        .controller_expand_volume(expand)
        .await
        .expect("the driver answers OK")
        .into_inner();
    assert_eq!((answer.capacity_bytes, answer.node_expansion_required), (to, true));
    let expand = csi::NodeExpandVolumeRequest {
        volume_id: volume.id.clone(),
        volume_path: volume.target.clone(),
        capacity_range: size(to),
        ..Default::default()
    };
    for _ in 0..2 {
        calls
            .node
            .node_expand_volume(expand.clone())
            .await
            .expect("the driver answers OK");
    }
    assert!(bytes_of(calls, volume).await > before);
}
