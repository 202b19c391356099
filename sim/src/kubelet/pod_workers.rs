//! Pod workers: one per pod of this node (fact sheet 6.16, appendix A.1 and A.2).
//!
//! ```text
//! Syncing:     Begin ─► Volumes (poll 300 ms, at most 2 min 3 s) ─► Sandbox ─► Containers ─► Idle ─resync after 60..90 s─► Begin
//!    │           ▲         │ errors of the populator, or too late                             │ containers exited
//!    │           └──Idle◄──┘ 10..15 s                                                         └─► Begin, or the pod is over
//!    │ deletionTimestamp, object gone, or containers over for good
//!    ▼
//! Terminating: Begin ─► Kill ─► (volumes may be unmounted now)
//!    ▼
//! Terminated:  Begin ─► Unmount (poll 300 ms) ─► Paths (poll 100 ms) ─► Finished: final status; the object is deleted with grace 0
//! ```
//!
//! No pod syncs twice without a PLEG relist in between: a deletion that interrupts a sync, and the last phase of every pod, wait for the next relist (traces 21c2, 04).
//! Containers live in the machine: they survive kubelet, and a new kubelet finds them running.
//!
//! *Blind spots.* A pod is started and stopped as a whole; init containers, probes and images take no time. A pod that cannot finish because of a mount nobody
//! knows of looks at the mount table after 100 ms, 200 ms … 10 s instead of every 100 ms. Pods without CSI volumes have no resync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::populator::expected_volumes;
use super::volume::PodRef;
use super::{Key, Memory, Turn, View, status};
use crate::api::{EventRecord, Object, exponential, fields};
use crate::control::{Effect, Outcome};
use crate::link::{MachineAnswer, MachineOp};
use crate::runtime::Time;

/// What the pod workers remember.
#[derive(Clone, Debug, Default)]
pub struct Workers {
    /// The pods by UID.
    pub pods: BTreeMap<PodRef, Worker>,
    /// Pods whose containers ran when kubelet started.
    pub found_running: Vec<String>,
}

/// The life of a pod on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is to run.
    Syncing,
    /// Its containers are to stop.
    Terminating,
    /// They have stopped; its volumes are to go.
    Terminated,
    /// Nothing of it is left.
    Finished,
}

/// Where a worker stands in its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    Volumes { since: Time },
    Sandbox,
    Restart { at: Time },
    Containers,
    Idle { until: Time },
    Kill,
    Unmount { since: Time },
    Paths { at: Time, pause: Duration },
    Done,
}

/// What is known of a pod's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    /// Never started here.
    None,
    /// They run; since when, if this kubelet started them.
    Running(Option<Time>),
    /// They have ended.
    Exited {
        /// Their exit code.
        code: i32,
        /// Since when they ran, if known.
        started: Option<Time>,
        /// When they ended.
        at: Time,
    },
}

/// One pod's worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The pod as it was last seen.
    pub pod: Arc<Pod>,
    /// The API server still has it.
    pub in_api: bool,
    /// Its phase.
    pub phase: Phase,
    /// Its containers.
    pub containers: Containers,
    /// The sandbox is up.
    pub sandbox: bool,
    /// How often the containers were started again.
    pub restarts: i32,
    /// The containers are gone: volumes may be unmounted.
    pub runtime_removed: bool,
    /// It is to end: asked for, or seen to be over.
    ending: bool,
    step: Step,
    /// The next sync waits for a PLEG relist.
    not_before: Time,
    syncs: u64,
}

impl Worker {
    fn new(pod: &Arc<Pod>) -> Worker {
        Worker {
            pod: Arc::clone(pod),
            in_api: true,
            phase: Phase::Syncing,
            containers: Containers::None,
            sandbox: false,
            restarts: 0,
            runtime_removed: false,
            ending: fields::is_deleting(&pod.metadata) || fields::is_terminated(pod),
            step: Step::Begin,
            not_before: Time::ZERO,
            syncs: 0,
        }
    }

    /// Its containers should be stopping, or are.
    pub fn is_ending(&self) -> bool {
        self.ending || self.phase != Phase::Syncing
    }

    fn can_be_interrupted(&self) -> bool {
        matches!(
            self.step,
            Step::Begin | Step::Volumes { .. } | Step::Idle { .. } | Step::Restart { .. }
        )
    }

    /// Whether its containers will not be started again.
    pub fn is_over(&self) -> bool {
        let Containers::Exited { code, .. } = self.containers else {
            return false;
        };
        let policy = self.pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        match policy {
            Some("Never") => true,
            Some("OnFailure") => code == 0,
            _ => false,
        }
    }

    fn grace(&self) -> i64 {
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        let own = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
        asked.or(own).unwrap_or(30).max(1)
    }

    fn pod_ref(&self) -> PodRef {
        PodRef::of(&self.pod)
    }
}

/// The containers of a pod.
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |s| &s.containers)
}

/// A pod of this node appeared, changed or vanished.
pub fn notice(turn: &mut Turn<'_>, pod: &Arc<Pod>, gone: bool) {
    let key = PodRef::of(pod);
    let known = turn.memory.workers.pods.contains_key(&key);
    if gone {
        return vanish(turn, pod, &key);
    }
    if !known {
        return admit(turn, pod, &key);
    }
    let worker = turn.memory.workers.pods.get_mut(&key).expect("just looked up");
    let old = std::mem::replace(&mut worker.pod, Arc::clone(pod));
    let ends = fields::is_deleting(&pod.metadata);
    worker.ending |= ends;
    let changed = old.spec != pod.spec || old.metadata.annotations != pod.metadata.annotations;
    if changed && let Step::Idle { .. } = worker.step {
        worker.step = Step::Begin;
    }
    if worker.phase == Phase::Finished && ends || status::has_drifted(turn.memory, &key, pod) {
        turn.queue.add(Key::PodStatus(key.clone()));
    }
    turn.queue.add(Key::PodWorker(key));
}

fn admit(turn: &mut Turn<'_>, pod: &Arc<Pod>, key: &PodRef) {
    let mut worker = Worker::new(pod);
    let running = &mut turn.memory.workers.found_running;
    if let Some(at) = running.iter().position(|uid| **uid == *key.uid) {
        running.remove(at);
        (worker.containers, worker.sandbox) = (Containers::Running(None), true);
    } else if status::was_running(pod) {
        // The node has lost them: they are started again, and counted.
        worker.containers = Containers::Exited {
            code: 255,
            started: None,
            at: turn.now,
        };
    }
    worker.restarts = status::restarts_of(pod);
    turn.memory.workers.pods.insert(key.clone(), worker);
    turn.queue.add(Key::PodWorker(key.clone()));
    turn.wake_populator();
}

fn vanish(turn: &mut Turn<'_>, pod: &Arc<Pod>, key: &PodRef) {
    let Some(worker) = turn.memory.workers.pods.get_mut(key) else {
        return;
    };
    (worker.in_api, worker.ending) = (false, true);
    worker.pod = Arc::clone(pod);
    turn.queue.add(Key::PodWorker(key.clone()));
    turn.wake_populator();
    turn.wake_housekeeping();
}

/// The containers of a pod ended by themselves.
pub fn exited(turn: &mut Turn<'_>, uid: &str, code: i32) {
    let key = PodRef::unnamed(uid);
    let Some(worker) = turn.memory.workers.pods.get_mut(&key) else {
        return;
    };
    let Containers::Running(started) = worker.containers else {
        return;
    };
    let at = turn.now;
    worker.containers = Containers::Exited { code, started, at };
    if matches!(worker.step, Step::Idle { .. }) {
        worker.step = Step::Begin;
    }
    let key = worker.pod_ref();
    turn.queue.add(Key::PodWorker(key));
}

/// What next for a pod?
pub fn decide(view: &View<'_>, key: &PodRef) -> Effect {
    let Some(worker) = view.memory.workers.pods.get(key) else {
        return Effect::Rest;
    };
    let (now, constants) = (view.now, &view.kubelet.constants);
    let uid = || key.uid.to_string();
    let gated = |note| {
        if now < worker.not_before {
            Effect::RestUntil(worker.not_before)
        } else {
            Effect::Note(note)
        }
    };
    if worker.phase == Phase::Syncing && worker.ending && worker.can_be_interrupted() {
        return Effect::Note("terminate");
    }
    match (worker.phase, worker.step) {
        (Phase::Syncing, Step::Begin) => gated("sync"),
        (_, Step::Volumes { since }) => poll(view, since, constants.volume_wait_interval, verdict(view, worker)),
        (_, Step::Sandbox) => Effect::Wait(constants.sandbox),
        (_, Step::Restart { at }) if now < at => Effect::RestUntil(at),
        (_, Step::Restart { .. }) => Effect::Note("restart"),
        (_, Step::Containers) => Effect::Machine(MachineOp::StartPod(uid())),
        (_, Step::Idle { until }) if until == Time::NEVER => Effect::Rest,
        (_, Step::Idle { until }) if now < until => Effect::RestUntil(until),
        (_, Step::Idle { .. }) => Effect::Note("resync"),
        (Phase::Terminating, Step::Begin) => gated("kill"),
        (_, Step::Kill) => Effect::Machine(MachineOp::StopPod {
            uid: uid(),
            grace_seconds: worker.grace(),
        }),
        (_, Step::Begin) => gated("await unmount"),
        (_, Step::Unmount { since }) => {
            let mounted = view.memory.actual.has_mounted(key);
            let verdict = (!mounted).then_some("unmounted");
            poll(view, since, constants.volume_wait_interval, verdict)
        }
        (_, Step::Paths { at, .. }) if now < at => Effect::RestUntil(at),
        (_, Step::Paths { .. }) if view.memory.actual.has_possibly_mounted(key) => Effect::Note("still mounted"),
        (_, Step::Paths { .. }) => Effect::Machine(MachineOp::Mounts),
        (_, Step::Done) => Effect::Rest,
    }
}

/// A poll: the verdict counts at the ticks only, and after the limit there is one anyway.
fn poll(view: &View<'_>, since: Time, interval: Duration, verdict: Option<&'static str>) -> Effect {
    let limit = since + view.kubelet.constants.volume_wait_timeout;
    match verdict {
        _ if view.now >= limit => Effect::Note("too late"),
        None => Effect::RestUntil(limit),
        Some(note) => {
            let tick = view.now.tick(since, interval);
            if tick == view.now {
                Effect::Note(note)
            } else {
                Effect::RestUntil(tick)
            }
        }
    }
}

/// Whether the volumes of a pod are there, or something is wrong with them.
fn verdict(view: &View<'_>, worker: &Worker) -> Option<&'static str> {
    let key = worker.pod_ref();
    if view.memory.populator.has_errors(&key) {
        return Some("volume errors");
    }
    let expected = expected_volumes(&worker.pod);
    let mounted = || view.memory.actual.mounted_for(&key);
    let all = expected
        .iter()
        .all(|name| mounted().any(|(_, m)| m.spec.in_pod == *name));
    all.then_some("mounted")
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, key: &PodRef, effect: &Effect, outcome: &Outcome) {
    match effect {
        Effect::Note("terminate") => terminate(turn, key),
        Effect::Note("sync") => sync(turn, key),
        Effect::Note("volume errors") => volume_errors(turn, key),
        Effect::Note("too late") => late(turn, key),
        Effect::Note("mounted") => mounted(turn, key),
        Effect::Note("kill") => kill(turn, key),
        Effect::Note("still mounted") => look_again(turn, key, true),
        Effect::Note(note) => {
            let now = turn.now;
            let worker = worker(turn, key);
            worker.step = match *note {
                "resync" => Step::Begin,
                "restart" => Step::Containers,
                "await unmount" => Step::Unmount { since: now },
                "unmounted" => Step::Paths {
                    at: now,
                    pause: Duration::ZERO,
                },
                other => unreachable!("a pod worker has no note such as {other}"),
            };
        }
        Effect::Wait(_) => {
            let worker = worker(turn, key);
            (worker.sandbox, worker.step) = (true, Step::Containers);
            status::update(turn, key);
            tell(turn, key, "Pulled", |c| {
                let image = c.image.as_deref().unwrap_or_default();
                format!("Container image \"{image}\" already present on machine and can be accessed by the pod")
            });
        }
        Effect::Machine(op) => machine(turn, key, op, outcome),
        other => unreachable!("a pod worker has no effect such as {other:?}"),
    }
}

fn worker<'t>(turn: &'t mut Turn<'_>, key: &PodRef) -> &'t mut Worker {
    let worker = turn.memory.workers.pods.get_mut(key);
    worker.expect("the worker of a sync lives until the sync ends")
}

fn tell(turn: &mut Turn<'_>, key: &PodRef, reason: &'static str, text: impl Fn(&Container) -> String) {
    let pod = Arc::clone(&worker(turn, key).pod);
    for container in containers(&pod) {
        let event = EventRecord {
            container: Some(container.name.clone()),
            ..EventRecord::normal(&Object::Pod(Arc::clone(&pod)), reason, text(container))
        };
        turn.record(Key::PodWorker(key.clone()), event);
    }
}

/// A sync is over: the next one waits for a relist.
fn end_sync(turn: &mut Turn<'_>, key: &PodRef, step: Step) {
    let relist = turn.relist_after(turn.now);
    let worker = worker(turn, key);
    worker.not_before = relist;
    worker.step = step;
}

fn terminate(turn: &mut Turn<'_>, key: &PodRef) {
    let interrupted = matches!(worker(turn, key).step, Step::Volumes { .. });
    if interrupted {
        end_sync(turn, key, Step::Begin);
    }
    let worker = worker(turn, key);
    (worker.phase, worker.step) = (Phase::Terminating, Step::Begin);
    turn.wake_populator();
}

fn sync(turn: &mut Turn<'_>, key: &PodRef) {
    let now = turn.now;
    let over = {
        let worker = worker(turn, key);
        worker.syncs += 1;
        worker.step = Step::Volumes { since: now };
        worker.is_over()
    };
    status::update(turn, key);
    if over {
        worker(turn, key).ending = true;
        return terminate(turn, key);
    }
    turn.memory.populator.reprocess(key);
    turn.wake_populator();
}

/// 1.0 to 1.5 times a duration, drawn for this sync.
fn jittered(turn: &Turn<'_>, key: &PodRef, what: &str, base: Duration) -> Duration {
    let worker = &turn.memory.workers.pods[key];
    let name = ["kubelet", &*turn.kubelet.node, what, &*key.uid];
    base.mul_f64(1.0 + 0.5 * turn.kubelet.chance.unit(&name, worker.syncs))
}

fn volume_errors(turn: &mut Turn<'_>, key: &PodRef) {
    let errors = turn.memory.populator.pop_errors(key);
    let pod = Arc::clone(&worker(turn, key).pod);
    let unmounted = expected_volumes(&pod).join(" ");
    let message = format!(
        "Unable to attach or mount volumes: unmounted volumes=[{unmounted}], unattached volumes=[], failed to process volumes=[{unmounted}]: {}",
        errors.join(", ")
    );
    let event = EventRecord::warning(&Object::Pod(pod), "FailedMount", message);
    turn.record(Key::PodWorker(key.clone()), event);
    fail(turn, key);
}

/// The sync failed: again after the back-off. Waiting in vain says nothing to the user.
fn fail(turn: &mut Turn<'_>, key: &PodRef) {
    let pause = jittered(turn, key, "pod-backoff", turn.kubelet.constants.pod_backoff);
    let until = turn.now + pause;
    end_sync(turn, key, Step::Idle { until });
}

fn late(turn: &mut Turn<'_>, key: &PodRef) {
    if worker(turn, key).phase == Phase::Syncing {
        return fail(turn, key);
    }
    let pause = jittered(turn, key, "pod-backoff", turn.kubelet.constants.pod_backoff);
    let at = turn.now + pause;
    let worker = worker(turn, key);
    (worker.not_before, worker.step) = (at, Step::Begin);
    worker.syncs += 1;
}

/// Every volume is mounted: the containers run, or are started.
fn mounted(turn: &mut Turn<'_>, key: &PodRef) {
    let constants = &turn.kubelet.constants;
    let (first, cap) = (constants.container_backoff, constants.container_backoff_cap);
    let worker = worker(turn, key);
    match worker.containers {
        Containers::None => {
            worker.step = if worker.sandbox {
                Step::Containers
            } else {
                Step::Sandbox
            }
        }
        Containers::Running(_) => settle(turn, key),
        Containers::Exited { at, .. } => {
            let waits = u32::try_from(worker.restarts).unwrap_or(0);
            let pause = waits
                .checked_sub(1)
                .map_or(Duration::ZERO, |n| exponential(first, cap, n));
            worker.step = Step::Restart { at: at + pause };
        }
    }
}

/// The pod runs as it should: nothing to do until the resync.
fn settle(turn: &mut Turn<'_>, key: &PodRef) {
    let has_volumes = !expected_volumes(&worker(turn, key).pod).is_empty();
    let pause = jittered(turn, key, "pod-resync", turn.kubelet.flags.sync_frequency);
    let until = if has_volumes { turn.now + pause } else { Time::NEVER };
    end_sync(turn, key, Step::Idle { until });
    turn.watch_stats(key);
}

fn kill(turn: &mut Turn<'_>, key: &PodRef) {
    status::update(turn, key);
    if matches!(worker(turn, key).containers, Containers::Running(_)) {
        tell(turn, key, "Killing", |c| format!("Stopping container {}", c.name));
        worker(turn, key).step = Step::Kill;
    } else {
        stopped(turn, key);
    }
}

/// The containers are gone.
fn stopped(turn: &mut Turn<'_>, key: &PodRef) {
    let at = turn.now;
    let worker = worker(turn, key);
    if let Containers::Running(started) = worker.containers {
        worker.containers = Containers::Exited { code: 0, started, at };
    }
    (worker.sandbox, worker.runtime_removed) = (false, true);
    worker.phase = Phase::Terminated;
    end_sync(turn, key, Step::Begin);
    status::update(turn, key);
    turn.wake_populator();
}

fn machine(turn: &mut Turn<'_>, key: &PodRef, op: &MachineOp, outcome: &Outcome) {
    let now = turn.now;
    match (op, outcome.machine()) {
        (MachineOp::StartPod(_), Ok(_)) => {
            let worker = worker(turn, key);
            if let Containers::Exited { .. } = worker.containers {
                worker.restarts += 1;
            }
            (worker.containers, worker.sandbox) = (Containers::Running(Some(now)), true);
            tell(turn, key, "Created", |_| String::from("Container created"));
            tell(turn, key, "Started", |_| String::from("Container started"));
            status::update(turn, key);
            settle(turn, key);
        }
        (MachineOp::StartPod(_), Err(_)) => fail(turn, key),
        (MachineOp::StopPod { .. }, Ok(_)) => stopped(turn, key),
        (MachineOp::StopPod { .. }, Err(_)) => {
            let relist = turn.relist_after(now);
            let worker = worker(turn, key);
            (worker.step, worker.not_before) = (Step::Begin, relist);
        }
        (MachineOp::Mounts, Ok(MachineAnswer::Mounts(mounts))) => {
            let below = format!("{}/", turn.kubelet.paths().pod(&key.uid));
            let mounted = mounts.keys().any(|target| target.starts_with(&below));
            look_again(turn, key, mounted);
        }
        (other, _) => unreachable!("a pod worker does not ask the machine for {other:?}"),
    }
}

/// Looks at the pod's mounts until there are none; then nothing of the pod is left.
fn look_again(turn: &mut Turn<'_>, key: &PodRef, mounted: bool) {
    let (now, first) = (turn.now, turn.kubelet.constants.volume_paths_interval);
    let worker = worker(turn, key);
    if mounted {
        let Step::Paths { pause, .. } = worker.step else {
            return;
        };
        let pause = (pause * 2).clamp(first, Duration::from_secs(10));
        worker.step = Step::Paths { at: now + pause, pause };
        return;
    }
    (worker.phase, worker.step) = (Phase::Finished, Step::Done);
    if !expected_volumes(&worker.pod).is_empty() {
        turn.memory.orphans.insert(Arc::clone(&key.uid));
        turn.wake_housekeeping();
    }
    status::finish(turn, key);
}

/// A volume of the pod was mounted or unmounted, or the populator has something to say: a worker that waits for that looks.
pub fn nudge(turn: &mut Turn<'_>, key: &PodRef) {
    let now = turn.now;
    let Some(worker) = turn.memory.workers.pods.get_mut(key) else {
        return;
    };
    match &mut worker.step {
        Step::Paths { at, pause } => {
            // What changed is seen at the next 100 ms, however long the pause has become.
            let first = turn.kubelet.constants.volume_paths_interval;
            (*at, *pause) = ((*at).min(now + first), first);
        }
        Step::Volumes { .. } | Step::Unmount { .. } => {}
        _ => return,
    }
    let key = worker.pod_ref();
    turn.queue.add(Key::PodWorker(key));
}

/// A finished pod whose object is gone is forgotten; its directories are left to housekeeping.
pub fn ended(memory: &mut Memory, key: &PodRef) {
    let over = |w: &Worker| w.phase == Phase::Finished && !w.in_api;
    if memory.workers.pods.get(key).is_some_and(over) {
        memory.workers.pods.remove(key);
        memory.statuses.remove(key);
        memory.populator.forget(key);
    }
}
