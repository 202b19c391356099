//! Changes the attributes of volumes: brings a claim from its current VolumeAttributesClass to the wanted one (fact sheet 7.6).
//!
//! ```text
//! begin ► Mark (InProgress) ► Announce ► [Secret] ► Modify ──ok──► MarkVolume ► MarkDone ► Tell ► done
//!     │                                      ▲        └─error─► MarkError ► Failed ► again
//!     ├─ uncertain: the old target ──────────┘
//!     ├─ no such class ► Missing ► MarkPending ► done
//!     └─ no wish any more ► Cancelled ► RollBack ► done
//! ```
//!
//! It has its own queue and workers beside [`super::expand`]: the driver can see both kinds of call for one volume at once. Own writes do not go into the store here, and
//! changes of the modification's status queue nothing: no pairs of calls (trace 22).
//!
//! *Blind spots.* None known; a Pending claim waits for its next change of class or a restart, as in the source.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret, SecretReference};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use tonic::Code;
use wavetank_proto::code::go_name;
use wavetank_proto::csi::v1 as csi;

use crate::api::{
    ApiError, Cache, Edit, EventRecord, ObjKey, Object, ObjectRef, Patch, Read, ReadAnswer, Resource, Write, fields,
    names,
};
use crate::control::{Effect, Learner, Outcome};
use crate::link::CallError;
use crate::runtime::Time;
use crate::sidecars::connect::{ControllerRpc, is_final};
use crate::sidecars::secret;

use super::status::{self, ModifyError, Status};
use super::{Key, Memory, Resizer};

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Missing {
        class: String,
        pending: bool,
    },
    MarkPending,
    Cancelled,
    RollBack,
    Mark,
    Announce,
    Secret(SecretReference),
    Modify,
    MarkVolume,
    MarkDone,
    Tell,
    MarkError(ModifyError),
    Failed {
        event: String,
        error: String,
    },
    /// With the reason to try again, if any.
    End(Option<String>),
}

/// A claim at work: claim, volume and class as the sync began or its own writes returned them, and how far it is.
pub(super) struct Modification {
    claim: Arc<PersistentVolumeClaim>,
    volume: Arc<PersistentVolume>,
    class: Option<Arc<VolumeAttributesClass>>,
    secrets: BTreeMap<String, String>,
    step: Step,
}

fn wanted(claim: &PersistentVolumeClaim) -> &str {
    let name = claim
        .spec
        .as_ref()
        .and_then(|s| s.volume_attributes_class_name.as_deref());
    name.unwrap_or_default()
}

/// Status and target of the modification under way.
fn under_way(claim: &PersistentVolumeClaim) -> Option<(&str, &str)> {
    let modify = claim.status.as_ref()?.modify_volume_status.as_ref()?;
    Some((
        &modify.status,
        modify
            .target_volume_attributes_class_name
            .as_deref()
            .unwrap_or_default(),
    ))
}

/// Whether a change of a claim is one that its modification waits for.
pub(super) fn wakes(cache: &Cache, old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> bool {
    let relevant = wanted(old) != wanted(new) || under_way(new).is_none();
    let volume = || cache.named::<PersistentVolume>(fields::claim_volume(old)).is_some();
    relevant && fields::claim_phase(new) == "Bound" && volume()
}

/// Whether a claim's modification was begun and not ended: after a restart nobody knows more.
pub(super) fn is_in_progress(claim: &PersistentVolumeClaim) -> bool {
    under_way(claim).is_some_and(|(status, _)| status == "InProgress")
}

/// Whether the claim's last wish was refused for good and it still has that wish.
fn is_refused(claim: &PersistentVolumeClaim) -> bool {
    under_way(claim).is_some_and(|(status, target)| status == "Infeasible" && target == wanted(claim))
}

/// Claim and volume, when a modification is wanted or under way.
type Pair = (Arc<PersistentVolumeClaim>, Arc<PersistentVolume>);

fn admit(cache: &Cache, memory: &Memory, key: &ObjKey, retention: Duration, now: Time) -> Result<Option<Pair>, String> {
    let Some(claim) = cache.get::<PersistentVolumeClaim>(key) else {
        return Ok(None);
    };
    let name = fields::claim_volume(claim);
    if name.is_empty() {
        return Ok(None);
    }
    let volume = cache.named::<PersistentVolume>(name);
    let volume =
        volume.ok_or_else(|| format!("Get PV {name:?} of pvc \"{key}\" in PVInformer cache failed: not found"))?;
    let discovered = &memory.connection.discovered;
    if fields::volume_driver(volume) != &*discovered.name || fields::claim_phase(claim) != "Bound" {
        return Ok(None);
    }
    let same_wish = under_way(claim).is_some_and(|(_, target)| {
        claim
            .spec
            .as_ref()
            .is_some_and(|s| s.volume_attributes_class_name.as_deref() == Some(target))
    });
    let slow = memory
        .modify_slow
        .get(key)
        .is_some_and(|since| now.since(*since) < retention);
    if same_wish && slow {
        return Err(format!(
            "skipping volume modification for pvc {key}, because modification previously failed with infeasible error"
        ));
    }
    let current = claim
        .status
        .as_ref()
        .and_then(|s| s.current_volume_attributes_class_name.as_deref());
    if under_way(claim).is_none() && wanted(claim) == current.unwrap_or_default() {
        return Ok(None);
    }
    let settled = wanted(claim).is_empty() && !is_in_progress(claim);
    if settled && !claim.status.as_ref().is_some_and(status::is_modifying) {
        return Ok(None);
    }
    Ok(Some((Arc::clone(claim), Arc::clone(volume))))
}

/// The next effect for a claim.
pub(super) fn decide(site: &Resizer, cache: &Cache, memory: &Memory, key: &ObjKey, now: Time) -> Effect {
    if let Some(modification) = memory.modifications.get(key) {
        return modification.decide(site, now);
    }
    if !site.modifies(&memory.connection.discovered) {
        return Effect::Rest;
    }
    match admit(cache, memory, key, site.flags.retry_interval_max, now) {
        Ok(Some(_)) => Effect::Note("begin"),
        Ok(None) => Effect::Rest,
        Err(message) => Effect::Retry(message.into()),
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
        let admitted = admit(then.cache, memory, key, site.flags.retry_interval_max, then.now);
        let (claim, volume) = admitted.ok().flatten().expect("decide has just admitted it");
        memory.modify_slow.remove(key);
        if is_refused(&claim) {
            memory.modify_slow.insert(key.clone(), then.now);
        }
        let step = Step::End(None);
        let mut modification = Modification {
            claim,
            volume,
            class: None,
            secrets: BTreeMap::new(),
            step,
        };
        modification.step = modification.begin(memory, then.cache, key);
        memory.modifications.insert(key.clone(), modification);
        return;
    }
    let mut modification = memory
        .modifications
        .remove(key)
        .expect("an effect belongs to a modification");
    modification.step = modification.next(memory, key, outcome, then.now);
    memory.modifications.insert(key.clone(), modification);
}

impl Modification {
    fn begin(&mut self, memory: &Memory, cache: &Cache, key: &ObjKey) -> Step {
        let in_progress = is_in_progress(&self.claim);
        if wanted(&self.claim).is_empty() && !in_progress {
            return Step::Cancelled;
        }
        let goes_on = in_progress && (memory.uncertain.contains(key) || wanted(&self.claim).is_empty());
        let target = under_way(&self.claim).filter(|_| goes_on).map(|(_, target)| target);
        let name = target.unwrap_or(wanted(&self.claim));
        match cache.named::<VolumeAttributesClass>(name) {
            None => Step::Missing {
                class: name.to_owned(),
                pending: !goes_on,
            },
            Some(class) => {
                self.class = Some(Arc::clone(class));
                if goes_on { self.prepare() } else { Step::Mark }
            }
        }
    }

    /// Announced, or going on: the secret first.
    fn prepare(&self) -> Step {
        let annotation = |name| fields::annotation(&self.volume.metadata, name).filter(|v| !v.is_empty());
        let noted = annotation(names::MODIFY_SECRET_NAME).zip(annotation(names::MODIFY_SECRET_NAMESPACE));
        let own = noted.map(|(name, namespace)| SecretReference {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
        });
        let source = self.volume.spec.as_ref().and_then(|s| s.csi.as_ref());
        match own.or_else(|| source.and_then(|s| s.controller_expand_secret_ref.clone())) {
            Some(reference) => Step::Secret(reference),
            None => Step::Modify,
        }
    }

    fn decide(&self, site: &Resizer, now: Time) -> Effect {
        let time = site.clock.time(now);
        let claim = PersistentVolumeClaim::into_object(Arc::clone(&self.claim));
        let normal = |reason, message: String| Effect::Record(EventRecord::normal(&claim, reason, message));
        let warning = |message: String| Effect::Record(EventRecord::warning(&claim, "VolumeModifyFailed", message));
        let name = fields::name(&self.claim.metadata);
        match &self.step {
            Step::Missing { class, .. } => warning(format!("VAC {class:?} does not exist.")),
            Step::MarkPending => self.patch_claim(status::modify_pending(&self.status()), true),
            Step::Cancelled => normal("VolumeModifyCanceled", "Cancelled modify.".into()),
            Step::RollBack => self.patch_claim(status::rolled_back(&self.status()), false),
            Step::Mark => self.patch_claim(status::modifying(&self.status(), wanted(&self.claim), &time), true),
            Step::Announce => {
                let class = self.class_name();
                normal(
                    "VolumeModify",
                    format!("external resizer is modifying volume {name} with vac {class}"),
                )
            }
            Step::Secret(reference) => Effect::Read(Read::Get(secret::target(reference))),
            Step::Modify => self.call(site),
            Step::MarkVolume => {
                let target = ObjectRef::to::<PersistentVolume>(&self.volume.key());
                let edit = Edit::VolumeAttributesClass(Some(self.target().to_owned()));
                Effect::write(Write::Patch(Patch::new(target, vec![edit])))
            }
            Step::MarkDone => self.patch_claim(status::modified(&self.status(), self.target()), false),
            Step::Tell => {
                let class = self.class_name();
                let message = format!("external resizer modified volume {name} with vac {class} successfully");
                normal("VolumeModifySuccessful", message)
            }
            Step::MarkError(error) => self.patch_claim(status::modify_failed(&self.status(), error, &time), true),
            Step::Failed { event, .. } => warning(event.clone()),
            Step::End(None) => Effect::Rest,
            Step::End(Some(message)) => Effect::Retry(Cow::Owned(message.clone())),
        }
    }

    fn status(&self) -> Status {
        self.claim.status.clone().unwrap_or_default()
    }

    fn class_name(&self) -> &str {
        self.class.as_ref().map_or("", |c| fields::name(&c.metadata))
    }

    /// The class that the claim's status says is being applied.
    fn target(&self) -> &str {
        under_way(&self.claim).map_or("", |(_, target)| target)
    }

    fn patch_claim(&self, to: Status, checked: bool) -> Effect {
        let target = ObjectRef::to::<PersistentVolumeClaim>(&self.claim.key());
        let edit = Edit::MergeClaimStatus {
            from: Box::new(self.status()),
            to: Box::new(to),
        };
        let patch = Patch::status(target, vec![edit]);
        let version = crate::api::version(&self.claim.metadata);
        Effect::write(Write::Patch(if checked { patch.at_version(version) } else { patch }))
    }

    fn call(&self, site: &Resizer) -> Effect {
        let class = self.class.as_ref().and_then(|c| c.parameters.clone());
        let mut mutable_parameters = class.unwrap_or_default();
        if site.flags.extra_modify_metadata {
            let metadata = [
                ("csi.storage.k8s.io/pvc/name", fields::name(&self.claim.metadata)),
                (
                    "csi.storage.k8s.io/pvc/namespace",
                    fields::namespace(&self.claim.metadata),
                ),
                ("csi.storage.k8s.io/pv/name", fields::name(&self.volume.metadata)),
            ];
            mutable_parameters.extend(metadata.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        site.dial.call(csi::ControllerModifyVolumeRequest {
            volume_id: fields::volume_handle(&self.volume)
                .map_or("", |(_, handle)| handle)
                .to_owned(),
            secrets: self.secrets.clone(),
            mutable_parameters,
        })
    }

    fn next(&mut self, memory: &mut Memory, key: &ObjKey, outcome: &Outcome, now: Time) -> Step {
        match self.step.clone() {
            Step::Missing { pending: true, .. } => Step::MarkPending,
            Step::Missing { class, pending: false } => Step::End(Some(format!(
                "get VAC with vac name {class} in VACInformer cache failed: not found"
            ))),
            Step::Cancelled => Step::RollBack,
            Step::MarkPending | Step::RollBack => match outcome.written() {
                Ok(_) => Step::End(None),
                Err(error) => Step::End(Some(format!(
                    "mark PVC {key} as modify volume failed, errored with: {error}"
                ))),
            },
            Step::Mark => match self.take_claim(outcome) {
                Ok(()) => Step::Announce,
                Err(error) => Step::End(Some(format!(
                    "mark PVC {key} as modify volume failed, errored with: {error}"
                ))),
            },
            Step::Announce => self.prepare(),
            Step::Secret(reference) => match outcome.read() {
                Ok(ReadAnswer::Object(Object::Secret(found))) => {
                    let found: &Secret = found;
                    self.secrets = secret::credentials(found);
                    Step::Modify
                }
                Ok(_) => unreachable!("a GET of a secret answers with one"),
                Err(error) => {
                    let why = secret::missing(&reference, error);
                    Step::End(Some(format!("cannot get error status from modify volume err: {why}")))
                }
            },
            Step::Modify => match outcome.reply() {
                Ok(_) => Step::MarkVolume,
                Err(error) => refused(memory, key, error),
            },
            Step::MarkVolume => self.after_completion(outcome, Step::MarkDone),
            Step::MarkDone => self.after_completion(outcome, Step::Tell),
            Step::Tell => Step::End(None),
            Step::MarkError(error) => match self.take_claim(outcome) {
                Ok(()) => self.marked_error(memory, key, &error, now),
                Err(write) => Step::End(Some(write.to_string())),
            },
            Step::Failed { error, .. } => Step::End(Some(error)),
            Step::End(_) => unreachable!("nothing comes after the end"),
        }
    }

    fn take_claim<'o>(&mut self, outcome: &'o Outcome) -> Result<(), &'o ApiError> {
        let claim = outcome.written()?.object.get::<PersistentVolumeClaim>();
        self.claim = Arc::clone(claim.expect("a patch of a claim returns it"));
        Ok(())
    }

    fn after_completion(&self, outcome: &Outcome, next: Step) -> Step {
        match outcome.written() {
            Ok(_) => next,
            Err(error) => {
                let name = fields::name(&self.claim.metadata);
                Step::End(Some(format!(
                    "modify volume failed to mark pvc {name} modify volume completed: {error}"
                )))
            }
        }
    }

    fn marked_error(&self, memory: &mut Memory, key: &ObjKey, error: &ModifyError, now: Time) -> Step {
        if error.infeasible {
            memory.modify_slow.entry(key.clone()).or_insert(now);
        }
        let text = format!("rpc error: code = {} desc = {}", error.code, error.message);
        let still = format!(". Still modifying to VAC {}", self.class_name());
        let event = if error.is_final {
            text.clone()
        } else {
            format!("{text}{still}")
        };
        Step::Failed { event, error: text }
    }
}

/// The driver refused, or may still be at it.
fn refused(memory: &mut Memory, key: &ObjKey, error: &CallError) -> Step {
    let code = error.code();
    if is_final(code) {
        memory.uncertain.remove(key);
    } else {
        memory.uncertain.insert(key.clone());
    }
    Step::MarkError(ModifyError {
        code: go_name(code),
        message: error.status.message().to_owned(),
        is_final: is_final(code),
        infeasible: code == Code::InvalidArgument,
    })
}

impl Resizer {
    /// Whether the driver modifies volumes, and the gate lets it.
    pub(super) fn modifies(&self, discovered: &crate::sidecars::connect::Discovered) -> bool {
        let gate = self
            .flags
            .feature_gates
            .get("VolumeAttributesClass")
            .copied()
            .unwrap_or(true);
        gate && discovered.controller(ControllerRpc::ModifyVolume)
    }
}
