//! Snapshots, groups of them, what is made of them, and what is said of their blocks.

use futures::StreamExt;
use tonic::Code;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::group_controller_server::GroupController as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::snapshot_metadata_server::SnapshotMetadata as _;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::rig::{Rig, Trouble};
use crate::config::Config;
use crate::host::Probe;
use crate::pool::{Extent, PoolErrorKind};
use crate::seat::Driver;
use crate::units::Bytes;

async fn with_volumes(config: Config, names: &[&str]) -> (Rig, Driver) {
    let mut rig = Rig::new(config);
    let driver = rig.start().await;
    for name in names {
        call!(driver.controller.create_volume(create(name))).unwrap();
    }
    (rig, driver)
}

async fn ids(driver: &Driver, request: csi::ListSnapshotsRequest) -> (Vec<String>, String) {
    let page = call!(driver.controller.list_snapshots(request)).unwrap();
    let ids = page
        .entries
        .into_iter()
        .map(|entry| entry.snapshot.unwrap().snapshot_id);
    (ids.collect(), page.next_token)
}

#[tokio::test]
async fn a_snapshot_is_cut_once_and_answered_alike_for_ever() {
    let (mut rig, driver) = with_volumes(Config::default(), &["v", "w"]).await;
    let first = call!(driver.controller.create_snapshot(cut("s", "v"))).unwrap();
    let snapshot = first.snapshot.clone().unwrap();
    assert_eq!(
        (snapshot.source_volume_id, snapshot.size_bytes, snapshot.ready_to_use),
        (id("v"), GI, true)
    );
    assert_eq!(snapshot.creation_time.unwrap().seconds, 1);
    let grow = controller_expand("v", 2 * GI);
    call!(driver.controller.controller_expand_volume(grow)).unwrap();
    let before = rig.syncs();
    assert_eq!(call!(driver.controller.create_snapshot(cut("s", "v"))).unwrap(), first);
    assert_eq!(rig.syncs(), before);
    rig.kill();
    let driver = rig.start().await;
    assert_eq!(call!(driver.controller.create_snapshot(cut("s", "v"))).unwrap(), first);
    assert_eq!(rig.world.lock().unwrap().cuts, 1);
    let of_another = call!(driver.controller.create_snapshot(cut("s", "w")));
    assert_eq!(code(of_another), Code::AlreadyExists);
    let differs = csi::CreateSnapshotRequest {
        parameters: text(&[("quiesce", "no")]),
        ..cut("s", "v")
    };
    assert_eq!(
        code(call!(driver.controller.create_snapshot(differs))),
        Code::AlreadyExists
    );
}

#[tokio::test]
async fn a_lost_ledger_does_not_make_a_second_snapshot() {
    let (mut rig, driver) = with_volumes(Config::default(), &["v"]).await;
    let first = call!(driver.controller.create_snapshot(cut("s", "v"))).unwrap();
    rig.kill();
    *rig.platter.lock().unwrap() = Default::default();
    let driver = rig.start().await;
    assert_eq!(call!(driver.controller.create_snapshot(cut("s", "v"))).unwrap(), first);
    assert_eq!(rig.world.lock().unwrap().cuts, 1);
}

#[tokio::test]
async fn a_volume_is_restored_also_larger_and_after_its_source_has_gone() {
    let (rig, driver) = with_volumes(Config::default(), &["v"]).await;
    let name = "v";
    make_staging_directory(&rig, name);
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish(name, "n1"))
    )
    .unwrap();
    call!(driver.node.node_stage_volume(stage(name))).unwrap();
    call!(driver.controller.create_snapshot(cut("s", name))).unwrap();
    call!(driver.node.node_unstage_volume(unstage(name))).unwrap();
    call!(
        driver
            .controller
            .controller_unpublish_volume(controller_unpublish(name, "n1"))
    )
    .unwrap();
    call!(driver.controller.delete_volume(delete(name))).unwrap();
    let larger = || csi::CreateVolumeRequest {
        capacity_range: range(3 * GI, 0),
        ..restore("r", "s")
    };
    let first = call!(driver.controller.create_volume(larger())).unwrap();
    assert_eq!(call!(driver.controller.create_volume(larger())).unwrap(), first);
    let volume = first.volume.unwrap();
    assert_eq!(volume.capacity_bytes, 3 * GI);
    assert_eq!(volume.content_source, restore("r", "s").volume_content_source);
    let held = rig.world.lock().unwrap().volumes[&volume.volume_id.as_str().into()]
        .holds
        .clone();
    assert!(matches!(held, Probe::FileSystem { size: Bytes::GI, .. }), "{held:?}");
    let unsized_request = csi::CreateVolumeRequest {
        capacity_range: None,
        ..restore("r2", "s")
    };
    let same = call!(driver.controller.create_volume(unsized_request)).unwrap();
    assert_eq!(same.volume.unwrap().capacity_bytes, GI);
    let too_small = csi::CreateVolumeRequest {
        capacity_range: range(1, GI / 2),
        ..restore("r3", "s")
    };
    assert_eq!(
        code(call!(driver.controller.create_volume(too_small))),
        Code::OutOfRange
    );
    let raw = csi::CreateVolumeRequest {
        volume_capabilities: vec![block(Mode::SingleNodeWriter)],
        ..restore("r4", "s")
    };
    assert_eq!(code(call!(driver.controller.create_volume(raw))), Code::InvalidArgument);
    call!(driver.controller.delete_snapshot(delete_snapshot("s"))).unwrap();
    let gone = call!(driver.controller.create_volume(restore("r5", "s")));
    assert_eq!(code(gone), Code::NotFound);
    call!(driver.controller.create_volume(larger())).expect("what was made of it stays, and so does the answer");
}

#[tokio::test]
async fn refusals_of_snapshots_change_nothing() {
    let (rig, driver) = with_volumes(Config::default(), &["v"]).await;
    for (request, expected) in [
        (cut("", "v"), Code::InvalidArgument),
        (cut("s\0", "v"), Code::InvalidArgument),
        (cut("s", "nowhere"), Code::NotFound),
        (
            csi::CreateSnapshotRequest {
                source_volume_id: String::new(),
                ..cut("s", "v")
            },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(code(call!(driver.controller.create_snapshot(request))), expected);
    }
    let nameless = csi::DeleteSnapshotRequest::default();
    assert_eq!(
        code(call!(driver.controller.delete_snapshot(nameless))),
        Code::InvalidArgument
    );
    call!(driver.controller.delete_snapshot(delete_snapshot("never"))).unwrap();
    let unknown = csi::GetSnapshotRequest {
        snapshot_id: "never".to_owned(),
        ..Default::default()
    };
    assert_eq!(code(call!(driver.controller.get_snapshot(unknown))), Code::NotFound);
    let negative = csi::ListSnapshotsRequest {
        max_entries: -1,
        ..Default::default()
    };
    assert_eq!(
        code(call!(driver.controller.list_snapshots(negative))),
        Code::InvalidArgument
    );
    let lost = csi::ListSnapshotsRequest {
        starting_token: "7".to_owned(),
        ..Default::default()
    };
    assert_eq!(code(call!(driver.controller.list_snapshots(lost))), Code::Aborted);
    assert_eq!(rig.world.lock().unwrap().snapshots.len(), 0);
    rig.fail("cut", Trouble::Pool(PoolErrorKind::NoSpace));
    let full = call!(driver.controller.create_snapshot(cut("s", "v")));
    assert_eq!(code(full), Code::ResourceExhausted);
    assert_eq!(ids(&driver, Default::default()).await.0, Vec::<String>::new());
    call!(driver.controller.create_snapshot(cut("s", "v"))).unwrap();
}

#[tokio::test]
async fn snapshots_are_listed_by_page_and_by_filter() {
    let (_rig, driver) = with_volumes(Config::default(), &["v", "w"]).await;
    for (name, volume) in [("1", "v"), ("2", "w"), ("3", "v"), ("4", "v"), ("5", "w")] {
        call!(driver.controller.create_snapshot(cut(name, volume))).unwrap();
    }
    let all = ids(&driver, Default::default()).await.0;
    assert_eq!(all.len(), 5);
    let mut paged = Vec::new();
    let mut token = String::new();
    for expected in [2, 2, 1] {
        let request = csi::ListSnapshotsRequest {
            max_entries: 2,
            starting_token: token,
            ..Default::default()
        };
        let (page, next) = ids(&driver, request).await;
        assert_eq!(page.len(), expected);
        paged.extend(page);
        token = next;
    }
    assert_eq!((paged, token.as_str()), (all, ""));
    let of = |volume: &str, max_entries| csi::ListSnapshotsRequest {
        source_volume_id: id(volume),
        max_entries,
        ..Default::default()
    };
    let (page, token) = ids(&driver, of("w", 2)).await;
    assert_eq!((page.len(), token.as_str()), (2, ""), "no page follows the last");
    assert_eq!(ids(&driver, of("v", 0)).await.0.len(), 3);
    assert_eq!(ids(&driver, of("nowhere", 0)).await.0.len(), 0);
    let one = |snapshot: &str| csi::ListSnapshotsRequest {
        snapshot_id: snapshot.to_owned(),
        ..Default::default()
    };
    assert_eq!(ids(&driver, one(&snapshot_id("3"))).await.0, [snapshot_id("3")]);
    assert_eq!(ids(&driver, one("nothing")).await.0.len(), 0);
}

#[tokio::test]
async fn a_cut_that_is_not_ready_becomes_ready() {
    let (rig, driver) = with_volumes(Config::default(), &["v"]).await;
    rig.world.lock().unwrap().slow_cuts = true;
    let first = call!(driver.controller.create_snapshot(cut("s", "v")))
        .unwrap()
        .snapshot
        .unwrap();
    assert!(!first.ready_to_use);
    let early = call!(driver.controller.create_volume(restore("r", "s")));
    assert_eq!(code(early), Code::Unavailable);
    for snapshot in rig.world.lock().unwrap().snapshots.values_mut() {
        snapshot.known.ready = true;
    }
    let later = call!(driver.controller.create_snapshot(cut("s", "v")))
        .unwrap()
        .snapshot
        .unwrap();
    assert_eq!(
        later,
        csi::Snapshot {
            ready_to_use: true,
            ..first
        }
    );
    call!(driver.controller.create_volume(restore("r", "s"))).unwrap();
}

#[tokio::test]
async fn snapshots_in_flight_abort_their_duplicates_and_keep_their_volume() {
    let (rig, driver) = with_volumes(Config::default(), &["v"]).await;
    rig.hang("cut");
    let background = driver.controller.clone().unwrap();
    let first = tokio::spawn(async move { background.create_snapshot(tonic::Request::new(cut("s", "v"))).await });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        code(call!(driver.controller.create_snapshot(cut("s", "v")))),
        Code::Aborted
    );
    assert_eq!(
        code(call!(driver.controller.delete_snapshot(delete_snapshot("s")))),
        Code::Aborted
    );
    assert_eq!(code(call!(driver.controller.delete_volume(delete("v")))), Code::Aborted);
    rig.release("cut");
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_group_is_cut_at_one_moment_and_goes_as_one() {
    let (mut rig, driver) = with_volumes(Config::default(), &["v", "w", "x"]).await;
    let first = call!(driver.group.create_volume_group_snapshot(cut_group("g", &["w", "v"]))).unwrap();
    let group = first.group_snapshot.clone().unwrap();
    let sources: Vec<_> = group.snapshots.iter().map(|one| one.source_volume_id.clone()).collect();
    assert_eq!(sources, [id("w"), id("v")]);
    assert!(group.ready_to_use);
    for one in &group.snapshots {
        assert_eq!(one.group_snapshot_id, group.group_snapshot_id);
        assert_eq!(one.creation_time, group.creation_time);
    }
    rig.kill();
    let driver = rig.start().await;
    let again = call!(driver.group.create_volume_group_snapshot(cut_group("g", &["w", "v"]))).unwrap();
    assert_eq!(again, first);
    let members: Vec<String> = group.snapshots.iter().map(|one| one.snapshot_id.clone()).collect();
    let get = |snapshot_ids: &[String]| csi::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: group.group_snapshot_id.clone(),
        snapshot_ids: snapshot_ids.to_vec(),
        ..Default::default()
    };
    let got = call!(driver.group.get_volume_group_snapshot(get(&members))).unwrap();
    assert_eq!(got.group_snapshot, first.group_snapshot);
    assert_eq!(
        code(call!(driver.group.get_volume_group_snapshot(get(&members[..1])))),
        Code::InvalidArgument
    );
    let alone = csi::DeleteSnapshotRequest {
        snapshot_id: members[0].clone(),
        ..Default::default()
    };
    assert_eq!(
        code(call!(driver.controller.delete_snapshot(alone))),
        Code::InvalidArgument
    );
    let others = call!(driver.group.create_volume_group_snapshot(cut_group("g", &["v", "x"])));
    assert_eq!(code(others), Code::AlreadyExists);
    let discard = |snapshot_ids: &[String]| csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group.group_snapshot_id.clone(),
        snapshot_ids: snapshot_ids.to_vec(),
        ..Default::default()
    };
    assert_eq!(
        code(call!(driver.group.delete_volume_group_snapshot(discard(&members[..1])))),
        Code::InvalidArgument
    );
    for _ in 0..2 {
        call!(driver.group.delete_volume_group_snapshot(discard(&members))).unwrap();
    }
    assert_eq!(
        code(call!(driver.group.get_volume_group_snapshot(get(&members)))),
        Code::NotFound
    );
    assert!(rig.world.lock().unwrap().snapshots.is_empty());
}

#[tokio::test]
async fn a_group_is_cut_whole_or_not_at_all() {
    let (rig, driver) = with_volumes(Config::default(), &["v"]).await;
    for (request, expected) in [
        (cut_group("g", &[]), Code::InvalidArgument),
        (cut_group("", &["v"]), Code::InvalidArgument),
        (cut_group("g", &["v", "v"]), Code::InvalidArgument),
        (cut_group("g", &["v", "nowhere"]), Code::NotFound),
    ] {
        assert_eq!(
            code(call!(driver.group.create_volume_group_snapshot(request))),
            expected
        );
    }
    rig.fail("cut", Trouble::Pool(PoolErrorKind::TimedOut));
    let late = call!(driver.group.create_volume_group_snapshot(cut_group("g", &["v"])));
    assert_eq!(code(late), Code::DeadlineExceeded);
    assert!(rig.world.lock().unwrap().snapshots.is_empty());
    assert_eq!(ids(&driver, Default::default()).await.0.len(), 0);
}

/// Two snapshots of one volume that hold blocks, and one of another that holds none.
async fn with_blocks() -> (Rig, Driver) {
    let (rig, driver) = with_volumes(Config::default(), &["v", "w"]).await;
    for (name, volume) in [("s1", "v"), ("s2", "v"), ("other", "w")] {
        call!(driver.controller.create_snapshot(cut(name, volume))).unwrap();
    }
    let extent = |nth: u64| Extent {
        offset: Bytes(nth * 4096),
        len: Bytes(4096),
    };
    for (name, blocks) in [("s1", vec![0, 2, 4, 6, 8]), ("s2", vec![0, 2, 5, 7])] {
        let mut world = rig.world.lock().unwrap();
        let snapshot = world.snapshots.get_mut(&snapshot_id(name).as_str().into()).unwrap();
        snapshot.extents = blocks.into_iter().map(extent).collect();
    }
    (rig, driver)
}

fn delta(base: &str) -> csi::GetMetadataDeltaRequest {
    csi::GetMetadataDeltaRequest {
        base_snapshot_id: snapshot_id(base),
        target_snapshot_id: snapshot_id("s2"),
        ..Default::default()
    }
}

#[tokio::test]
async fn blocks_are_streamed_page_by_page_and_only_what_differs() {
    let (rig, driver) = with_blocks().await;
    let allocated = |starting_offset, max_results| csi::GetMetadataAllocatedRequest {
        snapshot_id: snapshot_id("s1"),
        starting_offset,
        max_results,
        ..Default::default()
    };
    let mut sizes = Vec::new();
    let mut blocks = Vec::new();
    let mut pages = call!(driver.metadata.get_metadata_allocated(allocated(0, 2))).unwrap();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert_eq!(page.volume_capacity_bytes, GI);
        sizes.push(page.block_metadata.len());
        blocks.extend(page.block_metadata.iter().map(|block| block.byte_offset / 4096));
    }
    assert_eq!((sizes, blocks), (vec![2, 2, 1], vec![0, 2, 4, 6, 8]));
    let resumed = call!(driver.metadata.get_metadata_allocated(allocated(5 * 4096, 0))).unwrap();
    assert_eq!(resumed.collect::<Vec<_>>().await.len(), 1);
    let mut pages = call!(driver.metadata.get_metadata_delta(delta("s1"))).unwrap();
    let page = pages.next().await.unwrap().unwrap();
    let blocks: Vec<_> = page
        .block_metadata
        .iter()
        .map(|block| block.byte_offset / 4096)
        .collect();
    assert_eq!(blocks, [5, 7]);
    assert_eq!(
        code(call!(driver.controller.delete_snapshot(delete_snapshot("s2")))),
        Code::Aborted,
        "a stream keeps its snapshots"
    );
    drop(pages);
    let refused = [
        (
            call!(driver.metadata.get_metadata_allocated(allocated(2 * GI, 0))).map(drop),
            Code::OutOfRange,
        ),
        (
            call!(driver.metadata.get_metadata_allocated(allocated(-1, 0))).map(drop),
            Code::OutOfRange,
        ),
        (
            call!(driver.metadata.get_metadata_allocated(allocated(0, -1))).map(drop),
            Code::InvalidArgument,
        ),
        (
            call!(driver.metadata.get_metadata_delta(delta("other"))).map(drop),
            Code::InvalidArgument,
        ),
        (
            call!(driver.metadata.get_metadata_delta(delta("never"))).map(drop),
            Code::NotFound,
        ),
    ];
    for (result, expected) in refused {
        assert_eq!(code(result), expected);
    }
    rig.fail("extents", Trouble::Pool(PoolErrorKind::Unsupported));
    let untracked = call!(driver.metadata.get_metadata_delta(delta("s1"))).map(drop);
    assert_eq!(code(untracked), Code::FailedPrecondition);
    call!(driver.controller.delete_snapshot(delete_snapshot("s2"))).unwrap();
}

#[tokio::test]
async fn a_driver_without_snapshots_says_so() {
    let config = Config {
        snapshots: false,
        group_snapshots: false,
        snapshot_metadata: false,
        ..Config::default()
    };
    let (_rig, driver) = with_volumes(config, &["v"]).await;
    assert!(driver.group.is_none() && driver.metadata.is_none());
    assert_eq!(
        code(call!(driver.controller.create_snapshot(cut("s", "v")))),
        Code::Unimplemented
    );
    let restored = call!(driver.controller.create_volume(restore("r", "s")));
    assert_eq!(code(restored), Code::InvalidArgument);
}
