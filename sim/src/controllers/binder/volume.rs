//! What the volume controller does about a volume.
//!
//! ```text
//! names no claim, or one without UID ──► Available
//! its claim ─┬─ gone (two live GETs say so) ──► Released, then reclaim
//!            ├─ names no volume yet ──► queue the claim: its sync binds      (other volume mode: say so)
//!            ├─ names this volume ──► Bound
//!            └─ names another ─┬─ provisioned for it, policy Delete ──► Released, then reclaim
//!                              └─ else ──► let go of the claim, Available
//! ```
//!
//! A CSI volume is deleted by its provisioner, who waits for the phase Released; here reclaiming it does nothing. Source: fact sheet 1.5.
//!
//! Blind spots: in-tree deleters and recyclers act within the sync instead of beside it. The one deleter is that of host paths below `/tmp`; other
//! sources have none. Nothing is ever recycled: the recycler pods of nfs and host paths do not exist.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::api::{EventRecord, Resource, fields, names};
use crate::mutants::Wrong;

use super::Key;
use super::claim::{Look, object};
use super::sync::{End, Plan, Step};

/// Plans the sync of a volume.
pub(super) fn plan(look: &Look<'_>, volume: &Arc<PersistentVolume>) -> Plan {
    let available = || Plan::for_volume(volume, vec![phase("Available")], End::Rest);
    let Some(reference) = fields::volume_claim(volume) else {
        return available();
    };
    if reference.uid.as_deref().unwrap_or_default().is_empty() {
        return available();
    }
    let key = fields::volume_claim_key(volume).expect("a volume with a reference has its key");
    let settled = is_given_up(volume);
    let claim = look.claims.get(&key);
    let fresh = claim.is_some_and(|claim| fields::claim_volume(claim).is_empty());
    if fresh && look.wrong == Some(Wrong::FreshVolumeReleased) {
        return release(volume);
    }
    match claim {
        Some(claim) => plan_with(volume, Some(claim), false),
        None if settled => plan_with(volume, None, true),
        None => match look.cache.get::<PersistentVolumeClaim>(&key) {
            Some(claim) => plan_with(volume, Some(claim), false),
            None => Plan::for_volume(volume, vec![Step::FindClaim { sure: false }], End::Rest),
        },
    }
}

/// Plans on, knowing the claim. Unless `sure`, another UID is asked about once more.
pub(super) fn plan_with(
    volume: &Arc<PersistentVolume>,
    claim: Option<&Arc<PersistentVolumeClaim>>,
    sure: bool,
) -> Plan {
    let wanted = fields::volume_claim(volume).and_then(|r| r.uid.as_deref());
    let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid.as_deref() == wanted;
    let name = fields::name(&volume.metadata);
    match claim {
        Some(other) if !is_it(other) && !sure => {
            Plan::for_volume(volume, vec![Step::FindClaim { sure: true }], End::Rest)
        }
        None => release(volume),
        Some(other) if !is_it(other) => release(volume),
        Some(claim) if fields::claim_volume(claim).is_empty() => plan_pending(volume, claim),
        Some(claim) if fields::claim_volume(claim) == name => Plan::for_volume(volume, vec![phase("Bound")], End::Rest),
        Some(_) if is_provisioned(volume) && fields::reclaim_policy(volume) == "Delete" => release(volume),
        Some(_) => Plan::for_volume(volume, vec![Step::UnbindVolume, phase("Available")], End::Rest),
    }
}

/// The claim does not name the volume yet: its own sync will. Looked at again at each resync, until it does.
fn plan_pending(volume: &Arc<PersistentVolume>, claim: &Arc<PersistentVolumeClaim>) -> Plan {
    if fields::volume_mode(volume) == fields::claim_mode(claim) {
        return Plan::for_volume(volume, vec![Step::Enqueue(Key::Claim(claim.key()))], End::Resync);
    }
    let to_volume = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
        fields::name(&claim.metadata)
    );
    let to_claim = format!(
        "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
        fields::name(&volume.metadata)
    );
    let steps = vec![
        Step::Record(EventRecord::warning(&object(volume), "VolumeMismatch", to_volume)),
        Step::Record(EventRecord::warning(&object(claim), "VolumeMismatch", to_claim)),
    ];
    Plan::for_volume(volume, steps, End::Resync)
}

fn release(volume: &Arc<PersistentVolume>) -> Plan {
    let mut steps = Vec::new();
    if !is_given_up(volume) {
        steps.push(phase("Released"));
    }
    steps.extend(reclaim(volume));
    Plan::for_volume(volume, steps, End::Rest)
}

fn reclaim(volume: &Arc<PersistentVolume>) -> Vec<Step> {
    if fields::annotation(&volume.metadata, names::MIGRATED_TO).is_some() {
        return Vec::new();
    }
    match fields::reclaim_policy(volume) {
        "Retain" => Vec::new(),
        "Delete" => delete(volume),
        "Recycle" => fail(
            volume,
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!".into(),
        ),
        _ => {
            let message = "Volume has unrecognized PersistentVolumeReclaimPolicy";
            fail(volume, "VolumeUnknownReclaimPolicy", message.into())
        }
    }
}

fn delete(volume: &Arc<PersistentVolume>) -> Vec<Step> {
    if is_external(volume) || fields::is_deleting(&volume.metadata) {
        return Vec::new();
    }
    let host_path = volume.spec.as_ref().and_then(|s| s.host_path.as_ref());
    match host_path.map(|source| source.path.as_str()) {
        Some(path) if path.strip_prefix("/tmp/").is_some_and(|rest| !rest.is_empty()) => vec![Step::DeleteVolume],
        Some(path) => {
            let why = format!("host_path deleter only supports /tmp/.+ but received provided {path}");
            fail(volume, "VolumeFailedDelete", why)
        }
        None => {
            let name = fields::name(&volume.metadata);
            let why =
                format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched");
            fail(volume, "VolumeFailedDelete", why)
        }
    }
}

/// The event is sent only with the write that changes the phase.
fn fail(volume: &Arc<PersistentVolume>, reason: &'static str, message: String) -> Vec<Step> {
    if fields::volume_phase(volume) == "Failed" {
        return Vec::new();
    }
    let event = EventRecord::warning(&object(volume), reason, message.clone());
    vec![Step::VolumePhase("Failed", message), Step::Record(event)]
}

fn phase(phase: &'static str) -> Step {
    Step::VolumePhase(phase, String::new())
}

/// Whether the claim was found to be gone before.
fn is_given_up(volume: &PersistentVolume) -> bool {
    matches!(fields::volume_phase(volume), "Released" | "Failed")
}

fn is_provisioned(volume: &PersistentVolume) -> bool {
    fields::annotation(&volume.metadata, names::PROVISIONED_BY).is_some()
}

/// Whether somebody outside deletes the storage: an external provisioner made the volume, or it is a CSI volume.
fn is_external(volume: &PersistentVolume) -> bool {
    let provisioner = fields::annotation(&volume.metadata, names::PROVISIONED_BY);
    provisioner.is_some_and(|p| !p.starts_with("kubernetes.io/")) || fields::volume_handle(volume).is_some()
}
