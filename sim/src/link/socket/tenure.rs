//! The directory of a command's runs is its own as long as it holds a lock there. Whoever is killed with all its agents can clear away nothing: the next
//! command does it for him.
//!
//! A command that ends by itself takes its lock away, so what it has kept for people to read is nobody's to clear. A lock is the kernel's and goes with its
//! process: numbers of processes say nothing in containers that share a directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// The file that is locked.
const LOCK: &str = "lock";
/// How directories of commands begin.
const PREFIX: &str = "wavetank-";

/// A directory is taken, until this is dropped.
pub(super) struct Tenure {
    _lock: File,
}

impl Tenure {
    /// Takes a directory that is there.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn take(directory: &Path) -> io::Result<Tenure> {
        // Under its name the file is locked from the first moment.
        let draft = directory.join("lock.draft");
        let lock = OpenOptions::new().create(true).append(true).open(&draft)?;
        lock.lock()?;
        fs::rename(draft, directory.join(LOCK))?;
        Ok(Tenure { _lock: lock })
    }

    /// What is left in the directory is meant to be there.
    pub fn give_up(directory: &Path) {
        // An error means that somebody has removed it.
        let _ = fs::remove_file(directory.join(LOCK));
    }
}

/// Clears away what commands have left in `place` that were killed: loop devices, then their directories.
pub(super) fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Ok(lock) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        if is_ours && lock.try_lock().is_ok() {
            // What another user has left is for that user to clear.
            let _ = wavetank_agent::clear_away(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Tenure, sweep};

    #[test]
    fn only_what_the_dead_have_left_is_cleared_away() {
        let place = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let directory = place.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("disk.img"), "bytes").unwrap();
            directory
        };
        let (living, dead, done, other) = (
            of("wavetank-1-run"),
            of("wavetank-2-run"),
            of("wavetank-3-run"),
            of("x"),
        );
        let tenure = Tenure::take(&living).unwrap();
        for gone in [&dead, &done, &other] {
            drop(Tenure::take(gone).unwrap());
        }
        Tenure::give_up(&done);
        sweep(place.path());
        assert!(living.exists() && done.exists() && other.exists());
        assert!(!dead.exists());
        drop(tenure);
    }
}
