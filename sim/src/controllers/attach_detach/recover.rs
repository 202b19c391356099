//! The start: both worlds are put together from what the API server remembers (fact sheet 4.7).
//!
//! What a node's status names is attached, though nothing is known of it until a pod supplies the volume. A VolumeAttachment that no node's status names
//! is uncertain; if its PersistentVolume is gone it is not seen at all and stays for ever.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::api::{Cache, fields};
use crate::mutants::Wrong;
use crate::runtime::Time;

use super::actual::Actual;
use super::desired::{Place, Spec};
use super::events::manage;
use super::{AttachDetach, Memory, pods};

impl AttachDetach {
    /// What the nodes' status and the VolumeAttachments tell of the time before.
    pub(super) fn recover(&self, cache: &Cache, memory: &mut Memory, now: Time) {
        for node in cache.list::<Node>() {
            let name = fields::name(&node.metadata);
            let attached = node.status.as_ref().and_then(|s| s.volumes_attached.as_deref());
            for volume in attached.unwrap_or_default() {
                memory
                    .actual
                    .mark(&Place::new(volume.name.as_str(), name), None, true, now);
            }
            memory.actual.set_in_use(name, fields::volumes_in_use(node));
            manage(&mut memory.desired, node);
        }
        for attachment in cache.list::<VolumeAttachment>() {
            let pv = attachment.spec.source.persistent_volume_name.as_deref();
            let Some(pv) = pv.and_then(|name| cache.named::<PersistentVolume>(name)) else {
                continue;
            };
            let Some(spec) = Spec::of(pv).filter(|spec| pods::attaches(cache, &spec.driver)) else {
                continue;
            };
            let place = spec.on(&attachment.spec.node_name);
            if memory.actual.get(&place).is_none() {
                memory.actual.mark(&place, Some(&spec.into()), false, now);
            }
        }
        if self.flags.wrong == Some(Wrong::RestartForgetsAttachments) {
            memory.actual = Actual::default();
        }
        for pod in cache.list::<Pod>() {
            let add = pods::wants_volumes(&memory.desired, pod);
            self.process(cache, memory, pod, add);
            for volume in fields::pod_volumes(pod) {
                if let pods::Resolved::Attachable(spec) = pods::resolve(cache, pod, volume) {
                    let place = spec.on(fields::pod_node(pod));
                    if memory.actual.is_attached(&place) {
                        memory.actual.mark(&place, Some(&spec), true, now);
                    }
                }
            }
        }
    }
}
