//! A disk in memory that loses what was not synced when the process dies.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::rig::{Life, When};

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
}

impl Platter {
    /// The process died: unsynced changes are gone.
    pub(super) fn power_cut(&mut self) {
        while let Some((offset, before, len)) = self.unsynced.pop() {
            self.bytes.resize(len, 0);
            self.bytes[offset..offset + before.len()].copy_from_slice(&before);
        }
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let len = self.bytes.len();
        let place = &mut self.bytes[offset..offset + data.len()];
        self.unsynced.push((offset, place.to_vec(), len));
        place.copy_from_slice(data);
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
        self.act("disk set_len", |platter| platter.set_len(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act("disk sync", Platter::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act("disk write", |platter| platter.write(offset as usize, data))
    }
}
