//! What keeps a volume attributes class: a volume or a claim that refers to it, in the informers. A claim that is created at the same moment can be missed.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::api::{Cache, Delta, Kind, ObjKey, fields, names};

use super::guard::Guarded;

impl Guarded for VolumeAttributesClass {
    const CONTROLLER: &'static str = "vac-protection-controller";
    const FINALIZER: &'static str = names::VAC_PROTECTION;
    const KINDS: &'static [Kind] = &[
        Kind::VolumeAttributesClass,
        Kind::PersistentVolume,
        Kind::PersistentVolumeClaim,
    ];

    fn in_use(&self, cache: &Cache) -> bool {
        let name = fields::name(&self.metadata);
        cache.list().any(|volume| of_volume(volume).contains(name))
            || cache.list().any(|claim| of_claim(claim).contains(name))
    }

    fn freed_by(delta: &Delta) -> Vec<ObjKey> {
        let (old, new) = if let Some((old, new)) = delta.of::<PersistentVolume>() {
            (old.map(|v| of_volume(v)), new.map(|v| of_volume(v)))
        } else if let Some((old, new)) = delta.of::<PersistentVolumeClaim>() {
            (old.map(|c| of_claim(c)), new.map(|c| of_claim(c)))
        } else {
            return Vec::new();
        };
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        old.difference(&new).map(|name| ObjKey::cluster(*name)).collect()
    }
}

fn of_volume(volume: &PersistentVolume) -> BTreeSet<&str> {
    let class = volume
        .spec
        .as_ref()
        .and_then(|s| s.volume_attributes_class_name.as_deref());
    class.into_iter().filter(|name| !name.is_empty()).collect()
}

fn of_claim(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|s| s.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status
        .and_then(|s| s.modify_volume_status.as_ref())
        .and_then(|m| m.target_volume_attributes_class_name.as_deref());
    [wanted, current, target]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::ClassProtection;
    use crate::api::{Cache, Delta, Kind, ObjKey, Object};
    use crate::control::{Controller, Effect, Requests};
    use crate::runtime::Time;

    fn object(kind: Kind, json: Value) -> Object {
        Object::from_json(kind, json).unwrap()
    }

    fn deleted_class() -> Cache {
        let mut cache = Cache::new(&[]);
        let meta = json!({"name": "gold", "resourceVersion": "7", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kubernetes.io/vac-protection"]});
        cache.put(object(
            Kind::VolumeAttributesClass,
            json!({"metadata": meta, "driverName": "d"}),
        ));
        cache
    }

    #[test]
    fn every_reference_keeps_a_class() {
        let gold = ObjKey::cluster("gold");
        let claim = |spec: Value, status: Value| {
            object(
                Kind::PersistentVolumeClaim,
                json!({"metadata": {"name": "c", "namespace": "n"}, "spec": spec, "status": status}),
            )
        };
        let users = [
            object(
                Kind::PersistentVolume,
                json!({"metadata": {"name": "v"}, "spec": {"volumeAttributesClassName": "gold"}}),
            ),
            claim(json!({"volumeAttributesClassName": "gold"}), json!({})),
            claim(
                json!({"volumeAttributesClassName": "silver"}),
                json!({"currentVolumeAttributesClassName": "gold"}),
            ),
            claim(
                json!({}),
                json!({"modifyVolumeStatus": {"status": "Pending", "targetVolumeAttributesClassName": "gold"}}),
            ),
        ];
        for user in users {
            let mut cache = deleted_class();
            cache.put(user.clone());
            let decision = ClassProtection::default().decide(&cache, &Default::default(), &gold, Time::ZERO);
            assert_eq!(decision, Effect::Rest, "{user:?}");
        }
        let decision = ClassProtection::default().decide(&deleted_class(), &Default::default(), &gold, Time::ZERO);
        assert!(matches!(decision, Effect::Write(_)));
    }

    #[test]
    fn a_claim_that_turns_away_frees_its_old_class() {
        let claim = |class: &str| {
            object(
                Kind::PersistentVolumeClaim,
                json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"volumeAttributesClassName": class}}),
            )
        };
        let delta = Delta {
            old: Some(claim("gold")),
            new: Some(claim("silver")),
            resync: false,
        };
        let mut queue = Requests::default();
        ClassProtection::default().notice(
            &deleted_class(),
            &mut Default::default(),
            &delta,
            Time::ZERO,
            &mut queue,
        );
        assert_eq!(queue.keys(), [(&ObjKey::cluster("gold"), None)]);
    }
}
