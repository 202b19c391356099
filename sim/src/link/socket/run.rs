//! One run around an outside driver: a directory, an agent on each node, the driver's processes, and what became of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::transport::Channel;
use wavetank_agent::wire::{Answer, Ask};
use wavetank_proto::csi::v1 as csi;

use super::flights::Flights;
use super::ground::{Place, Powered, Way};
use super::names::Names;
use super::process::Process;
use super::profile::ProcessShape;
use super::{Outside, OutsideMachine};
use crate::host::Origin;

/// One run around an outside driver. Ending it ends every process of it.
pub struct Run {
    outside: Arc<Outside>,
    directory: PathBuf,
    nodes: Mutex<BTreeMap<String, Agent>>,
    news: Mutex<News>,
    writers: Arc<Mutex<BTreeMap<String, Arc<Origin>>>>,
    /// The way to the process that serves the sidecars, in its present life.
    pub(super) speaker: Mutex<Option<Channel>>,
    /// How often nodes were booted again.
    booted: Mutex<BTreeMap<String, u64>>,
    pub(super) flights: Arc<Flights>,
}

enum Agent {
    Up(Box<dyn Powered>),
    Down,
}

/// What is kept of a run that did not hold.
const KEPT: &[&str] = &["driver.log", "agent.log"];

#[derive(Default)]
pub(super) struct News {
    pub(super) hung: Option<String>,
    pub(super) unrepeatable: Vec<String>,
    pub(super) broken: Vec<String>,
    /// What happens from now on is no part of the run.
    pub(super) closes: bool,
    over: bool,
    /// Somebody was told where its output lies.
    keeps: bool,
}

impl Run {
    pub(super) fn new(outside: Arc<Outside>, directory: PathBuf) -> Run {
        Run {
            outside,
            directory,
            nodes: Mutex::default(),
            news: Mutex::default(),
            writers: Arc::default(),
            speaker: Mutex::default(),
            booted: Mutex::default(),
            flights: Arc::default(),
        }
    }

    /// Until drivers have done in real time whatever they were asked: who looks at what they hold must not see how far they are just now.
    pub(super) fn lull(&self) {
        self.flights.lull();
    }

    /// The writers of the run, by what their blocks say of them: a volume's blocks may be read on any node.
    pub(super) fn writers(&self) -> Arc<Mutex<BTreeMap<String, Arc<Origin>>>> {
        Arc::clone(&self.writers)
    }

    /// The driver.
    pub fn outside(&self) -> &Arc<Outside> {
        &self.outside
    }

    /// The machine of a node.
    pub fn machine(self: &Arc<Self>, node: &str, driver: &str) -> OutsideMachine {
        OutsideMachine::new(Arc::clone(self), node, self.names(node, driver))
    }

    /// A process of the driver; it does not run yet.
    pub fn process(self: &Arc<Self>, node: &str, shape: &ProcessShape, driver: &str, speaks: bool) -> Arc<Process> {
        Arc::new(Process {
            run: Arc::clone(self),
            place: self.place(node),
            shape: shape.clone(),
            names: self.names(node, driver),
            speaks,
            state: Mutex::default(),
        })
    }

    fn names(&self, node: &str, driver: &str) -> Names {
        Names {
            kubelet: self.place(node).kubelet(),
            inside: driver.to_owned(),
        }
    }

    /// Where a node lives.
    pub fn place(&self, node: &str) -> Place {
        self.outside.ground.place(&self.directory, node)
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Agent>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent of a node; the first question starts it. Nothing if the node is down.
    pub(super) fn ask(&self, node: &str, ask: &Ask) -> Option<Answer> {
        if self.is_over() {
            return None;
        }
        let mut nodes = self.nodes();
        if !nodes.contains_key(node) {
            match self.outside.boot(&self.place(node)) {
                Ok(powered) => nodes.insert(node.to_owned(), Agent::Up(powered)),
                Err(why) => {
                    self.hang(why);
                    return None;
                }
            };
        }
        let Some(Agent::Up(powered)) = nodes.get_mut(node) else {
            return None;
        };
        match powered.ask(ask) {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.hang(format!("{error} ({node})"));
                None
            }
        }
    }

    /// The way to the sockets of a node, if they are not this machine's.
    pub(super) fn way(&self, node: &str) -> Option<Way> {
        match self.nodes().get(node) {
            Some(Agent::Up(powered)) => powered.way(),
            _ => None,
        }
    }

    /// The node loses its power: its processes are killed, its mounts are gone, and the loop devices that showed its files.
    pub(super) fn crash(&self, node: &str) {
        let before = self.nodes().insert(node.to_owned(), Agent::Down);
        if let Some(Agent::Up(powered)) = before {
            powered.end();
        }
    }

    /// The node stands still, or goes on, if it can. What it was asked before it has answered by then.
    pub(super) fn pause(&self, node: &str, still: bool) {
        self.lull();
        let paused = match self.nodes().get_mut(node) {
            Some(Agent::Up(powered)) => powered.pause(still),
            _ => Ok(()),
        };
        if let Err(why) = paused {
            self.hang(format!(
                "{node} does not {}: {why}",
                if still { "stand still" } else { "go on" }
            ));
        }
    }

    /// The devices of volumes on the node fail, or work again. What it was asked before it has answered by then.
    pub(super) fn fail_devices(&self, node: &str, failing: bool) {
        self.lull();
        let place = self.place(node);
        if let Err(why) = self.outside.ground.fail_devices(&place, failing) {
            let what = if failing { "do not fail" } else { "do not work again" };
            self.hang(format!("the devices of {node} {what}: {why}"));
        }
    }

    /// The node has its power again.
    pub(super) fn boot(&self, node: &str) {
        let mut nodes = self.nodes();
        if matches!(nodes.get(node), Some(Agent::Down)) {
            nodes.remove(node);
            let mut booted = self.booted.lock().unwrap_or_else(PoisonError::into_inner);
            *booted.entry(node.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn boots(&self, node: &str) -> u64 {
        let booted = self.booted.lock().unwrap_or_else(PoisonError::into_inner);
        1 + booted.get(node).copied().unwrap_or(0)
    }

    /// The loop devices that show files of the run's nodes, as sentences' subjects.
    pub fn loops(&self) -> Vec<String> {
        let nodes: Vec<String> = self.nodes().keys().cloned().collect();
        let mut found = Vec::new();
        for node in nodes {
            let place = self.place(&node).inside.display().to_string();
            if let Some(Answer::Pairs(pairs)) = self.ask(&node, &Ask::Loops(place.clone())) {
                let file = |file: String| file.replace(&place, "");
                found.extend(
                    pairs
                        .into_iter()
                        .map(|(_, f)| format!("a loop device of {} on {node}", file(f))),
                );
            }
        }
        found
    }

    /// The nodes that are up, the controller's place among them.
    pub(super) fn places(&self) -> Vec<String> {
        let nodes = self.nodes();
        let up = nodes.iter().filter(|(_, agent)| matches!(agent, Agent::Up(_)));
        up.map(|(node, _)| node.clone()).collect()
    }

    pub(super) fn is_up(&self, node: &str) -> bool {
        !matches!(self.nodes().get(node), Some(Agent::Down))
    }

    /// From now on nothing is waited for: the run has no verdict.
    pub(super) fn hang(&self, why: String) {
        let mut news = self.news();
        news.hung.get_or_insert(why);
    }

    pub(super) fn is_over(&self) -> bool {
        let news = self.news();
        news.over || news.hung.is_some()
    }

    /// The run is done: what ends from now on ends because of that.
    pub fn closes(&self) {
        self.news().closes = true;
    }

    /// Why the run has no verdict, if it has none.
    pub fn hung(&self) -> Option<String> {
        self.news().hung.clone()
    }

    /// What happened in real time only: the run may differ when it is repeated.
    pub fn unrepeatable(&self) -> Vec<String> {
        self.news().unrepeatable.clone()
    }

    /// Connections that the driver broke, as sentences.
    pub fn broken(&self) -> Vec<String> {
        self.news().broken.clone()
    }

    /// The volumes that the backend holds, if the profile says how to ask. `node` is where the controller runs.
    pub fn inventory(self: &Arc<Self>, node: &str) -> Option<Result<Vec<String>, String>> {
        let shape = self.outside.profile.inventory.clone()?;
        let process = self.process(node, &shape, "", false);
        let ask = Ask::Run {
            command: process.fill(&shape.command),
            env: process.environment(),
            directory: process.place.below("state"),
        };
        Some(match self.ask(node, &ask) {
            Some(Answer::Output(Some(0), text)) => Ok(text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect()),
            Some(Answer::Output(status, text)) => Err(format!("the inventory command ended with {status:?}: {text}")),
            Some(Answer::Refused(_, why)) => Err(why),
            other => Err(format!("the inventory command cannot be run: {other:?}")),
        })
    }

    /// The volumes that ListVolumes tells of, if the driver can; it is asked behind the cluster's back.
    pub fn listed(&self) -> Option<Result<Vec<String>, String>> {
        if !self.outside.facts().controller.contains("LIST_VOLUMES") {
            return None;
        }
        let speaker = self.speaker.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (send, receive) = std::sync::mpsc::channel();
        let patience = self.outside.patience();
        self.outside.threads.spawn(async move {
            let listed = tokio::time::timeout(patience, list(speaker)).await;
            let _ = send.send(listed.unwrap_or_else(|_| Err("ListVolumes was not answered".to_owned())));
        });
        receive.recv().ok()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.news().over
    }

    /// Ends every process and every node of the run. Its directory stays until [`Run::clear`].
    pub fn end(&self) {
        self.news().over = true;
        let nodes = std::mem::take(&mut *self.nodes());
        for agent in nodes.into_values() {
            if let Agent::Up(powered) = agent {
                powered.end();
            }
        }
    }

    /// What the driver's processes said, by node. Everything else that the run has left is removed.
    pub fn logs(&self) -> Vec<(String, PathBuf)> {
        self.news().keeps = true;
        let mut logs = Vec::new();
        for node in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            for entry in fs::read_dir(node.path()).into_iter().flatten().flatten() {
                let kept = KEPT.iter().any(|name| entry.file_name() == *name);
                if !kept {
                    // What does not go is the system's to clean.
                    let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
                }
            }
            let log = node.path().join(KEPT[0]);
            if log.is_file() {
                logs.push((node.file_name().to_string_lossy().into_owned(), log));
            }
        }
        logs.sort();
        logs
    }

    /// Removes what the run has left on this machine.
    pub fn clear(&self) {
        // A directory that does not go is the system's to clean.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A run that nobody has ended, because somebody panicked, leaves nothing.
impl Drop for Run {
    fn drop(&mut self) {
        self.end();
        if !self.news().keeps {
            self.clear();
        }
    }
}

/// Asks for every page.
async fn list(channel: Channel) -> Result<Vec<String>, String> {
    let mut client = csi::controller_client::ControllerClient::new(channel);
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let request = csi::ListVolumesRequest {
            max_entries: 0,
            starting_token: std::mem::take(&mut token),
        };
        let page = client.list_volumes(request).await;
        let page = page
            .map_err(|status| format!("ListVolumes answered {:?}: {}", status.code(), status.message()))?
            .into_inner();
        found.extend(
            page.entries
                .into_iter()
                .filter_map(|entry| Some(entry.volume?.volume_id)),
        );
        token = page.next_token;
        if token.is_empty() {
            return Ok(found);
        }
    }
}
