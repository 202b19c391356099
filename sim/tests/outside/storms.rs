//! Storms around drivers behind sockets: what may strike, what is found, and how it is seen again.

use std::fs;

use crate::rig::{MEMORY, Place, beside, driver, is_root, text, wavetank};

/// The token in what a campaign says.
fn token(said: &str) -> &str {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("token: "));
    line.expect("a token")
}

#[test]
fn a_storm_around_the_reference_driver_finds_nothing_and_says_what_it_cannot_do() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    let profile = place.profile(&driver, "memory", MEMORY, &[]);
    // The second leaves a volume behind when the provisioner dies in it, which is Kubernetes' doing and no finding.
    let scenarios = [
        "scenarios/errors/create-answers-lost.yaml",
        "scenarios/errors/claim-deleted-while-uncertain.yaml",
    ];
    let run = || {
        let mut args = vec!["explore", "--driver", &profile, "--seeds", "6", "--strategy", "random"];
        args.extend(scenarios);
        args.push("scenarios/data");
        wavetank(&args)
    };
    let (first, second) = (run(), run());
    let said = text(&first);
    assert_eq!(first.status.code(), Some(0), "{said}");
    for part in [
        "12 storms of 2 scenarios: 12 clean",
        "no fault strikes operations of the driver's machine",
        "no node dies",
        "the driver's controller does not die: its volumes do not survive that",
        "n/a     data/",
        "not judged: no-mkfs-on-data",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let report = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(report(&first), report(&second), "the same storms, the same answers");
    let none = wavetank(&["explore", "--driver", &profile, "--seeds", "1", "scenarios/data"]);
    assert_eq!(none.status.code(), Some(5), "{}", text(&none));
}

#[test]
fn a_run_that_is_played_twice_shows_a_driver_that_answers_the_same_and_one_that_does_not() {
    let Some(driver) = driver() else { return };
    let place = Place::new();
    let profile = place.profile(&driver, "memory", MEMORY, &[]);
    let twice = |profile: &str, scenario: &str| {
        let args = [
            "explore",
            "--driver",
            profile,
            "--seeds",
            "4",
            "--strategy",
            "twice",
            "--jobs",
            "1",
        ];
        wavetank(&[&args[..], &[scenario]].concat())
    };
    let same = twice(&profile, "scenarios/errors/stage-uncertain.yaml");
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));
    let (Some(newcomer), true) = (beside("newcomer-driver"), is_root()) else {
        return;
    };
    // Its volumes lie in one directory, whichever run it is, and are numbered: a volume that is kept moves the numbers of the next run.
    let other = place.newcomer(&newcomer, &place.path("volumes"));
    let differs = twice(&other, "scenarios/lifecycle/retain.yaml");
    let said = text(&differs);
    assert_eq!(differs.status.code(), Some(4), "{said}");
    assert!(
        said.contains("calls, order and faults were the same, socket:newcomer.csi.example.com:"),
        "{said}"
    );
}

#[test]
fn a_violation_is_repeated_by_its_token_and_its_replay_file_with_the_same_profile_only() {
    let (Some(newcomer), true) = (beside("newcomer-driver"), is_root()) else {
        return;
    };
    let place = Place::new();
    let profile = place.newcomer(&newcomer, "{state_dir}/volumes");
    let (scenario, out) = ("scenarios/lifecycle/retain.yaml", place.path("found"));
    let found = wavetank(&[
        "explore",
        scenario,
        "--driver",
        &profile,
        "--seeds",
        "1",
        "--strategy",
        "random",
        "--out",
        &out,
        "--shrink",
        "6",
    ]);
    let said = text(&found);
    assert!(matches!(found.status.code(), Some(2 | 3)), "{said}");
    let token = token(&said);
    assert!(token.contains("/link=socket:newcomer.csi.example.com:"), "{token}");
    let again = wavetank(&["replay", token, scenario, "--driver", &profile]);
    assert_eq!(again.status.code(), found.status.code(), "{}", text(&again));
    for wrong in [
        wavetank(&["replay", token, scenario]),
        wavetank(&[
            "run",
            scenario,
            "--token",
            token,
            "--driver",
            &place.newcomer_with(&newcomer, "block: true"),
        ]),
    ] {
        assert_eq!(wrong.status.code(), Some(64), "{}", text(&wrong));
    }
    let files: Vec<String> = fs::read_dir(&out)
        .expect("the folder of --out")
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .filter(|file| file.ends_with(".replay.yaml"))
        .collect();
    let file = files.first().expect("a replay file");
    let replayed = wavetank(&["replay", file, "--driver", &profile]);
    assert_eq!(replayed.status.code(), Some(0), "{}", text(&replayed));
}
