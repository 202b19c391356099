//! Volumes: the finalizer that keeps an object until its volume is deleted, and the deletion (fact sheet 3.7).
//!
//! ```text
//! begin ► [Keep finalizer] ► [Secret] ► Delete (DeleteVolume) ► Remove (DELETE) ► [Unfinalize] ► done
//!                               └ still attached, any error ► Failed ► again after back-off
//! ```
//!
//! Volumes that nobody provisioned are adopted too, if their driver is this one (trace 13). The DELETE and the patch raise events that queue the volume again
//! while the informer still has it, so that **DeleteVolume is often sent twice** (traces 01, 02, 03): nothing here prevents it. A vanished attachment queues
//! nothing: the volume waits for its back-off (traces 11, 15).
//!
//! *Blind spots.* Volumes migrated from in-tree plugins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret, SecretReference};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use wavetank_proto::csi::v1 as csi;

use crate::api::{
    Cache, Delete, Edit, EventRecord, Index, ObjKey, Object, ObjectRef, Patch, Read, ReadAnswer, Resource, Write,
    fields, names,
};
use crate::control::{Effect, Learner, Outcome};
use crate::mutants::Wrong;
use crate::sidecars::connect::{ControllerRpc, Discovered, describe};
use crate::sidecars::secret;

use super::request::check_capabilities;
use super::secrets::Purpose;
use super::{Key, Memory, Provisioner, capacity};

#[derive(Clone)]
enum Step {
    Keep(Edit),
    Secret(SecretReference),
    Delete,
    Remove,
    Unfinalize,
    Failed(String),
    /// With the reason to try again, if any.
    End(Option<String>),
}

/// A volume at work: the object that the sync began with (or its own write returned), and how far it is.
pub(super) struct Deletion {
    volume: Arc<PersistentVolume>,
    secrets: BTreeMap<String, String>,
    /// Does not ask whether the volume is attached: a mistake.
    careless: bool,
    step: Step,
}

/// Whether this provisioner looks after a volume: by who provisioned it, else by its driver.
fn is_ours(volume: &PersistentVolume, driver: &str) -> bool {
    let annotation = |name| fields::annotation(&volume.metadata, name);
    match annotation(names::PROVISIONED_BY) {
        Some(provisioner) => provisioner == driver || annotation(names::MIGRATED_TO) == Some(driver),
        None => fields::volume_driver(volume) == driver,
    }
}

/// What the finalizer needs.
fn upkeep(volume: &PersistentVolume) -> Option<Edit> {
    let finalizer = || names::PROVISIONER_FINALIZER.to_owned();
    let has = fields::has_finalizer(&volume.metadata, names::PROVISIONER_FINALIZER);
    match fields::reclaim_policy(volume) {
        "Delete" => {
            let keep = !fields::is_deleting(&volume.metadata) && fields::volume_phase(volume) == "Bound";
            (keep && !has).then(|| Edit::AddFinalizer(finalizer()))
        }
        "Retain" | "Recycle" => has.then(|| Edit::RemoveFinalizer(finalizer())),
        _ => None,
    }
}

/// Whether what stands behind the object is to be deleted now.
fn should_delete(volume: &PersistentVolume) -> bool {
    let done =
        fields::is_deleting(&volume.metadata) && !fields::has_finalizer(&volume.metadata, names::PROVISIONER_FINALIZER);
    !done && fields::volume_phase(volume) == "Released" && fields::reclaim_policy(volume) == "Delete"
}

/// The volume of a key, if there is something to do for it.
fn admit(cache: &Cache, memory: &Memory, name: &str) -> Option<Arc<PersistentVolume>> {
    let volume = cache.named::<PersistentVolume>(name)?;
    let ours = is_ours(volume, &memory.connection.discovered.name);
    (ours && (upkeep(volume).is_some() || should_delete(volume))).then(|| Arc::clone(volume))
}

/// The next effect for a volume.
pub(super) fn decide(site: &Provisioner, cache: &Cache, memory: &Memory, name: &str) -> Effect {
    match memory.deletions.get(name) {
        Some(deletion) => deletion.decide(site),
        None if admit(cache, memory, name).is_some() => Effect::Note("begin"),
        None => Effect::Rest,
    }
}

/// What it taught.
pub(super) fn learn(
    site: &Provisioner,
    memory: &mut Memory,
    name: &str,
    (effect, outcome): (&Effect, &Outcome),
    then: &mut Learner<'_, Key>,
) {
    if matches!(effect, Effect::Note(_)) {
        let volume = admit(then.cache, memory, name).expect("decide has just admitted it");
        let mut deletion = Deletion {
            volume,
            secrets: BTreeMap::new(),
            careless: site.flags.wrong == Some(Wrong::DeletesWhileAttached),
            step: Step::End(None),
        };
        deletion.step = match upkeep(&deletion.volume) {
            Some(edit) => Step::Keep(edit),
            None => deletion.start(then.cache, &memory.connection.discovered),
        };
        memory.deletions.insert(name.into(), deletion);
        return;
    }
    let mut deletion = memory.deletions.remove(name).expect("an effect belongs to a deletion");
    let deleted = matches!(deletion.step, Step::Delete) && outcome.reply().is_ok();
    deletion.step = deletion.next(outcome, then.cache, &memory.connection.discovered);
    if deleted && let Some(affinity) = deletion.volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()) {
        capacity::refresh_affinity(memory, affinity, then.queue);
    }
    memory.deletions.insert(name.into(), deletion);
}

impl Deletion {
    fn decide(&self, site: &Provisioner) -> Effect {
        let target = || ObjectRef::to::<PersistentVolume>(&self.volume.key());
        match &self.step {
            Step::Keep(edit) => Effect::write(Write::Patch(Patch::new(target(), vec![edit.clone()]))),
            Step::Secret(reference) => Effect::Read(Read::Get(secret::target(reference))),
            Step::Delete => site.dial.call(csi::DeleteVolumeRequest {
                volume_id: fields::volume_handle(&self.volume)
                    .map_or("", |(_, handle)| handle)
                    .to_owned(),
                secrets: self.secrets.clone(),
            }),
            Step::Remove => Effect::write(Write::Delete(Delete::new(target()))),
            Step::Unfinalize => {
                let edit = Edit::RemoveFinalizer(names::PROVISIONER_FINALIZER.into());
                Effect::write(Write::Patch(Patch::new(target(), vec![edit])))
            }
            Step::Failed(message) => {
                let volume = PersistentVolume::into_object(Arc::clone(&self.volume));
                Effect::Record(EventRecord::warning(&volume, "VolumeFailedDelete", message.clone()))
            }
            Step::End(None) => Effect::Rest,
            Step::End(Some(_)) if site.flags.wrong == Some(Wrong::DeleteNotRetried) => Effect::Rest,
            Step::End(Some(message)) => Effect::Retry(Cow::Owned(message.clone())),
        }
    }

    fn next(&mut self, outcome: &Outcome, cache: &Cache, discovered: &Discovered) -> Step {
        match self.step.clone() {
            Step::Keep(_) => match outcome.written() {
                Ok(written) => {
                    let volume = written.object.get::<PersistentVolume>();
                    self.volume = Arc::clone(volume.expect("a patch of a volume returns it"));
                    self.start(cache, discovered)
                }
                Err(error) => {
                    let name = fields::name(&self.volume.metadata);
                    Step::End(Some(format!(
                        "failed to modify finalizers on volume {name} err: {error}"
                    )))
                }
            },
            Step::Secret(_) => {
                // A secret that is gone is no reason to keep the volume.
                if let Ok(ReadAnswer::Object(Object::Secret(secret))) = outcome.read() {
                    let secret: &Secret = secret;
                    self.secrets = secret::credentials(secret);
                }
                self.delete_unless_attached(cache, discovered)
            }
            Step::Delete => match outcome.reply() {
                Ok(_) => Step::Remove,
                Err(error) => Step::Failed(describe(&error.status)),
            },
            Step::Remove => match outcome.written() {
                Ok(_) => self.unfinalize(cache),
                Err(error) => Step::End(Some(error.to_string())),
            },
            Step::Unfinalize => match outcome.written() {
                Err(error) if !error.is_not_found() => Step::End(Some(error.to_string())),
                _ => Step::End(None),
            },
            Step::Failed(message) => Step::End(Some(message)),
            Step::End(_) => unreachable!("nothing comes after the end"),
        }
    }

    fn start(&self, cache: &Cache, discovered: &Discovered) -> Step {
        if !should_delete(&self.volume) {
            return Step::End(None);
        }
        let secret = check_capabilities(discovered, None, false)
            .and_then(|()| fields::volume_handle(&self.volume).ok_or_else(|| "invalid CSI PV".to_owned()))
            .and_then(|_| self.secret(cache));
        match secret {
            Ok(Some(reference)) => Step::Secret(reference),
            Ok(None) => self.delete_unless_attached(cache, discovered),
            Err(message) => Step::Failed(message),
        }
    }

    /// The secret for DeleteVolume: as noted on the volume, else as its class says now.
    fn secret(&self, cache: &Cache) -> Result<Option<SecretReference>, String> {
        let annotation = |name| fields::annotation(&self.volume.metadata, name);
        let noted = (
            annotation(names::DELETION_SECRET_NAME),
            annotation(names::DELETION_SECRET_NAMESPACE),
        );
        if let (Some(name), Some(namespace)) = noted {
            let named = !name.is_empty() && !namespace.is_empty();
            return Ok(named.then(|| SecretReference {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
            }));
        }
        let class = cache.named::<StorageClass>(fields::volume_class(&self.volume));
        let (Some(class), Some(key)) = (class, fields::volume_claim_key(&self.volume)) else {
            return Ok(None);
        };
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some(key.name.to_string());
        claim.metadata.namespace = Some(key.namespace.to_string());
        let (parameters, name) = (
            class.parameters.clone().unwrap_or_default(),
            fields::name(&self.volume.metadata),
        );
        let secret = Purpose::Provisioner.reference(&parameters, name, &claim);
        secret.map_err(|e| format!("failed to get secretreference for volume {name}: {e}"))
    }

    fn delete_unless_attached(&self, cache: &Cache, discovered: &Discovered) -> Step {
        let name = fields::name(&self.volume.metadata);
        let attachment = cache.by::<VolumeAttachment>(Index::AttachmentsByVolume, name).next();
        match attachment {
            Some(attachment) if !self.careless && discovered.controller(ControllerRpc::PublishUnpublishVolume) => {
                let node = &attachment.spec.node_name;
                Step::Failed(format!("persistentvolume {name} is still attached to node {node}"))
            }
            _ => Step::Delete,
        }
    }

    /// The finalizer is taken off the volume as the informer has it now, which may well be before the deletion.
    fn unfinalize(&self, cache: &Cache) -> Step {
        let cached = cache.get::<PersistentVolume>(&ObjKey::of(&self.volume.metadata));
        let has = cached.is_some_and(|v| fields::has_finalizer(&v.metadata, names::PROVISIONER_FINALIZER));
        if has && !fields::finalizers(&self.volume.metadata).is_empty() {
            Step::Unfinalize
        } else {
            Step::End(None)
        }
    }
}
