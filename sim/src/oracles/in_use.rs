//! *Promise*: nothing that somebody uses, or was given, is taken away unless that was asked for: no volume or snapshot is deleted, no node cut off.
//!
//! *Why*: cleaning up after a failed, slow or repeated call must not touch what another call has handed out since.
//!
//! *Source*: CSI v1.12, DeleteVolume ("Indicates that the volume corresponding to the specified volume_id could not be deleted because it is in use":
//! `FAILED_PRECONDITION`), DeleteSnapshot, ControllerUnpublishVolume.
//!
//! *Mutant*: `create-loser-deletes-winner` (D01), `recursive-destroy` (D15), `late-detach-fires` (D21), `driver-detaches-others` (D28),
//! `unpublish-ignores-node` (D32), `delete-cuts-off-users` (K10).
//!
//! Blind spot: of drivers that keep their volumes elsewhere than in the tank's storage system only what is gone at the end is seen.

use std::collections::BTreeSet;

use super::{Oracle, Party, Promise, Season, State, View, Violation, Way};
use crate::api::ObjKey;
use crate::host::Deed;
use crate::link::{CsiReply, CsiRequest, Elsewhere, Sight};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "in-use",
    says: "nothing that is used or was handed out is taken away unasked",
    season: Season::Safety,
    source: "CSI v1.12, DeleteVolume, DeleteSnapshot and ControllerUnpublishVolume",
};

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct InUse {
    /// Snapshots that were handed out and whose deletion was not asked for, by driver and id.
    snapshots: BTreeSet<(String, String)>,
}

impl Oracle for InUse {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        match (sight.storage, sight.holdings) {
            (true, _) => None,
            (false, true) => Some("when something is taken away: only what is gone at the end"),
            (false, false) => Some("all of it: nobody tells what the backend holds"),
        }
    }

    fn look(&mut self, record: &Record, _: &View<'_>, _: &mut Vec<Violation>) {
        match &record.what {
            What::Call { call, .. } => {
                if let CsiRequest::DeleteSnapshot(request) = &call.request {
                    self.snapshots
                        .remove(&(call.driver.to_string(), request.snapshot_id.clone()));
                }
            }
            What::Reply {
                call,
                result: Ok(CsiReply::CreateSnapshot(reply)),
                ..
            } => {
                if let Some(snapshot) = &reply.snapshot {
                    self.snapshots
                        .insert((call.driver.to_string(), snapshot.snapshot_id.clone()));
                }
            }
            _ => {}
        }
    }

    fn deed(&mut self, driver: &str, deed: &Deed, view: &View<'_>, found: &mut Vec<Violation>) {
        match deed {
            Deed::Deleted(id) => found.extend(deleted(driver, id.as_str(), view)),
            Deed::CutOff { volume, node, .. } => found.extend(cut_off(driver, volume.as_str(), node.as_str(), view)),
            Deed::SnapshotDeleted(id) if self.snapshots.contains(&(driver.to_owned(), id.to_string())) => {
                let text = format!("snapshot {id} was handed out and is gone, although nobody asked for its deletion");
                let blame = (
                    Party::Driver,
                    "CSI v1.12, DeleteSnapshot: a snapshot lives until it is deleted",
                );
                found.push(view.broken(&PROMISE, blame, text, vec![format!("snapshot {id}")]));
            }
            Deed::SnapshotDeleted(_)
            | Deed::Created { .. }
            | Deed::Resized { .. }
            | Deed::Exported { .. }
            | Deed::Formatted { .. }
            | Deed::Cut { .. } => {}
        }
    }

    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        let held = view.cluster.elsewhere().and_then(Elsewhere::holds);
        let Some(Ok(held)) = held else { return };
        for volume in view.facts.drivers().flat_map(|driver| &driver.volumes) {
            let (handle, known) = volume;
            if known.name.is_some() && !known.delete_asked && !held.contains(handle) {
                found.push(vanished(handle, view));
            }
        }
    }
}

/// A volume of a driver elsewhere is not among what its backend holds.
fn vanished(handle: &str, view: &View<'_>) -> Violation {
    let name = view.volume(handle);
    let text = format!("{name} was handed out and is gone, although nobody asked for its deletion");
    let blame = (
        Party::Driver,
        "CSI v1.12, DeleteVolume: a volume lives until it is deleted",
    );
    view.broken(&PROMISE, blame, text, vec![name])
}

fn deleted(driver: &str, handle: &str, view: &View<'_>) -> Option<Violation> {
    let volume = view.facts.volume(driver, handle)?;
    // What was detached by force from a node in trouble, or was forgotten there, stays mounted there, and is nobody's.
    let disowned = |node: &str| view.facts.lapses().is_disowned(node, driver, handle, view.cluster);
    let given_up =
        |node: &str, way: &Way| way.attached == State::No && (view.facts.troubled(node).is_some() || disowned(node));
    let used = volume
        .ways
        .iter()
        .find(|(node, way)| way.attached == State::Yes || (way.is_used(node, view.cluster) && !given_up(node, way)));
    let wrong = match used {
        Some((node, _)) => format!("is deleted although {node} has it"),
        None if volume.name.is_some() && !volume.delete_asked => {
            "was handed out and is gone, although nobody asked for its deletion".to_owned()
        }
        None => return None,
    };
    let name = view.volume(handle);
    let blame = (
        Party::Driver,
        "CSI v1.12, DeleteVolume: FAILED_PRECONDITION while the volume is in use",
    );
    let mut objects = vec![name.clone()];
    objects.extend(used.map(|(node, _)| format!("node {node}")));
    Some(view.broken(&PROMISE, blame, format!("{name} {wrong}"), objects))
}

fn cut_off(driver: &str, handle: &str, id: &str, view: &View<'_>) -> Option<Violation> {
    use k8s_openapi::api::core::v1::Node;
    let facts = view.facts.driver(driver)?;
    let node = facts.node(id);
    let way = facts.volume(handle)?.ways.get(node)?;
    let unasked = match facts.attaches {
        Some(false) => way.staged == State::Yes && way.is_used(node, view.cluster),
        _ => way.attached == State::Yes && !way.detach_asked,
    };
    if !unasked || view.cluster.get::<Node>(&ObjKey::cluster(node)).is_none() {
        return None;
    }
    let name = view.volume(handle);
    let text = format!("{name} is taken from {node}, although nobody asked for that since it was attached there");
    let blame = (
        Party::Driver,
        "CSI v1.12, ControllerUnpublishVolume: a volume stays published until it is unpublished",
    );
    Some(view.broken(&PROMISE, blame, text, vec![name, format!("node {node}")]))
}
