//! Coverage: which sites were reached, which faults struck where, which ways objects went, and what was never reached.
//!
//! Blind spots: later attempts than the third are one site; a fault is counted by its kind, not by its parameters; objects are counted by kind, not by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::strategy::Survey;
use super::witness::{Notes, site_number, spell_site};
use crate::api::{Object, fields};
use crate::runtime::fold;
use crate::trace::{Trace, What, is_gone};

/// More of anything than this is counted no further.
const FULL: usize = 200_000;

/// Where an object is in its life: its kind, its state, whether it is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage {
    kind: &'static str,
    state: &'static str,
    deleting: bool,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.state)?;
        if self.deleting {
            f.write_str(", deleting")?;
        }
        Ok(())
    }
}

/// The states whose transitions are counted, in the order of a usual life.
const STATES: [(&str, &[&str]); 6] = [
    ("pvc", &["Pending", "Bound", "Lost"]),
    (
        "pvc-resize",
        &[
            "none",
            "ControllerResizeInProgress",
            "ControllerResizeInfeasible",
            "NodeResizePending",
            "NodeResizeInProgress",
            "NodeResizeInfeasible",
        ],
    ),
    ("pv", &["Pending", "Available", "Bound", "Released", "Failed"]),
    ("va", &["detached", "attached"]),
    ("pod", &["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
    ("vs", &["not ready", "ready"]),
];

/// Transitions that a storage cluster is known to make: what of these no run has seen is reported.
const KNOWN: [(&str, &str, &str); 22] = [
    ("pvc", "gone", "Pending"),
    ("pvc", "Pending", "Bound"),
    ("pvc", "Bound", "Lost"),
    ("pvc", "Bound", "Bound, deleting"),
    ("pvc", "Pending", "Pending, deleting"),
    ("pvc", "Bound, deleting", "gone"),
    ("pv", "Pending", "Bound"),
    ("pv", "Pending", "Available"),
    ("pv", "Available", "Bound"),
    ("pv", "Bound", "Released"),
    ("pv", "Released", "Released, deleting"),
    ("pv", "Released", "Failed"),
    ("pv", "Released, deleting", "gone"),
    ("va", "detached", "attached"),
    ("va", "attached", "attached, deleting"),
    ("va", "detached", "detached, deleting"),
    ("va", "attached, deleting", "gone"),
    ("pod", "Pending", "Running"),
    ("pod", "Running", "Running, deleting"),
    ("pod", "Pending", "Pending, deleting"),
    ("pod", "Running", "Failed"),
    ("pod", "Running, deleting", "gone"),
];

fn known(kind: &str, state: &str) -> Option<(&'static str, &'static str)> {
    let (kind, states) = STATES.iter().find(|(name, _)| *name == kind)?;
    let state = states.iter().find(|name| **name == state)?;
    Some((kind, state))
}

/// The stages of an object: one, or two for a claim that has a resize status.
fn stages(object: &Object) -> impl Iterator<Item = Stage> {
    let deleting = fields::is_deleting(object.meta());
    let (first, second) = match object {
        Object::PersistentVolumeClaim(claim) => {
            let resize = match fields::claim_resize_status(claim) {
                "" => "none",
                status => status,
            };
            (known("pvc", fields::claim_phase(claim)), known("pvc-resize", resize))
        }
        Object::PersistentVolume(volume) => (known("pv", fields::volume_phase(volume)), None),
        Object::VolumeAttachment(attachment) => {
            let state = if fields::is_attached(attachment) {
                "attached"
            } else {
                "detached"
            };
            (known("va", state), None)
        }
        Object::Pod(pod) => (known("pod", fields::pod_phase(pod)), None),
        Object::VolumeSnapshot(snapshot) => {
            let ready = snapshot.status.as_ref().and_then(|s| s.ready_to_use).unwrap_or(false);
            (known("vs", if ready { "ready" } else { "not ready" }), None)
        }
        _ => (None, None),
    };
    let stage = |(kind, state), deleting| Stage { kind, state, deleting };
    let first = first.map(|found| stage(found, deleting));
    let second = second.map(|found| stage(found, false));
    first.into_iter().chain(second)
}

/// One step of one object's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    kind: &'static str,
    from: Option<Stage>,
    to: Option<Stage>,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spelled = |stage: Option<Stage>| stage.map_or("gone".to_owned(), |stage| stage.to_string());
        write!(f, "{} {} → {}", self.kind, spelled(self.from), spelled(self.to))
    }
}

/// What one run adds to coverage.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// The steps that objects took.
    pub transitions: BTreeSet<Transition>,
    /// Which kind of fault struck at which site.
    pub pairs: BTreeSet<String>,
    /// Site, fault and phases of all objects at that moment, as numbers.
    pub moments: BTreeSet<u64>,
}

impl Features {
    /// What a run shows.
    pub fn of(trace: &Trace, notes: &Notes) -> Features {
        let mut features = Features::default();
        for strike in &notes.strikes {
            features
                .pairs
                .insert(spell_pair(strike.fault.kind(), &spell_site(&strike.at)));
        }
        let mut standing: BTreeMap<Stage, u32> = BTreeMap::new();
        let mut due = notes.strikes.iter().zip(&notes.times).peekable();
        for record in trace.records() {
            while let Some((strike, _)) = due.next_if(|(_, at)| **at < record.at) {
                features.moments.insert(moment(strike, &standing));
            }
            let What::Write {
                write,
                before,
                result: Ok(written),
            } = &record.what
            else {
                continue;
            };
            let after = (!is_gone(write, written)).then_some(&written.object);
            features.changed(before.as_ref(), after, &mut standing);
        }
        for (strike, _) in due {
            features.moments.insert(moment(strike, &standing));
        }
        features
    }

    fn changed(&mut self, before: Option<&Object>, after: Option<&Object>, standing: &mut BTreeMap<Stage, u32>) {
        let of = |object: Option<&Object>| {
            object
                .map(|object| stages(object).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let (before, after) = (of(before), of(after));
        if before == after {
            return;
        }
        for kind in before
            .iter()
            .chain(&after)
            .map(|stage| stage.kind)
            .collect::<BTreeSet<_>>()
        {
            let at = |stages: &[Stage]| stages.iter().find(|stage| stage.kind == kind).copied();
            let (from, to) = (at(&before), at(&after));
            if from != to {
                self.transitions.insert(Transition { kind, from, to });
            }
        }
        for stage in before {
            if let Some(count) = standing.get_mut(&stage) {
                *count = count.saturating_sub(1);
            }
        }
        for stage in after {
            *standing.entry(stage).or_default() += 1;
        }
    }

    /// Everything as numbers: what a guided strategy calls new.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        let transitions = self.transitions.iter().map(|t| fold(1, &[&t.to_string()]) as u64);
        self.moments.iter().copied().chain(transitions)
    }
}

fn moment(strike: &crate::storm::Strike, standing: &BTreeMap<Stage, u32>) -> u64 {
    let mut parts = vec![strike.fault.kind().to_owned()];
    let here = standing.iter().filter(|(_, count)| **count > 0);
    parts.extend(here.map(|(stage, _)| format!("{} {stage}", stage.kind)));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    fold(u128::from(site_number(&strike.at)), &parts) as u64
}

fn spell_pair(kind: &str, site: &str) -> String {
    format!("{kind} at {site}")
}

/// What many runs reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Coverage {
    /// How many runs are counted.
    pub runs: u64,
    /// The sites that were reached.
    pub sites: BTreeSet<String>,
    /// Which faults struck where.
    pub struck: BTreeSet<String>,
    /// Which faults could have struck where in the calm run.
    pub offered: BTreeSet<String>,
    /// The transitions that objects made, and in how many runs.
    pub transitions: BTreeMap<String, u64>,
    /// How many different moments were struck: site, fault and phases of all objects.
    pub moments: BTreeSet<u64>,
}

impl Coverage {
    /// Adds what the calm run met.
    pub fn survey(&mut self, survey: &Survey) {
        for (site, menu) in survey.meetings.iter() {
            let site = spell_site(site);
            for fault in menu {
                self.offered.insert(spell_pair(fault.kind(), &site));
            }
            self.sites.insert(site);
        }
    }

    /// Adds a run.
    pub fn add(&mut self, notes: &Notes, features: &Features) {
        self.runs += 1;
        if self.sites.len() < FULL {
            self.sites.extend(notes.names.iter().map(|(_, name)| name.clone()));
        }
        if self.struck.len() < FULL {
            self.struck.extend(features.pairs.iter().cloned());
        }
        if self.moments.len() < FULL {
            self.moments.extend(features.moments.iter().copied());
        }
        for transition in &features.transitions {
            *self.transitions.entry(transition.to_string()).or_default() += 1;
        }
    }

    /// Adds another coverage of the same scenario.
    pub fn merge(&mut self, other: &Coverage) {
        self.runs += other.runs;
        self.sites.extend(other.sites.iter().cloned());
        self.struck.extend(other.struck.iter().cloned());
        self.offered.extend(other.offered.iter().cloned());
        self.moments.extend(other.moments.iter().copied());
        for (transition, count) in &other.transitions {
            *self.transitions.entry(transition.clone()).or_default() += count;
        }
    }

    /// Faults that the calm run offered and that never struck.
    pub fn never_struck(&self) -> impl Iterator<Item = &str> {
        self.offered.difference(&self.struck).map(String::as_str)
    }

    /// Known transitions that no run made.
    pub fn never_seen(&self) -> Vec<String> {
        let spelled = KNOWN.iter().map(|(kind, from, to)| format!("{kind} {from} → {to}"));
        spelled.filter(|text| !self.transitions.contains_key(text)).collect()
    }

    /// The numbers in one line.
    pub fn line(&self) -> String {
        let struck = self.offered.intersection(&self.struck).count();
        format!(
            "{} sites, {struck} of {} site × fault pairs struck, {} moments, {} transitions",
            self.sites.len(),
            self.offered.len(),
            self.moments.len(),
            self.transitions.len()
        )
    }
}
