//! What has been seen of a run so far: calls, events, and which volume was made for which claim. Read off the trace, record by record.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Event;
use wavetank_proto::csi::v1 as csi;

use crate::api::{Kind, ObjKey, Object, ObjectRef, fields};
use crate::link::{Call, CsiReply, CsiRequest, Socket};
use crate::scenario::{Call as CallName, Code, EventType, SeenCall, SeenEvent};
use crate::trace::{Record, Trace, What};

/// What the conditions of a scenario are judged by.
#[derive(Default)]
pub struct Books {
    read: usize,
    /// Calls, in the order in which they were sent.
    pub calls: Vec<SeenCall>,
    /// Which of them are under way, by the id of the call.
    open: BTreeMap<u64, usize>,
    /// How many were answered.
    answered: u64,
    /// Events by the object they are about, newest state of each.
    events: BTreeMap<ObjectRef, BTreeMap<ObjKey, SeenEvent>>,
    /// How many writes of events about an object have been seen.
    event_writes: BTreeMap<ObjectRef, u64>,
    /// Volume handle to the key of its claim.
    handles: BTreeMap<String, ObjKey>,
    /// The PersistentVolumes that a claim has had, by name.
    volumes: BTreeMap<ObjKey, BTreeSet<String>>,
    /// Claims by UID.
    claims: BTreeMap<String, ObjKey>,
    /// Contents by the snapshot that they were made for.
    contents: BTreeMap<ObjKey, BTreeSet<String>>,
}

impl Books {
    /// Reads what is new in the trace. Says whether anything was.
    pub fn catch_up(&mut self, trace: &Trace) -> bool {
        let records = trace.records();
        let fresh = self.read < records.len();
        for record in &records[self.read..] {
            self.take(record);
        }
        self.read = records.len();
        fresh
    }

    /// Every event about an object, whether either still exists.
    pub fn events(&self, object: &ObjectRef) -> Vec<SeenEvent> {
        self.events
            .get(object)
            .into_iter()
            .flat_map(|e| e.values().cloned())
            .collect()
    }

    /// How often an event about an object was written.
    pub fn event_writes(&self, object: &ObjectRef) -> u64 {
        self.event_writes.get(object).copied().unwrap_or(0)
    }

    /// The names of the PersistentVolumes that were made for a claim or bound to it.
    pub fn volumes_of(&self, claim: &ObjKey) -> Vec<String> {
        self.volumes.get(claim).into_iter().flatten().cloned().collect()
    }

    /// The names of the VolumeSnapshotContents of a snapshot.
    pub fn contents_of(&self, snapshot: &ObjKey) -> Vec<String> {
        self.contents.get(snapshot).into_iter().flatten().cloned().collect()
    }

    /// The claim that a volume handle serves.
    pub fn claim_of(&self, handle: &str) -> Option<&ObjKey> {
        self.handles.get(handle)
    }

    /// How often a call was made or answered: while it stays, so does every judgement of calls.
    pub fn call_changes(&self) -> u64 {
        self.calls.len() as u64 + self.answered
    }

    fn take(&mut self, record: &Record) {
        match &record.what {
            What::Write {
                result: Ok(written), ..
            } => self.object(&written.object),
            What::Call { id, call } => self.sent(*id, call, &record.process),
            What::Reply { id, call, result, .. } => {
                let code = match result {
                    Ok(reply) => {
                        self.learn_handle(&call.request, reply);
                        Code::Ok
                    }
                    Err(status) => Code::of(status.code()),
                };
                if let Some(at) = self.open.remove(id) {
                    self.calls[at].code = Some(code);
                    self.answered += 1;
                }
            }
            _ => {}
        }
    }

    fn sent(&mut self, id: u64, call: &Call, caller: &str) {
        let Some(name) = CallName::parse(call.request.method()) else {
            return;
        };
        let node = call.request.node_id().map(str::to_owned).or_else(|| {
            let (_, node) = caller.split_once('/')?;
            (call.socket == Socket::Node).then(|| node.to_owned())
        });
        self.open.insert(id, self.calls.len());
        self.calls.push(SeenCall {
            call: name,
            driver: call.driver.to_string(),
            node,
            claim: self.claim_of_request(&call.request).map(spelled),
            code: None,
        });
    }

    fn object(&mut self, object: &Object) {
        match object {
            Object::PersistentVolumeClaim(claim) => {
                self.claims
                    .insert(fields::uid(&claim.metadata).to_owned(), object.key());
                let volume = fields::claim_volume(claim);
                if !volume.is_empty() {
                    self.volumes.entry(object.key()).or_default().insert(volume.to_owned());
                }
            }
            Object::PersistentVolume(volume) => {
                let Some(claim) = fields::volume_claim_key(volume) else {
                    return;
                };
                if let Some((_, handle)) = fields::volume_handle(volume) {
                    self.handles.insert(handle.to_owned(), claim.clone());
                }
                self.volumes
                    .entry(claim)
                    .or_default()
                    .insert(fields::name(&volume.metadata).to_owned());
            }
            Object::VolumeSnapshotContent(content) => {
                let reference = &content.spec.volume_snapshot_ref;
                let name = reference.name.clone().unwrap_or_default();
                let snapshot = ObjKey::new(reference.namespace.clone().unwrap_or_default(), name);
                self.contents
                    .entry(snapshot)
                    .or_default()
                    .insert(fields::name(&content.metadata).to_owned());
            }
            Object::Event(event) => self.event(event),
            _ => {}
        }
    }

    fn event(&mut self, event: &Event) {
        let about = &event.involved_object;
        let kind = Kind::ALL.iter().find(|k| Some(k.name()) == about.kind.as_deref());
        let Some(kind) = kind else { return };
        let namespace = if kind.namespaced() {
            about.namespace.clone().unwrap_or_default()
        } else {
            String::new()
        };
        let target = ObjectRef::new(*kind, ObjKey::new(namespace, about.name.clone().unwrap_or_default()));
        let count = event
            .count
            .or_else(|| event.series.as_ref().and_then(|s| s.count))
            .unwrap_or(1);
        let seen = SeenEvent {
            reason: event.reason.clone().unwrap_or_default(),
            type_: if event.type_.as_deref() == Some("Warning") {
                EventType::Warning
            } else {
                EventType::Normal
            },
            message: event.message.clone().unwrap_or_default(),
            count: u32::try_from(count).unwrap_or(1),
        };
        *self.event_writes.entry(target.clone()).or_default() += 1;
        self.events
            .entry(target)
            .or_default()
            .insert(ObjKey::of(&event.metadata), seen);
    }

    fn learn_handle(&mut self, request: &CsiRequest, reply: &CsiReply) {
        if let (
            CsiRequest::CreateVolume(request),
            CsiReply::CreateVolume(csi::CreateVolumeResponse { volume: Some(volume) }),
        ) = (request, reply)
            && let Some(claim) = self.claim_by_name(&request.name).cloned()
        {
            self.handles.insert(volume.volume_id.clone(), claim);
        }
    }

    fn claim_by_name(&self, volume_name: &str) -> Option<&ObjKey> {
        let (_, uid) = volume_name.split_once('-')?;
        self.claims.get(uid)
    }

    /// The claim that a request is about.
    pub fn claim_of_request(&self, request: &CsiRequest) -> Option<&ObjKey> {
        match request {
            CsiRequest::CreateVolume(request) => self.claim_by_name(&request.name),
            other => self.claim_of(other.volume_id()?),
        }
    }
}

fn spelled(claim: &ObjKey) -> String {
    if &*claim.namespace == "default" {
        claim.name.to_string()
    } else {
        claim.to_string()
    }
}
