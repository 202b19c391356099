//! What changes from one Kubernetes release to the next and is neither a flag nor an API: periods, waits, back-offs and limits, with where they come from. One value per release,
//! so that a second release is data.
//!
//! Not here: what can be set on a command line (the `Flags` beside each component, with their defaults), and how long things take in this tank
//! (`cluster/latency.rs`).
//!
//! Where to go next: a component that needs its numbers as a whole is given them ([`Kubelet`], [`AttachDetach`]); the others look at [`RELEASE`].

mod api;
mod controllers;
mod kubelet;
mod sidecars;

pub use api::{ApiServer, Events, Operations, WorkQueue};
pub use controllers::{AttachDetach, Nodes, Polling, Scheduler};
pub use kubelet::Kubelet;
pub use sidecars::Sidecars;

/// The numbers of a release.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// Its version.
    pub version: &'static str,
    /// The API server.
    pub api_server: ApiServer,
    /// Work queues of controllers.
    pub work_queue: WorkQueue,
    /// Operations of controllers that are refused while they back off.
    pub operations: Operations,
    /// The event recorder.
    pub events: Events,
    /// The attach-detach controller.
    pub attach_detach: AttachDetach,
    /// Node lifecycle, taint eviction, pod garbage collection.
    pub nodes: Nodes,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// kubelet.
    pub kubelet: Kubelet,
    /// The sidecars that are current with the release.
    pub sidecars: Sidecars,
}

impl Release {
    /// Kubernetes 1.36.
    pub const V1_36: Release = Release {
        version: "v1.36",
        api_server: ApiServer::V1_36,
        work_queue: WorkQueue::V1_36,
        operations: Operations::V1_36,
        events: Events::V1_36,
        attach_detach: AttachDetach::V1_36,
        nodes: Nodes::V1_36,
        scheduler: Scheduler::V1_36,
        kubelet: Kubelet::V1_36,
        sidecars: Sidecars::V1_36,
    };
}

/// The release that is modelled.
pub const RELEASE: &Release = &Release::V1_36;

#[cfg(test)]
mod tests {
    use super::RELEASE;

    #[test]
    fn numbers_that_mean_the_same_thing_agree() {
        let (operations, kubelet) = (&RELEASE.operations, &RELEASE.kubelet);
        assert_eq!(operations.backoff, kubelet.operation_backoff);
        assert_eq!(operations.backoff_cap, kubelet.operation_backoff_cap);
        assert!(
            kubelet.csi_timeout < kubelet.volume_wait_timeout,
            "a call that hangs ends before the wait for it"
        );
        assert!(RELEASE.api_server.watch_cache_least < RELEASE.api_server.watch_cache_most);
    }
}
