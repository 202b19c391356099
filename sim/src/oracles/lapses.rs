//! Where Kubernetes itself loses count of what is attached and used. What it does then is no violation.
//!
//! An attachment is *uncertain*, and the attach-detach controller attaches elsewhere in spite of it, when an attach or detach operation failed (also because
//! the API server did not take the deletion of the VolumeAttachment), or when it starts and no node's status names it (*Source*: Kubernetes 1.36, attach-detach controller: `processVolumeAttachments`, `isMultiAttachForbidden` over
//! `GetNodesForAttachedVolume`; `k8s-storage-facts.md` 4.3, 4.7).
//!
//! A kubelet whose informer stands still takes an old `volumesInUse` of its Node for what it has reported: nothing differs, so nothing is written, and it
//! mounts (*Source*: Kubernetes 1.36, kubelet: `tryUpdateNodeStatus` reads the Node lister first, `markVolumesFromNode`). The attach-detach controller, which
//! reads the Node itself, detaches what is not named there.
//!
//! A kubelet that starts finds volumes by the directories of pods alone. What is staged and not, or not any more, set up for a pod is forgotten, and so is a
//! raw device whose link in the pod's directory is gone, which unmapping removes before it calls the driver (*Source*: Kubernetes 1.36, kubelet:
//! `reconstructVolumes` over `getVolumesFromPodDir`, `GenerateUnmapVolumeFunc`; `k8s-storage-facts.md` 6.8, 6.11). It leaves `volumesInUse`, and is detached
//! as it stands.
//!
//! Kubelet's records are written without a sync, again with each staging and publishing. A power loss can leave one empty. Beside a staging directory: kubelet cannot
//! unstage, says for ever that it uses the volume, and nothing detaches it from a node that is well. In a pod's directory: kubelet does not find the volume, and
//! nobody unpublishes an inline one, which the driver would then delete (*Source*: Kubernetes 1.36, `csiAttacher.UnmountDevice` and `NewUnmounter` over
//! `loadVolumeData`; `k8s-storage-facts.md` 6.2, 6.10, 6.11).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::api::{ObjKey, Object, Write, fields};
use crate::cluster::Cluster;
use crate::host::Machine;
use crate::kubelet::paths::VolumeRecord;
use crate::kubelet::volume::inline_handle;
use crate::link::{MachineAnswer, MachineOp};
use crate::trace::{ProcessChange, Record, What};

/// The attach-detach controller lives here.
const CONTROLLER: &str = "controller-manager";

/// The directories of pods.
const PODS: &str = "/var/lib/kubelet/pods";

/// What Kubernetes has lost count of.
#[derive(Clone, Debug, Default)]
pub struct Lapses {
    /// Attachments that were uncertain since the node's status named them last, by unique name and node.
    uncertain: BTreeSet<(String, String)>,
    /// Nodes whose kubelet has seen nothing new for a while.
    blind: BTreeSet<String>,
    /// What the next kubelet of a node cannot find, by unique name and node, until that node says again that it uses it.
    forgotten: BTreeSet<(String, String)>,
}

impl Lapses {
    /// Learns from one more record.
    pub(super) fn take(&mut self, record: &Record, cluster: &Cluster) {
        match &record.what {
            What::Process(ProcessChange::Killed | ProcessChange::Exited(_)) if *record.process == *CONTROLLER => {
                let all = cluster.api().list::<VolumeAttachment>();
                self.uncertain
                    .extend(all.filter_map(|attachment| unnamed(attachment, cluster)));
            }
            What::Process(ProcessChange::Killed | ProcessChange::Exited(_)) => {
                if let Some(node) = record.process.strip_prefix("kubelet/") {
                    self.forget(node, cluster);
                }
            }
            What::Write {
                write,
                before: Some(Object::VolumeAttachment(attachment)),
                result: Err(_),
            } if *record.process == *CONTROLLER && matches!(&**write, Write::Delete(_)) => {
                self.uncertain.extend(unnamed(attachment, cluster));
            }
            What::Write {
                result: Ok(written), ..
            } => match &written.object {
                Object::VolumeAttachment(attachment) if has_failed(attachment) => {
                    self.uncertain.extend(unnamed(attachment, cluster));
                }
                Object::Node(node) => {
                    let name = fields::name(&node.metadata);
                    self.uncertain.retain(|(volume, at)| at != name || !names(node, volume));
                    let in_use = fields::volumes_in_use(node);
                    let by_kubelet = record.process.starts_with("kubelet/");
                    self.forgotten
                        .retain(|(volume, at)| at != name || !(by_kubelet && in_use.contains(volume)));
                }
                _ => {}
            },
            What::Fault(text) => self.blind.extend(blinded(text).map(str::to_owned)),
            _ => {}
        }
    }

    /// Whether the attach-detach controller does not count on an attachment.
    pub fn is_uncertain(&self, attachment: &VolumeAttachment, cluster: &Cluster) -> bool {
        unnamed(attachment, cluster).is_some_and(|place| has_failed(attachment) || self.uncertain.contains(&place))
    }

    /// Whether a node says that it does not use a volume, and may say so by mistake: its kubelet has forgotten the volume, or takes for reported what it
    /// has not.
    pub fn is_disowned(&self, node: &str, driver: &str, handle: &str, cluster: &Cluster) -> bool {
        let object = cluster.get::<Node>(&ObjKey::cluster(node));
        let place = (unique_name(driver, handle), node.to_owned());
        let mistaken = self.blind.contains(node) || self.forgotten.contains(&place);
        mistaken && object.is_some_and(|node| !fields::volumes_in_use(node).contains(&place.0))
    }

    /// A kubelet died: what will the next one not find?
    fn forget(&mut self, node: &str, cluster: &Cluster) {
        let Some(machine) = cluster.machine(node).filter(|machine| machine.is_up()) else {
            return;
        };
        let paths = machine.paths_below(PODS);
        let found: BTreeSet<String> = paths.iter().filter_map(|(path, _)| reconstructed(path)).collect();
        let here = cluster.api().list::<VolumeAttachment>();
        let here = here.filter(|attachment| attachment.spec.node_name == node);
        let lost = here.filter(|attachment| !found.contains(fields::attachment_volume(attachment)));
        self.forgotten
            .extend(lost.filter_map(|attachment| place(attachment, cluster)));
    }
}

/// Whether an attachment stays for ever: its node says that it uses the volume, and has a staging record that cannot be read.
pub fn is_stuck(attachment: &VolumeAttachment, cluster: &Cluster) -> bool {
    let node = attachment.spec.node_name.as_str();
    let object = cluster.get::<Node>(&ObjKey::cluster(node));
    let uses = |unique: &String| object.is_some_and(|node| fields::volumes_in_use(node).contains(unique));
    let Some(machine) = cluster.machine(node) else {
        return false;
    };
    let torn = |path: String| is_torn(machine, path, cluster);
    place(attachment, cluster).is_some_and(|(unique, _)| uses(&unique))
        && machine.staging_records().into_iter().any(torn)
}

/// Whether nobody finds an inline volume any more: its record in the directory of its pod cannot be read.
pub fn is_lost_inline(handle: &str, cluster: &Cluster) -> bool {
    cluster.machines().any(|(_, machine)| {
        let mut paths = machine.paths_below(PODS).into_iter();
        paths.any(|(path, _)| inline_of(&path).is_some_and(|of| of == handle) && is_torn(machine, path, cluster))
    })
}

/// The handle of the inline volume whose record this would be.
fn inline_of(path: &str) -> Option<String> {
    let (uid, rest) = path.strip_prefix(PODS)?.trim_start_matches('/').split_once('/')?;
    let name = rest
        .strip_prefix("volumes/kubernetes.io~csi/")?
        .strip_suffix("/vol_data.json")?;
    Some(inline_handle(uid, &name.replace('~', "/")))
}

fn is_torn(machine: &Machine, path: String, cluster: &Cluster) -> bool {
    match machine.perform(cluster.now(), &MachineOp::ReadFile(path)) {
        Ok(MachineAnswer::Bytes(bytes)) => VolumeRecord::decode(&bytes).is_err(),
        _ => false,
    }
}

/// Whether a pod waits for a volume that stays on another node for ever.
pub fn waits_for_the_stuck(pod: &Pod, cluster: &Cluster) -> bool {
    let namespace = fields::namespace(&pod.metadata);
    let claims = fields::pod_claims(pod).map(|claim| ObjKey::new(namespace, claim.claim.as_ref()));
    let claims = claims.filter_map(|key| cluster.get::<PersistentVolumeClaim>(&key));
    let volumes: BTreeSet<&str> = claims.map(|claim| fields::claim_volume(claim)).collect();
    cluster.api().list::<VolumeAttachment>().any(|attachment| {
        volumes.contains(fields::attachment_volume(attachment))
            && attachment.spec.node_name != fields::pod_node(pod)
            && is_stuck(attachment, cluster)
    })
}

/// The PersistentVolume that a kubelet finds by this path below the directories of pods.
fn reconstructed(path: &str) -> Option<String> {
    let (place, name) = path.split_once("/kubernetes.io~csi/")?;
    let name = if place.ends_with("/volumeDevices") {
        Some(name)
    } else {
        name.strip_suffix("/vol_data.json")
    };
    name.map(|name| name.replace('~', "/"))
}

/// Of which kubelet a fault says that it sees nothing new, by its node.
fn blinded(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("let kubelet/")?;
    rest.split_once(" see nothing new").map(|(node, _)| node)
}

fn has_failed(attachment: &VolumeAttachment) -> bool {
    let status = attachment.status.as_ref();
    status.is_some_and(|s| s.attach_error.is_some() || s.detach_error.is_some())
}

fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

fn names(node: &Node, volume: &str) -> bool {
    let attached = node.status.as_ref().and_then(|s| s.volumes_attached.as_deref());
    attached
        .unwrap_or_default()
        .iter()
        .any(|attached| attached.name == volume)
}

/// The volume and the node of an attachment.
fn place(attachment: &VolumeAttachment, cluster: &Cluster) -> Option<(String, String)> {
    let volume = cluster.get::<PersistentVolume>(&ObjKey::cluster(fields::attachment_volume(attachment)))?;
    let (driver, handle) = fields::volume_handle(volume)?;
    Some((unique_name(driver, handle), attachment.spec.node_name.clone()))
}

/// The same, if the status of the node does not name it.
fn unnamed(attachment: &VolumeAttachment, cluster: &Cluster) -> Option<(String, String)> {
    let (unique, name) = place(attachment, cluster)?;
    let node = cluster.get::<Node>(&ObjKey::cluster(name.as_str()));
    (!node.is_some_and(|node| names(node, &unique))).then_some((unique, name))
}
