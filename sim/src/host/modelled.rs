//! A machine as one incarnation of a driver's process acts on it: every operation waits for its turn, and none happens after its death.

use std::sync::Arc;

use async_trait::async_trait;
use wavetank_driver::host::{FsUsage, Fsck, Mount, MountEntry, NewFs, PathKind, Probe};
use wavetank_driver::units::FsKind;
use wavetank_driver::{
    Access, Bytes, DevicePath, Host, HostError, HostErrorKind, HostPath, HostResult, Key, NodeId, PublishContext,
    VolumeId,
};

use super::device::Wanted;
use super::errno::Errno;
use super::filesystem::Node;
use super::kernel::Kernel;
use super::machine::Machine;
use super::storage::Storage;
use super::turns::{Fence, Turn, Turns};

/// What one incarnation of a driver's process brings to its machine.
#[derive(Clone)]
pub struct HostSeat {
    /// The driver's name. Drivers on one machine have different ones.
    pub driver: Arc<str>,
    /// The node, as the driver's storage system knows it.
    pub node: NodeId,
    /// The driver's storage system.
    pub storage: Storage,
    /// The end of this incarnation.
    pub fence: Fence,
    /// Where its operations wait.
    pub turns: Arc<dyn Turns>,
}

/// The modelled [`Host`].
#[derive(Clone)]
pub struct ModelHost {
    machine: Machine,
    boots: u64,
    seat: HostSeat,
}

impl ModelHost {
    pub(super) fn new(machine: Machine, boots: u64, seat: HostSeat) -> ModelHost {
        ModelHost { machine, boots, seat }
    }

    async fn step<T: Send>(
        &self,
        site: &'static str,
        subject: &str,
        effect: impl FnOnce(&mut Kernel) -> Result<T, Errno> + Send,
    ) -> HostResult<T> {
        let turn = self.seat.turns.turn(site, subject).await;
        match turn {
            _ if self.seat.fence.is_frozen() => Err(dead()),
            Turn::Proceed => self.now(subject, effect),
            Turn::Fail(trouble) => Err(trouble.on_host(subject)),
            Turn::Pretend(trouble) => self.now(subject, effect).and(Err(trouble.on_host(subject))),
            Turn::Fenced => Err(dead()),
        }
    }

    fn now<T>(&self, subject: &str, effect: impl FnOnce(&mut Kernel) -> Result<T, Errno>) -> HostResult<T> {
        match self.machine.as_of(self.boots, effect) {
            Some(outcome) => outcome.map_err(|refusal| refusal.on_host(subject)),
            None => Err(dead()),
        }
    }

    fn wanted<'a>(&'a self, volume: &'a VolumeId) -> Wanted<'a> {
        Wanted {
            driver: &self.seat.driver,
            storage: &self.seat.storage,
            node: &self.seat.node,
            volume,
        }
    }
}

fn dead() -> HostError {
    HostError::new(HostErrorKind::Fenced, "the process is dead")
}

fn kind(kernel: &Kernel, path: &HostPath) -> Result<Option<PathKind>, Errno> {
    let spot = match kernel.walk(path.as_str(), false) {
        Ok(spot) => spot,
        Err(Errno::Missing | Errno::NotDirectory) => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    Ok(Some(match kernel.node(spot)? {
        Node::Dir(_) => PathKind::Directory,
        Node::File(_) => PathKind::File,
        Node::Link(_) => PathKind::Symlink,
        Node::Device(_) => PathKind::BlockDevice,
    }))
}

fn remove_dir(kernel: &mut Kernel, path: &HostPath) -> Result<(), Errno> {
    kernel.remove(path.as_str(), |image, ino| match image.node(ino)? {
        Node::Dir(_) => Ok(()),
        Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::Invalid),
    })
}

fn remove_file(kernel: &mut Kernel, path: &HostPath) -> Result<(), Errno> {
    kernel.remove(path.as_str(), |image, ino| match image.node(ino)? {
        Node::File(_) if image.len(ino)? > 0 => Err(Errno::NotEmpty),
        Node::File(_) => Ok(()),
        Node::Dir(_) | Node::Link(_) | Node::Device(_) => Err(Errno::Invalid),
    })
}

#[async_trait]
impl Host for ModelHost {
    async fn kind(&self, path: &HostPath) -> HostResult<Option<PathKind>> {
        self.step("host.kind", path.as_str(), |kernel| kind(kernel, path)).await
    }

    async fn create_dir(&self, path: &HostPath) -> HostResult<()> {
        self.step("host.create_dir", path.as_str(), |kernel| {
            kernel.add(path.as_str(), &Node::dir()).map(drop)
        })
        .await
    }

    async fn remove_dir(&self, path: &HostPath) -> HostResult<()> {
        self.step("host.remove_dir", path.as_str(), |kernel| remove_dir(kernel, path))
            .await
    }

    async fn create_file(&self, path: &HostPath) -> HostResult<()> {
        self.step("host.create_file", path.as_str(), |kernel| {
            kernel.add(path.as_str(), &Node::file()).map(drop)
        })
        .await
    }

    async fn remove_file(&self, path: &HostPath) -> HostResult<()> {
        self.step("host.remove_file", path.as_str(), |kernel| remove_file(kernel, path))
            .await
    }

    async fn attach(&self, volume: &VolumeId, context: &PublishContext, access: Access) -> HostResult<DevicePath> {
        self.step("host.attach", volume.as_str(), |kernel| {
            kernel.attach(self.wanted(volume), context, access)
        })
        .await
    }

    async fn attached(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        self.step("host.attached", volume.as_str(), |kernel| {
            Ok(kernel.attached(&self.seat.driver, volume).cloned())
        })
        .await
    }

    async fn detach(&self, volume: &VolumeId) -> HostResult<()> {
        self.step("host.detach", volume.as_str(), |kernel| {
            kernel.detach(&self.seat.driver, volume)
        })
        .await
    }

    async fn encrypt(&self, device: &DevicePath, uuid: &str, key: &Key) -> HostResult<()> {
        self.step("host.encrypt", device.as_str(), |kernel| {
            kernel.encrypt(device, uuid, key)
        })
        .await
    }

    async fn unlock(&self, volume: &VolumeId, key: &Key, access: Access) -> HostResult<DevicePath> {
        self.step("host.unlock", volume.as_str(), |kernel| {
            kernel.unlock(&self.seat.driver, volume, key, access)
        })
        .await
    }

    async fn unlocked(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        self.step("host.unlocked", volume.as_str(), |kernel| {
            Ok(kernel.unlocked(&self.seat.driver, volume).cloned())
        })
        .await
    }

    async fn grow_layer(&self, volume: &VolumeId) -> HostResult<Bytes> {
        self.step("host.grow_layer", volume.as_str(), |kernel| {
            kernel.grow_layer(&self.seat.driver, volume)
        })
        .await
    }

    async fn lock(&self, volume: &VolumeId) -> HostResult<()> {
        self.step("host.lock", volume.as_str(), |kernel| {
            kernel.lock(&self.seat.driver, volume)
        })
        .await
    }

    async fn device_size(&self, device: &DevicePath) -> HostResult<Bytes> {
        self.step("host.device_size", device.as_str(), |kernel| kernel.device_size(device))
            .await
    }

    async fn rescan(&self, device: &DevicePath) -> HostResult<Bytes> {
        self.step("host.rescan", device.as_str(), |kernel| kernel.rescan(device))
            .await
    }

    async fn probe(&self, device: &DevicePath) -> HostResult<Probe> {
        self.step("host.probe", device.as_str(), |kernel| kernel.probe(device))
            .await
    }

    async fn mkfs(&self, device: &DevicePath, fs: &NewFs) -> HostResult<()> {
        self.step("host.mkfs", device.as_str(), |kernel| kernel.mkfs(device, fs))
            .await
    }

    async fn fsck(&self, device: &DevicePath, kind: FsKind) -> HostResult<Fsck> {
        self.step("host.fsck", device.as_str(), |kernel| kernel.fsck(device, kind))
            .await
    }

    async fn mount(&self, mount: &Mount) -> HostResult<()> {
        self.step("host.mount", mount.target.as_str(), |kernel| kernel.mount(mount))
            .await
    }

    async fn bind(&self, source: &HostPath, target: &HostPath, access: Access) -> HostResult<()> {
        self.step("host.bind", target.as_str(), |kernel| {
            kernel.bind(source, target, access)
        })
        .await
    }

    async fn bind_device(&self, device: &DevicePath, target: &HostPath, access: Access) -> HostResult<()> {
        self.step("host.bind_device", target.as_str(), |kernel| {
            kernel.bind_device(device, target, access)
        })
        .await
    }

    async fn unmount(&self, target: &HostPath) -> HostResult<()> {
        self.step("host.unmount", target.as_str(), |kernel| kernel.unmount(target))
            .await
    }

    async fn mounts(&self) -> HostResult<Vec<MountEntry>> {
        self.step("host.mounts", "", |kernel| Ok(kernel.table())).await
    }

    /// The same operation as reading the whole table, with one entry of it as the answer.
    async fn mount_at(&self, target: &HostPath) -> HostResult<Option<MountEntry>> {
        self.step("host.mounts", "", |kernel| Ok(kernel.visible_at(target)))
            .await
    }

    async fn grow_fs(&self, target: &HostPath) -> HostResult<Bytes> {
        self.step("host.grow_fs", target.as_str(), |kernel| kernel.grow_fs(target))
            .await
    }

    async fn set_group(&self, path: &HostPath, group: u32) -> HostResult<()> {
        self.step("host.set_group", path.as_str(), |kernel| kernel.set_group(path, group))
            .await
    }

    async fn usage(&self, path: &HostPath) -> HostResult<FsUsage> {
        self.step("host.usage", path.as_str(), |kernel| kernel.usage(path))
            .await
    }

    async fn sync(&self, path: &HostPath) -> HostResult<()> {
        self.step("host.sync", path.as_str(), |kernel| kernel.sync(path.as_str()))
            .await
    }
}
