//! The database behind the ledger: opening, reading it all, writing rows.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::LedgerError;
use super::tables::{ALL, FIRST, Raw, Row, Tables, name};
use crate::runtime::Disk;

const META: Raw = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const FORMAT: &[u8] = b"1";
/// The first bytes of a redb file, written last when one is created.
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
const CACHE_BYTES: usize = 1 << 20;
/// How many commits replace pages before those are free again.
const KEPT_COMMITS: u32 = 8;

/// The database while it is open.
///
/// After a commit redb frees the pages that nobody reads any more, and keeps books of that in a further transaction, a
/// quarter of the cost of a commit. While a reader stays it does not; so one stays for some commits, then another.
pub(super) struct Open {
    /// Closed before the database is.
    reader: Option<ReadTransaction>,
    commits: u32,
    database: Database,
}

impl Open {
    fn commit(&mut self, rows: &[Row]) -> Result<(), LedgerError> {
        self.commits += 1;
        if self.commits.is_multiple_of(KEPT_COMMITS) {
            self.reader = None;
        }
        self.write(rows)?;
        if self.reader.is_none() {
            self.reader = Some(self.database.begin_read()?);
        }
        Ok(())
    }

    fn write(&self, rows: &[Row]) -> Result<(), LedgerError> {
        let transaction = self.database.begin_write()?;
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
}

/// Writes rows as one commit; opens the database if it is not open.
pub(super) fn write(disk: &Disk, open: &mut Option<Open>, rows: &[Row]) -> Result<(), LedgerError> {
    let open = match open {
        Some(open) => open,
        None => open.insert(open_database(disk)?),
    };
    open.commit(rows)
}

/// Opens the database on a disk, creating it on an empty one, in the present format.
fn open_database(disk: &Disk) -> Result<Open, LedgerError> {
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
    Ok(Open {
        reader: None,
        commits: 0,
        database,
    })
}

/// Reads everything; no database is opened on an empty disk.
pub(super) fn load(disk: &Disk) -> Result<(Tables, Option<Open>), LedgerError> {
    let mut tables = Tables::default();
    if is_unborn(disk)? {
        return Ok((tables, None));
    }
    let open = open_database(disk)?;
    let transaction = open.database.begin_read()?;
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
    Ok((tables, Some(open)))
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

#[cfg(test)]
mod tests {
    use redb::StorageBackend as _;
    use redb::backends::InMemoryBackend;

    use super::{KEPT_COMMITS, write};
    use crate::ledger::tables::{ALL, Row};
    use crate::runtime::Disk;

    #[test]
    fn pages_that_commits_replace_are_used_again() {
        let disk = Disk::new(InMemoryBackend::new());
        let mut open = None;
        let mut commit = |nth: u32| {
            let row = Row {
                table: ALL[0],
                key: format!("volume {}", nth % 5),
                value: Some(vec![0; 300]),
            };
            write(&disk, &mut open, &[row]).unwrap();
            disk.len().unwrap()
        };
        let early = (0..10 * KEPT_COMMITS).map(&mut commit).max();
        let late = (0..100 * KEPT_COMMITS).map(&mut commit).max();
        assert!(late <= early, "{early:?} bytes at first, {late:?} later");
    }
}
