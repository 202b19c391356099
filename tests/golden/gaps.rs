//! Compares the time between changes of objects where a timer or a loop of a controller decides it: the polls, graces and waits that no CSI call shows.
//!
//! A gap ends with the change that is named second and begins with the last change before it that is named first.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::states::Fact;

/// What a change must be: the kind of its object, the beginning of the fact's name, its value (any when empty).
type Change = (&'static str, &'static str, &'static str);

struct Gap {
    what: &'static str,
    from: Change,
    to: Change,
    /// Shorter or longer ones in the recording have another cause.
    recorded_ms: Range<f64>,
    /// A tick whose phase is a draw: between these, instead of the recorded time.
    range_ms: Option<(f64, f64)>,
}

/// As in `calls.rs`.
const NOISE_MS: f64 = 150.0;
const DRIFT: f64 = 0.01;

const GAPS: &[Gap] = &[
    Gap {
        what: "pod scheduled → attachment made (loop of the attach-detach controller)",
        from: ("Pod", "node", ""),
        to: ("VolumeAttachment", "attached", "false"),
        recorded_ms: 0.0..1_000.0,
        range_ms: None,
    },
    Gap {
        what: "attached → node says so (first poll after 500 ms)",
        from: ("VolumeAttachment", "attached", "true"),
        to: ("Node", "attached", "yes"),
        recorded_ms: 0.0..600.0,
        range_ms: None,
    },
    Gap {
        what: "late claim bound → pod scheduled (poll of the scheduler)",
        from: ("PersistentVolumeClaim", "phase", "Bound"),
        to: ("Pod", "node", ""),
        recorded_ms: 500.0..2_000.0,
        range_ms: None,
    },
    Gap {
        what: "node unknown → taint that evicts",
        from: ("Node", "ready", "Unknown"),
        to: ("Node", "taint node.kubernetes.io/unreachable", "NoExecute"),
        recorded_ms: 0.0..5_000.0,
        range_ms: None,
    },
    Gap {
        what: "taint → pod deleted (its toleration)",
        from: ("Node", "taint node.kubernetes.io/unreachable", "NoExecute"),
        to: ("Pod", "condition DisruptionTarget", ""),
        recorded_ms: 1_000.0..400_000.0,
        range_ms: None,
    },
    Gap {
        what: "out-of-service taint → pod gone (round of the pod garbage collector)",
        from: ("Node", "taint node.kubernetes.io/out-of-service", "NoExecute"),
        to: ("Pod", "gone", "yes"),
        recorded_ms: 0.0..21_000.0,
        range_ms: Some((0.0, 20_300.0)),
    },
    Gap {
        what: "pod gone → attachment deleted by force",
        from: ("Pod", "gone", "yes"),
        to: ("VolumeAttachment", "deleting", "yes"),
        recorded_ms: 60_000.0..1e6,
        range_ms: None,
    },
    Gap {
        what: "old attachment gone → next made",
        from: ("VolumeAttachment", "gone", "yes"),
        to: ("VolumeAttachment", "attached", "false"),
        recorded_ms: 100.0..5_000.0,
        range_ms: None,
    },
];

/// The facts of all objects in order of time, each with the kind of its object.
fn timeline(objects: &BTreeMap<String, Vec<Fact>>) -> Vec<(&str, &Fact)> {
    let kind = |key: &str| match key {
        key if key.starts_with("<claim") => "PersistentVolumeClaim",
        key if key.starts_with("<pod") => "Pod",
        key => ["VolumeAttachment", "Node", "PersistentVolume", "CSINode"]
            .into_iter()
            .find(|kind| key.starts_with(&format!("{kind} ")))
            .unwrap_or_default(),
    };
    let facts = objects
        .iter()
        .flat_map(|(key, facts)| facts.iter().map(move |fact| (kind(key), fact)));
    let mut all: Vec<(&str, &Fact)> = facts.collect();
    all.sort_by(|a, b| a.1.t_ms.total_cmp(&b.1.t_ms));
    all
}

fn fits(change: &Change, kind: &str, fact: &Fact) -> bool {
    change.0 == kind
        && (fact.name == change.1 || fact.name.starts_with(&format!("{} ", change.1)))
        && (change.2.is_empty() || fact.value == change.2)
}

/// All gaps of a kind.
fn lengths(gap: &Gap, timeline: &[(&str, &Fact)]) -> Vec<f64> {
    let mut from = None;
    let mut found = Vec::new();
    for (kind, fact) in timeline {
        if let (Some(began), true) = (from, fits(&gap.to, kind, fact)) {
            found.push(fact.t_ms - began);
        }
        if fits(&gap.from, kind, fact) {
            from = Some(fact.t_ms);
        }
    }
    found
}

/// How many gaps of a recording are compared.
pub fn count(objects: &BTreeMap<String, Vec<Fact>>) -> usize {
    let timeline = timeline(objects);
    let long = |gap: &Gap| {
        lengths(gap, &timeline)
            .iter()
            .filter(|ms| gap.recorded_ms.contains(ms))
            .count()
    };
    GAPS.iter().map(long).sum()
}

/// What differs.
pub fn compare(
    recorded: &BTreeMap<String, Vec<Fact>>,
    model: &BTreeMap<String, Vec<Fact>>,
    differences: &mut Vec<String>,
) {
    let (theirs, ours) = (timeline(recorded), timeline(model));
    for gap in GAPS {
        let (there, here) = (lengths(gap, &theirs), lengths(gap, &ours));
        if !there.iter().any(|ms| gap.recorded_ms.contains(ms)) {
            continue;
        }
        if there.len() != here.len() {
            differences.push(format!(
                "gap: {}: recorded {} times, model {}",
                gap.what,
                there.len(),
                here.len()
            ));
            continue;
        }
        for (recorded, model) in there.iter().zip(&here).filter(|(ms, _)| gap.recorded_ms.contains(ms)) {
            let tolerance = NOISE_MS + recorded * DRIFT;
            let (low, high) = gap.range_ms.unwrap_or((recorded - tolerance, recorded + tolerance));
            if !(low..=high).contains(model) {
                differences.push(format!(
                    "gap: {}: recorded {recorded:.0} ms, model {model:.0} ms",
                    gap.what
                ));
            }
        }
    }
}
