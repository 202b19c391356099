//! What a machine and its processes lose when they die or are cut off.

use std::time::Duration;

use futures::executor::block_on;
use wavetank_driver::host::{Fsck, HostErrorKind, PathKind as Kind};
use wavetank_driver::units::FsKind;
use wavetank_driver::{Host, Pool, VolumeId};

use crate::link::{MachineAnswer, MachineError, MachineOp, PathKind};
use crate::runtime::Time;

use super::super::pods::PodError;
use super::super::turns::{Fence, Loss};
use super::Machine;
use super::{RW, SIZE, STAGING, fs, host, path, publish_path, refusal, tank, write};

#[test]
fn a_node_crash_empties_mounts_devices_and_containers_and_keeps_the_tree() {
    block_on(async {
        let tank = tank();
        tank.published("v").await;
        let target = publish_path("p");
        tank.machine
            .perform(
                Time::ZERO,
                &MachineOp::WriteFile("/var/lib/kubelet/f".into(), b"12345678".to_vec()),
            )
            .unwrap();
        write(&tank.machine, "p", &target, 0, 4, 1).unwrap();
        tank.fence.freeze();
        let mut asked = Vec::new();
        tank.machine.crash(Time::ZERO, &mut |what, count| {
            asked.push((what.to_owned(), count));
            if what == "/" { Loss::Tear(0) } else { Loss::Keep(3) }
        });
        assert_eq!(asked, [("/".to_owned(), 1), ("v".to_owned(), 4)]);
        assert!(!tank.machine.is_up());
        assert_eq!(
            tank.machine.perform(Time::ZERO, &MachineOp::RunningPods),
            Err(MachineError::Down)
        );
        assert_eq!(write(&tank.machine, "p", &target, 0, 1, 9), Err(PodError::Down));
        assert_eq!(tank.on_device("v"), 3);
        tank.machine.boot();
        assert!(tank.machine.inventory() == Default::default());
        assert_eq!(refusal(tank.host.mounts().await), HostErrorKind::Fenced);
        let stat = |path: &str| tank.machine.perform(Time::ZERO, &MachineOp::Stat(path.into())).unwrap();
        assert_eq!(stat(&target), MachineAnswer::Path(PathKind::Directory));
        assert_eq!(stat("/dev/nbd0"), MachineAnswer::Path(PathKind::Missing));
        let read = MachineOp::ReadFile("/var/lib/kubelet/f".into());
        assert_eq!(
            tank.machine.perform(Time::ZERO, &read),
            Ok(MachineAnswer::Bytes(b"1234".to_vec())),
            "torn"
        );

        let host = host(&tank.machine, &tank.storage, Fence::new());
        let context = tank.export("v", "n1", RW).await;
        let device = host.attach(&"v".into(), &context, RW).await.unwrap();
        assert_eq!(host.fsck(&device, FsKind::Ext4).await.unwrap(), Fsck::Repaired);
        assert_eq!(host.fsck(&device, FsKind::Ext4).await.unwrap(), Fsck::Clean);
    });
}

#[test]
fn what_was_written_long_ago_survives_the_power_loss() {
    let machine = Machine::new("n");
    let write = MachineOp::WriteFile("/tmp/f".into(), b"old".to_vec());
    machine.perform(Time::ZERO, &write).unwrap();
    let later = Time::ZERO + Duration::from_secs(31);
    machine.crash(later, &mut |_, _| panic!("nothing is at risk"));
    machine.boot();
    let read = machine.perform(later, &MachineOp::ReadFile("/tmp/f".into()));
    assert_eq!(read, Ok(MachineAnswer::Bytes(b"old".to_vec())));
    assert_eq!(machine.boots(), 2);
}

#[test]
fn a_handle_dies_with_its_process_and_with_its_boot() {
    block_on(async {
        let tank = tank();
        tank.host.create_dir(&path("/a")).await.unwrap();
        tank.fence.freeze();
        assert_eq!(refusal(tank.host.create_dir(&path("/b")).await), HostErrorKind::Fenced);
        let next = host(&tank.machine, &tank.storage, Fence::new());
        assert_eq!(next.kind(&path("/a")).await.unwrap(), Some(Kind::Directory));
        assert_eq!(next.kind(&path("/b")).await.unwrap(), None);
        tank.machine.crash(Time::ZERO, &mut |_, _| Loss::All);
        tank.machine.boot();
        assert_eq!(
            refusal(next.kind(&path("/a")).await),
            HostErrorKind::Fenced,
            "a handle of the boot before"
        );
    });
}

#[test]
fn a_node_cut_off_writes_nothing_more_and_can_still_clean_up() {
    block_on(async {
        let tank = tank();
        tank.published("v").await;
        let (v, target) = (VolumeId::from("v"), publish_path("p"));
        write(&tank.machine, "p", &target, 0, 2, 1).unwrap();
        tank.pool.unexport(&v, &"n1".into()).await.unwrap();
        let written = write(&tank.machine, "p", &target, 2, 1, 3).unwrap();
        assert_eq!(written.stopped, Some(PodError::Io));
        assert_eq!(tank.machine.pod_sync("p", &target), Err(PodError::Io));
        assert_eq!(tank.machine.pod_read("p", &target).unwrap_err(), PodError::Io);
        let context = tank.export("v", "n1", RW).await;
        assert_eq!(
            refusal(tank.host.attach(&v, &context, RW).await),
            HostErrorKind::Io,
            "the dead device is still in use"
        );
        tank.stop("p");
        tank.host.unmount(&path(&target)).await.unwrap();
        tank.host.unmount(&path(STAGING)).await.unwrap();
        assert_eq!(tank.on_device("v"), 0, "not even after the volume was exported again");
        tank.host
            .attach(&v, &context, RW)
            .await
            .expect("nothing uses the dead device any more");
        tank.host.detach(&v).await.unwrap();
    });
}

#[test]
fn a_device_that_fails_spoils_the_mount_and_nothing_that_was_synced() {
    block_on(async {
        let tank = tank();
        let device = tank.published("v").await;
        let target = publish_path("p");
        write(&tank.machine, "p", &target, 0, 2, 1).unwrap();
        tank.machine.pod_sync("p", &target).unwrap();
        write(&tank.machine, "p", &target, 2, 1, 3).unwrap();
        tank.machine.fail_devices(true);
        let written = write(&tank.machine, "p", &target, 3, 1, 4).unwrap();
        assert_eq!(written.stopped, Some(PodError::Io));
        assert_eq!(tank.machine.pod_read("p", &target).unwrap_err(), PodError::Io);
        let later = tank.attached("w", SIZE).await;
        assert_eq!(refusal(tank.host.probe(&later).await), HostErrorKind::Io);
        assert_eq!(
            refusal(tank.host.mkfs(&later, &fs(FsKind::Ext4)).await),
            HostErrorKind::Io
        );
        tank.machine.fail_devices(false);
        assert_eq!(
            tank.machine.pod_sync("p", &target),
            Err(PodError::ReadOnly),
            "until it is mounted anew"
        );
        tank.stop("p");
        tank.host.unmount(&path(&target)).await.unwrap();
        tank.host.unmount(&path(STAGING)).await.unwrap();
        assert_eq!(tank.on_device("v"), 2, "what was not synced is lost");
        assert_eq!(tank.host.fsck(&device, FsKind::Ext4).await.unwrap(), Fsck::Repaired);
        tank.mount(&device, FsKind::Ext4, STAGING, RW).await.unwrap();
    });
}
