//! The schemas of the kinds that the cluster knows, and where a misplaced key really lives.
//!
//! Schemas come from the Kubernetes types themselves (k8s-openapi) and are built when a kind is first met.
//!
//! Blind spots: k8s-openapi lists no enum values, so `accessModes: [ReadWriteOnc]` passes here and is refused by the API server, as in Kubernetes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::OnceLock;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use super::check::Better;
use crate::api::Kind;
use crate::api::snapshot;

/// Kinds of Kubernetes that no modelled process reads.
const NOT_MODELLED: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "EndpointSlice",
    "HorizontalPodAutoscaler",
    "Ingress",
    "Job",
    "Lease",
    "LimitRange",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PriorityClass",
    "ReplicaSet",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Service",
    "StatefulSet",
    "ValidatingAdmissionPolicy",
    "VolumeGroupSnapshot",
    "VolumeGroupSnapshotClass",
    "VolumeGroupSnapshotContent",
];

/// Whether Kubernetes has this kind although the cluster does not.
pub(crate) fn not_modelled(kind: &str) -> bool {
    NOT_MODELLED.contains(&kind)
}

/// The kind with this name.
pub(crate) fn by_name(name: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.name() == name)
}

/// The kind that kubectl understands by this word: its name in any case, its plural or its short name.
pub(crate) fn by_word(word: &str) -> Option<Kind> {
    let word = word.to_lowercase();
    Kind::ALL.iter().copied().find(|kind| {
        let name = kind.name().to_lowercase();
        word == name || word == kind.plural() || word == kind.short()
    })
}

/// The schema of a kind; `$ref` points into the document itself.
pub(crate) fn schema(kind: Kind) -> &'static Json {
    static SCHEMAS: [OnceLock<Json>; 32] = [const { OnceLock::new() }; 32];
    SCHEMAS[kind as usize].get_or_init(|| build(kind))
}

fn build(kind: Kind) -> Json {
    let mut schema = match kind {
        Kind::Namespace => root::<core::Namespace>(),
        Kind::Node => root::<core::Node>(),
        Kind::Pod => root::<core::Pod>(),
        Kind::PersistentVolumeClaim => root::<core::PersistentVolumeClaim>(),
        Kind::PersistentVolume => root::<core::PersistentVolume>(),
        Kind::Event => root::<core::Event>(),
        Kind::Secret => root::<core::Secret>(),
        Kind::ConfigMap => root::<core::ConfigMap>(),
        Kind::ServiceAccount => root::<core::ServiceAccount>(),
        Kind::StorageClass => root::<storage::StorageClass>(),
        Kind::VolumeAttachment => root::<storage::VolumeAttachment>(),
        Kind::CSINode => root::<storage::CSINode>(),
        Kind::CSIDriver => root::<storage::CSIDriver>(),
        Kind::CSIStorageCapacity => root::<storage::CSIStorageCapacity>(),
        Kind::VolumeAttributesClass => root::<storage::VolumeAttributesClass>(),
        Kind::VolumeSnapshot => root::<snapshot::VolumeSnapshot>(),
        Kind::VolumeSnapshotContent => root::<snapshot::VolumeSnapshotContent>(),
        Kind::VolumeSnapshotClass => root::<snapshot::VolumeSnapshotClass>(),
    };
    for key in ["apiVersion", "kind"] {
        schema["properties"][key] = json!({"type": "string"});
    }
    schema
}

fn root<T: JsonSchema>() -> Json {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// What is known of `key`, which does not exist below `path` of a `kind`: the right key, if there is one, and a sentence.
pub(crate) fn misplaced(kind: Kind, path: &str, key: &str) -> Option<Better> {
    if let Some((right, why)) = trap(kind, &without_indices(path), key) {
        return Some(Better {
            key: right.map(str::to_owned),
            help: why.to_owned(),
            sure: true,
        });
    }
    let own = find(schema(kind), key).map(|there| (there.clone(), format!("in a {} it is `{there}`", kind.name())));
    let (right, help) = own.or_else(|| {
        const LIKELY: [Kind; 6] = [
            Kind::PersistentVolumeClaim,
            Kind::PersistentVolume,
            Kind::StorageClass,
            Kind::CSIDriver,
            Kind::VolumeSnapshot,
            Kind::Pod,
        ];
        LIKELY
            .iter()
            .chain(Kind::ALL)
            .filter(|other| **other != kind)
            .find_map(|other| {
                let there = find(schema(*other), key)?;
                Some((
                    format!("{} {there}", other.name()),
                    format!("`{key}` lives in {}, as `{there}`", other.name()),
                ))
            })
    })?;
    Some(Better {
        key: Some(right),
        help,
        sure: false,
    })
}

/// Keys that tutorials have and the API never had, or has for another purpose: what people mean by them.
fn trap(kind: Kind, path: &str, key: &str) -> Option<(Option<&'static str>, &'static str)> {
    Some(match (kind, path, key) {
        (_, "", "refused") => (
            None,
            "an object that is to be refused stands under a key of its own: `apply: {manifest: …, refused: …}`",
        ),
        (Kind::CSIDriver, "spec", "controllerExpand" | "nodeExpand" | "allowVolumeExpansion") => (
            Some("StorageClass allowVolumeExpansion"),
            "a driver says that it can expand by its own capability EXPAND_VOLUME; what permits it is `allowVolumeExpansion: true` in the StorageClass",
        ),
        (Kind::Pod, "spec.volumes.csi", "volumeHandle") => (
            Some("PersistentVolume spec.csi.volumeHandle"),
            "kubelet makes up the handle of an inline volume; only a PersistentVolume has one, as `spec.csi.volumeHandle`. The driver is told what it needs in `volumeAttributes`",
        ),
        (Kind::StorageClass | Kind::VolumeAttributesClass | Kind::VolumeSnapshotClass, "", "spec") => {
            (None, "a class has no spec: its keys stand at the top level")
        }
        (Kind::PersistentVolumeClaim, "spec", "storage") => (
            Some("spec.resources.requests.storage"),
            "the size is `spec.resources.requests.storage`",
        ),
        (Kind::PersistentVolumeClaim, "spec", "capacity") => (
            Some("spec.resources.requests.storage"),
            "a claim asks for its size in `spec.resources.requests.storage`; `capacity` belongs to its status",
        ),
        (Kind::PersistentVolumeClaim, "spec", "reclaimPolicy" | "persistentVolumeReclaimPolicy") => (
            Some("StorageClass reclaimPolicy"),
            "the class says it (`reclaimPolicy`), or the PersistentVolume (`spec.persistentVolumeReclaimPolicy`)",
        ),
        (Kind::PersistentVolumeClaim, "spec", "resizePolicy") => (
            Some("StorageClass allowVolumeExpansion"),
            "what permits expansion is `allowVolumeExpansion: true` in the StorageClass",
        ),
        _ => return None,
    })
}

/// `spec.containers[0].name` as `spec.containers.name`.
fn without_indices(path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

/// The shortest path at which a schema has `key`, metadata left out.
fn find(root: &Json, key: &str) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([(root, String::new())]);
    while let Some((schema, path)) = queue.pop_front() {
        let schema = match schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|r| r.strip_prefix("#/$defs/"))
        {
            Some(name) if seen.insert(name) => &root["$defs"][name],
            Some(_) => continue,
            None => schema,
        };
        if let Some(items) = schema.get("items") {
            queue.push_back((items, format!("{path}[]")));
        }
        for (name, inner) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let there = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            if name == key {
                return Some(there);
            }
            if there != "metadata" && there != "status" {
                queue.push_back((inner, there));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_schema_with_metadata() {
        for kind in Kind::ALL {
            let schema = schema(*kind);
            assert!(schema["properties"]["metadata"].is_object(), "{kind:?}");
            assert!(schema["properties"]["kind"].is_object(), "{kind:?}");
        }
    }

    #[test]
    fn kubectl_words_name_kinds() {
        for word in ["pvc", "PersistentVolumeClaim", "persistentvolumeclaims", "PVC"] {
            assert_eq!(by_word(word), Some(Kind::PersistentVolumeClaim), "{word}");
        }
        assert_eq!(by_word("volume"), None);
    }

    #[test]
    fn a_key_is_found_where_it_lives() {
        assert_eq!(
            find(schema(Kind::PersistentVolume), "volumeHandle").as_deref(),
            Some("spec.csi.volumeHandle")
        );
        assert_eq!(
            find(schema(Kind::Pod), "volumeMounts").as_deref(),
            Some("spec.containers[].volumeMounts"),
            "the shortest path wins"
        );
        assert_eq!(find(schema(Kind::Pod), "nothing"), None);
    }
}
