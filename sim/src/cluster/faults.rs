//! Processes and nodes that end and come back, at once or at a site; and what a request is about, by the names of the scenario.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tonic::Status;

use super::process::Liveness;
use super::{Cluster, Due};
use crate::api::{ObjKey, Write, fields};
use crate::link::inproc::DISCONNECTED;
use crate::link::{CallError, CsiReply, CsiRequest};
use crate::scenario::{PlainPhase, Site};
use crate::trace::{Met, ProcessChange, Record, SiteBook, What};

/// A crash that waits for its site.
pub(super) struct Pinned {
    site: Site,
    /// The name of the site's process in the cluster.
    process: String,
    phase: PlainPhase,
    struck: bool,
    victim: String,
    node: bool,
    down: Option<Duration>,
}

impl Cluster {
    /// From now on effects are named and counted, so that crashes can be pinned to them.
    pub fn count_sites(&mut self) {
        self.sites = Some(SiteBook::default());
    }

    /// Pins a crash of `victim` to a site of `process`. Attempts count from [`Cluster::count_sites`] on.
    ///
    /// # Errors
    /// If the process or the victim does not exist, the phase is not one of a call or a write, or the site has passed already.
    pub fn pin_crash(
        &mut self,
        site: &Site,
        process: &str,
        victim: &str,
        node: bool,
        down: Option<Duration>,
    ) -> Result<(), String> {
        let crate::scenario::Phase::Plain(phase) = site.phase else {
            return Err(format!(
                "the phase {} needs a driver that counts its operations on the host: not modelled yet",
                site.phase
            ));
        };
        if !self.exists(process, false) || !self.exists(victim, node) {
            return Err(format!(
                "there is no process {}",
                if self.exists(process, false) { victim } else { process }
            ));
        }
        let book = self.sites.get_or_insert_with(SiteBook::default);
        let so_far = book.so_far(process, site);
        let answer_to_come = matches!(phase, PlainPhase::BeforeReply | PlainPhase::AfterReply)
            && self.calls.values().any(|flight| flight.met.is(process, site));
        if so_far >= site.attempt && !answer_to_come {
            return Err(format!(
                "the site `{site}` has passed already: {so_far} {} so far. Put the crash before the step that leads there, \
                 or name attempt {} or a later one",
                if so_far == 1 { "attempt" } else { "attempts" },
                so_far.saturating_add(1)
            ));
        }
        self.pinned.push(Pinned {
            site: site.clone(),
            process: process.to_owned(),
            phase,
            struck: false,
            victim: victim.to_owned(),
            node,
            down,
        });
        Ok(())
    }

    /// The sites of pinned crashes that have not struck.
    pub fn pending_sites(&self) -> impl Iterator<Item = &Site> {
        self.pinned.iter().filter(|p| !p.struck).map(|p| &p.site)
    }

    /// A call begins. It belongs to two processes, the caller and the driver's: a crash may be pinned in either's name.
    pub(super) fn meet_call(&mut self, caller: &str, callee: Option<&str>, request: &CsiRequest) -> Met {
        let Some(book) = &mut self.sites else {
            return Met::default();
        };
        book.read(self.trace.records());
        let sides: Vec<&str> = std::iter::once(caller).chain(callee).collect();
        book.call(&sides, request)
    }

    /// A write begins.
    pub(super) fn meet_write(&mut self, process: &str, write: &Write) -> Met {
        let Some(book) = &mut self.sites else {
            return Met::default();
        };
        book.read(self.trace.records());
        book.write(process, write)
    }

    /// Whether a crash is pinned to this phase of an effect; if so it strikes now.
    pub(super) fn strike(&mut self, met: &Met, phase: PlainPhase) -> bool {
        let due = self
            .pinned
            .iter_mut()
            .find(|p| !p.struck && p.phase == phase && met.is(&p.process, &p.site));
        let Some(pinned) = due else { return false };
        pinned.struck = true;
        let (site, victim, node, down) = (pinned.process.clone(), pinned.victim.clone(), pinned.node, pinned.down);
        let text = format!("crash {victim} at {}", pinned.site);
        self.trace.push(Record {
            at: self.board.now(),
            process: Arc::from(site.as_str()),
            what: What::Fault(text),
        });
        // Both were looked up when the crash was pinned.
        let _ = self.crash_named(&victim, node);
        match (down, node) {
            (Some(down), _) => self.start_later(&victim, node, down),
            (None, false) => self.start_later(&victim, node, Duration::ZERO),
            (None, true) => {}
        }
        true
    }

    /// The answer of a call whose driver died before it left.
    pub(super) fn cut() -> Result<CsiReply, CallError> {
        Err(CallError {
            status: Status::unavailable(DISCONNECTED),
            disconnected: true,
        })
    }

    fn exists(&self, name: &str, node: bool) -> bool {
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
            let node = name.strip_prefix("node/").unwrap_or(name).to_owned();
            for process in self.on_node(&node) {
                self.stay_down(process);
                self.end(process, change.clone());
            }
            for driver in self.drivers_on(&node) {
                self.kill_driver(&driver);
            }
            self.crash_machine(&node);
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

    /// Starts a process (or the processes of a node) that is down.
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

    /// Starts a process (or node) after a while.
    pub fn start_later(&mut self, name: &str, node: bool, after: Duration) {
        let at = self.board.now() + after;
        self.board.at(self.user, at, Due::StartNamed(name.to_owned(), node));
    }

    fn on_node(&self, node: &str) -> Vec<super::ProcessId> {
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

fn spelled(key: &ObjKey) -> String {
    if key.namespace.is_empty() || &*key.namespace == "default" {
        key.name.to_string()
    } else {
        key.to_string()
    }
}
