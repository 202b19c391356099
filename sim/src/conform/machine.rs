//! A modelled machine as the checks see it: kubelet's operations, and pods that write stamps.

use std::sync::Arc;

use async_trait::async_trait;
use wavetank_conform::{Kind, Machine as NodeMachine, WriteError};

use crate::cluster::Due;
use crate::host::{Backing, Cell, Machine, Origin, PodError, PodWrite, VolumeKey};
use crate::link::{MachineAnswer, MachineOp, PathKind};
use crate::runtime::Board;

/// Where kubelet keeps everything.
const ROOT: &str = "/var/lib/kubelet";
/// The reference driver's own directory, which it makes once and keeps; what is in it counts.
const PRIVATE: &str = "/var/lib/wavetank";
/// The block of a raw device that holds the mark.
const MARK: u64 = 256;
/// The file that holds the marks, a block each.
const FILE: &str = "marks";

/// The machine of a node.
pub(super) struct TankMachine {
    pub machine: Machine,
    board: Arc<Board<Due>>,
}

impl TankMachine {
    pub fn new(machine: Machine, board: Arc<Board<Due>>) -> TankMachine {
        let made = TankMachine { machine, board };
        // Installed with it.
        let _ = made.perform(&MachineOp::MakeDirs(ROOT.to_owned()));
        made
    }

    pub fn perform(&self, operation: &MachineOp) -> Result<MachineAnswer, String> {
        self.machine
            .perform(self.board.now(), operation)
            .map_err(|error| error.to_string())
    }

    /// What it holds.
    pub fn inventory(&self) -> Vec<String> {
        let (node, found) = (self.machine.node(), self.machine.inventory());
        let mounts = found.mounts.iter().map(|mount| format!("{node}: {mount:?}"));
        let devices = found
            .devices
            .iter()
            .map(|(path, _, volume)| format!("{node}: device {path} of {volume}"));
        let paths = self.machine.paths_below("/var/lib");
        let paths = paths
            .iter()
            .filter(|(path, _)| path != PRIVATE)
            .map(|(path, kind)| format!("{node}: {path} {kind:?}"));
        mounts.chain(devices).chain(paths).collect()
    }

    fn stat(&self, path: &str) -> Result<PathKind, String> {
        match self.perform(&MachineOp::Stat(path.to_owned()))? {
            MachineAnswer::Path(kind) => Ok(kind),
            other => Err(format!("the machine answered {other:?}")),
        }
    }

    /// Does something as a pod that runs only for it.
    fn as_pod<T>(&self, pod: &str, act: impl FnOnce() -> Result<T, PodError>) -> Result<T, PodError> {
        let of = |_| PodError::Down;
        self.perform(&MachineOp::StartPod(pod.to_owned())).map_err(of)?;
        let done = act();
        let stop = MachineOp::StopPod {
            uid: pod.to_owned(),
            grace_seconds: 0,
        };
        self.perform(&stop).map_err(of)?;
        done
    }

    fn marks(&self, pod: &str, path: &str) -> Result<Vec<String>, PodError> {
        let read = self.as_pod(pod, || self.machine.pod_read(pod, path))?;
        if read.on == Backing::NodeDisk {
            // What a pod writes there is not in any volume.
            return Err(PodError::Missing);
        }
        let stamps = read.found.into_iter().filter_map(|found| match found.cell {
            Cell::Stamp(stamp) => Some(stamp.origin.volume.name.to_string()),
            Cell::Bytes(_) | Cell::Torn(_) => None,
        });
        Ok(stamps.collect())
    }
}

#[async_trait]
impl NodeMachine for TankMachine {
    fn root(&self) -> &str {
        ROOT
    }

    fn sees_volumes(&self) -> Result<(), String> {
        Ok(())
    }

    async fn make_dirs(&self, path: &str) -> Result<(), String> {
        self.perform(&MachineOp::MakeDirs(path.to_owned())).map(drop)
    }

    async fn remove(&self, path: &str) -> Result<(), String> {
        let operation = match self.stat(path)? {
            PathKind::Missing => return Ok(()),
            PathKind::Directory | PathKind::MountPoint => MachineOp::RemoveDir(path.to_owned()),
            PathKind::File | PathKind::Device | PathKind::Link => MachineOp::RemoveFile(path.to_owned()),
        };
        self.perform(&operation).map(drop)
    }

    async fn link(&self, to: &str, at: &str) -> Result<(), String> {
        self.perform(&MachineOp::Link {
            to: to.to_owned(),
            at: at.to_owned(),
        })
        .map(drop)
    }

    async fn kind(&self, path: &str) -> Result<Kind, String> {
        Ok(match self.stat(path)? {
            PathKind::Missing => Kind::Missing,
            PathKind::Directory | PathKind::MountPoint => Kind::Directory,
            PathKind::File => Kind::File,
            PathKind::Device => Kind::Device,
            PathKind::Link => Kind::Other,
        })
    }

    async fn mounts_below(&self, path: &str) -> Result<Vec<String>, String> {
        let MachineAnswer::Mounts(mounts) = self.perform(&MachineOp::Mounts)? else {
            return Err("the machine has no mount table".to_owned());
        };
        let below = |target: &String| {
            target
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Ok(mounts.into_keys().filter(below).collect())
    }

    async fn write(&self, pod: &str, path: &str, mark: &str) -> Result<(), WriteError> {
        let refused = |why: PodError| match why {
            PodError::ReadOnly => WriteError::ReadOnly,
            why => WriteError::Other(why.to_string()),
        };
        let is_device = path.contains("/volumeDevices/");
        let nth = self.marks(pod, path).map_err(refused)?.len() as u64;
        let write = PodWrite {
            origin: Arc::new(Origin {
                pod: format!("default/{pod}"),
                uid: pod.to_owned(),
                node: self.machine.node().to_string(),
                volume: VolumeKey::new(mark, 0),
            }),
            path: path.to_owned(),
            file: FILE.into(),
            first: if is_device { MARK } else { nth },
            count: 1,
            sequence: nth,
            sync: true,
        };
        let written = self.as_pod(pod, || self.machine.pod_write(self.board.now(), &write));
        match written.map_err(refused)?.stopped {
            None => Ok(()),
            Some(why) => Err(refused(why)),
        }
    }

    async fn read(&self, pod: &str, path: &str) -> Result<Vec<String>, String> {
        self.marks(pod, path).map_err(|why| why.to_string())
    }
}
