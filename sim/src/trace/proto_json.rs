//! CSI messages as the JSON of protobuf, with the field names of the specification and without secrets.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, SerializeOptions};
use serde_json::Value as Json;
use wavetank_proto::redact::STRIPPED;

use crate::link::{CsiReply, CsiRequest};

/// The descriptors of the wire, and the option that marks secrets.
static WIRE: LazyLock<(DescriptorPool, ExtensionDescriptor)> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(wavetank_proto::FILE_DESCRIPTOR_SET).expect("the build script encoded it");
    let secret = pool
        .get_extension_by_name("csi.v1.csi_secret")
        .expect("csi.proto declares it");
    (pool, secret)
});

/// How the recorded traces spell messages: names as in the specification, 64-bit numbers as text, zero values left out.
const SPELLING: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .stringify_64_bit_integers(true)
    .skip_default_fields(true);

/// A request as JSON.
pub fn request(request: &CsiRequest) -> Json {
    message(request.message_name(), &request.encode())
}

/// A reply as JSON.
pub fn reply(reply: &CsiReply) -> Json {
    message(reply.message_name(), &reply.encode())
}

fn message(name: &str, bytes: &[u8]) -> Json {
    let (pool, secret) = &*WIRE;
    let descriptor = pool
        .get_message_by_name(name)
        .expect("every CSI message is in the descriptor set");
    let mut message = DynamicMessage::decode(descriptor.clone(), bytes).expect("prost encoded it just now");
    // The option stands on fields of requests only, never on what is nested in them; a test of the wire crate says so.
    let hidden: Vec<_> = descriptor
        .fields()
        .filter(|f| f.options().get_extension(secret).as_bool() == Some(true) && message.has_field(f))
        .collect();
    hidden.iter().for_each(|field| message.clear_field(field));
    let json = message.serialize_with_options(serde_json::value::Serializer, &SPELLING);
    let mut json = json.expect("a CSI message holds nothing that JSON cannot");
    if let Json::Object(fields) = &mut json {
        fields.extend(hidden.iter().map(|field| (field.name().to_owned(), STRIPPED.into())));
    }
    sorted(json)
}

/// The same with the keys of every map in order: the maps of reflected messages have none.
fn sorted(json: Json) -> Json {
    match json {
        Json::Object(fields) => {
            let mut fields: Vec<(String, Json)> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(fields.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        scalar => scalar,
    }
}

#[cfg(test)]
mod tests {
    use super::{reply, request};
    use crate::link::{CsiReply, CsiRequest};
    use serde_json::json;
    use wavetank_proto::csi::v1 as csi;

    #[test]
    fn requests_read_as_the_specification_spells_them_and_keep_their_secrets() {
        let mode = csi::volume_capability::access_mode::Mode::SingleNodeMultiWriter;
        let message = csi::CreateVolumeRequest {
            name: "pvc-1".into(),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: 1 << 30,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![csi::VolumeCapability {
                access_mode: Some(csi::volume_capability::AccessMode { mode: mode.into() }),
                access_type: Some(csi::volume_capability::AccessType::Mount(Default::default())),
            }],
            parameters: [("b", "2"), ("a", "1"), ("c", "3")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            secrets: [("hidden-key".to_owned(), "hidden-value".to_owned())].into(),
            ..Default::default()
        };
        let json = request(&CsiRequest::CreateVolume(message));
        assert_eq!(
            json,
            json!({
                "name": "pvc-1",
                "capacity_range": {"required_bytes": "1073741824"},
                "volume_capabilities": [{"access_mode": {"mode": "SINGLE_NODE_MULTI_WRITER"}, "mount": {}}],
                "parameters": {"a": "1", "b": "2", "c": "3"},
                "secrets": "***stripped***",
            })
        );
        let order = json.to_string();
        assert!(order.find("\"a\"") < order.find("\"b\"") && order.find("\"b\"") < order.find("\"c\""));
    }

    #[test]
    fn an_empty_answer_is_an_empty_object() {
        assert_eq!(reply(&CsiReply::DeleteVolume(csi::DeleteVolumeResponse {})), json!({}));
        let ready = CsiReply::Probe(csi::ProbeResponse { ready: Some(true) });
        assert_eq!(reply(&ready), json!({"ready": true}));
    }
}
