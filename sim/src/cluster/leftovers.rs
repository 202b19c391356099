//! What must not be left when nothing is under way any more: everything that belongs to no object.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use wavetank_driver::host::MountSource;

use super::{Cluster, Liveness};
use crate::api::{Kind, ObjKey, Object, fields};
use crate::host::Machine;

/// What the pods of a node have.
#[derive(Default)]
struct Used<'a> {
    /// The UIDs of pods.
    pods: BTreeSet<&'a str>,
    /// Handles of volumes.
    handles: BTreeSet<&'a str>,
    /// Some pod has a volume whose handle nobody but kubelet knows.
    inline: bool,
}

impl Cluster {
    /// Everything that belongs to nothing, as sentences' subjects, in a fixed order.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = self.strays();
        self.held_back(&mut left);
        left
    }

    /// What a driver that is not in the tank still has, and nothing names. Its backend is asked, behind the cluster's back.
    ///
    /// # Errors
    /// What the backend says instead.
    pub fn left_elsewhere(&self) -> Result<Vec<String>, String> {
        let mut left = Vec::new();
        let Some(elsewhere) = self.elsewhere() else {
            return Ok(left);
        };
        if self.api.count(Kind::PersistentVolume) == 0 {
            left.extend(elsewhere.devices());
        }
        let inline = self.used_by_node().values().any(|used| used.inline);
        let Some(held) = elsewhere.holds().filter(|_| !inline) else {
            return Ok(left);
        };
        let volumes = self.api.list::<PersistentVolume>();
        let known: BTreeSet<&str> = volumes
            .filter_map(|v| fields::volume_handle(v))
            .map(|(_, h)| h)
            .collect();
        let strays = held?.into_iter().filter(|handle| !known.contains(handle.as_str()));
        left.extend(strays.map(|handle| format!("volume {handle} of the driver")));
        Ok(left)
    }

    /// Everything that belongs to no object, in a fixed order.
    pub fn strays(&self) -> Vec<String> {
        let mut left = Vec::new();
        let used = self.used_by_node();
        self.in_storage(&used, &mut left);
        for attachment in self.api.list::<VolumeAttachment>() {
            let (node, volume) = (&*attachment.spec.node_name, fields::attachment_volume(attachment));
            let handle = self.get::<PersistentVolume>(&ObjKey::cluster(volume));
            let handle = handle.and_then(|volume| fields::volume_handle(volume));
            let wanted = handle.is_some_and(|(_, h)| used.get(node).is_some_and(|used| used.handles.contains(h)));
            if !wanted && !fields::is_deleting(&attachment.metadata) {
                let key = ObjKey::of(&attachment.metadata);
                left.push(crate::api::ObjectRef::new(Kind::VolumeAttachment, key).to_string());
            }
        }
        for (node, machine) in self.machines() {
            // Where no kubelet runs, nobody can clean up.
            let kubelet = self.process(&format!("kubelet/{node}"));
            if kubelet.is_none_or(|id| self.liveness(id) == Liveness::Running) {
                on_machine(node, machine, used.get(&**node), &mut left);
            }
        }
        left
    }

    fn used_by_node(&self) -> BTreeMap<&str, Used<'_>> {
        let mut used: BTreeMap<&str, Used<'_>> = BTreeMap::new();
        for pod in self.api.list::<Pod>() {
            let node = fields::pod_node(pod);
            if node.is_empty() || fields::is_terminated(pod) {
                continue;
            }
            let here = used.entry(node).or_default();
            here.pods.insert(fields::uid(&pod.metadata));
            here.inline |= fields::pod_volumes(pod).iter().any(|volume| volume.csi.is_some());
            for claim in fields::pod_claims(pod) {
                let key = ObjKey::new(fields::namespace(&pod.metadata), claim.claim.as_ref());
                let bound = self
                    .get::<PersistentVolumeClaim>(&key)
                    .map(|claim| fields::claim_volume(claim));
                let volume = bound.and_then(|name| self.get::<PersistentVolume>(&ObjKey::cluster(name)));
                here.handles
                    .extend(volume.and_then(|v| fields::volume_handle(v)).map(|(_, handle)| handle));
            }
        }
        used
    }

    /// Volumes that no PersistentVolume stands for, snapshots without content, and exports to nodes that have no use for them.
    fn in_storage(&self, used: &BTreeMap<&str, Used<'_>>, left: &mut Vec<String>) {
        let volumes = self.api.list::<PersistentVolume>();
        let handles: BTreeSet<&str> = volumes
            .filter_map(|v| fields::volume_handle(v))
            .map(|(_, h)| h)
            .collect();
        let inline = used.values().any(|used| used.inline);
        let attachments: Vec<_> = self.api.list::<VolumeAttachment>().collect();
        for (_, storage) in self.storages() {
            for volume in storage.volumes() {
                let handle = volume.id.as_str();
                if !handles.contains(handle) {
                    if !inline {
                        left.push(format!("volume {handle} in the storage system"));
                    }
                    continue;
                }
                for node in volume.exports.keys() {
                    let attached = attachments.iter().any(|attachment| {
                        let named = ObjKey::cluster(fields::attachment_volume(attachment));
                        let found = self
                            .get::<PersistentVolume>(&named)
                            .and_then(|v| fields::volume_handle(v));
                        attachment.spec.node_name == node.as_str() && found.is_some_and(|(_, h)| h == handle)
                    });
                    let needed = used
                        .get(node.as_str())
                        .is_some_and(|used| used.handles.contains(handle));
                    if !attached && !needed {
                        left.push(format!("the export of volume {handle} to {node}"));
                    }
                }
            }
            let known = self.api.objects(Kind::VolumeSnapshotContent).count();
            if known == 0 {
                let snapshots = storage.snapshots().into_iter();
                left.extend(snapshots.map(|id| format!("snapshot {id} in the storage system")));
            }
        }
    }

    /// Objects whose deletion does not end.
    fn held_back(&self, left: &mut Vec<String>) {
        let held = self.being_deleted();
        left.extend(held.map(|(object, by)| format!("{} (being deleted, held by {by})", object.to_ref())));
    }

    /// What is being deleted, of the kinds that storage is about, and by which finalizers it is held.
    pub(crate) fn being_deleted(&self) -> impl Iterator<Item = (&Object, String)> {
        let kinds = [
            Kind::PersistentVolumeClaim,
            Kind::PersistentVolume,
            Kind::VolumeAttachment,
            Kind::Pod,
            Kind::VolumeSnapshot,
            Kind::VolumeSnapshotContent,
        ];
        let objects = kinds.into_iter().flat_map(|kind| self.api.objects(kind));
        let deleting = objects.filter(|object| fields::is_deleting(object.meta()));
        deleting.map(|object| {
            let by = fields::finalizers(object.meta());
            let by = if by.is_empty() {
                "nobody".to_owned()
            } else {
                by.join(", ")
            };
            (object, by)
        })
    }
}

/// Mounts, devices and kubelet's records of what no pod of the node uses.
fn on_machine(node: &str, machine: &Machine, used: Option<&Used<'_>>, left: &mut Vec<String>) {
    let none = Used::default();
    let used = used.unwrap_or(&none);
    let inventory = machine.inventory();
    let handle_of = |source: &MountSource| {
        let device = source.device()?;
        let found = inventory.devices.iter().find(|(path, ..)| path == device);
        found.map(|(_, _, volume)| volume.as_str())
    };
    for mount in &inventory.mounts {
        let target = mount.target.as_str();
        let pod = target
            .strip_prefix("/var/lib/kubelet/pods/")
            .and_then(|rest| rest.split('/').next());
        let wanted = match pod {
            Some(uid) => used.pods.contains(uid),
            None => used.inline || handle_of(&mount.source).is_some_and(|handle| used.handles.contains(handle)),
        };
        if !wanted {
            left.push(format!("the mount {target} on {node}"));
        }
    }
    for (device, _, volume) in &inventory.devices {
        if !used.handles.contains(volume.as_str()) && !used.inline {
            left.push(format!("the device {device} of {volume} on {node}"));
        }
    }
    // Kubelet itself leaves the bare directory behind where a driver does not stage; with its record beside it, it was staged. After a reboot it leaves
    // that record, too, where no pod's directory leads to it.
    if used.handles.is_empty() && machine.boots() == 1 {
        let records = machine.staging_records().into_iter();
        left.extend(records.map(|path| format!("the staging record {path} on {node}")));
    }
}
