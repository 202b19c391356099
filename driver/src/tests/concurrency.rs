//! Calls that meet: duplicates, opposites, neighbours, and callers that go away.

use std::time::Duration;

use futures::FutureExt;
use tonic::{Code, Request};
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::identity_server::Identity as _;
use wavetank_proto::csi::v1::node_server::Node as _;

use super::calls::*;
use super::rig::{Rig, Trouble};
use crate::config::Config;
use crate::pool::PoolErrorKind;

/// Lets every task run until it waits for something.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn duplicates_and_opposites_of_a_call_in_flight_are_aborted() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    rig.hang("create");
    let background = driver.controller.clone().unwrap();
    let first = tokio::spawn(async move { background.create_volume(Request::new(create("v"))).await });
    settle().await;
    assert_eq!(code(call!(driver.controller.create_volume(create("v")))), Code::Aborted);
    assert_eq!(code(call!(driver.controller.delete_volume(delete("v")))), Code::Aborted);
    let publish = call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n1"))
    );
    assert_eq!(code(publish), Code::Aborted);
    assert_eq!(
        code(call!(driver.controller.create_volume(clone_of("copy", "v")))),
        Code::Aborted
    );
    rig.release("create");
    first.await.unwrap().unwrap();
    call!(driver.controller.delete_volume(delete("v"))).unwrap();
}

#[tokio::test]
async fn a_slow_volume_holds_up_neither_others_nor_the_probe() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    for name in ["slow", "quick"] {
        call!(driver.controller.create_volume(create(name))).unwrap();
    }
    rig.hang("grow");
    let background = driver.controller.clone().unwrap();
    let slow = tokio::spawn(async move {
        background
            .controller_expand_volume(Request::new(controller_expand("slow", 2 * GI)))
            .await
    });
    settle().await;
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("quick", "n1"))
    )
    .unwrap();
    let probe = driver
        .identity
        .probe(tonic::Request::new(Default::default()))
        .now_or_never();
    assert!(probe.expect("a probe does not wait").is_ok());
    rig.release("grow");
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_source_feeds_several_copies_at_once() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("source"))).unwrap();
    rig.hang("create");
    let copies: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let controller = driver.controller.clone().unwrap();
            tokio::spawn(async move { controller.create_volume(Request::new(clone_of(name, "source"))).await })
        })
        .collect();
    settle().await;
    assert_eq!(
        code(call!(driver.controller.delete_volume(delete("source")))),
        Code::Aborted
    );
    rig.release("create");
    for copy in copies {
        copy.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn two_nodes_never_both_get_a_single_node_volume() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    rig.hang("export");
    let background = driver.controller.clone().unwrap();
    let first = tokio::spawn(async move {
        background
            .controller_publish_volume(Request::new(controller_publish("v", "n1")))
            .await
    });
    settle().await;
    let second = call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("v", "n2"))
    );
    assert_eq!(code(second), Code::FailedPrecondition, "the first is on its way");
    rig.release("export");
    first.await.unwrap().unwrap();
}

/// Drops the caller at every point at which it can wait, for every step of a volume's life: the operation goes on, and
/// a repeat finds it done.
#[tokio::test]
async fn an_operation_outlives_its_caller() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    macro_rules! abandon {
        ($service:ident.$method:ident($request:expr), $operation:literal) => {{
            rig.hang($operation);
            let call = driver.$service.as_ref().unwrap().$method(Request::new($request));
            assert!(
                tokio::time::timeout(Duration::ZERO, call).await.is_err(),
                "the caller gives up"
            );
            settle().await;
            let meanwhile = call!(driver.$service.$method($request));
            assert_eq!(code(meanwhile), Code::Aborted, "{}", stringify!($method));
            rig.release($operation);
            settle().await;
            let before = rig.syncs();
            call!(driver.$service.$method($request)).unwrap();
            assert_eq!(
                rig.syncs(),
                before,
                "{} was done without its caller",
                stringify!($method)
            );
        }};
    }
    abandon!(controller.create_volume(create("v")), "create");
    abandon!(
        controller.controller_publish_volume(controller_publish("v", "n1")),
        "export"
    );
    abandon!(node.node_stage_volume(stage("v")), "mkfs");
    abandon!(node.node_publish_volume(publish("v", TARGET)), "bind");
    abandon!(
        controller.controller_expand_volume(controller_expand("v", 2 * GI)),
        "grow"
    );
    abandon!(node.node_unpublish_volume(unpublish("v", TARGET)), "unmount");
    abandon!(node.node_unstage_volume(unstage("v")), "detach");
    abandon!(
        controller.controller_unpublish_volume(controller_unpublish("v", "n1")),
        "unexport"
    );
    abandon!(controller.delete_volume(delete("v")), "delete");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_undone_now_is_undone_in_the_background() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    rig.fail("delete", Trouble::Pool(PoolErrorKind::Unavailable));
    assert_eq!(
        code(call!(driver.controller.delete_volume(delete("v")))),
        Code::Unavailable
    );
    assert_eq!(rig.world.lock().unwrap().volumes.len(), 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(rig.world.lock().unwrap().volumes.is_empty());
    let listed = call!(driver.controller.list_volumes(Default::default())).unwrap();
    assert!(listed.entries.is_empty());
}

#[tokio::test]
async fn the_probe_tells_of_a_pool_that_is_away() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    assert_eq!(
        driver
            .identity
            .probe(tonic::Request::new(Default::default()))
            .await
            .unwrap()
            .into_inner()
            .ready,
        Some(true)
    );
    rig.fail("health", Trouble::Pool(PoolErrorKind::Unavailable));
    assert_eq!(
        code(driver.identity.probe(tonic::Request::new(Default::default())).await),
        Code::FailedPrecondition
    );
}
