//! Edits applied to an object. The object is copied only by an edit that changes something.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EventSeries, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::runtime::Time;

use super::clock::Clock;
use super::json_patch::{self, JsonPatchError};
use super::object::{Kind, Object};
use super::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use super::strategy::Part;
use super::write::{ApiError, Edit, Strings};
use super::{defaults, fields, merge, quantity, strategic};

/// The moment of a request, and what the wall clock shows then.
pub(super) type Now = (Clock, Time);

/// Applies one edit that was sent to `part`. Says whether it was a user's JSON, which may have touched anything.
pub(super) fn apply(object: &mut Object, edit: &Edit, part: Part, now: Now) -> Result<bool, ApiError> {
    match edit {
        Edit::Strategic(patch) => {
            if is_custom(object) {
                return Err(ApiError::unsupported_media_type(
                    "application/strategic-merge-patch+json",
                ));
            }
            let mut json = object.to_json();
            strategic::apply(&mut json, patch).map_err(ApiError::bad_request)?;
            *object = read_back(object, json)?;
            Ok(true)
        }
        Edit::Merge(patch) => {
            *object = match merge_parts(object, patch) {
                Some(merged) => merged,
                None => {
                    let mut json = object.to_json();
                    json_patch::merge(&mut json, patch);
                    read_back(object, json)?
                }
            };
            Ok(true)
        }
        Edit::Json(patch) => {
            let mut json = object.to_json();
            json_patch::apply(&mut json, patch).map_err(|e| match e {
                JsonPatchError::Malformed(_) => ApiError::bad_request(e),
                JsonPatchError::Unappliable => ApiError::unappliable(),
            })?;
            *object = read_back(object, json)?;
            Ok(true)
        }
        Edit::AddFinalizer(_) | Edit::AppendFinalizer { .. } => add_finalizer(object, edit).map(|()| false),
        Edit::RemoveFinalizer(_) | Edit::RemoveFinalizerAt { .. } => remove_finalizer(object, edit).map(|()| false),
        Edit::Annotation(key, value) => {
            set(
                object,
                |m| &m.annotations,
                |m| &mut m.annotations,
                key,
                value.as_deref(),
            );
            Ok(false)
        }
        Edit::Label(key, value) => {
            set(object, |m| &m.labels, |m| &mut m.labels, key, value.as_deref());
            Ok(false)
        }
        typed => {
            belongs(object, typed, part)?;
            if !apply_status(object, typed)? && !apply_spec(object, typed, now) {
                return Err(misdirected(object, typed, "an object of another kind"));
            }
            Ok(false)
        }
    }
}

/// Whether the object is of a custom resource: the server knows no merge keys of those.
fn is_custom(object: &Object) -> bool {
    matches!(
        object.kind(),
        Kind::VolumeSnapshot | Kind::VolumeSnapshotContent | Kind::VolumeSnapshotClass
    )
}

/// A typed edit that the server would silently drop is a bug of the controller that sent it: it is told.
fn belongs(object: &Object, edit: &Edit, part: Part) -> Result<(), ApiError> {
    let home = match edit {
        Edit::VolumeCapacity(_) | Edit::VolumeAttributesClass(_) | Edit::Taints(_) | Edit::Unschedulable(_) => {
            Part::Main
        }
        Edit::EventSeen { .. } | Edit::EventSeries { .. } => Part::Main,
        _ => Part::Status,
    };
    match (home == part, part) {
        (true, _) => Ok(()),
        (false, Part::Main) => Err(misdirected(object, edit, "the object itself, not to its status")),
        (false, Part::Status) => Err(misdirected(object, edit, "the status, not to the object itself")),
    }
}

fn misdirected(object: &Object, edit: &Edit, went_to: &str) -> ApiError {
    ApiError::bad_request(format!("{edit:?} was sent to {went_to}: {}", object.to_ref()))
}

/// Applies a merge patch of metadata, or of an attachment's status, to that part alone: the rest of the object takes no way through JSON. `None` for any
/// other patch and for one that is refused: the whole object's way says why.
fn merge_parts(object: &Object, patch: &Value) -> Option<Object> {
    let mut merged = object.clone();
    for (part, patch) in patch.as_object()? {
        match (part.as_str(), &mut merged) {
            ("metadata", merged) => {
                let (old, new) = (object.meta(), merge_part(object.meta(), patch)?);
                let kept = (&old.name, &old.namespace, &old.uid, &old.resource_version);
                if kept != (&new.name, &new.namespace, &new.uid, &new.resource_version) {
                    return None;
                }
                *merged.meta_mut() = new;
            }
            ("status", Object::VolumeAttachment(merged)) => {
                let new = merge_part(&merged.status, patch)?;
                Arc::make_mut(merged).status = new;
            }
            _ => return None,
        }
    }
    Some(merged)
}

fn merge_part<T: Serialize + DeserializeOwned>(part: &T, patch: &Value) -> Option<T> {
    let mut json = serde_json::to_value(part).ok()?;
    json_patch::merge(&mut json, patch);
    let merged: T = serde_json::from_value(json.clone()).ok()?;
    let understood = serde_json::to_value(&merged).ok()?;
    json_patch::first_unknown(&json, &understood, "")
        .is_none()
        .then_some(merged)
}

fn read_back(object: &Object, json: Value) -> Result<Object, ApiError> {
    let target = object.to_ref();
    let sent = json.clone();
    let read = Object::from_json(object.kind(), json).map_err(ApiError::bad_request)?;
    if let Some(path) = json_patch::first_unknown(&sent, &read.to_json(), "") {
        return Err(ApiError::bad_request(format!(
            "strict decoding error: unknown field \"{path}\""
        )));
    }
    if read.key() != target.key {
        let why = format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            read.key(),
            target.key
        );
        return Err(ApiError::bad_request(why));
    }
    if read.uid() != object.uid() && !read.uid().is_empty() {
        return Err(ApiError::other_uid(&target, read.uid(), object.uid()));
    }
    if read.version() != object.version() && read.meta().resource_version.is_some() {
        return Err(ApiError::stale(&target));
    }
    Ok(read)
}

fn add_finalizer(object: &mut Object, edit: &Edit) -> Result<(), ApiError> {
    let present = fields::finalizers(object.meta());
    let name = match edit {
        Edit::AppendFinalizer { expect_none: true, .. } if !present.is_empty() => return Err(ApiError::unappliable()),
        // A JSON patch appends without looking.
        Edit::AppendFinalizer { name, .. } => name,
        Edit::AddFinalizer(name) if present.contains(name) => return Ok(()),
        Edit::AddFinalizer(name) => name,
        other => unreachable!("{other:?} adds no finalizer"),
    };
    object.meta_mut().finalizers.get_or_insert_default().push(name.clone());
    Ok(())
}

fn remove_finalizer(object: &mut Object, edit: &Edit) -> Result<(), ApiError> {
    let present = fields::finalizers(object.meta());
    let index = match edit {
        Edit::RemoveFinalizer(name) => match present.iter().position(|f| f == name) {
            Some(index) => index,
            None => return Ok(()),
        },
        Edit::RemoveFinalizerAt { name, index } if present.get(*index) == Some(name) => *index,
        Edit::RemoveFinalizerAt { .. } => return Err(ApiError::unappliable()),
        other => unreachable!("{other:?} removes no finalizer"),
    };
    let finalizers = &mut object.meta_mut().finalizers;
    finalizers.get_or_insert_default().remove(index);
    finalizers.take_if(|l| l.is_empty());
    Ok(())
}

fn set(
    object: &mut Object,
    read: impl Fn(&ObjectMeta) -> &Option<Strings>,
    write: impl Fn(&mut ObjectMeta) -> &mut Option<Strings>,
    key: &str,
    value: Option<&str>,
) {
    let present = read(object.meta()).as_ref().and_then(|map| map.get(key));
    if present.map(String::as_str) == value {
        return;
    }
    let map = write(object.meta_mut());
    match value {
        Some(value) => drop(map.get_or_insert_default().insert(key.into(), value.into())),
        None => drop(map.get_or_insert_default().remove(key)),
    }
    map.take_if(|m| m.is_empty());
}

/// Replaces a status, wholly or one list of it. `false` when the edit does not fit the kind.
fn apply_status(object: &mut Object, edit: &Edit) -> Result<bool, ApiError> {
    // Built from its parts, so that the old status is not copied only to be thrown away.
    macro_rules! replace {
        ($type:ident, $object:expr, $status:expr) => {
            if $object.status.as_ref() != Some($status) {
                *$object = Arc::new($type {
                    metadata: $object.metadata.clone(),
                    spec: $object.spec.clone(),
                    status: Some($status.clone()),
                });
            }
        };
    }
    match (object, edit) {
        (Object::PersistentVolumeClaim(claim), Edit::ClaimStatus(status)) => {
            if claim.status.as_ref() != Some(&**status) {
                let mut status = status.clone();
                defaults::claim_status(&mut status);
                *claim = Arc::new(PersistentVolumeClaim {
                    metadata: claim.metadata.clone(),
                    spec: claim.spec.clone(),
                    status: Some(*status),
                });
            }
        }
        (Object::PersistentVolumeClaim(claim), Edit::MergeClaimStatus { from, to }) => {
            let mut merged = claim.status.clone().unwrap_or_default();
            merge::claim_status(&mut merged, from, to);
            defaults::claim_status(&mut merged);
            if claim.status.as_ref() != Some(&merged) {
                Arc::make_mut(claim).status = Some(merged);
            }
        }
        (Object::PersistentVolume(volume), Edit::VolumeStatus(status)) => replace!(PersistentVolume, volume, &**status),
        (Object::VolumeAttachment(attachment), Edit::AttachmentStatus(status)) => {
            replace!(VolumeAttachment, attachment, &**status)
        }
        (Object::Node(node), Edit::NodeStatus(status)) => replace!(Node, node, &**status),
        (Object::Pod(pod), Edit::PodStatus(status)) => replace!(Pod, pod, &**status),
        (Object::VolumeSnapshot(snapshot), Edit::SnapshotStatus(status)) => {
            replace!(VolumeSnapshot, snapshot, &**status)
        }
        (Object::VolumeSnapshotContent(content), Edit::SnapshotContentStatus(status)) => {
            replace!(VolumeSnapshotContent, content, &**status)
        }
        (Object::Node(node), Edit::VolumesAttached(volumes)) => {
            let present = node.status.as_ref().and_then(|s| s.volumes_attached.as_deref());
            if present.unwrap_or_default() != volumes.as_slice() {
                let status = Arc::make_mut(node).status.get_or_insert_default();
                status.volumes_attached = (!volumes.is_empty()).then(|| volumes.clone());
            }
        }
        (Object::Node(node), Edit::VolumesInUse(volumes)) => {
            if fields::volumes_in_use(node) != volumes.as_slice() {
                let status = Arc::make_mut(node).status.get_or_insert_default();
                status.volumes_in_use = (!volumes.is_empty()).then(|| volumes.clone());
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Sets a field outside the status. `false` when the edit does not fit the kind.
fn apply_spec(object: &mut Object, edit: &Edit, (clock, now): Now) -> bool {
    match (object, edit) {
        (Object::PersistentVolume(volume), Edit::VolumeCapacity(bytes)) => {
            if fields::volume_capacity(volume) != *bytes {
                let spec = Arc::make_mut(volume).spec.get_or_insert_default();
                let capacity = spec.capacity.get_or_insert_default();
                capacity.insert("storage".into(), quantity::quantity(*bytes));
            }
        }
        (Object::PersistentVolume(volume), Edit::VolumeAttributesClass(class)) => {
            let present = volume
                .spec
                .as_ref()
                .and_then(|s| s.volume_attributes_class_name.as_ref());
            if present != class.as_ref() {
                let spec = Arc::make_mut(volume).spec.get_or_insert_default();
                spec.volume_attributes_class_name.clone_from(class);
            }
        }
        (Object::Node(node), Edit::Taints(taints)) => {
            let present = node.spec.as_ref().and_then(|s| s.taints.as_deref());
            if present.unwrap_or_default() != taints.as_slice() {
                let spec = Arc::make_mut(node).spec.get_or_insert_default();
                spec.taints = (!taints.is_empty()).then(|| taints.clone());
            }
        }
        (Object::Node(node), Edit::Unschedulable(cordoned)) => {
            let present = node.spec.as_ref().and_then(|s| s.unschedulable);
            if present.unwrap_or(false) != *cordoned {
                Arc::make_mut(node).spec.get_or_insert_default().unschedulable = cordoned.then_some(true);
            }
        }
        (Object::Event(event), Edit::EventSeen { count, message }) => {
            let event = Arc::make_mut(event);
            event.count = Some(*count);
            event.last_timestamp = Some(clock.time(now));
            if let Some(message) = message {
                event.message = Some(message.clone());
            }
        }
        (Object::Event(event), Edit::EventSeries { count }) => {
            Arc::make_mut(event).series = Some(EventSeries {
                count: Some(*count),
                last_observed_time: Some(clock.micro_time(now)),
            });
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeError};
    use serde_json::json;

    use super::{Object, json_patch, merge_parts, read_back};

    fn attachment() -> Object {
        let mut attachment = VolumeAttachment::default();
        let meta = &mut attachment.metadata;
        (meta.name, meta.uid) = (Some("csi-1".into()), Some("u1".into()));
        meta.resource_version = Some("7".into());
        meta.finalizers = Some(vec!["a/b".into()]);
        attachment.spec.node_name = "n1".into();
        attachment.status.get_or_insert_default().attach_error = Some(VolumeError {
            message: Some("m".into()),
            ..VolumeError::default()
        });
        Object::new(attachment)
    }

    #[test]
    fn a_part_merged_alone_is_what_the_whole_objects_way_gives() {
        let object = attachment();
        for (patch, alone) in [
            (json!({}), true),
            (
                json!({"metadata": {"annotations": {"k": "v"}, "finalizers": null}}),
                true,
            ),
            (json!({"metadata": {"finalizers": ["a/b", "c/d"]}}), true),
            (json!({"metadata": {"uid": "u1", "resourceVersion": "7"}}), true),
            (json!({"status": {"attached": true, "attachError": null}}), true),
            (json!({"status": {"attachError": {"message": "n"}}}), true),
            (json!({"status": null}), true),
            (
                json!({"metadata": {"labels": {"a": "b"}}, "status": {"attached": true}}),
                true,
            ),
            (json!({"metadata": {"uid": "u2"}}), false),
            (json!({"metadata": {"name": "other"}}), false),
            (json!({"metadata": {"labels": 1}}), false),
            (json!({"metadata": {"typo": 1}}), false),
            (json!({"status": {"typo": 1}}), false),
            (json!({"spec": {"nodeName": "n2"}}), false),
            (json!([]), false),
        ] {
            let merged = merge_parts(&object, &patch);
            assert_eq!(merged.is_some(), alone, "{patch}");
            let mut json = object.to_json();
            json_patch::merge(&mut json, &patch);
            if let Some(merged) = merged {
                assert_eq!(merged, read_back(&object, json).unwrap(), "{patch}");
            }
        }
    }
}
