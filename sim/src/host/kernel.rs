//! The kernel of one machine: paths, mounts and mounted file systems, as its processes find them.
//!
//! ```text
//! path ──walk──► spot = (mount, inode) ──► super: a mounted file system ──► device ──► volume
//!                  ▲                          ▲
//!                  └─ each mount covers one spot and shows one directory of a super; a bind shows another directory of the same
//! ```
//!
//! A super lives as long as a mount or a container shows it: only then its data reaches the device and the device can be taken away. Containers
//! see what was mounted when they started (private propagation, the default of Kubernetes): unmounting below a running container succeeds, and
//! the container goes on using the file system.
//!
//! Blind spots: one namespace for kubelet and drivers, without propagation between binds; `.` and `..` in paths lead nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use wavetank_driver::units::FsKind;
use wavetank_driver::{Access, Bytes, DevicePath, HostPath};

use crate::runtime::Time;

use super::cache::Cached;
use super::device::Device;
use super::errno::Errno;
use super::filesystem::{FsImage, Ino, Node, ROOT};
use super::lag::Lag;
use super::pods::Container;
use super::turns::Loss;

/// The size of a node's own disk.
const DISK: Bytes = Bytes::gi(100);
/// Directories that every machine has.
const SKELETON: [&str; 3] = ["/dev", "/tmp", "/var/lib/kubelet"];
/// How many links a path may lead over (Linux: `MAXSYMLINKS`).
const LINKS: usize = 40;

/// The number of a mount; grows with every mount of a boot.
pub(super) type MountId = u64;
/// The number of a mounted file system.
pub(super) type SuperId = u64;

pub(super) const ROOT_MOUNT: MountId = 0;
pub(super) const ROOT_SUPER: SuperId = 0;

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub mount: MountId,
    pub ino: Ino,
}

/// A mounted file system.
#[derive(Debug)]
pub(super) struct Super {
    /// `None` for the machine's own disk.
    pub device: Option<DevicePath>,
    pub cached: Cached,
    pub access: Access,
    /// Its journal met a device that failed: nothing is written any more, and what only memory has is lost.
    pub aborted: bool,
}

/// One mount.
#[derive(Debug)]
pub(super) struct Mount {
    /// The spot that it covers.
    pub parent: MountId,
    pub at: Ino,
    /// What it shows.
    pub sup: SuperId,
    pub root: Ino,
    /// The device, if it shows a device node.
    pub node: Option<DevicePath>,
    pub target: HostPath,
    pub flags: Vec<String>,
    pub access: Access,
}

/// The kernel of one machine, from its first boot on.
#[derive(Debug)]
pub(super) struct Kernel {
    pub boots: u64,
    pub up: bool,
    /// What is on the machine's own disk.
    disk: FsImage,
    pub supers: BTreeMap<SuperId, Super>,
    pub mounts: BTreeMap<MountId, Mount>,
    pub over: BTreeMap<Spot, MountId>,
    pub devices: BTreeMap<DevicePath, Device>,
    pub containers: BTreeMap<String, Container>,
    /// Files that processes of the machine itself hold open.
    pub open: BTreeMap<u64, Spot>,
    next: u64,
    pub lag: Lag,
    /// How many supers are shared with other machines.
    pub shared: usize,
    /// Whether the devices of volumes fail.
    pub failing: bool,
}

impl Kernel {
    /// A machine that has just been installed and booted.
    pub(super) fn new() -> Kernel {
        let disk = FsImage::make(FsKind::Ext4, "root", "root", DISK);
        let disk = disk.expect("the disk is large enough for a file system");
        let mut kernel = Kernel {
            boots: 0,
            up: false,
            disk,
            supers: BTreeMap::new(),
            mounts: BTreeMap::new(),
            over: BTreeMap::new(),
            devices: BTreeMap::new(),
            containers: BTreeMap::new(),
            open: BTreeMap::new(),
            next: 0,
            lag: Lag::default(),
            shared: 0,
            failing: false,
        };
        kernel.boot();
        for path in SKELETON {
            kernel.add_dirs(path).expect("an empty disk has room for its skeleton");
        }
        kernel
    }

    /// Starts with nothing but the disk mounted. A machine that is up stays as it is.
    pub(super) fn boot(&mut self) {
        if self.up {
            return;
        }
        self.up = true;
        self.boots += 1;
        self.next = 1;
        self.supers.insert(
            ROOT_SUPER,
            Super {
                device: None,
                cached: Cached::open(&mut self.disk, 0, true),
                access: Access::ReadWrite,
                aborted: false,
            },
        );
        self.mounts.insert(
            ROOT_MOUNT,
            Mount {
                parent: ROOT_MOUNT,
                at: ROOT,
                sup: ROOT_SUPER,
                root: ROOT,
                node: None,
                target: HostPath::parse("/").expect("the root is a path"),
                flags: Vec::new(),
                access: Access::ReadWrite,
            },
        );
    }

    /// The power fails: everything but what reached the disk and the volumes is gone. `spare` says what is left of so many unsynced writes to the
    /// machine's disk (`/`) or a volume (by its handle).
    pub(super) fn power_loss(&mut self, now: Time, spare: &mut dyn FnMut(&str, usize) -> Loss) {
        self.up = false;
        let dev = self.walk("/dev", true).map(|spot| spot.ino);
        let nodes: Vec<String> = self.devices.keys().map(|path| device_name(path).to_owned()).collect();
        for sup in std::mem::take(&mut self.supers).into_values() {
            let device = sup.device.as_ref();
            let device = device.map(|path| self.devices.get(path).expect("a mounted device is attached"));
            let subject = device.map_or("/", |device| device.volume.as_str());
            let loss = match sup.cached.at_risk(now) {
                0 => Loss::All,
                at_risk => spare(subject, at_risk),
            };
            let Some(device) = device else {
                sup.cached.power_loss(&mut self.disk, now, loss);
                continue;
            };
            // A device that was cut off takes nothing: the writes are lost whatever the power does.
            let _ = device.reach(|volume| {
                if sup.aborted {
                    return Ok(());
                }
                sup.cached.power_loss(volume.fs_mut()?, now, loss);
                Ok(())
            });
        }
        for device in std::mem::take(&mut self.devices).into_values() {
            device.power_loss(now, spare);
        }
        for name in nodes {
            let dev = dev.expect("a machine with devices has their directory");
            self.disk.remove(dev, &name).expect("a device has its node");
        }
        self.mounts.clear();
        self.over.clear();
        self.containers.clear();
        self.open.clear();
        self.lag = Lag::default();
        self.shared = 0;
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn view(&self, mount: MountId) -> &FsImage {
        &self.super_of(mount).cached.view
    }

    pub(super) fn super_of(&self, mount: MountId) -> &Super {
        let sup = self.mounts[&mount].sup;
        self.supers.get(&sup).expect("a mount shows a super that lives")
    }

    pub(super) fn node(&self, spot: Spot) -> Result<&Node, Errno> {
        self.view(spot.mount).node(spot.ino)
    }

    /// The spot that is seen where a spot may be mounted on.
    pub(super) fn cross(&self, mut spot: Spot) -> Spot {
        while let Some(mount) = self.over.get(&spot) {
            spot = Spot {
                mount: *mount,
                ino: self.mounts[mount].root,
            };
        }
        spot
    }

    /// Where a path leads, over links in it, and over one at its end if `follow`.
    pub(super) fn walk(&self, path: &str, follow: bool) -> Result<Spot, Errno> {
        self.walk_links(path, follow, LINKS)
    }

    fn walk_links(&self, path: &str, follow: bool, links: usize) -> Result<Spot, Errno> {
        let mut spot = self.cross(Spot {
            mount: ROOT_MOUNT,
            ino: ROOT,
        });
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let view = self.view(spot.mount);
            let child = view.lookup(spot.ino, name)?;
            if let Node::Link(to) = view.node(child)?
                && (follow || names.peek().is_some())
            {
                let links = links.checked_sub(1).ok_or(Errno::Invalid)?;
                let mut on = if to.starts_with('/') {
                    to.to_string()
                } else {
                    format!("{}/{to}", self.path_of(spot))
                };
                for name in names {
                    on.push('/');
                    on.push_str(name);
                }
                return self.walk_links(&on, follow, links);
            }
            spot = self.cross(Spot {
                mount: spot.mount,
                ino: child,
            });
        }
        Ok(spot)
    }

    /// The path at which a spot is seen.
    fn path_of(&self, spot: Spot) -> String {
        let mount = &self.mounts[&spot.mount];
        let view = self.view(spot.mount);
        let (root, path) = (view.path(mount.root), view.path(spot.ino));
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(&path);
        format!("{}{below}", mount.target.as_str().trim_end_matches('/'))
    }

    /// The directory that holds the last name of a path, and that name.
    fn parent<'p>(&self, path: &'p str) -> Result<(Spot, &'p str), Errno> {
        let (dir, name) = path.trim_end_matches('/').rsplit_once('/').ok_or(Errno::Invalid)?;
        if name.is_empty() || matches!(name, "." | "..") {
            return Err(Errno::Invalid);
        }
        let spot = self.walk(dir, true)?;
        match self.node(spot)? {
            Node::Dir(_) => Ok((spot, name)),
            Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::NotDirectory),
        }
    }

    /// May one write through a mount?
    pub(super) fn access(&self, mount: MountId) -> Access {
        self.mounts[&mount].access.max(self.super_of(mount).access)
    }

    pub(super) fn writable(&self, mount: MountId) -> Result<(), Errno> {
        match self.access(mount) {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Errno::ReadOnly),
        }
    }

    /// Acts on a mounted file system and what lies on its device.
    pub(super) fn on_super<T>(
        &mut self,
        id: SuperId,
        act: impl FnOnce(&mut Cached, &mut FsImage) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let sup = self.supers.get_mut(&id).ok_or(Errno::Io)?;
        match &sup.device {
            None => act(&mut sup.cached, &mut self.disk),
            Some(path) => {
                let device = self.devices.get(path).ok_or(Errno::Io)?;
                if sup.aborted {
                    return Err(Errno::ReadOnly);
                }
                if device.failing {
                    (sup.aborted, sup.access) = (true, Access::ReadOnly);
                }
                device.reach(|volume| act(&mut sup.cached, volume.fs_mut()?))
            }
        }
    }

    /// Sees what other machines did to file systems shared with them. Call it before looking.
    pub(super) fn refresh(&mut self) {
        if self.shared == 0 {
            return;
        }
        for sup in self.supers.values_mut().filter(|sup| sup.cached.view.shared) {
            if let Some(device) = sup.device.as_ref().and_then(|path| self.devices.get(path)) {
                // One that was cut off keeps what it saw last.
                let _ = device.reach(|volume| {
                    sup.cached.refresh(volume.fs()?);
                    Ok(())
                });
            }
        }
    }

    /// Makes an entry; its parent must exist.
    pub(super) fn add(&mut self, path: &str, node: &Node) -> Result<Ino, Errno> {
        if path.trim_matches('/').is_empty() {
            return Err(Errno::Exists);
        }
        let (dir, name) = self.parent(path)?;
        if self.view(dir.mount).lookup(dir.ino, name).is_ok() {
            return Err(Errno::Exists);
        }
        self.writable(dir.mount)?;
        let sup = self.mounts[&dir.mount].sup;
        self.on_super(sup, |cached, durable| {
            cached.change(durable, |image| image.add(dir.ino, name, node.clone()))
        })
    }

    /// `mkdir -p`.
    pub(super) fn add_dirs(&mut self, path: &str) -> Result<(), Errno> {
        match self.walk(path, true) {
            Ok(spot) => match self.node(spot)? {
                Node::Dir(_) => Ok(()),
                Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::Exists),
            },
            Err(Errno::Missing) => {
                let (dir, _) = path.trim_end_matches('/').rsplit_once('/').ok_or(Errno::Invalid)?;
                self.add_dirs(dir)?;
                self.add(path, &Node::dir()).map(drop)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Removes the entry at a path if `allowed` says so of what is there, and it is neither mounted on nor a directory with entries.
    pub(super) fn remove(
        &mut self,
        path: &str,
        allowed: impl FnOnce(&FsImage, Ino) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if path.trim_matches('/').is_empty() {
            return Err(Errno::Busy);
        }
        let (dir, name) = self.parent(path)?;
        // The order of refusals is Linux's.
        self.writable(dir.mount)?;
        let sup = self.mounts[&dir.mount].sup;
        let view = self.view(dir.mount);
        let ino = view.lookup(dir.ino, name)?;
        allowed(view, ino)?;
        if self.is_covered(sup, ino) {
            return Err(Errno::Busy);
        }
        self.on_super(sup, |cached, durable| {
            cached.forget(ino);
            cached.change(durable, |image| image.remove(dir.ino, name))
        })
    }

    /// Is something mounted on this inode, through whichever mount?
    pub(super) fn is_covered(&self, sup: SuperId, ino: Ino) -> bool {
        self.over
            .keys()
            .any(|spot| spot.ino == ino && self.mounts[&spot.mount].sup == sup)
    }
}

/// The name of a device node within its directory.
pub(super) fn device_name(device: &DevicePath) -> &str {
    device.as_str().rsplit('/').next().unwrap_or_default()
}

/// A symbolic link.
pub(super) fn link_to(target: &str) -> Node {
    Node::Link(Arc::from(target))
}
