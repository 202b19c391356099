//! *Promise*: the calls for a volume and a node come in order: attach, stage, publish, unpublish, unstage, detach, and only then delete. Opposite calls
//! never overlap.
//!
//! *Why*: a driver may rely on it. A detach under a mounted file system loses what was not written; a publish without a stage puts a pod on the node's
//! own disk.
//!
//! *Source*: CSI v1.12, "Volume Lifecycle" and the rpc descriptions ("This RPC MUST be called after …"); Kubernetes' exceptions: a node that is not ready
//! for six minutes, is marked out of service or is gone has its volumes detached by force; what a kubelet has forgotten, or never reported, is detached as it
//! stands (`lapses.rs`).
//!
//! *Mutant*: `detach-while-unstage-retries` (K03), `stage-overlaps-unstage` (K04).

use wavetank_proto::csi::v1::NodePublishVolumeRequest;

use super::{Facts, Oracle, Party, Promise, Season, State, View, Violation, Way};
use crate::link::{Call, CsiRequest};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "order",
    says: "attach before stage before publish; unpublish before unstage before detach before delete; opposite calls never overlap",
    season: Season::Safety,
    source: "CSI v1.12, Volume Lifecycle",
};

/// The key in a volume's context by which kubelet marks volumes that live and die with their pod.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct Order;

impl Oracle for Order {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let What::Call { call, .. } = &record.what else { return };
        let Some(handle) = call.request.volume_id() else { return };
        let Some(wrong) = out_of_order(&record.process, call, handle, view) else {
            return;
        };
        let node = view.facts.node_of_call(&record.process, call);
        let volume = view.volume(handle);
        let at = node.as_ref().map_or(String::new(), |node| format!(" on {node}"));
        let text = format!("{} of {volume}{at} {wrong}", call.request.method());
        let mut objects = vec![volume];
        objects.extend(node.map(|node| format!("node {node}")));
        let blame = if record.process.starts_with("kubelet")
            || matches!(call.request, CsiRequest::ControllerUnpublishVolume(_))
        {
            Party::Kubernetes
        } else {
            Party::Sidecar
        };
        let blame = (blame, "CSI v1.12, Volume Lifecycle: the CO calls in this order");
        found.push(view.broken(&PROMISE, blame, text, objects));
    }
}

fn out_of_order(process: &str, call: &Call, handle: &str, view: &View<'_>) -> Option<&'static str> {
    let facts = view.facts;
    let driver = facts.driver(&call.driver)?;
    let nowhere = Way::default();
    let node = facts.node_of_call(process, call);
    let way = node.as_ref().and_then(|node| facts.way(&call.driver, handle, node));
    let way = way.unwrap_or(&nowhere);
    match &call.request {
        CsiRequest::NodeStageVolume(_) => {
            if driver.attaches == Some(true) && way.attached == State::No && needs_attachment(&call.driver, view) {
                return Some("before the volume was attached");
            }
            overlaps(facts, call, process, |other| {
                matches!(other, CsiRequest::NodeUnstageVolume(_))
            })
            .then_some("while its unstaging is under way")
        }
        CsiRequest::NodePublishVolume(request) => {
            let inline = request
                .volume_context
                .get(EPHEMERAL)
                .is_some_and(|value| value == "true");
            if driver.stages == Some(true) && way.staged != State::Yes && !inline {
                return Some("before the volume was staged");
            }
            overlaps(facts, call, process, |other| match other {
                CsiRequest::NodeUnstageVolume(_) => true,
                CsiRequest::NodeUnpublishVolume(other) => other.target_path == request.target_path,
                _ => false,
            })
            .then_some("while it is being taken away")
        }
        CsiRequest::NodeUnstageVolume(_) => {
            if !way.published.is_empty() {
                return Some("before it was unpublished");
            }
            let begun =
                |other: &CsiRequest| matches!(other, CsiRequest::NodeStageVolume(_) | CsiRequest::NodePublishVolume(_));
            overlaps(facts, call, process, begun).then_some("while its staging or publishing is under way")
        }
        CsiRequest::ControllerUnpublishVolume(_) => {
            let node = node.as_deref().unwrap_or_default();
            let disowned = || facts.lapses().is_disowned(node, &call.driver, handle, view.cluster);
            (way.is_used(node, view.cluster) && !may_be_forced(node, view) && !disowned())
                .then_some("while the node still has it")
        }
        CsiRequest::DeleteVolume(_) => {
            let mut ways = facts.volume(&call.driver, handle)?.ways.values();
            ways.any(|way| way.attached == State::Yes)
                .then_some("before it was detached")
        }
        _ => None,
    }
}

/// Whether a volume lives and dies with its pod.
pub(super) fn is_inline(request: &NodePublishVolumeRequest) -> bool {
    request
        .volume_context
        .get(EPHEMERAL)
        .is_some_and(|value| value == "true")
}

fn needs_attachment(driver: &str, view: &View<'_>) -> bool {
    use k8s_openapi::api::storage::v1::CSIDriver;
    let object = view.cluster.get::<CSIDriver>(&crate::api::ObjKey::cluster(driver));
    object.is_none_or(|object| object.spec.attach_required.unwrap_or(true))
}

/// Whether the cluster has taken a node for lost since it was last well: its volumes may be detached by force.
fn may_be_forced(node: &str, view: &View<'_>) -> bool {
    use k8s_openapi::api::core::v1::Node;
    let gone = view.cluster.get::<Node>(&crate::api::ObjKey::cluster(node)).is_none();
    gone || view.facts.troubled(node).is_some()
}

/// Whether an opposite call for the same volume at the same place is under way.
fn overlaps(facts: &Facts, call: &Call, process: &str, opposite: impl Fn(&CsiRequest) -> bool) -> bool {
    let handle = call.request.volume_id();
    facts.open().any(|(_, open)| {
        *open.process == *process
            && open.call.driver == call.driver
            && open.call.request.volume_id() == handle
            && opposite(&open.call.request)
    })
}
