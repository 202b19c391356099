//! The built command around drivers that are processes of their own: the reference driver behind a socket, with memory and with loop devices.

#![expect(clippy::print_stdout, reason = "a test says what it did not run")]

mod ends;
mod rig;
mod shapes;
mod storms;

use std::fs;
use std::process::Output;

use rig::{MEMORY, Place, XFS, driver, is_root, loops_with, marked, text, wavetank};

/// Every line of a library run: what held, what does not apply, and nothing else.
#[track_caller]
fn nothing_fails(output: &Output, least: usize) -> usize {
    let said = text(output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let held = said.lines().filter(|line| line.starts_with("held")).count();
    assert!(held >= least, "only {held} scenarios held:\n{said}");
    held
}

#[test]
fn the_library_holds_around_the_reference_driver_with_memory() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    let profile = place.profile(&driver, "memory", MEMORY, &[]);
    let run = || wavetank(&["run", "scenarios", "--driver", &profile, "--digest"]);
    let (first, second) = (run(), run());
    nothing_fails(&first, 44);
    assert!(
        text(&first).contains("not applicable to this driver"),
        "{}",
        text(&first)
    );
    assert_eq!(text(&first), text(&second), "the same calls, the same answers");
}

#[test]
fn the_library_holds_around_the_reference_driver_with_loop_devices() {
    let (Some(driver), true) = (driver(), is_root()) else {
        return;
    };
    let place = Place::new();
    let profile = place.profile(&driver, "loop", XFS.0, XFS.1);
    let (played, mark) = marked(&["run", "--driver", &profile, "scenarios"]);
    nothing_fails(&played, 75);
    assert_eq!(loops_with(&mark), Vec::<String>::new(), "loop devices are left over");
}

#[test]
fn a_profile_is_written_by_asking_the_driver_and_can_be_played_with() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    let output = place.path("asked.yaml");
    let output = output.as_str();
    let driver = driver.to_str().expect("a plain path");
    let command = [
        "--endpoint",
        "{endpoint}",
        "--node-id",
        "{node}",
        "--backend",
        "memory",
        "--root",
        "{kubelet_dir}",
    ];
    let mut args = vec!["driver", "init", "--no-mounts", "--output", output, "--", driver];
    args.extend(command);
    args.extend(["--state-dir", "{state_dir}"]);
    let asked = wavetank(&args);
    assert_eq!(asked.status.code(), Some(0), "{}", text(&asked));
    let written = fs::read_to_string(output).expect("the profile");
    assert!(
        written.contains("CREATE_DELETE_VOLUME") && written.contains("name: csi.wavetank.dev"),
        "{written}"
    );
    let played = wavetank(&[
        "run",
        "scenarios/errors/create-answers-lost.yaml",
        "--driver",
        output,
        "--no-trace",
    ]);
    assert_eq!(played.status.code(), Some(0), "{}", text(&played));
    let again = wavetank(&args);
    assert_eq!(
        again.status.code(),
        Some(64),
        "an existing file stays as it is: {}",
        text(&again)
    );
}

#[test]
fn what_cannot_be_played_is_said() {
    let place = Place::new();
    let wrong = place.file("wrong.yaml", "name: a.b\ncombined:\n  comand: [x]\n");
    let refused = wavetank(&["run", "scenarios/secrets", "--driver", &wrong]);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
    assert!(
        text(&refused).contains("did you mean `combined.command`"),
        "{}",
        text(&refused)
    );
    let dead = place.file(
        "dead.yaml",
        "name: a.b\nmounts: false\ncombined: {command: [sh, -c, 'echo no such disk; exit 3']}\n",
    );
    let dead = wavetank(&["run", "scenarios/secrets", "--driver", &dead]);
    assert_eq!(dead.status.code(), Some(5), "{}", text(&dead));
    let said = text(&dead);
    assert!(
        said.contains("with status 3") && said.contains("no such disk"),
        "{said}"
    );
    let silent = place.file(
        "silent.yaml",
        "name: a.b\nmounts: false\nwatchdog: 1s\ncombined: {command: [sleep, '1000']}\n",
    );
    let silent = wavetank(&["run", "scenarios/secrets", "--driver", &silent]);
    assert_eq!(silent.status.code(), Some(5), "{}", text(&silent));
    assert!(text(&silent).contains("takes no connections"), "{}", text(&silent));
}
