//! Campaigns over a subject of a few lines: the same report whatever the number of threads, shards without overlap, and a way out.

use std::collections::BTreeSet;

use super::campaign::{Campaign, Entry, Go};
use super::report::{Report, Shard};
use super::strategy::StrategyName;
use super::toy::Toy;

const NEEDS: [&str; 2] = ["provisioner / CreateVolume", "kubelet/node-1 / NodeStageVolume"];

fn campaign(strategy: StrategyName, toys: &[Toy]) -> Campaign {
    let entries = toys.iter().enumerate().map(|(nth, toy)| Entry {
        name: format!("toy-{nth}"),
        digest: format!("{nth}"),
        ..Entry::new(toy.clone())
    });
    Campaign {
        entries: entries.collect(),
        strategy,
        seeds: 0..200,
        shard: Shard::WHOLE,
        jobs: 1,
        keep_going: true,
        mutant: None,
        shrink: 50,
    }
}

fn toys() -> Vec<Toy> {
    vec![Toy::default(), Toy { needs: NEEDS.to_vec() }]
}

fn run(campaign: &Campaign) -> Report {
    campaign.run(&mut |_| Go::On)
}

#[test]
fn the_report_does_not_depend_on_the_number_of_threads() {
    for strategy in StrategyName::ALL {
        for keep_going in [false, true] {
            let with = |jobs| {
                run(&Campaign {
                    jobs,
                    keep_going,
                    ..campaign(*strategy, &toys())
                })
            };
            let (one, five) = (with(1), with(5));
            assert_eq!(one, five, "{strategy}");
            assert_eq!(
                serde_json::to_string(&one).unwrap(),
                serde_json::to_string(&five).unwrap()
            );
        }
    }
}

#[test]
fn a_scenario_ends_with_its_first_violation_and_others_go_on() {
    let stopped = run(&Campaign {
        keep_going: false,
        ..campaign(StrategyName::Swarm, &toys())
    });
    let (clean, broken) = (&stopped.scenarios[0], &stopped.scenarios[1]);
    assert_eq!(clean.runs, 200);
    assert!(clean.violations.is_empty());
    assert!(broken.runs < 200);
    assert_eq!(broken.broken["toy"], 1);
    assert_eq!(broken.violations[0].run + 1, broken.runs);
    assert_eq!(stopped.status(), 2);
    let on = run(&campaign(StrategyName::Swarm, &toys()));
    assert_eq!(on.scenarios[1].runs, 200);
    assert!(on.scenarios[1].broken["toy"] > 1);
    assert_eq!(
        on.scenarios[1].violations[0].run, broken.violations[0].run,
        "the first is the first"
    );
}

#[test]
fn shards_joined_are_the_whole() {
    for strategy in [StrategyName::Swarm, StrategyName::Single, StrategyName::Pairs] {
        let whole = run(&campaign(strategy, &toys()));
        let mut parts = (1..=3).map(|index| {
            run(&Campaign {
                shard: Shard { index, of: 3 },
                ..campaign(strategy, &toys())
            })
        });
        let mut joined = parts.next().unwrap();
        assert_eq!(joined.missing().len(), 2);
        for part in parts {
            let twice = joined.clone().merge(joined.clone());
            assert!(twice.unwrap_err().contains("is in both"));
            joined.merge(part).unwrap();
        }
        assert_eq!(joined.missing(), []);
        for (mine, theirs) in joined.scenarios.iter().zip(&whole.scenarios) {
            assert_eq!(mine.runs, theirs.runs);
            assert_eq!(mine.statuses, theirs.statuses);
            assert_eq!(mine.coverage, theirs.coverage);
            assert_eq!(mine.violations, theirs.violations);
        }
    }
}

#[test]
fn what_does_not_belong_together_is_not_joined() {
    let mut one = run(&campaign(StrategyName::Single, &toys()));
    let other = run(&campaign(StrategyName::Pairs, &toys()));
    assert!(one.merge(other).unwrap_err().contains("strategy differs"));
}

#[test]
fn an_interrupt_keeps_what_was_found() {
    let mut asked = 0;
    let report = campaign(StrategyName::Mix, &toys()).run(&mut |standing| {
        asked += 1;
        if standing.violations.is_empty() {
            Go::On
        } else {
            Go::Stop
        }
    });
    assert!(report.interrupted);
    assert_eq!(report.scenarios[1].violations.len(), 1);
    assert!(report.runs() < 400 || asked > 0);
}

#[test]
fn coverage_is_what_the_runs_reached() {
    let report = run(&campaign(StrategyName::Single, &[Toy::default()]));
    let scenario = &report.scenarios[0];
    assert!(scenario.exhausted);
    let coverage = &scenario.coverage;
    let reached: BTreeSet<&String> = coverage.sites.iter().collect();
    assert!(
        reached.iter().any(|site| site.contains("attempt 2")),
        "what is tried again is a site of its own"
    );
    assert!(scenario.growth.windows(2).all(|pair| pair[0].sites <= pair[1].sites));
    assert_eq!(
        scenario.growth.iter().map(|g| g.runs).collect::<Vec<_>>(),
        [1, 2, 4, 8, 16]
    );
}
