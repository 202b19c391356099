//! What is explored: something that can be played once, with a chooser or with pinned strikes. Usually the tank with one scenario; in tests a few lines.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::coverage::Features;
use super::witness::{Notes, Told, Witness};
use crate::link::Factory;
use crate::link::socket::Outside;
use crate::mutants::Mutant;
use crate::play::{self, Options, Report, Verdict};
use crate::scenario::Scenario;
use crate::storm::{Chooser, Meeting, Strike};
use crate::storm::{Party, Season, Violation};

/// The promise that stands for failed steps and expectations of the scenario.
pub const EXPECTATIONS: &str = "expectations";
/// The promise that stands for panics.
pub const NO_PANIC: &str = "no-panic";
/// The promise that a run comes to a verdict: drivers and tools answer.
pub const JUDGED: &str = "judged";
/// The promise that the same run gives the same trace.
pub const SAME_AGAIN: &str = "same-again";

/// One run to be played.
pub struct Run {
    /// The seed of the cluster: latencies and what else is drawn there.
    pub seed: u64,
    /// What is pinned.
    pub pinned: Vec<Strike>,
    /// Who picks.
    pub chooser: Box<dyn Chooser>,
    /// Whether every meeting is kept whole.
    pub keep_meetings: bool,
    /// Whether the trace is kept.
    pub keep_trace: bool,
}

impl Run {
    /// A storm in which `chooser` picks.
    pub fn storm(seed: u64, chooser: Box<dyn Chooser>) -> Run {
        Run {
            seed,
            pinned: Vec::new(),
            chooser,
            keep_meetings: false,
            keep_trace: false,
        }
    }

    /// A storm in which exactly this strikes.
    pub fn pinned(seed: u64, strikes: Vec<Strike>) -> Run {
        Run {
            pinned: strikes,
            ..Run::storm(seed, Box::new(Calm))
        }
    }
}

/// Picks nothing.
pub struct Calm;

impl Chooser for Calm {
    fn choose(&mut self, _: &Meeting<'_>) -> Option<usize> {
        None
    }
}

/// A broken promise, as campaigns keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The name of the promise.
    pub promise: String,
    /// The promise as one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub says: String,
    /// The exit status that stands for it: 1, 2, 3, 4, 5 or 70.
    pub status: u8,
    /// What was seen, as one sentence.
    pub text: String,
    /// The objects, as sites spell them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Who is to blame, if an oracle said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Party>,
    /// What decides that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// When it was seen, in milliseconds since the scenario began.
    #[serde(default)]
    pub at_ms: u64,
    /// The record of the trace that showed it.
    #[serde(skip)]
    pub record: Option<usize>,
}

impl Finding {
    /// The finding of an oracle; `origin` is when the scenario began.
    pub fn of(violation: &Violation, origin: crate::runtime::Time) -> Finding {
        let promise = violation.promise;
        let status = match promise.season {
            Season::Safety => 2,
            Season::Calm => 3,
        };
        Finding {
            promise: promise.name.to_owned(),
            says: promise.says.to_owned(),
            status,
            text: violation.text.clone(),
            objects: violation.objects.clone(),
            blame: Some(violation.blame),
            source: violation.source.to_owned(),
            at_ms: u64::try_from(violation.at.since(origin).as_millis()).unwrap_or(u64::MAX),
            record: Some(violation.record),
        }
    }

    /// A finding that no oracle made.
    pub fn plain(promise: &str, status: u8, text: impl Into<String>) -> Finding {
        Finding {
            promise: promise.to_owned(),
            says: String::new(),
            status,
            text: text.into(),
            objects: Vec::new(),
            blame: None,
            source: String::new(),
            at_ms: 0,
            record: None,
        }
    }
}

/// What came of a run.
#[derive(Default)]
pub struct Played {
    /// The seed of the cluster.
    pub seed: u64,
    /// What struck by choice.
    pub notes: Notes,
    /// What struck, pinned strikes included.
    pub struck: Vec<Strike>,
    /// Broken promises, in order.
    pub findings: Vec<Finding>,
    /// What the scenario says must be seen sometimes, and whether it was.
    pub sometimes: Vec<(String, bool)>,
    /// What coverage counts.
    pub features: Features,
    /// What happened in real time only, as sentences: repeated, the run may differ.
    pub unrepeatable: Vec<String>,
    /// Files with what the driver said, if it runs outside.
    pub output: Vec<String>,
    /// The digest of the trace, if the trace was kept.
    pub digest: Option<String>,
    /// The whole report, if the trace was kept.
    pub report: Option<Report>,
}

impl Played {
    /// Leaves out what `honest`, the same run without the bug, breaks as well.
    pub fn less(&mut self, honest: &Played) {
        self.findings.retain(|finding| honest.broke(&finding.promise).is_none());
    }

    /// The finding about this promise.
    pub fn broke(&self, promise: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.promise == promise)
    }
}

/// Something that can be played.
pub trait Subject: Send + Sync {
    /// Plays once. The same run gives the same result.
    fn play(&self, run: Run, told: &Arc<Mutex<Told>>) -> Played;

    /// The link and the driver behind it, as tokens spell them, if that is not in the tank.
    fn link(&self) -> Option<String> {
        None
    }

    /// The scenario, if it is one.
    fn scenario(&self) -> Option<&Scenario> {
        None
    }

    /// The same with another scenario; with `honest` without its bug.
    fn with(&self, scenario: &Scenario, honest: bool) -> Option<Box<dyn Subject>> {
        let _ = (scenario, honest);
        None
    }
}

/// The tank with a scenario in it.
#[derive(Clone)]
pub struct Tank {
    /// The scenario.
    pub scenario: Arc<Scenario>,
    /// Drivers that are not the reference driver.
    pub drivers: BTreeMap<String, Factory>,
    /// The driver that runs outside, if one does.
    pub outside: Option<Arc<Outside>>,
    /// The bug that is switched on.
    pub mutant: Option<&'static Mutant>,
}

impl Subject for Tank {
    fn link(&self) -> Option<String> {
        self.outside.as_ref().map(|outside| outside.mark())
    }

    fn play(&self, run: Run, told: &Arc<Mutex<Told>>) -> Played {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let witness = Witness::new(run.chooser, Arc::clone(&notes), Arc::clone(told), run.keep_meetings);
        let witness = Mutex::new(Some(Box::new(witness) as Box<dyn Chooser>));
        let storm = move || {
            let taken = witness.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.unwrap_or_else(|| Box::new(Calm))
        };
        let options = Options {
            seed: run.seed,
            drivers: self.drivers.clone(),
            outside: self.outside.clone(),
            // Of what is pinned there are hundreds of plays, and the one that matters was found before.
            keeps_output: run.pinned.is_empty(),
            strikes: run.pinned,
            storm: Some(Arc::new(storm)),
            mutant: self.mutant,
            ..Options::default()
        };
        let played = catch_unwind(AssertUnwindSafe(|| play::play(&self.scenario, &options)));
        let notes = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Played {
            seed: run.seed,
            notes,
            ..Played::default()
        };
        result.notes.sites.sort_unstable();
        match played {
            Err(panic) => {
                result.struck = result.notes.strikes.clone();
                result
                    .findings
                    .push(Finding::plain(NO_PANIC, 70, spell(panic.as_ref())));
            }
            Ok(report) => {
                result.features = Features::of(&report.trace, &result.notes);
                result.findings = findings(&report);
                result.sometimes.clone_from(&report.sometimes);
                result.unrepeatable.clone_from(&report.aftermath.unrepeatable);
                result.output = report
                    .aftermath
                    .logs
                    .iter()
                    .map(|(_, log)| log.display().to_string())
                    .collect();
                result.struck = if report.struck.is_empty() {
                    result.notes.strikes.clone()
                } else {
                    report.struck.clone()
                };
                if run.keep_trace {
                    result.digest = Some(report.trace.digest());
                    result.report = Some(report);
                }
            }
        }
        result
    }

    fn scenario(&self) -> Option<&Scenario> {
        Some(&self.scenario)
    }

    fn with(&self, scenario: &Scenario, honest: bool) -> Option<Box<dyn Subject>> {
        Some(Box::new(Tank {
            scenario: Arc::new(scenario.clone()),
            drivers: self.drivers.clone(),
            outside: self.outside.clone(),
            mutant: self.mutant.filter(|_| !honest),
        }))
    }
}

impl Tank {
    /// A tank in which all are honest.
    pub fn new(scenario: Scenario, drivers: BTreeMap<String, Factory>) -> Tank {
        Tank {
            scenario: Arc::new(scenario),
            drivers,
            outside: None,
            mutant: None,
        }
    }
}

fn findings(report: &Report) -> Vec<Finding> {
    let origin = report.trace.origin();
    let mut findings: Vec<Finding> = report.violations.iter().map(|v| Finding::of(v, origin)).collect();
    match &report.verdict {
        Verdict::Failed(failures) if findings.is_empty() => {
            let text: Vec<String> = failures.iter().map(ToString::to_string).collect();
            findings.push(Finding::plain(EXPECTATIONS, 1, text.join("; ")));
        }
        Verdict::Broken(text) => findings.push(Finding::plain(NO_PANIC, 70, text.clone())),
        Verdict::NotJudged(why) => findings.push(Finding::plain(JUDGED, 5, why.clone())),
        _ => {}
    }
    findings
}

/// What a panic says.
pub fn spell(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}
