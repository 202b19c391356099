//! CSI v1.12 and kubelet plugin registration.

/// The Container Storage Interface.
pub mod csi {
    /// Package `csi.v1`.
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
    }
}

/// The encoded `FileDescriptorSet` of both packages and of what they import, extension options included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
