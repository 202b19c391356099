//! *Promise*: every answer of a driver is one that CSI allows: required fields are there, ids are not empty and belong to one thing, a copy names its source,
//! a volume lies where it was asked for, lists agree with what was answered, codes say what they mean.
//!
//! *Why*: sidecars act on fields and codes. A wrong code turns into a leak, an endless loop or a pod that never starts; a list that names no node makes the
//! attacher attach for ever.
//!
//! *Source*: CSI v1.12: the response messages, "Size Limits", "Error Scheme", `accessibility_requirements`, ListVolumes (`published_node_ids`).
//!
//! *Mutant*: `full-means-out-of-range` (D64), `retry-drops-topology` (D63), `list-forgets-nodes` (S23), `clone-answer-drops-source` (D10).

use std::collections::{BTreeMap, BTreeSet};

use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;

use super::{Oracle, Party, Promise, Season, State, View, Violation};
use crate::link::{Call, CsiReply, CsiRequest};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "legal-answers",
    says: "every answer of a driver is one that CSI allows, and says what it means",
    season: Season::Safety,
    source: "CSI v1.12: response messages, Size Limits, Error Scheme",
};

/// The longest identifier, in bytes.
const LONGEST: usize = 128;

/// Volumes and the nodes that have them, as ids of the driver.
type Published = BTreeSet<(String, String)>;

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct LegalAnswers {
    /// The name under which an id was handed out, by driver and id.
    names: BTreeMap<(String, String), String>,
    /// The largest volume that was granted, by driver and parameters.
    granted: BTreeMap<(String, String), i64>,
    /// What was published for certain when a list was asked for.
    listing: BTreeMap<u64, Published>,
}

impl Oracle for LegalAnswers {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let (call, wrong) = match &record.what {
            What::Call { id, call } => {
                if matches!(call.request, CsiRequest::ListVolumes(_)) {
                    self.listing.insert(*id, published(&call.driver, view));
                }
                return;
            }
            What::Reply { id, call, result, .. } if view.facts.is_honest(*id, result) => match result {
                Ok(reply) => (call, self.granted(*id, call, reply, view)),
                Err(status) => (call, self.refused(call, status)),
            },
            _ => return,
        };
        let Some(wrong) = wrong else { return };
        let about = match call.request.volume_id() {
            Some(handle) => view.volume(handle),
            None => format!("driver {}", call.driver),
        };
        let text = format!("the answer to {} ({about}) {wrong}", call.request.method());
        let blame = (Party::Driver, "CSI v1.12, the description of this rpc and its response");
        let objects = vec![about, call.request.method().to_owned()];
        found.push(view.broken(&PROMISE, blame, text, objects));
    }
}

impl LegalAnswers {
    fn granted(&mut self, id: u64, call: &Call, reply: &CsiReply, view: &View<'_>) -> Option<String> {
        match (&call.request, reply) {
            (CsiRequest::CreateVolume(request), CsiReply::CreateVolume(reply)) => {
                let Some(volume) = &reply.volume else {
                    return Some("has no volume".to_owned());
                };
                let key = (call.driver.to_string(), parameters(request));
                let largest = self.granted.entry(key).or_default();
                *largest = (*largest).max(request.capacity_range.map_or(0, |range| range.required_bytes));
                self.volume(call, request, volume)
            }
            (CsiRequest::CreateSnapshot(request), CsiReply::CreateSnapshot(reply)) => {
                let Some(snapshot) = &reply.snapshot else {
                    return Some("has no snapshot".to_owned());
                };
                let wrong = snapshot.source_volume_id != request.source_volume_id;
                wrong
                    .then(|| format!("names {} as its source", snapshot.source_volume_id))
                    .or_else(|| (snapshot.creation_time.is_none()).then(|| "has no creation time".to_owned()))
                    .or_else(|| self.id(call, &snapshot.snapshot_id, &request.name))
            }
            (_, CsiReply::ListVolumes(reply)) => {
                let before = self.listing.remove(&id).unwrap_or_default();
                listed(call, reply, &before, view)
            }
            (_, CsiReply::GetPluginInfo(reply)) => (*reply.name != *call.driver).then(|| {
                format!(
                    "names the driver `{}`, which is registered as `{}`",
                    reply.name, call.driver
                )
            }),
            (_, CsiReply::NodeGetInfo(reply)) => {
                if reply.node_id.is_empty() || reply.node_id.len() > 256 {
                    return Some("has no legal node_id".to_owned());
                }
                (reply.max_volumes_per_node < 0).then(|| "has a negative limit of volumes".to_owned())
            }
            (_, CsiReply::NodeGetVolumeStats(reply)) => {
                let odd = reply
                    .usage
                    .iter()
                    .find(|usage| usage.total < 0 || usage.used < 0 || usage.available < 0);
                odd.map(|_| "has a negative figure".to_owned())
            }
            _ => None,
        }
    }

    fn volume(&mut self, call: &Call, request: &csi::CreateVolumeRequest, volume: &csi::Volume) -> Option<String> {
        if volume.capacity_bytes < 0 {
            return Some("has a negative capacity".to_owned());
        }
        let asked = request.accessibility_requirements.as_ref();
        let required = asked
            .map(|asked| &asked.requisite)
            .filter(|requisite| !requisite.is_empty());
        if let Some(requisite) = required {
            let fits = |at: &csi::Topology| {
                requisite
                    .iter()
                    .any(|wanted| at.segments == wanted.segments || overlaps(at, wanted))
            };
            if volume.accessible_topology.is_empty() {
                return Some(
                    "does not say where the volume can be reached from, although that was asked for".to_owned(),
                );
            }
            if !volume.accessible_topology.iter().any(fits) {
                return Some("puts the volume where none was asked for".to_owned());
            }
        }
        self.id(call, &volume.volume_id, &request.name)
    }

    /// An id belongs to one name for ever.
    fn id(&mut self, call: &Call, id: &str, name: &str) -> Option<String> {
        if id.is_empty() || id.len() > LONGEST {
            return Some(format!("has an id of {} bytes", id.len()));
        }
        let first = self
            .names
            .entry((call.driver.to_string(), id.to_owned()))
            .or_insert_with(|| name.to_owned());
        (first != name).then(|| format!("gives {name} the id {id}, which {first} has"))
    }

    fn refused(&self, call: &Call, status: &Status) -> Option<String> {
        let CsiRequest::CreateVolume(request) = &call.request else {
            return None;
        };
        let required = request.capacity_range.map_or(0, |range| range.required_bytes);
        let key = (call.driver.to_string(), parameters(request));
        let granted = self.granted.get(&key).copied().unwrap_or(0);
        (status.code() == Code::OutOfRange && granted >= required && required > 0)
            .then(|| format!("is OUT_OF_RANGE for {required} bytes, although as much was granted before: RESOURCE_EXHAUSTED was meant"))
    }
}

fn parameters(request: &csi::CreateVolumeRequest) -> String {
    let pairs: BTreeMap<&String, &String> = request
        .parameters
        .iter()
        .filter(|(key, _)| !key.starts_with("csi.storage.k8s.io/"))
        .collect();
    format!("{pairs:?}")
}

fn overlaps(one: &csi::Topology, other: &csi::Topology) -> bool {
    let same = |(key, value): (&String, &String)| other.segments.get(key).is_none_or(|found| found == value);
    one.segments.iter().all(same)
}

/// Everything that is attached for certain.
fn published(driver: &str, view: &View<'_>) -> Published {
    let volumes = view.facts.driver(driver).map(|driver| &driver.volumes);
    let mut found = Published::new();
    for (handle, volume) in volumes.into_iter().flatten() {
        let ways = volume
            .ways
            .iter()
            .filter(|(_, way)| way.attached == State::Yes && !way.detach_asked);
        found.extend(ways.map(|(node, _)| (handle.clone(), node.clone())));
    }
    found
}

fn listed(call: &Call, reply: &csi::ListVolumesResponse, before: &Published, view: &View<'_>) -> Option<String> {
    let CsiRequest::ListVolumes(request) = &call.request else {
        return None;
    };
    let most = usize::try_from(request.max_entries).unwrap_or(0);
    if most > 0 && reply.entries.len() > most {
        return Some(format!(
            "has {} entries, and {most} were the limit",
            reply.entries.len()
        ));
    }
    if !request.starting_token.is_empty() || !reply.next_token.is_empty() {
        return None;
    }
    let driver = view.facts.driver(&call.driver)?;
    let now = published(&call.driver, view);
    for (handle, node) in before.intersection(&now) {
        let entry = reply
            .entries
            .iter()
            .find(|entry| entry.volume.as_ref().is_some_and(|volume| volume.volume_id == *handle));
        let Some(entry) = entry else {
            return Some(format!("leaves out {}, which is there", view.volume(handle)));
        };
        // Without the capability nothing is said of nodes.
        let Some(status) = &entry.status else { continue };
        if !status.published_node_ids.iter().any(|id| driver.node(id) == node) {
            return Some(format!(
                "does not name {node} among the nodes that have {}",
                view.volume(handle)
            ));
        }
    }
    None
}
