//! Volumes as whole disks that a storage array plugs into machines: the array's side runs a command of the administrator, the machine's side finds the disk
//! by its serial number.
//!
//! ```text
//! COMMAND plug NODE SERIAL IMAGE rw|ro     the disk is there when the command ends; there already: nothing to do
//! COMMAND unplug NODE SERIAL               it is gone when the command ends; not there: nothing to do
//! COMMAND resize NODE SERIAL BYTES         the machine knows its new size
//! ```
//!
//! Blind spot: a machine that crashes while it makes a file system leaves half of one, which another machine takes for somebody's data.

use std::fs;
use std::path::{Path, PathBuf};

use super::{errors, fs as file_systems, loops, tools};
use crate::host::{HostError, HostErrorKind, HostResult};
use crate::pool::{PoolError, PoolErrorKind, PoolResult};
use crate::units::{Access, Bytes, DevicePath, NodeId, VolumeId};

/// How volumes reach machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Their own machine only, behind loop devices.
    #[default]
    Own,
    /// Every machine: this is the array, and this its command.
    Array(Vec<String>),
    /// This machine, as disks that the array has plugged in.
    Plugged,
}

/// How often a machine looks for a disk that was just plugged in, and how long it waits in between.
const LOOKS: usize = 200;
const PAUSE: rustix::thread::Timespec = rustix::thread::Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// A volume's serial number, which has room for 20 bytes.
pub fn serial(volume: &VolumeId) -> String {
    blake3::hash(volume.as_str().as_bytes()).to_hex()[..20].to_owned()
}

/// The disk of a volume, if this machine has it; or had it, and it was taken away while it was mounted: then its mounts are all that is left of it.
pub(super) fn find(volume: &VolumeId, state: &Path) -> HostResult<Option<loops::Loop>> {
    if let Some(found) = plugged(volume) {
        return Ok(Some(found));
    }
    let Ok(last) = fs::read_to_string(record(volume, state)) else {
        return Ok(None);
    };
    let device = DevicePath::new(last);
    let is_there = Path::new("/sys/block")
        .join(device.as_str().trim_start_matches("/dev/"))
        .exists();
    let mut table = file_systems::table()?.into_iter();
    let is_shown = !is_there && table.any(|entry| entry.source.device() == Some(&device));
    let access = Access::ReadWrite;
    Ok(is_shown.then_some(loops::Loop { device, access }))
}

/// Where this machine writes down as which disk it last had a volume.
fn record(volume: &VolumeId, state: &Path) -> PathBuf {
    state.join("disks").join(serial(volume))
}

fn plugged(volume: &VolumeId) -> Option<loops::Loop> {
    let serial = serial(volume);
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    let mut names: Vec<PathBuf> = disks.map(|entry| entry.path()).collect();
    names.sort();
    let mine = |path: &PathBuf| fs::read_to_string(path.join("serial")).is_ok_and(|text| text.trim() == serial);
    let name = names.into_iter().find(mine)?;
    let device = DevicePath::new(format!("/dev/{}", name.file_name()?.to_str()?));
    let access = Access::from_readonly(loops::is_read_only(&device));
    Some(loops::Loop { device, access })
}

/// The disk of a volume, which may be on its way.
pub(super) fn attach(volume: &VolumeId, access: Access, state: &Path) -> HostResult<DevicePath> {
    for _ in 0..LOOKS {
        match plugged(volume) {
            Some(found) if found.access.is_read_only() && !access.is_read_only() => {
                let text = format!("the disk of volume {volume} takes no writes");
                return Err(HostError::new(HostErrorKind::ReadOnly, text));
            }
            Some(found) if Path::new(found.device.as_str()).exists() => {
                let record = record(volume, state);
                let written =
                    fs::create_dir_all(state.join("disks")).and_then(|()| fs::write(&record, found.device.as_str()));
                written.map_err(|error| errors::host("writing down the disk", error))?;
                return Ok(found.device);
            }
            _ => {
                // It returns early only when a signal comes.
                let _ = rustix::thread::nanosleep(&PAUSE);
            }
        }
    }
    let text = format!("no disk of this machine is volume {volume}");
    Err(HostError::new(HostErrorKind::NotFound, text))
}

/// Has the array's command do something.
pub(super) fn command(words: &[String], verb: &str, node: &NodeId, volume: &VolumeId, more: &[&str]) -> PoolResult<()> {
    let Some((program, first)) = words.split_first() else {
        return Ok(());
    };
    let serial = serial(volume);
    let mut arguments: Vec<&str> = first.iter().map(String::as_str).collect();
    arguments.extend([verb, node.as_str(), &serial]);
    arguments.extend(more);
    let failed = |text: String| PoolError::new(PoolErrorKind::Unavailable, text);
    let ended = tools::run(program, &arguments).map_err(|error| failed(error.text))?;
    match ended.status {
        Some(0) => Ok(()),
        _ => Err(failed(format!(
            "the array cannot {verb} at node {node}: {}",
            ended.said
        ))),
    }
}

/// Tells a machine the new size of a disk.
pub(super) fn resize(words: &[String], node: &NodeId, volume: &VolumeId, size: Bytes) -> PoolResult<()> {
    command(words, "resize", node, volume, &[&size.0.to_string()])
}
