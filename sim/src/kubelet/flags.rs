//! What can be set on a kubelet. What is built into it stands in `release/kubelet.rs`.

use std::time::Duration;

use crate::mutants::Wrong;
pub use crate::release::Kubelet as Constants;

/// Flags and configuration fields of kubelet by their real names, with the defaults of v1.36.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// `--root-dir`: where pods and plugins keep their files.
    pub root_dir: String,
    /// `--register-node`: create the Node object.
    pub register_node: bool,
    /// `--node-labels`, besides the ones that kubelet sets itself.
    pub node_labels: Vec<(String, String)>,
    /// `--node-ip`, if it is to be seen in pods.
    pub node_ip: Option<String>,
    /// `nodeStatusUpdateFrequency`: between two node status rounds, jittered by up to 4 %.
    pub node_status_update_frequency: Duration,
    /// `syncFrequency`: between two syncs of a pod to which nothing happens, times 1.0 to 1.5.
    pub sync_frequency: Duration,
    /// `volumeStatsAggPeriod`: between two statistics of a pod's volumes, times 1.0 to 2.0.
    pub volume_stats_agg_period: Duration,
    /// A mistake that it is to make. `None`: none.
    pub wrong: Option<Wrong>,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            root_dir: String::from("/var/lib/kubelet"),
            register_node: true,
            node_labels: Vec::new(),
            node_ip: None,
            node_status_update_frequency: Duration::from_secs(10),
            sync_frequency: Duration::from_secs(60),
            volume_stats_agg_period: Duration::from_secs(60),
            wrong: None,
        }
    }
}
