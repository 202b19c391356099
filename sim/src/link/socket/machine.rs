//! The machine of a node as its agent shows it: the other half of the link.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use wavetank_agent::wire::{Answer, Ask, Block, Content, Kind, Why};
use wavetank_driver::host::{MountEntry, MountSource};
use wavetank_driver::{Access, DevicePath, HostPath, VolumeId};

use super::names::Names;
use super::run::Run;
use crate::host::{Backing, Cell, Found, Inventory, Origin, PodError, PodWrite, ReadBack, Stamp, Written};
use crate::link::machine::RealMachine;
use crate::link::{MachineAnswer, MachineError, MachineOp, PathKind};

/// The machine of a node of an outside driver.
pub struct OutsideMachine {
    run: Arc<Run>,
    node: String,
    names: Names,
    /// The writers so far, by what their blocks say of them.
    writers: Arc<Mutex<BTreeMap<String, Arc<Origin>>>>,
}

impl OutsideMachine {
    pub(super) fn new(run: Arc<Run>, node: &str, names: Names) -> OutsideMachine {
        let writers = run.writers();
        OutsideMachine {
            run,
            node: node.to_owned(),
            names,
            writers,
        }
    }

    fn ask(&self, ask: &Ask) -> Option<Answer> {
        self.run.ask(&self.node, ask)
    }

    fn pairs(&self, ask: &Ask) -> Vec<(String, String)> {
        match self.ask(ask) {
            Some(Answer::Pairs(pairs)) => pairs,
            _ => Vec::new(),
        }
    }

    fn mounts(&self) -> Vec<(String, String)> {
        let below = self.pairs(&Ask::Mounts(self.names.kubelet.clone()));
        below
            .into_iter()
            .map(|(target, source)| (self.names.inside(&target), source))
            .collect()
    }

    /// The handle in kubelet's record of what is staged or published here for a device.
    fn recorded(&self, target: &str) -> Option<String> {
        let record = record_of(target)?;
        let Answer::Bytes(bytes) = self.ask(&Ask::ReadFile(self.names.outside(&record)))? else {
            return None;
        };
        let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        record["volumeHandle"].as_str().map(str::to_owned)
    }

    fn question(&self, op: &MachineOp) -> Ask {
        let at = |path: &String| self.names.outside(path);
        match op {
            MachineOp::MakeDirs(path) => Ask::MakeDirs(at(path)),
            MachineOp::RemoveDir(path) => Ask::RemoveDir(at(path)),
            MachineOp::RemoveFile(path) => Ask::RemoveFile(at(path)),
            MachineOp::RemoveAll(path) => Ask::RemoveAll(at(path)),
            MachineOp::WriteFile(path, bytes) => Ask::WriteFile(at(path), bytes.clone()),
            MachineOp::ReadFile(path) => Ask::ReadFile(at(path)),
            MachineOp::Stat(path) => Ask::Stat(at(path)),
            MachineOp::ListDir(path) => Ask::ListDir(at(path)),
            MachineOp::Mounts => Ask::Mounts(self.names.kubelet.clone()),
            MachineOp::Link { to, at: place } => Ask::Link {
                to: at(to),
                at: at(place),
            },
            MachineOp::StartPod(uid) => Ask::StartPod(uid.clone()),
            MachineOp::StopPod { uid, .. } => Ask::StopPod(uid.clone()),
            MachineOp::RunningPods => Ask::RunningPods,
        }
    }

    fn found(&self, row: &Block) -> impl Iterator<Item = Found> {
        let file: Arc<str> = row.file.as_str().into();
        (0..row.count).map(move |nth| Found {
            file: Arc::clone(&file),
            block: row.block + nth,
            cell: self.cell(&row.nth(nth)),
        })
    }

    fn cell(&self, content: &Content) -> Cell {
        match content {
            Content::Bytes(bytes) => Cell::Bytes(bytes.as_slice().into()),
            Content::Stamp {
                sequence,
                block: meant,
                label,
            } => {
                let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
                // The file stands in the label, behind who wrote.
                let (label, file) = label.rsplit_once(" file=").unwrap_or((label, ""));
                match writers.get(label) {
                    Some(origin) => Cell::Stamp(Stamp {
                        origin: Arc::clone(origin),
                        file: file.into(),
                        block: *meant,
                        sequence: *sequence,
                    }),
                    None => Cell::Bytes(label.as_bytes().into()),
                }
            }
        }
    }
}

/// How many blocks are written at once: a part of any write takes far less real time than the watchdog has.
const PART: u64 = 16 * 1024;

/// Where kubelet keeps what drivers stage, and beside it a record of each volume.
const STAGED: &str = "/var/lib/kubelet/plugins/kubernetes.io/csi/";

fn record_of(target: &str) -> Option<String> {
    let rest = target.strip_prefix(STAGED)?;
    let mut parts = rest.split('/');
    if parts.next() == Some("volumeDevices") {
        let volume = parts.nth(1)?;
        return Some(format!("{STAGED}volumeDevices/{volume}/data/vol_data.json"));
    }
    let (parent, _) = target.rsplit_once('/')?;
    Some(format!("{parent}/vol_data.json"))
}

/// What a block says of its writer.
fn label(origin: &Origin) -> String {
    format!("{} {} on {} to {}", origin.pod, origin.uid, origin.node, origin.volume)
}

fn kind(kind: Kind) -> PathKind {
    match kind {
        Kind::Missing => PathKind::Missing,
        Kind::Directory => PathKind::Directory,
        Kind::MountPoint => PathKind::MountPoint,
        Kind::File => PathKind::File,
        Kind::Device => PathKind::Device,
        Kind::Link => PathKind::Link,
    }
}

fn pod_error(why: Why) -> PodError {
    match why {
        Why::NoSpace => PodError::NoSpace,
        Why::ReadOnly => PodError::ReadOnly,
        Why::Missing => PodError::Missing,
        Why::NotRunning => PodError::NotRunning,
        Why::Busy | Why::Exists | Why::Io => PodError::Io,
    }
}

fn subject(op: &MachineOp) -> String {
    match op {
        MachineOp::MakeDirs(path)
        | MachineOp::RemoveDir(path)
        | MachineOp::RemoveFile(path)
        | MachineOp::RemoveAll(path)
        | MachineOp::WriteFile(path, _)
        | MachineOp::ReadFile(path)
        | MachineOp::Stat(path)
        | MachineOp::ListDir(path)
        | MachineOp::Link { at: path, .. } => path.clone(),
        MachineOp::StartPod(uid) | MachineOp::StopPod { uid, .. } => uid.clone(),
        MachineOp::Mounts | MachineOp::RunningPods => String::new(),
    }
}

impl RealMachine for OutsideMachine {
    fn is_up(&self) -> bool {
        self.run.is_up(&self.node)
    }

    fn boots(&self) -> u64 {
        self.run.boots(&self.node)
    }

    fn perform(&self, op: &MachineOp) -> Result<MachineAnswer, MachineError> {
        let path = || subject(op);
        match self.ask(&self.question(op)).ok_or(MachineError::Down)? {
            Answer::Path(found) => Ok(MachineAnswer::Path(kind(found))),
            Answer::Bytes(bytes) => Ok(MachineAnswer::Bytes(bytes)),
            Answer::Names(names) => Ok(MachineAnswer::Names(names)),
            Answer::Pairs(pairs) => {
                let inside = pairs
                    .into_iter()
                    .map(|(target, source)| (self.names.inside(&target), source));
                Ok(MachineAnswer::Mounts(inside.collect()))
            }
            Answer::Refused(Why::Missing, _) => Err(MachineError::Missing(path())),
            Answer::Refused(Why::Busy, _) => Err(MachineError::Busy(path())),
            Answer::Refused(Why::Exists, _) => Err(MachineError::Exists(path())),
            Answer::Refused(..) => Err(MachineError::Io(path())),
            _ => Ok(MachineAnswer::Done),
        }
    }

    fn pod_write(&self, write: &PodWrite) -> Result<Written, PodError> {
        let label = label(&write.origin);
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.insert(label.clone(), Arc::clone(&write.origin));
        drop(writers);
        let (mut count, mut stopped) = (0, None);
        while count < write.count && stopped.is_none() {
            let ask = Ask::Write {
                uid: write.origin.uid.clone(),
                path: self.names.outside(&write.path),
                file: write.file.to_string(),
                first: write.first + count,
                count: (write.count - count).min(PART),
                sequence: write.sequence + count,
                label: format!("{label} file={}", write.file),
                sync: write.sync,
            };
            match self.ask(&ask).ok_or(PodError::Down)? {
                Answer::Written(more, why) => (count, stopped) = (count + more, why),
                Answer::Refused(why, _) if count == 0 => return Err(pod_error(why)),
                Answer::Refused(why, _) => stopped = Some(why),
                _ => return Err(PodError::Io),
            }
        }
        let stamp = |n: u64| Stamp {
            origin: Arc::clone(&write.origin),
            file: Arc::clone(&write.file),
            block: write.first + n,
            sequence: write.sequence + n,
        };
        Ok(Written {
            stamps: (0..count).map(stamp).collect(),
            synced: write.sync && stopped.is_none(),
            stopped: stopped.map(pod_error),
        })
    }

    fn pod_read(&self, uid: &str, path: &str) -> Result<ReadBack, PodError> {
        let ask = Ask::Read {
            uid: uid.to_owned(),
            path: self.names.outside(path),
        };
        match self.ask(&ask).ok_or(PodError::Down)? {
            Answer::Blocks(mounted, blocks) => Ok(ReadBack {
                on: mounted.map_or(Backing::NodeDisk, Backing::Mounted),
                found: blocks.iter().flat_map(|row| self.found(row)).collect(),
            }),
            Answer::Refused(why, _) => Err(pod_error(why)),
            _ => Err(PodError::Io),
        }
    }

    fn pod_sync(&self, uid: &str, path: &str) -> Result<(), PodError> {
        let ask = Ask::Sync {
            uid: uid.to_owned(),
            path: self.names.outside(path),
        };
        match self.ask(&ask).ok_or(PodError::Down)? {
            Answer::Refused(why, _) => Err(pod_error(why)),
            _ => Ok(()),
        }
    }

    fn room(&self, path: &str) -> Option<u64> {
        match self.ask(&Ask::Room(self.names.outside(path)))? {
            Answer::Room(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn inventory(&self) -> Inventory {
        let pods = match self.ask(&Ask::RunningPods) {
            Some(Answer::Names(names)) => names,
            _ => Vec::new(),
        };
        let (mut mounts, mut devices) = (Vec::new(), Vec::new());
        for (target, source) in self.mounts() {
            let Ok(path) = HostPath::parse(&target) else { continue };
            // Which volume is behind a mount, only kubelet's record tells.
            let source = match self.recorded(&target) {
                Some(handle) => {
                    let device = DevicePath::new(format!("{source} of {handle}"));
                    let driver = Arc::from(self.names.inside.as_str());
                    devices.push((device.clone(), driver, VolumeId::new(handle)));
                    MountSource::FileSystem(device)
                }
                None => MountSource::Other(source),
            };
            mounts.push(MountEntry {
                source,
                root: "/".to_owned(),
                target: path,
                fs: String::new(),
                flags: Vec::new(),
                access: Access::ReadWrite,
            });
        }
        Inventory { mounts, devices, pods }
    }

    fn paths_below(&self, path: &str) -> Vec<(String, PathKind)> {
        match self.ask(&Ask::PathsBelow(self.names.outside(path))) {
            Some(Answer::Paths(paths)) => paths
                .into_iter()
                .map(|(path, found)| (self.names.inside(&path), kind(found)))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn crash(&self) {
        self.run.crash(&self.node);
    }

    fn boot(&self) {
        self.run.boot(&self.node);
    }

    fn write_out(&self) {
        self.ask(&Ask::WriteOut);
    }

    fn pause(&self, still: bool) {
        self.run.pause(&self.node, still);
    }

    fn fail_devices(&self, failing: bool) {
        self.run.fail_devices(&self.node, failing);
    }
}
