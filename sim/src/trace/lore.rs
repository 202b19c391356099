//! What belongs to what, as a trace tells it: volumes to claims, calls to volumes, pods to claims. Read once before rendering; never judged by.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Kind, ObjKey, Object, ObjectRef, fields};
use crate::link::{CsiReply, CsiRequest};

use super::{Record, What};

/// The relations between the objects of a run.
#[derive(Debug, Default)]
pub struct Lore {
    /// Claims and pods by UID.
    by_uid: BTreeMap<String, ObjectRef>,
    /// The claim that a PersistentVolume is for.
    claim_of_volume: BTreeMap<String, ObjKey>,
    /// The PersistentVolumes of a driver's volume: several when one is adopted.
    volumes_of_handle: BTreeMap<String, BTreeSet<String>>,
    /// What CreateVolume was asked to make: the claim behind a volume that has no PersistentVolume yet.
    claim_of_handle: BTreeMap<String, ObjKey>,
    /// The claim that bound a driver's volume last.
    latest: BTreeMap<String, ObjKey>,
    /// The snapshot behind a driver's snapshot.
    snapshot_of_handle: BTreeMap<String, ObjKey>,
    /// Volume and node of an attachment.
    attachments: BTreeMap<String, (String, String)>,
    /// Claims that a pod uses.
    claims_of_pod: BTreeMap<ObjKey, BTreeSet<ObjKey>>,
    node_of_pod: BTreeMap<ObjKey, BTreeSet<String>>,
    /// The snapshot that a VolumeSnapshotContent is for.
    snapshot_of_content: BTreeMap<String, ObjKey>,
    met: BTreeSet<ObjectRef>,
}

impl Lore {
    /// Reads a whole trace.
    pub fn of(records: &[Record]) -> Lore {
        let mut lore = Lore::default();
        records.iter().for_each(|record| lore.take(record));
        lore
    }

    /// Learns from one more record.
    pub fn take(&mut self, record: &Record) {
        match &record.what {
            What::Write {
                write, before, result, ..
            } => {
                before.iter().for_each(|object| self.object(object));
                let met = match result {
                    Ok(written) => {
                        self.object(&written.object);
                        written.object.to_ref()
                    }
                    Err(_) => write.target(),
                };
                self.met.insert(met);
            }
            What::Reply {
                call,
                result: Ok(reply),
                ..
            } => self.reply(&call.request, reply),
            _ => {}
        }
    }

    /// Every object that was written to or tried to be.
    pub fn met(&self) -> &BTreeSet<ObjectRef> {
        &self.met
    }

    /// The claim that a request serves.
    pub fn claim_of_request(&self, request: &CsiRequest) -> Option<&ObjKey> {
        match request {
            CsiRequest::CreateVolume(request) => self.claim_by_volume_name(&request.name),
            other => self.claim_of_handle(other.volume_id()?),
        }
    }

    /// The claim whose volume a driver calls by this id.
    pub fn claim_of_handle(&self, handle: &str) -> Option<&ObjKey> {
        let volumes = self.volumes_of_handle.get(handle);
        volumes
            .into_iter()
            .flatten()
            .find_map(|volume| self.claim_of_volume.get(volume))
            .or_else(|| self.claim_of_handle.get(handle))
    }

    /// The claim that a driver's volume served last: a retained volume that another claim adopts is that claim's.
    pub fn latest_claim_of_handle(&self, handle: &str) -> Option<&ObjKey> {
        self.latest.get(handle).or_else(|| self.claim_of_handle(handle))
    }

    /// The claim that a PersistentVolume is for.
    pub fn claim_of_volume(&self, volume: &str) -> Option<&ObjKey> {
        self.claim_of_volume.get(volume)
    }

    /// The PersistentVolumes that stand for a driver's volume.
    pub fn volumes_of_handle(&self, handle: &str) -> impl Iterator<Item = &String> {
        self.volumes_of_handle.get(handle).into_iter().flatten()
    }

    /// The pod that a path of kubelet belongs to.
    pub fn pod_of_path(&self, path: &str) -> Option<&ObjKey> {
        let mut parts = path.split('/');
        parts.find_map(|part| self.by_uid.get(part).filter(|o| o.kind == Kind::Pod).map(|o| &o.key))
    }

    /// The volume and the node of an attachment.
    pub fn attachment(&self, name: &str) -> Option<(&str, &str)> {
        self.attachments
            .get(name)
            .map(|(volume, node)| (volume.as_str(), node.as_str()))
    }

    /// The claims that a pod uses.
    pub fn claims_of_pod(&self, pod: &ObjKey) -> impl Iterator<Item = &ObjKey> {
        self.claims_of_pod.get(pod).into_iter().flatten()
    }

    /// Whether a pod was ever bound to a node.
    pub fn is_on(&self, pod: &ObjKey, node: &str) -> bool {
        self.node_of_pod.get(pod).is_some_and(|nodes| nodes.contains(node))
    }

    /// The snapshot that a VolumeSnapshotContent is for.
    pub fn snapshot_of_content(&self, content: &str) -> Option<&ObjKey> {
        self.snapshot_of_content.get(content)
    }

    /// The snapshot that a driver calls by this id.
    pub fn snapshot_of_handle(&self, handle: &str) -> Option<&ObjKey> {
        self.snapshot_of_handle.get(handle)
    }

    /// The snapshot controller names contents, and the snapshotter snapshots, after the UID of the VolumeSnapshot.
    pub fn snapshot_by_name(&self, name: &str) -> Option<&ObjKey> {
        let uid = name.split_once('-')?.1;
        let found = self
            .by_uid
            .get(uid)
            .filter(|object| object.kind == Kind::VolumeSnapshot);
        found.map(|object| &object.key)
    }

    /// The external-provisioner names volumes after the UID of their claim.
    fn claim_by_volume_name(&self, name: &str) -> Option<&ObjKey> {
        let uid = name.split_once('-')?.1;
        let found = self
            .by_uid
            .get(uid)
            .filter(|object| object.kind == Kind::PersistentVolumeClaim);
        found.map(|object| &object.key)
    }

    fn object(&mut self, object: &Object) {
        let key = object.key();
        match object {
            Object::PersistentVolumeClaim(claim) => {
                self.by_uid.insert(object.uid().to_owned(), object.to_ref());
                let volume = fields::claim_volume(claim);
                if !volume.is_empty() {
                    self.claim_of_volume.entry(volume.to_owned()).or_insert(key);
                }
            }
            Object::PersistentVolume(volume) => {
                let name = key.name.to_string();
                if let Some((_, handle)) = fields::volume_handle(volume) {
                    self.volumes_of_handle
                        .entry(handle.to_owned())
                        .or_default()
                        .insert(name.clone());
                }
                if let Some(claim) = fields::volume_claim_key(volume) {
                    if let Some((_, handle)) = fields::volume_handle(volume) {
                        self.latest.insert(handle.to_owned(), claim.clone());
                    }
                    self.claim_of_volume.insert(name, claim);
                }
            }
            Object::VolumeAttachment(attachment) => {
                let volume = fields::attachment_volume(attachment).to_owned();
                let about = (volume, attachment.spec.node_name.clone());
                self.attachments.insert(key.name.to_string(), about);
            }
            Object::Pod(pod) => {
                self.by_uid.insert(object.uid().to_owned(), object.to_ref());
                let claims = fields::pod_claims(pod).map(|c| ObjKey::new(key.namespace.clone(), &*c.claim));
                self.claims_of_pod.entry(key.clone()).or_default().extend(claims);
                let node = fields::pod_node(pod);
                if !node.is_empty() {
                    self.node_of_pod.entry(key).or_default().insert(node.to_owned());
                }
            }
            Object::VolumeSnapshot(_) => {
                self.by_uid.insert(object.uid().to_owned(), object.to_ref());
            }
            Object::VolumeSnapshotContent(content) => {
                let about = &content.spec.volume_snapshot_ref;
                let (namespace, name) = (about.namespace.as_deref(), about.name.as_deref());
                let snapshot = ObjKey::new(namespace.unwrap_or_default(), name.unwrap_or_default());
                let handle = content.status.as_ref().and_then(|s| s.snapshot_handle.clone());
                if let Some(handle) = handle.or_else(|| content.spec.source.snapshot_handle.clone()) {
                    self.snapshot_of_handle.insert(handle, snapshot.clone());
                }
                self.snapshot_of_content.insert(key.name.to_string(), snapshot);
            }
            _ => {}
        }
    }

    fn reply(&mut self, request: &CsiRequest, reply: &CsiReply) {
        if let (CsiRequest::CreateVolume(request), CsiReply::CreateVolume(reply)) = (request, reply)
            && let Some(volume) = &reply.volume
            && let Some(claim) = self.claim_by_volume_name(&request.name)
        {
            let claim = claim.clone();
            self.claim_of_handle.insert(volume.volume_id.clone(), claim);
        }
    }
}
