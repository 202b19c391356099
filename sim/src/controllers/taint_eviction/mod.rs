//! The taint eviction controller of kube-controller-manager: deletes the pods that a node's NoExecute taints do not suffer any longer.
//!
//! ```text
//! taint seen ─┬─ not tolerated ───────────────────────────► Fire
//!             ├─ tolerated for n seconds ──► Timer ──due──► Fire: event ─► GET ─► PATCH condition DisruptionTarget ─► DELETE
//!             └─ tolerated without limit ──► (nothing)        │ refused: 10 ms, five times at most
//! taints gone: the timer is cancelled, which is told
//! ```
//!
//! A timer that runs keeps running whatever further taint comes, unless that one is not tolerated at all. The pod gets its grace like any deleted pod: without a
//! kubelet it stays Terminating. Source: Kubernetes `pkg/controller/tainteviction` v1.36; fact sheet 10.6; traces 20 and 20b.
//!
//! *Blind spot.* Its writes carry the name of its events; in Kubernetes they are `node-controller`'s.

#[cfg(test)]
mod tests;
mod tolerations;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use serde_json::json;

use crate::api::{
    Cache, Clock, Delete, Delta, Edit, EventRecord, Index, Kind, Limiter, ObjKey, ObjectRef, Patch, Read, ReadAnswer,
    Write, fields,
};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::release::RELEASE;
use crate::runtime::Time;

use tolerations::{Patience, patience};

/// The component in its events.
pub const COMPONENT: &str = "taint-eviction-controller";

/// Attempts to delete a pod, and the pause between them.
const ATTEMPTS: u32 = RELEASE.nodes.eviction_attempts;
const PAUSE: Duration = RELEASE.nodes.eviction_pause;

/// The controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintEviction;

/// The controller at work, for kube-controller-manager.
pub fn shells() -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(TaintEviction))]
}

/// What one sync is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The taints of a node have changed.
    Node(Arc<str>),
    /// A pod has changed.
    Pod(ObjKey),
    /// A pod is to be deleted.
    Evict(ObjKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Node(node) => write!(f, "node {node}"),
            Key::Pod(pod) | Key::Evict(pod) => write!(f, "pod {pod}"),
        }
    }
}

/// What the controller knows and a restart forgets: so every toleration begins anew when the process does.
#[derive(Debug, Default)]
pub struct Memory {
    /// The NoExecute taints of the nodes that have some.
    tainted: BTreeMap<Arc<str>, Vec<Taint>>,
    work: BTreeMap<ObjKey, Work>,
    /// Nodes and pods that were looked at, and what is still to be told of them.
    looked: BTreeMap<Key, VecDeque<EventRecord>>,
    firing: BTreeMap<ObjKey, Firing>,
}

/// What is planned for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// It is deleted at a moment.
    Timer { since: Time, at: Time },
    /// It is being deleted, or was.
    Fired,
}

/// A deletion at work.
#[derive(Debug)]
struct Firing {
    step: Step,
    attempts: u32,
}

#[derive(Debug)]
enum Step {
    Tell,
    Read,
    Mark(String),
    Delete,
    Pause,
    Over,
}

impl Memory {
    /// Cancels a timer, which is told; what was fired is forgotten in silence.
    fn cancel(&mut self, pod: &ObjKey) -> Option<EventRecord> {
        let was = self.work.remove(pod)?;
        matches!(was, Work::Timer { .. }).then(|| told(pod, format!("Cancelling deletion of Pod {pod}")))
    }

    /// Weighs the taints of its node against a pod's tolerations.
    fn weigh(&mut self, pod: &Pod, taints: &[Taint], now: Time, queue: &mut Requests<Key>) -> Vec<EventRecord> {
        let key = ObjKey::of(&pod.metadata);
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref());
        let mut events = Vec::new();
        let wait = match patience(taints, tolerations.unwrap_or_default()) {
            Patience::Endless => return self.cancel(&key).into_iter().collect(),
            Patience::None => {
                events.extend(self.cancel(&key));
                Duration::ZERO
            }
            Patience::For(wait) => match self.work.get(&key) {
                Some(Work::Timer { since, .. }) if *since < now => return events,
                Some(Work::Timer { .. }) => {
                    events.extend(self.cancel(&key));
                    wait
                }
                Some(Work::Fired) => return events,
                None => wait,
            },
        };
        if self.work.contains_key(&key) {
            return events;
        }
        let at = now + wait;
        self.work.insert(key.clone(), Work::Timer { since: now, at });
        queue.add_at(Key::Evict(key), at);
        events
    }

    fn look(&mut self, key: &Key, then: &mut Learner<'_, Key>) -> VecDeque<EventRecord> {
        match key {
            Key::Node(name) => {
                let node = then.cache.named::<Node>(name);
                let taints = node.map(|n| no_execute(n)).unwrap_or_default();
                if taints.is_empty() {
                    self.tainted.remove(name);
                } else {
                    self.tainted.insert(Arc::clone(name), taints.clone());
                }
                if node.is_none() {
                    return VecDeque::new();
                }
                let pods = then.cache.by::<Pod>(Index::PodsByNode, name);
                pods.flat_map(|pod| match taints.is_empty() {
                    true => self.cancel(&ObjKey::of(&pod.metadata)).into_iter().collect(),
                    false => self.weigh(pod, &taints, then.now, then.queue),
                })
                .collect()
            }
            Key::Pod(key) => {
                let Some(pod) = then.cache.get::<Pod>(key) else {
                    return self.cancel(key).into_iter().collect();
                };
                match self.tainted.get(fields::pod_node(pod)).cloned() {
                    Some(taints) => self.weigh(pod, &taints, then.now, then.queue).into(),
                    None => VecDeque::new(),
                }
            }
            Key::Evict(_) => unreachable!("an eviction looks at nothing"),
        }
    }

    fn fire(&mut self, pod: &ObjKey, outcome: &Outcome) {
        let Some(firing) = self.firing.get_mut(pod) else {
            let begun = Firing {
                step: Step::Tell,
                attempts: 0,
            };
            self.work.insert(pod.clone(), Work::Fired);
            self.firing.insert(pod.clone(), begun);
            return;
        };
        let failed = |attempts: u32| if attempts < ATTEMPTS { Step::Pause } else { Step::Over };
        firing.step = match &firing.step {
            Step::Tell | Step::Pause => {
                firing.attempts += 1;
                Step::Read
            }
            Step::Read => match outcome.read() {
                Ok(ReadAnswer::Object(object)) if is_marked(object.get::<Pod>().map(|p| &**p)) => Step::Delete,
                Ok(ReadAnswer::Object(object)) => Step::Mark(object.uid().to_owned()),
                _ => failed(firing.attempts),
            },
            Step::Mark(_) if outcome.written().is_ok() => Step::Delete,
            Step::Delete if outcome.written().is_ok() => Step::Over,
            Step::Mark(_) | Step::Delete => failed(firing.attempts),
            Step::Over => Step::Over,
        };
        if matches!(firing.step, Step::Over) && outcome_failed(outcome) {
            self.work.remove(pod);
        }
    }
}

fn outcome_failed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Written(Err(_)) | Outcome::Read(Err(_)))
}

fn is_marked(pod: Option<&Pod>) -> bool {
    let conditions = pod.and_then(|p| p.status.as_ref()?.conditions.as_deref());
    let marked = |c: &k8s_openapi::api::core::v1::PodCondition| {
        c.type_ == "DisruptionTarget" && c.status == "True" && c.reason.as_deref() == Some("DeletionByTaintManager")
    };
    conditions.unwrap_or_default().iter().any(marked)
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = fields::taints(node).iter();
    taints.filter(|t| t.effect == "NoExecute").cloned().collect()
}

/// Events of this controller name the pod, but not its UID.
fn told(pod: &ObjKey, message: String) -> EventRecord {
    EventRecord {
        regarding: ObjectRef::to::<Pod>(pod),
        uid: String::new(),
        warning: false,
        reason: "TaintManagerEviction",
        message,
        container: None,
    }
}

/// The condition that says why a pod is deleted.
fn mark(pod: &ObjKey, uid: &str, now: Time) -> Write {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": Clock::EPOCH.time(now),
    });
    let edit = Edit::Strategic(json!({"status": {"conditions": [condition]}}));
    let mut patch = Patch::status(ObjectRef::to::<Pod>(pod), vec![edit]);
    patch.uid = Some(uid.to_owned());
    Write::Patch(patch)
}

impl TaintEviction {
    fn evict(memory: &Memory, pod: &ObjKey, now: Time) -> Effect {
        let target = || ObjectRef::to::<Pod>(pod);
        match memory.firing.get(pod).map(|firing| &firing.step) {
            None => match memory.work.get(pod) {
                Some(Work::Timer { at, .. }) if *at > now => Effect::RestUntil(*at),
                Some(Work::Timer { .. }) => Effect::Note("fire"),
                Some(Work::Fired) | None => Effect::Rest,
            },
            Some(Step::Tell) => Effect::Record(told(pod, format!("Marking for deletion Pod {pod}"))),
            Some(Step::Read) => Effect::Read(Read::Get(target())),
            Some(Step::Mark(uid)) => Effect::write(mark(pod, uid, now)),
            Some(Step::Delete) => Effect::write(Write::Delete(Delete::new(target()))),
            Some(Step::Pause) => Effect::Wait(PAUSE),
            Some(Step::Over) => Effect::Rest,
        }
    }
}

impl Controller for TaintEviction {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn component(&self) -> Option<String> {
        Some(COMPONENT.to_owned())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node, Kind::Pod]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: Limiter::Controller,
        };
        // Every deletion is a goroutine of its own.
        vec![lane("noexec_taint", 8), lane("evictions", usize::MAX)]
    }

    fn lane(&self, key: &Key) -> usize {
        usize::from(matches!(key, Key::Evict(_)))
    }

    fn notice(&self, _: &Cache, memory: &mut Memory, delta: &Delta, _: Time, queue: &mut Requests<Key>) {
        if let Some((old, new)) = delta.of::<Node>() {
            let taints = |node: Option<&Arc<Node>>| node.map(|n| no_execute(n)).unwrap_or_default();
            if taints(old) != taints(new) {
                let name = fields::name(delta.object().meta());
                queue.add(Key::Node(name.into()));
            }
        } else if let Some((old, new)) = delta.of::<Pod>() {
            let matters = |pod: Option<&Arc<Pod>>| {
                let spec = pod.and_then(|p| p.spec.as_ref());
                spec.map(|s| (s.node_name.clone(), s.tolerations.clone()))
            };
            let key = delta.object().key();
            let node = new.map(|pod| fields::pod_node(pod)).unwrap_or_default();
            let concerns = memory.work.contains_key(&key) || memory.tainted.contains_key(node);
            if concerns && matters(old) != matters(new) {
                queue.add(Key::Pod(key));
            }
        }
    }

    fn decide(&self, _: &Cache, memory: &Memory, key: &Key, now: Time) -> Effect {
        match key {
            Key::Evict(pod) => Self::evict(memory, pod, now),
            Key::Node(_) | Key::Pod(_) => match memory.looked.get(key) {
                None => Effect::Note("look"),
                Some(events) => events.front().map_or(Effect::Rest, |e| Effect::Record(e.clone())),
            },
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        match (key, effect) {
            (Key::Evict(pod), _) => memory.fire(pod, outcome),
            (_, Effect::Record(_)) => {
                if let Some(events) = memory.looked.get_mut(key) {
                    events.pop_front();
                }
            }
            _ => {
                let events = memory.look(key, then);
                memory.looked.insert(key.clone(), events);
            }
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _: &Effect) {
        match key {
            Key::Evict(pod) => drop(memory.firing.remove(pod)),
            Key::Node(_) | Key::Pod(_) => drop(memory.looked.remove(key)),
        }
    }
}
