//! How long things take when nothing else says so: typical figures of a small healthy cluster.
//!
//! Fixed, but for watch deliveries, whose jitter is what real races come from. Their delay depends on the seed, the process, the kind and the moment, so
//! that an unrelated object moves nothing.

use std::time::Duration;

use crate::api::Kind;
use crate::runtime::{Chance, Draws, Time};

/// Typical durations.
#[derive(Clone, Debug)]
pub struct Latency {
    /// From a client's decision until the API server has applied the write.
    pub write: Duration,
    /// From there until the client has the answer.
    pub answer: Duration,
    /// A GET or LIST, there and back.
    pub read: Duration,
    /// One way of a CSI call over a local socket.
    pub call: Duration,
    /// An operation on the process's own node.
    pub machine: Duration,
    /// One operation of a driver on its host.
    pub host: Duration,
    /// One operation of a driver on its storage system.
    pub pool: Duration,
    /// The soonest a watcher sees a write.
    pub watch_min: Duration,
    /// How much later it may see it; most draws are near the minimum.
    pub watch_spread: Duration,
    /// From a recorder's decision until the event is written.
    pub event: Duration,
    /// From the start of a process until its informers are filled.
    pub start: Duration,
}

impl Default for Latency {
    fn default() -> Latency {
        let micros = Duration::from_micros;
        Latency {
            write: micros(2000),
            answer: micros(1500),
            read: micros(2000),
            call: micros(300),
            machine: micros(100),
            host: micros(500),
            pool: micros(1000),
            watch_min: micros(800),
            watch_spread: micros(2200),
            event: micros(5000),
            start: micros(20_000),
        }
    }
}

/// Distance of the points between which the delay of deliveries is interpolated.
const GRID: Duration = Duration::from_millis(5);

impl Latency {
    /// What makes the deliveries of a kind to a process early or late.
    pub fn jitter(chance: &Chance, process: &str, kind: Kind) -> Draws {
        chance.draws(&["watch", process, kind.short()])
    }

    /// How long after a write at `now` a process sees changes of a kind.
    ///
    /// A continuous function of time that never falls faster than time passes: deliveries of a kind keep their order by themselves, and no object's
    /// delivery depends on what else was written.
    pub fn watch(&self, jitter: Draws, now: Time) -> Duration {
        debug_assert!(
            self.watch_spread < GRID,
            "a delay that falls faster than time passes reorders deliveries"
        );
        let grid = u64::try_from(GRID.as_nanos()).expect("a few milliseconds");
        let (cell, into) = (now.0 / grid, (now.0 % grid) as f64 / grid as f64);
        let level = |cell: u64| {
            let u = jitter.unit(cell);
            u * u * u
        };
        self.watch_min
            + self
                .watch_spread
                .mul_f64(level(cell) * (1.0 - into) + level(cell + 1) * into)
    }
}

#[cfg(test)]
mod tests {
    use super::Latency;
    use crate::api::Kind;
    use crate::runtime::{Chance, Time};

    #[test]
    fn deliveries_of_a_kind_keep_their_order() {
        let (latency, jitter) = (Latency::default(), Latency::jitter(&Chance::new(3), "p", Kind::Pod));
        let due = |at: u64| Time(at) + latency.watch(jitter, Time(at));
        let dues: Vec<Time> = (0..20_000).map(|n| due(n * 10_000)).collect();
        assert!(dues.is_sorted());
    }
}
