//! The oracles over the library: silent about the honest driver in storms, loud about a wrong one, and listed in the docs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wavetank_driver::Quirk;
use wavetank_sim::faults::{Chooser, Fault, Meeting, Strike};
use wavetank_sim::oracles::{Season, promises};
use wavetank_sim::play::{Options, Report, play, reference_with};
use wavetank_sim::runtime::Chance;
use wavetank_sim::scenario::{Scenario, Site, load, load_file};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn scenario(name: &str) -> Scenario {
    load_file(&root().join(format!("scenarios/{name}.yaml"))).unwrap_or_else(|e| panic!("{}", e.render(120, false)))
}

/// Strikes now and then, with whatever the menu has.
struct Dice {
    chance: Chance,
    rare: u64,
    asked: u64,
}

impl Chooser for Dice {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        self.asked += 1;
        let strikes = self.chance.below(self.rare, &["strikes"], self.asked) == 0;
        let places = u64::try_from(meeting.menu.len()).expect("menus are short");
        strikes.then(|| usize::try_from(self.chance.below(places, &["which"], self.asked)).expect("menus are short"))
    }
}

fn storm(seed: u64, rare: u64, quirk: Option<Quirk>) -> Options {
    let dice = move || {
        let chance = Chance::new(seed);
        Box::new(Dice { chance, rare, asked: 0 }) as Box<dyn Chooser>
    };
    let wrong = |quirk| ("csi.wavetank.dev".to_owned(), reference_with(Some(quirk)));
    Options {
        seed,
        storm: (rare > 0).then(|| Arc::new(dice) as _),
        drivers: quirk.map(wrong).into_iter().collect(),
        ..Options::default()
    }
}

fn told(report: &Report) -> String {
    let struck: Vec<String> = report.struck.iter().map(ToString::to_string).collect();
    let found: Vec<String> = report
        .violations
        .iter()
        .map(|v| {
            format!(
                "{} at {:?} #{}: {} (blame: {})",
                v.promise.name, v.at, v.record, v.text, v.blame
            )
        })
        .collect();
    format!(
        "{} seed {}\n  {}\n  failures: {:?}\n  struck:\n    {}",
        report.scenario,
        report.seed,
        found.join("\n  "),
        report.verdict.failures(),
        struck.join("\n    ")
    )
}

/// The alarms that are not explained yet, a line each: scenario, seed, promise. Each is a bug of the driver, of the model or of an oracle.
const OPEN: &str = "tests/oracles.open";

#[test]
fn the_honest_driver_weathers_storms_over_the_library_but_for_what_is_open() {
    let library = load(&root().join("scenarios")).unwrap_or_else(|e| panic!("{}", e.render(120, false)));
    let (mut alarms, mut stories) = (Vec::new(), Vec::new());
    for scenario in &library {
        for seed in seeds() {
            let report = play(scenario, &storm(seed, 20 + 15 * (seed % 4), None));
            if !report.verdict.held() {
                let promise = report.violations.first().map_or("expectations", |one| one.promise.name);
                alarms.push(format!("{} {seed} {promise}", scenario.name));
                stories.push(told(&report));
            }
        }
    }
    let open = std::fs::read_to_string(root().join(OPEN)).expect("the list can be read");
    let open: Vec<&str> = open.lines().collect();
    assert_eq!(alarms, open, "{}", stories.join("\n"));
}

/// The seeds of each scenario.
fn seeds() -> std::ops::Range<u64> {
    0..2
}

/// A wrong driver, a scenario, where the answer of a call is lost on the way (nowhere if empty), and the promise that it breaks there.
const CAUGHT: &[(Quirk, &str, &str, &str)] = &[
    (
        Quirk::CloneAnswerDropsSource,
        "data/clone",
        "provisioner / CreateVolume / pvc copy / attempt 1 / before-reply",
        "clone-equals-source",
    ),
    (
        Quirk::DetachAnsweredEarly,
        "data/moves-through-nodes",
        "",
        "ok-means-done",
    ),
    (Quirk::UnpublishIgnoresNode, "attach/read-write-many", "", "in-use"),
    (Quirk::InnerLayerNotGrown, "secrets/encrypted-volume", "", "sizes"),
];

#[test]
fn wrong_drivers_break_the_promise_that_they_break() {
    let mut wrong = Vec::new();
    for (quirk, name, lost, promise) in CAUGHT {
        let lost = (!lost.is_empty()).then(|| Strike {
            at: Site::parse(lost).expect("a site"),
            fault: Fault::LoseAnswer {},
        });
        let options = |quirk| Options {
            strikes: lost.iter().cloned().collect(),
            ..storm(0, 0, quirk)
        };
        let scenario = scenario(name);
        let (honest, report) = (play(&scenario, &options(None)), play(&scenario, &options(Some(*quirk))));
        let names: Vec<&str> = report.violations.iter().map(|v| v.promise.name).collect();
        if !names.contains(promise) || !honest.verdict.held() {
            wrong.push(format!(
                "{quirk}: {names:?}, not {promise}\n{}\nhonest: {}",
                told(&report),
                told(&honest)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documentation_lists_every_promise_and_no_other() {
    let page = std::fs::read_to_string(root().join("docs/oracles.md")).expect("docs/oracles.md is there");
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    let known: Vec<&str> = promises().iter().map(|promise| promise.name).collect();
    assert_eq!(listed, known, "the table of docs/oracles.md");
    for promise in promises() {
        let season = match promise.season {
            Season::Safety => "safety",
            Season::Calm => "calm",
        };
        let row = format!("| `{}` | {season} | {} |", promise.name, promise.says);
        assert!(page.contains(&row), "docs/oracles.md lacks the row\n{row}");
    }
}
