//! JSON merge patches (RFC 7386) and JSON patches (RFC 6902), as users send them.

use serde_json::{Map, Value};

/// Why a JSON patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonPatchError {
    /// It is no list of operations.
    #[error("json: cannot apply the patch: {0}")]
    Malformed(String),
    /// A `test` failed, or a path leads nowhere.
    #[error("the patch does not fit the object")]
    Unappliable,
}

/// Applies a merge patch: `null` removes a member, an object merges, everything else replaces.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let members = target.as_object_mut().expect("just made an object");
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a JSON patch; on an error the target is half changed and must be thrown away.
pub(super) fn apply(target: &mut Value, patch: &Value) -> Result<(), JsonPatchError> {
    let malformed = |why: &str| JsonPatchError::Malformed(why.into());
    let operations = patch.as_array().ok_or_else(|| malformed("it is not a list"))?;
    for operation in operations {
        let text = |name: &str| {
            let value = operation.get(name).and_then(Value::as_str);
            value.ok_or_else(|| malformed(&format!("an operation lacks {name:?}")))
        };
        let value = || {
            let value = operation.get("value").cloned();
            value.ok_or_else(|| malformed("an operation lacks \"value\""))
        };
        let path = text("path")?;
        match text("op")? {
            "add" => add(target, path, value()?)?,
            "remove" => drop(remove(target, path)?),
            "replace" => {
                let value = value()?;
                *target.pointer_mut(path).ok_or(JsonPatchError::Unappliable)? = value;
            }
            "move" => {
                let moved = remove(target, text("from")?)?;
                add(target, path, moved)?;
            }
            "copy" => {
                let copied = target.pointer(text("from")?).cloned();
                add(target, path, copied.ok_or(JsonPatchError::Unappliable)?)?;
            }
            "test" => {
                // A missing member equals null, as in the library that the real server uses.
                if *target.pointer(path).unwrap_or(&Value::Null) != value()? {
                    return Err(JsonPatchError::Unappliable);
                }
            }
            other => return Err(malformed(&format!("unknown operation {other:?}"))),
        }
    }
    Ok(())
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), JsonPatchError> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, name) = parent(target, path)?;
    match parent {
        Value::Object(members) => {
            members.insert(name, value);
        }
        Value::Array(items) => {
            let index = if name == "-" { items.len() } else { index(&name)? };
            if index > items.len() {
                return Err(JsonPatchError::Unappliable);
            }
            items.insert(index, value);
        }
        _ => return Err(JsonPatchError::Unappliable),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, JsonPatchError> {
    let (parent, name) = parent(target, path)?;
    match parent {
        Value::Object(members) => members.remove(&name).ok_or(JsonPatchError::Unappliable),
        Value::Array(items) => {
            let index = index(&name)?;
            if index >= items.len() {
                return Err(JsonPatchError::Unappliable);
            }
            Ok(items.remove(index))
        }
        _ => Err(JsonPatchError::Unappliable),
    }
}

/// The container that the last step of a path leads into, and that step.
fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), JsonPatchError> {
    let (parent, last) = path.rsplit_once('/').ok_or(JsonPatchError::Unappliable)?;
    let parent = target.pointer_mut(parent).ok_or(JsonPatchError::Unappliable)?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn index(name: &str) -> Result<usize, JsonPatchError> {
    name.parse().map_err(|_| JsonPatchError::Unappliable)
}

/// The first member of `sent` that is missing in `understood`, as a path like `spec.resources.requests`.
pub(super) fn first_unknown(sent: &Value, understood: &Value, path: &str) -> Option<String> {
    match (sent, understood) {
        (Value::Object(sent), Value::Object(understood)) => sent.iter().find_map(|(name, value)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match understood.get(name) {
                Some(known) => first_unknown(value, known, &path),
                None => (!value.is_null()).then_some(path),
            }
        }),
        (Value::Array(sent), Value::Array(understood)) => sent
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(i, (value, known))| first_unknown(value, known, &format!("{path}[{i}]"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonPatchError, apply, first_unknown, merge};
    use serde_json::json;

    #[test]
    fn a_merge_patch_removes_with_null_and_replaces_lists() {
        // The table of RFC 7386, appendix A, where it says something new.
        let table = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, expected) in table {
            merge(&mut target, &patch);
            assert_eq!(target, expected, "{patch}");
        }
    }

    #[test]
    fn a_json_patch_does_what_each_operation_says() {
        let start = || json!({"list": ["a", "b"], "map": {"x/y": 1}});
        let table = [
            (
                json!([{"op":"add","path":"/list/-","value":"c"}]),
                Ok(json!(["a", "b", "c"])),
            ),
            (
                json!([{"op":"add","path":"/list/0","value":"c"}]),
                Ok(json!(["c", "a", "b"])),
            ),
            (json!([{"op":"remove","path":"/list/0"}]), Ok(json!(["b"]))),
            (json!([{"op":"replace","path":"/list","value":[]}]), Ok(json!([]))),
            (
                json!([{"op":"copy","from":"/map/x~1y","path":"/list/1"}]),
                Ok(json!(["a", 1, "b"])),
            ),
            (
                json!([{"op":"move","from":"/list/0","path":"/list/1"}]),
                Ok(json!(["b", "a"])),
            ),
            (
                json!([{"op":"test","path":"/list/0","value":"a"}]),
                Ok(json!(["a", "b"])),
            ),
            (
                json!([{"op":"test","path":"/list/0","value":"b"}]),
                Err(JsonPatchError::Unappliable),
            ),
            (
                json!([{"op":"test","path":"/none","value":null}]),
                Ok(json!(["a", "b"])),
            ),
            (
                json!([{"op":"remove","path":"/list/2"}]),
                Err(JsonPatchError::Unappliable),
            ),
            (
                json!([{"op":"add","path":"/none/0","value":1}]),
                Err(JsonPatchError::Unappliable),
            ),
        ];
        for (patch, expected) in table {
            let mut target = start();
            let result = apply(&mut target, &patch).map(|()| target["list"].clone());
            assert_eq!(result, expected, "{patch}");
        }
        let result = apply(&mut start(), &json!({"op": "add"}));
        assert!(matches!(result, Err(JsonPatchError::Malformed(_))), "{result:?}");
    }

    #[test]
    fn a_member_that_nobody_understands_is_found_by_its_path() {
        let sent = json!({"spec": {"a": 1, "list": [{"b": 1, "typo": 2}]}, "gone": null});
        let understood = json!({"spec": {"a": 1, "list": [{"b": 1}]}});
        assert_eq!(first_unknown(&sent, &understood, ""), Some("spec.list[0].typo".into()));
    }
}
