//! The protection controllers of kube-controller-manager: each keeps a finalizer on the objects of one kind while they are in use, so that a deletion
//! waits. Admission sets the finalizer at creation; they set it on objects that lack it. Source: fact sheet 1.10.

mod claim;
mod class;
mod guard;
#[cfg(test)]
mod tests;
mod volume;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{Index, Resource, fields};

pub use claim::{ClaimProtection, Key as ClaimProtectionKey, Memory as ClaimProtectionMemory};
pub use guard::{Guard, Guarded, Verdict};

/// Keeps volumes that are bound.
pub type VolumeProtection = Guard<PersistentVolume>;
/// Keeps volume attributes classes that somebody refers to.
pub type ClassProtection = Guard<VolumeAttributesClass>;

/// The indexes that they need in the cache of their process.
pub const INDEXES: &[Index] = &[Index::PodsByClaim];

/// What an object needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It is being deleted and the finalizer may go, if nobody uses it.
    MayGo,
    /// It lives and lacks the finalizer.
    Guard,
    /// Nothing.
    Nothing,
}

fn need(meta: &ObjectMeta, finalizer: &str) -> Need {
    match (fields::is_deleting(meta), fields::has_finalizer(meta, finalizer)) {
        (true, true) => Need::MayGo,
        (false, false) => Need::Guard,
        (true, false) | (false, true) => Need::Nothing,
    }
}

/// The object without the finalizer, for a full update.
fn without<T: Resource>(object: &T, finalizer: &str) -> T {
    let mut changed = object.clone();
    let meta = changed.meta_mut();
    let left: Vec<String> = fields::finalizers(meta)
        .iter()
        .filter(|f| *f != finalizer)
        .cloned()
        .collect();
    meta.finalizers = (!left.is_empty()).then_some(left);
    changed
}

/// The object with the finalizer, for a full update.
fn with<T: Resource>(object: &T, finalizer: &str) -> T {
    let mut changed = object.clone();
    changed
        .meta_mut()
        .finalizers
        .get_or_insert_default()
        .push(finalizer.into());
    changed
}
