//! Effects become real: each kind goes to what it is meant for, and its outcome goes back to the controller that asked.

use std::sync::Arc;
use std::time::Duration;

use super::{Cluster, Due, InFlight, ProcessId, Who};
use crate::api::{EventRecord, Kind, Write};
use crate::control::{Effect, Outcome, Request};
use crate::link::{Call, CallError, CsiReply};
use crate::scenario::PlainPhase;
use crate::trace::{Record, What};

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

    pub(super) fn perform(&mut self, who: Who, shell: usize, request: &Request) {
        if !self.is_current(who) {
            return;
        }
        let token = request.token;
        match &*request.effect {
            Effect::Write(write) => {
                let (name, component) = {
                    let process = &self.processes[who.process.0 as usize];
                    (Arc::clone(&process.name), Arc::clone(&process.components[shell]))
                };
                let write = Arc::new(write.clone());
                let met = self.meet_write(&name, &write);
                if self.strike(&met, PlainPhase::Before) && !self.is_current(who) {
                    return;
                }
                let written = self.write(&name, &component, &write);
                if written.is_ok() && write.target().kind == Kind::Node && write.subresource() == Some("status") {
                    self.node_status_written(who.process);
                }
                let outcome = Outcome::Written(written);
                if self.strike(&met, PlainPhase::Applied) && !self.is_current(who) {
                    return;
                }
                self.answer(who, shell, token, self.latency.answer, outcome);
            }
            Effect::Read(read) => {
                let outcome = Outcome::Read(self.api.read(read));
                self.outcome(who, shell, token, &outcome);
            }
            Effect::Call(call) => self.call(who, shell, token, call),
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

    fn answer(&self, who: Who, shell: usize, token: u64, after: Duration, outcome: Outcome) {
        self.schedule(who, self.board.now() + after, Due::Outcome(who, shell, token, outcome));
    }

    fn call(&mut self, who: Who, shell: usize, token: u64, call: &Call) {
        let now = self.board.now();
        let id = self.next_call;
        self.next_call += 1;
        let call = Arc::new(call.clone());
        let process = &self.processes[who.process.0 as usize];
        let name = Arc::clone(&process.name);
        let callee = self.callee(who, &call);
        let met = self.meet_call(&name, callee.as_deref(), &call.request);
        if self.strike(&met, PlainPhase::BeforeSend) && !self.is_current(who) {
            return;
        }
        self.trace.push(Record {
            at: now,
            process: Arc::clone(&name),
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
            },
        );
        self.send_call(id, who, &call);
        self.strike(&met, PlainPhase::Received);
    }

    pub(super) fn replied(&mut self, id: u64, result: Result<CsiReply, CallError>) {
        let Some(flight) = self.calls.get(&id) else { return };
        let (call, who, met) = (Arc::clone(&flight.call), flight.who, flight.met.clone());
        // The victim may be the caller, whose call is forgotten with it, the driver, whose answer never leaves, or a bystander.
        let struck = self.strike(&met, PlainPhase::BeforeReply);
        let cut = struck && self.callee_is_dead(who, &call);
        let result = if cut { Cluster::cut() } else { result };
        let Some(flight) = self.calls.remove(&id) else { return };
        let now = self.board.now();
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
        self.strike(&met, PlainPhase::AfterReply);
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

    pub(super) fn emit(&mut self, id: ProcessId, component: &str, write: Write) {
        let name = Arc::clone(&self.processes[id.0 as usize].name);
        let write = Arc::new(write);
        // Events are best effort: a refusal is the recorder's to ignore, unless the event is gone.
        let Err(refusal) = self.write(&name, component, &write) else {
            return;
        };
        let recorder = self.processes[id.0 as usize].recorders.get(component);
        let again = recorder
            .filter(|_| refusal.is_not_found())
            .and_then(|r| r.recreate(&write));
        if let Some(again) = again {
            let _ = self.write(&name, component, &Arc::new(again));
        }
    }
}
