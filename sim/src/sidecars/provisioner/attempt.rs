//! The steps of one attempt to provision a claim: what each asks of the API server or the driver, and where its answer leads. The order is drawn in
//! [`super::claim`], which starts attempts and keeps what outlives them.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret, SecretReference};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use tonic::Code;
use wavetank_proto::csi::v1 as csi;

use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::api::{
    ApiError, Cache, EventRecord, ObjKey, Object, ObjectRef, Read, ReadAnswer, Resource, Write, fields, names,
};
use crate::control::{Effect, Outcome};
use crate::link::{Call, CallError, CsiReply, Socket};
use crate::mutants::Wrong;
use crate::runtime::Time;
use crate::sidecars::connect::{Discovered, PluginService, describe};
use crate::sidecars::secret;

use super::Provisioner;
use super::claim::{selected_node, success};
use super::request::{self, Draft, Provisioned, Refusal, Source, Unready, class_of_attributes};
use super::secrets::Purpose;
use super::source::Asker;
use super::topology::{Query, Remembered, Trouble};

/// What is known about the volume when an attempt failed (fact sheet 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is under way any more.
    Finished,
    /// CreateVolume may still be running: it must be repeated until the answer is final.
    InBackground,
    /// CreateVolume was not called: as before.
    NoChange,
    /// Another node might do.
    Reschedule,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub state: State,
    pub message: String,
    pub infeasible: bool,
}

fn fails(state: State, message: impl Into<String>) -> Failure {
    Failure {
        state,
        message: message.into(),
        infeasible: false,
    }
}

/// Where an attempt stands.
#[derive(Clone)]
pub(super) enum Step {
    Announce,
    Populator,
    SourceVolume {
        source: Arc<PersistentVolumeClaim>,
        volume: ObjKey,
    },
    Snapshot(ObjKey),
    Content {
        snapshot: Arc<VolumeSnapshot>,
        content: ObjKey,
    },
    ProtectClaim(Arc<PersistentVolumeClaim>),
    ProtectLook(ObjKey),
    ProtectSnapshot(Arc<VolumeSnapshot>),
    Secret(SecretReference),
    Attributes(ObjKey),
    Create,
    Cleanup {
        volume_id: String,
        left: u32,
        until: Time,
        message: String,
    },
    ReleaseLook {
        snapshot: ObjKey,
        volume: Arc<PersistentVolume>,
    },
    Release {
        snapshot: Arc<VolumeSnapshot>,
        volume: Arc<PersistentVolume>,
    },
    Save(Arc<PersistentVolume>),
    Saved(Arc<PersistentVolume>),
    Failed(Failure),
    Reschedule(String),
    /// With the reason to try again, if any.
    End(Option<String>),
}

/// An attempt: the claim and class that it began with, and how far it is.
pub(super) struct Attempt {
    pub claim: Arc<PersistentVolumeClaim>,
    pub class: Arc<StorageClass>,
    draft: Draft,
    pub step: Step,
}

/// What a step may look at.
pub(super) struct At<'a> {
    pub site: &'a Provisioner,
    pub cache: &'a Cache,
    pub discovered: &'a Discovered,
    pub remembered: &'a mut Remembered,
    pub now: Time,
}

impl At<'_> {
    fn topology(&self) -> bool {
        self.site.supports_topology(self.discovered)
    }
}

fn object<T: Resource>(value: &Arc<T>) -> Object {
    T::into_object(Arc::clone(value))
}

fn get<T: Resource>(key: &ObjKey) -> Effect {
    Effect::Read(Read::Get(ObjectRef::to::<T>(key)))
}

/// The object of a GET.
fn got<T: Resource>(outcome: &Outcome) -> Result<Arc<T>, &ApiError> {
    match outcome.read()? {
        ReadAnswer::Object(object) => Ok(Arc::clone(object.get().expect("a GET answers with the kind asked for"))),
        ReadAnswer::List(_) => unreachable!("a GET is not answered by a list"),
    }
}

impl Attempt {
    /// An attempt that has done nothing yet.
    pub(super) fn new(claim: Arc<PersistentVolumeClaim>, class: Arc<StorageClass>) -> Attempt {
        Attempt {
            claim,
            class,
            draft: Draft::default(),
            step: Step::Announce,
        }
    }

    /// The effect of the current step.
    pub(super) fn decide(&self, site: &Provisioner, cache: &Cache, now: Time) -> Effect {
        let claim = || object(&self.claim);
        match &self.step {
            Step::Announce => {
                let claim_key = self.claim.key();
                let message = format!("External provisioner is provisioning volume for claim \"{claim_key}\"");
                Effect::Record(EventRecord::normal(&claim(), "Provisioning", message))
            }
            Step::Populator => {
                let message = "Assuming an external populator will provision the volume";
                Effect::Record(EventRecord::normal(&claim(), "Provisioning", message))
            }
            Step::SourceVolume { volume, .. } => get::<PersistentVolume>(volume),
            Step::Snapshot(key) | Step::ProtectLook(key) | Step::ReleaseLook { snapshot: key, .. } => {
                get::<VolumeSnapshot>(key)
            }
            Step::Content { content, .. } => get::<VolumeSnapshotContent>(content),
            Step::ProtectClaim(source) => Effect::write(Write::Update(object(source))),
            Step::ProtectSnapshot(snapshot) | Step::Release { snapshot, .. } => {
                Effect::write(Write::Update(object(snapshot)))
            }
            Step::Secret(reference) => Effect::Read(Read::Get(secret::target(reference))),
            Step::Attributes(key) => get::<VolumeAttributesClass>(key),
            Step::Create => site.dial.call(self.draft.request.clone()),
            Step::Cleanup { volume_id, until, .. } => {
                let secrets = self.draft.request.secrets.clone();
                Effect::Call(Box::new(Call {
                    driver: Arc::clone(&site.dial.driver),
                    socket: Socket::Controller,
                    request: csi::DeleteVolumeRequest {
                        volume_id: volume_id.clone(),
                        secrets,
                    }
                    .into(),
                    timeout: until.since(now),
                }))
            }
            Step::Save(volume) => Effect::write(Write::Create(object(volume))),
            Step::Saved(volume) => success(cache, volume).map_or(Effect::Rest, Effect::Record),
            Step::Failed(failure) => {
                let Failure {
                    message, infeasible, ..
                } = failure;
                let delayed = "Volume provisioning failed with infeasible error. Retries will be delayed.";
                let message = if *infeasible {
                    format!("{delayed} {message}")
                } else {
                    message.clone()
                };
                Effect::Record(EventRecord::warning(&claim(), "ProvisioningFailed", message))
            }
            Step::Reschedule(_) => Effect::write(Write::Update(Object::new(self.unselected()))),
            Step::End(None) => Effect::Rest,
            Step::End(Some(_)) if site.flags.wrong == Some(Wrong::ProvisioningStops) => Effect::Rest,
            Step::End(Some(message)) => Effect::Retry(Cow::Owned(message.clone())),
        }
    }

    /// The claim without the scheduler's choice.
    pub(super) fn unselected(&self) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::clone(&self.claim);
        if let Some(annotations) = &mut claim.metadata.annotations {
            annotations.remove(names::SELECTED_NODE);
        }
        claim
    }

    /// Where the outcome of a step leads.
    pub(super) fn next(
        &mut self,
        step: Step,
        outcome: &Outcome,
        at: &mut At<'_>,
        identity: &str,
    ) -> Result<Step, Failure> {
        match step {
            Step::Announce => self.prepare(at),
            Step::Populator | Step::Saved(_) => Ok(Step::End(None)),
            Step::SourceVolume { source, .. } => self.with_source_volume(&source, outcome, at),
            Step::Snapshot(_) => self.with_snapshot(outcome),
            Step::Content { snapshot, content } => self.with_content(&snapshot, &content, outcome, at),
            Step::ProtectClaim(_) => {
                outcome.written().map_err(|e| fails(State::NoChange, e.to_string()))?;
                self.require(at)
            }
            Step::ProtectLook(_) => self.protect_snapshot(outcome, at),
            Step::ProtectSnapshot(_) => match outcome.written() {
                Err(error) if error.code != 403 => Err(fails(State::NoChange, error.to_string())),
                _ => self.require(at),
            },
            Step::Secret(reference) => {
                let secret = got::<Secret>(outcome);
                let secret = secret.map_err(|e| fails(State::NoChange, secret::missing(&reference, e)))?;
                self.draft.request.secrets = secret::credentials(&secret);
                self.finish(at)
            }
            Step::Attributes(_) => self.with_attributes(outcome, at),
            Step::Create => self.created(outcome.reply(), at, identity),
            Step::Cleanup {
                volume_id,
                left,
                until,
                message,
            } => {
                let error = outcome.reply().err();
                self.cleaned_up((volume_id, left, until, message), error, at.now)
            }
            Step::ReleaseLook { volume, .. } => Ok(release(outcome, volume)),
            Step::Release { volume, .. } => Ok(Step::Save(volume)),
            Step::Save(_) | Step::Failed(_) | Step::Reschedule(_) | Step::End(_) => {
                unreachable!("these steps are learnt from elsewhere")
            }
        }
    }

    fn prepare(&mut self, at: &mut At<'_>) -> Result<Step, Failure> {
        match request::draft(&at.site.flags, at.discovered, &self.claim, &self.class) {
            Ok(draft) => self.draft = draft,
            Err(Refusal::Populator) => return Ok(Step::Populator),
            Err(Refusal::Invalid(message)) => return Err(fails(State::Finished, message)),
        }
        match self.draft.source.clone() {
            None => self.require(at),
            Some(Source::Snapshot(key)) => Ok(Step::Snapshot(key)),
            Some(Source::Claim(key)) => {
                let source = at.cache.get::<PersistentVolumeClaim>(&key).ok_or_else(|| {
                    let (name, namespace) = (&key.name, &key.namespace);
                    let missing = format!("persistentvolumeclaim {name:?} not found");
                    self.source_fails(&format!(
                        "error getting PVC {name} (namespace {namespace:?}) from api server: {missing}"
                    ))
                })?;
                let volume = self.asker().check_claim(source).map_err(|e| self.source_fails(&e))?;
                Ok(Step::SourceVolume {
                    source: Arc::clone(source),
                    volume: ObjKey::cluster(volume),
                })
            }
        }
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            claim: &self.claim,
            class: &self.class,
        }
    }

    fn source_fails(&self, why: &str) -> Failure {
        let source = self
            .draft
            .source
            .as_ref()
            .expect("only a claim with a source looks at it");
        let (kind, name) = (source.kind(), &source.key().name);
        fails(
            State::NoChange,
            format!("error getting handle for DataSource Type {kind} by Name {name}: {why}"),
        )
    }

    fn with_source_volume(
        &mut self,
        source: &PersistentVolumeClaim,
        outcome: &Outcome,
        at: &mut At<'_>,
    ) -> Result<Step, Failure> {
        let volume = got::<PersistentVolume>(outcome);
        let volume = volume.map_err(|_| self.source_fails("claim in dataSource not bound or invalid"))?;
        let content = self
            .asker()
            .check_volume(source, &volume)
            .map_err(|e| self.source_fails(&e))?;
        self.draft.request.volume_content_source = Some(content);
        // The finalizer goes onto the claim as the informer has it now.
        let Some(current) = at.cache.get::<PersistentVolumeClaim>(&source.key()) else {
            let name = fields::name(&source.metadata);
            return Err(fails(
                State::NoChange,
                format!("persistentvolumeclaim {name:?} not found"),
            ));
        };
        if fields::has_finalizer(&current.metadata, names::CLONING_PROTECTION) {
            return self.require(at);
        }
        Ok(Step::ProtectClaim(with_finalizer(current, names::CLONING_PROTECTION)))
    }

    fn with_snapshot(&self, outcome: &Outcome) -> Result<Step, Failure> {
        let snapshot = got::<VolumeSnapshot>(outcome).map_err(|e| {
            let name = self.draft.source.as_ref().map_or("", |s| &s.key().name);
            self.source_fails(&format!("error getting snapshot {name} from api server: {e}"))
        })?;
        let content = self
            .asker()
            .check_snapshot(&snapshot)
            .map_err(|e| self.source_fails(&e))?;
        let content = ObjKey::cluster(content);
        Ok(Step::Content { snapshot, content })
    }

    fn with_content(
        &mut self,
        snapshot: &VolumeSnapshot,
        key: &ObjKey,
        outcome: &Outcome,
        at: &At<'_>,
    ) -> Result<Step, Failure> {
        let content = got::<VolumeSnapshotContent>(outcome).map_err(|_| {
            let name = fields::name(&snapshot.metadata);
            self.source_fails(&format!(
                "error getting snapshotcontent {} for snapshot {name}",
                key.name
            ))
        })?;
        let prevent = at.site.flags.prevent_volume_mode_conversion;
        let source = self.asker().check_content(snapshot, &content, prevent);
        self.draft.request.volume_content_source = Some(source.map_err(|e| self.source_fails(&e))?);
        Ok(Step::ProtectLook(snapshot.key()))
    }

    fn protect_snapshot(&mut self, outcome: &Outcome, at: &mut At<'_>) -> Result<Step, Failure> {
        let snapshot = got::<VolumeSnapshot>(outcome).map_err(|e| fails(State::NoChange, e.to_string()))?;
        if fields::has_finalizer(&snapshot.metadata, names::VOLUME_SNAPSHOT_RESTORE) {
            return self.require(at);
        }
        Ok(Step::ProtectSnapshot(with_finalizer(
            &snapshot,
            names::VOLUME_SNAPSHOT_RESTORE,
        )))
    }

    /// Topology, then secrets.
    fn require(&mut self, at: &mut At<'_>) -> Result<Step, Failure> {
        if at.topology() {
            let query = Query {
                driver: &at.discovered.name,
                claim: fields::name(&self.claim.metadata),
                allowed: self.class.allowed_topologies.as_deref().unwrap_or_default(),
                node: selected_node(&self.claim),
                strict: at.site.flags.strict_topology,
                immediate: at.site.flags.immediate_topology,
            };
            let requirement = query
                .requirement(at.cache, at.remembered)
                .map_err(|trouble| match trouble {
                    Trouble::NotFound(message) => fails(State::Reschedule, message),
                    Trouble::Other(message) => fails(
                        State::NoChange,
                        format!("error generating accessibility requirements: {message}"),
                    ),
                })?;
            self.draft.request.accessibility_requirements = requirement;
        }
        let parameters = self.class.parameters.clone().unwrap_or_default();
        let volume = &self.draft.request.name;
        let secret = Purpose::Provisioner.reference(&parameters, volume, &self.claim);
        self.draft.provisioner_secret = secret.map_err(|e| fails(State::NoChange, e))?;
        match self.draft.provisioner_secret.clone() {
            Some(reference) => Ok(Step::Secret(reference)),
            None => self.finish(at),
        }
    }

    fn finish(&mut self, at: &At<'_>) -> Result<Step, Failure> {
        let finished = self
            .draft
            .finish(&at.site.flags, &at.discovered.name, &self.claim, &self.class);
        finished.map_err(|unready| match unready {
            Unready::Later(message) => fails(State::NoChange, message),
            Unready::Final(message) => fails(State::Finished, message),
        })?;
        Ok(class_of_attributes(&self.claim).map_or(Step::Create, |name| Step::Attributes(ObjKey::cluster(name))))
    }

    fn with_attributes(&mut self, outcome: &Outcome, at: &At<'_>) -> Result<Step, Failure> {
        let class = got::<VolumeAttributesClass>(outcome).map_err(|e| fails(State::NoChange, e.to_string()))?;
        let (name, of, driver) = (fields::name(&class.metadata), &class.driver_name, &at.discovered.name);
        if **of != **driver {
            let message =
                format!("VAC {name} referenced in PVC is for driver {of} which does not match driver name {driver}");
            return Err(fails(State::Finished, message));
        }
        self.draft.request.mutable_parameters = class.parameters.clone().unwrap_or_default();
        Ok(Step::Create)
    }

    fn created(&self, reply: Result<&CsiReply, &CallError>, at: &At<'_>, identity: &str) -> Result<Step, Failure> {
        let reply = reply.map_err(|error| {
            let may_reschedule = at.topology() && !selected_node(&self.claim).is_empty();
            Failure {
                state: match at.site.flags.wrong {
                    Some(Wrong::ForgetsUncertainCreate) => State::Finished,
                    _ => state_after(error.code(), may_reschedule),
                },
                message: describe(&error.status),
                infeasible: error.code() == Code::InvalidArgument,
            }
        })?;
        let CsiReply::CreateVolume(csi::CreateVolumeResponse { volume: Some(made) }) = reply else {
            unreachable!("CreateVolume is answered by its own response, and one without volume is fatal")
        };
        let asked = self.draft.request.capacity_range.map_or(0, |r| r.required_bytes);
        let capacity = if made.capacity_bytes == 0 {
            asked
        } else {
            made.capacity_bytes
        };
        if capacity < asked {
            let message = format!("created volume capacity {capacity} less than requested capacity {asked}");
            return Ok(self.clean_up(made, message, at));
        }
        let wants_source = self.claim.spec.as_ref().is_some_and(|s| s.data_source.is_some());
        if wants_source && made.content_source.is_none() {
            return Ok(self.clean_up(made, "volume content source missing".into(), at));
        }
        let volume = Arc::new(self.draft.volume(&Provisioned {
            flags: &at.site.flags,
            claim: &self.claim,
            class: &self.class,
            volume: made,
            capacity,
            topology: at.topology(),
            identity,
        }));
        match &self.draft.source {
            Some(Source::Snapshot(key)) if wants_source => Ok(Step::ReleaseLook {
                snapshot: key.clone(),
                volume,
            }),
            _ => Ok(Step::Save(volume)),
        }
    }

    /// Deletes what was made and could not be saved.
    pub(super) fn start_over(&self, volume: &PersistentVolume, site: &Provisioner, now: Time) -> Step {
        Step::Cleanup {
            volume_id: fields::volume_handle(volume).map_or_else(String::new, |(_, handle)| handle.to_owned()),
            left: site.constants.cleanup_attempts,
            until: now + site.flags.timeout,
            message: "the volume could not be saved".into(),
        }
    }

    fn clean_up(&self, made: &csi::Volume, message: String, at: &At<'_>) -> Step {
        Step::Cleanup {
            volume_id: made.volume_id.clone(),
            left: at.site.constants.cleanup_attempts,
            until: at.now + at.site.flags.timeout,
            message,
        }
    }

    fn cleaned_up(
        &self,
        (volume_id, left, until, message): (String, u32, Time, String),
        error: Option<&CallError>,
        now: Time,
    ) -> Result<Step, Failure> {
        let Some(error) = error else {
            return Err(fails(State::InBackground, message));
        };
        if left > 1 && now < until {
            return Ok(Step::Cleanup {
                volume_id,
                left: left - 1,
                until,
                message,
            });
        }
        let (name, why) = (&self.draft.request.name, describe(&error.status));
        let message = format!("{message}. Cleanup of volume {name} failed, volume is orphaned: {why}");
        Err(fails(State::InBackground, message))
    }
}

/// The snapshot need no longer be protected, if it is there and is.
fn release(outcome: &Outcome, volume: Arc<PersistentVolume>) -> Step {
    match got::<VolumeSnapshot>(outcome) {
        Ok(snapshot) if fields::has_finalizer(&snapshot.metadata, names::VOLUME_SNAPSHOT_RESTORE) => Step::Release {
            snapshot: without_finalizer(&snapshot, names::VOLUME_SNAPSHOT_RESTORE),
            volume,
        },
        _ => Step::Save(volume),
    }
}

/// A copy with the finalizer at the end.
fn with_finalizer<T: Resource>(of: &Arc<T>, finalizer: &str) -> Arc<T> {
    let mut copy = T::clone(of);
    copy.meta_mut()
        .finalizers
        .get_or_insert_default()
        .push(finalizer.to_owned());
    Arc::new(copy)
}

/// A copy without the finalizer.
pub(super) fn without_finalizer<T: Resource>(of: &Arc<T>, finalizer: &str) -> Arc<T> {
    let mut copy = T::clone(of);
    let finalizers = &mut copy.meta_mut().finalizers;
    if let Some(list) = finalizers {
        list.retain(|f| f != finalizer);
    }
    finalizers.take_if(|list| list.is_empty());
    Arc::new(copy)
}

/// What an error of CreateVolume says. `ResourceExhausted` is final here, unlike elsewhere.
fn state_after(code: Code, may_reschedule: bool) -> State {
    match code {
        Code::ResourceExhausted if may_reschedule => State::Reschedule,
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted => State::InBackground,
        _ => State::Finished,
    }
}

impl Provisioner {
    /// Whether topology is sent and read.
    pub(super) fn supports_topology(&self, discovered: &Discovered) -> bool {
        let gate = self.flags.feature_gates.get("Topology").copied().unwrap_or(true);
        gate && discovered.plugin(PluginService::VolumeAccessibilityConstraints)
    }
}
