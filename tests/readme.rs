//! The README shows what the program prints today.

use std::path::Path;

use wavetank_sim::play::{Options, play};
use wavetank_sim::scenario::load_file;
use wavetank_sim::trace::{TextOptions, text};

#[test]
fn the_trace_in_the_readme_is_the_trace_of_its_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README is there");
    let shown = readme
        .split("<!-- trace:begin -->")
        .nth(1)
        .and_then(|rest| rest.split("<!-- trace:end -->").next());
    let shown: Vec<&str> = shown
        .expect("the README has a trace")
        .lines()
        .filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(
        shown.len() > 20,
        "the trace in the README has shrunk to {} lines",
        shown.len()
    );
    let scenario =
        load_file(&root.join("scenarios/lifecycle/dynamic-immediate.yaml")).expect("the scenario is well-formed");
    let report = play(&scenario, &Options::default());
    let mut page = Vec::new();
    text::write(&mut page, &report.trace, &TextOptions::default()).expect("memory takes what is written");
    let page = String::from_utf8(page).expect("traces are UTF-8");
    let page = anstream::adapter::strip_str(&page).to_string();
    let mut printed = page.lines();
    for line in shown {
        // Left out are events, questions and repeats; what is shown stands there word for word and in this order.
        assert!(
            printed.any(|p| p.trim_end() == line.trim_end()),
            "the program no longer prints this line here:\n{line}\n\n{page}"
        );
    }
}

#[test]
fn every_bug_that_a_driver_must_survive_has_a_scenario_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/bugs.md")).expect("the page is there");
    let mut ids = Vec::new();
    for row in page
        .lines()
        .filter(|line| line.starts_with("| K") || line.starts_with("| S"))
    {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _, _, last] = cells[..] else {
            panic!("a row of four cells: {row}")
        };
        ids.push(id.to_owned());
        if let Some(name) = last.strip_prefix('`') {
            let file = root.join(format!("scenarios/{}.yaml", name.trim_end_matches('`')));
            assert!(file.is_file(), "{id}: there is no {}", file.display());
        }
    }
    ids.sort();
    let of = |letter: char, numbers: &[std::ops::RangeInclusive<u8>]| -> Vec<String> {
        let numbers = numbers.iter().cloned().flatten();
        numbers.map(|number| format!("{letter}{number:02}")).collect()
    };
    let mut expected = of('K', &[1..=15, 20..=27, 30..=32]);
    expected.extend(of('S', &[1..=11, 20..=25, 30..=33]));
    assert_eq!(ids, expected);
}
