//! The mix: of eight runs two are single faults, two swarm, two coverage-guided, one random, one by priorities. When the single faults are through, swarm takes their turns.
//!
//! It is what a campaign does when nobody says what. Single faults find what one unlucky moment breaks, and shrink best; the others find what takes two.

use super::coverage::CoverageGuided;
use super::pct::Pct;
use super::random::Random;
use super::single::Single;
use super::{Plan, Strategy, Survey};
use crate::explore::subject::Played;

/// The strategy.
pub(super) struct Mix {
    single: Single,
    random: Random,
    swarm: Random,
    pct: Pct,
    coverage: CoverageGuided,
}

impl Mix {
    /// For this scenario.
    pub fn new(survey: &Survey) -> Mix {
        Mix {
            single: Single::new(survey),
            random: Random::new(survey),
            swarm: Random::swarm(survey),
            pct: Pct::new(survey),
            coverage: CoverageGuided::new(survey),
        }
    }
}

impl Strategy for Mix {
    fn plan(&mut self, nth: u64) -> Option<Plan> {
        let single = nth / 8 * 2 + nth % 8 / 4;
        match nth % 8 {
            0 | 4 if single < self.single.len() => self.single.plan(single),
            0 | 4 | 1 | 5 => self.swarm.plan(nth),
            2 => self.random.plan(nth),
            3 => self.pct.plan(nth),
            _ => self.coverage.plan(nth),
        }
    }

    fn learn(&mut self, nth: u64, played: &Played) {
        self.coverage.learn(nth, played);
    }

    fn learns(&self) -> bool {
        true
    }
}
