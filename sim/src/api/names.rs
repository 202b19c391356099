//! Annotations, labels, finalizers and topology keys that Kubernetes and its sidecars agree on.

use sha2::{Digest, Sha256};

/// Finalizer of a claim that pods may use; set by admission, removed by the claim protection controller.
pub const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Finalizer of a volume that may be bound; set by admission, removed by the volume protection controller.
pub const PV_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Finalizer of a volume attributes class that may be referenced.
pub const VAC_PROTECTION: &str = "kubernetes.io/vac-protection";
/// Finalizer of in-tree provisioned volumes.
pub const PV_CONTROLLER: &str = "kubernetes.io/pv-controller";
/// Finalizer that the external-provisioner keeps on a volume until the driver has deleted it.
pub const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// Finalizer on the source claim of a clone in progress.
pub const CLONING_PROTECTION: &str = "provisioner.storage.kubernetes.io/cloning-protection";
/// Finalizer on a snapshot that is being restored.
pub const VOLUME_SNAPSHOT_RESTORE: &str = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// What stands before the driver's name in the external-attacher's finalizer.
pub const ATTACHER_FINALIZER_PREFIX: &str = "external-attacher/";
/// Finalizer on the claim that a snapshot is cut from.
pub const SNAPSHOT_SOURCE_CLAIM: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// Finalizer on every snapshot.
pub const SNAPSHOT_AS_SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// Finalizer on a snapshot with a content of policy Delete.
pub const SNAPSHOT_BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// Finalizer on a snapshot content.
pub const SNAPSHOT_CONTENT_BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";

/// On a claim, `yes`: binding finished.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume, `yes`: this side's pointer was set by the controller.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node that the scheduler chose; triggers provisioning of a WaitForFirstConsumer claim.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who shall provision it.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// On a claim: who shall provision it, the old spelling that is still written.
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: who resizes it; only for migrated volumes.
pub const STORAGE_RESIZER: &str = "volume.kubernetes.io/storage-resizer";
/// On a volume: who provisioned it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a volume or claim: the CSI driver that took over from an in-tree plugin.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// On a volume: the claim's capacity before an expansion that a node has not finished.
pub const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
/// On a claim: the node need not expand.
pub const NODE_EXPANSION_NOT_REQUIRED: &str = "volume.kubernetes.io/node-expansion-not-required";
/// On a claim or volume: its class, the old spelling that still wins over the field.
pub const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// On a class, `true`: the default class.
pub const IS_DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// On a class, `true`: the default class, the old spelling.
pub const BETA_IS_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// On a volume: the secret for DeleteVolume.
pub const DELETION_SECRET_NAME: &str = "volume.kubernetes.io/provisioner-deletion-secret-name";
/// On a volume: the namespace of the secret for DeleteVolume.
pub const DELETION_SECRET_NAMESPACE: &str = "volume.kubernetes.io/provisioner-deletion-secret-namespace";
/// On a volume: the secret for ControllerModifyVolume.
pub const MODIFY_SECRET_NAME: &str = "volume.kubernetes.io/controller-modify-secret-name";
/// On a volume: the namespace of the secret for ControllerModifyVolume.
pub const MODIFY_SECRET_NAMESPACE: &str = "volume.kubernetes.io/controller-modify-secret-namespace";
/// On an attachment: the driver's id of the node, for detaching after the node is gone.
pub const ATTACHMENT_NODE_ID: &str = "csi.alpha.kubernetes.io/node-id";
/// On a node: a JSON map from driver to the driver's id of the node.
pub const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
/// On a node, `true`: the attach-detach controller attaches, not kubelet.
pub const CONTROLLER_MANAGED_ATTACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// On a CSINode: the in-tree plugins that were migrated.
pub const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// On a snapshot content, `yes`: CreateSnapshot is under way.
pub const SNAPSHOT_BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
/// On a snapshot content, `yes`: its snapshot is being deleted.
pub const SNAPSHOT_BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// On a snapshot content: the secret for DeleteSnapshot.
pub const SNAPSHOT_DELETION_SECRET_NAME: &str = "snapshot.storage.kubernetes.io/deletion-secret-name";
/// On a snapshot content: the namespace of the secret for DeleteSnapshot.
pub const SNAPSHOT_DELETION_SECRET_NAMESPACE: &str = "snapshot.storage.kubernetes.io/deletion-secret-namespace";
/// On a snapshot content: a restore may change the volume mode.
pub const ALLOW_VOLUME_MODE_CHANGE: &str = "snapshot.storage.kubernetes.io/allow-volume-mode-change";
/// On a snapshot class, `true`: the driver's default.
pub const IS_DEFAULT_SNAPSHOT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// Label of a node: its name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Label of a node: its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a node: its region.
pub const REGION: &str = "topology.kubernetes.io/region";

/// Taint of a node whose kubelet says that it is not ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node whose kubelet is silent.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taint by which an operator vouches that a node is really down.
pub const TAINT_OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The finalizer of the external-attacher for a driver.
pub fn attacher_finalizer(driver: &str) -> String {
    let sane = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    ATTACHER_FINALIZER_PREFIX
        .chars()
        .chain(driver.chars().map(sane))
        .collect()
}

/// The name by which kubelet and the attach-detach controller call a CSI volume.
pub fn unique_volume_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// Driver and handle, read off such a name; `None` for a volume that is not CSI's.
pub fn driver_and_handle(unique_name: &str) -> Option<(&str, &str)> {
    unique_name.strip_prefix("kubernetes.io/csi/")?.split_once('^')
}

/// The name of the attachment of a CSI volume to a node.
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    format!("csi-{}", sha256_hex(&[handle, driver, node]))
}

/// SHA-256 of the parts one after the other, in hexadecimal: how Kubernetes makes names of things that are no names.
pub fn sha256_hex(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part.as_bytes()));
    let digits = hasher.finalize();
    let digits = digits.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{attacher_finalizer, attachment_name, sha256_hex};

    #[test]
    fn an_attachment_is_named_after_handle_driver_and_node() {
        // Recorded in trace 03.
        assert_eq!(
            attachment_name("hostpath.csi.k8s.io", "ed53d0af-e51c-11f1-8f70-02524b5e115c", "node-a"),
            "csi-7b87a0e6995be3364b8667e5b6ffa3bbe3d36cf207f02d7c2a5b89f649c1b469"
        );
        assert_eq!(
            sha256_hex(&["ed53d0af-e51c-11f1-8f70-02524b5e115c"]),
            "08806679b99e169f5f587a767a17cbe3c4b8a00f660714ad56e8639194e895f7",
            "the staging directory of that volume"
        );
    }

    #[test]
    fn the_attachers_finalizer_replaces_what_a_name_may_not_hold() {
        assert_eq!(
            attacher_finalizer("hostpath.csi.k8s.io"),
            "external-attacher/hostpath-csi-k8s-io"
        );
    }
}
