//! From the access modes of Kubernetes to the volume capability of CSI: one table, used by every sidecar (fact sheet 3.6).
//!
//! *Blind spots.* None; kubelet's own mapping differs (it takes only the first mode) and lives with kubelet.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use wavetank_proto::csi::v1 as csi;

use csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};

/// Maps a set of access modes to the one mode of CSI. `multi_writer`: the controller has SINGLE_NODE_MULTI_WRITER.
///
/// # Errors
/// When CSI has no word for the combination.
pub fn access_mode(modes: &[String], multi_writer: bool) -> Result<Mode, String> {
    let set: BTreeSet<&str> = modes.iter().map(String::as_str).collect();
    let has = |mode| set.contains(mode);
    if has("ReadWriteOncePod") {
        return match (set.len(), multi_writer) {
            (1, true) => Ok(Mode::SingleNodeSingleWriter),
            (1, false) => Ok(Mode::SingleNodeWriter),
            _ => Err("ReadWriteOncePod cannot be combined with other access modes on the same PersistentVolume".into()),
        };
    }
    match (has("ReadWriteMany"), has("ReadOnlyMany"), has("ReadWriteOnce")) {
        (true, _, _) => Ok(Mode::MultiNodeMultiWriter),
        (_, true, true) => {
            Err("CSI does not support ReadOnlyMany and ReadWriteOnce on the same PersistentVolume".into())
        }
        (_, true, false) => Ok(Mode::MultiNodeReaderOnly),
        (_, false, true) if multi_writer => Ok(Mode::SingleNodeMultiWriter),
        (_, false, true) => Ok(Mode::SingleNodeWriter),
        (false, false, false) => Err(format!("unsupported AccessMode combination: {modes:?}")),
    }
}

/// How a volume is to be used, apart from the access mode.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// `Block` instead of `Filesystem`.
    pub block: bool,
    /// The file system, verbatim; empty is allowed.
    pub fs_type: &'a str,
    /// Mount options.
    pub mount_flags: &'a [String],
}

impl Access<'_> {
    /// The capability with this mode.
    pub fn in_mode(&self, mode: Mode) -> csi::VolumeCapability {
        let access_type = if self.block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume {
                fs_type: self.fs_type.to_owned(),
                mount_flags: self.mount_flags.to_vec(),
                volume_mount_group: String::new(),
            })
        };
        csi::VolumeCapability {
            access_mode: Some(AccessMode { mode: mode as i32 }),
            access_type: Some(access_type),
        }
    }
}

/// The capability of a volume that exists: its whole set of access modes, its file system (or `default_fstype`) and its mount options.
///
/// # Errors
/// When it is no CSI volume, or its access modes have no word in CSI.
pub fn of_volume(
    volume: &PersistentVolume,
    default_fstype: &str,
    multi_writer: bool,
) -> Result<csi::VolumeCapability, String> {
    let no_spec = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&no_spec);
    let source = spec.csi.as_ref().ok_or("CSI volume source was nil")?;
    let fs_type = source.fs_type.as_deref().filter(|t| !t.is_empty());
    let access = Access {
        block: spec.volume_mode.as_deref() == Some("Block"),
        fs_type: fs_type.unwrap_or(default_fstype),
        mount_flags: spec.mount_options.as_deref().unwrap_or_default(),
    };
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    Ok(access.in_mode(access_mode(modes, multi_writer)?))
}

#[cfg(test)]
mod tests {
    use super::{Mode, access_mode, of_volume};
    use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeSpec};
    use wavetank_proto::csi::v1::volume_capability::AccessType;

    fn modes(short: &str) -> Vec<String> {
        let long = |word| match word {
            "RWO" => "ReadWriteOnce",
            "ROX" => "ReadOnlyMany",
            "RWX" => "ReadWriteMany",
            "RWOP" => "ReadWriteOncePod",
            other => panic!("no access mode {other}"),
        };
        short.split_whitespace().map(|w| long(w).to_owned()).collect()
    }

    #[test]
    fn access_modes_map_as_in_the_table() {
        // Fact sheet 3.6: (modes, without SINGLE_NODE_MULTI_WRITER, with it).
        let table = [
            ("RWO", Some(Mode::SingleNodeWriter), Some(Mode::SingleNodeMultiWriter)),
            ("RWOP", Some(Mode::SingleNodeWriter), Some(Mode::SingleNodeSingleWriter)),
            ("ROX", Some(Mode::MultiNodeReaderOnly), Some(Mode::MultiNodeReaderOnly)),
            (
                "RWX",
                Some(Mode::MultiNodeMultiWriter),
                Some(Mode::MultiNodeMultiWriter),
            ),
            (
                "RWO ROX RWX",
                Some(Mode::MultiNodeMultiWriter),
                Some(Mode::MultiNodeMultiWriter),
            ),
            ("ROX RWO", None, None),
            ("RWOP RWX", None, None),
            ("", None, None),
        ];
        for (given, plain, capable) in table {
            assert_eq!(access_mode(&modes(given), false).ok(), plain, "{given}");
            assert_eq!(access_mode(&modes(given), true).ok(), capable, "{given}");
        }
    }

    #[test]
    fn a_volume_gives_its_own_file_system_or_the_default_and_a_block_volume_none() {
        let mut volume = PersistentVolume {
            spec: Some(PersistentVolumeSpec {
                access_modes: Some(modes("RWO")),
                csi: Some(CSIPersistentVolumeSource::default()),
                mount_options: Some(vec!["noatime".into()]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mount = |volume: &PersistentVolume| match of_volume(volume, "ext4", false).map(|c| c.access_type) {
            Ok(Some(AccessType::Mount(mount))) => Some((mount.fs_type, mount.mount_flags)),
            _ => None,
        };
        assert_eq!(mount(&volume), Some(("ext4".into(), vec!["noatime".into()])));
        let spec = volume.spec.as_mut().unwrap();
        spec.csi.as_mut().unwrap().fs_type = Some("xfs".into());
        assert_eq!(mount(&volume), Some(("xfs".into(), vec!["noatime".into()])));
        volume.spec.as_mut().unwrap().volume_mode = Some("Block".into());
        assert_eq!(mount(&volume), None);
        volume.spec.as_mut().unwrap().csi = None;
        assert!(of_volume(&volume, "", false).is_err(), "not a CSI volume");
    }
}
