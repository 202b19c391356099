//! From the flags of a scenario to those of the processes.

use std::time::Duration;

use crate::scenario::{NodeShape, flags as given};
use crate::{controllers, sidecars};

/// The provisioner's.
pub(super) fn provisioner(flags: &given::ProvisionerFlags) -> sidecars::provisioner::Flags {
    sidecars::provisioner::Flags {
        timeout: flags.timeout.get(),
        retry_interval_start: flags.retry_interval_start.get(),
        retry_interval_max: flags.retry_interval_max.get(),
        worker_threads: flags.worker_threads as usize,
        volume_name_prefix: flags.volume_name_prefix.clone(),
        volume_name_uuid_length: i64::from(flags.volume_name_uuid_length),
        strict_topology: flags.strict_topology,
        immediate_topology: flags.immediate_topology,
        default_fstype: flags.default_fstype.clone(),
        extra_create_metadata: flags.extra_create_metadata,
        controller_publish_readonly: flags.controller_publish_readonly,
        prevent_volume_mode_conversion: flags.prevent_volume_mode_conversion,
        enable_capacity: flags.enable_capacity,
        capacity_poll_interval: flags.capacity_poll_interval.get(),
        capacity_threads: flags.capacity_threads as usize,
        capacity_for_immediate_binding: flags.capacity_for_immediate_binding,
        cloning_protection_threads: flags.cloning_protection_threads as usize,
        snapshot_orphan_sweep_interval: flags.snapshot_orphan_sweep_interval.get(),
        kube_api_qps: flags.kube_api_qps,
        kube_api_burst: flags.kube_api_burst,
        feature_gates: flags.feature_gates.clone(),
        wrong: None,
    }
}

/// The attacher's.
pub(super) fn attacher(flags: &given::AttacherFlags) -> sidecars::attacher::Flags {
    sidecars::attacher::Flags {
        timeout: flags.timeout.get(),
        worker_threads: flags.worker_threads as usize,
        resync: flags.resync.get(),
        reconcile_sync: flags.reconcile_sync.get(),
        retry_interval_start: flags.retry_interval_start.get(),
        retry_interval_max: flags.retry_interval_max.get(),
        max_entries: i32::try_from(flags.max_entries).unwrap_or(i32::MAX),
        default_fstype: flags.default_fstype.clone(),
        kube_api_qps: flags.kube_api_qps,
        kube_api_burst: flags.kube_api_burst,
        wrong: None,
    }
}

/// The resizer's.
pub(super) fn resizer(flags: &given::ResizerFlags) -> sidecars::resizer::Flags {
    sidecars::resizer::Flags {
        timeout: flags.timeout.get(),
        workers: flags.workers as usize,
        retry_interval_start: flags.retry_interval_start.get(),
        retry_interval_max: flags.retry_interval_max.get(),
        handle_volume_inuse_error: flags.handle_volume_inuse_error,
        extra_modify_metadata: flags.extra_modify_metadata,
        kube_api_qps: flags.kube_api_qps,
        kube_api_burst: flags.kube_api_burst,
        feature_gates: flags.feature_gates.clone(),
        wrong: None,
    }
}

/// The attach-detach controller's.
pub(super) fn attach_detach(flags: &given::ControllerManagerFlags) -> controllers::attach_detach::Flags {
    controllers::attach_detach::Flags {
        attach_detach_reconcile_sync_period: flags.attach_detach_reconcile_sync_period.get(),
        disable_attach_detach_reconcile_sync: flags.disable_attach_detach_reconcile_sync,
        disable_force_detach_on_timeout: flags.disable_force_detach_on_timeout,
        wrong: None,
    }
}

/// The node lifecycle controller's.
pub(super) fn node_lifecycle(flags: &given::ControllerManagerFlags) -> controllers::node_lifecycle::Flags {
    controllers::node_lifecycle::Flags {
        node_monitor_period: flags.node_monitor_period.get(),
        node_monitor_grace_period: flags.node_monitor_grace_period.get(),
        node_startup_grace_period: flags.node_startup_grace_period.get(),
        node_eviction_rate: flags.node_eviction_rate,
        secondary_node_eviction_rate: flags.secondary_node_eviction_rate,
        unhealthy_zone_threshold: flags.unhealthy_zone_threshold,
        large_cluster_size_threshold: flags.large_cluster_size_threshold as usize,
    }
}

/// The scheduler's; it learns from the kubelets how many pods fit.
pub(super) fn scheduler(flags: &given::SchedulerFlags, kubelet: &given::KubeletFlags) -> controllers::scheduler::Flags {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    controllers::scheduler::Flags {
        bind_timeout: seconds(flags.bind_timeout_seconds),
        pod_initial_backoff: seconds(flags.pod_initial_backoff_seconds),
        pod_max_backoff: seconds(flags.pod_max_backoff_seconds),
        pod_max_in_unschedulable_pods_duration: flags.pod_max_in_unschedulable_pods_duration.get(),
        max_pods: kubelet.max_pods as usize,
    }
}

/// The volume controllers'.
pub(super) fn volumes(flags: &given::ControllerManagerFlags) -> controllers::volumes::Flags {
    controllers::volumes::Flags {
        pvclaimbinder_sync_period: flags.pvclaimbinder_sync_period.get(),
        ..controllers::volumes::Flags::default()
    }
}

/// A kubelet's.
pub(super) fn kubelet(flags: &given::KubeletFlags, node: &NodeShape) -> crate::kubelet::Flags {
    let labels = node.labels.iter().map(|(k, v)| (k.clone(), v.clone()));
    crate::kubelet::Flags {
        node_labels: labels.collect(),
        node_status_update_frequency: flags.node_status_update_frequency.get(),
        sync_frequency: flags.sync_frequency.get(),
        volume_stats_agg_period: flags.volume_stats_agg_period.get(),
        ..crate::kubelet::Flags::default()
    }
}

/// A registrar's.
pub(super) fn registrar(flags: &given::RegistrarFlags) -> sidecars::registrar::Flags {
    sidecars::registrar::Flags {
        timeout: flags.timeout.get(),
        kubelet_registration_path: flags.kubelet_registration_path.clone(),
    }
}
