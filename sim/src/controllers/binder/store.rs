//! The volume controller's own copies of claims and volumes.
//!
//! They stand beside the informers: every successful write puts the returned object here at once, so the controller reads its own writes while others
//! still see the old state. An object that is older than the copy is dropped; one of equal version passes, which is what lets a resync through.
//! Source: fact sheet 1.3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::api::{ObjKey, Resource, fields, version};

/// The claims, found also by the volume that they name.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_key: BTreeMap<ObjKey, Arc<PersistentVolumeClaim>>,
    by_volume: Postings<String, ObjKey>,
}

/// The volumes, found also by the claim that they name.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    by_name: BTreeMap<String, Arc<PersistentVolume>>,
    by_claim: Postings<ObjKey, String>,
    /// Those that name no claim.
    free: BTreeSet<String>,
}

type Postings<K, V> = BTreeMap<K, BTreeSet<V>>;

fn unpost<K: Ord, V: Ord>(postings: &mut Postings<K, V>, key: &K, value: &V) {
    if let Some(values) = postings.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            postings.remove(key);
        }
    }
}

impl Claims {
    pub(super) fn get(&self, key: &ObjKey) -> Option<&Arc<PersistentVolumeClaim>> {
        self.by_key.get(key)
    }

    /// Takes a version in; `false` when a newer one is known.
    pub(super) fn store(&mut self, claim: &Arc<PersistentVolumeClaim>) -> bool {
        let key = claim.key();
        if let Some(known) = self.by_key.get(&key) {
            if version(&known.metadata) > version(&claim.metadata) {
                return false;
            }
            let volume = fields::claim_volume(known).to_owned();
            unpost(&mut self.by_volume, &volume, &key);
        }
        let volume = fields::claim_volume(claim);
        if !volume.is_empty() {
            self.by_volume.entry(volume.to_owned()).or_default().insert(key.clone());
        }
        self.by_key.insert(key, Arc::clone(claim));
        true
    }

    pub(super) fn remove(&mut self, key: &ObjKey) -> Option<Arc<PersistentVolumeClaim>> {
        let claim = self.by_key.remove(key)?;
        unpost(&mut self.by_volume, &fields::claim_volume(&claim).to_owned(), key);
        Some(claim)
    }

    /// The claims that name this volume.
    pub(super) fn of_volume(&self, volume: &str) -> impl Iterator<Item = &Arc<PersistentVolumeClaim>> {
        let keys = self.by_volume.get(volume).into_iter().flatten();
        keys.filter_map(|key| self.by_key.get(key))
    }
}

impl Volumes {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.by_name.get(name)
    }

    /// Takes a version in; `false` when a newer one is known.
    pub(super) fn store(&mut self, volume: &Arc<PersistentVolume>) -> bool {
        let name = fields::name(&volume.metadata).to_owned();
        if let Some(known) = self.by_name.get(&name) {
            if version(&known.metadata) > version(&volume.metadata) {
                return false;
            }
            let known = Arc::clone(known);
            self.unindex(&known, &name);
        }
        match fields::volume_claim_key(volume) {
            Some(claim) => {
                self.by_claim.entry(claim).or_default().insert(name.clone());
            }
            None => {
                self.free.insert(name.clone());
            }
        }
        self.by_name.insert(name, Arc::clone(volume));
        true
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<PersistentVolume>> {
        let volume = self.by_name.remove(name)?;
        self.unindex(&volume, &name.to_owned());
        Some(volume)
    }

    fn unindex(&mut self, volume: &PersistentVolume, name: &String) {
        match fields::volume_claim_key(volume) {
            Some(claim) => unpost(&mut self.by_claim, &claim, name),
            None => {
                self.free.remove(name);
            }
        }
    }

    /// The volumes that name this claim, whatever its UID.
    pub(super) fn of_claim(&self, claim: &ObjKey) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        let names = self.by_claim.get(claim).into_iter().flatten();
        names.filter_map(|name| self.by_name.get(name))
    }

    /// The volumes that name no claim.
    pub(super) fn free(&self) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.free.iter().filter_map(|name| self.by_name.get(name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
    use serde_json::json;

    use super::{Claims, Volumes};
    use crate::api::ObjKey;

    fn claim(version: u64, volume: &str) -> Arc<PersistentVolumeClaim> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "data", "namespace": "default", "resourceVersion": version.to_string()},
                "spec": {"volumeName": volume}
            }))
            .unwrap(),
        )
    }

    fn volume(version: u64, claim: Option<&str>) -> Arc<PersistentVolume> {
        let claim = claim.map(|name| json!({"namespace": "default", "name": name}));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "v", "resourceVersion": version.to_string()}, "spec": {"claimRef": claim}
            }))
            .unwrap(),
        )
    }

    #[test]
    fn only_strictly_older_versions_are_dropped() {
        // 1.3: without this, a late watch event would undo what the controller just wrote.
        let mut claims = Claims::default();
        assert!(claims.store(&claim(5, "v")));
        assert!(!claims.store(&claim(4, "")), "an event that left before the own write");
        assert!(claims.store(&claim(5, "v")), "a resync");
        assert!(claims.store(&claim(6, "w")));
        assert_eq!(claims.of_volume("v").count(), 0);
        assert_eq!(claims.of_volume("w").count(), 1);
        claims.remove(&ObjKey::new("default", "data"));
        assert_eq!(claims.of_volume("w").count(), 0);
    }

    #[test]
    fn a_volume_is_free_or_somebodys() {
        let key = ObjKey::new("default", "data");
        let mut volumes = Volumes::default();
        volumes.store(&volume(1, None));
        assert_eq!((volumes.free().count(), volumes.of_claim(&key).count()), (1, 0));
        volumes.store(&volume(2, Some("data")));
        assert_eq!((volumes.free().count(), volumes.of_claim(&key).count()), (0, 1));
        assert!(!volumes.store(&volume(1, None)));
        volumes.remove("v");
        assert_eq!((volumes.free().count(), volumes.of_claim(&key).count()), (0, 0));
    }
}
