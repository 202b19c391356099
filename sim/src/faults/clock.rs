//! Clocks.
//!
//! **Jump.** *May break:* whoever orders events by stamps of different machines, or derives names from them: a snapshot cut after another may bear an
//! earlier time. *Why it must survive:* CSI: `creation_time` is for people; nothing may be decided by it.
//!
//! Blind spots: the timers of processes are monotonic and never jump; what Kubernetes' processes compare with stamps of the API server they take from the one
//! true time.

use super::{Fault, Spot, seconds};
use crate::scenario::{Call, PlainPhase};

/// An hour: what a wrong time zone or a battery does.
const JUMP: u64 = 3600;

pub(super) fn offer(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    let stamps = [Call::CreateSnapshot, Call::CreateVolumeGroupSnapshot];
    let (Some(callee), true) = (spot.callee, stamps.iter().any(|call| call.as_str() == spot.effect)) else {
        return;
    };
    if spot.phase == PlainPhase::BeforeSend {
        for back in [false, true] {
            menu.push(Fault::SkewClock {
                process: callee.clone(),
                by: seconds(JUMP).into(),
                back,
            });
        }
    }
}
