//! The loop backend on a real kernel: volumes with bytes in them, and a process that is killed at any moment.
//!
//! Needs root. Another user is told that nothing ran; the variable `WAVETANK_ROOT_TESTS` makes that a failure.

use std::fs;
use std::time::Duration;

use super::rig::{Callers, Place, mount, size};
use tonic::Status;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};

const MI: i64 = 1 << 20;
const BYTES: &[u8] = b"what the pod wrote and synced";

/// Leaves the test if this user may not mount.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            assert!(
                std::env::var_os("WAVETANK_ROOT_TESTS").is_none(),
                "these tests were demanded, and need root"
            );
            println!("NOT RUN: loop devices and mounts need root");
            return;
        }
    };
}

/// The names of one volume and of the paths at which it is seen.
struct Volume {
    name: &'static str,
    id: String,
    stage: String,
    target: String,
    fs: &'static str,
    size: i64,
}

impl Volume {
    fn new(place: &Place, name: &'static str, fs: &'static str, size: i64) -> Self {
        let pods = place.path("pods");
        fs::create_dir_all(&pods).expect("a directory for targets");
        Self {
            name,
            id: String::new(),
            stage: place.text(&format!("stage-{name}")),
            target: place.text(&format!("pods/{name}")),
            fs,
            size,
        }
    }

    /// Creates it and brings it to its pod. Every step may have been done before.
    async fn up(&mut self, calls: &mut Callers, source: Option<Type>) -> Result<(), Status> {
        let create = csi::CreateVolumeRequest {
            name: self.name.to_owned(),
            capacity_range: size(self.size),
            volume_capabilities: vec![mount(self.fs)],
            volume_content_source: source.map(|source| csi::VolumeContentSource { r#type: Some(source) }),
            ..Default::default()
        };
        let volume = calls.controller.create_volume(create).await?.into_inner().volume;
        self.id = volume.expect("an answer has a volume").volume_id;
        let attach = csi::ControllerPublishVolumeRequest {
            volume_id: self.id.clone(),
            node_id: "n1".to_owned(),
            volume_capability: Some(mount(self.fs)),
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
            volume_capability: Some(mount(self.fs)),
            publish_context: context.clone(),
            ..Default::default()
        };
        calls.node.node_stage_volume(stage).await?;
        let publish = csi::NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.stage.clone(),
            target_path: self.target.clone(),
            volume_capability: Some(mount(self.fs)),
            publish_context: context,
            ..Default::default()
        };
        calls.node.node_publish_volume(publish).await?;
        Ok(())
    }

    /// Takes it from its pod and deletes it. Every step may have been done before.
    async fn down(&self, calls: &mut Callers) -> Result<(), Status> {
        let (volume_id, target_path) = (self.id.clone(), self.target.clone());
        let unpublish = csi::NodeUnpublishVolumeRequest { volume_id, target_path };
        calls.node.node_unpublish_volume(unpublish).await?;
        let unstage = csi::NodeUnstageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.stage.clone(),
        };
        calls.node.node_unstage_volume(unstage).await?;
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
    fn write(&self) {
        let path = format!("{}/data", self.target);
        if fs::read(&path).is_ok_and(|found| found == BYTES) {
            return;
        }
        fs::write(&path, BYTES).expect("the pod writes");
        fs::File::open(&path)
            .and_then(|file| file.sync_all())
            .expect("the pod syncs");
    }

    fn read(&self) -> Vec<u8> {
        fs::read(format!("{}/data", self.target)).unwrap_or_default()
    }
}

fn snapshot_of(volume: &Volume) -> csi::CreateSnapshotRequest {
    csi::CreateSnapshotRequest {
        source_volume_id: volume.id.clone(),
        name: "s".to_owned(),
        ..Default::default()
    }
}

fn restore(snapshot_id: &str) -> Option<Type> {
    let snapshot_id = snapshot_id.to_owned();
    Some(Type::Snapshot(SnapshotSource { snapshot_id }))
}

async fn bytes_of(calls: &mut Callers, volume: &Volume) -> i64 {
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

/// Bytes go from a pod to a snapshot, a larger restore and a clone, and the volume grows under its pod.
async fn bytes_survive(fs: &'static str, small: i64) {
    let mut place = Place::new("loop", &[]);
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let mut volume = Volume::new(&place, "v", fs, small);
    volume.up(&mut calls, None).await.expect("the driver answers OK");
    volume.write();
    let cut = calls
        .controller
        .create_snapshot(snapshot_of(&volume))
        .await
        .expect("the driver answers OK")
        .into_inner();
    let snapshot = cut.snapshot.expect("the answer holds a snapshot");
    fs::write(format!("{}/data", volume.target), "written after the cut").expect("the pod writes");
    let mut restored = Volume::new(&place, "r", fs, small * 2);
    restored
        .up(&mut calls, restore(&snapshot.snapshot_id))
        .await
        .expect("the driver answers OK");
    assert_eq!(restored.read(), BYTES);
    assert!(
        bytes_of(&mut calls, &restored).await > small,
        "the file system fills the larger volume"
    );
    let mut copy = Volume::new(&place, "c", fs, small);
    let volume_id = restored.id.clone();
    copy.size = small * 2;
    copy.up(&mut calls, Some(Type::Volume(VolumeSource { volume_id })))
        .await
        .expect("the driver answers OK");
    assert_eq!(copy.read(), BYTES);
    // A clone has its source's UUID; both are mounted at once.
    if fs != "ext4" {
        grow(&mut calls, &volume, small * 2).await;
    }
    for volume in [&copy, &restored, &volume] {
        volume.down(&mut calls).await.expect("the driver answers OK");
    }
    let delete = csi::DeleteSnapshotRequest {
        snapshot_id: snapshot.snapshot_id,
        ..Default::default()
    };
    calls
        .controller
        .delete_snapshot(delete)
        .await
        .expect("the driver answers OK");
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
}

/// Growing ext4 while it is mounted needs a right that a container may lack, so only the others are grown here.
async fn grow(calls: &mut Callers, volume: &Volume, to: i64) {
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

#[tokio::test]
async fn bytes_survive_on_ext4() {
    needs_root!();
    bytes_survive("ext4", 64 * MI).await;
}

#[tokio::test]
async fn bytes_survive_on_xfs() {
    needs_root!();
    bytes_survive("xfs", 320 * MI).await;
}

/// Everything up to bytes in a restored volume; every step may have been done before.
async fn forward(calls: &mut Callers, volumes: &mut [Volume; 2]) -> Result<String, Status> {
    let [source, restored] = volumes;
    source.up(calls, None).await?;
    source.write();
    let cut = calls
        .controller
        .create_snapshot(snapshot_of(source))
        .await?
        .into_inner();
    let snapshot = cut.snapshot.expect("an answer has a snapshot").snapshot_id;
    let group = csi::CreateVolumeGroupSnapshotRequest {
        name: "g".to_owned(),
        source_volume_ids: vec![source.id.clone()],
        ..Default::default()
    };
    calls.group.create_volume_group_snapshot(group).await?;
    restored.up(calls, restore(&snapshot)).await?;
    Ok(snapshot)
}

async fn backward(calls: &mut Callers, volumes: &[Volume; 2], snapshot: &str) -> Result<(), Status> {
    for volume in volumes {
        volume.down(calls).await?;
    }
    let listed = calls
        .controller
        .list_snapshots(csi::ListSnapshotsRequest::default())
        .await?
        .into_inner();
    let grouped = listed.entries.into_iter().filter_map(|entry| entry.snapshot);
    for one in grouped.filter(|one| !one.group_snapshot_id.is_empty()) {
        let delete = csi::DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: one.group_snapshot_id,
            snapshot_ids: vec![one.snapshot_id],
            ..Default::default()
        };
        calls.group.delete_volume_group_snapshot(delete).await?;
    }
    let delete = csi::DeleteSnapshotRequest {
        snapshot_id: snapshot.to_owned(),
        ..Default::default()
    };
    calls.controller.delete_snapshot(delete).await?;
    Ok(())
}

/// Points at which the process is killed on the way up, and on the way down.
const KILLS: u32 = 24;

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_and_leaves_nothing() {
    needs_root!();
    let mut place = Place::new("loop", &[]);
    let mut spans = [Duration::ZERO; 2];
    let mut cut_off = 0;
    for kill in 0..=KILLS {
        let mut volumes = ["v", "r"].map(|name| Volume::new(&place, name, "ext4", 32 * MI));
        let mut life = place.start().await;
        let start = tokio::time::Instant::now();
        let limit = if kill == 0 {
            Duration::from_secs(120)
        } else {
            spans[0] * kill / KILLS
        };
        let mut calls = life.calls.clone();
        let first = tokio::time::timeout(limit, forward(&mut calls, &mut volumes)).await;
        if kill == 0 {
            spans[0] = start.elapsed();
        }
        if kill > 0 {
            cut_off += u32::from(first.is_err());
            life.kill();
            life = place.start().await;
        }
        let mut calls = life.calls.clone();
        let snapshot = forward(&mut calls, &mut volumes)
            .await
            .unwrap_or_else(|status| panic!("kill {kill}: {status:?}"));
        assert_eq!(volumes[0].read(), BYTES, "kill {kill}");
        assert_eq!(volumes[1].read(), BYTES, "kill {kill}");
        let start = tokio::time::Instant::now();
        let limit = if kill == 0 {
            Duration::from_secs(120)
        } else {
            spans[1] * kill / KILLS
        };
        let first = tokio::time::timeout(limit, backward(&mut calls, &volumes, &snapshot)).await;
        if kill == 0 {
            spans[1] = start.elapsed();
        } else {
            cut_off += u32::from(first.is_err());
            life.kill();
            life = place.start().await;
        }
        let mut calls = life.calls.clone();
        let last = backward(&mut calls, &volumes, &snapshot).await;
        last.unwrap_or_else(|status| panic!("kill {kill} on the way down: {status:?}"));
        assert_eq!(place.leftovers(), Vec::<String>::new(), "kill {kill}");
        life.kill();
    }
    assert!(cut_off > KILLS / 2, "calls were really cut off: {cut_off}");
}

#[tokio::test]
async fn nobody_is_led_astray_by_a_symbolic_link() {
    needs_root!();
    let mut place = Place::new("loop", &[]);
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(&place, "v", "ext4", 32 * MI);
    std::os::unix::fs::symlink(elsewhere.path(), &volume.stage).unwrap();
    let refused = volume.up(&mut calls, None).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    fs::remove_file(&volume.stage).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), place.path("pods/away")).unwrap();
    volume.target = place.text("pods/away/v");
    volume.up(&mut calls, None).await.unwrap_err();
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    fs::remove_file(place.path("pods/away")).unwrap();
    volume.target = place.text("pods/v");
    volume.up(&mut calls, None).await.unwrap();
    volume.down(&mut calls).await.unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
}
