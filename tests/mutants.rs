//! Mutants: each is caught again by what caught it before; each promise is broken by one; a canary that a storm must find; a table that names all.
//!
//! Covered here: the recorded catch of each mutant. `wavetank mutants --check` hunts all of them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use wavetank_sim::explore::subject::{Run, Subject as _, Tank};
use wavetank_sim::faults::Strike;
use wavetank_sim::mutants::matrix::{Hunt, hunt};
use wavetank_sim::mutants::{MUTANTS, Mutant, find};
use wavetank_sim::oracles::promises;
use wavetank_sim::play::{Options, play};
use wavetank_sim::scenario::{Scenario, load};

/// Every promise, a mutant that breaks it, and the scenario that shows it without any further fault.
const SHOWN: &[(&str, &str, &str)] = &[
    ("one-writer", "detach-does-not-fence", "attach/there-and-back"),
    (
        "durable-data",
        "publish-ok-without-mount",
        "faults/mount-fails-while-publishing",
    ),
    (
        "no-mkfs-on-data",
        "unreadable-means-blank",
        "faults/device-cannot-be-read",
    ),
    (
        "clone-equals-source",
        "clone-answer-drops-source",
        "faults/clone-answer-lost",
    ),
    ("in-use", "recursive-destroy", "data/clone"),
    ("ok-means-done", "detach-answered-early", "attach/there-and-back"),
    ("same-answer", "clone-retry-refused", "faults/clone-answer-lost"),
    ("sizes", "expand-retry-drops-node-flag", "faults/expand-answer-lost"),
    ("legal-answers", "list-forgets-nodes", "lifecycle/an-hour-in-use"),
    ("secrets", "secrets-in-context", "secrets/of-a-class"),
    (
        "order",
        "failed-unstage-means-staged",
        "errors/unstage-fails-and-the-next-pod-comes",
    ),
    (
        "csi-by-the-cluster",
        "drops-publish-context",
        "lifecycle/dynamic-immediate",
    ),
    ("kubernetes-rules", "attaches-twice", "attach/multi-attach"),
    ("settles", "restart-breaks-expand", "expand/after-the-driver-restarted"),
    ("no-leftovers", "create-leaks-on-doubt", "faults/creation-in-doubt"),
    ("no-hot-loop", "own-errors-wake-it", "errors/refused-until-healed"),
    (
        "driver-alive",
        "leftovers-stop-start",
        "faults/crash-between-two-operations",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn library() -> Vec<Scenario> {
    load(&root().join("scenarios")).unwrap_or_else(|e| panic!("{}", e.render(120, false)))
}

#[test]
fn every_scenario_of_the_catalogue_is_in_the_library() {
    let library = library();
    let names: BTreeSet<&str> = library.iter().map(|scenario| scenario.name.as_str()).collect();
    for mutant in MUTANTS {
        for scenario in mutant.scenarios {
            assert!(
                names.contains(scenario),
                "{} names {scenario}, which is not there",
                mutant.name()
            );
        }
    }
}

#[test]
fn the_table_names_every_mutant_and_no_other() {
    let text = std::fs::read_to_string(root().join("docs/mutants.md")).expect("docs/mutants.md is there");
    let (_, matrix) = text.split_once("<!-- matrix -->").expect("the matrix begins");
    let (matrix, bugs) = matrix
        .split_once("<!-- end of the matrix -->")
        .expect("the matrix ends");
    let rows = matrix.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    let known: BTreeSet<&str> = MUTANTS.iter().map(Mutant::name).collect();
    assert_eq!(told, known, "print it anew: wavetank mutants --format markdown");
    for mutant in MUTANTS {
        let row = format!("| {} |", mutant.bug());
        assert!(
            bugs.contains(&row),
            "{} is modelled on {}, which the page does not tell",
            mutant.name(),
            mutant.bug()
        );
    }
}

#[test]
fn the_canary_is_found_by_a_storm() {
    // If the tank misses this bug, its silence about others means nothing. Without a fault nobody sees it.
    let canary = find("clone-retry-refused").expect("the canary is a mutant");
    let rows = hunt(&[canary], &library(), Hunt::default(), &|_| {});
    let catch = rows[0].catch.as_ref().expect("the canary sings");
    assert!(
        catch.by.is_some() && rows[0].runs > 1,
        "a storm finds it, not the calm run"
    );
    assert!((1..=2).contains(&catch.strikes.len()), "{:?}", catch.strikes);
    assert_eq!(catch.finding.promise, "same-answer");
}

#[test]
fn each_promise_is_broken_by_a_mutant_and_kept_without_it() {
    let shown: Vec<&str> = SHOWN.iter().map(|(promise, ..)| *promise).collect();
    // In the tank nothing of a driver's process can be measured: its own unit tests break that one.
    let judged = promises().into_iter().filter(|promise| promise.name != "bounded");
    let all: Vec<&str> = judged.map(|promise| promise.name).collect();
    assert_eq!(shown, all, "every promise has a mutant here");
    let library = library();
    let mut wrong = Vec::new();
    for (promise, mutant, name) in SHOWN {
        let scenario = library
            .iter()
            .find(|scenario| scenario.name == *name)
            .expect("it is in the library");
        let broken = |mutant| {
            let options = Options {
                mutant,
                ..Options::default()
            };
            let report = play(scenario, &options);
            report.violations.iter().map(|one| one.promise.name).collect::<Vec<_>>()
        };
        let (honest, infected) = (broken(None), broken(Some(find(mutant).expect("a mutant"))));
        if !infected.contains(promise) || !honest.is_empty() {
            wrong.push(format!(
                "{promise}: {mutant} in {name} breaks {infected:?}, and nobody {honest:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `wavetank mutants --format json` printed: a line for each mutant.
const CAUGHT: &str = "snapshots/mutants.jsonl";

#[test]
fn every_mutant_is_caught_by_what_caught_it_before() {
    let text = std::fs::read_to_string(root().join(CAUGHT)).expect("the recorded matrix is there");
    let rows: Vec<Json> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    let told: BTreeSet<&str> = rows.iter().filter_map(|row| row["mutant"].as_str()).collect();
    let known: BTreeSet<&str> = MUTANTS.iter().map(Mutant::name).collect();
    assert_eq!(told, known, "print it anew: wavetank mutants --format json > {CAUGHT}");
    let library: BTreeMap<String, Arc<Scenario>> = library()
        .into_iter()
        .map(|scenario| (scenario.name.clone(), Arc::new(scenario)))
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = caught_again(row, &library) {
                        wrong.lock().expect("nobody panics with it").push(why);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("nobody panics with it");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Plays what a row of the matrix recorded, with the mutant and without.
fn caught_again(row: &Json, library: &BTreeMap<String, Arc<Scenario>>) -> Result<(), String> {
    let name = row["mutant"].as_str().ok_or("a row names its mutant")?;
    let told = |key: &str| {
        row["caught"][key]
            .as_str()
            .ok_or_else(|| format!("{name} was not caught"))
    };
    let (promise, scenario) = (told("promise")?, told("scenario")?);
    if promise == "expectations" {
        return Err(format!("{name} was noticed by no oracle"));
    }
    let scenario = library
        .get(scenario)
        .ok_or_else(|| format!("{name}: there is no {scenario}"))?;
    let strikes: Vec<Strike> =
        serde_json::from_value(row["caught"]["strikes"].clone()).map_err(|error| format!("{name}: {error}"))?;
    let seed = row["caught"]["seed"].as_u64().unwrap_or_default();
    let broken = |mutant| {
        let tank = Tank {
            scenario: Arc::clone(scenario),
            drivers: BTreeMap::new(),
            outside: None,
            mutant,
        };
        tank.play(Run::pinned(seed, strikes.clone()), &Arc::default())
            .broke(promise)
            .is_some()
    };
    match (broken(find(name)), broken(None)) {
        (true, false) => Ok(()),
        (true, true) => Err(format!(
            "{name}: {promise} is broken in {} without it, too",
            scenario.name
        )),
        (false, _) => Err(format!("{name}: {promise} holds in {}", scenario.name)),
    }
}
