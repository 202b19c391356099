//! Node expansion (fact sheet 7.4): at the end of every mount, and in place when the populator saw that a volume has grown.
//!
//! ```text
//! Claim ─nothing to do──────────────────────────────────────────────────────────────► Done
//!   │
//!   ├─► Secret ─► Mark (NodeResizeInProgress) ─► Query ─► Mode ─► Call ─ok─► Finish ─► Done
//!   │                                              │ no EXPAND_VOLUME  │ error
//!   │                                              └─────────► Fail ◄──┘──► Done, with the error
//!   └─ already the size: Mark and Finish are left out
//! ```
//!
//! The target is what the claim's status allocates, not what the volume's spec says. The error of the call is wrapped before it is classified: **every** error
//! counts as final, a lost deadline too. FailedPrecondition means *in use*: not tried again until the volume leaves this node, and no error of the operation.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus, Pod, Secret,
};
use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use super::job::{Job, pv_csi, secret_data, secret_key};
use super::keys::{Ended, OpKey};
use super::{OpError, Progress, get, got};
use crate::api::{
    Clock, Edit, EventRecord, ObjKey, Object, ObjectRef, Patch, Strings, Write, fields, quantity, version,
};
use crate::control::{Effect, Outcome};
use crate::kubelet::csi_client::{self, NodeRpc};
use crate::kubelet::volume::{PodRef, VolumeName, VolumeSpec};
use crate::kubelet::{Key, Turn, View};
use crate::link::{CallError, CsiReply};
use crate::runtime::Time;

const IN_PROGRESS: &str = "NodeResizeInProgress";
const PENDING: &str = "NodeResizePending";
const INFEASIBLE: &str = "NodeResizeInfeasible";
const ERROR_CONDITION: &str = "NodeResizeError";
const NOT_REQUIRED: &str = "volume.kubernetes.io/node-expansion-not-required";
const RESIZE_CONDITIONS: [&str; 4] = [
    "Resizing",
    "FileSystemResizePending",
    "ControllerResizeError",
    ERROR_CONDITION,
];

/// What a claim says about the expansion of its volume on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, or not now.
    Nothing {
        /// The volume has its size as far as this node is concerned, in bytes.
        settled: Option<u64>,
    },
    /// Expand to `target` bytes.
    Expand {
        /// The size.
        target: u64,
        /// The claim has that size already, another node saw to that: its status is not touched.
        already: bool,
        /// The claim is of a resizer that knows no allocated resources.
        legacy: bool,
    },
}

/// What the claim demands of this node.
pub fn plan(claim: &PersistentVolumeClaim, volume_size: u64) -> Plan {
    let (status, capacity) = (fields::claim_resize_status(claim), fields::claim_capacity(claim));
    let Some(target) = fields::claim_allocated(claim) else {
        if !status.is_empty() {
            return Plan::Nothing { settled: None };
        }
        return Plan::Expand {
            target: volume_size,
            already: false,
            legacy: true,
        };
    };
    let go = |already| Plan::Expand {
        target,
        already,
        legacy: false,
    };
    match status {
        PENDING | IN_PROGRESS => go(false),
        "" if capacity >= target => {
            let many = fields::claim_modes(claim).iter().any(|m| m == "ReadWriteMany");
            if many && fields::annotation(&claim.metadata, NOT_REQUIRED).is_none() {
                return go(true);
            }
            Plan::Nothing { settled: Some(target) }
        }
        _ => Plan::Nothing { settled: None },
    }
}

/// Where an expansion stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Claim,
    Secret,
    Mark,
    Query,
    Mode,
    Call,
    Finish,
    Fail,
    Done,
}

/// An expansion under way, in place or as a part of a mount.
#[derive(Clone, Debug)]
pub struct Expansion {
    volume: VolumeName,
    spec: Arc<VolumeSpec>,
    pod: PodRef,
    object: Arc<Pod>,
    in_place: bool,
    step: Step,
    claim: Option<Arc<PersistentVolumeClaim>>,
    target: u64,
    already: bool,
    legacy: bool,
    secrets: Strings,
    multi_writer: bool,
    deadline: Time,
    error: Option<(Code, String)>,
}

impl Expansion {
    /// The one at the end of a mount.
    pub fn during_mount(job: &Job, turn: &Turn<'_>) -> Expansion {
        Expansion {
            in_place: false,
            ..Expansion::new(&job.volume, &job.spec, &job.pod, &job.object, turn.now)
        }
    }

    fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>, pod: &PodRef, object: &Arc<Pod>, now: Time) -> Expansion {
        Expansion {
            volume: volume.clone(),
            spec: Arc::clone(spec),
            pod: pod.clone(),
            object: Arc::clone(object),
            in_place: true,
            step: Step::Claim,
            claim: None,
            target: 0,
            already: false,
            legacy: false,
            secrets: Strings::new(),
            multi_writer: false,
            deadline: now,
            error: None,
        }
    }

    fn claim_key(&self) -> ObjKey {
        self.spec.claim.clone().expect("only volumes of claims are expanded")
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        let left = self.deadline.since(view.now);
        match self.step {
            Step::Claim => get::<PersistentVolumeClaim>(&self.claim_key()),
            Step::Secret => get::<Secret>(&self.secret().expect("skipped without a secret")),
            Step::Mark => self.patch(true, |s| set_status(s, Some(IN_PROGRESS))),
            Step::Query | Step::Mode => csi_client::ask(&self.spec.driver, left),
            Step::Call => csi_client::call(&self.spec.driver, self.request(view), left),
            Step::Finish => self.patch(true, |status| {
                let capacity = status.capacity.get_or_insert_default();
                capacity.insert("storage".into(), quantity::quantity(self.target));
                set_status(status, None);
                drop_conditions(status, &RESIZE_CONDITIONS);
            }),
            Step::Fail => self.failure_patch(view.now),
            Step::Done => Effect::Note("expanded"),
        }
    }

    /// What came of it. `true`: it is over.
    ///
    /// # Errors
    /// Why the volume could not be expanded.
    pub fn learn(&mut self, turn: &mut Turn<'_>, key: &Key, outcome: &Outcome) -> Result<bool, OpError> {
        let before = self.step;
        match before {
            Step::Claim => self.look(turn, key, got(outcome).map_err(OpError::last)?)?,
            Step::Secret => {
                self.secrets = secret_data(outcome).map_err(OpError::transient)?;
                self.step = self.after_secret();
            }
            Step::Mark => self.written(outcome, Step::Query)?,
            Step::Query => self.queried(csi_client::has(outcome, NodeRpc::ExpandVolume))?,
            Step::Mode => match csi_client::has(outcome, NodeRpc::SingleNodeMultiWriter) {
                Ok(bit) => (self.multi_writer, self.step) = (bit, Step::Call),
                Err(error) => self.refused(error),
            },
            Step::Call => self.called(turn, key, outcome.reply()),
            Step::Finish => {
                self.written(outcome, Step::Done)?;
                self.settle(turn, self.target);
            }
            Step::Fail => {
                self.written(outcome, Step::Done)?;
                let (code, message) = self.error.clone().expect("a failure has an error");
                if code == Code::FailedPrecondition {
                    if let Some(volume) = turn.memory.actual.volumes.get_mut(&self.volume) {
                        volume.expansion_refused = true;
                    }
                    return Ok(true);
                }
                return Err(OpError::last(message));
            }
            Step::Done => {}
        }
        if self.step == Step::Query && before != Step::Query {
            // The context of the whole expansion begins here.
            self.deadline = turn.now + turn.kubelet.constants.csi_timeout;
        }
        Ok(self.step == Step::Done)
    }

    /// The claim as it is now.
    fn look(&mut self, turn: &mut Turn<'_>, key: &Key, claim: Arc<PersistentVolumeClaim>) -> Result<(), OpError> {
        let size = self.spec.size().unwrap_or(0);
        if !self.in_place && fields::claim_capacity(&claim) >= size {
            self.step = Step::Done;
            return Ok(());
        }
        if self.spec.read_only {
            let message = format!(
                "MountVolume.NodeExpandVolume failed for volume \"{}\" : requested read-only file system",
                self.spec.name
            );
            self.tell(turn, key, &claim, true, "FileSystemResizeFailed", &message);
            self.settle(turn, size);
            self.step = Step::Done;
            return Ok(());
        }
        match plan(&claim, size) {
            Plan::Nothing { settled } => {
                if let Some(size) = settled {
                    self.settle(turn, size.max(size_wanted(turn, &self.volume)));
                }
                self.step = Step::Done;
            }
            Plan::Expand {
                target,
                already,
                legacy,
            } => {
                (self.target, self.already, self.legacy) = (target, already, legacy);
                if !turn.memory.plugins.is_registered(&self.spec.driver) {
                    return Err(OpError::transient(csi_client::unregistered(&self.spec.driver)));
                }
                self.step = if self.secret().is_some() {
                    Step::Secret
                } else {
                    self.after_secret()
                };
                self.claim = Some(claim);
            }
        }
        Ok(())
    }

    fn secret(&self) -> Option<ObjKey> {
        secret_key(pv_csi(self.spec.pv()?)?.node_expand_secret_ref.as_ref()?)
    }

    fn after_secret(&self) -> Step {
        if self.already || self.legacy {
            Step::Query
        } else {
            Step::Mark
        }
    }

    fn queried(&mut self, has: Result<bool, &CallError>) -> Result<(), OpError> {
        match has {
            Ok(true) => self.step = Step::Mode,
            Ok(false) if self.already => self.step = Step::Done,
            Ok(false) => {
                let why = String::from("NodeExpand is not supported by the CSI driver");
                (self.error, self.step) = (Some((Code::Unimplemented, why)), Step::Fail);
            }
            Err(error) => {
                // Before anything was asked of the volume: the claim's status is left alone.
                return Err(OpError::last(csi_client::describe(&error.status)));
            }
        }
        Ok(())
    }

    fn refused(&mut self, error: &CallError) {
        let text = csi_client::describe(&error.status);
        let message = format!("Expander.NodeExpand failed to expand the volume : {text}");
        (self.error, self.step) = (Some((error.code(), message)), Step::Fail);
    }

    fn called(&mut self, turn: &mut Turn<'_>, key: &Key, reply: Result<&CsiReply, &CallError>) {
        match reply {
            Ok(_) => {
                let claim = self.claim.clone().expect("the claim was read");
                let message = format!(
                    "MountVolume.NodeExpandVolume succeeded for volume \"{}\" {}",
                    self.spec.name, turn.kubelet.node
                );
                self.tell(turn, key, &claim, false, "FileSystemResizeSuccessful", &message);
                self.step = Step::Finish;
                if self.already {
                    self.settle(turn, self.target);
                    self.step = Step::Done;
                }
            }
            Err(error) => self.refused(error),
        }
    }

    /// Records what the claim is after a write.
    fn written(&mut self, outcome: &Outcome, next: Step) -> Result<(), OpError> {
        let written = outcome.written().map_err(|e| OpError::last(e.message.clone()))?;
        if let Some(claim) = written.object.get::<PersistentVolumeClaim>() {
            self.claim = Some(Arc::clone(claim));
        }
        self.step = next;
        Ok(())
    }

    /// The volume has this size here: it is not expanded again until it grows.
    fn settle(&self, turn: &mut Turn<'_>, size: u64) {
        if let Some(volume) = turn.memory.actual.volumes.get_mut(&self.volume) {
            volume.claim_size = Some(size);
        }
    }

    fn tell(
        &self,
        turn: &mut Turn<'_>,
        key: &Key,
        claim: &Arc<PersistentVolumeClaim>,
        bad: bool,
        reason: &'static str,
        text: &str,
    ) {
        for object in [
            Object::Pod(Arc::clone(&self.object)),
            Object::PersistentVolumeClaim(Arc::clone(claim)),
        ] {
            let event = EventRecord {
                warning: bad,
                ..EventRecord::normal(&object, reason, text)
            };
            turn.record(key.clone(), event);
        }
    }

    fn request(&self, view: &View<'_>) -> csi::NodeExpandVolumeRequest {
        let paths = view.kubelet.paths();
        csi::NodeExpandVolumeRequest {
            volume_id: self.spec.handle.clone(),
            volume_path: paths.target(&self.spec, &self.pod),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: i64::try_from(self.target).unwrap_or(i64::MAX),
                limit_bytes: 0,
            }),
            staging_target_path: paths.staging(&self.spec),
            volume_capability: Some(csi_client::capability(&self.spec, self.multi_writer, None)),
            secrets: self.secrets.clone(),
        }
    }

    fn patch(&self, versioned: bool, change: impl FnOnce(&mut PersistentVolumeClaimStatus)) -> Effect {
        let claim = self.claim.as_ref().expect("the claim was read");
        let mut status = claim.status.clone().unwrap_or_default();
        change(&mut status);
        let target = ObjectRef::to::<PersistentVolumeClaim>(&self.claim_key());
        let patch = Patch::status(target, vec![Edit::ClaimStatus(Box::new(status))]);
        let version = version(&claim.metadata);
        Effect::write(Write::Patch(if versioned { patch.at_version(version) } else { patch }))
    }

    fn failure_patch(&self, now: Time) -> Effect {
        let (code, message) = self.error.as_ref().expect("a failure has an error");
        let claim = self.claim.as_ref().expect("the claim was read");
        let asked_for_less = fields::claim_request(claim) != self.target;
        let again = fields::claim_condition(claim, ERROR_CONDITION) && asked_for_less;
        let hopeless = matches!(code, Code::InvalidArgument | Code::OutOfRange | Code::NotFound);
        self.patch(false, |status| {
            if hopeless || again {
                set_status(status, Some(INFEASIBLE));
            }
            let message = format!("failed to expand pvc with {message}");
            set_condition(status, ERROR_CONDITION, message, now);
        })
    }
}

/// The size that pods want the volume to have.
fn size_wanted(turn: &Turn<'_>, volume: &VolumeName) -> u64 {
    let desired = turn.memory.desired.volumes.get(volume);
    desired.and_then(|v| v.size).unwrap_or(0)
}

fn set_status(status: &mut PersistentVolumeClaimStatus, value: Option<&str>) {
    let statuses = status.allocated_resource_statuses.get_or_insert_default();
    match value {
        Some(value) => statuses.insert("storage".into(), value.into()),
        None => statuses.remove("storage"),
    };
    if statuses.is_empty() {
        status.allocated_resource_statuses = None;
    }
}

fn drop_conditions(status: &mut PersistentVolumeClaimStatus, kinds: &[&str]) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| !kinds.contains(&c.type_.as_str()));
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

fn set_condition(status: &mut PersistentVolumeClaimStatus, kind: &str, message: String, now: Time) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(known) = conditions.iter_mut().find(|c| c.type_ == kind && c.status == "True") {
        known.message = Some(message);
        return;
    }
    conditions.retain(|c| c.type_ != kind);
    conditions.push(PersistentVolumeClaimCondition {
        type_: kind.into(),
        status: "True".into(),
        message: Some(message),
        last_transition_time: Some(Clock::EPOCH.time(now)),
        ..PersistentVolumeClaimCondition::default()
    });
}

/// Expanding a volume in place.
#[derive(Clone, Debug)]
pub struct ExpandInUse(Expansion);

impl ExpandInUse {
    /// One that begins.
    pub fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>, pod: &PodRef, object: &Arc<Pod>, now: Time) -> ExpandInUse {
        ExpandInUse(Expansion::new(volume, spec, pod, object, now))
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        self.0.decide(view)
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, key: &OpKey, outcome: &Outcome) -> Progress {
        let key = Key::Operation(key.clone());
        match self.0.learn(turn, &key, outcome) {
            Ok(false) => Progress::Going,
            Ok(true) => Progress::Over(Ended::Ok),
            Err(error) => {
                let message = format!(
                    "NodeExpandVolume.NodeExpandVolume failed for volume \"{}\" : {}",
                    self.0.spec.name, error.message
                );
                let pod = Object::Pod(Arc::clone(&self.0.object));
                turn.record(key, EventRecord::warning(&pod, "VolumeResizeFailed", message));
                Progress::Over(Ended::Failed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, plan};
    use crate::api::quantity;
    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};

    const GIB: u64 = 1 << 30;

    fn claim(mode: &str, status: &str, allocated: Option<u64>, capacity: u64) -> PersistentVolumeClaim {
        let storage = |bytes| [(String::from("storage"), quantity::quantity(bytes))].into();
        let statuses = (!status.is_empty()).then(|| [("storage".into(), status.into())].into());
        PersistentVolumeClaim {
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec![mode.into()]),
                ..Default::default()
            }),
            status: Some(PersistentVolumeClaimStatus {
                allocated_resource_statuses: statuses,
                allocated_resources: allocated.map(storage),
                capacity: Some(storage(capacity)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_claims_status_decides_and_the_allocation_is_the_target() {
        // Fact sheet 7.4.
        let go = |target, already| Plan::Expand {
            target,
            already,
            legacy: false,
        };
        let wait = Plan::Nothing { settled: None };
        let (once, many) = ("ReadWriteOnce", "ReadWriteMany");
        let table = [
            (claim(once, "NodeResizePending", Some(2 * GIB), GIB), go(2 * GIB, false)),
            (
                claim(once, "NodeResizeInProgress", Some(2 * GIB), GIB),
                go(2 * GIB, false),
            ),
            (claim(once, "ControllerResizeInProgress", Some(2 * GIB), GIB), wait),
            (claim(once, "NodeResizeInfeasible", Some(2 * GIB), GIB), wait),
            (
                claim(once, "", Some(2 * GIB), 2 * GIB),
                Plan::Nothing { settled: Some(2 * GIB) },
            ),
            (claim(many, "", Some(2 * GIB), 2 * GIB), go(2 * GIB, true)),
            (
                claim(once, "", None, GIB),
                Plan::Expand {
                    target: 3 * GIB,
                    already: false,
                    legacy: true,
                },
            ),
        ];
        for (claim, expected) in table {
            assert_eq!(plan(&claim, 3 * GIB), expected, "{:?}", claim.status);
        }
    }

    #[test]
    fn the_second_node_of_a_shared_volume_is_skipped_only_when_the_resizer_says_so() {
        let mut shared = claim("ReadWriteMany", "", Some(2 * GIB), 2 * GIB);
        crate::api::fields::annotate(&mut shared.metadata, super::NOT_REQUIRED, "true");
        assert_eq!(plan(&shared, 2 * GIB), Plan::Nothing { settled: Some(2 * GIB) });
    }
}
