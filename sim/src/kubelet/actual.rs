//! Actual state of the world: what is attached, staged and mounted on this node as far as kubelet knows (fact sheet 6.3).
//!
//! The device of a volume (staging; of block volumes the set-up):
//!
//! ```text
//!                    MountDevice ok
//!        ┌──────────────────────────────────────────┐
//!        │                                          ▼
//!  NotMounted ──uncertain error──► Uncertain ──MountDevice ok──► Mounted
//!     ▲  ▲  final or transient:     │  ▲  │                         │
//!     │  │  stays                   │  └──┘ uncertain, transient,   │
//!     │  └──────final error─────────┘       and final if            │
//!     │         unless reconstructed        reconstructed           │
//!     └──UnmountDevice ok── Uncertain ◄──UnmountDevice error────────┘
//! ```
//!
//! The mount of one pod; absent means not mounted:
//!
//! ```text
//!  absent ──ok──► Mounted ──failed unmount──► Uncertain ──final mount error, unless reconstructed──► absent
//!     └──uncertain error──► Uncertain ──ok──► Mounted ──failed remount──► Mounted
//!  any ──unmount ok──► absent
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::volume::{PodRef, VolumeName, VolumeSpec};

/// How much an error says. A wrapped error counts as final in kubelet: the class is decided where the error arises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The operation is certainly not running any more.
    Final,
    /// It may still be running, or may have succeeded.
    Uncertain,
    /// It was never asked for: something around it failed.
    Transient,
}

/// Whether a volume is attached to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The Node's status says so.
    Yes,
    /// It is not, or needs no attaching.
    No,
    /// Found on disk; the Node's status was not looked at yet.
    Uncertain,
}

/// Whether a volume's device is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// It is not.
    NotMounted,
    /// Perhaps.
    Uncertain,
    /// It is.
    Mounted,
}

/// Whether a volume is mounted for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMount {
    /// It is.
    Mounted,
    /// Perhaps.
    Uncertain,
}

/// One volume that is, or may be, on this node.
#[derive(Clone, Debug)]
pub struct ActualVolume {
    /// What it is.
    pub spec: Arc<VolumeSpec>,
    /// Whether it is attached.
    pub attached: Attached,
    /// Whether it is staged.
    pub device: Device,
    /// The size up to which it has been expanded here, in bytes, when known.
    pub claim_size: Option<u64>,
    /// The driver refused to expand it while it is in use: not tried again until it leaves the node.
    pub expansion_refused: bool,
    /// For whom it is mounted.
    pub pods: BTreeMap<PodRef, ActualPod>,
}

/// One pod's mount.
#[derive(Clone, Debug)]
pub struct ActualPod {
    /// The volume as this pod described it.
    pub spec: Arc<VolumeSpec>,
    /// Whether it is mounted.
    pub state: PodMount,
    /// To be published again although it is mounted.
    pub remount: bool,
}

/// The actual state of the world.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    /// The volumes, by unique name.
    pub volumes: BTreeMap<VolumeName, ActualVolume>,
    /// Volumes found on disk at the start. Left when the volume leaves the node.
    reconstructed: BTreeSet<VolumeName>,
    /// Pod mounts found on disk at the start. Left when the mount is certain, or gone.
    reconstructed_pods: BTreeSet<(VolumeName, PodRef)>,
    /// Reconstructed volumes of which it is not known whether they are attached.
    pub unresolved: BTreeSet<VolumeName>,
}

impl Actual {
    /// A volume is attached, or needs no attaching. One that is known already stays as it is.
    pub fn add(&mut self, name: &VolumeName, spec: &Arc<VolumeSpec>, attached: Attached, claim_size: Option<u64>) {
        let volume = self.volumes.entry(name.clone()).or_insert_with(|| ActualVolume {
            spec: Arc::clone(spec),
            attached,
            device: Device::NotMounted,
            claim_size: None,
            expansion_refused: false,
            pods: BTreeMap::new(),
        });
        volume.claim_size = volume.claim_size.or(claim_size);
    }

    /// A pod's mount was found on disk: everything about it is uncertain.
    pub fn reconstruct(&mut self, name: &VolumeName, spec: &Arc<VolumeSpec>, pod: &PodRef) {
        self.add(name, spec, Attached::Uncertain, None);
        let volume = self.volumes.get_mut(name).expect("just added");
        if !spec.is_inline() {
            volume.device = Device::Uncertain;
        }
        let mount = ActualPod {
            spec: Arc::clone(spec),
            state: PodMount::Uncertain,
            remount: false,
        };
        volume.pods.insert(pod.clone(), mount);
        self.reconstructed.insert(name.clone());
        self.reconstructed_pods.insert((name.clone(), pod.clone()));
        self.unresolved.insert(name.clone());
    }

    /// The Node's status tells which reconstructed volumes are attached.
    pub fn resolve(&mut self, attached: &BTreeSet<String>) {
        for name in std::mem::take(&mut self.unresolved) {
            if let Some(volume) = self.volumes.get_mut(&name) {
                let yes = attached.contains(name.as_str());
                volume.attached = if yes { Attached::Yes } else { Attached::No };
            }
        }
    }

    /// Whether the mount of a pod was found on disk and is not certain yet.
    pub fn is_reconstructed(&self, name: &VolumeName, pod: &PodRef) -> bool {
        self.reconstructed_pods.contains(&(name.clone(), pod.clone()))
    }

    /// The state of a device.
    pub fn device(&self, name: &VolumeName) -> Device {
        self.volumes.get(name).map_or(Device::NotMounted, |v| v.device)
    }

    /// The mount of a pod.
    pub fn mount(&self, name: &VolumeName, pod: &PodRef) -> Option<&ActualPod> {
        self.volumes.get(name)?.pods.get(pod)
    }

    /// MountDevice succeeded.
    pub fn device_mounted(&mut self, name: &VolumeName) {
        self.set_device(name, Device::Mounted);
    }

    /// MountDevice failed.
    pub fn device_mount_failed(&mut self, name: &VolumeName, class: Class) {
        let next = match (self.device(name), class) {
            (Device::NotMounted, Class::Uncertain) => Device::Uncertain,
            (Device::NotMounted, Class::Final | Class::Transient) => Device::NotMounted,
            (Device::Uncertain, Class::Final) if !self.reconstructed.contains(name) => Device::NotMounted,
            (Device::Uncertain, _) => Device::Uncertain,
            (Device::Mounted, _) => Device::Mounted,
        };
        self.set_device(name, next);
    }

    /// The driver failed to unstage.
    pub fn device_unmount_failed(&mut self, name: &VolumeName) {
        self.set_device(name, Device::Uncertain);
    }

    /// UnmountDevice succeeded.
    pub fn device_unmounted(&mut self, name: &VolumeName) {
        self.set_device(name, Device::NotMounted);
    }

    fn set_device(&mut self, name: &VolumeName, device: Device) {
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.device = device;
        }
    }

    /// The volume is mounted for the pod.
    pub fn pod_mounted(&mut self, name: &VolumeName, pod: &PodRef, spec: &Arc<VolumeSpec>) {
        let Some(volume) = self.volumes.get_mut(name) else {
            return;
        };
        let mount = ActualPod {
            spec: Arc::clone(spec),
            state: PodMount::Mounted,
            remount: false,
        };
        volume.pods.insert(pod.clone(), mount);
        self.reconstructed_pods.remove(&(name.clone(), pod.clone()));
    }

    /// Mounting for the pod failed. A pod whose remount failed stays mounted, and wants it again.
    pub fn pod_mount_failed(&mut self, name: &VolumeName, pod: &PodRef, spec: &Arc<VolumeSpec>, class: Class) {
        let reconstructed = self.is_reconstructed(name, pod);
        let Some(volume) = self.volumes.get_mut(name) else {
            return;
        };
        match (volume.pods.get(pod).map(|p| p.state), class) {
            (None, Class::Uncertain) => {
                let mount = ActualPod {
                    spec: Arc::clone(spec),
                    state: PodMount::Uncertain,
                    remount: false,
                };
                volume.pods.insert(pod.clone(), mount);
            }
            (Some(PodMount::Uncertain), Class::Final) if !reconstructed => {
                volume.pods.remove(pod);
            }
            (None | Some(PodMount::Uncertain), _) | (Some(PodMount::Mounted), _) => {}
        }
    }

    /// The mount of a pod is no longer certain: an unmount failed, or of a block volume has begun.
    pub fn pod_uncertain(&mut self, name: &VolumeName, pod: &PodRef) {
        if let Some(mount) = self.volumes.get_mut(name).and_then(|v| v.pods.get_mut(pod)) {
            mount.state = PodMount::Uncertain;
        }
    }

    /// The volume is not mounted for the pod any more.
    pub fn pod_unmounted(&mut self, name: &VolumeName, pod: &PodRef) {
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.pods.remove(pod);
        }
        self.reconstructed_pods.remove(&(name.clone(), pod.clone()));
    }

    /// Nothing of the volume is left here.
    pub fn remove(&mut self, name: &VolumeName) {
        self.volumes.remove(name);
        self.reconstructed.remove(name);
        self.unresolved.remove(name);
    }

    /// Whether the pod has volumes that are certainly mounted.
    pub fn has_mounted(&self, pod: &PodRef) -> bool {
        self.volumes
            .values()
            .any(|v| v.pods.get(pod).is_some_and(|p| p.state == PodMount::Mounted))
    }

    /// Whether the pod has volumes that are, or may be, mounted.
    pub fn has_possibly_mounted(&self, pod: &PodRef) -> bool {
        self.volumes.values().any(|v| v.pods.contains_key(pod))
    }

    /// The volumes that are certainly mounted for a pod.
    pub fn mounted_for(&self, pod: &PodRef) -> impl Iterator<Item = (&VolumeName, &ActualPod)> {
        let mounts = self.volumes.iter().filter_map(|(n, v)| Some((n, v.pods.get(pod)?)));
        mounts.filter(|(_, p)| p.state == PodMount::Mounted)
    }
}

#[cfg(test)]
mod tests {
    use super::{Actual, Attached, Class, Device, PodMount};
    use crate::kubelet::testing::volume;
    use crate::kubelet::volume::{PodRef, VolumeName, VolumeSpec};
    use std::sync::Arc;

    fn world() -> (Actual, VolumeName, Arc<VolumeSpec>, PodRef) {
        let (spec, pod) = (Arc::new(volume("pvc-1", "h")), PodRef::unnamed("u-1"));
        let name = spec.unique_name(&pod);
        let mut actual = Actual::default();
        actual.add(&name, &spec, Attached::Yes, None);
        (actual, name, spec, pod)
    }

    #[test]
    fn the_device_follows_its_state_machine() {
        // Fact sheet 6.3, row by row.
        let table = [
            (Device::NotMounted, Class::Uncertain, Device::Uncertain),
            (Device::NotMounted, Class::Final, Device::NotMounted),
            (Device::NotMounted, Class::Transient, Device::NotMounted),
            (Device::Uncertain, Class::Final, Device::NotMounted),
            (Device::Uncertain, Class::Uncertain, Device::Uncertain),
            (Device::Uncertain, Class::Transient, Device::Uncertain),
        ];
        for (from, class, to) in table {
            let (mut actual, name, ..) = world();
            actual.set_device(&name, from);
            actual.device_mount_failed(&name, class);
            assert_eq!(actual.device(&name), to, "{from:?} after a {class:?} error");
        }
    }

    #[test]
    fn what_was_found_on_disk_stays_uncertain_after_a_final_error() {
        // Fact sheet 6.11: a final error of a remount proves nothing about the mount of the time before.
        let (mut actual, name, spec, pod) = world();
        actual.reconstruct(&name, &spec, &pod);
        actual.device_mount_failed(&name, Class::Final);
        assert_eq!(actual.device(&name), Device::Uncertain);
        actual.pod_mount_failed(&name, &pod, &spec, Class::Final);
        assert!(actual.has_possibly_mounted(&pod));
        actual.pod_mounted(&name, &pod, &spec);
        assert!(!actual.is_reconstructed(&name, &pod), "it is certain now");
    }

    #[test]
    fn a_pods_mount_follows_its_state_machine() {
        let (mut actual, name, spec, pod) = world();
        actual.pod_mount_failed(&name, &pod, &spec, Class::Final);
        assert!(!actual.has_possibly_mounted(&pod));
        actual.pod_mount_failed(&name, &pod, &spec, Class::Uncertain);
        assert_eq!(actual.mount(&name, &pod).unwrap().state, PodMount::Uncertain);
        actual.pod_mount_failed(&name, &pod, &spec, Class::Transient);
        assert!(actual.has_possibly_mounted(&pod), "a transient error says nothing");
        actual.pod_mount_failed(&name, &pod, &spec, Class::Final);
        assert!(
            !actual.has_possibly_mounted(&pod),
            "quirk B: a mount may be left behind"
        );
        actual.pod_mounted(&name, &pod, &spec);
        actual.pod_mount_failed(&name, &pod, &spec, Class::Final);
        assert!(actual.has_mounted(&pod), "a failed remount leaves the volume mounted");
        actual.pod_uncertain(&name, &pod);
        assert!(!actual.has_mounted(&pod) && actual.has_possibly_mounted(&pod));
    }

    #[test]
    fn only_what_the_node_still_lists_is_attached_after_a_restart() {
        // Traces 20b and 20e: a force-detached volume leaves volumesInUse at once.
        let (mut actual, name, spec, pod) = world();
        let other = Arc::new(volume("pvc-2", "other"));
        let gone = other.unique_name(&pod);
        actual.remove(&name);
        actual.reconstruct(&name, &spec, &pod);
        actual.reconstruct(&gone, &other, &pod);
        actual.resolve(&[name.as_str().to_owned()].into());
        assert_eq!(actual.volumes[&name].attached, Attached::Yes);
        assert_eq!(actual.volumes[&gone].attached, Attached::No);
        assert!(actual.unresolved.is_empty());
    }
}
