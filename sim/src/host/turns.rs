//! How an operation on a modelled machine waits for its turn, and how a dead process is kept from acting.
//!
//! Every operation of a process on its machine, on the storage system and on its ledger's disk is a place where a fault may strike. The
//! asynchronous ones ask [`Turns`]; the disk, which is synchronous, asks an [`OpGate`]. Both belong to whoever runs the process.
//!
//! Left out: the choice of a fault and of a latency (`cluster/operations.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wavetank_driver::{HostError, HostErrorKind, PoolError, PoolErrorKind};

/// The end of one incarnation of a process: once frozen, nothing that it asks of its machine, its disk or the storage system happens any more.
///
/// A clone is the same fence. A new incarnation gets a new one.
#[derive(Clone, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    /// The fence of a living process.
    pub fn new() -> Fence {
        Fence::default()
    }

    /// Ends the incarnation. There is no way back.
    pub fn freeze(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Has the incarnation ended?
    pub fn is_frozen(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_frozen() {
            "Fence(frozen)"
        } else {
            "Fence(open)"
        })
    }
}

/// What is said to an operation whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It happens.
    Proceed,
    /// It does not happen, and reports this.
    Fail(Trouble),
    /// It happens, and nevertheless reports this.
    Pretend(Trouble),
    /// The process is dead.
    Fenced,
}

/// What an injected fault looks like to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Trouble {
    /// An input/output error.
    Io,
    /// No room left.
    NoSpace,
    /// Given up after waiting.
    TimedOut,
    /// Cannot be reached.
    Unavailable,
    /// In use.
    Busy,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Trouble {
    fn text(self) -> &'static str {
        match self {
            Trouble::Io => "input/output error",
            Trouble::NoSpace => "no space left on device",
            Trouble::TimedOut => "connection timed out",
            Trouble::Unavailable => "cannot be reached",
            Trouble::Busy => "device or resource busy",
        }
    }

    /// As a machine reports it.
    pub fn on_host(self, subject: &str) -> HostError {
        let kind = match self {
            Trouble::Io | Trouble::Unavailable => HostErrorKind::Io,
            Trouble::NoSpace => HostErrorKind::NoSpace,
            Trouble::TimedOut => HostErrorKind::TimedOut,
            Trouble::Busy => HostErrorKind::Busy,
        };
        HostError::new(kind, format!("{subject}: {}", self.text()))
    }

    /// As a storage system reports it.
    pub fn in_pool(self, subject: &str) -> PoolError {
        let kind = match self {
            Trouble::Io => PoolErrorKind::Io,
            Trouble::NoSpace => PoolErrorKind::NoSpace,
            Trouble::TimedOut => PoolErrorKind::TimedOut,
            Trouble::Unavailable => PoolErrorKind::Unavailable,
            Trouble::Busy => PoolErrorKind::InUse,
        };
        PoolError::new(kind, format!("{subject}: {}", self.text()))
    }

    /// As the disk of a ledger reports it.
    pub fn on_disk(self) -> std::io::Error {
        let kind = match self {
            Trouble::Io | Trouble::Unavailable => std::io::ErrorKind::Other,
            Trouble::NoSpace => std::io::ErrorKind::StorageFull,
            Trouble::TimedOut => std::io::ErrorKind::TimedOut,
            Trouble::Busy => std::io::ErrorKind::ResourceBusy,
        };
        std::io::Error::new(kind, self.text())
    }
}

/// Where the asynchronous operations of one incarnation of a process wait for their turn.
#[async_trait]
pub trait Turns: Send + Sync + 'static {
    /// Waits until an operation may take effect; the effect follows at once. `site` names the operation (`host.mount`, `pool.create`), `subject`
    /// what it is done to. After a crash at this site it never returns.
    async fn turn(&self, site: &'static str, subject: &str) -> Turn;

    /// Time since the Unix epoch on this process's machine, for stamps (when a snapshot was cut).
    fn wall(&self) -> Duration;
}

/// Turns that come at once: for tests without a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtOnce;

#[async_trait]
impl Turns for AtOnce {
    async fn turn(&self, _: &'static str, _: &str) -> Turn {
        Turn::Proceed
    }

    fn wall(&self) -> Duration {
        Duration::ZERO
    }
}

/// What happens to one synchronous operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It happens.
    Proceed,
    /// It does not happen, and reports this.
    Fail(Trouble),
    /// The process dies here: the operation does not happen, and none after it.
    Freeze,
}

/// Asked before each operation on the disk of a ledger, which cannot wait.
pub trait OpGate: Send + Sync + 'static {
    /// The `nth` operation (from 1) of this incarnation is about to happen; `site` names it (`disk.write`).
    fn before(&self, site: &'static str, nth: u64) -> Gate;
}

/// What a power loss leaves of the writes that were never made durable, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// All are lost.
    #[default]
    All,
    /// The first so many survive.
    Keep(usize),
    /// The first so many survive, and half of the next.
    Tear(usize),
}

impl Loss {
    /// How many of `count` pending writes survive whole, and whether half of the next one does.
    pub(super) fn split(self, count: usize) -> (usize, bool) {
        match self {
            Loss::All => (0, false),
            Loss::Keep(n) => (n.min(count), false),
            Loss::Tear(n) => (n.min(count), n < count),
        }
    }
}
