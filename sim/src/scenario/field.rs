//! Paths to fields of an object, as `kubectl wait --for=jsonpath=…` takes them: `{.status.capacity.storage}`.
//!
//! Understood: keys, quoted keys, escaped dots, indices, `[*]`, and the filter `[?(@.type=="Ready")]`. A field that several paths reach holds if
//! each of them does.
//!
//! Blind spots: recursive descent, slices, unions and comparisons other than `==` are refused.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use crate::api::quantity::Amount;

/// A path to a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
    All,
    Where { key: String, value: String },
}

impl FieldPath {
    /// Reads a path; the braces and the first dot may be left away.
    ///
    /// # Errors
    /// A sentence if the path is malformed or uses what is not understood.
    pub fn parse(text: &str) -> Result<FieldPath, String> {
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest
                .strip_suffix('}')
                .ok_or_else(|| format!("{text:?} opens a brace and does not close it"))?,
            None => text,
        };
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, next) = if let Some(bracket) = rest.strip_prefix('[') {
                bracketed(bracket).ok_or_else(|| format!("{text:?}: cannot read from `{rest}` on"))?
            } else {
                let plain = rest.strip_prefix('.').unwrap_or(rest);
                key(plain).ok_or_else(|| format!("{text:?}: a key is missing before `{rest}`"))?
            };
            steps.push(step);
            rest = next;
        }
        if steps.is_empty() {
            return Err("a field path names at least one key, such as `{.status.phase}`".to_owned());
        }
        Ok(FieldPath { steps })
    }

    /// The values that the path reaches.
    pub fn values<'j>(&self, object: &'j Json) -> Vec<&'j Json> {
        self.steps.iter().fold(vec![object], |values, step| {
            values
                .into_iter()
                .flat_map(|value| step.values(value))
                .filter(|value| !value.is_null())
                .collect()
        })
    }

    /// Whether the field is `wanted`: present and equal, or absent if `wanted` is null. Quantities compare by size.
    ///
    /// # Errors
    /// What the field is instead.
    pub fn holds(&self, object: &Json, wanted: &Json) -> Result<(), String> {
        let found = self.values(object);
        let good = match wanted {
            Json::Null => found.is_empty(),
            wanted => !found.is_empty() && found.iter().all(|value| same(value, wanted)),
        };
        if good {
            return Ok(());
        }
        let shown: Vec<String> = found.iter().map(|value| plain(value)).collect();
        let shown = if shown.is_empty() {
            "absent".to_owned()
        } else {
            shown.join(", ")
        };
        Err(format!(
            "{self} is {shown}, not {}",
            if wanted.is_null() {
                "absent".to_owned()
            } else {
                plain(wanted)
            }
        ))
    }
}

fn key(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => return (!name.is_empty()).then(|| (Step::Key(name), &text[at..])),
            c => name.push(c),
        }
    }
    (!name.is_empty()).then_some((Step::Key(name), ""))
}

fn bracketed(text: &str) -> Option<(Step, &str)> {
    if let Some(filter) = text.strip_prefix("?(@.") {
        let (filter, rest) = filter.split_once(")]")?;
        let (key, value) = filter.split_once("==")?;
        let step = Step::Where {
            key: key.trim().to_owned(),
            value: unquote(value.trim())?.to_owned(),
        };
        return Some((step, rest));
    }
    if text.starts_with(['\'', '"']) {
        let quote = &text[..1];
        let (name, rest) = text[1..].split_once(quote)?;
        return Some((Step::Key(name.to_owned()), rest.strip_prefix(']')?));
    }
    let (inner, rest) = text.split_once(']')?;
    let step = if inner == "*" {
        Step::All
    } else {
        Step::Index(inner.parse().ok()?)
    };
    Some((step, rest))
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

impl Step {
    fn values<'j>(&self, value: &'j Json) -> Vec<&'j Json> {
        match self {
            Step::Key(key) => value.get(key).into_iter().collect(),
            Step::Index(index) => value.get(index).into_iter().collect(),
            Step::All => match value {
                Json::Array(items) => items.iter().collect(),
                Json::Object(entries) => entries.values().collect(),
                _ => Vec::new(),
            },
            Step::Where { key, value: wanted } => value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| item.get(key).is_some_and(|found| plain(found) == *wanted))
                .collect(),
        }
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn same(found: &Json, wanted: &Json) -> bool {
    if found == wanted {
        return true;
    }
    let (found, wanted) = (plain(found), plain(wanted));
    found == wanted || matches!((Amount::parse(&found), Amount::parse(&wanted)), (Ok(a), Ok(b)) if a == b)
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for step in &self.steps {
            match step {
                Step::Key(key) if key.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') => {
                    write!(f, ".{key}")?
                }
                Step::Key(key) => write!(f, "['{key}']")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::All => f.write_str("[*]")?,
                Step::Where { key, value } => write!(f, "[?(@.{key}==\"{value}\")]")?,
            }
        }
        f.write_str("}")
    }
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FieldPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FieldPath, D::Error> {
        FieldPath::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for FieldPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FieldPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A path as kubectl's jsonpath has it, e.g. `{.status.phase}`."})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_reach_what_kubectl_reaches() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "yes"}},
            "status": {"capacity": {"storage": "2Gi"}, "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, wanted) in [
            ("{.status.capacity.storage}", json!("2048Mi")),
            (".status.capacity.storage", json!("2Gi")),
            ("status.conditions[0].type", json!("Ready")),
            (r#"{.status.conditions[?(@.type=="Other")].status}"#, json!("False")),
            ("{.metadata.annotations['a.b/c']}", json!("yes")),
            (r"{.metadata.annotations.a\.b/c}", json!("yes")),
            ("{.status.phase}", Json::Null),
        ] {
            let parsed = FieldPath::parse(path).unwrap();
            assert_eq!(parsed.holds(&object, &wanted), Ok(()), "{path}");
            assert_eq!(
                FieldPath::parse(&parsed.to_string()).as_ref(),
                Ok(&parsed),
                "{path} prints as it reads"
            );
        }
        let storage = FieldPath::parse("{.status.capacity.storage}").unwrap();
        assert_eq!(
            storage.holds(&object, &json!("3Gi")).unwrap_err(),
            "{.status.capacity.storage} is 2Gi, not 3Gi"
        );
        assert_eq!(
            storage.holds(&json!({}), &json!("3Gi")).unwrap_err(),
            "{.status.capacity.storage} is absent, not 3Gi"
        );
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [
            "",
            "{.status",
            "{}",
            "..name",
            "{.items[}",
            "{.items[?(@.a>1)]}",
            "{.items[-1]}",
        ] {
            assert!(FieldPath::parse(path).is_err(), "{path}");
        }
    }
}
