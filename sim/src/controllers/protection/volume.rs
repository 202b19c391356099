//! What keeps a volume: being bound, and nothing else. A volume whose claim is gone is Released and may go; a bound one stays Terminating until then.

use k8s_openapi::api::core::v1::PersistentVolume;

use crate::api::{Cache, Delta, Kind, ObjKey, fields, names};

use super::guard::Guarded;

impl Guarded for PersistentVolume {
    const CONTROLLER: &'static str = "pv-protection-controller";
    const FINALIZER: &'static str = names::PV_PROTECTION;
    const KINDS: &'static [Kind] = &[Kind::PersistentVolume];

    fn in_use(&self, _: &Cache) -> bool {
        fields::volume_phase(self) == "Bound"
    }

    fn freed_by(_: &Delta) -> Vec<ObjKey> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::VolumeProtection;
    use crate::api::{Cache, Kind, ObjKey, Object, Write};
    use crate::control::{Controller, Effect};
    use crate::runtime::Time;

    fn decision(phase: &str, deleting: bool, finalizers: &[&str]) -> Effect {
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        let json = json!({
            "metadata": {"name": "v", "resourceVersion": "7", "deletionTimestamp": deleted, "finalizers": finalizers},
            "spec": {}, "status": {"phase": phase}
        });
        let mut cache = Cache::new(&[]);
        cache.put(Object::from_json(Kind::PersistentVolume, json).unwrap());
        VolumeProtection::default().decide(&cache, &Default::default(), &ObjKey::cluster("v"), Time::ZERO)
    }

    #[test]
    fn only_being_bound_keeps_a_volume() {
        // 1.10: status.phase == Bound is the only check; other finalizers stay.
        let guard = "kubernetes.io/pv-protection";
        assert_eq!(decision("Bound", true, &[guard]), Effect::Rest);
        assert_eq!(decision("Bound", false, &[guard]), Effect::Rest);
        for phase in ["Released", "Available", "Failed", "Pending"] {
            let Effect::Write(Write::Update(volume)) = decision(phase, true, &["other", guard]) else {
                panic!("a full update was expected in phase {phase}");
            };
            assert_eq!(volume.meta().finalizers, Some(vec!["other".to_owned()]));
            assert_eq!(
                volume.version(),
                7,
                "it carries the version that was seen, so it can conflict"
            );
        }
        assert!(
            matches!(decision("Available", false, &[]), Effect::Write(Write::Update(_))),
            "a volume without it gets it"
        );
        assert_eq!(decision("Available", true, &[]), Effect::Rest, "too late to add one");
    }
}
