//! Pods: their volumes, and that containers mount what exists.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};

use super::super::refusal::FieldErrors;
use super::{claim, dns_label, driver_name, subdomain};

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

/// Checks a pod.
pub(super) fn pod(pod: &Pod, errors: &mut FieldErrors) {
    let Some(spec) = &pod.spec else {
        errors.required("spec", "");
        return;
    };
    let volumes = volumes(pod, spec, errors);
    if spec.containers.is_empty() {
        errors.required("spec.containers", "");
    }
    let mut names = BTreeSet::new();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (list, containers) in [("containers", spec.containers.as_slice()), ("initContainers", init)] {
        for (i, one) in containers.iter().enumerate() {
            let path = format!("spec.{list}[{i}]");
            container(one, &path, &volumes, errors);
            if !one.name.is_empty() && !names.insert(one.name.as_str()) {
                errors.duplicate(format_args!("{path}.name"), &one.name);
            }
        }
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    if !RESTART_POLICIES.contains(&policy) {
        errors.unsupported("spec.restartPolicy", policy, &RESTART_POLICIES);
    }
    if let Some(grace) = spec.termination_grace_period_seconds.filter(|g| *g < 0) {
        let why = "must be greater than or equal to 0";
        errors.invalid("spec.terminationGracePeriodSeconds", grace, why);
    }
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        subdomain("spec.nodeName", node, errors);
    }
}

/// Checks the volumes and gives them by name.
fn volumes<'a>(pod: &Pod, spec: &'a PodSpec, errors: &mut FieldErrors) -> BTreeMap<&'a str, &'a Volume> {
    let mut by_name = BTreeMap::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        if volume.name.is_empty() {
            errors.required(format_args!("spec.volumes[{i}].name"), "");
        } else {
            dns_label(format_args!("spec.volumes[{i}].name"), &volume.name, errors);
            if by_name.insert(volume.name.as_str(), volume).is_some() {
                errors.duplicate(format_args!("spec.volumes[{i}].name"), &volume.name);
            }
        }
        for extra in volume_sources(volume).skip(1) {
            let path = format_args!("spec.volumes[{i}].{extra}");
            errors.forbidden(path, "may not specify more than 1 volume type");
        }
        source(pod, volume, &format!("spec.volumes[{i}]"), errors);
    }
    by_name
}

fn source(pod: &Pod, volume: &Volume, path: &str, errors: &mut FieldErrors) {
    if let Some(source) = &volume.persistent_volume_claim
        && source.claim_name.is_empty()
    {
        errors.required(format_args!("{path}.persistentVolumeClaim.claimName"), "");
    }
    if let Some(source) = &volume.csi {
        driver_name(format_args!("{path}.csi.driver"), &source.driver, errors);
        let secret = source.node_publish_secret_ref.as_ref();
        if secret.is_some_and(|s| s.name.is_empty()) {
            errors.required(format_args!("{path}.csi.nodePublishSecretRef.name"), "");
        }
    }
    if let Some(source) = &volume.ephemeral {
        let Some(template) = &source.volume_claim_template else {
            errors.required(format_args!("{path}.ephemeral.volumeClaimTemplate"), "");
            return;
        };
        let template_path = format!("{path}.ephemeral.volumeClaimTemplate.spec");
        claim::spec(Some(&template.spec), &template_path, errors);
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        if pod_name.len() + 1 + volume.name.len() > 253 {
            let name = format!("{pod_name}-{}", volume.name);
            errors.invalid(
                format_args!("{path}.name"),
                name,
                "PVC name \"<pod>-<volume>\" must be no more than 253 bytes",
            );
        }
    }
    if let Some(source) = &volume.host_path
        && source.path.is_empty()
    {
        errors.required(format_args!("{path}.hostPath.path"), "");
    }
}

/// The names of the sources of a volume that are set.
pub(in super::super) fn volume_sources(volume: &Volume) -> impl Iterator<Item = &'static str> {
    [
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("csi", volume.csi.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("emptyDir", volume.empty_dir.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("image", volume.image.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("projected", volume.projected.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("secret", volume.secret.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
}

fn container(container: &Container, path: &str, volumes: &BTreeMap<&str, &Volume>, errors: &mut FieldErrors) {
    if container.name.is_empty() {
        errors.required(format_args!("{path}.name"), "");
    } else {
        dns_label(format_args!("{path}.name"), &container.name, errors);
    }
    if container.image.as_deref().is_none_or(|i| i.trim().is_empty()) {
        errors.required(format_args!("{path}.image"), "");
    }
    mounts(container, path, volumes, errors);
    devices(container, path, volumes, errors);
}

fn mounts(container: &Container, path: &str, volumes: &BTreeMap<&str, &Volume>, errors: &mut FieldErrors) {
    let mut paths = BTreeSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format_args!("{path}.volumeMounts[{i}]");
        if mount.name.is_empty() {
            errors.required(format_args!("{path}.name"), "");
        } else if !volumes.contains_key(mount.name.as_str()) {
            errors.not_found(format_args!("{path}.name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(format_args!("{path}.mountPath"), "");
        } else if !paths.insert(mount.mount_path.as_str()) {
            errors.invalid(format_args!("{path}.mountPath"), &mount.mount_path, "must be unique");
        }
    }
}

fn devices(container: &Container, path: &str, volumes: &BTreeMap<&str, &Volume>, errors: &mut FieldErrors) {
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|m| m.name == name);
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = format_args!("{path}.volumeDevices[{i}]");
        match volumes.get(device.name.as_str()) {
            _ if device.name.is_empty() => errors.required(format_args!("{path}.name"), ""),
            None => errors.not_found(format_args!("{path}.name"), &device.name),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(format_args!("{path}.name"), &device.name, why);
            }
            Some(_) if !names.insert(device.name.as_str()) => {
                errors.invalid(format_args!("{path}.name"), &device.name, "must be unique");
            }
            Some(_) => {}
        }
        if device.device_path.is_empty() {
            errors.required(format_args!("{path}.devicePath"), "");
        } else if !paths.insert(device.device_path.as_str()) {
            errors.invalid(format_args!("{path}.devicePath"), &device.device_path, "must be unique");
        }
        if mounted(&device.name) {
            errors.invalid(
                format_args!("{path}.name"),
                &device.name,
                "must not already exist in volumeMounts",
            );
        }
    }
}

/// Checks what an update made of a pod: images, deadline and added tolerations may change, nothing else.
pub(super) fn transition(old: &Pod, new: &Pod, errors: &mut FieldErrors) {
    let (Some(before), Some(after)) = (&old.spec, &new.spec) else {
        return;
    };
    if before == after {
        return;
    }
    let mut comparable = after.clone();
    let pairs = comparable.containers.iter_mut().zip(&before.containers);
    let init = comparable.init_containers.iter_mut().flatten();
    for (now, then) in pairs.chain(init.zip(before.init_containers.iter().flatten())) {
        now.image.clone_from(&then.image);
    }
    comparable.active_deadline_seconds = before.active_deadline_seconds;
    comparable.scheduling_gates.clone_from(&before.scheduling_gates);
    let kept = before
        .tolerations
        .iter()
        .flatten()
        .all(|t| after.tolerations.iter().flatten().any(|n| n == t));
    if kept {
        comparable.tolerations.clone_from(&before.tolerations);
    }
    if comparable != *before {
        errors.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, \
             `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations)",
        );
    }
}
