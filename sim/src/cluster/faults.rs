//! Processes and nodes that end and come back; and what a request is about, by the names of the scenario.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tonic::Status;

use super::nodes::Spared;
use super::process::Liveness;
use super::{Cluster, Due};
use crate::api::{ObjKey, fields};
use crate::link::inproc::DISCONNECTED;
use crate::link::{CallError, CsiReply, CsiRequest};
use crate::trace::ProcessChange;

impl Cluster {
    /// The answer of a call whose driver died before it left.
    pub(super) fn cut() -> Result<CsiReply, CallError> {
        Err(CallError {
            status: Status::unavailable(DISCONNECTED),
            disconnected: true,
        })
    }

    pub(super) fn exists(&self, name: &str, node: bool) -> bool {
        if node {
            return name.strip_prefix("node/").is_some_and(|n| self.has_node(n));
        }
        self.names.contains_key(name) || self.driver_names().any(|n| &**n == name)
    }

    /// Ends a process (or node) orderly.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn stop_named(&mut self, name: &str, node: bool) -> Result<(), String> {
        if let Some(process) = self.process(name) {
            self.stay_down(process);
            // A registrar removes its socket before it goes; nobody else has anything to do.
            if name.starts_with("registrar") && self.liveness(process) == Liveness::Running {
                self.terminate(process);
                return Ok(());
            }
        }
        self.end_named(name, node, &ProcessChange::Exited("stopped".into()))
    }

    /// Kills a process (or node).
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn crash_named(&mut self, name: &str, node: bool) -> Result<(), String> {
        self.end_named(name, node, &ProcessChange::Killed)
    }

    fn end_named(&mut self, name: &str, node: bool, change: &ProcessChange) -> Result<(), String> {
        if node {
            let node = name.strip_prefix("node/").unwrap_or(name);
            if let (ProcessChange::Exited(_), Some(machine)) = (change, self.machine(node)) {
                machine.shut_down();
            }
            self.end_node(node, change, Spared::Nothing);
            return Ok(());
        }
        if let Some(process) = self.process(name) {
            self.end(process, change.clone());
            return Ok(());
        }
        if self.kill_driver(name) {
            Ok(())
        } else {
            Err(format!("there is no process {name}"))
        }
    }

    /// A node loses its power, and the first half of what was not synced survives.
    pub(super) fn cut_power(&mut self, node: &str, torn: bool) {
        let spared = if torn { Spared::HalfTorn } else { Spared::Half };
        self.end_node(node, &ProcessChange::Killed, spared);
    }

    fn end_node(&mut self, node: &str, change: &ProcessChange, spared: Spared) {
        self.end_pause(&format!("node/{node}"));
        for process in self.on_node(node) {
            self.stay_down(process);
            self.end(process, change.clone());
        }
        for driver in self.drivers_on(node) {
            self.kill_driver(&driver);
        }
        self.crash_machine(node, spared);
    }

    /// Starts a process (or the processes of a node) that is down. What stands on a node without power starts with that node.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn start_named(&mut self, name: &str, node: bool) -> Result<(), String> {
        if node {
            let node = name.strip_prefix("node/").unwrap_or(name).to_owned();
            self.boot_machine(&node);
            for driver in self.drivers_on(&node) {
                self.start_driver(&driver);
            }
            for process in self.on_node(&node) {
                if self.liveness(process) == Liveness::Down {
                    self.start(process);
                }
            }
            return Ok(());
        }
        if self.is_in_the_dark(name) {
            return Ok(());
        }
        if let Some(process) = self.process(name) {
            let terminating = &mut self.processes[process.0 as usize].terminating;
            *terminating = terminating.map(|_| true);
            if self.liveness(process) == Liveness::Down {
                self.start(process);
            }
            return Ok(());
        }
        if self.start_driver(name) {
            Ok(())
        } else {
            Err(format!("there is no process {name}"))
        }
    }

    /// Whether a process stands on a node that has no power.
    fn is_in_the_dark(&self, name: &str) -> bool {
        let mut dark = self
            .machines()
            .filter(|(_, machine)| !machine.is_up())
            .map(|(node, _)| node);
        dark.any(|node| {
            let here = self.process(name).is_some_and(|id| self.on_node(node).contains(&id));
            here || self.drivers_on(node).iter().any(|driver| driver == name)
        })
    }

    /// Starts a process (or node) after a while.
    pub fn start_later(&mut self, name: &str, node: bool, after: Duration) {
        let at = self.board.now() + after;
        self.board.at(self.user, at, Due::StartNamed(name.to_owned(), node));
    }

    pub(super) fn on_node(&self, node: &str) -> Vec<super::ProcessId> {
        let here = |id: &super::ProcessId| self.processes[id.0 as usize].node.as_deref() == Some(node);
        self.names.values().copied().filter(here).collect()
    }

    /// What a request is about: the claim behind its volume.
    pub(super) fn claim_of(&self, request: &CsiRequest) -> Option<String> {
        let key = match request {
            CsiRequest::CreateVolume(request) => {
                let uid = request.name.split_once('-')?.1;
                let mut claims = self.api.list::<PersistentVolumeClaim>();
                ObjKey::of(&claims.find(|c| fields::uid(&c.metadata) == uid)?.metadata)
            }
            other => {
                let handle = other.volume_id()?;
                let mut volumes = self.api.list::<PersistentVolume>();
                fields::volume_claim_key(volumes.find(|v| fields::volume_handle(v).is_some_and(|(_, h)| h == handle))?)?
            }
        };
        Some(spelled(&key))
    }
}

pub(super) fn spelled(key: &ObjKey) -> String {
    if key.namespace.is_empty() || &*key.namespace == "default" {
        key.name.to_string()
    } else {
        key.to_string()
    }
}
