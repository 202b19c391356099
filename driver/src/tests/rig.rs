//! The fake world: one pool, one machine, one disk, and lives of the driver's process in it.
//!
//! Every operation is counted and can be made to fail, to hang, or to be the one at which the process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::disk::{FakeDisk, Loss, Platter};
use crate::config::Config;
use crate::host::{HostError, HostErrorKind, HostResult, MountEntry, PathKind, Probe};
use crate::key::Key;
use crate::pool::{Extent, PoolError, PoolErrorKind, PoolResult, PoolSnapshot, PoolVolume};
use crate::quirk::Quirk;
use crate::runtime::{Disk, Runtime};
use crate::seat::{Driver, NodeSeat, Seat};
use crate::units::{Access, Bytes, DevicePath, HostPath, NodeId, Segments, SnapshotId, VolumeId};

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
    /// How long every operation takes.
    slow: Duration,
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
        let (gate, slow) = {
            let fate = self.fate.lock().unwrap();
            (fate.hanging.get(name).cloned(), fate.slow)
        };
        if slow > Duration::ZERO {
            tokio::time::sleep(slow).await;
        }
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
    pub(super) layer: Option<FakeLayer>,
    pub(super) settings: BTreeMap<String, String>,
}

/// An encryption layer on a volume: the key that opens it, and what a probe behind it would say.
#[derive(Clone, Debug)]
pub(super) struct FakeLayer {
    pub(super) key: Key,
    pub(super) holds: Probe,
}

/// A snapshot of the fake pool, with what the volume held.
#[derive(Clone, Debug)]
pub(super) struct FakeSnapshot {
    pub(super) known: PoolSnapshot,
    pub(super) holds: Probe,
    pub(super) layer: Option<FakeLayer>,
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
    /// Volume → the device of its open encryption layer, and its size.
    pub(super) layers: BTreeMap<VolumeId, (DevicePath, Bytes)>,
    /// The group to which the file system on a device was given.
    pub(super) groups: BTreeMap<DevicePath, u32>,
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
        self.lose(Loss::All);
    }

    /// Ends the process with so much of its unsynced writes on the disk.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.fate.lock().unwrap().alive = 0;
        self.platter.lock().unwrap().power_cut(loss);
    }

    /// Cuts the machine's power: mounts and devices are gone as well.
    pub(super) fn power_cut(&mut self, loss: Loss) {
        self.lose(loss);
        let mut world = self.world.lock().unwrap();
        world.mounts.clear();
        world.devices.clear();
        world.layers.clear();
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

    /// Makes every operation of pool and machine take so long.
    pub(super) fn slow(&self, time: Duration) {
        self.fate.lock().unwrap().slow = time;
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
        found.extend(world.layers.keys().map(|id| format!("layer of {id}")));
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
    pub(super) async fn host<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut World) -> HostResult<T> + Send,
    ) -> HostResult<T> {
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

pub(super) fn refuse_pool<T>(kind: PoolErrorKind) -> PoolResult<T> {
    Err(PoolError::new(kind, format!("{kind:?}")))
}
