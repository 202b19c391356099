//! Every quirk is a switch that does something: some walk through the driver's calls goes another way with it than without.
//!
//! A walk makes each call twice, in a world that is whole, in which one operation fails, in which the process dies at one operation, or in which it is
//! started anew between two calls. What is compared are the answers, the operations, and what is left in the end.

use std::fmt::Write as _;
use std::time::Duration;

use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::node_server::Node as _;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::calls::*;
use super::encrypted::encrypted;
use super::rig::{Crash, Rig, Trouble, zone};
use crate::config::{Config, StorageType};
use crate::host::HostErrorKind;
use crate::pool::PoolErrorKind;
use crate::quirk::Quirk;
use crate::seat::Driver;
use crate::units::Bytes;

const OTHER: &str = "/var/lib/kubelet/pods/pod2";
const INLINE: &str = "/var/lib/kubelet/pods/pod3";

/// What is unusual about a world.
#[derive(Clone, Copy, Debug)]
enum World {
    Whole,
    /// One operation of that name fails.
    Fails(&'static str, Trouble),
    /// The same, once everything is being taken down.
    FailsLate(&'static str, Trouble),
    /// The process dies at that operation, and is started again.
    Dies(u64),
    /// The process is started anew before that call.
    Restarts(usize),
}

fn worlds() -> Vec<World> {
    let pool = |name| World::Fails(name, Trouble::Pool(PoolErrorKind::Unavailable));
    let host = |name| World::Fails(name, Trouble::Host(HostErrorKind::Io));
    let mut worlds = vec![World::Whole];
    worlds.extend(["create", "delete", "grow", "get", "export", "unexport"].map(pool));
    worlds.push(World::Fails("create", Trouble::Pool(PoolErrorKind::NoSpace)));
    worlds.extend(["probe", "mount", "bind", "unmount", "grow_fs"].map(host));
    worlds.push(World::FailsLate("delete", Trouble::Pool(PoolErrorKind::Unavailable)));
    worlds.push(World::FailsLate("detach", Trouble::Host(HostErrorKind::Io)));
    worlds.extend((0..40).map(World::Restarts));
    worlds.extend((1..80).map(World::Dies));
    worlds
}

struct Walk {
    rig: Rig,
    driver: Driver,
    calls: usize,
    world: World,
    told: String,
}

/// Makes a call twice, in the next life when this one ends, and notes the answers.
macro_rules! twice {
    ($walk:ident, $service:ident.$method:ident($request:expr)) => {
        for _ in 0..2 {
            $walk.next().await;
            let driver = $walk.driver.clone();
            let answer = call!(driver.$service.$method($request.clone()));
            let answer = answer.map_err(|status| status.code());
            writeln!($walk.told, "{answer:?}").unwrap();
        }
    };
}

impl Walk {
    async fn begin(quirk: Option<Quirk>, world: World) -> Walk {
        let kind = StorageType {
            max_size: Bytes::gi(8),
            ..StorageType::default()
        };
        let mut rig = Rig::new(Config {
            types: [("standard".to_owned(), kind)].into(),
            max_volumes_per_node: 5,
            ..Config::default()
        });
        rig.quirk = quirk;
        let driver = rig.start().await;
        match world {
            World::Fails(name, trouble) => rig.fail(name, trouble),
            World::Dies(nth) => rig.crash_at(Some(Crash(nth))),
            World::Whole | World::Restarts(_) | World::FailsLate(..) => {}
        }
        for name in ["a", "b"] {
            make_staging_directory(&rig, name);
        }
        Walk {
            rig,
            driver,
            calls: 0,
            world,
            told: String::new(),
        }
    }

    async fn next(&mut self) {
        let due = matches!(self.world, World::Restarts(nth) if nth == self.calls);
        self.calls += 1;
        if due || self.rig.has_crashed() {
            self.rig.kill();
            self.rig.crash_at(None);
            self.driver = match self.rig.try_start().await {
                Ok(driver) => driver,
                Err(error) => {
                    writeln!(self.told, "does not start: {error}").unwrap();
                    self.rig.quirk = None;
                    self.rig.start().await
                }
            };
        }
    }

    async fn walk(mut self) -> String {
        let walk = &mut self;
        let placed = csi::CreateVolumeRequest {
            accessibility_requirements: Some(csi::TopologyRequirement {
                requisite: vec![csi::Topology { segments: zone("a") }],
                preferred: vec![],
            }),
            capacity_range: range(6 * GI, 0),
            ..create("a")
        };
        twice!(walk, controller.create_volume(placed));
        twice!(walk, controller.delete_volume(delete("never")));
        let shared = |node| csi::ControllerPublishVolumeRequest {
            volume_capability: Some(block(Mode::MultiNodeMultiWriter)),
            ..controller_publish("c", node)
        };
        let small = csi::CreateVolumeRequest {
            volume_capabilities: vec![block(Mode::MultiNodeMultiWriter)],
            ..create("c")
        };
        twice!(walk, controller.create_volume(small));
        for node in ["n1", "n2"] {
            twice!(walk, controller.controller_publish_volume(shared(node)));
        }
        twice!(
            walk,
            controller.controller_expand_volume(controller_expand("c", 2 * GI))
        );
        twice!(
            walk,
            controller.controller_unpublish_volume(controller_unpublish("c", "n1"))
        );
        walk.on_the_node("a", TARGET).await;
        let copied = csi::CreateVolumeRequest {
            capacity_range: range(8 * GI, 0),
            ..clone_of("b", "a")
        };
        twice!(walk, controller.create_volume(copied));
        walk.on_the_node("b", OTHER).await;
        twice!(walk, node.node_publish_volume(ephemeral("inline", INLINE)));
        twice!(walk, node.node_get_info(csi::NodeGetInfoRequest {}));
        twice!(walk, controller.list_volumes(csi::ListVolumesRequest::default()));
        let gone = csi::NodeUnpublishVolumeRequest {
            volume_id: "inline".to_owned(),
            target_path: INLINE.to_owned(),
        };
        twice!(walk, node.node_unpublish_volume(gone));
        self.come_down().await;
        let steps = self.rig.steps();
        format!("{}\n{steps:?}\n{:?}", self.told, self.rig.leftovers())
    }

    async fn come_down(&mut self) {
        let walk = self;
        if let World::FailsLate(name, trouble) = walk.world {
            walk.rig.fail(name, trouble);
        }
        for (name, target) in [("a", TARGET), ("b", OTHER)] {
            twice!(walk, node.node_unpublish_volume(unpublish(name, target)));
            twice!(walk, node.node_unstage_volume(unstage(name)));
            twice!(
                walk,
                controller.controller_unpublish_volume(controller_unpublish(name, "n1"))
            );
            twice!(
                walk,
                controller.controller_publish_volume(controller_publish(name, "n1"))
            );
            twice!(
                walk,
                controller.controller_unpublish_volume(controller_unpublish(name, "n1"))
            );
        }
        tokio::time::sleep(Duration::from_secs(120)).await;
        for name in ["a", "b", "c"] {
            twice!(walk, controller.delete_volume(delete(name)));
        }
    }

    async fn on_the_node(&mut self, name: &str, target: &str) {
        twice!(
            self,
            controller.controller_publish_volume(controller_publish(name, "n1"))
        );
        twice!(self, node.node_stage_volume(stage(name)));
        twice!(self, node.node_publish_volume(publish(name, target)));
        let larger = if name == "a" { 6 * GI } else { 16 * GI };
        twice!(self, node.node_expand_volume(node_expand(name, target, larger)));
    }
}

/// Calls that overlap.
async fn at_once(quirk: Option<Quirk>) -> String {
    let mut rig = Rig::new(Config::default());
    rig.quirk = quirk;
    let driver = rig.start().await;
    make_staging_directory(&rig, "a");
    let mut told = String::new();
    let gate = rig.hang("create");
    let one = driver.clone();
    let first = tokio::spawn(async move { call!(one.controller.create_volume(create("a"))) });
    tokio::task::yield_now().await;
    rig.release("create");
    let second = call!(driver.controller.create_volume(create("a")));
    gate.notify_waiters();
    writeln!(told, "{:?} {second:?}", first.await.unwrap()).unwrap();
    call!(
        driver
            .controller
            .controller_publish_volume(controller_publish("a", "n1"))
    )
    .ok();
    let gate = rig.hang("mount");
    let two = driver.clone();
    let staging = tokio::spawn(async move { call!(two.node.node_stage_volume(stage("a"))) });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    rig.release("mount");
    let unstaged = call!(driver.node.node_unstage_volume(unstage("a")));
    gate.notify_waiters();
    writeln!(told, "{:?} {unstaged:?}", staging.await.unwrap()).unwrap();
    let gate = rig.hang("grow");
    let three = driver.clone();
    let growing = tokio::spawn(async move {
        call!(
            three
                .controller
                .controller_expand_volume(controller_expand("a", 2 * GI))
        )
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let believed = call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("a", 2 * GI))
    );
    rig.release("grow");
    gate.notify_waiters();
    writeln!(told, "{:?} {believed:?}", growing.await.unwrap()).unwrap();
    format!("{told}{:?}", rig.leftovers())
}

/// Calls that carry secrets, for a volume behind an encryption layer.
async fn with_secrets(quirk: Option<Quirk>) -> String {
    let mut rig = Rig::new(encrypted());
    rig.quirk = quirk;
    let driver = rig.start().await;
    make_staging_directory(&rig, "v");
    let secrets = text(&[("password", "a secret")]);
    let asked = csi::CreateVolumeRequest {
        secrets: secrets.clone(),
        ..create("v")
    };
    let made = call!(driver.controller.create_volume(asked));
    let attach = csi::ControllerPublishVolumeRequest {
        secrets,
        ..controller_publish("v", "n1")
    };
    let attached = call!(driver.controller.controller_publish_volume(attach));
    call!(driver.node.node_stage_volume(encrypted_stage("v"))).ok();
    call!(driver.node.node_publish_volume(publish("v", TARGET))).ok();
    call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    )
    .ok();
    let grown = call!(driver.node.node_expand_volume(node_expand("v", TARGET, 2 * GI)));
    format!("{made:?} {attached:?} {grown:?} {:?}", rig.steps())
}

#[tokio::test(start_paused = true)]
async fn each_changes_what_the_driver_does() {
    let mut unseen: Vec<Quirk> = Quirk::ALL.to_vec();
    let honest = (at_once(None).await, with_secrets(None).await);
    let mut wrong = Vec::new();
    for quirk in unseen {
        if (at_once(Some(quirk)).await, with_secrets(Some(quirk)).await) == honest {
            wrong.push(quirk);
        }
    }
    unseen = wrong;
    for world in worlds() {
        if unseen.is_empty() {
            return;
        }
        let honest = Walk::begin(None, world).await.walk().await;
        let mut wrong = Vec::new();
        for quirk in unseen {
            if Walk::begin(Some(quirk), world).await.walk().await == honest {
                wrong.push(quirk);
            }
        }
        unseen = wrong;
    }
    assert!(unseen.is_empty(), "these change nothing: {unseen:?}");
}
