//! What a device holds, read from the device itself.
//!
//! Blank means: the first and last 4 MiB, and the copy of btrfs' superblock at 64 MiB, are zeroes. Every signature that
//! is known to the tools of Linux lies there. A byte that cannot be read is an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::host::Probe;
use crate::units::{Bytes, FsKind};

/// How much is read at either end.
const EDGE: u64 = 4 << 20;
/// Where btrfs keeps a copy of its superblock.
const MIRROR: u64 = 64 << 20;
const MIRROR_LEN: u64 = 4096;

/// Reads what a device of `size` holds.
pub(super) fn probe(device: &File, size: Bytes) -> io::Result<Probe> {
    let head = read(device, 0, EDGE.min(size.0))?;
    if let Some(found) = known(&head) {
        return Ok(found);
    }
    let tail_at = size.0.saturating_sub(EDGE).max(head.len() as u64);
    let tail = read(device, tail_at, size.0 - tail_at)?;
    let mirror_len = size.0.saturating_sub(MIRROR).min(MIRROR_LEN);
    let mirror = read(device, MIRROR, mirror_len)?;
    let blank = [&head, &tail, &mirror]
        .iter()
        .all(|bytes| bytes.iter().all(|byte| *byte == 0));
    Ok(if blank {
        Probe::Blank
    } else {
        Probe::Foreign(foreign(&head).to_owned())
    })
}

fn read(device: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    device.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn known(head: &[u8]) -> Option<Probe> {
    luks(head)
        .or_else(|| ext4(head))
        .or_else(|| xfs(head))
        .or_else(|| btrfs(head))
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn uuid(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn label(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn ext4(head: &[u8]) -> Option<Probe> {
    let superblock = head.get(1024..2048)?;
    if superblock.get(0x38..0x3a)? != [0x53, 0xef] {
        return None;
    }
    let blocks = little(superblock.get(0x4..0x8)?) | little(superblock.get(0x150..0x154)?) << 32;
    let block = 1024_u64.checked_shl(u32::try_from(little(superblock.get(0x18..0x1c)?)).ok()?)?;
    Some(Probe::FileSystem {
        kind: FsKind::Ext4,
        size: Bytes(blocks.saturating_mul(block)),
        uuid: uuid(superblock.get(0x68..0x78)?),
        label: label(superblock.get(0x78..0x88)?),
    })
}

fn xfs(head: &[u8]) -> Option<Probe> {
    if head.get(..4)? != b"XFSB" {
        return None;
    }
    let block = big(head.get(4..8)?);
    Some(Probe::FileSystem {
        kind: FsKind::Xfs,
        size: Bytes(big(head.get(8..16)?).saturating_mul(block)),
        uuid: uuid(head.get(32..48)?),
        label: label(head.get(108..120)?),
    })
}

fn btrfs(head: &[u8]) -> Option<Probe> {
    let superblock = head.get(0x1_0000..0x1_1000)?;
    if superblock.get(0x40..0x48)? != b"_BHRfS_M" {
        return None;
    }
    Some(Probe::FileSystem {
        kind: FsKind::Btrfs,
        size: Bytes(little(superblock.get(0x70..0x78)?)),
        uuid: uuid(superblock.get(0x20..0x30)?),
        label: label(superblock.get(0x12b..0x22b)?),
    })
}

/// Version 1 and 2 begin alike.
fn luks(head: &[u8]) -> Option<Probe> {
    if head.get(..6)? != b"LUKS\xba\xbe" {
        return None;
    }
    Some(Probe::Encrypted {
        uuid: label(head.get(168..208)?),
    })
}

/// The name of what is not the driver's to touch.
fn foreign(head: &[u8]) -> &'static str {
    let at = |place: usize, signature: &[u8]| head.get(place..place + signature.len()) == Some(signature);
    if at(512, b"LABELONE") {
        "LVM2_member"
    } else if at(512, b"EFI PART") {
        "gpt"
    } else if at(510, &[0x55, 0xaa]) {
        "dos"
    } else if at(4086, b"SWAPSPACE2") {
        "swap"
    } else {
        "data"
    }
}
