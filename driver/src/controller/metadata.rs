//! The SnapshotMetadata service: which bytes of a snapshot hold data, and which differ from those of an earlier one.
//!
//! A stream holds its snapshots, so that none is deleted under it, and reads one page from the pool for each message.
//! The end of a stream without an error means that everything was sent.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::snapshot_metadata_server;

use super::{Controller, Core, switched_off};
use crate::check;
use crate::gate::{Hold, Pass, Subject};
use crate::pool::{Extent, PoolErrorKind};
use crate::records::SnapshotRecord;
use crate::refuse;
use crate::units::{Bytes, SnapshotId};

/// Ranges in one message if the caller does not say.
const PAGE: usize = 256;
/// Ranges in one message at most, whatever the caller says: about 20 kB.
const LARGEST_PAGE: usize = 1024;

/// The SnapshotMetadata service of a driver: it reads the snapshots of its [`Controller`].
#[derive(Clone)]
pub struct SnapshotMetadata(Arc<Core>);

impl SnapshotMetadata {
    pub(crate) fn beside(controller: &Controller) -> Self {
        Self(Arc::clone(&controller.0))
    }

    fn is_offered(&self, call: &str) -> Result<(), Status> {
        if self.0.config.snapshot_metadata {
            Ok(())
        } else {
            Err(switched_off(call))
        }
    }
}

/// One question, answered page by page.
struct Reading {
    core: Arc<Core>,
    base: Option<SnapshotId>,
    target: SnapshotId,
    size: Bytes,
    offset: Bytes,
    page: usize,
    first: bool,
    /// Keeps the snapshots in place.
    _pass: Pass,
}

/// What every message says, in both streams.
struct Page {
    size: Bytes,
    extents: Vec<csi::BlockMetadata>,
}

impl Reading {
    fn start(
        core: &Arc<Core>,
        base: Option<&str>,
        target: (&str, &str),
        offset: i64,
        max: i32,
    ) -> Result<Self, Status> {
        let base = base.map(|id| check::identified("base_snapshot_id", id)).transpose()?;
        let target = check::identified(target.0, target.1)?;
        let offset = u64::try_from(offset).map_err(|_| Status::out_of_range("starting_offset is negative"))?;
        let max = usize::try_from(max).map_err(|_| Status::invalid_argument("max_results is negative"))?;
        let mut subjects = vec![(Subject::Snapshot(target.clone()), Hold::Together)];
        if let Some(base) = base.clone().filter(|base| *base != target) {
            subjects.push((Subject::Snapshot(base), Hold::Together));
        }
        let pass = core.gate.enter(&subjects)?;
        let record = whole(core, &target)?;
        if let Some(base) = &base
            && whole(core, base)?.volume != record.volume
        {
            return Err(Status::invalid_argument("the snapshots are not of the same volume"));
        }
        if offset > record.size.0 {
            let text = format!("starting_offset is beyond the {} of the volume", record.size);
            return Err(Status::out_of_range(text));
        }
        Ok(Self {
            core: Arc::clone(core),
            base,
            target,
            size: record.size,
            offset: Bytes(offset),
            page: if max == 0 { PAGE } else { max.min(LARGEST_PAGE) },
            first: true,
            _pass: pass,
        })
    }

    /// The next page; `None` once everything was sent. An empty snapshot is one empty page.
    async fn next(&mut self) -> Result<Option<Page>, Status> {
        if self.offset >= self.size && !self.first {
            return Ok(None);
        }
        let pool = &self.core.pool;
        let found = pool
            .extents(self.base.as_ref(), &self.target, self.offset, self.page)
            .await;
        let found = found.map_err(|error| match error.kind {
            PoolErrorKind::Unsupported => Status::failed_precondition(error.text),
            _ => refuse::pool("reading the snapshot's blocks", &error),
        })?;
        if found.is_empty() && !self.first {
            return Ok(None);
        }
        self.first = false;
        self.offset = match found.last() {
            Some(last) if found.len() == self.page => Bytes(last.offset.0 + last.len.0),
            _ => self.size,
        };
        Ok(Some(Page {
            size: self.size,
            extents: found.iter().map(to_wire).collect(),
        }))
    }

    /// The first page is read before the stream begins, so that a refusal is the call's own.
    async fn stream<T: Send + 'static>(mut self, message: fn(Page) -> T) -> Result<Response<BoxStream<T>>, Status> {
        let first = self.next().await?;
        let rest = stream::unfold(Some(self), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(page)) => Some((Ok(page), Some(reading))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        let first = stream::iter(first.map(Ok));
        let pages = first.chain(rest);
        Ok(Response::new(Box::pin(pages.map(move |page| page.map(message)))))
    }
}

fn whole(core: &Core, id: &SnapshotId) -> Result<SnapshotRecord, Status> {
    core.whole_snapshot(id)
}

fn to_wire(extent: &Extent) -> csi::BlockMetadata {
    csi::BlockMetadata {
        byte_offset: extent.offset.to_wire(),
        size_bytes: extent.len.to_wire(),
    }
}

#[tonic::async_trait]
impl snapshot_metadata_server::SnapshotMetadata for SnapshotMetadata {
    async fn get_metadata_allocated(
        &self,
        request: Request<csi::GetMetadataAllocatedRequest>,
    ) -> Result<Response<BoxStream<csi::GetMetadataAllocatedResponse>>, Status> {
        self.is_offered("GetMetadataAllocated")?;
        let wire = request.into_inner();
        check::secrets(&wire.secrets)?;
        let target = ("snapshot_id", wire.snapshot_id.as_str());
        let reading = Reading::start(&self.0, None, target, wire.starting_offset, wire.max_results)?;
        let message = |page: Page| csi::GetMetadataAllocatedResponse {
            block_metadata_type: csi::BlockMetadataType::VariableLength.into(),
            volume_capacity_bytes: page.size.to_wire(),
            block_metadata: page.extents,
        };
        reading.stream(message).await
    }

    async fn get_metadata_delta(
        &self,
        request: Request<csi::GetMetadataDeltaRequest>,
    ) -> Result<Response<BoxStream<csi::GetMetadataDeltaResponse>>, Status> {
        self.is_offered("GetMetadataDelta")?;
        let wire = request.into_inner();
        check::secrets(&wire.secrets)?;
        let base = Some(wire.base_snapshot_id.as_str());
        let target = ("target_snapshot_id", wire.target_snapshot_id.as_str());
        let reading = Reading::start(&self.0, base, target, wire.starting_offset, wire.max_results)?;
        let message = |page: Page| csi::GetMetadataDeltaResponse {
            block_metadata_type: csi::BlockMetadataType::VariableLength.into(),
            volume_capacity_bytes: page.size.to_wire(),
            block_metadata: page.extents,
        };
        reading.stream(message).await
    }
}
