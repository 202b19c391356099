//! The namespace controller of kube-controller-manager: empties a namespace that is being deleted, and then lets it go.
//!
//! ```text
//! deletion seen ──5 s──► pods left? ──DELETE each──► (again when they may be gone)
//!                           │ none
//!                           ▼
//!                        the other kinds: DELETE each ─► anything left? ──yes──► conditions ─► (again later)
//!                                                            │ no
//!                                                            ▼
//!                                                        finalise: the server removes the namespace
//! ```
//!
//! Pods go before everything else, so that no volume is taken from under them (OrderedNamespaceDeletion). How long it waits follows from what is left: half the
//! longest grace of its pods and one second, or 15 s for what finalizers hold. Source: Kubernetes `pkg/controller/namespace` v1.36; fact sheet 10.5.
//!
//! *Blind spots.* Objects are deleted one by one; a collection is one request in Kubernetes. Events of the namespace stay until they expire. The subresource
//! `finalize` is a plain update. Of the conditions only the two about remaining content are kept.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};

use crate::api::{
    Cache, Clock, Delete, Delta, Kind, Limiter, ObjKey, Object, ObjectRef, Read, ReadAnswer, Write, fields,
};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::runtime::Time;

/// The name of its writes.
pub const COMPONENT: &str = "namespace-controller";

/// From an event of a namespace until it is looked at: other API servers must have heard of its deletion.
const GRACE: Duration = Duration::from_secs(5);

/// How long finalizers are thought to take, in seconds.
const FINALIZERS: u64 = 15;

/// The finalizer of a namespace that is this controller's.
const FINALIZER: &str = "kubernetes";

/// The kinds that it empties, pods first.
const EMPTIED: &[Kind] = &[
    Kind::Pod,
    Kind::PersistentVolumeClaim,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::ServiceAccount,
    Kind::CSIStorageCapacity,
    Kind::VolumeSnapshot,
];

/// The controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceController;

/// The controller at work, for kube-controller-manager.
pub fn shells() -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(NamespaceController))]
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ns {}", self.0)
    }
}

/// What a crash erases.
#[derive(Debug, Default)]
pub struct Memory {
    syncs: BTreeMap<Arc<str>, Sync>,
}

/// A namespace being emptied.
#[derive(Debug)]
struct Sync {
    step: Step,
    namespace: Arc<Namespace>,
    /// What was found, by kind.
    left: BTreeMap<Kind, Vec<Object>>,
    failed: Option<String>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Lists a kind, then deletes what it found, then lists it again.
    List(usize),
    Delete(usize, VecDeque<ObjectRef>),
    Count(usize),
    Tell,
    Finalise,
    Over,
}

impl Sync {
    /// After the namespace has been read.
    fn begun(outcome: &Outcome) -> Sync {
        let found = match outcome.read() {
            Ok(ReadAnswer::Object(object)) => object.get::<Namespace>().map(Arc::clone),
            _ => None,
        };
        let failed = outcome.read().err().filter(|e| !e.is_not_found());
        let deleting = found.as_ref().is_some_and(|n| fields::is_deleting(&n.metadata));
        Sync {
            step: if deleting { Step::List(0) } else { Step::Over },
            namespace: found.unwrap_or_default(),
            left: BTreeMap::new(),
            failed: failed.map(|e| e.message.clone()),
        }
    }

    /// Whether something is left, in seconds until another look is worth while.
    fn estimate(&self) -> Option<u64> {
        let objects = self.left.values().flatten();
        let wait = |object: &Object| {
            if !fields::finalizers(object.meta()).is_empty() {
                return FINALIZERS;
            }
            let grace = match object {
                Object::Pod(pod) => pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds),
                _ => None,
            };
            grace.and_then(|g| u64::try_from(g).ok()).unwrap_or(0)
        };
        objects.map(wait).max()
    }

    fn after(&mut self, kind: usize) -> Step {
        let pods_left = EMPTIED[kind] == Kind::Pod && self.left.values().any(|l| !l.is_empty());
        if pods_left || kind + 1 == EMPTIED.len() {
            return Step::Tell;
        }
        Step::List(kind + 1)
    }

    /// The namespace with what its conditions should say, if they say something else.
    fn described(&self, now: Time) -> Option<Namespace> {
        let mut counts = Vec::new();
        let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
        for (kind, objects) in self.left.iter().filter(|(_, objects)| !objects.is_empty()) {
            counts.push(format!("{} has {} resource instances", resource(*kind), objects.len()));
            for name in objects.iter().flat_map(|o| fields::finalizers(o.meta())) {
                *finalizers.entry(name).or_default() += 1;
            }
        }
        let held = finalizers
            .iter()
            .map(|(name, count)| format!("{name} in {count} resource instances"));
        let held: Vec<String> = held.collect();
        let conditions = [
            condition(
                "NamespaceContentRemaining",
                "SomeResourcesRemain",
                "ContentRemoved",
                "Some resources are remaining: ",
                "All content successfully removed",
                &counts,
            ),
            condition(
                "NamespaceFinalizersRemaining",
                "SomeFinalizersRemain",
                "ContentHasNoFinalizers",
                "Some content in the namespace has finalizers remaining: ",
                "All content-preserving finalizers finished",
                &held,
            ),
        ];
        let mut namespace = Namespace::clone(&self.namespace);
        let known = namespace
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        let mut changed = false;
        for mut wanted in conditions {
            let old = known.iter_mut().find(|c| c.type_ == wanted.type_);
            let same = |old: &NamespaceCondition| old.status == wanted.status && old.message == wanted.message;
            match old {
                Some(old) if same(old) => {}
                // Nothing was ever in the way: that is not worth a word.
                None if wanted.status == "False" => {}
                old => {
                    changed = true;
                    wanted.last_transition_time = Some(Clock::EPOCH.time(now));
                    match old {
                        Some(old) => *old = wanted,
                        None => known.push(wanted),
                    }
                }
            }
        }
        changed.then_some(namespace)
    }

    /// The namespace without this controller's finalizer.
    fn finalised(&self) -> Namespace {
        let mut namespace = Namespace::clone(&self.namespace);
        let finalizers = namespace
            .spec
            .get_or_insert_default()
            .finalizers
            .get_or_insert_default();
        finalizers.retain(|f| f != FINALIZER);
        namespace
    }

    fn over(&mut self, why: Option<String>) -> Step {
        self.failed = why;
        Step::Over
    }
}

fn resource(kind: Kind) -> String {
    match kind.api_version().split_once('/') {
        Some((group, _)) => format!("{}.{group}", kind.plural()),
        None => format!("{}.", kind.plural()),
    }
}

fn condition(kind: &str, bad: &str, good: &str, some: &str, none: &str, list: &[String]) -> NamespaceCondition {
    let left = !list.is_empty();
    NamespaceCondition {
        type_: kind.into(),
        status: if left { "True" } else { "False" }.into(),
        reason: Some(if left { bad } else { good }.into()),
        message: Some(if left {
            format!("{some}{}", list.join(", "))
        } else {
            none.into()
        }),
        last_transition_time: None,
    }
}

fn target(name: &Arc<str>) -> ObjectRef {
    ObjectRef::new(Kind::Namespace, ObjKey::cluster(Arc::clone(name)))
}

impl Controller for NamespaceController {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn component(&self) -> Option<String> {
        Some(COMPONENT.to_owned())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Namespace]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        vec![LaneSpec {
            name: "namespace",
            workers: 10,
            limiter: Limiter::Exponential {
                base: Duration::from_millis(5),
                cap: Duration::from_secs(60),
            },
        }]
    }

    fn notice(&self, _: &Cache, _: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        let Some((_, new)) = delta.of::<Namespace>() else {
            return;
        };
        let name: Arc<str> = fields::name(delta.object().meta()).into();
        if new.is_some_and(|n| fields::is_deleting(&n.metadata)) {
            queue.add_at(Key(name), now + GRACE);
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, Key(name): &Key, now: Time) -> Effect {
        let Some(sync) = memory.syncs.get(name) else {
            let known = cache.named::<Namespace>(name);
            return known.map_or(Effect::Rest, |_| Effect::Read(Read::Get(target(name))));
        };
        match &sync.step {
            Step::List(kind) | Step::Count(kind) => Effect::Read(Read::List {
                kind: EMPTIED[*kind],
                namespace: Some(name.to_string()),
            }),
            Step::Delete(_, objects) => match objects.front() {
                Some(object) => Effect::write(Write::Delete(Delete::new(object.clone()))),
                None => Effect::Note("all deleted"),
            },
            Step::Tell => match sync.described(now) {
                Some(namespace) => Effect::write(Write::UpdateStatus(Object::new(namespace))),
                None => Effect::Note("nothing new to say"),
            },
            Step::Finalise => Effect::write(Write::Update(Object::new(sync.finalised()))),
            Step::Over => match (&sync.failed, sync.estimate()) {
                (Some(why), _) => Effect::Retry(why.clone().into()),
                (None, Some(seconds)) => Effect::RestUntil(now + Duration::from_secs(seconds / 2 + 1)),
                (None, None) => Effect::Rest,
            },
        }
    }

    fn learn(
        &self,
        memory: &mut Memory,
        Key(name): &Key,
        effect: &Effect,
        outcome: &Outcome,
        _: &mut Learner<'_, Key>,
    ) {
        let Some(sync) = memory.syncs.get_mut(name) else {
            memory.syncs.insert(Arc::clone(name), Sync::begun(outcome));
            return;
        };
        let step = sync.step.clone();
        sync.step = match step {
            Step::List(kind) => match outcome.read() {
                Ok(ReadAnswer::List(found)) if found.is_empty() => sync.after(kind),
                Ok(ReadAnswer::List(found)) => Step::Delete(kind, found.iter().map(Object::to_ref).collect()),
                Ok(ReadAnswer::Object(_)) => unreachable!("a LIST answers with a list"),
                Err(error) => sync.over(Some(error.message.clone())),
            },
            Step::Delete(kind, mut objects) => {
                let refused = match (effect, outcome) {
                    (Effect::Write(_), Outcome::Written(Err(error))) if !error.is_not_found() => {
                        Some(error.message.clone())
                    }
                    _ => None,
                };
                match (refused, objects.pop_front()) {
                    (Some(why), _) => sync.over(Some(why)),
                    (None, Some(_)) => Step::Delete(kind, objects),
                    (None, None) => Step::Count(kind),
                }
            }
            Step::Count(kind) => match outcome.read() {
                Ok(ReadAnswer::List(found)) => {
                    sync.left.insert(EMPTIED[kind], found.clone());
                    sync.after(kind)
                }
                Ok(ReadAnswer::Object(_)) => unreachable!("a LIST answers with a list"),
                Err(error) => sync.over(Some(error.message.clone())),
            },
            Step::Tell => {
                if let Outcome::Written(Ok(written)) = outcome {
                    let namespace = written
                        .object
                        .get::<Namespace>()
                        .expect("a PUT of a Namespace answers one");
                    sync.namespace = Arc::clone(namespace);
                }
                match sync.estimate() {
                    Some(_) => Step::Over,
                    None => Step::Finalise,
                }
            }
            Step::Finalise => match outcome.written() {
                Err(error) if !error.is_not_found() => sync.over(Some(error.message.clone())),
                _ => sync.over(None),
            },
            Step::Over => Step::Over,
        };
    }

    fn ended(&self, memory: &mut Memory, Key(name): &Key, _: &Effect) {
        memory.syncs.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::NamespaceController;
    use crate::api::{Kind, ObjKey};
    use crate::control::Shell;
    use crate::controllers::bench::Bench;
    use crate::runtime::Time;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn bench() -> Bench {
        let mut bench = Bench::new(&[], vec![Box::new(Shell::new(NamespaceController))]);
        bench.create(Kind::Namespace, json!({"metadata": {"name": "shop"}}));
        bench
    }

    fn secret(bench: &mut Bench, finalizers: &Value) {
        let meta = json!({"name": "key", "namespace": "shop", "finalizers": finalizers});
        bench.create(Kind::Secret, json!({ "metadata": meta }));
    }

    fn shop(bench: &Bench) -> Value {
        bench.json(Kind::Namespace, &ObjKey::cluster("shop"))
    }

    #[test]
    fn an_empty_namespace_goes_five_seconds_after_its_deletion() {
        let mut bench = bench();
        bench.delete(Kind::Namespace, &ObjKey::cluster("shop"));
        bench.run_to(Time(at(5).0 - 1));
        assert_eq!(shop(&bench)["status"]["phase"], "Terminating");
        bench.run_to(at(5));
        assert_eq!(bench.take_log(), ["update ns shop"]);
        assert_eq!(shop(&bench), Value::Null);
    }

    #[test]
    fn pods_go_before_everything_else() {
        let mut bench = bench();
        secret(&mut bench, &json!([]));
        let spec =
            json!({"nodeName": "n1", "terminationGracePeriodSeconds": 8, "containers": [{"name": "c", "image": "i"}]});
        bench.create(
            Kind::Pod,
            json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}),
        );
        bench.delete(Kind::Namespace, &ObjKey::cluster("shop"));
        bench.run_to(at(5));
        assert_eq!(bench.take_log(), ["delete pod shop/web", "update ns shop /status"]);
        let condition = shop(&bench)["status"]["conditions"][0].clone();
        assert_eq!(
            condition["message"],
            "Some resources are remaining: pods. has 1 resource instances"
        );
        let mut delete = crate::api::Delete::new(crate::api::ObjectRef::new(Kind::Pod, ObjKey::new("shop", "web")));
        delete.grace_seconds = Some(0);
        bench.user(&crate::api::Write::Delete(delete));
        bench.run_to(at(10));
        // Half of the pod's grace and a second later.
        assert_eq!(
            bench.take_log(),
            ["delete secret shop/key", "update ns shop /status", "update ns shop"]
        );
        assert_eq!(shop(&bench), Value::Null);
    }

    #[test]
    fn what_a_finalizer_holds_is_said_and_waited_for() {
        let mut bench = bench();
        secret(&mut bench, &json!(["example.com/hold"]));
        bench.delete(Kind::Namespace, &ObjKey::cluster("shop"));
        bench.run_to(at(30));
        let conditions = shop(&bench)["status"]["conditions"].clone();
        let message =
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
        assert_eq!(conditions[1]["message"], message);
        bench.patch(
            Kind::Secret,
            &ObjKey::new("shop", "key"),
            false,
            json!({"metadata": {"finalizers": null}}),
        );
        bench.run_to(at(60));
        assert_eq!(shop(&bench), Value::Null);
    }
}
