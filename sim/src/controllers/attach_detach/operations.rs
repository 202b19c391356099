//! Which operation is under way for which volume, and how long a failed one waits: Kubernetes' nested pending operations.
//!
//! A volume that only one node may have has one operation at a time; other volumes have one per node. Back-off is kept per key and per kind of operation:
//! an operation of the other kind may start at once and starts the back-off afresh, but only if it comes **during** the back-off. One that comes later
//! inherits the name and the back-off of the one before it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{EventRecord, backoff};
use crate::runtime::Time;

use super::attach::Attach;
use super::desired::Place;
use super::detach::Detach;

/// What an operation excludes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationKey {
    /// The volume.
    pub volume: Arc<str>,
    /// The node; `None` stands for all.
    pub node: Option<Arc<str>>,
}

impl OperationKey {
    /// Of a volume on a node: of the volume alone if only one node may have it.
    pub fn of(place: &Place, multi_attach: bool) -> OperationKey {
        OperationKey {
            volume: Arc::clone(&place.volume),
            node: multi_attach.then(|| Arc::clone(&place.node)),
        }
    }

    fn meets(&self, other: &OperationKey) -> bool {
        self.volume == other.volume && (self.node.is_none() || other.node.is_none() || self.node == other.node)
    }
}

impl fmt::Display for OperationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.volume)?;
        self.node.as_ref().map_or(Ok(()), |node| write!(f, " on {node}"))
    }
}

impl fmt::Debug for OperationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Attaches.
    Attach,
    /// Detaches.
    Detach,
}

/// An operation at work.
#[derive(Clone, Debug)]
pub enum Run {
    /// Attaches.
    Attach(Attach),
    /// Detaches.
    Detach(Detach),
}

impl Run {
    fn kind(&self) -> OperationKind {
        match self {
            Run::Attach(_) => OperationKind::Attach,
            Run::Detach(_) => OperationKind::Detach,
        }
    }
}

#[derive(Clone, Debug)]
struct Failure {
    at: Time,
    wait: Duration,
}

#[derive(Clone, Debug)]
struct Operation {
    name: OperationKind,
    failure: Option<Failure>,
    run: Option<Run>,
}

impl Operation {
    fn waits_until(&self) -> Option<Time> {
        self.failure.as_ref().map(|f| f.at + f.wait)
    }

    fn waits(&self, now: Time) -> bool {
        self.waits_until().is_some_and(|until| now <= until)
    }
}

/// The operations of the controller.
#[derive(Debug, Default)]
pub struct Operations {
    operations: BTreeMap<OperationKey, Operation>,
    /// Events of operations that are over.
    tell: BTreeMap<OperationKey, VecDeque<EventRecord>>,
}

impl Operations {
    /// The operation that a key meets: one that is under way, else that of exactly this key, else the first.
    fn meeting(&self, key: &OperationKey) -> Option<(&OperationKey, &Operation)> {
        let from = OperationKey {
            volume: Arc::clone(&key.volume),
            node: None,
        };
        let mut found = None;
        let ours = self
            .operations
            .range(from..)
            .take_while(|(k, _)| k.volume == key.volume);
        for entry in ours.filter(|(k, _)| k.meets(key)) {
            if entry.1.run.is_some() {
                return Some(entry);
            }
            if found.is_none() || entry.0 == key {
                found = Some(entry);
            }
        }
        found
    }

    /// Whether an operation is under way that excludes this key.
    pub fn is_pending(&self, key: &OperationKey) -> bool {
        self.meeting(key).is_some_and(|(_, o)| o.run.is_some())
    }

    /// Whether an operation of this kind need not be tried: one is under way, or the last of the same kind failed a short while ago.
    pub fn is_safe_to_retry(&self, key: &OperationKey, kind: OperationKind, now: Time) -> bool {
        self.meeting(key)
            .is_none_or(|(_, o)| o.run.is_none() && !(o.waits(now) && o.name == kind))
    }

    /// Until when an operation of this kind is refused because the last one failed.
    pub fn waits_until(&self, key: &OperationKey, kind: OperationKind) -> Option<Time> {
        let (_, operation) = self.meeting(key)?;
        operation.waits_until().filter(|_| operation.name == kind)
    }

    /// Starts an operation unless another excludes it or it must wait. Says whether it started.
    pub fn start(&mut self, key: &OperationKey, run: Run, now: Time) -> bool {
        let kind = run.kind();
        let mut operation = Operation {
            name: kind,
            failure: None,
            run: None,
        };
        if let Some((met, previous)) = self.meeting(key) {
            if previous.run.is_some() || (previous.waits(now) && previous.name == kind) {
                return false;
            }
            // Only a wait that is still on is forgiven to the other kind; one that is over lives on, name and all.
            if !previous.waits(now) {
                operation = previous.clone();
            }
            let met = met.clone();
            self.operations.remove(&met);
        }
        operation.run = Some(run);
        self.operations.insert(key.clone(), operation);
        true
    }

    /// The operation at work under a key.
    pub fn run(&self, key: &OperationKey) -> Option<&Run> {
        self.operations.get(key)?.run.as_ref()
    }

    /// The operation at work under a key, to move it on.
    pub fn run_mut(&mut self, key: &OperationKey) -> Option<&mut Run> {
        self.operations.get_mut(key)?.run.as_mut()
    }

    /// The operation is over; if it failed, the next one waits.
    pub fn complete(&mut self, key: &OperationKey, failed: bool, now: Time) {
        if !failed {
            self.operations.remove(key);
            return;
        }
        let Some(operation) = self.operations.get_mut(key) else {
            return;
        };
        let wait = operation
            .failure
            .as_ref()
            .map_or(backoff::INITIAL, |f| (f.wait * 2).min(backoff::MAX));
        operation.failure = Some(Failure { at: now, wait });
        operation.run = None;
    }

    /// Events that the operation of a key leaves behind.
    pub fn tell(&mut self, key: &OperationKey, events: impl IntoIterator<Item = EventRecord>) {
        self.tell.entry(key.clone()).or_default().extend(events);
    }

    /// The next event of an operation that is over.
    pub fn next_event(&self, key: &OperationKey) -> Option<&EventRecord> {
        self.tell.get(key)?.front()
    }

    /// That event is out.
    pub fn event_told(&mut self, key: &OperationKey) {
        if let Some(events) = self.tell.get_mut(key) {
            events.pop_front();
            if events.is_empty() {
                self.tell.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attach, Detach, OperationKey, OperationKind, Operations, Run};
    use crate::controllers::attach_detach::desired::{Place, Spec};
    use crate::runtime::Time;
    use std::sync::Arc;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn place(node: &str) -> Place {
        Place::new("kubernetes.io/csi/d^h", node)
    }

    fn attach(node: &str) -> Run {
        let spec = Spec {
            pv: "pv".into(),
            driver: "d".into(),
            handle: "h".into(),
            multi_attach: false,
        };
        Run::Attach(Attach::new(place(node), Arc::new(spec), Vec::new()))
    }

    fn detach(node: &str) -> Run {
        Run::Detach(Detach::new(place(node), true).unwrap())
    }

    #[test]
    fn one_operation_per_volume_or_per_volume_and_node() {
        let mut operations = Operations::default();
        let (a, b) = (OperationKey::of(&place("a"), true), OperationKey::of(&place("b"), true));
        let whole = OperationKey::of(&place("a"), false);
        assert!(operations.start(&a, attach("a"), Time::ZERO));
        assert!(operations.start(&b, attach("b"), Time::ZERO));
        assert!(!operations.start(&a, attach("a"), Time::ZERO));
        assert!(
            operations.is_pending(&whole),
            "a volume of one node only meets every node"
        );
        operations.complete(&a, false, Time::ZERO);
        operations.complete(&b, false, Time::ZERO);
        assert!(operations.start(&whole, attach("a"), Time::ZERO));
        assert!(operations.is_pending(&b));
    }

    #[test]
    fn a_failed_operation_waits_half_a_second_doubling() {
        let mut operations = Operations::default();
        let key = OperationKey::of(&place("a"), false);
        let mut now = Time::ZERO;
        for wait in [500, 1000, 2000, 4000] {
            assert!(operations.start(&key, attach("a"), now));
            operations.complete(&key, true, now);
            assert!(
                !operations.start(&key, attach("a"), now + wait * MS),
                "refused at the very end, too"
            );
            now = now + (wait + 1) * MS;
        }
        assert!(operations.start(&key, attach("a"), now));
        operations.complete(&key, false, now);
        assert!(operations.start(&key, attach("a"), now), "success forgets");
    }

    #[test]
    fn the_other_kind_of_operation_need_not_wait_and_starts_afresh() {
        // 4.3: that is how a volume gets attached to a second node while its detach from the first keeps failing.
        let mut operations = Operations::default();
        let key = OperationKey::of(&place("a"), false);
        for _ in 0..5 {
            let now = Time::ZERO + 1_000_000 * MS;
            operations.start(&key, detach("a"), now);
            operations.complete(&key, true, now);
        }
        let now = Time::ZERO + 1_000_001 * MS;
        assert!(!operations.is_safe_to_retry(&key, OperationKind::Detach, now));
        assert!(operations.is_safe_to_retry(&key, OperationKind::Attach, now));
        assert!(operations.start(&key, attach("b"), now));
        operations.complete(&key, true, now);
        let until = operations.waits_until(&key, OperationKind::Attach);
        assert_eq!(until, Some(now + 500 * MS));
    }
}
