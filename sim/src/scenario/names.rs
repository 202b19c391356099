//! Words that scenarios use: kinds, CSI calls, gRPC codes, the roles of processes, the phases of effects.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::kinds;
use super::nearest::nearest;
use super::site::{Process, Site};
use crate::api::Kind;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[expect(missing_docs, reason = "each is the word of that spelling")]
        pub enum $name { $(#[serde(rename = $word)] $variant,)* }

        impl $name {
            /// All of them, in a fixed order.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The one with this spelling.
            pub fn parse(word: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|this| this.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// A call of CSI v1.12.
    Call {
        GetPluginInfo = "GetPluginInfo",
        GetPluginCapabilities = "GetPluginCapabilities",
        Probe = "Probe",
        CreateVolume = "CreateVolume",
        DeleteVolume = "DeleteVolume",
        ControllerPublishVolume = "ControllerPublishVolume",
        ControllerUnpublishVolume = "ControllerUnpublishVolume",
        ValidateVolumeCapabilities = "ValidateVolumeCapabilities",
        ListVolumes = "ListVolumes",
        GetCapacity = "GetCapacity",
        ControllerGetCapabilities = "ControllerGetCapabilities",
        CreateSnapshot = "CreateSnapshot",
        DeleteSnapshot = "DeleteSnapshot",
        ListSnapshots = "ListSnapshots",
        GetSnapshot = "GetSnapshot",
        ControllerExpandVolume = "ControllerExpandVolume",
        ControllerGetVolume = "ControllerGetVolume",
        ControllerModifyVolume = "ControllerModifyVolume",
        GroupControllerGetCapabilities = "GroupControllerGetCapabilities",
        CreateVolumeGroupSnapshot = "CreateVolumeGroupSnapshot",
        DeleteVolumeGroupSnapshot = "DeleteVolumeGroupSnapshot",
        GetVolumeGroupSnapshot = "GetVolumeGroupSnapshot",
        GetMetadataAllocated = "GetMetadataAllocated",
        GetMetadataDelta = "GetMetadataDelta",
        NodeStageVolume = "NodeStageVolume",
        NodeUnstageVolume = "NodeUnstageVolume",
        NodePublishVolume = "NodePublishVolume",
        NodeUnpublishVolume = "NodeUnpublishVolume",
        NodeGetVolumeStats = "NodeGetVolumeStats",
        NodeExpandVolume = "NodeExpandVolume",
        NodeGetCapabilities = "NodeGetCapabilities",
        NodeGetInfo = "NodeGetInfo",
    }
}

impl Call {
    /// Whether the call belongs to a volume's or snapshot's life, and is not a question about the driver, its state or its figures.
    pub fn is_lifecycle(self) -> bool {
        !matches!(
            self,
            Call::GetPluginInfo
                | Call::GetPluginCapabilities
                | Call::Probe
                | Call::ValidateVolumeCapabilities
                | Call::ListVolumes
                | Call::GetCapacity
                | Call::ControllerGetCapabilities
                | Call::ListSnapshots
                | Call::GetSnapshot
                | Call::ControllerGetVolume
                | Call::GroupControllerGetCapabilities
                | Call::GetVolumeGroupSnapshot
                | Call::GetMetadataAllocated
                | Call::GetMetadataDelta
                | Call::NodeGetVolumeStats
                | Call::NodeGetCapabilities
                | Call::NodeGetInfo
        )
    }
}

words! {
    /// A gRPC status code.
    Code {
        Ok = "OK",
        Cancelled = "CANCELLED",
        Unknown = "UNKNOWN",
        InvalidArgument = "INVALID_ARGUMENT",
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        NotFound = "NOT_FOUND",
        AlreadyExists = "ALREADY_EXISTS",
        PermissionDenied = "PERMISSION_DENIED",
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        FailedPrecondition = "FAILED_PRECONDITION",
        Aborted = "ABORTED",
        OutOfRange = "OUT_OF_RANGE",
        Unimplemented = "UNIMPLEMENTED",
        Internal = "INTERNAL",
        Unavailable = "UNAVAILABLE",
        DataLoss = "DATA_LOSS",
        Unauthenticated = "UNAUTHENTICATED",
    }
}

impl Code {
    /// The code of a status.
    pub fn of(code: tonic::Code) -> Code {
        let known = Code::ALL.iter().copied().find(|known| known.number() == code as i32);
        known.unwrap_or(Code::Unknown)
    }

    /// The number on the wire.
    pub fn number(self) -> i32 {
        let position = Code::ALL
            .iter()
            .position(|code| *code == self)
            .expect("ALL lists every code");
        i32::try_from(position).expect("there are 17 codes")
    }
}

words! {
    /// What a file system answers to a writer or reader.
    Errno {
        NoSpace = "ENOSPC",
        ReadOnly = "EROFS",
        Io = "EIO",
        NoEntry = "ENOENT",
    }
}

words! {
    /// The part that a process plays.
    Role {
        ControllerManager = "controller-manager",
        Scheduler = "scheduler",
        SnapshotController = "snapshot-controller",
        Provisioner = "provisioner",
        Attacher = "attacher",
        Resizer = "resizer",
        Snapshotter = "snapshotter",
        DriverController = "driver-controller",
        DriverNode = "driver-node",
        Registrar = "registrar",
        Kubelet = "kubelet",
        Node = "node",
    }
}

impl Role {
    /// Whether there is one such process on each node (`node` itself stands for all of them).
    pub fn per_node(self) -> bool {
        matches!(self, Role::DriverNode | Role::Registrar | Role::Kubelet | Role::Node)
    }

    /// Whether there is one such process for each driver.
    pub fn per_driver(self) -> bool {
        matches!(
            self,
            Role::Provisioner
                | Role::Attacher
                | Role::Resizer
                | Role::Snapshotter
                | Role::DriverController
                | Role::DriverNode
                | Role::Registrar
        )
    }
}

words! {
    /// Where in an effect a fault strikes, but for the operations of a driver (`after-op(k)`).
    PlainPhase {
        BeforeSend = "before-send",
        Received = "received",
        BeforeReply = "before-reply",
        AfterReply = "after-reply",
        Before = "before",
        Applied = "applied",
    }
}

/// A kind as kubectl understands it: `PersistentVolumeClaim`, `persistentvolumeclaims` or `pvc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindName(pub Kind);

impl KindName {
    fn parse(text: &str) -> Result<KindName, String> {
        kinds::by_word(text).map(KindName).ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            let short = || nearest(text, Kind::ALL.iter().map(|kind| kind.short()));
            match nearest(text, names.iter().copied()).or_else(short) {
                Some(near) => format!("there is no kind `{text}`; did you mean `{near}`?"),
                None => format!("there is no kind `{text}`; there are {}", names.join(", ")),
            }
        })
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// What the custom `format`s of our schemas demand.
pub(crate) fn check_format(format: &str, text: &str) -> Option<Result<(), String>> {
    Some(match format {
        "Bytes" => serde_json::from_value::<wavetank_driver::Bytes>(text.into())
            .map(drop)
            .map_err(|error| error.to_string()),
        "kind" => KindName::parse(text).map(drop),
        "process" => Process::parse(text).map(drop),
        "site" => Site::parse(text).map(drop),
        "feature-gates" => super::flags::parse_gates(text).map(drop),
        "field-path" => super::field::FieldPath::parse(text).map(drop),
        "dns-name" => dns_name(text),
        "because" if text.trim().is_empty() => Err("say why the scenario exists".to_owned()),
        _ => return None,
    })
}

/// Names of nodes and drivers: what Kubernetes takes as a DNS name.
fn dns_name(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 63 && text.split('.').all(label) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(format!(
        "{shown:?} cannot be a name here: at most 63 small letters, digits, `-` and `.`, each part beginning and ending with a letter or digit"
    ))
}

/// Reads and writes a type as text, and describes it so in the schema.
macro_rules! text_format {
    ($type:ty, $name:literal, $format:literal, $description:literal, $parse:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format, "description": $description})
            }
        }
    };
}

pub(crate) use text_format;

text_format!(
    KindName,
    "Kind",
    "kind",
    "A kind as kubectl understands it: `PersistentVolumeClaim` or `pvc`.",
    KindName::parse
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_of_the_wire() {
        assert_eq!(
            (
                Code::Ok.number(),
                Code::Internal.number(),
                Code::Unauthenticated.number()
            ),
            (0, 13, 16)
        );
    }
}
