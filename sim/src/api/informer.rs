//! What one process has seen of the cluster: a cache per kind, with the indexes it asked for.
//!
//! A cache holds what was delivered and nothing else: own writes are not in it until the watch returns them, unless the controller puts them there
//! (`put`), as the real one does. It never goes back in version, except where the real one does (`overwritten_by_late_events`).
//!
//! Blind spot: the answer to an own write that comes in after the object's deletion was seen is dropped; the real resizer keeps such a ghost until it
//! lists again, the real PV controller until the next sync of the key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::fields;
use super::object::{Kind, ObjKey, Object, Resource};
use super::write::{Change, ChangeType};

/// A way to find objects without a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Index {
    /// Pods by the claims they name, generic ephemeral ones included: value `namespace/claim`.
    PodsByClaim,
    /// Pods by `spec.nodeName`.
    PodsByNode,
    /// Volumes by `spec.claimRef`: value `namespace/claim`.
    VolumesByClaim,
    /// Volumes by CSI handle: value `driver^handle`.
    VolumesByHandle,
    /// Claims by `spec.volumeName`.
    ClaimsByVolume,
    /// Attachments by the volume's name.
    AttachmentsByVolume,
    /// Attachments by the node's name.
    AttachmentsByNode,
}

impl Index {
    fn kind(self) -> Kind {
        match self {
            Index::PodsByClaim | Index::PodsByNode => Kind::Pod,
            Index::VolumesByClaim | Index::VolumesByHandle => Kind::PersistentVolume,
            Index::ClaimsByVolume => Kind::PersistentVolumeClaim,
            Index::AttachmentsByVolume | Index::AttachmentsByNode => Kind::VolumeAttachment,
        }
    }

    /// Whether both objects stand under the same values: cheaper than `values`, and so it is for nearly every update.
    fn same(self, old: &Object, new: &Object) -> bool {
        match (self, old, new) {
            (Index::PodsByClaim, Object::Pod(o), Object::Pod(n)) => {
                let (o, n) = (fields::pod_volumes(o), fields::pod_volumes(n));
                o.len() == n.len() && o.iter().zip(n).all(|(o, n)| same_claim(o, n))
            }
            (Index::PodsByNode, Object::Pod(o), Object::Pod(n)) => fields::pod_node(o) == fields::pod_node(n),
            (Index::VolumesByClaim, Object::PersistentVolume(o), Object::PersistentVolume(n)) => {
                let key = |pv| fields::volume_claim(pv).map(|r| (&r.namespace, &r.name));
                key(o) == key(n)
            }
            (Index::VolumesByHandle, Object::PersistentVolume(o), Object::PersistentVolume(n)) => {
                fields::volume_handle(o) == fields::volume_handle(n)
            }
            (Index::ClaimsByVolume, Object::PersistentVolumeClaim(o), Object::PersistentVolumeClaim(n)) => {
                fields::claim_volume(o) == fields::claim_volume(n)
            }
            (
                Index::AttachmentsByVolume | Index::AttachmentsByNode,
                Object::VolumeAttachment(o),
                Object::VolumeAttachment(n),
            ) => o.spec == n.spec,
            _ => false,
        }
    }

    fn values(self, object: &Object) -> Vec<Arc<str>> {
        match (self, object) {
            (Index::PodsByClaim, Object::Pod(pod)) => claims_of(pod),
            (Index::PodsByNode, Object::Pod(pod)) => pod
                .spec
                .iter()
                .filter_map(|s| s.node_name.as_deref().map(Arc::from))
                .collect(),
            (Index::VolumesByClaim, Object::PersistentVolume(pv)) => claim_of(pv).into_iter().collect(),
            (Index::VolumesByHandle, Object::PersistentVolume(pv)) => handle_of(pv).into_iter().collect(),
            (Index::ClaimsByVolume, Object::PersistentVolumeClaim(pvc)) => volume_of(pvc).into_iter().collect(),
            (Index::AttachmentsByVolume, Object::VolumeAttachment(va)) => va
                .spec
                .source
                .persistent_volume_name
                .iter()
                .map(|n| Arc::from(n.as_str()))
                .collect(),
            (Index::AttachmentsByNode, Object::VolumeAttachment(va)) => vec![Arc::from(va.spec.node_name.as_str())],
            _ => Vec::new(),
        }
    }
}

fn same_claim(old: &Volume, new: &Volume) -> bool {
    match (&old.persistent_volume_claim, &new.persistent_volume_claim) {
        (Some(o), Some(n)) => o.claim_name == n.claim_name,
        (None, None) => old.name == new.name && old.ephemeral.is_some() == new.ephemeral.is_some(),
        _ => false,
    }
}

fn claims_of(pod: &Pod) -> Vec<Arc<str>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mut claims: Vec<Arc<str>> = volumes
        .filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(claim), _) => Some(format!("{namespace}/{}", claim.claim_name).into()),
            (_, Some(_)) => Some(format!("{namespace}/{pod_name}-{}", v.name).into()),
            _ => None,
        })
        .collect();
    claims.sort_unstable();
    claims.dedup();
    claims
}

fn claim_of(pv: &PersistentVolume) -> Option<Arc<str>> {
    let claim = pv.spec.as_ref()?.claim_ref.as_ref()?;
    Some(format!("{}/{}", claim.namespace.as_deref()?, claim.name.as_deref()?).into())
}

fn handle_of(pv: &PersistentVolume) -> Option<Arc<str>> {
    let csi = pv.spec.as_ref()?.csi.as_ref()?;
    Some(format!("{}^{}", csi.driver, csi.volume_handle).into())
}

fn volume_of(pvc: &PersistentVolumeClaim) -> Option<Arc<str>> {
    pvc.spec
        .as_ref()?
        .volume_name
        .as_deref()
        .filter(|n| !n.is_empty())
        .map(Arc::from)
}

/// What a delivery changed in a cache: what a handler is told.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Before; `None` for an object seen for the first time.
    pub old: Option<Object>,
    /// After; `None` for an object that is gone.
    pub new: Option<Object>,
    /// A resync or a repeat: both sides are the same version.
    pub resync: bool,
}

impl Delta {
    /// The object it is about: as it is now, or as it was last seen.
    pub fn object(&self) -> &Object {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .expect("a delta has at least one side")
    }

    /// Which kind it is about.
    pub fn kind(&self) -> Kind {
        self.object().kind()
    }

    /// Both sides as `T`, if it is about one.
    pub fn of<T: Resource>(&self) -> Option<Sides<'_, T>> {
        (self.kind() == T::KIND).then(|| {
            (
                self.old.as_ref().and_then(Object::get),
                self.new.as_ref().and_then(Object::get),
            )
        })
    }
}

/// An object before and after an event.
pub type Sides<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

type Postings = BTreeSet<(Arc<str>, ObjKey)>;

/// The informers of one process.
#[derive(Debug, Default)]
pub struct Cache {
    stores: BTreeMap<Kind, Store>,
    indexes: Vec<(Index, Postings)>,
    late_events_overwrite: bool,
}

#[derive(Debug, Default)]
struct Store {
    objects: BTreeMap<ObjKey, Object>,
    /// The version of the newest event or list.
    seen: u64,
}

impl Cache {
    /// An empty cache that keeps these indexes.
    pub fn new(indexes: &[Index]) -> Cache {
        Cache {
            stores: BTreeMap::new(),
            indexes: indexes.iter().map(|i| (*i, Postings::new())).collect(),
            late_events_overwrite: false,
        }
    }

    /// An event that is older than what the process put there itself overwrites it, until the newer event comes: so it is with the resizer, which
    /// puts its own writes into the store that the watch fills.
    pub fn overwritten_by_late_events(self) -> Cache {
        Cache {
            late_events_overwrite: true,
            ..self
        }
    }

    /// The version of the newest event or list of a kind that reached this cache: where its watch goes on.
    pub fn seen(&self, kind: Kind) -> u64 {
        self.stores.get(&kind).map_or(0, |store| store.seen)
    }

    /// The object of `T`'s kind with this key.
    pub fn get<T: Resource>(&self, key: &ObjKey) -> Option<&Arc<T>> {
        self.object(T::KIND, key).and_then(Object::get)
    }

    /// The object of the whole cluster with this name.
    pub fn named<T: Resource>(&self, name: &str) -> Option<&Arc<T>> {
        self.get(&ObjKey::cluster(name))
    }

    /// The object of a kind with this key.
    pub fn object(&self, kind: Kind, key: &ObjKey) -> Option<&Object> {
        self.stores.get(&kind)?.objects.get(key)
    }

    /// All objects of `T`'s kind, in order of key.
    pub fn list<T: Resource>(&self) -> impl Iterator<Item = &Arc<T>> {
        self.stores
            .get(&T::KIND)
            .into_iter()
            .flat_map(|s| s.objects.values())
            .filter_map(Object::get)
    }

    /// All objects of `T`'s kind in a namespace, in order of name.
    pub fn in_namespace<'a, T: Resource>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        let from = ObjKey::new(namespace, "");
        self.stores
            .get(&T::KIND)
            .into_iter()
            .flat_map(move |s| s.objects.range(from.clone()..))
            .take_while(move |(k, _)| &*k.namespace == namespace)
            .filter_map(|(_, o)| o.get())
    }

    /// How many objects of a kind it holds.
    pub fn count(&self, kind: Kind) -> usize {
        self.stores.get(&kind).map_or(0, |store| store.objects.len())
    }

    /// The keys under a value of an index, in order.
    ///
    /// # Panics
    /// If the cache was not made with that index.
    pub fn keys_by<'a>(&'a self, index: Index, value: &str) -> impl Iterator<Item = &'a ObjKey> + use<'a> {
        let found = self.indexes.iter().find(|(i, _)| *i == index);
        let (_, postings) = found.expect("the process was built without this index");
        let value: Arc<str> = Arc::from(value);
        let from = (Arc::clone(&value), ObjKey::cluster(""));
        postings
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(v, _)| *v == value)
            .map(|(_, key)| key)
    }

    /// The objects under a value of an index, in order of key.
    pub fn by<'a, T: Resource>(&'a self, index: Index, value: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        debug_assert_eq!(index.kind(), T::KIND, "the index is over another kind");
        self.keys_by(index, value).filter_map(|key| self.get::<T>(key))
    }

    /// Takes in one watch event. `None` when the cache has a newer version already, or never knew what is deleted.
    pub fn apply(&mut self, change: &Change) -> Option<Delta> {
        let kind = change.object.kind();
        let overwrites = self.late_events_overwrite;
        let store = self.stores.entry(kind).or_default();
        store.seen = store.seen.max(change.version);
        let known = store.objects.get(&change.key);
        if !overwrites && known.is_some_and(|k| k.version() > change.version) {
            return None;
        }
        match change.change {
            ChangeType::Deleted => {
                self.remove(kind, &change.key)?;
                Some(Delta {
                    old: Some(change.object.clone()),
                    new: None,
                    resync: false,
                })
            }
            ChangeType::Added | ChangeType::Modified => Some(self.store(&change.key, change.object.clone())),
        }
    }

    /// Puts an object there that the process wrote itself. An older version than the known one is dropped, an equal one passes.
    pub fn put(&mut self, object: Object) -> Option<Delta> {
        let (kind, key, version) = (object.kind(), object.key(), object.version());
        let outdated = match self.object(kind, &key) {
            Some(known) => known.version() > version,
            // The watch has gone past it: it is deleted already.
            None => self.seen(kind) > version,
        };
        (!outdated).then(|| self.store(&key, object))
    }

    /// Takes in a whole list, as old as its newest object: what is not in it is gone, what happened in between is lost.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Object>) -> Vec<Delta> {
        let newest = objects.iter().map(Object::version).max().unwrap_or(0);
        self.replace_at(kind, objects, newest.max(self.seen(kind)))
    }

    /// Takes in a whole list as of `version`: what is not in it is gone, what happened in between is lost. What the process put there since stays.
    pub fn replace_at(&mut self, kind: Kind, objects: Vec<Object>, version: u64) -> Vec<Delta> {
        let listed: BTreeMap<ObjKey, Object> = objects.into_iter().map(|o| (o.key(), o)).collect();
        let store = self.stores.entry(kind).or_default();
        store.seen = store.seen.max(version);
        let known = store.objects.iter();
        let gone: Vec<ObjKey> = known
            .filter(|(key, object)| object.version() <= version && !listed.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        let mut deltas = Vec::new();
        for key in gone {
            let old = self.remove(kind, &key);
            deltas.push(Delta {
                old,
                new: None,
                resync: false,
            });
        }
        for (key, object) in listed {
            let known = self.object(kind, &key);
            if known.is_none_or(|known| known.version() <= object.version()) {
                deltas.push(self.store(&key, object));
            }
        }
        deltas
    }

    /// Forgets everything: the process died.
    pub fn clear(&mut self) {
        self.stores.clear();
        self.indexes.iter_mut().for_each(|(_, postings)| postings.clear());
    }

    fn store(&mut self, key: &ObjKey, object: Object) -> Delta {
        let store = self.stores.entry(object.kind()).or_default();
        let old = match store.objects.get_mut(key) {
            Some(known) => Some(std::mem::replace(known, object.clone())),
            None => store.objects.insert(key.clone(), object.clone()),
        };
        let resync = old
            .as_ref()
            .is_some_and(|o| o.meta().resource_version == object.meta().resource_version);
        if !resync {
            self.reindex(key, old.as_ref(), Some(&object));
        }
        Delta {
            old,
            new: Some(object),
            resync,
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjKey) -> Option<Object> {
        let old = self.stores.get_mut(&kind)?.objects.remove(key)?;
        self.reindex(key, Some(&old), None);
        Some(old)
    }

    fn reindex(&mut self, key: &ObjKey, old: Option<&Object>, new: Option<&Object>) {
        let Some(kind) = old.or(new).map(Object::kind) else {
            return;
        };
        for (index, postings) in self.indexes.iter_mut().filter(|(i, _)| i.kind() == kind) {
            if let (Some(old), Some(new)) = (old, new)
                && index.same(old, new)
            {
                continue;
            }
            for value in old.map(|o| index.values(o)).unwrap_or_default() {
                postings.remove(&(value, key.clone()));
            }
            let values = new.map(|o| index.values(o)).unwrap_or_default();
            postings.extend(values.into_iter().map(|value| (value, key.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, Delta, Index};
    use crate::api::object::{Kind, ObjKey, Object};
    use crate::api::write::{Change, ChangeType};
    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
    use k8s_openapi::api::storage::v1::VolumeAttachment;
    use serde_json::{Value, json};

    fn object(kind: Kind, name: &str, version: u64, rest: Value) -> Object {
        let mut json = json!({"metadata": {"name": name, "resourceVersion": version.to_string()}});
        if kind.namespaced() {
            json["metadata"]["namespace"] = json!("default");
        }
        json["spec"] = rest;
        Object::from_json(kind, json).unwrap()
    }

    fn claim(name: &str, version: u64, volume: &str) -> Object {
        object(
            Kind::PersistentVolumeClaim,
            name,
            version,
            json!({"volumeName": volume}),
        )
    }

    fn event(change: ChangeType, object: Object) -> Change {
        Change {
            change,
            key: object.key(),
            version: object.version(),
            object,
            old: None,
            nth: 1,
            by: "test".into(),
        }
    }

    fn modified(object: Object) -> Change {
        event(ChangeType::Modified, object)
    }

    fn names<'a>(keys: impl Iterator<Item = &'a ObjKey>) -> Vec<String> {
        keys.map(|k| k.name.to_string()).collect()
    }

    fn sides(delta: &Delta) -> (u64, u64) {
        let version = |side: &Option<Object>| side.as_ref().map_or(0, Object::version);
        (version(&delta.old), version(&delta.new))
    }

    #[test]
    fn a_cache_never_goes_back_in_version() {
        let mut cache = Cache::new(&[]);
        let data = ObjKey::new("default", "data");
        let version = |cache: &Cache| cache.object(Kind::PersistentVolumeClaim, &data).unwrap().version();
        cache.apply(&modified(claim("data", 3, "")));
        cache.put(claim("data", 7, ""));
        assert!(cache.apply(&modified(claim("data", 5, ""))).is_none(), "late");
        assert_eq!(version(&cache), 7);
        let own = cache
            .apply(&modified(claim("data", 7, "")))
            .expect("equal versions pass");
        assert!(
            own.resync,
            "the watch returns the own write: to handlers it looks like a resync"
        );
        assert!(cache.put(claim("data", 6, "")).is_none());
        assert_eq!(cache.seen(Kind::PersistentVolumeClaim), 7);

        let mut resizer = Cache::new(&[]).overwritten_by_late_events();
        resizer.put(claim("data", 7, ""));
        assert_eq!(sides(&resizer.apply(&modified(claim("data", 5, ""))).unwrap()), (7, 5));
        assert_eq!(version(&resizer), 5, "until the newer event comes");
    }

    #[test]
    fn a_deletion_carries_the_last_state_and_leaves_no_ghost() {
        let mut cache = Cache::new(&[]);
        assert!(
            cache
                .apply(&event(ChangeType::Deleted, claim("never", 1, "")))
                .is_none()
        );
        cache.apply(&modified(claim("data", 3, "")));
        let gone = cache.apply(&event(ChangeType::Deleted, claim("data", 9, ""))).unwrap();
        assert_eq!(sides(&gone), (9, 0), "the state that the event carries");
        assert!(
            cache.put(claim("data", 8, "")).is_none(),
            "an answer from before the deletion"
        );
        assert_eq!(cache.count(Kind::PersistentVolumeClaim), 0);
        assert!(cache.put(claim("data", 11, "")).is_some(), "it was made again");
    }

    #[test]
    fn a_list_tells_what_changed_and_what_went_but_not_what_happened() {
        let mut cache = Cache::new(&[]);
        for (name, version) in [("gone", 1), ("same", 2), ("changed", 3), ("own", 20)] {
            cache.put(claim(name, version, ""));
        }
        let listed = vec![claim("same", 2, ""), claim("changed", 8, ""), claim("new", 9, "")];
        let deltas = cache.replace_at(Kind::PersistentVolumeClaim, listed, 10);
        let told: Vec<_> = deltas
            .iter()
            .map(|d| (d.object().key().name.to_string(), sides(d), d.resync))
            .collect();
        assert_eq!(
            told,
            [
                ("gone".into(), (1, 0), false),
                ("changed".into(), (3, 8), false),
                ("new".into(), (0, 9), false),
                ("same".into(), (2, 2), true),
            ]
        );
        let left: Vec<_> = cache
            .list::<PersistentVolumeClaim>()
            .map(|c| c.metadata.name.clone().unwrap())
            .collect();
        assert_eq!(
            left,
            ["changed", "new", "own", "same"],
            "what was written since the list stays"
        );
        assert_eq!(cache.seen(Kind::PersistentVolumeClaim), 10);
        cache.clear();
        assert_eq!(
            (
                cache.count(Kind::PersistentVolumeClaim),
                cache.seen(Kind::PersistentVolumeClaim)
            ),
            (0, 0)
        );
    }

    #[test]
    fn indexes_follow_their_objects() {
        let mut cache = Cache::new(&[Index::ClaimsByVolume, Index::PodsByClaim, Index::PodsByNode]);
        let by = |cache: &Cache, index, value: &str| names(cache.keys_by(index, value));
        cache.apply(&modified(claim("data", 1, "")));
        assert_eq!(
            by(&cache, Index::ClaimsByVolume, ""),
            [""; 0],
            "unbound claims are not indexed"
        );
        cache.apply(&modified(claim("data", 2, "pv-1")));
        cache.apply(&modified(claim("other", 3, "pv-10")));
        assert_eq!(by(&cache, Index::ClaimsByVolume, "pv-1"), ["data"]);
        cache.apply(&modified(claim("data", 4, "pv-2")));
        assert_eq!(by(&cache, Index::ClaimsByVolume, "pv-1"), [""; 0]);

        let volumes =
            json!([{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "b", "ephemeral": {}}]);
        let pod = |version, node: Option<&str>| {
            object(Kind::Pod, "web", version, json!({"volumes": volumes, "nodeName": node}))
        };
        cache.apply(&modified(pod(5, None)));
        cache.apply(&modified(pod(6, Some("n"))));
        for claim in ["default/data", "default/web-b"] {
            assert_eq!(by(&cache, Index::PodsByClaim, claim), ["web"]);
        }
        assert_eq!(cache.by::<Pod>(Index::PodsByNode, "n").count(), 1);
        cache.apply(&event(ChangeType::Deleted, pod(7, Some("n"))));
        assert_eq!(by(&cache, Index::PodsByNode, "n"), [""; 0]);
        assert_eq!(by(&cache, Index::PodsByClaim, "default/data"), [""; 0]);
    }

    #[test]
    fn volumes_and_attachments_are_found_by_what_they_name() {
        let indexes = [
            Index::VolumesByClaim,
            Index::VolumesByHandle,
            Index::AttachmentsByNode,
            Index::AttachmentsByVolume,
        ];
        let mut cache = Cache::new(&indexes);
        let csi = json!({"driver": "d", "volumeHandle": "h"});
        let pv = |version, claim: Value| {
            object(
                Kind::PersistentVolume,
                "pv-1",
                version,
                json!({"csi": csi, "claimRef": claim}),
            )
        };
        cache.put(pv(1, json!(null)));
        cache.put(pv(2, json!({"namespace": "default", "name": "data"})));
        let source = json!({"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "pv-1"}});
        cache.put(object(Kind::VolumeAttachment, "va", 3, source));
        assert_eq!(
            cache
                .by::<PersistentVolume>(Index::VolumesByClaim, "default/data")
                .count(),
            1
        );
        assert_eq!(cache.by::<PersistentVolume>(Index::VolumesByHandle, "d^h").count(), 1);
        assert_eq!(cache.by::<VolumeAttachment>(Index::AttachmentsByNode, "n").count(), 1);
        assert_eq!(
            cache.by::<VolumeAttachment>(Index::AttachmentsByVolume, "pv-1").count(),
            1
        );
        assert!(cache.named::<PersistentVolume>("pv-1").is_some());
    }
}
