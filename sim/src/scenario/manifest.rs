//! Kubernetes manifests, read as strictly as `kubectl --validate=strict` reads them.
//!
//! Unknown keys, wrong types, missing and duplicate keys are mistakes with a place; the values themselves (a shrinking claim, a name with a slash)
//! are judged by the API server when the manifest is applied, as in Kubernetes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::check::{At, Check, listed};
use super::kinds;
use super::mistake::{Mistake, Place, Source, Span};
use super::nearest::nearest;
use super::tree::{self, Node};
use crate::api::{Kind, ObjKey, Object, ObjectRef};

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// One object as it is applied.
#[derive(Clone)]
pub struct Manifest {
    /// Kind, namespace and name.
    pub target: ObjectRef,
    /// The object, typed.
    pub object: Object,
    /// The object as written, its namespace filled in: what an apply to an existing object merges.
    pub json: Json,
    /// Where it was written; nothing for a manifest built in Rust.
    pub place: Option<Place>,
}

/// The object without the JSON that it was read from: of Secrets nothing is told.
impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Manifest");
        shown.field("target", &self.target).field("object", &self.object);
        shown.field("place", &self.place).finish_non_exhaustive()
    }
}

/// Two manifests are equal when they say the same; where they were written does not matter.
impl PartialEq for Manifest {
    fn eq(&self, other: &Manifest) -> bool {
        self.json == other.json
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Manifest, D::Error> {
        Manifest::from_json(Json::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Manifest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Manifest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A Kubernetes object exactly as kubectl takes it, or `kind: List`.",
            "type": "object",
            "required": ["apiVersion", "kind"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
            },
            "x-wavetank-manifest": true,
        })
    }
}

impl Manifest {
    /// A manifest from JSON that carries `apiVersion`, `kind` and `metadata.name`.
    ///
    /// # Errors
    /// A sentence if the kind is unknown or a type is wrong. Unknown keys are noticed only in YAML.
    pub fn from_json(mut json: Json) -> Result<Manifest, String> {
        let kind = json
            .get("kind")
            .and_then(Json::as_str)
            .ok_or("a manifest needs a `kind`")?;
        let kind = kinds::by_name(kind).ok_or_else(|| format!("the cluster knows no kind {kind}"))?;
        if json.get("apiVersion").and_then(Json::as_str) != Some(kind.api_version()) {
            return Err(format!("the apiVersion of {} is {}", kind.name(), kind.api_version()));
        }
        let metadata = json
            .get_mut("metadata")
            .and_then(Json::as_object_mut)
            .ok_or("a manifest needs `metadata`")?;
        if kind.namespaced() {
            metadata.entry("namespace").or_insert_with(|| DEFAULT_NAMESPACE.into());
        } else {
            metadata.remove("namespace");
        }
        if metadata.get("name").and_then(Json::as_str).is_none() {
            return Err("a manifest needs `metadata.name`".to_owned());
        }
        let object = Object::from_json(kind, json.clone()).map_err(|error| error.to_string())?;
        Ok(Manifest {
            target: object.to_ref(),
            object,
            json,
            place: None,
        })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.target.kind
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjKey {
        &self.target.key
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.target.key.name
    }
}

/// What a manifest file or an inline manifest holds: the objects that can be applied, and what is wrong with the others.
#[derive(Default)]
pub(crate) struct Read {
    pub manifests: Vec<Manifest>,
    pub mistakes: Vec<Mistake>,
}

/// Reads every document of a file.
pub(crate) fn read_source(source: &Arc<Source>) -> Read {
    let (documents, mistakes) = tree::parse(source);
    let mut read = Read {
        manifests: Vec::new(),
        mistakes,
    };
    for document in documents.iter().filter(|document| !document.is_null()) {
        read.node(
            document,
            source,
            &At {
                path: String::new(),
                span: document.span,
            },
        );
    }
    if read.manifests.is_empty() && read.mistakes.is_empty() {
        let start = Span {
            start: 0,
            len: 0,
            line: 1,
            column: 1,
        };
        read.mistakes
            .push(Mistake::new("", "this file holds no object").at(source, start));
    }
    read
}

impl Read {
    /// Reads one object or list.
    pub fn node(&mut self, node: &Node, source: &Arc<Source>, at: &At) {
        let before = self.mistakes.len();
        let Some(kind) = self.kind(node, source, at) else {
            return;
        };
        let Some(kind) = kind else {
            return self.list(node, source, at);
        };
        let schema = kinds::schema(kind);
        let mut check = Check {
            source,
            root: schema,
            title: kind.name(),
            partial: false,
            known: &|path, key| kinds::misplaced(kind, below(path, &at.path), key),
            format: |_, _| None,
            mistakes: Vec::new(),
        };
        check.check(node, schema, at);
        self.mistakes.append(&mut check.mistakes);
        self.name(node, source, at);
        if self.mistakes.len() > before {
            return;
        }
        match Manifest::from_json(node.to_json(false)) {
            Ok(manifest) => self.manifests.push(Manifest {
                place: Some(source.place(node.span)),
                ..manifest
            }),
            Err(why) => self.mistakes.push(Mistake::new(&at.path, why).at(source, at.span)),
        }
    }

    /// The kind of an object; `Some(None)` for a list.
    fn kind(&mut self, node: &Node, source: &Arc<Source>, at: &At) -> Option<Option<Kind>> {
        let mut refuse = |mistake: Mistake, span: Span| self.mistakes.push(mistake.at(source, span));
        if node.entries().is_none() {
            refuse(
                Mistake::new(&at.path, format!("a Kubernetes object is a map, not {}", node.what())),
                node.span,
            );
            return None;
        }
        let mut texts = ["apiVersion", "kind"].map(|key| (key, None, at.span));
        for (key, text, span) in &mut texts {
            let path = at.key(key, at.span).path;
            match node.entry(key) {
                Some(entry) if !entry.value.is_null() => {
                    *span = entry.value.span;
                    *text = entry.value.text();
                    if text.is_none() {
                        refuse(
                            Mistake::new(path, format!("`{key}` must be text, not {}", entry.value.what())),
                            *span,
                        );
                    }
                }
                _ => refuse(
                    Mistake::new(path, format!("`{key}` is missing: it says what this object is")),
                    at.span,
                ),
            }
        }
        let [(_, version, version_at), (_, kind, kind_at)] = texts;
        let (version, kind) = (version?, kind?);
        if kind == "List" && version == "v1" {
            return Some(None);
        }
        let Some(known) = kinds::by_name(kind) else {
            refuse(unknown_kind(kind, &at.key("kind", kind_at).path), kind_at);
            return None;
        };
        if version != known.api_version() {
            let path = at.key("apiVersion", version_at).path;
            let message = format!("{kind} has the apiVersion `{}`, not `{version}`", known.api_version());
            let help = format!("write `apiVersion: {}`", known.api_version());
            refuse(
                Mistake::new(path, message).suggest(known.api_version()).help(help),
                version_at,
            );
            return None;
        }
        Some(Some(known))
    }

    fn list(&mut self, node: &Node, source: &Arc<Source>, at: &At) {
        for entry in node.entries().unwrap_or_default() {
            if !["apiVersion", "kind", "metadata", "items"].contains(&entry.key.as_str()) {
                let path = at.key(&entry.key, entry.span).path;
                let mistake = Mistake::new(path, format!("unknown key `{}`: List has no such key", entry.key));
                self.mistakes.push(
                    mistake
                        .help("valid keys here: `apiVersion`, `kind`, `metadata`, `items`")
                        .at(source, entry.span),
                );
            }
        }
        let Some(items) = node.entry("items") else {
            let path = at.key("items", at.span).path;
            self.mistakes
                .push(Mistake::new(&path, format!("`{path}` is missing")).at(source, at.span));
            return;
        };
        let here = at.key("items", items.span);
        match items.value.items() {
            Some(objects) => {
                for (n, object) in objects.iter().enumerate() {
                    self.node(object, source, &here.item(n, object.span));
                }
            }
            None => {
                let message = format!("`{}` must be a list, not {}", here.path, items.value.what());
                self.mistakes
                    .push(Mistake::new(here.path, message).at(source, items.span));
            }
        }
    }

    fn name(&mut self, node: &Node, source: &Arc<Source>, at: &At) {
        let Some(metadata) = node.entry("metadata").filter(|entry| entry.value.entries().is_some()) else {
            return;
        };
        if metadata.value.get("name").is_some_and(|name| !name.is_null()) {
            return;
        }
        let path = at.key("metadata", metadata.span).key("name", metadata.span).path;
        let mistake = Mistake::new(&path, format!("`{path}` is missing"));
        let mistake = match metadata.value.entry("generateName") {
            Some(_) => mistake.help("apply cannot use generateName: give the object a name"),
            None => mistake,
        };
        self.mistakes.push(mistake.at(source, metadata.span));
    }
}

fn unknown_kind(kind: &str, path: &str) -> Mistake {
    if kinds::not_modelled(kind) {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let message = format!("the cluster in the tank has no {kind}: it models storage, nodes and pods");
        return Mistake::new(path, message).help(format!("it knows: {}", listed(&names)));
    }
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let mistake = Mistake::new(path, format!("unknown kind `{kind}`"));
    match nearest(kind, names.iter().copied()).or_else(|| kinds::by_word(kind).map(Kind::name)) {
        Some(near) => mistake.suggest(near).help(format!("did you mean `{near}`?")),
        None => mistake.help(format!("the cluster knows: {}", listed(&names))),
    }
}

/// The part of `path` below `base`.
fn below<'p>(path: &'p str, base: &str) -> &'p str {
    path.strip_prefix(base).unwrap_or(path).trim_start_matches('.')
}
