//! The sites that a run met, in the spelling of scenarios: where a fault may be pinned.
//!
//! A call is met by its caller, an API write by its writer. (A crash may be pinned to a call in the name of the driver's process, too: `driver-controller`
//! for `provisioner`; that is the same site and not listed twice.) What the user does and what recorders write is no site.
//!
//! [`SiteBook`] counts and names for both sides: for the list of a run that is over, and for the cluster that waits for a pinned site. It knows at each
//! moment what the trace has told until then and nothing more, so that both give the same effect the same name and the same number.
//!
//! A name is one that a scenario can write: the claim behind a volume whose name a run made up (`pv data`, `va data`), the snapshot behind its content;
//! everything else by its own name. Whatever once had a name keeps it when it is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::lore::Lore;
use super::{Record, Trace, What};
use crate::api::{Kind, ObjKey, Object, ObjectRef, Write, fields};
use crate::cluster::USER;
use crate::link::CsiRequest;
use crate::scenario::effects::{OF_CALL, OF_WRITE};
use crate::scenario::{DEFAULT_NAMESPACE, Phase, PlainPhase, Process, Role, Site, made_up};

/// Whose effect, which effect, on what.
type Place = (String, String, String);

/// Names effects and counts them.
#[derive(Debug, Default)]
pub struct SiteBook {
    lore: Lore,
    read: usize,
    counts: BTreeMap<Place, u32>,
}

/// An effect that is met: under each of its names the number that it has there. The first name is the one that is listed.
#[derive(Clone, Debug, Default)]
pub struct Met {
    places: Vec<(Place, u32)>,
}

impl Met {
    /// Whether nothing counts it: no fault can strike it.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Its first name: process, effect, object, and the number that it has there.
    pub fn first(&self) -> Option<(&str, &str, &str, u32)> {
        let ((process, effect, object), attempt) = self.places.first()?;
        Some((process, effect, object, *attempt))
    }

    /// Its first name as an effect of this process: effect, object, and the number that it has there.
    pub fn of(&self, process: &str) -> Option<(&str, &str, u32)> {
        let mut places = self.places.iter();
        let ((_, effect, object), attempt) = places.find(|((by, ..), _)| by == process)?;
        Some((effect, object, *attempt))
    }

    /// The other process that it belongs to.
    pub fn callee(&self) -> Option<&str> {
        let (by, ..) = self.first()?;
        let mut others = self.places.iter().map(|((process, ..), _)| process.as_str());
        others.find(|process| *process != by)
    }

    /// Whether this is the effect of a site, its phase aside. `process` is the name of the site's process in the cluster.
    pub fn is(&self, process: &str, site: &Site) -> bool {
        let mut same = self.places.iter().filter(|(place, _)| is_at(place, process, site));
        same.any(|(_, attempt)| *attempt == site.attempt)
    }
}

fn is_at((by, effect, object): &Place, process: &str, site: &Site) -> bool {
    by == process && *effect == site.effect && *object == site.object
}

impl SiteBook {
    /// Learns what the trace tells since the last time.
    pub fn read(&mut self, records: &[Record]) {
        for record in &records[self.read..] {
            self.lore.take(record);
        }
        self.read = records.len();
    }

    /// A call begins, sent by the first of the processes and answered by the others.
    pub fn call(&mut self, processes: &[&str], request: &CsiRequest) -> Met {
        let objects = objects_of_call(request, &self.lore);
        self.meet(processes, request.method(), &objects)
    }

    /// A write begins.
    pub fn write(&mut self, process: &str, write: &Write) -> Met {
        let objects = objects_of_write(write, &self.lore);
        self.meet(&[process], write.verb(), &objects)
    }

    /// How often the effect of a site has begun, its attempt and phase aside.
    pub fn so_far(&self, process: &str, site: &Site) -> u32 {
        let place = (process.to_owned(), site.effect.clone(), site.object.clone());
        self.counts.get(&place).copied().unwrap_or(0)
    }

    fn count(&mut self, process: &str, site: &Site) {
        let place = (process.to_owned(), site.effect.clone(), site.object.clone());
        *self.counts.entry(place).or_default() += 1;
    }

    fn meet(&mut self, processes: &[&str], effect: &str, objects: &[String]) -> Met {
        let mut met = Met::default();
        for process in processes {
            for object in objects {
                let place = ((*process).to_owned(), effect.to_owned(), object.clone());
                let count = self.counts.entry(place.clone()).or_default();
                *count += 1;
                met.places.push((place, *count));
            }
        }
        met
    }
}

/// Every site of a run in the order in which they were first met.
pub fn sites(trace: &Trace) -> Vec<Site> {
    let mut book = SiteBook::default();
    let mut sites = Vec::new();
    let replied: BTreeSet<u64> = trace.records().iter().filter_map(reply_to).collect();
    for (nth, record) in trace.records().iter().enumerate() {
        book.read(&trace.records()[..nth]);
        let (met, phases) = match &record.what {
            What::Call { id, call } => {
                // The run may have ended before the answer came.
                let phases = if replied.contains(id) {
                    &OF_CALL[..]
                } else {
                    &OF_CALL[..2]
                };
                (book.call(&[&record.process], &call.request), phases)
            }
            What::Write { write, .. } if &*record.process != USER && write.target().kind != Kind::Event => {
                (book.write(&record.process, write), &OF_WRITE[..])
            }
            What::Fault(text) => {
                cut_off(text).inspect(|site| book.count(&record.process, site));
                continue;
            }
            _ => continue,
        };
        let Some(((process, effect, object), attempt)) = met.places.into_iter().next() else {
            continue;
        };
        let Ok(process) = Process::parse(&process) else {
            continue;
        };
        sites.extend(phases.iter().map(|phase| Site {
            process: process.clone(),
            effect: effect.clone(),
            object: object.clone(),
            attempt,
            phase: Phase::Plain(*phase),
        }));
    }
    sites
}

/// The site of a crash that struck before its effect began: of such an effect there is no record, but it counts. The crash of a bystander cuts nothing off.
fn cut_off(text: &str) -> Option<Site> {
    let (victim, site) = text.strip_prefix("crash ")?.split_once(" at ")?;
    let victim = Process::parse(victim.split_once(" for ").map_or(victim, |(victim, _)| victim)).ok()?;
    let site = Site::parse(site).ok()?;
    let begun = [Phase::Plain(PlainPhase::BeforeSend), Phase::Plain(PlainPhase::Before)];
    let falls = victim == site.process || (victim.role == Role::Node && victim.node == site.process.node);
    (falls && begun.contains(&site.phase)).then_some(site)
}

fn reply_to(record: &Record) -> Option<u64> {
    match &record.what {
        What::Reply { id, .. } => Some(*id),
        _ => None,
    }
}

/// The names under which a scenario may speak of the object of a call: the claim, the volume, or the pod whose inline volume it is.
fn objects_of_call(request: &CsiRequest, lore: &Lore) -> Vec<String> {
    let mut names = Vec::new();
    let snapshot = match request {
        CsiRequest::CreateSnapshot(request) => lore.snapshot_by_name(&request.name),
        CsiRequest::DeleteSnapshot(request) => lore.snapshot_of_handle(&request.snapshot_id),
        _ => None,
    };
    names.extend(snapshot.map(|key| spelled(Kind::VolumeSnapshot, key)));
    let claim = match request {
        CsiRequest::CreateVolume(_) => lore.claim_of_request(request),
        other => other.volume_id().and_then(|handle| lore.latest_claim_of_handle(handle)),
    };
    names.extend(claim.map(|key| spelled(Kind::PersistentVolumeClaim, key)));
    names.extend(claim.map(|key| spelled(Kind::PersistentVolume, key)));
    for volume in request
        .volume_id()
        .into_iter()
        .flat_map(|handle| lore.volumes_of_handle(handle))
    {
        names.push(spelled(Kind::PersistentVolume, &ObjKey::cluster(volume.as_str())));
    }
    let path = match request {
        CsiRequest::NodePublishVolume(request) => Some(&request.target_path),
        CsiRequest::NodeUnpublishVolume(request) => Some(&request.target_path),
        _ => None,
    };
    if names.is_empty() {
        let pod = path.and_then(|path| lore.pod_of_path(path));
        names.extend(pod.map(|key| spelled(Kind::Pod, key)));
    }
    names
}

/// The names under which a scenario may speak of the object of a write: the one behind a name that the run made up, and its own.
fn objects_of_write(write: &Write, lore: &Lore) -> Vec<String> {
    let target = write.target();
    let created = match write {
        Write::Create(object) => Some(object),
        _ => None,
    };
    let own = spelled(target.kind, &target.key);
    if !made_up(target.kind, &target.key.name) {
        return vec![own];
    }
    let behind = behind(&target, created, lore).map(|key| spelled(target.kind, &key));
    behind.into_iter().chain([own]).collect()
}

/// Whom an object with a made-up name serves.
fn behind(target: &ObjectRef, created: Option<&Object>, lore: &Lore) -> Option<ObjKey> {
    let name = &*target.key.name;
    match (target.kind, created) {
        (Kind::PersistentVolume, Some(Object::PersistentVolume(volume))) => fields::volume_claim_key(volume),
        (Kind::PersistentVolume, _) => lore.claim_of_volume(name).cloned(),
        (Kind::VolumeAttachment, Some(Object::VolumeAttachment(attachment))) => {
            Some(claim_or_volume(fields::attachment_volume(attachment), lore))
        }
        (Kind::VolumeAttachment, _) => lore.attachment(name).map(|(volume, _)| claim_or_volume(volume, lore)),
        (Kind::VolumeSnapshotContent, Some(Object::VolumeSnapshotContent(content))) => {
            let about = &content.spec.volume_snapshot_ref;
            let (namespace, name) = (about.namespace.as_deref(), about.name.as_deref());
            Some(ObjKey::new(namespace.unwrap_or_default(), name.unwrap_or_default()))
        }
        (Kind::VolumeSnapshotContent, _) => lore.snapshot_of_content(name).cloned(),
        _ => None,
    }
}

/// The claim behind a volume that the run named; the volume itself if the scenario named it.
fn claim_or_volume(volume: &str, lore: &Lore) -> ObjKey {
    let own = || ObjKey::cluster(volume);
    if made_up(Kind::PersistentVolume, volume) {
        lore.claim_of_volume(volume).cloned().unwrap_or_else(own)
    } else {
        own()
    }
}

/// Names in sites are whole: they are read back.
fn spelled(kind: Kind, key: &ObjKey) -> String {
    if key.namespace.is_empty() || &*key.namespace == DEFAULT_NAMESPACE {
        format!("{} {}", kind.short(), key.name)
    } else {
        format!("{} {key}", kind.short())
    }
}

/// The site that was probably meant by one that was never met: most parts equal, the others near.
pub fn nearest_site<'a>(wanted: &Site, met: &'a [Site]) -> Option<&'a Site> {
    let cost = |site: &Site| {
        let differ = |a: bool, weight: u32| if a { 0 } else { weight };
        differ(site.effect == wanted.effect, 8)
            + differ(site.object == wanted.object, 6)
            + differ(site.process == wanted.process, 5)
            + differ(site.phase == wanted.phase, 2)
            + site.attempt.abs_diff(wanted.attempt).min(1)
    };
    let driver_free = |site: &Site| site.attempt.abs_diff(wanted.attempt);
    met.iter().min_by_key(|site| (cost(site), driver_free(site)))
}
