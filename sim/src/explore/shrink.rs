//! Makes a violation small: fewer strikes, simpler ones, no seed, then a shorter scenario.
//!
//! Every candidate is replayed by strikes that are pinned by site, so that it survives small changes of the run; it counts when the same promise is broken. The order is that
//! of what helps a reader most: first the strikes (delta debugging after Zeller and Hildebrandt), because the others follow from them; then simpler faults in place of those that are
//! left; then steps, expectations, objects and nodes of the scenario. What the scenario itself lets strike stays until everything else is small, and goes only if the promise
//! breaks without it. All of it is bounded by a number of plays, and ends when the trial has no more time.

use std::collections::BTreeSet;

use super::simpler::simpler;
use crate::scenario::{Scenario, Step};
use crate::storm::Strike;

/// What is shrunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The scenario, if there is one.
    pub scenario: Option<Scenario>,
    /// The seed of the cluster's latencies.
    pub seed: u64,
    /// What strikes.
    pub strikes: Vec<Strike>,
}

/// Plays candidates.
pub trait Trial {
    /// Whether the promise is still broken.
    fn breaks(&mut self, case: &Case) -> bool;

    /// Whether the case proves something: without the mutant, or without the strikes if there is none, the promise is kept.
    fn proves(&mut self, case: &Case) -> bool {
        let _ = case;
        true
    }

    /// Whether there is no time for another play.
    fn is_over(&self) -> bool {
        false
    }
}

/// What came of shrinking.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// The smallest case that was found.
    pub case: Case,
    /// How many plays it took.
    pub plays: u32,
    /// Whether the violation came again when its strikes were pinned by site. If not, the case is as it was found.
    pub repeats: bool,
    /// Whether there was no time to go on. If there were no plays at all, nobody knows whether the violation comes again.
    pub cut_short: bool,
}

/// The seeds that are tried in place of the one that was found: a replay file is best without one.
const SEEDS: [u64; 4] = [0, 1, 2, 3];

/// Shrinks a case with at most `budget` plays.
pub fn shrink(case: Case, budget: u32, trial: &mut dyn Trial) -> Shrunk {
    let mut shrinker = Shrinker {
        best: case,
        plays: 0,
        budget,
        trial,
        proves: false,
    };
    if shrinker.trial.is_over() || !shrinker.play_best() {
        return shrinker.done(false);
    }
    shrinker.seed();
    shrinker.strikes();
    shrinker.seed();
    shrinker.simplify();
    // What it proves is asked only where the scenario can still be made shorter.
    if !shrinker.spent() {
        let best = shrinker.best.clone();
        shrinker.plays += 1;
        shrinker.proves = shrinker.trial.proves(&best);
    }
    shrinker.scenario();
    shrinker.strikes();
    shrinker.done(true)
}

struct Shrinker<'a> {
    best: Case,
    plays: u32,
    budget: u32,
    trial: &'a mut dyn Trial,
    /// Whether the best case proves something, so that every smaller one must.
    proves: bool,
}

impl Shrinker<'_> {
    fn play_best(&mut self) -> bool {
        self.plays += 1;
        self.trial.breaks(&self.best)
    }

    fn done(self, repeats: bool) -> Shrunk {
        Shrunk {
            cut_short: self.trial.is_over(),
            case: self.best,
            plays: self.plays,
            repeats,
        }
    }

    fn spent(&self) -> bool {
        self.plays >= self.budget || self.trial.is_over()
    }

    /// Takes the candidate if it still breaks the promise.
    fn try_out(&mut self, candidate: Case) -> bool {
        if self.spent() || candidate == self.best {
            return false;
        }
        self.plays += 1;
        if !self.trial.breaks(&candidate) {
            return false;
        }
        if candidate.scenario != self.best.scenario && self.proves {
            self.plays += 1;
            if !self.trial.proves(&candidate) {
                return false;
            }
        }
        self.best = candidate;
        true
    }

    fn seed(&mut self) {
        // Another seed than the one that was found is worth several tries; one of the first few is small enough.
        let tries = if self.best.seed > 3 { SEEDS.len() } else { 1 };
        for seed in SEEDS.into_iter().take(tries) {
            let candidate = Case {
                seed,
                ..self.best.clone()
            };
            if self.best.seed == seed || self.try_out(candidate) {
                return;
            }
        }
    }

    fn strikes(&mut self) {
        let strikes = self.best.strikes.clone();
        let kept = minimal(strikes.len(), |kept| {
            let candidate = Case {
                strikes: kept.iter().map(|at| strikes[*at].clone()).collect(),
                ..self.best.clone()
            };
            self.try_out(candidate)
        });
        self.best.strikes = kept.into_iter().map(|at| strikes[at].clone()).collect();
    }

    fn simplify(&mut self) {
        for nth in 0..self.best.strikes.len() {
            let mut tried = BTreeSet::new();
            while let Some(next) = simpler(&self.best.strikes[nth])
                .into_iter()
                .find(|strike| tried.insert(strike.clone()))
            {
                if self.spent() {
                    return;
                }
                let mut strikes = self.best.strikes.clone();
                strikes[nth] = next;
                let candidate = Case {
                    strikes,
                    ..self.best.clone()
                };
                self.try_out(candidate);
            }
        }
    }

    fn scenario(&mut self) {
        let Some(scenario) = &self.best.scenario else { return };
        let bare = Scenario {
            expect: Vec::new(),
            ..scenario.clone()
        };
        self.try_scenario(&bare);
        self.steps(|step| struck_by(step).is_none());
        self.parts(|s| s.expect.len(), |s, kept| keep(&mut s.expect, kept));
        self.parts(|s| s.manifests.len(), |s, kept| keep(&mut s.manifests, kept));
        self.nodes();
        let strikes = |case: &Case| {
            case.scenario
                .as_ref()
                .map_or(0, |s| s.steps.iter().filter_map(struck_by).count())
        };
        let before = strikes(&self.best);
        self.steps(|step| struck_by(step).is_some());
        if strikes(&self.best) < before {
            // They named objects that may go, too.
            self.steps(|step| struck_by(step).is_none());
        }
    }

    /// Shrinks those steps of the scenario that are meant; the others stay.
    fn steps(&mut self, meant: impl Fn(&Step) -> bool) {
        let Some(whole) = self.best.scenario.clone() else {
            return;
        };
        let which: Vec<usize> = (0..whole.steps.len()).filter(|at| meant(&whole.steps[*at])).collect();
        minimal(which.len(), |kept| {
            let mut smaller = whole.clone();
            let stays = |at: &usize| !which.contains(at) || kept.iter().any(|nth| which[*nth] == *at);
            let kept: Vec<usize> = (0..whole.steps.len()).filter(stays).collect();
            keep(&mut smaller.steps, &kept);
            self.try_scenario(&smaller)
        });
    }

    /// Shrinks one list of the scenario.
    fn parts(&mut self, len: impl Fn(&Scenario) -> usize, keep: impl Fn(&mut Scenario, &[usize])) {
        let Some(whole) = self.best.scenario.clone() else {
            return;
        };
        minimal(len(&whole), |kept| {
            let mut smaller = whole.clone();
            keep(&mut smaller, kept);
            self.try_scenario(&smaller)
        });
    }

    fn nodes(&mut self) {
        while let Some(scenario) = self.best.scenario.clone() {
            if scenario.cluster.nodes.len() < 2 {
                return;
            }
            let mut smaller = scenario;
            smaller.cluster.nodes.pop();
            if !self.try_scenario(&smaller) {
                return;
            }
        }
    }

    fn try_scenario(&mut self, scenario: &Scenario) -> bool {
        let Some(scenario) = super::inline::reread(scenario) else {
            return false;
        };
        self.try_out(Case {
            scenario: Some(scenario),
            ..self.best.clone()
        })
    }
}

/// What a step of a scenario lets strike at a site, as a sentence.
pub fn struck_by(step: &Step) -> Option<String> {
    match step {
        Step::Strike(strike) => Some(strike.to_string()),
        Step::Crash(crash) => crash.at.as_ref().map(|site| format!("crash at {site}")),
        _ => None,
    }
}

fn keep<T: Clone>(items: &mut Vec<T>, kept: &[usize]) {
    *items = kept.iter().map(|at| items[*at].clone()).collect();
}

/// A minimal part of `0..len` that passes, found by delta debugging; `passes` is true for the whole. Each part is tried once.
fn minimal(len: usize, mut passes: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..len).collect();
    if !kept.is_empty() && passes(&[]) {
        return Vec::new();
    }
    let mut tried: BTreeSet<Vec<usize>> = BTreeSet::new();
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 && !kept.is_empty() {
        let mut at = 0;
        let mut smaller = false;
        while at < kept.len() {
            let end = (at + chunk).min(kept.len());
            // From the end: what comes later is caused by what came before.
            let (from, to) = (kept.len() - end, kept.len() - at);
            let mut candidate = kept.clone();
            candidate.drain(from..to);
            if !candidate.is_empty() && tried.insert(candidate.clone()) && passes(&candidate) {
                kept = candidate;
                smaller = true;
            } else {
                at = end;
            }
        }
        if !smaller || chunk > 1 {
            if chunk == 1 {
                break;
            }
            chunk /= 2;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::subject::{Run, Subject};
    use super::super::toy::{Toy, crash, site};
    use super::{Case, Trial, minimal, shrink};
    use crate::scenario::{GoDuration, PlainPhase, Process};
    use crate::storm::{Fault, Strike};

    #[test]
    fn a_minimal_part_is_found_wherever_it_lies() {
        for (len, needed) in [
            (1, vec![0]),
            (8, vec![2, 7]),
            (9, vec![0]),
            (30, vec![3, 4, 29]),
            (5, vec![]),
        ] {
            let mut plays = 0;
            let kept = minimal(len, |kept| {
                plays += 1;
                needed.iter().all(|n| kept.contains(n))
            });
            assert_eq!(kept, needed);
            assert!(plays < 80, "{plays} plays for {len}");
        }
    }

    struct OnToy(Toy);

    impl Trial for OnToy {
        fn breaks(&mut self, case: &Case) -> bool {
            let run = Run::pinned(case.seed, case.strikes.clone());
            self.0.play(run, &Arc::default()).broke("toy").is_some()
        }
    }

    #[test]
    fn the_two_strikes_that_matter_are_left_and_made_simple() {
        let toy = Toy {
            needs: vec!["provisioner / CreateVolume", "kubelet/node-1 / NodeStageVolume"],
        };
        let long = Fault::Crash {
            process: Process::parse("driver-controller").unwrap(),
            down: Some(GoDuration::parse("64s").unwrap()),
        };
        let at = |process, effect| site(process, effect, "pvc data", 1, PlainPhase::BeforeReply);
        let noise = |process, effect| Strike {
            at: at(process, effect),
            fault: crash("provisioner"),
        };
        let case = Case {
            scenario: None,
            seed: 99,
            strikes: vec![
                Strike {
                    at: at("provisioner", "CreateVolume"),
                    fault: long,
                },
                noise("attacher", "ControllerPublishVolume"),
                noise("kubelet/node-1", "NodeStageVolume"),
                noise("kubelet/node-1", "NodePublishVolume"),
            ],
        };
        let shrunk = shrink(case, 200, &mut OnToy(toy));
        assert!(shrunk.repeats);
        assert_eq!(shrunk.case.seed, 0);
        assert_eq!(shrunk.case.strikes.len(), 2, "{:?}", shrunk.case.strikes);
        assert_eq!(
            shrunk.case.strikes[0].fault,
            crash("driver-controller"),
            "a plain crash does it, too"
        );
        assert!(shrunk.plays < 40, "{}", shrunk.plays);
    }

    #[test]
    fn what_does_not_come_again_stays_as_it_was_found() {
        let toy = Toy { needs: vec!["resizer"] };
        let case = Case {
            scenario: None,
            seed: 5,
            strikes: vec![],
        };
        let shrunk = shrink(case.clone(), 10, &mut OnToy(toy));
        assert!(!shrunk.repeats);
        assert_eq!(shrunk.case, case);
    }

    /// Breaks as long as the scenario has so many steps that strike.
    struct OnSteps(usize);

    impl Trial for OnSteps {
        fn breaks(&mut self, case: &Case) -> bool {
            let scenario = case.scenario.as_ref().unwrap();
            let strikes = scenario.steps.iter().filter(|step| super::struck_by(step).is_some());
            strikes.count() >= self.0
        }
    }

    #[test]
    fn what_a_scenario_lets_strike_stays_if_it_matters_and_goes_last() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/faults");
        let library = crate::scenario::load(std::path::Path::new(folder)).unwrap();
        let scenario = library
            .into_iter()
            .find(|s| s.name.ends_with("pod-deleted-while-publishing-fails"));
        let scenario = scenario.expect("the library has it");
        let own = |case: &Case| {
            let steps = &case.scenario.as_ref().unwrap().steps;
            let struck = steps.iter().filter_map(super::struck_by).count();
            (struck, steps.len())
        };
        let case = Case {
            scenario: Some(scenario),
            seed: 0,
            strikes: Vec::new(),
        };
        assert_eq!(own(&case).0, 3);
        for needed in [0, 1, 3] {
            let shrunk = shrink(case.clone(), 200, &mut OnSteps(needed));
            let (struck, steps) = own(&shrunk.case);
            assert_eq!(struck, needed);
            // A strike needs the object that it names, and a scenario at least one step.
            assert!(steps <= needed + 1, "{steps} steps");
        }
        // As long as anything else can be left out, all strikes stay.
        let shrunk = shrink(case, 3, &mut OnSteps(0));
        assert_eq!(own(&shrunk.case).0, 3);
    }

    /// Has time for so many plays.
    struct Patient(OnToy, u32);

    impl Trial for Patient {
        fn breaks(&mut self, case: &Case) -> bool {
            self.1 -= 1;
            self.0.breaks(case)
        }

        fn is_over(&self) -> bool {
            self.1 == 0
        }
    }

    #[test]
    fn without_time_everything_stays_as_it_is_and_says_so() {
        let toy = || Toy {
            needs: vec!["kubelet/node-1 / NodeStageVolume"],
        };
        let at = |attempt| {
            site(
                "kubelet/node-1",
                "NodeStageVolume",
                "pvc data",
                attempt,
                PlainPhase::BeforeSend,
            )
        };
        let strikes = (1..=3).map(|attempt| Strike {
            at: at(attempt),
            fault: crash("kubelet/node-1"),
        });
        let case = Case {
            scenario: None,
            seed: 7,
            strikes: strikes.collect(),
        };
        let shrunk = shrink(case.clone(), 100, &mut Patient(OnToy(toy()), 0));
        assert!(shrunk.cut_short && shrunk.plays == 0 && shrunk.case == case);
        let shrunk = shrink(case, 100, &mut Patient(OnToy(toy()), 2));
        assert!(shrunk.cut_short && shrunk.repeats && shrunk.plays == 2);
    }

    #[test]
    fn the_budget_is_kept() {
        let toy = Toy {
            needs: vec!["kubelet/node-1 / NodeStageVolume"],
        };
        let strikes: Vec<Strike> = (1..=3)
            .map(|attempt| Strike {
                at: site(
                    "kubelet/node-1",
                    "NodeStageVolume",
                    "pvc data",
                    attempt,
                    PlainPhase::BeforeSend,
                ),
                fault: crash("kubelet/node-1"),
            })
            .collect();
        let shrunk = shrink(
            Case {
                scenario: None,
                seed: 1 << 40,
                strikes,
            },
            3,
            &mut OnToy(toy),
        );
        assert!(shrunk.plays <= 5, "{}", shrunk.plays);
    }
}
