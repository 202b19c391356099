//! A disk in memory that loses what was not synced when the process dies: all of it, or so much, or in halves.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::rig::{Life, When};

/// What is left of the changes that were not synced, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Loss {
    #[default]
    All,
    /// The first so many survive.
    Keep(usize),
    /// The first so many survive, and half of the next.
    Tear(usize),
    /// All survive except this one: the disk wrote in another order.
    Skip(usize),
}

/// What the process believes to be on the platter, and how to take back what it never synced.
#[derive(Debug, Default)]
pub(super) struct Platter {
    bytes: Vec<u8>,
    /// The bytes and the length before each unsynced change, oldest first.
    unsynced: Vec<(usize, Vec<u8>, usize)>,
    /// Syncs that really happened: an upper bound for commits.
    pub(super) syncs: u64,
    /// Changes and syncs so far.
    pub(super) operations: u64,
    /// Everything that changes the disk fails.
    pub(super) fails: bool,
    /// The operation that fails, once.
    pub(super) fails_at: Option<u64>,
    /// Bytes that fit on it; 0: any number.
    pub(super) room: usize,
    /// The most changes that were ever waiting for a sync.
    pub(super) most_unsynced: usize,
}

impl Platter {
    /// The process died: unsynced changes are gone, as far as `loss` says.
    pub(super) fn power_cut(&mut self, loss: Loss) {
        let written = self.bytes.clone();
        let unsynced = std::mem::take(&mut self.unsynced);
        let stays = |nth: usize| match loss {
            Loss::All => false,
            Loss::Keep(count) | Loss::Tear(count) => nth < count,
            Loss::Skip(lost) => nth != lost,
        };
        // What a later change wrote over stays: only the bytes that nothing newer covers are taken back.
        let mut newer: Vec<(usize, usize)> = Vec::new();
        for (nth, (offset, before, len)) in unsynced.iter().enumerate().rev() {
            if stays(nth) {
                newer.push((*offset, *offset + before.len()));
                continue;
            }
            if newer.is_empty() {
                self.bytes.resize(*len, 0);
            }
            let torn = if loss == Loss::Tear(nth) { before.len() / 2 } else { 0 };
            for (at, old) in before.iter().enumerate().skip(torn) {
                let place = offset + at;
                let is_newer = newer.iter().any(|(from, to)| (*from..*to).contains(&place));
                if let (false, Some(byte)) = (is_newer, self.bytes.get_mut(place)) {
                    *byte = *old;
                }
            }
            for place in *offset..*offset + torn {
                if let (Some(byte), Some(new)) = (self.bytes.get_mut(place), written.get(place)) {
                    *byte = *new;
                }
            }
        }
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let len = self.bytes.len();
        let place = &mut self.bytes[offset..offset + data.len()];
        self.unsynced.push((offset, place.to_vec(), len));
        place.copy_from_slice(data);
        self.most_unsynced = self.most_unsynced.max(self.unsynced.len());
    }

    fn set_len(&mut self, new: usize) {
        let len = self.bytes.len();
        let tail = self.bytes.get(new..).unwrap_or_default().to_vec();
        self.unsynced.push((len - tail.len(), tail, len));
        self.bytes.resize(new, 0);
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.syncs += 1;
    }
}

/// The platter as one life of the process sees it.
#[derive(Debug)]
pub(super) struct FakeDisk {
    pub(super) platter: Arc<Mutex<Platter>>,
    pub(super) life: Life,
}

impl FakeDisk {
    /// One operation, at which the process may die.
    fn act<T>(&self, name: &str, effect: impl FnOnce(&mut Platter) -> T) -> io::Result<T> {
        let dead = || io::Error::other("the process is dead");
        {
            let mut platter = self.platter.lock().unwrap();
            platter.operations += 1;
            if platter.fails || platter.fails_at == Some(platter.operations) {
                return Err(io::Error::other("the disk fails"));
            }
        }
        let mut effect = Some(effect);
        let mut result = None;
        let lives = self.life.step(name, || {
            let effect = effect.take().expect("an operation happens once");
            result = Some(effect(&mut self.platter.lock().unwrap()));
        });
        match (lives, result) {
            (When::Alive, Some(result)) => Ok(result),
            _ => Err(dead()),
        }
    }
}

impl StorageBackend for FakeDisk {
    fn len(&self) -> io::Result<u64> {
        self.life.check().map_err(io::Error::other)?;
        Ok(self.platter.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.life.check().map_err(io::Error::other)?;
        let platter = self.platter.lock().unwrap();
        let from = offset as usize;
        let bytes = platter
            .bytes
            .get(from..from + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let is_full = {
            let platter = self.platter.lock().unwrap();
            platter.room > 0 && len as usize > platter.room.max(platter.bytes.len())
        };
        if is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.act("disk set_len", |platter| platter.set_len(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act("disk sync", Platter::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act("disk write", |platter| platter.write(offset as usize, data))
    }
}
