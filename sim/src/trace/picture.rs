//! A trace as a picture: a lane for each process, a bar for each call, a mark for everything else, and the life of each object.
//!
//! It is data for whoever draws: the report (`page/`) and Perfetto (`perfetto.rs`). Times are virtual, in milliseconds since the scenario began. What a line of
//! the trace says is in it as text, what JSON lines carry of requests and answers as detail; neither holds a secret.
//!
//! Blind spots: what kubelet does on its node is left out, as it is in the trace without `--verbose`; of more than [`MOST`] marks the last are left out, and of a long
//! detail its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::facts::{Fact, facts};
use super::follow::Filter;
use super::json::{Writer, millis};
use super::lines::{Line, Manner, event_of, is_question, spelled};
use super::lore::Lore;
use super::secrets::Secrets;
use super::text::{TextOptions, cut, is_shown};
use super::{Follow, ProcessChange, Record, Trace, What};
use crate::api::{Kind, Object, ObjectRef};
use crate::link::{Call, Socket};
use crate::runtime::Time;
use crate::scenario::Role;

/// So many marks a picture has at most.
pub const MOST: usize = 20_000;
/// So many objects are followed through the calls and events that concern them; of more, only writes are shown.
const FOLLOWED: usize = 150;
/// The longest detail, in bytes of JSON.
const DETAIL: usize = 6_000;

/// A trace as a picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Picture {
    /// The lanes, from top to bottom.
    pub lanes: Vec<Lane>,
    /// What is drawn, in order of time.
    pub marks: Vec<Mark>,
    /// The objects that were written to.
    pub lives: Vec<Life>,
    /// The end of the run, in milliseconds.
    pub end: Json,
    /// How many marks are left out at the end.
    #[serde(rename = "leftOut", skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// For each record of the trace its mark.
    #[serde(skip)]
    places: Vec<Option<usize>>,
}

/// The lane of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// The name of the process.
    pub name: String,
    /// What it is: `provisioner`, `kubelet`; `user` for the scenario itself.
    pub role: String,
}

/// What kind of thing a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// A CSI call.
    Call,
    /// A question about the driver: capabilities, identity, statistics.
    Question,
    /// An API write.
    Write,
    /// A Kubernetes event.
    Event,
    /// A process that came or went.
    Process,
    /// A fault or an injected answer.
    Fault,
    /// A step of the scenario.
    Step,
    /// An operation on a node that failed.
    Machine,
}

/// How a mark looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Nothing particular.
    Plain,
    /// It went well.
    Good,
    /// Something went away.
    Gone,
    /// Trouble that its client deals with.
    Warn,
    /// Trouble.
    Bad,
    /// For completeness.
    Dim,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// When, in milliseconds.
    pub at: Json,
    /// How long, in milliseconds; of a call that nobody answered, nothing.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub took: Json,
    /// The number of its lane.
    pub lane: usize,
    /// The lane of the driver's process that answers, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<usize>,
    /// Of bars that overlap in a lane, the how-manieth below each other.
    #[serde(skip_serializing_if = "is_zero")]
    pub row: usize,
    /// What it stands for.
    pub sort: Sort,
    /// How it looks.
    pub tone: Tone,
    /// The sign of its line in the trace.
    pub sign: &'static str,
    /// A word or two: the method, or verb and object.
    pub label: String,
    /// Its line in the trace.
    pub text: String,
    /// Request and answer as JSON lines have them.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub detail: Json,
}

/// The life of an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Life {
    /// Kind and name: `pvc data`.
    pub name: String,
    /// The kind: `pvc`.
    pub kind: &'static str,
    /// What became of its facts: label, and the values it had from a moment on. An empty value: not set any more.
    pub tracks: Vec<(String, Vec<(Json, String)>)>,
    /// When it was gone, if it was.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub gone: Json,
    /// The marks that concern it, by number.
    pub marks: Vec<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Picture {
    /// The picture of a trace; `took` is how long the run was.
    pub fn of(trace: &Trace, took: Duration) -> Picture {
        Painter::new(trace).paint(trace, took)
    }

    /// The mark of a record, or the last one before it.
    pub fn mark_of(&self, record: usize) -> Option<usize> {
        let until = self.places.len().min(record.saturating_add(1));
        self.places[..until].iter().rev().find_map(|place| *place)
    }

    /// How many rows of bars each lane has: at least one.
    pub fn rows(&self) -> Vec<usize> {
        let mut rows = vec![1; self.lanes.len()];
        for mark in &self.marks {
            rows[mark.lane] = rows[mark.lane].max(mark.row + 1);
        }
        rows
    }
}

struct Painter {
    lore: Lore,
    secrets: Secrets,
    origin: Time,
    writer: Writer,
    picture: Picture,
    lanes: BTreeMap<String, usize>,
    /// Whether there are several drivers.
    several: bool,
    /// The marks of calls under way.
    open: BTreeMap<u64, usize>,
    /// Until when each row of a lane is taken; a call that nobody answered takes its row for good.
    taken: Vec<Vec<Time>>,
    lives: BTreeMap<ObjectRef, usize>,
    targets: Vec<ObjectRef>,
}

impl Painter {
    fn new(trace: &Trace) -> Painter {
        let mut painter = Painter {
            lore: Lore::of(trace.records()),
            secrets: Secrets::of(trace.records()),
            origin: trace.origin(),
            writer: Writer::new(trace),
            picture: Picture::default(),
            lanes: BTreeMap::new(),
            several: false,
            open: BTreeMap::new(),
            taken: Vec::new(),
            lives: BTreeMap::new(),
            targets: Vec::new(),
        };
        painter.name_lanes(trace.records());
        painter
    }

    /// A lane for each process that does something or answers, in the order in which a request travels.
    fn name_lanes(&mut self, records: &[Record]) {
        let mut names: BTreeSet<String> = records.iter().map(|record| record.process.to_string()).collect();
        // Where there are several drivers, names say which.
        self.several = names.iter().any(|name| name.contains('@'));
        let calls = records.iter().filter_map(|record| match &record.what {
            What::Call { call, .. } => self.answering(&record.process, call),
            _ => None,
        });
        names.extend(calls.collect::<Vec<_>>());
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_by_key(|name| rank(name));
        for name in names {
            self.lanes.insert(name.clone(), self.picture.lanes.len());
            self.picture.lanes.push(Lane {
                role: role(&name).map_or("user", Role::as_str).to_owned(),
                name,
            });
        }
        self.taken = vec![Vec::new(); self.picture.lanes.len()];
    }

    fn paint(mut self, trace: &Trace, took: Duration) -> Picture {
        let options = TextOptions::default();
        for record in trace.records() {
            // Calls are named in order, whatever is drawn of them.
            let json = self.writer.line(record);
            let place = match &record.what {
                _ if !is_shown(record, &options) => None,
                What::Reply { id, .. } if self.open.contains_key(id) => self.answer(record, json),
                _ if self.picture.marks.len() >= MOST => {
                    self.picture.left_out += 1;
                    None
                }
                _ => Some(self.mark(record, json)),
            };
            self.picture.places.push(place);
            self.live(record);
        }
        self.rows();
        self.follow(trace.records());
        self.picture.end = millis(took);
        self.picture
    }

    fn mark(&mut self, record: &Record, json: Json) -> usize {
        let manner = Manner {
            lore: &self.lore,
            verbose: false,
        };
        let line = manner.line(record, None, 1);
        let (sort, label) = sort(record);
        let place = self.picture.marks.len();
        let mut mark = Mark {
            at: millis(record.at.since(self.origin)),
            took: Json::Null,
            lane: self.lanes.get(&*record.process).copied().unwrap_or(0),
            to: None,
            row: 0,
            sort,
            tone: tone(record, line.sign),
            sign: line.sign,
            label: self.secrets.scrub(&label).into_owned(),
            text: self.spell(&line),
            detail: detail(json),
        };
        if let What::Call { id, call } = &record.what {
            mark.to = self
                .answering(&record.process, call)
                .and_then(|name| self.lanes.get(&name).copied());
            self.open.insert(*id, place);
        }
        self.picture.marks.push(mark);
        place
    }

    /// An answer completes the bar of its call.
    fn answer(&mut self, record: &Record, json: Json) -> Option<usize> {
        let What::Reply { id, call, took, result } = &record.what else {
            return None;
        };
        let place = self.open.remove(id)?;
        let manner = Manner {
            lore: &self.lore,
            verbose: false,
        };
        let line = manner.call(call, Some((*took, result)), 1);
        let text = self.spell(&line);
        let mark = &mut self.picture.marks[place];
        mark.text = text;
        mark.sign = line.sign;
        mark.took = millis(*took);
        mark.tone = match result {
            Err(_) => Tone::Bad,
            Ok(_) if is_question(call) => Tone::Dim,
            Ok(_) => Tone::Good,
        };
        merge(&mut mark.detail, detail(json));
        Some(place)
    }

    /// Puts bars that overlap below each other, lane by lane.
    fn rows(&mut self) {
        for mark in &mut self.picture.marks {
            if !matches!(mark.sort, Sort::Call | Sort::Question) {
                continue;
            }
            let rows = &mut self.taken[mark.lane];
            let begin = Time::ZERO + nanos(&mark.at);
            let end = match mark.took {
                Json::Null => Time::ZERO + Duration::from_secs(365 * 24 * 3600),
                ref took => begin + nanos(took),
            };
            mark.row = rows.iter().position(|until| *until <= begin).unwrap_or(rows.len());
            match rows.get_mut(mark.row) {
                Some(until) => *until = end,
                None => rows.push(end),
            }
        }
    }

    /// The driver's process that a call goes to.
    fn answering(&self, caller: &str, call: &Call) -> Option<String> {
        let driver = match self.several {
            true => format!("@{}", call.driver),
            false => String::new(),
        };
        Some(match call.socket {
            Socket::Controller => format!("{}{driver}", Role::DriverController.as_str()),
            Socket::Node => {
                let (_, node) = caller.rsplit_once('/')?;
                format!("{}{driver}/{node}", Role::DriverNode.as_str())
            }
        })
    }

    fn spell(&self, line: &Line) -> String {
        let words: Vec<String> = line
            .spans
            .iter()
            .map(|(_, text)| plain(&self.secrets.scrub(text)))
            .collect();
        words.join(" ")
    }

    /// Notes what a write made of its object.
    fn live(&mut self, record: &Record) {
        let What::Write {
            write,
            before,
            result: Ok(written),
        } = &record.what
        else {
            return;
        };
        let target = written.object.to_ref();
        if target.kind == Kind::Event {
            return;
        }
        let at = millis(record.at.since(self.origin));
        let nth = *self.lives.entry(target.clone()).or_insert_with(|| {
            self.targets.push(target.clone());
            self.picture.lives.push(Life {
                name: spelled(&target),
                kind: target.kind.short(),
                tracks: Vec::new(),
                gone: Json::Null,
                marks: Vec::new(),
            });
            self.picture.lives.len() - 1
        });
        let life = &mut self.picture.lives[nth];
        if let (true, Some(before)) = (life.tracks.is_empty(), before) {
            note(life, &Json::from(0), before, &self.secrets);
        }
        if super::is_gone(write, written) {
            life.gone = at;
        } else {
            note(life, &at, &written.object, &self.secrets);
        }
    }

    /// Which marks concern which object.
    fn follow(&mut self, records: &[Record]) {
        for (nth, target) in self.targets.iter().enumerate() {
            let concerns: Box<dyn Fn(usize) -> bool> = if nth < FOLLOWED {
                let follow = [Follow::target_of(target.clone())];
                let filter = Filter::new(&follow, records, &self.lore);
                Box::new(move |record| filter.passes(record) && !matches!(records[record].what, What::Step(_)))
            } else {
                Box::new(
                    |record| matches!(&records[record].what, What::Write { write, result, .. } if super::json::named(write, result) == *target),
                )
            };
            let places = self.picture.places.iter().enumerate();
            let mut marks: Vec<usize> = places
                .filter(|(record, _)| concerns(*record))
                .filter_map(|(_, place)| *place)
                .collect();
            marks.sort_unstable();
            marks.dedup();
            self.picture.lives[nth].marks = marks;
        }
    }
}

/// The process that a lane's name names.
fn role(name: &str) -> Option<Role> {
    Role::parse(name.split(['@', '/']).next().unwrap_or(name))
}

/// The user first, then who decides, then who calls, then who answers.
fn rank(name: &str) -> usize {
    match role(name) {
        None => 0,
        Some(Role::ControllerManager) => 1,
        Some(Role::Scheduler) => 2,
        Some(Role::SnapshotController) => 3,
        Some(Role::Provisioner) => 4,
        Some(Role::Attacher) => 5,
        Some(Role::Resizer) => 6,
        Some(Role::Snapshotter) => 7,
        Some(Role::DriverController) => 8,
        Some(Role::Registrar | Role::Node) => 9,
        Some(Role::Kubelet) => 10,
        Some(Role::DriverNode) => 11,
    }
}

/// What a record stands for, and in a word or two which.
fn sort(record: &Record) -> (Sort, String) {
    match &record.what {
        What::Call { call, .. } | What::Reply { call, .. } => {
            let sort = if is_question(call) { Sort::Question } else { Sort::Call };
            (sort, call.request.method().to_owned())
        }
        What::Write { write, before, result } => match event_of(write, before.as_ref()) {
            Some(Object::Event(event)) => (Sort::Event, event.reason.clone().unwrap_or_default()),
            _ => {
                let target = super::json::named(write, result);
                let verb = write.subresource().unwrap_or_else(|| write.verb());
                (Sort::Write, format!("{verb} {}", spelled(&target)))
            }
        },
        What::Machine { op, .. } => (Sort::Machine, super::lines::machine_words(op).0.to_owned()),
        What::Process(change) => {
            let word = match change {
                ProcessChange::Started => "started",
                ProcessChange::Exited(_) => "exited",
                ProcessChange::Killed => "killed",
                ProcessChange::Failed(_) => "could not start",
            };
            (Sort::Process, word.to_owned())
        }
        What::Step(text) => (Sort::Step, cut(text).into_owned()),
        What::Fault(text) => (Sort::Fault, cut(text).into_owned()),
    }
}

fn tone(record: &Record, sign: &str) -> Tone {
    match (&record.what, sign) {
        (What::Write { result: Err(error), .. }, _) if error.is_conflict() => Tone::Warn,
        (What::Write { result: Err(_), .. } | What::Machine { .. } | What::Fault(_), _) => Tone::Bad,
        (What::Process(ProcessChange::Started), _) | (_, "+") => Tone::Good,
        (What::Process(_), _) => Tone::Bad,
        (_, "−") => Tone::Gone,
        (_, "!") => Tone::Warn,
        (_, "=" | "·") => Tone::Dim,
        (What::Reply { result: Err(_), .. }, _) => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// What JSON lines have of a record that its line in the trace does not say. The object as stored is left out: the request and the life of the object tell it.
fn detail(json: Json) -> Json {
    let Json::Object(fields) = json else { return Json::Null };
    const TOLD: [&str; 10] = [
        "request",
        "response",
        "code",
        "message",
        "reason",
        "verb",
        "resource",
        "driver",
        "timeout_ms",
        "error",
    ];
    let mut kept: Map<String, Json> = fields
        .into_iter()
        .filter(|(name, _)| TOLD.contains(&name.as_str()))
        .collect();
    for name in ["request", "response", "message"] {
        let Some(value) = kept.get_mut(name) else { continue };
        let text = value.to_string();
        if text.len() > DETAIL {
            let end = (0..=DETAIL).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            *value = format!("{}… ({} bytes)", &text[..end], text.len()).into();
        }
    }
    if kept.is_empty() {
        Json::Null
    } else {
        Json::Object(kept)
    }
}

fn merge(into: &mut Json, more: Json) {
    match (into, more) {
        (Json::Object(into), Json::Object(more)) => into.extend(more),
        (into, more) => *into = more,
    }
}

/// The milliseconds of a mark as a duration.
fn nanos(millis: &Json) -> Duration {
    Duration::from_nanos((millis.as_f64().unwrap_or(0.0) * 1e6).round() as u64)
}

/// Facts whose history is shown, beside conditions.
const TRACKS: [&str; 16] = [
    "phase",
    "attached",
    "ready",
    "request",
    "capacity",
    "resize",
    "modify",
    "node",
    "deleting",
    "finalizers",
    "attach-error",
    "detach-error",
    "error",
    "taints",
    "volumesInUse",
    "volumesAttached",
];

/// Adds to a life what an object says from a moment on.
fn note(life: &mut Life, at: &Json, object: &Object, secrets: &Secrets) {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (label, fact) in facts(object) {
        match fact {
            Fact::Map(entries) if label == "conditions" => values.extend(entries),
            Fact::Map(entries) if TRACKS.contains(&label) => {
                values.insert(label.to_owned(), entries.into_keys().collect::<Vec<_>>().join(", "));
            }
            Fact::One(value) if TRACKS.contains(&label) => drop(values.insert(label.to_owned(), value)),
            Fact::One(_) | Fact::Map(_) => {}
        }
    }
    for (label, points) in &mut life.tracks {
        let value = values.remove(label).unwrap_or_default();
        push(points, at, &secrets.scrub(&value));
    }
    let order = |label: &str| TRACKS.iter().position(|known| *known == label).unwrap_or(TRACKS.len());
    let mut fresh: Vec<(String, String)> = values.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    fresh.sort_by_key(|(label, _)| order(label));
    for (label, value) in fresh {
        let mut points = Vec::new();
        push(&mut points, at, &secrets.scrub(&value));
        life.tracks.push((label, points));
    }
}

fn push(points: &mut Vec<(Json, String)>, at: &Json, value: &str) {
    let value = plain(value);
    if points.last().is_none_or(|(_, last)| *last != value) {
        points.push((at.clone(), value));
    }
}

/// Text without control characters, and not too long.
fn plain(text: &str) -> String {
    cut(text)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
