//! From a pod to the volumes that must be attached for it.
//!
//! A volume whose claim is not bound yet, or whose PersistentVolume has not been seen yet, is passed over in silence. It gets its next chance with an
//! event of the pod or the claim, or when all pods are listed again (fact sheet 4.2).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::CSIDriver;

use crate::api::{Cache, ObjKey, fields};

use super::desired::{Desired, PodRef, Spec};

/// What a pod's volume means to this controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It must be attached.
    Attachable(Arc<Spec>),
    /// It need not be attached.
    NoAttach,
    /// It cannot be told yet.
    Unknown,
}

/// Looks behind a pod's volume.
pub fn resolve(cache: &Cache, pod: &Pod, volume: &Volume) -> Resolved {
    let Some(used) = fields::pod_claim(pod, volume) else {
        // Anything but a claim, CSI inline volumes included, lives and dies on its node.
        return Resolved::NoAttach;
    };
    let key = ObjKey::new(fields::namespace(&pod.metadata), &*used.claim);
    let Some(claim) = cache.get::<PersistentVolumeClaim>(&key) else {
        return Resolved::Unknown;
    };
    let bound = fields::claim_phase(claim) == "Bound" && !fields::claim_volume(claim).is_empty();
    if !bound || (used.ephemeral && !fields::is_owned_by_pod(claim, pod)) {
        return Resolved::Unknown;
    }
    let Some(volume) = cache.named::<PersistentVolume>(fields::claim_volume(claim)) else {
        return Resolved::Unknown;
    };
    let claimed = fields::volume_claim(volume).and_then(|r| r.uid.as_deref());
    if claimed != Some(fields::uid(&claim.metadata)) {
        return Resolved::Unknown;
    }
    match Spec::of(volume) {
        Some(spec) if attaches(cache, &spec.driver) => Resolved::Attachable(Arc::new(spec)),
        _ => Resolved::NoAttach,
    }
}

/// Whether volumes of a driver are attached: yes, unless its CSIDriver says no. A driver without CSIDriver attaches.
pub fn attaches(cache: &Cache, driver: &str) -> bool {
    let driver = cache.named::<CSIDriver>(driver);
    driver.is_none_or(|d| d.spec.attach_required != Some(false))
}

/// Whether a pod no longer needs its volumes: it failed or succeeded, or it is being deleted and none of its containers runs.
pub fn is_terminated(pod: &Pod) -> bool {
    if fields::is_terminated(pod) {
        return true;
    }
    let status = pod.status.as_ref();
    let lists = status.into_iter().flat_map(|s| {
        [
            &s.init_container_statuses,
            &s.container_statuses,
            &s.ephemeral_container_statuses,
        ]
    });
    let mut containers = lists.filter_map(Option::as_deref).flatten();
    fields::is_deleting(&pod.metadata) && !containers.any(may_run)
}

fn may_run(container: &ContainerStatus) -> bool {
    container
        .state
        .as_ref()
        .is_none_or(|s| s.terminated.is_none() && s.waiting.is_none())
}

/// What came of looking at a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processed {
    /// Something is wanted now that was not, or the other way round.
    pub changed: bool,
    /// A volume was passed over that may be attachable later.
    pub passed_over: bool,
}

/// Adds the volumes of a pod to what is wanted, or removes them.
pub fn process(cache: &Cache, desired: &mut Desired, pod: &Pod, add: bool) -> Processed {
    let node = fields::pod_node(pod);
    let mut processed = Processed::default();
    if node.is_empty() {
        return processed;
    }
    if !desired.is_managed(node) {
        processed.passed_over = add && !fields::pod_volumes(pod).is_empty();
        return processed;
    }
    for volume in fields::pod_volumes(pod) {
        match resolve(cache, pod, volume) {
            Resolved::Attachable(spec) if add => processed.changed |= desired.add(&spec, node, reference(pod)),
            Resolved::Attachable(spec) => {
                processed.changed |= desired.remove(&spec.on(node), fields::uid(&pod.metadata));
            }
            Resolved::Unknown => processed.passed_over |= add,
            Resolved::NoAttach => {}
        }
    }
    processed
}

/// Whether the volumes of a pod are wanted.
pub fn wants_volumes(desired: &Desired, pod: &Pod) -> bool {
    !is_terminated(pod) || desired.keeps_terminated(fields::pod_node(pod))
}

fn reference(pod: &Pod) -> PodRef {
    PodRef {
        key: ObjKey::of(&pod.metadata),
        uid: fields::uid(&pod.metadata).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_terminated;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn pod(deleted: bool, phase: &str, states: &[Value]) -> Pod {
        let containers: Vec<Value> = states
            .iter()
            .map(|state| json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}))
            .collect();
        let deletion = deleted.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": {"name": "p", "deletionTimestamp": deletion},
            "status": {"phase": phase, "containerStatuses": containers}}))
        .unwrap()
    }

    #[test]
    fn a_pod_is_over_when_it_ended_or_when_it_is_deleted_and_nothing_runs() {
        // Fact sheet 4.2.
        let running = &[json!({"running": {}})];
        let ended = &[json!({"terminated": {"exitCode": 0}})];
        let one_runs = &[json!({"terminated": {"exitCode": 0}}), json!({"running": {}})];
        let none_runs = &[json!({"terminated": {"exitCode": 0}}), json!({"waiting": {}})];
        let cases = [
            (pod(false, "Running", running), false),
            (pod(false, "Running", ended), false),
            (pod(false, "Succeeded", ended), true),
            (pod(false, "Failed", running), true),
            (pod(true, "Running", running), false),
            (pod(true, "Running", one_runs), false),
            (pod(true, "Running", none_runs), true),
            (pod(true, "Pending", &[]), true),
        ];
        for (pod, over) in cases {
            assert_eq!(is_terminated(&pod), over, "{pod:?}");
        }
    }
}
