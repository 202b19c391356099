//! Scenarios: who they are, how they are read, and why one is refused.
//!
//! A [`Scenario`] is data. It is written in YAML and read by [`load`], or in Rust with [`Scenario::builder`]; both spellings of one scenario are
//! equal. Reading is strict: every unknown key, wrong type and impossible reference is reported with file, line, column and the key that was
//! probably meant, all of them at once.
//!
//! ```text
//! text ──tree──► Node ──check (JSON Schema)──► mistakes
//!                 │
//!                 └──load──► Scenario ──refer (names, nodes, mounts)──► mistakes
//! ```
//!
//! Where to go next: `step.rs` and `condition.rs` for what a scenario can say, `shape.rs` and `flags.rs` for the cluster, `manifest.rs` for
//! Kubernetes objects, `judge.rs` for how expectations are compared. Playing a scenario is the business of the cluster.

mod arguments;
mod builder;
mod check;
mod condition;
mod duration;
pub(crate) mod effects;
mod field;
mod files;
pub mod flags;
mod headline;
mod judge;
mod kinds;
mod known;
mod load;
mod manifest;
mod mistake;
mod names;
mod nearest;
mod refer;
mod shape;
mod site;
mod step;
pub(crate) mod strict;
#[cfg(test)]
mod tests;
mod tree;
mod unmodelled;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

pub use builder::Builder;
pub use condition::{
    AllOf, CallCondition, CallLike, CallOrder, CallPattern, Condition, DataIntact, EventLike, EventSeen, EventType,
    Expectation, Intact, Leftovers, NoLeftovers, ObjectCondition, Target,
};
pub use duration::{GoDuration, NotADuration};
pub use field::FieldPath;
pub use judge::{SeenCall, SeenEvent};
pub(crate) use known::made_up;
pub use load::{load, load_file, parse};
pub use manifest::{DEFAULT_NAMESPACE, Manifest};
pub use mistake::{Mistake, Place, ScenarioError};
pub use names::{Call, Code, Errno, KindName, PlainPhase, Role};
pub(crate) use nearest::nearest;
pub(crate) use shape::numbered;
pub use shape::{Cluster, DEFAULT_DRIVER, DriverShape, MAX_NODES, NodeShape, Sidecars};
pub use site::{Phase, Process, Site};
pub use step::{
    AllInjections, Always, Apply, BLOCK, Crash, Delete, Healed, Inject, InjectPhase, Patch, PatchType, Refusal, Step,
    Subresource, Taint, TaintEffect, Times, Untaint, Verify, Wait, Write, WrongKey,
};

/// What is played: a cluster, the objects it begins with, what happens, and what must come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// Its name. If left out, the path of the file below the folder that was loaded, without the ending.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Why it exists: what a reader learns from it, or which bug it would catch.
    #[schemars(extend("format" = "because"))]
    pub because: String,
    /// The cluster. Three nodes and one driver with all sidecars if left out.
    #[serde(default)]
    pub cluster: Cluster,
    /// Objects that are applied at the start, in order.
    #[serde(default)]
    #[schemars(with = "Vec<ManifestSpelled>")]
    pub manifests: Vec<Manifest>,
    /// What happens.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What must be so when all steps are done.
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// What must have been seen at least once over all seeds that are played: calls and events. Else nothing is proved by what holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sometimes: Vec<Condition>,
    /// Where it was written.
    #[serde(skip)]
    pub places: Places,
}

/// An object among the manifests: itself, or the file that holds it.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ManifestOrFile")]
#[expect(dead_code, reason = "the schema is derived from it; `load.rs` reads the tree")]
enum ManifestSpelled {
    File(ManifestFile),
    Inline(Manifest),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema is derived from it; `load.rs` reads the tree")]
struct ManifestFile {
    /// A file with one or more objects, relative to the scenario.
    file: String,
}

/// Where the parts of a scenario were written. Nothing for a scenario built in Rust.
///
/// Any two are equal: where a scenario was written is no part of what it says.
#[derive(Clone, Debug, Default)]
pub struct Places {
    file: Option<Arc<str>>,
    steps: BTreeMap<usize, Place>,
    expect: BTreeMap<usize, Place>,
}

impl PartialEq for Places {
    fn eq(&self, _: &Places) -> bool {
        true
    }
}

impl Places {
    /// The file of the scenario, as the user would spell it.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Where the n-th step stands, from 0.
    pub fn step(&self, n: usize) -> Option<&Place> {
        self.steps.get(&n)
    }

    /// Where the n-th final expectation stands, from 0.
    pub fn expect(&self, n: usize) -> Option<&Place> {
        self.expect.get(&n)
    }
}

impl Scenario {
    /// Begins a scenario in Rust.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    /// The digest of what the scenario says, its files included: 64 hexadecimal digits. Name, reason and places are no part of it.
    pub fn digest(&self) -> String {
        let mut json = serde_json::to_value(self).expect("a scenario is plain data");
        if let Some(fields) = json.as_object_mut() {
            fields.remove("name");
            fields.remove("because");
        }
        let mut text = String::from("wavetank scenario 1\n");
        canonical(&json, &mut text);
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// The scenario's manifests and those of its apply steps, in order.
    pub fn all_manifests(&self) -> impl Iterator<Item = &Manifest> {
        let applied = self.steps.iter().filter_map(|step| match step {
            Step::Apply(apply) => Some(&apply.manifests),
            _ => None,
        });
        self.manifests.iter().chain(applied.flatten())
    }
}

/// JSON with sorted keys, whatever the order of the map behind it.
fn canonical(json: &serde_json::Value, text: &mut String) {
    match json {
        serde_json::Value::Object(fields) => {
            let sorted: BTreeMap<&String, &serde_json::Value> = fields.iter().collect();
            text.push('{');
            for (key, value) in sorted {
                text.push_str(&serde_json::Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        serde_json::Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// The JSON Schema of a scenario file, generated from the types. Editors take it to complete and check scenarios.
pub fn schema() -> serde_json::Value {
    let mut schema = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<Scenario>()
        .to_value();
    prune(&mut schema);
    schema["$id"] = "https://github.com/wavetank/wavetank/docs/scenario.schema.json".into();
    schema
}

/// Takes away defaults that are whole structures: their parts say the same where they are described.
fn prune(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(fields) => {
            fields.retain(|key, value| key != "default" || !(value.is_object() || value.is_array()));
            fields.values_mut().for_each(prune);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
