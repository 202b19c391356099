//! Exhaustive: every fault at every site that the calm run met, one in each run; and every two of those.
//!
//! The cluster's seed is 0 throughout, so that a site of the calm run is met in the storm unless something struck before it. Pairs come in an order that visits each pair
//! once and soon visits every site; a campaign's number of runs is their budget.

use super::{BySite, Plan, Strategy, StrategyName, Survey};
use crate::storm::Strike;

/// Every single fault.
pub(super) struct Single {
    survey: Survey,
    singles: Vec<(u32, u32)>,
}

impl Single {
    /// All that the survey offers.
    pub fn new(survey: &Survey) -> Single {
        Single {
            singles: survey.singles(|_| true),
            survey: survey.clone(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.singles.len() as u64
    }
}

impl Strategy for Single {
    fn plan(&mut self, nth: u64) -> Option<Plan> {
        let single = *self.singles.get(usize::try_from(nth).ok()?)?;
        Some(plan(vec![self.survey.strike(single)], StrategyName::Single))
    }
}

/// Every two faults.
pub(super) struct Pairs {
    survey: Survey,
    singles: Vec<(u32, u32)>,
}

impl Pairs {
    /// All that the survey offers.
    pub fn new(survey: &Survey) -> Pairs {
        Pairs {
            singles: survey.singles(|_| true),
            survey: survey.clone(),
        }
    }
}

impl Strategy for Pairs {
    fn plan(&mut self, nth: u64) -> Option<Plan> {
        let count = self.singles.len() as u64;
        let (first, second) = nth_pair(count, nth)?;
        let strikes = [first, second].map(|at| self.survey.strike(self.singles[at as usize]));
        Some(plan(strikes.into(), StrategyName::Pairs))
    }
}

/// The n-th pair of `count` things: neighbours first, then those two apart, and so on; each pair once.
fn nth_pair(count: u64, nth: u64) -> Option<(u64, u64)> {
    if nth >= count.checked_mul(count.saturating_sub(1))? / 2 {
        return None;
    }
    let (mut distance, mut left) = (1, nth);
    while left >= count - distance {
        left -= count - distance;
        distance += 1;
    }
    Some((left, left + distance))
}

fn plan(strikes: Vec<Strike>, by: StrategyName) -> Plan {
    Plan {
        seed: 0,
        chooser: Box::new(BySite::new(strikes)),
        by,
    }
}

#[cfg(test)]
mod tests {
    use super::nth_pair;

    #[test]
    fn every_pair_comes_once() {
        for count in 0..9u64 {
            let mut pairs: Vec<_> = (0..).map_while(|nth| nth_pair(count, nth)).collect();
            let all = pairs.len() as u64;
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len() as u64, all);
            assert_eq!(all, count * count.saturating_sub(1) / 2);
            assert!(pairs.iter().all(|(a, b)| a < b && *b < count));
        }
    }
}
