//! The facts that recordings of real clusters have shown, one short story each: their sequences, their numbers, with several seeds.
//!
//! The recordings are of Kubernetes 1.36 with the CSI sidecars of that time around csi-driver-host-path; `docs/fidelity.md` says how they were made. The number in a test's
//! name is that of the fact in their notes. Left out: snapshots (21, 22), which the model does not have.

mod attach;
mod errors;
mod expand;
mod finer;
mod mount;
mod nodes;
mod provision;
mod restart;
mod run;
