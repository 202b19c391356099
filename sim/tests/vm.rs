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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("sim/ lies in the workspace");
    let mut command = Command::new(BINARY);
    command.args(args).arg("--vm-cache").arg(cache);
    command.current_dir(root).stdin(Stdio::null());
    command.output().expect("the binary can be started")
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
    let processes = fs::read_dir("/proc").expect("the process table").flatten();
    let command = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
    let commands = processes
        .filter_map(command)
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    let cache = cache().display().to_string();
    commands
        .filter(|line| line.contains("qemu-system") && line.contains(&cache))
        .collect()
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
    ]);
    all_hold(&shared, 6);
    assert_eq!(machines(), Vec::<String>::new(), "no machine survives the command");
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
