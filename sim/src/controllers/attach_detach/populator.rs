//! The populator of the desired state: puts right what events alone leave wrong.
//!
//! Every minute it removes what vanished or terminated pods still want (one volume of each pod per round) and volumes whose driver stopped attaching.
//! Every third minute it looks at all pods again, and so finds volumes that were passed over. Neither loop ticks when it would find nothing.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSIDriver;

use crate::api::{Cache, fields};
use crate::control::{Learner, Requests};
use crate::runtime::Time;

use super::desired::Desired;
use super::{AttachDetach, Key, Memory, pods};

impl AttachDetach {
    /// Something appeared for which these passed-over pods may have waited: they are looked at when all pods are.
    pub(super) fn wake_list<'a>(
        &self,
        cache: &Cache,
        memory: &Memory,
        mut waiting: impl Iterator<Item = &'a Arc<Pod>>,
        now: Time,
        queue: &mut Requests<Key>,
    ) {
        if waiting.any(|pod| adds(cache, &memory.desired, pod)) {
            self.queue_list(memory, now, queue);
        }
    }

    fn queue_list(&self, memory: &Memory, now: Time, queue: &mut Requests<Key>) {
        if let Some(at) = Self::populator_tick(memory, now, self.constants.list_pods_period) {
            queue.add_at(Key::List, at);
        }
    }

    pub(super) fn notice_driver(
        &self,
        cache: &Cache,
        memory: &Memory,
        driver: &CSIDriver,
        now: Time,
        queue: &mut Requests<Key>,
    ) {
        let name = fields::name(&driver.metadata);
        if pods::attaches(cache, name) {
            if cache.list::<Pod>().any(|pod| adds(cache, &memory.desired, pod)) {
                self.queue_list(memory, now, queue);
            }
        } else if memory.desired.iter().any(|(_, w)| *w.spec.driver == *name)
            && let Some(at) = Self::populator_tick(memory, now, self.constants.populator_period)
        {
            queue.add_at(Key::Prune, at);
        }
    }

    /// Removes what pods wanted that are gone or have terminated, one volume of each, and what need not be attached any more.
    pub(super) fn prune(&self, memory: &mut Memory, then: &mut Learner<'_, Key>) {
        let cache = &*then.cache;
        let vanished = memory.desired.pods().filter(|(pod, _)| {
            let known = cache.get::<Pod>(&pod.key);
            !known.is_some_and(|p| fields::uid(&p.metadata) == &*pod.uid && pods::wants_volumes(&memory.desired, p))
        });
        let mut remove: Vec<_> = vanished.map(|(pod, place)| (place.clone(), pod.uid.clone())).collect();
        for (place, wanted) in memory.desired.iter() {
            if !pods::attaches(cache, &wanted.spec.driver) {
                remove.extend(wanted.pods.keys().map(|uid| (place.clone(), uid.clone())));
            }
        }
        let more = remove.iter().any(|(_, uid)| memory.desired.places_of(uid).count() > 1);
        for (place, uid) in &remove {
            memory.desired.remove(place, uid);
        }
        memory.pruned = Some(then.now);
        self.wake(memory, then.now, then.queue);
        if more && let Some(at) = Self::populator_tick(memory, then.now, self.constants.populator_period) {
            then.queue.add_at(Key::Prune, at);
        }
    }

    pub(super) fn list(&self, memory: &mut Memory, then: &mut Learner<'_, Key>) {
        let mut changed = false;
        let pods: Vec<_> = then.cache.list::<Pod>().cloned().collect();
        for pod in pods.iter().filter(|pod| !pods::is_terminated(pod)) {
            changed |= self.process(then.cache, memory, pod, true);
        }
        memory.listed = Some(then.now);
        if changed {
            self.wake(memory, then.now, then.queue);
        }
    }
}

/// Whether looking at a pod would add something to what is wanted.
fn adds(cache: &Cache, desired: &Desired, pod: &Pod) -> bool {
    let node = fields::pod_node(pod);
    desired.is_managed(node)
        && pods::wants_volumes(desired, pod)
        && fields::pod_volumes(pod)
            .iter()
            .any(|volume| match pods::resolve(cache, pod, volume) {
                pods::Resolved::Attachable(spec) => {
                    let wanted = desired.get(&spec.on(node));
                    !wanted.is_some_and(|w| w.pods.contains_key(fields::uid(&pod.metadata)))
                }
                pods::Resolved::NoAttach | pods::Resolved::Unknown => false,
            })
}
