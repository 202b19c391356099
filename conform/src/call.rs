//! CSI's unary calls, each as its request: which method it is, who serves it, what it answers, where its secrets are.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use tonic::Status;
use tower::util::BoxCloneService;
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::redact::Secrets;

/// Carries gRPC frames to a driver.
pub type Wire = BoxCloneService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, Status>;

/// Which of a driver's processes serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The controller.
    Controller,
    /// The driver on the nth node.
    Node(usize),
}

/// The request of a unary call.
#[async_trait]
pub trait Unary: Clone + Send + Sync + 'static {
    /// What it answers.
    type Answer: Clone + PartialEq + Send + Sync + 'static;
    /// The method's name.
    const METHOD: &'static str;
    /// Is it a call of the Node service?
    const ON_NODE: bool;

    /// Sends it with the generated client.
    ///
    /// # Errors
    /// What the driver answered, or what the wire made of it.
    async fn send(self, wire: Wire) -> Result<Self::Answer, Status>;

    /// Its secrets, if it has a place for them.
    fn secrets(&mut self) -> Option<&mut BTreeMap<String, String>>;

    /// As JSON without what is not set and without secrets.
    fn shown(&self) -> Value;

    /// An answer likewise.
    fn shown_answer(answer: &Self::Answer) -> Value;
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(wavetank_proto::FILE_DESCRIPTOR_SET).expect("the descriptors are those of the build")
});

/// The descriptors of CSI.
pub fn descriptors() -> &'static DescriptorPool {
    &POOL
}

fn json(name: &str, message: &impl Message) -> Value {
    let descriptor = POOL
        .get_message_by_name(name)
        .expect("the descriptors hold every message");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice());
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true);
    let value = dynamic.ok().and_then(|dynamic| {
        dynamic
            .serialize_with_options(serde_json::value::Serializer, &options)
            .ok()
    });
    value.unwrap_or(Value::Null)
}

macro_rules! secrets {
    ($request:ident secret) => {
        Some($request.secrets_mut())
    };
    ($request:ident) => {{
        let _ = $request;
        None
    }};
}

macro_rules! calls {
    ($($module:ident $client:ident $on_node:literal { $($method:ident $function:ident $request:ident $response:ident $($secret:ident)?,)* })*) => {
        $($(#[async_trait]
        impl Unary for csi::$request {
            type Answer = csi::$response;
            const METHOD: &'static str = stringify!($method);
            const ON_NODE: bool = $on_node;

            async fn send(self, wire: Wire) -> Result<csi::$response, Status> {
                csi::$module::$client::new(wire).$function(self).await.map(tonic::Response::into_inner)
            }

            fn secrets(&mut self) -> Option<&mut BTreeMap<String, String>> {
                let request = self;
                secrets!(request $($secret)?)
            }

            fn shown(&self) -> Value {
                let mut open = self.clone();
                if let Some(secrets) = Unary::secrets(&mut open) {
                    secrets.clear();
                }
                json(concat!("csi.v1.", stringify!($request)), &open)
            }

            fn shown_answer(answer: &csi::$response) -> Value {
                json(concat!("csi.v1.", stringify!($response)), answer)
            }
        })*)*
    };
}

calls! {
    identity_client IdentityClient false {
        GetPluginInfo get_plugin_info GetPluginInfoRequest GetPluginInfoResponse,
        GetPluginCapabilities get_plugin_capabilities GetPluginCapabilitiesRequest GetPluginCapabilitiesResponse,
        Probe probe ProbeRequest ProbeResponse,
    }
    controller_client ControllerClient false {
        CreateVolume create_volume CreateVolumeRequest CreateVolumeResponse secret,
        DeleteVolume delete_volume DeleteVolumeRequest DeleteVolumeResponse secret,
        ControllerPublishVolume controller_publish_volume ControllerPublishVolumeRequest ControllerPublishVolumeResponse secret,
        ControllerUnpublishVolume controller_unpublish_volume ControllerUnpublishVolumeRequest ControllerUnpublishVolumeResponse secret,
        ValidateVolumeCapabilities validate_volume_capabilities ValidateVolumeCapabilitiesRequest ValidateVolumeCapabilitiesResponse secret,
        ListVolumes list_volumes ListVolumesRequest ListVolumesResponse,
        GetCapacity get_capacity GetCapacityRequest GetCapacityResponse,
        ControllerGetCapabilities controller_get_capabilities ControllerGetCapabilitiesRequest ControllerGetCapabilitiesResponse,
        CreateSnapshot create_snapshot CreateSnapshotRequest CreateSnapshotResponse secret,
        DeleteSnapshot delete_snapshot DeleteSnapshotRequest DeleteSnapshotResponse secret,
        ListSnapshots list_snapshots ListSnapshotsRequest ListSnapshotsResponse secret,
        GetSnapshot get_snapshot GetSnapshotRequest GetSnapshotResponse secret,
        ControllerExpandVolume controller_expand_volume ControllerExpandVolumeRequest ControllerExpandVolumeResponse secret,
        ControllerGetVolume controller_get_volume ControllerGetVolumeRequest ControllerGetVolumeResponse,
        ControllerModifyVolume controller_modify_volume ControllerModifyVolumeRequest ControllerModifyVolumeResponse secret,
    }
    group_controller_client GroupControllerClient false {
        GroupControllerGetCapabilities group_controller_get_capabilities
            GroupControllerGetCapabilitiesRequest GroupControllerGetCapabilitiesResponse,
        CreateVolumeGroupSnapshot create_volume_group_snapshot CreateVolumeGroupSnapshotRequest CreateVolumeGroupSnapshotResponse secret,
        DeleteVolumeGroupSnapshot delete_volume_group_snapshot DeleteVolumeGroupSnapshotRequest DeleteVolumeGroupSnapshotResponse secret,
        GetVolumeGroupSnapshot get_volume_group_snapshot GetVolumeGroupSnapshotRequest GetVolumeGroupSnapshotResponse secret,
    }
    node_client NodeClient true {
        NodeStageVolume node_stage_volume NodeStageVolumeRequest NodeStageVolumeResponse secret,
        NodeUnstageVolume node_unstage_volume NodeUnstageVolumeRequest NodeUnstageVolumeResponse,
        NodePublishVolume node_publish_volume NodePublishVolumeRequest NodePublishVolumeResponse secret,
        NodeUnpublishVolume node_unpublish_volume NodeUnpublishVolumeRequest NodeUnpublishVolumeResponse,
        NodeGetVolumeStats node_get_volume_stats NodeGetVolumeStatsRequest NodeGetVolumeStatsResponse,
        NodeExpandVolume node_expand_volume NodeExpandVolumeRequest NodeExpandVolumeResponse secret,
        NodeGetCapabilities node_get_capabilities NodeGetCapabilitiesRequest NodeGetCapabilitiesResponse,
        NodeGetInfo node_get_info NodeGetInfoRequest NodeGetInfoResponse,
    }
}

/// Where two JSON values differ, as `path: one, other`.
pub fn differences(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", one, other, &mut found);
    found
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                compare(&path, &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (nth, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{nth}]"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{path}: {a}, then {b}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Unary, differences};
    use serde_json::json;
    use wavetank_proto::csi::v1 as csi;

    #[test]
    fn a_request_is_shown_without_secrets_and_without_what_is_not_set() {
        let request = csi::DeleteVolumeRequest {
            volume_id: "v".to_owned(),
            secrets: [("key".to_owned(), "planted".to_owned())].into(),
        };
        assert_eq!(request.shown(), json!({"volume_id": "v"}));
    }

    #[test]
    fn differences_name_the_field() {
        let found = differences(&json!({"a": {"b": [1, 2]}, "c": 1}), &json!({"a": {"b": [1, 3]}}));
        assert_eq!(found, ["a.b[1]: 2, then 3", "c: 1, then null"]);
    }
}
