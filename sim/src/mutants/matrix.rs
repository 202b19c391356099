//! The matrix: which promise notices each mutant, after how many runs, and the faults that it takes.
//!
//! ```text
//! mutant ──► its scenarios, one after the other ──► calm run ─► storm, storm, … ──► a broken promise that the honest cluster keeps ──► shrunk
//! ```
//!
//! The storms are those of an exploration: the same strategy and the same numbers give the same matrix, however many threads there are. A promise that the honest
//! cluster breaks under the same strikes proves nothing about the mutant, and the hunt goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::Mutant;
use crate::explore::shrink::{Case, Trial, shrink};
use crate::explore::strategy::{StrategyName, Survey};
use crate::explore::subject::{Calm, EXPECTATIONS, Finding, Played, Run, Subject, Tank};
use crate::faults::Strike;
use crate::scenario::Scenario;

/// Half of the mutants are to be caught within so many runs.
pub const MEDIAN: u64 = 50;
/// So many faults are to be left of most violations.
pub const FEW: usize = 2;
/// How many violations, in percent, are to be shrunk to [`FEW`].
pub const SHRUNK: usize = 90;

/// How mutants are hunted.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// How many runs each scenario of a mutant gets, its calm run included.
    pub runs: u64,
    /// Who picks faults.
    pub strategy: StrategyName,
    /// How many plays shrinking may take.
    pub shrink: u32,
    /// How many mutants are hunted at once.
    pub jobs: usize,
}

impl Default for Hunt {
    fn default() -> Hunt {
        Hunt {
            runs: 300,
            strategy: StrategyName::Mix,
            shrink: 80,
            jobs: 1,
        }
    }
}

/// How a mutant was caught.
#[derive(Clone, Debug)]
pub struct Catch {
    /// In which scenario.
    pub scenario: String,
    /// What was seen.
    pub finding: Finding,
    /// Whose idea the run was. `None`: the calm run, without any fault.
    pub by: Option<StrategyName>,
    /// With which seed.
    pub seed: u64,
    /// The faults that it takes.
    pub strikes: Vec<Strike>,
}

/// A mutant and what became of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The mutant.
    pub mutant: &'static Mutant,
    /// How many runs it took, or how many were in vain.
    pub runs: u64,
    /// How it was caught, if it was.
    pub catch: Option<Catch>,
}

/// What stands against the targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed(pub Vec<String>);

/// Hunts these mutants in these scenarios. `told` hears of each as it ends.
pub fn hunt(mutants: &[&'static Mutant], library: &[Scenario], how: Hunt, told: &(dyn Fn(&Row) + Sync)) -> Vec<Row> {
    let library: BTreeMap<&str, Arc<Scenario>> = library
        .iter()
        .map(|scenario| (scenario.name.as_str(), Arc::new(scenario.clone())))
        .collect();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|threads| {
        for _ in 0..how.jobs.clamp(1, mutants.len().max(1)) {
            threads.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(nth) else { return };
                    let row = hunt_one(mutant, &library, how);
                    told(&row);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).insert(nth, row);
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.into_values().collect()
}

fn hunt_one(mutant: &'static Mutant, library: &BTreeMap<&str, Arc<Scenario>>, how: Hunt) -> Row {
    let mut row = Row {
        mutant,
        runs: 0,
        catch: None,
    };
    let mut spare = None;
    for name in mutant.scenarios {
        let Some(scenario) = library.get(name) else { continue };
        let ground = Ground::new(mutant, scenario);
        if let Some(catch) = ground.hunt(how, &mut row.runs, &mut spare) {
            row.catch = Some(catch);
            return row;
        }
    }
    row.catch = spare;
    row
}

/// A scenario with the mutant in it and without.
struct Ground {
    wrong: Tank,
    honest: Tank,
}

impl Ground {
    fn new(mutant: &'static Mutant, scenario: &Arc<Scenario>) -> Ground {
        let tank = |mutant| Tank {
            scenario: Arc::clone(scenario),
            drivers: BTreeMap::new(),
            outside: None,
            mutant,
        };
        Ground {
            wrong: tank(Some(mutant)),
            honest: tank(None),
        }
    }

    /// Plays until an oracle notices. What only the scenario's own expectations notice is kept as a spare.
    fn hunt(&self, how: Hunt, runs: &mut u64, spare: &mut Option<Catch>) -> Option<Catch> {
        let calm = Run {
            keep_meetings: true,
            ..Run::storm(0, Box::new(Calm))
        };
        *runs += 1;
        let played = self.wrong.play(calm, &Arc::default());
        for finding in &played.findings {
            if !self.honest_breaks(0, &[], &finding.promise) {
                let catch = self.caught(finding, None, 0, Vec::new());
                if finding.promise != EXPECTATIONS {
                    return Some(catch);
                }
                spare.get_or_insert(catch);
            }
        }
        // Sites are those of the honest cluster: a mutant that fails at once would show too few.
        let survey = Run {
            keep_meetings: true,
            ..Run::storm(0, Box::new(Calm))
        };
        let survey = self.honest.play(survey, &Arc::default());
        let digest = self.wrong.scenario.digest();
        let mut strategy = how.strategy.build(&Survey::new(&digest, survey.notes.kept));
        for nth in 0..how.runs.saturating_sub(1) {
            let plan = strategy.plan(nth)?;
            *runs += 1;
            let played = self.wrong.play(Run::storm(plan.seed, plan.chooser), &Arc::default());
            strategy.learn(nth, &played);
            if let Some(catch) = self.judge(&played, plan.by, how) {
                return Some(catch);
            }
        }
        None
    }

    fn judge(&self, played: &Played, by: StrategyName, how: Hunt) -> Option<Catch> {
        let oracles = played.findings.iter().filter(|finding| finding.promise != EXPECTATIONS);
        let mut judged: Vec<&str> = Vec::new();
        for finding in oracles {
            if judged.contains(&finding.promise.as_str()) {
                continue;
            }
            judged.push(&finding.promise);
            if self.honest_breaks(played.seed, &played.struck, &finding.promise) {
                continue;
            }
            let case = Case {
                scenario: None,
                seed: played.seed,
                strikes: played.struck.clone(),
            };
            let mut trial = Candidates {
                ground: self,
                promise: &finding.promise,
            };
            let shrunk = shrink(case, how.shrink, &mut trial);
            return Some(self.caught(finding, Some(by), shrunk.case.seed, shrunk.case.strikes));
        }
        None
    }

    fn caught(&self, finding: &Finding, by: Option<StrategyName>, seed: u64, strikes: Vec<Strike>) -> Catch {
        Catch {
            scenario: self.wrong.scenario.name.clone(),
            finding: finding.clone(),
            by,
            seed,
            strikes,
        }
    }

    fn honest_breaks(&self, seed: u64, strikes: &[Strike], promise: &str) -> bool {
        let run = Run::pinned(seed, strikes.to_vec());
        self.honest.play(run, &Arc::default()).broke(promise).is_some()
    }
}

/// Plays what shrinking proposes.
struct Candidates<'a> {
    ground: &'a Ground,
    promise: &'a str,
}

impl Trial for Candidates<'_> {
    fn breaks(&mut self, case: &Case) -> bool {
        let run = Run::pinned(case.seed, case.strikes.clone());
        let played = self.ground.wrong.play(run, &Arc::default());
        // The same violation, and still the mutant's.
        played.broke(self.promise).is_some() && !self.ground.honest_breaks(case.seed, &case.strikes, self.promise)
    }
}

/// Which targets these rows miss.
pub fn missed(rows: &[Row]) -> Missed {
    let mut missed = Vec::new();
    for row in rows.iter().filter(|row| row.catch.is_none()) {
        missed.push(format!("{} was not caught in {} runs", row.mutant.name(), row.runs));
    }
    if let Some(median) = median(rows).filter(|median| *median > MEDIAN) {
        missed.push(format!(
            "half of the mutants took more than {median} runs: {MEDIAN} is the target"
        ));
    }
    let (few, all) = shrunk(rows);
    if few * 100 < all * SHRUNK {
        missed.push(format!(
            "{few} of {all} were shrunk to {FEW} faults or fewer: {SHRUNK} in 100 is the target"
        ));
    }
    Missed(missed)
}

/// The median of the runs that it took to catch those that were caught.
pub fn median(rows: &[Row]) -> Option<u64> {
    let mut runs: Vec<u64> = rows
        .iter()
        .filter(|row| row.catch.is_some())
        .map(|row| row.runs)
        .collect();
    runs.sort_unstable();
    runs.get(runs.len().saturating_sub(1) / 2).copied()
}

/// How many of those that were caught take few faults, and how many were caught.
pub fn shrunk(rows: &[Row]) -> (usize, usize) {
    let caught = || rows.iter().filter_map(|row| row.catch.as_ref());
    let few = caught().filter(|catch| catch.strikes.len() <= FEW).count();
    (few, caught().count())
}

impl Row {
    /// Its columns: mutant, process, bug, promise, strategy, runs, faults, scenario.
    pub fn cells(&self) -> [String; 8] {
        let (promise, by, faults, scenario) = match &self.catch {
            None => (
                "not caught".to_owned(),
                "–".to_owned(),
                "–".to_owned(),
                self.mutant.scenarios[0].to_owned(),
            ),
            Some(catch) => (
                catch.finding.promise.clone(),
                catch.by.map_or_else(|| "calm".to_owned(), |by| by.to_string()),
                faults(&catch.strikes),
                catch.scenario.clone(),
            ),
        };
        [
            self.mutant.name().to_owned(),
            self.mutant.process().to_owned(),
            self.mutant.bug().to_owned(),
            promise,
            by,
            self.runs.to_string(),
            faults,
            scenario,
        ]
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let catch = self.catch.as_ref().map(|catch| {
            json!({
                "scenario": catch.scenario, "promise": catch.finding.promise, "text": catch.finding.text, "blame": catch.finding.blame,
                "strategy": catch.by.map_or("calm", StrategyName::as_str),
                "faults": catch.strikes.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "seed": catch.seed, "strikes": catch.strikes,
            })
        });
        json!({
            "mutant": self.mutant.name(), "process": self.mutant.process(), "bug": self.mutant.bug(), "pattern": self.mutant.pattern,
            "says": self.mutant.says(), "runs": self.runs, "caught": catch,
        })
    }
}

fn faults(strikes: &[Strike]) -> String {
    if strikes.is_empty() {
        return "none".to_owned();
    }
    strikes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
