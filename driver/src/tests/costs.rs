//! What calls cost: commits of the ledger, looks at the pool, and waiting for others.

use std::time::Duration;

use futures::future::join_all;
use tonic::Request;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::group_controller_server::GroupController as _;
use wavetank_proto::csi::v1::node_server::Node as _;

use super::calls::*;
use super::rig::Rig;
use crate::config::Config;

/// The commits that an operation may need: intent before effect, outcome after it.
const COMMITS: u64 = 2;

/// The syncs of one commit of a ledger that exists.
async fn syncs_of_a_commit() -> u64 {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    let before = rig.syncs();
    let ledger = driver.identity.ledger();
    let id = id("v").as_str().into();
    let update = ledger.update(|draft| {
        let mut record = draft.tables.volumes.get(&id).cloned();
        record.iter_mut().for_each(|record| record.shared = true);
        draft.volume(&id, record);
        Ok(())
    });
    update.await.unwrap();
    rig.syncs() - before
}

#[tokio::test]
async fn no_call_commits_more_than_twice_and_no_repeat_at_all() {
    let one = syncs_of_a_commit().await;
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    // The database itself is made with its first record.
    call!(driver.controller.create_volume(create("first"))).unwrap();
    let mut spent = Vec::new();
    macro_rules! spend {
        ($name:literal, $service:ident.$method:ident($request:expr)) => {{
            let before = rig.syncs();
            call!(driver.$service.$method($request)).unwrap();
            let first = rig.syncs() - before;
            assert!(first <= COMMITS * one, "{}: {first} syncs, {one} each", $name);
            let before = rig.syncs();
            call!(driver.$service.$method($request)).unwrap();
            assert_eq!(rig.syncs(), before, "{} again", $name);
            spent.push(($name, first / one));
        }};
    }
    spend!("CreateVolume", controller.create_volume(create("v")));
    spend!(
        "ControllerPublishVolume",
        controller.controller_publish_volume(controller_publish("v", "n1"))
    );
    spend!("NodeStageVolume", node.node_stage_volume(stage("v")));
    spend!("NodePublishVolume", node.node_publish_volume(publish("v", TARGET)));
    spend!(
        "ControllerExpandVolume",
        controller.controller_expand_volume(controller_expand("v", 2 * GI))
    );
    spend!(
        "NodeExpandVolume",
        node.node_expand_volume(node_expand("v", TARGET, 2 * GI))
    );
    spend!(
        "CreateVolume (clone)",
        controller.create_volume(csi::CreateVolumeRequest {
            capacity_range: range(2 * GI, 0),
            ..clone_of("copy", "v")
        })
    );
    spend!("CreateSnapshot", controller.create_snapshot(cut("s", "v")));
    spend!(
        "CreateVolumeGroupSnapshot",
        group.create_volume_group_snapshot(cut_group("g", &["v", "copy"]))
    );
    spend!(
        "NodeUnpublishVolume",
        node.node_unpublish_volume(unpublish("v", TARGET))
    );
    spend!("NodeUnstageVolume", node.node_unstage_volume(unstage("v")));
    spend!(
        "ControllerUnpublishVolume",
        controller.controller_unpublish_volume(controller_unpublish("v", "n1"))
    );
    spend!("DeleteSnapshot", controller.delete_snapshot(delete_snapshot("s")));
    spend!("DeleteVolume", controller.delete_volume(delete("v")));
    println!("commits: {spent:?}");
}

/// One look at the pool for each volume listed, however many there are and however they are paged.
#[tokio::test]
async fn ten_thousand_volumes_are_listed_page_by_page_at_the_price_of_one_look_each() {
    const VOLUMES: usize = 10_000;
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    for nth in 0..VOLUMES {
        let tiny = csi::CreateVolumeRequest {
            capacity_range: range(1 << 20, 0),
            ..create(&format!("v{nth}"))
        };
        call!(driver.controller.create_volume(tiny)).unwrap();
    }
    rig.crash_at(None);
    let mut seen = std::collections::BTreeSet::new();
    let mut token = String::new();
    loop {
        let page = csi::ListVolumesRequest {
            max_entries: 100,
            starting_token: token,
        };
        let answer = call!(driver.controller.list_volumes(page)).unwrap();
        seen.extend(answer.entries.into_iter().map(|entry| entry.volume.unwrap().volume_id));
        token = answer.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), VOLUMES);
    assert_eq!(rig.steps().len(), VOLUMES, "operations on pool, machine and disk");
}

/// 64 callers, each with a volume of its own, and a pool that takes a second for everything.
#[tokio::test(start_paused = true)]
async fn callers_of_distinct_volumes_never_wait_for_each_other() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    rig.slow(Duration::from_secs(1));
    let start = tokio::time::Instant::now();
    let calls = (0..64).map(|nth| {
        let controller = driver.controller.clone().unwrap();
        async move {
            let name = format!("v{nth}");
            controller.create_volume(Request::new(create(&name))).await.unwrap();
            let attach = controller_publish(&name, "n1");
            controller
                .controller_publish_volume(Request::new(attach))
                .await
                .unwrap();
        }
    });
    join_all(calls).await;
    let alone = Duration::from_secs(rig.steps().iter().filter(|name| !name.starts_with("disk")).count() as u64) / 64;
    assert_eq!(start.elapsed(), alone, "as long as one of them alone");
}
