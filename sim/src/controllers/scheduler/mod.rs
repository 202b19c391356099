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
//! Blind spots: resources are not counted (only 110 pods a node), no preemption, no pod affinity or topology spread. A node with fewer pods wins, ties by a
//! draw that depends on pod and node only. More than 100 nodes are sampled from a start that depends on the pod, where the real one rotates.

mod binding;
mod filter;
mod memory;
mod volumes;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};

use crate::api::{Cache, Delta, Index, Kind, Limiter, ObjKey, fields};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::runtime::{Chance, Time};

pub use memory::Memory;

/// The indexes its process needs.
pub const INDEXES: &[Index] = &[
    Index::PodsByClaim,
    Index::AttachmentsByNode,
    Index::VolumesByClaim,
    Index::ClaimsByVolume,
];

/// The scheduler's controllers.
pub fn shells(chance: Chance) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(Scheduler { chance }))]
}

/// kube-scheduler.
pub struct Scheduler {
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

impl Controller for Scheduler {
    type Key = ObjKey;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn kinds(&self) -> &'static [Kind] {
        KINDS
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        // Scheduling itself takes no time here; the binding cycles run beside each other.
        vec![LaneSpec {
            name: "pods",
            workers: usize::MAX,
            limiter: Limiter::Controller,
        }]
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<ObjKey>) {
        if let Some((old, new)) = delta.of::<Pod>() {
            memory.pod_changed(old.map(|p| &**p), new.map(|p| &**p));
            if let Some(pod) = new.filter(|p| wants_node(p)) {
                let key = delta.object().key();
                if memory.is_new(&key, fields::uid(&pod.metadata)) {
                    queue.add(key);
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
                Some(at) => queue.add_at(key, at),
                None => queue.add(key),
            }
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, key: &ObjKey, now: Time) -> Effect {
        if let Some(cycle) = memory.cycles.get(key) {
            return binding::next(cache, memory, key, cycle, now);
        }
        let Some(pod) = cache.get::<Pod>(key).filter(|p| wants_node(p)) else {
            return Effect::Rest;
        };
        if memory.assumed_node(key).is_some() {
            return Effect::Rest;
        }
        if let Some(at) = memory.released_at(key, now) {
            return Effect::RestUntil(at);
        }
        let _ = pod;
        Effect::Note("schedule")
    }

    fn learn(
        &self,
        memory: &mut Memory,
        key: &ObjKey,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, ObjKey>,
    ) {
        if matches!(effect, Effect::Note("schedule")) {
            let Some(pod) = then.cache.get::<Pod>(key).cloned() else {
                return;
            };
            let cycle = filter::schedule(then.cache, memory, &self.chance, &pod, then.now);
            memory.begin(key, &pod, cycle);
            return;
        }
        binding::learn(memory, key, effect, outcome, then);
    }

    fn ended(&self, memory: &mut Memory, key: &ObjKey, _: &Effect) {
        memory.cycles.remove(key);
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
