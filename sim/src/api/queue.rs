//! The work queue of client-go as a pure structure, and its limiters.
//!
//! A key is in the queue at most once. While it is processed, adding it again marks it dirty, and it is queued again when it is done; one key is never
//! processed twice at once. Delayed adds wait in a heap; a plain add in the meantime runs the key at once, and the delayed add then causes another run:
//! **an event bypasses back-off**. `forget` resets only the counter. Source: client-go `util/workqueue` (fact sheet 10.3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::release::RELEASE;
use crate::runtime::Time;

/// How long a failing key waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Limiter {
    /// `base × 2^failures`, capped: the sidecars.
    Exponential {
        /// The first delay.
        base: Duration,
        /// No delay is longer.
        cap: Duration,
    },
    /// client-go's default for controllers: the longer of 5 ms × 2^failures (cap 1000 s) and a bucket of 10/s, burst 100, shared by the queue.
    Controller,
}

impl Limiter {
    fn delay(&self, failures: u32, bucket: &mut Bucket, now: Time) -> Duration {
        match self {
            Limiter::Exponential { base, cap } => exponential(*base, *cap, failures),
            Limiter::Controller => {
                let queue = &RELEASE.work_queue;
                let item = exponential(queue.backoff, queue.backoff_cap, failures);
                item.max(bucket.reserve(now))
            }
        }
    }
}

/// `base × 2^failures`, at most `cap`.
pub fn exponential(base: Duration, cap: Duration, failures: u32) -> Duration {
    2u32.checked_pow(failures)
        .and_then(|factor| base.checked_mul(factor))
        .unwrap_or(cap)
        .min(cap)
}

/// A token bucket: `rate` tokens a second, at most `burst` saved up. A reservation may go below zero and then tells the wait.
#[derive(Clone, Debug)]
pub struct Bucket {
    interval: Duration,
    burst: u32,
    /// The moment at which the bucket is (or was) full, were nothing more taken.
    full_at: Time,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: f64, burst: u32) -> Bucket {
        Bucket::every(Duration::from_secs_f64(1.0 / rate), burst)
    }

    /// A full bucket that gets one token every `interval`.
    pub fn every(interval: Duration, burst: u32) -> Bucket {
        Bucket {
            interval,
            burst,
            full_at: Time::ZERO,
        }
    }

    /// Takes one token if there is one.
    pub fn try_take(&mut self, now: Time) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        let taken = full_at.since(now) <= self.interval * self.burst;
        if taken {
            self.full_at = full_at;
        }
        taken
    }

    /// Takes one token and says how long to wait for it.
    pub fn reserve(&mut self, now: Time) -> Duration {
        let full_at = self.full_at.max(now) + self.interval;
        self.full_at = full_at;
        let saved = self.interval * self.burst;
        full_at.since(now).saturating_sub(saved)
    }
}

/// The queue of one controller.
#[derive(Debug)]
pub struct Queue<K> {
    limiter: Limiter,
    bucket: Bucket,
    ready: VecDeque<K>,
    dirty: BTreeSet<K>,
    processing: BTreeSet<K>,
    /// Delayed adds: one per key, at its earliest moment; ties in order of asking.
    waiting: BTreeMap<(Time, u64), K>,
    waiting_since: BTreeMap<K, (Time, u64)>,
    failures: BTreeMap<K, u32>,
    asked: u64,
}

impl<K: Ord + Clone> Queue<K> {
    /// An empty queue.
    pub fn new(limiter: Limiter) -> Queue<K> {
        Queue {
            limiter,
            bucket: Bucket::new(RELEASE.work_queue.rate, RELEASE.work_queue.burst),
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            processing: BTreeSet::new(),
            waiting: BTreeMap::new(),
            waiting_since: BTreeMap::new(),
            failures: BTreeMap::new(),
            asked: 0,
        }
    }

    /// Queues a key unless it is queued already; one that is being processed is queued again when done.
    pub fn add(&mut self, key: K) {
        if self.dirty.contains(&key) {
            return;
        }
        if !self.processing.contains(&key) {
            self.ready.push_back(key.clone());
        }
        self.dirty.insert(key);
    }

    /// Queues a key at `at`. Of two delayed adds of one key the earlier wins.
    pub fn add_at(&mut self, key: K, at: Time) {
        if let Some(old) = self.waiting_since.get(&key) {
            if old.0 <= at {
                return;
            }
            self.waiting.remove(old);
        }
        self.asked += 1;
        let place = (at, self.asked);
        self.waiting_since.insert(key.clone(), place);
        self.waiting.insert(place, key);
    }

    /// Queues a key that failed, after its back-off, which it returns.
    pub fn add_rate_limited(&mut self, key: K, now: Time) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = self.limiter.delay(*failures, &mut self.bucket, now);
        *failures += 1;
        self.add_at(key, now + delay);
        delay
    }

    /// Resets the counter of a key. A delayed add that waits already stays.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// How often a key has failed since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// Takes the next key to process, first in first out.
    pub fn next(&mut self, now: Time) -> Option<K> {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.waiting_since.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    /// Ends the processing of a key.
    pub fn done(&mut self, key: &K) {
        self.processing.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// Whether a key could be taken at once.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the first delayed add is due.
    pub fn next_due(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether nothing is queued, delayed or processed.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty() && self.processing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, Limiter, Queue};
    use crate::runtime::Time;
    use std::time::Duration;

    const SIDECAR: Limiter = Limiter::Exponential {
        base: Duration::from_secs(1),
        cap: Duration::from_secs(300),
    };

    #[test]
    fn a_key_added_while_processed_runs_again_and_never_twice_at_once() {
        let mut queue = Queue::new(SIDECAR);
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next(Time::ZERO), Some("a"));
        queue.add("a");
        assert_eq!(queue.next(Time::ZERO), None, "it is being processed");
        queue.done(&"a");
        assert_eq!(queue.next(Time::ZERO), Some("a"));
        queue.done(&"a");
        assert!(queue.is_idle());
    }

    #[test]
    fn sidecars_double_from_one_second_to_five_minutes() {
        let mut queue = Queue::new(SIDECAR);
        let delays: Vec<u64> = (0..11)
            .map(|_| queue.add_rate_limited("a", Time::ZERO).as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        queue.forget(&"a");
        assert_eq!(queue.add_rate_limited("a", Time::ZERO).as_secs(), 1);
    }

    #[test]
    fn an_event_bypasses_the_back_off_and_the_delayed_add_still_comes() {
        let mut queue = Queue::new(SIDECAR);
        queue.add_rate_limited("a", Time::ZERO);
        queue.add("a");
        assert_eq!(queue.next(Time::ZERO), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.next_due(), Some(Time(1_000_000_000)));
        assert_eq!(queue.next(Time(1_000_000_000)), Some("a"));
    }

    #[test]
    fn the_earlier_of_two_delayed_adds_wins() {
        // Seen in attaches: two failures are counted, the earlier re-add is kept, so the 2 s step is missing (trace 21b).
        let mut queue = Queue::new(SIDECAR);
        queue.add_rate_limited("a", Time::ZERO);
        queue.add_rate_limited("a", Time::ZERO);
        assert_eq!(queue.next_due(), Some(Time(1_000_000_000)));
        assert_eq!(queue.failures(&"a"), 2);
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = Bucket::new(5.0, 10);
        let waits: Vec<u128> = (0..13).map(|_| bucket.reserve(Time::ZERO).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 400, 600]);
        assert_eq!(bucket.reserve(Time(60_000_000_000)).as_millis(), 0, "it fills up again");
    }

    #[test]
    fn controllers_double_from_five_milliseconds_within_a_budget_of_the_queue() {
        let mut queue = Queue::new(Limiter::Controller);
        let delays: Vec<u128> = (0..6)
            .map(|_| queue.add_rate_limited(0, Time::ZERO).as_millis())
            .collect();
        assert_eq!(delays, [5, 10, 20, 40, 80, 160]);
        for _ in 0..20 {
            queue.add_rate_limited(0, Time::ZERO);
        }
        assert_eq!(queue.add_rate_limited(0, Time::ZERO).as_secs(), 1000, "the cap");
        for key in 1..74 {
            queue.add_rate_limited(key, Time::ZERO);
        }
        let waits: Vec<u128> = (74..77)
            .map(|key| queue.add_rate_limited(key, Time::ZERO).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 300], "the 101st within a moment waits for the bucket");
    }

    #[test]
    fn delayed_keys_come_in_order_of_time_and_then_of_asking() {
        let mut queue = Queue::new(SIDECAR);
        for (key, at) in [("late", 30), ("b", 20), ("a", 20), ("early", 10)] {
            queue.add_at(key, Time(at));
        }
        queue.add_at("late", Time(5));
        queue.add_at("early", Time(40));
        assert_eq!(queue.next_due(), Some(Time(5)));
        assert_eq!(queue.next(Time(4)), None);
        let order: Vec<_> = std::iter::from_fn(|| queue.next(Time(20))).collect();
        assert_eq!(order, ["late", "early", "b", "a"]);
        assert_eq!(queue.next_due(), None, "an earlier add replaces a later one");
    }

    #[test]
    fn a_bucket_that_is_empty_gives_nothing_and_owes_nothing() {
        let mut bucket = Bucket::every(Duration::from_secs(300), 2);
        let now = Time(7);
        assert!(bucket.try_take(now) && bucket.try_take(now));
        assert!(!bucket.try_take(now) && !bucket.try_take(now + Duration::from_secs(299)));
        assert!(bucket.try_take(now + Duration::from_secs(300)));
    }
}
