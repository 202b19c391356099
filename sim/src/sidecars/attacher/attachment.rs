//! One sync of a VolumeAttachment.
//!
//! ```text
//! not deleted, not attached (or forced)          deleted, with our finalizer (or forced)
//!      │                                              │
//!   Protect    PV finalizer, if missing               │
//!   Secret     GET, if the volume names one        Secret
//!   Announce   finalizer and node id, if missing      │
//!   Publish    ControllerPublishVolume             Unpublish    ControllerUnpublishVolume
//!   Attached   status                              Release      our finalizer goes: mostly the object with it
//!      │                                           Detached     status; 404 is fine
//!      ▼                                              ▼
//!    done          any error ──► Failed: status.attachError or detachError, then back-off
//! ```
//!
//! Each sync works on the objects it read at its beginning and on what its own writes returned. It makes no difference between errors that are final and
//! errors that are not: our finalizer stays, so a deletion always ends in ControllerUnpublishVolume. Its own patch of finalizer and annotation queues the
//! attachment again while the sync still runs; that is why calls come in pairs when the informer is slower than the driver (fact sheet 5.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, SecretReference};
use k8s_openapi::api::storage::v1::{CSINode, VolumeAttachment, VolumeAttachmentStatus, VolumeError};
use wavetank_proto::csi::v1 as csi;

use crate::api::{
    ApiError, Cache, Edit, Kind, ObjKey, Object, ObjectRef, Patch, Read, ReadAnswer, Write, fields, names,
};
use crate::control::{Effect, Outcome};
use crate::link::{CallError, CsiReply};
use crate::mutants::Wrong;
use crate::runtime::Time;
use crate::sidecars::capability;
use crate::sidecars::connect::{ControllerRpc, Discovered, describe};
use crate::sidecars::secret::{credentials, target};

use super::{Attacher, merge};

/// A sync at work.
#[derive(Clone, Debug)]
pub(super) struct Sync {
    /// The attachment as read, or as the last write returned it.
    attachment: Arc<VolumeAttachment>,
    volume: Option<Arc<PersistentVolume>>,
    secrets: BTreeMap<String, String>,
    node_id: String,
    detaching: bool,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Protect,
    Secret(SecretReference),
    Announce,
    Publish,
    Attached(BTreeMap<String, String>),
    Unpublish,
    Release,
    Detached,
    Failed(Problem),
    Over(Result<(), String>),
}

/// Why a sync fails.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    message: String,
    code: Option<i32>,
}

impl Problem {
    fn new(message: impl Into<String>) -> Problem {
        Problem {
            message: message.into(),
            code: None,
        }
    }

    fn of_call(error: &CallError) -> Problem {
        Problem {
            message: describe(&error.status),
            code: Some(error.code() as i32),
        }
    }
}

/// What a sync may look at.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub attacher: &'a Attacher,
    pub driver: &'a Discovered,
    pub cache: &'a Cache,
}

/// Whether a sync of this attachment would do anything.
pub(super) fn is_due(attachment: &VolumeAttachment, driver: &Discovered, forced: bool) -> bool {
    if fields::is_deleting(&attachment.metadata) {
        return forced || has_finalizer(attachment, driver);
    }
    forced || !is_attached(attachment)
}

pub(super) fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|s| s.attached)
}

fn has_finalizer(attachment: &VolumeAttachment, driver: &Discovered) -> bool {
    fields::has_finalizer(&attachment.metadata, &names::attacher_finalizer(&driver.name))
}

/// The driver's name for a node: from its CSINode, else, if one is given, from the attachment's annotation.
pub(super) fn node_id(
    cache: &Cache,
    driver: &str,
    node: &str,
    attachment: Option<&VolumeAttachment>,
) -> Result<String, String> {
    let known = cache.named::<CSINode>(node);
    let entry = known.and_then(|n| n.spec.drivers.iter().find(|d| d.name == driver));
    if let Some(entry) = entry {
        return Ok(entry.node_id.clone());
    }
    let annotation = attachment.and_then(|a| fields::annotation(&a.metadata, names::ATTACHMENT_NODE_ID));
    annotation.map(str::to_owned).ok_or_else(|| match known {
        Some(_) => format!("CSINode {node} does not contain driver {driver}"),
        None => format!("csinode.storage.k8s.io \"{node}\" not found"),
    })
}

/// The PersistentVolume of an attachment.
pub(super) fn volume<'a>(cache: &'a Cache, attachment: &VolumeAttachment) -> Result<&'a Arc<PersistentVolume>, String> {
    let name = attachment.spec.source.persistent_volume_name.as_deref();
    let name = name.ok_or("neither InlineCSIVolumeSource nor PersistentVolumeName specified in VA source")?;
    let volume = cache.named::<PersistentVolume>(name);
    volume.ok_or_else(|| format!("persistentvolume \"{name}\" not found"))
}

impl Sync {
    /// Begins a sync that is due. A driver that cannot publish has its attachments marked and nothing else.
    pub fn begin(site: &Site<'_>, attachment: Arc<VolumeAttachment>) -> Sync {
        let detaching = fields::is_deleting(&attachment.metadata);
        let mut sync = Sync {
            attachment,
            volume: None,
            secrets: BTreeMap::new(),
            node_id: String::new(),
            detaching,
            step: Step::Over(Ok(())),
        };
        let first = match (site.attacher.publishes(site.driver), detaching) {
            (true, false) => sync.begin_attach(site),
            (true, true) => sync.begin_detach(site),
            (false, false) => Ok(Step::Attached(BTreeMap::new())),
            (false, true) => Ok(Step::Over(Ok(()))),
        };
        sync.step = first.unwrap_or_else(Step::Failed);
        sync
    }

    fn begin_attach(&mut self, site: &Site<'_>) -> Result<Step, Problem> {
        let volume = volume(site.cache, &self.attachment).map_err(Problem::new)?;
        if fields::is_deleting(&volume.metadata) {
            let name = fields::name(&volume.metadata);
            return Err(Problem::new(format!(
                "PersistentVolume \"{name}\" is marked for deletion"
            )));
        }
        self.volume = Some(Arc::clone(volume));
        if fields::has_finalizer(&volume.metadata, &names::attacher_finalizer(&site.driver.name)) {
            self.protected(site)
        } else {
            Ok(Step::Protect)
        }
    }

    /// The volume cannot vanish any more. What is wrong with it is found before anything is announced.
    fn protected(&mut self, site: &Site<'_>) -> Result<Step, Problem> {
        self.capability(site).map_err(Problem::new)?;
        match self.secret() {
            Some(reference) => Ok(Step::Secret(reference)),
            None => self.with_secrets(site),
        }
    }

    fn begin_detach(&mut self, site: &Site<'_>) -> Result<Step, Problem> {
        let volume = volume(site.cache, &self.attachment).map_err(Problem::new)?;
        self.volume = Some(Arc::clone(volume));
        if fields::volume_handle(volume).is_none() {
            return Err(Problem::new("pv spec contained non-csi source that was not migrated"));
        }
        match self.secret() {
            Some(reference) => Ok(Step::Secret(reference)),
            None => self.with_secrets(site),
        }
    }

    fn secret(&self) -> Option<SecretReference> {
        let spec = self.volume.as_ref()?.spec.as_ref()?;
        spec.csi.as_ref()?.controller_publish_secret_ref.clone()
    }

    fn capability(&self, site: &Site<'_>) -> Result<csi::VolumeCapability, String> {
        let volume = self.volume.as_ref().expect("a volume was found at the beginning");
        let flags = &site.attacher.flags;
        capability::of_volume(volume, &flags.default_fstype, site.driver.multi_writer())
    }

    /// Everything is known but the node.
    fn with_secrets(&mut self, site: &Site<'_>) -> Result<Step, Problem> {
        let node = &self.attachment.spec.node_name;
        // Only a detach believes the annotation: the node may be gone by then.
        let annotated = self.detaching.then_some(&*self.attachment);
        self.node_id = node_id(site.cache, &site.driver.name, node, annotated).map_err(Problem::new)?;
        if self.detaching {
            return Ok(Step::Unpublish);
        }
        let announced = *self.announced(site) == *self.attachment;
        Ok(if announced { Step::Publish } else { Step::Announce })
    }

    fn announced(&self, site: &Site<'_>) -> Box<VolumeAttachment> {
        let mut to = Box::new(VolumeAttachment::clone(&self.attachment));
        let finalizer = names::attacher_finalizer(&site.driver.name);
        if !fields::has_finalizer(&to.metadata, &finalizer) {
            to.metadata.finalizers.get_or_insert_default().push(finalizer);
        }
        fields::annotate(&mut to.metadata, names::ATTACHMENT_NODE_ID, self.node_id.clone());
        to
    }

    fn released(&self, site: &Site<'_>) -> Box<VolumeAttachment> {
        let mut to = Box::new(VolumeAttachment::clone(&self.attachment));
        let finalizer = names::attacher_finalizer(&site.driver.name);
        if let Some(finalizers) = &mut to.metadata.finalizers {
            finalizers.retain(|f| *f != finalizer);
        }
        to.metadata.finalizers.take_if(|f| f.is_empty());
        to
    }

    fn with_status(&self, change: impl FnOnce(&mut VolumeAttachmentStatus)) -> Write {
        let mut to = VolumeAttachment::clone(&self.attachment);
        change(to.status.get_or_insert_default());
        merge::patch(&self.attachment, &to, true)
    }

    /// What next?
    pub fn decide(&self, site: &Site<'_>, now: Time) -> Effect {
        match &self.step {
            Step::Protect => Effect::write(self.protect(site)),
            Step::Secret(reference) => Effect::Read(Read::Get(target(reference))),
            Step::Announce => Effect::write(merge::patch(&self.attachment, &self.announced(site), false)),
            Step::Publish => match self.publish(site) {
                Ok(request) => site.attacher.dial.call(request),
                Err(message) => Effect::Retry(message.into()),
            },
            Step::Attached(context) => Effect::write(self.with_status(|status| {
                status.attached = true;
                let told = !context.is_empty() && site.attacher.flags.wrong != Some(Wrong::DropsPublishContext);
                status.attachment_metadata = told.then(|| context.clone());
                status.attach_error = None;
            })),
            Step::Unpublish => site.attacher.dial.call(self.unpublish()),
            Step::Release => Effect::write(merge::patch(&self.attachment, &self.released(site), false)),
            Step::Detached => Effect::write(self.with_status(|status| {
                status.attached = false;
                status.detach_error = None;
                status.attachment_metadata = None;
            })),
            Step::Failed(problem) => Effect::write(self.save(site, problem, now)),
            Step::Over(Ok(())) => Effect::Rest,
            Step::Over(Err(message)) => Effect::Retry(message.clone().into()),
        }
    }

    fn protect(&self, site: &Site<'_>) -> Write {
        let volume = self.volume.as_ref().expect("a volume was found at the beginning");
        let target = ObjectRef::new(Kind::PersistentVolume, ObjKey::of(&volume.metadata));
        let edit = Edit::AppendFinalizer {
            name: names::attacher_finalizer(&site.driver.name),
            expect_none: fields::finalizers(&volume.metadata).is_empty(),
        };
        Write::Patch(Patch::new(target, vec![edit]))
    }

    fn publish(&self, site: &Site<'_>) -> Result<csi::ControllerPublishVolumeRequest, String> {
        let source = self.volume.as_ref().and_then(|v| v.spec.as_ref()?.csi.as_ref());
        let source = source.ok_or("CSI volume source was nil")?;
        let readonly = source.read_only == Some(true) && site.driver.controller(ControllerRpc::PublishReadonly);
        Ok(csi::ControllerPublishVolumeRequest {
            volume_id: source.volume_handle.clone(),
            node_id: self.node_id.clone(),
            volume_capability: Some(self.capability(site)?),
            readonly,
            secrets: self.secrets.clone(),
            volume_context: source.volume_attributes.clone().unwrap_or_default(),
        })
    }

    fn unpublish(&self) -> csi::ControllerUnpublishVolumeRequest {
        let handle = self.volume.as_deref().and_then(fields::volume_handle);
        csi::ControllerUnpublishVolumeRequest {
            volume_id: handle.map_or_else(String::new, |(_, handle)| handle.to_owned()),
            node_id: self.node_id.clone(),
            secrets: self.secrets.clone(),
        }
    }

    /// The error goes into the status as it is; one of more than 1024 bytes is refused there, and then nobody but the log learns of it.
    fn save(&self, site: &Site<'_>, problem: &Problem, now: Time) -> Write {
        let error = VolumeError {
            error_code: problem.code.filter(|_| !self.detaching),
            message: Some(problem.message.clone()),
            time: Some(site.attacher.clock.time(now)),
        };
        self.with_status(|status| {
            let place = if self.detaching {
                &mut status.detach_error
            } else {
                &mut status.attach_error
            };
            *place = Some(error);
        })
    }

    /// Whether it is over and failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.step, Step::Over(Err(_)))
    }

    /// What did that teach?
    pub fn learn(&mut self, site: &Site<'_>, outcome: &Outcome) {
        let next = match std::mem::replace(&mut self.step, Step::Over(Ok(()))) {
            Step::Protect => self.protect_done(site, outcome),
            Step::Secret(reference) => self.secret_read(site, &reference, outcome),
            Step::Announce => self
                .take(outcome)
                .map(|()| Step::Publish)
                .map_err(|e| Problem::new(format!("could not save VolumeAttachment: {e}"))),
            Step::Publish => match outcome.reply() {
                Ok(CsiReply::ControllerPublishVolume(reply)) => Ok(Step::Attached(reply.publish_context.clone())),
                Ok(other) => unreachable!("{} does not answer a publish", other.message_name()),
                Err(error) => Err(Problem::of_call(error)),
            },
            // Not saved as an error of the attachment: it is attached.
            Step::Attached(_) => Ok(Step::Over(
                self.take(outcome)
                    .map_err(|e| format!("failed to mark as attached: {e}")),
            )),
            Step::Unpublish => match outcome.reply() {
                Ok(_) => Ok(self.unpublished(site)),
                Err(_) if site.attacher.flags.wrong == Some(Wrong::ErrorMeansDetached) => Ok(self.unpublished(site)),
                Err(error) => Err(Problem::of_call(error)),
            },
            Step::Release => self
                .take(outcome)
                .map(|()| Step::Detached)
                .map_err(|e| not_detached(&e)),
            Step::Detached => match self.take(outcome) {
                Err(error) if !error.is_not_found() => Err(not_detached(&error)),
                _ => Ok(Step::Over(Ok(()))),
            },
            Step::Failed(problem) => {
                let what = if self.detaching { "detach" } else { "attach" };
                Ok(Step::Over(Err(format!("failed to {what}: {}", problem.message))))
            }
            over @ Step::Over(_) => Ok(over),
        };
        self.step = next.unwrap_or_else(Step::Failed);
    }

    fn take(&mut self, outcome: &Outcome) -> Result<(), ApiError> {
        let written = outcome.written().map_err(ApiError::clone)?;
        if let Some(attachment) = written.object.get::<VolumeAttachment>() {
            self.attachment = Arc::clone(attachment);
        }
        Ok(())
    }

    fn protect_done(&mut self, site: &Site<'_>, outcome: &Outcome) -> Result<Step, Problem> {
        match outcome.written() {
            Ok(written) => {
                self.volume = written
                    .object
                    .get::<PersistentVolume>()
                    .map(Arc::clone)
                    .or(self.volume.take());
                self.protected(site)
            }
            Err(error) => Err(Problem::new(format!(
                "could not add PersistentVolume finalizer: {error}"
            ))),
        }
    }

    fn secret_read(
        &mut self,
        site: &Site<'_>,
        reference: &SecretReference,
        outcome: &Outcome,
    ) -> Result<Step, Problem> {
        match outcome.read() {
            Ok(ReadAnswer::Object(Object::Secret(secret))) => {
                self.secrets = credentials(secret);
                self.with_secrets(site)
            }
            Ok(other) => unreachable!("{other:?} is no secret"),
            Err(error) => {
                let part = |s: &Option<String>| s.clone().unwrap_or_default();
                let (namespace, name) = (part(&reference.namespace), part(&reference.name));
                Err(Problem::new(format!(
                    "failed to load secret \"{namespace}/{name}\": {error}"
                )))
            }
        }
    }

    fn unpublished(&self, site: &Site<'_>) -> Step {
        let ours = has_finalizer(&self.attachment, site.driver);
        match (ours, is_attached(&self.attachment)) {
            (true, _) => Step::Release,
            (false, true) => Step::Detached,
            (false, false) => Step::Over(Ok(())),
        }
    }
}

fn not_detached(error: &ApiError) -> Problem {
    Problem::new(format!("could not mark as detached: {}", error.message))
}
