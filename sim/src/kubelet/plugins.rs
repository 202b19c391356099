//! The plugin manager: drivers come and go with the sockets of their registrars (fact sheet 6.12).
//!
//! ```text
//!  socket seen ─► at the next 1 s tick:  Info ─► Driver (NodeGetInfo) ─► ReadNode ─► PatchNode ─► ReadCsiNode ─► WriteCsiNode ─► Notify ─► registered
//!                                         │ refused                        │ any error                                           │
//!                                         ▼                                ▼                                                     ▼
//!                                       back-off                     Withdraw: the same as below, then Notify(false) ─► back-off
//!  socket gone, or another one ─► at the next tick: out of the list ─► ReadCsiNode ─► WriteCsiNode ─► ReadNode ─► PatchNode
//! ```
//!
//! A registered socket that is removed and made anew gets another identity: it is unregistered at one tick and registered at the next. A driver that dies alone
//! changes nothing here. Topology labels are never changed nor removed.
//!
//! *Blind spots.* `nodeAllocatableUpdatePeriodSeconds` of a CSIDriver is not looked at: the attach limit is what NodeGetInfo said at registration.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, VolumeNodeResources};
use wavetank_proto::csi::v1 as csi;

use super::operations::{get, read};
use super::startup::fresh_csi_node;
use super::{Turn, View, csi_client};
use crate::api::{ApiError, Edit, ObjKey, Object, ObjectRef, Patch, Write, exponential, fields, names};
use crate::control::{Effect, Outcome, PluginInfo, RegistrationOp};
use crate::link::CsiReply;
use crate::runtime::Time;

/// What the plugin manager remembers.
#[derive(Clone, Debug, Default)]
pub struct Plugins {
    sockets: BTreeMap<Arc<str>, Socket>,
    /// The registered drivers and the sockets that announced them.
    drivers: BTreeMap<Arc<str>, Arc<str>>,
    identities: u64,
}

/// One plugin socket.
#[derive(Clone, Debug, Default)]
struct Socket {
    /// Which one it is: another number after it was made anew. `None` when it is gone.
    seen: Option<u64>,
    /// Which one is registered, and for which driver.
    registered: Option<(u64, Arc<str>)>,
    job: Option<Job>,
    failures: u32,
    not_before: Time,
    done: bool,
}

/// Registering or unregistering, under way.
#[derive(Clone, Debug)]
struct Job {
    identity: u64,
    driver: Arc<str>,
    info: Option<csi::NodeGetInfoResponse>,
    step: Step,
    /// Unregistering, or withdrawing a registration that failed for this reason.
    removing: bool,
    error: Option<String>,
    node: Option<Arc<Node>>,
    csi_node: Option<Arc<CSINode>>,
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Info,
    Driver,
    ReadNode,
    PatchNode,
    ReadCsiNode,
    WriteCsiNode,
    Pause,
    Notify,
}

impl Plugins {
    /// Whether a driver is registered.
    pub fn is_registered(&self, driver: &str) -> bool {
        self.drivers.contains_key(driver)
    }

    /// A registered driver, for unit tests.
    #[cfg(test)]
    pub fn with(driver: &str) -> Plugins {
        Plugins {
            drivers: [(driver.into(), "socket".into())].into(),
            ..Plugins::default()
        }
    }

    /// A socket appeared or vanished.
    pub fn watch(&mut self, path: &str, there: bool) {
        self.identities += 1;
        let socket = self.sockets.entry(path.into()).or_default();
        socket.seen = there.then_some(self.identities);
    }

    /// The sockets that are known.
    pub fn sockets(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sockets.keys()
    }

    /// The sync of a key ended.
    pub fn ended(&mut self, path: &Arc<str>) {
        if let Some(socket) = self.sockets.get_mut(path) {
            socket.done = false;
            if socket.seen.is_none() && socket.registered.is_none() && socket.job.is_none() {
                self.sockets.remove(path);
            }
        }
    }
}

/// What next for a socket?
pub fn decide(view: &View<'_>, path: &Arc<str>) -> Effect {
    let (Some(loops), Some(socket)) = (&view.memory.loops, view.memory.plugins.sockets.get(path)) else {
        return Effect::Rest;
    };
    if let Some(job) = &socket.job {
        return job_effect(view, path, job);
    }
    let period = view.kubelet.constants.plugin_period;
    let tick = view.now.max(socket.not_before).tick(loops.plugins, period);
    let stale = socket
        .registered
        .as_ref()
        .is_some_and(|(id, _)| Some(*id) != socket.seen);
    let new = socket.seen.is_some() && socket.registered.is_none();
    match (stale || new, socket.done) {
        (false, _) => Effect::Rest,
        // What began at this tick is over: the next tick sees what is left to do.
        (true, true) => Effect::RestUntil(Time(view.now.max(socket.not_before).0 + 1).tick(loops.plugins, period)),
        (true, false) if tick > view.now => Effect::RestUntil(tick),
        (true, false) => Effect::Note(if stale { "unregister" } else { "register" }),
    }
}

fn job_effect(view: &View<'_>, path: &Arc<str>, job: &Job) -> Effect {
    let constants = &view.kubelet.constants;
    let node = || ObjKey::cluster(Arc::clone(&view.kubelet.node));
    match job.step {
        Step::Info => Effect::Registration(RegistrationOp::GetInfo {
            socket: path.to_string(),
        }),
        Step::Driver => csi_client::call(&job.driver, csi::NodeGetInfoRequest {}, constants.csi_timeout),
        Step::ReadNode => get::<Node>(&node()),
        Step::PatchNode => match node_edits(job) {
            none if none.is_empty() => Effect::Note("the Node is as it should be"),
            edits => Effect::write(Write::Patch(Patch::new(ObjectRef::to::<Node>(&node()), edits))),
        },
        Step::ReadCsiNode => get::<CSINode>(&node()),
        Step::WriteCsiNode => {
            csi_node_write(view, job).map_or(Effect::Note("the CSINode is as it should be"), Effect::write)
        }
        Step::Pause => {
            let attempts = job.attempts.saturating_sub(1);
            Effect::Wait(constants.csinode_pause * 5u32.saturating_pow(attempts))
        }
        Step::Notify => Effect::Registration(RegistrationOp::Notify {
            socket: path.to_string(),
            error: job.error.clone(),
        }),
    }
}

/// The Node's annotation with this driver in it, or without it.
fn node_edits(job: &Job) -> Vec<Edit> {
    let node = job.node.as_ref().expect("the Node was read");
    let text = fields::annotation(&node.metadata, names::NODE_ID);
    let mut ids: BTreeMap<String, String> = text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    let mut edits = Vec::new();
    match &job.info {
        Some(info) if !job.removing => {
            ids.insert(job.driver.to_string(), info.node_id.clone());
            let segments = info.accessible_topology.iter().flat_map(|t| &t.segments);
            let missing = segments.filter(|(k, _)| fields::label(&node.metadata, k).is_none());
            edits.extend(missing.map(|(k, v)| Edit::Label(k.clone(), Some(v.clone()))));
        }
        _ => {
            ids.remove(&*job.driver);
        }
    }
    let json = serde_json::to_string(&ids).expect("strings always serialise");
    let wanted = (!ids.is_empty()).then_some(json);
    if wanted.as_deref() != text {
        edits.push(Edit::Annotation(names::NODE_ID.into(), wanted));
    }
    edits
}

/// A topology label that the Node already has with another value.
fn label_conflict(job: &Job) -> Option<String> {
    let (node, info) = (job.node.as_ref()?, job.info.as_ref().filter(|_| !job.removing)?);
    let mut segments = info.accessible_topology.iter().flat_map(|t| &t.segments);
    let (key, _) = segments.find(|(k, v)| fields::label(&node.metadata, k).is_some_and(|have| have != v.as_str()))?;
    Some(format!(
        "detected topology value collision: driver reported {key} with another value than the existing label"
    ))
}

/// The CSINode with this driver in it, or without it; `None` when it is so already.
fn csi_node_write(view: &View<'_>, job: &Job) -> Option<Write> {
    let known = job.csi_node.as_ref();
    let mut drivers = known.map(|n| n.spec.drivers.clone()).unwrap_or_default();
    let others = |d: &CSINodeDriver| d.name != *job.driver;
    if job.removing {
        drivers.retain(others);
        if known.is_none_or(|n| n.spec.drivers == drivers) {
            return None;
        }
    } else {
        let entry = driver_entry(job)?;
        match drivers.iter_mut().find(|d| d.name == entry.name) {
            Some(old) if *old == entry => return None,
            Some(old) => *old = entry,
            None => drivers.push(entry),
        }
    }
    match known {
        Some(known) => {
            let mut object = CSINode::clone(known);
            object.spec.drivers = drivers;
            Some(Write::Update(Object::new(object)))
        }
        None => {
            let mut object = fresh_csi_node(&view.kubelet.node, job.node.as_deref()?);
            object.spec.drivers = drivers;
            Some(Write::Create(Object::new(object)))
        }
    }
}

fn driver_entry(job: &Job) -> Option<CSINodeDriver> {
    let info = job.info.as_ref()?;
    let topology = info.accessible_topology.as_ref();
    // A map with ordered keys: they are sorted already.
    let keys: Vec<String> = topology.iter().flat_map(|t| t.segments.keys().cloned()).collect();
    let limit = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
    Some(CSINodeDriver {
        name: job.driver.to_string(),
        node_id: info.node_id.clone(),
        topology_keys: (!keys.is_empty()).then_some(keys),
        allocatable: (limit > 0).then_some(VolumeNodeResources { count: Some(limit) }),
    })
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, path: &Arc<str>, effect: &Effect, outcome: &Outcome) {
    let Some(mut socket) = turn.memory.plugins.sockets.remove(path) else {
        return;
    };
    match effect {
        Effect::Note("register") => socket.job = socket.seen.map(|id| Job::new(id, "", Step::Info, false)),
        Effect::Note("unregister") => {
            let (identity, driver) = socket
                .registered
                .take()
                .expect("only what is registered is unregistered");
            turn.memory.plugins.drivers.remove(&driver);
            socket.job = Some(Job::new(identity, &driver, Step::ReadCsiNode, true));
        }
        _ => {
            let mut job = socket.job.take().expect("only a job has other effects");
            if job_learn(turn, path, &mut job, outcome) {
                socket.job = Some(job);
            } else {
                over(turn, path, &mut socket, &job);
            }
        }
    }
    turn.memory.plugins.sockets.insert(Arc::clone(path), socket);
}

/// A job is over: a socket whose registration failed waits before the next attempt.
fn over(turn: &Turn<'_>, path: &Arc<str>, socket: &mut Socket, job: &Job) {
    let constants = &turn.kubelet.constants;
    socket.done = true;
    if job.removing && job.error.is_none() {
        return;
    }
    if turn.memory.plugins.drivers.get(&job.driver) == Some(path) {
        (socket.registered, socket.failures) = (Some((job.identity, Arc::clone(&job.driver))), 0);
        return;
    }
    let pause = exponential(
        constants.operation_backoff,
        constants.operation_backoff_cap,
        socket.failures,
    );
    socket.not_before = turn.now + pause;
    socket.failures = (socket.failures + 1).min(16);
}

impl Job {
    fn new(identity: u64, driver: &str, step: Step, removing: bool) -> Job {
        Job {
            identity,
            driver: driver.into(),
            info: None,
            step,
            removing,
            error: None,
            node: None,
            csi_node: None,
            attempts: 0,
        }
    }
}

/// Takes in an outcome. `false`: the job is over.
fn job_learn(turn: &mut Turn<'_>, path: &Arc<str>, job: &mut Job, outcome: &Outcome) -> bool {
    let result = match job.step {
        Step::Info => return info(turn, path, job, outcome),
        Step::Driver => node_info(job, outcome),
        Step::Notify => return false,
        Step::Pause => {
            job.step = Step::ReadNode;
            return true;
        }
        Step::ReadNode => read::<Node>(outcome)
            .map(|n| job.node = Some(n))
            .map_err(ApiError::clone),
        Step::ReadCsiNode => match read::<CSINode>(outcome) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(|n| job.csi_node = Some(n)).map_err(ApiError::clone),
        },
        Step::PatchNode | Step::WriteCsiNode => match outcome {
            Outcome::Written(written) => written.as_ref().map(|_| ()).map_err(ApiError::clone),
            _ => Ok(()),
        },
    }
    .map_err(|error| error.message);
    match result {
        Ok(()) => advance(turn, job),
        Err(message) => failed(turn, job, &message),
    }
}

/// Who is behind the socket? A failure is tried again after a back-off; a driver that is known already is refused.
fn info(turn: &mut Turn<'_>, path: &Arc<str>, job: &mut Job, outcome: &Outcome) -> bool {
    let Outcome::Registration(Ok(Some(PluginInfo { name, versions, .. }))) = outcome else {
        return false;
    };
    job.driver = name.as_str().into();
    let supported = versions.iter().any(|v| v.trim_start_matches('v').starts_with("1."));
    let taken = turn.memory.plugins.is_registered(name);
    if taken || !supported {
        job.error = Some(if taken {
            format!("RegisterPlugin error -- driver {name} is already registered with a higher supported version")
        } else {
            format!("none of the CSI versions reported by this driver are supported: {versions:?}")
        });
        job.step = Step::Notify;
        return true;
    }
    turn.memory
        .plugins
        .drivers
        .insert(Arc::clone(&job.driver), Arc::clone(path));
    job.step = Step::Driver;
    true
}

fn node_info(job: &mut Job, outcome: &Outcome) -> Result<(), ApiError> {
    let complain = |message: String| ApiError {
        code: 0,
        reason: "NodeGetInfo",
        message,
    };
    let info = match outcome.reply() {
        Ok(CsiReply::NodeGetInfo(info)) => info,
        Ok(other) => panic!("the node's info was asked for, not {}", other.message_name()),
        Err(error) => return Err(complain(csi_client::describe(&error.status))),
    };
    if info.node_id.is_empty() {
        return Err(complain(format!(
            "error adding CSI driver node info: driver {} returned an empty node ID",
            job.driver
        )));
    }
    job.info = Some(info.clone());
    Ok(())
}

/// The next step. `false`: the job is over.
fn advance(turn: &mut Turn<'_>, job: &mut Job) -> bool {
    job.step = match (job.step, job.removing) {
        (Step::Driver, _) => Step::ReadNode,
        (Step::ReadNode, _) => {
            if let Some(conflict) = label_conflict(job) {
                return withdraw(turn, job, &conflict);
            }
            Step::PatchNode
        }
        (Step::PatchNode, false) | (Step::Pause, _) => Step::ReadCsiNode,
        (Step::ReadCsiNode, _) => Step::WriteCsiNode,
        (Step::WriteCsiNode, true) => Step::ReadNode,
        (Step::WriteCsiNode, false) => {
            turn.wake_reconciler();
            Step::Notify
        }
        (Step::PatchNode, true) if job.error.is_some() => Step::Notify,
        (Step::PatchNode, true) | (Step::Info | Step::Notify, _) => return false,
    };
    true
}

/// A step failed: a write is tried again a few times, then the registration is withdrawn.
fn failed(turn: &mut Turn<'_>, job: &mut Job, message: &str) -> bool {
    job.attempts += 1;
    if job.step != Step::Driver && job.attempts < turn.kubelet.constants.csinode_attempts {
        job.step = if job.removing && matches!(job.step, Step::ReadCsiNode | Step::WriteCsiNode) {
            Step::ReadCsiNode
        } else {
            Step::Pause
        };
        return true;
    }
    if job.removing {
        // What could not be cleaned up stays; the registrar is told why its registration failed.
        job.step = Step::Notify;
        return job.error.is_some();
    }
    withdraw(turn, job, message)
}

fn withdraw(turn: &mut Turn<'_>, job: &mut Job, message: &str) -> bool {
    turn.memory.plugins.drivers.remove(&job.driver);
    job.error = Some(format!(
        "RegisterPlugin error -- plugin registration failed with err: {message}"
    ));
    (job.removing, job.attempts, job.step) = (true, 0, Step::ReadCsiNode);
    true
}
