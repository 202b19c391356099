//! What a campaign came to, as data: the report that is printed, written as JSON, and joined with the reports of other shards.
//!
//! It is a function of scenarios, seeds, strategy and mutant: no wall time, no number of threads. (A budget of time decides how many runs there are; how many
//! is in it.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::coverage::Coverage;
use super::story::Story;
use super::subject::Finding;
use crate::play::worst;
use crate::storm::Strike;

/// The number of this form of the report.
pub const SCHEMA: u32 = 1;

/// Part `index` of `of`: the runs whose number leaves the remainder `index - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// Which, from 1.
    pub index: u64,
    /// Of how many.
    pub of: u64,
}

impl Shard {
    /// Everything.
    pub const WHOLE: Shard = Shard { index: 1, of: 1 };

    /// Whether a run belongs to it.
    pub fn has(self, nth: u64) -> bool {
        nth % self.of == self.index - 1
    }

    /// Reads `2/8`.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Shard, String> {
        let wrong = || format!("a shard is written like 2/8, the second of eight, not `{text}`");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let (index, of): (u64, u64) = (index.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        if of == 0 || index == 0 {
            return Err(wrong());
        }
        if index > of {
            return Err(format!("there is no shard {index} of {of}: the last is {of}/{of}"));
        }
        Ok(Shard { index, of })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// What a campaign, or a shard of it, came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The number of this form.
    pub schema: u32,
    /// The version of wavetank.
    pub version: String,
    /// The strategy.
    pub strategy: String,
    /// The bug that was switched on.
    #[serde(default)]
    pub mutant: Option<String>,
    /// The first number and the one behind the last. The last is open when a budget of time ends the campaign.
    pub seeds: (u64, u64),
    /// The shards that are in it.
    pub shards: BTreeSet<Shard>,
    /// Whether it ended early, by hand or by its budget of time.
    pub interrupted: bool,
    /// The driver that ran outside, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Elsewhere>,
    /// Scenario by scenario.
    pub scenarios: Vec<ScenarioReport>,
}

/// What a campaign around a driver outside could not do, and could not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Elsewhere {
    /// The link and the driver, as tokens spell them.
    pub link: String,
    /// What the user says to have it: ` --driver my-driver.yaml`.
    pub arguments: String,
    /// What never strikes there, as sentences.
    pub limits: Vec<String>,
    /// What is not judged: promises, and what of them.
    pub unseen: Vec<(String, String)>,
    /// Scenarios that do not apply, and why.
    pub not_applicable: BTreeMap<String, Vec<String>>,
}

/// What one scenario came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioReport {
    /// Its name.
    pub name: String,
    /// Its file.
    #[serde(default)]
    pub file: Option<String>,
    /// Its digest.
    pub digest: String,
    /// How many storms were played.
    pub runs: u64,
    /// Whether its strategy had nothing more to do.
    pub exhausted: bool,
    /// Runs by what they came to: exit status 0, 1, 2, 3, 4 or 70.
    pub statuses: BTreeMap<u8, u64>,
    /// Runs by broken promise.
    pub broken: BTreeMap<String, u64>,
    /// What the scenario says must be seen sometimes, and whether a run has seen it.
    #[serde(default)]
    pub sometimes: BTreeMap<String, bool>,
    /// The first violation of each promise.
    pub violations: Vec<Found>,
    /// What was reached.
    pub coverage: Coverage,
    /// How coverage grew.
    pub growth: Vec<Growth>,
}

/// Coverage after so many runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// Runs.
    pub runs: u64,
    /// Sites reached.
    pub sites: usize,
    /// Site × fault pairs struck.
    pub struck: usize,
    /// Moments struck.
    pub moments: usize,
    /// Transitions seen.
    pub transitions: usize,
}

/// A violation and how to see it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// What is broken.
    #[serde(flatten)]
    pub finding: Finding,
    /// The number of the run.
    pub run: u64,
    /// The strategy that found it.
    pub by: String,
    /// What repeats the run.
    pub token: String,
    /// What struck.
    pub strikes: Vec<Strike>,
    /// What happened in real time only, as sentences: repeated, the run may differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrepeatable: Vec<String>,
    /// Files with what the driver said, if it runs outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// What was left after shrinking.
    #[serde(default)]
    pub shrunk: Option<ShrunkReport>,
}

/// What shrinking left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShrunkReport {
    /// What strikes.
    pub strikes: Vec<Strike>,
    /// How many steps, objects and nodes the scenario has.
    pub steps: usize,
    /// How many objects it begins with.
    pub objects: usize,
    /// How many nodes.
    pub nodes: usize,
    /// How many plays shrinking took.
    pub plays: u32,
    /// Whether the violation comes again when its strikes are pinned by site.
    pub repeats: bool,
    /// Whether there was no time to make it smaller. Without any plays nobody knows whether it comes again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut_short: bool,
    /// The replay file, as text.
    pub replay: String,
    /// The name of the replay file, where one was written.
    #[serde(default)]
    pub file: Option<String>,
    /// What is told of it.
    pub story: Story,
}

impl Report {
    /// All storms.
    pub fn runs(&self) -> u64 {
        self.scenarios.iter().map(|scenario| scenario.runs).sum()
    }

    /// The violations, with their scenarios.
    pub fn violations(&self) -> impl Iterator<Item = (&ScenarioReport, &Found)> {
        let of = |scenario| ScenarioReport::pairs(scenario);
        self.scenarios.iter().flat_map(of)
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        let never = self.never().map(|_| 1).take(1);
        worst(self.violations().map(|(_, found)| found.finding.status).chain(never))
    }

    /// What was to be seen sometimes, and never was: scenario and condition. Nothing while shards are missing: another may have seen it.
    pub fn never(&self) -> impl Iterator<Item = (&ScenarioReport, &str)> {
        let whole = self.missing().is_empty();
        let played = self.scenarios.iter().filter(move |scenario| whole && scenario.runs > 0);
        played.flat_map(|scenario| {
            let never = scenario.sometimes.iter().filter(|(_, seen)| !**seen);
            never.map(move |(what, _)| (scenario, what.as_str()))
        })
    }

    /// The parts of the campaign that are missing.
    pub fn missing(&self) -> Vec<Shard> {
        let of = self.shards.iter().map(|shard| shard.of).max().unwrap_or(1);
        let all = (1..=of).map(|index| Shard { index, of });
        all.filter(|shard| !self.shards.contains(shard)).collect()
    }

    /// Joins another part of the same campaign.
    ///
    /// # Errors
    /// Why it is none, as a sentence.
    pub fn merge(&mut self, other: Report) -> Result<(), String> {
        same("version", &self.version, &other.version)?;
        same("strategy", &self.strategy, &other.strategy)?;
        let mutant = |report: &Report| report.mutant.clone().unwrap_or_else(|| "none".into());
        same("mutant", &mutant(self), &mutant(&other))?;
        let driver = |report: &Report| {
            report
                .driver
                .as_ref()
                .map_or_else(|| "in the tank".into(), |d| d.link.clone())
        };
        same("driver", &driver(self), &driver(&other))?;
        let seeds = |report: &Report| format!("{}..{}", report.seeds.0, report.seeds.1);
        same("seeds", &seeds(self), &seeds(&other))?;
        if let Some(both) = self.shards.intersection(&other.shards).next() {
            return Err(format!("shard {both} is in both: it would count twice"));
        }
        let (of, others) = (self.shards.first().map(|s| s.of), other.shards.first().map(|s| s.of));
        if of != others {
            return Err("they are shards of campaigns that were split in different ways".into());
        }
        let digests = |report: &Report| {
            report
                .scenarios
                .iter()
                .map(|s| (s.name.clone(), s.digest.clone()))
                .collect::<Vec<_>>()
        };
        if digests(self) != digests(&other) {
            return Err("they are of different scenarios, or of different versions of them".into());
        }
        self.shards.extend(other.shards);
        self.interrupted |= other.interrupted;
        for (mine, theirs) in self.scenarios.iter_mut().zip(other.scenarios) {
            mine.merge(theirs);
        }
        Ok(())
    }
}

fn same(what: &str, mine: &str, theirs: &str) -> Result<(), String> {
    if mine == theirs {
        Ok(())
    } else {
        Err(format!("the {what} differs: {mine} and {theirs}"))
    }
}

impl ScenarioReport {
    fn pairs(&self) -> impl Iterator<Item = (&ScenarioReport, &Found)> {
        self.violations.iter().map(move |found| (self, found))
    }

    /// Notes what a run has seen of what must be seen sometimes.
    pub fn see(&mut self, sometimes: &[(String, bool)]) {
        for (what, seen) in sometimes {
            *self.sometimes.entry(what.clone()).or_default() |= seen;
        }
    }

    fn merge(&mut self, other: ScenarioReport) {
        self.runs += other.runs;
        for (what, seen) in other.sometimes {
            *self.sometimes.entry(what).or_default() |= seen;
        }
        self.exhausted &= other.exhausted;
        for (status, runs) in other.statuses {
            *self.statuses.entry(status).or_default() += runs;
        }
        for (promise, runs) in other.broken {
            *self.broken.entry(promise).or_default() += runs;
        }
        self.coverage.merge(&other.coverage);
        // Growth over runs that were spread over shards is nobody's: the end of it is in `coverage`.
        self.growth.clear();
        self.violations.extend(other.violations);
        self.violations
            .sort_by(|a, b| (&a.finding.promise, a.run).cmp(&(&b.finding.promise, b.run)));
        // Of each promise the violation with the lowest number, as a campaign without shards would have it.
        self.violations
            .dedup_by(|later, first| later.finding.promise == first.finding.promise);
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn shards_split_without_overlap_and_wrong_ones_are_refused() {
        let shards: Vec<Shard> = (1..=3).map(|i| Shard::parse(&format!("{i}/3")).unwrap()).collect();
        for nth in 0..100 {
            assert_eq!(shards.iter().filter(|shard| shard.has(nth)).count(), 1, "{nth}");
        }
        assert!(Shard::parse("3/2").unwrap_err().contains("the last is 2/2"));
        for wrong in ["", "1", "0/2", "1/0", "a/b", "-1/2"] {
            assert!(Shard::parse(wrong).unwrap_err().contains("2/8"), "{wrong}");
        }
    }
}
