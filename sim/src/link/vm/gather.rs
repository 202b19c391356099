//! The programs of the machines: this machine's own, each with the libraries that it is linked to.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::VmError;
use super::cpio::Archive;

/// Where tools are looked for, here and there.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Tools without which no file system can be made or grown.
const NEEDED: &[&str] = &["mkfs.ext4", "e2fsck", "resize2fs"];
/// Tools that drivers know to use, taken where this machine has them.
const WELCOME: &[&str] = &[
    "mkfs.xfs",
    "xfs_growfs",
    "xfs_repair",
    "mkfs.btrfs",
    "btrfs",
    "mkfs.ext3",
    "tune2fs",
    "blkid",
    "fsck",
    "fsck.ext4",
    "mount",
    "umount",
    "losetup",
    "lsblk",
    "findmnt",
    "blockdev",
    "wipefs",
    "dmsetup",
    "sh",
    "cat",
    "ls",
    "mkdir",
    "rm",
    "stat",
    "sync",
];

/// A program of this machine.
pub fn find(tool: &str) -> Option<PathBuf> {
    let mut places = PATH.split(':').map(|directory| Path::new(directory).join(tool));
    places.find(|path| path.is_file())
}

/// The tools of this machine, and the names of those that it lacks.
pub(super) fn tools() -> Result<(Vec<PathBuf>, Vec<&'static str>), VmError> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for tool in NEEDED {
        found.push(find(tool).ok_or(VmError::NoTool(tool))?);
    }
    for tool in WELCOME {
        match find(tool) {
            Some(path) => found.push(path),
            None => missing.push(*tool),
        }
    }
    Ok((found, missing))
}

/// What a file is that a guest was made of: if it changes, so does this.
pub(super) fn mark(path: &Path) -> Result<String, VmError> {
    let found = fs::metadata(path).map_err(|source| VmError::file("looking at", path, source))?;
    Ok(format!(
        "{} {} {}.{:09}",
        path.display(),
        found.len(),
        found.mtime(),
        found.mtime_nsec()
    ))
}

/// Puts a program at the same path, or at `place`, with everything that it is linked to. Symbols for debuggers stay at home.
pub(super) fn program<W: Write>(
    archive: &mut Archive<W>,
    file: &Path,
    place: &Path,
    scratch: &Path,
) -> Result<(), VmError> {
    let place = settled(place).display().to_string();
    if archive.has(&place) {
        return Ok(());
    }
    put(archive, &place, &lean(file, scratch)?)?;
    for library in libraries(file) {
        let place = settled(&library).display().to_string();
        if !archive.has(&place) {
            let bytes = read(&library)?;
            put(archive, &place, &bytes)?;
        }
    }
    Ok(())
}

/// A file as it is.
pub(super) fn file<W: Write>(archive: &mut Archive<W>, file: &Path) -> Result<(), VmError> {
    let bytes = read(file)?;
    put(archive, &settled(file).display().to_string(), &bytes)
}

fn put<W: Write>(archive: &mut Archive<W>, place: &str, bytes: &[u8]) -> Result<(), VmError> {
    let written = archive.file(place, 0o755, bytes);
    written.map_err(|source| VmError::file("packing", Path::new(place), source))
}

fn read(file: &Path) -> Result<Vec<u8>, VmError> {
    fs::read(file).map_err(|source| VmError::file("reading", file, source))
}

/// The path with the directories that links lead to: `/lib/…` is `/usr/lib/…` on most machines.
fn settled(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// The program without its symbols, if this machine can take them off.
fn lean(file: &Path, scratch: &Path) -> Result<Vec<u8>, VmError> {
    let draft = scratch.join("lean");
    let stripped = Command::new("strip").arg("-o").arg(&draft).arg(file).output();
    let bytes = match stripped {
        Ok(output) if output.status.success() => fs::read(&draft).ok(),
        _ => None,
    };
    let _ = fs::remove_file(&draft);
    bytes.map_or_else(|| read(file), Ok)
}

/// What a program is linked to; nothing for one that stands alone.
fn libraries(file: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(file).env("LC_ALL", "C").output();
    let said = output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let path = |line: &str| {
        let line = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = line.split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    said.lines().filter_map(path).filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Archive, libraries, program};
    use std::path::Path;

    #[test]
    fn a_program_brings_its_libraries() {
        let shell = Path::new("/bin/sh");
        let needed = libraries(shell);
        assert!(
            needed.iter().any(|path| path.to_string_lossy().contains("libc.")),
            "{needed:?}"
        );
        let scratch = tempfile::tempdir().unwrap();
        let mut archive = Archive::new(Vec::new());
        program(&mut archive, shell, shell, scratch.path()).unwrap();
        let bytes = archive.finish().unwrap();
        assert!(bytes.windows(5).any(|window| window == b"libc."));
    }
}
