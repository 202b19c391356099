//! External tools: run with arguments, an empty environment and a deadline; what they say when they fail is kept.

use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal};

use super::errors;
use crate::host::{HostError, HostErrorKind, HostResult};

/// How long a tool may take.
const DEADLINE: Duration = Duration::from_secs(300);
/// How much of what a tool says is kept.
const KEPT: usize = 2048;
/// Where tools are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a tool ended.
pub(super) struct Ended {
    /// Its exit status; `None`: killed by a signal.
    pub(super) status: Option<i32>,
    /// The last of what it wrote.
    pub(super) said: String,
}

impl Ended {
    /// Its status, if it is among the good ones.
    pub(super) fn among(self, tool: &str, good: &[i32]) -> HostResult<i32> {
        match self.status {
            Some(status) if good.contains(&status) => Ok(status),
            Some(status) => Err(HostError::new(
                HostErrorKind::Io,
                format!("{tool} ended with status {status}: {}", self.said),
            )),
            None => Err(HostError::new(
                HostErrorKind::Io,
                format!("{tool} was killed: {}", self.said),
            )),
        }
    }
}

/// Runs a tool to its end.
///
/// # Errors
/// `Unsupported` if it is not installed, `TimedOut` if it was killed for taking too long.
pub(super) fn run(tool: &str, arguments: &[&str]) -> HostResult<Ended> {
    run_with(tool, arguments, None)
}

/// Runs a tool to its end, with something to read.
///
/// # Errors
/// As [`run`].
pub(super) fn run_with(tool: &str, arguments: &[&str], input: Option<&[u8]>) -> HostResult<Ended> {
    let mut command = Command::new(tool);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        // In a container nobody answers for udev: the device-mapper makes its nodes itself.
        .env("DM_DISABLE_UDEV", "1")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    die_together(&mut command);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => HostError::new(HostErrorKind::Unsupported, format!("{tool} is not installed")),
        _ => errors::host(&format!("running {tool}"), error),
    })?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A tool that does not read ends with a status of its own; what it is told is shorter than a pipe.
        let _ = pipe.write_all(input);
    }
    let listeners = [listen(child.stderr.take()), listen(child.stdout.take())];
    let in_time = wait(&child).map_err(|error| errors::host(&format!("waiting for {tool}"), error))?;
    if !in_time {
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|error| errors::host(&format!("waiting for {tool}"), error))?;
    let said = listeners.map(|listener| listener.join().unwrap_or_default()).concat();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if !in_time {
        let text = format!("{tool} took longer than {} s: {said}", DEADLINE.as_secs());
        return Err(HostError::new(HostErrorKind::TimedOut, text));
    }
    Ok(Ended {
        status: status.code(),
        said,
    })
}

/// A tool ends with the driver: one that outlived it would go on writing to a device that the next life takes for its own. A driver that died
/// before the tool asked for its end would send no signal any more: then it does not start at all.
#[expect(
    unsafe_code,
    reason = "what runs between fork and exec are two system calls that touch no memory"
)]
fn die_together(command: &mut Command) {
    let driver = getpid();
    // SAFETY: prctl(2) and getppid(2) may be called between fork and exec; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() == Some(driver) {
                Ok(())
            } else {
                Err(rustix::io::Errno::CHILD.into())
            }
        });
    }
}

/// Waits until the tool has ended; `false` if the deadline passed.
fn wait(child: &Child) -> rustix::io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(true) };
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Timespec {
        tv_sec: i64::try_from(DEADLINE.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&deadline))?;
    Ok(ended > 0)
}

/// Keeps the last of what a tool writes.
fn listen(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return String::new() };
        let mut kept = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(len) = pipe.read(&mut buffer) {
            if len == 0 {
                break;
            }
            kept.extend_from_slice(&buffer[..len]);
            let surplus = kept.len().saturating_sub(KEPT);
            kept.drain(..surplus);
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}
