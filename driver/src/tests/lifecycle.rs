//! What each kind of driver does when nothing goes wrong.

use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::identity_server::Identity as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::rig::{Rig, path, zone};
use crate::config::{Config, Expansion};
use crate::host::{MountSource, PathKind, Probe};
use crate::units::{Access, Bytes};

#[tokio::test]
async fn a_volume_goes_to_a_pod_and_back_and_leaves_nothing() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    {
        let world = rig.world.lock().unwrap();
        let targets: Vec<&str> = world.mounts.iter().map(|entry| entry.target.as_str()).collect();
        assert_eq!(targets, [staging("v").as_str(), TARGET]);
        assert_eq!(world.formatted, 1);
    }
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_raw_block_volume_is_shown_as_a_device_and_never_formatted() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let capability = || Some(block(Mode::SingleNodeMultiWriter));
    let create = csi::CreateVolumeRequest {
        volume_capabilities: vec![block(Mode::SingleNodeMultiWriter)],
        ..create("v")
    };
    call!(driver.controller.create_volume(create)).unwrap();
    let publish_to = csi::ControllerPublishVolumeRequest {
        volume_capability: capability(),
        ..controller_publish("v", "n1")
    };
    call!(driver.controller.controller_publish_volume(publish_to)).unwrap();
    call!(driver.node.node_stage_volume(csi::NodeStageVolumeRequest {
        volume_capability: capability(),
        ..stage("v")
    }))
    .unwrap();
    let show = csi::NodePublishVolumeRequest {
        volume_capability: capability(),
        ..publish("v", TARGET)
    };
    call!(driver.node.node_publish_volume(show)).unwrap();
    {
        let world = rig.world.lock().unwrap();
        assert!(matches!(&world.mounts[..], [entry] if matches!(entry.source, MountSource::Device(_))));
        assert_eq!(world.paths[&path(TARGET)], PathKind::File);
        assert_eq!(world.formatted, 0);
    }
    let size = call!(driver.node.node_get_volume_stats(stats("v", TARGET))).unwrap();
    assert_eq!((size.usage.len(), size.usage[0].total), (1, GI));
    call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    )
    .unwrap();
    assert_eq!(
        call!(driver.node.node_expand_volume(node_expand("v", TARGET, 2 * GI)))
            .unwrap()
            .capacity_bytes,
        2 * GI
    );
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_inline_volume_lives_as_long_as_its_pod() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.node.node_publish_volume(ephemeral("csi-1", TARGET))).unwrap();
    assert_eq!(
        rig.world.lock().unwrap().volumes[&"csi-1".into()].known.size,
        Bytes::gi(2)
    );
    call!(driver.node.node_publish_volume(ephemeral("csi-1", TARGET))).unwrap();
    let gone = csi::NodeUnpublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: TARGET.to_owned(),
    };
    call!(driver.node.node_unpublish_volume(gone.clone())).unwrap();
    call!(driver.node.node_unpublish_volume(gone)).unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_driver_without_staging_stages_with_the_first_target_and_lets_go_with_the_last() {
    let mut rig = Rig::new(Config {
        stage: false,
        attach: false,
        ..Config::default()
    });
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    let unstaged = |target: &str| csi::NodePublishVolumeRequest {
        staging_target_path: String::new(),
        ..publish("v", target)
    };
    let second = "/var/lib/kubelet/pods/pod2";
    call!(driver.node.node_publish_volume(unstaged(TARGET))).unwrap();
    call!(driver.node.node_publish_volume(unstaged(second))).unwrap();
    call!(driver.node.node_unpublish_volume(unpublish("v", TARGET))).unwrap();
    assert_eq!(
        rig.world.lock().unwrap().mounts.len(),
        2,
        "the private mount and the second target"
    );
    call!(driver.node.node_unpublish_volume(unpublish("v", second))).unwrap();
    call!(driver.controller.delete_volume(delete("v"))).unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_grows_online_through_both_services() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    let grown = call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI - 1))
    )
    .unwrap();
    assert_eq!(
        (grown.capacity_bytes, grown.node_expansion_required),
        (2 * GI, true),
        "rounded up"
    );
    let smaller = call!(driver.controller.controller_expand_volume(controller_expand("v", GI))).unwrap();
    assert_eq!(smaller.capacity_bytes, 2 * GI, "never shrinks");
    let early = call!(driver.node.node_expand_volume(node_expand("v", TARGET, 3 * GI)));
    assert_eq!(
        code(early),
        tonic::Code::Unavailable,
        "the storage system has not grown that far"
    );
    for at in [TARGET.to_owned(), staging("v")] {
        let size = call!(driver.node.node_expand_volume(node_expand("v", &at, 2 * GI)))
            .unwrap()
            .capacity_bytes;
        assert_eq!(size, 2 * GI);
    }
    let world = rig.world.lock().unwrap();
    let holds = &world.volumes.values().next().unwrap().holds;
    assert!(
        matches!(holds, Probe::FileSystem { size, .. } if *size == Bytes::gi(2)),
        "{holds:?}"
    );
}

#[tokio::test]
async fn without_node_expansion_an_idle_volume_grows_and_its_file_system_follows_when_staged() {
    let mut rig = Rig::new(Config {
        node_expansion: false,
        ..Config::default()
    });
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    let busy = call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    );
    assert_eq!(code(busy), tonic::Code::FailedPrecondition);
    call!(driver.node.node_unpublish_volume(unpublish("v", TARGET))).unwrap();
    call!(driver.node.node_unstage_volume(unstage("v"))).unwrap();
    call!(
        driver
            .controller
            .controller_unpublish_volume(controller_unpublish("v", "n1"))
    )
    .unwrap();
    let grown = call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    )
    .unwrap();
    assert!(!grown.node_expansion_required);
    bring_to_pod(&rig, &driver, "v").await;
    let world = rig.world.lock().unwrap();
    let holds = &world.volumes.values().next().unwrap().holds;
    assert!(
        matches!(holds, Probe::FileSystem { size, .. } if *size == Bytes::gi(2)),
        "{holds:?}"
    );
    assert_eq!(world.formatted, 1);
}

#[tokio::test]
async fn a_copy_is_as_large_as_asked_and_its_file_system_fills_it_once_staged() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "source").await;
    let larger = csi::CreateVolumeRequest {
        capacity_range: range(3 * GI, 0),
        ..clone_of("copy", "source")
    };
    let volume = call!(driver.controller.create_volume(larger)).unwrap().volume.unwrap();
    assert_eq!(volume.capacity_bytes, 3 * GI);
    assert_eq!(volume.content_source, clone_of("copy", "source").volume_content_source);
    make_staging_directory(&rig, "copy");
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("copy", "n1"))
    )
    .unwrap();
    call!(driver.node.node_stage_volume(stage("copy"))).unwrap();
    let world = rig.world.lock().unwrap();
    let holds = &world.volumes[&id("copy").as_str().into()].holds;
    assert!(
        matches!(holds, Probe::FileSystem { size, .. } if *size == Bytes::gi(3)),
        "{holds:?}"
    );
    assert_eq!(world.formatted, 1, "only the source was ever formatted");
}

#[tokio::test]
async fn a_shared_file_system_is_made_by_the_pool_and_by_no_node() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let shared = || mount(Mode::MultiNodeMultiWriter);
    let create = csi::CreateVolumeRequest {
        volume_capabilities: vec![shared()],
        ..create("v")
    };
    call!(driver.controller.create_volume(create)).unwrap();
    for node in ["n1", "n2"] {
        let request = csi::ControllerPublishVolumeRequest {
            volume_capability: Some(shared()),
            ..controller_publish("v", node)
        };
        call!(driver.controller.controller_publish_volume(request)).unwrap();
    }
    make_staging_directory(&rig, "v");
    call!(driver.node.node_stage_volume(csi::NodeStageVolumeRequest {
        volume_capability: Some(shared()),
        ..stage("v")
    }))
    .unwrap();
    assert_eq!(rig.world.lock().unwrap().formatted, 0);
    let listed = call!(driver.controller.list_volumes(csi::ListVolumesRequest::default())).unwrap();
    assert_eq!(
        listed.entries[0].status.as_ref().unwrap().published_node_ids,
        ["n1", "n2"]
    );
}

#[tokio::test]
async fn a_read_only_publication_reaches_the_mount() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    tear_down_node(&rig, &driver).await;
    let request = csi::ControllerPublishVolumeRequest {
        readonly: true,
        ..controller_publish("v", "n1")
    };
    let publish_context = call!(driver.controller.controller_publish_volume(request))
        .unwrap()
        .publish_context;
    call!(driver.node.node_stage_volume(csi::NodeStageVolumeRequest {
        publish_context,
        ..stage("v")
    }))
    .unwrap();
    assert!(
        rig.world
            .lock()
            .unwrap()
            .mounts
            .iter()
            .all(|entry| entry.access == Access::ReadOnly)
    );
    let writable = call!(driver.node.node_publish_volume(publish("v", TARGET)));
    assert_eq!(code(writable), tonic::Code::FailedPrecondition);
    let readonly = csi::NodePublishVolumeRequest {
        readonly: true,
        ..publish("v", TARGET)
    };
    call!(driver.node.node_publish_volume(readonly)).unwrap();
}

async fn tear_down_node(rig: &Rig, driver: &crate::seat::Driver) {
    call!(driver.node.node_unpublish_volume(unpublish("v", TARGET))).unwrap();
    call!(driver.node.node_unstage_volume(unstage("v"))).unwrap();
    call!(
        driver
            .controller
            .controller_unpublish_volume(controller_unpublish("v", "n1"))
    )
    .unwrap();
    make_staging_directory(rig, "v");
}

#[tokio::test]
async fn volumes_go_where_the_topology_wants_them_and_there_is_room() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    let place = |name: &str| csi::Topology { segments: zone(name) };
    let wanted = |name: &str| csi::CreateVolumeRequest {
        accessibility_requirements: Some(csi::TopologyRequirement {
            requisite: vec![place("a"), place("b")],
            preferred: vec![place("b"), place("a")],
        }),
        ..create(name)
    };
    let volume = call!(driver.controller.create_volume(wanted("v")))
        .unwrap()
        .volume
        .unwrap();
    assert_eq!(volume.accessible_topology, [place("b")], "preferred first");
    rig.world.lock().unwrap().room.insert(zone("b"), 0);
    let volume = call!(driver.controller.create_volume(wanted("w")))
        .unwrap()
        .volume
        .unwrap();
    assert_eq!(volume.accessible_topology, [place("a")], "else the next with room");
    rig.world.lock().unwrap().room.insert(zone("a"), 0);
    assert_eq!(
        code(call!(driver.controller.create_volume(wanted("x")))),
        tonic::Code::ResourceExhausted
    );
    assert!(!rig.world.lock().unwrap().volumes.contains_key(&id("x").as_str().into()));
    let room = csi::GetCapacityRequest {
        accessible_topology: Some(place("b")),
        ..Default::default()
    };
    assert_eq!(
        call!(driver.controller.get_capacity(room)).unwrap().available_capacity,
        0
    );
    let nowhere = csi::GetCapacityRequest {
        accessible_topology: Some(place("z")),
        ..Default::default()
    };
    assert_eq!(
        call!(driver.controller.get_capacity(nowhere))
            .unwrap()
            .available_capacity,
        0
    );
}

#[tokio::test]
async fn pages_are_complete_and_disjoint_while_volumes_come_and_go() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    for number in 0..7 {
        call!(driver.controller.create_volume(create(&format!("v{number}")))).unwrap();
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = csi::ListVolumesRequest {
            max_entries: 3,
            starting_token: token,
        };
        let page = call!(driver.controller.list_volumes(request)).unwrap();
        assert!(page.entries.len() <= 3);
        seen.extend(page.entries.into_iter().map(|entry| entry.volume.unwrap().volume_id));
        if page.next_token.is_empty() {
            break;
        }
        token = page.next_token;
        // The volume that the token names goes away: the next page is not disturbed.
        let last = csi::DeleteVolumeRequest {
            volume_id: seen.last().unwrap().clone(),
            ..Default::default()
        };
        call!(driver.controller.delete_volume(last)).unwrap();
    }
    let mut expected: Vec<String> = (0..7).map(|number| id(&format!("v{number}"))).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_volume_made_by_hand_can_be_used_and_is_deleted_on_request_only() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    {
        // The pool's volume under another handle stands for one that an administrator made.
        let mut world = rig.world.lock().unwrap();
        let mut volume = world.volumes.remove(&id("v").as_str().into()).unwrap();
        volume.known.id = "existingVolumeName".into();
        world.volumes.insert("existingVolumeName".into(), volume);
    }
    let by_hand = || "existingVolumeName".to_owned();
    let request = csi::ControllerPublishVolumeRequest {
        volume_id: by_hand(),
        ..controller_publish("v", "n1")
    };
    call!(driver.controller.controller_publish_volume(request)).unwrap();
    let delete = || csi::DeleteVolumeRequest {
        volume_id: by_hand(),
        ..Default::default()
    };
    assert_eq!(
        code(call!(driver.controller.delete_volume(delete()))),
        tonic::Code::FailedPrecondition
    );
    let gone = csi::ControllerUnpublishVolumeRequest {
        volume_id: by_hand(),
        ..Default::default()
    };
    call!(driver.controller.controller_unpublish_volume(gone)).unwrap();
    call!(driver.controller.delete_volume(delete())).unwrap();
    assert!(rig.world.lock().unwrap().volumes.is_empty());
}

#[tokio::test]
async fn capabilities_follow_the_switches() {
    let count = async |config: Config| {
        let driver = Rig::new(config).start().await;
        let controller = call!(driver.controller.controller_get_capabilities(Default::default())).unwrap();
        let node = call!(driver.node.node_get_capabilities(Default::default())).unwrap();
        let plugin = driver
            .identity
            .get_plugin_capabilities(tonic::Request::new(Default::default()))
            .await
            .unwrap()
            .into_inner();
        (
            plugin.capabilities.len(),
            controller.capabilities.len(),
            node.capabilities.len(),
        )
    };
    assert_eq!(count(Config::default()).await, (5, 15, 6));
    let bare = Config {
        attach: false,
        stage: false,
        volume_mount_group: false,
        topology: false,
        expansion: Expansion::None,
        clone: false,
        snapshots: false,
        group_snapshots: false,
        snapshot_metadata: false,
        modify: false,
        list: false,
        capacity: false,
        stats: false,
        volume_condition: false,
        single_node_multi_writer: false,
        ..Config::default()
    };
    assert_eq!(count(bare).await, (1, 2, 0));
}
