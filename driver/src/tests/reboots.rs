//! The machine reboots: mounts and devices are gone, the ledger is not.

use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::node_server::Node as _;

use super::calls::*;
use super::disk::Loss;
use super::rig::Rig;
use crate::config::Config;
use crate::host::Probe;

#[tokio::test]
async fn after_a_reboot_a_volume_is_staged_and_published_anew_without_formatting() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    rig.power_cut(Loss::All);
    let driver = rig.start().await;
    call!(driver.node.node_stage_volume(stage("v"))).unwrap();
    call!(driver.node.node_publish_volume(publish("v", TARGET))).unwrap();
    assert_eq!(rig.world.lock().unwrap().mounts.len(), 2);
    assert_eq!(rig.world.lock().unwrap().formatted, 1);
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn after_a_reboot_publishing_without_staging_is_refused() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    rig.power_cut(Loss::All);
    let driver = rig.start().await;
    let early = call!(driver.node.node_publish_volume(publish("v", TARGET)));
    assert_eq!(code(early), tonic::Code::FailedPrecondition);
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_inline_volume_keeps_its_bytes_over_a_reboot() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.node.node_publish_volume(ephemeral("csi-1", TARGET))).unwrap();
    rig.power_cut(Loss::All);
    let driver = rig.start().await;
    assert!(rig.world.lock().unwrap().volumes.contains_key(&"csi-1".into()));
    call!(driver.node.node_publish_volume(ephemeral("csi-1", TARGET))).unwrap();
    {
        let world = rig.world.lock().unwrap();
        assert_eq!((world.formatted, world.mounts.len()), (1, 2));
        assert!(matches!(world.volumes[&"csi-1".into()].holds, Probe::FileSystem { .. }));
    }
    rig.power_cut(Loss::All);
    let driver = rig.start().await;
    let gone = csi::NodeUnpublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: TARGET.to_owned(),
    };
    call!(driver.node.node_unpublish_volume(gone)).unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_restart_without_a_reboot_keeps_everything_in_place() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    rig.kill();
    let driver = rig.start().await;
    let before = rig.syncs();
    call!(driver.node.node_stage_volume(stage("v"))).unwrap();
    call!(driver.node.node_publish_volume(publish("v", TARGET))).unwrap();
    assert_eq!(rig.syncs(), before, "nothing had to be done again");
    assert_eq!(rig.world.lock().unwrap().mounts.len(), 2);
}

#[tokio::test]
async fn someone_elses_unmount_is_noticed() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    rig.world.lock().unwrap().mounts.clear();
    let condition = call!(driver.node.node_get_volume_stats(stats("v", TARGET)))
        .unwrap()
        .volume_condition
        .unwrap();
    assert!(condition.abnormal);
    call!(driver.node.node_stage_volume(stage("v"))).unwrap();
    call!(driver.node.node_publish_volume(publish("v", TARGET))).unwrap();
    assert_eq!(rig.world.lock().unwrap().mounts.len(), 2, "both were made true again");
}
