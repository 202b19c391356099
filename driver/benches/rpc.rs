//! What a call of the process costs, on both backends, over its socket.
//!
//! Run with `cargo bench -p wavetank-driver`; the loop backend needs root, and `direct` is what it is compared with. `docs/driver.md` has the table.

#[path = "../tests/process/rig.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod rig;

use divan::Bencher;
use divan::counter::ItemsCount;
use futures::future::join_all;
use rig::{Callers, Life, Place, mount, size};
use rustix::thread::{CpuSet, sched_setaffinity};
use tonic::Status;
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

async fn cut(calls: &mut Callers, source: &str, name: &str) -> String {
    let request = csi::CreateSnapshotRequest {
        source_volume_id: source.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    let made = calls.controller.create_snapshot(request).await.expect("cut");
    made.into_inner().snapshot.expect("a snapshot").snapshot_id
}

async fn drop_snapshot(calls: &mut Callers, snapshot_id: String) {
    let request = csi::DeleteSnapshotRequest {
        snapshot_id,
        ..Default::default()
    };
    calls.controller.delete_snapshot(request).await.expect("gone");
}

async fn cut_group(calls: &mut Callers, source: &str) -> csi::VolumeGroupSnapshot {
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: "g".to_owned(),
        source_volume_ids: vec![source.to_owned()],
        ..Default::default()
    };
    let made = calls.group.create_volume_group_snapshot(request).await.expect("cut");
    made.into_inner().group_snapshot.expect("a group")
}

fn ids(group: &csi::VolumeGroupSnapshot) -> Vec<String> {
    group.snapshots.iter().map(|one| one.snapshot_id.clone()).collect()
}

async fn drop_group(calls: &mut Callers, group: csi::VolumeGroupSnapshot) {
    let request = csi::DeleteVolumeGroupSnapshotRequest {
        snapshot_ids: ids(&group),
        group_snapshot_id: group.group_snapshot_id,
        ..Default::default()
    };
    calls.group.delete_volume_group_snapshot(request).await.expect("gone");
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
fn snapshot_and_delete(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(0);
    let mut calls = bench.calls();
    bencher.bench_local(|| {
        bench.runtime.block_on(async {
            let id = cut(&mut calls, &bench.id, "s").await;
            drop_snapshot(&mut calls, id).await;
        });
    });
}

#[divan::bench(args = BACKENDS)]
fn group_snapshot_and_delete(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(0);
    let mut calls = bench.calls();
    bencher.bench_local(|| {
        bench.runtime.block_on(async {
            let group = cut_group(&mut calls, &bench.id).await;
            drop_group(&mut calls, group).await;
        });
    });
}

/// Each time another value.
#[divan::bench(args = BACKENDS)]
fn modify(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(0);
    let mut calls = bench.calls();
    let mut iops = 100;
    bencher.bench_local(|| {
        iops += 1;
        let request = csi::ControllerModifyVolumeRequest {
            volume_id: bench.id.clone(),
            mutable_parameters: [("iops".to_owned(), iops.to_string())].into(),
            ..Default::default()
        };
        let modified = calls.controller.controller_modify_volume(request);
        bench.runtime.block_on(modified).expect("modified");
    });
}

/// Of a volume that fills its device already.
#[divan::bench(args = BACKENDS)]
fn node_expand(bencher: Bencher<'_, '_>, backend: &'static str) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(3);
    let mut calls = bench.calls();
    let request = csi::NodeExpandVolumeRequest {
        volume_id: bench.id.clone(),
        volume_path: bench.place.text("pods/v"),
        ..Default::default()
    };
    bencher.bench_local(|| {
        let grown = calls.node.node_expand_volume(request.clone());
        bench.runtime.block_on(grown).expect("it fills its device");
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

/// A call that changes nothing.
#[derive(Clone, Copy, Debug)]
enum Look {
    PluginInfo,
    PluginCapabilities,
    Probe,
    ControllerCapabilities,
    Capacity,
    ListVolumes,
    Volume,
    Validate,
    ListSnapshots,
    Snapshot,
    GroupCapabilities,
    Group,
    Allocated,
    Delta,
    NodeCapabilities,
    NodeInfo,
    Stats,
}

const LOOKS: [Look; 17] = [
    Look::PluginInfo,
    Look::PluginCapabilities,
    Look::Probe,
    Look::ControllerCapabilities,
    Look::Capacity,
    Look::ListVolumes,
    Look::Volume,
    Look::Validate,
    Look::ListSnapshots,
    Look::Snapshot,
    Look::GroupCapabilities,
    Look::Group,
    Look::Allocated,
    Look::Delta,
    Look::NodeCapabilities,
    Look::NodeInfo,
    Look::Stats,
];

#[divan::bench(args = LOOKS)]
fn look_memory(bencher: Bencher<'_, '_>, look: Look) {
    look_at(bencher, "memory", look);
}

#[divan::bench(args = LOOKS)]
fn look_loop(bencher: Bencher<'_, '_>, look: Look) {
    look_at(bencher, "loop", look);
}

/// One volume is published; of it there are two snapshots, and a group with one of its own.
fn look_at(bencher: Bencher<'_, '_>, backend: &'static str, look: Look) {
    let Some(mut bench) = Bench::start(backend) else { return };
    bench.bring(3);
    let mut calls = bench.calls();
    let [first, second] = ["s1", "s2"].map(|name| bench.runtime.block_on(cut(&mut calls, &bench.id, name)));
    let group = bench.runtime.block_on(cut_group(&mut calls, &bench.id));
    let about = About {
        volume: bench.id.clone(),
        path: bench.place.text("pods/v"),
        first: first.clone(),
        second: second.clone(),
        group: group.clone(),
    };
    bencher.bench_local(|| bench.runtime.block_on(about.ask(&mut calls, look)).expect("an answer"));
    bench.runtime.block_on(async {
        drop_group(&mut calls, group).await;
        drop_snapshot(&mut calls, first).await;
        drop_snapshot(&mut calls, second).await;
    });
}

/// What there is to ask about.
struct About {
    volume: String,
    path: String,
    first: String,
    second: String,
    group: csi::VolumeGroupSnapshot,
}

impl About {
    async fn ask(&self, calls: &mut Callers, look: Look) -> Result<(), Status> {
        match look {
            Look::PluginInfo | Look::PluginCapabilities | Look::Probe => ask_identity(calls, look).await,
            Look::GroupCapabilities | Look::Group | Look::Allocated | Look::Delta => self.ask_group(calls, look).await,
            Look::NodeCapabilities | Look::NodeInfo | Look::Stats => self.ask_node(calls, look).await,
            _ => self.ask_controller(calls, look).await,
        }
    }

    async fn ask_controller(&self, calls: &mut Callers, look: Look) -> Result<(), Status> {
        let controller = &mut calls.controller;
        match look {
            Look::ControllerCapabilities => controller
                .controller_get_capabilities(csi::ControllerGetCapabilitiesRequest {})
                .await
                .map(drop),
            Look::Capacity => controller
                .get_capacity(csi::GetCapacityRequest::default())
                .await
                .map(drop),
            Look::ListVolumes => controller
                .list_volumes(csi::ListVolumesRequest::default())
                .await
                .map(drop),
            Look::ListSnapshots => controller
                .list_snapshots(csi::ListSnapshotsRequest::default())
                .await
                .map(drop),
            Look::Volume => {
                let volume_id = self.volume.clone();
                controller
                    .controller_get_volume(csi::ControllerGetVolumeRequest { volume_id })
                    .await
                    .map(drop)
            }
            Look::Snapshot => {
                let snapshot_id = self.first.clone();
                let request = csi::GetSnapshotRequest {
                    snapshot_id,
                    ..Default::default()
                };
                controller.get_snapshot(request).await.map(drop)
            }
            _ => {
                let request = csi::ValidateVolumeCapabilitiesRequest {
                    volume_id: self.volume.clone(),
                    volume_capabilities: vec![mount("ext4")],
                    ..Default::default()
                };
                controller.validate_volume_capabilities(request).await.map(drop)
            }
        }
    }

    async fn ask_group(&self, calls: &mut Callers, look: Look) -> Result<(), Status> {
        match look {
            Look::GroupCapabilities => {
                let request = csi::GroupControllerGetCapabilitiesRequest {};
                calls.group.group_controller_get_capabilities(request).await.map(drop)
            }
            Look::Group => {
                let request = csi::GetVolumeGroupSnapshotRequest {
                    group_snapshot_id: self.group.group_snapshot_id.clone(),
                    snapshot_ids: ids(&self.group),
                    ..Default::default()
                };
                calls.group.get_volume_group_snapshot(request).await.map(drop)
            }
            Look::Allocated => {
                let request = csi::GetMetadataAllocatedRequest {
                    snapshot_id: self.first.clone(),
                    ..Default::default()
                };
                let mut told = calls.metadata.get_metadata_allocated(request).await?.into_inner();
                while told.message().await?.is_some() {}
                Ok(())
            }
            _ => {
                let request = csi::GetMetadataDeltaRequest {
                    base_snapshot_id: self.first.clone(),
                    target_snapshot_id: self.second.clone(),
                    ..Default::default()
                };
                let mut told = calls.metadata.get_metadata_delta(request).await?.into_inner();
                while told.message().await?.is_some() {}
                Ok(())
            }
        }
    }

    async fn ask_node(&self, calls: &mut Callers, look: Look) -> Result<(), Status> {
        match look {
            Look::NodeCapabilities => calls
                .node
                .node_get_capabilities(csi::NodeGetCapabilitiesRequest {})
                .await
                .map(drop),
            Look::NodeInfo => calls.node.node_get_info(csi::NodeGetInfoRequest {}).await.map(drop),
            _ => {
                let request = csi::NodeGetVolumeStatsRequest {
                    volume_id: self.volume.clone(),
                    volume_path: self.path.clone(),
                    ..Default::default()
                };
                calls.node.node_get_volume_stats(request).await.map(drop)
            }
        }
    }
}

async fn ask_identity(calls: &mut Callers, look: Look) -> Result<(), Status> {
    match look {
        Look::PluginInfo => calls
            .identity
            .get_plugin_info(csi::GetPluginInfoRequest {})
            .await
            .map(drop),
        Look::PluginCapabilities => calls
            .identity
            .get_plugin_capabilities(csi::GetPluginCapabilitiesRequest {})
            .await
            .map(drop),
        _ => calls.identity.probe(csi::ProbeRequest {}).await.map(drop),
    }
}

/// The process and its threads on the first core, its callers on this one.
fn repeat(bencher: Bencher<'_, '_>, at_once: usize, callers_on: usize) {
    const EACH: usize = 20_000;
    keep_to(Some(0));
    let bench = Bench::start("memory");
    keep_to(Some(callers_on));
    let Some(mut bench) = bench else { return };
    bench.bring(0);
    let calls = bench.calls();
    bencher.counter(ItemsCount::new(EACH)).bench_local(|| {
        let callers = (0..at_once).map(|_| {
            let mut calls = calls.clone();
            async move {
                for _ in 0..EACH / at_once {
                    let answer = calls.controller.create_volume(create("v")).await;
                    answer.expect("the same answer");
                }
            }
        });
        bench.runtime.block_on(join_all(callers));
    });
    drop(bench);
    keep_to(None);
}

/// Keeps this thread, and what it starts from here on, to one core; `None`: to none.
fn keep_to(core: Option<usize>) {
    let mut cores = CpuSet::new();
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|nth| core.is_none_or(|core| core == *nth))
        .for_each(|nth| cores.set(nth));
    sched_setaffinity(None, &cores).expect("the machine has that core");
}

/// The same request, so many at once over one connection: the driver has one core, its callers another.
#[divan::bench(args = [1, 64, 256], sample_count = 20, sample_size = 1)]
fn repeats(bencher: Bencher<'_, '_>, at_once: usize) {
    repeat(bencher, at_once, 1);
}

/// The same with driver and callers on one core.
#[divan::bench(args = [64, 256], sample_count = 20, sample_size = 1)]
fn repeats_beside_their_callers(bencher: Bencher<'_, '_>, at_once: usize) {
    repeat(bencher, at_once, 0);
}

/// So many clients, each with volumes of its own: do they wait for one another?
#[divan::bench(args = [1, 8, 64], sample_count = 5, sample_size = 1)]
fn clients_that_create_and_delete(bencher: Bencher<'_, '_>, clients: usize) {
    const EACH: usize = 192;
    let Some(bench) = Bench::start("loop") else { return };
    let calls = bench.calls();
    bencher.counter(ItemsCount::new(EACH)).bench_local(|| {
        let clients = (0..clients).map(|client| {
            let mut calls = calls.clone();
            async move {
                for nth in 0..EACH / clients {
                    let name = format!("c{client}-{nth}");
                    let made = calls.controller.create_volume(create(&name)).await.expect("made");
                    delete(&mut calls, &made.into_inner().volume.expect("a volume").volume_id).await;
                }
            }
        });
        bench.runtime.block_on(join_all(clients));
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
