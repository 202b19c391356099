//! What the driver must remember across crashes, in `redb`, with a copy in memory to read from.
//!
//! A change is decided and applied to the copy under one lock (`Ledger::update`), then committed; callers hear
//! nothing before the commit is durable. Commits that meet are written as one. Whoever reads the copy may see what is
//! not yet durable, so nothing is answered from it that the gate does not protect.
//! What is answered from the copy alone is answered after `Ledger::mend`.
//!
//! A write that fails leaves the disk's state unknown. Everything not yet committed is then taken back in memory and
//! refused, and before the next change the disk is read anew (`Ledger::mend`): it says what really is there. While
//! that does not work, `Probe` says so. The database is created on the first change, so a driver that never remembers
//! anything costs nothing.

mod store;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use redb::Database;
use tonic::Status;

use self::tables::{Change, Row};
pub(crate) use self::tables::{Draft, Tables};
use crate::runtime::{Disk, Runtime};

/// A ledger that cannot be opened, or not be written any more.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk cannot be read or written.
    #[error("the ledger's disk fails")]
    Disk(#[source] std::io::Error),
    /// The database cannot be opened, read or written.
    #[error("the ledger's database fails")]
    Database(#[source] Box<redb::Error>),
    /// The disk holds something else.
    #[error("the ledger's disk holds something that is not a ledger")]
    Foreign,
    /// It was written by a version of the driver that writes differently.
    #[error("the ledger has format `{0}`, which this version does not read")]
    Format(String),
    /// A record is not what the driver writes.
    #[error("the ledger's record `{key}` in table {table} is damaged")]
    Record {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The thread that worked on it died.
    #[error("the work on the ledger was cut short")]
    CutShort,
}

impl<E: Into<redb::Error>> From<E> for LedgerError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The writing side: the copy in memory, the database, once there is one, and what waits to be written.
///
/// Locks are taken in the order database, tables, queue.
struct Writer {
    disk: Disk,
    database: Mutex<Option<Database>>,
    tables: Mutex<Tables>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Row>,
    /// The ticket of the last batch that was queued.
    queued: u64,
    /// The ticket of the last batch that was committed.
    committed: u64,
    /// What takes back each batch that is not committed yet, by ticket.
    undo: BTreeMap<u64, Vec<Change>>,
    /// Batches that were not written, and why, until whoever waits for them has heard it.
    failed: BTreeMap<u64, String>,
    /// Why the disk must be read anew before anything is written.
    broken: Option<String>,
}

/// The ledger of one process.
pub struct Ledger {
    runtime: Arc<dyn Runtime>,
    writer: Arc<Writer>,
    /// Answers do not wait for the disk: a mistake, see [`crate::Quirk`].
    late: bool,
}

impl Ledger {
    /// Opens the ledger on `disk`; an empty disk is an empty ledger.
    ///
    /// # Errors
    /// [`LedgerError`]: the disk fails, holds something else, or a record cannot be read.
    pub(crate) async fn open(disk: Disk, runtime: Arc<dyn Runtime>, late: bool) -> Result<Arc<Self>, LedgerError> {
        let (result, waiting) = oneshot::channel();
        let work = Box::new(move || {
            let loaded = store::load(&disk);
            let _ = result.send(loaded.map(|(tables, database)| Writer {
                disk,
                database: Mutex::new(database),
                tables: Mutex::new(tables),
                queue: Mutex::default(),
            }));
        });
        runtime.blocking(work).await;
        let writer = waiting.await.map_err(|_| LedgerError::CutShort)??;
        Ok(Arc::new(Self {
            runtime,
            writer: Arc::new(writer),
            late,
        }))
    }

    /// Reads the copy in memory. After a write that failed it says what was so before, and the disk may say otherwise:
    /// whoever answers a caller from it calls [`Ledger::mend`] first.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&lock(&self.writer.tables))
    }

    /// Why nothing can be written just now; `None` while all is well.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.writer.queue).broken.clone()
    }

    /// After a write that failed: reads the disk anew, so that writing can go on. Nothing to do while all is well.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the disk still fails.
    pub(crate) async fn mend(&self) -> Result<(), Status> {
        if self.trouble().is_none() {
            return Ok(());
        }
        let writer = Arc::clone(&self.writer);
        self.runtime.blocking(Box::new(move || writer.mend())).await;
        self.trouble().map_or(Ok(()), |why| Err(unwritable(&why)))
    }

    /// Decides a change and makes it durable. If `decide` refuses, nothing changes; if it changes nothing, nothing is
    /// committed.
    ///
    /// # Errors
    /// What `decide` says, or `UNAVAILABLE` if the disk fails: the change then may or may not be there once it works, and
    /// the code leaves that open.
    pub(crate) async fn update<T: Send>(
        &self,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, Status> + Send,
    ) -> Result<T, Status> {
        self.mend().await?;
        let (answer, ticket) = {
            let mut tables = lock(&self.writer.tables);
            let mut draft = Draft {
                tables: &tables,
                changes: Vec::new(),
            };
            let answer = decide(&mut draft)?;
            let changes = draft.changes;
            if changes.is_empty() {
                return Ok(answer);
            }
            (answer, self.writer.enqueue(&mut tables, changes)?)
        };
        let writer = Arc::clone(&self.writer);
        if self.late {
            self.commit_later(writer, ticket);
            return Ok(answer);
        }
        self.runtime
            .blocking(Box::new(move || writer.commit_up_to(ticket)))
            .await;
        self.writer.outcome(ticket)?;
        Ok(answer)
    }

    fn commit_later(&self, writer: Arc<Writer>, ticket: u64) {
        let runtime = Arc::clone(&self.runtime);
        self.runtime.spawn(Box::pin(async move {
            runtime.sleep(Duration::from_secs(1)).await;
            runtime.blocking(Box::new(move || writer.commit_up_to(ticket))).await;
        }));
    }
}

fn unwritable(why: &str) -> Status {
    Status::unavailable(format!("the ledger cannot be written: {why}"))
}

impl Writer {
    fn enqueue(&self, tables: &mut Tables, changes: Vec<Change>) -> Result<u64, Status> {
        let mut queue = lock(&self.queue);
        if let Some(why) = &queue.broken {
            return Err(unwritable(why));
        }
        queue.waiting.extend(changes.iter().map(Change::to_row));
        queue.queued += 1;
        let ticket = queue.queued;
        let mut undo: Vec<Change> = changes.into_iter().map(|change| change.apply(tables)).collect();
        undo.reverse();
        queue.undo.insert(ticket, undo);
        Ok(ticket)
    }

    /// Writes everything that waits, unless someone else has already written the batch with this ticket.
    fn commit_up_to(&self, ticket: u64) {
        let mut database = lock(&self.database);
        let (rows, last) = {
            let mut queue = lock(&self.queue);
            if queue.committed >= ticket || queue.failed.contains_key(&ticket) {
                return;
            }
            (std::mem::take(&mut queue.waiting), queue.queued)
        };
        match store::write(&self.disk, &mut database, &rows) {
            Ok(()) => {
                let mut queue = lock(&self.queue);
                queue.committed = last;
                queue.undo.retain(|ticket, _| *ticket > last);
            }
            Err(error) => {
                *database = None;
                self.take_back(&describe(&error));
            }
        }
    }

    /// A write failed: what was decided on top of it cannot stand either.
    fn take_back(&self, why: &str) {
        let mut tables = lock(&self.tables);
        let mut queue = lock(&self.queue);
        let undo = std::mem::take(&mut queue.undo);
        for (ticket, changes) in undo.into_iter().rev() {
            for change in changes {
                change.apply(&mut tables);
            }
            queue.failed.insert(ticket, why.to_owned());
        }
        queue.waiting.clear();
        queue.committed = queue.queued;
        queue.broken = Some(why.to_owned());
    }

    fn mend(&self) {
        let mut database = lock(&self.database);
        if lock(&self.queue).broken.is_none() {
            return;
        }
        *database = None;
        let loaded = store::load(&self.disk);
        let mut tables = lock(&self.tables);
        let mut queue = lock(&self.queue);
        match loaded {
            Ok((found, opened)) => {
                (*tables, *database, queue.broken) = (found, opened, None);
            }
            Err(error) => queue.broken = Some(describe(&error)),
        }
    }

    fn outcome(&self, ticket: u64) -> Result<(), Status> {
        let mut queue = lock(&self.queue);
        if let Some(why) = queue.failed.remove(&ticket) {
            return Err(unwritable(&why));
        }
        if queue.committed >= ticket {
            return Ok(());
        }
        Err(unwritable("the work was cut short"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error and its causes, on one line.
fn describe(error: &LedgerError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
