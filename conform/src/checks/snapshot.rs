//! Obligations of CreateSnapshot, DeleteSnapshot, ListSnapshots and GetSnapshot. Paging is in [`super::paging`].

use wavetank_proto::limits;

use super::prelude::*;

checks! { Controller:
    Must "snapshot/needs-name", "CreateSnapshot without a name is refused.", "CreateSnapshotRequest, `name` is REQUIRED",
        [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], needs_name;
    Must "snapshot/needs-source", "CreateSnapshot without a source_volume_id is refused.", "CreateSnapshotRequest, `source_volume_id` is REQUIRED",
        [Need::Controller(Rpc::CreateDeleteSnapshot)], needs_source;
    Must "snapshot/unknown-source", "CreateSnapshot of a volume that does not exist is refused with NOT_FOUND.",
        "CreateSnapshot Errors: source does not exist", [Need::Controller(Rpc::CreateDeleteSnapshot)], unknown_source;
    Must "snapshot/complete", "CreateSnapshot answers an id, the source, a time and a size that is not negative.", "Snapshot",
        [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], complete;
    Must "snapshot/same-name-same-snapshot", "CreateSnapshot with the same request answers the same snapshot, field by field.",
        "CreateSnapshot: this operation MUST be idempotent", [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], again;
    Must "snapshot/same-name-other-volume", "CreateSnapshot with a known name of another volume is refused with ALREADY_EXISTS.",
        "CreateSnapshot Errors: ALREADY_EXISTS", [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], other_volume;
    Must "snapshot/long-name", "A snapshot's name of 128 bytes is taken.", "Size Limits: 128 bytes",
        [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], long_name;
    Must "snapshot/of-a-volume-in-use", "A snapshot of a published volume is cut, or refused with FAILED_PRECONDITION or ABORTED.",
        "Controller Service RPC: CreateSnapshot", [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], in_use;
    Must "delete-snapshot/needs-id", "DeleteSnapshot without a snapshot_id is refused.", "DeleteSnapshotRequest, `snapshot_id` is REQUIRED",
        [Need::Controller(Rpc::CreateDeleteSnapshot)], delete_needs_id;
    Must "delete-snapshot/unknown", "DeleteSnapshot of a snapshot that does not exist answers OK.", "DeleteSnapshot: the Plugin MUST reply 0 OK",
        [Need::Controller(Rpc::CreateDeleteSnapshot)], delete_unknown;
    Must "delete-snapshot/twice", "DeleteSnapshot a second time answers OK.", "DeleteSnapshot: this operation MUST be idempotent",
        [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], delete_twice;
    Must "list-snapshots/shows-new", "ListSnapshots shows a snapshot as CreateSnapshot answered it, and not after its deletion.",
        "Controller Service RPC: ListSnapshots", [Need::Volumes, Need::Controller(Rpc::ListSnapshots), Need::Controller(Rpc::CreateDeleteSnapshot)], shows_new;
    Must "list-snapshots/by-id", "ListSnapshots with a snapshot_id gives that snapshot alone.", "ListSnapshotsRequest, `snapshot_id`",
        [Need::Volumes, Need::Controller(Rpc::ListSnapshots), Need::Controller(Rpc::CreateDeleteSnapshot)], by_id;
    Must "list-snapshots/by-volume", "ListSnapshots with a source_volume_id gives the snapshots of that volume alone.", "ListSnapshotsRequest, `source_volume_id`",
        [Need::Volumes, Need::Controller(Rpc::ListSnapshots), Need::Controller(Rpc::CreateDeleteSnapshot)], by_volume;
    Must "list-snapshots/unknown", "ListSnapshots for an id or a volume that does not exist answers OK and nothing.", "ListSnapshots",
        [Need::Controller(Rpc::ListSnapshots)], list_unknown;
    Must "get-snapshot/needs-id", "GetSnapshot without a snapshot_id is refused.", "GetSnapshotRequest, `snapshot_id` is REQUIRED",
        [Need::Controller(Rpc::GetSnapshot)], get_needs_id;
    Must "get-snapshot/unknown", "GetSnapshot of a snapshot that does not exist is refused with NOT_FOUND.", "GetSnapshot Errors: snapshot does not exist",
        [Need::Controller(Rpc::GetSnapshot)], get_unknown;
    Must "get-snapshot/same-as-made", "GetSnapshot answers the snapshot that CreateSnapshot answered.", "GetSnapshotResponse, `snapshot`",
        [Need::Volumes, Need::Controller(Rpc::GetSnapshot), Need::Controller(Rpc::CreateDeleteSnapshot)], get_same;
}

async fn needs_name(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::CreateSnapshotRequest {
            name: String::new(),
            ..lab.snapshot_request("s", &volume)
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_source(lab: &Lab) -> Outcome {
    lab.refused(
        csi::CreateSnapshotRequest {
            name: lab.name("s"),
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn unknown_source(lab: &Lab) -> Outcome {
    let request = csi::CreateSnapshotRequest {
        name: lab.name("s"),
        source_volume_id: NOBODY.to_owned(),
        ..Default::default()
    };
    lab.refused(request, &[NotFound]).await
}

async fn complete(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab
        .ok(lab.snapshot_request("s", &volume))
        .await?
        .snapshot
        .unwrap_or_default();
    let id = snapshot.snapshot_id.len();
    expect((1..=limits::STRING_BYTES).contains(&id), || {
        format!("the snapshot_id has {id} bytes")
    })?;
    expect(snapshot.source_volume_id == volume.id, || {
        format!("source_volume_id is `{}`", snapshot.source_volume_id)
    })?;
    expect(snapshot.creation_time.is_some(), || {
        "creation_time is REQUIRED and absent".to_owned()
    })?;
    expect(snapshot.size_bytes >= 0, || {
        format!("size_bytes is {}", snapshot.size_bytes)
    })
}

async fn again(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let first = lab.snapshot("s", &volume).await?;
    let second = lab.snapshot("s", &volume).await?;
    crate::lab::same::<csi::CreateSnapshotRequest>(
        &csi::CreateSnapshotResponse { snapshot: Some(first) },
        &csi::CreateSnapshotResponse { snapshot: Some(second) },
    )
}

async fn other_volume(lab: &Lab) -> Outcome {
    let (one, other) = (lab.volume("one").await?, lab.volume("other").await?);
    lab.snapshot("s", &one).await?;
    lab.refused(lab.snapshot_request("s", &other), &[AlreadyExists]).await
}

async fn long_name(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let mut request = lab.snapshot_request("s", &volume);
    let missing = limits::STRING_BYTES.saturating_sub(request.name.len());
    request.name.push_str(&"x".repeat(missing));
    lab.ok(request).await.map(drop)
}

async fn in_use(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    lab.ok_or(lab.snapshot_request("s", &volume), &[FailedPrecondition, Aborted])
        .await?;
    lab.down(&volume, &place).await
}

async fn delete_needs_id(lab: &Lab) -> Outcome {
    lab.refused(csi::DeleteSnapshotRequest::default(), &[InvalidArgument])
        .await
}

pub(super) fn delete_request(id: &str) -> csi::DeleteSnapshotRequest {
    csi::DeleteSnapshotRequest {
        snapshot_id: id.to_owned(),
        ..Default::default()
    }
}

async fn delete_unknown(lab: &Lab) -> Outcome {
    lab.ok(delete_request(NOBODY)).await.map(drop)
}

async fn delete_twice(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    lab.ok(delete_request(&snapshot.snapshot_id)).await?;
    lab.ok(delete_request(&snapshot.snapshot_id)).await.map(drop)
}

/// All that one filter gives.
async fn listed(lab: &Lab, mut request: csi::ListSnapshotsRequest) -> Result<Vec<csi::Snapshot>, Stop> {
    let mut found = Vec::new();
    loop {
        let answer = lab.ok(request.clone()).await?;
        found.extend(answer.entries.into_iter().filter_map(|entry| entry.snapshot));
        if answer.next_token.is_empty() {
            return Ok(found);
        }
        request.starting_token = answer.next_token;
    }
}

async fn shows_new(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    let found = listed(lab, csi::ListSnapshotsRequest::default()).await?;
    let Some(there) = found.into_iter().find(|one| one.snapshot_id == snapshot.snapshot_id) else {
        return broken(format!("{} is not listed", snapshot.snapshot_id));
    };
    crate::lab::same::<csi::CreateSnapshotRequest>(
        &csi::CreateSnapshotResponse {
            snapshot: Some(snapshot.clone()),
        },
        &csi::CreateSnapshotResponse { snapshot: Some(there) },
    )?;
    lab.ok(delete_request(&snapshot.snapshot_id)).await?;
    let found = listed(lab, csi::ListSnapshotsRequest::default()).await?;
    expect(found.iter().all(|one| one.snapshot_id != snapshot.snapshot_id), || {
        "it is listed after its deletion".to_owned()
    })
}

async fn by_id(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let (one, _) = (
        lab.snapshot("one", &volume).await?,
        lab.snapshot("other", &volume).await?,
    );
    let found = listed(
        lab,
        csi::ListSnapshotsRequest {
            snapshot_id: one.snapshot_id.clone(),
            ..Default::default()
        },
    )
    .await?;
    expect(found == [one], || {
        format!(
            "given were {:?}",
            found.iter().map(|one| &one.snapshot_id).collect::<Vec<_>>()
        )
    })
}

async fn by_volume(lab: &Lab) -> Outcome {
    let (one, other) = (lab.volume("one").await?, lab.volume("other").await?);
    let mut wanted = vec![
        lab.snapshot("one", &one).await?.snapshot_id,
        lab.snapshot("two", &one).await?.snapshot_id,
    ];
    lab.snapshot("other", &other).await?;
    let found = listed(
        lab,
        csi::ListSnapshotsRequest {
            source_volume_id: one.id.clone(),
            ..Default::default()
        },
    )
    .await?;
    let mut ids: Vec<String> = found.into_iter().map(|one| one.snapshot_id).collect();
    ids.sort();
    wanted.sort();
    expect(ids == wanted, || format!("given were {ids:?}, not {wanted:?}"))
}

async fn list_unknown(lab: &Lab) -> Outcome {
    let requests = [
        csi::ListSnapshotsRequest {
            snapshot_id: NOBODY.to_owned(),
            ..Default::default()
        },
        csi::ListSnapshotsRequest {
            source_volume_id: NOBODY.to_owned(),
            ..Default::default()
        },
    ];
    for request in requests {
        let found = listed(lab, request).await?;
        expect(found.is_empty(), || format!("given were {found:?}"))?;
    }
    Ok(())
}

async fn get_needs_id(lab: &Lab) -> Outcome {
    lab.refused(csi::GetSnapshotRequest::default(), &[InvalidArgument])
        .await
}

async fn get_unknown(lab: &Lab) -> Outcome {
    lab.refused(
        csi::GetSnapshotRequest {
            snapshot_id: NOBODY.to_owned(),
            ..Default::default()
        },
        &[NotFound],
    )
    .await
}

async fn get_same(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    let answer = lab
        .ok(csi::GetSnapshotRequest {
            snapshot_id: snapshot.snapshot_id.clone(),
            ..Default::default()
        })
        .await?;
    crate::lab::same::<csi::CreateSnapshotRequest>(
        &csi::CreateSnapshotResponse {
            snapshot: Some(snapshot),
        },
        &csi::CreateSnapshotResponse {
            snapshot: answer.snapshot,
        },
    )
}
