//! Publishes how much storage is left: one CSIStorageCapacity per class and topology segment (fact sheet 3.9). Only with `--enable-capacity`.
//!
//! Segments are the distinct sets of the driver's topology labels on nodes where it is registered. Wanted are all segments for all classes of the driver, but
//! for those with Immediate binding. An item is refreshed when it appears, every minute, and when provisioning or deleting has probably changed it; objects that nobody
//! wants, and second ones for an item, are deleted.
//!
//! *Blind spots.* Objects have no owner, as with `--capacity-ownerref-level=-1`, because the sidecar's own pod is not an object here. The client's separate
//! limit (`--kube-api-capacity-qps`) is one with the process's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, VolumeNodeAffinity};
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wavetank_proto::csi::v1 as csi;

use crate::api::{ApiError, Cache, Delete, Delta, Kind, ObjKey, Object, ObjectRef, Resource, Write, fields, quantity};
use crate::control::{Effect, Learner, Outcome, Requests};
use crate::link::CsiReply;
use crate::runtime::Time;
use crate::sidecars::connect::describe;

use super::topology::{Term, affinity_terms, driver_keys, term_of};
use super::{Key, Memory, Provisioner};

const DRIVER_NAME: &str = "csi.storage.k8s.io/drivername";
const MANAGED_BY: &str = "csi.storage.k8s.io/managed-by";
const MANAGER: &str = "external-provisioner";

/// What one object is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// The class's name.
    pub class: Arc<str>,
    /// The topology segment.
    pub segment: Term,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capacity {}", self.class)?;
        self.segment.iter().try_for_each(|(_, value)| write!(f, "/{value}"))
    }
}

#[derive(Clone, PartialEq)]
enum Step {
    Write(Write),
    /// With the reason to try again, if any.
    End(Option<String>),
}

/// What the publisher knows.
#[derive(Default)]
pub(super) struct Books {
    segments: BTreeSet<Term>,
    /// Every item that shall have an object, and the object if it is known.
    items: BTreeMap<Item, Option<Arc<CSIStorageCapacity>>>,
    steps: BTreeMap<Key, Step>,
    next_poll: Time,
}

/// The driver has told its name: what is wanted, and what is there?
pub(super) fn prepare(site: &Provisioner, memory: &mut Memory, cache: &Cache, now: Time, queue: &mut Requests<Key>) {
    if !site.flags.enable_capacity {
        return;
    }
    reconcile(site, memory, cache, queue);
    for object in cache.list::<CSIStorageCapacity>() {
        seen(memory, object, queue);
    }
    memory.capacity.next_poll = now;
    queue.add(Key::Poll);
}

/// An event that may concern capacities reached the cache.
pub(super) fn notice(site: &Provisioner, memory: &mut Memory, cache: &Cache, delta: &Delta, queue: &mut Requests<Key>) {
    if !site.flags.enable_capacity || !memory.connection.is_ready() {
        return;
    }
    match delta.kind() {
        Kind::Node | Kind::CSINode => reconcile(site, memory, cache, queue),
        Kind::StorageClass => {
            reconcile(site, memory, cache, queue);
            // An update of a class refreshes its items.
            refresh_class(memory, &delta.object().key().name, queue);
        }
        Kind::CSIStorageCapacity => match delta.of::<CSIStorageCapacity>() {
            Some((_, Some(object))) => seen(memory, object, queue),
            Some((Some(object), None)) => gone(memory, object, queue),
            _ => {}
        },
        _ => {}
    }
}

/// Brings the items in line with classes and nodes.
fn reconcile(site: &Provisioner, memory: &mut Memory, cache: &Cache, queue: &mut Requests<Key>) {
    let driver = Arc::clone(&memory.connection.discovered.name);
    let books = &mut memory.capacity;
    books.segments = segments(cache, &driver);
    let classes = cache.list::<StorageClass>().filter(|class| {
        let immediate = class.volume_binding_mode.as_deref() == Some("Immediate");
        class.provisioner == *driver && (!immediate || site.flags.capacity_for_immediate_binding)
    });
    let mut wanted = BTreeSet::new();
    for class in classes {
        let class: Arc<str> = Arc::from(fields::name(&class.metadata));
        let items = books.segments.iter().map(|s| Item {
            class: Arc::clone(&class),
            segment: s.clone(),
        });
        wanted.extend(items);
    }
    let obsolete: Vec<Item> = books.items.keys().filter(|i| !wanted.contains(*i)).cloned().collect();
    for item in obsolete {
        if let Some(object) = books.items.remove(&item).flatten() {
            queue.add(Key::Obsolete(object.key()));
        }
    }
    for item in wanted {
        if !books.items.contains_key(&item) {
            books.items.insert(item.clone(), None);
            queue.add(Key::Capacity(item));
        }
    }
}

fn segments(cache: &Cache, driver: &str) -> BTreeSet<Term> {
    let term = |csi_node: &Arc<CSINode>| {
        let keys = driver_keys(csi_node, driver)?;
        let labels = cache.get::<Node>(&csi_node.key())?.metadata.labels.clone();
        term_of(&labels.unwrap_or_default(), &keys)
    };
    cache.list::<CSINode>().filter_map(term).collect()
}

fn selector(segment: &Term) -> LabelSelector {
    LabelSelector {
        match_labels: Some(segment.iter().cloned().collect()),
        ..Default::default()
    }
}

impl Item {
    fn is_of(&self, object: &CSIStorageCapacity) -> bool {
        let labels = |s: &LabelSelector| s.match_labels.clone().unwrap_or_default();
        let there = object.node_topology.as_ref().map(labels);
        *self.class == *object.storage_class_name && there == Some(self.segment.iter().cloned().collect())
    }
}

fn is_managed(object: &CSIStorageCapacity, driver: &str) -> bool {
    let label = |key| fields::label(&object.metadata, key);
    label(DRIVER_NAME) == Some(driver) && label(MANAGED_BY) == Some(MANAGER)
}

/// An object appeared or changed: it stands for an item, or is one too many.
fn seen(memory: &mut Memory, object: &Arc<CSIStorageCapacity>, queue: &mut Requests<Key>) {
    let driver = Arc::clone(&memory.connection.discovered.name);
    let items = &mut memory.capacity.items;
    let known =
        |entry: &Option<Arc<CSIStorageCapacity>>| entry.as_ref().is_some_and(|o| o.metadata.uid == object.metadata.uid);
    let same = items
        .iter()
        .find(|(_, entry)| known(entry))
        .map(|(item, _)| item.clone());
    if !is_managed(object, &driver) {
        if let Some(item) = same {
            items.insert(item.clone(), None);
            queue.add(Key::Capacity(item));
        }
        return;
    }
    let free = || {
        items
            .iter()
            .find(|(item, entry)| entry.is_none() && item.is_of(object))
            .map(|(item, _)| item.clone())
    };
    match same.or_else(free) {
        Some(item) => {
            items.insert(item, Some(Arc::clone(object)));
        }
        None => queue.add(Key::Obsolete(object.key())),
    }
}

/// An object vanished: if it was wanted, it is made again.
fn gone(memory: &mut Memory, object: &CSIStorageCapacity, queue: &mut Requests<Key>) {
    for (item, entry) in &mut memory.capacity.items {
        if entry.as_ref().is_some_and(|o| o.metadata.uid == object.metadata.uid) {
            *entry = None;
            queue.add(Key::Capacity(item.clone()));
        }
    }
}

/// Refreshes the items of a class.
pub(super) fn refresh_class(memory: &Memory, class: &str, queue: &mut Requests<Key>) {
    let items = memory.capacity.items.keys().filter(|i| *i.class == *class);
    items.for_each(|item| queue.add(Key::Capacity(item.clone())));
}

/// Refreshes the items in the segments where a volume is accessible.
pub(super) fn refresh_affinity(memory: &Memory, affinity: &VolumeNodeAffinity, queue: &mut Requests<Key>) {
    let terms = affinity_terms(affinity);
    let items = memory.capacity.items.keys().filter(|i| terms.contains(&i.segment));
    items.for_each(|item| queue.add(Key::Capacity(item.clone())));
}

/// The next effect of the minute's poll.
pub(super) fn decide_poll(memory: &Memory, now: Time) -> Effect {
    if now < memory.capacity.next_poll {
        return Effect::RestUntil(memory.capacity.next_poll);
    }
    Effect::Note("poll")
}

/// A minute is over: every item is refreshed.
pub(super) fn learn_poll(site: &Provisioner, memory: &mut Memory, then: &mut Learner<'_, Key>) {
    memory.capacity.next_poll = then.now + site.flags.capacity_poll_interval;
    for item in memory.capacity.items.keys() {
        then.queue.add(Key::Capacity(item.clone()));
    }
}

fn end(step: Option<&Step>) -> Option<Effect> {
    match step? {
        Step::Write(write) => Some(Effect::write(write.clone())),
        Step::End(None) => Some(Effect::Rest),
        Step::End(Some(message)) => Some(Effect::Retry(message.clone().into())),
    }
}

/// The next effect for an item.
pub(super) fn decide_item(site: &Provisioner, cache: &Cache, memory: &Memory, item: &Item) -> Effect {
    let books = &memory.capacity;
    if let Some(effect) = end(books.steps.get(&Key::Capacity(item.clone()))) {
        return effect;
    }
    let wanted = books.items.contains_key(item);
    let Some(class) = cache.named::<StorageClass>(&item.class).filter(|_| wanted) else {
        return Effect::Rest;
    };
    site.dial.call(csi::GetCapacityRequest {
        volume_capabilities: Vec::new(),
        parameters: class.parameters.clone().unwrap_or_default(),
        accessible_topology: Some(csi::Topology {
            segments: item.segment.iter().cloned().collect(),
        }),
    })
}

/// What it taught.
pub(super) fn learn_item(site: &Provisioner, memory: &mut Memory, item: &Item, outcome: &Outcome) {
    let step = match outcome {
        Outcome::Reply(Ok(CsiReply::GetCapacity(reply))) => match publish(site, memory, item, reply) {
            Some(write) => Step::Write(write),
            None => Step::End(None),
        },
        Outcome::Reply(Err(error)) => {
            Step::End(Some(format!("CSI GetCapacity for {item}: {}", describe(&error.status))))
        }
        outcome => Step::End(outcome.written().err().map(ApiError::to_string)),
    };
    memory.capacity.steps.insert(Key::Capacity(item.clone()), step);
}

/// The write that makes the object say it, unless it does.
fn publish(site: &Provisioner, memory: &Memory, item: &Item, reply: &csi::GetCapacityResponse) -> Option<Write> {
    let amount = |bytes: i64| quantity::quantity(u64::try_from(bytes).unwrap_or(0));
    let (capacity, largest) = (amount(reply.available_capacity), reply.maximum_volume_size.map(amount));
    let Some(known) = memory.capacity.items.get(item).cloned().flatten() else {
        let mut object = CSIStorageCapacity {
            storage_class_name: item.class.to_string(),
            node_topology: Some(selector(&item.segment)),
            capacity: Some(capacity),
            maximum_volume_size: largest,
            ..Default::default()
        };
        object.metadata.generate_name = Some("csisc-".into());
        object.metadata.namespace = Some(site.constants.namespace.clone());
        let driver = memory.connection.discovered.name.to_string();
        let labels = [
            (DRIVER_NAME.to_owned(), driver),
            (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        ];
        object.metadata.labels = Some(labels.into());
        return Some(Write::Create(Object::new(object)));
    };
    let bytes = |q: &Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>| q.as_ref().map(quantity::bytes);
    let (capacity, there) = (
        Some(capacity),
        (bytes(&known.capacity), bytes(&known.maximum_volume_size)),
    );
    if there == (bytes(&capacity), bytes(&largest)) {
        return None;
    }
    let object = CSIStorageCapacity {
        capacity,
        maximum_volume_size: largest,
        ..CSIStorageCapacity::clone(&known)
    };
    Some(Write::Update(Object::new(object)))
}

/// The next effect for an object that nobody wants.
pub(super) fn decide_obsolete(memory: &Memory, key: &ObjKey) -> Effect {
    end(memory.capacity.steps.get(&Key::Obsolete(key.clone())))
        .unwrap_or_else(|| Effect::write(Write::Delete(Delete::new(ObjectRef::to::<CSIStorageCapacity>(key)))))
}

/// What it taught.
pub(super) fn learn_obsolete(memory: &mut Memory, key: &ObjKey, outcome: &Outcome) {
    let error = outcome.written().err().filter(|e| !e.is_not_found());
    let step = Step::End(error.map(ApiError::to_string));
    memory.capacity.steps.insert(Key::Obsolete(key.clone()), step);
}

/// The sync of an item or object ended.
pub(super) fn ended(memory: &mut Memory, key: &Key) {
    memory.capacity.steps.remove(key);
}
