//! What a write may touch: per kind, which part of an object a request reaches and what the server fills in itself.
//!
//! A write to the main resource keeps the stored status; a write to the status subresource keeps the stored spec. Some kinds also keep all metadata
//! then, some let annotations and finalizers through: the resizer relies on claims doing so. Source: `registry/*/strategy.go` (fact sheet 10.1).

use k8s_openapi::api::core::v1::{NamespaceSpec, NamespaceStatus, PersistentVolumeClaimStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeStatus, PodStatus};
use k8s_openapi::api::storage::v1::VolumeAttachmentStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

use super::object::{Kind, Object};

/// Which resource of an object a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The object itself.
    Main,
    /// Its `status` subresource.
    Status,
}

/// Whether the kind has a status subresource.
pub(super) fn has_status(kind: Kind) -> bool {
    match kind {
        Kind::Namespace | Kind::Node | Kind::Pod | Kind::PersistentVolumeClaim | Kind::PersistentVolume => true,
        Kind::VolumeAttachment | Kind::VolumeSnapshot | Kind::VolumeSnapshotContent => true,
        Kind::Event | Kind::Secret | Kind::ConfigMap | Kind::ServiceAccount | Kind::StorageClass => false,
        Kind::CSINode | Kind::CSIDriver | Kind::CSIStorageCapacity | Kind::VolumeAttributesClass => false,
        Kind::VolumeSnapshotClass => false,
    }
}

/// Whether a PUT without resourceVersion is taken (last write wins).
pub(super) fn takes_unconditional_update(kind: Kind) -> bool {
    match kind {
        Kind::Node | Kind::Pod | Kind::PersistentVolumeClaim | Kind::PersistentVolume | Kind::StorageClass => true,
        Kind::Namespace | Kind::Event | Kind::Secret | Kind::ConfigMap => true,
        Kind::VolumeAttachment | Kind::CSINode | Kind::CSIDriver | Kind::CSIStorageCapacity => false,
        Kind::VolumeAttributesClass | Kind::ServiceAccount => false,
        Kind::VolumeSnapshot | Kind::VolumeSnapshotContent | Kind::VolumeSnapshotClass => false,
    }
}

/// Whether `metadata.generation` counts changes of the spec. Claims and volumes have none.
fn has_generation(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Pod | Kind::CSIDriver | Kind::VolumeSnapshot | Kind::VolumeSnapshotContent | Kind::VolumeSnapshotClass
    )
}

/// Whether a status write leaves all metadata as it was.
fn status_keeps_metadata(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::VolumeAttachment | Kind::VolumeSnapshot | Kind::VolumeSnapshotContent
    )
}

/// Sets what a new object begins with, whatever its creator wrote there.
pub(super) fn begin(object: &mut Object, now: &Time) {
    object.meta_mut().generation = has_generation(object.kind()).then_some(1);
    match object {
        Object::PersistentVolumeClaim(claim) => {
            Arc::make_mut(claim).status = Some(PersistentVolumeClaimStatus {
                phase: Some("Pending".into()),
                ..Default::default()
            });
        }
        Object::PersistentVolume(volume) => {
            Arc::make_mut(volume).status = Some(PersistentVolumeStatus {
                phase: Some("Pending".into()),
                last_phase_transition_time: Some(now.clone()),
                ..Default::default()
            });
        }
        Object::Pod(pod) => {
            Arc::make_mut(pod).status = Some(PodStatus {
                phase: Some("Pending".into()),
                ..Default::default()
            });
        }
        Object::VolumeAttachment(attachment) => {
            Arc::make_mut(attachment).status = Some(VolumeAttachmentStatus::default());
        }
        Object::Namespace(namespace) => {
            let namespace = Arc::make_mut(namespace);
            namespace.spec = Some(NamespaceSpec {
                finalizers: Some(vec!["kubernetes".into()]),
            });
            namespace.status = Some(NamespaceStatus {
                phase: Some("Active".into()),
                ..Default::default()
            });
        }
        Object::VolumeSnapshot(snapshot) => Arc::make_mut(snapshot).status = None,
        Object::VolumeSnapshotContent(content) => Arc::make_mut(content).status = None,
        // A node is registered with its status; the rest have none.
        Object::Node(_) | Object::Event(_) | Object::Secret(_) | Object::ConfigMap(_) | Object::ServiceAccount(_) => {}
        Object::StorageClass(_) | Object::CSINode(_) | Object::CSIDriver(_) | Object::CSIStorageCapacity(_) => {}
        Object::VolumeAttributesClass(_) | Object::VolumeSnapshotClass(_) => {}
    }
}

/// Puts back what a write to this part may not change.
pub(super) fn keep_other_part(old: &Object, new: &mut Object, part: Part) {
    macro_rules! keep {
        ($old:expr, $new:expr) => {
            match part {
                Part::Main if $old.status != $new.status => Arc::make_mut($new).status = $old.status.clone(),
                Part::Status if $old.spec != $new.spec => Arc::make_mut($new).spec = $old.spec.clone(),
                Part::Main | Part::Status => {}
            }
        };
    }
    match (old, &mut *new) {
        (Object::PersistentVolumeClaim(o), Object::PersistentVolumeClaim(n)) => keep!(o, n),
        (Object::PersistentVolume(o), Object::PersistentVolume(n)) => keep!(o, n),
        (Object::Pod(o), Object::Pod(n)) => keep!(o, n),
        (Object::Node(o), Object::Node(n)) => keep!(o, n),
        (Object::VolumeAttachment(o), Object::VolumeAttachment(n)) => keep!(o, n),
        (Object::Namespace(o), Object::Namespace(n)) => keep!(o, n),
        (Object::VolumeSnapshot(o), Object::VolumeSnapshot(n)) => keep!(o, n),
        (Object::VolumeSnapshotContent(o), Object::VolumeSnapshotContent(n)) => keep!(o, n),
        _ => {}
    }
    keep_metadata(old, new, part);
}

/// Puts back the metadata that a status write may not change.
pub(super) fn keep_metadata(old: &Object, new: &mut Object, part: Part) {
    if part == Part::Main {
        return;
    }
    if status_keeps_metadata(new.kind()) && old.meta() != new.meta() {
        *new.meta_mut() = old.meta().clone();
    }
    if new.kind() == Kind::Pod && old.meta().owner_references != new.meta().owner_references {
        new.meta_mut().owner_references = old.meta().owner_references.clone();
    }
}

/// Fills in what the server counts or stamps itself when an object changes.
pub(super) fn advance(old: &Object, new: &mut Object, now: &Time) {
    let generation = old.meta().generation;
    let grown = generation.map(|g| g + i64::from(has_generation(new.kind()) && spec_differs(old, new)));
    if new.meta().generation != grown {
        new.meta_mut().generation = grown;
    }
    if let (Object::PersistentVolume(old), Object::PersistentVolume(new)) = (old, new) {
        let phase = |status: Option<&PersistentVolumeStatus>| status.and_then(|s| s.phase.clone());
        let stamp = |status: Option<&PersistentVolumeStatus>| status.and_then(|s| s.last_phase_transition_time.clone());
        let (before, after) = (old.status.as_ref(), new.status.as_ref());
        let stamped_by_client = stamp(after).is_some() && stamp(after) != stamp(before);
        if phase(before) != phase(after) && !stamped_by_client {
            let status = Arc::make_mut(new).status.get_or_insert_default();
            status.last_phase_transition_time = Some(now.clone());
        }
    }
}

fn spec_differs(old: &Object, new: &Object) -> bool {
    match (old, new) {
        (Object::Pod(o), Object::Pod(n)) => o.spec != n.spec,
        (Object::CSIDriver(o), Object::CSIDriver(n)) => o.spec != n.spec,
        (Object::VolumeSnapshot(o), Object::VolumeSnapshot(n)) => o.spec != n.spec,
        (Object::VolumeSnapshotContent(o), Object::VolumeSnapshotContent(n)) => o.spec != n.spec,
        (Object::VolumeSnapshotClass(o), Object::VolumeSnapshotClass(n)) => {
            (&o.driver, &o.deletion_policy, &o.parameters) != (&n.driver, &n.deletion_policy, &n.parameters)
        }
        _ => false,
    }
}
