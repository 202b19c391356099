//! What a strategy knows before the first storm: the meetings of a run in which nothing struck; and the chooser that strikes at given sites.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dice::Dice;
use super::strike;
use crate::explore::witness::site_number;
use crate::scenario::Site;
use crate::storm::{Chooser, Fault, Meeting, Strike};

/// The meetings of the calm run.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The digest of the scenario.
    pub digest: Arc<str>,
    /// Every meeting, in order.
    pub meetings: Arc<Vec<(Site, Vec<Fault>)>>,
}

impl Survey {
    /// What the calm run of the scenario with this digest met.
    pub fn new(digest: &str, meetings: Vec<(Site, Vec<Fault>)>) -> Survey {
        Survey {
            digest: digest.into(),
            meetings: Arc::new(meetings),
        }
    }

    /// The rate at which about `strikes` of a run's meetings strike.
    pub(super) fn rate(&self, strikes: usize) -> f64 {
        (strikes as f64 / self.meetings.len().max(1) as f64).min(1.0)
    }

    /// Every fault at every site whose kind is wanted, as (meeting, entry), the most different first: one of each effect, phase and kind of fault, then a
    /// second of each, and so on; the order within each round is drawn.
    pub(super) fn singles(&self, wanted: impl Fn(&str) -> bool) -> Vec<(u32, u32)> {
        let mut seen = BTreeSet::new();
        let mut all: Vec<(String, (u32, u32))> = Vec::new();
        for (meeting, (site, menu)) in self.meetings.iter().enumerate() {
            if !seen.insert(site) {
                continue;
            }
            for (entry, fault) in menu.iter().enumerate() {
                let kind = fault.kind();
                if wanted(kind) {
                    let group = format!("{}/{}/{}/{kind}", site.process.role, site.effect, site.phase);
                    all.push((group, (meeting as u32, entry as u32)));
                }
            }
        }
        Dice::new(&self.digest, "order", 0).shuffle(&mut all);
        let mut rounds = std::collections::BTreeMap::<&String, u32>::new();
        let mut ranked: Vec<(u32, (u32, u32))> = Vec::with_capacity(all.len());
        for (group, single) in &all {
            let round = rounds.entry(group).or_default();
            ranked.push((*round, *single));
            *round += 1;
        }
        ranked.sort_by_key(|(round, _)| *round);
        ranked.into_iter().map(|(_, single)| single).collect()
    }

    /// The strike of a meeting and an entry of its menu.
    pub(super) fn strike(&self, (meeting, entry): (u32, u32)) -> Strike {
        let (site, menu) = &self.meetings[meeting as usize];
        strike(site, &menu[entry as usize])
    }

    /// The numbers of all sites.
    pub(super) fn numbers(&self) -> BTreeSet<u64> {
        self.meetings.iter().map(|(site, _)| site_number(site)).collect()
    }
}

/// Strikes at given sites, each strike once.
pub struct BySite {
    wanted: Vec<Strike>,
}

impl BySite {
    /// A chooser of exactly these strikes, as far as their sites are met.
    pub fn new(wanted: Vec<Strike>) -> BySite {
        BySite { wanted }
    }
}

impl Chooser for BySite {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        let at = self.wanted.iter().position(|strike| strike.at == *meeting.site)?;
        let strike = self.wanted.swap_remove(at);
        meeting.menu.iter().position(|fault| *fault == strike.fault)
    }
}
