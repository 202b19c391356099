//! A node that is taken out of the cluster orderly, as `kubectl drain` and `kubectl delete node` do, or a cloud that takes a machine away: cordoned, its pods
//! deleted, its Node deleted, its machine switched off.
//!
//! ```text
//! cordon, delete its pods ──► wait until they are gone, or for two minutes ──► delete the Node, switch the machine off ──► perhaps on again, to register anew
//! ```
//!
//! When the Node goes, the pods are gone and kubelet may just be unstaging: volumes are still attached, and nobody is left who could say that they are in use no
//! more. The attach-detach controller detaches them by force six minutes later (fact sheet 4.8).
//!
//! Blind spots: pods are deleted, not evicted, because no disruption budget is modelled; pods of daemon sets go with the others.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use super::Cluster;
use super::acts::Act;
use crate::api::{Delete, Edit, Kind, ObjKey, ObjectRef, Patch, Write};
use crate::runtime::Time;

/// How often it is asked whether the pods are gone.
const LOOK: Duration = Duration::from_secs(1);
/// How long is waited for them.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node on its way out.
#[derive(Clone)]
pub(super) struct Removal {
    node: String,
    /// When its machine comes back, counted from its end.
    back: Option<Duration>,
    /// Until when its pods may take their leave.
    until: Time,
}

impl Cluster {
    /// Begins to take a node out of the cluster.
    pub(super) fn remove_node(&mut self, node: &str, back: Option<Duration>) {
        self.set_cordoned(node, true);
        for pod in self.pods_on(node) {
            // A pod that goes by itself meanwhile need not be deleted.
            let _ = self.apply(&Write::Delete(Delete::new(ObjectRef::new(Kind::Pod, pod.key()))));
        }
        let (node, until) = (node.to_owned(), self.now() + PATIENCE);
        self.act_later(LOOK, Act::Remove(Removal { node, back, until }));
    }

    /// Goes on with that.
    pub(super) fn go_on_removing(&mut self, removal: Removal) {
        if self.now() < removal.until && !self.pods_on(&removal.node).is_empty() {
            self.act_later(LOOK, Act::Remove(removal));
            return;
        }
        let Removal { node, back, .. } = removal;
        let _ = self.apply(&Write::Delete(Delete::new(ObjectRef::new(
            Kind::Node,
            ObjKey::cluster(&*node),
        ))));
        let machine = format!("node/{node}");
        let _ = self.stop_named(&machine, true);
        if let Some(back) = back {
            self.start_later(&machine, true, back);
        }
    }

    /// A node that was to go stays.
    pub(super) fn keep_node(&mut self, removal: &Removal) {
        self.set_cordoned(&removal.node, false);
    }

    /// Whether a node is there, and is not on its way out.
    pub(super) fn can_be_removed(&self, node: &str) -> bool {
        let there = self.get::<Node>(&ObjKey::cluster(node)).is_some();
        let going = |act: &Act| matches!(act, Act::Remove(removal) if removal.node == *node);
        there && !self.acts.values().any(going)
    }

    fn set_cordoned(&mut self, node: &str, cordoned: bool) {
        let target = ObjectRef::new(Kind::Node, ObjKey::cluster(node));
        // One that is gone already needs none.
        let _ = self.apply(&Write::Patch(Patch::new(target, vec![Edit::Unschedulable(cordoned)])));
    }
}
