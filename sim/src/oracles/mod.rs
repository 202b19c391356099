//! Oracles: each judges one promise. They read everything, change nothing, and draw no chance.
//!
//! One file each, whose header says *Promise*, *Why*, *Source* and *Mutant*. Safety oracles look after every record of the trace; oracles of the calm look when
//! the storm is over, everything is healed, and the run has had its time to settle.

mod bounded;
mod clone_equals_source;
mod csi_by_the_cluster;
pub mod data;
mod driver_alive;
mod facts;
mod hot_loop;
mod in_use;
mod kubernetes_rules;
mod lapses;
mod leftovers;
mod legal_answers;
mod no_mkfs;
mod ok_means_done;
mod one_writer;
mod order;
mod panel;
mod same_answer;
mod secrets;
mod settles;
mod sizes;
#[cfg(test)]
mod tests;

use crate::cluster::Cluster;
use crate::host::Deed;
use crate::link::Sight;
use crate::runtime::Time;
use crate::trace::{Lore, Record};

pub use crate::storm::{Party, Promise, Season, Violation};
pub use facts::{Driver, Facts, Open, State, Volume, Way, is_multi_node, node_of};
pub use lapses::{Lapses, waits_for_the_stuck};
pub use panel::{Panel, promises, unseen};
pub use settles::{keeps_to_what_is_allocated, settles_violation, unsettled, waits_for_another};

/// What an oracle sees.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The cluster, to look at.
    pub cluster: &'a Cluster,
    /// What the records before this one have shown.
    pub facts: &'a Facts,
    /// The record that is judged, by its place in the trace; at the end the number of records.
    pub nth: usize,
    /// The moment of that record; at the end the present one.
    pub at: Time,
}

impl View<'_> {
    /// A violation that shows here.
    pub fn broken(
        &self,
        promise: &'static Promise,
        blame: (Party, &'static str),
        text: String,
        objects: Vec<String>,
    ) -> Violation {
        let (blame, source) = blame;
        Violation {
            promise,
            text,
            objects,
            at: self.at,
            record: self.nth,
            blame,
            source,
        }
    }

    /// What a driver's volume is called: the claim that it serves, or the volume itself. Reads the whole trace: only for a violation.
    pub fn volume(&self, handle: &str) -> String {
        match self.lore().latest_claim_of_handle(handle) {
            Some(claim) if &*claim.namespace == "default" => format!("pvc {}", claim.name),
            Some(claim) => format!("pvc {claim}"),
            None => format!("volume {handle}"),
        }
    }

    /// What belongs to what. Reads the whole trace: only for a violation.
    pub fn lore(&self) -> Lore {
        Lore::of(self.cluster.trace().records())
    }
}

/// Judges one promise over one run.
pub trait Oracle: Send {
    /// The promise.
    fn promise(&self) -> &'static Promise;

    /// What of the promise cannot be judged where so much can be seen, as a sentence; nothing if all of it can.
    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        let _ = sight;
        None
    }

    /// Looks at the next record of the trace. Called for each, in order, right after it was made.
    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let _ = (record, view, found);
    }

    /// Looks at what was done to the storage system behind a driver, before the record that comes next.
    fn deed(&mut self, driver: &str, deed: &Deed, view: &View<'_>, found: &mut Vec<Violation>) {
        let _ = (driver, deed, view, found);
    }

    /// The run is over and has settled.
    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        let _ = (view, found);
    }
}
