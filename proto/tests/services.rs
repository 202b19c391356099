//! Clients and servers meet without a socket: paths carry the published names, calls that a plugin does not implement
//! are refused as CSI asks for, and a stream brings what its plugin sends, in order, with its end or its error.

use std::future::Future;

use tokio_stream::iter;
use wavetank_proto::csi::v1::controller_client::ControllerClient;
use wavetank_proto::csi::v1::controller_server::{self, Controller, ControllerServer};
use wavetank_proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use wavetank_proto::csi::v1::snapshot_metadata_server::{self, SnapshotMetadata, SnapshotMetadataServer};
use wavetank_proto::csi::v1::{CreateVolumeRequest, GetMetadataAllocatedRequest, GetMetadataAllocatedResponse};
use wavetank_proto::csi::v1::{DeleteVolumeRequest, DeleteVolumeResponse};
use wavetank_proto::csi::v1::{group_controller_server, identity_server, node_server};
use wavetank_proto::registration::v1::registration_client::RegistrationClient;
use wavetank_proto::registration::v1::registration_server::{self, Registration, RegistrationServer};
use wavetank_proto::registration::v1::{
    CSI_PLUGIN, CSI_PLUGIN_VERSION, InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use wavetank_proto::tonic::{self, Code, Request, Response, Status, codegen::BoxStream};

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers")
        .block_on(test);
}

#[test]
fn services_are_found_under_their_published_names() {
    let names = [
        identity_server::SERVICE_NAME,
        controller_server::SERVICE_NAME,
        group_controller_server::SERVICE_NAME,
        snapshot_metadata_server::SERVICE_NAME,
        node_server::SERVICE_NAME,
        registration_server::SERVICE_NAME,
    ];
    let published = [
        "csi.v1.Identity",
        "csi.v1.Controller",
        "csi.v1.GroupController",
        "csi.v1.SnapshotMetadata",
        "csi.v1.Node",
        "pluginregistration.Registration",
    ];
    assert_eq!(names, published);
}

/// Deletes anything and offers nothing else.
struct DeletesOnly;

#[tonic::async_trait]
impl Controller for DeletesOnly {
    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        assert_eq!(request.into_inner().volume_id, "vol-1");
        Ok(Response::new(DeleteVolumeResponse {}))
    }
}

#[test]
fn a_call_that_is_not_implemented_is_refused_and_the_others_answer() {
    run(async {
        let mut client = ControllerClient::new(ControllerServer::new(DeletesOnly));
        client
            .delete_volume(DeleteVolumeRequest {
                volume_id: "vol-1".to_owned(),
                ..Default::default()
            })
            .await
            .unwrap();
        let refused = client.create_volume(CreateVolumeRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(!refused.message().is_empty(), "CSI wants a text with every refusal");
    });
}

/// Sends messages up to the offset asked for, then breaks.
struct Breaks;

#[tonic::async_trait]
impl SnapshotMetadata for Breaks {
    async fn get_metadata_allocated(
        &self,
        request: Request<GetMetadataAllocatedRequest>,
    ) -> Result<Response<BoxStream<GetMetadataAllocatedResponse>>, Status> {
        let sizes = 0..request.into_inner().starting_offset;
        let messages = sizes.map(|volume_capacity_bytes| {
            Ok(GetMetadataAllocatedResponse {
                volume_capacity_bytes,
                ..Default::default()
            })
        });
        Ok(Response::new(Box::pin(iter(
            messages.chain([Err(Status::unavailable("broke"))]),
        ))))
    }
}

/// Only the normal end of a metadata stream means "complete", so an error after messages must arrive as an error.
#[test]
fn a_stream_that_breaks_is_not_one_that_ends() {
    run(async {
        let mut client = SnapshotMetadataClient::new(SnapshotMetadataServer::new(Breaks));
        let request = GetMetadataAllocatedRequest {
            starting_offset: 3,
            ..Default::default()
        };
        let mut stream = client.get_metadata_allocated(request).await.unwrap().into_inner();
        for size in 0..3 {
            assert_eq!(stream.message().await.unwrap().unwrap().volume_capacity_bytes, size);
        }
        assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    });
}

struct Registrar;

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: CSI_PLUGIN.to_owned(),
            name: "tiny.example.com".to_owned(),
            endpoint: "/csi/csi.sock".to_owned(),
            supported_versions: vec![CSI_PLUGIN_VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        assert!(!status.plugin_registered && status.error == "no such endpoint");
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[test]
fn a_registrar_speaks_to_kubelet() {
    run(async {
        let mut kubelet = RegistrationClient::new(RegistrationServer::new(Registrar));
        let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!(
            (info.r#type.as_str(), info.supported_versions),
            ("CSIPlugin", vec!["1.0.0".to_owned()])
        );
        let outcome = RegistrationStatus {
            plugin_registered: false,
            error: "no such endpoint".to_owned(),
        };
        kubelet.notify_registration_status(outcome).await.unwrap();
    });
}
