//! What a run has shown so far of drivers, volumes and their ways to nodes: read off the records, one by one, at a cost that follows activity.
//!
//! ```text
//! attached   No ──ControllerPublish──► Maybe ──OK──► Yes ──ControllerUnpublish──► Maybe ──OK──► No      staged, published: alike
//! ```
//!
//! It is what the cluster can know from the answers it had, not what the storage system or a machine holds. Oracles compare the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

use super::Lapses;
use crate::api::{Object, Write, fields, names};
use crate::cluster::Cluster;
use crate::link::{Call, CsiReply, CsiRequest, Socket};
use crate::runtime::Time;
use crate::trace::{ProcessChange, Record, What};

/// What the answers so far say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is not so.
    #[default]
    No,
    /// Nobody can tell: the call is under way, or failed with a code that leaves it open.
    Maybe,
    /// It is so.
    Yes,
}

/// A volume's way to one node.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Attached by the controller.
    pub attached: State,
    /// A detach was asked for since the last attach was acknowledged.
    pub detach_asked: bool,
    /// Staged on the node.
    pub staged: State,
    /// Published on the node, by target path.
    pub published: BTreeMap<String, State>,
    /// The boot of the machine to which `staged` and `published` belong.
    boots: u64,
}

/// A volume of a driver.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// The name that CreateVolume was asked for.
    pub name: Option<String>,
    /// Whether one node at a time may use it, as far as its access modes were seen.
    pub single_node: Option<bool>,
    /// DeleteVolume was sent, and CreateVolume has not handed it out since.
    pub delete_asked: bool,
    /// Calls of DeleteVolume that were not answered: they may come after any answer that is given meanwhile, also if their caller is dead.
    going: u32,
    /// Its ways to nodes.
    pub ways: BTreeMap<String, Way>,
}

/// A driver.
#[derive(Clone, Debug, Default)]
pub struct Driver {
    /// `STAGE_UNSTAGE_VOLUME`; unknown until the driver was asked.
    pub stages: Option<bool>,
    /// `PUBLISH_UNPUBLISH_VOLUME`; unknown until the driver was asked.
    pub attaches: Option<bool>,
    /// Its volumes, by handle.
    pub volumes: BTreeMap<String, Volume>,
    /// Snapshots whose deletion was asked for.
    pub snapshots_to_go: BTreeSet<String>,
    /// The names of the nodes by the ids that the driver gave them.
    nodes: BTreeMap<String, String>,
}

impl Driver {
    /// The Kubernetes name of a node that the driver calls so.
    pub fn node<'a>(&'a self, id: &'a str) -> &'a str {
        self.nodes.get(id).map_or(id, String::as_str)
    }

    /// A volume by its handle.
    pub fn volume(&self, handle: &str) -> Option<&Volume> {
        self.volumes.get(handle)
    }
}

/// A call that nobody has answered yet.
#[derive(Clone, Debug)]
pub struct Open {
    /// The caller.
    pub process: Arc<str>,
    /// The call.
    pub call: Arc<Call>,
    /// What was so of its object when it was sent.
    before: State,
}

/// Everything that is known.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    drivers: BTreeMap<Arc<str>, Driver>,
    open: BTreeMap<u64, Open>,
    /// Calls whose answers are not the driver's own.
    tampered: BTreeSet<u64>,
    latest: Option<u64>,
    /// Volumes whose PersistentVolume went, or would go, without them.
    retained: BTreeSet<String>,
    /// Who asked last for a volume of this name, while it has no PersistentVolume.
    unfinished: BTreeMap<String, Arc<str>>,
    /// Names of volumes whose provisioner died before they had a PersistentVolume.
    orphaned: BTreeSet<String>,
    /// Where Kubernetes itself has lost count.
    lapses: Lapses,
    /// Nodes on which a kubelet died.
    restarted: BTreeSet<String>,
    /// Kubelet's staging records that were there when a kubelet of the node died, by node.
    abandoned: BTreeSet<(String, String)>,
    /// When a node was last seen as anything but ready.
    troubled: BTreeMap<String, Time>,
}

/// What faults say where they answer for a driver.
const INJECTED: &str = "injected by a fault";

/// The node on which a process runs, from its name.
pub fn node_of(process: &str) -> Option<&str> {
    process.split_once('/').map(|(_, node)| node)
}

impl Facts {
    /// A driver by its name.
    pub fn driver(&self, name: &str) -> Option<&Driver> {
        self.drivers.get(name)
    }

    /// Every driver.
    pub fn drivers(&self) -> impl Iterator<Item = &Driver> {
        self.drivers.values()
    }

    /// A volume by driver and handle.
    pub fn volume(&self, driver: &str, handle: &str) -> Option<&Volume> {
        self.driver(driver)?.volume(handle)
    }

    /// A volume's way to a node.
    pub fn way(&self, driver: &str, handle: &str, node: &str) -> Option<&Way> {
        self.volume(driver, handle)?.ways.get(node)
    }

    /// Calls under way, oldest first.
    pub fn open(&self) -> impl Iterator<Item = (u64, &Open)> {
        self.open.iter().map(|(id, open)| (*id, open))
    }

    /// Whether the answer to a call is the driver's own, and not an injected one.
    pub fn is_honest<T>(&self, call: u64, answer: &Result<T, Status>) -> bool {
        let by_fault = answer.as_ref().is_err_and(|status| status.message() == INJECTED);
        !by_fault && !self.tampered.contains(&call)
    }

    /// Whether a kubelet that died may have forgotten a volume on its node: it died between asking the driver to stage or unstage it and the answer, and
    /// reconstruction looks only into the directories of pods.
    pub fn may_be_forgotten(&self, node: &str) -> bool {
        let volumes = self.drivers.values().flat_map(|driver| driver.volumes.values());
        self.restarted.contains(node)
            && volumes
                .filter_map(|volume| volume.ways.get(node))
                .any(|way| way.staged != State::No)
    }

    /// Where Kubernetes itself has lost count.
    pub fn lapses(&self) -> &Lapses {
        &self.lapses
    }

    /// Whether a staging record was there when a kubelet of its node died: no pod's directory may lead the next one to it.
    pub fn is_abandoned(&self, node: &str, path: &str) -> bool {
        self.abandoned.iter().any(|(at, record)| at == node && record == path)
    }

    /// Volumes that are kept on purpose: their last PersistentVolume was to be retained.
    pub fn retained(&self) -> impl Iterator<Item = &str> {
        self.retained.iter().map(String::as_str)
    }

    /// Whether nobody knows of a volume any more: its provisioner died before it had a PersistentVolume, and its claim is gone. What is under way for a
    /// claim that was deleted is remembered by one process only.
    pub fn is_orphaned(&self, handle: &str, cluster: &Cluster) -> bool {
        let mut volumes = self.drivers.values().filter_map(|driver| driver.volume(handle));
        let known = volumes.find_map(|volume| volume.name.as_ref());
        let claimed = |name: &str| {
            let mut claims = cluster.api().list::<PersistentVolumeClaim>();
            claims.any(|claim| name.ends_with(fields::uid(&claim.metadata)))
        };
        match known {
            Some(name) => self.orphaned.contains(name) && !claimed(name),
            // No answer ever said which it is.
            None => self
                .orphaned
                .iter()
                .any(|name| !self.is_answered(name) && !claimed(name)),
        }
    }

    fn is_answered(&self, name: &str) -> bool {
        let mut volumes = self.drivers.values().flat_map(|driver| driver.volumes.values());
        volumes.any(|volume| volume.name.as_deref() == Some(name))
    }

    /// When a node was last seen not ready, tainted or gone.
    pub fn troubled(&self, node: &str) -> Option<Time> {
        self.troubled.get(node).copied()
    }

    /// Learns from one more record.
    pub(super) fn take(&mut self, record: &Record, cluster: &Cluster) {
        self.lapses.take(record, cluster);
        match &record.what {
            What::Call { id, call } => {
                let before = self.sent(&record.process, call, cluster);
                let open = Open {
                    process: Arc::clone(&record.process),
                    call: Arc::clone(call),
                    before,
                };
                self.open.insert(*id, open);
                self.latest = Some(*id);
            }
            What::Reply { id, call, result, .. } => {
                let before = self.open.remove(id).map_or(State::Maybe, |open| open.before);
                if let (CsiRequest::DeleteVolume(_), Some(volume)) = (&call.request, self.volume_mut(call)) {
                    volume.going = volume.going.saturating_sub(1);
                }
                match result {
                    Ok(reply) => self.granted(&record.process, call, reply),
                    Err(status) => self.refused(&record.process, call, status.code(), before),
                }
            }
            What::Fault(text) => self.fault(text),
            What::Process(ProcessChange::Killed | ProcessChange::Exited(_)) => {
                self.open.retain(|_, open| open.process != record.process);
                if let Some(node) = record.process.strip_prefix("kubelet/") {
                    self.restarted.insert(node.to_owned());
                    self.abandon(node, cluster);
                }
                self.bereave(&record.process);
            }
            What::Write {
                write,
                result: Ok(written),
                ..
            } => {
                if let (Write::Delete(_), Object::Node(node)) = (&**write, &written.object) {
                    self.troubled.insert(fields::name(&node.metadata).to_owned(), record.at);
                }
                self.object(&written.object, record.at);
            }
            What::Write { .. } | What::Process(_) | What::Machine { .. } | What::Step(_) => {}
        }
    }

    /// A process died: what it made and did not write down is an orphan.
    fn bereave(&mut self, process: &str) {
        self.unfinished.retain(|name, asker| {
            let is_its = **asker == *process;
            if is_its {
                self.orphaned.insert(name.clone());
            }
            !is_its
        });
    }

    fn abandon(&mut self, node: &str, cluster: &Cluster) {
        let machine = cluster.machine(node);
        let records = machine.map(crate::host::Machine::staging_records).unwrap_or_default();
        self.abandoned
            .extend(records.into_iter().map(|path| (node.to_owned(), path)));
    }

    /// The trace says of an injected answer which call it struck by standing right behind it.
    fn fault(&mut self, text: &str) {
        let Some(id) = self.latest else { return };
        if self
            .open
            .get(&id)
            .is_some_and(|open| text.starts_with(open.call.request.method()))
        {
            self.tampered.insert(id);
        }
    }

    fn object(&mut self, object: &Object, now: Time) {
        if let Object::PersistentVolume(volume) = object
            && let Some((_, handle)) = fields::volume_handle(volume)
        {
            let name = fields::name(&volume.metadata);
            self.unfinished.remove(name);
            self.orphaned.remove(name);
            match fields::reclaim_policy(volume) {
                "Retain" => drop(self.retained.insert(handle.to_owned())),
                _ => drop(self.retained.remove(handle)),
            }
        }
        let Object::Node(node) = object else { return };
        let tainted = fields::taints(node)
            .iter()
            .any(|taint| taint.key == names::TAINT_OUT_OF_SERVICE);
        if tainted || fields::is_deleting(&node.metadata) || !fields::is_node_ready(node) {
            self.troubled.insert(fields::name(&node.metadata).to_owned(), now);
        }
    }

    fn driver_mut(&mut self, name: &Arc<str>) -> &mut Driver {
        self.drivers.entry(Arc::clone(name)).or_default()
    }

    fn volume_mut(&mut self, call: &Call) -> Option<&mut Volume> {
        let id = call.request.volume_id()?;
        let driver = self.driver_mut(&call.driver);
        if !driver.volumes.contains_key(id) {
            driver.volumes.insert(id.to_owned(), Volume::default());
        }
        driver.volumes.get_mut(id)
    }

    /// The way that a call is about, as of the machine's present boot.
    fn way_mut(&mut self, process: &str, call: &Call, cluster: &Cluster) -> Option<&mut Way> {
        let node = self.node_of_call(process, call)?;
        let boots = cluster.machine(&node).map_or(1, crate::host::Machine::boots);
        let way = self.volume_mut(call)?.ways.entry(node).or_default();
        if way.boots != boots {
            way.boots = boots;
            way.staged = State::No;
            way.published.clear();
        }
        Some(way)
    }

    /// The node that a call is about.
    pub fn node_of_call(&self, process: &str, call: &Call) -> Option<String> {
        let id = match &call.request {
            CsiRequest::ControllerPublishVolume(r) => &r.node_id,
            CsiRequest::ControllerUnpublishVolume(r) => &r.node_id,
            _ if call.socket == Socket::Node => return node_of(process).map(str::to_owned),
            _ => return None,
        };
        Some(
            self.driver(&call.driver)
                .map_or(id.as_str(), |driver| driver.node(id))
                .to_owned(),
        )
    }

    /// A call leaves: what was so before?
    fn sent(&mut self, process: &Arc<str>, call: &Call, cluster: &Cluster) -> State {
        match &call.request {
            CsiRequest::CreateVolume(request) => {
                self.orphaned.remove(&request.name);
                self.unfinished.insert(request.name.clone(), Arc::clone(process));
            }
            CsiRequest::DeleteVolume(_) => {
                if let Some(volume) = self.volume_mut(call) {
                    volume.delete_asked = true;
                    volume.going += 1;
                }
                return State::Maybe;
            }
            CsiRequest::DeleteSnapshot(request) => {
                let driver = self.driver_mut(&call.driver);
                driver.snapshots_to_go.insert(request.snapshot_id.clone());
                return State::Maybe;
            }
            CsiRequest::ControllerPublishVolume(r) => self.modes(call, r.volume_capability.iter()),
            CsiRequest::NodeStageVolume(r) => self.modes(call, r.volume_capability.iter()),
            CsiRequest::NodePublishVolume(r) => self.modes(call, r.volume_capability.iter()),
            CsiRequest::ControllerUnpublishVolume(r) if r.node_id.is_empty() => {
                let ways = self.volume_mut(call).map(|volume| volume.ways.values_mut());
                for way in ways.into_iter().flatten() {
                    way.detach_asked = true;
                    way.attached = way.attached.min(State::Maybe);
                }
                return State::Maybe;
            }
            _ => {}
        }
        let Some(way) = self.way_mut(process, call, cluster) else {
            return State::Maybe;
        };
        let (before, after) = match &call.request {
            CsiRequest::ControllerPublishVolume(_) => (way.attached, way.attached.max(State::Maybe)),
            CsiRequest::ControllerUnpublishVolume(_) => {
                way.detach_asked = true;
                (way.attached, way.attached.min(State::Maybe))
            }
            CsiRequest::NodeStageVolume(_) => (way.staged, way.staged.max(State::Maybe)),
            CsiRequest::NodeUnstageVolume(_) => (way.staged, way.staged.min(State::Maybe)),
            CsiRequest::NodePublishVolume(r) => {
                let before = way.published.get(&r.target_path).copied().unwrap_or_default();
                (before, before.max(State::Maybe))
            }
            CsiRequest::NodeUnpublishVolume(r) => {
                let before = way.published.get(&r.target_path).copied().unwrap_or_default();
                (before, before.min(State::Maybe))
            }
            _ => return State::Maybe,
        };
        way.set(&call.request, after);
        before
    }

    fn granted(&mut self, process: &str, call: &Call, reply: &CsiReply) {
        match (&call.request, reply) {
            (CsiRequest::CreateVolume(request), CsiReply::CreateVolume(reply)) => self.created(call, request, reply),
            (_, CsiReply::NodeGetInfo(reply)) => {
                if let Some(node) = node_of(process) {
                    let driver = self.driver_mut(&call.driver);
                    driver.nodes.insert(reply.node_id.clone(), node.to_owned());
                }
            }
            (_, CsiReply::NodeGetCapabilities(reply)) => {
                use csi::node_service_capability::{Type, rpc};
                let stages = reply.capabilities.iter().any(|c| match &c.r#type {
                    Some(Type::Rpc(rpc)) => rpc.r#type() == rpc::Type::StageUnstageVolume,
                    None => false,
                });
                self.driver_mut(&call.driver).stages = Some(stages);
            }
            (_, CsiReply::ControllerGetCapabilities(reply)) => {
                use csi::controller_service_capability::{Type, rpc};
                let attaches = reply.capabilities.iter().any(|c| match &c.r#type {
                    Some(Type::Rpc(rpc)) => rpc.r#type() == rpc::Type::PublishUnpublishVolume,
                    None => false,
                });
                self.driver_mut(&call.driver).attaches = Some(attaches);
            }
            (CsiRequest::ControllerUnpublishVolume(r), _) if r.node_id.is_empty() => {
                let ways = self.volume_mut(call).map(|volume| volume.ways.values_mut());
                ways.into_iter().flatten().for_each(|way| way.attached = State::No);
            }
            (request, _) => self.settled(process, call, request.after_ok()),
        }
    }

    /// The answer says for certain what is so of what the call is about.
    fn settled(&mut self, process: &str, call: &Call, state: Option<State>) {
        let Some((node, state)) = self.node_of_call(process, call).zip(state) else {
            return;
        };
        let way = self.volume_mut(call).and_then(|volume| volume.ways.get_mut(&node));
        let Some(way) = way else { return };
        if matches!(call.request, CsiRequest::ControllerPublishVolume(_)) && state == State::Yes {
            way.detach_asked = false;
        }
        way.set(&call.request, state);
    }

    fn created(&mut self, call: &Call, request: &csi::CreateVolumeRequest, reply: &csi::CreateVolumeResponse) {
        let Some(made) = &reply.volume else { return };
        let driver = self.driver_mut(&call.driver);
        let volume = driver.volumes.entry(made.volume_id.clone()).or_default();
        volume.name = Some(request.name.clone());
        volume.delete_asked &= volume.going > 0;
        volume.single_node = Some(!request.volume_capabilities.iter().any(is_multi_node));
    }

    fn modes<'a>(&mut self, call: &Call, capabilities: impl Iterator<Item = &'a csi::VolumeCapability>) {
        let multi = capabilities.into_iter().any(is_multi_node);
        let Some(volume) = self.volume_mut(call) else { return };
        volume.single_node = Some(volume.single_node.unwrap_or(true) && !multi);
    }

    /// A final error leaves what was before; any other leaves it open. After one that left it open kubelet takes a final one for *it is not there*
    /// (Kubernetes 1.36, `markDeviceErrorState` and `markVolumeErrorState`): a driver answers one when it has cleaned up.
    fn refused(&mut self, process: &str, call: &Call, code: Code, before: State) {
        let begins = call.request.after_ok() == Some(State::Yes);
        let open = matches!(
            code,
            Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted
        );
        let concluded = before == State::Maybe && call.socket == Socket::Node;
        if begins && !open && (before == State::No || concluded) {
            self.settled(process, call, Some(State::No));
        }
    }
}

impl Way {
    /// Whether its node has it, as far as answers say: in a boot that is over nothing is staged or published any more.
    pub fn is_used(&self, node: &str, cluster: &Cluster) -> bool {
        let used = self.staged == State::Yes || self.published.values().any(|state| *state == State::Yes);
        used && cluster
            .machine(node)
            .is_none_or(|machine| machine.is_up() && machine.boots() == self.boots)
    }

    fn set(&mut self, request: &CsiRequest, state: State) {
        match request {
            CsiRequest::ControllerPublishVolume(_) | CsiRequest::ControllerUnpublishVolume(_) => self.attached = state,
            CsiRequest::NodeStageVolume(_) | CsiRequest::NodeUnstageVolume(_) => self.staged = state,
            CsiRequest::NodePublishVolume(csi::NodePublishVolumeRequest { target_path, .. })
            | CsiRequest::NodeUnpublishVolume(csi::NodeUnpublishVolumeRequest { target_path, .. }) => match state {
                State::No => drop(self.published.remove(target_path)),
                State::Maybe | State::Yes => drop(self.published.insert(target_path.clone(), state)),
            },
            _ => {}
        }
    }
}

/// What is so of the object of a request when it was answered with OK.
trait AfterOk {
    fn after_ok(&self) -> Option<State>;
}

impl AfterOk for CsiRequest {
    fn after_ok(&self) -> Option<State> {
        match self {
            CsiRequest::ControllerPublishVolume(_)
            | CsiRequest::NodeStageVolume(_)
            | CsiRequest::NodePublishVolume(_) => Some(State::Yes),
            CsiRequest::ControllerUnpublishVolume(_)
            | CsiRequest::NodeUnstageVolume(_)
            | CsiRequest::NodeUnpublishVolume(_) => Some(State::No),
            _ => None,
        }
    }
}

/// Whether a capability lets several nodes use the volume.
pub fn is_multi_node(capability: &csi::VolumeCapability) -> bool {
    let mode = capability.access_mode.map(|mode| mode.mode());
    matches!(
        mode,
        Some(Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter)
    )
}
