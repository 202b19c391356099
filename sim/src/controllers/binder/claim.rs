//! What the volume controller does about a claim.
//!
//! ```text
//! not bound ─┬─ no volume named ─┬─ a volume matches ──► bind
//!            │                   ├─ no class set, a default exists ──► set it, wait for the own event
//!            │                   ├─ delayed, no node selected ──► say so, Pending
//!            │                   ├─ a class ──► hand over to its provisioner
//!            │                   └─ else ──► FailedBinding, Pending
//!            └─ volume named ────┬─ not there ──► Pending
//!                                ├─ free, satisfies ──► bind        (else VolumeMismatch, Pending)
//!                                ├─ names this claim ──► bind
//!                                └─ somebody else's ──► FailedBinding, Pending
//! bound ─────┬─ no volume named, or volume gone ──► Lost
//!            ├─ volume free or of this UID ──► bind (usually nothing to write)
//!            └─ somebody else's ──► Lost, ClaimMisbound
//! ```
//!
//! Source: fact sheet 1.4, 1.7, 1.8.
//!
//! Blind spots: CSI migration annotations are never kept up; in-tree provisioners (`kubernetes.io/…`) do not exist.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::api::{Cache, EventRecord, Index, Object, Resource, fields, names};
use crate::mutants::Wrong;

use super::matching;
use super::store::{Claims, Volumes};
use super::sync::{End, Plan, Step};

/// What a plan is made from.
pub(super) struct Look<'a> {
    /// The informers: classes and pods.
    pub(super) cache: &'a Cache,
    /// The controller's own claims.
    pub(super) claims: &'a Claims,
    /// The controller's own volumes.
    pub(super) volumes: &'a Volumes,
    /// `--enable-dynamic-provisioning`.
    pub(super) dynamic: bool,
    /// A mistake to be made.
    pub(super) wrong: Option<Wrong>,
}

/// Plans the sync of a claim.
pub(super) fn plan(look: &Look<'_>, claim: &Arc<PersistentVolumeClaim>) -> Plan {
    if fields::annotation(&claim.metadata, names::BIND_COMPLETED).is_some() {
        plan_bound(look, claim)
    } else if fields::claim_volume(claim).is_empty() {
        plan_unbound(look, claim)
    } else {
        plan_named(look, claim)
    }
}

/// The four writes of a binding. A sync that is interrupted is resumed at the first one that is still missing.
fn bind(claim: &Arc<PersistentVolumeClaim>, volume: &Arc<PersistentVolume>) -> Plan {
    let bound = Step::VolumePhase("Bound", String::new());
    Plan {
        claim: Some(Arc::clone(claim)),
        volume: Some(Arc::clone(volume)),
        steps: vec![Step::BindVolume, bound, Step::BindClaim, Step::ClaimIsBound],
        end: End::Rest,
    }
}

fn plan_unbound(look: &Look<'_>, claim: &Arc<PersistentVolumeClaim>) -> Plan {
    let class_name = fields::claim_class(claim);
    let class = class_name
        .filter(|name| !name.is_empty())
        .and_then(|name| look.cache.named::<StorageClass>(name));
    if class.is_some_and(|class| class.volume_binding_mode.is_none()) {
        let why = format!(
            "VolumeBindingMode not set for StorageClass {:?}",
            class_name.unwrap_or_default()
        );
        return Plan::for_claim(claim, Vec::new(), End::Retry(why));
    }
    let delayed = class.is_some_and(|class| fields::waits_for_consumer(class));
    if let Some(volume) = best_match(look.volumes, claim, delayed) {
        return bind(claim, volume);
    }
    if class_name.is_none()
        && let Some(default) = fields::default_class(look.cache.list::<StorageClass>())
    {
        let assign = Step::AssignClass(fields::name(&default.metadata).into());
        return Plan::for_claim(claim, vec![assign], End::Rest);
    }
    let selected = fields::annotation(&claim.metadata, names::SELECTED_NODE).is_some();
    let steps = if delayed && !selected {
        vec![
            Step::Record(waits_for_pod(look.cache, claim)),
            Step::ClaimPhase("Pending"),
        ]
    } else if let Some(name) = class_name.filter(|name| !name.is_empty()) {
        provision(look, claim, name, class)
    } else {
        let message = "no persistent volumes available for this claim and no storage class is set";
        vec![
            Step::Record(EventRecord::normal(&object(claim), "FailedBinding", message)),
            Step::ClaimPhase("Pending"),
        ]
    };
    Plan::for_claim(claim, steps, End::Resync)
}

fn best_match<'v>(
    volumes: &'v Volumes,
    claim: &PersistentVolumeClaim,
    delayed: bool,
) -> Option<&'v Arc<PersistentVolume>> {
    let key = claim.key();
    let own = volumes.of_claim(&key);
    if delayed {
        matching::best_match(claim, own, true)
    } else {
        matching::best_match(claim, own.chain(volumes.free()), false)
    }
}

fn waits_for_pod(cache: &Cache, claim: &Arc<PersistentVolumeClaim>) -> EventRecord {
    let pods = cache.by::<Pod>(Index::PodsByClaim, &claim.key().to_string());
    let waiting: Vec<&str> = pods
        .filter(|pod| fields::pod_node(pod).is_empty() && !fields::is_terminated(pod))
        .map(|pod| fields::name(&pod.metadata))
        .collect();
    let claim = object(claim);
    match waiting.as_slice() {
        [] => {
            let message = "waiting for first consumer to be created before binding";
            EventRecord::normal(&claim, "WaitForFirstConsumer", message)
        }
        [pod] => EventRecord::normal(
            &claim,
            "WaitForPodScheduled",
            format!("waiting for pod {pod} to be scheduled"),
        ),
        pods => {
            let message = format!("waiting for pods {} to be scheduled", pods.join(","));
            EventRecord::normal(&claim, "WaitForPodScheduled", message)
        }
    }
}

fn provision(
    look: &Look<'_>,
    claim: &Arc<PersistentVolumeClaim>,
    class_name: &str,
    class: Option<&Arc<StorageClass>>,
) -> Vec<Step> {
    if !look.dynamic {
        return Vec::new();
    }
    let failed = |why: String| {
        vec![Step::Record(EventRecord::warning(
            &object(claim),
            "ProvisioningFailed",
            why,
        ))]
    };
    match class {
        None => failed(format!("storageclass.storage.k8s.io {class_name:?} not found")),
        Some(class) if class.provisioner.starts_with("kubernetes.io/") => {
            failed(format!("no volume plugin matched name: {}", class.provisioner))
        }
        Some(class) => vec![Step::Provision(class.provisioner.clone())],
    }
}

/// The background operation that hands a claim to an external provisioner: its name on the claim, then the event.
pub(super) fn hand_over(claim: &Arc<PersistentVolumeClaim>, driver: &str) -> Plan {
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{driver}' or manually by the system administrator. \
         If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    let waiting = EventRecord::normal(&object(claim), "ExternalProvisioning", message);
    let steps = vec![Step::NameProvisioner(driver.into()), Step::Record(waiting)];
    Plan::for_claim(claim, steps, End::Rest)
}

fn plan_named(look: &Look<'_>, claim: &Arc<PersistentVolumeClaim>) -> Plan {
    let name = fields::claim_volume(claim);
    let pending = |event: Option<EventRecord>| {
        let steps = event.map(Step::Record).into_iter().chain([Step::ClaimPhase("Pending")]);
        Plan::for_claim(claim, steps.collect(), End::Resync)
    };
    let Some(volume) = look.volumes.get(name) else {
        return pending(None);
    };
    if fields::volume_claim(volume).is_none() {
        return match refusal(volume, claim) {
            None => bind(claim, volume),
            Some(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                pending(Some(EventRecord::warning(&object(claim), "VolumeMismatch", message)))
            }
        };
    }
    if fields::is_claimed_by(volume, claim) {
        return bind(claim, volume);
    }
    if fields::annotation(&claim.metadata, names::BOUND_BY_CONTROLLER).is_none() {
        let message = format!("volume {name:?} already bound to a different claim.");
        return pending(Some(EventRecord::warning(&object(claim), "FailedBinding", message)));
    }
    let owner = fields::volume_claim_key(volume)
        .map(|key| key.to_string())
        .unwrap_or_default();
    let message = format!("volume {name:?} already bound to a different claim {owner:?} by controller.");
    let event = Step::Record(EventRecord::warning(&object(claim), "FailedBinding", message));
    let why = format!(
        "invalid binding of claim {:?} to volume {name:?}: volume already claimed by {owner:?}",
        claim.key().to_string()
    );
    Plan::for_claim(claim, vec![event], End::Retry(why))
}

/// Why a free volume does not do for the claim that names it.
fn refusal(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let class = fields::claim_class(claim).unwrap_or_default();
    if fields::is_deleting(&volume.metadata) {
        Some(format!(
            "the volume is marked for deletion {:?}",
            fields::name(&volume.metadata)
        ))
    } else if fields::volume_capacity(volume) < fields::claim_request(claim) {
        Some("requested PV is too small".into())
    } else if fields::volume_class(volume) != class {
        Some("storageClassName does not match".into())
    } else if !matching::same_attributes_class(volume, claim) {
        Some("volumeAttributesClassName does not match".into())
    } else if fields::volume_mode(volume) != fields::claim_mode(claim) {
        Some("incompatible volumeMode".into())
    } else if !matching::covers_modes(volume, claim) {
        Some("incompatible accessMode".into())
    } else {
        None
    }
}

fn plan_bound(look: &Look<'_>, claim: &Arc<PersistentVolumeClaim>) -> Plan {
    let name = fields::claim_volume(claim);
    if name.is_empty() {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", message);
    }
    let Some(volume) = look.volumes.get(name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", message);
    };
    match fields::volume_claim(volume) {
        None => bind(claim, volume),
        Some(owner) if owner.uid == claim.metadata.uid => bind(claim, volume),
        Some(_) => {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost(claim, "ClaimMisbound", message)
        }
    }
}

/// The event is sent only with the write that changes the phase. A lost claim is looked at again: it recovers when its volume comes back.
fn lost(claim: &Arc<PersistentVolumeClaim>, reason: &'static str, message: &str) -> Plan {
    let mut steps = vec![Step::ClaimPhase("Lost")];
    if fields::claim_phase(claim) != "Lost" {
        steps.push(Step::Record(EventRecord::warning(&object(claim), reason, message)));
    }
    Plan::for_claim(claim, steps, End::Resync)
}

pub(super) fn object<T: Resource>(resource: &Arc<T>) -> Object {
    T::into_object(Arc::clone(resource))
}
