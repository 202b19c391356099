//! `ControllerPublishVolume` and `ControllerUnpublishVolume`: which node may reach a volume.
//!
//! Whether a volume may go to one more node is decided and recorded under one lock of the ledger, so two calls for two
//! nodes never both pass. A publication that is being undone still counts: the node is not cut off yet.

use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::{Core, wrong};
use crate::check::{self, Capability, Mode};
use crate::config::Config;
use crate::gate::{Hold, Pass, Subject, operate};
use crate::ledger::Tables;
use crate::pool::PoolErrorKind;
use crate::quirk::Quirk;
use crate::records::{ENCRYPTED_KEY, PublicationPhase, PublicationRecord, READ_ONLY_KEY, VolumePhase, VolumeRecord};
use crate::refuse;
use crate::units::{NodeId, PublishContext, VolumeId};

pub(super) async fn publish(
    core: &Arc<Core>,
    wire: csi::ControllerPublishVolumeRequest,
) -> Result<PublishContext, Status> {
    let volume = check::volume_id(&wire.volume_id)?;
    let node = check::node_id(&wire.node_id)?;
    let capability = check::capability(wire.volume_capability.as_ref())?;
    check::is_offered(&core.config, &capability).map_err(Status::invalid_argument)?;
    check::secrets(&wire.secrets)?;
    check::map("volume_context", &wire.volume_context)?;
    if wire.readonly && !core.config.publish_readonly {
        return Err(Status::invalid_argument(
            "readonly needs the capability PUBLISH_READONLY",
        ));
    }
    let wanted = PublicationRecord {
        phase: PublicationPhase::Publishing,
        capability,
        readonly: wire.readonly,
        context: PublishContext::new(),
    };
    let pass = enter(core, &volume, &node)?;
    if let Some(answer) = repeat(core, &volume, &node, &wanted)? {
        return Ok(answer);
    }
    let span = tracing::info_span!("ControllerPublishVolume", %volume, %node);
    let work = attach(Arc::clone(core), volume, node, wanted);
    operate(&core.runtime, pass, span, work).await
}

pub(super) async fn unpublish(core: &Arc<Core>, wire: csi::ControllerUnpublishVolumeRequest) -> Result<(), Status> {
    let volume = check::volume_id(&wire.volume_id)?;
    check::secrets(&wire.secrets)?;
    let (pass, node) = if wire.node_id.is_empty() {
        (core.gate.alone(&volume)?, None)
    } else {
        let node = check::node_id(&wire.node_id)?;
        (enter(core, &volume, &node)?, Some(node))
    };
    let nodes: Vec<NodeId> = core.ledger.read(|tables| {
        let published = tables.published(&volume).map(|(node, _)| node);
        published
            .filter(|one| core.has(Quirk::UnpublishIgnoresNode) || node.as_ref().is_none_or(|node| node == *one))
            .cloned()
            .collect()
    });
    if nodes.is_empty() {
        return Ok(());
    }
    let span = tracing::info_span!("ControllerUnpublishVolume", %volume);
    let work = detach(Arc::clone(core), volume, nodes);
    operate(&core.runtime, pass, span, work).await
}

fn enter(core: &Core, volume: &VolumeId, node: &NodeId) -> Result<Pass, Status> {
    core.starved.check(node)?;
    core.gate.enter(&[
        (Subject::Volume(volume.clone()), Hold::Together),
        (Subject::Publication(volume.clone(), node.clone()), Hold::Alone),
    ])
}

/// The answer to a request that has been granted before; `None` if it has not, or is not at rest.
fn repeat(
    core: &Core,
    volume: &VolumeId,
    node: &NodeId,
    wanted: &PublicationRecord,
) -> Result<Option<PublishContext>, Status> {
    core.ledger.read(|tables| {
        let Some(record) = tables.publications.get(&(volume.clone(), node.clone())) else {
            return Ok(None);
        };
        if record.phase != PublicationPhase::Published {
            return Ok(None);
        }
        let same = record.readonly == wanted.readonly
            && record.capability.mode == wanted.capability.mode
            && record.capability.form.is_block() == wanted.capability.form.is_block();
        if same && core.has(Quirk::AttachRetryRefused) {
            return Err(Status::failed_precondition(format!("volume {volume} is in use")));
        }
        if same && core.has(Quirk::AttachRetryOtherSlot) {
            return Ok(Some(wrong::next_slot(&record.context)));
        }
        if same {
            return Ok(Some(record.context.clone()));
        }
        let text = format!("volume {volume} is published to {node} with another capability or readonly flag");
        Err(Status::already_exists(text))
    })
}

async fn attach(
    core: Arc<Core>,
    volume: VolumeId,
    node: NodeId,
    wanted: PublicationRecord,
) -> Result<PublishContext, Status> {
    core.settle_publication(&volume, &node).await?;
    let (record, is_new) = core.find(&volume).await?;
    usable(&volume, &record, &wanted.capability)?;
    let encrypted = record.encrypted;
    core.ledger
        .update(|draft| {
            admit(&core.config, draft.tables, &volume, &node, &wanted)?;
            if is_new {
                draft.volume(&volume, Some(record));
            }
            draft.publication(&volume, &node, Some(wanted.clone()));
            Ok(())
        })
        .await?;
    if core.has(Quirk::DriverDetachesOthers) {
        wrong::take_from_others(&core, &volume, &node).await?;
    }
    let mut exported = core.pool.export(&volume, &node, wanted.access()).await;
    if core.has(Quirk::AttachResultIgnored) {
        exported = exported.or_else(|_| Ok(PublishContext::new()));
    }
    match exported {
        Ok(mut context) => {
            if wanted.access().is_read_only() {
                context.insert(READ_ONLY_KEY.to_owned(), "true".to_owned());
            }
            if encrypted {
                context.insert(ENCRYPTED_KEY.to_owned(), "true".to_owned());
            }
            let done = PublicationRecord {
                phase: PublicationPhase::Published,
                context: context.clone(),
                ..wanted
            };
            core.ledger
                .update(|draft| {
                    draft.publication(&volume, &node, Some(done));
                    Ok(())
                })
                .await?;
            Ok(context)
        }
        Err(error) => {
            core.undo_publication(&volume, &node, refuse::is_certain(error.kind))
                .await;
            Err(match error.kind {
                PoolErrorKind::NoSuchPlace => {
                    Status::failed_precondition(format!("node {node} cannot reach volume {volume}: {error}"))
                }
                _ => refuse::pool("publishing the volume", &error),
            })
        }
    }
}

/// Can the volume be used so at all?
fn usable(id: &VolumeId, record: &VolumeRecord, capability: &Capability) -> Result<(), Status> {
    match record.phase {
        VolumePhase::Ready => {}
        VolumePhase::Deleting => return Err(Status::not_found(format!("volume {id} is being deleted"))),
        VolumePhase::Creating | VolumePhase::Growing(_) | VolumePhase::Modifying(_) => {
            return Err(Status::aborted(format!(
                "an earlier operation on volume {id} is not settled yet"
            )));
        }
    }
    supports(record, capability).map_err(Status::invalid_argument)
}

/// Does the volume offer what the capability asks?
pub(super) fn supports(record: &VolumeRecord, capability: &Capability) -> Result<(), String> {
    if let Some(request) = &record.request {
        let is_block = request.capabilities[0].form.is_block();
        if is_block != capability.form.is_block() {
            let form = if is_block { "block" } else { "mount" };
            return Err(format!("the volume was made for {form} access"));
        }
    }
    let shares_writing = matches!(
        capability.mode,
        Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
    );
    if shares_writing && !capability.form.is_block() && !record.shared {
        return Err(format!(
            "the volume's file system was not made for {}",
            capability.mode.as_str()
        ));
    }
    if shares_writing && record.encrypted {
        return Err(format!(
            "an encrypted volume is never offered for {}",
            capability.mode.as_str()
        ));
    }
    Ok(())
}

/// May the volume go to this node too, beside those it is at, and has the node room?
fn admit(
    config: &Config,
    tables: &Tables,
    volume: &VolumeId,
    node: &NodeId,
    wanted: &PublicationRecord,
) -> Result<(), Status> {
    for (other, record) in tables.published(volume).filter(|(other, _)| *other != node) {
        let refuse = |why: &str| {
            let text = format!("volume {volume} is published to node {other}: {why}");
            Err(Status::failed_precondition(text))
        };
        let (here, there) = (wanted.capability.mode, record.capability.mode);
        if !here.is_multi_node() || !there.is_multi_node() {
            return refuse("its access mode allows one node");
        }
        let one_writer = here == Mode::MultiNodeSingleWriter || there == Mode::MultiNodeSingleWriter;
        if one_writer && !wanted.access().is_read_only() && !record.access().is_read_only() {
            return refuse("its access mode allows one writer");
        }
    }
    let limit = config.max_volumes_per_node as usize;
    if limit > 0 {
        let there = tables
            .publications
            .keys()
            .filter(|(id, at)| at == node && id != volume)
            .count();
        if there >= limit {
            let text = format!("node {node} has {there} volumes, which is its limit");
            return Err(Status::resource_exhausted(text));
        }
    }
    Ok(())
}

async fn detach(core: Arc<Core>, volume: VolumeId, nodes: Vec<NodeId>) -> Result<(), Status> {
    core.ledger
        .update(|draft| {
            for node in &nodes {
                let record = draft.tables.publications.get(&(volume.clone(), node.clone())).cloned();
                let record = record.map(|record| PublicationRecord {
                    phase: PublicationPhase::Unpublishing,
                    ..record
                });
                draft.publication(&volume, node, record);
            }
            Ok(())
        })
        .await?;
    let result = core.finish_unpublication(&volume, &nodes).await;
    if result.is_err() && core.has(Quirk::NodeBackoffStarves) {
        core.starved.note(&nodes);
    }
    if result.is_err() {
        nodes
            .iter()
            .for_each(|node| core.settle_publication_later(&volume, node));
    }
    result
}
