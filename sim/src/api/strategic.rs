//! Strategic merge patches, as kubectl sends them unless told otherwise: maps are merged, and of the lists those whose elements have a key.
//!
//! Which lists have one is a property of the API types (`patchMergeKey` there); [`list`] knows those of the kinds that the server stores. The directives
//! `$patch`, `$retainKeys` and `$deleteFromPrimitiveList` are understood; `$setElementOrder`, which only sorts, is not acted upon.
//!
//! Blind spots: a list is known by its field name and not by its whole path, which no two fields of these kinds share with different keys.

use serde_json::{Map, Value};

/// How a list is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// The patch's list takes its place.
    Atomic,
    /// Elements with the same value of this member are merged, the others appended.
    Keyed(&'static str),
    /// A set of words: those that are missing are appended.
    Set,
}

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_WORDS: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// How the list in a field is merged.
fn list(field: &str) -> List {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
        | "resourceClaims"
        | "schedulingGates"
        | "drivers" => List::Keyed("name"),
        "conditions" | "addresses" => List::Keyed("type"),
        "volumeMounts" => List::Keyed("mountPath"),
        "volumeDevices" => List::Keyed("devicePath"),
        "ports" => List::Keyed("containerPort"),
        "hostAliases" | "podIPs" => List::Keyed("ip"),
        "topologySpreadConstraints" => List::Keyed("topologyKey"),
        "ownerReferences" => List::Keyed("uid"),
        "finalizers" => List::Set,
        _ => List::Atomic,
    }
}

/// What is wrong with a patch, as the server says it.
type Wrong = String;

/// Applies a patch. On an error the target is half changed and must be thrown away.
pub(super) fn apply(target: &mut Value, patch: &Value) -> Result<(), Wrong> {
    match patch {
        Value::Object(patch) => merge(target, patch),
        _ => Err("a strategic merge patch must be an object".into()),
    }
}

fn merge(target: &mut Value, patch: &Map<String, Value>) -> Result<(), Wrong> {
    match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => *target = Value::Object(Map::new()),
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(format!("unknown patch type found: {other}")),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let members = target.as_object_mut().expect("just made an object");
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        let kept = kept
            .as_array()
            .ok_or("the value of $retainKeys must be a list of names")?;
        members.retain(|name, _| kept.iter().any(|k| k.as_str() == Some(name)));
    }
    for (name, value) in patch {
        member(members, name, value)?;
    }
    Ok(())
}

fn member(members: &mut Map<String, Value>, name: &str, value: &Value) -> Result<(), Wrong> {
    if name == PATCH || name == RETAIN_KEYS || name.starts_with(ORDER) {
        return Ok(());
    }
    if let Some(field) = name.strip_prefix(DELETE_WORDS) {
        let gone = value
            .as_array()
            .ok_or_else(|| format!("the value of {name} must be a list"))?;
        if let Some(Value::Array(words)) = members.get_mut(field) {
            words.retain(|word| !gone.contains(word));
        }
        return Ok(());
    }
    if name.starts_with('$') {
        return Err(format!("unknown directive {name} in a strategic merge patch"));
    }
    match value {
        Value::Null => drop(members.remove(name)),
        Value::Object(patch) => merge(members.entry(name).or_insert(Value::Null), patch)?,
        Value::Array(patch) => {
            let stored = members.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            match (list(name), stored) {
                (List::Keyed(key), Value::Array(stored)) => merge_list(stored, patch, key)?,
                (List::Set, Value::Array(stored)) => {
                    let missing: Vec<Value> = patch.iter().filter(|word| !stored.contains(word)).cloned().collect();
                    stored.extend(missing);
                }
                (_, stored) => *stored = value.clone(),
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => drop(members.insert(name.to_owned(), value.clone())),
    }
    Ok(())
}

fn merge_list(stored: &mut Vec<Value>, patch: &[Value], key: &str) -> Result<(), Wrong> {
    let directive = |element: &Value| element.get(PATCH).and_then(Value::as_str).map(str::to_owned);
    // An element that says nothing but `$patch: replace` speaks of the whole list.
    let alone = |element: &&Value| element.as_object().is_some_and(|o| o.len() == 1);
    if patch
        .iter()
        .filter(alone)
        .any(|e| directive(e).as_deref() == Some("replace"))
    {
        stored.clear();
    }
    for element in patch {
        let Value::Object(fields) = element else {
            return Err(format!(
                "an element of a list that is merged by {key} must be an object"
            ));
        };
        if alone(&element) && directive(element).as_deref() == Some("replace") {
            continue;
        }
        let Some(value) = fields.get(key) else {
            return Err(format!("map: {element} does not contain declared merge key: {key}"));
        };
        let at = stored.iter().position(|there| there.get(key) == Some(value));
        match (directive(element).as_deref(), at) {
            (Some("delete"), Some(at)) => drop(stored.remove(at)),
            (Some("delete"), None) => {}
            (_, Some(at)) => merge(&mut stored[at], fields)?,
            (_, None) => {
                let mut fresh = Value::Null;
                merge(&mut fresh, fields)?;
                stored.push(fresh);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::apply;
    use serde_json::{Value, json};

    fn patched(target: &Value, patch: &Value) -> Result<Value, String> {
        let mut target = target.clone();
        apply(&mut target, patch).map(|()| target)
    }

    #[test]
    fn lists_with_a_key_are_merged_by_it_and_others_are_replaced() {
        let pod = json!({"spec": {
            "containers": [{"name": "main", "image": "a", "env": [{"name": "X", "value": "1"}]}, {"name": "side", "image": "b"}],
            "tolerations": [{"key": "old"}]}});
        let patch = json!({"spec": {
            "containers": [{"name": "main", "image": "c", "env": [{"name": "Y", "value": "2"}]}],
            "tolerations": [{"key": "new"}]}});
        let after = patched(&pod, &patch).unwrap();
        assert_eq!(
            after["spec"]["containers"][0],
            json!({"name": "main", "image": "c", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]})
        );
        assert_eq!(after["spec"]["containers"][1]["name"], "side");
        assert_eq!(
            after["spec"]["tolerations"],
            json!([{"key": "new"}]),
            "tolerations are atomic"
        );
    }

    #[test]
    fn finalizers_are_a_set_and_null_removes() {
        let claim = json!({"metadata": {"finalizers": ["a", "b"], "annotations": {"x": "1"}}});
        let after = patched(
            &claim,
            &json!({"metadata": {"finalizers": ["b", "c"], "annotations": {"x": null}}}),
        );
        assert_eq!(
            after.unwrap(),
            json!({"metadata": {"finalizers": ["a", "b", "c"], "annotations": {}}})
        );
        let after = patched(
            &claim,
            &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        );
        assert_eq!(after.unwrap()["metadata"]["finalizers"], json!(["b"]));
        let after = patched(&claim, &json!({"metadata": {"finalizers": null}}));
        assert_eq!(after.unwrap()["metadata"].get("finalizers"), None);
    }

    #[test]
    fn directives_delete_and_replace() {
        let spec = json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}], "m": {"x": 1}});
        let after = patched(&spec, &json!({"volumes": [{"name": "a", "$patch": "delete"}]})).unwrap();
        assert_eq!(after["volumes"], json!([{"name": "b", "emptyDir": {}}]));
        let after = patched(&spec, &json!({"volumes": [{"$patch": "replace"}, {"name": "c"}]})).unwrap();
        assert_eq!(after["volumes"], json!([{"name": "c"}]));
        let after = patched(&spec, &json!({"m": {"$patch": "replace", "y": 2}})).unwrap();
        assert_eq!(after["m"], json!({"y": 2}));
        let change =
            json!({"volumes": [{"name": "a", "$retainKeys": ["name", "configMap"], "configMap": {"name": "n"}}]});
        let after = patched(&spec, &change).unwrap();
        assert_eq!(after["volumes"][0], json!({"name": "a", "configMap": {"name": "n"}}));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let pod = json!({"spec": {"containers": [{"name": "main"}]}});
        let error = patched(&pod, &json!({"spec": {"containers": [{"image": "x"}]}})).unwrap_err();
        assert!(error.contains("does not contain declared merge key: name"), "{error}");
        assert!(patched(&pod, &json!({"spec": {"$patch": "mix"}})).is_err());
        assert!(patched(&pod, &json!({"spec": {"$invented": 1}})).is_err());
        assert!(patched(&pod, &json!([])).is_err());
    }
}
