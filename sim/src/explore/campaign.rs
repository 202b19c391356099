//! A campaign: many storms over some scenarios, on some threads, and what they found.
//!
//! ```text
//!             ┌── lane: scenario, strategy, coverage ──┐
//! coordinator ┤   plans a run ──► worker plays ──► result, consumed in order of number
//!             └── … another lane …                    ┘
//! ```
//!
//! Each scenario has a lane. Results of a lane are consumed in order of the number of the run, whichever thread is ready first; a strategy that learns is told a whole batch
//! before it plans the next. So nothing in the report depends on how many threads there are. When exploring is over, the first violation of each promise is shrunk.
//!
//! Memory does not grow with runs: of a run only what is new in it is kept.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::coverage::Coverage;
use super::report::{Found, Growth, Report, SCHEMA, ScenarioReport, Shard};
use super::strategy::{Plan, Strategy, StrategyName, Survey};
use super::subject::{Calm, Finding, Played, Run, SAME_AGAIN, Subject};
use super::witness::Told;
use super::work::{Job, Shrinking, Work, Worker, made_small};
use crate::mutants::Mutant;
use crate::scenario::Scenario;
use crate::trace::{Token, VERSION};

/// How many runs a strategy that learns plans at once.
const BATCH: usize = 32;
/// How often the watcher is asked whether to go on.
const TICK: Duration = Duration::from_millis(100);
/// How many ticks a campaign that is stopped waits for plays under way, before it tells what is left as it was found.
const PATIENCE: u32 = 50;

/// One scenario of a campaign.
#[derive(Clone)]
pub struct Entry {
    /// What is played.
    pub subject: Arc<dyn Subject>,
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: Option<String>,
    /// Its digest.
    pub digest: String,
}

impl Entry {
    /// The entry of a scenario.
    pub fn new(subject: impl Subject + 'static) -> Entry {
        let scenario = subject.scenario();
        Entry {
            name: scenario.map(|s| s.name.clone()).unwrap_or_default(),
            file: scenario.and_then(|s| s.places.file().map(str::to_owned)),
            digest: scenario.map(Scenario::digest).unwrap_or_default(),
            subject: Arc::new(subject),
        }
    }
}

/// What is to be explored, and how.
#[derive(Clone)]
pub struct Campaign {
    /// The scenarios.
    pub entries: Vec<Entry>,
    /// The strategy.
    pub strategy: StrategyName,
    /// The numbers of the runs of each scenario.
    pub seeds: Range<u64>,
    /// Which of these are played here.
    pub shard: Shard,
    /// How many runs are under way at once.
    pub jobs: usize,
    /// Whether a scenario goes on after a violation.
    pub keep_going: bool,
    /// The bug that is switched on.
    pub mutant: Option<&'static Mutant>,
    /// How many plays shrinking may take for each violation.
    pub shrink: u32,
}

/// How far a campaign is.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Storms that are done.
    pub runs: u64,
    /// Storms that there will be, unless scenarios end early.
    pub of: u64,
    /// Sites reached in all scenarios.
    pub sites: usize,
    /// Site × fault pairs struck in all scenarios.
    pub struck: usize,
    /// Violations: scenario and promise.
    pub violations: Vec<(String, String)>,
    /// Violations that are being shrunk.
    pub shrinking: Option<(usize, usize)>,
}

/// Whether a campaign goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// On.
    On,
    /// No more runs; what was found is shrunk and told.
    Enough,
    /// No more runs, and no more shrinking: what is not small by now stays as it is.
    Stop,
    /// Not even what is under way.
    Now,
}

impl Campaign {
    fn mutant_name(&self) -> Option<String> {
        self.mutant.map(|mutant| mutant.name().to_owned())
    }

    /// Explores. `watch` is asked several times a second whether to go on.
    pub fn run(&self, watch: &mut dyn FnMut(&Standing) -> Go) -> Report {
        let enough = Arc::new(AtomicBool::new(false));
        let (work, done) = start(self.jobs.max(1), &self.entries, self.mutant.is_some(), &enough);
        let lanes = self.entries.iter().map(|entry| Lane::new(self, entry)).collect();
        let mut course = Course {
            campaign: self,
            lanes,
            work,
            done,
            under_way: 0,
            next_lane: 0,
            standing: Standing::default(),
            go: Go::On,
            enough,
        };
        course.standing.of = course.lanes.iter().map(|lane| lane.expected(self)).sum();
        course.explore(watch);
        course.shrink(watch);
        course.report()
    }
}

fn start(jobs: usize, entries: &[Entry], infected: bool, enough: &Arc<AtomicBool>) -> (Sender<Job>, Receiver<Work>) {
    let (work, jobs_heard) = mpsc::channel();
    let (tell, done) = mpsc::channel();
    let heard = Arc::new(Mutex::new(jobs_heard));
    for _ in 0..jobs {
        let worker = Worker {
            subjects: entries
                .iter()
                .map(|entry| (Arc::clone(&entry.subject), Arc::default()))
                .collect(),
            infected,
            enough: Arc::clone(enough),
            heard: Arc::clone(&heard),
            tell: tell.clone(),
        };
        // Not joined: a campaign that is stopped does not wait for what is under way.
        std::thread::spawn(move || worker.run());
    }
    (work, done)
}

/// One scenario under way.
struct Lane {
    /// Nothing until the calm run is done.
    strategy: Option<Box<dyn Strategy>>,
    surveying: bool,
    next: u64,
    /// Planned and not started.
    planned: VecDeque<(u64, Plan)>,
    /// Started and not consumed, in order.
    order: VecDeque<(u64, StrategyName)>,
    /// Come back before their turn.
    early: BTreeMap<u64, Played>,
    ended: bool,
    report: ScenarioReport,
}

impl Lane {
    fn new(campaign: &Campaign, entry: &Entry) -> Lane {
        Lane {
            strategy: None,
            surveying: false,
            next: campaign.seeds.start,
            planned: VecDeque::new(),
            order: VecDeque::new(),
            early: BTreeMap::new(),
            ended: false,
            report: ScenarioReport {
                name: entry.name.clone(),
                file: entry.file.clone(),
                digest: entry.digest.clone(),
                ..ScenarioReport::default()
            },
        }
    }

    fn expected(&self, campaign: &Campaign) -> u64 {
        let Range { start, end } = campaign.seeds;
        let below = |n: u64| (n + campaign.shard.of - campaign.shard.index) / campaign.shard.of;
        below(end).saturating_sub(below(start))
    }

    /// Plans the next run, or the next batch if the last one is through.
    fn plan(&mut self, campaign: &Campaign) {
        let Some(strategy) = &mut self.strategy else { return };
        if self.ended || !self.planned.is_empty() || (strategy.learns() && !self.order.is_empty()) {
            return;
        }
        let many = if strategy.learns() { BATCH } else { 1 };
        while self.planned.len() < many && self.next < campaign.seeds.end {
            let nth = self.next;
            self.next += 1;
            if !campaign.shard.has(nth) {
                // The next of this shard is less than a round away.
                continue;
            }
            match strategy.plan(nth) {
                Some(plan) => self.planned.push_back((nth, plan)),
                None => {
                    self.report.exhausted = true;
                    self.next = campaign.seeds.end;
                }
            }
        }
    }

    fn is_over(&self, campaign: &Campaign) -> bool {
        let through = self.next >= campaign.seeds.end && self.planned.is_empty() && self.order.is_empty();
        self.ended || (self.strategy.is_some() && through)
    }

    /// Counts a run. `false` if the lane ends with it.
    fn consume(&mut self, campaign: &Campaign, entry: &Entry, nth: u64, by: StrategyName, played: &Played) -> bool {
        if let Some(strategy) = &mut self.strategy {
            strategy.learn(nth, played);
        }
        let report = &mut self.report;
        report.runs += 1;
        report.see(&played.sometimes);
        report.coverage.add(&played.notes, &played.features);
        if report.runs.is_power_of_two() {
            report.growth.push(growth(report.runs, &report.coverage));
        }
        let status = crate::play::worst(played.findings.iter().map(|finding| finding.status));
        *report.statuses.entry(status).or_default() += 1;
        let mut promises: Vec<&str> = Vec::new();
        for finding in &played.findings {
            if promises.contains(&finding.promise.as_str()) {
                continue;
            }
            promises.push(&finding.promise);
            let count = report.broken.entry(finding.promise.clone()).or_default();
            *count += 1;
            if *count == 1 {
                report.violations.push(found(campaign, entry, finding, nth, by, played));
            }
        }
        played.findings.is_empty() || campaign.keep_going
    }
}

fn growth(runs: u64, coverage: &Coverage) -> Growth {
    Growth {
        runs,
        sites: coverage.sites.len(),
        struck: coverage.struck.len(),
        moments: coverage.moments.len(),
        transitions: coverage.transitions.len(),
    }
}

fn found(campaign: &Campaign, entry: &Entry, finding: &Finding, nth: u64, by: StrategyName, played: &Played) -> Found {
    let token = entry.subject.scenario().map(|scenario| {
        let token = Token::new(scenario, played.seed).storm(by, played.notes.picks.clone());
        token
            .mutant(campaign.mutant_name())
            .link(entry.subject.link())
            .to_string()
    });
    Found {
        finding: finding.clone(),
        run: nth,
        by: by.to_string(),
        token: token.unwrap_or_default(),
        strikes: played.struck.clone(),
        unrepeatable: played.unrepeatable.clone(),
        output: played.output.clone(),
        shrunk: None,
    }
}

/// A campaign under way.
struct Course<'a> {
    campaign: &'a Campaign,
    lanes: Vec<Lane>,
    work: Sender<Job>,
    done: Receiver<Work>,
    under_way: usize,
    next_lane: usize,
    standing: Standing,
    go: Go,
    /// Told to the threads when nobody waits for shrinking any more.
    enough: Arc<AtomicBool>,
}

impl Course<'_> {
    fn explore(&mut self, watch: &mut dyn FnMut(&Standing) -> Go) {
        // Two for each thread: one is played, one waits.
        let most = self.campaign.jobs.max(1) * 2;
        let mut asked = 0;
        loop {
            while self.under_way < most && self.dispatch() {}
            if self.lanes.iter().all(|lane| lane.is_over(self.campaign)) {
                return;
            }
            match self.done.recv_timeout(TICK) {
                Ok(work) => self.take(work),
                Err(RecvTimeoutError::Timeout) => asked = 0,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Not after each of many short runs.
            if asked == 0 {
                self.go = watch(&self.standing());
                if self.go != Go::On {
                    return;
                }
            }
            asked = (asked + 1) % 16;
        }
    }

    /// Gives out one more piece of work, lane after lane. `false` if there is none.
    fn dispatch(&mut self) -> bool {
        for _ in 0..self.lanes.len() {
            let nth = self.next_lane;
            self.next_lane = (self.next_lane + 1) % self.lanes.len();
            let lane = &mut self.lanes[nth];
            if lane.strategy.is_none() && !lane.surveying {
                lane.surveying = true;
                return self.send(Job::survey(nth));
            }
            lane.plan(self.campaign);
            if let Some((number, plan)) = lane.planned.pop_front() {
                lane.order.push_back((number, plan.by));
                let twice = self.campaign.strategy == StrategyName::Twice;
                return self.send(Job::play(nth, number, plan, twice));
            }
        }
        false
    }

    fn send(&mut self, job: Job) -> bool {
        self.under_way += 1;
        self.work.send(job).is_ok()
    }

    fn take(&mut self, work: Work) {
        self.under_way -= 1;
        let campaign = self.campaign;
        match work {
            Work::Surveyed(nth, played) => {
                let (entry, lane) = (&campaign.entries[nth], &mut self.lanes[nth]);
                let survey = Survey::new(&entry.digest, played.notes.kept.clone());
                lane.report.coverage.survey(&survey);
                lane.report.see(&played.sometimes);
                lane.strategy = Some(campaign.strategy.build(&survey));
                if !played.findings.is_empty() {
                    // What breaks without any fault needs no storm.
                    lane.consume(campaign, entry, 0, StrategyName::Single, &played);
                    lane.ended = !campaign.keep_going;
                }
            }
            Work::Played(nth, number, played) => {
                let (entry, lane) = (&campaign.entries[nth], &mut self.lanes[nth]);
                lane.early.insert(number, *played);
                while let Some((number, by)) = lane.order.front().copied() {
                    let Some(played) = lane.early.remove(&number) else {
                        break;
                    };
                    lane.order.pop_front();
                    if !lane.ended && !lane.consume(campaign, entry, number, by, &played) {
                        lane.ended = true;
                        lane.planned.clear();
                    }
                }
            }
            Work::Shrunk(..) => {}
        }
    }

    fn standing(&mut self) -> Standing {
        let standing = &mut self.standing;
        standing.runs = self.lanes.iter().map(|lane| lane.report.runs).sum();
        standing.sites = self.lanes.iter().map(|lane| lane.report.coverage.sites.len()).sum();
        standing.struck = self.lanes.iter().map(|lane| lane.report.coverage.struck.len()).sum();
        let names = |lane: &Lane| {
            let of = |found: &Found| (lane.report.name.clone(), found.finding.promise.clone());
            lane.report.violations.iter().map(of).collect::<Vec<_>>()
        };
        standing.violations = self.lanes.iter().flat_map(names).collect();
        standing.clone()
    }

    /// Shrinks the violations that are told: of each promise the first, or of each scenario and promise when the campaign kept going.
    fn shrink(&mut self, watch: &mut dyn FnMut(&Standing) -> Go) {
        let mut told: Vec<String> = Vec::new();
        let mut wanted = Vec::new();
        for (lane, of) in self.lanes.iter().enumerate() {
            for (place, found) in of.report.violations.iter().enumerate() {
                let promise = &found.finding.promise;
                if self.campaign.keep_going || !told.contains(promise) {
                    told.push(promise.clone());
                    wanted.push((lane, place));
                }
            }
        }
        if self.go != Go::Now {
            self.wait_for_shrinking(&wanted, watch);
        }
        self.enough.store(true, Ordering::Relaxed);
        for (lane, place) in wanted {
            self.keep_as_found(lane, place);
        }
    }

    /// What is not shrunk by now is told as it was found.
    fn keep_as_found(&mut self, lane: usize, place: usize) {
        let found = &mut self.lanes[lane].report.violations[place];
        if found.shrunk.is_none() {
            let how = Shrinking {
                mutant: self.campaign.mutant_name(),
                budget: 0,
                enough: Arc::clone(&self.enough),
            };
            found.shrunk = made_small(&*self.campaign.entries[lane].subject, &Memory::default(), found, how);
        }
    }

    fn wait_for_shrinking(&mut self, wanted: &[(usize, usize)], watch: &mut dyn FnMut(&Standing) -> Go) {
        let budget = if self.go == Go::Stop { 0 } else { self.campaign.shrink };
        for (lane, place) in wanted {
            let found = &self.lanes[*lane].report.violations[*place];
            let job = Job::shrink(*lane, *place, found.clone(), self.campaign.mutant_name(), budget);
            if self.work.send(job).is_err() {
                return;
            }
        }
        let (mut left, of) = (wanted.len(), wanted.len());
        let mut patience = PATIENCE;
        while left > 0 && patience > 0 {
            self.standing.shrinking = Some((of - left, of));
            match self.done.recv_timeout(TICK) {
                Ok(Work::Shrunk(lane, place, shrunk)) => {
                    left -= 1;
                    self.lanes[lane].report.violations[place].shrunk = shrunk.map(|shrunk| *shrunk);
                }
                // A run that was under way when exploring ended.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => patience -= u32::from(self.go == Go::Stop),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let standing = self.standing();
            let go = watch(&standing);
            match go {
                Go::Now => {
                    self.go = go;
                    return;
                }
                Go::Stop if self.go != Go::Stop => {
                    self.go = go;
                    self.enough.store(true, Ordering::Relaxed);
                }
                Go::On | Go::Enough | Go::Stop => {}
            }
        }
    }

    fn report(self) -> Report {
        let campaign = self.campaign;
        Report {
            schema: SCHEMA,
            version: VERSION.to_owned(),
            strategy: campaign.strategy.to_string(),
            mutant: campaign.mutant_name(),
            seeds: (campaign.seeds.start, campaign.seeds.end),
            shards: [campaign.shard].into(),
            interrupted: self.go != Go::On,
            driver: None,
            scenarios: self.lanes.into_iter().map(|lane| lane.report).collect(),
        }
    }
}

/// The finding that two plays of one run differ.
pub(super) fn differs(line: usize, first: &str, second: &str, link: Option<&str>) -> Finding {
    let whose = match link {
        Some(link) => format!(": calls, order and faults were the same, {link} answered differently"),
        None => String::new(),
    };
    let text = format!("line {line} of the trace differs{whose}\n  first:  {first}\n  second: {second}");
    Finding::plain(SAME_AGAIN, 4, text)
}

/// The calm run of a scenario, every meeting kept.
pub(super) fn survey_run() -> Run {
    Run {
        keep_meetings: true,
        ..Run::storm(0, Box::new(Calm))
    }
}

/// The shared memory of the sites that one thread has told for one scenario.
pub(super) type Memory = Arc<Mutex<Told>>;

/// The next job of a channel that several threads share.
pub(super) fn next_job(heard: &Mutex<Receiver<Job>>) -> Option<Job> {
    heard.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
