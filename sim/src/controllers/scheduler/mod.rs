//! kube-scheduler: one pod at a time finds a node; binding its claims and itself takes longer and runs beside the next.
//!
//! ```text
//! Queued ──no node fits──► Unschedulable ──an event that could help──► Queued
//!   │ a node fits (claims and pod are assumed there)
//!   ▼
//! Nominate ──► BindVolume* ──► SelectNode* ──► Poll (1 s) ──all bound──► Bind ──► done
//!   └──────────────── any failing write, or the provisioner gave up ────► error back-off ──► Queued
//! ```
//!
//! Source: fact sheet §2; `pkg/scheduler` of Kubernetes. `filter` decides where a pod may go, `volumes` what its claims need, `binding` is the cycle after
//! a node was found.
//!
//! One pod is scheduled at a time, as the real loop does: an attempt takes `ATTEMPT`, and what failed is told before the next pod's turn. A pod that
//! events ask for again while it waits for its turn has one turn, not many.
//!
//! Blind spots: resources are not counted (only `--max-pods` of kubelet), no preemption, no pod affinity or topology spread. A node with fewer pods wins, ties by a
//! draw that depends on pod and node only. More than 100 nodes are sampled from a start that depends on the pod, where the real one rotates.

mod binding;
mod filter;
mod memory;
mod volumes;

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};

use crate::api::{Cache, Delta, Index, Kind, Limiter, ObjKey, fields};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::runtime::{Chance, Time};

use binding::Cycle;

pub use memory::Memory;

/// The indexes its process needs.
pub const INDEXES: &[Index] = &[
    Index::PodsByClaim,
    Index::AttachmentsByNode,
    Index::VolumesByClaim,
    Index::ClaimsByVolume,
];

/// What can be set on the scheduler, and what it is told of the nodes. What is built into it stands in `release/controllers.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `bindTimeoutSeconds` of the plugin VolumeBinding: how long a pod waits for its claims to be bound.
    pub bind_timeout: Duration,
    /// `podInitialBackoffSeconds`: the first delay after an error.
    pub pod_initial_backoff: Duration,
    /// `podMaxBackoffSeconds`: the longest such delay.
    pub pod_max_backoff: Duration,
    /// `--pod-max-in-unschedulable-pods-duration`: pods that no event helps are tried again after this.
    pub pod_max_in_unschedulable_pods_duration: Duration,
    /// `--max-pods` of the kubelets: pods that fit on a node.
    pub max_pods: usize,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            bind_timeout: Duration::from_secs(600),
            pod_initial_backoff: Duration::from_secs(1),
            pod_max_backoff: Duration::from_secs(10),
            pod_max_in_unschedulable_pods_duration: Duration::from_secs(300),
            max_pods: 110,
        }
    }
}

/// The scheduler's controllers.
pub fn shells(flags: &Flags, chance: Chance) -> Vec<Box<dyn AnyShell>> {
    let flags = flags.clone();
    vec![Box::new(Shell::new(Scheduler { flags, chance }))]
}

/// kube-scheduler.
pub struct Scheduler {
    /// What is set on it.
    pub flags: Flags,
    /// Breaks ties between nodes.
    pub chance: Chance,
}

/// What it watches.
const KINDS: &[Kind] = &[
    Kind::Pod,
    Kind::Node,
    Kind::PersistentVolumeClaim,
    Kind::PersistentVolume,
    Kind::StorageClass,
    Kind::CSINode,
    Kind::CSIDriver,
    Kind::CSIStorageCapacity,
    Kind::VolumeAttachment,
];

/// What one attempt takes before the next pod has its turn; the order of `scheduling_algorithm_duration_seconds` in small clusters.
const ATTEMPT: Duration = Duration::from_millis(1);

/// What a sync of the scheduler is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The turn of a pod that wants a node.
    Pod(ObjKey),
    /// The binding cycle of a pod that has found one.
    Binding(ObjKey),
}

impl Key {
    fn pod(&self) -> &ObjKey {
        match self {
            Key::Pod(pod) | Key::Binding(pod) => pod,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pod().fmt(f)
    }
}

impl Controller for Scheduler {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn kinds(&self) -> &'static [Kind] {
        KINDS
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        // Binding cycles run beside each other.
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: Limiter::Controller,
        };
        vec![lane("scheduling", 1), lane("binding", usize::MAX)]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Pod(_) => 0,
            Key::Binding(_) => 1,
        }
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        if let Some((old, new)) = delta.of::<Pod>() {
            memory.pod_changed(old.map(|p| &**p), new.map(|p| &**p));
            if let Some(pod) = new.filter(|p| wants_node(p)) {
                let key = delta.object().key();
                if memory.is_new(&key, fields::uid(&pod.metadata)) {
                    queue.add(Key::Pod(key));
                }
            }
        }
        if delta.kind() == Kind::PersistentVolumeClaim || delta.kind() == Kind::PersistentVolume {
            memory.forget_assumed(delta.object());
        }
        if let Some((_, node)) = delta.of::<Node>() {
            memory.node_changed(&delta.object().key().name, node.cloned());
        }
        for key in memory.helped_by(cache, delta) {
            match memory.released_at(&key, now) {
                Some(at) => queue.add_at(Key::Pod(key), at),
                None => queue.add(Key::Pod(key)),
            }
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, key: &Key, now: Time) -> Effect {
        let pod = key.pod();
        let cycle = memory.cycles.get(pod);
        match key {
            Key::Binding(_) => cycle.map_or(Effect::Rest, |cycle| binding::next(cache, pod, cycle)),
            Key::Pod(_) => self.turn(cache, memory, pod, cycle, now),
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        let name = key.pod();
        match (key, effect) {
            (Key::Pod(_), Effect::Note(SCHEDULE)) => {
                let Some(pod) = then.cache.get::<Pod>(name).cloned() else {
                    return;
                };
                let verdict = filter::schedule(then.cache, memory, self, &pod);
                memory.begin(name, &pod, verdict);
                memory.tried = true;
                if memory.cycles.get(name).is_some_and(Cycle::binds) {
                    then.queue.add(Key::Binding(name.clone()));
                }
            }
            (Key::Pod(_), Effect::Wait(_)) => memory.rested = true,
            _ => binding::learn(&self.flags, memory, name, effect, outcome, then),
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _: &Effect) {
        let pod = key.pod();
        if let Key::Pod(_) = key {
            (memory.tried, memory.rested) = (false, false);
            if memory.cycles.get(pod).is_some_and(Cycle::binds) {
                return;
            }
        }
        memory.cycles.remove(pod);
    }
}

/// The effect that runs a scheduling cycle, inside the scheduler.
const SCHEDULE: &str = "schedule";

impl Scheduler {
    /// The turn of a pod: one attempt, then word of what came of it.
    fn turn(&self, cache: &Cache, memory: &Memory, key: &ObjKey, cycle: Option<&Cycle>, now: Time) -> Effect {
        if memory.tried {
            return match cycle {
                Some(cycle) if !cycle.binds() && !cycle.is_over() => binding::next(cache, key, cycle),
                _ if !memory.rested => Effect::Wait(ATTEMPT),
                _ if memory.waits(key) => Effect::RestUntil(now + self.flags.pod_max_in_unschedulable_pods_duration),
                _ => Effect::Rest,
            };
        }
        let Some(pod) = cache.get::<Pod>(key).filter(|p| wants_node(p)) else {
            return Effect::Rest;
        };
        if cycle.is_some_and(|c| c.uid != fields::uid(&pod.metadata)) {
            // A pod of this name is gone while its binding cycle still waits for an answer.
            return Effect::RestUntil(now + ATTEMPT);
        }
        if memory.assumed_node(key).is_some() {
            return Effect::Rest;
        }
        if let Some(at) = memory.released_at(key, now) {
            return Effect::RestUntil(at);
        }
        Effect::Note(SCHEDULE)
    }
}

/// Pending, without a node, not being deleted, and ours to schedule.
fn wants_node(pod: &Pod) -> bool {
    let ours = pod
        .spec
        .as_ref()
        .is_some_and(|s| s.scheduler_name.as_deref().is_none_or(|n| n == "default-scheduler"));
    ours && fields::pod_node(pod).is_empty() && !fields::is_deleting(&pod.metadata) && !fields::is_terminated(pod)
}

/// The claims that a pod uses, by key.
fn claims_of(pod: &Pod) -> Vec<ObjKey> {
    let namespace = fields::namespace(&pod.metadata);
    fields::pod_claims(pod)
        .map(|claim| ObjKey::new(namespace, claim.claim.as_ref()))
        .collect()
}

/// A claim as the scheduler sees it: its own assumption until the informer has caught up.
fn claim<'a>(cache: &'a Cache, memory: &'a Memory, key: &ObjKey) -> Option<&'a PersistentVolumeClaim> {
    memory
        .assumed_claims
        .get(key)
        .or_else(|| cache.get::<PersistentVolumeClaim>(key).map(|c| &**c))
}
