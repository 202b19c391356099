//! The encryption layer between the device of a volume and what it holds.
//!
//! A layer is made where a file system is: on a device that has just been read as blank, by the one node that may write.
//! A key that does not open it is refused and changes nothing. Nobody keeps the key: a layer that is open stays open, and
//! grows, without it.

use std::collections::BTreeMap;

use tonic::Status;

use super::Core;
use super::device::{blank, never_overwritten, uuid_of};
use crate::host::{HostErrorKind, Probe};
use crate::key::{KEY_SECRET, Key};
use crate::records::{ENCRYPTED_KEY, READ_ONLY_KEY, StagedRecord};
use crate::refuse;
use crate::units::{DevicePath, PublishContext, VolumeId};

/// What a call brings along to reach a volume.
pub(super) struct Reach {
    /// What the pool said when it exported the volume.
    pub(super) context: PublishContext,
    encrypted: bool,
    key: Option<Key>,
}

impl Reach {
    /// Sorts what the driver itself put into a publish context from what the pool did.
    pub(super) fn new(mut context: PublishContext, secrets: &BTreeMap<String, String>) -> Self {
        let encrypted = context.remove(ENCRYPTED_KEY).is_some();
        context.remove(READ_ONLY_KEY);
        Self {
            context,
            encrypted,
            key: Key::among(secrets),
        }
    }

    /// The key, without which nothing that is encrypted can be reached.
    pub(super) fn require_key(&self) -> Result<&Key, Status> {
        let missing = || Status::invalid_argument(format!("the volume is encrypted: secrets must hold `{KEY_SECRET}`"));
        self.key.as_ref().ok_or_else(missing)
    }
}

impl Core {
    /// Does an encryption layer lie between the volume's device and what it holds?
    pub(super) async fn is_encrypted(&self, volume: &VolumeId, reach: &Reach) -> Result<bool, Status> {
        let encrypted = if self.config.attach {
            reach.encrypted
        } else if self.config.encrypts() {
            let found = self.pool.get(volume).await;
            let found = found.map_err(|error| refuse::pool("looking for the volume", &error))?;
            found.is_some_and(|volume| volume.encrypted)
        } else {
            false
        };
        if encrypted {
            reach.require_key()?;
        }
        Ok(encrypted)
    }

    /// Opens the volume's encryption layer; makes it first on a device that is blank.
    pub(super) async fn unlock(
        &self,
        volume: &VolumeId,
        record: &StagedRecord,
        device: &DevicePath,
        reach: &Reach,
    ) -> Result<DevicePath, Status> {
        let key = reach.require_key()?;
        if self.open_layer(volume).await?.is_none() {
            let probe = self.host().probe(device).await;
            match probe.map_err(|error| refuse::host("reading the device", &error))? {
                Probe::Encrypted { .. } => {}
                Probe::Blank if record.may_format() => {
                    let made = self.host().encrypt(device, &uuid_of(volume, "layer"), key).await;
                    made.map_err(|error| refuse::host("making the encryption layer", &error))?;
                }
                Probe::Blank => return Err(blank()),
                Probe::FileSystem { kind, .. } => return Err(never_overwritten(kind.as_str())),
                Probe::Foreign(what) => return Err(never_overwritten(&what)),
            }
        }
        let opened = self.host().unlock(volume, key, record.access).await;
        opened.map_err(|error| match error.kind {
            HostErrorKind::Denied => Status::unauthenticated(format!("the key does not open volume {volume}")),
            _ => refuse::host("opening the encryption layer", &error),
        })
    }

    async fn open_layer(&self, volume: &VolumeId) -> Result<Option<DevicePath>, Status> {
        let open = self.host().unlocked(volume).await;
        open.map_err(|error| refuse::host("looking for the encryption layer", &error))
    }

    pub(super) async fn detach(&self, volume: &VolumeId) -> Result<(), Status> {
        if self.may_have_layer(volume) {
            let locked = self.host().lock(volume).await;
            locked.map_err(|error| refuse::host("closing the encryption layer", &error))?;
        }
        self.host()
            .detach(volume)
            .await
            .map_err(|error| refuse::host("detaching the volume", &error))
    }

    /// The device on which what a staged volume holds can be seen.
    pub(super) async fn shown(&self, volume: &VolumeId, record: &StagedRecord) -> Result<Option<DevicePath>, Status> {
        if record.encrypted {
            self.open_layer(volume).await
        } else {
            self.bare(volume).await
        }
    }

    /// Only where some volumes have a layer is it looked for.
    fn may_have_layer(&self, volume: &VolumeId) -> bool {
        self.config.encrypts() || self.staged(volume).is_some_and(|record| record.encrypted)
    }

    /// The volume's device on this machine, or that of its layer, if one is open.
    pub(super) async fn attached(&self, volume: &VolumeId) -> Result<Option<DevicePath>, Status> {
        if self.may_have_layer(volume)
            && let Some(layer) = self.open_layer(volume).await?
        {
            return Ok(Some(layer));
        }
        self.bare(volume).await
    }

    /// The volume's device on this machine, under every layer.
    pub(super) async fn bare(&self, volume: &VolumeId) -> Result<Option<DevicePath>, Status> {
        self.host()
            .attached(volume)
            .await
            .map_err(|error| refuse::host("looking for the device", &error))
    }
}
