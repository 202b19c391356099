//! One process of an outside driver: its lives, its socket, and the calls on their way to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Shared};
use tonic::transport::{Channel, Endpoint};
use wavetank_agent::wire::{Answer, Ask};

use super::flights::{Flight, Queue};
use super::ground::{Place, Way};
use super::names::Names;
use super::profile::ProcessShape;
use super::run::Run;
use super::wire::{Back, Wire};
use crate::link::layers::Sleeper;

/// How often a starting driver's socket is tried, in real time.
const TRY: Duration = Duration::from_millis(5);
/// How long it is tried before its process is looked at.
const TRIES: Duration = Duration::from_millis(200);
/// How long after its death a driver's socket may have heirs.
const HEIRS: Duration = Duration::from_secs(2);

/// One process of an outside driver, over all its lives.
pub struct Process {
    pub(super) run: Arc<Run>,
    pub(super) place: Place,
    pub(super) shape: ProcessShape,
    pub(super) names: Names,
    /// Whether the sidecars talk to it.
    pub(super) speaks: bool,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    life: Option<(Life, oneshot::Sender<()>)>,
    /// Calls sent so far, by method.
    sent: BTreeMap<&'static str, u64>,
    under_way: BTreeMap<&'static str, usize>,
    /// Calls that are out in real time.
    queue: Queue,
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
        self.run.outside().threads.handle()
    }

    pub(super) fn patience(&self) -> Duration {
        self.run.outside().patience()
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
        self.state().queue.join(method, &self.run.flights)
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

    pub(super) fn fill(&self, words: &[String]) -> Vec<String> {
        words.iter().map(|word| self.fill_one(word)).collect()
    }

    fn fill_one(&self, word: &str) -> String {
        word.replace("{endpoint}", &self.endpoint())
            .replace("{node}", &self.place.node)
            .replace("{state_dir}", &self.place.below("state"))
            .replace("{kubelet_dir}", &self.place.kubelet())
    }

    pub(super) fn environment(&self) -> BTreeMap<String, String> {
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
            "the driver on {} takes no connections at {} after {seconds} s of real time{}{}",
            self.place.node,
            self.endpoint(),
            self.shape.deaf().map(|why| format!("; {why}")).unwrap_or_default(),
            last_words(&self.place.heard())
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
