//! The desired state of the world: which volume which pod wants on which node.
//!
//! A pod's volume is wanted from the moment the pod is bound to a managed node until the pod has terminated, which is earlier than its object's end:
//! a deleted pod without a running container counts as terminated (fact sheet 4.2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;

use crate::api::{EventRecord, Kind, ObjKey, ObjectRef, fields, names};

/// A volume on a node: what is attached, and what is detached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The unique name, `kubernetes.io/csi/<driver>^<handle>`.
    pub volume: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
}

impl Place {
    /// The volume of this name on the node of that name.
    pub fn new(volume: impl Into<Arc<str>>, node: impl Into<Arc<str>>) -> Place {
        Place {
            volume: volume.into(),
            node: node.into(),
        }
    }

    /// Driver and handle, read off the unique name; `None` for a volume that is not CSI's.
    pub fn driver_and_handle(&self) -> Option<(&str, &str)> {
        names::driver_and_handle(&self.volume)
    }

    /// The name of the VolumeAttachment that stands for it.
    pub fn attachment(&self) -> Option<String> {
        let (driver, handle) = self.driver_and_handle()?;
        Some(names::attachment_name(driver, handle, &self.node))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.volume, self.node)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What the controller keeps of a volume, taken from its PersistentVolume when a pod wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The PersistentVolume's name: how users know the volume.
    pub pv: Arc<str>,
    /// The CSI driver.
    pub driver: Arc<str>,
    /// The driver's name for it.
    pub handle: Arc<str>,
    /// Whether it may be attached to several nodes: no access mode is known, or one of them is RWX or ROX.
    pub multi_attach: bool,
}

impl Spec {
    /// Of a PersistentVolume, if it is CSI's.
    pub fn of(volume: &PersistentVolume) -> Option<Spec> {
        let (driver, handle) = fields::volume_handle(volume)?;
        let modes = fields::volume_modes(volume);
        Some(Spec {
            pv: fields::name(&volume.metadata).into(),
            driver: driver.into(),
            handle: handle.into(),
            multi_attach: modes.is_empty() || modes.iter().any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany"),
        })
    }

    /// The volume on a node.
    pub fn on(&self, node: &str) -> Place {
        Place::new(names::unique_volume_name(&self.driver, &self.handle), node)
    }
}

/// Whether a volume of which this much is known may be attached to several nodes. Of a volume without spec nothing is known, so it may.
pub fn is_multi_attach_allowed(spec: Option<&Spec>) -> bool {
    spec.is_none_or(|s| s.multi_attach)
}

/// A pod that waits for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace and name.
    pub key: ObjKey,
    /// The UID.
    pub uid: Arc<str>,
}

impl PodRef {
    /// An event about the pod.
    pub fn event(&self, warning: bool, reason: &'static str, message: String) -> EventRecord {
        EventRecord {
            regarding: ObjectRef::new(Kind::Pod, self.key.clone()),
            uid: self.uid.to_string(),
            warning,
            reason,
            message,
            container: None,
        }
    }
}

/// A volume that pods want on a node.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The volume.
    pub spec: Arc<Spec>,
    /// The pods, by UID.
    pub pods: BTreeMap<Arc<str>, PodRef>,
    /// The pods have been told that the volume is attached elsewhere. Said once, until the volume is no longer wanted here.
    pub multi_attach_told: bool,
}

/// What is wanted.
#[derive(Debug, Default)]
pub struct Desired {
    /// The managed nodes, and whether terminated pods keep their volumes there.
    nodes: BTreeMap<Arc<str>, bool>,
    wanted: BTreeMap<Place, Wanted>,
    by_pod: BTreeMap<Arc<str>, BTreeSet<Place>>,
    /// What changed since somebody asked.
    touched: Vec<Place>,
}

impl Desired {
    /// Manages a node from now on.
    pub fn manage(&mut self, node: &str, keep_terminated: bool) {
        self.nodes.insert(node.into(), keep_terminated);
    }

    /// Stops managing a node. Refused while volumes are wanted there: then it stays managed.
    pub fn release(&mut self, node: &str) {
        if !self.wanted.keys().any(|p| &*p.node == node) {
            self.nodes.remove(node);
        }
    }

    /// Whether pods of a node are looked at.
    pub fn is_managed(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// Whether terminated pods keep their volumes on a node.
    pub fn keeps_terminated(&self, node: &str) -> bool {
        self.nodes.get(node).copied().unwrap_or(false)
    }

    /// A pod wants a volume on its (managed) node. Says whether that is new.
    pub fn add(&mut self, spec: &Arc<Spec>, node: &str, pod: PodRef) -> bool {
        if !self.is_managed(node) {
            return false;
        }
        let place = spec.on(node);
        self.touched.push(place.clone());
        let wanted = self.wanted.entry(place.clone()).or_insert_with(|| Wanted {
            spec: Arc::clone(spec),
            pods: BTreeMap::new(),
            multi_attach_told: false,
        });
        self.by_pod.entry(Arc::clone(&pod.uid)).or_default().insert(place);
        wanted.pods.insert(Arc::clone(&pod.uid), pod).is_none()
    }

    /// A pod no longer wants a volume. Says whether it did.
    pub fn remove(&mut self, place: &Place, pod: &str) -> bool {
        let Some(wanted) = self.wanted.get_mut(place) else {
            return false;
        };
        let had = wanted.pods.remove(pod).is_some();
        if wanted.pods.is_empty() {
            self.wanted.remove(place);
            self.touched.push(place.clone());
        }
        if let Some(places) = self.by_pod.get_mut(pod) {
            places.remove(place);
            if places.is_empty() {
                self.by_pod.remove(pod);
            }
        }
        had
    }

    /// What changed since this was last asked.
    pub fn take_touched(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.touched)
    }

    /// Whether a volume is wanted on a node.
    pub fn wants(&self, place: &Place) -> bool {
        self.wanted.contains_key(place)
    }

    /// A wanted volume.
    pub fn get(&self, place: &Place) -> Option<&Wanted> {
        self.wanted.get(place)
    }

    /// What is wanted, in order of volume and node.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &Wanted)> {
        self.wanted.iter()
    }

    /// What a pod wants.
    pub fn places_of<'a>(&'a self, pod: &str) -> impl Iterator<Item = &'a Place> + use<'a> {
        self.by_pod.get(pod).into_iter().flatten()
    }

    /// The pods that want something, by UID, each with one of its places: the first.
    pub fn pods(&self) -> impl Iterator<Item = (&PodRef, &Place)> {
        self.by_pod.iter().filter_map(|(uid, places)| {
            let place = places.first()?;
            Some((self.wanted.get(place)?.pods.get(uid)?, place))
        })
    }

    /// The pods that want a volume on one of these nodes.
    pub fn pods_on(&self, volume: &str, nodes: &[Arc<str>]) -> Vec<&PodRef> {
        let places = nodes.iter().map(|node| Place::new(volume, Arc::clone(node)));
        let wanted = places.filter_map(|place| self.wanted.get(&place));
        wanted.flat_map(|w| w.pods.values()).collect()
    }

    /// Notes that the pods were told of a Multi-Attach.
    pub fn told(&mut self, place: &Place) {
        if let Some(wanted) = self.wanted.get_mut(place) {
            wanted.multi_attach_told = true;
        }
    }
}
