//! What a reconcile pass wants, attachment by attachment: pure questions about memory and informers.
//!
//! | not wanted, and … | then |
//! |---|---|
//! | an operation is under way | nothing: its end brings another pass |
//! | the last detach failed a moment ago | wait for its back-off |
//! | the node uses it | wait for the node to say otherwise; an unhealthy node for 6 min, a node tainted out-of-service not at all |
//! | else | take it out of the node's `volumesAttached`, then detach |
//!
//! After the 6 min the last look at the node is dropped too, even on a healthy one, which must still not use the volume (fact sheet 4.3).

use std::ops::Bound;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::api::{Cache, EventRecord, fields, names};
use crate::mutants::Wrong;
use crate::runtime::Time;

use super::actual::Attachment;
use super::desired::{Place, Wanted, is_multi_attach_allowed};
use super::operations::{OperationKey, OperationKind};
use super::{AttachDetach, Memory};

/// Everything a decision looks at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub settings: &'a AttachDetach,
    pub cache: &'a Cache,
    pub memory: &'a Memory,
    pub now: Time,
}

/// Whether an attachment that nobody wants can be detached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Yes; with a last look at the node, or without.
    Now { verify: bool },
    /// No; look again at this moment, or when something happens.
    Later(Option<Time>),
}

/// Whether a wanted volume must be attached.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Join {
    /// It is attached.
    Settled,
    /// Attach it.
    Now,
    /// Another node has it: the pods are to be told so.
    Blocked(Vec<EventRecord>),
    /// Not now; look again at this moment, or when something happens.
    Later(Option<Time>),
}

impl View<'_> {
    /// The key of a detach operation.
    pub fn leave_key(&self, place: &Place) -> OperationKey {
        let spec = self.memory.actual.spec(&place.volume);
        OperationKey::of(place, is_multi_attach_allowed(spec.map(Arc::as_ref)))
    }

    /// Can this unwanted attachment be detached?
    pub fn leave(&self, place: &Place, attachment: &Attachment) -> Leave {
        let (operations, now) = (&self.memory.operations, self.now);
        let key = self.leave_key(place);
        if operations.is_pending(&key) {
            return Leave::Later(None);
        }
        if !operations.is_safe_to_retry(&key, OperationKind::Detach, now) {
            return Leave::Later(operations.waits_until(&key, OperationKind::Detach).map(just_after));
        }
        let node = self.cache.named::<Node>(&place.node);
        let healthy = node.is_some_and(|n| fields::is_node_ready(n));
        let out_of_service = node.is_some_and(|n| fields::has_taint(n, names::TAINT_OUT_OF_SERVICE));
        let force_at = self.force_at(attachment);
        let forced = force_at.is_some_and(|at| at <= now);
        let hasty = self.settings.flags.wrong == Some(Wrong::DetachesInUse);
        let patient = (healthy || !forced) && !out_of_service && !hasty;
        if patient && self.uses(place, healthy) {
            return Leave::Later(if healthy { self.assumed_until(place) } else { force_at });
        }
        Leave::Now {
            verify: !forced && !out_of_service && !hasty,
        }
    }

    fn force_at(&self, attachment: &Attachment) -> Option<Time> {
        let since = attachment.detach_requested.unwrap_or(self.now);
        let allowed = !self.settings.flags.disable_force_detach_on_timeout;
        allowed.then(|| since + self.settings.constants.max_wait_for_unmount)
    }

    fn uses(&self, place: &Place, healthy: bool) -> bool {
        let expired = healthy && self.assumed_until(place).is_some_and(|until| until <= self.now);
        self.memory.actual.is_in_use(place) && !expired
    }

    fn assumed_until(&self, place: &Place) -> Option<Time> {
        let report = self.settings.constants.node_status_report_frequency;
        self.memory.actual.assumed_until(place, report)
    }

    /// The first attachment after `after` that can be detached now.
    pub fn next_leave(&self, after: Option<&Place>) -> Option<(Place, bool)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.memory.unwanted.range((from, Bound::Unbounded));
        let rest = rest.filter_map(|place| Some((place, self.memory.actual.get(place)?)));
        rest.filter_map(|(place, attachment)| match self.leave(place, attachment) {
            Leave::Now { verify } => Some((place.clone(), verify)),
            Leave::Later(_) => None,
        })
        .next()
    }

    /// The attachments that nobody wants.
    pub fn unwanted(&self) -> impl Iterator<Item = (&Place, &Attachment)> {
        let memory = self.memory;
        let places = memory.unwanted.iter();
        places.filter_map(|place| Some((place, memory.actual.get(place)?)))
    }

    /// Must this wanted volume be attached?
    pub fn join(&self, place: &Place, wanted: &Wanted) -> Join {
        let (operations, actual) = (&self.memory.operations, &self.memory.actual);
        let key = OperationKey::of(place, wanted.spec.multi_attach);
        if operations.is_pending(&key) {
            return Join::Later(None);
        }
        if actual.is_attached(place) {
            return Join::Settled;
        }
        if !wanted.spec.multi_attach && self.settings.flags.wrong != Some(Wrong::AttachesTwice) {
            let nodes = actual.attached_nodes(&place.volume);
            if !nodes.is_empty() {
                return Join::Blocked(self.multi_attach(place, wanted, &nodes));
            }
        }
        if !operations.is_safe_to_retry(&key, OperationKind::Attach, self.now) {
            return Join::Later(operations.waits_until(&key, OperationKind::Attach).map(just_after));
        }
        Join::Now
    }

    /// What the waiting pods are told. Each hears the names of those pods only that live in its own namespace.
    fn multi_attach(&self, place: &Place, wanted: &Wanted, nodes: &[Arc<str>]) -> Vec<EventRecord> {
        if wanted.multi_attach_told {
            return Vec::new();
        }
        let others: Vec<Arc<str>> = nodes.iter().filter(|n| **n != place.node).cloned().collect();
        let users = self.memory.desired.pods_on(&place.volume, &others);
        let told = wanted.pods.values().map(|pod| {
            let here = users.iter().filter(|u| u.key.namespace == pod.key.namespace);
            let here: Vec<&str> = here.map(|u| &*u.key.name).collect();
            let elsewhere = users.len() - here.len();
            let why = match (here.is_empty(), elsewhere) {
                (true, 0) => {
                    "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
                }
                (true, n) => format!("Volume is already used by {n} pod(s) in different namespaces"),
                (false, 0) => format!("Volume is already used by pod(s) {}", here.join(", ")),
                (false, n) => format!(
                    "Volume is already used by pod(s) {} and {n} pod(s) in different namespaces",
                    here.join(", ")
                ),
            };
            let message = format!("Multi-Attach error for volume \"{}\" {why}", wanted.spec.pv);
            pod.event(true, "FailedAttachVolume", message)
        });
        told.collect()
    }

    /// When a pass would find something to do that no event announces.
    pub fn next_due(&self) -> Option<Time> {
        let leaving = self.unwanted().filter_map(|(p, a)| match self.leave(p, a) {
            Leave::Now { .. } => Some(self.now),
            Leave::Later(at) => at,
        });
        let open = self.memory.open.iter();
        let open = open.filter_map(|place| Some((place, self.memory.desired.get(place)?)));
        let joining = open.filter_map(|(p, w)| match self.join(p, w) {
            Join::Now => Some(self.now),
            Join::Later(at) => at,
            Join::Settled | Join::Blocked(_) => None,
        });
        let untold = self.memory.actual.untold();
        let untold = untold.filter(|node| self.cache.named::<Node>(node).is_some());
        let times = leaving.chain(joining).chain(untold.map(|_| self.now));
        times.chain(self.memory.verify_at).min()
    }
}

fn just_after(at: Time) -> Time {
    Time(at.0.saturating_add(1))
}
