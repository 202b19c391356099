//! The snapshot kinds of `snapshot.storage.k8s.io/v1` as small structs of ours (source: the external-snapshotter's CRDs).

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

macro_rules! crd {
    ($(#[$doc:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name { $($body)* }
    };
}

crd! {
    /// A user's wish for a snapshot of a claim.
    VolumeSnapshot {
        /// Metadata.
        pub metadata: ObjectMeta,
        /// What is wished.
        pub spec: VolumeSnapshotSpec,
        /// What came of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<VolumeSnapshotStatus>,
    }
}

crd! {
    /// `spec` of a VolumeSnapshot.
    VolumeSnapshotSpec {
        /// From what.
        pub source: VolumeSnapshotSource,
        /// By which class; the driver's default class when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_snapshot_class_name: Option<String>,
    }
}

crd! {
    /// Exactly one of the two is set.
    VolumeSnapshotSource {
        /// A claim in the same namespace.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub persistent_volume_claim_name: Option<String>,
        /// A content that exists already.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_snapshot_content_name: Option<String>,
    }
}

crd! {
    /// `status` of a VolumeSnapshot.
    VolumeSnapshotStatus {
        /// The content that stands for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bound_volume_snapshot_content_name: Option<String>,
        /// When the driver cut it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub creation_time: Option<Time>,
        /// Whether it can be restored from.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ready_to_use: Option<bool>,
        /// Smallest size of a volume restored from it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub restore_size: Option<Quantity>,
        /// The last trouble.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<VolumeSnapshotError>,
    }
}

crd! {
    /// What went wrong, and when.
    VolumeSnapshotError {
        /// When.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub time: Option<Time>,
        /// What.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub message: Option<String>,
    }
}

crd! {
    /// A snapshot in the storage system.
    VolumeSnapshotContent {
        /// Metadata.
        pub metadata: ObjectMeta,
        /// Which one.
        pub spec: VolumeSnapshotContentSpec,
        /// What is known of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<VolumeSnapshotContentStatus>,
    }
}

crd! {
    /// `spec` of a VolumeSnapshotContent.
    VolumeSnapshotContentSpec {
        /// `Delete` or `Retain`.
        pub deletion_policy: String,
        /// The CSI driver.
        pub driver: String,
        /// From what.
        pub source: VolumeSnapshotContentSource,
        /// `Filesystem` or `Block` of the source.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub source_volume_mode: Option<String>,
        /// The class it was made by.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_snapshot_class_name: Option<String>,
        /// The VolumeSnapshot it belongs to.
        pub volume_snapshot_ref: ObjectReference,
    }
}

crd! {
    /// Exactly one of the two is set.
    VolumeSnapshotContentSource {
        /// The volume to cut from.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_handle: Option<String>,
        /// A snapshot that exists already.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub snapshot_handle: Option<String>,
    }
}

crd! {
    /// `status` of a VolumeSnapshotContent.
    VolumeSnapshotContentStatus {
        /// The driver's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub snapshot_handle: Option<String>,
        /// When the driver cut it, in nanoseconds since the epoch.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub creation_time: Option<i64>,
        /// Whether it can be restored from.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ready_to_use: Option<bool>,
        /// Smallest size of a volume restored from it, in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub restore_size: Option<i64>,
        /// The last trouble.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<VolumeSnapshotError>,
    }
}

crd! {
    /// How snapshots of a driver are made.
    VolumeSnapshotClass {
        /// Metadata.
        pub metadata: ObjectMeta,
        /// The CSI driver.
        pub driver: String,
        /// `Delete` or `Retain`.
        pub deletion_policy: String,
        /// Handed to the driver.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub parameters: Option<BTreeMap<String, String>>,
    }
}
