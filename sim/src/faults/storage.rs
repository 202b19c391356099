//! The storage system behind a driver.
//!
//! **Away.** *May break:* a driver that takes *cannot be reached* for *is not there*. *Why it must survive:* arrays and clouds have maintenance windows.
//!
//! **Full.** *May break:* a driver that leaves half a volume behind, or an expansion half done. *Why:* CSI: RESOURCE_EXHAUSTED, and later there is room again.
//!
//! **Slow.** *May break:* an operation that ends when its caller gives up; a deadline that is taken for a failure. *Why:* storage systems work asynchronously
//! and throttle their clients.
//!
//! **Lists that lag.** *May break:* a driver that looks into a list to find out whether its volume is there. *Why:* lists of clouds are eventually consistent.
//!
//! Trouble of one operation (a device that comes late, one failing read or write) is in `operation.rs`.

use super::{Fault, Spot, seconds};
use crate::scenario::{PlainPhase, Role};

const AWAY: u64 = 60;
const FULL: u64 = 60;
/// Longer than the deadline of a sidecar (15 s).
const SLOW: u64 = 20;
const SLOW_FOR: u64 = 120;

pub(super) fn offer(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    let manages = spot.callee.is_some_and(|callee| callee.role == Role::DriverController);
    if !manages {
        return;
    }
    match spot.phase {
        PlainPhase::BeforeSend => {
            menu.push(Fault::StorageAway {
                lasts: seconds(AWAY).into(),
            });
            menu.push(Fault::StorageFull {
                lasts: seconds(FULL).into(),
            });
            menu.push(Fault::SlowStorage {
                by: seconds(SLOW).into(),
                lasts: seconds(SLOW_FOR).into(),
            });
        }
        PlainPhase::AfterReply => menu.push(Fault::StaleLists {
            lasts: seconds(SLOW_FOR).into(),
        }),
        PlainPhase::Received | PlainPhase::BeforeReply | PlainPhase::Before | PlainPhase::Applied => {}
    }
}
