//! The trace as a person reads it: one line per effect, from top to bottom. The legend is in `legend.rs`.
//!
//! Styles are always written; a stream that nobody watches takes them out (anstream). Two things are folded: a call and its answer stand in one line
//! when nothing that is shown happened in between, and the same question asked several times in a row is one line with a count.

use std::borrow::Cow;
use std::io;

use anstyle::Style;

use super::follow::Filter;
use super::lines::{Line, Manner, is_question};
use super::lore::Lore;
use super::secrets::Secrets;
use super::style::{self, BOLD, DIM};
use super::{Follow, Record, Trace, What};
use crate::link::MachineError;

/// What is shown of a trace.
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// Operations of kubelet on its node, whole messages, whole identities of requests.
    pub verbose: bool,
    /// Only what concerns these objects; everything when empty.
    pub follow: Vec<Follow>,
}

/// The widest column of process names.
const WIDEST: usize = 28;
/// The narrowest.
const NARROWEST: usize = 10;

/// Writes a trace as text.
///
/// # Errors
/// What the stream says.
pub fn write(out: &mut dyn io::Write, trace: &Trace, options: &TextOptions) -> io::Result<()> {
    render(trace, options, &|_| true, &mut |_, line| out.write_all(line))
}

/// The lines of some of the records, each with the place of the record that it begins with. `keep` is asked with the place of each record.
pub fn some_lines(trace: &Trace, options: &TextOptions, keep: &dyn Fn(usize) -> bool) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let push = &mut |nth: usize, line: &[u8]| {
        lines.push((nth, String::from_utf8_lossy(line).trim_end().to_owned()));
        Ok(())
    };
    render(trace, options, keep, push).expect("memory takes every line");
    lines
}

/// Hands over line after line, each with the place of its first record.
fn render(
    trace: &Trace,
    options: &TextOptions,
    keep: &dyn Fn(usize) -> bool,
    emit: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let lore = Lore::of(trace.records());
    let filter = Filter::new(&options.follow, trace.records(), &lore);
    let (places, shown): (Vec<usize>, Vec<&Record>) = trace
        .records()
        .iter()
        .enumerate()
        .filter(|(nth, record)| is_shown(record, options) && filter.passes(*nth) && keep(*nth))
        .unzip();
    let names = shown.iter().map(|record| record.process.chars().count());
    let page = Page {
        manner: Manner {
            lore: &lore,
            verbose: options.verbose,
        },
        secrets: Secrets::of(trace.records()),
        origin: trace.origin(),
        width: names.max().unwrap_or(0).clamp(NARROWEST, WIDEST),
    };
    let (mut at, mut line) = (0, Vec::new());
    while at < shown.len() {
        line.clear();
        let used = page.put(&mut line, &shown[at..])?;
        emit(places[at], &line)?;
        at += used;
    }
    Ok(())
}

/// How many records lead up to a moment, and how many follow it.
const BEFORE: usize = 12;
const AFTER: usize = 2;

/// Writes the lines of a trace around its `nth` record, each with its number: those about some objects if there are any, else all.
///
/// # Errors
/// What the stream says.
pub fn around(out: &mut dyn io::Write, trace: &Trace, nth: usize, follow: &[Follow]) -> io::Result<()> {
    let records = trace.records();
    let lore = Lore::of(records);
    let filter = Filter::new(follow, records, &lore);
    let options = TextOptions::default();
    let fits = |at: &usize| *at == nth || (is_shown(&records[*at], &options) && filter.passes(*at));
    let mut shown: Vec<usize> = (0..nth.min(records.len())).rev().filter(fits).take(BEFORE).collect();
    shown.reverse();
    shown.extend((nth.min(records.len())..records.len()).filter(fits).take(1 + AFTER));
    let names = shown.iter().map(|at| records[*at].process.chars().count());
    let page = Page {
        manner: Manner {
            lore: &lore,
            verbose: false,
        },
        secrets: Secrets::of(records),
        origin: trace.origin(),
        width: names.max().unwrap_or(0).clamp(NARROWEST, WIDEST),
    };
    for at in shown {
        let mark = if at == nth { "►" } else { " " };
        write!(out, "  {mark} {DIM}#{at:<5}{DIM:#}")?;
        page.put(out, &[&records[at]])?;
    }
    Ok(())
}

pub(super) fn is_shown(record: &Record, options: &TextOptions) -> bool {
    match &record.what {
        // What is not there is what cleaning up usually finds.
        What::Machine { error, .. } => {
            options.verbose || error.as_ref().is_some_and(|e| !matches!(e, MachineError::Missing(_)))
        }
        _ => true,
    }
}

struct Page<'a> {
    manner: Manner<'a>,
    secrets: Secrets,
    origin: crate::runtime::Time,
    width: usize,
}

impl Page<'_> {
    /// Writes the line for the first of the records; says how many records it stands for.
    fn put(&self, out: &mut dyn io::Write, records: &[&Record]) -> io::Result<usize> {
        let record = records[0];
        if let What::Step(text) = &record.what {
            return self.heading(out, record, text).map(|()| 1);
        }
        let (line, used) = match answered_at_once(records) {
            Some(What::Reply { took, result, .. }) => {
                let times = 1 + repeats(records);
                (self.manner.line(record, Some((*took, result)), times), 2 * times)
            }
            _ => (self.manner.line(record, None, 1), 1),
        };
        self.line(out, record, &line)?;
        Ok(used)
    }

    fn time(&self, record: &Record) -> String {
        let since = record.at.since(self.origin);
        format!("{}.{:03}", since.as_secs(), since.subsec_millis())
    }

    fn heading(&self, out: &mut dyn io::Write, record: &Record, text: &str) -> io::Result<()> {
        let (time, text) = (self.time(record), self.secrets.scrub(text));
        writeln!(out, "{DIM}{time:>9}{DIM:#}  {BOLD}── {text}{BOLD:#}")
    }

    fn line(&self, out: &mut dyn io::Write, record: &Record, line: &Line) -> io::Result<()> {
        let time = self.time(record);
        let style = style::process(&record.process);
        let name = clipped(&record.process, self.width);
        let pad = self.width.saturating_sub(name.chars().count());
        write!(out, "{DIM}{time:>9}{DIM:#}  {style}{name}{style:#}{:pad$}  ", "")?;
        put_styled(out, line.sign_style, line.sign)?;
        for (style, text) in &line.spans {
            out.write_all(b" ")?;
            put_styled(out, *style, &self.secrets.scrub(text))?;
        }
        out.write_all(b"\n")
    }
}

/// The longest piece of a line, in bytes: somebody's message or name may be a book.
const LONGEST: usize = 4000;

/// Control characters of others' messages do not reach the terminal.
fn put_styled(out: &mut dyn io::Write, style: Style, text: &str) -> io::Result<()> {
    let text = &*cut(text);
    if text.contains(|c: char| c.is_control()) {
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        return write!(out, "{style}{clean}{style:#}");
    }
    write!(out, "{style}{text}{style:#}")
}

/// Of what is too long its beginning, and how much it was.
pub fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST {
        return Cow::Borrowed(text);
    }
    let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len()))
}

/// A long name keeps its end: there stands the node.
fn clipped(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let head = width / 2 - 1;
    let tail = width - head - 1;
    let start: String = name.chars().take(head).collect();
    let end: String = name.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// The answer to the first record, a call, if it is the next thing that is shown.
fn answered_at_once<'a>(records: &[&'a Record]) -> Option<&'a What> {
    let What::Call { id, .. } = &records[0].what else {
        return None;
    };
    let next = &records.get(1)?.what;
    match next {
        What::Reply { id: answered, .. } if answered == id => Some(next),
        _ => None,
    }
}

/// How often the question that the first two records are is asked again, with success each time, before anything else is shown.
fn repeats(records: &[&Record]) -> usize {
    let What::Call { call: first, .. } = &records[0].what else {
        return 0;
    };
    let Some(What::Reply { result: Ok(_), .. }) = records.get(1).map(|r| &r.what) else {
        return 0;
    };
    if !is_question(first) {
        return 0;
    }
    let same = |pair: &&[&Record]| match (&pair[0].what, answered_at_once(pair)) {
        (What::Call { call, .. }, Some(What::Reply { result: Ok(_), .. })) => {
            pair[0].process == records[0].process && call.request == first.request && call.driver == first.driver
        }
        _ => false,
    };
    records[2..].chunks_exact(2).take_while(same).count()
}
