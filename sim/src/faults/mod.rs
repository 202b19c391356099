//! Faults: the trouble that a run may meet, family by family, and where each may strike (the *menu* of a site).
//!
//! A menu holds what an honest driver, honest sidecars and an honest Kubernetes must survive, with a few fixed values, in the order of the families:
//! [`process`], [`node`], [`call`], [`api`], [`storage`], [`clock`], [`device`], [`user`]; at an operation of a driver, [`operation`]. A scenario may pin more than that: other values, and answers that no honest driver gives.
//!
//! Faults only widen what may happen. They know nothing of strategies, and judge nothing. What they do is done in `cluster`.

pub mod api;
pub mod call;
pub mod clock;
pub mod device;
pub mod node;
pub mod operation;
pub mod process;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod user;

use crate::scenario::{PlainPhase, Process};

pub use crate::storm::{Chooser, Fault, Meeting, Strike};

/// What a menu depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot<'a> {
    /// Whose effect it is: the caller, or who writes.
    pub process: &'a Process,
    /// The process of the driver that answers a call.
    pub callee: Option<&'a Process>,
    /// The call or the verb of the write.
    pub effect: &'a str,
    /// Where in it.
    pub phase: PlainPhase,
}

/// The menu of a spot, family by family.
pub fn menu(spot: &Spot<'_>) -> Vec<Fault> {
    let mut menu = Vec::new();
    process::offer(spot, &mut menu);
    node::offer(spot, &mut menu);
    call::offer(spot, &mut menu);
    api::offer(spot, &mut menu);
    storage::offer(spot, &mut menu);
    clock::offer(spot, &mut menu);
    device::offer(spot, &mut menu);
    node::offer_removal(spot, &mut menu);
    call::offer_overtaking(spot, &mut menu);
    menu
}

/// The menu of an operation of a driver's process, such as `host.mount`: at `after-op(k)`.
pub fn operation_menu(process: &Process, operation: &str) -> Vec<Fault> {
    let mut menu = Vec::new();
    operation::offer(process, operation, &mut menu);
    menu
}

/// A duration of a menu.
const fn seconds(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}
