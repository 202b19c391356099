//! Fields of requests, parsed at the edge: what passes is typed, what does not is `INVALID_ARGUMENT` and changes
//! nothing.
//!
//! The limits are those of the CSI specification, v1.12, *Size Limits* and *Field Requirements*.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tonic::Status;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_capability::AccessType;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode as WireMode;
use wavetank_proto::limits::{
    MAP_BYTES as MAP, MOUNT_FLAGS_BYTES, NODE_ID_BYTES as NODE_ID, PLUGIN_NAME_BYTES, STRING_BYTES as STRING,
    TOPOLOGY_NAME_BYTES, TOPOLOGY_VALUE_BYTES,
};

use crate::config::Config;
use crate::pool::Source;
use crate::units::{BadPath, Bytes, FsKind, GroupId, HostPath, NodeId, Segments, SnapshotId, VolumeId};

fn invalid(text: String) -> Status {
    Status::invalid_argument(text)
}

/// May a name of a volume hold it? CSI allows tab, line feed and carriage return, and no other control character.
fn is_forbidden(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}

/// At most 63 letters, digits, `-` and `.`, alphanumeric at both ends.
pub(crate) fn is_driver_name(name: &str) -> bool {
    is_label(name, PLUGIN_NAME_BYTES, |c| matches!(c, '-' | '.'))
}

fn is_label(text: &str, max: usize, inside: fn(char) -> bool) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= max
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || inside(c))
}

pub(crate) fn is_node_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= NODE_ID && !text.chars().any(char::is_control)
}

/// Is it a topology segment?
///
/// # Errors
/// The rule it breaks, in words.
pub(crate) fn segment(key: &str, value: &str) -> Result<(), String> {
    let inside = |c| matches!(c, '-' | '_' | '.');
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    if key.contains('/') && (!is_driver_name(prefix) || prefix.chars().any(|c| c.is_ascii_uppercase())) {
        return Err("the key's prefix is a lower-case domain name of at most 63 characters".to_owned());
    }
    if !is_label(name, TOPOLOGY_NAME_BYTES, inside) {
        return Err("the key's name is at most 63 letters, digits, `-`, `_` and `.`".to_owned());
    }
    if !value.is_empty() && !is_label(value, TOPOLOGY_VALUE_BYTES, inside) {
        return Err("the value is at most 63 letters, digits, `-`, `_` and `.`".to_owned());
    }
    Ok(())
}

/// A required identifier that becomes a key of the ledger: no control characters at all.
fn identifier<'a>(field: &str, text: &'a str, max: usize) -> Result<&'a str, Status> {
    if text.is_empty() {
        return Err(invalid(format!("{field} is required")));
    }
    if text.len() > max {
        return Err(invalid(format!("{field} is longer than {max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{field} holds a control character")));
    }
    Ok(text)
}

/// The required `volume_id`.
pub(crate) fn volume_id(text: &str) -> Result<VolumeId, Status> {
    identifier("volume_id", text, STRING).map(VolumeId::new)
}

/// The required `source_volume_id` of a snapshot.
pub(crate) fn source_volume_id(text: &str) -> Result<VolumeId, Status> {
    identifier("source_volume_id", text, STRING).map(VolumeId::new)
}

/// The required `snapshot_id`.
pub(crate) fn snapshot_id(text: &str) -> Result<SnapshotId, Status> {
    identified("snapshot_id", text)
}

/// A required snapshot, by the name of its field.
pub(crate) fn identified(field: &str, text: &str) -> Result<SnapshotId, Status> {
    identifier(field, text, STRING).map(SnapshotId::new)
}

/// The required `group_snapshot_id`.
pub(crate) fn group_id(text: &str) -> Result<GroupId, Status> {
    identifier("group_snapshot_id", text, STRING).map(GroupId::new)
}

/// The required `node_id`.
pub(crate) fn node_id(text: &str) -> Result<NodeId, Status> {
    identifier("node_id", text, NODE_ID).map(NodeId::new)
}

/// The required name of a volume.
pub(crate) fn name(text: &str) -> Result<String, Status> {
    if text.is_empty() {
        return Err(invalid("name is required".to_owned()));
    }
    if text.len() > STRING {
        return Err(invalid(format!("name is longer than {STRING} bytes")));
    }
    if text.chars().any(is_forbidden) {
        return Err(invalid("name holds a control character".to_owned()));
    }
    Ok(text.to_owned())
}

/// A map within the size limit.
pub(crate) fn map(field: &str, map: &BTreeMap<String, String>) -> Result<(), Status> {
    let size: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAP {
        return Err(invalid(format!("{field} is larger than {MAP} bytes")));
    }
    Ok(())
}

/// Secrets: their keys obey a rule, and no text about them ever holds a value.
pub(crate) fn secrets(map: &BTreeMap<String, String>) -> Result<(), Status> {
    self::map("secrets", map)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if map.keys().any(|key| key.is_empty() || !key.chars().all(legal)) {
        return Err(invalid(
            "a key of secrets holds more than letters, digits, `-`, `_` and `.`".to_owned(),
        ));
    }
    Ok(())
}

/// A required path below one of the roots.
pub(crate) fn path(config: &Config, field: &str, text: &str) -> Result<HostPath, Status> {
    if text.is_empty() {
        return Err(invalid(format!("{field} is required")));
    }
    let path = HostPath::parse(text).map_err(|why| invalid(format!("{field}: {why}")))?;
    if !config.roots.iter().any(|root| path != *root && path.is_within(root)) {
        return Err(invalid(format!(
            "{field} lies outside the directories this driver may touch"
        )));
    }
    Ok(path)
}

/// A required path that is only looked up, never acted upon: one where nothing of the driver's can be is `NOT_FOUND`.
pub(crate) fn known_path(config: &Config, field: &str, text: &str) -> Result<HostPath, Status> {
    path(config, field, text).map_err(|refusal| match HostPath::parse(text) {
        Err(BadPath::Empty | BadPath::TooLong | BadPath::Control) => refusal,
        Err(BadPath::Relative | BadPath::NotPlain) | Ok(_) => Status::not_found(format!("no volume is at {field}")),
    })
}

/// Who may use a volume, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Mode {
    SingleNodeWriter,
    SingleNodeReaderOnly,
    MultiNodeReaderOnly,
    MultiNodeSingleWriter,
    MultiNodeMultiWriter,
    SingleNodeSingleWriter,
    SingleNodeMultiWriter,
}

impl Mode {
    pub(crate) fn is_multi_node(self) -> bool {
        matches!(
            self,
            Self::MultiNodeReaderOnly | Self::MultiNodeSingleWriter | Self::MultiNodeMultiWriter
        )
    }

    pub(crate) fn is_read_only(self) -> bool {
        matches!(self, Self::SingleNodeReaderOnly | Self::MultiNodeReaderOnly)
    }

    fn wire(self) -> WireMode {
        match self {
            Self::SingleNodeWriter => WireMode::SingleNodeWriter,
            Self::SingleNodeReaderOnly => WireMode::SingleNodeReaderOnly,
            Self::MultiNodeReaderOnly => WireMode::MultiNodeReaderOnly,
            Self::MultiNodeSingleWriter => WireMode::MultiNodeSingleWriter,
            Self::MultiNodeMultiWriter => WireMode::MultiNodeMultiWriter,
            Self::SingleNodeSingleWriter => WireMode::SingleNodeSingleWriter,
            Self::SingleNodeMultiWriter => WireMode::SingleNodeMultiWriter,
        }
    }

    /// As the specification spells it.
    pub(crate) fn as_str(self) -> &'static str {
        self.wire().as_str_name()
    }
}

/// A volume as a device or as a file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Form {
    Block,
    Mount {
        /// `None`: whatever the volume holds, else the configured one.
        fs: Option<FsKind>,
        flags: Vec<String>,
    },
}

impl Form {
    pub(crate) fn is_block(&self) -> bool {
        matches!(self, Self::Block)
    }
}

/// One parsed `VolumeCapability`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Capability {
    pub(crate) form: Form,
    pub(crate) mode: Mode,
    /// The group to which everything in the file system is to belong.
    #[serde(default)]
    pub(crate) group: Option<u32>,
}

/// A required capability.
pub(crate) fn capability(wire: Option<&csi::VolumeCapability>) -> Result<Capability, Status> {
    let wire = wire.ok_or_else(|| invalid("volume_capability is required".to_owned()))?;
    let form = match &wire.access_type {
        None => {
            return Err(invalid(
                "volume_capability.access_type is required: block or mount".to_owned(),
            ));
        }
        Some(AccessType::Block(_)) => Form::Block,
        Some(AccessType::Mount(mount)) => mount_form(mount)?,
    };
    let group = match &wire.access_type {
        Some(AccessType::Mount(mount)) if !mount.volume_mount_group.is_empty() => Some(group(mount)?),
        _ => None,
    };
    let mode = wire.access_mode.as_ref().map_or(0, |mode| mode.mode);
    Ok(Capability {
        form,
        mode: self::mode(mode)?,
        group,
    })
}

fn mount_form(mount: &csi::volume_capability::MountVolume) -> Result<Form, Status> {
    let fs = match mount.fs_type.as_str() {
        "" => None,
        text => Some(text.parse::<FsKind>().map_err(|why| invalid(why.to_string()))?),
    };
    if mount.mount_flags.iter().map(String::len).sum::<usize>() > MOUNT_FLAGS_BYTES {
        return Err(invalid(format!(
            "mount_flags are longer than {MOUNT_FLAGS_BYTES} bytes"
        )));
    }
    if mount
        .mount_flags
        .iter()
        .any(|flag| flag.is_empty() || flag.chars().any(char::is_control))
    {
        return Err(invalid("a mount flag is empty or holds a control character".to_owned()));
    }
    Ok(Form::Mount {
        fs,
        flags: mount.mount_flags.clone(),
    })
}

/// Group ids are numbers; the largest means *no group* to system calls.
fn group(mount: &csi::volume_capability::MountVolume) -> Result<u32, Status> {
    let number = mount.volume_mount_group.parse::<u32>().ok();
    let refusal = || invalid("volume_mount_group is not the number of a group".to_owned());
    number.filter(|number| *number != u32::MAX).ok_or_else(refusal)
}

fn mode(number: i32) -> Result<Mode, Status> {
    let mode = match WireMode::try_from(number) {
        Ok(WireMode::SingleNodeWriter) => Mode::SingleNodeWriter,
        Ok(WireMode::SingleNodeReaderOnly) => Mode::SingleNodeReaderOnly,
        Ok(WireMode::MultiNodeReaderOnly) => Mode::MultiNodeReaderOnly,
        Ok(WireMode::MultiNodeSingleWriter) => Mode::MultiNodeSingleWriter,
        Ok(WireMode::MultiNodeMultiWriter) => Mode::MultiNodeMultiWriter,
        Ok(WireMode::SingleNodeSingleWriter) => Mode::SingleNodeSingleWriter,
        Ok(WireMode::SingleNodeMultiWriter) => Mode::SingleNodeMultiWriter,
        Ok(WireMode::Unknown) => return Err(invalid("access_mode is required".to_owned())),
        Err(_) => return Err(invalid(format!("access_mode {number} is unknown"))),
    };
    Ok(mode)
}

/// The required, non-empty list of capabilities.
pub(crate) fn capabilities(wire: &[csi::VolumeCapability]) -> Result<Vec<Capability>, Status> {
    if wire.is_empty() {
        return Err(invalid("volume_capabilities is required".to_owned()));
    }
    wire.iter().map(|wire| capability(Some(wire))).collect()
}

/// Does the driver offer what the capability asks, whatever the volume?
pub(crate) fn is_offered(config: &Config, capability: &Capability) -> Result<(), String> {
    let shared_writers = matches!(
        capability.mode,
        Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
    );
    if shared_writers && !capability.form.is_block() && !config.shared_file_systems {
        return Err(format!(
            "{} is offered for raw block volumes only",
            capability.mode.as_str()
        ));
    }
    let split_writer = matches!(
        capability.mode,
        Mode::SingleNodeSingleWriter | Mode::SingleNodeMultiWriter
    );
    if split_writer && !config.single_node_multi_writer {
        return Err(format!(
            "{} needs the capability SINGLE_NODE_MULTI_WRITER",
            capability.mode.as_str()
        ));
    }
    if capability.group.is_some() && !config.volume_mount_group {
        return Err("volume_mount_group needs the capability VOLUME_MOUNT_GROUP".to_owned());
    }
    Ok(())
}

/// A size asked for: at least `required`, at most `limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SizeRange {
    pub(crate) required: Bytes,
    pub(crate) limit: Option<Bytes>,
}

impl SizeRange {
    pub(crate) fn holds(&self, size: Bytes) -> bool {
        size >= self.required && self.limit.is_none_or(|limit| size <= limit)
    }
}

/// An optional range; absent means any size.
pub(crate) fn range(wire: Option<&csi::CapacityRange>) -> Result<SizeRange, Status> {
    let Some(wire) = wire else {
        return Ok(SizeRange::default());
    };
    let size = |field: &str, value: i64| {
        u64::try_from(value)
            .map(Bytes)
            .map_err(|_| invalid(format!("capacity_range.{field} is negative")))
    };
    let required = size("required_bytes", wire.required_bytes)?;
    let limit = size("limit_bytes", wire.limit_bytes)?;
    if required.0 == 0 && limit.0 == 0 {
        return Err(invalid("capacity_range needs required_bytes or limit_bytes".to_owned()));
    }
    let limit = (limit.0 != 0).then_some(limit);
    if limit.is_some_and(|limit| limit < required) {
        return Err(invalid("capacity_range.limit_bytes is below required_bytes".to_owned()));
    }
    Ok(SizeRange { required, limit })
}

/// What a new volume is copied from.
pub(crate) fn source(wire: Option<&csi::VolumeContentSource>) -> Result<Option<Source>, Status> {
    use csi::volume_content_source::Type;
    let Some(wire) = wire else { return Ok(None) };
    match &wire.r#type {
        None => Err(invalid(
            "volume_content_source names neither a volume nor a snapshot".to_owned(),
        )),
        Some(Type::Volume(volume)) => {
            let id = identifier("volume_content_source.volume.volume_id", &volume.volume_id, STRING)?;
            Ok(Some(Source::Volume(VolumeId::new(id))))
        }
        Some(Type::Snapshot(snapshot)) => {
            let id = identifier(
                "volume_content_source.snapshot.snapshot_id",
                &snapshot.snapshot_id,
                STRING,
            )?;
            Ok(Some(Source::Snapshot(SnapshotId::new(id))))
        }
    }
}

/// The places where a volume may be, best first; empty: anywhere.
pub(crate) fn places(wire: Option<&csi::TopologyRequirement>) -> Result<Vec<Segments>, Status> {
    let Some(wire) = wire else { return Ok(Vec::new()) };
    for topology in wire.requisite.iter().chain(&wire.preferred) {
        segments(topology)?;
    }
    let mut places: Vec<Segments> = Vec::new();
    for topology in wire.preferred.iter().chain(&wire.requisite) {
        let allowed = wire.requisite.is_empty() || wire.requisite.contains(topology);
        if allowed && !places.contains(&topology.segments) {
            places.push(topology.segments.clone());
        }
    }
    Ok(places)
}

/// The segments of one topology.
pub(crate) fn segments(wire: &csi::Topology) -> Result<&Segments, Status> {
    map("topology.segments", &wire.segments)?;
    for (key, value) in &wire.segments {
        segment(key, value).map_err(|why| invalid(format!("topology segment `{key}`: {why}")))?;
    }
    Ok(&wire.segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(mode: i32) -> csi::VolumeCapability {
        csi::VolumeCapability {
            access_type: Some(AccessType::Mount(csi::volume_capability::MountVolume::default())),
            access_mode: Some(csi::volume_capability::AccessMode { mode }),
        }
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> tonic::Code {
        result.unwrap_err().code()
    }

    #[test]
    fn names_follow_the_specification() {
        assert!(name(&"x".repeat(128)).is_ok());
        assert!(name("a\tb").is_ok());
        assert!(name("Größe ✓").is_ok());
        for bad in [
            String::new(),
            "x".repeat(129),
            "a\0".to_owned(),
            "a\u{7f}".to_owned(),
            "\u{9f}".to_owned(),
        ] {
            assert_eq!(code(name(&bad)), tonic::Code::InvalidArgument, "{bad:?}");
        }
        assert!(is_driver_name("csi.wavetank.dev"));
        for bad in ["", "-a", "a-", "a_b", &"a".repeat(64)] {
            assert!(!is_driver_name(bad), "{bad}");
        }
    }

    #[test]
    fn paths_stay_below_the_roots() {
        let config = Config::default();
        assert!(path(&config, "target_path", "/var/lib/kubelet/pods/x/mount").is_ok());
        for bad in [
            "",
            "/",
            "/var/lib/kubelet",
            "/var/lib/kubelet2/x",
            "/etc",
            "var/lib/kubelet/x",
        ] {
            assert_eq!(
                code(path(&config, "target_path", bad)),
                tonic::Code::InvalidArgument,
                "{bad}"
            );
        }
        assert_eq!(
            code(path(&config, "p", "/var/lib/kubelet/../../etc")),
            tonic::Code::InvalidArgument
        );
    }

    #[test]
    fn unknown_modes_and_forms_are_refused() {
        assert!(capability(Some(&mount(7))).is_ok());
        for bad in [0, 8, -1, 999] {
            assert_eq!(
                code(capability(Some(&mount(bad)))),
                tonic::Code::InvalidArgument,
                "{bad}"
            );
        }
        assert_eq!(code(capability(None)), tonic::Code::InvalidArgument);
        let formless = csi::VolumeCapability {
            access_type: None,
            ..mount(1)
        };
        assert_eq!(code(capability(Some(&formless))), tonic::Code::InvalidArgument);
        assert_eq!(code(capabilities(&[])), tonic::Code::InvalidArgument);
    }

    #[test]
    fn groups_are_numbers() {
        let asked = |group: &str| {
            let form = csi::volume_capability::MountVolume {
                volume_mount_group: group.to_owned(),
                ..Default::default()
            };
            capability(Some(&csi::VolumeCapability {
                access_type: Some(AccessType::Mount(form)),
                ..mount(1)
            }))
        };
        assert_eq!(asked("").unwrap().group, None);
        assert_eq!(asked("0").unwrap().group, Some(0));
        assert_eq!(asked("65534").unwrap().group, Some(65534));
        for bad in ["-1", "4294967295", "4294967296", "staff", "1 "] {
            assert_eq!(code(asked(bad)), tonic::Code::InvalidArgument, "{bad}");
        }
        let off = Config {
            volume_mount_group: false,
            ..Config::default()
        };
        assert!(is_offered(&off, &asked("7").unwrap()).is_err());
    }

    #[test]
    fn ranges_are_sane_or_refused() {
        let range = |required_bytes, limit_bytes| {
            range(Some(&csi::CapacityRange {
                required_bytes,
                limit_bytes,
            }))
        };
        assert_eq!(
            range(5, 0).unwrap(),
            SizeRange {
                required: Bytes(5),
                limit: None
            }
        );
        for (required, limit) in [(-1, 0), (0, -1), (0, 0), (2, 1), (i64::MIN, i64::MAX)] {
            assert_eq!(
                code(range(required, limit)),
                tonic::Code::InvalidArgument,
                "{required} {limit}"
            );
        }
    }

    #[test]
    fn preferred_places_come_first_and_only_if_requisite() {
        let place = |zone: &str| csi::Topology {
            segments: [("zone".to_owned(), zone.to_owned())].into(),
        };
        let requirement = csi::TopologyRequirement {
            requisite: vec![place("a"), place("b")],
            preferred: vec![place("b"), place("z")],
        };
        let zones: Vec<String> = places(Some(&requirement))
            .unwrap()
            .into_iter()
            .map(|segments| segments["zone"].clone())
            .collect();
        assert_eq!(zones, ["b", "a"]);
    }

    #[test]
    fn large_maps_and_odd_secret_keys_are_refused_without_their_values() {
        assert_eq!(
            code(map("parameters", &[("k".to_owned(), "v".repeat(4096))].into())),
            tonic::Code::InvalidArgument
        );
        let refusal = secrets(&[("pass word".to_owned(), "hunter2".to_owned())].into()).unwrap_err();
        assert!(!refusal.message().contains("hunter2"));
    }
}
