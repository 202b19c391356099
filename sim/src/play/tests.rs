//! Playing itself, with the processes that are there.

use super::{Options, play};

#[test]
fn a_scenario_whose_fault_never_strikes_fails() {
    let text = "because: an unhit fault proves nothing\nsteps:\n  - inject: { call: CreateVolume, code: INTERNAL }\n  - run: 1s\n";
    let scenario = crate::scenario::parse("unhit", text.into(), std::path::Path::new(".")).unwrap();
    let report = play(&scenario, &Options::default());
    assert_eq!(report.verdict.status(), 1);
    assert!(
        format!("{:?}", report.verdict).contains("never struck"),
        "{:?}",
        report.verdict
    );
}

#[test]
fn an_empty_scenario_holds() {
    let text = "because: nothing happens
steps:
  - run: 1s
";
    let scenario = crate::scenario::parse("empty", text.into(), std::path::Path::new(".")).unwrap();
    let report = play(&scenario, &Options::default());
    assert!(report.verdict.held(), "{:?}", report.verdict);
}
