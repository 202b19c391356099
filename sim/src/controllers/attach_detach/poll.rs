//! Waiting for a VolumeAttachment: the controller writes it and looks at its informer until the external-attacher has done its part.
//!
//! The first look comes after the first wait, however fast the attacher was: half a second in every attach (fact sheet 4.1, 4.4; all attach traces).
//!
//! *Blind spots.* Each wait is stretched by up to a tenth at random; here by the mean of that.

use std::time::Duration;

use crate::runtime::Time;

pub use crate::release::Polling;

impl Polling {
    /// The wait after `done` waits, before the stretching.
    fn wait(&self, done: u32) -> Duration {
        let mut wait = self.first;
        for _ in 0..done {
            wait = wait.mul_f64(self.factor);
            if wait >= self.cap {
                return self.cap;
            }
        }
        wait
    }
}

/// One operation's polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    since: Time,
    waits: u32,
}

/// What an operation finds when it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It failed.
    Failed(String),
    /// Not yet.
    Pending,
}

/// What to do about a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Wait this long, then look.
    Wait(Duration),
    /// Look now: this is what is there.
    See(Verdict),
    /// Give up.
    TimedOut,
}

impl Poll {
    /// Begins.
    pub fn begin(now: Time) -> Poll {
        Poll { since: now, waits: 0 }
    }

    /// A wait is over.
    pub fn waited(&mut self) {
        self.waits += 1;
    }

    /// What next, if the informer says `verdict`?
    pub fn look(&self, polling: &Polling, verdict: Verdict, now: Time) -> Look {
        let deadline = self.since + polling.limit;
        if now >= deadline {
            return Look::TimedOut;
        }
        if self.waits > 0 && verdict != Verdict::Pending {
            return Look::See(verdict);
        }
        let wait = polling.wait(self.waits).mul_f64(1.0 + polling.jitter / 2.0);
        Look::Wait(wait.min(deadline.since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Look, Poll, Polling, Verdict};
    use crate::runtime::Time;

    #[test]
    fn the_first_look_is_half_a_second_after_the_attachment_was_written() {
        // Fact sheet 4.4: all attach traces have it, however fast the attacher was.
        let mut poll = Poll::begin(Time::ZERO);
        let polling = Polling::default();
        let Look::Wait(first) = poll.look(&polling, Verdict::Done, Time::ZERO) else {
            panic!("it looks at once")
        };
        assert_eq!(first.as_millis(), 525);
        poll.waited();
        let now = Time::ZERO + first;
        assert_eq!(poll.look(&polling, Verdict::Done, now), Look::See(Verdict::Done));
        let Look::Wait(second) = poll.look(&polling, Verdict::Pending, now) else {
            panic!("it does not wait")
        };
        assert_eq!(second.as_micros(), 551_250);
    }

    #[test]
    fn it_gives_up_after_two_minutes_and_waits_seven_seconds_at_most() {
        let mut poll = Poll::begin(Time::ZERO);
        let polling = Polling::default();
        let mut now = Time::ZERO;
        let mut longest = std::time::Duration::ZERO;
        while let Look::Wait(wait) = poll.look(&polling, Verdict::Pending, now) {
            longest = longest.max(wait);
            now = now + wait;
            poll.waited();
        }
        assert_eq!(poll.look(&polling, Verdict::Done, now), Look::TimedOut, "too late");
        assert_eq!(now, Time::ZERO + polling.limit);
        assert!(longest <= polling.cap.mul_f64(1.05), "{longest:?}");
    }
}
