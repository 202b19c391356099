//! *Promise*: nobody does the same thing over and over faster than a back-off allows.
//!
//! *Why*: a controller that reacts to its own write, or a code that is retried at once, takes an API server or a storage system down.
//!
//! *Source*: Kubernetes' work queues (5 ms doubling to 1000 s) and kubelet's operations (0.5 s doubling to 2 min 2 s): fewer than 20 tries in the first
//! minute.
//!
//! Kubernetes 1.36 itself has three loops without a back-off; they are not counted:
//!
//! - The attach-detach controller repeats the patch of a node's `volumesAttached` that is refused in each pass, every 100 ms (`reconciler.go`: a failed
//!   update flags the node again; fact sheet 4.3). Patches that are taken count, each by what it says: one for each of many volumes that leave is no loop.
//! - An attach and a detach of a volume for one node have one key: each resets the back-off of the other (`nestedpendingoperations.go`: "previous operation
//!   and new operation are different"). While both fail, its VolumeAttachment is deleted again at every turn; while the API server refuses
//!   both, in each pass.
//! - So have a mount of a volume and its unmount from another pod (fact sheet 6.6; recorded in trace 18b: every 200 ms). What failed the other way since
//!   counts from there. A pod that waits for a ReadWriteOncePod volume of another pod fails without a call to the driver, at every turn.
//!
//! *Mutant*: `no-back-off` (S04), `own-errors-wake-it` (S44).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Oracle, Party, Promise, Season, View, Violation};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::api::{Edit, Kind, ObjKey, ObjectRef, Write, fields};
use crate::link::{Call, CsiRequest};
use crate::runtime::Time;
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "no-hot-loop",
    says: "nobody does the same thing over and over faster than a back-off allows",
    season: Season::Calm,
    source: "Kubernetes: rate limiters of work queues, exponential back-off of kubelet's operations",
};

/// How long things are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// How often the same may be done within it.
const OFTEN: u32 = 40;

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct NoHotLoop {
    /// When counting began and how often it was done since, by what is done.
    counts: BTreeMap<u64, (Time, u32)>,
    /// When an attachment of a volume was last refused by the API server, by process, verb and volume.
    refused: BTreeMap<u64, Time>,
}

impl Oracle for NoHotLoop {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let (key, write) = match &record.what {
            What::Call { call, .. } if !is_question(call) && !keeps_another_pod_out(call, &record.process, view) => {
                let about = call.request.volume_id().unwrap_or_else(|| name(&call.request));
                (digest(&[&record.process, call.request.method(), about]), None)
            }
            What::Reply { call, result, .. } if result.is_err() => {
                self.forget_the_other_way(&record.process, &call.request);
                return;
            }
            What::Write { write, result, .. }
                if write.target().kind != Kind::Event
                    && &*record.process != crate::cluster::USER
                    && !(result.is_err() && what_is_attached(write).is_some()) =>
            {
                let target = write.target();
                let name = &*target.key.name;
                let said = what_is_attached(write).unwrap_or_default();
                (
                    digest(&[&record.process, verb(write), target.kind.name(), name, &said]),
                    Some(target),
                )
            }
            _ => return,
        };
        let refused_both_ways = self.is_refused_both_ways(record);
        let (since, count) = self.counts.entry(key).or_insert((record.at, 0));
        if record.at.since(*since) > WINDOW {
            (*since, *count) = (record.at, 0);
        }
        *count += 1;
        if *count != OFTEN + 1 {
            return;
        }
        if write
            .as_ref()
            .is_some_and(|target| refused_both_ways || fails_to_attach_elsewhere(target, view))
        {
            *count = 0;
            return;
        }
        let (what, object) = match (&record.what, write) {
            (What::Call { call, .. }, _) => {
                let volume = call.request.volume_id().map(|handle| view.volume(handle));
                (
                    call.request.method().to_owned(),
                    volume.unwrap_or_else(|| name(&call.request).to_owned()),
                )
            }
            (_, Some(target)) => ("a write".to_owned(), target.to_string()),
            _ => return,
        };
        let text = format!(
            "{} does {what} of {object} more than {OFTEN} times within a minute",
            record.process
        );
        let party = if record.process.starts_with("kubelet") || record.process.starts_with("controller-manager") {
            Party::Kubernetes
        } else {
            Party::Sidecar
        };
        let blame = (party, "whoever asks too often, or the driver whose answer makes it ask");
        found.push(view.broken(&PROMISE, blame, text, vec![object]));
    }
}

impl NoHotLoop {
    /// Whether the API server refuses this attach or detach, and the opposite of the same volume as well.
    fn is_refused_both_ways(&mut self, record: &Record) -> bool {
        let What::Write { write, before, result } = &record.what else {
            return false;
        };
        let (object, opposite) = match &**write {
            Write::Create(object) => (Some(object), "delete"),
            Write::Delete(_) => (before.as_ref(), "create"),
            _ => return false,
        };
        let Some(attachment) = object.and_then(|object| object.get::<VolumeAttachment>()) else {
            return false;
        };
        if result.is_ok() {
            return false;
        }
        let of = |verb| digest(&[&record.process, verb, fields::attachment_volume(attachment)]);
        self.refused.insert(of(verb(write)), record.at);
        self.refused
            .get(&of(opposite))
            .is_some_and(|at| record.at.since(*at) <= WINDOW)
    }

    /// A call of kubelet failed: what it tries the other way with this volume need not wait.
    fn forget_the_other_way(&mut self, process: &str, request: &CsiRequest) {
        let other = match request {
            CsiRequest::NodeStageVolume(_) | CsiRequest::NodePublishVolume(_) => {
                ["NodeUnpublishVolume", "NodeUnstageVolume"]
            }
            CsiRequest::NodeUnpublishVolume(_) | CsiRequest::NodeUnstageVolume(_) => {
                ["NodeStageVolume", "NodePublishVolume"]
            }
            _ => return,
        };
        for method in other {
            let about = request.volume_id().unwrap_or_default();
            self.counts.remove(&digest(&[process, method, about]));
        }
    }
}

/// The attach-detach controller's word to a node, if a write is that: the volumes that it names.
fn what_is_attached(write: &Write) -> Option<String> {
    let Write::Patch(patch) = write else { return None };
    patch.edits.iter().find_map(|edit| match edit {
        Edit::VolumesAttached(volumes) => Some(volumes.iter().map(|volume| format!("{} ", volume.name)).collect()),
        _ => None,
    })
}

/// Whether this is a VolumeAttachment whose volume is wanted on another node, and cannot be attached there either.
fn fails_to_attach_elsewhere(target: &ObjectRef, view: &View<'_>) -> bool {
    if target.kind != Kind::VolumeAttachment {
        return false;
    }
    let Some(leaving) = view.cluster.get::<VolumeAttachment>(&target.key) else {
        return false;
    };
    let volume = fields::attachment_volume(leaving);
    view.cluster.api().list::<VolumeAttachment>().any(|other| {
        let fails = other.status.as_ref().is_some_and(|s| s.attach_error.is_some());
        fails && fields::attachment_volume(other) == volume && other.spec.node_name != leaving.spec.node_name
    })
}

/// Whether kubelet takes a volume for one pod from a pod, and another pod of its node waits for it.
fn keeps_another_pod_out(call: &Call, process: &str, view: &View<'_>) -> bool {
    let CsiRequest::NodeUnpublishVolume(request) = &call.request else {
        return false;
    };
    let (Some(node), handle) = (process.strip_prefix("kubelet/"), request.volume_id.as_str()) else {
        return false;
    };
    let mut volumes = view.cluster.api().list::<PersistentVolume>();
    let volume = volumes.find(|volume| fields::volume_handle(volume) == Some((&*call.driver, handle)));
    let Some(volume) = volume.filter(|volume| {
        fields::volume_modes(volume)
            .iter()
            .any(|mode| mode == "ReadWriteOncePod")
    }) else {
        return false;
    };
    let claim = fields::volume_claim_key(volume);
    let waits = |pod: &Pod| {
        let namespace = fields::namespace(&pod.metadata);
        let mut claims = fields::pod_claims(pod);
        fields::pod_node(pod) == node
            && !request.target_path.contains(fields::uid(&pod.metadata))
            && claims.any(|of| Some(ObjKey::new(namespace, of.claim.as_ref())) == claim)
    };
    view.cluster.api().list::<Pod>().any(|pod| waits(pod))
}

fn is_question(call: &Call) -> bool {
    let name = crate::scenario::Call::parse(call.request.method());
    name.is_none_or(|name| !name.is_lifecycle())
}

fn name(request: &CsiRequest) -> &str {
    match request {
        CsiRequest::CreateVolume(r) => &r.name,
        CsiRequest::CreateSnapshot(r) => &r.name,
        CsiRequest::DeleteSnapshot(r) => &r.snapshot_id,
        _ => "",
    }
}

fn verb(write: &Write) -> &'static str {
    match write {
        Write::Create(_) => "create",
        Write::Update(_) => "update",
        Write::Patch(_) => "patch",
        Write::Delete(_) => "delete",
        _ => "write",
    }
}

/// FNV-1a: a short name for a few words.
fn digest(words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
