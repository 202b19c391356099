//! Processes, and the sites at which faults strike them.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::effects;
use super::names::{PlainPhase, Role, text_format};
use super::nearest::nearest;

/// A process of the cluster, or a whole node: `scheduler`, `kubelet/node-1`, `provisioner`, `registrar@csi.two.dev/node-2`.
///
/// The driver may be left out where the cluster has only one; loading fills it in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// What it does.
    pub role: Role,
    /// Whose it is, for sidecars and drivers.
    pub driver: Option<String>,
    /// Where it runs, for processes of a node.
    pub node: Option<String>,
}

impl Process {
    /// Reads a process.
    ///
    /// # Errors
    /// A sentence with the nearest spelling.
    pub fn parse(text: &str) -> Result<Process, String> {
        let (left, node) = match text.split_once('/') {
            Some((left, node)) => (left, Some(node.to_owned())),
            None => (text, None),
        };
        let (role, driver) = match left.split_once('@') {
            Some((role, driver)) => (role, Some(driver.to_owned())),
            None => (left, None),
        };
        let Some(known) = Role::parse(role) else {
            let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
            return Err(match nearest(role, roles.iter().copied()) {
                Some(near) => format!("there is no process `{role}`; did you mean `{near}`?"),
                None => format!("there is no process `{role}`; there are {}", roles.join(", ")),
            });
        };
        match &node {
            None if known.per_node() => return Err(format!("each node has a `{role}`: write `{text}/NODE`")),
            Some(_) if !known.per_node() => return Err(format!("the {role} runs on no node: write `{left}`")),
            Some(node) if node.is_empty() => return Err(format!("write the node behind the slash: `{left}/node-1`")),
            _ => {}
        }
        if driver.is_some() && !known.per_driver() {
            return Err(format!("the {role} belongs to no driver: leave `@…` away"));
        }
        Ok(Process {
            role: known,
            driver,
            node,
        })
    }

    /// The kubelet of a node.
    pub fn kubelet(node: &str) -> Process {
        Process {
            role: Role::Kubelet,
            driver: None,
            node: Some(node.to_owned()),
        }
    }

    /// A whole node.
    pub fn node(node: &str) -> Process {
        Process {
            role: Role::Node,
            driver: None,
            node: Some(node.to_owned()),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.role)?;
        if let Some(driver) = &self.driver {
            write!(f, "@{driver}")?;
        }
        match &self.node {
            Some(node) => write!(f, "/{node}"),
            None => Ok(()),
        }
    }
}

/// Where in an effect a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// One of the fixed phases of a call or a write.
    Plain(PlainPhase),
    /// After the k-th host or pool operation that the call causes, from 1.
    AfterOp(u32),
}

impl Phase {
    /// Reads a phase.
    ///
    /// # Errors
    /// A sentence with the nearest spelling.
    pub fn parse(text: &str) -> Result<Phase, String> {
        if let Some(phase) = PlainPhase::parse(text) {
            return Ok(Phase::Plain(phase));
        }
        if let Some(k) = text.strip_prefix("after-op(").and_then(|rest| rest.strip_suffix(')')) {
            return match k.parse() {
                Ok(k) if k > 0 => Ok(Phase::AfterOp(k)),
                _ => Err(format!(
                    "operations are counted from 1: write after-op(1), not `{text}`"
                )),
            };
        }
        let mut phases: Vec<&str> = PlainPhase::ALL.iter().map(|phase| phase.as_str()).collect();
        phases.push("after-op(1)");
        Err(match nearest(text, phases.iter().copied()) {
            Some(near) => format!("there is no phase `{text}`; did you mean `{near}`?"),
            None => format!("there is no phase `{text}`; there are {}", phases.join(", ")),
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Plain(phase) => write!(f, "{phase}"),
            Phase::AfterOp(k) => write!(f, "after-op({k})"),
        }
    }
}

/// A place where a fault may strike: `provisioner / CreateVolume / pvc data / attempt 1 / before-reply`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// Whose effect it is.
    pub process: Process,
    /// The CSI call, API write or host operation.
    pub effect: String,
    /// The object by its name in the scenario, e.g. `pvc data`.
    pub object: String,
    /// Which time since the scenario began, from 1.
    pub attempt: u32,
    /// Where in the effect.
    pub phase: Phase,
}

impl Site {
    /// Reads a site.
    ///
    /// # Errors
    /// A sentence that names the wrong part and the nearest spelling.
    pub fn parse(text: &str) -> Result<Site, String> {
        let parts: Vec<&str> = text.split(" / ").map(str::trim).collect();
        let [process, effect, object, attempt, phase] = parts[..] else {
            return Err(format!(
                "a site has five parts, such as `provisioner / CreateVolume / pvc data / attempt 1 / before-reply`; {text:?} has {}",
                parts.len()
            ));
        };
        let attempt = attempt
            .strip_prefix("attempt ")
            .and_then(|n| n.parse().ok())
            .filter(|n| *n > 0)
            .ok_or_else(|| {
                format!("the fourth part of a site is `attempt 1`, `attempt 2` and so on, not `{attempt}`")
            })?;
        if effect.is_empty() || object.is_empty() {
            return Err("no part of a site may be empty".to_owned());
        }
        let (process, phase) = (Process::parse(process)?, Phase::parse(phase)?);
        effects::fits(process.role, effect, phase)?;
        Ok(Site {
            process,
            effect: effect.to_owned(),
            object: effects::object(object)?,
            attempt,
            phase,
        })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site {
            process,
            effect,
            object,
            attempt,
            phase,
        } = self;
        write!(f, "{process} / {effect} / {object} / attempt {attempt} / {phase}")
    }
}

text_format!(
    Process,
    "Process",
    "process",
    "A process or a node: `scheduler`, `kubelet/node-1`, `provisioner`, `registrar@csi.two.dev/node-2`, `node/node-1`.",
    Process::parse
);
text_format!(
    Site,
    "Site",
    "site",
    "Where a fault strikes: `provisioner / CreateVolume / pvc data / attempt 1 / before-reply`.",
    Site::parse
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_as_they_are_printed() {
        for text in [
            "scheduler",
            "kubelet/node-1",
            "provisioner@a.b",
            "registrar@a.b/node-2",
            "node/node-3",
        ] {
            assert_eq!(Process::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_processes_are_refused_with_the_right_spelling() {
        for (text, part) in [
            ("kublet/node-1", "did you mean `kubelet`"),
            ("kubelet", "write `kubelet/NODE`"),
            ("scheduler/node-1", "runs on no node"),
            ("scheduler@a.b", "belongs to no driver"),
            ("kubelet/", "behind the slash"),
        ] {
            let error = Process::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn sites_are_read_as_they_are_printed_and_refused_part_by_part() {
        let text = "provisioner / CreateVolume / pvc data / attempt 1 / before-reply";
        assert_eq!(Site::parse(text).unwrap().to_string(), text);
        for verb in ["create", "update", "patch", "delete"] {
            let write = format!("provisioner / {verb} / pv other/data / attempt 1 / applied");
            assert_eq!(Site::parse(&write).unwrap().to_string(), write);
        }
        let operation = "driver-node/node-1 / NodeStageVolume / pvc data / attempt 2 / after-op(3)";
        assert_eq!(Site::parse(operation).unwrap().to_string(), operation);
        for (text, part) in [
            ("provisioner / CreateVolume", "five parts"),
            (
                "provisioner / CreateVolum / pvc data / attempt 1 / before-reply",
                "did you mean `CreateVolume`",
            ),
            (
                "provisioner / CreateVolume / pvc data / 1 / before-reply",
                "`attempt 1`",
            ),
            (
                "attacher / NodeStageVolume / pvc data / attempt 1 / before-reply",
                "the kubelet sends it",
            ),
            (
                "provisioner / create / pv data / attempt 1 / before-reply",
                "before, applied",
            ),
            (
                "provisioner / CreateVolume / pvc data / attempt 1 / before-replay",
                "did you mean `before-reply`",
            ),
            (
                "provisioner / CreateVolume / pvc data / attempt 1 / after-op(0)",
                "counted from 1",
            ),
        ] {
            let error = Site::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
