//! Who may work on what just now: the reason why in-flight duplicates get `ABORTED` and why opposite operations on one
//! volume never overlap, while operations on distinct volumes do.
//!
//! Nobody waits here. Whoever cannot enter is told so at once, and comes back.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use tonic::Status;
use tracing::{Instrument, Span};

use crate::runtime::Runtime;
use crate::units::{GroupId, NodeId, SnapshotId, VolumeId};

/// The pause before a leftover is tried again; it doubles up to the second value.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Something that one operation at a time works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Volume(VolumeId),
    /// A volume on one node: two nodes may be served at once.
    Publication(VolumeId, NodeId),
    Snapshot(SnapshotId),
    Group(GroupId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(id) | Self::Publication(id, _) => write!(f, "volume {id}"),
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
            Self::Group(id) => write!(f, "group {id}"),
        }
    }
}

/// How an operation works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Alone,
    /// Beside others that hold it so.
    Together,
}

/// Subjects in work, each with how many hold it together; 0: one, alone.
#[derive(Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<BTreeMap<Subject, usize>>>);

/// The right to work on some subjects, given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Mutex<BTreeMap<Subject, usize>>>,
    held: Vec<Subject>,
}

impl Gate {
    /// Enters for all subjects or for none.
    ///
    /// # Errors
    /// `ABORTED` if another operation is at work on one of them.
    pub(crate) fn enter(&self, subjects: &[(Subject, Hold)]) -> Result<Pass, Status> {
        let mut at_work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |(subject, hold): &(Subject, Hold)| match at_work.get(subject) {
            None => true,
            Some(together) => *together > 0 && *hold == Hold::Together,
        };
        if let Some((subject, _)) = subjects.iter().find(|entry| !is_free(entry)) {
            return Err(Status::aborted(format!("another operation on {subject} is pending")));
        }
        for (subject, hold) in subjects {
            let together = at_work.entry(subject.clone()).or_default();
            if *hold == Hold::Together {
                *together += 1;
            }
        }
        let held = subjects.iter().map(|(subject, _)| subject.clone()).collect();
        Ok(Pass {
            gate: Arc::clone(&self.0),
            held,
        })
    }

    /// Enters for one volume, alone.
    ///
    /// # Errors
    /// As [`Gate::enter`].
    pub(crate) fn alone(&self, volume: &VolumeId) -> Result<Pass, Status> {
        self.enter(&[(Subject::Volume(volume.clone()), Hold::Alone)])
    }

    /// Settles a leftover that nobody may ask about again: tries after a while, and again, until it rests.
    pub(crate) async fn settle<F>(&self, subjects: &[(Subject, Hold)], runtime: &dyn Runtime, settle: impl Fn() -> F)
    where
        F: Future<Output = Result<(), Status>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            runtime.sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
            let Ok(_pass) = self.enter(subjects) else { continue };
            if settle().await.is_ok() {
                return;
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut at_work = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        for subject in &self.held {
            match at_work.get_mut(subject) {
                Some(together) if *together > 1 => *together -= 1,
                _ => {
                    at_work.remove(subject);
                }
            }
        }
    }
}

/// Runs an operation on a task of its own and waits for its answer. If the caller goes away, the operation goes on;
/// its pass is given back before anyone hears the answer, so that whoever hears it may enter.
///
/// # Errors
/// The operation's own, or `UNAVAILABLE` if its task was killed.
pub(crate) async fn operate<T: Send + 'static>(
    runtime: &Arc<dyn Runtime>,
    pass: Pass,
    span: Span,
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let (answer, waiting) = oneshot::channel();
    let task = async move {
        let result = work.await;
        if let Err(status) = &result {
            tracing::warn!(code = ?status.code(), "{}", status.message());
        }
        drop(pass);
        let _ = answer.send(result);
    };
    runtime.spawn(Box::pin(task.instrument(span)));
    waiting
        .await
        .unwrap_or_else(|_| Err(Status::unavailable("the driver stopped while it worked on this")))
}

#[cfg(test)]
mod tests {
    use super::{Gate, Hold, Subject};

    #[test]
    fn one_alone_or_many_together() {
        let gate = Gate::default();
        let volume = |hold| [(Subject::Volume("v".into()), hold)];
        let alone = gate.enter(&volume(Hold::Alone)).unwrap();
        assert_eq!(
            gate.enter(&volume(Hold::Alone)).unwrap_err().code(),
            tonic::Code::Aborted
        );
        assert!(gate.enter(&volume(Hold::Together)).is_err());
        assert!(
            gate.enter(&[(Subject::Volume("w".into()), Hold::Alone)]).is_ok(),
            "distinct volumes never meet"
        );
        drop(alone);
        let first = gate.enter(&volume(Hold::Together)).unwrap();
        let second = gate.enter(&volume(Hold::Together)).unwrap();
        drop(first);
        assert!(gate.enter(&volume(Hold::Alone)).is_err(), "one is still inside");
        drop(second);
        assert!(gate.enter(&volume(Hold::Alone)).is_ok());
    }

    #[test]
    fn all_or_none() {
        let gate = Gate::default();
        let _held = gate.alone(&"b".into()).unwrap();
        let both = [
            (Subject::Volume("a".into()), Hold::Alone),
            (Subject::Volume("b".into()), Hold::Alone),
        ];
        assert!(gate.enter(&both).is_err());
        assert!(gate.alone(&"a".into()).is_ok(), "a refused entry holds nothing");
    }
}
