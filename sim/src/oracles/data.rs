//! *Promise*: bytes that were acknowledged and synced stay readable, by whoever has the volume; nobody reads another volume's bytes, and a new volume shows
//! no old ones.
//!
//! *Why*: this is what storage is for.
//!
//! *Source*: `bugs.md` I2 no-loss, I4 right-bytes, I12 isolation; CSI v1.12, "Volume: a unit of storage that will be made available inside of a CO-managed
//! container".
//!
//! *Mutant*: `device-mixed-up` (D26), `detach-does-not-fence` (D33), `publish-ok-without-mount` (D46).
//!
//! The pods of a scenario write and read (steps `write` and `verify`), a witness knows what they were told; and at every step every volume's device is held
//! against that without asking any driver.

use super::{Oracle, Party, Promise, Season, View, Violation};
use crate::host::{Finding, Report};
use crate::link::Sight;

/// The promise.
pub static PROMISE: Promise = Promise {
    name: "durable-data",
    says: "acknowledged and synced bytes stay readable; nobody sees another volume's bytes, nor old ones",
    season: Season::Safety,
    source: "CSI v1.12, Terminology: Volume; POSIX fsync",
};

/// Judges [`PROMISE`]: by what pods and the player read, see [`broken`].
#[derive(Default)]
pub(super) struct DurableData;

impl Oracle for DurableData {
    fn promise(&self) -> &'static Promise {
        &PROMISE
    }

    fn unseen(&self, sight: &Sight) -> Option<&'static str> {
        match (sight.machines, sight.storage) {
            (_, true) => None,
            (true, false) => Some("bytes that no pod reads, and what a power loss takes"),
            (false, false) => Some("all of it: pods' data is not looked at"),
        }
    }
}

/// The violation that a reading of a volume shows. A copy that does not hold what its source held breaks another promise.
pub fn broken(label: &str, report: &Report, view: &View<'_>) -> Option<Violation> {
    let complaint = report.complaint()?;
    let inherited = report.findings.iter().any(is_inherited);
    let promise = if inherited {
        &super::clone_equals_source::PROMISE
    } else {
        &PROMISE
    };
    let blame = (Party::Driver, "CSI v1.12: a volume keeps what was written to it");
    let object = format!("pvc {}", label.strip_prefix("default/").unwrap_or(label));
    Some(view.broken(promise, blame, format!("{label}: {complaint}"), vec![object]))
}

/// The violation of a pod that finds no volume, or another one, behind its path.
pub fn elsewhere(label: &str, complaint: &str, view: &View<'_>) -> Violation {
    let blame = (
        Party::Driver,
        "CSI v1.12, NodePublishVolume: the volume is at the target path",
    );
    let object = format!("pvc {}", label.strip_prefix("default/").unwrap_or(label));
    view.broken(&PROMISE, blame, format!("{label}: {complaint}"), vec![object])
}

/// Whether what should be there was written to the source of a copy, before the copy was made.
fn is_inherited(finding: &Finding) -> bool {
    finding.inherited
}
