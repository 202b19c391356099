//! The event recorder of one source: what of a controller's remarks reaches the API, and as what.
//!
//! Remarks that are alike are aggregated, remarks that are equal are counted, and remarks that are too many are dropped, in that order: a dropped
//! remark still counts. Events get names derived from what they say, so no other event changes them. Source: client-go `tools/record/events_cache.go`.
//!
//! The scheduler records through the newer events API: no count but a series, and the key leaves out the message.
//! Blind spots: the periodic refresh of a series; writes are thought to succeed (`recreate` is for the one failure that the recorder repairs itself).

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::release::RELEASE;
use crate::runtime::{Time, fold};

use super::clock::Clock;
use super::lru::Lru;
use super::object::{Kind, ObjKey, Object, ObjectRef};
use super::queue::Bucket;
use super::record::EventRecord;
use super::write::{Edit, Patch, Write};

/// From so many different messages on, alike remarks are one event.
const AGGREGATE_FROM: usize = RELEASE.events.aggregate_from;
/// Aggregation starts anew after so long without a remark, and so does a series after [`SERIES_QUIET`].
const AGGREGATE_QUIET: Duration = RELEASE.events.aggregate_quiet;
const SERIES_QUIET: Duration = RELEASE.events.series_quiet;
/// Events about one object at once, and the time for each further one.
const BURST: u32 = RELEASE.events.burst;
const REFILL: Duration = RELEASE.events.refill;
/// Entries of each cache.
const CACHE: usize = RELEASE.events.cache;

/// The recorder of one source in one process.
#[derive(Clone, Debug)]
pub struct Recorder {
    component: String,
    host: Option<String>,
    clock: Clock,
    style: Style,
    alike: Lru<Digest, Messages>,
    seen: Lru<Digest, Seen>,
    spam: Lru<Digest, Bucket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `count` goes up.
    Counted,
    /// `series.count` goes up, once.
    Series,
}

/// What stands for a part of a remark in the caches.
type Digest = u128;

/// The digests of a remark: of the object it is about, of what remarks have in common that differ in their message, and of all it says.
#[derive(Clone, Copy, Debug)]
struct Digests {
    subject: Digest,
    alike: Digest,
    said: Digest,
}

#[derive(Clone, Debug)]
struct Messages {
    different: BTreeSet<Digest>,
    last: Time,
}

/// An event that was told, or dropped.
#[derive(Clone, Debug)]
struct Seen {
    name: String,
    about: EventRecord,
    count: i32,
    first: Time,
    last: Time,
}

impl Recorder {
    /// A recorder of the classic kind, e.g. of `persistentvolume-controller`, or of `kubelet` with its node as `host`.
    pub fn new(component: impl Into<String>, host: Option<String>, clock: Clock) -> Recorder {
        Recorder {
            component: component.into(),
            host,
            clock,
            style: Style::Counted,
            alike: Lru::new(CACHE),
            seen: Lru::new(CACHE),
            spam: Lru::new(CACHE),
        }
    }

    /// A recorder of the newer kind, which the scheduler uses.
    pub fn with_series(component: impl Into<String>, clock: Clock) -> Recorder {
        Recorder {
            style: Style::Series,
            ..Recorder::new(component, None, clock)
        }
    }

    /// What to write for a remark: a new event, a higher count, or nothing.
    pub fn record(&mut self, record: &EventRecord, now: Time) -> Option<Write> {
        match self.style {
            Style::Counted => self.record_counted(record, now),
            Style::Series => self.record_in_series(record, now),
        }
    }

    /// What to write when the patch of a counted event found no event any more: the server forgets them after an hour.
    pub fn recreate(&self, patch: &Write) -> Option<Write> {
        let Write::Patch(patch) = patch else { return None };
        let mut known = self.seen.iter().map(|(_, seen)| seen);
        let seen = known.find(|seen| *seen.name == *patch.target.key.name)?;
        Some(self.create(seen))
    }

    fn record_counted(&mut self, record: &EventRecord, now: Time) -> Option<Write> {
        let digests = Digests::of(&self.component, record);
        let aggregated = self.aggregates(&digests, now);
        let (key, message) = if aggregated {
            let message = format!("(combined from similar events): {}", record.message);
            (digests.alike, Some(message))
        } else {
            (digests.said, None)
        };
        let seen = self.seen.entry(&key, || Seen::new(record, &key, now));
        seen.count += 1;
        seen.last = now;
        let changed = message.filter(|message| *message != seen.about.message);
        if let Some(message) = &changed {
            seen.about.message.clone_from(message);
        }
        let bucket = self.spam.entry(&digests.subject, || Bucket::every(REFILL, BURST));
        if !bucket.try_take(now) {
            return None;
        }
        let seen = self.seen.get(&key)?;
        if seen.count == 1 {
            return Some(self.create(seen));
        }
        let count = seen.count;
        Some(seen.patch(Edit::EventSeen {
            count,
            message: changed,
        }))
    }

    /// Whether a remark is one too many of its like, and goes into one event with the others.
    fn aggregates(&mut self, digests: &Digests, now: Time) -> bool {
        let fresh = || Messages {
            different: BTreeSet::new(),
            last: now,
        };
        let messages = self.alike.entry(&digests.alike, fresh);
        if now.since(messages.last) > AGGREGATE_QUIET {
            *messages = fresh();
        }
        messages.different.insert(digests.said);
        messages.last = now;
        if messages.different.len() < AGGREGATE_FROM {
            return false;
        }
        // The set stays just below the threshold; the real one, too, drops any of its members.
        messages.different.pop_first();
        true
    }

    fn record_in_series(&mut self, record: &EventRecord, now: Time) -> Option<Write> {
        let key = Digests::of(&self.component, record).alike;
        let fresh = || Seen::new(record, &key, now);
        let seen = self.seen.entry(&key, fresh);
        if now.since(seen.last) > SERIES_QUIET {
            *seen = fresh();
        }
        seen.count += 1;
        seen.last = now;
        match seen.count {
            1 => self.seen.get(&key).map(|seen| self.create(seen)),
            2 => Some(seen.patch(Edit::EventSeries { count: 2 })),
            _ => None,
        }
    }

    fn create(&self, seen: &Seen) -> Write {
        let (about, regarding) = (&seen.about, &seen.about.regarding);
        let counted = self.style == Style::Counted;
        let event = Event {
            metadata: ObjectMeta {
                namespace: Some(seen.namespace().into()),
                name: Some(seen.name.clone()),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: Some(regarding.kind.api_version().into()),
                kind: Some(regarding.kind.name().into()),
                namespace: Some(regarding.key.namespace.to_string()).filter(|n| !n.is_empty()),
                name: Some(regarding.key.name.to_string()),
                uid: Some(about.uid.clone()),
                field_path: about
                    .container
                    .as_ref()
                    .map(|name| format!("spec.containers{{{name}}}")),
                ..Default::default()
            },
            type_: Some(if about.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(about.reason.into()),
            message: Some(about.message.clone()),
            count: counted.then_some(seen.count),
            first_timestamp: counted.then(|| self.clock.time(seen.first)),
            last_timestamp: counted.then(|| self.clock.time(seen.last)),
            event_time: (!counted).then(|| self.clock.micro_time(seen.first)),
            source: counted.then(|| EventSource {
                component: Some(self.component.clone()),
                host: self.host.clone(),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: self.host.clone(),
            ..Default::default()
        };
        Write::Create(Object::new(event))
    }
}

impl Digests {
    fn of(component: &str, record: &EventRecord) -> Digests {
        let regarding = &record.regarding;
        let severity = if record.warning { "w" } else { "n" };
        let subject = fold(
            0,
            &[
                component,
                regarding.kind.name(),
                &regarding.key.namespace,
                &regarding.key.name,
                &record.uid,
                record.container.as_deref().unwrap_or_default(),
            ],
        );
        let alike = fold(subject, &[severity, record.reason]);
        Digests {
            subject,
            alike,
            said: fold(alike, &[&record.message]),
        }
    }
}

impl Seen {
    /// Not told yet. The name is `<object>.<16 hex digits>`, as kubectl users know it; the digits stand for what is said, and when for the first time.
    fn new(record: &EventRecord, key: &Digest, now: Time) -> Seen {
        let digits = fold(*key ^ u128::from(now.0), &[]) as u64;
        Seen {
            name: format!("{}.{digits:016x}", record.regarding.key.name),
            about: record.clone(),
            count: 0,
            first: now,
            last: now,
        }
    }

    /// Events about objects of the whole cluster live in `default`.
    fn namespace(&self) -> &str {
        match &*self.about.regarding.key.namespace {
            "" => "default",
            namespace => namespace,
        }
    }

    fn patch(&self, edit: Edit) -> Write {
        let key = ObjKey::new(self.namespace(), self.name.as_str());
        Write::Patch(Patch::new(ObjectRef::new(Kind::Event, key), vec![edit]))
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, Recorder};
    use crate::api::object::{Kind, ObjKey, Object, ObjectRef};
    use crate::api::write::{Edit, Write};
    use crate::api::{ApiServer, Clock, EventRecord};
    use crate::runtime::Time;
    use k8s_openapi::api::core::v1::Event;
    use std::time::Duration;

    fn remark(claim: &str, message: &str) -> EventRecord {
        EventRecord {
            regarding: ObjectRef::new(Kind::PersistentVolumeClaim, ObjKey::new("default", claim)),
            uid: format!("uid of {claim}"),
            warning: false,
            reason: "ExternalProvisioning",
            message: message.into(),
            container: None,
        }
    }

    fn recorder() -> Recorder {
        Recorder::new("persistentvolume-controller", None, Clock::EPOCH)
    }

    fn event(write: Option<Write>) -> Event {
        let Some(Write::Create(Object::Event(event))) = write else {
            panic!("no new event: {write:?}")
        };
        Event::clone(&event)
    }

    fn counted(write: Option<Write>) -> (i32, Option<String>) {
        let Some(Write::Patch(patch)) = write else {
            panic!("no higher count: {write:?}")
        };
        let [Edit::EventSeen { count, message }] = patch.edits.as_slice() else {
            panic!("{:?}", patch.edits)
        };
        (*count, message.clone())
    }

    #[test]
    fn a_container_of_a_pod_has_a_budget_of_its_own() {
        let mut recorder = recorder();
        let about_pod = |message: &str| remark("p", message);
        for _ in 0..BURST {
            assert!(recorder.record(&about_pod("not mounted"), Time::ZERO).is_some());
        }
        assert!(recorder.record(&about_pod("not mounted"), Time::ZERO).is_none());
        let started = EventRecord {
            container: Some("main".into()),
            ..about_pod("started")
        };
        let event = event(recorder.record(&started, Time::ZERO));
        assert_eq!(
            event.involved_object.field_path.as_deref(),
            Some("spec.containers{main}")
        );
    }

    #[test]
    fn equal_remarks_are_counted_and_the_server_takes_them() {
        let (mut recorder, mut server) = (recorder(), ApiServer::new(Clock::EPOCH));
        let now = Time(2_000_000_000);
        let first = recorder.record(&remark("data", "waiting"), now).unwrap();
        let second = recorder
            .record(&remark("data", "waiting"), now + Duration::from_secs(15))
            .unwrap();
        server.write("kcm", &first, now).unwrap();
        let seen = server
            .write("kcm", &second, now + Duration::from_secs(15))
            .unwrap()
            .object;
        let json = seen.to_json();
        assert_eq!(json["count"], 2);
        assert_eq!(json["firstTimestamp"], "2026-01-01T00:00:02Z");
        assert_eq!(json["lastTimestamp"], "2026-01-01T00:00:17Z");
        assert_eq!(json["source"]["component"], "persistentvolume-controller");
        assert_eq!(json["type"], "Normal");
    }

    #[test]
    fn names_depend_on_what_is_said_and_on_nothing_else() {
        let (mut one, mut two) = (recorder(), recorder());
        two.record(&remark("other", "first"), Time::ZERO);
        let name = |r: &mut Recorder, message| {
            event(r.record(&remark("data", message), Time::ZERO))
                .metadata
                .name
                .unwrap()
        };
        let waiting = name(&mut one, "waiting");
        assert_eq!(waiting, name(&mut two, "waiting"));
        assert_ne!(waiting, name(&mut one, "failed"));
        assert!(
            waiting.starts_with("data.") && waiting.len() == "data.".len() + 16,
            "{waiting}"
        );
    }

    #[test]
    fn the_tenth_different_message_and_those_after_it_become_one_event() {
        let mut recorder = recorder();
        for i in 1..10 {
            event(recorder.record(&remark("data", &format!("try {i}")), Time::ZERO));
        }
        let tenth = event(recorder.record(&remark("data", "try 10"), Time::ZERO));
        assert_eq!(tenth.message.as_deref(), Some("(combined from similar events): try 10"));
        let later = recorder.record(&remark("data", "try 11"), Time::ZERO);
        assert_eq!(
            counted(later),
            (2, Some("(combined from similar events): try 11".into()))
        );
        let quiet = Time::ZERO + Duration::from_secs(601);
        let fresh = event(recorder.record(&remark("data", "try 12"), quiet));
        assert_eq!(fresh.message.as_deref(), Some("try 12"), "after ten quiet minutes");
    }

    #[test]
    fn too_many_remarks_about_one_object_are_dropped_but_counted() {
        let mut recorder = recorder();
        let mut told = 0;
        for _ in 0..40 {
            told += u32::from(recorder.record(&remark("data", "waiting"), Time::ZERO).is_some());
        }
        assert_eq!(told, BURST);
        assert!(
            recorder.record(&remark("other", "waiting"), Time::ZERO).is_some(),
            "objects do not share"
        );
        let later = recorder.record(&remark("data", "waiting"), Time::ZERO + Duration::from_secs(300));
        assert_eq!(
            counted(later).0,
            41,
            "one more after five minutes; the dropped ones count"
        );
        assert!(
            recorder
                .record(&remark("data", "waiting"), Time::ZERO + Duration::from_secs(301))
                .is_none()
        );
    }

    #[test]
    fn a_forgotten_event_is_made_again_with_its_count() {
        let mut recorder = recorder();
        recorder.record(&remark("data", "waiting"), Time::ZERO);
        let late = Time::ZERO + Duration::from_secs(7200);
        let patch = recorder.record(&remark("data", "waiting"), late).unwrap();
        let again = event(recorder.recreate(&patch));
        assert_eq!(again.count, Some(2));
        assert_eq!(again.last_timestamp, Some(Clock::EPOCH.time(late)));
        assert_eq!(again.metadata.name.as_deref(), Some(&*patch.target().key.name));
    }

    #[test]
    fn the_scheduler_starts_a_series_with_the_second_remark_and_is_silent_after() {
        let mut recorder = Recorder::with_series("default-scheduler", Clock::EPOCH);
        let first = event(recorder.record(&remark("data", "no nodes"), Time::ZERO));
        assert_eq!((first.count, first.first_timestamp), (None, None));
        assert!(first.event_time.is_some());
        let second = recorder.record(&remark("data", "another message"), Time(1)).unwrap();
        let Write::Patch(patch) = &second else {
            panic!("{second:?}")
        };
        assert_eq!(patch.edits, [Edit::EventSeries { count: 2 }]);
        assert!(recorder.record(&remark("data", "no nodes"), Time(2)).is_none());
        let quiet = Time::ZERO + Duration::from_secs(400);
        event(recorder.record(&remark("data", "no nodes"), quiet));
    }
}
