//! wavetank: a deterministic Kubernetes storage cluster around a real CSI driver.

pub mod api;
pub mod cluster;
pub mod control;
pub mod controllers;
pub mod host;
pub mod link;
pub mod runtime;
pub mod scenario;
pub mod sidecars;
pub mod trace;
