//! Any sequence of operations, by a driver, kubelet, pods and fate: nothing panics, and a node that is cleaned up holds nothing.

use futures::executor::block_on;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::RngSeed;
use wavetank_driver::host::{Mount, NewFs};
use wavetank_driver::units::FsKind;
use wavetank_driver::{Access, Bytes, Host, HostPath, Pool, VolumeId};

use crate::link::MachineOp;
use crate::runtime::Time;

use super::super::turns::{Fence, Loss};
use super::{Tank, host, new, path, publish_path, tank, write};

/// Few names, so that operations meet.
const PATHS: [&str; 4] = ["/m/a", "/m/b", "/m/a/inner", "/m/file"];
const PODS: [&str; 2] = ["p", "q"];

#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    one: u8,
    other: u8,
    read_only: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let fields = (0..24_u8, any::<u8>(), any::<u8>(), any::<bool>());
    fields.prop_map(|(what, one, other, read_only)| Step {
        what,
        one,
        other,
        read_only,
    })
}

fn target(nth: u8) -> HostPath {
    let nth = usize::from(nth) % (PATHS.len() + PODS.len());
    match PATHS.get(nth) {
        Some(text) => path(text),
        None => path(&publish_path(PODS[nth - PATHS.len()])),
    }
}

fn volume(nth: u8) -> VolumeId {
    VolumeId::new(["v", "w"][usize::from(nth) % 2])
}

/// Does a step, whatever comes of it.
async fn act(tank: &mut Tank, step: Step, sequence: u64) {
    let (v, at, from) = (volume(step.one), target(step.one), target(step.other));
    let access = Access::from_readonly(step.read_only);
    let node = ["n1", "n2"][usize::from(step.read_only)].into();
    let pod = PODS[usize::from(step.other) % 2];
    let device = tank.host.attached(&volume(step.other)).await.ok().flatten();
    let device = device.unwrap_or_else(|| "/dev/nbd7".into());
    let kind = [FsKind::Ext4, FsKind::Btrfs][usize::from(step.one == 0)];
    let perform = |operation| drop(tank.machine.perform(Time::ZERO, &operation));
    match step.what {
        0 => drop(tank.pool.create(&new(v.as_str(), Bytes::mi(1))).await),
        1 => drop(tank.pool.export(&v, &node, access).await),
        2 => drop(tank.pool.unexport(&v, &node).await),
        3 | 4 => {
            let context = tank.pool.export(&v, &"n1".into(), access).await;
            drop(tank.host.attach(&v, &context.unwrap_or_default(), access).await);
        }
        5 => drop(tank.host.detach(&v).await),
        6 => {
            let fs = NewFs {
                kind,
                label: String::new(),
                uuid: v.to_string(),
                forced: false,
            };
            drop(tank.host.mkfs(&device, &fs).await);
        }
        7 | 8 => {
            let mount = Mount {
                device,
                target: at,
                kind,
                flags: Vec::new(),
                access,
            };
            drop(tank.host.mount(&mount).await);
        }
        9 | 10 => drop(tank.host.bind(&from, &at, access).await),
        11 => drop(tank.host.bind_device(&device, &path("/m/file"), access).await),
        12 | 13 => drop(tank.host.unmount(&at).await),
        14 => drop(tank.host.set_group(&at, 2000).await),
        15 => drop(tank.host.create_dir(&at).await),
        16 => drop(tank.host.remove_dir(&at).await),
        17 => perform(MachineOp::StartPod(pod.into())),
        18 => perform(MachineOp::StopPod {
            uid: pod.into(),
            grace_seconds: 0,
        }),
        19 | 20 => drop(write(&tank.machine, pod, at.as_str(), u64::from(step.one), 3, sequence)),
        21 => {
            drop(tank.pool.grow(&v, Bytes::mi(u64::from(step.other % 4))).await);
            drop(tank.host.rescan(&device).await);
            drop(tank.host.grow_fs(&at).await);
        }
        22 => {
            perform(MachineOp::RemoveAll("/m".into()));
            furnish(tank);
        }
        _ => {
            drop(tank.host.sync(&at).await);
            drop(tank.host.fsck(&device, kind).await);
            if step.one < 64 {
                let loss = [Loss::All, Loss::Keep(2), Loss::Tear(1)][usize::from(step.other) % 3];
                tank.machine.crash(Time::ZERO, &mut |_, _| loss);
                tank.machine.boot();
                tank.host = host(&tank.machine, &tank.storage, Fence::new());
            }
        }
    }
}

/// Makes what the steps mount on.
fn furnish(tank: &Tank) {
    let file = MachineOp::WriteFile("/m/file".into(), Vec::new());
    for dir in ["/m/a", "/m/b", &publish_path("p"), &publish_path("q")] {
        drop(tank.machine.perform(Time::ZERO, &MachineOp::MakeDirs(dir.into())));
    }
    drop(tank.machine.perform(Time::ZERO, &file));
}

/// Stops everything, unmounts newest first, detaches.
async fn clean_up(tank: &Tank) {
    for pod in PODS {
        let stop = MachineOp::StopPod {
            uid: pod.into(),
            grace_seconds: 0,
        };
        tank.machine.perform(Time::ZERO, &stop).unwrap();
    }
    for entry in tank.host.mounts().await.unwrap().into_iter().rev() {
        tank.host.unmount(&entry.target).await.unwrap();
    }
    for id in ["v", "w"] {
        tank.host.detach(&id.into()).await.unwrap();
    }
}

/// The same sequences in every run.
fn config() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn whatever_happens_a_node_can_be_cleaned_up(steps in proptest::collection::vec(step(), 0..120)) {
        let mut tank = tank();
        furnish(&tank);
        block_on(async {
            for (sequence, step) in (1..).zip(steps) {
                act(&mut tank, step, sequence * 10).await;
            }
            clean_up(&tank).await;
        });
        prop_assert_eq!(tank.machine.inventory(), Default::default());
        prop_assert!(tank.machine.paths_below("/dev").is_empty());
        for id in ["v", "w"] {
            if let Some(fs) = tank.storage.file_system(&id.into()) {
                let raw = tank.storage.contents(&id.into()).unwrap().iter().any(|found| found.file.is_empty());
                prop_assert!(!fs.damaged || raw, "one machine alone damages nothing, unless it writes below the file system");
                prop_assert!(fs.room().1 <= fs.room().0);
            }
        }
    }
}
