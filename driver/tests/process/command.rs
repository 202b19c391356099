//! The command: what it says of itself, how it ends, what it never tells. For any user: the volumes are in memory.

use super::rig::{Life, Place, SECRET, mount, run, secrets, size};
use tonic::Status;
use wavetank_proto::csi::v1 as csi;

const MI: i64 = 1 << 20;

#[test]
fn wrong_use_ends_with_64_and_a_sentence() {
    let wrong: [&[&str]; 5] = [
        &[],
        &["--endpoint", "unix:///tmp/x.sock"],
        &["--endpoint", "tcp://127.0.0.1:1", "--node-id", "n"],
        &[
            "--endpoint",
            "unix:///tmp/x.sock",
            "--node-id",
            "n",
            "--backend",
            "cloud",
        ],
        &[
            "--endpoint",
            "unix:///tmp/x.sock",
            "--node-id",
            "n",
            "--backend",
            "memory",
            "--driver-name",
            "-",
        ],
    ];
    for arguments in wrong {
        let ended = run(arguments);
        assert_eq!(ended.status.code(), Some(64), "{arguments:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
    for argument in ["--help", "--version"] {
        let ended = run(&[argument]);
        assert_eq!(ended.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&ended.stdout).contains("wavetank-driver"));
    }
}

#[tokio::test]
async fn a_stop_is_graceful_and_frees_the_socket() {
    let mut place = Place::new("memory", &[]);
    for _ in 0..2 {
        let mut life = place.start().await;
        let probe = life.calls.identity.probe(csi::ProbeRequest {}).await;
        assert_eq!(probe.unwrap().into_inner().ready, Some(true));
        assert_eq!(life.end().await, Some(0));
        assert!(!place.path("csi.sock").exists());
    }
    let life = place.start().await;
    life.kill();
    assert!(place.path("csi.sock").exists());
    let life = place.start().await;
    assert_eq!(life.end().await, Some(0), "a dead process's socket is taken over");
}

/// Every call that has a place for secrets, with one in it, for a volume that goes to a pod.
async fn plant(place: &Place, life: &mut Life) -> Result<(), Status> {
    let controller = &mut life.calls.controller;
    let capability = || Some(mount(""));
    let create = csi::CreateVolumeRequest {
        name: "v".to_owned(),
        capacity_range: size(64 * MI),
        volume_capabilities: vec![mount("")],
        secrets: secrets(),
        ..Default::default()
    };
    let volume = controller.create_volume(create).await?.into_inner().volume;
    let volume_id = volume.expect("an answer has a volume").volume_id;
    let attach = csi::ControllerPublishVolumeRequest {
        volume_id: volume_id.clone(),
        node_id: "n1".to_owned(),
        volume_capability: capability(),
        secrets: secrets(),
        ..Default::default()
    };
    let context = controller
        .controller_publish_volume(attach)
        .await?
        .into_inner()
        .publish_context;
    let cut = csi::CreateSnapshotRequest {
        source_volume_id: volume_id.clone(),
        name: "s".to_owned(),
        secrets: secrets(),
        ..Default::default()
    };
    controller.create_snapshot(cut).await?;
    let stage = csi::NodeStageVolumeRequest {
        volume_id: volume_id.clone(),
        staging_target_path: place.text("stage"),
        volume_capability: capability(),
        publish_context: context.clone(),
        secrets: secrets(),
        ..Default::default()
    };
    life.calls.node.node_stage_volume(stage).await?;
    let publish = csi::NodePublishVolumeRequest {
        volume_id,
        staging_target_path: place.text("stage"),
        target_path: place.text("target"),
        volume_capability: capability(),
        publish_context: context,
        secrets: secrets(),
        ..Default::default()
    };
    life.calls.node.node_publish_volume(publish).await.map(drop)
}

#[tokio::test]
async fn a_secret_is_nowhere() {
    let mut place = Place::new("memory", &[]);
    let mut life = place.start().await;
    std::fs::create_dir(place.path("stage")).unwrap();
    plant(&place, &mut life).await.unwrap();
    let refused = csi::CreateVolumeRequest {
        name: "v\0".to_owned(),
        secrets: [("bad key".to_owned(), SECRET.to_owned())].into(),
        ..Default::default()
    };
    let refusal = life.calls.controller.create_volume(refused).await.unwrap_err();
    assert!(!format!("{refusal:?}").contains(SECRET));
    assert_eq!(life.end().await, Some(0));
    let written = place.everything();
    let said = |name: &str| String::from_utf8_lossy(&written[&place.path(name)]).into_owned();
    assert!(
        said("log-1").contains("\"method\":\"NodeStageVolume\""),
        "the log tells of calls"
    );
    let audit = said("audit");
    assert_eq!(audit.lines().count(), 6, "{audit}");
    assert!(audit.lines().all(|line| line.starts_with("{\"at\":")), "{audit}");
    let created = "\"method\":\"CreateVolume\",\"about\":\"v\",\"code\":\"OK\"";
    assert!(
        audit.lines().next().is_some_and(|line| line.contains(created)),
        "{audit}"
    );
    for (path, bytes) in &written {
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "the secret is in {}", path.display());
    }
}

#[tokio::test]
async fn calls_are_counted_for_prometheus() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = "127.0.0.1:39808";
    let mut place = Place::new("memory", &["--metrics-address", address]);
    let mut life = place.start().await;
    life.calls.identity.probe(csi::ProbeRequest {}).await.unwrap();
    let unknown = csi::ControllerGetVolumeRequest {
        volume_id: "none".to_owned(),
    };
    life.calls.controller.controller_get_volume(unknown).await.unwrap_err();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    for line in [
        "process_start_time_seconds 1",
        "csi_plugin_operations_seconds_count{driver_name=\"csi.wavetank.dev\",method_name=\"/csi.v1.Identity/Probe\",grpc_status_code=\"OK\"} 1",
        "csi_plugin_operations_seconds_count{driver_name=\"csi.wavetank.dev\",method_name=\"/csi.v1.Controller/ControllerGetVolume\",grpc_status_code=\"NotFound\"} 1",
    ] {
        assert!(page.contains(line), "{page}");
    }
    assert_eq!(life.end().await, Some(0));
}

#[test]
fn the_manifest_gives_options_that_there_are() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/driver.yaml");
    let manifest = std::fs::read_to_string(manifest).expect("the manifest");
    let container = manifest.split("- name: driver").nth(1).expect("the driver's container");
    let arguments = container.lines().map(str::trim).take_while(|line| *line != "env:");
    let options: Vec<&str> = arguments
        .filter_map(|line| line.strip_prefix("- ")?.split('=').next())
        .collect();
    assert!(options.len() >= 3, "{options:?}");
    let help = run(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    for option in options {
        assert!(help.contains(&format!("{option} <")), "{option}");
    }
    for variable in ["CSI_ENDPOINT", "NODE_ID", "STATE_DIR", "LOG_LEVEL", "DRIVER_NAME"] {
        assert!(help.contains(&format!("[env: {variable}=")), "{variable}");
    }
}
