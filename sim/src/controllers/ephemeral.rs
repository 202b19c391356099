//! The ephemeral-volume controller of kube-controller-manager: makes the claim of each generic ephemeral volume of a pod, named `<pod>-<volume>`.
//!
//! ```text
//! pod seen ──► per ephemeral volume: claim there? ─┬─ no ──► create it, owned by the pod
//!              (the first error ends the sync)     ├─ owned by the pod ──► next
//!                                                  └─ somebody else's ──► FailedBinding on the pod, Retry
//! ```
//!
//! Nobody deletes these claims here: the garbage collector does, once the pod is gone. Source: fact sheet 1.10, trace 15.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{Cache, Delta, EventRecord, Index, Kind, Limiter, ObjKey, Object, Write, fields};
use crate::control::{Controller, Effect, LaneSpec, Learner, Outcome, Requests};
use crate::runtime::Time;

/// The indexes that it needs in the cache of its process.
pub const INDEXES: &[Index] = &[Index::PodsByClaim];

/// The controller.
#[derive(Clone, Copy, Debug)]
pub struct EphemeralVolumes {
    /// `--concurrent-ephemeralvolume-syncs`.
    workers: usize,
}

/// A sync under way.
#[derive(Debug)]
pub struct Sync {
    /// The pod as it was when the sync began.
    pod: Arc<Pod>,
    /// The volume at hand.
    volume: usize,
    /// What is to be done next.
    next: Next,
}

#[derive(Clone, Debug)]
enum Next {
    Create(Object),
    Complain(String),
    Retry(String),
    Rest,
}

impl EphemeralVolumes {
    /// A controller with so many workers.
    pub fn new(workers: usize) -> EphemeralVolumes {
        EphemeralVolumes { workers }
    }
}

fn has_ephemeral_volumes(pod: &Pod) -> bool {
    !fields::is_deleting(&pod.metadata) && fields::pod_volumes(pod).iter().any(|v| v.ephemeral.is_some())
}

/// The claim of a volume, as its template says.
fn claim_for(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let meta = template.metadata.clone().unwrap_or_default();
    let name = format!("{}-{}", fields::name(&pod.metadata), volume.name);
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![fields::controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

impl Sync {
    fn begin(pod: &Arc<Pod>, cache: &Cache) -> Sync {
        let mut sync = Sync {
            pod: Arc::clone(pod),
            volume: 0,
            next: Next::Rest,
        };
        sync.advance(cache);
        sync
    }

    /// Looks at the volumes from the one at hand.
    fn advance(&mut self, cache: &Cache) {
        self.next = Next::Rest;
        while let Some(volume) = fields::pod_volumes(&self.pod).get(self.volume) {
            if let Some(claim) = claim_for(&self.pod, volume) {
                match cache.get::<PersistentVolumeClaim>(&ObjKey::of(&claim.metadata)) {
                    None => {
                        self.next = Next::Create(Object::new(claim));
                        return;
                    }
                    Some(found) if !fields::is_owned_by_pod(found, &self.pod) => {
                        let (claim, pod) = (ObjKey::of(&found.metadata), ObjKey::of(&self.pod.metadata));
                        self.next =
                            Next::Complain(format!("PVC {claim} was not created for pod {pod} (pod is not owner)"));
                        return;
                    }
                    Some(_) => {}
                }
            }
            self.volume += 1;
        }
    }
}

impl Controller for EphemeralVolumes {
    type Key = ObjKey;
    /// The syncs under way.
    type Memory = BTreeMap<ObjKey, Sync>;

    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn component(&self) -> Option<String> {
        Some("ephemeral_volume".into())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod, Kind::PersistentVolumeClaim]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        vec![LaneSpec {
            name: "ephemeral_volume",
            workers: self.workers,
            limiter: Limiter::Controller,
        }]
    }

    fn notice(&self, cache: &Cache, _: &mut Self::Memory, delta: &Delta, _: Time, queue: &mut Requests<ObjKey>) {
        if let Some((old, new)) = delta.of::<Pod>() {
            // The volumes of a pod never change: its updates say nothing new.
            let new = new.filter(|new| old.is_none_or(|old| old.metadata.uid != new.metadata.uid));
            new.filter(|pod| has_ephemeral_volumes(pod))
                .into_iter()
                .for_each(|pod| queue.add(ObjKey::of(&pod.metadata)));
        } else if delta.new.is_none() && delta.kind() == Kind::PersistentVolumeClaim {
            let claim = delta.object().key().to_string();
            let pods = cache.by::<Pod>(Index::PodsByClaim, &claim);
            pods.filter(|pod| has_ephemeral_volumes(pod))
                .for_each(|pod| queue.add(ObjKey::of(&pod.metadata)));
        }
    }

    fn decide(&self, cache: &Cache, memory: &Self::Memory, key: &ObjKey, _: Time) -> Effect {
        let Some(sync) = memory.get(key) else {
            let pod = cache.get::<Pod>(key).filter(|pod| has_ephemeral_volumes(pod));
            return pod.map_or(Effect::Rest, |_| Effect::Note("look at the pod"));
        };
        match &sync.next {
            Next::Create(claim) => Effect::Write(Write::Create(claim.clone())),
            Next::Complain(why) => Effect::Record(EventRecord::warning(
                &Object::Pod(Arc::clone(&sync.pod)),
                "FailedBinding",
                why,
            )),
            Next::Retry(why) => Effect::Retry(why.clone().into()),
            Next::Rest => Effect::Rest,
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
        let Some(sync) = memory.get_mut(key) else {
            let pod = then.cache.get::<Pod>(key).expect("the decision saw the pod");
            memory.insert(key.clone(), Sync::begin(pod, then.cache));
            return;
        };
        match &sync.next {
            Next::Create(claim) => match outcome.written() {
                Ok(_) => {
                    sync.volume += 1;
                    sync.advance(then.cache);
                }
                Err(error) => sync.next = Next::Retry(format!("create PVC {}: {error}", claim.key())),
            },
            Next::Complain(why) => sync.next = Next::Retry(why.clone()),
            Next::Retry(_) | Next::Rest => unreachable!("the end of a sync has no outcome"),
        }
    }

    fn ended(&self, memory: &mut Self::Memory, key: &ObjKey, _: &Effect) {
        memory.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::{EphemeralVolumes, INDEXES};
    use crate::api::{Cache, Delta, Kind, ObjKey, Object, Write};
    use crate::control::{AnyShell, Controller, Effect, Pumped, Requests, Shell};
    use crate::runtime::Time;

    fn pod(version: u64) -> Object {
        let template = |size: &str| json!({"volumeClaimTemplate": {"metadata": {"labels": {"app": "web"}}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}});
        let json = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "p1", "resourceVersion": version.to_string()},
            "spec": {"containers": [], "volumes": [{"name": "a", "ephemeral": template("1Gi")}, {"name": "x", "emptyDir": {}}, {"name": "b", "ephemeral": template("2Gi")}]}
        });
        Object::from_json(Kind::Pod, json).unwrap()
    }

    fn claim(owner: &Value) -> Object {
        let json = json!({"metadata": {"name": "web-a", "namespace": "default", "ownerReferences": owner}});
        Object::from_json(Kind::PersistentVolumeClaim, json).unwrap()
    }

    /// What the controller does with these claims there already.
    fn pumped(claims: Vec<Object>) -> Pumped {
        let mut cache = Cache::new(INDEXES);
        let mut shell = Shell::new(EphemeralVolumes::new(5));
        claims.into_iter().for_each(|c| drop(cache.put(c)));
        let delta = cache.put(pod(1)).unwrap();
        shell.notice(&cache, &delta, Time::ZERO);
        shell.pump(&mut cache, Time::ZERO)
    }

    #[test]
    fn a_missing_claim_is_made_from_its_template_and_owned_by_the_pod() {
        // Trace 15: labels, spec and a controlling, blocking owner reference.
        let requests = pumped(Vec::new()).requests;
        let [request] = requests.as_slice() else {
            panic!("one write at a time: {requests:?}")
        };
        let Effect::Write(Write::Create(claim)) = &*request.effect else {
            panic!("{request:?}")
        };
        assert_eq!(
            claim.to_json()["metadata"],
            json!({"name": "web-a", "namespace": "default", "labels": {"app": "web"}, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "p1", "controller": true, "blockOwnerDeletion": true}]})
        );
    }

    #[test]
    fn an_own_claim_is_left_alone_and_the_next_volume_is_served() {
        let own = claim(&json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "p1", "controller": true}]));
        let requests = pumped(vec![own]).requests;
        assert_eq!(requests.len(), 1);
        assert!(matches!(&*requests[0].effect, Effect::Write(Write::Create(c)) if &*c.key().name == "web-b"));
    }

    #[test]
    fn a_foreign_claim_is_reported_on_the_pod_and_ends_the_sync() {
        for owner in [
            json!([]),
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "p0", "controller": true}]),
        ] {
            let out = pumped(vec![claim(&owner)]);
            assert!(out.requests.is_empty());
            assert_eq!(out.records.len(), 1);
            assert_eq!(out.records[0].reason, "FailedBinding");
            assert_eq!(
                out.records[0].message,
                "PVC default/web-a was not created for pod default/web (pod is not owner)"
            );
        }
    }

    #[test]
    fn updates_of_a_pod_are_nothing_to_it() {
        let delta = Delta {
            old: Some(pod(1)),
            new: Some(pod(2)),
            resync: false,
        };
        let mut queue: Requests<ObjKey> = Requests::default();
        EphemeralVolumes::new(5).notice(
            &Cache::new(INDEXES),
            &mut BTreeMap::new(),
            &delta,
            Time::ZERO,
            &mut queue,
        );
        assert!(queue.keys().is_empty());
    }
}
