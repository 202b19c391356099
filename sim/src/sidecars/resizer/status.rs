//! What external-resizer writes into the status of a claim: conditions, allocated resources, modification (fact sheet 7.5).
//!
//! Every function gives the status that a patch leads to; the patch carries what differs from the one it started from, which may be nothing. Timestamps have a
//! resolution of one second, so that an attempt in the same second changes no byte, and one in the next second does.

use k8s_openapi::api::core::v1::{ModifyVolumeStatus, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::quantity;

const RESIZING: &str = "Resizing";
const PENDING: &str = "FileSystemResizePending";
const CONTROLLER_ERROR: &str = "ControllerResizeError";
const NODE_ERROR: &str = "NodeResizeError";
const MODIFYING: &str = "ModifyingVolume";
const MODIFY_ERROR: &str = "ModifyVolumeError";

/// Being expanded by the controller.
pub const CONTROLLER_IN_PROGRESS: &str = "ControllerResizeInProgress";
/// Refused by the controller for good.
pub const CONTROLLER_INFEASIBLE: &str = "ControllerResizeInfeasible";
/// To be expanded by the node.
pub const NODE_PENDING: &str = "NodeResizePending";
/// Being expanded by the node.
pub const NODE_IN_PROGRESS: &str = "NodeResizeInProgress";
/// Refused by the node for good.
pub const NODE_INFEASIBLE: &str = "NodeResizeInfeasible";

/// The status of a claim.
pub type Status = PersistentVolumeClaimStatus;
type Condition = PersistentVolumeClaimCondition;

fn condition(kind: &str, now: &Time, message: Option<String>) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: "True".into(),
        last_transition_time: Some(now.clone()),
        message,
        ..Default::default()
    }
}

/// Puts a resize condition in the place of the one of its type, or at the end. Other resize conditions stay only if told so.
fn merge_resize(status: &mut Status, new: Option<Condition>, keep: bool) {
    let mut new = new;
    let mut result = Vec::new();
    for old in status.conditions.take().unwrap_or_default() {
        if ![RESIZING, PENDING, CONTROLLER_ERROR, NODE_ERROR].contains(&old.type_.as_str()) {
            result.push(old);
        } else if new.as_ref().is_some_and(|n| n.type_ == old.type_) {
            result.extend(new.take());
        } else if keep {
            result.push(old);
        }
    }
    result.extend(new);
    status.conditions = (!result.is_empty()).then_some(result);
}

fn set_resize_status(status: &mut Status, word: &str) {
    let statuses = status.allocated_resource_statuses.get_or_insert_default();
    statuses.insert("storage".into(), word.into());
}

/// The controller is about to expand to `target`. `update`: it is another size than the last.
pub fn resizing(of: &Status, target: u64, update: bool, now: &Time) -> Status {
    let mut status = of.clone();
    merge_resize(&mut status, Some(condition(RESIZING, now, None)), !update);
    if update {
        set_resize_status(&mut status, CONTROLLER_IN_PROGRESS);
    }
    let allocated = status.allocated_resources.get_or_insert_default();
    if allocated.get("storage").map(quantity::bytes) != Some(target) {
        allocated.insert("storage".into(), quantity::quantity(target));
    }
    status
}

/// The controller has expanded; the node is to.
pub fn node_pending(of: &Status, now: &Time) -> Status {
    let mut status = of.clone();
    let message = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
    merge_resize(&mut status, Some(condition(PENDING, now, Some(message.into()))), true);
    set_resize_status(&mut status, NODE_PENDING);
    status
}

/// The expansion is done, without the node.
pub fn finished(of: &Status, size: u64) -> Status {
    let mut status = of.clone();
    let capacity = status.capacity.get_or_insert_default();
    capacity.insert("storage".into(), quantity::quantity(size));
    merge_resize(&mut status, None, false);
    if let Some(statuses) = &mut status.allocated_resource_statuses {
        statuses.remove("storage");
    }
    status.allocated_resource_statuses.take_if(|s| s.is_empty());
    status
}

/// The controller's expansion failed finally; `infeasible`: and will not do better.
pub fn failed(of: &Status, error: &str, infeasible: bool, now: &Time) -> Status {
    let mut status = of.clone();
    let message = format!("failed to expand pvc with {error}");
    merge_resize(&mut status, Some(condition(CONTROLLER_ERROR, now, Some(message))), true);
    if infeasible {
        set_resize_status(&mut status, CONTROLLER_INFEASIBLE);
    }
    status
}

/// What came of a modification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifyError {
    /// The gRPC code's name.
    pub code: &'static str,
    /// The driver's message.
    pub message: String,
    /// Whether the call is certainly over.
    pub is_final: bool,
    /// Whether it will not do better.
    pub infeasible: bool,
}

/// Replaces conditions by type; a condition that was there with the same reason and status keeps its transition time.
fn merge_modify(status: &mut Status, new: Vec<Condition>, now: &Time) {
    let conditions = status.conditions.get_or_insert_default();
    for mut condition in new {
        condition.last_probe_time = Some(now.clone());
        match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
            Some(old) => {
                if old.reason == condition.reason && old.status == condition.status {
                    condition.last_transition_time.clone_from(&old.last_transition_time);
                }
                *old = condition;
            }
            None => conditions.push(condition),
        }
    }
}

/// No class of that name: the modification waits.
pub fn modify_pending(of: &Status) -> Status {
    let mut status = of.clone();
    status
        .modify_volume_status
        .get_or_insert_with(ModifyVolumeStatus::default)
        .status = "Pending".into();
    status
}

/// The controller is about to modify towards `target`.
pub fn modifying(of: &Status, target: &str, now: &Time) -> Status {
    let mut status = of.clone();
    status.modify_volume_status = Some(ModifyVolumeStatus {
        status: "InProgress".into(),
        target_volume_attributes_class_name: Some(target.to_owned()),
    });
    let message = format!("Modifying volume to {target:?} is in progress.");
    merge_modify(&mut status, vec![condition(MODIFYING, now, Some(message))], now);
    status
}

/// The modification failed, or may still be running.
pub fn modify_failed(of: &Status, error: &ModifyError, now: &Time) -> Status {
    let mut status = of.clone();
    let modify = status
        .modify_volume_status
        .get_or_insert_with(ModifyVolumeStatus::default);
    modify.status = if error.infeasible { "Infeasible" } else { "InProgress" }.into();
    let target = modify.target_volume_attributes_class_name.clone().unwrap_or_default();
    let how = if error.is_final {
        "failed. Waiting for retry."
    } else {
        "is still in progress."
    };
    let mut problem = condition(MODIFY_ERROR, now, Some(error.message.clone()));
    problem.reason = Some(error.code.to_owned());
    let progress = condition(MODIFYING, now, Some(format!("Modifying volume to {target:?} {how}")));
    merge_modify(&mut status, vec![progress, problem], now);
    status
}

/// The volume has the attributes of `class`.
pub fn modified(of: &Status, class: &str) -> Status {
    let mut status = of.clone();
    status.modify_volume_status = None;
    status.current_volume_attributes_class_name = Some(class.to_owned());
    without(&mut status, &[MODIFYING, MODIFY_ERROR]);
    status
}

/// The user has taken back the wish.
pub fn rolled_back(of: &Status) -> Status {
    let mut status = of.clone();
    without(&mut status, &[MODIFYING]);
    status
}

/// Whether a modification is announced.
pub fn is_modifying(of: &Status) -> bool {
    of.conditions.iter().flatten().any(|c| c.type_ == MODIFYING)
}

/// Whether the node's part of an expansion is announced.
pub fn is_node_pending(of: &Status) -> bool {
    of.conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == PENDING && c.status == "True")
}

fn without(status: &mut Status, kinds: &[&str]) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| !kinds.contains(&c.type_.as_str()));
    }
    status.conditions.take_if(|c| c.is_empty());
}

#[cfg(test)]
mod tests {
    use super::{ModifyError, Status, failed, finished, modified, modify_failed, modifying, node_pending, resizing};
    use crate::api::Clock;
    use crate::runtime::Time;

    fn at(seconds: u64) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
        Clock::EPOCH.time(Time(seconds * 1_000_000_000))
    }

    fn kinds(status: &Status) -> Vec<&str> {
        status.conditions.iter().flatten().map(|c| c.type_.as_str()).collect()
    }

    #[test]
    fn an_attempt_for_the_same_size_keeps_the_conditions_and_one_for_another_drops_them() {
        // Trace 08: Resizing, ControllerResizeError, FileSystemResizePending stand side by side until the claim is done.
        let first = resizing(&Status::default(), 2, true, &at(1));
        let broken = failed(&first, "no", false, &at(1));
        assert_eq!(kinds(&broken), ["Resizing", "ControllerResizeError"]);
        let same = resizing(&broken, 2, false, &at(1));
        assert_eq!(same, broken, "in the same second not a byte changes");
        assert_ne!(
            resizing(&broken, 2, false, &at(2)),
            broken,
            "in the next second one does"
        );
        assert_eq!(kinds(&resizing(&broken, 3, true, &at(2))), ["Resizing"]);
        let pending = node_pending(&same, &at(3));
        assert_eq!(
            kinds(&pending),
            ["Resizing", "ControllerResizeError", "FileSystemResizePending"]
        );
        let done = finished(&pending, 2);
        assert_eq!((kinds(&done), &done.allocated_resource_statuses), (vec![], &None));
        assert!(done.allocated_resources.is_some(), "what was allocated stays");
    }

    #[test]
    fn a_modification_keeps_the_moment_at_which_it_began() {
        // Trace 22.
        let error = ModifyError {
            code: "Internal",
            message: "no".into(),
            is_final: true,
            infeasible: false,
        };
        let began = modifying(&Status::default(), "silver", &at(1));
        let broken = modify_failed(&began, &error, &at(2));
        let again = modifying(&broken, "silver", &at(3));
        let progress = &again.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (&progress.last_transition_time, &progress.last_probe_time),
            (&Some(at(1)), &Some(at(3)))
        );
        assert_eq!(kinds(&again), ["ModifyingVolume", "ModifyVolumeError"]);
        let done = modified(&again, "silver");
        assert_eq!((done.modify_volume_status, done.conditions), (None, None));
    }
}
