//! Whole nodes: power, network, and people who declare them dead.
//!
//! **Crash.** *May break:* mounts, loop devices and staging directories that a driver believes to be there; what was never synced is gone. *Why it must survive:*
//! power fails. After 30 s the node is back before anybody noticed; after 7 min its pods were evicted and its volumes detached by force.
//!
//! **Power loss.** *May break:* as a crash, but the disk keeps the first half of what was not synced, and a write may be torn: a ledger that is written in place.
//! *Why:* disks write in sectors, when they like.
//!
//! **Partition.** *May break:* the promise that a volume has one writer: the node lives on, unseen, while its pods are replaced elsewhere. After a minute nobody
//! has acted yet; after seven the volume was detached by force, and the storage must have cut the node off. *Why:* networks split.
//!
//! **Out of service.** *May break:* whoever waits for a node to confirm. *Why:* non-graceful node shutdown: somebody who knows that the node is dead says so with
//! a taint, and Kubernetes detaches at once. The fault never taints a living node: that would be a lie.
//!
//! **Removed.** *May break:* whoever needs the Node to say what is attached there, or under which id the driver knows it: the object goes while volumes are still
//! attached, and takes CSINode with it. *Why:* people drain nodes and delete them, and autoscalers do nothing else. The machine may come back: it registers under its
//! name, with another UID, and nothing of what was said of the old Node is said of the new one.

use super::{Fault, Spot, seconds};
use crate::scenario::{PlainPhase, Process, Role};

/// Back before its pods are evicted.
const BLINK: u64 = 30;
/// Longer than it takes until a node is not ready (40 s).
const NOTICED: u64 = 60;
/// Long enough that a node's pods are evicted (300 s) and its volumes detached by force (360 s after that at the latest).
const LOST: u64 = 700;

/// A removed node that comes back before its volumes are detached by force, and one that comes back after that.
const REPLACED: [u64; 2] = [60, 700];

/// What a menu has of this behind everything else.
pub(super) fn offer_removal(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    let (Role::Kubelet, Some(node)) = (spot.process.role, &spot.process.node) else {
        return;
    };
    if matches!(spot.phase, PlainPhase::Received | PlainPhase::AfterReply) {
        menu.extend(REPLACED.map(|back| Fault::RemoveNode {
            node: node.clone(),
            back: Some(seconds(back).into()),
        }));
    }
}

pub(super) fn offer(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    let (Role::Kubelet, Some(node)) = (spot.process.role, &spot.process.node) else {
        return;
    };
    for down in [BLINK, LOST] {
        menu.push(Fault::Crash {
            process: Process::node(node),
            down: Some(seconds(down).into()),
        });
    }
    match spot.phase {
        PlainPhase::Received => {
            for torn in [false, true] {
                menu.push(Fault::PowerLoss {
                    node: node.clone(),
                    torn,
                    down: seconds(BLINK).into(),
                });
            }
        }
        PlainPhase::Before | PlainPhase::BeforeSend => {
            for lasts in [NOTICED, LOST] {
                menu.push(Fault::Partition {
                    node: node.clone(),
                    lasts: seconds(lasts).into(),
                });
            }
        }
        PlainPhase::AfterReply => menu.push(Fault::OutOfService { node: node.clone() }),
        PlainPhase::BeforeReply | PlainPhase::Applied => {}
    }
}
