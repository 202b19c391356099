//! Mounts, binds, devices and file systems, as a driver finds them.

use std::sync::Arc;

use futures::executor::block_on;
use wavetank_driver::host::{HostErrorKind, MountSource, PathKind as Kind, Probe};
use wavetank_driver::pool::Source;
use wavetank_driver::units::FsKind;
use wavetank_driver::{Bytes, DevicePath, Host, Pool, PublishContext, Segments, VolumeId};

use super::super::modelled::HostSeat;
use super::super::pods::PodError;
use super::super::pool::ModelPool;
use super::super::storage::{Storage, StorageShape, VolumeTrouble};
use super::super::turns::{AtOnce, Fence};
use super::{RO, RW, SIZE, STAGING, fs, make_dirs, new, path, publish_path, refusal, tank, write};

#[test]
fn a_bind_keeps_the_file_system_alive_and_its_device_busy() {
    block_on(async {
        let tank = tank();
        let device = tank.published("v").await;
        let v = VolumeId::from("v");
        tank.stop("p");
        tank.host.unmount(&path(STAGING)).await.unwrap();
        assert_eq!(refusal(tank.host.detach(&v).await), HostErrorKind::Busy);
        assert_eq!(
            refusal(tank.host.mkfs(&device, &fs(FsKind::Ext4)).await),
            HostErrorKind::Busy
        );
        assert_eq!(
            refusal(tank.host.fsck(&device, FsKind::Ext4).await),
            HostErrorKind::Busy
        );
        tank.start("p");
        write(&tank.machine, "p", &publish_path("p"), 0, 3, 1).unwrap();
        tank.stop("p");
        assert_eq!(tank.on_device("v"), 0, "in memory as long as something shows it");
        tank.host.unmount(&path(&publish_path("p"))).await.unwrap();
        assert_eq!(tank.on_device("v"), 3, "the last unmount writes back");
        assert!(!tank.storage.file_system(&v).unwrap().unclean);
        tank.host.detach(&v).await.unwrap();
        tank.host.detach(&v).await.expect("not attached: nothing to do");
        assert!(tank.machine.inventory() == Default::default());
    });
}

#[test]
fn unmount_is_busy_below_another_mount_and_below_open_files() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        tank.host.mkfs(&device, &fs(FsKind::Ext4)).await.unwrap();
        tank.mount(&device, FsKind::Ext4, STAGING, RW).await.unwrap();
        make_dirs(&tank.machine, &format!("{STAGING}/inner"));
        make_dirs(&tank.machine, "/elsewhere");
        let inner = path(&format!("{STAGING}/inner"));
        tank.host.bind(&path("/elsewhere"), &inner, RW).await.unwrap();
        assert_eq!(refusal(tank.host.unmount(&path(STAGING)).await), HostErrorKind::Busy);
        assert_eq!(refusal(tank.host.remove_dir(&inner).await), HostErrorKind::Busy);
        tank.host.unmount(&inner).await.unwrap();
        let file = tank.machine.hold_open(inner.as_str()).unwrap();
        assert_eq!(refusal(tank.host.unmount(&path(STAGING)).await), HostErrorKind::Busy);
        tank.machine.release(file);
        tank.host.unmount(&path(STAGING)).await.unwrap();
        assert_eq!(
            refusal(tank.host.unmount(&path(STAGING)).await),
            HostErrorKind::NotMounted
        );
        assert_eq!(
            refusal(tank.host.unmount(&path("/nowhere")).await),
            HostErrorKind::NotMounted
        );
    });
}

#[test]
fn binds_of_binds_show_the_same_file_system_and_only_get_stricter() {
    block_on(async {
        let tank = tank();
        let device = tank.published("v").await;
        for (pod, access) in [("q", RO), ("r", RW)] {
            let target = path(&publish_path(pod));
            make_dirs(&tank.machine, target.as_str());
            let source = if pod == "q" { "p" } else { "q" };
            tank.host
                .bind(&path(&publish_path(source)), &target, access)
                .await
                .unwrap();
            tank.start(pod);
            let written = write(&tank.machine, pod, target.as_str(), 0, 1, 1).unwrap();
            assert_eq!(
                written.stopped,
                Some(PodError::ReadOnly),
                "{pod}: never laxer than its source"
            );
            let entry = tank.host.mount_at(&target).await.unwrap().unwrap();
            assert_eq!(entry.source, MountSource::FileSystem(device.clone()));
            assert_eq!(
                (entry.root.as_str(), entry.fs.as_str(), entry.access),
                ("/", "ext4", RO)
            );
        }
        write(&tank.machine, "p", &publish_path("p"), 0, 1, 1).unwrap();
        let seen = tank.machine.pod_read("r", &publish_path("r")).unwrap();
        assert_eq!(seen.found.len(), 1, "one file system behind three mounts");
        let table = tank.host.mounts().await.unwrap();
        let targets: Vec<&str> = table.iter().map(|entry| entry.target.as_str()).collect();
        assert_eq!(
            targets,
            [STAGING, &publish_path("p"), &publish_path("q"), &publish_path("r")],
            "oldest first"
        );
    });
}

#[test]
fn a_bind_of_a_directory_within_shows_only_that() {
    block_on(async {
        let tank = tank();
        tank.published("v").await;
        make_dirs(&tank.machine, &format!("{STAGING}/sub/dir"));
        make_dirs(&tank.machine, "/view");
        tank.host
            .bind(&path(&format!("{STAGING}/sub")), &path("/view"), RW)
            .await
            .unwrap();
        assert_eq!(tank.host.kind(&path("/view/dir")).await.unwrap(), Some(Kind::Directory));
        let entry = tank.host.mount_at(&path("/view")).await.unwrap().unwrap();
        assert_eq!(entry.root, "/sub");
        assert_eq!(
            refusal(tank.host.grow_fs(&path("/view/dir")).await),
            HostErrorKind::NotMounted
        );
        tank.host
            .grow_fs(&path("/view"))
            .await
            .expect("a bind is a mount of that file system");
    });
}

#[test]
fn xfs_and_btrfs_refuse_a_twin_beside_its_source() {
    block_on(async {
        for (kind, size) in [(FsKind::Xfs, Bytes::mi(300)), (FsKind::Btrfs, Bytes::mi(128))] {
            let tank = tank();
            let device = tank.attached("v", size).await;
            tank.host.mkfs(&device, &fs(kind)).await.unwrap();
            tank.mount(&device, kind, "/source", RW).await.unwrap();
            let mut clone = new("clone", size);
            clone.source = Some(Source::Volume("v".into()));
            tank.pool.create(&clone).await.unwrap();
            let context = tank.export("clone", "n1", RW).await;
            let twin = tank.host.attach(&"clone".into(), &context, RW).await.unwrap();
            assert_eq!(
                refusal(tank.mount(&twin, kind, "/twin", RW).await),
                HostErrorKind::Invalid
            );
            if kind == FsKind::Xfs {
                let flags = ["nouuid"];
                tank.mount_flags(&twin, kind, "/twin", RW, &flags).await.unwrap();
            }
        }
    });
}

#[test]
fn mkfs_touches_only_what_is_provably_blank() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        let v = VolumeId::from("v");
        assert_eq!(tank.host.probe(&device).await.unwrap(), Probe::Blank);
        let broken = |unreadable| VolumeTrouble {
            condition: String::new(),
            unreadable,
        };
        tank.storage.set_trouble(&v, broken(true));
        assert_eq!(
            refusal(tank.host.probe(&device).await),
            HostErrorKind::Io,
            "never blank"
        );
        assert_eq!(
            refusal(tank.host.mkfs(&device, &fs(FsKind::Ext4)).await),
            HostErrorKind::Io
        );
        tank.storage.set_trouble(&v, broken(false));
        assert_eq!(
            refusal(tank.host.mkfs(&device, &fs(FsKind::Xfs)).await),
            HostErrorKind::NoSpace
        );
        tank.storage.sign(&v, "LVM2_member");
        assert_eq!(
            refusal(tank.host.mkfs(&device, &fs(FsKind::Ext4)).await),
            HostErrorKind::Exists
        );

        let device = tank.attached("w", SIZE).await;
        tank.host.mkfs(&device, &fs(FsKind::Ext4)).await.unwrap();
        assert_eq!(
            refusal(tank.host.mkfs(&device, &fs(FsKind::Ext4)).await),
            HostErrorKind::Exists
        );
        assert_eq!(
            refusal(tank.host.fsck(&device, FsKind::Xfs).await),
            HostErrorKind::Invalid
        );
    });
}

#[test]
fn mount_refuses_what_linux_refuses() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        let mount = |target: &'static str, access, flags: &'static [&'static str]| {
            tank.mount_flags(&device, FsKind::Ext4, target, access, flags)
        };
        make_dirs(&tank.machine, "/m");
        make_dirs(&tank.machine, "/n");
        assert_eq!(refusal(mount("/m", RW, &[]).await), HostErrorKind::Invalid, "blank");
        tank.host.mkfs(&device, &fs(FsKind::Ext4)).await.unwrap();
        assert_eq!(refusal(mount("/none", RW, &[]).await), HostErrorKind::NotFound);
        assert_eq!(refusal(mount("/m", RW, &["nouuid"]).await), HostErrorKind::Invalid);
        tank.host.create_file(&path("/f")).await.unwrap();
        assert_eq!(refusal(mount("/f", RW, &[]).await), HostErrorKind::Invalid);
        mount("/m", RW, &["noatime", "data=ordered"]).await.unwrap();
        assert_eq!(refusal(mount("/m", RW, &[]).await), HostErrorKind::Busy);
        assert_eq!(
            refusal(mount("/n", RO, &[]).await),
            HostErrorKind::Busy,
            "one super, one access"
        );
        mount("/n", RW, &[])
            .await
            .expect("the same file system at a second place");
        let nowhere = DevicePath::from("/dev/nbd9");
        let missing = tank.mount(&nowhere, FsKind::Ext4, "/o", RW).await;
        assert_eq!(refusal(missing), HostErrorKind::NotFound);
    });
}

#[test]
fn access_is_enforced_from_the_export_up() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        let v = VolumeId::from("v");
        tank.host.mkfs(&device, &fs(FsKind::Ext4)).await.unwrap();
        let context = tank.export("v", "n1", RW).await;
        assert_eq!(refusal(tank.host.attach(&v, &context, RO).await), HostErrorKind::Exists);
        assert_eq!(tank.host.attach(&v, &context, RW).await.unwrap(), device);
        tank.host.detach(&v).await.unwrap();
        tank.pool.unexport(&v, &"n1".into()).await.unwrap();
        assert_eq!(
            refusal(tank.host.attach(&v, &context, RW).await),
            HostErrorKind::NotFound
        );
        let context = tank.export("v", "n1", RO).await;
        let lost = PublishContext::new();
        assert_eq!(refusal(tank.host.attach(&v, &lost, RO).await), HostErrorKind::NotFound);
        assert_eq!(
            refusal(tank.host.attach(&v, &context, RW).await),
            HostErrorKind::ReadOnly
        );
        let device = tank.host.attach(&v, &context, RO).await.unwrap();
        let mounted = tank.mount(&device, FsKind::Ext4, "/m", RW).await;
        assert_eq!(refusal(mounted), HostErrorKind::ReadOnly);
        tank.mount(&device, FsKind::Ext4, "/m", RO).await.unwrap();
        assert_eq!(
            refusal(tank.host.create_dir(&path("/m/d")).await),
            HostErrorKind::ReadOnly
        );
        assert_eq!(refusal(tank.host.grow_fs(&path("/m")).await), HostErrorKind::ReadOnly);
    });
}

#[test]
fn drivers_on_one_machine_do_not_see_each_others_volumes() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        let storage = Storage::new(StorageShape::everywhere(Bytes::gi(1)));
        storage.add_node("n1".into(), Segments::new(), None);
        let pool = ModelPool::new(storage.clone(), Fence::new(), Arc::new(AtOnce));
        pool.create(&new("v", SIZE)).await.unwrap();
        let context = pool.export(&"v".into(), &"n1".into(), RW).await.unwrap();
        let other = tank.machine.host(HostSeat {
            driver: "other.example".into(),
            node: "n1".into(),
            storage,
            fence: Fence::new(),
            turns: Arc::new(AtOnce),
        });
        assert_eq!(other.attached(&"v".into()).await.unwrap(), None);
        let second = other.attach(&"v".into(), &context, RW).await.unwrap();
        assert_ne!(second, device);
        tank.host.detach(&"v".into()).await.unwrap();
        assert_eq!(other.attached(&"v".into()).await.unwrap(), Some(second));
    });
}
