//! Grows claims: asks the driver for a larger volume, then hands the claim to its node (fact sheet 7.3).
//!
//! ```text
//! begin ► [DropAnnotation] ► Mark ► Announce ► [Secret] ► Capabilities ► Expand ──ok──► MarkVolume ► Finish ► Tell ► done
//!                              └ in use, once refused for it ► Failed ► again       └─error─► [MarkError] ► Failed ► again
//! ```
//!
//! The phase is read off the claim's `allocatedResourceStatuses`, so that a resizer that restarts resumes where it says. Own writes go straight into the informers'
//! store; their watch event then looks like a resync and **queues the claim once more, outside the back-off**: errors come in pairs (trace 08), until a
//! write changes no byte.
//!
//! *Blind spots.* Migration from in-tree plugins. The 10-minute resync is not replayed: every claim that it would find has an event or a back-off of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret, SecretReference};
use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use crate::api::{
    ApiError, Cache, Edit, EventRecord, Index, ObjKey, Object, ObjectRef, Patch, Read, ReadAnswer, Resource, Write,
    fields, names, quantity,
};
use crate::control::{Effect, Learner, Outcome};
use crate::link::{CallError, CsiReply};
use crate::mutants::Wrong;
use crate::runtime::Time;
use crate::sidecars::capability;
use crate::sidecars::connect::{Discovered, describe, is_final};
use crate::sidecars::secret;

use super::status::{self, Status};
use super::{Key, Kind, Memory, Resizer};

#[derive(Clone, Debug, PartialEq)]
enum Step {
    DropAnnotation,
    Mark,
    InUse,
    Announce,
    Secret(SecretReference),
    Capabilities,
    Expand,
    MarkVolume { size: u64, node: bool },
    Finish { size: u64, node: bool },
    Tell { node: bool },
    MarkError { error: String, infeasible: bool },
    Failed(String),
    End(End),
}

#[derive(Clone, Debug, PartialEq)]
enum End {
    Done,
    Again(String),
    At(Time, String),
}

/// A claim at work: claim and volume as the sync began or its own writes returned them, and how far it is.
pub(super) struct Expansion {
    claim: Arc<PersistentVolumeClaim>,
    volume: Arc<PersistentVolume>,
    target: u64,
    update: bool,
    secrets: BTreeMap<String, String>,
    multi_writer: bool,
    step: Step,
}

/// What decides about the size.
#[derive(Clone, Copy, Debug)]
struct Sizes<'a> {
    request: u64,
    volume: u64,
    allocated: Option<u64>,
    status: &'a str,
    /// This process saw a final error for the claim.
    final_error: bool,
    /// The driver expands in its controller.
    controller: bool,
    /// Condition FileSystemResizePending.
    node_pending: bool,
}

impl Sizes<'_> {
    /// The size to expand to; `None` when there is nothing to do.
    fn target(self) -> Option<u64> {
        let Sizes {
            request,
            volume,
            allocated,
            status,
            ..
        } = self;
        let last = allocated.unwrap_or(request);
        match status {
            status::NODE_PENDING | status::NODE_IN_PROGRESS => (volume < request && volume < last).then_some(last),
            status::NODE_INFEASIBLE if volume < request || self.controller => Some(last),
            status::NODE_INFEASIBLE => Some(request),
            status::CONTROLLER_IN_PROGRESS if volume < request && self.final_error => Some(request),
            status::CONTROLLER_IN_PROGRESS => Some(last),
            _ if volume < request => Some(request),
            status::CONTROLLER_INFEASIBLE => Some(last),
            _ if allocated.is_some() => allocated,
            _ => (!self.node_pending).then_some(request),
        }
    }
}

/// What a sync would do now.
enum Plan {
    Nothing,
    Again(String),
    At(Time, String),
    DropAnnotation,
    Expand { target: u64, update: bool },
}

struct Pair {
    claim: Arc<PersistentVolumeClaim>,
    volume: Arc<PersistentVolume>,
}

/// The claim of a key and its volume.
fn pair(cache: &Cache, key: &ObjKey) -> Result<Option<Pair>, String> {
    let Some(claim) = cache.get::<PersistentVolumeClaim>(key) else {
        return Ok(None);
    };
    let name = fields::claim_volume(claim);
    if name.is_empty() {
        return Ok(None);
    }
    let volume = cache.named::<PersistentVolume>(name);
    let volume = volume.ok_or_else(|| format!("PV {name:?} bound to pvc \"{key}\" not found"))?;
    Ok(Some(Pair {
        claim: Arc::clone(claim),
        volume: Arc::clone(volume),
    }))
}

impl Pair {
    fn plan(&self, memory: &Memory, key: &ObjKey, retention: std::time::Duration, now: Time) -> Plan {
        let noted = fields::annotation(&self.volume.metadata, names::PRE_RESIZE_CAPACITY).is_some();
        if noted && fields::claim_capacity(&self.claim) >= fields::volume_capacity(&self.volume) {
            return Plan::DropAnnotation;
        }
        self.plan_expansion(memory, key, retention, now)
    }

    fn plan_expansion(&self, memory: &Memory, key: &ObjKey, retention: std::time::Duration, now: Time) -> Plan {
        let claim = &self.claim;
        let discovered = &memory.connection.discovered;
        let grows = fields::claim_request(claim) > fields::claim_capacity(claim);
        if fields::claim_phase(claim) != "Bound" || !grows || !self.is_ours(discovered) {
            return Plan::Nothing;
        }
        let allocated = fields::claim_allocated(claim);
        let sizes = Sizes {
            request: fields::claim_request(claim),
            volume: fields::volume_capacity(&self.volume),
            allocated,
            status: fields::claim_resize_status(claim),
            final_error: memory.final_errors.contains(key),
            controller: Kind::of(discovered) == Kind::Csi,
            node_pending: claim.status.as_ref().is_some_and(status::is_node_pending),
        };
        let Some(target) = sizes.target() else {
            return Plan::Nothing;
        };
        let update = allocated != Some(target);
        match memory.slow.get(key).map(|since| *since + retention) {
            Some(until) if !update && now < until => Plan::At(
                until,
                format!(
                    "skipping volume expansion for pvc {key}, because expansion previously failed with infeasible error"
                ),
            ),
            _ => Plan::Expand { target, update },
        }
    }

    fn is_ours(&self, discovered: &Discovered) -> bool {
        let claimed = fields::volume_claim(&self.volume)
            .is_some_and(|r| r.uid == self.claim.metadata.uid && r.namespace == self.claim.metadata.namespace);
        claimed && fields::volume_driver(&self.volume) == &*discovered.name
    }
}

/// The next effect for a claim.
pub(super) fn decide(site: &Resizer, cache: &Cache, memory: &Memory, key: &ObjKey, now: Time) -> Effect {
    if let Some(expansion) = memory.expansions.get(key) {
        return expansion.decide(site, memory, now);
    }
    if Kind::of(&memory.connection.discovered) == Kind::None {
        return Effect::Rest;
    }
    let plan = match pair(cache, key) {
        Ok(Some(pair)) => pair.plan(memory, key, site.flags.retry_interval_max, now),
        Ok(None) => Plan::Nothing,
        Err(message) => Plan::Again(message),
    };
    match plan {
        Plan::Nothing => Effect::Rest,
        Plan::Again(message) => Effect::Retry(message.into()),
        Plan::At(at, message) => Effect::RetryAt(at, message.into()),
        Plan::DropAnnotation | Plan::Expand { .. } => Effect::Note("begin"),
    }
}

/// What it taught.
pub(super) fn learn(
    site: &Resizer,
    memory: &mut Memory,
    key: &ObjKey,
    effect: &Effect,
    outcome: &Outcome,
    then: &mut Learner<'_, Key>,
) {
    if matches!(effect, Effect::Note(_)) {
        let pair = pair(then.cache, key)
            .ok()
            .flatten()
            .expect("decide has just found them");
        let drop = matches!(
            pair.plan(memory, key, site.flags.retry_interval_max, then.now),
            Plan::DropAnnotation
        );
        let mut expansion = Expansion {
            claim: pair.claim,
            volume: pair.volume,
            target: 0,
            update: false,
            secrets: BTreeMap::new(),
            multi_writer: false,
            step: Step::DropAnnotation,
        };
        if !drop {
            expansion.step = expansion.begin(site, memory, key, then.now);
        }
        memory.expansions.insert(key.clone(), expansion);
        return;
    }
    let mut expansion = memory
        .expansions
        .remove(key)
        .expect("an effect belongs to an expansion");
    expansion.step = expansion.next(site, memory, key, outcome, then);
    memory.expansions.insert(key.clone(), expansion);
}

/// Where a GET of a claim's object goes.
fn again(message: impl Into<String>) -> Step {
    Step::End(End::Again(message.into()))
}

impl Expansion {
    fn decide(&self, site: &Resizer, memory: &Memory, now: Time) -> Effect {
        let time = site.clock.time(now);
        let claim = PersistentVolumeClaim::into_object(Arc::clone(&self.claim));
        match &self.step {
            Step::DropAnnotation => self.patch_volume(vec![Edit::Annotation(names::PRE_RESIZE_CAPACITY.into(), None)]),
            Step::Mark => {
                let marked = status::resizing(&self.status(), self.target, self.update, &time);
                self.patch_claim(marked, self.not_required(None), true)
            }
            Step::InUse => {
                let message = self.in_use_message(&memory.connection.discovered);
                Effect::Record(EventRecord::warning(&claim, "VolumeResizeFailed", message))
            }
            Step::Announce => {
                let message = format!("External resizer is resizing volume {}", self.volume_name());
                Effect::Record(EventRecord::normal(&claim, "Resizing", message))
            }
            Step::Secret(reference) => Effect::Read(Read::Get(secret::target(reference))),
            Step::Capabilities => site.dial.call(csi::ControllerGetCapabilitiesRequest {}),
            Step::Expand => self.call(site),
            Step::MarkVolume { size, node } => {
                let mut edits = vec![Edit::VolumeCapacity(*size)];
                if *node && fields::annotation(&self.volume.metadata, names::PRE_RESIZE_CAPACITY).is_none() {
                    let before = quantity::format_bytes(fields::claim_capacity(&self.claim));
                    edits.push(Edit::Annotation(names::PRE_RESIZE_CAPACITY.into(), Some(before)));
                }
                self.patch_volume(edits)
            }
            Step::Finish { node: true, .. } => self.patch_claim(
                status::node_pending(&self.status(), &time),
                self.not_required(None),
                true,
            ),
            Step::Finish { size, node: false } => self.patch_claim(
                status::finished(&self.status(), *size),
                self.not_required(Some("true")),
                true,
            ),
            Step::Tell { node: true } => {
                let message = "Require file system resize of volume on node";
                Effect::Record(EventRecord::normal(&claim, "FileSystemResizeRequired", message))
            }
            Step::Tell { node: false } => Effect::Record(EventRecord::normal(
                &claim,
                "VolumeResizeSuccessful",
                "Resize volume succeeded",
            )),
            Step::MarkError { error, infeasible } => self.patch_claim(
                status::failed(&self.status(), error, *infeasible, &time),
                Vec::new(),
                false,
            ),
            Step::Failed(message) => {
                Effect::Record(EventRecord::warning(&claim, "VolumeResizeFailed", message.clone()))
            }
            Step::End(End::Done) => Effect::Rest,
            Step::End(End::Again(_)) if site.flags.wrong == Some(Wrong::ForgetsExpansion) => Effect::Rest,
            Step::End(End::Again(message)) => Effect::Retry(Cow::Owned(message.clone())),
            Step::End(End::At(at, message)) => Effect::RetryAt(*at, Cow::Owned(message.clone())),
        }
    }

    fn status(&self) -> Status {
        self.claim.status.clone().unwrap_or_default()
    }

    fn volume_name(&self) -> &str {
        fields::name(&self.volume.metadata)
    }

    fn in_use_message(&self, discovered: &Discovered) -> String {
        let (key, driver) = (self.claim.key(), &discovered.name);
        format!(
            "Unable to expand {key} because CSI driver {driver} only supports offline expansion and volume is currently in-use"
        )
    }

    /// Sets or removes the annotation that keeps kubelet from expanding, where that changes something.
    fn not_required(&self, value: Option<&str>) -> Vec<Edit> {
        let there = fields::annotation(&self.claim.metadata, names::NODE_EXPANSION_NOT_REQUIRED);
        let edit = || Edit::Annotation(names::NODE_EXPANSION_NOT_REQUIRED.into(), value.map(str::to_owned));
        if there.is_some() == value.is_some() {
            Vec::new()
        } else {
            vec![edit()]
        }
    }

    fn patch_claim(&self, to: Status, mut edits: Vec<Edit>, checked: bool) -> Effect {
        let target = ObjectRef::to::<PersistentVolumeClaim>(&self.claim.key());
        edits.insert(
            0,
            Edit::MergeClaimStatus {
                from: Box::new(self.status()),
                to: Box::new(to),
            },
        );
        let patch = Patch::status(target, edits);
        let version = crate::api::version(&self.claim.metadata);
        Effect::write(Write::Patch(if checked { patch.at_version(version) } else { patch }))
    }

    fn patch_volume(&self, edits: Vec<Edit>) -> Effect {
        let target = ObjectRef::to::<PersistentVolume>(&self.volume.key());
        Effect::write(Write::Patch(Patch::new(target, edits)))
    }

    fn call(&self, site: &Resizer) -> Effect {
        let capability = capability::of_volume(&self.volume, "", self.multi_writer);
        site.dial.call(csi::ControllerExpandVolumeRequest {
            volume_id: fields::volume_handle(&self.volume)
                .map_or("", |(_, handle)| handle)
                .to_owned(),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: i64::try_from(self.target).unwrap_or(i64::MAX),
                limit_bytes: 0,
            }),
            secrets: self.secrets.clone(),
            volume_capability: Some(capability.expect("checked before this step")),
        })
    }

    /// The annotation is dealt with: which size, and may it be tried?
    fn begin(&mut self, site: &Resizer, memory: &mut Memory, key: &ObjKey, now: Time) -> Step {
        let pair = Pair {
            claim: Arc::clone(&self.claim),
            volume: Arc::clone(&self.volume),
        };
        let plan = pair.plan_expansion(memory, key, site.flags.retry_interval_max, now);
        if fields::claim_resize_status(&self.claim) == status::CONTROLLER_INFEASIBLE {
            memory.mark_slow(key, site.flags.retry_interval_max, now);
        }
        match plan {
            Plan::Expand { target, update } => {
                (self.target, self.update) = (target, update);
                Step::Mark
            }
            Plan::At(at, message) => Step::End(End::At(at, message)),
            Plan::Again(message) => again(message),
            Plan::Nothing | Plan::DropAnnotation => Step::End(End::Done),
        }
    }

    fn next(
        &mut self,
        site: &Resizer,
        memory: &mut Memory,
        key: &ObjKey,
        outcome: &Outcome,
        then: &mut Learner<'_, Key>,
    ) -> Step {
        match self.step.clone() {
            Step::DropAnnotation => match outcome.written() {
                // The sync goes on with the volume as it was.
                Ok(written) => {
                    then.cache.put(written.object.clone());
                    self.begin(site, memory, key, then.now)
                }
                Err(error) => again(format!(
                    "failed removing annotation {} from pv {:?}: {error}",
                    names::PRE_RESIZE_CAPACITY,
                    self.volume_name()
                )),
            },
            Step::Mark => match self.take_claim(outcome, then) {
                Ok(()) => self.marked(site, memory, then.cache),
                Err(error) => again(format!("marking pvc \"{key}\" as resizing failed: {error}")),
            },
            Step::InUse => again(self.in_use_message(&memory.connection.discovered)),
            Step::Announce => {
                memory.in_use_errors.remove(fields::uid(&self.claim.metadata));
                self.resize(&memory.connection.discovered)
            }
            Step::Secret(reference) => match outcome.read() {
                Ok(ReadAnswer::Object(Object::Secret(found))) => {
                    let found: &Secret = found;
                    self.secrets = secret::credentials(found);
                    Step::Capabilities
                }
                Ok(_) => unreachable!("a GET of a secret answers with one"),
                Err(error) => self.uncertain(memory, key, &secret::missing(&reference, error)),
            },
            Step::Capabilities => self.with_capabilities(memory, key, outcome.reply()),
            Step::Expand => match self.expanded(memory, key, outcome.reply()) {
                Step::MarkVolume { size, .. } if site.flags.wrong == Some(Wrong::SkipsNode) => {
                    Step::MarkVolume { size, node: false }
                }
                step => step,
            },
            Step::MarkVolume { size, node } => self.marked_volume(size, node, outcome, then),
            Step::Finish { node, .. } => match self.take_claim(outcome, then) {
                Ok(()) => Step::Tell { node },
                Err(error) if node => {
                    Step::Failed(format!("mark PVC \"{key}\" as node expansion required failed: {error}"))
                }
                Err(error) => Step::Failed(format!("mark PVC \"{key}\" as resize finished failed: {error}")),
            },
            Step::Tell { .. } => Step::End(End::Done),
            Step::MarkError { error, .. } => match self.take_claim(outcome, then) {
                Ok(()) => Step::Failed(self.resize_failed(&memory.connection.discovered, &error)),
                Err(write) => Step::Failed(format!(
                    "resizing failed in controller with {error} but failed to update PVC {key} with: {write}"
                )),
            },
            Step::Failed(message) => again(message),
            Step::End(_) => unreachable!("nothing comes after the end"),
        }
    }

    /// The claim that an own write returned becomes the working copy, and goes into the store.
    ///
    /// The answer to a write is faster than its watch event as a rule, so that the event finds the same version and looks like a resync. Where the event was faster
    /// here, the wake-up that it would have been is made up for.
    fn take_claim<'o>(&mut self, outcome: &'o Outcome, then: &mut Learner<'_, Key>) -> Result<(), &'o ApiError> {
        let written = outcome.written()?;
        let claim = written.object.get::<PersistentVolumeClaim>();
        self.claim = Arc::clone(claim.expect("a patch of a claim returns it"));
        let key = self.claim.key();
        let known = then
            .cache
            .get::<PersistentVolumeClaim>(&key)
            .map(|c| crate::api::version(&c.metadata));
        if written.changed && known == Some(written.object.version()) {
            then.queue.add(Key::Resize(key));
        }
        then.cache.put(written.object.clone());
        Ok(())
    }

    fn marked(&self, site: &Resizer, memory: &Memory, cache: &Cache) -> Step {
        let refused = memory.in_use_errors.contains(fields::uid(&self.claim.metadata));
        if refused && site.flags.handle_volume_inuse_error && self.is_used(cache) {
            return Step::InUse;
        }
        Step::Announce
    }

    /// Whether a pod that has not run to its end names the claim. Generic ephemeral volumes do not count.
    fn is_used(&self, cache: &Cache) -> bool {
        let key = self.claim.key();
        let mut pods = cache.by::<Pod>(Index::PodsByClaim, &key.to_string());
        pods.any(|pod| {
            let mut claims = fields::pod_claims(pod);
            !fields::is_terminated(pod) && claims.any(|c| !c.ephemeral && *c.claim == *key.name)
        })
    }

    fn resize(&self, discovered: &Discovered) -> Step {
        if Kind::of(discovered) == Kind::Trivial {
            return Step::MarkVolume {
                size: self.target,
                node: true,
            };
        }
        let source = self.volume.spec.as_ref().and_then(|s| s.csi.as_ref());
        match source.and_then(|s| s.controller_expand_secret_ref.clone()) {
            Some(reference) => Step::Secret(reference),
            None => Step::Capabilities,
        }
    }

    fn with_capabilities(&mut self, memory: &mut Memory, key: &ObjKey, reply: Result<&CsiReply, &CallError>) -> Step {
        let name = self.volume_name().to_owned();
        let failed = |why: String| format!("failed to get capabilities of volume {name} with {why}");
        match reply {
            Ok(reply) => {
                self.multi_writer = super::has_multi_writer(reply);
                match capability::of_volume(&self.volume, "", self.multi_writer) {
                    Ok(_) => Step::Expand,
                    Err(why) => self.uncertain(memory, key, &failed(why)),
                }
            }
            Err(error) => self.uncertain(memory, key, &failed(describe(&error.status))),
        }
    }

    fn resize_failed(&self, discovered: &Discovered, error: &str) -> String {
        let (volume, driver) = (self.volume_name(), &discovered.name);
        format!("resize volume {volume:?} by resizer \"{driver}\" failed: {error}")
    }

    /// The driver may still be at it, or was never asked: nothing is written, and the same size is tried again.
    fn uncertain(&self, memory: &mut Memory, key: &ObjKey, error: &str) -> Step {
        memory.slow.remove(key);
        memory.final_errors.remove(key);
        Step::Failed(self.resize_failed(&memory.connection.discovered, error))
    }

    fn expanded(&self, memory: &mut Memory, key: &ObjKey, reply: Result<&CsiReply, &CallError>) -> Step {
        let error = match reply {
            Ok(CsiReply::ControllerExpandVolume(reply)) => {
                memory.final_errors.remove(key);
                memory.slow.remove(key);
                let size = u64::try_from(reply.capacity_bytes).unwrap_or(0);
                return Step::MarkVolume {
                    size,
                    node: reply.node_expansion_required,
                };
            }
            Ok(other) => unreachable!("ControllerExpandVolume is not answered by {}", other.message_name()),
            Err(error) => error,
        };
        if error.code() == Code::FailedPrecondition {
            memory
                .in_use_errors
                .insert(fields::uid(&self.claim.metadata).to_owned());
        }
        let text = describe(&error.status);
        if !is_final(error.code()) {
            return self.uncertain(memory, key, &text);
        }
        memory.final_errors.insert(key.clone());
        let infeasible = matches!(error.code(), Code::InvalidArgument | Code::OutOfRange | Code::NotFound);
        if !infeasible {
            memory.slow.remove(key);
        }
        Step::MarkError {
            error: text,
            infeasible,
        }
    }

    fn marked_volume(&mut self, size: u64, node: bool, outcome: &Outcome, then: &mut Learner<'_, Key>) -> Step {
        match outcome.written() {
            Ok(written) => {
                let volume = written.object.get::<PersistentVolume>();
                self.volume = Arc::clone(volume.expect("a patch of a volume returns it"));
                then.cache.put(written.object.clone());
                Step::Finish { size, node }
            }
            Err(error) => {
                let (name, size) = (self.volume_name(), quantity::format_bytes(size));
                Step::Failed(format!(
                    "error updating pv {name:?} by resizer: updating capacity of PV {name:?} to {size} failed: {error}"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sizes;

    /// The request is 30 and 20 are allocated.
    fn sizes(status: &'static str, volume: u64) -> Sizes<'static> {
        Sizes {
            request: 30,
            volume,
            allocated: Some(20),
            status,
            final_error: false,
            controller: true,
            node_pending: false,
        }
    }

    fn check(table: &[(Sizes<'_>, Option<u64>)]) {
        for (sizes, expected) in table {
            assert_eq!(sizes.target(), *expected, "{sizes:?}");
        }
    }

    #[test]
    fn a_volume_smaller_than_the_request_grows_as_in_the_table() {
        // Fact sheet 7.3; `None`: nothing to do until the node is done.
        let failed = Sizes {
            final_error: true,
            ..sizes("ControllerResizeInProgress", 10)
        };
        let fresh = Sizes {
            allocated: None,
            ..sizes("NodeResizeInfeasible", 10)
        };
        check(&[
            (sizes("NodeResizeInfeasible", 10), Some(20)),
            (sizes("NodeResizePending", 10), Some(20)),
            (sizes("NodeResizePending", 20), None),
            (sizes("NodeResizeInProgress", 25), None),
            (sizes("ControllerResizeInProgress", 10), Some(20)),
            (failed, Some(30)),
            (sizes("ControllerResizeInfeasible", 10), Some(30)),
            (sizes("", 10), Some(30)),
            (fresh, Some(30)),
        ]);
    }

    #[test]
    fn a_volume_that_is_large_enough_is_finished_as_in_the_table() {
        // Fact sheet 7.3.
        let on_node = Sizes {
            controller: false,
            ..sizes("NodeResizeInfeasible", 30)
        };
        let failed = Sizes {
            final_error: true,
            ..sizes("ControllerResizeInProgress", 30)
        };
        let fresh = Sizes {
            allocated: None,
            ..sizes("", 30)
        };
        check(&[
            (sizes("NodeResizePending", 30), None),
            (sizes("NodeResizeInProgress", 40), None),
            (sizes("NodeResizeInfeasible", 30), Some(20)),
            (on_node, Some(30)),
            (sizes("ControllerResizeInProgress", 30), Some(20)),
            (failed, Some(20)),
            (sizes("ControllerResizeInfeasible", 30), Some(20)),
            (sizes("", 30), Some(20)),
            (fresh, Some(30)),
            (
                Sizes {
                    node_pending: true,
                    ..fresh
                },
                None,
            ),
        ]);
    }
}
