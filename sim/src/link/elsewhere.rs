//! What can be seen of drivers and machines that are not in the tank, and what can befall them there.
//!
//! Inside the tank everything is modelled: oracles look into storage systems and mount tables, and every fault can strike. Elsewhere a link says what it shows
//! and what it can do. Whoever judges or strikes asks the cluster, which asks the link: neither knows which it is.

use crate::storm::Fault;

/// What of a run can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The storage systems behind the drivers: what is done to them, and what they hold, byte for byte.
    pub storage: bool,
    /// The mount tables of nodes, and what pods read and write there.
    pub machines: bool,
    /// Which volumes a driver's backend holds, when somebody asks at the end.
    pub holdings: bool,
    /// Memory, descriptors and threads of a driver's processes.
    pub processes: bool,
}

impl Sight {
    /// Everything is modelled, and there are no processes of the machine to be measured.
    pub const TANK: Sight = Sight {
        storage: true,
        machines: true,
        holdings: true,
        processes: false,
    };
}

/// What a process of a driver takes of its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Which life of the process it is: its number on its machine.
    pub life: i32,
    /// Memory, in KiB.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// Where drivers live that are not in the tank.
pub trait Elsewhere: Send + Sync {
    /// What can be seen there.
    fn sight(&self) -> Sight;

    /// Whether a fault can strike there.
    fn can(&self, fault: &Fault) -> bool;

    /// The ids of the volumes that the backend holds. Nothing if nobody can tell.
    fn holds(&self) -> Option<Result<Vec<String>, String>>;

    /// Devices that show files of the nodes, as sentences' subjects.
    fn devices(&self) -> Vec<String>;

    /// What the driver's process on a node, or the one that serves the sidecars, takes, and where it lives. Nothing if nobody can tell.
    fn footprint(&self, node: Option<&str>) -> Option<(String, Footprint)>;

    /// The driver's processes that have ended by themselves, by node, and how.
    fn ended(&self) -> Vec<(String, String)>;
}
