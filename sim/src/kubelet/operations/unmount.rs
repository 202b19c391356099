//! Unmounting a file system for a pod (fact sheet 6.10): NodeUnpublish, then target, metadata file and directory.
//!
//! ```text
//! Record ─► Client ─► Call ─► Clean ─► gone
//!    │ unreadable: not generated     any error: the pod's mount is uncertain, back-off, for ever
//! ```

use std::sync::Arc;

use wavetank_proto::csi::v1 as csi;

use super::Progress;
use super::cleanup::Cleanup;
use super::keys::Ended;
use crate::control::{Effect, Outcome};
use crate::kubelet::csi_client;
use crate::kubelet::paths::{VolumeRecord, record_in};
use crate::kubelet::volume::{PodRef, VolumeName, VolumeSpec};
use crate::kubelet::{Turn, View};
use crate::link::{MachineAnswer, MachineOp};
use crate::runtime::Time;

/// Where an unmount stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Record,
    Client,
    Call,
    Clean,
}

/// An unmount under way.
#[derive(Clone, Debug)]
pub struct Unmount {
    volume: VolumeName,
    spec: Arc<VolumeSpec>,
    pod: PodRef,
    step: Step,
    deadline: Time,
    cleanup: Option<Cleanup>,
}

impl Unmount {
    /// One that begins.
    pub fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>, pod: &PodRef) -> Unmount {
        Unmount {
            volume: volume.clone(),
            spec: Arc::clone(spec),
            pod: pod.clone(),
            step: Step::Record,
            deadline: Time::ZERO,
            cleanup: None,
        }
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        let paths = view.kubelet.paths();
        match self.step {
            Step::Record => {
                let directory = paths.pod_volume(&self.pod.uid, &self.spec.name);
                Effect::Machine(MachineOp::ReadFile(record_in(&directory)))
            }
            Step::Client => Effect::Note("tear down"),
            Step::Call => {
                let request = csi::NodeUnpublishVolumeRequest {
                    volume_id: self.spec.handle.clone(),
                    target_path: paths.target(&self.spec, &self.pod),
                };
                csi_client::call(&self.spec.driver, request, self.deadline.since(view.now))
            }
            Step::Clean => self.cleanup.as_ref().expect("made before this step").decide(),
        }
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, outcome: &Outcome) -> Progress {
        match self.step {
            Step::Record => {
                let readable =
                    matches!(outcome.machine(), Ok(MachineAnswer::Bytes(b)) if VolumeRecord::decode(b).is_ok());
                if !readable {
                    return Progress::Over(Ended::NotGenerated);
                }
                self.step = Step::Client;
            }
            Step::Client => {
                if !turn.memory.plugins.is_registered(&self.spec.driver) {
                    return self.failed(turn);
                }
                self.deadline = turn.now + turn.kubelet.constants.csi_timeout;
                self.step = Step::Call;
            }
            Step::Call => {
                if outcome.reply().is_err() {
                    return self.failed(turn);
                }
                let paths = turn.kubelet.paths();
                let parent = paths.pod_volume(&self.pod.uid, &self.spec.name);
                self.cleanup = Some(Cleanup::strict(paths.target(&self.spec, &self.pod), parent));
                self.step = Step::Clean;
            }
            Step::Clean => {
                let cleanup = self.cleanup.as_mut().expect("made before this step");
                if cleanup.learn(outcome).is_err() {
                    return self.failed(turn);
                }
                if cleanup.is_done() {
                    turn.memory.actual.pod_unmounted(&self.volume, &self.pod);
                    turn.pod_unmounted(&self.pod);
                    return Progress::Over(Ended::Ok);
                }
            }
        }
        Progress::Going
    }

    fn failed(&self, turn: &mut Turn<'_>) -> Progress {
        turn.memory.actual.pod_uncertain(&self.volume, &self.pod);
        turn.pod_unmounted(&self.pod);
        Progress::Over(Ended::Failed)
    }
}
