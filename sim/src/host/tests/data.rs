//! What pods write, where it lands, and what is left of it.

use futures::executor::block_on;
use wavetank_driver::host::{HostErrorKind, Mount, PathKind as Kind, Probe};
use wavetank_driver::pool::Source;
use wavetank_driver::units::FsKind;
use wavetank_driver::{Bytes, Host, Pool, VolumeId};

use crate::link::MachineOp;
use crate::runtime::Time;

use super::super::cell::Backing;
use super::super::pods::{PodError, PodWrite};
use super::super::witness::{FindingKind, Witnesses};
use super::Machine;
use super::{RO, RW, SIZE, STAGING, fs, key, make_dirs, new, origin, path, publish_path, refusal, tank, write};

#[test]
fn a_full_file_system_says_enospc_and_has_room_once_all_three_sizes_have_grown() {
    block_on(async {
        let tank = tank();
        let device = tank.published("v").await;
        let target = publish_path("p");
        let first = write(&tank.machine, "p", &target, 0, 1000, 1).unwrap();
        assert_eq!(first.stopped, Some(PodError::NoSpace));
        let fitting = first.stamps.len() as u64;
        assert!(fitting > 200 && fitting < 256);

        let staging = path(STAGING);
        let grow = || tank.host.grow_fs(&staging);
        let v = VolumeId::from("v");
        tank.pool.grow(&v, Bytes::mi(2)).await.unwrap();
        assert_eq!(
            grow().await.unwrap(),
            SIZE,
            "the kernel does not know of the growth yet"
        );
        assert_eq!(tank.host.device_size(&device).await.unwrap(), SIZE);
        assert_eq!(tank.host.rescan(&device).await.unwrap(), Bytes::mi(2));
        let more = write(&tank.machine, "p", &target, fitting, 1, fitting + 1).unwrap();
        assert_eq!(
            more.stopped,
            Some(PodError::NoSpace),
            "the file system has not grown yet"
        );
        assert_eq!(grow().await.unwrap(), Bytes::mi(2));
        let usage = tank.host.usage(&path(&target)).await.unwrap();
        assert!(usage.available > Bytes(fitting * 4096 - 1) && usage.used == Bytes(fitting * 4096));
        let more = write(&tank.machine, "p", &target, fitting, 100, fitting + 1).unwrap();
        assert_eq!((more.stamps.len(), more.stopped), (100, None));
        assert_eq!(tank.storage.file_system(&v).unwrap().size, Bytes::mi(2));
    });
}

#[test]
fn a_file_system_is_given_to_a_group_for_good_and_never_through_a_read_only_mount() {
    block_on(async {
        let tank = tank();
        let device = tank.published("v").await;
        let group = || tank.storage.file_system(&"v".into()).unwrap().group;
        tank.host.set_group(&path(STAGING), 2000).await.unwrap();
        assert_eq!(group(), Some(2000));
        let elsewhere = tank.host.set_group(&path("/tmp"), 1).await;
        assert_eq!(refusal(elsewhere), HostErrorKind::NotMounted);
        tank.stop("p");
        tank.host.unmount(&path(&publish_path("p"))).await.unwrap();
        tank.host.unmount(&path(STAGING)).await.unwrap();
        tank.mount(&device, FsKind::Ext4, STAGING, RO).await.unwrap();
        assert_eq!(
            refusal(tank.host.set_group(&path(STAGING), 1).await),
            HostErrorKind::ReadOnly
        );
        assert_eq!(group(), Some(2000));
    });
}

#[test]
fn a_running_container_keeps_what_it_saw_when_it_started() {
    block_on(async {
        let tank = tank();
        tank.published("v").await;
        let v = VolumeId::from("v");
        let target = publish_path("p");
        tank.host.unmount(&path(&target)).await.unwrap();
        tank.host.unmount(&path(STAGING)).await.unwrap();
        let written = write(&tank.machine, "p", &target, 0, 1, 1).unwrap();
        assert_eq!(written.stopped, None, "it has a mount of its own");
        assert_eq!(refusal(tank.host.detach(&v).await), HostErrorKind::Busy);
        tank.stop("p");
        assert_eq!(tank.on_device("v"), 1, "its end writes back");
        tank.host.detach(&v).await.unwrap();
    });
}

#[test]
fn a_write_to_a_path_without_a_mount_lands_on_the_nodes_disk_and_is_lost() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        tank.host.mkfs(&device, &fs(FsKind::Ext4)).await.unwrap();
        let target = publish_path("p");
        make_dirs(&tank.machine, &target);
        tank.start("p");
        let written = write(&tank.machine, "p", &target, 0, 2, 1).unwrap();
        assert_eq!((written.stamps.len(), written.stopped), (2, None));
        let mut witnesses = Witnesses::default();
        witnesses.wrote(&key(), &written);
        let read = tank.machine.pod_read("p", &target).unwrap();
        assert_eq!((&read.on, read.found.len()), (&Backing::NodeDisk, 2));
        let report = witnesses.verify(&key(), &read);
        assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Lost));
        assert_eq!(report.findings.len(), 2);
    });
}

#[test]
fn a_raw_volume_is_its_device_bound_over_a_file() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        let target = path("/var/lib/kubelet/published");
        tank.host.create_file(&target).await.unwrap();
        tank.host.bind_device(&device, &target, RW).await.unwrap();
        assert_eq!(tank.host.kind(&target).await.unwrap(), Some(Kind::BlockDevice));
        assert_eq!(refusal(tank.host.remove_file(&target).await), HostErrorKind::Busy);
        assert_eq!(refusal(tank.host.detach(&"v".into()).await), HostErrorKind::Busy);
        assert_eq!(
            refusal(tank.host.bind_device(&device, &target, RW).await),
            HostErrorKind::Busy
        );
        let link = "/var/lib/kubelet/pods/p/volumeDevices/kubernetes.io~csi/pv";
        make_dirs(&tank.machine, "/var/lib/kubelet/pods/p/volumeDevices/kubernetes.io~csi");
        let map = MachineOp::Link {
            to: target.to_string(),
            at: link.into(),
        };
        tank.machine.perform(Time::ZERO, &map).unwrap();
        tank.machine.perform(Time::ZERO, &map).expect("the same link again");
        tank.start("p");
        let written = write(&tank.machine, "p", link, 255, 2, 1).unwrap();
        assert_eq!((written.stamps.len(), written.stopped), (1, Some(PodError::NoSpace)));
        assert_eq!(tank.host.probe(&device).await.unwrap(), Probe::Foreign("data".into()));
        assert_eq!(tank.on_device("v"), 0);
        tank.machine.pod_sync("p", link).unwrap();
        assert_eq!(tank.on_device("v"), 1);
        let read = tank.machine.pod_read("p", link).unwrap();
        assert_eq!((read.found.len(), read.found[0].block), (1, 255));
        tank.stop("p");
        tank.host.unmount(&target).await.unwrap();
        tank.host.remove_file(&target).await.unwrap();
        tank.host.detach(&"v".into()).await.unwrap();
        assert_eq!(tank.host.kind(&path(device.as_str())).await.unwrap(), None);
    });
}

#[test]
fn a_read_only_raw_volume_takes_no_writes() {
    block_on(async {
        let tank = tank();
        let device = tank.attached("v", SIZE).await;
        let target = "/var/lib/kubelet/pods/p/volumeDevices/kubernetes.io~csi/pv";
        make_dirs(&tank.machine, "/var/lib/kubelet/pods/p/volumeDevices/kubernetes.io~csi");
        tank.host.create_file(&path(target)).await.unwrap();
        tank.host.bind_device(&device, &path(target), RO).await.unwrap();
        tank.start("p");
        let written = write(&tank.machine, "p", target, 0, 1, 1).unwrap();
        assert_eq!(written.stopped, Some(PodError::ReadOnly));
    });
}

#[test]
fn two_nodes_that_mount_one_file_system_damage_it_and_lose_data() {
    block_on(async {
        let tank = tank();
        tank.published("v").await;
        let context = tank.export("v", "n2", RW).await;
        let device = tank.other_host.attach(&"v".into(), &context, RW).await.unwrap();
        make_dirs(&tank.other, &publish_path("q"));
        let mount = Mount {
            device,
            target: path(&publish_path("q")),
            kind: FsKind::Ext4,
            flags: Vec::new(),
            access: RW,
        };
        tank.other_host.mount(&mount).await.unwrap();
        tank.other
            .perform(Time::ZERO, &MachineOp::StartPod("q".into()))
            .unwrap();
        let mut witnesses = Witnesses::default();
        for (machine, pod, sequence) in [(&tank.machine, "p", 1), (&tank.other, "q", 2)] {
            let write = PodWrite {
                origin: origin(machine, pod),
                path: publish_path(pod),
                file: format!("of-{pod}").into(),
                first: 0,
                count: 1,
                sequence,
                sync: true,
            };
            witnesses.wrote(&key(), &machine.pod_write(Time::ZERO, &write).unwrap());
        }
        assert!(tank.storage.file_system(&"v".into()).unwrap().damaged);
        let on_device = tank.storage.contents(&"v".into()).unwrap();
        let report = witnesses.verify_device(&key(), &on_device);
        assert!(!report.is_sound(), "both were told that their data is safe");
    });
}

#[test]
fn nodes_share_a_shared_file_system() {
    block_on(async {
        let tank = tank();
        let mut shared = new("v", SIZE);
        shared.shared_fs = Some(FsKind::Ext4);
        tank.pool.create(&shared).await.unwrap();
        for (machine, host, pod) in [(&tank.machine, &tank.host, "p"), (&tank.other, &tank.other_host, "q")] {
            let context = tank.export("v", machine.node(), RW).await;
            let device = host.attach(&"v".into(), &context, RW).await.unwrap();
            make_dirs(machine, &publish_path(pod));
            let mount = Mount {
                device,
                target: path(&publish_path(pod)),
                kind: FsKind::Ext4,
                flags: Vec::new(),
                access: RW,
            };
            host.mount(&mount).await.unwrap();
            machine.perform(Time::ZERO, &MachineOp::StartPod(pod.into())).unwrap();
        }
        write(&tank.machine, "p", &publish_path("p"), 0, 1, 1).unwrap();
        write(&tank.other, "q", &publish_path("q"), 1, 1, 2).unwrap();
        let seen = tank.machine.pod_read("p", &publish_path("p")).unwrap();
        assert_eq!(seen.found.len(), 2, "one file, written by both");
        assert!(!tank.storage.file_system(&"v".into()).unwrap().damaged);
    });
}

#[test]
fn a_clone_of_a_mounted_volume_is_independent_and_holds_what_was_synced() {
    block_on(async {
        let tank = tank();
        tank.published("v").await;
        let target = publish_path("p");
        write(&tank.machine, "p", &target, 0, 1, 1).unwrap();
        tank.machine.pod_sync("p", &target).unwrap();
        write(&tank.machine, "p", &target, 1, 1, 2).unwrap();
        let mut clone = new("clone", Bytes::mi(2));
        clone.source = Some(Source::Volume("v".into()));
        tank.pool.create(&clone).await.unwrap();
        tank.machine.pod_sync("p", &target).unwrap();
        assert_eq!((tank.on_device("clone"), tank.on_device("v")), (1, 2));

        let context = tank.export("clone", "n1", RW).await;
        let device = tank.host.attach(&"clone".into(), &context, RW).await.unwrap();
        let Probe::FileSystem { size, .. } = tank.host.probe(&device).await.unwrap() else {
            panic!("a clone carries its source's file system");
        };
        assert_eq!(
            (size, tank.host.device_size(&device).await.unwrap()),
            (SIZE, Bytes::mi(2))
        );
        tank.mount(&device, FsKind::Ext4, "/clone", RW).await.unwrap();
        assert_eq!(tank.host.grow_fs(&path("/clone")).await.unwrap(), Bytes::mi(2));
        assert_eq!(tank.storage.file_system(&"v".into()).unwrap().size, SIZE);
        assert!(!tank.storage.file_system(&"v".into()).unwrap().damaged);
    });
}

#[test]
fn a_pod_that_does_not_run_writes_nothing() {
    let machine = Machine::new("n");
    make_dirs(&machine, &publish_path("p"));
    assert_eq!(
        write(&machine, "p", &publish_path("p"), 0, 1, 1),
        Err(PodError::NotRunning)
    );
    machine.perform(Time::ZERO, &MachineOp::StartPod("p".into())).unwrap();
    assert_eq!(write(&machine, "p", "/none", 0, 1, 1), Err(PodError::Missing));
}
