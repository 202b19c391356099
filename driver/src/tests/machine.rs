//! The machine of the fake world: paths, devices, layers, mounts.

use async_trait::async_trait;

use super::rig::{FakeLayer, FakeVolume, Outside, World};
use crate::host::{
    FsUsage, Fsck, Host, HostError, HostErrorKind, HostResult, LAYER_HEADER, Mount, MountEntry, MountSource, NewFs,
    PathKind, Probe,
};
use crate::key::Key;
use crate::pool::PoolVolume;
use crate::units::{Access, Bytes, DevicePath, FsKind, HostPath, PublishContext, VolumeId};

fn refuse<T>(kind: HostErrorKind) -> HostResult<T> {
    Err(HostError::new(kind, format!("{kind:?}")))
}

/// What a machine sees of a volume: the header of a layer, too.
fn bare_size(volume: &PoolVolume) -> Bytes {
    Bytes(volume.size.0 + if volume.encrypted { LAYER_HEADER.0 } else { 0 })
}

fn plain_size(bare: Bytes) -> Bytes {
    Bytes(bare.0 - LAYER_HEADER.0)
}

impl World {
    fn volume_of(&mut self, device: &DevicePath) -> HostResult<&mut FakeVolume> {
        let bare = self.devices.iter().map(|(id, (path, ..))| (id, path));
        let mut all = bare.chain(self.layers.iter().map(|(id, (path, _))| (id, path)));
        let id = all.find(|(_, path)| *path == device).map(|(id, _)| id.clone());
        let volume = id.and_then(|id| self.volumes.get_mut(&id));
        volume.ok_or_else(|| HostError::new(HostErrorKind::Io, "no storage behind the device"))
    }

    fn is_layer(&self, device: &DevicePath) -> bool {
        self.layers.values().any(|(path, _)| path == device)
    }

    /// What a probe of a device says, be it a volume's own or that of its layer.
    fn holds(&mut self, device: &DevicePath) -> HostResult<&mut Probe> {
        let is_layer = self.is_layer(device);
        let volume = self.volume_of(device)?;
        match &mut volume.layer {
            Some(layer) if is_layer => Ok(&mut layer.holds),
            _ => Ok(&mut volume.holds),
        }
    }

    /// The size of a device as the machine knows it.
    fn size_of(&self, device: &DevicePath) -> HostResult<Bytes> {
        let bare = self.devices.values().map(|(path, size, _)| (path, *size));
        let mut all = bare.chain(self.layers.values().map(|(path, size)| (path, *size)));
        let found = all.find(|(path, _)| *path == device);
        found.map_or_else(|| refuse(HostErrorKind::NotFound), |(_, size)| Ok(size))
    }

    fn is_mounted(&self, device: &DevicePath) -> bool {
        self.mounts.iter().any(|entry| entry.source.device() == Some(device))
    }

    fn top(&self, target: &HostPath) -> Option<&MountEntry> {
        self.mounts.iter().rev().find(|entry| entry.target == *target)
    }

    fn make(&mut self, path: &HostPath, kind: PathKind) -> HostResult<()> {
        if self.paths.contains_key(path) {
            return refuse(HostErrorKind::Exists);
        }
        if path.parent().and_then(|parent| self.paths.get(&parent)) != Some(&PathKind::Directory) {
            return refuse(HostErrorKind::NotFound);
        }
        self.paths.insert(path.clone(), kind);
        Ok(())
    }

    fn remove(&mut self, path: &HostPath, kind: PathKind) -> HostResult<()> {
        match self.paths.get(path) {
            None => refuse(HostErrorKind::NotFound),
            Some(found) if *found != kind => refuse(HostErrorKind::Invalid),
            Some(_) if self.top(path).is_some() => refuse(HostErrorKind::Busy),
            Some(_) if self.paths.keys().any(|other| other != path && other.is_within(path)) => {
                refuse(HostErrorKind::NotEmpty)
            }
            Some(_) => {
                self.paths.remove(path);
                Ok(())
            }
        }
    }

    fn add_mount(&mut self, source: MountSource, target: &HostPath, kind: PathKind, access: Access) -> HostResult<()> {
        if self.paths.get(target) != Some(&kind) {
            return refuse(HostErrorKind::NotFound);
        }
        if self.top(target).is_some() {
            return refuse(HostErrorKind::Busy);
        }
        self.mounts.push(MountEntry {
            source,
            root: "/".to_owned(),
            target: target.clone(),
            fs: "fake".to_owned(),
            flags: Vec::new(),
            access,
        });
        Ok(())
    }
}

#[async_trait]
impl Host for Outside {
    async fn kind(&self, path: &HostPath) -> HostResult<Option<PathKind>> {
        self.host("kind", |world| Ok(world.paths.get(path).copied())).await
    }

    async fn create_dir(&self, path: &HostPath) -> HostResult<()> {
        self.host("create_dir", |world| world.make(path, PathKind::Directory))
            .await
    }

    async fn remove_dir(&self, path: &HostPath) -> HostResult<()> {
        self.host("remove_dir", |world| world.remove(path, PathKind::Directory))
            .await
    }

    async fn create_file(&self, path: &HostPath) -> HostResult<()> {
        self.host("create_file", |world| world.make(path, PathKind::File)).await
    }

    async fn remove_file(&self, path: &HostPath) -> HostResult<()> {
        self.host("remove_file", |world| world.remove(path, PathKind::File))
            .await
    }

    async fn attach(&self, volume: &VolumeId, _: &PublishContext, access: Access) -> HostResult<DevicePath> {
        self.host("attach", |world| {
            if let Some((device, _, has)) = world.devices.get(volume) {
                return if *has == access {
                    Ok(device.clone())
                } else {
                    refuse(HostErrorKind::Exists)
                };
            }
            let found = world
                .volumes
                .get(volume)
                .filter(|found| found.known.exports.contains_key(&"n1".into()));
            let Some(found) = found else {
                return refuse(HostErrorKind::NotFound);
            };
            let device = DevicePath::new(format!("/dev/{volume}"));
            world
                .devices
                .insert(volume.clone(), (device.clone(), bare_size(&found.known), access));
            Ok(device)
        })
        .await
    }

    async fn attached(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        self.host("attached", |world| {
            Ok(world.devices.get(volume).map(|(device, ..)| device.clone()))
        })
        .await
    }

    async fn detach(&self, volume: &VolumeId) -> HostResult<()> {
        self.host("detach", |world| {
            if world
                .devices
                .get(volume)
                .is_some_and(|(device, ..)| world.is_mounted(device) || world.layers.contains_key(volume))
            {
                return refuse(HostErrorKind::Busy);
            }
            world.devices.remove(volume);
            Ok(())
        })
        .await
    }

    async fn device_size(&self, device: &DevicePath) -> HostResult<Bytes> {
        self.host("device_size", |world| world.size_of(device)).await
    }

    async fn encrypt(&self, device: &DevicePath, uuid: &str, key: &Key) -> HostResult<()> {
        self.host("encrypt", |world| {
            let volume = world.volume_of(device)?;
            if volume.holds != Probe::Blank {
                return refuse(HostErrorKind::Exists);
            }
            volume.holds = Probe::Encrypted { uuid: uuid.to_owned() };
            let (key, holds) = (key.clone(), Probe::Blank);
            volume.layer = Some(FakeLayer { key, holds });
            Ok(())
        })
        .await
    }

    async fn unlock(&self, volume: &VolumeId, key: &Key, _: Access) -> HostResult<DevicePath> {
        self.host("unlock", |world| {
            let Some((device, size, _)) = world.devices.get(volume).cloned() else {
                return refuse(HostErrorKind::NotFound);
            };
            let layer = world.volume_of(&device)?.layer.as_ref();
            match layer.map(|layer| layer.key == *key) {
                None => return refuse(HostErrorKind::Invalid),
                Some(false) => return refuse(HostErrorKind::Denied),
                Some(true) => {}
            }
            let shown = (DevicePath::new(format!("{device}-plain")), plain_size(size));
            Ok(world.layers.entry(volume.clone()).or_insert(shown).0.clone())
        })
        .await
    }

    async fn unlocked(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        self.host("unlocked", |world| {
            Ok(world.layers.get(volume).map(|(device, _)| device.clone()))
        })
        .await
    }

    async fn grow_layer(&self, volume: &VolumeId) -> HostResult<Bytes> {
        self.host("grow_layer", |world| {
            let bare = world.devices.get(volume).map(|(_, size, _)| *size);
            let (Some((_, size)), Some(bare)) = (world.layers.get_mut(volume), bare) else {
                return refuse(HostErrorKind::NotFound);
            };
            *size = plain_size(bare);
            Ok(*size)
        })
        .await
    }

    async fn lock(&self, volume: &VolumeId) -> HostResult<()> {
        self.host("lock", |world| {
            let open = world.layers.get(volume);
            if open.is_some_and(|(device, _)| world.is_mounted(device)) {
                return refuse(HostErrorKind::Busy);
            }
            world.layers.remove(volume);
            Ok(())
        })
        .await
    }

    async fn rescan(&self, device: &DevicePath) -> HostResult<Bytes> {
        self.host("rescan", |world| {
            let now = bare_size(&world.volume_of(device)?.known);
            world
                .devices
                .values_mut()
                .filter(|(path, ..)| path == device)
                .for_each(|(_, size, _)| *size = now);
            Ok(now)
        })
        .await
    }

    async fn probe(&self, device: &DevicePath) -> HostResult<Probe> {
        self.host("probe", |world| Ok(world.holds(device)?.clone())).await
    }

    async fn mkfs(&self, device: &DevicePath, fs: &NewFs) -> HostResult<()> {
        self.host("mkfs", |world| {
            let size = world.size_of(device)?;
            let holds = world.holds(device)?;
            if *holds != Probe::Blank && !fs.forced {
                return refuse(HostErrorKind::Exists);
            }
            let (uuid, label) = (fs.uuid.clone(), fs.label.clone());
            *holds = Probe::FileSystem {
                kind: fs.kind,
                size,
                uuid,
                label,
            };
            world.formatted += 1;
            Ok(())
        })
        .await
    }

    async fn fsck(&self, _: &DevicePath, _: FsKind) -> HostResult<Fsck> {
        self.host("fsck", |_| Ok(Fsck::Clean)).await
    }

    async fn mount(&self, mount: &Mount) -> HostResult<()> {
        self.host("mount", |world| {
            if mount.flags.iter().any(|flag| flag == "nonsense") {
                return refuse(HostErrorKind::Invalid);
            }
            let source = MountSource::FileSystem(mount.device.clone());
            world.add_mount(source, &mount.target, PathKind::Directory, mount.access)
        })
        .await
    }

    async fn bind(&self, source: &HostPath, target: &HostPath, access: Access) -> HostResult<()> {
        self.host("bind", |world| {
            let Some(entry) = world.top(source) else {
                return refuse(HostErrorKind::NotFound);
            };
            let source = entry.source.clone();
            world.add_mount(source, target, PathKind::Directory, access)
        })
        .await
    }

    async fn bind_device(&self, device: &DevicePath, target: &HostPath, access: Access) -> HostResult<()> {
        let source = MountSource::Device(device.clone());
        self.host("bind_device", |world| {
            world.add_mount(source, target, PathKind::File, access)
        })
        .await
    }

    async fn unmount(&self, target: &HostPath) -> HostResult<()> {
        self.host("unmount", |world| {
            let index = world.mounts.iter().rposition(|entry| entry.target == *target);
            let Some(index) = index else {
                return refuse(HostErrorKind::NotMounted);
            };
            if world.open.contains(target) {
                return refuse(HostErrorKind::Busy);
            }
            world.mounts.remove(index);
            Ok(())
        })
        .await
    }

    async fn mounts(&self) -> HostResult<Vec<MountEntry>> {
        self.host("mounts", |world| Ok(world.mounts.clone())).await
    }

    async fn grow_fs(&self, target: &HostPath) -> HostResult<Bytes> {
        self.host("grow_fs", |world| {
            let device = world.top(target).and_then(|entry| entry.source.device()).cloned();
            let Some(device) = device else {
                return refuse(HostErrorKind::NotMounted);
            };
            let room = world.size_of(&device)?;
            if let Probe::FileSystem { size, .. } = world.holds(&device)? {
                *size = room;
            }
            Ok(room)
        })
        .await
    }

    async fn set_group(&self, path: &HostPath, group: u32) -> HostResult<()> {
        self.host("set_group", |world| {
            let device = world.top(path).and_then(|entry| entry.source.device()).cloned();
            let Some(device) = device else {
                return refuse(HostErrorKind::NotMounted);
            };
            world.groups.insert(device, group);
            Ok(())
        })
        .await
    }

    async fn usage(&self, _: &HostPath) -> HostResult<FsUsage> {
        let usage = FsUsage {
            total: Bytes(100),
            available: Bytes(60),
            used: Bytes(40),
            inodes: 10,
            inodes_free: 7,
            inodes_used: 3,
        };
        self.host("usage", |_| Ok(usage)).await
    }

    async fn sync(&self, _: &HostPath) -> HostResult<()> {
        self.host("sync", |_| Ok(())).await
    }
}
