//! How reports of campaigns are printed: text, JSON lines, GitHub annotations, JUnit; and what is written into a folder.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde_json::json;

use super::report::{plural, quoted};
use crate::explore::report::{Elsewhere, Found, Report, ScenarioReport, ShrunkReport};
use crate::explore::story;
use crate::explore::{Coverage, subject};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default();

/// How many lines of what was never reached are printed.
const NEVER: usize = 20;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FoundFormat {
    /// For people.
    Text,
    /// For machines: one JSON object in a line.
    Json,
    /// Annotations of a GitHub workflow.
    Github,
    /// JUnit XML.
    Junit,
}

/// A report to be printed.
pub(super) struct Printed<'a> {
    report: &'a Report,
    verbose: bool,
}

impl<'a> Printed<'a> {
    /// This report; with `verbose` also what was never reached.
    pub fn new(report: &'a Report, verbose: bool) -> Printed<'a> {
        Printed { report, verbose }
    }

    /// Prints it.
    pub fn print(&self, format: FoundFormat, out: &mut dyn Write) -> io::Result<()> {
        match format {
            FoundFormat::Text => self.text(out),
            FoundFormat::Json => self.json(out),
            FoundFormat::Github => self.github(out),
            FoundFormat::Junit => writeln!(out, "{}", junit(self.report)),
        }
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let names = self.report.scenarios.iter().map(|s| s.name.chars().count());
        let width = names.max().unwrap_or(0).min(60);
        for scenario in &self.report.scenarios {
            line(out, scenario, width)?;
        }
        if let Some(driver) = &self.report.driver {
            elsewhere(out, driver, width)?;
        }
        let mut told = Vec::new();
        for (scenario, found) in self.report.violations() {
            let first = !told.contains(&&found.finding.promise);
            told.push(&found.finding.promise);
            if first || found.shrunk.is_some() {
                violation(out, scenario, found, self.around())?;
            }
        }
        for (scenario, what) in self.report.never() {
            writeln!(out)?;
            writeln!(out, "{BAD}NEVER SEEN{BAD:#} in {}: {what}", scenario.name)?;
        }
        let mut coverage = Coverage::default();
        self.report.scenarios.iter().for_each(|s| coverage.merge(&s.coverage));
        writeln!(out)?;
        writeln!(out, "{DIM}coverage: {}{DIM:#}", coverage.line())?;
        if self.verbose {
            never(out, "never struck", coverage.never_struck().map(str::to_owned))?;
            never(out, "never seen", coverage.never_seen().into_iter())?;
        }
        for shard in self.report.missing().iter().take(NEVER) {
            if self.report.shards.len() > 1 {
                writeln!(out, "{WARN}shard {shard} is missing{WARN:#}")?;
            }
        }
        self.summary(out)
    }

    /// What the user says to have the driver outside.
    fn around(&self) -> &'a str {
        around(self.report)
    }

    fn summary(&self, out: &mut dyn Write) -> io::Result<()> {
        let report = self.report;
        let of = |status| {
            report
                .scenarios
                .iter()
                .filter_map(|s| s.statuses.get(&status))
                .sum::<u64>()
        };
        let clean = of(0);
        let (runs, scenarios) = (report.runs(), report.scenarios.len());
        write!(
            out,
            "{runs} {} of {scenarios} {}: {GOOD}{clean} clean{GOOD:#}",
            if runs == 1 { "storm" } else { "storms" },
            plural(scenarios, "scenario")
        )?;
        let kinds = [
            (2, "broke safety"),
            (3, "broke the calm"),
            (4, "differed when played again"),
            (1, "broke an expectation"),
            (5, "not judged"),
            (70, "stopped by a bug of wavetank"),
        ];
        for (status, word) in kinds {
            match of(status) {
                0 => {}
                count => write!(out, ", {BAD}{count} {word}{BAD:#}")?,
            }
        }
        if report.interrupted {
            write!(out, ", {WARN}ended early{WARN:#}")?;
        }
        writeln!(out)
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let report = self.report;
        let head = json!({
            "type": "campaign", "schema": report.schema, "version": report.version, "strategy": report.strategy,
            "mutant": report.mutant, "seeds": report.seeds, "shards": report.shards, "driver": report.driver,
        });
        writeln!(out, "{head}")?;
        for scenario in &report.scenarios {
            let coverage = &scenario.coverage;
            let line = json!({
                "type": "scenario", "scenario": scenario.name, "file": scenario.file, "digest": scenario.digest, "runs": scenario.runs,
                "exhausted": scenario.exhausted, "statuses": scenario.statuses, "broken": scenario.broken, "sometimes": scenario.sometimes,
                "coverage": {
                    "sites": coverage.sites.len(), "offered": coverage.offered.len(), "struck": coverage.struck.len(),
                    "moments": coverage.moments.len(), "transitions": coverage.transitions, "neverSeen": coverage.never_seen(),
                    "neverStruck": coverage.never_struck().collect::<Vec<_>>(),
                },
                "growth": scenario.growth,
            });
            writeln!(out, "{line}")?;
            for found in &scenario.violations {
                let mut line = serde_json::to_value(found).map_err(io::Error::other)?;
                line["type"] = "violation".into();
                line["scenario"] = scenario.name.as_str().into();
                writeln!(out, "{line}")?;
            }
        }
        let summary = json!({
            "type": "summary", "runs": report.runs(), "status": report.status(), "interrupted": report.interrupted,
            "missing": report.missing(),
        });
        writeln!(out, "{summary}")
    }

    fn github(&self, out: &mut dyn Write) -> io::Result<()> {
        for (scenario, found) in self.report.violations() {
            let text = plain_violation(scenario, found, self.around());
            let title = format!("{} is broken in {}", found.finding.promise, scenario.name);
            annotation(out, scenario.file.as_deref(), &title, &text)?;
        }
        for (scenario, what) in self.report.never() {
            annotation(
                out,
                scenario.file.as_deref(),
                &format!("never seen in {}", scenario.name),
                what,
            )?;
        }
        let mut line = Vec::new();
        self.summary(&mut line)?;
        let line = story::plain(&String::from_utf8_lossy(&line));
        writeln!(
            out,
            "::notice title=wavetank explore::{}",
            escape(line.trim_end(), false)
        )
    }
}

/// An error as GitHub's workflow commands take it.
pub(super) fn annotation(out: &mut dyn Write, file: Option<&str>, title: &str, text: &str) -> io::Result<()> {
    let file = file.map(|file| format!("file={},", escape(file, true)));
    let (title, text) = (escape(title, true), escape(text, false));
    writeln!(out, "::error {}title={title}::{text}", file.unwrap_or_default())
}

/// Text as GitHub's workflow commands take it.
fn escape(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property {
        text.replace(':', "%3A").replace(',', "%2C")
    } else {
        text
    }
}

fn line(out: &mut dyn Write, scenario: &ScenarioReport, width: usize) -> io::Result<()> {
    let runs = format!(
        "{} {}",
        scenario.runs,
        if scenario.runs == 1 { "storm" } else { "storms" }
    );
    if scenario.broken.is_empty() {
        write!(out, "{GOOD}clean {GOOD:#}  {:<width$}  {runs:>14}", scenario.name)?;
    } else {
        write!(out, "{BAD}BROKEN{BAD:#}  {:<width$}  {runs:>14}", scenario.name)?;
        let broken: Vec<String> = scenario.broken.iter().map(|(p, n)| format!("{p} in {n}")).collect();
        write!(out, "  {}", broken.join(", "))?;
    }
    if scenario.coverage.offered.is_empty() && scenario.runs > 0 {
        write!(out, "  {WARN}nothing can strike here{WARN:#}")?;
    } else if scenario.exhausted {
        write!(out, "  {DIM}that is all{DIM:#}")?;
    }
    writeln!(out)
}

/// What a driver outside could not be put to, and what of it nobody saw.
fn elsewhere(out: &mut dyn Write, driver: &Elsewhere, width: usize) -> io::Result<()> {
    for (name, reasons) in &driver.not_applicable {
        writeln!(out, "{DIM}n/a     {name:<width$}  {}{DIM:#}", reasons.join("; "))?;
    }
    writeln!(out)?;
    for limit in &driver.limits {
        writeln!(out, "{DIM}{}: {limit}{DIM:#}", driver.link)?;
    }
    not_judged(
        out,
        driver
            .unseen
            .iter()
            .map(|(promise, what)| (promise.as_str(), what.as_str())),
    )
}

/// What no oracle could judge.
pub(super) fn not_judged<'a>(out: &mut dyn Write, unseen: impl Iterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    for (promise, what) in unseen {
        writeln!(out, "{DIM}not judged: {promise}: {what}{DIM:#}")?;
    }
    Ok(())
}

fn never(out: &mut dyn Write, what: &str, items: impl Iterator<Item = String>) -> io::Result<()> {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "{DIM}{what}, {}:{DIM:#}", items.len())?;
    for item in items.iter().take(NEVER) {
        writeln!(out, "{DIM}  {item}{DIM:#}")?;
    }
    match items.len().saturating_sub(NEVER) {
        0 => Ok(()),
        more => writeln!(out, "{DIM}  … and {more} more (--format json has all){DIM:#}"),
    }
}

/// A violation as it is told.
fn violation(out: &mut dyn Write, scenario: &ScenarioReport, found: &Found, driver: &str) -> io::Result<()> {
    writeln!(out)?;
    write!(out, "{}", story::headline(&found.finding))?;
    writeln!(
        out,
        "  {DIM}found in {}, run {}, by {}, with {} {}{DIM:#}",
        scenario.name,
        found.run,
        found.by,
        found.strikes.len(),
        plural(found.strikes.len(), "strike")
    )?;
    match &found.shrunk {
        Some(shrunk) => small(out, shrunk)?,
        None => write!(out, "{}", story::strikes(&found.strikes))?,
    }
    for text in &found.unrepeatable {
        writeln!(out, "  {WARN}may differ when repeated: {text}{WARN:#}")?;
    }
    for log in &found.output {
        writeln!(out, "  output of the driver: {log}")?;
    }
    again(out, scenario, found, driver)
}

fn small(out: &mut dyn Write, shrunk: &ShrunkReport) -> io::Result<()> {
    writeln!(out)?;
    write!(out, "{}", shrunk.story.text())?;
    writeln!(out)?;
    let count = |n: usize, word: &str| format!("{n} {}", plural(n, word));
    if shrunk.cut_short {
        writeln!(out, "  {WARN}there was no time to shrink it to the end{WARN:#}")?;
    }
    if shrunk.cut_short && shrunk.plays == 0 {
        // Whether it comes again is not known.
    } else if shrunk.repeats {
        writeln!(
            out,
            "  {BOLD}what it takes{BOLD:#}: {}, {}, {}, {} {DIM}(shrunk in {} plays){DIM:#}",
            count(shrunk.strikes.len(), "fault"),
            count(shrunk.steps, "step"),
            count(shrunk.objects, "object"),
            count(shrunk.nodes, "node"),
            shrunk.plays
        )?;
    } else {
        writeln!(
            out,
            "  {WARN}pinned by site the violation does not come again; the token repeats it{WARN:#}"
        )?;
    }
    for strike in story::strikes(&shrunk.strikes).lines() {
        writeln!(out, "  {strike}")?;
    }
    Ok(())
}

fn again(out: &mut dyn Write, scenario: &ScenarioReport, found: &Found, driver: &str) -> io::Result<()> {
    if let Some(file) = found.shrunk.as_ref().and_then(|shrunk| shrunk.file.as_ref()) {
        writeln!(out, "  {BOLD}again:{BOLD:#} wavetank replay {}{driver}", quoted(file))?;
    } else if let Some(file) = &scenario.file {
        writeln!(
            out,
            "  {BOLD}again:{BOLD:#} wavetank run {} --token {}{driver}",
            quoted(file),
            found.token
        )?;
    }
    writeln!(out, "{DIM}  token: {}{DIM:#}", found.token)
}

/// What the user says to have the driver outside.
fn around(report: &Report) -> &str {
    report.driver.as_ref().map_or("", |driver| driver.arguments.as_str())
}

fn plain_violation(scenario: &ScenarioReport, found: &Found, driver: &str) -> String {
    let mut text = Vec::new();
    violation(&mut text, scenario, found, driver).expect("memory takes every line");
    story::plain(&String::from_utf8_lossy(&text)).trim().to_owned()
}

/// The report as JUnit: a test case for each scenario, failed if a promise was broken.
fn junit(report: &Report) -> String {
    let mut suite = TestSuite::new("wavetank explore");
    for scenario in &report.scenarios {
        let mut status = TestCaseStatus::success();
        if let Some(first) = scenario.violations.first() {
            let bug = first.finding.promise == subject::NO_PANIC;
            status = TestCaseStatus::non_success(if bug {
                NonSuccessKind::Error
            } else {
                NonSuccessKind::Failure
            });
            let all: Vec<String> = scenario
                .violations
                .iter()
                .map(|f| plain_violation(scenario, f, around(report)))
                .collect();
            status
                .set_type(first.finding.promise.as_str())
                .set_message(first.finding.text.as_str())
                .set_description(all.join("\n\n"));
        } else if let Some((_, what)) = report.never().find(|(of, _)| of.name == scenario.name) {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type("sometimes").set_message(format!("never seen: {what}"));
        }
        let mut case = TestCase::new(scenario.name.as_str(), status);
        case.set_classname("wavetank.explore");
        case.set_system_out(format!("{} storms; {}", scenario.runs, scenario.coverage.line()));
        suite.add_test_case(case);
    }
    let mut junit = quick_junit::Report::new("wavetank");
    junit.add_test_suite(suite);
    junit.to_string().unwrap_or_else(|error| format!("<!-- {error} -->"))
}

/// What a folder gets.
pub(super) mod write_out {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;

    use super::super::{Stop, Streams, USAGE};
    use super::junit;
    use crate::explore::replay::ENDING;
    use crate::explore::report::Report;

    /// Makes the folder.
    pub fn prepare(out: &Path, streams: &mut Streams) -> Result<(), Stop> {
        told(fs::create_dir_all(out), out, streams)
    }

    /// Writes `report.json`, `junit.xml` and a replay file for each violation that was shrunk, whose name the report learns.
    pub fn write(out: &Path, report: &mut Report, streams: &mut Streams) -> Result<(), Stop> {
        for scenario in &mut report.scenarios {
            let theme = scenario.name.replace('/', "-");
            for found in &mut scenario.violations {
                let promise = found.finding.promise.clone();
                let Some(shrunk) = &mut found.shrunk else { continue };
                let file = out.join(format!("{theme}-{promise}{ENDING}"));
                told(fs::write(&file, &shrunk.replay), &file, streams)?;
                shrunk.file = Some(file.display().to_string());
            }
        }
        let json = serde_json::to_string_pretty(&*report).expect("a report is plain data");
        for (name, text) in [("report.json", json + "\n"), ("junit.xml", junit(report) + "\n")] {
            let file = out.join(name);
            told(fs::write(&file, text), &file, streams)?;
        }
        Ok(())
    }

    fn told(done: std::io::Result<()>, path: &Path, streams: &mut Streams) -> Result<(), Stop> {
        if let Err(error) = done {
            writeln!(streams.err, "wavetank: {} cannot be written: {error}", path.display())?;
            return Err(Stop::Status(USAGE));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn annotations_stay_on_one_line() {
        assert_eq!(escape("a: 100%,\nb", false), "a: 100%25,%0Ab");
        assert_eq!(escape("a: b,c", true), "a%3A b%2Cc");
    }
}
