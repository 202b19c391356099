//! The attach-detach controller of kube-controller-manager: decides which volume is attached to which node, by writing VolumeAttachments.
//!
//! ```text
//! pods, claims, volumes, CSIDrivers ──► Desired ─┐
//!                                                ├─ pass (100 ms) ─► attach and detach operations ─► VolumeAttachments
//! VolumeAttachments, nodes' volumesAttached ──► Actual ─┘   └────────► nodes' volumesAttached
//! ```
//!
//! Source: Kubernetes `pkg/controller/volume/attachdetach` v1.36 (fact sheet 4). Read `pass` first; `plan` holds its decisions, `attach` and `detach` the
//! operations it starts, `desired` and `actual` the two worlds it compares.
//!
//! What is attached lives in memory only and is put together again at the start, from the nodes' status and the VolumeAttachments (4.7). So the six minutes
//! until a forced detach begin anew when the process does.
//!
//! *Blind spots.* CSI only: no in-tree plugin, no migration. A volume that just got attached counts as in use until its node's next event; where the real
//! kubelet would report itself unchanged after five minutes, and nothing here does, that moment is computed for healthy nodes.

mod actual;
mod attach;
#[cfg(test)]
pub(crate) mod bench;
mod desired;
mod detach;
mod events;
mod operations;
mod pass;
mod plan;
mod pods;
mod poll;
mod populator;
mod recover;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};

use crate::api::{Cache, Delta, Index, Kind, Limiter, ObjKey, ObjectRef, Read, ReadAnswer, fields};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::mutants::Wrong;
use crate::runtime::Time;

pub use crate::release::AttachDetach as Constants;
pub use desired::Place;
pub use operations::OperationKey;
pub use poll::Polling;

use actual::Actual;
use attach::Ended;
use desired::Desired;
use operations::{Operations, Run};
use pass::Pass;
use plan::View;

/// The component in its events.
pub const COMPONENT: &str = "attachdetach-controller";

/// The indexes that its process must keep.
pub const INDEXES: &[Index] = &[Index::PodsByClaim];

/// Flags of kube-controller-manager that concern it.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// How often the controller checks that what it believes to be attached still is.
    pub attach_detach_reconcile_sync_period: Duration,
    /// Never checks that.
    pub disable_attach_detach_reconcile_sync: bool,
    /// Never detaches a volume that a node may still use, however long the node is silent.
    pub disable_force_detach_on_timeout: bool,
    /// A mistake that it is to make. `None`: none.
    pub wrong: Option<Wrong>,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            attach_detach_reconcile_sync_period: Duration::from_secs(60),
            disable_attach_detach_reconcile_sync: false,
            disable_force_detach_on_timeout: false,
            wrong: None,
        }
    }
}

/// The controller.
#[derive(Clone, Debug, Default)]
pub struct AttachDetach {
    flags: Flags,
    constants: Constants,
}

/// The controller at work, for kube-controller-manager.
pub fn shells(flags: &Flags) -> Vec<Box<dyn AnyShell>> {
    let controller = AttachDetach::new(flags.clone(), Constants::default());
    vec![Box::new(Shell::new(controller))]
}

/// What one sync is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A reconcile pass.
    Pass,
    /// An operation.
    Operation(OperationKey),
    /// A live look at a VolumeAttachment that the informer does not know.
    Verify(Place),
    /// The populator removes what vanished pods wanted.
    Prune,
    /// The populator looks at all pods again.
    List,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Pass => f.write_str("reconcile"),
            Key::Operation(key) => key.fmt(f),
            Key::Verify(place) => write!(f, "verify {place}"),
            Key::Prune => f.write_str("prune"),
            Key::List => f.write_str("list pods"),
        }
    }
}

/// What the controller knows and a restart forgets.
#[derive(Debug, Default)]
pub struct Memory {
    /// Its loops count from here.
    started: Option<Time>,
    desired: Desired,
    actual: Actual,
    operations: Operations,
    /// What is wanted and not known to be settled: of this a pass may have something to attach.
    open: BTreeSet<Place>,
    /// What is attached and not wanted: of this a pass may have something to detach.
    unwanted: BTreeSet<Place>,
    pass: Pass,
    /// Pods of which a volume was passed over because something was missing.
    passed_over: BTreeSet<ObjKey>,
    /// The tick at which the verify pass would find something.
    verify_at: Option<Time>,
    /// Attachments that are being looked up.
    verifying: BTreeSet<Place>,
    pruned: Option<Time>,
    listed: Option<Time>,
}

impl Memory {
    /// Keeps `open` and `unwanted` true after the two worlds changed, so that a pass costs what changed and not what there is.
    fn settle(&mut self) {
        let touched = self
            .desired
            .take_touched()
            .into_iter()
            .chain(self.actual.take_touched());
        for place in touched {
            let wanted = self.desired.wants(&place);
            if !wanted && self.actual.get(&place).is_some() {
                self.unwanted.insert(place.clone());
            } else {
                self.unwanted.remove(&place);
            }
            if wanted {
                self.open.insert(place);
            } else {
                self.open.remove(&place);
            }
        }
    }

    /// The first tick from `at` on that no pass has used yet.
    fn next_pass(&self, settings: &AttachDetach, at: Time) -> Option<Time> {
        let unused = self.pass.last.map_or(at, |last| at.max(Time(last.0 + 1)));
        let period = settings.constants.reconciler_loop_period;
        self.started.map(|phase| unused.tick(phase, period))
    }
}

impl AttachDetach {
    /// With these flags and constants.
    pub fn new(flags: Flags, constants: Constants) -> AttachDetach {
        AttachDetach { flags, constants }
    }

    fn view<'a>(&'a self, cache: &'a Cache, memory: &'a Memory, now: Time) -> View<'a> {
        View {
            settings: self,
            cache,
            memory,
            now,
        }
    }

    /// Something changed: a pass looks at it at its next tick.
    fn wake(&self, memory: &Memory, now: Time, queue: &mut Requests<Key>) {
        if let Some(at) = memory.next_pass(self, now) {
            queue.add_at(Key::Pass, at);
        }
    }

    /// The verify pass has something to find.
    fn wake_verify(&self, memory: &mut Memory, now: Time, queue: &mut Requests<Key>) {
        let period = self.flags.attach_detach_reconcile_sync_period;
        // A shorter period disables it, too.
        let disabled = self.flags.disable_attach_detach_reconcile_sync || period < Duration::from_secs(1);
        let Some(started) = memory.started.filter(|_| !disabled) else {
            return;
        };
        let at = now.tick(started, period);
        memory.verify_at = Some(memory.verify_at.map_or(at, |known| known.min(at)));
        queue.add_at(Key::Pass, at);
    }

    /// The next moment of one of the populator's loops, `now` excluded.
    fn populator_tick(memory: &Memory, now: Time, period: Duration) -> Option<Time> {
        memory.started.map(|phase| Time(now.0 + 1).tick(phase, period))
    }

    // Operations.

    fn decide_operation(&self, cache: &Cache, memory: &Memory, key: &OperationKey, now: Time) -> Effect {
        if let Some(event) = memory.operations.next_event(key) {
            return Effect::Record(event.clone());
        }
        match memory.operations.run(key) {
            Some(Run::Attach(run)) => run.decide(cache, &self.constants.polling, now),
            Some(Run::Detach(run)) => run.decide(cache, &self.constants.polling, now),
            None => Effect::Rest,
        }
    }

    fn learn_operation(
        &self,
        memory: &mut Memory,
        key: &OperationKey,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, Key>,
    ) {
        if matches!(effect, Effect::Record(_)) {
            memory.operations.event_told(key);
            return;
        }
        let (polling, now) = (&self.constants.polling, then.now);
        let ended = match memory.operations.run_mut(key) {
            Some(Run::Attach(run)) => run.learn(then.cache, polling, effect, outcome, now),
            Some(Run::Detach(run)) => run.learn(then.cache, polling, effect, outcome, now),
            None => None,
        };
        let Some(ended) = ended else { return };
        match memory.operations.run(key).cloned() {
            Some(Run::Attach(run)) => {
                memory.operations.tell(key, run.events(&ended));
                memory
                    .actual
                    .mark(&run.place, Some(&run.spec), ended == Ended::Done, now);
            }
            Some(Run::Detach(run)) if ended == Ended::Done => memory.actual.remove(&run.place),
            Some(Run::Detach(run)) => {
                let spec = memory.actual.spec(&run.place.volume).cloned();
                memory.actual.mark(&run.place, spec.as_ref(), false, now);
            }
            None => {}
        }
        let failed = ended != Ended::Done;
        memory.operations.complete(key, failed, now);
        self.wake(memory, now, then.queue);
    }

    /// A live look at a VolumeAttachment: if it is not there, or is not attached, neither is the volume.
    fn learn_verify(&self, memory: &mut Memory, place: &Place, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        memory.verifying.remove(place);
        let attachment = match outcome.read() {
            Ok(ReadAnswer::Object(object)) => object.get::<VolumeAttachment>(),
            _ => None,
        };
        if !attachment.is_some_and(|a| a.status.as_ref().is_some_and(|s| s.attached)) {
            memory.actual.remove(place);
            self.wake(memory, then.now, then.queue);
        }
    }
}

impl Controller for AttachDetach {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "attachdetach"
    }

    fn component(&self) -> Option<String> {
        Some(COMPONENT.to_owned())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[
            Kind::Pod,
            Kind::Node,
            Kind::PersistentVolumeClaim,
            Kind::PersistentVolume,
            Kind::CSIDriver,
            Kind::VolumeAttachment,
        ]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: Limiter::Controller,
        };
        // Each operation is a goroutine of its own: as many as there are.
        vec![
            lane("reconciler", 1),
            lane("operations", usize::MAX),
            lane("populator", 1),
        ]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Pass => 0,
            Key::Operation(_) | Key::Verify(_) => 1,
            Key::Prune | Key::List => 2,
        }
    }

    fn start(&self, cache: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<Key>) {
        memory.started = Some(now);
        self.recover(cache, memory, now);
        memory.settle();
        let believed = memory.actual.iter().filter(|(_, a)| a.confirmed);
        let doubtful = believed.map(|(place, _)| place.attachment().unwrap_or_default());
        let doubtful = doubtful.filter(|name| {
            let known = cache.named::<VolumeAttachment>(name);
            !known.is_some_and(|a| a.status.as_ref().is_some_and(|s| s.attached))
        });
        if doubtful.count() > 0 {
            self.wake_verify(memory, Time(now.0 + 1), queue);
        }
        self.wake(memory, now, queue);
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        if memory.started.is_none() {
            // Everything is looked at when it starts.
            return;
        }
        if let Some((old, new)) = delta.of::<Pod>() {
            self.notice_pod(cache, memory, old.map(|p| &**p), new.map(|p| &**p), now, queue);
        } else if let Some((old, new)) = delta.of::<Node>() {
            self.notice_node(memory, old.map(|n| &**n), new.map(|n| &**n), now, queue);
            let name = &delta.object().key().name;
            let waiting = memory.passed_over.iter().filter_map(|key| cache.get::<Pod>(key));
            let here = waiting.filter(|pod| *fields::pod_node(pod) == **name);
            self.wake_list(cache, memory, here, now, queue);
        } else if let Some((_, Some(claim))) = delta.of::<PersistentVolumeClaim>() {
            self.notice_claim(cache, memory, claim, now, queue);
        } else if let Some((_, Some(volume))) = delta.of::<PersistentVolume>() {
            let claim = fields::volume_claim_key(volume).map(|claim| claim.to_string());
            let pods = claim
                .iter()
                .flat_map(|claim| cache.by::<Pod>(Index::PodsByClaim, claim));
            let waiting = pods.filter(|pod| memory.passed_over.contains(&ObjKey::of(&pod.metadata)));
            self.wake_list(cache, memory, waiting, now, queue);
        } else if let Some((old, new)) = delta.of::<VolumeAttachment>() {
            if let Some(attachment) = new.or(old) {
                self.notice_attachment(memory, attachment, new.is_some(), now, queue);
            }
        } else if let Some((old, new)) = delta.of::<CSIDriver>()
            && let Some(driver) = new.or(old)
        {
            self.notice_driver(cache, memory, driver, now, queue);
        }
        memory.settle();
    }

    fn decide(&self, cache: &Cache, memory: &Memory, key: &Key, now: Time) -> Effect {
        match key {
            Key::Pass => self.decide_pass(cache, memory, now),
            Key::Operation(key) => self.decide_operation(cache, memory, key, now),
            Key::Verify(place) if memory.verifying.contains(place) => {
                let name = place.attachment().unwrap_or_default();
                let target = ObjectRef::new(Kind::VolumeAttachment, ObjKey::cluster(name));
                Effect::Read(Read::Get(target))
            }
            Key::Prune if memory.pruned != Some(now) => Effect::Note("prune"),
            Key::List if memory.listed != Some(now) => Effect::Note("list"),
            Key::Verify(_) | Key::Prune | Key::List => Effect::Rest,
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        match key {
            Key::Pass => self.learn_pass(memory, outcome, then),
            Key::Operation(key) => self.learn_operation(memory, key, effect, outcome, then),
            Key::Verify(place) => self.learn_verify(memory, place, outcome, then),
            Key::Prune => self.prune(memory, then),
            Key::List => self.list(memory, then),
        }
        memory.settle();
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _: &Effect) {
        if *key == Key::Pass {
            Self::pass_ended(memory);
        }
    }
}
