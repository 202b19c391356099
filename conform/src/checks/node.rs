//! Obligations of a node's description: NodeGetCapabilities and NodeGetInfo.

use wavetank_proto::limits;

use super::prelude::*;

checks! { Node:
    Must "node-capabilities/are-known", "NodeGetCapabilities names no UNKNOWN capability.", "Node Service RPC: NodeGetCapabilities", [], known;
    Must "node-info/id", "NodeGetInfo gives a node_id of 1 to 256 bytes.", "NodeGetInfoResponse, `node_id` is REQUIRED", [], id;
    Should "node-info/short-id", "A node_id has at most 128 bytes, for callers that know older versions of the specification.", "NodeGetInfoResponse, `node_id`", [], short_id;
    Must "node-info/limit", "max_volumes_per_node is not negative.", "NodeGetInfoResponse, `max_volumes_per_node`", [], limit;
    Must "node-info/same", "NodeGetInfo answers the same again.", "Node Service RPC: NodeGetInfo", [], same;
    Must "node-info/topology", "A driver with accessibility constraints says where its node is, in legal segments.",
        "NodeGetInfoResponse, `accessible_topology`", [Need::Topology], topology;
    Must "node-info/ids-differ", "Two nodes have two ids.", "NodeGetInfoResponse, `node_id`", [Need::TwoNodes], differ;
}

async fn known(lab: &Lab) -> Outcome {
    let answer = lab.ok(csi::NodeGetCapabilitiesRequest {}).await?;
    expect(answer.capabilities.iter().all(|one| one.r#type.is_some()), || {
        "a capability says nothing".to_owned()
    })?;
    expect(!lab.profile().node.contains(&NodeRpc::Unknown.into()), || {
        "a capability is UNKNOWN".to_owned()
    })
}

async fn id(lab: &Lab) -> Outcome {
    let length = lab.ok(csi::NodeGetInfoRequest {}).await?.node_id.len();
    expect((1..=limits::NODE_ID_BYTES).contains(&length), || {
        format!("the node_id has {length} bytes")
    })
}

async fn short_id(lab: &Lab) -> Outcome {
    let length = lab.ok(csi::NodeGetInfoRequest {}).await?.node_id.len();
    expect(length <= limits::NODE_ID_RECOMMENDED_BYTES, || {
        format!("the node_id has {length} bytes")
    })
}

async fn limit(lab: &Lab) -> Outcome {
    let most = lab.ok(csi::NodeGetInfoRequest {}).await?.max_volumes_per_node;
    expect(most >= 0, || format!("max_volumes_per_node is {most}"))
}

async fn same(lab: &Lab) -> Outcome {
    let first = lab.ok(csi::NodeGetInfoRequest {}).await?;
    lab.again(0, csi::NodeGetInfoRequest {}, &first).await
}

async fn topology(lab: &Lab) -> Outcome {
    let segments = lab
        .ok(csi::NodeGetInfoRequest {})
        .await?
        .accessible_topology
        .unwrap_or_default()
        .segments;
    expect(!segments.is_empty(), || "accessible_topology is empty".to_owned())?;
    for (key, value) in &segments {
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
        let fits = prefix.len() <= limits::TOPOLOGY_PREFIX_BYTES
            && (1..=limits::TOPOLOGY_NAME_BYTES).contains(&name.len())
            && value.len() <= limits::TOPOLOGY_VALUE_BYTES;
        expect(fits, || format!("`{key}: {value}` is too long"))?;
    }
    Ok(())
}

async fn differ(lab: &Lab) -> Outcome {
    expect(lab.node_id(0) != lab.node_id(1), || {
        format!("both are `{}`", lab.node_id(0))
    })
}
