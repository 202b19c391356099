//! Exploration: strategies choose what strikes, campaigns play many storms, violations are shrunk and written down as replay files.
//!
//! A strategy is a [`Chooser`](crate::faults::Chooser): it knows sites and menus, and nothing of Kubernetes.
