//! The way up: what a mount waits for, what it asks, what it says, and who shares it.

use serde_json::json;

use super::{Bench, claim_ref, csi_driver, volume_ref};
use crate::api::{Kind, ObjKey, ObjectRef};
use crate::kubelet::csi_client::NodeRpc;
use crate::kubelet::testing::DRIVER;
use crate::link::CsiRequest;

fn stages(bench: &Bench) -> Vec<&wavetank_proto::csi::v1::NodeStageVolumeRequest> {
    let found = bench.requests.iter().filter_map(|r| match r {
        CsiRequest::NodeStageVolume(r) => Some(r),
        _ => None,
    });
    found.collect()
}

fn publishes(bench: &Bench) -> Vec<&wavetank_proto::csi::v1::NodePublishVolumeRequest> {
    let found = bench.requests.iter().filter_map(|r| match r {
        CsiRequest::NodePublishVolume(r) => Some(r),
        _ => None,
    });
    found.collect()
}

#[test]
fn a_mount_waits_for_the_status_round_although_the_volume_is_attached() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    bench.forget();
    bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    let (reported, staged) = (
        bench.moments("patch node/status")[0],
        bench.moments("NodeStageVolume")[0],
    );
    assert!(reported < staged && staged - reported < 250, "{reported} {staged}");
    assert_eq!(bench.in_use(), ["kubernetes.io/csi/hostpath.csi.k8s.io^h-1"]);
}

#[test]
fn a_mount_waits_for_the_attachment_although_the_volume_is_reported() {
    let mut bench = Bench::new();
    bench.pod("web", &["data"]);
    bench.run_ms(30_000);
    assert!(bench.life().is_empty(), "{:?}", bench.life());
    let attached = bench.now.as_millis();
    bench.attach("pvc-1", "h-1");
    bench.run_ms(1_000);
    let staged = bench.moments("NodeStageVolume")[0] - attached;
    assert!(staged < 250, "{staged} ms");
}

#[test]
fn a_mount_asks_three_times_before_each_of_its_calls() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    bench.forget();
    bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    let calls: Vec<&str> = bench.lines().into_iter().filter(|l| l.starts_with("Node")).collect();
    let ask = "NodeGetCapabilities";
    let expected = [ask, ask, ask, "NodeStageVolume", ask, ask, ask, "NodePublishVolume"];
    assert_eq!(calls[..8], expected);
}

#[test]
fn containers_start_after_the_volume_and_statistics_after_the_containers() {
    let mut bench = Bench::new();
    let uid = bench.pod("web", &["data"]);
    bench.attach("pvc-1", "h-1");
    bench.run_ms(12_000);
    let published = bench.moments("NodePublishVolume")[0];
    let started = bench.moments("+Started")[0];
    assert!(
        started > published && started - published < 800,
        "{published} {started}"
    );
    assert!(bench.node.running.contains(&uid));
}

#[test]
fn two_pods_share_the_stage_and_are_published_one_after_the_other() {
    let mut bench = Bench::new();
    bench.pod("one", &["data"]);
    bench.pod("two", &["data"]);
    bench.attach("pvc-1", "h-1");
    bench.run_ms(12_000);
    assert_eq!(
        bench.life(),
        ["NodeStageVolume", "NodePublishVolume", "NodePublishVolume"]
    );
    assert!(
        bench.pauses("NodePublishVolume")[0] >= 10,
        "one mount of a volume at a time"
    );
    let targets: Vec<&str> = publishes(&bench).iter().map(|r| r.target_path.as_str()).collect();
    assert_ne!(targets[0], targets[1]);
}

#[test]
fn a_pod_with_two_claims_starts_when_both_are_there() {
    let mut bench = Bench::new();
    bench.volume("more", "pvc-2", "h-2", json!({}));
    let uid = bench.pod("web", &["data", "more"]);
    bench.attach("pvc-1", "h-1");
    bench.run_ms(15_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
    assert!(!bench.node.running.contains(&uid), "one is missing");
    let both = json!([
        {"name": format!("kubernetes.io/csi/{DRIVER}^h-1"), "devicePath": ""},
        {"name": format!("kubernetes.io/csi/{DRIVER}^h-2"), "devicePath": ""},
    ]);
    bench.attach("pvc-2", "h-2");
    bench.patch_status(&super::node_ref(), json!({"status": {"volumesAttached": both}}));
    bench.run_ms(3_000);
    assert_eq!(bench.life().len(), 4);
    assert!(bench.node.running.contains(&uid));
}

#[test]
fn volumes_that_no_container_mounts_are_left_alone() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    let containers = json!([{"name": "main", "image": "busybox"}]);
    let uid = bench.pod_like("web", &["data"], json!({"containers": containers}));
    bench.run_ms(12_000);
    assert!(bench.life().is_empty() && bench.node.running.contains(&uid));
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_driver_that_does_not_stage_is_only_published_to() {
    let mut bench = Bench::new();
    bench.rpcs = Vec::new();
    bench.pod("web", &["data"]);
    bench.attach("pvc-1", "h-1");
    bench.run_ms(12_000);
    assert_eq!(bench.life(), ["NodePublishVolume"]);
    assert_eq!(publishes(&bench)[0].staging_target_path, "");
    let records = bench
        .node
        .files
        .keys()
        .filter(|p| p.contains("/plugins/kubernetes.io/csi/"));
    assert_eq!(records.count(), 0, "no metadata beside a stage that never was");
}

#[test]
fn a_driver_that_does_not_attach_waits_for_nobody() {
    let mut bench = Bench::bare();
    bench.create(Kind::CSIDriver, csi_driver(json!({"attachRequired": false})));
    bench.create(Kind::Node, json!({"metadata": {"name": "node-a"}}));
    bench.volume("data", "pvc-1", "h-1", json!({}));
    bench.start();
    bench.signal(&crate::control::Signal::SocketCreated(super::SOCKET.into()));
    bench.run_ms(4_000);
    bench.forget();
    bench.pod("web", &["data"]);
    bench.run_ms(1_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
    assert!(stages(&bench)[0].publish_context.is_empty());
    bench.run_ms(15_000);
    assert!(bench.in_use().is_empty(), "nobody could detach it");
}

#[test]
fn requests_carry_the_attachments_context_the_pod_and_the_reference() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}]);
    let uid = bench.pod_like("web", &["data"], json!({"volumes": volumes}));
    bench.run_ms(12_000);
    let (stage, publish) = (stages(&bench)[0], publishes(&bench)[0]);
    assert_eq!(stage.publish_context["slot"], "7");
    assert!(stage.volume_context.is_empty(), "staging is not told of pods");
    assert_eq!(publish.volume_context["csi.storage.k8s.io/pod.uid"], uid);
    assert_eq!(publish.volume_context["csi.storage.k8s.io/ephemeral"], "false");
    assert!(publish.readonly);
}

#[test]
fn the_group_goes_to_the_driver_that_wants_it() {
    let mut bench = Bench::new();
    bench.rpcs.push(NodeRpc::VolumeMountGroup);
    bench.attach("pvc-1", "h-1");
    bench.pod_like("web", &["data"], json!({"securityContext": {"fsGroup": 2000}}));
    bench.run_ms(12_000);
    let group = |c: &Option<wavetank_proto::csi::v1::VolumeCapability>| {
        use wavetank_proto::csi::v1::volume_capability::AccessType;
        match c.as_ref().and_then(|c| c.access_type.clone()) {
            Some(AccessType::Mount(mount)) => mount.volume_mount_group,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(group(&stages(&bench)[0].volume_capability), "2000");
    assert_eq!(group(&publishes(&bench)[0].volume_capability), "2000");
}

#[test]
fn a_missing_secret_is_no_word_about_the_volume() {
    let mut bench = Bench::new();
    let csi =
        json!({"driver": DRIVER, "volumeHandle": "h-9", "nodeStageSecretRef": {"name": "key", "namespace": "default"}});
    bench.volume("safe", "pvc-9", "h-9", json!({"csi": csi}));
    bench.attach("pvc-9", "h-9");
    bench.pod("web", &["safe"]);
    bench.run_ms(12_000);
    assert!(bench.life().is_empty() && bench.count("+FailedMount") > 0);
    bench.create(
        Kind::Secret,
        json!({"metadata": {"name": "key", "namespace": "default"}, "data": {"k": "dg=="}}),
    );
    bench.run_ms(10_000);
    assert_eq!(stages(&bench)[0].secrets["k"], "v");
    assert!(publishes(&bench)[0].secrets.is_empty());
}

#[test]
fn an_inline_volume_is_published_without_anybody_else() {
    let mut bench = Bench::new();
    let volumes = json!([{"name": "scratch", "csi": {"driver": DRIVER, "volumeAttributes": {"size": "1Mi"}}}]);
    bench.pod_like("job", &["scratch"], json!({"volumes": volumes}));
    bench.run_ms(3_000);
    assert_eq!(bench.life(), ["NodePublishVolume"]);
    let request = publishes(&bench)[0];
    assert!(request.volume_id.starts_with("csi-") && request.publish_context.is_empty());
    assert_eq!(request.volume_context["csi.storage.k8s.io/ephemeral"], "true");
    assert_eq!(bench.count("NodeGetCapabilities"), 2);
}

#[test]
fn an_inline_volume_needs_a_driver_that_says_so() {
    let mut bench = Bench::bare();
    bench.create(
        Kind::CSIDriver,
        csi_driver(json!({"volumeLifecycleModes": ["Persistent"]})),
    );
    bench.create(Kind::Node, json!({"metadata": {"name": "node-a"}}));
    bench.start();
    bench.signal(&crate::control::Signal::SocketCreated(super::SOCKET.into()));
    let volumes = json!([{"name": "scratch", "csi": {"driver": DRIVER}}]);
    bench.pod_like("job", &["scratch"], json!({"volumes": volumes}));
    bench.run_ms(5_000);
    assert!(bench.life().is_empty());
    assert!(bench.was_told("volume mode \"Ephemeral\" not supported by driver"));
}

#[test]
fn a_claim_that_is_not_bound_fails_the_sync_with_a_sentence() {
    let mut bench = Bench::new();
    bench.patch_status(&claim_ref("data"), json!({"status": {"phase": "Pending"}}));
    bench.pod("web", &["data"]);
    bench.run_ms(2_000);
    assert!(bench.was_told("Unable to attach or mount volumes: unmounted volumes=[data]"));
    assert!(bench.was_told("PVC is not bound"));
    assert_eq!(bench.count("+FailedMount"), 1, "the sync comes again after 10 to 15 s");
    bench.run_ms(14_500);
    assert_eq!(bench.count("+FailedMount"), 2);
    assert!(bench.in_use().is_empty());
}

#[test]
fn a_claim_that_is_bound_later_is_seen_within_the_next_passes_of_the_populator() {
    let mut bench = Bench::new();
    bench.patch_status(&claim_ref("data"), json!({"status": {"phase": "Pending"}}));
    bench.pod("web", &["data"]);
    bench.attach("pvc-1", "h-1");
    bench.run_ms(3_000);
    bench.patch_status(&claim_ref("data"), json!({"status": {"phase": "Bound"}}));
    bench.run_ms(10_500);
    assert_eq!(
        bench.life(),
        ["NodeStageVolume", "NodePublishVolume"],
        "the volume manager does not wait for the pod's back-off"
    );
}

#[test]
fn a_claim_of_the_wrong_mode_is_refused() {
    let mut bench = Bench::new();
    bench.volume("disk", "pvc-2", "h-2", json!({"volumeMode": "Block"}));
    bench.pod("web", &["disk"]);
    bench.run_ms(2_000);
    assert!(bench.was_told("has volumeMode Block, but is specified in volumeMounts"));
}

#[test]
fn a_volume_of_somebody_else_is_refused() {
    let mut bench = Bench::new();
    bench.patch(&volume_ref("pvc-1"), json!({"spec": {"claimRef": {"uid": "another"}}}));
    bench.pod("web", &["data"]);
    bench.run_ms(2_000);
    assert!(bench.was_told("pv.Spec.ClaimRef.UID"), "{:?}", bench.lines());
}

#[test]
fn a_claim_that_is_being_deleted_is_used_while_it_is_protected() {
    let mut bench = Bench::new();
    bench.patch(
        &claim_ref("data"),
        json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}}),
    );
    bench.write(&crate::api::Write::Delete(crate::api::Delete::new(claim_ref("data"))));
    bench.attach("pvc-1", "h-1");
    bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
}

#[test]
fn a_volume_of_one_pod_is_not_mounted_for_a_second_one() {
    let mut bench = Bench::new();
    bench.volume("alone", "pvc-3", "h-3", json!({"accessModes": ["ReadWriteOncePod"]}));
    bench.attach("pvc-3", "h-3");
    bench.pod("one", &["alone"]);
    bench.run_ms(12_000);
    bench.forget();
    bench.pod("two", &["alone"]);
    bench.run_ms(5_000);
    assert!(bench.life().is_empty());
    assert!(bench.was_told("ReadWriteOncePod access mode and is already in use by another pod"));
    bench.delete_pod("one", None);
    bench.run_ms(10_000);
    assert_eq!(
        bench.life(),
        ["NodeUnpublishVolume", "NodePublishVolume"],
        "and no unstaging in between"
    );
}

#[test]
fn a_volume_of_another_zone_is_refused_before_anything_is_asked() {
    let mut bench = Bench::new();
    let terms = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]);
    bench.volume(
        "far",
        "pvc-4",
        "h-4",
        json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}),
    );
    bench.attach("pvc-4", "h-4");
    bench.pod("web", &["far"]);
    bench.run_ms(12_000);
    assert!(bench.life().is_empty());
    assert!(bench.was_told("its node affinity does not match"));
}

#[test]
fn an_attachment_that_goes_away_is_looked_at_once_per_attempt() {
    let mut bench = Bench::new();
    bench.attach("pvc-1", "h-1");
    let name = crate::api::names::attachment_name(DRIVER, "h-1", "node-a");
    let attachment = ObjectRef::new(Kind::VolumeAttachment, ObjKey::cluster(name));
    bench.patch_status(
        &attachment,
        json!({"status": {"attached": false, "attachError": {"message": "no slot"}}}),
    );
    bench.pod("web", &["data"]);
    bench.run_ms(12_000);
    assert!(bench.life().is_empty());
    assert!(bench.was_told("MountVolume.WaitForAttach failed for volume \"pvc-1\" : no slot"));
    let pauses = bench.pauses("+FailedMount");
    assert!(pauses[0] >= 500 && pauses[1] >= 1_000, "{pauses:?}");
}

#[test]
fn a_pod_whose_volume_never_comes_is_silent_and_tries_again_after_two_minutes() {
    let mut bench = Bench::new();
    bench.pod("web", &["data"]);
    bench.run_ms(150_000);
    assert_eq!(bench.count("+FailedMount"), 0, "a time-out says nothing");
    bench.attach("pvc-1", "h-1");
    bench.run_ms(1_000);
    assert_eq!(bench.life(), ["NodeStageVolume", "NodePublishVolume"]);
}

#[test]
fn volumes_that_want_to_be_published_again_are_at_every_resync() {
    let mut bench = Bench::bare();
    bench.create(Kind::CSIDriver, csi_driver(json!({"requiresRepublish": true})));
    bench.create(Kind::Node, json!({"metadata": {"name": "node-a"}}));
    bench.volume("data", "pvc-1", "h-1", json!({}));
    bench.start();
    bench.signal(&crate::control::Signal::SocketCreated(super::SOCKET.into()));
    bench.attach("pvc-1", "h-1");
    bench.pod("web", &["data"]);
    bench.run_ms(300_000);
    assert_eq!(bench.count("NodeStageVolume"), 1);
    let published = bench.count("NodePublishVolume");
    assert!((4..=7).contains(&published), "{published} times in five minutes");
    let targets: std::collections::BTreeSet<_> = publishes(&bench).iter().map(|r| &r.target_path).collect();
    assert_eq!(targets.len(), 1);
}
