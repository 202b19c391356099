//! The machine of one node: what kubelet, pods and the drivers on it share, and what it loses when it crashes.
//!
//! ```text
//! up ──crash──► down ──boot──► up
//!      mounts, devices, containers, unsynced bytes: gone     the disk's tree: kept
//! ```
//!
//! A machine costs nothing until it is touched. Processes reach it by [`Machine::host`] (a driver), [`Machine::perform`] (kubelet) and the calls of
//! pods; the cluster crashes and boots it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use wavetank_driver::host::MountEntry;
use wavetank_driver::{DevicePath, VolumeId};

use crate::link::{MachineAnswer, MachineError, MachineOp, PathKind, RealMachine};
use crate::runtime::Time;

use super::cell::{BLOCK, Backing, Cell, ReadBack};
use super::errno::Errno;
use super::filesystem::Node;
use super::kernel::{Kernel, Spot, link_to};
use super::lag::Lag;
use super::modelled::{HostSeat, ModelHost};
use super::pods::{PodError, PodWrite, Written};
use super::turns::Loss;

/// The machine of one node. A clone is the same machine.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    node: Arc<str>,
    /// Where this is only the name of a machine elsewhere.
    real: Option<Box<dyn RealMachine>>,
    /// `None` until somebody looks.
    kernel: Mutex<Option<Box<Kernel>>>,
}

/// What a machine holds, for oracles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The mount table, oldest first.
    pub mounts: Vec<MountEntry>,
    /// Every attached volume: device, driver, handle.
    pub devices: Vec<(DevicePath, Arc<str>, VolumeId)>,
    /// The UIDs of the pods whose containers run.
    pub pods: Vec<String>,
}

/// A file that a process of the machine holds open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile(u64);

impl Machine {
    /// The machine of a node, installed and up.
    pub fn new(node: impl Into<Arc<str>>) -> Machine {
        Machine(Arc::new(Inner {
            node: node.into(),
            real: None,
            kernel: Mutex::new(None),
        }))
    }

    /// A machine that is not modelled.
    pub fn real(node: impl Into<Arc<str>>, real: Box<dyn RealMachine>) -> Machine {
        Machine(Arc::new(Inner {
            node: node.into(),
            real: Some(real),
            kernel: Mutex::new(None),
        }))
    }

    /// The node's name.
    pub fn node(&self) -> &Arc<str> {
        &self.0.node
    }

    /// Whether it is not modelled.
    pub fn is_real(&self) -> bool {
        self.0.real.is_some()
    }

    /// The machine for one incarnation of a driver's process.
    pub fn host(&self, seat: HostSeat) -> ModelHost {
        ModelHost::new(self.clone(), self.boots(), seat)
    }

    /// Is it up?
    pub fn is_up(&self) -> bool {
        match &self.0.real {
            Some(real) => real.is_up(),
            None => self.peek(true, |kernel| kernel.up),
        }
    }

    /// How often it was booted; 1 for one that never crashed.
    pub fn boots(&self) -> u64 {
        match &self.0.real {
            Some(real) => real.boots(),
            None => self.peek(1, |kernel| kernel.boots),
        }
    }

    /// The power fails, or the kernel panics. `spare` is asked what is left of so many unsynced writes to the machine's own disk (`/`) or to a
    /// volume (its handle), once for each that has any. Freeze the fences of the node's processes before.
    pub fn crash(&self, now: Time, spare: &mut dyn FnMut(&str, usize) -> Loss) {
        if let Some(real) = &self.0.real {
            return real.crash();
        }
        let mut guard = self.lock();
        let kernel = touch(&mut guard);
        if kernel.up {
            kernel.power_loss(now, spare);
        }
    }

    /// A machine that is not modelled writes out what it has in memory before it ends orderly.
    pub fn shut_down(&self) {
        if let Some(real) = &self.0.real {
            real.write_out();
        }
    }

    /// A machine that is not modelled stands still, or goes on. A modelled one stands still when its processes do.
    pub fn pause(&self, still: bool) {
        if let Some(real) = &self.0.real {
            real.pause(still);
        }
    }

    /// The devices of volumes on it answer everything with an error from now on, or work again.
    pub fn fail_devices(&self, failing: bool) {
        match &self.0.real {
            Some(real) => real.fail_devices(failing),
            None => touch(&mut self.lock()).fail_devices(failing),
        }
    }

    /// Starts it again.
    pub fn boot(&self) {
        if let Some(real) = &self.0.real {
            return real.boot();
        }
        touch(&mut self.lock()).boot();
    }

    /// Does one operation of kubelet.
    ///
    /// # Errors
    /// [`MachineError`], as the kernel of a real node would refuse.
    pub fn perform(&self, now: Time, operation: &MachineOp) -> Result<MachineAnswer, MachineError> {
        if let Some(real) = &self.0.real {
            return real.perform(operation);
        }
        let mut guard = self.lock();
        let kernel = touch(&mut guard);
        if !kernel.up {
            return Err(MachineError::Down);
        }
        kernel.refresh();
        perform(kernel, now, operation)
    }

    /// A pod writes to one of its volumes.
    ///
    /// # Errors
    /// [`PodError`] if nothing can be written at all; a write that got somewhere reports in [`Written::stopped`] why it went no further.
    pub fn pod_write(&self, now: Time, write: &PodWrite) -> Result<Written, PodError> {
        match &self.0.real {
            Some(real) => real.pod_write(write),
            None => self.for_pod(|kernel| kernel.pod_write(now, write)),
        }
    }

    /// A pod reads everything in one of its volumes. `path` is the volume's path on the node.
    ///
    /// # Errors
    /// [`PodError`].
    pub fn pod_read(&self, uid: &str, path: &str) -> Result<ReadBack, PodError> {
        match &self.0.real {
            Some(real) => real.pod_read(uid, path),
            None => self.for_pod(|kernel| kernel.pod_read(uid, path)),
        }
    }

    /// What a pod finds at one of its volumes' paths.
    ///
    /// # Errors
    /// [`PodError`].
    pub fn pod_backing(&self, uid: &str, path: &str) -> Result<Backing, PodError> {
        match &self.0.real {
            Some(real) => Ok(real.pod_read(uid, path)?.on),
            None => self.for_pod(|kernel| kernel.pod_backing(uid, path)),
        }
    }

    /// A pod syncs one of its volumes.
    ///
    /// # Errors
    /// [`PodError`]; after it, what was written before may or may not be there.
    pub fn pod_sync(&self, uid: &str, path: &str) -> Result<(), PodError> {
        match &self.0.real {
            Some(real) => real.pod_sync(uid, path),
            None => self.for_pod(|kernel| kernel.pod_sync(uid, path)),
        }
    }

    fn for_pod<T>(&self, act: impl FnOnce(&mut Kernel) -> Result<T, PodError>) -> Result<T, PodError> {
        let mut guard = self.lock();
        let kernel = touch(&mut guard);
        if !kernel.up {
            return Err(PodError::Down);
        }
        kernel.refresh();
        act(kernel)
    }

    /// A process of the machine itself opens a file or directory: what it lies on cannot be unmounted until it is released or the machine crashes.
    ///
    /// # Errors
    /// [`Errno::Missing`] if it is not there, [`Errno::Io`] if the machine is down.
    pub fn hold_open(&self, path: &str) -> Result<OpenFile, Errno> {
        let mut guard = self.lock();
        let kernel = touch(&mut guard);
        if !kernel.up {
            return Err(Errno::Io);
        }
        let spot = kernel.walk(path, true)?;
        let id = kernel.fresh_id();
        kernel.open.insert(id, spot);
        Ok(OpenFile(id))
    }

    /// Closes a file that was held open.
    pub fn release(&self, file: OpenFile) {
        self.peek((), |kernel| {
            kernel.open.remove(&file.0);
        });
    }

    /// How many bytes the file system behind a path offers in all, on a machine that is not modelled. For oracles.
    pub fn room(&self, path: &str) -> Option<u64> {
        self.0.real.as_ref()?.room(path)
    }

    /// What it holds, for oracles.
    pub fn inventory(&self) -> Inventory {
        if let Some(real) = &self.0.real {
            return real.inventory();
        }
        self.peek(Inventory::default(), |kernel| Inventory {
            mounts: kernel.table(),
            devices: kernel.inventory(),
            pods: kernel.containers.keys().cloned().collect(),
        })
    }

    /// The records that kubelet keeps of what it has staged, where drivers stage.
    pub fn staging_records(&self) -> Vec<String> {
        let staged = self
            .paths_below("/var/lib/kubelet/plugins/kubernetes.io/csi")
            .into_iter();
        let records = staged.filter(|(path, _)| path.ends_with("/vol_data.json"));
        records.map(|(path, _)| path).collect()
    }

    /// Everything below a directory of the machine, mounts included, in order of path. For oracles.
    pub fn paths_below(&self, path: &str) -> Vec<(String, PathKind)> {
        if let Some(real) = &self.0.real {
            return real.paths_below(path);
        }
        self.peek(Vec::new(), |kernel| {
            let mut found = Vec::new();
            if kernel.up
                && let Ok(spot) = kernel.walk(path, true)
            {
                list(kernel, path.trim_end_matches('/'), spot, &mut found);
            }
            found
        })
    }

    /// Acts on the kernel as a process that was started in boot `boots`; `None` if the machine crashed since.
    pub(super) fn as_of<T>(&self, boots: u64, act: impl FnOnce(&mut Kernel) -> T) -> Option<T> {
        let mut guard = self.lock();
        let kernel = touch(&mut guard);
        if !kernel.up || kernel.boots != boots {
            return None;
        }
        kernel.refresh();
        Some(act(kernel))
    }

    /// Changes what it is late to notice. One that is not modelled is as late as it is.
    pub(super) fn with_lag(&self, change: impl FnOnce(&mut Lag)) {
        if self.0.real.is_none() {
            change(&mut touch(&mut self.lock()).lag);
        }
    }

    /// Looks without touching: `untouched` if nobody has used the machine yet.
    fn peek<T>(&self, untouched: T, look: impl FnOnce(&mut Kernel) -> T) -> T {
        match self.lock().as_deref_mut() {
            Some(kernel) => look(kernel),
            None => untouched,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Kernel>>> {
        self.0.kernel.lock().expect("no operation on a machine panics")
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Machine").field(&self.0.node).finish()
    }
}

fn touch(kernel: &mut Option<Box<Kernel>>) -> &mut Kernel {
    kernel.get_or_insert_with(|| Box::new(Kernel::new()))
}

fn perform(kernel: &mut Kernel, now: Time, operation: &MachineOp) -> Result<MachineAnswer, MachineError> {
    let done = |outcome: Result<(), Errno>, path: &str| match outcome {
        Ok(()) => Ok(MachineAnswer::Done),
        Err(refusal) => Err(refusal.on_machine(path)),
    };
    match operation {
        MachineOp::MakeDirs(path) => done(kernel.add_dirs(path), path),
        MachineOp::RemoveDir(path) => done(remove_dir(kernel, path), path),
        MachineOp::RemoveFile(path) => done(remove_file(kernel, path), path),
        MachineOp::RemoveAll(path) => done(remove_all(kernel, path), path),
        MachineOp::WriteFile(path, bytes) => done(write_file(kernel, now, path, bytes), path),
        MachineOp::ReadFile(path) => match read_file(kernel, path) {
            Ok(bytes) => Ok(MachineAnswer::Bytes(bytes)),
            Err(refusal) => Err(refusal.on_machine(path)),
        },
        MachineOp::Stat(path) => match stat(kernel, path) {
            Ok(kind) => Ok(MachineAnswer::Path(kind)),
            Err(refusal) => Err(refusal.on_machine(path)),
        },
        MachineOp::ListDir(path) => match list_dir(kernel, path) {
            Ok(names) => Ok(MachineAnswer::Names(names)),
            Err(refusal) => Err(refusal.on_machine(path)),
        },
        MachineOp::Mounts => Ok(MachineAnswer::Mounts(mounts(kernel))),
        MachineOp::Link { to, at } => done(link(kernel, to, at), at),
        MachineOp::StartPod(uid) => {
            kernel.start_pod(uid);
            Ok(MachineAnswer::Done)
        }
        MachineOp::StopPod { uid, .. } => {
            kernel.stop_pod(uid);
            Ok(MachineAnswer::Done)
        }
        MachineOp::RunningPods => Ok(MachineAnswer::Names(kernel.containers.keys().cloned().collect())),
    }
}

fn remove_dir(kernel: &mut Kernel, path: &str) -> Result<(), Errno> {
    kernel.remove(path, |image, ino| match image.node(ino)? {
        Node::Dir(_) => Ok(()),
        Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::NotDirectory),
    })
}

fn remove_file(kernel: &mut Kernel, path: &str) -> Result<(), Errno> {
    let removed = kernel.remove(path, |image, ino| match image.node(ino)? {
        Node::Dir(_) => Err(Errno::Busy),
        Node::File(_) | Node::Link(_) | Node::Device(_) => Ok(()),
    });
    missing_is_fine(removed)
}

fn missing_is_fine(outcome: Result<(), Errno>) -> Result<(), Errno> {
    match outcome {
        Err(Errno::Missing) => Ok(()),
        other => other,
    }
}

/// Removes what it can, and reports the first mount point that stopped it.
fn remove_all(kernel: &mut Kernel, path: &str) -> Result<(), Errno> {
    let spot = match kernel.walk(path, false) {
        Ok(spot) => spot,
        Err(refusal) => return missing_is_fine(Err(refusal)),
    };
    let mut blocked = Ok(());
    if !kernel.is_mount_root(spot)
        && let Node::Dir(entries) = kernel.node(spot)?
    {
        let names: Vec<Arc<str>> = entries.keys().cloned().collect();
        for name in names {
            let removed = remove_all(kernel, &format!("{}/{name}", path.trim_end_matches('/')));
            blocked = blocked.and(removed);
        }
    }
    blocked?;
    kernel.remove(path, |_, _| Ok(()))
}

fn write_file(kernel: &mut Kernel, now: Time, path: &str, bytes: &[u8]) -> Result<(), Errno> {
    match kernel.add(path, &Node::file()) {
        Ok(_) | Err(Errno::Exists) => {}
        Err(refusal) => return Err(refusal),
    }
    let spot = kernel.walk(path, true)?;
    kernel.writable(spot.mount)?;
    let sup = kernel.mounts[&spot.mount].sup;
    kernel.on_super(sup, |cached, durable| {
        cached.truncate(durable, spot.ino)?;
        let mut end = 0;
        for (block, part) in (0..).zip(bytes.chunks(BLOCK as usize)) {
            end += part.len() as u64;
            cached.write(now, spot.ino, block, Cell::Bytes(part.into()), end)?;
        }
        if cached.view.shared {
            cached.flush(durable);
        }
        Ok(())
    })
}

fn read_file(kernel: &Kernel, path: &str) -> Result<Vec<u8>, Errno> {
    let spot = kernel.walk(path, true)?;
    kernel.view(spot.mount).read_bytes(spot.ino)
}

fn stat(kernel: &Kernel, path: &str) -> Result<PathKind, Errno> {
    match kernel.walk(path, false) {
        Ok(spot) => kind(kernel, spot),
        Err(Errno::Missing | Errno::NotDirectory) => Ok(PathKind::Missing),
        Err(refusal) => Err(refusal),
    }
}

fn kind(kernel: &Kernel, spot: Spot) -> Result<PathKind, Errno> {
    Ok(match kernel.node(spot)? {
        Node::Device(_) => PathKind::Device,
        _ if kernel.is_mount_root(spot) => PathKind::MountPoint,
        Node::Dir(_) => PathKind::Directory,
        Node::File(_) => PathKind::File,
        Node::Link(_) => PathKind::Link,
    })
}

fn list_dir(kernel: &Kernel, path: &str) -> Result<Vec<String>, Errno> {
    match kernel.node(kernel.walk(path, true)?)? {
        Node::Dir(entries) => Ok(entries.keys().map(ToString::to_string).collect()),
        Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::NotDirectory),
    }
}

fn mounts(kernel: &Kernel) -> BTreeMap<String, String> {
    let table = kernel.table();
    table
        .iter()
        .map(|entry| (entry.target.to_string(), entry.shown()))
        .collect()
}

fn link(kernel: &mut Kernel, to: &str, at: &str) -> Result<(), Errno> {
    match kernel.add(at, &link_to(to)) {
        Err(Errno::Exists) => match kernel.node(kernel.walk(at, false)?)? {
            Node::Link(there) if **there == *to => Ok(()),
            Node::Dir(_) | Node::File(_) | Node::Link(_) | Node::Device(_) => Err(Errno::Exists),
        },
        other => other.map(drop),
    }
}

fn list(kernel: &Kernel, path: &str, spot: Spot, found: &mut Vec<(String, PathKind)>) {
    if let Ok(Node::Dir(entries)) = kernel.node(spot) {
        for (name, child) in entries {
            let path = format!("{path}/{name}");
            let at = kernel.cross(Spot {
                mount: spot.mount,
                ino: *child,
            });
            if let Ok(kind) = kind(kernel, at) {
                found.push((path.clone(), kind));
            }
            list(kernel, &path, at, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, MachineOp, Time};

    #[test]
    fn a_machine_costs_nothing_until_touched() {
        let machine = Machine::new("n");
        assert!(machine.is_up() && machine.inventory().mounts.is_empty());
        assert!(machine.lock().is_none(), "looking is not touching");
        let make = MachineOp::MakeDirs("/x".into());
        machine.perform(Time::ZERO, &make).unwrap();
        assert!(machine.lock().is_some());
    }
}
