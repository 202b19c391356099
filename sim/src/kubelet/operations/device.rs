//! Unmounting the device of a file-system volume (fact sheet 6.10): NodeUnstage, then staging directory and metadata file.
//!
//! ```text
//! Mounts ─others mount it: error, nothing changes
//!    └► Record ─missing: as if unstaged────────────────────────────────► gone
//!          └► Client ─► Query ─no STAGE_UNSTAGE: only directories─► Clean ─► gone
//!                          └► Call ──────────────────────────────────┘
//! ```
//!
//! A missing metadata file counts as success **without NodeUnstage**. After an error of the driver the device is uncertain, and it is tried again for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use wavetank_proto::csi::v1 as csi;

use super::Progress;
use super::cleanup::Cleanup;
use super::keys::Ended;
use crate::control::{Effect, Outcome};
use crate::kubelet::csi_client::{self, NodeRpc};
use crate::kubelet::paths::{VolumeRecord, record_in};
use crate::kubelet::volume::{VolumeName, VolumeSpec};
use crate::kubelet::{Turn, View};
use crate::link::{MachineAnswer, MachineError, MachineOp};
use crate::mutants::Wrong;
use crate::runtime::Time;

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Mounts,
    Record,
    Client,
    Query,
    Call,
    Clean,
}

/// A device unmount under way.
#[derive(Clone, Debug)]
pub struct UnmountDevice {
    volume: VolumeName,
    spec: Arc<VolumeSpec>,
    step: Step,
    deadline: Time,
    cleanup: Option<Cleanup>,
}

impl UnmountDevice {
    /// One that begins.
    pub fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>) -> UnmountDevice {
        UnmountDevice {
            volume: volume.clone(),
            spec: Arc::clone(spec),
            step: Step::Mounts,
            deadline: Time::ZERO,
            cleanup: None,
        }
    }

    /// What next.
    pub fn decide(&self, view: &View<'_>) -> Effect {
        let paths = view.kubelet.paths();
        let left = self.deadline.since(view.now);
        match self.step {
            Step::Mounts => Effect::Machine(MachineOp::Mounts),
            Step::Record => Effect::Machine(MachineOp::ReadFile(record_in(&paths.staging_parent(&self.spec)))),
            Step::Client => Effect::Note("unmount device"),
            Step::Query => csi_client::ask(&self.spec.driver, left),
            Step::Call => {
                let request = csi::NodeUnstageVolumeRequest {
                    volume_id: self.spec.handle.clone(),
                    staging_target_path: paths.staging(&self.spec),
                };
                csi_client::call(&self.spec.driver, request, left)
            }
            Step::Clean => self.cleanup.as_ref().expect("made before this step").decide(),
        }
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, outcome: &Outcome) -> Progress {
        let paths = turn.kubelet.paths();
        match self.step {
            Step::Mounts => match outcome.machine() {
                Ok(MachineAnswer::Mounts(mounts)) if others(mounts, &paths.staging(&self.spec)).is_none() => {
                    self.step = Step::Record;
                }
                _ => return Progress::Over(Ended::Failed),
            },
            Step::Record => match outcome.machine() {
                Ok(MachineAnswer::Bytes(bytes)) if VolumeRecord::decode(bytes).is_ok() => self.step = Step::Client,
                Err(MachineError::Missing(_)) => return self.gone(turn),
                _ => return Progress::Over(Ended::Failed),
            },
            Step::Client => {
                if !turn.memory.plugins.is_registered(&self.spec.driver) {
                    return self.failed(turn);
                }
                self.deadline = turn.now + turn.kubelet.constants.csi_timeout;
                self.step = Step::Query;
            }
            Step::Query => match csi_client::has(outcome, NodeRpc::StageUnstageVolume) {
                Ok(true) => self.step = Step::Call,
                Ok(false) => self.clean(turn),
                Err(_) => return self.failed(turn),
            },
            Step::Call => {
                if outcome.reply().is_err() {
                    return self.failed(turn);
                }
                self.clean(turn);
            }
            Step::Clean => {
                let cleanup = self.cleanup.as_mut().expect("made before this step");
                if cleanup.learn(outcome).is_err() {
                    return self.failed(turn);
                }
                if cleanup.is_done() {
                    return self.gone(turn);
                }
            }
        }
        Progress::Going
    }

    fn clean(&mut self, turn: &Turn<'_>) {
        let paths = turn.kubelet.paths();
        let cleanup = Cleanup::strict(paths.staging(&self.spec), paths.staging_parent(&self.spec));
        (self.cleanup, self.step) = (Some(cleanup), Step::Clean);
    }

    fn gone(&self, turn: &mut Turn<'_>) -> Progress {
        turn.memory.actual.device_unmounted(&self.volume);
        Progress::Over(Ended::Ok)
    }

    fn failed(&self, turn: &mut Turn<'_>) -> Progress {
        if turn.kubelet.flags.wrong != Some(Wrong::FailedUnstageMeansStaged) {
            turn.memory.actual.device_unmount_failed(&self.volume);
        }
        Progress::Over(Ended::Failed)
    }
}

/// Another place where what is mounted at `path` is mounted, too.
pub fn others<'a>(mounts: &'a BTreeMap<String, String>, path: &str) -> Option<&'a str> {
    let source = mounts.get(path);
    let same = |(target, from): &(&'a String, &'a String)| {
        target.as_str() != path && (from.as_str() == path || source.is_some_and(|s| s == *from))
    };
    mounts.iter().find(same).map(|(target, _)| target.as_str())
}

#[cfg(test)]
mod tests {
    use super::others;
    use std::collections::BTreeMap;

    #[test]
    fn a_device_is_kept_while_a_pod_still_mounts_it() {
        // Fact sheet 6.3, quirk B: a left-over mount blocks UnmountDevice.
        let table = |rows: &[(&str, &str)]| -> BTreeMap<String, String> {
            rows.iter().map(|(t, s)| ((*t).into(), (*s).into())).collect()
        };
        let mounts = table(&[
            ("/stage", "/dev/loop0"),
            ("/pod/mount", "/dev/loop0"),
            ("/other", "/dev/loop1"),
        ]);
        assert_eq!(others(&mounts, "/stage"), Some("/pod/mount"));
        assert_eq!(others(&mounts, "/other"), None);
        let bind = table(&[("/pod/mount", "/stage")]);
        assert_eq!(
            others(&bind, "/stage"),
            Some("/pod/mount"),
            "a bind of a plain directory"
        );
        assert_eq!(others(&table(&[("/a", "x"), ("/b", "x")]), "/stage"), None);
    }
}
