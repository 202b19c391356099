//! The same request gets the same answer, field by field, and a repeat commits nothing.

use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::group_controller_server::GroupController as _;
use wavetank_proto::csi::v1::node_server::Node as _;

use super::calls::*;
use super::rig::{Rig, zone};
use crate::config::Config;

#[tokio::test]
async fn a_creation_is_answered_alike_for_ever() {
    let mut rig = Rig::new(Config {
        context_from_parameters: true,
        ..Config::default()
    });
    let driver = rig.start().await;
    let request = || csi::CreateVolumeRequest {
        parameters: text(&[("type", "ssd")]),
        mutable_parameters: text(&[("iops", "100")]),
        accessibility_requirements: Some(csi::TopologyRequirement {
            requisite: vec![csi::Topology { segments: zone("b") }],
            preferred: vec![],
        }),
        ..create("v")
    };
    let first = call!(driver.controller.create_volume(request())).unwrap();
    let copy = call!(driver.controller.create_volume(clone_of("copy", "v"))).unwrap();
    call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    )
    .unwrap();
    let modify = csi::ControllerModifyVolumeRequest {
        volume_id: id("v"),
        mutable_parameters: text(&[("iops", "200")]),
        ..Default::default()
    };
    call!(driver.controller.controller_modify_volume(modify)).unwrap();
    let before = rig.syncs();
    assert_eq!(
        call!(driver.controller.create_volume(request())).unwrap(),
        first,
        "after growing and changing"
    );
    assert_eq!(rig.syncs(), before);
    rig.kill();
    let driver = rig.start().await;
    assert_eq!(
        call!(driver.controller.create_volume(request())).unwrap(),
        first,
        "after a restart"
    );
    assert_eq!(
        call!(driver.controller.create_volume(clone_of("copy", "v"))).unwrap(),
        copy
    );
    assert_eq!(first.volume.unwrap().volume_context, text(&[("type", "ssd")]));
}

#[tokio::test]
async fn a_lost_ledger_does_not_make_a_second_volume() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let first = call!(driver.controller.create_volume(create("v"))).unwrap();
    rig.kill();
    *rig.platter.lock().unwrap() = Default::default();
    let driver = rig.start().await;
    assert_eq!(call!(driver.controller.create_volume(create("v"))).unwrap(), first);
    assert_eq!(rig.world.lock().unwrap().volumes.len(), 1);
    let larger = csi::CreateVolumeRequest {
        capacity_range: range(2 * GI, 0),
        ..create("v")
    };
    assert_eq!(
        code(call!(driver.controller.create_volume(larger))),
        tonic::Code::AlreadyExists
    );
}

#[tokio::test]
async fn every_call_may_be_repeated_and_commits_at_most_twice_the_first_time_and_never_again() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    make_staging_directory(&rig, "warm-up");
    call!(driver.controller.create_volume(create("warm-up"))).unwrap();
    make_staging_directory(&rig, "v");
    // redb syncs a fixed number of times for each commit, which the first pair of calls measures.
    let per_commit = {
        let before = rig.syncs();
        call!(driver.controller.create_volume(create("measure"))).unwrap();
        (rig.syncs() - before) / 2
    };
    macro_rules! twice {
        ($service:ident.$method:ident($request:expr)) => {
            let start = rig.syncs();
            let first = call!(driver.$service.$method($request)).unwrap();
            let middle = rig.syncs();
            let second = call!(driver.$service.$method($request)).unwrap();
            assert_eq!(first, second, "{}", stringify!($method));
            assert!(
                middle - start <= 2 * per_commit,
                "{} commits too often",
                stringify!($method)
            );
            assert_eq!(
                rig.syncs(),
                middle,
                "the repeat of {} commits",
                stringify!($method)
            );
        };
    }
    twice!(controller.create_volume(create("v")));
    twice!(controller.create_volume(clone_of("copy", "v")));
    twice!(controller.create_snapshot(cut("s", "v")));
    twice!(controller.create_volume(restore("restored", "s")));
    twice!(group.create_volume_group_snapshot(cut_group("g", &["v", "copy"])));
    twice!(controller.delete_snapshot(delete_snapshot("s")));
    twice!(controller.controller_publish_volume(controller_publish("v", "n1")));
    twice!(node.node_stage_volume(stage("v")));
    twice!(node.node_publish_volume(publish("v", TARGET)));
    twice!(controller.controller_expand_volume(controller_expand("v", 2 * GI)));
    twice!(node.node_expand_volume(node_expand("v", TARGET, 2 * GI)));
    twice!(node.node_get_volume_stats(stats("v", TARGET)));
    twice!(node.node_unpublish_volume(unpublish("v", TARGET)));
    twice!(node.node_unstage_volume(unstage("v")));
    twice!(controller.controller_unpublish_volume(controller_unpublish("v", "n1")));
    twice!(controller.delete_volume(delete("v")));
    twice!(node.node_publish_volume(ephemeral("csi-1", TARGET)));
    let gone = || csi::NodeUnpublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: TARGET.to_owned(),
    };
    twice!(node.node_unpublish_volume(gone()));
}

#[tokio::test]
async fn a_driver_that_remembers_nothing_never_touches_its_disk() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.node.node_get_info(Default::default())).unwrap();
    call!(driver.controller.list_volumes(Default::default())).unwrap();
    assert!(
        rig.steps().iter().all(|step| !step.starts_with("disk")),
        "{:?}",
        rig.steps()
    );
}
