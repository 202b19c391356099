//! Periods, waits and back-offs of the controller manager and of the scheduler.

use std::time::Duration;

/// The attach-detach controller. Source: `pkg/controller/volume/attachdetach`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttachDetach {
    /// `ReconcilerLoopPeriod`: the pause between two passes.
    pub reconciler_loop_period: Duration,
    /// `ReconcilerMaxWaitForUnmountDuration`: how long an unhealthy node keeps a volume that nobody wants.
    pub max_wait_for_unmount: Duration,
    /// `DesiredStateOfWorldPopulatorLoopSleepPeriod`: how often the wanted volumes of vanished pods are removed.
    pub populator_period: Duration,
    /// `DesiredStateOfWorldPopulatorListPodsRetryDuration`: how often all pods are looked at again.
    pub list_pods_period: Duration,
    /// How VolumeAttachments are polled.
    pub polling: Polling,
    /// `nodeStatusReportFrequency`: kubelet reports an unchanged status this often.
    pub node_status_report_frequency: Duration,
}

/// How VolumeAttachments are polled. Source: `pkg/volume/csi/csi_attacher.go`.
#[derive(Clone, Debug, PartialEq)]
pub struct Polling {
    /// The first wait.
    pub first: Duration,
    /// Each wait is longer than the one before by this factor.
    pub factor: f64,
    /// No wait is longer.
    pub cap: Duration,
    /// By how much a wait is stretched at random, as a fraction.
    pub jitter: f64,
    /// `watchTimeout`: the operation fails after this long.
    pub limit: Duration,
}

/// The scheduler. Sources: `pkg/scheduler/backend/queue`, `plugins/volumebinding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// Between two looks at the claims in PreBind; the first look comes after one interval.
    pub bind_poll: Duration,
    /// `backoffQOrderingWindowDuration`: ends of back-offs are looked for this often.
    pub backoff_flush: Duration,
}

/// What looks after nodes and what is left of them. Sources: `pkg/controller/nodelifecycle`, `pkg/controller/tainteviction`, `pkg/controller/podgc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Nodes that wait for their NoExecute taint are looked at this often: `scheduler.NodeEvictionPeriod`.
    pub taint_period: Duration,
    /// `scheduler.NodeHealthUpdateRetry`: attempts of a pass to write a node's status.
    pub status_attempts: u32,
    /// `retrySleepTime`: the pause between them.
    pub status_pause: Duration,
    /// `retries` of taint eviction: attempts to delete a pod.
    pub eviction_attempts: u32,
    /// The pause between them.
    pub eviction_pause: Duration,
    /// `gcCheckPeriod` of the pod garbage collector.
    pub gc_period: Duration,
    /// `quarantineTime`: how long a node must be missing before its pods are collected.
    pub gc_quarantine: Duration,
}

impl Nodes {
    pub(super) const V1_36: Nodes = Nodes {
        taint_period: Duration::from_millis(100),
        status_attempts: 5,
        status_pause: Duration::from_millis(20),
        eviction_attempts: 5,
        eviction_pause: Duration::from_millis(10),
        gc_period: Duration::from_secs(20),
        gc_quarantine: Duration::from_secs(40),
    };
}

impl AttachDetach {
    pub(super) const V1_36: AttachDetach = AttachDetach {
        reconciler_loop_period: Duration::from_millis(100),
        max_wait_for_unmount: Duration::from_secs(360),
        populator_period: Duration::from_secs(60),
        list_pods_period: Duration::from_secs(180),
        polling: Polling {
            first: Duration::from_millis(500),
            factor: 1.05,
            cap: Duration::from_secs(7),
            jitter: 0.1,
            limit: Duration::from_secs(120),
        },
        node_status_report_frequency: Duration::from_secs(300),
    };
}

impl Default for AttachDetach {
    fn default() -> AttachDetach {
        super::RELEASE.attach_detach.clone()
    }
}

impl Default for Polling {
    fn default() -> Polling {
        super::RELEASE.attach_detach.polling.clone()
    }
}

impl Scheduler {
    pub(super) const V1_36: Scheduler = Scheduler {
        bind_poll: Duration::from_secs(1),
        backoff_flush: Duration::from_secs(1),
    };
}
