//! An operation that hangs in the kernel: nobody else waits for it, and an end of the process does.
//!
//! Needs root. Another user is told that nothing ran; the variable `WAVETANK_ROOT_TESTS` makes that a failure.

use std::process::Command;
use std::time::Duration;

use futures::future::try_join_all;
use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;

use super::rig::{Callers, Place, mount, size};
use super::volume::{BYTES, MI, Volume};

/// Clients that work while others hang.
const CLIENTS: usize = 64;
/// Of them, how many bring their volume to a pod.
const MOUNTING: usize = 4;
/// A call that waits for one that hangs would wait for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// Holds up a file system: who writes to it waits in the kernel until this is dropped.
struct HeldUp(String);

impl HeldUp {
    fn at(path: &str) -> Self {
        assert!(freeze("-f", path), "fsfreeze holds up {path}");
        Self(path.to_owned())
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        freeze("-u", &self.0);
    }
}

fn freeze(option: &str, path: &str) -> bool {
    let ended = Command::new("fsfreeze").args([option, path]).status();
    ended.is_ok_and(|status| status.success())
}

/// The volume at a second target, which must belong to another group: this writes.
fn given_away(place: &Place, volume: &Volume, name: &'static str) -> Volume {
    Volume {
        id: volume.id.clone(),
        stage: volume.stage.clone(),
        group: "3000",
        ..Volume::new(place, name, "ext4", volume.size)
    }
}

/// Shows a volume, again while another operation is pending.
async fn show(calls: &mut Callers, volume: &Volume) -> Result<(), Status> {
    loop {
        match volume.show(calls).await {
            Err(status) if status.code() == Code::Aborted => tokio::time::sleep(Duration::from_millis(1)).await,
            answer => return answer,
        }
    }
}

/// Until the driver works on a volume: then the opposite of what it does is refused.
async fn under_way(calls: &mut Callers, volume: &Volume) {
    let asking = async {
        while !volume
            .hide(calls)
            .await
            .is_err_and(|status| status.code() == Code::Aborted)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("in time");
}

/// A client with a volume of its own.
async fn client(place: &Place, mut calls: Callers, nth: usize) -> Result<(), Status> {
    if nth < MOUNTING {
        let name = ["c0", "c1", "c2", "c3"][nth];
        let mut volume = Volume::new(place, name, "ext4", 32 * MI);
        volume.up(&mut calls, None).await?;
        volume.write();
        assert_eq!(volume.read(), BYTES);
        return volume.down(&mut calls).await;
    }
    let create = csi::CreateVolumeRequest {
        name: format!("client-{nth}"),
        capacity_range: size(32 * MI),
        volume_capabilities: vec![mount("ext4")],
        ..Default::default()
    };
    let made = calls.controller.create_volume(create).await?.into_inner();
    let volume_id = made.volume.expect("an answer has a volume").volume_id;
    let attach = csi::ControllerPublishVolumeRequest {
        volume_id: volume_id.clone(),
        node_id: "n1".to_owned(),
        volume_capability: Some(mount("ext4")),
        ..Default::default()
    };
    calls.controller.controller_publish_volume(attach).await?;
    let detach = csi::ControllerUnpublishVolumeRequest {
        volume_id: volume_id.clone(),
        ..Default::default()
    };
    calls.controller.controller_unpublish_volume(detach).await?;
    let delete = csi::DeleteVolumeRequest {
        volume_id,
        ..Default::default()
    };
    calls.controller.delete_volume(delete).await.map(drop)
}

/// What every probe, every client and every opposite call hears while two operations hang.
async fn others_go_on(place: &Place, calls: &Callers, hanging: &Volume) {
    let mut caller = calls.clone();
    let probe = caller.identity.probe(csi::ProbeRequest {}).await;
    assert_eq!(probe.expect("an answer").into_inner().ready, Some(true));
    for _ in 0..2 {
        let opposite = hanging.leave(&mut caller).await.expect_err("it hangs");
        assert_eq!(opposite.code(), Code::Aborted, "{opposite:?}");
    }
    let clients = (0..CLIENTS).map(|nth| client(place, calls.clone(), nth));
    let all = tokio::time::timeout(PATIENCE, try_join_all(clients)).await;
    all.expect("nobody waits for what hangs").expect("every answer is OK");
    let probe = caller.identity.probe(csi::ProbeRequest {}).await;
    assert_eq!(probe.expect("an answer").into_inner().ready, Some(true));
}

#[tokio::test]
async fn nobody_waits_for_what_hangs_and_an_end_does() {
    needs_root!();
    let mut place = Place::new("loop", &[]);
    let life = place.start().await;
    let mut calls = life.calls.clone();
    let mut volumes = ["v", "w"].map(|name| Volume::new(&place, name, "ext4", 32 * MI));
    for volume in &mut volumes {
        volume.up(&mut calls, None).await.expect("up");
    }
    let held = [0, 1].map(|nth| HeldUp::at(&volumes[nth].stage));
    let [waited, abandoned] = [0, 1].map(|nth| given_away(&place, &volumes[nth], ["v2", "w2"][nth]));
    let [waiting, giving_up] = [0, 1].map(|nth| {
        let (mut calls, volume) = (calls.clone(), given_away(&place, &volumes[nth], ["v2", "w2"][nth]));
        tokio::spawn(async move { show(&mut calls, &volume).await })
    });
    for hanging in [&waited, &abandoned] {
        under_way(&mut calls, hanging).await;
    }
    giving_up.abort();
    for hanging in [&waited, &abandoned] {
        others_go_on(&place, &calls, hanging).await;
        let duplicate = hanging.show(&mut calls).await.expect_err("it hangs");
        assert_eq!(duplicate.code(), Code::Aborted, "{duplicate:?}");
    }

    drop(calls);
    let ending = tokio::spawn(life.end());
    let stopping = async {
        while !said(&place, "log-1").contains("stopping") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stopping)
        .await
        .expect("it hears the signal");
    drop(held);
    waiting
        .await
        .expect("no panic")
        .expect("the call under way is answered");
    assert_eq!(ending.await.expect("no panic"), Some(0));
    let audit = said(&place, "audit");
    let published = |code: &str| {
        let of_method = audit.lines().filter(|line| line.contains("\"NodePublishVolume\""));
        of_method
            .filter(|line| line.contains(&format!("\"code\":\"{code}\"")))
            .count()
    };
    assert_eq!(published("Canceled"), 1, "{audit}");
    assert!(published("Aborted") >= 2, "{audit}");

    let life = place.start().await;
    let mut calls = life.calls.clone();
    for (volume, second) in volumes.iter().zip([&waited, &abandoned]) {
        second.show(&mut calls).await.expect("what was started is finished");
        second.hide(&mut calls).await.expect("hidden");
        volume.down(&mut calls).await.expect("down");
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(life.end().await, Some(0));
}

fn said(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap_or_default()
}
