//! Strategies: each gives every run of a campaign its chooser, and may learn from what came of it.
//!
//! A strategy sees sites, menus and what was new in a run. It knows nothing of Kubernetes, and judges nothing. What it plans depends on the digest of the
//! scenario, the number of the run and what it has learned, never on how many threads play.

mod coverage;
mod dice;
mod everywhere;
mod lists;
mod mix;
mod pct;
mod random;
mod single;
#[cfg(test)]
mod tests;

use std::fmt;

use super::subject::Played;
use crate::scenario::{Site, nearest};
use crate::storm::{Chooser, Fault, Strike};

pub use lists::{BySite, Survey};

/// What a run is to do.
pub struct Plan {
    /// The seed of the cluster.
    pub seed: u64,
    /// Who picks.
    pub chooser: Box<dyn Chooser>,
    /// Whose idea it was.
    pub by: StrategyName,
}

/// Plans the runs of one scenario.
pub trait Strategy: Send {
    /// The run of this number. Nothing when there are no more.
    fn plan(&mut self, nth: u64) -> Option<Plan>;

    /// What came of a run. Told in order of number, a whole batch at a time.
    fn learn(&mut self, nth: u64, played: &Played) {
        let _ = (nth, played);
    }

    /// Whether it learns: then a batch waits for the one before it.
    fn learns(&self) -> bool {
        false
    }
}

/// The strategies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StrategyName {
    /// Every other strategy that does not enumerate, taking turns, and every single fault.
    Mix,
    /// Each meeting strikes with a rate drawn for the run.
    Random,
    /// As random, with some kinds of fault switched off in each run.
    Swarm,
    /// Few strikes at random depths; some processes are always late.
    Pct,
    /// Every fault at every site that the calm run met, one in each run.
    Single,
    /// Every two of those.
    Pairs,
    /// Every crash at every site, then every process crashing at each of its sites.
    CrashEverywhere,
    /// What reached something new is varied.
    Coverage,
    /// As mix; each run is played twice, and the traces must be equal.
    Twice,
}

impl StrategyName {
    /// All of them.
    pub const ALL: &[StrategyName] = &[
        StrategyName::Mix,
        StrategyName::Random,
        StrategyName::Swarm,
        StrategyName::Pct,
        StrategyName::Single,
        StrategyName::Pairs,
        StrategyName::CrashEverywhere,
        StrategyName::Coverage,
        StrategyName::Twice,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            StrategyName::Mix => "mix",
            StrategyName::Random => "random",
            StrategyName::Swarm => "swarm",
            StrategyName::Pct => "pct",
            StrategyName::Single => "single",
            StrategyName::Pairs => "pairs",
            StrategyName::CrashEverywhere => "crash-everywhere",
            StrategyName::Coverage => "coverage",
            StrategyName::Twice => "twice",
        }
    }

    /// The strategy of this name.
    ///
    /// # Errors
    /// A sentence with the nearest name.
    pub fn parse(text: &str) -> Result<StrategyName, String> {
        let names = || StrategyName::ALL.iter().map(|name| name.as_str());
        if let Some(found) = StrategyName::ALL.iter().find(|name| name.as_str() == text) {
            return Ok(*found);
        }
        Err(match nearest(text, names()) {
            Some(near) => format!("there is no strategy `{text}`; did you mean `{near}`?"),
            None => format!(
                "there is no strategy `{text}`; there are {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// The strategy for a scenario that was surveyed.
    pub fn build(self, survey: &Survey) -> Box<dyn Strategy> {
        match self {
            StrategyName::Mix | StrategyName::Twice => Box::new(mix::Mix::new(survey)),
            StrategyName::Random => Box::new(random::Random::new(survey)),
            StrategyName::Swarm => Box::new(random::Random::swarm(survey)),
            StrategyName::Pct => Box::new(pct::Pct::new(survey)),
            StrategyName::Single => Box::new(single::Single::new(survey)),
            StrategyName::Pairs => Box::new(single::Pairs::new(survey)),
            StrategyName::CrashEverywhere => Box::new(everywhere::CrashEverywhere::new(survey)),
            StrategyName::Coverage => Box::new(coverage::CoverageGuided::new(survey)),
        }
    }
}

impl fmt::Display for StrategyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn strike(site: &Site, fault: &Fault) -> Strike {
    Strike {
        at: site.clone(),
        fault: fault.clone(),
    }
}
