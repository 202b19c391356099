//! What goes onto the page of a report, from what commands know: runs, campaigns, replay files.

use std::time::Duration;

use super::report::{Outcome, again, plural, seconds};
use super::{Stop, Streams, draft::Draft};
use crate::explore::story::Story;
use crate::explore::subject::Finding;
use crate::oracles::promises;
use crate::page::{self, Ending, Entry, Page, Scene, Tale, Unjudged};
use crate::play::{Report, Verdict};
use crate::trace::{VERSION, picture::Picture};

/// What is drawn of a run.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// The picture.
    pub scene: Scene,
    /// How many things happened in it.
    pub count: usize,
    /// The promises that broke.
    pub tales: Vec<Tale>,
}

impl Drawn {
    /// Draws a run.
    pub fn of(report: &Report, picture: &Picture) -> Drawn {
        let origin = report.trace.origin();
        let tales = report.violations.iter().map(|violation| {
            let finding = Finding::of(violation, origin);
            told(report, &finding, picture)
        });
        Drawn {
            tales: tales.collect(),
            scene: Scene::new("", picture),
            count: picture.marks.len(),
        }
    }
}

/// The tale of a finding, with its place in the picture of the run.
pub(super) fn told(report: &Report, finding: &Finding, picture: &Picture) -> Tale {
    Tale {
        mark: finding.record.and_then(|record| picture.mark_of(record)),
        ..Tale::of(finding, Some(Story::of(report, finding)))
    }
}

/// The page of a `wavetank run`.
pub(super) struct Album {
    draft: Draft,
    page: Page,
    /// Runs whose scenario must be seen to do something sometimes: scenario, what, and whether any did.
    sometimes: Vec<(String, String, bool)>,
}

impl Album {
    /// An empty one. `outside`: the driver runs behind sockets.
    pub fn new(draft: Draft, outside: bool, streams: &Streams) -> Album {
        let mut page = Page {
            measure: "took",
            counted: "events",
            ..blank(streams)
        };
        if outside {
            let all: Vec<&str> = page.promises.drain(..).map(|(name, _)| name).collect();
            page.unjudged.push(Unjudged {
                what: format!("{} promises ({})", all.len(), all.join(", ")),
                why: "their oracles look into modelled machines and storage, and this driver runs on real ones; runs were judged on their own expectations".into(),
            });
        }
        Album {
            draft,
            page,
            sometimes: Vec::new(),
        }
    }

    /// Takes in a run.
    pub fn take(&mut self, outcome: &Outcome, seeds: bool) {
        for (what, seen) in &outcome.sometimes {
            match self
                .sometimes
                .iter_mut()
                .find(|(name, known, _)| *name == outcome.name && known == what)
            {
                Some((_, _, any)) => *any |= seen,
                None => self.sometimes.push((outcome.name.clone(), what.clone(), *seen)),
            }
        }
        if let Verdict::NotApplicable(reasons) = &outcome.verdict {
            self.unjudged(&outcome.name, reasons.join("; "));
        }
        if let Verdict::NotJudged(why) = &outcome.verdict {
            self.unjudged(&outcome.name, why.clone());
        }
        self.page.push(entry(outcome, seeds));
    }

    fn unjudged(&mut self, what: &str, why: String) {
        let what = what.to_owned();
        self.page.unjudged.push(Unjudged { what, why });
    }

    /// Writes the page.
    pub fn write(mut self, interrupted: bool, streams: &mut Streams) -> Result<(), Stop> {
        let runs = self.page.entries.len();
        self.page.title = match &self.page.entries[..] {
            [entry] => entry.name.clone(),
            _ => format!("{runs} {}", plural(runs, "run")),
        };
        if interrupted {
            self.page
                .notes
                .push("Interrupted: this is what was done so far.".into());
        }
        for (name, what, _) in self.sometimes.iter().filter(|(_, _, seen)| !seen) {
            self.page
                .notes
                .push(format!("{name}: {what} was to be seen sometimes, and never was."));
        }
        finish(self.page, self.draft, streams)
    }
}

/// A page on which nothing stands yet.
pub(super) fn blank(streams: &Streams) -> Page {
    Page {
        command: streams.command.clone(),
        version: VERSION,
        promises: promises()
            .into_iter()
            .map(|promise| (promise.name, promise.says))
            .collect(),
        ..Page::default()
    }
}

/// Writes a page that is complete.
pub(super) fn finish(mut page: Page, draft: Draft, streams: &mut Streams) -> Result<(), Stop> {
    page.count();
    let html = page.html().expect("memory takes every page");
    draft.write(html.as_bytes(), streams)
}

fn entry(outcome: &Outcome, seeds: bool) -> Entry {
    let (drawn, verdict) = (outcome.drawn.as_deref(), &outcome.verdict);
    let mut failures: Vec<String> = verdict.failures().iter().map(ToString::to_string).collect();
    match verdict {
        Verdict::Broken(why) => failures.push(format!("wavetank itself failed: {why}")),
        Verdict::NotJudged(why) => failures.push(format!("not judged: {why}")),
        Verdict::NotApplicable(reasons) => {
            failures.extend(reasons.iter().map(|reason| format!("does not apply: {reason}")))
        }
        Verdict::Held | Verdict::Failed(_) | Verdict::Unsafe(_) | Verdict::Restless(_) => {}
    }
    let tales: Vec<Tale> = drawn.map(|drawn| drawn.tales.clone()).unwrap_or_default();
    let aftermath = &outcome.aftermath;
    let repeats = aftermath
        .unrepeatable
        .iter()
        .map(|text| format!("May differ when repeated: {text}"));
    let logs = aftermath
        .logs
        .iter()
        .map(|(node, log)| format!("Output of the driver ({node}): {}", log.display()));
    let sometimes = outcome
        .sometimes
        .iter()
        .map(|(what, seen)| format!("{}: {what}", if *seen { "seen" } else { "not seen in this run" }));
    Entry {
        name: outcome.name.clone(),
        seed: if seeds || outcome.seed != 0 {
            outcome.seed.to_string()
        } else {
            String::new()
        },
        because: outcome.because.clone(),
        gist: gist(&tales, &failures),
        took: took(outcome.took),
        took_ms: outcome.took.as_millis(),
        count: drawn.map_or(0, |drawn| drawn.count as u64),
        failures,
        tales,
        scenes: drawn.map(|drawn| drawn.scene.clone()).into_iter().collect(),
        notes: repeats
            .chain(aftermath.broken.iter().cloned())
            .chain(logs)
            .chain(sometimes)
            .collect(),
        again: again(outcome).unwrap_or_default(),
        token: match verdict {
            Verdict::NotApplicable(_) => String::new(),
            _ => outcome.token.to_string(),
        },
        ..Entry::default()
    }
    .ended(ending(verdict))
}

/// A time for a narrow column; nothing for none.
fn took(time: Duration) -> String {
    if time.is_zero() { String::new() } else { seconds(time) }
}

/// The first thing that was wrong.
fn gist(tales: &[Tale], failures: &[String]) -> String {
    let promises: Vec<&str> = tales.iter().map(|tale| tale.promise.as_str()).collect();
    match (&promises[..], failures) {
        ([], []) => String::new(),
        ([], [first, ..]) => first.lines().next().unwrap_or_default().chars().take(140).collect(),
        (promises, _) => promises.join(", "),
    }
}

fn ending(verdict: &Verdict) -> Ending {
    match verdict {
        Verdict::Held => page::HELD,
        Verdict::Failed(_) => page::FAILED,
        Verdict::Unsafe(_) => page::UNSAFE,
        Verdict::Restless(_) => page::RESTLESS,
        Verdict::NotJudged(_) => page::HUNG,
        Verdict::NotApplicable(_) => page::NOT_APPLICABLE,
        Verdict::Broken(_) => page::BUG,
    }
}
