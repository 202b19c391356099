//! Compares a YAML tree with a JSON Schema and reports every difference, with the place, the path and the key that was probably meant.
//!
//! One walk serves manifests (schemas of the Kubernetes types) and scenario files (schemas of our types). Keys that a schema does not list are
//! always mistakes, whatever it says of additional properties, unless it gives a schema for them: that is what `kubectl --validate=strict` does.
//!
//! Blind spots: only the keywords that these schemas use are understood; `pattern` and `not` are not among them.

use std::sync::Arc;

use base64ish::is_base64;
use serde_json::Value as Json;

use super::duration::GoDuration;
use super::mistake::{Mistake, Source, Span};
use super::names::check_format;
use super::nearest::nearest;
use super::tree::{Node, Value};
use crate::api::quantity::Amount;

/// The most mistakes that are reported of one file.
pub(crate) const MOST_MISTAKES: usize = 200;

const A_DURATION: &str = "a duration such as 1m30s";

/// What kind of text a schema's `format`, or the name of a definition, demands; the answer says why a text is not.
pub(crate) type Format = fn(&str, &str) -> Option<Result<(), String>>;

/// What is known of a key that does not exist.
pub(crate) struct Better {
    /// The right key, if there is one.
    pub key: Option<String>,
    /// A sentence about it.
    pub help: String,
    /// Whether it is better than a key that is merely spelt alike.
    pub sure: bool,
}

/// The walk over one tree.
pub(crate) struct Check<'a> {
    /// Where the tree comes from.
    pub source: &'a Arc<Source>,
    /// The schema document: `$ref` points into it.
    pub root: &'a Json,
    /// What the document is called in messages, e.g. `StorageClass`.
    pub title: &'a str,
    /// Whether required keys may be absent and values null, as in a patch.
    pub partial: bool,
    /// What is known of a key that does not exist at this path: the hint and the way out.
    pub known: &'a dyn Fn(&str, &str) -> Option<Better>,
    /// The formats of text beyond those of Kubernetes.
    pub format: Format,
    /// What was found.
    pub mistakes: Vec<Mistake>,
}

/// Where the walk stands.
#[derive(Clone)]
pub(crate) struct At {
    /// The path from the root of the document.
    pub path: String,
    /// The key that led here, for mistakes about the value as a whole.
    pub span: Span,
}

impl At {
    /// The path of `key` below here.
    pub fn key(&self, key: &str, span: Span) -> At {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "-_$".contains(c));
        let path = match (self.path.as_str(), plain) {
            ("", true) => key.to_owned(),
            (path, true) => format!("{path}.{key}"),
            (path, false) => format!("{path}[{key:?}]"),
        };
        At { path, span }
    }

    /// The path of the `n`-th item below here.
    pub fn item(&self, n: usize, span: Span) -> At {
        At {
            path: format!("{}[{n}]", self.path),
            span,
        }
    }
}

impl<'a> Check<'a> {
    /// The check of a whole document of ours, with our formats.
    pub fn of(source: &'a Arc<Source>, root: &'a Json, title: &'a str) -> Check<'a> {
        Check {
            source,
            root,
            title,
            partial: false,
            known: &|_, _| None,
            format: check_format,
            mistakes: Vec::new(),
        }
    }

    /// Follows `$ref`; the answer is the schema itself and the name under which it was found.
    fn target<'s>(&'s self, schema: &'s Json) -> (&'s Json, &'s str) {
        match reference(schema) {
            Some(name) => (self.root["$defs"].get(name).unwrap_or(&Json::Null), name),
            None => (schema, ""),
        }
    }

    /// Compares `node` with `schema`.
    pub fn check(&mut self, node: &Node, schema: &'a Json, at: &At) {
        let root = self.root;
        let (schema, name) = match reference(schema) {
            Some(name) => (root["$defs"].get(name).unwrap_or(&Json::Null), name),
            None => (schema, ""),
        };
        if schema.get("x-wavetank-manifest").is_some() || (self.partial && node.is_null()) {
            return;
        }
        if name.ends_with("api.resource.Quantity") {
            return self.quantity(node, at);
        }
        if let Value::Text(text) = &node.value
            && let Some(verdict) = (self.format)(name, text)
        {
            if let Err(why) = verdict {
                self.report(Mistake::new(&at.path, format!("`{}`: {why}", at.path)), node.span);
            }
            return;
        }
        if name.ends_with("intstr.IntOrString") {
            if !matches!(node.value, Value::Number(_) | Value::Text(_)) {
                self.wrong(node, at, "a number or a text");
            }
            return;
        }
        if let Some(variants) = schema
            .get("oneOf")
            .or_else(|| schema.get("anyOf"))
            .and_then(Json::as_array)
        {
            return self.variants(node, variants, schema, at);
        }
        let types = types(schema);
        if types.is_empty() && schema.get("enum").is_none() && schema.get("const").is_none() {
            return;
        }
        if !types.is_empty() && !types.iter().any(|wanted| fits(node, wanted)) {
            let wanted = types
                .iter()
                .filter(|t| **t != "null")
                .map(|t| called(t, schema))
                .collect::<Vec<_>>();
            return self.wrong(node, at, &wanted.join(" or "));
        }
        match &node.value {
            Value::Map(_) => self.map(node, schema, title(schema).unwrap_or(short(name)), at),
            Value::List(items) => self.list(items, schema, at),
            Value::Text(text) => self.text(node, text, schema, at),
            Value::Number(number) => self.number(node, number, schema, at),
            _ => {}
        }
    }

    fn report(&mut self, mistake: Mistake, span: Span) {
        if !self.full() {
            self.mistakes.push(mistake.at(self.source, span));
        }
    }

    /// Whether so much is wrong that more would help nobody.
    fn full(&self) -> bool {
        self.mistakes.len() >= MOST_MISTAKES
    }

    /// The value is of the wrong type.
    fn wrong(&mut self, node: &Node, at: &At, wanted: &str) {
        let span = if node.is_null() || matches!(node.value, Value::Map(_) | Value::List(_)) {
            at.span
        } else {
            node.span
        };
        let mut mistake = Mistake::new(&at.path, format!("`{}` must be {wanted}, not {}", at.path, node.what()));
        let scalar = self
            .source
            .text
            .get(node.span.start..node.span.start + node.span.len)
            .unwrap_or_default();
        if let (A_DURATION, Value::Number(number)) = (wanted, &node.value) {
            mistake = mistake.help(format!("write a unit: {number}s, {number}ms"));
        } else if wanted == "text" && matches!(node.value, Value::Bool(_) | Value::Number(_)) {
            mistake = mistake.help(format!("quote it: \"{scalar}\""));
        } else if matches!((wanted, &node.value), ("a boolean" | "a whole number", Value::Text(_)))
            && scalar.starts_with(['"', '\''])
        {
            mistake = mistake.help("take the quotes away");
        } else if wanted == "a list" {
            mistake = mistake.help("write each item on a line of its own behind `- `");
        }
        self.report(mistake, span);
    }

    fn quantity(&mut self, node: &Node, at: &At) {
        match &node.value {
            Value::Number(_) => {}
            Value::Text(text) => {
                if let Err(why) = quantity(text) {
                    self.report(Mistake::new(&at.path, format!("`{}`: {why}", at.path)), node.span);
                }
            }
            _ => self.wrong(node, at, "a quantity such as 10Gi"),
        }
    }

    fn list(&mut self, items: &[Node], schema: &'a Json, at: &At) {
        if let Some(inner) = schema.get("items") {
            for (n, item) in items.iter().enumerate() {
                self.check(item, inner, &at.item(n, item.span));
            }
        }
        if let Some(least) = schema.get("minItems").and_then(Json::as_u64)
            && (items.len() as u64) < least
        {
            let message = format!(
                "`{}` needs at least {least} item{}",
                at.path,
                if least == 1 { "" } else { "s" }
            );
            self.report(Mistake::new(&at.path, message), at.span);
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Json, at: &At) {
        if let Some(allowed) = schema.get("enum").and_then(Json::as_array) {
            let allowed: Vec<&str> = allowed.iter().filter_map(Json::as_str).collect();
            return self.one_of(node, text, &allowed, at);
        }
        let Some(format) = schema.get("format").and_then(Json::as_str) else {
            return;
        };
        let verdict = match format {
            "go-duration" => GoDuration::parse(text).map(drop).map_err(|e| e.to_string()),
            "quantity" => quantity(text),
            "byte" if !is_base64(text) => Err("this is not base64".to_owned()),
            other => (self.format)(other, text).unwrap_or(Ok(())),
        };
        if let Err(why) = verdict {
            self.report(Mistake::new(&at.path, format!("`{}`: {why}", at.path)), node.span);
        }
    }

    fn one_of(&mut self, node: &Node, text: &str, allowed: &[&str], at: &At) {
        if allowed.contains(&text) {
            return;
        }
        let mut mistake = Mistake::new(&at.path, format!("`{}` cannot be {text:?}", at.path));
        mistake = match nearest(text, allowed.iter().copied()) {
            Some(near) => mistake.suggest(near).help(format!("did you mean `{near}`?")),
            None => mistake.help(format!("it can be: {}", listed(allowed))),
        };
        self.report(mistake, node.span);
    }

    fn number(&mut self, node: &Node, number: &serde_json::Number, schema: &Json, at: &At) {
        let value = number.as_f64().unwrap_or_default();
        let (mut least, mut most) = match schema.get("format").and_then(Json::as_str) {
            Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
            Some("uint8") => (Some(0.0), Some(255.0)),
            Some("uint16") => (Some(0.0), Some(65535.0)),
            Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
            Some("uint64" | "uint") => (Some(0.0), None),
            _ => (None, None),
        };
        let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
        least = bound("minimum").or(least);
        most = bound("maximum").or(most);
        let message = match (least, most) {
            (Some(least), _) if value < least => format!("`{}` must be at least {least}, not {number}", at.path),
            (_, Some(most)) if value > most => format!("`{}` must be at most {most}, not {number}", at.path),
            _ => return,
        };
        self.report(Mistake::new(&at.path, message), node.span);
    }

    fn map(&mut self, node: &Node, schema: &'a Json, name: &str, at: &At) {
        let entries = node.entries().unwrap_or_default();
        let before = self.mistakes.len();
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        for entry in entries {
            let here = at.key(&entry.key, entry.span);
            let names = schema
                .get("propertyNames")
                .and_then(|names| names.get("format"))
                .and_then(Json::as_str);
            if let Some(Err(why)) = names.and_then(|format| (self.format)(format, &entry.key)) {
                self.report(Mistake::new(&here.path, why), entry.span);
            }
            match properties.and_then(|properties| properties.get(&entry.key)) {
                // Kubernetes drops keys without a value; so do the optional keys of ours.
                Some(_) if entry.value.is_null() => {}
                Some(inner) => self.check(&entry.value, inner, &here),
                None if self.partial && entry.key.starts_with('$') => {}
                None => match (others, properties) {
                    (Some(inner), _) => self.check(&entry.value, inner, &here),
                    (None, Some(properties)) => {
                        let valid: Vec<&str> = properties.keys().map(String::as_str).collect();
                        let noun = if schema.get("x-wavetank-flags").is_some() {
                            "flag"
                        } else {
                            "key"
                        };
                        self.unknown(&entry.key, &valid, (noun, name), at, &here);
                    }
                    (None, None) => {}
                },
            }
        }
        if self.partial || self.full() {
            return;
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for key in required.filter_map(Json::as_str) {
            if node.get(key).is_none_or(Node::is_null) {
                let path = at.key(key, at.span).path;
                // A misspelt key has been reported with this one as its suggestion.
                if self.mistakes[before..]
                    .iter()
                    .any(|mistake| mistake.suggest.as_ref() == Some(&path))
                {
                    continue;
                }
                let span = node.entry(key).map_or(at.span, |entry| entry.span);
                self.report(Mistake::new(&path, format!("`{path}` is missing")), span);
            }
        }
    }

    fn unknown(&mut self, key: &str, valid: &[&str], (noun, owner): (&str, &str), at: &At, here: &At) {
        if self.full() {
            return;
        }
        let owner = if owner.is_empty() { self.title } else { owner };
        let mistake = Mistake::new(
            &here.path,
            format!("unknown {noun} `{key}`: {owner} has no such {noun}"),
        );
        let near = nearest(key, valid.iter().copied());
        let mistake = match ((self.known)(&at.path, key), near) {
            (Some(Better { key, help, sure }), near) if sure || near.is_none() => match key {
                Some(key) => mistake.suggest(key).help(help),
                None => mistake.help(help),
            },
            (_, Some(near)) => {
                let right = at.key(near, here.span).path;
                mistake.help(format!("did you mean `{right}`?")).suggest(right)
            }
            (_, None) if valid.is_empty() => mistake.help(format!("{owner} takes no keys")),
            (_, None) => mistake.help(format!("valid {noun}s here: {}", listed(valid))),
        };
        self.report(mistake, here.span);
    }

    fn variants(&mut self, node: &Node, variants: &'a [Json], schema: &'a Json, at: &At) {
        if variants
            .iter()
            .any(|v| v.get("type").and_then(Json::as_str) == Some("null"))
            && node.is_null()
        {
            return;
        }
        if let (Some(tags), Value::Map(_)) = (self.tags(variants), &node.value) {
            return self.tagged(node, &tags, schema, at);
        }
        let constants: Vec<&str> = variants.iter().flat_map(constants).collect();
        if let Value::Text(text) = &node.value
            && !constants.is_empty()
            && variants
                .iter()
                .all(|v| !constants_of(v).is_empty() || types(v) != ["string"])
        {
            return self.one_of(node, text, &constants, at);
        }
        let before = self.mistakes.len();
        let mut best: Option<(bool, usize, Vec<Mistake>)> = None;
        let mut wanted: Vec<String> = Vec::new();
        for variant in variants {
            let target = self.target(variant).0;
            let foreign = !types(target).is_empty() && !types(target).iter().any(|t| fits(node, t));
            wanted.extend(
                types(target)
                    .iter()
                    .filter(|t| **t != "null")
                    .map(|t| called(t, target).to_owned()),
            );
            self.check(node, variant, at);
            let found = self.mistakes.split_off(before);
            let unknown = found.iter().filter(|m| m.message.starts_with("unknown ")).count();
            let rank = (foreign, found.len() + 4 * unknown);
            if best.as_ref().is_none_or(|(f, n, _)| rank < (*f, *n)) {
                best = Some((rank.0, rank.1, found));
            }
        }
        let Some((foreign, _, found)) = best else { return };
        if foreign {
            wanted.dedup();
            return self.wrong(node, at, &wanted.join(" or "));
        }
        self.mistakes.extend(found);
    }

    /// The variants by their one key, if each is a map of exactly one key.
    fn tags(&self, variants: &'a [Json]) -> Option<Vec<(&'a str, &'a Json)>> {
        variants
            .iter()
            .filter(|variant| types(variant) != ["string"])
            .map(|variant| {
                let properties = variant.get("properties")?.as_object()?;
                let required = variant.get("required")?.as_array()?;
                let (key, inner) = properties.iter().next()?;
                (properties.len() == 1 && required.len() == 1).then_some((key.as_str(), inner))
            })
            .collect::<Option<Vec<_>>>()
            .filter(|tags| !tags.is_empty())
    }

    fn tagged(&mut self, node: &Node, tags: &[(&'a str, &'a Json)], schema: &'a Json, at: &At) {
        let owner = ("key", title(schema).unwrap_or_default());
        let valid: Vec<&str> = tags.iter().map(|(tag, _)| *tag).collect();
        let entries = node.entries().unwrap_or_default();
        for entry in entries {
            let here = at.key(&entry.key, entry.span);
            match tags.iter().find(|(tag, _)| *tag == entry.key) {
                Some((_, inner)) => self.check(&entry.value, inner, &here),
                None => self.unknown(&entry.key, &valid, owner, at, &here),
            }
        }
        if entries.is_empty() {
            let message = format!("`{}` is empty", at.path);
            self.report(
                Mistake::new(&at.path, message).help(format!("write one of: {}", listed(&valid))),
                at.span,
            );
        } else if let Some(second) = entries.iter().filter(|e| valid.contains(&e.key.as_str())).nth(1) {
            let message = format!(
                "`{}` has more than one key: `{}` and `{}`",
                at.path, entries[0].key, second.key
            );
            self.report(
                Mistake::new(&at.path, message).help("put each behind a `- ` of its own"),
                second.span,
            );
        }
    }
}

fn quantity(text: &str) -> Result<(), String> {
    match Amount::parse(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "{text:?} is not a quantity: write a number and a suffix such as 10Gi, 500Mi or 5G"
        )),
    }
}

fn title(schema: &Json) -> Option<&str> {
    schema.get("title").and_then(Json::as_str)
}

fn reference(schema: &Json) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn constants_of(schema: &Json) -> Vec<&str> {
    constants(schema).collect()
}

fn constants(schema: &Json) -> impl Iterator<Item = &str> {
    let one = schema.get("const").and_then(Json::as_str);
    let many = schema.get("enum").and_then(Json::as_array);
    one.into_iter()
        .chain(many.into_iter().flatten().filter_map(Json::as_str))
}

fn fits(node: &Node, wanted: &str) -> bool {
    match &node.value {
        Value::Null => wanted == "null",
        Value::Bool(_) => wanted == "boolean",
        Value::Number(n) => wanted == "number" || (wanted == "integer" && !n.is_f64()),
        Value::Text(_) => wanted == "string",
        Value::List(_) => wanted == "array",
        Value::Map(_) => wanted == "object",
    }
}

fn called<'t>(wanted: &'t str, schema: &Json) -> &'t str {
    match wanted {
        "string" if schema.get("format").and_then(Json::as_str) == Some("go-duration") => A_DURATION,
        "boolean" => "a boolean",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
}

/// The last part of a definition's name: `CSIVolumeSource` of `io.k8s.api.core.v1.CSIVolumeSource`.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Keys as a sentence shows them.
pub(crate) fn listed(keys: &[&str]) -> String {
    const MOST: usize = 24;
    let mut text = keys
        .iter()
        .take(MOST)
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if keys.len() > MOST {
        text.push_str(&format!(" and {} more", keys.len() - MOST));
    }
    text
}

mod base64ish {
    //! Whether a text could be base64: enough to catch text that was never encoded.

    /// Whether the text has base64's alphabet, length and padding (line breaks are allowed).
    pub(super) fn is_base64(text: &str) -> bool {
        let text: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let body = text.len() - text.iter().rev().take_while(|b| **b == b'=').count();
        text.len().is_multiple_of(4)
            && text.len() - body <= 2
            && text[..body]
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    }
}
