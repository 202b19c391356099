//! The node status round: `volumesInUse` and the Node's conditions (fact sheet 6.17).
//!
//! ```text
//! wait for the round ─► Compare (Node as cached; after a failure: live) ─► Patch, if anything differs ─► mark what is reported in use
//!                            ▲                                               │ error, at most 5 attempts
//!                            └───────────────────────────────────────────────┘
//! ```
//!
//! A round every 10 s, each up to 4 % late. A round that would change nothing and mark nothing is not run, and none while the registration fails, for a
//! round begins with it (`syncNodeStatus`). Before every reconstructed volume is resolved,
//! `volumesInUse` is left alone: the value from before the restart protects from detaching.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use serde_json::json;

use super::actual::Attached;
use super::operations::{get, read};
use super::reconciler::are_states_synced;
use super::{Key, Memory, Turn, View};
use crate::api::{Clock, Edit, EventRecord, ObjKey, Object, ObjectRef, Patch, Write, fields};
use crate::control::{Effect, Outcome};
use crate::runtime::Time;

/// What the status rounds remember.
#[derive(Clone, Debug, Default)]
pub struct NodeStatus {
    /// The next round, and its number.
    round: Option<(Time, u64)>,
    attempt: Option<Attempt>,
}

#[derive(Clone, Debug, Default)]
struct Attempt {
    nth: u32,
    live: Option<Arc<Node>>,
    over: bool,
}

impl NodeStatus {
    /// The rounds begin.
    pub fn begin(&mut self, at: Time) {
        self.round = Some((at, 0));
    }

    /// The sync of the key ended.
    pub fn ended(&mut self) {
        self.attempt = None;
    }

    /// Moves the next round to this moment or later.
    fn advance(&mut self, view_now: Time, after: impl Fn(Time, u64) -> Time) {
        while let Some((at, nth)) = self.round
            && at < view_now
        {
            self.round = Some((after(at, nth), nth + 1));
        }
    }
}

/// Volumes that this node uses: attachable ones that a pod wants, and attached ones that are still here.
pub fn volumes_in_use(memory: &Memory) -> Vec<String> {
    let wanted = memory.desired.volumes.iter().filter(|(_, v)| v.attachable);
    let wanted = wanted.map(|(name, _)| name.as_str().to_owned());
    let here = memory.actual.volumes.iter();
    let here = here.filter(|(_, v)| v.attached == Attached::Yes);
    let all: BTreeSet<String> = wanted.chain(here.map(|(n, _)| n.as_str().to_owned())).collect();
    all.into_iter().collect()
}

/// What a round would change on this Node.
fn edits(memory: &Memory, node: &Node, now: Time) -> Vec<Edit> {
    let mut edits = Vec::new();
    if !fields::is_node_ready(node) {
        edits.push(Edit::Merge(
            json!({ "status": { "conditions": conditions(node, now) } }),
        ));
    }
    let in_use = volumes_in_use(memory);
    if are_states_synced(memory) && fields::volumes_in_use(node) != in_use {
        edits.push(Edit::VolumesInUse(in_use));
    }
    edits
}

/// Whether a round would have an effect.
fn is_needed(view: &View<'_>, node: &Node) -> bool {
    let reported = fields::volumes_in_use(node);
    let volumes = view.memory.desired.volumes.iter();
    let mut attachable = volumes.filter(|(_, v)| v.attachable);
    let unmarked = attachable.any(|(name, v)| v.reported_in_use != reported.iter().any(|r| r == name.as_str()));
    unmarked || !edits(view.memory, node, view.now).is_empty()
}

/// The conditions of a healthy node; those of other owners stay.
pub fn conditions(node: &Node, now: Time) -> Vec<NodeCondition> {
    let old = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    let healthy = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let stamp = Clock::EPOCH.time(now);
    let own = healthy.iter().map(|(kind, status, reason, message)| {
        let known = old.iter().find(|c| c.type_ == *kind && c.status == *status);
        NodeCondition {
            type_: (*kind).into(),
            status: (*status).into(),
            reason: Some((*reason).into()),
            message: Some((*message).into()),
            last_heartbeat_time: Some(stamp.clone()),
            last_transition_time: known
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(stamp.clone())),
        }
    });
    let foreign = old.iter().filter(|c| healthy.iter().all(|(kind, ..)| c.type_ != *kind));
    own.chain(foreign.cloned()).collect()
}

/// What next?
pub fn decide(view: &View<'_>) -> Effect {
    let status = &view.memory.node_status;
    let Some((round, _)) = status.round else {
        return Effect::Rest;
    };
    let cached = view.cache.named::<Node>(&view.kubelet.node);
    let Some(attempt) = &status.attempt else {
        let Some(node) = cached.filter(|n| is_needed(view, n)) else {
            return Effect::Rest;
        };
        debug_assert_eq!(fields::name(&node.metadata), &*view.kubelet.node);
        if view.memory.startup.is_refused() {
            return Effect::Rest;
        }
        return match round {
            at if at < view.now => Effect::Note("count rounds"),
            at if at > view.now => Effect::RestUntil(at),
            _ => Effect::Note("round"),
        };
    };
    let node = attempt.live.as_ref().or(cached.filter(|_| attempt.nth == 0));
    let Some(node) = node.filter(|_| !attempt.over) else {
        return if attempt.over {
            Effect::Rest
        } else {
            get::<Node>(&ObjKey::cluster(Arc::clone(&view.kubelet.node)))
        };
    };
    match edits(view.memory, node, view.now) {
        none if none.is_empty() => Effect::Note("nothing new"),
        edits => {
            let target = ObjectRef::to::<Node>(&ObjKey::cluster(Arc::clone(&view.kubelet.node)));
            Effect::write(Write::Patch(Patch::status(target, edits)))
        }
    }
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, effect: &Effect, outcome: &Outcome) {
    match effect {
        Effect::Note("count rounds") => {
            let kubelet = turn.kubelet;
            let period = kubelet.flags.node_status_update_frequency;
            turn.memory.node_status.advance(turn.now, |at, nth| {
                let jitter = kubelet.chance.unit(&["kubelet", &kubelet.node, "status-round"], nth);
                at + period.mul_f64(1.0 + 0.04 * jitter)
            });
        }
        Effect::Note("round") => {
            turn.memory.node_status.attempt = Some(Attempt::default());
            // The present round is spent.
            let (at, nth) = turn.memory.node_status.round.expect("a round is due");
            turn.memory.node_status.round = Some((Time(at.0.saturating_sub(1)), nth));
            learn(turn, &Effect::Note("count rounds"), outcome);
        }
        Effect::Note(_) => {
            let live = turn.memory.node_status.attempt.as_ref().and_then(|a| a.live.clone());
            let node = live.or_else(|| turn.cache.named::<Node>(&turn.kubelet.node).cloned());
            if let Some(node) = node {
                mark(turn, &node);
            }
        }
        Effect::Read(_) => match read::<Node>(outcome) {
            Ok(node) => {
                let attempt = turn.memory.node_status.attempt.get_or_insert_default();
                attempt.live = Some(node);
            }
            Err(_) => failed(turn),
        },
        _ => match outcome.written() {
            Ok(written) => {
                let node = written.object.get::<Node>().map(Arc::clone);
                let node = node.expect("a patch of a Node answers a Node");
                tell_if_ready_again(turn, effect, &node);
                mark(turn, &node);
            }
            Err(_) => failed(turn),
        },
    }
}

/// A round that wrote the conditions made the Node ready again: that is told.
fn tell_if_ready_again(turn: &mut Turn<'_>, effect: &Effect, node: &Arc<Node>) {
    let Effect::Write(Write::Patch(patch)) = effect else {
        return;
    };
    if patch.edits.iter().any(|edit| matches!(edit, Edit::Merge(_))) {
        let message = format!("Node {} status is now: NodeReady", turn.kubelet.node);
        let event = EventRecord::normal(&Object::Node(Arc::clone(node)), "NodeReady", message);
        turn.record(Key::NodeStatus, event);
    }
}

/// The Node says which volumes are in use: that is what mounting waits for.
fn mark(turn: &mut Turn<'_>, node: &Node) {
    if are_states_synced(turn.memory) && turn.memory.desired.mark_reported(fields::volumes_in_use(node)) {
        turn.wake_reconciler();
    }
    over(turn);
}

fn failed(turn: &mut Turn<'_>) {
    let limit = turn.kubelet.constants.node_status_attempts;
    let attempt = turn.memory.node_status.attempt.get_or_insert_default();
    (attempt.nth, attempt.live) = (attempt.nth + 1, None);
    if attempt.nth >= limit {
        over(turn);
    }
}

fn over(turn: &mut Turn<'_>) {
    turn.memory.node_status.attempt.get_or_insert_default().over = true;
    // Another look decides whether a further round has anything to do.
    turn.queue.add(Key::NodeStatus);
}
