//! Where faults strike: every effect is met at its phases, and what is pinned there, or what the run's chooser takes from the menu, strikes.
//!
//! Where nothing can strike, effects are neither named nor counted: [`Met`] is empty, and a meeting costs one comparison.
//!
//! What a fault does to others than the effect that it strikes is done in `befall.rs`; what it does to the effect is left to whoever performs it: to
//! `perform.rs`, and for the operations of a driver to `operations.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::Cluster;
use super::acts::Act;
use super::process::Liveness;
use crate::api::{Kind, Write};
use crate::faults::{Chooser, Fault, Meeting, Spot, Strike, menu, operation_menu, user};
use crate::link::CsiRequest;
use crate::runtime::Time;
use crate::scenario::effects;
use crate::scenario::{Phase, PlainPhase, Process, Role, Site};
use crate::trace::{Met, Record, SiteBook, What};

/// How long a real process has had a request when it dies in the middle of it: its own pace decides how far it got.
const MIDDLE: Duration = Duration::from_millis(1);

/// Everything that decides what strikes.
#[derive(Default)]
pub(super) struct Storm {
    chooser: Option<Box<dyn Chooser>>,
    pinned: Vec<Pinned>,
    struck: Vec<Strike>,
    /// What the names of processes say; nothing for those of no scenario.
    processes: BTreeMap<String, Option<Process>>,
    menus: BTreeMap<(Process, Option<Process>, String, PlainPhase), Vec<Fault>>,
    /// Calls under their names, and how many operations they have caused.
    calls: BTreeMap<u64, (Met, u32)>,
    /// Until when, and by how much, operations of storage systems take longer.
    slow: Option<(Time, Duration)>,
    /// By how many seconds the clocks of processes are ahead.
    skews: BTreeMap<String, i64>,
    /// It is over: nothing strikes any more.
    over: bool,
}

/// The storm as the cluster and the operations of drivers share it. Nothing ever contends: one thread runs a world.
#[derive(Clone, Default)]
pub(super) struct Desk(Arc<DeskState>);

#[derive(Default)]
struct DeskState {
    storm: Mutex<Storm>,
    /// Something may strike.
    open: AtomicBool,
}

impl Desk {
    pub fn storm(&self) -> MutexGuard<'_, Storm> {
        self.0.storm.lock().expect("no chooser panics")
    }

    /// Whether something may strike.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Relaxed)
    }

    fn open(&self) {
        self.0.open.store(true, Ordering::Relaxed);
    }

    /// Nothing strikes from now on, and nothing is slow or wrong.
    pub fn close(&self) {
        self.0.open.store(false, Ordering::Relaxed);
        let mut storm = self.storm();
        (storm.over, storm.chooser, storm.slow) = (true, None, None);
        storm.skews.clear();
    }

    /// A driver's process is about to do an operation on behalf of a call: what strikes it.
    pub fn operation(&self, process: &str, call: u64, operation: &str, now: Time) -> Option<Strike> {
        self.storm().operation(process, call, operation, now)
    }

    /// Whether a fault is the end of the process of this name.
    pub fn ends(&self, process: &str, fault: &Fault) -> bool {
        let process = self.storm().process(process);
        process.is_some_and(|process| fault.ends(&process))
    }

    /// How much longer operations of storage systems take now.
    pub fn slowness(&self, now: Time) -> Duration {
        if !self.is_open() {
            return Duration::ZERO;
        }
        let slow = self.storm().slow;
        slow.filter(|(until, _)| *until > now)
            .map_or(Duration::ZERO, |(_, by)| by)
    }

    /// From now on operations of storage systems take longer.
    pub fn slow(&self, until: Time, by: Duration) {
        self.storm().slow = Some((until, by));
    }

    /// The clock of a process jumps.
    pub fn skew(&self, process: &str, by: Duration, back: bool) {
        let by = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        let mut storm = self.storm();
        let skew = storm.skews.entry(process.to_owned()).or_default();
        *skew = skew.saturating_add(if back { -by } else { by });
    }

    /// What the clock of a process shows.
    pub fn shown(&self, process: &str, true_time: Duration) -> Duration {
        let skew = self.storm().skews.get(process).copied().unwrap_or(0);
        let by = Duration::from_secs(skew.unsigned_abs());
        if skew < 0 {
            true_time.saturating_sub(by)
        } else {
            true_time + by
        }
    }
}

/// Who pinned a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinnedBy {
    /// A step of the scenario: it must strike.
    Scenario,
    /// Whoever plays it.
    Player,
}

/// A fault that waits for its site.
struct Pinned {
    strike: Strike,
    /// The name of the site's process in the cluster.
    process: String,
    by: PinnedBy,
    struck: bool,
}

impl Storm {
    fn process(&mut self, name: &str) -> Option<Process> {
        if let Some(known) = self.processes.get(name) {
            return known.clone();
        }
        let process = Process::parse(name).ok();
        self.processes.insert(name.to_owned(), process.clone());
        process
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What is pinned to this phase of an effect. It counts as struck.
    fn take_pinned(&mut self, met: &Met, phase: Phase) -> Vec<Strike> {
        let mut due = Vec::new();
        if self.over {
            return due;
        }
        for pinned in &mut self.pinned {
            if pinned.struck || pinned.strike.at.phase != phase || !met.is(&pinned.process, &pinned.strike.at) {
                continue;
            }
            pinned.struck = true;
            if pinned.by == PinnedBy::Player {
                self.struck.push(pinned.strike.clone());
            }
            due.push(pinned.strike.clone());
        }
        due
    }

    fn operation(&mut self, process: &str, call: u64, operation: &str, now: Time) -> Option<Strike> {
        let (met, count) = self.calls.get_mut(&call)?;
        *count += 1;
        let phase = Phase::AfterOp(*count);
        let met = met.clone();
        // An operation has one outcome: of several faults that are pinned to it the first strikes.
        if let Some(strike) = self.take_pinned(&met, phase).into_iter().next() {
            return Some(strike);
        }
        self.chooser.as_ref()?;
        let (effect, object, attempt) = met.of(process)?;
        let process = self.process(process)?;
        effects::fits(process.role, effect, phase).ok()?;
        let menu = operation_menu(&process, operation);
        let site = Site {
            process,
            effect: effect.to_owned(),
            object: object.to_owned(),
            attempt,
            phase,
        };
        self.ask(site, &menu, now)
    }

    fn ask(&mut self, site: Site, menu: &[Fault], now: Time) -> Option<Strike> {
        if menu.is_empty() {
            return None;
        }
        let meeting = Meeting { site: &site, menu, now };
        let nth = self.chooser.as_mut()?.choose(&meeting)?;
        let fault = menu.get(nth).expect("a chooser names a place of the menu").clone();
        let strike = Strike { at: site, fault };
        self.struck.push(strike.clone());
        Some(strike)
    }
}

impl Cluster {
    /// From now on effects are named and counted, so that faults can be pinned to them.
    pub fn count_sites(&mut self) {
        self.book.get_or_insert_with(SiteBook::default);
        self.desk.open();
    }

    /// From now on the chooser decides at every meeting where nothing is pinned.
    pub fn storm(&mut self, chooser: Box<dyn Chooser>) {
        self.count_sites();
        self.desk.storm().chooser = Some(chooser);
    }

    /// Pins a fault. Attempts count from [`Cluster::count_sites`] on. Processes are spelled as in the cluster.
    ///
    /// # Errors
    /// If a process does not exist, or the site has passed already.
    pub fn pin(&mut self, strike: Strike, by: PinnedBy) -> Result<(), String> {
        self.count_sites();
        let site = &strike.at;
        let process = site.process.to_string();
        for named in std::iter::once(&site.process).chain(strike.fault.process()) {
            if !self.exists(&named.to_string(), named.role == Role::Node) {
                return Err(format!("there is no process {named}"));
            }
        }
        let so_far = self.book.as_ref().map_or(0, |book| book.so_far(&process, site));
        let is_to_come = matches!(
            site.phase,
            Phase::Plain(PlainPhase::BeforeReply | PlainPhase::AfterReply) | Phase::AfterOp(_)
        ) && self.calls.values().any(|flight| flight.met.is(&process, site));
        if so_far >= site.attempt && !is_to_come {
            return Err(format!(
                "the site `{site}` has passed already: {so_far} {} so far. Put the {} before the step that leads there, \
                 or name attempt {} or a later one",
                if so_far == 1 { "attempt" } else { "attempts" },
                strike.fault.kind(),
                so_far.saturating_add(1)
            ));
        }
        self.desk.storm().pinned.push(Pinned {
            process,
            by,
            struck: false,
            strike,
        });
        Ok(())
    }

    /// What a step of the scenario pinned and what has not struck.
    pub fn pending_strikes(&self) -> Vec<Strike> {
        let storm = self.desk.storm();
        let pending = |pinned: &&Pinned| !pinned.struck && pinned.by == PinnedBy::Scenario;
        storm
            .pinned
            .iter()
            .filter(pending)
            .map(|pinned| pinned.strike.clone())
            .collect()
    }

    /// What struck and was not pinned by a step of the scenario, in order.
    pub fn struck(&self) -> Vec<Strike> {
        self.desk.storm().struck.clone()
    }

    /// A call begins. It belongs to two processes, the caller and the driver's: a fault may be pinned in either's name.
    pub(super) fn meet_call(&mut self, caller: &str, callee: Option<&str>, request: &CsiRequest) -> Met {
        let Some(book) = &mut self.book else {
            return Met::default();
        };
        book.read(self.trace.records());
        let sides: Vec<&str> = std::iter::once(caller).chain(callee).collect();
        book.call(&sides, request)
    }

    /// A write begins.
    pub(super) fn meet_write(&mut self, process: &str, write: &Write) -> Met {
        let Some(book) = &mut self.book else {
            return Met::default();
        };
        book.read(self.trace.records());
        book.write(process, write)
    }

    /// A call is sent: from now on its operations count.
    pub(super) fn met_call(&mut self, id: u64, met: &Met) {
        if !met.is_empty() && self.desk.is_open() {
            self.desk.storm().calls.insert(id, (met.clone(), 0));
        }
    }

    /// An effect is at this phase: whatever strikes there strikes now. What it does to others is done; the faults are given back for what they do to the
    /// effect. `answered`: the driver did what it was told.
    pub(super) fn strike(&mut self, met: &Met, phase: PlainPhase, answered: bool) -> Vec<Fault> {
        if met.is_empty() || !self.desk.is_open() {
            return Vec::new();
        }
        let mut strikes = self.desk.storm().take_pinned(met, Phase::Plain(phase));
        let chosen = strikes.is_empty();
        if chosen {
            strikes.extend(self.choose(met, phase, answered));
        }
        for strike in &strikes {
            self.note_strike(strike);
            if chosen && self.is_in_the_middle(&strike.fault, phase) {
                self.act_later(MIDDLE, Act::Befall(strike.fault.clone()));
            } else {
                self.befall(&strike.fault);
            }
        }
        strikes.into_iter().map(|strike| strike.fault).collect()
    }

    fn note_strike(&mut self, strike: &Strike) {
        self.trace.push(Record {
            at: self.board.now(),
            process: Arc::from(strike.at.process.to_string()),
            what: What::Fault(strike.to_string()),
        });
    }

    /// A fault struck an operation that belongs to a call.
    pub(super) fn befall_operation(&mut self, call: u64, strike: &Strike) {
        self.note_strike(strike);
        // What the process has said since then never left it.
        if let Some(flight) = self.calls.get_mut(&call)
            && strike.fault.process().is_some()
        {
            flight.cut = true;
        }
        self.befall(&strike.fault);
    }

    /// Asks the chooser.
    fn choose(&mut self, met: &Met, phase: PlainPhase, answered: bool) -> Option<Strike> {
        let (process, callee) = {
            let mut storm = self.desk.storm();
            storm.chooser.as_ref()?;
            let callee = met.callee().and_then(|name| storm.process(name));
            (storm.process(met.first()?.0)?, callee)
        };
        let (_, effect, object, attempt) = met.first()?;
        let site = Site {
            process,
            effect: effect.to_owned(),
            object: object.to_owned(),
            attempt,
            phase: Phase::Plain(phase),
        };
        effects::fits(site.process.role, effect, site.phase).ok()?;
        let menu = self.menu(&site, callee.as_ref(), phase, answered);
        self.desk.storm().ask(site, &menu, self.board.now())
    }

    /// What may strike here now: what is dead already does not die again, and an answer that is none is not tampered with.
    fn menu(&self, site: &Site, callee: Option<&Process>, phase: PlainPhase, answered: bool) -> Vec<Fault> {
        let Site { process, effect, .. } = site;
        let key = (process.clone(), callee.cloned(), effect.clone(), phase);
        let whole = || {
            menu(&Spot {
                process,
                callee,
                effect,
                phase,
            })
        };
        let mut menu = self.desk.storm().menus.entry(key).or_insert_with(whole).clone();
        menu.retain(|fault| self.makes_sense(fault, answered));
        if let Some(claim) =
            effects::object_ref(&site.object).filter(|object| object.kind == Kind::PersistentVolumeClaim)
        {
            let growing = self.is_growing(&claim.key).then_some(&*site.object);
            user::offer(self.recreatable(&claim.key), growing, &mut menu);
        }
        menu
    }

    fn makes_sense(&self, fault: &Fault, answered: bool) -> bool {
        if !self.can_befall(fault) {
            return false;
        }
        match fault {
            Fault::Crash { process, .. } => self.is_alive(process),
            Fault::Pause { process, .. } => self.is_alive(process) && !self.is_paused(&process.to_string()),
            Fault::TwoLeaders { process } => self.is_alive(process),
            Fault::StaleInformer { process, .. } | Fault::Relist { process, .. } => {
                self.is_alive(process) && !self.is_blind(&process.to_string())
            }
            Fault::RemoveNode { node, .. } => self.is_alive(&Process::node(node)) && self.can_be_removed(node),
            Fault::PowerLoss { node, .. }
            | Fault::Partition { node, .. }
            | Fault::OutOfService { node }
            | Fault::FailDevices { node, .. }
            | Fault::StaleLink { node, .. }
            | Fault::CachedSize { node, .. } => self.is_alive(&Process::node(node)),
            fault => answered || !fault.is_of_an_answer(),
        }
    }

    fn is_alive(&self, process: &Process) -> bool {
        let name = process.to_string();
        match (process.role, &process.node) {
            (Role::Node, Some(node)) => self.machine(node).is_some_and(crate::host::Machine::is_up),
            _ => match self.process(&name) {
                Some(id) => self.liveness(id) != Liveness::Down,
                None => self.driver_is_alive(&name),
            },
        }
    }
}
