//! What the Node service refuses, with which code, and that nothing changed.

use tonic::Code;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::rig::{Rig, Trouble, path};
use crate::config::Config;
use crate::host::{HostErrorKind, PathKind, Probe};

#[tokio::test]
async fn staging_and_publishing_keep_their_order_and_their_paths() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let early = call!(driver.node.node_publish_volume(publish("v", TARGET)));
    assert_eq!(code(early), Code::FailedPrecondition, "not staged");
    bring_to_pod(&rig, &driver, "v").await;
    make_staging_directory(&rig, "elsewhere");
    let elsewhere = csi::NodeStageVolumeRequest {
        staging_target_path: staging("elsewhere"),
        ..stage("v")
    };
    assert_eq!(
        code(call!(driver.node.node_stage_volume(elsewhere))),
        Code::FailedPrecondition
    );
    let other = csi::NodeStageVolumeRequest {
        volume_capability: Some(mount(Mode::SingleNodeWriter)),
        ..stage("v")
    };
    assert_eq!(code(call!(driver.node.node_stage_volume(other))), Code::AlreadyExists);
    let still_published = call!(driver.node.node_unstage_volume(unstage("v")));
    assert_eq!(code(still_published), Code::FailedPrecondition);
    let base = || publish("v", TARGET);
    let as_block = Some(block(Mode::SingleNodeMultiWriter));
    let cases = [
        (
            Code::AlreadyExists,
            csi::NodePublishVolumeRequest {
                readonly: true,
                ..base()
            },
        ),
        (
            Code::FailedPrecondition,
            csi::NodePublishVolumeRequest {
                staging_target_path: String::new(),
                ..base()
            },
        ),
        (
            Code::FailedPrecondition,
            csi::NodePublishVolumeRequest {
                volume_capability: as_block,
                ..publish("v", "/var/lib/kubelet/pods/b")
            },
        ),
        (Code::FailedPrecondition, publish("v", "/var/lib/kubelet/missing/b")),
        (Code::InvalidArgument, publish("v", "/etc/passwd")),
        (
            Code::InvalidArgument,
            publish("v", "/var/lib/kubelet/pods/../../../etc/x"),
        ),
        (Code::InvalidArgument, publish("v", "/var/lib/kubelet/pods/a\0b")),
        (Code::InvalidArgument, publish("v", "pods/x")),
        (Code::InvalidArgument, publish("v", "")),
        (
            Code::InvalidArgument,
            csi::NodePublishVolumeRequest {
                volume_capability: None,
                ..base()
            },
        ),
        (
            Code::InvalidArgument,
            csi::NodePublishVolumeRequest {
                volume_id: String::new(),
                ..base()
            },
        ),
    ];
    for (expected, request) in cases {
        let shown = request.target_path.clone();
        assert_eq!(
            code(call!(driver.node.node_publish_volume(request))),
            expected,
            "{shown:?}"
        );
    }
    let no_path = csi::NodeUnstageVolumeRequest {
        staging_target_path: String::new(),
        ..unstage("v")
    };
    assert_eq!(
        code(call!(driver.node.node_unstage_volume(no_path))),
        Code::InvalidArgument
    );
    let elsewhere = call!(
        driver
            .node
            .node_get_volume_stats(stats("v", "/var/lib/kubelet/pods/none"))
    );
    assert_eq!(code(elsewhere), Code::NotFound);
    let elsewhere = call!(
        driver
            .node
            .node_expand_volume(node_expand("v", "/var/lib/kubelet/pods/none", GI))
    );
    assert_eq!(code(elsewhere), Code::NotFound);
}

#[tokio::test]
async fn targets_are_as_many_as_the_mode_allows() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let second = "/var/lib/kubelet/pods/pod2";
    bring_to_pod(&rig, &driver, "v").await;
    call!(driver.node.node_publish_volume(publish("v", second))).unwrap();
    call!(driver.node.node_unpublish_volume(unpublish("v", second))).unwrap();
    tear_down(&rig, &driver, "v").await;

    let single = || Some(mount(Mode::SingleNodeSingleWriter));
    make_staging_directory(&rig, "w");
    call!(driver.controller.create_volume(create("w"))).unwrap();
    let request = csi::ControllerPublishVolumeRequest {
        volume_capability: single(),
        ..controller_publish("w", "n1")
    };
    call!(driver.controller.controller_publish_volume(request)).unwrap();
    call!(driver.node.node_stage_volume(csi::NodeStageVolumeRequest {
        volume_capability: single(),
        ..stage("w")
    }))
    .unwrap();
    let at = |target: &str| csi::NodePublishVolumeRequest {
        volume_capability: single(),
        ..publish("w", target)
    };
    call!(driver.node.node_publish_volume(at(TARGET))).unwrap();
    call!(driver.node.node_publish_volume(at(TARGET))).unwrap();
    assert_eq!(
        code(call!(driver.node.node_publish_volume(at(second)))),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn only_what_is_provably_blank_is_formatted() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    )
    .unwrap();
    make_staging_directory(&rig, "v");
    let put = |holds: Probe| {
        rig.world
            .lock()
            .unwrap()
            .volumes
            .get_mut(&id("v").as_str().into())
            .unwrap()
            .holds = holds;
    };
    put(Probe::Foreign("LVM2_member".to_owned()));
    assert_eq!(
        code(call!(driver.node.node_stage_volume(stage("v")))),
        Code::FailedPrecondition
    );
    put(Probe::Blank);
    rig.fail("probe", Trouble::Host(HostErrorKind::Io));
    assert_eq!(
        code(call!(driver.node.node_stage_volume(stage("v")))),
        Code::Internal,
        "unreadable is never blank"
    );
    let readers = csi::NodeStageVolumeRequest {
        volume_capability: Some(mount(Mode::SingleNodeReaderOnly)),
        ..stage("v")
    };
    assert_eq!(
        code(call!(driver.node.node_stage_volume(readers))),
        Code::FailedPrecondition
    );
    assert_eq!(rig.world.lock().unwrap().formatted, 0);
    assert!(
        rig.world.lock().unwrap().devices.is_empty(),
        "a refused staging leaves no device attached"
    );
    call!(driver.node.node_stage_volume(stage("v"))).unwrap();
    assert_eq!(rig.world.lock().unwrap().formatted, 1);
}

#[tokio::test]
async fn bad_mount_flags_are_the_callers_fault_and_leave_nothing() {
    use csi::volume_capability::{AccessType, MountVolume};
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    )
    .unwrap();
    make_staging_directory(&rig, "v");
    let flags = MountVolume {
        mount_flags: vec!["nonsense".to_owned()],
        ..Default::default()
    };
    let capability = csi::VolumeCapability {
        access_type: Some(AccessType::Mount(flags)),
        ..mount(Mode::SingleNodeMultiWriter)
    };
    let request = csi::NodeStageVolumeRequest {
        volume_capability: Some(capability),
        ..stage("v")
    };
    assert_eq!(
        code(call!(driver.node.node_stage_volume(request))),
        Code::InvalidArgument
    );
    assert!(rig.world.lock().unwrap().devices.is_empty());
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_foreign_mount_is_neither_covered_nor_taken_away() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "mine").await;
    let theirs = call!(driver.node.node_unpublish_volume(unpublish("other", TARGET)));
    theirs.unwrap();
    assert_eq!(
        rig.world.lock().unwrap().mounts.len(),
        2,
        "another volume's target stays"
    );
    rig.world
        .lock()
        .unwrap()
        .paths
        .insert(path("/var/lib/kubelet/pods/file"), PathKind::File);
    let over_file = call!(
        driver
            .node
            .node_publish_volume(publish("mine", "/var/lib/kubelet/pods/file"))
    );
    assert_eq!(code(over_file), Code::InvalidArgument);
    call!(
        driver
            .node
            .node_unpublish_volume(unpublish("mine", "/var/lib/kubelet/pods/file"))
    )
    .unwrap();
    let paths = &rig.world.lock().unwrap().paths;
    assert!(
        paths.contains_key(&path("/var/lib/kubelet/pods/file")),
        "nobody else's file is removed"
    );
}

#[tokio::test]
async fn an_open_file_keeps_a_volume_where_it_is_and_usable() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    rig.world.lock().unwrap().open.insert(path(TARGET));
    assert_eq!(
        code(call!(driver.node.node_unpublish_volume(unpublish("v", TARGET)))),
        Code::Internal
    );
    call!(driver.node.node_publish_volume(publish("v", TARGET))).unwrap();
    rig.world.lock().unwrap().open.clear();
    call!(driver.node.node_unpublish_volume(unpublish("v", TARGET))).unwrap();
    rig.world.lock().unwrap().open.insert(path(&staging("v")));
    assert_eq!(
        code(call!(driver.node.node_unstage_volume(unstage("v")))),
        Code::Internal
    );
    call!(driver.node.node_publish_volume(publish("v", TARGET))).unwrap();
    rig.world.lock().unwrap().open.clear();
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
