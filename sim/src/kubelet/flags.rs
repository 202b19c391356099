//! What can be set on a kubelet, and what is built into it.

use std::time::Duration;

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
        }
    }
}

/// Constants of kubelet that are not flags (fact sheet 6.1), and durations of what is not modelled, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constants {
    /// Pause between two reconciler passes, and what a pass itself takes: recorded retries are multiples of this sum (trace 21e).
    pub reconciler_period: Duration,
    /// Between two populator passes.
    pub populator_period: Duration,
    /// `podAttachAndMountRetryInterval`: how often a pod worker looks whether its volumes are mounted, or gone.
    pub volume_wait_interval: Duration,
    /// `podAttachAndMountTimeout`: after this a pod worker gives up and tries again later.
    pub volume_wait_timeout: Duration,
    /// How often a finished pod's directories are looked at.
    pub volume_paths_interval: Duration,
    /// The context of one whole SetUp, MountDevice, TearDown, UnmountDevice, NodeExpand, NodeGetInfo or NodeGetVolumeStats.
    pub csi_timeout: Duration,
    /// Each CSI call is a new connection: what dialling takes (recorded: retries of NodeStage come after 6, 11 and 21 passes, of NodeUnpublish after 5, 10, 20).
    pub dial: Duration,
    /// First back-off of a failing volume operation.
    pub operation_backoff: Duration,
    /// Longest back-off of a failing volume operation.
    pub operation_backoff_cap: Duration,
    /// A failed pod sync waits this long, times 1.0 to 1.5.
    pub pod_backoff: Duration,
    /// PLEG relist: no pod syncs twice without one in between. A relist takes a few milliseconds itself.
    pub pleg_period: Duration,
    /// Housekeeping: left-over pods and directories.
    pub housekeeping_period: Duration,
    /// The plugin manager's reconciler.
    pub plugin_period: Duration,
    /// `GetInfo` of a plugin socket.
    pub plugin_info_timeout: Duration,
    /// Attempts of one node status round.
    pub node_status_attempts: u32,
    /// Attempts of one write of Node or CSINode, the pause before the second and its factor.
    pub csinode_attempts: u32,
    /// First pause between these attempts; five times as long each time.
    pub csinode_pause: Duration,
    /// From the start of the process until its loops run (recorded: 0.33 to 0.44 s); up to a quarter more is drawn.
    pub startup: Duration,
    /// From there until the first regular node status round and the registration of the Node.
    pub registration_delay: Duration,
    /// `WaitForAPIServerSyncPeriod`: from there until the first pods are seen.
    pub pod_source_delay: Duration,
    /// Setting up the sandbox of a pod (recorded: 0.10 to 0.24 s).
    pub sandbox: Duration,
    /// First back-off of a restarting container.
    pub container_backoff: Duration,
    /// Longest back-off of a restarting container.
    pub container_backoff_cap: Duration,
}

impl Default for Constants {
    fn default() -> Constants {
        let millis = Duration::from_millis;
        Constants {
            reconciler_period: Duration::from_micros(100_600),
            populator_period: millis(100),
            volume_wait_interval: millis(300),
            volume_wait_timeout: Duration::from_secs(123),
            volume_paths_interval: millis(100),
            csi_timeout: Duration::from_secs(120),
            dial: millis(2),
            operation_backoff: millis(500),
            operation_backoff_cap: Duration::from_secs(122),
            pod_backoff: Duration::from_secs(10),
            pleg_period: millis(1004),
            housekeeping_period: Duration::from_secs(2),
            plugin_period: Duration::from_secs(1),
            plugin_info_timeout: Duration::from_secs(1),
            node_status_attempts: 5,
            csinode_attempts: 4,
            csinode_pause: millis(10),
            startup: millis(360),
            registration_delay: millis(100),
            pod_source_delay: Duration::from_secs(1),
            sandbox: millis(140),
            container_backoff: Duration::from_secs(10),
            container_backoff_cap: Duration::from_secs(300),
        }
    }
}
