//! CSI calls as data: one enum of requests, one of replies, and the generated client that carries them.
//!
//! A controller's effect holds a [`CsiRequest`]; the link gives back a [`CsiReply`] or a gRPC status. The bytes in between are real: the
//! generated client encodes, the driver's generated server decodes.
//!
//! Left out: the streams of SnapshotMetadata, which no Kubernetes process of this tank reads.

use std::time::Duration;

use tonic::Status;
use tower::util::BoxCloneService;
use wavetank_proto::csi::v1 as csi;

/// Carries gRPC frames: in-process, over a socket, into a VM.
pub type Wire = BoxCloneService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, Status>;

macro_rules! calls {
    ($($service:ident $module:ident $client:ident { $($method:ident $function:ident $request:ident $response:ident,)* })*) => {
        /// A unary request of CSI.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each is the request message of the method of that name")]
        pub enum CsiRequest { $($($method(csi::$request),)*)* }

        /// The answer to a unary request of CSI.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each is the response message of the method of that name")]
        pub enum CsiReply { $($($method(csi::$response),)*)* }

        impl CsiRequest {
            /// The method's name, e.g. `CreateVolume`.
            pub fn method(&self) -> &'static str {
                match self { $($(CsiRequest::$method(_) => stringify!($method),)*)* }
            }

            /// The service's name, e.g. `Controller`.
            pub fn service(&self) -> &'static str {
                match self { $($(CsiRequest::$method(_) => stringify!($service),)*)* }
            }

            /// The full name of the request message, e.g. `csi.v1.CreateVolumeRequest`.
            pub fn message_name(&self) -> &'static str {
                match self { $($(CsiRequest::$method(_) => concat!("csi.v1.", stringify!($request)),)*)* }
            }

            /// The request message in protobuf encoding.
            pub fn encode(&self) -> Vec<u8> {
                match self { $($(CsiRequest::$method(m) => prost::Message::encode_to_vec(m),)*)* }
            }

            /// Sends it with the generated client. `timeout` goes into the `grpc-timeout` header; nobody here waits for it.
            ///
            /// # Errors
            /// What the driver answered, or what the wire made of it.
            pub async fn send(self, wire: Wire, timeout: Duration) -> Result<CsiReply, Status> {
                match self { $($(CsiRequest::$method(message) => {
                    let mut request = tonic::Request::new(message);
                    request.set_timeout(timeout);
                    let mut client = csi::$module::$client::new(wire);
                    client.$function(request).await.map(|r| CsiReply::$method(r.into_inner()))
                })*)* }
            }
        }

        impl CsiReply {
            /// The full name of the response message, e.g. `csi.v1.CreateVolumeResponse`.
            pub fn message_name(&self) -> &'static str {
                match self { $($(CsiReply::$method(_) => concat!("csi.v1.", stringify!($response)),)*)* }
            }

            /// The response message in protobuf encoding.
            pub fn encode(&self) -> Vec<u8> {
                match self { $($(CsiReply::$method(m) => prost::Message::encode_to_vec(m),)*)* }
            }
        }

        $($(impl From<csi::$request> for CsiRequest {
            fn from(message: csi::$request) -> CsiRequest { CsiRequest::$method(message) }
        })*)*

        /// Every method that a [`CsiRequest`] can name, as `(service, method)`.
        pub const METHODS: &[(&str, &str)] = &[$($((stringify!($service), stringify!($method)),)*)*];
    };
}

calls! {
    Identity identity_client IdentityClient {
        GetPluginInfo get_plugin_info GetPluginInfoRequest GetPluginInfoResponse,
        GetPluginCapabilities get_plugin_capabilities GetPluginCapabilitiesRequest GetPluginCapabilitiesResponse,
        Probe probe ProbeRequest ProbeResponse,
    }
    Controller controller_client ControllerClient {
        CreateVolume create_volume CreateVolumeRequest CreateVolumeResponse,
        DeleteVolume delete_volume DeleteVolumeRequest DeleteVolumeResponse,
        ControllerPublishVolume controller_publish_volume ControllerPublishVolumeRequest ControllerPublishVolumeResponse,
        ControllerUnpublishVolume controller_unpublish_volume ControllerUnpublishVolumeRequest ControllerUnpublishVolumeResponse,
        ValidateVolumeCapabilities validate_volume_capabilities ValidateVolumeCapabilitiesRequest ValidateVolumeCapabilitiesResponse,
        ListVolumes list_volumes ListVolumesRequest ListVolumesResponse,
        GetCapacity get_capacity GetCapacityRequest GetCapacityResponse,
        ControllerGetCapabilities controller_get_capabilities ControllerGetCapabilitiesRequest ControllerGetCapabilitiesResponse,
        CreateSnapshot create_snapshot CreateSnapshotRequest CreateSnapshotResponse,
        DeleteSnapshot delete_snapshot DeleteSnapshotRequest DeleteSnapshotResponse,
        ListSnapshots list_snapshots ListSnapshotsRequest ListSnapshotsResponse,
        GetSnapshot get_snapshot GetSnapshotRequest GetSnapshotResponse,
        ControllerExpandVolume controller_expand_volume ControllerExpandVolumeRequest ControllerExpandVolumeResponse,
        ControllerGetVolume controller_get_volume ControllerGetVolumeRequest ControllerGetVolumeResponse,
        ControllerModifyVolume controller_modify_volume ControllerModifyVolumeRequest ControllerModifyVolumeResponse,
    }
    GroupController group_controller_client GroupControllerClient {
        GroupControllerGetCapabilities group_controller_get_capabilities GroupControllerGetCapabilitiesRequest GroupControllerGetCapabilitiesResponse,
        CreateVolumeGroupSnapshot create_volume_group_snapshot CreateVolumeGroupSnapshotRequest CreateVolumeGroupSnapshotResponse,
        DeleteVolumeGroupSnapshot delete_volume_group_snapshot DeleteVolumeGroupSnapshotRequest DeleteVolumeGroupSnapshotResponse,
        GetVolumeGroupSnapshot get_volume_group_snapshot GetVolumeGroupSnapshotRequest GetVolumeGroupSnapshotResponse,
    }
    Node node_client NodeClient {
        NodeStageVolume node_stage_volume NodeStageVolumeRequest NodeStageVolumeResponse,
        NodeUnstageVolume node_unstage_volume NodeUnstageVolumeRequest NodeUnstageVolumeResponse,
        NodePublishVolume node_publish_volume NodePublishVolumeRequest NodePublishVolumeResponse,
        NodeUnpublishVolume node_unpublish_volume NodeUnpublishVolumeRequest NodeUnpublishVolumeResponse,
        NodeGetVolumeStats node_get_volume_stats NodeGetVolumeStatsRequest NodeGetVolumeStatsResponse,
        NodeExpandVolume node_expand_volume NodeExpandVolumeRequest NodeExpandVolumeResponse,
        NodeGetCapabilities node_get_capabilities NodeGetCapabilitiesRequest NodeGetCapabilitiesResponse,
        NodeGetInfo node_get_info NodeGetInfoRequest NodeGetInfoResponse,
    }
}

impl CsiRequest {
    /// The volume that it names by the driver's id.
    pub fn volume_id(&self) -> Option<&str> {
        Some(match self {
            CsiRequest::DeleteVolume(r) => &r.volume_id,
            CsiRequest::ControllerPublishVolume(r) => &r.volume_id,
            CsiRequest::ControllerUnpublishVolume(r) => &r.volume_id,
            CsiRequest::ValidateVolumeCapabilities(r) => &r.volume_id,
            CsiRequest::ControllerExpandVolume(r) => &r.volume_id,
            CsiRequest::ControllerGetVolume(r) => &r.volume_id,
            CsiRequest::ControllerModifyVolume(r) => &r.volume_id,
            CsiRequest::CreateSnapshot(r) => &r.source_volume_id,
            CsiRequest::NodeStageVolume(r) => &r.volume_id,
            CsiRequest::NodeUnstageVolume(r) => &r.volume_id,
            CsiRequest::NodePublishVolume(r) => &r.volume_id,
            CsiRequest::NodeUnpublishVolume(r) => &r.volume_id,
            CsiRequest::NodeGetVolumeStats(r) => &r.volume_id,
            CsiRequest::NodeExpandVolume(r) => &r.volume_id,
            _ => return None,
        })
    }

    /// The node that it names, if it is a controller's call.
    pub fn node_id(&self) -> Option<&str> {
        match self {
            CsiRequest::ControllerPublishVolume(r) => Some(&r.node_id),
            CsiRequest::ControllerUnpublishVolume(r) => Some(&r.node_id),
            _ => None,
        }
    }
}

/// Which socket of a driver a caller dials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Socket {
    /// The controller process: the sidecars' socket.
    Controller,
    /// The node process on the caller's own node: kubelet's and the registrar's socket.
    Node,
}

/// One CSI call of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The driver's name.
    pub driver: std::sync::Arc<str>,
    /// Which of its sockets.
    pub socket: Socket,
    /// The request.
    pub request: CsiRequest,
    /// The caller's own deadline.
    pub timeout: Duration,
}

/// Why a call brought no answer.
#[derive(Clone, Debug)]
pub struct CallError {
    /// What the caller's gRPC client reports.
    pub status: Status,
    /// The connection to the socket is lost: sidecars exit when they see this.
    pub disconnected: bool,
}

impl CallError {
    /// The gRPC code.
    pub fn code(&self) -> tonic::Code {
        self.status.code()
    }
}
