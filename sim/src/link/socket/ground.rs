//! What the nodes of an outside driver stand on: namespaces of this machine, or machines of their own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::runtime::Handle;
use wavetank_agent::wire::{Answer, Ask};
use wavetank_agent::{Client, ClientError, Program};

/// A way to the sockets of a node that is not this machine.
pub type Way = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync>;

/// What nodes stand on.
pub trait Ground: Send + Sync {
    /// Where a node of a run lives; the run has a directory of its own.
    fn place(&self, run: &Path, node: &str) -> Place;

    /// Gives the node its power. What has to wait in real time does so on `threads`.
    ///
    /// # Errors
    /// Why it does not come up.
    fn boot(&self, place: &Place, threads: &Handle) -> Result<Box<dyn Powered>, String>;

    /// What tokens call the link to them.
    fn link(&self) -> &'static str;

    /// Whether what is in a node's memory only is lost with its power.
    fn forgets(&self) -> bool;

    /// Whether the devices of volumes can be made to fail.
    fn can_fail_devices(&self) -> bool {
        false
    }

    /// The devices of volumes on a node answer everything with an error, those that come later as well, or work again.
    ///
    /// # Errors
    /// Why they do not.
    fn fail_devices(&self, place: &Place, failing: bool) -> Result<(), String> {
        let _ = (place, failing);
        Err("they are not this program's".to_owned())
    }
}

/// A node that has its power. Dropping it takes that away.
pub trait Powered: Send {
    /// Asks its agent.
    ///
    /// # Errors
    /// [`ClientError`].
    fn ask(&mut self, ask: &Ask) -> Result<Answer, ClientError>;

    /// The way to its sockets; nothing if they are this machine's.
    fn way(&self) -> Option<Way>;

    /// It stands still as a whole, or goes on. Questions to its agent are answered nevertheless: whoever looks on does not notice.
    ///
    /// # Errors
    /// Why it does not.
    fn pause(&mut self, still: bool) -> Result<(), String>;

    /// Takes its power away: when this returns, nothing of it runs.
    fn end(self: Box<Self>);
}

/// Where processes of a node, or the controller's, live.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node, or `controller`.
    pub node: String,
    /// What this machine keeps of it.
    pub directory: PathBuf,
    /// Everything of it, as its own processes see it.
    pub inside: PathBuf,
    /// Where its processes write what they have to say.
    pub log: String,
}

impl Place {
    /// Kubelet's directory.
    pub fn kubelet(&self) -> String {
        self.below("kubelet")
    }

    /// What is called so in it.
    pub fn below(&self, name: &str) -> String {
        self.inside.join(name).display().to_string()
    }

    /// What its processes had to say, on this machine.
    pub fn heard(&self) -> PathBuf {
        self.directory.join("driver.log")
    }
}

/// Agents on this machine, with namespaces of their own or without.
pub struct Here {
    /// The agent.
    pub program: Program,
    /// Whether nodes have namespaces of their own.
    pub isolated: bool,
    /// How long an agent may take to answer.
    pub patience: Duration,
}

impl Ground for Here {
    fn place(&self, run: &Path, node: &str) -> Place {
        let directory = run.join(node);
        Place {
            node: node.to_owned(),
            log: directory.join("driver.log").display().to_string(),
            inside: directory.clone(),
            directory,
        }
    }

    fn boot(&self, place: &Place, _: &Handle) -> Result<Box<dyn Powered>, String> {
        let log = place.directory.join("agent.log");
        let made = ["state", "kubelet/pods", "kubelet/plugins", "kubelet/plugins_registry"];
        let mut made = made.iter().map(|name| fs::create_dir_all(place.directory.join(name)));
        made.try_for_each(|made| made)
            .map_err(|error| format!("the directory of {} cannot be made: {error}", place.node))?;
        match Client::start(&self.program, self.isolated, &log, self.patience) {
            Ok(client) => Ok(Box::new(client)),
            Err(error) => Err(match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            }),
        }
    }

    fn link(&self) -> &'static str {
        "socket"
    }

    fn forgets(&self) -> bool {
        false
    }
}

impl Powered for Client {
    fn ask(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        Client::ask(self, ask)
    }

    fn way(&self) -> Option<Way> {
        None
    }

    /// Its processes get no requests meanwhile, and the kernel is this machine's.
    fn pause(&mut self, _: bool) -> Result<(), String> {
        Ok(())
    }

    fn end(self: Box<Self>) {
        Client::end(*self);
    }
}
