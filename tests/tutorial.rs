//! Every command of the tutorial is run as it stands there, in order, and prints what the page shows.
//!
//! In a block of `console`, `$ ` begins a command and `> ` goes on with it; the lines below it must be lines of its output, in their order, `…` standing for
//! anything within one. `$ echo $?` shows the exit status of the command before.

#![expect(clippy::print_stdout, reason = "a test says what it did not run")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The driver that the page is about.
const NEWCOMER: &str = env!("CARGO_BIN_EXE_newcomer-driver");

struct Step {
    command: String,
    shown: Vec<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut console = false;
    for line in page.lines() {
        if line.starts_with("```") {
            console = line == "```console";
        } else if !console {
            continue;
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                shown: Vec::new(),
            });
        } else if let (Some(more), Some(step)) = (line.strip_prefix("> "), steps.last_mut()) {
            step.command.push('\n');
            step.command.push_str(more);
        } else if let Some(step) = steps.last_mut()
            && !line.trim().is_empty()
        {
            step.shown.push(line.trim().to_owned());
        }
    }
    steps
}

/// Whether a line of output is the line that the page shows.
fn is_shown(shown: &str, line: &str) -> bool {
    let mut rest = line.trim();
    let parts: Vec<&str> = shown.split('…').map(str::trim).collect();
    for (nth, part) in parts.iter().enumerate() {
        let Some(at) = rest.find(part) else { return false };
        if nth == 0 && at > 0 {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || parts.last().is_some_and(|part| part.is_empty())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the workspace is there")
}

/// Whether the tutorial can be followed here.
fn ready() -> bool {
    let programs = Path::new(NEWCOMER).with_file_name("wavetank").is_file();
    let root = rustix::process::geteuid().is_root();
    let demanded = std::env::var_os("WAVETANK_ROOT_TESTS").is_some();
    assert!(
        !demanded || (root && programs),
        "the tutorial needs root and the command `wavetank`"
    );
    if !(root && programs) {
        println!("not checked: the tutorial needs root, and the command `wavetank` built beside {NEWCOMER}");
    }
    root && programs
}

#[test]
fn every_command_of_the_tutorial_does_what_it_says() {
    if !ready() {
        return;
    }
    let page = std::fs::read_to_string(root().join("docs/tutorial.md")).expect("docs/tutorial.md is there");
    let place = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(root().join("scenarios"), place.path().join("scenarios")).expect("a link");
    let mut path = OsString::from(Path::new(NEWCOMER).parent().expect("a folder"));
    path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
    let steps = steps(&page);
    assert!(steps.len() >= 6, "the tutorial has shrunk to {} commands", steps.len());
    let mut status = String::new();
    for step in steps {
        if step.command == "echo $?" {
            assert_eq!(step.shown, [status.as_str()], "the exit status of the command before");
            continue;
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\n{}", step.command)]);
        shell
            .current_dir(place.path())
            .env("PATH", &path)
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        let output = shell.output().expect("a shell");
        status = output.status.code().unwrap_or(-1).to_string();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = said.lines();
        for shown in &step.shown {
            assert!(
                lines.any(|line| is_shown(shown, line)),
                "`{}` no longer prints this line here:\n{shown}\n\n{said}",
                step.command
            );
        }
    }
}

#[test]
fn a_shown_line_may_leave_out_parts_of_a_line_only() {
    assert!(is_shown("held … after …", "held  lifecycle/x after 3.1 s"));
    assert!(is_shown(
        "BROKEN  a  … in 3",
        "  BROKEN  a   7 storms  no-leftovers in 3"
    ));
    assert!(!is_shown("held", "not held"));
    assert!(!is_shown("held", "held back"));
    let found = steps("```console\n$ a b\n> c\nout\n\n$ echo $?\n2\n```\n```yaml\n$ no\n```");
    assert_eq!(
        (found.len(), found[0].command.as_str(), &*found[1].shown[0]),
        (2, "a b\nc", "2")
    );
}
