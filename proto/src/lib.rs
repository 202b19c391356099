//! CSI v1.12 and kubelet plugin registration.
