//! All oracles, shown every record and every deed of a run in order.

use super::{Facts, Oracle, Promise, Season, View, Violation};
use crate::cluster::Cluster;
use crate::link::Sight;

/// The oracles of a run.
pub struct Panel {
    oracles: Vec<Box<dyn Oracle>>,
    facts: Facts,
    /// How many records were looked at.
    read: usize,
    /// How many deeds of each storage system were looked at.
    deeds: Vec<usize>,
    found: Vec<Violation>,
}

/// A promise that is broken over and over is reported so often.
const REPORTS: usize = 8;

fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::<super::one_writer::OneWriter>::default(),
        Box::<super::data::DurableData>::default(),
        Box::<super::no_mkfs::NoMkfs>::default(),
        Box::<super::clone_equals_source::CloneEqualsSource>::default(),
        Box::<super::in_use::InUse>::default(),
        Box::<super::ok_means_done::OkMeansDone>::default(),
        Box::<super::same_answer::SameAnswer>::default(),
        Box::<super::sizes::Sizes>::default(),
        Box::<super::legal_answers::LegalAnswers>::default(),
        Box::<super::secrets::NoSecrets>::default(),
        Box::<super::order::Order>::default(),
        Box::<super::csi_by_the_cluster::CsiByTheCluster>::default(),
        Box::<super::kubernetes_rules::KubernetesRules>::default(),
        Box::<super::settles::Settles>::default(),
        Box::<super::leftovers::NoLeftovers>::default(),
        Box::<super::hot_loop::NoHotLoop>::default(),
        Box::<super::driver_alive::DriverAlive>::default(),
        Box::<super::bounded::Bounded>::default(),
    ]
}

/// Every promise that is judged, safety first.
pub fn promises() -> Vec<&'static Promise> {
    all().iter().map(|oracle| oracle.promise()).collect()
}

/// What no oracle can judge where only so much can be seen: promises, and what of them.
pub fn unseen(sight: &Sight) -> Vec<(&'static str, &'static str)> {
    all()
        .iter()
        .filter_map(|oracle| Some((oracle.promise().name, oracle.unseen(sight)?)))
        .collect()
}

impl Default for Panel {
    fn default() -> Panel {
        Panel::new()
    }
}

impl Panel {
    /// All oracles, at the beginning of a run.
    pub fn new() -> Panel {
        Panel {
            oracles: all(),
            facts: Facts::default(),
            read: 0,
            deeds: Vec::new(),
            found: Vec::new(),
        }
    }

    /// No oracle at all: for benchmarks.
    pub fn silent() -> Panel {
        Panel {
            oracles: Vec::new(),
            ..Panel::new()
        }
    }

    /// The records so far belong to the boot and are gone from the trace; what they have shown stays known.
    pub fn begin(&mut self) {
        self.read = 0;
    }

    /// Looks at what is new. Says whether anything was.
    pub fn look(&mut self, cluster: &Cluster) -> bool {
        if self.read == cluster.trace().records().len() {
            return false;
        }
        self.catch_up(cluster);
        true
    }

    fn catch_up(&mut self, cluster: &Cluster) {
        if self.oracles.is_empty() {
            return;
        }
        self.look_at_deeds(cluster);
        let Panel {
            oracles,
            facts,
            read,
            found,
            ..
        } = self;
        let records = cluster.trace().records();
        for (nth, record) in records.iter().enumerate().skip(*read) {
            let at = record.at;
            for oracle in oracles.iter_mut() {
                let view = View {
                    cluster,
                    facts,
                    nth,
                    at,
                };
                oracle.look(record, &view, found);
            }
            facts.take(record, cluster);
        }
        *read = records.len();
        self.sift();
    }

    fn look_at_deeds(&mut self, cluster: &Cluster) {
        let storages = cluster.storages();
        self.deeds.resize(storages.len(), 0);
        let view = View {
            cluster,
            facts: &self.facts,
            nth: self.read,
            at: cluster.now(),
        };
        for (known, (driver, storage)) in self.deeds.iter_mut().zip(storages) {
            let deeds = storage.deeds_after(*known);
            *known += deeds.len();
            for deed in &deeds {
                for oracle in &mut self.oracles {
                    oracle.deed(driver, deed, &view, &mut self.found);
                }
            }
        }
    }

    /// Shows every oracle a deed that no storage system has seen.
    #[cfg(test)]
    pub(super) fn show(&mut self, cluster: &Cluster, driver: &str, deed: &crate::host::Deed) {
        let view = View {
            cluster,
            facts: &self.facts,
            nth: self.read,
            at: cluster.now(),
        };
        for oracle in &mut self.oracles {
            oracle.deed(driver, deed, &view, &mut self.found);
        }
    }

    /// The run has settled: what must be so at its end?
    pub fn settle(&mut self, cluster: &Cluster) {
        self.catch_up(cluster);
        let (nth, at) = (cluster.trace().records().len(), cluster.now());
        let facts = &self.facts;
        let view = View {
            cluster,
            facts,
            nth,
            at,
        };
        for oracle in &mut self.oracles {
            oracle.settle(&view, &mut self.found);
        }
        self.sift();
    }

    /// What an oracle would see now.
    pub fn view<'a>(&'a self, cluster: &'a Cluster) -> View<'a> {
        View {
            cluster,
            facts: &self.facts,
            nth: cluster.trace().records().len(),
            at: cluster.now(),
        }
    }

    /// Takes in a violation that was seen elsewhere: by a pod that read its volume.
    pub fn accuse(&mut self, violation: Violation) {
        self.found.push(violation);
        self.sift();
    }

    /// The same again is not worth a line.
    fn sift(&mut self) {
        let mut kept: Vec<Violation> = Vec::new();
        for violation in self.found.drain(..) {
            let same = kept.iter().filter(|k| k.promise == violation.promise);
            let known = same
                .clone()
                .any(|k| k.objects == violation.objects && k.blame == violation.blame);
            if !known && same.count() < REPORTS {
                kept.push(violation);
            }
        }
        self.found = kept;
    }

    /// What was found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.found
    }

    /// Whether a promise of safety is broken already.
    pub fn is_unsafe(&self) -> bool {
        self.found.iter().any(|v| v.promise.season == Season::Safety)
    }

    /// What was found, in order of time.
    pub fn into_violations(mut self) -> Vec<Violation> {
        self.found.sort_by_key(|violation| violation.record);
        self.found
    }

    /// What is known.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}
