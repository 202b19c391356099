//! The sites that a run met, in the spelling of scenarios: where a fault may be pinned.
//!
//! A call is met by its caller, an API write by its writer. (A crash may be pinned to a call in the name of the driver's process, too: `driver-controller`
//! for `provisioner`; that is the same site and not listed twice.) The object is the one that a scenario can name: the claim behind a volume, its
//! PersistentVolume or its attachment; everything else by its own name. What the user does and what recorders write is no site.

use std::collections::BTreeMap;

use super::lore::Lore;
use super::{Trace, What};
use crate::api::{Kind, ObjKey, ObjectRef};
use crate::cluster::USER;
use crate::scenario::{DEFAULT_NAMESPACE, Phase, PlainPhase, Process, Site};

/// The phases of a call.
const CALL: [PlainPhase; 4] = [
    PlainPhase::BeforeSend,
    PlainPhase::Received,
    PlainPhase::BeforeReply,
    PlainPhase::AfterReply,
];
/// The phases of a write.
const WRITE: [PlainPhase; 2] = [PlainPhase::Before, PlainPhase::Applied];

/// Every site of a run in the order in which they were first met.
pub fn sites(trace: &Trace) -> Vec<Site> {
    let lore = Lore::of(trace.records());
    let mut counts: BTreeMap<(String, String, String), u32> = BTreeMap::new();
    let mut sites = Vec::new();
    for record in trace.records() {
        let (effect, object, phases) = match &record.what {
            What::Call { call, .. } => {
                let Some(claim) = lore.claim_of_request(&call.request) else {
                    continue;
                };
                (call.request.method(), format!("pvc {}", spelled(claim)), &CALL[..])
            }
            What::Write { write, .. } if &*record.process != USER && write.target().kind != Kind::Event => {
                (write.verb(), object(&write.target(), &lore), &WRITE[..])
            }
            _ => continue,
        };
        let Ok(process) = Process::parse(&record.process) else {
            continue;
        };
        let key = (record.process.to_string(), effect.to_owned(), object.clone());
        let count = counts.entry(key).or_default();
        *count += 1;
        sites.extend(phases.iter().map(|phase| Site {
            process: process.clone(),
            effect: effect.to_owned(),
            object: object.clone(),
            attempt: *count,
            phase: Phase::Plain(*phase),
        }));
    }
    sites
}

fn object(target: &ObjectRef, lore: &Lore) -> String {
    let volume = match target.kind {
        Kind::PersistentVolume => Some(&*target.key.name),
        Kind::VolumeAttachment => lore.attachment(&target.key.name).map(|(volume, _)| volume),
        _ => None,
    };
    let name = volume.and_then(|volume| lore.claim_of_volume(volume));
    format!("{} {}", target.kind.short(), spelled(name.unwrap_or(&target.key)))
}

/// Names in sites are whole: they are read back.
fn spelled(key: &ObjKey) -> String {
    if key.namespace.is_empty() || &*key.namespace == DEFAULT_NAMESPACE {
        key.name.to_string()
    } else {
        key.to_string()
    }
}
