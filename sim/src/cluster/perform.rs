//! Effects become real: each kind goes to what it is meant for, and its outcome goes back to the controller that asked.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::{Cluster, Due, InFlight, ProcessId, Who};
use crate::api::{ApiError, EventRecord, Kind, Write, Written};
use crate::control::{Effect, Outcome, Request};
use crate::faults::Fault;
use crate::link::layers::Tamper;
use crate::link::{Call, CallError, CsiReply};
use crate::scenario::{Code, PlainPhase};
use crate::trace::{Met, Record, What};

/// What the API server says when etcd did not answer in time.
const ETCD: &str = "etcdserver: request timed out";

impl Cluster {
    /// An effect was asked for: it waits for its turn.
    pub(super) fn request(&mut self, who: Who, shell: usize, request: Request) {
        let now = self.board.now();
        let latency = &self.latency;
        let process = &mut self.processes[who.process.0 as usize];
        let after = match &*request.effect {
            Effect::Write(_) => process.hold_back(now) + latency.write,
            Effect::Read(_) => process.hold_back(now) + latency.read,
            Effect::Call(_) => latency.call,
            Effect::Machine(_) | Effect::Registration(_) => latency.machine,
            Effect::Wait(duration) => *duration,
            other => unreachable!("{other:?} never leaves its shell"),
        };
        self.schedule(who, now + after, Due::Perform(who, shell, request));
    }

    pub(super) fn perform(&mut self, who: Who, shell: usize, request: Request) {
        if !self.is_current(who) && !self.is_ghost(who) {
            return;
        }
        let name = Arc::clone(&self.processes[who.process.0 as usize].name);
        let (met, phase) = match &*request.effect {
            Effect::Write(write) => (self.meet_write(&name, write), PlainPhase::Before),
            Effect::Call(call) => {
                let callee = self.callee(who, call);
                (
                    self.meet_call(&name, callee.as_deref(), &call.request),
                    PlainPhase::BeforeSend,
                )
            }
            _ => return self.proceed(who, shell, &request, &Met::default(), None),
        };
        let faults = self.strike(&met, phase, false);
        if !self.is_current(who) && !self.is_ghost(who) {
            return;
        }
        // A client that is told to come back later waits itself; one that stands still sends when it goes on.
        let wait = faults.iter().find_map(Fault::holds_up);
        if wait.is_some() || self.is_paused(&name) {
            let at = self.board.now() + wait.unwrap_or_default();
            self.schedule(who, at, Due::Proceed(who, shell, request, met));
            return;
        }
        self.proceed(who, shell, &request, &met, faults.first());
    }

    /// An effect that was met takes place; `fault` is what struck it.
    pub(super) fn proceed(&mut self, who: Who, shell: usize, request: &Request, met: &Met, fault: Option<&Fault>) {
        if !self.is_current(who) && !self.is_ghost(who) {
            return;
        }
        let token = request.token;
        match &*request.effect {
            Effect::Write(write) => self.perform_write(who, shell, token, write, met, fault),
            Effect::Read(read) => {
                let away = self.is_away(who.process);
                let outcome = Outcome::Read(if away {
                    Err(ApiError::unavailable())
                } else {
                    self.api.read(read)
                });
                self.outcome(who, shell, token, &outcome);
            }
            // A leader without its lease has exited: what it had sent goes on, and it sends nothing more.
            Effect::Call(_) if self.is_ghost(who) => {}
            Effect::Call(call) => self.call(who, shell, token, call, met, fault),
            Effect::Machine(op) => {
                let outcome = self.machine_op(who, op);
                let after = self.machine_time(op);
                self.answer(who, shell, token, after, Outcome::Machine(outcome));
            }
            Effect::Registration(op) => {
                let outcome = self.registration(who, op);
                self.outcome(who, shell, token, &Outcome::Registration(outcome));
            }
            Effect::Wait(_) => self.outcome(who, shell, token, &Outcome::Done),
            other => unreachable!("{other:?} never leaves its shell"),
        }
    }

    fn perform_write(&mut self, who: Who, shell: usize, token: u64, write: &Write, met: &Met, fault: Option<&Fault>) {
        let (name, component) = {
            let process = &self.processes[who.process.0 as usize];
            (Arc::clone(&process.name), Arc::clone(&process.components[shell]))
        };
        let mut written = match fault {
            Some(Fault::Conflict {}) => self.refuse_write(&name, write, ApiError::stale(&write.target())),
            Some(Fault::FailWrite {}) => self.refuse_write(&name, write, ApiError::internal(ETCD)),
            _ if self.is_away(who.process) => self.refuse_write(&name, write, ApiError::unavailable()),
            _ => self.write(&name, &component, write),
        };
        if written.is_ok() && write.target().kind == Kind::Node && write.subresource() == Some("status") {
            self.node_status_written(who.process);
        }
        let faults = self.strike(met, PlainPhase::Applied, written.is_ok());
        if !self.is_current(who) {
            return;
        }
        if faults.contains(&Fault::LoseWriteAnswer {}) {
            written = Err(ApiError::internal(ETCD));
        }
        self.answer(who, shell, token, self.latency.answer, Outcome::Written(written));
    }

    /// A write that the API server does not do.
    fn refuse_write(&mut self, by: &Arc<str>, write: &Write, error: ApiError) -> Result<Written, ApiError> {
        if self.trace.is_on() {
            let what = What::Write {
                write: Arc::new(write.clone()),
                before: self.stored(write),
                result: Err(error.clone()),
            };
            self.trace.push(Record {
                at: self.board.now(),
                process: Arc::clone(by),
                what,
            });
        }
        Err(error)
    }

    fn answer(&self, who: Who, shell: usize, token: u64, after: Duration, outcome: Outcome) {
        self.schedule(who, self.board.now() + after, Due::Outcome(who, shell, token, outcome));
    }

    fn call(&mut self, who: Who, shell: usize, token: u64, call: &Call, met: &Met, fault: Option<&Fault>) {
        let now = self.board.now();
        let id = self.next_call;
        self.next_call += 1;
        let call = Arc::new(call.clone());
        let name = Arc::clone(&self.processes[who.process.0 as usize].name);
        self.trace.push(Record {
            at: now,
            process: name,
            what: What::Call {
                id,
                call: Arc::clone(&call),
            },
        });
        self.calls.insert(
            id,
            InFlight {
                who,
                shell,
                token,
                call: Arc::clone(&call),
                sent: now,
                met: met.clone(),
                answered: false,
                cut: false,
            },
        );
        self.met_call(id, met);
        self.end_opposites(&call, met);
        if let Some(Fault::ReorderCall { by }) = fault {
            self.hold_call_back(id, who, &call, met, by.get());
            let lost = Err(injected(Code::Unavailable));
            self.schedule(who, now + self.latency.call, Due::Replied(id, lost));
            return;
        }
        self.send_call(id, who, &call, fault.and_then(tamper));
        let faults = self.strike(met, PlainPhase::Received, false);
        if faults.contains(&Fault::DuplicateCall {}) {
            self.send_again(id);
        }
    }

    pub(super) fn replied(&mut self, id: u64, mut result: Result<CsiReply, CallError>) {
        let Some(flight) = self.calls.get_mut(&id) else { return };
        let (call, who, met, sent) = (Arc::clone(&flight.call), flight.who, flight.met.clone(), flight.sent);
        let cut = flight.cut;
        if !std::mem::replace(&mut flight.answered, true) {
            // The victim may be the caller, whose call is forgotten with it, the driver, whose answer never leaves, or a bystander.
            let faults = self.strike(&met, PlainPhase::BeforeReply, result.is_ok() && !cut);
            if cut || (!faults.is_empty() && self.callee_is_dead(who, &call)) {
                result = Cluster::cut();
            }
            let deadline = sent + call.timeout;
            for fault in faults {
                let at = match fault {
                    Fault::ReplaceAnswer { code } => {
                        result = Err(injected(code));
                        continue;
                    }
                    Fault::LoseAnswer {} => deadline,
                    Fault::DelayAnswer { by } => deadline.min(self.board.now() + by.get()),
                    _ => continue,
                };
                if at >= deadline {
                    result = Err(gave_up());
                }
                self.schedule(who, at, Due::Replied(id, result));
                return;
            }
        }
        let Some(flight) = self.calls.remove(&id) else { return };
        let now = self.board.now();
        if let Ok(reply) = &result {
            self.overtake(&call, &met);
            self.learn_fate(who, &call, reply);
        }
        if self.trace.is_on() {
            let process = Arc::clone(&self.processes[flight.who.process.0 as usize].name);
            let result = result.clone().map_err(|e| e.status);
            let what = What::Reply {
                id,
                call: flight.call,
                took: now.since(flight.sent),
                result,
            };
            self.trace.push(Record { at: now, process, what });
        }
        self.outcome(flight.who, flight.shell, flight.token, &Outcome::Reply(result));
        self.strike(&met, PlainPhase::AfterReply, false);
    }

    /// The recorder of a process takes an event; what comes of it is written a little later.
    pub(super) fn record(&mut self, id: ProcessId, shell: usize, record: &EventRecord) {
        let now = self.board.now();
        let delay = self.latency.event;
        let process = &mut self.processes[id.0 as usize];
        let Some(write) = process.record(shell, record, now) else {
            return;
        };
        let component = Arc::clone(&process.components[shell]);
        let at = now + process.hold_back(now) + delay;
        let lane = process.lane;
        self.board.at(lane, at, Due::Emit(id, component, write));
    }

    pub(super) fn emit(&mut self, id: ProcessId, component: &str, write: &Write) {
        if self.is_away(id) {
            return;
        }
        let name = Arc::clone(&self.processes[id.0 as usize].name);
        // Events are best effort: a refusal is the recorder's to ignore, unless the event is gone.
        let Err(refusal) = self.write(&name, component, write) else {
            return;
        };
        let recorder = self.processes[id.0 as usize].recorders.get(component);
        let again = recorder
            .filter(|_| refusal.is_not_found())
            .and_then(|r| r.recreate(write));
        if let Some(again) = again {
            let _ = self.write(&name, component, &again);
        }
    }
}

/// What a fault does to a call on its way to the driver.
fn tamper(fault: &Fault) -> Option<Tamper> {
    match fault {
        Fault::RefuseCall { code } => {
            let CallError { status, .. } = injected(*code);
            Some(Tamper::Refuse(status.code(), status.message().to_owned()))
        }
        Fault::DelayCall { by } => Some(Tamper::Delay(by.get())),
        _ => None,
    }
}

/// An answer that a fault gives.
fn injected(code: Code) -> CallError {
    CallError {
        status: Status::new(tonic::Code::from_i32(code.number()), "injected by a fault"),
        disconnected: false,
    }
}

/// The caller's deadline has passed.
fn gave_up() -> CallError {
    CallError {
        status: Status::deadline_exceeded("context deadline exceeded"),
        disconnected: false,
    }
}
