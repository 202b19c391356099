//! Back-off per operation, as kubelet and the volume controllers have it: 500 ms after the first failure, doubled by each further one, at most 2 min 2 s,
//! without jitter; a success forgets it. Source: `util/goroutinemap/exponentialbackoff`.
//!
//! An operation that is asked for too early is refused, not queued: the caller's loop comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::release::RELEASE;
use crate::runtime::Time;

/// After the first failure.
pub const INITIAL: Duration = RELEASE.operations.backoff;
/// After many.
pub const MAX: Duration = RELEASE.operations.backoff_cap;

/// The failures of operations by their key.
#[derive(Clone, Debug)]
pub struct Backoff<K> {
    failed: BTreeMap<K, Failed>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    at: Time,
    wait: Duration,
}

impl<K> Default for Backoff<K> {
    fn default() -> Backoff<K> {
        Backoff {
            failed: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Backoff<K> {
    /// No operation has failed.
    pub fn new() -> Backoff<K> {
        Backoff::default()
    }

    /// The last moment at which the operation is still refused; `None` when it may start now.
    ///
    /// The real check refuses at exactly the end of the wait, too.
    pub fn refused_until(&self, key: &K, now: Time) -> Option<Time> {
        let failed = self.failed.get(key)?;
        let end = failed.at + failed.wait;
        (now <= end).then_some(end)
    }

    /// Whether the operation may start now.
    pub fn permits(&self, key: &K, now: Time) -> bool {
        self.refused_until(key, now).is_none()
    }

    /// The operation ended with an error. Returns how long it is refused from now on.
    pub fn failed(&mut self, key: &K, now: Time) -> Duration {
        let wait = self.failed.get(key).map_or(INITIAL, |f| (f.wait * 2).min(MAX));
        self.failed.insert(key.clone(), Failed { at: now, wait });
        wait
    }

    /// The operation ended well: its failures are forgotten.
    pub fn succeeded(&mut self, key: &K) {
        self.failed.remove(key);
    }

    /// How long the operation is refused after its last failure; zero when it has not failed.
    pub fn wait(&self, key: &K) -> Duration {
        self.failed.get(key).map_or(Duration::ZERO, |f| f.wait)
    }

    /// The process died, or gives the operations up: nothing has failed.
    pub fn clear(&mut self) {
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::runtime::Time;

    #[test]
    fn waits_double_up_to_two_minutes_and_two_seconds() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..10)
            .map(|_| backoff.failed(&"mount", Time::ZERO).as_millis())
            .collect();
        assert_eq!(
            waits,
            [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 122_000, 122_000]
        );
        backoff.succeeded(&"mount");
        assert_eq!(backoff.failed(&"mount", Time::ZERO).as_millis(), 500);
    }

    #[test]
    fn an_operation_is_refused_until_just_after_the_wait() {
        let mut backoff = Backoff::new();
        assert!(backoff.permits(&"mount", Time::ZERO));
        backoff.failed(&"mount", Time(1));
        assert_eq!(
            backoff.refused_until(&"mount", Time(500_000_001)),
            Some(Time(500_000_001))
        );
        assert!(backoff.permits(&"mount", Time(500_000_002)));
        assert!(backoff.permits(&"unmount", Time(2)), "keys do not know each other");
    }
}
