//! The trace for machines: one JSON object in a line. The format is documented in `docs/trace.md`; [`SCHEMA`] is its number.
//!
//! Everything is in it, in full length, but for secrets and for numbers that unrelated objects would move: resourceVersions and running numbers of calls.
//! The digest of a run is taken over these lines.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tonic::Status;

use super::follow::Filter;
use super::lines::code;
use super::lore::Lore;
use super::secrets::{self, Secrets};
use super::{Follow, ProcessChange, Record, Trace, What, edits, proto_json};
use crate::api::{ApiError, Kind, Object, ObjectRef, Write, Written};
use crate::link::{Call, CsiReply, CsiRequest, MachineError, MachineOp, Socket};
use crate::runtime::Time;

/// The number of the format. It changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Writes each record as a line of JSON; only those that concern followed objects, unless none is followed.
///
/// # Errors
/// What the stream says.
pub fn write(out: &mut dyn io::Write, trace: &Trace, follow: &[Follow]) -> io::Result<()> {
    let filter = Filter::new(follow, trace.records(), &Lore::of(trace.records()));
    let mut writer = Writer::new(trace);
    for (nth, record) in trace.records().iter().enumerate() {
        let line = writer.line(record);
        if !filter.passes(nth) {
            continue;
        }
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Turns records into JSON, in order.
pub struct Writer {
    origin: Time,
    secrets: Secrets,
    /// The name of each call under way, and when it was sent.
    calls: BTreeMap<u64, (String, Time)>,
    /// How often a name was given.
    names: BTreeMap<String, u32>,
}

impl Writer {
    /// A writer for the records of a trace.
    pub fn new(trace: &Trace) -> Writer {
        Writer {
            origin: trace.origin(),
            secrets: Secrets::of(trace.records()),
            calls: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// The line of a record. Calls must be given before their replies.
    pub fn line(&mut self, record: &Record) -> Json {
        let mut line = json!({
            "t_ms": millis(record.at.since(self.origin)),
            "type": kind(&record.what),
            "process": &*record.process,
        });
        let fields = line.as_object_mut().expect("it was built as an object");
        match &record.what {
            What::Write { write, before, result } => write_fields(fields, write, before.as_ref(), result),
            What::Call { id, call } => {
                let name = self.name_call(record, call);
                self.calls.insert(*id, (name.clone(), record.at));
                fields.insert("call".into(), name.into());
                call_fields(fields, call);
            }
            What::Reply { id, call, took, result } => {
                // A call from before the trace began has no name here.
                if let Some((name, sent)) = self.calls.remove(id) {
                    fields.insert("call".into(), name.into());
                    fields.insert("sent_ms".into(), millis(sent.since(self.origin)));
                }
                reply_fields(fields, call, *took, result);
            }
            What::Machine { op, error } => machine_fields(fields, op, error.as_ref()),
            What::Process(change) => process_fields(fields, change),
            What::Step(text) | What::Fault(text) => drop(fields.insert("text".into(), text.as_str().into())),
        }
        self.secrets.scrub_json(&mut line);
        line
    }

    /// A name for a call that no unrelated call changes: who, what, about which volume, when.
    fn name_call(&mut self, record: &Record, call: &Call) -> String {
        let about = match &call.request {
            CsiRequest::CreateVolume(request) => request.name.as_str(),
            other => other.volume_id().unwrap_or("-"),
        };
        let since = record.at.since(self.origin).as_nanos();
        let name = format!("{} {} {about} {since}", record.process, call.request.method());
        let count = self.names.entry(name.clone()).or_default();
        *count += 1;
        match *count {
            1 => name,
            nth => format!("{name} {nth}"),
        }
    }
}

/// Milliseconds as JSON, to the nanosecond.
pub(super) fn millis(since: Duration) -> Json {
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    if nanos.is_multiple_of(1_000_000) {
        return (nanos / 1_000_000).into();
    }
    (nanos as f64 / 1e6).into()
}

fn kind(what: &What) -> &'static str {
    match what {
        What::Write { .. } => "write",
        What::Call { .. } => "call",
        What::Reply { .. } => "reply",
        What::Machine { .. } => "machine",
        What::Process(_) => "process",
        What::Step(_) => "step",
        What::Fault(_) => "fault",
    }
}

type Fields = Map<String, Json>;

/// Puts fields in, in order, without those that say nothing.
fn put<const N: usize>(fields: &mut Fields, pairs: [(&str, Json); N]) {
    let told = pairs.into_iter().filter(|(_, value)| !value.is_null());
    fields.extend(told.map(|(name, value)| (name.to_owned(), value)));
}

fn write_fields(fields: &mut Fields, write: &Write, before: Option<&Object>, result: &Result<Written, ApiError>) {
    let target = named(write, result);
    put(
        fields,
        [
            ("verb", write.verb().into()),
            ("resource", target.kind.plural().into()),
            ("subresource", write.subresource().into()),
            ("namespace", namespace(&target)),
            ("name", (*target.key.name).into()),
            ("code", http_code(write, result).into()),
        ],
    );
    match result {
        Ok(written) => {
            let event = transition(write, before, written);
            put(
                fields,
                [
                    ("event", event.into()),
                    ("request", request_body(write)),
                    ("object", object(&written.object)),
                ],
            );
        }
        Err(error) => put(
            fields,
            [
                ("reason", error.reason.into()),
                ("message", without_versions(&error.message).into()),
                ("request", request_body(write)),
            ],
        ),
    }
}

/// The object of a write; a generated name is known from the answer only.
pub(super) fn named(write: &Write, result: &Result<Written, ApiError>) -> ObjectRef {
    match result {
        Ok(written) => written.object.to_ref(),
        Err(_) => write.target(),
    }
}

pub(super) fn namespace(target: &ObjectRef) -> Json {
    match &*target.key.namespace {
        "" => Json::Null,
        namespace => namespace.into(),
    }
}

/// The HTTP status, as audit logs have it.
pub(super) fn http_code(write: &Write, result: &Result<Written, ApiError>) -> u16 {
    match result {
        Ok(_) if write.verb() == "create" => 201,
        Ok(_) => 200,
        Err(error) => error.code,
    }
}

/// What watchers of the object see.
pub(super) fn transition(write: &Write, before: Option<&Object>, written: &Written) -> Option<&'static str> {
    match before {
        _ if !written.changed => None,
        _ if super::is_gone(write, written) => Some("DELETED"),
        None => Some("ADDED"),
        Some(_) => Some("MODIFIED"),
    }
}

/// What the client sent.
pub(super) fn request_body(write: &Write) -> Json {
    let mut body = match write {
        Write::Create(sent) | Write::Update(sent) | Write::UpdateStatus(sent) => object(sent),
        Write::Bind { node, .. } => json!({"target": {"kind": "Node", "name": node}}),
        Write::Delete(delete) => {
            let mut body = json!({});
            if let Some(grace) = delete.grace_seconds {
                body["gracePeriodSeconds"] = grace.into();
            }
            if let Some(uid) = &delete.uid {
                body["preconditions"]["uid"] = uid.as_str().into();
            }
            body
        }
        Write::Patch(patch) => edits::body(patch),
    };
    forget_versions(&mut body);
    body
}

/// An object as it is stored, without its resourceVersion and those of others in it, and without secrets.
pub(super) fn object(object: &Object) -> Json {
    let mut json = secrets::object_json(object);
    forget_versions(&mut json);
    json
}

/// resourceVersions count the writes of the whole cluster: an unrelated object would move them.
fn forget_versions(json: &mut Json) {
    let Json::Object(fields) = json else { return };
    for place in ["metadata", "involvedObject"] {
        if let Some(Json::Object(metadata)) = fields.get_mut(place) {
            metadata.remove("resourceVersion");
        }
    }
    for reference in ["claimRef", "volumeSnapshotRef"] {
        if let Some(Json::Object(reference)) = fields.get_mut("spec").and_then(|spec| spec.get_mut(reference)) {
            reference.remove("resourceVersion");
        }
    }
}

/// A refusal's message without the resourceVersions that it quotes.
pub(super) fn without_versions(message: &str) -> &str {
    message
        .find("ResourceVersion in precondition: ")
        .map_or(message, |at| message[..at].trim_end())
}

fn call_fields(fields: &mut Fields, call: &Call) {
    let socket = match call.socket {
        Socket::Controller => "controller",
        Socket::Node => "node",
    };
    put(
        fields,
        [
            ("driver", (*call.driver).into()),
            ("socket", socket.into()),
            ("service", format!("csi.v1.{}", call.request.service()).into()),
            ("method", call.request.method().into()),
            ("timeout_ms", millis(call.timeout)),
            ("request", proto_json::request(&call.request)),
        ],
    );
}

fn reply_fields(fields: &mut Fields, call: &Call, took: Duration, result: &Result<CsiReply, Status>) {
    put(
        fields,
        [
            ("driver", (*call.driver).into()),
            ("method", call.request.method().into()),
            ("took_ms", millis(took)),
        ],
    );
    match result {
        Ok(reply) => put(fields, [("code", "OK".into()), ("response", proto_json::reply(reply))]),
        Err(status) => put(
            fields,
            [
                ("code", code(status.code()).into()),
                ("message", status.message().into()),
            ],
        ),
    }
}

fn machine_fields(fields: &mut Fields, op: &MachineOp, error: Option<&MachineError>) {
    let (verb, about) = super::lines::machine_words(op);
    let content = match op {
        MachineOp::WriteFile(_, bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
        _ => Json::Null,
    };
    put(
        fields,
        [
            ("op", verb.into()),
            ("about", about.into()),
            ("content", content),
            ("error", error.map(ToString::to_string).into()),
        ],
    );
}

fn process_fields(fields: &mut Fields, change: &ProcessChange) {
    let (word, message) = match change {
        ProcessChange::Started => ("started", None),
        ProcessChange::Exited(message) => ("exited", Some(message.as_str())),
        ProcessChange::Killed => ("killed", None),
        ProcessChange::Failed(message) => ("failed", Some(message.as_str())),
    };
    put(fields, [("change", word.into()), ("message", message.into())]);
}

/// Whether a kind's objects are shown in recorded traces: the storage kinds, pods, nodes and events.
pub(super) fn is_recorded(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Pod
            | Kind::PersistentVolumeClaim
            | Kind::PersistentVolume
            | Kind::Event
            | Kind::Node
            | Kind::VolumeAttachment
            | Kind::CSINode
            | Kind::VolumeSnapshot
            | Kind::VolumeSnapshotContent
    )
}
