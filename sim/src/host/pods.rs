//! What pods do with their volumes: write stamped blocks, read them back, sync.
//!
//! A container sees what was mounted at its volumes' paths when it started, and keeps it in use until it stops. Where nothing was mounted, its
//! writes land on the node's own disk, as in reality: they succeed, and are missing from the volume.
//!
//! Blind spots: writing to a device that was cut off fails at once, although Linux would notice only when it writes the page cache back; a
//! container that starts before its volume's directory exists finds the one that is there when it first writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use wavetank_driver::{Access, DevicePath};

use crate::runtime::Time;

use super::cell::{BLOCK, Backing, Cell, Origin, ReadBack, Stamp};
use super::device::Device;
use super::errno::Errno;
use super::filesystem::{FsImage, Ino, Node};
use super::kernel::{Kernel, SuperId};

/// Where kubelet keeps the directories of pods.
const PODS: &str = "/var/lib/kubelet/pods";

/// A write of consecutive stamped blocks.
#[derive(Clone, Debug)]
pub struct PodWrite {
    /// Who writes; its UID is that of a running pod.
    pub origin: Arc<Origin>,
    /// The volume's path on the node: the directory or device that kubelet hands to the container.
    pub path: String,
    /// The file in the volume; made if missing, with its directories. Not looked at for a raw device.
    pub file: Arc<str>,
    /// The first block.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// The sequence number of the first; the others follow.
    pub sequence: u64,
    /// Syncs afterwards.
    pub sync: bool,
}

/// How far a write got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The blocks that were written, in order.
    pub stamps: Vec<Stamp>,
    /// Whether they were synced.
    pub synced: bool,
    /// Why it went no further.
    pub stopped: Option<PodError>,
}

/// Why a pod cannot write or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum PodError {
    /// ENOSPC.
    #[error("no space left on device")]
    NoSpace,
    /// EIO.
    #[error("input/output error")]
    Io,
    /// EROFS.
    #[error("read-only file system")]
    ReadOnly,
    /// ENOENT.
    #[error("no such file or directory")]
    Missing,
    /// Its containers do not run.
    #[error("the pod does not run")]
    NotRunning,
    /// Its node is down.
    #[error("the node is down")]
    Down,
}

impl From<Errno> for PodError {
    fn from(refusal: Errno) -> PodError {
        match refusal {
            Errno::NoSpace => PodError::NoSpace,
            Errno::ReadOnly => PodError::ReadOnly,
            Errno::Missing | Errno::NotDirectory => PodError::Missing,
            Errno::Exists
            | Errno::Busy
            | Errno::NotEmpty
            | Errno::NotMounted
            | Errno::Invalid
            | Errno::Denied
            | Errno::Io
            | Errno::Unsupported => PodError::Io,
        }
    }
}

/// What a container sees at one of its volumes' paths.
#[derive(Clone, Debug)]
enum Seen {
    Tree { sup: SuperId, ino: Ino, access: Access },
    Device { path: DevicePath, access: Access },
}

/// The running containers of a pod.
#[derive(Debug, Default)]
pub(super) struct Container {
    seen: BTreeMap<String, Seen>,
}

impl Container {
    pub(super) fn uses_super(&self, id: SuperId) -> bool {
        self.seen
            .values()
            .any(|seen| matches!(seen, Seen::Tree { sup, .. } if *sup == id))
    }

    pub(super) fn uses_device(&self, device: &DevicePath) -> bool {
        self.seen
            .values()
            .any(|seen| matches!(seen, Seen::Device { path, .. } if path == device))
    }
}

impl Kernel {
    /// Starts the containers of a pod, which keep what is mounted at its volumes in use. Running already: nothing happens.
    pub(super) fn start_pod(&mut self, uid: &str) {
        if self.containers.contains_key(uid) {
            return;
        }
        let mut seen = BTreeMap::new();
        for path in self.volume_paths(uid) {
            if let Ok(at) = self.see(&path) {
                seen.insert(path, at);
            }
        }
        self.containers.insert(uid.to_owned(), Container { seen });
    }

    /// Stops the containers of a pod; the file systems and devices that only they used are written back.
    pub(super) fn stop_pod(&mut self, uid: &str) {
        let stopped = self.containers.remove(uid);
        for seen in stopped.into_iter().flat_map(|container| container.seen.into_values()) {
            match seen {
                Seen::Tree { sup, .. } => self.release(sup),
                Seen::Device { path, .. } => {
                    if let Some(device) = self.devices.get_mut(&path) {
                        // The last close writes back; a device that was cut off takes nothing.
                        let _ = device.flush();
                    }
                }
            }
        }
    }

    fn names(&self, path: &str) -> Vec<Arc<str>> {
        let node = self.walk(path, true).and_then(|spot| self.node(spot).cloned());
        match node {
            Ok(Node::Dir(entries)) => entries.into_keys().collect(),
            Ok(Node::File(_) | Node::Link(_) | Node::Device(_)) | Err(_) => Vec::new(),
        }
    }

    /// The paths that kubelet hands to the containers of a pod.
    fn volume_paths(&self, uid: &str) -> Vec<String> {
        let mut paths = Vec::new();
        for kind in ["volumes", "volumeDevices"] {
            let kinds = format!("{PODS}/{uid}/{kind}");
            for plugin in self.names(&kinds) {
                let plugin = format!("{kinds}/{plugin}");
                for volume in self.names(&plugin) {
                    let volume = format!("{plugin}/{volume}");
                    let mount = format!("{volume}/mount");
                    let inside = kind == "volumes" && self.walk(&mount, true).is_ok();
                    paths.push(if inside { mount } else { volume });
                }
            }
        }
        paths
    }

    fn see(&self, path: &str) -> Result<Seen, Errno> {
        let spot = self.walk(path, true)?;
        let access = self.access(spot.mount);
        match self.node(spot)? {
            Node::Device(path) => Ok(Seen::Device {
                access: access.max(self.devices.get(path).ok_or(Errno::Io)?.access),
                path: path.clone(),
            }),
            Node::Dir(_) | Node::File(_) | Node::Link(_) => Ok(Seen::Tree {
                sup: self.mounts[&spot.mount].sup,
                ino: spot.ino,
                access,
            }),
        }
    }

    /// What a running pod sees at a path.
    fn seen_by(&self, uid: &str, path: &str) -> Result<Seen, PodError> {
        let container = self.containers.get(uid).ok_or(PodError::NotRunning)?;
        match container.seen.get(path) {
            Some(seen) => Ok(seen.clone()),
            None => Ok(self.see(path)?),
        }
    }

    /// Writes stamped blocks until done or refused.
    pub(super) fn pod_write(&mut self, now: Time, write: &PodWrite) -> Result<Written, PodError> {
        let mut written = Written {
            stamps: Vec::new(),
            synced: false,
            stopped: None,
        };
        let outcome = match self.seen_by(&write.origin.uid, &write.path)? {
            Seen::Tree { access, .. } | Seen::Device { access, .. } if access.is_read_only() => Err(Errno::ReadOnly),
            Seen::Tree { sup, ino, .. } => self.write_file(now, sup, ino, write, &mut written),
            Seen::Device { path, .. } => self.write_device(now, &path, write, &mut written),
        };
        written.stopped = outcome.err().map(PodError::from);
        Ok(written)
    }

    fn write_file(
        &mut self,
        now: Time,
        sup: SuperId,
        below: Ino,
        write: &PodWrite,
        written: &mut Written,
    ) -> Result<(), Errno> {
        self.on_super(sup, |cached, durable| {
            let ino = match find_file(&cached.view, below, &write.file)? {
                Ok(ino) => ino,
                Err((dir, missing)) => cached.change(durable, |image| make_file(image, dir, missing))?,
            };
            let written_now = (0..write.count).try_for_each(|nth| {
                let stamp = write.stamp(nth, &write.file);
                let (block, end) = (stamp.block, (stamp.block + 1) * BLOCK);
                cached.write(now, ino, block, Cell::Stamp(stamp.clone()), end)?;
                written.stamps.push(stamp);
                Ok(())
            });
            if write.sync || cached.view.shared {
                cached.flush(durable);
                written.synced = true;
            }
            written_now
        })
    }

    fn write_device(
        &mut self,
        now: Time,
        path: &DevicePath,
        write: &PodWrite,
        written: &mut Written,
    ) -> Result<(), Errno> {
        let device = self.devices.get_mut(path).ok_or(Errno::Io)?;
        let written_now = (0..write.count).try_for_each(|nth| {
            let stamp = write.stamp(nth, "");
            device.write(now, stamp.block, Cell::Stamp(stamp.clone()))?;
            written.stamps.push(stamp);
            Ok(())
        });
        if write.sync {
            device.flush()?;
            written.synced = true;
        }
        written_now
    }

    /// Everything that a running pod finds at one of its volumes' paths.
    pub(super) fn pod_read(&self, uid: &str, path: &str) -> Result<ReadBack, PodError> {
        let (device, found) = match self.seen_by(uid, path)? {
            Seen::Device { path, .. } => {
                let device = self.devices.get(&path).ok_or(PodError::Io)?;
                (Some(device), device.read()?)
            }
            Seen::Tree { sup, ino, .. } => {
                let sup = self.supers.get(&sup).ok_or(PodError::Io)?;
                let device = sup.device.as_ref().and_then(|path| self.devices.get(path));
                if let Some(device) = device {
                    device.reach(|volume| volume.probe(device.through()).map(drop))?;
                }
                (device, sup.cached.view.blocks_below(ino))
            }
        };
        let on = self.backing(device);
        Ok(ReadBack { on, found })
    }

    /// What a running pod finds at one of its volumes' paths: a volume, or the node's own disk.
    pub(super) fn pod_backing(&self, uid: &str, path: &str) -> Result<Backing, PodError> {
        let device = match self.seen_by(uid, path)? {
            Seen::Device { path, .. } => Some(path),
            Seen::Tree { sup, .. } => self.supers.get(&sup).ok_or(PodError::Io)?.device.clone(),
        };
        Ok(self.backing(device.and_then(|path| self.devices.get(&path))))
    }

    fn backing(&self, device: Option<&Device>) -> Backing {
        device.map_or(Backing::NodeDisk, |device| Backing::Volume {
            driver: Arc::clone(&device.driver),
            id: device.volume.clone(),
        })
    }

    /// Makes what a running pod wrote at one of its volumes' paths durable.
    pub(super) fn pod_sync(&mut self, uid: &str, path: &str) -> Result<(), PodError> {
        match self.seen_by(uid, path)? {
            Seen::Tree { sup, .. } => self.flush_super(sup)?,
            Seen::Device { path, .. } => self.devices.get_mut(&path).ok_or(PodError::Io)?.flush()?,
        }
        Ok(())
    }
}

impl PodWrite {
    fn stamp(&self, nth: u64, file: &str) -> Stamp {
        Stamp {
            origin: Arc::clone(&self.origin),
            file: if file.is_empty() {
                "".into()
            } else {
                Arc::clone(&self.file)
            },
            block: self.first + nth,
            sequence: self.sequence + nth,
        }
    }
}

/// The file at a path below a directory (or the file itself), or the deepest directory on the way to it and what is missing.
fn find_file<'p>(image: &FsImage, below: Ino, path: &'p str) -> Result<Result<Ino, (Ino, &'p str)>, Errno> {
    let mut at = below;
    let mut rest = path.trim_matches('/');
    while let Node::Dir(_) = image.node(at)? {
        let (name, after) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err(Errno::Invalid);
        }
        match image.lookup(at, name) {
            Ok(child) => (at, rest) = (child, after),
            Err(Errno::Missing) => return Ok(Err((at, rest))),
            Err(refusal) => return Err(refusal),
        }
    }
    match image.node(at)? {
        Node::File(_) => Ok(Ok(at)),
        Node::Dir(_) | Node::Link(_) | Node::Device(_) => Err(Errno::Invalid),
    }
}

fn make_file(image: &mut FsImage, dir: Ino, missing: &str) -> Result<Ino, Errno> {
    match missing.split_once('/') {
        None => image.add(dir, missing, Node::file()),
        Some((name, rest)) => {
            let dir = image.add(dir, name, Node::dir())?;
            make_file(image, dir, rest)
        }
    }
}
