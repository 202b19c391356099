//! The kinds of `storage.k8s.io`: classes, drivers, attachments, what nodes offer.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass, VolumeError,
};

use super::super::quantity::Amount;
use super::super::refusal::FieldErrors;
use super::super::write::Strings;
use super::{driver_name, qualified, subdomain};

/// The longest error message in an attachment, in bytes.
const ERROR_BYTES: usize = 1024;
/// The most metadata of an attachment, and parameters of a class, in bytes.
const MAP_BYTES: usize = 256 * 1024;
/// The most parameters of a class.
const MAX_PARAMETERS: usize = 512;
/// The longest driver's id of a node, in bytes.
const NODE_ID_BYTES: usize = 256;

/// Checks a storage class.
pub(super) fn class(class: &StorageClass, errors: &mut FieldErrors) {
    if class.provisioner.is_empty() {
        errors.required("provisioner", "");
    } else {
        qualified("provisioner", &class.provisioner.to_lowercase(), errors);
    }
    parameters(class.parameters.as_ref(), errors);
    let choices: [(_, _, &[&str]); 2] = [
        ("reclaimPolicy", &class.reclaim_policy, &["Delete", "Retain"]),
        (
            "volumeBindingMode",
            &class.volume_binding_mode,
            &["Immediate", "WaitForFirstConsumer"],
        ),
    ];
    for (field, value, supported) in choices {
        match value.as_deref() {
            None => errors.required(field, ""),
            Some(value) if !supported.contains(&value) => errors.unsupported(field, value, supported),
            Some(_) => {}
        }
    }
    for (i, term) in class.allowed_topologies.iter().flatten().enumerate() {
        for (j, label) in term.match_label_expressions.iter().flatten().enumerate() {
            let path = format!("allowedTopologies[{i}].matchLabelExpressions[{j}]");
            if label.key.is_empty() {
                errors.required(format_args!("{path}.key"), "");
            }
            if label.values.is_empty() {
                errors.required(format_args!("{path}.values"), "");
            }
            let mut seen = BTreeSet::new();
            for (k, value) in label.values.iter().enumerate() {
                if !seen.insert(value) {
                    errors.duplicate(format_args!("{path}.values[{k}]"), value);
                }
            }
        }
    }
}

fn parameters(parameters: Option<&Strings>, errors: &mut FieldErrors) {
    let parameters = || parameters.into_iter().flatten();
    if parameters().count() > MAX_PARAMETERS {
        errors.too_long("parameters", MAX_PARAMETERS);
    }
    if parameters().any(|(key, _)| key.is_empty()) {
        errors.invalid("parameters", "", "field can not be empty.");
    }
    if parameters().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAP_BYTES {
        errors.too_long("parameters", MAP_BYTES);
    }
}

/// Checks what an update made of a class: only expansion, mount options, topologies and metadata may change.
pub(super) fn class_transition(old: &StorageClass, new: &StorageClass, errors: &mut FieldErrors) {
    if old.parameters != new.parameters {
        errors.forbidden("parameters", "updates to parameters are forbidden.");
    }
    if old.provisioner != new.provisioner {
        errors.forbidden("provisioner", "updates to provisioner are forbidden.");
    }
    if old.reclaim_policy != new.reclaim_policy {
        errors.forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden.");
    }
    let mode = new.volume_binding_mode.as_deref().unwrap_or_default();
    errors.immutable(
        "volumeBindingMode",
        &old.volume_binding_mode,
        &new.volume_binding_mode,
        mode,
    );
}

/// Checks a CSIDriver object.
pub(super) fn driver(driver: &CSIDriver, errors: &mut FieldErrors) {
    driver_name(
        "metadata.name",
        driver.metadata.name.as_deref().unwrap_or_default(),
        errors,
    );
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    let policy = driver.spec.fs_group_policy.as_deref().unwrap_or_default();
    if !policies.contains(&policy) {
        errors.unsupported("spec.fsGroupPolicy", policy, &policies);
    }
    for mode in driver.spec.volume_lifecycle_modes.iter().flatten() {
        if mode != "Persistent" && mode != "Ephemeral" {
            errors.unsupported("spec.volumeLifecycleModes", mode, &["Ephemeral", "Persistent"]);
        }
    }
    let mut audiences = BTreeSet::new();
    for (i, request) in driver.spec.token_requests.iter().flatten().enumerate() {
        if !audiences.insert(&request.audience) {
            errors.duplicate(format_args!("spec.tokenRequests[{i}].audience"), &request.audience);
        }
        if let Some(seconds) = request.expiration_seconds.filter(|s| *s < 600) {
            let path = format_args!("spec.tokenRequests[{i}].expirationSeconds");
            errors.invalid(path, seconds, "may not specify a duration less than 10 minutes");
        }
    }
    if let Some(seconds) = driver.spec.node_allocatable_update_period_seconds.filter(|s| *s < 10) {
        let why = "must be greater than or equal to 10 seconds";
        errors.invalid("spec.nodeAllocatableUpdatePeriodSeconds", seconds, why);
    }
}

/// Checks what an update made of a CSIDriver: whether it attaches, and for which volumes it is, stays.
pub(super) fn driver_transition(old: &CSIDriver, new: &CSIDriver, errors: &mut FieldErrors) {
    let (before, after) = (&old.spec, &new.spec);
    let attach = after.attach_required.unwrap_or(true);
    errors.immutable(
        "spec.attachRequired",
        &before.attach_required,
        &after.attach_required,
        attach,
    );
    let modes = after.volume_lifecycle_modes.as_deref().unwrap_or_default().join(",");
    errors.immutable(
        "spec.volumeLifecycleModes",
        &before.volume_lifecycle_modes,
        &after.volume_lifecycle_modes,
        modes,
    );
}

/// Checks an attachment.
pub(super) fn attachment(attachment: &VolumeAttachment, errors: &mut FieldErrors) {
    driver_name("spec.attacher", &attachment.spec.attacher, errors);
    let source = &attachment.spec.source;
    match (&source.inline_volume_spec, source.persistent_volume_name.as_deref()) {
        (None, None) => errors.required(
            "spec.source",
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
        (Some(_), Some(_)) => {
            errors.forbidden(
                "spec.source",
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            );
        }
        (None, Some(name)) => subdomain("spec.source.persistentVolumeName", name, errors),
        (Some(_), None) => {}
    }
    subdomain("spec.nodeName", &attachment.spec.node_name, errors);
    attachment_status(attachment, errors);
}

/// Checks the status of an attachment.
pub(super) fn attachment_status(attachment: &VolumeAttachment, errors: &mut FieldErrors) {
    let Some(status) = &attachment.status else { return };
    let too_long = |error: &Option<VolumeError>| {
        let message = error.as_ref().and_then(|e| e.message.as_deref());
        message.is_some_and(|m| m.len() > ERROR_BYTES)
    };
    for (field, error) in [
        ("attachError", &status.attach_error),
        ("detachError", &status.detach_error),
    ] {
        if too_long(error) {
            errors.too_long(format_args!("status.{field}.message"), ERROR_BYTES);
        }
    }
    let metadata = status.attachment_metadata.iter().flatten();
    if metadata.map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAP_BYTES {
        errors.too_long("status.attachmentMetadata", MAP_BYTES);
    }
}

/// Checks what a node offers.
pub(super) fn node(node: &CSINode, errors: &mut FieldErrors) {
    let mut names = BTreeSet::new();
    for (i, driver) in node.spec.drivers.iter().enumerate() {
        let path = format!("spec.drivers[{i}]");
        driver_name(format_args!("{path}.name"), &driver.name, errors);
        if !names.insert(&driver.name) {
            errors.duplicate(format_args!("{path}.name"), &driver.name);
        }
        if driver.node_id.is_empty() {
            errors.required(format_args!("{path}.nodeID"), "");
        } else if driver.node_id.len() > NODE_ID_BYTES {
            let why = format!("must be {NODE_ID_BYTES} characters or less");
            errors.invalid(format_args!("{path}.nodeID"), &driver.node_id, why);
        }
        let count = driver.allocatable.as_ref().and_then(|a| a.count);
        if let Some(count) = count.filter(|c| *c < 0) {
            let path = format_args!("{path}.allocatable.count");
            errors.invalid(path, count, "must be greater than or equal to 0");
        }
        let mut keys = BTreeSet::new();
        for key in driver.topology_keys.iter().flatten() {
            qualified(format_args!("{path}.topologyKeys"), key, errors);
            if !keys.insert(key) {
                errors.duplicate(format_args!("{path}.topologyKeys"), key);
            }
        }
    }
}

/// Checks what an update made of a CSINode: a driver that stays keeps its id and topology; its count may change.
pub(super) fn node_transition(old: &CSINode, new: &CSINode, errors: &mut FieldErrors) {
    for (i, driver) in new.spec.drivers.iter().enumerate() {
        let before = old.spec.drivers.iter().find(|d| d.name == driver.name);
        if before.is_some_and(|b| b.node_id != driver.node_id || b.topology_keys != driver.topology_keys) {
            errors.invalid(format_args!("spec.drivers[{i}]"), &driver.name, "field is immutable");
        }
    }
}

/// Checks a storage capacity.
pub(super) fn capacity(capacity: &CSIStorageCapacity, errors: &mut FieldErrors) {
    if capacity.storage_class_name.is_empty() {
        errors.required("storageClassName", "");
    } else {
        subdomain("storageClassName", &capacity.storage_class_name, errors);
    }
    for (field, amount) in [
        ("capacity", &capacity.capacity),
        ("maximumVolumeSize", &capacity.maximum_volume_size),
    ] {
        let Some(amount) = amount else { continue };
        match Amount::parse(&amount.0) {
            Err(why) => errors.invalid(field, &amount.0, why),
            Ok(parsed) if parsed.is_negative() => {
                errors.invalid(field, &amount.0, "must be greater than or equal to 0");
            }
            Ok(_) => {}
        }
    }
}

/// Checks what an update made of a storage capacity: only the amounts may change.
pub(super) fn capacity_transition(old: &CSIStorageCapacity, new: &CSIStorageCapacity, errors: &mut FieldErrors) {
    if old.node_topology != new.node_topology {
        errors.invalid("nodeTopology", "…", "field is immutable");
    }
    let class = &new.storage_class_name;
    errors.immutable("storageClassName", &old.storage_class_name, class, class);
}

/// Checks an attributes class.
pub(super) fn attributes_class(class: &VolumeAttributesClass, errors: &mut FieldErrors) {
    driver_name("driverName", &class.driver_name, errors);
    if class.parameters.as_ref().is_none_or(Strings::is_empty) {
        errors.required("parameters", "");
    }
    parameters(class.parameters.as_ref(), errors);
}

/// Checks what an update made of an attributes class: nothing but metadata may change.
pub(super) fn attributes_class_transition(
    old: &VolumeAttributesClass,
    new: &VolumeAttributesClass,
    errors: &mut FieldErrors,
) {
    errors.immutable("driverName", &old.driver_name, &new.driver_name, &new.driver_name);
    if old.parameters != new.parameters {
        errors.forbidden("parameters", "updates to parameters are forbidden.");
    }
}
