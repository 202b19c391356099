//! Single operations of a driver: on its machine, on its storage system, on the disk of its ledger. Each is a site of its own, `after-op(k)`: the k-th that a
//! call causes, from 1. A crash comes after it; a failing or slow operation is the k-th itself.
//!
//! **Crash.** *May break:* a driver that does two things and remembers them as one. *Why it must survive:* CSI calls are idempotent: whatever a call left
//! behind, the next one finishes or takes back. A commit of the ledger is about a dozen writes and a sync; each counts.
//!
//! **Failing.** *May break:* a driver that goes on, or answers OK, after an error; a ledger that is used after its disk failed. *Why:* disks and storage systems
//! fail now and then; an error is an answer, and the caller comes again.
//!
//! **Done, but reported as failed.** *May break:* a driver that takes back what it believes not to be there, or makes it twice. *Why:* the management of a
//! storage system is a network away.
//!
//! **Slow.** *May break:* an operation that is tied to the call that began it: the caller gives up and comes again while the operation is still under way.
//! *Why:* CSI: operations may take longer than a deadline; a second call meanwhile gets ABORTED.

use super::{Fault, seconds};
use crate::host::Trouble;
use crate::scenario::Process;

/// Longer than the deadline of a sidecar, shorter than that of kubelet.
const SLOW: u64 = 20;
/// Longer than every deadline.
const VERY_SLOW: u64 = 150;
/// How long a node is away that lost its power in the middle of an operation.
const AWAY: u64 = 30;

pub(super) fn offer(process: &Process, operation: &str, menu: &mut Vec<Fault>) {
    menu.push(Fault::Crash {
        process: process.clone(),
        down: None,
    });
    if let Some(node) = &process.node {
        menu.push(Fault::Crash {
            process: Process::node(node),
            down: Some(seconds(AWAY).into()),
        });
    }
    if operation.starts_with("disk.") {
        menu.push(Fault::FailOperation { trouble: Trouble::Io });
        return;
    }
    let trouble = if operation.starts_with("pool.") {
        menu.push(Fault::PretendFailure {
            trouble: Trouble::TimedOut,
        });
        Trouble::Unavailable
    } else {
        Trouble::Io
    };
    menu.push(Fault::FailOperation { trouble });
    for by in [SLOW, VERY_SLOW] {
        menu.push(Fault::SlowOperation { by: seconds(by).into() });
    }
}
