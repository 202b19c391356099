//! *Promise*: a clone or a restored volume holds what its source held at the cut, and says what it is a copy of.
//!
//! *Why*: a backup that is empty when it is needed is worse than none.
//!
//! *Source*: CSI v1.12, CreateVolume (`volume_content_source`: "if specified, the new volume will be pre-populated with data from this source") and
//! CreateSnapshot.
//!
//! *Mutant*: `clone-answer-drops-source` (D10).

use wavetank_driver::VolumeId;
use wavetank_driver::pool::Source;
use wavetank_proto::csi::v1::volume_content_source::Type;

use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::link::{CsiReply, CsiRequest, Sight};
use crate::trace::{Record, What};

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "clone-equals-source",
    says: "a clone or restored volume holds what its source held at the cut, and says what it is a copy of",
    season: Season::Safety,
    source: "CSI v1.12, CreateVolume, volume_content_source",
};

/// Judges [`PROMISE`], together with what pods read (see `data.rs`).
#[derive(Default)]
pub(super) struct CloneEqualsSource;

impl Oracle for CloneEqualsSource {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        (!sight.machines).then_some("what a copy holds: only what is said of it")
    }

    fn look(&mut self, record: &Record, view: &View<'_>, found: &mut Vec<Violation>) {
        let What::Reply {
            call,
            result: Ok(CsiReply::CreateVolume(reply)),
            ..
        } = &record.what
        else {
            return;
        };
        let (CsiRequest::CreateVolume(request), Some(volume)) = (&call.request, &reply.volume) else {
            return;
        };
        let Some(wanted) = request
            .volume_content_source
            .as_ref()
            .and_then(|source| source.r#type.as_ref())
        else {
            return;
        };
        let said = volume.content_source.as_ref().and_then(|source| source.r#type.as_ref());
        let storage = view.cluster.storage(&call.driver);
        let made = storage.and_then(|storage| storage.volume(&VolumeId::from(volume.volume_id.as_str())));
        let wrong = if said != Some(wanted) {
            "does not say what it is a copy of"
        } else if made.is_some_and(|made| !is(made.source.as_ref(), wanted)) {
            "is no copy of what was asked for"
        } else {
            return;
        };
        let lore = view.lore();
        let name = lore.claim_of_request(&call.request).map_or_else(
            || format!("volume {}", volume.volume_id),
            |claim| format!("pvc {}", claim.name),
        );
        let blame = (
            Party::Driver,
            "CSI v1.12, CreateVolume: content_source MUST be set in the answer when it was asked for",
        );
        found.push(view.broken(&PROMISE, blame, format!("the copy {name} {wrong}"), vec![name]));
    }
}

fn is(made: Option<&Source>, wanted: &Type) -> bool {
    match (made, wanted) {
        (Some(Source::Volume(id)), Type::Volume(wanted)) => id.as_str() == wanted.volume_id,
        (Some(Source::Snapshot(id)), Type::Snapshot(wanted)) => id.as_str() == wanted.snapshot_id,
        // The driver may copy by a snapshot of its own.
        (Some(Source::Snapshot(_)), Type::Volume(_)) => true,
        _ => false,
    }
}
