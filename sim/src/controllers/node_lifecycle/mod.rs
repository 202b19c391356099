//! The node lifecycle controller of kube-controller-manager: a node whose kubelet is silent becomes Unknown, is tainted, and its pods are no longer ready.
//!
//! ```text
//! last lease renewed ─► the next pass (5 s) sees it ─► 50 s without another ─► Ready=Unknown ─┬─► pods Ready=False
//!                                                                                            ├─► taint unreachable:NoSchedule  (the node's own event)
//!                                                                                            └─► taint unreachable:NoExecute   (the next 100 ms tick)
//! kubelet writes Ready=True ─┬─► NoSchedule goes (the node's own event)
//!                            └─► NoExecute goes (the next pass)
//! ```
//!
//! Source: Kubernetes `pkg/controller/nodelifecycle` v1.36; fact sheet 10.6; traces 20, 20b, 20c, 20e. `health` holds what a pass does about one node, `taints` the two
//! kinds of taint, `zones` how many nodes may be evicted at once. What happens to the pods then is `taint_eviction`'s and `pod_gc`'s.
//!
//! A pass looks at nodes that have something to see and at no others: heartbeats are not written, the cluster tells when they begin and end
//! ([`Signal::HeartbeatsBegin`], [`Signal::HeartbeatsEnd`]).
//!
//! *Blind spots.* All nodes of a pass are looked at in one moment; eight workers do it in Kubernetes. Taints are added and removed in one patch, not two. The state
//! of a zone changes with its nodes and not at the end of a pass. A node's status counts as a sign of life when the heartbeat in its Ready condition changes, which
//! the modelled kubelet does only when it comes back. No labels are reconciled, no DaemonSets known.

mod health;
mod taints;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use crate::api::{Cache, Delta, Index, Kind, Limiter, fields};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell, Signal};
use crate::release::RELEASE;
use crate::runtime::Time;

use health::{Health, Pass};
use taints::{Sort, Swap};
use zones::Zones;

/// The component in its events.
pub const COMPONENT: &str = "node-controller";

/// The indexes that its process must keep.
pub const INDEXES: &[Index] = &[Index::PodsByNode];

/// How often nodes that wait for their NoExecute taint are looked at.
const TAINT_PERIOD: Duration = RELEASE.nodes.taint_period;

/// Flags of kube-controller-manager that concern it.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// How often nodes are looked at.
    pub node_monitor_period: Duration,
    /// Silence after which a node is Unknown.
    pub node_monitor_grace_period: Duration,
    /// The same for a node that never said how it is.
    pub node_startup_grace_period: Duration,
    /// Nodes a second that are tainted NoExecute, in a healthy zone.
    pub node_eviction_rate: f64,
    /// The same in an unhealthy zone.
    pub secondary_node_eviction_rate: f64,
    /// The share of nodes that are not ready that makes a zone unhealthy.
    pub unhealthy_zone_threshold: f64,
    /// The most nodes of a zone in which eviction stops when it is unhealthy.
    pub large_cluster_size_threshold: usize,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            node_monitor_period: Duration::from_secs(5),
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_cluster_size_threshold: 50,
        }
    }
}

/// The controller.
#[derive(Clone, Debug, Default)]
pub struct NodeLifecycle {
    flags: Flags,
}

/// The controller at work, for kube-controller-manager.
pub fn shells(flags: &Flags) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(NodeLifecycle::new(flags.clone())))]
}

/// What one sync is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A node in a monitor pass.
    Monitor(Arc<str>),
    /// The NoSchedule taints of a node.
    NoSchedule(Arc<str>),
    /// The NoExecute taints of a node.
    NoExecute(Arc<str>),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Monitor(node) | Key::NoSchedule(node) | Key::NoExecute(node) => write!(f, "node {node}"),
        }
    }
}

/// What the controller knows and a restart forgets: so the grace period begins anew when the process does.
#[derive(Debug, Default)]
pub struct Memory {
    /// Its loops count from here.
    started: Option<Time>,
    health: BTreeMap<Arc<str>, Health>,
    /// The nodes that were announced, with their UIDs.
    known: BTreeMap<Arc<str>, String>,
    passes: BTreeMap<Arc<str>, Pass>,
    swaps: BTreeMap<Key, Swap>,
    zones: Zones,
}

impl Memory {
    /// The first monitor pass at or after a moment.
    fn pass(&self, at: Time, flags: &Flags) -> Option<Time> {
        self.started.map(|phase| at.tick(phase, flags.node_monitor_period))
    }

    fn health(&mut self, node: &str) -> &mut Health {
        self.health.entry(node.into()).or_default()
    }
}

impl NodeLifecycle {
    /// With these flags.
    pub fn new(flags: Flags) -> NodeLifecycle {
        NodeLifecycle { flags }
    }

    /// A pass has something to see: the next one.
    fn wake(&self, memory: &Memory, node: &str, now: Time, queue: &mut Requests<Key>) {
        if let Some(at) = memory.pass(now, &self.flags) {
            queue.add_at(Key::Monitor(node.into()), at);
        }
    }

    fn notice_node(&self, cache: &Cache, memory: &mut Memory, sides: Change<'_>, now: Time, queue: &mut Requests<Key>) {
        let Some(node) = sides.new.or(sides.old) else { return };
        let name = fields::name(&node.metadata);
        let zones = memory.zones.change(sides.old, sides.new, &self.flags);
        if let Some(new) = sides.new {
            let heard = |node: &Node| fields::node_condition(node, "Ready").and_then(|c| c.last_heartbeat_time.clone());
            if sides.old.is_none_or(|old| heard(old) != heard(new)) {
                let seen = memory.pass(now, &self.flags).unwrap_or(now);
                memory.health(name).saw(seen);
            }
            if taints::is_wrong(new, Sort::NoSchedule, memory.zones.all_down()) {
                queue.add(Key::NoSchedule(name.into()));
            }
        }
        let due = match sides.new {
            Some(new) => self.due(memory, name, new, now),
            None => memory.pass(now, &self.flags),
        };
        if let Some(due) = due {
            queue.add_at(Key::Monitor(name.into()), due);
        }
        if zones.all_down_began {
            // No pod is evicted because of a node while no node at all is ready: that is more likely to be the control plane's fault.
            let tainted = cache.list::<Node>().map(|n| fields::name(&n.metadata));
            tainted.for_each(|name| queue.add(Key::NoExecute(name.into())));
        } else if zones.eased {
            let all = cache.list::<Node>().filter(|n| !fields::is_node_ready(n));
            all.for_each(|n| self.wake(memory, fields::name(&n.metadata), now, queue));
        }
    }
}

/// A node before and after an event.
#[derive(Clone, Copy)]
struct Change<'a> {
    old: Option<&'a Node>,
    new: Option<&'a Node>,
}

impl Controller for NodeLifecycle {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn component(&self) -> Option<String> {
        Some(COMPONENT.to_owned())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node, Kind::Pod]
    }

    fn hears_heartbeats(&self) -> bool {
        true
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: Limiter::Controller,
        };
        vec![lane("monitor", 8), lane("node_update", 8), lane("no_execute", 1)]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Monitor(_) => 0,
            Key::NoSchedule(_) => 1,
            Key::NoExecute(_) => 2,
        }
    }

    fn start(&self, cache: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<Key>) {
        memory.started = Some(now);
        for node in cache.list::<Node>() {
            let name = fields::name(&node.metadata);
            memory.health(name).saw(now);
            queue.add(Key::Monitor(name.into()));
        }
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        if let Some((old, new)) = delta.of::<Node>() {
            let sides = Change {
                old: old.map(|n| &**n),
                new: new.map(|n| &**n),
            };
            self.notice_node(cache, memory, sides, now, queue);
        }
    }

    fn signal(&self, memory: &mut Memory, signal: &Signal, _: Time, queue: &mut Requests<Key>) {
        match signal {
            Signal::HeartbeatsBegin { node } => memory.health(node).beats = true,
            Signal::HeartbeatsEnd { node, last } => {
                let seen = memory.pass(Time(last.0 + 1), &self.flags);
                let health = memory.health(node);
                health.beats = false;
                health.saw(seen.unwrap_or(*last));
                if seen.is_some() {
                    queue.add(Key::Monitor(node.as_str().into()));
                }
            }
            _ => {}
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, key: &Key, now: Time) -> Effect {
        match key {
            Key::Monitor(name) => self.monitor(cache, memory, name, now),
            Key::NoSchedule(name) | Key::NoExecute(name) => self.swap(cache, memory, key, name, now),
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        match key {
            Key::Monitor(name) => self.monitored(memory, name, effect, outcome, then),
            Key::NoSchedule(name) | Key::NoExecute(name) => Self::swapped(memory, key, name, effect, outcome, then),
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _: &Effect) {
        match key {
            Key::Monitor(name) => drop(memory.passes.remove(name)),
            Key::NoSchedule(_) | Key::NoExecute(_) => drop(memory.swaps.remove(key)),
        }
    }
}
