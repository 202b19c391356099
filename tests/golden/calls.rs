//! Compares CSI calls: order, requests, answers, and the gaps that timers and back-offs cause.
//!
//! Calls are compared in *lanes*, one for each volume and node: a controller call that names no node stands in all lanes of its volume. Within a lane the
//! order is total across all callers. Calls of different volumes, and of one volume on different nodes, are concurrent: only the order in which the
//! attacher calls for a volume of a single node is compared beyond the lanes.
//!
//! Questions (capabilities, identity, statistics) are compared apart, see `questions.rs`.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::fixture::Seen;
use crate::names::Names;

/// Methods that ask and change nothing.
pub const QUESTIONS: &[&str] = &[
    "Probe",
    "GetPluginInfo",
    "GetPluginCapabilities",
    "ControllerGetCapabilities",
    "NodeGetCapabilities",
    "NodeGetInfo",
    "NodeGetVolumeStats",
];

/// Calls that Kubernetes may make twice. Both are races that the real components lose about every second time, depending on the machine: the attacher sees its
/// own finalizer patch too late and publishes again; the provisioner sees the volume that it has just deleted once more. Only a call that succeeded
/// is doubled so; two in a row count as one on both sides.
const DOUBLED: &[&str] = &["ControllerPublishVolume", "DeleteVolume"];

/// Ticks and clocks of the recorded machine: loops look every 100 ms, the rest is noise of the machine.
const NOISE_MS: f64 = 150.0;
/// Noise of long waits: the recorded ones are late by this part.
const DRIFT: f64 = 0.01;
/// Kubelet reports its node's status every 10 s, whatever happens in between; the phase is a draw.
const STATUS_TICK_MS: f64 = 10_000.0 + 600.0;
/// Kubelet looks at a pod again 60 to 90 s after it last did.
const RESYNC_MS: f64 = 90_000.0 + 2_000.0;

/// A call in the common spelling.
#[derive(Clone, Debug)]
pub struct Call {
    pub t_ms: f64,
    pub caller: String,
    pub method: String,
    pub code: String,
    pub request: Json,
    pub deadline_ms: f64,
    pub volume: String,
    pub node: Option<String>,
    pub single_node: bool,
}

/// The calls of a side, questions left out.
pub fn calls(seen: &Seen, names: &Names) -> Vec<Call> {
    let asked = seen
        .rpcs
        .iter()
        .filter(|rpc| !QUESTIONS.contains(&rpc.method.as_str()) && rpc.caller != "csi-snapshotter");
    let mut calls: Vec<Call> = asked
        .map(|rpc| {
            let request = names.spell_json(&rpc.request);
            let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
            let node = match rpc.caller.strip_prefix("kubelet-") {
                Some(node) => Some(format!("node-{node}")),
                None => request["node_id"].as_str().map(str::to_owned),
            };
            let code = if rpc.client_gave_up {
                "gave up"
            } else {
                rpc.code.as_str()
            };
            let made = rpc.method == "CreateVolume";
            let volume = if made {
                text("name").replace("pvc-", "")
            } else {
                text("volume_id")
            };
            let mode = request["volume_capabilities"][0]["access_mode"]["mode"].as_str();
            Call {
                t_ms: rpc.t_ms,
                caller: rpc.caller.clone(),
                method: rpc.method.clone(),
                code: code.to_owned(),
                volume: volume.replace("handle of ", ""),
                node,
                deadline_ms: rpc.deadline_ms,
                single_node: mode.is_some_and(|mode| mode.starts_with("SINGLE_NODE")),
                request,
            }
        })
        .collect();
    calls.sort_by(|a, b| a.t_ms.total_cmp(&b.t_ms));
    calls
}

/// The volumes and nodes of calls: the lanes.
fn lanes(calls: &[Call]) -> BTreeSet<(String, Option<String>)> {
    let mut lanes = BTreeSet::new();
    for call in calls {
        let nodes: BTreeSet<_> = calls
            .iter()
            .filter(|c| c.volume == call.volume)
            .filter_map(|c| c.node.clone())
            .collect();
        if nodes.is_empty() {
            lanes.insert((call.volume.clone(), None));
        }
        lanes.extend(nodes.into_iter().map(|node| (call.volume.clone(), Some(node))));
    }
    lanes
}

fn lane<'a>(calls: &'a [Call], volume: &str, node: Option<&str>) -> Vec<&'a Call> {
    let here = |call: &&Call| call.volume == volume && (call.node.is_none() || call.node.as_deref() == node);
    single(calls.iter().filter(here))
}

/// Doubled calls counted once.
fn single<'a>(calls: impl Iterator<Item = &'a Call>) -> Vec<&'a Call> {
    let mut kept: Vec<&Call> = Vec::new();
    for call in calls {
        let again = kept.last().is_some_and(|before| {
            DOUBLED.contains(&call.method.as_str())
                && before.code == "OK"
                && (&before.method, &before.code, &before.request) == (&call.method, &call.code, &call.request)
                && call.t_ms - before.t_ms < 1_000.0
        });
        if !again {
            kept.push(call);
        }
    }
    kept
}

/// What differs.
pub fn compare(recorded: &[Call], model: &[Call], differences: &mut Vec<String>) {
    let all: BTreeSet<_> = lanes(recorded).into_iter().chain(lanes(model)).collect();
    for (volume, node) in &all {
        let (there, here) = (
            lane(recorded, volume, node.as_deref()),
            lane(model, volume, node.as_deref()),
        );
        let place = format!("{volume} on {}", node.as_deref().unwrap_or("no node"));
        let same = sequence(&place, &there, &here, differences);
        for (a, b) in there.iter().zip(&here).take(same) {
            requests(&place, a, b, differences);
        }
        gaps(&place, &there[..same], &here[..same], differences);
    }
    let volumes: BTreeSet<&str> = recorded
        .iter()
        .filter(|c| c.single_node)
        .map(|c| c.volume.as_str())
        .collect();
    for volume in volumes {
        let own = |calls: &'_ [Call]| -> Vec<Call> {
            let attacher = |c: &&Call| c.volume == volume && c.caller == "csi-attacher";
            calls.iter().filter(attacher).cloned().collect()
        };
        let (there, here) = (own(recorded), own(model));
        sequence(
            &format!("{volume} by the attacher"),
            &single(there.iter()),
            &single(here.iter()),
            differences,
        );
    }
}

/// How many calls are the same from the beginning.
fn sequence(place: &str, there: &[&Call], here: &[&Call], differences: &mut Vec<String>) -> usize {
    let word = |call: Option<&&Call>| match call {
        None => "nothing".to_owned(),
        Some(call) if call.node.is_some() && !call.caller.starts_with("kubelet") => {
            format!(
                "{}!{} {}",
                call.method,
                call.code,
                call.node.as_deref().unwrap_or_default()
            )
        }
        Some(call) => format!("{}!{}", call.method, call.code),
    };
    let longest = there.len().max(here.len());
    for nth in 0..longest {
        let (a, b) = (word(there.get(nth)), word(here.get(nth)));
        if a != b {
            let at = |calls: &[&Call]| calls.get(nth).map_or(0.0, |c| c.t_ms / 1000.0);
            differences.push(format!(
                "calls: {place}: call {}: recorded {a} ({:.1} s), model {b} ({:.1} s)",
                nth + 1,
                at(there),
                at(here)
            ));
            return nth;
        }
    }
    longest
}

fn requests(place: &str, there: &Call, here: &Call, differences: &mut Vec<String>) {
    let mut fields = Vec::new();
    difference("", &there.request, &here.request, &mut fields);
    for field in fields {
        differences.push(format!("request: {place}: {}{field}", there.method));
    }
    if (there.deadline_ms - here.deadline_ms).abs() > NOISE_MS {
        let (a, b) = (there.deadline_ms, here.deadline_ms);
        differences.push(format!(
            "request: {place}: {} within: recorded {a} ms, model {b} ms",
            there.method
        ));
    }
}

/// Where two values differ.
pub fn difference(path: &str, there: &Json, here: &Json, found: &mut Vec<String>) {
    if let (Json::Object(a), Json::Object(b)) = (there, here) {
        let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            let of = |fields: &serde_json::Map<String, Json>| fields.get(key).cloned().unwrap_or(Json::Null);
            difference(&format!("{path}.{key}"), &of(a), &of(b), found);
        }
    } else if there != here {
        found.push(format!("{path}: recorded {there}, model {here}"));
    }
}

/// Why there is time between two calls of a lane.
enum Cause {
    /// A back-off or a deadline: the gap is the recorded one.
    Timer,
    /// A tick whose phase is a draw: the gap is anything up to this.
    Tick(f64),
    /// The script, or nothing in particular.
    Other,
}

fn cause(before: &Call, after: &Call) -> Cause {
    let step = (before.method.as_str(), after.method.as_str());
    match step {
        (a, b) if a == b && before.code != "OK" => Cause::Timer,
        ("NodeStageVolume", "NodePublishVolume") | ("NodeUnpublishVolume", "NodeUnstageVolume")
            if before.code == "OK" =>
        {
            Cause::Timer
        }
        ("ControllerPublishVolume", "NodeStageVolume") | ("NodeUnstageVolume", "ControllerUnpublishVolume") => {
            Cause::Tick(STATUS_TICK_MS)
        }
        ("ControllerExpandVolume", "NodeExpandVolume") => Cause::Tick(RESYNC_MS),
        _ => Cause::Other,
    }
}

/// The gaps of a lane that are compared.
fn compared<'a>(lane: &[&'a Call]) -> Vec<(usize, &'a Call, &'a Call, Cause)> {
    let pairs = lane
        .windows(2)
        .enumerate()
        .map(|(nth, pair)| (nth, pair[0], pair[1], cause(pair[0], pair[1])));
    pairs.filter(|(.., cause)| !matches!(cause, Cause::Other)).collect()
}

/// How many gaps of a recording are compared.
pub fn count_gaps(recorded: &[Call]) -> usize {
    let lanes = lanes(recorded);
    lanes
        .iter()
        .map(|(volume, node)| compared(&lane(recorded, volume, node.as_deref())).len())
        .sum()
}

fn gaps(place: &str, there: &[&Call], here: &[&Call], differences: &mut Vec<String>) {
    for (nth, before, after, cause) in compared(there) {
        let recorded = after.t_ms - before.t_ms;
        let model = here[nth + 1].t_ms - here[nth].t_ms;
        let (fits, wanted) = match cause {
            Cause::Timer => {
                let tolerance = NOISE_MS + recorded * DRIFT;
                (
                    (model - recorded).abs() <= tolerance,
                    format!("{recorded:.0} ± {tolerance:.0} ms"),
                )
            }
            Cause::Tick(limit) => (model <= limit, format!("up to {limit:.0} ms, recorded {recorded:.0}")),
            Cause::Other => (true, String::new()),
        };
        if !fits {
            differences.push(format!(
                "gap: {place}: {}!{} to {}: {wanted}, model {model:.0} ms",
                before.method, before.code, after.method
            ));
        }
    }
}
