//! The expand controller of kube-controller-manager (`volume_expand`): for CSI volumes it only tells users that somebody else expands.
//!
//! ```text
//! a bound claim whose request or whose status.capacity grew
//!   ──► live GET of its volume ──► still to grow, or marked as growing? ──► event ExternalExpanding
//! ```
//!
//! The volume is marked (annotation with the size before) from the controller's expansion until the node is done. The growth of status.capacity therefore
//! gives a second event if the mark is still there when the GET arrives (traces 06, 07, 16: it is; 08: it is not). Source: fact sheet 1.10.
//!
//! Blind spots: migrated volumes, for which it names the resizer on the claim.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::api::{
    ApiError, Cache, Delta, EventRecord, Kind, Limiter, ObjKey, Object, ObjectRef, Read, ReadAnswer, Resource, fields,
    names,
};
use crate::control::{Controller, Effect, LaneSpec, Learner, Outcome, Requests};
use crate::runtime::Time;

/// The controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeExpand;

/// A sync under way.
#[derive(Debug)]
pub struct Sync {
    /// The claim as it was when the sync began.
    claim: Arc<PersistentVolumeClaim>,
    next: Next,
}

#[derive(Clone, Debug)]
enum Next {
    Tell,
    Retry(String),
    Rest,
}

/// Kubernetes runs this many workers.
const WORKERS: usize = 10;

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    fields::claim_phase(claim) == "Bound"
}

/// Whether an update may mean an expansion. The first capacity of a claim just bound is none.
fn grew(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> bool {
    let first = fields::claim_capacity(old) == 0 && fields::claim_request(new) <= fields::claim_capacity(new);
    fields::claim_request(new) > fields::claim_request(old)
        || (fields::claim_capacity(new) > fields::claim_capacity(old) && !first)
}

fn verdict(claim: &PersistentVolumeClaim, answer: Result<&ReadAnswer, &ApiError>) -> Next {
    let volume: &Arc<PersistentVolume> = match answer {
        Ok(ReadAnswer::Object(object)) => object.get().expect("a GET answers with the kind that was asked for"),
        Ok(ReadAnswer::List(_)) => unreachable!("a GET answers with one object"),
        Err(error) => return Next::Retry(error.message.clone()),
    };
    if fields::volume_claim(volume).and_then(|r| r.uid.as_ref()) != claim.metadata.uid.as_ref() {
        let key = ObjKey::of(&claim.metadata);
        return Next::Retry(format!("persistent Volume is not bound to PVC being updated : {key}"));
    }
    let marked = fields::annotation(&volume.metadata, names::PRE_RESIZE_CAPACITY).is_some();
    if marked || fields::claim_request(claim) > fields::claim_capacity(claim) {
        Next::Tell
    } else {
        Next::Rest
    }
}

impl Controller for VolumeExpand {
    type Key = ObjKey;
    /// The syncs whose volume has been read.
    type Memory = BTreeMap<ObjKey, Sync>;

    fn name(&self) -> &'static str {
        "volume_expand"
    }

    fn component(&self) -> Option<String> {
        Some("volume_expand".into())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::PersistentVolumeClaim]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        vec![LaneSpec {
            name: "volume_expand",
            workers: WORKERS,
            limiter: Limiter::Controller,
        }]
    }

    fn notice(&self, _: &Cache, _: &mut Self::Memory, delta: &Delta, _: Time, queue: &mut Requests<ObjKey>) {
        let Some((old, Some(new))) = delta.of::<PersistentVolumeClaim>() else {
            return;
        };
        // At the start of the process every claim is new: those that are not settled are looked at.
        let worth_it = old.map_or(fields::claim_request(new) > fields::claim_capacity(new), |old| {
            grew(old, new)
        });
        if is_bound(new) && worth_it {
            queue.add(new.key());
        }
    }

    fn decide(&self, cache: &Cache, memory: &Self::Memory, key: &ObjKey, _: Time) -> Effect {
        match memory.get(key).map(|sync| (&sync.claim, &sync.next)) {
            None => {
                let claim = cache.get::<PersistentVolumeClaim>(key);
                claim.map_or(Effect::Rest, |claim| {
                    let volume = ObjKey::cluster(fields::claim_volume(claim));
                    Effect::Read(Read::Get(ObjectRef::to::<PersistentVolume>(&volume)))
                })
            }
            Some((claim, Next::Tell)) => {
                let message = "waiting for an external controller to expand this PVC";
                let claim = Object::PersistentVolumeClaim(Arc::clone(claim));
                Effect::Record(EventRecord::normal(&claim, "ExternalExpanding", message))
            }
            Some((_, Next::Retry(why))) => Effect::Retry(why.clone().into()),
            Some((_, Next::Rest)) => Effect::Rest,
        }
    }

    fn learn(
        &self,
        memory: &mut Self::Memory,
        key: &ObjKey,
        _: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, ObjKey>,
    ) {
        if let Some(sync) = memory.get_mut(key) {
            sync.next = Next::Rest;
            return;
        }
        // The claim may have gone while its volume was read: then there is nobody to tell.
        if let Some(claim) = then.cache.get::<PersistentVolumeClaim>(key) {
            let next = verdict(claim, outcome.read());
            memory.insert(
                key.clone(),
                Sync {
                    claim: Arc::clone(claim),
                    next,
                },
            );
        }
    }

    fn ended(&self, memory: &mut Self::Memory, key: &ObjKey, _: &Effect) {
        memory.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    use serde_json::{Value, json};

    use super::{Next, grew, verdict};
    use crate::api::{Kind, Object, ReadAnswer};

    fn claim(request: &str, capacity: Option<&str>) -> Arc<PersistentVolumeClaim> {
        let capacity = capacity.map(|c| json!({"storage": c}));
        let json = json!({
            "metadata": {"name": "data", "namespace": "default", "uid": "u1"},
            "spec": {"resources": {"requests": {"storage": request}}}, "status": {"phase": "Bound", "capacity": capacity}
        });
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn volume(annotations: &Value, uid: &str) -> ReadAnswer {
        let json = json!({"metadata": {"name": "v", "annotations": annotations}, "spec": {"claimRef": {"uid": uid}}});
        ReadAnswer::Object(Object::from_json(Kind::PersistentVolume, json).unwrap())
    }

    #[test]
    fn a_larger_request_or_a_larger_capacity_is_looked_at() {
        let small = claim("1Gi", Some("1Gi"));
        assert!(grew(&small, &claim("2Gi", Some("1Gi"))));
        assert!(grew(&claim("2Gi", Some("1Gi")), &claim("2Gi", Some("2Gi"))));
        assert!(
            !grew(&claim("2Gi", Some("1Gi")), &small),
            "a recovery from a failed expansion shrinks"
        );
        assert!(!grew(&claim("1Gi", None), &small), "being bound is not growing");
    }

    #[test]
    fn the_volumes_mark_gives_the_second_event() {
        // Traces 06 and 16: the event again when status.capacity has grown, because the resizer has not taken the mark away yet.
        let (growing, grown) = (claim("2Gi", Some("1Gi")), claim("2Gi", Some("2Gi")));
        let marked = volume(&json!({"volume.alpha.kubernetes.io/pre-resize-capacity": "1Gi"}), "u1");
        let plain = volume(&json!({}), "u1");
        assert!(matches!(verdict(&growing, Ok(&plain)), Next::Tell));
        assert!(matches!(verdict(&grown, Ok(&marked)), Next::Tell));
        assert!(matches!(verdict(&grown, Ok(&plain)), Next::Rest));
        assert!(matches!(
            verdict(&growing, Ok(&volume(&json!({}), "u2"))),
            Next::Retry(_)
        ));
    }
}
