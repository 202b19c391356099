//! The encryption layer of the modelled machine: ciphertext below it, plaintext above it, and a size of its own.

use futures::executor::block_on;
use wavetank_driver::host::{HostErrorKind, LAYER_HEADER, Probe};
use wavetank_driver::pool::NewVolume;
use wavetank_driver::units::FsKind;
use wavetank_driver::{Bytes, DevicePath, Host, Key, Pool, VolumeId};

use crate::runtime::Time;

use super::super::cell::Cell;
use super::super::turns::Loss;
use super::{RO, RW, SIZE, STAGING, Tank, fs, make_dirs, new, path, publish_path, refusal, tank, write};

impl Tank {
    /// A volume with a layer, attached.
    async fn bare(&self, id: &str) -> DevicePath {
        let volume = NewVolume {
            encrypted: true,
            ..new(id, SIZE)
        };
        self.pool.create(&volume).await.unwrap();
        let context = self.export(id, "n1", RW).await;
        self.host.attach(&id.into(), &context, RW).await.unwrap()
    }

    /// The same with a file system in it, published to pod `p`.
    async fn published_behind_layer(&self, id: &str) -> (DevicePath, DevicePath) {
        let bare = self.bare(id).await;
        self.host.encrypt(&bare, "layer-1", &Key::from("k")).await.unwrap();
        let plain = self.host.unlock(&id.into(), &Key::from("k"), RW).await.unwrap();
        self.host.mkfs(&plain, &fs(FsKind::Ext4)).await.unwrap();
        self.mount(&plain, FsKind::Ext4, STAGING, RW).await.unwrap();
        make_dirs(&self.machine, &publish_path("p"));
        let target = path(&publish_path("p"));
        self.host.bind(&path(STAGING), &target, RW).await.unwrap();
        self.start("p");
        (bare, plain)
    }
}

#[test]
fn what_a_pod_writes_is_never_on_the_backing_device() {
    block_on(async {
        let tank = tank();
        tank.published_behind_layer("v").await;
        let target = publish_path("p");
        write(&tank.machine, "p", &target, 0, 3, 1).unwrap();
        tank.machine.pod_sync("p", &target).unwrap();
        let there = tank.storage.contents(&"v".into()).unwrap();
        assert_eq!(there.len(), 3);
        let plaintext = tank.machine.pod_read("p", &target).unwrap().found;
        assert_eq!(plaintext.len(), 3);
        for found in &there {
            let Cell::Bytes(bytes) = &found.cell else {
                panic!("a writer's stamp is readable in {found:?}");
            };
            assert!(!plaintext.iter().any(|plain| plain.cell.bytes() == **bytes));
        }
    });
}

#[test]
fn another_key_is_refused_and_a_layer_is_never_made_twice() {
    block_on(async {
        let tank = tank();
        let v = VolumeId::from("v");
        let bare = tank.bare("v").await;
        let unmade = tank.host.unlock(&v, &Key::from("k"), RW).await;
        assert_eq!(refusal(unmade), HostErrorKind::Invalid);
        tank.host.encrypt(&bare, "layer-1", &Key::from("k")).await.unwrap();
        let layer = Probe::Encrypted { uuid: "layer-1".into() };
        assert_eq!(tank.host.probe(&bare).await.unwrap(), layer);
        let wrong = tank.host.unlock(&v, &Key::from("other"), RW).await;
        assert_eq!(refusal(wrong), HostErrorKind::Denied);
        let again = tank.host.encrypt(&bare, "layer-2", &Key::from("other")).await;
        assert_eq!(refusal(again), HostErrorKind::Exists);
        assert_eq!(
            refusal(tank.host.mkfs(&bare, &fs(FsKind::Ext4)).await),
            HostErrorKind::Exists
        );
        let plain = tank.host.unlock(&v, &Key::from("k"), RW).await.unwrap();
        assert_eq!(tank.host.unlock(&v, &Key::from("k"), RW).await.unwrap(), plain);
        assert_eq!(
            refusal(tank.host.unlock(&v, &Key::from("k"), RO).await),
            HostErrorKind::Exists
        );
        assert_eq!(tank.host.probe(&plain).await.unwrap(), Probe::Blank);
        assert_eq!(tank.host.unlocked(&v).await.unwrap(), Some(plain));
    });
}

#[test]
fn the_layer_holds_its_device_and_its_users_hold_the_layer() {
    block_on(async {
        let tank = tank();
        let v = VolumeId::from("v");
        let (bare, plain) = tank.published_behind_layer("v").await;
        let directly = tank.mount(&bare, FsKind::Ext4, "/mnt", RO).await;
        assert_eq!(
            refusal(directly),
            HostErrorKind::Invalid,
            "ciphertext cannot be mounted"
        );
        assert_eq!(refusal(tank.host.detach(&v).await), HostErrorKind::Busy);
        assert_eq!(refusal(tank.host.lock(&v).await), HostErrorKind::Busy);
        tank.stop("p");
        tank.host.unmount(&path(&publish_path("p"))).await.unwrap();
        tank.host.unmount(&path(STAGING)).await.unwrap();
        assert_eq!(refusal(tank.host.detach(&v).await), HostErrorKind::Busy);
        tank.host.lock(&v).await.unwrap();
        tank.host.lock(&v).await.unwrap();
        assert_eq!(refusal(tank.host.device_size(&plain).await), HostErrorKind::NotFound);
        tank.host.detach(&v).await.unwrap();
        assert_eq!(tank.machine.inventory().devices, []);
    });
}

/// D72: the device grows, and what lies between it and the file system does not notice.
#[test]
fn a_layer_keeps_its_size_until_it_is_told() {
    block_on(async {
        let tank = tank();
        let v = VolumeId::from("v");
        let (bare, plain) = tank.published_behind_layer("v").await;
        assert_eq!(
            tank.host.device_size(&bare).await.unwrap(),
            Bytes(SIZE.0 + LAYER_HEADER.0)
        );
        assert_eq!(tank.host.device_size(&plain).await.unwrap(), SIZE);
        tank.pool.grow(&v, Bytes::mi(4)).await.unwrap();
        tank.host.rescan(&bare).await.unwrap();
        assert_eq!(tank.host.grow_fs(&path(STAGING)).await.unwrap(), SIZE);
        assert_eq!(tank.host.grow_layer(&v).await.unwrap(), Bytes::mi(4));
        assert_eq!(tank.host.grow_fs(&path(STAGING)).await.unwrap(), Bytes::mi(4));
    });
}

#[test]
fn a_power_loss_takes_the_mapping_and_leaves_the_ciphertext() {
    block_on(async {
        let tank = tank();
        let v = VolumeId::from("v");
        tank.published_behind_layer("v").await;
        let target = publish_path("p");
        write(&tank.machine, "p", &target, 0, 2, 1).unwrap();
        tank.machine.pod_sync("p", &target).unwrap();
        write(&tank.machine, "p", &target, 2, 1, 3).unwrap();
        tank.machine.crash(Time::ZERO, &mut |_, _| Loss::All);
        tank.machine.boot();
        let host = super::host(&tank.machine, &tank.storage, super::Fence::new());
        assert_eq!(host.unlocked(&v).await.unwrap(), None);
        let context = tank.export("v", "n1", RW).await;
        host.attach(&v, &context, RW).await.unwrap();
        let plain = host.unlock(&v, &Key::from("k"), RW).await.unwrap();
        assert!(matches!(host.probe(&plain).await.unwrap(), Probe::FileSystem { .. }));
        assert_eq!(tank.storage.contents(&v).unwrap().len(), 2, "what was synced");
    });
}
