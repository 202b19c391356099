//! What mounting a file system and mapping a block device have in common: the volume, the pod, and what was learned on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, Pod, Secret, SecretReference,
};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use wavetank_proto::csi::v1 as csi;

use super::{OpError, get, got};
use crate::api::{Cache, ObjKey, fields, names};
use crate::control::{Effect, Outcome};
use crate::kubelet::actual::Class;
use crate::kubelet::csi_client;
use crate::kubelet::paths::Paths;
use crate::kubelet::volume::{PodRef, Source, VolumeName, VolumeSpec};
use crate::kubelet::{Kubelet, Turn, View};
use crate::runtime::Time;

/// The common part of mounting and mapping.
#[derive(Clone, Debug)]
pub struct Job {
    /// The volume.
    pub volume: VolumeName,
    /// As the pod wants it.
    pub spec: Arc<VolumeSpec>,
    /// The pod.
    pub pod: PodRef,
    /// The pod as the populator saw it.
    pub object: Arc<Pod>,
    /// When the context of the present half of the operation ends.
    pub deadline: Time,
    /// The driver has STAGE_UNSTAGE_VOLUME.
    pub stages: bool,
    /// The driver has VOLUME_MOUNT_GROUP.
    pub mount_group: bool,
    /// The driver has SINGLE_NODE_MULTI_WRITER.
    pub multi_writer: bool,
    context: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

impl Job {
    /// A job that knows nothing yet.
    pub fn new(volume: &VolumeName, spec: &Arc<VolumeSpec>, pod: &PodRef, object: &Arc<Pod>) -> Job {
        Job {
            volume: volume.clone(),
            spec: Arc::clone(spec),
            pod: pod.clone(),
            object: Arc::clone(object),
            deadline: Time::ZERO,
            stages: false,
            mount_group: false,
            multi_writer: false,
            context: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }

    /// A new half of the operation begins: its own context, nothing learned.
    ///
    /// # Errors
    /// The driver is not registered. Transient: nothing was asked of it.
    pub fn begin_half(&mut self, turn: &Turn<'_>, caller: &str) -> Result<(), OpError> {
        self.deadline = turn.now + turn.kubelet.constants.csi_timeout;
        self.context.clear();
        self.secrets.clear();
        if turn.memory.plugins.is_registered(&self.spec.driver) {
            return Ok(());
        }
        Err(OpError {
            class: Class::Transient,
            message: format!(
                "kubernetes.io/csi: {caller} failed to get CSI client: {}",
                csi_client::unregistered(&self.spec.driver)
            ),
        })
    }

    /// The CSIDriver object.
    pub fn driver<'a>(&self, cache: &'a Cache) -> Option<&'a Arc<CSIDriver>> {
        cache.named::<CSIDriver>(&self.spec.driver)
    }

    /// Whether the volume must be attached: yes unless the CSIDriver object says no.
    pub fn attaches(&self, cache: &Cache) -> bool {
        !self.spec.is_inline() && attach_required(cache, &self.spec.driver)
    }

    /// The question about capabilities.
    pub fn ask(&self, view: &View<'_>) -> Effect {
        csi_client::ask(&self.spec.driver, self.deadline.since(view.now))
    }

    /// Reads the attachment.
    pub fn read_attachment(&self, kubelet: &Kubelet) -> Effect {
        let name = names::attachment_name(&self.spec.driver, &self.spec.handle, &kubelet.node);
        get::<VolumeAttachment>(&ObjKey::cluster(name))
    }

    /// WaitForAttach: one look at the attachment.
    ///
    /// # Errors
    /// It is not there, being deleted, failed or not attached.
    pub fn check_attachment(outcome: &Outcome) -> Result<(), OpError> {
        let attachment = got::<VolumeAttachment>(outcome).map_err(OpError::last)?;
        let name = fields::name(&attachment.metadata);
        if fields::is_deleting(&attachment.metadata) {
            return Err(OpError::last(format!("volume attachment {name} is being deleted")));
        }
        // An attacher that wrote from a stale cache leaves the error of an earlier attempt there: attached is attached.
        if fields::is_attached(&attachment) {
            return Ok(());
        }
        let status = attachment.status.as_ref();
        match status.and_then(|s| s.attach_error.as_ref()) {
            Some(error) => Err(OpError::last(error.message.clone().unwrap_or_default())),
            None => Err(OpError::last(format!("volume attachment {name} is not attached yet"))),
        }
    }

    /// Takes the publish context out of the attachment.
    ///
    /// # Errors
    /// It cannot be read. Transient.
    pub fn take_context(&mut self, outcome: &Outcome) -> Result<(), OpError> {
        let attachment = got::<VolumeAttachment>(outcome).map_err(OpError::transient)?;
        let metadata = attachment.status.as_ref().and_then(|s| s.attachment_metadata.clone());
        self.context = metadata.unwrap_or_default();
        Ok(())
    }

    /// The secret for staging.
    pub fn stage_secret(&self) -> Option<ObjKey> {
        secret_key(pv_csi(self.spec.pv()?)?.node_stage_secret_ref.as_ref()?)
    }

    /// The secret for publishing; of an inline volume in the pod's namespace.
    pub fn publish_secret(&self) -> Option<ObjKey> {
        match &self.spec.source {
            Source::Persistent(pv) => secret_key(pv_csi(pv)?.node_publish_secret_ref.as_ref()?),
            Source::Inline(source, namespace) => {
                let name = source.node_publish_secret_ref.as_ref()?.name.as_str();
                (!name.is_empty()).then(|| ObjKey::new(namespace.as_str(), name))
            }
            Source::Reconstructed { .. } => None,
        }
    }

    /// Takes the data of a secret.
    ///
    /// # Errors
    /// It cannot be read. Transient.
    pub fn take_secret(&mut self, outcome: &Outcome) -> Result<(), OpError> {
        self.secrets = secret_data(outcome).map_err(OpError::transient)?;
        Ok(())
    }

    /// The group that owns the volume, if the driver is to see to that.
    fn group(&self) -> Option<String> {
        let security = self.object.spec.as_ref()?.security_context.as_ref()?;
        security.fs_group.filter(|_| self.mount_group).map(|g| g.to_string())
    }

    /// The request to stage.
    pub fn stage_request(&self, paths: Paths<'_>) -> csi::NodeStageVolumeRequest {
        csi::NodeStageVolumeRequest {
            volume_id: self.spec.handle.clone(),
            publish_context: self.context.clone(),
            staging_target_path: paths.staging(&self.spec),
            volume_capability: Some(csi_client::capability(&self.spec, self.multi_writer, self.group())),
            secrets: self.secrets.clone(),
            volume_context: csi_client::attributes(&self.spec),
        }
    }

    /// The request to publish.
    pub fn publish_request(&self, view: &View<'_>) -> csi::NodePublishVolumeRequest {
        let paths = view.kubelet.paths();
        let mut volume_context = csi_client::attributes(&self.spec);
        let driver = self.driver(view.cache);
        if driver.is_some_and(|d| d.spec.pod_info_on_mount == Some(true)) {
            volume_context.extend(self.pod_info());
        }
        let staging = if self.stages || self.spec.block {
            paths.staging(&self.spec)
        } else {
            String::new()
        };
        csi::NodePublishVolumeRequest {
            volume_id: self.spec.handle.clone(),
            publish_context: self.context.clone(),
            staging_target_path: staging,
            target_path: paths.target(&self.spec, &self.pod),
            volume_capability: Some(csi_client::capability(&self.spec, self.multi_writer, self.group())),
            readonly: self.spec.read_only,
            secrets: self.secrets.clone(),
            volume_context,
        }
    }

    fn pod_info(&self) -> BTreeMap<String, String> {
        let spec = self.object.spec.as_ref();
        let account = spec.and_then(|s| s.service_account_name.clone());
        let info = [
            ("pod.name", fields::name(&self.object.metadata).to_owned()),
            ("pod.namespace", fields::namespace(&self.object.metadata).to_owned()),
            ("pod.uid", self.pod.uid.to_string()),
            (
                "serviceAccount.name",
                account.unwrap_or_else(|| String::from("default")),
            ),
            ("ephemeral", self.spec.is_inline().to_string()),
        ];
        let prefixed = info.into_iter().map(|(k, v)| (format!("csi.storage.k8s.io/{k}"), v));
        prefixed.collect()
    }

    /// The guards in front of every mount: the volume fits this node, and a ReadWriteOncePod volume has no other pod here, not even an uncertain one.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn check(&self, turn: &Turn<'_>) -> Result<(), OpError> {
        let node = turn.cache.named::<Node>(&turn.kubelet.node);
        if let (Some(pv), Some(node)) = (self.spec.pv(), node)
            && !fits(pv, node)
        {
            let node = &turn.kubelet.node;
            return Err(OpError::last(format!(
                "volume {} is not accessible from node {node}: its node affinity does not match",
                self.spec.name
            )));
        }
        let actual = turn.memory.actual.volumes.get(&self.volume);
        let others = actual.is_some_and(|v| v.pods.keys().any(|p| *p != self.pod));
        if matches!(self.spec.modes(), [only] if only == "ReadWriteOncePod") && others {
            return Err(OpError::last(String::from(
                "volume uses the ReadWriteOncePod access mode and is already in use by another pod",
            )));
        }
        Ok(())
    }

    /// Whether kubelet changes the ownership of the volume's files itself after it was published (fact sheet 6.9).
    pub fn changes_ownership(&self, cache: &Cache) -> bool {
        let security = self.object.spec.as_ref().and_then(|s| s.security_context.as_ref());
        if security.and_then(|s| s.fs_group).is_none() || self.spec.read_only || self.mount_group {
            return false;
        }
        let policy = self
            .driver(cache)
            .and_then(|d| d.spec.fs_group_policy.as_deref())
            .unwrap_or("ReadWriteOnceWithFSType");
        match policy {
            "None" => false,
            "File" => true,
            _ => self.has_fs_type() && (self.spec.is_inline() || self.is_once()),
        }
    }

    fn has_fs_type(&self) -> bool {
        let fs = match &self.spec.source {
            Source::Persistent(pv) => pv_csi(pv).and_then(|c| c.fs_type.as_deref()),
            Source::Inline(source, _) => source.fs_type.as_deref(),
            Source::Reconstructed { .. } => None,
        };
        fs.is_some_and(|fs| !fs.is_empty())
    }

    fn is_once(&self) -> bool {
        let once = |m: &String| m == "ReadWriteOnce" || m == "ReadWriteOncePod";
        self.spec.modes().iter().any(once)
    }

    /// An inline volume needs a CSIDriver object that lists `Ephemeral`; a persistent one must be listed if there is an object.
    ///
    /// # Errors
    /// The driver does not allow it. Transient.
    pub fn check_lifecycle(&self, cache: &Cache) -> Result<(), OpError> {
        let wanted = if self.spec.is_inline() {
            "Ephemeral"
        } else {
            "Persistent"
        };
        let listed = |d: &Arc<CSIDriver>| match d.spec.volume_lifecycle_modes.as_deref() {
            None | Some([]) => wanted == "Persistent",
            Some(modes) => modes.iter().any(|m| m == wanted),
        };
        match self.driver(cache) {
            None if wanted == "Ephemeral" => Err(OpError::transient(format!(
                "volume mode \"Ephemeral\" not supported by driver {} (no CSIDriver object)",
                self.spec.driver
            ))),
            Some(driver) if !listed(driver) => Err(OpError::transient(format!(
                "volume mode \"{wanted}\" not supported by driver {} (only supports {:?})",
                self.spec.driver,
                driver.spec.volume_lifecycle_modes.as_deref().unwrap_or_default()
            ))),
            None | Some(_) => Ok(()),
        }
    }
}

/// Whether volumes of a driver must be attached: yes unless its CSIDriver object says no.
pub fn attach_required(cache: &Cache, driver: &str) -> bool {
    let object = cache.named::<CSIDriver>(driver);
    object.is_none_or(|d| d.spec.attach_required != Some(false))
}

/// The data of a secret as strings.
///
/// # Errors
/// It cannot be read.
pub fn secret_data(outcome: &Outcome) -> Result<BTreeMap<String, String>, String> {
    let secret = got::<Secret>(outcome)?;
    let data = secret.data.clone().unwrap_or_default();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(data.into_iter().map(|(k, v)| (k, text(v.0))).collect())
}

/// The key that a secret reference names.
pub fn secret_key(reference: &SecretReference) -> Option<ObjKey> {
    let (namespace, name) = (reference.namespace.as_deref()?, reference.name.as_deref()?);
    Some(ObjKey::new(namespace, name))
}

/// The CSI source of a volume.
pub fn pv_csi(pv: &PersistentVolume) -> Option<&k8s_openapi::api::core::v1::CSIPersistentVolumeSource> {
    pv.spec.as_ref()?.csi.as_ref()
}

/// Whether a volume's node affinity matches a node's labels.
fn fits(pv: &PersistentVolume, node: &Node) -> bool {
    let affinity = pv.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let Some(selector) = affinity.and_then(|a| a.required.as_ref()) else {
        return true;
    };
    let term = |term: &NodeSelectorTerm| {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields_wanted = term.match_fields.as_deref().unwrap_or_default();
        let name = |key: &str| (key == "metadata.name").then(|| fields::name(&node.metadata));
        (!labels.is_empty() || !fields_wanted.is_empty())
            && labels.iter().all(|r| meets(r, fields::label(&node.metadata, &r.key)))
            && fields_wanted.iter().all(|r| meets(r, name(&r.key)))
    };
    selector.node_selector_terms.iter().any(term)
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|w| w == v));
    let compare = |by: fn(&i64, &i64) -> bool| {
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = values.first().and_then(|v| number(v));
        value.and_then(number).zip(bound).is_some_and(|(v, b)| by(&v, &b))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|v, b| v > b),
        "Lt" => compare(|v, b| v < b),
        _ => false,
    }
}
