//! What a monitor pass does about one node: it announces it, or declares it Unknown, or has its taints put right.
//!
//! ```text
//! Register ─► (silent too long: PUT status ──refused──► GET, again, five times at most) ─► event ─► each ready pod: PUT status, event ─► taints
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};

use crate::api::{
    Cache, Clock, EventRecord, Index, Kind, ObjKey, Object, ObjectRef, Read, ReadAnswer, Resource, Write, fields,
};
use crate::control::{Effect, Learner, Outcome};
use crate::release::RELEASE;
use crate::runtime::Time;

use super::taints::{self, Sort};
use super::{Key, Memory, NodeLifecycle, TAINT_PERIOD};

/// Attempts of a pass to write a node's status, and the pause between them.
const ATTEMPTS: u32 = RELEASE.nodes.status_attempts;
const PAUSE: Duration = RELEASE.nodes.status_pause;

/// The conditions that a silent kubelet leaves behind.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What is known of a node's heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Its lease is being renewed.
    pub beats: bool,
    /// The pass that saw the last sign of life.
    probe: Time,
}

impl Health {
    /// A pass sees a sign of life at this moment.
    pub fn saw(&mut self, at: Time) {
        self.probe = self.probe.max(at);
    }
}

/// A node in a pass.
#[derive(Debug, Default)]
pub(super) struct Pass {
    todo: VecDeque<Todo>,
    attempts: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Todo {
    Tell(EventRecord),
    Declare(Box<Node>),
    Pause,
    Fetch,
    MarkPod(Box<Pod>),
}

impl NodeLifecycle {
    pub(super) fn monitor(&self, cache: &Cache, memory: &Memory, name: &Arc<str>, now: Time) -> Effect {
        let node = cache.named::<Node>(name);
        let Some(pass) = memory.passes.get(name) else {
            let due = match node {
                Some(node) => self.due(memory, name, node, now),
                None if memory.known.contains_key(name) => memory.pass(now, &self.flags),
                None => None,
            };
            return match due {
                None => Effect::Rest,
                Some(due) if due > now => Effect::RestUntil(due),
                Some(_) => Effect::Note("pass"),
            };
        };
        match pass.todo.front() {
            Some(Todo::Tell(event)) => Effect::Record(event.clone()),
            Some(Todo::Declare(node)) => Effect::write(Write::UpdateStatus(Object::new(Node::clone(node)))),
            Some(Todo::Pause) => Effect::Wait(PAUSE),
            Some(Todo::Fetch) => Effect::Read(Read::Get(ObjectRef::new(Kind::Node, ObjKey::cluster(Arc::clone(name))))),
            Some(Todo::MarkPod(pod)) => Effect::write(Write::UpdateStatus(Object::new(Pod::clone(pod)))),
            None => match node.and_then(|node| self.lapse(memory, name, node)) {
                Some(at) if at > now => Effect::RestUntil(at),
                _ => Effect::Rest,
            },
        }
    }

    /// The pass that has something to see at this node.
    pub(super) fn due(&self, memory: &Memory, name: &str, node: &Node, now: Time) -> Option<Time> {
        let next = memory.pass(now, &self.flags);
        let wrong = taints::is_wrong(node, Sort::NoExecute, memory.zones.all_down());
        if wrong || !memory.known.contains_key(name) {
            return next;
        }
        let lapse = self.lapse(memory, name, node)?;
        Some(lapse.max(next?))
    }

    /// The pass that declares a silent node Unknown.
    fn lapse(&self, memory: &Memory, name: &str, node: &Node) -> Option<Time> {
        let health = memory.health.get(name).copied().unwrap_or_default();
        let ready = fields::node_condition(node, "Ready");
        if health.beats || ready.is_some_and(|c| c.status == "Unknown") {
            return None;
        }
        let (since, grace) = if ready.is_some() {
            (health.probe, self.flags.node_monitor_grace_period)
        } else {
            let created = node.metadata.creation_timestamp.as_ref();
            let created = created.map_or(Time::ZERO, |t| Clock::EPOCH.moment(t));
            (created, self.flags.node_startup_grace_period)
        };
        memory.pass(since + grace, &self.flags)
    }

    pub(super) fn monitored(
        &self,
        memory: &mut Memory,
        name: &Arc<str>,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, Key>,
    ) {
        if let Effect::Note(_) = effect {
            let pass = self.begin(memory, name, then);
            memory.passes.insert(Arc::clone(name), pass);
            return;
        }
        let Some(pass) = memory.passes.get_mut(name) else {
            return;
        };
        match pass.todo.pop_front() {
            Some(Todo::Declare(_)) => match outcome.written() {
                Ok(written) => {
                    let node = written.object.get::<Node>().expect("a PUT of a Node answers a Node");
                    pass.declared(node, then);
                }
                Err(_) if pass.attempts < ATTEMPTS => pass.todo.push_front(Todo::Fetch),
                Err(_) => self.wake(memory, name, Time(then.now.0 + 1), then.queue),
            },
            Some(Todo::Fetch) => {
                pass.attempts += 1;
                if let Ok(ReadAnswer::Object(object)) = outcome.read()
                    && let Some(node) = object.get::<Node>()
                {
                    pass.todo.push_front(Todo::Declare(unknown(node, then.now).into()));
                    pass.todo.push_front(Todo::Pause);
                }
            }
            Some(Todo::MarkPod(pod)) => match outcome.written() {
                Ok(_) => {
                    let event = EventRecord::warning(&Object::new(*pod), "NodeNotReady", "Node is not ready");
                    pass.todo.push_front(Todo::Tell(event));
                }
                // Somebody else wrote it: once more, as it is now.
                Err(error) if error.is_conflict() => {
                    let known = then.cache.get::<Pod>(&ObjKey::of(&pod.metadata));
                    let newer = known.filter(|p| p.metadata.resource_version != pod.metadata.resource_version);
                    pass.todo
                        .extend(newer.and_then(|p| not_ready(p, then.now)).map(Todo::MarkPod));
                }
                Err(_) => {}
            },
            Some(Todo::Tell(_) | Todo::Pause) | None => {}
        }
    }

    fn begin(&self, memory: &mut Memory, name: &Arc<str>, then: &mut Learner<'_, Key>) -> Pass {
        let mut pass = Pass::default();
        let Some(node) = then.cache.named::<Node>(name).cloned() else {
            if let Some(uid) = memory.known.remove(name) {
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                pass.todo
                    .push_back(Todo::Tell(about(name, uid, "RemovingNode", message)));
            }
            return pass;
        };
        if !memory.known.contains_key(name) {
            let uid = fields::uid(&node.metadata).to_owned();
            memory.known.insert(Arc::clone(name), uid.clone());
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            pass.todo
                .push_back(Todo::Tell(about(name, uid, "RegisteredNode", message)));
        }
        if self.lapse(memory, name, &node).is_some_and(|at| at <= then.now) {
            pass.todo.push_back(Todo::Declare(unknown(&node, then.now).into()));
        } else if taints::is_wrong(&node, Sort::NoExecute, memory.zones.all_down()) {
            let at = if fields::is_node_ready(&node) {
                then.now
            } else {
                then.now + TAINT_PERIOD
            };
            then.queue.add_at(Key::NoExecute(Arc::clone(name)), at);
        }
        pass
    }
}

impl Pass {
    /// The node is Unknown now: it is said, its pods are no longer ready, its taint comes with the next tick.
    fn declared(&mut self, node: &Arc<Node>, then: &mut Learner<'_, Key>) {
        let name = fields::name(&node.metadata);
        let uid = fields::uid(&node.metadata).to_owned();
        let message = format!("Node {name} status is now: NodeNotReady");
        self.todo
            .push_back(Todo::Tell(about(name, uid, "NodeNotReady", message)));
        let pods = then.cache.by::<Pod>(Index::PodsByNode, name);
        let marked = pods.filter_map(|pod| not_ready(pod, then.now)).map(Todo::MarkPod);
        self.todo.extend(marked);
        then.queue.add_at(Key::NoExecute(name.into()), then.now + TAINT_PERIOD);
    }
}

/// An event about a node, which may be gone.
fn about(name: &str, uid: String, reason: &'static str, message: String) -> EventRecord {
    EventRecord {
        regarding: ObjectRef::new(Node::KIND, ObjKey::cluster(name)),
        uid,
        warning: false,
        reason,
        message,
        container: None,
    }
}

/// The node whose kubelet is silent.
pub(super) fn unknown(node: &Node, now: Time) -> Node {
    let mut node = node.clone();
    let created = node.metadata.creation_timestamp.clone();
    let stamp = Clock::EPOCH.time(now);
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in CONDITIONS {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: created.clone(),
                last_transition_time: Some(stamp.clone()),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(stamp.clone());
            }
            Some(_) => {}
        }
    }
    node
}

/// The pod with Ready=False, if it is ready.
pub(super) fn not_ready(pod: &Pod, now: Time) -> Option<Box<Pod>> {
    let mut pod = Box::new(pod.clone());
    let conditions = pod.status.as_mut()?.conditions.as_mut()?;
    let ready = conditions
        .iter_mut()
        .find(|c| c.type_ == "Ready" && c.status != "False")?;
    ready.status = "False".into();
    ready.last_transition_time = Some(Clock::EPOCH.time(now));
    Some(pod)
}
