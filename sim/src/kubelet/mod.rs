//! kubelet: what it does about storage on its node, as one process and one controller.
//!
//! ```text
//!   pods of this node ─► pod workers ─► populator ─► desired ─┐
//!                            ▲  │                             ├─► reconciler ─► operations ─► driver
//!                            │  └─► status manager            │                     │
//!                            └───── actual ◄──────────────────┴─────────────────────┘
//!   actual, desired ─► node status round (volumesInUse) ─► Node ─► desired (reported in use)
//!   plugin sockets ─► plugin manager ─► list of drivers, Node, CSINode
//! ```
//!
//! | File | What it is in kubelet |
//! |---|---|
//! | `startup` | process start, node registration, pod sources |
//! | `reconstruction` | what a new kubelet finds on disk |
//! | `pod_workers`, `status`, `housekeeping` | pods: sync loop, status manager, orphans |
//! | `desired`, `populator` | desired state of the world |
//! | `actual` | actual state of the world with its two state machines |
//! | `reconciler`, `operations/` | volume manager |
//! | `csi_client` | requests and error classes |
//! | `node_status` | node status round |
//! | `plugins` | plugin watcher, manager and CSI registration |
//! | `stats` | volume statistics |
//!
//! Everything here is lost in a crash: [`Memory`]. What survives is on disk, in the mount table, in running containers, and on the API server.
//!
//! A loop that ticks every 100 ms in kubelet is a key that is queued at the tick where there is something to see: an idle kubelet has no entry anywhere.
//!
//! *Blind spots.* No SELinux, no tokens, no graceful node shutdown, no static pods, no eviction, no resources. Heartbeats and leases are not written: the cluster knows
//! which kubelets live, and when they renewed a lease for the last time. An API object that kubelet watches and does not need here (services, config maps) is not watched.

pub mod actual;
pub mod csi_client;
pub mod desired;
mod flags;
pub mod housekeeping;
pub mod node_status;
pub mod operations;
pub mod paths;
pub mod plugins;
pub mod pod_workers;
pub mod populator;
pub mod reconciler;
pub mod reconstruction;
mod startup;
pub mod stats;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod volume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;

use crate::api::{Cache, Delta, EventRecord, Index, Kind, Limiter};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell, Signal};
use crate::runtime::{Chance, Time};

pub use flags::{Constants, Flags};

use operations::job::Job;
use operations::keys::OpKey;
use paths::Paths;
use volume::PodRef;

/// The kubelet of one node.
pub struct Kubelet {
    node: Arc<str>,
    flags: Flags,
    constants: Constants,
    chance: Chance,
}

/// The indexes that a kubelet's cache needs.
pub const INDEXES: &[Index] = &[Index::PodsByNode];

/// The controllers of a kubelet process: one.
pub fn shells(
    node: impl Into<Arc<str>>,
    flags: &Flags,
    constants: &Constants,
    chance: &Chance,
) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(Kubelet::new(node, flags, constants, chance)))]
}

/// What one sync of a kubelet is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The start of the process.
    Startup,
    /// The pods become known.
    Sources,
    /// A pod.
    PodWorker(PodRef),
    /// The status of a pod.
    PodStatus(PodRef),
    /// A pass of the populator.
    Populator,
    /// A pass of the reconciler.
    Reconciler,
    /// A volume operation.
    Operation(OpKey),
    /// A node status round.
    NodeStatus,
    /// A plugin socket, by path.
    Plugin(Arc<str>),
    /// The statistics of a pod's volumes.
    Stats(PodRef),
    /// What nobody knows any more.
    Housekeeping,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Startup => f.write_str("startup"),
            Key::Sources => f.write_str("pod sources"),
            Key::PodWorker(pod) => write!(f, "pod {pod}"),
            Key::PodStatus(pod) => write!(f, "status of pod {pod}"),
            Key::Populator => f.write_str("populator"),
            Key::Reconciler => f.write_str("reconciler"),
            Key::Operation(key) => write!(f, "{key}"),
            Key::NodeStatus => f.write_str("node status"),
            Key::Plugin(path) => write!(f, "plugin {}", path.rsplit('/').next().unwrap_or(path)),
            Key::Stats(pod) => write!(f, "statistics of pod {pod}"),
            Key::Housekeeping => f.write_str("housekeeping"),
        }
    }
}

/// What a crash erases.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    startup: startup::Startup,
    /// The loops of this incarnation, once they run.
    loops: Option<startup::Loops>,
    /// All pods of this node are known.
    sources_ready: bool,
    desired: desired::Desired,
    actual: actual::Actual,
    populator: populator::Populator,
    reconciler: reconciler::Reconciler,
    operations: operations::Operations,
    workers: pod_workers::Workers,
    statuses: BTreeMap<PodRef, status::Told>,
    node_status: node_status::NodeStatus,
    plugins: plugins::Plugins,
    stats: BTreeMap<PodRef, stats::Calculator>,
    housekeeping: housekeeping::Housekeeping,
    /// Pod directories on disk, by UID, that are to be removed when nobody knows the pod any more.
    orphans: BTreeSet<Arc<str>>,
    /// Keys that have a connection for their next CSI call.
    dialed: BTreeSet<Key>,
    /// Events that a key is about to record.
    outbox: BTreeMap<Key, VecDeque<EventRecord>>,
}

/// What a decision sees.
pub struct View<'a> {
    kubelet: &'a Kubelet,
    cache: &'a Cache,
    memory: &'a Memory,
    now: Time,
}

/// What learning may change.
pub struct Turn<'a> {
    kubelet: &'a Kubelet,
    cache: &'a Cache,
    memory: &'a mut Memory,
    now: Time,
    queue: &'a mut Requests<Key>,
}

impl Kubelet {
    /// The kubelet of `node`. `chance` gives phases and jitter.
    pub fn new(node: impl Into<Arc<str>>, flags: &Flags, constants: &Constants, chance: &Chance) -> Kubelet {
        Kubelet {
            node: node.into(),
            flags: flags.clone(),
            constants: constants.clone(),
            chance: chance.clone(),
        }
    }

    fn paths(&self) -> Paths<'_> {
        Paths::new(&self.flags.root_dir)
    }
}

impl Turn<'_> {
    /// Queues a key at the next tick of a loop that runs.
    fn wake_at(&mut self, key: Key, phase: impl Fn(&startup::Loops) -> Time, period: Duration) {
        if let Some(loops) = &self.memory.loops {
            self.queue.add_at(key, self.now.tick(phase(loops), period));
        }
    }

    /// The reconciler has something to see.
    fn wake_reconciler(&mut self) {
        let period = self.kubelet.constants.reconciler_period;
        self.wake_at(Key::Reconciler, |l| l.reconciler, period);
    }

    /// The populator has something to see.
    fn wake_populator(&mut self) {
        let period = self.kubelet.constants.populator_period;
        self.wake_at(Key::Populator, |l| l.populator, period);
    }

    /// The node status round may have something to say.
    fn wake_node_status(&mut self) {
        self.queue.add(Key::NodeStatus);
    }

    /// Housekeeping has something to see.
    fn wake_housekeeping(&mut self) {
        // Never in this very moment: what wakes it is only about to be forgotten.
        let (period, later) = (self.kubelet.constants.housekeeping_period, Time(self.now.0 + 1));
        if let Some(loops) = &self.memory.loops {
            self.queue
                .add_at(Key::Housekeeping, later.tick(loops.housekeeping, period));
        }
    }

    /// The worker of a pod may have waited for this.
    fn wake_worker(&mut self, pod: &PodRef) {
        pod_workers::nudge(self, pod);
    }

    /// The first relist of PLEG after a moment.
    fn relist_after(&self, moment: Time) -> Time {
        let later = Time(moment.0 + 1);
        let loops = self.memory.loops.as_ref();
        loops.map_or(later, |l| later.tick(l.pleg, self.kubelet.constants.pleg_period))
    }

    /// Records an event as the next thing that `key` does.
    fn record(&mut self, key: Key, event: EventRecord) {
        self.memory.outbox.entry(key).or_default().push_back(event);
    }

    /// A volume of the pod was mounted.
    fn pod_mounted(&mut self, pod: &PodRef) {
        self.wake_worker(pod);
        self.want_no_longer(pod);
        // A pod that has run all along gets its statistics back.
        stats::watch(self, pod);
    }

    /// A volume of the pod was unmounted, or is not certainly mounted any more.
    fn pod_unmounted(&mut self, pod: &PodRef) {
        self.wake_worker(pod);
        self.wake_housekeeping();
    }

    /// Mounting a volume for a pod failed.
    fn mount_failed(&mut self, job: &Job, class: actual::Class) {
        let actual = &mut self.memory.actual;
        actual.pod_mount_failed(&job.volume, &job.pod, &job.spec, class);
        self.wake_worker(&job.pod);
        self.want_no_longer(&job.pod);
    }

    /// A pod whose containers are gone keeps its wish for a volume until that is there, or may be: then the populator takes the wish away.
    fn want_no_longer(&mut self, pod: &PodRef) {
        let worker = self.memory.workers.pods.get(pod);
        if worker.is_some_and(|worker| worker.runtime_removed) {
            self.wake_populator();
        }
    }

    /// The pod's volumes are there: their statistics are taken from now on.
    fn watch_stats(&mut self, pod: &PodRef) {
        if self.memory.actual.has_mounted(pod) {
            stats::watch(self, pod);
        }
    }
}

impl Controller for Kubelet {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node, Kind::Pod, Kind::CSIDriver]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        // Pods, operations and managers are goroutines of their own: nothing waits for a free worker.
        vec![LaneSpec {
            name: "kubelet",
            workers: usize::MAX,
            limiter: Limiter::Exponential {
                base: self.constants.operation_backoff,
                cap: self.constants.operation_backoff_cap,
            },
        }]
    }

    fn start(&self, _: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<Key>) {
        memory.startup.begin(now);
        queue.add(Key::Startup);
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        let mut turn = Turn {
            kubelet: self,
            cache,
            memory,
            now,
            queue,
        };
        if turn.memory.loops.is_none() {
            return;
        }
        if let Some((old, new)) = delta.of::<Pod>() {
            if turn.memory.sources_ready {
                replaced(&mut turn, old, new);
            }
        } else if delta.of::<Node>().is_some() {
            turn.wake_reconciler();
            turn.wake_node_status();
        } else if delta.of::<CSIDriver>().is_some() && !turn.memory.desired.volumes.is_empty() {
            turn.wake_populator();
        }
    }

    fn signal(&self, memory: &mut Memory, signal: &Signal, now: Time, queue: &mut Requests<Key>) {
        let cache = Cache::default();
        let mut turn = Turn {
            kubelet: self,
            cache: &cache,
            memory,
            now,
            queue,
        };
        match signal {
            Signal::SocketCreated(path) | Signal::SocketRemoved(path) => {
                let there = matches!(signal, Signal::SocketCreated(_));
                turn.memory.plugins.watch(path, there);
                turn.queue.add(Key::Plugin(path.as_str().into()));
            }
            Signal::PodExited(uid, code) => pod_workers::exited(&mut turn, uid, *code),
            Signal::RegistrationFailed(_)
            | Signal::HeartbeatsBegin { .. }
            | Signal::HeartbeatsEnd { .. }
            | Signal::Terminate => {}
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, key: &Key, now: Time) -> Effect {
        if let Some(event) = memory.outbox.get(key).and_then(VecDeque::front) {
            return Effect::Record(event.clone());
        }
        let view = View {
            kubelet: self,
            cache,
            memory,
            now,
        };
        match next(&view, key) {
            Effect::Call(_) if !memory.dialed.contains(key) => Effect::Wait(self.constants.dial),
            effect => effect,
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        if let Effect::Record(_) = effect {
            let queue = memory.outbox.get_mut(key).expect("a recorded event was queued");
            queue.pop_front();
            if queue.is_empty() {
                memory.outbox.remove(key);
            }
            return;
        }
        if let Effect::Wait(_) = effect
            && is_dialing(self, then.cache, memory, key, then.now)
        {
            memory.dialed.insert(key.clone());
            return;
        }
        if let Effect::Call(_) = effect {
            memory.dialed.remove(key);
        }
        let turn = &mut Turn {
            kubelet: self,
            cache: then.cache,
            memory,
            now: then.now,
            queue: then.queue,
        };
        match key {
            Key::Startup => startup::learn(turn, outcome),
            Key::Sources => startup::learn_sources(turn, outcome),
            Key::PodWorker(pod) => pod_workers::learn(turn, pod, effect, outcome),
            Key::PodStatus(pod) => status::learn(turn, pod, outcome),
            Key::Populator => populator::learn(turn, effect, outcome),
            Key::Reconciler => reconciler::learn(turn, outcome),
            Key::Operation(operation) => operations::learn(turn, operation, outcome),
            Key::NodeStatus => node_status::learn(turn, effect, outcome),
            Key::Plugin(path) => plugins::learn(turn, path, effect, outcome),
            Key::Stats(pod) => stats::learn(turn, pod, effect, outcome),
            Key::Housekeeping => housekeeping::learn(turn, effect, outcome),
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _: &Effect) {
        match key {
            Key::Startup => startup::ended(&mut memory.startup),
            Key::PodWorker(pod) => pod_workers::ended(memory, pod),
            Key::PodStatus(pod) => {
                if let Some(told) = memory.statuses.get_mut(pod) {
                    told.ended();
                }
                pod_workers::ended(memory, pod);
            }
            Key::Populator => memory.populator.ended(),
            Key::Reconciler => memory.reconciler.ended(),
            Key::NodeStatus => memory.node_status.ended(),
            Key::Plugin(path) => memory.plugins.ended(path),
            Key::Housekeeping => memory.housekeeping.ended(),
            Key::Sources | Key::Operation(_) | Key::Stats(_) => {}
        }
    }
}

/// What next for a key?
fn next(view: &View<'_>, key: &Key) -> Effect {
    match key {
        Key::Startup => startup::decide(view),
        Key::Sources => startup::decide_sources(view),
        Key::PodWorker(pod) => pod_workers::decide(view, pod),
        Key::PodStatus(pod) => status::decide(view, pod),
        Key::Populator => populator::decide(view),
        Key::Reconciler => reconciler::decide(view),
        Key::Operation(operation) => operations::decide(view, operation),
        Key::NodeStatus => node_status::decide(view),
        Key::Plugin(path) => plugins::decide(view, path),
        Key::Stats(pod) => stats::decide(view, pod),
        Key::Housekeeping => housekeeping::decide(view),
    }
}

/// Whether a key that has waited was dialling: its next effect is a CSI call. Operations and statistics wait for nothing else.
fn is_dialing(kubelet: &Kubelet, cache: &Cache, memory: &Memory, key: &Key, now: Time) -> bool {
    if matches!(key, Key::Operation(_) | Key::Stats(_)) {
        return true;
    }
    let view = View {
        kubelet,
        cache,
        memory,
        now,
    };
    matches!(next(&view, key), Effect::Call(_))
}

/// A pod changed; one of the same name that came in its place is another pod.
fn replaced(turn: &mut Turn<'_>, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
    let other = |o: &&Arc<Pod>| new.is_none_or(|n| n.metadata.uid != o.metadata.uid);
    if let Some(old) = old.filter(other) {
        pod_workers::notice(turn, old, true);
    }
    if let Some(new) = new {
        pod_workers::notice(turn, new, false);
    }
}
