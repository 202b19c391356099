//! The way from a write to those who watch, and the life of a process between start and death.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::process::{Liveness, Process, ProcessSpec, Turn};
use super::{Cluster, Due, ProcessId, Who};
use crate::api::{Change, Delta, Kind, Object};
use crate::control::{Outcome, Signal};
use crate::trace::{ProcessChange, Record, What};

/// How often a process that starts tries to reach an API server that cannot be reached.
const RETRY: Duration = Duration::from_secs(1);

impl Cluster {
    /// Adds a process; it does not run until [`Cluster::start`].
    pub fn add_process(&mut self, spec: ProcessSpec) -> ProcessId {
        let id = ProcessId(u32::try_from(self.processes.len()).expect("fewer than four billion processes"));
        let lane = self.board.lane(&spec.name);
        let process = Process::new(spec, lane, &self.chance);
        self.names.insert(Arc::clone(&process.name), id);
        if process.node_bound {
            let node = process.node.clone().expect("a node-bound process has a node");
            self.node_watchers.insert(node, id);
            // Kinds other than its own pods and its own node come to it like to everybody.
            for kind in process.kinds.keys().filter(|k| !matches!(k, Kind::Pod | Kind::Node)) {
                self.watchers.entry(*kind).or_default().push(id);
            }
        } else {
            for kind in process.kinds.keys() {
                self.watchers.entry(*kind).or_default().push(id);
            }
        }
        if process.shells.iter().any(|s| s.hears_heartbeats()) {
            self.heartbeats.listeners.push(id);
        }
        self.processes.push(process);
        id
    }

    /// The process of this name.
    pub fn process(&self, name: &str) -> Option<ProcessId> {
        self.names.get(name).copied()
    }

    /// The names of all processes, in order.
    pub fn process_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.keys()
    }

    /// Whether a process runs.
    pub fn liveness(&self, id: ProcessId) -> Liveness {
        self.processes[id.0 as usize].liveness
    }

    /// A process takes so long to start again: from then until its informers are filled.
    pub fn starts_slowly(&mut self, id: ProcessId, time: Duration) {
        self.processes[id.0 as usize].slow_start = Some(time);
    }

    /// Starts a process that is down. Its informers are filled a little later.
    pub fn start(&mut self, id: ProcessId) {
        self.stay_down(id);
        let process = &mut self.processes[id.0 as usize];
        assert_eq!(process.liveness, Liveness::Down, "{} runs already", process.name);
        let again = process.slow_start.filter(|_| process.incarnation > 0);
        let latency = again.unwrap_or(self.latency.start);
        process.reset();
        process.liveness = Liveness::Starting;
        let who = Who {
            process: id,
            incarnation: process.incarnation,
        };
        let at = self.board.now() + latency;
        self.schedule(who, at, Due::Synced(who));
        self.heartbeats_begin(id);
    }

    /// Kills a process: everything it remembered and everything under way for it is gone.
    pub fn kill(&mut self, id: ProcessId) {
        self.end(id, ProcessChange::Killed);
    }

    pub(super) fn end(&mut self, id: ProcessId, change: ProcessChange) {
        let now = self.now();
        let process = &mut self.processes[id.0 as usize];
        if process.liveness == Liveness::Down {
            return;
        }
        process.reset();
        process.terminating = None;
        let name = Arc::clone(&process.name);
        self.end_pause(&name);
        let process = &mut self.processes[id.0 as usize];
        if let Some((_, ticket)) = process.wake.take() {
            self.board.cancel(ticket);
        }
        if let Some(tasks) = process.tasks.take() {
            tasks.kill();
            self.board.stir();
        }
        self.calls.retain(|_, call| call.who.process != id);
        self.trace.push(Record {
            at: now,
            process: name,
            what: What::Process(change),
        });
        self.heartbeats_end(id);
    }

    /// A process exits by itself; the container runtime, if there is one, starts it again: at once the first time, then 10 s doubling up to 300 s.
    pub(super) fn exit(&mut self, id: ProcessId, message: String) {
        let (exits, terminating) = {
            let process = &self.processes[id.0 as usize];
            (process.exits, process.terminating)
        };
        if let Some(again) = terminating {
            self.end(id, ProcessChange::Exited("stopped".into()));
            if again {
                self.start(id);
            }
            return;
        }
        self.end(id, ProcessChange::Exited(message));
        let process = &mut self.processes[id.0 as usize];
        process.exits += 1;
        let kubelet = &crate::release::RELEASE.kubelet;
        let delay = match exits {
            0 => Duration::from_secs(1),
            n => crate::api::exponential(kubelet.container_backoff, kubelet.container_backoff_cap, n - 1),
        };
        let lane = process.lane;
        if self.restarts_containers {
            let ticket = self.board.after(lane, delay, Due::Restart(id));
            self.processes[id.0 as usize].restart = Some(ticket);
        }
    }

    /// Its container does not start again by itself.
    pub(super) fn stay_down(&mut self, id: ProcessId) {
        if let Some(ticket) = self.processes[id.0 as usize].restart.take() {
            self.board.cancel(ticket);
        }
    }

    /// Tells a process to end; it stays down unless it is started meanwhile.
    pub(super) fn terminate(&mut self, id: ProcessId) {
        self.processes[id.0 as usize].terminating = Some(false);
        self.signal(id, Signal::Terminate);
    }

    pub(super) fn synced(&mut self, who: Who) {
        if !self.is_current(who) {
            return;
        }
        let now = self.now();
        if self.is_away(who.process) {
            self.schedule(who, now + RETRY, Due::Synced(who));
            return;
        }
        let process = &mut self.processes[who.process.0 as usize];
        process.liveness = Liveness::Running;
        let hears = process.shells.iter().any(|s| s.hears_heartbeats());
        let leases = if hears { self.found_heartbeats() } else { Vec::new() };
        let lists = self.lists_of(who.process);
        let process = &mut self.processes[who.process.0 as usize];
        let mut deltas: Vec<Delta> = Vec::new();
        for (kind, objects) in lists {
            deltas.extend(process.cache.replace(kind, objects));
        }
        for delta in &deltas {
            process.notice(delta, now);
        }
        for shell in process.shells.iter_mut().filter(|s| s.hears_heartbeats()) {
            leases.iter().for_each(|lease| shell.signal(lease, now));
        }
        process.shells.iter_mut().for_each(|s| s.start(&process.cache, now));
        process.stir_all();
        let name = Arc::clone(&process.name);
        self.trace.push(Record {
            at: now,
            process: name,
            what: What::Process(ProcessChange::Started),
        });
        self.announce_sockets(who.process);
        self.pump(who.process);
    }

    pub(super) fn pods_on(&self, node: &str) -> Vec<Object> {
        let pods = self
            .api
            .list::<Pod>()
            .filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node));
        pods.map(|pod| Object::Pod(Arc::clone(pod))).collect()
    }

    /// Sends the changes of the last write on their way.
    pub(super) fn publish_changes(&mut self) {
        let mut changes = std::mem::take(&mut self.changes);
        self.api.drain_changes(&mut changes);
        for change in changes.drain(..) {
            let change = Arc::new(change);
            let kind = change.object.kind();
            let watchers = self.watchers.get(&kind).map_or(0, Vec::len);
            for nth in 0..watchers {
                let id = self.watchers[&kind][nth];
                self.send_change(id, &change);
            }
            if let Some(id) = self.node_watcher(&change.object) {
                self.send_change(id, &change);
            }
        }
        self.changes = changes;
    }

    fn node_watcher(&self, object: &Object) -> Option<ProcessId> {
        let node = match object {
            Object::Pod(pod) => pod.spec.as_ref()?.node_name.as_deref()?,
            Object::Node(node) => node.metadata.name.as_deref()?,
            _ => return None,
        };
        self.node_watchers.get(node).copied()
    }

    fn send_change(&mut self, id: ProcessId, change: &Arc<Change>) {
        let now = self.board.now();
        let process = &mut self.processes[id.0 as usize];
        if process.liveness != Liveness::Running {
            return;
        }
        let delay = self.latency.watch(process.kinds[&change.object.kind()], now);
        let who = Who {
            process: id,
            incarnation: process.incarnation,
        };
        let lane = process.lane;
        self.board.at(lane, now + delay, Due::Deliver(who, Arc::clone(change)));
    }

    pub(super) fn deliver(&mut self, who: Who, change: &Arc<Change>) {
        if !self.is_current(who) {
            return;
        }
        let now = self.board.now();
        let process = &mut self.processes[who.process.0 as usize];
        if Cluster::is_missed(process, change) {
            return;
        }
        let Some(delta) = process.cache.apply(change) else {
            return;
        };
        process.notice(&delta, now);
        self.pump(who.process);
    }

    pub(super) fn signalled(&mut self, who: Who, signal: &Signal) {
        if !self.is_current(who) {
            return;
        }
        let now = self.board.now();
        let process = &mut self.processes[who.process.0 as usize];
        process.shells.iter_mut().for_each(|s| s.signal(signal, now));
        process.stir_all();
        self.pump(who.process);
    }

    /// Sends a signal to a process if it runs.
    pub(super) fn signal(&mut self, id: ProcessId, signal: Signal) {
        let process = &self.processes[id.0 as usize];
        if process.liveness == Liveness::Running {
            let who = Who {
                process: id,
                incarnation: process.incarnation,
            };
            self.schedule(who, self.board.now() + self.latency.machine, Due::Signal(who, signal));
        }
    }

    pub(super) fn outcome(&mut self, who: Who, shell: usize, token: u64, outcome: &Outcome) {
        if !self.is_current(who) {
            return;
        }
        let now = self.board.now();
        let process = &mut self.processes[who.process.0 as usize];
        process.shells[shell].outcome(&mut process.cache, token, outcome, now);
        process.turns[shell].stirred = true;
        self.pump(who.process);
    }

    /// Starts whatever the controllers of a process can start now, and sets the wake-up for the rest.
    pub(super) fn pump(&mut self, id: ProcessId) {
        let now = self.board.now();
        let at = id.0 as usize;
        let who = Who {
            process: id,
            incarnation: self.processes[at].incarnation,
        };
        for shell in 0..self.processes[at].shells.len() {
            let process = &mut self.processes[at];
            if !process.turns[shell].has_come(now) {
                continue;
            }
            let pumped = process.shells[shell].pump(&mut process.cache, now);
            process.turns[shell] = Turn {
                stirred: false,
                due: process.shells[shell].next_due(),
            };
            for request in pumped.requests {
                self.request(who, shell, request);
            }
            for record in pumped.records {
                self.record(id, shell, &record);
            }
            if let Some(message) = pumped.exit {
                self.exit(id, message);
                return;
            }
        }
        self.set_wake(who);
    }

    fn set_wake(&mut self, who: Who) {
        let process = &self.processes[who.process.0 as usize];
        let Some(due) = process.next_due() else { return };
        if let Some((at, ticket)) = process.wake {
            if at <= due {
                return;
            }
            self.board.cancel(ticket);
        }
        let ticket = self.schedule(who, due, Due::Wake(who));
        self.processes[who.process.0 as usize].wake = Some((due, ticket));
    }
}
