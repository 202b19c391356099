//! *Promise*: a driver never ends by itself, and one that was stopped, killed or cut off starts again.
//!
//! *Why*: a driver that chokes on what it left behind itself needs a human at night.
//!
//! *Source*: `bugs.md` I11 crash-consistent; CSI v1.12, "Architecture": a plugin may be restarted at any time.
//!
//! *Mutant*: `leftovers-stop-start` (CSM987).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::link::Elsewhere;
use crate::scenario::{Process, Role};
use crate::trace::{ProcessChange, Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "driver-alive",
    says: "a driver never ends by itself, and one that was stopped or killed starts again",
    season: Season::Calm,
    source: "CSI v1.12, Plugin Lifecycle",
};

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct DriverAlive {
    /// Processes that could not start, and what they said.
    failed: BTreeMap<Arc<str>, String>,
    /// Processes that ended without being killed, and how.
    ended: BTreeMap<Arc<str>, String>,
}

impl Oracle for DriverAlive {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, _: &View<'_>, _: &mut Vec<Violation>) {
        match &record.what {
            What::Process(ProcessChange::Failed(why)) => {
                self.failed.insert(Arc::clone(&record.process), why.clone());
            }
            What::Process(ProcessChange::Exited(how)) if is_of_driver(&record.process) => {
                self.ended.insert(Arc::clone(&record.process), how.clone());
            }
            What::Process(ProcessChange::Started) => {
                self.failed.remove(&record.process);
            }
            _ => {}
        }
    }

    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        let unnoticed = view.cluster.elsewhere().map(Elsewhere::ended).unwrap_or_default();
        let unnoticed = unnoticed
            .into_iter()
            .map(|(node, how)| (format!("the driver on {node}"), how));
        let ended = self
            .ended
            .iter()
            .map(|(process, how)| (process.to_string(), how.clone()));
        for (process, how) in ended.chain(unnoticed) {
            let text = format!("{process} ended by itself, {how}");
            let blame = (
                Party::Driver,
                "CSI v1.12, Plugin Lifecycle: the CO ends a plugin, not a call",
            );
            found.push(view.broken(&PROMISE, blame, text, vec![process]));
        }
        for (process, why) in &self.failed {
            let text = format!("{process} does not start: {why}");
            let blame = (
                Party::Driver,
                "CSI v1.12, Plugin Lifecycle: a plugin may be restarted at any time",
            );
            found.push(view.broken(&PROMISE, blame, text, vec![process.to_string()]));
        }
    }
}

fn is_of_driver(process: &str) -> bool {
    let process = Process::parse(process);
    process.is_ok_and(|process| matches!(process.role, Role::DriverController | Role::DriverNode))
}
