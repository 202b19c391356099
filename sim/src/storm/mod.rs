//! What the three powers say to each other. Faults widen what may happen (`faults`), a strategy picks (`explore`), oracles judge (`oracles`): none of them knows
//! another, all of them know these words.
//!
//! A fault strikes at a [`Site`]. The cluster offers every site that a run meets, with the faults that may strike there (the *menu*), to the run's
//! [`Chooser`]; what strikes is kept as a [`Strike`]. A run with a chooser and a run with its strikes pinned are the same run: that is what makes shrinking
//! and replay files possible. An oracle that sees its [`Promise`] broken gives a [`Violation`].

mod fault;
mod promise;
mod words;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtime::Time;
use crate::scenario::Site;

pub use fault::Fault;
pub use promise::{Party, Promise, Season, Violation};

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
