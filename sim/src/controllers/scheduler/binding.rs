//! The binding cycle: what is written after a node was found, and the wait until the claims are bound.
//!
//! Writes that were made are not undone when a later step fails: the selected node stays on the claim until the provisioner removes it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition, PodStatus};

use super::memory::Memory;
use super::volumes::Plan;
use super::{Flags, Key};
use crate::api::{Cache, Edit, EventRecord, ObjKey, Object, ObjectRef, Patch, Write, fields, names, version};
use crate::control::{Effect, Learner, Outcome};
use crate::release::RELEASE;
use crate::runtime::Time;

/// Between two looks at the claims (`PreBind` polls; the first look comes after one interval).
const POLL: Duration = RELEASE.scheduler.bind_poll;

/// Where a pod is in its cycle.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Patch `status.nominatedNodeName`.
    Nominate,
    /// Write the claim references of the planned volumes.
    BindVolumes,
    /// Write the selected node to the planned claims.
    SelectNodes,
    /// Sleep until the next look.
    Poll,
    /// Look whether the claims are bound.
    Look,
    /// Bind the pod.
    Bind,
    /// Tell that it was bound.
    Announce,
    /// Done.
    Bound,
    /// Tell why it failed; `error` distinguishes an error from a pod that fits nowhere.
    Tell { message: String, error: bool },
    /// Write the `PodScheduled` condition.
    Condition { message: String, error: bool },
    /// Wait for an event, or for the back-off.
    Failed,
}

/// One pod between a node that was found, or was not, and the end of its cycle.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    pub uid: String,
    node: Arc<str>,
    step: Step,
    volumes: VecDeque<PersistentVolume>,
    claims: VecDeque<PersistentVolumeClaim>,
    written: Vec<ObjKey>,
    awaited: Vec<ObjKey>,
    deadline: Option<Time>,
}

impl Cycle {
    /// A node was found.
    pub fn found(uid: String, node: Arc<str>, plan: Plan) -> Cycle {
        let step = if plan.awaited.is_empty() {
            Step::Bind
        } else {
            Step::Nominate
        };
        Cycle {
            uid,
            node,
            step,
            volumes: plan.volumes.into(),
            claims: plan.claims.into(),
            written: Vec::new(),
            awaited: plan.awaited,
            deadline: None,
        }
    }

    /// No node was found.
    pub fn failed(uid: String, message: String) -> Cycle {
        let step = Step::Tell { message, error: false };
        Cycle {
            step,
            ..Cycle::found(uid, Arc::from(""), Plan::default())
        }
    }

    /// Whether a node was found: the cycle then runs beside the turns of other pods.
    pub fn binds(&self) -> bool {
        !self.node.is_empty()
    }

    /// Whether nothing is left to do for it.
    pub fn is_over(&self) -> bool {
        matches!(self.step, Step::Bound | Step::Failed)
    }

    /// The names of the volumes and the keys of the claims that it assumed.
    pub fn assumed(&self) -> (Vec<String>, Vec<ObjKey>) {
        let volumes = self
            .volumes
            .iter()
            .map(|v| fields::name(&v.metadata).to_owned())
            .collect();
        (volumes, self.awaited.clone())
    }
}

/// The next effect of a cycle.
pub(super) fn next(cache: &Cache, key: &ObjKey, cycle: &Cycle) -> Effect {
    let pod = cache.get::<Pod>(key).filter(|p| fields::uid(&p.metadata) == cycle.uid);
    let Some(pod) = pod else { return Effect::Rest };
    match &cycle.step {
        Step::Nominate => {
            let mut status = pod.status.clone().unwrap_or_default();
            status.nominated_node_name = Some(cycle.node.to_string());
            pod_status(key, status)
        }
        Step::BindVolumes => match cycle.volumes.front() {
            Some(volume) => Effect::Write(Write::Update(Object::new(volume.clone()))),
            None => Effect::Note("volumes are claimed"),
        },
        Step::SelectNodes => match cycle.claims.front() {
            Some(claim) => Effect::Write(Write::Update(Object::new(claim.clone()))),
            None => Effect::Note("nodes are selected"),
        },
        Step::Poll => Effect::Wait(POLL),
        Step::Look => Effect::Note("look at the claims"),
        Step::Bind => {
            let uid = Some(cycle.uid.clone());
            Effect::Write(Write::Bind {
                pod: key.clone(),
                uid,
                node: cycle.node.to_string(),
            })
        }
        Step::Announce => {
            let message = format!("Successfully assigned {key} to {}", cycle.node);
            Effect::Record(EventRecord::normal(&Object::Pod(Arc::clone(pod)), "Scheduled", message))
        }
        Step::Bound | Step::Failed => Effect::Rest,
        Step::Tell { message, .. } => Effect::Record(EventRecord::warning(
            &Object::Pod(Arc::clone(pod)),
            "FailedScheduling",
            message.clone(),
        )),
        Step::Condition { message, error } => condition(pod, key, message, *error),
    }
}

/// The `PodScheduled` condition; nothing is written when the pod says so already.
fn condition(pod: &Pod, key: &ObjKey, message: &str, error: bool) -> Effect {
    let mut status = pod.status.clone().unwrap_or_default();
    let reason = if error { "SchedulerError" } else { "Unschedulable" };
    let wanted = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some(reason.into()),
        message: Some(message.to_owned()),
        ..PodCondition::default()
    };
    let conditions = status.conditions.get_or_insert_default();
    let same = |c: &PodCondition| c.type_ == wanted.type_ && c.reason == wanted.reason && c.message == wanted.message;
    if conditions.iter().any(same) && status.nominated_node_name.is_none() {
        return Effect::Note("condition stands already");
    }
    conditions.retain(|c| c.type_ != "PodScheduled");
    conditions.push(wanted);
    status.nominated_node_name = None;
    pod_status(key, status)
}

fn pod_status(key: &ObjKey, status: PodStatus) -> Effect {
    let edits = vec![Edit::PodStatus(Box::new(status))];
    Effect::Write(Write::Patch(Patch::status(ObjectRef::to::<Pod>(key), edits)))
}

/// What an outcome means for a cycle.
pub(super) fn learn(
    flags: &Flags,
    memory: &mut Memory,
    key: &ObjKey,
    effect: &Effect,
    outcome: &Outcome,
    then: &mut Learner<'_, Key>,
) {
    let Some(cycle) = memory.cycles.get(key) else { return };
    let step = match (&cycle.step, outcome) {
        // A lost nomination is only logged.
        (Step::Nominate, _) => Step::BindVolumes,
        (Step::BindVolumes | Step::SelectNodes, Outcome::Written(Ok(written))) => {
            let object = written.object.clone();
            wrote(memory, key, &object);
            return;
        }
        (Step::BindVolumes, Outcome::Done) => Step::SelectNodes,
        (Step::SelectNodes, Outcome::Done) => {
            if cycle.awaited.is_empty() {
                Step::Bind
            } else {
                Step::Poll
            }
        }
        (Step::Poll, _) => Step::Look,
        (Step::Look, _) => look(then.cache, memory, cycle, then.now),
        (Step::Bind, Outcome::Written(Ok(_))) => Step::Announce,
        (Step::Announce, _) => Step::Bound,
        (Step::Tell { message, error }, _) => Step::Condition {
            message: message.clone(),
            error: *error,
        },
        (Step::Condition { error, .. }, _) => {
            if *error {
                let until = memory.back_off(flags, key, then.now);
                then.queue.add_at(Key::Pod(key.clone()), until);
            }
            Step::Failed
        }
        (step, Outcome::Written(Err(error))) => failed(step, &error.message),
        (step, outcome) => unreachable!("{outcome:?} of {effect:?} in {step:?}"),
    };
    let Some(cycle) = memory.cycles.get_mut(key) else {
        return;
    };
    if step == Step::Poll && cycle.deadline.is_none() {
        cycle.deadline = Some(then.now + flags.bind_timeout);
    }
    cycle.step = step;
}

fn failed(step: &Step, message: &str) -> Step {
    let message: Cow<'_, str> = match step {
        Step::Bind => message.into(),
        _ => format!("running PreBind plugin \"VolumeBinding\": binding volumes: {message}").into(),
    };
    Step::Tell {
        message: message.into_owned(),
        error: true,
    }
}

/// A planned object was written: the assumption takes its new version.
fn wrote(memory: &mut Memory, key: &ObjKey, object: &Object) {
    let Some(cycle) = memory.cycles.get_mut(key) else {
        return;
    };
    match object {
        Object::PersistentVolume(volume) => {
            cycle.volumes.pop_front();
            memory
                .assumed_volumes
                .insert(fields::name(&volume.metadata).into(), Arc::clone(volume));
        }
        Object::PersistentVolumeClaim(claim) => {
            cycle.claims.pop_front();
            cycle.written.push(object.key());
            memory.assumed_claims.insert(object.key(), (**claim).clone());
        }
        other => unreachable!("the scheduler does not write {}", other.to_ref()),
    }
}

/// One look at the claims: all bound, not yet, or never.
fn look(cache: &Cache, memory: &Memory, cycle: &Cycle, now: Time) -> Step {
    let error = |message: String| failed(&Step::Look, &message);
    if cache.named::<Node>(&cycle.node).is_none() {
        return error(format!("node \"{}\" not found", cycle.node));
    }
    for key in &cycle.awaited {
        let Some(claim) = cache.get::<PersistentVolumeClaim>(key) else {
            return error(format!("PVC \"{key}\" not found"));
        };
        let behind = memory
            .assumed_claims
            .get(key)
            .is_some_and(|a| version(&a.metadata) > version(&claim.metadata));
        if behind {
            return late(cycle, now);
        }
        let selected = fields::annotation(&claim.metadata, names::SELECTED_NODE).unwrap_or_default();
        let was_selected = cycle.written.contains(key);
        if was_selected && selected != &*cycle.node {
            return error(format!("provisioning failed for PVC \"{}\"", key.name));
        }
        if !fields::is_bound_fully(claim) {
            return late(cycle, now);
        }
        if cache.named::<PersistentVolume>(fields::claim_volume(claim)).is_none() {
            return late(cycle, now);
        }
    }
    Step::Bind
}

fn late(cycle: &Cycle, now: Time) -> Step {
    if cycle.deadline.is_some_and(|deadline| now >= deadline) {
        return failed(&Step::Look, "timed out waiting for the condition");
    }
    Step::Poll
}
