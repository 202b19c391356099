//! Compares the states through which objects pass.
//!
//! An object is flattened into facts (`phase`, `finalizer kubernetes.io/pvc-protection`, `condition Ready` …), each of which takes values one after another. The values of
//! each fact must be the same, in the same order. The order of changes of *different* facts is compared where the recording has more than
//! [`APART_MS`] between them: closer than that stand writes of different processes that race, and a watcher that was late. What one process writes in
//! which order is compared in `writes.rs`.
//!
//! Left out, on both sides: times, resourceVersions and generations; the last state of a deleted object (deletion itself is a fact); what a pod's spec
//! says; labels; kubelet's node conditions but `Ready`; a node's state before the first step; `nominatedNodeName`, which the recordings do not have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::fixture::{Change, Seen};
use crate::names::Names;

/// Changes closer than this are not ordered.
const APART_MS: f64 = 150.0;

/// One fact of an object took a value.
#[derive(Clone, Debug)]
pub struct Fact {
    pub t_ms: f64,
    pub name: String,
    pub value: String,
}

type Objects = BTreeMap<String, Vec<Fact>>;

/// The facts of each object, in order.
pub fn facts(seen: &Seen, names: &Names) -> Objects {
    let mut objects: Objects = BTreeMap::new();
    let mut now: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for change in seen.objects.iter().filter(|c| KINDS.contains(&c.kind.as_str())) {
        let object = names.spell_json(&change.object);
        let key = key(change, names);
        let before = now.entry(key.clone()).or_insert_with(|| base(&change.kind));
        let found = if change.event == "DELETED" {
            gone(before)
        } else {
            flatten(&change.kind, &object)
        };
        let facts = objects.entry(key).or_default();
        let mut changed = |name: &str, value: &str| {
            facts.push(Fact {
                t_ms: change.t_ms,
                name: name.to_owned(),
                value: value.to_owned(),
            });
        };
        for (name, value) in &found {
            if before.get(name) != Some(value) {
                changed(name, value);
            }
        }
        for name in before.keys().filter(|name| !found.contains_key(*name)) {
            changed(name, "");
        }
        *before = found;
    }
    objects.retain(|_, facts| !facts.is_empty());
    objects
}

/// A deleted object is gone, and its last finalizer with it: which of several that race was the last is chance. Nothing else of its last state is looked at.
fn gone(before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut last = before.clone();
    last.retain(|name, _| !name.starts_with("finalizer "));
    last.insert("gone".into(), "yes".into());
    last
}

const KINDS: &[&str] = &[
    "PersistentVolumeClaim",
    "PersistentVolume",
    "Pod",
    "VolumeAttachment",
    "Node",
    "CSINode",
];

fn key(change: &Change, names: &Names) -> String {
    let uid = change.object["metadata"]["uid"].as_str().unwrap_or_default();
    match change.kind.as_str() {
        "PersistentVolumeClaim" | "Pod" => {
            let label = names.spell(uid);
            if label == uid {
                format!("{} {}", change.kind, change.name)
            } else {
                label
            }
        }
        _ => format!("{} {}", change.kind, names.spell(&change.name)),
    }
}

/// What is so before anybody looks.
fn base(kind: &str) -> BTreeMap<String, String> {
    match kind {
        "Node" => BTreeMap::from([("ready".to_owned(), "True".to_owned())]),
        "CSINode" => BTreeMap::from([("driver hostpath.csi.k8s.io".to_owned(), "yes".to_owned())]),
        _ => BTreeMap::new(),
    }
}

/// An object as facts.
struct Facts<'a> {
    object: &'a Json,
    found: BTreeMap<String, String>,
}

impl Facts<'_> {
    fn put(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.found.insert(name.into(), value.into());
    }

    /// A value at a path, if it is there.
    fn at(&mut self, name: &str, path: &str) {
        if let Some(value) = self.object.pointer(path).filter(|v| !v.is_null()) {
            self.put(name, spelled(value));
        }
    }

    /// Each member of a list is a fact.
    fn each(&mut self, name: &str, path: &str, key: &str, value: &str) {
        let members = self
            .object
            .pointer(path)
            .and_then(Json::as_array)
            .cloned()
            .unwrap_or_default();
        for member in members {
            let key = if key.is_empty() { &member } else { &member[key] };
            let value = if value.is_empty() {
                "yes".into()
            } else {
                spelled(&member[value])
            };
            self.put(format!("{name} {}", spelled(key)), value);
        }
    }

    /// Each condition is a fact: its status, reason and sentence.
    fn conditions(&mut self) {
        let conditions = self.object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for condition in conditions {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            let value = format!("{} {} {}", text("status"), text("reason"), text("message"));
            self.put(format!("condition {}", text("type")), value.trim());
        }
    }

    /// Each field of a map is a fact.
    fn fields(&mut self, name: &str, path: &str) {
        let fields = self
            .object
            .pointer(path)
            .and_then(Json::as_object)
            .cloned()
            .unwrap_or_default();
        for (key, value) in fields {
            self.put(format!("{name} {key}"), spelled(&value));
        }
    }
}

fn spelled(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn flatten(kind: &str, object: &Json) -> BTreeMap<String, String> {
    let mut facts = Facts {
        object,
        found: BTreeMap::new(),
    };
    facts.each("finalizer", "/metadata/finalizers", "", "");
    if kind != "Node" && kind != "CSINode" {
        facts.fields("annotation", "/metadata/annotations");
    }
    if !object["metadata"]["deletionTimestamp"].is_null() {
        facts.put("deleting", "yes");
    }
    facts.at("phase", "/status/phase");
    match kind {
        "PersistentVolumeClaim" => claim(&mut facts),
        "PersistentVolume" => volume(&mut facts),
        "Pod" => pod(&mut facts),
        "VolumeAttachment" => attachment(&mut facts),
        "Node" => node(&mut facts),
        _ => facts.each("driver", "/spec/drivers", "name", ""),
    }
    facts.found
}

fn claim(facts: &mut Facts<'_>) {
    facts.at("volume", "/spec/volumeName");
    facts.at("class", "/spec/storageClassName");
    facts.at("mode", "/spec/volumeMode");
    facts.at("request", "/spec/resources/requests/storage");
    facts.at("capacity", "/status/capacity/storage");
    facts.at("allocated", "/status/allocatedResources/storage");
    facts.fields("resize", "/status/allocatedResourceStatuses");
    facts.at("attributes", "/spec/volumeAttributesClassName");
    facts.at("attributes now", "/status/currentVolumeAttributesClassName");
    facts.fields("modify", "/status/modifyVolumeStatus");
    facts.conditions();
}

fn volume(facts: &mut Facts<'_>) {
    facts.at("capacity", "/spec/capacity/storage");
    facts.at("claim", "/spec/claimRef/uid");
    facts.at("policy", "/spec/persistentVolumeReclaimPolicy");
    facts.at("class", "/spec/storageClassName");
    facts.at("mode", "/spec/volumeMode");
    facts.fields("attribute", "/spec/csi/volumeAttributes");
    facts.at("reason", "/status/reason");
}

fn pod(facts: &mut Facts<'_>) {
    facts.at("node", "/spec/nodeName");
    facts.conditions();
    let containers = facts.object["status"]["containerStatuses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for container in containers {
        let states = container["state"].as_object().cloned().unwrap_or_default();
        for (state, about) in states {
            let reason = about["reason"].as_str().unwrap_or_default();
            facts.put(
                format!("container {}", spelled(&container["name"])),
                format!("{state} {reason}"),
            );
        }
    }
}

fn attachment(facts: &mut Facts<'_>) {
    facts.at("attached", "/status/attached");
    facts.at("attach error", "/status/attachError/message");
    facts.at("detach error", "/status/detachError/message");
    facts.at("node", "/spec/nodeName");
}

fn node(facts: &mut Facts<'_>) {
    facts.each("in use", "/status/volumesInUse", "", "");
    facts.each("attached", "/status/volumesAttached", "name", "");
    facts.each("taint", "/spec/taints", "key", "effect");
    let conditions = facts.object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for condition in conditions.iter().filter(|c| c["type"] == "Ready") {
        facts.put("ready", spelled(&condition["status"]));
    }
}

/// How many changes of facts a side has.
pub fn count(objects: &Objects) -> usize {
    objects.values().map(Vec::len).sum()
}

/// What differs.
pub fn compare(recorded: &Objects, model: &Objects, differences: &mut Vec<String>) {
    let keys: BTreeSet<&String> = recorded.keys().chain(model.keys()).collect();
    for key in keys {
        let none = Vec::new();
        let (there, here) = (recorded.get(key).unwrap_or(&none), model.get(key).unwrap_or(&none));
        let found = differences.len();
        values(key, there, here, differences);
        if differences.len() == found {
            order(key, there, here, differences);
        }
    }
}

fn values(key: &str, there: &[Fact], here: &[Fact], differences: &mut Vec<String>) {
    let names: BTreeSet<&str> = there.iter().chain(here).map(|f| f.name.as_str()).collect();
    for name in names {
        let of = |facts: &[Fact]| -> Vec<String> {
            let own = facts.iter().filter(|f| f.name == name);
            own.map(|f| {
                if f.value.is_empty() {
                    "–".into()
                } else {
                    f.value.clone()
                }
            })
            .collect()
        };
        let (a, b) = (of(there), of(here));
        if a != b {
            differences.push(format!(
                "state: {key}: {name}: recorded {}, model {}",
                path(&a),
                path(&b)
            ));
        }
    }
}

fn path(values: &[String]) -> String {
    if values.is_empty() {
        "never".into()
    } else {
        values.join(" → ")
    }
}

/// Each change by its fact and how often that fact had changed before.
fn numbered(facts: &[Fact]) -> Vec<((&str, usize), f64)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut number = |fact| {
        let count = counts.entry(fact).or_default();
        *count += 1;
        *count
    };
    facts
        .iter()
        .map(|f| ((f.name.as_str(), number(&f.name)), f.t_ms))
        .collect()
}

fn order(key: &str, there: &[Fact], here: &[Fact], differences: &mut Vec<String>) {
    let model: BTreeMap<(&str, usize), f64> = numbered(here).into_iter().collect();
    let recorded = numbered(there);
    for (nth, (first, at)) in recorded.iter().enumerate() {
        for (second, then) in &recorded[nth + 1..] {
            if then - at > APART_MS && model[first] > model[second] {
                differences.push(format!(
                    "order: {key}: recorded {} before {}, model after it",
                    first.0, second.0
                ));
                return;
            }
        }
    }
}
