//! One line of the trace for each record: a sign, and words with styles.

use anstyle::Style;
use tonic::Code;

use super::diff::{self, Change};
use super::lore::Lore;
use super::style::{BAD, BOLD, DIM, FAULT, GONE, GOOD, NAME, PLAIN, WARN};
use super::{ProcessChange, Record, What, calls, facts, short};
use crate::api::{ApiError, Kind, Object, ObjectRef, Write, Written};
use crate::cluster::USER;
use crate::link::{Call, CsiReply, MachineError, MachineOp};

/// The longest message that is shown without `--verbose`, in characters.
const MESSAGE: usize = 160;
/// The longest message of an event of type Normal, likewise.
const REMARK: usize = 80;

/// A line: what follows the time and the process.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// One character that says what kind of line it is.
    pub sign: &'static str,
    /// The sign's style.
    pub sign_style: Style,
    /// The words and their styles.
    pub spans: Vec<(Style, String)>,
}

/// What came of a call, and how long that took.
pub(super) type Answer<'a> = (std::time::Duration, &'a Result<CsiReply, tonic::Status>);

/// How lines are written.
#[derive(Clone, Copy)]
pub(super) struct Manner<'a> {
    pub lore: &'a Lore,
    pub verbose: bool,
}

impl Line {
    fn new(sign: &'static str, sign_style: Style) -> Line {
        Line {
            sign,
            sign_style,
            spans: Vec::new(),
        }
    }

    fn word(mut self, style: Style, text: impl Into<String>) -> Line {
        let text = text.into();
        if !text.is_empty() {
            self.spans.push((style, text));
        }
        self
    }

    fn words(self, style: Style, words: &[String]) -> Line {
        self.word(style, words.join(" "))
    }
}

impl Manner<'_> {
    /// The line of a record by itself; that of a call with its answer, where that is told with it, and how often the same was asked.
    pub fn line(self, record: &Record, answer: Option<Answer<'_>>, times: usize) -> Line {
        match &record.what {
            What::Step(text) => Line::new("──", BOLD).word(BOLD, text.as_str()),
            What::Call { call, .. } => self.call(call, answer, times),
            What::Reply { call, took, result, .. } => self.reply(call, *took, result),
            What::Write { write, before, result } => {
                let user = &*record.process == USER;
                let event = event_of(write, before.as_ref()).and_then(|event| self.event(event, result));
                event.unwrap_or_else(|| self.write(write, before.as_ref(), result, user))
            }
            What::Machine { op, error } => self.machine(op, error.as_ref()),
            What::Process(change) => self.process(change),
            What::Fault(text) => self.fault(text),
        }
    }

    fn message(self, text: &str) -> String {
        self.message_within(text, MESSAGE)
    }

    fn message_within(self, text: &str, most: usize) -> String {
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.verbose {
            one_line
        } else {
            short::clip(&short::ids(&one_line), most).into_owned()
        }
    }

    /// A write of an object that is no event.
    pub fn write(self, write: &Write, before: Option<&Object>, result: &Result<Written, ApiError>, user: bool) -> Line {
        let target = match result {
            Ok(written) => written.object.to_ref(),
            Err(_) => write.target(),
        };
        let verb = verb(write);
        let verb_style = if user { BOLD } else { PLAIN };
        let begin = |sign, style| {
            Line::new(sign, style)
                .word(verb_style, verb)
                .word(NAME, spelled(&target))
        };
        match result {
            Err(error) => {
                let style = if error.is_conflict() { WARN } else { BAD };
                let line = begin("✗", style).word(style, format!("{} {}", error.code, error.reason));
                line.word(style, self.refusal(error))
            }
            Ok(written) if !written.changed => begin("=", DIM).word(DIM, "unchanged"),
            Ok(written) if super::is_gone(write, written) => begin("−", GONE).word(GONE, "gone"),
            Ok(written) => {
                let (sign, sign_style, changes) = match before {
                    None => ("+", GOOD, diff::from_nothing(&written.object)),
                    Some(before) => ("~", DIM, diff::between(before, &written.object)),
                };
                let mut line = begin(sign, sign_style);
                if before.is_none() {
                    let whole = self.verbose || user;
                    changes.iter().for_each(|change| show_new(change, whole, &mut line));
                    return line;
                }
                changes.iter().for_each(|change| show(change, &mut line));
                if changes.is_empty() {
                    line = line.word(DIM, "(bookkeeping)");
                }
                if changes.iter().any(is_state) {
                    return line;
                }
                line.word(DIM, state(&written.object))
            }
        }
    }

    fn refusal(self, error: &ApiError) -> String {
        if error.is_conflict() && error.message.ends_with("try again") && !self.verbose {
            return "somebody else wrote first".into();
        }
        self.message(super::json::without_versions(&error.message))
    }

    /// A Kubernetes event that was written or seen again.
    pub fn event(self, object: &Object, result: &Result<Written, ApiError>) -> Option<Line> {
        let object = result.as_ref().map_or(object, |written| &written.object);
        let Object::Event(event) = object else { return None };
        let warning = event.type_.as_deref() == Some("Warning");
        let (sign, style) = if warning { ("!", WARN) } else { ("·", DIM) };
        let about = &event.involved_object;
        let kind = Kind::ALL.iter().find(|k| Some(k.name()) == about.kind.as_deref());
        let namespace = about.namespace.clone().filter(|_| kind.is_none_or(|k| k.namespaced()));
        let key = crate::api::ObjKey::new(namespace.unwrap_or_default(), about.name.clone().unwrap_or_default());
        let kind = kind.map_or(about.kind.as_deref().unwrap_or("?"), |k| k.short());
        let text = event.message.as_deref().unwrap_or_default();
        let line = Line::new(sign, style)
            .word(DIM, "event")
            .word(style, event.reason.clone().unwrap_or_default())
            .word(if warning { NAME } else { DIM }, format!("{kind} {}", short::key(&key)))
            .word(DIM, self.message_within(text, if warning { MESSAGE } else { REMARK }));
        let series = event.series.as_ref().and_then(|s| s.count);
        let line = match event.count.or(series).unwrap_or(1) {
            count if count > 1 => line.word(style, format!("×{count}")),
            _ => line,
        };
        Some(match result {
            Ok(_) => line,
            Err(error) => line.word(BAD, format!("✗ {} {}", error.code, error.reason)),
        })
    }

    /// A call that leaves its caller. `answer` is there if nothing that is shown happened before it came.
    pub fn call(self, call: &Call, answer: Option<Answer<'_>>, times: usize) -> Line {
        let question = is_question(call);
        let style = if question { DIM } else { PLAIN };
        let (sign, sign_style) = match answer {
            None => ("→", PLAIN),
            Some((_, Ok(_))) => ("⇄", if question { DIM } else { GOOD }),
            Some((_, Err(_))) => ("⇄", BAD),
        };
        let line = Line::new(sign, sign_style)
            .word(if question { DIM } else { NAME }, call.request.method())
            .words(style, &calls::asked(&call.request, self.lore));
        match answer {
            Some((took, result)) if times == 1 => self.outcome(line, took, result, question),
            Some(_) => line.word(DIM, format!("×{times}")),
            None => line,
        }
    }

    /// An answer that came later.
    pub fn reply(self, call: &Call, took: std::time::Duration, result: &Result<CsiReply, tonic::Status>) -> Line {
        let question = is_question(call);
        let sign_style = match result {
            Ok(_) if question => DIM,
            Ok(_) => GOOD,
            Err(_) => BAD,
        };
        let mut line = Line::new("←", sign_style).word(if question { DIM } else { NAME }, call.request.method());
        let claim = self.lore.claim_of_request(&call.request);
        line = line.word(
            DIM,
            claim
                .map(|key| format!("(pvc {})", short::key(key)))
                .unwrap_or_default(),
        );
        self.outcome(line, took, result, question)
    }

    fn outcome(
        self,
        line: Line,
        took: std::time::Duration,
        result: &Result<CsiReply, tonic::Status>,
        dim: bool,
    ) -> Line {
        let took = short::duration(took);
        match result {
            Ok(reply) => {
                let style = if dim { DIM } else { GOOD };
                let words = calls::answered(reply);
                line.word(style, "OK")
                    .words(if dim { DIM } else { PLAIN }, &words)
                    .word(DIM, took)
            }
            Err(status) => line
                .word(BAD, code(status.code()))
                .word(BAD, self.message(status.message()))
                .word(DIM, took),
        }
    }

    /// Something that a process did on its node.
    pub fn machine(self, op: &MachineOp, error: Option<&MachineError>) -> Line {
        let (verb, words) = machine_words(op);
        let line = Line::new(" ", DIM).word(DIM, verb).word(DIM, short::ids(&words));
        match error {
            None => line,
            Some(error) => line.word(BAD, short::ids(&error.to_string())),
        }
    }

    /// What became of a process.
    pub fn process(self, change: &ProcessChange) -> Line {
        match change {
            ProcessChange::Started => Line::new("▲", GOOD).word(GOOD, "started"),
            ProcessChange::Exited(message) => Line::new("▼", WARN)
                .word(WARN, "exited")
                .word(PLAIN, self.message(message)),
            ProcessChange::Killed => Line::new("▼", BAD).word(BAD, "killed"),
            ProcessChange::Failed(message) => Line::new("▼", BAD)
                .word(BAD, "could not start")
                .word(PLAIN, self.message(message)),
        }
    }

    /// A fault that struck.
    pub fn fault(self, text: &str) -> Line {
        Line::new("↯", FAULT).word(FAULT, self.message(text))
    }
}

/// The event that a write creates or counts.
pub(super) fn event_of<'a>(write: &'a Write, before: Option<&'a Object>) -> Option<&'a Object> {
    match write {
        Write::Create(object) if object.kind() == Kind::Event => Some(object),
        Write::Patch(patch) if patch.target.kind == Kind::Event => before,
        _ => None,
    }
}

/// Whether a call asks about the driver or its figures: shown without emphasis.
pub(super) fn is_question(call: &Call) -> bool {
    crate::scenario::Call::parse(call.request.method()).is_some_and(|call| !call.is_lifecycle())
}

/// The verb as a reader thinks of it.
fn verb(write: &Write) -> &'static str {
    match (write, write.subresource()) {
        (_, Some("status")) => "status",
        (Write::Bind { .. }, _) => "bind",
        (write, _) => write.verb(),
    }
}

/// Kind and name.
pub(super) fn spelled(target: &ObjectRef) -> String {
    format!("{} {}", target.kind.short(), short::key(&target.key))
}

/// The code as gRPC spells it.
pub(super) fn code(code: Code) -> &'static str {
    crate::scenario::Code::of(code).as_str()
}

/// The state after a change that does not say it.
fn state(object: &Object) -> String {
    match facts::state(object).as_str() {
        "" => String::new(),
        state => format!("· {state}"),
    }
}

/// Whether a change says by itself in which state the object is now.
fn is_state(change: &Change) -> bool {
    match change {
        Change::Set(label, _) | Change::Turned(label, ..) => ["phase", "attached", "ready"].contains(&label.as_str()),
        _ => false,
    }
}

/// Facts of a new object whose value says what they are.
const SELF_EVIDENT: [&str; 5] = ["phase", "request", "modes", "mode", "capacity"];
/// Facts of a new object that go without saying.
const TACIT: [(&str, &str); 3] = [("attached", "false"), ("reclaim", "Delete"), ("policy", "Delete")];
/// Facts of a new object that a reader has seen often enough.
const ROUTINE: [&str; 4] = ["finalizers", "annotations", "labels", "owners"];

/// Finalizers that admission gives to every object of a kind.
const BORN_WITH: [&str; 3] = ["pvc-protection", "pv-protection", "vac-protection"];

/// A fact of a new object.
fn show_new(change: &Change, verbose: bool, line: &mut Line) {
    match change {
        Change::Set(label, value) if TACIT.contains(&(label.as_str(), value.as_str())) => {}
        Change::Set(label, value) if SELF_EVIDENT.contains(&label.as_str()) => {
            line.spans.push((PLAIN, value.clone()));
        }
        Change::Entries { label, came, .. }
            if label == "finalizers" && came.iter().all(|f| BORN_WITH.contains(&f.as_str())) => {}
        Change::Entries { label, .. } if ROUTINE.contains(&label.as_str()) && !verbose => {}
        Change::Entries { label, came, .. } => {
            line.spans.push((DIM, label.clone()));
            line.spans.push((PLAIN, came.join(" ")));
        }
        other => show(other, line),
    }
}

/// A difference between two states of an object.
fn show(change: &Change, line: &mut Line) {
    let mut push = |style: Style, text: String| line.spans.push((style, text));
    match change {
        Change::Set(label, value) if value == facts::YES => push(GONE, label.clone()),
        Change::Set(label, value) if label == "phase" => push(GOOD, value.clone()),
        Change::Turned(label, old, new) if label == "phase" => push(GOOD, format!("{old} → {new}")),
        Change::Set(label, value) => {
            push(DIM, label.clone());
            push(PLAIN, value.clone());
        }
        Change::Unset(label, value) => {
            push(DIM, label.clone());
            push(GONE, format!("−{value}"));
        }
        Change::Turned(label, old, new) => {
            push(DIM, label.clone());
            push(PLAIN, format!("{old} → {new}"));
        }
        Change::Entries {
            label,
            came,
            went,
            turned,
        } => {
            push(DIM, label.clone());
            came.iter().for_each(|name| push(PLAIN, format!("+{name}")));
            turned
                .iter()
                .for_each(|(name, old, new)| push(PLAIN, format!("{name} {old} → {new}")));
            went.iter().for_each(|name| push(GONE, format!("−{name}")));
        }
        Change::Path(path) => push(DIM, path.clone()),
    }
}

/// An operation on a machine: its name, and what it is about.
pub(super) fn machine_words(op: &MachineOp) -> (&'static str, String) {
    match op {
        MachineOp::MakeDirs(path) => ("mkdir -p", path.clone()),
        MachineOp::RemoveDir(path) => ("rmdir", path.clone()),
        MachineOp::RemoveFile(path) => ("rm", path.clone()),
        MachineOp::RemoveAll(path) => ("rm -r", path.clone()),
        MachineOp::WriteFile(path, bytes) => ("write", format!("{path} {} bytes", bytes.len())),
        MachineOp::ReadFile(path) => ("read", path.clone()),
        MachineOp::Stat(path) => ("stat", path.clone()),
        MachineOp::ListDir(path) => ("ls", path.clone()),
        MachineOp::Mounts => ("mounts", String::new()),
        MachineOp::Link { to, at } => ("ln -s", format!("{to} {at}")),
        MachineOp::StartPod(uid) => ("start pod", uid.clone()),
        MachineOp::StopPod { uid, grace_seconds } => ("stop pod", format!("{uid} within {grace_seconds} s")),
        MachineOp::RunningPods => ("pods", String::new()),
    }
}
