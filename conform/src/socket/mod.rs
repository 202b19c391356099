//! Drivers that are processes behind unix sockets: started here from a command line, or running already.
//!
//! The machine is this one: paths, mounts and contents are looked at where the driver acts. Needs tokio's runtime.

mod machine;
mod process;

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;
use tower::util::BoxCloneService;

pub use machine::{Look, ThisMachine};
pub use process::{Bad, Command, Place};

use crate::call::{Side, Wire};
use crate::driver::{Machine, UnderTest};
use process::Process;

/// How long a process may take to serve.
const START: Duration = Duration::from_secs(30);
/// How often a socket that does not answer yet is tried.
const TRY: Duration = Duration::from_millis(20);

/// How to reach a driver.
#[derive(Clone, Debug)]
pub enum How {
    /// It runs already: the controller's socket, and one for each node.
    Running {
        /// `unix:///path` of the controller.
        controller: String,
        /// `unix:///path` of each node.
        nodes: Vec<String>,
    },
    /// It is started: the same command for each node; the first one is the controller as well.
    Started {
        /// The command line.
        command: Command,
        /// How many nodes.
        nodes: usize,
        /// It keeps its state over a restart.
        keeps_state: bool,
    },
}

/// Why a driver could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// An address that is no unix socket.
    #[error("`{0}` is no unix socket: write unix:///path/to.sock")]
    Address(String),
    /// A directory could not be made.
    #[error("cannot make {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended before it served.
    #[error("`{command}` ended before it served: {how}")]
    Ended {
        /// The command line.
        command: String,
        /// How, and the last it said.
        how: String,
    },
    /// Nobody answers.
    #[error("nobody serves at {address} within {patience:?}")]
    Silent {
        /// The socket.
        address: String,
        /// How long was waited.
        patience: Duration,
        /// The last refusal.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A driver behind sockets.
pub struct SocketDriver {
    controller: Channel,
    nodes: Vec<Channel>,
    processes: Vec<tokio::sync::Mutex<Process>>,
    keeps_state: bool,
    machine: ThisMachine,
    began: Instant,
}

fn endpoint(address: &str) -> Result<Endpoint, ReachError> {
    let bad = || ReachError::Address(address.to_owned());
    let path = address
        .strip_prefix("unix://")
        .or_else(|| address.strip_prefix("unix:"))
        .unwrap_or(address);
    if !path.starts_with('/') {
        return Err(bad());
    }
    Endpoint::from_shared(format!("unix://{path}")).map_err(|_| bad())
}

/// A channel to a socket that answers. It connects anew by itself when the process was restarted.
async fn dial(address: &str, patience: Duration, process: Option<&mut Process>) -> Result<Channel, ReachError> {
    let endpoint = endpoint(address)?;
    let began = Instant::now();
    let mut process = process;
    loop {
        let refused = match endpoint.connect().await {
            Ok(_) => return Ok(endpoint.connect_lazy()),
            Err(refused) => refused,
        };
        if let Some(how) = process.as_mut().and_then(|process| process.ended()) {
            let command = process
                .map(|process| process.command_line().to_owned())
                .unwrap_or_default();
            return Err(ReachError::Ended { command, how });
        }
        if began.elapsed() >= patience {
            return Err(ReachError::Silent {
                address: address.to_owned(),
                patience,
                source: refused,
            });
        }
        tokio::time::sleep(TRY).await;
    }
}

impl SocketDriver {
    /// Reaches a driver, starting it if so asked.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn reach(how: &How, machine: ThisMachine) -> Result<SocketDriver, ReachError> {
        let mut driver = SocketDriver {
            controller: endpoint("unix:///unused")?.connect_lazy(),
            nodes: Vec::new(),
            processes: Vec::new(),
            keeps_state: false,
            machine,
            began: Instant::now(),
        };
        match how {
            How::Running { controller, nodes } => {
                driver.controller = dial(controller, TRY, None).await?;
                for node in nodes {
                    driver.nodes.push(dial(node, TRY, None).await?);
                }
            }
            How::Started {
                command,
                nodes,
                keeps_state,
            } => {
                driver.keeps_state = *keeps_state;
                for nth in 0..(*nodes).max(1) {
                    let mut process = Process::start(command, nth)?;
                    let address = process.address().to_owned();
                    driver.nodes.push(dial(&address, START, Some(&mut process)).await?);
                    driver.processes.push(tokio::sync::Mutex::new(process));
                }
                driver.controller = driver.nodes[0].clone();
            }
        }
        Ok(driver)
    }

    /// Ends the processes that were started here, and waits for them.
    pub async fn end(&self) {
        for process in &self.processes {
            process.lock().await.end().await;
        }
    }

    /// The last that the nth process wrote to its standard error.
    pub async fn said(&self, nth: usize) -> Option<String> {
        match self.processes.get(nth) {
            Some(process) => Some(process.lock().await.said()),
            None => None,
        }
    }
}

#[async_trait]
impl UnderTest for SocketDriver {
    fn wire(&self, side: Side) -> Wire {
        let channel = match side {
            Side::Controller => &self.controller,
            Side::Node(nth) => self.nodes.get(nth).unwrap_or(&self.controller),
        };
        BoxCloneService::new(channel.clone().map_err(|lost| {
            let cause = std::error::Error::source(&lost)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            Status::unavailable(format!("{lost}{cause}"))
        }))
    }

    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn machine(&self, _: usize) -> &dyn Machine {
        &self.machine
    }

    fn can_restart(&self) -> Result<(), String> {
        match (self.processes.is_empty(), self.keeps_state) {
            (true, _) => Err("the driver was not started here".to_owned()),
            (false, false) => Err("the driver keeps no state over a restart".to_owned()),
            (false, true) => Ok(()),
        }
    }

    async fn restart(&self) -> Result<(), String> {
        for process in &self.processes {
            let mut process = process.lock().await;
            process.kill().await;
            process.again().map_err(|why| why.to_string())?;
            let address = process.address().to_owned();
            dial(&address, START, Some(&mut process))
                .await
                .map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    async fn ended(&self) -> Option<String> {
        let mut told = None;
        for process in &self.processes {
            let mut process = process.lock().await;
            if let Some(how) = process.ended() {
                told.get_or_insert(how);
                if process.again().is_ok() {
                    let address = process.address().to_owned();
                    let _ = dial(&address, START, Some(&mut process)).await;
                }
            }
        }
        told
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}
