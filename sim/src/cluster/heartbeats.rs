//! The leases of the nodes: which kubelet renews one, and when a dead one last did.
//!
//! Nothing is written and nothing ticks. A lease is computed when somebody looks (a process that watches leases fills its informers) or when a kubelet
//! starts or dies.
//!
//! A kubelet that writes the status of its node shows by that, too, that it lives.
//!
//! *Blind spot.* A lease's pace has up to 4 % of jitter; it is drawn once for each life of a kubelet and not for each renewal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Cluster, ProcessId};
use crate::control::Signal;
use crate::runtime::{Chance, Time};

/// From the start of a kubelet until its first renewal (traces 20, 20b and 20e: 0.4 to 0.5 s).
const FIRST: Duration = Duration::from_millis(450);

/// A kubelet that starts this early has been there for long: the phase of its renewals is drawn.
const ALWAYS_THERE: Time = Time(1_000_000_000);

/// The leases, by node.
#[derive(Debug)]
pub(super) struct Heartbeats {
    /// How often a lease is renewed.
    every: Duration,
    leases: BTreeMap<Arc<str>, Lease>,
    /// The processes that watch leases.
    pub listeners: Vec<ProcessId>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// The first renewal of this life of the kubelet, and their distance.
    first: Time,
    every: Duration,
    /// The last sign of life of the life before.
    before: Option<Time>,
    /// When the kubelet last wrote the status of its node: that is a sign of life, too.
    wrote: Option<Time>,
    /// The kubelet is dead.
    ended: bool,
}

impl Default for Heartbeats {
    fn default() -> Heartbeats {
        Heartbeats {
            every: Duration::from_secs(10),
            leases: BTreeMap::new(),
            listeners: Vec::new(),
        }
    }
}

impl Lease {
    /// The last sign of life at or before a moment.
    fn last(&self, at: Time) -> Option<Time> {
        self.renewed(at).max(self.wrote)
    }

    fn renewed(&self, at: Time) -> Option<Time> {
        if at < self.first {
            return self.before;
        }
        let every = self.every.as_nanos().max(1);
        let late = at.since(self.first).as_nanos();
        let whole = u64::try_from(late - late % every).expect("it is not later than the moment");
        Some(self.first + Duration::from_nanos(whole))
    }
}

impl Heartbeats {
    fn begin(&mut self, node: &Arc<str>, chance: &Chance, now: Time, life: u32) {
        let draw = |what| chance.unit(&["lease", node, what], u64::from(life));
        let every = self.every.mul_f64(1.0 + 0.04 * draw("pace"));
        let first = if now < ALWAYS_THERE {
            now + every.mul_f64(draw("phase"))
        } else {
            now + FIRST
        };
        // One that was always there has renewed it before the beginning, too.
        let always = (now < ALWAYS_THERE).then_some(now);
        let before = self.leases.get(node).and_then(|lease| lease.before).or(always);
        let lease = Lease {
            first,
            every,
            before,
            wrote: None,
            ended: false,
        };
        self.leases.insert(Arc::clone(node), lease);
    }

    /// The kubelet died: when it renewed its lease for the last time, if it ever did.
    fn end(&mut self, node: &str, now: Time) -> Option<Time> {
        let lease = self.leases.get_mut(node).filter(|lease| !lease.ended)?;
        (lease.before, lease.ended) = (lease.last(now), true);
        lease.before
    }
}

impl Cluster {
    /// How often kubelets renew the leases of their nodes: a quarter of what a lease holds.
    pub fn renew_leases_every(&mut self, period: Duration) {
        self.heartbeats.every = period;
    }

    /// A process starts: if it is a kubelet, its node's lease will be renewed.
    pub(super) fn heartbeats_begin(&mut self, id: ProcessId) {
        let Some(node) = self.kubelet_of(id) else { return };
        let (now, life) = (self.now(), self.processes[id.0 as usize].incarnation);
        self.heartbeats.begin(&node, &self.chance, now, life);
        self.tell_heartbeats(&Signal::HeartbeatsBegin { node: node.to_string() });
    }

    /// A process died: if it is a kubelet, its node's lease is not renewed any more.
    pub(super) fn heartbeats_end(&mut self, id: ProcessId) {
        let Some(node) = self.kubelet_of(id) else { return };
        if let Some(last) = self.heartbeats.end(&node, self.now()) {
            let node = node.to_string();
            self.tell_heartbeats(&Signal::HeartbeatsEnd { node, last });
        }
    }

    /// A kubelet that lived all the time can renew its node's lease again.
    pub(super) fn heartbeats_resume(&mut self, id: ProcessId) {
        let ended = |node: &Arc<str>| self.heartbeats.leases.get(node).is_some_and(|lease| lease.ended);
        if self.kubelet_of(id).as_ref().is_some_and(ended) {
            self.heartbeats_begin(id);
        }
    }

    /// A process wrote the status of its node.
    pub(super) fn node_status_written(&mut self, id: ProcessId) {
        let (now, node) = (self.now(), self.kubelet_of(id));
        if let Some(lease) = node.and_then(|node| self.heartbeats.leases.get_mut(&node)) {
            lease.wrote = Some(now);
        }
    }

    fn kubelet_of(&self, id: ProcessId) -> Option<Arc<str>> {
        let process = &self.processes[id.0 as usize];
        process.node.clone().filter(|_| process.node_bound)
    }

    fn tell_heartbeats(&mut self, signal: &Signal) {
        for nth in 0..self.heartbeats.listeners.len() {
            self.signal(self.heartbeats.listeners[nth], signal.clone());
        }
    }

    /// What a process that fills its informers finds among the leases.
    pub(super) fn found_heartbeats(&self) -> Vec<Signal> {
        let leases = self.heartbeats.leases.iter();
        leases
            .filter_map(|(node, lease)| {
                let node = node.to_string();
                if lease.ended {
                    let last = lease.before?;
                    return Some(Signal::HeartbeatsEnd { node, last });
                }
                Some(Signal::HeartbeatsBegin { node })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{FIRST, Heartbeats};
    use crate::runtime::{Chance, Time};

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_last_renewal_is_at_most_one_period_old() {
        let node: Arc<str> = "n1".into();
        for seed in 0..20 {
            let mut heartbeats = Heartbeats::default();
            heartbeats.begin(&node, &Chance::new(seed), Time::ZERO, 1);
            let last = heartbeats.end(&node, at(100)).unwrap();
            assert!(
                last <= at(100) && at(100).since(last) <= Duration::from_millis(10_400),
                "{last}"
            );
            assert_eq!(heartbeats.end(&node, at(200)), None, "it is dead already");
        }
    }

    #[test]
    fn a_kubelet_that_dies_before_its_first_renewal_leaves_that_of_its_life_before() {
        let node: Arc<str> = "n1".into();
        let mut heartbeats = Heartbeats::default();
        heartbeats.begin(&node, &Chance::new(0), Time::ZERO, 1);
        let last = heartbeats.end(&node, at(100));
        heartbeats.begin(&node, &Chance::new(0), at(120), 2);
        assert_eq!(heartbeats.end(&node, at(120) + FIRST / 2), last);
        heartbeats.begin(&node, &Chance::new(0), at(130), 3);
        assert_eq!(heartbeats.end(&node, at(131)), Some(at(130) + FIRST));
    }
}
