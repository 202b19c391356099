//! Paths of the machine, never through a symbolic link: every path is opened with `RESOLVE_NO_SYMLINKS`.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::errors;
use crate::host::{HostError, HostErrorKind, HostResult, PathKind};
use crate::units::HostPath;

/// What a new directory allows: everything to its owner, looking to the group.
const DIRECTORY: Mode = Mode::from_raw_mode(0o750);
const FILE: Mode = Mode::from_raw_mode(0o660);

/// A handle that names what is at a path and cannot be led astray later.
pub(super) fn open(path: &HostPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(CWD, path.as_str(), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// The path by which system calls that take only paths find what a handle names.
pub(super) fn through(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

pub(crate) fn kind(path: &HostPath) -> HostResult<Option<PathKind>> {
    let fd = match open(path, OFlags::PATH) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(errors::host("looking at the path", error)),
    };
    let found = rustix::fs::fstat(&fd).map_err(|error| errors::host("looking at the path", error))?;
    Ok(Some(match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => PathKind::Directory,
        FileType::RegularFile => PathKind::File,
        FileType::Symlink => PathKind::Symlink,
        FileType::BlockDevice => PathKind::BlockDevice,
        _ => PathKind::Other,
    }))
}

/// The directory that holds a path, open, and the name of the path in it.
fn parent(path: &HostPath) -> HostResult<(OwnedFd, &str)> {
    let parent = path
        .parent()
        .ok_or_else(|| HostError::new(HostErrorKind::Invalid, "the root has no parent"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let fd = open(&parent, flags).map_err(|error| errors::host("opening the directory above", error))?;
    Ok((fd, path.name()))
}

pub(crate) fn create_dir(path: &HostPath) -> HostResult<()> {
    let (above, name) = parent(path)?;
    rustix::fs::mkdirat(&above, name, DIRECTORY).map_err(|error| errors::host("making the directory", error))
}

pub(crate) fn remove_dir(path: &HostPath) -> HostResult<()> {
    let (above, name) = parent(path)?;
    rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR)
        .map_err(|error| errors::host("removing the directory", error))
}

pub(crate) fn create_file(path: &HostPath) -> HostResult<()> {
    let (above, name) = parent(path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&above, name, flags, FILE)
        .map(drop)
        .map_err(|error| errors::host("making the file", error))
}

pub(crate) fn remove_file(path: &HostPath) -> HostResult<()> {
    let (above, name) = parent(path)?;
    let on = rustix::fs::fstatvfs(&above).map_err(|error| errors::host("looking at the file system", error))?;
    if on.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(HostError::new(
            HostErrorKind::ReadOnly,
            "the file system takes no writes",
        ));
    }
    let found = rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| errors::host("looking at the file", error))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile if found.st_size == 0 => {}
        FileType::RegularFile => {
            return Err(HostError::new(
                HostErrorKind::NotEmpty,
                "the file holds bytes, and bytes are never deleted",
            ));
        }
        FileType::BlockDevice => return Err(HostError::new(HostErrorKind::Busy, "a device is bound over the file")),
        _ => return Err(HostError::new(HostErrorKind::Invalid, "not a regular file")),
    }
    rustix::fs::unlinkat(&above, name, AtFlags::empty()).map_err(|error| errors::host("removing the file", error))
}
