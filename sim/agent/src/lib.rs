//! The agent of a real node: what kubelet, pods and oracles do on a machine, done on this one; and the driver's processes there.
//!
//! ```text
//! the tank ──socket on standard input──► outer ──► inner: PID 1 of the node ──► driver processes
//!                                        unshares    answers one question at a time
//! ```
//!
//! In a virtual machine the agent is the first process of all, and serves the tank over virtio ports ([`guest`], [`mod@line`]).
//!
//! With namespaces, `inner` is the first process of a PID and of a mount namespace: when it dies, the kernel kills every process of the node and its mounts
//! are gone. Without (an ordinary user), there is only `inner`, and its processes die with it because they asked the kernel for that.
//!
//! It knows the wire of its own ([`wire`]) and the driver's Linux arm; nothing of clusters, and not the tank's executor.
//!
//! Blind spots: pages that were not synced survive the death of a node, because the machine's own kernel goes on; containers of pods are names in a list, and
//! a pod's reads and writes go through the path on the node.

mod client;
pub mod examine;
mod files;
pub mod guest;
pub mod line;
mod node;
mod pods;
mod processes;
pub mod space;
pub mod wire;

use std::ffi::OsString;
use std::io;
use std::path::Path;

pub use client::{Client, ClientError, Program, can_isolate};

/// Exit status: the arguments make no sense.
const USAGE: u8 = 64;

/// Lets the kernel have the loop devices that show files below a directory whose agents are dead.
///
/// # Errors
/// If the kernel refuses: only root may.
pub fn clear_away(directory: &Path) -> io::Result<()> {
    wavetank_driver::linux::look::abandon(directory)
}

/// Runs the agent. `args` are those after the program's name and `prefix`, the words by which the program is told that it is the agent.
pub fn main(args: impl IntoIterator<Item = OsString>, prefix: &[&str]) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let words: Vec<&str> = args.iter().map_while(|arg| arg.to_str()).collect();
    let done = match &words[..] {
        ["outer", directory] => space::outer(prefix, directory),
        ["inner", rest @ ..] => space::prepare(rest.contains(&"isolated")).and_then(|()| node::serve_input(prefix)),
        ["guest"] => guest::run(prefix),
        ["examine", directory] => examine::examine(directory),
        ["exec", ..] => processes::exec(&args[1..]),
        _ => return USAGE,
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            // Standard error is the node's log.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("wavetank-agent: {error}\n"));
            1
        }
    }
}
