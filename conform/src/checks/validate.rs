//! Obligations of ValidateVolumeCapabilities.

use super::prelude::*;
use crate::lab::Volume;

checks! { Controller:
    Must "validate/needs-volume-id", "ValidateVolumeCapabilities without a volume_id is refused.", "ValidateVolumeCapabilitiesRequest, `volume_id` is REQUIRED",
        [Need::Volumes], needs_id;
    Must "validate/needs-capabilities", "ValidateVolumeCapabilities without volume_capabilities is refused.",
        "ValidateVolumeCapabilitiesRequest, `volume_capabilities` is REQUIRED", [Need::Volumes], needs_capabilities;
    Must "validate/unknown-volume", "ValidateVolumeCapabilities of a volume that does not exist is refused with NOT_FOUND.",
        "ValidateVolumeCapabilities Errors: volume does not exist", [Need::Volumes], unknown;
    Must "validate/confirms", "ValidateVolumeCapabilities confirms the capabilities with which a volume was made.",
        "ValidateVolumeCapabilitiesResponse, `confirmed`", [Need::Volumes], confirms;
}

fn request(lab: &Lab, volume: &Volume) -> csi::ValidateVolumeCapabilitiesRequest {
    csi::ValidateVolumeCapabilitiesRequest {
        volume_id: volume.id.clone(),
        volume_context: volume.answer.volume_context.clone(),
        volume_capabilities: volume.request.volume_capabilities.clone(),
        parameters: lab.settings().parameters.clone(),
        ..Default::default()
    }
}

async fn needs_id(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::ValidateVolumeCapabilitiesRequest {
            volume_id: String::new(),
            ..request(lab, &volume)
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_capabilities(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::ValidateVolumeCapabilitiesRequest {
            volume_capabilities: Vec::new(),
            ..request(lab, &volume)
        },
        &[InvalidArgument],
    )
    .await
}

async fn unknown(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    lab.refused(
        csi::ValidateVolumeCapabilitiesRequest {
            volume_id: NOBODY.to_owned(),
            ..request(lab, &volume)
        },
        &[NotFound],
    )
    .await
}

async fn confirms(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let answer = lab.ok(request(lab, &volume)).await?;
    let Some(confirmed) = answer.confirmed else {
        return broken(format!("not confirmed: {}", answer.message));
    };
    let asked = &volume.request.volume_capabilities;
    expect(confirmed.volume_capabilities.len() == asked.len(), || {
        format!("confirmed are {:?}", confirmed.volume_capabilities)
    })
}
