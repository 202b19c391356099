//! What controllers read off objects: the small questions that several of them ask, answered in one place.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::{
    Node, NodeCondition, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod,
    PodSpec, Taint, Toleration, Volume,
};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::names;
use super::object::{ObjKey, Object, Resource};
use super::quantity;

/// The UID, or empty.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// The name, or empty.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The namespace, or empty.
pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The value of a label.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// The finalizers.
pub fn finalizers(meta: &ObjectMeta) -> &[String] {
    meta.finalizers.as_deref().unwrap_or_default()
}

/// Whether the finalizer is there.
pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    finalizers(meta).iter().any(|f| f == finalizer)
}

/// Where the finalizer stands in the list.
pub fn finalizer_index(meta: &ObjectMeta, finalizer: &str) -> Option<usize> {
    finalizers(meta).iter().position(|f| f == finalizer)
}

/// Whether deletion has begun.
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The owner that controls the object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|o| o.controller == Some(true))
}

/// Sets an annotation.
pub fn annotate(meta: &mut ObjectMeta, key: &str, value: impl Into<String>) {
    meta.annotations
        .get_or_insert_default()
        .insert(key.into(), value.into());
}

// Claims.

/// The class of a claim: the beta annotation first, then the field; `None` when neither is set, which is not the same as empty.
pub fn claim_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    let field = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&claim.metadata, names::BETA_STORAGE_CLASS).or_else(field)
}

/// The requested size in bytes.
pub fn claim_request(claim: &PersistentVolumeClaim) -> u64 {
    claim.spec.as_ref().map_or(0, spec_request)
}

/// The size in bytes that a claim's spec requests.
pub fn spec_request(spec: &PersistentVolumeClaimSpec) -> u64 {
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.and_then(|r| r.get("storage")).map_or(0, quantity::bytes)
}

/// `status.capacity.storage` in bytes, 0 before binding.
pub fn claim_capacity(claim: &PersistentVolumeClaim) -> u64 {
    let capacity = claim.status.as_ref().and_then(|s| s.capacity.as_ref());
    capacity.and_then(|c| c.get("storage")).map_or(0, quantity::bytes)
}

/// `status.allocatedResources.storage` in bytes.
pub fn claim_allocated(claim: &PersistentVolumeClaim) -> Option<u64> {
    let allocated = claim.status.as_ref()?.allocated_resources.as_ref()?;
    allocated.get("storage").map(quantity::bytes)
}

/// `status.allocatedResourceStatuses.storage`, or empty.
pub fn claim_resize_status(claim: &PersistentVolumeClaim) -> &str {
    let statuses = claim
        .status
        .as_ref()
        .and_then(|s| s.allocated_resource_statuses.as_ref());
    statuses.and_then(|s| s.get("storage")).map_or("", String::as_str)
}

/// Whether the claim has a condition of this type with status `True`.
pub fn claim_condition(claim: &PersistentVolumeClaim, kind: &str) -> bool {
    let conditions = claim.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == kind && c.status == "True")
}

/// The phase: `Pending`, `Bound`, `Lost`.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.unwrap_or_default()
}

/// `status.phase` of a claim, volume or pod that has one.
pub fn phase(object: &Object) -> Option<&str> {
    let phase = match object {
        Object::PersistentVolumeClaim(claim) => claim_phase(claim),
        Object::PersistentVolume(volume) => volume_phase(volume),
        Object::Pod(pod) => pod_phase(pod),
        _ => "",
    };
    Some(phase).filter(|phase| !phase.is_empty())
}

/// `spec.volumeName`, or empty.
pub fn claim_volume(claim: &PersistentVolumeClaim) -> &str {
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
    volume.unwrap_or_default()
}

/// `spec.accessModes`.
pub fn claim_modes(claim: &PersistentVolumeClaim) -> &[String] {
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref());
    modes.unwrap_or_default()
}

/// The volume mode: `Filesystem` unless it says `Block`.
pub fn claim_mode(claim: &PersistentVolumeClaim) -> &str {
    let mode = claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
    mode.unwrap_or("Filesystem")
}

/// Bound as everybody who uses a claim demands it: binding completed, and a volume named.
pub fn is_bound_fully(claim: &PersistentVolumeClaim) -> bool {
    !claim_volume(claim).is_empty() && annotation(&claim.metadata, names::BIND_COMPLETED).is_some()
}

/// The reference by which a volume names its claim.
pub fn claim_reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

// Volumes.

/// The class of a volume: the beta annotation first, then the field, else empty.
pub fn volume_class(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&volume.metadata, names::BETA_STORAGE_CLASS)
        .or_else(field)
        .unwrap_or_default()
}

/// `spec.capacity.storage` in bytes.
pub fn volume_capacity(volume: &PersistentVolume) -> u64 {
    let capacity = volume.spec.as_ref().and_then(|s| s.capacity.as_ref());
    capacity.and_then(|c| c.get("storage")).map_or(0, quantity::bytes)
}

/// The CSI driver and handle of a volume.
pub fn volume_handle(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    Some((&csi.driver, &csi.volume_handle))
}

/// The CSI driver of a volume, or empty.
pub fn volume_driver(volume: &PersistentVolume) -> &str {
    volume_handle(volume).map_or("", |(driver, _)| driver)
}

/// The phase: `Pending`, `Available`, `Bound`, `Released`, `Failed`.
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.unwrap_or_default()
}

/// The volume mode: `Filesystem` unless it says `Block`.
pub fn volume_mode(volume: &PersistentVolume) -> &str {
    let mode = volume.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
    mode.unwrap_or("Filesystem")
}

/// `spec.accessModes`.
pub fn volume_modes(volume: &PersistentVolume) -> &[String] {
    let modes = volume.spec.as_ref().and_then(|s| s.access_modes.as_deref());
    modes.unwrap_or_default()
}

/// What happens to the volume when its claim is gone: `Retain`, `Delete` or `Recycle`.
pub fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let policy = volume
        .spec
        .as_ref()
        .and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// `spec.claimRef`.
pub fn volume_claim(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Namespace and name of the claim that a volume names.
pub fn volume_claim_key(volume: &PersistentVolume) -> Option<ObjKey> {
    let claim = volume_claim(volume)?;
    Some(ObjKey::new(
        claim.namespace.as_deref().unwrap_or_default(),
        claim.name.as_deref().unwrap_or_default(),
    ))
}

/// Whether the volume's claimRef names this claim; a reference without UID names any claim of that name.
pub fn is_claimed_by(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume_claim(volume).is_some_and(|r| {
        r.name == claim.metadata.name
            && r.namespace == claim.metadata.namespace
            && r.uid
                .as_deref()
                .is_none_or(|u| u.is_empty() || u == uid(&claim.metadata))
    })
}

// Classes.

/// Whether the class is marked as the default.
pub fn is_default_class(class: &StorageClass) -> bool {
    [names::IS_DEFAULT_CLASS, names::BETA_IS_DEFAULT_CLASS]
        .iter()
        .any(|key| annotation(&class.metadata, key) == Some("true"))
}

/// The default class among several: the newest that is marked, then by name.
pub fn default_class<'a, C: std::ops::Deref<Target = StorageClass> + 'a>(
    classes: impl Iterator<Item = &'a C>,
) -> Option<&'a C> {
    classes.filter(|class| is_default_class(class)).min_by_key(|class| {
        (
            Reverse(class.metadata.creation_timestamp.as_ref()),
            name(&class.metadata),
        )
    })
}

/// Whether binding waits for a pod.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

// Pods.

/// `spec.nodeName`, or empty.
pub fn pod_node(pod: &Pod) -> &str {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    node.unwrap_or_default()
}

/// The phase: `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
pub fn pod_phase(pod: &Pod) -> &str {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.unwrap_or_default()
}

/// Whether it has run to its end: `Succeeded` or `Failed`.
pub fn is_terminated(pod: &Pod) -> bool {
    matches!(pod_phase(pod), "Succeeded" | "Failed")
}

/// The pod's volumes.
pub fn pod_volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().map_or(&[], spec_volumes)
}

fn spec_volumes(spec: &PodSpec) -> &[Volume] {
    spec.volumes.as_deref().unwrap_or_default()
}

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim<'a> {
    /// The volume's name in the pod.
    pub volume: &'a str,
    /// The claim's name, in the pod's namespace.
    pub claim: std::borrow::Cow<'a, str>,
    /// Whether the claim is made for the pod (a generic ephemeral volume).
    pub ephemeral: bool,
    /// Whether the pod mounts it read-only.
    pub read_only: bool,
}

/// The claims that a pod uses, those of generic ephemeral volumes included.
pub fn pod_claims(pod: &Pod) -> impl Iterator<Item = PodClaim<'_>> {
    pod_volumes(pod).iter().filter_map(move |volume| pod_claim(pod, volume))
}

/// The claim behind one of a pod's volumes, if there is one.
pub fn pod_claim<'a>(pod: &'a Pod, volume: &'a Volume) -> Option<PodClaim<'a>> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(PodClaim {
            volume: &volume.name,
            claim: source.claim_name.as_str().into(),
            ephemeral: false,
            read_only: source.read_only == Some(true),
        });
    }
    volume.ephemeral.as_ref().map(|_| PodClaim {
        volume: &volume.name,
        claim: format!("{}-{}", name(&pod.metadata), volume.name).into(),
        ephemeral: true,
        read_only: false,
    })
}

/// Whether the pod controls the claim: what a generic ephemeral volume demands of it.
pub fn is_owned_by_pod(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    controller_of(&claim.metadata).is_some_and(|o| o.kind == "Pod" && o.uid == uid(&pod.metadata))
}

// Nodes and attachments.

/// Whether the node's Ready condition is `True`.
pub fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The node's condition of this type.
pub fn node_condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|c| c.type_ == kind)
}

/// `spec.taints`.
pub fn taints(node: &Node) -> &[Taint] {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref());
    taints.unwrap_or_default()
}

/// `status.volumesInUse`.
pub fn volumes_in_use(node: &Node) -> &[String] {
    let volumes = node.status.as_ref().and_then(|s| s.volumes_in_use.as_deref());
    volumes.unwrap_or_default()
}

/// Whether the node has a taint of this key.
pub fn has_taint(node: &Node, key: &str) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref());
    taints.unwrap_or_default().iter().any(|t| t.key == key)
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            _ => {
                !key.is_empty()
                    && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
        }
}

/// The volume that an attachment attaches, or empty for an inline one.
pub fn attachment_volume(attachment: &VolumeAttachment) -> &str {
    let volume = attachment.spec.source.persistent_volume_name.as_deref();
    volume.unwrap_or_default()
}

/// Whether the attacher says that it is attached.
pub fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|s| s.attached)
}

/// A reference to the object as an owner that controls it and blocks its deletion.
pub fn controller_reference<T: Resource>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::KIND.api_version().into(),
        kind: T::KIND.name().into(),
        name: name(owner.meta()).into(),
        uid: uid(owner.meta()).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{annotate, claim_class, default_class, pod_claims};
    use crate::api::clock::Clock;
    use crate::api::names;
    use crate::runtime::Time;
    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod};
    use k8s_openapi::api::storage::v1::StorageClass;

    fn class(name: &str, created: u64, default: bool) -> Arc<StorageClass> {
        let mut class = StorageClass::default();
        class.metadata.name = Some(name.into());
        class.metadata.creation_timestamp = Some(Clock::EPOCH.time(Time(created * 1_000_000_000)));
        annotate(&mut class.metadata, names::IS_DEFAULT_CLASS, default.to_string());
        Arc::new(class)
    }

    #[test]
    fn the_newest_default_class_wins_and_names_break_ties() {
        let classes = [
            class("old", 1, true),
            class("b", 2, true),
            class("a", 2, true),
            class("c", 3, false),
        ];
        let chosen = default_class(classes.iter()).and_then(|c| c.metadata.name.as_deref());
        assert_eq!(chosen, Some("a"));
        assert!(default_class([class("c", 3, false)].iter()).is_none());
    }

    #[test]
    fn the_beta_annotation_names_the_class_before_the_field_does() {
        let mut claim = PersistentVolumeClaim::default();
        assert_eq!(claim_class(&claim), None, "not set is not empty");
        claim.spec = Some(PersistentVolumeClaimSpec {
            storage_class_name: Some(String::new()),
            ..Default::default()
        });
        assert_eq!(claim_class(&claim), Some(""));
        annotate(&mut claim.metadata, names::BETA_STORAGE_CLASS, "fast");
        assert_eq!(claim_class(&claim), Some("fast"));
    }

    #[test]
    fn an_ephemeral_volumes_claim_is_named_after_pod_and_volume() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}},
                {"name": "b", "ephemeral": {}},
                {"name": "c", "emptyDir": {}}]}
        }))
        .unwrap();
        let claims: Vec<_> = pod_claims(&pod)
            .map(|c| (c.claim.into_owned(), c.ephemeral, c.read_only))
            .collect();
        assert_eq!(claims, [("data".into(), false, true), ("web-b".into(), true, false)]);
    }
}
