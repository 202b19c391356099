//! Mounting a file system for a pod (fact sheet 6.7): attach check, MountDevice, SetUp, ownership, expansion.
//!
//! ```text
//! Check ─► Attachment ─► StageClient ─► StageQuery ─► StageContext ─► StageSecret ─► StageDir ─► StageGroup ─► StageRecord ─► StageMode ─► Stage ─┐
//!    │  device mounted, or inline: ─────────────────────────────────────────────────────────────────────────────────────────► DeviceMounted ◄──┘
//!    │                                                                                                                              │
//!    │      ┌───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!    │      └► PublishClient ─► PublishQuery ─► PublishContext ─► TargetDir ─► PublishSecret ─► PublishGroup ─► PublishRecord ─► PublishMode
//!    │                                                                                              Mounted ◄─ Expand ◄─ Ownership ◄─ Publish ◄┘
//!    └─any error─► (Undo after a final one) ─► FailedMount, back-off
//! ```
//!
//! *Blind spots.* No SELinux; no service account tokens; changing the ownership of files takes no time and touches no file.

use k8s_openapi::api::core::v1::Secret;

use super::cleanup::Cleanup;
use super::expand::Expansion;
use super::job::Job;
use super::keys::{Ended, OpKey};
use super::{OpError, Progress, get};
use crate::api::{EventRecord, Object};
use crate::control::{Effect, Outcome};
use crate::kubelet::actual::{Class, Device, PodMount};
use crate::kubelet::csi_client::{self, NodeRpc};
use crate::kubelet::paths::{VolumeRecord, record_in};
use crate::kubelet::{Key, Turn, View};
use crate::link::MachineOp;
use crate::mutants::Wrong;

/// Where a mount stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Check,
    Attachment,
    StageClient,
    StageQuery,
    StageContext,
    StageSecret,
    StageDir,
    StageGroup,
    StageRecord,
    StageMode,
    Stage,
    DeviceMounted,
    PublishClient,
    PublishQuery,
    PublishContext,
    TargetDir,
    PublishSecret,
    PublishGroup,
    PublishRecord,
    PublishMode,
    Publish,
    Ownership,
    Expand,
    Mounted,
}

/// The steps in their order.
const ORDER: [Step; 24] = [
    Step::Check,
    Step::Attachment,
    Step::StageClient,
    Step::StageQuery,
    Step::StageContext,
    Step::StageSecret,
    Step::StageDir,
    Step::StageGroup,
    Step::StageRecord,
    Step::StageMode,
    Step::Stage,
    Step::DeviceMounted,
    Step::PublishClient,
    Step::PublishQuery,
    Step::PublishContext,
    Step::TargetDir,
    Step::PublishSecret,
    Step::PublishGroup,
    Step::PublishRecord,
    Step::PublishMode,
    Step::Publish,
    Step::Ownership,
    Step::Expand,
    Step::Mounted,
];

/// A mount under way.
#[derive(Clone, Debug)]
pub struct Mount {
    job: Job,
    step: Step,
    /// After a final error: removing what was made, and the error.
    undo: Option<(Cleanup, OpError)>,
    expansion: Option<Expansion>,
}

impl Mount {
    /// A mount that begins.
    pub fn new(job: Job) -> Mount {
        Mount {
            job,
            step: Step::Check,
            undo: None,
            expansion: None,
        }
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        if let Some((cleanup, _)) = &self.undo {
            return cleanup.decide();
        }
        let (job, paths) = (&self.job, view.kubelet.paths());
        let left = job.deadline.since(view.now);
        let parent = || paths.pod_volume(&job.pod.uid, &job.spec.name);
        match self.step {
            Step::Check => Effect::Note("check"),
            Step::Attachment | Step::StageContext | Step::PublishContext => job.read_attachment(view.kubelet),
            Step::StageClient => Effect::Note("mount device"),
            Step::StageQuery | Step::StageGroup | Step::StageMode => job.ask(view),
            Step::PublishQuery | Step::PublishGroup | Step::PublishMode => job.ask(view),
            Step::StageSecret => get::<Secret>(&job.stage_secret().expect("skipped without a secret")),
            Step::StageDir => Effect::Machine(MachineOp::MakeDirs(paths.staging(&job.spec))),
            Step::StageRecord => Effect::Machine(MachineOp::WriteFile(
                record_in(&paths.staging_parent(&job.spec)),
                VolumeRecord::of_staging(&job.spec).encode(),
            )),
            Step::Stage => csi_client::call(&job.spec.driver, job.stage_request(paths), left),
            Step::DeviceMounted => Effect::Note("device mounted"),
            Step::PublishClient => Effect::Note("set up"),
            Step::TargetDir => Effect::Machine(MachineOp::MakeDirs(parent())),
            Step::PublishSecret => get::<Secret>(&job.publish_secret().expect("skipped without a secret")),
            Step::PublishRecord => Effect::Machine(MachineOp::WriteFile(
                record_in(&parent()),
                VolumeRecord::of_target(&job.spec, &view.kubelet.node).encode(),
            )),
            Step::Publish => csi_client::call(&job.spec.driver, job.publish_request(view), left),
            Step::Ownership => Effect::Note("change ownership"),
            Step::Expand => self
                .expansion
                .as_ref()
                .map_or(Effect::Note("expand"), |e| e.decide(view)),
            Step::Mounted => Effect::Note("mounted"),
        }
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, key: &OpKey, outcome: &Outcome) -> Progress {
        if let Some((cleanup, error)) = &mut self.undo {
            // What cannot be removed stays: a lenient clean-up has no errors.
            let _ = cleanup.learn(outcome);
            if !cleanup.is_done() {
                return Progress::Going;
            }
            let error = error.clone();
            return self.failed(turn, key, &error);
        }
        match self.take(turn, key, outcome) {
            Ok(true) => {}
            Ok(false) => return Progress::Going,
            Err(error) => return self.error(turn, key, error),
        }
        if self.step == Step::Mounted {
            turn.memory
                .actual
                .pod_mounted(&self.job.volume, &self.job.pod, &self.job.spec);
            turn.pod_mounted(&self.job.pod);
            return Progress::Over(Ended::Ok);
        }
        let after = ORDER.iter().filter(|s| **s > self.step);
        let next = after.copied().find(|s| self.applies(turn, *s));
        self.step = next.expect("the last step always applies");
        Progress::Going
    }

    /// Whether a step is taken at all.
    fn applies(&self, turn: &Turn<'_>, step: Step) -> bool {
        let (job, cache) = (&self.job, turn.cache);
        let stages = || !job.spec.is_inline() && turn.memory.actual.device(&job.volume) != Device::Mounted;
        match step {
            Step::Attachment | Step::PublishContext => job.attaches(cache),
            Step::StageClient | Step::StageQuery | Step::StageDir => stages(),
            Step::StageContext => stages() && job.attaches(cache),
            Step::StageSecret => stages() && job.stages && job.stage_secret().is_some(),
            Step::StageGroup | Step::StageRecord | Step::StageMode | Step::Stage => stages() && job.stages,
            Step::DeviceMounted | Step::PublishQuery => !job.spec.is_inline(),
            Step::PublishSecret => job.publish_secret().is_some(),
            Step::Ownership => job.changes_ownership(cache),
            Step::Expand => job.spec.claim.is_some(),
            Step::Check | Step::PublishClient | Step::TargetDir | Step::PublishGroup => true,
            Step::PublishRecord | Step::PublishMode | Step::Publish | Step::Mounted => true,
        }
    }

    /// Takes in the outcome of the present step. `false`: the step is not over.
    fn take(&mut self, turn: &mut Turn<'_>, key: &OpKey, outcome: &Outcome) -> Result<bool, OpError> {
        let job = &mut self.job;
        let machine = |outcome: &Outcome| {
            let result = outcome.machine();
            result.map(|_| ()).map_err(|e| OpError::last(e.to_string()))
        };
        match self.step {
            Step::Check => job.check(turn)?,
            Step::Attachment => Job::check_attachment(outcome)?,
            Step::StageClient => job.begin_half(turn, "attacher.MountDevice")?,
            Step::StageQuery => {
                job.stages = csi_client::has(outcome, NodeRpc::StageUnstageVolume).map_err(csi_client::raw)?
            }
            Step::StageContext | Step::PublishContext => job.take_context(outcome)?,
            Step::StageSecret | Step::PublishSecret => job.take_secret(outcome)?,
            Step::StageDir | Step::StageRecord | Step::TargetDir | Step::PublishRecord => machine(outcome)?,
            Step::StageGroup | Step::PublishGroup => {
                let has = csi_client::has(outcome, NodeRpc::VolumeMountGroup);
                job.mount_group = has.map_err(|e| OpError::transient(csi_client::describe(&e.status)))?;
            }
            Step::StageMode | Step::PublishMode => {
                job.multi_writer = csi_client::has(outcome, NodeRpc::SingleNodeMultiWriter).map_err(csi_client::raw)?;
            }
            Step::Stage | Step::Publish => outcome.reply().map(|_| ()).map_err(csi_client::raw)?,
            Step::DeviceMounted => turn.memory.actual.device_mounted(&job.volume),
            Step::PublishClient => {
                job.begin_half(turn, "mounter.SetUpAt")?;
                job.check_lifecycle(turn.cache)?;
            }
            Step::PublishQuery => {
                // Quirk B: this error is wrapped, and so final, whatever the code.
                let wrap = |e: &crate::link::CallError| {
                    OpError::last(format!(
                        "mounter.SetUpAt failed to check for STAGE_UNSTAGE_VOLUME capability: {}",
                        csi_client::describe(&e.status)
                    ))
                };
                job.stages = csi_client::has(outcome, NodeRpc::StageUnstageVolume).map_err(wrap)?;
            }
            Step::Expand => return self.expand(turn, key, outcome),
            Step::Ownership | Step::Mounted => {}
        }
        Ok(true)
    }

    fn expand(&mut self, turn: &mut Turn<'_>, key: &OpKey, outcome: &Outcome) -> Result<bool, OpError> {
        let Some(expansion) = &mut self.expansion else {
            self.expansion = Some(Expansion::during_mount(&self.job, turn));
            return Ok(false);
        };
        let over = expansion.learn(turn, &Key::Operation(key.clone()), outcome);
        over.map_err(|e| OpError {
            class: Class::Uncertain,
            message: e.message,
        })
    }

    /// The present step failed.
    fn error(&mut self, turn: &mut Turn<'_>, key: &OpKey, mut error: OpError) -> Progress {
        if turn.kubelet.flags.wrong == Some(Wrong::UncertainMeansUnmounted) {
            error.class = Class::Final;
        }
        let (job, paths) = (&self.job, turn.kubelet.paths());
        let remount = turn.memory.actual.mount(&job.volume, &job.pod);
        let remount = remount.is_some_and(|m| m.state == PodMount::Mounted);
        let untouched = remount || turn.memory.actual.is_reconstructed(&job.volume, &job.pod);
        let staged = (Step::StageDir..=Step::Stage).contains(&self.step);
        let published = (Step::PublishRecord..=Step::Publish).contains(&self.step);
        let cleanup = if staged {
            let parent = paths.staging_parent(&job.spec);
            Some(Cleanup::lenient(paths.staging(&job.spec), parent))
        } else if published && !untouched {
            let parent = paths.pod_volume(&job.pod.uid, &job.spec.name);
            Some(Cleanup::lenient(paths.target(&job.spec, &job.pod), parent))
        } else {
            None
        };
        match cleanup.filter(|_| error.class == Class::Final) {
            Some(cleanup) => {
                self.undo = Some((cleanup, error));
                Progress::Going
            }
            None => self.failed(turn, key, &error),
        }
    }

    /// The mount failed, and what was to be removed is.
    fn failed(&self, turn: &mut Turn<'_>, key: &OpKey, error: &OpError) -> Progress {
        let job = &self.job;
        let step = match self.step {
            Step::Check => "MountVolume",
            Step::Attachment => "MountVolume.WaitForAttach",
            step if step <= Step::DeviceMounted => {
                turn.memory.actual.device_mount_failed(&job.volume, error.class);
                "MountVolume.MountDevice"
            }
            step => {
                turn.mount_failed(job, error.class);
                let in_expansion = step >= Step::Expand;
                if in_expansion {
                    "MountVolume.Setup failed while expanding volume"
                } else {
                    "MountVolume.SetUp"
                }
            }
        };
        let message = format!("{step} failed for volume \"{}\" : {}", job.spec.name, error.message);
        let pod = Object::Pod(job.object.clone());
        turn.record(
            Key::Operation(key.clone()),
            EventRecord::warning(&pod, "FailedMount", message),
        );
        Progress::Over(Ended::Failed)
    }
}
