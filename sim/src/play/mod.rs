//! Playing a scenario: the cluster is assembled and booted, the steps happen, the expectations are judged.
//!
//! [`play`] runs a whole scenario in an executor of its own and gives a [`Report`]. Time is the agenda's throughout; a second of a run costs what
//! happens in it.

mod assemble;
mod books;
mod flags;
mod judge;
mod machines;
mod outside;
mod pods;
mod season;
mod steps;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::api::ObjKey;
use crate::cluster::{Cluster, Latency, PinnedBy};
use crate::faults::{Chooser, Strike};
use crate::link::{Factory, socket};
use crate::mutants::Mutant;
use crate::oracles::{Panel, Violation};
use crate::runtime::{Time, run};
use crate::scenario::{Manifest, Scenario, Step};
use crate::trace::{Secrets, Trace, nearest_site, sites};

use books::Books;
use season::Weather;

pub use assemble::{assemble, boot};
pub use machines::{reference, reference_with};
pub use outside::Aftermath;
pub use verdict::{Failure, Verdict, worst};

/// How a scenario is played.
#[derive(Clone)]
pub struct Options {
    /// The seed. Zero unless said otherwise.
    pub seed: u64,
    /// Drivers that are not the reference driver, by name.
    pub drivers: BTreeMap<String, Factory>,
    /// The driver that runs outside, if one does. It takes the place of every other.
    pub outside: Option<Arc<socket::Outside>>,
    /// Told after each step, with the step's number (from 1) and the number of steps.
    pub progress: Option<Arc<dyn Fn(usize, usize) + Send + Sync>>,
    /// Faults pinned beside those of the scenario, before its first step. One that never strikes is no failure: see [`Report::struck`].
    pub strikes: Vec<Strike>,
    /// Makes the chooser of a storm. Without one the run is calm, apart from what is pinned.
    pub storm: Option<Arc<dyn Fn() -> Box<dyn Chooser> + Send + Sync>>,
    /// Whether oracles judge. Only a benchmark says no.
    pub oracles: bool,
    /// Whether the output of an outside driver is kept where a run does not hold.
    pub keeps_output: bool,
    /// What is wrong in this cluster. `None`: nothing. A wrong driver is the reference driver; drivers of somebody's own stay as they are.
    pub mutant: Option<&'static Mutant>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 0,
            drivers: BTreeMap::new(),
            outside: None,
            progress: None,
            strikes: Vec::new(),
            storm: None,
            oracles: true,
            keeps_output: true,
            mutant: None,
        }
    }
}

/// What became of a scenario.
#[derive(Debug)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed it was played with.
    pub seed: u64,
    /// Whether it held.
    pub verdict: Verdict,
    /// Everything that happened.
    pub trace: Trace,
    /// How much virtual time passed, boot excluded.
    pub took: Duration,
    /// What struck, in order: pinned before the same scenario with the same seed, it makes the same run.
    pub struck: Vec<Strike>,
    /// The promises that were broken, in order.
    pub violations: Vec<Violation>,
    /// What the scenario says must be seen sometimes, and whether it was seen in this run.
    pub sometimes: Vec<(String, bool)>,
    /// What remains of a run around an outside driver.
    pub aftermath: Aftermath,
}

/// One scenario being played.
struct Player<'a> {
    scenario: &'a Scenario,
    cluster: Cluster,
    books: Books,
    panel: Panel,
    failures: Vec<Failure>,
    weather: Weather,
    /// Pods that the scenario wants now: where one is lost in a storm, its user makes it again.
    wanted: BTreeMap<ObjKey, Manifest>,
}

/// Steps and expectations stop after this much virtual time in one wait.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// What the user of a scenario takes from knowing what to do until the API server has the request: a kubectl starts, reads and connects.
const KUBECTL: Duration = Duration::from_millis(10);

/// Plays a scenario to its end.
pub fn play(scenario: &Scenario, options: &Options) -> Report {
    let Some(outside) = &options.outside else {
        return play_around(scenario.clone(), options.clone(), None);
    };
    let session = outside.begin();
    let mut report = play_around(outside.adapt(scenario), options.clone(), Some(Arc::clone(&session)));
    session.end();
    report.aftermath.unrepeatable = session.unrepeatable();
    report.aftermath.broken = session.broken();
    if let Some(why) = session.hung() {
        report.verdict = Verdict::NotJudged(why);
        // What was seen after it hung says nothing.
        report.violations.clear();
    }
    match report.verdict {
        Verdict::Held => session.clear(),
        _ if !options.keeps_output => session.clear(),
        _ => report.aftermath.logs = session.logs(),
    }
    report
}

fn play_around(scenario: Scenario, options: Options, outside: Option<Arc<socket::Run>>) -> Report {
    run(move || async move {
        let trace = Trace::new();
        let mut cluster = Cluster::new(options.seed, latency(&scenario), trace);
        assemble::assemble_with(
            &mut cluster,
            &scenario.cluster,
            &options.drivers,
            options.mutant,
            outside.as_ref(),
        );
        assemble::boot(&mut cluster, &scenario.cluster).await;
        let begin = cluster.now();
        let mut panel = if options.oracles { Panel::new() } else { Panel::silent() };
        panel.look(&cluster);
        cluster.trace_mut().begin(begin);
        panel.begin();
        if scenario.steps.iter().any(Step::is_pinned) {
            cluster.count_sites();
        }
        let books = Books::default();
        let mut player = Player {
            scenario: &scenario,
            cluster,
            books,
            panel,
            failures: Vec::new(),
            weather: Weather::of(&options),
            wanted: BTreeMap::new(),
        };
        player.run(&options).await;
        let took = player.end().await.since(begin);
        let sometimes = player.sometimes();
        let Player {
            cluster,
            failures,
            panel,
            ..
        } = player;
        let struck = cluster.struck();
        if let Some(run) = &outside {
            run.closes();
        }
        let trace = cluster.shut_down().await;
        let secrets = Secrets::of(trace.records());
        let scrub = |failure: Failure| Failure {
            message: secrets.scrub(&failure.message).into_owned(),
            ..failure
        };
        let mut violations = panel.into_violations();
        for violation in &mut violations {
            violation.text = secrets.scrub(&violation.text).into_owned();
        }
        let verdict = Verdict::of(failures.into_iter().map(scrub).collect(), &violations);
        Report {
            scenario: scenario.name.clone(),
            seed: options.seed,
            verdict,
            trace,
            took,
            struck,
            violations,
            sometimes,
            aftermath: Aftermath::default(),
        }
    })
}

fn latency(scenario: &Scenario) -> Latency {
    assemble::latency(&scenario.cluster.api_server)
}

impl Player<'_> {
    async fn run(&mut self, options: &Options) {
        let scenario = self.scenario;
        if !self.brew(options) {
            return;
        }
        // What is pinned first of all may strike while the objects of the beginning are created.
        let pinned = scenario.steps.iter().take_while(|step| step.is_pinned()).count();
        if !(self.steps(0..pinned, options).await && self.manifests().await) {
            return;
        }
        if !self.steps(pinned..scenario.steps.len(), options).await {
            return;
        }
        if self.is_off_script() {
            self.goals().await;
            return;
        }
        for (nth, expectation) in scenario.expect.iter().enumerate() {
            if let Err(message) = self.expect(expectation).await {
                // A storm struck while it was waited for.
                if self.is_off_script() {
                    self.goals().await;
                    return;
                }
                self.failures.push(Failure::new(scenario.places.expect(nth), message));
            }
        }
        self.unhit();
    }

    /// Pins what the options pin, and lets the chooser of a storm in. `false` when something cannot be pinned.
    fn brew(&mut self, options: &Options) -> bool {
        for strike in &options.strikes {
            if let Err(message) = self.cluster.pin(self.local_strike(strike), PinnedBy::Player) {
                self.failures.push(Failure::new(None, format!("{strike}: {message}")));
            }
        }
        if let Some(chooser) = &options.storm {
            self.cluster.storm(chooser());
        }
        self.failures.is_empty()
    }

    /// Creates the objects of the beginning. `false` when one is refused.
    async fn manifests(&mut self) -> bool {
        for manifest in &self.scenario.manifests {
            self.books.catch_up(self.cluster.trace());
            self.want(manifest);
            if let Err(error) = self.cluster.create_or_merge(manifest) {
                let message = format!("{} was refused with {}: {}", manifest.target, error.code, error.message);
                self.failures.push(Failure::new(manifest.place.as_ref(), message));
                return false;
            }
            self.run_for(KUBECTL).await;
        }
        true
    }

    /// Performs some of the steps. `false` when one fails.
    async fn steps(&mut self, which: Range<usize>, options: &Options) -> bool {
        let scenario = self.scenario;
        for nth in which {
            let step = &scenario.steps[nth];
            let mut outcome = self.step(step).await;
            if outcome.is_err() && self.is_off_script() {
                self.in_spite_of_trouble(nth, step).await;
                outcome = Ok(());
            }
            if self.weather != Weather::Fair && self.panel.is_unsafe() {
                return false;
            }
            if let Some(progress) = &options.progress {
                progress(nth + 1, scenario.steps.len());
            }
            if let Err(message) = outcome {
                let text = format!("step {} ({}): {message}", nth + 1, step.verb());
                self.failures.push(Failure::new(scenario.places.step(nth), text));
                return false;
            }
        }
        true
    }

    /// A fault that never struck proves nothing.
    fn unhit(&mut self) {
        let injections = self.cluster.pending_injections();
        let mut complaints: Vec<String> = injections
            .map(|injection| format!("{injection} never struck"))
            .collect();
        let mut met = None;
        for Strike { at, fault } in self.cluster.pending_strikes() {
            let met = met.get_or_insert_with(|| sites(self.cluster.trace()));
            let near =
                nearest_site(&at, met).map_or(String::new(), |near| format!("; the nearest that was met: `{near}`"));
            complaints.push(format!("the {} at `{at}` never struck{near}", fault.kind()));
        }
        self.failures
            .extend(complaints.into_iter().map(|text| Failure::new(None, text)));
    }

    /// What of the scenario's `sometimes` was seen.
    fn sometimes(&mut self) -> Vec<(String, bool)> {
        self.books.catch_up(self.cluster.trace());
        let seen = |condition| judge::holds(&self.cluster, &self.books, condition).is_ok();
        let conditions = self.scenario.sometimes.iter();
        conditions
            .map(|condition| (condition.to_string(), seen(condition)))
            .collect()
    }

    fn now(&self) -> Time {
        self.cluster.now()
    }

    /// Lets time pass; the oracles look on.
    async fn run_for(&mut self, duration: Duration) {
        let until = self.now() + duration;
        let panel = &mut self.panel;
        self.cluster
            .run_until(until, |cluster| {
                panel.look(cluster);
                false
            })
            .await;
    }
}
