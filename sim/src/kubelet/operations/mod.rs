//! Volume operations: each is a machine whose position lives in memory, keyed as [`keys`] says.
//!
//! The reconciler starts them. An operation decides one effect at a time, and a crash between two of them leaves exactly what the effects so far have left on
//! the node and at the driver. Some operations turn out impossible to put together (a metadata file that cannot be read): those end as if they had
//! never been started, without back-off.

pub mod cleanup;
pub mod device;
pub mod expand;
pub mod job;
pub mod keys;
pub mod map;
pub mod mount;
pub mod unmap;
pub mod unmount;
pub mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::actual::Class;
use super::{Key, Turn, View};
use crate::api::{ApiError, ObjKey, ObjectRef, Read, ReadAnswer, Resource};
use crate::control::{Effect, Outcome};

use device::UnmountDevice;
use expand::ExpandInUse;
use keys::{Ended, Executor, OpKey};
use map::Map;
use mount::Mount;
use unmap::{Unmap, UnmapDevice};
use unmount::Unmount;
use verify::Verify;

/// An error of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// What it says about the operation.
    pub class: Class,
    /// What it says to people.
    pub message: String,
}

impl OpError {
    /// The operation is certainly over. (A wrapped error is one of these, whatever it wraps.)
    pub fn last(message: impl Into<String>) -> OpError {
        OpError {
            class: Class::Final,
            message: message.into(),
        }
    }

    /// Something around the operation failed.
    pub fn transient(message: impl Into<String>) -> OpError {
        OpError {
            class: Class::Transient,
            message: message.into(),
        }
    }
}

/// Where an operation is after it learned something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not at its end.
    Going,
    /// At its end.
    Over(Ended),
}

/// An operation under way.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each holds the machine of that operation")]
pub enum Operation {
    Mount(Box<Mount>),
    Map(Box<Map>),
    Unmount(Box<Unmount>),
    Unmap(Box<Unmap>),
    UnmountDevice(Box<UnmountDevice>),
    UnmapDevice(Box<UnmapDevice>),
    Verify(Box<Verify>),
    Expand(Box<ExpandInUse>),
}

/// The operations of this kubelet.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    /// Who may start when.
    pub executor: Executor,
    /// Those under way.
    pub running: BTreeMap<OpKey, Operation>,
}

/// What next for an operation?
pub fn decide(view: &View<'_>, key: &OpKey) -> Effect {
    match view.memory.operations.running.get(key) {
        None => Effect::Rest,
        Some(Operation::Mount(op)) => op.decide(view),
        Some(Operation::Map(op)) => op.decide(view),
        Some(Operation::Unmount(op)) => op.decide(view),
        Some(Operation::Unmap(op)) => op.decide(view),
        Some(Operation::UnmountDevice(op)) => op.decide(view),
        Some(Operation::UnmapDevice(op)) => op.decide(view),
        Some(Operation::Verify(op)) => op.decide(view),
        Some(Operation::Expand(op)) => op.decide(view),
    }
}

/// What did that teach an operation?
pub fn learn(turn: &mut Turn<'_>, key: &OpKey, outcome: &Outcome) {
    let Some(mut operation) = turn.memory.operations.running.remove(key) else {
        return;
    };
    let progress = match &mut operation {
        Operation::Mount(op) => op.learn(turn, key, outcome),
        Operation::Map(op) => op.learn(turn, key, outcome),
        Operation::Unmount(op) => op.learn(turn, outcome),
        Operation::Unmap(op) => op.learn(turn, outcome),
        Operation::UnmountDevice(op) => op.learn(turn, outcome),
        Operation::UnmapDevice(op) => op.learn(turn, outcome),
        Operation::Verify(op) => op.learn(turn, outcome),
        Operation::Expand(op) => op.learn(turn, key, outcome),
    };
    match progress {
        Progress::Going => {
            turn.memory.operations.running.insert(key.clone(), operation);
        }
        Progress::Over(ended) => over(turn, key, ended),
    }
}

fn over(turn: &mut Turn<'_>, key: &OpKey, ended: Ended) {
    let constants = &turn.kubelet.constants;
    let (first, cap) = (constants.operation_backoff, constants.operation_backoff_cap);
    let executor = &mut turn.memory.operations.executor;
    executor.end(key, ended, turn.now, first, cap);
    if ended == Ended::NotGenerated {
        turn.memory.reconciler.impossible(key, turn.now);
    } else {
        turn.memory.reconciler.possible(key);
    }
    turn.wake_reconciler();
    turn.wake_node_status();
}

/// Starts the machine of an operation that the executor let in.
pub fn begin(turn: &mut Turn<'_>, key: OpKey, operation: Operation) {
    turn.memory.operations.running.insert(key.clone(), operation);
    turn.queue.add(Key::Operation(key));
}

/// A live GET.
pub fn get<T: Resource>(key: &ObjKey) -> Effect {
    Effect::Read(Read::Get(ObjectRef::to::<T>(key)))
}

/// The object of a live GET.
///
/// # Errors
/// What the server said.
pub fn got<T: Resource>(outcome: &Outcome) -> Result<Arc<T>, String> {
    read(outcome).map_err(|error| error.message.clone())
}

/// The object of a live GET, or the server's error itself.
///
/// # Errors
/// What the server said.
pub fn read<T: Resource>(outcome: &Outcome) -> Result<Arc<T>, &ApiError> {
    match outcome.read()? {
        ReadAnswer::Object(object) => Ok(Arc::clone(
            object.get().expect("a GET answers the kind that was asked for"),
        )),
        ReadAnswer::List(_) => panic!("an object was asked for, not a list"),
    }
}
