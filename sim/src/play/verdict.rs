//! What a run came to, and the exit status that says so.

use std::fmt;

use crate::oracles::{Season, Violation};
use crate::scenario::Place;

/// One thing that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where the scenario asks for it: file, line and column.
    pub place: Option<String>,
    /// What is not so.
    pub message: String,
}

/// Whether a run held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as expected.
    Held,
    /// Something is not: exit status 1.
    Failed(Vec<Failure>),
    /// A promise of safety is broken: exit status 2.
    Unsafe(Vec<Failure>),
    /// A promise of the calm is broken: exit status 3.
    Restless(Vec<Failure>),
    /// Nothing can be said: a driver or tool is missing or hangs. Exit status 5.
    NotJudged(String),
    /// The scenario does not apply to the driver, for these reasons. Exit status 0, unless nothing else was played.
    NotApplicable(Vec<String>),
    /// A bug of ours: exit status 70.
    Broken(String),
}

impl Failure {
    /// A failure of what the scenario says at `place`.
    pub fn new(place: Option<&Place>, message: impl Into<String>) -> Failure {
        Failure {
            place: place.map(|p| p.to_string()),
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Verdict {
    /// The verdict over failures of the scenario and broken promises.
    pub fn of(failures: Vec<Failure>, violations: &[Violation]) -> Verdict {
        let seasons = || violations.iter().map(|violation| violation.promise.season);
        if seasons().any(|season| season == Season::Safety) {
            Verdict::Unsafe(failures)
        } else if seasons().any(|season| season == Season::Calm) {
            Verdict::Restless(failures)
        } else if failures.is_empty() {
            Verdict::Held
        } else {
            Verdict::Failed(failures)
        }
    }

    /// What of the scenario itself is not as expected.
    pub fn failures(&self) -> &[Failure] {
        match self {
            Verdict::Failed(failures) | Verdict::Unsafe(failures) | Verdict::Restless(failures) => failures,
            Verdict::Held | Verdict::NotJudged(_) | Verdict::NotApplicable(_) | Verdict::Broken(_) => &[],
        }
    }

    /// Whether everything is as expected.
    pub fn held(&self) -> bool {
        *self == Verdict::Held
    }

    /// 0 held or not applicable, 1 an expectation failed or a pinned fault was not reached, 2 safety, 3 calm, 5 not judged, 70 a bug of ours.
    pub fn status(&self) -> u8 {
        match self {
            Verdict::Held | Verdict::NotApplicable(_) => 0,
            Verdict::Failed(_) => 1,
            Verdict::Unsafe(_) => 2,
            Verdict::Restless(_) => 3,
            Verdict::NotJudged(_) => 5,
            Verdict::Broken(_) => 70,
        }
    }
}

/// The exit status over many runs: the first present of 70, 2, 3, 4, 1, 5 wins.
pub fn worst(statuses: impl IntoIterator<Item = u8>) -> u8 {
    let seen: Vec<u8> = statuses.into_iter().collect();
    [70, 2, 3, 4, 1, 5]
        .into_iter()
        .find(|status| seen.contains(status))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::worst;

    #[test]
    fn a_bug_of_ours_is_worse_than_a_broken_promise_and_that_than_a_failed_expectation() {
        assert_eq!(worst([0, 1, 2, 70]), 70);
        assert_eq!(worst([1, 3, 5]), 3);
        assert_eq!(worst([0, 5, 1]), 1);
        assert_eq!(worst([]), 0);
    }
}
