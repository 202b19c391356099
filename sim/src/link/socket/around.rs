//! One run as the cluster sees it: what can be seen of the driver, and what can strike it.

use std::sync::Arc;

use wavetank_agent::wire::{Answer, Ask};

use super::Outside;
use super::run::Run;
use crate::link::elsewhere::{Elsewhere, Footprint, Sight};
use crate::scenario::Role;
use crate::storm::Fault;

/// How many digits of a profile's digest stand in a token.
const DIGITS: usize = 8;

/// A run around a driver behind sockets.
pub struct Around {
    run: Arc<Run>,
    /// Where the process lives that serves the sidecars.
    controller: String,
}

impl Around {
    /// `first`: the name of the first node.
    pub fn new(run: &Arc<Run>, first: &str) -> Around {
        let combined = run.outside().profile().combined.is_some();
        Around {
            run: Arc::clone(run),
            controller: if combined { first } else { "controller" }.to_owned(),
        }
    }

    fn health(&self, place: &str) -> Option<wavetank_agent::wire::Health> {
        match self.run.ask(place, &Ask::Health("driver".to_owned()))? {
            Answer::Health(health) => Some(health),
            _ => None,
        }
    }
}

impl Outside {
    /// What stands for the link and this driver in a token: its name, and a digest of what its profile says of it. How it is started is not part of that, because
    /// paths differ between machines.
    pub fn mark(&self) -> String {
        let mut said = serde_json::to_value(&self.profile).expect("a profile is plain data");
        for besides in ["controller", "node", "combined", "inventory", "watchdog"] {
            said.as_object_mut().expect("a profile is a map").remove(besides);
        }
        said["combined"] = self.profile.combined.is_some().into();
        let digest = blake3::hash(said.to_string().as_bytes()).to_hex();
        format!("{}:{}:{}", self.ground.link(), self.profile.name, &digest[..DIGITS])
    }

    /// What can be seen of it.
    pub fn sight(&self) -> Sight {
        Sight {
            storage: false,
            machines: self.sees_mounts(),
            holdings: self.profile.inventory.is_some() || self.facts().controller.contains("LIST_VOLUMES"),
            processes: !self.profile.has_strangers(),
        }
    }

    /// Whether a fault can strike at all around drivers outside: what befalls modelled machines cannot, but for the power and the disks of a machine that has
    /// its own.
    pub fn knows(&self, fault: &Fault) -> bool {
        match fault {
            Fault::PowerLoss { torn, .. } => self.ground.forgets() && !torn && self.can_end(Role::Node),
            Fault::FailDevices { .. } => self.ground.can_fail_devices(),
            Fault::Pause { process, .. } if process.role == Role::Node => self.sees_mounts(),
            fault => !fault.needs_a_model(),
        }
    }

    /// Whether a process of this role can be killed and started again.
    pub fn can_end(&self, role: Role) -> bool {
        let profile = &self.profile;
        match role {
            Role::Node => self.sees_mounts(),
            Role::DriverController => !profile.has_strangers() && profile.keeps_state,
            Role::DriverNode => !profile.has_strangers() && (profile.keeps_state || profile.combined.is_none()),
            _ => true,
        }
    }

    /// What never strikes behind this link, as sentences.
    pub fn limits(&self) -> Vec<String> {
        let bytes = if self.ground.forgets() {
            ""
        } else {
            ", or bytes that were not synced"
        };
        let mut limits = vec![format!(
            "no fault strikes operations of the driver's machine or its storage, its clock{bytes}: it is a process of its own"
        )];
        if !self.can_end(Role::Node) {
            let why = self.shared().unwrap_or("the driver does not mount for real");
            limits.push(format!("no node dies: {why}"));
        }
        if self.profile.has_strangers() {
            limits.push("the driver does not die: wavetank did not start it".to_owned());
        } else if !self.can_end(Role::DriverController) {
            limits.push("the driver's controller does not die: its volumes do not survive that".to_owned());
        }
        limits
    }
}

impl Elsewhere for Around {
    fn sight(&self) -> Sight {
        self.run.outside().sight()
    }

    fn can(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Crash { process, .. } | Fault::Restart { process } => self.run.outside().can_end(process.role),
            Fault::OutOfService { .. } | Fault::RemoveNode { .. } => self.run.outside().can_end(Role::Node),
            fault => self.run.outside().knows(fault),
        }
    }

    fn holds(&self) -> Option<Result<Vec<String>, String>> {
        self.run.lull();
        self.run.inventory(&self.controller).or_else(|| self.run.listed())
    }

    fn devices(&self) -> Vec<String> {
        self.run.lull();
        self.run.loops()
    }

    fn footprint(&self, node: Option<&str>) -> Option<(String, Footprint)> {
        let place = node.unwrap_or(&self.controller);
        let health = self.health(place)?;
        let footprint = Footprint {
            life: health.pid?,
            memory: health.memory,
            descriptors: health.descriptors,
            threads: health.threads,
        };
        Some((place.to_owned(), footprint))
    }

    fn ended(&self) -> Vec<(String, String)> {
        let places = self.run.places();
        let ended = |place: String| {
            let how = self.health(&place)?.ended?;
            Some((place, how))
        };
        places.into_iter().filter_map(ended).collect()
    }
}
