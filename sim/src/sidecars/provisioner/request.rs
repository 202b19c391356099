//! From claim and class to CreateVolumeRequest, and from the answer to the PersistentVolume (fact sheet 3.4).
//!
//! A [`Draft`] is what can be said without asking the API server; content source, topology, secrets and mutable parameters are filled in by the steps of
//! [`super::claim`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, SecretReference,
};
use k8s_openapi::api::storage::v1::StorageClass;
use wavetank_proto::csi::v1 as csi;

use csi::volume_capability::access_mode::Mode;

use crate::api::{ObjKey, fields, names, quantity};
use crate::sidecars::capability::{Access, access_mode};
use crate::sidecars::connect::{ControllerRpc, Discovered, PluginService};

use super::Flags;
use super::secrets::{PREFIX, Purpose};
use super::topology;

/// What a volume shall hold at its birth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// What another claim holds.
    Claim(ObjKey),
    /// What a snapshot holds.
    Snapshot(ObjKey),
}

impl Source {
    /// The kind of the object.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::Claim(_) => "PersistentVolumeClaim",
            Source::Snapshot(_) => "VolumeSnapshot",
        }
    }

    /// Where it is.
    pub fn key(&self) -> &ObjKey {
        match self {
            Source::Claim(key) | Source::Snapshot(key) => key,
        }
    }
}

/// A request in the making.
#[derive(Clone, Default)]
pub struct Draft {
    /// What is said so far.
    pub request: csi::CreateVolumeRequest,
    /// What it shall hold.
    pub source: Option<Source>,
    /// The file system that the volume object will name; empty for none.
    pub fs_type: String,
    /// The secret of CreateVolume, named on the volume object for DeleteVolume.
    pub provisioner_secret: Option<SecretReference>,
    /// The secret of ControllerModifyVolume.
    pub modify_secret: Option<SecretReference>,
    /// What the volume object will say about CSI, without handle and attributes.
    pub csi: CSIPersistentVolumeSource,
}

/// Why there is no draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The data source is nothing a CSI driver knows: a populator's business.
    Populator,
    /// A final error.
    Invalid(String),
}

impl From<String> for Refusal {
    fn from(message: String) -> Refusal {
        Refusal::Invalid(message)
    }
}

/// Why a draft cannot be finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    /// It may work later.
    Later(String),
    /// It will not.
    Final(String),
}

/// Checks the claim against the driver's capabilities and drafts the request.
///
/// # Errors
/// When the claim or its class asks for what the driver cannot do.
pub fn draft(
    flags: &Flags,
    discovered: &Discovered,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
) -> Result<Draft, Refusal> {
    let source = source(claim)?;
    check_capabilities(discovered, source.as_ref(), class_of_attributes(claim).is_some())?;
    if claim.spec.as_ref().is_some_and(|s| s.selector.is_some()) {
        return Err(Refusal::Invalid("claim Selector is not supported".into()));
    }
    let fs_type = fs_type(class, &flags.default_fstype)?;
    let volume_capabilities = capabilities(claim, class, &fs_type, discovered.multi_writer())?;
    let request = csi::CreateVolumeRequest {
        name: volume_name(flags, fields::uid(&claim.metadata))?,
        capacity_range: Some(csi::CapacityRange {
            required_bytes: i64::try_from(fields::claim_request(claim)).unwrap_or(i64::MAX),
            limit_bytes: 0,
        }),
        volume_capabilities,
        ..Default::default()
    };
    Ok(Draft {
        request,
        source,
        fs_type,
        ..Draft::default()
    })
}

/// The data source of a claim: `spec.dataSource`, else `spec.dataSourceRef`.
fn source(claim: &PersistentVolumeClaim) -> Result<Option<Source>, Refusal> {
    let Some(spec) = &claim.spec else { return Ok(None) };
    let (group, kind, name) = match (&spec.data_source, &spec.data_source_ref) {
        (Some(s), _) => (&s.api_group, s.kind.as_str(), s.name.as_str()),
        (None, Some(s)) => {
            if s.namespace.as_deref().is_some_and(|n| !n.is_empty()) {
                let off =
                    "dataSourceRef namespace specified but the CrossNamespaceVolumeDataSource feature is disabled";
                return Err(Refusal::Invalid(off.into()));
            }
            (&s.api_group, s.kind.as_str(), s.name.as_str())
        }
        (None, None) => return Ok(None),
    };
    if name.is_empty() {
        let claim = fields::name(&claim.metadata);
        return Err(Refusal::Invalid(format!("the PVC source not found for PVC {claim}")));
    }
    let key = ObjKey::new(fields::namespace(&claim.metadata), name);
    let group = group.as_deref().unwrap_or_default();
    match kind {
        "PersistentVolumeClaim" => Ok(Some(Source::Claim(key))),
        "VolumeSnapshot" if group == "snapshot.storage.k8s.io" => Ok(Some(Source::Snapshot(key))),
        "VolumeSnapshot" => Err(Refusal::Invalid(format!(
            "the PVC source does not belong to the right APIGroup. Expected snapshot.storage.k8s.io, Got {group}"
        ))),
        _ => Err(Refusal::Populator),
    }
}

/// The VolumeAttributesClass that a claim names.
pub fn class_of_attributes(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_attributes_class_name.as_deref();
    name.filter(|n| !n.is_empty())
}

/// Whether the driver can create (and delete) at all, and with this source and these attributes.
///
/// # Errors
/// Names the capability that is missing.
pub fn check_capabilities(discovered: &Discovered, source: Option<&Source>, attributes: bool) -> Result<(), String> {
    let missing = |wish: &str, service: &str, capability: &str| {
        Err(format!(
            "CSI driver does not support {wish}: {service} {capability} capability is not reported"
        ))
    };
    let has = |rpc| discovered.controller(rpc);
    if !discovered.plugin(PluginService::ControllerService) {
        return missing("dynamic provisioning", "plugin", "CONTROLLER_SERVICE");
    }
    if !has(ControllerRpc::CreateDeleteVolume) {
        return missing("dynamic provisioning", "controller", "CREATE_DELETE_VOLUME");
    }
    match source {
        Some(Source::Snapshot(_)) if !has(ControllerRpc::CreateDeleteSnapshot) => {
            return missing("snapshot restore", "controller", "CREATE_DELETE_SNAPSHOT");
        }
        Some(Source::Claim(_)) if !has(ControllerRpc::CloneVolume) => {
            return missing("clone operations", "controller", "CLONE_VOLUME");
        }
        _ => {}
    }
    if attributes && !has(ControllerRpc::ModifyVolume) {
        return missing("VolumeAttributesClass", "controller", "MODIFY_VOLUME");
    }
    Ok(())
}

/// `<prefix>-<uid>`, or the prefix and the first digits of the UID.
fn volume_name(flags: &Flags, uid: &str) -> Result<String, String> {
    let prefix = &flags.volume_name_prefix;
    if prefix.is_empty() {
        return Err("volume name prefix cannot be of length 0".into());
    }
    if uid.is_empty() {
        return Err("corrupted PVC object, it is missing UID".into());
    }
    let Ok(length) = usize::try_from(flags.volume_name_uuid_length) else {
        return Ok(format!("{prefix}-{uid}"));
    };
    let digits: String = uid.chars().filter(|c| *c != '-').take(length).collect();
    Ok(format!("{prefix}-{digits}"))
}

fn fs_type(class: &StorageClass, default: &str) -> Result<String, String> {
    let key = format!("{PREFIX}fstype");
    let parameters = class.parameters.iter().flatten();
    let named = parameters.filter(|(k, _)| k.eq_ignore_ascii_case("fstype") || **k == key);
    let mut named = named.map(|(_, v)| v.as_str());
    let first = named.next();
    if named.next().is_some() {
        return Err(format!(
            "fstype specified in parameters with both \"fstype\" and \"{key}\" keys"
        ));
    }
    Ok(first.filter(|t| !t.is_empty()).unwrap_or(default).to_owned())
}

/// One capability per access mode of the claim.
fn capabilities(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    fs_type: &str,
    multi_writer: bool,
) -> Result<Vec<csi::VolumeCapability>, String> {
    let access = Access {
        block: fields::claim_mode(claim) == "Block",
        fs_type,
        mount_flags: class.mount_options.as_deref().unwrap_or_default(),
    };
    let modes = fields::claim_modes(claim).iter();
    modes
        .map(|mode| Ok(access.in_mode(access_mode(std::slice::from_ref(mode), multi_writer)?)))
        .collect()
}

impl Draft {
    /// Resolves the secrets that the volume object names, and the parameters for the driver.
    ///
    /// # Errors
    /// When parameters do not resolve.
    pub fn finish(
        &mut self,
        flags: &Flags,
        driver: &str,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<(), Unready> {
        let none = BTreeMap::new();
        let parameters = class.parameters.as_ref().unwrap_or(&none);
        let volume = self.request.name.clone();
        let secret = |purpose: Purpose| purpose.reference(parameters, &volume, claim).map_err(Unready::Later);
        self.csi = CSIPersistentVolumeSource {
            driver: driver.to_owned(),
            controller_publish_secret_ref: secret(Purpose::ControllerPublish)?,
            node_stage_secret_ref: secret(Purpose::NodeStage)?,
            node_publish_secret_ref: secret(Purpose::NodePublish)?,
            controller_expand_secret_ref: secret(Purpose::ControllerExpand)?,
            node_expand_secret_ref: secret(Purpose::NodeExpand)?,
            ..Default::default()
        };
        self.modify_secret = secret(Purpose::ControllerModify)?;
        self.request.parameters = strip(parameters).map_err(Unready::Final)?;
        if flags.extra_create_metadata {
            let metadata = [
                ("pvc/name", fields::name(&claim.metadata)),
                ("pvc/namespace", fields::namespace(&claim.metadata)),
                ("pv/name", &volume),
            ];
            let entries = metadata.map(|(key, value)| (format!("{PREFIX}{key}"), value.to_owned()));
            self.request.parameters.extend(entries);
        }
        Ok(())
    }

    /// The volume object for what the driver made.
    pub fn volume(&self, of: &Provisioned<'_>) -> PersistentVolume {
        let Provisioned {
            flags,
            claim,
            class,
            volume,
            ..
        } = of;
        let modes = fields::claim_modes(claim);
        let reader = Mode::MultiNodeReaderOnly as i32;
        let single_reader = match self.request.volume_capabilities.as_slice() {
            [only] => only.access_mode.is_some_and(|m| m.mode == reader),
            _ => false,
        };
        let mut attributes = volume.volume_context.clone();
        attributes
            .entry("storage.kubernetes.io/csiProvisionerIdentity".into())
            .or_insert_with(|| of.identity.to_owned());
        let block = fields::claim_mode(claim) == "Block";
        let csi = CSIPersistentVolumeSource {
            volume_handle: volume.volume_id.clone(),
            volume_attributes: Some(attributes),
            read_only: (single_reader && flags.controller_publish_readonly).then_some(true),
            fs_type: (!block && !self.fs_type.is_empty()).then(|| self.fs_type.clone()),
            ..self.csi.clone()
        };
        let capacity = quantity::quantity(u64::try_from(of.capacity).unwrap_or(0));
        let spec = PersistentVolumeSpec {
            access_modes: Some(modes.to_vec()),
            mount_options: class.mount_options.clone().filter(|o| !o.is_empty()),
            capacity: Some([("storage".to_owned(), capacity)].into()),
            csi: Some(csi),
            claim_ref: Some(fields::claim_reference(claim)),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into())),
            storage_class_name: fields::claim_class(claim).map(str::to_owned),
            volume_mode: claim.spec.as_ref().and_then(|s| s.volume_mode.clone()),
            node_affinity: of
                .topology
                .then(|| topology::node_affinity(&volume.accessible_topology))
                .flatten(),
            volume_attributes_class_name: class_of_attributes(claim).map(str::to_owned),
            ..Default::default()
        };
        let mut object = PersistentVolume {
            spec: Some(spec),
            ..Default::default()
        };
        object.metadata.name = Some(self.request.name.clone());
        object.metadata.finalizers = Some(vec![names::PROVISIONER_FINALIZER.into()]);
        object.metadata.annotations = Some(self.annotations(&class.provisioner));
        object
    }

    fn annotations(&self, provisioner: &str) -> BTreeMap<String, String> {
        let part = |secret: &Option<SecretReference>, name: bool| {
            let of = secret
                .as_ref()
                .and_then(|s| if name { s.name.clone() } else { s.namespace.clone() });
            of.unwrap_or_default()
        };
        let deletion = &self.provisioner_secret;
        let mut annotations = BTreeMap::from([
            (names::PROVISIONED_BY.to_owned(), provisioner.to_owned()),
            (names::DELETION_SECRET_NAME.to_owned(), part(deletion, true)),
            (names::DELETION_SECRET_NAMESPACE.to_owned(), part(deletion, false)),
        ]);
        if self.modify_secret.is_some() {
            annotations.insert(names::MODIFY_SECRET_NAME.into(), part(&self.modify_secret, true));
            annotations.insert(names::MODIFY_SECRET_NAMESPACE.into(), part(&self.modify_secret, false));
        }
        annotations
    }
}

/// What a driver made, and for whom.
pub struct Provisioned<'a> {
    /// The provisioner's flags.
    pub flags: &'a Flags,
    /// The claim, as it was when the attempt began.
    pub claim: &'a Arc<PersistentVolumeClaim>,
    /// Its class.
    pub class: &'a Arc<StorageClass>,
    /// The driver's answer.
    pub volume: &'a csi::Volume,
    /// The size of the volume in bytes: the answer's, or the requested one when the driver does not know.
    pub capacity: i64,
    /// Whether the driver knows of topology.
    pub topology: bool,
    /// Who provisioned it: changes with every start of the process.
    pub identity: &'a str,
}

/// The class's parameters without Kubernetes' own.
fn strip(parameters: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let is_known = |key: &str| {
        let secret = |p: &Purpose| [p.keys().0, p.keys().1].contains(&key);
        key == "fstype" || Purpose::ALL.iter().any(secret)
    };
    let mut stripped = BTreeMap::new();
    for (key, value) in parameters {
        match key.strip_prefix(PREFIX) {
            None => {
                stripped.insert(key.clone(), value.clone());
            }
            Some(known) if is_known(known) => {}
            Some(_) => {
                return Err(format!(
                    "failed to strip CSI Parameters of prefixed keys: found unknown parameter key {key:?} with reserved namespace {PREFIX}"
                ));
            }
        }
    }
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::{Draft, Provisioned, Refusal, Source, Unready, draft};
    use crate::api::quantity::quantity;
    use crate::api::{ObjKey, fields};
    use crate::sidecars::connect::{ControllerRpc, Discovered, PluginService};
    use crate::sidecars::provisioner::Flags;
    use k8s_openapi::api::core::v1::{
        PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference, VolumeResourceRequirements,
    };
    use k8s_openapi::api::storage::v1::StorageClass;
    use std::sync::Arc;
    use wavetank_proto::csi::v1 as csi;

    fn driver() -> Discovered {
        Discovered::of(
            "csi.example",
            &[PluginService::ControllerService],
            &[ControllerRpc::CreateDeleteVolume, ControllerRpc::SingleNodeMultiWriter],
        )
    }

    fn claim() -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some("data".into());
        claim.metadata.namespace = Some("team".into());
        claim.metadata.uid = Some("12-34".into());
        claim.metadata.resource_version = Some("7".into());
        claim.spec = Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), quantity(5))].into()),
                ..Default::default()
            }),
            storage_class_name: Some("fast".into()),
            ..Default::default()
        });
        claim
    }

    fn class(parameters: &[(&str, &str)]) -> StorageClass {
        let parameters = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        StorageClass {
            provisioner: "csi.example".into(),
            parameters: Some(parameters.collect()),
            ..Default::default()
        }
    }

    fn with_source(group: Option<&str>, kind: &str) -> PersistentVolumeClaim {
        let mut claim = claim();
        claim.spec.as_mut().unwrap().data_source = Some(TypedLocalObjectReference {
            api_group: group.map(str::to_owned),
            kind: kind.into(),
            name: "src".into(),
        });
        claim
    }

    #[test]
    fn a_plain_claim_gives_name_size_and_one_capability_per_mode() {
        // Trace 01; a class without fstype gives an empty one.
        let mut claim = claim();
        claim.spec.as_mut().unwrap().access_modes = Some(vec!["ReadWriteOnce".into(), "ReadOnlyMany".into()]);
        let draft = draft(&Flags::default(), &driver(), &claim, &class(&[])).ok().unwrap();
        assert_eq!(draft.request.name, "pvc-12-34");
        assert_eq!(draft.request.capacity_range.unwrap().required_bytes, 5);
        assert_eq!(
            draft.request.volume_capabilities.len(),
            2,
            "each mode is mapped by itself"
        );
        assert_eq!(draft.fs_type, "");
    }

    #[test]
    fn the_name_follows_prefix_and_length() {
        let flags = Flags {
            volume_name_prefix: "vol".into(),
            volume_name_uuid_length: 3,
            ..Flags::default()
        };
        let draft = draft(&flags, &driver(), &claim(), &class(&[])).ok().unwrap();
        assert_eq!(draft.request.name, "vol-123");
    }

    #[test]
    fn the_file_system_comes_from_either_key_but_not_from_both() {
        let key = "csi.storage.k8s.io/fstype";
        let flags = Flags {
            default_fstype: "ext4".into(),
            ..Flags::default()
        };
        let of = |parameters: &[(&str, &str)]| {
            let draft = draft(&flags, &driver(), &claim(), &class(parameters));
            draft.map(|d| d.fs_type).map_err(|_| "refused")
        };
        assert_eq!(of(&[(key, "xfs")]), Ok("xfs".into()));
        assert_eq!(of(&[("fsType", "btrfs")]), Ok("btrfs".into()), "in any case");
        assert_eq!(of(&[]), Ok("ext4".into()));
        assert_eq!(of(&[("fstype", "xfs"), (key, "xfs")]), Err("refused"));
    }

    #[test]
    fn data_sources_need_capabilities_and_others_are_left_to_populators() {
        let refusal = |claim: &PersistentVolumeClaim, driver: &Discovered| {
            draft(&Flags::default(), driver, claim, &class(&[]))
                .map(|d| d.source)
                .err()
        };
        let snapshot = with_source(Some("snapshot.storage.k8s.io"), "VolumeSnapshot");
        let clone = with_source(None, "PersistentVolumeClaim");
        assert!(matches!(refusal(&snapshot, &driver()), Some(Refusal::Invalid(m)) if m.contains("SNAPSHOT")));
        assert!(matches!(refusal(&clone, &driver()), Some(Refusal::Invalid(m)) if m.contains("CLONE_VOLUME")));
        assert!(matches!(
            refusal(&with_source(None, "VolumeSnapshot"), &driver()),
            Some(Refusal::Invalid(_))
        ));
        let other = with_source(Some("example.com"), "Populator");
        assert_eq!(refusal(&other, &driver()), Some(Refusal::Populator));
        let able = Discovered::of(
            "csi.example",
            &[PluginService::ControllerService],
            &[ControllerRpc::CreateDeleteVolume, ControllerRpc::CloneVolume],
        );
        let draft = draft(&Flags::default(), &able, &clone, &class(&[])).ok().unwrap();
        assert_eq!(draft.source, Some(Source::Claim(ObjKey::new("team", "src"))));
    }

    #[test]
    fn a_selector_is_refused() {
        let mut claim = claim();
        claim.spec.as_mut().unwrap().selector = Some(Default::default());
        let refused = draft(&Flags::default(), &driver(), &claim, &class(&[])).err();
        assert_eq!(
            refused,
            Some(Refusal::Invalid("claim Selector is not supported".into()))
        );
    }

    fn finished(flags: &Flags, parameters: &[(&str, &str)]) -> Result<Draft, Unready> {
        let (claim, class) = (claim(), class(parameters));
        let mut draft = draft(flags, &driver(), &claim, &class).ok().unwrap();
        draft.finish(flags, "csi.example", &claim, &class)?;
        Ok(draft)
    }

    #[test]
    fn kubernetes_own_parameters_stay_behind_and_metadata_is_added_on_demand() {
        let flags = Flags {
            extra_create_metadata: true,
            ..Flags::default()
        };
        let secret = [
            ("csi.storage.k8s.io/controller-expand-secret-name", "a"),
            ("csi.storage.k8s.io/controller-expand-secret-namespace", "b"),
        ];
        let mut parameters = vec![("tier", "gold"), ("fstype", "xfs")];
        parameters.extend(secret);
        let draft = finished(&flags, &parameters).ok().unwrap();
        let given: Vec<(&str, &str)> = draft.request.parameters.iter().map(|(k, v)| (&**k, &**v)).collect();
        let expected = [
            ("csi.storage.k8s.io/pv/name", "pvc-12-34"),
            ("csi.storage.k8s.io/pvc/name", "data"),
            ("csi.storage.k8s.io/pvc/namespace", "team"),
            ("fstype", "xfs"),
            ("tier", "gold"),
        ];
        assert_eq!(given, expected, "plain fstype stays");
        assert_eq!(
            draft.csi.controller_expand_secret_ref.unwrap().name.as_deref(),
            Some("a")
        );
        let unknown = finished(&Flags::default(), &[("csi.storage.k8s.io/oops", "")]);
        assert!(
            matches!(unknown, Err(Unready::Final(_))),
            "an unknown key with the prefix is final"
        );
    }

    #[test]
    fn the_volume_object_says_what_the_recorded_one_says() {
        // Trace 08: finalizer, annotations, identity, claimRef with the version of the claim, no read-only, no fsType.
        let (claim, class) = (Arc::new(claim()), Arc::new(class(&[])));
        let draft = finished(&Flags::default(), &[]).ok().unwrap();
        let volume = csi::Volume {
            volume_id: "h1".into(),
            volume_context: [("k".to_owned(), "v".to_owned())].into(),
            accessible_topology: vec![csi::Topology {
                segments: [("zone".to_owned(), "a".to_owned())].into(),
            }],
            ..Default::default()
        };
        let object = draft.volume(&Provisioned {
            flags: &Flags::default(),
            claim: &claim,
            class: &class,
            volume: &volume,
            capacity: 1 << 30,
            topology: true,
            identity: "1-2-csi.example",
        });
        let expected = serde_json::json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {
                "name": "pvc-12-34",
                "annotations": {
                    "pv.kubernetes.io/provisioned-by": "csi.example",
                    "volume.kubernetes.io/provisioner-deletion-secret-name": "",
                    "volume.kubernetes.io/provisioner-deletion-secret-namespace": "",
                },
                "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"},
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data", "namespace": "team",
                    "resourceVersion": "7", "uid": "12-34",
                },
                "csi": {
                    "driver": "csi.example", "volumeHandle": "h1",
                    "volumeAttributes": {"k": "v", "storage.kubernetes.io/csiProvisionerIdentity": "1-2-csi.example"},
                },
                "nodeAffinity": {"required": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                ]}},
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": "fast",
            },
        });
        assert_eq!(serde_json::to_value(&object).unwrap(), expected);
        assert_eq!(fields::volume_handle(&object), Some(("csi.example", "h1")));
    }
}
