//! Secrets stay out of every rendering.
//!
//! Three guards, each enough for what it guards: the fields of CSI requests that carry secrets and the data of Kubernetes Secrets are replaced whole,
//! keys included; and values that were seen in either are taken out of all other text, so that a driver which repeats a password in an error message
//! does not put it into a bug report.
//!
//! Blind spot: of the last guard, short values and short plain words (`admin`, `rbd`). They would take ordinary words out of the trace.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value as Json;
use wavetank_proto::redact::{STRIPPED, Secrets as _};

use crate::api::{Edit, Kind, Object, Write};
use crate::link::CsiRequest;

use super::{Record, What};

/// The shortest value that is taken out of other text.
const SHORTEST: usize = 6;
/// The shortest value that is taken out although it is one plain word.
const SHORTEST_WORD: usize = 16;
/// The fields of a Kubernetes Secret that hold its data.
const DATA: [&str; 2] = ["data", "stringData"];

/// The secret values that a run has seen.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Longest first, so that a value which contains another goes whole.
    values: Vec<String>,
}

impl Secrets {
    /// The secret values of a whole trace.
    pub fn of(records: &[Record]) -> Secrets {
        let mut found = BTreeSet::new();
        for record in records {
            match &record.what {
                What::Write {
                    write, before, result, ..
                } => {
                    of_write(write, &mut found);
                    let after = result.as_ref().ok().map(|written| &written.object);
                    before
                        .iter()
                        .chain(after)
                        .for_each(|object| of_object(object, &mut found));
                }
                What::Call { call, .. } => {
                    let values = of_request(&call.request).into_iter().flatten();
                    found.extend(values.map(|(_, value)| value.clone()));
                }
                _ => {}
            }
        }
        found.retain(|value| is_telling(value));
        let mut values: Vec<String> = found.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Secrets { values }
    }

    /// The text without secret values.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for value in &self.values {
            if text.contains(value.as_str()) {
                text = Cow::Owned(text.replace(value.as_str(), STRIPPED));
            }
        }
        text
    }

    /// Takes secret values out of every string of a JSON value, keys included.
    pub fn scrub_json(&self, json: &mut Json) {
        if self.values.is_empty() {
            return;
        }
        match json {
            Json::String(text) => {
                if let Cow::Owned(clean) = self.scrub(text) {
                    *text = clean;
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.scrub_json(item)),
            Json::Object(fields) => {
                let dirty: Vec<String> = fields.keys().filter(|k| self.scrub(k) != **k).cloned().collect();
                for key in dirty {
                    let value = fields.remove(&key).expect("the key was listed just now");
                    fields.insert(self.scrub(&key).into_owned(), value);
                }
                fields.values_mut().for_each(|value| self.scrub_json(value));
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
}

/// An object as JSON; the data of a Secret is not in it.
pub fn object_json(object: &Object) -> Json {
    let mut json = object.to_json();
    if object.kind() == Kind::Secret {
        strip(&mut json);
    }
    json
}

/// Strips the data of a Secret from its JSON, or from a merge patch of one.
pub fn strip(json: &mut Json) {
    if let Json::Object(fields) = json {
        for name in DATA {
            if let Some(value) = fields.get_mut(name) {
                *value = STRIPPED.into();
            }
        }
        // What `kubectl apply` remembers is the whole object once more.
        let annotations = fields.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
        if let Some(Json::Object(annotations)) = annotations {
            annotations.retain(|key, _| !key.ends_with("/last-applied-configuration"));
        }
    }
}

/// Shows every secret value that a request carries.
pub fn secrets_of(request: &CsiRequest, show: &mut dyn FnMut(&str)) {
    let values = of_request(request).into_iter().flatten();
    values.for_each(|(_, value)| show(value));
}

/// The secrets of a request, for the requests that can carry any.
pub fn of_request(request: &CsiRequest) -> Option<&BTreeMap<String, String>> {
    macro_rules! carriers {
        ($($method:ident)*) => {
            match request {
                $(CsiRequest::$method(message) => Some(message.secrets()),)*
                _ => None,
            }
        };
    }
    carriers! {
        CreateVolume DeleteVolume ControllerPublishVolume ControllerUnpublishVolume ValidateVolumeCapabilities
        ControllerExpandVolume ControllerModifyVolume CreateSnapshot DeleteSnapshot ListSnapshots GetSnapshot
        CreateVolumeGroupSnapshot DeleteVolumeGroupSnapshot GetVolumeGroupSnapshot
        NodeStageVolume NodePublishVolume NodeExpandVolume
    }
}

fn of_write(write: &Write, found: &mut BTreeSet<String>) {
    match write {
        Write::Create(object) | Write::Update(object) | Write::UpdateStatus(object) => of_object(object, found),
        Write::Patch(patch) if patch.target.kind == Kind::Secret => {
            for edit in &patch.edits {
                match edit {
                    Edit::Merge(json) | Edit::Strategic(json) => {
                        let data = DATA.iter().filter_map(|name| json.get(name));
                        data.for_each(|json| strings(json, found));
                    }
                    Edit::Json(json) => strings(json, found),
                    _ => {}
                }
            }
        }
        Write::Patch(_) | Write::Bind { .. } | Write::Delete(_) => {}
    }
}

fn of_object(object: &Object, found: &mut BTreeSet<String>) {
    let Some(secret) = object.get::<Secret>() else { return };
    for value in secret.data.iter().flatten().map(|(_, value)| value) {
        of_bytes(value, found);
    }
    for value in secret.string_data.iter().flatten().map(|(_, value)| value) {
        of_bytes(&ByteString(value.clone().into_bytes()), found);
    }
}

/// A value in the forms in which it can turn up elsewhere: as text, and in the base64 of manifests.
fn of_bytes(value: &ByteString, found: &mut BTreeSet<String>) {
    if let Ok(text) = std::str::from_utf8(&value.0) {
        found.insert(text.to_owned());
        found.insert(text.trim().to_owned());
    }
    if let Ok(Json::String(encoded)) = serde_json::to_value(value) {
        found.insert(encoded);
    }
}

fn strings(json: &Json, found: &mut BTreeSet<String>) {
    match json {
        Json::String(text) => {
            found.insert(text.clone());
            if let Ok(decoded) = serde_json::from_value::<ByteString>(json.clone()) {
                of_bytes(&decoded, found);
            }
        }
        Json::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Json::Object(fields) => fields.values().for_each(|value| strings(value, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn is_telling(value: &str) -> bool {
    let word = value.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'/');
    value.len() >= if word { SHORTEST_WORD } else { SHORTEST }
}

#[cfg(test)]
mod tests {
    use super::{Secrets, is_telling, of_request, strip};
    use crate::link::CsiRequest;
    use serde_json::json;
    use wavetank_proto::csi::v1 as csi;
    use wavetank_proto::redact::{MESSAGES_WITH_SECRETS, Secrets as _};

    #[test]
    fn no_request_that_can_carry_secrets_is_forgotten() {
        macro_rules! planted {
            ($($method:ident $message:ident)*) => { vec![$({
                let mut message = csi::$message::default();
                message.secrets_mut().insert("k".into(), "v".into());
                CsiRequest::$method(message)
            }),*] };
        }
        let requests = planted! {
            CreateVolume CreateVolumeRequest DeleteVolume DeleteVolumeRequest
            ControllerPublishVolume ControllerPublishVolumeRequest ControllerUnpublishVolume ControllerUnpublishVolumeRequest
            ValidateVolumeCapabilities ValidateVolumeCapabilitiesRequest ControllerExpandVolume ControllerExpandVolumeRequest
            ControllerModifyVolume ControllerModifyVolumeRequest CreateSnapshot CreateSnapshotRequest
            DeleteSnapshot DeleteSnapshotRequest ListSnapshots ListSnapshotsRequest GetSnapshot GetSnapshotRequest
            CreateVolumeGroupSnapshot CreateVolumeGroupSnapshotRequest DeleteVolumeGroupSnapshot DeleteVolumeGroupSnapshotRequest
            GetVolumeGroupSnapshot GetVolumeGroupSnapshotRequest NodeStageVolume NodeStageVolumeRequest
            NodePublishVolume NodePublishVolumeRequest NodeExpandVolume NodeExpandVolumeRequest
        };
        for request in &requests {
            assert!(
                of_request(request).is_some_and(|s| !s.is_empty()),
                "{}",
                request.method()
            );
        }
        // The two streams of SnapshotMetadata are no unary calls.
        assert_eq!(requests.len() + 2, MESSAGES_WITH_SECRETS.len());
    }

    #[test]
    fn words_stay_and_passwords_go() {
        for word in ["admin", "rbd", "kubernetes", "a/b", "x1"] {
            assert!(!is_telling(word), "{word}");
        }
        for secret in ["hunter2", "correct-horse-battery", "S3cret"] {
            assert!(is_telling(secret), "{secret}");
        }
    }

    #[test]
    fn values_are_taken_out_of_text_and_json_longest_first() {
        let secrets = Secrets {
            values: vec!["hunter22".into(), "hunter2".into()],
        };
        assert_eq!(
            secrets.scrub("no hunter22, no hunter2"),
            "no ***stripped***, no ***stripped***"
        );
        let mut json = json!({"a": ["xhunter2y"], "hunter2": {"b": 1}});
        secrets.scrub_json(&mut json);
        assert_eq!(json, json!({"a": ["x***stripped***y"], "***stripped***": {"b": 1}}));
    }

    #[test]
    fn the_data_of_a_secret_goes_with_what_apply_remembers_of_it() {
        let mut json = json!({
            "metadata": {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{…}", "a": "b"}},
            "data": {"password": "aHVudGVyMg=="}, "stringData": {"x": "y"}, "type": "Opaque",
        });
        strip(&mut json);
        assert_eq!(
            json,
            json!({"metadata": {"name": "s", "annotations": {"a": "b"}}, "data": "***stripped***", "stringData": "***stripped***", "type": "Opaque"})
        );
    }
}
