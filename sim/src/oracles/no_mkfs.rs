//! *Promise*: a file system is made only on a volume that never carried anything.
//!
//! *Why*: a probe that fails looks like an empty device to a careless driver, and formatting it is the end of the data.
//!
//! *Source*: `bugs.md` I5 never-reformat; CSI v1.12, NodeStageVolume: staging a volume that was used before MUST keep what is on it (it is "the same
//! volume" for its whole life).
//!
//! *Mutant*: `unreadable-means-blank` (D40), `mount-error-formats` (D41).

use std::collections::BTreeSet;

use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::host::Deed;
use crate::link::Sight;

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "no-mkfs-on-data",
    says: "a file system is made only on a volume that never carried anything",
    season: Season::Safety,
    source: "CSI v1.12, Volume Lifecycle: what is on a volume stays until it is deleted",
};

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct NoMkfs {
    /// Volumes that carry a file system or were made from something, by driver and handle.
    carry: BTreeSet<(String, String)>,
}

impl Oracle for NoMkfs {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        (!sight.storage)
            .then_some("all of it: nobody sees what is formatted; data that is gone is seen when a pod reads")
    }

    fn deed(&mut self, driver: &str, deed: &Deed, view: &View<'_>, found: &mut Vec<Violation>) {
        match deed {
            Deed::Formatted { volume, over } => {
                let fresh = self.carry.insert((driver.to_owned(), volume.to_string()));
                if *over || !fresh {
                    let name = view.volume(volume.as_str());
                    let text = format!("a file system is made on {name}, which carries something already");
                    let blame = (
                        Party::Driver,
                        "CSI v1.12, NodeStageVolume: idempotent, and the data is the user's",
                    );
                    found.push(view.broken(&PROMISE, blame, text, vec![name]));
                }
            }
            Deed::Deleted(volume) => {
                self.carry.remove(&(driver.to_owned(), volume.to_string()));
            }
            Deed::Created { .. }
            | Deed::Resized { .. }
            | Deed::Exported { .. }
            | Deed::CutOff { .. }
            | Deed::Cut { .. }
            | Deed::SnapshotDeleted(_) => {}
        }
    }
}
