//! What a client may ask of the API server: reads and writes as data.
//!
//! A controller's effect holds one of these, so that a decision can be compared in a plain unit test and printed in the trace. Patches are lists of
//! typed edits and not JSON: the wire form of a patch does not matter to the model, its conflict rules do. Users' patches are JSON (`Edit::Merge`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    AttachedVolume, NodeStatus, PersistentVolumeClaimStatus, PersistentVolumeStatus, PodStatus, Taint,
};
use k8s_openapi::api::storage::v1::VolumeAttachmentStatus;

use super::object::{ObjKey, Object, ObjectRef};
use super::snapshot::{VolumeSnapshotContentStatus, VolumeSnapshotStatus};

/// A mutating request.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// POST.
    Create(Object),
    /// PUT of the whole object: 409 when its resourceVersion is not the stored one. The status in it is ignored.
    Update(Object),
    /// PUT of the status subresource: the spec in it is ignored; metadata such as annotations may change.
    UpdateStatus(Object),
    /// PATCH.
    Patch(Patch),
    /// POST of the pod's `binding` subresource: sets `spec.nodeName` once.
    Bind {
        /// The pod.
        pod: ObjKey,
        /// Its UID, checked when given.
        uid: Option<String>,
        /// The chosen node.
        node: String,
    },
    /// DELETE.
    Delete(Delete),
}

/// A PATCH: edits that the server applies to the newest object.
#[derive(Clone, PartialEq)]
pub struct Patch {
    /// The object.
    pub target: ObjectRef,
    /// Whether it goes to the `status` subresource.
    pub status: bool,
    /// The resourceVersion in its body: 409 when stale. Without one the edits are applied to the newest object.
    pub version: Option<u64>,
    /// The UID in its body: 409 when it is another object by now.
    pub uid: Option<String>,
    /// What changes, in order.
    pub edits: Vec<Edit>,
}

/// Everything but what is written into Secrets.
impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Patch");
        shown.field("target", &self.target).field("status", &self.status);
        shown.field("version", &self.version).field("uid", &self.uid);
        if self.target.kind == super::object::Kind::Secret {
            shown.finish_non_exhaustive()
        } else {
            shown.field("edits", &self.edits).finish()
        }
    }
}

/// A DELETE with its options.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// The object.
    pub target: ObjectRef,
    /// Precondition: 409 when it is another object by now.
    pub uid: Option<String>,
    /// Precondition: 409 when it has changed since.
    pub version: Option<u64>,
    /// `gracePeriodSeconds`; the pod's own when absent.
    pub grace_seconds: Option<i64>,
}

/// One change of a patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Adds a finalizer if it is missing (strategic merge).
    AddFinalizer(String),
    /// Appends a finalizer (JSON patch `add` at the end); guarded by a `test` for an empty list when the client saw none.
    AppendFinalizer {
        /// The finalizer.
        name: String,
        /// The client saw no finalizers: 422 when there are some by now.
        expect_none: bool,
    },
    /// Removes a finalizer; no effect when absent (strategic merge).
    RemoveFinalizer(String),
    /// Removes the finalizer at an index after a JSON patch `test`: 422 when another stands there by now.
    RemoveFinalizerAt {
        /// The finalizer expected there.
        name: String,
        /// Where the client saw it.
        index: usize,
    },
    /// Sets an annotation, or removes it with `None`.
    Annotation(String, Option<String>),
    /// Sets a label, or removes it with `None`.
    Label(String, Option<String>),
    /// Replaces the whole status of a claim.
    ClaimStatus(Box<PersistentVolumeClaimStatus>),
    /// Changes in the status of a claim what differs between the two (strategic merge, see [`super::merge::claim_status`]).
    MergeClaimStatus {
        /// What the client had.
        from: Box<PersistentVolumeClaimStatus>,
        /// What it wants.
        to: Box<PersistentVolumeClaimStatus>,
    },
    /// Sets `spec.capacity.storage` of a volume, in bytes.
    VolumeCapacity(u64),
    /// Sets `spec.volumeAttributesClassName` of a volume.
    VolumeAttributesClass(Option<String>),
    /// Replaces the whole status of a volume.
    VolumeStatus(Box<PersistentVolumeStatus>),
    /// Replaces the whole status of an attachment.
    AttachmentStatus(Box<VolumeAttachmentStatus>),
    /// Replaces `status.volumesAttached` of a node.
    VolumesAttached(Vec<AttachedVolume>),
    /// Replaces `status.volumesInUse` of a node.
    VolumesInUse(Vec<String>),
    /// Replaces the whole status of a node.
    NodeStatus(Box<NodeStatus>),
    /// Replaces `spec.taints` of a node.
    Taints(Vec<Taint>),
    /// Sets `spec.unschedulable` of a node.
    Unschedulable(bool),
    /// Replaces the whole status of a pod.
    PodStatus(Box<PodStatus>),
    /// Replaces the whole status of a snapshot.
    SnapshotStatus(Box<VolumeSnapshotStatus>),
    /// Replaces the whole status of a snapshot content.
    SnapshotContentStatus(Box<VolumeSnapshotContentStatus>),
    /// Sets count, last timestamp, message and reason of an event that is seen again.
    EventSeen {
        /// How often by now.
        count: i32,
        /// Seconds and nanoseconds are the server's; this replaces the message when the correlator aggregated it.
        message: Option<String>,
    },
    /// Starts or continues the series of an event of the newer events API.
    EventSeries {
        /// How often by now.
        count: i32,
    },
    /// A strategic merge patch, as a user sends it.
    Strategic(serde_json::Value),
    /// An RFC 7386 merge patch, as a user sends it.
    Merge(serde_json::Value),
    /// An RFC 6902 patch, as a user sends it.
    Json(serde_json::Value),
}

/// A read that goes to the server and not to an informer.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// GET.
    Get(ObjectRef),
    /// LIST of a kind, in one namespace when given.
    List {
        /// The kind.
        kind: super::object::Kind,
        /// The namespace, or everything.
        namespace: Option<String>,
    },
}

/// What the server answers to a read.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadAnswer {
    /// The object of a GET.
    Object(Object),
    /// The objects of a LIST, in order of key.
    List(Vec<Object>),
}

/// What the server answers to a successful write.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The object as stored now; for a completed deletion its last state.
    pub object: Object,
    /// Whether anything changed: a write of equal bytes keeps the resourceVersion and wakes no watcher.
    pub changed: bool,
}

/// Why the server refused, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// `reason` of the Status object, e.g. `Conflict`.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl ApiError {
    /// 404 or 410: the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// 409 with reason `Conflict`: somebody else wrote first.
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// 409 with reason `AlreadyExists`.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeType {
    /// Created.
    Added,
    /// Changed.
    Modified,
    /// Gone; the event carries its last state.
    Deleted,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub change: ChangeType,
    /// Namespace and name of the object.
    pub key: ObjKey,
    /// The object after it, or its last state.
    pub object: Object,
    /// The object before it.
    pub old: Option<Object>,
    /// The resourceVersion of the event.
    pub version: u64,
    /// How many changes this object (by namespace and name) has seen: counts from 1, for naming the event independently of other objects.
    pub nth: u64,
    /// Who wrote it: for the trace and the oracles. A watcher does not see it.
    pub by: Arc<str>,
}

impl Patch {
    /// A patch of the main resource without preconditions.
    pub fn new(target: ObjectRef, edits: Vec<Edit>) -> Patch {
        Patch {
            target,
            status: false,
            version: None,
            uid: None,
            edits,
        }
    }

    /// A patch of the status subresource without preconditions.
    pub fn status(target: ObjectRef, edits: Vec<Edit>) -> Patch {
        Patch {
            status: true,
            ..Patch::new(target, edits)
        }
    }

    /// Carries the resourceVersion of the object that the client looked at.
    pub fn at_version(mut self, version: u64) -> Patch {
        self.version = Some(version);
        self
    }
}

impl Delete {
    /// A deletion without preconditions.
    pub fn new(target: ObjectRef) -> Delete {
        Delete {
            target,
            uid: None,
            version: None,
            grace_seconds: None,
        }
    }
}

impl Write {
    /// The object that it concerns. A `Create` with `generateName` has no name yet.
    pub fn target(&self) -> ObjectRef {
        match self {
            Write::Create(o) | Write::Update(o) | Write::UpdateStatus(o) => o.to_ref(),
            Write::Patch(p) => p.target.clone(),
            Write::Bind { pod, .. } => ObjectRef::new(super::object::Kind::Pod, pod.clone()),
            Write::Delete(d) => d.target.clone(),
        }
    }

    /// The HTTP verb as audit logs spell it: `create`, `update`, `patch`, `delete`.
    pub fn verb(&self) -> &'static str {
        match self {
            Write::Create(_) | Write::Bind { .. } => "create",
            Write::Update(_) | Write::UpdateStatus(_) => "update",
            Write::Patch(_) => "patch",
            Write::Delete(_) => "delete",
        }
    }

    /// The subresource as audit logs spell it, if any.
    pub fn subresource(&self) -> Option<&'static str> {
        match self {
            Write::UpdateStatus(_) => Some("status"),
            Write::Patch(p) if p.status => Some("status"),
            Write::Bind { .. } => Some("binding"),
            _ => None,
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb(), self.target())?;
        self.subresource().map_or(Ok(()), |s| write!(f, " /{s}"))
    }
}

/// Labels or annotations.
pub type Strings = BTreeMap<String, String>;
