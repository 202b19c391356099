//! Obligations of ControllerModifyVolume.

use super::prelude::*;

checks! { Controller:
    Must "modify/needs-id", "ControllerModifyVolume without a volume_id is refused.", "ControllerModifyVolumeRequest, `volume_id` is REQUIRED",
        [Need::Controller(Rpc::ModifyVolume)], needs_id;
    Must "modify/unknown", "ControllerModifyVolume of a volume that does not exist is refused with NOT_FOUND.",
        "ControllerModifyVolume Errors: volume does not exist", [Need::Controller(Rpc::ModifyVolume), Need::MutableParameters], unknown;
    Must "modify/unsupported", "ControllerModifyVolume with a parameter that the driver does not know is refused with INVALID_ARGUMENT.",
        "ControllerModifyVolume Errors: parameters not supported", [Need::Volumes, Need::Controller(Rpc::ModifyVolume)], unsupported;
    Must "modify/modifies", "ControllerModifyVolume with parameters that the driver takes answers OK, and again.",
        "ControllerModifyVolume: this operation MUST be idempotent", [Need::Volumes, Need::Controller(Rpc::ModifyVolume), Need::MutableParameters], modifies;
    Must "modify/at-creation", "CreateVolume takes mutable_parameters that ControllerModifyVolume takes.", "CreateVolumeRequest, `mutable_parameters`",
        [Need::Volumes, Need::Controller(Rpc::ModifyVolume), Need::MutableParameters], at_creation;
}

fn request(lab: &Lab, id: &str) -> csi::ControllerModifyVolumeRequest {
    csi::ControllerModifyVolumeRequest {
        volume_id: id.to_owned(),
        mutable_parameters: lab.settings().mutable_parameters.clone(),
        ..Default::default()
    }
}

async fn needs_id(lab: &Lab) -> Outcome {
    lab.refused(request(lab, ""), &[InvalidArgument]).await
}

async fn unknown(lab: &Lab) -> Outcome {
    lab.refused(request(lab, NOBODY), &[NotFound]).await
}

async fn unsupported(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let mutable_parameters = [(NOBODY.to_owned(), "1".to_owned())].into();
    lab.refused(
        csi::ControllerModifyVolumeRequest {
            mutable_parameters,
            ..request(lab, &volume.id)
        },
        &[InvalidArgument],
    )
    .await
}

async fn modifies(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let first = lab.ok(request(lab, &volume.id)).await?;
    lab.again(0, request(lab, &volume.id), &first).await
}

async fn at_creation(lab: &Lab) -> Outcome {
    let mutable_parameters = lab.settings().mutable_parameters.clone();
    let request = csi::CreateVolumeRequest {
        mutable_parameters,
        ..lab.create_request("v", !lab.profile().mount)
    };
    let first = lab.ok(request.clone()).await?;
    lab.again(0, request, &first).await
}
