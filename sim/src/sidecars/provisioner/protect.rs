//! Takes finalizers off the sources of clones and restores (fact sheet 3.11).
//!
//! A claim that is being deleted loses `cloning-protection` when no claim of its namespace that clones it is Pending any more; it keeps it as long as nobody deletes
//! it (trace 10). A snapshot loses its protection right after the restore, in [`super::claim`]; a sweep every 5 minutes takes off what was left behind.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::api::snapshot::VolumeSnapshot;
use crate::api::{Cache, ObjKey, Resource, Write, fields, names};
use crate::control::{Effect, Outcome};
use crate::runtime::Time;
use crate::sidecars::connect::ControllerRpc;

use super::attempt::without_finalizer;
use super::{Memory, Provisioner};

/// The next effect for a claim that may be the source of clones.
pub(super) fn decide_claim(cache: &Cache, memory: &Memory, key: &ObjKey) -> Effect {
    match memory.released_claims.get(key) {
        Some(Ok(())) => return Effect::Rest,
        Some(Err(message)) => return Effect::Retry(message.clone().into()),
        None => {}
    }
    let able = memory.connection.discovered.controller(ControllerRpc::CloneVolume);
    let Some(claim) = cache.get::<PersistentVolumeClaim>(key).filter(|_| able) else {
        return Effect::Rest;
    };
    if !fields::has_finalizer(&claim.metadata, names::CLONING_PROTECTION) {
        return Effect::Rest;
    }
    let clones = |other: &&Arc<PersistentVolumeClaim>| {
        let source = other.spec.as_ref().and_then(|s| s.data_source.as_ref());
        source.is_some_and(|s| s.kind == "PersistentVolumeClaim" && *s.name == *key.name)
    };
    let mut others = cache
        .in_namespace::<PersistentVolumeClaim>(&key.namespace)
        .filter(clones);
    match others.find(|other| fields::claim_phase(other) == "Pending") {
        Some(other) => {
            let name = fields::name(&other.metadata);
            Effect::Retry(format!("PVC '{name}' is in 'Pending' state, cloning in progress").into())
        }
        None => {
            let released = without_finalizer(claim, names::CLONING_PROTECTION);
            Effect::write(Write::Update(PersistentVolumeClaim::into_object(released)))
        }
    }
}

/// What it taught.
pub(super) fn learn_claim(memory: &mut Memory, key: &ObjKey, outcome: &Outcome) {
    let result = match outcome.written() {
        Err(error) if !error.is_not_found() => Err(error.to_string()),
        _ => Ok(()),
    };
    memory.released_claims.insert(key.clone(), result);
}

/// Whether a claim that is not provisioned yet restores this snapshot.
fn is_awaited(cache: &Cache, snapshot: &ObjKey) -> bool {
    let group = |g: &Option<String>| g.as_deref().is_none_or(|g| g == "snapshot.storage.k8s.io");
    cache.list::<PersistentVolumeClaim>().any(|claim| {
        let Some(spec) = claim
            .spec
            .as_ref()
            .filter(|_| matches!(fields::claim_phase(claim), "Pending" | ""))
        else {
            return false;
        };
        let plain = spec
            .data_source
            .as_ref()
            .map(|s| (group(&s.api_group), &s.kind, &s.name));
        let other = spec
            .data_source_ref
            .as_ref()
            .map(|s| (group(&s.api_group), &s.kind, &s.name));
        let names = |(group, kind, name): (bool, &String, &String)| {
            group && kind == "VolumeSnapshot" && **name == *snapshot.name
        };
        fields::namespace(&claim.metadata) == &*snapshot.namespace && plain.or(other).is_some_and(names)
    })
}

fn protected(cache: &Cache) -> impl Iterator<Item = &Arc<VolumeSnapshot>> {
    cache
        .list::<VolumeSnapshot>()
        .filter(|s| fields::has_finalizer(&s.metadata, names::VOLUME_SNAPSHOT_RESTORE))
}

/// The next effect of the sweep: one orphan after the other, each once; then it rests until the next tick if there is still something to see.
pub(super) fn decide_sweep(site: &Provisioner, cache: &Cache, memory: &Memory, now: Time) -> Effect {
    if !memory
        .connection
        .discovered
        .controller(ControllerRpc::CreateDeleteSnapshot)
    {
        return Effect::Rest;
    }
    let mut orphans = protected(cache).filter(|s| !memory.swept.contains(&s.key()) && !is_awaited(cache, &s.key()));
    if let Some(orphan) = orphans.next() {
        let released = without_finalizer(orphan, names::VOLUME_SNAPSHOT_RESTORE);
        return Effect::write(Write::Update(VolumeSnapshot::into_object(released)));
    }
    if protected(cache).next().is_some() {
        return Effect::RestUntil(site.next_sweep(memory, now));
    }
    Effect::Rest
}

/// What it taught: errors wait for the next sweep.
pub(super) fn learn_sweep(memory: &mut Memory, effect: &Effect) {
    if let Effect::Write(write) = effect {
        memory.swept.insert(write.target().key);
    }
}

impl Provisioner {
    /// When the sweep after this moment is.
    pub(super) fn next_sweep(&self, memory: &Memory, now: Time) -> Time {
        Time(now.0 + 1).tick(memory.started, self.flags.snapshot_orphan_sweep_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::{decide_claim, decide_sweep, learn_claim, learn_sweep};
    use crate::api::snapshot::VolumeSnapshot;
    use crate::api::{ApiError, Cache, ObjKey, Object, Write};
    use crate::control::{Effect, Outcome};
    use crate::runtime::Time;
    use crate::sidecars::connect::{Connection, ControllerRpc, Discovered};
    use crate::sidecars::provisioner::{Flags, Memory, Provisioner};
    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    use serde_json::json;
    use std::time::Duration;

    fn memory() -> Memory {
        let rpcs = [ControllerRpc::CloneVolume, ControllerRpc::CreateDeleteSnapshot];
        Memory {
            connection: Connection::up(Discovered::of("csi.example", &[], &rpcs)),
            ..Memory::default()
        }
    }

    fn claim(name: &str, phase: &str, source: (&str, &str)) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "team"},
            "spec": {"dataSource": {"kind": source.0, "name": source.1}},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn source() -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "src", "namespace": "team", "finalizers": [
                "kubernetes.io/pvc-protection", "provisioner.storage.kubernetes.io/cloning-protection"]},
        }))
        .unwrap()
    }

    #[test]
    fn a_source_is_let_go_when_no_clone_of_it_is_pending() {
        let (key, mut memory, mut cache) = (ObjKey::new("team", "src"), memory(), Cache::new(&[]));
        cache.put(Object::new(source()));
        cache.put(Object::new(claim("clone", "Pending", ("PersistentVolumeClaim", "src"))));
        assert!(matches!(decide_claim(&cache, &memory, &key), Effect::Retry(_)));
        cache.put(Object::new(claim("clone", "Bound", ("PersistentVolumeClaim", "src"))));
        cache.put(Object::new(claim(
            "other",
            "Pending",
            ("PersistentVolumeClaim", "else"),
        )));
        let Effect::Write(Write::Update(Object::PersistentVolumeClaim(written))) = decide_claim(&cache, &memory, &key)
        else {
            panic!("an update was expected")
        };
        assert_eq!(
            written.metadata.finalizers.as_deref(),
            Some(&["kubernetes.io/pvc-protection".to_owned()][..])
        );
        let error = |code, reason| {
            Outcome::Written(Err(ApiError {
                code,
                reason,
                message: "no".into(),
            }))
        };
        learn_claim(&mut memory, &key, &error(409, "Conflict"));
        assert!(matches!(decide_claim(&cache, &memory, &key), Effect::Retry(_)));
        learn_claim(&mut memory, &key, &error(404, "NotFound"));
        assert_eq!(decide_claim(&cache, &memory, &key), Effect::Rest);
    }

    #[test]
    fn the_sweep_takes_orphans_once_and_comes_back_for_the_rest() {
        let site = Provisioner::new("csi.example", &Flags::default());
        let (mut memory, mut cache, now) = (memory(), Cache::new(&[]), Time(7));
        assert_eq!(
            decide_sweep(&site, &cache, &memory, now),
            Effect::Rest,
            "nothing to see, nothing to wait for"
        );
        for name in ["a", "b"] {
            let snapshot: VolumeSnapshot = serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "team", "finalizers": [
                    "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"]},
                "spec": {"source": {}},
            }))
            .unwrap();
            cache.put(Object::new(snapshot));
        }
        cache.put(Object::new(claim("restore", "Pending", ("VolumeSnapshot", "b"))));
        let effect = decide_sweep(&site, &cache, &memory, now);
        assert!(
            matches!(&effect, Effect::Write(w) if *w.target().key.name == *"a"),
            "b is still wanted"
        );
        learn_sweep(&mut memory, &effect);
        let next = Time::ZERO + Duration::from_secs(300);
        assert_eq!(decide_sweep(&site, &cache, &memory, now), Effect::RestUntil(next));
    }
}
