//! Nothing survives wavetank, however it ends; and a driver that hangs is no verdict.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use wavetank_sim::link::socket::{Outside, Profile, Program};

use crate::rig::binary::{BINARY, command};
use crate::rig::{
    MEMORY, Place, XFS, comes_true, driver, is_root, loops_with, numbers_with, processes_with, text, wavetank,
};

/// A campaign that goes on until it is ended, and the text by which everything of it is known.
fn campaign(profile: &str, scenario: &str) -> (Child, String) {
    let mut command = command(&[
        "explore",
        scenario,
        "--driver",
        profile,
        "--time",
        "10m",
        "--keep-going",
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("the binary can be started");
    let mark = format!("wavetank-{}-run/", child.id());
    (child, mark)
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process");
    kill_process(pid, signal).expect("the process is there");
}

/// When a campaign is ended.
#[derive(Clone, Copy, PartialEq)]
enum While {
    /// The driver tells what it can do, in the first run's directory.
    Asked,
    /// Storms are played around it, in others.
    Played,
}

/// Starts a campaign, waits until a driver runs, and ends it: nothing is left a moment later.
fn ends(profile: &str, scenario: &str, when: While, signals: &[Signal]) -> Option<i32> {
    let (mut child, mark) = campaign(profile, scenario);
    let asked = format!("{mark}0/");
    let fits = |line: &String| line.contains("--node-id") && line.contains(&asked) == (when == While::Asked);
    let running = comes_true(|| processes_with(&mark).iter().any(fits));
    assert!(running, "a driver of {mark} runs");
    for signal in signals {
        send(&child, *signal);
    }
    let status = child.wait().expect("it ends");
    let agents = |mark: &str| processes_with(mark).len();
    assert!(
        comes_true(|| agents(&mark) == 0),
        "left over: {:?}",
        processes_with(&mark)
    );
    assert!(
        comes_true(|| loops_with(&mark).is_empty()),
        "left over: {:?}",
        loops_with(&mark)
    );
    let mounts = fs::read_to_string("/proc/self/mounts").expect("procfs");
    assert!(!mounts.contains(&mark), "{mounts}");
    // What a process that was killed could not remove.
    let _ = fs::remove_dir_all(std::env::temp_dir().join(mark.trim_end_matches('/')));
    status.code()
}

#[test]
fn nothing_survives_an_interrupt_or_a_kill() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    let profile = place.profile(&driver, "memory", MEMORY, &[]);
    let scenario = "scenarios/errors/create-answers-lost.yaml";
    let interrupts = [Signal::INT, Signal::INT];
    assert_eq!(ends(&profile, scenario, While::Played, &interrupts), Some(130));
    assert_eq!(ends(&profile, scenario, While::Played, &[Signal::KILL]), None);
    // What is asked here never answers, so that it cannot be missed.
    let slow = place.file(
        "slow.yaml",
        "name: a.b\nmounts: false\ncombined: {command: [tail, -f, /dev/null, --, --node-id, '{endpoint}']}\n",
    );
    assert_eq!(ends(&slow, scenario, While::Asked, &[Signal::INT]), Some(130));
    if is_root() {
        let profile = place.profile(&driver, "loop", XFS.0, XFS.1);
        let scenario = "scenarios/lifecycle/an-hour-in-use.yaml";
        assert_eq!(ends(&profile, scenario, While::Played, &interrupts), Some(130));
        assert_eq!(ends(&profile, scenario, While::Played, &[Signal::KILL]), None);
    }
}

#[test]
fn what_is_killed_with_all_its_agents_the_next_command_clears_away() {
    let (Some(driver), true) = (driver(), is_root()) else {
        return;
    };
    let place = Place::new();
    let profile = place.profile(&driver, "loop", XFS.0, XFS.1);
    let scenario = "scenarios/lifecycle/an-hour-in-use.yaml";
    let (mut child, mark) = campaign(&profile, scenario);
    assert!(
        comes_true(|| !loops_with(&mark).is_empty()),
        "a volume of {mark} is in use"
    );
    // The agents first, while the command stands still: nobody is left who could let go of anything.
    send(&child, Signal::STOP);
    for agent in numbers_with(&mark) {
        let _ = kill_process(agent, Signal::KILL);
    }
    send(&child, Signal::KILL);
    child.wait().expect("it ends");
    let directory = std::env::temp_dir().join(mark.trim_end_matches('/'));
    assert!(directory.exists(), "nobody was left to remove {mark}");
    let memory = place.profile(&driver, "memory", MEMORY, &[]);
    let next = wavetank(&["run", "scenarios/errors/create-answers-lost.yaml", "--driver", &memory]);
    assert_eq!(next.status.code(), Some(0), "{}", text(&next));
    assert!(
        comes_true(|| processes_with(&mark).is_empty() && loops_with(&mark).is_empty()),
        "left over: {:?} {:?}",
        processes_with(&mark),
        loops_with(&mark)
    );
    assert!(!directory.exists(), "{mark} is gone");
}

#[test]
fn nothing_survives_a_panic() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    let file = place.profile(&driver, "memory", MEMORY, &[]);
    let text = fs::read_to_string(&file).expect("the profile");
    let profile = Profile::read(&file, text).expect("a profile");
    let program = Program {
        file: BINARY.into(),
        prefix: vec!["agent".to_owned()],
    };
    let directory = std::env::temp_dir().canonicalize().expect("a place for scratch files");
    let directory = directory.join(format!("wavetank-{}-panic", std::process::id()));
    let mark = directory.display().to_string();
    let shape = profile.combined.clone().expect("one process");
    let outside = Outside::open(profile, program, &directory).expect("the driver can be asked");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let run = outside.begin();
        let process = run.process("node-1", &shape, "csi.wavetank.dev", true);
        process.start().expect("the driver starts");
        assert!(!processes_with(&mark).is_empty(), "it runs");
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    drop(outside);
    assert!(
        comes_true(|| processes_with(&mark).is_empty()),
        "{:?}",
        processes_with(&mark)
    );
    assert!(!Path::new(&mark).exists(), "its directory is gone, too");
}

#[test]
fn a_driver_that_hangs_is_not_judged_and_its_output_is_kept() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    // It stands still as soon as kubelet has made a directory for a pod.
    let script = format!(
        "echo begins; '{}' --endpoint \"$1\" --node-id \"$2\" --backend memory --state-dir \"$3\" --root \"$4\" & \
         while [ -z \"$(ls \"$4/pods\")\" ]; do sleep 0.01; done; kill -STOP $!; echo stands still; wait",
        driver.display()
    );
    let script = place.file("stops.sh", &script);
    let profile = place.file(
        "hangs.yaml",
        &format!(
            "name: csi.wavetank.dev\nnodes: 1\n{MEMORY}\nwatchdog: 3s\n\
             combined: {{command: [sh, '{script}', '{{endpoint}}', '{{node}}', '{{state_dir}}', '{{kubelet_dir}}']}}\n"
        ),
    );
    let hung = wavetank(&[
        "run",
        "scenarios/errors/stage-uncertain.yaml",
        "--driver",
        &profile,
        "--no-trace",
    ]);
    let said = text(&hung);
    assert_eq!(hung.status.code(), Some(5), "{said}");
    assert!(said.contains("not judged: the driver hangs"), "{said}");
    let log = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("output of the driver (node-1): "));
    let log = fs::read_to_string(log.expect("a log")).expect("the log is there");
    assert!(log.contains("begins") && log.contains("stands still"), "{log}");
}
