//! Which mount flags a file system takes, and what some of them mean.

use wavetank_driver::units::FsKind;

use super::errno::Errno;

const ANY: [&str; 21] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "discard",
    "exec",
    "lazytime",
    "nodiscard",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nolazytime",
    "norelatime",
    "nosuid",
    "relatime",
    "strictatime",
    "suid",
    "sync",
];
const EXT4: [&str; 12] = [
    "acl",
    "barrier",
    "dax",
    "delalloc",
    "journal_checksum",
    "noacl",
    "nobarrier",
    "nodelalloc",
    "noload",
    "norecovery",
    "nouser_xattr",
    "user_xattr",
];
const EXT4_VALUED: [&str; 9] = [
    "barrier",
    "commit",
    "data",
    "errors",
    "inode_readahead_blks",
    "max_batch_time",
    "min_batch_time",
    "stripe",
    "resgid",
];
const XFS: [&str; 11] = [
    "attr2",
    "dax",
    "filestreams",
    "grpid",
    "ikeep",
    "inode32",
    "inode64",
    "largeio",
    "norecovery",
    "nouuid",
    "swalloc",
];
const XFS_VALUED: [&str; 6] = ["allocsize", "logbsize", "logbufs", "logdev", "sunit", "swidth"];
const BTRFS: [&str; 10] = [
    "autodefrag",
    "barrier",
    "compress",
    "datacow",
    "flushoncommit",
    "nobarrier",
    "nodatacow",
    "nodatasum",
    "norecovery",
    "ssd",
];
const BTRFS_VALUED: [&str; 8] = [
    "commit",
    "compress",
    "compress-force",
    "max_inline",
    "rescue",
    "space_cache",
    "subvol",
    "thread_pool",
];

/// Does a file system of that kind take these flags?
pub(super) fn check(kind: FsKind, flags: &[String]) -> Result<(), Errno> {
    let (plain, valued): (&[&str], &[&str]) = match kind {
        FsKind::Ext4 => (&EXT4, &EXT4_VALUED),
        FsKind::Xfs => (&XFS, &XFS_VALUED),
        FsKind::Btrfs => (&BTRFS, &BTRFS_VALUED),
    };
    let known = |flag: &String| match flag.split_once('=') {
        Some((key, value)) => valued.contains(&key) && !value.is_empty(),
        None => ANY.contains(&flag.as_str()) || plain.contains(&flag.as_str()),
    };
    if flags.iter().all(known) {
        Ok(())
    } else {
        Err(Errno::Invalid)
    }
}

/// Is the journal left alone, so that an unclean file system can be mounted from a device that takes no writes?
pub(super) fn skips_recovery(flags: &[String]) -> bool {
    flags
        .iter()
        .any(|flag| matches!(flag.as_str(), "noload" | "norecovery" | "rescue=nologreplay"))
}

/// Is a second file system of the same UUID (a clone beside its source) refused?
pub(super) fn minds_twins(kind: FsKind, flags: &[String]) -> bool {
    match kind {
        FsKind::Ext4 => false,
        FsKind::Xfs => !flags.iter().any(|flag| flag == "nouuid"),
        FsKind::Btrfs => true,
    }
}
