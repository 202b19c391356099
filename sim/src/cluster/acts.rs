//! What faults do later: people who repair, taint, or change their mind, and storage systems that are well again.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::removal::Removal;
use super::{Cluster, Due};
use crate::api::names::TAINT_OUT_OF_SERVICE;
use crate::api::{Delete, Edit, Kind, ObjKey, Object, ObjectRef, Patch, Write, fields};
use crate::faults::Fault;
use crate::scenario::effects;

/// Something that happens later because of a fault.
pub(super) enum Act {
    /// Somebody declares a node dead.
    Taint(String),
    /// Somebody takes that back.
    Untaint(String),
    /// An object that was deleted is created again as soon as it is gone.
    CreateAgain(Box<Object>),
    /// A claim asks for so many bytes again.
    Ask(ObjectRef, u64),
    /// The management of the storage systems can be reached again.
    StorageBack,
    /// The storage systems have room again.
    StorageHasRoom,
    /// The storage systems list what they have again.
    ListsCatchUp,
    /// The devices of volumes on a node work again.
    DevicesWork(String),
    /// A node is taken out of the cluster.
    Remove(Removal),
    /// A call that was held back reaches its driver.
    Arrive(u64),
    /// The links of a node's devices lead where they should.
    LinksTurn(String),
    /// A node sees sizes as they are.
    SizesShow(String),
    /// A fault strikes in the middle of what its victim does.
    Befall(Fault),
}

/// How often a user looks whether an object is gone.
const LOOK: Duration = Duration::from_secs(1);
/// The least that can be taken back of an expansion that is under way: requests stay above the capacity.
const LEAST: u64 = 1 << 20;

impl Cluster {
    pub(super) fn act_later(&mut self, after: Duration, act: Act) {
        let nth = self.next_act;
        self.next_act += 1;
        self.acts.insert(nth, act);
        self.board.after(self.user, after, Due::Act(nth));
    }

    pub(super) fn act(&mut self, nth: u64) {
        let Some(act) = self.acts.remove(&nth) else { return };
        match act {
            Act::Taint(node) => self.set_out_of_service(&node, true),
            Act::Untaint(node) => self.set_out_of_service(&node, false),
            Act::CreateAgain(object) => self.create_again(object),
            Act::Ask(claim, bytes) => self.user_asks(claim, bytes),
            Act::Befall(fault) => self.befall(&fault),
            Act::DevicesWork(node) => {
                if let Some(machine) = self.machine(&node) {
                    machine.fail_devices(false);
                }
            }
            Act::Remove(removal) => self.go_on_removing(removal),
            Act::Arrive(call) => self.arrive(call),
            Act::LinksTurn(node) => _ = self.machine(&node).map(|machine| machine.let_links_stay_behind(false)),
            Act::SizesShow(node) => _ = self.machine(&node).map(|machine| machine.let_sizes_stay_behind(false)),
            Act::StorageBack => self
                .storages()
                .iter()
                .for_each(|(_, storage)| storage.set_reachable(true)),
            Act::StorageHasRoom => self.storages().iter().for_each(|(_, storage)| storage.set_full(false)),
            Act::ListsCatchUp => self
                .storages()
                .iter()
                .for_each(|(_, storage)| storage.set_lagging(false)),
        }
    }

    /// Everything that was to happen later happens now.
    pub(super) fn act_all(&mut self) {
        self.overtaken.clear();
        let acts: Vec<u64> = self.acts.keys().copied().collect();
        for nth in acts {
            match self.acts.get(&nth) {
                // It lives again: to declare it dead would be a lie, and nothing strikes any more.
                Some(Act::Taint(_) | Act::Befall(_) | Act::Arrive(_)) => drop(self.acts.remove(&nth)),
                // Nobody takes a node away in the calm.
                Some(Act::Remove(removal)) => {
                    let removal = removal.clone();
                    self.acts.remove(&nth);
                    self.keep_node(&removal);
                }
                _ => self.act(nth),
            }
        }
    }

    fn set_out_of_service(&mut self, node: &str, dead: bool) {
        let key = ObjKey::cluster(node);
        let Some(found) = self.get::<Node>(&key) else { return };
        let mut taints = found.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        taints.retain(|taint| taint.key != TAINT_OUT_OF_SERVICE);
        if dead {
            taints.push(Taint {
                key: TAINT_OUT_OF_SERVICE.into(),
                value: Some("nodeshutdown".into()),
                effect: "NoExecute".into(),
                time_added: None,
            });
        }
        let patch = Patch::new(ObjectRef::new(Kind::Node, key), vec![Edit::Taints(taints)]);
        // A node that is gone meanwhile needs no taint.
        let _ = self.apply(&Write::Patch(patch));
    }

    /// The user deletes an object, if it is there.
    pub(super) fn user_deletes(&mut self, object: &str) {
        if let Some(target) = effects::object_ref(object) {
            let _ = self.apply(&Write::Delete(Delete::new(target)));
        }
    }

    /// The user deletes a pod or a claim, if it is there, and creates it again once it is gone.
    pub(super) fn user_recreates(&mut self, object: &str) {
        let Some(target) = effects::object_ref(object) else {
            return;
        };
        let Some(fresh) = self.object(target.kind, &target.key).and_then(fresh) else {
            return;
        };
        if self.apply(&Write::Delete(Delete::new(target))).is_ok() {
            self.act_later(LOOK, Act::CreateAgain(Box::new(fresh)));
        }
    }

    /// The user deletes an object for good: it is not created again.
    pub fn user_gives_up(&mut self, object: &ObjectRef) {
        self.acts.retain(|_, act| {
            !matches!(act, Act::CreateAgain(again) if again.kind() == object.kind && again.key() == object.key)
        });
    }

    fn create_again(&mut self, object: Box<Object>) {
        if self.object(object.kind(), &object.key()).is_some() || self.create((*object).clone()).is_err() {
            self.act_later(LOOK, Act::CreateAgain(object));
        }
    }

    /// The user takes back what a claim asks for beyond what it has, and wants it again after a while.
    pub(super) fn user_shrinks_back(&mut self, object: &str, again: Duration) {
        let Some(target) = effects::object_ref(object) else {
            return;
        };
        let Some(claim) = self.get::<PersistentVolumeClaim>(&target.key) else {
            return;
        };
        let (asks, has) = (fields::claim_request(claim), fields::claim_capacity(claim));
        if asks > has + LEAST {
            self.user_asks(target.clone(), has + LEAST);
            self.act_later(again, Act::Ask(target, asks));
        }
    }

    fn user_asks(&mut self, claim: ObjectRef, bytes: u64) {
        let patch = json!({"spec": {"resources": {"requests": {"storage": bytes.to_string()}}}});
        // The claim may be gone, or have more by now.
        let _ = self.apply(&Write::Patch(Patch::new(claim, vec![Edit::Merge(patch)])));
    }

    /// The pods that a user may recreate around this claim: they use it, and no controller owns them. None while the claim is being deleted: it goes with its
    /// last pod, and the next one would wait for it in vain.
    pub(super) fn recreatable(&self, claim: &ObjKey) -> Vec<String> {
        let stays = self
            .get::<PersistentVolumeClaim>(claim)
            .is_some_and(|claim| !fields::is_deleting(&claim.metadata));
        if !stays {
            return Vec::new();
        }
        let uses = |pod: &Pod| fields::pod_claims(pod).any(|used| *used.claim == *claim.name && !used.ephemeral);
        let pods = self.api.list::<Pod>().filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(&*claim.namespace)
                && pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
                && pod.metadata.deletion_timestamp.is_none()
                && uses(pod)
        });
        pods.map(|pod| format!("pod {}", super::faults::spelled(&ObjKey::of(&pod.metadata))))
            .collect()
    }

    /// Whether a claim is being expanded so far that it can be taken back.
    pub(super) fn is_growing(&self, claim: &ObjKey) -> bool {
        self.get::<PersistentVolumeClaim>(claim).is_some_and(|claim| {
            let has = fields::claim_capacity(claim);
            has > 0 && fields::claim_request(claim) > has + LEAST
        })
    }
}

/// An object as somebody would create it again.
fn fresh(object: &Object) -> Option<Object> {
    let meta = object.meta();
    let mine = |key: &String| !key.contains("kubernetes.io/");
    let annotations = meta
        .annotations
        .clone()
        .map(|all| all.into_iter().filter(|(key, _)| mine(key)).collect());
    let metadata = ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        labels: meta.labels.clone(),
        annotations,
        ..ObjectMeta::default()
    };
    match object {
        Object::Pod(pod) => {
            let mut spec = pod.spec.clone()?;
            spec.node_name = None;
            Some(Object::new(Pod {
                metadata,
                spec: Some(spec),
                status: None,
            }))
        }
        Object::PersistentVolumeClaim(claim) => {
            let mut spec = claim.spec.clone()?;
            spec.volume_name = None;
            Some(Object::new(PersistentVolumeClaim {
                metadata,
                spec: Some(spec),
                status: None,
            }))
        }
        _ => None,
    }
}
