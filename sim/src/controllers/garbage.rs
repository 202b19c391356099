//! The garbage collector of kube-controller-manager: deletes objects whose owners are gone.
//!
//! ```text
//! owner's deletion seen, or a dependent seen whose owner is not ──► live GET of the dependent
//!   ──► live GET of each owner that is not known to be gone ─┬─ none left ──► DELETE with UID and resourceVersion
//!                                                           └─ some left, some gone ──► patch away the references to those gone
//! ```
//!
//! This is how the claim of a generic ephemeral volume follows its pod, and a CSINode its Node. Source: fact sheet 10.5, traces 15 and 20c.
//!
//! Blind spots: background deletion only; the graph knows the kinds of [`KINDS`] and no others, and an owner of a kind that the API server does not store
//! counts as present.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use crate::api::{
    ApiError, Cache, Delete, Delta, Edit, Kind, Limiter, ObjKey, Object, ObjectRef, Patch, Read, ReadAnswer, Write,
    fields,
};
use crate::control::{Controller, Effect, LaneSpec, Learner, Outcome, Requests};
use crate::runtime::Time;

/// The kinds in its graph, as owners and as dependents.
pub const KINDS: &[Kind] = &[
    Kind::Node,
    Kind::Pod,
    Kind::PersistentVolumeClaim,
    Kind::CSINode,
    Kind::CSIStorageCapacity,
    Kind::VolumeSnapshot,
];

/// The controller.
#[derive(Clone, Copy, Debug)]
pub struct GarbageCollector {
    /// `--concurrent-gc-syncs`.
    workers: usize,
}

/// What a crash erases: the graph, and the syncs under way.
#[derive(Debug, Default)]
pub struct Memory {
    /// The dependents by their owner's UID.
    dependents: BTreeMap<String, BTreeSet<ObjectRef>>,
    /// Owners whose deletion was seen while they had dependents.
    absent: BTreeSet<String>,
    syncs: BTreeMap<ObjectRef, Sync>,
}

/// A sync under way, once the dependent has been read.
#[derive(Debug)]
struct Sync {
    item: Object,
    /// How many of its owners were asked about.
    asked: usize,
    /// The UIDs of those that are there.
    solid: BTreeSet<String>,
    next: Next,
}

#[derive(Clone, Debug)]
enum Next {
    Ask(ObjectRef, String),
    Write(Write),
    Retry(String),
    Rest,
}

impl GarbageCollector {
    /// A collector with so many workers.
    pub fn new(workers: usize) -> GarbageCollector {
        GarbageCollector { workers }
    }
}

fn owners(object: &Object) -> &[OwnerReference] {
    object.meta().owner_references.as_deref().unwrap_or_default()
}

/// The object that a reference means, if its kind is one that the server stores.
fn owner_ref(dependent: &Object, owner: &OwnerReference) -> Option<ObjectRef> {
    let kind = *Kind::ALL
        .iter()
        .find(|kind| kind.name() == owner.kind && kind.api_version() == owner.api_version)?;
    let key = if kind.namespaced() {
        ObjKey::new(fields::namespace(dependent.meta()), owner.name.as_str())
    } else {
        ObjKey::cluster(owner.name.as_str())
    };
    Some(ObjectRef::new(kind, key))
}

impl Sync {
    fn begin(item: &Object, absent: &BTreeSet<String>) -> Sync {
        let mut sync = Sync {
            item: item.clone(),
            asked: 0,
            solid: BTreeSet::new(),
            next: Next::Rest,
        };
        if !fields::is_deleting(item.meta()) && !owners(item).is_empty() {
            sync.advance(absent);
        }
        sync
    }

    /// Finds the next owner to ask about; when there is none, the verdict.
    fn advance(&mut self, absent: &BTreeSet<String>) {
        while let Some(owner) = owners(&self.item).get(self.asked) {
            match owner_ref(&self.item, owner) {
                None => {
                    self.solid.insert(owner.uid.clone());
                }
                Some(_) if absent.contains(&owner.uid) => {}
                Some(target) => {
                    self.next = Next::Ask(target, owner.uid.clone());
                    return;
                }
            }
            self.asked += 1;
        }
        self.next = self.verdict();
    }

    fn verdict(&self) -> Next {
        let left: Vec<&OwnerReference> = owners(&self.item)
            .iter()
            .filter(|o| self.solid.contains(&o.uid))
            .collect();
        if left.len() == owners(&self.item).len() {
            return Next::Rest;
        }
        let target = self.item.to_ref();
        if left.is_empty() {
            return Next::Write(Write::Delete(Delete {
                uid: Some(self.item.uid().into()),
                version: Some(self.item.version()),
                ..Delete::new(target)
            }));
        }
        let edit = Edit::Merge(json!({"metadata": {"ownerReferences": left}}));
        let patch = Patch::new(target, vec![edit]).at_version(self.item.version());
        Next::Write(Write::Patch(patch))
    }

    fn took_owner(&mut self, uid: &str, answer: Result<&ReadAnswer, &ApiError>, absent: &mut BTreeSet<String>) {
        match answer {
            Ok(ReadAnswer::Object(owner)) if owner.uid() == uid => {
                self.solid.insert(uid.into());
            }
            Ok(ReadAnswer::Object(_)) => {
                absent.insert(uid.into());
            }
            Ok(ReadAnswer::List(_)) => unreachable!("a GET answers with one object"),
            Err(error) if error.is_not_found() => {
                absent.insert(uid.into());
            }
            Err(error) => {
                self.next = Next::Retry(error.message.clone());
                return;
            }
        }
        self.asked += 1;
        self.advance(absent);
    }
}

impl Memory {
    fn link(&mut self, object: &Object) {
        for owner in owners(object) {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(object.to_ref());
        }
    }

    fn unlink(&mut self, object: &Object) {
        for owner in owners(object) {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&object.to_ref());
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                    self.absent.remove(&owner.uid);
                }
            }
        }
    }

    /// Whether an owner of this object is known to be gone, or not known.
    fn has_doubtful_owner(&self, cache: &Cache, object: &Object) -> bool {
        owners(object).iter().any(|owner| {
            owner_ref(object, owner).is_some_and(|target| {
                let known = cache.object(target.kind, &target.key);
                known.is_none_or(|known| known.uid() != owner.uid)
            })
        })
    }
}

impl Controller for GarbageCollector {
    type Key = ObjectRef;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn component(&self) -> Option<String> {
        Some("generic-garbage-collector".into())
    }

    fn kinds(&self) -> &'static [Kind] {
        KINDS
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        vec![LaneSpec {
            name: "attempt_to_delete",
            workers: self.workers,
            limiter: Limiter::Controller,
        }]
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, _: Time, queue: &mut Requests<ObjectRef>) {
        let (old, new) = (delta.old.as_ref(), delta.new.as_ref());
        let gone = old.filter(|old| new.is_none_or(|new| new.uid() != old.uid()));
        let rewired = old.map(owners) != new.map(owners);
        if rewired {
            old.into_iter().for_each(|old| memory.unlink(old));
            new.into_iter().for_each(|new| memory.link(new));
        }
        if let Some(owner) = gone
            && let Some(dependents) = memory.dependents.get(owner.uid())
        {
            memory.absent.insert(owner.uid().into());
            dependents.iter().for_each(|dependent| queue.add(dependent.clone()));
        }
        if let Some(new) = new.filter(|new| rewired && memory.has_doubtful_owner(cache, new)) {
            queue.add(new.to_ref());
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, key: &ObjectRef, _: Time) -> Effect {
        let Some(sync) = memory.syncs.get(key) else {
            // Known to be gone: its own event has settled it.
            let known = cache.object(key.kind, &key.key);
            return known.map_or(Effect::Rest, |_| Effect::Read(Read::Get(key.clone())));
        };
        match &sync.next {
            Next::Ask(owner, _) => Effect::Read(Read::Get(owner.clone())),
            Next::Write(write) => Effect::Write(write.clone()),
            Next::Retry(why) => Effect::Retry(why.clone().into()),
            Next::Rest => Effect::Rest,
        }
    }

    fn learn(
        &self,
        memory: &mut Memory,
        key: &ObjectRef,
        _: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, ObjectRef>,
    ) {
        let Some(sync) = memory.syncs.get_mut(key) else {
            let known = then.cache.object(key.kind, &key.key);
            let sync = begun(known, outcome.read(), &memory.absent);
            memory.syncs.extend(sync.map(|sync| (key.clone(), sync)));
            return;
        };
        match sync.next.clone() {
            Next::Ask(_, uid) => sync.took_owner(&uid, outcome.read(), &mut memory.absent),
            Next::Write(_) => {
                sync.next = match outcome.written() {
                    Ok(_) => Next::Rest,
                    Err(error) if error.is_not_found() => Next::Rest,
                    Err(error) => Next::Retry(error.message.clone()),
                };
            }
            Next::Retry(_) | Next::Rest => unreachable!("the end of a sync has no outcome"),
        }
    }

    fn ended(&self, memory: &mut Memory, key: &ObjectRef, _: &Effect) {
        memory.syncs.remove(key);
    }
}

/// The sync after the dependent has been read. Without one, or with another of its name, its own events settle it.
fn begun(known: Option<&Object>, answer: Result<&ReadAnswer, &ApiError>, absent: &BTreeSet<String>) -> Option<Sync> {
    let known = known?;
    let ending = |next| Sync {
        item: known.clone(),
        asked: 0,
        solid: BTreeSet::new(),
        next,
    };
    Some(match answer {
        Ok(ReadAnswer::Object(live)) if live.uid() == known.uid() => Sync::begin(live, absent),
        Ok(ReadAnswer::Object(_)) => ending(Next::Rest),
        Ok(ReadAnswer::List(_)) => unreachable!("a GET answers with one object"),
        Err(error) if error.is_not_found() => ending(Next::Rest),
        Err(error) => ending(Next::Retry(error.message.clone())),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::{GarbageCollector, Memory, Next, Sync};
    use crate::api::{Cache, Change, ChangeType, Edit, Kind, ObjKey, Object, ObjectRef, ReadAnswer, Write};
    use crate::control::{Controller, Requests, Shell};
    use crate::controllers::bench::Bench;
    use crate::runtime::Time;

    fn pod(uid: &str) -> Object {
        let json = json!({"metadata": {"name": "web", "namespace": "default", "uid": uid, "resourceVersion": "3"}});
        Object::from_json(Kind::Pod, json).unwrap()
    }

    fn owner(kind: &str, uid: &str) -> Value {
        let api_version = if kind == "StatefulSet" { "apps/v1" } else { "v1" };
        json!({"apiVersion": api_version, "kind": kind, "name": "web", "uid": uid})
    }

    fn claim(owners: &[Value]) -> Object {
        let json = json!({"metadata": {"name": "web-a", "namespace": "default", "uid": "c1", "resourceVersion": "5", "ownerReferences": owners}});
        Object::from_json(Kind::PersistentVolumeClaim, json).unwrap()
    }

    fn absent(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_dependent_without_any_owner_left_goes_if_it_is_still_the_same() {
        // Traces 15 and 20c: the DELETE carries UID and resourceVersion as preconditions.
        let sync = Sync::begin(&claim(&[owner("Pod", "p1")]), &absent(&["p1"]));
        let Next::Write(Write::Delete(delete)) = sync.next else {
            panic!("{sync:?}")
        };
        assert_eq!((delete.uid.as_deref(), delete.version), (Some("c1"), Some(5)));
    }

    #[test]
    fn an_owner_of_the_same_name_but_another_uid_is_no_owner() {
        let mut gone = BTreeSet::new();
        let mut sync = Sync::begin(&claim(&[owner("Pod", "p1")]), &gone);
        assert!(matches!(&sync.next, Next::Ask(_, uid) if uid == "p1"));
        sync.took_owner("p1", Ok(&ReadAnswer::Object(pod("p2"))), &mut gone);
        assert!(matches!(sync.next, Next::Write(Write::Delete(_))));
        let mut sync = Sync::begin(&claim(&[owner("Pod", "p1")]), &BTreeSet::new());
        sync.took_owner("p1", Ok(&ReadAnswer::Object(pod("p1"))), &mut gone);
        assert!(matches!(sync.next, Next::Rest));
    }

    #[test]
    fn one_owner_left_keeps_the_object_and_loses_the_other_reference() {
        let sync = Sync::begin(
            &claim(&[owner("Pod", "p1"), owner("StatefulSet", "s1")]),
            &absent(&["p1"]),
        );
        let Next::Write(Write::Patch(patch)) = sync.next else {
            panic!("{sync:?}")
        };
        let Edit::Merge(body) = &patch.edits[0] else {
            panic!("{patch:?}")
        };
        assert_eq!(body["metadata"]["ownerReferences"], json!([owner("StatefulSet", "s1")]));
    }

    #[test]
    fn seeing_the_owner_go_queues_its_dependents() {
        let collector = GarbageCollector::new(20);
        let (mut cache, mut memory) = (Cache::new(&[]), Memory::default());
        let mut see = |change: ChangeType, object: Object, version: u64| {
            let change = Change {
                by: std::sync::Arc::from("test"),
                change,
                key: object.key(),
                object,
                old: None,
                version,
                nth: version,
            };
            let delta = cache.apply(&change).unwrap();
            let mut queue = Requests::default();
            collector.notice(&cache, &mut memory, &delta, Time::ZERO, &mut queue);
            queue
                .keys()
                .into_iter()
                .map(|(key, _)| key.clone())
                .collect::<Vec<ObjectRef>>()
        };
        let dependent = ObjectRef::new(Kind::PersistentVolumeClaim, ObjKey::new("default", "web-a"));
        assert!(see(ChangeType::Added, pod("p1"), 3).is_empty());
        assert!(
            see(ChangeType::Added, claim(&[owner("Pod", "p1")]), 5).is_empty(),
            "its owner is there"
        );
        assert_eq!(see(ChangeType::Deleted, pod("p1"), 6), std::slice::from_ref(&dependent));
        assert!(memory.absent.contains("p1"));
    }

    #[test]
    fn a_csi_node_follows_its_node_and_nothing_else_does() {
        // Trace 20c: the CSINode is gone 50 ms after the Node; VolumeAttachments have no owner and stay.
        let mut bench = Bench::new(&[], vec![Box::new(Shell::new(GarbageCollector::new(20)))]);
        for name in ["n1", "n2"] {
            bench.create(Kind::Node, json!({"metadata": {"name": name}}));
            let uid = bench.json(Kind::Node, &ObjKey::cluster(name))["metadata"]["uid"].clone();
            let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]);
            bench.create(
                Kind::CSINode,
                json!({"metadata": {"name": name, "ownerReferences": owner}, "spec": {"drivers": []}}),
            );
        }
        bench.delete(Kind::Node, &ObjKey::cluster("n1"));
        assert_eq!(bench.take_log(), ["delete csinode n1"]);
    }

    #[test]
    fn what_lost_its_owner_while_the_collector_was_down_is_found_at_its_start() {
        let mut bench = Bench::new(&[], vec![Box::new(Shell::new(GarbageCollector::new(20)))]);
        bench.hold(Kind::Node);
        bench.create(Kind::Node, json!({"metadata": {"name": "n1"}}));
        let uid = bench.json(Kind::Node, &ObjKey::cluster("n1"))["metadata"]["uid"].clone();
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid}]);
        bench.create(
            Kind::CSINode,
            json!({"metadata": {"name": "n1", "ownerReferences": owner}, "spec": {"drivers": []}}),
        );
        bench.delete(Kind::Node, &ObjKey::cluster("n1"));
        assert_eq!(bench.take_log(), [""; 0], "nobody told it");
        bench.restart_holding(&[]);
        assert_eq!(bench.take_log(), ["delete csinode n1"]);
    }
}
