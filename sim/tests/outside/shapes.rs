//! How a driver may be there: as one process or two, started by us or by somebody else, with an inventory or without.

use std::process::{Child, Command, Stdio};

use crate::rig::{Place, beside, comes_true, driver, is_root, text, wavetank};

/// A process that ends with its test.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_driver_that_runs_already_is_played_with_and_left_alone() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    let socket = place.path("csi.sock");
    let roots = std::env::temp_dir().canonicalize().expect("a place for scratch files");
    let mut stranger = Command::new(driver);
    stranger
        .args([
            "--endpoint",
            &format!("unix://{socket}"),
            "--node-id",
            "node-1",
            "--backend",
            "memory",
        ])
        .args(["--state-dir", &place.path("state"), "--root"])
        .arg(roots)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut stranger = Stranger(stranger.spawn().expect("the driver starts"));
    assert!(comes_true(|| std::path::Path::new(&socket).exists()), "it serves");
    let profile = place.file(
        "there.yaml",
        &format!("name: csi.wavetank.dev\nnodes: 1\nmounts: false\nkeepsState: false\ncombined: {{endpoint: 'unix://{socket}'}}\n"),
    );
    let played = wavetank(&[
        "run",
        "scenarios/errors/create-answers-lost.yaml",
        "--driver",
        &profile,
        "--no-trace",
    ]);
    let said = text(&played);
    assert_eq!(played.status.code(), Some(0), "{said}");
    assert!(said.contains("not judged: bounded: no process"), "{said}");
    let ended = wavetank(&["run", "scenarios/restart/driver-upgrade.yaml", "--driver", &profile]);
    assert!(
        text(&ended).contains("which wavetank did not start"),
        "{}",
        text(&ended)
    );
    assert!(
        stranger.0.try_wait().expect("it can be asked").is_none(),
        "it still runs"
    );
}

#[test]
fn controller_and_nodes_may_be_processes_of_their_own_and_an_inventory_shows_what_leaks() {
    let (Some(newcomer), true) = (beside("newcomer-driver"), is_root()) else {
        return;
    };
    let place = Place::new();
    let volumes = place.path("volumes");
    std::fs::create_dir(&volumes).expect("a directory for volumes");
    let program = newcomer.display();
    let process =
        format!("{{command: ['{program}', --endpoint, '{{endpoint}}', --node, '{{node}}', --data, '{volumes}']}}");
    let profile = place.file(
        "split.yaml",
        &format!(
            "name: newcomer.csi.example.com\ncontroller: {process}\nnode: {process}\nblock: false\n\
             csiDriver: {{attachRequired: false}}\ninventory: {{command: [ls, '{volumes}']}}\n"
        ),
    );
    let held = wavetank(&["run", "scenarios/data/idle-neighbour.yaml", "--driver", &profile]);
    let said = text(&held);
    assert_eq!(held.status.code(), Some(0), "{said}");
    // The next run has the same place, which must not hold what this one has kept.
    std::fs::remove_dir_all(&volumes).expect("the volumes can be removed");
    std::fs::create_dir(&volumes).expect("a directory for volumes");
    let leaks = wavetank(&[
        "run",
        "scenarios/errors/create-answers-lost.yaml",
        "--driver",
        &profile,
        "--no-trace",
    ]);
    let said = text(&leaks);
    assert_eq!(leaks.status.code(), Some(3), "{said}");
    assert!(said.contains("left over: volume vol-1 of the driver"), "{said}");
    for place in ["controller", "node-1", "node-2", "node-3"] {
        let log = format!("output of the driver ({place}): ");
        let log = said.lines().find_map(|line| line.trim().strip_prefix(log.as_str()));
        let log = log.unwrap_or_else(|| panic!("a process of its own at {place}\n{said}"));
        assert!(std::path::Path::new(log).is_file(), "{log}");
    }
}
