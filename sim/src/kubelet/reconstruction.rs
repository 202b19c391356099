//! Reconstruction: what a new kubelet finds on disk of the time before (fact sheet 6.11).
//!
//! It walks the directories of pods and reads the metadata file of each volume. Everything it finds is uncertain. What has no pod directory is **not** found:
//! a volume that was staged but not yet set up for a pod is forgotten, and so is one whose last pod mount was gone when kubelet died. A metadata file that
//! cannot be read leaves its directories, and perhaps a mount, behind.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Turn;
use super::paths::{Paths, VolumeRecord, record_in, unescape};
use super::volume::{PodRef, Source, VolumeSpec};
use crate::control::{Effect, Outcome};
use crate::link::{MachineAnswer, MachineOp};
use crate::mutants::Wrong;

/// A walk under way: what is still to be looked at.
#[derive(Clone, Debug)]
pub struct Walk {
    todo: VecDeque<Look>,
}

#[derive(Clone, Debug)]
enum Look {
    Pods,
    Volumes(String),
    Devices(String),
    Volume(String, String),
    Device(String, String),
}

impl Walk {
    /// A walk that begins.
    pub fn begin() -> Walk {
        Walk {
            todo: [Look::Pods].into(),
        }
    }

    /// Whether everything has been looked at.
    pub fn is_over(&self) -> bool {
        self.todo.is_empty()
    }

    /// What next.
    pub fn decide(&self, paths: Paths<'_>) -> Effect {
        let Some(look) = self.todo.front() else {
            return Effect::Note("walked");
        };
        Effect::Machine(match look {
            Look::Pods => MachineOp::ListDir(paths.pods()),
            Look::Volumes(uid) => MachineOp::ListDir(paths.pod_volumes(uid)),
            Look::Devices(uid) => MachineOp::ListDir(paths.pod_devices(uid)),
            Look::Volume(uid, name) => MachineOp::ReadFile(record_in(&paths.pod_volume(uid, name))),
            Look::Device(_, name) => MachineOp::ReadFile(record_in(&paths.device_data(name))),
        })
    }

    /// What came of it.
    pub fn learn(&mut self, turn: &mut Turn<'_>, outcome: &Outcome) {
        let Some(look) = self.todo.pop_front() else {
            return;
        };
        match (look, outcome.machine()) {
            (Look::Pods, Ok(MachineAnswer::Names(uids))) => {
                for uid in uids {
                    turn.memory.orphans.insert(uid.as_str().into());
                    self.todo.push_back(Look::Volumes(uid.clone()));
                    self.todo.push_back(Look::Devices(uid.clone()));
                }
            }
            (Look::Volumes(uid), Ok(MachineAnswer::Names(names))) => {
                let looks = names.iter().map(|name| Look::Volume(uid.clone(), unescape(name)));
                self.todo.extend(looks);
            }
            (Look::Devices(uid), Ok(MachineAnswer::Names(names))) => {
                let looks = names.iter().map(|name| Look::Device(uid.clone(), unescape(name)));
                self.todo.extend(looks);
            }
            (Look::Volume(uid, name), Ok(MachineAnswer::Bytes(bytes))) => found(turn, &uid, &name, bytes, false),
            (Look::Device(uid, name), Ok(MachineAnswer::Bytes(bytes))) => found(turn, &uid, &name, bytes, true),
            // No such directory or file, or one that cannot be read: nothing is reconstructed from it.
            (_, _) => {}
        }
    }
}

fn found(turn: &mut Turn<'_>, uid: &str, name: &str, bytes: &[u8], block: bool) {
    if turn.kubelet.flags.wrong == Some(Wrong::RestartForgetsMounts) {
        return;
    }
    let Ok(record) = VolumeRecord::decode(bytes) else {
        return;
    };
    let ephemeral = record.volume_lifecycle_mode == "Ephemeral";
    let spec = VolumeSpec {
        driver: record.driver_name.as_str().into(),
        handle: record.volume_handle,
        name: name.to_owned(),
        in_pod: if ephemeral { name.to_owned() } else { String::new() },
        block,
        claim: None,
        read_only: false,
        source: Source::Reconstructed { ephemeral },
    };
    let pod = PodRef::unnamed(uid);
    let unique = spec.unique_name(&pod);
    turn.memory.actual.reconstruct(&unique, &Arc::new(spec), &pod);
}
