//! `wavetank explore`: a campaign over some scenarios, with progress, a budget of time, and a way out that loses nothing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args as ClapArgs;

use super::args::{MOST_SEEDS, mutant, seeds};
use super::draft::Draft;
use super::driver::{self, NOT_JUDGED};
use super::found::{FoundFormat, Printed, write_out};
use super::hunted::{Again, campaign_page};
use super::interrupts::Interrupts;
use super::vm::NodesArgs;
use super::watch::Watch;
use super::{Drivers, INTERRUPTED, Stop, Streams, load_all};
use crate::explore::StrategyName;
use crate::explore::campaign::{Campaign, Entry, Go};
use crate::explore::report::{Elsewhere, Shard};
use crate::explore::subject::Tank;
use crate::link::socket::Outside;
use crate::mutants::Mutant;
use crate::oracles;
use crate::scenario::GoDuration;

/// How many storms each scenario gets when nobody says how many.
const SEEDS: u64 = 100;

/// Look for the storm that breaks a promise.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  wavetank explore scenarios/expand/                             a hundred storms over each scenario of a theme
  wavetank explore scenarios/ --seeds 10000 --out found          more, and replay files of what is found
  wavetank explore scenarios/ --time 10m --keep-going            as many as fit into ten minutes
  wavetank explore scenarios/ --seeds 100000 --shard 3/8 --out s3    the third of eight parts; `wavetank merge s*/report.json` joins them
  wavetank explore scenarios/ --mutant clone-retry-refused              does the tank notice this bug?
  wavetank explore scenarios/attach/multi-attach.yaml --strategy pairs --seeds 5000
  wavetank explore scenarios/ --driver my-driver.yaml --time 10m        around processes of your own

A storm is a run in which faults strike; then everything heals, and the promises must hold. The first violation of each promise is shrunk and told. Numbers of runs, strategy
and scenarios decide what is played, not the number of jobs. docs/explore.md says what the strategies do.")]
pub(super) struct ExploreArgs {
    /// Scenario files, or folders that hold them.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How many storms each scenario gets: `100` for the runs 0 to 99, `20..30` for 20 to 29. 100 if left out; with --time as many as fit.
    #[arg(long, value_name = "N|A..B", value_parser = seeds)]
    pub seeds: Option<Range<u64>>,
    /// How faults are picked: mix, random, swarm, pct, single, pairs, crash-everywhere, coverage, twice.
    #[arg(long, value_name = "STRATEGY", value_parser = StrategyName::parse, default_value = "mix")]
    pub strategy: StrategyName,
    /// Put a known bug into the driver or into a part of Kubernetes (docs/mutants.md): does the tank notice?
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    pub mutant: Option<&'static Mutant>,
    /// Explore around a driver of your own that runs as processes behind sockets: its profile (docs/drivers.md).
    #[arg(long, value_name = "FILE", conflicts_with = "mutant")]
    pub driver: Option<PathBuf>,
    #[command(flatten)]
    pub on: NodesArgs,
    /// How many storms are under way at once. One for each core if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// End after this much time, such as `10m`. Shrinking counts: if anything was found, the last fifth is for that.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub time: Option<Duration>,
    /// Play only part I of N of the runs.
    #[arg(long, value_name = "I/N", value_parser = Shard::parse)]
    pub shard: Option<Shard>,
    /// Go on with a scenario after its first violation.
    #[arg(long)]
    pub keep_going: bool,
    /// Write the report, replay files and JUnit into this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write a report as one HTML page: what broke, told and drawn, and what was reached (docs/report.md).
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: FoundFormat,
    /// Also print what was never reached.
    #[arg(long, short)]
    pub verbose: bool,
    /// How many plays shrinking may take for each violation; 0 tells it as it was found.
    #[arg(long, value_name = "PLAYS", default_value = "400", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub shrink: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    let read = GoDuration::parse(text).map_err(|error| error.to_string())?;
    if read.get().is_zero() {
        return Err("that is no time at all: write 10m or 30s".into());
    }
    Ok(read.get())
}

/// Explores what the arguments ask for.
pub(super) fn explore(args: &ExploreArgs, drivers: &Drivers, streams: &mut Streams) -> Result<u8, Stop> {
    let interrupts = Interrupts::new("report");
    let Some((campaign, elsewhere)) = campaign(args, drivers, &interrupts, streams)? else {
        return Ok(NOT_JUDGED);
    };
    if let Some(out) = &args.out {
        // Before hours of work, not after.
        write_out::prepare(out, streams)?;
    }
    let draft = Draft::maybe(args.report.as_deref(), streams)?;
    let presses = presses(&interrupts, streams)?;
    let mut watch = Watch::new(args.time);
    let mut report = campaign.run(&mut |standing| {
        watch.show(standing);
        match presses.load(Ordering::Relaxed) {
            0 if watch.is_over() => Go::Stop,
            0 if watch.is_time_to_shrink(standing) => Go::Enough,
            0 => Go::On,
            1 => Go::Stop,
            _ => Go::Now,
        }
    });
    let pace = watch.finish(&report);
    let outside = elsewhere.map(|(outside, told)| {
        report.driver = Some(told);
        outside
    });
    if let Some(out) = &args.out {
        write_out::write(out, &mut report, streams)?;
    }
    if let Some(draft) = draft {
        let again = Again {
            entries: &campaign.entries,
            drivers,
            outside: outside.as_ref(),
            mutant: args.mutant,
            around: args.on.again(args.driver.as_deref()),
        };
        campaign_page(&report, &again, draft, streams)?;
    }
    if let Some(outside) = outside {
        outside.tidy();
    }
    Printed::new(&report, args.verbose).print(args.format, &mut streams.out)?;
    if let Some(pace) = pace {
        writeln!(streams.err, "{pace}")?;
    }
    if presses.load(Ordering::Relaxed) > 0 {
        return Ok(INTERRUPTED);
    }
    Ok(report.status())
}

/// The campaign, and what is to be told of the driver outside. Nothing if no scenario applies to that driver.
fn campaign(
    args: &ExploreArgs,
    drivers: &Drivers,
    interrupts: &Interrupts,
    streams: &mut Streams,
) -> Result<Option<(Campaign, Option<Around>)>, Stop> {
    let scenarios = load_all(&args.paths, streams)?;
    let outside = driver::chosen(args.driver.as_deref(), &args.on, Some(interrupts), streams)?;
    let again = args.on.again(args.driver.as_deref());
    let mut around = outside.map(|outside| around(outside, again));
    let mut entries = Vec::new();
    for scenario in scenarios {
        if let Some((outside, told)) = &mut around {
            let reasons = outside.reasons_against(&scenario);
            if !reasons.is_empty() {
                told.not_applicable.insert(scenario.name, reasons);
                continue;
            }
        }
        entries.push(Entry::new(Tank {
            mutant: args.mutant,
            outside: around.as_ref().map(|(outside, _)| Arc::clone(outside)),
            ..Tank::new(scenario, drivers.clone())
        }));
    }
    if let (true, Some((_, told))) = (entries.is_empty(), &around) {
        writeln!(streams.err, "wavetank: no scenario applies to {}:", told.link)?;
        for (name, reasons) in &told.not_applicable {
            writeln!(streams.err, "  {name}: {}", reasons.join("; "))?;
        }
        return Ok(None);
    }
    let usual = if args.time.is_some() { MOST_SEEDS } else { SEEDS };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign {
        entries,
        strategy: args.strategy,
        seeds: args.seeds.clone().unwrap_or(0..usual),
        shard: args.shard.unwrap_or(Shard::WHOLE),
        jobs: args.jobs.map_or(cores, usize::from),
        keep_going: args.keep_going,
        mutant: args.mutant,
        shrink: args.shrink,
    };
    Ok(Some((campaign, around)))
}

/// A driver outside, and what is told of it.
type Around = (Arc<Outside>, Elsewhere);

fn around(outside: Arc<Outside>, arguments: String) -> Around {
    let unseen = oracles::unseen(&outside.sight()).into_iter();
    let told = Elsewhere {
        link: outside.mark(),
        arguments,
        limits: outside.limits(),
        unseen: unseen
            .map(|(promise, what)| (promise.to_owned(), what.to_owned()))
            .collect(),
        not_applicable: BTreeMap::new(),
    };
    (outside, told)
}

/// Counts interrupts: the first ends exploring, the second everything.
fn presses(interrupts: &Interrupts, streams: &mut Streams) -> Result<Arc<AtomicUsize>, Stop> {
    let presses = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&presses);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    interrupts.tell(count, streams)?;
    Ok(presses)
}
