//! *Promise*: when all is over, nothing is left that belongs to nothing: no volume, snapshot, export, mount, device, staging or publishing directory,
//! attachment.
//!
//! *Why*: what nobody owns nobody deletes. Leaked volumes cost money, leaked mounts and devices block the next pod, months later.
//!
//! *Source*: CSI v1.12, "Volume Lifecycle"; `bugs.md` calls it I1 no-leak and I14 bounded.
//!
//! *Mutant*: `create-leaks-when-wait-fails` (D03), `delete-trusts-backend` (D11), `provisioner-forgets-in-progress` (S01).

use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::lapses::{is_lost_inline, is_stuck};
use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::api::ObjKey;
use crate::link::Sight;

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "no-leftovers",
    says: "in the calm nothing is left that belongs to nothing",
    season: Season::Calm,
    source: "CSI v1.12, Volume Lifecycle and the idempotency of DeleteVolume",
};

/// Judges [`PROMISE`].
#[derive(Default)]
pub(super) struct NoLeftovers;

impl Oracle for NoLeftovers {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        match (sight.storage, sight.holdings, sight.machines) {
            (true, ..) => None,
            (false, true, true) => Some("snapshots, and whom the storage lets in"),
            (false, true, false) => Some("snapshots, mounts and devices"),
            (false, false, true) => Some("volumes and snapshots: nobody tells what the backend holds"),
            (false, false, false) => Some("volumes, snapshots, mounts and devices"),
        }
    }

    fn settle(&mut self, view: &View<'_>, found: &mut Vec<Violation>) {
        let elsewhere = view.cluster.left_elsewhere().unwrap_or_else(|why| {
            found.push(mute(&why, view));
            Vec::new()
        });
        for left in view.cluster.strays().into_iter().chain(elsewhere) {
            if view.facts.retained().any(|handle| left.contains(handle))
                || is_forgotten(&left, view)
                || is_orphaned(&left, view)
                || is_stuck_attachment(&left, view)
            {
                continue;
            }
            let text = format!("{left} belongs to nothing and is still there");
            let blame = (Party::Undefined, "whoever dropped it: the last lines about it say who");
            found.push(view.broken(&PROMISE, blame, text, vec![left]));
        }
    }
}

/// The backend does not say what it holds.
fn mute(why: &str, view: &View<'_>) -> Violation {
    let text = format!("the driver cannot tell which volumes it holds: {why}");
    let blame = (
        Party::Driver,
        "CSI v1.12, ListVolumes; the inventory command of the profile",
    );
    view.broken(&PROMISE, blame, text, vec!["the inventory".to_owned()])
}

/// Whether kubelet itself leaves it behind: it died while it staged or unstaged.
fn is_forgotten(left: &str, view: &View<'_>) -> bool {
    let staged = left.contains("/plugins/kubernetes.io/csi/") || left.starts_with("the device ");
    let Some((what, node)) = left.rsplit_once(" on ") else {
        return false;
    };
    let record = what.strip_prefix("the staging record ");
    staged && view.facts.may_be_forgotten(node) || record.is_some_and(|path| view.facts.is_abandoned(node, path))
}

/// Whether Kubernetes itself leaves it behind: kubelet cannot read what it has staged.
fn is_stuck_attachment(left: &str, view: &View<'_>) -> bool {
    let attachment = left.strip_prefix("va ").map(ObjKey::cluster);
    let attachment = attachment.and_then(|key| view.cluster.get::<VolumeAttachment>(&key));
    attachment.is_some_and(|attachment| is_stuck(attachment, view.cluster))
}

/// Whether Kubernetes itself leaves it behind: the provisioner died while it made a volume for a claim that was deleted meanwhile, or kubelet cannot read the
/// record of an inline volume.
fn is_orphaned(left: &str, view: &View<'_>) -> bool {
    let volume = left.strip_prefix("volume ");
    let inside = volume.and_then(|left| left.strip_suffix(" in the storage system"));
    let elsewhere = || volume.and_then(|left| left.strip_suffix(" of the driver"));
    inside
        .or_else(elsewhere)
        .is_some_and(|handle| view.facts.is_orphaned(handle, view.cluster) || is_lost_inline(handle, view.cluster))
}
