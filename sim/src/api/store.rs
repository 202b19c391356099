//! What is stored, and the order in which it changed: one counter for the whole cluster, one outbox of changes.
//!
//! The store knows nothing of Kubernetes' rules; `server.rs` does. It remembers deleted names, because a UID derives from how often its name was used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::object::{Kind, ObjKey, Object, Resource};
use super::write::{Change, ChangeType};

/// All objects of the cluster.
#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    /// By `Kind as usize`.
    shelves: Vec<Shelf>,
    outbox: Vec<Change>,
    /// The names of writers and namespaces, each once.
    words: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct Shelf {
    live: BTreeMap<ObjKey, Slot>,
    /// Names that were used and are free again.
    past: BTreeMap<ObjKey, Past>,
}

#[derive(Debug)]
struct Slot {
    /// As in the map: what changes carry, so that all caches share it.
    key: ObjKey,
    object: Object,
    past: Past,
}

/// What a name has been through.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    incarnations: u32,
    changes: u64,
}

impl Store {
    /// Nothing stored.
    pub(super) fn new() -> Store {
        Store {
            version: 0,
            shelves: Kind::ALL.iter().map(|_| Shelf::default()).collect(),
            outbox: Vec::new(),
            words: BTreeSet::new(),
        }
    }

    /// The version of the newest change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The changes since the last call.
    pub(super) fn drain(&mut self, into: &mut Vec<Change>) {
        into.append(&mut self.outbox);
    }

    /// An object.
    pub(super) fn object(&self, kind: Kind, key: &ObjKey) -> Option<&Object> {
        self.shelf(kind).live.get(key).map(|slot| &slot.object)
    }

    /// An object of a known type.
    pub(super) fn get<T: Resource>(&self, key: &ObjKey) -> Option<&Arc<T>> {
        self.object(T::KIND, key).and_then(Object::get)
    }

    /// The objects of a kind in order of key.
    pub(super) fn objects(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.shelf(kind).live.values().map(|slot| &slot.object)
    }

    /// The objects of a kind in one namespace, in order of name.
    pub(super) fn in_namespace<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
        let from = ObjKey::new(namespace, "");
        self.shelf(kind)
            .live
            .range(from..)
            .take_while(move |(key, _)| &*key.namespace == namespace)
            .map(|(_, slot)| &slot.object)
    }

    /// How many objects of a kind there are.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.shelf(kind).live.len()
    }

    /// Which incarnation of its name (from 1) an object created now would be.
    pub(super) fn next_incarnation(&self, kind: Kind, key: &ObjKey) -> u32 {
        let shelf = self.shelf(kind);
        let past = shelf.live.get(key).map(|s| s.past).or(shelf.past.get(key).copied());
        past.unwrap_or_default().incarnations + 1
    }

    /// Stores an object under the next version and returns it as stored. The caller holds the only reference, so nothing is copied.
    pub(super) fn put(&mut self, by: &str, key: &ObjKey, mut object: Object) -> Object {
        self.stamp(&mut object);
        let by = self.word(by);
        let namespace = self.word(&key.namespace);
        let shelf = &mut self.shelves[object.kind() as usize];
        let (change, key, old, nth) = match shelf.live.get_mut(key) {
            Some(slot) => {
                slot.past.changes += 1;
                let old = std::mem::replace(&mut slot.object, object.clone());
                (ChangeType::Modified, slot.key.clone(), Some(old), slot.past.changes)
            }
            None => {
                let mut past = shelf.past.remove(key).unwrap_or_default();
                past.incarnations += 1;
                past.changes += 1;
                let name = Arc::clone(&key.name);
                let key = ObjKey { namespace, name };
                let slot = Slot {
                    key: key.clone(),
                    object: object.clone(),
                    past,
                };
                shelf.live.insert(key.clone(), slot);
                (ChangeType::Added, key, None, past.changes)
            }
        };
        self.outbox.push(Change {
            change,
            key,
            object: object.clone(),
            old,
            version: self.version,
            nth,
            by,
        });
        object
    }

    /// Removes an object and returns its last state under a version of its own.
    ///
    /// Watchers see what was stored, not what the deleting write would have stored: of the object whose last finalizer is taken away they see the
    /// state that still has it.
    pub(super) fn remove(&mut self, by: &str, kind: Kind, key: &ObjKey) -> Option<Object> {
        let shelf = &mut self.shelves[kind as usize];
        let mut slot = shelf.live.remove(key)?;
        slot.past.changes += 1;
        shelf.past.insert(slot.key.clone(), slot.past);
        let old = slot.object.clone();
        let mut last = slot.object;
        self.stamp(&mut last);
        let by = self.word(by);
        self.outbox.push(Change {
            change: ChangeType::Deleted,
            key: slot.key,
            object: last.clone(),
            old: Some(old),
            version: self.version,
            nth: slot.past.changes,
            by,
        });
        Some(last)
    }

    fn stamp(&mut self, object: &mut Object) {
        self.version += 1;
        object.meta_mut().resource_version = Some(self.version.to_string());
    }

    /// The one shared copy of a word.
    fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.words.get(word) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(word);
        self.words.insert(Arc::clone(&new));
        new
    }

    fn shelf(&self, kind: Kind) -> &Shelf {
        &self.shelves[kind as usize]
    }
}
