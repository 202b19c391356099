//! The GroupController service: snapshots of several volumes at one moment, all or none.
//!
//! The pool knows no groups; it cuts several snapshots at once. The ledger keeps a group and its snapshots in one
//! phase, and a snapshot of a group is deleted only with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tonic::{Request, Response, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::group_controller_server;
use wavetank_proto::csi::v1::group_controller_service_capability::rpc::Type as Rpc;

use super::settle::Leftover;
use super::snapshot::{check_parameters, cuttable, intended, made, timestamp, to_wire};
use super::{Controller, Core, switched_off};
use crate::check;
use crate::gate::{Hold, Subject, operate};
use crate::ledger::Tables;
use crate::note::taken;
use crate::pool::{NewSnapshot, PoolSnapshot};
use crate::records::{GroupRecord, SnapshotPhase, SnapshotRecord};
use crate::refuse;
use crate::units::{GroupId, SnapshotId, VolumeId};

/// The GroupController service of a driver: it works on the same volumes and snapshots as its [`Controller`].
#[derive(Clone)]
pub struct GroupController(Arc<Core>);

impl GroupController {
    pub(crate) fn beside(controller: &Controller) -> Self {
        Self(Arc::clone(&controller.0))
    }

    fn is_offered(&self, call: &str) -> Result<(), Status> {
        if self.0.config.group_snapshots {
            Ok(())
        } else {
            Err(switched_off(call))
        }
    }
}

/// The handle of the group called `name`.
pub(crate) fn handle(name: &str) -> GroupId {
    let digest = blake3::hash(name.as_bytes()).to_hex();
    GroupId::new(format!("group-{}", &digest[..32]))
}

/// The handle of a group's snapshot of a volume.
pub(crate) fn member(group: &GroupId, volume: &VolumeId) -> SnapshotId {
    let digest = blake3::hash(format!("{group}\n{volume}").as_bytes()).to_hex();
    SnapshotId::new(format!("gsnap-{}", &digest[..32]))
}

/// A parsed request.
struct Wanted {
    name: String,
    id: GroupId,
    volumes: Vec<VolumeId>,
    parameters: BTreeMap<String, String>,
}

impl Wanted {
    fn new(core: &Core, wire: csi::CreateVolumeGroupSnapshotRequest) -> Result<Self, Status> {
        let name = check::name(&wire.name)?;
        check::secrets(&wire.secrets)?;
        check_parameters(&core.config, &wire.parameters)?;
        if wire.source_volume_ids.is_empty() {
            return Err(Status::invalid_argument("source_volume_ids is required"));
        }
        let volumes: Vec<VolumeId> = wire
            .source_volume_ids
            .iter()
            .map(|id| check::source_volume_id(id))
            .collect::<Result<_, _>>()?;
        if volumes.iter().collect::<BTreeSet<_>>().len() != volumes.len() {
            return Err(Status::invalid_argument("source_volume_ids names a volume twice"));
        }
        Ok(Self {
            id: handle(&name),
            name,
            volumes,
            parameters: wire.parameters,
        })
    }

    fn members(&self) -> Vec<NewSnapshot> {
        let new = |volume: &VolumeId| NewSnapshot {
            id: member(&self.id, volume),
            volume: volume.clone(),
        };
        self.volumes.iter().map(new).collect()
    }
}

async fn create(
    core: &Arc<Core>,
    wire: csi::CreateVolumeGroupSnapshotRequest,
) -> Result<csi::VolumeGroupSnapshot, Status> {
    let wanted = Wanted::new(core, wire)?;
    core.ledger.mend().await?;
    let mut subjects = vec![(Subject::Group(wanted.id.clone()), Hold::Alone)];
    for new in wanted.members() {
        subjects.push((Subject::Snapshot(new.id), Hold::Alone));
        subjects.push((Subject::Volume(new.volume), Hold::Together));
    }
    let pass = core.gate.enter(&subjects)?;
    if let Some(answer) = repeat(core, &wanted)? {
        return Ok(answer);
    }
    let span = tracing::info_span!("CreateVolumeGroupSnapshot", group = %wanted.id);
    let work = cut(Arc::clone(core), wanted);
    operate(&core.runtime, pass, span, work).await
}

/// The answer to a request whose group is there and ready; `None` if it is not.
fn repeat(core: &Core, wanted: &Wanted) -> Result<Option<csi::VolumeGroupSnapshot>, Status> {
    core.ledger.read(|tables| {
        let group = tables.groups.get(&wanted.id);
        let Some(group) = group.filter(|group| group.phase == SnapshotPhase::Ready) else {
            return Ok(None);
        };
        let sources: BTreeSet<&VolumeId> = members(tables, group).map(|(_, record)| &record.volume).collect();
        let refuse = |what: &str| {
            let text = format!("a group named `{}` exists {what}", wanted.name);
            Err(Status::already_exists(text))
        };
        if sources != wanted.volumes.iter().collect() {
            return refuse("of other volumes");
        }
        if group.parameters != wanted.parameters {
            return refuse("with other parameters");
        }
        let is_ready = members(tables, group).all(|(_, record)| record.ready);
        Ok(is_ready.then(|| group_to_wire(&wanted.id, tables, group)))
    })
}

/// The snapshots of a group, in its order.
fn members<'a>(
    tables: &'a Tables,
    group: &'a GroupRecord,
) -> impl Iterator<Item = (&'a SnapshotId, &'a SnapshotRecord)> {
    group
        .snapshots
        .iter()
        .filter_map(|id| Some((id, tables.snapshots.get(id)?)))
}

fn group_to_wire(id: &GroupId, tables: &Tables, group: &GroupRecord) -> csi::VolumeGroupSnapshot {
    let last = members(tables, group).map(|(_, record)| record.cut_at).max();
    csi::VolumeGroupSnapshot {
        group_snapshot_id: id.as_str().to_owned(),
        snapshots: members(tables, group).map(|(id, record)| to_wire(id, record)).collect(),
        creation_time: last.map(timestamp),
        ready_to_use: members(tables, group).all(|(_, record)| record.ready),
    }
}

async fn cut(core: Arc<Core>, wanted: Wanted) -> Result<csi::VolumeGroupSnapshot, Status> {
    core.settle_group(&wanted.id).await?;
    if let Some(answer) = repeat(&core, &wanted)? {
        return Ok(answer);
    }
    let new = wanted.members();
    if core.group(&wanted.id).is_some() {
        return look_again(&core, &wanted.id).await;
    }
    let mut records = Vec::with_capacity(new.len());
    for one in &new {
        let source = cuttable(&core, &one.volume).await?;
        let record = SnapshotRecord {
            parameters: wanted.parameters.clone(),
            group: Some(wanted.id.clone()),
            ..intended(&one.volume, &source)
        };
        records.push((one.id.clone(), record));
    }
    let group = GroupRecord {
        phase: SnapshotPhase::Cutting,
        parameters: wanted.parameters.clone(),
        snapshots: records.iter().map(|(id, _)| id.clone()).collect(),
    };
    put(&core, &wanted.id, &group, records.clone()).await?;
    let leftover = Leftover::Group(wanted.id.clone());
    match core.pool.cut(&new).await {
        Ok(found) if found.len() == new.len() => finish(&core, &wanted.id, group, records, found).await,
        Ok(_) => {
            core.undo_cut(&leftover, false).await;
            Err(Status::internal("the pool answered without some of the snapshots"))
        }
        Err(error) => {
            core.undo_cut(&leftover, refuse::is_certain(error.kind)).await;
            Err(refuse::pool("cutting the snapshots", &error))
        }
    }
}

async fn finish(
    core: &Core,
    id: &GroupId,
    group: GroupRecord,
    records: Vec<(SnapshotId, SnapshotRecord)>,
    found: Vec<PoolSnapshot>,
) -> Result<csi::VolumeGroupSnapshot, Status> {
    let mut found: BTreeMap<SnapshotId, PoolSnapshot> =
        found.into_iter().map(|found| (found.id.clone(), found)).collect();
    let records = records
        .into_iter()
        .filter_map(|(id, record)| {
            let record = made(record, &found.remove(&id)?);
            Some((id, record))
        })
        .collect();
    let group = GroupRecord {
        phase: SnapshotPhase::Ready,
        ..group
    };
    put(core, id, &group, records).await?;
    Ok(core.ledger.read(|tables| group_to_wire(id, tables, &group)))
}

/// A group that was cut and was not ready when it was last looked at.
async fn look_again(core: &Core, id: &GroupId) -> Result<csi::VolumeGroupSnapshot, Status> {
    let group = core.group(id).ok_or_else(|| unknown(id))?;
    let mut changed = Vec::new();
    for snapshot in &group.snapshots {
        let found = core.pool.snapshot(snapshot).await;
        let found = found.map_err(|error| refuse::pool("looking for the snapshot", &error))?;
        if let (Some(record), Some(found)) = (core.snapshot(snapshot), found)
            && found.ready
            && !record.ready
        {
            changed.push((snapshot.clone(), made(record, &found)));
        }
    }
    if !changed.is_empty() {
        put(core, id, &group, changed).await?;
    }
    Ok(core.ledger.read(|tables| group_to_wire(id, tables, &group)))
}

async fn put(
    core: &Core,
    id: &GroupId,
    group: &GroupRecord,
    records: Vec<(SnapshotId, SnapshotRecord)>,
) -> Result<(), Status> {
    core.ledger
        .update(|draft| {
            draft.group(id, Some(group.clone()));
            for (id, record) in records {
                draft.snapshot(&id, Some(record));
            }
            Ok(())
        })
        .await
}

fn unknown(id: &GroupId) -> Status {
    Status::not_found(format!("group {id} does not exist"))
}

/// Are these the snapshots of the group?
fn refuse_others(id: &GroupId, group: &GroupRecord, named: &[String]) -> Result<(), Status> {
    let own: BTreeSet<&str> = group.snapshots.iter().map(SnapshotId::as_str).collect();
    let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    if own == named {
        return Ok(());
    }
    let text = format!("snapshot_ids are not those of group {id}");
    Err(Status::invalid_argument(text))
}

async fn delete(core: &Arc<Core>, wire: csi::DeleteVolumeGroupSnapshotRequest) -> Result<(), Status> {
    let id = check::group_id(&wire.group_snapshot_id)?;
    check::secrets(&wire.secrets)?;
    let mut subjects = vec![(Subject::Group(id.clone()), Hold::Alone)];
    let group = core.group(&id);
    for snapshot in group.iter().flat_map(|group| &group.snapshots) {
        subjects.push((Subject::Snapshot(snapshot.clone()), Hold::Alone));
    }
    let pass = core.gate.enter(&subjects)?;
    let span = tracing::info_span!("DeleteVolumeGroupSnapshot", group = %id);
    let work = discard(Arc::clone(core), id, wire.snapshot_ids);
    operate(&core.runtime, pass, span, work).await
}

async fn discard(core: Arc<Core>, id: GroupId, named: Vec<String>) -> Result<(), Status> {
    core.settle_group(&id).await?;
    let Some(group) = core.group(&id) else { return Ok(()) };
    refuse_others(&id, &group, &named)?;
    let leaving = GroupRecord {
        phase: SnapshotPhase::Deleting,
        ..group
    };
    let records = leaving.snapshots.iter().filter_map(|snapshot| {
        let record = core.snapshot(snapshot)?;
        let phase = SnapshotPhase::Deleting;
        Some((snapshot.clone(), SnapshotRecord { phase, ..record }))
    });
    let records = records.collect();
    put(&core, &id, &leaving, records).await?;
    let result = core.finish_group_deletion(&id).await;
    if result.is_err() {
        core.settle_later(Leftover::Group(id));
    }
    result
}

fn get(core: &Core, wire: &csi::GetVolumeGroupSnapshotRequest) -> Result<csi::VolumeGroupSnapshot, Status> {
    let id = check::group_id(&wire.group_snapshot_id)?;
    check::secrets(&wire.secrets)?;
    core.ledger.read(|tables| {
        let group = tables.groups.get(&id);
        let group = group.filter(|group| group.phase != SnapshotPhase::Cutting);
        let group = group.ok_or_else(|| unknown(&id))?;
        refuse_others(&id, group, &wire.snapshot_ids)?;
        Ok(group_to_wire(&id, tables, group))
    })
}

#[tonic::async_trait]
impl group_controller_server::GroupController for GroupController {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<csi::GroupControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::GroupControllerGetCapabilitiesResponse>, Status> {
        use csi::group_controller_service_capability::{Rpc as RpcMessage, Type};
        let rpc = Rpc::CreateDeleteGetVolumeGroupSnapshot;
        let capability = csi::GroupControllerServiceCapability {
            r#type: Some(Type::Rpc(RpcMessage { r#type: rpc.into() })),
        };
        let offered = self.0.config.group_snapshots;
        Ok(Response::new(csi::GroupControllerGetCapabilitiesResponse {
            capabilities: offered.then_some(capability).into_iter().collect(),
        }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<csi::CreateVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::CreateVolumeGroupSnapshotResponse>, Status> {
        self.is_offered("CreateVolumeGroupSnapshot")?;
        let group = create(&self.0, taken(request)).await?;
        Ok(Response::new(csi::CreateVolumeGroupSnapshotResponse {
            group_snapshot: Some(group),
        }))
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<csi::DeleteVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::DeleteVolumeGroupSnapshotResponse>, Status> {
        self.is_offered("DeleteVolumeGroupSnapshot")?;
        delete(&self.0, taken(request)).await?;
        Ok(Response::new(csi::DeleteVolumeGroupSnapshotResponse {}))
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<csi::GetVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::GetVolumeGroupSnapshotResponse>, Status> {
        self.is_offered("GetVolumeGroupSnapshot")?;
        let group = get(&self.0, &request.into_inner())?;
        Ok(Response::new(csi::GetVolumeGroupSnapshotResponse {
            group_snapshot: Some(group),
        }))
    }
}
