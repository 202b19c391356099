//! Faults: the trouble that a run may meet, as data; and who decides whether it does.
//!
//! A fault strikes at a [`Site`]. The cluster offers every site that a run meets, with the faults that may strike there (the *menu*), to the run's
//! [`Chooser`]; what strikes is kept as a [`Strike`]. A run with a chooser and a run with its strikes pinned are the same run: that is what makes shrinking
//! and replay files possible.
//!
//! Faults only widen what may happen. They know nothing of strategies, and judge nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtime::Time;
use crate::scenario::{GoDuration, Process, Site};

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
