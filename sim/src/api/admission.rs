//! The admission plugins that matter for storage: what they add to a new object, and what they refuse.
//!
//! NamespaceLifecycle, DefaultStorageClass, DefaultTolerationSeconds, StorageObjectInUseProtection, PersistentVolumeClaimResize, NodeRestriction.
//! Blind spots: quotas, pod security, priorities and service accounts.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Toleration};
use k8s_openapi::api::storage::v1::StorageClass;

use super::object::{Kind, ObjKey, Object, ObjectRef};
use super::store::Store;
use super::write::{ApiError, Write};
use super::{fields, names};

/// Seconds for which a pod tolerates a node that is lost, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// `--default-not-ready-toleration-seconds`.
    pub not_ready: i64,
    /// `--default-unreachable-toleration-seconds`.
    pub unreachable: i64,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            not_ready: 300,
            unreachable: 300,
        }
    }
}

/// NamespaceLifecycle: the namespace of a new object exists and is not being terminated.
pub(super) fn namespace(store: &Store, target: &ObjectRef) -> Result<(), ApiError> {
    if !target.kind.namespaced() {
        return Ok(());
    }
    let name = &target.key.namespace;
    let key = ObjKey::cluster(Arc::clone(name));
    let Some(namespace) = store.get::<Namespace>(&key) else {
        return Err(ApiError::not_found(&ObjectRef::new(Kind::Namespace, key)));
    };
    if fields::is_deleting(&namespace.metadata) {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        return Err(ApiError::forbidden(target, why));
    }
    Ok(())
}

/// What the mutating plugins add to a new object.
pub(super) fn mutate(store: &Store, patience: Patience, object: &mut Object) {
    match object {
        Object::PersistentVolumeClaim(claim) => {
            let claim = Arc::make_mut(claim);
            protect(&mut claim.metadata.finalizers, names::PVC_PROTECTION);
            default_class(store, claim);
        }
        Object::PersistentVolume(volume) => {
            protect(&mut Arc::make_mut(volume).metadata.finalizers, names::PV_PROTECTION);
        }
        Object::VolumeAttributesClass(class) => {
            protect(&mut Arc::make_mut(class).metadata.finalizers, names::VAC_PROTECTION);
        }
        Object::Pod(pod) => tolerate(Arc::make_mut(pod), patience),
        _ => {}
    }
}

fn protect(finalizers: &mut Option<Vec<String>>, finalizer: &str) {
    let finalizers = finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.into());
    }
}

fn default_class(store: &Store, claim: &mut PersistentVolumeClaim) {
    if fields::claim_class(claim).is_some() {
        return;
    }
    let classes = store
        .objects(Kind::StorageClass)
        .filter_map(Object::get::<StorageClass>);
    if let Some(class) = fields::default_class(classes) {
        claim.spec.get_or_insert_default().storage_class_name = class.metadata.name.clone();
    }
}

fn tolerate(pod: &mut Pod, patience: Patience) {
    let tolerations = pod.spec.get_or_insert_default().tolerations.get_or_insert_default();
    let defaults = [
        (names::TAINT_NOT_READY, patience.not_ready),
        (names::TAINT_UNREACHABLE, patience.unreachable),
    ];
    for (taint, seconds) in defaults {
        let tolerated = tolerations.iter().any(|t| {
            t.key.as_deref().is_none_or(|k| k.is_empty() || k == taint)
                && t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoExecute")
        });
        if !tolerated {
            tolerations.push(Toleration {
                key: Some(taint.into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(seconds),
                value: None,
            });
        }
    }
}

/// PersistentVolumeClaimResize: a claim grows only when bound, and when its class allows it.
pub(super) fn resize(store: &Store, target: &ObjectRef, old: &Object, new: &Object) -> Result<(), ApiError> {
    let (Object::PersistentVolumeClaim(old), Object::PersistentVolumeClaim(new)) = (old, new) else {
        return Ok(());
    };
    if fields::claim_request(new) <= fields::claim_request(old) {
        return Ok(());
    }
    if fields::claim_phase(old) != "Bound" {
        return Err(ApiError::forbidden(
            target,
            "Only bound persistent volume claims can be expanded",
        ));
    }
    let class = fields::claim_class(new).filter(|class| !class.is_empty() && Some(*class) == fields::claim_class(old));
    let class = class.and_then(|name| store.get::<StorageClass>(&ObjKey::cluster(name)));
    if class.is_some_and(|class| class.allow_volume_expansion == Some(true)) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        target,
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}

/// NodeRestriction: the kubelet of `node` writes its own Node, its own CSINode, the status of its own pods and the status of claims.
pub(super) fn restrict_to_node(store: &Store, node: &str, write: &Write) -> Result<(), ApiError> {
    let target = write.target();
    let refuse = |why: String| Err(ApiError::forbidden(&target, format!("node \"{node}\" {why}")));
    match target.kind {
        Kind::Event => Ok(()),
        Kind::Node | Kind::CSINode if &*target.key.name == node => Ok(()),
        Kind::Node => refuse(format!("is not allowed to modify node \"{}\"", target.key.name)),
        Kind::CSINode => refuse("may only access its own CSINode object".into()),
        Kind::PersistentVolumeClaim if write.subresource() == Some("status") => Ok(()),
        Kind::Pod => {
            let own = |pod: &Arc<Pod>| fields::pod_node(pod) == node;
            match (write, store.get::<Pod>(&target.key)) {
                // Whether it exists is for the write itself to say.
                (_, None) => Ok(()),
                (Write::Delete(_), Some(pod)) if own(pod) => Ok(()),
                (Write::Patch(_) | Write::UpdateStatus(_), Some(pod)) if own(pod) => {
                    if write.subresource() == Some("status") {
                        return Ok(());
                    }
                    refuse("may only update the status of pods".into())
                }
                _ => refuse("can only write pods with spec.nodeName set to itself".into()),
            }
        }
        other => refuse(format!("may not {} {}", write.verb(), other.plural())),
    }
}
