//! What became of pods' data: the witness of it, and what storage systems and machines do to it.
//!
//! A volume is known by its driver and handle, and by how many volumes of that handle were deleted before it. Storage systems keep what they did
//! until somebody asks; it is taken in order before the witness is used and before a machine loses its power, which is the only other thing that
//! happens to data behind the pods' backs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Cluster;
use crate::host::{Fate, Machine, Report, Storage, VolumeKey, Witnesses};

/// The witness of pods' data.
#[derive(Default)]
pub(super) struct Data {
    witnesses: Witnesses,
    /// How many volumes of a name were deleted.
    deleted: BTreeMap<String, u64>,
    storages: Vec<(Arc<str>, Storage)>,
    /// What drivers without a modelled storage system said they did.
    told: Vec<(Arc<str>, Fate)>,
}

fn name(driver: &str, handle: &str) -> String {
    format!("{driver}/{handle}")
}

impl Data {
    fn key(&self, driver: &str, handle: &str) -> VolumeKey {
        let name = name(driver, handle);
        let generation = self.deleted.get(&name).copied().unwrap_or(0);
        VolumeKey::new(name, generation)
    }

    /// Takes in what the storage systems did.
    fn catch_up(&mut self) {
        let fates: Vec<(Arc<str>, Fate)> = self
            .storages
            .iter()
            .flat_map(|(driver, storage)| storage.take_fates().into_iter().map(|fate| (Arc::clone(driver), fate)))
            .chain(std::mem::take(&mut self.told))
            .collect();
        for (driver, fate) in fates {
            match fate {
                Fate::Copied { source, copy } => {
                    let copy = self.key(&driver, &copy);
                    self.witnesses.copied(&self.key(&driver, &source), copy);
                }
                Fate::CutOff(volume) => self.witnesses.may_have_lost(&self.key(&driver, volume.as_str())),
                Fate::Deleted(handle) => {
                    self.witnesses.retire(&self.key(&driver, &handle));
                    *self.deleted.entry(name(&driver, &handle)).or_default() += 1;
                }
            }
        }
    }

    /// A driver without a modelled storage system says what became of data.
    pub(super) fn tell(&mut self, driver: &Arc<str>, fate: Fate) {
        self.told.push((Arc::clone(driver), fate));
    }

    /// A machine loses its power.
    pub(super) fn crash(&mut self, machine: &Machine, now: crate::runtime::Time, spared: super::nodes::Spared) {
        self.catch_up();
        let mut at_risk: Vec<String> = Vec::new();
        machine.crash(now, &mut |volume, writes| {
            at_risk.push(volume.to_owned());
            spared.of(writes)
        });
        if machine.is_real() {
            self.witnesses.node_lost_power(machine.node());
        }
        for handle in at_risk {
            for (driver, _) in &self.storages {
                let key = self.key(driver, &handle);
                self.witnesses.may_have_lost(&key);
            }
        }
    }
}

impl Cluster {
    /// Adds the storage system of a driver, to look at.
    pub fn add_storage(&mut self, driver: impl Into<Arc<str>>, storage: Storage) {
        self.data.storages.push((driver.into(), storage));
    }

    /// The storage systems, with the names of their drivers.
    pub fn storages(&self) -> &[(Arc<str>, Storage)] {
        &self.data.storages
    }

    /// The storage system behind a driver.
    pub fn storage(&self, driver: &str) -> Option<&Storage> {
        let found = self.data.storages.iter().find(|(name, _)| **name == *driver);
        found.map(|(_, storage)| storage)
    }

    /// How the witness knows a volume.
    pub fn volume_key(&mut self, driver: &str, handle: &str) -> VolumeKey {
        self.data.catch_up();
        self.data.key(driver, handle)
    }

    /// The witness of pods' data, up to date.
    pub fn witnesses(&mut self) -> &mut Witnesses {
        self.data.catch_up();
        &mut self.data.witnesses
    }

    /// Holds every volume that still exists against what pods were told of it, without asking any driver: handles and reports.
    pub fn verify_volumes(&mut self) -> Vec<(String, Report)> {
        self.data.catch_up();
        let mut reports = Vec::new();
        for (driver, storage) in &self.data.storages {
            for volume in storage.volumes() {
                let key = self.data.key(driver, volume.id.as_str());
                let known = self.data.witnesses.volumes().any(|known| *known == key);
                if let Some(found) = storage.written(&volume.id).filter(|_| known) {
                    reports.push((volume.id.to_string(), self.data.witnesses.verify_device(&key, &found)));
                }
            }
        }
        reports
    }
}
