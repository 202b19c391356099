//! Menus are fixed, small, and never empty.

use super::{Fault, Spot, menu};
use crate::scenario::effects::{OF_CALL, OF_WRITE};
use crate::scenario::{PlainPhase, Process};

fn spots(mut each: impl FnMut(&Spot<'_>)) {
    let caller = |text| Process::parse(text).expect("a process");
    let calls = [
        ("provisioner", "driver-controller", "CreateVolume"),
        ("attacher", "driver-controller", "ControllerPublishVolume"),
        ("kubelet/node-1", "driver-node/node-1", "NodeStageVolume"),
    ];
    for (process, callee, effect) in calls {
        let (process, callee) = (caller(process), caller(callee));
        for phase in OF_CALL {
            let callee = Some(&callee);
            each(&Spot {
                process: &process,
                callee,
                effect,
                phase,
            });
        }
    }
    for effect in crate::scenario::effects::VERBS {
        for phase in OF_WRITE {
            let process = caller("controller-manager");
            each(&Spot {
                process: &process,
                callee: None,
                effect,
                phase,
            });
        }
    }
}

#[test]
fn every_spot_has_a_menu_without_doubles_that_fits_a_screen() {
    spots(|spot| {
        let menu = menu(spot);
        let mut sorted = menu.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), menu.len(), "{spot:?} offers something twice");
        assert!((1..=20).contains(&menu.len()), "{spot:?}: {}", menu.len());
    });
}

#[test]
fn a_fault_is_read_as_it_is_written() {
    spots(|spot| {
        for fault in menu(spot) {
            let text = serde_json::to_string(&fault).expect("a fault is data");
            assert_eq!(serde_json::from_str::<Fault>(&text).expect(&text), fault);
        }
    });
}

#[test]
fn an_answer_is_replaced_only_where_there_is_one() {
    spots(|spot| {
        let replaces = menu(spot)
            .iter()
            .any(|fault| matches!(fault, Fault::ReplaceAnswer { .. }));
        assert_eq!(replaces, spot.phase == PlainPhase::BeforeReply, "{spot:?}");
    });
}

#[test]
fn every_fault_stands_in_the_documentation() {
    let schema = serde_json::to_value(schemars::schema_for!(Fault)).expect("a schema is JSON");
    let variants = schema["oneOf"].as_array().expect("a fault is one of its kinds");
    let kinds = variants.iter().filter_map(|variant| variant["required"][0].as_str());
    let documented = include_str!("../../../docs/faults.md");
    let missing: Vec<&str> = kinds
        .filter(|kind| !documented.contains(&format!("| `{kind}` |")))
        .collect();
    assert!(missing.is_empty() && variants.len() > 20, "{missing:?}");
}
