//! The words the driver speaks: sizes, identifiers, paths. Parsed at the edge, typed inside.
//!
//! Left out: anything that knows a gRPC message (see `crate::check`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A size in bytes. Reads and writes Kubernetes quantities (`512Mi`, `1Gi`, `1500`, `2G`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// One kibibyte.
    pub const KI: Self = Self(1 << 10);
    /// One mebibyte.
    pub const MI: Self = Self(1 << 20);
    /// One gibibyte.
    pub const GI: Self = Self(1 << 30);
    /// One tebibyte.
    pub const TI: Self = Self(1 << 40);

    /// `count` gibibytes, saturating.
    pub const fn gi(count: u64) -> Self {
        Self(count.saturating_mul(Self::GI.0))
    }

    /// `count` mebibytes, saturating.
    pub const fn mi(count: u64) -> Self {
        Self(count.saturating_mul(Self::MI.0))
    }

    /// `count` times as much, saturating.
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The smallest multiple of `unit` that is not below `self`; `None` beyond `i64::MAX`, which is all the wire carries.
    pub fn round_up(self, unit: Self) -> Option<Self> {
        let unit = unit.0.max(1);
        let rounded = self.0.div_ceil(unit).checked_mul(unit)?;
        (rounded <= i64::MAX as u64).then_some(Self(rounded))
    }

    /// The largest multiple of `unit` that is not above `self`.
    pub fn round_down(self, unit: Self) -> Self {
        let unit = unit.0.max(1);
        Self(self.0 / unit * unit)
    }

    /// As the wire's signed integer, saturating.
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(Self::TI, "Ti"), (Self::GI, "Gi"), (Self::MI, "Mi"), (Self::KI, "Ki")] {
            if self.0 != 0 && self.0.is_multiple_of(unit.0) {
                return write!(f, "{}{name}", self.0 / unit.0);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// The text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a whole number, with an optional suffix Ki, Mi, Gi, Ti, k, M, G or T")]
pub struct NotASize(pub String);

impl FromStr for Bytes {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let factor: u64 = match suffix {
            "" => 1,
            "Ki" => Self::KI.0,
            "Mi" => Self::MI.0,
            "Gi" => Self::GI.0,
            "Ti" => Self::TI.0,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            _ => return Err(NotASize(text.to_owned())),
        };
        let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        size.map(Self).ok_or_else(|| NotASize(text.to_owned()))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 1Gi, or a number of bytes")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Bytes, E> {
                Ok(Bytes(value))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Bytes, E> {
                u64::try_from(value)
                    .map(Bytes)
                    .map_err(|_| E::custom("a size is never negative"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A size: a number of bytes, or a number with a suffix (Ki, Mi, Gi, Ti, k, M, G, T).",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$" }
            ]
        })
    }
}

/// Declares a newtype over text, with the traits that keys and traces need.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text_newtype! {
    /// The handle of a volume: CSI's `volume_id`, and its name in the pool.
    VolumeId
}
text_newtype! {
    /// The handle of a snapshot: CSI's `snapshot_id`, and its name in the pool.
    SnapshotId
}
text_newtype! {
    /// The handle of a group of snapshots: CSI's `group_snapshot_id`.
    GroupId
}
text_newtype! {
    /// A node as the driver knows it: CSI's `node_id`.
    NodeId
}
text_newtype! {
    /// A block device of one machine, by its path (`/dev/loop3`). Means nothing on another machine or after a reboot.
    DevicePath
}

/// A place in the topology: segment key → value. Empty means *everywhere*.
pub type Segments = BTreeMap<String, String>;

/// What `ControllerPublishVolume` hands to the node, unread by anyone between the two.
pub type PublishContext = BTreeMap<String, String>;

/// May one write?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

impl Access {
    /// `ReadOnly` if `readonly`.
    pub fn from_readonly(readonly: bool) -> Self {
        if readonly { Self::ReadOnly } else { Self::ReadWrite }
    }

    /// Is writing forbidden?
    pub fn is_read_only(self) -> bool {
        self == Self::ReadOnly
    }
}

/// An absolute path without `.`, `..`, empty components, NUL or trailing slash, at most 4096 bytes long.
///
/// Symbolic links are the host's business: [`crate::Host::kind`] never follows one, and the driver refuses to act
/// through a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPath(String);

/// The text is not a path that the driver would act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// No text at all.
    #[error("the path is empty")]
    Empty,
    /// It does not begin with `/`.
    #[error("the path is not absolute")]
    Relative,
    /// Longer than an operating system takes.
    #[error("the path is longer than 4096 bytes")]
    TooLong,
    /// It holds `.`, `..` or an empty component.
    #[error("the path holds an empty component, `.` or `..`")]
    NotPlain,
    /// It holds a NUL or another control character.
    #[error("the path holds a control character")]
    Control,
}

impl HostPath {
    /// Longest path accepted, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Checks and takes a path; one trailing slash is dropped.
    ///
    /// # Errors
    /// [`BadPath`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        if text.is_empty() {
            return Err(BadPath::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(BadPath::TooLong);
        }
        if text.chars().any(|c| c.is_control()) {
            return Err(BadPath::Control);
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(BadPath::Relative);
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if !rest.is_empty() && rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(BadPath::NotPlain);
        }
        Ok(Self(format!("/{rest}")))
    }

    /// A path known to be plain when this was written.
    pub(crate) fn fixed(text: &'static str) -> Self {
        Self::parse(text).expect("a literal of this crate, covered by a test")
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds it; `None` for `/`.
    pub fn parent(&self) -> Option<Self> {
        let cut = self.0.rfind('/')?;
        if self.0.len() == 1 {
            return None;
        }
        Some(Self(if cut == 0 {
            "/".to_owned()
        } else {
            self.0[..cut].to_owned()
        }))
    }

    /// The last component; empty for `/`.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Is `self` below `root`, or `root` itself?
    pub fn is_within(&self, root: &Self) -> bool {
        let root = root.0.strip_suffix('/').unwrap_or(&root.0);
        self.0
            .strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// `self` with one more component.
    ///
    /// # Errors
    /// [`BadPath`] if `component` is not a plain name.
    pub fn join(&self, component: &str) -> Result<Self, BadPath> {
        if component.is_empty() || component.contains('/') {
            return Err(BadPath::NotPlain);
        }
        let base = self.0.strip_suffix('/').unwrap_or(&self.0);
        Self::parse(&format!("{base}/{component}"))
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostPath {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, BadPath> {
        Self::parse(&text)
    }
}

impl From<HostPath> for String {
    fn from(path: HostPath) -> Self {
        path.0
    }
}

/// A file system that the driver makes and mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FsKind {
    /// ext4.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
}

impl FsKind {
    /// Its name, as `mount` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The driver neither makes nor mounts such a file system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("file system `{0}` is not supported: use ext4, xfs or btrfs")]
pub struct UnknownFs(pub String);

impl FromStr for FsKind {
    type Err = UnknownFs;

    fn from_str(text: &str) -> Result<Self, UnknownFs> {
        match text {
            "ext4" => Ok(Self::Ext4),
            "xfs" => Ok(Self::Xfs),
            "btrfs" => Ok(Self::Btrfs),
            _ => Err(UnknownFs(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BadPath, Bytes, HostPath};

    #[test]
    fn sizes_read_back_as_written() {
        for text in ["0", "1", "1Ki", "5Mi", "1Gi", "3Ti", "1500"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
        assert_eq!("2G".parse(), Ok(Bytes(2_000_000_000)));
        for text in ["", "Gi", "-1", "1.5Gi", "1GiB", "99999999999Ti"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn rounding_never_leaves_the_wire_range() {
        assert_eq!(Bytes(1).round_up(Bytes::MI), Some(Bytes::MI));
        assert_eq!(Bytes::MI.round_up(Bytes::MI), Some(Bytes::MI));
        assert_eq!(Bytes(i64::MAX as u64).round_up(Bytes::MI), None);
        assert_eq!(Bytes(Bytes::MI.0 + 1).round_down(Bytes::MI), Bytes::MI);
    }

    #[test]
    fn paths_are_plain_or_refused() {
        assert_eq!(HostPath::parse("/var/lib/").unwrap().as_str(), "/var/lib");
        assert_eq!(HostPath::parse("/").unwrap().as_str(), "/");
        for (text, why) in [
            ("", BadPath::Empty),
            ("var", BadPath::Relative),
            ("/a/../b", BadPath::NotPlain),
            ("/a//b", BadPath::NotPlain),
            ("/a/./b", BadPath::NotPlain),
            ("/a\0", BadPath::Control),
        ] {
            assert_eq!(HostPath::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(
            HostPath::parse(&format!("/{}", "x".repeat(4096))),
            Err(BadPath::TooLong)
        );
    }

    #[test]
    fn within_means_whole_components() {
        let root = HostPath::parse("/var/lib/kubelet").unwrap();
        assert!(HostPath::parse("/var/lib/kubelet/pods").unwrap().is_within(&root));
        assert!(!HostPath::parse("/var/lib/kubelet2").unwrap().is_within(&root));
        assert!(root.is_within(&HostPath::parse("/").unwrap()));
        assert_eq!(root.parent().unwrap().as_str(), "/var/lib");
        assert_eq!(root.name(), "kubelet");
    }
}
