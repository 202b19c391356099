//! A node's machine for unit tests of kubelet: directories, files, links, mounts and running containers, all in memory, and what a driver does to them.

use std::collections::{BTreeMap, BTreeSet};

use crate::link::{CsiRequest, MachineAnswer, MachineError, MachineOp, PathKind};

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct TestNode {
    /// Directories.
    pub dirs: BTreeSet<String>,
    /// Files and their contents.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Links and where they point.
    pub links: BTreeMap<String, String>,
    /// Mounts: target to source.
    pub mounts: BTreeMap<String, String>,
    /// Pods whose containers run.
    pub running: BTreeSet<String>,
    /// The driver leaves a file where it unpublished.
    pub litters: bool,
}

type Answer = Result<MachineAnswer, MachineError>;

impl TestNode {
    /// Whether anything is at or below a path.
    pub fn has(&self, path: &str) -> bool {
        self.all().any(|p| p == path) || self.children(path).next().is_some()
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.dirs.iter().chain(self.files.keys()).chain(self.links.keys())
    }

    fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let below = move |p: &'a String| p.strip_prefix(path)?.strip_prefix('/');
        self.all().filter_map(below)
    }

    /// Performs an operation of kubelet.
    pub fn perform(&mut self, op: &MachineOp) -> Answer {
        match op {
            MachineOp::MakeDirs(path) => {
                let ends = path
                    .char_indices()
                    .filter(|(at, c)| *c == '/' && *at > 0)
                    .map(|(at, _)| at);
                let parents: Vec<String> = ends.map(|at| path[..at].to_owned()).collect();
                self.dirs.extend(parents);
                self.dirs.insert(path.clone());
                done()
            }
            MachineOp::RemoveDir(path) => self.remove_dir(path),
            MachineOp::RemoveFile(path) => {
                self.files.remove(path);
                self.links.remove(path);
                done()
            }
            MachineOp::RemoveAll(path) => {
                let below = format!("{path}/");
                let inside = |p: &String| p == path || p.starts_with(&below);
                self.dirs.retain(|p| !inside(p));
                self.files.retain(|p, _| !inside(p));
                done()
            }
            MachineOp::WriteFile(path, bytes) => {
                self.files.insert(path.clone(), bytes.clone());
                done()
            }
            MachineOp::ReadFile(path) => {
                let bytes = self.files.get(path).ok_or_else(|| missing(path))?;
                Ok(MachineAnswer::Bytes(bytes.clone()))
            }
            MachineOp::Stat(path) => Ok(MachineAnswer::Path(self.kind(path))),
            MachineOp::ListDir(path) => {
                if !self.dirs.contains(path) {
                    return Err(missing(path));
                }
                let names = self.children(path).map(|rest| rest.split('/').next().unwrap_or(rest));
                let names: BTreeSet<&str> = names.collect();
                Ok(MachineAnswer::Names(names.into_iter().map(str::to_owned).collect()))
            }
            MachineOp::Mounts => Ok(MachineAnswer::Mounts(self.mounts.clone())),
            MachineOp::Link { to, at } => {
                self.links.insert(at.clone(), to.clone());
                done()
            }
            MachineOp::StartPod(uid) => {
                self.running.insert(uid.clone());
                done()
            }
            MachineOp::StopPod { uid, .. } => {
                self.running.remove(uid);
                done()
            }
            MachineOp::RunningPods => Ok(MachineAnswer::Names(self.running.iter().cloned().collect())),
        }
    }

    fn remove_dir(&mut self, path: &str) -> Answer {
        if self.mounts.contains_key(path) || self.children(path).next().is_some() {
            return Err(MachineError::Busy(path.to_owned()));
        }
        if self.dirs.remove(path) {
            done()
        } else {
            Err(missing(path))
        }
    }

    fn kind(&self, path: &str) -> PathKind {
        if self.mounts.contains_key(path) {
            PathKind::MountPoint
        } else if self.dirs.contains(path) {
            PathKind::Directory
        } else if self.files.contains_key(path) {
            PathKind::File
        } else if self.links.contains_key(path) {
            PathKind::Link
        } else {
            PathKind::Missing
        }
    }

    /// What the driver does for a request.
    pub fn drive(&mut self, request: &CsiRequest) {
        match request {
            CsiRequest::NodeStageVolume(r) => self.mount(&r.staging_target_path, &r.volume_id),
            CsiRequest::NodePublishVolume(r) => self.mount(&r.target_path, &r.volume_id),
            CsiRequest::NodeUnpublishVolume(r) => {
                self.mounts.remove(&r.target_path);
                if self.litters {
                    self.dirs.insert(r.target_path.clone());
                    self.files.insert(format!("{}/litter", r.target_path), Vec::new());
                } else {
                    let inside = format!("{}/", r.target_path);
                    self.dirs.remove(&r.target_path);
                    self.files
                        .retain(|path, _| *path != r.target_path && !path.starts_with(&inside));
                }
            }
            CsiRequest::NodeUnstageVolume(r) => {
                self.mounts.remove(&r.staging_target_path);
            }
            _ => {}
        }
    }

    fn mount(&mut self, path: &str, volume: &str) {
        self.dirs.insert(path.to_owned());
        self.mounts.insert(path.to_owned(), volume.to_owned());
    }

    /// The power goes: mounts and containers are gone, directories and files stay.
    pub fn lose_power(&mut self) {
        self.mounts.clear();
        self.running.clear();
    }
}

fn done() -> Answer {
    Ok(MachineAnswer::Done)
}

fn missing(path: &str) -> MachineError {
    MachineError::Missing(path.to_owned())
}
