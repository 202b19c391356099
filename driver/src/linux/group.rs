//! The group of a mounted file system: every file and directory in it, the root last.
//!
//! Pods may be at work in it meanwhile, so nothing is ever reached by its path: each entry is opened in its directory, as
//! itself, and only then changed. What they mount inside it is left alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::Gid;

use super::{errors, fs as file_systems, paths};
use crate::host::{HostError, HostErrorKind, HostResult};
use crate::units::HostPath;

/// What the group may do with a file, and with a directory, in which it is handed on.
const FILE: u32 = 0o660;
const DIRECTORY: u32 = 0o2770;

/// Gives the file system that is mounted at a path to a group.
pub(super) fn give(path: &HostPath, group: u32) -> HostResult<()> {
    match file_systems::visible_at(path)? {
        Some(entry) if entry.access.is_read_only() => {
            let text = format!("{path} is mounted read-only");
            return Err(HostError::new(HostErrorKind::ReadOnly, text));
        }
        Some(_) => {}
        None => {
            let text = format!("nothing is mounted at {path}");
            return Err(HostError::new(HostErrorKind::NotMounted, text));
        }
    }
    let given = paths::open(path, OFlags::PATH | OFlags::DIRECTORY).and_then(|root| {
        let found = rustix::fs::fstat(&root)?;
        if found.st_gid == group && found.st_mode & DIRECTORY == DIRECTORY {
            return Ok(());
        }
        give_below(&root, found.st_dev, group)?;
        change(&root, &found, group)
    });
    given.map_err(|error| errors::host(&format!("changing what is in {path}"), error))
}

/// Everything below a directory. As many directories are open as the tree is deep.
fn give_below(root: &OwnedFd, device: u64, group: u32) -> rustix::io::Result<()> {
    let mut open = vec![entries(root)?];
    while let Some(directory) = open.last_mut() {
        let Some(entry) = directory.read() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(directory.fd()?, entry.file_name(), flags, Mode::empty()) {
            // A pod took it away meanwhile.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let found = rustix::fs::fstat(&fd)?;
        if found.st_dev != device {
            continue;
        }
        change(&fd, &found, group)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            open.push(entries(&fd)?);
        }
    }
    Ok(())
}

fn entries(directory: &OwnedFd) -> rustix::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Dir::new(rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

/// Changing the owner takes the set-id bits of programs away, so the mode comes second.
fn change(fd: &OwnedFd, found: &Stat, group: u32) -> rustix::io::Result<()> {
    let empty = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(fd.as_fd(), "", None, Some(Gid::from_raw(group)), empty)?;
    let more = match FileType::from_raw_mode(found.st_mode) {
        FileType::Symlink => return Ok(()),
        FileType::Directory => DIRECTORY,
        _ => FILE,
    };
    set_mode(fd.as_fd(), Mode::from_raw_mode(found.st_mode & 0o7777 | more))
}

/// A handle that only names a file takes no mode itself; its entry in `/proc` does.
fn set_mode(fd: BorrowedFd<'_>, mode: Mode) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)
}
