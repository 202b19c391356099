//! The scenario library: one test per file, each with a few seeds.
//!
//! A failing test prints what was not so and the one command that shows it.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use wavetank_sim::play::{Options, play};
use wavetank_sim::scenario::{Scenario, load};
use wavetank_sim::trace::Token;

/// The seeds that every scenario must hold with.
const SEEDS: std::ops::Range<u64> = 0..3;

fn main() {
    let folder = scenarios();
    let library = load(&folder).unwrap_or_else(|e| panic!("{}", e.render(120, false)));
    assert!(
        library.len() >= 24,
        "the library has shrunk to {} scenarios",
        library.len()
    );
    let trials = library
        .into_iter()
        .map(|scenario| Trial::test(scenario.name.clone(), move || judge(&scenario)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn judge(scenario: &Scenario) -> Result<(), Failed> {
    let mut never: Vec<String> = scenario.sometimes.iter().map(ToString::to_string).collect();
    for seed in SEEDS {
        let report = play(
            scenario,
            &Options {
                seed,
                ..Options::default()
            },
        );
        if !report.verdict.held() {
            let token = Token::new(scenario, seed);
            let command = format!("wavetank run scenarios/{}.yaml --token {token}", scenario.name);
            return Err(format!(
                "{:#?}\n{:#?}\ntoken: {token}\nsee it with: {command}",
                report.verdict, report.violations
            )
            .into());
        }
        never.retain(|what| !report.sometimes.iter().any(|(seen, yes)| *yes && seen == what));
    }
    if never.is_empty() {
        Ok(())
    } else {
        Err(format!("to be seen sometimes, and never was: {}", never.join(", ")).into())
    }
}
