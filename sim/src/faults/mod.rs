//! Faults: the trouble that a run may meet, as data; and who decides whether it does.
//!
//! A fault strikes at a [`Site`]. The cluster offers every site that a run meets, with the faults that may strike there (the *menu*), to the run's
//! [`Chooser`]; what strikes is kept as a [`Strike`]. A run with a chooser and a run with its strikes pinned are the same run: that is what makes shrinking
//! and replay files possible.
//!
//! A menu holds what an honest driver, honest sidecars and an honest Kubernetes must survive, with a few fixed values, in the order of the families:
//! [`process`], [`call`], [`api`]. A scenario may pin more than that: other values, and answers that no honest driver gives.
//!
//! Faults only widen what may happen. They know nothing of strategies, and judge nothing. What they do is done in `cluster`.

pub mod api;
pub mod call;
pub mod process;
#[cfg(test)]
mod tests;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtime::Time;
use crate::scenario::{Code, GoDuration, PlainPhase, Process, Site};

/// One trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// A process or a whole node ends suddenly, and comes back after a while.
    Crash {
        /// Which.
        process: Process,
        /// For how long. A process that says nothing starts again at once; a node stays away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        down: Option<GoDuration>,
    },
    /// A process stands still, and goes on with what it knew.
    Pause {
        /// Which.
        process: Process,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// The caller gets this code; the driver never sees the call.
    RefuseCall {
        /// The code.
        code: Code,
    },
    /// The call reaches the driver this much later.
    DelayCall {
        /// How much.
        by: GoDuration,
    },
    /// The call reaches the driver twice, the second time while the first is under way. The caller gets the answer to the first.
    DuplicateCall {},
    /// The driver has done what it was told, and its answer never arrives: the caller waits for its deadline.
    LoseAnswer {},
    /// The driver has answered, and its answer arrives this much later, or never if the caller's deadline is earlier.
    DelayAnswer {
        /// How much.
        by: GoDuration,
    },
    /// The driver has done what it was told, and the caller gets this code.
    ReplaceAnswer {
        /// The code.
        code: Code,
    },
    /// The API server refuses a write with 409: somebody else wrote first.
    Conflict {},
    /// The API server refuses a write with 500, because etcd timed out. Nothing was written.
    FailWrite {},
    /// The API server answers 429; the client waits for so long and sends the write again.
    ThrottleWrite {
        /// How long.
        by: GoDuration,
    },
    /// The write is done, and the client gets 500.
    LoseWriteAnswer {},
}

impl Fault {
    /// The process or node that it befalls, if it befalls one.
    pub fn process(&self) -> Option<&Process> {
        match self {
            Fault::Crash { process, .. } | Fault::Pause { process, .. } => Some(process),
            _ => None,
        }
    }

    /// The same, to spell it in another way.
    pub fn process_mut(&mut self) -> Option<&mut Process> {
        match self {
            Fault::Crash { process, .. } | Fault::Pause { process, .. } => Some(process),
            _ => None,
        }
    }

    /// How long it holds up a write that is not sent yet.
    pub fn holds_up(&self) -> Option<std::time::Duration> {
        match self {
            Fault::ThrottleWrite { by } => Some(by.get()),
            _ => None,
        }
    }

    /// Whether it is about the answer to a call.
    pub fn is_of_an_answer(&self) -> bool {
        matches!(
            self,
            Fault::LoseAnswer {} | Fault::DelayAnswer { .. } | Fault::ReplaceAnswer { .. }
        )
    }

    /// Its key in a scenario: `crash`, `loseAnswer`.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Crash { .. } => "crash",
            Fault::Pause { .. } => "pause",
            Fault::RefuseCall { .. } => "refuseCall",
            Fault::DelayCall { .. } => "delayCall",
            Fault::DuplicateCall {} => "duplicateCall",
            Fault::LoseAnswer {} => "loseAnswer",
            Fault::DelayAnswer { .. } => "delayAnswer",
            Fault::ReplaceAnswer { .. } => "replaceAnswer",
            Fault::Conflict {} => "conflict",
            Fault::FailWrite {} => "failWrite",
            Fault::ThrottleWrite { .. } => "throttleWrite",
            Fault::LoseWriteAnswer {} => "loseWriteAnswer",
        }
    }
}

/// As the beginning of a sentence that goes on with the site: `crash kubelet/node-1`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Crash { process, down: None } => write!(f, "crash {process}"),
            Fault::Crash {
                process,
                down: Some(down),
            } => write!(f, "crash {process} for {down}"),
            Fault::Pause { process, lasts } => write!(f, "pause {process} for {lasts}"),
            Fault::RefuseCall { code } => write!(f, "answer {code} without the driver"),
            Fault::DelayCall { by } => write!(f, "delay the call by {by}"),
            Fault::DuplicateCall {} => f.write_str("double the call"),
            Fault::LoseAnswer {} => f.write_str("lose the answer"),
            Fault::DelayAnswer { by } => write!(f, "delay the answer by {by}"),
            Fault::ReplaceAnswer { code } => write!(f, "replace the answer by {code}"),
            Fault::Conflict {} => f.write_str("answer 409 Conflict"),
            Fault::FailWrite {} => f.write_str("answer 500 without writing"),
            Fault::ThrottleWrite { by } => write!(f, "answer 429, again after {by}"),
            Fault::LoseWriteAnswer {} => f.write_str("write, but answer 500"),
        }
    }
}

/// A fault and where it strikes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Strike {
    /// The site.
    pub at: Site,
    /// The fault.
    pub fault: Fault,
}

/// As a trace tells it: `crash kubelet/node-1 at kubelet/node-1 / NodeStageVolume / pvc data / attempt 1 / received`.
impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.fault, self.at)
    }
}

/// A site that a run meets, with what may strike there.
#[derive(Clone, Copy, Debug)]
pub struct Meeting<'a> {
    /// The site, under its first name.
    pub site: &'a Site,
    /// The faults that may strike here, in a fixed order. Never empty.
    pub menu: &'a [Fault],
    /// When.
    pub now: Time,
}

/// Decides what strikes. A chooser is asked at every meeting of the storm, in the order of the run, and never after it.
///
/// Its answers may depend on what it was asked so far and on its own seed, on nothing else.
pub trait Chooser: Send {
    /// The fault of the menu that strikes here, by its place; nothing if none does.
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize>;
}

/// What a menu depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot<'a> {
    /// Whose effect it is: the caller, or who writes.
    pub process: &'a Process,
    /// The process of the driver that answers a call.
    pub callee: Option<&'a Process>,
    /// The call or the verb of the write.
    pub effect: &'a str,
    /// Where in it.
    pub phase: PlainPhase,
}

/// The menu of a spot, family by family.
pub fn menu(spot: &Spot<'_>) -> Vec<Fault> {
    let mut menu = Vec::new();
    process::offer(spot, &mut menu);
    call::offer(spot, &mut menu);
    api::offer(spot, &mut menu);
    menu
}

/// A duration of a menu.
const fn seconds(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}
