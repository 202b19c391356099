//! What a write changed, in the words of a reader.
//!
//! The facts of the two states are compared (`facts.rs`). Where none differs, the first JSON paths that do are named, so that no write looks like none.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::facts::{Fact, facts};
use super::{secrets, short};
use crate::api::Object;

/// How many changed paths are named.
const MOST_PATHS: usize = 3;
/// Keys that say nothing to a reader: bookkeeping of the server and of who writes conditions.
const SILENT: [&str; 8] = [
    "resourceVersion",
    "generation",
    "observedGeneration",
    "managedFields",
    "creationTimestamp",
    "lastTransitionTime",
    "lastProbeTime",
    "lastHeartbeatTime",
];

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A value that was not set before.
    Set(String, String),
    /// A value that is not set any more.
    Unset(String, String),
    /// Another value: label, old, new.
    Turned(String, String, String),
    /// Entries that came and went, and those whose value changed as `name old → new`.
    Entries {
        /// Of what.
        label: String,
        /// What came.
        came: Vec<String>,
        /// What went.
        went: Vec<String>,
        /// What is different.
        turned: Vec<(String, String, String)>,
    },
    /// A path below which something changed that is no fact of the kind.
    Path(String),
}

/// The differences between two states of an object.
pub(super) fn between(before: &Object, after: &Object) -> Vec<Change> {
    let old: BTreeMap<&str, Fact> = facts(before).into_iter().collect();
    let mut changes = Vec::new();
    for (label, new) in facts(after) {
        let before = old.get(label);
        match (before, new) {
            (Some(Fact::One(old)), Fact::One(new)) => changes.extend(turn(label, old, &new)),
            (Some(Fact::Map(old)), Fact::Map(new)) => changes.extend(entries(label, old, &new)),
            (None | Some(_), _) => {}
        }
    }
    if changes.is_empty() {
        let (old, new) = (secrets::object_json(before), secrets::object_json(after));
        let mut found = Vec::new();
        paths(&old, &new, &mut String::new(), &mut found);
        changes.extend(found.into_iter().take(MOST_PATHS).map(Change::Path));
    }
    changes
}

/// The facts of a new object as changes from nothing.
pub(super) fn from_nothing(object: &Object) -> Vec<Change> {
    let mut changes = Vec::new();
    for (label, new) in facts(object) {
        match new {
            Fact::One(new) => changes.extend(turn(label, "", &new)),
            Fact::Map(new) => changes.extend(entries(label, &BTreeMap::new(), &new)),
        }
    }
    changes
}

fn turn(label: &str, old: &str, new: &str) -> Option<Change> {
    let label = label.to_owned();
    match (old, new) {
        (old, new) if old == new => None,
        ("", new) => Some(Change::Set(label, new.to_owned())),
        (old, "") => Some(Change::Unset(label, old.to_owned())),
        (old, new) => Some(Change::Turned(label, old.to_owned(), new.to_owned())),
    }
}

fn entries(label: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Option<Change> {
    let written = |(name, value): (&String, &String)| match value.as_str() {
        // Of a condition that holds, the name says it all.
        "" | "True" => name.clone(),
        value => format!("{name}={value}"),
    };
    let came = new.iter().filter(|(name, _)| !old.contains_key(*name)).map(written);
    let went = old.keys().filter(|name| !new.contains_key(*name)).cloned();
    let turned = new.iter().filter_map(|(name, new)| {
        let old = old.get(name).filter(|old| *old != new)?;
        Some((name.clone(), old.clone(), new.clone()))
    });
    let (came, went, turned): (Vec<_>, Vec<_>, Vec<_>) = (came.collect(), went.collect(), turned.collect());
    let any = !came.is_empty() || !went.is_empty() || !turned.is_empty();
    any.then(|| Change::Entries {
        label: label.to_owned(),
        came,
        went,
        turned,
    })
}

/// The paths at which two JSON values differ, with the values where they are short.
fn paths(old: &Json, new: &Json, at: &mut String, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys.into_iter().filter(|key| !SILENT.contains(&key.as_str())) {
                let len = at.len();
                if len > 0 {
                    at.push('.');
                }
                at.push_str(key);
                let (old, new) = (old.get(key), new.get(key));
                paths(old.unwrap_or(&Json::Null), new.unwrap_or(&Json::Null), at, found);
                at.truncate(len);
            }
        }
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() => {
            for (nth, (old, new)) in old.iter().zip(new).enumerate() {
                let len = at.len();
                at.push_str(&format!("[{nth}]"));
                paths(old, new, at, found);
                at.truncate(len);
            }
        }
        (old, new) => found.push(match (scalar(old), scalar(new)) {
            (Some(old), Some(new)) => format!("{at} {old} → {new}"),
            _ => at.clone(),
        }),
    }
}

fn scalar(json: &Json) -> Option<String> {
    let text = match json {
        Json::Null => "unset".to_owned(),
        Json::String(text) => text.clone(),
        Json::Bool(_) | Json::Number(_) => json.to_string(),
        Json::Array(_) | Json::Object(_) => return None,
    };
    let short = short::ids(&text);
    (short.chars().count() <= 40).then(|| short.into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Change, between, from_nothing};
    use crate::api::{Kind, Object};
    use serde_json::{Value as Json, json};

    fn object(kind: Kind, json: Json) -> Object {
        Object::from_json(kind, json).unwrap()
    }

    fn claim(phase: &str, annotations: &Json, finalizers: &Json) -> Object {
        let json = json!({
            "metadata": {"name": "data", "namespace": "default", "annotations": annotations, "finalizers": finalizers},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": phase},
        });
        object(Kind::PersistentVolumeClaim, json)
    }

    #[test]
    fn facts_that_differ_are_named_and_no_others() {
        let before = claim(
            "Pending",
            &json!({"a/b": "1", "c": "x"}),
            &json!(["kubernetes.io/pvc-protection"]),
        );
        let after = claim("Bound", &json!({"a/b": "2", "d": "yes"}), &json!([]));
        assert_eq!(
            between(&before, &after),
            [
                Change::Turned("phase".into(), "Pending".into(), "Bound".into()),
                Change::Entries {
                    label: "finalizers".into(),
                    came: vec![],
                    went: vec!["pvc-protection".into()],
                    turned: vec![],
                },
                Change::Entries {
                    label: "annotations".into(),
                    came: vec!["d".into()],
                    went: vec!["c".into()],
                    turned: vec![("b".into(), "1".into(), "2".into())],
                },
            ]
        );
    }

    #[test]
    fn what_is_no_fact_shows_as_a_path_and_bookkeeping_does_not() {
        let class = |expand: bool, version: &str| {
            let json = json!({"metadata": {"name": "fast", "resourceVersion": version}, "provisioner": "d", "allowVolumeExpansion": expand});
            object(Kind::StorageClass, json)
        };
        assert_eq!(
            between(&class(false, "1"), &class(true, "2")),
            [Change::Path("allowVolumeExpansion false → true".into())]
        );
        assert_eq!(between(&class(true, "1"), &class(true, "2")), []);
    }

    #[test]
    fn the_data_of_a_secret_is_no_change() {
        let secret = |value: &str| {
            object(
                Kind::Secret,
                json!({"metadata": {"name": "s"}, "stringData": {"p": value}}),
            )
        };
        let changes = between(&secret("hunter2"), &secret("hunter3"));
        assert!(!format!("{changes:?}").contains("hunter"), "{changes:?}");
    }

    #[test]
    fn a_new_object_shows_its_facts() {
        let changes = from_nothing(&claim("Pending", &json!({}), &json!(["kubernetes.io/pvc-protection"])));
        assert!(changes.contains(&Change::Set("request".into(), "1Gi".into())));
        assert!(changes.contains(&Change::Set("modes".into(), "RWO".into())));
    }
}
