//! How the volume controller changes claims and volumes: an object as it is, and what to write, or `None` when nothing would change.
//!
//! Source: fact sheet 1.7, 1.8 and Appendix C (who owns which field).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::{fields, names};

/// The volume with a full reference to the claim, marked when the reference is not the user's.
pub(super) fn volume_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let named_already = fields::is_claimed_by(volume, claim);
    let uid = fields::uid(&claim.metadata);
    let complete = named_already && fields::volume_claim(volume).and_then(|r| r.uid.as_deref()) == Some(uid);
    if complete {
        return None;
    }
    let mut bound = volume.clone();
    bound.spec.get_or_insert_default().claim_ref = Some(fields::claim_reference(claim));
    if !named_already {
        fields::annotate(&mut bound.metadata, names::BOUND_BY_CONTROLLER, "yes");
    }
    Some(bound)
}

/// The volume without its claim: a reference that the controller made goes altogether, of a user's own only the UID goes.
pub(super) fn volume_unbound(volume: &PersistentVolume) -> PersistentVolume {
    let mut free = volume.clone();
    let spec = free.spec.get_or_insert_default();
    if fields::annotation(&volume.metadata, names::BOUND_BY_CONTROLLER).is_some() {
        spec.claim_ref = None;
        if let Some(annotations) = &mut free.metadata.annotations {
            annotations.remove(names::BOUND_BY_CONTROLLER);
        }
    } else if let Some(claim) = &mut spec.claim_ref {
        claim.uid = None;
    }
    free
}

/// The volume in another phase.
pub(super) fn volume_in_phase(volume: &PersistentVolume, phase: &str, message: &str) -> Option<PersistentVolume> {
    if fields::volume_phase(volume) == phase {
        return None;
    }
    let mut changed = volume.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.into());
    status.message = (!message.is_empty()).then(|| message.into());
    Some(changed)
}

/// The claim with its volume's name and the mark that binding is complete.
pub(super) fn claim_bound_to(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let name = fields::name(&volume.metadata);
    let named_already = fields::claim_volume(claim) == name;
    if named_already && fields::annotation(&claim.metadata, names::BIND_COMPLETED).is_some() {
        return None;
    }
    let mut bound = claim.clone();
    if !named_already {
        bound.spec.get_or_insert_default().volume_name = Some(name.into());
        fields::annotate(&mut bound.metadata, names::BOUND_BY_CONTROLLER, "yes");
    }
    fields::annotate(&mut bound.metadata, names::BIND_COMPLETED, "yes");
    Some(bound)
}

/// The claim's status in a phase, with what it takes from its volume, if it has one.
///
/// The capacity is copied only when the phase changes, the attributes class only when a pending claim becomes bound: later growth is the resizer's
/// and kubelet's to write.
pub(super) fn claim_in_phase(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let old_phase = fields::claim_phase(claim);
    let mut changed = claim.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.into());
    match volume {
        None => {
            status.access_modes = None;
            status.capacity = None;
        }
        Some(volume) => {
            let spec = volume.spec.clone().unwrap_or_default();
            status.access_modes = spec.access_modes;
            if old_phase != phase {
                let mut capacity = spec.capacity.unwrap_or_default();
                if let Some(before) = fields::annotation(&volume.metadata, names::PRE_RESIZE_CAPACITY) {
                    capacity.insert("storage".into(), Quantity(before.into()));
                }
                status.capacity = Some(capacity);
            }
            if matches!(old_phase, "" | "Pending") && phase == "Bound" {
                status.current_volume_attributes_class_name = spec.volume_attributes_class_name;
            }
        }
    }
    (changed.status != claim.status).then_some(changed)
}

/// The claim with the default class.
pub(super) fn claim_of_class(claim: &PersistentVolumeClaim, class: &str) -> PersistentVolumeClaim {
    let mut changed = claim.clone();
    changed.spec.get_or_insert_default().storage_class_name = Some(class.into());
    changed
}

/// The claim with both spellings of who shall provision it.
pub(super) fn claim_for_provisioner(claim: &PersistentVolumeClaim, driver: &str) -> Option<PersistentVolumeClaim> {
    let keys = [names::STORAGE_PROVISIONER, names::BETA_STORAGE_PROVISIONER];
    if keys
        .iter()
        .all(|key| fields::annotation(&claim.metadata, key) == Some(driver))
    {
        return None;
    }
    let mut changed = claim.clone();
    for key in keys {
        fields::annotate(&mut changed.metadata, key, driver);
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
    use serde_json::{Value, json};

    use super::{claim_bound_to, claim_in_phase, volume_bound_to, volume_unbound};
    use crate::api::{fields, names};

    fn claim(status: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(
            json!({"metadata": {"name": "data", "namespace": "default", "uid": "u1"}, "status": status}),
        )
        .unwrap()
    }

    fn volume(claim_ref: &Value) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "v"},
            "spec": {"claimRef": claim_ref, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "volumeAttributesClassName": "gold"}
        }))
        .unwrap()
    }

    #[test]
    fn a_volume_is_marked_only_when_the_controller_chose_it() {
        // 1.7: claimRef by the user stays the user's, even when the UID is filled in.
        let marked = |v: &PersistentVolume| fields::annotation(&v.metadata, names::BOUND_BY_CONTROLLER).is_some();
        let chosen = volume_bound_to(&volume(&Value::Null), &claim(&json!({}))).unwrap();
        assert!(marked(&chosen));
        let prebound = volume_bound_to(
            &volume(&json!({"namespace": "default", "name": "data"})),
            &claim(&json!({})),
        )
        .unwrap();
        assert!(!marked(&prebound));
        assert_eq!(fields::volume_claim(&prebound).unwrap().uid.as_deref(), Some("u1"));
        assert_eq!(
            volume_bound_to(&prebound, &claim(&json!({}))),
            None,
            "nothing to write twice"
        );
        let unbound = volume_unbound(&prebound);
        assert_eq!(
            fields::volume_claim(&unbound).map(|r| (r.name.as_deref(), r.uid.as_deref())),
            Some((Some("data"), None))
        );
        assert_eq!(fields::volume_claim(&volume_unbound(&chosen)), None);
    }

    #[test]
    fn capacity_and_attributes_class_are_taken_over_once() {
        let bound = claim_in_phase(
            &claim(&json!({"phase": "Pending"})),
            "Bound",
            Some(&volume(&Value::Null)),
        )
        .unwrap();
        assert_eq!(fields::claim_capacity(&bound), 2 << 30);
        assert_eq!(
            bound
                .status
                .as_ref()
                .unwrap()
                .current_volume_attributes_class_name
                .as_deref(),
            Some("gold")
        );
        let mut grown = volume(&Value::Null);
        grown.spec.as_mut().unwrap().capacity = serde_json::from_value(json!({"storage": "5Gi"})).unwrap();
        assert_eq!(
            claim_in_phase(&bound, "Bound", Some(&grown)),
            None,
            "growth is the resizer's to write"
        );
        let lost = claim_in_phase(&bound, "Lost", None).unwrap();
        assert_eq!(fields::claim_capacity(&lost), 0);
        assert_eq!(
            fields::claim_capacity(&claim_in_phase(&lost, "Bound", Some(&grown)).unwrap()),
            5 << 30
        );
    }

    #[test]
    fn a_volume_in_the_middle_of_an_expansion_gives_the_size_before_it() {
        let mut volume = volume(&Value::Null);
        fields::annotate(&mut volume.metadata, names::PRE_RESIZE_CAPACITY, "1Gi");
        let bound = claim_in_phase(&claim(&json!({"phase": "Pending"})), "Bound", Some(&volume)).unwrap();
        assert_eq!(fields::claim_capacity(&bound), 1 << 30);
    }

    #[test]
    fn a_claim_that_named_its_volume_itself_is_not_marked() {
        let mut named = claim(&json!({}));
        named.spec.get_or_insert_default().volume_name = Some("v".into());
        let bound = claim_bound_to(&named, &volume(&Value::Null)).unwrap();
        assert_eq!(fields::annotation(&bound.metadata, names::BIND_COMPLETED), Some("yes"));
        assert_eq!(fields::annotation(&bound.metadata, names::BOUND_BY_CONTROLLER), None);
        assert_eq!(claim_bound_to(&bound, &volume(&Value::Null)), None);
    }
}
