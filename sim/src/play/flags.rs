//! From the flags of a scenario to those of the processes.

use crate::scenario::flags as given;
use crate::sidecars;

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
    }
}
