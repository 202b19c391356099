//! The API server: takes reads and writes one at a time and keeps what Kubernetes promises about objects.
//!
//! A write passes NodeRestriction, the rules of its verb, defaults, admission, validation and the store, in the order of the real server. What
//! changed goes to an outbox; delivering it to watchers, with delay and in order, is the event loop's work. Deleting is in `lifecycle.rs`, patching
//! in `edit.rs`, what a write may touch in `strategy.rs`.
//!
//! Blind spots: no authentication beyond NodeRestriction, no quotas, no field ownership (server-side apply), no dry run, no foreground deletion.
//! A namespace is finalised by an update that empties `spec.finalizers` (the real server has a subresource for that).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::Time;

use super::admission::Patience;
use super::clock::Clock;
use super::object::{Kind, ObjKey, Object, ObjectRef, Resource};
use super::store::Store;
use super::strategy::{self, Part};
use super::write::{ApiError, Change, Patch, Read, ReadAnswer, Write, Written};
use super::{admission, defaults, edit, fields, identity, validate};

/// The namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// Who writes what nobody asked for.
pub(super) const SELF: &str = "kube-apiserver";

/// The API server and its store.
#[derive(Debug)]
pub struct ApiServer {
    pub(super) clock: Clock,
    pub(super) store: Store,
    /// Which writers are kubelets, and of which node.
    kubelets: BTreeMap<String, String>,
    /// How many names were made of each `generateName`.
    prefixes: BTreeMap<(Kind, ObjKey), u64>,
    /// When which event expires, unless it was written since.
    leases: VecDeque<(Time, ObjKey, u64)>,
    /// What DefaultTolerationSeconds gives to pods.
    pub patience: Patience,
    /// `--event-ttl`: how long an event lives after its last write.
    pub event_ttl: Duration,
}

/// One write in progress: by whom, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) by: &'a str,
    pub(super) now: Time,
}

impl ApiServer {
    /// A server that knows nothing but the namespaces of every cluster. Their creation is not in the outbox.
    pub fn new(clock: Clock) -> ApiServer {
        let mut server = ApiServer {
            clock,
            store: Store::new(),
            kubelets: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            leases: VecDeque::new(),
            patience: Patience::default(),
            event_ttl: Duration::from_secs(3600),
        };
        for name in NAMESPACES {
            let mut namespace = k8s_openapi::api::core::v1::Namespace::default();
            namespace.metadata.name = Some(name.into());
            let write = Write::Create(Object::new(namespace));
            server
                .write(SELF, &write, Time::ZERO)
                .expect("the first namespaces are well-formed");
        }
        server.store.drain(&mut Vec::new());
        server
    }

    /// Says that the writer `by` is the kubelet of `node`: from now on NodeRestriction holds for it.
    pub fn restrict_to_node(&mut self, by: &str, node: &str) {
        self.kubelets.insert(by.into(), node.into());
    }

    /// Performs a write.
    ///
    /// # Errors
    /// What the client is answered: 400, 403, 404, 409, 422 or 500, with the reason and in substance the wording of the real server.
    pub fn write(&mut self, by: &str, write: &Write, now: Time) -> Result<Written, ApiError> {
        if let Some(node) = self.kubelets.get(by) {
            admission::restrict_to_node(&self.store, node, write)?;
        }
        let context = Context { by, now };
        match write {
            Write::Create(object) => self.create(context, object),
            Write::Update(object) => self.update(context, object, Part::Main),
            Write::UpdateStatus(object) => self.update(context, object, Part::Status),
            Write::Patch(patch) => self.patch(context, patch),
            Write::Bind { pod, uid, node } => self.bind(context, pod, uid.as_deref(), node),
            Write::Delete(delete) => self.delete(context, delete),
        }
    }

    /// Moves the changes since the last call into `into`, oldest first.
    pub fn drain_changes(&mut self, into: &mut Vec<Change>) {
        self.store.drain(into);
    }

    /// Answers a read that asks for the newest state.
    ///
    /// # Errors
    /// 404 when a GET names nothing.
    pub fn read(&self, read: &Read) -> Result<ReadAnswer, ApiError> {
        match read {
            Read::Get(target) => {
                let object = self.store.object(target.kind, &target.key);
                let object = object.ok_or_else(|| ApiError::not_found(target))?;
                Ok(ReadAnswer::Object(object.clone()))
            }
            Read::List { kind, namespace: None } => Ok(ReadAnswer::List(self.store.objects(*kind).cloned().collect())),
            Read::List {
                kind,
                namespace: Some(namespace),
            } => Ok(ReadAnswer::List(
                self.store.in_namespace(*kind, namespace).cloned().collect(),
            )),
        }
    }

    /// An object as it is now.
    pub fn get<T: Resource>(&self, key: &ObjKey) -> Option<&Arc<T>> {
        self.store.get(key)
    }

    /// An object of any kind as it is now.
    pub fn object(&self, kind: Kind, key: &ObjKey) -> Option<&Object> {
        self.store.object(kind, key)
    }

    /// The objects of `T`'s kind in order of key.
    pub fn list<T: Resource>(&self) -> impl Iterator<Item = &Arc<T>> {
        self.store.objects(T::KIND).filter_map(Object::get)
    }

    /// The objects of a kind in order of key.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.store.objects(kind)
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.store.count(kind)
    }

    /// The resourceVersion of the newest change.
    pub fn version(&self) -> u64 {
        self.store.version()
    }

    /// The wall clock of the objects.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// When `expire_events` next has something to do.
    pub fn next_expiry(&self) -> Option<Time> {
        self.leases.front().map(|(at, _, _)| *at)
    }

    /// Removes the events that nobody has written for an hour; watchers see them deleted.
    pub fn expire_events(&mut self, now: Time) {
        while self.next_expiry().is_some_and(|at| at <= now) {
            let Some((_, key, version)) = self.leases.pop_front() else {
                return;
            };
            let stored = self.store.object(Kind::Event, &key);
            if stored.is_some_and(|event| event.version() == version) {
                self.store.remove(SELF, Kind::Event, &key);
            }
        }
    }

    /// The stored object.
    pub(super) fn stored(&self, target: &ObjectRef) -> Result<Object, ApiError> {
        let object = self.store.object(target.kind, &target.key);
        object.cloned().ok_or_else(|| ApiError::not_found(target))
    }

    /// Stores an object; an event gets a new lease.
    pub(super) fn put(&mut self, context: Context<'_>, key: &ObjKey, object: Object) -> Written {
        let object = self.store.put(context.by, key, object);
        if object.kind() == Kind::Event {
            let lease = (context.now + self.event_ttl, key.clone(), object.version());
            self.leases.push_back(lease);
        }
        Written { object, changed: true }
    }

    fn create(&mut self, context: Context<'_>, body: &Object) -> Result<Written, ApiError> {
        let mut new = body.clone();
        let kind = new.kind();
        if new.meta().resource_version.as_deref().is_some_and(|v| !v.is_empty()) {
            return Err(ApiError::internal(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        self.name(&mut new)?;
        let target = new.to_ref();
        admission::namespace(&self.store, &target)?;
        defaults::fill(&mut new);
        admission::mutate(&self.store, self.patience, &mut new);
        let now = self.clock.time(context.now);
        strategy::begin(&mut new, &now);
        validate::create(&new)?;
        if self.store.object(kind, &target.key).is_some() {
            return Err(ApiError::already_exists(&target));
        }
        let incarnation = self.store.next_incarnation(kind, &target.key);
        let meta = new.meta_mut();
        meta.uid = Some(identity::uid(kind, &target.key, incarnation));
        meta.creation_timestamp = Some(now);
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        Ok(self.put(context, &target.key, new))
    }

    /// Settles namespace and name of a new object.
    fn name(&mut self, new: &mut Object) -> Result<(), ApiError> {
        let kind = new.kind();
        let meta = new.meta_mut();
        if !kind.namespaced() {
            meta.namespace = None;
        } else if fields::namespace(meta).is_empty() {
            meta.namespace = Some("default".into());
        }
        if !fields::name(meta).is_empty() {
            return Ok(());
        }
        let Some(prefix) = meta.generate_name.clone().filter(|p| !p.is_empty()) else {
            return validate::nameless(kind);
        };
        let namespace = fields::namespace(meta).to_owned();
        let key = ObjKey::new(namespace.as_str(), prefix.as_str());
        let used = self.prefixes.entry((kind, key)).or_insert(0);
        loop {
            *used += 1;
            let name = identity::generated_name(kind, &namespace, &prefix, *used);
            let key = ObjKey::new(namespace.as_str(), name.as_str());
            if self.store.object(kind, &key).is_none() {
                meta.name = Some(name);
                return Ok(());
            }
        }
    }

    fn update(&mut self, context: Context<'_>, body: &Object, part: Part) -> Result<Written, ApiError> {
        let target = body.to_ref();
        if part == Part::Status && !strategy::has_status(target.kind) {
            return Err(ApiError::no_such_resource());
        }
        let old = self.stored(&target)?;
        if !body.uid().is_empty() && body.uid() != old.uid() {
            return Err(ApiError::other_uid(&target, body.uid(), old.uid()));
        }
        if body.meta().resource_version.as_deref().is_none_or(str::is_empty) {
            if !strategy::takes_unconditional_update(target.kind) {
                return Err(validate::no_version(&target));
            }
        } else if body.version() != old.version() {
            return Err(ApiError::stale(&target));
        }
        self.replace(context, &target, old, body.clone(), part, true)
    }

    fn patch(&mut self, context: Context<'_>, patch: &Patch) -> Result<Written, ApiError> {
        let part = if patch.status { Part::Status } else { Part::Main };
        if part == Part::Status && !strategy::has_status(patch.target.kind) {
            return Err(ApiError::no_such_resource());
        }
        let old = self.stored(&patch.target)?;
        if let Some(uid) = patch.uid.as_deref().filter(|uid| *uid != old.uid()) {
            return Err(ApiError::other_uid(&patch.target, uid, old.uid()));
        }
        if patch.version.is_some_and(|version| version != old.version()) {
            return Err(ApiError::stale(&patch.target));
        }
        let mut new = old.clone();
        let mut foreign = false;
        let now = (self.clock, context.now);
        for one in &patch.edits {
            foreign |= edit::apply(&mut new, one, part, now)?;
        }
        self.replace(context, &patch.target, old, new, part, foreign)
    }

    /// Replaces a stored object by what a client made of it. `foreign` says that the client may have touched anything, as with a PUT or a user's patch;
    /// else only what a typed edit can reach differs.
    fn replace(
        &mut self,
        context: Context<'_>,
        target: &ObjectRef,
        old: Object,
        mut new: Object,
        part: Part,
        foreign: bool,
    ) -> Result<Written, ApiError> {
        if foreign {
            validate::metadata_kept(&old, &new)?;
            keep_server_fields(&old, &mut new);
            defaults::fill(&mut new);
            strategy::keep_other_part(&old, &mut new, part);
        } else {
            strategy::keep_metadata(&old, &mut new, part);
        }
        strategy::advance(&old, &mut new, &self.clock.time(context.now));
        if new == old {
            return Ok(Written {
                object: old,
                changed: false,
            });
        }
        validate::update(&old, &new, part, foreign)?;
        if foreign && part == Part::Main {
            admission::resize(&self.store, target, &old, &new)?;
        }
        if finishes_deletion(&old, &new) {
            // What the client is answered lacks the finalizer; what watchers see still has it.
            let last = self.store.remove(context.by, target.kind, &target.key);
            new.meta_mut().resource_version = last.and_then(|o| o.meta().resource_version.clone());
            return Ok(Written {
                object: new,
                changed: true,
            });
        }
        Ok(self.put(context, &target.key, new))
    }
}

/// Puts back the metadata that only the server sets.
fn keep_server_fields(old: &Object, new: &mut Object) {
    let old = old.meta();
    let new = new.meta_mut();
    new.uid.clone_from(&old.uid);
    new.resource_version.clone_from(&old.resource_version);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.generation = old.generation;
    new.generate_name.clone_from(&old.generate_name);
}

/// Whether a write takes away what alone kept a deleting object.
fn finishes_deletion(old: &Object, new: &Object) -> bool {
    let (before, after) = (old.meta(), new.meta());
    if after.deletion_timestamp.is_none() || before.deletion_grace_period_seconds != Some(0) {
        return false;
    }
    let namespace_done = match new {
        Object::Namespace(namespace) => {
            let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref());
            finalizers.unwrap_or_default().is_empty()
        }
        _ => true,
    };
    namespace_done && fields::finalizers(after).is_empty()
}
