//! Obligations of lists that are read page by page.

use std::collections::BTreeSet;

use super::prelude::*;

checks! { Controller:
    Must "list/page-by-page", "ListVolumes with max_entries gives at most so many, and all pages together every volume once.",
        "ListVolumesRequest, `max_entries`, `starting_token`", [Need::Volumes, Need::Controller(Rpc::ListVolumes)], volumes;
    Must "list/wrong-token", "ListVolumes with a starting_token that was never given is refused with ABORTED.", "ListVolumes Errors: invalid starting_token",
        [Need::Controller(Rpc::ListVolumes)], wrong_token;
    Should "list/negative-page", "ListVolumes with a negative max_entries is refused.", "ListVolumesRequest, `max_entries` MUST NOT be negative",
        [Need::Controller(Rpc::ListVolumes)], negative;
    Should "list/changes-in-between", "A token stays good while volumes come and go: those that stay are listed once.", "ListVolumesRequest, `starting_token`",
        [Need::Volumes, Need::Controller(Rpc::ListVolumes)], changes;
    Must "list-snapshots/page-by-page", "ListSnapshots with max_entries gives at most so many, and all pages together every snapshot once.",
        "ListSnapshotsRequest, `max_entries`, `starting_token`",
        [Need::Volumes, Need::Controller(Rpc::ListSnapshots), Need::Controller(Rpc::CreateDeleteSnapshot)], snapshots;
    Must "list-snapshots/wrong-token", "ListSnapshots with a starting_token that was never given is refused with ABORTED.",
        "ListSnapshots Errors: invalid starting_token", [Need::Controller(Rpc::ListSnapshots)], wrong_snapshot_token;
    Should "list-snapshots/negative-page", "ListSnapshots with a negative max_entries is refused.", "ListSnapshotsRequest, `max_entries` MUST NOT be negative",
        [Need::Controller(Rpc::ListSnapshots)], negative_snapshots;
}

/// Pages after which a walk that should end is given up.
const MOST_PAGES: usize = 100_000;

/// The ids of one page and the token of the next.
async fn page(lab: &Lab, max_entries: i32, starting_token: &str) -> Result<(Vec<String>, String), Stop> {
    let request = csi::ListVolumesRequest {
        max_entries,
        starting_token: starting_token.to_owned(),
    };
    let answer = lab.ok(request).await?;
    let ids = answer
        .entries
        .into_iter()
        .filter_map(|entry| entry.volume)
        .map(|volume| volume.volume_id)
        .collect();
    Ok((ids, answer.next_token))
}

fn once(found: &[String], wanted: &BTreeSet<String>) -> Outcome {
    for id in wanted {
        let times = found.iter().filter(|one| *one == id).count();
        expect(times == 1, || format!("{id} was listed {times} times"))?;
    }
    Ok(())
}

async fn volumes(lab: &Lab) -> Outcome {
    let mut wanted = BTreeSet::new();
    for nth in 0..3 {
        wanted.insert(lab.volume(&format!("v{nth}")).await?.id);
    }
    let (mut found, mut token) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let (ids, next) = page(lab, 2, &token).await?;
        expect(ids.len() <= 2, || format!("a page of at most 2 has {}", ids.len()))?;
        found.extend(ids);
        token = next;
        if token.is_empty() {
            return once(&found, &wanted);
        }
    }
    broken("the pages do not end")
}

async fn wrong_token(lab: &Lab) -> Outcome {
    lab.refused(
        csi::ListVolumesRequest {
            starting_token: NOBODY.to_owned(),
            ..Default::default()
        },
        &[Aborted],
    )
    .await
}

async fn negative(lab: &Lab) -> Outcome {
    lab.refused(
        csi::ListVolumesRequest {
            max_entries: -1,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}

async fn changes(lab: &Lab) -> Outcome {
    let mut volumes = Vec::new();
    for nth in 0..4 {
        volumes.push(lab.volume(&format!("v{nth}")).await?);
    }
    let (mut found, mut token) = page(lab, 1, "").await?;
    lab.volume("late").await?;
    for _ in 0..MOST_PAGES {
        if let Some(gone) = volumes
            .iter()
            .position(|volume| !found.contains(&volume.id))
            .filter(|_| volumes.len() == 4)
        {
            lab.delete(&volumes.remove(gone)).await?;
        }
        if token.is_empty() {
            break;
        }
        let request = csi::ListVolumesRequest {
            max_entries: 1,
            starting_token: token.clone(),
        };
        // A driver may say that the list has to be begun anew.
        let Some(answer) = lab.ok_or(request, &[Aborted]).await? else {
            return Ok(());
        };
        found.extend(
            answer
                .entries
                .into_iter()
                .filter_map(|entry| entry.volume)
                .map(|volume| volume.volume_id),
        );
        token = answer.next_token;
    }
    once(&found, &volumes.into_iter().map(|volume| volume.id).collect())
}

async fn snapshots(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let mut wanted = BTreeSet::new();
    for nth in 0..3 {
        wanted.insert(lab.snapshot(&format!("s{nth}"), &volume).await?.snapshot_id);
    }
    let (mut found, mut token) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let request = csi::ListSnapshotsRequest {
            max_entries: 2,
            starting_token: token,
            ..Default::default()
        };
        let answer = lab.ok(request).await?;
        expect(answer.entries.len() <= 2, || {
            format!("a page of at most 2 has {}", answer.entries.len())
        })?;
        found.extend(
            answer
                .entries
                .into_iter()
                .filter_map(|entry| entry.snapshot)
                .map(|snapshot| snapshot.snapshot_id),
        );
        token = answer.next_token;
        if token.is_empty() {
            return once(&found, &wanted);
        }
    }
    broken("the pages do not end")
}

async fn wrong_snapshot_token(lab: &Lab) -> Outcome {
    lab.refused(
        csi::ListSnapshotsRequest {
            starting_token: NOBODY.to_owned(),
            ..Default::default()
        },
        &[Aborted],
    )
    .await
}

async fn negative_snapshots(lab: &Lab) -> Outcome {
    lab.refused(
        csi::ListSnapshotsRequest {
            max_entries: -1,
            ..Default::default()
        },
        &[InvalidArgument],
    )
    .await
}
