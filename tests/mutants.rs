//! Mutants: a canary that must be found, scenarios that are there, and a table that names them all. `wavetank mutants --check` hunts them all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wavetank_sim::mutants::matrix::{Hunt, hunt};
use wavetank_sim::mutants::{MUTANTS, Mutant, find};
use wavetank_sim::scenario::{Scenario, load};

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
fn the_canary_is_found() {
    // If the tank misses this bug, its silence about others means nothing.
    let canary = find("skips-unstage").expect("the canary is a mutant");
    let rows = hunt(
        &[canary],
        &library(),
        Hunt {
            runs: 4,
            shrink: 0,
            ..Hunt::default()
        },
        &|_| {},
    );
    let catch = rows[0].catch.as_ref().expect("the canary sings");
    assert_ne!(
        catch.finding.promise, "expectations",
        "an oracle notices, not only the scenario"
    );
}
