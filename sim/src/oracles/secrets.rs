//! *Promise*: no secret value leaves the requests that carry it: not into answers, errors, events, objects, logs or what a driver writes down.
//!
//! *Why*: events and volume attributes are readable by whoever may list them, and bug reports travel.
//!
//! *Source*: CSI v1.12, "Secrets Requirements" (fields marked `csi_secret` "MUST NOT be logged", and "Plugins … SHALL treat" them so).
//!
//! *Mutant*: `secrets-in-context` (CVE-2023-2878); the unit test has a driver that repeats a password in an error.

use std::collections::BTreeSet;

use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::api::Object;
use crate::link::CsiReply;
use crate::trace::{ProcessChange, Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "secrets",
    says: "no secret value leaves the requests that carry it",
    season: Season::Safety,
    source: "CSI v1.12, Secrets Requirements",
};

/// Shorter values are ordinary words.
const SHORTEST: usize = 8;

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct NoSecrets {
    values: BTreeSet<String>,
}

impl Oracle for NoSecrets {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        if let What::Call { call, .. } = &record.what {
            crate::trace::secrets_of(&call.request, &mut |value| {
                if value.len() >= SHORTEST {
                    self.values.insert(value.to_owned());
                }
            });
            return;
        }
        if self.values.is_empty() {
            return;
        }
        let (place, text) = match &record.what {
            What::Reply {
                call,
                result: Err(status),
                ..
            } => (
                format!("the error of {}", call.request.method()),
                status.message().to_owned(),
            ),
            What::Reply {
                result: Ok(CsiReply::CreateVolume(reply)),
                ..
            } => ("the answer to CreateVolume".to_owned(), format!("{reply:?}")),
            What::Reply {
                result: Ok(CsiReply::ControllerPublishVolume(reply)),
                ..
            } => ("the answer to ControllerPublishVolume".to_owned(), format!("{reply:?}")),
            What::Write {
                result: Ok(written), ..
            } => match &written.object {
                Object::Event(event) => ("an event".to_owned(), event.message.clone().unwrap_or_default()),
                Object::Secret(_) => return,
                object => (object.to_ref().to_string(), object.to_json().to_string()),
            },
            What::Process(ProcessChange::Exited(text) | ProcessChange::Failed(text)) => {
                (format!("the last words of {}", record.process), text.clone())
            }
            _ => return,
        };
        if self.values.iter().any(|value| text.contains(value.as_str())) {
            let blame = (Party::Driver, "CSI v1.12, Secrets Requirements");
            let text = format!("{place} repeats the value of a secret");
            found.push(view.broken(&PROMISE, blame, text, vec![place]));
        }
    }

    /// What a driver keeps is read once, at the end.
    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        for (process, disk) in view.cluster.ledgers() {
            if self.values.iter().any(|value| disk.holds(value.as_bytes())) {
                let place = format!("the ledger of {process}");
                let text = format!("{place} holds the value of a secret");
                found.push(view.broken(
                    &PROMISE,
                    (Party::Driver, "CSI v1.12, Secrets Requirements"),
                    text,
                    vec![place],
                ));
            }
        }
    }
}
