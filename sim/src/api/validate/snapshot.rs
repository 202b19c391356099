//! The snapshot kinds, as the rules in their CRDs have it.

use super::super::refusal::FieldErrors;
use super::super::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};

const DELETION_POLICIES: [&str; 2] = ["Delete", "Retain"];

/// Checks a snapshot.
pub(super) fn snapshot(snapshot: &VolumeSnapshot, errors: &mut FieldErrors) {
    let source = &snapshot.spec.source;
    let (claim, content) = (
        &source.persistent_volume_claim_name,
        &source.volume_snapshot_content_name,
    );
    if claim.is_some() == content.is_some() {
        let why = "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set";
        errors.invalid("spec.source", "object", why);
    }
    if snapshot.spec.volume_snapshot_class_name.as_deref() == Some("") {
        let why = "volumeSnapshotClassName must not be the empty string when set";
        errors.invalid("spec.volumeSnapshotClassName", "", why);
    }
}

/// Checks what an update made of a snapshot: its source stays.
pub(super) fn snapshot_transition(old: &VolumeSnapshot, new: &VolumeSnapshot, errors: &mut FieldErrors) {
    if old.spec.source != new.spec.source {
        errors.invalid("spec.source", "object", "source is immutable");
    }
}

/// Checks a snapshot content.
pub(super) fn content(content: &VolumeSnapshotContent, errors: &mut FieldErrors) {
    let spec = &content.spec;
    policy("spec.deletionPolicy", &spec.deletion_policy, errors);
    if spec.driver.is_empty() {
        errors.required("spec.driver", "");
    }
    if spec.source.volume_handle.is_some() == spec.source.snapshot_handle.is_some() {
        let why = "exactly one of volumeHandle and snapshotHandle must be set";
        errors.invalid("spec.source", "object", why);
    }
    let reference = &spec.volume_snapshot_ref;
    for (part, value) in [("name", &reference.name), ("namespace", &reference.namespace)] {
        if value.as_deref().is_none_or(str::is_empty) {
            errors.invalid(
                "spec.volumeSnapshotRef",
                "object",
                format_args!(
                    "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set: no {part}"
                ),
            );
        }
    }
}

/// Checks what an update made of a content: source and mode stay, the mode may be set once.
pub(super) fn content_transition(old: &VolumeSnapshotContent, new: &VolumeSnapshotContent, errors: &mut FieldErrors) {
    if old.spec.source != new.spec.source {
        errors.invalid("spec.source", "object", "source is immutable");
    }
    if old.spec.source_volume_mode.is_some() && old.spec.source_volume_mode != new.spec.source_volume_mode {
        let shown = new.spec.source_volume_mode.as_deref().unwrap_or_default();
        errors.invalid("spec.sourceVolumeMode", shown, "sourceVolumeMode is immutable");
    }
}

/// Checks a snapshot class.
pub(super) fn class(class: &VolumeSnapshotClass, errors: &mut FieldErrors) {
    policy("deletionPolicy", &class.deletion_policy, errors);
    if class.driver.is_empty() {
        errors.required("driver", "");
    }
}

fn policy(path: &str, policy: &str, errors: &mut FieldErrors) {
    if !DELETION_POLICIES.contains(&policy) {
        errors.unsupported(path, policy, &DELETION_POLICIES);
    }
}
