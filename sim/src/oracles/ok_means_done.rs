//! *Promise*: OK means that the effect is in place: made, deleted, attached, detached, mounted once, unmounted.
//!
//! *Why*: Kubernetes believes the answer and goes on. A pod whose volume was not mounted writes to the node's own disk; a volume that was not detached is
//! open to two writers.
//!
//! *Source*: CSI v1.12, each rpc: "a success response … MUST" only be given when the volume has been created, deleted, published, unpublished.
//!
//! *Mutant*: `delete-believes-backend` (D11), `attach-result-ignored` (D30), `detach-error-dropped` (D12), `detach-answered-early` (K27),
//! `opposite-calls-overlap` (D53), `publish-ok-without-mount` (D46), `publish-stacks-mounts` (D48), `unstage-error-dropped` (K03).
//!
//! Blind spot: drivers that keep their volumes elsewhere than in the tank's storage system are judged by the mount tables alone.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_driver::{NodeId, VolumeId};
use wavetank_proto::csi::v1::volume_capability::AccessType;

use super::{Oracle, Party, Promise, Season, View, Violation, node_of};
use crate::host::{Deed, Inventory};
use crate::link::{Call, CsiReply, CsiRequest, Sight};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "ok-means-done",
    says: "OK means that the effect is in place",
    season: Season::Safety,
    source: "CSI v1.12, the rpcs: success is answered when it is done",
};

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct OkMeansDone {
    /// Drivers that keep volumes in the tank's storage system.
    stored: BTreeSet<String>,
    /// Where volumes are staged, and in which boot of the machine, by node and staging path.
    staged: BTreeMap<(String, String), (u64, String)>,
    /// Calls of CreateVolume and DeleteVolume that are under way, by number, and the volumes whose deletion was asked for, or which were handed out, meanwhile:
    /// of these a late answer says nothing.
    racing: BTreeMap<u64, BTreeSet<String>>,
}

impl Oracle for OkMeansDone {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        match (sight.storage, sight.machines) {
            (true, _) => None,
            (false, true) => Some("volumes and attachments: only mounts"),
            (false, false) => Some("all of it: neither storage nor mounts are to be seen"),
        }
    }

    fn deed(&mut self, driver: &str, deed: &Deed, _: &View<'_>, _: &mut Vec<Violation>) {
        if matches!(deed, Deed::Created { .. }) && !self.stored.contains(driver) {
            self.stored.insert(driver.to_owned());
        }
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        self.learn(record, view);
        let overtaken = self.overtaken(record);
        let What::Reply {
            call,
            result: Ok(reply),
            ..
        } = &record.what
        else {
            return;
        };
        let wrong = if self.stored.contains(&*call.driver) && !overtaken {
            in_storage(call, reply, view)
        } else {
            None
        };
        let node = node_of(&record.process).unwrap_or_default();
        let Some(wrong) = wrong.or_else(|| on_node(call, node, view)) else {
            return;
        };
        let handle = call.request.volume_id().unwrap_or_default();
        let volume = view.volume(handle);
        let text = format!(
            "{} of {volume} was answered with OK, but {wrong}",
            call.request.method()
        );
        let blame = (Party::Driver, "CSI v1.12: the answer is OK when it is done, not before");
        let mut objects = vec![volume];
        let node = view.facts.node_of_call(&record.process, call);
        objects.extend(node.map(|node| format!("node {node}")));
        found.push(view.broken(&PROMISE, blame, text, objects));
    }

    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        if !view.cluster.sight().machines {
            return;
        }
        for ((node, path), (boots, handle)) in &self.staged {
            let machine = view.cluster.machine(node).filter(|machine| machine.is_up());
            let Some(machine) = machine.filter(|machine| machine.boots() == *boots) else {
                continue;
            };
            if machine
                .inventory()
                .mounts
                .iter()
                .any(|mount| mount.target.as_str() == path)
            {
                continue;
            }
            let volume = view.volume(handle);
            let text = format!(
                "NodeStageVolume of {volume} was answered with OK and never undone, but nothing is mounted at {path}"
            );
            let blame = (
                Party::Driver,
                "CSI v1.12: what was staged stays so until NodeUnstageVolume",
            );
            found.push(view.broken(&PROMISE, blame, text, vec![volume, format!("node {node}")]));
        }
    }
}

impl OkMeansDone {
    /// Whether this is an answer about a volume that another call has deleted or made meanwhile.
    fn overtaken(&mut self, record: &Record) -> bool {
        match &record.what {
            What::Call { id, call } => {
                let handle = match &call.request {
                    CsiRequest::CreateVolume(_) => None,
                    CsiRequest::DeleteVolume(request) => Some(&request.volume_id),
                    _ => return false,
                };
                for volumes in self.racing.values_mut() {
                    volumes.extend(handle.cloned());
                }
                self.racing.insert(*id, BTreeSet::new());
                false
            }
            What::Reply { id, call, result, .. } => {
                let Some(volumes) = self.racing.remove(id) else {
                    return false;
                };
                let handle = match (&call.request, result) {
                    (CsiRequest::DeleteVolume(request), _) => request.volume_id.clone(),
                    (_, Ok(CsiReply::CreateVolume(reply))) => match &reply.volume {
                        Some(volume) => volume.volume_id.clone(),
                        None => return false,
                    },
                    _ => return false,
                };
                if matches!(call.request, CsiRequest::CreateVolume(_)) {
                    for volumes in self.racing.values_mut() {
                        volumes.insert(handle.clone());
                    }
                }
                volumes.contains(&handle)
            }
            _ => false,
        }
    }

    /// Notes what is staged from now on, and what not.
    fn learn(&mut self, record: &Record, view: &View<'_>) {
        let Some(node) = node_of(&record.process) else { return };
        match &record.what {
            What::Reply {
                call, result: Ok(_), ..
            } => {
                if let CsiRequest::NodeStageVolume(request) = &call.request
                    && !is_block(request.volume_capability.as_ref())
                    && let Some(machine) = view.cluster.machine(node)
                {
                    // It is a path to which the volume may be staged: a driver whose storage nobody sees may have nothing to mount there.
                    let path = request.staging_target_path.as_str();
                    let mounted = || {
                        let mounts = machine.inventory().mounts;
                        mounts.iter().any(|mount| mount.target.as_str() == path)
                    };
                    if !self.stored.contains(&*call.driver) && !mounted() {
                        return;
                    }
                    let key = (node.to_owned(), request.staging_target_path.clone());
                    self.staged.insert(key, (machine.boots(), request.volume_id.clone()));
                }
            }
            What::Call { call, .. } => {
                if let CsiRequest::NodeUnstageVolume(request) = &call.request {
                    self.staged
                        .remove(&(node.to_owned(), request.staging_target_path.clone()));
                }
            }
            _ => {}
        }
    }
}

/// What the storage system says against an OK.
fn in_storage(call: &Call, reply: &CsiReply, view: &View<'_>) -> Option<String> {
    let storage = view.cluster.storage(&call.driver)?;
    let volume = |id: &str| storage.volume(&VolumeId::from(id));
    let exported = |id: &str, node: &str| volume(id).map(|volume| volume.exports.contains_key(&NodeId::from(node)));
    match (&call.request, reply) {
        (_, CsiReply::CreateVolume(reply)) => {
            let id = &reply.volume.as_ref()?.volume_id;
            volume(id)
                .is_none()
                .then(|| format!("there is no volume {id} in the storage system"))
        }
        (CsiRequest::DeleteVolume(r), _) => {
            volume(&r.volume_id).map(|_| "it is still in the storage system".to_owned())
        }
        (CsiRequest::ControllerPublishVolume(r), _) => (exported(&r.volume_id, &r.node_id) == Some(false))
            .then(|| format!("the storage system does not let {} reach it", r.node_id)),
        (CsiRequest::ControllerUnpublishVolume(r), _) if !r.node_id.is_empty() => (exported(&r.volume_id, &r.node_id)
            == Some(true))
        .then(|| format!("the storage system still lets {} reach it", r.node_id)),
        _ => None,
    }
}

/// What the machine says against an OK.
fn on_node(call: &Call, node: &str, view: &View<'_>) -> Option<String> {
    let relevant = matches!(
        call.request,
        CsiRequest::NodePublishVolume(_) | CsiRequest::NodeUnpublishVolume(_) | CsiRequest::NodeUnstageVolume(_)
    );
    if !relevant || !view.cluster.sight().machines {
        return None;
    }
    // A node that died at the very answer shows nothing.
    let machine = view.cluster.machine(node).filter(|machine| machine.is_up())?;
    let inventory = machine.inventory();
    let mounts = |path: &str| {
        inventory
            .mounts
            .iter()
            .filter(|mount| mount.target.as_str() == path)
            .count()
    };
    match &call.request {
        CsiRequest::NodePublishVolume(r) => match mounts(&r.target_path) {
            0 => Some(format!("nothing is mounted at {}", r.target_path)),
            1 => wrong_volume(&inventory, &r.target_path, &r.volume_id),
            more => Some(format!("{more} mounts lie on one another at {}", r.target_path)),
        },
        CsiRequest::NodeUnpublishVolume(r) if mounts(&r.target_path) > 0 => {
            Some(format!("something is still mounted at {}", r.target_path))
        }
        CsiRequest::NodeUnstageVolume(r) if mounts(&r.staging_target_path) > 0 => {
            Some(format!("something is still mounted at {}", r.staging_target_path))
        }
        _ => None,
    }
}

/// Whether what is mounted at a path belongs to another volume that Kubernetes knows.
fn wrong_volume(inventory: &Inventory, path: &str, handle: &str) -> Option<String> {
    let mount = inventory.mounts.iter().find(|mount| mount.target.as_str() == path)?;
    let device = mount.source.device()?;
    let (_, _, volume) = inventory.devices.iter().find(|(at, ..)| at == device)?;
    let here = inventory.devices.iter().any(|(_, _, volume)| volume.as_str() == handle);
    (volume.as_str() != handle && here).then(|| format!("volume {volume} is mounted at {path}"))
}

/// Whether a capability asks for a raw device.
pub(super) fn is_block(capability: Option<&wavetank_proto::csi::v1::VolumeCapability>) -> bool {
    let form = capability.and_then(|capability| capability.access_type.as_ref());
    matches!(form, Some(AccessType::Block(_)))
}
