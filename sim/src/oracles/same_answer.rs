//! *Promise*: the same request gets the same answer, field by field, also after a restart, until its opposite was asked for; and a request that is repeated
//! is never refused because of its own first try.
//!
//! *Why*: answers get lost and processes die, so every call is made again sooner or later. A retry that takes another path than the first call is the
//! most frequent bug of all in drivers: it leaks the volume, deletes it, or puts another one in its place.
//!
//! *Source*: CSI v1.12, "Error Scheme" and the idempotency sentence of each rpc ("This operation MUST be idempotent").
//!
//! *Mutant*: `clone-retry-refused` (D19), `retry-drops-content-source` (D10), `retry-drops-node-expansion` (D68), `limit-depends-on-start` (D39).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tonic::{Code, Status};

use super::{Oracle, Party, Promise, Season, View, Violation, node_of};
use crate::link::{Call, CsiReply, CsiRequest, Socket};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "same-answer",
    says: "the same request gets the same answer, field by field, until its opposite",
    season: Season::Safety,
    source: "CSI v1.12, the idempotency of each rpc",
};

/// What a request is about: its method, and the name or volume (and node) that it means.
type Subject = (&'static str, String);

/// The request that was made of a subject, and what came of it.
struct Asked {
    request: Vec<u8>,
    /// Another request was made of the same subject meanwhile: nothing can be said of the codes any more.
    mixed: bool,
    answer: Option<CsiReply>,
}

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct SameAnswer {
    asked: BTreeMap<(String, Subject), Asked>,
}

impl Oracle for SameAnswer {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        match &record.what {
            What::Call { call, .. } => self.sent(call, &record.process),
            What::Reply { id, call, result, .. } if view.facts.is_honest(*id, result) => {
                let Some(subject) = subject(call, &record.process) else {
                    return;
                };
                let Some(asked) = self.asked.get_mut(&(call.driver.to_string(), subject)) else {
                    return;
                };
                let wrong = match result {
                    Ok(reply) => differs(asked, reply),
                    Err(status) => refused(asked, call, status),
                };
                found.extend(wrong.map(|wrong| violation(call, &wrong, &record.process, view)));
            }
            _ => {}
        }
    }
}

impl SameAnswer {
    fn sent(&mut self, call: &Call, process: &str) {
        let driver = call.driver.to_string();
        self.forget(call);
        let Some(subject) = subject(call, process) else { return };
        let request = call.request.encode();
        match self.asked.entry((driver, subject)) {
            Entry::Vacant(entry) => {
                entry.insert(Asked {
                    request,
                    mixed: false,
                    answer: None,
                });
            }
            Entry::Occupied(mut entry) if entry.get().request != request => {
                entry.insert(Asked {
                    request,
                    mixed: true,
                    answer: None,
                });
            }
            Entry::Occupied(_) => {}
        }
    }

    /// The opposite was asked for: from now on everything may be different.
    fn forget(&mut self, call: &Call) {
        let driver = call.driver.to_string();
        match &call.request {
            CsiRequest::DeleteVolume(r) => {
                let id = &r.volume_id;
                self.asked.retain(|(of, (method, subject)), asked| {
                    let created = |reply: &CsiReply| match reply {
                        CsiReply::CreateVolume(reply) => reply.volume.as_ref().is_some_and(|v| v.volume_id == *id),
                        _ => false,
                    };
                    let about = match *method {
                        "CreateVolume" => asked.answer.as_ref().is_some_and(created),
                        _ => subject.split(' ').next() == Some(id),
                    };
                    *of != driver || !about
                });
            }
            CsiRequest::DeleteSnapshot(r) => {
                let id = &r.snapshot_id;
                self.asked.retain(|(of, _), asked| {
                    let cut = |reply: &CsiReply| match reply {
                        CsiReply::CreateSnapshot(reply) => {
                            reply.snapshot.as_ref().is_some_and(|s| s.snapshot_id == *id)
                        }
                        _ => false,
                    };
                    *of != driver || !asked.answer.as_ref().is_some_and(cut)
                });
            }
            CsiRequest::ControllerUnpublishVolume(r) => {
                let about = |subject: &str| match subject.split_once(' ') {
                    Some((id, node)) => id == r.volume_id && (r.node_id.is_empty() || node == r.node_id),
                    None => false,
                };
                self.asked.retain(|(of, (method, subject)), _| {
                    *of != driver || *method != "ControllerPublishVolume" || !about(subject)
                });
            }
            CsiRequest::ControllerExpandVolume(r) => self.grows(&driver, &r.volume_id, call),
            _ => {}
        }
    }

    /// What was said of a volume's size is no longer so when it grows.
    fn grows(&mut self, driver: &str, id: &str, call: &Call) {
        for ((of, (method, subject)), asked) in &mut self.asked {
            if *of != *driver {
                continue;
            }
            if *method == "NodeExpandVolume"
                && subject.split(' ').next() == Some(id)
                && call.request.method() != *method
            {
                asked.answer = None;
            }
            let Some(CsiReply::CreateVolume(reply)) = &mut asked.answer else {
                continue;
            };
            if let Some(volume) = reply.volume.as_mut().filter(|volume| volume.volume_id == id) {
                volume.capacity_bytes = ANY;
            }
        }
    }
}

/// A size that stands for every size.
const ANY: i64 = -1;

fn subject(call: &Call, process: &str) -> Option<Subject> {
    let node = || node_of(process).unwrap_or_default().to_owned();
    let text = match &call.request {
        CsiRequest::CreateVolume(r) => r.name.clone(),
        CsiRequest::CreateSnapshot(r) => r.name.clone(),
        CsiRequest::ControllerPublishVolume(r) => format!("{} {}", r.volume_id, r.node_id),
        CsiRequest::ControllerExpandVolume(r) => r.volume_id.clone(),
        CsiRequest::NodeExpandVolume(r) => format!("{} {}", r.volume_id, node()),
        CsiRequest::GetPluginInfo(_) | CsiRequest::GetPluginCapabilities(_) if call.socket == Socket::Controller => {
            String::new()
        }
        CsiRequest::ControllerGetCapabilities(_) => String::new(),
        CsiRequest::NodeGetInfo(_) | CsiRequest::NodeGetCapabilities(_) => node(),
        _ => return None,
    };
    Some((call.request.method(), text))
}

/// What differs from the first answer, if anything; the first answer is kept.
fn differs(asked: &mut Asked, reply: &CsiReply) -> Option<String> {
    let Some(first) = &mut asked.answer else {
        asked.answer = Some(reply.clone());
        return None;
    };
    let mut later = reply.clone();
    match (&mut *first, &mut later) {
        (CsiReply::CreateVolume(first), CsiReply::CreateVolume(later)) => {
            if let (Some(first), Some(later)) = (&first.volume, &mut later.volume)
                && first.capacity_bytes == ANY
            {
                later.capacity_bytes = ANY;
            }
        }
        (CsiReply::CreateSnapshot(first), CsiReply::CreateSnapshot(later)) => {
            // A snapshot becomes ready; it never ceases to be.
            if let (Some(first), Some(later)) = (&mut first.snapshot, &later.snapshot) {
                first.ready_to_use |= later.ready_to_use;
            }
        }
        _ => {}
    }
    if *first == later {
        return None;
    }
    Some(format!(
        "was answered differently when it was repeated: {}",
        fields(first, &later)
    ))
}

/// The parts of two answers that are not the same, as the debugger shows them.
fn fields(first: &CsiReply, later: &CsiReply) -> String {
    let (first, later) = (format!("{first:?}"), format!("{later:?}"));
    let same = first.bytes().zip(later.bytes()).take_while(|(a, b)| a == b).count();
    let mut from = first[..same.min(first.len())]
        .rfind([',', '{', '('])
        .map_or(0, |at| at + 1);
    while !first.is_char_boundary(from) || !later.is_char_boundary(from) {
        from -= 1;
    }
    let cut = |text: &str| {
        text[from.min(text.len())..]
            .chars()
            .take(80)
            .collect::<String>()
            .trim()
            .to_owned()
    };
    format!("first `{}`, then `{}`", cut(&first), cut(&later))
}

fn refused(asked: &Asked, call: &Call, status: &Status) -> Option<String> {
    let code = status.code();
    let own = matches!(
        call.request,
        CsiRequest::CreateVolume(_) | CsiRequest::CreateSnapshot(_) | CsiRequest::ControllerPublishVolume(_)
    );
    if asked.mixed {
        return None;
    }
    let exists = code == Code::AlreadyExists;
    if own && exists {
        return Some("was refused as already there, although nothing else was ever asked for".to_owned());
    }
    let lasting = matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::FailedPrecondition
            | Code::Unimplemented
    );
    if asked.answer.is_some() && own && lasting {
        return Some(format!("was granted, and refused with {code:?} when it was repeated"));
    }
    None
}

fn violation(call: &Call, wrong: &str, process: &str, view: &View<'_>) -> Violation {
    let lore = view.lore();
    let claim = lore
        .claim_of_request(&call.request)
        .map(|claim| match &*claim.namespace {
            "default" => format!("pvc {}", claim.name),
            _ => format!("pvc {claim}"),
        });
    let object = claim.unwrap_or_else(|| match subject(call, process) {
        Some((_, text)) if !text.is_empty() => text,
        _ => format!("driver {}", call.driver),
    });
    let text = format!("{} for {object} {wrong}", call.request.method());
    let blame = (Party::Driver, "CSI v1.12: the rpc MUST be idempotent");
    view.broken(&PROMISE, blame, text, vec![object, call.request.method().to_owned()])
}
