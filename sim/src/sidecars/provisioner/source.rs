//! What a volume shall hold at its birth: whether the source of a clone or restore is fit for it (fact sheet 3.4).
//!
//! All errors here are temporary for the provisioner: a source that is not ready may become so.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use wavetank_proto::csi::v1 as csi;

use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};

use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::api::{fields, names, quantity};

/// Who asks.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The claim that is provisioned.
    pub claim: &'a PersistentVolumeClaim,
    /// Its class.
    pub class: &'a StorageClass,
}

impl Asker<'_> {
    fn request(&self) -> u64 {
        fields::claim_request(self.claim)
    }

    /// Whether a claim can be cloned, as far as the claim itself says: then the name of its volume.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_claim<'s>(&self, source: &'s PersistentVolumeClaim) -> Result<&'s str, String> {
        let name = fields::name(&source.metadata);
        if fields::claim_phase(source) != "Bound" {
            let phase = fields::claim_phase(source);
            return Err(format!(
                "the PVC DataSource {name} must have a status of Bound.  Got {phase}"
            ));
        }
        if fields::is_deleting(&source.metadata) {
            return Err(format!("the PVC DataSource {name} is currently being deleted"));
        }
        let class = |claim: &PersistentVolumeClaim| claim.spec.as_ref().is_some_and(|s| s.storage_class_name.is_some());
        if !class(source) {
            return Err(format!("the source PVC ({name}) storageclass cannot be empty"));
        }
        if !class(self.claim) {
            let name = fields::name(&self.claim.metadata);
            return Err(format!("the requested PVC ({name}) storageclass cannot be empty"));
        }
        let (wanted, there) = (self.request(), fields::claim_request(source));
        if wanted < there {
            return Err(format!(
                "error, new PVC request must be greater than or equal in size to the specified PVC data source, requested {wanted} but source is {there}"
            ));
        }
        match fields::claim_volume(source) {
            "" => Err(format!("volume name is empty in source PVC {name}")),
            volume => Ok(volume),
        }
    }

    /// Whether the volume behind a claim can be cloned: then what the request says of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_volume(
        &self,
        source: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<csi::VolumeContentSource, String> {
        let invalid = || "claim in dataSource not bound or invalid".to_owned();
        let (driver, handle) = fields::volume_handle(volume).ok_or_else(invalid)?;
        let bound = fields::volume_claim(volume).is_some_and(|r| {
            r.uid == source.metadata.uid && r.namespace == source.metadata.namespace && r.name == source.metadata.name
        });
        if driver != self.class.provisioner || !bound || fields::volume_phase(volume) != "Bound" {
            return Err(invalid());
        }
        let (wanted, there) = (fields::claim_mode(self.claim), fields::volume_mode(volume));
        if wanted != there {
            return Err(format!(
                "the source PVC and destination PVCs must have the same volume mode for cloning.  Source is {there}, but new PVC requested {wanted}"
            ));
        }
        Ok(of_volume(handle))
    }

    /// Whether a snapshot can be restored, as far as the snapshot itself says: then the name of its content.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_snapshot<'s>(&self, snapshot: &'s VolumeSnapshot) -> Result<&'s str, String> {
        let name = fields::name(&snapshot.metadata);
        let started = fields::has_finalizer(&snapshot.metadata, names::VOLUME_SNAPSHOT_RESTORE);
        if fields::is_deleting(&snapshot.metadata) && !started {
            return Err(format!("snapshot {name} is being deleted"));
        }
        let content = snapshot
            .status
            .as_ref()
            .and_then(|s| s.bound_volume_snapshot_content_name.as_deref());
        content.ok_or_else(|| format!("snapshot {name} not bound"))
    }

    /// Whether a snapshot's content can be restored: then what the request says of it. `prevent`: `--prevent-volume-mode-conversion`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_content(
        &self,
        snapshot: &VolumeSnapshot,
        content: &VolumeSnapshotContent,
        prevent: bool,
    ) -> Result<csi::VolumeContentSource, String> {
        let (name, content_name) = (fields::name(&snapshot.metadata), fields::name(&content.metadata));
        let back = &content.spec.volume_snapshot_ref;
        if back.uid != snapshot.metadata.uid
            || back.namespace != snapshot.metadata.namespace
            || back.name != snapshot.metadata.name
        {
            return Err(format!(
                "snapshotcontent {content_name} for snapshot {name} is bound to a different snapshot"
            ));
        }
        if content.spec.driver != self.class.provisioner {
            let class = fields::name(&self.class.metadata);
            return Err(format!(
                "snapshotcontent {content_name} for snapshot {name} is not handled by CSI driver of StorageClass {class}"
            ));
        }
        let status = snapshot.status.as_ref();
        if status.and_then(|s| s.ready_to_use) != Some(true) {
            return Err(format!("snapshot {name} is not Ready"));
        }
        let handle = content.status.as_ref().and_then(|s| s.snapshot_handle.as_deref());
        let handle = handle.ok_or_else(|| format!("snapshot handle {name} is not available"))?;
        let least = status.and_then(|s| s.restore_size.as_ref()).map_or(0, quantity::bytes);
        let wanted = self.request();
        if wanted < least {
            return Err(format!(
                "requested volume size {wanted} is less than the size {least} for the source snapshot {name}"
            ));
        }
        if prevent {
            self.check_mode(content)?;
        }
        Ok(of_snapshot(handle))
    }

    /// A restore may change the volume mode only if an administrator allowed it on the content.
    fn check_mode(&self, content: &VolumeSnapshotContent) -> Result<(), String> {
        let asked = self.claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
        let changes = match (content.spec.source_volume_mode.as_deref(), asked) {
            (Some(there), Some(asked)) => there != asked,
            _ => false,
        };
        let allowed = fields::annotation(&content.metadata, names::ALLOW_VOLUME_MODE_CHANGE);
        if !changes || matches!(allowed, Some("1" | "t" | "T" | "true" | "TRUE" | "True")) {
            return Ok(());
        }
        let (namespace, claim) = (
            fields::namespace(&self.claim.metadata),
            fields::name(&self.claim.metadata),
        );
        let (key, content) = (names::ALLOW_VOLUME_MODE_CHANGE, fields::name(&content.metadata));
        let why = match allowed {
            None => format!("{key} annotation is not present on snapshotcontent {content}"),
            Some(value) => format!("{key} is {value:?} on snapshotcontent {content}"),
        };
        Err(format!(
            "requested volume {namespace}/{claim} modifies the mode of the source volume but does not have permission to do so. {why}"
        ))
    }
}

fn of_volume(handle: &str) -> csi::VolumeContentSource {
    csi::VolumeContentSource {
        r#type: Some(Type::Volume(VolumeSource {
            volume_id: handle.to_owned(),
        })),
    }
}

fn of_snapshot(handle: &str) -> csi::VolumeContentSource {
    csi::VolumeContentSource {
        r#type: Some(Type::Snapshot(SnapshotSource {
            snapshot_id: handle.to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::{Asker, of_snapshot, of_volume};
    use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
    use k8s_openapi::api::storage::v1::StorageClass;
    use serde_json::{Value, json};

    fn class() -> StorageClass {
        StorageClass {
            provisioner: "csi.example".into(),
            ..Default::default()
        }
    }

    fn claim() -> Value {
        json!({"metadata": {"name": "new", "namespace": "team"},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}})
    }

    fn source() -> Value {
        json!({"metadata": {"name": "src", "namespace": "team", "uid": "u1"},
            "spec": {"storageClassName": "slow", "volumeName": "pv1", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"}})
    }

    fn volume() -> Value {
        json!({"metadata": {"name": "pv1"},
            "spec": {"csi": {"driver": "csi.example", "volumeHandle": "h1"},
                "claimRef": {"name": "src", "namespace": "team", "uid": "u1"}},
            "status": {"phase": "Bound"}})
    }

    fn snapshot() -> Value {
        json!({"metadata": {"name": "snap", "namespace": "team", "uid": "s1"},
            "spec": {"source": {"persistentVolumeClaimName": "src"}},
            "status": {"boundVolumeSnapshotContentName": "c1", "readyToUse": true, "restoreSize": "1Gi"}})
    }

    fn content() -> Value {
        json!({"metadata": {"name": "c1"},
            "spec": {"deletionPolicy": "Delete", "driver": "csi.example", "source": {"volumeHandle": "h1"},
                "sourceVolumeMode": "Filesystem",
                "volumeSnapshotRef": {"name": "snap", "namespace": "team", "uid": "s1"}},
            "status": {"snapshotHandle": "sh1"}})
    }

    /// `value` with `to` at `path`.
    fn set(mut value: Value, path: &str, to: Value) -> Value {
        let (parent, key) = path.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[key] = to;
        value
    }

    fn clone(
        claim: Value,
        source: Value,
        volume: Value,
    ) -> Result<wavetank_proto::csi::v1::VolumeContentSource, String> {
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let source: PersistentVolumeClaim = serde_json::from_value(source).unwrap();
        let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
        let asker = Asker {
            claim: &claim,
            class: &class(),
        };
        asker.check_claim(&source)?;
        asker.check_volume(&source, &volume)
    }

    #[test]
    fn a_clone_demands_a_bound_source_of_the_same_driver_mode_and_no_larger_request() {
        assert_eq!(
            clone(claim(), source(), volume()),
            Ok(of_volume("h1")),
            "the class may differ"
        );
        let time = json!("2026-01-01T00:00:00Z");
        let refused = [
            (claim(), set(source(), "/status/phase", json!("Pending")), volume()),
            (claim(), set(source(), "/metadata/deletionTimestamp", time), volume()),
            (
                claim(),
                set(source(), "/spec/resources/requests/storage", json!("3Gi")),
                volume(),
            ),
            (claim(), source(), set(volume(), "/status/phase", json!("Released"))),
            (claim(), source(), set(volume(), "/spec/csi/driver", json!("other"))),
            (claim(), source(), set(volume(), "/spec/claimRef/uid", json!("u2"))),
            (set(claim(), "/spec/volumeMode", json!("Block")), source(), volume()),
        ];
        for (claim, source, volume) in refused {
            let what = format!("{claim} {source} {volume}");
            assert!(clone(claim, source, volume).is_err(), "{what}");
        }
    }

    fn restore(
        claim: Value,
        snapshot: Value,
        content: Value,
    ) -> Result<wavetank_proto::csi::v1::VolumeContentSource, String> {
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let snapshot: VolumeSnapshot = serde_json::from_value(snapshot).unwrap();
        let content: VolumeSnapshotContent = serde_json::from_value(content).unwrap();
        let asker = Asker {
            claim: &claim,
            class: &class(),
        };
        asker.check_snapshot(&snapshot)?;
        asker.check_content(&snapshot, &content, true)
    }

    #[test]
    fn a_restore_demands_a_ready_snapshot_that_fits() {
        assert_eq!(restore(claim(), snapshot(), content()), Ok(of_snapshot("sh1")));
        let refused = [
            (
                claim(),
                set(snapshot(), "/status/boundVolumeSnapshotContentName", Value::Null),
                content(),
            ),
            (claim(), set(snapshot(), "/status/readyToUse", json!(false)), content()),
            (claim(), set(snapshot(), "/status/restoreSize", json!("3Gi")), content()),
            (
                claim(),
                snapshot(),
                set(content(), "/spec/volumeSnapshotRef/uid", json!("s2")),
            ),
            (claim(), snapshot(), set(content(), "/spec/driver", json!("other"))),
            (
                claim(),
                snapshot(),
                set(content(), "/status/snapshotHandle", Value::Null),
            ),
            (set(claim(), "/spec/volumeMode", json!("Block")), snapshot(), content()),
        ];
        for (claim, snapshot, content) in refused {
            let what = format!("{claim} {snapshot} {content}");
            assert!(restore(claim, snapshot, content).is_err(), "{what}");
        }
        let allow = json!({"snapshot.storage.kubernetes.io/allow-volume-mode-change": "true"});
        let block = set(claim(), "/spec/volumeMode", json!("Block"));
        assert!(restore(block, snapshot(), set(content(), "/metadata/annotations", allow)).is_ok());
    }

    #[test]
    fn a_snapshot_under_deletion_is_still_restored_if_that_had_begun() {
        let deleting = set(snapshot(), "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
        assert!(restore(claim(), deleting.clone(), content()).is_err());
        let begun = json!(["provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"]);
        assert!(restore(claim(), set(deleting, "/metadata/finalizers", begun), content()).is_ok());
    }
}
