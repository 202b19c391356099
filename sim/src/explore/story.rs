//! How a violation is told: the promise, the objects, what happened as numbered events, the lines of the trace around it, who is to blame, and how to see it again.
//!
//! A story is data first; text and JSON are made from it. Lines carry styles, which a stream that nobody watches takes out.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::{Deserialize, Serialize};

use super::subject::Finding;
use crate::play::Report;
use crate::storm::Strike;
use crate::trace::{Follow, TextOptions, Trace, What, text};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// How many lines are shown before the one that showed the violation, and how many after it.
const BEFORE: usize = 8;
const AFTER: usize = 3;
/// How many events are numbered at most.
const EVENTS: usize = 24;

/// A violation as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Story {
    /// What happened, in order: the steps, what struck, what became of the objects.
    pub events: Vec<String>,
    /// The lines of the trace around the moment that showed it.
    pub lines: Vec<String>,
    /// Which of these lines showed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<usize>,
}

impl Story {
    /// The story of a finding in a run.
    pub fn of(report: &Report, finding: &Finding) -> Story {
        let trace = &report.trace;
        let last = trace.records().len().saturating_sub(1);
        let place = finding.record.unwrap_or(last).min(last);
        let (lines, shown) = around(trace, place);
        Story {
            events: events(trace, place, finding),
            lines,
            shown,
        }
    }

    /// The events and lines as text with styles, indented.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = self.events.len().to_string().len();
        for (nth, event) in self.events.iter().enumerate() {
            let _ = writeln!(text, "  {:>width$}. {event}", nth + 1);
        }
        if !self.lines.is_empty() {
            let _ = writeln!(text, "\n  {DIM}around it:{DIM:#}");
        }
        for (nth, line) in self.lines.iter().enumerate() {
            let mark = if self.shown == Some(nth) {
                format!("{BAD}▶{BAD:#}")
            } else {
                " ".to_owned()
            };
            let _ = writeln!(text, "  {mark} {line}");
        }
        text
    }
}

/// What stands above a story: what is broken, and by whom.
pub fn headline(finding: &Finding) -> String {
    let mut text = String::new();
    let promise = &finding.promise;
    let _ = match finding.says.as_str() {
        "" => writeln!(text, "{BAD}BROKEN{BAD:#} {BOLD}{promise}{BOLD:#}"),
        says => writeln!(text, "{BAD}BROKEN{BAD:#} {BOLD}{promise}{BOLD:#}: {says}"),
    };
    let _ = writeln!(text, "  {}", text::cut(&finding.text));
    if !finding.objects.is_empty() {
        let _ = writeln!(text, "  objects: {}", finding.objects.join(", "));
    }
    if let Some(blame) = finding.blame {
        let _ = match finding.source.as_str() {
            "" => writeln!(text, "  blame: {blame}"),
            source => writeln!(text, "  blame: {blame}; decided by {source}"),
        };
    }
    text
}

/// Strikes as a list.
pub fn strikes(strikes: &[Strike]) -> String {
    let mut text = String::new();
    for strike in strikes {
        let _ = writeln!(text, "  {strike}");
    }
    text
}

/// The text without styles.
pub fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// The numbered events: steps, faults, deaths, and what concerns the objects; of too many the last.
fn events(trace: &Trace, place: usize, finding: &Finding) -> Vec<String> {
    let records = trace.records();
    let always = |nth: usize| matches!(records[nth].what, What::Step(_) | What::Fault(_));
    let follow = follow(&finding.objects);
    let options = TextOptions {
        verbose: false,
        follow: follow.clone(),
    };
    let mut lines = text::some_lines(trace, &TextOptions::default(), &|nth| nth <= place && always(nth));
    if !follow.is_empty() {
        lines.extend(text::some_lines(trace, &options, &|nth| nth <= place && !always(nth)));
    }
    lines.sort_by_key(|(nth, _)| *nth);
    let faults = lines
        .iter()
        .filter(|(nth, _)| matches!(records[*nth].what, What::Fault(_)))
        .count();
    let room = EVENTS.saturating_sub(faults);
    let mut skip = (lines.len() - faults).saturating_sub(room);
    let mut events = Vec::new();
    for (nth, line) in lines {
        let fault = matches!(records[nth].what, What::Fault(_));
        if !fault && skip > 0 {
            skip -= 1;
            continue;
        }
        events.push(plain(line.trim_start()));
    }
    events
}

/// What a trace can follow of these objects. Nodes only if there is nothing else: everything happens on some node.
fn follow(objects: &[String]) -> Vec<Follow> {
    let all: Vec<Follow> = objects
        .iter()
        .filter_map(|object| {
            let (kind, name) = object.split_once(' ')?;
            format!("{kind}/{name}").parse().ok()
        })
        .collect();
    let nodes = |follow: &Follow| follow.target().kind == crate::api::Kind::Node;
    if all.iter().all(nodes) {
        return all;
    }
    all.into_iter().filter(|follow| !nodes(follow)).collect()
}

/// The lines around a record, and which of them is its own.
fn around(trace: &Trace, place: usize) -> (Vec<String>, Option<usize>) {
    let all = text::some_lines(trace, &TextOptions::default(), &|_| true);
    let at = all.iter().rposition(|(nth, _)| *nth <= place).unwrap_or(0);
    let from = at.saturating_sub(BEFORE);
    let to = (at + AFTER + 1).min(all.len());
    let lines = all[from..to].iter().map(|(_, line)| plain(line)).collect();
    (lines, (!all.is_empty()).then_some(at - from))
}
