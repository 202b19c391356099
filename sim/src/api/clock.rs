//! Virtual time as the wall clock that objects carry.
//!
//! `metav1.Time` has a resolution of one second, `MicroTime` of one microsecond; both are cut, never rounded, so that an object never
//! says that something happened before it did.

use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use k8s_openapi::jiff::Timestamp;

use crate::runtime::Time;

/// What wall clock the scenario's beginning shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970 at `Time::ZERO`.
    epoch: i64,
}

impl Clock {
    /// Scenarios begin at 2026-01-01T00:00:00Z.
    pub const EPOCH: Clock = Clock { epoch: 1_767_225_600 };

    /// A clock whose scenario begins at this many seconds since 1970.
    pub fn starting_at(seconds: i64) -> Clock {
        Clock { epoch: seconds }
    }

    /// The moment in the resolution of `metav1.Time`.
    pub fn time(self, now: Time) -> v1::Time {
        v1::Time(stamp(self.seconds(now), 0))
    }

    /// The moment in the resolution of `metav1.MicroTime`.
    pub fn micro_time(self, now: Time) -> v1::MicroTime {
        let micros = now.0 / 1_000 % 1_000_000;
        let nanos = i32::try_from(micros * 1_000).expect("fewer than 10^9 nanoseconds in a second");
        v1::MicroTime(stamp(self.seconds(now), nanos))
    }

    /// Nanoseconds since 1970.
    pub fn unix_nanos(self, now: Time) -> i128 {
        i128::from(self.epoch) * 1_000_000_000 + i128::from(now.0)
    }

    /// The virtual moment that a timestamp names; `Time::ZERO` for anything before the scenario.
    pub fn moment(self, time: &v1::Time) -> Time {
        let nanos = time.0.as_nanosecond() - i128::from(self.epoch) * 1_000_000_000;
        Time(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }

    fn seconds(self, now: Time) -> i64 {
        self.epoch + i64::try_from(now.as_secs()).expect("a run is far shorter than 292 years")
    }
}

fn stamp(seconds: i64, nanos: i32) -> Timestamp {
    Timestamp::new(seconds, nanos).expect("a run stays within the years that a timestamp can name")
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use crate::runtime::Time;

    #[test]
    fn timestamps_are_cut_to_the_resolution_of_their_type() {
        let now = Time(61_999_999_999);
        assert_eq!(Clock::EPOCH.time(now).0.to_string(), "2026-01-01T00:01:01Z");
        assert_eq!(
            Clock::EPOCH.micro_time(now).0.to_string(),
            "2026-01-01T00:01:01.999999Z"
        );
        assert_eq!(Clock::EPOCH.moment(&Clock::EPOCH.time(now)), Time(61_000_000_000));
    }
}
