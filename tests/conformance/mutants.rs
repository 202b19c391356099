//! Which of the documented bugs of CSI drivers the checks find alone, without a cluster and without faults: the reference driver with one of them
//! switched on at a time. The others need what only the tank's faults, clocks and clusters bring.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use wavetank_conform::all;
use wavetank_driver::Quirk;
use wavetank_sim::conform::Tank;
use wavetank_sim::play::reference_with;

use crate::suite::settings;

/// Bugs by name, each with the first check that finds it.
const FOUND: &[(&str, &str)] = &[];

fn first_broken(quirk: Quirk) -> Option<&'static str> {
    let tank = Tank {
        factory: reference_with(Some(quirk)),
        ..Tank::reference()
    };
    let report = tank
        .check(settings(), all(), |driver| driver)
        .expect("the driver says what it is");
    report.broken().next().map(|one| one.check.name)
}

#[test]
fn documented_bugs_are_found() {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(quirk) = Quirk::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(check) = first_broken(*quirk) {
                        found
                            .lock()
                            .expect("no other thread panicked")
                            .insert(quirk.name(), check);
                    }
                }
            });
        }
    });
    let found = found.into_inner().expect("no thread panicked");
    assert_eq!(found, FOUND.iter().copied().collect(), "of {} bugs", Quirk::ALL.len());
}
