//! What a check works with: calls that are recorded and limited in time, volumes on their way to a pod, and a clean-up of whatever it made.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, join_all, select};
use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use wavetank_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;
use wavetank_proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

use crate::call::{Side, Unary, Wire, differences};
use crate::check::{Exchange, Outcome, Stop, broken, expect};
use crate::driver::{Machine, UnderTest};
use crate::profile::Profile;
use crate::settings::Settings;
use crate::undo::Books;

/// The mode that every driver knows.
pub(crate) const WRITER: Mode = Mode::SingleNodeWriter;

/// How often a call that is answered ABORTED is made, and the pause in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// A volume as it will be used.
pub(crate) fn capability(settings: &Settings, block: bool, mode: Mode) -> csi::VolumeCapability {
    let mount = || MountVolume {
        fs_type: settings.fs_type.clone(),
        mount_flags: settings.mount_flags.clone(),
        volume_mount_group: String::new(),
    };
    csi::VolumeCapability {
        access_type: Some(if block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(mount())
        }),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

/// A volume that was made.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub id: String,
    pub answer: csi::Volume,
    pub request: csi::CreateVolumeRequest,
    /// How it will be used.
    pub capability: csi::VolumeCapability,
    pub name: String,
}

impl Volume {
    pub fn is_block(&self) -> bool {
        matches!(self.capability.access_type, Some(AccessType::Block(_)))
    }

    /// The same, to be used in another mode.
    pub fn in_mode(mut self, mode: Mode) -> Self {
        self.capability.access_mode = Some(AccessMode { mode: mode.into() });
        self
    }
}

/// A volume in use by a pod.
#[derive(Clone, Debug)]
pub(crate) struct InUse {
    pub node: usize,
    pub context: BTreeMap<String, String>,
    pub stage: Option<csi::NodeStageVolumeRequest>,
    pub publish: csi::NodePublishVolumeRequest,
    pub pod: String,
}

impl InUse {
    pub fn target(&self) -> &str {
        &self.publish.target_path
    }
}

/// What one check works with.
pub struct Lab {
    driver: Arc<dyn UnderTest>,
    profile: Arc<Profile>,
    settings: Arc<Settings>,
    check: String,
    began: Duration,
    state: Mutex<State>,
    /// The ids of everything that the run has made.
    made: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Default)]
struct State {
    exchanges: Vec<Exchange>,
    books: Books,
    /// Directories and links that the lab made, in order: node and path.
    paths: Vec<(usize, String)>,
    /// The check has ended, and is being undone.
    undoing: bool,
}

impl Lab {
    pub(crate) fn new(
        driver: Arc<dyn UnderTest>,
        profile: Arc<Profile>,
        settings: Arc<Settings>,
        made: Arc<Mutex<BTreeSet<String>>>,
        check: &str,
    ) -> Self {
        Self {
            began: driver.now(),
            driver,
            profile,
            settings,
            check: check.replace('/', "-"),
            state: Mutex::default(),
            made,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.state().exchanges)
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn has(&self, rpc: ControllerRpc) -> bool {
        self.profile.has(rpc)
    }

    pub(crate) fn stages(&self) -> bool {
        self.profile.node_has(NodeRpc::StageUnstageVolume)
    }

    pub(crate) fn machine(&self, node: usize) -> &dyn Machine {
        self.driver.machine(node)
    }

    pub(crate) fn sees_volumes(&self) -> bool {
        self.machine(0).sees_volumes().is_ok()
    }

    pub(crate) fn wire(&self, side: Side) -> Wire {
        self.driver.wire(side)
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.driver.sleep(duration).await;
    }

    /// Everything that the run has made, by id.
    pub(crate) fn made(&self) -> BTreeSet<String> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A name that no other check uses.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{}-{}-{what}", self.settings.run, self.check)
    }

    /// The secrets of a method.
    pub(crate) fn secrets(&self, method: &str) -> BTreeMap<String, String> {
        self.settings
            .secrets_of
            .get(method)
            .unwrap_or(&self.settings.secrets)
            .clone()
    }

    /// Makes a call on the first node or the controller.
    pub(crate) async fn call<R: Unary>(&self, request: R) -> Result<R::Answer, NoAnswer> {
        self.call_on(0, request).await
    }

    /// Makes a call; if it is one of the Node service, on that node.
    pub(crate) async fn call_on<R: Unary>(&self, node: usize, mut request: R) -> Result<R::Answer, NoAnswer> {
        let side = if R::ON_NODE { Side::Node(node) } else { Side::Controller };
        let given = self.secrets(R::METHOD);
        if let Some(secrets) = request.secrets() {
            for (key, value) in given {
                secrets.entry(key).or_insert(value);
            }
        }
        let limit = self.settings.call_limit;
        let answer = match select(request.clone().send(self.driver.wire(side)), self.driver.sleep(limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => {
                self.record::<R>(&request, &Err(Status::deadline_exceeded("no answer")));
                return Err(NoAnswer::Hung(format!("{} had no answer within {limit:?}", R::METHOD)));
            }
        };
        self.record::<R>(&request, &answer);
        match &answer {
            Ok(answer) => {
                self.state().books.note(node, &request as &dyn Any, answer as &dyn Any);
                let ids = crate::undo::ids(answer as &dyn Any);
                self.made.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            }
            Err(_) => self.target_of_refused(node, &request as &dyn Any),
        }
        answer.map_err(NoAnswer::Refused)
    }

    /// Nobody unpublishes what was refused: kubelet takes its target away itself.
    fn target_of_refused(&self, node: usize, request: &dyn Any) {
        let Some(request) = request.downcast_ref::<csi::NodePublishVolumeRequest>() else {
            return;
        };
        let entry = (node, request.target_path.clone());
        let is_ours = entry.1.starts_with(&self.below(node, "pods/"));
        let mut state = self.state();
        if is_ours && !state.paths.contains(&entry) {
            state.paths.push(entry);
        }
    }

    fn record<R: Unary>(&self, request: &R, answer: &Result<R::Answer, Status>) {
        let exchange = Exchange {
            method: R::METHOD,
            request: request.shown(),
            answer: match answer {
                Ok(answer) => Ok(R::shown_answer(answer)),
                Err(status) => Err((status.code(), status.message().to_owned())),
            },
            at: self.driver.now().saturating_sub(self.began),
            undoes: self.state().undoing,
        };
        self.state().exchanges.push(exchange);
    }

    /// Makes a call that has to succeed. ABORTED means that another operation is pending: it is made again.
    pub(crate) async fn ok<R: Unary>(&self, request: R) -> Result<R::Answer, Stop> {
        self.ok_on(0, request).await
    }

    pub(crate) async fn ok_on<R: Unary>(&self, node: usize, request: R) -> Result<R::Answer, Stop> {
        for _ in 1..TRIES {
            match self.call_on(node, request.clone()).await {
                Err(NoAnswer::Refused(status)) if status.code() == Code::Aborted => self.driver.sleep(PAUSE).await,
                other => return other.map_err(|stop| stop.unexpected::<R>("should succeed")),
            }
        }
        let last = self.call_on(node, request).await;
        last.map_err(|stop| stop.unexpected::<R>("should succeed"))
    }

    /// Makes a call that has to be refused with one of these codes.
    pub(crate) async fn refused<R: Unary>(&self, request: R, codes: &[Code]) -> Outcome {
        self.refused_on(0, request, codes).await.map(drop)
    }

    pub(crate) async fn refused_on<R: Unary>(&self, node: usize, request: R, codes: &[Code]) -> Result<Status, Stop> {
        let wanted = codes.iter().map(|code| spell(*code)).collect::<Vec<_>>().join(" or ");
        match self.call_on(node, request).await {
            Ok(_) => broken(format!("{} answered OK, expected {wanted}", R::METHOD)),
            Err(NoAnswer::Refused(status)) if codes.contains(&status.code()) => Ok(status),
            Err(stop) => Err(stop.unexpected::<R>(&format!("expected {wanted}"))),
        }
    }

    /// Makes a call that may succeed or be refused with one of these codes. Says whether it succeeded.
    pub(crate) async fn ok_or<R: Unary>(&self, request: R, codes: &[Code]) -> Result<Option<R::Answer>, Stop> {
        let wanted = codes.iter().map(|code| spell(*code)).collect::<Vec<_>>().join(" or ");
        match self.call(request).await {
            Ok(answer) => Ok(Some(answer)),
            Err(NoAnswer::Refused(status)) if codes.contains(&status.code()) => Ok(None),
            Err(stop) => Err(stop.unexpected::<R>(&format!("expected OK or {wanted}"))),
        }
    }

    /// Makes the same call again and wants the same answer, field by field.
    pub(crate) async fn again<R: Unary>(&self, node: usize, request: R, first: &R::Answer) -> Outcome {
        let second = self.ok_on(node, request).await?;
        same::<R>(first, &second)
    }

    /// A request for a volume, complete.
    pub(crate) fn create_request(&self, what: &str, block: bool) -> csi::CreateVolumeRequest {
        csi::CreateVolumeRequest {
            name: self.name(what),
            capacity_range: range(self.settings.size),
            volume_capabilities: vec![capability(&self.settings, block, WRITER)],
            parameters: self.settings.parameters.clone(),
            ..csi::CreateVolumeRequest::default()
        }
    }

    /// Makes a volume of whichever kind the driver takes, with a file system if it can.
    pub(crate) async fn volume(&self, what: &str) -> Result<Volume, Stop> {
        self.make(self.create_request(what, !self.profile.mount)).await
    }

    /// Makes a raw block volume.
    pub(crate) async fn block(&self, what: &str) -> Result<Volume, Stop> {
        self.make(self.create_request(what, true)).await
    }

    pub(crate) async fn make(&self, request: csi::CreateVolumeRequest) -> Result<Volume, Stop> {
        let answer = self.ok(request.clone()).await?;
        volume_of(request, answer)
    }

    pub(crate) fn attach_request(&self, volume: &Volume, node: usize) -> csi::ControllerPublishVolumeRequest {
        csi::ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node_id(node),
            volume_capability: Some(volume.capability.clone()),
            volume_context: volume.answer.volume_context.clone(),
            ..csi::ControllerPublishVolumeRequest::default()
        }
    }

    pub(crate) fn detach_request(&self, volume: &Volume, node: usize) -> csi::ControllerUnpublishVolumeRequest {
        csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node_id(node),
            ..csi::ControllerUnpublishVolumeRequest::default()
        }
    }

    pub(crate) fn node_id(&self, node: usize) -> String {
        self.profile
            .nodes
            .get(node)
            .map(|info| info.node_id.clone())
            .unwrap_or_default()
    }

    /// Attaches a volume, if the driver does that.
    pub(crate) async fn attach(&self, volume: &Volume, node: usize) -> Result<BTreeMap<String, String>, Stop> {
        if !self.has(ControllerRpc::PublishUnpublishVolume) {
            return Ok(BTreeMap::new());
        }
        let answer = self.ok(self.attach_request(volume, node)).await?;
        Ok(answer.publish_context)
    }

    fn below(&self, node: usize, rest: &str) -> String {
        format!("{}/{rest}", self.machine(node).root().trim_end_matches('/'))
    }

    /// A path that belongs to this lab alone.
    pub(crate) fn stage_path(&self, volume: &str, node: usize) -> String {
        self.below(
            node,
            &format!("plugins/{}/globalmount", volume.chars().take(80).collect::<String>()),
        )
    }

    /// Where a pod finds a volume, as kubelet names it.
    pub(crate) fn target_path(&self, pod: &str, block: bool, node: usize) -> String {
        if block {
            self.below(node, &format!("pods/{pod}/volumeDevices/kubernetes.io~csi/data"))
        } else {
            self.below(node, &format!("pods/{pod}/volumes/kubernetes.io~csi/data/mount"))
        }
    }

    /// Makes a directory, to be removed at the end.
    pub(crate) async fn dir(&self, node: usize, path: &str) -> Outcome {
        let root = self.machine(node).root().trim_end_matches('/').to_owned();
        let mut at = root.clone();
        for part in path
            .strip_prefix(&root)
            .unwrap_or_default()
            .split('/')
            .filter(|part| !part.is_empty())
        {
            at = format!("{at}/{part}");
            let entry = (node, at.clone());
            let mut state = self.state();
            if !state.paths.contains(&entry) {
                state.paths.push(entry);
            }
        }
        let made = self.machine(node).make_dirs(path).await;
        made.map_err(|why| Stop::NotApplicable(format!("this machine cannot make {path}: {why}")))
    }

    /// Makes a symbolic link, to be removed at the end.
    pub(crate) async fn link(&self, node: usize, to: &str, at: &str) -> Outcome {
        self.state().paths.push((node, at.to_owned()));
        let made = self.machine(node).link(to, at).await;
        made.map_err(|why| Stop::NotApplicable(format!("this machine cannot make a link at {at}: {why}")))
    }

    pub(crate) fn stage_request(
        &self,
        volume: &Volume,
        node: usize,
        context: &BTreeMap<String, String>,
    ) -> csi::NodeStageVolumeRequest {
        csi::NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: context.clone(),
            staging_target_path: self.stage_path(&volume.name, node),
            volume_capability: Some(volume.capability.clone()),
            volume_context: volume.answer.volume_context.clone(),
            ..csi::NodeStageVolumeRequest::default()
        }
    }

    /// Attaches and stages a volume as far as the driver does that. The directory is there afterwards.
    pub(crate) async fn staged(&self, volume: &Volume, node: usize) -> Result<InUse, Stop> {
        let context = self.attach(volume, node).await?;
        let stage = self.stage_request(volume, node, &context);
        if self.stages() {
            self.dir(node, &stage.staging_target_path).await?;
            self.ok_on(node, stage.clone()).await?;
        }
        let pod = self.name(&format!("pod-on-{node}"));
        let mut place = InUse {
            node,
            publish: csi::NodePublishVolumeRequest {
                volume_id: volume.id.clone(),
                publish_context: context.clone(),
                staging_target_path: if self.stages() {
                    stage.staging_target_path.clone()
                } else {
                    String::new()
                },
                target_path: self.target_path(&pod, volume.is_block(), node),
                volume_capability: Some(volume.capability.clone()),
                volume_context: volume.answer.volume_context.clone(),
                ..csi::NodePublishVolumeRequest::default()
            },
            context,
            stage: self.stages().then_some(stage),
            pod,
        };
        place.publish.publish_context.clone_from(&place.context);
        self.parent(node, &place.publish.target_path).await?;
        Ok(place)
    }

    /// Makes the parent of a target path, as the caller has to.
    pub(crate) async fn parent(&self, node: usize, target: &str) -> Outcome {
        let parent = target.rsplit_once('/').map_or("/", |(parent, _)| parent);
        self.dir(node, parent).await
    }

    /// Brings a volume all the way to a pod.
    pub(crate) async fn up(&self, volume: &Volume, node: usize) -> Result<InUse, Stop> {
        let place = self.staged(volume, node).await?;
        self.ok_on(node, place.publish.clone()).await?;
        Ok(place)
    }

    /// A second pod on the same node; nothing is published yet.
    pub(crate) async fn second_pod(&self, volume: &Volume, place: &InUse) -> Result<InUse, Stop> {
        let pod = self.name("second-pod");
        let mut second = place.clone();
        second.publish.target_path = self.target_path(&pod, volume.is_block(), place.node);
        second.pod = pod;
        self.parent(place.node, second.target()).await?;
        Ok(second)
    }

    /// Takes a volume from its pod and its node.
    pub(crate) async fn down(&self, volume: &Volume, place: &InUse) -> Outcome {
        self.unpublish(volume, place).await?;
        self.unstage(volume, place).await?;
        if self.has(ControllerRpc::PublishUnpublishVolume) {
            self.ok(self.detach_request(volume, place.node)).await?;
        }
        Ok(())
    }

    pub(crate) async fn unpublish(&self, volume: &Volume, place: &InUse) -> Outcome {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: place.target().to_owned(),
        };
        self.ok_on(place.node, request).await.map(drop)
    }

    pub(crate) async fn unstage(&self, volume: &Volume, place: &InUse) -> Outcome {
        if let Some(stage) = &place.stage {
            self.ok_on(place.node, unstage_request(volume, stage)).await?;
        }
        Ok(())
    }

    pub(crate) async fn delete(&self, volume: &Volume) -> Outcome {
        self.ok(delete_request(&volume.id)).await.map(drop)
    }

    /// Makes a snapshot and waits until volumes can be made of it.
    pub(crate) async fn snapshot(&self, what: &str, volume: &Volume) -> Result<csi::Snapshot, Stop> {
        let request = self.snapshot_request(what, volume);
        for _ in 0..TRIES {
            let Some(snapshot) = self.ok(request.clone()).await?.snapshot else {
                return broken("CreateSnapshot answered without a snapshot");
            };
            if snapshot.ready_to_use {
                return Ok(snapshot);
            }
            self.sleep(PAUSE * 5).await;
        }
        Err(Stop::NotApplicable(
            "the snapshot did not become ready to use in time".to_owned(),
        ))
    }

    pub(crate) fn snapshot_request(&self, what: &str, volume: &Volume) -> csi::CreateSnapshotRequest {
        csi::CreateSnapshotRequest {
            source_volume_id: volume.id.clone(),
            name: self.name(what),
            parameters: self.settings.snapshot_parameters.clone(),
            ..csi::CreateSnapshotRequest::default()
        }
    }

    /// Kills the driver and starts it again.
    pub(crate) async fn restart(&self) -> Outcome {
        match self.driver.restart().await {
            Ok(()) => Ok(()),
            Err(why) => broken(format!("the driver did not come back after a restart: {why}")),
        }
    }

    /// Does the driver answer at all?
    pub(crate) async fn answers(&self, within: Duration) -> bool {
        let request = csi::GetPluginInfoRequest {};
        let answer = request.send(self.driver.wire(Side::Controller));
        matches!(
            select(answer, self.driver.sleep(within)).await,
            Either::Left((Ok(_), _))
        )
    }

    /// What was made is gone with the driver.
    pub(crate) fn forget(&self) {
        self.state().books = Books::default();
    }

    /// Undoes what the check did, newest first, and looks for what stays on the machines.
    pub(crate) async fn clean_up(&self) -> Outcome {
        self.state().undoing = true;
        let mut outcome = Ok(());
        for _ in 0..2 {
            outcome = Ok(());
            let undos = self.state().books.undos();
            for undo in undos {
                let undone = undo.perform(self).await;
                if outcome.is_ok() {
                    outcome = undone.map_err(|stop| match stop {
                        Stop::Broken(text) => Stop::Broken(format!("while cleaning up: {text}")),
                        other => other,
                    });
                }
            }
            if outcome.is_ok() {
                break;
            }
        }
        let stays = self.stays().await;
        outcome.and(stays)
    }

    /// Removes the lab's directories, and says what of the driver's is left in them.
    async fn stays(&self) -> Outcome {
        let mut paths = std::mem::take(&mut self.state().paths);
        paths.sort_by_key(|(_, path)| std::cmp::Reverse(path.len()));
        let mut left = Vec::new();
        for (node, path) in &paths {
            let machine = self.machine(*node);
            // Every check has its places below these: what an earlier one left there was its finding.
            let is_shared = ["pods", "plugins"].iter().any(|name| *path == self.below(*node, name));
            if is_shared {
                let _ = machine.remove(path).await;
                continue;
            }
            for mount in machine.mounts_below(path).await.unwrap_or_default() {
                left.push(format!("a mount at {mount}"));
            }
            if let Err(why) = machine.remove(path).await {
                left.push(format!("{path}: {why}"));
            }
        }
        left.sort();
        left.dedup();
        // What lies above something that stays cannot be removed either.
        expect(left.is_empty(), || format!("left over on the node: {}", left[0]))
    }

    /// So many calls at once. None of the futures is dropped before its end.
    pub(crate) async fn at_once<R: Unary>(&self, requests: Vec<R>) -> Vec<Result<R::Answer, NoAnswer>> {
        join_all(requests.into_iter().map(|request| self.call(request))).await
    }
}

/// Why a call brought nothing.
#[derive(Clone, Debug)]
pub(crate) enum NoAnswer {
    Refused(Status),
    Hung(String),
}

impl NoAnswer {
    pub fn unexpected<R: Unary>(self, wanted: &str) -> Stop {
        match self {
            NoAnswer::Refused(status) => Stop::Broken(format!(
                "{} answered {} ({}), {wanted}",
                R::METHOD,
                spell(status.code()),
                status.message()
            )),
            NoAnswer::Hung(text) => Stop::Hung(text),
        }
    }

    pub fn code(&self) -> Option<Code> {
        match self {
            NoAnswer::Refused(status) => Some(status.code()),
            NoAnswer::Hung(_) => None,
        }
    }
}

/// Two answers to one request have to be equal in every field.
pub(crate) fn same<R: Unary>(first: &R::Answer, second: &R::Answer) -> Outcome {
    expect(first == second, || {
        let found = differences(&R::shown_answer(first), &R::shown_answer(second));
        format!(
            "{} answered differently the second time: {}",
            R::METHOD,
            found.join("; ")
        )
    })
}

/// What the link saw behind the driver's back before and after.
pub(crate) fn leftovers(before: Option<&[String]>, after: Option<&[String]>) -> Outcome {
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(());
    };
    let new: Vec<&String> = after.iter().filter(|one| !before.contains(one)).collect();
    expect(new.is_empty(), || format!("left over: {new:?}"))
}

pub(crate) fn volume_of(request: csi::CreateVolumeRequest, answer: csi::CreateVolumeResponse) -> Result<Volume, Stop> {
    let Some(answer) = answer.volume else {
        return broken("CreateVolume answered without a volume");
    };
    if answer.volume_id.is_empty() {
        return broken("CreateVolume answered without a volume_id");
    }
    Ok(Volume {
        id: answer.volume_id.clone(),
        capability: request.volume_capabilities.first().cloned().unwrap_or_default(),
        name: request.name.clone(),
        answer,
        request,
    })
}

pub(crate) fn range(required_bytes: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes,
        limit_bytes: 0,
    })
}

pub(crate) fn delete_request(volume_id: &str) -> csi::DeleteVolumeRequest {
    csi::DeleteVolumeRequest {
        volume_id: volume_id.to_owned(),
        ..csi::DeleteVolumeRequest::default()
    }
}

pub(crate) fn unstage_request(volume: &Volume, stage: &csi::NodeStageVolumeRequest) -> csi::NodeUnstageVolumeRequest {
    csi::NodeUnstageVolumeRequest {
        volume_id: volume.id.clone(),
        staging_target_path: stage.staging_target_path.clone(),
    }
}

/// A code as the specification spells it.
pub fn spell(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
