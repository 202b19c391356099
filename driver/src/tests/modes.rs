//! How many targets each access mode allows on one node, with and without the capability `SINGLE_NODE_MULTI_WRITER`
//! (CSI v1.12, *NodePublishVolume*, the table of second calls).

use tonic::Code;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::rig::Rig;
use crate::config::Config;

const SECOND: &str = "/var/lib/kubelet/pods/pod2";
const THIRD: &str = "/var/lib/kubelet/pods/pod3";

fn publish_as(mode: Mode, target: &str) -> csi::NodePublishVolumeRequest {
    csi::NodePublishVolumeRequest {
        volume_capability: Some(block(mode)),
        ..publish("v", target)
    }
}

/// The answers to the same target again, to the same with other arguments, to a second one, and to that with other arguments.
async fn answers(single_node_multi_writer: bool, mode: Mode) -> Option<[Code; 4]> {
    let mut rig = Rig::new(Config {
        single_node_multi_writer,
        ..Config::default()
    });
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    let request = csi::CreateVolumeRequest {
        volume_capabilities: vec![block(mode)],
        ..create("v")
    };
    if call!(driver.controller.create_volume(request)).is_err() {
        return None;
    }
    let attach = csi::ControllerPublishVolumeRequest {
        volume_capability: Some(block(mode)),
        ..controller_publish("v", "n1")
    };
    let attached = call!(driver.controller.controller_publish_volume(attach)).unwrap();
    let bring = csi::NodeStageVolumeRequest {
        volume_capability: Some(block(mode)),
        publish_context: attached.publish_context,
        ..stage("v")
    };
    call!(driver.node.node_stage_volume(bring)).unwrap();
    call!(driver.node.node_publish_volume(publish_as(mode, TARGET))).unwrap();
    let other = |target: &str| csi::NodePublishVolumeRequest {
        readonly: true,
        volume_capability: Some(block(match mode {
            Mode::SingleNodeReaderOnly => Mode::MultiNodeReaderOnly,
            Mode::MultiNodeReaderOnly => Mode::MultiNodeMultiWriter,
            mode => mode,
        })),
        ..publish("v", target)
    };
    let mut found = [Code::Ok; 4];
    for (nth, request) in [
        publish_as(mode, TARGET),
        other(TARGET),
        publish_as(mode, SECOND),
        other(THIRD),
    ]
    .into_iter()
    .enumerate()
    {
        if let Err(status) = call!(driver.node.node_publish_volume(request)) {
            found[nth] = status.code();
        }
    }
    call!(driver.node.node_unpublish_volume(unpublish("v", THIRD))).unwrap();
    call!(driver.node.node_unpublish_volume(unpublish("v", SECOND))).unwrap();
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    Some(found)
}

#[tokio::test]
async fn each_mode_allows_the_targets_that_the_specification_gives_it() {
    let one = Some([
        Code::Ok,
        Code::AlreadyExists,
        Code::FailedPrecondition,
        Code::FailedPrecondition,
    ]);
    let several = Some([Code::Ok, Code::AlreadyExists, Code::Ok, Code::Ok]);
    // Without the capability, `SINGLE_NODE_WRITER` is all that clusters have for several pods on one node.
    for (mode, with, without) in [
        (Mode::SingleNodeWriter, one, several),
        (Mode::SingleNodeReaderOnly, one, several),
        (Mode::SingleNodeSingleWriter, one, None),
        (Mode::SingleNodeMultiWriter, several, None),
        (Mode::MultiNodeReaderOnly, several, several),
        (Mode::MultiNodeSingleWriter, several, several),
        (Mode::MultiNodeMultiWriter, several, several),
    ] {
        assert_eq!(answers(true, mode).await, with, "{mode:?} with the capability");
        assert_eq!(answers(false, mode).await, without, "{mode:?} without it");
    }
}

/// A target of one mode keeps another's away, whichever came first.
#[tokio::test]
async fn a_single_writer_is_alone_whoever_came_first() {
    for (first, second) in [
        (Mode::SingleNodeMultiWriter, Mode::SingleNodeSingleWriter),
        (Mode::SingleNodeSingleWriter, Mode::SingleNodeMultiWriter),
    ] {
        let mut rig = Rig::new(Config::default());
        let driver = rig.start().await;
        bring_to_pod(&rig, &driver, "v").await;
        call!(driver.node.node_unpublish_volume(unpublish("v", TARGET))).unwrap();
        let publish_as = |mode, target: &str| csi::NodePublishVolumeRequest {
            volume_capability: Some(mount(mode)),
            ..publish("v", target)
        };
        call!(driver.node.node_publish_volume(publish_as(first, TARGET))).unwrap();
        let late = call!(driver.node.node_publish_volume(publish_as(second, SECOND)));
        assert_eq!(code(late), Code::FailedPrecondition);
        tear_down(&rig, &driver, "v").await;
        assert_eq!(rig.leftovers(), Vec::<String>::new());
    }
}
