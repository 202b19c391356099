//! Volumes behind an encryption layer: nothing is stored plain, nothing is formatted over, and the layer grows.

use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::rig::Rig;
use crate::config::{Config, StorageType};
use crate::host::{HostErrorKind, MountSource, Probe};
use crate::units::{Bytes, FsKind};

/// Every volume is encrypted unless it is `plain`.
pub(super) fn encrypted() -> Config {
    let kind = StorageType {
        encrypted: true,
        ..StorageType::default()
    };
    Config {
        types: [
            ("plain".to_owned(), StorageType::default()),
            ("encrypted".to_owned(), kind),
        ]
        .into(),
        default_type: "encrypted".to_owned(),
        ..Config::default()
    }
}

fn stage_with(name: &str, key: &str) -> csi::NodeStageVolumeRequest {
    csi::NodeStageVolumeRequest {
        secrets: text(&[(crate::key::KEY_SECRET, key)]),
        ..encrypted_stage(name)
    }
}

fn holds(rig: &Rig, name: &str) -> (Probe, Option<Probe>) {
    let world = rig.world.lock().unwrap();
    let volume = &world.volumes[&id(name).as_str().into()];
    (
        volume.holds.clone(),
        volume.layer.as_ref().map(|layer| layer.holds.clone()),
    )
}

#[tokio::test]
async fn the_file_system_lies_behind_the_layer_and_nothing_is_left_of_either() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    call!(driver.controller.create_volume(create("v"))).unwrap();
    let attached = call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    );
    let context = attached.unwrap().publish_context;
    assert_eq!(context["wavetank.dev/encrypted"], "true");
    call!(driver.node.node_stage_volume(encrypted_stage("v"))).unwrap();
    call!(driver.node.node_stage_volume(encrypted_stage("v"))).unwrap();
    call!(driver.node.node_publish_volume(publish("v", TARGET))).unwrap();
    let (bare, inside) = holds(&rig, "v");
    assert!(matches!(bare, Probe::Encrypted { .. }), "{bare:?}");
    let inside = inside.unwrap();
    assert!(
        matches!(inside, Probe::FileSystem { kind: FsKind::Ext4, size, .. } if size == Bytes(GI as u64)),
        "the header takes nothing of what was asked: {inside:?}"
    );
    {
        let world = rig.world.lock().unwrap();
        let (layer, _) = &world.layers[&id("v").as_str().into()];
        let on_layer = |source: &MountSource| source.device() == Some(layer);
        assert_eq!(world.mounts.iter().filter(|entry| on_layer(&entry.source)).count(), 2);
    }
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn without_its_key_a_volume_is_refused_and_left_as_it_is() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    call!(driver.node.node_unpublish_volume(unpublish("v", TARGET))).unwrap();
    call!(driver.node.node_unstage_volume(unstage("v"))).unwrap();
    let before = holds(&rig, "v");
    let keyless = csi::NodeStageVolumeRequest {
        secrets: Default::default(),
        ..encrypted_stage("v")
    };
    for (request, refusal) in [
        (keyless, tonic::Code::InvalidArgument),
        (stage_with("v", ""), tonic::Code::InvalidArgument),
        (stage_with("v", "another key"), tonic::Code::Unauthenticated),
    ] {
        assert_eq!(code(call!(driver.node.node_stage_volume(request))), refusal);
        let world = rig.world.lock().unwrap();
        assert!(world.devices.is_empty() && world.layers.is_empty() && world.mounts.is_empty());
    }
    assert_eq!(holds(&rig, "v"), before);
    call!(driver.node.node_stage_volume(encrypted_stage("v"))).unwrap();
    assert_eq!(rig.world.lock().unwrap().formatted, 1);
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_blank_is_never_encrypted_over() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    call!(driver.controller.create_volume(create("v"))).unwrap();
    let plain = Probe::FileSystem {
        kind: FsKind::Ext4,
        size: Bytes::GI,
        uuid: String::new(),
        label: String::new(),
    };
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    )
    .unwrap();
    for there in [plain, Probe::Foreign("gpt".to_owned())] {
        let handle = id("v").as_str().into();
        rig.world.lock().unwrap().volumes.get_mut(&handle).unwrap().holds = there.clone();
        let refused = call!(driver.node.node_stage_volume(encrypted_stage("v")));
        assert_eq!(code(refused), tonic::Code::FailedPrecondition);
        assert_eq!(holds(&rig, "v"), (there, None));
    }
    rig.fail("probe", super::rig::Trouble::Host(HostErrorKind::Io));
    let unreadable = call!(driver.node.node_stage_volume(encrypted_stage("v")));
    assert_eq!(code(unreadable), tonic::Code::Internal, "unreadable is never blank");
}

#[tokio::test]
async fn a_plain_volume_with_a_layer_on_it_is_refused() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    let plain = csi::CreateVolumeRequest {
        parameters: text(&[("type", "plain")]),
        ..create("v")
    };
    call!(driver.controller.create_volume(plain)).unwrap();
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    )
    .unwrap();
    let handle = id("v").as_str().into();
    let layer = Probe::Encrypted { uuid: String::new() };
    rig.world.lock().unwrap().volumes.get_mut(&handle).unwrap().holds = layer.clone();
    let refused = call!(driver.node.node_stage_volume(stage("v")));
    assert_eq!(code(refused), tonic::Code::FailedPrecondition);
    assert_eq!(holds(&rig, "v").0, layer);
}

#[tokio::test]
async fn an_expansion_grows_the_layer_before_the_file_system() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    )
    .unwrap();
    let grown = call!(driver.node.node_expand_volume(node_expand("v", TARGET, 2 * GI))).unwrap();
    assert_eq!(grown.capacity_bytes, 2 * GI);
    let inside = holds(&rig, "v").1;
    assert!(
        matches!(inside, Some(Probe::FileSystem { size, .. }) if size == Bytes::gi(2)),
        "{inside:?}"
    );
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_block_volume_shows_the_layer_and_never_the_ciphertext() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    let capability = || Some(block(Mode::SingleNodeMultiWriter));
    let request = csi::CreateVolumeRequest {
        volume_capabilities: capability().into_iter().collect(),
        ..create("v")
    };
    call!(driver.controller.create_volume(request)).unwrap();
    let attach = csi::ControllerPublishVolumeRequest {
        volume_capability: capability(),
        ..controller_publish("v", "n1")
    };
    call!(driver.controller.controller_publish_volume(attach)).unwrap();
    let bare = csi::NodeStageVolumeRequest {
        volume_capability: capability(),
        ..encrypted_stage("v")
    };
    call!(driver.node.node_stage_volume(bare)).unwrap();
    let show = csi::NodePublishVolumeRequest {
        volume_capability: capability(),
        ..publish("v", TARGET)
    };
    call!(driver.node.node_publish_volume(show)).unwrap();
    {
        let world = rig.world.lock().unwrap();
        let (layer, size) = &world.layers[&id("v").as_str().into()];
        assert_eq!(world.mounts[0].source, MountSource::Device(layer.clone()));
        assert_eq!(*size, Bytes::GI, "what was asked, although a header is in front");
    }
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn copies_are_encrypted_as_their_source_and_open_with_its_key() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    let plain = csi::CreateVolumeRequest {
        parameters: text(&[("type", "plain")]),
        ..clone_of("copy", "v")
    };
    assert_eq!(
        code(call!(driver.controller.create_volume(plain))),
        tonic::Code::InvalidArgument
    );
    call!(driver.controller.create_volume(clone_of("copy", "v"))).unwrap();
    make_staging_directory(&rig, "copy");
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("copy", "n1"))
    )
    .unwrap();
    let wrong = call!(driver.node.node_stage_volume(stage_with("copy", "another key")));
    assert_eq!(code(wrong), tonic::Code::Unauthenticated);
    call!(driver.node.node_stage_volume(encrypted_stage("copy"))).unwrap();
    assert_eq!(rig.world.lock().unwrap().formatted, 1);
}

#[tokio::test]
async fn several_nodes_never_meet_in_one_layer() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    for capability in [
        mount(Mode::MultiNodeMultiWriter),
        mount(Mode::MultiNodeReaderOnly),
        block(Mode::MultiNodeMultiWriter),
    ] {
        let request = csi::CreateVolumeRequest {
            volume_capabilities: vec![capability],
            ..create("v")
        };
        let refused = call!(driver.controller.create_volume(request));
        assert_eq!(code(refused), tonic::Code::InvalidArgument);
    }
}

/// Both shapes in which the node reaches for the volume itself.
#[tokio::test]
async fn without_attachment_and_without_staging_the_layer_is_there_all_the_same() {
    for (attach, stage) in [(false, true), (false, false), (true, false)] {
        let mut rig = Rig::new(Config {
            attach,
            stage,
            ..encrypted()
        });
        let driver = rig.start().await;
        make_staging_directory(&rig, "v");
        call!(driver.controller.create_volume(create("v"))).unwrap();
        let mut show = publish("v", TARGET);
        if attach {
            let attached = call!(
                driver
                    .controller
                    .controller_publish_volume(controller_publish("v", "n1"))
            );
            show.publish_context = attached.unwrap().publish_context;
        }
        if stage {
            call!(driver.node.node_stage_volume(encrypted_stage("v"))).unwrap();
        } else {
            let keyless = call!(driver.node.node_publish_volume(show.clone()));
            assert_eq!(code(keyless), tonic::Code::InvalidArgument);
            show.secrets = secrets();
        }
        call!(driver.node.node_publish_volume(show)).unwrap();
        assert!(matches!(holds(&rig, "v").0, Probe::Encrypted { .. }));
        call!(driver.node.node_unpublish_volume(unpublish("v", TARGET))).unwrap();
        if stage {
            call!(driver.node.node_unstage_volume(unstage("v"))).unwrap();
        }
        if attach {
            let back = controller_unpublish("v", "n1");
            call!(driver.controller.controller_unpublish_volume(back)).unwrap();
        }
        call!(driver.controller.delete_volume(delete("v"))).unwrap();
        remove_staging_directory(&rig, "v");
        let left: Vec<_> = rig.leftovers();
        assert!(
            left.iter().all(|one| one == "path /var/lib/wavetank"),
            "{attach} {stage}: {left:?}"
        );
    }
}

#[tokio::test]
async fn an_inline_volume_may_be_encrypted_too() {
    let mut rig = Rig::new(encrypted());
    let driver = rig.start().await;
    let keyless = csi::NodePublishVolumeRequest {
        secrets: Default::default(),
        ..ephemeral("csi-1", TARGET)
    };
    assert_eq!(
        code(call!(driver.node.node_publish_volume(keyless))),
        tonic::Code::InvalidArgument
    );
    call!(driver.node.node_publish_volume(ephemeral("csi-1", TARGET))).unwrap();
    let kind = |rig: &Rig| rig.world.lock().unwrap().volumes[&"csi-1".into()].holds.clone();
    assert!(matches!(kind(&rig), Probe::Encrypted { .. }));
    let gone = csi::NodeUnpublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: TARGET.to_owned(),
    };
    call!(driver.node.node_unpublish_volume(gone.clone())).unwrap();
    let plain = csi::NodePublishVolumeRequest {
        volume_context: text(&[("csi.storage.k8s.io/ephemeral", "true"), ("type", "plain")]),
        ..ephemeral("csi-1", TARGET)
    };
    call!(driver.node.node_publish_volume(plain)).unwrap();
    assert!(matches!(kind(&rig), Probe::FileSystem { .. }));
    call!(driver.node.node_unpublish_volume(gone)).unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
