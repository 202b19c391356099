//! What the controller does instead of the honest thing, for those of its [`Quirk`](crate::Quirk)s that take more than a line.
//!
//! Nothing here is reached without one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use super::create::{finish, handle, intended, make, repeat, size_of, type_name};
use crate::ledger::Tables;
use crate::pool::{NewSnapshot, Source};
use crate::quirk::Quirk;
use crate::records::{PublicationPhase, PublicationRecord, StagedPhase, VolumePhase, VolumeRecord, VolumeRequest};
use crate::refuse;
use crate::units::{Bytes, NodeId, PublishContext, SnapshotId, VolumeId};

/// How long a creation may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nodes that are refused everything.
#[derive(Debug, Default)]
pub(super) struct Starved(Mutex<BTreeSet<NodeId>>);

impl Starved {
    pub(super) fn note(&self, nodes: &[NodeId]) {
        let mut starved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        starved.extend(nodes.iter().cloned());
    }

    pub(super) fn check(&self, node: &NodeId) -> Result<(), Status> {
        let starved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if starved.contains(node) {
            return Err(Status::unavailable(format!("node {node} is backing off")));
        }
        Ok(())
    }
}

/// Volumes that an earlier process knew.
#[derive(Debug, Default)]
pub(super) struct Forgotten(Mutex<BTreeSet<VolumeId>>);

impl Forgotten {
    pub(super) fn has(&self, id: &VolumeId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// The handle of a finished volume of that name; else a new one.
pub(super) fn look_up(core: &Core, name: &str) -> VolumeId {
    let found = core.ledger.read(|tables| {
        let mut volumes = tables.volumes.iter();
        let found = volumes.find(|(_, record)| {
            let request = record.request.as_ref();
            record.phase == VolumePhase::Ready && request.is_some_and(|request| request.name == name)
        });
        found.map(|(id, _)| id.clone())
    });
    found.unwrap_or_else(|| handle(&format!("{name} at {}", core.runtime.now().as_nanos())))
}

/// Refuses what is more than all volumes of a type may have together, which is as much as one of them may have.
pub(super) fn ask_quota(core: &Core, wanted: &VolumeRequest) -> Result<(), Status> {
    let kind = type_name(&core.config, &wanted.parameters);
    let used: u64 = core.ledger.read(|tables| {
        let volumes = tables.volumes.values().filter(|record| record.kind == kind);
        volumes.map(|record| record.size.0).sum()
    });
    if used.saturating_add(wanted.range.required.0) > core.config.storage_type(kind).max_size.0 {
        return Err(Status::resource_exhausted(format!(
            "the quota of type `{kind}` is used up"
        )));
    }
    Ok(())
}

/// Makes a volume beside whoever else makes it, and deletes it when that took too long.
pub(super) async fn create_and_wait(
    core: Arc<Core>,
    id: VolumeId,
    wanted: VolumeRequest,
) -> Result<csi::Volume, Status> {
    if let Some(answer) = repeat(&core, &id, &wanted)? {
        return Ok(answer);
    }
    let since = core.runtime.now();
    let size = size_of(&core, &wanted).await?;
    let record = intended(&core, wanted, size);
    let made = make(&core, &id, &record).await.map_err(|refusal| refusal.status)?;
    if core.runtime.now().saturating_sub(since) > PATIENCE {
        let deleted = core.pool.delete(&id).await;
        deleted.map_err(|error| refuse::pool("cleaning up", &error))?;
        return Err(Status::deadline_exceeded("the volume did not become available in time"));
    }
    let record = VolumeRecord {
        size: made.size,
        segments: made.segments,
        ..record
    };
    finish(&core, &id, record).await
}

/// The secrets that end up among a volume's attributes.
pub(super) fn told(core: &Core, secrets: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    if core.has(Quirk::SecretsInContext) {
        secrets.clone()
    } else {
        BTreeMap::new()
    }
}

/// Did an earlier life leave something unfinished?
pub(crate) fn unfinished(tables: &Tables) -> bool {
    let mut volumes = tables.volumes.values();
    let mut publications = tables.publications.values();
    let mut staged = tables.staged.values();
    volumes.any(|record| record.phase != VolumePhase::Ready)
        || publications.any(|record| record.phase != PublicationPhase::Published)
        || staged.any(|record| record.phase != StagedPhase::Staged)
}

/// Cuts the snapshot that a copy could be made of.
pub(super) async fn cut_for_copy(core: &Core, id: &VolumeId, record: &VolumeRecord) -> Result<(), Status> {
    let source = record.request.as_ref().and_then(|request| request.source.as_ref());
    let Some(Source::Volume(source)) = source else {
        return Ok(());
    };
    let cut = NewSnapshot {
        id: SnapshotId::new(format!("snap-for-{id}")),
        volume: source.clone(),
    };
    let made = core.pool.cut(&[cut]).await;
    made.map(drop)
        .map_err(|error| refuse::pool("cutting the source", &error))
}

/// What a node is told that is to look elsewhere.
pub(super) fn next_slot(context: &PublishContext) -> PublishContext {
    let next = |(key, value): (&String, &String)| (key.clone(), format!("{value}+1"));
    context.iter().map(next).collect()
}

/// Takes a volume from every node but one.
pub(super) async fn take_from_others(core: &Core, volume: &VolumeId, node: &NodeId) -> Result<(), Status> {
    let nodes: Vec<NodeId> = core.ledger.read(|tables| {
        let others = tables.published(volume).map(|(other, _)| other);
        others.filter(|other| *other != node).cloned().collect()
    });
    for other in nodes {
        let cut = core.pool.unexport(volume, &other).await;
        cut.map_err(|error| refuse::pool("taking the volume from another node", &error))?;
    }
    Ok(())
}

impl Core {
    /// The size that an expansion under way aims at.
    pub(super) fn intended(&self, id: &VolumeId) -> Option<Bytes> {
        match self.record(id)?.phase {
            VolumePhase::Growing(size) => Some(size),
            _ => None,
        }
    }

    /// Volumes are known from what the process remembers, and it remembers nothing.
    pub(super) async fn forget_everything(&self) {
        let known = self.ledger.read(|tables| tables.volumes.keys().cloned().collect());
        *self.forgotten.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
        let forgotten = self.ledger.update(|draft| {
            for (volume, node) in draft.tables.publications.keys() {
                draft.publication(volume, node, None);
            }
            for id in draft.tables.volumes.keys() {
                draft.volume(id, None);
            }
            Ok(())
        });
        if let Err(status) = forgotten.await {
            tracing::warn!("nothing is forgotten: {}", status.message());
        }
    }

    pub(super) async fn believe(&self, volume: &VolumeId, node: &NodeId) -> Result<(), Status> {
        self.ledger
            .update(|draft| {
                let record = draft.tables.publications.get(&(volume.clone(), node.clone())).cloned();
                let believed = record.map(|record| PublicationRecord {
                    phase: PublicationPhase::Published,
                    ..record
                });
                draft.publication(volume, node, believed);
                Ok(())
            })
            .await
    }

    pub(super) async fn cut_off_users(&self, id: &VolumeId) -> Result<(), Status> {
        let found = self.pool.get(id).await;
        let found = found.map_err(|error| refuse::pool("looking for the volume", &error))?;
        for node in found.into_iter().flat_map(|volume| volume.exports.into_keys()) {
            let cut = self.pool.unexport(id, &node).await;
            cut.map_err(|error| refuse::pool("cutting off a node", &error))?;
        }
        Ok(())
    }

    pub(super) async fn destroy_copies(&self, id: &VolumeId) -> Result<(), Status> {
        let copies: Vec<VolumeId> = self.ledger.read(|tables| {
            let is_copy = |record: &VolumeRecord| {
                let source = record.request.as_ref().and_then(|request| request.source.as_ref());
                matches!(source, Some(Source::Volume(source)) if source == id)
            };
            let copies = tables.volumes.iter().filter(|(_, record)| is_copy(record));
            copies.map(|(id, _)| id.clone()).collect()
        });
        for copy in copies {
            self.cut_off_users(&copy).await?;
            let deleted = self.pool.delete(&copy).await;
            deleted.map_err(|error| refuse::pool("deleting a copy", &error))?;
        }
        Ok(())
    }

    pub(super) async fn clear_beside(&self, id: &VolumeId) -> Result<(), Status> {
        let Some(record) = self.record(id) else { return Ok(()) };
        let beside: Vec<VolumeId> = self.ledger.read(|tables| {
            let beside = tables.volumes.iter().filter(|(_, other)| other.kind == record.kind);
            beside.map(|(id, _)| id.clone()).collect()
        });
        for other in beside {
            // Whatever is in use stays.
            let _ = self.pool.delete(&other).await;
        }
        Ok(())
    }

    pub(super) fn unexport_later(&self, volume: &VolumeId, node: &NodeId, after: Duration) {
        let (pool, runtime) = (Arc::clone(&self.pool), Arc::clone(&self.runtime));
        let (volume, node) = (volume.clone(), node.clone());
        self.runtime.spawn(Box::pin(async move {
            runtime.sleep(after).await;
            if let Err(error) = pool.unexport(&volume, &node).await {
                tracing::warn!(%volume, %node, "a late detachment failed: {error}");
            }
        }));
    }
}
