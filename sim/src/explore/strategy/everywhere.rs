//! Crash everywhere: every crash at every site of the calm run; then, for each process, one run in which it crashes at each of its sites once.
//!
//! The second part asks whether a process gets anywhere at all when each of its steps is cut off once: whether every step can be taken up again.

use std::collections::BTreeSet;

use super::{BySite, Plan, Strategy, StrategyName, Survey};
use crate::explore::witness::site_number;
use crate::scenario::Process;
use crate::storm::{Chooser, Meeting};

/// Every crash.
pub(super) struct CrashEverywhere {
    survey: Survey,
    singles: Vec<(u32, u32)>,
    processes: Vec<Process>,
}

impl CrashEverywhere {
    /// All that the survey offers.
    pub fn new(survey: &Survey) -> CrashEverywhere {
        let processes: BTreeSet<Process> = survey.meetings.iter().map(|(site, _)| site.process.clone()).collect();
        CrashEverywhere {
            singles: survey.singles(is_crash),
            processes: processes.into_iter().collect(),
            survey: survey.clone(),
        }
    }
}

/// Whether faults of this kind end a process or a machine.
fn is_crash(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    ["crash", "reboot", "powerloss"].iter().any(|word| kind.contains(word))
}

impl Strategy for CrashEverywhere {
    fn plan(&mut self, nth: u64) -> Option<Plan> {
        let nth = usize::try_from(nth).ok()?;
        let chooser: Box<dyn Chooser> = match self.singles.get(nth) {
            Some(single) => Box::new(BySite::new(vec![self.survey.strike(*single)])),
            None => Box::new(EachOnce {
                process: self.processes.get(nth - self.singles.len())?.clone(),
                struck: BTreeSet::new(),
            }),
        };
        Some(Plan {
            seed: 0,
            chooser,
            by: StrategyName::CrashEverywhere,
        })
    }
}

/// Crashes one process at each of its sites once.
struct EachOnce {
    process: Process,
    struck: BTreeSet<u64>,
}

/// A process that crashes more often than this in one run proves nothing new.
const MOST: usize = 64;

impl Chooser for EachOnce {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        if meeting.site.process != self.process || self.struck.len() >= MOST {
            return None;
        }
        let entry = meeting.menu.iter().position(|fault| is_crash(fault.kind()))?;
        let mut first = meeting.site.clone();
        first.attempt = 1;
        self.struck.insert(site_number(&first)).then_some(entry)
    }
}
