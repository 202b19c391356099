//! `wavetank run`: plays every scenario with every seed, on all cores, and reports in order.
//!
//! Each run has a thread of its own inside [`crate::play::play`]; workers here only wait for them. What is printed comes in the order of the command line,
//! whichever run ends first. An interrupt ends the command at once, with a summary of what was done.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::album::{Album, Drawn};
use super::args::{RunArgs, RunFormat, mutant};
use super::draft::Draft;
use super::interrupts::Interrupts;
use super::progress::Progress;
use super::report::{Outcome, Printer, Told};
use super::{Drivers, INTERRUPTED, Stop, Streams, USAGE, driver, load_all};
use crate::link::socket;
use crate::mutants::Mutant;
use crate::oracles;
use crate::play::{self, Aftermath, Options, Verdict};
use crate::scenario::Scenario;
use crate::trace::{self, TextOptions, Token, Trace, perfetto, picture::Picture};

/// How often a bar gets the chance to appear.
const TICK: Duration = Duration::from_millis(200);

/// What is played, and what of it is kept.
struct Plan {
    scenarios: Vec<Scenario>,
    seeds: std::ops::Range<u64>,
    drivers: Drivers,
    mutant: Option<&'static Mutant>,
    /// The run that is repeated, if one is.
    token: Option<Token>,
    outside: Option<Arc<socket::Outside>>,
    /// What the user says to have the same driver and nodes, a space before each word.
    around: String,
    /// What no oracle can judge around it.
    unseen: Vec<(&'static str, &'static str)>,
    format: RunFormat,
    /// How a trace is rendered; `None` when it is not.
    text: Option<TextOptions>,
    digest: bool,
    /// Whether runs are drawn for a report.
    draws: bool,
    /// Whether the run is written for Perfetto.
    perfetto: bool,
}

/// What workers tell.
enum News {
    Step(usize, usize),
    Done(usize, Box<Outcome>),
    Interrupted,
}

/// Plays what the arguments ask for.
pub(super) fn run(args: &RunArgs, drivers: &Drivers, streams: &mut Streams) -> Result<u8, Stop> {
    let scenarios = scenarios(args, streams)?;
    let seeds = args.all_seeds();
    let runs = usize::try_from(seeds.end - seeds.start).unwrap_or(usize::MAX);
    let runs = runs.saturating_mul(scenarios.len());
    let follows = !args.follow.is_empty();
    let for_people = matches!(args.format, RunFormat::Text | RunFormat::Json);
    let wanted = runs == 1 || follows || args.verbose || args.format == RunFormat::Json;
    let interrupts = Interrupts::new("summary");
    let outside = driver::chosen(args.driver.as_deref(), &args.on, Some(&interrupts), streams)?;
    let plan = Plan {
        text: (wanted && for_people && !args.no_trace && !args.quiet).then(|| TextOptions {
            verbose: args.verbose,
            follow: args.follow.clone(),
        }),
        seeds,
        drivers: drivers.clone(),
        mutant: args.mutant.or(infected(args, streams)?),
        token: args.token.clone(),
        unseen: outside
            .as_ref()
            .map_or_else(Vec::new, |outside| oracles::unseen(&outside.sight())),
        outside,
        around: args.on.again(args.driver.as_deref()),
        format: args.format,
        digest: args.digest,
        draws: args.report.is_some(),
        perfetto: args.perfetto.is_some(),
        scenarios,
    };
    let outside = plan.outside.clone();
    refuse_misfits(args, runs, outside.as_deref(), streams)?;
    let mut pages = Pages::open(args, outside.is_some(), streams)?;
    let mut printer = Printer::new(args, runs, plan.scenarios.iter().map(|s| s.name.as_str()));
    let (news, heard) = mpsc::channel();
    let told = news.clone();
    // Nobody listens any more when the command is ending anyway.
    interrupts.tell(move || drop(told.send(News::Interrupted)), streams)?;
    start_workers(&Arc::new(plan), runs, &news);
    drop(news);
    let interrupted = listen(&heard, runs, &mut printer, &mut pages, streams);
    if let Some(outside) = &outside {
        outside.tidy();
    }
    let interrupted = interrupted?;
    pages.write(interrupted, streams)?;
    printer.summary(&mut streams.out, interrupted)?;
    let strangers = printer.strangers(&mut streams.err)?;
    if interrupted {
        return Ok(INTERRUPTED);
    }
    for (scenario, what) in printer.never() {
        writeln!(
            streams.err,
            "wavetank: {scenario}: {what} was to be seen sometimes, and never was"
        )?;
    }
    Ok(match printer.status() {
        0 if strangers => USAGE,
        status => status,
    })
}

/// What does not fit what is played: a file for one run, a token of another link.
fn refuse_misfits(
    args: &RunArgs,
    runs: usize,
    outside: Option<&socket::Outside>,
    streams: &mut Streams,
) -> Result<(), Stop> {
    if args.perfetto.is_some() && runs != 1 {
        let what = format!("--perfetto writes one run, and these are {runs}: name one scenario and one seed");
        writeln!(streams.err, "wavetank: {what}")?;
        return Err(Stop::Status(USAGE));
    }
    if let Some(token) = &args.token {
        let mark = outside.as_ref().map(|outside| outside.mark());
        if let Err(error) = token.check_link(mark.as_deref()) {
            writeln!(streams.err, "wavetank: {error}")?;
            return Err(Stop::Status(USAGE));
        }
    }
    Ok(())
}

/// The mutant that the token names.
fn infected(args: &RunArgs, streams: &mut Streams) -> Result<Option<&'static Mutant>, Stop> {
    let Some(name) = args.token.as_ref().and_then(|token| token.mutant.as_deref()) else {
        return Ok(None);
    };
    match mutant(name) {
        Ok(found) => Ok(Some(found)),
        Err(complaint) => {
            writeln!(streams.err, "wavetank: {name}: {complaint}")?;
            Err(Stop::Status(USAGE))
        }
    }
}

fn scenarios(args: &RunArgs, streams: &mut Streams) -> Result<Vec<Scenario>, Stop> {
    let scenarios = load_all(&args.paths, streams)?;
    let Some(token) = &args.token else { return Ok(scenarios) };
    let complaint = match &scenarios[..] {
        [scenario] => token.check(scenario).err().map(|error| error.to_string()),
        several => Some(format!(
            "a token is of one scenario, and here are {}: name one file",
            several.len()
        )),
    };
    match complaint {
        None => Ok(scenarios),
        Some(complaint) => {
            writeln!(streams.err, "wavetank: {complaint}")?;
            Err(Stop::Status(USAGE))
        }
    }
}

fn start_workers(plan: &Arc<Plan>, runs: usize, news: &Sender<News>) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..cores.min(runs) {
        let (plan, next, news) = (Arc::clone(plan), Arc::clone(&next), news.clone());
        // Not joined: an interrupted command does not wait for the runs under way.
        std::thread::spawn(move || {
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= runs {
                    return;
                }
                let outcome = plan.play(nth, runs, &news);
                if news.send(News::Done(nth, Box::new(outcome))).is_err() {
                    return;
                }
            }
        });
    }
}

/// Prints what comes, in order, until all is there. Says whether it was interrupted.
fn listen(
    heard: &Receiver<News>,
    runs: usize,
    printer: &mut Printer,
    pages: &mut Pages,
    streams: &mut Streams,
) -> Result<bool, Stop> {
    let mut progress = Progress::new(runs);
    let mut early: BTreeMap<usize, Outcome> = BTreeMap::new();
    let (mut printed, mut done) = (0, 0);
    let mut interrupted = false;
    while printed < runs {
        match heard.recv_timeout(TICK) {
            Ok(News::Step(step, of)) => progress.at(step, of, "steps"),
            Ok(News::Done(nth, outcome)) => {
                done += 1;
                if runs > 1 {
                    progress.at(done, runs, "runs");
                }
                early.insert(nth, *outcome);
            }
            Ok(News::Interrupted) => {
                interrupted = true;
                break;
            }
            Err(RecvTimeoutError::Timeout) => progress.appear(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while let Some(outcome) = early.remove(&printed) {
            printed += 1;
            pages.take(&outcome);
            progress.aside(|| printer.outcome(&mut streams.out, outcome))?;
        }
    }
    if let Some(took) = progress.finish() {
        writeln!(streams.err, "{done} of {runs} runs in {:.1} s", took.as_secs_f64())?;
    }
    Ok(interrupted)
}

/// The files that are written beside what is printed.
struct Pages {
    album: Option<Album>,
    perfetto: Option<Draft>,
    /// Whether runs are told apart by their seeds.
    seeds: bool,
    trace: Vec<u8>,
}

impl Pages {
    fn open(args: &RunArgs, outside: bool, streams: &mut Streams) -> Result<Pages, Stop> {
        let draft = Draft::maybe(args.report.as_deref(), streams)?;
        Ok(Pages {
            album: draft.map(|draft| Album::new(draft, outside, streams)),
            perfetto: Draft::maybe(args.perfetto.as_deref(), streams)?,
            seeds: args.seeds.is_some(),
            trace: Vec::new(),
        })
    }

    fn take(&mut self, outcome: &Outcome) {
        if let Some(album) = &mut self.album {
            album.take(outcome, self.seeds);
        }
        self.trace.extend(outcome.perfetto.iter().flatten());
    }

    fn write(self, interrupted: bool, streams: &mut Streams) -> Result<(), Stop> {
        if let Some(album) = self.album {
            album.write(interrupted, streams)?;
        }
        match self.perfetto.filter(|_| !self.trace.is_empty()) {
            Some(draft) => draft.write(&self.trace, streams),
            None => Ok(()),
        }
    }
}

impl Plan {
    /// Scenario by scenario, each with all its seeds.
    fn nth(&self, nth: usize) -> (&Scenario, u64) {
        let seeds = usize::try_from(self.seeds.end - self.seeds.start).unwrap_or(usize::MAX);
        let seed = self.seeds.start + (nth % seeds) as u64;
        (&self.scenarios[nth / seeds], seed)
    }

    fn play(&self, nth: usize, runs: usize, news: &Sender<News>) -> Outcome {
        let (scenario, seed) = self.nth(nth);
        let mut options = Options {
            seed,
            drivers: self.drivers.clone(),
            mutant: self.mutant,
            outside: self.outside.clone(),
            ..Options::default()
        };
        if let Some(storm) = self.token.as_ref().and_then(|token| token.storm.clone()) {
            options.storm = Some(Arc::new(move || storm.picks.chooser()));
        }
        if runs == 1 {
            let news = Mutex::new(news.clone());
            options.progress = Some(Arc::new(move |step, of| {
                if let Ok(news) = news.lock() {
                    // A bar that nobody shows any more.
                    let _ = news.send(News::Step(step, of));
                }
            }));
        }
        let mut outcome = Outcome {
            name: scenario.name.clone(),
            file: scenario.places.file().map(str::to_owned),
            seed,
            token: self.token.clone().unwrap_or_else(|| {
                let mutant = self.mutant.map(|mutant| mutant.name().to_owned());
                let link = self.outside.as_ref().map(|outside| outside.mark());
                Token::new(scenario, seed).mutant(mutant).link(link)
            }),
            verdict: Verdict::Held,
            sometimes: Vec::new(),
            violations: Vec::new(),
            took: Duration::ZERO,
            digest: None,
            trace: Vec::new(),
            around: self.around.clone(),
            unseen: self.unseen.clone(),
            aftermath: Aftermath::default(),
            because: scenario.because.clone(),
            drawn: None,
            perfetto: None,
            strangers: Vec::new(),
        };
        let reasons = self.outside.as_ref().map(|outside| outside.reasons_against(scenario));
        if let Some(reasons) = reasons.filter(|reasons| !reasons.is_empty()) {
            outcome.verdict = Verdict::NotApplicable(reasons);
            return outcome;
        }
        let played = catch_unwind(AssertUnwindSafe(|| {
            let report = play::play(scenario, &options);
            self.picture(&report, &mut outcome);
            outcome.verdict = report.verdict;
            outcome.took = report.took;
            outcome.sometimes = report.sometimes;
            let told = report
                .violations
                .into_iter()
                .map(|violation| Told::of(violation, &report.trace));
            outcome.violations = told.collect();
            outcome.aftermath = report.aftermath;
            self.render(&report.trace, &mut outcome);
        }));
        if let Err(panic) = played {
            outcome.verdict = Verdict::Broken(spell(panic.as_ref()));
        }
        outcome
    }

    fn picture(&self, report: &play::Report, outcome: &mut Outcome) {
        if !self.draws && !self.perfetto {
            return;
        }
        let picture = Picture::of(&report.trace, report.took);
        outcome.drawn = self.draws.then(|| Box::new(Drawn::of(report, &picture)));
        if self.perfetto {
            let mut bytes = Vec::new();
            perfetto::write(&mut bytes, &picture, &outcome.name, &outcome.token.to_string())
                .expect("memory takes every byte");
            outcome.perfetto = Some(bytes);
        }
    }

    fn render(&self, trace: &Trace, outcome: &mut Outcome) {
        outcome.digest = self.digest.then(|| trace.digest());
        let Some(options) = &self.text else { return };
        let written = match self.format {
            RunFormat::Text | RunFormat::Github | RunFormat::Junit => {
                trace::text::write(&mut outcome.trace, trace, options)
            }
            RunFormat::Json => trace::json::write(&mut outcome.trace, trace, &options.follow),
        };
        written.expect("memory takes every byte");
        let strangers = trace::strangers(&options.follow, trace.records());
        outcome.strangers = strangers
            .into_iter()
            .map(|(follow, near)| (follow.to_string(), near))
            .collect();
    }
}

/// What a panic says.
fn spell(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}
