//! The rules of the modelled disk, bare and below a real ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};

use super::super::turns::{Fence, Gate, Loss, OpGate, Trouble};
use super::{ModelDisk, OpenDisk};

const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("counts");

/// Acts at the nth operation.
struct At(u64, Gate);

impl OpGate for At {
    fn before(&self, _: &'static str, nth: u64) -> Gate {
        if nth == self.0 { self.1 } else { Gate::Proceed }
    }
}

fn opened(disk: &ModelDisk) -> OpenDisk {
    disk.open(Fence::new(), None)
}

fn byte(disk: &OpenDisk, offset: u64) -> u8 {
    let mut out = [0];
    disk.read(offset, &mut out).unwrap();
    out[0]
}

/// A disk of 16 KiB with a synced `1` at 0 and three unsynced writes: 2 at 0, a torn-able page of 3 at 4096, 4 at 8192.
fn with_pending() -> ModelDisk {
    let disk = ModelDisk::new();
    let open = opened(&disk);
    open.set_len(16384).unwrap();
    open.write(0, &[1]).unwrap();
    open.sync_data().unwrap();
    open.write(0, &[2]).unwrap();
    open.write(4096, &[3; 4096]).unwrap();
    open.write(8192, &[4]).unwrap();
    disk
}

#[test]
fn a_disk_costs_nothing_until_written() {
    let disk = ModelDisk::new();
    opened(&disk).set_len(1 << 40).unwrap();
    assert_eq!(disk.allocated(), 0);
    assert_eq!(
        byte(&opened(&disk), 1 << 39),
        0,
        "what was never written reads as zeroes"
    );
}

#[test]
fn a_process_crash_keeps_what_was_written_a_power_loss_what_was_synced() {
    let disk = with_pending();
    assert_eq!(byte(&opened(&disk), 0), 2, "the page cache outlives the process");
    for (loss, expected) in [
        (Loss::All, [1, 0, 0, 0]),
        (Loss::Keep(1), [2, 0, 0, 0]),
        (Loss::Keep(2), [2, 3, 3, 0]),
        (Loss::Keep(9), [2, 3, 3, 4]),
        (Loss::Tear(1), [2, 3, 0, 0]),
        (Loss::Tear(2), [2, 3, 3, 0]),
    ] {
        let disk = with_pending();
        disk.power_loss(loss);
        let open = opened(&disk);
        let seen = [0, 4096, 4096 + 2048, 8192].map(|offset| byte(&open, offset));
        assert_eq!(seen, expected, "{loss:?}");
        assert_eq!(disk.unsynced(), 0);
    }
}

#[test]
fn a_lost_change_of_length_gives_the_bytes_back() {
    let disk = with_pending();
    opened(&disk).sync_data().unwrap();
    let open = opened(&disk);
    open.set_len(4100).unwrap();
    open.set_len(16384).unwrap();
    assert_eq!(byte(&open, 4099), 3);
    assert_eq!(byte(&open, 4100), 0, "cut off and grown again: zeroes");
    disk.power_loss(Loss::All);
    assert_eq!(byte(&opened(&disk), 4100), 3);
    assert_eq!(byte(&opened(&disk), 8192), 4);
}

#[test]
fn a_frozen_incarnation_and_an_older_one_change_nothing() {
    let disk = ModelDisk::new();
    let fence = Fence::new();
    let old = disk.open(fence.clone(), None);
    old.set_len(8).unwrap();
    fence.freeze();
    assert!(old.write(0, &[9]).is_err());
    assert!(old.len().is_err());
    let second = opened(&disk);
    let third = opened(&disk);
    assert!(second.write(0, &[9]).is_err(), "superseded, although nobody froze it");
    assert_eq!(byte(&third, 0), 0);
}

#[test]
fn the_gate_fails_or_kills_at_the_nth_operation() {
    let disk = ModelDisk::new();
    let open = disk.open(Fence::new(), Some(Arc::new(At(2, Gate::Fail(Trouble::NoSpace)))));
    open.set_len(8).unwrap();
    let error = open.write(0, &[1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    open.write(0, &[1]).unwrap();

    let fence = Fence::new();
    let open = disk.open(fence.clone(), Some(Arc::new(At(2, Gate::Freeze))));
    open.write(0, &[2]).unwrap();
    assert!(open.write(0, &[3]).is_err());
    assert!(fence.is_frozen());
    assert!(open.sync_data().is_err(), "nothing after the crash happens");
    assert_eq!(byte(&opened(&disk), 0), 2);
}

#[test]
fn a_full_disk_refuses_to_grow_and_still_works() {
    let disk = ModelDisk::new();
    disk.limit(Some(8192));
    let open = opened(&disk);
    open.set_len(8192).unwrap();
    assert_eq!(open.set_len(8193).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    open.write(8191, &[1]).unwrap();
    assert!(open.write(8191, &[1, 1]).is_err(), "writing never grows a file");
}

fn ledger(disk: OpenDisk) -> Result<Database, redb::DatabaseError> {
    Database::builder().create_with_backend(disk)
}

fn count(ledger: &Database, value: u64) -> Result<(), redb::Error> {
    let transaction = ledger.begin_write()?;
    transaction.open_table(TABLE)?.insert(0, value)?;
    transaction.commit()?;
    Ok(())
}

fn counted(ledger: &Database) -> u64 {
    let transaction = ledger.begin_read().unwrap();
    let Ok(table) = transaction.open_table(TABLE) else {
        return 0;
    };
    table.get(0).unwrap().map_or(0, |value| value.value())
}

/// Counts operations and dies at the last allowed one.
struct DiesAt(AtomicU64, u64);

impl OpGate for DiesAt {
    fn before(&self, _: &'static str, nth: u64) -> Gate {
        self.0.store(nth, Ordering::Relaxed);
        if nth == self.1 { Gate::Freeze } else { Gate::Proceed }
    }
}

/// Makes a ledger, commits 1 and 2 in it, and dies at operation `dies_at`. Returns what was acknowledged and how many operations there were.
fn lives_until(disk: &ModelDisk, dies_at: u64) -> (u64, u64) {
    let gate = Arc::new(DiesAt(AtomicU64::new(0), dies_at));
    let mut acknowledged = 0;
    if let Ok(ledger) = ledger(disk.open(Fence::new(), Some(Arc::clone(&gate) as _))) {
        for value in 1..=2 {
            if count(&ledger, value).is_ok() {
                acknowledged = value;
            }
        }
    }
    (acknowledged, gate.0.load(Ordering::Relaxed))
}

/// What the whole design rests on: whatever the operation at which the power fails, and whatever it leaves, the ledger opens again and holds what
/// was acknowledged.
#[test]
fn a_ledger_survives_a_power_loss_at_every_operation() {
    let (_, operations) = lives_until(&ModelDisk::new(), u64::MAX);
    assert!(operations > 10);
    for dies_at in 1..=operations {
        for loss in [
            Loss::All,
            Loss::Keep(1),
            Loss::Tear(0),
            Loss::Tear(2),
            Loss::Keep(usize::MAX),
        ] {
            let disk = ModelDisk::new();
            let (acknowledged, _) = lives_until(&disk, dies_at);
            disk.power_loss(loss);
            let Ok(ledger) = ledger(opened(&disk)) else {
                // Only a ledger that was never made may be unreadable: its file must then be as good as empty.
                assert_eq!(acknowledged, 0, "operation {dies_at}, {loss:?}");
                continue;
            };
            let found = counted(&ledger);
            assert!(
                found >= acknowledged && found <= acknowledged + 1,
                "operation {dies_at}, {loss:?}: {found} after {acknowledged}"
            );
        }
    }
}
