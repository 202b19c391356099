//! Virtual time: nanoseconds since the scenario began. It is the agenda's, and nothing else's.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of a run, in nanoseconds since the scenario began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// When the scenario begins.
    pub const ZERO: Time = Time(0);
    /// Later than any run.
    pub const NEVER: Time = Time(u64::MAX);

    /// Whole milliseconds since the scenario began.
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since the scenario began.
    pub fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long after `earlier` it is; zero when it is not after it.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The first tick at or after this moment of a loop that ticks every `period`, counted from `phase`.
    ///
    /// This is how a loop that polls in Kubernetes is modelled: nothing runs until there is something to see, and then at the tick
    /// where the real loop would see it.
    pub fn tick(self, phase: Time, period: Duration) -> Time {
        let period = u64::try_from(period.as_nanos()).expect("a period is far below 584 years");
        assert!(period > 0, "a loop needs a period");
        let late = self.0.saturating_sub(phase.0);
        Time(phase.0 + late.div_ceil(period) * period)
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, later: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Time {
    /// Seconds with milliseconds, e.g. `12.345`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.as_secs(), self.as_millis() % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::Time;
    use std::time::Duration;

    #[test]
    fn a_tick_is_seen_at_its_own_moment_and_never_before() {
        let phase = Time(30);
        let period = Duration::from_nanos(100);
        assert_eq!(Time(30).tick(phase, period), Time(30));
        assert_eq!(Time(31).tick(phase, period), Time(130));
        assert_eq!(Time(0).tick(phase, period), Time(30), "no tick before the loop starts");
    }
}
