//! After everything else: nothing of the run is left.

use super::prelude::*;

checks! { Lifecycle:
    Must "leftovers/volumes", "After the run ListVolumes shows none of the volumes that it made and deleted.", "Controller Service RPC: ListVolumes",
        [Need::Volumes, Need::Controller(Rpc::ListVolumes)], volumes;
    Must "leftovers/snapshots", "After the run ListSnapshots shows none of the snapshots that it made and deleted.", "Controller Service RPC: ListSnapshots",
        [Need::Volumes, Need::Controller(Rpc::ListSnapshots)], snapshots;
}

async fn volumes(lab: &Lab) -> Outcome {
    let (made, mut request, mut left) = (lab.made(), csi::ListVolumesRequest::default(), Vec::new());
    loop {
        let answer = lab.ok(request.clone()).await?;
        let ids = answer
            .entries
            .into_iter()
            .filter_map(|entry| entry.volume)
            .map(|volume| volume.volume_id);
        left.extend(ids.filter(|id| made.contains(id)));
        if answer.next_token.is_empty() {
            return expect(left.is_empty(), || format!("still listed: {left:?}"));
        }
        request.starting_token = answer.next_token;
    }
}

async fn snapshots(lab: &Lab) -> Outcome {
    let (made, mut request, mut left) = (lab.made(), csi::ListSnapshotsRequest::default(), Vec::new());
    loop {
        let answer = lab.ok(request.clone()).await?;
        let ids = answer
            .entries
            .into_iter()
            .filter_map(|entry| entry.snapshot)
            .map(|snapshot| snapshot.snapshot_id);
        left.extend(ids.filter(|id| made.contains(id)));
        if answer.next_token.is_empty() {
            return expect(left.is_empty(), || format!("still listed: {left:?}"));
        }
        request.starting_token = answer.next_token;
    }
}
