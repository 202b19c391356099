//! What this machine can do for real nodes, found out by doing it once: for `wavetank doctor`.
//!
//! It runs as a process of its own, in a mount namespace of its own where the kernel grants one, so that nothing it mounts is ever seen by anybody else.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use wavetank_driver::linux::trial;
use wavetank_driver::units::FsKind;

use crate::space;

/// How a file system was tried: the step that failed, and why.
pub type Trial = Result<(), (String, String)>;

/// What was found out. `Err` says why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Whether root runs this.
    pub root: bool,
    /// The kernel's release.
    pub kernel: String,
    /// Whether there are mount namespaces.
    pub namespaces: Result<(), String>,
    /// The loop device that was attached for a moment.
    pub loops: Result<String, String>,
    /// File systems by name: the step that failed, and why.
    pub file_systems: Vec<(String, Trial)>,
    /// Whether the kernel has a device-mapper.
    pub mapper: bool,
    /// Free bytes in the directory that was tried in.
    pub free: u64,
    /// Memory that can be had, in bytes.
    pub memory: u64,
}

/// Finds out, in an empty directory, and prints it as JSON.
///
/// # Errors
/// What standard output says.
pub fn examine(directory: &str) -> io::Result<u8> {
    space::die_with_parent()?;
    let directory = Path::new(directory);
    let namespaces = space::own_mounts().map_err(|error| error.to_string());
    let free = rustix::fs::statvfs(directory).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    let kinds = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs];
    let tried: Vec<_> = std::thread::scope(|scope| {
        // All at once: most of it is waiting for the disk.
        let running = kinds.map(|kind| scope.spawn(move || trial::file_system(directory, kind)));
        let ended = running.into_iter().zip(kinds);
        ended
            .map(|(trial, kind)| {
                let done = trial
                    .join()
                    .unwrap_or_else(|_| std::panic::resume_unwind(Box::new("a trial panicked")));
                let told = done.map_err(|(step, error)| (step.to_owned(), error.to_string()));
                (kind.as_str().to_owned(), told)
            })
            .collect()
    });
    let loops = trial::loop_device(directory);
    let found = Findings {
        root: rustix::process::geteuid().is_root(),
        kernel: read("/proc/sys/kernel/osrelease"),
        namespaces,
        loops: loops
            .map(|device| device.to_string())
            .map_err(|error| error.to_string()),
        file_systems: tried,
        mapper: read("/proc/misc").contains("device-mapper"),
        free,
        memory: memory(&read("/proc/meminfo")),
    };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &found)?;
    out.write_all(b"\n")?;
    Ok(0)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The bytes that `/proc/meminfo` calls available.
fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn memory_is_what_can_be_had() {
        assert_eq!(memory("MemTotal: 8 kB\nMemAvailable:   7654 kB\n"), 7654 * 1024);
        assert_eq!(memory("MemTotal: 8 kB\n"), 0);
    }
}
