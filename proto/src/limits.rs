//! How large things on the wire may be, by the CSI specification v1.12. The numbers only: whoever receives a message
//! decides how to refuse one that is too large.
//!
//! The specification grants these sizes to the caller: a plugin has to accept everything up to the limit.

/// Bytes in a string field, unless the field says otherwise.
pub const STRING_BYTES: usize = 128;

/// Bytes in a `map<string, string>` field, keys and values of all entries together.
pub const MAP_BYTES: usize = 4 * 1024;

/// Bytes in a plugin's name (`GetPluginInfoResponse.name`).
pub const PLUGIN_NAME_BYTES: usize = 63;

/// Bytes in a `node_id`.
pub const NODE_ID_BYTES: usize = 256;

/// Bytes in a `node_id` that a plugin should keep to, for the sake of callers that know older versions only.
pub const NODE_ID_RECOMMENDED_BYTES: usize = 128;

/// Bytes in all `mount_flags` of one capability together.
pub const MOUNT_FLAGS_BYTES: usize = 4 * 1024;

/// Bytes in a path (`staging_target_path`, `target_path`, `volume_path`) that every plugin has to accept. Longer ones
/// are bounded by the operating system alone.
pub const PATH_ACCEPTED_BYTES: usize = 128;

/// Bytes in the prefix of a topology key, the part before the slash.
pub const TOPOLOGY_PREFIX_BYTES: usize = 63;

/// Bytes in the name of a topology key, the part after the slash.
pub const TOPOLOGY_NAME_BYTES: usize = 63;

/// Bytes in the value of a topology segment.
pub const TOPOLOGY_VALUE_BYTES: usize = 63;
