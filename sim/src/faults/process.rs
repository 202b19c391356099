//! Processes that end or stand still.
//!
//! **Crash.** *May break:* everything that a process remembers and nothing durable: work is half done, an answer never leaves, an object says what is no longer
//! so. *Why it must survive:* a container is killed whenever its node, its memory limit or its liveness probe says so; Kubernetes and CSI promise that every
//! step can be done again. A driver that crashes may be anywhere between two operations of its machine.
//!
//! **Kubelet down.** *May break:* whoever believes that a silent kubelet has no pods. *Why:* kubelets are upgraded and hang; after 40 s the node is not ready,
//! after 5 min its pods are evicted, 6 min later their volumes are detached by force, and all that time they may run.
//!
//! **Pause.** *May break:* order: what a process decided before the pause happens after it, on a world that moved on; its deadlines have passed.
//! *Why:* a process is descheduled, throttled by its cgroup or swapped out at any moment; writes carry a resourceVersion for that reason.
//!
//! **Two leaders.** *May break:* a controller that counts on being alone: the call or write that the old leader has under way meets those of the new one.
//! *Why:* a lease is a promise about time, not about requests that were sent before it was lost.
//!
//! Blind spot of two leaders: the old one sends nothing new; real ones exit as soon as they notice, but not sooner.

use super::{Fault, Spot, seconds};
use crate::scenario::{PlainPhase, Process, Role};

/// How long a process pauses: longer than the deadlines of the sidecars' calls, shorter than what makes a node lost.
const PAUSE: u64 = 30;
/// A crashed process starts again after its back-off, or stays away for long.
const AWAY: u64 = 30;
/// Long enough that a node's pods are evicted (300 s) and its volumes detached by force (360 s).
const LOST: u64 = 420;

pub(super) fn offer(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    for process in std::iter::once(spot.process).chain(spot.callee) {
        menu.push(crash(process, None));
        menu.push(crash(process, Some(AWAY)));
    }
    if spot.process.role == Role::Kubelet {
        menu.push(crash(spot.process, Some(LOST)));
    }
    if has_a_lease(spot.process.role) && matches!(spot.phase, PlainPhase::Before | PlainPhase::Received) {
        menu.push(Fault::TwoLeaders {
            process: spot.process.clone(),
        });
    }
    let pauses = match spot.phase {
        PlainPhase::Before | PlainPhase::BeforeSend => Some(spot.process),
        PlainPhase::Received => spot.callee,
        PlainPhase::BeforeReply | PlainPhase::AfterReply | PlainPhase::Applied => None,
    };
    menu.extend(pauses.map(|process| Fault::Pause {
        process: process.clone(),
        lasts: seconds(PAUSE).into(),
    }));
}

fn crash(process: &Process, down: Option<u64>) -> Fault {
    Fault::Crash {
        process: process.clone(),
        down: down.map(|down| seconds(down).into()),
    }
}

/// Who elects a leader.
fn has_a_lease(role: Role) -> bool {
    matches!(
        role,
        Role::ControllerManager
            | Role::Scheduler
            | Role::SnapshotController
            | Role::Provisioner
            | Role::Attacher
            | Role::Resizer
            | Role::Snapshotter
    )
}
