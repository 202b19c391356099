//! The reconciler: one pass decides which operations start (fact sheet 6.5).
//!
//! ```text
//! Pass: unmount (if ready) ─► mount, verify, expand ─► unmount devices, detach (if ready)   ─► Node (while reconstructed volumes are unresolved) ─► rest
//! ```
//!
//! *Ready* means: the populator has seen every pod once, and every reconstructed volume is resolved against the Node's status. Mounting is allowed before, unmounting
//! is not. A pass that would find nothing to do is left out: it is woken at the tick at which the real one would find something.
//!
//! *Blind spots.* Volumes go by name, where kubelet's order is random. An operation that cannot be put together is tried again after 100 ms, 200 ms … 10 s
//! instead of every 100 ms: nobody else sees these attempts. Directories whose metadata could not be read at the start are not force-unmounted, since that attempt
//! needs the same file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use super::actual::{Attached, Device, PodMount};
use super::desired::{DesiredPod, DesiredVolume};
use super::operations::device::UnmountDevice;
use super::operations::expand::ExpandInUse;
use super::operations::job::Job;
use super::operations::keys::{OpKey, OpName, Refusal};
use super::operations::map::Map;
use super::operations::mount::Mount;
use super::operations::unmap::{Unmap, UnmapDevice};
use super::operations::unmount::Unmount;
use super::operations::verify::{Verify, lists_attached};
use super::operations::{Operation, begin, get, got};
use super::volume::{PodRef, VolumeName, VolumeSpec};
use super::{Memory, Turn, View};
use crate::api::ObjKey;
use crate::control::{Effect, Outcome};
use crate::mutants::Wrong;
use crate::runtime::Time;

/// Where a pass stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Pass,
    Node,
    Over,
}

/// What the reconciler remembers.
#[derive(Clone, Debug, Default)]
pub struct Reconciler {
    step: Step,
    /// When the last pass began: no tick has two.
    last: Option<Time>,
    /// When the next pass could do what this one could not.
    again: Option<Time>,
    /// Operations that could not be put together: when to try again, and how long the last wait was.
    impossible: BTreeMap<OpKey, (Time, Duration)>,
}

const IMPOSSIBLE_FIRST: Duration = Duration::from_millis(100);
const IMPOSSIBLE_LAST: Duration = Duration::from_secs(10);

impl Reconciler {
    /// The sync of the key ended.
    pub fn ended(&mut self) {
        self.step = Step::Pass;
        self.again = None;
    }

    /// An operation could not be put together.
    pub fn impossible(&mut self, key: &OpKey, now: Time) {
        let last = self.impossible.get(key).map(|(_, wait)| *wait * 2);
        let wait = last.unwrap_or(IMPOSSIBLE_FIRST).min(IMPOSSIBLE_LAST);
        self.impossible.insert(key.clone(), (now + wait, wait));
    }

    /// An operation was put together.
    pub fn possible(&mut self, key: &OpKey) {
        self.impossible.remove(key);
    }

    fn try_again(&mut self, at: Time) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }
}

/// Whether volumes may be unmounted.
pub fn is_ready(memory: &Memory) -> bool {
    memory.populator.has_added_pods && are_states_synced(memory)
}

/// Whether the state of every reconstructed volume is known, so that `volumesInUse` may be written.
pub fn are_states_synced(memory: &Memory) -> bool {
    memory.loops.is_some() && memory.actual.unresolved.is_empty()
}

/// What next?
pub fn decide(view: &View<'_>) -> Effect {
    let reconciler = &view.memory.reconciler;
    let Some(loops) = &view.memory.loops else {
        return Effect::Rest;
    };
    let next_tick = |from: Time| from.tick(loops.reconciler, view.kubelet.constants.reconciler_period);
    match (reconciler.step, reconciler.again) {
        (Step::Pass, _) if reconciler.last == Some(view.now) => Effect::RestUntil(next_tick(Time(view.now.0 + 1))),
        (Step::Pass, _) => Effect::Note("pass"),
        (Step::Node, _) => get::<Node>(&ObjKey::cluster(Arc::clone(&view.kubelet.node))),
        (Step::Over, None) => Effect::Rest,
        (Step::Over, Some(at)) => Effect::RestUntil(next_tick(at.max(Time(view.now.0 + 1)))),
    }
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, outcome: &Outcome) {
    match turn.memory.reconciler.step {
        Step::Pass => {
            turn.memory.reconciler.last = Some(turn.now);
            pass(turn);
            let resolved = turn.memory.actual.unresolved.is_empty();
            turn.memory.reconciler.step = if resolved { Step::Over } else { Step::Node };
        }
        Step::Node => {
            turn.memory.reconciler.step = Step::Over;
            if let Ok(node) = got::<Node>(outcome) {
                let attached = node.status.as_ref().and_then(|s| s.volumes_attached.as_ref());
                let names = attached.into_iter().flatten().map(|a| a.name.clone());
                turn.memory.actual.resolve(&names.collect());
                turn.wake_node_status();
            }
            turn.memory.reconciler.try_again(turn.now);
        }
        Step::Over => {}
    }
}

fn pass(turn: &mut Turn<'_>) {
    let ready = is_ready(turn.memory);
    if ready {
        unmount_volumes(turn);
    }
    mount_volumes(turn);
    if ready {
        release_devices(turn);
    }
}

/// Lets the executor start an operation, or remembers when it may.
fn attempt(turn: &mut Turn<'_>, key: OpKey, name: OpName, operation: Operation) {
    let now = turn.now;
    let memory = &mut *turn.memory;
    if let Some((at, _)) = memory.reconciler.impossible.get(&key)
        && now < *at
    {
        let at = *at;
        return memory.reconciler.try_again(at);
    }
    match memory.operations.executor.start(&key, name, now) {
        Ok(()) => begin(turn, key, operation),
        Err(Refusal::Pending) => {}
        Err(Refusal::BackOff(until)) => memory.reconciler.try_again(Time(until.0 + 1)),
    }
}

fn unmount_volumes(turn: &mut Turn<'_>) {
    let memory = &*turn.memory;
    let mounts = memory.actual.volumes.iter();
    let mounts = mounts.flat_map(|(name, v)| v.pods.iter().map(move |(pod, m)| (name, pod, &m.spec)));
    let unwanted = mounts.filter(|(name, pod, _)| !memory.desired.wants(name, pod));
    let unwanted = unwanted.map(|(n, p, s)| (n.clone(), p.clone(), Arc::clone(s)));
    for (name, pod, spec) in unwanted.collect::<Vec<_>>() {
        let key = OpKey::of_pod(&name, &pod);
        if spec.block {
            let operation = Operation::Unmap(Box::new(Unmap::new(&name, &spec, &pod)));
            attempt(turn, key, OpName::UnmapVolume, operation);
        } else {
            let operation = Operation::Unmount(Box::new(Unmount::new(&name, &spec, &pod)));
            attempt(turn, key, OpName::VolumeUnmount, operation);
        }
    }
}

/// What a wish needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Verify,
    Mount,
    Expand,
}

fn need(turn: &Turn<'_>, name: &VolumeName, volume: &DesiredVolume, pod: &PodRef) -> Need {
    let Some(actual) = turn.memory.actual.volumes.get(name) else {
        let node = turn.cache.named::<Node>(&turn.kubelet.node);
        let attached = || volume.reported_in_use && node.is_some_and(|n| lists_attached(n, name));
        return if !volume.attachable || attached() {
            Need::Verify
        } else {
            Need::Nothing
        };
    };
    let mount = actual.pods.get(pod);
    if !mount.is_some_and(|m| m.state == PodMount::Mounted && !m.remount) {
        return Need::Mount;
    }
    let grown = volume
        .size
        .zip(actual.claim_size)
        .is_some_and(|(want, have)| want > have);
    if grown && !actual.expansion_refused && turn.kubelet.flags.wrong != Some(Wrong::ExpansionMissed) {
        return Need::Expand;
    }
    Need::Nothing
}

fn mount_volumes(turn: &mut Turn<'_>) {
    let wishes = turn.memory.desired.volumes.iter();
    let wishes = wishes.flat_map(|(name, v)| v.pods.iter().map(move |(pod, wish)| (name, v, pod, wish)));
    let needs = wishes.map(|(name, volume, pod, wish)| {
        let need = need(turn, name, volume, pod);
        (name.clone(), pod.clone(), wish.clone(), volume.attachable, need)
    });
    for (name, pod, wish, attachable, need) in needs.collect::<Vec<_>>() {
        let key = OpKey::of_volume(&name);
        if need == Need::Nothing || turn.memory.operations.executor.is_pending(&key) {
            continue;
        }
        let DesiredPod { spec, pod: object } = &wish;
        match need {
            Need::Nothing => {}
            Need::Verify => {
                let operation = Operation::Verify(Box::new(Verify::new(&name, spec, attachable)));
                attempt(turn, key, OpName::VerifyControllerAttachedVolume, operation);
            }
            Need::Mount => mount(turn, &name, &pod, &wish),
            Need::Expand => {
                let expand = ExpandInUse::new(&name, spec, &pod, object, turn.now);
                let operation = Operation::Expand(Box::new(expand));
                attempt(turn, key, OpName::VolumeFsResize, operation);
            }
        }
    }
}

fn mount(turn: &mut Turn<'_>, name: &VolumeName, pod: &PodRef, wish: &DesiredPod) {
    let job = Job::new(name, &wish.spec, pod, &wish.pod);
    let (key, op_name, operation) = match (wish.spec.block, wish.spec.is_inline()) {
        (true, _) => (
            OpKey::of_volume(name),
            OpName::MapVolume,
            Operation::Map(Box::new(Map::new(job))),
        ),
        (false, inline) => (
            if inline {
                OpKey::of_pod(name, pod)
            } else {
                OpKey::of_volume(name)
            },
            OpName::VolumeMount,
            Operation::Mount(Box::new(Mount::new(job))),
        ),
    };
    attempt(turn, key, op_name, operation);
}

fn release_devices(turn: &mut Turn<'_>) {
    let memory = &*turn.memory;
    let idle = memory.actual.volumes.iter().filter(|(name, v)| {
        let key = OpKey::of_volume(name);
        v.pods.is_empty() && !memory.desired.volumes.contains_key(name) && !memory.operations.executor.is_pending(&key)
    });
    let idle = idle.map(|(name, v)| (name.clone(), Arc::clone(&v.spec), v.device, v.attached));
    for (name, spec, device, attached) in idle.collect::<Vec<_>>() {
        let careless = turn.kubelet.flags.wrong == Some(Wrong::SkipsUnstage);
        if device == Device::NotMounted || careless {
            detach(turn, &name, attached);
        } else {
            unmount_device(turn, &name, &spec);
        }
    }
}

/// The volume leaves this node's books, and `volumesInUse` at the next status round.
fn detach(turn: &mut Turn<'_>, name: &VolumeName, attached: Attached) {
    turn.memory.actual.remove(name);
    if attached == Attached::Yes {
        turn.wake_node_status();
    }
}

fn unmount_device(turn: &mut Turn<'_>, name: &VolumeName, spec: &Arc<VolumeSpec>) {
    let key = OpKey::of_volume(name);
    if spec.block {
        let operation = Operation::UnmapDevice(Box::new(UnmapDevice::new(name, spec)));
        attempt(turn, key, OpName::UnmapDevice, operation);
    } else {
        let operation = Operation::UnmountDevice(Box::new(UnmountDevice::new(name, spec)));
        attempt(turn, key, OpName::UnmountDevice, operation);
    }
}

#[cfg(test)]
mod tests {
    use super::{Reconciler, Step, decide, learn};
    use crate::api::Cache;
    use crate::control::{Effect, Outcome, Requests};
    use crate::kubelet::startup::Loops;
    use crate::kubelet::testing::NODE;
    use crate::kubelet::{Constants, Flags, Kubelet, Memory, Turn, View};
    use crate::runtime::{Chance, Time};

    #[test]
    fn no_tick_has_two_passes() {
        // What ends within the moment of a pass is seen by the next one, a tenth of a second later (trace 14: an inline volume is not mounted by the pass that verifies it).
        let constants = Constants::default();
        let kubelet = Kubelet::new(NODE, &Flags::default(), &constants, &Chance::new(0));
        let (now, cache) = (Time(5_000_000_000), Cache::default());
        let mut memory = Memory {
            loops: Some(Loops::all_at(now)),
            ..Memory::default()
        };
        let look = |memory: &Memory, now: Time| {
            let (kubelet, cache) = (&kubelet, &cache);
            decide(&View {
                kubelet,
                cache,
                memory,
                now,
            })
        };
        assert_eq!(look(&memory, now), Effect::Note("pass"));
        let mut queue = Requests::default();
        let mut turn = Turn {
            kubelet: &kubelet,
            cache: &cache,
            memory: &mut memory,
            now,
            queue: &mut queue,
        };
        learn(&mut turn, &Outcome::Done);
        assert_eq!(look(&memory, now), Effect::Rest, "nothing was found");
        memory.reconciler.ended();
        let next = now + constants.reconciler_period;
        assert_eq!(
            look(&memory, now),
            Effect::RestUntil(next),
            "woken again in the same moment"
        );
        assert_eq!(look(&memory, next), Effect::Note("pass"));
        assert_eq!(Reconciler::default().step, Step::Pass);
    }
}
