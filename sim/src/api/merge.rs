//! Two-way strategic merges: what a client sends that computed its patch from an object it had (`from`) and the one it wants (`to`).
//!
//! Only what differs between the two is written, so that a patch without resourceVersion leaves alone what somebody else changed meanwhile; a patch in
//! which nothing differs is empty and changes nothing. Conditions are merged by type, maps by key, lists of words are replaced.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaimCondition, PersistentVolumeClaimStatus};

/// Applies to the stored status of a claim what a client changed between `from` and `to`.
pub fn claim_status(
    stored: &mut PersistentVolumeClaimStatus,
    from: &PersistentVolumeClaimStatus,
    to: &PersistentVolumeClaimStatus,
) {
    field(&mut stored.phase, &from.phase, &to.phase);
    field(&mut stored.access_modes, &from.access_modes, &to.access_modes);
    map(&mut stored.capacity, &from.capacity, &to.capacity);
    map(
        &mut stored.allocated_resources,
        &from.allocated_resources,
        &to.allocated_resources,
    );
    map(
        &mut stored.allocated_resource_statuses,
        &from.allocated_resource_statuses,
        &to.allocated_resource_statuses,
    );
    field(
        &mut stored.current_volume_attributes_class_name,
        &from.current_volume_attributes_class_name,
        &to.current_volume_attributes_class_name,
    );
    field(
        &mut stored.modify_volume_status,
        &from.modify_volume_status,
        &to.modify_volume_status,
    );
    conditions(&mut stored.conditions, &from.conditions, &to.conditions);
}

fn field<T: Clone + PartialEq>(stored: &mut Option<T>, from: &Option<T>, to: &Option<T>) {
    if from != to {
        stored.clone_from(to);
    }
}

type Map<V> = Option<BTreeMap<String, V>>;

fn map<V: Clone + PartialEq>(stored: &mut Map<V>, from: &Map<V>, to: &Map<V>) {
    let empty = BTreeMap::new();
    let (from, to) = (from.as_ref().unwrap_or(&empty), to.as_ref().unwrap_or(&empty));
    if from == to {
        return;
    }
    let entries = stored.get_or_insert_default();
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        entries.remove(key);
    }
    for (key, value) in to.iter().filter(|(k, v)| from.get(*k) != Some(v)) {
        entries.insert(key.clone(), value.clone());
    }
    if entries.is_empty() {
        *stored = None;
    }
}

type Conditions = Option<Vec<PersistentVolumeClaimCondition>>;

fn conditions(stored: &mut Conditions, from: &Conditions, to: &Conditions) {
    let (from, to) = (from.as_deref().unwrap_or_default(), to.as_deref().unwrap_or_default());
    if from == to {
        return;
    }
    let find = |list: &[PersistentVolumeClaimCondition], kind: &str| list.iter().find(|c| c.type_ == kind).cloned();
    let current = stored.take().unwrap_or_default();
    let mut result = Vec::new();
    for wanted in to {
        let changed = find(from, &wanted.type_).as_ref() != Some(wanted);
        // Unchanged by the client: as it is stored, and gone if somebody removed it.
        let entry = if changed {
            Some(wanted.clone())
        } else {
            find(&current, &wanted.type_)
        };
        result.extend(entry);
    }
    let named: BTreeSet<&str> = from.iter().chain(to).map(|c| c.type_.as_str()).collect();
    result.extend(current.into_iter().filter(|c| !named.contains(c.type_.as_str())));
    *stored = (!result.is_empty()).then_some(result);
}

#[cfg(test)]
mod tests {
    use super::claim_status;
    use crate::api::quantity::quantity;
    use k8s_openapi::api::core::v1::{PersistentVolumeClaimCondition, PersistentVolumeClaimStatus};

    fn status(conditions: &[(&str, &str)], resize: &str) -> PersistentVolumeClaimStatus {
        let condition = |(kind, message): &(&str, &str)| PersistentVolumeClaimCondition {
            type_: (*kind).into(),
            status: "True".into(),
            message: Some((*message).into()),
            ..Default::default()
        };
        PersistentVolumeClaimStatus {
            conditions: (!conditions.is_empty()).then(|| conditions.iter().map(condition).collect()),
            allocated_resource_statuses: (!resize.is_empty()).then(|| [("storage".into(), resize.into())].into()),
            ..Default::default()
        }
    }

    #[test]
    fn what_the_client_did_not_change_stays_as_somebody_else_left_it() {
        let from = status(&[("Resizing", "")], "ControllerResizeInProgress");
        let to = status(
            &[("Resizing", ""), ("ControllerResizeError", "no")],
            "ControllerResizeInfeasible",
        );
        let mut stored = status(&[("Resizing", "newer"), ("Foreign", "")], "ControllerResizeInProgress");
        stored.capacity = Some([("storage".into(), quantity(7))].into());
        let capacity = stored.capacity.clone();
        claim_status(&mut stored, &from, &to);
        let expected = [("Resizing", "newer"), ("ControllerResizeError", "no"), ("Foreign", "")];
        let mut expected = status(&expected, "ControllerResizeInfeasible");
        expected.capacity = capacity;
        assert_eq!(stored, expected);
    }

    #[test]
    fn an_empty_patch_changes_nothing_and_a_full_removal_leaves_nothing() {
        let one = status(&[("Resizing", "")], "NodeResizePending");
        let mut stored = status(&[("Foreign", "")], "");
        claim_status(&mut stored, &one, &one);
        assert_eq!(stored, status(&[("Foreign", "")], ""));
        let mut stored = one.clone();
        claim_status(&mut stored, &one, &status(&[], ""));
        assert_eq!(stored, status(&[], ""));
    }
}
