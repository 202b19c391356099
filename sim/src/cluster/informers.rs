//! What processes see of the API, when they see it late or not at all: stale informers, watches that break, outages, partitions.
//!
//! A process that is *blind* misses what its watches bring. When it sees again it either gets all of it in order (the watch was slow) or lists (410 Gone): then
//! it never sees what came and went. A process that is *away* is blind, and its requests fail.

use std::sync::Arc;
use std::time::Duration;

use super::process::{Liveness, Process};
use super::{Cluster, Due, ProcessId, Who};
use crate::api::{Change, Delta, Kind, ObjKey, Object};
use crate::runtime::Time;
use crate::trace::{ProcessChange, Record, What};

/// A process that sees nothing new.
pub(super) struct Blind {
    until: Time,
    /// It lists then.
    lists: bool,
    /// Its requests fail.
    pub away: bool,
    missed: Vec<Arc<Change>>,
}

impl Cluster {
    pub(super) fn blind_named(&mut self, name: &str, lasts: Duration, lists: bool) {
        if let Some(id) = self.process(name) {
            self.blind(id, lasts, lists, false);
        }
    }

    /// A process sees nothing new for a while. One that is blind already stays so as it is.
    fn blind(&mut self, id: ProcessId, lasts: Duration, lists: bool, away: bool) {
        let until = self.now() + lasts;
        let process = &mut self.processes[id.0 as usize];
        if process.blind.is_some() || (process.liveness != Liveness::Running && !away) {
            return;
        }
        process.blind = Some(Blind {
            until,
            lists,
            away,
            missed: Vec::new(),
        });
        self.board.at(self.user, until, Due::See(id));
    }

    pub(super) fn is_blind(&self, name: &str) -> bool {
        self.process(name)
            .is_some_and(|id| self.processes[id.0 as usize].blind.is_some())
    }

    /// Whether the requests of a process fail.
    pub(super) fn is_away(&self, id: ProcessId) -> bool {
        self.processes[id.0 as usize]
            .blind
            .as_ref()
            .is_some_and(|blind| blind.away)
    }

    /// The API server cannot be reached for a while.
    pub(super) fn outage(&mut self, lasts: Duration) {
        for at in 0..self.processes.len() {
            self.blind(
                ProcessId(u32::try_from(at).expect("fewer than four billion processes")),
                lasts,
                false,
                true,
            );
        }
    }

    /// The API server cannot be reached from a node for a while: its lease is not renewed.
    pub(super) fn partition(&mut self, node: &str, lasts: Duration) {
        for id in self.on_node(node) {
            self.blind(id, lasts, false, true);
            self.heartbeats_end(id);
        }
    }

    /// The time in which a process saw nothing may be over.
    pub(super) fn see(&mut self, id: ProcessId) {
        let now = self.now();
        let process = &mut self.processes[id.0 as usize];
        if process.blind.as_ref().is_none_or(|blind| blind.until > now) {
            return;
        }
        let Some(blind) = process.blind.take() else { return };
        let who = Who {
            process: id,
            incarnation: process.incarnation,
        };
        if process.liveness == Liveness::Running {
            if blind.lists {
                self.list_again(id);
            } else {
                for change in &blind.missed {
                    self.deliver(who, change);
                }
            }
        }
        if blind.away && self.liveness(id) != Liveness::Down {
            self.heartbeats_resume(id);
        }
    }

    /// Everybody sees again.
    pub(super) fn see_all(&mut self) {
        let now = self.now();
        for at in 0..self.processes.len() {
            if let Some(blind) = &mut self.processes[at].blind {
                blind.until = now;
                self.see(ProcessId(u32::try_from(at).expect("fewer than four billion processes")));
            }
        }
    }

    /// Keeps a change from a process that does not see it now, or has seen it in a list. `true` if it is kept.
    pub(super) fn is_missed(process: &mut Process, change: &Arc<Change>) -> bool {
        if let Some(blind) = &mut process.blind {
            blind.missed.push(Arc::clone(change));
            return true;
        }
        change.version <= process.listed
    }

    /// The lists that fill the informers of a process.
    pub(super) fn lists_of(&self, id: ProcessId) -> Vec<(Kind, Vec<Object>)> {
        let process = &self.processes[id.0 as usize];
        let bound_to = process.node.as_ref().filter(|_| process.node_bound);
        let list = |kind: &Kind| match (bound_to, kind) {
            (Some(node), Kind::Pod) => self.pods_on(node),
            (Some(node), Kind::Node) => {
                let own = self.api.object(Kind::Node, &ObjKey::cluster(Arc::clone(node)));
                own.cloned().into_iter().collect()
            }
            _ => self.api.objects(*kind).cloned().collect(),
        };
        process.kinds.keys().map(|kind| (*kind, list(kind))).collect()
    }

    fn list_again(&mut self, id: ProcessId) {
        let (now, version) = (self.now(), self.api.version());
        let lists = self.lists_of(id);
        let process = &mut self.processes[id.0 as usize];
        let mut deltas: Vec<Delta> = Vec::new();
        for (kind, objects) in lists {
            deltas.extend(process.cache.replace_at(kind, objects, version));
        }
        process.listed = version;
        for delta in &deltas {
            process.notice(delta, now);
        }
        self.pump(id);
    }

    /// A controller loses its lease: another instance starts in its place. What the old one has under way happens, and nobody learns of it.
    pub(super) fn depose(&mut self, name: &str) {
        let Some(id) = self.process(name).filter(|id| self.liveness(*id) == Liveness::Running) else {
            return;
        };
        let process = &mut self.processes[id.0 as usize];
        self.ghosts.push(Who {
            process: id,
            incarnation: process.incarnation,
        });
        self.ghost_tasks.extend(process.tasks.take());
        if let Some((_, ticket)) = process.wake.take() {
            self.board.cancel(ticket);
        }
        let name = Arc::clone(&process.name);
        process.reset();
        self.end_pause(&name);
        self.trace.push(Record {
            at: self.board.now(),
            process: name,
            what: What::Process(ProcessChange::Exited("leaderelection lost".into())),
        });
        self.start(id);
    }

    /// Whether this is a leader that lost its lease, with something still under way.
    pub(super) fn is_ghost(&self, who: Who) -> bool {
        !self.ghosts.is_empty() && self.ghosts.contains(&who)
    }
}
