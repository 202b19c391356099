//! Random and swarm: each meeting strikes with a rate that is drawn for the run.
//!
//! The rate is such that a run as long as the calm one has between one and eight strikes. Swarm switches a random half of the kinds of fault off in each run: a fault
//! that hides another is then often absent (Groce et al., *Swarm Testing*, 2012).

use super::dice::Dice;
use super::{Plan, Strategy, StrategyName, Survey};
use crate::storm::{Chooser, Meeting};

/// How many strikes a run of the calm run's length has, roughly; one of these is drawn.
const STRIKES: [usize; 8] = [1, 1, 2, 2, 3, 4, 6, 8];

/// Random or swarm.
pub(super) struct Random {
    survey: Survey,
    name: StrategyName,
}

impl Random {
    /// Every kind of fault in every run.
    pub fn new(survey: &Survey) -> Random {
        Random {
            survey: survey.clone(),
            name: StrategyName::Random,
        }
    }

    /// Some kinds switched off in each run.
    pub fn swarm(survey: &Survey) -> Random {
        Random {
            survey: survey.clone(),
            name: StrategyName::Swarm,
        }
    }
}

impl Strategy for Random {
    fn plan(&mut self, nth: u64) -> Option<Plan> {
        let mut dice = Dice::new(&self.survey.digest, self.name.as_str(), nth);
        let strikes = *dice.one_of(&STRIKES).unwrap_or(&1);
        let salt = (self.name == StrategyName::Swarm).then(|| dice.unit());
        Some(Plan {
            seed: nth,
            chooser: Box::new(Rate {
                rate: self.survey.rate(strikes),
                left: 3 * strikes,
                salt,
                dice,
            }),
            by: self.name,
        })
    }
}

/// Strikes with a rate.
pub(super) struct Rate {
    pub dice: Dice,
    pub rate: f64,
    /// How many strikes at most.
    pub left: usize,
    /// Decides which kinds are off.
    pub salt: Option<f64>,
}

impl Chooser for Rate {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        if self.left == 0 || self.dice.unit() >= self.rate {
            return None;
        }
        let salt = self.salt;
        let picked = self.dice.pick(meeting.menu, |kind| is_on(salt, kind))?;
        self.left -= 1;
        Some(picked)
    }
}

/// Whether a kind of fault is on in a run with this salt: half of them are.
fn is_on(salt: Option<f64>, kind: &str) -> bool {
    let Some(salt) = salt else { return true };
    crate::runtime::fold(u128::from(salt.to_bits()), &[kind]) & 1 == 0
}
