//! Whether the comparison sees: a recording that was changed in one place must differ from what the model did.

use serde_json::Value as Json;

use crate::fixture::Fixture;
use crate::replay::Played;
use crate::{compare, replay};

/// The recording that is changed, and a seed with which the model follows it.
const TRACE: &str = "03_pod_attach_stage_publish";

type Change = (String, Fixture);

/// Changes recordings; the first change that nobody sees is the error.
pub fn check(fixtures: &[Fixture], seeds: std::ops::Range<u64>) -> Result<(), String> {
    let fixture = fixtures
        .iter()
        .find(|f| f.trace == TRACE)
        .ok_or("the trace is not there")?;
    let follows = |seed| {
        let played = replay::play(fixture, seed);
        compare(fixture, &played).is_empty().then_some(played)
    };
    let played = seeds
        .into_iter()
        .find_map(follows)
        .ok_or("no seed follows the unchanged trace")?;
    let changes = [calls(fixture), objects(fixture), writes(fixture)].concat();
    let unseen: Vec<&str> = changes
        .iter()
        .filter(|(_, changed)| !sees(changed, &played))
        .map(|(what, _)| what.as_str())
        .collect();
    if changes.len() < 60 {
        return Err(format!("only {} changes were tried", changes.len()));
    }
    if unseen.is_empty() {
        Ok(())
    } else {
        Err(format!("nobody sees {}", unseen.join("; ")))
    }
}

fn sees(changed: &Fixture, played: &Played) -> bool {
    !compare(changed, played).is_empty()
}

fn changed(fixture: &Fixture, what: String, change: impl FnOnce(&mut Fixture)) -> Change {
    let mut fixture = fixture.clone();
    change(&mut fixture);
    (what, fixture)
}

/// Each call is left out, fails, has another field, comes from somebody else; the gaps of a back-off or a step grow.
fn calls(fixture: &Fixture) -> Vec<Change> {
    let mut changes = Vec::new();
    for (nth, rpc) in fixture
        .seen
        .rpcs
        .iter()
        .enumerate()
        .filter(|(_, rpc)| rpc.method != "NodeGetVolumeStats")
    {
        let what = |how: &str| format!("call {} ({}) {how}", nth + 1, rpc.method);
        // The question before a statistic goes with it.
        let beside = fixture
            .seen
            .rpcs
            .get(nth + 1)
            .is_some_and(|next| next.method == "NodeGetVolumeStats");
        if beside {
            continue;
        }
        changes.push(changed(fixture, what("left out"), |f| drop(f.seen.rpcs.remove(nth))));
        if rpc.method == "NodeGetCapabilities" {
            continue;
        }
        changes.push(changed(fixture, what("failed"), |f| {
            f.seen.rpcs[nth].code = "Internal".into()
        }));
        changes.push(changed(fixture, what("with another field"), |f| {
            f.seen.rpcs[nth].request["x"] = "y".into()
        }));
        changes.push(changed(fixture, what("with another deadline"), |f| {
            f.seen.rpcs[nth].deadline_ms *= 2.0
        }));
        changes.push(changed(fixture, what("by another caller"), |f| {
            f.seen.rpcs[nth].caller = "kubelet-b".into()
        }));
    }
    let publish = fixture
        .seen
        .rpcs
        .iter()
        .position(|rpc| rpc.method == "NodePublishVolume");
    if let Some(nth) = publish {
        changes.push(changed(fixture, "a late NodePublishVolume".into(), |f| {
            f.seen.rpcs[nth].t_ms += 800.0
        }));
    }
    changes
}

/// Each finalizer, phase, node, condition and event is another one.
fn objects(fixture: &Fixture) -> Vec<Change> {
    let mut changes = Vec::new();
    let places = [
        "/metadata/finalizers/0",
        "/status/phase",
        "/status/conditions/0/reason",
        "/status/attached",
        "/reason",
        "/message",
    ];
    // Of a node's conditions only the status of `Ready` is compared.
    let compared = |change: &crate::fixture::Change| change.event != "DELETED" && change.kind != "Node";
    for (nth, change) in fixture
        .seen
        .objects
        .iter()
        .enumerate()
        .filter(|(_, change)| compared(change))
    {
        for place in places.iter().filter(|place| change.object.pointer(place).is_some()) {
            let what = format!("{} of {} {}, change {}", place, change.kind, change.name, nth + 1);
            changes.push(changed(fixture, what, |f| {
                if let Some(value) = f.seen.objects[nth].object.pointer_mut(place) {
                    *value = Json::String("other".into());
                }
            }));
        }
    }
    changes
}

/// Each write that succeeded is another verb.
fn writes(fixture: &Fixture) -> Vec<Change> {
    let own = fixture.seen.api_writes.iter().enumerate();
    let compared = own
        .filter(|(_, write)| write.code < 300 && !(write.user.starts_with("system:node") && write.resource == "nodes"));
    // A volume is asked to go twice when DeleteVolume was doubled.
    let first = |nth: usize, verb: &str| {
        !fixture.seen.api_writes[..nth]
            .iter()
            .any(|w| w.verb == "delete" && verb == "delete" && w.resource == "persistentvolumes")
    };
    let changes = compared.filter(|(nth, write)| first(*nth, &write.verb));
    let change = |(nth, write): (usize, &crate::fixture::ApiWrite)| {
        let what = format!("write {} ({} {})", nth + 1, write.verb, write.resource);
        changed(fixture, what, |f| f.seen.api_writes[nth].verb = "other".into())
    };
    changes.map(change).collect()
}
