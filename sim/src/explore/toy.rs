//! A subject of a few lines for the tests of strategies, shrinking and campaigns: some effects in a row, each tried again after a crash, and a bug that fires when
//! its strikes all struck.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::subject::{Finding, Played, Run, Subject};
use super::witness::{Notes, Told, Witness};
use crate::runtime::Time;
use crate::scenario::{PlainPhase, Process, Site};
use crate::storm::{Chooser as _, Fault, Meeting, Strike};

/// The bug: which strikes it takes, as the beginnings of their sites.
#[derive(Clone, Default)]
pub struct Toy {
    pub needs: Vec<&'static str>,
}

const EFFECTS: [(&str, &str, &str); 4] = [
    ("provisioner", "CreateVolume", "pvc data"),
    ("attacher", "ControllerPublishVolume", "pvc data"),
    ("kubelet/node-1", "NodeStageVolume", "pvc data"),
    ("kubelet/node-1", "NodePublishVolume", "pvc data"),
];

pub fn site(process: &str, effect: &str, object: &str, attempt: u32, phase: PlainPhase) -> Site {
    Site::parse(&format!(
        "{process} / {effect} / {object} / attempt {attempt} / {phase}"
    ))
    .unwrap()
}

pub fn crash(process: &str) -> Fault {
    Fault::Crash {
        process: Process::parse(process).unwrap(),
        down: None,
    }
}

pub fn menu(process: &str) -> Vec<Fault> {
    vec![crash(process), crash("driver-controller")]
}

impl Subject for Toy {
    fn play(&self, run: Run, told: &Arc<Mutex<Told>>) -> Played {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let mut witness = Witness::new(run.chooser, Arc::clone(&notes), Arc::clone(told), run.keep_meetings);
        let mut struck: Vec<Strike> = Vec::new();
        let mut pinned = run.pinned;
        let mut now = 0;
        for (process, effect, object) in EFFECTS {
            let menu = menu(process);
            let mut attempts: BTreeMap<&str, u32> = BTreeMap::new();
            while attempts.get(effect).copied().unwrap_or(0) < 3 {
                let attempt = attempts.entry(effect).or_default();
                *attempt += 1;
                let mut again = false;
                for phase in [PlainPhase::BeforeSend, PlainPhase::BeforeReply] {
                    now += 1;
                    let site = site(process, effect, object, *attempt, phase);
                    let meeting = Meeting {
                        site: &site,
                        menu: &menu,
                        now: Time(now),
                    };
                    let due = pinned.iter().position(|strike| strike.at == site);
                    let fault = match due {
                        Some(at) => Some(pinned.remove(at).fault),
                        None => witness.choose(&meeting).map(|entry| menu[entry].clone()),
                    };
                    if let Some(fault) = fault {
                        struck.push(Strike { at: site, fault });
                        again = true;
                        break;
                    }
                }
                if !again {
                    break;
                }
            }
        }
        let mut played = Played {
            seed: run.seed,
            notes: notes.lock().unwrap().clone(),
            struck,
            ..Played::default()
        };
        let hit = |needed: &&str| {
            played
                .struck
                .iter()
                .any(|strike| strike.at.to_string().starts_with(*needed))
        };
        if !self.needs.is_empty() && self.needs.iter().all(hit) {
            played.findings.push(Finding::plain("toy", 2, "the toy broke"));
        }
        played
    }
}
