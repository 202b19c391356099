//! *Promise*: in the calm every claim, pod, expansion, deletion and attachment comes to its end, and stays there.
//!
//! *Why*: a volume that hangs for ever is the call that wakes people at night. A retry that never succeeds although nothing is broken any more is a bug.
//!
//! *Source*: Kubernetes' controllers are level-triggered: "reconcile until actual state is desired state"; CSI v1.12, "Error Scheme" (a caller retries
//! with exponential back-off, so a driver must let it succeed).
//!
//! *Mutant*: `clone-retry-refused` (D19), `probe-killed-by-long-operation` (D57), `expand-after-failed-expand` (D76).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::lapses::waits_for_the_stuck;
use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::api::{Kind, ObjKey, fields};
use crate::cluster::{Cluster, Liveness};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "settles",
    says: "in the calm every claim, pod, expansion, deletion and attachment comes to its end and stays there",
    season: Season::Calm,
    source: "Kubernetes: controllers reconcile until actual state is desired state; CSI v1.12, Error Scheme",
};

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct Settles;

impl Oracle for Settles {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        for (object, text) in unsettled(view.cluster) {
            let blame = (
                Party::Undefined,
                "whoever made the last call about it: see the lines around",
            );
            found.push(view.broken(&PROMISE, blame, format!("{object} {text}"), vec![object]));
        }
    }
}

/// The violation of a goal that was not reached.
pub fn settles_violation(view: &View<'_>, object: String, text: &str) -> Violation {
    let blame = (
        Party::Undefined,
        "whoever made the last call about it: see the lines around",
    );
    view.broken(&PROMISE, blame, text.to_owned(), vec![object])
}

fn spelled(kind: Kind, key: &ObjKey) -> String {
    crate::api::ObjectRef::new(kind, key.clone()).to_string()
}

/// What has not come to its end, and how so.
pub fn unsettled(cluster: &Cluster) -> Vec<(String, String)> {
    let mut found = Vec::new();
    deletions(cluster, &mut found);
    claims(cluster, &mut found);
    pods(cluster, &mut found);
    attachments(cluster, &mut found);
    found
}

/// Whether kubelet of a node can do its part.
fn is_tended(cluster: &Cluster, node: &str) -> bool {
    let kubelet = cluster.process(&format!("kubelet/{node}"));
    kubelet.is_some_and(|id| cluster.liveness(id) == Liveness::Running)
        && cluster
            .get::<Node>(&ObjKey::cluster(node))
            .is_some_and(|node| fields::is_node_ready(node))
}

fn claims_in_use(cluster: &Cluster) -> BTreeSet<ObjKey> {
    let pods = cluster.api().list::<Pod>();
    let pods = pods.filter(|pod| !fields::is_terminated(pod));
    pods.flat_map(|pod| {
        let namespace = fields::namespace(&pod.metadata).to_owned();
        fields::pod_claims(pod)
            .map(move |claim| ObjKey::new(namespace.as_str(), claim.claim.as_ref()))
            .collect::<Vec<_>>()
    })
    .collect()
}

fn deletions(cluster: &Cluster, found: &mut Vec<(String, String)>) {
    let in_use = claims_in_use(cluster);
    for (object, held) in cluster.being_deleted() {
        let waits = match object {
            crate::api::Object::PersistentVolumeClaim(_) => in_use.contains(&object.key()),
            crate::api::Object::PersistentVolume(volume) => fields::volume_phase(volume) == "Bound",
            crate::api::Object::Pod(pod) => {
                let node = fields::pod_node(pod);
                !node.is_empty() && !is_tended(cluster, node)
            }
            crate::api::Object::VolumeAttachment(attachment) => !is_tended(cluster, &attachment.spec.node_name),
            _ => false,
        };
        if !waits {
            let text = format!("is being deleted for ever, held by {held}");
            found.push((object.to_ref().to_string(), text));
        }
    }
}

fn claims(cluster: &Cluster, found: &mut Vec<(String, String)>) {
    let used = claims_in_use(cluster);
    for claim in cluster.api().list::<PersistentVolumeClaim>() {
        let key = ObjKey::of(&claim.metadata);
        if fields::claim_phase(claim) != "Bound" || fields::is_deleting(&claim.metadata) {
            continue;
        }
        let (wanted, have) = (fields::claim_request(claim), fields::claim_capacity(claim));
        let status = fields::claim_resize_status(claim);
        let gives_up = status.ends_with("Infeasible");
        // The node's half waits for a pod.
        let waits = !used.contains(&key)
            && (status == "NodeResizePending" || fields::claim_condition(claim, "FileSystemResizePending"));
        let stuck = keeps_to_what_is_allocated(cluster, claim);
        if wanted > have && !gives_up && !waits && !stuck && !status.is_empty() {
            found.push((
                spelled(Kind::PersistentVolumeClaim, &key),
                format!("asks for {wanted} bytes and has {have}: its expansion does not end ({status})"),
            ));
        }
    }
}

fn pods(cluster: &Cluster, found: &mut Vec<(String, String)>) {
    for pod in cluster.api().list::<Pod>() {
        let node = fields::pod_node(pod);
        if node.is_empty()
            || fields::is_terminated(pod)
            || fields::is_deleting(&pod.metadata)
            || !is_tended(cluster, node)
        {
            continue;
        }
        let conditions = pod.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        if !ready && !waits_for_another(cluster, pod) && !waits_for_the_stuck(pod, cluster) {
            let key = ObjKey::of(&pod.metadata);
            found.push((spelled(Kind::Pod, &key), format!("never becomes ready on {node}")));
        }
    }
}

/// Whether a pod waits for a volume of one node only that a pod on another node has.
pub fn waits_for_another(cluster: &Cluster, pod: &Pod) -> bool {
    let namespace = fields::namespace(&pod.metadata);
    let claims = fields::pod_claims(pod).map(|claim| claim.claim.to_string());
    let claims: Vec<_> = claims.filter(|claim| !is_shared(cluster, namespace, claim)).collect();
    let node = fields::pod_node(pod);
    cluster.api().list::<Pod>().any(|other| {
        let elsewhere = !fields::pod_node(other).is_empty() && fields::pod_node(other) != node;
        elsewhere
            && !fields::is_terminated(other)
            && fields::namespace(&other.metadata) == fields::namespace(&pod.metadata)
            && fields::pod_claims(other).any(|claim| claims.iter().any(|name| **name == *claim.claim))
    })
}

/// Whether a claim is for many nodes at once.
fn is_shared(cluster: &Cluster, namespace: &str, claim: &str) -> bool {
    let claim = cluster.get::<PersistentVolumeClaim>(&ObjKey::new(namespace, claim));
    let modes = claim.map(|claim| fields::claim_modes(claim)).unwrap_or_default();
    modes
        .iter()
        .any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

/// Whether the expansion of a claim never comes further than what was allocated to it.
///
/// A volume that grew by more than was asked for, because an expansion that was taken back had been done all the same, is as large as the claim wants
/// when the expansion is wanted again. Then external-resizer repeats the expansion to what was allocated last (`expand_and_recover.go`: "it is safest to
/// resume expansion to last recorded size in allocatedSize"), and the claim has that for ever.
pub fn keeps_to_what_is_allocated(cluster: &Cluster, claim: &PersistentVolumeClaim) -> bool {
    let volume = cluster.get::<PersistentVolume>(&ObjKey::cluster(fields::claim_volume(claim)));
    let (wanted, have) = (fields::claim_request(claim), fields::claim_capacity(claim));
    let large = volume.is_some_and(|volume| fields::volume_capacity(volume) >= wanted);
    large && wanted > have && fields::claim_allocated(claim) == Some(have)
}

fn attachments(cluster: &Cluster, found: &mut Vec<(String, String)>) {
    for attachment in cluster.api().list::<VolumeAttachment>() {
        if !fields::is_attached(attachment) && !fields::is_deleting(&attachment.metadata) {
            let key = ObjKey::of(&attachment.metadata);
            let volume = fields::attachment_volume(attachment);
            found.push((
                spelled(Kind::VolumeAttachment, &key),
                format!("never attaches {volume} to {}", attachment.spec.node_name),
            ));
        }
    }
}
