//! The status manager: what the API server is told about a pod, and the deletion of its object in the end.
//!
//! ```text
//! Read ─► Patch (if anything differs) ─► Delete (finished and being deleted; grace 0, UID) ─► rest
//!   │ another pod by now, or gone: rest         └─ any other error, a conflict like the rest: again after 10 s
//! ```
//!
//! Only what kubelet owns is compared and written: conditions of other owners (`DisruptionTarget`) stay.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};

use super::operations::{get, read};
use super::pod_workers::{Containers, Phase, Worker, containers};
use super::volume::PodRef;
use super::{Key, Memory, Turn, View};
use crate::api::{ApiError, Clock, Delete, Edit, ObjectRef, Patch, Write, fields};
use crate::control::{Effect, Outcome};
use crate::release::RELEASE;
use crate::runtime::Time;

/// How often everything that could not be written is tried again.
const RETRY: Duration = RELEASE.kubelet.status_retry;

/// The conditions that kubelet owns, in the order of the list.
const OWN_CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// Where a write stands.
#[derive(Clone, Debug)]
enum Step {
    Read,
    Patch(Box<PodStatus>, u64),
    Delete,
    Failed(Time),
    Over,
}

/// What is to be told about one pod.
#[derive(Clone, Debug)]
pub struct Told {
    status: PodStatus,
    /// Counts the changes of `status`.
    version: u64,
    /// The newest change that the API server has.
    written: u64,
    finished: bool,
    deleted: bool,
    step: Step,
}

impl Told {
    /// The sync of the key ended.
    pub fn ended(&mut self) {
        self.step = Step::Read;
    }
}

/// The pod's status has changed, or may have.
pub fn update(turn: &mut Turn<'_>, key: &PodRef) {
    let Some(worker) = turn.memory.workers.pods.get(key) else {
        return;
    };
    let known = turn.memory.statuses.get(key);
    let previous = known.map(|t| t.status.clone()).or_else(|| worker.pod.status.clone());
    let status = build(
        worker,
        &previous.unwrap_or_default(),
        turn.kubelet.flags.node_ip.as_deref(),
        turn.now,
    );
    put(turn, key, status, false);
}

/// Nothing of the pod is left on the node: containers whose end nobody saw are accounted for, and the object may go.
pub fn finish(turn: &mut Turn<'_>, key: &PodRef) {
    let known = turn.memory.statuses.get(key).map(|t| t.status.clone());
    let worker = turn.memory.workers.pods.get(key);
    let Some(mut status) = known.or_else(|| worker?.pod.status.clone()) else {
        return;
    };
    let mut lost = false;
    for container in status.container_statuses.iter_mut().flatten() {
        if container.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            continue;
        }
        lost = true;
        (container.ready, container.started) = (false, Some(false));
        container.state = Some(terminated(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..ContainerStateTerminated::default()
        }));
    }
    if lost {
        status.phase = Some("Failed".into());
    }
    put(turn, key, status, true);
}

fn put(turn: &mut Turn<'_>, key: &PodRef, status: PodStatus, finished: bool) {
    let told = turn.memory.statuses.entry(key.clone()).or_insert_with(|| Told {
        status: PodStatus::default(),
        version: 0,
        written: 0,
        finished: false,
        deleted: false,
        step: Step::Read,
    });
    told.finished |= finished;
    if told.status != status {
        told.version += 1;
        told.status = status;
    }
    if told.version > told.written || told.finished {
        turn.queue.add(Key::PodStatus(key.clone()));
    }
}

/// Whether somebody else changed what kubelet owns of a status that was written completely.
pub fn has_drifted(memory: &mut Memory, key: &PodRef, pod: &Pod) -> bool {
    let Some(told) = memory.statuses.get_mut(key) else {
        return false;
    };
    let theirs = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    let ours = told.status.conditions.as_deref().unwrap_or_default();
    let same = |c: &PodCondition| theirs.iter().any(|t| t.type_ == c.type_ && t.status == c.status);
    let drifted = told.written == told.version && !ours.iter().all(same);
    if drifted {
        told.version += 1;
    }
    drifted
}

/// How often the containers of a pod were restarted, by its status.
pub fn restarts_of(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref());
    let counts = statuses.unwrap_or_default().iter().map(|c| c.restart_count);
    counts.max().unwrap_or(0)
}

/// Whether the containers of a pod run, by its status.
pub fn was_running(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref());
    let running = |c: &ContainerStatus| c.state.as_ref().is_some_and(|s| s.running.is_some());
    statuses.unwrap_or_default().iter().any(running)
}

/// What next for a pod's status?
pub fn decide(view: &View<'_>, key: &PodRef) -> Effect {
    let Some(told) = view.memory.statuses.get(key) else {
        return Effect::Rest;
    };
    let target = || {
        let name = key.key.clone().expect("only pods of the API have a status");
        ObjectRef::to::<Pod>(&name)
    };
    match &told.step {
        Step::Read if told.version > told.written || told.finished && !told.deleted => get::<Pod>(&target().key),
        Step::Read | Step::Over => Effect::Rest,
        Step::Failed(at) => Effect::RestUntil(*at),
        Step::Patch(status, _) => {
            let mut patch = Patch::status(target(), vec![Edit::PodStatus(status.clone())]);
            patch.uid = Some(key.uid.to_string());
            Effect::write(Write::Patch(patch))
        }
        Step::Delete => {
            let mut delete = Delete::new(target());
            (delete.uid, delete.grace_seconds) = (Some(key.uid.to_string()), Some(0));
            Effect::write(Write::Delete(delete))
        }
    }
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, key: &PodRef, outcome: &Outcome) {
    let now = turn.now;
    let Some(told) = turn.memory.statuses.get_mut(key) else {
        return;
    };
    told.step = match (&told.step, outcome) {
        (Step::Read, _) => match read::<Pod>(outcome) {
            Ok(live) if fields::uid(&live.metadata) != &*key.uid => {
                (told.written, told.deleted) = (told.version, true);
                Step::Over
            }
            Ok(live) => {
                let merged = merge(live.status.clone().unwrap_or_default(), &told.status);
                if live.status.as_ref() == Some(&merged) {
                    told.written = told.version;
                    after_write(told, &live)
                } else {
                    Step::Patch(Box::new(merged), told.version)
                }
            }
            Err(error) => refused(told, error, now),
        },
        (Step::Patch(_, version), _) => match outcome.written() {
            Ok(written) => {
                told.written = *version;
                let live = written.object.get::<Pod>().map(Arc::clone);
                live.map_or(Step::Over, |live| after_write(told, &live))
            }
            Err(error) => refused(told, error, now),
        },
        (Step::Delete, _) => match outcome.written() {
            Ok(_) => {
                told.deleted = true;
                Step::Over
            }
            Err(error) => refused(told, error, now),
        },
        (Step::Failed(_) | Step::Over, _) => Step::Over,
    };
}

fn after_write(told: &Told, live: &Pod) -> Step {
    if told.finished && !told.deleted && fields::is_deleting(&live.metadata) {
        Step::Delete
    } else {
        Step::Over
    }
}

fn refused(told: &mut Told, error: &ApiError, now: Time) -> Step {
    if error.is_not_found() {
        (told.written, told.deleted) = (told.version, true);
        Step::Over
    } else {
        Step::Failed(now + RETRY)
    }
}

/// Puts what kubelet owns into the status that the API server has.
fn merge(mut live: PodStatus, ours: &PodStatus) -> PodStatus {
    let mut conditions = ours.conditions.clone().unwrap_or_default();
    let foreign = live.conditions.take().unwrap_or_default();
    let foreign = foreign
        .into_iter()
        .filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str()));
    conditions.extend(foreign);
    PodStatus {
        conditions: Some(conditions),
        container_statuses: ours.container_statuses.clone(),
        host_ip: ours.host_ip.clone(),
        host_ips: ours.host_ips.clone(),
        observed_generation: ours.observed_generation,
        phase: ours.phase.clone(),
        pod_ip: ours.pod_ip.clone(),
        pod_ips: ours.pod_ips.clone(),
        start_time: live.start_time.clone().or_else(|| ours.start_time.clone()),
        ..live
    }
}

/// The status of a pod as its worker sees it.
fn build(worker: &Worker, previous: &PodStatus, node_ip: Option<&str>, now: Time) -> PodStatus {
    let stamp = Clock::EPOCH.time(now);
    let pod = &worker.pod;
    let old = previous.container_statuses.as_deref().unwrap_or_default();
    let statuses = containers(pod).iter().map(|c| {
        let old = old.iter().find(|s| s.name == c.name);
        container_status(worker, c, old)
    });
    let addresses = node_ip.map(str::to_owned);
    PodStatus {
        container_statuses: Some(statuses.collect()),
        conditions: Some(conditions(worker, previous, now)),
        host_ip: addresses.clone(),
        host_ips: addresses.clone().map(|ip| vec![HostIP { ip }]),
        observed_generation: pod.metadata.generation,
        phase: Some(phase(worker).to_owned()),
        pod_ip: addresses.clone(),
        pod_ips: addresses.map(|ip| vec![PodIP { ip }]),
        start_time: previous.start_time.clone().or(Some(stamp)),
        ..PodStatus::default()
    }
}

/// The phase. Containers that were killed with their pod count like ones that ended.
fn phase(worker: &Worker) -> &'static str {
    let past = fields::pod_phase(&worker.pod);
    match worker.containers {
        Containers::None if past == "Succeeded" => "Succeeded",
        Containers::None if past == "Failed" => "Failed",
        Containers::None => "Pending",
        Containers::Running(_) => "Running",
        Containers::Exited { code, .. } if worker.is_over() || worker.phase > Phase::Terminating => {
            if code == 0 {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        Containers::Exited { .. } => "Running",
    }
}

fn container_status(worker: &Worker, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    let time = |at: Option<Time>| at.map(|t| Clock::EPOCH.time(t));
    let old_start = || old?.state.as_ref()?.running.as_ref()?.started_at.clone();
    let (state, ready) = match worker.containers {
        Containers::None => (old_end(old).unwrap_or_else(|| waiting("ContainerCreating")), false),
        Containers::Running(started) => {
            let started_at = time(started).or_else(old_start);
            let running = ContainerStateRunning { started_at };
            let state = ContainerState {
                running: Some(running),
                ..ContainerState::default()
            };
            (state, true)
        }
        Containers::Exited { code, started, at } => {
            let reason = if code == 0 { "Completed" } else { "Error" };
            let state = terminated(ContainerStateTerminated {
                exit_code: code,
                reason: Some(reason.into()),
                started_at: time(started).or_else(old_start),
                finished_at: time(Some(at)),
                ..ContainerStateTerminated::default()
            });
            (state, false)
        }
    };
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mounts = mounts.iter().map(|m| VolumeMountStatus {
        mount_path: m.mount_path.clone(),
        name: m.name.clone(),
        ..VolumeMountStatus::default()
    });
    let mounts: Vec<_> = mounts.collect();
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        last_state: Some(ContainerState::default()),
        ready,
        restart_count: worker.restarts,
        started: Some(ready),
        state: Some(state),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..ContainerStatus::default()
    }
}

/// The end of a container that this kubelet never saw: a pod that was over before.
fn old_end(old: Option<&ContainerStatus>) -> Option<ContainerState> {
    let state = old?.state.as_ref()?;
    state.terminated.is_some().then(|| state.clone())
}

fn waiting(reason: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            message: None,
            reason: Some(reason.into()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(state: ContainerStateTerminated) -> ContainerState {
    ContainerState {
        terminated: Some(state),
        ..ContainerState::default()
    }
}

fn conditions(worker: &Worker, previous: &PodStatus, now: Time) -> Vec<PodCondition> {
    let old = previous.conditions.as_deref().unwrap_or_default();
    let names: Vec<&str> = containers(&worker.pod).iter().map(|c| c.name.as_str()).collect();
    let unready = format!("containers with unready status: [{}]", names.join(" "));
    let running = matches!(worker.containers, Containers::Running(_));
    let ended = matches!(phase(worker), "Succeeded" | "Failed");
    let (reason, message) = match (running, phase(worker)) {
        (true, _) => (None, None),
        (false, "Succeeded") => (Some("PodCompleted"), None),
        (false, "Failed") => (Some("PodFailed"), None),
        (false, _) => (Some("ContainersNotReady"), Some(unready)),
    };
    OWN_CONDITIONS
        .iter()
        .map(|kind| {
            let known = old.iter().find(|c| c.type_ == *kind);
            let (yes, reason, message) = match *kind {
                "PodReadyToStartContainers" => (worker.sandbox, None, None),
                "Initialized" => (true, reason.filter(|_| ended), None),
                "PodScheduled" => (true, None, None),
                _ => (running, reason, message.clone()),
            };
            let status = if yes { "True" } else { "False" };
            let since = known.filter(|c| c.status == status);
            let since = since.and_then(|c| c.last_transition_time.clone());
            PodCondition {
                type_: (*kind).to_owned(),
                status: status.to_owned(),
                reason: reason.map(str::to_owned),
                message,
                observed_generation: worker.pod.metadata.generation,
                last_transition_time: since.or_else(|| Some(Clock::EPOCH.time(now))),
                ..PodCondition::default()
            }
        })
        .collect()
}
