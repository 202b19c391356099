//! The scenarios of this driver, each with a few seeds.

use std::path::Path;

use wavetank_sim::play::{Options, play};
use wavetank_sim::scenario::load;
use wavetank_sim::trace::Token;

#[test]
fn every_scenario_holds() {
    let scenarios = load(Path::new("scenarios")).unwrap_or_else(|e| panic!("{}", e.render(100, false)));
    for scenario in &scenarios {
        for seed in 0..5 {
            let mut options = Options {
                seed,
                ..Options::default()
            };
            options.drivers.insert(own_driver::NAME.into(), own_driver::factory());
            let report = play(scenario, &options);
            let (file, token) = (scenario.places.file().unwrap_or_default(), Token::new(scenario, seed));
            assert!(
                report.verdict.held(),
                "{}: {:#?}\n{:#?}\nagain: cargo run -- run {file} --seed {seed}\ntoken: {token}",
                report.scenario,
                report.verdict,
                report.violations
            );
        }
    }
}
