//! The namespaces of a node: processes and mounts that end with its agent.

use std::io;
use std::path::Path;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, Signal, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;
use wavetank_driver::host::MountEntry;
use wavetank_driver::linux::look;

/// How long the inside has to end by itself when the tank is gone.
const GRACE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Opens a namespace of processes, starts the agent as its first process and outlives it: when the tank is gone, however it ended, the node's processes are
/// ended and the loop devices are let go that show files of `directory`. The node's mounts are in a namespace that only the inside has: they go with it,
/// and nothing else keeps the devices open.
///
/// # Errors
/// If the kernel grants no namespaces.
pub fn outer(prefix: &[&str], directory: &str) -> io::Result<u8> {
    let program = std::env::current_exe()?;
    unshare(UnshareFlags::NEWPID)?;
    let mut inner = Command::new(program);
    let mut inner = inner.args(prefix).args(["inner", "isolated"]).spawn()?;
    let watched = watch(&inner);
    if watched.is_err() {
        // It may have ended meanwhile.
        let _ = inner.kill();
    }
    let status = inner.wait()?;
    // A device that the kernel keeps after this goes with the last mount of it.
    let _ = look::abandon(Path::new(directory));
    watched?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Until the inside has ended, or the tank, whose connection is standard input, is gone for a while.
fn watch(inner: &Child) -> io::Result<()> {
    let number = i32::try_from(inner.id()).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| io::Error::other("the agent has no number"))?;
    let inner = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
    let stdin = io::stdin();
    let mut both = [
        PollFd::new(&inner, PollFlags::IN),
        PollFd::new(&stdin, PollFlags::empty()),
    ];
    while let Err(error) = poll(&mut both, None) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    if both[0].revents().is_empty() && poll(&mut both[..1], Some(&GRACE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

#[expect(
    deprecated,
    reason = "the hazards of unsharing concern descriptors and working directories, and neither is unshared here"
)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    rustix::thread::unshare(flags).map_err(|error| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("no namespaces for the node: {error}"),
        )
    })
}

/// Gives this process mounts of its own. What it mounts is seen by nobody else, and goes with it.
///
/// # Errors
/// If the kernel grants no namespace.
pub fn own_mounts() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    Ok(rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?)
}

/// Takes away every mount below a directory, from this namespace only.
///
/// # Errors
/// The first that cannot be taken away.
pub fn forget_mounts(directory: &Path) -> io::Result<()> {
    forget(|entry| Path::new(entry.target.as_str()).starts_with(directory))
}

/// A new namespace has a copy of every mount, and a copy keeps a loop device open after everybody else has unmounted it. What shows a file of the directory for
/// things of a while is somebody's trial, such as another run's volume, and no business of this node.
fn forget_trials(directory: &Path) -> io::Result<()> {
    let trials = look::loops_below(directory)?;
    forget(|entry| {
        entry
            .source
            .device()
            .is_some_and(|device| trials.iter().any(|(trial, _)| trial == device))
    })
}

fn forget(which: impl Fn(&MountEntry) -> bool) -> io::Result<()> {
    let table = look::mounts().map_err(|error| io::Error::other(error.to_string()))?;
    for entry in table.iter().rev().filter(|entry| which(entry)) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(entry.target.as_str(), flags) {
            // It went with the one that it lay on.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes the inside of the namespaces a node's: what is mounted stays there, and `/proc` shows its processes.
///
/// # Errors
/// If the kernel refuses.
pub fn prepare(isolated: bool) -> io::Result<()> {
    if !isolated {
        // It sees the end of the tank as the end of the connection, and has processes to end then.
        return Ok(());
    }
    die_with_parent()?;
    own_mounts()?;
    forget_trials(&std::env::temp_dir())?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>)?;
    Ok(())
}

/// The kernel kills this process when the thread that started it ends, however that happens.
///
/// # Errors
/// If the kernel refuses.
pub fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}
