//! The `wavetank` command: reads arguments, plays scenarios, writes what came of it. The binary only calls [`main`].
//!
//! Standard output is a function of the arguments and the scenarios; what depends on the machine (progress, wall time) goes to standard error and only to
//! a terminal. A reader of the output that goes away ends it silently.

mod album;
mod args;
mod conform;
mod doctor;
mod draft;
mod driver;
mod explore;
mod found;
mod hunted;
mod interrupts;
mod merge;
mod mutants;
mod play;
mod progress;
mod replay;
mod report;
mod sites;
mod told;
mod vm;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anstream::AutoStream;
use clap::error::ErrorKind;
use clap::{ColorChoice, Parser as _};

use crate::link::{Factory, socket};
use crate::scenario::{self, Scenario, ScenarioError, nearest};
use args::{Args, Command, SchemaOf};

/// Exit status: wrong usage, or a scenario that cannot be read.
pub const USAGE: u8 = 64;
/// Exit status: a bug of wavetank.
pub const BUG: u8 = 70;
/// Exit status: interrupted from the keyboard.
pub const INTERRUPTED: u8 = 130;

/// Drivers by name that take the place of the reference driver.
pub type Drivers = BTreeMap<String, Factory>;

/// Where a command writes.
struct Streams {
    out: AutoStream<io::Stdout>,
    err: AutoStream<io::Stderr>,
    /// Whether standard error shows colours: for messages that are rendered elsewhere.
    colour: bool,
    /// The command as it was typed, without where its reports go.
    command: String,
}

/// Why a command ends before its end.
enum Stop {
    /// Something was wrong, and has been said.
    Status(u8),
    /// Standard output or error cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

/// Runs the command with these arguments, the program's name first, and gives its exit status. `drivers` play instead of the reference driver, by name.
pub fn main(args: impl IntoIterator<Item = OsString>, drivers: &Drivers) -> u8 {
    let words: Vec<OsString> = args.into_iter().collect();
    let command = typed(&words);
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let choice = match args.color {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    };
    let err = AutoStream::new(io::stderr(), choice);
    let mut streams = Streams {
        out: AutoStream::new(io::stdout(), choice),
        colour: err.current_choice() != anstream::ColorChoice::Never,
        err,
        command,
    };
    let done = match &args.command {
        Command::Run(args) => play::run(args, drivers, &mut streams),
        Command::Sites(args) => sites::sites(args, drivers, &mut streams),
        Command::Conform(args) => conform::conform(args, &mut streams),
        Command::Mutants(args) => mutants::mutants(args, &mut streams),
        Command::Explore(args) => explore::explore(args, drivers, &mut streams),
        Command::Replay(args) => replay::replay(args, drivers, &mut streams),
        Command::Merge(args) => merge::merge(args, drivers, &mut streams),
        Command::Schema(args) => {
            let schema = match args.of {
                SchemaOf::Scenario => scenario::schema(),
                SchemaOf::Driver => socket::schema(),
                SchemaOf::Replay => crate::explore::replay::schema(),
            };
            print(&mut streams, &format!("{schema:#}\n"))
        }
        Command::Driver(args) => driver::run(args, &mut streams),
        Command::Vm(args) => vm::run(args, &mut streams),
        Command::Doctor(args) => doctor::doctor(args, &mut streams),
        Command::Agent(args) => return wavetank_agent::main(args.words.iter().cloned(), &[driver::AGENT]),
        Command::Legend => print(&mut streams, crate::trace::LEGEND),
        Command::Oracles => print(&mut streams, &oracles()),
    };
    let done = done.and_then(|status| {
        streams.out.flush()?;
        Ok(status)
    });
    match done {
        Ok(status) | Err(Stop::Status(status)) => status,
        // Nobody reads any more: not an error of anybody.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(Stop::Output(error)) => {
            let _ = writeln!(streams.err, "wavetank: cannot write: {error}");
            74
        }
    }
}

/// The command as it was typed, without where its reports go: a report is the same wherever it lies.
fn typed(words: &[OsString]) -> String {
    let mut typed = vec!["wavetank".to_owned()];
    let mut words = words.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        match word.split_once('=').map_or(&*word, |(name, _)| name) {
            "--report" | "--perfetto" | "--out" | "--color" if !word.contains('=') => drop(words.next()),
            "--report" | "--perfetto" | "--out" | "--color" => {}
            name if name.starts_with('-') => typed.push(word.to_string()),
            _ => typed.push(report::quoted(&word)),
        }
    }
    typed.join(" ")
}

/// Whether the command can be called like this, the program's name first. For tests of what documents tell people to type; nothing is done.
///
/// # Errors
/// What the command would say.
pub fn understands(words: &[String]) -> Result<(), String> {
    Args::try_parse_from(words).map(drop).map_err(|error| error.to_string())
}

/// Every promise: its name, when it must hold, what it says, and what says so.
fn oracles() -> String {
    let mut page = String::from(
        "Every run is held to these promises (docs/oracles.md). Safety: at every moment. Calm: when all has settled.\n",
    );
    for promise in crate::oracles::promises() {
        let season = match promise.season {
            crate::oracles::Season::Safety => "safety",
            crate::oracles::Season::Calm => "calm",
        };
        page.push_str(&format!("\n{:<20} {season:<7} {}\n", promise.name, promise.says));
        page.push_str(&format!("{:28} source: {}\n", "", promise.source));
    }
    page
}

fn print(streams: &mut Streams, text: &str) -> Result<u8, Stop> {
    streams.out.write_all(text.as_bytes())?;
    Ok(0)
}

/// Says what clap has to say: help on standard output, mistakes on standard error.
fn refuse(error: &clap::Error) -> u8 {
    // A failure to print changes nothing about the status.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => USAGE,
    }
}

/// Reads the scenarios of several paths. The mistakes of all are told.
fn load_all(paths: &[PathBuf], streams: &mut Streams) -> Result<Vec<Scenario>, Stop> {
    let mut found = Vec::new();
    let mut failed = None;
    for path in paths {
        match load(path, streams) {
            Ok(scenarios) => found.extend(scenarios),
            Err(Stop::Status(status)) => failed = Some(status),
            Err(stop) => return Err(stop),
        }
    }
    match failed {
        Some(status) => Err(Stop::Status(status)),
        None => Ok(found),
    }
}

/// Reads the scenarios of a path, or says why not.
fn load(path: &Path, streams: &mut Streams) -> Result<Vec<Scenario>, Stop> {
    match scenario::load(path) {
        Ok(scenarios) => Ok(scenarios),
        Err(error) => {
            let text = error.render(width(), streams.colour);
            writeln!(streams.err, "{}", text.trim_end())?;
            if let Some(near) = elsewhere(path, &error) {
                writeln!(streams.err, "  help: did you mean `{near}`?")?;
            }
            Err(Stop::Status(USAGE))
        }
    }
}

/// The neighbour of a missing file that was probably meant.
fn elsewhere(path: &Path, error: &ScenarioError) -> Option<String> {
    let missing = matches!(error, ScenarioError::Read { cause, .. } if cause.kind() == io::ErrorKind::NotFound);
    if !missing || path.exists() {
        return None;
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(folder.map_or_else(|| near.to_owned(), |folder| folder.join(near).display().to_string()))
}

/// How wide messages may be.
fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(io::stderr());
    terminal.map_or(100, |(width, _)| usize::from(width.0)).clamp(40, 140)
}
