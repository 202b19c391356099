//! Coverage-guided: runs that reached something new are kept and varied.
//!
//! New is a site, a fault at a site while the objects were in certain phases, or a transition of an object. A kept run earns as many turns as it brought new things. A variation
//! adds, drops or replaces one strike, or keeps the strikes and changes the seed; besides, sites that the calm run never met are struck more often than others.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dice::Dice;
use super::random::Rate;
use super::{BySite, Plan, Strategy, StrategyName, Survey, strike};
use crate::explore::subject::Played;
use crate::explore::witness::site_number;
use crate::storm::{Chooser, Meeting, Strike};

/// How many runs are kept at most.
const CORPUS: usize = 256;
/// How many things are remembered as known at most: past that nothing is new any more.
const KNOWN: usize = 1 << 20;
/// The share of runs that vary nothing.
const FRESH: f64 = 0.2;
/// How likely something strikes at a site that the calm run never met.
const AT_NEW: f64 = 0.04;
/// How many strikes a variation has at most.
const MOST: usize = 8;

/// A run worth varying.
struct Kept {
    seed: u64,
    strikes: Vec<Strike>,
    energy: u64,
}

/// The strategy.
pub(super) struct CoverageGuided {
    survey: Survey,
    calm: Arc<BTreeSet<u64>>,
    known: BTreeSet<u64>,
    corpus: Vec<Kept>,
}

impl CoverageGuided {
    /// For this scenario.
    pub fn new(survey: &Survey) -> CoverageGuided {
        let calm = survey.numbers();
        CoverageGuided {
            survey: survey.clone(),
            known: calm.clone(),
            calm: Arc::new(calm),
            corpus: Vec::new(),
        }
    }

    /// A kept run, drawn by energy.
    fn parent(&self, dice: &mut Dice) -> Option<&Kept> {
        let all: u64 = self.corpus.iter().map(|kept| kept.energy).sum();
        let mut left = (dice.unit() * all as f64) as u64;
        self.corpus.iter().find(|kept| match left.checked_sub(kept.energy) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }

    fn vary(&self, parent: &Kept, dice: &mut Dice) -> Vec<Strike> {
        let mut strikes = parent.strikes.clone();
        let full = strikes.len() >= MOST;
        match dice.below(4) {
            0 if strikes.len() > 1 => {
                let at = dice.below(strikes.len());
                strikes.remove(at);
            }
            1 if !strikes.is_empty() => {
                let at = dice.below(strikes.len());
                let menu = self.survey.meetings.iter().find(|(site, _)| *site == strikes[at].at);
                if let Some(entry) = menu.and_then(|(_, menu)| dice.pick(menu, |_| true).map(|e| menu[e].clone())) {
                    strikes[at].fault = entry;
                }
            }
            2 => {}
            _ if !full => {
                if let Some((site, menu)) = dice.one_of(&self.survey.meetings)
                    && let Some(entry) = dice.pick(menu, |_| true)
                {
                    strikes.push(strike(site, &menu[entry]));
                }
            }
            _ => {}
        }
        strikes
    }
}

impl Strategy for CoverageGuided {
    fn plan(&mut self, nth: u64) -> Option<Plan> {
        let mut dice = Dice::new(&self.survey.digest, StrategyName::Coverage.as_str(), nth);
        let fresh = dice.unit() < FRESH;
        let parent = if fresh { None } else { self.parent(&mut dice) };
        let (seed, strikes, rate) = match parent {
            None => (nth, Vec::new(), self.survey.rate(3)),
            // The same seed leads to the same sites; another one makes other races of them.
            Some(parent) => {
                let strikes = self.vary(parent, &mut dice);
                let seed = if dice.below(3) == 0 { nth } else { parent.seed };
                (seed, strikes, 0.0)
            }
        };
        Some(Plan {
            seed,
            chooser: Box::new(Curious {
                pinned: BySite::new(strikes),
                calm: Arc::clone(&self.calm),
                rate: Rate {
                    dice,
                    rate,
                    left: MOST,
                    salt: None,
                },
            }),
            by: StrategyName::Coverage,
        })
    }

    fn learn(&mut self, _: u64, played: &Played) {
        let before = self.known.len();
        if before < KNOWN {
            self.known.extend(played.notes.sites.iter().copied());
            self.known.extend(played.features.numbers());
        }
        let new = (self.known.len() - before) as u64;
        if new == 0 || played.struck.is_empty() {
            return;
        }
        self.corpus.push(Kept {
            seed: played.seed,
            strikes: played.struck.iter().take(MOST).cloned().collect(),
            energy: new,
        });
        if self.corpus.len() > CORPUS {
            let weakest = (0..self.corpus.len()).min_by_key(|at| self.corpus[*at].energy);
            self.corpus.remove(weakest.unwrap_or(0));
        }
    }

    fn learns(&self) -> bool {
        true
    }
}

/// Strikes where it is told, and likes sites that the calm run never met.
struct Curious {
    pinned: BySite,
    calm: Arc<BTreeSet<u64>>,
    rate: Rate,
}

impl Chooser for Curious {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        if let Some(entry) = self.pinned.choose(meeting) {
            return Some(entry);
        }
        let usual = self.rate.rate;
        if !self.calm.contains(&site_number(meeting.site)) {
            self.rate.rate = usual.max(AT_NEW);
        }
        let picked = self.rate.choose(meeting);
        self.rate.rate = usual;
        picked
    }
}
