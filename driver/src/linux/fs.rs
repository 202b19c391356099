//! File systems on devices: making, checking, mounting, growing.

use std::fs::File;

use rustix::fs::{AtFlags, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::{errors, loops, mountinfo, paths, probe, tools};
use crate::host::{FsUsage, Fsck, HostError, HostErrorKind, HostResult, Mount, MountEntry, MountSource, NewFs, Probe};
use crate::units::{Access, Bytes, DevicePath, FsKind, HostPath};

fn refused<T>(kind: HostErrorKind, text: impl Into<String>) -> HostResult<T> {
    Err(HostError::new(kind, text))
}

/// What a device holds.
pub(super) fn probe(device: &DevicePath) -> HostResult<Probe> {
    let size = loops::size(device)?;
    let file = File::open(device.as_str()).map_err(|error| errors::host("opening the device", error))?;
    probe::probe(&file, size).map_err(|error| HostError::new(HostErrorKind::Io, format!("reading {device}: {error}")))
}

/// Makes a file system on a device, or on an image that nobody can see yet.
pub(super) fn make(on: &str, fs: &NewFs) -> HostResult<()> {
    let (label, uuid) = (fs.label.as_str(), fs.uuid.as_str());
    let uuid_option = format!("uuid={uuid}");
    let (tool, arguments): (&str, Vec<&str>) = match fs.kind {
        FsKind::Ext4 => (
            "mkfs.ext4",
            vec![
                "-q",
                "-F",
                "-m",
                "0",
                "-E",
                "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
                "-L",
                label,
                "-U",
                uuid,
            ],
        ),
        FsKind::Xfs => ("mkfs.xfs", vec!["-q", "-f", "-K", "-L", label, "-m", &uuid_option]),
        FsKind::Btrfs => ("mkfs.btrfs", vec!["-q", "-f", "-K", "-L", label, "-U", uuid]),
    };
    let arguments: Vec<&str> = arguments.into_iter().chain([on]).collect();
    tools::run(tool, &arguments)?.among(tool, &[0]).map(drop)
}

/// The check of XFS and of btrfs is their mounting: both replay their logs then, and refuse what needs a person.
pub(super) fn check(device: &DevicePath, kind: FsKind) -> HostResult<Fsck> {
    match probe(device)? {
        Probe::FileSystem { kind: found, .. } if found == kind => {}
        other => return refused(HostErrorKind::Invalid, format!("{device} holds {other:?}, not {kind}")),
    }
    if loops::is_read_only(device) {
        return check_only(device, kind);
    }
    drop(loops::open_alone(device)?);
    if kind != FsKind::Ext4 {
        return Ok(Fsck::Clean);
    }
    let status = tools::run("e2fsck", &["-p", device.as_str()])?.among("e2fsck", &[0, 1])?;
    Ok(if status == 0 { Fsck::Clean } else { Fsck::Repaired })
}

/// On a device that takes no writes nothing can be mended.
fn check_only(device: &DevicePath, kind: FsKind) -> HostResult<Fsck> {
    refuse_shown(device)?;
    if kind == FsKind::Ext4 {
        let status = tools::run("e2fsck", &["-n", device.as_str()])?.among("e2fsck", &[0, 4])?;
        if status != 0 {
            return refused(
                HostErrorKind::ReadOnly,
                format!("{device} takes no writes, and needs mending"),
            );
        }
    }
    Ok(Fsck::Clean)
}

/// Grows an ext4 file system that is not mounted. The others grow only while they are.
pub(super) fn grow_idle(device: &DevicePath, kind: FsKind) -> HostResult<bool> {
    if kind != FsKind::Ext4 {
        return Ok(false);
    }
    let device = device.as_str();
    tools::run("e2fsck", &["-f", "-p", device])?.among("e2fsck", &[0, 1])?;
    tools::run("resize2fs", &[device])?.among("resize2fs", &[0])?;
    Ok(true)
}

/// The mount table, with the number of each mount.
fn numbered() -> HostResult<Vec<(u64, MountEntry)>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo");
    let text = text.map_err(|error| errors::host("reading the mount table", error))?;
    let mut table = mountinfo::parse(&text);
    for (_, entry) in &mut table {
        // A device node can be written to on a read-only mount, and not on a read-write one: the device decides.
        if let MountSource::Device(device) = &entry.source {
            entry.access = Access::from_readonly(loops::is_read_only(device));
        }
    }
    Ok(table)
}

pub(super) fn table() -> HostResult<Vec<MountEntry>> {
    Ok(numbered()?.into_iter().map(|(_, entry)| entry).collect())
}

/// What is mounted at exactly this path and not hidden by a mount above it.
pub(super) fn visible_at(target: &HostPath) -> HostResult<Option<MountEntry>> {
    let Ok(fd) = paths::open(target, OFlags::PATH) else {
        return Ok(None);
    };
    let asked = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, asked);
    let found = found.map_err(|error| errors::host("looking at the mount point", error))?;
    if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(None);
    }
    let mut table = numbered()?.into_iter();
    let entry = table.find(|(number, _)| *number == found.stx_mnt_id);
    Ok(entry.map(|(_, entry)| entry))
}

/// Is a device mounted, or bound over a file?
pub(super) fn refuse_shown(device: &DevicePath) -> HostResult<()> {
    let shown = table()?.into_iter().find(|entry| entry.source.device() == Some(device));
    match shown {
        Some(entry) => refused(HostErrorKind::Busy, format!("{device} is mounted at {}", entry.target)),
        None => Ok(()),
    }
}

fn refuse_second(target: &HostPath) -> HostResult<()> {
    match visible_at(target)? {
        Some(entry) => refused(
            HostErrorKind::Busy,
            format!("{:?} is mounted at {target}", entry.source),
        ),
        None => Ok(()),
    }
}

/// Flags that the kernel takes as bits; everything else goes to the file system as text.
fn split(flags: &[String], access: Access) -> (MountFlags, String) {
    let mut bits = if access.is_read_only() {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    let mut rest = Vec::new();
    for flag in flags {
        match flag.as_str() {
            "noatime" => bits |= MountFlags::NOATIME,
            "nodiratime" => bits |= MountFlags::NODIRATIME,
            "relatime" => bits |= MountFlags::RELATIME,
            "strictatime" => bits |= MountFlags::STRICTATIME,
            "lazytime" => bits |= MountFlags::LAZYTIME,
            "nodev" => bits |= MountFlags::NODEV,
            "noexec" => bits |= MountFlags::NOEXEC,
            "nosuid" => bits |= MountFlags::NOSUID,
            "sync" => bits |= MountFlags::SYNCHRONOUS,
            "dirsync" => bits |= MountFlags::DIRSYNC,
            "ro" => bits |= MountFlags::RDONLY,
            "rw" | "defaults" => {}
            other => rest.push(other),
        }
    }
    (bits, rest.join(","))
}

pub(super) fn mount(mount: &Mount) -> HostResult<()> {
    refuse_second(&mount.target)?;
    let target = paths::open(&mount.target, OFlags::PATH | OFlags::DIRECTORY);
    let target = target.map_err(|error| errors::host("opening the mount point", error))?;
    let (bits, data) = split(&mount.flags, mount.access);
    let data = std::ffi::CString::new(data);
    let Ok(data) = data else {
        return refused(HostErrorKind::Invalid, "a mount flag holds a NUL");
    };
    let path = paths::through(&target);
    let mounted = rustix::mount::mount(
        mount.device.as_str(),
        path,
        mount.kind.as_str(),
        bits,
        Some(data.as_c_str()),
    );
    mounted.map_err(|error| match error {
        // The kernel cannot tell a bad flag from a bad superblock, the probe before can.
        Errno::INVAL => HostError::new(
            HostErrorKind::Invalid,
            format!("mounting {} with flags {:?}: {error}", mount.device, mount.flags),
        ),
        Errno::ACCESS => HostError::new(HostErrorKind::ReadOnly, format!("{} takes no writes", mount.device)),
        _ => errors::host(&format!("mounting {}", mount.device), error),
    })
}

pub(super) fn bind(source: &HostPath, target: &HostPath, access: Access) -> HostResult<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let source = paths::open(source, flags).map_err(|error| errors::host("opening the source", error))?;
    refuse_second(target)?;
    let over = paths::open(target, flags).map_err(|error| errors::host("opening the target", error))?;
    rustix::mount::mount_bind(paths::through(&source), paths::through(&over))
        .map_err(|error| errors::host("binding the directory", error))?;
    restrict(target, access)
}

/// A bind takes its source's flags; only a second step makes it read-only, and that one must name them again, or what the source forbids (programs,
/// device nodes, set-user-id) would be allowed at the target.
fn restrict(target: &HostPath, access: Access) -> HostResult<()> {
    if !access.is_read_only() {
        return Ok(());
    }
    let bound = visible_at(target)?;
    let kept = bound.map_or(MountFlags::empty(), |entry| split(&entry.flags, access).0);
    let bits = MountFlags::BIND | MountFlags::RDONLY | kept;
    let limited = rustix::mount::mount_remount(target.as_str(), bits, "");
    limited.map_err(|error| {
        let _ = rustix::mount::unmount(target.as_str(), UnmountFlags::NOFOLLOW);
        errors::host("making the bind read-only", error)
    })
}

pub(super) fn bind_device(device: &DevicePath, target: &HostPath, access: Access) -> HostResult<()> {
    refuse_second(target)?;
    if access.is_read_only() && !loops::is_read_only(device) {
        let text = format!("{device} takes writes, and Linux shows no device node read-only");
        return refused(HostErrorKind::Unsupported, text);
    }
    let over = paths::open(target, OFlags::PATH).map_err(|error| errors::host("opening the target", error))?;
    let found = rustix::fs::fstat(&over).map_err(|error| errors::host("looking at the target", error))?;
    if rustix::fs::FileType::from_raw_mode(found.st_mode) != rustix::fs::FileType::RegularFile {
        return refused(HostErrorKind::Invalid, format!("{target} is not a regular file"));
    }
    rustix::mount::mount_bind(device.as_str(), paths::through(&over))
        .map_err(|error| errors::host("binding the device", error))
}

pub(super) fn unmount(target: &HostPath) -> HostResult<()> {
    if visible_at(target)?.is_none() {
        return refused(HostErrorKind::NotMounted, format!("nothing is mounted at {target}"));
    }
    match rustix::mount::unmount(target.as_str(), UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => refused(HostErrorKind::NotMounted, format!("nothing is mounted at {target}")),
        Err(error) => Err(errors::host(&format!("unmounting {target}"), error)),
    }
}

/// Grows the mounted file system to the size of its device.
pub(super) fn grow(target: &HostPath) -> HostResult<Bytes> {
    let Some(entry) = visible_at(target)? else {
        return refused(HostErrorKind::NotMounted, format!("nothing is mounted at {target}"));
    };
    let Some(device) = entry.source.device() else {
        return refused(HostErrorKind::Unsupported, format!("{} has no device", entry.fs));
    };
    if entry.access.is_read_only() {
        return refused(HostErrorKind::ReadOnly, format!("{target} is mounted read-only"));
    }
    let room = loops::size(device)?;
    let size_of = |probe| match probe {
        Probe::FileSystem { size, .. } => Ok(size),
        other => refused(
            HostErrorKind::Io,
            format!("{device} holds {other:?} although it is mounted"),
        ),
    };
    match entry.fs.as_str() {
        "ext4" => grow_ext4(target, size_of(probe(device)?)?, room)?,
        "xfs" => tools::run("xfs_growfs", &["-d", target.as_str()])?
            .among("xfs_growfs", &[0])
            .map(drop)?,
        "btrfs" => tools::run("btrfs", &["filesystem", "resize", "max", target.as_str()])?
            .among("btrfs", &[0])
            .map(drop)?,
        other => return refused(HostErrorKind::Unsupported, format!("{other} cannot grow")),
    }
    sync(target)?;
    size_of(probe(device)?)
}

fn grow_ext4(target: &HostPath, size: Bytes, room: Bytes) -> HostResult<()> {
    let directory = paths::open(target, OFlags::RDONLY | OFlags::DIRECTORY);
    let directory = directory.map_err(|error| errors::host("opening the file system", error))?;
    let found = rustix::fs::fstatvfs(&directory).map_err(|error| errors::host("looking at the file system", error))?;
    let blocks = room.0 / found.f_bsize.max(1);
    if size.0 / found.f_bsize.max(1) >= blocks {
        return Ok(());
    }
    rustix::fs::ext4_ioc_resize_fs(&directory, blocks)
        .map_err(|error| errors::host("growing ext4 while mounted", error))
}

pub(super) fn usage(path: &HostPath) -> HostResult<FsUsage> {
    let failed = |error: Errno| errors::host("looking at the file system", error);
    let fd = paths::open(path, OFlags::PATH).map_err(failed)?;
    let found = rustix::fs::fstatvfs(&fd).map_err(failed)?;
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(found.f_frsize));
    Ok(FsUsage {
        total: bytes(found.f_blocks),
        available: bytes(found.f_bavail),
        used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        inodes: found.f_files,
        inodes_free: found.f_ffree,
        inodes_used: found.f_files.saturating_sub(found.f_ffree),
    })
}

pub(super) fn sync(path: &HostPath) -> HostResult<()> {
    let failed = |error: Errno| errors::host("writing out the file system", error);
    let fd = paths::open(path, OFlags::RDONLY).map_err(failed)?;
    rustix::fs::syncfs(&fd).map_err(failed)
}
