//! Wrong drivers: each breaks one obligation, and exactly the checks that name it say so.

use std::sync::Arc;

use prost_reflect::{DynamicMessage, Value};
use tonic::{Code, Status};
use wavetank_conform::{Report, Verdict, all};
use wavetank_sim::conform::Tank;

use crate::suite::settings;
use crate::tamper::{Answer, Flaw, Wrong, empty, is};

fn report(flaw: Flaw) -> Report {
    let between = |inner| Arc::new(Wrong { inner, flaw }) as Arc<dyn wavetank_conform::UnderTest>;
    Tank::reference()
        .check(settings(), all(), between)
        .expect("the driver says what it is")
}

/// The names of the checks with a broken obligation.
fn broken(report: &Report) -> Vec<&'static str> {
    report.broken().map(|one| one.check.name).collect()
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message
        .get_field_by_name(field)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

const NOBODY: &str = "wavetank-no-such-thing";

/// What is wrong, and who has to notice.
type Wanted = (Flaw, &'static [&'static str]);

fn flaws_of_attachment() -> Vec<Wanted> {
    let accepts = |method| Flaw::of(method);
    vec![
        (
            Flaw {
                answer: |asked, answer| {
                    if text(asked, "volume_id") == NOBODY {
                        *answer = Err(Status::not_found("no"))
                    }
                },
                ..accepts("DeleteVolume")
            },
            &["delete/unknown"],
        ),
        (
            Flaw {
                answer: |asked, answer| {
                    if text(asked, "snapshot_id") == NOBODY {
                        *answer = Err(Status::not_found("no"))
                    }
                },
                ..accepts("DeleteSnapshot")
            },
            &["delete-snapshot/unknown"],
        ),
        (
            Flaw {
                answer: |asked, answer| {
                    if text(asked, "node_id") == NOBODY {
                        *answer = Ok(empty("ControllerPublishVolume"))
                    }
                },
                ..accepts("ControllerPublishVolume")
            },
            &["attach/unknown-node"],
        ),
        (
            Flaw {
                answer: |_, answer| {
                    if is(answer, Code::FailedPrecondition) {
                        *answer = Ok(empty("ControllerPublishVolume"))
                    }
                },
                ..accepts("ControllerPublishVolume")
            },
            &["attach/second-node", "concurrent/two-nodes", "restart/second-node"],
        ),
        (
            Flaw {
                ask: |asked| {
                    if number(asked, "max_entries") > 0 {
                        asked.set_field_by_name("max_entries", Value::I32(0))
                    }
                },
                ..accepts("ListVolumes")
            },
            &["list/page-by-page"],
        ),
    ]
}

fn flaws_of_answers() -> Vec<Wanted> {
    let accepts = |method| Flaw::of(method);
    vec![
        (
            Flaw {
                ask: |asked| {
                    if text(asked, "source_volume_id") != NOBODY {
                        asked.clear_field_by_name("source_volume_id")
                    }
                },
                ..accepts("ListSnapshots")
            },
            &["list-snapshots/by-volume"],
        ),
        (
            Flaw {
                answer: |_, answer| nobody_published(answer),
                ..accepts("ListVolumes")
            },
            &["list/published-nodes"],
        ),
        (
            Flaw {
                answer: |_, answer| with(answer, |answer| answer.clear_field_by_name("confirmed")),
                ..accepts("ValidateVolumeCapabilities")
            },
            &["validate/confirms"],
        ),
        (
            Flaw {
                answer: |_, answer| {
                    if is(answer, Code::InvalidArgument) {
                        *answer = Ok(empty("ControllerModifyVolume"))
                    }
                },
                ..accepts("ControllerModifyVolume")
            },
            &["modify/needs-id", "modify/unsupported"],
        ),
        (
            Flaw {
                answer: |_, answer| {
                    with(answer, |answer| {
                        answer.set_field_by_name("available_capacity", Value::I64(-1))
                    })
                },
                ..accepts("GetCapacity")
            },
            &["capacity/plain", "capacity/of-a-class", "capacity/of-a-place"],
        ),
    ]
}

fn flaws_of_nodes_and_codes() -> Vec<Wanted> {
    let accepts = |method| Flaw::of(method);
    vec![
        (
            Flaw {
                ask: |asked| asked.set_field_by_name("readonly", Value::Bool(false)),
                ..accepts("NodePublishVolume")
            },
            &["publish/other-access", "publish/read-only"],
        ),
        (
            Flaw {
                answer: |_, answer| {
                    if is(answer, Code::NotFound) {
                        *answer = Ok(empty("NodeGetVolumeStats"))
                    }
                },
                ..accepts("NodeGetVolumeStats")
            },
            &["stats/unknown-volume", "stats/wrong-path"],
        ),
        (
            Flaw {
                answer: |_, answer| {
                    with(answer, |answer| {
                        answer.set_field_by_name("vendor_version", Value::String(String::new()))
                    })
                },
                ..accepts("GetPluginInfo")
            },
            &["info/version"],
        ),
        (
            Flaw {
                answer: |_, answer| {
                    if is(answer, Code::Aborted) {
                        *answer = Err(Status::internal("busy"))
                    }
                },
                ..accepts("NodeStageVolume")
            },
            &["concurrent/same-stage", "concurrent/stage-and-unstage"],
        ),
    ]
}

fn number(message: &DynamicMessage, field: &str) -> i32 {
    message
        .get_field_by_name(field)
        .and_then(|value| value.as_i32())
        .unwrap_or_default()
}

fn with(answer: &mut Answer, change: impl FnOnce(&mut DynamicMessage)) {
    if let Ok(answer) = answer {
        change(answer);
    }
}

/// Strips the status of every entry.
fn nobody_published(answer: &mut Answer) {
    with(answer, |answer| {
        if let Some(Value::List(entries)) = answer.get_field_by_name_mut("entries") {
            for entry in entries.iter_mut().filter_map(Value::as_message_mut) {
                entry.clear_field_by_name("status");
            }
        }
    });
}

#[test]
fn each_wrong_driver_fails_the_checks_that_name_its_flaw_and_no_other() {
    std::thread::scope(|scope| {
        for (flaw, wanted) in [flaws_of_attachment(), flaws_of_answers(), flaws_of_nodes_and_codes()]
            .into_iter()
            .flatten()
        {
            scope.spawn(move || {
                let method = flaw.method;
                let found = broken(&report(flaw));
                assert_eq!(found, wanted, "a wrong {method}");
            });
        }
    });
}

#[test]
fn a_driver_whose_answers_change_is_found_out() {
    // The id of a node that is another in every answer.
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let flaw = Flaw {
        answer: |_, answer| {
            let nth = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            with(answer, |answer| {
                answer.set_field_by_name("max_volumes_per_node", Value::I64(i64::from(nth) + 100))
            });
        },
        ..Flaw::of("NodeGetInfo")
    };
    assert_eq!(broken(&report(flaw)), ["node-info/same", "restart/still-itself"]);
}

#[test]
fn a_storage_that_shows_old_bytes_is_found_out() {
    let tank = Tank {
        forgets_to_discard: true,
        ..Tank::reference()
    };
    let report = tank
        .check(settings(), all(), |driver| driver)
        .expect("the driver says what it is");
    let found = broken(&report);
    assert!(found.contains(&"contents/new-block-is-blank"), "{found:?}");
}

#[test]
fn a_call_that_never_ends_is_not_judged_and_the_rest_goes_on() {
    let flaw = Flaw {
        hang: |asked| text(asked, "name").contains("create-long-name"),
        ..Flaw::of("CreateVolume")
    };
    let report = report(flaw);
    let unjudged = report
        .findings
        .iter()
        .filter(|one| matches!(one.verdict, Verdict::NotJudged(_)));
    assert_eq!(
        unjudged.map(|one| one.check.name).collect::<Vec<_>>(),
        ["create/long-name"]
    );
    assert_eq!(broken(&report), Vec::<&str>::new());
}
