//! One object's life: which records concern it or what belongs to it.
//!
//! What belongs to an object goes one way: a claim has its volume, attachments, calls and pods; a pod has its claims and theirs; a node has its attachments,
//! its pods and the processes on it. Another pod of the same claim is of the claim's life, not of the first pod's.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::lines::spelled;
use super::lore::Lore;
use super::{Record, What};
use crate::api::{Kind, ObjKey, Object, ObjectRef, names};
use crate::link::{Call, CsiReply, CsiRequest};
use crate::scenario::{DEFAULT_NAMESPACE, KindName};

/// An object to be followed: `pvc/data`, `pod/default/web`, `node/node-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow(ObjectRef);

impl Follow {
    /// Follows this object.
    pub(super) fn target_of(object: ObjectRef) -> Follow {
        Follow(object)
    }

    /// The object.
    pub fn target(&self) -> &ObjectRef {
        &self.0
    }
}

impl FromStr for Follow {
    type Err = String;

    fn from_str(text: &str) -> Result<Follow, String> {
        let Some((kind, rest)) = text.split_once('/') else {
            return Err(format!(
                "write KIND/NAME, such as `pvc/data` or `pod/web`, not `{text}`"
            ));
        };
        let kind: KindName = serde_json::from_value(kind.into()).map_err(|e| e.to_string())?;
        let kind = kind.0;
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) if kind.namespaced() => (namespace, name),
            Some(_) => {
                return Err(format!(
                    "a {} lives in no namespace: write `{}/NAME`",
                    kind.name(),
                    kind.short()
                ));
            }
            None if kind.namespaced() => (DEFAULT_NAMESPACE, rest),
            None => ("", rest),
        };
        if name.is_empty() || (kind.namespaced() && namespace.is_empty()) {
            return Err(format!(
                "`{text}` names no {}: write `{}/NAME`",
                kind.name(),
                kind.short()
            ));
        }
        Ok(Follow(ObjectRef::new(kind, ObjKey::new(namespace, name))))
    }
}

impl fmt::Display for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.kind.short(), self.0.key)
    }
}

/// Which of a trace's records pass.
pub struct Filter {
    /// For each record; `None` when everything passes.
    passes: Option<Vec<bool>>,
}

impl Filter {
    /// Judges every record of a trace.
    pub fn new(follow: &[Follow], records: &[Record], lore: &Lore) -> Filter {
        if follow.is_empty() {
            return Filter { passes: None };
        }
        let reach: Vec<Reach<'_>> = follow.iter().map(|f| Reach::of(&f.0, records, lore)).collect();
        let mut passes = Vec::with_capacity(records.len());
        for record in records {
            // A fault is noted right behind what it strikes.
            let struck = matches!(record.what, What::Fault(_)) && passes.last() == Some(&true);
            passes.push(struck || reach.iter().any(|r| r.concerns(record)));
        }
        Filter { passes: Some(passes) }
    }

    /// Whether the n-th record passes.
    pub fn passes(&self, nth: usize) -> bool {
        self.passes.as_ref().is_none_or(|passes| passes[nth])
    }
}

/// The objects that a run has met, for whoever asks for one that it has not: the nearest first.
pub fn strangers<'a>(follow: &'a [Follow], records: &[Record]) -> Vec<(&'a Follow, Option<String>)> {
    let lore = Lore::of(records);
    let unknown = follow
        .iter()
        .filter(|f| !lore.met().contains(&f.0) && f.0.kind != Kind::Node);
    let near = |follow: &Follow| {
        let known = lore.met().iter().filter(|object| object.kind == follow.0.kind);
        let known: Vec<String> = known
            .map(|object| format!("{}/{}", object.kind.short(), super::short::key(&object.key)))
            .collect();
        let shown = format!("{}/{}", follow.0.kind.short(), super::short::key(&follow.0.key));
        crate::scenario::nearest(&shown, known.iter().map(String::as_str)).map(str::to_owned)
    };
    unknown.map(|follow| (follow, near(follow))).collect()
}

/// What belongs to one followed object.
struct Reach<'a> {
    lore: &'a Lore,
    objects: BTreeSet<ObjectRef>,
    /// Ids of the driver's volumes and snapshots.
    handles: BTreeSet<String>,
    /// Names in CreateVolume and CreateSnapshot.
    names: BTreeSet<String>,
    node: Option<String>,
    pods: BTreeSet<ObjKey>,
}

impl<'a> Reach<'a> {
    fn of(target: &ObjectRef, records: &[Record], lore: &'a Lore) -> Reach<'a> {
        let mut reach = Reach {
            lore,
            objects: BTreeSet::from([target.clone()]),
            handles: BTreeSet::new(),
            names: BTreeSet::new(),
            node: (target.kind == Kind::Node).then(|| target.key.name.to_string()),
            pods: BTreeSet::new(),
        };
        match target.kind {
            Kind::Pod => {
                reach.pods.insert(target.key.clone());
                let claims: Vec<ObjKey> = lore.claims_of_pod(&target.key).cloned().collect();
                claims.iter().for_each(|claim| reach.take_claim(claim, records, false));
            }
            Kind::PersistentVolumeClaim => reach.take_claim(&target.key, records, true),
            Kind::PersistentVolume => reach.take_volume(&target.key.name, records),
            Kind::Node => reach.take_node(&target.key.name),
            Kind::VolumeSnapshot | Kind::VolumeSnapshotContent => reach.take_snapshot(target, records),
            _ => {}
        }
        reach
    }

    fn take_claim(&mut self, claim: &ObjKey, records: &[Record], with_pods: bool) {
        let lore = self.lore;
        self.objects
            .insert(ObjectRef::new(Kind::PersistentVolumeClaim, claim.clone()));
        for met in lore.met() {
            match met.kind {
                Kind::PersistentVolume if lore.claim_of_volume(&met.key.name) == Some(claim) => {
                    self.take_volume(&met.key.name, records);
                }
                Kind::Pod if with_pods && lore.claims_of_pod(&met.key).any(|used| used == claim) => {
                    self.objects.insert(met.clone());
                }
                _ => {}
            }
        }
        for record in records {
            if let What::Call { call, .. } = &record.what
                && lore.claim_of_request(&call.request) == Some(claim)
            {
                self.take_names(&call.request);
            }
        }
    }

    fn take_volume(&mut self, volume: &str, records: &[Record]) {
        self.objects
            .insert(ObjectRef::new(Kind::PersistentVolume, ObjKey::cluster(volume)));
        self.names.insert(volume.to_owned());
        for target in self.lore.met() {
            let attached = self
                .lore
                .attachment(&target.key.name)
                .filter(|_| target.kind == Kind::VolumeAttachment);
            if attached.is_some_and(|(attached, _)| attached == volume) {
                self.objects.insert(target.clone());
            }
        }
        for record in records {
            if let What::Reply { call, .. } | What::Call { call, .. } = &record.what
                && let Some(id) = call.request.volume_id()
                && self.lore.volumes_of_handle(id).any(|known| known == volume)
            {
                self.handles.insert(id.to_owned());
            }
            if let What::Reply {
                call,
                result: Ok(CsiReply::CreateVolume(made)),
                ..
            } = &record.what
                && let (CsiRequest::CreateVolume(asked), Some(made)) = (&call.request, &made.volume)
                && asked.name == volume
            {
                self.handles.insert(made.volume_id.clone());
            }
        }
    }

    fn take_node(&mut self, node: &str) {
        self.objects
            .insert(ObjectRef::new(Kind::CSINode, ObjKey::cluster(node)));
        for target in self.lore.met() {
            let attachment = self.lore.attachment(&target.key.name);
            let here = match target.kind {
                Kind::VolumeAttachment => attachment.is_some_and(|(_, on)| on == node),
                Kind::Pod => self.lore.is_on(&target.key, node),
                _ => false,
            };
            if here {
                self.objects.insert(target.clone());
            }
        }
    }

    fn take_snapshot(&mut self, target: &ObjectRef, records: &[Record]) {
        let snapshot = match target.kind {
            Kind::VolumeSnapshotContent => self.lore.snapshot_of_content(&target.key.name).cloned(),
            _ => Some(target.key.clone()),
        };
        let Some(snapshot) = snapshot else { return };
        self.objects
            .insert(ObjectRef::new(Kind::VolumeSnapshot, snapshot.clone()));
        for met in self.lore.met().iter().filter(|o| o.kind == Kind::VolumeSnapshotContent) {
            if self.lore.snapshot_of_content(&met.key.name) == Some(&snapshot) {
                self.objects.insert(met.clone());
            }
        }
        for record in records {
            if let What::Reply {
                call,
                result: Ok(CsiReply::CreateSnapshot(made)),
                ..
            } = &record.what
                && let (CsiRequest::CreateSnapshot(asked), Some(made)) = (&call.request, &made.snapshot)
                && self.lore.snapshot_of_handle(&made.snapshot_id) == Some(&snapshot)
            {
                self.names.insert(asked.name.clone());
                self.handles.insert(made.snapshot_id.clone());
            }
        }
    }

    fn take_names(&mut self, request: &CsiRequest) {
        match request {
            CsiRequest::CreateVolume(request) => drop(self.names.insert(request.name.clone())),
            other => self.handles.extend(other.volume_id().map(str::to_owned)),
        }
    }

    fn concerns(&self, record: &Record) -> bool {
        let here = self.node.as_deref().is_some_and(|node| is_on(&record.process, node));
        match &record.what {
            What::Write { write, before, result } => {
                let after = result.as_ref().ok().map(|written| &written.object);
                here || self.objects.contains(&write.target())
                    || before.iter().chain(after).any(|object| self.concerns_object(object))
            }
            What::Call { call, .. } | What::Reply { call, .. } => here || self.concerns_call(call),
            What::Machine { .. } | What::Process(_) => here,
            What::Step(_) => true,
            What::Fault(text) => self.objects.iter().any(|object| text.contains(&spelled(object))),
        }
    }

    fn concerns_object(&self, object: &Object) -> bool {
        match object {
            Object::Event(event) => {
                let about = &event.involved_object;
                let kind = Kind::ALL.iter().find(|k| Some(k.name()) == about.kind.as_deref());
                let Some(kind) = kind else { return false };
                let namespace = about
                    .namespace
                    .clone()
                    .filter(|_| kind.namespaced())
                    .unwrap_or_default();
                let key = ObjKey::new(namespace, about.name.clone().unwrap_or_default());
                self.objects.contains(&ObjectRef::new(*kind, key))
            }
            Object::Node(node) if self.node.is_none() => {
                let status = node.status.as_ref();
                let attached = status.and_then(|s| s.volumes_attached.as_deref()).unwrap_or_default();
                let attached = attached.iter().map(|a| &a.name);
                crate::api::fields::volumes_in_use(node)
                    .iter()
                    .chain(attached)
                    .any(|name| names::driver_and_handle(name).is_some_and(|(_, handle)| self.handles.contains(handle)))
            }
            object => self.objects.contains(&object.to_ref()),
        }
    }

    fn concerns_call(&self, call: &Call) -> bool {
        let request = &call.request;
        let node = self.node.as_deref();
        match request {
            CsiRequest::CreateVolume(r) => self.names.contains(&r.name),
            CsiRequest::CreateSnapshot(r) => self.names.contains(&r.name) || self.handles.contains(&r.source_volume_id),
            CsiRequest::DeleteSnapshot(r) => self.handles.contains(&r.snapshot_id),
            CsiRequest::ControllerPublishVolume(r) if node == Some(r.node_id.as_str()) => true,
            CsiRequest::ControllerUnpublishVolume(r) if node == Some(r.node_id.as_str()) => true,
            CsiRequest::NodePublishVolume(r) if self.is_of_pod(&r.target_path) => true,
            CsiRequest::NodeUnpublishVolume(r) if self.is_of_pod(&r.target_path) => true,
            other => other.volume_id().is_some_and(|id| self.handles.contains(id)),
        }
    }

    fn is_of_pod(&self, path: &str) -> bool {
        self.lore.pod_of_path(path).is_some_and(|pod| self.pods.contains(pod))
    }
}

/// Whether a process runs on a node, by its name: `kubelet/node-1`.
fn is_on(process: &str, node: &str) -> bool {
    process.rsplit_once('/').is_some_and(|(_, on)| on == node)
}

#[cfg(test)]
mod tests {
    use super::Follow;

    #[test]
    fn objects_are_named_as_kubectl_names_them() {
        for (text, shown) in [
            ("pvc/data", "pvc/default/data"),
            ("PersistentVolumeClaim/team/data", "pvc/team/data"),
            ("pods/web", "pod/default/web"),
            ("node/node-1", "node/node-1"),
        ] {
            assert_eq!(text.parse::<Follow>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_the_way_out() {
        for (text, part) in [
            ("data", "KIND/NAME"),
            ("pcv/data", "there is no kind `pcv`"),
            ("pv/default/x", "lives in no namespace"),
            ("pvc/", "names no PersistentVolumeClaim"),
        ] {
            let error = text.parse::<Follow>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
