//! Claims: what they must say, and the little of it that may change.

use std::fmt::Display;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};

use super::super::fields;
use super::super::refusal::FieldErrors;
use super::{positive, subdomain};

/// The access modes, in the order in which messages list them.
pub(super) const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// The volume modes.
pub(super) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// Checks the spec of a claim, or of the template of one.
pub(super) fn spec(spec: Option<&PersistentVolumeClaimSpec>, path: &str, errors: &mut FieldErrors) {
    let Some(spec) = spec else {
        errors.required(path, "");
        return;
    };
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(format_args!("{path}.accessModes"), "at least 1 access mode is required");
    }
    access_modes(modes, path, errors);
    let request = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref()?.get("storage"));
    match request {
        None => errors.required(format_args!("{path}.resources[storage]"), ""),
        Some(amount) => positive(format_args!("{path}.resources[storage]"), amount, errors),
    }
    volume_mode(spec.volume_mode.as_deref(), path, errors);
    let names = [
        ("storageClassName", &spec.storage_class_name),
        ("volumeAttributesClassName", &spec.volume_attributes_class_name),
    ];
    for (field, name) in names {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            subdomain(format_args!("{path}.{field}"), name, errors);
        }
    }
    sources(spec, path, errors);
}

/// Checks access modes against the list, and that ReadWriteOncePod stands alone.
pub(super) fn access_modes(modes: &[String], path: impl Display, errors: &mut FieldErrors) {
    for mode in modes {
        if !ACCESS_MODES.contains(&mode.as_str()) {
            errors.unsupported(format_args!("{path}.accessModes"), mode, &ACCESS_MODES);
        }
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.forbidden(
            format_args!("{path}.accessModes"),
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

/// Checks a volume mode against the list.
pub(super) fn volume_mode(mode: Option<&str>, path: impl Display, errors: &mut FieldErrors) {
    if let Some(mode) = mode.filter(|m| !VOLUME_MODES.contains(m)) {
        errors.unsupported(format_args!("{path}.volumeMode"), mode, &VOLUME_MODES);
    }
}

fn sources(spec: &PersistentVolumeClaimSpec, path: &str, errors: &mut FieldErrors) {
    if let Some(source) = &spec.data_source {
        source_parts(&source.kind, &source.name, &format!("{path}.dataSource"), errors);
        if source.api_group.as_deref().is_none_or(str::is_empty) && source.kind != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid(format_args!("{path}.dataSource"), &source.kind, why);
        }
    }
    let Some(reference) = &spec.data_source_ref else { return };
    source_parts(
        &reference.kind,
        &reference.name,
        &format!("{path}.dataSourceRef"),
        errors,
    );
    if let Some(source) = &spec.data_source {
        let same = (
            source.api_group.as_deref().unwrap_or_default(),
            &source.kind,
            &source.name,
        ) == (
            reference.api_group.as_deref().unwrap_or_default(),
            &reference.kind,
            &reference.name,
        );
        if !same {
            errors.invalid(path, "", "must match dataSourceRef");
        }
    }
}

fn source_parts(kind: &str, name: &str, path: &str, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(format_args!("{path}.name"), "");
    }
    if kind.is_empty() {
        errors.required(format_args!("{path}.kind"), "");
    }
}

/// Checks what an update made of a claim.
///
/// The volume's name may be set once, the class once by whoever fills in a default; size and attributes class may change while the claim is bound.
/// A size may fall only to something above the capacity reached: that is how a user recovers from a failed expansion.
pub(super) fn transition(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    let (Some(before), Some(after)) = (&old.spec, &new.spec) else {
        return;
    };
    let bound = fields::claim_phase(old) == "Bound";
    let mut comparable = after.clone();
    if fields::claim_volume(old).is_empty() {
        comparable.volume_name.clone_from(&before.volume_name);
    }
    if fields::claim_class(old).is_none() {
        comparable.storage_class_name = None;
    }
    if bound {
        let request = before
            .resources
            .as_ref()
            .and_then(|r| r.requests.as_ref()?.get("storage"));
        let requests = comparable.resources.as_mut().and_then(|r| r.requests.as_mut());
        if let (Some(request), Some(requests)) = (request, requests) {
            requests.insert("storage".into(), request.clone());
        }
        comparable
            .volume_attributes_class_name
            .clone_from(&before.volume_attributes_class_name);
    }
    if comparable != *before {
        let why =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden("spec", format_args!("{why}: {}", difference(before, &comparable)));
    }
    let size = fields::claim_request(new);
    if size < fields::claim_request(old) && size <= fields::claim_capacity(old) {
        errors.forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        );
    }
    attributes_class(old, new, errors);
}

fn attributes_class(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    let class =
        |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    let status = old.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    if class(old) == class(new) || current.is_none_or(str::is_empty) {
        return;
    }
    match class(new).as_deref() {
        None => errors.forbidden(
            "spec.volumeAttributesClassName",
            "update from non-nil value to nil is forbidden",
        ),
        Some("") => errors.forbidden(
            "spec.volumeAttributesClassName",
            "update from non-empty value to an empty string is forbidden",
        ),
        Some(_) => {}
    }
}

/// Names the fields that differ.
fn difference(old: &PersistentVolumeClaimSpec, new: &PersistentVolumeClaimSpec) -> String {
    let fields = [
        ("accessModes", old.access_modes != new.access_modes),
        ("dataSource", old.data_source != new.data_source),
        ("dataSourceRef", old.data_source_ref != new.data_source_ref),
        ("resources", old.resources != new.resources),
        ("selector", old.selector != new.selector),
        ("storageClassName", old.storage_class_name != new.storage_class_name),
        (
            "volumeAttributesClassName",
            old.volume_attributes_class_name != new.volume_attributes_class_name,
        ),
        ("volumeMode", old.volume_mode != new.volume_mode),
        ("volumeName", old.volume_name != new.volume_name),
    ];
    let changed: Vec<&str> = fields.iter().filter(|(_, d)| *d).map(|(name, _)| *name).collect();
    format!("changed {}", changed.join(", "))
}
