//! *Promise*: memory, descriptors and threads of a driver's process do not grow with each call.
//!
//! *Why*: a process that only grows is killed by its memory limit, or refuses calls when its descriptors are used up: weeks later, in the middle of one.
//!
//! *Source*: `bugs.md` I14 bounded; Kubernetes, "Resource Management for Pods and Containers" (a container over its limit is killed).
//!
//! *Mutant*: none of the catalogue; the unit test has a process that keeps a descriptor for each call.
//!
//! Blind spots: a process is measured where it is one of the machine, and over one run of a few dozen calls: what grows more slowly stays unseen. A pool that
//! fills up once is no growth.

use std::collections::BTreeMap;

use super::{Oracle, Party, Promise, Season, View, Violation, node_of};
use crate::link::{Footprint, Sight, Socket};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "bounded",
    says: "memory, descriptors and threads of a driver's process do not grow with each call",
    season: Season::Calm,
    source: "Kubernetes, Resource Management for Pods and Containers",
};

/// Fewer calls than this say nothing. The first half of them warms the process up.
const CALLS: usize = 24;
/// Memory that grows by less than this with each call, in KiB, is an allocator's business.
const GRAIN: u64 = 1024;

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct Bounded {
    /// What each life of a process took after each of its answers. The process is named by where it lives.
    lives: BTreeMap<(String, i32), Vec<Footprint>>,
}

impl Oracle for Bounded {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        (!sight.processes).then_some("no process of the driver is to be seen")
    }

    fn look(&mut self, record: &Record, view: &View<'_>, _: &mut Vec<Violation>) {
        let What::Reply { call, .. } = &record.what else { return };
        let node = node_of(&record.process).filter(|_| call.socket == Socket::Node);
        self.measure(node, view);
    }

    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        for ((place, _), taken) in &self.lives {
            let Some(what) = grows(taken) else { continue };
            let whose = format!("the driver's process on {place}");
            let text = format!("{whose} grows with each call: {what}");
            let blame = (Party::Driver, "a process that only grows is killed by its limits");
            found.push(view.broken(&PROMISE, blame, text, vec![whose]));
        }
    }
}

impl Bounded {
    fn measure(&mut self, node: Option<&str>, view: &View<'_>) {
        let Some(elsewhere) = view.cluster.elsewhere() else {
            return;
        };
        if let Some((place, now)) = elsewhere.footprint(node) {
            self.lives.entry((place, now.life)).or_default().push(now);
        }
    }
}

/// One number of a footprint.
type Measure = fn(&Footprint) -> u64;

/// What of a process never shrank, and grew with each call, once it was warm.
fn grows(taken: &[Footprint]) -> Option<String> {
    if taken.len() < CALLS {
        return None;
    }
    let taken = &taken[taken.len() / 2..];
    let kinds: [(&str, Measure, u64); 3] = [
        ("descriptors", |at| at.descriptors, 1),
        ("threads", |at| at.threads, 1),
        ("KiB of memory", |at| at.memory, GRAIN),
    ];
    kinds.into_iter().find_map(|(name, of, grain)| {
        let pairs = || taken.windows(2).map(|pair| (of(&pair[0]), of(&pair[1])));
        let never_shrinks = pairs().all(|(before, after)| before <= after);
        // One jump, such as code that is read in when it is first run, is no growth with each call.
        let grew = pairs().filter(|(before, after)| before + grain <= *after).count();
        let (first, last) = (of(taken.first()?), of(taken.last()?));
        let calls = taken.len();
        (never_shrinks && 2 * grew >= calls - 1).then(|| format!("from {first} to {last} {name} in {calls} of them"))
    })
}

#[cfg(test)]
mod tests {
    use super::{Footprint, grows};

    fn series(descriptors: impl Fn(u64) -> u64, memory: impl Fn(u64) -> u64) -> Vec<Footprint> {
        let at = |call| Footprint {
            life: 7,
            memory: memory(call),
            descriptors: descriptors(call),
            threads: 4,
        };
        (0..40).map(at).collect()
    }

    #[test]
    fn what_grows_with_each_call_is_told_from_a_pool_that_fills_up_once() {
        let leaks = grows(&series(|call| 10 + call, |_| 5000)).expect("one for each call");
        assert!(leaks.contains("30 to 49 descriptors"), "{leaks}");
        assert!(grows(&series(|_| 10, |call| 5000 + 2000 * call)).is_some());
        for fine in [
            series(|call| 10 + call.min(5), |call| 5000 + 400 * call),
            series(|call| 10 + call % 7, |_| 5000),
            series(|_| 10, |call| if call < 30 { 5000 } else { 50000 }),
            series(|call| 10 + call, |_| 5000)[..8].to_vec(),
        ] {
            assert_eq!(grows(&fine), None);
        }
    }
}
