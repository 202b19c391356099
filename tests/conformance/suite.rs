//! Every obligation against the reference driver in the tank, with two nodes, in each of its kinds.

use serde_json::{Value, json};
use wavetank_conform::{Report, Settings, Verdict, all};
use wavetank_sim::conform::Tank;

pub(crate) fn settings() -> Settings {
    Settings {
        mutable_parameters: [("iops".to_owned(), "500".to_owned())].into(),
        ephemeral: Some(Default::default()),
        ..Settings::default()
    }
}

fn checked(options: Value, max_volumes: i64, settings: Settings) -> Report {
    let tank = Tank {
        options,
        max_volumes,
        ..Tank::reference()
    };
    let report = tank
        .check(settings, all(), |driver| driver)
        .expect("the driver says what it is");
    assert_eq!(report.troubles(), Vec::<String>::new());
    report
}

/// The names of the checks that said nothing.
fn silent(report: &Report) -> Vec<&'static str> {
    let findings = report.findings.iter();
    let silent = findings.filter(|one| matches!(one.verdict, Verdict::NotApplicable(_)));
    silent.map(|one| one.check.name).collect()
}

#[test]
fn the_reference_driver_keeps_every_obligation() {
    let report = checked(json!({}), 5, settings());
    assert_eq!(silent(&report), Vec::<&str>::new());
    assert!(report.held() > 200, "{}", report.held());
}

#[test]
fn a_run_is_the_same_every_time() {
    let told = |report: &Report| -> Vec<String> {
        report
            .findings
            .iter()
            .map(|one| {
                format!(
                    "{} {:?} {:?} {:?}",
                    one.check.name, one.verdict, one.took, one.exchanges
                )
            })
            .collect()
    };
    let checks = || {
        all()
            .into_iter()
            .filter(|check| check.name.starts_with("concurrent/"))
            .collect()
    };
    let run = || {
        Tank::reference()
            .check(settings(), checks(), |driver| driver)
            .expect("the driver says what it is")
    };
    assert_eq!(told(&run()), told(&run()));
}

#[test]
fn so_does_every_kind_of_it() {
    let kinds = [
        json!({"stage": false}),
        json!({"attach": false}),
        json!({"topology": false, "expansion": "offline", "nodeExpansion": false}),
        json!({"singleNodeMultiWriter": false, "volumeCondition": false, "contextFromParameters": true}),
        json!({"snapshots": false, "groupSnapshots": false, "snapshotMetadata": false, "clone": false, "modify": false, "list": false}),
    ];
    for options in kinds {
        println!("{options}");
        checked(options, 0, settings());
    }
}

#[test]
fn so_does_every_type_of_volume_and_file_system_and_with_secrets() {
    let options = json!({
        "types": {"thin": {"provisioning": "thin"}, "thick": {"provisioning": "thick", "minSize": "4Mi"}}, "defaultType": "thin", "strictParameters": true,
    });
    for (kind, fs_type) in [("thin", "xfs"), ("thick", "btrfs"), ("thick", "ext4")] {
        let settings = Settings {
            parameters: [("type".to_owned(), kind.to_owned())].into(),
            secrets: [("key".to_owned(), "xyzzy-planted-secret".to_owned())].into(),
            fs_type: fs_type.to_owned(),
            size: 320 << 20,
            grown: 640 << 20,
            ..settings()
        };
        let report = checked(options.clone(), 0, settings);
        let said = format!("{:?}", report.findings);
        assert!(!said.contains("xyzzy-planted-secret"), "a report holds no secret");
    }
}

#[test]
fn the_page_names_every_check_as_it_is() {
    let page = include_str!("../../docs/conformance.md");
    for check in all() {
        let weight = if check.weight == wavetank_conform::Weight::Must {
            "must"
        } else {
            "should"
        };
        let row = format!(
            "| `{}` | {weight} | {} | {} |",
            check.name, check.obligation, check.source
        );
        assert!(page.contains(&row), "docs/conformance.md lacks this row:\n{row}");
    }
    let is_row = |line: &&str| line.contains("` | must | ") || line.contains("` | should | ");
    let rows = page.lines().filter(is_row).count();
    assert_eq!(rows, all().len(), "docs/conformance.md has rows of no check");
    assert!(page.contains(&format!("as {} checks", all().len())));
}
