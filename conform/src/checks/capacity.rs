//! Obligations of GetCapacity.

use super::prelude::*;
use crate::lab::{WRITER, capability};

checks! { Controller:
    Must "capacity/plain", "GetCapacity without any wish answers OK with a capacity of at least 0.", "Controller Service RPC: GetCapacity",
        [Need::Controller(Rpc::GetCapacity)], plain;
    Must "capacity/of-a-class", "GetCapacity takes the capabilities and parameters with which volumes are made.",
        "Controller Service RPC: GetCapacity", [Need::Controller(Rpc::GetCapacity)], of_a_class;
    Must "capacity/of-a-place", "GetCapacity takes the topology of a node.", "GetCapacityRequest, `accessible_topology`",
        [Need::Controller(Rpc::GetCapacity), Need::Topology], of_a_place;
}

fn sane(answer: &csi::GetCapacityResponse) -> Outcome {
    let most = answer.maximum_volume_size.unwrap_or(1);
    let least = answer.minimum_volume_size.unwrap_or(0);
    expect(answer.available_capacity >= 0, || {
        format!("available_capacity is {}", answer.available_capacity)
    })?;
    expect(most >= 0 && least >= 0, || {
        format!("volumes are between {least} and {most} bytes")
    })
}

async fn plain(lab: &Lab) -> Outcome {
    sane(&lab.ok(csi::GetCapacityRequest::default()).await?)
}

async fn of_a_class(lab: &Lab) -> Outcome {
    let request = csi::GetCapacityRequest {
        volume_capabilities: vec![capability(lab.settings(), !lab.profile().mount, WRITER)],
        parameters: lab.settings().parameters.clone(),
        ..Default::default()
    };
    sane(&lab.ok(request).await?)
}

async fn of_a_place(lab: &Lab) -> Outcome {
    let Some(topology) = lab
        .profile()
        .nodes
        .first()
        .and_then(|info| info.accessible_topology.clone())
    else {
        return broken("NodeGetInfo gives no accessible_topology although VOLUME_ACCESSIBILITY_CONSTRAINTS is named");
    };
    let request = csi::GetCapacityRequest {
        parameters: lab.settings().parameters.clone(),
        accessible_topology: Some(topology),
        ..Default::default()
    };
    sane(&lab.ok(request).await?)
}
