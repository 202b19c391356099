//! Small objects for the unit tests of this folder.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Container, ObjectReference, PersistentVolume, PersistentVolumeClaimVolumeSource,
    PersistentVolumeSpec, Pod, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::volume::VolumeSpec;
use crate::api::{ObjKey, quantity};

/// The driver of the recorded traces.
pub const DRIVER: &str = "hostpath.csi.k8s.io";
/// The node of most recorded traces.
pub const NODE: &str = "node-a";
/// The size of the volumes here.
pub const GIB: u64 = 1 << 30;

/// A pod of `default` on the node that mounts the claim `data` as `v`.
pub fn pod(name: &str, uid: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(NODE.into()),
            containers: vec![Container {
                name: "c".into(),
                volume_mounts: Some(vec![VolumeMount {
                    name: "v".into(),
                    mount_path: "/data".into(),
                    ..VolumeMount::default()
                }]),
                ..Container::default()
            }],
            volumes: Some(vec![Volume {
                name: "v".into(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: "data".into(),
                    read_only: None,
                }),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// A PersistentVolume bound to `default/data`.
pub fn persistent_volume(name: &str, handle: &str, mode: &str) -> PersistentVolume {
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            capacity: Some([(String::from("storage"), quantity::quantity(GIB))].into()),
            claim_ref: Some(ObjectReference {
                namespace: Some("default".into()),
                name: Some("data".into()),
                uid: Some("claim-uid".into()),
                ..ObjectReference::default()
            }),
            csi: Some(CSIPersistentVolumeSource {
                driver: DRIVER.into(),
                volume_handle: handle.into(),
                ..CSIPersistentVolumeSource::default()
            }),
            volume_mode: Some(mode.into()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

fn spec(name: &str, handle: &str, mode: &str) -> VolumeSpec {
    let pv = Arc::new(persistent_volume(name, handle, mode));
    VolumeSpec::persistent(&pv, ObjKey::new("default", "data"), "v", false).unwrap()
}

/// A file-system volume of the claim `default/data`.
pub fn volume(name: &str, handle: &str) -> VolumeSpec {
    spec(name, handle, "Filesystem")
}

/// A raw block volume of the claim `default/data`.
pub fn block_volume(name: &str, handle: &str) -> VolumeSpec {
    spec(name, handle, "Block")
}
