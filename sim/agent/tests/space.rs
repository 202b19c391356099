//! The namespaces of a node, on this machine's kernel. Needs root and loop devices.

#![expect(clippy::print_stdout, reason = "a test says what it did not run")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wavetank_agent::wire::{Answer, Ask};
use wavetank_agent::{Client, Program};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    let demanded = std::env::var_os("WAVETANK_ROOT_TESTS").is_some();
    assert!(
        root || !demanded,
        "WAVETANK_ROOT_TESTS is set, and this is no root with loop devices"
    );
    if !root {
        println!("not checked: this needs root and loop devices");
    }
    root
}

fn run(command: &mut Command) {
    let status = command.status().expect("the tool can be started");
    assert!(status.success(), "{command:?}: {status}");
}

#[test]
fn a_node_has_no_copy_of_a_mount_that_keeps_somebodys_loop_device_open() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().expect("a directory for the test");
    let [image, mounted, node] = ["image", "mounted", "node"].map(|name| place.path().join(name));
    fs::create_dir(&mounted)
        .and_then(|()| fs::create_dir(&node))
        .expect("directories");
    let file = fs::File::create(&image).expect("a file for the test");
    file.set_len(64 << 20).expect("it grows");
    run(Command::new("mkfs.ext4").arg("-q").arg(&image));
    run(Command::new("mount").args(["-o", "loop"]).args([&image, &mounted]));

    let program = Program {
        file: env!("CARGO_BIN_EXE_wavetank-agent").into(),
        prefix: Vec::new(),
    };
    let agent = Client::start(&program, true, &node.join("log"), Duration::from_secs(60));
    let seen = agent.map(|mut agent| agent.ask(&Ask::Mounts(place.path().display().to_string())));
    run(Command::new("umount").arg(&mounted));
    match seen {
        Ok(Ok(Answer::Pairs(pairs))) => assert_eq!(pairs, []),
        other => panic!("{other:?}"),
    }
}
