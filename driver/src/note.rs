//! What a call that may change something is about, told to whoever watches the process: the name or the id in its request, and no other field of
//! it, because requests carry secrets.

use std::sync::{Arc, OnceLock};

use tonic::Request;
use wavetank_proto::csi::v1 as csi;

/// How much of a name is told: what is longer is refused anyway.
const TOLD: usize = 128;

/// Put among the extensions of a request, it is told what the request is about.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<OnceLock<String>>);

impl Note {
    /// What the request is about; empty if it never came so far.
    pub fn text(&self) -> &str {
        self.0.get().map_or("", String::as_str)
    }
}

/// The request itself, once its note is taken.
pub(crate) fn taken<T: About>(request: Request<T>) -> T {
    if let Some(note) = request.extensions().get::<Note>() {
        note.0
            .get_or_init(|| request.get_ref().about().chars().take(TOLD).collect());
    }
    request.into_inner()
}

/// A request that may change something.
pub(crate) trait About {
    fn about(&self) -> &str;
}

macro_rules! about {
    ($($request:ident: $field:ident,)*) => {
        $(impl About for csi::$request {
            fn about(&self) -> &str {
                &self.$field
            }
        })*
    };
}

about! {
    CreateVolumeRequest: name,
    DeleteVolumeRequest: volume_id,
    ControllerPublishVolumeRequest: volume_id,
    ControllerUnpublishVolumeRequest: volume_id,
    ControllerExpandVolumeRequest: volume_id,
    ControllerModifyVolumeRequest: volume_id,
    CreateSnapshotRequest: name,
    DeleteSnapshotRequest: snapshot_id,
    CreateVolumeGroupSnapshotRequest: name,
    DeleteVolumeGroupSnapshotRequest: group_snapshot_id,
    NodeStageVolumeRequest: volume_id,
    NodeUnstageVolumeRequest: volume_id,
    NodePublishVolumeRequest: volume_id,
    NodeUnpublishVolumeRequest: volume_id,
    NodeExpandVolumeRequest: volume_id,
}
