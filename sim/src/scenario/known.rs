//! What a scenario brings into being, and what a run makes up itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::Scenario;
use super::manifest::{DEFAULT_NAMESPACE, Manifest};
use super::step::{Apply, Step};
use crate::api::Kind;

/// Kind, namespace and name.
pub(crate) type Known = (Kind, String, String);

/// Every object that the scenario brings into being, and the first step that does (0: there from the start).
pub(crate) fn births(scenario: &Scenario) -> BTreeMap<Known, usize> {
    let mut born = BTreeMap::new();
    for namespace in [DEFAULT_NAMESPACE, "kube-system"] {
        born.insert((Kind::Namespace, String::new(), namespace.to_owned()), 0);
    }
    for node in &scenario.cluster.nodes {
        for kind in [Kind::Node, Kind::CSINode] {
            born.insert((kind, String::new(), node.name.clone()), 0);
        }
    }
    for driver in &scenario.cluster.drivers {
        born.insert((Kind::CSIDriver, String::new(), driver.name.clone()), 0);
    }
    let mut add = |manifest: &Manifest, when: usize| {
        let namespace = manifest.key().namespace.to_string();
        for name in ephemeral_claims(manifest) {
            born.entry((Kind::PersistentVolumeClaim, namespace.clone(), name))
                .or_insert(when);
        }
        born.entry((manifest.kind(), namespace, manifest.name().to_owned()))
            .or_insert(when);
    };
    scenario.manifests.iter().for_each(|manifest| add(manifest, 0));
    for (n, step) in scenario.steps.iter().enumerate() {
        if let Step::Apply(Apply { manifests, .. }) = step {
            manifests.iter().for_each(|manifest| add(manifest, n + 1));
        }
    }
    born
}

/// The claims that a pod's generic ephemeral volumes become.
fn ephemeral_claims(manifest: &Manifest) -> Vec<String> {
    let volumes = manifest
        .object
        .get::<Pod>()
        .and_then(|pod| pod.spec.as_ref()?.volumes.as_ref());
    let ephemeral = volumes
        .into_iter()
        .flatten()
        .filter(|volume| volume.ephemeral.is_some());
    ephemeral
        .map(|volume| format!("{}-{}", manifest.name(), volume.name))
        .collect()
}

/// Where a pod's containers mount volumes, and where they have block devices.
pub(crate) fn mount_paths(spec: &PodSpec) -> Vec<&str> {
    let mut paths = Vec::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        paths.extend(
            container
                .volume_mounts
                .iter()
                .flatten()
                .map(|mount| mount.mount_path.as_str()),
        );
        paths.extend(
            container
                .volume_devices
                .iter()
                .flatten()
                .map(|device| device.device_path.as_str()),
        );
    }
    paths
}

/// A pod's volumes that come from a driver.
pub(crate) fn storage_volumes(spec: &PodSpec) -> Vec<&str> {
    let storage = spec.volumes.iter().flatten().filter(|volume| {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() || volume.csi.is_some()
    });
    storage.map(|volume| volume.name.as_str()).collect()
}

/// Whether a run itself makes up objects of such a name.
pub(crate) fn made_up(kind: Kind, name: &str) -> bool {
    let after = |prefix: &str, len: usize| name.strip_prefix(prefix).is_some_and(|rest| rest.len() == len);
    match kind {
        Kind::PersistentVolume => after("pvc-", 36),
        Kind::VolumeSnapshotContent => after("snapcontent-", 36),
        Kind::VolumeAttachment => after("csi-", 64),
        Kind::Event | Kind::CSIStorageCapacity => true,
        _ => false,
    }
}
