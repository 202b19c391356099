//! Calls whose request or answer meets trouble on its way.
//!
//! **Refused, delayed.** *May break:* whoever takes a failed call for one that did nothing, or counts on the order of calls about different volumes.
//! *Why it must survive:* sockets are not there yet, drivers are busy. CSI: UNAVAILABLE, ABORTED and DEADLINE_EXCEEDED are tried again.
//!
//! **Overtaken.** *May break:* a driver that takes what arrives last for what is wanted: a detachment from one node, long repeated and done, arrives behind the attachment
//! to the next one and takes that away; a smaller expansion arrives behind a larger one. *Why:* two connections have no order, and a caller that lost one does not know what
//! became of its request. Never behind its opposite: that no driver could tell (see `cluster/overtaken.rs`).
//!
//! **Doubled.** *May break:* a driver that does the same thing twice at once. *Why:* a CO that lost its state may call again while its first call is still
//! under way (CSI, *Timeouts* and *Concurrency*); the driver may answer ABORTED to the second.
//!
//! **Answer lost, late or replaced.** *May break:* a caller that takes an error for *nothing happened* and forgets a volume, an attachment or a staging that is
//! there. *Why:* CSI: after a deadline the caller does not know, and calls again until it does.
//!
//! A menu replaces answers by codes that leave open what happened. Any other code after the effect is a lie that no caller can see through: a scenario may pin it.

use super::{Fault, Spot, seconds};
use crate::scenario::{Call, Code, PlainPhase};

/// Shorter than every deadline.
const SHORT: u64 = 1;
/// How long a call is overtaken: the first repeats are through.
const OVERTAKEN: u64 = 5;
/// Longer than the deadline of a sidecar (15 s), shorter than that of kubelet (2 min).
const LONG: u64 = 20;

/// Codes that leave open what happened: provisioner and kubelet keep the volume in mind after them.
const OPEN: [Code; 3] = [Code::Unavailable, Code::Aborted, Code::DeadlineExceeded];

pub(super) fn offer(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    let (short, long) = (seconds(SHORT).into(), seconds(LONG).into());
    match spot.phase {
        PlainPhase::BeforeSend => {
            menu.extend(OPEN.map(|code| Fault::RefuseCall { code }));
            if is_undone_by_trying_again(spot.effect) {
                menu.push(Fault::RefuseCall { code: Code::Internal });
            }
            menu.push(Fault::DelayCall { by: short });
        }
        PlainPhase::Received => menu.push(Fault::DuplicateCall {}),
        PlainPhase::BeforeReply => {
            menu.push(Fault::LoseAnswer {});
            menu.push(Fault::DelayAnswer { by: short });
            menu.push(Fault::DelayAnswer { by: long });
            menu.extend(OPEN.map(|code| Fault::ReplaceAnswer { code }));
            if is_undone_by_trying_again(spot.effect) {
                menu.push(Fault::ReplaceAnswer { code: Code::Internal });
            }
        }
        PlainPhase::AfterReply | PlainPhase::Before | PlainPhase::Applied => {}
    }
}

/// What a menu has of this behind everything else.
pub(super) fn offer_overtaking(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    if spot.phase == PlainPhase::BeforeSend {
        menu.push(Fault::ReorderCall {
            by: seconds(OVERTAKEN).into(),
        });
    }
}

/// Whether the caller tries the call again after any code, so that INTERNAL means no more than *not yet*.
fn is_undone_by_trying_again(effect: &str) -> bool {
    let again = [
        Call::DeleteVolume,
        Call::DeleteSnapshot,
        Call::ControllerPublishVolume,
        Call::ControllerUnpublishVolume,
        Call::ControllerExpandVolume,
        Call::NodeUnpublishVolume,
        Call::NodeUnstageVolume,
    ];
    again.iter().any(|call| call.as_str() == effect)
}
