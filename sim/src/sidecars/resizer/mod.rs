//! external-resizer: expands the volumes of one driver and changes their attributes.
//!
//! Two controllers in one process, each with its queue and ten workers: `expand` and `modify`. What they write into a claim's status is in `status`.
//!
//! Which resizer it is, is decided at the start (fact sheet 7.2): a driver that expands in its controller is asked to; one that expands only on the node gets a trivial
//! resizer, which raises the volume object and leaves the rest to kubelet; one that does neither must at least modify, or the process exits.
//!
//! *Blind spots.* Leader election; migration from in-tree plugins; claims in a cluster without the VolumeAttributesClass API (use the feature gate).

mod expand;
mod modify;
mod status;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::api::{self, Cache, Clock, Delta, Index, Limiter, ObjKey, Resource, fields, names};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::link::CsiReply;
use crate::mutants::Wrong;
use crate::runtime::Time;
use crate::sidecars::connect::{Connection, ControllerRpc, Dial, Discovered, Next, NodeRpc, PluginService, Question};

/// The command line of external-resizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// Deadline of every CSI call.
    pub timeout: Duration,
    /// Claims worked on at once, in each of the two controllers.
    pub workers: usize,
    /// First wait after a failure; it doubles.
    pub retry_interval_start: Duration,
    /// Longest wait after a failure, and how long an infeasible claim waits.
    pub retry_interval_max: Duration,
    /// A driver that refused because the volume is in use is not asked again while pods use it.
    pub handle_volume_inuse_error: bool,
    /// Names of claim and volume go along as parameters of a modification.
    pub extra_modify_metadata: bool,
    /// API requests a second, events included.
    pub kube_api_qps: f64,
    /// API requests saved up.
    pub kube_api_burst: u32,
    /// Feature gates by name; `VolumeAttributesClass` is on unless it says `false`.
    pub feature_gates: BTreeMap<String, bool>,
    /// A mistake that it is to make. `None`: none.
    pub wrong: Option<Wrong>,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            timeout: Duration::from_secs(10),
            workers: 10,
            retry_interval_start: Duration::from_secs(1),
            retry_interval_max: Duration::from_secs(300),
            handle_volume_inuse_error: true,
            extra_modify_metadata: false,
            kube_api_qps: 5.0,
            kube_api_burst: 10,
            feature_gates: BTreeMap::new(),
            wrong: None,
        }
    }
}

/// How volumes of a driver grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// ControllerExpandVolume.
    Csi,
    /// Only on the node.
    Trivial,
    /// Not at all.
    None,
}

impl Kind {
    fn of(discovered: &Discovered) -> Kind {
        if discovered.controller(ControllerRpc::ExpandVolume) {
            Kind::Csi
        } else if discovered.node(NodeRpc::ExpandVolume) {
            Kind::Trivial
        } else {
            Kind::None
        }
    }
}

/// Traces 18d, 19, 22: ControllerGetCapabilities once for each of three questions; NodeGetCapabilities instead of the second when the controller does not expand.
fn plan(answered: &[Question], discovered: &Discovered) -> Next {
    match answered.len() {
        0 => Next::Ask(Question::Probe),
        1 => Next::Ask(Question::PluginInfo),
        2 => Next::Ask(Question::PluginCapabilities),
        3 if !discovered.plugin(PluginService::ControllerService) => {
            Next::Exit("CSI driver does not support controller service".into())
        }
        3 | 5 => Next::Ask(Question::ControllerCapabilities),
        4 if Kind::of(discovered) == Kind::Csi => Next::Ask(Question::ControllerCapabilities),
        4 => Next::Ask(Question::NodeCapabilities),
        _ if Kind::of(discovered) == Kind::None && !discovered.controller(ControllerRpc::ModifyVolume) => {
            Next::Exit("CSI driver does not support resize nor modify".into())
        }
        _ => Next::Ready,
    }
}

/// Whether an answer to ControllerGetCapabilities names SINGLE_NODE_MULTI_WRITER.
fn has_multi_writer(reply: &CsiReply) -> bool {
    use wavetank_proto::csi::v1::controller_service_capability::Type;
    let CsiReply::ControllerGetCapabilities(reply) = reply else {
        unreachable!("ControllerGetCapabilities is not answered by {}", reply.message_name())
    };
    let mut rpcs = reply.capabilities.iter().filter_map(|c| c.r#type);
    rpcs.any(|Type::Rpc(rpc)| rpc.r#type == ControllerRpc::SingleNodeMultiWriter as i32)
}

/// What a sync of the resizer is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Getting to know the driver.
    Connect,
    /// The size of a claim.
    Resize(ObjKey),
    /// The attributes of a claim.
    Modify(ObjKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Connect => f.write_str("connect"),
            Key::Resize(key) | Key::Modify(key) => write!(f, "pvc {key}"),
        }
    }
}

/// The indexes that its cache needs.
pub const INDEXES: &[Index] = &[Index::PodsByClaim];

/// external-resizer for one driver.
pub struct Resizer {
    flags: Flags,
    dial: Dial,
    clock: Clock,
}

/// What the process knows and a crash erases.
#[derive(Default)]
pub struct Memory {
    connection: Connection<Key>,
    /// Claims whose last expansion failed finally.
    final_errors: BTreeSet<ObjKey>,
    /// Claims whose expansion is infeasible, since when.
    slow: BTreeMap<ObjKey, Time>,
    /// UIDs of claims whose driver refused because they were in use.
    in_use_errors: BTreeSet<String>,
    /// Claims whose modification may still be running.
    uncertain: BTreeSet<ObjKey>,
    /// Claims whose modification is infeasible, since when.
    modify_slow: BTreeMap<ObjKey, Time>,
    expansions: BTreeMap<ObjKey, expand::Expansion>,
    modifications: BTreeMap<ObjKey, modify::Modification>,
}

impl Memory {
    /// Adding never prolongs: an entry counts from when it was made.
    fn mark_slow(&mut self, key: &ObjKey, retention: Duration, now: Time) {
        let since = self.slow.entry(key.clone()).or_insert(now);
        if now.since(*since) >= retention {
            *since = now;
        }
    }
}

/// The shells of an external-resizer process for this driver.
pub fn shells(driver: &str, flags: &Flags) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(Resizer::new(driver, flags)))]
}

impl Resizer {
    /// A resizer with these flags and the usual clock.
    pub fn new(driver: &str, flags: &Flags) -> Resizer {
        Resizer {
            dial: Dial::new(driver, flags.timeout, plan),
            flags: flags.clone(),
            clock: Clock::EPOCH,
        }
    }

    /// With another wall clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Resizer {
        self.clock = clock;
        self
    }
}

/// Whether a change of a claim is one that its expansion waits for. An own write, put into the store, comes back as a resync.
fn wakes_expansion(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim, resync: bool) -> bool {
    let resizer = |claim: &PersistentVolumeClaim| {
        fields::annotation(&claim.metadata, names::STORAGE_RESIZER)
            .unwrap_or_default()
            .to_owned()
    };
    resync
        || fields::claim_request(old) != fields::claim_request(new)
        || resizer(old) != resizer(new)
        || fields::claim_capacity(new) > fields::claim_capacity(old)
        || fields::claim_resize_status(old) != fields::claim_resize_status(new)
}

impl Controller for Resizer {
    type Key = Key;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "csi-resizer"
    }

    fn kinds(&self) -> &'static [api::Kind] {
        &[
            api::Kind::PersistentVolumeClaim,
            api::Kind::PersistentVolume,
            api::Kind::Pod,
            api::Kind::VolumeAttributesClass,
        ]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let limiter = || Limiter::Exponential {
            base: self.flags.retry_interval_start,
            cap: self.flags.retry_interval_max,
        };
        let lane = |name, workers| LaneSpec {
            name,
            workers,
            limiter: limiter(),
        };
        vec![
            lane("connect", 1),
            lane("resize", self.flags.workers),
            lane("modify", self.flags.workers),
        ]
    }

    fn lane(&self, key: &Key) -> usize {
        match key {
            Key::Connect => 0,
            Key::Resize(_) => 1,
            Key::Modify(_) => 2,
        }
    }

    fn start(&self, cache: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<Key>) {
        memory.connection.begin(now);
        let claims = cache.list::<PersistentVolumeClaim>();
        memory.uncertain = claims.filter(|c| modify::is_in_progress(c)).map(|c| c.key()).collect();
        queue.add(Key::Connect);
    }

    fn notice(&self, cache: &Cache, _: &mut Memory, delta: &Delta, _: Time, queue: &mut Requests<Key>) {
        match delta.of::<PersistentVolumeClaim>() {
            Some((None, Some(new))) => {
                queue.add(Key::Resize(new.key()));
                queue.add(Key::Modify(new.key()));
            }
            Some((Some(old), Some(new))) => {
                if wakes_expansion(old, new, delta.resync) {
                    queue.add(Key::Resize(new.key()));
                }
                if modify::wakes(cache, old, new) {
                    queue.add(Key::Modify(new.key()));
                }
            }
            Some((Some(old), None)) => {
                queue.forget(Key::Resize(old.key()));
                queue.forget(Key::Modify(old.key()));
            }
            Some((None, None)) | None => {}
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
            Key::Resize(key) => expand::decide(self, cache, memory, key, now),
            Key::Modify(key) => modify::decide(self, cache, memory, key, now),
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
            Key::Resize(key) => expand::learn(self, memory, key, effect, outcome, then),
            Key::Modify(key) => modify::learn(self, memory, key, effect, outcome, then),
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
            Key::Connect => {}
            Key::Resize(key) => {
                memory.expansions.remove(key);
            }
            Key::Modify(key) => {
                memory.modifications.remove(key);
            }
        }
    }
}
