//! What happened, as typed records: one per effect. Everything people see is rendered from these, and the digest of a run is taken over them.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use crate::api::{ApiError, Object, Write, Written};
use crate::link::{Call, CsiReply, MachineError, MachineOp};
use crate::runtime::Time;

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
#[derive(Debug, Default)]
pub struct Trace {
    records: Vec<Record>,
    /// Records before this moment belong to the boot of the cluster.
    origin: Time,
    off: bool,
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

    /// The records so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}
