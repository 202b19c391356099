//! What a pod's claims need, and whether a node can give it: VolumeBinding, VolumeRestrictions, VolumeZone.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass, VolumeAttachment};

use super::filter::{self, Refusal};
use super::memory::{Memory, Trigger};
use crate::api::quantity;
use crate::api::{Cache, Index, ObjKey, fields, names};
use crate::controllers::binder::affinity;
use crate::controllers::binder::matching::{Asker, find_matching};

/// What must be written before the pod can be bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Volumes that get a claim reference.
    pub volumes: Vec<PersistentVolume>,
    /// Claims that get a selected node.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Every claim that must be bound in the end.
    pub awaited: Vec<ObjKey>,
}

/// A pod's claims, sorted by what they still need.
#[derive(Default)]
pub(super) struct Needs {
    bound: Vec<PersistentVolumeClaim>,
    /// Smallest first.
    delayed: Vec<PersistentVolumeClaim>,
    /// (driver, volume) that attach limits count.
    pub handles: Vec<(String, String)>,
}

type PreFilterError = (String, BTreeSet<Trigger>);

/// Sorts a pod's claims; the reason if the pod cannot go anywhere yet.
pub(super) fn needs(cache: &Cache, memory: &Memory, pod: &Pod) -> Result<Needs, PreFilterError> {
    let mut needs = Needs::default();
    let namespace = fields::namespace(&pod.metadata);
    let by_claim = || BTreeSet::from([Trigger::Claim]);
    for used in fields::pod_claims(pod) {
        let key = ObjKey::new(namespace, used.claim.as_ref());
        let Some(claim) = super::claim(cache, memory, &key) else {
            let reason = if used.ephemeral {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{}\". not found",
                    used.claim
                )
            } else {
                format!("persistentvolumeclaim \"{}\" not found. not found", used.claim)
            };
            return Err((reason, by_claim()));
        };
        if fields::claim_phase(claim) == "Lost" {
            return Err((
                format!(
                    "persistentvolumeclaim \"{}\" bound to non-existent persistentvolume \"{}\".",
                    used.claim,
                    fields::claim_volume(claim)
                ),
                by_claim(),
            ));
        }
        if fields::is_deleting(&claim.metadata) {
            return Err((
                format!("persistentvolumeclaim \"{}\" is being deleted. not found", used.claim),
                by_claim(),
            ));
        }
        if used.ephemeral && !fields::is_owned_by_pod(claim, pod) {
            return Err((
                format!(
                    "PVC {key} was not created for pod {}/{} (pod is not owner). not found",
                    namespace,
                    fields::name(&pod.metadata)
                ),
                by_claim(),
            ));
        }
        if fields::claim_modes(claim).iter().any(|m| m == "ReadWriteOncePod")
            && filter::other_users(cache, pod, &key.to_string()).next().is_some()
        {
            return Err((
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod.".into(),
                BTreeSet::from([Trigger::PodGone]),
            ));
        }
        needs.sort_in(cache, claim)?;
    }
    needs.delayed.sort_by_key(fields::claim_request);
    Ok(needs)
}

impl Needs {
    fn sort_in(&mut self, cache: &Cache, claim: &PersistentVolumeClaim) -> Result<(), PreFilterError> {
        if fields::is_bound_fully(claim) {
            let volume = cache.named::<PersistentVolume>(fields::claim_volume(claim));
            if let Some((driver, handle)) = volume.and_then(|v| fields::volume_handle(v)) {
                self.handles.push((driver.to_owned(), handle.to_owned()));
            }
            self.bound.push(claim.clone());
            return Ok(());
        }
        let class = fields::claim_class(claim).and_then(|name| cache.named::<StorageClass>(name));
        if let Some(class) = class.filter(|c| fields::waits_for_consumer(c) && fields::claim_volume(claim).is_empty()) {
            self.handles.push((class.provisioner.clone(), synthetic(claim)));
            self.delayed.push(claim.clone());
            return Ok(());
        }
        Err((
            "pod has unbound immediate PersistentVolumeClaims. not found".into(),
            BTreeSet::from([Trigger::Claim, Trigger::Storage]),
        ))
    }
}

/// The handle under which attach limits count a claim that has no volume yet.
fn synthetic(claim: &PersistentVolumeClaim) -> String {
    format!(
        "{}/{}",
        fields::namespace(&claim.metadata),
        fields::name(&claim.metadata)
    )
}

/// What pods and attachments on a node use of a driver.
pub(super) fn used_on(cache: &Cache, memory: &Memory, node: &str, driver: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for key in memory.nodes.get(node).into_iter().flat_map(|seat| &seat.pods) {
        let Some(pod) = cache.get::<Pod>(key) else { continue };
        for claim in super::claims_of(pod)
            .iter()
            .filter_map(|k| super::claim(cache, memory, k))
        {
            let volume = cache.named::<PersistentVolume>(fields::claim_volume(claim));
            match volume.and_then(|v| fields::volume_handle(v)) {
                Some((d, handle)) if d == driver => {
                    used.insert(handle.to_owned());
                }
                Some(_) => {}
                None => {
                    let class = fields::claim_class(claim).and_then(|name| cache.named::<StorageClass>(name));
                    if class.is_some_and(|c| c.provisioner == driver) {
                        used.insert(synthetic(claim));
                    }
                }
            }
        }
    }
    for attachment in cache.by::<VolumeAttachment>(Index::AttachmentsByNode, node) {
        let volume = cache.named::<PersistentVolume>(fields::attachment_volume(attachment));
        if let Some((_, handle)) = volume
            .and_then(|v| fields::volume_handle(v))
            .filter(|(d, _)| *d == driver)
        {
            used.insert(handle.to_owned());
        }
    }
    used
}

const BIND_CONFLICT: Refusal = Refusal {
    reason: "node(s) didn't find available persistent volumes to bind",
    triggers: &[Trigger::Claim, Trigger::Storage, Trigger::Node, Trigger::CsiNode],
};
const NODE_CONFLICT: Refusal = Refusal {
    reason: "node(s) didn't match PersistentVolume's node affinity",
    triggers: &[Trigger::Storage, Trigger::Node],
};
const NO_VOLUME: Refusal = Refusal {
    reason: "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
    triggers: &[Trigger::Claim, Trigger::Storage],
};
const NO_SPACE: Refusal = Refusal {
    reason: "node(s) did not have enough free storage",
    triggers: &[Trigger::Storage, Trigger::CsiNode],
};
const NO_ZONE: Refusal = Refusal {
    reason: "node(s) had no available volume zone",
    triggers: &[Trigger::Claim, Trigger::Storage, Trigger::Node],
};

/// Whether a node can serve the claims, and what would have to be written.
pub(super) fn fit(cache: &Cache, memory: &Memory, needs: &Needs, node: &Node) -> Result<Plan, Refusal> {
    for claim in &needs.bound {
        let volume = volume(cache, memory, fields::claim_volume(claim)).ok_or(NO_VOLUME)?;
        if !affinity::volume_fits(volume, node) {
            return Err(NODE_CONFLICT);
        }
        if !in_zone(volume, node) {
            return Err(NO_ZONE);
        }
    }
    let mut plan = Plan::default();
    for claim in &needs.delayed {
        plan.awaited.push(ObjKey::of(&claim.metadata));
        let name = fields::name(&node.metadata);
        match fields::annotation(&claim.metadata, names::SELECTED_NODE).filter(|n| !n.is_empty()) {
            Some(selected) if selected != name => return Err(BIND_CONFLICT),
            Some(_) => {
                provisionable(cache, claim, node)?;
                // Written by an earlier cycle already; the write is repeated only if the informer does not show it.
                continue;
            }
            None => {}
        }
        if let Some(volume) = static_match(cache, memory, claim, node, &plan) {
            plan.volumes.push(claimed(volume, claim));
            continue;
        }
        provisionable(cache, claim, node)?;
        let mut claim = claim.clone();
        fields::annotate(&mut claim.metadata, names::SELECTED_NODE, name);
        plan.claims.push(claim);
    }
    Ok(plan)
}

fn volume<'a>(cache: &'a Cache, memory: &'a Memory, name: &str) -> Option<&'a Arc<PersistentVolume>> {
    memory
        .assumed_volumes
        .get(name)
        .or_else(|| cache.named::<PersistentVolume>(name))
}

/// VolumeZone: zone and region labels of a volume (a `__` separated set) against those of the node.
fn in_zone(volume: &PersistentVolume, node: &Node) -> bool {
    let keys = [
        names::ZONE,
        names::REGION,
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    if keys.iter().all(|k| fields::label(&node.metadata, k).is_none()) {
        return true;
    }
    keys.iter().all(|key| match fields::label(&volume.metadata, key) {
        None => true,
        Some(zones) => fields::label(&node.metadata, key).is_some_and(|zone| zones.split("__").any(|z| z == zone)),
    })
}

fn static_match<'a>(
    cache: &'a Cache,
    memory: &'a Memory,
    claim: &PersistentVolumeClaim,
    node: &Node,
    plan: &Plan,
) -> Option<&'a Arc<PersistentVolume>> {
    let taken: BTreeSet<String> = plan
        .volumes
        .iter()
        .map(|v| fields::name(&v.metadata).to_owned())
        .collect();
    let as_assumed = cache
        .list::<PersistentVolume>()
        .map(|v| volume(cache, memory, fields::name(&v.metadata)).unwrap_or(v));
    find_matching(claim, as_assumed, Asker::Scheduler(node), &taken)
}

fn claimed(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut volume = volume.clone();
    if fields::volume_claim(&volume).is_none() {
        fields::annotate(&mut volume.metadata, names::BOUND_BY_CONTROLLER, "yes");
    }
    if let Some(spec) = volume.spec.as_mut() {
        spec.claim_ref = Some(fields::claim_reference(claim));
    }
    volume
}

fn provisionable(cache: &Cache, claim: &PersistentVolumeClaim, node: &Node) -> Result<(), Refusal> {
    let class = fields::claim_class(claim)
        .and_then(|name| cache.named::<StorageClass>(name))
        .ok_or(BIND_CONFLICT)?;
    if class.provisioner.is_empty() || class.provisioner == "kubernetes.io/no-provisioner" {
        return Err(BIND_CONFLICT);
    }
    let allowed = class.allowed_topologies.as_deref().unwrap_or_default();
    let matches = |term: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
        let wanted = term.match_label_expressions.as_deref().unwrap_or_default();
        wanted
            .iter()
            .all(|e| fields::label(&node.metadata, &e.key).is_some_and(|v| e.values.iter().any(|w| w == v)))
    };
    if !allowed.is_empty() && !allowed.iter().any(matches) {
        return Err(BIND_CONFLICT);
    }
    has_capacity(cache, class, claim, node)
}

/// Storage capacity tracking: any published figure of the class for this node's segment that is large enough.
fn has_capacity(
    cache: &Cache,
    class: &StorageClass,
    claim: &PersistentVolumeClaim,
    node: &Node,
) -> Result<(), Refusal> {
    let driver = cache.named::<CSIDriver>(&class.provisioner);
    if driver.is_none_or(|d| d.spec.storage_capacity != Some(true)) {
        return Ok(());
    }
    let request = fields::claim_request(claim);
    let enough = cache.list::<CSIStorageCapacity>().any(|capacity| {
        let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        let labels = capacity.node_topology.as_ref().and_then(|s| s.match_labels.as_ref());
        capacity.storage_class_name == fields::name(&class.metadata)
            && capacity.node_topology.is_some()
            && labels.is_none_or(|l| l.iter().all(|(k, v)| fields::label(&node.metadata, k) == Some(v)))
            && limit.is_some_and(|q| quantity::bytes(q) >= request)
    });
    if enough { Ok(()) } else { Err(NO_SPACE) }
}
