//! `wavetank merge`: joins the reports of the shards of one campaign.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::args::mutant;
use super::draft::Draft;
use super::found::{FoundFormat, Printed, write_out};
use super::hunted::{Again, campaign_page};
use super::{Drivers, Stop, Streams, USAGE};
use crate::explore::report::{Report, SCHEMA};

/// Exit status: not judged. Here: shards are missing.
const NOT_JUDGED: u8 = 5;

/// Join the reports of shards.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  wavetank merge shard-*/report.json                       what the whole campaign found
  wavetank merge shard-*/report.json --out all             and its report, JUnit and replay files
  wavetank merge shard-*/report.json --report found.html   and all of it as one page

A shard that is in two reports is refused; one that is in none is named, and the exit status is 5 unless something was found.")]
pub(super) struct MergeArgs {
    /// Files that `wavetank explore --shard … --out` wrote.
    #[arg(required = true, value_name = "REPORT")]
    pub reports: Vec<PathBuf>,
    /// Write the joined report, replay files and JUnit into this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write a report as one HTML page: what broke, told, and drawn where it was shrunk in the tank (docs/report.md).
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: FoundFormat,
    /// Also print what was never reached.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Joins what the arguments name.
pub(super) fn merge(args: &MergeArgs, drivers: &Drivers, streams: &mut Streams) -> Result<u8, Stop> {
    let mut whole: Option<Report> = None;
    for path in &args.reports {
        let joined = read(path).and_then(|next| match whole.take() {
            None => Ok(next),
            Some(mut report) => report.merge(next).map(|()| report),
        });
        match joined {
            Ok(report) => whole = Some(report),
            Err(message) => {
                writeln!(streams.err, "wavetank: {}: {message}", path.display())?;
                return Err(Stop::Status(USAGE));
            }
        }
    }
    let Some(mut report) = whole else {
        return Err(Stop::Status(USAGE));
    };
    if let Some(out) = &args.out {
        write_out::prepare(out, streams)?;
        write_out::write(out, &mut report, streams)?;
    }
    if let Some(draft) = Draft::maybe(args.report.as_deref(), streams)? {
        page(&report, drivers, draft, streams)?;
    }
    Printed::new(&report, args.verbose).print(args.format, &mut streams.out)?;
    Ok(match report.status() {
        0 if !report.missing().is_empty() => {
            writeln!(
                streams.err,
                "wavetank: {} of the shards are missing",
                report.missing().len()
            )?;
            NOT_JUDGED
        }
        status => status,
    })
}

/// The page of the joined report. The scenarios are not at hand: what was shrunk is played once more, from its replay file.
fn page(report: &Report, drivers: &Drivers, draft: Draft, streams: &mut Streams) -> Result<(), Stop> {
    let again = Again {
        entries: &[],
        drivers,
        outside: None,
        mutant: report.mutant.as_deref().and_then(|name| mutant(name).ok()),
        around: report
            .driver
            .as_ref()
            .map_or_else(String::new, |driver| driver.arguments.clone()),
    };
    campaign_page(report, &again, draft, streams)
}

fn read(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("is no report of a campaign: {error}"))?;
    match json["schema"].as_u64() {
        Some(schema) if schema == u64::from(SCHEMA) => {}
        Some(schema) => return Err(format!("is a report of schema {schema}; this version reads {SCHEMA}")),
        None => return Err("is no report of a campaign: it has no schema".into()),
    }
    serde_json::from_value(json).map_err(|error| format!("is no report of a campaign: {error}"))
}
