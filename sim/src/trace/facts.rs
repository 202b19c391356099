//! What of an object a reader wants to see: its facts, kind by kind, and the few that say what state it is in.
//!
//! A change between two states of an object is a difference between their facts (`diff.rs`); what is no fact of its kind shows as a changed path there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::short;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::api::{Object, fields, names, quantity};

/// The value of a fact that is so or is not: its label says it all.
pub(super) const YES: &str = "yes";

/// One fact: a value, or a set of named values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A value; empty when it is not set.
    One(String),
    /// Named values; a value may be empty.
    Map(BTreeMap<String, String>),
}

/// The facts of an object in the order in which they are shown. Objects of one kind have the same labels in the same order.
pub(super) type Facts = Vec<(&'static str, Fact)>;

/// The facts of an object, the common ones of its metadata last.
pub(super) fn facts(object: &Object) -> Facts {
    let mut facts = match object {
        Object::PersistentVolumeClaim(claim) => of_claim(claim),
        Object::PersistentVolume(volume) => of_volume(volume),
        Object::Pod(pod) => of_pod(pod),
        Object::VolumeAttachment(attachment) => of_attachment(attachment),
        Object::Namespace(namespace) => of_namespace(namespace),
        Object::Node(node) => of_node(node),
        Object::CSINode(node) => of_csi_node(node),
        Object::CSIStorageCapacity(capacity) => of_storage_capacity(capacity),
        Object::VolumeSnapshot(snapshot) => of_snapshot(snapshot),
        Object::VolumeSnapshotContent(content) => of_content(content),
        _ => Facts::new(),
    };
    of_metadata(object.meta(), &mut facts);
    facts
}

/// The state of an object in a few words: `Bound 1Gi`, `attached`, `Running on node-1`.
pub(super) fn state(object: &Object) -> String {
    let words: Vec<String> = match object {
        Object::PersistentVolumeClaim(claim) => {
            let size = match fields::claim_capacity(claim) {
                0 => fields::claim_request(claim),
                capacity => capacity,
            };
            vec![fields::claim_phase(claim).into(), bytes(size)]
        }
        Object::PersistentVolume(volume) => {
            vec![
                fields::volume_phase(volume).into(),
                bytes(fields::volume_capacity(volume)),
            ]
        }
        Object::Pod(pod) => vec![fields::pod_phase(pod).into(), on(fields::pod_node(pod))],
        Object::VolumeAttachment(attachment) => {
            let attached = if fields::is_attached(attachment) {
                "attached"
            } else {
                "not attached"
            };
            vec![attached.into(), on(&attachment.spec.node_name)]
        }
        Object::VolumeSnapshot(snapshot) => {
            vec![readiness(snapshot.status.as_ref().and_then(|s| s.ready_to_use)).into()]
        }
        Object::VolumeSnapshotContent(content) => {
            vec![readiness(content.status.as_ref().and_then(|s| s.ready_to_use)).into()]
        }
        _ => Vec::new(),
    };
    let words: Vec<String> = words.into_iter().filter(|w| !w.is_empty()).collect();
    let held = match fields::finalizers(object.meta()) {
        finalizers if fields::is_deleting(object.meta()) && !finalizers.is_empty() => {
            let names: Vec<String> = finalizers.iter().map(|f| finalizer(f)).collect();
            Some(format!("held by {}", names.join(", ")))
        }
        _ if fields::is_deleting(object.meta()) => Some("deleting".to_owned()),
        _ => None,
    };
    let state = Some(words.join(" ")).filter(|s| !s.is_empty());
    state.into_iter().chain(held).collect::<Vec<_>>().join(", ")
}

fn of_claim(claim: &PersistentVolumeClaim) -> Facts {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let modifying = status.and_then(|s| s.modify_volume_status.as_ref());
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    vec![
        one("phase", fields::claim_phase(claim)),
        one("request", bytes(fields::claim_request(claim))),
        one("capacity", bytes(fields::claim_capacity(claim))),
        one(
            "allocated",
            fields::claim_allocated(claim).map(bytes).unwrap_or_default(),
        ),
        one("resize", fields::claim_resize_status(claim)),
        map("conditions", conditions.iter().map(|c| condition(&c.type_, &c.status))),
        one("class", fields::claim_class(claim).unwrap_or_default()),
        one("modes", modes(fields::claim_modes(claim))),
        one("mode", block(fields::claim_mode(claim))),
        one("volume", short::ids(fields::claim_volume(claim))),
        one(
            "attributes-class",
            text(spec.and_then(|s| s.volume_attributes_class_name.as_ref())),
        ),
        one(
            "current-attributes-class",
            text(status.and_then(|s| s.current_volume_attributes_class_name.as_ref())),
        ),
        one("modify", modifying.map(|m| m.status.as_str()).unwrap_or_default()),
        one("from", source(spec)),
    ]
}

fn source(spec: Option<&k8s_openapi::api::core::v1::PersistentVolumeClaimSpec>) -> String {
    let typed = spec
        .and_then(|s| s.data_source_ref.as_ref())
        .map(|r| (&r.kind, &r.name));
    let source = typed.or_else(|| spec.and_then(|s| s.data_source.as_ref()).map(|r| (&r.kind, &r.name)));
    source.map(|(kind, name)| format!("{kind} {name}")).unwrap_or_default()
}

fn of_volume(volume: &PersistentVolume) -> Facts {
    let spec = volume.spec.as_ref();
    let claim = fields::volume_claim_key(volume).map(|key| format!("pvc {}", short::key(&key)));
    vec![
        one("phase", fields::volume_phase(volume)),
        one("capacity", bytes(fields::volume_capacity(volume))),
        one("for", claim.unwrap_or_default()),
        one(
            "handle",
            fields::volume_handle(volume)
                .map(|(_, h)| short::handle(h))
                .unwrap_or_default(),
        ),
        one("reclaim", fields::reclaim_policy(volume)),
        one("class", fields::volume_class(volume)),
        one("modes", modes(fields::volume_modes(volume))),
        one("mode", block(fields::volume_mode(volume))),
        one(
            "attributes-class",
            text(spec.and_then(|s| s.volume_attributes_class_name.as_ref())),
        ),
    ]
}

fn of_pod(pod: &Pod) -> Facts {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let statuses = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let containers = statuses.iter().filter_map(|c| {
        let state = c.state.as_ref()?;
        let word = match (&state.running, &state.terminated, &state.waiting) {
            (Some(_), _, _) => "running",
            (_, Some(end), _) => end.reason.as_deref().unwrap_or("ended"),
            (_, _, Some(wait)) => wait.reason.as_deref().unwrap_or("waiting"),
            (None, None, None) => return None,
        };
        Some((c.name.clone(), word.to_owned()))
    });
    // These two say what Ready and the containers say.
    let telling = conditions
        .iter()
        .filter(|c| !matches!(c.type_.as_str(), "ContainersReady" | "Initialized"));
    let telling = telling.map(|c| condition(&c.type_, &c.status));
    let claims = fields::pod_claims(pod).map(|c| (c.claim.into_owned(), String::new()));
    vec![
        one("phase", fields::pod_phase(pod)),
        one("node", fields::pod_node(pod)),
        one("nominated", text(status.and_then(|s| s.nominated_node_name.as_ref()))),
        one("reason", text(status.and_then(|s| s.reason.as_ref()))),
        map("conditions", telling),
        map("containers", containers),
        map("claims", claims),
    ]
}

fn of_attachment(attachment: &VolumeAttachment) -> Facts {
    let status = attachment.status.as_ref();
    let error = |error: Option<&k8s_openapi::api::storage::v1::VolumeError>| {
        let message = error.and_then(|e| e.message.as_deref()).unwrap_or_default();
        short::clip(&short::ids(message), 100).into_owned()
    };
    let metadata = status.and_then(|s| s.attachment_metadata.as_ref());
    vec![
        one(
            "attached",
            if fields::is_attached(attachment) {
                "true"
            } else {
                "false"
            },
        ),
        one("volume", short::ids(fields::attachment_volume(attachment))),
        one("node", &attachment.spec.node_name),
        one("attach-error", error(status.and_then(|s| s.attach_error.as_ref()))),
        one("detach-error", error(status.and_then(|s| s.detach_error.as_ref()))),
        map(
            "publish-context",
            metadata.into_iter().flatten().map(|(k, v)| (k.clone(), value(v))),
        ),
    ]
}

fn of_namespace(namespace: &Namespace) -> Facts {
    let status = namespace.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    vec![map(
        "conditions",
        conditions.iter().map(|c| condition(&c.type_, &c.status)),
    )]
}

fn of_node(node: &Node) -> Facts {
    let status = node.status.as_ref();
    let spec = node.spec.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let attached = status.and_then(|s| s.volumes_attached.as_deref()).unwrap_or_default();
    let in_use = fields::volumes_in_use(node).iter();
    let volume = |name: &str| (unique(name), String::new());
    vec![
        map("conditions", conditions.iter().map(|c| condition(&c.type_, &c.status))),
        one(
            "cordoned",
            spec.and_then(|s| s.unschedulable).filter(|u| *u).map_or("", |_| YES),
        ),
        map(
            "taints",
            taints
                .iter()
                .map(|t| (format!("{}:{}", short::qualified(&t.key), t.effect), String::new())),
        ),
        map("volumesInUse", in_use.map(|name| volume(name))),
        map("volumesAttached", attached.iter().map(|a| volume(&a.name))),
    ]
}

fn of_csi_node(node: &CSINode) -> Facts {
    let drivers = node.spec.drivers.iter().map(|driver| {
        let limit = driver.allocatable.as_ref().and_then(|a| a.count);
        (
            driver.name.clone(),
            limit.map(|n| format!("at most {n} volumes")).unwrap_or_default(),
        )
    });
    vec![map("drivers", drivers)]
}

fn of_storage_capacity(capacity: &CSIStorageCapacity) -> Facts {
    vec![
        one("capacity", size(capacity.capacity.as_ref())),
        one("largest", size(capacity.maximum_volume_size.as_ref())),
        one("class", &capacity.storage_class_name),
    ]
}

fn of_snapshot(snapshot: &VolumeSnapshot) -> Facts {
    let status = snapshot.status.as_ref();
    let content = status.and_then(|s| s.bound_volume_snapshot_content_name.as_deref());
    let error = status.and_then(|s| s.error.as_ref()).and_then(|e| e.message.as_deref());
    let claim = snapshot.spec.source.persistent_volume_claim_name.as_deref();
    vec![
        one("ready", truth(status.and_then(|s| s.ready_to_use))),
        one("of", claim.map(|name| format!("pvc {name}")).unwrap_or_default()),
        one("content", short::ids(content.unwrap_or_default())),
        one("size", size(status.and_then(|s| s.restore_size.as_ref()))),
        one("error", short::clip(error.unwrap_or_default(), 100)),
    ]
}

fn of_content(content: &VolumeSnapshotContent) -> Facts {
    let status = content.status.as_ref();
    let handle = status.and_then(|s| s.snapshot_handle.as_deref());
    let error = status.and_then(|s| s.error.as_ref()).and_then(|e| e.message.as_deref());
    let about = content.spec.volume_snapshot_ref.name.as_deref();
    let bytes_of = |n: i64| bytes(u64::try_from(n).unwrap_or(0));
    vec![
        one("ready", truth(status.and_then(|s| s.ready_to_use))),
        one("for", about.map(|name| format!("vs {name}")).unwrap_or_default()),
        one("handle", short::handle(handle.unwrap_or_default())),
        one(
            "size",
            status.and_then(|s| s.restore_size).map(bytes_of).unwrap_or_default(),
        ),
        one("policy", &content.spec.deletion_policy),
        one("error", short::clip(error.unwrap_or_default(), 100)),
    ]
}

fn of_metadata(meta: &ObjectMeta, facts: &mut Facts) {
    let named = |map: &Option<BTreeMap<String, String>>| -> Vec<(String, String)> {
        let entries = map.iter().flatten();
        entries
            .map(|(k, v)| (short::qualified(k).to_owned(), value(v)))
            .collect()
    };
    let finalizers = fields::finalizers(meta).iter();
    let owners = meta.owner_references.as_deref().unwrap_or_default().iter();
    let deleting = match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds) {
        (None, _) => String::new(),
        (Some(_), Some(grace)) if grace > 0 => format!("within {grace} s"),
        (Some(_), _) => YES.into(),
    };
    facts.extend([
        one("deleting", deleting),
        map("finalizers", finalizers.map(|f| (finalizer(f), String::new()))),
        map("annotations", named(&meta.annotations)),
        map("labels", named(&meta.labels)),
        map(
            "owners",
            owners.map(|o| (format!("{} {}", o.kind, o.name), String::new())),
        ),
    ]);
}

/// The external-attacher's finalizer names its driver behind the slash; all others their purpose.
fn finalizer(name: &str) -> String {
    match name.split_once('/') {
        Some((process, _)) if !process.contains('.') => process.to_owned(),
        Some((process, "finalizer")) => process.split('.').next().unwrap_or(process).to_owned(),
        _ => short::qualified(name).to_owned(),
    }
}

fn one(label: &'static str, value: impl Into<String>) -> (&'static str, Fact) {
    (label, Fact::One(value.into()))
}

fn map(label: &'static str, entries: impl IntoIterator<Item = (String, String)>) -> (&'static str, Fact) {
    (label, Fact::Map(entries.into_iter().collect()))
}

fn condition(kind: &str, status: &str) -> (String, String) {
    (kind.to_owned(), status.to_owned())
}

/// A value of an annotation, label or context: long ones are not shown, `yes` goes without saying.
fn value(text: &str) -> String {
    if text == YES {
        return String::new();
    }
    short::clip(&short::ids(text), 28).into_owned()
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

fn truth(value: Option<bool>) -> &'static str {
    match value {
        None => "",
        Some(true) => "true",
        Some(false) => "false",
    }
}

fn readiness(ready: Option<bool>) -> &'static str {
    if ready == Some(true) { "ready" } else { "not ready" }
}

fn on(node: &str) -> String {
    if node.is_empty() {
        String::new()
    } else {
        format!("on {node}")
    }
}

fn block(mode: &str) -> &'static str {
    if mode == "Block" { "block" } else { "" }
}

fn modes(modes: &[String]) -> String {
    let short = modes.iter().map(|mode| match mode.as_str() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    short.collect::<Vec<_>>().join(",")
}

fn unique(name: &str) -> String {
    names::driver_and_handle(name)
        .map_or_else(|| short::ids(name), |(_, handle)| short::handle(handle))
        .into_owned()
}

fn size(quantity: Option<&Quantity>) -> String {
    quantity.map(|q| bytes(quantity::bytes(q))).unwrap_or_default()
}

/// Bytes as Kubernetes writes them; nothing for none.
pub(super) fn bytes(count: u64) -> String {
    if count == 0 {
        String::new()
    } else {
        quantity::format_bytes(count)
    }
}
