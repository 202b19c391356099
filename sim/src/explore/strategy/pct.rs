//! Few strikes at random depths, and processes of unequal luck: after *probabilistic concurrency testing* (Burckhardt et al., 2010).
//!
//! A bug of depth d needs d events in one order. So each run draws d from 1 to 3 and d depths among the meetings of the calm run, and something strikes exactly there.
//! Beside that every process draws a priority for the run; those of low priority are late: wherever a fault that only delays is on the menu of one of
//! their meetings, it may strike.

use std::collections::BTreeMap;

use super::dice::Dice;
use super::{Plan, Strategy, StrategyName, Survey};
use crate::scenario::Process;
use crate::storm::{Chooser, Meeting};

/// Kinds of fault that change nothing but when something happens.
const DELAYS: [&str; 5] = ["delay", "pause", "slow", "late", "stale"];
/// How often the late are made late in one run.
const MOST_DELAYS: usize = 4;
/// How likely a process of low priority is delayed where it can be.
const DELAYED: f64 = 0.1;
/// How many of the processes are of low priority.
const LOW: f64 = 0.25;

/// The strategy.
pub(super) struct Pct {
    survey: Survey,
}

impl Pct {
    /// For this scenario.
    pub fn new(survey: &Survey) -> Pct {
        Pct { survey: survey.clone() }
    }
}

impl Strategy for Pct {
    fn plan(&mut self, nth: u64) -> Option<Plan> {
        let mut dice = Dice::new(&self.survey.digest, StrategyName::Pct.as_str(), nth);
        let depth = 1 + dice.below(3);
        // Storms are longer than the calm run: what struck is tried again.
        let meetings = self.survey.meetings.len().max(1) * 5 / 4;
        let points = (0..depth).map(|_| dice.below(meetings.max(1)) as u64).collect();
        Some(Plan {
            seed: nth,
            chooser: Box::new(Priorities {
                points,
                dice,
                met: 0,
                low: BTreeMap::new(),
                delays: MOST_DELAYS,
            }),
            by: StrategyName::Pct,
        })
    }
}

struct Priorities {
    points: Vec<u64>,
    dice: Dice,
    met: u64,
    low: BTreeMap<Process, bool>,
    delays: usize,
}

impl Chooser for Priorities {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        let nth = self.met;
        self.met += 1;
        if self.points.contains(&nth) {
            return self.dice.pick(meeting.menu, |_| true);
        }
        let low = match self.low.get(&meeting.site.process) {
            Some(low) => *low,
            None => {
                let low = self.dice.unit() < LOW;
                self.low.insert(meeting.site.process.clone(), low);
                low
            }
        };
        if !low || self.delays == 0 || self.dice.unit() >= DELAYED {
            return None;
        }
        let late = meeting.menu.iter().position(|fault| is_delay(fault.kind()))?;
        self.delays -= 1;
        Some(late)
    }
}

fn is_delay(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    DELAYS.iter().any(|word| kind.contains(word))
}
