//! What happened, as typed records: one per effect. Everything people see is rendered from these, and the digest of a run is taken over them.
//!
//! Where to go next: `text.rs` for what a person reads, `json.rs` for what a machine reads, `recorded.rs` for the shape of recordings from real
//! clusters, `picture.rs` for what is drawn, `follow.rs` for one object's life, `sites.rs` for where faults may strike, `secrets.rs` for what no rendering shows.

mod calls;
mod diff;
mod edits;
mod facts;
mod follow;
pub mod json;
mod legend;
mod lines;
mod lore;
pub mod perfetto;
pub mod picture;
mod proto_json;
pub mod recorded;
mod secrets;
mod short;
mod sites;
mod style;
#[cfg(test)]
mod tests;
pub mod text;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use crate::api::{ApiError, Object, Write, Written};
use crate::link::{Call, CsiReply, MachineError, MachineOp};
use crate::runtime::Time;

pub use follow::{Follow, strangers};
pub use legend::LEGEND;
pub use lore::Lore;
pub use secrets::{Secrets, secrets_of};
pub use sites::{Met, SiteBook, nearest_site, sites};
pub use text::TextOptions;
pub use token::{Storm, Token, TokenError, VERSION};

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Record {
    /// When, since the run began.
    pub at: Time,
    /// Which process did it; `kubectl` for the user of the scenario.
    pub process: Arc<str>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A write reached the API server.
    Write {
        /// The request.
        write: Arc<Write>,
        /// The object before it, if there was one.
        before: Option<Object>,
        /// What the server answered.
        result: Result<Written, ApiError>,
    },
    /// A CSI call left its caller.
    Call {
        /// Names the call within the run.
        id: u64,
        /// The call. Secrets in it must never be printed.
        call: Arc<Call>,
    },
    /// A CSI call came back, or its caller gave up.
    Reply {
        /// The id of the call.
        id: u64,
        /// The call.
        call: Arc<Call>,
        /// Virtual time since it was sent.
        took: Duration,
        /// The answer as the caller sees it.
        result: Result<CsiReply, Status>,
    },
    /// A process did something on its node.
    Machine {
        /// The operation.
        op: Arc<MachineOp>,
        /// Why it failed, if it did.
        error: Option<MachineError>,
    },
    /// A process came, went or changed.
    Process(ProcessChange),
    /// A step of the scenario.
    Step(String),
    /// A fault or an injected answer struck.
    Fault(String),
}

/// What became of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// It started; its informers are filled.
    Started,
    /// It exited by itself, with this message.
    Exited(String),
    /// It was killed.
    Killed,
    /// It could not start.
    Failed(String),
}

/// Where records go.
#[derive(Default)]
pub struct Trace {
    records: Vec<Record>,
    /// Records before this moment belong to the boot of the cluster.
    origin: Time,
    off: bool,
}

/// How much it holds. What it holds is for the renderers, which know what is secret.
impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} records)", self.records.len())
    }
}

impl Trace {
    /// A trace that keeps everything.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// A trace that keeps nothing: for benchmarks.
    pub fn off() -> Trace {
        Trace {
            off: true,
            ..Trace::default()
        }
    }

    /// Whether records are kept.
    pub fn is_on(&self) -> bool {
        !self.off
    }

    /// The cluster has booted: times are shown relative to now, and what came before is not shown.
    pub fn begin(&mut self, now: Time) {
        self.origin = now;
        self.records.clear();
    }

    /// The moment from which times are shown.
    pub fn origin(&self) -> Time {
        self.origin
    }

    /// Takes in a record.
    pub fn push(&mut self, record: Record) {
        if !self.off {
            self.records.push(record);
        }
    }

    /// Forgets what came after the first `shown` records.
    pub fn truncate(&mut self, shown: usize) {
        self.records.truncate(shown);
    }

    /// The digest of everything that happened since the trace began: BLAKE3 over its JSON lines, as hexadecimal digits. Equal digests mean equal runs.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        json::write(&mut hasher, self, &[]).expect("hashing does not fail");
        hasher.finalize().to_hex().to_string()
    }

    /// The records so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

/// Whether a successful write was the end of the object: a deletion that nothing holds back, or the last finalizer of one that was held back.
pub(crate) fn is_gone(write: &Write, written: &Written) -> bool {
    let meta = written.object.meta();
    let held = match &written.object {
        Object::Namespace(namespace) => namespace
            .spec
            .as_ref()
            .and_then(|s| s.finalizers.as_ref())
            .is_some_and(|f| !f.is_empty()),
        _ => false,
    };
    if !written.changed || held || meta.finalizers.as_ref().is_some_and(|f| !f.is_empty()) {
        return false;
    }
    let waits = meta.deletion_grace_period_seconds.is_some_and(|grace| grace > 0);
    match (write, &meta.deletion_timestamp) {
        (Write::Delete(_), None) => true,
        (_, Some(_)) => !waits,
        (_, None) => false,
    }
}
