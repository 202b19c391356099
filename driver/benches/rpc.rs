//! What a call of the process costs, on both backends, over its socket; and beside it the same work without the driver.
//!
//! Run with `cargo bench -p wavetank-driver`; the loop backend, and what it is compared with, need root. `docs/driver.md` has the table.

#[path = "../tests/process/rig.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod rig;

use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use futures::future::{BoxFuture, join_all};
use redb::{Database, TableDefinition};
use rig::{Callers, Life, Place, mount, size};
use wavetank_driver::host::{Mount, NewFs};
use wavetank_driver::linux::{LinuxHost, LinuxPool, Store, StoreShape};
use wavetank_driver::pool::{NewVolume, Provisioning};
use wavetank_driver::runtime::Runtime;
use wavetank_driver::units::FsKind;
use wavetank_driver::{Access, Bytes, Host, HostPath, Pool, VolumeId};
use wavetank_proto::csi::v1 as csi;

const MI: i64 = 1 << 20;
const BACKENDS: [&str; 2] = ["memory", "loop"];

fn main() {
    divan::main();
}

/// A process of the driver, and the runtime on which its callers live.
struct Bench {
    runtime: tokio::runtime::Runtime,
    place: Place,
    life: Option<Life>,
    id: String,
}

impl Bench {
    /// `None` where the backend cannot run.
    fn start(backend: &'static str) -> Option<Self> {
        if backend == "loop" && !rustix::process::geteuid().is_root() {
            return None;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .ok()?;
        let mut place = Place::new(backend, &["--log-level", "error"]);
        let life = runtime.block_on(place.start());
        std::fs::create_dir_all(place.path("pods")).expect("a directory");
        std::fs::create_dir_all(place.path("stage")).expect("a directory");
        let id = String::new();
        Some(Self {
            runtime,
            place,
            life: Some(life),
            id,
        })
    }

    fn calls(&self) -> Callers {
        self.life.as_ref().expect("it lives").calls.clone()
    }

    /// Makes the volume and brings it as far as is asked.
    fn bring(&mut self, steps: usize) {
        let mut calls = self.calls();
        let made = self.runtime.block_on(calls.controller.create_volume(create("v")));
        self.id = made.expect("a volume").into_inner().volume.expect("a volume").volume_id;
        if steps > 0 {
            self.runtime.block_on(attach(&mut calls, &self.id));
        }
        if steps > 1 {
            self.runtime.block_on(stage(&mut calls, &self.place, &self.id));
        }
        if steps > 2 {
            self.runtime.block_on(publish(&mut calls, &self.place, &self.id));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let mut calls = self.calls();
        if !self.id.is_empty() {
            self.runtime.block_on(async {
                hide(&mut calls, &self.place, &self.id).await;
                unstage(&mut calls, &self.place, &self.id).await;
                detach(&mut calls, &self.id).await;
                delete(&mut calls, &self.id).await;
            });
        }
        if let Some(life) = self.life.take() {
            life.kill();
        }
    }
}

fn create(name: &str) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: size(64 * MI),
        volume_capabilities: vec![mount("ext4")],
        ..Default::default()
    }
}

async fn attach(calls: &mut Callers, id: &str) {
    let request = csi::ControllerPublishVolumeRequest {
        volume_id: id.to_owned(),
        node_id: "n1".to_owned(),
        volume_capability: Some(mount("ext4")),
        ..Default::default()
    };
    calls
        .controller
        .controller_publish_volume(request)
        .await
        .expect("attached");
}

async fn detach(calls: &mut Callers, id: &str) {
    let request = csi::ControllerUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        node_id: "n1".to_owned(),
        ..Default::default()
    };
    calls
        .controller
        .controller_unpublish_volume(request)
        .await
        .expect("detached");
}

async fn stage(calls: &mut Callers, place: &Place, id: &str) {
    let request = csi::NodeStageVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: place.text("stage"),
        volume_capability: Some(mount("ext4")),
        ..Default::default()
    };
    calls.node.node_stage_volume(request).await.expect("staged");
}

async fn unstage(calls: &mut Callers, place: &Place, id: &str) {
    let request = csi::NodeUnstageVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: place.text("stage"),
    };
    calls.node.node_unstage_volume(request).await.expect("unstaged");
}

async fn publish(calls: &mut Callers, place: &Place, id: &str) {
    let request = csi::NodePublishVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: place.text("stage"),
        target_path: place.text("pods/v"),
        volume_capability: Some(mount("ext4")),
        ..Default::default()
    };
    calls.node.node_publish_volume(request).await.expect("published");
}

async fn hide(calls: &mut Callers, place: &Place, id: &str) {
    let request = csi::NodeUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: place.text("pods/v"),
    };
    calls.node.node_unpublish_volume(request).await.expect("hidden");
}

async fn delete(calls: &mut Callers, id: &str) {
    let volume_id = id.to_owned();
    let request = csi::DeleteVolumeRequest {
        volume_id,
        ..Default::default()
    };
    calls.controller.delete_volume(request).await.expect("deleted");
}

#[divan::bench(args = BACKENDS)]
fn create_and_delete(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(bench) = Bench::start(backend) else { return };
    let mut calls = bench.calls();
    bencher.bench_local(|| {
        bench.runtime.block_on(async {
            let made = calls.controller.create_volume(create("w")).await.expect("made");
            delete(&mut calls, &made.into_inner().volume.expect("a volume").volume_id).await;
        });
    });
}

#[divan::bench(args = BACKENDS)]
fn attach_and_detach(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(0);
    let mut calls = bench.calls();
    bencher.bench_local(|| {
        bench.runtime.block_on(async {
            attach(&mut calls, &bench.id).await;
            detach(&mut calls, &bench.id).await;
        });
    });
}

/// On a file system that is there: making one is its tool's time.
#[divan::bench(args = BACKENDS)]
fn stage_and_unstage(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(2);
    let mut calls = bench.calls();
    bench.runtime.block_on(unstage(&mut calls, &bench.place, &bench.id));
    bencher.bench_local(|| {
        bench.runtime.block_on(async {
            stage(&mut calls, &bench.place, &bench.id).await;
            unstage(&mut calls, &bench.place, &bench.id).await;
        });
    });
}

#[divan::bench(args = BACKENDS)]
fn publish_and_unpublish(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(2);
    let mut calls = bench.calls();
    bencher.bench_local(|| {
        bench.runtime.block_on(async {
            publish(&mut calls, &bench.place, &bench.id).await;
            hide(&mut calls, &bench.place, &bench.id).await;
        });
    });
}

#[divan::bench(args = BACKENDS)]
fn stats(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(3);
    let mut calls = bench.calls();
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: bench.id.clone(),
        volume_path: bench.place.text("pods/v"),
        ..Default::default()
    };
    bencher.bench_local(|| {
        let asked = calls.node.node_get_volume_stats(request.clone());
        bench.runtime.block_on(asked).expect("statistics");
    });
}

#[divan::bench(args = BACKENDS)]
fn snapshot_and_delete(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(0);
    let mut calls = bench.calls();
    let cut = csi::CreateSnapshotRequest {
        source_volume_id: bench.id.clone(),
        name: "s".to_owned(),
        ..Default::default()
    };
    bencher.bench_local(|| {
        bench.runtime.block_on(async {
            let made = calls.controller.create_snapshot(cut.clone()).await.expect("cut");
            let snapshot_id = made.into_inner().snapshot.expect("a snapshot").snapshot_id;
            let gone = csi::DeleteSnapshotRequest {
                snapshot_id,
                ..Default::default()
            };
            calls.controller.delete_snapshot(gone).await.expect("gone");
        });
    });
}

/// Each time one MiB more, on a volume that nobody uses.
#[divan::bench(args = BACKENDS, sample_count = 50, sample_size = 1)]
fn expand(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(0);
    let mut calls = bench.calls();
    let mut bytes = 64 * MI;
    bencher.bench_local(|| {
        bytes += MI;
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: bench.id.clone(),
            capacity_range: size(bytes),
            ..Default::default()
        };
        bench
            .runtime
            .block_on(calls.controller.controller_expand_volume(request))
            .expect("grown");
    });
}

/// What looks and changes nothing.
#[divan::bench(args = BACKENDS)]
fn capacity(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(bench) = Bench::start(backend) else { return };
    let mut calls = bench.calls();
    bencher.bench_local(|| {
        let asked = calls.controller.get_capacity(csi::GetCapacityRequest::default());
        bench.runtime.block_on(asked).expect("room");
    });
}

/// The same request, answered from memory, so many at once over one connection.
#[divan::bench(args = [1, 64], sample_count = 20, sample_size = 1)]
fn repeats(bencher: Bencher<'_, '_>, at_once: usize) {
    const EACH: usize = 20_000;
    let Some(mut bench) = Bench::start("memory") else {
        return;
    };
    bench.bring(0);
    let calls = bench.calls();
    bencher.counter(ItemsCount::new(EACH)).bench_local(|| {
        let callers = (0..at_once).map(|_| {
            let mut calls = calls.clone();
            async move {
                for _ in 0..EACH / at_once {
                    calls
                        .controller
                        .create_volume(create("v"))
                        .await
                        .expect("the same answer");
                }
            }
        });
        bench.runtime.block_on(join_all(callers));
    });
}

/// 10,000 volumes, 100 on a page, on both backends that can hold them.
#[divan::bench(args = [1_000, 10_000], sample_count = 3, sample_size = 1)]
fn list_page_by_page(bencher: Bencher<'_, '_>, volumes: usize) {
    let Some(bench) = Bench::start("memory") else { return };
    let calls = bench.calls();
    bench.runtime.block_on(async {
        let makers = (0..64).map(|maker| {
            let mut calls = calls.clone();
            async move {
                for nth in (maker..volumes).step_by(64) {
                    let tiny = csi::CreateVolumeRequest {
                        capacity_range: size(MI),
                        ..create(&format!("l{nth}"))
                    };
                    calls.controller.create_volume(tiny).await.expect("made");
                }
            }
        });
        join_all(makers).await;
    });
    let mut calls = bench.calls();
    bencher.counter(ItemsCount::new(volumes)).bench_local(|| {
        bench.runtime.block_on(async {
            let mut starting_token = String::new();
            loop {
                let page = csi::ListVolumesRequest {
                    max_entries: 100,
                    starting_token,
                };
                starting_token = calls
                    .controller
                    .list_volumes(page)
                    .await
                    .expect("a page")
                    .into_inner()
                    .next_token;
                if starting_token.is_empty() {
                    break;
                }
            }
        });
    });
}

/// Work that blocks is done on the spot.
struct OnTheSpot;

impl Runtime for OnTheSpot {
    fn spawn(&self, _: BoxFuture<'static, ()>) {
        unreachable!("hosts and pools start no tasks")
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> BoxFuture<'static, ()> {
        Box::pin(async move { work() })
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        unreachable!("hosts and pools do not sleep")
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Duration {
        Duration::ZERO
    }
}

/// What `stage_and_unstage` does to the machine, and nothing else: no ledger, no socket.
#[divan::bench]
fn direct_stage_and_unstage(bencher: Bencher<'_, '_>) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().canonicalize().expect("a path");
    let store = Store::open(StoreShape {
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
    let new = NewVolume {
        id: id.clone(),
        size: Bytes::mi(64),
        kind: "thin".to_owned(),
        provisioning: Provisioning::Thin,
        segments: Default::default(),
        source: None,
        encrypted: false,
        shared_fs: None,
        settings: Default::default(),
    };
    let target = root.join("stage");
    std::fs::create_dir(&target).expect("a directory");
    let target = HostPath::parse(target.to_str().expect("plain")).expect("plain");
    let local = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let context = local.block_on(async {
        pool.create(&new).await.expect("a volume");
        let context = pool
            .export(&id, &"n1".into(), Access::ReadWrite)
            .await
            .expect("an export");
        let device = host.attach(&id, &context, Access::ReadWrite).await.expect("a device");
        let fs = NewFs {
            kind: FsKind::Ext4,
            label: "v".to_owned(),
            uuid: "00000000-0000-4000-8000-000000000001".to_owned(),
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
        });
    });
}

/// As many durable writes as `create_and_delete` makes in its ledger: two for each call.
#[divan::bench]
fn direct_four_commits(bencher: Bencher<'_, '_>) {
    const TABLE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("volumes");
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::create(directory.path().join("ledger.redb")).expect("a database");
    let record = [7; 900];
    bencher.bench_local(|| {
        for write in 0..4 {
            let transaction = database.begin_write().expect("a transaction");
            {
                let mut table = transaction.open_table(TABLE).expect("a table");
                if write < 3 {
                    table.insert("v", &record[..]).expect("written");
                } else {
                    table.remove("v").expect("removed");
                }
            }
            transaction.commit().expect("durable");
        }
    });
}
