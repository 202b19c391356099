//! external-provisioner: creates and deletes volumes for the claims and volumes of one driver.
//!
//! One process, one memory, several queues: claims (keyed by UID) and volumes (by name) with 100 workers each, volumes that could not be saved, sources of clones, the sweep
//! of snapshots, capacities. What each does is told in its file: `claim` (its steps in `attempt`), `delete`, `protect`, `capacity`; how a request comes about in
//! `request`, `source`, `topology`, `secrets`.
//!
//! *Blind spots.* Leader election; `--node-deployment`; migration from in-tree plugins. The informer's 15-minute resync is not replayed: it would find nothing that an
//! event or a back-off has not found. Facts: sheet section 3.

mod attempt;
mod capacity;
mod claim;
mod delete;
mod protect;
mod request;
mod secrets;
mod source;
mod topology;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::api::{
    Cache, Clock, Delta, Index, Kind, Limiter, ObjKey, Resource, Write, fields, names, snapshot::VolumeSnapshot,
};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::mutants::Wrong;
use crate::release::RELEASE;
use crate::runtime::Time;
use crate::sidecars::connect::{Connection, Dial, controller_plan};

pub use capacity::Item;

/// The command line of external-provisioner.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// Deadline of every CSI call.
    pub timeout: Duration,
    /// First wait after a failure; it doubles.
    pub retry_interval_start: Duration,
    /// Longest wait after a failure.
    pub retry_interval_max: Duration,
    /// Claims worked on at once, and volumes likewise.
    pub worker_threads: usize,
    /// First part of a volume's name.
    pub volume_name_prefix: String,
    /// How many hex digits of the claim's UID follow; -1: the whole UID with its dashes.
    pub volume_name_uuid_length: i64,
    /// Late binding: only the selected node's topology is sent.
    pub strict_topology: bool,
    /// Immediate binding: the topology of all nodes is sent.
    pub immediate_topology: bool,
    /// File system for classes that name none; empty: none.
    pub default_fstype: String,
    /// Names of claim and volume go along as parameters.
    pub extra_create_metadata: bool,
    /// A volume that is only read by many is published read-only.
    pub controller_publish_readonly: bool,
    /// A restore may not change the volume mode without permission.
    pub prevent_volume_mode_conversion: bool,
    /// Publishes CSIStorageCapacity objects.
    pub enable_capacity: bool,
    /// How often every capacity is asked for.
    pub capacity_poll_interval: Duration,
    /// Capacities worked on at once.
    pub capacity_threads: usize,
    /// Also for classes with Immediate binding.
    pub capacity_for_immediate_binding: bool,
    /// Sources of clones worked on at once.
    pub cloning_protection_threads: usize,
    /// How often forgotten protections of snapshots are looked for; zero: never.
    pub snapshot_orphan_sweep_interval: Duration,
    /// API requests a second, events included.
    pub kube_api_qps: f64,
    /// API requests saved up.
    pub kube_api_burst: u32,
    /// Feature gates by name; `Topology` is on unless it says `false`.
    pub feature_gates: BTreeMap<String, bool>,
    /// A mistake that it is to make. `None`: none.
    pub wrong: Option<Wrong>,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            timeout: Duration::from_secs(10),
            retry_interval_start: Duration::from_secs(1),
            retry_interval_max: Duration::from_secs(300),
            worker_threads: 100,
            volume_name_prefix: "pvc".into(),
            volume_name_uuid_length: -1,
            strict_topology: false,
            immediate_topology: true,
            default_fstype: String::new(),
            extra_create_metadata: false,
            controller_publish_readonly: false,
            prevent_volume_mode_conversion: true,
            enable_capacity: false,
            capacity_poll_interval: Duration::from_secs(60),
            capacity_threads: 1,
            capacity_for_immediate_binding: false,
            cloning_protection_threads: 1,
            snapshot_orphan_sweep_interval: Duration::from_secs(300),
            kube_api_qps: 5.0,
            kube_api_burst: 10,
            feature_gates: BTreeMap::new(),
            wrong: None,
        }
    }
}

/// What cannot be set on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constants {
    /// How long an infeasible claim waits: the library's default, whatever `--retry-interval-max` says.
    pub infeasible_retention: Duration,
    /// DeleteVolume calls for a new volume that is of no use, within one deadline.
    pub cleanup_attempts: u32,
    /// Workers for volumes that could not be saved.
    pub save_workers: usize,
    /// Where the sidecar's pod runs: the namespace of CSIStorageCapacity objects.
    pub namespace: String,
}

impl Default for Constants {
    fn default() -> Constants {
        Constants {
            infeasible_retention: RELEASE.sidecars.infeasible_retention,
            cleanup_attempts: RELEASE.sidecars.cleanup_attempts,
            save_workers: RELEASE.sidecars.save_workers,
            namespace: "kube-system".into(),
        }
    }
}

/// What a sync of the provisioner is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Getting to know the driver.
    Connect,
    /// A claim, by its UID; the name is for people.
    Claim {
        /// The UID.
        uid: Arc<str>,
        /// Namespace and name.
        key: ObjKey,
    },
    /// A volume, by name.
    Volume(Arc<str>),
    /// A new volume that could not be saved, by name.
    Save(Arc<str>),
    /// A claim under deletion that may be the source of clones.
    CloneSource(ObjKey),
    /// Snapshots whose protection was left behind.
    Sweep,
    /// What a class and segment have left.
    Capacity(Item),
    /// A CSIStorageCapacity that nobody wants.
    Obsolete(ObjKey),
    /// The minute's look at every capacity.
    Poll,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Connect => f.write_str("connect"),
            Key::Claim { key, .. } | Key::CloneSource(key) => write!(f, "pvc {key}"),
            Key::Volume(name) | Key::Save(name) => write!(f, "pv {name}"),
            Key::Sweep => f.write_str("snapshots"),
            Key::Capacity(item) => write!(f, "{item}"),
            Key::Obsolete(key) => write!(f, "csisc {key}"),
            Key::Poll => f.write_str("capacities"),
        }
    }
}

/// The indexes that its cache needs.
pub const INDEXES: &[Index] = &[Index::AttachmentsByVolume];

/// external-provisioner for one driver.
pub struct Provisioner {
    flags: Flags,
    constants: Constants,
    dial: Dial,
    clock: Clock,
}

/// A volume whose object could not be created yet, and how its current attempt went.
struct Unsaved {
    volume: Arc<PersistentVolume>,
    saved: Option<Result<(), String>>,
}

impl Unsaved {
    fn new(volume: Arc<PersistentVolume>) -> Unsaved {
        Unsaved { volume, saved: None }
    }
}

/// A claim that is infeasible, and since when.
struct Slow {
    since: Time,
    class_uid: String,
}

/// What the process knows and a crash erases.
#[derive(Default)]
pub struct Memory {
    connection: Connection<Key>,
    started: Time,
    /// Claims whose CreateVolume may still be running, by UID.
    in_progress: BTreeMap<Arc<str>, Arc<PersistentVolumeClaim>>,
    /// Infeasible claims, by UID.
    slow: BTreeMap<Arc<str>, Slow>,
    /// What was asked for in the last attempt, by UID of the claim.
    topology: BTreeMap<Arc<str>, topology::Remembered>,
    attempts: BTreeMap<Arc<str>, attempt::Attempt>,
    deletions: BTreeMap<Arc<str>, delete::Deletion>,
    unsaved: BTreeMap<Arc<str>, Unsaved>,
    released_claims: BTreeMap<ObjKey, Result<(), String>>,
    swept: BTreeSet<ObjKey>,
    capacity: capacity::Books,
}

impl Memory {
    /// Whether a claim has to wait because it is infeasible. Another class counts as another wish.
    fn is_slow(&self, site: &Provisioner, uid: &str, class: &StorageClass, now: Time) -> bool {
        self.slow.get(uid).is_some_and(|slow| {
            slow.class_uid == fields::uid(&class.metadata)
                && now.since(slow.since) < site.constants.infeasible_retention
        })
    }

    fn mark_slow(&mut self, uid: &str, class: &StorageClass, now: Time) {
        let class_uid = fields::uid(&class.metadata).to_owned();
        self.slow.insert(uid.into(), Slow { since: now, class_uid });
    }
}

/// The shells of an external-provisioner process for this driver.
pub fn shells(driver: &str, flags: &Flags) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(Provisioner::new(driver, flags)))]
}

impl Provisioner {
    /// A provisioner with these flags, the usual constants and the usual clock.
    pub fn new(driver: &str, flags: &Flags) -> Provisioner {
        Provisioner {
            dial: Dial::new(driver, flags.timeout, controller_plan),
            flags: flags.clone(),
            constants: Constants::default(),
            clock: Clock::EPOCH,
        }
    }

    /// With other constants.
    #[must_use]
    pub fn with_constants(mut self, constants: Constants) -> Provisioner {
        self.constants = constants;
        self
    }

    /// With another wall clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Provisioner {
        self.clock = clock;
        self
    }

    /// What new volumes carry as `csiProvisionerIdentity`: another one after every start.
    fn identity(&self, started: Time, driver: &str) -> String {
        let milliseconds = self.clock.unix_nanos(started) / 1_000_000;
        let number = topology::fnv32(&format!("{milliseconds}{driver}")) % 10_000;
        format!("{milliseconds}-{number}-{driver}")
    }

    fn limiter(&self) -> Limiter {
        let mut cap = self.flags.retry_interval_max;
        if self.flags.wrong == Some(Wrong::NoBackOff) {
            cap = Duration::from_millis(10);
        }
        Limiter::Exponential {
            base: self.flags.retry_interval_start.min(cap),
            cap,
        }
    }

    fn decide_save(&self, cache: &Cache, memory: &Memory, name: &str) -> Effect {
        let Some(unsaved) = memory.unsaved.get(name) else {
            return Effect::Rest;
        };
        match &unsaved.saved {
            None => Effect::write(Write::Create(PersistentVolume::into_object(Arc::clone(
                &unsaved.volume,
            )))),
            Some(Ok(())) => claim::success(cache, &unsaved.volume).map_or(Effect::Rest, Effect::Record),
            Some(Err(message)) => Effect::Retry(message.clone().into()),
        }
    }
}

fn learn_save(memory: &mut Memory, name: &str, effect: &Effect, outcome: &Outcome) {
    if matches!(effect, Effect::Record(_)) {
        memory.unsaved.remove(name);
        return;
    }
    let result = match outcome.written() {
        Err(error) if !error.is_already_exists() => Err(format!("error saving volume {name}: {error}")),
        _ => Ok(()),
    };
    let unsaved = memory.unsaved.get_mut(name).expect("a volume is saved until it is");
    unsaved.saved = Some(result);
}

/// The save of a volume ended: it is forgotten, or tried again.
fn ended_save(memory: &mut Memory, name: &str) {
    if memory
        .unsaved
        .get(name)
        .is_some_and(|u| matches!(u.saved, Some(Ok(()))))
    {
        memory.unsaved.remove(name);
    } else if let Some(unsaved) = memory.unsaved.get_mut(name) {
        unsaved.saved = None;
    }
}

impl Controller for Provisioner {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "csi-provisioner"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[
            Kind::PersistentVolumeClaim,
            Kind::PersistentVolume,
            Kind::StorageClass,
            Kind::Node,
            Kind::CSINode,
            Kind::VolumeAttachment,
            Kind::VolumeSnapshot,
            Kind::CSIStorageCapacity,
        ]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: self.limiter(),
        };
        vec![
            lane("connect", 1),
            lane("claims", self.flags.worker_threads),
            lane("volumes", self.flags.worker_threads),
            LaneSpec {
                name: "unsavedpvs",
                workers: self.constants.save_workers,
                limiter: Limiter::Controller,
            },
            lane("cloning-protection", self.flags.cloning_protection_threads),
            lane("snapshot-sweep", 1),
            lane("csistoragecapacity", self.flags.capacity_threads),
            lane("capacity-poll", 1),
        ]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Connect => 0,
            Key::Claim { .. } => 1,
            Key::Volume(_) => 2,
            Key::Save(_) => 3,
            Key::CloneSource(_) => 4,
            Key::Sweep => 5,
            Key::Capacity(_) | Key::Obsolete(_) => 6,
            Key::Poll => 7,
        }
    }

    fn start(&self, _: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<Key>) {
        memory.started = now;
        memory.connection.begin(now);
        queue.add(Key::Connect);
        if !self.flags.snapshot_orphan_sweep_interval.is_zero() {
            queue.add(Key::Sweep);
        }
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<Key>) {
        if let Some((_, claim)) = delta.of::<PersistentVolumeClaim>() {
            // A deletion queues nothing: whoever is in progress is queued anyway.
            let Some(claim) = claim else { return };
            queue.add(Key::Claim {
                uid: Arc::from(fields::uid(&claim.metadata)),
                key: claim.key(),
            });
            if fields::is_deleting(&claim.metadata) {
                queue.add(Key::CloneSource(claim.key()));
            }
        } else if let Some((old, volume)) = delta.of::<PersistentVolume>() {
            match (old, volume) {
                (_, Some(volume)) => queue.add(Key::Volume(volume.key().name)),
                (Some(old), None) => queue.forget(Key::Volume(old.key().name)),
                (None, None) => {}
            }
        } else if let Some((_, snapshot)) = delta.of::<VolumeSnapshot>() {
            let sweeps = !self.flags.snapshot_orphan_sweep_interval.is_zero();
            let protected =
                |s: &&Arc<VolumeSnapshot>| fields::has_finalizer(&s.metadata, names::VOLUME_SNAPSHOT_RESTORE);
            if sweeps && memory.connection.is_ready() && snapshot.filter(protected).is_some() {
                queue.add_at(Key::Sweep, self.next_sweep(memory, now));
            }
        } else {
            capacity::notice(self, memory, cache, delta, queue);
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
            Key::Claim { uid, key } => claim::decide(self, cache, memory, (key, uid), now),
            Key::Volume(name) => delete::decide(self, cache, memory, name),
            Key::Save(name) => self.decide_save(cache, memory, name),
            Key::CloneSource(key) => protect::decide_claim(cache, memory, key),
            Key::Sweep => protect::decide_sweep(self, cache, memory, now),
            Key::Capacity(item) => capacity::decide_item(self, cache, memory, item),
            Key::Obsolete(key) => capacity::decide_obsolete(memory, key),
            Key::Poll => capacity::decide_poll(memory, now),
        }
    }

    fn learn(&self, memory: &mut Memory, key: &Key, effect: &Effect, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        if let Key::Connect = key {
            self.dial
                .learn(&mut memory.connection, effect, outcome, then.now, then.queue);
            if let Effect::Note(_) = effect {
                capacity::prepare(self, memory, then.cache, then.now, then.queue);
            }
            return;
        }
        memory.connection.heed(outcome);
        match key {
            Key::Connect => unreachable!("learnt above"),
            Key::Claim { uid, key } => claim::learn(self, memory, (key, uid), effect, outcome, then),
            Key::Volume(name) => delete::learn(self, memory, name, (effect, outcome), then),
            Key::Save(name) => learn_save(memory, name, effect, outcome),
            Key::CloneSource(key) => protect::learn_claim(memory, key, outcome),
            Key::Sweep => protect::learn_sweep(memory, effect),
            Key::Capacity(item) => capacity::learn_item(self, memory, item, outcome),
            Key::Obsolete(key) => capacity::learn_obsolete(memory, key, outcome),
            Key::Poll => capacity::learn_poll(self, memory, then),
        }
    }

    fn ended(&self, memory: &mut Memory, key: &Key, effect: &Effect) {
        if !memory.connection.is_ready() {
            if *key != Key::Connect {
                memory.connection.ended(key.clone());
            }
            return;
        }
        match key {
            Key::Connect | Key::Poll => {}
            Key::Claim { uid, .. } => claim::ended(memory, uid, effect),
            Key::Volume(name) => {
                memory.deletions.remove(name);
            }
            Key::Save(name) => ended_save(memory, name),
            Key::CloneSource(key) => {
                memory.released_claims.remove(key);
            }
            Key::Sweep => memory.swept.clear(),
            Key::Capacity(_) | Key::Obsolete(_) => capacity::ended(memory, key),
        }
    }
}
