//! Files, directories and mounts of the machine, as kubelet touches them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use wavetank_driver::linux::look;

use crate::wire::{Answer, Kind, Why};

/// Done, or why not.
pub fn done(outcome: io::Result<()>) -> Answer {
    answered(outcome.map(|()| Answer::Done))
}

/// The answer, or why there is none.
pub fn answered(outcome: io::Result<Answer>) -> Answer {
    outcome.unwrap_or_else(|error| Answer::Refused(why(&error), error.to_string()))
}

/// The class of an error.
pub fn why(error: &io::Error) -> Why {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Why::Missing,
        ErrorKind::DirectoryNotEmpty | ErrorKind::ResourceBusy => Why::Busy,
        ErrorKind::AlreadyExists => Why::Exists,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Why::NoSpace,
        ErrorKind::ReadOnlyFilesystem => Why::ReadOnly,
        _ => Why::Io,
    }
}

fn missing_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub fn remove_file(path: &str) -> io::Result<()> {
    missing_is_fine(fs::remove_file(path))
}

/// Is something mounted on exactly this path?
pub fn is_mount_root(path: &Path, follow: bool) -> io::Result<bool> {
    let flags = if follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    let found = rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Removes what it can, and reports the first mount point that stopped it.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) => return missing_is_fine(Err(error)),
    };
    if is_mount_root(path, false)? {
        return Err(ErrorKind::ResourceBusy.into());
    }
    if !kind.is_dir() {
        return fs::remove_file(path);
    }
    let mut blocked = Ok(());
    for entry in fs::read_dir(path)? {
        blocked = blocked.and(remove_all(&entry?.path()));
    }
    blocked?;
    fs::remove_dir(path)
}

pub fn kind(path: &Path) -> io::Result<Kind> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if why(&error) == Why::Missing => return Ok(Kind::Missing),
        Err(error) => return Err(error),
    };
    Ok(if found.is_block_device() {
        Kind::Device
    } else if is_mount_root(path, false)? {
        Kind::MountPoint
    } else if found.is_dir() {
        Kind::Directory
    } else if found.is_symlink() {
        Kind::Link
    } else {
        Kind::File
    })
}

/// The names in a directory, in order.
pub fn names(path: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Everything below a directory, in order of path; nothing if it is not there.
pub fn below(path: &str, found: &mut Vec<(String, Kind)>) {
    for name in names(path).unwrap_or_default() {
        let path = format!("{}/{name}", path.trim_end_matches('/'));
        let Ok(kind) = kind(Path::new(&path)) else { continue };
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        found.push((path.clone(), kind));
        if is_directory {
            below(&path, found);
        }
    }
}

/// The mount table below a directory: where, and what is seen there.
pub fn mounts(directory: &str) -> io::Result<Vec<(String, String)>> {
    let table = look::mounts().map_err(|error| io::Error::other(error.to_string()))?;
    let below = table
        .into_iter()
        .filter(|entry| Path::new(entry.target.as_str()).starts_with(directory));
    Ok(below.map(|entry| (entry.target.to_string(), entry.shown())).collect())
}

/// A link that is there already and points there is fine.
pub fn link(to: &str, at: &str) -> io::Result<()> {
    match std::os::unix::fs::symlink(to, at) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match fs::read_link(at) {
            Ok(there) if there == Path::new(to) => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

/// How many bytes a file system offers to files in all.
pub fn room(path: &str) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// The loop devices that show files below a directory.
pub fn loops(directory: &str) -> io::Result<Vec<(String, String)>> {
    let found = look::loops_below(Path::new(directory))?;
    Ok(found
        .into_iter()
        .map(|(device, file)| (device.to_string(), file.display().to_string()))
        .collect())
}
