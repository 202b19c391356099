//! One spelling for what differs between any two runs: uids, handles, hashes, generated names. Labels are made from names that the user gave, so the
//! replacement is one-to-one and the same on both sides.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::fixture::{Change, Seen};

/// What is written for what.
#[derive(Default)]
pub struct Names {
    /// Longest first.
    replaced: Vec<(String, String)>,
}

impl Names {
    /// The names in what was seen.
    pub fn of(seen: &Seen) -> Names {
        let mut names = BTreeMap::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut nth = |base: String| {
            let count = counts.entry(base.clone()).or_default();
            *count += 1;
            if *count == 1 { base } else { format!("{base}#{count}") }
        };
        for kind in ["PersistentVolumeClaim", "Pod"] {
            for change in seen.objects.iter().filter(|c| c.kind == kind) {
                let uid = text(&change.object["metadata"]["uid"]);
                if !uid.is_empty() && !names.contains_key(uid) {
                    let label = if kind == "Pod" { "pod" } else { "claim" };
                    names.insert(uid.to_owned(), nth(format!("{label} {}", change.name)));
                }
            }
        }
        for change in &seen.objects {
            let new = match change.kind.as_str() {
                "PersistentVolume" => volume(change, &names),
                "VolumeAttachment" => attachment(change, &names),
                _ => Vec::new(),
            };
            for (name, label) in new {
                names.entry(name).or_insert(label);
            }
        }
        let mut replaced: Vec<(String, String)> =
            names.into_iter().map(|(n, label)| (n, format!("<{label}>"))).collect();
        replaced.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Names { replaced }
    }

    /// The text in the common spelling.
    pub fn spell(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, label) in &self.replaced {
            if text.contains(name.as_str()) {
                text = text.replace(name.as_str(), label);
            }
        }
        without_digits(&text)
    }

    /// The value with every string and key in the common spelling.
    pub fn spell_json(&self, value: &Json) -> Json {
        match value {
            Json::String(text) => Json::String(self.spell(text)),
            Json::Array(all) => Json::Array(all.iter().map(|v| self.spell_json(v)).collect()),
            Json::Object(fields) => {
                let spelled = fields.iter().map(|(k, v)| (self.spell(k), self.spell_json(v)));
                Json::Object(spelled.collect())
            }
            other => other.clone(),
        }
    }
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

/// A volume's uid and handle, by its claim.
fn volume(change: &Change, names: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let claim = names.get(text(&change.object["spec"]["claimRef"]["uid"]));
    let label = claim.cloned().unwrap_or_else(|| "nobody".into());
    let handle = text(&change.object["spec"]["csi"]["volumeHandle"]);
    let uid = text(&change.object["metadata"]["uid"]);
    let both = [
        (handle, format!("handle of {label}")),
        (uid, format!("volume of {label}")),
    ];
    let known = both.into_iter().filter(|(name, _)| !name.is_empty());
    known.map(|(name, label)| (name.to_owned(), label)).collect()
}

/// An attachment's name, by its volume and node.
fn attachment(change: &Change, names: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let volume = text(&change.object["spec"]["source"]["persistentVolumeName"]);
    let claim = volume.strip_prefix("pvc-").and_then(|uid| names.get(uid));
    let label = claim.map_or(volume, String::as_str);
    let node = text(&change.object["spec"]["nodeName"]);
    vec![(change.name.clone(), format!("attachment of {label} to {node}"))]
}

/// Leaves out what nobody gave a name to: hashes (64 hexadecimal digits), uids, the identity of a provisioner.
fn without_digits(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_hexdigit() || c == '-' {
            word.push(c);
            continue;
        }
        out.push_str(&anonymous(&word));
        word.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

/// A run of hexadecimal digits and dashes.
fn anonymous(word: &str) -> String {
    let digits = word.len() - word.matches('-').count();
    let tail = |at: usize| word.get(at..).unwrap_or_default();
    if word.len() >= 64 && tail(word.len() - 64).bytes().all(|b| b.is_ascii_hexdigit()) {
        return format!("{}<hash>", &word[..word.len() - 64]);
    }
    if digits >= 32 && word.len() >= 36 && tail(word.len() - 36).matches('-').count() == 4 {
        return format!("{}<uid>", &word[..word.len() - 36]);
    }
    // 1795204733042-8541-hostpath.csi.k8s.io
    let identity = |part: &str| part.len() >= 3 && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = word.split('-').collect();
    match parts[..] {
        [a, b, ""] if a.len() >= 13 && identity(a) && !b.is_empty() => "<provisioner>-".into(),
        _ => word.to_owned(),
    }
}
