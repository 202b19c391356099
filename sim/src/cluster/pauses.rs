//! Processes that stand still: what reaches them waits, and what they had decided happens when they go on.
//!
//! A driver's process stands still between two operations on its machine, its storage system or its clock, and takes no call. Its ledger's disk is not
//! waited for, so that a commit under way is finished. A node stands still with all its processes, and its machine with it, if that is a real one.

use std::time::Duration;

use super::Cluster;
use super::Due;
use super::process::Liveness;
use crate::runtime::Lane;

impl Cluster {
    /// A process stands still for a while. Nothing happens if it does already, or is dead.
    pub fn pause(&mut self, name: &str, lasts: Duration) {
        if let Some(node) = name.strip_prefix("node/") {
            return self.pause_node(node, lasts);
        }
        let Some(lane) = self.living_lane(name) else { return };
        if self.board.is_held(lane) {
            return;
        }
        self.board.hold(lane);
        let until = self.now() + lasts;
        self.pauses.insert(name.to_owned(), until);
        self.board.at(self.user, until, Due::GoOn(name.to_owned()));
        if let Some(id) = self.process(name) {
            self.heartbeats_end(id);
        }
    }

    fn pause_node(&mut self, node: &str, lasts: Duration) {
        let name = format!("node/{node}");
        let Some(machine) = self.machine(node).filter(|machine| machine.is_up()).cloned() else {
            return;
        };
        if self.pauses.contains_key(&name) {
            return;
        }
        // The machine goes on before its processes do.
        let until = self.now() + lasts;
        self.pauses.insert(name.clone(), until);
        self.board.at(self.user, until, Due::GoOn(name));
        let of_kubernetes = self.on_node(node).into_iter();
        let mut all: Vec<String> = of_kubernetes
            .map(|id| self.processes[id.0 as usize].name.to_string())
            .collect();
        all.extend(self.drivers_on(node));
        for process in all {
            self.pause(&process, lasts);
        }
        machine.pause(true);
    }

    pub(super) fn is_paused(&self, name: &str) -> bool {
        self.pauses.contains_key(name)
    }

    /// The pause of a process is over, unless another one began meanwhile.
    pub(super) fn go_on(&mut self, name: &str) {
        if self.pauses.get(name).is_some_and(|until| *until <= self.now()) {
            self.end_pause(name);
            if let Some(machine) = name.strip_prefix("node/").and_then(|node| self.machine(node)) {
                machine.pause(false);
            }
            if let Some(id) = self.process(name) {
                self.heartbeats_begin(id);
            }
        }
    }

    /// All pauses are over.
    pub(super) fn go_on_all(&mut self) {
        let now = self.now();
        let names: Vec<String> = self.pauses.keys().cloned().collect();
        for name in names {
            self.pauses.insert(name.clone(), now);
            self.go_on(&name);
        }
    }

    /// A process that dies does not stand still any more.
    pub(super) fn end_pause(&mut self, name: &str) {
        if self.pauses.remove(name).is_some()
            && let Some(lane) = self.lane_of(name)
        {
            self.board.go_on(lane);
        }
    }

    fn living_lane(&self, name: &str) -> Option<Lane> {
        match self.process(name) {
            Some(id) if self.liveness(id) == Liveness::Down => None,
            Some(id) => Some(self.processes[id.0 as usize].lane),
            None => self.driver_lane(name).filter(|_| self.driver_is_alive(name)),
        }
    }

    fn lane_of(&self, name: &str) -> Option<Lane> {
        match self.process(name) {
            Some(id) => Some(self.processes[id.0 as usize].lane),
            None => self.driver_lane(name),
        }
    }
}
