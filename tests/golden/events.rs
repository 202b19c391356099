//! Compares Events: which component says what about which object, in which order, and how often.
//!
//! Left out, on both sides: [`NOISE`]. The scheduler's events have no count. The number of repetitions may differ by one, because some of them ride on resyncs whose
//! phase is a draw.

use std::collections::{BTreeMap, BTreeSet};

use crate::fixture::Seen;
use crate::names::Names;

/// What the recorded machines said about themselves and the model's do not: kubelet's start-up on a Node, and its cgroups.
const NOISE: &[&str] = &[
    "CgroupV1",
    "NodeAllocatableEnforced",
    "NodeHasNoDiskPressure",
    "NodeHasSufficientMemory",
    "NodeHasSufficientPID",
];

/// What a component says about an object.
type Said = BTreeMap<(String, String), Vec<(String, u64)>>;

/// The events of a side: by component and object, each sentence once, with its last count.
pub fn events(seen: &Seen, names: &Names) -> Said {
    let mut said: Said = BTreeMap::new();
    for change in seen
        .objects
        .iter()
        .filter(|c| c.kind == "Event" && c.event != "DELETED")
    {
        let event = names.spell_json(&change.object);
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(|v| v.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        let reason = text("/reason");
        if NOISE.contains(&reason.as_str()) {
            continue;
        }
        let source = text("/source/component");
        let component = if source.is_empty() {
            text("/reportingComponent")
        } else {
            source
        };
        // The provisioner's name is that of its pod.
        let component = if component.starts_with("hostpath.csi.k8s.io_") {
            "provisioner".into()
        } else {
            component
        };
        let object = format!("{} {}", text("/involvedObject/kind"), text("/involvedObject/name"));
        let sentence = format!("{} {reason}: {}", text("/type"), text("/message"));
        let count = event["count"].as_u64().unwrap_or(0);
        let own = said.entry((component, object)).or_default();
        match own.iter_mut().find(|(known, _)| *known == sentence) {
            Some((_, known)) => *known = count.max(*known),
            None => own.push((sentence, count)),
        }
    }
    said
}

/// How many sentences a side has.
pub fn count(said: &Said) -> usize {
    said.values().map(Vec::len).sum()
}

/// What differs.
pub fn compare(recorded: &Said, model: &Said, differences: &mut Vec<String>) {
    let keys: BTreeSet<_> = recorded.keys().chain(model.keys()).collect();
    for key in keys {
        let none = Vec::new();
        let (there, here) = (recorded.get(key).unwrap_or(&none), model.get(key).unwrap_or(&none));
        let place = format!("event: {} on {}", key.0, key.1);
        for (sentence, count) in there {
            match here.iter().find(|(other, _)| other == sentence) {
                None => differences.push(format!("{place}: the model does not say {sentence}")),
                Some((_, other)) if count.abs_diff(*other) > 1 => {
                    differences.push(format!("{place}: recorded {count} times, model {other}: {sentence}"));
                }
                Some(_) => {}
            }
        }
        for (sentence, _) in here
            .iter()
            .filter(|(sentence, _)| !there.iter().any(|(other, _)| other == sentence))
        {
            differences.push(format!("{place}: only the model says {sentence}"));
        }
        let order = |said: &[(String, u64)], other: &[(String, u64)]| -> Vec<String> {
            let both = said.iter().filter(|(s, _)| other.iter().any(|(o, _)| o == s));
            both.map(|(sentence, _)| sentence.clone()).collect()
        };
        if order(there, here) != order(here, there) {
            differences.push(format!("{place}: in another order"));
        }
    }
}
