//! Looks at the machine. Whatever it starts ends with it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use wavetank_agent::examine::Findings;

use super::checks::Found;
use crate::cli::driver::AGENT;
use crate::link::socket::scratch;
use crate::link::vm::find;

/// How long a trial may take in real time.
const PATIENCE: Duration = Duration::from_secs(10);
/// The program that is a machine.
const QEMU: &str = "qemu-system-x86_64";

/// Tries everything, all at once.
pub(super) fn look() -> Found {
    let directory = scratch("doctor");
    std::thread::scope(|scope| {
        let agent = scope.spawn(|| examine(&directory));
        let accelerators = ["kvm", "tcg"].map(|name| scope.spawn(move || machine(name)));
        let [kvm, tcg] = accelerators.map(|trial| trial.join().unwrap_or_else(|_| Err("the trial panicked".into())));
        Found {
            processor: std::env::consts::ARCH,
            cryptsetup: find("cryptsetup").is_some(),
            kvm,
            tcg,
            apt: find("apt-get").is_some(),
            agent: agent.join().unwrap_or_else(|_| Err("the trial panicked".into())),
        }
    })
}

/// What the agent of a moment finds out, in a directory that goes with it.
fn examine(directory: &Path) -> Result<Findings, String> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg(AGENT).arg("examine").arg(directory);
    let said = said(command, "");
    let _ = fs::remove_dir_all(directory);
    serde_json::from_str(&said?).map_err(|error| format!("the agent says something else: {error}"))
}

/// Starts a machine without anything in it, and tells it to quit.
fn machine(accelerator: &str) -> Result<String, String> {
    let qemu = find(QEMU).ok_or_else(|| format!("{QEMU} is not installed"))?;
    let mut command = Command::new(qemu);
    command.args([
        "-accel",
        accelerator,
        "-machine",
        "none",
        "-display",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-S",
        "-monitor",
        "stdio",
    ]);
    let said = said(command, "quit\n")?;
    let version = said.split_whitespace().skip_while(|word| *word != "QEMU").nth(1);
    Ok(format!("QEMU {}", version.unwrap_or("of an unknown version")))
}

/// What a program says until it ends well.
fn said(mut command: Command, told: &str) -> Result<String, String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read ends with a status of its own.
        let _ = pipe.write_all(told.as_bytes());
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (done, ended) = mpsc::channel();
    let listener = std::thread::spawn(move || {
        let (mut said, mut complaint) = (String::new(), String::new());
        let _ = out.map(|mut pipe| pipe.read_to_string(&mut said));
        let _ = err.map(|mut pipe| pipe.read_to_string(&mut complaint));
        // Nobody listens any more after the time is up.
        let _ = done.send((said, complaint));
    });
    let Ok((said, complaint)) = ended.recv_timeout(PATIENCE) else {
        let _ = child.kill();
        let _ = child.wait();
        drop(listener);
        return Err(format!("it took longer than {} s", PATIENCE.as_secs()));
    };
    let status = child.wait().map_err(|error| error.to_string())?;
    match status.success() {
        true => Ok(said),
        false => Err(complaint
            .lines()
            .last()
            .unwrap_or("it failed without a word")
            .chars()
            .take(200)
            .collect()),
    }
}
