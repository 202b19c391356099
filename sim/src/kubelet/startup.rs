//! The start of a kubelet, and of a new one after a crash (fact sheet 6.11; timing of traces 17, 20 and 20e).
//!
//! ```text
//! Boot (0.36 s and more) ─► Running ─► Walk (reconstruction) ─► Loops begin ─► Delay ─► Create Node ─exists─► ReadNode ─► CsiNode ─► Done
//!                                                                  └─ 1 s later: pods are seen (Key::Sources)
//! ```
//!
//! Until the loops begin nothing else of this kubelet acts.
//!
//! *Blind spots.* A node that is there when the run begins has been there for long: the phases of its status rounds and statistics are drawn, not counted from
//! the start. Registration does not correct labels of an existing Node.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeStatus, Pod};
use k8s_openapi::api::storage::v1::{CSINode, CSINodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::operations::{get, read};
use super::reconstruction::Walk;
use super::{Constants, Key, Kubelet, Turn, View, node_status, pod_workers};
use crate::api::{ApiError, Delete, EventRecord, Index, ObjKey, Object, ObjectRef, Resource, Write, fields, names};
use crate::control::{Effect, Outcome};
use crate::link::{MachineAnswer, MachineOp};
use crate::runtime::Time;

/// Where the loops of this incarnation stand: all of them begin at once, and differ in when they are next due.
#[derive(Clone, Copy, Debug)]
pub struct Loops {
    /// A tick of the reconciler.
    pub reconciler: Time,
    /// A tick of the populator.
    pub populator: Time,
    /// A tick of the plugin manager.
    pub plugins: Time,
    /// A relist of PLEG.
    pub pleg: Time,
    /// A tick of housekeeping.
    pub housekeeping: Time,
    /// A tick at which statistics of new pods begin.
    pub stats: Time,
}

impl Loops {
    /// Loops that are all due at one moment, for unit tests.
    #[cfg(test)]
    pub fn all_at(at: Time) -> Loops {
        Loops {
            reconciler: at,
            populator: at,
            plugins: at,
            pleg: at,
            housekeeping: at,
            stats: at,
        }
    }
}

/// Where a start stands.
#[derive(Clone, Debug, Default)]
enum Step {
    #[default]
    Boot,
    Running,
    Walk(Walk),
    Loops,
    Delay,
    CreateNode,
    ReadNode,
    ReadCsiNode(Arc<Node>),
    DropCsiNode(Arc<Node>, String),
    CreateCsiNode(Arc<Node>),
    Failed,
    Done,
}

/// What a start remembers.
#[derive(Clone, Debug, Default)]
pub struct Startup {
    step: Step,
    began: Time,
    /// How often the registration has failed.
    failed: u32,
    /// The Node is there: it is never created again.
    registered: bool,
    /// When it is asked for the pods again, because the API server could not be reached.
    list_again: Option<Time>,
}

impl Startup {
    /// The process has started.
    pub fn begin(&mut self, now: Time) {
        self.began = now;
    }

    /// Whether the registration fails. A status round begins with it and goes no further until then.
    pub fn is_refused(&self) -> bool {
        self.failed > 0 && !self.registered
    }
}

/// A process that starts within the first second of a run is one that was always there.
const ALWAYS_THERE: Time = Time(1_000_000_000);

fn draw(kubelet: &Kubelet, what: &str, began: Time) -> f64 {
    let name = ["kubelet", &*kubelet.node, what];
    kubelet.chance.unit(&name, began.as_millis())
}

/// What next?
pub fn decide(view: &View<'_>) -> Effect {
    let (kubelet, startup) = (view.kubelet, &view.memory.startup);
    let key = || ObjKey::cluster(Arc::clone(&kubelet.node));
    match &startup.step {
        Step::Boot => {
            let late = 0.25 * draw(kubelet, "startup", startup.began);
            Effect::Wait(kubelet.constants.startup.mul_f64(1.0 + late))
        }
        Step::Running => Effect::Machine(MachineOp::RunningPods),
        Step::Walk(walk) => walk.decide(kubelet.paths()),
        Step::Loops => Effect::Note("loops begin"),
        Step::Delay => Effect::Wait(kubelet.constants.registration_delay),
        Step::CreateNode => Effect::write(Write::Create(Object::new(fresh_node(kubelet, view.now)))),
        Step::ReadNode => get::<Node>(&key()),
        Step::ReadCsiNode(_) => get::<CSINode>(&key()),
        Step::DropCsiNode(_, uid) => {
            let mut delete = Delete::new(ObjectRef::to::<CSINode>(&key()));
            delete.uid = Some(uid.clone());
            Effect::write(Write::Delete(delete))
        }
        Step::CreateCsiNode(node) => Effect::write(Write::Create(Object::new(fresh_csi_node(&kubelet.node, node)))),
        Step::Failed => Effect::RestUntil(view.now + pause(&kubelet.constants, startup.failed)),
        Step::Done => Effect::Rest,
    }
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, outcome: &Outcome) {
    let step = std::mem::take(&mut turn.memory.startup.step);
    turn.memory.startup.step = match step {
        Step::Boot => Step::Running,
        Step::Running => {
            if let Ok(MachineAnswer::Names(pods)) = outcome.machine() {
                turn.memory.workers.found_running.clone_from(pods);
            }
            Step::Walk(Walk::begin())
        }
        Step::Walk(mut walk) => {
            walk.learn(turn, outcome);
            if walk.is_over() { Step::Loops } else { Step::Walk(walk) }
        }
        Step::Loops => {
            loops_begin(turn);
            Step::Delay
        }
        Step::Delay => {
            rounds_begin(turn);
            if turn.kubelet.flags.register_node {
                Step::CreateNode
            } else {
                Step::ReadNode
            }
        }
        Step::CreateNode => match outcome.written() {
            Ok(written) => registered(turn, Arc::clone(written.object.get().expect("a Node was created"))),
            Err(error) if error.is_already_exists() => Step::ReadNode,
            Err(_) => Step::Failed,
        },
        Step::ReadNode => match read::<Node>(outcome) {
            Ok(node) => registered(turn, node),
            Err(_) => Step::Failed,
        },
        Step::ReadCsiNode(node) => match read::<CSINode>(outcome) {
            Ok(known) if belongs(&known, &node) => done(turn),
            Ok(known) => Step::DropCsiNode(node, fields::uid(&known.metadata).to_owned()),
            Err(error) if error.is_not_found() => Step::CreateCsiNode(node),
            Err(_) => Step::Failed,
        },
        Step::DropCsiNode(node, _) => Step::CreateCsiNode(node),
        Step::CreateCsiNode(_) => match outcome.written() {
            Ok(_) => done(turn),
            Err(error) if error.is_already_exists() => done(turn),
            Err(_) => Step::Failed,
        },
        Step::Failed | Step::Done => step,
    };
}

/// The sync of the key ended: what failed is tried again from the registration on.
pub fn ended(startup: &mut Startup) {
    if matches!(startup.step, Step::Failed) {
        startup.failed += 1;
        startup.step = if startup.registered {
            Step::ReadNode
        } else {
            Step::CreateNode
        };
    }
}

/// The pause after so many failures: doubled each time (`registerWithAPIServer`).
fn pause(constants: &Constants, failed: u32) -> Duration {
    let longest = constants.registration_cap;
    let doubled = constants
        .registration_delay
        .checked_mul(2_u32.saturating_pow(failed + 1));
    doubled.map_or(longest, |pause| pause.min(longest))
}

fn registered(turn: &mut Turn<'_>, node: Arc<Node>) -> Step {
    if turn.memory.startup.is_refused() {
        turn.memory.node_status.begin(turn.now);
        turn.wake_node_status();
    }
    turn.memory.startup.registered = true;
    Step::ReadCsiNode(node)
}

fn belongs(csi_node: &CSINode, node: &Node) -> bool {
    let owners = csi_node.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|o| o.uid == fields::uid(&node.metadata))
}

fn done(turn: &mut Turn<'_>) -> Step {
    turn.wake_node_status();
    Step::Done
}

/// A kubelet that comes back says so. (One that was always there said so before the run.)
fn tell(turn: &mut Turn<'_>) {
    let node = turn.cache.named::<Node>(&turn.kubelet.node).map(Arc::clone);
    if let Some(node) = node.filter(|_| turn.memory.startup.began >= ALWAYS_THERE) {
        let event = EventRecord::normal(&Object::Node(node), "Starting", "Starting kubelet.");
        turn.record(Key::Startup, event);
    }
}

fn loops_begin(turn: &mut Turn<'_>) {
    tell(turn);
    let (now, kubelet, began) = (turn.now, turn.kubelet, turn.memory.startup.began);
    let drawn = |what, period: Duration| now + period.mul_f64(draw(kubelet, what, began));
    let stats = if began < ALWAYS_THERE {
        drawn("stats", kubelet.flags.volume_stats_agg_period)
    } else {
        now
    };
    turn.memory.loops = Some(Loops {
        reconciler: now,
        populator: drawn("populator", kubelet.constants.populator_period),
        plugins: now,
        pleg: drawn("pleg", kubelet.constants.pleg_period),
        housekeeping: now,
        stats,
    });
    turn.queue
        .add_at(Key::Sources, now + kubelet.constants.pod_source_delay);
    let sockets: Vec<_> = turn.memory.plugins.sockets().cloned().collect();
    sockets.into_iter().for_each(|path| turn.queue.add(Key::Plugin(path)));
    // Without reconstructed volumes the first passes would find nothing.
    if !turn.memory.actual.unresolved.is_empty() {
        turn.wake_reconciler();
    }
}

fn rounds_begin(turn: &mut Turn<'_>) {
    let (kubelet, began) = (turn.kubelet, turn.memory.startup.began);
    let first = if began < ALWAYS_THERE {
        let period = kubelet.flags.node_status_update_frequency;
        turn.now + period.mul_f64(draw(kubelet, "status-phase", began))
    } else {
        turn.now
    };
    turn.memory.node_status.begin(first);
    turn.wake_node_status();
}

/// What next for the pods? A kubelet that starts lists them, and acts on none before it has that list.
pub fn decide_sources(view: &View<'_>) -> Effect {
    let startup = &view.memory.startup;
    match startup.list_again {
        _ if view.memory.sources_ready => Effect::Rest,
        Some(at) if at > view.now => Effect::RestUntil(at),
        // Whether it can list them is whether it can read anything: the list itself is in its cache.
        _ if startup.began >= ALWAYS_THERE => get::<Node>(&ObjKey::cluster(Arc::clone(&view.kubelet.node))),
        _ => Effect::Note("all pods are known"),
    }
}

/// What did that teach?
pub fn learn_sources(turn: &mut Turn<'_>, outcome: &Outcome) {
    let refused = |error: &ApiError| !error.is_not_found();
    match outcome {
        Outcome::Read(Err(error)) if refused(error) => {
            turn.memory.startup.list_again = Some(turn.now + turn.kubelet.constants.pod_source_delay);
        }
        _ => sources_ready(turn),
    }
}

/// All pods of this node are known now.
fn sources_ready(turn: &mut Turn<'_>) {
    turn.memory.sources_ready = true;
    let pods: Vec<Arc<Pod>> = turn
        .cache
        .by::<Pod>(Index::PodsByNode, &turn.kubelet.node)
        .cloned()
        .collect();
    for pod in &pods {
        pod_workers::notice(turn, pod, false);
    }
    let left_over = !turn.memory.workers.found_running.is_empty() || !turn.memory.orphans.is_empty();
    if left_over {
        turn.wake_housekeeping();
    }
    // Unmounting waits for one whole pass, even if it has no pod to look at.
    if !turn.memory.actual.volumes.is_empty() {
        turn.wake_populator();
    } else {
        turn.memory.populator.has_added_pods |= pods.is_empty();
    }
}

fn fresh_node(kubelet: &Kubelet, now: Time) -> Node {
    let mut labels: std::collections::BTreeMap<String, String> = [
        (names::HOSTNAME, &*kubelet.node),
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/os", "linux"),
    ]
    .into_iter()
    .map(|(k, v)| (k.into(), v.into()))
    .collect();
    labels.extend(kubelet.flags.node_labels.iter().cloned());
    let mut node = Node {
        metadata: ObjectMeta {
            name: Some(kubelet.node.to_string()),
            labels: Some(labels),
            annotations: Some([(names::CONTROLLER_MANAGED_ATTACH.into(), "true".into())].into()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    node.status = Some(NodeStatus {
        conditions: Some(node_status::conditions(&node, now)),
        ..NodeStatus::default()
    });
    node
}

/// A CSINode without drivers, owned by its Node.
pub fn fresh_csi_node(name: &str, node: &Node) -> CSINode {
    CSINode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: Node::KIND.api_version().into(),
                kind: Node::KIND.name().into(),
                name: name.to_owned(),
                uid: fields::uid(&node.metadata).to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec { drivers: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Constants, pause};

    #[test]
    fn a_registration_that_fails_is_tried_again_after_twice_as_long_up_to_seven_seconds() {
        let pauses = (0..8).map(|failed| pause(&Constants::default(), failed).as_millis());
        assert!(pauses.eq([200, 400, 800, 1600, 3200, 6400, 7000, 7000]));
        assert_eq!(pause(&Constants::default(), u32::MAX - 1), Duration::from_secs(7));
    }
}
