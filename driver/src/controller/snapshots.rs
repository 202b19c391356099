//! The calls that look at snapshots and change nothing: listing with filters and pages, and one snapshot.

use std::ops::Bound;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use super::snapshot::to_wire;
use crate::check;
use crate::records::{SnapshotPhase, SnapshotRecord};
use crate::units::{SnapshotId, VolumeId};

/// A page token is this, followed by the last handle of the page before: it stays good while snapshots come and go.
const TOKEN: &str = "after:";

pub(super) fn list(core: &Core, wire: &csi::ListSnapshotsRequest) -> Result<csi::ListSnapshotsResponse, Status> {
    check::secrets(&wire.secrets)?;
    let max = usize::try_from(wire.max_entries)
        .map_err(|_| Status::invalid_argument("max_entries is negative"))
        .map(|max| if max == 0 { usize::MAX } else { max })?;
    let after = match wire.starting_token.as_str() {
        "" => None,
        token => Some(start_of(token)?),
    };
    let only = (!wire.snapshot_id.is_empty()).then(|| SnapshotId::new(&wire.snapshot_id));
    let of = (!wire.source_volume_id.is_empty()).then(|| VolumeId::new(&wire.source_volume_id));
    Ok(core.ledger.read(|tables| {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let is_wanted = |entry: &(&SnapshotId, &SnapshotRecord)| {
            let (id, record) = entry;
            is_cut(record)
                && only.as_ref().is_none_or(|only| only == *id)
                && of.as_ref().is_none_or(|of| *of == record.volume)
        };
        let mut found = tables.snapshots.range((from, Bound::Unbounded)).filter(is_wanted);
        let page: Vec<_> = found.by_ref().take(max).collect();
        let next_token = match page.last() {
            Some((id, _)) if found.next().is_some() => format!("{TOKEN}{id}"),
            _ => String::new(),
        };
        let entry = |(id, record)| csi::list_snapshots_response::Entry {
            snapshot: Some(to_wire(id, record)),
        };
        csi::ListSnapshotsResponse {
            entries: page.into_iter().map(entry).collect(),
            next_token,
        }
    }))
}

fn is_cut(record: &SnapshotRecord) -> bool {
    record.phase != SnapshotPhase::Cutting
}

fn start_of(token: &str) -> Result<SnapshotId, Status> {
    let id = token.strip_prefix(TOKEN).and_then(|id| check::snapshot_id(id).ok());
    id.ok_or_else(|| Status::aborted("starting_token is not one of this driver's: start from the beginning"))
}

pub(super) fn get(core: &Core, wire: &csi::GetSnapshotRequest) -> Result<csi::Snapshot, Status> {
    let id = check::snapshot_id(&wire.snapshot_id)?;
    check::secrets(&wire.secrets)?;
    let record = core.snapshot(&id).filter(is_cut);
    let record = record.ok_or_else(|| Status::not_found(format!("snapshot {id} does not exist")))?;
    Ok(to_wire(&id, &record))
}
