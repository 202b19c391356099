//! The VM link: the nodes of an outside driver are virtual machines with kernels of their own.
//!
//! ```text
//! run ──► Machines (the ground of nodes) ──QEMU──► guest: agent as its first process ──► driver ──► loop devices, file systems
//!            │  questions: virtio port "agent" ◄──────┘            ▲
//!            └─ calls:     virtio port "calls", one frame after another
//! ```
//!
//! Everything above the ground is the socket link's: calls in virtual time, what applies, pods' reads and writes. A node that loses its power is a QEMU that is
//! killed; its disk stays, and the next boot mounts it. A machine is resumed from a state that was kept just before its agent was asked anything, so a boot
//! costs less than a second; with `cold`, each boot is one of the kernel.
//!
//! Start reading at [`Guest`] (what machines are made of) and `machine.rs` (one that runs).
//!
//! Blind spots: the kernel's own time runs on while the tank thinks; a machine that is resumed has the kernel's memory of its first seconds; the host never
//! loses its power, so what the guest's disk was given stays.

mod cpio;
mod gather;
mod kernel;
mod line;
mod machine;
mod plug;
mod prepare;
mod qmp;

use std::io;
use std::path::{Path, PathBuf};

pub use gather::find;
pub use machine::{Accelerator, Machines};
pub use plug::{Plug, plug};
pub use prepare::{Guest, Parts, Ready};

/// Why there are no machines.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// No QEMU.
    #[error(
        "there is no qemu-system-x86_64 here: on Debian, `apt-get install --no-install-recommends qemu-system-x86`"
    )]
    NoQemu,
    /// Another processor.
    #[error("machines are made of this machine's own programs, and those are for {0}, not x86_64")]
    Processor(&'static str),
    /// No kernel, or none that can be used.
    #[error("there is no kernel for the machines: {0}. One's own is given with --kernel and --modules")]
    NoKernel(String),
    /// A tool that machines need is not on this one.
    #[error("this machine has no `{0}`, of which the nodes would get a copy: e2fsprogs has it on Debian")]
    NoTool(&'static str),
    /// A file cannot be read or written.
    #[error("{doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Nothing is prepared.
    #[error("no guest is prepared in {0}: run `wavetank vm prepare`")]
    NotPrepared(PathBuf),
    /// It was prepared by another build of this program.
    #[error("the guest in {0} was prepared by another wavetank than this one: run `wavetank vm prepare` again")]
    Stale(PathBuf),
    /// A machine does not come up.
    #[error("a machine does not come up: {0}")]
    Boot(String),
}

impl VmError {
    fn file(doing: &'static str, path: &Path, source: io::Error) -> VmError {
        VmError::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
