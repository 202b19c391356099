//! Storms are runs like any other: a run with a chooser, and the same run with what struck pinned, are the same byte for byte, over the whole library.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use wavetank_sim::faults::{Chooser, Meeting};
use wavetank_sim::play::{Options, Report, play};
use wavetank_sim::runtime::Chance;
use wavetank_sim::scenario::{Scenario, load};

/// With which seeds every scenario meets a storm.
const SEEDS: [u64; 2] = [0, 7];
/// One meeting in so many is struck.
const RARE: u64 = 25;

fn main() {
    let scenarios: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let library = load(&scenarios).unwrap_or_else(|e| panic!("{}", e.render(120, false)));
    let trials = library
        .into_iter()
        .map(|scenario| Trial::test(scenario.name.clone(), move || replayed(&scenario)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Strikes now and then, with whatever the menu has.
struct Dice {
    chance: Chance,
    asked: u64,
}

impl Chooser for Dice {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        self.asked += 1;
        let strikes = self.chance.below(RARE, &["strikes"], self.asked) == 0;
        let places = u64::try_from(meeting.menu.len()).expect("menus are short");
        strikes.then(|| usize::try_from(self.chance.below(places, &["which"], self.asked)).expect("menus are short"))
    }
}

fn storm(scenario: &Scenario, seed: u64) -> Report {
    let dice = move || {
        let chance = Chance::new(seed);
        Box::new(Dice { chance, asked: 0 }) as Box<dyn Chooser>
    };
    let options = Options {
        seed,
        storm: Some(Arc::new(dice)),
        ..Options::default()
    };
    play(scenario, &options)
}

fn replayed(scenario: &Scenario) -> Result<(), Failed> {
    for seed in SEEDS {
        let storm = storm(scenario, seed);
        let options = Options {
            seed,
            strikes: storm.struck.clone(),
            ..Options::default()
        };
        let again = play(scenario, &options);
        let what = || {
            storm
                .struck
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n  ")
        };
        if storm.struck != again.struck {
            let again = again
                .struck
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n  ");
            return Err(format!("seed {seed}: struck\n  {}\nand pinned\n  {again}", what()).into());
        }
        if storm.trace.digest() != again.trace.digest() {
            return Err(format!("seed {seed}: another run with the same strikes:\n  {}", what()).into());
        }
    }
    Ok(())
}
