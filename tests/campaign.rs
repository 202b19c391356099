//! A campaign does not grow: the memory after some storms is the memory after many.

use std::collections::BTreeMap;
use std::path::Path;

use wavetank_sim::explore::StrategyName;
use wavetank_sim::explore::campaign::{Campaign, Entry, Go};
use wavetank_sim::explore::report::Shard;
use wavetank_sim::explore::subject::Tank;
use wavetank_sim::scenario::parse;

/// As in the `wavetank` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One claim that is bound and deleted.
const CLAIM: &str = "because: one claim, many storms
manifests:
  - { apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: { name: fast }, provisioner: csi.wavetank.dev }
  - { apiVersion: v1, kind: PersistentVolumeClaim, metadata: { name: data }, spec: { accessModes: [ReadWriteOnce], storageClassName: fast, resources: { requests: { storage: 1Gi } } } }
steps:
  - wait: { for: { kind: pvc, name: data, phase: Bound }, within: 10m }
  - delete: { kind: pvc, name: data, wait: 10m }
";
/// Storms after which everything that is kept once has been met, and storms in all.
const WARM: u64 = 300;
const ALL: u64 = 1200;
/// What may be added in between: allocators are not exact.
const SLACK: u64 = 6 << 20;

/// The memory of this process, in bytes. Nothing where there is no `/proc`.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn memory_is_flat_over_many_storms() {
    let scenario =
        parse("one-claim", CLAIM.into(), Path::new(".")).unwrap_or_else(|e| panic!("{}", e.render(120, false)));
    let campaign = Campaign {
        entries: vec![Entry::new(Tank::new(scenario, BTreeMap::new()))],
        strategy: StrategyName::Mix,
        seeds: 0..ALL,
        shard: Shard::WHOLE,
        jobs: 2,
        keep_going: true,
        mutant: None,
        shrink: 0,
    };
    let mut warm = None;
    let report = campaign.run(&mut |standing| {
        if standing.runs >= WARM && warm.is_none() {
            warm = Some((standing.runs, resident()));
        }
        Go::On
    });
    assert_eq!(report.runs(), ALL);
    let (Some((at, Some(before))), Some(after)) = (warm, resident()) else {
        println!("not measured: there is no /proc/self/statm here");
        return;
    };
    let grown = after.saturating_sub(before);
    println!(
        "{} KiB after {at} storms, {} KiB after {ALL}",
        before >> 10,
        after >> 10
    );
    assert!(
        grown < SLACK,
        "grew by {} KiB from storm {at} to storm {ALL}",
        grown >> 10
    );
}
