//! Which volume operations may run at the same time, and how long a failed one waits (fact sheet 6.6).
//!
//! An operation is keyed by volume and, for some, by pod; a missing pod matches every pod. What follows from that: one mount at a time per volume,
//! a mount excludes every unmount of that volume, several pods' unmounts of one volume run in parallel, and a pod whose mount fails delays the mounts
//! of other pods for the same volume. Two operations of different names that match each other **reset each other's back-off**: that is how a mount and an
//! unmount that both fail come every 200 ms (trace 18b).

use std::fmt;
use std::time::Duration;

use crate::kubelet::volume::{PodRef, VolumeName};
use crate::runtime::Time;

/// What an operation is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpKey {
    /// The volume.
    pub volume: VolumeName,
    /// The pod, for unmounts and for inline volumes.
    pub pod: Option<PodRef>,
}

impl OpKey {
    /// An operation on the whole volume.
    pub fn of_volume(volume: &VolumeName) -> OpKey {
        OpKey {
            volume: volume.clone(),
            pod: None,
        }
    }

    /// An operation on one pod's mount.
    pub fn of_pod(volume: &VolumeName, pod: &PodRef) -> OpKey {
        OpKey {
            volume: volume.clone(),
            pod: Some(pod.clone()),
        }
    }

    fn matches(&self, other: &OpKey) -> bool {
        self.volume == other.volume
            && match (&self.pod, &other.pod) {
                (Some(mine), Some(theirs)) => mine == theirs,
                (None, _) | (_, None) => true,
            }
    }
}

impl fmt::Display for OpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}", self.volume)?;
        self.pod.as_ref().map_or(Ok(()), |pod| write!(f, " of pod {pod}"))
    }
}

/// The names of operations: an operation resets the back-off that another one of another name left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the operation that kubelet calls so in snake case")]
pub enum OpName {
    VolumeMount,
    MapVolume,
    VolumeUnmount,
    UnmapVolume,
    UnmountDevice,
    UnmapDevice,
    VolumeFsResize,
    VerifyControllerAttachedVolume,
}

/// Why an operation is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// One that matches is under way: its end wakes the reconciler.
    Pending,
    /// The last one failed; it may start after this moment.
    BackOff(Time),
}

/// How operations end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It succeeded: its back-off is forgotten.
    Ok,
    /// It failed: it waits twice as long as last time.
    Failed,
    /// It could not even be put together: as if it had never been started.
    NotGenerated,
}

#[derive(Clone, Debug)]
struct Entry {
    key: OpKey,
    name: OpName,
    pending: bool,
    backoff: BackOff,
    /// What the entry was before the operation under way, for one that turns out impossible to put together.
    before: Option<Box<Entry>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct BackOff {
    last_error: Option<Time>,
    delay: Duration,
}

impl BackOff {
    fn until(&self) -> Option<Time> {
        self.last_error.map(|at| at + self.delay)
    }
}

/// The operations under way, and the back-offs that failed ones left behind.
#[derive(Clone, Debug, Default)]
pub struct Executor {
    entries: Vec<Entry>,
}

impl Executor {
    /// Whether an operation that matches is under way.
    pub fn is_pending(&self, key: &OpKey) -> bool {
        self.entries.iter().any(|e| e.pending && e.key.matches(key))
    }

    /// Starts an operation.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(&mut self, key: &OpKey, name: OpName, now: Time) -> Result<(), Refusal> {
        if self.is_pending(key) {
            return Err(Refusal::Pending);
        }
        let exact = self.entries.iter().position(|e| e.key == *key);
        let known = exact.or_else(|| self.entries.iter().position(|e| e.key.matches(key)));
        let Some(at) = known else {
            let backoff = BackOff::default();
            let entry = Entry {
                key: key.clone(),
                name,
                pending: true,
                backoff,
                before: None,
            };
            self.entries.push(entry);
            return Ok(());
        };
        let entry = &mut self.entries[at];
        let before = Box::new(entry.clone());
        if let Some(until) = entry.backoff.until().filter(|until| now <= *until) {
            if entry.name == name {
                return Err(Refusal::BackOff(until));
            }
            (entry.name, entry.backoff) = (name, BackOff::default());
        }
        entry.key = key.clone();
        entry.pending = true;
        entry.before = Some(before);
        Ok(())
    }

    /// An operation has ended. `first` and `cap` are the shortest and longest back-off.
    pub fn end(&mut self, key: &OpKey, ended: Ended, now: Time, first: Duration, cap: Duration) {
        let Some(at) = self.entries.iter().position(|e| e.pending && e.key == *key) else {
            return;
        };
        match ended {
            Ended::Ok => {
                self.entries.remove(at);
            }
            Ended::NotGenerated => match self.entries[at].before.take() {
                Some(before) => self.entries[at] = *before,
                None => {
                    self.entries.remove(at);
                }
            },
            Ended::Failed => {
                let entry = &mut self.entries[at];
                (entry.pending, entry.before) = (false, None);
                let delay = entry.backoff.delay;
                entry.backoff.delay = if delay.is_zero() { first } else { (delay * 2).min(cap) };
                entry.backoff.last_error = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Executor, OpKey, OpName, Refusal};
    use crate::kubelet::volume::{PodRef, VolumeName};
    use crate::runtime::Time;
    use std::time::Duration;

    const FIRST: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(122);

    fn at(millis: u64) -> Time {
        Time(millis * 1_000_000)
    }

    fn keys() -> (OpKey, OpKey, OpKey) {
        let volume = VolumeName::persistent("d", "h");
        let pod = |uid: &str| OpKey::of_pod(&volume, &PodRef::unnamed(uid));
        (OpKey::of_volume(&volume), pod("u-1"), pod("u-2"))
    }

    #[test]
    fn a_mount_excludes_every_unmount_and_unmounts_run_in_parallel() {
        let (volume, one, two) = keys();
        let mut executor = Executor::default();
        executor.start(&one, OpName::VolumeUnmount, at(0)).unwrap();
        executor.start(&two, OpName::VolumeUnmount, at(0)).unwrap();
        assert_eq!(
            executor.start(&volume, OpName::VolumeMount, at(0)),
            Err(Refusal::Pending)
        );
        executor.end(&one, Ended::Ok, at(1), FIRST, CAP);
        executor.end(&two, Ended::Ok, at(1), FIRST, CAP);
        executor.start(&volume, OpName::VolumeMount, at(1)).unwrap();
        assert_eq!(
            executor.start(&one, OpName::VolumeUnmount, at(1)),
            Err(Refusal::Pending)
        );
        let other = OpKey::of_volume(&VolumeName::persistent("d", "other"));
        executor.start(&other, OpName::VolumeMount, at(1)).unwrap();
    }

    #[test]
    fn a_failing_operation_waits_twice_as_long_each_time() {
        let (volume, ..) = keys();
        let mut executor = Executor::default();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..10 {
            executor.start(&volume, OpName::VolumeMount, now).unwrap();
            executor.end(&volume, Ended::Failed, now, FIRST, CAP);
            let Err(Refusal::BackOff(until)) = executor.start(&volume, OpName::VolumeMount, now) else {
                panic!("it must wait")
            };
            waits.push(until.since(now).as_millis());
            now = Time(until.0 + 1);
        }
        assert_eq!(
            waits,
            [500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 122_000, 122_000]
        );
    }

    #[test]
    fn an_operation_of_another_name_resets_the_back_off_of_one_that_it_matches() {
        // Trace 18b: the mount of one pod and the unmount of another, both failing, come at every other pass instead of backing off.
        let (volume, one, _) = keys();
        let mut executor = Executor::default();
        executor.start(&volume, OpName::VolumeMount, at(0)).unwrap();
        executor.end(&volume, Ended::Failed, at(0), FIRST, CAP);
        executor.start(&one, OpName::VolumeUnmount, at(100)).unwrap();
        executor.end(&one, Ended::Failed, at(100), FIRST, CAP);
        executor.start(&volume, OpName::VolumeMount, at(200)).unwrap();
        executor.end(&volume, Ended::Failed, at(200), FIRST, CAP);
        let again = executor.start(&volume, OpName::VolumeMount, at(300));
        assert_eq!(again, Err(Refusal::BackOff(at(700))), "the counter began anew");
    }

    #[test]
    fn an_operation_after_the_window_keeps_counter_and_name() {
        let (volume, one, _) = keys();
        let mut executor = Executor::default();
        executor.start(&volume, OpName::VolumeMount, at(0)).unwrap();
        executor.end(&volume, Ended::Failed, at(0), FIRST, CAP);
        executor.start(&one, OpName::VolumeUnmount, at(600)).unwrap();
        executor.end(&one, Ended::Failed, at(600), FIRST, CAP);
        assert_eq!(
            executor.start(&one, OpName::VolumeMount, at(700)),
            Err(Refusal::BackOff(at(1600))),
            "it is still called a mount, and has failed twice"
        );
    }

    #[test]
    fn what_cannot_be_put_together_leaves_no_trace() {
        let (volume, ..) = keys();
        let mut executor = Executor::default();
        executor.start(&volume, OpName::UnmountDevice, at(0)).unwrap();
        executor.end(&volume, Ended::NotGenerated, at(0), FIRST, CAP);
        executor.start(&volume, OpName::UnmountDevice, at(0)).unwrap();
    }
}
