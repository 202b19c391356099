//! What must not be left when everything a scenario made is gone again.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolume;

use wavetank_driver::VolumeId;

use super::Cluster;
use crate::api::{Kind, fields};
use crate::host::{Found, Storage};

/// A storage system whose volumes must all belong to a PersistentVolume.
pub type Inventory = Storage;

impl Cluster {
    /// Adds a storage system to look at.
    pub fn add_inventory(&mut self, inventory: Inventory) {
        self.inventories.push(inventory);
    }

    /// What a volume holds, without asking any driver.
    pub fn contents(&self, volume: &VolumeId) -> Option<Vec<Found>> {
        self.inventories.iter().find_map(|storage| storage.contents(volume))
    }

    /// Everything that belongs to nothing, as sentences' subjects, in a fixed order.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let volumes = || self.api.list::<PersistentVolume>();
        let handles: BTreeSet<&str> = volumes()
            .filter_map(|v| fields::volume_handle(v))
            .map(|(_, handle)| handle)
            .collect();
        for inventory in &self.inventories {
            left.extend(
                inventory
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
                let staged = machine.paths_below("/var/lib/kubelet/plugins/kubernetes.io/csi");
                left.extend(
                    staged
                        .into_iter()
                        .filter(|(path, _)| path.ends_with("/globalmount"))
                        .map(|(path, _)| format!("the directory {path} on {node}")),
                );
            }
        }
        left
    }
}
