//! The loop backend on a real kernel: volumes with bytes in them, and a process that is killed at any moment.
//!
//! Needs root. Another user is told that nothing ran; the variable `WAVETANK_ROOT_TESTS` makes that a failure.

use std::fs;
use std::time::Duration;

use super::rig::{Callers, Place};
use super::volume::{BYTES, MI, Volume, bytes_of, grow};
use tonic::Status;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};

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

/// The bytes that a snapshot has blocks for.
async fn allocated(calls: &mut Callers, snapshot: &str) -> i64 {
    let request = csi::GetMetadataAllocatedRequest {
        snapshot_id: snapshot.to_owned(),
        ..Default::default()
    };
    let told = calls.metadata.get_metadata_allocated(request).await;
    let mut told = told.expect("the driver answers OK").into_inner();
    let mut sum = 0;
    while let Some(part) = told.message().await.expect("the driver answers OK") {
        sum += part.block_metadata.iter().map(|block| block.size_bytes).sum::<i64>();
    }
    sum
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
    assert!(allocated(&mut calls, &snapshot.snapshot_id).await >= BYTES.len() as i64);
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

/// A clone has its source's UUID: kernels before 6.7 mount one btrfs of a UUID only.
#[tokio::test]
async fn bytes_survive_on_btrfs() {
    needs_root!();
    bytes_survive("btrfs", 128 * MI).await;
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

/// What a machine loses when it is switched off: what is mounted, and its devices. Nothing that was synced.
fn reboot(place: &Place) {
    let root = place.text(".");
    let root = root.trim_end_matches("/.");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    let ours: Vec<&str> = targets.filter(|target| target.starts_with(root)).collect();
    for target in ours.into_iter().rev() {
        rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()).expect("nothing is open");
    }
    for entry in fs::read_dir("/sys/block").expect("sysfs").flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.starts_with(root) {
            let device = std::path::Path::new("/dev").join(entry.file_name());
            let ended = std::process::Command::new("losetup").arg("-d").arg(device).status();
            assert!(ended.is_ok_and(|status| status.success()), "losetup lets the device go");
        }
    }
}

#[tokio::test]
async fn a_reboot_loses_mounts_and_devices_and_no_bytes() {
    needs_root!();
    let mut place = Place::new("loop", &[]);
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let mut volume = Volume::new(&place, "v", "ext4", 32 * MI);
    let mut bare = Volume {
        block: true,
        ..Volume::new(&place, "b", "", 32 * MI)
    };
    for volume in [&mut volume, &mut bare] {
        volume.up(&mut calls, None).await.expect("the driver answers OK");
    }
    volume.write();
    life.kill();
    reboot(&place);
    assert_eq!(volume.read(), b"", "nothing is mounted");
    let life = place.start().await;
    let mut calls = life.calls.clone();
    for volume in [&mut volume, &mut bare] {
        volume.up(&mut calls, None).await.expect("the driver answers OK");
    }
    assert_eq!(volume.read(), BYTES);
    let size =
        fs::File::open(&bare.target).and_then(|mut device| std::io::Seek::seek(&mut device, std::io::SeekFrom::End(0)));
    assert_eq!(size.expect("a device"), 32 * MI as u64);
    for volume in [&volume, &bare] {
        volume.down(&mut calls).await.expect("the driver answers OK");
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
}

/// The disk below has less than what was promised of it.
#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_keeps_what_does() {
    needs_root!();
    let mut place = Place::new("loop", &["--capacity", "1Gi"]);
    let state = place.path("state");
    fs::create_dir(&state).expect("a directory");
    let options = c"size=24m";
    rustix::mount::mount("tmpfs", &state, "tmpfs", rustix::mount::MountFlags::empty(), options).expect("a small disk");
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let mut thin = Volume::new(&place, "v", "ext4", 32 * MI);
    thin.up(&mut calls, None).await.expect("the driver answers OK");
    thin.write();
    let mut thick = Volume {
        kind: "thick",
        ..Volume::new(&place, "t", "ext4", 64 * MI)
    };
    for _ in 0..2 {
        let full = thick.up(&mut calls, None).await.unwrap_err();
        assert_eq!(full.code(), tonic::Code::ResourceExhausted, "{full:?}");
        let images = fs::read_dir(state.join("volumes")).expect("a directory").count();
        assert_eq!(images, 2, "the image and the file of the other volume");
    }
    assert_eq!(thin.read(), BYTES);
    thin.down(&mut calls).await.expect("the driver answers OK");
    assert_eq!(life.end().await, Some(0));
    let left = fs::read_dir(state.join("volumes")).expect("a directory").count();
    rustix::mount::unmount(&state, rustix::mount::UnmountFlags::empty()).expect("nothing is open");
    assert_eq!((left, place.leftovers()), (0, Vec::new()));
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
