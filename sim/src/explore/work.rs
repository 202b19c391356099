//! What the threads of a campaign do: play, play twice, shrink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use super::campaign::{Memory, differs, next_job, survey_run};
use super::replay::ReplayFile;
use super::report::{Found, ShrunkReport};
use super::shrink::{Case, Shrunk, Trial, shrink, struck_by};
use super::story::{self, Story};
use super::strategy::Plan;
use super::subject::{Finding, Played, Run, Subject};
use crate::scenario::Scenario;
use crate::trace::{Token, json};

/// A piece of work.
pub(super) enum Job {
    Survey {
        lane: usize,
    },
    Play {
        lane: usize,
        nth: u64,
        plan: Plan,
        twice: bool,
    },
    Shrink {
        lane: usize,
        place: usize,
        found: Box<Found>,
        mutant: Option<String>,
        budget: u32,
    },
}

/// What came of it.
pub(super) enum Work {
    Surveyed(usize, Box<Played>),
    Played(usize, u64, Box<Played>),
    Shrunk(usize, usize, Option<Box<ShrunkReport>>),
}

impl Job {
    pub fn survey(lane: usize) -> Job {
        Job::Survey { lane }
    }

    pub fn play(lane: usize, nth: u64, plan: Plan, twice: bool) -> Job {
        Job::Play { lane, nth, plan, twice }
    }

    pub fn shrink(lane: usize, place: usize, found: Found, mutant: Option<String>, budget: u32) -> Job {
        Job::Shrink {
            lane,
            place,
            found: Box::new(found),
            mutant,
            budget,
        }
    }
}

/// One thread.
pub(super) struct Worker {
    pub subjects: Vec<(Arc<dyn Subject>, Memory)>,
    /// Whether a bug is switched on: what the honest cluster breaks as well then proves nothing.
    pub infected: bool,
    /// Nobody waits for shrinking any more.
    pub enough: Arc<AtomicBool>,
    pub heard: Arc<Mutex<Receiver<Job>>>,
    pub tell: Sender<Work>,
}

impl Worker {
    pub fn run(&self) {
        while let Some(job) = next_job(&self.heard) {
            if self.tell.send(self.work(job)).is_err() {
                return;
            }
        }
    }

    fn work(&self, job: Job) -> Work {
        match job {
            Job::Survey { lane } => {
                let (subject, told) = &self.subjects[lane];
                let mut played = subject.play(survey_run(), told);
                self.compare(&**subject, &mut played);
                Work::Surveyed(lane, Box::new(played))
            }
            Job::Play { lane, nth, plan, twice } => {
                let (subject, told) = &self.subjects[lane];
                let run = Run {
                    keep_trace: twice,
                    ..Run::storm(plan.seed, plan.chooser)
                };
                let mut played = subject.play(run, told);
                if twice {
                    again(&**subject, told, &mut played);
                }
                played.report = None;
                self.compare(&**subject, &mut played);
                Work::Played(lane, nth, Box::new(played))
            }
            Job::Shrink {
                lane,
                place,
                found,
                mutant,
                budget,
            } => {
                let (subject, told) = &self.subjects[lane];
                let how = Shrinking {
                    mutant,
                    budget,
                    enough: Arc::clone(&self.enough),
                };
                let shrunk = made_small(&**subject, told, &found, how);
                Work::Shrunk(lane, place, shrunk.map(Box::new))
            }
        }
    }
}

impl Worker {
    fn compare(&self, subject: &dyn Subject, played: &mut Played) {
        if !self.infected || played.findings.is_empty() {
            return;
        }
        let honest = subject.scenario().and_then(|scenario| subject.with(scenario, true));
        if let Some(honest) = honest {
            let run = Run::pinned(played.seed, played.struck.clone());
            played.less(&honest.play(run, &Memory::default()));
        }
    }
}

/// Plays the same picks again and compares the traces.
fn again(subject: &dyn Subject, told: &Memory, played: &mut Played) {
    let run = Run {
        keep_trace: true,
        ..Run::storm(played.seed, played.notes.picks.chooser())
    };
    let second = subject.play(run, told);
    let by_chance = !played.unrepeatable.is_empty() || !second.unrepeatable.is_empty();
    if by_chance || played.digest == second.digest {
        return;
    }
    let (first, second) = (lines(played), lines(&second));
    let at = first.iter().zip(&second).position(|(a, b)| a != b);
    let at = at.unwrap_or(first.len().min(second.len()));
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "(the trace ends)".into());
    let link = subject.link();
    let finding = differs(at + 1, &line(&first), &line(&second), link.as_deref());
    played.findings.push(finding);
}

fn lines(played: &Played) -> Vec<String> {
    let mut text = Vec::new();
    if let Some(report) = &played.report {
        json::write(&mut text, &report.trace, &[]).expect("memory takes every line");
    }
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// How a violation is shrunk.
pub(super) struct Shrinking {
    /// The bug that is switched on.
    pub mutant: Option<String>,
    /// How many plays it may take.
    pub budget: u32,
    /// Nobody waits for it any more.
    pub enough: Arc<AtomicBool>,
}

/// Shrinks a violation and tells it. Without time it stays as it was found, and is not played.
pub(super) fn made_small(subject: &dyn Subject, told: &Memory, found: &Found, how: Shrinking) -> Option<ShrunkReport> {
    let scenario = subject.scenario()?.clone();
    let token: Token = found.token.parse().ok()?;
    let promise = found.finding.promise.clone();
    let case = Case {
        scenario: Some(scenario.clone()),
        seed: token.seed,
        strikes: found.strikes.clone(),
    };
    let mut trial = OnSubject {
        subject,
        told,
        promise: &promise,
        infected: how.mutant.is_some(),
        enough: &how.enough,
    };
    let Shrunk {
        case,
        plays,
        repeats,
        cut_short,
    } = shrink(case, how.budget, &mut trial);
    let (finding, story) = if trial.is_over() {
        (found.finding.clone(), Story::default())
    } else {
        trial.tell(&case, found)
    };
    let left_out = left_out(&scenario, case.scenario.as_ref()?);
    let scenario = case.scenario.as_ref()?;
    let file = ReplayFile::new(&case, &promise, how.mutant)?;
    let mut comment = comment(&finding, &story, scenario, subject.link());
    if cut_short {
        comment.push_str("\nThere was no time to make it smaller.\n");
    }
    if !left_out.is_empty() {
        let left_out = left_out.join("\n  ");
        comment.push_str(&format!(
            "\nThe scenario lets more strike, without which the promise breaks as well:\n  {left_out}\n"
        ));
    }
    Some(ShrunkReport {
        strikes: case.strikes.clone(),
        steps: scenario.steps.len(),
        objects: scenario.manifests.len(),
        nodes: scenario.cluster.nodes.len(),
        plays,
        repeats,
        cut_short,
        replay: file.text(&comment),
        file: None,
        story,
    })
}

/// What a scenario lets strike and a smaller one does not.
fn left_out(whole: &Scenario, smaller: &Scenario) -> Vec<String> {
    let own = |scenario: &Scenario| scenario.steps.iter().filter_map(struck_by).collect::<Vec<_>>();
    let kept = own(smaller);
    own(whole).into_iter().filter(|strike| !kept.contains(strike)).collect()
}

/// What stands above a replay file.
fn comment(finding: &Finding, story: &Story, scenario: &Scenario, link: Option<String>) -> String {
    let mut text = story::plain(&story::headline(finding));
    text.push_str(&format!("\nFound in {}. What happens:\n\n", scenario.name));
    text.push_str(&story::plain(&story.text()));
    match link {
        Some(link) => {
            let nodes = if link.starts_with("vm:") { " --nodes vm" } else { "" };
            text.push_str(&format!(
                "\nSee it with: wavetank replay THIS-FILE --driver PROFILE{nodes} ({link})\n"
            ));
        }
        None => text.push_str("\nSee it with: wavetank replay THIS-FILE\n"),
    }
    text
}

/// Plays candidates on a subject.
pub(super) struct OnSubject<'a> {
    pub subject: &'a dyn Subject,
    pub told: &'a Memory,
    pub promise: &'a str,
    pub infected: bool,
    /// Nobody waits for it any more.
    pub enough: &'a AtomicBool,
}

impl OnSubject<'_> {
    fn play(&self, case: &Case, honest: bool, keep_trace: bool) -> Option<Played> {
        let other = self.subject.with(case.scenario.as_ref()?, honest)?;
        let run = Run {
            keep_trace,
            ..Run::pinned(case.seed, case.strikes.clone())
        };
        Some(other.play(run, self.told))
    }

    /// Plays the case once more for its story.
    fn tell(&self, case: &Case, found: &Found) -> (Finding, Story) {
        let played = self.play(case, false, true);
        let finding = played.as_ref().and_then(|played| played.broke(self.promise)).cloned();
        let finding = finding.unwrap_or_else(|| found.finding.clone());
        let report = played.as_ref().and_then(|played| played.report.as_ref());
        let story = report.map(|report| Story::of(report, &finding)).unwrap_or_default();
        (finding, story)
    }
}

impl Trial for OnSubject<'_> {
    fn breaks(&mut self, case: &Case) -> bool {
        let played = self.play(case, false, false);
        played.is_some_and(|played| played.broke(self.promise).is_some())
    }

    fn proves(&mut self, case: &Case) -> bool {
        let without = Case {
            strikes: if self.infected {
                case.strikes.clone()
            } else {
                Vec::new()
            },
            ..case.clone()
        };
        if !self.infected && case.strikes.is_empty() {
            return true;
        }
        let played = self.play(&without, true, false);
        played.is_some_and(|played| played.broke(self.promise).is_none())
    }

    fn is_over(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }
}
