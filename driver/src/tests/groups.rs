//! `volume_mount_group`: to whom everything in a mounted volume belongs.

use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::node_service_capability::rpc::Type as Rpc;
use wavetank_proto::csi::v1::volume_capability::AccessType;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::rig::Rig;
use crate::config::Config;

fn owned(mode: Mode, group: &str) -> Option<csi::VolumeCapability> {
    let form = csi::volume_capability::MountVolume {
        volume_mount_group: group.to_owned(),
        ..Default::default()
    };
    Some(csi::VolumeCapability {
        access_type: Some(AccessType::Mount(form)),
        ..mount(mode)
    })
}

fn stage_for(group: &str) -> csi::NodeStageVolumeRequest {
    csi::NodeStageVolumeRequest {
        volume_capability: owned(Mode::SingleNodeMultiWriter, group),
        ..stage("v")
    }
}

fn publish_for(target: &str, group: &str) -> csi::NodePublishVolumeRequest {
    csi::NodePublishVolumeRequest {
        volume_capability: owned(Mode::SingleNodeMultiWriter, group),
        ..publish("v", target)
    }
}

fn group(rig: &Rig) -> Vec<u32> {
    rig.world.lock().unwrap().groups.values().copied().collect()
}

const POD2: &str = "/var/lib/kubelet/pods/pod2";

#[tokio::test]
async fn the_file_system_belongs_to_the_group_of_whoever_published_it_last() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    assert_eq!(group(&rig), [0_u32; 0], "nobody asked");
    tear_down(&rig, &driver, "v").await;

    make_staging_directory(&rig, "v");
    let (controller, node) = (driver.controller.as_ref().unwrap(), driver.node.as_ref().unwrap());
    use wavetank_proto::csi::v1::controller_server::Controller as _;
    controller
        .create_volume(tonic::Request::new(create("v")))
        .await
        .unwrap();
    let attach = tonic::Request::new(controller_publish("v", "n1"));
    controller.controller_publish_volume(attach).await.unwrap();
    node.node_stage_volume(tonic::Request::new(stage_for("2000")))
        .await
        .unwrap();
    assert_eq!(group(&rig), [2000]);
    call!(driver.node.node_publish_volume(publish_for(TARGET, "2000"))).unwrap();
    call!(driver.node.node_publish_volume(publish_for(TARGET, "2000"))).unwrap();
    call!(driver.node.node_publish_volume(publish_for(POD2, "3000"))).unwrap();
    assert_eq!(group(&rig), [3000]);
    call!(driver.node.node_stage_volume(stage_for("3000"))).expect("another group is no other staging");
    let other = call!(driver.node.node_publish_volume(publish_for(TARGET, "3000")));
    assert_eq!(code(other), tonic::Code::AlreadyExists);
    call!(driver.node.node_unpublish_volume(unpublish("v", POD2))).unwrap();
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_read_only_keeps_its_group() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    let reading = csi::NodePublishVolumeRequest {
        readonly: true,
        ..publish_for(POD2, "3000")
    };
    call!(driver.node.node_publish_volume(reading)).unwrap();
    assert_eq!(group(&rig), [0_u32; 0]);
}

#[tokio::test]
async fn the_capability_says_whether_groups_are_taken() {
    for offered in [true, false] {
        let mut rig = Rig::new(Config {
            volume_mount_group: offered,
            ..Config::default()
        });
        let driver = rig.start().await;
        let answer = call!(driver.node.node_get_capabilities(Default::default())).unwrap();
        let found = answer.capabilities.iter().any(|one| {
            let csi::node_service_capability::Type::Rpc(rpc) = one.r#type.as_ref().unwrap();
            rpc.r#type == i32::from(Rpc::VolumeMountGroup)
        });
        assert_eq!(found, offered);
        make_staging_directory(&rig, "v");
        if !offered {
            let refused = call!(driver.node.node_stage_volume(stage_for("2000")));
            assert_eq!(code(refused), tonic::Code::InvalidArgument);
        }
    }
}
