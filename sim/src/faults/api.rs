//! The API server and the way to it.
//!
//! **Conflict.** *May break:* a writer that overwrites what it did not read. *Why it must survive:* optimistic concurrency is how Kubernetes works; a writer
//! reads again and decides again.
//!
//! **Failed, or written with the answer lost.** *May break:* a controller that takes an error for *not written*: it creates twice, or waits for what is there.
//! *Why:* etcd times out; the API server answers 500 whether or not the write was done.
//!
//! **Throttled.** *May break:* order: the write lands later than its writer thinks. *Why:* priority and fairness answers 429, and client-go sends again.

use super::{Fault, Spot, seconds};
use crate::scenario::PlainPhase;

/// What `Retry-After` says.
const RETRY_AFTER: u64 = 1;

pub(super) fn offer(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    match spot.phase {
        PlainPhase::Before => {
            if matches!(spot.effect, "update" | "patch") {
                menu.push(Fault::Conflict {});
            }
            menu.push(Fault::FailWrite {});
            menu.push(Fault::ThrottleWrite {
                by: seconds(RETRY_AFTER).into(),
            });
        }
        PlainPhase::Applied => menu.push(Fault::LoseWriteAnswer {}),
        PlainPhase::BeforeSend | PlainPhase::Received | PlainPhase::BeforeReply | PlainPhase::AfterReply => {}
    }
}
