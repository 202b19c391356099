//! *Promise*: a volume for one node is never usable on two at once; one for a single writer never at two paths.
//!
//! *Why*: two machines that write to one file system destroy it, silently, and the reader finds out weeks later.
//!
//! *Source*: CSI v1.12, `VolumeCapability.AccessMode` (`SINGLE_NODE_WRITER`: "can only be published once as read/write on a single node, at any given
//! time") and ControllerPublishVolume, error `FAILED_PRECONDITION` (published to another node); KEP-2485 for ReadWriteOncePod.
//!
//! *Mutant*: `detach-does-not-fence` (D33), `detach-error-dropped` (D12).
//!
//! A node can use a volume while the storage system lets it: mounts of a node that was cut off are dead. Blind spot: drivers that keep their volumes
//! elsewhere than in the tank's storage system are judged by their answers only.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::{Oracle, Party, Promise, Season, State, View, Violation, node_of};
use crate::host::Deed;
use crate::link::{CsiRequest, Sight};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "one-writer",
    says: "a volume for a single node is never usable on two nodes, one for a single writer never at two paths",
    season: Season::Safety,
    source: "CSI v1.12, VolumeCapability.AccessMode and ControllerPublishVolume errors; KEP-2485",
};

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct OneWriter {
    /// Nodes that the storage system lets reach a volume, by driver and handle.
    exports: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Oracle for OneWriter {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        (!sight.storage).then_some("whom the storage lets in: only what was answered")
    }

    fn deed(&mut self, driver: &str, deed: &Deed, view: &View<'_>, found: &mut Vec<Violation>) {
        match deed {
            Deed::Exported { volume, node, .. } => {
                let key = (driver.to_owned(), volume.to_string());
                let nodes = self.exports.entry(key).or_default();
                nodes.insert(node.to_string());
                let single = view
                    .facts
                    .volume(driver, volume.as_str())
                    .and_then(|volume| volume.single_node);
                if nodes.len() > 1 && single == Some(true) {
                    found.push(two_nodes(driver, volume.as_str(), nodes, view));
                }
            }
            Deed::CutOff { volume, node, .. } => {
                let key = (driver.to_owned(), volume.to_string());
                if let Some(nodes) = self.exports.get_mut(&key) {
                    nodes.remove(node.as_str());
                }
            }
            Deed::Deleted(volume) => {
                self.exports.remove(&(driver.to_owned(), volume.to_string()));
            }
            Deed::Created { .. }
            | Deed::Resized { .. }
            | Deed::Formatted { .. }
            | Deed::Cut { .. }
            | Deed::SnapshotDeleted(_) => {}
        }
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let What::Reply {
            call, result: Ok(_), ..
        } = &record.what
        else {
            return;
        };
        match &call.request {
            CsiRequest::NodePublishVolume(request) => {
                let mode = request.volume_capability.as_ref().and_then(|c| c.access_mode);
                let once = mode.is_some_and(|mode| mode.mode() == Mode::SingleNodeSingleWriter);
                let node = node_of(&record.process).unwrap_or_default();
                if once {
                    found.extend(second_path(
                        &call.driver,
                        &request.volume_id,
                        node,
                        &request.target_path,
                        view,
                    ));
                }
            }
            CsiRequest::ControllerPublishVolume(request) if view.cluster.storage(&call.driver).is_none() => {
                found.extend(second_answer(&call.driver, &request.volume_id, &request.node_id, view));
            }
            _ => {}
        }
    }
}

fn two_nodes(driver: &str, handle: &str, nodes: &BTreeSet<String>, view: &View<'_>) -> Violation {
    let attaches = view.facts.driver(driver).and_then(|driver| driver.attaches);
    let blame = if attaches == Some(false) {
        (
            Party::Undefined,
            "CSI v1.12 says nothing of fencing without ControllerPublishVolume, and Kubernetes does not fence either",
        )
    } else {
        (
            Party::Driver,
            "CSI v1.12, ControllerPublishVolume: FAILED_PRECONDITION when published to another node",
        )
    };
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let volume = view.volume(handle);
    let text = format!(
        "{volume} is for a single node, but {} can use it at once",
        nodes.join(" and ")
    );
    let mut objects = vec![volume];
    objects.extend(nodes.iter().map(|node| format!("node {node}")));
    view.broken(&PROMISE, blame, text, objects)
}

/// For a driver whose storage nobody sees: it said OK for one node while another still has the volume.
fn second_answer(driver: &str, handle: &str, id: &str, view: &View<'_>) -> Option<Violation> {
    let volume = view.facts.volume(driver, handle)?;
    let here = view.facts.driver(driver)?.node(id);
    let mut others = volume.ways.iter().filter(|(_, way)| way.attached == State::Yes);
    let (other, _) = others.find(|(node, _)| *node != here)?;
    let both = BTreeSet::from([here.to_owned(), other.clone()]);
    (volume.single_node == Some(true)).then(|| two_nodes(driver, handle, &both, view))
}

/// A volume for a single writer was published: is it at another path already?
fn second_path(driver: &str, handle: &str, node: &str, target: &str, view: &View<'_>) -> Option<Violation> {
    let way = view.facts.way(driver, handle, node)?;
    let mut others = way.published.iter().filter(|(_, state)| **state == State::Yes);
    let (other, _) = others.find(|(path, _)| *path != target)?;
    let volume = view.volume(handle);
    let text = format!("{volume} is for a single writer, but {node} has it at {other} and at {target}");
    let blame = (
        Party::Driver,
        "CSI v1.12, NodePublishVolume: FAILED_PRECONDITION for a second target of SINGLE_NODE_SINGLE_WRITER",
    );
    let objects = vec![volume, format!("node {node}")];
    Some(view.broken(&PROMISE, blame, text, objects))
}
