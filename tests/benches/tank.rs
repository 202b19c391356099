//! How much a wave costs: lifecycles in one cluster, whole runs, many nodes, idle and busy hours. `docs/speed.md` has the table and what dominates.
//!
//! Run with `cargo bench -p wavetank-tests`.

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use wavetank_sim::cluster::Cluster;
use wavetank_sim::explore::StrategyName;
use wavetank_sim::explore::campaign::{Campaign, Entry, Go};
use wavetank_sim::explore::report::Shard;
use wavetank_sim::explore::subject::Tank;
use wavetank_sim::play::{Options, boot, play};
use wavetank_sim::runtime::run;
use wavetank_sim::scenario;
use wavetank_tests::{
    booted, booted_as, busy_shape, calls, claim_and_pod, delete, empty, expand, lives, prepare, shape,
};

/// As in the `wavetank` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many lives a benchmark plays.
const LIVES: usize = 200;

/// All of them, so many at once.
async fn waves(cluster: &mut Cluster, at_once: usize) {
    for wave in 0..LIVES / at_once {
        lives(cluster, &format!("life-{wave}"), at_once).await;
    }
}

fn main() {
    divan::main();
}

/// (a) Whole lives of a claim and its pod in one cluster of 3 nodes, with driver and ledger: 200, so many of them at once.
#[divan::bench(args = [10, 200], sample_count = 5)]
fn lifecycles(bencher: Bencher<'_, '_>, at_once: usize) {
    bencher.counter(ItemsCount::new(LIVES)).bench(|| {
        run(move || async move {
            let mut cluster = booted(3, 0).await;
            waves(&mut cluster, at_once).await;
            cluster.shut_down().await;
        });
    });
}

/// (b) The same lives with a script in the driver's place: the cluster's own cost.
#[divan::bench(args = [10, 200], sample_count = 5)]
fn lifecycles_without_driver(bencher: Bencher<'_, '_>, at_once: usize) {
    bencher.counter(ItemsCount::new(LIVES)).bench(|| {
        run(move || async move {
            let mut cluster = empty(3, 0);
            calls::script(&mut cluster);
            boot(&mut cluster, &shape(3)).await;
            prepare(&mut cluster).await;
            waves(&mut cluster, at_once).await;
            cluster.shut_down().await;
        });
    });
}

/// (b) The calls of a life made straight to the driver, one after the other: real frames, ledger and machine, no cluster.
#[divan::bench(sample_count = 5)]
fn bare_calls(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(LIVES)).bench(|| {
        run(|| async {
            let bare = calls::Bare::start().await;
            for nth in 0..LIVES {
                bare.life(nth).await;
            }
        });
    });
}

/// (c) Whole runs of a scenario with one claim, set-up of the cluster included.
#[divan::bench(sample_count = 20)]
fn whole_runs(bencher: Bencher<'_, '_>) {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../scenarios/lifecycle/dynamic-immediate.yaml"
    );
    let scenario = scenario::load_file(std::path::Path::new(path)).expect("the scenario is well-formed");
    bencher
        .counter(ItemsCount::new(1usize))
        .bench(|| play(&scenario, &Options::default()));
}

/// (f) Storms over the same scenario, as a campaign plays them, on so many threads.
#[divan::bench(args = [1, 2], sample_count = 3, sample_size = 1)]
fn storms(bencher: Bencher<'_, '_>, jobs: usize) {
    const STORMS: u64 = 400;
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../scenarios/lifecycle/dynamic-immediate.yaml"
    );
    let scenario = scenario::load_file(std::path::Path::new(path)).expect("the scenario is well-formed");
    let campaign = Campaign {
        entries: vec![Entry::new(Tank::new(scenario, Default::default()))],
        strategy: StrategyName::Mix,
        seeds: 0..STORMS,
        shard: Shard::WHOLE,
        jobs,
        keep_going: true,
        mutant: None,
        shrink: 0,
    };
    bencher
        .counter(ItemsCount::new(STORMS))
        .bench_local(|| campaign.run(&mut |_| Go::On).runs());
}

/// (d) The same lives in clusters of 10 and of 1,000 nodes; subtract `set_up`.
#[divan::bench(args = [10, 1000], sample_count = 3)]
fn lifecycles_with_nodes(bencher: Bencher<'_, '_>, nodes: u32) {
    bencher.counter(ItemsCount::new(LIVES)).bench(|| {
        run(move || async move {
            let mut cluster = booted(nodes, 0).await;
            waves(&mut cluster, 10).await;
            cluster.shut_down().await;
        });
    });
}

/// (d) The set-up of a cluster alone: every kubelet started, every driver registered.
#[divan::bench(args = [3, 10, 100, 1000], sample_count = 3)]
fn set_up(bencher: Bencher<'_, '_>, nodes: u32) {
    bencher.bench(|| {
        run(move || async move {
            let mut cluster = empty(nodes, 0);
            boot(&mut cluster, &shape(nodes)).await;
            cluster.shut_down().await;
        });
    });
}

/// (e) An hour in which nothing happens, 100 nodes; items are virtual seconds. Set-up included: subtract `set_up`.
#[divan::bench(sample_count = 3)]
fn idle_hour(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(3600usize)).bench(|| {
        run(|| async {
            let mut cluster = booted(100, 0).await;
            cluster.run_for(Duration::from_secs(3600)).await;
            cluster.shut_down().await;
        });
    });
}

/// (e) An hour of 3 nodes in which each second a claim and a pod are made, one is expanded, and one is deleted; items are virtual seconds.
///
/// A claim grows 30 s after it was made and goes after 150 s: kubelet has grown the file system by then.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn busy_hour(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(3600usize)).bench(|| {
        run(|| async {
            let mut cluster = booted_as(&busy_shape(3), 0).await;
            for second in 0..3600u32 {
                claim_and_pod(&mut cluster, &format!("life-{second}"));
                if second >= 30 {
                    expand(&mut cluster, &format!("life-{}", second - 30), "2Gi");
                }
                if second >= 150 {
                    delete(&mut cluster, &format!("life-{}", second - 150));
                }
                cluster.run_for(Duration::from_secs(1)).await;
            }
            cluster.shut_down().await;
        });
    });
}
