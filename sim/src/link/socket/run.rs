//! One run around an outside driver: a directory, an agent on each node, the driver's processes, and what became of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Shared, join_all};
use tonic::transport::{Channel, Endpoint};
use wavetank_agent::wire::{Answer, Ask};
use wavetank_proto::csi::v1 as csi;

use super::ground::{Place, Powered, Way};
use super::names::Names;
use super::profile::ProcessShape;
use super::wire::{Back, Wire};
use super::{Outside, OutsideMachine};
use crate::host::Origin;
use crate::link::layers::Sleeper;

/// How often a starting driver's socket is tried, in real time.
const TRY: Duration = Duration::from_millis(5);
/// How long it is tried before its process is looked at.
const TRIES: Duration = Duration::from_millis(200);
/// How long, in real time, a call waits for those of other methods that were sent before it.
const HEAD_START: Duration = Duration::from_millis(250);
/// How long for those of its own method.
const LEAD: Duration = Duration::from_millis(5);
/// How long after its death a driver's socket may have heirs.
const HEIRS: Duration = Duration::from_secs(2);

/// One run around an outside driver. Ending it ends every process of it.
pub struct Run {
    outside: Arc<Outside>,
    directory: PathBuf,
    nodes: Mutex<BTreeMap<String, Agent>>,
    news: Mutex<News>,
    writers: Arc<Mutex<BTreeMap<String, Arc<Origin>>>>,
    /// The way to the process that serves the sidecars, in its present life.
    speaker: Mutex<Option<Channel>>,
    /// How often nodes were booted again.
    booted: Mutex<BTreeMap<String, u64>>,
    flights: Arc<Flights>,
}

/// How many calls drivers work on in real time. Their answers may be due much later in virtual time.
#[derive(Default)]
struct Flights {
    count: Mutex<usize>,
    landed: Condvar,
}

/// A call that a driver works on in real time, until this is dropped.
pub(super) struct Flight {
    flights: Arc<Flights>,
    /// Canceled by the drop: those who wait for it see that it is over.
    _lands: oneshot::Sender<()>,
    /// The calls that were sent before this one: of other methods, and of its own.
    others: Vec<Landed>,
    kin: Vec<Landed>,
}

/// Completes when a call is over in real time.
type Landed = Shared<oneshot::Receiver<()>>;

impl Flight {
    /// Keeps the order of the run, which would else be that of the driver's threads: lets earlier calls of other methods be answered, if the driver is quick, and
    /// those of its own reach the driver. So a duplicate meets the call that it doubles, and a deletion comes after the creation that was sent before it.
    pub(super) async fn queue(&mut self) {
        // A slow driver gets the opposite call while it works, as it would in a cluster.
        let _ = tokio::time::timeout(HEAD_START, join_all(std::mem::take(&mut self.others))).await;
        let _ = tokio::time::timeout(LEAD, join_all(std::mem::take(&mut self.kin))).await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut count = self.flights.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        self.flights.landed.notify_all();
    }
}

enum Agent {
    Up(Box<dyn Powered>),
    Down,
}

/// What is kept of a run that did not hold.
const KEPT: &[&str] = &["driver.log", "agent.log"];

#[derive(Default)]
struct News {
    hung: Option<String>,
    unrepeatable: Vec<String>,
    broken: Vec<String>,
    /// What happens from now on is no part of the run.
    closes: bool,
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
        let count = self.flights.count.lock().unwrap_or_else(PoisonError::into_inner);
        // Each ends, at the latest, when the watchdog's time is over.
        drop(self.flights.landed.wait_while(count, |count| *count > 0));
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

    fn news(&self) -> MutexGuard<'_, News> {
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
    fn way(&self, node: &str) -> Option<Way> {
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
    fn hang(&self, why: String) {
        let mut news = self.news();
        news.hung.get_or_insert(why);
    }

    fn is_over(&self) -> bool {
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

/// One process of an outside driver, over all its lives.
pub struct Process {
    run: Arc<Run>,
    place: Place,
    shape: ProcessShape,
    names: Names,
    /// Whether the sidecars talk to it.
    speaks: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    life: Option<(Life, oneshot::Sender<()>)>,
    /// Calls sent so far, by method.
    sent: BTreeMap<&'static str, u64>,
    under_way: BTreeMap<&'static str, usize>,
    /// Calls that are out in real time.
    flying: Vec<(&'static str, Landed)>,
}

/// One life of a process: from its answer to the first connection until it is killed.
#[derive(Clone)]
pub(super) struct Life {
    pub channel: Channel,
    /// Completes when the process is killed.
    pub death: Shared<BoxFuture<'static, ()>>,
}

impl Process {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names that differ inside and outside.
    pub fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn life(&self) -> Option<Life> {
        if self.run.is_over() {
            return None;
        }
        self.state().life.as_ref().map(|(life, _)| life.clone())
    }

    pub(super) fn threads(&self) -> &tokio::runtime::Handle {
        self.run.outside.threads.handle()
    }

    pub(super) fn patience(&self) -> Duration {
        self.run.outside.patience()
    }

    /// The way of one call to it.
    pub fn wire(self: &Arc<Self>, method: &'static str, takes: Duration, clock: Arc<dyn Sleeper>) -> Wire {
        Wire {
            process: Arc::clone(self),
            method,
            takes,
            clock,
        }
    }

    /// How many calls of a method it got before this one.
    pub fn nth(&self, method: &'static str) -> u64 {
        let mut state = self.state();
        let count = state.sent.entry(method).or_default();
        *count += 1;
        *count - 1
    }

    /// A call goes out to it in real time.
    pub(super) fn takes_off(&self, method: &'static str) -> Flight {
        let flights = Arc::clone(&self.run.flights);
        *flights.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let (lands, landed) = oneshot::channel();
        let flying = &mut self.state().flying;
        flying.retain(|(_, landed)| landed.clone().now_or_never().is_none());
        let (kin, others): (Vec<_>, Vec<_>) = flying.iter().cloned().partition(|(other, _)| *other == method);
        flying.push((method, landed.shared()));
        Flight {
            flights,
            _lands: lands,
            others: others.into_iter().map(|(_, landed)| landed).collect(),
            kin: kin.into_iter().map(|(_, landed)| landed).collect(),
        }
    }

    pub(super) fn departs(&self, method: &'static str) {
        *self.state().under_way.entry(method).or_default() += 1;
    }

    pub(super) fn arrives(&self, method: &'static str, back: &Back) {
        if let Some(count) = self.state().under_way.get_mut(method) {
            *count = count.saturating_sub(1);
        }
        match back {
            Back::Answer(_) => {}
            Back::Hung => self.run.hang(format!(
                "the driver hangs: {method} on {} was not answered in {} s of real time",
                self.place.node,
                self.patience().as_secs()
            )),
            Back::Broken(why) => {
                let mut news = self.run.news();
                news.broken
                    .push(format!("{} broke the connection in {method}: {why}", self.place.node));
            }
        }
    }

    fn endpoint(&self) -> String {
        let own = || format!("unix://{}", self.place.below("csi.sock"));
        self.shape.endpoint.clone().unwrap_or_else(own)
    }

    fn fill(&self, words: &[String]) -> Vec<String> {
        words.iter().map(|word| self.fill_one(word)).collect()
    }

    fn fill_one(&self, word: &str) -> String {
        word.replace("{endpoint}", &self.endpoint())
            .replace("{node}", &self.place.node)
            .replace("{state_dir}", &self.place.below("state"))
            .replace("{kubelet_dir}", &self.place.kubelet())
    }

    fn environment(&self) -> BTreeMap<String, String> {
        self.shape
            .env
            .iter()
            .map(|(key, value)| (key.clone(), self.fill_one(value)))
            .collect()
    }

    /// Starts it and waits in real time until it takes connections.
    ///
    /// # Errors
    /// Why it did not.
    pub fn start(&self) -> Result<(), String> {
        if self.shape.endpoint.is_none() {
            let ask = Ask::Start {
                name: "driver".to_owned(),
                command: self.fill(&self.shape.command),
                env: self.environment(),
                directory: self.place.below("state"),
                log: self.place.log.clone(),
            };
            match self.run.ask(&self.place.node, &ask) {
                Some(Answer::Done) => {}
                Some(Answer::Refused(_, why)) => return Err(why),
                _ => return Err(self.run.hung().unwrap_or_else(|| "the node is down".to_owned())),
            }
        }
        let channel = self.connect()?;
        if self.speaks {
            *self.run.speaker.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        }
        let (kill, killed) = oneshot::channel();
        let death = killed.map(drop).boxed().shared();
        self.state().life = Some((Life { channel, death }, kill));
        Ok(())
    }

    fn connect(&self) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(self.endpoint()).map_err(|error| error.to_string())?;
        let tries = self.patience().as_millis() / TRIES.as_millis().max(1) + 1;
        for _ in 0..tries {
            if let Some(channel) = self.try_for_a_while(&endpoint) {
                return Ok(channel);
            }
            if self.shape.endpoint.is_some() {
                continue;
            }
            if let Some(Answer::Health(health)) = self.run.ask(&self.place.node, &Ask::Health("driver".to_owned()))
                && let Some(how) = health.ended
            {
                return Err(format!(
                    "it ended {how} before it served{}",
                    last_words(&self.place.heard())
                ));
            }
        }
        let seconds = self.patience().as_secs();
        let why = format!(
            "the driver on {} takes no connections after {seconds} s of real time",
            self.place.node
        );
        self.run.hang(why.clone());
        Err(why)
    }

    /// On the real threads, because real time passes.
    fn try_for_a_while(&self, endpoint: &Endpoint) -> Option<Channel> {
        let (send, receive) = std::sync::mpsc::channel();
        let endpoint = endpoint.clone();
        let far = self.far_socket();
        self.threads().spawn(async move {
            let attempts = async {
                loop {
                    let connected = match &far {
                        Some((way, socket)) => dial(&endpoint, Arc::clone(way), socket.clone()).await,
                        None => endpoint.connect().await.ok(),
                    };
                    if let Some(channel) = connected {
                        return channel;
                    }
                    tokio::time::sleep(TRY).await;
                }
            };
            let _ = send.send(tokio::time::timeout(TRIES, attempts).await.ok());
        });
        receive.recv().ok().flatten()
    }

    /// SIGKILL; it is gone when this returns. A call that is under way makes the run unrepeatable.
    pub fn kill(&self) {
        let (life, under_way) = {
            let mut state = self.state();
            let under_way: Vec<&str> = state
                .under_way
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(method, _)| *method)
                .collect();
            state.under_way.clear();
            (state.life.take(), under_way)
        };
        if life.is_none() || self.shape.endpoint.is_some() {
            return;
        }
        if !under_way.is_empty() {
            let text = format!(
                "the driver on {} was killed during {}",
                self.place.node,
                under_way.join(", ")
            );
            let mut news = self.run.news();
            if !news.closes {
                news.unrepeatable.push(text);
            }
        }
        self.run.ask(&self.place.node, &Ask::Kill("driver".to_owned()));
        self.wait_for_silence();
    }

    /// Until nobody takes connections: between fork and exec, a tool that the driver was about to start has the driver's socket.
    fn wait_for_silence(&self) {
        let (send, receive) = std::sync::mpsc::channel();
        let socket = self.place.below("csi.sock");
        let far = self.far_socket();
        self.threads().spawn(async move {
            let silence = async {
                loop {
                    let answered = match &far {
                        Some((way, socket)) => way(socket.clone()).await.is_ok(),
                        None => UnixStream::connect(&socket).is_ok(),
                    };
                    if !answered {
                        return;
                    }
                    tokio::time::sleep(TRY).await;
                }
            };
            let _ = send.send(tokio::time::timeout(HEIRS, silence).await.is_ok());
        });
        let _ = receive.recv();
    }

    /// Its own socket and the way there, if that is not on this machine.
    fn far_socket(&self) -> Option<(Way, String)> {
        if self.shape.endpoint.is_some() {
            return None;
        }
        Some((self.run.way(&self.place.node)?, self.place.below("csi.sock")))
    }

    /// How it ended, if it ended by itself.
    pub fn ended(&self) -> Option<String> {
        if self.shape.endpoint.is_some() {
            return None;
        }
        match self.run.ask(&self.place.node, &Ask::Health("driver".to_owned()))? {
            Answer::Health(health) => health.ended,
            _ => None,
        }
    }
}

/// A channel over one connection that is opened on another machine.
async fn dial(endpoint: &Endpoint, way: Way, socket: String) -> Option<Channel> {
    let connector = tower::service_fn(move |_: http::Uri| {
        let connecting = way(socket.clone());
        async move { connecting.await.map(hyper_util::rt::TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.ok()
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

/// The end of a log, as the end of a sentence.
pub fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(3).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.join(" / "))
    }
}
