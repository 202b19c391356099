//! JSON merge patches as external-attacher makes them: from the attachment it had to the attachment it wants.
//!
//! Only what differs is sent, so a sync that works on a stale attachment does not undo what another one wrote; a patch in which nothing differs is sent all
//! the same, empty (traces 21b, 24b). Lists are replaced whole.

use std::sync::Arc;

use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::{Edit, Kind, ObjKey, ObjectRef, Patch, Write};

/// A patch of an attachment, or of its status.
pub fn patch(from: &Arc<VolumeAttachment>, to: &VolumeAttachment, status: bool) -> Write {
    let target = ObjectRef::new(Kind::VolumeAttachment, ObjKey::of(&from.metadata));
    let mut body = Map::new();
    compare(&mut body, "metadata", &from.metadata, &to.metadata);
    compare(&mut body, "spec", &from.spec, &to.spec);
    compare(&mut body, "status", &from.status, &to.status);
    let edits = vec![Edit::Merge(Value::Object(body))];
    Write::Patch(Patch {
        status,
        ..Patch::new(target, edits)
    })
}

/// Adds to a patch what differs in one part of the object. A part that is the same is not even serialised.
fn compare<T: Serialize + PartialEq>(patch: &mut Map<String, Value>, name: &str, from: &T, to: &T) {
    if from == to {
        return;
    }
    let json = |part: &T| serde_json::to_value(part).expect("Kubernetes types always serialise");
    let (from, to) = (json(from), json(to));
    if from != to {
        patch.insert(name.to_owned(), difference(&from, &to));
    }
}

/// The merge patch (RFC 7386) that makes `to` of `from`.
pub fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, wanted) in to {
        match from.get(key) {
            Some(had) if had == wanted => {}
            Some(had) => drop(patch.insert(key.clone(), difference(had, wanted))),
            None => drop(patch.insert(key.clone(), wanted.clone())),
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::difference;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_sent_and_what_is_gone_is_null() {
        // The bodies recorded in traces 03 and 21b.
        let error = json!({"message": "m", "time": "t1", "errorCode": 14});
        let cases = [
            (
                json!({"status": {"attached": false}}),
                json!({"status": {"attached": true}}),
                json!({"status": {"attached": true}}),
            ),
            (
                json!({"status": {"attachError": error}}),
                json!({"status": {"attachError": {"message": "m", "time": "t2", "errorCode": 14}}}),
                json!({"status": {"attachError": {"time": "t2"}}}),
            ),
            (
                json!({"metadata": {"finalizers": ["a"]}}),
                json!({"metadata": {}}),
                json!({"metadata": {"finalizers": null}}),
            ),
            (json!({"a": [1, 2]}), json!({"a": [2]}), json!({"a": [2]})),
            (json!({"a": 1}), json!({"a": 1}), json!({})),
        ];
        for (from, to, patch) in cases {
            assert_eq!(difference(&from, &to), patch);
        }
    }
}
