//! Processes and nodes that end and come back, at once or at a site; and what a request is about, by the names of the scenario.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tonic::Status;

use super::process::Liveness;
use super::{Cluster, Due};
use crate::api::{Kind, ObjKey, ObjectRef, fields};
use crate::link::inproc::DISCONNECTED;
use crate::link::{CallError, CsiReply, CsiRequest};
use crate::scenario::{PlainPhase, Site};
use crate::trace::{ProcessChange, Record, What};

/// A crash that waits for its site.
pub(super) struct Pinned {
    process: String,
    effect: String,
    object: String,
    attempt: u32,
    phase: PlainPhase,
    seen: u32,
    struck: bool,
    victim: String,
    node: bool,
    down: Option<Duration>,
    spelled: String,
}

impl Cluster {
    /// Pins a crash of `victim` to a site of `process`.
    ///
    /// # Errors
    /// If the process or the victim does not exist, or the phase is not one of a call or a write.
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
        self.pinned.push(Pinned {
            process: process.to_owned(),
            effect: site.effect.clone(),
            object: site.object.clone(),
            attempt: site.attempt,
            phase,
            seen: 0,
            struck: false,
            victim: victim.to_owned(),
            node,
            down,
            spelled: site.to_string(),
        });
        Ok(())
    }

    /// Pinned faults that have not struck, as sentences' subjects.
    pub fn pending_faults(&self) -> Vec<String> {
        let pinned = self
            .pinned
            .iter()
            .filter(|p| !p.struck)
            .map(|p| format!("the crash at `{}`", p.spelled));
        let injected = self.pending_injections().map(|i| match i.times {
            Some(times) if i.struck > 0 => format!("the injection into {} ({} of {times} times)", i.method, i.struck),
            _ => format!("the injection into {}", i.method),
        });
        pinned.chain(injected.collect::<Vec<_>>()).collect()
    }

    /// Whether a crash waits for its site.
    pub(super) fn has_pins(&self) -> bool {
        self.pinned.iter().any(|p| !p.struck)
    }

    /// Whether a crash is pinned to this moment of one of `processes`; if so it strikes now.
    pub(super) fn strike(
        &mut self,
        processes: &[&str],
        effect: &str,
        objects: &dyn Fn(&Cluster) -> Vec<String>,
        phase: PlainPhase,
    ) -> bool {
        if !self.has_pins() {
            return false;
        }
        let objects = objects(self);
        let mut due = None;
        for (nth, pinned) in self.pinned.iter_mut().enumerate().filter(|(_, p)| !p.struck) {
            if pinned.phase == phase
                && processes.contains(&pinned.process.as_str())
                && pinned.effect == effect
                && objects.contains(&pinned.object)
            {
                pinned.seen += 1;
                if pinned.seen == pinned.attempt {
                    due = Some(nth);
                }
            }
        }
        let Some(nth) = due else { return false };
        let pinned = &mut self.pinned[nth];
        pinned.struck = true;
        let (site, victim, node, down) = (pinned.process.clone(), pinned.victim.clone(), pinned.node, pinned.down);
        let text = format!("crash {victim} at {}", pinned.spelled);
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
                let handle = crate::play::volume_id(other)?;
                let mut volumes = self.api.list::<PersistentVolume>();
                fields::volume_claim_key(volumes.find(|v| fields::volume_handle(v).is_some_and(|(_, h)| h == handle))?)?
            }
        };
        Some(spelled(&key))
    }

    /// The names under which a scenario may speak of the object of a call.
    pub(super) fn objects_of_call(&self, request: &CsiRequest) -> Vec<String> {
        self.claim_of(request)
            .into_iter()
            .flat_map(|claim| [format!("pvc {claim}"), format!("pv {claim}")])
            .collect()
    }

    /// The names under which a scenario may speak of the object of a write: its own, or that of the claim it serves.
    pub(super) fn objects_of_write(&self, target: &ObjectRef) -> Vec<String> {
        let mut names = vec![format!("{} {}", target.kind.short(), spelled(&target.key))];
        let volume = match target.kind {
            Kind::PersistentVolume => Some(target.key.name.to_string()),
            Kind::VolumeAttachment => self
                .api
                .get::<k8s_openapi::api::storage::v1::VolumeAttachment>(&target.key)
                .map(|va| fields::attachment_volume(va).to_owned()),
            _ => None,
        };
        let volume = volume.and_then(|name| self.api.get::<PersistentVolume>(&ObjKey::cluster(name)));
        if let Some(claim) = volume.and_then(|v| fields::volume_claim_key(v)) {
            names.push(format!("{} {}", target.kind.short(), spelled(&claim)));
        }
        names
    }
}

/// The node that a controller call names.
pub(super) fn node_of(request: &CsiRequest) -> Option<String> {
    match request {
        CsiRequest::ControllerPublishVolume(r) => Some(r.node_id.clone()),
        CsiRequest::ControllerUnpublishVolume(r) => Some(r.node_id.clone()),
        _ => None,
    }
}

fn spelled(key: &ObjKey) -> String {
    if key.namespace.is_empty() || &*key.namespace == "default" {
        key.name.to_string()
    } else {
        key.to_string()
    }
}
