//! What one machine sees of a mounted file system: a view of its own, and the writes that have not reached the device yet.
//!
//! ```text
//! metadata ──► view and device at once (the journal)
//! data ──────► view, then the device by sync, by unmount or by age
//! ```
//!
//! Two machines that mount one ordinary file system for writing each have a view, and overwrite each other's blocks: the image is then damaged,
//! and data is really lost. A shared file system has one view, the device.
//!
//! Blind spots: a directory entry never gets lost in a power loss; data reaches the device in the order in which it was written.

use std::time::Duration;

use crate::runtime::Time;

use super::cell::Cell;
use super::errno::Errno;
use super::filesystem::{FsImage, Ino};
use super::turns::Loss;

/// Data older than this has been written back (`dirty_expire_centisecs` of Linux, 30 s).
pub(super) const WRITE_BACK: Duration = Duration::from_secs(30);

/// A mounted file system, as its machine sees it.
#[derive(Debug)]
pub(super) struct Cached {
    /// What a reader on this machine sees.
    pub view: FsImage,
    /// By which the device knows this mount.
    owner: u64,
    dirty: Vec<Dirty>,
}

#[derive(Debug)]
struct Dirty {
    at: Time,
    ino: Ino,
    block: u64,
    cell: Cell,
    end: u64,
}

impl Cached {
    /// Mounts what lies on a device. `owner` is different for every mount.
    pub(super) fn open(durable: &mut FsImage, owner: u64, writable: bool) -> Cached {
        if writable {
            durable.owner = Some(owner);
            durable.unclean = true;
        }
        Cached {
            view: durable.clone(),
            owner,
            dirty: Vec::new(),
        }
    }

    /// How many writes a power loss would put at risk now.
    pub(super) fn at_risk(&self, now: Time) -> usize {
        self.dirty.len() - self.aged(now)
    }

    fn aged(&self, now: Time) -> usize {
        self.dirty.partition_point(|dirty| now.since(dirty.at) >= WRITE_BACK)
    }

    /// Sees what other machines did to a shared file system.
    pub(super) fn refresh(&mut self, durable: &FsImage) {
        self.view.clone_from(durable);
    }

    /// Changes directories, lengths or the size: on the device at once.
    pub(super) fn change<T>(
        &mut self,
        durable: &mut FsImage,
        change: impl Fn(&mut FsImage) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let done = change(&mut self.view)?;
        // Only where two machines write at once can the device refuse what the view allowed: the damage is then recorded, not reported.
        if change(durable).is_err() {
            durable.damaged = true;
        }
        self.claim(durable);
        Ok(done)
    }

    /// Empties a file; its unwritten data is forgotten.
    pub(super) fn truncate(&mut self, durable: &mut FsImage, ino: Ino) -> Result<(), Errno> {
        self.forget(ino);
        self.change(durable, |image| image.truncate(ino))
    }

    /// The data of `ino` need not be written any more.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.dirty.retain(|dirty| dirty.ino != ino);
    }

    /// Writes a block of a file into memory.
    pub(super) fn write(&mut self, at: Time, ino: Ino, block: u64, cell: Cell, end: u64) -> Result<(), Errno> {
        self.view.write(ino, block, cell.clone(), end)?;
        self.dirty.push(Dirty {
            at,
            ino,
            block,
            cell,
            end,
        });
        Ok(())
    }

    /// Brings everything to the device.
    pub(super) fn flush(&mut self, durable: &mut FsImage) {
        if self.dirty.is_empty() {
            return;
        }
        self.claim(durable);
        for dirty in self.dirty.drain(..) {
            dirty.land(durable);
        }
    }

    /// Ends the mount properly.
    pub(super) fn close(&mut self, durable: &mut FsImage) {
        self.flush(durable);
        if durable.owner == Some(self.owner) {
            durable.owner = None;
            durable.unclean = false;
        }
    }

    /// The machine lost its power: brings to the device what was written back in time, and what `loss` spares of the rest.
    pub(super) fn power_loss(self, durable: &mut FsImage, now: Time, loss: Loss) {
        let aged = self.aged(now);
        let (whole, tear) = loss.split(self.dirty.len() - aged);
        if aged + whole + usize::from(tear) > 0 {
            self.claim(durable);
        }
        for (nth, dirty) in self.dirty.into_iter().enumerate() {
            if nth < aged + whole {
                dirty.land(durable);
            } else if nth == aged + whole && tear {
                dirty.tear(durable);
            }
        }
    }

    /// Notices that somebody else has mounted it for writing meanwhile.
    fn claim(&self, durable: &mut FsImage) {
        if durable.owner != Some(self.owner) && !durable.shared {
            durable.damaged = true;
        }
    }
}

impl Dirty {
    /// The view has room for it, and so has the device, unless two machines wrote: then the block is lost.
    fn land(self, durable: &mut FsImage) {
        if durable.write(self.ino, self.block, self.cell, self.end).is_err() {
            durable.damaged = true;
        }
    }

    fn tear(self, durable: &mut FsImage) {
        let (cell, len) = self.cell.torn();
        let end = self.end.min(self.block * super::cell::BLOCK + len);
        let torn = Dirty { cell, end, ..self };
        torn.land(durable);
    }
}

#[cfg(test)]
mod tests {
    use super::super::filesystem::{Node, ROOT};
    use super::{Cached, Cell, FsImage, Ino, Loss, Time};
    use std::time::Duration;
    use wavetank_driver::Bytes;
    use wavetank_driver::units::FsKind;

    fn cell(text: &str) -> Cell {
        Cell::Bytes(text.as_bytes().into())
    }

    fn mounted() -> (FsImage, Cached, Ino) {
        let mut durable = FsImage::make(FsKind::Ext4, "", "u", Bytes::MI).unwrap();
        let mut cached = Cached::open(&mut durable, 1, true);
        let file = cached
            .change(&mut durable, |image| image.add(ROOT, "f", Node::file()))
            .unwrap();
        (durable, cached, file)
    }

    #[test]
    fn data_reaches_the_device_by_a_sync_or_an_unmount() {
        let (mut durable, mut cached, file) = mounted();
        cached.write(Time::ZERO, file, 0, cell("abcd"), 4).unwrap();
        assert_eq!(cached.view.read_bytes(file).unwrap(), b"abcd");
        assert_eq!(
            durable.read_bytes(file).unwrap(),
            b"",
            "the entry is there, its bytes are not"
        );
        cached.flush(&mut durable);
        assert_eq!(durable.read_bytes(file).unwrap(), b"abcd");
        cached.write(Time::ZERO, file, 0, cell("efgh"), 4).unwrap();
        assert!(durable.unclean);
        cached.close(&mut durable);
        assert_eq!(durable.read_bytes(file).unwrap(), b"efgh");
        assert!(!durable.unclean && !durable.damaged);
    }

    #[test]
    fn a_power_loss_spares_what_is_old_and_what_it_is_told() {
        for (loss, expected) in [
            (Loss::All, "old."),
            (Loss::Keep(1), "new."),
            (Loss::Tear(0), "ne"),
            (Loss::Keep(9), "new."),
        ] {
            let (mut durable, mut cached, file) = mounted();
            let later = Time::ZERO + Duration::from_secs(30);
            cached.write(Time::ZERO, file, 0, cell("old."), 4).unwrap();
            cached.write(later, file, 0, cell("new."), 4).unwrap();
            cached.power_loss(&mut durable, later, loss);
            let bytes = durable.read_bytes(file).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.trim_end_matches('\0'), expected, "{loss:?}");
            assert!(durable.unclean && !durable.damaged);
        }
    }

    #[test]
    fn a_torn_file_is_shorter() {
        let (mut durable, mut cached, file) = mounted();
        cached.write(Time::ZERO, file, 0, cell("{\"key\":1}"), 9).unwrap();
        cached.power_loss(&mut durable, Time::ZERO, Loss::Tear(0));
        assert_eq!(durable.read_bytes(file).unwrap(), b"{\"ke");
    }

    #[test]
    fn two_machines_that_write_at_once_damage_it() {
        let (mut durable, mut first, _) = mounted();
        let mut second = Cached::open(&mut durable, 2, true);
        let of_first = first
            .change(&mut durable, |image| image.add(ROOT, "x", Node::file()))
            .unwrap();
        assert!(durable.damaged);
        let of_second = second
            .change(&mut durable, |image| image.add(ROOT, "y", Node::file()))
            .unwrap();
        assert_eq!(of_first, of_second, "neither saw the other's allocation");
    }

    #[test]
    fn a_shared_file_system_is_coherent() {
        let (mut durable, mut first, _) = mounted();
        durable.shared = true;
        let mut second = Cached::open(&mut durable, 2, true);
        first
            .change(&mut durable, |image| image.add(ROOT, "x", Node::file()))
            .unwrap();
        second.refresh(&durable);
        assert!(second.view.lookup(ROOT, "x").is_ok());
        assert!(!durable.damaged);
    }
}
