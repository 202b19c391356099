//! The driver's processes of a node: started, watched, killed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::space;
use crate::wire::{Answer, Health, Why};

/// The processes of a node, by name.
#[derive(Default)]
pub struct Processes {
    running: BTreeMap<String, Pid>,
    /// How those ended that nobody has asked for since.
    ended: BTreeMap<String, String>,
}

/// What is needed to start a process.
pub struct Start<'a> {
    pub name: &'a str,
    pub command: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    pub directory: &'a str,
    pub log: &'a str,
}

impl Processes {
    /// Starts a process in a group of its own.
    pub fn start(&mut self, start: &Start<'_>, prefix: &[&str]) -> Answer {
        self.reap();
        if self.running.contains_key(start.name) {
            return Answer::Refused(Why::Exists, format!("{} runs already", start.name));
        }
        self.ended.remove(start.name);
        match spawn(start, prefix) {
            Ok(pid) => {
                self.running.insert(start.name.to_owned(), pid);
                Answer::Done
            }
            Err(error) => Answer::Refused(Why::Io, format!("{} does not start: {error}", start.name)),
        }
    }

    /// Kills a process with its group, and waits until it is gone.
    pub fn kill(&mut self, name: &str) {
        self.reap();
        self.ended.remove(name);
        if let Some(pid) = self.running.remove(name) {
            end(pid);
        }
    }

    /// Kills all.
    pub fn kill_all(&mut self) {
        for (_, pid) in std::mem::take(&mut self.running) {
            end(pid);
        }
    }

    /// How a process is.
    pub fn health(&mut self, name: &str) -> Health {
        self.reap();
        match self.running.get(name) {
            Some(pid) => measure(*pid),
            None => Health {
                ended: self.ended.get(name).cloned(),
                ..Health::default()
            },
        }
    }

    /// Notes who has ended. The first process of a PID namespace inherits orphans, too.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let name = self.running.iter().find(|(_, running)| **running == pid);
            if let Some(name) = name.map(|(name, _)| name.clone()) {
                self.running.remove(&name);
                self.ended.insert(name, describe(status));
            }
        }
    }
}

fn end(pid: Pid) {
    // It may have ended meanwhile.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
}

fn spawn(start: &Start<'_>, prefix: &[&str]) -> io::Result<Pid> {
    let log = OpenOptions::new().create(true).append(true).open(start.log)?;
    let mut shim = Command::new(std::env::current_exe()?);
    shim.args(prefix).arg("exec").arg(std::process::id().to_string());
    shim.args(start.command).envs(start.env).current_dir(start.directory);
    shim.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = shim.process_group(0).spawn()?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the process has no number"))
}

/// Becomes the command, which dies with the process of this number: its starter.
///
/// # Errors
/// If the starter is gone already, or the command cannot be run.
pub fn exec(args: &[OsString]) -> io::Result<u8> {
    let [starter, command, rest @ ..] = args else {
        return Err(io::Error::other("nothing to run"));
    };
    space::die_with_parent()?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
    if parent.as_deref() != starter.to_str() {
        return Ok(0);
    }
    let error = Command::new(command).args(rest).exec();
    Err(io::Error::new(
        error.kind(),
        format!("{} cannot be run: {error}", Path::new(command).display()),
    ))
}

fn measure(pid: Pid) -> Health {
    let number = pid.as_raw_nonzero().get();
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
    let figure = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let word = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        word.unwrap_or(0)
    };
    let descriptors = fs::read_dir(format!("/proc/{number}/fd")).map_or(0, Iterator::count);
    Health {
        pid: Some(number),
        ended: None,
        memory: figure("VmRSS:"),
        descriptors: descriptors as u64,
        threads: figure("Threads:"),
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("with status {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "in an unknown way".to_owned(),
    }
}
