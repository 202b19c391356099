//! How many nodes of a zone may be tainted NoExecute, and how fast.
//!
//! | zone | nodes a second |
//! |---|---|
//! | some node is ready, or not all zones are down | `--node-eviction-rate` |
//! | more than two nodes and `--unhealthy-zone-threshold` of all are not ready | `--secondary-node-eviction-rate`; none up to `--large-cluster-size-threshold` nodes |
//! | no node of any zone is ready | none, and the taints that are there go |
//!
//! Blind spot: a change of the rate keeps the token that was spent; in Kubernetes the new limiter begins with a full one.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use crate::api::{fields, names};
use crate::runtime::Time;

use super::Flags;

/// A node with this label is not counted.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// The nodes of all zones, counted.
#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: BTreeMap<String, Zone>,
}

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    silent: usize,
    /// When the last node was tainted.
    spent: Option<Time>,
}

/// How a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Nearly all is well.
    Normal,
    /// Too many nodes are not ready.
    Partial,
    /// No node is ready.
    Full,
}

/// What an event changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// No node of any zone is ready any more.
    pub all_down_began: bool,
    /// Nodes that could not be tainted may be tainted now.
    pub eased: bool,
}

impl Zone {
    fn state(&self, flags: &Flags) -> State {
        let total = self.ready + self.silent;
        if self.ready == 0 && self.silent > 0 {
            State::Full
        } else if self.silent > 2 && share(self.silent, total) >= flags.unhealthy_zone_threshold {
            State::Partial
        } else {
            State::Normal
        }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    count(part) / count(whole)
}

impl Zones {
    /// Counts a node anew.
    pub fn change(&mut self, old: Option<&Node>, new: Option<&Node>, flags: &Flags) -> Changed {
        let counts_alike = |old: &Node, new: &Node| {
            fields::is_node_ready(old) == fields::is_node_ready(new) && old.metadata.labels == new.metadata.labels
        };
        if old.zip(new).is_some_and(|(old, new)| counts_alike(old, new)) {
            return Changed::default();
        }
        let touched: Vec<String> = [old, new].into_iter().flatten().map(zone_of).collect();
        let states = |zones: &Zones| -> Vec<Option<State>> {
            touched
                .iter()
                .map(|z| zones.zones.get(z).map(|z| z.state(flags)))
                .collect()
        };
        let (was_down, before) = (self.all_down(), states(self));
        for (node, counts) in [(old, false), (new, true)] {
            let Some(node) = node.filter(|n| is_counted(n)) else {
                continue;
            };
            let zone = self.zones.entry(zone_of(node)).or_default();
            let count = if fields::is_node_ready(node) {
                &mut zone.ready
            } else {
                &mut zone.silent
            };
            *count = if counts { *count + 1 } else { count.saturating_sub(1) };
        }
        let (down, after) = (self.all_down(), states(self));
        Changed {
            all_down_began: down && !was_down,
            eased: !down
                && (was_down
                    || before
                        .iter()
                        .zip(&after)
                        .any(|(b, a)| *b == Some(State::Partial) && a != b)),
        }
    }

    /// Whether no node of any zone is ready.
    pub fn all_down(&self) -> bool {
        let mut counted = self.zones.values().filter(|z| z.ready + z.silent > 0).peekable();
        counted.peek().is_some() && counted.all(|z| z.ready == 0)
    }

    /// When the next node of a zone may be tainted; `None` while its state forbids it.
    pub fn turn(&self, node: &Node, flags: &Flags) -> Option<Time> {
        let Some(zone) = self.zones.get(&zone_of(node)) else {
            return Some(Time::ZERO);
        };
        let large = zone.ready + zone.silent > flags.large_cluster_size_threshold;
        let rate = match zone.state(flags) {
            State::Normal | State::Full => flags.node_eviction_rate,
            State::Partial if large => flags.secondary_node_eviction_rate,
            State::Partial => 0.0,
        };
        let pause = (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate))?;
        Some(zone.spent.map_or(Time::ZERO, |spent| spent + pause))
    }

    /// A node of the zone takes its turn.
    pub fn spend(&mut self, node: &Node, now: Time) {
        self.zones.entry(zone_of(node)).or_default().spent = Some(now);
    }
}

fn is_counted(node: &Node) -> bool {
    fields::label(&node.metadata, EXCLUDED).is_none()
}

fn zone_of(node: &Node) -> String {
    let label = |key| fields::label(&node.metadata, key).unwrap_or_default();
    format!("{}/{}", label(names::REGION), label(names::ZONE))
}
