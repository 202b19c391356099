//! What the server still remembers of its changes: from here a cut watch resumes, or learns that it must list again.
//!
//! Each kind has a ring of its own, as each has a watch cache in the real server. It grows from 100 to 102,400 events as long as the oldest is younger
//! than 75 s, and shrinks when they are old. A watch from a version older than the ring gets 410. Source: `storage/cacher/watch_cache.go`.
//!
//! The rings hold versions, not objects: keeping minutes of objects alive costs more than all writes do. Objects are kept of the last 100 changes of
//! a kind, and of all changes from a `pin` on. Whoever cuts a watch pins what it has seen, and unpins it after resuming.
//!
//! Delaying and ordering deliveries is the event loop's work. Blind spots: bookmarks, and servers that lag behind each other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::fields;
use super::object::{Kind, ObjKey, Object};
use super::write::{ApiError, Change, ChangeType};
use crate::release::RELEASE;
use crate::runtime::Time;

const MIN_CAPACITY: usize = RELEASE.api_server.watch_cache_least;
const MAX_CAPACITY: usize = RELEASE.api_server.watch_cache_most;
/// Events younger than this are kept while the ring can grow.
const FRESH: Duration = RELEASE.api_server.watch_cache_fresh;

/// The watch caches of all kinds.
#[derive(Clone, Debug)]
pub struct History {
    /// By `Kind as usize`.
    rings: Vec<Ring>,
}

#[derive(Clone, Debug)]
struct Ring {
    /// When which version came: the ring of the real server.
    marks: VecDeque<(Time, u64)>,
    capacity: usize,
    /// The newest version that was dropped: a watch must start here or later.
    dropped: u64,
    /// The newest of them, as objects.
    kept: VecDeque<Change>,
    /// From which versions on somebody may ask, and how many do.
    pins: BTreeMap<u64, u32>,
}

impl Default for History {
    fn default() -> History {
        History::new()
    }
}

impl History {
    /// Nothing happened yet.
    pub fn new() -> History {
        let ring = || Ring {
            marks: VecDeque::new(),
            capacity: MIN_CAPACITY,
            dropped: 0,
            kept: VecDeque::new(),
            pins: BTreeMap::new(),
        };
        History {
            rings: Kind::ALL.iter().map(|_| ring()).collect(),
        }
    }

    /// Remembers a change.
    pub fn push(&mut self, change: &Change, now: Time) {
        let ring = self.ring(change.object.kind());
        debug_assert!(ring.last() < change.version, "versions only grow");
        ring.make_room(now);
        ring.marks.push_back((now, change.version));
        ring.kept.push_back(change.clone());
        ring.release();
    }

    /// A watch that has seen everything up to `version` is cut: what follows is kept until it is unpinned.
    pub fn pin(&mut self, version: u64, kind: Kind) {
        *self.ring(kind).pins.entry(version).or_insert(0) += 1;
    }

    /// The watch that was pinned at `version` has resumed, or has given up.
    pub fn unpin(&mut self, version: u64, kind: Kind) {
        let ring = self.ring(kind);
        let count = ring.pins.get_mut(&version).expect("what is unpinned was pinned");
        *count -= 1;
        if *count == 0 {
            ring.pins.remove(&version);
        }
        ring.release();
    }

    /// The changes of a kind after `version`, oldest first.
    ///
    /// # Errors
    /// 410 when some of them are forgotten: the client must list again. So it is told, too, when nobody pinned a version that is long past.
    pub fn since(&self, version: u64, kind: Kind) -> Result<Vec<Change>, ApiError> {
        let ring = &self.rings[kind as usize];
        let start = ring.kept.partition_point(|change| change.version <= version);
        let missed = ring.marks.partition_point(|(_, mark)| *mark <= version);
        let all_kept = ring.marks.len() - missed == ring.kept.len() - start;
        if version < ring.dropped || !all_kept {
            return Err(ApiError::expired(version, ring.oldest()));
        }
        Ok(ring.kept.range(start..).cloned().collect())
    }

    /// Forgets the changes of a kind up to and including `version`: a watch from an older version gets 410.
    pub fn forget(&mut self, kind: Kind, version: u64) {
        let ring = self.ring(kind);
        ring.marks
            .drain(..ring.marks.partition_point(|(_, mark)| *mark <= version));
        ring.kept
            .drain(..ring.kept.partition_point(|change| change.version <= version));
        ring.dropped = ring.dropped.max(version);
    }

    /// The server restarted at `version`: its watch caches are empty, and older watches cannot resume.
    pub fn restart(&mut self, version: u64) {
        for kind in Kind::ALL {
            self.forget(*kind, version);
        }
    }

    /// How many changes of a kind the real server would remember.
    pub fn count(&self, kind: Kind) -> usize {
        self.rings[kind as usize].marks.len()
    }

    fn ring(&mut self, kind: Kind) -> &mut Ring {
        &mut self.rings[kind as usize]
    }
}

impl Ring {
    fn last(&self) -> u64 {
        self.marks.back().map_or(self.dropped, |(_, version)| *version)
    }

    fn oldest(&self) -> u64 {
        self.marks.front().map_or(self.dropped, |(_, version)| *version)
    }

    fn make_room(&mut self, now: Time) {
        if self.marks.len() < self.capacity {
            return;
        }
        let is_old = |(at, _): &(Time, u64)| now.since(*at) >= FRESH;
        if !self.marks.front().is_some_and(is_old) {
            self.capacity = (self.capacity * 2).min(MAX_CAPACITY);
        } else if is_old(&self.marks[self.capacity - self.capacity / 4]) {
            // Three quarters of it are old: half of it will do.
            self.capacity = (self.capacity / 2).max(MIN_CAPACITY);
        }
        while self.marks.len() >= self.capacity {
            if let Some((_, version)) = self.marks.pop_front() {
                self.dropped = version;
            }
        }
    }

    /// Lets go of objects that nobody can ask for.
    fn release(&mut self) {
        let asked = self.pins.first_key_value().map_or(u64::MAX, |(version, _)| *version);
        while let Some(oldest) = self.kept.front() {
            let wanted = oldest.version > asked && oldest.version > self.dropped;
            if wanted || self.kept.len() <= MIN_CAPACITY {
                return;
            }
            self.kept.pop_front();
        }
    }
}

/// Which objects of a kind a watcher asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// All of them.
    #[default]
    All,
    /// The one of this key (`metadata.name`).
    Object(ObjKey),
    /// The pods of a node (`spec.nodeName`).
    PodsOnNode(String),
    /// Those in a namespace.
    Namespace(String),
}

impl Selector {
    /// Whether an object is among them.
    pub fn selects(&self, object: &Object) -> bool {
        let meta = object.meta();
        match self {
            Selector::All => true,
            Selector::Object(key) => fields::name(meta) == &*key.name && fields::namespace(meta) == &*key.namespace,
            Selector::PodsOnNode(node) => matches!(object, Object::Pod(pod) if fields::pod_node(pod) == node),
            Selector::Namespace(namespace) => fields::namespace(meta) == namespace,
        }
    }

    /// The change as the watcher sees it: an object that comes into the selection is ADDED, one that leaves it is DELETED.
    pub fn view(&self, change: &Change) -> Option<Change> {
        let before = change.old.as_ref().is_some_and(|old| self.selects(old));
        let after = change.change != ChangeType::Deleted && self.selects(&change.object);
        let seen = match (before, after) {
            (false, false) => return None,
            (false, true) => ChangeType::Added,
            (true, true) => ChangeType::Modified,
            (true, false) => ChangeType::Deleted,
        };
        Some(Change {
            change: seen,
            ..change.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{History, Selector};
    use crate::api::object::{Kind, Object};
    use crate::api::write::{Change, ChangeType};
    use crate::runtime::Time;
    use k8s_openapi::api::core::v1::{Pod, PodSpec};
    use k8s_openapi::api::storage::v1::StorageClass;
    use std::time::Duration;

    fn change(version: u64) -> Change {
        let mut class = StorageClass::default();
        class.metadata.name = Some("c".into());
        let object = Object::new(class);
        Change {
            change: ChangeType::Added,
            key: object.key(),
            object,
            old: None,
            version,
            nth: 1,
            by: "test".into(),
        }
    }

    fn filled(count: u64, gap: Duration) -> (History, Time) {
        let (mut history, mut now) = (History::new(), Time::ZERO);
        history.pin(0, Kind::StorageClass);
        for version in 1..=count {
            history.push(&change(version), now);
            now = now + gap;
        }
        (history, now)
    }

    #[test]
    fn a_watch_resumes_where_it_was_cut() {
        let (history, _) = filled(10, Duration::from_secs(1));
        let versions = |from| -> Vec<u64> {
            let changes = history.since(from, Kind::StorageClass).unwrap();
            changes.iter().map(|c| c.version).collect()
        };
        assert_eq!(versions(7), [8, 9, 10]);
        assert_eq!(versions(10), [0; 0]);
        assert_eq!(versions(0).len(), 10);
        assert_eq!(history.since(0, Kind::Pod).unwrap().len(), 0, "kinds are apart");
    }

    #[test]
    fn old_events_are_forgotten_beyond_a_hundred_and_young_ones_are_kept() {
        let (history, _) = filled(150, Duration::from_secs(1));
        let refusal = history.since(20, Kind::StorageClass).unwrap_err();
        assert!(refusal.is_expired(), "{refusal}");
        assert_eq!(history.since(50, Kind::StorageClass).unwrap().len(), 100);

        let (history, _) = filled(1000, Duration::from_millis(1));
        assert_eq!(
            history.since(0, Kind::StorageClass).unwrap().len(),
            1000,
            "all are younger than 75 s"
        );
    }

    #[test]
    fn objects_are_kept_for_whoever_was_cut_and_the_last_hundred_for_all() {
        let (mut history, mut now) = filled(1000, Duration::from_millis(1));
        history.unpin(0, Kind::StorageClass);
        assert!(
            history.since(800, Kind::StorageClass).unwrap_err().is_expired(),
            "nobody pinned it"
        );
        assert_eq!(history.since(900, Kind::StorageClass).unwrap().len(), 100);
        history.pin(950, Kind::StorageClass);
        for version in 1001..=1500 {
            now = now + Duration::from_millis(1);
            history.push(&change(version), now);
        }
        assert_eq!(history.since(950, Kind::StorageClass).unwrap().len(), 550);
        assert_eq!(
            history.count(Kind::StorageClass),
            1500,
            "the real server remembers them all"
        );
    }

    #[test]
    fn a_ring_that_grew_in_a_rush_shrinks_in_quiet() {
        let (mut history, mut now) = filled(800, Duration::from_millis(1));
        for version in 801..=2000 {
            now = now + Duration::from_secs(10);
            history.push(&change(version), now);
        }
        assert_eq!(history.count(Kind::StorageClass), 100);
    }

    #[test]
    fn after_a_restart_every_older_watch_lists_again() {
        let (mut history, _) = filled(10, Duration::from_secs(1));
        history.restart(12);
        assert!(history.since(10, Kind::StorageClass).unwrap_err().is_expired());
        assert!(history.since(10, Kind::Pod).unwrap_err().is_expired());
        assert_eq!(history.since(12, Kind::StorageClass).unwrap().len(), 0);
    }

    #[test]
    fn an_object_enters_and_leaves_a_selection() {
        let pod = |node: Option<&str>| {
            let spec = PodSpec {
                node_name: node.map(String::from),
                ..Default::default()
            };
            Object::new(Pod {
                spec: Some(spec),
                ..Default::default()
            })
        };
        let selector = Selector::PodsOnNode("a".into());
        let here = Some(pod(Some("a")));
        for (old, new, what, seen) in [
            (None, pod(None), ChangeType::Added, None),
            (
                Some(pod(None)),
                pod(Some("a")),
                ChangeType::Modified,
                Some(ChangeType::Added),
            ),
            (
                here.clone(),
                pod(Some("a")),
                ChangeType::Modified,
                Some(ChangeType::Modified),
            ),
            (
                here.clone(),
                pod(Some("b")),
                ChangeType::Modified,
                Some(ChangeType::Deleted),
            ),
            (here, pod(Some("a")), ChangeType::Deleted, Some(ChangeType::Deleted)),
            (Some(pod(None)), pod(None), ChangeType::Deleted, None),
        ] {
            let change = Change {
                change: what,
                key: new.key(),
                object: new,
                old,
                version: 1,
                nth: 1,
                by: "test".into(),
            };
            assert_eq!(selector.view(&change).map(|c| c.change), seen, "{change:?}");
        }
    }
}
