//! The bytes of images: copies that share blocks where the file system can, cuts of mounted volumes, and where bytes
//! are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::store::{beside, is_mount_of};
use super::{fs as file_systems, ioctl, layer, loops, paths};
use crate::pool::Extent;
use crate::units::Bytes;

/// The grain in which differences are told.
const GRAIN: u64 = 4096;
/// How much of two images is compared at once.
const CHUNK: usize = 256 << 10;

/// Makes an image of `size`, all zeroes.
pub(super) fn make(path: &Path, size: Bytes, allocated: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.set_len(size.0)?;
    if allocated {
        allocate(&file, size)?;
    }
    Ok(file)
}

/// Takes all the room of an image at once.
pub(super) fn allocate(file: &File, size: Bytes) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size.0)?)
}

/// Makes everything in a file zeroes again, and gives back its room.
pub(super) fn clear(file: &File, size: Bytes) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, 0, size.0)?;
    file.sync_all()
}

/// Fills a new image with the bytes of another. Blocks are shared if the file system can, else copied; holes stay.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => return Ok(()),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let len = from.metadata()?.len();
    let mut at = 0;
    while let Some((start, end)) = data(from, at, len)? {
        copy_range(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

/// Fills a new image with the bytes of the image at a path. One in which a file system is still being made, or in which
/// that was cut off, holds nothing of anybody's: its copy is blank.
pub(super) fn copy_at(from: &Path, to: &File) -> io::Result<()> {
    let source = File::open(from)?;
    if beside(from, "formatting").exists() {
        return Ok(());
    }
    copy(&source, to)
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut write) = (start, start);
    while read < end {
        let wanted = usize::try_from(end - read).unwrap_or(usize::MAX);
        if rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), wanted)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Can the directory's file system share blocks between files?
pub(super) fn can_share(from: &Path, beside: &Path) -> io::Result<bool> {
    let (from, probe) = (File::open(from)?, File::create(beside)?);
    let shared = rustix::fs::ioctl_ficlone(&probe, &from);
    std::fs::remove_file(beside)?;
    Ok(shared.is_ok())
}

/// The first range from `at` on that holds data.
fn data(file: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(len);
    Ok((start < end).then_some((start, end)))
}

/// File systems that are held up, until dropped.
#[derive(Default)]
pub(super) struct Frozen(Vec<OwnedFd>);

impl Frozen {
    /// Holds up the file system in an image, if one is mounted from it; its bytes are all in the image then. `None` if
    /// the image is a device that somebody may write to and that cannot be held up.
    pub(super) fn add(&mut self, image: &Path) -> io::Result<Option<()>> {
        let Some(found) = loops::find(image)? else {
            return Ok(Some(()));
        };
        let (device, access) = match layer::above(&found.device)? {
            Some(layer) => (layer.device, layer.access),
            None => (found.device, found.access),
        };
        let table = file_systems::table().map_err(io::Error::other)?;
        if let Some(entry) = table.iter().find(|entry| is_mount_of(entry, &device)) {
            let directory = paths::open(&entry.target, OFlags::RDONLY | OFlags::DIRECTORY)?;
            match ioctl::freeze(&directory) {
                Ok(()) => self.0.push(directory),
                // A file system that takes no writes cannot be frozen, and need not be.
                Err(_) if entry.access.is_read_only() => {}
                Err(error) => return Err(error.into()),
            }
            return Ok(Some(()));
        }
        File::open(device.as_str())?.sync_all()?;
        Ok(access.is_read_only().then_some(()))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for directory in &self.0 {
            // Nothing else can be done; the next start thaws as well.
            let _ = ioctl::thaw(directory);
        }
    }
}

/// At most `limit` extents of `target` from `offset` on: those that `base` holds differently, or, without a base, those
/// that hold anything.
pub(super) fn extents(base: Option<&Path>, target: &Path, offset: Bytes, limit: usize) -> io::Result<Vec<Extent>> {
    let target = File::open(target)?;
    let len = target.metadata()?.len();
    let base = base.map(File::open).transpose()?;
    let mut found = Found {
        extents: Vec::new(),
        limit,
    };
    let mut at = offset.0;
    loop {
        let mut next = data(&target, at, len)?;
        if let Some(base) = &base {
            let there = data(base, at, base.metadata()?.len().min(len))?;
            next = next.into_iter().chain(there).min();
        }
        let Some((start, end)) = next else { break };
        let is_full = match &base {
            None => found.add(start, end),
            Some(base) => differences(base, &target, (start, end), &mut found)?,
        };
        if is_full {
            break;
        }
        at = end;
    }
    Ok(found.extents)
}

struct Found {
    extents: Vec<Extent>,
    limit: usize,
}

impl Found {
    /// Adds a range, grown to whole grains; `true` if there is no more room.
    fn add(&mut self, start: u64, end: u64) -> bool {
        let is_full = self.extents.len() == self.limit;
        match self.extents.last_mut() {
            Some(last) if last.offset.0 + last.len.0 == start => last.len.0 += end - start,
            _ if is_full => return true,
            _ => self.extents.push(Extent {
                offset: Bytes(start),
                len: Bytes(end - start),
            }),
        }
        false
    }
}

fn differences(base: &File, target: &File, (start, end): (u64, u64), found: &mut Found) -> io::Result<bool> {
    let (mut old, mut new) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        read_or_zero(base, &mut old[..len], at)?;
        read_or_zero(target, &mut new[..len], at)?;
        let mut here = at;
        for (old, new) in old[..len].chunks(GRAIN as usize).zip(new[..len].chunks(GRAIN as usize)) {
            let next = here + new.len() as u64;
            if old != new && found.add(here, next) {
                return Ok(true);
            }
            here = next;
        }
        at += len as u64;
    }
    Ok(false)
}

/// Beyond the end of a file there are zeroes.
fn read_or_zero(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    buffer.fill(0);
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{copy, extents, make};
    use crate::units::Bytes;

    fn blocks(found: &[crate::pool::Extent]) -> Vec<(u64, u64)> {
        found
            .iter()
            .map(|extent| (extent.offset.0 / 4096, extent.len.0 / 4096))
            .collect()
    }

    #[test]
    fn copies_hold_the_same_bytes_and_differences_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        let first = make(&old, Bytes::mi(64), false).unwrap();
        for block in [3, 4, 9000] {
            first.write_all_at(&[7; 4096], block * 4096).unwrap();
        }
        let second = make(&new, Bytes(0), false).unwrap();
        copy(&first, &second).unwrap();
        assert_eq!(blocks(&extents(Some(&old), &new, Bytes(0), 10).unwrap()), []);
        second.set_len(Bytes::mi(128).0).unwrap();
        for block in [4, 5, 20000] {
            second.write_all_at(&[8; 4096], block * 4096).unwrap();
        }
        assert_eq!(blocks(&extents(None, &old, Bytes(0), 10).unwrap()), [(3, 2), (9000, 1)]);
        let differing = extents(Some(&old), &new, Bytes(0), 10).unwrap();
        assert_eq!(blocks(&differing), [(4, 2), (20000, 1)]);
        assert_eq!(blocks(&extents(Some(&old), &new, Bytes(0), 1).unwrap()), [(4, 2)]);
        assert_eq!(
            blocks(&extents(Some(&old), &new, Bytes(6 * 4096), 9).unwrap()),
            [(20000, 1)]
        );
    }
}
