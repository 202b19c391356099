//! What the driver must remember across crashes, in `redb`, with a copy in memory to read from.
//!
//! A change is decided and applied to the copy under one lock (`Ledger::update`), then committed; callers hear
//! nothing before the commit is durable. Commits that meet are written as one. Whoever reads the copy may see what is
//! not yet durable, so nothing is answered from it that the gate does not protect.
//!
//! A write that fails leaves the disk's state unknown: the ledger then refuses every further change, `Probe` says so,
//! and a restart reads what really is there. The database is created on the first change, so a driver that never
//! remembers anything costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableHandle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use crate::records::{PublicationRecord, StagedRecord, TargetRecord, VolumeRecord};
use crate::runtime::{Disk, Runtime};
use crate::units::{HostPath, NodeId, VolumeId};

type Raw = TableDefinition<'static, &'static str, &'static [u8]>;

const META: Raw = TableDefinition::new("meta");
const VOLUMES: Raw = TableDefinition::new("volumes");
const PUBLICATIONS: Raw = TableDefinition::new("publications");
const STAGED: Raw = TableDefinition::new("staged");
const TARGETS: Raw = TableDefinition::new("targets");

const FORMAT_KEY: &str = "format";
const FORMAT: &[u8] = b"1";
/// The first bytes of a redb file, written last when one is created.
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
const CACHE_BYTES: usize = 1 << 20;
/// Between the two halves of a publication's key: no identifier holds a control character.
const SEPARATOR: char = '\n';

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

/// The copy in memory.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) volumes: BTreeMap<VolumeId, VolumeRecord>,
    pub(crate) publications: BTreeMap<(VolumeId, NodeId), PublicationRecord>,
    pub(crate) staged: BTreeMap<VolumeId, StagedRecord>,
    pub(crate) targets: BTreeMap<HostPath, TargetRecord>,
}

impl Tables {
    /// The publications of one volume, by node.
    pub(crate) fn published(&self, volume: &VolumeId) -> impl Iterator<Item = (&NodeId, &PublicationRecord)> {
        let first = (volume.clone(), NodeId::default());
        self.publications
            .range(first..)
            .take_while(move |((id, _), _)| id == volume)
            .map(|((_, node), record)| (node, record))
    }

    /// The targets of one volume, by path.
    pub(crate) fn targets_of(&self, volume: &VolumeId) -> impl Iterator<Item = (&HostPath, &TargetRecord)> {
        self.targets.iter().filter(move |(_, record)| record.volume == *volume)
    }
}

/// One change of one record; `None` removes it.
enum Change {
    Volume(VolumeId, Option<Box<VolumeRecord>>),
    Publication(VolumeId, NodeId, Option<PublicationRecord>),
    Staged(VolumeId, Option<StagedRecord>),
    Target(HostPath, Option<TargetRecord>),
}

/// The same, as the disk takes it.
struct Row {
    table: Raw,
    key: String,
    value: Option<Vec<u8>>,
}

impl Change {
    fn to_row(&self) -> Row {
        let (table, key, value) = match self {
            Self::Volume(id, record) => (VOLUMES, id.as_str().to_owned(), record.as_ref().map(encode)),
            Self::Publication(volume, node, record) => (
                PUBLICATIONS,
                format!("{volume}{SEPARATOR}{node}"),
                record.as_ref().map(encode),
            ),
            Self::Staged(id, record) => (STAGED, id.as_str().to_owned(), record.as_ref().map(encode)),
            Self::Target(path, record) => (TARGETS, path.as_str().to_owned(), record.as_ref().map(encode)),
        };
        Row { table, key, value }
    }

    fn apply(self, tables: &mut Tables) {
        fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        match self {
            Self::Volume(id, record) => set(&mut tables.volumes, id, record.map(|record| *record)),
            Self::Publication(volume, node, record) => set(&mut tables.publications, (volume, node), record),
            Self::Staged(id, record) => set(&mut tables.staged, id, record),
            Self::Target(path, record) => set(&mut tables.targets, path, record),
        }
    }
}

fn encode<R: Serialize>(record: &R) -> Vec<u8> {
    serde_json::to_vec(record).expect("records hold nothing that JSON cannot: string keys, no floats")
}

/// A change in the making: reads see the state before it.
pub(crate) struct Draft<'a> {
    pub(crate) tables: &'a Tables,
    changes: Vec<Change>,
}

impl Draft<'_> {
    pub(crate) fn volume(&mut self, id: &VolumeId, record: Option<VolumeRecord>) {
        self.changes.push(Change::Volume(id.clone(), record.map(Box::new)));
    }

    pub(crate) fn publication(&mut self, volume: &VolumeId, node: &NodeId, record: Option<PublicationRecord>) {
        self.changes
            .push(Change::Publication(volume.clone(), node.clone(), record));
    }

    pub(crate) fn staged(&mut self, id: &VolumeId, record: Option<StagedRecord>) {
        self.changes.push(Change::Staged(id.clone(), record));
    }

    pub(crate) fn target(&mut self, path: &HostPath, record: Option<TargetRecord>) {
        self.changes.push(Change::Target(path.clone(), record));
    }
}

/// The writing side: the database, once there is one, and what waits to be written.
struct Writer {
    disk: Disk,
    database: Mutex<Option<Database>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Row>,
    /// The ticket of the last batch that was queued.
    queued: u64,
    /// The ticket of the last batch that was committed.
    committed: u64,
    /// Why nothing can be written any more.
    broken: Option<String>,
}

/// The ledger of one process.
pub struct Ledger {
    runtime: Arc<dyn Runtime>,
    tables: Mutex<Tables>,
    writer: Arc<Writer>,
}

impl Ledger {
    /// Opens the ledger on `disk`; an empty disk is an empty ledger.
    ///
    /// # Errors
    /// [`LedgerError`]: the disk fails, holds something else, or a record cannot be read.
    pub(crate) async fn open(disk: Disk, runtime: Arc<dyn Runtime>) -> Result<Arc<Self>, LedgerError> {
        let (result, waiting) = oneshot::channel();
        let work = Box::new(move || {
            let _ = result.send(load(disk));
        });
        runtime.blocking(work).await;
        let (tables, writer) = waiting.await.map_err(|_| LedgerError::CutShort)??;
        Ok(Arc::new(Self {
            runtime,
            tables: Mutex::new(tables),
            writer: Arc::new(writer),
        }))
    }

    /// Reads the copy in memory.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&lock(&self.tables))
    }

    /// Why nothing can be written any more; `None` while all is well.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.writer.queue).broken.clone()
    }

    /// Decides a change and makes it durable. If `decide` refuses, nothing changes; if it changes nothing, nothing is
    /// committed.
    ///
    /// # Errors
    /// What `decide` says, or `INTERNAL` if the disk fails: the change then may or may not be there after a restart.
    pub(crate) async fn update<T: Send>(
        &self,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, Status> + Send,
    ) -> Result<T, Status> {
        let (answer, ticket) = {
            let mut tables = lock(&self.tables);
            let mut draft = Draft {
                tables: &tables,
                changes: Vec::new(),
            };
            let answer = decide(&mut draft)?;
            let changes = draft.changes;
            if changes.is_empty() {
                return Ok(answer);
            }
            let ticket = self.writer.enqueue(changes.iter().map(Change::to_row))?;
            changes.into_iter().for_each(|change| change.apply(&mut tables));
            (answer, ticket)
        };
        let writer = Arc::clone(&self.writer);
        self.runtime
            .blocking(Box::new(move || writer.commit_up_to(ticket)))
            .await;
        self.writer.outcome(ticket)?;
        Ok(answer)
    }
}

impl Writer {
    fn enqueue(&self, rows: impl Iterator<Item = Row>) -> Result<u64, Status> {
        let mut queue = lock(&self.queue);
        if let Some(why) = &queue.broken {
            return Err(Status::internal(format!("the ledger cannot be written: {why}")));
        }
        queue.waiting.extend(rows);
        queue.queued += 1;
        Ok(queue.queued)
    }

    /// Writes everything that waits, unless someone else has already written the batch with this ticket.
    fn commit_up_to(&self, ticket: u64) {
        let mut database = lock(&self.database);
        let (rows, last) = {
            let mut queue = lock(&self.queue);
            if queue.committed >= ticket || queue.broken.is_some() {
                return;
            }
            (std::mem::take(&mut queue.waiting), queue.queued)
        };
        let result = write(&self.disk, &mut database, &rows);
        let mut queue = lock(&self.queue);
        match result {
            Ok(()) => queue.committed = last,
            Err(error) => queue.broken = Some(describe(&error)),
        }
    }

    fn outcome(&self, ticket: u64) -> Result<(), Status> {
        let queue = lock(&self.queue);
        if queue.committed >= ticket {
            return Ok(());
        }
        let why = queue.broken.as_deref().unwrap_or("the work was cut short");
        Err(Status::internal(format!("the ledger cannot be written: {why}")))
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

fn write(disk: &Disk, database: &mut Option<Database>, rows: &[Row]) -> Result<(), LedgerError> {
    let database = match database {
        Some(database) => database,
        None => database.insert(open_database(disk)?),
    };
    let transaction = database.begin_write()?;
    for row in rows {
        let mut table = transaction.open_table(row.table)?;
        match &row.value {
            Some(value) => table.insert(row.key.as_str(), value.as_slice())?,
            None => table.remove(row.key.as_str())?,
        };
    }
    transaction.commit()?;
    Ok(())
}

/// Opens the database on a disk, creating it on an empty one, in the present format.
fn open_database(disk: &Disk) -> Result<Database, LedgerError> {
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(disk.clone())?;
    let format = match database.begin_read()?.open_table(META) {
        Ok(table) => table.get(FORMAT_KEY)?.map(|value| value.value().to_vec()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match format {
        Some(format) if format == FORMAT => {}
        Some(format) => return Err(LedgerError::Format(String::from_utf8_lossy(&format).into_owned())),
        None => {
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
            for table in [VOLUMES, PUBLICATIONS, STAGED, TARGETS] {
                transaction.open_table(table)?;
            }
            transaction.commit()?;
        }
    }
    Ok(database)
}

fn load(disk: Disk) -> Result<(Tables, Writer), LedgerError> {
    let mut tables = Tables::default();
    let database = if is_unborn(&disk)? {
        None
    } else {
        let database = open_database(&disk)?;
        let transaction = database.begin_read()?;
        for (key, record) in rows(&transaction, VOLUMES)? {
            tables.volumes.insert(VolumeId::new(key), record);
        }
        for (key, record) in rows(&transaction, PUBLICATIONS)? {
            let (volume, node) = key.split_once(SEPARATOR).unwrap_or((&key, ""));
            tables
                .publications
                .insert((VolumeId::new(volume), NodeId::new(node)), record);
        }
        for (key, record) in rows(&transaction, STAGED)? {
            tables.staged.insert(VolumeId::new(key), record);
        }
        for (key, record) in rows(&transaction, TARGETS)? {
            let path = HostPath::parse(&key).map_err(|why| LedgerError::Record {
                table: TARGETS.name().to_owned(),
                key: key.clone(),
                source: serde::de::Error::custom(why),
            })?;
            tables.targets.insert(path, record);
        }
        drop(transaction);
        Some(database)
    };
    Ok((
        tables,
        Writer {
            disk,
            database: Mutex::new(database),
            queue: Mutex::default(),
        },
    ))
}

/// Was nothing ever committed here? A crash while the database is created leaves a disk without its first bytes,
/// which are written last: it is emptied, so that creation starts over.
fn is_unborn(disk: &Disk) -> Result<bool, LedgerError> {
    let len = disk.len().map_err(LedgerError::Disk)?;
    if len == 0 {
        return Ok(true);
    }
    let mut first = [0; MAGIC.len()];
    if len >= first.len() as u64 {
        disk.read(0, &mut first).map_err(LedgerError::Disk)?;
    }
    if first == *MAGIC {
        return Ok(false);
    }
    if first != [0; MAGIC.len()] {
        return Err(LedgerError::Foreign);
    }
    disk.set_len(0).map_err(LedgerError::Disk)?;
    Ok(true)
}

fn rows<R: DeserializeOwned>(transaction: &redb::ReadTransaction, table: Raw) -> Result<Vec<(String, R)>, LedgerError> {
    let opened = transaction.open_table(table)?;
    let mut rows = Vec::new();
    for row in opened.iter()? {
        let (key, value) = row?;
        let key = key.value().to_owned();
        let record = serde_json::from_slice(value.value()).map_err(|source| LedgerError::Record {
            table: table.name().to_owned(),
            key: key.clone(),
            source,
        })?;
        rows.push((key, record));
    }
    Ok(rows)
}
