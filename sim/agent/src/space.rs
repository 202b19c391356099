//! The namespaces of a node: processes and mounts that end with its agent.

use std::io;
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

/// Opens the namespaces and starts the agent as their first process. Ends when that one and everything it started is gone.
///
/// # Errors
/// If the kernel grants no namespaces.
pub fn outer(prefix: &[&str]) -> io::Result<u8> {
    die_with_parent()?;
    let program = std::env::current_exe()?;
    unshare()?;
    let mut inner = Command::new(program);
    let status = inner.args(prefix).args(["inner", "isolated"]).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[expect(
    deprecated,
    reason = "the hazards of unsharing concern descriptors and working directories, and neither is unshared here"
)]
fn unshare() -> io::Result<()> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    rustix::thread::unshare(flags).map_err(|error| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("no namespaces for the node: {error}"),
        )
    })
}

/// Makes the inside of the namespaces a node's: what is mounted stays there, and `/proc` shows its processes.
///
/// # Errors
/// If the kernel refuses.
pub fn prepare(isolated: bool) -> io::Result<()> {
    die_with_parent()?;
    if !isolated {
        return Ok(());
    }
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
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
