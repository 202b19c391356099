//! The populator: which volumes do the pods of this node want? (fact sheet 6.4)
//!
//! ```text
//! Begin ─► Next ─► (Claim ─► Volume)… ─► Next … ─► Removals ─► rest until there is something to see
//! ```
//!
//! A pod is processed once, and again when its worker asks for it: that is how a grown volume, or new tokens, are noticed. Everything is read live. Errors are left
//! for the pod's worker, which fails its sync with them. A pod that was never processed is tried at every pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::CSIDriver;

use super::operations::job::attach_required;
use super::operations::{get, got};
use super::volume::{PodRef, VolumeName, VolumeSpec};
use super::{Turn, View};
use crate::api::{ObjKey, fields, names};
use crate::control::{Effect, Outcome};
use crate::runtime::Time;

/// What the populator remembers.
#[derive(Clone, Debug, Default)]
pub struct Populator {
    /// Pods that need no processing now.
    processed: BTreeSet<PodRef>,
    /// Pods that were processed at least once.
    known: BTreeSet<PodRef>,
    /// What went wrong, for the workers.
    errors: BTreeMap<PodRef, Vec<String>>,
    /// A pass that began after all pods were known has been completed.
    pub has_added_pods: bool,
    pass: Option<Pass>,
    /// When the last pass began: no tick has two.
    last: Option<Time>,
    over: bool,
    again: bool,
}

/// Kubelet keeps at most so many errors of a pod (it accepts while there are at most ten).
const MAX_ERRORS: usize = 11;

#[derive(Clone, Debug)]
struct Pass {
    sources_ready: bool,
    pods: VecDeque<PodRef>,
    work: Option<Work>,
}

#[derive(Clone, Debug)]
struct Work {
    pod: PodRef,
    object: Arc<Pod>,
    wishes: VecDeque<Wish>,
    claim: Option<Arc<PersistentVolumeClaim>>,
    failed: bool,
}

#[derive(Clone, Debug)]
struct Wish {
    volume: Volume,
    as_device: bool,
}

impl Populator {
    /// A worker wants its pod looked at again.
    pub fn reprocess(&mut self, pod: &PodRef) {
        self.processed.remove(pod);
    }

    /// Takes the errors of a pod.
    pub fn pop_errors(&mut self, pod: &PodRef) -> Vec<String> {
        self.errors.remove(pod).unwrap_or_default()
    }

    /// Whether a pod has errors.
    pub fn has_errors(&self, pod: &PodRef) -> bool {
        self.errors.contains_key(pod)
    }

    /// A pod is gone for good.
    pub fn forget(&mut self, pod: &PodRef) {
        self.processed.remove(pod);
        self.known.remove(pod);
        self.errors.remove(pod);
    }

    fn complain(&mut self, pod: &PodRef, message: String) {
        let errors = self.errors.entry(pod.clone()).or_default();
        if errors.len() < MAX_ERRORS && !errors.contains(&message) {
            errors.push(message);
        }
    }

    /// The sync of the key ended.
    pub fn ended(&mut self) {
        self.over = false;
        self.again = false;
    }
}

/// What next?
pub fn decide(view: &View<'_>) -> Effect {
    let populator = &view.memory.populator;
    let Some(loops) = &view.memory.loops else {
        return Effect::Rest;
    };
    if populator.over {
        let period = view.kubelet.constants.populator_period;
        return if populator.again {
            Effect::RestUntil(view.now.tick(loops.populator, period).max(view.now + period))
        } else {
            Effect::Rest
        };
    }
    let Some(pass) = &populator.pass else {
        let period = view.kubelet.constants.populator_period;
        return if populator.last == Some(view.now) {
            Effect::RestUntil(Time(view.now.0 + 1).tick(loops.populator, period))
        } else {
            Effect::Note("begin")
        };
    };
    let Some(work) = &pass.work else {
        return Effect::Note(if pass.pods.is_empty() { "removals" } else { "next pod" });
    };
    let Some(wish) = work.wishes.front() else {
        return Effect::Note("pod is done");
    };
    match (fields::pod_claim(&work.object, &wish.volume), &work.claim) {
        (None, _) => Effect::Note("inline"),
        (Some(claim), None) => {
            let namespace = fields::namespace(&work.object.metadata);
            get::<PersistentVolumeClaim>(&ObjKey::new(namespace, &*claim.claim))
        }
        (Some(_), Some(claim)) => get::<PersistentVolume>(&ObjKey::cluster(fields::claim_volume(claim))),
    }
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, effect: &Effect, outcome: &Outcome) {
    let Some(pass) = &mut turn.memory.populator.pass else {
        return begin(turn);
    };
    let Some(work) = &mut pass.work else {
        return match pass.pods.pop_front() {
            Some(pod) => next(turn, &pod),
            None => finish(turn),
        };
    };
    let Some(wish) = work.wishes.front().cloned() else {
        return pod_done(turn);
    };
    let mut work = work.clone();
    let result = match effect {
        Effect::Note(_) => inline(turn, &work, &wish),
        _ if work.claim.is_none() => match claim_of(&work, &wish, outcome) {
            Ok(claim) => {
                work.claim = Some(claim);
                put_back(turn, work);
                return;
            }
            Err(error) => Err(error),
        },
        _ => volume_of(turn, &work, &wish, outcome),
    };
    if let Err(message) = result {
        turn.memory.populator.complain(&work.pod, message);
        work.failed = true;
        turn.wake_worker(&work.pod);
    }
    work.wishes.pop_front();
    work.claim = None;
    put_back(turn, work);
}

fn put_back(turn: &mut Turn<'_>, work: Work) {
    if let Some(pass) = &mut turn.memory.populator.pass {
        pass.work = Some(work);
    }
}

fn begin(turn: &mut Turn<'_>) {
    let (workers, populator) = (&turn.memory.workers, &mut turn.memory.populator);
    let wanted = |pod: &&PodRef| {
        let Some(worker) = workers.pods.get(*pod) else {
            return false;
        };
        let over = if populator.has_added_pods {
            worker.is_ending()
        } else {
            worker.runtime_removed
        };
        worker.in_api && !over && !populator.processed.contains(*pod)
    };
    let pods = workers.pods.keys().filter(wanted).cloned().collect();
    populator.last = Some(turn.now);
    populator.pass = Some(Pass {
        sources_ready: turn.memory.sources_ready,
        pods,
        work: None,
    });
}

fn next(turn: &mut Turn<'_>, pod: &PodRef) {
    let Some(worker) = turn.memory.workers.pods.get(pod) else {
        return;
    };
    let object = Arc::clone(&worker.pod);
    let work = Work {
        pod: pod.clone(),
        wishes: wishes(&object),
        object,
        claim: None,
        failed: false,
    };
    put_back(turn, work);
}

/// The CSI volumes that some container mounts or maps.
fn wishes(pod: &Pod) -> VecDeque<Wish> {
    let (mounts, devices) = used_volumes(pod);
    let csi = fields::pod_volumes(pod)
        .iter()
        .filter(|v| v.csi.is_some() || fields::pod_claim(pod, v).is_some());
    csi.filter(|v| mounts.contains(&v.name) || devices.contains(&v.name))
        .map(|v| Wish {
            volume: v.clone(),
            as_device: devices.contains(&v.name),
        })
        .collect()
}

/// The names of the volumes that containers mount, and of those that they map.
pub fn used_volumes(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_ref());
    let containers = spec
        .into_iter()
        .flat_map(|s| &s.containers)
        .chain(init.into_iter().flatten());
    let (mut mounts, mut devices) = (BTreeSet::new(), BTreeSet::new());
    for container in containers {
        mounts.extend(container.volume_mounts.iter().flatten().map(|m| m.name.clone()));
        devices.extend(container.volume_devices.iter().flatten().map(|d| d.name.clone()));
    }
    (mounts, devices)
}

/// The names in the pod of the CSI volumes that its worker waits for.
pub fn expected_volumes(pod: &Pod) -> Vec<String> {
    wishes(pod).into_iter().map(|w| w.volume.name).collect()
}

fn claim_of(work: &Work, wish: &Wish, outcome: &Outcome) -> Result<Arc<PersistentVolumeClaim>, String> {
    let source = fields::pod_claim(&work.object, &wish.volume).expect("only claims are read");
    let key = ObjKey::new(fields::namespace(&work.object.metadata), &*source.claim);
    let claim = got::<PersistentVolumeClaim>(outcome)
        .map_err(|e| format!("error processing PVC {key}: failed to fetch PVC from API server: {e}"))?;
    let complain = |why: &str| Err(format!("error processing PVC {key}: {why}"));
    if source.ephemeral && !fields::is_owned_by_pod(&claim, &work.object) {
        return complain("the PVC was not created for the pod");
    }
    if fields::is_deleting(&claim.metadata) && !fields::has_finalizer(&claim.metadata, names::PVC_PROTECTION) {
        return complain("PVC is being deleted");
    }
    if fields::claim_phase(&claim) != "Bound" || fields::claim_volume(&claim).is_empty() {
        return complain("PVC is not bound");
    }
    Ok(claim)
}

fn volume_of(turn: &mut Turn<'_>, work: &Work, wish: &Wish, outcome: &Outcome) -> Result<(), String> {
    let claim = work.claim.as_ref().expect("read before the volume");
    let key = ObjKey::of(&claim.metadata);
    let pv = got::<PersistentVolume>(outcome).map_err(|e| {
        format!(
            "failed to fetch PV {} from API server: {e}",
            fields::claim_volume(claim)
        )
    })?;
    let name = fields::name(&pv.metadata);
    match fields::volume_claim(&pv) {
        None => {
            return Err(format!(
                "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
            ));
        }
        Some(reference) if reference.uid != claim.metadata.uid => {
            return Err(format!(
                "found PV object {name} but its pv.Spec.ClaimRef.UID does not point to claim {key}"
            ));
        }
        Some(_) => {}
    }
    let source = fields::pod_claim(&work.object, &wish.volume).expect("only claims are read");
    let Some(spec) = VolumeSpec::persistent(&pv, key, &wish.volume.name, source.read_only) else {
        return Err(format!("no volume plugin matched volume {name}"));
    };
    if spec.block != wish.as_device {
        let (mode, field) = if spec.block {
            ("Block", "volumeMounts")
        } else {
            ("Filesystem", "volumeDevices")
        };
        let volume = &wish.volume.name;
        return Err(format!(
            "volume {volume} has volumeMode {mode}, but is specified in {field}"
        ));
    }
    let attachable = attach_required(turn.cache, &spec.driver);
    let spec = Arc::new(spec);
    let unique = add(turn, work, &spec, attachable);
    if !spec.read_only {
        watch_size(turn, &unique, &spec, fields::claim_capacity(claim));
    }
    Ok(())
}

fn inline(turn: &mut Turn<'_>, work: &Work, wish: &Wish) -> Result<(), String> {
    let source = wish
        .volume
        .csi
        .as_ref()
        .expect("a wish is for a claim or for an inline volume");
    if wish.as_device {
        return Err(format!("volume {} cannot be used as a block device", wish.volume.name));
    }
    let spec = Arc::new(VolumeSpec::inline(&work.object, &wish.volume.name, source));
    add(turn, work, &spec, false);
    Ok(())
}

fn add(turn: &mut Turn<'_>, work: &Work, spec: &Arc<VolumeSpec>, attachable: bool) -> VolumeName {
    let name = turn.memory.desired.add(&work.pod, &work.object, spec, attachable);
    turn.wake_reconciler();
    turn.wake_node_status();
    name
}

/// Remembers how large the volume should be, and how large it was when nobody had looked yet.
fn watch_size(turn: &mut Turn<'_>, name: &VolumeName, spec: &VolumeSpec, claim_size: u64) {
    if let Some(volume) = turn.memory.desired.volumes.get_mut(name) {
        volume.size = spec.size();
    }
    if let Some(volume) = turn.memory.actual.volumes.get_mut(name) {
        volume.claim_size.get_or_insert(claim_size);
    }
}

fn pod_done(turn: &mut Turn<'_>) {
    let populator = &mut turn.memory.populator;
    let work = populator.pass.as_mut().and_then(|p| p.work.take());
    let Some(Work { pod, failed, .. }) = work else {
        return;
    };
    if !failed {
        populator.processed.insert(pod.clone());
        populator.known.insert(pod.clone());
        populator.errors.remove(&pod);
        republish(turn, &pod);
        return turn.wake_worker(&pod);
    }
    if populator.known.contains(&pod) {
        populator.processed.insert(pod);
    } else {
        populator.again = true;
    }
}

/// Volumes whose driver wants to be told again and again are mounted again.
fn republish(turn: &mut Turn<'_>, pod: &PodRef) {
    let wants = |driver: &str| {
        let object = turn.cache.named::<CSIDriver>(driver);
        object.is_some_and(|d| d.spec.requires_republish == Some(true))
    };
    for volume in turn.memory.actual.volumes.values_mut() {
        if let Some(mount) = volume.pods.get_mut(pod)
            && wants(&mount.spec.driver)
        {
            mount.remount = true;
        }
    }
}

/// The end of a pass: wishes of pods whose containers are gone are dropped.
fn finish(turn: &mut Turn<'_>) {
    let pass = turn.memory.populator.pass.take().expect("a pass ends once");
    turn.memory.populator.has_added_pods |= pass.sources_ready;
    turn.memory.populator.over = true;
    let memory = &mut *turn.memory;
    for volume in memory.desired.volumes.values_mut() {
        volume.attachable &= attach_required(turn.cache, &volume.spec.driver);
    }
    let wishes = memory.desired.volumes.iter();
    let wishes = wishes.flat_map(|(name, v)| v.pods.keys().map(move |pod| (name.clone(), pod.clone())));
    let gone = wishes.filter(|(name, pod)| {
        let worker = memory.workers.pods.get(pod);
        let removed = worker.map_or(memory.sources_ready, |w| w.runtime_removed);
        // A pod that is still there keeps a wish that is already fulfilled, so that it does not flap.
        let keep = worker.is_some_and(|w| w.in_api) && memory.actual.mount(name, pod).is_none();
        removed && !keep
    });
    for (name, pod) in gone.collect::<Vec<_>>() {
        memory.desired.remove(&name, &pod);
        memory.populator.processed.remove(&pod);
    }
    turn.wake_reconciler();
    turn.wake_node_status();
}
