//! Desired state of the world: which volumes the pods of this node want (fact sheet 6.3, 6.4).
//!
//! Filled by the populator, read by the reconciler and by the node status round.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::volume::{PodRef, VolumeName, VolumeSpec};

/// The desired state of the world.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The volumes, by unique name.
    pub volumes: BTreeMap<VolumeName, DesiredVolume>,
}

/// One volume that pods want.
#[derive(Clone, Debug)]
pub struct DesiredVolume {
    /// As the first pod that added it described it.
    pub spec: Arc<VolumeSpec>,
    /// The driver wants it attached.
    pub attachable: bool,
    /// Our own Node has said in `volumesInUse` that it is in use: nothing is mounted before that.
    pub reported_in_use: bool,
    /// The size of the PersistentVolume when a pod was last processed, in bytes.
    pub size: Option<u64>,
    /// Who wants it.
    pub pods: BTreeMap<PodRef, DesiredPod>,
}

/// One pod's wish.
#[derive(Clone, Debug)]
pub struct DesiredPod {
    /// The volume as this pod describes it.
    pub spec: Arc<VolumeSpec>,
    /// The pod as it was then.
    pub pod: Arc<Pod>,
}

impl Desired {
    /// A pod wants a volume. A new entry is not yet reported in use, whatever the Node says.
    pub fn add(&mut self, pod: &PodRef, object: &Arc<Pod>, spec: &Arc<VolumeSpec>, attachable: bool) -> VolumeName {
        let name = spec.unique_name(pod);
        let volume = self.volumes.entry(name.clone()).or_insert_with(|| DesiredVolume {
            spec: Arc::clone(spec),
            attachable,
            reported_in_use: false,
            size: None,
            pods: BTreeMap::new(),
        });
        let wish = DesiredPod {
            spec: Arc::clone(spec),
            pod: Arc::clone(object),
        };
        volume.pods.insert(pod.clone(), wish);
        name
    }

    /// A pod no longer wants a volume; the last one takes the entry along.
    pub fn remove(&mut self, name: &VolumeName, pod: &PodRef) {
        let Some(volume) = self.volumes.get_mut(name) else {
            return;
        };
        volume.pods.remove(pod);
        if volume.pods.is_empty() {
            self.volumes.remove(name);
        }
    }

    /// Whether a pod wants a volume.
    pub fn wants(&self, name: &VolumeName, pod: &PodRef) -> bool {
        self.volumes.get(name).is_some_and(|v| v.pods.contains_key(pod))
    }

    /// The volumes of a pod.
    pub fn of_pod(&self, pod: &PodRef) -> impl Iterator<Item = (&VolumeName, &DesiredPod)> {
        self.volumes.iter().filter_map(|(n, v)| Some((n, v.pods.get(pod)?)))
    }

    /// Takes over what the Node says about volumes in use: entries that it does not name are not reported (any more). `true` if anything changed.
    pub fn mark_reported(&mut self, in_use: &[String]) -> bool {
        let mut changed = false;
        for (name, volume) in &mut self.volumes {
            let reported = in_use.iter().any(|n| n == name.as_str());
            changed |= volume.reported_in_use != reported;
            volume.reported_in_use = reported;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::Desired;
    use crate::kubelet::testing::{pod, volume};
    use crate::kubelet::volume::PodRef;
    use std::sync::Arc;

    #[test]
    fn a_returning_volume_is_reported_only_after_the_next_status_round() {
        // Trace 25: a pod that returns before the status tick waits for that tick although the Node never stopped naming the volume.
        let mut desired = Desired::default();
        let object = Arc::new(pod("web", "u-1"));
        let (pod, spec) = (PodRef::of(&object), Arc::new(volume("pvc-1", "h")));
        let name = desired.add(&pod, &object, &spec, true);
        assert!(desired.mark_reported(&[name.as_str().to_owned()]));
        assert!(desired.volumes[&name].reported_in_use);
        desired.remove(&name, &pod);
        desired.add(&pod, &object, &spec, true);
        assert!(!desired.volumes[&name].reported_in_use);
    }

    #[test]
    fn the_last_pod_takes_the_volume_along() {
        let mut desired = Desired::default();
        let spec = Arc::new(volume("pvc-1", "h"));
        let objects = [Arc::new(pod("a", "u-1")), Arc::new(pod("b", "u-2"))];
        let pods = objects.clone().map(|o| PodRef::of(&o));
        let name = desired.add(&pods[0], &objects[0], &spec, true);
        desired.add(&pods[1], &objects[1], &spec, true);
        desired.remove(&name, &pods[0]);
        assert!(desired.wants(&name, &pods[1]) && !desired.wants(&name, &pods[0]));
        desired.remove(&name, &pods[1]);
        assert!(desired.volumes.is_empty());
    }
}
