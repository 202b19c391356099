//! The API server and the way to it.
//!
//! **Conflict.** *May break:* a writer that overwrites what it did not read. *Why it must survive:* optimistic concurrency is how Kubernetes works; a writer
//! reads again and decides again.
//!
//! **Failed, or written with the answer lost.** *May break:* a controller that takes an error for *not written*: it creates twice, or waits for what is there.
//! *Why:* etcd times out; the API server answers 500 whether or not the write was done.
//!
//! **Throttled.** *May break:* order: the write lands later than its writer thinks. *Why:* priority and fairness answers 429, and client-go sends again.
//!
//! **Stale informer, watch cut and relist.** *May break:* a controller that takes its cache for the truth: it acts on what was, or never sees a state that came
//! and went; a deletion reaches it without the object's last state. *Why:* watches lag and break (410 Gone); caches are promises of *eventually*.
//!
//! **Outage.** *May break:* whoever gives up after some errors. *Why:* API servers are upgraded.

use super::{Fault, Spot, seconds};
use crate::scenario::PlainPhase;

/// What `Retry-After` says.
const RETRY_AFTER: u64 = 1;
/// A rolling restart of the control plane; shorter than what makes nodes lost.
const OUTAGE: u64 = 30;
/// How long an informer is behind.
const STALE: u64 = 30;
/// How long it takes to list again.
const RELIST: u64 = 10;

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
            menu.push(Fault::Outage {
                lasts: seconds(OUTAGE).into(),
            });
        }
        PlainPhase::Applied => {
            menu.push(Fault::LoseWriteAnswer {});
            blind(spot, menu);
        }
        PlainPhase::AfterReply => blind(spot, menu),
        PlainPhase::BeforeSend | PlainPhase::Received | PlainPhase::BeforeReply => {}
    }
}

fn blind(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    menu.push(Fault::StaleInformer {
        process: spot.process.clone(),
        lasts: seconds(STALE).into(),
    });
    menu.push(Fault::Relist {
        process: spot.process.clone(),
        after: seconds(RELIST).into(),
    });
}
