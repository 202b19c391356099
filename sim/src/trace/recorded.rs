//! A trace in the shape of the traces that were recorded from real clusters: calls, writes, object transitions.
//!
//! Names of processes stay ours; who compares maps them. Secrets are stripped as everywhere.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tonic::Code;

use super::json::{
    http_code, is_recorded, millis, named, namespace, object, request_body, transition, without_versions,
};
use super::secrets::Secrets;
use super::{Record, Trace, What, proto_json};
use crate::api::{Kind, Object};
use crate::link::{Call, CsiReply};
use crate::runtime::Time;

/// The calls, in the order in which they were sent: `t_ms`, `dur_ms`, `caller`, `driver`, `service`, `method`, `request`, `status` with `code` (spelled
/// as Go does) and `message`, `response` when the code is OK, `deadline_ms`. A call without an answer has `client_gave_up` and the code `Canceled`.
pub fn rpcs(trace: &Trace) -> Vec<Json> {
    let answers: BTreeMap<u64, &Record> = trace
        .records()
        .iter()
        .filter_map(|record| match &record.what {
            What::Reply { id, .. } => Some((*id, record)),
            _ => None,
        })
        .collect();
    let secrets = Secrets::of(trace.records());
    let sent = trace.records().iter().filter_map(|record| match &record.what {
        What::Call { id, call } => Some((record, call, answers.get(id))),
        _ => None,
    });
    sent.map(|(record, call, answer)| {
        let mut rpc = rpc(record, call, trace.origin());
        match answer.map(|answer| &answer.what) {
            Some(What::Reply { took, result, .. }) => {
                rpc["dur_ms"] = millis(*took);
                answered(&mut rpc, result);
            }
            _ => {
                rpc["status"] = json!({"code": "Canceled", "message": "context canceled"});
                rpc["client_gave_up"] = true.into();
            }
        }
        secrets.scrub_json(&mut rpc);
        rpc
    })
    .collect()
}

/// The writes, in the order in which the API server took them: `t_ms`, `user` (the process), `verb`, `resource`, `subresource`, `namespace`, `name`,
/// `code`, `reason`, `message` of a refusal, `request_object`. Events are left out, as in the recordings.
pub fn api_writes(trace: &Trace) -> Vec<Json> {
    let secrets = Secrets::of(trace.records());
    let mut writes = Vec::new();
    for record in trace.records() {
        let What::Write { write, result, .. } = &record.what else {
            continue;
        };
        let target = named(write, result);
        if target.kind == Kind::Event {
            continue;
        }
        let refusal = result.as_ref().err();
        let mut json = json!({
            "t_ms": since(record, trace.origin()),
            "user": &*record.process,
            "verb": write.verb(),
            "resource": target.kind.plural(),
            "subresource": write.subresource(),
            "namespace": namespace(&target),
            "name": &*target.key.name,
            "code": http_code(write, result),
            "reason": refusal.map(|error| error.reason),
            "message": refusal.map(|error| without_versions(&error.message)),
            "request_object": request_body(write),
        });
        secrets.scrub_json(&mut json);
        writes.push(json);
    }
    writes
}

/// The states through which objects pass, as a watcher without delay sees them: `t_ms`, `kind`, `namespace`, `name`, `event` (`ADDED`, `MODIFIED`,
/// `DELETED`), `object`, `by` (the process). Only the kinds that the recordings have.
pub fn objects(trace: &Trace) -> Vec<Json> {
    let secrets = Secrets::of(trace.records());
    let mut objects = Vec::new();
    for record in trace.records() {
        let What::Write {
            write,
            before,
            result: Ok(written),
        } = &record.what
        else {
            continue;
        };
        let target = written.object.to_ref();
        let Some(event) = transition(write, before.as_ref(), written) else {
            continue;
        };
        if !is_recorded(target.kind) {
            continue;
        }
        // A pod's deletion without grace is two transactions.
        let shortened = before
            .as_ref()
            .is_some_and(|b| has_grace(b) && event == "DELETED" && target.kind == Kind::Pod);
        let events = if shortened { &["MODIFIED", event][..] } else { &[event] };
        for event in events {
            let mut json = json!({
                "t_ms": since(record, trace.origin()),
                "kind": target.kind.name(),
                "namespace": namespace(&target),
                "name": &*target.key.name,
                "event": event,
                "object": object(&written.object),
                "by": &*record.process,
            });
            secrets.scrub_json(&mut json);
            objects.push(json);
        }
    }
    objects
}

/// Whether an object is not to go at once.
fn has_grace(object: &Object) -> bool {
    object.meta().deletion_grace_period_seconds != Some(0)
}

fn since(record: &Record, origin: Time) -> Json {
    millis(record.at.since(origin))
}

fn rpc(record: &Record, call: &Call, origin: Time) -> Json {
    json!({
        "t_ms": since(record, origin),
        "caller": &*record.process,
        "driver": &*call.driver,
        "service": format!("csi.v1.{}", call.request.service()),
        "method": call.request.method(),
        "request": proto_json::request(&call.request),
        "deadline_ms": millis(call.timeout),
    })
}

fn answered(rpc: &mut Json, result: &Result<CsiReply, tonic::Status>) {
    match result {
        Ok(reply) => {
            rpc["status"] = json!({"code": "OK"});
            rpc["response"] = proto_json::reply(reply);
        }
        Err(status) => rpc["status"] = json!({"code": go_code(status.code()), "message": status.message()}),
    }
}

/// A code as Go's gRPC spells it.
fn go_code(code: Code) -> String {
    match code {
        Code::Ok => "OK".into(),
        Code::Cancelled => "Canceled".into(),
        other => format!("{other:?}"),
    }
}
