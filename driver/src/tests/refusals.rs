//! What the Controller service refuses, with which code, and that nothing changed.

use tonic::Code;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::rig::{Rig, Trouble};
use crate::config::Config;
use crate::pool::PoolErrorKind;
use crate::units::Bytes;

type Change<R> = fn(&mut R);

/// A mount capability with a file system and a group.
fn mounted(fs_type: &str, volume_mount_group: &str) -> csi::VolumeCapability {
    use csi::volume_capability::{AccessType, MountVolume};
    let volume = MountVolume {
        fs_type: fs_type.to_owned(),
        volume_mount_group: volume_mount_group.to_owned(),
        ..Default::default()
    };
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(volume)),
        ..mount(Mode::SingleNodeWriter)
    }
}

#[tokio::test]
async fn create_volume_refuses_what_it_cannot_keep() {
    let mut config = Config::default();
    let kind = config.types.get_mut("standard").unwrap();
    kind.max_size = Bytes::gi(10);
    let mut rig = Rig::new(config);
    let driver = rig.start().await;
    let cases: [(Code, Change<csi::CreateVolumeRequest>); 17] = [
        (Code::InvalidArgument, |r| r.name.clear()),
        (Code::InvalidArgument, |r| r.name = "x".repeat(129)),
        (Code::InvalidArgument, |r| r.name = "a\u{1}b".to_owned()),
        (Code::InvalidArgument, |r| r.volume_capabilities.clear()),
        (Code::InvalidArgument, |r| {
            r.volume_capabilities.push(block(Mode::SingleNodeWriter))
        }),
        (Code::InvalidArgument, |r| {
            r.volume_capabilities[0] = mounted("", "staff")
        }),
        (Code::InvalidArgument, |r| r.volume_capabilities[0] = mounted("zfs", "")),
        (Code::InvalidArgument, |r| r.capacity_range = range(-1, 0)),
        (Code::InvalidArgument, |r| r.capacity_range = range(2, 1)),
        (Code::OutOfRange, |r| r.capacity_range = range(11 * GI, 0)),
        (Code::OutOfRange, |r| r.capacity_range = range(GI + 1, GI + 2)),
        (Code::OutOfRange, |r| r.capacity_range = range(i64::MAX, 0)),
        (Code::InvalidArgument, |r| {
            r.mutable_parameters = text(&[("color", "1")])
        }),
        (Code::InvalidArgument, |r| {
            r.mutable_parameters = text(&[("iops", "fast")])
        }),
        (Code::InvalidArgument, |r| {
            r.parameters = text(&[("k", &"v".repeat(4096))])
        }),
        (Code::NotFound, |r| *r = clone_of("v", "missing")),
        (Code::InvalidArgument, |r| *r = clone_of("v", "v")),
    ];
    for (number, (expected, change)) in cases.into_iter().enumerate() {
        let mut request = create("v");
        change(&mut request);
        assert_eq!(
            code(call!(driver.controller.create_volume(request))),
            expected,
            "case {number}"
        );
    }
    assert!(rig.world.lock().unwrap().volumes.is_empty());
    assert_eq!(rig.syncs(), 0, "nothing was ever recorded");
}

#[tokio::test]
async fn parameters_are_taken_as_they_come_or_strictly() {
    let wild = || csi::CreateVolumeRequest {
        parameters: text(&[
            ("type", "pd-ssd"),
            ("fsType", "ext4"),
            ("csi.storage.k8s.io/pvc/name", "data"),
        ]),
        ..create("v")
    };
    let driver = Rig::new(Config::default()).start().await;
    call!(driver.controller.create_volume(wild())).unwrap();
    let strict = Config {
        strict_parameters: true,
        ..Config::default()
    };
    let driver = Rig::new(strict).start().await;
    assert_eq!(
        code(call!(driver.controller.create_volume(wild()))),
        Code::InvalidArgument
    );
    let known = csi::CreateVolumeRequest {
        parameters: text(&[("type", "standard"), ("csi.storage.k8s.io/pvc/name", "data")]),
        ..create("v")
    };
    call!(driver.controller.create_volume(known)).unwrap();
}

#[tokio::test]
async fn the_same_name_with_other_wishes_already_exists() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    call!(driver.controller.create_volume(create("other"))).unwrap();
    let cases = [
        csi::CreateVolumeRequest {
            capacity_range: range(2 * GI, 0),
            ..create("v")
        },
        csi::CreateVolumeRequest {
            capacity_range: range(0, GI / 2),
            ..create("v")
        },
        csi::CreateVolumeRequest {
            parameters: text(&[("a", "b")]),
            ..create("v")
        },
        csi::CreateVolumeRequest {
            mutable_parameters: text(&[("iops", "5")]),
            ..create("v")
        },
        csi::CreateVolumeRequest {
            volume_capabilities: vec![block(Mode::SingleNodeWriter)],
            ..create("v")
        },
        csi::CreateVolumeRequest {
            volume_capabilities: vec![mount(Mode::MultiNodeMultiWriter)],
            ..create("v")
        },
        clone_of("v", "other"),
    ];
    for request in cases {
        let shown = format!("{:?} {:?}", request.capacity_range, request.volume_capabilities);
        assert_eq!(
            code(call!(driver.controller.create_volume(request))),
            Code::AlreadyExists,
            "{shown}"
        );
    }
    let wider = csi::CreateVolumeRequest {
        capacity_range: range(1, 2 * GI),
        ..create("v")
    };
    call!(driver.controller.create_volume(wider)).unwrap();
}

#[tokio::test]
async fn publishing_keeps_to_the_access_mode() {
    let mut rig = Rig::new(Config {
        max_volumes_per_node: 1,
        ..Config::default()
    });
    let driver = rig.start().await;
    for name in ["v", "w"] {
        call!(driver.controller.create_volume(create(name))).unwrap();
    }
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    )
    .unwrap();
    let elsewhere = call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n2"))
    )
    .unwrap_err();
    assert_eq!(elsewhere.code(), Code::FailedPrecondition);
    assert!(
        elsewhere.message().contains("n1"),
        "the message names the node: {}",
        elsewhere.message()
    );
    let cases: [(Code, Change<csi::ControllerPublishVolumeRequest>); 8] = [
        (Code::ResourceExhausted, |r| *r = controller_publish("w", "n1")),
        (Code::AlreadyExists, |r| r.readonly = true),
        (Code::AlreadyExists, |r| {
            r.volume_capability = Some(mount(Mode::SingleNodeSingleWriter))
        }),
        (Code::InvalidArgument, |r| r.volume_capability = None),
        (Code::InvalidArgument, |r| r.node_id.clear()),
        (Code::InvalidArgument, |r| r.volume_id.clear()),
        (Code::NotFound, |r| *r = controller_publish("missing", "n2")),
        (Code::NotFound, |r| *r = controller_publish("w", "n9")),
    ];
    for (number, (expected, change)) in cases.into_iter().enumerate() {
        let mut request = controller_publish("v", "n1");
        change(&mut request);
        let result = call!(driver.controller.controller_publish_volume(request));
        assert_eq!(code(result), expected, "case {number}");
    }
    assert_eq!(
        code(call!(driver.controller.delete_volume(delete("v")))),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn one_writer_among_readers() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let capability = || block(Mode::MultiNodeSingleWriter);
    let create = csi::CreateVolumeRequest {
        volume_capabilities: vec![capability()],
        ..create("v")
    };
    call!(driver.controller.create_volume(create)).unwrap();
    let to = |node: &str, readonly: bool| csi::ControllerPublishVolumeRequest {
        volume_capability: Some(capability()),
        readonly,
        ..controller_publish("v", node)
    };
    call!(driver.controller.controller_publish_volume(to("n1", false))).unwrap();
    assert_eq!(
        code(call!(driver.controller.controller_publish_volume(to("n2", false)))),
        Code::FailedPrecondition
    );
    call!(driver.controller.controller_publish_volume(to("n2", true))).unwrap();
}

#[tokio::test]
async fn what_is_unknown_is_gone_for_whoever_gives_it_up() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.delete_volume(delete("nothing"))).unwrap();
    call!(
        driver
            .controller
            .controller_unpublish_volume(controller_unpublish("nothing", "n1"))
    )
    .unwrap();
    call!(driver.node.node_unstage_volume(unstage("nothing"))).unwrap();
    call!(driver.node.node_unpublish_volume(unpublish("nothing", TARGET))).unwrap();
}

#[tokio::test]
async fn what_is_unknown_is_not_found_for_whoever_uses_it() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let expand = call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("nothing", GI))
    );
    assert_eq!(code(expand), Code::NotFound);
    let get = csi::ControllerGetVolumeRequest {
        volume_id: id("nothing"),
    };
    assert_eq!(
        code(call!(driver.controller.controller_get_volume(get))),
        Code::NotFound
    );
    let validate = csi::ValidateVolumeCapabilitiesRequest {
        volume_id: id("nothing"),
        volume_capabilities: vec![mount(Mode::SingleNodeWriter)],
        ..Default::default()
    };
    assert_eq!(
        code(call!(driver.controller.validate_volume_capabilities(validate))),
        Code::NotFound
    );
    let modify = csi::ControllerModifyVolumeRequest {
        volume_id: id("nothing"),
        ..Default::default()
    };
    assert_eq!(
        code(call!(driver.controller.controller_modify_volume(modify))),
        Code::NotFound
    );
    assert_eq!(
        code(call!(
            driver.node.node_expand_volume(node_expand("nothing", TARGET, GI))
        )),
        Code::NotFound
    );
    assert_eq!(
        code(call!(driver.node.node_get_volume_stats(stats("nothing", TARGET)))),
        Code::NotFound
    );
    make_staging_directory(&rig, "nothing");
    assert_eq!(
        code(call!(driver.node.node_stage_volume(stage("nothing")))),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_page_starts_where_a_page_ended() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let page = |max_entries, starting_token: &str| csi::ListVolumesRequest {
        max_entries,
        starting_token: starting_token.to_owned(),
    };
    assert_eq!(
        code(call!(driver.controller.list_volumes(page(0, "garbage")))),
        Code::Aborted
    );
    assert_eq!(
        code(call!(driver.controller.list_volumes(page(0, "after:")))),
        Code::Aborted
    );
    assert_eq!(
        code(call!(driver.controller.list_volumes(page(-1, "")))),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn expansion_keeps_to_the_range_and_to_the_room() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    let base = || controller_expand("v", 2 * GI);
    let cases = [
        (
            Code::InvalidArgument,
            csi::ControllerExpandVolumeRequest {
                capacity_range: None,
                ..base()
            },
        ),
        (
            Code::InvalidArgument,
            csi::ControllerExpandVolumeRequest {
                capacity_range: range(-5, 0),
                ..base()
            },
        ),
        (
            Code::OutOfRange,
            csi::ControllerExpandVolumeRequest {
                capacity_range: range(1, GI - 1),
                ..base()
            },
        ),
        (
            Code::OutOfRange,
            csi::ControllerExpandVolumeRequest {
                capacity_range: range(GI + 1, GI + 2),
                ..base()
            },
        ),
        (Code::OutOfRange, controller_expand("v", i64::MAX)),
        (Code::ResourceExhausted, controller_expand("v", 2 << 40)),
    ];
    for (expected, request) in cases {
        let shown = format!("{:?}", request.capacity_range);
        assert_eq!(
            code(call!(driver.controller.controller_expand_volume(request))),
            expected,
            "{shown}"
        );
    }
    let get = csi::ControllerGetVolumeRequest { volume_id: id("v") };
    let volume = call!(driver.controller.controller_get_volume(get))
        .unwrap()
        .volume
        .unwrap();
    assert_eq!(volume.capacity_bytes, GI, "a refused expansion changes nothing");
}

#[tokio::test]
async fn an_uncertain_pool_makes_an_uncertain_answer_and_no_leak() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    for (trouble, expected) in [
        (PoolErrorKind::Unavailable, Code::Unavailable),
        (PoolErrorKind::TimedOut, Code::DeadlineExceeded),
        (PoolErrorKind::Io, Code::Internal),
    ] {
        rig.fail("create", Trouble::Pool(trouble));
        assert_eq!(code(call!(driver.controller.create_volume(create("v")))), expected);
        assert!(rig.world.lock().unwrap().volumes.is_empty());
    }
    call!(driver.controller.create_volume(create("v"))).unwrap();
    rig.fail("export", Trouble::Pool(PoolErrorKind::TimedOut));
    let publish = call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    );
    assert_eq!(code(publish), Code::DeadlineExceeded);
    call!(driver.controller.delete_volume(delete("v"))).unwrap();
}

#[tokio::test]
async fn settings_change_wholly_or_not_at_all() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    let modify = |pairs: &[(&str, &str)]| csi::ControllerModifyVolumeRequest {
        volume_id: id("v"),
        mutable_parameters: text(pairs),
        ..Default::default()
    };
    let half_good = modify(&[("iops", "500"), ("color", "red")]);
    assert_eq!(
        code(call!(driver.controller.controller_modify_volume(half_good))),
        Code::InvalidArgument
    );
    for bad in ["0", "-1", "many", ""] {
        let result = call!(driver.controller.controller_modify_volume(modify(&[("iops", bad)])));
        assert_eq!(code(result), Code::InvalidArgument, "{bad:?}");
    }
    let settings = || {
        rig.world
            .lock()
            .unwrap()
            .volumes
            .values()
            .next()
            .unwrap()
            .settings
            .clone()
    };
    assert!(settings().is_empty());
    call!(driver.controller.controller_modify_volume(modify(&[("iops", "500")]))).unwrap();
    assert_eq!(settings(), text(&[("iops", "500")]));
}
