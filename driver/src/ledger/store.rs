//! The database behind the ledger: opening, reading it all, writing rows.

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::LedgerError;
use super::tables::{ALL, FIRST, Raw, Row, Tables, name};
use crate::runtime::Disk;

const META: Raw = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const FORMAT: &[u8] = b"1";
/// The first bytes of a redb file, written last when one is created.
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
const CACHE_BYTES: usize = 1 << 20;

/// Writes rows as one commit; opens the database if it is not open.
pub(super) fn write(disk: &Disk, database: &mut Option<Database>, rows: &[Row]) -> Result<(), LedgerError> {
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
            for table in FIRST {
                transaction.open_table(table)?;
            }
            transaction.commit()?;
        }
    }
    Ok(database)
}

/// Reads everything; no database is opened on an empty disk.
pub(super) fn load(disk: &Disk) -> Result<(Tables, Option<Database>), LedgerError> {
    let mut tables = Tables::default();
    if is_unborn(disk)? {
        return Ok((tables, None));
    }
    let database = open_database(disk)?;
    let transaction = database.begin_read()?;
    for table in ALL {
        let opened = match transaction.open_table(table) {
            Err(redb::TableError::TableDoesNotExist(_)) => continue,
            opened => opened?,
        };
        for row in opened.iter()? {
            let (key, value) = row?;
            tables.take(&name(table), key.value(), value.value())?;
        }
    }
    drop(transaction);
    Ok((tables, Some(database)))
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
