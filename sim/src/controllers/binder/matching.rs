//! Which existing volume a claim gets: the selection that the volume controller and the scheduler share.
//!
//! The volume controller asks [`best_match`], which groups the volumes by their access modes and tries the poorest group first; the scheduler asks
//! [`find_matching`] for one node. Both let a volume that already names the claim win over all others. Facts: fact sheet 1.6.
//!
//! Blind spots: among volumes of equal size Kubernetes takes the first in random order; here it is the first by name. Groups of equally many access
//! modes are tried in order of their spelling.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};

use crate::api::fields;

use super::affinity;

/// Who asks, and what that changes.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// The volume controller. When binding waits for a consumer, it takes no volume that does not name the claim already.
    Controller {
        /// The class says `WaitForFirstConsumer`.
        delayed: bool,
    },
    /// The scheduler, which looks for a volume usable on this node.
    Scheduler(&'a Node),
}

/// The volume for a claim among `volumes`, none of which is in `excluded`.
///
/// `None` means that nothing fits; for the scheduler also that a volume which names the claim does not fit the node.
pub fn find_matching<'v>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'v Arc<PersistentVolume>>,
    asker: Asker<'_>,
    excluded: &BTreeSet<String>,
) -> Option<&'v Arc<PersistentVolume>> {
    let mut smallest: Option<(u64, &Arc<PersistentVolume>)> = None;
    for volume in volumes {
        if excluded.contains(fields::name(&volume.metadata)) || !may_hold(volume, claim) {
            continue;
        }
        let fits_node = match asker {
            Asker::Scheduler(node) => affinity::volume_fits(volume, node),
            Asker::Controller { .. } => true,
        };
        if fields::is_claimed_by(volume, claim) {
            return fits_node.then_some(volume);
        }
        if !fits_node || !is_offered(volume, claim, asker) {
            continue;
        }
        let capacity = fields::volume_capacity(volume);
        if smallest.is_none_or(|(least, _)| capacity < least) {
            smallest = Some((capacity, volume));
        }
    }
    smallest.map(|(_, volume)| volume)
}

/// What even a volume that names the claim must have: room, the same volume mode and attributes class, and a future.
fn may_hold(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    (fields::volume_claim(volume).is_none() || fields::is_claimed_by(volume, claim))
        && fields::volume_capacity(volume) >= fields::claim_request(claim)
        && fields::volume_mode(volume) == fields::claim_mode(claim)
        && same_attributes_class(volume, claim)
        && !fields::is_deleting(&volume.metadata)
}

/// What a volume that belongs to nobody must have besides.
fn is_offered(volume: &PersistentVolume, claim: &PersistentVolumeClaim, asker: Asker<'_>) -> bool {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let for_asker = match asker {
        Asker::Controller { delayed } => !delayed,
        Asker::Scheduler(_) => covers_modes(volume, claim),
    };
    for_asker
        && fields::volume_phase(volume) == "Available"
        && selector.is_none_or(|s| affinity::selects_labels(s, volume.metadata.labels.as_ref()))
        && fields::volume_class(volume) == fields::claim_class(claim).unwrap_or_default()
}

/// Whether both sides name the same VolumeAttributesClass; none is the same as empty.
pub fn same_attributes_class(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume
        .spec
        .as_ref()
        .and_then(|s| s.volume_attributes_class_name.as_deref());
    let of_claim = claim
        .spec
        .as_ref()
        .and_then(|s| s.volume_attributes_class_name.as_deref());
    of_volume.unwrap_or_default() == of_claim.unwrap_or_default()
}

/// Whether the volume has every access mode that the claim asks for.
pub fn covers_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = fields::volume_modes(volume);
    fields::claim_modes(claim).iter().all(|mode| offered.contains(mode))
}

/// The volume controller's search: per set of access modes that covers the claim's, fewest modes first.
pub fn best_match<'v>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'v Arc<PersistentVolume>>,
    delayed: bool,
) -> Option<&'v Arc<PersistentVolume>> {
    let mut groups: BTreeMap<(usize, BTreeSet<&str>), Vec<&Arc<PersistentVolume>>> = BTreeMap::new();
    for volume in volumes {
        if covers_modes(volume, claim) {
            let modes: BTreeSet<&str> = fields::volume_modes(volume).iter().map(String::as_str).collect();
            groups.entry((modes.len(), modes)).or_default().push(volume);
        }
    }
    let asker = Asker::Controller { delayed };
    groups
        .into_values()
        .find_map(|group| find_matching(claim, group, asker, &BTreeSet::new()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
    use serde_json::{Value, json};

    use super::{Asker, best_match, find_matching};
    use crate::controllers::bench::merged;

    fn claim(change: &Value) -> PersistentVolumeClaim {
        let base = json!({
            "metadata": {"name": "data", "namespace": "default", "uid": "u1"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "resources": {"requests": {"storage": "10Gi"}}}
        });
        serde_json::from_value(merged(base, change)).unwrap()
    }

    fn volume(name: &str, size: &str, change: &Value) -> Arc<PersistentVolume> {
        let base = json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "capacity": {"storage": size}},
            "status": {"phase": "Available"}
        });
        Arc::new(serde_json::from_value(merged(base, change)).unwrap())
    }

    fn chosen(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> Option<String> {
        best_match(claim, volumes, false).and_then(|v| v.metadata.name.clone())
    }

    #[test]
    fn the_smallest_volume_that_fits_wins() {
        let volumes = [
            volume("a", "50Gi", &json!({})),
            volume("b", "10Gi", &json!({})),
            volume("c", "9Gi", &json!({})),
        ];
        assert_eq!(chosen(&claim(&json!({})), &volumes).as_deref(), Some("b"));
    }

    #[test]
    fn the_group_with_the_fewest_modes_wins_over_a_smaller_volume() {
        // 1.6: sets of access modes are tried fewest first; size counts only within one set.
        let many = json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}});
        let volumes = [volume("a", "10Gi", &many), volume("b", "50Gi", &json!({}))];
        assert_eq!(chosen(&claim(&json!({})), &volumes).as_deref(), Some("b"));
        assert_eq!(
            chosen(&claim(&json!({"spec": {"accessModes": ["ReadWriteMany"]}})), &volumes).as_deref(),
            Some("a")
        );
    }

    #[test]
    fn each_difference_alone_rejects_a_volume() {
        let differences = [
            json!({"spec": {"volumeMode": "Block"}}),
            json!({"spec": {"storageClassName": "fast"}}),
            json!({"spec": {"volumeAttributesClassName": "gold"}}),
            json!({"spec": {"accessModes": ["ReadOnlyMany"]}}),
            json!({"spec": {"claimRef": {"namespace": "default", "name": "other"}}}),
            json!({"spec": {"claimRef": {"namespace": "default", "name": "data", "uid": "u0"}}}),
            json!({"status": {"phase": "Released"}}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        ];
        for difference in differences {
            let volumes = [volume("a", "10Gi", &difference)];
            assert_eq!(chosen(&claim(&json!({})), &volumes), None, "{difference}");
        }
        let picky = claim(&json!({"spec": {"selector": {"matchLabels": {"tier": "hot"}}}}));
        assert_eq!(chosen(&picky, &[volume("a", "10Gi", &json!({}))]), None);
        let hot = volume("a", "10Gi", &json!({"metadata": {"labels": {"tier": "hot"}}}));
        assert!(chosen(&picky, &[hot]).is_some());
    }

    #[test]
    fn a_volume_that_names_the_claim_wins_whatever_its_class_and_phase() {
        // Pre-bound volumes skip the filters on phase, selector and class, but not those on size and mode.
        let prebound = json!({"spec": {"storageClassName": "x", "claimRef": {"namespace": "default", "name": "data"}}, "status": {"phase": "Pending"}});
        let volumes = [volume("a", "10Gi", &json!({})), volume("b", "50Gi", &prebound)];
        assert_eq!(chosen(&claim(&json!({})), &volumes).as_deref(), Some("b"));
        assert_eq!(
            chosen(&claim(&json!({})), &[volume("b", "5Gi", &prebound)]),
            None,
            "too small even so"
        );
    }

    #[test]
    fn delayed_binding_takes_only_what_names_the_claim() {
        let named = volume(
            "b",
            "50Gi",
            &json!({"spec": {"claimRef": {"namespace": "default", "name": "data", "uid": "u1"}}}),
        );
        let free = volume("a", "10Gi", &json!({}));
        assert!(best_match(&claim(&json!({})), [&free], true).is_none());
        assert!(best_match(&claim(&json!({})), [&free, &named], true).is_some());
    }

    #[test]
    fn the_scheduler_looks_at_one_node() {
        let near = |zone: &str| json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}}}});
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"zone": "z1"}}})).unwrap();
        let here = volume("a", "20Gi", &near("z1"));
        let there = volume("b", "10Gi", &near("z2"));
        let find = |volumes: &[Arc<PersistentVolume>], excluded: &[&str]| {
            let excluded: BTreeSet<String> = excluded.iter().map(ToString::to_string).collect();
            find_matching(&claim(&json!({})), volumes, Asker::Scheduler(&node), &excluded)
                .and_then(|v| v.metadata.name.clone())
        };
        let both = [Arc::clone(&here), there];
        assert_eq!(find(&both, &[]).as_deref(), Some("a"));
        assert_eq!(find(&both, &["a"]), None, "chosen for another claim of the pod");
        let named_there = merged(
            near("z2"),
            &json!({"spec": {"claimRef": {"namespace": "default", "name": "data"}}}),
        );
        let prebound = volume("c", "10Gi", &named_there);
        assert_eq!(
            find(&[prebound, here], &[]),
            None,
            "a volume that names the claim decides, even against the node"
        );
    }
}
