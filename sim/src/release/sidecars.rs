//! What is built into the sidecars that are current with a release. What they take as flags stands beside each of them, with its default.

use std::time::Duration;

/// The sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecars {
    /// How long the first connect to a driver may take. Source: csi-lib-utils `connection/connection.go`.
    pub connect_limit: Duration,
    /// Between two attempts to connect. Source: gRPC's first back-off.
    pub connect_pause: Duration,
    /// Between two probes of a driver that is not ready. Source: csi-lib-utils `rpc/common.go`.
    pub probe_pause: Duration,
    /// The deadline of external-attacher's questions at its start, after the probe. Source: its `cmd/csi-attacher/main.go`.
    pub attacher_question_timeout: Duration,
    /// How long external-provisioner leaves an infeasible claim alone: the library's default, whatever `--retry-interval-max` says.
    /// Source: sig-storage-lib-external-provisioner `controller/controller.go`.
    pub infeasible_retention: Duration,
    /// DeleteVolume calls of external-provisioner for a new volume that is of no use, within one deadline. Source: its `pkg/controller/controller.go`.
    pub cleanup_attempts: u32,
    /// Workers of external-provisioner for volumes that could not be saved. Source: the same library.
    pub save_workers: usize,
}

impl Sidecars {
    pub(super) const V1_36: Sidecars = Sidecars {
        connect_limit: Duration::from_secs(30),
        connect_pause: Duration::from_secs(1),
        probe_pause: Duration::from_secs(1),
        attacher_question_timeout: Duration::from_secs(1),
        infeasible_retention: Duration::from_secs(300),
        cleanup_attempts: 5,
        save_workers: 4,
    };
}
