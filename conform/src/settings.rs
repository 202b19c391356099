//! What the caller tells about a driver: sizes, parameters, secrets, patience.

use std::collections::BTreeMap;
use std::time::Duration;

/// What the checks are told. [`Settings::default`] suits a driver with no required parameters.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Begins every name that the checks give, so that two runs against one driver never meet.
    pub run: String,
    /// Parameters of the StorageClass.
    pub parameters: BTreeMap<String, String>,
    /// Parameters of the VolumeSnapshotClass.
    pub snapshot_parameters: BTreeMap<String, String>,
    /// Mutable parameters that the driver takes (VolumeAttributesClass); empty: not known.
    pub mutable_parameters: BTreeMap<String, String>,
    /// Given with every call that has a place for secrets.
    pub secrets: BTreeMap<String, String>,
    /// Given with one method only, by its name; it goes before `secrets`.
    pub secrets_of: BTreeMap<String, BTreeMap<String, String>>,
    /// The size of volumes in bytes.
    pub size: i64,
    /// The size they grow to.
    pub grown: i64,
    /// The file system asked for; empty: the driver's choice.
    pub fs_type: String,
    /// Mount flags.
    pub mount_flags: Vec<String>,
    /// The volume context with which the driver serves an inline ephemeral volume; `None`: it does not.
    pub ephemeral: Option<BTreeMap<String, String>>,
    /// Patience with one call.
    pub call_limit: Duration,
    /// Patience with one check.
    pub check_limit: Duration,
}

const MI: i64 = 1 << 20;

impl Default for Settings {
    fn default() -> Self {
        Self {
            run: "wt".to_owned(),
            parameters: BTreeMap::new(),
            snapshot_parameters: BTreeMap::new(),
            mutable_parameters: BTreeMap::new(),
            secrets: BTreeMap::new(),
            secrets_of: BTreeMap::new(),
            size: 64 * MI,
            grown: 128 * MI,
            fs_type: String::new(),
            mount_flags: Vec::new(),
            ephemeral: None,
            call_limit: Duration::from_secs(30),
            check_limit: Duration::from_secs(120),
        }
    }
}
