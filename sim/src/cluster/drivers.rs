//! The drivers behind the cluster: their processes, and the way of a call to them and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tonic::{Code, Status};
use tower::{Layer, ServiceExt, util::BoxCloneService};

use super::operations::{Behalf, Operations};
use super::{Cluster, Due, ProcessId, Who, outside};
use crate::host::Fence;
use crate::link::inproc::DISCONNECTED;
use crate::link::layers::{DeadlineLayer, Sleeper, Tamper, TamperLayer};
use crate::link::{Call, CallError, CsiReply, Served, Socket, Wire, socket};
use crate::runtime::{Board, Lane, Tasks, Time};
use crate::trace::{ProcessChange, Record, What};

/// Starts one process of a driver: called at every start, with the tasks of that incarnation.
pub type Launch = Box<dyn FnMut(Launching) -> BoxFuture<'static, Result<Served, String>>>;

/// What a [`Launch`] builds a seat from.
pub struct Launching {
    /// The process's own lane on the agenda.
    pub lane: Lane,
    /// The agenda.
    pub board: Arc<Board<Due>>,
    /// The tasks of this incarnation.
    pub tasks: Tasks,
    /// Counts from 1.
    pub incarnation: u32,
    /// Frozen when this incarnation dies, before its tasks are dropped.
    pub fence: Fence,
    /// Where its operations wait for their turn.
    pub operations: Operations,
}

/// Answers calls without a driver: for tests of the cluster itself.
pub type Scripted = Box<dyn FnMut(&ScriptedCall<'_>) -> (Duration, Result<CsiReply, Status>)>;

/// A call that reached a script.
pub struct ScriptedCall<'a> {
    /// Who calls.
    pub process: &'a str,
    /// The node of the socket, for node sockets.
    pub node: Option<&'a str>,
    /// The call.
    pub call: &'a Call,
    /// When.
    pub now: Time,
}

/// A driver to be added to a cluster.
pub enum DriverSpec {
    /// One process of a real driver.
    Process {
        /// The driver's name.
        driver: Arc<str>,
        /// The process's name in traces, e.g. `csi.example.com/controller` or `node-1/csi.example.com`.
        name: Arc<str>,
        /// The node it serves; `None` for the controller.
        node: Option<Arc<str>>,
        /// Starts it.
        launch: Launch,
    },
    /// One process of a driver that runs outside.
    Outside {
        /// The driver's name.
        driver: Arc<str>,
        /// The process's name in traces.
        name: Arc<str>,
        /// The node it serves; `None` for a controller that runs on no node.
        node: Option<Arc<str>>,
        /// Its other name, if it serves the sidecars, too.
        controller: Option<Arc<str>>,
        /// The process.
        process: Arc<socket::Process>,
        /// How long it takes to start, in virtual time.
        starts_in: Duration,
    },
    /// A script that answers every call to a driver.
    Scripted {
        /// The driver's name.
        driver: Arc<str>,
        /// The script.
        script: Scripted,
    },
}

/// Something that happens to the next calls of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The method, e.g. `NodeStageVolume`.
    pub method: String,
    /// Only calls on or for this node, when given.
    pub node: Option<String>,
    /// Only calls to this driver, when given.
    pub driver: Option<String>,
    /// Only calls for the volume of this claim (`name`, or `namespace/name` outside `default`), when given.
    pub claim: Option<String>,
    /// Only requests with this text in a value, when given.
    pub contains: Option<String>,
    /// How many calls it strikes; `None` for all until it is healed.
    pub times: Option<u32>,
    /// How many it has struck.
    pub struck: u32,
    /// What it does.
    pub tamper: Tamper,
}

/// As the subject of a sentence.
impl std::fmt::Display for Injection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the injection into {}", self.method)?;
        match self.times {
            Some(times) if self.struck > 0 => write!(f, " ({} of {times} times)", self.struck),
            _ => Ok(()),
        }
    }
}

impl Injection {
    /// The next `times` calls of a method, whoever makes them.
    pub fn on(method: &str, times: u32, tamper: Tamper) -> Injection {
        Injection {
            method: method.into(),
            node: None,
            driver: None,
            claim: None,
            contains: None,
            times: Some(times),
            struck: 0,
            tamper,
        }
    }

    fn fits(&self, call: &Call, node: Option<&str>, claim: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|w| found == Some(w));
        self.method == call.request.method()
            && self.times.is_none_or(|times| self.struck < times)
            && is(&self.driver, Some(&call.driver))
            && is(&self.node, node)
            && is(&self.claim, claim)
            && self
                .contains
                .as_deref()
                .is_none_or(|text| format!("{:?}", call.request).contains(text))
    }
}

#[derive(Default)]
pub(super) struct Drivers {
    processes: Vec<DriverProcess>,
    seats: BTreeMap<(Arc<str>, Option<Arc<str>>), usize>,
    scripts: BTreeMap<Arc<str>, Scripted>,
    injections: Vec<Injection>,
}

struct DriverProcess {
    name: Arc<str>,
    /// Its name where the sidecars talk to it, if that is another one.
    controller: Option<Arc<str>>,
    lane: Lane,
    launch: Launch,
    outside: Option<Arc<socket::Process>>,
    incarnation: u32,
    state: DriverState,
    tasks: Option<Tasks>,
    fence: Fence,
    operations: Option<Operations>,
}

impl DriverProcess {
    /// From now on nothing of this incarnation has an effect. Calls that waited for its start are given back.
    fn die(&mut self) -> Vec<u64> {
        let before = std::mem::replace(&mut self.state, DriverState::Down);
        self.fence.freeze();
        if let Some(outside) = &self.outside {
            outside.kill();
        }
        let tasks = self.tasks.take();
        if let Some(tasks) = &tasks {
            tasks.kill();
        }
        match before {
            DriverState::Starting(waiting) => waiting.into_iter().map(|(id, _)| id).collect(),
            DriverState::Dormant | DriverState::Up(_) | DriverState::Down => Vec::new(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        *self.name == *name || self.controller.as_deref() == Some(name)
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, DriverState::Down)
    }
}

enum DriverState {
    /// Nobody has called it yet: it starts with the first call.
    Dormant,
    /// It is starting; these calls wait.
    Starting(Vec<(u64, Tamper)>),
    Up(Served),
    Down,
}

impl Drivers {
    pub fn kill_all(&mut self) {
        for process in &mut self.processes {
            process.die();
        }
    }
}

/// The agenda as a clock for the layers of a call.
#[derive(Clone)]
pub struct BoardClock {
    /// The agenda.
    pub board: Arc<Board<Due>>,
    /// Whose lane the waits stand in.
    pub lane: Lane,
}

impl Sleeper for BoardClock {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.board.turn(self.lane, duration).boxed()
    }
}

impl Cluster {
    /// Adds a driver process or a script.
    pub fn add_driver(&mut self, spec: DriverSpec) {
        match spec {
            DriverSpec::Process {
                driver,
                name,
                node,
                launch,
            } => {
                let at = self.add_process_of_driver(name, launch);
                self.drivers.seats.insert((driver, node), at);
            }
            DriverSpec::Outside {
                driver,
                name,
                node,
                controller,
                process,
                starts_in,
            } => {
                let at = self.add_process_of_driver(name, outside::launch(Arc::clone(&process), starts_in));
                if controller.is_some() {
                    self.drivers.seats.insert((Arc::clone(&driver), None), at);
                }
                self.drivers.seats.insert((driver, node), at);
                let added = &mut self.drivers.processes[at];
                (added.controller, added.outside) = (controller, Some(process));
            }
            DriverSpec::Scripted { driver, script } => {
                self.drivers.scripts.insert(driver, script);
            }
        }
    }

    fn add_process_of_driver(&mut self, name: Arc<str>, launch: Launch) -> usize {
        let lane = self.board.lane(&name);
        self.drivers.processes.push(DriverProcess {
            name,
            controller: None,
            lane,
            launch,
            outside: None,
            incarnation: 0,
            state: DriverState::Dormant,
            tasks: None,
            fence: Fence::new(),
            operations: None,
        });
        self.drivers.processes.len() - 1
    }

    /// What is to happen to the next calls of a kind. The first injection that fits a call and is not used up strikes.
    pub fn inject(&mut self, injection: Injection) {
        self.drivers.injections.push(injection);
    }

    /// Ends the injections of one method, or all.
    pub fn heal(&mut self, method: Option<&str>) {
        self.drivers
            .injections
            .retain(|i| method.is_some_and(|m| m != i.method));
    }

    /// Injections that have not struck as often as they should.
    pub fn pending_injections(&self) -> impl Iterator<Item = &Injection> {
        self.drivers
            .injections
            .iter()
            .filter(|i| i.struck < i.times.unwrap_or(1))
    }

    /// The tamper for this call; the injection that gave it counts.
    fn tamper(&mut self, call: &Call, node: Option<&str>) -> Tamper {
        if self.drivers.injections.is_empty() || self.desk.storm().is_over() {
            return Tamper::Pass;
        }
        let claim = self.claim_of(&call.request);
        let for_node = node
            .map(str::to_owned)
            .or_else(|| call.request.node_id().map(str::to_owned));
        let hit = self
            .drivers
            .injections
            .iter_mut()
            .find(|i| i.fits(call, for_node.as_deref(), claim.as_deref()));
        hit.map_or(Tamper::Pass, |injection| {
            injection.struck += 1;
            injection.tamper.clone()
        })
    }

    /// The names of the driver processes.
    pub fn driver_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.drivers
            .processes
            .iter()
            .flat_map(|p| std::iter::once(&p.name).chain(&p.controller))
    }

    /// The names of a node's driver processes.
    pub(super) fn drivers_on(&self, node: &str) -> Vec<String> {
        let here = self
            .drivers
            .seats
            .iter()
            .filter(|((_, n), _)| n.as_deref() == Some(node));
        here.map(|(_, at)| self.drivers.processes[*at].name.to_string())
            .collect()
    }

    /// Kills a driver process by name; it stays down until [`Cluster::start_driver`]. `false` when there is none of that name.
    pub fn kill_driver(&mut self, name: &str) -> bool {
        let Some(process) = self.drivers.processes.iter_mut().find(|p| p.is_called(name)) else {
            return false;
        };
        if process.is_dead() {
            return true;
        }
        let waiting = process.die();
        let name = Arc::clone(&process.name);
        self.end_pause(&name);
        self.board.stir();
        self.refuse_all(&waiting);
        self.trace.push(Record {
            at: self.board.now(),
            process: name,
            what: What::Process(ProcessChange::Killed),
        });
        true
    }

    /// Starts a driver process unless it runs already. `false` when there is none of that name.
    pub fn start_driver(&mut self, name: &str) -> bool {
        let Some(at) = self.drivers.processes.iter().position(|p| p.is_called(name)) else {
            return false;
        };
        match self.drivers.processes[at].state {
            DriverState::Down | DriverState::Dormant => self.launch(at),
            DriverState::Starting(_) | DriverState::Up(_) => {}
        }
        true
    }

    /// On whose behalf a driver process serves a call; nobody's where nothing can strike.
    fn behalf(&self, call: u64, at: usize) -> Option<Behalf> {
        let operations = self.drivers.processes[at].operations.clone()?;
        self.desk.is_open().then_some(Behalf { operations, call })
    }

    fn driver_named(&self, name: &str) -> Option<&DriverProcess> {
        self.drivers.processes.iter().find(|p| &*p.name == name)
    }

    pub(super) fn driver_lane(&self, name: &str) -> Option<Lane> {
        self.driver_named(name).map(|process| process.lane)
    }

    pub(super) fn driver_is_alive(&self, name: &str) -> bool {
        self.driver_named(name).is_some_and(|process| !process.is_dead())
    }

    /// The driver processes that are dead.
    pub(super) fn dead_drivers(&self) -> Vec<String> {
        let dead = self.drivers.processes.iter().filter(|process| process.is_dead());
        dead.map(|process| process.name.to_string()).collect()
    }

    /// The driver process that a call of `who` reaches.
    fn seat(&self, who: Who, call: &Call) -> Option<usize> {
        let node = self.processes[who.process.0 as usize].node.clone();
        let node = node.filter(|_| call.socket == Socket::Node);
        self.drivers.seats.get(&(Arc::clone(&call.driver), node)).copied()
    }

    /// The name of the driver process that answers a call of `who`.
    pub(super) fn callee(&self, who: Who, call: &Call) -> Option<Arc<str>> {
        let process = &self.drivers.processes[self.seat(who, call)?];
        let other = process
            .controller
            .as_ref()
            .filter(|_| call.socket == Socket::Controller);
        Some(Arc::clone(other.unwrap_or(&process.name)))
    }

    /// Whether the driver process that answers a call of `who` is dead.
    pub(super) fn callee_is_dead(&self, who: Who, call: &Call) -> bool {
        self.seat(who, call)
            .is_some_and(|at| self.drivers.processes[at].is_dead())
    }

    /// `struck`: what a fault at a site does to it.
    pub(super) fn send_call(&mut self, id: u64, who: Who, call: &Arc<Call>, struck: Option<Tamper>) {
        let on_node = call.socket == Socket::Node;
        let node = self.processes[who.process.0 as usize].node.clone().filter(|_| on_node);
        let pinned = struck.is_some();
        let tamper = struck.unwrap_or_else(|| self.tamper(call, node.as_deref()));
        let process = &self.processes[who.process.0 as usize];
        if tamper != Tamper::Pass && !pinned {
            let name = Arc::clone(&process.name);
            let what = What::Fault(format!("{}: {}", call.request.method(), describe(&tamper)));
            self.trace.push(Record {
                at: self.board.now(),
                process: name,
                what,
            });
        }
        // A script answers for the driver's processes while they live.
        if self.drivers.scripts.contains_key(&call.driver) && !self.callee_is_dead(who, call) {
            self.run_script(id, who, call, node.as_deref(), tamper);
            return;
        }
        let Some(at) = self.seat(who, call) else {
            return self.refuse(id, who.process);
        };
        if matches!(self.drivers.processes[at].state, DriverState::Dormant) {
            self.launch(at);
        }
        match &mut self.drivers.processes[at].state {
            DriverState::Starting(waiting) => waiting.push((id, tamper)),
            DriverState::Up(services) => {
                let services = services.clone();
                self.carry(id, at, services, tamper);
            }
            DriverState::Down => self.refuse(id, who.process),
            DriverState::Dormant => unreachable!("a dormant driver process was just launched"),
        }
    }

    pub(super) fn is_outside(&self, who: Who, call: &Call) -> bool {
        self.seat(who, call)
            .is_some_and(|at| self.drivers.processes[at].outside.is_some())
    }

    /// The name of a process that ended without being killed, and how it ended.
    pub(super) fn ended_by_itself(&self, at: usize, incarnation: u32) -> Option<(Arc<str>, String)> {
        let process = &self.drivers.processes[at];
        let up = process.incarnation == incarnation && matches!(process.state, DriverState::Up(_));
        let how = process.outside.as_ref().filter(|_| up)?.ended()?;
        Some((Arc::clone(&process.name), how))
    }

    pub(super) fn end_driver(&mut self, at: usize) -> Vec<u64> {
        let waiting = self.drivers.processes[at].die();
        self.board.stir();
        waiting
    }

    fn refuse(&self, id: u64, caller: ProcessId) {
        let status =
            Status::unavailable("connection error: desc = \"transport: Error while dialing: connection refused\"");
        let error = CallError {
            status,
            disconnected: true,
        };
        let lane = self.processes[caller.0 as usize].lane;
        self.board.after(lane, self.latency.call, Due::Replied(id, Err(error)));
    }

    fn refuse_all(&self, calls: &[u64]) {
        let callers = calls
            .iter()
            .filter_map(|id| Some((*id, self.calls.get(id)?.who.process)));
        callers.for_each(|(id, caller)| self.refuse(id, caller));
    }

    fn launch(&mut self, at: usize) {
        let process = &mut self.drivers.processes[at];
        process.incarnation += 1;
        process.state = DriverState::Starting(Vec::new());
        let tasks = Tasks::new(&process.name);
        process.tasks = Some(tasks.clone());
        process.fence = Fence::new();
        let fence = process.fence.clone();
        let (incarnation, lane, board) = (process.incarnation, process.lane, Arc::clone(&self.board));
        let operations = Operations::new(&process.name, lane, &board, &fence, &self.latency, &self.desk);
        process.operations = Some(operations.clone());
        let launching = Launching {
            lane,
            board: Arc::clone(&board),
            tasks: tasks.clone(),
            incarnation,
            fence,
            operations,
        };
        let starting = (process.launch)(launching);
        tasks.spawn(async move {
            let services = starting.await;
            board.after(lane, Duration::ZERO, Due::DriverUp(at, incarnation, services));
        });
        self.board.stir();
    }

    pub(super) fn driver_up(&mut self, at: usize, incarnation: u32, services: Result<Served, String>) {
        let now = self.board.now();
        let process = &mut self.drivers.processes[at];
        if process.incarnation != incarnation {
            return;
        }
        let DriverState::Starting(waiting) = &mut process.state else {
            return;
        };
        let waiting = std::mem::take(waiting);
        let name = Arc::clone(&process.name);
        let change = match services {
            Ok(services) => {
                process.state = DriverState::Up(services.clone());
                for (id, tamper) in waiting {
                    self.carry(id, at, services.clone(), tamper);
                }
                ProcessChange::Started
            }
            Err(message) => {
                process.state = DriverState::Down;
                let waiting: Vec<u64> = waiting.into_iter().map(|(id, _)| id).collect();
                self.refuse_all(&waiting);
                ProcessChange::Failed(message)
            }
        };
        self.trace.push(Record {
            at: now,
            process: name,
            what: What::Process(change),
        });
    }

    /// Sends a call through its layers to a driver process that is up.
    fn carry(&mut self, id: u64, at: usize, served: Served, tamper: Tamper) {
        self.bring(id, at, served, tamper, true);
    }

    /// Sends a call that is under way once more; whatever is answered to that goes nowhere.
    pub(super) fn send_again(&mut self, id: u64) {
        let Some(flight) = self.calls.get(&id) else { return };
        let (who, call) = (flight.who, Arc::clone(&flight.call));
        let Some(at) = self.seat(who, &call) else { return };
        if let DriverState::Up(served) = &self.drivers.processes[at].state {
            let served = served.clone();
            self.bring(id, at, served, Tamper::Pass, false);
        }
    }

    /// Brings a call whose caller has given it up; whatever is answered goes nowhere. `false` if nobody is there who could take it.
    pub(super) fn bring_late(&mut self, id: u64, who: Who, call: &Arc<Call>) -> bool {
        let Some(at) = self.seat(who, call) else { return false };
        let DriverState::Up(served) = &self.drivers.processes[at].state else {
            return false;
        };
        let served = served.clone();
        let Some(tasks) = self.drivers.processes[at].tasks.clone() else {
            return false;
        };
        self.carry_on(id, (who, call, tasks), at, served, Tamper::Pass, false);
        true
    }

    fn bring(&mut self, id: u64, at: usize, served: Served, tamper: Tamper, answers: bool) {
        let Some(flight) = self.calls.get(&id) else { return };
        let (who, call) = (flight.who, Arc::clone(&flight.call));
        let process = &mut self.processes[who.process.0 as usize];
        let tasks = process.tasks.get_or_insert_with(|| Tasks::new(&process.name)).clone();
        self.carry_on(id, (who, &call, tasks), at, served, tamper, answers);
    }

    /// `sent`: by whom, what, and the tasks that wait for the answer.
    fn carry_on(
        &mut self,
        id: u64,
        sent: (Who, &Arc<Call>, Tasks),
        at: usize,
        served: Served,
        tamper: Tamper,
        answers: bool,
    ) {
        let (who, call, caller) = (sent.0, Arc::clone(sent.1), sent.2);
        let lane = self.processes[who.process.0 as usize].lane;
        let (board, back) = (Arc::clone(&self.board), self.latency.call);
        let tasks = self.drivers.processes[at]
            .tasks
            .clone()
            .expect("a process that is up has tasks");
        let clock: Arc<dyn Sleeper> = Arc::new(BoardClock {
            board: Arc::clone(&board),
            lane,
        });
        // A process that stands still reads no request.
        let there = &self.drivers.processes[at];
        let life = (at, there.incarnation);
        let inner = served.wire(&call.request, &there.name, &tasks, &self.chance, &clock);
        let reads = TamperLayer {
            tamper: if self.board.is_held(there.lane) {
                Tamper::Delay(Duration::ZERO)
            } else {
                Tamper::Pass
            },
            clock: Arc::new(BoardClock {
                board: Arc::clone(&board),
                lane: there.lane,
            }),
        };
        let wire = TamperLayer {
            tamper,
            clock: Arc::clone(&clock),
        }
        .layer(reads.layer(inner));
        let behalf = self.behalf(id, at);
        let wire = wire.map_request(move |mut request: http::Request<tonic::body::Body>| {
            if let Some(behalf) = &behalf {
                request.extensions_mut().insert(behalf.clone());
            }
            request
        });
        let wire: Wire = BoxCloneService::new(
            DeadlineLayer {
                timeout: call.timeout,
                clock,
            }
            .layer(wire),
        );
        caller.spawn(async move {
            let result = served.request(call.request.clone()).send(wire, call.timeout).await;
            let result = served.answer(result).map_err(|status| CallError {
                disconnected: is_disconnect(&status),
                status,
            });
            if let (Served::Outside(_), Err(CallError { disconnected: true, .. })) = (&served, &result) {
                board.after(lane, Duration::ZERO, Due::DriverGone(life.0, life.1));
            }
            if answers {
                board.after(lane, back, Due::Replied(id, result));
            }
        });
        self.board.stir();
    }

    fn run_script(&mut self, id: u64, who: Who, call: &Arc<Call>, node: Option<&str>, tamper: Tamper) {
        let now = self.board.now();
        let process = &self.processes[who.process.0 as usize];
        let (name, lane) = (Arc::clone(&process.name), process.lane);
        let scripted = ScriptedCall {
            process: &name,
            node,
            call,
            now,
        };
        let mut ask = || (self.drivers.scripts.get_mut(&call.driver).expect("the caller looked"))(&scripted);
        let (took, result) = match tamper {
            Tamper::Pass => ask(),
            Tamper::Refuse(code, message) => (Duration::ZERO, Err(Status::new(code, message))),
            Tamper::Replace(code, message) => (ask().0, Err(Status::new(code, message))),
            Tamper::RefuseLate(code, message, by) => (by, Err(Status::new(code, message))),
            Tamper::ReplaceLate(code, message, by) => (ask().0 + by, Err(Status::new(code, message))),
            Tamper::Late(by) | Tamper::Delay(by) => {
                let (took, result) = ask();
                (took + by, result)
            }
            Tamper::Lose => {
                let _ = ask();
                (call.timeout, Err(Status::deadline_exceeded("")))
            }
        };
        let (after, result) = if took >= call.timeout {
            (
                call.timeout,
                Err(Status::deadline_exceeded("context deadline exceeded")),
            )
        } else {
            (took + self.latency.call, result)
        };
        let result = result.map_err(|status| CallError {
            status,
            disconnected: false,
        });
        self.board.after(lane, after, Due::Replied(id, result));
    }
}

fn is_disconnect(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message() == DISCONNECTED
}

fn describe(tamper: &Tamper) -> String {
    match tamper {
        Tamper::Pass => String::from("nothing"),
        Tamper::Refuse(code, _) | Tamper::RefuseLate(code, ..) => {
            format!(
                "answered {} without the driver",
                crate::scenario::Code::of(*code).as_str()
            )
        }
        Tamper::Replace(code, _) | Tamper::ReplaceLate(code, ..) => {
            format!("executed, but answered {}", crate::scenario::Code::of(*code).as_str())
        }
        Tamper::Late(by) => format!("the answer comes {} ms late", by.as_millis()),
        Tamper::Lose => String::from("executed, but the answer is lost"),
        Tamper::Delay(by) => format!("reaches the driver {} ms late", by.as_millis()),
    }
}
