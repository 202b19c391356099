//! A handful of scenarios whose whole trace is kept in `snapshots/`, so that a change of the model or of the renderer is seen and judged by a person.
//!
//! A golden holds at most [`MOST`] lines. Of a longer trace only the lines of one object are kept, and of the whole its length and digest.
//! To judge what has changed: `cargo insta review`; to take it: `INSTA_UPDATE=always cargo test -p wavetank-tests --test goldens`.

use std::path::Path;

use wavetank_sim::play::{Options, Report, play};
use wavetank_sim::scenario::load_file;
use wavetank_sim::trace::{Follow, TextOptions, json, text};

/// The most lines that a person reads again after each change.
const MOST: usize = 80;

fn played(name: &str) -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../scenarios/{name}.yaml"));
    let scenario = load_file(&path).unwrap_or_else(|e| panic!("{}", e.render(100, false)));
    let report = play(&scenario, &Options::default());
    assert!(report.verdict.held(), "{:?}", report.verdict);
    report
}

fn page(report: &Report, follow: &[Follow]) -> String {
    let options = TextOptions {
        verbose: false,
        follow: follow.to_vec(),
    };
    let mut page = Vec::new();
    text::write(&mut page, &report.trace, &options).expect("memory takes every byte");
    let page = String::from_utf8(page).expect("traces are text");
    anstream::adapter::strip_str(&page).to_string()
}

/// Keeps a golden under its name in `snapshots/`.
fn keep(name: &str, content: &str) {
    let lines = content.lines().count();
    assert!(
        lines <= MOST,
        "{name} has {lines} lines: keep one object's life and a digest instead"
    );
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, content));
}

/// The whole trace of a scenario.
fn whole(name: &str) {
    keep(&name.replace('/', "__"), &page(&played(name), &[]));
}

/// One object's life, and of the whole trace its length and digest.
fn life(name: &str, follow: &str) {
    let report = played(name);
    let follow: Follow = follow.parse().expect("the object is well spelt");
    let (lines, digest) = (page(&report, &[]).lines().count(), report.trace.digest());
    let content = format!("{}\nof {lines} lines, digest {digest}\n", page(&report, &[follow]));
    keep(&name.replace('/', "__"), &content);
}

#[test]
fn the_life_of_a_volume() {
    whole("lifecycle/dynamic-immediate");
}

#[test]
fn a_static_volume_is_bound() {
    whole("binding/static-volume");
}

#[test]
fn a_volume_that_is_asked_for_twice() {
    whole("restart/provisioner-before-reply");
}

#[test]
fn a_stage_that_fails() {
    whole("errors/stage-fails");
}

#[test]
fn a_volume_inside_a_pod() {
    whole("ephemeral/inline");
}

#[test]
fn a_volume_that_is_attached_elsewhere() {
    life("attach/multi-attach", "pod/second");
}

#[test]
fn one_object_for_machines() {
    let report = played("binding/static-volume");
    let follow: Follow = "pvc/data".parse().expect("the object is well spelt");
    let mut page = Vec::new();
    json::write(&mut page, &report.trace, &[follow]).expect("memory takes every byte");
    keep(
        "binding__static-volume.json",
        &String::from_utf8(page).expect("JSON is text"),
    );
}
