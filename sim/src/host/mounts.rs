//! Mounting, binding and unmounting, and what holds a mount or a file system in use.
//!
//! See [`super::kernel`] for how mounts, file systems and devices hang together.

use wavetank_driver::host::{FsUsage, Mount as NewMount, MountEntry, MountSource};
use wavetank_driver::{Access, Bytes, DevicePath, HostPath};

use super::cache::Cached;
use super::errno::Errno;
use super::filesystem::{Node, ROOT};
use super::flags;
use super::kernel::{Kernel, Mount, MountId, ROOT_MOUNT, ROOT_SUPER, Spot, Super, SuperId, device_name};

impl Kernel {
    /// Does a mount end exactly here?
    pub(super) fn is_mount_root(&self, spot: Spot) -> bool {
        spot.mount != ROOT_MOUNT && self.mounts[&spot.mount].root == spot.ino
    }

    /// The mount whose top is at exactly this path.
    pub(super) fn mounted_at(&self, target: &str) -> Result<MountId, Errno> {
        let spot = self.walk(target, true).map_err(|_| Errno::NotMounted)?;
        if self.is_mount_root(spot) {
            Ok(spot.mount)
        } else {
            Err(Errno::NotMounted)
        }
    }

    /// Where something is to be mounted: there, and not a mount point yet.
    fn free_target(&self, target: &HostPath) -> Result<Spot, Errno> {
        let spot = self.walk(target.as_str(), true)?;
        if self.is_mount_root(spot) || spot.ino == ROOT && spot.mount == ROOT_MOUNT {
            return Err(Errno::Busy);
        }
        Ok(spot)
    }

    fn free_dir(&self, target: &HostPath) -> Result<Spot, Errno> {
        let spot = self.free_target(target)?;
        match self.node(spot)? {
            Node::Dir(_) => Ok(spot),
            Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::NotDirectory),
        }
    }

    fn cover(&mut self, at: Spot, mount: Mount) {
        let id = self.fresh_id();
        self.over.insert(at, id);
        self.mounts.insert(id, mount);
    }

    /// Mounts the file system on a device.
    pub(super) fn mount(&mut self, new: &NewMount) -> Result<(), Errno> {
        let at = self.free_dir(&new.target)?;
        flags::check(new.kind, &new.flags)?;
        let device = self.devices.get(&new.device).ok_or(Errno::Missing)?;
        if device.access == Access::ReadOnly && new.access == Access::ReadWrite {
            return Err(Errno::ReadOnly);
        }
        let mounted = self
            .supers
            .iter()
            .find(|(_, sup)| sup.device.as_ref() == Some(&new.device));
        let sup = match mounted {
            Some((_, sup)) if sup.cached.view.kind != new.kind => return Err(Errno::Invalid),
            Some((_, sup)) if sup.access != new.access => return Err(Errno::Busy),
            Some((id, _)) => *id,
            None => self.open_super(new)?,
        };
        let mount = Mount {
            parent: at.mount,
            at: at.ino,
            sup,
            root: ROOT,
            node: None,
            target: new.target.clone(),
            flags: new.flags.clone(),
            access: new.access,
        };
        self.cover(at, mount);
        Ok(())
    }

    fn open_super(&mut self, new: &NewMount) -> Result<SuperId, Errno> {
        let device = self.devices.get(&new.device).ok_or(Errno::Missing)?;
        let number = device.storage.mount_number();
        let (size, read_only) = (device.size, device.access == Access::ReadOnly);
        let through = device.through();
        let twins = self.supers.values();
        let twins: Vec<&str> = twins.map(|sup| sup.cached.view.uuid.as_str()).collect();
        let cached = device.reach(|volume| {
            let fs = volume.fs_through(through)?;
            if fs.kind != new.kind {
                return Err(Errno::Invalid);
            }
            if fs.damaged || fs.size > size {
                return Err(Errno::Io);
            }
            if fs.unclean && read_only && !flags::skips_recovery(&new.flags) {
                return Err(Errno::ReadOnly);
            }
            if flags::minds_twins(fs.kind, &new.flags) && twins.contains(&fs.uuid.as_str()) {
                return Err(Errno::Invalid);
            }
            if read_only {
                return Ok(Cached::open(&mut fs.clone(), number, false));
            }
            let fs = volume.fs_mut()?;
            // The journal is replayed.
            fs.unclean = false;
            Ok(Cached::open(fs, number, new.access == Access::ReadWrite))
        })?;
        let id = self.fresh_id();
        self.shared += usize::from(cached.view.shared);
        self.supers.insert(
            id,
            Super {
                device: Some(new.device.clone()),
                cached,
                access: new.access,
                aborted: false,
            },
        );
        Ok(id)
    }

    /// Shows a directory at another one.
    pub(super) fn bind(&mut self, source: &HostPath, target: &HostPath, access: Access) -> Result<(), Errno> {
        let from = self.walk(source.as_str(), true)?;
        let Node::Dir(_) = self.node(from)? else {
            return Err(Errno::NotDirectory);
        };
        let at = self.free_dir(target)?;
        let shown = &self.mounts[&from.mount];
        let mount = Mount {
            parent: at.mount,
            at: at.ino,
            sup: shown.sup,
            root: from.ino,
            node: None,
            target: target.clone(),
            flags: shown.flags.clone(),
            access: access.max(shown.access),
        };
        self.cover(at, mount);
        Ok(())
    }

    /// Shows a device node at a file.
    pub(super) fn bind_device(&mut self, device: &DevicePath, target: &HostPath, access: Access) -> Result<(), Errno> {
        let attached = self.devices.get(device).ok_or(Errno::Missing)?;
        let access = access.max(attached.access);
        let from = self.walk(device.as_str(), true)?;
        let at = self.free_target(target)?;
        let Node::File(_) = self.node(at)? else {
            return Err(Errno::Invalid);
        };
        let mount = Mount {
            parent: at.mount,
            at: at.ino,
            sup: ROOT_SUPER,
            root: from.ino,
            node: Some(device.clone()),
            target: target.clone(),
            flags: Vec::new(),
            access,
        };
        self.cover(at, mount);
        Ok(())
    }

    /// Takes the topmost mount at a path away.
    pub(super) fn unmount(&mut self, target: &HostPath) -> Result<(), Errno> {
        let id = self.mounted_at(target.as_str())?;
        let below = self.over.keys().any(|spot| spot.mount == id);
        if below || self.open.values().any(|spot| spot.mount == id) {
            return Err(Errno::Busy);
        }
        if let Some(mount) = self.mounts.remove(&id) {
            self.over.remove(&Spot {
                mount: mount.parent,
                ino: mount.at,
            });
            self.release(mount.sup);
        }
        Ok(())
    }

    /// Ends a super that nothing shows any more.
    pub(super) fn release(&mut self, id: SuperId) {
        let shown = id == ROOT_SUPER
            || self.mounts.values().any(|mount| mount.sup == id)
            || self.containers.values().any(|container| container.uses_super(id));
        if shown {
            return;
        }
        // As on Linux, an unmount succeeds although the device takes the last writes no more: they are lost.
        let _ = self.on_super(id, |cached, durable| {
            cached.close(durable);
            Ok(())
        });
        if let Some(sup) = self.supers.remove(&id) {
            self.shared -= usize::from(sup.cached.view.shared);
        }
    }

    /// The mount table without the machine's own disk, oldest first.
    pub(super) fn table(&self) -> Vec<MountEntry> {
        let mounts = self.mounts.iter().filter(|(id, _)| **id != ROOT_MOUNT);
        mounts.map(|(id, mount)| self.entry(*id, mount)).collect()
    }

    /// Of the table, the last mount at exactly this path.
    pub(super) fn visible_at(&self, target: &HostPath) -> Option<MountEntry> {
        let mut mounts = self.mounts.iter().rev().filter(|(id, _)| **id != ROOT_MOUNT);
        let (id, mount) = mounts.find(|(_, mount)| mount.target == *target)?;
        Some(self.entry(*id, mount))
    }

    fn entry(&self, id: MountId, mount: &Mount) -> MountEntry {
        let view = self.view(id);
        let (source, root, fs) = match (&mount.node, &self.super_of(id).device) {
            (Some(device), _) => {
                let name = device_name(device);
                (MountSource::Device(device.clone()), format!("/{name}"), "devtmpfs")
            }
            (None, Some(device)) => {
                let kind = view.kind.as_str();
                (MountSource::FileSystem(device.clone()), view.path(mount.root), kind)
            }
            (None, None) => {
                let source = MountSource::Other("rootfs".to_owned());
                (source, view.path(mount.root), view.kind.as_str())
            }
        };
        MountEntry {
            source,
            root,
            target: mount.target.clone(),
            fs: fs.to_owned(),
            flags: mount.flags.clone(),
            access: self.access(id),
        }
    }

    /// Grows the file system mounted at a path to the size of its device.
    pub(super) fn grow_fs(&mut self, target: &HostPath) -> Result<Bytes, Errno> {
        let id = self.mounted_at(target.as_str())?;
        let mount = &self.mounts[&id];
        let sup = mount.sup;
        if mount.node.is_some() {
            return Err(Errno::NotMounted);
        }
        self.writable(id)?;
        let device = self.super_of(id).device.as_ref().ok_or(Errno::Unsupported)?;
        let size = self.devices.get(device).ok_or(Errno::Io)?.size;
        self.on_super(sup, |cached, durable| {
            cached.change(durable, |image| {
                image.grow(size);
                Ok(image.size)
            })
        })
    }

    /// Gives the file system mounted at a path to a group.
    pub(super) fn set_group(&mut self, target: &HostPath, group: u32) -> Result<(), Errno> {
        let id = self.mounted_at(target.as_str())?;
        let Mount { sup, node, .. } = &self.mounts[&id];
        if node.is_some() {
            return Err(Errno::Invalid);
        }
        let sup = *sup;
        self.writable(id)?;
        self.on_super(sup, |cached, durable| {
            cached.change(durable, |image| {
                image.group = Some(group);
                Ok(())
            })
        })
    }

    /// Room and inodes of the file system at a path.
    pub(super) fn usage(&self, path: &HostPath) -> Result<FsUsage, Errno> {
        let spot = self.walk(path.as_str(), true)?;
        let view = self.view(spot.mount);
        let (total, used) = view.room();
        let (inodes, inodes_used) = view.inode_counts();
        Ok(FsUsage {
            total,
            used,
            available: Bytes(total.0 - used.0),
            inodes,
            inodes_used,
            inodes_free: inodes.saturating_sub(inodes_used),
        })
    }

    /// Makes what was written to the file system or device at a path durable.
    pub(super) fn sync(&mut self, path: &str) -> Result<(), Errno> {
        let spot = self.walk(path, true)?;
        if let Node::Device(device) = self.node(spot)? {
            let device = device.clone();
            return self.devices.get_mut(&device).ok_or(Errno::Io)?.flush();
        }
        self.flush_super(self.mounts[&spot.mount].sup)
    }

    pub(super) fn flush_super(&mut self, sup: SuperId) -> Result<(), Errno> {
        self.on_super(sup, |cached, durable| {
            cached.flush(durable);
            Ok(())
        })
    }
}
