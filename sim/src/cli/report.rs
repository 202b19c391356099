//! What the command prints of runs: traces, verdicts, lines, a summary.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::args::{RunArgs, RunFormat};
use super::found::not_judged;
use super::told;
use crate::explore::story;
use crate::oracles::Violation;
use crate::play::{Aftermath, Verdict, worst};
use crate::trace::{self, Token, Trace, VERSION, json::SCHEMA, text::cut};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// What came of one run, rendered as far as it will be printed.
pub(super) struct Outcome {
    /// The scenario's name.
    pub name: String,
    /// Its file.
    pub file: Option<String>,
    /// The seed.
    pub seed: u64,
    /// What repeats it.
    pub token: Token,
    /// Whether it held.
    pub verdict: Verdict,
    /// What must be seen sometimes, and whether it was.
    pub sometimes: Vec<(String, bool)>,
    /// The promises that were broken.
    pub violations: Vec<Told>,
    /// Virtual time that passed.
    pub took: Duration,
    /// The digest of its trace, if asked for.
    pub digest: Option<String>,
    /// The rendered trace, if asked for.
    pub trace: Vec<u8>,
    /// What the user says to have the same driver and nodes, a space before each word.
    pub around: String,
    /// What no oracle could judge: promises, and what of them.
    pub unseen: Vec<(&'static str, &'static str)>,
    /// What remains of a run around an outside driver.
    pub aftermath: Aftermath,
    /// What its scenario is for.
    pub because: String,
    /// What is drawn of it, if a report is wanted.
    pub drawn: Option<Box<super::album::Drawn>>,
    /// The file for Perfetto, if it is wanted.
    pub perfetto: Option<Vec<u8>>,
    /// Objects that were to be followed and never met, and what was probably meant.
    pub strangers: Vec<(String, Option<String>)>,
}

/// A broken promise, and the lines around it as they will be printed.
pub(super) struct Told {
    /// What was broken.
    pub violation: Violation,
    /// The lines around it.
    pub story: Vec<u8>,
}

impl Told {
    /// A violation with its story.
    pub fn of(violation: Violation, trace: &Trace) -> Told {
        let follow = violation
            .objects
            .iter()
            .filter_map(|object| object.replacen(' ', "/", 1).parse().ok());
        let mut story = Vec::new();
        trace::text::around(&mut story, trace, violation.record, &follow.collect::<Vec<_>>())
            .expect("memory takes every byte");
        Told { violation, story }
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let Violation {
            promise,
            text,
            objects,
            blame,
            source,
            ..
        } = &self.violation;
        writeln!(
            out,
            "  {BAD}broken{BAD:#} {BOLD}{}{BOLD:#}: {}",
            promise.name, promise.says
        )?;
        writeln!(out, "    {}", cut(text))?;
        writeln!(out, "    objects: {}", objects.join(", "))?;
        writeln!(out, "    blame: {blame} ({source})")?;
        out.write_all(&self.story)
    }

    fn json(&self) -> serde_json::Value {
        let violation = &self.violation;
        json!({
            "promise": violation.promise.name, "season": violation.promise.season, "text": violation.text, "objects": violation.objects,
            "record": violation.record, "blame": violation.blame, "source": violation.source,
        })
    }
}

/// Prints outcomes as they come, in order, and remembers what the summary needs.
pub(super) struct Printer {
    format: RunFormat,
    suite: told::Suite,
    quiet: bool,
    runs: usize,
    seeds: bool,
    width: usize,
    statuses: BTreeMap<u8, usize>,
    failed: Vec<Outcome>,
    /// What must be seen sometimes, by scenario, and whether a run has seen it.
    sometimes: BTreeMap<(String, String), bool>,
    /// How many scenarios do not apply to the driver.
    not_applicable: usize,
    /// What no oracle could judge: promises, and what of them.
    unseen: Vec<(&'static str, &'static str)>,
    /// How many runs never met an object that was to be followed.
    strangers: BTreeMap<String, (usize, Option<String>)>,
}

impl Printer {
    /// A printer for so many runs of scenarios with these names.
    pub fn new<'a>(args: &RunArgs, runs: usize, names: impl Iterator<Item = &'a str>) -> Printer {
        Printer {
            format: args.format,
            suite: told::Suite::default(),
            quiet: args.quiet,
            runs,
            seeds: args.seeds.is_some(),
            width: names.map(|name| name.chars().count()).max().unwrap_or(0).min(60),
            statuses: BTreeMap::new(),
            failed: Vec::new(),
            sometimes: BTreeMap::new(),
            not_applicable: 0,
            unseen: Vec::new(),
            strangers: BTreeMap::new(),
        }
    }

    /// Prints one outcome.
    pub fn outcome(&mut self, out: &mut dyn Write, outcome: Outcome) -> io::Result<()> {
        *self.statuses.entry(outcome.verdict.status()).or_default() += 1;
        for (what, seen) in &outcome.sometimes {
            *self.sometimes.entry((outcome.name.clone(), what.clone())).or_default() |= seen;
        }
        let applies = !matches!(outcome.verdict, Verdict::NotApplicable(_));
        self.not_applicable += usize::from(!applies);
        if applies {
            self.unseen.clone_from(&outcome.unseen);
        }
        for (stranger, near) in &outcome.strangers {
            let entry = self.strangers.entry(stranger.clone()).or_insert((0, near.clone()));
            entry.0 += 1;
        }
        match self.format {
            RunFormat::Json => json_run(out, &outcome)?,
            RunFormat::Github => told::github(out, &outcome)?,
            RunFormat::Junit => self.suite.add(&outcome),
            RunFormat::Text if self.quiet && outcome.verdict.held() => {}
            RunFormat::Text if self.runs == 1 => one(out, &outcome)?,
            RunFormat::Text => self.one_of_many(out, &outcome)?,
        }
        if applies && !outcome.verdict.held() && self.runs > 1 {
            self.failed.push(Outcome {
                trace: Vec::new(),
                drawn: None,
                ..outcome
            });
        }
        Ok(())
    }

    fn one_of_many(&self, out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
        if !outcome.trace.is_empty() {
            writeln!(out, "{BOLD}{}{BOLD:#} seed {}", outcome.name, outcome.seed)?;
            out.write_all(&outcome.trace)?;
        }
        let (style, word) = word(&outcome.verdict);
        let width = self.width;
        write!(out, "{style}{word:<6}{style:#}  {:<width$}", outcome.name)?;
        if self.seeds {
            write!(out, "  seed {:<4}", outcome.seed)?;
        }
        if let Verdict::NotApplicable(reasons) = &outcome.verdict {
            return writeln!(out, "  {DIM}{}{DIM:#}", reasons.join("; "));
        }
        write!(out, "  {:>11}", seconds(outcome.took))?;
        if let Some(digest) = &outcome.digest {
            write!(out, "  {digest}")?;
        }
        writeln!(out)?;
        if !outcome.trace.is_empty() {
            writeln!(out)?;
        }
        Ok(())
    }

    /// Prints what failed and how to see it again, and how many held. Nothing for a single run, whose verdict says it all.
    pub fn summary(&self, out: &mut dyn Write, interrupted: bool) -> io::Result<()> {
        let done: usize = self.statuses.values().sum();
        if self.format == RunFormat::Json {
            let of = |status| self.ended(status);
            let line = json!({
                "type": "summary", "runs": self.runs, "done": done, "held": self.held(), "failed": of(1),
                "unsafe": of(2), "restless": of(3), "not_judged": of(5), "not_applicable": self.not_applicable, "broken": of(70),
                "interrupted": interrupted,
            });
            return writeln!(out, "{line}");
        }
        if self.format == RunFormat::Junit {
            return writeln!(out, "{}", self.suite.xml());
        }
        if self.format == RunFormat::Github {
            let text = format!("{} of {} {} held", self.held(), self.runs, plural(self.runs, "run"));
            return writeln!(out, "::notice title=wavetank run::{text}");
        }
        if self.runs == 1 {
            return match interrupted {
                true => writeln!(out, "{BAD}interrupted{BAD:#}"),
                false => Ok(()),
            };
        }
        for outcome in &self.failed {
            let (style, word) = word(&outcome.verdict);
            writeln!(out)?;
            writeln!(
                out,
                "{style}{word}{style:#} {BOLD}{}{BOLD:#} {DIM}seed {}{DIM:#}",
                outcome.name, outcome.seed
            )?;
            details(out, outcome)?;
        }
        self.counts(out, done, interrupted)?;
        if self.quiet {
            return Ok(());
        }
        not_judged(out, self.unseen.iter().copied())
    }

    /// How many runs ended with this status.
    fn ended(&self, status: u8) -> usize {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// How many runs held. What does not apply ends with 0, too.
    fn held(&self) -> usize {
        self.ended(0) - self.not_applicable
    }

    fn counts(&self, out: &mut dyn Write, done: usize, interrupted: bool) -> io::Result<()> {
        if self.quiet && self.ended(0) == self.runs {
            return Ok(());
        }
        let (held, broken) = (self.held(), self.ended(70));
        let (safety, calm, hung) = (self.ended(2), self.ended(3), self.ended(5));
        let failed = done - held - broken - safety - calm - hung - self.not_applicable;
        writeln!(out)?;
        write!(
            out,
            "{} {}: {GOOD}{held} held{GOOD:#}",
            self.runs,
            plural(self.runs, "run")
        )?;
        if self.not_applicable > 0 {
            write!(
                out,
                ", {DIM}{} not applicable to this driver{DIM:#}",
                self.not_applicable
            )?;
        }
        for (count, word) in [
            (failed, "failed"),
            (safety, "broke a promise of safety"),
            (calm, "broke a promise of the calm"),
            (hung, "not judged"),
            (broken, "stopped by a bug of wavetank"),
        ] {
            if count > 0 {
                write!(out, ", {BAD}{count} {word}{BAD:#}")?;
            }
        }
        if interrupted {
            write!(out, ", {BAD}interrupted{BAD:#} with {} to go", self.runs - done)?;
        }
        writeln!(out)
    }

    /// Says which objects no run has met. `true` if there are any.
    pub fn strangers(&self, err: &mut dyn Write) -> io::Result<bool> {
        let done: usize = self.statuses.values().sum();
        let mut any = false;
        for (stranger, (count, near)) in self.strangers.iter().filter(|(_, (count, _))| *count == done) {
            any = *count > 0;
            write!(err, "wavetank: nothing that happened concerns {stranger}")?;
            match near {
                Some(near) => writeln!(err, "; did you mean `{near}`?")?,
                None => writeln!(err)?,
            }
        }
        Ok(any)
    }

    /// What was to be seen sometimes, and never was: scenario and condition.
    pub fn never(&self) -> impl Iterator<Item = (&str, &str)> {
        let never = self.sometimes.iter().filter(|(_, seen)| !**seen);
        never.map(|((scenario, what), _)| (scenario.as_str(), what.as_str()))
    }

    /// The exit status over all runs.
    pub fn status(&self) -> u8 {
        let never = self.never().map(|_| 1).take(1);
        let done: usize = self.statuses.values().sum();
        match worst(self.statuses.keys().copied().chain(never)) {
            // Nothing was judged.
            0 if done > 0 && self.not_applicable == done => 5,
            status => status,
        }
    }
}

/// A single run: its trace, and the verdict below it.
fn one(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    if !outcome.trace.is_empty() {
        writeln!(out, "{BOLD}{}{BOLD:#} {DIM}seed {}{DIM:#}", outcome.name, outcome.seed)?;
        out.write_all(&outcome.trace)?;
        writeln!(out)?;
    }
    let (style, word) = word(&outcome.verdict);
    let took = seconds(outcome.took);
    if let Verdict::NotApplicable(_) = outcome.verdict {
        writeln!(out, "{BOLD}{}{BOLD:#} does not apply to this driver:", outcome.name)?;
        return details(out, outcome);
    }
    writeln!(
        out,
        "{style}{word}{style:#} {BOLD}{}{BOLD:#} after {took}",
        outcome.name
    )?;
    details(out, outcome)?;
    not_judged(out, outcome.unseen.iter().copied())
}

/// What was not as it should be, and how to see it again, without colours.
pub(super) fn plain(outcome: &Outcome) -> String {
    let mut text = Vec::new();
    details(&mut text, outcome).expect("memory takes every line");
    story::plain(&String::from_utf8_lossy(&text)).trim().to_owned()
}

/// What was not as it should be, and how to see it again.
fn details(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    for told in &outcome.violations {
        told.print(out)?;
    }
    for failure in outcome.verdict.failures() {
        writeln!(out, "  {}", cut(&failure.to_string()))?;
    }
    if let Verdict::NotJudged(why) = &outcome.verdict {
        writeln!(out, "  not judged: {}", cut(why))?;
    }
    if let Verdict::NotApplicable(reasons) = &outcome.verdict {
        for reason in reasons {
            writeln!(out, "  {}", cut(reason))?;
        }
        return Ok(());
    }
    if let Verdict::Broken(message) = &outcome.verdict {
        writeln!(out, "  wavetank itself failed: {message}")?;
        writeln!(
            out,
            "  This is a bug of wavetank, unless a driver of your own panicked. Please report it with the scenario and the token."
        )?;
    }
    for text in &outcome.aftermath.unrepeatable {
        writeln!(out, "  may differ when repeated: {text}")?;
    }
    for text in &outcome.aftermath.broken {
        writeln!(out, "  {}", cut(text))?;
    }
    for (node, log) in &outcome.aftermath.logs {
        writeln!(out, "  output of the driver ({node}): {}", log.display())?;
    }
    if let (false, Some(again)) = (outcome.verdict.held(), again(outcome)) {
        writeln!(out, "  again: {again}")?;
    }
    writeln!(out, "{DIM}  token: {}{DIM:#}", outcome.token)?;
    match &outcome.digest {
        Some(digest) => writeln!(out, "{DIM}  digest: {digest}{DIM:#}"),
        None => Ok(()),
    }
}

/// The command that plays it again, if its scenario is a file.
pub(super) fn again(outcome: &Outcome) -> Option<String> {
    let (file, token) = (quoted(outcome.file.as_ref()?), &outcome.token);
    let around = &outcome.around;
    Some(match (&token.storm, &token.mutant) {
        (None, None) => format!("wavetank run {file} --seed {}{around}", outcome.seed),
        _ => format!("wavetank run {file} --token {token}{around}"),
    })
}

fn json_run(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    let head = json!({
        "type": "run", "schema": SCHEMA, "version": VERSION, "scenario": outcome.name, "file": outcome.file,
        "seed": outcome.seed, "token": outcome.token.to_string(),
    });
    writeln!(out, "{head}")?;
    out.write_all(&outcome.trace)?;
    let failures = outcome.verdict.failures().iter();
    let mut failures: Vec<_> = failures
        .map(|f| json!({"place": f.place, "message": f.message}))
        .collect();
    let word = match &outcome.verdict {
        Verdict::Held => "held",
        Verdict::Failed(_) => "failed",
        Verdict::Unsafe(_) => "unsafe",
        Verdict::Restless(_) => "restless",
        Verdict::Broken(message) => {
            failures.push(json!({"place": null, "message": message}));
            "broken"
        }
        Verdict::NotJudged(why) => {
            failures.push(json!({"place": null, "message": why}));
            "not judged"
        }
        Verdict::NotApplicable(reasons) => {
            failures.extend(reasons.iter().map(|reason| json!({"place": null, "message": reason})));
            "not applicable"
        }
    };
    let violations: Vec<_> = outcome.violations.iter().map(Told::json).collect();
    let verdict = json!({
        "type": "verdict", "scenario": outcome.name, "seed": outcome.seed, "verdict": word, "status": outcome.verdict.status(),
        "t_ms": outcome.took.as_secs_f64() * 1e3, "failures": failures, "violations": violations, "not_judged": outcome.unseen,
        "digest": outcome.digest,
    });
    writeln!(out, "{verdict}")
}

fn word(verdict: &Verdict) -> (Style, &'static str) {
    match verdict {
        Verdict::Held => (GOOD, "held"),
        Verdict::Failed(_) => (BAD, "FAILED"),
        Verdict::Unsafe(_) => (BAD, "UNSAFE"),
        Verdict::Restless(_) => (BAD, "UNREST"),
        Verdict::NotJudged(_) => (BAD, "hung"),
        Verdict::NotApplicable(_) => (DIM, "n/a"),
        Verdict::Broken(_) => (BAD, "BUG"),
    }
}

pub(super) fn seconds(took: Duration) -> String {
    format!("{}.{:03} s", took.as_secs(), took.subsec_millis())
}

pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@,".contains(c);
    if !path.is_empty() && !path.starts_with('-') && path.chars().all(plain) {
        return path.to_owned();
    }
    let path = if path.starts_with('-') {
        format!("./{path}")
    } else {
        path.to_owned()
    };
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn paths_survive_a_shell() {
        assert_eq!(quoted("scenarios/a-b_c.yaml"), "scenarios/a-b_c.yaml");
        assert_eq!(quoted("my scenarios/it's.yaml"), r"'my scenarios/it'\''s.yaml'");
        assert_eq!(quoted("-x"), "'./-x'");
    }
}
