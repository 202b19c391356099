//! Documented bugs of CSI drivers that the checks find alone, without a cluster and without faults: the reference driver with one of them switched on at
//! a time. The other bugs need what only the tank's faults, clocks and clusters bring.

use serde_json::json;
use wavetank_conform::{Settings, all};
use wavetank_driver::Quirk;
use wavetank_sim::conform::Tank;
use wavetank_sim::play::reference_with;

use crate::suite::settings;

/// Bugs by name, each with a check that finds it.
const FOUND: &[(&str, &str)] = &[
    ("attach-result-ignored", "attach/unknown-node"),
    ("attach-retry-other-slot", "attach/twice"),
    ("attach-retry-refused", "attach/twice"),
    ("clone-answer-drops-source", "create/from-snapshot"),
    ("clone-retry-refused", "create/from-snapshot"),
    ("clone-snapshot-left", "create/from-volume"),
    ("detach-answered-early", "delete/source-of-a-clone"),
    ("detach-does-not-fence", "delete/source-of-a-clone"),
    ("device-left-on-unstage", "delete/source-of-a-clone"),
    ("device-mixed-up", "concurrent/different-volumes-on-a-node"),
    ("expand-retry-drops-node-flag", "expand/twice"),
    ("grow-before-rescan", "expand/in-use"),
    ("list-forgets-nodes", "list/published-nodes"),
    ("parent-cleanup-too-broad", "delete/source-of-a-clone"),
    ("publish-stacks-mounts", "publish/twice"),
    ("record-written-late", "restart/every-step"),
    ("recursive-destroy", "delete/source-of-a-clone"),
    ("restart-forgets", "restart/every-step"),
    ("retry-drops-topology", "create/same-name-same-volume"),
    ("unpublish-not-idempotent", "unpublish/twice"),
    ("unstage-not-idempotent", "unstage/twice"),
];

fn breaks(quirk: Option<Quirk>, name: &str) -> bool {
    breaks_with(quirk, name, Tank::reference(), settings())
}

fn breaks_with(quirk: Option<Quirk>, name: &str, tank: Tank, settings: Settings) -> bool {
    let tank = Tank {
        factory: reference_with(quirk),
        ..tank
    };
    let checks = all().into_iter().filter(|check| check.name == name).collect();
    let report = tank
        .check(settings, checks, |driver| driver)
        .expect("the driver says what it is");
    report.broken().count() == 1
}

#[test]
fn documented_bugs_are_found_by_the_check_that_names_them() {
    for (name, check) in FOUND {
        let quirk = Quirk::ALL
            .iter()
            .find(|quirk| quirk.name() == *name)
            .expect("a bug of this name");
        assert!(breaks(Some(*quirk), check), "{check} does not find {name}");
        assert!(!breaks(None, check), "{check} finds something in the honest driver");
    }
}

/// D72: what lies between device and file system must be told.
#[test]
fn a_layer_that_does_not_grow_is_found() {
    let breaks = |quirk| {
        let tank = Tank {
            options: json!({"types": {"vault": {"encrypted": true}}, "defaultType": "vault"}),
            ..Tank::reference()
        };
        let settings = Settings {
            secrets: [("encryptionPassphrase".to_owned(), "paper-tiger-lemon-tree".to_owned())].into(),
            ..settings()
        };
        breaks_with(quirk, "expand/in-use", tank, settings)
    };
    assert!(breaks(Some(Quirk::InnerLayerNotGrown)), "the check does not find it");
    assert!(!breaks(None), "the check finds something in the honest driver");
}
