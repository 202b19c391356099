//! Mutants: those that no fault is needed for are noticed, each by its promise; a canary that must be found; scenarios that are there; a table that names all.
//!
//! Covered here: the calm run of each mutant in [`BOLD`]. `wavetank mutants --check` hunts all of them through storms.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wavetank_sim::mutants::matrix::{Hunt, hunt};
use wavetank_sim::mutants::{MUTANTS, Mutant, find};
use wavetank_sim::scenario::{Scenario, load};

/// Mutants that show without any fault, and the promise that they break. May only grow.
const BOLD: &[(&str, &str)] = &[
    ("attach-limit-at-start", "same-answer"),
    ("attach-retry-other-slot", "same-answer"),
    ("attach-retry-refused", "same-answer"),
    ("clone-snapshot-left", "no-leftovers"),
    ("copy-not-grown", "sizes"),
    ("deletes-while-attached", "order"),
    ("detach-answered-early", "ok-means-done"),
    ("detach-does-not-fence", "ok-means-done"),
    ("detaches-in-use", "order"),
    ("driver-detaches-others", "ok-means-done"),
    ("grow-before-rescan", "sizes"),
    ("inner-layer-not-grown", "sizes"),
    ("list-forgets-nodes", "legal-answers"),
    ("parent-cleanup-too-broad", "in-use"),
    ("recursive-destroy", "in-use"),
    ("restart-forgets-mounts", "order"),
    ("skips-unstage", "order"),
    ("unpublish-ignores-node", "in-use"),
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
fn what_needs_no_fault_is_noticed_at_once() {
    let mutants: Vec<&'static Mutant> = BOLD.iter().filter_map(|(name, _)| find(name)).collect();
    assert_eq!(mutants.len(), BOLD.len(), "each of them is a mutant");
    let how = Hunt {
        runs: 1,
        shrink: 0,
        jobs: 2,
        ..Hunt::default()
    };
    for (row, (name, promise)) in hunt(&mutants, &library(), how, &|_| {}).iter().zip(BOLD) {
        let catch = row.catch.as_ref();
        assert_eq!(
            catch.map(|catch| catch.finding.promise.as_str()),
            Some(*promise),
            "{name}"
        );
    }
}
