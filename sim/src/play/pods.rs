//! What pods write to their volumes and read back, and the ledger of what must be there.
//!
//! Every block says who wrote it, where, and as which write of that volume. A block that is missing, older than what was acknowledged, torn, or
//! somebody else's is told apart from one that is as it was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use wavetank_driver::VolumeId;

use super::Player;
use crate::api::{ObjKey, fields};
use crate::host::{Backing, Cell, Found, Origin, PodError, PodWrite, Stamp, VolumeKey};
use crate::runtime::Time;
use crate::scenario::{DEFAULT_NAMESPACE, Errno, Verify, Write};

/// The root of the pods' directories on a node.
const PODS: &str = "/var/lib/kubelet/pods";
/// The file that a writer uses when the scenario names none.
const FILE: &str = "data";

/// What was written to one volume, by file and block: the last acknowledged stamp.
#[derive(Clone, Debug, Default)]
pub struct Written {
    blocks: BTreeMap<(Arc<str>, u64), Entry>,
    sequence: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    stamp: Stamp,
    synced: bool,
    at: Time,
}

/// The ledgers of all volumes, by PersistentVolume, or by pod and volume for an inline one.
pub type Ledgers = BTreeMap<String, Written>;

/// A volume as one pod reaches it.
struct Reach {
    pod: String,
    uid: String,
    node: String,
    /// Its ledger: the PersistentVolume, or the pod's UID and the volume for an inline one.
    volume: String,
    /// What people call it: the claim, or pod and volume.
    label: String,
    /// Its path on the node.
    path: String,
    /// The file in it.
    file: Arc<str>,
    claim: Option<ObjKey>,
}

impl Player<'_> {
    /// A pod writes blocks.
    pub(super) async fn pod_write(&mut self, write: &Write) -> Result<(), String> {
        let reach = self.reach(
            &write.pod,
            write.namespace.as_deref(),
            write.path.as_deref(),
            write.volume.as_deref(),
        )?;
        let now = self.now();
        self.inherit(&reach);
        let ledger = self.ledgers.entry(reach.volume.clone()).or_default();
        let first = ledger.blocks.keys().filter(|(file, _)| *file == reach.file).count() as u64;
        let origin = Origin {
            pod: reach.pod.as_str().into(),
            uid: reach.uid.as_str().into(),
            node: reach.node.as_str().into(),
            volume: VolumeKey::new(reach.volume.as_str(), 0),
        };
        let request = PodWrite {
            origin: Arc::new(origin),
            path: reach.path.clone(),
            file: Arc::clone(&reach.file),
            first,
            count: write.block_count(),
            sequence: ledger.sequence + 1,
            sync: write.sync,
        };
        let machine = self
            .cluster
            .machine(&reach.node)
            .ok_or_else(|| format!("there is no node {}", reach.node))?;
        let written = machine
            .pod_write(now, &request)
            .map_err(|e| format!("{} cannot write: {e}", reach.pod))?;
        let count = written.stamps.len();
        for stamp in written.stamps {
            ledger.sequence = ledger.sequence.max(stamp.sequence);
            let entry = Entry {
                synced: written.synced,
                at: now,
                stamp: stamp.clone(),
            };
            ledger.blocks.insert((Arc::clone(&reach.file), stamp.block), entry);
        }
        if written.synced {
            ledger.blocks.values_mut().for_each(|entry| entry.synced = true);
        }
        let end = written.stopped.map_or_else(String::new, |why| format!(", then {why}"));
        self.cluster.note_step(format!(
            "{} on {} writes {count} blocks to {}{end}",
            reach.pod, reach.node, reach.label
        ));
        judge(write.expect, written.stopped, count)
    }

    /// A pod reads back what must be there.
    pub(super) async fn pod_verify(&mut self, verify: &Verify) -> Result<(), String> {
        let reach = self.reach(
            &verify.pod,
            verify.namespace.as_deref(),
            verify.path.as_deref(),
            verify.volume.as_deref(),
        )?;
        self.inherit(&reach);
        let machine = self
            .cluster
            .machine(&reach.node)
            .ok_or_else(|| format!("there is no node {}", reach.node))?;
        let read = machine
            .pod_read(&reach.uid, &reach.path)
            .map_err(|e| format!("{} cannot read: {e}", reach.pod))?;
        if read.on == Backing::NodeDisk {
            return Err(format!(
                "nothing is mounted at {} on {}: the pod reads the node's own disk",
                reach.path, reach.node
            ));
        }
        let none = Written::default();
        let ledger = self.ledgers.get(&reach.volume).unwrap_or(&none);
        compare(ledger, &read.found)?;
        if let Some(blocks) = verify.blocks
            && read.found.len() as u64 != blocks
        {
            return Err(format!("{} blocks are there, not {blocks}", read.found.len()));
        }
        self.cluster.note_step(format!(
            "{} on {} reads {} blocks of {}: as written",
            reach.pod,
            reach.node,
            read.found.len(),
            reach.label
        ));
        Ok(())
    }

    /// Every synced block of every volume that still exists is as it was written.
    pub(super) fn data_intact(&mut self) -> Result<(), String> {
        for (name, ledger) in &self.ledgers {
            let Some(volume) = self.cluster.get::<PersistentVolume>(&ObjKey::cluster(name.as_str())) else {
                continue;
            };
            let Some((_, handle)) = fields::volume_handle(volume) else {
                continue;
            };
            let Some(found) = self.cluster.contents(&VolumeId::from(handle)) else {
                continue;
            };
            let label = fields::volume_claim_key(volume).map_or_else(|| name.clone(), |claim| claim.to_string());
            compare(ledger, &found).map_err(|why| format!("{label}: {why}"))?;
        }
        Ok(())
    }

    /// The volume of a new claim with another claim as its source begins with what that one had when the copy was made.
    fn inherit(&mut self, reach: &Reach) {
        if self.ledgers.contains_key(&reach.volume) {
            return;
        }
        let Some(claim) = reach
            .claim
            .as_ref()
            .and_then(|key| self.cluster.get::<PersistentVolumeClaim>(key))
        else {
            return;
        };
        let source = claim
            .spec
            .as_ref()
            .and_then(|s| s.data_source.as_ref())
            .filter(|s| s.kind == "PersistentVolumeClaim");
        let Some(source) = source else { return };
        let from = ObjKey::new(fields::namespace(&claim.metadata), source.name.as_str());
        let cut = self.books.made_at(&ObjKey::of(&claim.metadata)).unwrap_or(Time::NEVER);
        let volumes = self.books.volumes_of(&from);
        let Some(ledger) = volumes.iter().find_map(|name| self.ledgers.get(name)) else {
            return;
        };
        let mut copy = ledger.clone();
        copy.blocks.retain(|_, entry| entry.at <= cut);
        self.ledgers.insert(reach.volume.clone(), copy);
    }

    fn reach(
        &self,
        pod: &str,
        namespace: Option<&str>,
        path: Option<&str>,
        volume: Option<&str>,
    ) -> Result<Reach, String> {
        let key = ObjKey::new(namespace.unwrap_or(DEFAULT_NAMESPACE), pod);
        let object = self
            .cluster
            .get::<Pod>(&key)
            .ok_or_else(|| format!("there is no pod {key}"))?;
        let (name, inside) = mounted(object, path, volume)?;
        let node = fields::pod_node(object);
        if node.is_empty() {
            return Err(format!("the pod {key} is on no node yet"));
        }
        let source = fields::pod_volumes(object).iter().find(|v| v.name == name);
        let source = source.ok_or_else(|| format!("the pod {key} has no volume {name}"))?;
        let uid = fields::uid(&object.metadata);
        let claim = fields::pod_claim(object, source)
            .map(|c| ObjKey::new(fields::namespace(&object.metadata), c.claim.as_ref()));
        let (label, directory, block) = match &claim {
            Some(claim) => {
                let found = self
                    .cluster
                    .get::<PersistentVolumeClaim>(claim)
                    .ok_or_else(|| format!("there is no claim {claim}"))?;
                let block = fields::claim_mode(found) == "Block";
                (claim.to_string(), fields::claim_volume(found).to_owned(), block)
            }
            None => (format!("{key}/{name}"), name.clone(), false),
        };
        let path = if block {
            format!("{PODS}/{uid}/volumeDevices/kubernetes.io~csi/{directory}")
        } else {
            format!("{PODS}/{uid}/volumes/kubernetes.io~csi/{directory}/mount")
        };
        let file = if block { Arc::from("") } else { Arc::from(inside) };
        let volume = if claim.is_some() {
            directory
        } else {
            format!("{uid}/{name}")
        };
        Ok(Reach {
            label,
            pod: key.to_string(),
            uid: uid.to_owned(),
            node: node.to_owned(),
            volume,
            path,
            file,
            claim,
        })
    }
}

/// The volume behind a path of a container (or the only one), and the file in it.
fn mounted(pod: &Pod, path: Option<&str>, volume: Option<&str>) -> Result<(String, String), String> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let mut places: Vec<(String, String)> = Vec::new();
    for container in containers {
        places.extend(
            container
                .volume_mounts
                .iter()
                .flatten()
                .map(|m| (m.mount_path.trim_end_matches('/').to_owned(), m.name.clone())),
        );
        places.extend(
            container
                .volume_devices
                .iter()
                .flatten()
                .map(|d| (d.device_path.clone(), d.name.clone())),
        );
    }
    if let Some(volume) = volume {
        return Ok((volume.to_owned(), FILE.to_owned()));
    }
    let Some(path) = path else {
        places.dedup_by(|a, b| a.1 == b.1);
        return match &places[..] {
            [(_, name)] => Ok((name.clone(), FILE.to_owned())),
            _ => Err(format!(
                "the pod mounts {} volumes: say which with `volume:` or `path:`",
                places.len()
            )),
        };
    };
    let below = places
        .iter()
        .filter_map(|(at, name)| Some((at.len(), name, path.strip_prefix(at.as_str())?)));
    let (_, name, rest) = below
        .max_by_key(|(len, ..)| *len)
        .ok_or_else(|| format!("the pod mounts nothing at {path}"))?;
    let file = rest.trim_start_matches('/');
    Ok((
        name.clone(),
        if file.is_empty() {
            FILE.to_owned()
        } else {
            file.to_owned()
        },
    ))
}

fn judge(expected: Option<Errno>, stopped: Option<PodError>, count: usize) -> Result<(), String> {
    let found = stopped.map(|error| match error {
        PodError::NoSpace => Errno::NoSpace,
        PodError::ReadOnly => Errno::ReadOnly,
        PodError::Missing | PodError::NotRunning => Errno::NoEntry,
        PodError::Io | PodError::Down => Errno::Io,
    });
    match (expected, found) {
        (None, None) => Ok(()),
        (Some(wanted), Some(found)) if wanted == found => Ok(()),
        (Some(wanted), Some(found)) => Err(format!("{found} after {count} blocks, not {wanted}")),
        (Some(wanted), None) => Err(format!(
            "all {count} blocks were written, although {wanted} was expected"
        )),
        (None, Some(found)) => Err(format!("{found} after {count} blocks")),
    }
}

/// Holds what was found against what must be there.
fn compare(ledger: &Written, found: &[Found]) -> Result<(), String> {
    let mut there: BTreeMap<(Arc<str>, u64), &Cell> = BTreeMap::new();
    for block in found {
        there.insert((Arc::clone(&block.file), block.block), &block.cell);
    }
    for (at, entry) in &ledger.blocks {
        let (wanted, place) = (&entry.stamp, format!("{}[{}]", at.0, at.1));
        match there.remove(at) {
            Some(Cell::Stamp(stamp)) if stamp == wanted => {}
            None if !entry.synced => {}
            None => return Err(format!("lost: {place} is empty, `{wanted}` was acknowledged")),
            Some(Cell::Torn(_)) if !entry.synced => {}
            Some(Cell::Torn(stamp)) => return Err(format!("torn: {place} holds half of `{stamp}`")),
            Some(Cell::Stamp(stamp)) if stamp.origin.volume != wanted.origin.volume => {
                return Err(format!("foreign: {place} holds `{stamp}`, not `{wanted}`"));
            }
            Some(Cell::Stamp(stamp)) if stamp.sequence < wanted.sequence => {
                return Err(format!(
                    "stale: {place} holds `{stamp}`, but `{wanted}` was acknowledged"
                ));
            }
            Some(Cell::Stamp(stamp)) => return Err(format!("doubled: {place} holds `{stamp}`, not `{wanted}`")),
            Some(Cell::Bytes(_)) => return Err(format!("foreign: {place} holds bytes that no pod wrote")),
        }
    }
    match there.into_iter().next() {
        None => Ok(()),
        Some(((file, block), Cell::Stamp(stamp))) => Err(format!(
            "old: {file}[{block}] holds `{stamp}`, which was never written here"
        )),
        Some(((file, block), _)) => Err(format!("old: {file}[{block}] holds bytes that were never written here")),
    }
}
