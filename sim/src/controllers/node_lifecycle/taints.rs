//! The taints that follow from a node's conditions: which ones it should have, and how they come and go.
//!
//! | condition | NoSchedule | NoExecute |
//! |---|---|---|
//! | Ready=False | `not-ready` | `not-ready` |
//! | Ready=Unknown | `unreachable` | `unreachable` |
//! | MemoryPressure, DiskPressure, PIDPressure, NetworkUnavailable | of the same name | – |
//! | `spec.unschedulable` | `unschedulable` | – |
//!
//! ```text
//! Compare (informer) ─► GET ─► PATCH at that version ──409──► 100 ms, GET again
//! ```

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::api::{Cache, Clock, Edit, Kind, ObjKey, ObjectRef, Patch, Read, ReadAnswer, Write, fields, names};
use crate::control::{Effect, Learner, Outcome};
use crate::runtime::Time;

use super::{Key, Memory, NodeLifecycle, TAINT_PERIOD};

/// Which taints of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    NoSchedule,
    NoExecute,
}

impl Sort {
    fn effect(self) -> &'static str {
        match self {
            Sort::NoSchedule => "NoSchedule",
            Sort::NoExecute => "NoExecute",
        }
    }

    fn of(key: &Key) -> Sort {
        match key {
            Key::NoExecute(_) => Sort::NoExecute,
            Key::NoSchedule(_) | Key::Monitor(_) => Sort::NoSchedule,
        }
    }

    /// The keys that this controller alone adds and removes.
    fn managed(self) -> &'static [&'static str] {
        const ALL: [&str; 7] = [
            names::TAINT_NOT_READY,
            names::TAINT_UNREACHABLE,
            names::TAINT_UNSCHEDULABLE,
            "node.kubernetes.io/memory-pressure",
            "node.kubernetes.io/disk-pressure",
            "node.kubernetes.io/pid-pressure",
            "node.kubernetes.io/network-unavailable",
        ];
        match self {
            Sort::NoSchedule => &ALL,
            Sort::NoExecute => &ALL[..2],
        }
    }
}

/// Taints that are being changed.
#[derive(Debug)]
pub(super) enum Swap {
    Read,
    Patch(Vec<Taint>, u64),
    Over,
}

/// The keys of the taints of this sort that a node should have.
pub(super) fn wanted(node: &Node, sort: Sort, all_down: bool) -> Vec<&'static str> {
    let is = |kind: &str, status: &str| fields::node_condition(node, kind).is_some_and(|c| c.status == status);
    let mut wanted = Vec::new();
    if is("Ready", "False") {
        wanted.push(names::TAINT_NOT_READY);
    }
    if is("Ready", "Unknown") {
        wanted.push(names::TAINT_UNREACHABLE);
    }
    if sort == Sort::NoExecute {
        wanted.retain(|_| !all_down);
        return wanted;
    }
    let pressures = [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ];
    wanted.extend(
        pressures
            .iter()
            .filter(|(kind, _)| is(kind, "True"))
            .map(|(_, key)| *key),
    );
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push(names::TAINT_UNSCHEDULABLE);
    }
    wanted
}

/// Whether a node has other taints of this sort than it should.
pub(super) fn is_wrong(node: &Node, sort: Sort, all_down: bool) -> bool {
    let wanted = wanted(node, sort, all_down);
    let mine = |t: &&Taint| t.effect == sort.effect() && sort.managed().contains(&t.key.as_str());
    let present: Vec<&Taint> = fields::taints(node).iter().filter(mine).collect();
    present.len() != wanted.len() || present.iter().any(|t| !wanted.contains(&t.key.as_str()))
}

/// The taints of a node put right.
fn corrected(node: &Node, sort: Sort, wanted: &[&'static str], now: Time) -> Vec<Taint> {
    let mut taints = fields::taints(node).to_vec();
    taints.retain(|t| {
        let mine = t.effect == sort.effect() && sort.managed().contains(&t.key.as_str());
        !mine || wanted.contains(&t.key.as_str())
    });
    for key in wanted {
        if !taints.iter().any(|t| t.effect == sort.effect() && t.key == *key) {
            taints.push(Taint {
                key: (*key).into(),
                effect: sort.effect().into(),
                time_added: Some(Clock::EPOCH.time(now)),
                value: None,
            });
        }
    }
    taints
}

impl NodeLifecycle {
    pub(super) fn swap(&self, cache: &Cache, memory: &Memory, key: &Key, name: &Arc<str>, now: Time) -> Effect {
        let sort = Sort::of(key);
        let target = || ObjectRef::new(Kind::Node, ObjKey::cluster(Arc::clone(name)));
        match memory.swaps.get(key) {
            None => {
                let node = cache.named::<Node>(name);
                let Some(node) = node.filter(|n| is_wrong(n, sort, memory.zones.all_down())) else {
                    return Effect::Rest;
                };
                let adds = sort == Sort::NoExecute && !wanted(node, sort, memory.zones.all_down()).is_empty();
                if adds && !has_other(node) {
                    match memory.zones.turn(node, &self.flags) {
                        // Not while the zone is as it is: its change wakes the node again.
                        None => return Effect::Rest,
                        Some(turn) if turn > now => return Effect::RestUntil(self.taint_tick(memory, turn)),
                        Some(_) => {}
                    }
                }
                Effect::Note("swap")
            }
            Some(Swap::Read) => Effect::Read(Read::Get(target())),
            Some(Swap::Patch(taints, version)) => {
                let patch = Patch::new(target(), vec![Edit::Taints(taints.clone())]);
                Effect::write(Write::Patch(patch.at_version(*version)))
            }
            Some(Swap::Over) => Effect::Rest,
        }
    }

    fn taint_tick(&self, memory: &Memory, at: Time) -> Time {
        memory.started.map_or(at, |phase| at.tick(phase, TAINT_PERIOD))
    }

    pub(super) fn swapped(
        memory: &mut Memory,
        key: &Key,
        name: &Arc<str>,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, Key>,
    ) {
        let sort = Sort::of(key);
        let all_down = memory.zones.all_down();
        let next = match effect {
            Effect::Note(_) => {
                let node = then.cache.named::<Node>(name);
                let adds = |n: &&Arc<Node>| sort == Sort::NoExecute && !wanted(n, sort, all_down).is_empty();
                if let Some(node) = node.filter(adds).filter(|n| !has_other(n)) {
                    memory.zones.spend(node, then.now);
                }
                Swap::Read
            }
            Effect::Read(_) => match outcome.read() {
                Ok(ReadAnswer::Object(object)) => {
                    let live = object.get::<Node>().expect("a GET of a Node answers a Node");
                    // What is wanted follows from what the informer shows.
                    let known = then.cache.named::<Node>(name).unwrap_or(live);
                    let taints = corrected(live, sort, &wanted(known, sort, all_down), then.now);
                    if taints == fields::taints(live) {
                        Swap::Over
                    } else {
                        Swap::Patch(taints, object.version())
                    }
                }
                _ => Swap::Over,
            },
            _ => {
                if outcome.written().is_err_and(|e| e.is_conflict()) {
                    then.queue.add_at(key.clone(), then.now + TAINT_PERIOD);
                }
                Swap::Over
            }
        };
        memory.swaps.insert(key.clone(), next);
    }
}

/// Whether the node has one of the two NoExecute taints already: then the other takes its place without waiting for its turn.
fn has_other(node: &Node) -> bool {
    let keys = Sort::NoExecute.managed();
    fields::taints(node)
        .iter()
        .any(|t| t.effect == "NoExecute" && keys.contains(&t.key.as_str()))
}
