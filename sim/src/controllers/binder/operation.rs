//! What the volume controller does in the background, by name: never twice at once, and after a failure not before its back-off is over.
//!
//! An attempt that comes too early is dropped, not delayed: the next event or resync of the claim tries again. Source: fact sheet 1.1.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::ObjKey;
use crate::api::backoff::Backoff;
use crate::runtime::Time;

/// The provisioning of one claim, this UID and no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// The claim.
    pub claim: ObjKey,
    /// Its UID.
    pub uid: String,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "provision-{}[{}]", self.claim, self.uid)
    }
}

/// The operations that run or failed.
#[derive(Debug, Default)]
pub(super) struct Operations {
    running: BTreeSet<Operation>,
    backoff: Backoff<Operation>,
}

impl Operations {
    /// Starts one, unless it runs already or failed a moment ago.
    pub(super) fn start(&mut self, operation: &Operation, now: Time) -> bool {
        self.backoff.permits(operation, now) && self.running.insert(operation.clone())
    }

    /// It failed: it is left alone for twice as long as last time.
    pub(super) fn fail(&mut self, operation: &Operation, now: Time) {
        self.running.remove(operation);
        self.backoff.failed(operation, now);
    }

    /// It ended; if it did not fail, its earlier failures are forgotten.
    pub(super) fn end(&mut self, operation: &Operation) {
        if self.running.remove(operation) {
            self.backoff.succeeded(operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation, Operations};
    use crate::api::ObjKey;
    use crate::runtime::Time;

    #[test]
    fn an_operation_runs_once_and_is_left_alone_after_a_failure() {
        let mut operations = Operations::default();
        let operation = Operation {
            claim: ObjKey::new("default", "data"),
            uid: "u1".into(),
        };
        let ms = |ms: u64| Time(ms * 1_000_000);
        assert!(operations.start(&operation, ms(0)));
        assert!(!operations.start(&operation, ms(1)), "it runs");
        operations.fail(&operation, ms(10));
        operations.end(&operation);
        assert!(
            !operations.start(&operation, ms(510)),
            "the end of a failed one forgets nothing"
        );
        assert!(operations.start(&operation, ms(511)));
        operations.end(&operation);
        assert!(operations.start(&operation, ms(512)), "success forgets the failure");
    }
}
