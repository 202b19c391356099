//! The persistent volume controller of kube-controller-manager (`persistentvolume-binder`): brings claims and volumes together and lets go of volumes
//! whose claims are gone.
//!
//! ```text
//! claim events ──► one claim worker ──► claim.rs ──┐              ┌──► own copies (store.rs), read before the informers
//!                     ▲ queues                     ├──► sync.rs ──┤
//! volume events ──► one volume worker ─► volume.rs ┘              └──► background hand-over (operation.rs), then again the claim
//! ```
//!
//! The two workers run beside each other and share one memory. A binding is four writes by these two and by whoever made the volume; each sync starts
//! at the first write that is still missing. `matching.rs` is shared with the scheduler. Source: fact sheet section 1.
//!
//! A resync of everything every 15 s is not ticked: a sync which a resync would repeat asks to be looked at again at the next tick, and an event on
//! one side that only a resync would bring to the other side asks the same for it.
//!
//! Blind spots: see `claim.rs`, `volume.rs` and `matching.rs`; claims and volumes are resynced in the order in which they asked, not all claims first.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::api::{ApiError, Cache, Delta, Index, Kind, Limiter, ObjKey, Object, ReadAnswer, Resource, fields};
use crate::control::{Controller, Effect, LaneSpec, Learner, Outcome, Requests};
use crate::mutants::Wrong;
use crate::runtime::Time;

pub mod affinity;
mod claim;
mod edits;
pub mod matching;
mod operation;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod volume;

pub use operation::Operation;

use claim::Look;
use operation::Operations;
use store::{Claims, Volumes};
use sync::{End, Plan, Step, Sync};

/// The indexes that it needs in the cache of its process.
pub const INDEXES: &[Index] = &[Index::PodsByClaim];

/// What an operator may set.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// `--pvclaimbinder-sync-period`: how often every claim and volume is looked at again.
    pub pvclaimbinder_sync_period: Duration,
    /// `--enable-dynamic-provisioning`.
    pub enable_dynamic_provisioning: bool,
    /// A mistake that it is to make. `None`: none.
    pub wrong: Option<Wrong>,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            pvclaimbinder_sync_period: Duration::from_secs(15),
            enable_dynamic_provisioning: true,
            wrong: None,
        }
    }
}

/// The controller.
#[derive(Clone, Debug, Default)]
pub struct Binder {
    flags: Flags,
}

/// What one sync is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A claim.
    Claim(ObjKey),
    /// A volume.
    Volume(Arc<str>),
    /// A hand-over that runs in the background.
    Operation(Operation),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Claim(claim) => write!(f, "pvc {claim}"),
            Key::Volume(volume) => write!(f, "pv {volume}"),
            Key::Operation(operation) => write!(f, "pvc {}", operation.claim),
        }
    }
}

/// What a crash erases.
#[derive(Debug, Default)]
pub struct Memory {
    /// When the process started: the resync ticks count from here.
    started: Time,
    claims: Claims,
    volumes: Volumes,
    syncs: BTreeMap<Key, Sync>,
    operations: Operations,
}

impl Memory {
    /// Puts what a write returned into the controller's own copies.
    fn remember(&mut self, object: &Object) {
        if let Some(claim) = object.get() {
            self.claims.store(claim);
        }
        if let Some(volume) = object.get() {
            self.volumes.store(volume);
        }
    }
}

impl Binder {
    /// A controller with these settings.
    pub fn new(flags: Flags) -> Binder {
        Binder { flags }
    }

    /// The first resync after `now`.
    fn next_resync(&self, memory: &Memory, now: Time) -> Time {
        (now + Duration::from_nanos(1)).tick(memory.started, self.flags.pvclaimbinder_sync_period)
    }

    fn look<'a>(&self, memory: &'a Memory, cache: &'a Cache) -> Look<'a> {
        Look {
            cache,
            claims: &memory.claims,
            volumes: &memory.volumes,
            dynamic: self.flags.enable_dynamic_provisioning,
            wrong: self.flags.wrong,
        }
    }

    /// The worker took a key: reads its informer once and plans.
    fn begin(&self, memory: &mut Memory, key: &Key, then: &mut Learner<'_, Key>) {
        let plan = match key {
            Key::Claim(claim) => self.begin_claim(memory, claim, then),
            Key::Volume(volume) => self.begin_volume(memory, volume, then),
            // A hand-over is planned where it is started.
            Key::Operation(_) => Plan::nothing(),
        };
        memory.syncs.insert(key.clone(), Sync::new(plan));
    }

    fn begin_claim(&self, memory: &mut Memory, key: &ObjKey, then: &mut Learner<'_, Key>) -> Plan {
        let Some(claim) = then.cache.get::<PersistentVolumeClaim>(key) else {
            let gone = memory.claims.remove(key);
            let volume = gone
                .as_deref()
                .map(fields::claim_volume)
                .filter(|name| !name.is_empty());
            volume
                .into_iter()
                .for_each(|name| then.queue.add(Key::Volume(name.into())));
            return Plan::nothing();
        };
        if !memory.claims.store(claim) {
            return Plan::nothing();
        }
        claim::plan(&self.look(memory, then.cache), claim)
    }

    fn begin_volume(&self, memory: &mut Memory, name: &str, then: &mut Learner<'_, Key>) -> Plan {
        let Some(volume) = then.cache.named::<PersistentVolume>(name) else {
            let gone = memory.volumes.remove(name);
            let claim = gone.as_deref().and_then(fields::volume_claim_key);
            claim.into_iter().for_each(|key| then.queue.add(Key::Claim(key)));
            return Plan::nothing();
        };
        if !memory.volumes.store(volume) {
            return Plan::nothing();
        }
        volume::plan(&self.look(memory, then.cache), volume)
    }

    /// Starts to hand a claim over in the background, unless that runs already or failed a moment ago.
    fn start_provisioning(memory: &mut Memory, key: &Key, driver: &str, then: &mut Learner<'_, Key>) {
        let claim = memory.syncs.get(key).and_then(|sync| sync.claim.clone());
        let claim = claim.expect("only a claim is provisioned");
        let operation = Operation {
            claim: claim.key(),
            uid: fields::uid(&claim.metadata).into(),
        };
        if memory.operations.start(&operation, then.now) {
            let key = Key::Operation(operation);
            memory
                .syncs
                .insert(key.clone(), Sync::new(claim::hand_over(&claim, driver)));
            then.queue.add(key);
        }
    }

    fn took_write(memory: &mut Memory, key: &Key, answer: Result<&Object, &ApiError>, now: Time) {
        if let (Err(_), Key::Operation(operation)) = (&answer, key) {
            memory.operations.fail(operation, now);
        }
        let sync = memory.syncs.get_mut(key).expect("a sync under way has its entry");
        let deleted = sync.step() == Some(&Step::DeleteVolume);
        match answer {
            Err(error) => sync.fail(error.message.clone()),
            Ok(_) if deleted => sync.advance(),
            Ok(object) => {
                sync.take(object);
                sync.advance();
                memory.remember(object);
            }
        }
    }

    fn took_claim(memory: &mut Memory, key: &Key, sure: bool, answer: Result<&ReadAnswer, &ApiError>) {
        let sync = memory.syncs.get_mut(key).expect("a sync under way has its entry");
        let volume = sync.volume.clone().expect("a volume looks for its claim");
        let found = match answer {
            Ok(ReadAnswer::Object(object)) => object.get(),
            Ok(ReadAnswer::List(_)) => unreachable!("a GET answers with one object"),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                sync.fail(error.message.clone());
                return;
            }
        };
        *sync = Sync::new(volume::plan_with(&volume, found, sure));
    }

    /// Whether only a resync would bring this change of a volume to a claim that is bound to it.
    fn disturbs(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> bool {
        let Some(volume) = volume else { return true };
        let modes = claim
            .status
            .as_ref()
            .and_then(|s| s.access_modes.as_deref())
            .unwrap_or_default();
        fields::volume_claim(volume).is_none_or(|r| r.uid != claim.metadata.uid)
            || modes != fields::volume_modes(volume)
    }
}

impl Controller for Binder {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "persistentvolume-binder"
    }

    fn component(&self) -> Option<String> {
        Some("persistentvolume-controller".into())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[
            Kind::PersistentVolumeClaim,
            Kind::PersistentVolume,
            Kind::StorageClass,
            Kind::Pod,
        ]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: Limiter::Controller,
        };
        vec![lane("claims", 1), lane("volumes", 1), lane("operations", usize::MAX)]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Claim(_) => 0,
            Key::Volume(_) => 1,
            Key::Operation(_) => 2,
        }
    }

    fn start(&self, cache: &Cache, memory: &mut Memory, now: Time, _queue: &mut Requests<Key>) {
        memory.started = now;
        for volume in cache.list() {
            memory.volumes.store(volume);
        }
        for claim in cache.list() {
            memory.claims.store(claim);
        }
    }

    fn notice(&self, _cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        let tick = self.next_resync(memory, now);
        if let Some((old, new)) = delta.of::<PersistentVolume>() {
            let volume = new.or(old).expect("a delta has at least one side");
            let name = fields::name(&volume.metadata);
            queue.add(Key::Volume(name.into()));
            let claims = memory.claims.of_volume(name);
            for claim in claims.filter(|claim| Self::disturbs(claim, new.map(|v| &**v))) {
                queue.add_at(Key::Claim(claim.key()), tick);
            }
        } else if let Some((old, new)) = delta.of::<PersistentVolumeClaim>() {
            let claim = new.or(old).expect("a delta has at least one side");
            let key = claim.key();
            for volume in memory.volumes.of_claim(&key) {
                let name = fields::name(&volume.metadata);
                let given_up = matches!(fields::volume_phase(volume), "Released" | "Failed");
                if name != fields::claim_volume(claim) && !given_up {
                    queue.add_at(Key::Volume(name.into()), tick);
                }
            }
            queue.add(Key::Claim(key));
        }
    }

    fn decide(&self, _cache: &Cache, memory: &Memory, key: &Key, now: Time) -> Effect {
        let Some(sync) = memory.syncs.get(key) else {
            return Effect::Note("look at the object");
        };
        if let Some(effect) = sync.effect() {
            return effect.clone();
        }
        match (sync.end(), key) {
            // A failed hand-over waits for the claim's next sync.
            (_, Key::Operation(_)) | (End::Rest, _) => Effect::Rest,
            (End::Resync, _) => Effect::RestUntil(self.next_resync(memory, now)),
            (End::Retry(why), _) => Effect::Retry(why.clone().into()),
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, _effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        let Some(sync) = memory.syncs.get(key) else {
            return self.begin(memory, key, then);
        };
        match sync.step().expect("an outcome belongs to a step").clone() {
            Step::FindClaim { sure } => return Self::took_claim(memory, key, sure, outcome.read()),
            Step::Provision(driver) => Self::start_provisioning(memory, key, &driver, then),
            Step::Enqueue(other) => then.queue.add(other),
            Step::Record(_) => {}
            Step::BindVolume
            | Step::VolumePhase(..)
            | Step::BindClaim
            | Step::ClaimIsBound
            | Step::ClaimPhase(_)
            | Step::UnbindVolume
            | Step::AssignClass(_)
            | Step::NameProvisioner(_)
            | Step::DeleteVolume => {
                let answer = outcome.written().map(|written| &written.object);
                return Self::took_write(memory, key, answer, then.now);
            }
        }
        if let Some(sync) = memory.syncs.get_mut(key) {
            sync.advance();
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _effect: &Effect) {
        memory.syncs.remove(key);
        if let Key::Operation(operation) = key {
            memory.operations.end(operation);
        }
    }
}
