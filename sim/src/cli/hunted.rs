//! The pages of `wavetank explore` and `wavetank replay`: each violation is played once more, so that it can be shown as a picture.

use std::path::Path;
use std::sync::Arc;

use super::album::{blank, finish, told};
use super::draft::Draft;
use super::replay::Replayed;
use super::report::{plural, quoted};
use super::{Drivers, Stop, Streams};
use crate::explore::campaign;
use crate::explore::replay::ReplayFile;
use crate::explore::report::{Found, Report, ScenarioReport};
use crate::explore::subject::{NO_PANIC, Played, Run, Subject as _, Tank};
use crate::link::socket::Outside;
use crate::mutants::Mutant;
use crate::page::{self, Entry, Listing, Page, Scene, Tale, Unjudged};
use crate::trace::{Token, picture::Picture};

/// So many items of a list are shown.
const ITEMS: usize = 200;

/// What plays the violations of a campaign once more.
pub(super) struct Again<'a> {
    /// The scenarios that were explored.
    pub entries: &'a [campaign::Entry],
    /// Drivers that are not the reference driver.
    pub drivers: &'a Drivers,
    /// The driver that runs outside, if one does.
    pub outside: Option<&'a Arc<Outside>>,
    /// The bug that was switched on.
    pub mutant: Option<&'static Mutant>,
    /// What the user says to have the same driver and nodes, a space before each word.
    pub around: String,
}

/// Writes the page of a campaign.
pub(super) fn campaign_page(
    report: &Report,
    again: &Again<'_>,
    draft: Draft,
    streams: &mut Streams,
) -> Result<(), Stop> {
    let (runs, scenarios) = (report.runs(), report.scenarios.len());
    let mut page = Page {
        title: format!(
            "{runs} {} of {scenarios} {}",
            if runs == 1 { "storm" } else { "storms" },
            plural(scenarios, "scenario")
        ),
        measure: "broke",
        counted: "storms",
        ..blank(streams)
    };
    page.notes.push(format!(
        "Strategy {}, runs {} to {}.",
        report.strategy,
        report.seeds.0,
        report.seeds.1.saturating_sub(1)
    ));
    page.notes.extend(
        report
            .mutant
            .as_ref()
            .map(|mutant| format!("With the mutant {mutant} in it.")),
    );
    if report.interrupted {
        page.notes.push("Ended early, by hand or by its budget of time.".into());
    }
    for shard in report.missing() {
        page.unjudged.push(Unjudged {
            what: format!("shard {shard}"),
            why: "its runs are not in this report".into(),
        });
    }
    for scenario in &report.scenarios {
        if scenario.coverage.offered.is_empty() && scenario.runs > 0 {
            page.unjudged.push(Unjudged {
                what: scenario.name.clone(),
                why: "no fault can strike here: its storms were calm".into(),
            });
        }
        page.push(again.entry(scenario));
    }
    finish(page, draft, streams)
}

impl Again<'_> {
    fn entry(&self, scenario: &ScenarioReport) -> Entry {
        let known = self.entries.iter().find(|entry| entry.name == scenario.name);
        let mut entry = Entry {
            name: scenario.name.clone(),
            because: known
                .and_then(|entry| Some(entry.subject.scenario()?.because.clone()))
                .unwrap_or_default(),
            count: scenario.runs,
            ..Entry::default()
        };
        for found in &scenario.violations {
            let (tale, scene) = self.tale(scenario, found, known, entry.scenes.len());
            entry.tales.push(tale);
            entry.scenes.extend(scene);
        }
        let coverage = &scenario.coverage;
        let broken: u64 = scenario
            .statuses
            .iter()
            .filter(|(status, _)| **status != 0)
            .map(|(_, runs)| runs)
            .sum();
        entry.took = if broken == 0 { String::new() } else { broken.to_string() };
        entry.took_ms = broken.into();
        let promises: Vec<String> = scenario
            .broken
            .iter()
            .map(|(promise, runs)| format!("{promise} in {runs}"))
            .collect();
        entry.gist = promises.join(", ");
        entry.figures = vec![
            ("coverage".into(), coverage.line()),
            (
                "storms".into(),
                format!(
                    "{}{}",
                    scenario.runs,
                    if scenario.exhausted { ", and that is all" } else { "" }
                ),
            ),
        ];
        listing(
            &mut entry,
            "never struck",
            coverage.never_struck().map(str::to_owned).collect(),
        );
        listing(&mut entry, "never seen", coverage.never_seen());
        entry.ended(if scenario.broken.is_empty() {
            page::HELD
        } else {
            page::BROKEN
        })
    }

    fn tale(
        &self,
        scenario: &ScenarioReport,
        found: &Found,
        known: Option<&campaign::Entry>,
        scene: usize,
    ) -> (Tale, Option<Scene>) {
        let played = self.play(found, known);
        let (mut tale, picture) = pictured(
            played.as_ref(),
            &found.finding.promise,
            &format!("{} broken", found.finding.promise),
        );
        if tale.promise.is_empty() {
            tale = Tale::of(&found.finding, found.shrunk.as_ref().map(|shrunk| shrunk.story.clone()));
        }
        tale.scene = scene;
        let count = |number: usize, word: &str| format!("{number} {}", plural(number, word));
        tale.found = format!(
            "run {}, by {}, with {}",
            found.run,
            found.by,
            count(found.strikes.len(), "strike")
        );
        let strikes = match &found.shrunk {
            Some(shrunk) if shrunk.repeats => {
                tale.found += &format!(
                    "; shrunk in {} plays to {}, {}, {}, {}",
                    shrunk.plays,
                    count(shrunk.strikes.len(), "fault"),
                    count(shrunk.steps, "step"),
                    count(shrunk.objects, "object"),
                    count(shrunk.nodes, "node")
                );
                &shrunk.strikes
            }
            _ => &found.strikes,
        };
        tale.strikes = strikes.iter().map(ToString::to_string).collect();
        tale.token.clone_from(&found.token);
        let file = found.shrunk.as_ref().and_then(|shrunk| shrunk.file.as_ref());
        tale.again = match (file, &scenario.file) {
            (Some(file), _) => format!("wavetank replay {}{}", quoted(file), self.around),
            (None, Some(file)) => format!("wavetank run {} --token {}{}", quoted(file), found.token, self.around),
            (None, None) => String::new(),
        };
        (tale, picture)
    }

    /// The violation once more: shrunk where that repeats it, else as it was found.
    fn play(&self, found: &Found, known: Option<&campaign::Entry>) -> Option<Played> {
        let is_away = self.outside.is_none() && !self.around.is_empty();
        if found.finding.promise == NO_PANIC || is_away {
            return None;
        }
        let shrunk = found.shrunk.as_ref().filter(|shrunk| shrunk.repeats);
        if let Some((_, case)) = shrunk.and_then(|shrunk| ReplayFile::parse(Path::new("shrunk"), &shrunk.replay).ok()) {
            let tank = Tank {
                scenario: Arc::new(case.scenario?),
                drivers: self.drivers.clone(),
                outside: self.outside.cloned(),
                mutant: self.mutant,
            };
            let run = Run {
                keep_trace: true,
                ..Run::pinned(case.seed, case.strikes)
            };
            return Some(tank.play(run, &Arc::default()));
        }
        let token: Token = found.token.parse().ok()?;
        let run = Run {
            keep_trace: true,
            ..Run::storm(token.seed, token.storm?.picks.chooser())
        };
        Some(known?.subject.play(run, &Arc::default()))
    }
}

/// The tale and the picture of what a play broke. The tale is empty if it broke nothing.
fn pictured(played: Option<&Played>, promise: &str, title: &str) -> (Tale, Option<Scene>) {
    let Some((played, report)) = played.and_then(|played| Some((played, played.report.as_ref()?))) else {
        return (Tale::default(), None);
    };
    let picture = Picture::of(&report.trace, report.took);
    let tale = played.broke(promise).map(|finding| told(report, finding, &picture));
    (tale.unwrap_or_default(), Some(Scene::new(title, &picture)))
}

fn listing(entry: &mut Entry, title: &str, mut items: Vec<String>) {
    let more = items.len().saturating_sub(ITEMS);
    if items.is_empty() {
        return;
    }
    items.truncate(ITEMS);
    if more > 0 {
        items.push(format!("… and {more} more"));
    }
    entry.lists.push(Listing {
        title: title.to_owned(),
        items,
    });
}

/// The page of replay files.
pub(super) struct Replays {
    draft: Draft,
    page: Page,
    around: String,
}

impl Replays {
    /// An empty one. `around`: what the user says to have the same driver and nodes.
    pub fn new(draft: Draft, around: String, streams: &Streams) -> Replays {
        Replays {
            draft,
            around,
            page: Page {
                measure: "took",
                counted: "events",
                ..blank(streams)
            },
        }
    }

    /// Takes in what came of a file.
    pub fn take(&mut self, path: &Path, replayed: &Replayed) {
        let (ending, sentence) = replayed.ending();
        let promise = &replayed.file.promise;
        let (mut tale, scene) = pictured(Some(&replayed.played), promise, "");
        tale.strikes = replayed.file.strikes.iter().map(ToString::to_string).collect();
        let took = replayed
            .played
            .report
            .as_ref()
            .map_or_else(Default::default, |report| report.took);
        let mut entry = Entry {
            name: path.display().to_string(),
            gist: sentence.clone(),
            took: super::report::seconds(took),
            took_ms: took.as_millis(),
            again: format!("wavetank replay {}{}", quoted(&path.display().to_string()), self.around),
            scenes: scene.into_iter().collect(),
            notes: replayed
                .unhit
                .iter()
                .map(|strike| format!("never struck: {strike}"))
                .collect(),
            ..Entry::default()
        };
        if replayed.status() == 0 {
            entry.because = sentence;
        } else {
            entry.failures.push(sentence);
        }
        if !tale.promise.is_empty() {
            entry.tales.push(tale);
        }
        self.page.push(entry.ended(ending));
    }

    /// Writes the page.
    pub fn write(mut self, streams: &mut Streams) -> Result<(), Stop> {
        let files = self.page.entries.len();
        self.page.title = format!("{files} {}", plural(files, "replay file"));
        finish(self.page, self.draft, streams)
    }
}
