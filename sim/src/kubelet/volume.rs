//! What kubelet calls a volume, and what it knows of one.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{CSIVolumeSource, PersistentVolume, Pod};

use crate::api::{ObjKey, Resource, fields, names};

/// The unique name of a volume: two PersistentVolumes with the same driver and handle are one volume here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName(Arc<str>);

impl VolumeName {
    /// The name of a volume behind a PersistentVolume.
    pub fn persistent(driver: &str, handle: &str) -> VolumeName {
        VolumeName(names::unique_volume_name(driver, handle).into())
    }

    /// The name of a CSI inline volume: each pod has its own.
    pub fn inline(pod_uid: &str, volume: &str) -> VolumeName {
        VolumeName(format!("kubernetes.io/csi/{pod_uid}-{volume}").into())
    }

    /// As a Node's status lists it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.strip_prefix("kubernetes.io/csi/").unwrap_or(&self.0))
    }
}

/// A pod: the UID is what counts, the name is for people. What is reconstructed from a disk has no name.
#[derive(Clone, Debug)]
pub struct PodRef {
    /// The UID.
    pub uid: Arc<str>,
    /// Namespace and name, when known.
    pub key: Option<ObjKey>,
}

impl PodRef {
    /// The pod of this object.
    pub fn of(pod: &Pod) -> PodRef {
        PodRef {
            uid: fields::uid(&pod.metadata).into(),
            key: Some(pod.key()),
        }
    }

    /// A pod of which a directory tells the UID.
    pub fn unnamed(uid: &str) -> PodRef {
        PodRef {
            uid: uid.into(),
            key: None,
        }
    }
}

impl PartialEq for PodRef {
    fn eq(&self, other: &PodRef) -> bool {
        self.uid == other.uid
    }
}

impl Eq for PodRef {}

impl PartialOrd for PodRef {
    fn partial_cmp(&self, other: &PodRef) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PodRef {
    fn cmp(&self, other: &PodRef) -> Ordering {
        self.uid.cmp(&other.uid)
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{key}"),
            None => f.write_str(&self.uid),
        }
    }
}

/// Where a volume's description comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A PersistentVolume, as the populator read it.
    Persistent(Arc<PersistentVolume>),
    /// An inline volume of a pod in this namespace.
    Inline(Box<CSIVolumeSource>, String),
    /// A metadata file found at the start of kubelet: access modes, secrets, attributes and mount options are lost.
    Reconstructed {
        /// Whether it was an inline volume.
        ephemeral: bool,
    },
}

/// One volume as one pod wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeSpec {
    /// The driver.
    pub driver: Arc<str>,
    /// The handle; of an inline volume a hash of the pod's UID and the volume's name.
    pub handle: String,
    /// The name of the PersistentVolume, or of the inline volume in the pod.
    pub name: String,
    /// The volume's name in the pod.
    pub in_pod: String,
    /// A raw block volume.
    pub block: bool,
    /// The claim, if there is one.
    pub claim: Option<ObjKey>,
    /// The pod mounts it read-only: its claim reference says so, not the PersistentVolume.
    pub read_only: bool,
    /// Where all of this comes from.
    pub source: Source,
}

impl VolumeSpec {
    /// A volume behind a claim.
    pub fn persistent(pv: &Arc<PersistentVolume>, claim: ObjKey, in_pod: &str, read_only: bool) -> Option<VolumeSpec> {
        let (driver, handle) = fields::volume_handle(pv)?;
        Some(VolumeSpec {
            driver: driver.into(),
            handle: handle.to_owned(),
            name: fields::name(&pv.metadata).to_owned(),
            in_pod: in_pod.to_owned(),
            block: fields::volume_mode(pv) == "Block",
            claim: Some(claim),
            read_only,
            source: Source::Persistent(Arc::clone(pv)),
        })
    }

    /// An inline volume of a pod.
    pub fn inline(pod: &Pod, in_pod: &str, source: &CSIVolumeSource) -> VolumeSpec {
        VolumeSpec {
            driver: source.driver.as_str().into(),
            handle: inline_handle(fields::uid(&pod.metadata), in_pod),
            name: in_pod.to_owned(),
            in_pod: in_pod.to_owned(),
            block: false,
            claim: None,
            read_only: source.read_only == Some(true),
            source: Source::Inline(Box::new(source.clone()), fields::namespace(&pod.metadata).to_owned()),
        }
    }

    /// Whether it lives and dies with its pod, without attaching and staging.
    pub fn is_inline(&self) -> bool {
        matches!(
            self.source,
            Source::Inline(..) | Source::Reconstructed { ephemeral: true }
        )
    }

    /// The PersistentVolume, unless it is inline or reconstructed.
    pub fn pv(&self) -> Option<&Arc<PersistentVolume>> {
        match &self.source {
            Source::Persistent(pv) => Some(pv),
            Source::Inline(..) | Source::Reconstructed { .. } => None,
        }
    }

    /// Its unique name.
    pub fn unique_name(&self, pod: &PodRef) -> VolumeName {
        if self.is_inline() {
            VolumeName::inline(&pod.uid, &self.name)
        } else {
            VolumeName::persistent(&self.driver, &self.handle)
        }
    }

    /// The volume's size by its PersistentVolume, in bytes.
    pub fn size(&self) -> Option<u64> {
        self.pv().map(|pv| fields::volume_capacity(pv))
    }

    /// The access modes of the PersistentVolume.
    pub fn modes(&self) -> &[String] {
        self.pv().map_or(&[], |pv| fields::volume_modes(pv))
    }
}

/// The handle of an inline volume.
pub fn inline_handle(pod_uid: &str, volume: &str) -> String {
    format!("csi-{}", names::sha256_hex(&[pod_uid, volume]))
}

#[cfg(test)]
mod tests {
    use super::{PodRef, VolumeName, inline_handle};
    use crate::api::ObjKey;

    #[test]
    fn an_inline_volume_is_named_by_its_pod_and_hashed_for_the_driver() {
        // Trace 14.
        let uid = "b3c28b0d-99bc-49d2-a43a-c0817cef6596";
        assert_eq!(
            inline_handle(uid, "v"),
            "csi-d3564b27a05854249700d4e4ebba3d17f23578875cff3651672d03afacd742c4"
        );
        assert_eq!(
            VolumeName::inline(uid, "v").as_str(),
            "kubernetes.io/csi/b3c28b0d-99bc-49d2-a43a-c0817cef6596-v"
        );
    }

    #[test]
    fn a_pod_is_its_uid_whatever_it_is_called() {
        let named = PodRef {
            uid: "u".into(),
            key: Some(ObjKey::new("default", "web-0")),
        };
        assert_eq!(named, PodRef::unnamed("u"));
        assert_eq!(named.to_string(), "default/web-0");
    }
}
