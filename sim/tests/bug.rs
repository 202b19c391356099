//! A bug of ours, played through the command: a panic inside a run must end in exit status 70, the token and a sentence.
//!
//! The panic comes from a driver that is put into the command, because the command itself has no door for bugs. This file is its own harness: it starts
//! itself once more as that command, and looks at what it prints.

#![expect(clippy::print_stdout, reason = "a harness says what it did")]

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use wavetank_sim::cli::{self, Drivers};
use wavetank_sim::link::{Factory, Seat};

/// The first argument of the process that plays the command.
const COMMAND: &str = "as-the-command";

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == COMMAND) {
        let broken: Factory = Arc::new(|_: Seat| panic!("two volumes have one name"));
        let drivers = Drivers::from([("csi.wavetank.dev".to_owned(), broken)]);
        let rest = args
            .into_iter()
            .enumerate()
            .filter(|(nth, _)| *nth != 1)
            .map(|(_, arg)| arg);
        return ExitCode::from(cli::main(rest, &drivers));
    }
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    one_run();
    several_runs();
    ExitCode::SUCCESS
}

fn command(args: &[&str]) -> (Option<i32>, String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let this = env::current_exe().expect("the test knows its file");
    let output = Command::new(this).arg(COMMAND).args(args).current_dir(root).output();
    let output = output.expect("the test can start itself");
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn one_run() {
    let (status, out, err) = command(&["run", "scenarios/lifecycle/dynamic-immediate.yaml", "--seed", "3"]);
    assert_eq!(status, Some(70), "{out}{err}");
    for part in [
        "BUG lifecycle/dynamic-immediate",
        "wavetank itself failed: two volumes have one name",
        "This is a bug of wavetank",
        "again: wavetank run scenarios/lifecycle/dynamic-immediate.yaml --seed 3",
        "token: wavetank/",
    ] {
        assert!(out.contains(part), "{part}:\n{out}");
    }
    println!("a panic inside a run ends with 70, the token and a sentence ... ok");
}

fn several_runs() {
    let (status, out, err) = command(&["run", "scenarios/refusals", "scenarios/lifecycle", "--format", "json"]);
    assert_eq!(status, Some(70), "{out}{err}");
    assert!(
        out.lines()
            .any(|line| line.contains(r#""verdict":"broken""#) && line.contains("two volumes have one name"))
    );
    println!("a panic is told in JSON, too ... ok");
}
