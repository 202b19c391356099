//! Where may a pod go? The filters of one scheduling cycle, and the choice among the nodes that pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::api::storage::v1::CSINode;

use super::memory::{Memory, Seat, Trigger};
use super::volumes::{self, Needs, Plan};
use super::{Flags, Scheduler};
use crate::api::{Cache, Index, fields};
use crate::controllers::binder::affinity;
use crate::runtime::Chance;

/// The end of a scheduling cycle.
pub(super) enum Verdict {
    /// It goes to this node, and this is to be done about its claims.
    Fits {
        /// The node.
        node: Arc<str>,
        /// What is to be written before the pod is bound.
        plan: Plan,
    },
    /// It fits nowhere.
    Fails {
        /// As in the event: `0/3 nodes are available: …`.
        message: String,
        /// What may help.
        triggers: BTreeSet<Trigger>,
    },
}

/// A filter's refusal of one node.
pub(super) struct Refusal {
    /// The reason as the event words it.
    pub reason: &'static str,
    /// What may help.
    pub triggers: &'static [Trigger],
}

/// Runs one scheduling cycle.
pub(super) fn schedule(cache: &Cache, memory: &Memory, scheduler: &Scheduler, pod: &Pod) -> Verdict {
    let (flags, chance) = (&scheduler.flags, &scheduler.chance);
    let all = memory.nodes.values().filter(|seat| seat.node.is_some()).count();
    let needs = match volumes::needs(cache, memory, pod) {
        Ok(needs) => needs,
        Err((reason, triggers)) => {
            return Verdict::Fails {
                message: format!("0/{all} nodes are available: {reason}"),
                triggers,
            };
        }
    };
    let mut refusals: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut triggers = BTreeSet::new();
    let mut best: Option<(usize, u64, &Arc<str>, Plan)> = None;
    let mut found = 0;
    for (name, seat) in candidates(memory, chance, pod, all) {
        let Some(node) = &seat.node else { continue };
        match fits(cache, memory, flags, pod, &needs, seat, node) {
            Err(refusal) => {
                *refusals.entry(refusal.reason).or_default() += 1;
                triggers.extend(refusal.triggers);
            }
            Ok(plan) => {
                found += 1;
                let pods = seat.pods.len();
                if best.as_ref().is_none_or(|(least, ..)| pods <= *least) {
                    let draw = draw(chance, pod, name);
                    if best.as_ref().is_none_or(|(p, d, ..)| (pods, draw) < (*p, *d)) {
                        best = Some((pods, draw, name, plan));
                    }
                }
                if found >= wanted(all) {
                    break;
                }
            }
        }
    }
    if let Some((_, _, node, plan)) = best {
        return Verdict::Fits {
            node: Arc::clone(node),
            plan,
        };
    }
    triggers.insert(Trigger::Node);
    let reasons: Vec<String> = refusals.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let reasons = if reasons.is_empty() {
        "no nodes available to schedule pods".into()
    } else {
        reasons.join(", ")
    };
    Verdict::Fails {
        message: format!("0/{all} nodes are available: {reasons}."),
        triggers,
    }
}

fn draw(chance: &Chance, pod: &Pod, node: &str) -> u64 {
    let name = [
        "scheduler",
        fields::namespace(&pod.metadata),
        fields::name(&pod.metadata),
        node,
    ];
    chance.below(u64::MAX >> 12, &name, 0)
}

/// How many nodes that fit are enough: all up to 100, then a share that falls from 50 % to 5 % (`percentageOfNodesToScore` unset).
fn wanted(nodes: usize) -> usize {
    if nodes < 100 {
        return nodes.max(1);
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(100)
}

/// The nodes in the order in which they are looked at: in order of name, from a start that depends on the pod where there are too many to look at all.
fn candidates<'m>(
    memory: &'m Memory,
    chance: &Chance,
    pod: &Pod,
    all: usize,
) -> impl Iterator<Item = (&'m Arc<str>, &'m Seat)> + use<'m> {
    let start = if all < 100 {
        0
    } else {
        draw(chance, pod, "start") as usize % memory.nodes.len()
    };
    memory.nodes.iter().skip(start).chain(memory.nodes.iter().take(start))
}

fn fits(
    cache: &Cache,
    memory: &Memory,
    flags: &Flags,
    pod: &Pod,
    needs: &Needs,
    seat: &Seat,
    node: &Node,
) -> Result<Plan, Refusal> {
    tolerates(pod, node)?;
    selects(pod, node)?;
    if seat.pods.len() >= flags.max_pods {
        return Err(Refusal {
            reason: "Too many pods",
            triggers: &[Trigger::PodGone],
        });
    }
    let plan = volumes::fit(cache, memory, needs, node)?;
    within_limits(cache, memory, needs, fields::name(&node.metadata))?;
    Ok(plan)
}

fn tolerates(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let spec = node.spec.as_ref();
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|s| s.tolerations.as_deref())
        .unwrap_or_default();
    if spec.is_some_and(|s| s.unschedulable == Some(true)) {
        let cordon = Taint {
            key: crate::api::names::TAINT_UNSCHEDULABLE.into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if !tolerations.iter().any(|t| fields::tolerates(t, &cordon)) {
            return Err(Refusal {
                reason: "node(s) were unschedulable",
                triggers: &[Trigger::Node],
            });
        }
    }
    let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let hard = taints
        .iter()
        .filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    if hard
        .into_iter()
        .any(|taint| !tolerations.iter().any(|t| fields::tolerates(t, taint)))
    {
        return Err(Refusal {
            reason: "node(s) had untolerated taint(s)",
            triggers: &[Trigger::Node],
        });
    }
    Ok(())
}

fn selects(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let refused = || Refusal {
        reason: "node(s) didn't match Pod's node affinity/selector",
        triggers: &[Trigger::Node],
    };
    let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
    let labels = node.metadata.labels.as_ref();
    let wanted = spec.node_selector.iter().flatten();
    for (key, value) in wanted {
        if labels.and_then(|l| l.get(key)) != Some(value) {
            return Err(refused());
        }
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    if required.is_some_and(|r| !affinity::selects_node(r, node)) {
        return Err(refused());
    }
    Ok(())
}

/// NodeVolumeLimits: what a driver says it can attach to a node, against what pods and attachments there use already.
fn within_limits(cache: &Cache, memory: &Memory, needs: &Needs, node: &str) -> Result<(), Refusal> {
    let wanted = &needs.handles;
    let drivers: BTreeSet<&str> = wanted.iter().map(|(driver, _)| driver.as_str()).collect();
    for driver in drivers {
        let Some(limit) = limit_of(cache, node, driver) else {
            continue;
        };
        let used = volumes::used_on(cache, memory, node, driver);
        let new = wanted
            .iter()
            .filter(|(d, handle)| d == driver && !used.contains(handle))
            .count();
        if new > 0 && used.len() + new > limit {
            return Err(Refusal {
                reason: "node(s) exceed max volume count",
                triggers: &[Trigger::CsiNode, Trigger::PodGone, Trigger::Detached, Trigger::Claim],
            });
        }
    }
    Ok(())
}

fn limit_of(cache: &Cache, node: &str, driver: &str) -> Option<usize> {
    let drivers = &cache.named::<CSINode>(node)?.spec.drivers;
    let count = drivers.iter().find(|d| d.name == driver)?.allocatable.as_ref()?.count?;
    usize::try_from(count).ok()
}

/// Pods other than `pod` that use a claim, terminated ones not counted.
pub(super) fn other_users<'a>(cache: &'a Cache, pod: &Pod, claim: &str) -> impl Iterator<Item = &'a Arc<Pod>> {
    let own = fields::uid(&pod.metadata).to_owned();
    cache
        .by::<Pod>(Index::PodsByClaim, claim)
        .filter(move |p| fields::uid(&p.metadata) != own && !fields::is_terminated(p))
}
