//! Housekeeping, every 2 s: containers and directories of pods that nobody knows any more (fact sheet 6.18). No CSI call is made here.
//!
//! ```text
//! per pod directory: Mounts ─something mounted: later─► Volumes ─► each Volume ─► VolumesDir ─► … ─► Pod ─► gone
//! ```
//!
//! Only empty directories are removed: a metadata file that was left behind keeps its directory for ever.
//!
//! *Blind spots.* A directory that cannot be removed is tried again after 2 s, 4 s … 5 min, where kubelet logs an error every 2 s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::paths::Paths;
use super::volume::PodRef;
use super::{Turn, View};
use crate::control::{Effect, Outcome};
use crate::link::{MachineAnswer, MachineError, MachineOp};
use crate::runtime::Time;

const LAST_PAUSE: Duration = Duration::from_secs(300);

/// What housekeeping remembers.
#[derive(Clone, Debug, Default)]
pub struct Housekeeping {
    job: Option<Job>,
    /// Directories that could not be removed: when to try again, and how long the last pause was.
    later: BTreeMap<Arc<str>, (Time, Duration)>,
    over: bool,
}

#[derive(Clone, Debug)]
struct Job {
    uid: Arc<str>,
    todo: VecDeque<MachineOp>,
}

impl Housekeeping {
    /// The sync of the key ended.
    pub fn ended(&mut self) {
        self.over = false;
    }
}

/// Pods on disk that are to be removed now.
fn due<'a>(view: &'a View<'_>) -> impl Iterator<Item = (&'a Arc<str>, Time)> {
    let memory = view.memory;
    let unknown = memory.orphans.iter().filter(|uid| {
        let pod = PodRef::unnamed(uid);
        !memory.workers.pods.contains_key(&pod) && !memory.actual.has_possibly_mounted(&pod)
    });
    unknown.map(|uid| {
        let at = memory.housekeeping.later.get(uid).map_or(view.now, |(at, _)| *at);
        (uid, at)
    })
}

/// What next?
pub fn decide(view: &View<'_>) -> Effect {
    let (memory, period) = (view.memory, view.kubelet.constants.housekeeping_period);
    let Some(loops) = memory.loops.as_ref().filter(|_| memory.sources_ready) else {
        return Effect::Rest;
    };
    if let Some(job) = &memory.housekeeping.job {
        let op = job.todo.front();
        return op.map_or(Effect::Note("removed"), |op| Effect::Machine(op.clone()));
    }
    let tick = view.now.tick(loops.housekeeping, period);
    let stray = memory.workers.found_running.first();
    let next = due(view).map(|(_, at)| at).min();
    if stray.is_none() && next.is_none() {
        return Effect::Rest;
    }
    let begins = stray.map(|_| view.now).or(next).unwrap_or(view.now).max(view.now);
    if begins > view.now || tick > view.now || memory.housekeeping.over {
        let from = if memory.housekeeping.over {
            Time(begins.0 + 1)
        } else {
            begins
        };
        return Effect::RestUntil(from.tick(loops.housekeeping, period));
    }
    match stray {
        Some(uid) => Effect::Machine(MachineOp::StopPod {
            uid: uid.clone(),
            grace_seconds: 1,
        }),
        None => Effect::Note("remove"),
    }
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, effect: &Effect, outcome: &Outcome) {
    match effect {
        Effect::Note("remove") => {
            let view = View {
                kubelet: turn.kubelet,
                cache: turn.cache,
                memory: turn.memory,
                now: turn.now,
            };
            let uid = due(&view)
                .find(|(_, at)| *at <= turn.now)
                .map(|(uid, _)| Arc::clone(uid));
            turn.memory.housekeeping.over = uid.is_none();
            turn.memory.housekeeping.job = uid.map(|uid| Job {
                uid,
                todo: [MachineOp::Mounts].into(),
            });
        }
        Effect::Note(_) => {
            if let Some(job) = turn.memory.housekeeping.job.take() {
                turn.memory.orphans.remove(&job.uid);
                turn.memory.housekeeping.later.remove(&job.uid);
            }
        }
        Effect::Machine(MachineOp::StopPod { uid, .. }) => {
            turn.memory.workers.found_running.retain(|u| u != uid);
        }
        _ => machine(turn, outcome),
    }
}

fn machine(turn: &mut Turn<'_>, outcome: &Outcome) {
    let paths = turn.kubelet.paths();
    let Some(mut job) = turn.memory.housekeeping.job.take() else {
        return;
    };
    let op = job.todo.pop_front();
    let directory = paths.pod(&job.uid);
    let stuck = match (op, outcome.machine()) {
        (Some(MachineOp::Mounts), Ok(MachineAnswer::Mounts(mounts))) => {
            let below = format!("{directory}/");
            job.todo.extend(directories(paths, &job.uid));
            mounts.keys().any(|target| target.starts_with(&below))
        }
        (Some(MachineOp::ListDir(path)), Ok(MachineAnswer::Names(names))) => {
            let removals = names.iter().map(|n| MachineOp::RemoveDir(format!("{path}/{n}")));
            removals.rev().for_each(|op| job.todo.push_front(op));
            false
        }
        (_, Ok(_) | Err(MachineError::Missing(_))) => false,
        (_, Err(_)) => true,
    };
    if stuck {
        later(turn, &job.uid);
    } else {
        turn.memory.housekeeping.job = Some(job);
    }
}

fn directories(paths: Paths<'_>, uid: &str) -> Vec<MachineOp> {
    let pod = paths.pod(uid);
    let remove = |path: String| MachineOp::RemoveDir(path);
    vec![
        MachineOp::ListDir(paths.pod_volumes(uid)),
        remove(paths.pod_volumes(uid)),
        remove(format!("{pod}/volumes")),
        MachineOp::ListDir(paths.pod_devices(uid)),
        remove(paths.pod_devices(uid)),
        remove(format!("{pod}/volumeDevices")),
        remove(pod),
    ]
}

fn later(turn: &mut Turn<'_>, uid: &Arc<str>) {
    let first = turn.kubelet.constants.housekeeping_period;
    let housekeeping = &mut turn.memory.housekeeping;
    let last = housekeeping.later.get(uid).map(|(_, pause)| *pause * 2);
    let pause = last.unwrap_or(first).min(LAST_PAUSE);
    housekeeping.later.insert(Arc::clone(uid), (turn.now + pause, pause));
}
