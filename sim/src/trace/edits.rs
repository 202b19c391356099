//! The body of a patch: the typed edits of the model as the JSON that a client would send.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::secrets;
use crate::api::{Edit, Kind, Patch};

/// The body of a patch. JSON patches are lists of operations; all others are merged into one map, with the directives of a strategic merge.
pub(super) fn body(patch: &Patch) -> Json {
    let mut merged = json!({});
    let mut operations = Vec::new();
    for edit in &patch.edits {
        match part(edit) {
            Json::Array(list) => operations.extend(list),
            map => merge(&mut merged, map),
        }
    }
    if let Some(uid) = &patch.uid {
        merged["metadata"]["uid"] = uid.as_str().into();
    }
    if patch.target.kind == Kind::Secret {
        secrets::strip(&mut merged);
        for operation in operations.iter_mut().filter_map(Json::as_object_mut) {
            operation.retain(|key, _| key != "value");
        }
    }
    if operations.is_empty() {
        merged
    } else {
        Json::Array(operations)
    }
}

fn part(edit: &Edit) -> Json {
    match edit {
        Edit::AddFinalizer(name) => json!({"metadata": {"finalizers": [name]}}),
        Edit::AppendFinalizer {
            name,
            expect_none: true,
        } => {
            json!([{"op": "test", "path": "/metadata/finalizers", "value": null}, {"op": "add", "path": "/metadata/finalizers", "value": [name]}])
        }
        Edit::AppendFinalizer {
            name,
            expect_none: false,
        } => json!([{"op": "add", "path": "/metadata/finalizers/-", "value": name}]),
        Edit::RemoveFinalizer(name) => json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [name]}}),
        Edit::RemoveFinalizerAt { name, index } => {
            let path = format!("/metadata/finalizers/{index}");
            json!([{"op": "test", "path": path, "value": name}, {"op": "remove", "path": path}])
        }
        Edit::Annotation(key, value) => json!({"metadata": {"annotations": {key: value}}}),
        Edit::Label(key, value) => json!({"metadata": {"labels": {key: value}}}),
        Edit::MergeClaimStatus { from, to } => json!({"status": difference(&plain(from), &plain(to))}),
        Edit::ClaimStatus(status) => status_of(status),
        Edit::VolumeStatus(status) => status_of(status),
        Edit::AttachmentStatus(status) => status_of(status),
        Edit::NodeStatus(status) => status_of(status),
        Edit::PodStatus(status) => status_of(status),
        Edit::SnapshotStatus(status) => status_of(status),
        Edit::SnapshotContentStatus(status) => status_of(status),
        Edit::VolumeCapacity(bytes) => {
            json!({"spec": {"capacity": {"storage": crate::api::quantity::format_bytes(*bytes)}}})
        }
        Edit::VolumeAttributesClass(class) => json!({"spec": {"volumeAttributesClassName": class}}),
        Edit::VolumesAttached(volumes) => json!({"status": {"volumesAttached": volumes}}),
        Edit::VolumesInUse(volumes) => json!({"status": {"volumesInUse": volumes}}),
        Edit::Taints(taints) => json!({"spec": {"taints": taints}}),
        Edit::Unschedulable(cordoned) => json!({"spec": {"unschedulable": cordoned}}),
        Edit::EventSeen {
            count,
            message: Some(message),
        } => json!({"count": count, "message": message}),
        Edit::EventSeen { count, message: None } => json!({"count": count}),
        Edit::EventSeries { count } => json!({"series": {"count": count}}),
        Edit::Merge(patch) | Edit::Strategic(patch) | Edit::Json(patch) => patch.clone(),
    }
}

fn plain<T: Serialize>(value: &T) -> Json {
    serde_json::to_value(value).expect("Kubernetes types always serialise")
}

fn status_of<T: Serialize>(status: &T) -> Json {
    json!({"status": plain(status)})
}

/// What must be merged into `from` to make `to` of it (RFC 7386): `null` where something goes.
fn difference(from: &Json, to: &Json) -> Json {
    let (Json::Object(from), Json::Object(to)) = (from, to) else {
        return to.clone();
    };
    let changed = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| {
        let old = from.get(key).unwrap_or(&Json::Null);
        (key.clone(), difference(old, value))
    });
    let gone = from
        .keys()
        .filter(|key| !to.contains_key(*key))
        .map(|key| (key.clone(), Json::Null));
    Json::Object(changed.chain(gone).collect())
}

/// Joins two patches. Lists of finalizers are appended, as the server does with them.
fn merge(into: &mut Json, from: Json) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Json::Null), value);
            }
        }
        (Json::Array(into), Json::Array(from)) => into.extend(from),
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::body;
    use crate::api::{Edit, Kind, ObjKey, ObjectRef, Patch};
    use serde_json::json;

    fn patch(kind: Kind, edits: Vec<Edit>) -> Patch {
        Patch::new(ObjectRef::new(kind, ObjKey::new("default", "x")), edits)
    }

    #[test]
    fn edits_join_into_one_body() {
        let edits = vec![
            Edit::AddFinalizer("a/b".into()),
            Edit::AddFinalizer("c/d".into()),
            Edit::Annotation("k".into(), Some("v".into())),
            Edit::Annotation("gone".into(), None),
        ];
        assert_eq!(
            body(&patch(Kind::VolumeAttachment, edits)),
            json!({"metadata": {"finalizers": ["a/b", "c/d"], "annotations": {"k": "v", "gone": null}}})
        );
    }

    #[test]
    fn json_patches_stay_lists() {
        let edit = Edit::RemoveFinalizerAt {
            name: "f".into(),
            index: 2,
        };
        assert_eq!(
            body(&patch(Kind::PersistentVolume, vec![edit])),
            json!([{"op": "test", "path": "/metadata/finalizers/2", "value": "f"}, {"op": "remove", "path": "/metadata/finalizers/2"}])
        );
    }

    #[test]
    fn a_claims_status_is_sent_as_what_changed() {
        let status = |json| serde_json::from_value(json).unwrap();
        let from = Box::new(status(
            json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "conditions": []}),
        ));
        let to = Box::new(status(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}})));
        let json = body(&patch(
            Kind::PersistentVolumeClaim,
            vec![Edit::MergeClaimStatus { from, to }],
        ));
        assert_eq!(json["status"]["capacity"], json!({"storage": "2Gi"}));
        assert!(json["status"].get("phase").is_none());
    }

    #[test]
    fn patches_of_secrets_hide_their_values() {
        let merge = Edit::Merge(json!({"stringData": {"p": "hunter2"}}));
        let list = Edit::Json(json!([{"op": "add", "path": "/data/p", "value": "aHVudGVyMg=="}]));
        for edit in [merge, list] {
            let text = body(&patch(Kind::Secret, vec![edit])).to_string();
            assert!(!text.contains("hunter2") && !text.contains("aHVu"), "{text}");
        }
    }
}
