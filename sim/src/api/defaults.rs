//! What the server fills in where a manifest says nothing, and the form in which it stores what was said.
//!
//! Blind spots: of a pod only what a storage process or a scenario reads is filled in (no image pull policy, no security context, no service account
//! volume, no QoS class).

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, PodSpec, Secret,
    TypedLocalObjectReference, TypedObjectReference, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::object::Object;
use super::quantity;

/// Fills in defaults and brings values into the stored form. Applying it again changes nothing.
pub(super) fn fill(object: &mut Object) {
    tidy(object.meta_mut());
    match object {
        Object::PersistentVolumeClaim(claim) => {
            let claim = Arc::make_mut(claim);
            claim_spec(claim.spec.get_or_insert_default());
            if let Some(status) = &mut claim.status {
                claim_status(status);
            }
        }
        Object::PersistentVolume(volume) => {
            let spec = Arc::make_mut(volume).spec.get_or_insert_default();
            default(&mut spec.persistent_volume_reclaim_policy, "Retain");
            default(&mut spec.volume_mode, "Filesystem");
            spec.capacity
                .iter_mut()
                .flatten()
                .for_each(|(_, q)| quantity::canonicalise(q));
        }
        Object::Pod(pod) => pod_spec(Arc::make_mut(pod).spec.get_or_insert_default()),
        Object::Secret(secret) => stored(Arc::make_mut(secret)),
        Object::StorageClass(class) => {
            let class = Arc::make_mut(class);
            default(&mut class.reclaim_policy, "Delete");
            default(&mut class.volume_binding_mode, "Immediate");
        }
        Object::CSIDriver(driver) => {
            let spec = &mut Arc::make_mut(driver).spec;
            spec.attach_required.get_or_insert(true);
            spec.pod_info_on_mount.get_or_insert(false);
            spec.storage_capacity.get_or_insert(false);
            spec.requires_republish.get_or_insert(false);
            spec.se_linux_mount.get_or_insert(false);
            default(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType");
            let modes = spec.volume_lifecycle_modes.get_or_insert_default();
            if modes.is_empty() {
                modes.push("Persistent".into());
            }
        }
        Object::CSIStorageCapacity(capacity) => {
            let capacity = Arc::make_mut(capacity);
            capacity.capacity.iter_mut().for_each(quantity::canonicalise);
            capacity.maximum_volume_size.iter_mut().for_each(quantity::canonicalise);
        }
        Object::Namespace(_) | Object::Node(_) | Object::Event(_) | Object::ConfigMap(_) => {}
        Object::ServiceAccount(_) | Object::VolumeAttachment(_) | Object::CSINode(_) => {}
        Object::VolumeAttributesClass(_) | Object::VolumeSnapshot(_) => {}
        Object::VolumeSnapshotContent(_) | Object::VolumeSnapshotClass(_) => {}
    }
}

/// Stores nothing for empty lists and maps, as the encoding of the real server does: only so are equal writes seen to be equal.
pub(super) fn tidy(meta: &mut ObjectMeta) {
    meta.labels.take_if(|m| m.is_empty());
    meta.annotations.take_if(|m| m.is_empty());
    meta.finalizers.take_if(|l| l.is_empty());
    meta.owner_references.take_if(|l| l.is_empty());
    meta.managed_fields = None;
    meta.self_link = None;
}

/// `stringData` is for writing only: it is stored as data, and wins over data of the same key.
fn stored(secret: &mut Secret) {
    default(&mut secret.type_, "Opaque");
    let written = secret.string_data.take().unwrap_or_default();
    if !written.is_empty() {
        let bytes = written
            .into_iter()
            .map(|(key, text)| (key, ByteString(text.into_bytes())));
        secret.data.get_or_insert_default().extend(bytes);
    }
}

/// The same for the status of a claim.
pub(super) fn claim_status(status: &mut PersistentVolumeClaimStatus) {
    status.access_modes.take_if(|l| l.is_empty());
    status.conditions.take_if(|l| l.is_empty());
    status.capacity.take_if(|m| m.is_empty());
    status.allocated_resources.take_if(|m| m.is_empty());
    status.allocated_resource_statuses.take_if(|m| m.is_empty());
    let amounts = [&mut status.capacity, &mut status.allocated_resources];
    for (_, amount) in amounts.into_iter().flatten().flatten() {
        quantity::canonicalise(amount);
    }
}

fn claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    default(&mut spec.volume_mode, "Filesystem");
    if let Some(resources) = &mut spec.resources {
        for (_, amount) in [&mut resources.requests, &mut resources.limits]
            .into_iter()
            .flatten()
            .flatten()
        {
            quantity::canonicalise(amount);
        }
    }
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if is_claim_or_snapshot(source) => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

fn is_claim_or_snapshot(source: &TypedObjectReference) -> bool {
    match source.api_group.as_deref().unwrap_or_default() {
        "" => source.kind == "PersistentVolumeClaim",
        "snapshot.storage.k8s.io" => source.kind == "VolumeSnapshot",
        _ => false,
    }
}

fn pod_spec(spec: &mut PodSpec) {
    default(&mut spec.restart_policy, "Always");
    default(&mut spec.scheduler_name, "default-scheduler");
    default(&mut spec.dns_policy, "ClusterFirst");
    spec.termination_grace_period_seconds.get_or_insert(30);
    for volume in spec.volumes.iter_mut().flatten() {
        if super::validate::volume_sources(volume).next().is_none() {
            volume.empty_dir = Some(EmptyDirVolumeSource::default());
        }
        template(volume);
    }
}

fn template(volume: &mut Volume) {
    let template = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut());
    if let Some(template) = template {
        claim_spec(&mut template.spec);
    }
}

fn default(field: &mut Option<String>, value: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(value.into());
    }
}
