//! Obligations of the Identity service, and of what a driver says of itself.

use wavetank_proto::csi::v1::plugin_capability::service::Type as PluginService;
use wavetank_proto::limits;

use super::prelude::*;
use crate::call::Side;

checks! { Identity:
    Must "info/name", "GetPluginInfo names the driver in domain name notation: at most 63 letters, digits, dashes and dots, alphanumeric at both ends.",
        "Identity Service RPC: GetPluginInfo, `name`", [], name;
    Must "info/version", "GetPluginInfo gives a vendor_version.", "Identity Service RPC: GetPluginInfo, `vendor_version`", [], version;
    Must "info/same-everywhere", "Every process of the driver gives the same name.", "Identity Service RPC: each plugin implements it", [], everywhere;
    Must "capabilities/are-known", "GetPluginCapabilities names no capability without a type.",
        "Identity Service RPC: GetPluginCapabilities, `type` is REQUIRED", [], known;
    Must "capabilities/are-served", "A service that GetPluginCapabilities names is served.",
        "GetPluginCapabilities: CONTROLLER_SERVICE, GROUP_CONTROLLER_SERVICE", [], served;
    Must "controller-capabilities/are-known", "ControllerGetCapabilities names no UNKNOWN capability.",
        "Controller Service RPC: ControllerGetCapabilities", [Need::Volumes], controller_known;
    Should "controller-capabilities/fit", "LIST_VOLUMES_PUBLISHED_NODES comes with LIST_VOLUMES and PUBLISH_UNPUBLISH_VOLUME, PUBLISH_READONLY with the latter.",
        "ControllerServiceCapability.RPC", [Need::Volumes], fit;
    Must "probe/answers", "Probe of a healthy driver answers OK, and ready is true or not said.", "Identity Service RPC: Probe", [], probe;
    Must "probe/on-the-node", "Probe answers on the socket of the node as well.", "Identity Service RPC: Probe", [], probe_on_the_node;
}

pub(super) fn is_domain_name(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= limits::PLUGIN_NAME_BYTES
        && ends(name.chars().next())
        && ends(name.chars().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
}

async fn name(lab: &Lab) -> Outcome {
    let info = lab.ok(csi::GetPluginInfoRequest {}).await?;
    expect(is_domain_name(&info.name), || {
        format!("`{}` is no such name", info.name)
    })
}

async fn version(lab: &Lab) -> Outcome {
    let info = lab.ok(csi::GetPluginInfoRequest {}).await?;
    expect(!info.vendor_version.is_empty(), || "vendor_version is empty".to_owned())
}

async fn everywhere(lab: &Lab) -> Outcome {
    let info = lab.ok(csi::GetPluginInfoRequest {}).await?;
    for node in 0..lab.profile().nodes.len() {
        let there = crate::call::Unary::send(csi::GetPluginInfoRequest {}, lab.wire(Side::Node(node))).await;
        match there {
            Ok(there) => expect(there.name == info.name, || format!("node {node} says `{}`", there.name))?,
            Err(status) => {
                return broken(format!(
                    "node {node} answers GetPluginInfo with {}",
                    crate::spell(status.code())
                ));
            }
        }
    }
    Ok(())
}

async fn known(lab: &Lab) -> Outcome {
    let answer = lab.ok(csi::GetPluginCapabilitiesRequest {}).await?;
    let silent = answer.capabilities.iter().filter(|one| one.r#type.is_none()).count();
    expect(silent == 0, || format!("{silent} capabilities say nothing"))?;
    expect(!lab.profile().services.contains(&PluginService::Unknown.into()), || {
        "a service is UNKNOWN".to_owned()
    })
}

async fn served(lab: &Lab) -> Outcome {
    if lab.profile().names(PluginService::ControllerService) {
        lab.ok(csi::ControllerGetCapabilitiesRequest {}).await?;
    }
    if lab.profile().names(PluginService::GroupControllerService) {
        lab.ok(csi::GroupControllerGetCapabilitiesRequest {}).await?;
    }
    Ok(())
}

async fn controller_known(lab: &Lab) -> Outcome {
    let answer = lab.ok(csi::ControllerGetCapabilitiesRequest {}).await?;
    expect(answer.capabilities.iter().all(|one| one.r#type.is_some()), || {
        "a capability says nothing".to_owned()
    })?;
    expect(!lab.profile().controller.contains(&Rpc::Unknown.into()), || {
        "a capability is UNKNOWN".to_owned()
    })
}

async fn fit(lab: &Lab) -> Outcome {
    let pairs = [
        (Rpc::ListVolumesPublishedNodes, Rpc::ListVolumes),
        (Rpc::ListVolumesPublishedNodes, Rpc::PublishUnpublishVolume),
        (Rpc::PublishReadonly, Rpc::PublishUnpublishVolume),
    ];
    for (one, needs) in pairs {
        expect(!lab.has(one) || lab.has(needs), || {
            format!("{} without {}", one.as_str_name(), needs.as_str_name())
        })?;
    }
    Ok(())
}

async fn probe(lab: &Lab) -> Outcome {
    let answer = lab.ok(csi::ProbeRequest {}).await?;
    expect(answer.ready != Some(false), || "ready is false".to_owned())
}

async fn probe_on_the_node(lab: &Lab) -> Outcome {
    match crate::call::Unary::send(csi::ProbeRequest {}, lab.wire(Side::Node(0))).await {
        Ok(answer) => expect(answer.ready != Some(false), || "ready is false".to_owned()),
        Err(status) => broken(format!(
            "Probe answered {} ({})",
            crate::spell(status.code()),
            status.message()
        )),
    }
}
