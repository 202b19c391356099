//! The same work as `rpc` measures, without the driver: system calls and durable writes made directly. Needs root.
//!
//! Run with `cargo bench -p wavetank-driver`; `docs/driver.md` has the table.

use std::io::Write as _;
use std::sync::Arc;

use divan::Bencher;
use redb::{Database, TableDefinition};
use wavetank_driver::host::{Mount, NewFs};
use wavetank_driver::linux::{LinuxHost, LinuxPool, Store, StoreShape};
use wavetank_driver::pool::{NewVolume, Provisioning};
use wavetank_driver::runtime::{OnTheSpot, Runtime};
use wavetank_driver::units::FsKind;
use wavetank_driver::{Access, Bytes, Host, HostPath, Pool, VolumeId};

fn main() {
    divan::main();
}

fn thin(id: &VolumeId) -> NewVolume {
    NewVolume {
        id: id.clone(),
        size: Bytes::mi(64),
        kind: "thin".to_owned(),
        provisioning: Provisioning::Thin,
        segments: Default::default(),
        source: None,
        encrypted: false,
        shared_fs: None,
        settings: Default::default(),
    }
}

/// What `stage_and_unstage` does to the machine, and nothing else: no driver, no socket; and the same with the durable writes of a ledger.
#[divan::bench(args = [0, 4])]
fn direct_stage_and_unstage(bencher: Bencher<'_, '_>, commits: usize) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().canonicalize().expect("a path");
    let store = Store::open(StoreShape {
        reach: wavetank_driver::linux::Reach::Own,
        root: root.join("state"),
        node: "n1".into(),
        segments: Default::default(),
        limit: None,
        kinds: [("thin".to_owned(), None)].into(),
    });
    let store = Arc::new(store.expect("a store"));
    let runtime: Arc<dyn Runtime> = Arc::new(OnTheSpot);
    let pool = LinuxPool::new(Arc::clone(&store), Arc::clone(&runtime));
    let host = LinuxHost::new(store, runtime);
    let id = VolumeId::from("v");
    let target = root.join("stage");
    std::fs::create_dir(&target).expect("a directory");
    let target = HostPath::parse(target.to_str().expect("plain")).expect("plain");
    let local = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let database = Database::create(root.join("ledger.redb")).expect("a database");
    let context = local.block_on(async {
        pool.create(&thin(&id)).await.expect("a volume");
        let context = pool
            .export(&id, &"n1".into(), Access::ReadWrite)
            .await
            .expect("an export");
        let device = host.attach(&id, &context, Access::ReadWrite).await.expect("a device");
        let fs = NewFs {
            kind: FsKind::Ext4,
            label: "v".to_owned(),
            uuid: "00000000-0000-4000-8000-000000000001".to_owned(),
            forced: false,
        };
        host.mkfs(&device, &fs).await.expect("a file system");
        host.detach(&id).await.expect("no device");
        context
    });
    bencher.bench_local(|| {
        local.block_on(async {
            let device = host.attach(&id, &context, Access::ReadWrite).await.expect("a device");
            host.probe(&device).await.expect("what is on it");
            host.fsck(&device, FsKind::Ext4).await.expect("sound");
            let mount = Mount {
                device,
                target: target.clone(),
                kind: FsKind::Ext4,
                flags: Vec::new(),
                access: Access::ReadWrite,
            };
            host.mount(&mount).await.expect("mounted");
            host.unmount(&target).await.expect("unmounted");
            host.detach(&id).await.expect("no device");
            (0..commits).for_each(|_| commit(&database, Some(&[7; 900])));
        });
    });
}

/// The durable writes of `create_and_delete` on the loop backend: the ledger's two commits for each call, an image with a file beside it, and the
/// directory of both.
#[divan::bench]
fn direct_durable_writes(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let names = std::fs::File::open(directory.path()).expect("the directory");
    let database = Database::create(at("ledger.redb")).expect("a database");
    let record = [7; 900];
    bencher.bench_local(|| {
        commit(&database, Some(&record));
        let image = std::fs::File::create(at("v.draft")).expect("an image");
        image.set_len(64 << 20).expect("its size");
        image.sync_all().expect("durable");
        std::fs::rename(at("v.draft"), at("v.img")).expect("in its place");
        let mut beside = std::fs::File::create(at("v.json-draft")).expect("a file");
        beside.write_all(&record[..300]).expect("written");
        beside.sync_data().expect("durable");
        std::fs::rename(at("v.json-draft"), at("v.json")).expect("in its place");
        names.sync_all().expect("durable");
        commit(&database, Some(&record));
        commit(&database, Some(&record));
        std::fs::remove_file(at("v.json")).expect("removed");
        std::fs::remove_file(at("v.img")).expect("removed");
        names.sync_all().expect("durable");
        commit(&database, None);
    });
}

/// The ledger's commits of `create_and_delete`, alone.
#[divan::bench]
fn direct_four_commits(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::create(directory.path().join("ledger.redb")).expect("a database");
    let record = [7; 900];
    bencher.bench_local(|| {
        for record in [Some(&record), Some(&record), Some(&record), None] {
            commit(&database, record.map(|record| &record[..]));
        }
    });
}

/// One durable write of a record, or of its end.
fn commit(database: &Database, record: Option<&[u8]>) {
    const TABLE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("volumes");
    let transaction = database.begin_write().expect("a transaction");
    {
        let mut table = transaction.open_table(TABLE).expect("a table");
        match record {
            Some(record) => table.insert("v", record).expect("written"),
            None => table.remove("v").expect("removed"),
        };
    }
    transaction.commit().expect("durable");
}
