//! Which process has which effects, and which phases an effect has: what makes a site possible at all.
//!
//! Blind spots: which controller writes which kind is not listed; a site that a run never meets is found when the run ends.

use super::kinds;
use super::manifest::DEFAULT_NAMESPACE;
use super::names::{Call, PlainPhase, Role};
use super::nearest::nearest;
use super::site::Phase;
use crate::api::{Kind, ObjKey, ObjectRef};

/// The API writes by their verbs, as audit logs have them.
pub(crate) const VERBS: [&str; 4] = ["create", "update", "patch", "delete"];
/// The phases of a call.
pub(crate) const OF_CALL: [PlainPhase; 4] = [
    PlainPhase::BeforeSend,
    PlainPhase::Received,
    PlainPhase::BeforeReply,
    PlainPhase::AfterReply,
];
/// The phases of a write.
pub(crate) const OF_WRITE: [PlainPhase; 2] = [PlainPhase::Before, PlainPhase::Applied];

/// Who sends a call that is about an object, as far as a site can name it.
fn caller(call: Call) -> Option<Role> {
    Some(match call {
        Call::CreateVolume | Call::DeleteVolume => Role::Provisioner,
        Call::ControllerPublishVolume | Call::ControllerUnpublishVolume => Role::Attacher,
        Call::ControllerExpandVolume | Call::ControllerModifyVolume => Role::Resizer,
        Call::CreateSnapshot | Call::DeleteSnapshot | Call::GetSnapshot => Role::Snapshotter,
        Call::CreateVolumeGroupSnapshot | Call::DeleteVolumeGroupSnapshot | Call::GetVolumeGroupSnapshot => {
            Role::Snapshotter
        }
        Call::NodeStageVolume | Call::NodeUnstageVolume | Call::NodePublishVolume | Call::NodeUnpublishVolume => {
            Role::Kubelet
        }
        Call::NodeExpandVolume | Call::NodeGetVolumeStats => Role::Kubelet,
        _ => return None,
    })
}

/// Whether a process of this role has this effect, and the effect this phase.
///
/// # Errors
/// A sentence with what is possible instead.
pub(crate) fn fits(role: Role, effect: &str, phase: Phase) -> Result<(), String> {
    if role == Role::Node {
        return Err("a node does nothing itself: name one of its processes, such as `kubelet/NODE`; `process: node/NODE` beside `at` says that the whole node crashes".to_owned());
    }
    let Some(call) = Call::parse(effect) else {
        return write_fits(role, effect, phase);
    };
    if let Phase::Plain(plain) = phase
        && !OF_CALL.contains(&plain)
    {
        return Err(format!(
            "{effect} is a call, and the phases of a call are {}",
            listed(&OF_CALL)
        ));
    }
    let Some(caller) = caller(call) else {
        return Err(format!("{effect} is about no object, so that no site can name it"));
    };
    let server = if caller == Role::Kubelet {
        Role::DriverNode
    } else {
        Role::DriverController
    };
    if role == caller || role == server {
        return Ok(());
    }
    Err(format!(
        "the {role} has nothing to do with {effect}: the {caller} sends it, the {server} answers"
    ))
}

fn write_fits(role: Role, effect: &str, phase: Phase) -> Result<(), String> {
    if !VERBS.contains(&effect) {
        let calls = Call::ALL.iter().filter(|call| caller(**call).is_some());
        let effects: Vec<&str> = calls.map(|call| call.as_str()).chain(VERBS).collect();
        return Err(match nearest(effect, effects.iter().copied()) {
            Some(near) => format!("there is no effect `{effect}`; did you mean `{near}`?"),
            None => format!("there is no effect `{effect}`; there are {}", effects.join(", ")),
        });
    }
    if matches!(role, Role::DriverController | Role::DriverNode | Role::Registrar) {
        return Err(format!("the {role} writes nothing to the API server"));
    }
    match phase {
        Phase::Plain(plain) if OF_WRITE.contains(&plain) => Ok(()),
        _ => Err(format!(
            "`{effect}` is a write, and the phases of a write are {}",
            listed(&OF_WRITE)
        )),
    }
}

fn listed(phases: &[PlainPhase]) -> String {
    let words: Vec<&str> = phases.iter().map(|phase| phase.as_str()).collect();
    words.join(", ")
}

/// The object of a site in its one spelling: `persistentvolumeclaim default/data` is `pvc data`.
///
/// # Errors
/// A sentence with the nearest kind.
pub(crate) fn object(text: &str) -> Result<String, String> {
    let Some((kind, name)) = text.split_once(' ') else {
        return Err(format!(
            "the third part of a site is a kind and a name, such as `pvc data`, not `{text}`"
        ));
    };
    let Some(kind) = kinds::by_word(kind) else {
        let words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.short()).collect();
        let near = nearest(kind, words.iter().copied());
        return Err(
            match near.or_else(|| nearest(kind, Kind::ALL.iter().map(|kind| kind.name()))) {
                Some(near) => format!("there is no kind `{kind}`; did you mean `{near}`?"),
                None => format!("there is no kind `{kind}`; there are {}", words.join(", ")),
            },
        );
    };
    let name = name.trim();
    let in_default = name
        .strip_prefix(DEFAULT_NAMESPACE)
        .and_then(|rest| rest.strip_prefix('/'));
    Ok(format!("{} {}", kind.short(), in_default.unwrap_or(name)))
}

/// The object that a site's spelling names: `pvc data`, `pod other/web`.
pub(crate) fn object_ref(text: &str) -> Option<ObjectRef> {
    let (kind, name) = text.split_once(' ')?;
    let kind = kinds::by_word(kind)?;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None if kind.namespaced() => (DEFAULT_NAMESPACE, name),
        None => ("", name),
    };
    Some(ObjectRef::new(kind, ObjKey::new(namespace, name)))
}

#[cfg(test)]
mod tests {
    use super::{fits, object};
    use crate::scenario::{Phase, Role};

    #[test]
    fn impossible_sites_are_refused_with_what_is_possible() {
        for (role, effect, phase, part) in [
            (
                Role::Attacher,
                "CreateVolume",
                "before-reply",
                "the provisioner sends it",
            ),
            (
                Role::Kubelet,
                "ControllerPublishVolume",
                "received",
                "the driver-controller answers",
            ),
            (
                Role::Provisioner,
                "CreateVolume",
                "applied",
                "before-send, received, before-reply, after-reply",
            ),
            (Role::Provisioner, "create", "before-reply", "before, applied"),
            (Role::DriverNode, "patch", "applied", "writes nothing"),
            (Role::Provisioner, "creat", "applied", "did you mean `create`"),
            (
                Role::Provisioner,
                "CreateVolum",
                "received",
                "did you mean `CreateVolume`",
            ),
            (Role::Kubelet, "GetPluginInfo", "received", "about no object"),
            (Role::Node, "patch", "applied", "name one of its processes"),
        ] {
            let error = fits(role, effect, Phase::parse(phase).unwrap()).unwrap_err();
            assert!(error.contains(part), "{role} {effect}: {error}");
        }
        for (role, effect, phase) in [
            (Role::Provisioner, "CreateVolume", "received"),
            (Role::DriverController, "CreateVolume", "after-op(2)"),
            (Role::Provisioner, "create", "before"),
            (Role::ControllerManager, "delete", "applied"),
        ] {
            assert_eq!(
                fits(role, effect, Phase::parse(phase).unwrap()),
                Ok(()),
                "{role} {effect} {phase}"
            );
        }
    }

    #[test]
    fn objects_have_one_spelling() {
        for (text, wanted) in [
            ("pvc data", "pvc data"),
            ("PersistentVolumeClaim default/data", "pvc data"),
            ("persistentvolumes other/data", "pv other/data"),
        ] {
            assert_eq!(object(text).as_deref(), Ok(wanted));
        }
        assert!(object("pcv data").unwrap_err().contains("did you mean `pvc`"));
        assert!(object("data").unwrap_err().contains("a kind and a name"));
    }
}
