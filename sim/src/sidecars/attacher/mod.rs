//! external-attacher: makes VolumeAttachments of one driver true by ControllerPublishVolume and ControllerUnpublishVolume.
//!
//! ```text
//! VolumeAttachment events ──► attachments queue (10) ──► attachment.rs: attach or detach
//!        │ deleted                     ▲ forced
//!        ▼                             └── reconcile.rs: what the driver lists, each minute
//! PV events ───────────────► volumes queue (10): our finalizer leaves a deleted volume that no attachment names
//! ```
//!
//! Source: kubernetes-csi/external-attacher v4.12 (fact sheet 5). Back-off is a work queue's: 1 s, doubled up to 5 min, one for each queue. An event on an
//! attachment bypasses it, except the events of its own error writes, which are filtered out.
//!
//! *Blind spots.* Leader election; migration from in-tree plugins. The informers' resync (10 min) is replayed only after something failed.

mod attachment;
mod merge;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus};

use crate::api::{Cache, Clock, Delta, Edit, Index, Kind, Limiter, ObjKey, ObjectRef, Patch, Write, fields, names};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::mutants::Wrong;
use crate::release::RELEASE;
use crate::runtime::Time;
use crate::sidecars::connect::{Connection, ControllerRpc, Dial, Discovered, Next, PluginService, Question};

use attachment::{Site, Sync};
use reconcile::Round;

/// The indexes that its cache needs.
pub const INDEXES: &[Index] = &[Index::AttachmentsByVolume];

/// The deadline of the questions at its start, after the probe. Not a flag.
const QUESTION_TIMEOUT: Duration = RELEASE.sidecars.attacher_question_timeout;

/// The command line of external-attacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// Deadline of each call, and of one whole comparison with the driver's listing.
    pub timeout: Duration,
    /// Attachments worked on at once, and volumes likewise.
    pub worker_threads: usize,
    /// How often the informers say everything again.
    pub resync: Duration,
    /// How often attachments are compared with the driver's listing.
    pub reconcile_sync: Duration,
    /// First wait after a failure; it doubles.
    pub retry_interval_start: Duration,
    /// Longest wait after a failure.
    pub retry_interval_max: Duration,
    /// How many volumes a page of the listing may have; zero: as many as the driver likes.
    pub max_entries: i32,
    /// File system for volumes that name none; empty: none.
    pub default_fstype: String,
    /// API requests a second.
    pub kube_api_qps: f64,
    /// API requests saved up.
    pub kube_api_burst: u32,
    /// A mistake that it is to make. `None`: none.
    pub wrong: Option<Wrong>,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            timeout: Duration::from_secs(15),
            worker_threads: 10,
            resync: Duration::from_secs(600),
            reconcile_sync: Duration::from_secs(60),
            retry_interval_start: Duration::from_secs(1),
            retry_interval_max: Duration::from_secs(300),
            max_entries: 0,
            default_fstype: String::new(),
            kube_api_qps: 5.0,
            kube_api_burst: 10,
            wrong: None,
        }
    }
}

/// What a sync of the attacher is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Getting to know the driver.
    Connect,
    /// An attachment, by name.
    Attachment(Arc<str>),
    /// A volume, by name.
    Volume(Arc<str>),
    /// The comparison with the driver's listing.
    Reconcile,
    /// The informers say everything again.
    Resync,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Connect => f.write_str("connect"),
            Key::Attachment(name) => write!(f, "va {name}"),
            Key::Volume(name) => write!(f, "pv {name}"),
            Key::Reconcile => f.write_str("reconcile"),
            Key::Resync => f.write_str("resync"),
        }
    }
}

/// external-attacher for one driver.
#[derive(Clone, Debug)]
pub struct Attacher {
    flags: Flags,
    dial: Dial,
    clock: Clock,
}

/// What the process knows and a crash erases.
#[derive(Default)]
pub struct Memory {
    connection: Connection<Key>,
    started: Option<Time>,
    syncs: BTreeMap<Arc<str>, Sync>,
    /// Attachments whose next sync is to happen whatever their status says.
    forced: BTreeSet<Arc<str>>,
    /// Volumes whose finalizer was just to be removed, and what came of it.
    releases: BTreeMap<Arc<str>, Result<(), String>>,
    round: Option<Round>,
    next_round: Option<Time>,
    resynced: Option<Time>,
}

/// The shells of an external-attacher process for this driver.
pub fn shells(driver: &str, flags: &Flags) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(Attacher::new(driver, flags)))]
}

/// What it asks at its start: without a controller service there is nothing more to ask.
fn plan(answered: &[Question], discovered: &Discovered) -> Next {
    match answered.len() {
        0 => Next::Ask(Question::Probe),
        1 => Next::Ask(Question::PluginInfo),
        2 => Next::Ask(Question::PluginCapabilities),
        3 if discovered.plugin(PluginService::ControllerService) => Next::Ask(Question::ControllerCapabilities),
        _ => Next::Ready,
    }
}

impl Attacher {
    /// An attacher with these flags and the usual clock.
    pub fn new(driver: &str, flags: &Flags) -> Attacher {
        Attacher {
            dial: Dial::new(driver, flags.timeout, plan).asking_within(QUESTION_TIMEOUT),
            flags: flags.clone(),
            clock: Clock::EPOCH,
        }
    }

    /// With another wall clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Attacher {
        self.clock = clock;
        self
    }

    /// Whether the driver publishes volumes at all. If not, attachments are marked attached and never protected.
    fn publishes(&self, driver: &Discovered) -> bool {
        driver.plugin(PluginService::ControllerService) && driver.controller(ControllerRpc::PublishUnpublishVolume)
    }

    /// A sync failed: the informers' next resync tries it again, whatever its back-off.
    fn await_resync(&self, memory: &Memory, now: Time, queue: &mut Requests<Key>) {
        if let Some(started) = memory.started {
            queue.add_at(Key::Resync, Time(now.0 + 1).tick(started, self.flags.resync));
        }
    }

    // Attachments.

    fn decide_attachment(&self, cache: &Cache, memory: &Memory, name: &Arc<str>, now: Time) -> Effect {
        let driver = &memory.connection.discovered;
        let site = Site {
            attacher: self,
            driver,
            cache,
        };
        if let Some(sync) = memory.syncs.get(name) {
            return sync.decide(&site, now);
        }
        match self.own(cache, driver, name) {
            Some(a) if attachment::is_due(a, driver, memory.forced.contains(name)) => Effect::Note("sync"),
            _ => Effect::Rest,
        }
    }

    fn own<'a>(&self, cache: &'a Cache, driver: &Discovered, name: &str) -> Option<&'a Arc<VolumeAttachment>> {
        let attachment = cache.named::<VolumeAttachment>(name)?;
        (*attachment.spec.attacher == *driver.name).then_some(attachment)
    }

    fn learn_attachment(&self, memory: &mut Memory, name: &Arc<str>, outcome: &Outcome, cache: &Cache) {
        let site = Site {
            attacher: self,
            driver: &memory.connection.discovered,
            cache,
        };
        if let Some(sync) = memory.syncs.get_mut(name) {
            sync.learn(&site, outcome);
            return;
        }
        memory.forced.remove(name);
        if let Some(attachment) = self.own(cache, site.driver, name) {
            let sync = Sync::begin(&site, Arc::clone(attachment));
            memory.syncs.insert(Arc::clone(name), sync);
        }
    }

    fn notice_attachment(
        &self,
        memory: &Memory,
        old: Option<&Arc<VolumeAttachment>>,
        new: Option<&Arc<VolumeAttachment>>,
        now: Time,
        queue: &mut Requests<Key>,
    ) {
        match (old, new) {
            (_, Some(attachment)) => {
                let awake = self.flags.wrong == Some(Wrong::OwnErrorsWakeIt);
                if awake || old.is_none_or(|old| says_something(old, attachment)) {
                    queue.add(Key::Attachment(fields::name(&attachment.metadata).into()));
                }
                if old.is_none()
                    && reconcile::can_tell(&memory.connection.discovered)
                    && let Some(started) = memory.started
                {
                    queue.add_at(Key::Reconcile, now.tick(started, self.flags.reconcile_sync));
                }
            }
            (Some(gone), None) => {
                if let Some(volume) = &gone.spec.source.persistent_volume_name {
                    queue.add(Key::Volume(volume.as_str().into()));
                }
            }
            (None, None) => {}
        }
    }

    // Volumes.

    /// Whether our finalizer may leave a volume, and where it stands.
    fn release(&self, cache: &Cache, driver: &Discovered, name: &str) -> Option<Write> {
        let volume = cache.named::<PersistentVolume>(name)?;
        if self.flags.wrong == Some(Wrong::KeepsFinalizer) {
            return None;
        }
        if !self.publishes(driver) || !fields::is_deleting(&volume.metadata) {
            return None;
        }
        let finalizer = names::attacher_finalizer(&driver.name);
        let index = fields::finalizer_index(&volume.metadata, &finalizer)?;
        if cache.keys_by(Index::AttachmentsByVolume, name).next().is_some() {
            return None;
        }
        let target = ObjectRef::new(Kind::PersistentVolume, ObjKey::cluster(name));
        let edit = Edit::RemoveFinalizerAt { name: finalizer, index };
        Some(Write::Patch(Patch::new(target, vec![edit])))
    }

    fn decide_volume(&self, cache: &Cache, memory: &Memory, name: &str) -> Effect {
        match memory.releases.get(name) {
            Some(Ok(())) => Effect::Rest,
            Some(Err(message)) => Effect::Retry(message.clone().into()),
            None => {
                let release = self.release(cache, &memory.connection.discovered, name);
                release.map_or(Effect::Rest, Effect::write)
            }
        }
    }

    // Resync.

    fn resync(&self, memory: &mut Memory, then: &mut Learner<'_, Key>) {
        let driver = &memory.connection.discovered;
        let ours = then.cache.list::<VolumeAttachment>();
        let ours = ours.filter(|a| *a.spec.attacher == *driver.name);
        let due = ours.filter(|a| attachment::is_due(a, driver, false));
        let names: Vec<Arc<str>> = due.map(|a| fields::name(&a.metadata).into()).collect();
        let volumes = then.cache.list::<PersistentVolume>();
        let volumes = volumes.map(|v| fields::name(&v.metadata));
        let volumes = volumes.filter(|name| self.release(then.cache, driver, name).is_some());
        let volumes: Vec<Arc<str>> = volumes.map(Arc::from).collect();
        if !(names.is_empty() && volumes.is_empty()) {
            self.await_resync(memory, then.now, then.queue);
        }
        names.into_iter().for_each(|n| then.queue.add(Key::Attachment(n)));
        volumes.into_iter().for_each(|n| then.queue.add(Key::Volume(n)));
        memory.resynced = Some(then.now);
    }
}

/// Whether a change says more than that an attach or detach failed: those are its own words, and must not bypass the back-off.
fn says_something(old: &VolumeAttachment, new: &VolumeAttachment) -> bool {
    let failed = |a: &VolumeAttachment| {
        let status = a.status.as_ref();
        status.is_some_and(|s| s.attach_error.is_some() || s.detach_error.is_some())
    };
    if old.metadata.resource_version == new.metadata.resource_version || !(failed(old) || failed(new)) {
        return true;
    }
    let silenced = |attachment: &VolumeAttachment| {
        let mut metadata = attachment.metadata.clone();
        metadata.resource_version = None;
        metadata.managed_fields = None;
        let status = attachment.status.clone().unwrap_or_default();
        VolumeAttachment {
            metadata,
            spec: attachment.spec.clone(),
            status: Some(VolumeAttachmentStatus {
                attach_error: None,
                detach_error: None,
                ..status
            }),
        }
    };
    silenced(old) != silenced(new)
}

impl Controller for Attacher {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "csi-attacher"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::VolumeAttachment, Kind::PersistentVolume, Kind::CSINode]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: Limiter::Exponential {
                base: self.flags.retry_interval_start,
                cap: self.flags.retry_interval_max,
            },
        };
        vec![
            lane("connect", 1),
            lane("csi-attacher-va", self.flags.worker_threads),
            lane("csi-attacher-pv", self.flags.worker_threads),
            lane("reconcile", 1),
            lane("resync", 1),
        ]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Connect => 0,
            Key::Attachment(_) => 1,
            Key::Volume(_) => 2,
            Key::Reconcile => 3,
            Key::Resync => 4,
        }
    }

    fn start(&self, _: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<Key>) {
        memory.started = Some(now);
        memory.connection.begin(now);
        queue.add(Key::Connect);
        queue.add(Key::Reconcile);
    }

    fn notice(&self, _: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        if let Some((old, new)) = delta.of::<VolumeAttachment>() {
            self.notice_attachment(memory, old, new, now, queue);
        } else if let Some((_, Some(volume))) = delta.of::<PersistentVolume>()
            && fields::is_deleting(&volume.metadata)
        {
            queue.add(Key::Volume(fields::name(&volume.metadata).into()));
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, key: &Key, now: Time) -> Effect {
        if let Key::Connect = key {
            return self.dial.decide(&memory.connection);
        }
        if let Some(effect) = memory.connection.gate() {
            return effect;
        }
        match key {
            Key::Connect => unreachable!("decided above"),
            Key::Attachment(name) => self.decide_attachment(cache, memory, name, now),
            Key::Volume(name) => self.decide_volume(cache, memory, name),
            Key::Reconcile => self.decide_reconcile(cache, memory, now),
            Key::Resync if memory.resynced != Some(now) => Effect::Note("resync"),
            Key::Resync => Effect::Rest,
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        if let Key::Connect = key {
            self.dial
                .learn(&mut memory.connection, effect, outcome, then.now, then.queue);
            return;
        }
        memory.connection.heed(outcome);
        match key {
            Key::Connect => unreachable!("learnt above"),
            Key::Attachment(name) => {
                self.learn_attachment(memory, name, outcome, then.cache);
                if memory.syncs.get(name).is_some_and(Sync::has_failed) {
                    self.await_resync(memory, then.now, then.queue);
                }
            }
            Key::Volume(name) => {
                let written = outcome.written().map(|_| ());
                let result = written.map_err(|e| format!("Failed to remove finalizer from PV \"{name}\": {e}"));
                if result.is_err() {
                    self.await_resync(memory, then.now, then.queue);
                }
                memory.releases.insert(Arc::clone(name), result);
            }
            Key::Reconcile => self.learn_reconcile(memory, outcome, then),
            Key::Resync => self.resync(memory, then),
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, _: &Effect) {
        if !memory.connection.is_ready() {
            if *key != Key::Connect {
                memory.connection.ended(key.clone());
            }
            return;
        }
        match key {
            Key::Attachment(name) => drop(memory.syncs.remove(name)),
            Key::Volume(name) => drop(memory.releases.remove(name)),
            Key::Connect | Key::Reconcile | Key::Resync => {}
        }
    }
}
