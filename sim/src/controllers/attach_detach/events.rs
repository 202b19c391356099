//! What events of the API make of the two worlds.

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::api::{Cache, Index, ObjKey, fields, names};
use crate::control::Requests;
use crate::runtime::Time;

use super::desired::Desired;
use super::{AttachDetach, Key, Memory, pods};

/// On a node, `true`: pods that have terminated keep their volumes.
const KEEP_TERMINATED: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";

impl AttachDetach {
    pub(super) fn notice_pod(
        &self,
        cache: &Cache,
        memory: &mut Memory,
        old: Option<&Pod>,
        new: Option<&Pod>,
        now: Time,
        queue: &mut Requests<Key>,
    ) {
        let Some(pod) = new.or(old) else { return };
        let add = new.is_some() && pods::wants_volumes(&memory.desired, pod);
        if self.process(cache, memory, pod, add) {
            self.wake(memory, now, queue);
        }
        // Removal goes by claim and volume. If they are gone, or the pod was replaced unseen, the populator removes what is left.
        let replaced = old.filter(|o| o.metadata.uid != pod.metadata.uid);
        let gone = (!add).then_some(pod).into_iter().chain(replaced);
        let left = |pod: &Pod| memory.desired.places_of(fields::uid(&pod.metadata)).next().is_some();
        if gone.into_iter().any(left)
            && let Some(at) = Self::populator_tick(memory, now, self.constants.populator_period)
        {
            queue.add_at(Key::Prune, at);
        }
    }

    /// Looks at the volumes of a pod. Says whether that changed what is wanted.
    pub(super) fn process(&self, cache: &Cache, memory: &mut Memory, pod: &Pod, add: bool) -> bool {
        let processed = pods::process(cache, &mut memory.desired, pod, add);
        let key = ObjKey::of(&pod.metadata);
        if processed.passed_over {
            memory.passed_over.insert(key);
        } else {
            memory.passed_over.remove(&key);
        }
        processed.changed
    }

    pub(super) fn notice_claim(
        &self,
        cache: &Cache,
        memory: &mut Memory,
        claim: &PersistentVolumeClaim,
        now: Time,
        queue: &mut Requests<Key>,
    ) {
        if fields::claim_phase(claim) != "Bound" || fields::claim_volume(claim).is_empty() {
            return;
        }
        let key = ObjKey::of(&claim.metadata).to_string();
        let mut changed = false;
        for pod in cache.by::<Pod>(Index::PodsByClaim, &key) {
            if !pods::is_terminated(pod) {
                changed |= self.process(cache, memory, pod, true);
            }
        }
        if changed {
            self.wake(memory, now, queue);
        }
    }

    pub(super) fn notice_node(
        &self,
        memory: &mut Memory,
        old: Option<&Node>,
        new: Option<&Node>,
        now: Time,
        queue: &mut Requests<Key>,
    ) {
        let Some(node) = new.or(old) else { return };
        let name = fields::name(&node.metadata);
        match new {
            Some(_) => manage(&mut memory.desired, node),
            None => memory.desired.release(name),
        }
        memory.actual.set_in_use(name, fields::volumes_in_use(node));
        if old.is_none() {
            // A node that comes anew may have lost its list.
            memory.actual.tell_again(name);
        }
        self.wake(memory, now, queue);
    }

    pub(super) fn notice_attachment(
        &self,
        memory: &mut Memory,
        attachment: &VolumeAttachment,
        there: bool,
        now: Time,
        queue: &mut Requests<Key>,
    ) {
        if there && attachment.status.as_ref().is_some_and(|s| s.attached) {
            return;
        }
        let believed = memory.actual.named(fields::name(&attachment.metadata));
        if believed.is_some_and(|(place, a)| a.confirmed && *place.node == *attachment.spec.node_name) {
            self.wake_verify(memory, now, queue);
        }
    }
}

/// Manages the volumes of a node if it says so.
pub(super) fn manage(desired: &mut Desired, node: &Node) {
    if fields::annotation(&node.metadata, names::CONTROLLER_MANAGED_ATTACH).is_some() {
        let keep = fields::annotation(&node.metadata, KEEP_TERMINATED) == Some("true");
        desired.manage(fields::name(&node.metadata), keep);
    }
}
