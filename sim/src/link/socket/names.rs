//! Names that differ inside and outside: paths below kubelet's directory, and the driver's name.

use wavetank_proto::csi::v1 as csi;

use crate::link::{CsiReply, CsiRequest};

/// Kubelet's directory as the cluster knows it.
pub const KUBELET: &str = "/var/lib/kubelet";

/// What stands for the node's directory in sentences of a driver: the directory is another one in each run.
const PLACE: &str = "{place}";

/// The directory of one node's kubelet on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Where kubelet's directory really is.
    pub kubelet: String,
    /// The driver's name in the cluster.
    pub inside: String,
}

impl Names {
    /// The path on this machine.
    pub fn outside(&self, path: &str) -> String {
        match path.strip_prefix(KUBELET) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", self.kubelet),
            _ => path.to_owned(),
        }
    }

    /// The path as the cluster knows it.
    pub fn inside(&self, path: &str) -> String {
        match path.strip_prefix(&self.kubelet) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{KUBELET}{rest}"),
            _ => path.to_owned(),
        }
    }

    /// A sentence of the driver, with paths as the cluster knows them, and the same in each run.
    pub fn sentence(&self, text: &str) -> String {
        let text = text.replace(&self.kubelet, KUBELET);
        match self.kubelet.strip_suffix("/kubelet") {
            Some(place) if self.kubelet != KUBELET => text.replace(place, PLACE),
            _ => text,
        }
    }

    /// The request as the driver gets it.
    pub fn request(&self, mut request: CsiRequest) -> CsiRequest {
        let paths: Vec<&mut String> = match &mut request {
            CsiRequest::NodeStageVolume(r) => vec![&mut r.staging_target_path],
            CsiRequest::NodeUnstageVolume(r) => vec![&mut r.staging_target_path],
            CsiRequest::NodePublishVolume(r) => vec![&mut r.staging_target_path, &mut r.target_path],
            CsiRequest::NodeUnpublishVolume(r) => vec![&mut r.target_path],
            CsiRequest::NodeGetVolumeStats(r) => vec![&mut r.volume_path, &mut r.staging_target_path],
            CsiRequest::NodeExpandVolume(r) => vec![&mut r.volume_path, &mut r.staging_target_path],
            _ => Vec::new(),
        };
        for path in paths {
            *path = self.outside(path);
        }
        request
    }

    /// The reply as the cluster gets it.
    pub fn reply(&self, reply: CsiReply) -> CsiReply {
        match reply {
            CsiReply::GetPluginInfo(info) => CsiReply::GetPluginInfo(csi::GetPluginInfoResponse {
                name: self.inside.clone(),
                ..info
            }),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CsiRequest, Names, csi};

    #[test]
    fn paths_of_kubelet_are_told_apart_from_others() {
        let names = Names {
            kubelet: "/tmp/w/0/node-1/kubelet".into(),
            inside: "csi.wavetank.dev".into(),
        };
        let there = "/tmp/w/0/node-1/kubelet/pods/u";
        assert_eq!(names.outside("/var/lib/kubelet/pods/u"), there);
        assert_eq!(names.inside(there), "/var/lib/kubelet/pods/u");
        assert_eq!(names.outside("/var/lib/kubelets"), "/var/lib/kubelets");
        let request = CsiRequest::from(csi::NodeUnpublishVolumeRequest {
            volume_id: "v".into(),
            target_path: "/var/lib/kubelet/pods/u".into(),
        });
        let CsiRequest::NodeUnpublishVolume(sent) = names.request(request) else {
            panic!("another request")
        };
        assert_eq!(sent.target_path, there);
    }
}
