//! Obligations of the SnapshotMetadata service: streams of blocks, in order, complete and within bounds.

use tonic::{Code, Status};
use wavetank_proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;

use super::prelude::*;
use crate::call::Side;

checks! { SnapshotMetadata:
    Must "metadata/needs-id", "GetMetadataAllocated without a snapshot_id is refused.", "GetMetadataAllocatedRequest, `snapshot_id` is REQUIRED",
        [Need::Metadata], needs_id;
    Must "metadata/unknown", "GetMetadataAllocated of a snapshot that does not exist is refused with NOT_FOUND.",
        "GetMetadataAllocated Errors: snapshot does not exist", [Need::Metadata], unknown;
    Must "metadata/beyond-the-end", "GetMetadataAllocated with a starting_offset beyond the volume is refused with OUT_OF_RANGE.",
        "GetMetadataAllocated Errors: invalid starting_offset", [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot)], beyond;
    Should "metadata/negative", "A negative starting_offset or max_results is refused.", "GetMetadataAllocatedRequest",
        [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot)], negative;
    Must "metadata/allocated", "GetMetadataAllocated streams blocks in ascending order, without overlap, within the volume, of one kind and capacity.",
        "GetMetadataAllocatedResponse, `block_metadata`", [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot)], allocated;
    Must "metadata/max-results", "No message of GetMetadataAllocated holds more than max_results blocks.", "GetMetadataAllocatedRequest, `max_results`",
        [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot)], max_results;
    Must "metadata/delta-needs-ids", "GetMetadataDelta without base_snapshot_id or target_snapshot_id is refused.", "GetMetadataDeltaRequest",
        [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot)], delta_needs_ids;
    Must "metadata/delta-unknown", "GetMetadataDelta from a snapshot that does not exist is refused with NOT_FOUND.",
        "GetMetadataDelta Errors: snapshot does not exist", [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot)], delta_unknown;
    Must "metadata/delta-of-nothing", "GetMetadataDelta between two snapshots with nothing written in between names no block.", "GetMetadataDelta",
        [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot)], delta_of_nothing;
    Must "metadata/delta-of-a-write", "GetMetadataDelta names blocks after a write between two snapshots, each of them allocated in the second.",
        "GetMetadataDelta", [Need::Volumes, Need::Metadata, Need::Controller(Rpc::CreateDeleteSnapshot), Need::Contents], delta_of_a_write;
}

/// Blocks as the messages of a stream brought them.
type Blocks = Vec<(i64, i64)>;

/// Messages after which a stream that should end is given up.
const MOST_MESSAGES: usize = 1_000_000;

struct Seen {
    blocks: Blocks,
    largest: usize,
    capacities: Vec<i64>,
    kinds: Vec<i32>,
}

async fn allocated_of(lab: &Lab, mut request: csi::GetMetadataAllocatedRequest) -> Result<Seen, Status> {
    request.secrets = lab.secrets("GetMetadataAllocated");
    let mut client = SnapshotMetadataClient::new(lab.wire(Side::Controller));
    let mut stream = client.get_metadata_allocated(request).await?.into_inner();
    let mut seen = Seen {
        blocks: Vec::new(),
        largest: 0,
        capacities: Vec::new(),
        kinds: Vec::new(),
    };
    for _ in 0..MOST_MESSAGES {
        let Some(message) = stream.message().await? else { break };
        seen.largest = seen.largest.max(message.block_metadata.len());
        seen.capacities.push(message.volume_capacity_bytes);
        seen.kinds.push(message.block_metadata_type);
        seen.blocks.extend(
            message
                .block_metadata
                .iter()
                .map(|block| (block.byte_offset, block.size_bytes)),
        );
    }
    Ok(seen)
}

async fn delta_of(lab: &Lab, base: &str, target: &str) -> Result<Blocks, Status> {
    let request = csi::GetMetadataDeltaRequest {
        base_snapshot_id: base.to_owned(),
        target_snapshot_id: target.to_owned(),
        secrets: lab.secrets("GetMetadataDelta"),
        ..Default::default()
    };
    let mut client = SnapshotMetadataClient::new(lab.wire(Side::Controller));
    let mut stream = client.get_metadata_delta(request).await?.into_inner();
    let mut blocks = Vec::new();
    for _ in 0..MOST_MESSAGES {
        let Some(message) = stream.message().await? else { break };
        blocks.extend(
            message
                .block_metadata
                .iter()
                .map(|block| (block.byte_offset, block.size_bytes)),
        );
    }
    Ok(blocks)
}

fn refusal<T>(answer: Result<T, Status>, codes: &[Code]) -> Outcome {
    match answer {
        Ok(_) => broken(format!("answered OK, expected {codes:?}")),
        Err(status) if codes.contains(&status.code()) => Ok(()),
        Err(status) => broken(format!(
            "answered {} ({}), expected {codes:?}",
            crate::spell(status.code()),
            status.message()
        )),
    }
}

fn taken<T>(answer: Result<T, Status>) -> Result<T, Stop> {
    answer.map_err(|status| {
        Stop::Broken(format!(
            "answered {} ({})",
            crate::spell(status.code()),
            status.message()
        ))
    })
}

fn of(id: &str) -> csi::GetMetadataAllocatedRequest {
    csi::GetMetadataAllocatedRequest {
        snapshot_id: id.to_owned(),
        ..Default::default()
    }
}

async fn needs_id(lab: &Lab) -> Outcome {
    refusal(allocated_of(lab, of("")).await, &[InvalidArgument])
}

async fn unknown(lab: &Lab) -> Outcome {
    refusal(allocated_of(lab, of(NOBODY)).await, &[NotFound])
}

/// A snapshot of a volume that has something in it, if that can be arranged.
async fn some_snapshot(lab: &Lab) -> Result<csi::Snapshot, Stop> {
    let volume = lab.volume("v").await?;
    if lab.sees_volumes() {
        let place = lab.up(&volume, 0).await?;
        super::contents::write(lab, &place, "something").await?;
        lab.down(&volume, &place).await?;
    }
    lab.snapshot("s", &volume).await
}

async fn beyond(lab: &Lab) -> Outcome {
    let snapshot = some_snapshot(lab).await?;
    let request = csi::GetMetadataAllocatedRequest {
        starting_offset: i64::MAX - 4095,
        ..of(&snapshot.snapshot_id)
    };
    refusal(allocated_of(lab, request).await, &[OutOfRange])
}

async fn negative(lab: &Lab) -> Outcome {
    let snapshot = some_snapshot(lab).await?;
    let request = csi::GetMetadataAllocatedRequest {
        starting_offset: -1,
        ..of(&snapshot.snapshot_id)
    };
    refusal(allocated_of(lab, request).await, &[InvalidArgument, OutOfRange])?;
    let request = csi::GetMetadataAllocatedRequest {
        max_results: -1,
        ..of(&snapshot.snapshot_id)
    };
    refusal(allocated_of(lab, request).await, &[InvalidArgument, OutOfRange])
}

fn in_order(seen: &Seen) -> Outcome {
    let mut end = 0;
    for (offset, size) in &seen.blocks {
        expect(*offset >= end && *size > 0, || {
            format!("a block at {offset} of {size} bytes follows one that ends at {end}")
        })?;
        end = offset + size;
    }
    let capacity = seen.capacities.first().copied().unwrap_or(end);
    expect(end <= capacity, || {
        format!("a block ends at {end}, the volume at {capacity}")
    })?;
    expect(seen.capacities.iter().all(|one| *one == capacity), || {
        "volume_capacity_bytes changes within the stream".to_owned()
    })?;
    let kind = seen.kinds.first();
    expect(seen.kinds.iter().all(|one| Some(one) == kind && *one != 0), || {
        "block_metadata_type is UNKNOWN or changes".to_owned()
    })
}

async fn allocated(lab: &Lab) -> Outcome {
    let snapshot = some_snapshot(lab).await?;
    let seen = taken(allocated_of(lab, of(&snapshot.snapshot_id)).await)?;
    in_order(&seen)?;
    expect(!lab.sees_volumes() || !seen.blocks.is_empty(), || {
        "a volume with something in it has no block".to_owned()
    })
}

async fn max_results(lab: &Lab) -> Outcome {
    let snapshot = some_snapshot(lab).await?;
    let all = taken(allocated_of(lab, of(&snapshot.snapshot_id)).await)?;
    let request = csi::GetMetadataAllocatedRequest {
        max_results: 1,
        ..of(&snapshot.snapshot_id)
    };
    let one_by_one = taken(allocated_of(lab, request).await)?;
    expect(one_by_one.largest <= 1, || {
        format!("a message holds {} blocks", one_by_one.largest)
    })?;
    in_order(&one_by_one)?;
    let sum = |blocks: &Blocks| blocks.iter().map(|(_, size)| size).sum::<i64>();
    expect(sum(&all.blocks) == sum(&one_by_one.blocks), || {
        "the blocks are others than without max_results".to_owned()
    })
}

async fn delta_needs_ids(lab: &Lab) -> Outcome {
    let snapshot = some_snapshot(lab).await?;
    refusal(delta_of(lab, "", &snapshot.snapshot_id).await, &[InvalidArgument])?;
    refusal(delta_of(lab, &snapshot.snapshot_id, "").await, &[InvalidArgument])
}

async fn delta_unknown(lab: &Lab) -> Outcome {
    let snapshot = some_snapshot(lab).await?;
    refusal(delta_of(lab, NOBODY, &snapshot.snapshot_id).await, &[NotFound])?;
    refusal(delta_of(lab, &snapshot.snapshot_id, NOBODY).await, &[NotFound])
}

async fn delta_of_nothing(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let (one, two) = (lab.snapshot("one", &volume).await?, lab.snapshot("two", &volume).await?);
    let blocks = taken(delta_of(lab, &one.snapshot_id, &two.snapshot_id).await)?;
    expect(blocks.is_empty(), || format!("blocks are {blocks:?}"))
}

async fn delta_of_a_write(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.up(&volume, 0).await?;
    super::contents::write(lab, &place, "before").await?;
    let one = lab.snapshot("one", &volume).await?;
    super::contents::write(lab, &place, "after").await?;
    let two = lab.snapshot("two", &volume).await?;
    let changed = taken(delta_of(lab, &one.snapshot_id, &two.snapshot_id).await)?;
    expect(!changed.is_empty(), || "no block".to_owned())?;
    let there = taken(allocated_of(lab, of(&two.snapshot_id)).await)?;
    let covered = |block: &(i64, i64)| {
        there
            .blocks
            .iter()
            .any(|(at, size)| *at <= block.0 && block.0 + block.1 <= at + size)
    };
    // A file system may free a block between the two cuts: at least one that changed holds what was written.
    expect(changed.iter().any(covered), || {
        format!("changed are {changed:?}, allocated {:?}", there.blocks)
    })?;
    lab.down(&volume, &place).await
}
