//! Requests made of random bytes against a driver in the tank: no panic, no hang, no leak, the right class of code, and nothing changed by a refusal.
//!
//! ```text
//! bytes ──► requests, field by field ──► driver ──► OK: remembered, to be undone at the end
//!                                            └────► refused: everything is as before
//! ```
//!
//! Before the first request there are volumes, one of them published, a snapshot, a group of them, and a symbolic link that leads away.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{Either, select};
use tonic::{Code, Status};
use wavetank_conform::random::{Source, encoded, methods, path, request, shown};
use wavetank_conform::{Side, Unary, UnderTest, raw, spell};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;
use wavetank_proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use wavetank_proto::prost::Message;

use super::Tank;
use super::world::{World, node_name};
use crate::link::MachineOp;
use crate::runtime::run;

/// Requests of one storm.
const MOST: usize = 60;
/// Virtual time after which an answer does not come any more.
const PATIENCE: Duration = Duration::from_secs(600);

const STAGE: &str = "/var/lib/kubelet/plugins/stage";
const TARGET: &str = "/var/lib/kubelet/pods/p1/volumes/kubernetes.io~csi/data/mount";
const OTHER_TARGET: &str = "/var/lib/kubelet/pods/p2/volumes/kubernetes.io~csi/data/mount";
const BLOCK_TARGET: &str = "/var/lib/kubelet/pods/p1/volumeDevices/kubernetes.io~csi/data";
const AWAY: &str = "/var/lib/kubelet/away";

/// What must never come of any request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The driver panicked.
    #[error("the driver panicked: {0}")]
    Panic(String),
    /// No answer came.
    #[error("no answer to {0}")]
    Hang(String),
    /// A code that tells callers the wrong thing: that the driver does not know, or that it broke.
    #[error("{request} was answered with {code}: {text}")]
    Code {
        /// The request.
        request: String,
        /// The code.
        code: &'static str,
        /// What was said.
        text: String,
    },
    /// A request was refused, and something is different.
    #[error("{request} was refused with {code}, and changed something: {change}")]
    Changed {
        /// The request.
        request: String,
        /// The code.
        code: &'static str,
        /// What is different.
        change: String,
    },
    /// Something cannot be undone, or is left although everything was undone.
    #[error("left over: {0}")]
    Left(String),
}

/// How requests were answered: how often with each code, by method.
pub type Tally = BTreeMap<(String, &'static str), usize>;

/// Makes requests of a service (`Controller`; of all for an empty name) of these bytes.
///
/// # Errors
/// [`Trouble`].
pub fn fuzz(tank: &Tank, service: &str, bytes: &[u8]) -> Result<Tally, Trouble> {
    let (tank, service, bytes) = (tank.clone(), service.to_owned(), bytes.to_vec());
    let played = catch_unwind(AssertUnwindSafe(|| {
        run(move || async move {
            let world = Arc::new(World::start(tank).await);
            let result = Arc::new(Mutex::new(Ok(Tally::new())));
            let (into, inside) = (Arc::clone(&result), Arc::clone(&world));
            world
                .finish(async move {
                    let done = Storm::new(&inside).play(&service, &bytes).await;
                    *into.lock().expect("nobody panics with it") = done;
                })
                .await;
            result.lock().expect("nobody panics with it").clone()
        })
    }));
    played.unwrap_or_else(|panic| Err(Trouble::Panic(spoken(panic.as_ref()))))
}

fn spoken(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
        .to_owned()
}

struct Storm<'a> {
    world: &'a World,
    words: Vec<String>,
    /// What was published: node, volume, path.
    targets: BTreeSet<(usize, String, String)>,
    /// What was staged.
    stages: BTreeSet<(usize, String, String)>,
    tally: Tally,
}

fn capability(block: bool) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(if block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume::default())
        }),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

impl<'a> Storm<'a> {
    fn new(world: &'a World) -> Storm<'a> {
        let words = [
            "n1",
            "n2",
            "node-1",
            "node-2",
            STAGE,
            TARGET,
            OTHER_TARGET,
            BLOCK_TARGET,
            AWAY,
            "/var/lib/kubelet/away/x",
            "ext4",
            "xfs",
            "type",
            "standard",
            "iops",
            "500",
            "topology.wavetank.dev/zone",
            "a",
            "noatime",
        ];
        Storm {
            world,
            words: words.map(str::to_owned).to_vec(),
            targets: BTreeSet::new(),
            stages: BTreeSet::new(),
            tally: Tally::new(),
        }
    }

    async fn play(mut self, service: &str, bytes: &[u8]) -> Result<Tally, Trouble> {
        self.directories()?;
        let blank = self.inventory();
        self.scene().await?;
        let services: Vec<&str> = match service {
            "" => vec!["Controller", "Node", "GroupController", "SnapshotMetadata", "Identity"],
            one => vec![one],
        };
        let mut source = Source::new(bytes);
        for _ in 0..MOST {
            if source.is_empty() {
                break;
            }
            let service = services[source.below(services.len())];
            let methods = methods(service);
            let method = &methods[source.below(methods.len())];
            let node = source.below(self.world.nodes());
            // Identity is served everywhere.
            let side = match service {
                "Node" => Side::Node(node),
                "Identity" if source.below(2) == 1 => Side::Node(node),
                _ => Side::Controller,
            };
            let message = request(method, &mut source, &self.words);
            let before = self.inventory();
            let answer = self.send(side, &path(method), &encoded(&message)).await;
            let text = || format!("{} {}", method.name(), shown(&message));
            let Some(answer) = answer else {
                return Err(Trouble::Hang(text()));
            };
            let code = answer.as_ref().map_or_else(|status| status.code(), |_| Code::Ok);
            *self.tally.entry((method.name().to_owned(), spell(code))).or_default() += 1;
            match answer {
                Ok(answers) => self.learn(node, method.name(), &encoded(&message), &answers),
                Err(status) => self.refused(&status, &before, text)?,
            }
        }
        self.undo().await?;
        match difference(&blank, &self.inventory()) {
            None => Ok(self.tally),
            Some(change) => Err(Trouble::Left(change)),
        }
    }

    fn inventory(&self) -> Vec<String> {
        self.world.inventory().unwrap_or_default()
    }

    fn refused(&self, status: &Status, before: &[String], text: impl Fn() -> String) -> Result<(), Trouble> {
        let code = spell(status.code());
        let fits = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Unimplemented
                | Code::PermissionDenied
                | Code::Unauthenticated
        );
        if !fits {
            return Err(Trouble::Code {
                request: text(),
                code,
                text: status.message().to_owned(),
            });
        }
        match difference(before, &self.inventory()) {
            None => Ok(()),
            Some(change) => Err(Trouble::Changed {
                request: text(),
                code,
                change,
            }),
        }
    }

    /// What kubelet makes, and a link that leads away from its directory.
    fn directories(&self) -> Result<(), Trouble> {
        for machine in &self.world.machines {
            let mut operations = vec![
                MachineOp::MakeDirs(STAGE.to_owned()),
                MachineOp::MakeDirs("/var/lib/elsewhere".to_owned()),
            ];
            for target in [TARGET, OTHER_TARGET, BLOCK_TARGET] {
                let parent = target.rsplit_once('/').map_or("/", |(parent, _)| parent);
                operations.push(MachineOp::MakeDirs(parent.to_owned()));
            }
            operations.push(MachineOp::Link {
                to: "/var/lib/elsewhere".to_owned(),
                at: AWAY.to_owned(),
            });
            for operation in operations {
                machine.perform(&operation).map_err(Trouble::Left)?;
            }
        }
        Ok(())
    }

    /// Volumes, an attachment, a snapshot, a group: so that requests have something to be about.
    async fn scene(&mut self) -> Result<(), Trouble> {
        let mut volumes = Vec::new();
        for (name, block) in [("n1", false), ("n2", true)] {
            let request = csi::CreateVolumeRequest {
                name: name.to_owned(),
                volume_capabilities: vec![capability(block)],
                ..Default::default()
            };
            let made = self.must(Side::Controller, request).await?.volume.unwrap_or_default();
            volumes.push(made.volume_id);
        }
        let volume_id = volumes[0].clone();
        let node_id = node_name(0);
        let volume_capability = Some(capability(false));
        let attach = csi::ControllerPublishVolumeRequest {
            volume_id: volume_id.clone(),
            node_id,
            volume_capability,
            ..Default::default()
        };
        let attached = self.call(Side::Controller, attach).await;
        let publish_context = attached.map(|answer| answer.publish_context).unwrap_or_default();
        let stage = csi::NodeStageVolumeRequest {
            volume_id: volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: STAGE.to_owned(),
            volume_capability: Some(capability(false)),
            ..Default::default()
        };
        // A driver that does not stage or attach refuses.
        if self.call(Side::Node(0), stage).await.is_ok() {
            self.stages.insert((0, volume_id.clone(), STAGE.to_owned()));
        }
        let publish = csi::NodePublishVolumeRequest {
            volume_id: volume_id.clone(),
            publish_context,
            staging_target_path: STAGE.to_owned(),
            target_path: TARGET.to_owned(),
            volume_capability: Some(capability(false)),
            ..Default::default()
        };
        if self.call(Side::Node(0), publish).await.is_ok() {
            self.targets.insert((0, volume_id.clone(), TARGET.to_owned()));
        }
        let cut = csi::CreateSnapshotRequest {
            source_volume_id: volume_id,
            name: "s1".to_owned(),
            ..Default::default()
        };
        if let Ok(answer) = self.call(Side::Controller, cut).await {
            self.words.push(answer.snapshot.unwrap_or_default().snapshot_id);
        }
        let group = csi::CreateVolumeGroupSnapshotRequest {
            name: "g1".to_owned(),
            source_volume_ids: volumes.clone(),
            ..Default::default()
        };
        if let Ok(answer) = self.call(Side::Controller, group).await {
            let group = answer.group_snapshot.unwrap_or_default();
            self.words
                .extend(group.snapshots.iter().map(|one| one.snapshot_id.clone()));
            self.words.push(group.group_snapshot_id);
        }
        // Volumes are what most requests are about.
        for _ in 0..4 {
            self.words.extend(volumes.clone());
        }
        Ok(())
    }

    async fn send(&self, side: Side, path: &str, message: &[u8]) -> Option<Result<Vec<Vec<u8>>, Status>> {
        let call = Box::pin(raw(self.world.wire(side), path, message));
        match select(call, self.world.sleep(PATIENCE)).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    async fn call<R: Unary>(&self, side: Side, request: R) -> Result<R::Answer, Status> {
        match select(request.send(self.world.wire(side)), self.world.sleep(PATIENCE)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(Status::deadline_exceeded("no answer")),
        }
    }

    async fn must<R: Unary>(&self, side: Side, request: R) -> Result<R::Answer, Trouble> {
        let text = format!("{} {}", R::METHOD, request.shown());
        let answer = self.call(side, request).await;
        answer.map_err(|status| {
            Trouble::Left(format!(
                "{text} answered {} ({})",
                spell(status.code()),
                status.message()
            ))
        })
    }

    /// What an answer OK says of what is there now.
    fn learn(&mut self, node: usize, method: &str, request: &[u8], answers: &[Vec<u8>]) {
        let answer = answers.first().map(Vec::as_slice).unwrap_or_default();
        match method {
            "CreateVolume" => {
                let volume = csi::CreateVolumeResponse::decode(answer).unwrap_or_default().volume;
                self.words.extend(volume.map(|volume| volume.volume_id));
            }
            "CreateSnapshot" => {
                let snapshot = csi::CreateSnapshotResponse::decode(answer).unwrap_or_default().snapshot;
                self.words.extend(snapshot.map(|snapshot| snapshot.snapshot_id));
            }
            "NodeStageVolume" => {
                let request = csi::NodeStageVolumeRequest::decode(request).unwrap_or_default();
                self.stages
                    .insert((node, request.volume_id, request.staging_target_path));
            }
            "NodePublishVolume" => {
                let request = csi::NodePublishVolumeRequest::decode(request).unwrap_or_default();
                self.targets.insert((node, request.volume_id, request.target_path));
            }
            _ => {}
        }
    }

    /// Undoes everything as a caller would: the way back, groups, snapshots, volumes.
    async fn undo(&self) -> Result<(), Trouble> {
        for (node, volume_id, target_path) in self.targets.clone() {
            self.must(
                Side::Node(node),
                csi::NodeUnpublishVolumeRequest { volume_id, target_path },
            )
            .await?;
        }
        for (node, volume_id, staging_target_path) in self.stages.clone() {
            self.must(
                Side::Node(node),
                csi::NodeUnstageVolumeRequest {
                    volume_id,
                    staging_target_path,
                },
            )
            .await?;
        }
        let volumes: Vec<String> = self
            .world
            .storage
            .volumes()
            .iter()
            .map(|volume| volume.id.to_string())
            .collect();
        for volume_id in &volumes {
            let request = csi::ControllerUnpublishVolumeRequest {
                volume_id: volume_id.clone(),
                ..Default::default()
            };
            // A driver that does not attach refuses.
            let _ = self.call(Side::Controller, request).await;
        }
        self.undo_snapshots().await?;
        for volume_id in volumes {
            self.must(
                Side::Controller,
                csi::DeleteVolumeRequest {
                    volume_id,
                    ..Default::default()
                },
            )
            .await?;
        }
        Ok(())
    }

    async fn undo_snapshots(&self) -> Result<(), Trouble> {
        let listed = self
            .call(Side::Controller, csi::ListSnapshotsRequest::default())
            .await
            .unwrap_or_default();
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for snapshot in listed.entries.into_iter().filter_map(|entry| entry.snapshot) {
            groups
                .entry(snapshot.group_snapshot_id)
                .or_default()
                .push(snapshot.snapshot_id);
        }
        for (group_snapshot_id, snapshot_ids) in groups {
            if !group_snapshot_id.is_empty() {
                let request = csi::DeleteVolumeGroupSnapshotRequest {
                    group_snapshot_id,
                    snapshot_ids,
                    ..Default::default()
                };
                self.must(Side::Controller, request).await?;
                continue;
            }
            for snapshot_id in snapshot_ids {
                self.must(
                    Side::Controller,
                    csi::DeleteSnapshotRequest {
                        snapshot_id,
                        ..Default::default()
                    },
                )
                .await?;
            }
        }
        Ok(())
    }
}

/// The first thing that is there on one side only.
fn difference(before: &[String], after: &[String]) -> Option<String> {
    let gone = before
        .iter()
        .find(|one| !after.contains(one))
        .map(|one| format!("gone: {one}"));
    let new = after
        .iter()
        .find(|one| !before.contains(one))
        .map(|one| format!("new: {one}"));
    match (gone, new) {
        (None, None) => None,
        (gone, new) => Some([gone, new].into_iter().flatten().collect::<Vec<_>>().join("; ")),
    }
}
