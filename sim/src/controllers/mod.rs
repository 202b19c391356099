//! The controllers of kube-controller-manager and kube-scheduler, each under its Kubernetes name.

pub mod attach_detach;
pub mod binder;
pub mod scheduler;
