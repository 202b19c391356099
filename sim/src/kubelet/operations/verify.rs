//! Verifying that the attach-detach controller has attached a volume to this node (fact sheet 6.6).
//!
//! ```text
//! Begin ─► Claim (size unknown) ─► needs no attaching ─► Known
//!                                └► reported in use ─► Node ─lists it─► Known
//! ```

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};

use super::keys::Ended;
use super::{Progress, get, got};
use crate::api::{ObjKey, fields};
use crate::control::{Effect, Outcome};
use crate::kubelet::actual::Attached;
use crate::kubelet::volume::{VolumeName, VolumeSpec};
use crate::kubelet::{Turn, View};

/// Where a verification stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Claim,
    Begin,
    Node,
}

/// A verification under way.
#[derive(Clone, Debug)]
pub struct Verify {
    volume: VolumeName,
    spec: Arc<VolumeSpec>,
    attachable: bool,
    size: Option<u64>,
    step: Step,
}

impl Verify {
    /// One that begins.
    pub fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>, attachable: bool) -> Verify {
        Verify {
            volume: volume.clone(),
            spec: Arc::clone(spec),
            attachable,
            size: None,
            step: if spec.claim.is_some() { Step::Claim } else { Step::Begin },
        }
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        match self.step {
            Step::Claim => get::<PersistentVolumeClaim>(&self.spec.claim.clone().expect("skipped without a claim")),
            Step::Begin => Effect::Note("verify"),
            Step::Node => get::<Node>(&ObjKey::cluster(Arc::clone(&view.kubelet.node))),
        }
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, outcome: &Outcome) -> Progress {
        match self.step {
            Step::Claim => match got::<PersistentVolumeClaim>(outcome) {
                Ok(claim) => {
                    self.size = Some(fields::claim_capacity(&claim));
                    self.step = Step::Begin;
                    Progress::Going
                }
                Err(_) => Progress::Over(Ended::Failed),
            },
            Step::Begin if !self.attachable => {
                let actual = &mut turn.memory.actual;
                actual.add(&self.volume, &self.spec, Attached::No, self.size);
                Progress::Over(Ended::Ok)
            }
            Step::Begin => {
                let desired = turn.memory.desired.volumes.get(&self.volume);
                if !desired.is_some_and(|v| v.reported_in_use) {
                    return Progress::Over(Ended::Failed);
                }
                self.step = Step::Node;
                Progress::Going
            }
            Step::Node => {
                let node = got::<Node>(outcome).ok();
                if !node.is_some_and(|n| lists_attached(&n, &self.volume)) {
                    return Progress::Over(Ended::Failed);
                }
                let actual = &mut turn.memory.actual;
                actual.add(&self.volume, &self.spec, Attached::Yes, self.size);
                Progress::Over(Ended::Ok)
            }
        }
    }
}

/// Whether the Node's status lists a volume as attached.
pub fn lists_attached(node: &Node, volume: &VolumeName) -> bool {
    let attached = node.status.as_ref().and_then(|s| s.volumes_attached.as_deref());
    attached.unwrap_or_default().iter().any(|a| a.name == volume.as_str())
}
