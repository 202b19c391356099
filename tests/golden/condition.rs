//! What the script waited for, read from the words of its log.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use wavetank_sim::api::{Kind, ObjKey, ObjectRef, fields};
use wavetank_sim::cluster::{Cluster, Liveness};
use wavetank_sim::trace::What;

use crate::fixture::Fixture;

/// Something that is waited for.
pub enum Condition {
    ClaimBound(ObjKey),
    ClaimCapacity(ObjKey, String),
    PodReady(ObjKey),
    PodDeleting(ObjKey),
    Gone(ObjectRef),
    NoAttachment(String),
    Attached(usize),
    VolumeCapacity(String),
    VolumeReleased,
    /// The only claim has these attributes now.
    Attributes(String),
    /// No claim is being modified.
    Modified,
    NodeReady(ObjKey, bool),
    /// So many calls of the method have failed.
    Failures(String, usize),
    EventSeen(String),
    Exited(String),
}

impl Condition {
    /// Whether a step is one that the script waited for.
    pub fn is_waited_for(action: &str) -> bool {
        ["observed: ", "process exited on its own: "]
            .iter()
            .any(|prefix| action.starts_with(prefix))
    }

    /// What the step waits for, if it waits.
    pub fn of(fixture: &Fixture, nth: usize) -> Result<Option<Condition>, String> {
        let step = &fixture.steps[nth];
        if let Some(process) = step.action.strip_prefix("process exited on its own: ") {
            return Ok(Some(Condition::Exited(process.to_owned())));
        }
        let Some(text) = step.action.strip_prefix("observed: ") else {
            return Ok(None);
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let key = |name: &str| ObjKey::new(fixture.namespace.as_str(), name);
        Ok(Some(match words[..] {
            ["pvc", name, "Bound"] => Condition::ClaimBound(key(name)),
            ["pvc", name, "capacity", size] => Condition::ClaimCapacity(key(name), size.to_owned()),
            ["pod", name, "Running+Ready"] => Condition::PodReady(key(name)),
            ["pv", "Released"] => Condition::VolumeReleased,
            ["pv", size] => Condition::VolumeCapacity(size.to_owned()),
            ["event", reason] => Condition::EventSeen(reason.to_owned()),
            ["no", "VolumeAttachment", "for", volume] => Condition::NoAttachment(volume_of(fixture, volume)),
            [count, "VolumeAttachments", "attached"] => Condition::Attached(count.parse().map_err(|_| "no count")?),
            ["PersistentVolume", volume, "gone"] => {
                let claim = volume_of(fixture, volume);
                Condition::Gone(ObjectRef::new(Kind::PersistentVolume, ObjKey::cluster(claim.as_str())))
            }
            [kind, name, "gone"] => {
                let kind = Kind::ALL.iter().find(|k| k.name() == kind).ok_or("no such kind")?;
                Condition::Gone(ObjectRef::new(*kind, key(name)))
            }
            ["current", "VAC", class] => Condition::Attributes(class.to_owned()),
            ["modifyVolumeStatus", "cleared"] => Condition::Modified,
            [pod, "deletionTimestamp"] => Condition::PodDeleting(key(pod)),
            [node, "Ready"] => Condition::NodeReady(ObjKey::cluster(node), true),
            [node, "Ready!=True"] => Condition::NodeReady(ObjKey::cluster(node), false),
            ["rpc", method, ..] => failures(fixture, nth, method),
            ["2nd", "stage", "failures"] => failures(fixture, nth, "NodeStageVolume"),
            _ => return Err("nobody knows how to see this".into()),
        }))
    }

    /// Whether it is so.
    pub fn holds(&self, cluster: &Cluster) -> bool {
        match self {
            Condition::ClaimBound(key) => cluster
                .get::<PersistentVolumeClaim>(key)
                .is_some_and(|c| phase_of_claim(c) == "Bound"),
            Condition::ClaimCapacity(key, size) => {
                let capacity = |claim: &PersistentVolumeClaim| claim.status.as_ref()?.capacity.clone();
                let found = cluster.get::<PersistentVolumeClaim>(key).and_then(|c| capacity(c));
                found.is_some_and(|c| c.get("storage").is_some_and(|q| q.0 == *size))
            }
            Condition::PodReady(key) => cluster.get::<Pod>(key).is_some_and(|pod| is_ready(pod)),
            Condition::PodDeleting(key) => cluster
                .get::<Pod>(key)
                .is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()),
            Condition::Gone(target) => {
                let name = real_name(cluster, &target.key.name);
                let key = ObjKey {
                    name: name.as_str().into(),
                    ..target.key.clone()
                };
                cluster.object(target.kind, &key).is_none()
            }
            Condition::NoAttachment(volume) => {
                let name = real_name(cluster, volume);
                let mut all = cluster.api().list::<VolumeAttachment>();
                !all.any(|va| fields::attachment_volume(va) == name)
            }
            Condition::Attached(count) => {
                let attached = |va: &&std::sync::Arc<VolumeAttachment>| va.status.as_ref().is_some_and(|s| s.attached);
                cluster.api().list::<VolumeAttachment>().filter(attached).count() == *count
            }
            Condition::VolumeCapacity(size) => cluster.api().list::<PersistentVolume>().any(|pv| {
                let capacity = pv.spec.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
                capacity.is_some_and(|q| q.0 == *size)
            }),
            Condition::VolumeReleased => {
                let phase = |pv: &PersistentVolume| pv.status.as_ref().and_then(|s| s.phase.clone());
                cluster
                    .api()
                    .list::<PersistentVolume>()
                    .any(|pv| phase(pv).as_deref() == Some("Released"))
            }
            Condition::Attributes(class) => {
                claims(cluster).all(|status| status.current_volume_attributes_class_name.as_ref() == Some(class))
            }
            Condition::Modified => claims(cluster).all(|status| status.modify_volume_status.is_none()),
            Condition::NodeReady(key, wanted) => cluster.get::<Node>(key).is_some_and(|n| node_ready(n) == *wanted),
            Condition::Failures(method, count) => failed(cluster, method) >= *count,
            Condition::EventSeen(reason) => {
                let mut events = cluster.api().list::<k8s_openapi::api::core::v1::Event>();
                events.any(|event| event.reason.as_deref() == Some(reason))
            }
            Condition::Exited(process) => cluster
                .process(process)
                .is_some_and(|id| cluster.liveness(id) == Liveness::Down),
        }
    }
}

fn claims(cluster: &Cluster) -> impl Iterator<Item = &PersistentVolumeClaimStatus> {
    cluster
        .api()
        .list::<PersistentVolumeClaim>()
        .filter_map(|claim| claim.status.as_ref())
}

fn phase_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    status.phase.as_deref() == Some("Running") && ready
}

fn node_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// As many failures as the recording had when the script saw them.
fn failures(fixture: &Fixture, nth: usize, method: &str) -> Condition {
    let seen = fixture.steps[nth].t_ms;
    let calls = fixture
        .seen
        .rpcs
        .iter()
        .filter(|r| r.method == method && r.code != "OK");
    Condition::Failures(method.to_owned(), calls.filter(|r| r.t_ms + r.dur_ms <= seen).count())
}

fn failed(cluster: &Cluster, method: &str) -> usize {
    let records = cluster.trace().records().iter();
    let failed = records.filter(|record| match &record.what {
        What::Reply { call, result, .. } => call.request.method() == method && result.is_err(),
        _ => false,
    });
    failed.count()
}

/// `volume of CLAIM nth`: a recorded volume by its claim, because its name holds the claim's uid.
fn volume_of(fixture: &Fixture, volume: &str) -> String {
    let uid = volume.strip_prefix("pvc-").unwrap_or(volume);
    let mut uids: Vec<(&str, &str)> = Vec::new();
    for change in fixture
        .seen
        .objects
        .iter()
        .filter(|c| c.kind == "PersistentVolumeClaim")
    {
        let found = change.object["metadata"]["uid"].as_str().unwrap_or_default();
        if !uids.iter().any(|(_, known)| *known == found) {
            uids.push((&change.name, found));
        }
    }
    let Some(claim) = uids.iter().find(|(_, found)| *found == uid).map(|(name, _)| *name) else {
        return volume.to_owned();
    };
    let nth = uids
        .iter()
        .filter(|(name, _)| *name == claim)
        .position(|(_, found)| *found == uid);
    format!("volume of {claim} {}", nth.unwrap_or_default())
}

/// The model's name of a recorded volume.
pub fn here(cluster: &Cluster, fixture: &Fixture, volume: &str) -> Option<String> {
    let spelled = volume_of(fixture, volume);
    (spelled != volume).then(|| real_name(cluster, &spelled))
}

fn real_name(cluster: &Cluster, spelled: &str) -> String {
    let Some((claim, nth)) = spelled.strip_prefix("volume of ").and_then(|rest| rest.split_once(' ')) else {
        return spelled.to_owned();
    };
    let created = cluster
        .trace()
        .records()
        .iter()
        .filter_map(|record| match &record.what {
            What::Write {
                write,
                result: Ok(written),
                ..
            } if write.verb() == "create" => Some(&written.object),
            _ => None,
        });
    let mut claims = created.filter(|o| o.kind() == Kind::PersistentVolumeClaim && *o.to_ref().key.name == *claim);
    let nth: usize = nth.parse().unwrap_or_default();
    claims
        .nth(nth)
        .map_or_else(|| spelled.to_owned(), |claim| format!("pvc-{}", claim.uid()))
}
