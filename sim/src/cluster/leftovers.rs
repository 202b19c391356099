//! What must not be left when everything a scenario made is gone again.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolume;

use super::Cluster;
use crate::api::{Kind, fields};

impl Cluster {
    /// Everything that belongs to nothing, as sentences' subjects, in a fixed order.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let volumes = || self.api.list::<PersistentVolume>();
        let handles: BTreeSet<&str> = volumes()
            .filter_map(|v| fields::volume_handle(v))
            .map(|(_, handle)| handle)
            .collect();
        for storage in self.storages() {
            left.extend(
                storage
                    .volumes()
                    .iter()
                    .map(|v| v.id.to_string())
                    .filter(|h| !handles.contains(h.as_str()))
                    .map(|h| format!("volume {h} in the storage system")),
            );
        }
        for kind in [
            Kind::PersistentVolumeClaim,
            Kind::PersistentVolume,
            Kind::VolumeAttachment,
            Kind::Pod,
            Kind::VolumeSnapshot,
            Kind::VolumeSnapshotContent,
        ] {
            for object in self.api.objects(kind).filter(|o| fields::is_deleting(o.meta())) {
                let held = object.meta().finalizers.as_deref().unwrap_or_default();
                left.push(format!(
                    "{} (being deleted, held by {})",
                    object.to_ref(),
                    if held.is_empty() {
                        "nobody".into()
                    } else {
                        held.join(", ")
                    }
                ));
            }
        }
        if self.api.count(Kind::Pod) == 0 {
            let attachments = self
                .api
                .objects(Kind::VolumeAttachment)
                .filter(|o| !fields::is_deleting(o.meta()));
            left.extend(attachments.map(|o| o.to_ref().to_string()));
            for (node, machine) in self.machines() {
                let inventory = machine.inventory();
                left.extend(
                    inventory
                        .mounts
                        .iter()
                        .map(|mount| format!("the mount {} on {node}", mount.target)),
                );
                left.extend(
                    inventory
                        .devices
                        .iter()
                        .map(|(device, _, volume)| format!("the device {device} of {volume} on {node}")),
                );
                // Kubelet itself leaves the bare directory behind where a driver does not stage; with its record beside it, it was staged.
                let staged = machine.paths_below("/var/lib/kubelet/plugins/kubernetes.io/csi");
                left.extend(
                    staged
                        .into_iter()
                        .filter(|(path, _)| path.ends_with("/vol_data.json"))
                        .map(|(path, _)| format!("the staging record {path} on {node}")),
                );
            }
        }
        left
    }
}
