//! Rust bindings for the Container Storage Interface v1.12 and for kubelet's plugin registration.
#![doc = include_str!("../README.md")]

pub mod code;
pub mod limits;
pub mod redact;

pub use {prost, prost_types, tonic};

/// The version of the CSI specification that [`csi::v1`] is.
pub const CSI_VERSION: &str = "1.12.0";

/// The environment variable that tells a plugin where to serve, in the form `unix:///path/to.sock`.
pub const ENDPOINT_VARIABLE: &str = "CSI_ENDPOINT";

/// The encoded `google.protobuf.FileDescriptorSet` of both packages and of what they import: for gRPC reflection, and
/// to find by reflection the fields that carry `csi_secret` or an `alpha_*` option. It has no comments in it.
///
/// `prost_types::FileDescriptorSet` drops extension options when it decodes the set; `prost_reflect::DescriptorPool`
/// keeps them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The Container Storage Interface.
pub mod csi {
    /// Package `csi.v1`, as of [`CSI_VERSION`](crate::CSI_VERSION): messages, and for each service a module with its
    /// client and one with its server.
    ///
    /// Beside the messages stand modules named after them, which hold what is nested in them: the message
    /// `VolumeCapability.MountVolume` is [`volume_capability::MountVolume`](v1::volume_capability::MountVolume).
    ///
    /// Fields of an enum type are `i32`, so that a value this version does not know survives; read them with the getter
    /// of the same name, or with `try_from`.
    ///
    /// How to read the comments:
    ///
    /// - REQUIRED: the sender must set the field, and a required list or map must have at least one entry. OPTIONAL:
    ///   the zero value means "not said". Proto3 cannot tell an unset scalar from its zero value: receivers must check.
    /// - ALPHA: may change or vanish in a minor release of the specification.
    /// - CO is the container orchestrator (the caller), SP or plugin the storage driver.
    /// - Sizes are bounded by [`limits`](crate::limits).
    /// - Any call may answer INVALID_ARGUMENT (a field is missing or wrong), PERMISSION_DENIED, UNAUTHENTICATED (bad
    ///   secrets), ABORTED (another operation on the same object is pending) or UNIMPLEMENTED. Calls list the codes
    ///   beyond these.
    pub mod v1 {
        #![expect(
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "tonic writes its own exceptions into the code it generates"
        )]
        tonic::include_proto!("csi.v1");
    }
}

/// Kubelet's plugin registration.
pub mod registration {
    /// Version 1, package `pluginregistration`.
    pub mod v1 {
        #![expect(
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "tonic writes its own exceptions into the code it generates"
        )]
        tonic::include_proto!("pluginregistration");

        /// The [`PluginInfo::type`](PluginInfo) of a CSI driver.
        pub const CSI_PLUGIN: &str = "CSIPlugin";

        /// The one entry of [`PluginInfo::supported_versions`](PluginInfo) that registrars of CSI drivers give.
        pub const CSI_PLUGIN_VERSION: &str = "1.0.0";
    }
}
