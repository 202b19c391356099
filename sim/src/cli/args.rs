//! The command line.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ColorChoice, Parser, Subcommand, ValueEnum};

use super::explore::ExploreArgs;
use super::merge::MergeArgs;
use super::mutants::MutantsArgs;
use super::replay::ReplayArgs;
use super::vm::NodesArgs;
use crate::mutants::{self, Mutant};
use crate::scenario::nearest;
use crate::trace::{Follow, Token};

/// What `--help` says below the options.
const AFTER: &str = "\
Exit status: 0 everything held; 1 an expectation failed, or a pinned fault or something that must be seen sometimes was not reached; \
2 a promise of safety is broken; 3 one of the calm; 4 not deterministic; 5 not judged (a driver is missing or hangs, or no scenario applies to it); 64 usage or a scenario that cannot be read; \
70 a bug of wavetank; 130 interrupted. Over several runs the first present of 70, 2, 3, 4, 1, 5 wins.

The same scenario, seed and version give the same trace, byte for byte, on every machine.";

/// Plays Kubernetes storage scenarios around a real CSI driver, in virtual time, the same way every time.
#[derive(Debug, Parser)]
#[command(name = "wavetank", version, after_help = AFTER, arg_required_else_help = true, subcommand_required = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Whether output has colours. `auto`: in a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Play scenarios: one with its trace, several with a line each.
    Run(RunArgs),
    /// List the sites of a scenario: where a fault can be pinned (`strike: {at: …}`, `crash: {at: …}`).
    Sites(SitesArgs),
    /// Check a CSI driver against the specification: whichever it is, behind its socket.
    Conform(Box<super::conform::ConformArgs>),
    /// Look for the storm that breaks a promise: many runs with faults, shrunk to the few that matter.
    Explore(ExploreArgs),
    /// Hunt the known bugs that can be planted: does the tank notice each?
    Mutants(MutantsArgs),
    /// Show a violation again: from a replay file or from a token.
    Replay(ReplayArgs),
    /// Join the reports of the shards of a campaign.
    Merge(MergeArgs),
    /// Drivers of your own: ask one what it can do.
    Driver(super::driver::DriverArgs),
    /// Nodes as virtual machines with kernels of their own.
    Vm(super::vm::VmArgs),
    /// Say what this machine can run, and how to get the rest.
    Doctor(super::doctor::DoctorArgs),
    /// Print the JSON Schema of scenario files, replay files or driver profiles, for editors.
    Schema(SchemaArgs),
    /// Explain the signs of the trace.
    Legend,
    /// List the promises that every run is held to.
    Oracles,
    /// Be the agent of a real node. For wavetank itself.
    #[command(hide = true, disable_help_flag = true)]
    Agent(AgentArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct AgentArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}

/// Play scenarios: one with its trace, several with a line each.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  wavetank run scenarios/lifecycle/dynamic-immediate.yaml                      the whole trace
  wavetank run scenarios/lifecycle/dynamic-immediate.yaml --follow pvc/data    one claim's life
  wavetank run scenarios/                                                      the library, a line each
  wavetank run scenarios/ --seeds 100 --quiet                                  a hundred seeds, only what fails
  wavetank run scenarios/expand/ --report expand.html                          a page with verdicts, stories and pictures

A seed moves the small delays of watch events, from which real races come; the scenario itself stays the same.")]
pub(super) struct RunArgs {
    /// Scenario files, or folders that hold them.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The seed.
    #[arg(long, value_name = "N", value_parser = seed, default_value = "0")]
    pub seed: u64,
    /// Several seeds: `100` for 0 to 99, `20..30` for 20 to 29.
    #[arg(long, value_name = "N|A..B", value_parser = seeds, conflicts_with = "seed")]
    pub seeds: Option<Range<u64>>,
    /// Repeat the run that printed this token, its storm included.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["seed", "seeds"])]
    pub token: Option<Token>,
    /// Put a known bug into the driver or into a part of Kubernetes (docs/mutants.md): does the scenario notice?
    #[arg(long, value_name = "NAME", value_parser = mutant, conflicts_with = "token")]
    pub mutant: Option<&'static Mutant>,
    /// Play around a driver of your own that runs as processes behind sockets: its profile (docs/drivers.md).
    #[arg(long, value_name = "FILE")]
    pub driver: Option<PathBuf>,
    #[command(flatten)]
    pub on: NodesArgs,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: RunFormat,
    /// Show only what concerns this object and what belongs to it, e.g. `pvc/data`, `pod/web`, `node/node-1`. Can be given several times.
    #[arg(long, value_name = "KIND/NAME")]
    pub follow: Vec<Follow>,
    /// Also show what kubelet does on its node, and whole messages.
    #[arg(long, short)]
    pub verbose: bool,
    /// Print only what fails.
    #[arg(long, short, conflicts_with_all = ["verbose", "follow"])]
    pub quiet: bool,
    /// Print the verdict without the trace.
    #[arg(long, conflicts_with_all = ["verbose", "follow"])]
    pub no_trace: bool,
    /// Print the digest of each whole trace: equal digests, equal runs.
    #[arg(long)]
    pub digest: bool,
    /// Write a report as one HTML page: verdicts, stories, pictures (docs/report.md).
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Write the run for Perfetto and chrome://tracing: one scenario, one seed.
    #[arg(long, value_name = "FILE.json")]
    pub perfetto: Option<PathBuf>,
}

impl RunArgs {
    /// The arguments that repeat the run of a token.
    pub fn of_token(path: PathBuf, token: Token, format: Format, report: Option<PathBuf>) -> RunArgs {
        RunArgs {
            paths: vec![path],
            seed: token.seed,
            seeds: None,
            driver: None,
            on: NodesArgs::default(),
            token: Some(token),
            mutant: None,
            format: format.into(),
            follow: Vec::new(),
            verbose: false,
            quiet: false,
            no_trace: false,
            digest: false,
            report,
            perfetto: None,
        }
    }

    /// The seeds to be played.
    pub fn all_seeds(&self) -> Range<u64> {
        self.seeds.clone().unwrap_or(match &self.token {
            Some(token) => token.seed..token.seed.saturating_add(1),
            None => self.seed..self.seed.saturating_add(1),
        })
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct SchemaArgs {
    /// Of which files.
    #[arg(value_name = "FILES", default_value = "scenario")]
    pub of: SchemaOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaOf {
    /// Of scenarios.
    Scenario,
    /// Of replay files.
    Replay,
    /// Of driver profiles.
    Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people: aligned and coloured.
    Text,
    /// For machines: one JSON object in a line (docs/trace.md).
    Json,
}

/// How runs are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RunFormat {
    /// For people: aligned and coloured.
    Text,
    /// For machines: one JSON object in a line (docs/trace.md).
    Json,
    /// Annotations of a GitHub workflow.
    Github,
    /// JUnit XML.
    Junit,
}

impl From<Format> for RunFormat {
    fn from(format: Format) -> RunFormat {
        match format {
            Format::Text => RunFormat::Text,
            Format::Json => RunFormat::Json,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct SitesArgs {
    /// A scenario file.
    #[arg(value_name = "SCENARIO")]
    pub path: PathBuf,
    /// The seed.
    #[arg(long, value_name = "N", value_parser = seed, default_value = "0")]
    pub seed: u64,
    /// Below each site the faults of its menu, as `strike: {at: …, fault: …}` spells them.
    #[arg(long)]
    pub faults: bool,
    /// The single operations of drivers, too: `after-op(k)`.
    #[arg(long)]
    pub operations: bool,
}

/// The most seeds of one command.
pub(super) const MOST_SEEDS: u64 = 10_000_000;

fn seed(text: &str) -> Result<u64, String> {
    // The last number is kept free, so that a range with one seed has an end.
    match text.parse::<u64>() {
        Ok(u64::MAX) | Err(_) => Err(format!(
            "a seed is a whole number from 0 to {}, such as 7",
            u64::MAX - 1
        )),
        Ok(seed) => Ok(seed),
    }
}

pub(super) fn mutant(text: &str) -> Result<&'static Mutant, String> {
    mutants::find(text).ok_or_else(|| {
        let near = nearest(text, mutants::MUTANTS.iter().map(Mutant::name));
        let near = near.map_or(String::new(), |near| format!(": did you mean `{near}`?"));
        format!("there is no mutant of that name{near}")
    })
}

pub(super) fn seeds(text: &str) -> Result<Range<u64>, String> {
    let range = match text.split_once("..") {
        Some((from, to)) => seed(from)?..seed(to)?,
        None => 0..seed(text)?,
    };
    if range.is_empty() {
        return Err("there is no seed in it: the end is not played, so write `0..10` for 0 to 9".to_owned());
    }
    if range.end - range.start > MOST_SEEDS {
        return Err(format!("these are more than {MOST_SEEDS} seeds"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::{Args, seed, seeds};
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn seeds_are_counts_or_ranges_without_their_end() {
        assert_eq!(seeds("3"), Ok(0..3));
        assert_eq!(seeds("20..30"), Ok(20..30));
        for wrong in ["0", "5..5", "9..1", "a..b", "0..18446744073709551614", "-1", ""] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
        assert!(seed("banana").unwrap_err().contains("whole number"));
        assert!(seed("18446744073709551615").is_err());
    }
}
