//! Stands between a run and its chooser and notes what it was asked and what it answered.
//!
//! The notes outlive the run even when it panics, so that a bug of ours has a token, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::picks::{Pick, Picks};
use crate::runtime::{Time, fold};
use crate::scenario::Site;
use crate::storm::{Chooser, Fault, Meeting, Strike};

/// How many attempts coverage tells apart; later ones count as the last.
const ATTEMPTS: u32 = 3;

/// What a run was asked and what was answered.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// How many meetings there were.
    pub meetings: u32,
    /// What was picked.
    pub picks: Picks,
    /// The same by site.
    pub strikes: Vec<Strike>,
    /// When each struck.
    pub times: Vec<Time>,
    /// The sites that were met, by the number that stands for each ([`site_number`]); each once, in order of number.
    pub sites: Vec<u64>,
    /// How the sites are spelled that this thread has not told before.
    pub names: Vec<(u64, String)>,
    /// Every meeting with its menu, if they are kept.
    pub kept: Vec<(Site, Vec<Fault>)>,
}

/// The sites whose spelling has been told.
pub type Told = BTreeMap<u64, ()>;

/// The chooser that takes notes.
pub struct Witness {
    inner: Box<dyn Chooser>,
    notes: Arc<Mutex<Notes>>,
    told: Arc<Mutex<Told>>,
    met: BTreeMap<u64, ()>,
    keep: bool,
}

impl Witness {
    /// A witness of `inner`. With `keep` it keeps every meeting whole.
    pub fn new(inner: Box<dyn Chooser>, notes: Arc<Mutex<Notes>>, told: Arc<Mutex<Told>>, keep: bool) -> Witness {
        Witness {
            inner,
            notes,
            told,
            met: BTreeMap::new(),
            keep,
        }
    }
}

impl Chooser for Witness {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        let answer = self.inner.choose(meeting).filter(|entry| *entry < meeting.menu.len());
        let number = site_number(meeting.site);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.met.insert(number, ()).is_none() {
            notes.sites.push(number);
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.insert(number, ()).is_none() {
                notes.names.push((number, spell_site(meeting.site)));
            }
        }
        if self.keep {
            notes.kept.push((meeting.site.clone(), meeting.menu.to_vec()));
        }
        if let Some(entry) = answer {
            let pick = Pick {
                meeting: notes.meetings,
                entry: u32::try_from(entry).unwrap_or(u32::MAX),
            };
            notes.picks.0.push(pick);
            notes.strikes.push(Strike {
                at: meeting.site.clone(),
                fault: meeting.menu[entry].clone(),
            });
            notes.times.push(meeting.now);
        }
        notes.meetings += 1;
        answer
    }
}

/// The number that stands for a site in coverage. Later attempts than the third share one.
pub fn site_number(site: &Site) -> u64 {
    let process = &site.process;
    let after_op = match site.phase {
        crate::scenario::Phase::AfterOp(k) => u64::from(k),
        crate::scenario::Phase::Plain(phase) => 1000 + phase as u64,
    };
    let seed = u128::from(after_op) << 32 | u128::from(site.attempt.min(ATTEMPTS + 1));
    let parts = [
        process.role.as_str(),
        process.driver.as_deref().unwrap_or_default(),
        process.node.as_deref().unwrap_or_default(),
        &site.effect,
        &site.object,
    ];
    fold(seed, &parts) as u64
}

/// How coverage spells a site.
pub fn spell_site(site: &Site) -> String {
    let text = site.to_string();
    if site.attempt <= ATTEMPTS {
        return text;
    }
    let exact = format!(" / attempt {} / ", site.attempt);
    text.replace(&exact, &format!(" / attempt >{ATTEMPTS} / "))
}
