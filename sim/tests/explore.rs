//! `wavetank explore`, `replay` and `merge` as people and scripts meet them.

mod built;

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use built::binary::command;
use built::{Ran, folder, wavetank};

/// A short scenario.
const SHORT: &str = "scenarios/binding/static-volume.yaml";

/// A scenario and a bug that needs one fault to show.
const CLONE: &str = "scenarios/data/clone.yaml";
const BUG: &str = "clone-retry-refused";
/// The promise that it breaks.
const BROKEN: &str = "same-answer";

#[test]
fn wrong_usage_is_refused_with_the_right_spelling() {
    wavetank(&["explore"]).refuses(64, &["<PATH>"]);
    wavetank(&["explore", SHORT, "--strategy", "swram"]).refuses(64, &["did you mean `swarm`"]);
    wavetank(&["explore", SHORT, "--shard", "3/2"]).refuses(64, &["there is no shard 3 of 2"]);
    wavetank(&["explore", SHORT, "--shard", "0/2"]).refuses(64, &["2/8"]);
    wavetank(&["explore", SHORT, "--time", "ten"]).refuses(64, &["ten"]);
    wavetank(&["explore", SHORT, "--time", "0s"]).refuses(64, &["no time at all"]);
    wavetank(&["explore", SHORT, "--jobs", "0"]).refuses(64, &["0"]);
    wavetank(&["explore", SHORT, "--seeds", "9..3"]).refuses(64, &["there is no seed in it"]);
    wavetank(&["explore", "scenarios/binding/static-volum.yaml"])
        .refuses(64, &["did you mean `scenarios/binding/static-volume.yaml`"]);
    let empty = folder("empty");
    wavetank(&["explore", empty.to_str().expect("text")]).refuses(64, &["empty"]);
    let file = empty.join("file");
    fs::write(&file, "").expect("the target folder can be written");
    let below = file.join("out");
    wavetank(&["explore", SHORT, "--seeds", "1", "--out", below.to_str().expect("text")])
        .refuses(64, &["cannot be written"]);
}

#[test]
fn the_same_campaign_prints_the_same_whatever_the_number_of_jobs() {
    let with = |jobs| {
        wavetank(&[
            "explore",
            SHORT,
            "--seeds",
            "24",
            "--jobs",
            jobs,
            "--format",
            "json",
            "--keep-going",
            "--shrink",
            "5",
        ])
    };
    let (one, three) = (with("1"), with("3"));
    assert_eq!(one.out, three.out);
    let lines: Vec<Json> = one
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[0]["type"], "campaign");
    assert_eq!(lines[1]["runs"], 24);
    assert!(lines[1]["coverage"]["offered"].as_u64() > Some(10), "{}", lines[1]);
    assert_eq!(lines.last().expect("a summary")["type"], "summary");
}

#[test]
fn a_token_repeats_a_storm_in_another_process() {
    let found = wavetank(&[
        "explore",
        CLONE,
        "--mutant",
        BUG,
        "--seeds",
        "170",
        "--strategy",
        "single",
        "--keep-going",
        "--format",
        "json",
        "--shrink",
        "0",
    ]);
    assert_eq!(found.status, Some(2), "{}", found.err);
    let mut lines = found
        .out
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let violation = lines.find(|line| line["promise"] == BROKEN).expect("the bug is found");
    let token = violation["token"].as_str().expect("a token");
    assert!(
        token.contains("/storm=single:") && token.ends_with("/mutant=clone-retry-refused"),
        "{token}"
    );
    let again = || wavetank(&["run", CLONE, "--token", token, "--format", "json", "--digest"]);
    let (first, second) = (again(), again());
    assert_eq!(first.status, Some(2), "{}", first.err);
    assert_eq!(first.out, second.out);
    assert!(first.out.contains("\"type\":\"fault\""), "the storm is in the run");
    let by_digest = wavetank(&["replay", token, "--format", "json"]);
    assert_eq!(by_digest.status, Some(2), "{}", by_digest.err);
    assert_eq!(by_digest.out.lines().count(), first.out.lines().count());
    wavetank(&["replay", token, SHORT]).refuses(64, &["no scenario in", "was changed since"]);
    let old = token.replace(&format!("/{}/", env!("CARGO_PKG_VERSION")), "/0.0.1/");
    wavetank(&["replay", &old]).refuses(64, &["a token repeats a run in its own version only"]);
    wavetank(&["replay", "wavetank/banana"]).refuses(64, &["is no token"]);
}

#[test]
fn a_violation_becomes_a_replay_file_that_shows_it_again() {
    let out = folder("replay-out");
    let dir = out.to_str().expect("text");
    let found = wavetank(&[
        "explore",
        CLONE,
        "--mutant",
        BUG,
        "--seeds",
        "170",
        "--strategy",
        "single",
        "--keep-going",
        "--out",
        dir,
    ]);
    assert_eq!(found.status, Some(2), "{}{}", found.out, found.err);
    let replay = out.join("data-clone-same-answer.replay.yaml");
    let path = replay.to_str().expect("text");
    assert!(found.out.contains(&format!("wavetank replay {path}")), "{}", found.out);
    let text = fs::read_to_string(&replay).expect("a replay file is written");
    assert!(text.starts_with("# BROKEN same-answer"), "{text}");
    let shown = wavetank(&["replay", path]);
    assert_eq!(shown.status, Some(0), "{}{}", shown.out, shown.err);
    assert!(
        shown
            .out
            .contains("is broken by clone-retry-refused, and not without it"),
        "{}",
        shown.out
    );
    let junit = fs::read_to_string(out.join("junit.xml")).expect("JUnit is written");
    assert!(junit.contains("failures=\"1\""), "{junit}");
    // Without what strikes the promise holds. The folder holds these two alone.
    let alone = folder("replay-alone");
    let dir = alone.to_str().expect("text");
    fs::copy(&replay, alone.join("there.replay.yaml")).expect("the target folder can be written");
    let (head, rest) = text.split_once("strikes:\n").expect("strikes");
    let scenario = &rest[rest.find("scenario:").expect("a scenario")..];
    let healed = alone.join("healed.replay.yaml");
    fs::write(&healed, format!("{head}strikes: []\n{scenario}")).expect("the target folder can be written");
    let gone = wavetank(&["replay", healed.to_str().expect("text")]);
    assert_eq!(gone.status, Some(1), "{}{}", gone.out, gone.err);
    assert!(gone.out.contains("GONE"), "{}", gone.out);
    let both = wavetank(&["replay", dir]);
    assert_eq!((both.status, both.out.lines().count()), (Some(1), 2), "{}", both.out);
    fs::write(&replay, "schema: 7\n").expect("the target folder can be written");
    wavetank(&["replay", replay.to_str().expect("text")]).refuses(64, &["schema 7"]);
    wavetank(&["replay", "nowhere.replay.yaml"]).refuses(64, &["cannot be read"]);
    wavetank(&["replay", "scenarios"]).refuses(64, &["neither a token nor a replay file"]);
}

#[test]
fn shards_are_joined_and_missing_ones_named() {
    let out = folder("shards");
    // Nothing in it that a storm could break.
    let file = out.join("quiet.yaml");
    fs::write(&file, "because: nothing happens\nsteps: [{ run: 1m }]\n").expect("the target folder can be written");
    let file = file.to_str().expect("text");
    let part = |nth: &str| {
        let dir = out.join(nth);
        let dir = dir.to_str().expect("text");
        let shard = format!("{nth}/3");
        let ran = wavetank(&[
            "explore",
            file,
            "--seeds",
            "9",
            "--strategy",
            "swarm",
            "--shard",
            &shard,
            "--out",
            dir,
        ]);
        assert_eq!(ran.status, Some(0), "{}{}", ran.out, ran.err);
        out.join(nth).join("report.json").to_str().expect("text").to_owned()
    };
    let (one, two, three) = (part("1"), part("2"), part("3"));
    let some = wavetank(&["merge", &one, &three]);
    assert_eq!(some.status, Some(5), "{}", some.err);
    assert!(some.out.contains("shard 2/3 is missing"), "{}", some.out);
    let all = wavetank(&["merge", &one, &two, &three]);
    assert_eq!(all.status, Some(0));
    assert!(all.out.contains("9 storms of 1 scenario"), "{}", all.out);
    let page = out.join("all.html");
    let drawn = wavetank(&["merge", &one, &two, &three, "--report", page.to_str().expect("text")]);
    assert_eq!(drawn.status, Some(0), "{}", drawn.err);
    let html = fs::read_to_string(page).expect("the page is written");
    assert!(html.contains("9 storms of 1 scenario"), "the page tells of all shards");
    wavetank(&["merge", &one, &one]).refuses(64, &["shard 1/3 is in both"]);
    wavetank(&["merge", SHORT]).refuses(64, &["is no report of a campaign"]);
}

#[test]
fn an_interrupt_keeps_what_was_found() {
    let out = folder("interrupt-out");
    let args = [
        "explore",
        "scenarios/lifecycle/dynamic-immediate.yaml",
        "--seeds",
        "1000000",
        "--keep-going",
        "--out",
        out.to_str().expect("text"),
    ];
    let child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let pid = child.id().to_string();
    // Long enough that something was found; a slower machine has found less, which changes nothing that is asserted but the violations.
    Command::new("sleep").arg("8").status().expect("there is a sleep");
    Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .expect("there is a kill");
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert_eq!(ran.status, Some(130), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("ended early"), "{}", ran.out);
    let report: Json =
        serde_json::from_str(&fs::read_to_string(out.join("report.json")).expect("the report is written"))
            .expect("the report is JSON");
    assert_eq!(report["interrupted"], true);
}

#[test]
fn a_budget_of_time_counts_shrinking_and_nothing_found_is_lost() {
    let out = folder("in-time");
    // Shrinking all of it as far as it goes would take minutes, and so would the storms.
    let args = [
        "explore",
        "scenarios/lifecycle",
        "scenarios/attach",
        "--mutant",
        "device-left-on-unstage",
        "--keep-going",
        "--shrink",
        "100000",
        "--time",
        "4s",
        "--out",
        out.to_str().expect("text"),
    ];
    let ran = wavetank(&args);
    assert_eq!(ran.status, Some(3), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("there was no time to shrink it"), "{}", ran.out);
    let report: Json =
        serde_json::from_str(&fs::read_to_string(out.join("report.json")).expect("the report is written"))
            .expect("the report is JSON");
    let scenarios = report["scenarios"].as_array().expect("a list");
    let found = scenarios
        .iter()
        .flat_map(|s| s["violations"].as_array().expect("a list"));
    let shrunk: Vec<&Json> = found.map(|found| &found["shrunk"]).collect();
    assert!(shrunk.iter().any(|shrunk| shrunk["cutShort"] == true));
    for shrunk in shrunk {
        let file = shrunk["file"].as_str().expect("each violation has a replay file");
        assert!(
            fs::read_to_string(file).is_ok_and(|text| text.contains("schema: 1")),
            "{file}"
        );
    }
}
