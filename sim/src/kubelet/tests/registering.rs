//! Plugin sockets: who is registered, in which order Node and CSINode are told, and what is withdrawn.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use serde_json::json;
use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use super::{Bench, Fault, SOCKET, csi_driver};
use crate::api::{Kind, ObjKey, fields, names};
use crate::control::Signal;
use crate::kubelet::testing::{DRIVER, NODE};

fn fresh() -> Bench {
    let mut bench = Bench::bare();
    bench.create(Kind::CSIDriver, csi_driver(json!({})));
    bench.create(Kind::Node, json!({"metadata": {"name": NODE, "labels": {"zone": "a"}}}));
    bench.start();
    // The first status round is over.
    bench.run_ms(12_000);
    bench.forget();
    bench
}

fn created(socket: &str) -> Signal {
    Signal::SocketCreated(socket.into())
}

fn removed() -> Signal {
    Signal::SocketRemoved(SOCKET.into())
}

fn drivers(bench: &Bench) -> Vec<String> {
    let node = bench.get::<CSINode>(&ObjKey::cluster(NODE));
    let drivers = node.map(|n| n.spec.drivers.clone()).unwrap_or_default();
    drivers.into_iter().map(|d| d.name).collect()
}

fn node_id(bench: &Bench) -> Option<String> {
    let node = bench.get::<Node>(&ObjKey::cluster(NODE)).expect("the Node is there");
    fields::annotation(&node.metadata, names::NODE_ID).map(str::to_owned)
}

#[test]
fn a_socket_is_registered_at_the_next_second_node_first() {
    let mut bench = fresh();
    let seen = bench.now.as_millis();
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    assert_eq!(bench.lines(), ["NodeGetInfo", "patch node", "update csinode", "notify"]);
    assert!(bench.moments("NodeGetInfo")[0] - seen <= 1_010);
    assert_eq!(drivers(&bench), [DRIVER]);
    assert_eq!(
        node_id(&bench).as_deref(),
        Some("{\"hostpath.csi.k8s.io\":\"node-a-id\"}")
    );
}

#[test]
fn a_socket_that_goes_takes_the_driver_along_csinode_first() {
    let mut bench = fresh();
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    bench.forget();
    bench.signal(&removed());
    bench.run_ms(1_500);
    assert_eq!(bench.lines(), ["update csinode", "patch node"]);
    assert!(drivers(&bench).is_empty());
    assert_eq!(node_id(&bench), None);
}

#[test]
fn a_socket_made_anew_is_unregistered_at_one_tick_and_registered_at_the_next() {
    let mut bench = fresh();
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    bench.forget();
    bench.signal(&removed());
    bench.signal(&created(SOCKET));
    bench.run_ms(2_500);
    let expected = [
        "update csinode",
        "patch node",
        "NodeGetInfo",
        "patch node",
        "update csinode",
        "notify",
    ];
    assert_eq!(bench.lines(), expected);
    let pause = bench.moments("NodeGetInfo")[0] - bench.moments("update csinode")[0];
    assert!((900..=1_010).contains(&pause), "{pause} ms without the driver");
}

#[test]
fn a_driver_that_refuses_its_info_is_withdrawn_and_tried_again() {
    let mut bench = fresh();
    bench.fault("NodeGetInfo", Fault::Refuse(Code::Internal), 2);
    bench.signal(&created(SOCKET));
    bench.run_ms(10_000);
    assert_eq!(bench.count("NodeGetInfo!Internal"), 2);
    assert_eq!(bench.count("notify error"), 2);
    assert!(bench.was_told("plugin registration failed with err: rpc error: code = Internal"));
    assert_eq!((bench.count("notify"), drivers(&bench)), (1, vec![DRIVER.to_owned()]));
}

#[test]
fn a_node_id_must_not_be_empty() {
    let mut bench = fresh();
    bench.info = csi::NodeGetInfoResponse::default();
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    assert!(bench.was_told("returned an empty node ID") && drivers(&bench).is_empty());
}

#[test]
fn a_driver_of_the_same_name_behind_a_second_socket_is_refused() {
    let mut bench = fresh();
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    bench.forget();
    bench.signal(&created("/var/lib/kubelet/plugins_registry/other-reg.sock"));
    bench.run_ms(1_500);
    assert_eq!(bench.lines(), ["notify error"]);
    assert!(bench.was_told("already registered with a higher supported version"));
    assert_eq!(drivers(&bench), [DRIVER], "the first one stays");
}

#[test]
fn a_version_from_the_future_is_refused() {
    let mut bench = fresh();
    bench.plugin.versions = vec!["2.0.0".into()];
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    assert!(bench.was_told("are supported: [\"2.0.0\"]") && drivers(&bench).is_empty());
}

fn with_topology(zone: &str) -> csi::NodeGetInfoResponse {
    let segments = [
        ("zone".to_owned(), zone.to_owned()),
        ("rack".to_owned(), "r".to_owned()),
    ]
    .into();
    csi::NodeGetInfoResponse {
        node_id: "n".into(),
        max_volumes_per_node: 3,
        accessible_topology: Some(csi::Topology { segments }),
    }
}

#[test]
fn topology_becomes_labels_and_sorted_keys_and_a_limit() {
    let mut bench = fresh();
    bench.info = with_topology("a");
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    let node = bench.get::<Node>(&ObjKey::cluster(NODE)).expect("the Node is there");
    assert_eq!(fields::label(&node.metadata, "rack"), Some("r"));
    let csi_node = bench.get::<CSINode>(&ObjKey::cluster(NODE)).expect("it is made");
    let driver = &csi_node.spec.drivers[0];
    assert_eq!(
        driver.topology_keys.as_deref(),
        Some(&["rack".to_owned(), "zone".to_owned()][..])
    );
    assert_eq!(driver.allocatable.as_ref().and_then(|a| a.count), Some(3));
}

#[test]
fn a_label_with_another_value_refuses_the_driver_and_stays() {
    let mut bench = fresh();
    bench.info = with_topology("b");
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    assert!(bench.was_told("detected topology value collision") && drivers(&bench).is_empty());
    let node = bench.get::<Node>(&ObjKey::cluster(NODE)).expect("the Node is there");
    assert_eq!(fields::label(&node.metadata, "zone"), Some("a"));
}

#[test]
fn labels_outlive_the_driver() {
    let mut bench = fresh();
    bench.info = with_topology("a");
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    bench.signal(&removed());
    bench.run_ms(1_500);
    let node = bench.get::<Node>(&ObjKey::cluster(NODE)).expect("the Node is there");
    assert_eq!(fields::label(&node.metadata, "rack"), Some("r"));
}

#[test]
fn a_new_kubelet_writes_nothing_when_nothing_has_changed() {
    let mut bench = fresh();
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    bench.forget();
    bench.restart();
    bench.run_ms(3_000);
    assert_eq!(bench.lines(), ["+Starting", "NodeGetInfo", "notify", "create node 409"]);
}

#[test]
fn a_csinode_of_another_node_is_made_anew() {
    let mut bench = fresh();
    bench.signal(&created(SOCKET));
    bench.run_ms(1_500);
    bench.kill();
    let stranger = json!([{"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "another"}]);
    let target = crate::api::ObjectRef::new(Kind::CSINode, ObjKey::cluster(NODE));
    bench.patch(&target, json!({"metadata": {"ownerReferences": stranger}}));
    bench.forget();
    bench.restart();
    bench.run_ms(5_000);
    assert_eq!(bench.count("delete csinode"), 1);
    let node = bench.get::<Node>(&ObjKey::cluster(NODE)).expect("the Node is there");
    let csi_node = bench.get::<CSINode>(&ObjKey::cluster(NODE)).expect("it is made anew");
    let owner = csi_node.metadata.owner_references.as_ref().map(|o| o[0].uid.clone());
    assert_eq!(owner.as_deref(), node.metadata.uid.as_deref());
}
