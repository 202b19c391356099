//! What keeps a claim: a pod that has a node and refers to it, even one that has run to its end.
//!
//! ```text
//! events ──► claims of a namespace gather while its worker is busy ──► one batch
//! per claim: used, says the informer? ──yes──► next claim
//!                      │ no
//!                      ▼
//!            used, says a live LIST, shared by the batch? ──yes──► next claim
//!                      │ no
//!                      ▼
//!            U without the finalizer ──error──► this claim alone again after 5, 10, … ms
//! ```
//!
//! A pod without a node does not count: kubelet refuses to start it with a claim that is being deleted. Source: fact sheet 1.10.
//!
//! Blind spots: the claims of a batch are looked at in order of name (random in Kubernetes); the 10/s bucket of the retry queue is left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::api::{
    ApiError, Cache, Delta, Index, Kind, Limiter, ObjKey, Object, Read, ReadAnswer, Resource, Write, exponential,
    fields, names,
};
use crate::control::{Controller, Effect, LaneSpec, Learner, Outcome, Requests};
use crate::mutants::Wrong;
use crate::release::RELEASE;
use crate::runtime::Time;

use super::{Need, need, with, without};

/// The controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClaimProtection {
    wrong: Option<Wrong>,
}

/// What one sync is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The claims of a namespace that gathered.
    Namespace(Arc<str>),
    /// A claim whose update failed goes back to its namespace.
    Again(ObjKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Namespace(namespace) => write!(f, "ns {namespace}"),
            Key::Again(claim) => write!(f, "pvc {claim}"),
        }
    }
}

/// What a crash erases.
#[derive(Debug, Default)]
pub struct Memory {
    /// Claims that wait for their namespace's next batch.
    gathered: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The batches under way.
    batches: BTreeMap<Arc<str>, Batch>,
    /// How often a claim's update failed in a row.
    failures: BTreeMap<ObjKey, u32>,
}

#[derive(Debug, Default)]
struct Batch {
    left: VecDeque<Arc<str>>,
    /// The pods of the namespace, once asked for.
    live: Option<Vec<Arc<Pod>>>,
    work: Option<Work>,
}

/// What is under way for the claim at hand.
#[derive(Clone, Debug)]
enum Work {
    /// Asking the server for the pods before deciding about this claim.
    List(Arc<PersistentVolumeClaim>),
    /// Writing this claim.
    Write(ObjKey, Object),
}

const FIRST_RETRY: Duration = RELEASE.work_queue.backoff;
const LAST_RETRY: Duration = RELEASE.work_queue.backoff_cap;

impl Memory {
    fn gather(&mut self, claim: &ObjKey, queue: &mut Requests<Key>) {
        let namespace = Arc::clone(&claim.namespace);
        self.gathered
            .entry(Arc::clone(&namespace))
            .or_default()
            .insert(Arc::clone(&claim.name));
        queue.add(Key::Namespace(namespace));
    }
}

/// Whether the pod uses the claim.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = fields::name(&claim.metadata);
    !fields::pod_node(pod).is_empty()
        && fields::pod_claims(pod).any(|used| {
            let lives = !used.ephemeral || (!is_shut_down(pod) && fields::is_owned_by_pod(claim, pod));
            used.claim == name && lives
        })
}

/// Whether kubelet is done with the pod, or it was deleted by force: only its object is left.
fn is_shut_down(pod: &Pod) -> bool {
    fields::is_deleting(&pod.metadata) && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Whether this state of a pod may set claims free.
fn may_free(pod: &Pod) -> bool {
    fields::is_terminated(pod) || fields::pod_node(pod).is_empty()
}

impl Batch {
    /// Finds the next claim that wants something done.
    fn advance(&mut self, cache: &Cache, namespace: &Arc<str>) {
        self.work = None;
        while let Some(name) = self.left.pop_front() {
            let key = ObjKey::new(Arc::clone(namespace), name);
            let Some(claim) = cache.get::<PersistentVolumeClaim>(&key) else {
                continue;
            };
            self.work = match need(&claim.metadata, names::PVC_PROTECTION) {
                Need::Nothing => None,
                Need::Guard => Some(Work::Write(key, Object::new(with(&**claim, names::PVC_PROTECTION)))),
                Need::MayGo => {
                    let mut pods = cache.by::<Pod>(Index::PodsByClaim, &key.to_string());
                    if pods.any(|pod| uses(pod, claim)) {
                        None
                    } else if self.live.is_none() {
                        Some(Work::List(Arc::clone(claim)))
                    } else {
                        self.release(claim)
                    }
                }
            };
            if self.work.is_some() {
                return;
            }
        }
    }

    /// The update that lets the claim go, unless a live pod uses it.
    fn release(&self, claim: &Arc<PersistentVolumeClaim>) -> Option<Work> {
        let live = self.live.as_deref().unwrap_or_default();
        if live.iter().any(|pod| uses(pod, claim)) {
            return None;
        }
        Some(Work::Write(
            claim.key(),
            Object::new(without(&**claim, names::PVC_PROTECTION)),
        ))
    }
}

impl ClaimProtection {
    /// The controller, with a mistake or without.
    pub fn new(wrong: Option<Wrong>) -> ClaimProtection {
        ClaimProtection { wrong }
    }

    fn take_batch(memory: &mut Memory, namespace: &Arc<str>, cache: &Cache) {
        let gathered = memory.gathered.remove(namespace).unwrap_or_default();
        let mut batch = Batch {
            left: gathered.into_iter().collect(),
            ..Batch::default()
        };
        batch.advance(cache, namespace);
        memory.batches.insert(Arc::clone(namespace), batch);
    }

    fn retry(memory: &mut Memory, claim: ObjKey, then: &mut Learner<'_, Key>) {
        let failures = memory.failures.entry(claim.clone()).or_insert(0);
        let wait = exponential(FIRST_RETRY, LAST_RETRY, *failures);
        *failures += 1;
        then.queue.add_at(Key::Again(claim), then.now + wait);
    }

    fn took_list(
        memory: &mut Memory,
        namespace: &Arc<str>,
        claim: &Arc<PersistentVolumeClaim>,
        answer: Result<&ReadAnswer, &ApiError>,
        then: &mut Learner<'_, Key>,
    ) {
        let batch = memory
            .batches
            .get_mut(namespace)
            .expect("a batch under way has its entry");
        match answer {
            Ok(ReadAnswer::List(objects)) => {
                batch.live = Some(objects.iter().filter_map(|o| o.get().cloned()).collect());
                batch.work = batch.release(claim);
                if batch.work.is_none() {
                    batch.advance(then.cache, namespace);
                }
            }
            Ok(ReadAnswer::Object(_)) => unreachable!("a LIST answers with many objects"),
            Err(_) => {
                batch.advance(then.cache, namespace);
                Self::retry(memory, claim.key(), then);
            }
        }
    }
}

impl Controller for ClaimProtection {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn component(&self) -> Option<String> {
        Some("pvc-protection-controller".into())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::PersistentVolumeClaim, Kind::Pod]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let lane = |name| LaneSpec {
            name,
            workers: 1,
            limiter: Limiter::Controller,
        };
        vec![lane("namespaces"), lane("claims")]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Namespace(_) => 0,
            Key::Again(_) => 1,
        }
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, _: Time, queue: &mut Requests<Key>) {
        let wants = |claim: &PersistentVolumeClaim| need(&claim.metadata, names::PVC_PROTECTION) != Need::Nothing;
        if let Some((_, new)) = delta.of::<PersistentVolumeClaim>() {
            if new.is_none() {
                memory.failures.remove(&delta.object().key());
            }
            new.filter(|claim| wants(claim))
                .into_iter()
                .for_each(|claim| memory.gather(&claim.key(), queue));
        } else if let Some((old, new)) = delta.of::<Pod>() {
            let replaced = |old: &&Arc<Pod>| new.is_none_or(|new| new.metadata.uid != old.metadata.uid);
            let freeing = [old.filter(replaced), new.filter(|pod| may_free(pod))];
            for pod in freeing.into_iter().flatten() {
                for used in fields::pod_claims(pod) {
                    let key = ObjKey::new(fields::namespace(&pod.metadata), &*used.claim);
                    if cache
                        .get::<PersistentVolumeClaim>(&key)
                        .is_some_and(|claim| wants(claim))
                    {
                        memory.gather(&key, queue);
                    }
                }
            }
        }
    }

    fn decide(&self, _: &Cache, memory: &Memory, key: &Key, _: Time) -> Effect {
        match key {
            Key::Again(claim) => {
                let gathered = memory.gathered.get(&claim.namespace);
                if gathered.is_some_and(|names| names.contains(&claim.name)) {
                    Effect::Rest
                } else {
                    Effect::Note("back to its namespace")
                }
            }
            Key::Namespace(namespace) => match memory.batches.get(namespace).map(|batch| &batch.work) {
                None => Effect::Note("take the batch"),
                Some(None) => Effect::Rest,
                Some(Some(Work::List(_))) => Effect::Read(Read::List {
                    kind: Kind::Pod,
                    namespace: Some(namespace.to_string()),
                }),
                Some(Some(Work::Write(_, object))) => Effect::Write(Write::Update(object.clone())),
            },
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, _: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        let namespace = match key {
            Key::Again(claim) => return memory.gather(claim, then.queue),
            Key::Namespace(namespace) => namespace,
        };
        let Some(batch) = memory.batches.get_mut(namespace) else {
            return Self::take_batch(memory, namespace, then.cache);
        };
        match batch.work.clone().expect("an outcome belongs to something under way") {
            Work::List(claim) => Self::took_list(memory, namespace, &claim, outcome.read(), then),
            Work::Write(claim, _) => {
                batch.advance(then.cache, namespace);
                match outcome.written() {
                    Ok(_) => drop(memory.failures.remove(&claim)),
                    Err(_) if self.wrong == Some(Wrong::FinalizerConflictLost) => {}
                    Err(_) => Self::retry(memory, claim, then),
                }
            }
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _: &Effect) {
        if let Key::Namespace(namespace) = key {
            memory.batches.remove(namespace);
        }
    }
}
