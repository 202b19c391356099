//! *Promise*: nobody does the same thing over and over faster than a back-off allows.
//!
//! *Why*: a controller that reacts to its own write, or a code that is retried at once, takes an API server or a storage system down.
//!
//! *Source*: Kubernetes' work queues (5 ms doubling to 1000 s) and kubelet's operations (0.5 s doubling to 2 min 2 s): fewer than 20 tries in the first
//! minute.
//!
//! *Mutant*: `no-back-off` (S04), `own-errors-wake-it` (S44).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::api::{Kind, Write};
use crate::link::{Call, CsiRequest};
use crate::runtime::Time;
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "no-hot-loop",
    says: "nobody does the same thing over and over faster than a back-off allows",
    season: Season::Calm,
    source: "Kubernetes: rate limiters of work queues, exponential back-off of kubelet's operations",
};

/// How long things are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// How often the same may be done within it.
const OFTEN: u32 = 40;

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct NoHotLoop {
    /// When counting began and how often it was done since, by what is done.
    counts: BTreeMap<u64, (Time, u32)>,
}

impl Oracle for NoHotLoop {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let (key, write) = match &record.what {
            What::Call { call, .. } if !is_question(call) => {
                let about = call.request.volume_id().unwrap_or_else(|| name(&call.request));
                (digest(&[&record.process, call.request.method(), about]), None)
            }
            What::Write { write, .. }
                if write.target().kind != Kind::Event && &*record.process != crate::cluster::USER =>
            {
                let target = write.target();
                let name = &*target.key.name;
                (
                    digest(&[&record.process, verb(write), target.kind.name(), name]),
                    Some(target),
                )
            }
            _ => return,
        };
        let (since, count) = self.counts.entry(key).or_insert((record.at, 0));
        if record.at.since(*since) > WINDOW {
            (*since, *count) = (record.at, 0);
        }
        *count += 1;
        if *count != OFTEN + 1 {
            return;
        }
        let (what, object) = match (&record.what, write) {
            (What::Call { call, .. }, _) => {
                let volume = call.request.volume_id().map(|handle| view.volume(handle));
                (
                    call.request.method().to_owned(),
                    volume.unwrap_or_else(|| name(&call.request).to_owned()),
                )
            }
            (_, Some(target)) => ("a write".to_owned(), target.to_string()),
            _ => return,
        };
        let text = format!(
            "{} does {what} of {object} more than {OFTEN} times within a minute",
            record.process
        );
        let party = if record.process.starts_with("kubelet") || record.process.starts_with("controller-manager") {
            Party::Kubernetes
        } else {
            Party::Sidecar
        };
        let blame = (party, "whoever asks too often, or the driver whose answer makes it ask");
        found.push(view.broken(&PROMISE, blame, text, vec![object]));
    }
}

fn is_question(call: &Call) -> bool {
    let name = crate::scenario::Call::parse(call.request.method());
    name.is_none_or(|name| !name.is_lifecycle())
}

fn name(request: &CsiRequest) -> &str {
    match request {
        CsiRequest::CreateVolume(r) => &r.name,
        CsiRequest::CreateSnapshot(r) => &r.name,
        CsiRequest::DeleteSnapshot(r) => &r.snapshot_id,
        _ => "",
    }
}

fn verb(write: &Write) -> &'static str {
    match write {
        Write::Create(_) => "create",
        Write::Update(_) => "update",
        Write::Patch(_) => "patch",
        Write::Delete(_) => "delete",
        _ => "write",
    }
}

/// FNV-1a: a short name for a few words.
fn digest(words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
