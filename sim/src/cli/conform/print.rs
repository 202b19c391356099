//! What `wavetank conform` prints: a line for each check under its service, then what is not as it should be, then the count.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{Ansi256Color, AnsiColor, Color, Style};
use serde_json::{Value, json};
use wavetank_conform::{Check, Exchange, Finding, Report, Service, Verdict, Weight, spell};

use super::ConformArgs;
use crate::cli::args::Format;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(244))));
const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Calls that are shown of a check that went wrong.
const CALLS: usize = 6;
/// How wide lines become.
const WIDTH: usize = 118;
/// The number of the JSON lines' shape.
const SCHEMA: u32 = 1;

/// Prints findings as they come.
pub(super) struct Printer {
    format: Format,
    verbose: bool,
    quiet: bool,
    names: usize,
    group: Option<Service>,
}

fn word(verdict: &Verdict) -> (Style, &'static str) {
    match verdict {
        Verdict::Held => (GOOD, "held"),
        Verdict::Broken(_) => (BAD, "BROKEN"),
        Verdict::Advice(_) => (WARN, "should"),
        Verdict::NotApplicable(_) => (DIM, "-"),
        Verdict::NotJudged(_) => (BAD, "?"),
    }
}

fn said(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Held => "",
        Verdict::Broken(text) | Verdict::Advice(text) | Verdict::NotApplicable(text) | Verdict::NotJudged(text) => text,
    }
}

fn weight(check: &Check) -> &'static str {
    match check.weight {
        Weight::Must => "must",
        Weight::Should => "should",
    }
}

impl Printer {
    pub fn new(args: &ConformArgs, checks: &[&Check]) -> Printer {
        Printer {
            format: args.format,
            verbose: args.verbose,
            quiet: args.quiet,
            names: checks.iter().map(|check| check.name.len()).max().unwrap_or(0),
            group: None,
        }
    }

    /// Prints one finding.
    pub fn finding(&mut self, out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
        if self.format == Format::Json {
            return writeln!(out, "{}", as_json(finding, self.verbose));
        }
        let fine = matches!(finding.verdict, Verdict::Held | Verdict::NotApplicable(_));
        if self.quiet && fine {
            return Ok(());
        }
        if self.group != Some(finding.check.service) {
            let gap = if self.group.is_some() { "\n" } else { "" };
            writeln!(out, "{gap}{BOLD}{}{BOLD:#}", finding.check.service.title())?;
            self.group = Some(finding.check.service);
        }
        let (style, word) = word(&finding.verdict);
        let names = self.names;
        write!(out, "  {style}{word:<6}{style:#}  {:<names$}", finding.check.name)?;
        match &finding.verdict {
            Verdict::Held => writeln!(out, "  {DIM}{:>10}{DIM:#}", took(finding.took))?,
            Verdict::NotApplicable(why) => writeln!(out, "  {DIM}not applicable: {why}{DIM:#}")?,
            Verdict::Broken(_) | Verdict::Advice(_) | Verdict::NotJudged(_) => {
                writeln!(out, "  {DIM}{:>10}{DIM:#}", took(finding.took))?;
            }
        }
        if !fine {
            explain(out, finding)?;
        }
        if self.verbose {
            calls(out, &finding.exchanges.iter().collect::<Vec<_>>(), usize::MAX)?;
        } else if !fine {
            calls(out, &telling(finding), CALLS)?;
        }
        Ok(())
    }

    /// Prints the count, by service.
    pub fn summary(&self, out: &mut dyn Write, report: &Report) -> io::Result<()> {
        if self.format == Format::Json {
            return writeln!(out, "{}", counted(report));
        }
        let mut rows: BTreeMap<Service, [usize; 5]> = BTreeMap::new();
        for finding in &report.findings {
            rows.entry(finding.check.service).or_default()[column(&finding.verdict)] += 1;
        }
        if self.group.is_some() {
            writeln!(out)?;
        }
        let heads = ["held", "broken", "should", "n/a", "not judged"];
        writeln!(
            out,
            "{BOLD}{:<18}{BOLD:#}{DIM}{}{DIM:#}",
            report.profile.name,
            heads.map(|head| format!("{head:>12}")).concat()
        )?;
        for (service, counts) in &rows {
            line(out, service.title(), counts)?;
        }
        let mut all = [0; 5];
        for counts in rows.values() {
            for (sum, count) in all.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        line(out, "together", &all)?;
        writeln!(out)?;
        verdict(out, report, &all)
    }

    /// Says that it was interrupted.
    pub fn interrupted(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Json => writeln!(out, "{}", json!({"type": "interrupted"})),
            Format::Text => writeln!(
                out,
                "\n{BAD}interrupted{BAD:#}: volumes of the check under way may be left over"
            ),
        }
    }
}

fn column(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Held => 0,
        Verdict::Broken(_) => 1,
        Verdict::Advice(_) => 2,
        Verdict::NotApplicable(_) => 3,
        Verdict::NotJudged(_) => 4,
    }
}

fn line(out: &mut dyn Write, title: &str, counts: &[usize; 5]) -> io::Result<()> {
    write!(out, "{title:<18}")?;
    for (count, style) in counts.iter().zip([GOOD, BAD, WARN, DIM, BAD]) {
        match count {
            0 => write!(out, "{DIM}{:>12}{DIM:#}", "·")?,
            count => write!(out, "{style}{count:>12}{style:#}")?,
        }
    }
    writeln!(out)
}

fn verdict(out: &mut dyn Write, report: &Report, counts: &[usize; 5]) -> io::Result<()> {
    let (name, version) = (&report.profile.name, &report.profile.version);
    match counts {
        [_, 0, 0, _, 0] => writeln!(
            out,
            "{GOOD}{name} {version} keeps every obligation that applies to it.{GOOD:#}"
        ),
        [_, 0, _, _, 0] => writeln!(
            out,
            "{GOOD}{name} {version} keeps every MUST that applies to it.{GOOD:#}"
        ),
        [_, 0, _, _, _] => writeln!(out, "{BAD}{name} {version} was not judged in full.{BAD:#}"),
        [_, broken, ..] => {
            let (word, verb) = if *broken == 1 {
                ("obligation", "is")
            } else {
                ("obligations", "are")
            };
            writeln!(out, "{BAD}{name} {version}: {broken} {word} {verb} not kept.{BAD:#}")
        }
    }
}

/// What was expected, by whom, and what came.
fn explain(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    wrapped(out, "what", said(&finding.verdict), BOLD)?;
    wrapped(out, weight(finding.check), finding.check.obligation, Style::new())?;
    wrapped(out, "source", finding.check.source, DIM)
}

const INDENT: usize = 19;

fn wrapped(out: &mut dyn Write, head: &str, text: &str, style: Style) -> io::Result<()> {
    let mut lines = Vec::from([String::new()]);
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("it begins with one line");
        if !last.is_empty() && INDENT + last.chars().count() + word.chars().count() >= WIDTH {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    for (nth, line) in lines.iter().enumerate() {
        let head = if nth == 0 { head } else { "" };
        writeln!(out, "          {DIM}{head:<7}{DIM:#}  {style}{line}{style:#}")?;
    }
    Ok(())
}

/// The calls that led to what is said: those that undo the check only if one of them went wrong.
fn telling(finding: &Finding) -> Vec<&Exchange> {
    let in_undoing = said(&finding.verdict).starts_with("while cleaning up");
    let calls = finding.exchanges.iter();
    calls.filter(|call| in_undoing || !call.undoes).collect()
}

/// The last calls of a check.
fn calls(out: &mut dyn Write, exchanges: &[&Exchange], most: usize) -> io::Result<()> {
    let hidden = exchanges.len().saturating_sub(most);
    if hidden > 0 {
        writeln!(out, "          {DIM}calls    {hidden} before these{DIM:#}")?;
    }
    for (nth, exchange) in exchanges.iter().enumerate().skip(hidden) {
        let head = if nth == 0 { "calls" } else { "" };
        let request = short(&exchange.request);
        let (style, answer) = match &exchange.answer {
            Ok(answer) => (GOOD, format!("OK {}", short(answer))),
            Err((code, text)) => (WARN, format!("{} {text}", spell(*code))),
        };
        writeln!(
            out,
            "          {DIM}{head:<7}  {} {}{DIM:#}",
            exchange.method,
            cut(&request, 94 - exchange.method.len())
        )?;
        writeln!(
            out,
            "          {DIM}         → {DIM:#}{style}{}{style:#}",
            cut(&answer, 96)
        )?;
    }
    Ok(())
}

fn short(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => String::new(),
        value => value.to_string(),
    }
}

fn cut(text: &str, most: usize) -> String {
    let text = text.replace(['\n', '\r'], " ");
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn took(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1e3;
    if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.1} s", ms / 1e3)
    }
}

pub(super) fn outcome(verdict: &Verdict) -> &'static str {
    ["held", "broken", "should", "not-applicable", "not-judged"][column(verdict)]
}

fn as_json(finding: &Finding, verbose: bool) -> Value {
    let call = |one: &Exchange| {
        let answer = match &one.answer {
            Ok(answer) => json!({"code": "OK", "message": answer}),
            Err((code, text)) => json!({"code": spell(*code), "text": text}),
        };
        json!({"at_ms": one.at.as_secs_f64() * 1e3, "method": one.method, "request": one.request, "answer": answer})
    };
    let shown = verbose || !matches!(finding.verdict, Verdict::Held | Verdict::NotApplicable(_));
    let calls: Vec<Value> = finding.exchanges.iter().filter(|_| shown).map(call).collect();
    json!({
        "type": "check", "schema": SCHEMA, "name": finding.check.name, "service": finding.check.service.title(), "weight": weight(finding.check),
        "obligation": finding.check.obligation, "source": finding.check.source, "outcome": outcome(&finding.verdict),
        "text": said(&finding.verdict), "took_ms": finding.took.as_secs_f64() * 1e3, "calls": calls,
    })
}

fn counted(report: &Report) -> Value {
    let of = |wanted: usize| {
        report
            .findings
            .iter()
            .filter(|one| column(&one.verdict) == wanted)
            .count()
    };
    json!({
        "type": "summary", "schema": SCHEMA, "driver": report.profile.name, "version": report.profile.version, "checks": report.findings.len(),
        "held": of(0), "broken": of(1), "should": of(2), "not_applicable": of(3), "not_judged": of(4),
    })
}

/// Prints the checks with their sources.
pub(super) fn list(format: Format, checks: &[&Check], out: &mut dyn Write) -> io::Result<()> {
    let mut group = None;
    for check in checks {
        if format == Format::Json {
            let line = json!({
                "type": "check", "schema": SCHEMA, "name": check.name, "service": check.service.title(), "weight": weight(check),
                "obligation": check.obligation, "source": check.source, "needs": check.needs.iter().map(|need| format!("{need:?}")).collect::<Vec<_>>(),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        if group != Some(check.service) {
            let gap = if group.is_some() { "\n" } else { "" };
            writeln!(out, "{gap}{BOLD}{}{BOLD:#}", check.service.title())?;
            group = Some(check.service);
        }
        writeln!(out, "  {BOLD}{}{BOLD:#} {DIM}{}{DIM:#}", check.name, weight(check))?;
        writeln!(out, "      {}", check.obligation)?;
        writeln!(out, "      {DIM}{}{DIM:#}", check.source)?;
    }
    if format == Format::Text {
        writeln!(out, "\n{} checks", checks.len())?;
    }
    Ok(())
}
