//! *Promise*: what the cluster asks of a driver is legal under CSI: required fields are there, contexts are handed on as they were given, nothing is asked
//! that the driver does not offer, and no two calls of one caller for one volume are under way at once.
//!
//! *Why*: this oracle judges the tank itself. A model that breaks the rules finds bugs that are none.
//!
//! *Source*: CSI v1.12: the request messages ("This field is REQUIRED"), "Concurrency"; `k8s-storage-facts.md` §6.6 for which operations kubelet runs at once.
//!
//! *Mutant*: `drops-publish-context` (H278); the unit test has a call without its fields.

use std::collections::BTreeMap;

use wavetank_proto::csi::v1 as csi;

use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::link::{Call, CsiReply, CsiRequest};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "csi-by-the-cluster",
    says: "what the cluster asks of a driver is legal under CSI",
    season: Season::Safety,
    source: "CSI v1.12: request messages, Concurrency",
};

type Context = BTreeMap<String, String>;

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct CsiByTheCluster {
    /// The context that CreateVolume gave, by driver and handle.
    volumes: BTreeMap<(String, String), Context>,
    /// The context that ControllerPublishVolume gave, by driver, handle and node.
    published: BTreeMap<(String, String, String), Context>,
}

impl Oracle for CsiByTheCluster {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        match &record.what {
            What::Call { call, .. } => {
                let wrong = missing(&call.request)
                    .map(|field| format!("lacks {field}"))
                    .or_else(|| self.contexts(&record.process, call, view))
                    .or_else(|| not_offered(call, view))
                    .or_else(|| twice(&record.process, call, view));
                let Some(wrong) = wrong else { return };
                let handle = call.request.volume_id().unwrap_or_default();
                let volume = view.volume(handle);
                let text = format!("{} of {volume} by {} {wrong}", call.request.method(), record.process);
                let party = if record.process.starts_with("kubelet") {
                    Party::Kubernetes
                } else {
                    Party::Sidecar
                };
                let blame = (party, "CSI v1.12: the description of this request");
                found.push(view.broken(&PROMISE, blame, text, vec![volume, record.process.to_string()]));
            }
            What::Reply {
                call,
                result: Ok(reply),
                ..
            } => self.learn(&record.process, call, reply, view),
            _ => {}
        }
    }
}

impl CsiByTheCluster {
    fn learn(&mut self, process: &str, call: &Call, reply: &CsiReply, view: &View<'_>) {
        match (&call.request, reply) {
            (_, CsiReply::CreateVolume(reply)) => {
                if let Some(volume) = &reply.volume {
                    let key = (call.driver.to_string(), volume.volume_id.clone());
                    self.volumes.insert(key, volume.volume_context.clone());
                }
            }
            (CsiRequest::ControllerPublishVolume(request), CsiReply::ControllerPublishVolume(reply)) => {
                if let Some(node) = view.facts.node_of_call(process, call) {
                    let key = (call.driver.to_string(), request.volume_id.clone(), node);
                    self.published.insert(key, reply.publish_context.clone());
                }
            }
            _ => {}
        }
    }

    /// Contexts are handed on as they were given; kubelet adds keys of its own to a volume's.
    fn contexts(&self, process: &str, call: &Call, view: &View<'_>) -> Option<String> {
        let (volume_context, publish_context) = match &call.request {
            CsiRequest::ControllerPublishVolume(r) => (&r.volume_context, None),
            CsiRequest::NodeStageVolume(r) => (&r.volume_context, Some(&r.publish_context)),
            CsiRequest::NodePublishVolume(r) => (&r.volume_context, Some(&r.publish_context)),
            _ => return None,
        };
        let handle = call.request.volume_id()?.to_owned();
        let given = self.volumes.get(&(call.driver.to_string(), handle.clone()));
        if given.is_some_and(|given| given.iter().any(|(key, value)| volume_context.get(key) != Some(value))) {
            return Some("does not hand on the volume_context that CreateVolume gave".to_owned());
        }
        let node = view.facts.node_of_call(process, call)?;
        let given = self.published.get(&(call.driver.to_string(), handle, node));
        match (given, publish_context) {
            (Some(given), Some(handed)) if given != handed => {
                Some("does not hand on the publish_context that ControllerPublishVolume gave".to_owned())
            }
            _ => None,
        }
    }
}

/// A required field that a request lacks.
fn missing(request: &CsiRequest) -> Option<&'static str> {
    let capability = |capability: &Option<csi::VolumeCapability>| {
        let capability = capability.as_ref();
        capability.is_some_and(|capability| capability.access_mode.is_some() && capability.access_type.is_some())
    };
    let fields: &[(bool, &'static str)] = match request {
        CsiRequest::CreateVolume(r) => &[
            (!r.name.is_empty(), "name"),
            (
                !r.volume_capabilities.is_empty() && r.volume_capabilities.iter().all(|c| capability(&Some(c.clone()))),
                "volume_capabilities",
            ),
            (is_range(r.capacity_range.as_ref()), "a possible capacity_range"),
        ],
        CsiRequest::DeleteVolume(r) => &[(!r.volume_id.is_empty(), "volume_id")],
        CsiRequest::ControllerPublishVolume(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (!r.node_id.is_empty(), "node_id"),
            (capability(&r.volume_capability), "volume_capability"),
        ],
        CsiRequest::ControllerUnpublishVolume(r) => &[(!r.volume_id.is_empty(), "volume_id")],
        CsiRequest::ControllerExpandVolume(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (
                r.capacity_range.is_some() && is_range(r.capacity_range.as_ref()),
                "capacity_range",
            ),
        ],
        CsiRequest::CreateSnapshot(r) => &[
            (!r.source_volume_id.is_empty(), "source_volume_id"),
            (!r.name.is_empty(), "name"),
        ],
        CsiRequest::DeleteSnapshot(r) => &[(!r.snapshot_id.is_empty(), "snapshot_id")],
        CsiRequest::NodeStageVolume(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (!r.staging_target_path.is_empty(), "staging_target_path"),
            (capability(&r.volume_capability), "volume_capability"),
        ],
        CsiRequest::NodeUnstageVolume(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (!r.staging_target_path.is_empty(), "staging_target_path"),
        ],
        CsiRequest::NodePublishVolume(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (!r.target_path.is_empty(), "target_path"),
            (capability(&r.volume_capability), "volume_capability"),
        ],
        CsiRequest::NodeUnpublishVolume(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (!r.target_path.is_empty(), "target_path"),
        ],
        CsiRequest::NodeGetVolumeStats(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (!r.volume_path.is_empty(), "volume_path"),
        ],
        CsiRequest::NodeExpandVolume(r) => &[
            (!r.volume_id.is_empty(), "volume_id"),
            (!r.volume_path.is_empty(), "volume_path"),
        ],
        _ => &[],
    };
    fields.iter().find(|(there, _)| !there).map(|(_, field)| *field)
}

fn is_range(range: Option<&csi::CapacityRange>) -> bool {
    range.is_none_or(|r| {
        r.required_bytes >= 0 && r.limit_bytes >= 0 && (r.limit_bytes == 0 || r.limit_bytes >= r.required_bytes)
    })
}

fn not_offered(call: &Call, view: &View<'_>) -> Option<String> {
    let driver = view.facts.driver(&call.driver)?;
    match &call.request {
        CsiRequest::NodeStageVolume(_) | CsiRequest::NodeUnstageVolume(_) if driver.stages == Some(false) => {
            Some("asks for staging, which the driver does not offer".to_owned())
        }
        CsiRequest::ControllerPublishVolume(_) | CsiRequest::ControllerUnpublishVolume(_)
            if driver.attaches == Some(false) =>
        {
            Some("asks for attaching, which the driver does not offer".to_owned())
        }
        CsiRequest::NodePublishVolume(r) if driver.stages == Some(true) && r.staging_target_path.is_empty() => {
            use super::order::is_inline;
            (!is_inline(r)).then(|| "lacks staging_target_path".to_owned())
        }
        _ => None,
    }
}

/// Whether the same caller has another call for the same volume under way.
fn twice(process: &str, call: &Call, view: &View<'_>) -> Option<String> {
    let handle = call.request.volume_id()?;
    let ours = crate::scenario::Call::parse(call.request.method())?;
    if !ours.is_lifecycle() {
        return None;
    }
    let other = view.facts.open().find(|(_, open)| {
        *open.process == *process
            && open.call.driver == call.driver
            && open.call.request.volume_id() == Some(handle)
            && crate::scenario::Call::parse(open.call.request.method()).is_some_and(crate::scenario::Call::is_lifecycle)
            && same_node(&open.call.request, &call.request)
            && !are_two_pods(&open.call.request, &call.request)
    });
    other.map(|(_, open)| format!("comes while its {} is under way", open.call.request.method()))
}

/// Kubelet unpublishes a volume for several pods at once (`k8s-storage-facts.md` 6.6: the key of an unmount has the pod's UID).
fn are_two_pods(one: &CsiRequest, other: &CsiRequest) -> bool {
    match (one, other) {
        (CsiRequest::NodeUnpublishVolume(one), CsiRequest::NodeUnpublishVolume(other)) => {
            one.target_path != other.target_path
        }
        _ => false,
    }
}

/// Attachments of one volume to two nodes are two things.
fn same_node(one: &CsiRequest, other: &CsiRequest) -> bool {
    match (one.node_id(), other.node_id()) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}
