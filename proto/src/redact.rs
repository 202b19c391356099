//! Keeps secrets out of logs: requests with a `csi_secret` field never print it, and [`Secrets`] reaches it.
//!
//! The generated code derives no `Debug` for these requests; the one here prints [`STRIPPED`] in place of the secrets,
//! keys included, so that neither `{:?}` of a request nor of a `tonic::Request` around it can leak them. A test
//! compares the list below with the fields that carry the option in the descriptor set, both ways.
//!
//! Blind spot: the option marks nothing but `secrets` fields. Mount flags, parameters and contexts are printed.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};

use crate::csi::v1::{
    ControllerExpandVolumeRequest, ControllerModifyVolumeRequest, ControllerPublishVolumeRequest,
    ControllerUnpublishVolumeRequest, CreateSnapshotRequest, CreateVolumeGroupSnapshotRequest, CreateVolumeRequest,
    DeleteSnapshotRequest, DeleteVolumeGroupSnapshotRequest, DeleteVolumeRequest, GetMetadataAllocatedRequest,
    GetMetadataDeltaRequest, GetSnapshotRequest, GetVolumeGroupSnapshotRequest, ListSnapshotsRequest,
    NodeExpandVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, ValidateVolumeCapabilitiesRequest,
};

/// What `{:?}` prints in place of secrets.
pub const STRIPPED: &str = "***stripped***";

/// A request that can carry secrets.
///
/// Implemented for exactly the messages that have a field with the option `csi_secret`; their names are
/// [`MESSAGES_WITH_SECRETS`].
pub trait Secrets {
    /// The secrets, by key; empty if the caller gave none.
    fn secrets(&self) -> &BTreeMap<String, String>;

    /// The secrets, to be changed.
    fn secrets_mut(&mut self) -> &mut BTreeMap<String, String>;

    /// Removes all secrets, for instance before the request is recorded.
    fn clear_secrets(&mut self) {
        self.secrets_mut().clear();
    }
}

/// Implements [`Secrets`] and a `Debug` without secrets. Each message is given with all its fields but `secrets`: the
/// pattern names every field, so a message that gains one does not compile until it is listed.
macro_rules! requests_with_secrets {
    ($($message:ident { $($field:ident),* })*) => {
        /// Full names of the messages that can carry secrets, in no particular order.
        pub const MESSAGES_WITH_SECRETS: &[&str] = &[$(concat!("csi.v1.", stringify!($message))),*];

        $(
            impl Secrets for $message {
                fn secrets(&self) -> &BTreeMap<String, String> {
                    &self.secrets
                }

                fn secrets_mut(&mut self) -> &mut BTreeMap<String, String> {
                    &mut self.secrets
                }
            }

            impl Debug for $message {
                fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                    let Self { $($field,)* secrets } = self;
                    f.debug_struct(stringify!($message))
                        $(.field(stringify!($field), $field))*
                        .field("secrets", &Hidden(secrets))
                        .finish()
                }
            }
        )*

        #[cfg(test)]
        fn every_request() -> Vec<(&'static str, Box<dyn tests::Request>)> {
            vec![$((stringify!($message), Box::new($message::default()))),*]
        }
    };
}

requests_with_secrets! {
    CreateVolumeRequest {
        name, capacity_range, volume_capabilities, parameters, volume_content_source, accessibility_requirements,
        mutable_parameters
    }
    DeleteVolumeRequest { volume_id }
    ControllerPublishVolumeRequest { volume_id, node_id, volume_capability, readonly, volume_context }
    ControllerUnpublishVolumeRequest { volume_id, node_id }
    ValidateVolumeCapabilitiesRequest { volume_id, volume_context, volume_capabilities, parameters, mutable_parameters }
    ControllerExpandVolumeRequest { volume_id, capacity_range, volume_capability }
    ControllerModifyVolumeRequest { volume_id, mutable_parameters }
    CreateSnapshotRequest { source_volume_id, name, parameters }
    DeleteSnapshotRequest { snapshot_id }
    ListSnapshotsRequest { max_entries, starting_token, source_volume_id, snapshot_id }
    GetSnapshotRequest { snapshot_id }
    CreateVolumeGroupSnapshotRequest { name, source_volume_ids, parameters }
    DeleteVolumeGroupSnapshotRequest { group_snapshot_id, snapshot_ids }
    GetVolumeGroupSnapshotRequest { group_snapshot_id, snapshot_ids }
    GetMetadataAllocatedRequest { snapshot_id, starting_offset, max_results }
    GetMetadataDeltaRequest { base_snapshot_id, target_snapshot_id, starting_offset, max_results }
    NodeStageVolumeRequest { volume_id, publish_context, staging_target_path, volume_capability, volume_context }
    NodePublishVolumeRequest {
        volume_id, publish_context, staging_target_path, target_path, volume_capability, readonly, volume_context
    }
    NodeExpandVolumeRequest { volume_id, volume_path, capacity_range, staging_target_path, volume_capability }
}

/// Says that there are secrets, not which nor how many.
struct Hidden<'a>(&'a BTreeMap<String, String>);

impl Debug for Hidden<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "{}" } else { STRIPPED })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Debug;

    use prost_reflect::DescriptorPool;

    use super::{MESSAGES_WITH_SECRETS, STRIPPED, Secrets, every_request};

    pub(super) trait Request: Secrets + Debug {}
    impl<T: Secrets + Debug> Request for T {}

    /// Message and field of everything that carries the option in the descriptor set.
    fn secret_fields() -> BTreeSet<(String, String)> {
        let pool = DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).expect("the build script encoded it");
        let csi_secret = pool
            .get_extension_by_name("csi.v1.csi_secret")
            .expect("csi.proto declares it");
        let mut found = BTreeSet::new();
        for message in pool.all_messages() {
            for field in message.fields() {
                if field.options().get_extension(&csi_secret).as_bool() == Some(true) {
                    found.insert((message.full_name().to_owned(), field.name().to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn the_listed_messages_are_those_with_the_option() {
        let listed: BTreeSet<_> = MESSAGES_WITH_SECRETS
            .iter()
            .map(|message| ((*message).to_owned(), "secrets".to_owned()))
            .collect();
        assert_eq!(listed.len(), MESSAGES_WITH_SECRETS.len(), "a message is listed twice");
        assert_eq!(listed, secret_fields());
    }

    #[test]
    fn no_request_prints_its_secrets() {
        for (name, mut request) in every_request() {
            request
                .secrets_mut()
                .insert("hidden-key".to_owned(), "hidden-value".to_owned());
            for text in [format!("{request:?}"), format!("{request:#?}")] {
                assert!(!text.contains("hidden"), "{name} leaks: {text}");
                assert!(
                    text.starts_with(name) && text.contains(STRIPPED),
                    "{name} says nothing: {text}"
                );
            }
        }
    }

    #[test]
    fn a_request_without_secrets_says_so() {
        for (name, mut request) in every_request() {
            request
                .secrets_mut()
                .insert("hidden-key".to_owned(), "hidden-value".to_owned());
            request.clear_secrets();
            assert!(request.secrets().is_empty());
            assert!(format!("{request:?}").contains("secrets: {}"), "{name}: {request:?}");
        }
    }
}
