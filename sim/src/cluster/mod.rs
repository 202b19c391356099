//! The cluster: processes, API server, nodes and drivers on one agenda, one effect at a time.
//!
//! [`Cluster::step`] releases the next entry of the agenda and performs it. Everything a process does goes the same way: its shell asks for an effect,
//! the effect is performed when its turn comes, watchers and the process itself learn of it when theirs comes. Nothing else happens between two entries.

mod acts;
mod befall;
mod data;
mod deliver;
mod drivers;
mod faults;
mod heal;
mod heartbeats;
mod informers;
mod latency;
mod leftovers;
mod nodes;
mod operations;
mod outside;
mod overtaken;
mod pauses;
mod perform;
mod process;
mod removal;
mod storm;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{ApiServer, Change, Clock, Kind, Object, Patience, Write};
use crate::control::{Outcome, Request, Signal};
use crate::faults::Strike;
use crate::link::{Call, CallError, CsiReply, Elsewhere, Served};
use crate::runtime::{Board, Chance, Entry, Lane, Tasks, Ticket, Time, settle};
use crate::trace::{Met, SiteBook, Trace};

pub use drivers::{BoardClock, DriverSpec, Injection, Launch, Launching, Scripted, ScriptedCall};
pub use latency::Latency;
pub use nodes::NodeSpec;
pub use operations::{Behalf, Operations};
pub use process::{Liveness, ProcessId, ProcessSpec};
pub use storm::PinnedBy;
pub use user::USER;

use drivers::Drivers;
use nodes::Nodes;
use process::Process;

/// What the cluster finds on its agenda.
pub enum Due {
    /// The informers of a starting process are filled.
    Synced(Who),
    /// A delayed key of a process is due.
    Wake(Who),
    /// An effect reaches what it is meant for.
    Perform(Who, usize, Request),
    /// An effect that was held up when it was met reaches what it is meant for.
    Proceed(Who, usize, Request, Met),
    /// A process learns what came of an effect.
    Outcome(Who, usize, u64, Outcome),
    /// A watch event reaches a process.
    Deliver(Who, Arc<Change>),
    /// Something else reaches a process.
    Signal(Who, Signal),
    /// A recorder writes an event.
    Emit(ProcessId, Arc<str>, Write),
    /// A container that exited is started again.
    Restart(ProcessId),
    /// The caller's task has the answer to a call.
    Replied(u64, Result<CsiReply, CallError>),
    /// A process or node that was ended is started again.
    StartNamed(String, bool),
    /// A driver process has its services, or could not start.
    DriverUp(usize, u32, Result<Served, String>),
    /// A fault struck an operation that belongs to a call.
    Befall(u64, Strike),
    /// Something happens because of a fault that struck earlier.
    Act(u64),
    /// A process sees the API again.
    See(ProcessId),
    /// A call found nobody behind the socket of this life of a driver process.
    DriverGone(usize, u32),
    /// A process that stands still goes on.
    GoOn(String),
}

/// One incarnation of a process: what is meant for a dead one goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    process: ProcessId,
    incarnation: u32,
}

struct InFlight {
    who: Who,
    shell: usize,
    token: u64,
    call: Arc<Call>,
    sent: Time,
    /// Under which names it may be struck.
    met: Met,
    /// Its answer has been met.
    answered: bool,
    /// The driver died before its answer left.
    cut: bool,
}

/// A Kubernetes storage cluster.
pub struct Cluster {
    /// The agenda. Declared first, so that a dropped cluster drops its waiting tasks' places before the tasks.
    board: Arc<Board<Due>>,
    chance: Chance,
    latency: Latency,
    api: ApiServer,
    trace: Trace,
    processes: Vec<Process>,
    names: BTreeMap<Arc<str>, ProcessId>,
    /// Who watches a kind: processes that see every object of it.
    watchers: BTreeMap<Kind, Vec<ProcessId>>,
    /// The process that sees only what concerns a node.
    node_watchers: BTreeMap<Arc<str>, ProcessId>,
    nodes: Nodes,
    ledgers: Vec<(Arc<str>, crate::host::ModelDisk)>,
    heartbeats: heartbeats::Heartbeats,
    drivers: Drivers,
    calls: BTreeMap<u64, InFlight>,
    next_call: u64,
    changes: Vec<Change>,
    /// Names and counts of effects; only where something may strike.
    book: Option<SiteBook>,
    desk: storm::Desk,
    /// What faults do later.
    acts: BTreeMap<u64, acts::Act>,
    /// Calls that left their callers and have not arrived, by number.
    overtaken: BTreeMap<u64, overtaken::Overtaken>,
    next_act: u64,
    /// Leaders that lost their lease, and what carries their calls.
    ghosts: Vec<Who>,
    ghost_tasks: Vec<Tasks>,
    /// Until when processes stand still, by name.
    pauses: BTreeMap<String, Time>,
    data: data::Data,
    /// Where the drivers and their machines are, if not in the tank.
    elsewhere: Option<Arc<dyn Elsewhere>>,
    user: Lane,
    restarts_containers: bool,
}

impl Cluster {
    /// An empty cluster. Only inside [`crate::runtime::run`].
    pub fn new(seed: u64, latency: Latency, trace: Trace) -> Cluster {
        let board = Arc::new(Board::default());
        let user = board.lane(user::USER);
        Cluster {
            board,
            chance: Chance::new(seed),
            latency,
            api: ApiServer::new(Clock::EPOCH),
            trace,
            processes: Vec::new(),
            names: BTreeMap::new(),
            watchers: BTreeMap::new(),
            node_watchers: BTreeMap::new(),
            nodes: Nodes::default(),
            ledgers: Vec::new(),
            heartbeats: heartbeats::Heartbeats::default(),
            drivers: Drivers::default(),
            calls: BTreeMap::new(),
            next_call: 1,
            changes: Vec::new(),
            book: None,
            desk: storm::Desk::default(),
            acts: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            next_act: 1,
            ghosts: Vec::new(),
            ghost_tasks: Vec::new(),
            pauses: BTreeMap::new(),
            data: data::Data::default(),
            elsewhere: None,
            user,
            restarts_containers: true,
        }
    }

    /// Whether a container runtime starts a process that exited by itself again. If not, it stays down until somebody starts it.
    pub fn restart_containers(&mut self, restart: bool) {
        self.restarts_containers = restart;
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        self.board.now()
    }

    /// The chance of this run.
    pub fn chance(&self) -> &Chance {
        &self.chance
    }

    /// How long things take.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The API server, to look at.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// How long pods tolerate a lost node unless they say otherwise.
    pub fn set_patience(&mut self, patience: Patience) {
        self.api.patience = patience;
    }

    /// How long an event lives after its last write.
    pub fn keep_events_for(&mut self, ttl: Duration) {
        self.api.event_ttl = ttl;
    }

    /// The trace so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The trace, to begin or take it.
    pub fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// Performs the next entry of the agenda. `false` when there is none.
    pub async fn step(&mut self) -> bool {
        match self.board.pop() {
            None => return false,
            Some(Entry::Turn(release)) => {
                if release.send(()).is_ok() {
                    settle().await;
                }
            }
            Some(Entry::Event(due)) => self.dispatch(due),
        }
        if self.board.take_stirred() {
            settle().await;
        }
        true
    }

    /// Runs until `until`, or until `stop` says so after an entry. Time ends at `until` unless stopped before.
    pub async fn run_until(&mut self, until: Time, mut stop: impl FnMut(&Cluster) -> bool) -> bool {
        if stop(self) {
            return true;
        }
        while self.board.peek().is_some_and(|due| due <= until) {
            self.step().await;
            if stop(self) {
                return true;
            }
        }
        self.board.pass_to(until);
        false
    }

    /// Runs for a while.
    pub async fn run_for(&mut self, duration: std::time::Duration) {
        let until = self.now() + duration;
        self.run_until(until, |_| false).await;
    }

    /// Takes the cluster down: kills every process, lets the executor drop their tasks.
    pub async fn shut_down(mut self) -> Trace {
        let tasks: Vec<Tasks> = self.processes.iter_mut().filter_map(|p| p.tasks.take()).collect();
        tasks.iter().chain(&self.ghost_tasks).for_each(Tasks::kill);
        self.drivers.kill_all();
        settle().await;
        std::mem::take(&mut self.trace)
    }

    fn dispatch(&mut self, due: Due) {
        match due {
            Due::Synced(who) => self.synced(who),
            Due::Wake(who) => {
                if self.is_current(who) {
                    self.processes[who.process.0 as usize].wake = None;
                    self.pump(who.process);
                }
            }
            Due::Perform(who, shell, request) => self.perform(who, shell, request),
            Due::Proceed(who, shell, request, met) => self.proceed(who, shell, &request, &met, None),
            Due::Outcome(who, shell, token, outcome) => self.outcome(who, shell, token, &outcome),
            Due::Deliver(who, change) => self.deliver(who, &change),
            Due::Signal(who, signal) => self.signalled(who, &signal),
            Due::Emit(process, component, write) => self.emit(process, &component, &write),
            Due::Restart(process) => {
                self.processes[process.0 as usize].restart = None;
                if self.processes[process.0 as usize].liveness == Liveness::Down {
                    self.start(process);
                }
            }
            Due::Replied(call, result) => self.replied(call, result),
            Due::StartNamed(name, node) => {
                // It was found when it was ended.
                let _ = self.start_named(&name, node);
            }
            Due::DriverUp(driver, incarnation, services) => self.driver_up(driver, incarnation, services),
            Due::Befall(call, strike) => self.befall_operation(call, &strike),
            Due::Act(nth) => self.act(nth),
            Due::See(process) => self.see(process),
            Due::GoOn(name) => self.go_on(&name),
            Due::DriverGone(driver, incarnation) => self.driver_gone(driver, incarnation),
        }
    }

    fn is_current(&self, who: Who) -> bool {
        let process = &self.processes[who.process.0 as usize];
        process.incarnation == who.incarnation && process.liveness != Liveness::Down
    }

    /// Applies a write on behalf of `by` and tells the watchers.
    fn write(
        &mut self,
        by: &Arc<str>,
        component: &str,
        write: &Write,
    ) -> Result<crate::api::Written, crate::api::ApiError> {
        let now = self.now();
        // Nobody watches events: those of more than an hour ago go when the next write comes, not by a timer.
        self.api.expire_events(now);
        let before = if self.trace.is_on() { self.stored(write) } else { None };
        let result = self.api.write(component, write, now);
        if self.trace.is_on() {
            let what = crate::trace::What::Write {
                write: Arc::new(write.clone()),
                before,
                result: result.clone(),
            };
            self.trace.push(crate::trace::Record {
                at: now,
                process: Arc::clone(by),
                what,
            });
        }
        self.publish_changes();
        result
    }

    fn stored(&self, write: &Write) -> Option<Object> {
        let target = write.target();
        self.api.object(target.kind, &target.key).cloned()
    }

    /// Puts an event of `who` on the agenda.
    fn schedule(&self, who: Who, at: Time, due: Due) -> Ticket {
        self.board.at(self.processes[who.process.0 as usize].lane, at, due)
    }
}
