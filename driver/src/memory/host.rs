//! The machine of the memory backend: real paths, remembered devices and mounts.

use async_trait::async_trait;

use super::{Content, Device, Layer, Memory, World};
use crate::host::{
    FsUsage, Fsck, Host, HostError, HostErrorKind, HostResult, LAYER_HEADER, Mount, MountEntry, MountSource, NewFs,
    PathKind, Probe,
};
use crate::key::Key;
use crate::linux::paths;
use crate::pool::PoolVolume;
use crate::units::{Access, Bytes, DevicePath, FsKind, HostPath, PublishContext, VolumeId};

/// The [`Host`] of the memory backend.
#[derive(Clone)]
pub struct MemoryHost(Memory);

impl MemoryHost {
    /// The machine of a memory backend.
    pub fn new(memory: Memory) -> Self {
        Self(memory)
    }

    fn show(&self, source: MountSource, target: &HostPath, over: PathKind, access: Access) -> HostResult<()> {
        if paths::kind(target)? != Some(over) {
            return refused(HostErrorKind::Invalid, format!("{target} is no {over:?}"));
        }
        let mut world = self.0.world();
        if world.mounts.iter().any(|entry| entry.target == *target) {
            return refused(HostErrorKind::Busy, format!("something is mounted at {target}"));
        }
        world.mounts.push(MountEntry {
            source,
            root: "/".to_owned(),
            target: target.clone(),
            fs: "memory".to_owned(),
            flags: Vec::new(),
            access,
        });
        Ok(())
    }
}

fn refused<T>(kind: HostErrorKind, text: impl Into<String>) -> HostResult<T> {
    Err(HostError::new(kind, text))
}

fn gone<T>(device: &DevicePath) -> HostResult<T> {
    refused(HostErrorKind::NotFound, format!("no device {device}"))
}

fn size(world: &World, device: &DevicePath) -> HostResult<Bytes> {
    let found = world.devices.values().find(|found| found.has(device));
    found.map_or_else(|| gone(device), |found| Ok(found.size_of(device)))
}

/// By what a key is known again.
fn check(uuid: &str, key: &Key) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("wavetank memory backend: the check of a layer's key");
    hasher.update(uuid.as_bytes()).update(key.bytes());
    hasher.finalize()
}

/// What a machine sees of a volume: the header of a layer, too.
fn bare_size(volume: &PoolVolume) -> Bytes {
    let header = if volume.encrypted { LAYER_HEADER.0 } else { 0 };
    Bytes(volume.size.0 + header)
}

#[async_trait]
impl Host for MemoryHost {
    async fn kind(&self, path: &HostPath) -> HostResult<Option<PathKind>> {
        paths::kind(path)
    }

    async fn create_dir(&self, path: &HostPath) -> HostResult<()> {
        paths::create_dir(path)
    }

    async fn remove_dir(&self, path: &HostPath) -> HostResult<()> {
        paths::remove_dir(path)
    }

    async fn create_file(&self, path: &HostPath) -> HostResult<()> {
        paths::create_file(path)
    }

    async fn remove_file(&self, path: &HostPath) -> HostResult<()> {
        paths::remove_file(path)
    }

    async fn attach(&self, volume: &VolumeId, _: &PublishContext, access: Access) -> HostResult<DevicePath> {
        let mut world = self.0.world();
        if let Some(found) = world.devices.get(volume) {
            return if found.access == access {
                Ok(found.path.clone())
            } else {
                refused(
                    HostErrorKind::Exists,
                    format!("volume {volume} is attached with other access"),
                )
            };
        }
        let found = world.volumes.get(volume);
        let Some(found) = found.filter(|found| found.known.exports.contains_key(&world.node)) else {
            return refused(
                HostErrorKind::NotFound,
                format!("volume {volume} is not exported to this node"),
            );
        };
        let device = Device {
            path: DevicePath::new(format!("memory:{volume}")),
            size: bare_size(&found.known),
            access,
            layer: None,
        };
        let path = device.path.clone();
        world.devices.insert(volume.clone(), device);
        Ok(path)
    }

    async fn attached(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        Ok(self.0.world().devices.get(volume).map(|found| found.path.clone()))
    }

    async fn detach(&self, volume: &VolumeId) -> HostResult<()> {
        let mut world = self.0.world();
        if world
            .devices
            .get(volume)
            .is_some_and(|found| found.layer.is_some() || world.is_shown(&found.path))
        {
            return refused(HostErrorKind::Busy, format!("volume {volume} is mounted"));
        }
        world.devices.remove(volume);
        Ok(())
    }

    async fn encrypt(&self, device: &DevicePath, uuid: &str, key: &Key) -> HostResult<()> {
        let mut world = self.0.world();
        let Some(volume) = world.volume_of(device) else {
            return gone(device);
        };
        if volume.holds.bare != Probe::Blank {
            return refused(HostErrorKind::Exists, format!("{device} holds {:?}", volume.holds.bare));
        }
        let uuid = uuid.to_owned();
        let check = check(&uuid, key);
        let holds = Probe::Blank;
        volume.holds = Content {
            bare: Probe::Encrypted { uuid },
            layer: Some(Layer { check, holds }),
        };
        Ok(())
    }

    async fn unlock(&self, volume: &VolumeId, key: &Key, _: Access) -> HostResult<DevicePath> {
        let mut world = self.0.world();
        let content = world.volumes.get(volume).map(|found| found.holds.clone());
        let Some(device) = world.devices.get_mut(volume) else {
            return refused(HostErrorKind::NotFound, format!("volume {volume} is not attached"));
        };
        if let Some((path, _)) = &device.layer {
            return Ok(path.clone());
        }
        let Some(Content {
            bare: Probe::Encrypted { uuid },
            layer: Some(layer),
        }) = content
        else {
            return refused(
                HostErrorKind::Invalid,
                format!("volume {volume} has no encryption layer"),
            );
        };
        if layer.check != check(&uuid, key) {
            return refused(HostErrorKind::Denied, "no key fits");
        }
        let path = DevicePath::new(format!("memory:{volume}/plain"));
        device.layer = Some((path.clone(), Bytes(device.size.0.saturating_sub(LAYER_HEADER.0))));
        Ok(path)
    }

    async fn unlocked(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        let world = self.0.world();
        let layer = world.devices.get(volume).and_then(|found| found.layer.as_ref());
        Ok(layer.map(|(path, _)| path.clone()))
    }

    async fn grow_layer(&self, volume: &VolumeId) -> HostResult<Bytes> {
        let mut world = self.0.world();
        let Some(Device {
            size,
            layer: Some((_, plain)),
            ..
        }) = world.devices.get_mut(volume)
        else {
            return refused(HostErrorKind::NotFound, format!("volume {volume} has no open layer"));
        };
        *plain = Bytes(size.0.saturating_sub(LAYER_HEADER.0));
        Ok(*plain)
    }

    async fn lock(&self, volume: &VolumeId) -> HostResult<()> {
        let mut world = self.0.world();
        let layer = world.devices.get(volume).and_then(|found| found.layer.clone());
        if layer.is_some_and(|(path, _)| world.is_shown(&path)) {
            return refused(HostErrorKind::Busy, format!("the layer of volume {volume} is in use"));
        }
        if let Some(device) = world.devices.get_mut(volume) {
            device.layer = None;
        }
        Ok(())
    }

    async fn device_size(&self, device: &DevicePath) -> HostResult<Bytes> {
        size(&self.0.world(), device)
    }

    async fn rescan(&self, device: &DevicePath) -> HostResult<Bytes> {
        let mut world = self.0.world();
        let Some(now) = world.volume_of(device).map(|volume| bare_size(&volume.known)) else {
            return gone(device);
        };
        for found in world.devices.values_mut().filter(|found| found.path == *device) {
            found.size = now;
        }
        Ok(now)
    }

    async fn probe(&self, device: &DevicePath) -> HostResult<Probe> {
        let mut world = self.0.world();
        world
            .holds(device)
            .map_or_else(|| gone(device), |holds| Ok(holds.clone()))
    }

    async fn mkfs(&self, device: &DevicePath, fs: &NewFs) -> HostResult<()> {
        let mut world = self.0.world();
        let size = size(&world, device)?;
        let Some(holds) = world.holds(device) else {
            return gone(device);
        };
        if *holds != Probe::Blank && !fs.forced {
            return refused(HostErrorKind::Exists, format!("{device} holds {holds:?}"));
        }
        *holds = Probe::FileSystem {
            kind: fs.kind,
            size,
            uuid: fs.uuid.clone(),
            label: fs.label.clone(),
        };
        Ok(())
    }

    async fn fsck(&self, _: &DevicePath, _: FsKind) -> HostResult<Fsck> {
        Ok(Fsck::Clean)
    }

    async fn mount(&self, mount: &Mount) -> HostResult<()> {
        let source = MountSource::FileSystem(mount.device.clone());
        self.show(source, &mount.target, PathKind::Directory, mount.access)
    }

    async fn bind(&self, source: &HostPath, target: &HostPath, access: Access) -> HostResult<()> {
        let found = self.mount_at(source).await?;
        let Some(entry) = found else {
            return refused(HostErrorKind::NotFound, format!("nothing is mounted at {source}"));
        };
        self.show(entry.source, target, PathKind::Directory, access)
    }

    async fn bind_device(&self, device: &DevicePath, target: &HostPath, access: Access) -> HostResult<()> {
        self.show(MountSource::Device(device.clone()), target, PathKind::File, access)
    }

    async fn unmount(&self, target: &HostPath) -> HostResult<()> {
        let mut world = self.0.world();
        match world.mounts.iter().rposition(|entry| entry.target == *target) {
            Some(at) => {
                world.mounts.remove(at);
                Ok(())
            }
            None => refused(HostErrorKind::NotMounted, format!("nothing is mounted at {target}")),
        }
    }

    async fn mounts(&self) -> HostResult<Vec<MountEntry>> {
        Ok(self.0.world().mounts.clone())
    }

    async fn grow_fs(&self, target: &HostPath) -> HostResult<Bytes> {
        let mut world = self.0.world();
        let entry = world.mounts.iter().rev().find(|entry| entry.target == *target);
        let Some(device) = entry.and_then(|entry| entry.source.device()).cloned() else {
            return refused(HostErrorKind::NotMounted, format!("nothing is mounted at {target}"));
        };
        let room = size(&world, &device)?;
        if let Some(Probe::FileSystem { size, .. }) = world.holds(&device) {
            *size = room.max(*size);
        }
        Ok(room)
    }

    async fn set_group(&self, path: &HostPath, _: u32) -> HostResult<()> {
        match self.mount_at(path).await? {
            Some(_) => Ok(()),
            None => refused(HostErrorKind::NotMounted, format!("nothing is mounted at {path}")),
        }
    }

    async fn usage(&self, path: &HostPath) -> HostResult<FsUsage> {
        let world = self.0.world();
        let entry = world.mounts.iter().rev().find(|entry| entry.target == *path);
        let Some(device) = entry.and_then(|entry| entry.source.device()) else {
            return refused(HostErrorKind::NotMounted, format!("nothing is mounted at {path}"));
        };
        let total = size(&world, device)?;
        let inodes = total.0 / 16384;
        Ok(FsUsage {
            total,
            available: total,
            used: Bytes(0),
            inodes,
            inodes_free: inodes,
            inodes_used: 0,
        })
    }

    async fn sync(&self, _: &HostPath) -> HostResult<()> {
        Ok(())
    }
}
