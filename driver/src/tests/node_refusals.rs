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
async fn staging_and_publishing_keep_their_order() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let early = call!(driver.node.node_publish_volume(publish("v", TARGET)));
    assert_eq!(code(early), Code::FailedPrecondition, "not staged");
    bring_to_pod(&rig, &driver, "v").await;
    make_staging_directory(&rig, "elsewhere");
    let mut elsewhere = stage("v");
    elsewhere.staging_target_path = staging("elsewhere");
    assert_eq!(
        code(call!(driver.node.node_stage_volume(elsewhere))),
        Code::FailedPrecondition
    );
    let mut other = stage("v");
    other.volume_capability = Some(mount(Mode::SingleNodeWriter));
    assert_eq!(code(call!(driver.node.node_stage_volume(other))), Code::AlreadyExists);
    let still_published = call!(driver.node.node_unstage_volume(unstage("v")));
    assert_eq!(code(still_published), Code::FailedPrecondition);
    let mut no_path = unstage("v");
    no_path.staging_target_path.clear();
    assert_eq!(
        code(call!(driver.node.node_unstage_volume(no_path))),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_target_is_what_and_where_it_may_be() {
    type Change = fn(&mut csi::NodePublishVolumeRequest);
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    let cases: [(Code, Change); 11] = [
        (Code::AlreadyExists, |r| r.readonly = true),
        (Code::FailedPrecondition, |r| r.staging_target_path.clear()),
        (Code::FailedPrecondition, |r| {
            r.volume_capability = Some(block(Mode::SingleNodeMultiWriter));
            r.target_path = "/var/lib/kubelet/pods/b".to_owned();
        }),
        (Code::FailedPrecondition, |r| {
            r.target_path = "/var/lib/kubelet/missing/b".to_owned()
        }),
        (Code::InvalidArgument, |r| r.target_path = "/etc/passwd".to_owned()),
        (Code::InvalidArgument, |r| {
            r.target_path = "/var/lib/kubelet/pods/../../../etc/x".to_owned()
        }),
        (Code::InvalidArgument, |r| {
            r.target_path = "/var/lib/kubelet/pods/a\0b".to_owned()
        }),
        (Code::InvalidArgument, |r| r.target_path = "pods/x".to_owned()),
        (Code::InvalidArgument, |r| r.target_path.clear()),
        (Code::InvalidArgument, |r| r.volume_capability = None),
        (Code::InvalidArgument, |r| r.volume_id.clear()),
    ];
    for (number, (expected, change)) in cases.into_iter().enumerate() {
        let mut request = publish("v", TARGET);
        change(&mut request);
        assert_eq!(
            code(call!(driver.node.node_publish_volume(request))),
            expected,
            "case {number}"
        );
    }
    assert_eq!(rig.world.lock().unwrap().mounts.len(), 2, "nothing changed");
}

#[tokio::test]
async fn a_path_that_is_only_looked_up_is_not_found_or_malformed() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    for (at, expected) in [
        ("some/path", Code::NotFound),
        ("/somewhere/else", Code::NotFound),
        ("/var/lib/kubelet/../x", Code::NotFound),
        ("", Code::InvalidArgument),
        ("/var/lib/kubelet/a\0b", Code::InvalidArgument),
    ] {
        assert_eq!(
            code(call!(driver.node.node_get_volume_stats(stats("v", at)))),
            expected,
            "{at:?}"
        );
        assert_eq!(
            code(call!(driver.node.node_expand_volume(node_expand("v", at, GI)))),
            expected,
            "{at:?}"
        );
    }
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
