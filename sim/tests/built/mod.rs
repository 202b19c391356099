//! The built command, as the tests of its subcommands start it.

pub mod binary;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use binary::command;

pub fn wavetank(args: &[&str]) -> Ran {
    Ran::of(command(args).output().expect("the binary can be started"))
}

/// What a command came to.
pub struct Ran {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        Ran {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).expect("output is text"),
            err: String::from_utf8(output.stderr).expect("errors are text"),
        }
    }

    /// It ended with this status, said each of the parts to standard error, and nothing panicked.
    #[track_caller]
    pub fn refuses(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, Some(status), "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "should say {part:?}:\n{}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        assert!(self.err.len() < 20_000, "a mistake is a screen, not a book");
    }
}

/// A folder of this test's own.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(env!("CARGO_CRATE_NAME"))
        .join(name);
    // Of an earlier run.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}
