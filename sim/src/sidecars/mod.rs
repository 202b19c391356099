//! The sidecars: processes that stand beside a driver and act on API objects for it. Each is one [`Controller`](crate::control::Controller) with a key per
//! queue, so that what the process learnt from the driver at its start is one memory.

pub mod attacher;
#[cfg(test)]
mod bench;
pub mod capability;
pub mod connect;
pub mod provisioner;
#[cfg(test)]
mod recorded;
pub mod registrar;
pub mod resizer;
pub mod secret;
