//! *Promise*: the modelled cluster keeps Kubernetes' own rules: a container starts only when its volumes are there, a claim in use keeps its protection, a
//! claim and its volume stay bound to each other, a volume for one node has one attachment.
//!
//! *Why*: this oracle judges the tank itself, and wrong sidecars and controllers.
//!
//! *Source*: Kubernetes 1.36: kubelet `WaitForAttachAndMount`; "Storage Object in Use Protection"; the binder ("once bound, PersistentVolumeClaim binds are
//! exclusive"); attach-detach controller, `isMultiAttachForbidden`.
//!
//! *Mutant*: `attaches-twice` (K22), `finalizer-conflict-lost` (S43); the unit test tampers with a claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::{Oracle, Party, Promise, Season, State, View, Violation};
use crate::api::{ObjKey, Object, fields};
use crate::link::MachineOp;
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "kubernetes-rules",
    says: "the cluster keeps Kubernetes' own rules about volumes",
    season: Season::Safety,
    source: "Kubernetes 1.36: kubelet's volume manager, storage object in use protection, the binder, multi-attach",
};

/// The finalizer of a claim in use.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct KubernetesRules;

impl Oracle for KubernetesRules {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let wrong = match &record.what {
            What::Machine { op, error: None } => match &**op {
                MachineOp::StartPod(uid) => without_volumes(uid, view),
                _ => None,
            },
            What::Write {
                before,
                result: Ok(written),
                ..
            } => match (before, &written.object) {
                (Some(Object::PersistentVolumeClaim(before)), Object::PersistentVolumeClaim(after)) => {
                    rebound(before, after).or_else(|| unprotected(before, after, &record.process, view))
                }
                (None, Object::VolumeAttachment(attachment)) => twice(attachment, view),
                (_, Object::VolumeAttachment(attachment)) if fields::is_attached(attachment) => twice(attachment, view),
                _ => None,
            },
            _ => None,
        };
        let Some((object, wrong)) = wrong else { return };
        let blame = (Party::Kubernetes, "Kubernetes 1.36, see the source of the promise");
        found.push(view.broken(&PROMISE, blame, format!("{object} {wrong}"), vec![object]));
    }
}

fn spelled(kind: &str, key: &ObjKey) -> String {
    match &*key.namespace {
        "" | "default" => format!("{kind} {}", key.name),
        _ => format!("{kind} {key}"),
    }
}

/// A pod's containers start: are its volumes there?
fn without_volumes(uid: &str, view: &View<'_>) -> Option<(String, String)> {
    let pod = view
        .cluster
        .api()
        .list::<Pod>()
        .find(|pod| fields::uid(&pod.metadata) == uid)?;
    let node = fields::pod_node(pod);
    for claim in fields::pod_claims(pod) {
        let key = ObjKey::new(fields::namespace(&pod.metadata), claim.claim.as_ref());
        let Some(claim) = view.cluster.get::<PersistentVolumeClaim>(&key) else {
            continue;
        };
        let volume = ObjKey::cluster(fields::claim_volume(claim));
        let Some(volume) = view.cluster.get::<PersistentVolume>(&volume) else {
            continue;
        };
        let Some((driver, handle)) = fields::volume_handle(volume) else {
            continue;
        };
        let way = view.facts.way(driver, handle, node);
        let there = way.is_some_and(|way| {
            let mut published = way.published.iter();
            // A raw device is published elsewhere, and mapped for each pod.
            published.any(|(path, state)| {
                *state == State::Yes && (path.contains(uid) || fields::claim_mode(claim) == "Block")
            })
        });
        if !there {
            let pod = spelled("pod", &ObjKey::of(&pod.metadata));
            return Some((
                pod,
                format!("starts on {node} without its volume of {}", spelled("pvc", &key)),
            ));
        }
    }
    None
}

fn rebound(before: &PersistentVolumeClaim, after: &PersistentVolumeClaim) -> Option<(String, String)> {
    let (was, is) = (fields::claim_volume(before), fields::claim_volume(after));
    let same = fields::uid(&before.metadata) == fields::uid(&after.metadata);
    (same && !was.is_empty() && was != is).then(|| {
        let claim = spelled("pvc", &ObjKey::of(&after.metadata));
        (claim, format!("was bound to {was} and is bound to `{is}`"))
    })
}

fn unprotected(
    before: &PersistentVolumeClaim,
    after: &PersistentVolumeClaim,
    process: &str,
    view: &View<'_>,
) -> Option<(String, String)> {
    let lost =
        fields::has_finalizer(&before.metadata, PROTECTION) && !fields::has_finalizer(&after.metadata, PROTECTION);
    if !lost || process == crate::cluster::USER {
        return None;
    }
    let key = ObjKey::of(&after.metadata);
    let uses = |pod: &Pod| {
        !fields::pod_node(pod).is_empty()
            && !fields::is_terminated(pod)
            && *fields::namespace(&pod.metadata) == *key.namespace
            && fields::pod_claims(pod).any(|claim| *claim.claim == *key.name)
    };
    let user = view.cluster.api().list::<Pod>().find(|pod| uses(pod))?;
    let pod = spelled("pod", &ObjKey::of(&user.metadata));
    Some((
        spelled("pvc", &key),
        format!("loses its protection although {pod} uses it"),
    ))
}

/// A volume for one node that is attached, or is to be: is it attached elsewhere, too?
fn twice(attachment: &VolumeAttachment, view: &View<'_>) -> Option<(String, String)> {
    let planned = !fields::is_attached(attachment);
    let name = fields::attachment_volume(attachment);
    let volume = view.cluster.get::<PersistentVolume>(&ObjKey::cluster(name))?;
    // The attach-detach controller does not count on these; the storage system has to keep them apart.
    let is_uncertain = |attachment: &VolumeAttachment| view.facts.lapses().is_uncertain(attachment, view.cluster);
    let many = fields::volume_modes(volume).iter().any(|mode| mode.ends_with("Many"));
    if many || is_uncertain(attachment) {
        return None;
    }
    let other = view.cluster.api().list::<VolumeAttachment>().find(|other| {
        fields::attachment_volume(other) == name
            && other.spec.node_name != attachment.spec.node_name
            && fields::is_attached(other)
            && !is_uncertain(other)
            // While it is being given up, Kubernetes goes ahead elsewhere, and the attacher sees to the order.
            && !(planned && fields::is_deleting(&other.metadata))
    })?;
    let claim = fields::volume_claim_key(volume);
    let object = claim.map_or_else(|| format!("pv {name}"), |claim| spelled("pvc", &claim));
    Some((
        object,
        format!(
            "{} to {} while it is attached to {}",
            if planned { "is to be attached" } else { "is attached" },
            attachment.spec.node_name,
            other.spec.node_name
        ),
    ))
}
