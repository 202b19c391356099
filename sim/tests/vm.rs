//! The built command with nodes that are virtual machines: a kernel of their own, real loop devices and file systems, real power cuts.

#![expect(clippy::print_stdout, reason = "a test says what it did not run")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_wavetank");

/// Whether machines can be had: QEMU, and the reference driver, which the whole workspace's build puts beside ours.
fn can_run() -> bool {
    let qemu = ["/usr/bin", "/usr/local/bin"].map(|place| Path::new(place).join("qemu-system-x86_64"));
    let missing = [
        (!qemu.iter().any(|path| path.is_file())).then_some("qemu-system-x86_64 is not installed"),
        (!Path::new(BINARY).with_file_name("wavetank-driver").is_file()).then_some("wavetank-driver is not built"),
    ];
    let missing: Vec<&str> = missing.into_iter().flatten().collect();
    let demanded = std::env::var_os("WAVETANK_VM_TESTS").is_some();
    assert!(
        missing.is_empty() || !demanded,
        "WAVETANK_VM_TESTS is set, and {missing:?}"
    );
    if !missing.is_empty() {
        println!("NOT RUN: {}", missing.join(", "));
    }
    missing.is_empty()
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm")
}

fn wavetank(args: &[&str]) -> Output {
    wavetank_in(&cache(), args)
}

fn wavetank_in(cache: &Path, args: &[&str]) -> Output {
    let output = command(cache, args).output();
    output.expect("the binary can be started")
}

fn command(cache: &Path, args: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("sim/ lies in the workspace");
    let mut command = Command::new(BINARY);
    command.args(args).arg("--vm-cache").arg(cache);
    command.current_dir(root).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The machines of this test that run.
fn machines() -> Vec<String> {
    let mut machines = lines_with(&cache().display().to_string());
    machines.retain(|line| line.contains("qemu-system"));
    machines
}

/// The command lines of processes with this text.
fn lines_with(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("the process table").flatten();
    let command = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
    let commands = processes
        .filter_map(command)
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    commands.filter(|line| line.contains(text)).collect()
}

#[track_caller]
fn all_hold(output: &Output, count: usize) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let held = said.lines().filter(|line| line.starts_with("held")).count();
    assert_eq!(held, count, "{said}");
}

#[test]
fn nodes_are_machines_with_kernels_disks_and_power_of_their_own() {
    if !can_run() {
        return;
    }
    let prepared = wavetank(&["vm", "prepare"]);
    assert_eq!(prepared.status.code(), Some(0), "{}", text(&prepared));
    let again = wavetank(&["vm", "prepare"]);
    assert!(text(&again).contains("nothing has changed"), "{}", text(&again));
    let local = wavetank(&[
        "run",
        "--nodes",
        "vm",
        "--volumes",
        "local",
        "sim/tests/vm/grow.yaml",
        "sim/tests/vm/power-cut.yaml",
        "scenarios/restart/driver-upgrade.yaml",
        "scenarios/restart/kubelet.yaml",
    ]);
    all_hold(&local, 4);
    let shared = wavetank(&[
        "run",
        "--nodes",
        "vm",
        "sim/tests/vm/grow.yaml",
        "scenarios/expand/errors-on-both-sides.yaml",
        "scenarios/attach/multi-attach.yaml",
        "scenarios/attach/there-and-back.yaml",
        "scenarios/nodes/node-out-of-service.yaml",
        "scenarios/restart/attacher-during-attach.yaml",
        "scenarios/faults/device-fails.yaml",
    ]);
    all_hold(&shared, 7);
    node_faults();
    storms();
    assert_eq!(machines(), Vec::<String>::new(), "no machine survives the command");
    survives_no_kill();
}

/// Power, pauses, cuts and reboots, as faults of a scenario.
fn node_faults() {
    let faults = wavetank(&["run", "--nodes", "vm", "sim/tests/vm/node-faults.yaml", "--no-trace"]);
    all_hold(&faults, 1);
}

/// Storms around machines: they are played, counted and told like any others.
fn storms() {
    let mut args = vec!["explore", "--nodes", "vm", "sim/tests/vm/grow.yaml", "--seeds", "1"];
    args.extend(["--strategy", "single", "--shrink", "0", "--jobs", "1"]);
    let storms = wavetank(&args);
    let said = text(&storms);
    assert_eq!(storms.status.code(), Some(0), "{said}");
    assert!(said.contains("1 storm of 1 scenario: 1 clean"), "{said}");
}

/// A command that is killed takes its machines with it, and the processes beside them.
fn survives_no_kill() {
    let mut args = vec!["explore", "--nodes", "vm", "sim/tests/vm/grow.yaml"];
    args.extend(["--time", "10m", "--keep-going"]);
    let mut command = command(&cache(), &args);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mark = format!("wavetank-{}-run", child.id());
    let running = comes_true(|| !machines().is_empty() && !lines_with(&mark).is_empty());
    // `Child::kill` is SIGKILL.
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(running, "a machine and the driver's controller ran");
    assert!(
        comes_true(|| machines().is_empty() && lines_with(&mark).is_empty()),
        "left over: {:?} {:?}",
        machines(),
        lines_with(&mark)
    );
    // What a process that was killed could not remove.
    let _ = fs::remove_dir_all(std::env::temp_dir().join(mark));
}

/// Waits for what happens outside of this process; gives up after two minutes.
fn comes_true(mut holds: impl FnMut() -> bool) -> bool {
    let pause = || {
        Command::new("sleep")
            .arg("0.1")
            .status()
            .expect("a process that sleeps")
    };
    (0..1200).any(|_| holds() || !pause().success())
}

#[test]
fn what_is_missing_is_said() {
    let nowhere = Path::new("/nowhere");
    let output = wavetank_in(nowhere, &["run", "scenarios/restart/kubelet.yaml", "--nodes", "vm"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("wavetank"), "{said}");
    let half = wavetank(&["vm", "prepare", "--kernel", "/boot/vmlinuz"]);
    assert_eq!(half.status.code(), Some(64), "{}", text(&half));
}
