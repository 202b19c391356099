//! Encrypted volumes on a real device-mapper: LUKS2 between loop device and file system.
//!
//! Needs root, a kernel with dm-crypt, and `cryptsetup`. Elsewhere they say that they did not run, and what the driver
//! answers there; the variable `WAVETANK_DM_TESTS` makes that a failure.

use std::fs;
use std::path::Path;

use tonic::Code;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_content_source::{Type, VolumeSource};

use super::rig::{Callers, Life, Place};
use super::volume::{BYTES, MI, Volume, bytes_of, grow};

const KEY: &str = "paper-tiger-lemon-tree";

/// The kernel's own word: `cryptsetup` makes `/dev/mapper/control` where nothing answers at it.
fn has_device_mapper() -> bool {
    fs::read_to_string("/proc/misc").is_ok_and(|devices| devices.contains("device-mapper"))
}

fn has_dm_crypt() -> bool {
    let has = has_device_mapper() && Path::new("/usr/sbin/cryptsetup").exists();
    assert!(
        has || std::env::var_os("WAVETANK_DM_TESTS").is_none(),
        "these tests were demanded, and need dm-crypt and cryptsetup"
    );
    has
}

/// Leaves the test if there are no encryption layers here.
macro_rules! needs_layers {
    () => {
        needs_root!();
        if !has_dm_crypt() {
            println!("NOT RUN: encrypted volumes need dm-crypt and cryptsetup");
            return;
        }
    };
}

/// A process with the loop backend, and a caller of it.
async fn started() -> (Place, Life, Callers) {
    let mut place = Place::new("loop", &[]);
    let life = place.start().await;
    let calls = life.calls.clone();
    (place, life, calls)
}

fn encrypted(place: &Place, name: &'static str, fs: &'static str, size: i64) -> Volume {
    Volume {
        kind: "encrypted",
        key: KEY,
        ..Volume::new(place, name, fs, size)
    }
}

/// Is it anywhere in what lies below the state directory?
fn is_plain(place: &Place, text: &[u8]) -> bool {
    fn look(at: &Path, text: &[u8]) -> bool {
        fs::read_dir(at).into_iter().flatten().flatten().any(|entry| {
            let kind = entry.file_type().expect("a kind");
            let holds = || {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                bytes.windows(text.len()).any(|window| window == text)
            };
            if kind.is_dir() {
                look(&entry.path(), text)
            } else {
                kind.is_file() && holds()
            }
        })
    }
    look(&place.path("state"), text)
}

#[tokio::test]
async fn bytes_are_ciphertext_below_the_layer_and_come_back_with_the_key_alone() {
    needs_layers!();
    let (place, life, mut calls) = started().await;
    let mut volume = encrypted(&place, "v", "ext4", 64 * MI);
    volume.up(&mut calls, None).await.unwrap();
    volume.write();
    volume.up(&mut calls, None).await.expect("a repeat");
    fs::File::open(&volume.target)
        .and_then(|dir| rustix::fs::syncfs(&dir).map_err(Into::into))
        .unwrap();
    assert!(!is_plain(&place, BYTES));

    volume.leave(&mut calls).await.unwrap();
    volume.key = "another key";
    for _ in 0..2 {
        let refused = volume.up(&mut calls, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        assert!(!format!("{refused:?}").contains(volume.key));
    }
    volume.key = "";
    let refused = volume.up(&mut calls, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    volume.key = KEY;
    volume.up(&mut calls, None).await.unwrap();
    assert_eq!(volume.read(), BYTES);

    let volume_id = volume.id.clone();
    let mut copy = encrypted(&place, "c", "ext4", 96 * MI);
    copy.up(&mut calls, Some(Type::Volume(VolumeSource { volume_id })))
        .await
        .unwrap();
    assert_eq!(copy.read(), BYTES);
    assert!(
        bytes_of(&mut calls, &copy).await > 64 * MI,
        "layer and file system fill the copy"
    );
    for volume in [&copy, &volume] {
        volume.down(&mut calls).await.unwrap();
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
    for (path, bytes) in place.everything() {
        let found = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!found, "the key is in {}", path.display());
    }
}

/// D72: the layer between device and file system must be told.
#[tokio::test]
async fn an_expansion_reaches_the_file_system_through_the_layer() {
    needs_layers!();
    let (place, life, mut calls) = started().await;
    let mut volume = encrypted(&place, "v", "btrfs", 128 * MI);
    volume.up(&mut calls, None).await.unwrap();
    volume.write();
    grow(&mut calls, &volume, 256 * MI).await;
    assert_eq!(bytes_of(&mut calls, &volume).await, 256 * MI);
    assert_eq!(volume.read(), BYTES);
    volume.down(&mut calls).await.unwrap();

    let mut bare = Volume {
        block: true,
        ..encrypted(&place, "b", "", 64 * MI)
    };
    bare.up(&mut calls, None).await.unwrap();
    assert_eq!(bytes_of(&mut calls, &bare).await, 64 * MI, "the header comes on top");
    fs::write(&bare.target, BYTES).expect("the pod writes to the device");
    bare.leave(&mut calls).await.unwrap();
    assert!(!is_plain(&place, BYTES));
    bare.up(&mut calls, None).await.unwrap();
    let mut there = vec![0; BYTES.len()];
    std::io::Read::read_exact(&mut fs::File::open(&bare.target).unwrap(), &mut there).unwrap();
    assert_eq!(there, BYTES);
    bare.down(&mut calls).await.unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
}

/// How often the way up is killed.
const KILLS: u32 = 12;

#[tokio::test]
async fn a_kill_at_any_moment_leaves_no_mapping_and_a_volume_that_can_be_used() {
    needs_layers!();
    let mut place = Place::new("loop", &[]);
    let mut span = std::time::Duration::ZERO;
    for kill in 0..=KILLS {
        let mut volume = encrypted(&place, "v", "ext4", 64 * MI);
        let mut life = place.start().await;
        let start = tokio::time::Instant::now();
        let limit = if kill == 0 {
            std::time::Duration::from_secs(300)
        } else {
            span * kill / KILLS
        };
        let mut calls = life.calls.clone();
        let _ = tokio::time::timeout(limit, volume.up(&mut calls, None)).await;
        if kill == 0 {
            span = start.elapsed();
        } else {
            life.kill();
            life = place.start().await;
        }
        let mut calls = life.calls.clone();
        volume
            .up(&mut calls, None)
            .await
            .unwrap_or_else(|status| panic!("kill {kill}: {status:?}"));
        volume.write();
        assert_eq!(volume.read(), BYTES);
        volume
            .down(&mut calls)
            .await
            .unwrap_or_else(|status| panic!("kill {kill}: {status:?}"));
        assert_eq!(place.leftovers(), Vec::<String>::new(), "kill {kill}");
        life.kill();
    }
}

/// Without device-mapper nothing is stored plain instead.
#[tokio::test]
async fn where_there_is_no_layer_staging_is_refused() {
    needs_root!();
    if has_device_mapper() {
        println!("NOT RUN: this kernel has device-mapper");
        return;
    }
    let (place, life, mut calls) = started().await;
    let mut volume = encrypted(&place, "v", "ext4", 64 * MI);
    let refused = volume.up(&mut calls, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused:?}");
    assert!(!format!("{refused:?}").contains(KEY));
    let stage = csi::NodeUnstageVolumeRequest {
        volume_id: volume.id.clone(),
        staging_target_path: volume.stage.clone(),
    };
    calls.node.node_unstage_volume(stage).await.unwrap();
    volume.down(&mut calls).await.unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
}
