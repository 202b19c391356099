//! One Kubernetes process of the tank: its informers, its controllers, and what it forgets when it dies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Bucket, Cache, Clock, Delta, EventRecord, Index, Kind, Recorder, Write};
use crate::control::AnyShell;
use crate::runtime::{Chance, Draws, Lane, Tasks, Ticket, Time};

use super::latency::Latency;

/// Names a process within its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub(super) u32);

/// What is needed to run a process.
pub struct ProcessSpec {
    /// Its name in traces and sites, e.g. `csi.example.com/provisioner` or `node-1/kubelet`.
    pub name: Arc<str>,
    /// The user in audit logs and the component in its events, for controllers that name none of their own.
    pub component: String,
    /// The node it runs on, if that matters to it.
    pub node: Option<Arc<str>>,
    /// It sees only its own Node and the pods bound to it, as kubelet does.
    pub node_bound: bool,
    /// Its controllers, made anew by the caller only once: a restart resets them.
    pub shells: Vec<Box<dyn AnyShell>>,
    /// The indexes of its informers.
    pub indexes: Vec<Index>,
    /// `--kube-api-qps` and `--kube-api-burst`, if the client throttles itself.
    pub throttle: Option<(f64, u32)>,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Its informers are being filled.
    Starting,
    /// It works.
    Running,
    /// It is dead.
    Down,
}

pub(super) struct Process {
    pub name: Arc<str>,
    /// The component of each shell.
    pub components: Vec<Arc<str>>,
    pub node: Option<Arc<str>>,
    pub node_bound: bool,
    pub lane: Lane,
    pub incarnation: u32,
    pub liveness: Liveness,
    pub shells: Vec<Box<dyn AnyShell>>,
    /// What each shell waits for.
    pub turns: Vec<Turn>,
    /// The kinds it watches, and what makes their deliveries early or late.
    pub kinds: BTreeMap<Kind, Draws>,
    pub cache: Cache,
    pub recorders: BTreeMap<Arc<str>, Recorder>,
    pub throttle: Option<(f64, u32)>,
    pub bucket: Option<Bucket>,
    /// The tasks that carry its calls; made at its first call.
    pub tasks: Option<Tasks>,
    /// The wake-up for its delayed keys.
    pub wake: Option<(Time, Ticket)>,
    /// Exits so far in a row, for the restart back-off of its container.
    pub exits: u32,
    /// Its container starts again then.
    pub restart: Option<Ticket>,
    /// It was told to end, and does so in its own time; whether it is to start again then.
    pub terminating: Option<bool>,
    /// From a start that is not the first until its informers are filled, if that takes longer than usual.
    pub slow_start: Option<Duration>,
    /// It sees nothing new.
    pub blind: Option<super::informers::Blind>,
    /// Up to which version it has seen everything in a list after its watches broke.
    pub listed: u64,
}

/// When a shell of a process wants to be pumped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// Something reached it since it was pumped.
    pub stirred: bool,
    /// Its earliest delayed key.
    pub due: Option<Time>,
}

impl Turn {
    pub fn has_come(self, now: Time) -> bool {
        self.stirred || self.due.is_some_and(|due| due <= now)
    }
}

impl Process {
    pub fn new(spec: ProcessSpec, lane: Lane, chance: &Chance) -> Process {
        let own = |s: &dyn AnyShell| Arc::from(s.component().unwrap_or_else(|| spec.component.clone()));
        let components = spec.shells.iter().map(|s| own(&**s)).collect();
        let kinds = spec.shells.iter().flat_map(|s| s.kinds().iter().copied());
        let kinds = kinds.map(|kind| (kind, Latency::jitter(chance, &spec.name, kind)));
        let kinds = kinds.collect();
        Process {
            recorders: BTreeMap::new(),
            name: spec.name,
            components,
            node: spec.node,
            node_bound: spec.node_bound,
            lane,
            incarnation: 0,
            liveness: Liveness::Down,
            kinds,
            turns: vec![Turn::default(); spec.shells.len()],
            shells: spec.shells,
            cache: Cache::new(&spec.indexes),
            bucket: None,
            throttle: spec.throttle,
            tasks: None,
            wake: None,
            exits: 0,
            restart: None,
            terminating: None,
            slow_start: None,
            blind: None,
            listed: 0,
        }
    }

    /// A new incarnation begins: nothing of the old one is left.
    pub fn reset(&mut self) {
        self.incarnation += 1;
        self.liveness = Liveness::Down;
        // Who cannot reach the API server cannot after a restart either.
        self.blind = self.blind.take().filter(|blind| blind.away);
        self.listed = 0;
        self.cache.clear();
        self.shells.iter_mut().for_each(|s| s.forget_everything());
        self.turns.fill(Turn::default());
        self.recorders.clear();
        self.bucket = self.throttle.map(|(rate, burst)| Bucket::new(rate, burst));
    }

    /// Tells a change to the shells that watch its kind.
    pub fn notice(&mut self, delta: &Delta, now: Time) {
        for (shell, turn) in self.shells.iter_mut().zip(&mut self.turns) {
            if shell.kinds().contains(&delta.kind()) {
                shell.notice(&self.cache, delta, now);
                turn.stirred = true;
            }
        }
    }

    /// Every shell wants to be pumped.
    pub fn stir_all(&mut self) {
        self.turns.iter_mut().for_each(|turn| turn.stirred = true);
    }

    /// How long the client's own throttle holds the next request back.
    pub fn hold_back(&mut self, now: Time) -> Duration {
        self.bucket
            .as_mut()
            .map_or(Duration::ZERO, |bucket| bucket.reserve(now))
    }

    /// What comes of an event that one of its controllers records.
    pub fn record(&mut self, shell: usize, record: &EventRecord, now: Time) -> Option<Write> {
        let component = &self.components[shell];
        let node = self.node.as_deref();
        let recorder = self
            .recorders
            .entry(Arc::clone(component))
            .or_insert_with(|| recorder(component, node));
        recorder.record(record, now)
    }

    /// When its earliest delayed key is due.
    pub fn next_due(&self) -> Option<Time> {
        self.turns.iter().filter_map(|turn| turn.due).min()
    }
}

/// The recorder of a process: the scheduler's uses the newer events API.
fn recorder(component: &str, node: Option<&str>) -> Recorder {
    match component {
        "default-scheduler" => Recorder::with_series(component, Clock::EPOCH),
        _ => Recorder::new(component, node.map(str::to_owned), Clock::EPOCH),
    }
}
