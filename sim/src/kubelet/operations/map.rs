//! Mapping a raw block volume for a pod (fact sheet 6.8): attach check, SetUpDevice, MapPodDevice, links, expansion.
//!
//! ```text
//! Data ─► Record ─► Check ─► Attachment ─► StageClient ─► StageContext ─► StageQuery ─► StageSecret ─► StageDir ─► StageMode ─► Stage ─┐
//!                                             │ device is set up: ──────────────────────────────────────────────► DeviceMounted ◄──┘
//!    Mapped ◄─ Expand ◄─ PodLink ◄─ PodLinkDir ◄─ MapLink ◄─ MapDir ◄─ Publish ◄─ PublishMode ◄─ PublishDir ◄─ PublishSecret ◄─ PublishContext ◄┘
//! ```
//!
//! After the driver has published, any later error leaves the pod's mount uncertain. Ownership of files does not apply.
//!
//! *Blind spots.* The loop device with which kubelet holds the published device open is not modelled: two links stand for the whole mapping.

use k8s_openapi::api::core::v1::Secret;

use super::cleanup::Cleanup;
use super::expand::Expansion;
use super::job::Job;
use super::keys::{Ended, OpKey};
use super::{OpError, Progress, get};
use crate::api::{EventRecord, Object};
use crate::control::{Effect, Outcome};
use crate::kubelet::actual::{Class, Device};
use crate::kubelet::csi_client::{self, NodeRpc};
use crate::kubelet::paths::{VolumeRecord, record_in};
use crate::kubelet::{Key, Turn, View};
use crate::link::MachineOp;

/// Where a mapping stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Data,
    Record,
    Check,
    Attachment,
    StageClient,
    StageContext,
    StageQuery,
    StageSecret,
    StageDir,
    StageMode,
    Stage,
    DeviceMounted,
    PublishContext,
    PublishSecret,
    PublishDir,
    PublishMode,
    Publish,
    MapDir,
    MapLink,
    PodLinkDir,
    PodLink,
    Expand,
    Mapped,
}

/// The steps in their order.
const ORDER: [Step; 23] = [
    Step::Data,
    Step::Record,
    Step::Check,
    Step::Attachment,
    Step::StageClient,
    Step::StageContext,
    Step::StageQuery,
    Step::StageSecret,
    Step::StageDir,
    Step::StageMode,
    Step::Stage,
    Step::DeviceMounted,
    Step::PublishContext,
    Step::PublishSecret,
    Step::PublishDir,
    Step::PublishMode,
    Step::Publish,
    Step::MapDir,
    Step::MapLink,
    Step::PodLinkDir,
    Step::PodLink,
    Step::Expand,
    Step::Mapped,
];

/// A mapping under way.
#[derive(Clone, Debug)]
pub struct Map {
    job: Job,
    step: Step,
    /// After a final error of NodeStage: removing what was made, and the error.
    undo: Option<(Cleanup, OpError)>,
    expansion: Option<Expansion>,
}

impl Map {
    /// A mapping that begins.
    pub fn new(job: Job) -> Map {
        Map {
            job,
            step: Step::Data,
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
        let (name, left) = (&job.spec.name, job.deadline.since(view.now));
        let make = |directory| Effect::Machine(MachineOp::MakeDirs(directory));
        let link = |at| {
            let to = paths.target(&job.spec, &job.pod);
            Effect::Machine(MachineOp::Link { to, at })
        };
        match self.step {
            Step::Data => make(paths.device_data(name)),
            Step::Record => Effect::Machine(MachineOp::WriteFile(
                record_in(&paths.device_data(name)),
                VolumeRecord::of_target(&job.spec, &view.kubelet.node).encode(),
            )),
            Step::Check => Effect::Note("check"),
            Step::Attachment | Step::StageContext | Step::PublishContext => job.read_attachment(view.kubelet),
            Step::StageClient => Effect::Note("set up device"),
            Step::StageQuery | Step::StageMode | Step::PublishMode => job.ask(view),
            Step::StageSecret => get::<Secret>(&job.stage_secret().expect("skipped without a secret")),
            Step::StageDir => make(paths.staging(&job.spec)),
            Step::Stage => csi_client::call(&job.spec.driver, job.stage_request(paths), left),
            Step::DeviceMounted => Effect::Note("device set up"),
            Step::PublishSecret => get::<Secret>(&job.publish_secret().expect("skipped without a secret")),
            Step::PublishDir => make(paths.device_publish_dir(name)),
            Step::Publish => csi_client::call(&job.spec.driver, job.publish_request(view), left),
            Step::MapDir => make(paths.device_map(name)),
            Step::MapLink => link(paths.stats(&job.spec, &job.pod)),
            Step::PodLinkDir => make(paths.pod_devices(&job.pod.uid)),
            Step::PodLink => link(paths.pod_device(&job.pod.uid, name)),
            Step::Expand => self
                .expansion
                .as_ref()
                .map_or(Effect::Note("expand"), |e| e.decide(view)),
            Step::Mapped => Effect::Note("mapped"),
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
            Err(error) if self.step == Step::Stage && error.class == Class::Final => {
                let paths = turn.kubelet.paths();
                let parent = paths.device_data(&self.job.spec.name);
                self.undo = Some((Cleanup::lenient(paths.staging(&self.job.spec), parent), error));
                return Progress::Going;
            }
            Err(error) => return self.failed(turn, key, &error),
        }
        if self.step == Step::Mapped {
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
        let stages = || turn.memory.actual.device(&job.volume) != Device::Mounted;
        match step {
            Step::Attachment | Step::PublishContext => job.attaches(cache),
            Step::StageQuery => stages(),
            Step::StageContext => stages() && job.attaches(cache),
            Step::StageSecret => stages() && job.stages && job.stage_secret().is_some(),
            Step::StageDir | Step::StageMode | Step::Stage => stages() && job.stages,
            Step::PublishSecret => job.publish_secret().is_some(),
            Step::Data | Step::Record | Step::Check | Step::StageClient | Step::DeviceMounted => true,
            Step::PublishDir | Step::PublishMode | Step::Publish | Step::MapDir | Step::MapLink => true,
            Step::PodLinkDir | Step::PodLink | Step::Expand | Step::Mapped => true,
        }
    }

    /// Takes in the outcome of the present step. `false`: the step is not over.
    fn take(&mut self, turn: &mut Turn<'_>, key: &OpKey, outcome: &Outcome) -> Result<bool, OpError> {
        let job = &mut self.job;
        match self.step {
            Step::Check => job.check(turn)?,
            Step::Attachment => Job::check_attachment(outcome)?,
            Step::StageClient => job.begin_half(turn, "blockMapper.SetUpDevice")?,
            Step::StageContext | Step::PublishContext => job.take_context(outcome)?,
            Step::StageQuery => {
                job.stages = csi_client::has(outcome, NodeRpc::StageUnstageVolume).map_err(csi_client::raw)?
            }
            Step::StageSecret | Step::PublishSecret => job.take_secret(outcome)?,
            Step::StageMode | Step::PublishMode => {
                job.multi_writer = csi_client::has(outcome, NodeRpc::SingleNodeMultiWriter).map_err(csi_client::raw)?;
            }
            Step::Stage | Step::Publish => outcome.reply().map(|_| ()).map_err(csi_client::raw)?,
            Step::DeviceMounted => {
                turn.memory.actual.device_mounted(&job.volume);
                job.begin_half(turn, "blockMapper.MapPodDevice")?;
            }
            Step::Data | Step::Record | Step::StageDir | Step::PublishDir | Step::MapDir | Step::MapLink => {
                outcome.machine().map_err(|e| OpError::last(e.to_string()))?;
            }
            Step::PodLinkDir => outcome
                .machine()
                .map(|_| ())
                .map_err(|e| OpError::last(e.to_string()))?,
            Step::PodLink => {
                outcome.machine().map_err(|e| OpError::last(e.to_string()))?;
                self.tell(turn, key);
            }
            Step::Expand => return self.expand(turn, key, outcome),
            Step::Mapped => {}
        }
        Ok(true)
    }

    /// The two events of a mapping.
    fn tell(&self, turn: &mut Turn<'_>, key: &OpKey) {
        let (job, paths) = (&self.job, turn.kubelet.paths());
        let places = [
            ("globalMapPath", paths.device_map(&job.spec.name)),
            ("volumeMapPath", paths.pod_devices(&job.pod.uid)),
        ];
        for (what, path) in places {
            let name = &job.spec.name;
            let message = format!("MapVolume.MapPodDevice succeeded for volume \"{name}\" {what} \"{path}\"");
            let event = EventRecord::normal(&Object::Pod(job.object.clone()), "SuccessfulMountVolume", message);
            turn.record(Key::Operation(key.clone()), event);
        }
    }

    fn expand(&mut self, turn: &mut Turn<'_>, key: &OpKey, outcome: &Outcome) -> Result<bool, OpError> {
        let Some(expansion) = &mut self.expansion else {
            self.expansion = Some(Expansion::during_mount(&self.job, turn));
            return Ok(false);
        };
        expansion.learn(turn, &Key::Operation(key.clone()), outcome)
    }

    /// The mapping failed.
    fn failed(&self, turn: &mut Turn<'_>, key: &OpKey, error: &OpError) -> Progress {
        let job = &self.job;
        let step = match self.step {
            Step::Data | Step::Record | Step::Check => "MapVolume",
            Step::Attachment => "MapVolume.WaitForAttach",
            step if step <= Step::Stage => {
                turn.memory.actual.device_mount_failed(&job.volume, error.class);
                "MapVolume.SetUpDevice"
            }
            step if step <= Step::Publish => {
                turn.mount_failed(job, error.class);
                "MapVolume.MapPodDevice"
            }
            step => {
                turn.mount_failed(job, Class::Uncertain);
                let in_expansion = step >= Step::Expand;
                if in_expansion {
                    "MapVolume.MarkVolumeAsMounted failed while expanding volume"
                } else {
                    "MapVolume.MapBlockVolume"
                }
            }
        };
        let message = format!("{step} failed for volume \"{}\" : {}", job.spec.name, error.message);
        let pod = Object::Pod(job.object.clone());
        turn.record(
            Key::Operation(key.clone()),
            EventRecord::warning(&pod, "FailedMapVolume", message),
        );
        Progress::Over(Ended::Failed)
    }
}
