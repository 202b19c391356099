//! Where kubelet keeps what it knows of volumes on its node (fact sheet 6.2), and the metadata files that outlive it.
//!
//! File-system staging is keyed by driver and handle, everything of block volumes by the name of the PersistentVolume.

use serde::{Deserialize, Serialize};

use super::volume::{PodRef, VolumeSpec};
use crate::api::names;

/// The plugin's name as a directory.
pub const PLUGIN_DIR: &str = "kubernetes.io~csi";
/// The metadata file.
pub const RECORD_FILE: &str = "vol_data.json";

/// The directories below `--root-dir`.
#[derive(Clone, Copy, Debug)]
pub struct Paths<'a> {
    root: &'a str,
}

impl<'a> Paths<'a> {
    /// The directories below this root.
    pub fn new(root: &'a str) -> Paths<'a> {
        Paths { root }
    }

    /// All pods.
    pub fn pods(self) -> String {
        format!("{}/pods", self.root)
    }

    /// One pod.
    pub fn pod(self, uid: &str) -> String {
        format!("{}/pods/{uid}", self.root)
    }

    /// The file-system volumes of a pod.
    pub fn pod_volumes(self, uid: &str) -> String {
        format!("{}/volumes/{PLUGIN_DIR}", self.pod(uid))
    }

    /// The block volumes of a pod: one link each.
    pub fn pod_devices(self, uid: &str) -> String {
        format!("{}/volumeDevices/{PLUGIN_DIR}", self.pod(uid))
    }

    /// One file-system volume of a pod: the parent of its target, with the metadata file.
    pub fn pod_volume(self, uid: &str, name: &str) -> String {
        format!("{}/{}", self.pod_volumes(uid), escape(name))
    }

    /// The link of one block volume of a pod.
    pub fn pod_device(self, uid: &str, name: &str) -> String {
        format!("{}/{}", self.pod_devices(uid), escape(name))
    }

    /// Where the driver publishes a volume for a pod.
    pub fn target(self, spec: &VolumeSpec, pod: &PodRef) -> String {
        if spec.block {
            format!("{}/publish/{}/{}", self.devices(), spec.name, pod.uid)
        } else {
            format!("{}/mount", self.pod_volume(&pod.uid, &spec.name))
        }
    }

    /// Where the driver stages a volume.
    pub fn staging(self, spec: &VolumeSpec) -> String {
        if spec.block {
            format!("{}/staging/{}", self.devices(), spec.name)
        } else {
            format!("{}/globalmount", self.staging_parent(spec))
        }
    }

    /// The parent of a file-system staging directory, with the metadata file.
    pub fn staging_parent(self, spec: &VolumeSpec) -> String {
        let hash = names::sha256_hex(&[&spec.handle]);
        format!("{}/plugins/kubernetes.io/csi/{}/{hash}", self.root, spec.driver)
    }

    /// Where the published devices of a block volume lie, one per pod.
    pub fn device_publish_dir(self, name: &str) -> String {
        format!("{}/publish/{name}", self.devices())
    }

    /// The directory that keeps everything of a block volume but what the driver makes.
    pub fn device_dir(self, name: &str) -> String {
        format!("{}/{name}", self.devices())
    }

    /// The map of a block volume: one entry per pod.
    pub fn device_map(self, name: &str) -> String {
        format!("{}/dev", self.device_dir(name))
    }

    /// The directory of a block volume's metadata file.
    pub fn device_data(self, name: &str) -> String {
        format!("{}/data", self.device_dir(name))
    }

    /// What statistics of a volume are asked about.
    pub fn stats(self, spec: &VolumeSpec, pod: &PodRef) -> String {
        if spec.block {
            format!("{}/{}", self.device_map(&spec.name), pod.uid)
        } else {
            self.target(spec, pod)
        }
    }

    fn devices(self) -> String {
        format!("{}/plugins/kubernetes.io/csi/volumeDevices", self.root)
    }
}

/// The metadata file of a directory.
pub fn record_in(directory: &str) -> String {
    format!("{directory}/{RECORD_FILE}")
}

/// A volume's name as a directory.
pub fn escape(name: &str) -> String {
    name.replace('/', "~")
}

/// A volume's name out of a directory's.
pub fn unescape(directory: &str) -> String {
    directory.replace('~', "/")
}

/// The contents of a metadata file. Written with create-truncate, neither synced nor renamed: a power loss can leave it empty or torn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeRecord {
    /// The name of the PersistentVolume or of the inline volume; absent beside a staging directory.
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub spec_vol_id: String,
    /// The handle.
    pub volume_handle: String,
    /// The driver.
    pub driver_name: String,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// The name of the VolumeAttachment.
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub attachment_id: String,
    /// `Persistent` or `Ephemeral`; absent for block volumes and beside a staging directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_lifecycle_mode: String,
}

impl VolumeRecord {
    /// What lies beside a staging directory.
    pub fn of_staging(spec: &VolumeSpec) -> VolumeRecord {
        VolumeRecord {
            volume_handle: spec.handle.clone(),
            driver_name: spec.driver.to_string(),
            ..VolumeRecord::default()
        }
    }

    /// What lies beside a target, or in a block volume's directory.
    pub fn of_target(spec: &VolumeSpec, node: &str) -> VolumeRecord {
        let lifecycle = match (spec.block, spec.is_inline()) {
            (true, _) => "",
            (false, true) => "Ephemeral",
            (false, false) => "Persistent",
        };
        VolumeRecord {
            spec_vol_id: spec.name.clone(),
            node_name: node.to_owned(),
            attachment_id: names::attachment_name(&spec.driver, &spec.handle, node),
            volume_lifecycle_mode: lifecycle.to_owned(),
            ..VolumeRecord::of_staging(spec)
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings always serialise")
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, for people. A file that names no driver or no volume is damaged, too.
    pub fn decode(bytes: &[u8]) -> Result<VolumeRecord, String> {
        let record: VolumeRecord = serde_json::from_slice(bytes).map_err(|e| format!("{RECORD_FILE}: {e}"))?;
        if record.driver_name.is_empty() || record.volume_handle.is_empty() {
            return Err(format!("{RECORD_FILE}: driverName or volumeHandle is missing"));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::{Paths, VolumeRecord, escape, unescape};
    use crate::kubelet::testing::{block_volume, pod, volume};
    use crate::kubelet::volume::PodRef;

    const ROOT: Paths<'static> = Paths {
        root: "/var/lib/kubelet",
    };

    #[test]
    fn file_systems_are_staged_by_handle_and_blocks_by_name() {
        // Traces 03 and 16.
        let spec = volume("pvc-1", "ed53d0af-e51c-11f1-8f70-02524b5e115c");
        assert_eq!(
            ROOT.staging(&spec),
            "/var/lib/kubelet/plugins/kubernetes.io/csi/hostpath.csi.k8s.io/\
             08806679b99e169f5f587a767a17cbe3c4b8a00f660714ad56e8639194e895f7/globalmount"
        );
        let block = block_volume("pvc-1", "h");
        assert_eq!(
            ROOT.staging(&block),
            "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/staging/pvc-1"
        );
        let pod = PodRef::of(&pod("web", "u-1"));
        assert_eq!(
            ROOT.target(&block, &pod),
            "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/u-1"
        );
        assert_eq!(
            ROOT.stats(&block, &pod),
            "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pvc-1/dev/u-1"
        );
        assert_eq!(
            ROOT.target(&spec, &pod),
            "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/pvc-1/mount"
        );
    }

    #[test]
    fn records_have_the_keys_of_their_place() {
        // Fact sheet 6.2.
        let spec = volume("pvc-1", "h");
        let staging = String::from_utf8(VolumeRecord::of_staging(&spec).encode()).unwrap();
        assert_eq!(staging, r#"{"volumeHandle":"h","driverName":"hostpath.csi.k8s.io"}"#);
        let target = VolumeRecord::of_target(&spec, "node-a");
        assert_eq!(target.volume_lifecycle_mode, "Persistent");
        assert!(target.attachment_id.starts_with("csi-"));
        assert_eq!(VolumeRecord::decode(&target.encode()), Ok(target));
        assert_eq!(
            VolumeRecord::of_target(&block_volume("b", "h"), "n").volume_lifecycle_mode,
            ""
        );
    }

    #[test]
    fn a_torn_record_is_an_error() {
        // Appendix D, 12.
        let whole = VolumeRecord::of_target(&volume("pvc-1", "h"), "node-a").encode();
        for cut in 0..whole.len() {
            assert!(VolumeRecord::decode(&whole[..cut]).is_err(), "cut after {cut} bytes");
        }
        assert!(VolumeRecord::decode(b"{}").is_err());
    }

    #[test]
    fn slashes_do_not_make_directories() {
        assert_eq!(escape("a/b"), "a~b");
        assert_eq!(unescape(&escape("a/b")), "a/b");
    }
}
