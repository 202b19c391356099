//! `wavetank mutants`: every planted bug, what notices it, and how soon.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::args::mutant;
use super::{Stop, Streams, load};
use crate::mutants::matrix::{self, Hunt, Missed, Row};
use crate::mutants::{MUTANTS, Mutant, PATTERNS};

/// Hunt the known bugs that can be planted.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  wavetank mutants --list                         every mutant, and the bug that it is modelled on
  wavetank mutants                                the matrix: what catches each, and how soon
  wavetank mutants late-detach-fires skips-unstage
  wavetank mutants --check                        exit status 1 if a target is missed

A mutant is the honest cluster with one documented bug in it. It is caught when a promise is broken that the honest cluster keeps under the same faults.
Targets: all are caught, half of them within 50 runs, and 90 in 100 with two faults or fewer. docs/mutants.md has the table.")]
pub(super) struct MutantsArgs {
    /// Only these. All if left out.
    #[arg(value_name = "NAME", value_parser = mutant)]
    pub names: Vec<&'static Mutant>,
    /// Say what they are, and hunt nothing.
    #[arg(long, conflicts_with = "check")]
    pub list: bool,
    /// End with exit status 1 if a target is missed.
    #[arg(long)]
    pub check: bool,
    /// The library of scenarios.
    #[arg(long, value_name = "FOLDER", default_value = "scenarios")]
    pub scenarios: PathBuf,
    /// How many runs each scenario of a mutant gets.
    #[arg(long, value_name = "N", default_value = "300", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub runs: u64,
    /// How many mutants are hunted at once. One for each core if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: MatrixFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MatrixFormat {
    /// A table.
    Text,
    /// One JSON object in a line for each mutant.
    Json,
    /// The table of docs/mutants.md.
    Markdown,
}

/// Hunts what the arguments name.
pub(super) fn mutants(args: &MutantsArgs, streams: &mut Streams) -> Result<u8, Stop> {
    let wanted: Vec<&'static Mutant> = if args.names.is_empty() {
        MUTANTS.iter().collect()
    } else {
        args.names.clone()
    };
    if args.list {
        return list(&wanted, streams);
    }
    let library = load(&args.scenarios, streams)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let how = Hunt {
        runs: args.runs,
        jobs: args.jobs.map_or(cores, usize::from),
        ..Hunt::default()
    };
    let rows = matrix::hunt(&wanted, &library, how, &|_| {});
    print(&rows, args.format, streams)?;
    let Missed(missed) = matrix::missed(&rows);
    if args.format == MatrixFormat::Text {
        summary(&rows, streams)?;
    }
    for miss in &missed {
        writeln!(streams.err, "missed: {miss}")?;
    }
    Ok(u8::from(args.check && !missed.is_empty()))
}

fn list(wanted: &[&'static Mutant], streams: &mut Streams) -> Result<u8, Stop> {
    for (nth, pattern) in PATTERNS.iter().enumerate() {
        let mut mutants = wanted.iter().filter(|mutant| mutant.pattern == nth + 1).peekable();
        if mutants.peek().is_some() {
            writeln!(streams.out, "{pattern}")?;
        }
        for mutant in mutants {
            let (name, process, bug) = (mutant.name(), mutant.process(), mutant.bug());
            writeln!(streams.out, "  {name:29} {process:18} {bug:4} {}", mutant.says())?;
        }
    }
    Ok(0)
}

const HEAD: [&str; 8] = [
    "mutant", "process", "bug", "promise", "strategy", "runs", "faults", "scenario",
];

fn print(rows: &[Row], format: MatrixFormat, streams: &mut Streams) -> Result<(), Stop> {
    match format {
        MatrixFormat::Text => {
            let mut table = comfy_table::Table::new();
            table.load_style(comfy_table::presets::NOTHING).set_header(HEAD);
            for row in rows {
                table.add_row(row.cells());
            }
            writeln!(streams.out, "{}", table.trim_fmt())?;
        }
        MatrixFormat::Json => {
            for row in rows {
                writeln!(streams.out, "{}", row.json())?;
            }
        }
        MatrixFormat::Markdown => {
            writeln!(streams.out, "| {} |\n|{}", HEAD.join(" | "), "---|".repeat(HEAD.len()))?;
            for row in rows {
                let [name, rest @ ..] = row.cells();
                writeln!(streams.out, "| `{name}` | {} |", rest.join(" | "))?;
            }
        }
    }
    Ok(())
}

fn summary(rows: &[Row], streams: &mut Streams) -> Result<(), Stop> {
    let (few, caught) = matrix::shrunk(rows);
    let median = matrix::median(rows).map_or_else(|| "–".to_owned(), |median| median.to_string());
    writeln!(
        streams.out,
        "\n{caught} of {} caught; median {median} runs; {few} with {} faults or fewer",
        rows.len(),
        matrix::FEW
    )?;
    Ok(())
}
