//! kubelet's periods, waits and back-offs. Sources: `pkg/kubelet/kubelet.go`, `pkg/kubelet/volumemanager`, `pkg/kubelet/pluginmanager`,
//! `pkg/volume/csi`, `pkg/volume/util/operationexecutor`, unless a field names another.

use std::time::Duration;

/// What is built into a kubelet, and durations of what is not modelled, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Pause between two reconciler passes (100 ms), and what a pass itself takes: recorded retries are multiples of this sum (trace 21e).
    pub reconciler_period: Duration,
    /// Between two populator passes: `desiredStateOfWorldPopulatorLoopSleepPeriod`.
    pub populator_period: Duration,
    /// `podAttachAndMountRetryInterval`: how often a pod worker looks whether its volumes are mounted, or gone.
    pub volume_wait_interval: Duration,
    /// `podAttachAndMountTimeout`: after this a pod worker gives up and tries again later.
    pub volume_wait_timeout: Duration,
    /// How often a finished pod's directories are looked at.
    pub volume_paths_interval: Duration,
    /// `csiTimeout`: the context of one whole SetUp, MountDevice, TearDown, UnmountDevice, NodeExpand, NodeGetInfo or NodeGetVolumeStats.
    pub csi_timeout: Duration,
    /// Each CSI call is a new connection: what dialling takes (recorded: retries of NodeStage come after 6, 11 and 21 passes, of NodeUnpublish after 5, 10, 20).
    pub dial: Duration,
    /// First back-off of a failing volume operation: `exponentialbackoff.initialDurationBeforeRetry`.
    pub operation_backoff: Duration,
    /// Longest back-off of a failing volume operation: `exponentialbackoff.maxDurationBeforeRetry`.
    pub operation_backoff_cap: Duration,
    /// `backOffPeriod`: a failed pod sync waits this long, times 1.0 to 1.5.
    pub pod_backoff: Duration,
    /// PLEG relist (1 s): no pod syncs twice without one in between. A relist takes a few milliseconds itself.
    pub pleg_period: Duration,
    /// `housekeepingPeriod`: left-over pods and directories.
    pub housekeeping_period: Duration,
    /// `loopSleepDuration` of the plugin manager's reconciler.
    pub plugin_period: Duration,
    /// `GetInfo` of a plugin socket.
    pub plugin_info_timeout: Duration,
    /// `nodeStatusUpdateRetry`: attempts of one node status round.
    pub node_status_attempts: u32,
    /// `updateBackoff.Steps` of nodeinfomanager: attempts of one write of Node or CSINode.
    pub csinode_attempts: u32,
    /// First pause between these attempts; five times as long each time.
    pub csinode_pause: Duration,
    /// From the start of the process until its loops run (recorded: 0.33 to 0.44 s); up to a quarter more is drawn.
    pub startup: Duration,
    /// From there until the first regular node status round and the registration of the Node.
    pub registration_delay: Duration,
    /// The longest pause before another try to register; the first is twice `registration_delay`, each the double of the one before.
    pub registration_cap: Duration,
    /// `WaitForAPIServerSyncPeriod`: from there until the first pods are seen.
    pub pod_source_delay: Duration,
    /// Setting up the sandbox of a pod (recorded: 0.10 to 0.24 s).
    pub sandbox: Duration,
    /// First back-off of a restarting container.
    pub container_backoff: Duration,
    /// Longest back-off of a restarting container.
    pub container_backoff_cap: Duration,
    /// `syncPeriod` of the status manager: how often everything that could not be written is tried again.
    pub status_retry: Duration,
}

impl Kubelet {
    pub(super) const V1_36: Kubelet = Kubelet {
        reconciler_period: Duration::from_micros(100_600),
        populator_period: Duration::from_millis(100),
        volume_wait_interval: Duration::from_millis(300),
        volume_wait_timeout: Duration::from_secs(123),
        volume_paths_interval: Duration::from_millis(100),
        csi_timeout: Duration::from_secs(120),
        dial: Duration::from_millis(2),
        operation_backoff: Duration::from_millis(500),
        operation_backoff_cap: Duration::from_secs(122),
        pod_backoff: Duration::from_secs(10),
        pleg_period: Duration::from_millis(1004),
        housekeeping_period: Duration::from_secs(2),
        plugin_period: Duration::from_secs(1),
        plugin_info_timeout: Duration::from_secs(1),
        node_status_attempts: 5,
        csinode_attempts: 4,
        csinode_pause: Duration::from_millis(10),
        startup: Duration::from_millis(360),
        registration_delay: Duration::from_millis(100),
        registration_cap: Duration::from_secs(7),
        pod_source_delay: Duration::from_secs(1),
        sandbox: Duration::from_millis(140),
        container_backoff: Duration::from_secs(10),
        container_backoff_cap: Duration::from_secs(300),
        status_retry: Duration::from_secs(10),
    };
}

impl Default for Kubelet {
    fn default() -> Kubelet {
        super::RELEASE.kubelet.clone()
    }
}
