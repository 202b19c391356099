//! One attempt to provision a claim (fact sheet 3.2-3.4, 3.8).
//!
//! ```text
//! begin ► Announce ► [SourceVolume ► ProtectClaim]            ┐
//!                    [Snapshot ► Content ► ProtectLook ► ProtectSnapshot] ┴► [Secret] ► [Attributes] ► Create
//! Create ──ok──► [ReleaseLook ► Release] ► Save ► Saved ► done          any step but Save ──► Failed ──► [Reschedule] ► again or done
//!        └─unusable─► Cleanup (5×) ─► Failed
//! ```
//!
//! What outlives an attempt is in [`super::Memory`]: claims whose CreateVolume may still be running (they are driven on **although the claim is gone**), the slow set
//! of infeasible claims, the topology that a repeated call must ask for again, volumes that could not be saved. All of it dies with the process, which is
//! how volumes leak.
//!
//! *Blind spots.* Migration from in-tree plugins, cross-namespace data sources, node deployment. The populator's event comes from the recorder of the process.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::api::{ApiError, Cache, EventRecord, ObjKey, Object, Resource, fields, names};
use crate::control::{Effect, Learner, Outcome};
use crate::link::CsiReply;
use crate::mutants::Wrong;
use crate::runtime::Time;

use super::attempt::{At, Attempt, Failure, State, Step};
use super::topology::Remembered;
use super::{Key, Memory, Provisioner, capacity};

/// The claim that a key means: as cached, or the remembered copy of one that is gone while its CreateVolume may still run.
fn lookup<'a>(cache: &'a Cache, memory: &'a Memory, key: &ObjKey, uid: &str) -> Option<&'a Arc<PersistentVolumeClaim>> {
    let cached = cache.get::<PersistentVolumeClaim>(key);
    cached
        .filter(|c| fields::uid(&c.metadata) == uid)
        .or_else(|| memory.in_progress.get(uid))
}

/// A claim to provision, and its class.
type Admitted = (Arc<PersistentVolumeClaim>, Arc<StorageClass>);

/// The claim and class to provision now, if there are; or why to look again later.
fn admit(
    site: &Provisioner,
    cache: &Cache,
    memory: &Memory,
    key: (&ObjKey, &str),
    now: Time,
) -> Result<Option<Admitted>, String> {
    let Some(claim) = lookup(cache, memory, key.0, key.1) else {
        return Ok(None);
    };
    let class_name = fields::claim_class(claim).unwrap_or_default();
    let class = cache.named::<StorageClass>(class_name);
    if class.is_some_and(|class| memory.is_slow(site, key.1, class, now)) {
        return Err(format!(
            "skipping volume provisioning for pvc {}, because provisioning previously failed with infeasible error",
            key.1
        ));
    }
    let driver = &*memory.connection.discovered.name;
    let annotation = |name| fields::annotation(&claim.metadata, name);
    let provisioner = annotation(names::STORAGE_PROVISIONER).or_else(|| annotation(names::BETA_STORAGE_PROVISIONER));
    if !fields::claim_volume(claim).is_empty() || provisioner != Some(driver) {
        return Ok(None);
    }
    let class = class.ok_or_else(|| format!("storageclass.storage.k8s.io {class_name:?} not found"))?;
    if fields::waits_for_consumer(class) && selected_node(claim).is_empty() {
        return Ok(None);
    }
    let exists = cache.named::<PersistentVolume>(&format!("pvc-{}", key.1)).is_some();
    if exists || class.provisioner != driver {
        return Ok(None);
    }
    Ok(Some((Arc::clone(claim), Arc::clone(class))))
}

/// The node that the scheduler chose, or empty.
pub(super) fn selected_node(claim: &PersistentVolumeClaim) -> &str {
    fields::annotation(&claim.metadata, names::SELECTED_NODE).unwrap_or_default()
}

/// The next effect for a claim.
pub(super) fn decide(site: &Provisioner, cache: &Cache, memory: &Memory, key: (&ObjKey, &str), now: Time) -> Effect {
    let Some(attempt) = memory.attempts.get(key.1) else {
        return match admit(site, cache, memory, key, now) {
            Ok(Some(_)) => Effect::Note("begin"),
            Ok(None) => Effect::Rest,
            Err(message) => Effect::Retry(message.into()),
        };
    };
    attempt.decide(site, cache, now)
}

/// What it taught.
pub(super) fn learn(
    site: &Provisioner,
    memory: &mut Memory,
    key: (&ObjKey, &str),
    effect: &Effect,
    outcome: &Outcome,
    then: &mut Learner<'_, Key>,
) {
    if matches!(effect, Effect::Note(_)) {
        let admitted = admit(site, then.cache, memory, key, then.now);
        let (claim, class) = admitted.ok().flatten().expect("decide has just admitted it");
        memory.slow.remove(key.1);
        memory.attempts.insert(key.1.into(), Attempt::new(claim, class));
        return;
    }
    let mut attempt = memory.attempts.remove(key.1).expect("an effect belongs to an attempt");
    match attempt.step.clone() {
        Step::Failed(failure) => attempt.step = settle(memory, &attempt, failure, then.now),
        Step::Reschedule(message) => attempt.step = rescheduled(memory, &attempt, message, outcome, then),
        Step::Save(volume) if outcome.written().is_err() && site.flags.wrong == Some(Wrong::DeletesOnSaveFailure) => {
            attempt.step = attempt.start_over(&volume, site, then.now);
        }
        Step::Save(volume) => attempt.step = saved(memory, volume, outcome.written().map(drop), then),
        step => advance(site, memory, &mut attempt, (step, outcome), then),
    }
    memory.attempts.insert(key.1.into(), attempt);
}

/// The sync of a claim ended.
pub(super) fn ended(memory: &mut Memory, uid: &str, effect: &Effect) {
    memory.attempts.remove(uid);
    if matches!(effect, Effect::Rest) {
        memory.in_progress.remove(uid);
    }
}

/// Steps up to and including CreateVolume and what follows in the driver.
fn advance(
    site: &Provisioner,
    memory: &mut Memory,
    attempt: &mut Attempt,
    (step, outcome): (Step, &Outcome),
    then: &mut Learner<'_, Key>,
) {
    let uid = fields::uid(&attempt.claim.metadata).to_owned();
    let mut remembered = memory.topology.remove(uid.as_str()).unwrap_or_default();
    let created = matches!(step, Step::Create);
    let mut at = At {
        site,
        cache: then.cache,
        discovered: &memory.connection.discovered,
        remembered: &mut remembered,
        now: then.now,
    };
    if created && matches!(outcome, Outcome::Reply(Ok(CsiReply::CreateVolume(r))) if r.volume.is_none()) {
        memory
            .connection
            .abort("panic: CreateVolumeResponse without volume: nil pointer dereference");
        return;
    }
    let identity = site.identity(memory.started, &memory.connection.discovered.name);
    let next = attempt.next(step, outcome, &mut at, &identity);
    attempt.step = next.unwrap_or_else(Step::Failed);
    let done = match &attempt.step {
        Step::Failed(f) => created && matches!(f.state, State::Finished | State::Reschedule),
        Step::Save(_) | Step::ReleaseLook { .. } => true,
        _ => false,
    };
    if !done && remembered != Remembered::default() {
        memory.topology.insert(uid.into(), remembered);
    }
    refresh_capacity(memory, attempt, then);
}

/// Provisioning changed how much there is left.
fn refresh_capacity(memory: &Memory, attempt: &Attempt, then: &mut Learner<'_, Key>) {
    let class = fields::name(&attempt.class.metadata);
    match &attempt.step {
        Step::Save(volume) => match volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()) {
            Some(affinity) => capacity::refresh_affinity(memory, affinity, then.queue),
            None => capacity::refresh_class(memory, class, then.queue),
        },
        Step::Failed(failure) if failure.state != State::NoChange => {
            capacity::refresh_class(memory, class, then.queue);
        }
        Step::Populator => capacity::refresh_class(memory, class, then.queue),
        _ => {}
    }
}

/// The failure was told: what is remembered of it.
fn settle(memory: &mut Memory, attempt: &Attempt, failure: Failure, now: Time) -> Step {
    let uid = fields::uid(&attempt.claim.metadata);
    if failure.infeasible {
        memory.mark_slow(uid, &attempt.class, now);
    }
    match failure.state {
        State::NoChange => {}
        State::InBackground => {
            memory.in_progress.insert(uid.into(), Arc::clone(&attempt.claim));
        }
        State::Reschedule if fields::annotation(&attempt.claim.metadata, names::SELECTED_NODE).is_some() => {
            return Step::Reschedule(failure.message);
        }
        State::Finished | State::Reschedule => {
            memory.in_progress.remove(uid);
        }
    }
    Step::End(Some(failure.message))
}

/// The scheduler was asked to choose again, or could not be.
fn rescheduled(
    memory: &mut Memory,
    attempt: &Attempt,
    message: String,
    outcome: &Outcome,
    then: &mut Learner<'_, Key>,
) -> Step {
    memory.in_progress.remove(fields::uid(&attempt.claim.metadata));
    if outcome.written().is_err() {
        return Step::End(Some(message));
    }
    // The copy that was sent goes into the informer's store, with its old version, so that nothing starts from the old claim.
    then.cache.put(Object::new(attempt.unselected()));
    Step::End(None)
}

/// The volume was saved, or goes to the queue of volumes that could not be.
fn saved(
    memory: &mut Memory,
    volume: Arc<PersistentVolume>,
    result: Result<(), &ApiError>,
    then: &mut Learner<'_, Key>,
) -> Step {
    match result {
        Err(error) if !error.is_already_exists() => {
            let name: Arc<str> = Arc::from(fields::name(&volume.metadata));
            memory.unsaved.insert(Arc::clone(&name), super::Unsaved::new(volume));
            then.queue.add(Key::Save(name));
            Step::End(None)
        }
        _ => Step::Saved(volume),
    }
}

/// What a claim's author is told when the volume object is there; nothing when the claim is gone.
pub(super) fn success(cache: &Cache, volume: &PersistentVolume) -> Option<EventRecord> {
    let claim = cache.get::<PersistentVolumeClaim>(&fields::volume_claim_key(volume)?)?;
    let same = fields::volume_claim(volume)?.uid == claim.metadata.uid;
    let name = fields::name(&volume.metadata);
    let message = format!("Successfully provisioned volume {name}");
    same.then(|| {
        EventRecord::normal(
            &PersistentVolumeClaim::into_object(Arc::clone(claim)),
            "ProvisioningSucceeded",
            message,
        )
    })
}
