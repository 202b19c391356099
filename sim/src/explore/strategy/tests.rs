//! What every strategy promises, over a subject of a few lines.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{StrategyName, Survey};
use crate::explore::subject::{Calm, Played, Run, Subject};
use crate::explore::toy::Toy;

fn survey() -> Survey {
    let run = Run {
        keep_meetings: true,
        ..Run::storm(0, Box::new(Calm))
    };
    let calm = Toy::default().play(run, &Arc::default());
    Survey::new("d16e57", calm.notes.kept)
}

/// Plays the first runs of a strategy, telling it what came of each batch of eight.
fn played(name: StrategyName, toy: &Toy, runs: u64) -> Vec<Played> {
    let mut strategy = name.build(&survey());
    let mut all = Vec::new();
    for batch in 0..runs / 8 {
        let plans: Vec<_> = (batch * 8..batch * 8 + 8)
            .map_while(|nth| strategy.plan(nth).map(|plan| (nth, plan)))
            .collect();
        for (nth, plan) in plans {
            let played = toy.play(Run::storm(plan.seed, plan.chooser), &Arc::default());
            strategy.learn(nth, &played);
            all.push(played);
        }
    }
    all
}

#[test]
fn every_strategy_plans_the_same_twice_and_what_it_picked_can_be_picked_again() {
    for name in StrategyName::ALL {
        let toy = Toy::default();
        let (first, second) = (played(*name, &toy, 64), played(*name, &toy, 64));
        assert!(!first.is_empty(), "{name}");
        let mut struck = 0;
        for (a, b) in first.iter().zip(&second) {
            assert_eq!(a.struck, b.struck, "{name}");
            let picks = a.notes.picks.to_string().parse::<crate::explore::Picks>().unwrap();
            let again = toy.play(Run::storm(a.seed, picks.chooser()), &Arc::default());
            assert_eq!(again.struck, a.struck, "{name}: {picks}");
            let pinned = toy.play(Run::pinned(a.seed, a.struck.clone()), &Arc::default());
            assert_eq!(pinned.struck, a.struck, "{name}: pinned by site");
            struck += a.struck.len();
        }
        assert!(struck > 8, "{name} hardly strikes: {struck}");
    }
}

#[test]
fn a_bug_that_takes_two_strikes_is_found_by_all_that_may_strike_twice() {
    let toy = Toy {
        needs: vec!["provisioner / CreateVolume", "kubelet/node-1 / NodeStageVolume"],
    };
    for name in StrategyName::ALL {
        let found = played(*name, &toy, 400)
            .iter()
            .position(|played| played.broke("toy").is_some());
        let may = !matches!(name, StrategyName::Single | StrategyName::CrashEverywhere);
        assert_eq!(found.is_some(), may, "{name}: {found:?}");
    }
}

#[test]
fn single_strikes_everything_once_and_then_ends() {
    let survey = survey();
    let all: usize = survey.meetings.iter().map(|(_, menu)| menu.len()).sum();
    let runs = played(StrategyName::Single, &Toy::default(), 400);
    assert_eq!(runs.len(), all);
    let struck: BTreeSet<_> = runs.iter().flat_map(|played| played.struck.clone()).collect();
    assert_eq!(struck.len(), all);
    assert!(runs.iter().all(|played| played.struck.len() == 1));
}

#[test]
fn a_wrong_name_is_answered_with_the_nearest() {
    assert_eq!(StrategyName::parse("swarm"), Ok(StrategyName::Swarm));
    let error = StrategyName::parse("swram").unwrap_err();
    assert!(error.contains("did you mean `swarm`"), "{error}");
    assert!(StrategyName::parse("zzzz").unwrap_err().contains("crash-everywhere"));
}
