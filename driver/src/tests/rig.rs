//! The fake world: one pool, one machine, one disk, and lives of the driver's process in it.
//!
//! Every operation is counted and can be made to fail, to hang, or to be the one at which the process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::disk::{FakeDisk, Platter};
use crate::config::Config;
use crate::host::{
    FsUsage, Fsck, Host, HostError, HostErrorKind, HostResult, Mount, MountEntry, MountSource, NewFs, PathKind, Probe,
};
use crate::pool::{Extent, PoolError, PoolErrorKind, PoolResult, PoolSnapshot, PoolVolume};
use crate::quirk::Quirk;
use crate::runtime::{Disk, Runtime};
use crate::seat::{Driver, NodeSeat, Seat};
use crate::units::{
    Access, Bytes, DevicePath, FsKind, HostPath, NodeId, PublishContext, Segments, SnapshotId, VolumeId,
};

/// The process dies before the n-th operation takes effect, which is the same as after the one before it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crash(pub(super) u64);

/// Is the process alive once an operation is over?
#[derive(Debug, PartialEq, Eq)]
pub(super) enum When {
    Alive,
    Dead,
}

#[derive(Debug, Default)]
struct Fate {
    /// The life that is not fenced.
    alive: u64,
    steps: u64,
    names: Vec<String>,
    crash: Option<Crash>,
    /// Operations that fail once, by name.
    failing: BTreeMap<String, Trouble>,
    /// Operations that wait, by name.
    hanging: BTreeMap<String, Arc<Notify>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Host(HostErrorKind),
    Pool(PoolErrorKind),
}

/// One life of the process.
#[derive(Clone, Debug)]
pub(super) struct Life {
    number: u64,
    fate: Arc<Mutex<Fate>>,
}

impl Life {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let fate = self.fate.lock().unwrap();
        if fate.alive == self.number {
            Ok(())
        } else {
            Err("the process is dead")
        }
    }

    /// Counts an operation and lets it take effect, unless the process is dead or dies just then.
    pub(super) fn step(&self, name: &str, effect: impl FnOnce()) -> When {
        let dies = {
            let mut fate = self.fate.lock().unwrap();
            if fate.alive != self.number {
                return When::Dead;
            }
            fate.steps += 1;
            fate.names.push(name.to_owned());
            fate.crash == Some(Crash(fate.steps))
        };
        if dies {
            self.fate.lock().unwrap().alive = 0;
            return When::Dead;
        }
        effect();
        When::Alive
    }

    /// Waits if the operation is told to, and says how it is told to fail.
    pub(super) async fn trouble(&self, name: &str) -> Option<Trouble> {
        let gate = self.fate.lock().unwrap().hanging.get(name).cloned();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        self.fate.lock().unwrap().failing.remove(name)
    }
}

/// A volume of the fake pool; what it holds is what a probe of it would say.
#[derive(Clone, Debug)]
pub(super) struct FakeVolume {
    pub(super) known: PoolVolume,
    pub(super) holds: Probe,
    pub(super) settings: BTreeMap<String, String>,
}

/// A snapshot of the fake pool, with what the volume held.
#[derive(Clone, Debug)]
pub(super) struct FakeSnapshot {
    pub(super) known: PoolSnapshot,
    pub(super) holds: Probe,
    pub(super) extents: Vec<Extent>,
}

/// Everything outside the process.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) volumes: BTreeMap<VolumeId, FakeVolume>,
    pub(super) snapshots: BTreeMap<SnapshotId, FakeSnapshot>,
    /// Snapshots are not ready at once.
    pub(super) slow_cuts: bool,
    /// Whole cuts, each of one snapshot or several.
    pub(super) cuts: u64,
    /// Room by zone.
    pub(super) room: BTreeMap<Segments, u64>,
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) paths: BTreeMap<HostPath, PathKind>,
    pub(super) mounts: Vec<MountEntry>,
    /// Volume → device, its size as the machine knows it, access.
    pub(super) devices: BTreeMap<VolumeId, (DevicePath, Bytes, Access)>,
    /// Mount points with open files.
    pub(super) open: BTreeSet<HostPath>,
    pub(super) formatted: u32,
}

/// The rig: the world, and what it takes to start the driver in it.
pub(super) struct Rig {
    pub(super) config: Config,
    /// The mistake that the driver makes.
    pub(super) quirk: Option<Quirk>,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) platter: Arc<Mutex<Platter>>,
    fate: Arc<Mutex<Fate>>,
    lives: u64,
}

pub(super) fn path(text: &str) -> HostPath {
    HostPath::parse(text).unwrap()
}

pub(super) fn zone(name: &str) -> Segments {
    Segments::from([("zone".to_owned(), name.to_owned())])
}

impl Rig {
    pub(super) fn new(config: Config) -> Self {
        let mut world = World {
            room: [(zone("a"), Bytes::TI.0), (zone("b"), Bytes::TI.0)].into(),
            nodes: ["n1", "n2"].into_iter().map(NodeId::from).collect(),
            ..World::default()
        };
        for directory in [
            "/",
            "/var",
            "/var/lib",
            "/var/lib/kubelet",
            "/var/lib/kubelet/stage",
            "/var/lib/kubelet/pods",
        ] {
            world.paths.insert(path(directory), PathKind::Directory);
        }
        Self {
            config,
            world: Arc::new(Mutex::new(world)),
            platter: Arc::default(),
            fate: Arc::default(),
            lives: 0,
            quirk: None,
        }
    }

    /// Starts the driver with both roles, as the next life of its process.
    pub(super) async fn start(&mut self) -> Driver {
        self.try_start().await.unwrap()
    }

    pub(super) async fn try_start(&mut self) -> Result<Driver, crate::seat::OpenError> {
        self.lives += 1;
        self.fate.lock().unwrap().alive = self.lives;
        let life = Life {
            number: self.lives,
            fate: Arc::clone(&self.fate),
        };
        let disk = FakeDisk {
            platter: Arc::clone(&self.platter),
            life: life.clone(),
        };
        let outside = Outside {
            life,
            world: Arc::clone(&self.world),
        };
        let seat = Seat {
            runtime: Arc::new(TestRuntime),
            pool: Arc::new(outside.clone()),
            disk: Disk::new(disk),
            controller: true,
            node: Some(NodeSeat {
                id: "n1".into(),
                segments: zone("a"),
                host: Arc::new(outside),
            }),
            quirk: self.quirk,
        };
        Driver::open(self.config.clone(), seat).await
    }

    /// Kills the process: nothing it still asks happens, and what it did not sync is lost.
    pub(super) fn kill(&mut self) {
        self.fate.lock().unwrap().alive = 0;
        self.platter.lock().unwrap().power_cut();
    }

    /// Cuts the machine's power: mounts and devices are gone as well.
    pub(super) fn power_cut(&mut self) {
        self.kill();
        let mut world = self.world.lock().unwrap();
        world.mounts.clear();
        world.devices.clear();
        world.open.clear();
    }

    pub(super) fn crash_at(&self, crash: Option<Crash>) {
        let mut fate = self.fate.lock().unwrap();
        fate.crash = crash;
        fate.steps = 0;
        fate.names.clear();
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.fate.lock().unwrap().alive == 0
    }

    pub(super) fn steps(&self) -> Vec<String> {
        self.fate.lock().unwrap().names.clone()
    }

    /// Makes the next operation of that name fail.
    pub(super) fn fail(&self, name: &str, trouble: Trouble) {
        self.fate.lock().unwrap().failing.insert(name.to_owned(), trouble);
    }

    /// Makes operations of that name wait until the handle is notified.
    pub(super) fn hang(&self, name: &str) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.fate
            .lock()
            .unwrap()
            .hanging
            .insert(name.to_owned(), Arc::clone(&gate));
        gate
    }

    /// Lets operations of that name through again, also the one that waits.
    pub(super) fn release(&self, name: &str) {
        if let Some(gate) = self.fate.lock().unwrap().hanging.remove(name) {
            gate.notify_waiters();
        }
    }

    /// Switches whether everything that changes the ledger's disk fails.
    pub(super) fn disk_fails(&self, fails: bool) {
        self.platter.lock().unwrap().fails = fails;
    }

    /// Makes one operation that changes the ledger's disk fail.
    pub(super) fn disk_fails_at(&self, nth: u64) {
        self.platter.lock().unwrap().fails_at = Some(nth);
    }

    pub(super) fn disk_operations(&self) -> u64 {
        self.platter.lock().unwrap().operations
    }

    pub(super) fn syncs(&self) -> u64 {
        self.platter.lock().unwrap().syncs
    }

    /// What a full teardown must not leave behind.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let world = self.world.lock().unwrap();
        let fixed = |path: &HostPath| !path.as_str().starts_with("/var/lib/kubelet/pods/") && path.as_str().len() < 24;
        let mut found: Vec<String> = world.volumes.keys().map(|id| format!("volume {id}")).collect();
        found.extend(world.snapshots.keys().map(|id| format!("snapshot {id}")));
        found.extend(world.devices.keys().map(|id| format!("device of {id}")));
        found.extend(world.mounts.iter().map(|entry| format!("mount at {}", entry.target)));
        found.extend(
            world
                .paths
                .keys()
                .filter(|path| !fixed(path))
                .map(|path| format!("path {path}")),
        );
        found
    }
}

/// Tasks and time of the test's own runtime.
pub(super) struct TestRuntime;

impl Runtime for TestRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> BoxFuture<'static, ()> {
        Box::pin(async move { work() })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Duration {
        Duration::ZERO
    }
}

/// The world as one life of the process may act on it.
#[derive(Clone)]
pub(super) struct Outside {
    pub(super) life: Life,
    pub(super) world: Arc<Mutex<World>>,
}

impl Outside {
    async fn host<T>(&self, name: &str, act: impl FnOnce(&mut World) -> HostResult<T> + Send) -> HostResult<T> {
        let fenced = || HostError::new(HostErrorKind::Fenced, "the process is dead");
        if let Some(Trouble::Host(kind)) = self.life.trouble(name).await {
            return Err(HostError::new(kind, format!("{name} was told to fail")));
        }
        let mut result = None;
        match self
            .life
            .step(name, || result = Some(act(&mut self.world.lock().unwrap())))
        {
            When::Alive => result.unwrap_or_else(|| Err(fenced())),
            When::Dead => Err(fenced()),
        }
    }

    pub(super) async fn pool<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut World) -> PoolResult<T> + Send,
    ) -> PoolResult<T> {
        let fenced = || PoolError::new(PoolErrorKind::Fenced, "the process is dead");
        if let Some(Trouble::Pool(kind)) = self.life.trouble(name).await {
            return Err(PoolError::new(kind, format!("{name} was told to fail")));
        }
        let mut result = None;
        match self
            .life
            .step(name, || result = Some(act(&mut self.world.lock().unwrap())))
        {
            When::Alive => result.unwrap_or_else(|| Err(fenced())),
            When::Dead => Err(fenced()),
        }
    }
}

fn refuse<T>(kind: HostErrorKind) -> HostResult<T> {
    Err(HostError::new(kind, format!("{kind:?}")))
}

pub(super) fn refuse_pool<T>(kind: PoolErrorKind) -> PoolResult<T> {
    Err(PoolError::new(kind, format!("{kind:?}")))
}

impl World {
    fn volume_of(&mut self, device: &DevicePath) -> HostResult<&mut FakeVolume> {
        let id = self
            .devices
            .iter()
            .find(|(_, (path, ..))| path == device)
            .map(|(id, _)| id.clone());
        let volume = id.and_then(|id| self.volumes.get_mut(&id));
        volume.ok_or_else(|| HostError::new(HostErrorKind::Io, "no storage behind the device"))
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
                .insert(volume.clone(), (device.clone(), found.known.size, access));
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
                .is_some_and(|(device, ..)| world.is_mounted(device))
            {
                return refuse(HostErrorKind::Busy);
            }
            world.devices.remove(volume);
            Ok(())
        })
        .await
    }

    async fn device_size(&self, device: &DevicePath) -> HostResult<Bytes> {
        self.host("device_size", |world| {
            let size = world
                .devices
                .values()
                .find(|(path, ..)| path == device)
                .map(|(_, size, _)| *size);
            size.map_or_else(|| refuse(HostErrorKind::NotFound), Ok)
        })
        .await
    }

    async fn rescan(&self, device: &DevicePath) -> HostResult<Bytes> {
        self.host("rescan", |world| {
            let now = world.volume_of(device)?.known.size;
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
        self.host("probe", |world| Ok(world.volume_of(device)?.holds.clone()))
            .await
    }

    async fn mkfs(&self, device: &DevicePath, fs: &NewFs) -> HostResult<()> {
        self.host("mkfs", |world| {
            let volume = world.volume_of(device)?;
            if volume.holds != Probe::Blank {
                return refuse(HostErrorKind::Exists);
            }
            let (uuid, label) = (fs.uuid.clone(), fs.label.clone());
            volume.holds = Probe::FileSystem {
                kind: fs.kind,
                size: volume.known.size,
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

    async fn remount(&self, _: &HostPath, _: &[String], _: Access) -> HostResult<()> {
        self.host("remount", |_| refuse(HostErrorKind::Unsupported)).await
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
            let room = world
                .devices
                .values()
                .find(|(path, ..)| *path == device)
                .map(|(_, size, _)| *size);
            let room = room.expect("a mounted device is attached");
            if let Probe::FileSystem { size, .. } = &mut world.volume_of(&device)?.holds {
                *size = room;
            }
            Ok(room)
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
