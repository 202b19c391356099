//! The block devices of one machine: volumes of storage systems, as the kernel knows them.
//!
//! A device belongs to one export of its volume: when the storage system cuts the node off, the device stays but everything sent to it fails, even
//! after the volume is exported to the node again. Only detaching and attaching brings it back to life.
//!
//! An open encryption layer is a device of its own over that of the volume: as large as that was when it was opened, until it is told to grow.
//!
//! A device that fails answers everything with an error until it works again; a file system on it that had to change something takes no more writes until it
//! is mounted anew.
//!
//! Blind spots: a pod that reads from a failing device gets the error at once, although Linux answers from memory what it has there. One kind of device, named after the network block devices of Linux.

use std::collections::BTreeMap;
use std::sync::Arc;

use wavetank_driver::host::{Fsck, LAYER_HEADER, NewFs, Probe};
use wavetank_driver::units::FsKind;
use wavetank_driver::{Access, Bytes, DevicePath, Key, NodeId, PublishContext, VolumeId};

use crate::runtime::Time;

use super::cell::{Cell, Found};
use super::errno::Errno;
use super::filesystem::{FsImage, Node};
use super::kernel::Kernel;
use super::storage::Storage;
use super::turns::Loss;
use super::volume::{Layer, Through, Volume};

/// How many devices a machine can have.
const DEVICES: usize = 256;

/// A volume attached to a machine.
pub(super) struct Device {
    /// Whose volume.
    pub driver: Arc<str>,
    pub storage: Storage,
    pub volume: VolumeId,
    node: NodeId,
    /// The export through which it is reached.
    generation: u64,
    pub access: Access,
    /// As the kernel knows it: the volume may have grown since.
    pub size: Bytes,
    /// The size is that of another device, which was at this path before.
    inherited: bool,
    /// The device under it, if it is the open encryption layer of one.
    pub under: Option<DevicePath>,
    /// It answers everything with an error.
    pub failing: bool,
    /// Blocks written to the bare device that are only in memory.
    dirty: Vec<(Time, u64, Cell)>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("driver", &self.driver)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

/// Which volume a process means: a handle of one driver's storage system, as seen from a node.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub driver: &'a Arc<str>,
    pub storage: &'a Storage,
    pub node: &'a NodeId,
    pub volume: &'a VolumeId,
}

impl Device {
    /// How one looks at the volume through it.
    pub(super) fn through(&self) -> Through {
        match self.under {
            Some(_) => Through::Layer,
            None => Through::Bare,
        }
    }

    /// Reads or writes the volume behind the device.
    pub(super) fn reach<T>(&self, io: impl FnOnce(&mut Volume) -> Result<T, Errno>) -> Result<T, Errno> {
        if self.failing {
            return Err(Errno::Io);
        }
        self.storage.reach(&self.volume, &self.node, self.generation, io)
    }

    fn is(&self, driver: &str, volume: &VolumeId) -> bool {
        &*self.driver == driver && self.volume == *volume
    }

    /// How many blocks written to the bare device are only in memory.
    pub(super) fn unsynced(&self) -> usize {
        self.dirty.len()
    }

    /// Writes a block of the bare device, into memory.
    pub(super) fn write(&mut self, at: Time, block: u64, cell: Cell) -> Result<(), Errno> {
        if block.saturating_add(1).saturating_mul(super::cell::BLOCK) > self.size.0 {
            return Err(Errno::NoSpace);
        }
        self.reach(|_| Ok(()))?;
        self.dirty.push((at, block, cell));
        Ok(())
    }

    /// Everything that a reader of the bare device finds in blocks that were ever written as such.
    pub(super) fn read(&self) -> Result<Vec<Found>, Errno> {
        let found = self.reach(|volume| {
            volume.probe(self.through())?;
            Ok(volume.found(self.through()))
        })?;
        let mut blocks: BTreeMap<u64, Found> = found
            .into_iter()
            .filter(|found| found.file.is_empty())
            .map(|found| (found.block, found))
            .collect();
        for (_, block, cell) in &self.dirty {
            let found = Found {
                file: "".into(),
                block: *block,
                cell: cell.clone(),
            };
            blocks.insert(*block, found);
        }
        Ok(blocks.into_values().collect())
    }

    /// Brings everything to the volume. What cannot arrive is lost.
    pub(super) fn flush(&mut self) -> Result<(), Errno> {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return self.reach(|_| Ok(()));
        }
        let through = self.through();
        self.reach(|volume| {
            dirty
                .into_iter()
                .try_for_each(|(_, block, cell)| volume.write(through, block, cell))
        })
    }

    /// The machine lost its power.
    pub(super) fn power_loss(mut self, now: Time, spare: &mut dyn FnMut(&str, usize) -> Loss) {
        let aged = self
            .dirty
            .partition_point(|(at, _, _)| now.since(*at) >= super::cache::WRITE_BACK);
        let at_risk = self.dirty.len() - aged;
        let loss = if at_risk > 0 {
            spare(self.volume.as_str(), at_risk)
        } else {
            Loss::All
        };
        let (whole, tear) = loss.split(at_risk);
        let torn = self.dirty.get(aged + whole).cloned();
        self.dirty.truncate(aged + whole);
        if let (true, Some((at, block, cell))) = (tear, torn) {
            self.dirty.push((at, block, cell.torn().0));
        }
        // A device that was cut off takes nothing.
        let _ = self.flush();
        self.release();
    }

    /// The machine has it no longer.
    fn release(&self) {
        if self.under.is_some() {
            return;
        }
        self.storage
            .set_in_use(&self.volume, &self.node, self.generation, false);
    }
}

fn behind_header(bare: Bytes) -> Bytes {
    Bytes(bare.0.saturating_sub(LAYER_HEADER.0))
}

impl Kernel {
    /// The devices of volumes fail, those that come later as well, or work again.
    pub(super) fn fail_devices(&mut self, failing: bool) {
        self.failing = failing;
        self.devices.values_mut().for_each(|device| device.failing = failing);
    }

    /// The device as which a volume is attached.
    pub(super) fn attached(&self, driver: &str, volume: &VolumeId) -> Option<&DevicePath> {
        let mut devices = self.devices.iter();
        let found = devices.find(|(_, device)| device.is(driver, volume) && device.under.is_none());
        found.map(|(path, _)| path)
    }

    /// Makes an exported volume appear as a device, and gives what the device's link shows.
    pub(super) fn attach(
        &mut self,
        wanted: Wanted<'_>,
        context: &PublishContext,
        access: Access,
    ) -> Result<DevicePath, Errno> {
        let export = wanted.storage.export_to(wanted.volume, wanted.node);
        let (export, size) = export.ok_or(Errno::Missing)?;
        if export.context != *context {
            return Err(Errno::Missing);
        }
        if export.access == Access::ReadOnly && access == Access::ReadWrite {
            return Err(Errno::ReadOnly);
        }
        if let Some(path) = self.attached(wanted.driver, wanted.volume).cloned() {
            let device = &self.devices[&path];
            if device.generation == export.generation {
                return if device.access == access {
                    Ok(path)
                } else {
                    Err(Errno::Exists)
                };
            }
            // The device is a dead one of an earlier export.
            if self.device_in_use(&path) {
                return Err(Errno::Io);
            }
            self.drop_device(&path);
        }
        let mut names = (0..DEVICES).map(|nth| DevicePath::new(format!("/dev/nbd{nth}")));
        let path = names.find(|path| !self.devices.contains_key(path));
        let path = path.ok_or(Errno::NoSpace)?;
        self.add(path.as_str(), &Node::Device(path.clone()))?;
        let inherited = self.lag.size_at(&path);
        let device = Device {
            driver: Arc::clone(wanted.driver),
            storage: wanted.storage.clone(),
            volume: wanted.volume.clone(),
            node: wanted.node.clone(),
            generation: export.generation,
            access,
            size: inherited.unwrap_or(size),
            inherited: inherited.is_some(),
            under: None,
            failing: self.failing,
            dirty: Vec::new(),
        };
        wanted
            .storage
            .set_in_use(wanted.volume, wanted.node, export.generation, true);
        self.devices.insert(path.clone(), device);
        Ok(self.lag.link(&path))
    }

    /// Takes a volume's device away; what was written to the bare device reaches the volume first.
    pub(super) fn detach(&mut self, driver: &str, volume: &VolumeId) -> Result<(), Errno> {
        let Some(path) = self.attached(driver, volume).cloned() else {
            return Ok(());
        };
        if self.device_in_use(&path) {
            return Err(Errno::Busy);
        }
        self.drop_device(&path);
        Ok(())
    }

    fn drop_device(&mut self, path: &DevicePath) {
        if let Some(mut device) = self.devices.remove(path) {
            // A device that was cut off takes nothing: its last writes are lost.
            let _ = device.flush();
            device.release();
            self.lag.gone(path, device.size);
        }
        self.remove(path.as_str(), |_, _| Ok(()))
            .expect("a device that nobody uses has a node that nothing covers");
    }

    fn device_in_use(&self, path: &DevicePath) -> bool {
        self.is_mounted(path)
            || self.devices.values().any(|device| device.under.as_ref() == Some(path))
            || self.mounts.values().any(|mount| mount.node.as_ref() == Some(path))
            || self.containers.values().any(|container| container.uses_device(path))
            || self.open.values().any(|spot| match self.node(*spot) {
                Ok(Node::Device(device)) => device == path,
                Ok(Node::Dir(_) | Node::File(_) | Node::Link(_)) | Err(_) => false,
            })
    }

    fn is_mounted(&self, path: &DevicePath) -> bool {
        self.supers.values().any(|sup| sup.device.as_ref() == Some(path))
    }

    fn device(&self, path: &DevicePath) -> Result<&Device, Errno> {
        self.devices.get(path).ok_or(Errno::Missing)
    }

    /// The size of a device as the kernel knows it.
    pub(super) fn device_size(&self, path: &DevicePath) -> Result<Bytes, Errno> {
        self.device(path).map(|device| device.size)
    }

    /// Asks the storage system how large a device is now.
    pub(super) fn rescan(&mut self, path: &DevicePath) -> Result<Bytes, Errno> {
        let device = self.devices.get_mut(path).ok_or(Errno::Missing)?;
        let size = match device.under {
            Some(_) => return Err(Errno::Invalid),
            None => device.reach(|volume| Ok(volume.bare_size()))?,
        };
        if !self.lag.sizes || device.inherited {
            (device.size, device.inherited) = (size, false);
        }
        Ok(device.size)
    }

    /// What a device holds.
    pub(super) fn probe(&self, path: &DevicePath) -> Result<Probe, Errno> {
        let device = self.device(path)?;
        let found = device.reach(|volume| volume.probe(device.through()))?;
        if found == Probe::Blank && device.unsynced() > 0 {
            return Ok(Probe::Foreign("data".to_owned()));
        }
        Ok(found)
    }

    /// Makes a file system on a blank device.
    pub(super) fn mkfs(&mut self, path: &DevicePath, new: &NewFs) -> Result<(), Errno> {
        let blank = new.forced || self.probe(path)? == Probe::Blank;
        if self.device_in_use(path) {
            return Err(Errno::Busy);
        }
        if !blank {
            return Err(Errno::Exists);
        }
        let device = self.device(path)?;
        if device.access == Access::ReadOnly {
            return Err(Errno::ReadOnly);
        }
        if new.label.len() > 12 {
            return Err(Errno::Invalid);
        }
        let image = FsImage::make(new.kind, &new.label, &new.uuid, device.size)?;
        device.reach(|volume| {
            volume.format(image);
            Ok(())
        })
    }

    /// Checks an unmounted file system; what a journal can mend is mended.
    pub(super) fn fsck(&mut self, path: &DevicePath, kind: FsKind) -> Result<Fsck, Errno> {
        let device = self.device(path)?;
        if self.is_mounted(path) {
            return Err(Errno::Busy);
        }
        let writable = device.access == Access::ReadWrite;
        device.reach(|volume| {
            let fs = volume.fs_through(device.through())?;
            match (fs.kind == kind, fs.damaged, fs.unclean) {
                (false, ..) => Err(Errno::Invalid),
                (true, true, _) => Err(Errno::Io),
                (true, false, false) => Ok(Fsck::Clean),
                (true, false, true) if !writable => Err(Errno::ReadOnly),
                (true, false, true) => {
                    volume.fs_mut()?.unclean = false;
                    Ok(Fsck::Repaired)
                }
            }
        })
    }

    /// Puts an encryption layer on a blank device.
    pub(super) fn encrypt(&mut self, path: &DevicePath, uuid: &str, key: &Key) -> Result<(), Errno> {
        let blank = self.probe(path)? == Probe::Blank;
        if self.device_in_use(path) {
            return Err(Errno::Busy);
        }
        let device = self.device(path)?;
        if !blank || device.under.is_some() {
            return Err(Errno::Exists);
        }
        if device.access == Access::ReadOnly {
            return Err(Errno::ReadOnly);
        }
        if device.size <= LAYER_HEADER {
            return Err(Errno::NoSpace);
        }
        device.reach(|volume| {
            volume.encrypt(Layer::new(uuid, key));
            Ok(())
        })
    }

    /// The device of a volume's open encryption layer.
    pub(super) fn unlocked(&self, driver: &str, volume: &VolumeId) -> Option<&DevicePath> {
        let mut devices = self.devices.iter();
        let found = devices.find(|(_, device)| device.is(driver, volume) && device.under.is_some());
        found.map(|(path, _)| path)
    }

    /// Opens the encryption layer of an attached volume.
    pub(super) fn unlock(
        &mut self,
        driver: &str,
        volume: &VolumeId,
        key: &Key,
        access: Access,
    ) -> Result<DevicePath, Errno> {
        if let Some(open) = self.unlocked(driver, volume) {
            return if self.devices[open].access == access {
                Ok(open.clone())
            } else {
                Err(Errno::Exists)
            };
        }
        let under = self.attached(driver, volume).cloned().ok_or(Errno::Missing)?;
        let bare = self.device(&under)?;
        if bare.access == Access::ReadOnly && access == Access::ReadWrite {
            return Err(Errno::ReadOnly);
        }
        let layer = bare.reach(|volume| {
            volume.probe(Through::Bare)?;
            volume.content.layer.clone().ok_or(Errno::Invalid)
        })?;
        if !layer.opens_with(key) {
            return Err(Errno::Denied);
        }
        let layer = Device {
            driver: Arc::clone(&bare.driver),
            storage: bare.storage.clone(),
            volume: volume.clone(),
            node: bare.node.clone(),
            generation: bare.generation,
            access,
            size: behind_header(bare.size),
            inherited: false,
            under: Some(under),
            failing: self.failing,
            dirty: Vec::new(),
        };
        let mut names = (0..DEVICES).map(|nth| DevicePath::new(format!("/dev/dm-{nth}")));
        let path = names.find(|path| !self.devices.contains_key(path));
        let path = path.ok_or(Errno::NoSpace)?;
        self.add(path.as_str(), &Node::Device(path.clone()))?;
        self.devices.insert(path.clone(), layer);
        Ok(path)
    }

    /// Tells an open encryption layer how large the device under it is.
    pub(super) fn grow_layer(&mut self, driver: &str, volume: &VolumeId) -> Result<Bytes, Errno> {
        let path = self.unlocked(driver, volume).cloned().ok_or(Errno::Missing)?;
        let under = self.devices[&path].under.clone().ok_or(Errno::Missing)?;
        let size = behind_header(self.device(&under)?.size);
        let layer = self.devices.get_mut(&path).ok_or(Errno::Missing)?;
        layer.size = size;
        Ok(size)
    }

    /// Closes the encryption layer of a volume; what was written through it reaches the volume first.
    pub(super) fn lock(&mut self, driver: &str, volume: &VolumeId) -> Result<(), Errno> {
        let Some(path) = self.unlocked(driver, volume).cloned() else {
            return Ok(());
        };
        if self.device_in_use(&path) {
            return Err(Errno::Busy);
        }
        self.drop_device(&path);
        Ok(())
    }

    /// Every device, by path, with its driver and volume.
    pub(super) fn inventory(&self) -> Vec<(DevicePath, Arc<str>, VolumeId)> {
        let devices = self.devices.iter();
        let entry =
            |(path, device): (&DevicePath, &Device)| (path.clone(), Arc::clone(&device.driver), device.volume.clone());
        devices.map(entry).collect()
    }
}
