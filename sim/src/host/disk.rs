//! The disk of one process: where a driver keeps its ledger. It forgets what was not synced, and can tear it.
//!
//! ```text
//! write ──► page cache ──sync──► platter
//!              │  process crash: kept
//!              └─ power loss: lost, kept up to some write, or torn in one
//! ```
//!
//! A disk costs nothing until it is opened. Each incarnation of the process opens it anew; handles of earlier ones are dead.
//!
//! Blind spots: the page cache is written back by a sync only, never by age; surviving writes form a prefix in the order of writing, as on a
//! disk without reordering.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::turns::{Fence, Gate, Loss, OpGate};

const PAGE: usize = 4096;
/// What the hardware writes wholly or not at all.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// A disk that survives the process that uses it. A clone is the same disk.
#[derive(Clone, Default)]
pub struct ModelDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Counts incarnations; 0 before the first.
    generation: u64,
    len: u64,
    /// What a reader sees. Pages never written are not there and read as zeroes.
    pages: BTreeMap<u64, Page>,
    /// The pages that the pending writes have replaced, as they are on the platter.
    before: BTreeMap<u64, Option<Page>>,
    durable_len: u64,
    /// What was done since the last sync, in order.
    pending: Vec<Pending>,
    /// Bytes that the file may have.
    room: Option<u64>,
}

enum Pending {
    Len(u64),
    Write {
        offset: u64,
        len: usize,
        after: Vec<(u64, Page)>,
    },
}

impl ModelDisk {
    /// An empty disk.
    pub fn new() -> ModelDisk {
        ModelDisk::default()
    }

    /// Opens the disk for the next incarnation of its process. `gate` is asked before each operation.
    pub fn open(&self, fence: Fence, gate: Option<Arc<dyn OpGate>>) -> OpenDisk {
        let mut state = self.state();
        state.generation += 1;
        OpenDisk {
            disk: self.clone(),
            generation: state.generation,
            fence,
            gate,
            operations: Mutex::new(0),
        }
    }

    /// How many incarnations have opened it.
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// How many operations a power loss would now put at risk.
    pub fn unsynced(&self) -> usize {
        self.state().pending.len()
    }

    /// Bytes in use, sparse ones left out.
    pub fn allocated(&self) -> u64 {
        self.state().pages.len() as u64 * PAGE as u64
    }

    /// Whether some bytes stand in it, in what a reader sees now.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let state = self.state();
        // The pages that lie at one another's end, with the end of the one before.
        let (mut text, mut next) = (Vec::new(), 0);
        state.pages.iter().any(|(nth, page)| {
            let keep = if *nth == next {
                bytes.len().saturating_sub(1).min(text.len())
            } else {
                0
            };
            text.drain(..text.len() - keep);
            text.extend_from_slice(&page[..]);
            next = nth + 1;
            text.windows(bytes.len().max(1)).any(|window| window == bytes)
        })
    }

    /// Limits how large the file may become; `None` for no limit. A file that is larger already stays as it is.
    pub fn limit(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// The machine lost its power: what was not synced is lost as far as `loss` says. Call it when the process is dead.
    pub fn power_loss(&self, loss: Loss) {
        self.state().power_loss(loss);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no operation on a disk panics")
    }
}

impl fmt::Debug for ModelDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("ModelDisk")
            .field("generation", &state.generation)
            .field("len", &state.len)
            .field("unsynced", &state.pending.len())
            .finish()
    }
}

impl State {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        for_each_page(offset, out.len(), |page, from, range| match self.pages.get(&page) {
            Some(content) => out[range.clone()].copy_from_slice(&content[from..from + range.len()]),
            None => out[range].fill(0),
        });
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_range(offset, data.len())?;
        let mut after = Vec::with_capacity(data.len() / PAGE + 2);
        for_each_page(offset, data.len(), |page, from, range| {
            let part = &data[range];
            let image = match <&[u8; PAGE]>::try_from(part) {
                Ok(whole) => Arc::new(*whole),
                Err(_) => {
                    let mut content = self.pages.get(&page).map_or([0; PAGE], |page| **page);
                    content[from..from + part.len()].copy_from_slice(part);
                    Arc::new(content)
                }
            };
            after.push((page, image));
        });
        for (page, content) in &after {
            let old = self.pages.insert(*page, Arc::clone(content));
            self.before.entry(*page).or_insert(old);
        }
        self.pending.push(Pending::Write {
            offset,
            len: data.len(),
            after,
        });
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len > self.len && self.room.is_some_and(|room| len > room) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        self.cut(len);
        self.pending.push(Pending::Len(len));
        Ok(())
    }

    /// Changes the length; what lies beyond is gone, and reads as zeroes when the file grows again.
    fn cut(&mut self, len: u64) {
        if len < self.len {
            let boundary = len / PAGE as u64;
            let within = (len % PAGE as u64) as usize;
            for (page, old) in self.pages.split_off(&boundary) {
                if page == boundary && within > 0 {
                    let mut content = *old;
                    content[within..].fill(0);
                    self.pages.insert(page, Arc::new(content));
                }
                self.before.entry(page).or_insert(Some(old));
            }
        }
        self.len = len;
    }

    fn sync(&mut self) {
        self.before.clear();
        self.pending.clear();
        self.durable_len = self.len;
    }

    fn power_loss(&mut self, loss: Loss) {
        for (page, old) in std::mem::take(&mut self.before) {
            match old {
                Some(old) => self.pages.insert(page, old),
                None => self.pages.remove(&page),
            };
        }
        self.len = self.durable_len;
        let pending = std::mem::take(&mut self.pending);
        let (whole, tear) = loss.split(pending.len());
        for (nth, operation) in pending.into_iter().enumerate().take(whole + usize::from(tear)) {
            match operation {
                Pending::Len(len) if nth < whole => self.cut(len),
                // A change of length is in one sector: it never tears.
                Pending::Len(_) => {}
                Pending::Write { offset, len, after } => {
                    let survives = if nth < whole { len } else { len / 2 / SECTOR * SECTOR };
                    self.redo(offset, survives, &after);
                }
            }
        }
        self.sync();
    }

    fn redo(&mut self, offset: u64, len: usize, after: &[(u64, Page)]) {
        let mut images = after.iter();
        for_each_page(offset, len, |page, from, range| {
            let image = images.find(|(at, _)| *at == page).map(|(_, image)| image);
            let image = image.expect("a write keeps an image of every page it touches");
            let mut content = self.pages.get(&page).map_or([0; PAGE], |page| **page);
            let part = from..from + range.len();
            content[part.clone()].copy_from_slice(&image[part]);
            self.pages.insert(page, Arc::new(content));
        });
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= self.len);
        inside
            .then_some(())
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the file"))
    }
}

/// Calls `each(page, first byte within it, range within the buffer)` for every page that `len` bytes at `offset` touch.
fn for_each_page(offset: u64, len: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let from = (at % PAGE as u64) as usize;
        let count = (PAGE - from).min(len - done);
        each(at / PAGE as u64, from, done..done + count);
        done += count;
    }
}

/// A disk as one incarnation of its process holds it.
pub struct OpenDisk {
    disk: ModelDisk,
    generation: u64,
    fence: Fence,
    gate: Option<Arc<dyn OpGate>>,
    operations: Mutex<u64>,
}

impl OpenDisk {
    /// How many operations this incarnation has asked for.
    pub fn operations(&self) -> u64 {
        *self.operations.lock().expect("counting does not panic")
    }

    fn counted<T>(&self, site: &'static str, effect: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let nth = {
            let mut operations = self.operations.lock().expect("counting does not panic");
            *operations += 1;
            *operations
        };
        if !self.fence.is_frozen()
            && let Some(gate) = &self.gate
        {
            match gate.before(site, nth) {
                Gate::Proceed => {}
                Gate::Fail(trouble) => return Err(trouble.on_disk()),
                Gate::Freeze => self.fence.freeze(),
            }
        }
        self.living(effect)
    }

    fn living<T>(&self, effect: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if self.fence.is_frozen() || state.generation != self.generation {
            return Err(io::Error::other("the process is dead"));
        }
        effect(&mut state)
    }
}

impl fmt::Debug for OpenDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDisk")
            .field("generation", &self.generation)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

impl StorageBackend for OpenDisk {
    fn len(&self) -> io::Result<u64> {
        self.living(|state| Ok(state.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.counted("disk.read", |state| state.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.counted("disk.set_len", |state| state.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counted("disk.sync", |state| {
            state.sync();
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counted("disk.write", |state| state.write(offset, data))
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
