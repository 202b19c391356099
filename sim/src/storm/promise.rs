//! Promises and their violations as data. What keeps watch over each stands in `oracles`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::runtime::Time;

/// When a promise must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Season {
    /// At every moment.
    Safety,
    /// At the end, when nothing troubles the cluster any more.
    Calm,
}

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Its name in reports, replay files and `--help`: `one-writer`, `no-leftovers`.
    pub name: &'static str,
    /// The promise as one sentence.
    pub says: &'static str,
    /// When it must hold.
    pub season: Season,
    /// What says so: a section of the CSI specification, a page of the Kubernetes documentation.
    pub source: &'static str,
}

/// Who is to blame for a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// The CSI driver.
    Driver,
    /// A sidecar.
    Sidecar,
    /// Kubernetes itself.
    Kubernetes,
    /// The specification leaves it open.
    Undefined,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Party::Driver => "the driver",
            Party::Sidecar => "a sidecar",
            Party::Kubernetes => "Kubernetes",
            Party::Undefined => "nobody: the specification leaves it open",
        })
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static Promise,
    /// What was seen, as one sentence that names the objects.
    pub text: String,
    /// The objects, as sites spell them: `pvc data`, `node node-1`.
    pub objects: Vec<String>,
    /// When it was seen.
    pub at: Time,
    /// The record of the trace that showed it, by its place.
    pub record: usize,
    /// Who is to blame.
    pub blame: Party,
    /// What decides that: a section of the CSI specification or of the Kubernetes documentation.
    pub source: &'static str,
}
