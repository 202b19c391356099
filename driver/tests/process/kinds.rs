//! What a storage type, a group and a pod's own volume mean on both backends of the process.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use super::rig::{Callers, Place, mount, size};
use super::volume::{BYTES, MI, Volume};

/// A volume of a pod's own.
fn inline(place: &Place, id: &str, fs: &str) -> csi::NodePublishVolumeRequest {
    fs::create_dir_all(place.path("pods")).expect("the test is set up so");
    let attribute = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    csi::NodePublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: place.text(&format!("pods/{id}")),
        volume_capability: Some(mount(fs)),
        volume_context: [
            attribute("csi.storage.k8s.io/ephemeral", "true"),
            attribute("size", "64Mi"),
        ]
        .into(),
        ..Default::default()
    }
}

fn end_of(request: &csi::NodePublishVolumeRequest) -> csi::NodeUnpublishVolumeRequest {
    csi::NodeUnpublishVolumeRequest {
        volume_id: request.volume_id.clone(),
        target_path: request.target_path.clone(),
    }
}

/// D51: a repeat is the same volume at the same place, with what was written to it.
async fn inline_volume(backend: &'static str) {
    let mut place = Place::new(backend, &[]);
    let mut life = place.start().await;
    let request = inline(&place, "csi-1", "ext4");
    for _ in 0..3 {
        life.calls
            .node
            .node_publish_volume(request.clone())
            .await
            .expect("the test is set up so");
    }
    fs::write(format!("{}/data", request.target_path), BYTES).expect("the test is set up so");
    if backend == "loop" {
        life.kill();
        life = place.start().await;
        life.calls
            .node
            .node_publish_volume(request.clone())
            .await
            .expect("the test is set up so");
        assert_eq!(
            fs::read(format!("{}/data", request.target_path)).expect("the test is set up so"),
            BYTES
        );
        assert_eq!(
            fs::read_dir(place.path("state/volumes"))
                .expect("the test is set up so")
                .count(),
            2,
            "one image, one file"
        );
    } else {
        fs::remove_file(format!("{}/data", request.target_path)).expect("the test is set up so");
    }
    for _ in 0..2 {
        life.calls
            .node
            .node_unpublish_volume(end_of(&request))
            .await
            .expect("the test is set up so");
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
    let persistent = persistent(&mut life.calls).await;
    let theft = csi::NodePublishVolumeRequest {
        volume_id: persistent.clone(),
        ..inline(&place, "csi-2", "ext4")
    };
    let refused = life.calls.node.node_publish_volume(theft).await.expect_err("a refusal");
    assert_eq!(refused.code(), Code::AlreadyExists);
    let there = csi::ControllerGetVolumeRequest { volume_id: persistent };
    life.calls
        .controller
        .controller_get_volume(there)
        .await
        .expect("somebody else's volume stays");
    assert_eq!(life.end().await, Some(0));
}

async fn persistent(calls: &mut Callers) -> String {
    let create = csi::CreateVolumeRequest {
        name: "mine".to_owned(),
        capacity_range: size(64 * MI),
        volume_capabilities: vec![mount("ext4")],
        ..Default::default()
    };
    let made = calls
        .controller
        .create_volume(create)
        .await
        .expect("the test is set up so")
        .into_inner();
    made.volume.expect("the test is set up so").volume_id
}

#[tokio::test]
async fn a_pods_own_volume_lives_with_its_target_in_memory() {
    inline_volume("memory").await;
}

#[tokio::test]
async fn a_pods_own_volume_lives_with_its_target_on_loop_devices() {
    needs_root!();
    inline_volume("loop").await;
}

/// SIGKILL on the way up, then only the end is asked for: nothing stays.
#[tokio::test]
async fn a_killed_process_leaves_nothing_of_a_pods_own_volume() {
    needs_root!();
    let mut place = Place::new("loop", &[]);
    let mut span = std::time::Duration::ZERO;
    for kill in 0..=16 {
        let mut life = place.start().await;
        let request = inline(&place, "csi-1", "ext4");
        let start = tokio::time::Instant::now();
        let limit = if kill == 0 {
            std::time::Duration::from_secs(60)
        } else {
            span * kill / 16
        };
        let mut calls = life.calls.clone();
        let _ = tokio::time::timeout(limit, calls.node.node_publish_volume(request.clone())).await;
        if kill == 0 {
            span = start.elapsed();
        } else {
            life.kill();
            life = place.start().await;
        }
        let mut calls = life.calls.clone();
        if kill % 2 == 0 {
            calls
                .node
                .node_publish_volume(request.clone())
                .await
                .expect("the test is set up so");
        }
        calls
            .node
            .node_unpublish_volume(end_of(&request))
            .await
            .expect("the test is set up so");
        assert_eq!(place.leftovers(), Vec::<String>::new(), "kill {kill}");
        life.kill();
    }
}

#[tokio::test]
async fn a_volume_belongs_to_its_group_with_all_that_is_in_it() {
    needs_root!();
    let mut place = Place::new("loop", &[]);
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let mut volume = Volume {
        group: "2000",
        ..Volume::new(&place, "v", "ext4", 64 * MI)
    };
    volume.up(&mut calls, None).await.expect("the test is set up so");
    let of = |path: &str| {
        let found = fs::symlink_metadata(format!("{}{path}", volume.target)).expect("the test is set up so");
        (found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(of("").0, 2000);
    assert_eq!(of("").1 & 0o2770, 0o2770);
    let at = |path: &str| format!("{}{path}", volume.target);
    fs::create_dir(at("/deep")).expect("the test is set up so");
    assert_eq!(of("/deep").0, 2000, "directories hand the group on");
    fs::write(at("/deep/file"), BYTES).expect("the test is set up so");
    fs::set_permissions(at("/deep/file"), fs::Permissions::from_mode(0o600)).expect("the test is set up so");
    let outside = tempfile::NamedTempFile::new().expect("the test is set up so");
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o600)).expect("the test is set up so");
    std::os::unix::fs::symlink(outside.path(), at("/deep/link")).expect("the test is set up so");

    let again = Volume {
        group: "3000",
        target: place.text("pods/second"),
        id: volume.id.clone(),
        ..Volume::new(&place, "v", "ext4", 64 * MI)
    };
    again.show(&mut calls).await.expect("the test is set up so");
    for path in ["", "/deep", "/deep/file", "/deep/link", "/lost+found"] {
        assert_eq!(of(path).0, 3000, "{path}");
    }
    assert_eq!(of("/deep/file").1, 0o660);
    assert_eq!(of("/deep").1 & 0o2770, 0o2770);
    let untouched = outside.path().metadata().expect("the test is set up so");
    assert_eq!(
        (untouched.gid(), untouched.mode() & 0o777),
        (0, 0o600),
        "links lead nowhere"
    );
    again.hide(&mut calls).await.expect("the test is set up so");
    volume.down(&mut calls).await.expect("the test is set up so");
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
}

async fn nothing_elsewhere(calls: &mut Callers) {
    let elsewhere = csi::GetCapacityRequest {
        accessible_topology: Some(csi::Topology {
            segments: [("topology.wavetank.dev/node".to_owned(), "n9".to_owned())].into(),
        }),
        ..Default::default()
    };
    let nothing = calls
        .controller
        .get_capacity(elsewhere)
        .await
        .expect("the test is set up so")
        .into_inner();
    assert_eq!(nothing.available_capacity, 0, "another node has none of it");
}

/// Room is counted for each type, and what is taken at once is really taken.
async fn types_have_limits(backend: &'static str) {
    let mut place = Place::new(backend, &["--capacity", "1Gi", "--type-capacity", "thick=128Mi"]);
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let room = async |calls: &mut Callers, kind: &str| {
        let asked = csi::GetCapacityRequest {
            parameters: [("type".to_owned(), kind.to_owned())].into(),
            ..Default::default()
        };
        let answer = calls
            .controller
            .get_capacity(asked)
            .await
            .expect("the test is set up so")
            .into_inner();
        (
            answer.available_capacity / MI,
            answer.maximum_volume_size.unwrap_or_default() / MI,
        )
    };
    assert_eq!(room(&mut calls, "thin").await, (1024, 1024));
    assert_eq!(room(&mut calls, "thick").await, (128, 128));
    assert_eq!(
        room(&mut calls, "encrypted").await,
        (1008, 1008),
        "the header comes on top"
    );
    let create = |name: &str, kind: &str, bytes: i64| csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: size(bytes),
        volume_capabilities: vec![mount("ext4")],
        parameters: [("type".to_owned(), kind.to_owned())].into(),
        ..Default::default()
    };
    let made = calls
        .controller
        .create_volume(create("a", "thick", 96 * MI))
        .await
        .expect("the test is set up so");
    assert_eq!(room(&mut calls, "thick").await.0, 32);
    let full = calls
        .controller
        .create_volume(create("b", "thick", 64 * MI))
        .await
        .expect_err("a refusal");
    assert_eq!(full.code(), Code::ResourceExhausted);
    calls
        .controller
        .create_volume(create("b", "thin", 64 * MI))
        .await
        .expect("the test is set up so");
    let unknown = calls
        .controller
        .create_volume(create("c", "gold", 64 * MI))
        .await
        .expect_err("a refusal");
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let id = made.into_inner().volume.expect("the test is set up so").volume_id;
    if backend == "loop" {
        let taken = |id: &str| {
            fs::metadata(place.path(&format!("state/volumes/{id}.img")))
                .expect("the test is set up so")
                .blocks()
                * 512
        };
        assert!(taken(&id) >= 96 * MI as u64, "thick is taken at once");
    }
    nothing_elsewhere(&mut calls).await;
    assert_eq!(life.end().await, Some(0));
}

#[tokio::test]
async fn types_have_limits_in_memory() {
    types_have_limits("memory").await;
}

#[tokio::test]
async fn types_have_limits_on_disk() {
    needs_root!();
    types_have_limits("loop").await;
}

/// Who has a volume, and how it is, is told by listing.
async fn listing_tells_nodes_and_condition(backend: &'static str) {
    let mut place = Place::new(backend, &[]);
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let id = persistent(&mut calls).await;
    let listed = async |calls: &mut Callers| {
        let answer = calls
            .controller
            .list_volumes(csi::ListVolumesRequest::default())
            .await
            .expect("the test is set up so");
        answer
            .into_inner()
            .entries
            .remove(0)
            .status
            .expect("the test is set up so")
    };
    let status = listed(&mut calls).await;
    assert_eq!(
        (
            status.published_node_ids.len(),
            status.volume_condition.expect("the test is set up so").abnormal
        ),
        (0, false)
    );
    let attach = csi::ControllerPublishVolumeRequest {
        volume_id: id.clone(),
        node_id: "n1".to_owned(),
        volume_capability: Some(mount("ext4")),
        ..Default::default()
    };
    calls
        .controller
        .controller_publish_volume(attach)
        .await
        .expect("the test is set up so");
    assert_eq!(listed(&mut calls).await.published_node_ids, ["n1"]);
    if backend == "loop" {
        fs::remove_file(place.path(&format!("state/volumes/{id}.img"))).expect("the test is set up so");
        let condition = listed(&mut calls)
            .await
            .volume_condition
            .expect("the test is set up so");
        assert!(
            condition.abnormal && condition.message.contains("image"),
            "{condition:?}"
        );
    }
    assert_eq!(life.end().await, Some(0));
}

#[tokio::test]
async fn listing_tells_nodes_and_condition_in_memory() {
    listing_tells_nodes_and_condition("memory").await;
}

#[tokio::test]
async fn listing_tells_nodes_and_condition_on_disk() {
    needs_root!();
    listing_tells_nodes_and_condition("loop").await;
}
