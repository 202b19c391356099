//! The shape of a controller: two pure functions and the keys between them.

use std::fmt;

use crate::api::{Cache, Delta, Kind, Limiter};
use crate::runtime::Time;

use super::effect::{Effect, Outcome};

/// A controller of one process: what it watches, how events become keys, what it does about a key.
///
/// `decide` and `learn` alternate for a key until `decide` returns an effect that ends the sync. At most one effect of a key is under way; many keys run
/// at once, up to the worker count of their lane.
pub trait Controller: Send + 'static {
    /// What one sync is about. Its `Display` form names the object in sites and traces.
    type Key: Ord + Clone + fmt::Debug + fmt::Display + Send;
    /// What a crash erases. A new incarnation starts from `Default`.
    type Memory: Default + Send;

    /// Its Kubernetes name, e.g. `attachdetach`.
    fn name(&self) -> &'static str;

    /// The source of its events and the user of its writes, if not the process's own: controllers of one process have their own names there.
    fn component(&self) -> Option<String> {
        None
    }

    /// The kinds whose events it wants.
    fn kinds(&self) -> &'static [Kind];

    /// Whether it watches the leases of nodes: then it is told when they begin and end to be renewed.
    fn hears_heartbeats(&self) -> bool {
        false
    }

    /// Its queues.
    fn lanes(&self) -> Vec<LaneSpec>;

    /// Which queue a key belongs to: an index into [`Controller::lanes`].
    fn lane(&self, key: &Self::Key) -> usize {
        let _ = key;
        0
    }

    /// The process has started (or restarted) and its informers are filled; every object has been noticed already.
    fn start(&self, cache: &Cache, memory: &mut Self::Memory, now: Time, queue: &mut Requests<Self::Key>) {
        let _ = (cache, memory, now, queue);
    }

    /// An event of a watched kind reached the cache (already applied). May queue keys and keep books in memory; sees no other process.
    fn notice(
        &self,
        cache: &Cache,
        memory: &mut Self::Memory,
        delta: &Delta,
        now: Time,
        queue: &mut Requests<Self::Key>,
    );

    /// Something other than the API reached the process.
    fn signal(&self, memory: &mut Self::Memory, signal: &Signal, now: Time, queue: &mut Requests<Self::Key>) {
        let _ = (memory, signal, now, queue);
    }

    /// What next for this key? Pure.
    fn decide(&self, cache: &Cache, memory: &Self::Memory, key: &Self::Key, now: Time) -> Effect;

    /// What did that teach us? Called for every effect that has an outcome.
    fn learn(
        &self,
        memory: &mut Self::Memory,
        key: &Self::Key,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, Self::Key>,
    );

    /// The sync of a key ended with this effect (`Rest`, `Retry`, …): the place to clear its position from memory.
    fn ended(&self, memory: &mut Self::Memory, key: &Self::Key, effect: &Effect) {
        let _ = (memory, key, effect);
    }
}

/// One queue of a controller.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneSpec {
    /// Its name, for metrics.
    pub name: &'static str,
    /// How many keys are worked on at once.
    pub workers: usize,
    /// How failing keys wait.
    pub limiter: Limiter,
}

/// What reaches a process besides API events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A plugin socket appeared in kubelet's registry directory (also for each one found at kubelet's start).
    SocketCreated(String),
    /// A plugin socket vanished from kubelet's registry directory.
    SocketRemoved(String),
    /// Kubelet told this registrar that registration failed.
    RegistrationFailed(String),
    /// The containers of a pod ended by themselves (UID, exit code).
    PodExited(String, i32),
    /// A kubelet renews the lease of its node from now on.
    HeartbeatsBegin {
        /// The node.
        node: String,
    },
    /// A kubelet has renewed the lease of its node for the last time.
    HeartbeatsEnd {
        /// The node.
        node: String,
        /// When it did.
        last: Time,
    },
    /// SIGTERM: the process may still remove what it made, and exits then.
    Terminate,
}

/// Keys that a handler wants queued.
#[derive(Debug)]
pub struct Requests<K> {
    pub(super) asked: Vec<(K, Ask)>,
}

/// How a key is to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Now,
    At(Time),
    RateLimited,
    Forget,
}

impl<K> Default for Requests<K> {
    fn default() -> Self {
        Requests { asked: Vec::new() }
    }
}

impl<K> Requests<K> {
    /// Queues a key at once.
    pub fn add(&mut self, key: K) {
        self.asked.push((key, Ask::Now));
    }

    /// Queues a key at a moment.
    pub fn add_at(&mut self, key: K, at: Time) {
        self.asked.push((key, Ask::At(at)));
    }

    /// Queues a key after its back-off.
    pub fn add_rate_limited(&mut self, key: K) {
        self.asked.push((key, Ask::RateLimited));
    }

    /// Resets the back-off of a key.
    pub fn forget(&mut self, key: K) {
        self.asked.push((key, Ask::Forget));
    }

    /// The keys asked for so far with their moment (`None`: at once), for unit tests of handlers.
    pub fn keys(&self) -> Vec<(&K, Option<Time>)> {
        let at = |ask: &Ask| if let Ask::At(at) = ask { Some(*at) } else { None };
        self.asked.iter().map(|(key, ask)| (key, at(ask))).collect()
    }
}

/// What `learn` may touch besides memory.
pub struct Learner<'a, K> {
    /// The cache, for controllers that put the objects of their own writes there.
    pub cache: &'a mut Cache,
    /// The time of the outcome.
    pub now: Time,
    /// Other keys to queue.
    pub queue: &'a mut Requests<K>,
}
