//! Unmapping a raw block volume for a pod, and its device (fact sheet 6.8).
//!
//! ```text
//! pod:    Record ─► MapLink ─► PodLink ─► Call (NodeUnpublish) ─► gone
//! device: Links ─► Behind ─a device is behind an entry: error
//!           └► Staging ─missing: skipped silently──────────────┐
//!                 └► Query ─► Call (NodeUnstage) ─► Unstaged ──┴► PublishDir ─► RecordFile ─► Data ─► Map ─► Directory ─► gone
//! ```
//!
//! Kubelet does not delete what the driver published: the driver must. What the driver left there is only logged, and stays.
//!
//! *Blind spots.* No check whether the device is still open elsewhere.

use std::sync::Arc;

use wavetank_proto::csi::v1 as csi;

use super::Progress;
use super::keys::Ended;
use crate::control::{Effect, Outcome};
use crate::kubelet::csi_client::{self, NodeRpc};
use crate::kubelet::paths::{VolumeRecord, record_in};
use crate::kubelet::volume::{PodRef, VolumeName, VolumeSpec};
use crate::kubelet::{Turn, View};
use crate::link::{MachineAnswer, MachineError, MachineOp, PathKind};
use crate::runtime::Time;

/// Where an unmapping stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PodStep {
    Record,
    MapLink,
    PodLink,
    Call,
}

/// An unmapping under way.
#[derive(Clone, Debug)]
pub struct Unmap {
    volume: VolumeName,
    spec: Arc<VolumeSpec>,
    pod: PodRef,
    step: PodStep,
    deadline: Time,
}

impl Unmap {
    /// One that begins.
    pub fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>, pod: &PodRef) -> Unmap {
        Unmap {
            volume: volume.clone(),
            spec: Arc::clone(spec),
            pod: pod.clone(),
            step: PodStep::Record,
            deadline: Time::ZERO,
        }
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        let paths = view.kubelet.paths();
        let (name, uid) = (&self.spec.name, &self.pod.uid);
        match self.step {
            PodStep::Record => Effect::Machine(MachineOp::ReadFile(record_in(&paths.device_data(name)))),
            PodStep::MapLink => Effect::Machine(MachineOp::RemoveFile(paths.stats(&self.spec, &self.pod))),
            PodStep::PodLink => Effect::Machine(MachineOp::RemoveFile(paths.pod_device(uid, name))),
            PodStep::Call => {
                let request = csi::NodeUnpublishVolumeRequest {
                    volume_id: self.spec.handle.clone(),
                    target_path: paths.target(&self.spec, &self.pod),
                };
                csi_client::call(&self.spec.driver, request, self.deadline.since(view.now))
            }
        }
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, outcome: &Outcome) -> Progress {
        match self.step {
            PodStep::Record => {
                let readable =
                    matches!(outcome.machine(), Ok(MachineAnswer::Bytes(b)) if VolumeRecord::decode(b).is_ok());
                if !readable {
                    return Progress::Over(Ended::NotGenerated);
                }
                turn.memory.actual.pod_uncertain(&self.volume, &self.pod);
                self.step = PodStep::MapLink;
            }
            PodStep::MapLink | PodStep::PodLink => {
                if outcome.machine().is_err() {
                    return Progress::Over(Ended::Failed);
                }
                if self.step == PodStep::MapLink {
                    self.step = PodStep::PodLink;
                    return Progress::Going;
                }
                if !turn.memory.plugins.is_registered(&self.spec.driver) {
                    return Progress::Over(Ended::Failed);
                }
                self.deadline = turn.now + turn.kubelet.constants.csi_timeout;
                self.step = PodStep::Call;
            }
            PodStep::Call => {
                if outcome.reply().is_err() {
                    return Progress::Over(Ended::Failed);
                }
                turn.memory.actual.pod_unmounted(&self.volume, &self.pod);
                turn.pod_unmounted(&self.pod);
                return Progress::Over(Ended::Ok);
            }
        }
        Progress::Going
    }
}

/// Where a device unmapping stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceStep {
    Links,
    Behind,
    Staging,
    Query,
    Call,
    Unstaged,
    PublishDir,
    RecordFile,
    Data,
    Map,
    Directory,
}

/// A device unmapping under way.
#[derive(Clone, Debug)]
pub struct UnmapDevice {
    volume: VolumeName,
    spec: Arc<VolumeSpec>,
    step: DeviceStep,
    /// The pods that have an entry in the map and were not looked at yet.
    entries: Vec<String>,
    deadline: Time,
}

impl UnmapDevice {
    /// One that begins.
    pub fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>) -> UnmapDevice {
        UnmapDevice {
            volume: volume.clone(),
            spec: Arc::clone(spec),
            step: DeviceStep::Links,
            entries: Vec::new(),
            deadline: Time::ZERO,
        }
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        let paths = view.kubelet.paths();
        let (name, left) = (&self.spec.name, self.deadline.since(view.now));
        let remove = |directory| Effect::Machine(MachineOp::RemoveDir(directory));
        match self.step {
            DeviceStep::Links => Effect::Machine(MachineOp::ListDir(paths.device_map(name))),
            DeviceStep::Behind => {
                let uid = self.entries.last().map_or("", String::as_str);
                let published = format!("{}/{uid}", paths.device_publish_dir(name));
                Effect::Machine(MachineOp::Stat(published))
            }
            DeviceStep::Staging => Effect::Machine(MachineOp::Stat(paths.staging(&self.spec))),
            DeviceStep::Query => csi_client::ask(&self.spec.driver, left),
            DeviceStep::Call => {
                let request = csi::NodeUnstageVolumeRequest {
                    volume_id: self.spec.handle.clone(),
                    staging_target_path: paths.staging(&self.spec),
                };
                csi_client::call(&self.spec.driver, request, left)
            }
            DeviceStep::Unstaged => Effect::Machine(MachineOp::RemoveAll(paths.staging(&self.spec))),
            DeviceStep::PublishDir => remove(paths.device_publish_dir(name)),
            DeviceStep::RecordFile => Effect::Machine(MachineOp::RemoveFile(record_in(&paths.device_data(name)))),
            DeviceStep::Data => remove(paths.device_data(name)),
            DeviceStep::Map => Effect::Machine(MachineOp::RemoveAll(paths.device_map(name))),
            DeviceStep::Directory => remove(paths.device_dir(name)),
        }
    }

    /// No pod has the device any more.
    fn unused(&self, turn: &mut Turn<'_>) -> DeviceStep {
        turn.memory.actual.device_unmount_failed(&self.volume);
        DeviceStep::Staging
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, outcome: &Outcome) -> Progress {
        self.step = match self.step {
            DeviceStep::Links => match outcome.machine() {
                Ok(MachineAnswer::Names(names)) if !names.is_empty() => {
                    self.entries.clone_from(names);
                    DeviceStep::Behind
                }
                Ok(_) | Err(MachineError::Missing(_)) => self.unused(turn),
                Err(_) => return Progress::Over(Ended::Failed),
            },
            // What a reboot left in the map has no device behind it and is no reference (`GetDeviceBindMountRefs`).
            DeviceStep::Behind => match outcome.machine() {
                Ok(MachineAnswer::Path(PathKind::Device | PathKind::MountPoint)) => {
                    return Progress::Over(Ended::Failed);
                }
                _ => {
                    self.entries.pop();
                    if self.entries.is_empty() {
                        self.unused(turn)
                    } else {
                        DeviceStep::Behind
                    }
                }
            },
            DeviceStep::Staging => match outcome.machine() {
                Ok(MachineAnswer::Path(PathKind::Missing)) => DeviceStep::PublishDir,
                Ok(_) if turn.memory.plugins.is_registered(&self.spec.driver) => {
                    self.deadline = turn.now + turn.kubelet.constants.csi_timeout;
                    DeviceStep::Query
                }
                _ => return Progress::Over(Ended::Failed),
            },
            DeviceStep::Query => match csi_client::has(outcome, NodeRpc::StageUnstageVolume) {
                Ok(true) => DeviceStep::Call,
                Ok(false) => DeviceStep::PublishDir,
                Err(_) => return Progress::Over(Ended::Failed),
            },
            DeviceStep::Call if outcome.reply().is_err() => return Progress::Over(Ended::Failed),
            DeviceStep::Call => DeviceStep::Unstaged,
            DeviceStep::Unstaged if outcome.machine().is_err() => return Progress::Over(Ended::Failed),
            DeviceStep::Unstaged => DeviceStep::PublishDir,
            DeviceStep::PublishDir => DeviceStep::RecordFile,
            DeviceStep::RecordFile => DeviceStep::Data,
            DeviceStep::Data => DeviceStep::Map,
            DeviceStep::Map => DeviceStep::Directory,
            DeviceStep::Directory => {
                turn.memory.actual.device_unmounted(&self.volume);
                return Progress::Over(Ended::Ok);
            }
        };
        Progress::Going
    }
}
