//! The tank's side: starts an agent, asks it, and ends it with everything on its node.

use std::fs::OpenOptions;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wire::{Answer, Ask, receive, send};

/// The program that is the agent: `wavetank-agent`, or `wavetank agent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its file.
    pub file: PathBuf,
    /// The words by which it is told that it is the agent.
    pub prefix: Vec<String>,
}

/// An agent that runs. Dropping it ends its node.
pub struct Client {
    child: Child,
    tank: UnixStream,
    /// Whether the child is a whole machine, which does not end by itself.
    has_machine: bool,
}

/// Why an agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The program cannot be run.
    #[error("the agent {file} cannot be started")]
    Start {
        /// The program.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It takes longer than the watchdog allows.
    #[error("the agent of the node does not answer")]
    Silent,
    /// The connection is lost: the agent is dead.
    #[error("the agent of the node is gone")]
    Gone(#[source] io::Error),
}

impl Client {
    /// Starts an agent: with namespaces of its own, or without. What it has to say goes to `log`, which lies in the directory of its node.
    ///
    /// # Errors
    /// [`ClientError::Start`]; an agent that starts and gets no namespaces is gone at the first question.
    pub fn start(program: &Program, isolated: bool, log: &Path, watchdog: Duration) -> Result<Client, ClientError> {
        let start = || -> io::Result<Client> {
            let (tank, node) = UnixStream::pair()?;
            tank.set_read_timeout(Some(watchdog))?;
            tank.set_write_timeout(Some(watchdog))?;
            let directory = log.parent().unwrap_or(Path::new("/"));
            let log = OpenOptions::new().create(true).append(true).open(log)?;
            let mut command = Command::new(&program.file);
            command.args(&program.prefix);
            match isolated {
                true => command.arg("outer").arg(directory),
                false => command.arg("inner"),
            };
            // A Ctrl-C is the tank's to hear.
            command.process_group(0);
            command.stdin(Stdio::from(OwnedFd::from(node)));
            command.stdout(log.try_clone()?).stderr(log);
            Ok(Client {
                child: command.spawn()?,
                tank,
                has_machine: false,
            })
        };
        start().map_err(|source| ClientError::Start {
            file: program.file.clone(),
            source,
        })
    }

    /// The agent at the other end of a connection, in a machine that ends when this process of it is killed.
    ///
    /// # Errors
    /// If the connection takes no watchdog.
    pub fn adopt(machine: Child, tank: UnixStream, watchdog: Duration) -> io::Result<Client> {
        tank.set_read_timeout(Some(watchdog))?;
        tank.set_write_timeout(Some(watchdog))?;
        Ok(Client {
            child: machine,
            tank,
            has_machine: true,
        })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        let spell = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent,
            _ => ClientError::Gone(error),
        };
        send(&mut self.tank, ask).map_err(spell)?;
        match receive(&mut self.tank) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(ClientError::Gone(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(spell(error)),
        }
    }

    /// Ends the node: every process of it is killed, its mounts are gone. Returns when that is so.
    pub fn end(mut self) {
        self.close();
    }

    fn close(&mut self) {
        // The agent sees the end of the connection and goes; with it, the kernel ends its namespaces. An error means that it is gone already.
        let _ = self.tank.shutdown(Shutdown::Both);
        if self.has_machine {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether this machine grants a node namespaces of its own.
///
/// # Errors
/// Why not, as a sentence.
pub fn can_isolate(program: &Program, log: &Path, watchdog: Duration) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("nodes with mounts of their own need root".to_owned());
    }
    let mut client = Client::start(program, true, log, watchdog).map_err(|error| error.to_string())?;
    match client.ask(&Ask::Stat("/proc/self".to_owned())) {
        Ok(_) => Ok(()),
        Err(_) => Err(
            "the kernel grants root no mount and PID namespaces here: a container without CAP_SYS_ADMIN?".to_owned(),
        ),
    }
}
