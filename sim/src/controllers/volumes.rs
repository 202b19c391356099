//! The storage controllers of kube-controller-manager except attach-detach, with their flags: what the process runs besides.

use std::time::Duration;

use crate::api::Index;
use crate::control::{AnyShell, Shell};
use crate::mutants::Wrong;

use super::binder::{self, Binder};
use super::ephemeral::{self, EphemeralVolumes};
use super::expand::VolumeExpand;
use super::garbage::GarbageCollector;
use super::protection::{self, ClaimProtection, ClassProtection, VolumeProtection};

/// The flags of kube-controller-manager that concern them, by their names. Defaults of v1.36.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// `--pvclaimbinder-sync-period`: how often every claim and volume is looked at again.
    pub pvclaimbinder_sync_period: Duration,
    /// `--enable-dynamic-provisioning`: whether claims are handed to provisioners.
    pub enable_dynamic_provisioning: bool,
    /// `--concurrent-ephemeralvolume-syncs`: workers of the ephemeral-volume controller.
    pub concurrent_ephemeralvolume_syncs: usize,
    /// `--enable-garbage-collector`: whether objects follow their owners.
    pub enable_garbage_collector: bool,
    /// `--concurrent-gc-syncs`: workers of the garbage collector.
    pub concurrent_gc_syncs: usize,
    /// A mistake that it is to make. `None`: none.
    pub wrong: Option<Wrong>,
}

impl Default for Flags {
    fn default() -> Flags {
        let binder = binder::Flags::default();
        Flags {
            pvclaimbinder_sync_period: binder.pvclaimbinder_sync_period,
            enable_dynamic_provisioning: binder.enable_dynamic_provisioning,
            concurrent_ephemeralvolume_syncs: 5,
            enable_garbage_collector: true,
            concurrent_gc_syncs: 20,
            wrong: None,
        }
    }
}

/// The indexes that the controllers need in the cache of their process.
pub fn indexes() -> Vec<Index> {
    let mut indexes = [binder::INDEXES, ephemeral::INDEXES, protection::INDEXES].concat();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// The controllers, ready for a process.
pub fn controller_manager_shells(flags: &Flags) -> Vec<Box<dyn AnyShell>> {
    let binder = Binder::new(binder::Flags {
        pvclaimbinder_sync_period: flags.pvclaimbinder_sync_period,
        enable_dynamic_provisioning: flags.enable_dynamic_provisioning,
        wrong: flags.wrong,
    });
    let mut shells: Vec<Box<dyn AnyShell>> = vec![
        Box::new(Shell::new(binder)),
        Box::new(Shell::new(ClaimProtection::new(flags.wrong))),
        Box::new(Shell::new(VolumeProtection::default())),
        Box::new(Shell::new(ClassProtection::default())),
        Box::new(Shell::new(EphemeralVolumes::new(
            flags.concurrent_ephemeralvolume_syncs,
        ))),
        Box::new(Shell::new(VolumeExpand)),
    ];
    if flags.enable_garbage_collector {
        shells.push(Box::new(Shell::new(GarbageCollector::new(flags.concurrent_gc_syncs))));
    }
    shells
}
