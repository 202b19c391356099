//! Effects: everything a process can do that others see, as data.

use std::borrow::Cow;
use std::time::Duration;

use crate::api::{ApiError, EventRecord, Read, ReadAnswer, Write, Written};
use crate::link::{Call, CallError, CsiReply, MachineAnswer, MachineError, MachineOp};
use crate::runtime::Time;

/// What a controller wants next for one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing more: the sync succeeded, its retries are forgotten.
    Rest,
    /// Nothing more now, and another look at this moment; retries are forgotten.
    RestUntil(Time),
    /// The sync failed: again after the queue's back-off.
    Retry(Cow<'static, str>),
    /// The sync failed, and again at exactly this moment: neither counted nor forgotten.
    RetryAt(Time, Cow<'static, str>),
    /// A write to the API server.
    Write(Write),
    /// A read that goes to the API server.
    Read(Read),
    /// A CSI call.
    Call(Box<Call>),
    /// An operation on the process's own node.
    Machine(MachineOp),
    /// Between kubelet and node-driver-registrar.
    Registration(RegistrationOp),
    /// A Kubernetes event. The recorder takes it without making the controller wait.
    Record(EventRecord),
    /// Changes memory and nothing else: `learn` is called at once, then `decide` again. The word says why, for unit tests and traces.
    Note(&'static str),
    /// Holds the worker for a while, as a poll with sleep does.
    Wait(Duration),
    /// The process exits with this message; whatever runs it restarts it.
    Exit(Cow<'static, str>),
}

/// What came of an effect.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of `Record`, `Note` and `Wait`.
    Done,
    /// Of `Write`.
    Written(Result<Written, ApiError>),
    /// Of `Read`.
    Read(Result<ReadAnswer, ApiError>),
    /// Of `Call`.
    Reply(Result<CsiReply, CallError>),
    /// Of `Machine`.
    Machine(Result<MachineAnswer, MachineError>),
    /// Of `Registration`.
    Registration(Result<Option<PluginInfo>, CallError>),
}

/// The plugin-registration API between kubelet and node-driver-registrar.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistrationOp {
    /// The registrar listens on `<plugins_registry>/<driver>-reg.sock`; an old socket is removed first.
    Listen(PluginInfo),
    /// The registrar removes its socket (SIGTERM).
    Close,
    /// Kubelet asks who is behind a socket.
    GetInfo {
        /// The socket's path.
        socket: String,
    },
    /// Kubelet tells whether registration succeeded.
    Notify {
        /// The socket's path.
        socket: String,
        /// Why it failed, or `None`.
        error: Option<String>,
    },
}

/// What a registrar says of its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// The driver's name.
    pub name: String,
    /// Where the driver listens.
    pub endpoint: String,
    /// The supported versions, e.g. `1.0.0`.
    pub versions: Vec<String>,
}

impl Effect {
    /// A write.
    pub fn write(write: Write) -> Effect {
        Effect::Write(write)
    }

    /// Whether it ends the sync of its key.
    pub fn ends(&self) -> bool {
        matches!(
            self,
            Effect::Rest | Effect::RestUntil(_) | Effect::Retry(_) | Effect::RetryAt(..) | Effect::Exit(_)
        )
    }

    /// Whether nobody outside the process sees it: it takes no time and offers no fault site.
    pub fn is_internal(&self) -> bool {
        matches!(self, Effect::Record(_) | Effect::Note(_))
    }
}

impl Outcome {
    /// The answer to a write.
    ///
    /// # Panics
    /// If it is the outcome of something else: `learn` mixed up its effects.
    pub fn written(&self) -> Result<&Written, &ApiError> {
        match self {
            Outcome::Written(result) => result.as_ref(),
            other => panic!("the outcome of a write was expected, not {other:?}"),
        }
    }

    /// The answer to a read.
    ///
    /// # Panics
    /// If it is the outcome of something else.
    pub fn read(&self) -> Result<&ReadAnswer, &ApiError> {
        match self {
            Outcome::Read(result) => result.as_ref(),
            other => panic!("the outcome of a read was expected, not {other:?}"),
        }
    }

    /// The answer to a call.
    ///
    /// # Panics
    /// If it is the outcome of something else.
    pub fn reply(&self) -> Result<&CsiReply, &CallError> {
        match self {
            Outcome::Reply(result) => result.as_ref(),
            other => panic!("the outcome of a call was expected, not {other:?}"),
        }
    }

    /// The answer of the machine.
    ///
    /// # Panics
    /// If it is the outcome of something else.
    pub fn machine(&self) -> Result<&MachineAnswer, &MachineError> {
        match self {
            Outcome::Machine(result) => result.as_ref(),
            other => panic!("the outcome of a machine operation was expected, not {other:?}"),
        }
    }
}
