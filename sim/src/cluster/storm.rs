//! Where faults strike: every effect is met at its phases, and what is pinned there, or what the run's chooser takes from the menu, strikes.
//!
//! Where nothing can strike, effects are neither named nor counted: [`Met`] is empty, and a meeting costs one comparison.
//!
//! What a fault does to a process is done here; what it does to the effect itself is left to whoever performs the effect (`perform.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use super::process::Liveness;
use crate::api::Write;
use crate::faults::{Chooser, Fault, Meeting, Spot, Strike, menu};
use crate::link::CsiRequest;
use crate::scenario::effects;
use crate::scenario::{Phase, PlainPhase, Process, Role, Site};
use crate::trace::{Met, Record, SiteBook, What};

/// Everything that decides what strikes.
#[derive(Default)]
pub(super) struct Storm {
    /// Names and counts of effects; only where something may strike.
    book: Option<SiteBook>,
    chooser: Option<Box<dyn Chooser>>,
    pinned: Vec<Pinned>,
    struck: Vec<Strike>,
    /// What the names of processes say; nothing for those of no scenario.
    processes: BTreeMap<String, Option<Process>>,
    menus: BTreeMap<(Process, Option<Process>, String, PlainPhase), Vec<Fault>>,
    /// It is over: nothing strikes any more.
    over: bool,
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
    phase: PlainPhase,
    by: PinnedBy,
    struck: bool,
}

impl Storm {
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Nothing strikes from now on.
    pub fn end(&mut self) {
        self.over = true;
        self.chooser = None;
    }

    fn process(&mut self, name: &str) -> Option<Process> {
        if let Some(known) = self.processes.get(name) {
            return known.clone();
        }
        let process = Process::parse(name).ok();
        self.processes.insert(name.to_owned(), process.clone());
        process
    }

    /// What is pinned to this phase of an effect. It counts as struck.
    fn take_pinned(&mut self, met: &Met, phase: PlainPhase) -> Vec<Strike> {
        let mut due = Vec::new();
        for pinned in &mut self.pinned {
            if pinned.struck || pinned.phase != phase || !met.is(&pinned.process, &pinned.strike.at) {
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
}

impl Cluster {
    /// From now on effects are named and counted, so that faults can be pinned to them.
    pub fn count_sites(&mut self) {
        self.storm.book.get_or_insert_with(SiteBook::default);
    }

    /// From now on the chooser decides at every meeting where nothing is pinned.
    pub fn storm(&mut self, chooser: Box<dyn Chooser>) {
        self.count_sites();
        self.storm.chooser = Some(chooser);
    }

    /// Pins a fault. Attempts count from [`Cluster::count_sites`] on. Processes are spelled as in the cluster.
    ///
    /// # Errors
    /// If a process does not exist, the phase is not one of a call or a write, or the site has passed already.
    pub fn pin(&mut self, strike: Strike, by: PinnedBy) -> Result<(), String> {
        let site = &strike.at;
        let Phase::Plain(phase) = site.phase else {
            return Err(format!(
                "the phase {} needs a driver that counts its operations on the host: not modelled yet",
                site.phase
            ));
        };
        let process = site.process.to_string();
        for named in std::iter::once(&site.process).chain(strike.fault.process()) {
            if !self.exists(&named.to_string(), named.role == Role::Node) {
                return Err(format!("there is no process {named}"));
            }
        }
        let so_far = self
            .storm
            .book
            .get_or_insert_with(SiteBook::default)
            .so_far(&process, site);
        let answer_to_come = matches!(phase, PlainPhase::BeforeReply | PlainPhase::AfterReply)
            && self.calls.values().any(|flight| flight.met.is(&process, site));
        if so_far >= site.attempt && !answer_to_come {
            return Err(format!(
                "the site `{site}` has passed already: {so_far} {} so far. Put the {} before the step that leads there, \
                 or name attempt {} or a later one",
                if so_far == 1 { "attempt" } else { "attempts" },
                strike.fault.kind(),
                so_far.saturating_add(1)
            ));
        }
        self.storm.pinned.push(Pinned {
            process,
            phase,
            by,
            struck: false,
            strike,
        });
        Ok(())
    }

    /// What a step of the scenario pinned and what has not struck.
    pub fn pending_strikes(&self) -> impl Iterator<Item = &Strike> {
        let pending = |pinned: &&Pinned| !pinned.struck && pinned.by == PinnedBy::Scenario;
        self.storm.pinned.iter().filter(pending).map(|pinned| &pinned.strike)
    }

    /// What struck and was not pinned by a step of the scenario, in order.
    pub fn struck(&self) -> &[Strike] {
        &self.storm.struck
    }

    /// A call begins. It belongs to two processes, the caller and the driver's: a fault may be pinned in either's name.
    pub(super) fn meet_call(&mut self, caller: &str, callee: Option<&str>, request: &CsiRequest) -> Met {
        let Some(book) = &mut self.storm.book else {
            return Met::default();
        };
        book.read(self.trace.records());
        let sides: Vec<&str> = std::iter::once(caller).chain(callee).collect();
        book.call(&sides, request)
    }

    /// A write begins.
    pub(super) fn meet_write(&mut self, process: &str, write: &Write) -> Met {
        let Some(book) = &mut self.storm.book else {
            return Met::default();
        };
        book.read(self.trace.records());
        book.write(process, write)
    }

    /// An effect is at this phase: whatever strikes there strikes now. What it does to processes is done; the faults are given back for what they do
    /// to the effect. `answered`: the driver did what it was told.
    pub(super) fn strike(&mut self, met: &Met, phase: PlainPhase, answered: bool) -> Vec<Fault> {
        if met.is_empty() || self.storm.over {
            return Vec::new();
        }
        let mut strikes = self.storm.take_pinned(met, phase);
        if strikes.is_empty() {
            strikes.extend(self.choose(met, phase, answered));
        }
        for strike in &strikes {
            self.trace.push(Record {
                at: self.board.now(),
                process: Arc::from(strike.at.process.to_string()),
                what: What::Fault(strike.to_string()),
            });
            self.befall(&strike.fault);
        }
        strikes.into_iter().map(|strike| strike.fault).collect()
    }

    /// Asks the chooser.
    fn choose(&mut self, met: &Met, phase: PlainPhase, answered: bool) -> Option<Strike> {
        self.storm.chooser.as_ref()?;
        let (process, effect, object, attempt) = met.first()?;
        let process = self.storm.process(process)?;
        effects::fits(process.role, effect, Phase::Plain(phase)).ok()?;
        let callee = met.callee().and_then(|name| self.storm.process(name));
        let menu = self.menu(&process, callee.as_ref(), effect, phase, answered);
        let site = Site {
            process,
            effect: effect.to_owned(),
            object: object.to_owned(),
            attempt,
            phase: Phase::Plain(phase),
        };
        if menu.is_empty() {
            return None;
        }
        let meeting = Meeting {
            site: &site,
            menu: &menu,
            now: self.board.now(),
        };
        let nth = self.storm.chooser.as_mut()?.choose(&meeting)?;
        let fault = menu.get(nth).expect("a chooser names a place of the menu").clone();
        let strike = Strike { at: site, fault };
        self.storm.struck.push(strike.clone());
        Some(strike)
    }

    /// What may strike here now: what is dead already does not die again, and an answer that is none is not tampered with.
    fn menu(
        &mut self,
        process: &Process,
        callee: Option<&Process>,
        effect: &str,
        phase: PlainPhase,
        answered: bool,
    ) -> Vec<Fault> {
        let key = (process.clone(), callee.cloned(), effect.to_owned(), phase);
        let whole = self.storm.menus.entry(key).or_insert_with(|| {
            menu(&Spot {
                process,
                callee,
                effect,
                phase,
            })
        });
        let mut menu = whole.clone();
        menu.retain(|fault| match fault {
            Fault::Crash { process, .. } => self.is_alive(process),
            Fault::Pause { process, .. } => self.is_alive(process) && !self.is_paused(&process.to_string()),
            fault => answered || !fault.is_of_an_answer(),
        });
        menu
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

    /// What a fault does to processes.
    fn befall(&mut self, fault: &Fault) {
        match fault {
            Fault::Crash { process, down } => {
                let (name, node) = (process.to_string(), process.role == Role::Node);
                // It was looked up when the fault was pinned, or when the menu was made.
                let _ = self.crash_named(&name, node);
                match (down, node) {
                    (Some(down), _) => self.start_later(&name, node, down.get()),
                    (None, false) => self.start_later(&name, node, Duration::ZERO),
                    (None, true) => {}
                }
            }
            Fault::Pause { process, lasts } => self.pause(&process.to_string(), lasts.get()),
            Fault::RefuseCall { .. }
            | Fault::DelayCall { .. }
            | Fault::DuplicateCall {}
            | Fault::LoseAnswer {}
            | Fault::DelayAnswer { .. }
            | Fault::ReplaceAnswer { .. }
            | Fault::Conflict {}
            | Fault::FailWrite {}
            | Fault::ThrottleWrite { .. }
            | Fault::LoseWriteAnswer {} => {}
        }
    }
}
