//! What others may see of this machine, and clear away when one of its nodes has lost its power: the agent of a node uses it.

use std::io;
use std::path::{Path, PathBuf};

use super::{errors, fs as file_systems, loops};
use crate::host::{HostResult, MountEntry};
use crate::units::DevicePath;

/// The mount table of the caller's mount namespace, oldest first.
///
/// # Errors
/// If the kernel does not tell.
pub fn mounts() -> HostResult<Vec<MountEntry>> {
    file_systems::table()
}

/// The loop devices that show a file below `directory`, with the file, in order of device.
///
/// # Errors
/// If the kernel does not tell.
pub fn loops_below(directory: &Path) -> io::Result<Vec<(DevicePath, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else {
            continue;
        };
        let Ok(backing) = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")) else {
            continue;
        };
        let file = PathBuf::from(backing.trim_end_matches('\n'));
        if file.starts_with(directory) {
            found.push((DevicePath::new(format!("/dev/{name}")), file));
        }
    }
    found.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
    Ok(found)
}

/// Lets go of the loop device that shows `file`, if there is one.
///
/// # Errors
/// If somebody has it open.
pub fn let_go(file: &Path) -> HostResult<()> {
    match loops::find(file).map_err(|error| errors::host("looking for the loop device", error))? {
        Some(found) => loops::let_go(&found.device).and_then(|()| loops::see_off(file, &found.device)),
        None => Ok(()),
    }
}

/// Lets go of every loop device that shows a file below `directory`, and waits a while until they are gone. One that is still open then, because its last
/// mount ends slowly, goes with that: unlike with [`let_go`], the kernel has been told for good.
///
/// # Errors
/// If the kernel does not tell which there are, or refuses.
pub fn abandon(directory: &Path) -> io::Result<()> {
    let found = loops_below(directory)?;
    let mut refused = Ok(());
    for (device, _) in &found {
        let done = loops::let_go(device).map_err(|error| io::Error::other(error.to_string()));
        refused = refused.and(done);
    }
    for (device, file) in &found {
        loops::ends(file, device);
    }
    refused
}
