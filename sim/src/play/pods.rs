//! What pods write to their volumes and read back.
//!
//! Every block says who wrote it, where, and as which write of that volume. The cluster's witness knows what must be there; a block that is missing,
//! older than what was acknowledged, torn, or somebody else's is told apart from one that is as it was written.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use super::Player;
use crate::api::{ObjKey, fields};
use crate::cluster::Cluster;
use crate::host::{Backing, Machine, Origin, PodError, PodWrite, Report, VolumeKey};
use crate::oracles::data;
use crate::scenario::{DEFAULT_NAMESPACE, Errno, Verify, Write};

/// The root of the pods' directories on a node.
const PODS: &str = "/var/lib/kubelet/pods";
/// The file that a writer uses when the scenario names none.
const FILE: &str = "data";

/// A volume as one pod reaches it.
struct Reach {
    pod: String,
    uid: String,
    node: String,
    /// What people call it: the claim, or pod and volume.
    label: String,
    /// Its path on the node.
    path: String,
    /// The file in it.
    file: Arc<str>,
    /// The driver and handle that must be behind the path. None for an inline volume, whose handle is kubelet's.
    volume: Option<(String, String)>,
}

impl Reach {
    fn machine<'a>(&self, cluster: &'a Cluster) -> Result<&'a Machine, String> {
        cluster
            .machine(&self.node)
            .ok_or_else(|| format!("there is no node {}", self.node))
    }

    /// How the witness knows the volume that the pod means.
    fn key(&self, cluster: &mut Cluster) -> Result<VolumeKey, String> {
        if let Some((driver, handle)) = &self.volume {
            return Ok(cluster.volume_key(driver, handle));
        }
        let backing = self.machine(cluster)?.pod_backing(&self.uid, &self.path);
        match backing.map_err(|e| format!("{} cannot use {}: {e}", self.pod, self.label))? {
            Backing::Volume { driver, id } => Ok(cluster.volume_key(&driver, id.as_str())),
            Backing::Mounted(_) => Ok(cluster.volume_key(&self.uid, &self.path)),
            Backing::NodeDisk => Err(self.nothing_mounted()),
        }
    }

    fn nothing_mounted(&self) -> String {
        format!(
            "nothing is mounted at {} on {}: the pod has the node's own disk",
            self.path, self.node
        )
    }

    /// That the path leads to the volume that the pod means.
    fn judge(&self, on: &Backing) -> Result<(), String> {
        match (on, &self.volume) {
            (Backing::NodeDisk, _) => Err(self.nothing_mounted()),
            (Backing::Volume { driver, id }, Some((wanted, handle)))
                if **driver != **wanted || id.as_str() != handle =>
            {
                Err(format!(
                    "{} on {} leads to the volume {id} of {driver}, not to {handle} of {wanted}",
                    self.path, self.node
                ))
            }
            (Backing::Volume { .. } | Backing::Mounted(_), _) => Ok(()),
        }
    }
}

impl Player<'_> {
    /// A pod writes blocks behind those that are there.
    pub(super) async fn pod_write(&mut self, write: &Write) -> Result<(), String> {
        let reach = self.reach(
            &write.pod,
            write.namespace.as_deref(),
            write.path.as_deref(),
            write.volume.as_deref(),
        )?;
        let key = reach.key(&mut self.cluster)?;
        let (now, witnesses) = (self.now(), self.cluster.witnesses());
        let origin = Origin {
            pod: reach.pod.as_str().into(),
            uid: reach.uid.as_str().into(),
            node: reach.node.as_str().into(),
            volume: key.clone(),
        };
        let request = PodWrite {
            origin: Arc::new(origin),
            path: reach.path.clone(),
            file: Arc::clone(&reach.file),
            first: witnesses.next_block(&key, &reach.file),
            count: write.block_count(),
            sequence: witnesses.next_sequence(&key),
            sync: write.sync,
        };
        let written = reach
            .machine(&self.cluster)?
            .pod_write(now, &request)
            .map_err(|e| format!("{} cannot write: {e}", reach.pod))?;
        self.cluster.witnesses().wrote(&key, &written);
        let count = written.stamps.len();
        let end = written.stopped.map_or_else(String::new, |why| format!(", then {why}"));
        self.cluster.note_step(format!(
            "{} on {} writes {count} blocks to {}{end}",
            reach.pod, reach.node, reach.label
        ));
        if write.expect.is_some() && self.is_off_script() {
            return Ok(());
        }
        judge(write.expect, written.stopped, count)
    }

    /// A pod reads back what must be there: one file if a path is given, else the whole volume.
    pub(super) async fn pod_verify(&mut self, verify: &Verify) -> Result<(), String> {
        let reach = self.reach(
            &verify.pod,
            verify.namespace.as_deref(),
            verify.path.as_deref(),
            verify.volume.as_deref(),
        )?;
        let key = reach.key(&mut self.cluster)?;
        let mut read = reach
            .machine(&self.cluster)?
            .pod_read(&reach.uid, &reach.path)
            .map_err(|e| format!("{} cannot read: {e}", reach.pod))?;
        if let Err(complaint) = reach.judge(&read.on) {
            let accused = self.panel.view(&self.cluster);
            let violation = data::elsewhere(&reach.label, &complaint, &accused);
            self.panel.accuse(violation);
            return Err(complaint);
        }
        let mut report = self.cluster.witnesses().verify(&key, &read);
        if verify.path.is_some() {
            read.found.retain(|found| found.file == reach.file);
            report.findings.retain(|finding| finding.file == reach.file);
        }
        self.sound(&reach.label, &report)?;
        let count = read.found.len();
        if let Some(blocks) = verify.blocks
            && count as u64 != blocks
            && !self.is_off_script()
        {
            return Err(format!("{count} blocks are there, not {blocks}"));
        }
        self.cluster.note_step(format!(
            "{} on {} reads {count} blocks of {}: as written",
            reach.pod, reach.node, reach.label
        ));
        Ok(())
    }

    /// Every synced block of every volume that still exists is as it was written.
    pub(super) fn data_intact(&mut self) -> Result<(), String> {
        for (handle, report) in self.cluster.verify_volumes() {
            let claim = self.books.claim_of(&handle);
            let label = claim.map_or_else(|| format!("volume {handle}"), ToString::to_string);
            self.sound(&label, &report)?;
        }
        Ok(())
    }

    /// What is not sound breaks a promise.
    fn sound(&mut self, label: &str, report: &Report) -> Result<(), String> {
        let view = self.panel.view(&self.cluster);
        let Some(violation) = data::broken(label, report, &view) else {
            return Ok(());
        };
        let text = violation.text.clone();
        self.panel.accuse(violation);
        Err(text)
    }

    /// Holds every volume's device against what pods were told of it.
    pub(super) fn look_at_data(&mut self) {
        // What is not sound is kept by the panel.
        let _ = self.data_intact();
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
        let claimed = claim.as_ref().map(|claim| self.claimed(claim)).transpose()?;
        let block = claimed.as_ref().is_some_and(|claimed| claimed.block);
        let directory = claimed
            .as_ref()
            .map_or(name.as_str(), |claimed| claimed.volume.as_str());
        let path = if block {
            format!("{PODS}/{uid}/volumeDevices/kubernetes.io~csi/{directory}")
        } else {
            format!("{PODS}/{uid}/volumes/kubernetes.io~csi/{directory}/mount")
        };
        Ok(Reach {
            label: claim.map_or_else(|| format!("{key}/{name}"), |claim| claim.to_string()),
            pod: key.to_string(),
            uid: uid.to_owned(),
            node: node.to_owned(),
            path,
            file: if block { Arc::from("") } else { Arc::from(inside) },
            volume: claimed.map(|claimed| (claimed.driver, claimed.handle)),
        })
    }

    /// What a claim is bound to.
    fn claimed(&self, claim: &ObjKey) -> Result<Claimed, String> {
        let found = self.cluster.get::<PersistentVolumeClaim>(claim);
        let found = found.ok_or_else(|| format!("there is no claim {claim}"))?;
        let name = fields::claim_volume(found).to_owned();
        if name.is_empty() {
            return Err(format!("the claim {claim} has no volume yet"));
        }
        let volume = self.cluster.get::<PersistentVolume>(&ObjKey::cluster(name.as_str()));
        let volume = volume.ok_or_else(|| format!("there is no PersistentVolume {name}"))?;
        let (driver, handle) = fields::volume_handle(volume)
            .ok_or_else(|| format!("the PersistentVolume {name} belongs to no CSI driver"))?;
        Ok(Claimed {
            block: fields::claim_mode(found) == "Block",
            driver: driver.to_owned(),
            handle: handle.to_owned(),
            volume: name,
        })
    }
}

struct Claimed {
    volume: String,
    driver: String,
    handle: String,
    block: bool,
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
