//! What the server refuses with 422, field by field, as the real one words it in substance.
//!
//! New objects are checked wholly; changed ones for what may not change, and again wholly when the client could have touched anything.
//! Blind spots: what no storage process reads is not checked (probes, ports, security contexts, affinities), nor are quotas of sizes in bytes.

mod claim;
mod pod;
mod snapshot;
mod storage;
mod volume;

use super::object::{Kind, Object, ObjectRef};
use super::refusal::FieldErrors;
use super::strategy::Part;
use super::write::{ApiError, Strings};
use super::{fields, quantity};

pub(super) use pod::volume_sources;

/// All annotations of an object together.
const ANNOTATION_BYTES: usize = 256 * 1024;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'example.com')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                     and must start and end with an alphanumeric character (e.g. 'my-name')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character, with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                           and must start and end with an alphanumeric character";

/// Checks a new object.
pub(super) fn create(object: &Object) -> Result<(), ApiError> {
    let mut errors = FieldErrors::default();
    metadata(object, &mut errors);
    whole(object, &mut errors);
    errors.verdict(object.kind(), fields::name(object.meta()))
}

/// Checks what a write made of a stored object. `foreign`: the client could have touched anything.
pub(super) fn update(old: &Object, new: &Object, part: Part, foreign: bool) -> Result<(), ApiError> {
    let mut errors = FieldErrors::default();
    no_new_finalizers(old, new, &mut errors);
    if foreign {
        metadata(new, &mut errors);
    }
    match (part, new) {
        (Part::Status, Object::VolumeAttachment(attachment)) => storage::attachment_status(attachment, &mut errors),
        (Part::Main, _) if foreign => {
            whole(new, &mut errors);
            transition(old, new, &mut errors);
        }
        (Part::Main | Part::Status, _) => {}
    }
    errors.verdict(new.kind(), fields::name(new.meta()))
}

/// Checks that a PUT or a user's patch leaves alone the metadata that is nobody's to change.
pub(super) fn metadata_kept(old: &Object, new: &Object) -> Result<(), ApiError> {
    let (before, after) = (old.meta(), new.meta());
    let mut errors = FieldErrors::default();
    // What is absent in the body is taken from the stored object, and so is the whole of a set deletion.
    if before.deletion_timestamp.is_none() {
        if let Some(time) = &after.deletion_timestamp {
            errors.invalid("metadata.deletionTimestamp", time.0, "field is immutable");
        }
        if let Some(grace) = after.deletion_grace_period_seconds {
            errors.invalid("metadata.deletionGracePeriodSeconds", grace, "field is immutable");
        }
    }
    if let (Some(before), Some(after)) = (before.generation, after.generation)
        && after < before
        && after != 0
    {
        errors.invalid("metadata.generation", after, "must not be decremented");
    }
    errors.verdict(new.kind(), fields::name(after))
}

/// 422: an object with neither name nor generateName.
pub(super) fn nameless(kind: Kind) -> Result<(), ApiError> {
    let mut errors = FieldErrors::default();
    errors.required("metadata.name", "name or generateName is required");
    errors.verdict(kind, "")
}

/// 422: a PUT without resourceVersion of a kind that demands one.
pub(super) fn no_version(target: &ObjectRef) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.invalid("metadata.resourceVersion", "0x0", "must be specified for an update");
    match errors.verdict(target.kind, &target.key.name) {
        Err(refusal) => refusal,
        Ok(()) => unreachable!("an error was just noted"),
    }
}

fn whole(object: &Object, errors: &mut FieldErrors) {
    match object {
        Object::PersistentVolumeClaim(claim) => {
            claim::spec(claim.spec.as_ref(), "spec", errors);
        }
        Object::PersistentVolume(volume) => volume::volume(volume, errors),
        Object::Pod(pod) => pod::pod(pod, errors),
        Object::StorageClass(class) => storage::class(class, errors),
        Object::CSIDriver(driver) => storage::driver(driver, errors),
        Object::VolumeAttachment(attachment) => storage::attachment(attachment, errors),
        Object::CSINode(node) => storage::node(node, errors),
        Object::CSIStorageCapacity(capacity) => storage::capacity(capacity, errors),
        Object::VolumeAttributesClass(class) => storage::attributes_class(class, errors),
        Object::VolumeSnapshot(snapshot) => snapshot::snapshot(snapshot, errors),
        Object::VolumeSnapshotContent(content) => snapshot::content(content, errors),
        Object::VolumeSnapshotClass(class) => snapshot::class(class, errors),
        Object::Event(event) => {
            let involved = event.involved_object.namespace.as_deref().unwrap_or_default();
            let namespace = fields::namespace(&event.metadata);
            if !involved.is_empty() && involved != namespace {
                errors.invalid("involvedObject.namespace", involved, "does not match event.namespace");
            }
        }
        Object::Namespace(_) | Object::Node(_) | Object::Secret(_) => {}
        Object::ConfigMap(_) | Object::ServiceAccount(_) => {}
    }
}

fn transition(old: &Object, new: &Object, errors: &mut FieldErrors) {
    match (old, new) {
        (Object::PersistentVolumeClaim(o), Object::PersistentVolumeClaim(n)) => claim::transition(o, n, errors),
        (Object::PersistentVolume(o), Object::PersistentVolume(n)) => volume::transition(o, n, errors),
        (Object::Pod(o), Object::Pod(n)) => pod::transition(o, n, errors),
        (Object::StorageClass(o), Object::StorageClass(n)) => storage::class_transition(o, n, errors),
        (Object::CSIDriver(o), Object::CSIDriver(n)) => storage::driver_transition(o, n, errors),
        (Object::CSINode(o), Object::CSINode(n)) => storage::node_transition(o, n, errors),
        (Object::CSIStorageCapacity(o), Object::CSIStorageCapacity(n)) => storage::capacity_transition(o, n, errors),
        (Object::VolumeAttributesClass(o), Object::VolumeAttributesClass(n)) => {
            storage::attributes_class_transition(o, n, errors);
        }
        (Object::VolumeAttachment(o), Object::VolumeAttachment(n)) if o.spec != n.spec => {
            errors.invalid("spec", "…", "field is immutable");
        }
        (Object::VolumeSnapshot(o), Object::VolumeSnapshot(n)) => snapshot::snapshot_transition(o, n, errors),
        (Object::VolumeSnapshotContent(o), Object::VolumeSnapshotContent(n)) => {
            snapshot::content_transition(o, n, errors);
        }
        (Object::Secret(o), Object::Secret(n)) => {
            let shown = n.type_.as_deref().unwrap_or_default();
            if o.type_.is_some() {
                errors.immutable("type", &o.type_, &n.type_, shown);
            }
        }
        _ => {}
    }
}

fn no_new_finalizers(old: &Object, new: &Object, errors: &mut FieldErrors) {
    if new.meta().deletion_timestamp.is_none() {
        return;
    }
    let before = fields::finalizers(old.meta());
    let added: Vec<&String> = fields::finalizers(new.meta())
        .iter()
        .filter(|f| !before.contains(f))
        .collect();
    if !added.is_empty() {
        let why =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        errors.forbidden("metadata.finalizers", why);
    }
}

fn metadata(object: &Object, errors: &mut FieldErrors) {
    let meta = object.meta();
    let name = fields::name(meta);
    match object.kind() {
        // Kubernetes lets events be called anything that fits into a path.
        Kind::Event => {}
        Kind::Namespace => dns_label("metadata.name", name, errors),
        _ => subdomain("metadata.name", name, errors),
    }
    if object.kind().namespaced() {
        dns_label("metadata.namespace", fields::namespace(meta), errors);
    }
    labels("metadata.labels", meta.labels.as_ref(), errors);
    let mut size = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        size += key.len() + value.len();
        qualified("metadata.annotations", &key.to_lowercase(), errors);
    }
    if size > ANNOTATION_BYTES {
        errors.too_long("metadata.annotations", ANNOTATION_BYTES);
    }
    for finalizer in fields::finalizers(meta) {
        qualified("metadata.finalizers", finalizer, errors);
        if !finalizer.contains('/') {
            errors.invalid(
                "metadata.finalizers",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    let mut controllers = 0;
    for (i, owner) in meta.owner_references.iter().flatten().enumerate() {
        controllers += usize::from(owner.controller == Some(true));
        let parts = [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)];
        for (part, value) in parts {
            if value.is_empty() {
                errors.required(format_args!("metadata.ownerReferences[{i}].{part}"), "");
            }
        }
    }
    if controllers > 1 {
        errors.invalid(
            "metadata.ownerReferences",
            controllers,
            "Only one reference can have Controller set to true",
        );
    }
}

fn labels(path: &str, labels: Option<&Strings>, errors: &mut FieldErrors) {
    for (key, value) in labels.into_iter().flatten() {
        qualified(path, key, errors);
        if value.len() > 63 || !(value.is_empty() || is_word(value, "-_.")) {
            errors.invalid(path, value, LABEL_VALUE);
        }
    }
}

/// A DNS subdomain: the names of most objects.
fn subdomain(path: impl std::fmt::Display, value: &str, errors: &mut FieldErrors) {
    if value.len() > 253 {
        errors.invalid(path, value, "must be no more than 253 bytes");
    } else if !is_subdomain(value) {
        errors.invalid(path, value, SUBDOMAIN);
    }
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_lower_word)
}

/// A DNS label: namespaces, volumes and containers in pods.
fn dns_label(path: impl std::fmt::Display, value: &str, errors: &mut FieldErrors) {
    if value.len() > 63 {
        errors.invalid(path, value, "must be no more than 63 bytes");
    } else if !is_lower_word(value) {
        errors.invalid(path, value, LABEL);
    }
}

/// A name with an optional prefix: labels, annotations, provisioners.
fn qualified(path: impl std::fmt::Display, value: &str, errors: &mut FieldErrors) {
    let (prefix, name) = match value.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, value),
    };
    let fine = name.len() <= 63
        && is_word(name, "-_.")
        && prefix.is_none_or(|p| !p.is_empty() && p.len() <= 253 && is_subdomain(p));
    if !fine {
        errors.invalid(path, value, QUALIFIED);
    }
}

/// The name of a CSI driver: a subdomain of at most 63 bytes, capitals allowed.
///
/// A driver name with a slash, as old tutorials have it (`com.example.team/csi-driver`), is refused by Kubernetes, and so it is here.
fn driver_name(path: impl std::fmt::Display + Copy, value: &str, errors: &mut FieldErrors) {
    if value.is_empty() {
        errors.required(path, "");
        return;
    }
    if value.len() > 63 {
        errors.too_long(path, 63);
    }
    if !is_subdomain(&value.to_lowercase()) {
        errors.invalid(path, value, SUBDOMAIN);
    }
}

fn is_lower_word(value: &str) -> bool {
    is_word(value, "-") && !value.bytes().any(|b| b.is_ascii_uppercase())
}

/// Letters and digits, with some others between the first and the last.
fn is_word(value: &str, between: &str) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || between.as_bytes().contains(b))
}

/// An amount that must be more than nothing.
fn positive(
    path: impl std::fmt::Display + Copy,
    amount: &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
    errors: &mut FieldErrors,
) {
    match quantity::Amount::parse(&amount.0) {
        Err(why) => errors.invalid(path, &amount.0, why),
        Ok(amount) if amount.is_negative() || amount.ceil() == 0 => {
            errors.invalid(path, amount.canonical(), "must be greater than zero");
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{FieldErrors, driver_name, qualified, subdomain};

    #[test]
    fn names_are_what_dns_allows() {
        for (name, fine) in [
            ("data", true),
            ("a.b-c.d", true),
            ("0", true),
            ("Data", false),
            ("-a", false),
            ("a-", false),
            ("a..b", false),
            ("a_b", false),
            ("", false),
            (&"x".repeat(253), true),
            (&"x".repeat(254), false),
        ] {
            let mut errors = FieldErrors::default();
            subdomain("metadata.name", name, &mut errors);
            assert_eq!(errors.is_empty(), fine, "{name}");
        }
    }

    #[test]
    fn a_driver_name_has_no_slash_but_a_provisioner_may() {
        let mut errors = FieldErrors::default();
        qualified("provisioner", "com.example.team/csi-driver", &mut errors);
        driver_name("spec.csi.driver", "Hostpath.csi.k8s.io", &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        driver_name("spec.csi.driver", "com.example.team/csi-driver", &mut errors);
        assert!(!errors.is_empty());
    }
}
