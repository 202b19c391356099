//! `CreateVolume`: one name, one volume, one answer for ever.
//!
//! The handle is derived from the name, so that a repeat after a lost answer, even one that reaches a driver without
//! its ledger, finds the volume it made. The answer is kept with the volume: what happens to it later (an expansion, a
//! change of its settings) never changes what the same request is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::Core;
use super::{modify, wrong};
use crate::check::{self, Capability, Form};
use crate::config::{Config, StorageType};
use crate::gate::{Hold, Subject, operate};
use crate::pool::{NewVolume, PoolErrorKind, PoolVolume, Source};
use crate::quirk::Quirk;
use crate::records::{VolumePhase, VolumeRecord, VolumeRequest};
use crate::refuse;
use crate::units::{Bytes, FsKind, Segments, VolumeId};

/// The parameter that chooses the storage type.
const TYPE: &str = "type";
/// Keys with this prefix are the cluster's own.
const CLUSTER_PREFIX: &str = "csi.storage.k8s.io/";

/// The handle of the volume called `name`.
pub(crate) fn handle(name: &str) -> VolumeId {
    let digest = blake3::hash(name.as_bytes()).to_hex();
    VolumeId::new(format!("vol-{}", &digest[..32]))
}

pub(super) async fn call(core: &Arc<Core>, wire: csi::CreateVolumeRequest) -> Result<csi::Volume, Status> {
    let wanted = parse(&core.config, wire)?;
    let id = if core.has(Quirk::NameLookupRaces) {
        wrong::look_up(core, &wanted.name)
    } else {
        handle(&wanted.name)
    };
    let mut subjects = vec![(Subject::Volume(id.clone()), Hold::Alone)];
    match &wanted.source {
        Some(Source::Volume(source)) if *source == id => {
            return Err(Status::invalid_argument("a volume cannot be its own source"));
        }
        Some(Source::Volume(source)) => subjects.push((Subject::Volume(source.clone()), Hold::Together)),
        Some(Source::Snapshot(source)) => subjects.push((Subject::Snapshot(source.clone()), Hold::Together)),
        None => {}
    }
    if core.has(Quirk::RetryAnsweredByQuota) {
        wrong::ask_quota(core, &wanted)?;
    }
    let span = tracing::info_span!("CreateVolume", volume = %id);
    if core.has(Quirk::CreateLoserDeletesWinner) {
        let work = wrong::create_and_wait(Arc::clone(core), id, wanted);
        return operate(&core.runtime, core.gate.enter(&[])?, span, work).await;
    }
    let pass = core.gate.enter(&subjects)?;
    if let Some(answer) = repeat(core, &id, &wanted)? {
        return Ok(answer);
    }
    let work = create(Arc::clone(core), id, wanted);
    operate(&core.runtime, pass, span, work).await
}

fn parse(config: &Config, wire: csi::CreateVolumeRequest) -> Result<VolumeRequest, Status> {
    let name = check::name(&wire.name)?;
    let capabilities = check::capabilities(&wire.volume_capabilities)?;
    for capability in &capabilities {
        check::is_offered(config, capability).map_err(Status::invalid_argument)?;
    }
    if capabilities
        .iter()
        .any(|one| one.form.is_block() != capabilities[0].form.is_block())
    {
        return Err(Status::invalid_argument("a volume is either block or mount, not both"));
    }
    let range = check::range(wire.capacity_range.as_ref())?;
    check::secrets(&wire.secrets)?;
    check_parameters(config, &wire.parameters)?;
    modify::check_settings(config, &wire.mutable_parameters)?;
    let source = check::source(wire.volume_content_source.as_ref())?;
    match &source {
        Some(Source::Volume(_)) if !config.clone => {
            return Err(Status::invalid_argument("this driver copies no volumes"));
        }
        Some(Source::Snapshot(_)) if !config.snapshots => {
            return Err(Status::invalid_argument("this driver restores no snapshots"));
        }
        Some(_) | None => {}
    }
    let kind = config.storage_type(type_name(config, &wire.parameters));
    if kind.encrypted
        && let Some(shared) = capabilities.iter().find(|one| is_shared(one, source.is_some()))
    {
        let text = format!("an encrypted volume is never offered for {}", shared.mode.as_str());
        return Err(Status::invalid_argument(text));
    }
    let places = check::places(wire.accessibility_requirements.as_ref())?;
    Ok(VolumeRequest {
        name,
        range,
        capabilities,
        parameters: wire.parameters,
        settings: wire.mutable_parameters,
        source,
        places: if config.topology { places } else { Vec::new() },
    })
}

/// Would several nodes meet in an encrypted volume? They could only read one whose layer was made before: a copy.
fn is_shared(capability: &Capability, is_copy: bool) -> bool {
    capability.mode.is_multi_node() && !(is_copy && capability.mode.is_read_only())
}

/// Are these parameters of a class that the driver serves?
pub(super) fn check_parameters(config: &Config, parameters: &BTreeMap<String, String>) -> Result<(), Status> {
    check::map("parameters", parameters)?;
    if !config.strict_parameters {
        return Ok(());
    }
    for (key, value) in parameters {
        if key == TYPE && !config.types.contains_key(value) {
            let known: Vec<&str> = config.types.keys().map(String::as_str).collect();
            let text = format!("parameter type `{value}` is unknown: use {}", known.join(" or "));
            return Err(Status::invalid_argument(text));
        }
        if key != TYPE && !key.starts_with(CLUSTER_PREFIX) {
            return Err(Status::invalid_argument(format!("parameter `{key}` is unknown")));
        }
    }
    Ok(())
}

/// The name of the storage type that the parameters choose.
pub(super) fn type_name<'a>(config: &'a Config, parameters: &'a BTreeMap<String, String>) -> &'a str {
    match parameters.get(TYPE) {
        Some(name) if config.types.contains_key(name) => name,
        _ => &config.default_type,
    }
}

/// The answer to a request whose volume is there already; `None` if it is not, or not at rest.
pub(super) fn repeat(core: &Core, id: &VolumeId, wanted: &VolumeRequest) -> Result<Option<csi::Volume>, Status> {
    let Some(record) = core.record(id) else { return Ok(None) };
    if record.phase != VolumePhase::Ready {
        return Ok(None);
    }
    if let Some(difference) = difference(&record, wanted) {
        let text = format!("a volume named `{}` exists with other {difference}", wanted.name);
        return Err(Status::already_exists(text));
    }
    if wanted.source.is_some() && core.has(Quirk::CloneRetryRefused) {
        return Err(Status::already_exists(format!("volume {id} exists")));
    }
    let mut answer = core.to_wire(id, &record, record.created_size);
    if core.has(Quirk::CloneAnswerDropsSource) {
        answer.content_source = None;
    }
    if core.has(Quirk::RetryDropsTopology) {
        answer.accessible_topology.clear();
    }
    Ok(Some(answer))
}

/// In what the volume differs from what is wanted; `None` if it will do.
fn difference(record: &VolumeRecord, wanted: &VolumeRequest) -> Option<&'static str> {
    if !wanted.range.holds(record.created_size) {
        return Some("capacity");
    }
    let Some(made) = &record.request else {
        return wanted.source.is_some().then_some("content");
    };
    if made == wanted {
        return None;
    }
    if made.source != wanted.source {
        return Some("content source");
    }
    if made.parameters != wanted.parameters {
        return Some("parameters");
    }
    if made.settings != wanted.settings {
        return Some("mutable parameters");
    }
    if made.capabilities[0].form.is_block() != wanted.capabilities[0].form.is_block()
        || (needs_sharing(&wanted.capabilities) && !record.shared)
    {
        return Some("capabilities");
    }
    let fits = |place: &Segments| place.iter().all(|(key, value)| record.segments.get(key) == Some(value));
    if !wanted.places.is_empty() && !record.segments.is_empty() && !wanted.places.iter().any(fits) {
        return Some("topology");
    }
    None
}

/// Will several nodes mount one file system?
fn needs_sharing(capabilities: &[Capability]) -> bool {
    capabilities
        .iter()
        .any(|one| !one.form.is_block() && one.mode.is_multi_node())
}

/// The file system that the pool must make, because several nodes will mount it.
fn shared_fs(config: &Config, wanted: &VolumeRequest) -> Option<FsKind> {
    if wanted.source.is_some() || !needs_sharing(&wanted.capabilities) {
        return None;
    }
    let asked = wanted.capabilities.iter().find_map(|one| match one.form {
        Form::Mount { fs, .. } => fs,
        Form::Block => None,
    });
    Some(asked.unwrap_or(config.default_fs))
}

/// The size of a new volume, no smaller than what it is copied from.
fn size(config: &Config, kind: &StorageType, wanted: &VolumeRequest, at_least: Bytes) -> Result<Bytes, Status> {
    let out_of_range = |text: String| Err(Status::out_of_range(text));
    let range = wanted.range;
    let asked = match (range.required, at_least) {
        (Bytes(0), Bytes(0)) => config.default_size.min(range.limit.unwrap_or(config.default_size)),
        (required, at_least) => required.max(at_least),
    };
    let unit = config.allocation_unit;
    let Some(mut size) = asked.max(kind.min_size).round_up(unit) else {
        return out_of_range(format!("{asked} is more than any volume can hold"));
    };
    if range.required.0 == 0 && at_least.0 == 0 && range.limit.is_some_and(|limit| size > limit) {
        size = size
            .min(range.limit.unwrap_or(size))
            .round_down(unit)
            .max(kind.min_size);
    }
    if let Some(limit) = range.limit.filter(|limit| size > *limit) {
        return out_of_range(format!(
            "the smallest volume that will do has {size}, more than the limit of {limit}"
        ));
    }
    if size > kind.max_size {
        return out_of_range(format!(
            "{size} is more than the {} that a volume of this type may have",
            kind.max_size
        ));
    }
    Ok(size)
}

async fn create(core: Arc<Core>, id: VolumeId, wanted: VolumeRequest) -> Result<csi::Volume, Status> {
    core.settle_volume(&id).await?;
    if let Some(answer) = repeat(&core, &id, &wanted)? {
        return Ok(answer);
    }
    let size = size_of(&core, &wanted).await?;
    let found = core
        .pool
        .get(&id)
        .await
        .map_err(|error| refuse::pool("looking for the volume", &error))?;
    if let Some(volume) = found {
        return adopt(&core, &id, wanted, volume).await;
    }
    let record = intended(&core, wanted, size);
    put(&core, &id, &record).await?;
    if core.has(Quirk::CloneSnapshotLeft) {
        wrong::cut_for_copy(&core, &id, &record).await?;
    }
    match make(&core, &id, &record).await {
        Ok(volume) => {
            finish(
                &core,
                &id,
                VolumeRecord {
                    size: volume.size,
                    segments: volume.segments,
                    ..record
                },
            )
            .await
        }
        Err(refusal) if !refusal.is_certain && core.has(Quirk::CreateLeaksOnDoubt) => {
            core.forget(&id).await?;
            Err(Status::internal(refusal.status.message()))
        }
        Err(refusal) => {
            core.undo_creation(&id, refusal.is_certain).await;
            let is_full = refusal.status.code() == tonic::Code::ResourceExhausted;
            if is_full && core.has(Quirk::FullMeansOutOfRange) {
                return Err(Status::out_of_range(refusal.status.message()));
            }
            Err(refusal.status)
        }
    }
}

/// How large the volume will be.
pub(super) async fn size_of(core: &Core, wanted: &VolumeRequest) -> Result<Bytes, Status> {
    let kind = core.config.storage_type(type_name(&core.config, &wanted.parameters));
    let at_least = source_size(core, wanted).await?;
    size(&core.config, kind, wanted, at_least)
}

/// The record of a volume that is about to be made.
pub(super) fn intended(core: &Core, wanted: VolumeRequest, size: Bytes) -> VolumeRecord {
    let name = type_name(&core.config, &wanted.parameters);
    VolumeRecord {
        phase: VolumePhase::Creating,
        created_size: size,
        size,
        segments: Segments::new(),
        context: if core.config.context_from_parameters {
            wanted.parameters.clone()
        } else {
            BTreeMap::new()
        },
        settings: wanted.settings.clone(),
        kind: name.to_owned(),
        shared: needs_sharing(&wanted.capabilities),
        encrypted: core.config.storage_type(name).encrypted,
        request: Some(wanted),
    }
}

async fn put(core: &Core, id: &VolumeId, record: &VolumeRecord) -> Result<(), Status> {
    core.ledger
        .update(|draft| {
            draft.volume(id, Some(record.clone()));
            Ok(())
        })
        .await
}

pub(super) async fn finish(core: &Core, id: &VolumeId, record: VolumeRecord) -> Result<csi::Volume, Status> {
    let record = VolumeRecord {
        phase: VolumePhase::Ready,
        created_size: record.size,
        ..record
    };
    put(core, id, &record).await?;
    Ok(core.to_wire(id, &record, record.created_size))
}

/// The pool has the volume although the ledger does not know it: the driver lost its ledger, or the handle is taken.
async fn adopt(core: &Core, id: &VolumeId, wanted: VolumeRequest, volume: PoolVolume) -> Result<csi::Volume, Status> {
    let kind = core.config.storage_type(type_name(&core.config, &wanted.parameters));
    if !wanted.range.holds(volume.size) || volume.source != wanted.source || volume.encrypted != kind.encrypted {
        return Err(Status::already_exists(format!(
            "the pool has a different volume of the handle {id}"
        )));
    }
    let record = VolumeRecord {
        context: if core.config.context_from_parameters {
            wanted.parameters.clone()
        } else {
            BTreeMap::new()
        },
        settings: wanted.settings.clone(),
        kind: type_name(&core.config, &wanted.parameters).to_owned(),
        shared: needs_sharing(&wanted.capabilities),
        request: Some(wanted),
        ..core.adopt(volume)
    };
    finish(core, id, record).await
}

/// The size of what is to be copied; nothing if there is none.
async fn source_size(core: &Core, wanted: &VolumeRequest) -> Result<Bytes, Status> {
    let (is_block, is_encrypted, size) = match &wanted.source {
        None => return Ok(Bytes(0)),
        Some(Source::Volume(source)) => {
            let (record, _) = core.find(source).await?;
            if record.phase == VolumePhase::Deleting {
                return Err(Status::not_found(format!("volume {source} is being deleted")));
            }
            let request = record.request.as_ref();
            let is_block = request.map(|request| request.capabilities[0].form.is_block());
            (is_block, record.encrypted, record.size)
        }
        Some(Source::Snapshot(source)) => {
            let record = core.whole_snapshot(source)?;
            if !record.ready {
                return Err(Status::unavailable(format!("snapshot {source} is not ready yet")));
            }
            (record.block, record.encrypted, record.size)
        }
    };
    if is_block.is_some_and(|is_block| is_block != wanted.capabilities[0].form.is_block()) {
        return Err(Status::invalid_argument(
            "the copy of a block volume is a block volume, of a mount volume a mount one",
        ));
    }
    let kind = core.config.storage_type(type_name(&core.config, &wanted.parameters));
    if is_encrypted != kind.encrypted {
        return Err(Status::invalid_argument(
            "the copy of an encrypted volume is encrypted, of a plain one plain: choose a type to match",
        ));
    }
    Ok(size)
}

/// Why no volume was made.
pub(super) struct Refusal {
    pub(super) status: Status,
    /// Nothing happened in the pool, for certain.
    is_certain: bool,
}

/// Asks the pool, place after place, best first.
pub(super) async fn make(core: &Core, id: &VolumeId, record: &VolumeRecord) -> Result<PoolVolume, Refusal> {
    let wanted = record
        .request
        .as_ref()
        .expect("a volume that is being created was asked for");
    let anywhere = [Segments::new()];
    let places = if wanted.places.is_empty() {
        &anywhere[..]
    } else {
        &wanted.places[..]
    };
    let mut last = None;
    for place in places {
        let new = NewVolume {
            id: id.clone(),
            size: record.size,
            kind: record.kind.clone(),
            provisioning: core.config.storage_type(&record.kind).provisioning,
            segments: place.clone(),
            source: wanted.source.clone(),
            encrypted: record.encrypted,
            shared_fs: shared_fs(&core.config, wanted),
            settings: wanted.settings.clone(),
        };
        match core.pool.create(&new).await {
            Ok(volume) => return Ok(volume),
            Err(error) => {
                let is_certain = refuse::is_certain(error.kind);
                let elsewhere = matches!(error.kind, PoolErrorKind::NoSpace | PoolErrorKind::NoSuchPlace);
                last = Some(Refusal {
                    status: refuse::pool("making the volume", &error),
                    is_certain,
                });
                if !elsewhere {
                    break;
                }
            }
        }
    }
    Err(last.expect("there is at least one place to try"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Mode, SizeRange};

    fn wanted(required: u64, limit: Option<u64>) -> VolumeRequest {
        VolumeRequest {
            name: "v".to_owned(),
            range: SizeRange {
                required: Bytes(required),
                limit: limit.map(Bytes),
            },
            capabilities: vec![Capability {
                form: Form::Block,
                mode: Mode::SingleNodeWriter,
                group: None,
            }],
            parameters: BTreeMap::new(),
            settings: BTreeMap::new(),
            source: None,
            places: Vec::new(),
        }
    }

    fn sized(required: u64, limit: Option<u64>, at_least: u64) -> Result<u64, tonic::Code> {
        let config = Config::default();
        let kind = StorageType {
            max_size: Bytes::gi(10),
            ..StorageType::default()
        };
        size(&config, &kind, &wanted(required, limit), Bytes(at_least))
            .map(|size| size.0)
            .map_err(|s| s.code())
    }

    const MI: u64 = Bytes::MI.0;

    #[test]
    fn sizes_round_up_within_the_range() {
        assert_eq!(sized(5 * MI, None, 0), Ok(5 * MI));
        assert_eq!(sized(5 * MI + 1, None, 0), Ok(6 * MI));
        assert_eq!(sized(0, None, 0), Ok(1024 * MI), "the default size");
        assert_eq!(sized(0, Some(7 * MI + 5), 0), Ok(7 * MI), "as much as the limit allows");
        assert_eq!(sized(1, None, 0), Ok(MI), "the smallest volume");
        assert_eq!(sized(0, None, 3 * MI), Ok(3 * MI), "a copy is as large as its source");
        assert_eq!(sized(MI, None, 3 * MI), Ok(3 * MI), "and never smaller");
    }

    #[test]
    fn impossible_sizes_are_out_of_range() {
        let out = Err(tonic::Code::OutOfRange);
        assert_eq!(
            sized(5 * MI + 1, Some(5 * MI + 2), 0),
            out,
            "no multiple of the unit in between"
        );
        assert_eq!(sized(0, Some(5), 0), out, "below the smallest volume");
        assert_eq!(sized(11 * 1024 * MI, None, 0), out, "above the largest volume");
        assert_eq!(sized(i64::MAX as u64, None, 0), out, "beyond the wire");
        assert_eq!(
            sized(MI, Some(2 * MI), 3 * MI),
            out,
            "the source does not fit the limit"
        );
    }

    #[test]
    fn handles_depend_on_the_name_alone() {
        assert_eq!(handle("pvc-1"), handle("pvc-1"));
        assert_ne!(handle("pvc-1"), handle("pvc-2"));
        assert_eq!(handle("pvc-1").as_str().len(), 36);
    }
}
