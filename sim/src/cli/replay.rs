//! `wavetank replay`: shows a violation again, from a replay file or from a token.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use clap::Args as ClapArgs;
use serde_json::json;

use super::args::{Format, RunArgs, mutant};
use super::draft::Draft;
use super::hunted::Replays;
use super::vm::NodesArgs;
use super::{Drivers, Stop, Streams, USAGE, driver, load, play};
use crate::explore::replay::{ENDING, ReplayFile};
use crate::explore::shrink::Case;
use crate::explore::story::{self, Story};
use crate::explore::subject::{NO_PANIC, Played, Run, Subject, Tank};
use crate::faults::Strike;
use crate::link::socket::Outside;
use crate::page;
use crate::play::worst;
use crate::scenario::Scenario;
use crate::trace::{TextOptions, Token, TokenError, text};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Where the scenario of a token is looked for when no path is given.
const LIBRARY: &str = "scenarios";

/// Show a violation again.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  wavetank replay found/expand-online-one-writer.replay.yaml      the violation, told
  wavetank replay snapshots/regressions/                          every replay file of a folder, a line each
  wavetank replay wavetank/0.1.0/4f1c09be22d0a7e5/7/storm=swarm:12+45.3 scenarios/expand/online.yaml

A replay file asserts a violation: exit status 0 says that it is there (and, if the file names a mutant, that the honest driver keeps the promise), 1 that it is gone.
A token repeats a run, and ends as the run does; its scenario is looked for in the paths, or in `scenarios`.")]
pub(super) struct ReplayArgs {
    /// Replay files, folders of them, or tokens with the paths of their scenarios.
    #[arg(required = true, value_name = "FILE|TOKEN")]
    pub what: Vec<String>,
    /// Play around a driver of your own that runs as processes behind sockets: its profile (docs/drivers.md).
    #[arg(long, value_name = "FILE")]
    pub driver: Option<PathBuf>,
    #[command(flatten)]
    pub on: NodesArgs,
    /// Print the whole trace.
    #[arg(long)]
    pub trace: bool,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Write a report as one HTML page: of replay files, or of one token (docs/report.md).
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// What the arguments name.
#[derive(Default)]
struct Wanted {
    files: Vec<PathBuf>,
    tokens: Vec<Token>,
    paths: Vec<PathBuf>,
}

/// Replays what the arguments name.
pub(super) fn replay(args: &ReplayArgs, drivers: &Drivers, streams: &mut Streams) -> Result<u8, Stop> {
    let wanted = match wanted(&args.what) {
        Ok(wanted) => wanted,
        Err(message) => {
            writeln!(streams.err, "wavetank: {message}")?;
            return Err(Stop::Status(USAGE));
        }
    };
    if args.report.is_some() && wanted.tokens.len() > usize::from(wanted.files.is_empty()) {
        let why = "a report is of replay files or of one token";
        writeln!(streams.err, "wavetank: {why}")?;
        return Err(Stop::Status(USAGE));
    }
    let mut statuses = Vec::new();
    let several = wanted.files.len() > 1;
    let outside = match wanted.files.is_empty() {
        true => None,
        false => driver::chosen(args.driver.as_deref(), &args.on, None, streams)?,
    };
    let draft = Draft::maybe(args.report.as_deref().filter(|_| wanted.tokens.is_empty()), streams)?;
    let mut page = draft.map(|draft| Replays::new(draft, args.on.again(args.driver.as_deref()), streams));
    for file in &wanted.files {
        let around = (drivers, outside.as_ref());
        statuses.push(one_file(file, several, args, around, &mut page, streams)?);
    }
    if let Some(outside) = outside {
        outside.tidy();
    }
    if let Some(page) = page {
        page.write(streams)?;
    }
    for token in &wanted.tokens {
        statuses.push(one_token(token, &wanted.paths, args, drivers, streams)?);
    }
    Ok(if statuses.contains(&USAGE) {
        USAGE
    } else {
        worst(statuses)
    })
}

fn wanted(what: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for text in what {
        let path = Path::new(text);
        if text.ends_with(ENDING) {
            wanted.files.push(path.to_owned());
        } else if text.starts_with("wavetank/") && !path.exists() {
            wanted
                .tokens
                .push(text.parse().map_err(|error: TokenError| error.to_string())?);
        } else {
            let found = replay_files(path);
            if found.is_empty() {
                wanted.paths.push(path.to_owned());
            }
            wanted.files.extend(found);
        }
    }
    if wanted.files.is_empty() && wanted.tokens.is_empty() {
        let first = what.first().map(String::as_str).unwrap_or_default();
        return Err(format!(
            "{first} is neither a token nor a replay file (`*{ENDING}`), nor a folder with one"
        ));
    }
    Ok(wanted)
}

/// The replay files of a folder, sorted.
fn replay_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(ENDING)).collect();
    files.sort();
    files
}

/// The drivers that are played with: those in the tank, or one outside.
type Around<'a> = (&'a Drivers, Option<&'a Arc<Outside>>);

/// What came of a replay file.
pub(super) struct Replayed {
    /// The file.
    pub file: ReplayFile,
    /// What its play came to.
    pub played: Played,
    /// Pinned strikes that never struck.
    pub unhit: Vec<Strike>,
    /// Whether the honest driver breaks the promise as well. Nothing if the file names no mutant.
    honest_breaks: Option<bool>,
}

impl Replayed {
    fn of(file: ReplayFile, case: Case, (drivers, outside): Around<'_>) -> Result<Replayed, String> {
        let tank = Tank {
            scenario: Arc::new(case.scenario.ok_or("there is no scenario in it")?),
            drivers: drivers.clone(),
            outside: outside.cloned(),
            mutant: file.mutant.as_deref().map(mutant).transpose()?,
        };
        let run = || Run {
            keep_trace: true,
            ..Run::pinned(case.seed, case.strikes.clone())
        };
        let played = tank.play(run(), &Arc::default());
        let honest = file.mutant.as_ref().and_then(|_| tank.with(&tank.scenario, true));
        let honest_breaks = honest.map(|honest| honest.play(run(), &Arc::default()).broke(&file.promise).is_some());
        let unhit = case.strikes.iter().filter(|strike| !played.struck.contains(strike));
        Ok(Replayed {
            unhit: unhit.cloned().collect(),
            file,
            played,
            honest_breaks,
        })
    }

    fn is_there(&self) -> bool {
        self.played.broke(&self.file.promise).is_some()
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        if self.file.promise != NO_PANIC && self.played.broke(NO_PANIC).is_some() {
            return 70;
        }
        u8::from(!self.is_there() || self.honest_breaks == Some(true))
    }

    /// What it came to, as a page has it.
    pub fn ending(&self) -> (page::Ending, String) {
        let ending = match self.status() {
            0 => page::THERE,
            70 => page::BUG,
            _ => page::GONE,
        };
        (ending, self.verdict().2)
    }

    /// What it came to, as a word and a sentence.
    fn verdict(&self) -> (Style, &'static str, String) {
        let ReplayFile { promise, mutant, .. } = &self.file;
        if let Some(panic) = self.played.broke(NO_PANIC).filter(|_| promise != NO_PANIC) {
            return (BAD, "BUG  ", format!("wavetank itself failed: {}", panic.text));
        }
        match (self.is_there(), mutant, self.honest_breaks) {
            (true, Some(mutant), Some(true)) => (
                BAD,
                "WRONG",
                format!("{promise} is broken without the mutant {mutant}, too"),
            ),
            (true, Some(mutant), _) => (
                GOOD,
                "there",
                format!("{promise} is broken by {mutant}, and not without it"),
            ),
            (true, None, _) => (GOOD, "there", format!("{promise} is broken")),
            (false, Some(mutant), _) => (
                BAD,
                "GONE ",
                format!("{promise} holds, although {mutant} is switched on"),
            ),
            (false, None, _) => (BAD, "GONE ", format!("{promise} holds")),
        }
    }
}

fn one_file(
    path: &Path,
    several: bool,
    args: &ReplayArgs,
    around: Around<'_>,
    page: &mut Option<Replays>,
    streams: &mut Streams,
) -> Result<u8, Stop> {
    let (file, case) = match ReplayFile::load(path) {
        Ok(read) => read,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            writeln!(streams.err, "wavetank: {error}{}", cause.unwrap_or_default())?;
            return Ok(USAGE);
        }
    };
    let replayed = match Replayed::of(file, case, around) {
        Ok(replayed) => replayed,
        Err(message) => {
            writeln!(streams.err, "wavetank: {}: {message}", path.display())?;
            return Ok(USAGE);
        }
    };
    let status = replayed.status();
    if let Some(page) = page {
        page.take(path, &replayed);
    }
    if args.format == Format::Json {
        json_line(path, &replayed, streams)?;
        return Ok(status);
    }
    let (style, word, sentence) = replayed.verdict();
    if !several {
        tell(&replayed, args.trace, streams)?;
    }
    writeln!(
        streams.out,
        "{style}{word}{style:#} {BOLD}{}{BOLD:#}: {sentence}",
        path.display()
    )?;
    for strike in &replayed.unhit {
        writeln!(streams.out, "  never struck: {strike}")?;
    }
    Ok(status)
}

/// The story of what was seen.
fn tell(replayed: &Replayed, trace: bool, streams: &mut Streams) -> Result<(), Stop> {
    let Some(report) = &replayed.played.report else {
        return Ok(());
    };
    if trace {
        text::write(&mut streams.out, &report.trace, &TextOptions::default())?;
        writeln!(streams.out)?;
    }
    let Some(finding) = replayed.played.broke(&replayed.file.promise) else {
        return Ok(());
    };
    write!(streams.out, "{}", story::headline(finding))?;
    writeln!(streams.out)?;
    write!(streams.out, "{}", Story::of(report, finding).text())?;
    writeln!(streams.out)?;
    Ok(())
}

fn json_line(path: &Path, replayed: &Replayed, streams: &mut Streams) -> Result<(), Stop> {
    let finding = replayed.played.broke(&replayed.file.promise);
    let story = finding.zip(replayed.played.report.as_ref());
    let line = json!({
        "type": "replay", "file": path.display().to_string(), "promise": replayed.file.promise, "mutant": replayed.file.mutant,
        "there": replayed.is_there(), "honestBreaks": replayed.honest_breaks, "status": replayed.status(), "violation": finding,
        "story": story.map(|(finding, report)| Story::of(report, finding)), "neverStruck": replayed.unhit,
    });
    writeln!(streams.out, "{line}")?;
    Ok(())
}

fn one_token(
    token: &Token,
    paths: &[PathBuf],
    args: &ReplayArgs,
    drivers: &Drivers,
    streams: &mut Streams,
) -> Result<u8, Stop> {
    let library = [PathBuf::from(LIBRARY)];
    let places = if paths.is_empty() { &library[..] } else { paths };
    let mut found: BTreeMap<PathBuf, Scenario> = BTreeMap::new();
    for place in places {
        let scenarios = load(place, streams)?
            .into_iter()
            .filter(|scenario| token.is_of(scenario));
        found.extend(scenarios.filter_map(|scenario| Some((PathBuf::from(scenario.places.file()?), scenario))));
    }
    let Some((file, _)) = found.into_iter().next() else {
        let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        writeln!(
            streams.err,
            "wavetank: no scenario in {} has the digest {} of the token: name its file, or it was changed since",
            looked.join(", "),
            token.scenario
        )?;
        return Ok(USAGE);
    };
    writeln!(streams.err, "{DIM}the token is of {}{DIM:#}", file.display())?;
    let again = RunArgs {
        driver: args.driver.clone(),
        on: args.on.clone(),
        ..RunArgs::of_token(file, token.clone(), args.format, args.report.clone())
    };
    play::run(&again, drivers, streams)
}
