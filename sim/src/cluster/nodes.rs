//! The nodes as machines: what survives kubelet there, and the plugin sockets between registrars and kubelet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::{Cluster, ProcessId, Who};
use crate::control::{PluginInfo, RegistrationOp, Signal};
use crate::host::{Loss, Machine, ModelDisk};
use crate::link::{CallError, MachineAnswer, MachineError, MachineOp};
use crate::trace::{Record, What};

/// A node to be added to a cluster.
pub struct NodeSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Its machine.
    pub machine: Machine,
    /// The disks of the driver processes on it: they lose unsynced bytes with it.
    pub disks: Vec<ModelDisk>,
}

/// What a power loss spares of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spared {
    Nothing,
    /// The first half of the writes.
    Half,
    /// The same, and half of the write in the middle.
    HalfTorn,
}

impl Spared {
    /// Of so many writes.
    pub fn of(self, writes: usize) -> Loss {
        match self {
            Spared::Nothing => Loss::All,
            Spared::Half => Loss::Keep(writes / 2),
            Spared::HalfTorn => Loss::Tear(writes / 2),
        }
    }
}

struct Node {
    machine: Machine,
    disks: Vec<ModelDisk>,
    /// Plugin sockets by path: who listens, and as what.
    sockets: BTreeMap<String, (ProcessId, PluginInfo)>,
}

#[derive(Default)]
pub(super) struct Nodes(BTreeMap<Arc<str>, Node>);

/// The directory in which kubelet looks for plugin sockets.
const REGISTRY: &str = "/var/lib/kubelet/plugins_registry";

/// How long trivial containers take to start and to stop.
const CONTAINER_START: Duration = Duration::from_millis(100);
const CONTAINER_STOP: Duration = Duration::from_millis(200);

impl Cluster {
    /// From now on it is known where a process of a driver keeps its ledger.
    pub fn add_ledger(&mut self, process: impl Into<Arc<str>>, disk: ModelDisk) {
        self.ledgers.push((process.into(), disk));
    }

    /// Where processes of drivers keep their ledgers.
    pub fn ledgers(&self) -> &[(Arc<str>, ModelDisk)] {
        &self.ledgers
    }

    /// Adds the machine of a node.
    pub fn add_node(&mut self, spec: NodeSpec) {
        self.nodes.0.insert(
            spec.name,
            Node {
                machine: spec.machine,
                disks: spec.disks,
                sockets: BTreeMap::new(),
            },
        );
    }

    /// The machine of a node.
    pub fn machine(&self, node: &str) -> Option<&Machine> {
        Some(&self.nodes.0.get(node)?.machine)
    }

    pub(super) fn machine_time(&self, op: &MachineOp) -> Duration {
        match op {
            MachineOp::StartPod { .. } => CONTAINER_START,
            MachineOp::StopPod { .. } => CONTAINER_STOP,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn machine_op(&mut self, who: Who, op: &MachineOp) -> Result<MachineAnswer, MachineError> {
        let process = &self.processes[who.process.0 as usize];
        let (name, node) = (Arc::clone(&process.name), process.node.clone());
        let node = node.and_then(|n| self.nodes.0.get_mut(&n)).ok_or(MachineError::Down)?;
        let result = node.machine.perform(self.board.now(), op);
        if self.trace.is_on() {
            let what = What::Machine {
                op: Arc::new(op.clone()),
                error: result.as_ref().err().cloned(),
            };
            self.trace.push(Record {
                at: self.board.now(),
                process: name,
                what,
            });
        }
        result
    }

    pub(super) fn registration(&mut self, who: Who, op: &RegistrationOp) -> Result<Option<PluginInfo>, CallError> {
        let Some(node) = self.processes[who.process.0 as usize].node.clone() else {
            return Err(refused());
        };
        match op {
            RegistrationOp::Listen(info) => {
                let path = format!("{REGISTRY}/{}-reg.sock", info.name);
                self.close_socket(&node, &path);
                let sockets = &mut self.nodes.0.get_mut(&node).ok_or_else(refused)?.sockets;
                sockets.insert(path.clone(), (who.process, info.clone()));
                self.tell_kubelet(&node, Signal::SocketCreated(path));
                Ok(None)
            }
            RegistrationOp::Close => {
                self.close_sockets_of(who.process);
                Ok(None)
            }
            RegistrationOp::GetInfo { socket } => self.listener(&node, socket).map(|(_, info)| Some(info)),
            RegistrationOp::Notify { socket, error } => {
                let (registrar, _) = self.listener(&node, socket)?;
                if let Some(error) = error {
                    self.signal(registrar, Signal::RegistrationFailed(error.clone()));
                }
                Ok(None)
            }
        }
    }

    pub(super) fn has_node(&self, node: &str) -> bool {
        self.nodes.0.contains_key(node)
    }

    /// The machines of all nodes, by name.
    pub fn machines(&self) -> impl Iterator<Item = (&Arc<str>, &Machine)> {
        self.nodes.0.iter().map(|(name, node)| (name, &node.machine))
    }

    /// The node loses its power: mounts, devices, containers and unsynced bytes are gone, plugin sockets too.
    pub(super) fn crash_machine(&mut self, node: &str, spared: Spared) {
        let now = self.board.now();
        if let Some(state) = self.nodes.0.get_mut(node) {
            self.data.crash(&state.machine, now, spared);
            state
                .disks
                .iter()
                .for_each(|disk| disk.power_loss(spared.of(disk.unsynced())));
            state.sockets.clear();
        }
    }

    /// The node has its power again.
    pub(super) fn boot_machine(&mut self, node: &str) {
        if let Some(state) = self.nodes.0.get(node) {
            state.machine.boot();
        }
    }

    /// A registrar removes its sockets.
    pub(super) fn close_sockets_of(&mut self, registrar: ProcessId) {
        let Some(node) = self.processes[registrar.0 as usize].node.clone() else {
            return;
        };
        let Some(state) = self.nodes.0.get(&node) else { return };
        let mine: Vec<String> = state
            .sockets
            .iter()
            .filter(|(_, (p, _))| *p == registrar)
            .map(|(path, _)| path.clone())
            .collect();
        mine.iter().for_each(|path| self.close_socket(&node, path));
    }

    /// Removes a plugin socket, as SIGTERM or a person does. Nothing happens when it is not there.
    pub fn close_socket(&mut self, node: &str, path: &str) {
        let Some(state) = self.nodes.0.get_mut(node) else {
            return;
        };
        if state.sockets.remove(path).is_some() {
            self.tell_kubelet(node, Signal::SocketRemoved(path.to_owned()));
        }
    }

    fn listener(&self, node: &str, socket: &str) -> Result<(ProcessId, PluginInfo), CallError> {
        let (registrar, info) = self
            .nodes
            .0
            .get(node)
            .and_then(|n| n.sockets.get(socket))
            .ok_or_else(refused)?;
        // A killed registrar leaves its socket file behind: nobody answers there.
        let alive = self.liveness(*registrar) == super::Liveness::Running;
        if alive {
            Ok((*registrar, info.clone()))
        } else {
            Err(refused())
        }
    }

    fn tell_kubelet(&mut self, node: &str, signal: Signal) {
        if let Some(kubelet) = self.node_watchers.get(node).copied() {
            self.signal(kubelet, signal);
        }
    }

    /// A kubelet has just started: it finds the sockets that are there.
    pub(super) fn announce_sockets(&mut self, kubelet: ProcessId) {
        let process = &self.processes[kubelet.0 as usize];
        if !process.node_bound {
            return;
        }
        let node = process.node.clone().expect("a node-bound process has a node");
        let found: Vec<String> = self
            .nodes
            .0
            .get(&node)
            .into_iter()
            .flat_map(|n| n.sockets.keys().cloned())
            .collect();
        for path in found {
            self.signal(kubelet, Signal::SocketCreated(path));
        }
    }
}

fn refused() -> CallError {
    CallError {
        status: Status::unavailable("connection refused"),
        disconnected: true,
    }
}
