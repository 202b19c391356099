//! Raw block volumes: links, records by the name of the volume, and what is skipped.

use serde_json::json;
use tonic::Code;

use super::{Bench, Fault};
use crate::link::CsiRequest;

fn mapped() -> (Bench, String) {
    let mut bench = Bench::new();
    bench.volume("disk", "pvc-b", "h-b", json!({"volumeMode": "Block"}));
    bench.attach("pvc-b", "h-b");
    bench.forget();
    let containers =
        json!([{"name": "main", "image": "busybox", "volumeDevices": [{"name": "disk", "devicePath": "/dev/disk"}]}]);
    let uid = bench.pod_like("web", &["disk"], json!({"containers": containers}));
    bench.run_ms(12_000);
    (bench, uid)
}

const DEVICES: &str = "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices";

#[test]
fn a_device_is_mapped_by_two_links_and_told_twice() {
    let (bench, uid) = mapped();
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
    let links: Vec<&str> = bench.node.links.keys().map(String::as_str).collect();
    let global = format!("{DEVICES}/pvc-b/dev/{uid}");
    let own = format!("/var/lib/kubelet/pods/{uid}/volumeDevices/kubernetes.io~csi/pvc-b");
    assert_eq!(links, [global.as_str(), own.as_str()]);
    assert_eq!(bench.count("+SuccessfulMountVolume"), 2);
    assert!(
        bench
            .node
            .files
            .contains_key(&format!("{DEVICES}/pvc-b/data/vol_data.json"))
    );
}

#[test]
fn the_record_is_written_before_anything_is_asked() {
    let (bench, _) = mapped();
    let ops: Vec<&String> = bench.ops.iter().filter(|op| !op.contains("Stat")).collect();
    assert!(ops[0].contains("MakeDirs") && ops[1].contains("WriteFile"), "{ops:?}");
}

#[test]
fn unmapping_removes_links_and_stage_but_not_what_the_driver_published() {
    let (mut bench, uid) = mapped();
    bench.forget();
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert!(
        bench.node.links.is_empty() && bench.node.files.is_empty(),
        "{:?}",
        bench.node.files
    );
    assert!(!bench.node.has(&format!("{DEVICES}/staging/pvc-b")));
    assert!(!bench.node.has(&format!("/var/lib/kubelet/pods/{uid}")));
}

#[test]
fn a_failed_unmap_leaves_the_mount_uncertain_and_goes_on() {
    let (mut bench, _) = mapped();
    bench.fault("NodeUnpublishVolume", Fault::Refuse(Code::Internal), 3);
    bench.forget();
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(bench.count("NodeUnpublishVolume!Internal"), 3);
    assert_eq!(bench.life().last(), Some(&"NodeUnstageVolume"));
}

#[test]
fn without_its_staging_directory_a_device_is_not_unstaged() {
    let (mut bench, _) = mapped();
    let staging = format!("{DEVICES}/staging/pvc-b");
    bench.node.dirs.remove(&staging);
    bench.node.mounts.remove(&staging);
    bench.forget();
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"]);
    assert!(bench.in_use().is_empty());
}

/// A bench on which another pod has an entry in the map of the device, and the pod that used it is deleted.
fn linked_to_another(has_the_device: bool) -> Bench {
    let (mut bench, _) = mapped();
    let entry = format!("{DEVICES}/pvc-b/dev/other");
    bench.node.links.insert(entry, "somewhere".into());
    if has_the_device {
        let published = format!("{DEVICES}/publish/pvc-b/other");
        bench.node.mounts.insert(published, "a device".into());
    }
    bench.forget();
    bench.delete_pod("web", None);
    bench.run_ms(15_000);
    bench
}

#[test]
fn a_link_of_another_pod_keeps_the_device() {
    let bench = linked_to_another(true);
    assert_eq!(bench.life(), ["NodeUnpublishVolume"]);
    assert_eq!(bench.in_use().len(), 1);
}

#[test]
fn a_link_that_a_reboot_left_keeps_no_device() {
    let bench = linked_to_another(false);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_new_kubelet_finds_a_device_by_its_link() {
    let (mut bench, _) = mapped();
    bench.kill();
    bench.delete_pod("web", Some(0));
    bench.forget();
    bench.restart();
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
}

#[test]
fn devices_get_no_mount_options_but_the_pod_is_named() {
    let (bench, uid) = mapped();
    let publish = bench.requests.iter().find_map(|r| match r {
        CsiRequest::NodePublishVolume(r) => Some(r),
        _ => None,
    });
    let publish = publish.expect("it was published");
    assert_eq!(publish.volume_context["csi.storage.k8s.io/pod.uid"], uid);
    assert_eq!(publish.staging_target_path, format!("{DEVICES}/staging/pvc-b"));
    assert_eq!(publish.publish_context["slot"], "7");
}
