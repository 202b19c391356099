//! One reconcile pass: every 100 ms in Kubernetes, here at those of these ticks at which it would find something.
//!
//! ```text
//! Idle ──tick──► Leave ──────────────nothing left to detach──────────────► Join ──► Tell ──► Report ──► (verify) ──► Over
//!                 ▲  │ one can go                                       start the  Multi-   volumesAttached
//!                 │  ▼                                                  attaches   Attach   of dirty nodes
//!                 └─ Withdraw: PATCH volumesAttached, wait, then start the detach
//! ```
//!
//! Detaches come first, so that a volume that moves is detached before it is attached. A pass waits for each write to a node before it goes on: the node
//! must know that a volume goes before its VolumeAttachment does (fact sheet 4.9). Operations run beside it.
//!
//! *Blind spots.* Volumes and nodes are taken in order of name; Kubernetes takes them in random order. The pause between two passes is 100 ms from tick
//! to tick and not from end to beginning, so a pass that waited for writes does not delay all later ones.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{AttachedVolume, Node};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::api::{Cache, Edit, EventRecord, Kind, ObjKey, ObjectRef, Patch, Write};
use crate::control::{Effect, Learner, Outcome};
use crate::runtime::Time;

use super::attach::Attach;
use super::desired::Place;
use super::detach::Detach;
use super::operations::{OperationKey, OperationKind, Run};
use super::plan::Join;
use super::{AttachDetach, Key, Memory};

/// Where the current pass stands.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// When the last one began.
    pub last: Option<Time>,
    step: Step,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    /// Looking for attachments to detach, those after this one.
    Leave(Option<Place>),
    /// A volume leaves: the node is told first.
    Withdraw {
        place: Place,
        verify: bool,
        report: Option<Vec<AttachedVolume>>,
    },
    /// Starting attaches.
    Join,
    /// Telling pods of Multi-Attach.
    Tell(VecDeque<EventRecord>),
    /// Writing the status of dirty nodes.
    Report(VecDeque<(Arc<str>, Vec<AttachedVolume>)>),
    Over,
}

impl AttachDetach {
    pub(super) fn decide_pass(&self, cache: &Cache, memory: &Memory, now: Time) -> Effect {
        let view = self.view(cache, memory, now);
        match &memory.pass.step {
            Step::Idle => match memory.next_pass(self, now) {
                Some(due) if due > now => Effect::RestUntil(due),
                Some(_) => Effect::Note("pass"),
                None => Effect::Rest,
            },
            Step::Leave(after) => match view.next_leave(after.as_ref()) {
                Some(_) => Effect::Note("detach one"),
                None => Effect::Note("no more to detach"),
            },
            Step::Withdraw { place, report, .. } => match report {
                Some(volumes) if cache.named::<Node>(&place.node).is_some() => tell(&place.node, volumes),
                _ => Effect::Note("the node need not be told"),
            },
            Step::Join => Effect::Note("attach"),
            Step::Tell(events) => match events.front() {
                Some(event) => Effect::Record(event.clone()),
                None => Effect::Note("all told"),
            },
            Step::Report(nodes) => match nodes.front() {
                Some((node, volumes)) if cache.named::<Node>(node).is_some() => tell(node, volumes),
                Some(_) => Effect::Note("the node is gone"),
                None => Effect::Note("all reported"),
            },
            Step::Over => match view.next_due() {
                Some(at) => memory
                    .next_pass(self, at.max(now))
                    .map_or(Effect::Rest, Effect::RestUntil),
                None => Effect::Rest,
            },
        }
    }

    pub(super) fn learn_pass(&self, memory: &mut Memory, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        memory.pass.step = match std::mem::take(&mut memory.pass.step) {
            Step::Idle => self.begin(memory, then),
            Step::Leave(after) => self.leave_one(memory, then, after.as_ref()),
            Step::Withdraw { place, verify, .. } => self.withdrawn(memory, then, place, verify, outcome),
            Step::Join => self.join_all(memory, then),
            Step::Tell(mut events) => match events.pop_front() {
                Some(_) => Step::Tell(events),
                None => Step::Report(untold(memory)),
            },
            Step::Report(mut nodes) => match nodes.pop_front() {
                Some((node, _)) => {
                    if refused(outcome) {
                        memory.actual.tell_again(&node);
                    }
                    Step::Report(nodes)
                }
                None => self.verify_if_due(memory, then),
            },
            Step::Over => Step::Over,
        };
    }

    pub(super) fn pass_ended(memory: &mut Memory) {
        if matches!(memory.pass.step, Step::Over) {
            memory.pass.step = Step::Idle;
        }
    }

    /// Starts the clocks of all attachments that should go.
    fn begin(&self, memory: &mut Memory, then: &Learner<'_, Key>) -> Step {
        memory.pass.last = Some(then.now);
        let view = self.view(then.cache, memory, then.now);
        let due = view.unwanted().filter(|(place, _)| {
            let operations = &memory.operations;
            operations.is_safe_to_retry(&view.leave_key(place), OperationKind::Detach, then.now)
        });
        let due: Vec<Place> = due.map(|(place, _)| place.clone()).collect();
        for place in &due {
            memory.actual.request_detach(place, then.now);
        }
        Step::Leave(None)
    }

    fn leave_one(&self, memory: &mut Memory, then: &Learner<'_, Key>, after: Option<&Place>) -> Step {
        let found = self.view(then.cache, memory, then.now).next_leave(after);
        let Some((place, verify)) = found else {
            return Step::Join;
        };
        memory.actual.withdraw(&place);
        let report = memory.actual.take_report(&place.node);
        Step::Withdraw { place, verify, report }
    }

    /// The node knows, or is no more: the detach starts. Else the volume is reported again.
    fn withdrawn(
        &self,
        memory: &mut Memory,
        then: &mut Learner<'_, Key>,
        place: Place,
        verify: bool,
        outcome: &Outcome,
    ) -> Step {
        let key = self.view(then.cache, memory, then.now).leave_key(&place);
        let told = !refused(outcome);
        let run = Detach::new(place.clone(), verify).filter(|_| told);
        let started = run.is_some_and(|run| memory.operations.start(&key, Run::Detach(run), then.now));
        if started {
            then.queue.add(Key::Operation(key));
        } else {
            memory.actual.report(&place);
        }
        if !told {
            memory.actual.tell_again(&place.node);
        }
        Step::Leave(Some(place))
    }

    fn join_all(&self, memory: &mut Memory, then: &mut Learner<'_, Key>) -> Step {
        let places: Vec<Place> = memory.open.iter().cloned().collect();
        let mut events = VecDeque::new();
        for place in places {
            let view = self.view(then.cache, memory, then.now);
            let Some(wanted) = memory.desired.get(&place) else {
                continue;
            };
            match view.join(&place, wanted) {
                Join::Settled => {
                    memory.actual.reset_detach(&place);
                    memory.open.remove(&place);
                }
                Join::Blocked(told) => {
                    events.extend(told);
                    memory.desired.told(&place);
                }
                Join::Now => {
                    let key = OperationKey::of(&place, wanted.spec.multi_attach);
                    let pods = wanted.pods.values().cloned().collect();
                    let run = Run::Attach(Attach::new(place, Arc::clone(&wanted.spec), pods));
                    if memory.operations.start(&key, run, then.now) {
                        then.queue.add(Key::Operation(key));
                    }
                }
                Join::Later(_) => {}
            }
        }
        Step::Tell(events)
    }

    /// Compares what is believed to be attached with the VolumeAttachments. One that is not in the informer is looked up.
    fn verify_if_due(&self, memory: &mut Memory, then: &mut Learner<'_, Key>) -> Step {
        if memory.verify_at.take_if(|at| *at <= then.now).is_none() {
            return Step::Over;
        }
        let confirmed = memory.actual.iter().filter(|(_, a)| a.confirmed);
        // What only a node's status named has no spec yet, and is not verified.
        let known = confirmed.filter(|(place, _)| memory.actual.spec(&place.volume).is_some());
        let places: Vec<Place> = known.map(|(place, _)| place.clone()).collect();
        for place in places {
            let name = place.attachment().unwrap_or_default();
            match then.cache.named::<VolumeAttachment>(&name) {
                Some(attachment) if attachment.status.as_ref().is_some_and(|s| s.attached) => {}
                Some(_) => memory.actual.remove(&place),
                None => {
                    memory.verifying.insert(place.clone());
                    then.queue.add(Key::Verify(place));
                }
            }
        }
        Step::Over
    }
}

fn untold(memory: &mut Memory) -> VecDeque<(Arc<str>, Vec<AttachedVolume>)> {
    let nodes: Vec<Arc<str>> = memory.actual.untold().cloned().collect();
    let reports = nodes.into_iter().filter_map(|node| {
        let report = memory.actual.take_report(&node)?;
        Some((node, report))
    });
    reports.collect()
}

fn tell(node: &Arc<str>, volumes: &[AttachedVolume]) -> Effect {
    let target = ObjectRef::new(Kind::Node, ObjKey::cluster(Arc::clone(node)));
    let edit = Edit::VolumesAttached(volumes.to_vec());
    Effect::write(Write::Patch(Patch::status(target, vec![edit])))
}

/// Whether a node could not be told. One that is gone need not be.
fn refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Written(Err(error)) if !error.is_not_found())
}
