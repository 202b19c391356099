//! The persistent volume controller.

pub mod affinity;
pub mod matching;
