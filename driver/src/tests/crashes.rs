//! The process dies at every single operation on pool, machine and disk; it is started again; the caller either goes on
//! or gives up; and in the end everything is as promised and nothing is left over.

use std::collections::BTreeSet;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_server::Controller as _;
use wavetank_proto::csi::v1::group_controller_server::GroupController as _;
use wavetank_proto::csi::v1::identity_server::Identity as _;
use wavetank_proto::csi::v1::node_server::Node as _;

use super::calls::*;
use super::disk::Loss;
use super::encrypted::encrypted;
use super::rig::{Crash, Rig, World};
use crate::config::Config;
use crate::ledger::Tables;
use crate::records::{PublicationPhase, SnapshotPhase, StagedPhase, StagedRecord, VolumePhase};
use crate::seat::Driver;

/// One call of a script; its answer as text, to compare.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create,
    Clone,
    Attach,
    Stage,
    Publish,
    Grow,
    GrowOnNode,
    Modify,
    Ephemeral,
    EndEphemeral,
    Cut,
    CutGroup,
    Restore,
    Unpublish,
    Unstage,
    Detach,
    Delete,
    DeleteSnapshot,
    DeleteGroup,
}

const SCRIPT: [Step; 19] = [
    Step::Create,
    Step::Attach,
    Step::Stage,
    Step::Publish,
    Step::Grow,
    Step::GrowOnNode,
    Step::Modify,
    Step::Clone,
    Step::Ephemeral,
    Step::EndEphemeral,
    Step::Cut,
    Step::CutGroup,
    Step::Restore,
    Step::Unpublish,
    Step::Unstage,
    Step::Detach,
    Step::Delete,
    Step::DeleteSnapshot,
    Step::DeleteGroup,
];

/// Where the script begins to delete what the steps before need.
const DELETED: usize = 16;

const POD2: &str = "/var/lib/kubelet/pods/pod2";

async fn perform(config: &Config, driver: &Driver, step: Step) -> Result<String, Status> {
    fn shown<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<String, Status> {
        answer.map(|answer| format!("{answer:?}"))
    }
    let end = || csi::NodeUnpublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: POD2.to_owned(),
    };
    let modify = || csi::ControllerModifyVolumeRequest {
        volume_id: id("v"),
        mutable_parameters: text(&[("iops", "300")]),
        ..Default::default()
    };
    match step {
        Step::Create => shown(call!(driver.controller.create_volume(create("v")))),
        Step::Clone => shown(call!(driver.controller.create_volume(larger_clone()))),
        Step::Attach => shown(call!(
            driver
                .controller
                .controller_publish_volume(controller_publish("v", "n1"))
        )),
        Step::Stage if config.encrypts() => shown(call!(driver.node.node_stage_volume(encrypted_stage("v")))),
        Step::Stage => shown(call!(driver.node.node_stage_volume(stage("v")))),
        Step::Publish => shown(call!(driver.node.node_publish_volume(publish("v", TARGET)))),
        Step::Grow => shown(call!(
            driver
                .controller
                .controller_expand_volume(controller_expand("v", 2 * GI))
        )),
        Step::GrowOnNode => shown(call!(driver.node.node_expand_volume(node_expand("v", TARGET, 2 * GI)))),
        Step::Modify => shown(call!(driver.controller.controller_modify_volume(modify()))),
        Step::Ephemeral => shown(call!(driver.node.node_publish_volume(ephemeral("csi-1", POD2)))),
        Step::EndEphemeral => shown(call!(driver.node.node_unpublish_volume(end()))),
        Step::Unpublish => shown(call!(driver.node.node_unpublish_volume(unpublish("v", TARGET)))),
        Step::Unstage => shown(call!(driver.node.node_unstage_volume(unstage("v")))),
        Step::Detach => shown(call!(
            driver
                .controller
                .controller_unpublish_volume(controller_unpublish("v", "n1"))
        )),
        Step::Cut => shown(call!(driver.controller.create_snapshot(cut("s", "v"))).map(timeless)),
        Step::CutGroup => shown(
            call!(
                driver
                    .group
                    .create_volume_group_snapshot(cut_group("g", &["v", "copy"]))
            )
            .map(timeless_group),
        ),
        Step::Restore => shown(call!(driver.controller.create_volume(restore("restored", "s")))),
        Step::Delete => shown(call!(driver.controller.delete_volume(delete("v")))),
        Step::DeleteSnapshot => shown(call!(driver.controller.delete_snapshot(delete_snapshot("s")))),
        Step::DeleteGroup => shown(call!(driver.group.delete_volume_group_snapshot(delete_group()))),
    }
}

/// A cut that was undone and made again has another time: nobody was told of the first.
fn timeless(mut answer: csi::CreateSnapshotResponse) -> csi::CreateSnapshotResponse {
    if let Some(snapshot) = &mut answer.snapshot {
        snapshot.creation_time = None;
    }
    answer
}

fn timeless_group(mut answer: csi::CreateVolumeGroupSnapshotResponse) -> csi::CreateVolumeGroupSnapshotResponse {
    if let Some(group) = &mut answer.group_snapshot {
        group.creation_time = None;
        group.snapshots.iter_mut().for_each(|one| one.creation_time = None);
    }
    answer
}

fn delete_group() -> csi::DeleteVolumeGroupSnapshotRequest {
    let group = crate::controller::group_handle("g");
    let volumes = [id("v"), id("copy")];
    let members = volumes.map(|volume| crate::controller::group_member(&group, &volume.as_str().into()));
    csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group.as_str().to_owned(),
        snapshot_ids: members.map(|member| member.as_str().to_owned()).to_vec(),
        ..Default::default()
    }
}

fn larger_clone() -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        capacity_range: range(2 * GI, 0),
        ..clone_of("copy", "v")
    }
}

/// What the caller does once the driver is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Repeats the call that failed and goes on.
    Persists,
    /// Wants it no more and tears everything down.
    GivesUp,
}

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dies {
    Process,
    Machine(Loss),
}

/// Starts the driver again until it starts: it may die while it recovers, too.
async fn restart(rig: &mut Rig, dies: Dies) -> Driver {
    rig.crash_at(None);
    match dies {
        Dies::Process => rig.kill(),
        Dies::Machine(loss) => rig.power_cut(loss),
    }
    let driver = rig.start().await;
    assert_settled(rig, &driver);
    driver
}

/// Even if nobody ever calls again: the world holds what the ledger says, and nothing is half done.
fn assert_settled(rig: &Rig, driver: &Driver) {
    let world = rig.world.lock().unwrap();
    driver.identity.ledger().read(|tables| {
        assert!(tables.volumes.values().all(|record| record.phase == VolumePhase::Ready));
        assert!(
            tables
                .publications
                .values()
                .all(|record| record.phase == PublicationPhase::Published)
        );
        assert!(tables.staged.values().all(|record| record.phase == StagedPhase::Staged));
        assert!(
            tables
                .targets
                .values()
                .all(|record| record.phase == PublicationPhase::Published)
        );

        let ephemeral = tables
            .staged
            .iter()
            .filter(|(_, record)| record.ephemeral)
            .map(|(id, _)| id);
        let known: BTreeSet<_> = tables.volumes.keys().chain(ephemeral).collect();
        assert_eq!(world.volumes.keys().collect::<BTreeSet<_>>(), known, "volumes");
        for (id, record) in &tables.volumes {
            let volume = &world.volumes[id];
            assert_eq!(
                (volume.known.size, &volume.settings),
                (record.size, &record.settings),
                "{id}"
            );
        }

        assert_cut(&world, tables);
        assert_on_machine(&world, tables);
    });
}

/// Snapshots and groups.
fn assert_cut(world: &World, tables: &Tables) {
    assert!(
        tables
            .snapshots
            .values()
            .all(|record| record.phase == SnapshotPhase::Ready)
    );
    assert!(
        tables
            .groups
            .values()
            .all(|record| record.phase == SnapshotPhase::Ready)
    );
    let cut: Vec<_> = world.snapshots.values().map(|snapshot| &snapshot.known.id).collect();
    assert_eq!(cut, tables.snapshots.keys().collect::<Vec<_>>(), "snapshots");
    for (id, record) in &tables.snapshots {
        assert_eq!(world.snapshots[id].known.cut_at, record.cut_at, "{id}");
    }
    let grouped = tables.groups.values().flat_map(|group| &group.snapshots);
    assert!(
        grouped.into_iter().all(|id| tables.snapshots.contains_key(id)),
        "groups"
    );
}

/// Exports, devices, mounts.
fn assert_on_machine(world: &World, tables: &Tables) {
    let exports = world
        .volumes
        .iter()
        .filter(|(_, volume)| !volume.known.exports.is_empty());
    let own = tables
        .staged
        .iter()
        .filter(|(_, record)| record.exported)
        .map(|(id, _)| id);
    let published: BTreeSet<_> = tables.publications.keys().map(|(id, _)| id).chain(own).collect();
    assert_eq!(exports.map(|(id, _)| id).collect::<BTreeSet<_>>(), published, "exports");

    let kept = |record: &StagedRecord| record.ephemeral;
    assert!(world.devices.keys().all(|id| tables.staged.contains_key(id)), "devices");
    assert!(
        tables
            .staged
            .iter()
            .all(|(id, record)| kept(record) || world.devices.contains_key(id)),
        "staged"
    );
    assert!(
        world
            .layers
            .keys()
            .all(|id| tables.staged.get(id).is_some_and(|record| record.encrypted)),
        "layers"
    );
    let paths: BTreeSet<_> = tables
        .staged
        .values()
        .map(|record| &record.path)
        .chain(tables.targets.keys())
        .collect();
    assert!(world.mounts.iter().all(|entry| paths.contains(&entry.target)), "mounts");
}

async fn end(rig: &Rig, driver: &Driver) {
    let gone = csi::NodeUnpublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: POD2.to_owned(),
    };
    call!(driver.node.node_unpublish_volume(gone)).unwrap();
    tear_down(rig, driver, "v").await;
    for name in ["copy", "restored"] {
        call!(driver.controller.delete_volume(delete(name))).unwrap();
    }
    call!(driver.controller.delete_snapshot(delete_snapshot("s"))).unwrap();
    call!(driver.group.delete_volume_group_snapshot(delete_group())).unwrap();
}

/// Plays the script once; returns the number of operations it took and the answers.
async fn play(
    config: &Config,
    crash: Option<Crash>,
    caller: Caller,
    dies: Dies,
    expected: &[String],
) -> (Vec<String>, Vec<String>) {
    let mut rig = Rig::new(config.clone());
    make_staging_directory(&rig, "v");
    let mut driver = rig.start().await;
    rig.crash_at(crash);
    let mut answers = Vec::new();
    'script: for (number, step) in SCRIPT.into_iter().enumerate() {
        let result = perform(&rig.config, &driver, step).await;
        let answer = if rig.has_crashed() {
            driver = restart(&mut rig, dies).await;
            if caller == Caller::GivesUp {
                break 'script;
            }
            again(&rig.config, &driver, number).await
        } else {
            result.unwrap()
        };
        if let Some(expected) = expected.get(number) {
            assert_eq!(answer, *expected, "{step:?} {crash:?}");
        }
        answers.push(answer);
    }
    let steps = rig.steps();
    rig.crash_at(None);
    end(&rig, &driver).await;
    assert_eq!(rig.leftovers(), Vec::<String>::new(), "{crash:?} {caller:?} {dies:?}");
    let driver = restart(&mut rig, Dies::Process).await;
    let listed = call!(driver.controller.list_volumes(Default::default())).unwrap();
    assert_eq!(listed.entries, [], "{crash:?}");
    assert!(
        driver.is_forgetful(),
        "the ledger remembers something: {crash:?} {caller:?} {dies:?}"
    );
    (steps, answers)
}

/// Repeats every step up to the one that was cut off: after a reboot those on the machine are gone, and otherwise a
/// repeat must do no harm.
async fn again(config: &Config, driver: &Driver, number: usize) -> String {
    let mut last = String::new();
    // What was deleted on purpose is not asked for again.
    let from = if number > DELETED { DELETED } else { 0 };
    for step in SCRIPT.into_iter().take(number + 1).skip(from) {
        last = perform(config, driver, step)
            .await
            .unwrap_or_else(|status| panic!("{step:?} again: {status:?}"));
    }
    last
}

impl Driver {
    /// Is every table of its ledger empty?
    fn is_forgetful(&self) -> bool {
        self.identity.ledger().read(crate::ledger::Tables::is_empty)
    }
}

/// What the disk leaves of unsynced writes: every prefix that matters, halves, and writes out of order.
const LOSSES: [Loss; 7] = [
    Loss::Keep(1),
    Loss::Keep(usize::MAX),
    Loss::Tear(0),
    Loss::Tear(1),
    Loss::Tear(2),
    Loss::Skip(0),
    Loss::Skip(1),
];

/// The power fails around every single operation of the ledger's disk, and the disk forgets, keeps, tears and reorders.
#[tokio::test(start_paused = true)]
async fn whatever_the_disk_leaves_of_unsynced_writes_the_ledger_is_whole() {
    let config = Config::default();
    let (steps, answers) = play(&config, None, Caller::Persists, Dies::Process, &[]).await;
    let mut cut = 0;
    for (at, name) in (1_u64..).zip(&steps) {
        if !name.starts_with("disk") {
            continue;
        }
        // Each point meets two of them, each of them every fourth point.
        for loss in LOSSES.into_iter().cycle().skip(cut % LOSSES.len()).take(2) {
            let caller = if cut % 2 == 0 {
                Caller::Persists
            } else {
                Caller::GivesUp
            };
            play(&config, Some(Crash(at)), caller, Dies::Machine(loss), &answers).await;
            cut += 1;
        }
    }
    assert!(cut > 300, "{cut}");
}

/// A full disk refuses what is new, loses nothing, and takes what is new again once there is room.
#[tokio::test(start_paused = true)]
async fn a_full_ledger_disk_refuses_and_forgets_nothing() {
    let mut rig = Rig::new(Config::default());
    let mut driver = rig.start().await;
    bring_to_pod(&rig, &driver, "v").await;
    rig.platter.lock().unwrap().room = 1;
    let mut made = Vec::new();
    let mut refused = 0;
    for nth in 0..4000 {
        let name = format!("w{nth}");
        match call!(driver.controller.create_volume(create(&name))) {
            Ok(_) => made.push(name),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                refused += 1;
            }
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "the disk was never full: {} volumes", made.len());
    for dies in [Dies::Process, Dies::Machine(Loss::Tear(0))] {
        driver = restart(&mut rig, dies).await;
        let listed = call!(driver.controller.list_volumes(Default::default())).unwrap();
        assert_eq!(listed.entries.len(), made.len() + 1);
    }
    rig.platter.lock().unwrap().room = 0;
    call!(driver.controller.create_volume(create("late"))).unwrap();
    for name in made.iter().map(String::as_str).chain(["late"]) {
        call!(driver.controller.delete_volume(delete(name))).unwrap();
    }
    tear_down(&rig, &driver, "v").await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    assert!(driver.is_forgetful());
}

/// A full pool refuses creation and growth; the process dies at any point of that, and nothing is taken or left over.
#[tokio::test(start_paused = true)]
async fn a_full_pool_refuses_and_a_crash_there_leaves_nothing() {
    for at in 1.. {
        let mut rig = Rig::new(Config::default());
        let mut driver = rig.start().await;
        call!(driver.controller.create_volume(create("v"))).unwrap();
        let room = std::mem::take(&mut rig.world.lock().unwrap().room);
        let none = room.keys().map(|place| (place.clone(), 0)).collect();
        rig.world.lock().unwrap().room = none;
        rig.crash_at(Some(Crash(at)));
        let made = call!(driver.controller.create_volume(create("w")));
        let grow = || controller_expand("v", 2 * GI);
        let grown = call!(driver.controller.controller_expand_volume(grow()));
        let is_over = !rig.has_crashed();
        rig.crash_at(None);
        if is_over {
            assert_eq!(code(made), tonic::Code::ResourceExhausted);
            assert_eq!(code(grown), tonic::Code::ResourceExhausted);
        } else {
            driver = restart(&mut rig, Dies::Machine(Loss::All)).await;
        }
        assert_eq!(rig.world.lock().unwrap().volumes.len(), 1, "{at}");
        rig.world.lock().unwrap().room = room;
        let grown = call!(driver.controller.controller_expand_volume(grow())).unwrap();
        assert_eq!(grown.capacity_bytes, 2 * GI);
        call!(driver.controller.create_volume(create("w"))).unwrap();
        for name in ["v", "w"] {
            call!(driver.controller.delete_volume(delete(name))).unwrap();
        }
        assert_eq!(rig.leftovers(), Vec::<String>::new(), "{at}");
        if is_over {
            assert!(at > 10, "{at}");
            break;
        }
    }
}

async fn crash_everywhere(config: &Config, caller: Caller, dies: Dies) {
    let (steps, answers) = play(config, None, caller, dies, &[]).await;
    assert!(steps.len() > 100, "the script is long: {}", steps.len());
    for at in 1..=steps.len() as u64 {
        play(config, Some(Crash(at)), caller, dies, &answers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_persists_gets_what_was_promised() {
    crash_everywhere(&Config::default(), Caller::Persists, Dies::Process).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_nothing_behind() {
    crash_everywhere(&Config::default(), Caller::GivesUp, Dies::Process).await;
}

#[tokio::test(start_paused = true)]
async fn a_reboot_at_any_point_is_survived() {
    crash_everywhere(&Config::default(), Caller::Persists, Dies::Machine(Loss::All)).await;
    crash_everywhere(&Config::default(), Caller::GivesUp, Dies::Machine(Loss::All)).await;
}

/// Wherever it dies, no mapping and no half-made layer stays, and the volume can be used.
#[tokio::test(start_paused = true)]
async fn an_encrypted_volume_survives_a_crash_at_any_point() {
    crash_everywhere(&encrypted(), Caller::Persists, Dies::Process).await;
    crash_everywhere(&encrypted(), Caller::GivesUp, Dies::Process).await;
    crash_everywhere(&encrypted(), Caller::Persists, Dies::Machine(Loss::All)).await;
}

/// The second life dies too, while it settles what the first left.
#[tokio::test(start_paused = true)]
async fn a_crash_during_recovery_is_recovered_from() {
    let (steps, _) = play(&Config::default(), None, Caller::Persists, Dies::Process, &[]).await;
    let mut again = 0;
    for first in (1..=steps.len() as u64).step_by(7) {
        for second in (1..40).step_by(2) {
            let mut rig = Rig::new(Config::default());
            make_staging_directory(&rig, "v");
            let driver = rig.start().await;
            rig.crash_at(Some(Crash(first)));
            for step in SCRIPT {
                if perform(&rig.config, &driver, step).await.is_err() {
                    break;
                }
            }
            rig.kill();
            rig.crash_at(Some(Crash(second)));
            // An error at the start is a start that did not happen: the disk died under it.
            let _ = rig.try_start().await;
            if !rig.has_crashed() {
                break;
            }
            again += 1;
            let driver = restart(&mut rig, Dies::Process).await;
            end(&rig, &driver).await;
            assert_eq!(rig.leftovers(), Vec::<String>::new(), "{first} {second}");
            assert!(driver.is_forgetful(), "{first} {second}");
        }
    }
    assert!(again > 100, "recoveries were really cut off: {again}");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_is_admitted_and_works_again_when_its_disk_does() {
    let mut rig = Rig::new(Config::default());
    let driver = rig.start().await;
    call!(driver.controller.create_volume(create("v"))).unwrap();
    rig.disk_fails(true);
    for _ in 0..2 {
        let refused = call!(driver.controller.create_volume(create("w")));
        assert_eq!(code(refused), tonic::Code::Unavailable, "it may be on the disk");
    }
    let grown = call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    );
    assert_eq!(code(grown), tonic::Code::Unavailable);
    let probe = driver.identity.probe(tonic::Request::new(Default::default())).await;
    assert_eq!(code(probe), tonic::Code::FailedPrecondition);
    let known = call!(driver.controller.create_volume(create("v")));
    assert_eq!(
        code(known),
        tonic::Code::Unavailable,
        "what the disk holds is unknown, so nothing is answered from memory"
    );
    rig.disk_fails(false);
    let known = call!(driver.controller.create_volume(create("v"))).unwrap();
    assert_eq!(known.volume.unwrap().capacity_bytes, GI, "what was durable stays");
    driver
        .identity
        .probe(tonic::Request::new(Default::default()))
        .await
        .unwrap();
    call!(driver.controller.create_volume(create("w"))).unwrap();
    call!(
        driver
            .controller
            .controller_expand_volume(controller_expand("v", 2 * GI))
    )
    .unwrap();
    assert_settled(&rig, &driver);
    rig.kill();
    let driver = rig.start().await;
    assert_settled(&rig, &driver);
    let listed = call!(driver.controller.list_volumes(Default::default())).unwrap();
    assert_eq!(listed.entries.len(), 2);
}

/// Every single write of the ledger fails once, the process lives on, and the caller comes again.
#[tokio::test(start_paused = true)]
async fn a_write_that_fails_once_is_survived_without_a_restart() {
    let writes = {
        let mut rig = Rig::new(Config::default());
        make_staging_directory(&rig, "v");
        let driver = rig.start().await;
        for step in SCRIPT {
            perform(&rig.config, &driver, step).await.unwrap();
        }
        rig.disk_operations()
    };
    let mut refused = 0;
    for nth in 1..=writes {
        let mut rig = Rig::new(Config::default());
        make_staging_directory(&rig, "v");
        let driver = rig.start().await;
        rig.disk_fails_at(nth);
        for step in SCRIPT {
            if let Err(status) = perform(&rig.config, &driver, step).await {
                let code = status.code();
                assert_eq!(
                    code,
                    tonic::Code::Unavailable,
                    "{step:?} after write {nth}: it may be done"
                );
                refused += 1;
                let again = perform(&rig.config, &driver, step).await;
                again.unwrap_or_else(|status| panic!("{step:?} after write {nth} failed: {status:?}"));
            }
        }
        end(&rig, &driver).await;
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        assert_eq!(rig.leftovers(), Vec::<String>::new(), "{nth}");
        assert!(driver.is_forgetful(), "{nth}");
    }
    assert!(refused > writes / 2, "{refused} of {writes}");
}

/// Two writes fail, in two calls: what is answered then is what the disk holds, not what memory had before.
#[tokio::test]
async fn nothing_is_answered_from_memory_while_the_disk_is_unknown() {
    for (first, second) in (1..=26).flat_map(|first| (1..=26).step_by(5).map(move |second| (first, second))) {
        let mut rig = Rig::new(Config::default());
        let driver = rig.start().await;
        call!(driver.controller.create_volume(create("v"))).unwrap();
        for nth in [first, second] {
            rig.disk_fails_at(rig.disk_operations() + nth);
            let _ = call!(
                driver
                    .controller
                    .controller_publish_volume(controller_publish("v", "n1"))
            );
        }
        rig.disk_fails_at(0);
        call!(
            driver
                .controller
                .controller_publish_volume(controller_publish("v", "n1"))
        )
        .unwrap();
        rig.kill();
        let driver = rig.start().await;
        let listed = call!(driver.controller.list_volumes(Default::default())).unwrap();
        let status = listed.entries[0].status.as_ref().unwrap();
        assert_eq!(status.published_node_ids, ["n1"], "writes {first} and {second} failed");
    }
}

#[tokio::test]
async fn a_disk_with_something_else_on_it_is_left_alone() {
    use redb::StorageBackend;
    let memory = redb::backends::InMemoryBackend::new();
    memory.set_len(4096).unwrap();
    memory.write(0, b"precious data").unwrap();
    let disk = crate::runtime::Disk::new(memory);
    let opened = crate::ledger::Ledger::open(disk.clone(), std::sync::Arc::new(super::rig::TestRuntime), false).await;
    assert!(matches!(opened.err(), Some(crate::ledger::LedgerError::Foreign)));
    let mut first = [0; 8];
    disk.read(0, &mut first).unwrap();
    assert_eq!(&first, b"precious");
}
