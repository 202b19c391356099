//! The controllers of kube-controller-manager and kube-scheduler, each under its Kubernetes name.

pub mod attach_detach;
#[cfg(test)]
mod bench;
pub mod binder;
pub mod ephemeral;
pub mod expand;
pub mod garbage;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod protection;
pub mod scheduler;
#[cfg(test)]
mod stories;
pub mod taint_eviction;
pub mod volumes;
