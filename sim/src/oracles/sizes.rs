//! *Promise*: what a claim says it has, its volume has, its device has and its file system offers; and nothing of that ever shrinks.
//!
//! *Why*: a user who was told 20Gi fills 20Gi. An expansion that lost its second half shows up as a full disk under a database.
//!
//! *Source*: CSI v1.12, `CapacityRange`, `Volume.capacity_bytes`, ControllerExpandVolume and NodeExpandVolume; Kubernetes, "Expanding Persistent Volumes
//! Claims" (never shrinks).
//!
//! *Mutant*: `expand-believes-target` (D69), `expand-retry-drops-node-flag` (D68), `skips-node` (S31), `inner-layer-not-grown` (D72), `grow-before-rescan` (D73), `copy-not-grown` (csi-test #325).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolume;
use wavetank_driver::VolumeId;
use wavetank_proto::csi::v1::CapacityRange;

use super::ok_means_done::is_block;
use super::{Oracle, Party, Promise, Season, State, View, Violation, node_of};
use crate::api::{Kind, ObjKey, Object, fields};
use crate::link::{Call, CsiReply, CsiRequest, Sight};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "sizes",
    says: "claim ≤ volume ≤ device ≤ file system, as promised; nothing shrinks",
    season: Season::Safety,
    source: "CSI v1.12, CapacityRange, ControllerExpandVolume and NodeExpandVolume",
};

/// What a file system keeps for itself, at most, of its device.
const ROUNDING: u64 = 1 << 20;
/// What an encryption layer keeps for itself, at most.
const LAYER: u64 = 32 << 20;

/// What a real file system keeps for its log, inodes and the like, beside an eighth of its device.
const OVERHEAD: u64 = 64 << 20;

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct Sizes {
    /// What CreateVolume said, by driver and handle.
    made: BTreeMap<(String, String), u64>,
    /// Whether the node has work to do, as ControllerExpandVolume said last, by driver and handle.
    node: BTreeMap<(String, String), bool>,
}

impl Oracle for Sizes {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        match (sight.storage, sight.machines) {
            (true, _) => None,
            (false, true) => Some("sizes of volumes and devices: only what is said, and what file systems offer"),
            (false, false) => Some("real sizes: only what is said"),
        }
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        match &record.what {
            What::Reply {
                call,
                result: Ok(reply),
                ..
            } => {
                let wrong = self.answered(call, reply, view);
                let wrong = wrong.or_else(|| self.cramped(call, node_of(&record.process)?, view));
                let Some(wrong) = wrong else {
                    return;
                };
                let handle = match reply {
                    CsiReply::CreateVolume(reply) => reply.volume.as_ref().map(|volume| volume.volume_id.as_str()),
                    _ => call.request.volume_id(),
                };
                let volume = view.volume(handle.unwrap_or_default());
                let text = format!(
                    "{} of {volume} was answered with OK, but {wrong}",
                    call.request.method()
                );
                let blame = (Party::Driver, "CSI v1.12: OK of a size means that the room is there");
                found.push(view.broken(&PROMISE, blame, text, vec![volume]));
            }
            What::Write {
                before,
                result: Ok(written),
                ..
            } if matches!(
                written.object.kind(),
                Kind::PersistentVolume | Kind::PersistentVolumeClaim
            ) =>
            {
                found.extend(written_down(before.as_ref(), &written.object, view));
                found.extend(self.never_grew(before.as_ref(), &written.object, view));
            }
            _ => {}
        }
    }
}

impl Sizes {
    fn answered(&mut self, call: &Call, reply: &CsiReply, view: &View<'_>) -> Option<String> {
        let storage = view.cluster.storage(&call.driver);
        let real = |id: &str| {
            storage
                .and_then(|storage| storage.volume(&VolumeId::from(id)))
                .map(|v| v.size.0)
        };
        let offered = |id: &str| {
            storage
                .and_then(|storage| storage.file_system(&VolumeId::from(id)))
                .map(|fs| fs.size.0)
        };
        match (&call.request, reply) {
            (CsiRequest::CreateVolume(request), CsiReply::CreateVolume(reply)) => {
                let volume = reply.volume.as_ref()?;
                let said = bytes(volume.capacity_bytes);
                self.made
                    .insert((call.driver.to_string(), volume.volume_id.clone()), said);
                outside(request.capacity_range.as_ref(), said).or_else(|| short(real(&volume.volume_id), said))
            }
            (CsiRequest::ControllerExpandVolume(request), CsiReply::ControllerExpandVolume(reply)) => {
                let said = bytes(reply.capacity_bytes);
                let key = (call.driver.to_string(), request.volume_id.clone());
                self.node.insert(key, reply.node_expansion_required);
                outside(request.capacity_range.as_ref(), said).or_else(|| short(real(&request.volume_id), said))
            }
            (CsiRequest::NodeExpandVolume(request), CsiReply::NodeExpandVolume(_)) => {
                let asked = request
                    .capacity_range
                    .as_ref()
                    .map_or(0, |range| bytes(range.required_bytes));
                let wanted = asked.min(real(&request.volume_id)?);
                if is_block(request.volume_capability.as_ref()) {
                    return None;
                }
                small(offered(&request.volume_id)?, wanted)
            }
            (CsiRequest::NodeStageVolume(request), _) if !is_block(request.volume_capability.as_ref()) => {
                let made = self.made.get(&(call.driver.to_string(), request.volume_id.clone()))?;
                small(offered(&request.volume_id)?, *made)
            }
            _ => None,
        }
    }
}

impl Sizes {
    /// A claim is said to have grown: has the file system that a node has mounted?
    fn never_grew(&self, before: Option<&Object>, after: &Object, view: &View<'_>) -> Option<Violation> {
        let Object::PersistentVolumeClaim(claim) = after else {
            return None;
        };
        let (had, has) = (before.map_or(0, capacity), capacity(after));
        if had == 0 || has <= had || fields::claim_mode(claim) == "Block" {
            return None;
        }
        let volume = ObjKey::cluster(fields::claim_volume(claim));
        let (driver, handle) = fields::volume_handle(view.cluster.get::<PersistentVolume>(&volume)?)?;
        let mut ways = view.facts.volume(driver, handle)?.ways.values();
        // An idle file system may grow when it is mounted next.
        ways.find(|way| way.staged == State::Yes)?;
        let fs = view.cluster.storage(driver)?.file_system(&VolumeId::from(handle))?;
        let wrong = small(fs.size.0 + LAYER, has)?;
        let object = after.to_ref().to_string();
        let asked = self.node.get(&(driver.to_owned(), handle.to_owned()));
        let blame = match asked {
            Some(false) => (
                Party::Driver,
                "CSI v1.12, ControllerExpandVolumeResponse: node_expansion_required says whether the node has work to do",
            ),
            _ => (
                Party::Sidecar,
                "Kubernetes, Expanding Persistent Volumes Claims: the claim has grown when its file system has",
            ),
        };
        let text = format!("{object} claims {has} bytes, but {wrong}");
        Some(view.broken(&PROMISE, blame, text, vec![object]))
    }

    /// What the file system behind a path offers on a real machine is less than was promised: where no storage system tells it.
    fn cramped(&self, call: &Call, node: &str, view: &View<'_>) -> Option<String> {
        let sight = view.cluster.sight();
        if sight.storage || !sight.machines {
            return None;
        }
        let (path, capability, wanted) = match &call.request {
            CsiRequest::NodeExpandVolume(r) => {
                let asked = r.capacity_range.as_ref().map_or(0, |range| bytes(range.required_bytes));
                (&r.volume_path, r.volume_capability.as_ref(), asked)
            }
            CsiRequest::NodePublishVolume(r) => {
                let made = self.made.get(&(call.driver.to_string(), r.volume_id.clone()))?;
                (&r.target_path, r.volume_capability.as_ref(), *made)
            }
            _ => return None,
        };
        if is_block(capability) {
            return None;
        }
        let room = view.cluster.machine(node)?.room(path)?;
        small(room + wanted / 8 + OVERHEAD, wanted)
            .map(|_| format!("its file system has room for {room} bytes, not for {wanted}"))
    }
}

fn bytes(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

fn outside(range: Option<&CapacityRange>, said: u64) -> Option<String> {
    let range = range?;
    let (least, most) = (bytes(range.required_bytes), bytes(range.limit_bytes));
    if said == 0 {
        return None;
    }
    if said < least {
        return Some(format!("it has {said} bytes, and at least {least} were required"));
    }
    (most > 0 && said > most).then(|| format!("it has {said} bytes, and {most} were the limit"))
}

fn short(real: Option<u64>, said: u64) -> Option<String> {
    let real = real?;
    (real < said).then(|| format!("the volume has {real} bytes, not {said}"))
}

fn small(fs: u64, wanted: u64) -> Option<String> {
    (fs + ROUNDING < wanted).then(|| format!("its file system has {fs} bytes, not {wanted}"))
}

/// What is wrong with the sizes that were written to an object.
fn written_down(before: Option<&Object>, after: &Object, view: &View<'_>) -> Option<Violation> {
    let (had, has) = (before.map_or(0, capacity), capacity(after));
    let wrong = if has < had {
        format!("its capacity shrinks from {had} to {has} bytes")
    } else if has > had {
        larger_than_real(after, has, view)?
    } else {
        return None;
    };
    let object = after.to_ref().to_string();
    let blame = (
        Party::Sidecar,
        "Kubernetes, Expanding Persistent Volumes Claims: capacity is what the storage gave",
    );
    Some(view.broken(&PROMISE, blame, format!("{object}: {wrong}"), vec![object]))
}

fn capacity(object: &Object) -> u64 {
    match object {
        Object::PersistentVolume(volume) => fields::volume_capacity(volume),
        Object::PersistentVolumeClaim(claim) => fields::claim_capacity(claim),
        _ => 0,
    }
}

fn larger_than_real(object: &Object, has: u64, view: &View<'_>) -> Option<String> {
    match object {
        Object::PersistentVolumeClaim(claim) => {
            let volume = ObjKey::cluster(fields::claim_volume(claim));
            let real = fields::volume_capacity(view.cluster.get::<PersistentVolume>(&volume)?);
            (has > real).then(|| format!("it claims {has} bytes, and its volume has {real}"))
        }
        Object::PersistentVolume(volume) => {
            let (driver, handle) = fields::volume_handle(volume)?;
            let real = view.cluster.storage(driver)?.volume(&VolumeId::from(handle))?.size.0;
            (has > real).then(|| format!("it claims {has} bytes, and the storage system gives it {real}"))
        }
        _ => None,
    }
}
