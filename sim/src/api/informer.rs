//! What one process has seen of the cluster: a cache per kind, with the indexes it asked for.
//!
//! A cache holds what was delivered and nothing else: own writes are not in it until the watch returns them, unless the controller puts them there
//! (`put`), as the real one does. It never goes back in version.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

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
    stores: BTreeMap<Kind, BTreeMap<ObjKey, Object>>,
    indexes: BTreeMap<Index, Postings>,
}

impl Cache {
    /// An empty cache that keeps these indexes.
    pub fn new(indexes: &[Index]) -> Cache {
        Cache {
            stores: BTreeMap::new(),
            indexes: indexes.iter().map(|i| (*i, Postings::new())).collect(),
        }
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
        self.stores.get(&kind)?.get(key)
    }

    /// All objects of `T`'s kind, in order of key.
    pub fn list<T: Resource>(&self) -> impl Iterator<Item = &Arc<T>> {
        self.stores
            .get(&T::KIND)
            .into_iter()
            .flat_map(|s| s.values())
            .filter_map(Object::get)
    }

    /// All objects of `T`'s kind in a namespace, in order of name.
    pub fn in_namespace<'a, T: Resource>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        let from = ObjKey::new(namespace, "");
        self.stores
            .get(&T::KIND)
            .into_iter()
            .flat_map(move |s| s.range(from.clone()..))
            .take_while(move |(k, _)| &*k.namespace == namespace)
            .filter_map(|(_, o)| o.get())
    }

    /// How many objects of a kind it holds.
    pub fn count(&self, kind: Kind) -> usize {
        self.stores.get(&kind).map_or(0, BTreeMap::len)
    }

    /// The keys under a value of an index, in order.
    ///
    /// # Panics
    /// If the cache was not made with that index.
    pub fn keys_by<'a>(&'a self, index: Index, value: &str) -> impl Iterator<Item = &'a ObjKey> + use<'a> {
        let postings = self
            .indexes
            .get(&index)
            .expect("the process was built without this index");
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

    /// Takes in one watch event. `None` when the cache has a newer version already.
    pub fn apply(&mut self, change: &Change) -> Option<Delta> {
        let key = change.object.key();
        let known = self.object(change.object.kind(), &key);
        if known.is_some_and(|k| k.version() > change.version) {
            return None;
        }
        match change.change {
            ChangeType::Deleted => {
                let old = self.remove(change.object.kind(), &key)?;
                drop(old);
                Some(Delta {
                    old: Some(change.object.clone()),
                    new: None,
                    resync: false,
                })
            }
            ChangeType::Added | ChangeType::Modified => Some(self.store(change.object.clone())),
        }
    }

    /// Puts an object there that the process wrote itself. An older version than the known one is dropped, an equal one passes.
    pub fn put(&mut self, object: Object) -> Option<Delta> {
        let known = self.object(object.kind(), &object.key());
        if known.is_some_and(|k| k.version() > object.version()) {
            return None;
        }
        Some(self.store(object))
    }

    /// Takes in a whole list: what is not in it is gone, what happened in between is lost.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Object>) -> Vec<Delta> {
        let listed: BTreeSet<ObjKey> = objects.iter().map(Object::key).collect();
        let gone: Vec<ObjKey> = self
            .stores
            .get(&kind)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter(|k| !listed.contains(*k))
            .cloned()
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
        deltas.extend(objects.into_iter().map(|o| self.store(o)));
        deltas
    }

    /// Forgets everything: the process died.
    pub fn clear(&mut self) {
        self.stores.clear();
        self.indexes.values_mut().for_each(BTreeSet::clear);
    }

    fn store(&mut self, object: Object) -> Delta {
        let (kind, key) = (object.kind(), object.key());
        let old = self.stores.entry(kind).or_default().insert(key.clone(), object.clone());
        let resync = old.as_ref().is_some_and(|o| o.version() == object.version());
        if !resync {
            self.reindex(&key, old.as_ref(), Some(&object));
        }
        Delta {
            old,
            new: Some(object),
            resync,
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjKey) -> Option<Object> {
        let old = self.stores.get_mut(&kind)?.remove(key)?;
        self.reindex(key, Some(&old), None);
        Some(old)
    }

    fn reindex(&mut self, key: &ObjKey, old: Option<&Object>, new: Option<&Object>) {
        let kind = old.or(new).map(Object::kind);
        for (index, postings) in self.indexes.iter_mut().filter(|(i, _)| Some(i.kind()) == kind) {
            let before = old.map(|o| index.values(o)).unwrap_or_default();
            let after = new.map(|o| index.values(o)).unwrap_or_default();
            if before == after {
                continue;
            }
            for value in before {
                postings.remove(&(value, key.clone()));
            }
            postings.extend(after.into_iter().map(|value| (value, key.clone())));
        }
    }
}
