//! What the scheduler remembers: what it assumes until the informers catch up, and who waits for what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};

use super::Flags;
use super::binding::Cycle;
use super::filter::Verdict;
use crate::api::{Cache, Delta, Index, Kind, ObjKey, Object, exponential, fields, version};
use crate::release::RELEASE;
use crate::runtime::Time;

/// What a crash of the scheduler erases.
#[derive(Default)]
pub struct Memory {
    pub(super) cycles: BTreeMap<ObjKey, Cycle>,
    /// Claims with the annotation that the scheduler has written or will write.
    pub(super) assumed_claims: BTreeMap<ObjKey, PersistentVolumeClaim>,
    /// Volumes with the claim reference that the scheduler has written or will write.
    pub(super) assumed_volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// The nodes, and the pods on each.
    pub(super) nodes: BTreeMap<Arc<str>, Seat>,
    assumed: BTreeMap<ObjKey, Arc<str>>,
    waiting: BTreeMap<ObjKey, Waiting>,
    /// The pod whose turn it is has been tried.
    pub(super) tried: bool,
    /// The attempt has taken its time.
    pub(super) rested: bool,
}

/// A node as the scheduler sees it.
#[derive(Default)]
pub(super) struct Seat {
    /// The node; `None` for one that pods name and no informer has shown.
    pub node: Option<Arc<Node>>,
    /// The pods on it, assumed ones included, terminated ones not.
    pub pods: BTreeSet<ObjKey>,
}

/// A pod that could not be placed.
#[derive(Debug)]
struct Waiting {
    uid: String,
    triggers: BTreeSet<Trigger>,
    attempts: u32,
    /// After an error the pod is not tried before this.
    not_before: Option<Time>,
}

/// What may help a pod that fits nowhere (the queueing hints of the plugins that refused it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trigger {
    /// One of its own claims changed.
    Claim,
    /// A volume, class or published capacity changed.
    Storage,
    /// A node appeared or changed.
    Node,
    /// A driver registered or changed its limit.
    CsiNode,
    /// A pod ended or is gone.
    PodGone,
    /// An attachment is gone.
    Detached,
}

impl Memory {
    /// Keeps the books of who is where.
    pub(super) fn pod_changed(&mut self, old: Option<&Pod>, new: Option<&Pod>) {
        let Some(pod) = new.or(old) else { return };
        let key = ObjKey::of(&pod.metadata);
        let node = fields::pod_node(pod);
        if new.is_some_and(|p| !fields::is_terminated(p)) && !node.is_empty() {
            self.assumed.remove(&key);
            self.waiting.remove(&key);
            self.nodes.entry(node.into()).or_default().pods.insert(key);
            return;
        }
        if !node.is_empty()
            && let Some(seat) = self.nodes.get_mut(node)
        {
            seat.pods.remove(&key);
        }
        if new.is_none() {
            self.waiting.remove(&key);
            self.unassume_pod(&key);
        }
    }

    /// Keeps the books of which nodes there are.
    pub(super) fn node_changed(&mut self, name: &Arc<str>, node: Option<Arc<Node>>) {
        let gone = node.is_none();
        let seat = self.nodes.entry(Arc::clone(name)).or_default();
        seat.node = node;
        if gone && seat.pods.is_empty() {
            self.nodes.remove(name);
        }
    }

    /// Whether a pod has not been tried yet.
    pub(super) fn is_new(&self, key: &ObjKey, uid: &str) -> bool {
        self.waiting.get(key).is_none_or(|w| w.uid != uid) && !self.assumed.contains_key(key)
    }

    /// The node that a pod is assumed to be on.
    pub(super) fn assumed_node(&self, key: &ObjKey) -> Option<&Arc<str>> {
        self.assumed.get(key)
    }

    /// Until when a pod must not be tried after an error.
    pub(super) fn released_at(&self, key: &ObjKey, now: Time) -> Option<Time> {
        self.waiting.get(key)?.not_before.filter(|at| *at > now)
    }

    /// The informer has an object that is as new as the assumption about it.
    pub(super) fn forget_assumed(&mut self, object: &Object) {
        match object {
            Object::PersistentVolumeClaim(claim) => {
                let key = object.key();
                if self
                    .assumed_claims
                    .get(&key)
                    .is_some_and(|a| version(&a.metadata) < version(&claim.metadata))
                {
                    self.assumed_claims.remove(&key);
                }
            }
            Object::PersistentVolume(volume) => {
                let name = fields::name(&volume.metadata);
                if self
                    .assumed_volumes
                    .get(name)
                    .is_some_and(|a| version(&a.metadata) < version(&volume.metadata))
                {
                    self.assumed_volumes.remove(name);
                }
            }
            _ => {}
        }
    }

    /// The waiting pods that an event may help.
    pub(super) fn helped_by(&self, cache: &Cache, delta: &Delta) -> Vec<ObjKey> {
        if self.waiting.is_empty() || delta.resync {
            return Vec::new();
        }
        let trigger = match delta.object() {
            Object::PersistentVolumeClaim(_) => {
                let pods = cache.keys_by(Index::PodsByClaim, &delta.object().key().to_string());
                return pods
                    .filter(|pod| self.waits_for(pod, Trigger::Claim))
                    .cloned()
                    .collect();
            }
            Object::Pod(pod) if delta.new.is_none() || fields::is_terminated(pod) => Trigger::PodGone,
            Object::Node(_) => Trigger::Node,
            Object::CSINode(_) => Trigger::CsiNode,
            Object::VolumeAttachment(_) if delta.new.is_none() => Trigger::Detached,
            other => match other.kind() {
                Kind::PersistentVolume | Kind::StorageClass | Kind::CSIStorageCapacity | Kind::CSIDriver => {
                    Trigger::Storage
                }
                _ => return Vec::new(),
            },
        };
        self.waiting
            .iter()
            .filter(|(_, w)| w.triggers.contains(&trigger))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Whether a pod fits nowhere and waits for an event.
    pub(super) fn waits(&self, key: &ObjKey) -> bool {
        self.waiting.contains_key(key)
    }

    fn waits_for(&self, key: &ObjKey, trigger: Trigger) -> bool {
        self.waiting.get(key).is_some_and(|w| w.triggers.contains(&trigger))
    }

    /// A scheduling cycle has its verdict: assumes the pod on its node, or lets it wait.
    pub(super) fn begin(&mut self, key: &ObjKey, pod: &Pod, verdict: Verdict) {
        let uid = fields::uid(&pod.metadata).to_owned();
        let cycle = match verdict {
            Verdict::Fits { node, plan } => {
                self.assumed.insert(key.clone(), Arc::clone(&node));
                self.nodes
                    .entry(Arc::clone(&node))
                    .or_default()
                    .pods
                    .insert(key.clone());
                for volume in &plan.volumes {
                    self.assumed_volumes
                        .insert(fields::name(&volume.metadata).into(), Arc::new(volume.clone()));
                }
                for claim in &plan.claims {
                    self.assumed_claims.insert(ObjKey::of(&claim.metadata), claim.clone());
                }
                Cycle::found(uid, node, plan)
            }
            Verdict::Fails { message, triggers } => {
                self.wait(key, &uid, triggers, None);
                Cycle::failed(uid, message)
            }
        };
        self.cycles.insert(key.clone(), cycle);
    }

    fn wait(&mut self, key: &ObjKey, uid: &str, triggers: BTreeSet<Trigger>, not_before: Option<Time>) {
        let attempts = self.waiting.get(key).filter(|w| w.uid == uid).map_or(0, |w| w.attempts) + 1;
        let waiting = Waiting {
            uid: uid.to_owned(),
            triggers,
            attempts,
            not_before,
        };
        self.waiting.insert(key.clone(), waiting);
    }

    /// The binding cycle failed: nothing is assumed any more, and the pod is tried again after its back-off (1 s doubling to 10 s by default, flushed at whole seconds).
    pub(super) fn back_off(&mut self, flags: &Flags, key: &ObjKey, now: Time) -> Time {
        let Some(cycle) = self.cycles.get(key) else { return now };
        let uid = cycle.uid.clone();
        let (volumes, claims) = cycle.assumed();
        for name in volumes {
            self.assumed_volumes.remove(&name);
        }
        for claim in claims {
            self.assumed_claims.remove(&claim);
        }
        self.unassume_pod(key);
        self.wait(key, &uid, BTreeSet::new(), None);
        let waiting = self.waiting.get_mut(key).expect("it was inserted just now");
        let delay = exponential(flags.pod_initial_backoff, flags.pod_max_backoff, waiting.attempts - 1);
        let at = (now + delay).tick(Time::ZERO, RELEASE.scheduler.backoff_flush);
        waiting.not_before = Some(at);
        at
    }

    fn unassume_pod(&mut self, key: &ObjKey) {
        if let Some(node) = self.assumed.remove(key)
            && let Some(seat) = self.nodes.get_mut(&node)
        {
            seat.pods.remove(key);
        }
    }
}
