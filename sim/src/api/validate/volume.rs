//! Volumes: what they must say, and what of it is fixed.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, SecretReference};

use super::super::refusal::FieldErrors;
use super::{claim, driver_name, positive, subdomain};

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];

/// Checks a volume.
pub(super) fn volume(volume: &PersistentVolume, errors: &mut FieldErrors) {
    let Some(spec) = &volume.spec else {
        errors.required("spec", "");
        return;
    };
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required("spec.accessModes", "");
    }
    claim::access_modes(modes, "spec", errors);
    let capacity = spec.capacity.iter().flatten();
    match capacity.clone().find(|(name, _)| *name == "storage") {
        None => errors.required("spec.capacity", ""),
        Some((_, amount)) => positive("spec.capacity[storage]", amount, errors),
    }
    for (name, _) in capacity.filter(|(name, _)| *name != "storage") {
        errors.unsupported("spec.capacity", name, &["storage"]);
    }
    let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default();
    if !RECLAIM_POLICIES.contains(&policy) {
        errors.unsupported("spec.persistentVolumeReclaimPolicy", policy, &RECLAIM_POLICIES);
    }
    claim::volume_mode(spec.volume_mode.as_deref(), "spec", errors);
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        subdomain("spec.storageClassName", class, errors);
    }
    one_source(spec, errors);
    csi(spec, errors);
    affinity(spec, errors);
}

fn one_source(spec: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let mut sources = sources(spec);
    if sources.next().is_none() {
        errors.required("spec", "must specify a volume type");
    }
    for extra in sources {
        errors.forbidden(format_args!("spec.{extra}"), "may not specify more than 1 volume type");
    }
}

/// The names of the sources that are set.
fn sources(spec: &PersistentVolumeSpec) -> impl Iterator<Item = &'static str> {
    [
        ("awsElasticBlockStore", spec.aws_elastic_block_store.is_some()),
        ("azureDisk", spec.azure_disk.is_some()),
        ("azureFile", spec.azure_file.is_some()),
        ("cephfs", spec.cephfs.is_some()),
        ("cinder", spec.cinder.is_some()),
        ("csi", spec.csi.is_some()),
        ("fc", spec.fc.is_some()),
        ("flexVolume", spec.flex_volume.is_some()),
        ("flocker", spec.flocker.is_some()),
        ("gcePersistentDisk", spec.gce_persistent_disk.is_some()),
        ("glusterfs", spec.glusterfs.is_some()),
        ("hostPath", spec.host_path.is_some()),
        ("iscsi", spec.iscsi.is_some()),
        ("local", spec.local.is_some()),
        ("nfs", spec.nfs.is_some()),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some()),
        ("portworxVolume", spec.portworx_volume.is_some()),
        ("quobyte", spec.quobyte.is_some()),
        ("rbd", spec.rbd.is_some()),
        ("scaleIO", spec.scale_io.is_some()),
        ("storageos", spec.storageos.is_some()),
        ("vsphereVolume", spec.vsphere_volume.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
}

fn csi(spec: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let Some(csi) = &spec.csi else { return };
    driver_name("spec.csi.driver", &csi.driver, errors);
    if csi.volume_handle.is_empty() {
        errors.required("spec.csi.volumeHandle", "");
    }
    let secrets = [
        ("controllerPublishSecretRef", &csi.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &csi.controller_expand_secret_ref),
        ("nodePublishSecretRef", &csi.node_publish_secret_ref),
        ("nodeStageSecretRef", &csi.node_stage_secret_ref),
        ("nodeExpandSecretRef", &csi.node_expand_secret_ref),
    ];
    for (field, secret) in secrets {
        if let Some(secret) = secret {
            secret_reference(field, secret, errors);
        }
    }
}

fn secret_reference(field: &str, secret: &SecretReference, errors: &mut FieldErrors) {
    for (part, value) in [("name", &secret.name), ("namespace", &secret.namespace)] {
        if value.as_deref().is_none_or(str::is_empty) {
            errors.required(format_args!("spec.csi.{field}.{part}"), "");
        }
    }
}

fn affinity(spec: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let Some(affinity) = &spec.node_affinity else {
        if spec.local.is_some() {
            errors.required("spec.nodeAffinity", "Local volume requires node affinity");
        }
        return;
    };
    match &affinity.required {
        None => errors.required("spec.nodeAffinity.required", "must specify required node constraints"),
        Some(required) if required.node_selector_terms.is_empty() => {
            let why = "must have at least one node selector term";
            errors.required("spec.nodeAffinity.required.nodeSelectorTerms", why);
        }
        Some(_) => {}
    }
}

/// Checks what an update made of a volume: the source stays, mode and affinity too.
pub(super) fn transition(old: &PersistentVolume, new: &PersistentVolume, errors: &mut FieldErrors) {
    let (Some(before), Some(after)) = (&old.spec, &new.spec) else {
        return;
    };
    if before == after {
        return;
    }
    if source_only(before, before) != source_only(after, before) {
        errors.forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    let mode = after.volume_mode.as_deref().unwrap_or_default();
    errors.immutable("spec.volumeMode", &before.volume_mode, &after.volume_mode, mode);
    if before.node_affinity.is_some() && before.node_affinity != after.node_affinity {
        errors.invalid("spec.nodeAffinity", "…", "field is immutable");
    }
}

/// A spec with nothing but its source. A secret for expansion may be added to a volume that had none.
fn source_only(spec: &PersistentVolumeSpec, before: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    let mut source = PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    };
    let had_secret = before
        .csi
        .as_ref()
        .is_some_and(|c| c.controller_expand_secret_ref.is_some());
    if let (Some(csi), false) = (&mut source.csi, had_secret) {
        csi.controller_expand_secret_ref = None;
    }
    source
}
