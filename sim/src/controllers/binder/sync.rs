//! One sync under way: what is left to do, step by step, on working copies.
//!
//! ```text
//!            ┌───────────── next step that changes something ─────────────┐
//! look ──► plan ──► step ──effect──► outcome ──ok──► working copy, own store
//!                                       └─error──► Retry        │ no step left
//!                                                               ▼
//!                                              Rest, or again at the next resync
//! ```
//!
//! The real controller reads its lister once at the start of a sync and then goes on with what its own writes returned. So does this: a plan is made
//! once (`claim.rs`, `volume.rs`), and each step is turned into an effect against the newest working copy; a step that would change nothing is skipped.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::api::{Delete, EventRecord, Object, ObjectRef, Read, Resource, Write, fields};
use crate::control::Effect;

use super::{Key, edits};

/// One thing that a sync wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// `U(PV)`: the volume names the claim.
    BindVolume,
    /// `US(PV)`: the volume's phase, with a message.
    VolumePhase(&'static str, String),
    /// `U(PVC)`: the claim names the volume, binding is complete.
    BindClaim,
    /// `US(PVC)`: bound, with what the volume has.
    ClaimIsBound,
    /// `US(PVC)`: another phase, with nothing of any volume.
    ClaimPhase(&'static str),
    /// `U(PV)`: the volume names no claim any more.
    UnbindVolume,
    /// `U(PVC)`: the default class.
    AssignClass(String),
    /// `U(PVC)`: who shall provision the claim.
    NameProvisioner(String),
    /// The volume object goes: an in-tree deleter is done with its storage.
    DeleteVolume,
    /// An event.
    Record(EventRecord),
    /// A live GET of the claim that the volume names. `sure`: its answer is believed even if the UID differs.
    FindClaim { sure: bool },
    /// Hands the claim to the provisioner of this name, in the background.
    Provision(String),
    /// Queues another key.
    Enqueue(Key),
}

/// How a sync ends when every step succeeded.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// Nothing more, until something happens.
    Rest,
    /// The next resync would do or say something again.
    Resync,
    /// An error: again after the back-off.
    Retry(String),
}

/// What is to be done about one key.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) claim: Option<Arc<PersistentVolumeClaim>>,
    pub(super) volume: Option<Arc<PersistentVolume>>,
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
}

impl Plan {
    /// Nothing to do.
    pub(super) fn nothing() -> Plan {
        Plan {
            claim: None,
            volume: None,
            steps: Vec::new(),
            end: End::Rest,
        }
    }

    /// Steps about a claim.
    pub(super) fn for_claim(claim: &Arc<PersistentVolumeClaim>, steps: Vec<Step>, end: End) -> Plan {
        Plan {
            claim: Some(Arc::clone(claim)),
            volume: None,
            steps,
            end,
        }
    }

    /// Steps about a volume.
    pub(super) fn for_volume(volume: &Arc<PersistentVolume>, steps: Vec<Step>, end: End) -> Plan {
        Plan {
            claim: None,
            volume: Some(Arc::clone(volume)),
            steps,
            end,
        }
    }
}

/// A sync under way.
#[derive(Debug)]
pub(super) struct Sync {
    pub(super) claim: Option<Arc<PersistentVolumeClaim>>,
    pub(super) volume: Option<Arc<PersistentVolume>>,
    steps: VecDeque<Step>,
    /// The step under way and its effect; `None` when all is done.
    current: Option<(Step, Effect)>,
    end: End,
}

impl Sync {
    /// Begins a plan.
    pub(super) fn new(plan: Plan) -> Sync {
        let mut sync = Sync {
            claim: plan.claim,
            volume: plan.volume,
            steps: plan.steps.into(),
            current: None,
            end: plan.end,
        };
        sync.advance();
        sync
    }

    /// The effect of the step under way.
    pub(super) fn effect(&self) -> Option<&Effect> {
        self.current.as_ref().map(|(_, effect)| effect)
    }

    /// The step under way, which now has its outcome.
    pub(super) fn step(&self) -> Option<&Step> {
        self.current.as_ref().map(|(step, _)| step)
    }

    /// How it ends.
    pub(super) fn end(&self) -> &End {
        &self.end
    }

    /// Goes on with the object that a write returned.
    pub(super) fn take(&mut self, object: &Object) {
        if let Some(claim) = object.get() {
            self.claim = Some(Arc::clone(claim));
        }
        if let Some(volume) = object.get() {
            self.volume = Some(Arc::clone(volume));
        }
    }

    /// Finds the next step that changes something.
    pub(super) fn advance(&mut self) {
        self.current = None;
        while let Some(step) = self.steps.pop_front() {
            if let Some(effect) = self.effect_of(&step) {
                self.current = Some((step, effect));
                return;
            }
        }
    }

    /// Gives up: whatever is left is done by the next sync.
    pub(super) fn fail(&mut self, why: String) {
        self.current = None;
        self.steps.clear();
        self.end = End::Retry(why);
    }

    fn effect_of(&self, step: &Step) -> Option<Effect> {
        match step {
            Step::BindVolume => update(edits::volume_bound_to(self.volume(), self.claim())),
            Step::BindClaim => update(edits::claim_bound_to(self.claim(), self.volume())),
            Step::UnbindVolume => update(Some(edits::volume_unbound(self.volume()))),
            Step::AssignClass(class) => update(Some(edits::claim_of_class(self.claim(), class))),
            Step::NameProvisioner(driver) => update(edits::claim_for_provisioner(self.claim(), driver)),
            Step::VolumePhase(phase, message) => update_status(edits::volume_in_phase(self.volume(), phase, message)),
            Step::ClaimIsBound => update_status(edits::claim_in_phase(self.claim(), "Bound", Some(self.volume()))),
            Step::ClaimPhase(phase) => update_status(edits::claim_in_phase(self.claim(), phase, None)),
            Step::DeleteVolume => {
                let target = ObjectRef::to::<PersistentVolume>(&self.volume().key());
                Some(Effect::Write(Write::Delete(Delete::new(target))))
            }
            Step::Record(record) => Some(Effect::Record(record.clone())),
            Step::FindClaim { .. } => {
                let key = fields::volume_claim_key(self.volume()).expect("only claimed volumes look for their claim");
                Some(Effect::Read(Read::Get(ObjectRef::to::<PersistentVolumeClaim>(&key))))
            }
            Step::Provision(_) => Some(Effect::Note("hand the claim to its provisioner")),
            Step::Enqueue(_) => Some(Effect::Note("queue the other side")),
        }
    }

    fn claim(&self) -> &PersistentVolumeClaim {
        self.claim.as_deref().expect("a plan with this step has a claim")
    }

    fn volume(&self) -> &PersistentVolume {
        self.volume.as_deref().expect("a plan with this step has a volume")
    }
}

fn update<T: Resource>(changed: Option<T>) -> Option<Effect> {
    changed.map(|object| Effect::Write(Write::Update(Object::new(object))))
}

fn update_status<T: Resource>(changed: Option<T>) -> Option<Effect> {
    changed.map(|object| Effect::Write(Write::UpdateStatus(Object::new(object))))
}
