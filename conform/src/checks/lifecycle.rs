//! The whole way of a volume, forth and back.

use super::prelude::*;

checks! { Lifecycle:
    Must "lifecycle/mount", "A volume with a file system goes all the way to a pod and back, and nothing is left of it.", "RPC Interactions: the lifecycle of a volume",
        [Need::Volumes, Need::Mount], mount;
    Must "lifecycle/block", "A raw block volume goes all the way to a pod and back, and nothing is left of it.", "RPC Interactions: the lifecycle of a volume",
        [Need::Volumes, Need::Block], block;
    Must "lifecycle/read-only", "A volume goes to a pod read-only and back.", "NodePublishVolumeRequest, `readonly`", [Need::Volumes, Need::Mount], read_only;
    Must "lifecycle/again-and-again", "A volume goes to a pod and back several times.", "RPC Interactions", [Need::Volumes], several;
    Must "lifecycle/stays-staged", "A staged volume is published and unpublished several times.", "NodeUnpublishVolume",
        [Need::Volumes, Need::Node(NodeRpc::StageUnstageVolume)], stays_staged;
    Must "lifecycle/extra-secrets", "Secrets that a driver does not need do not disturb it.", "Secrets Requirements: OPTIONAL", [Need::Volumes], extra_secrets;
}

async fn mount(lab: &Lab) -> Outcome {
    let volume = lab.make(lab.create_request("v", false)).await?;
    let place = lab.up(&volume, 0).await?;
    lab.down(&volume, &place).await?;
    lab.delete(&volume).await
}

async fn block(lab: &Lab) -> Outcome {
    let volume = lab.block("v").await?;
    let place = lab.up(&volume, 0).await?;
    lab.down(&volume, &place).await?;
    lab.delete(&volume).await
}

async fn read_only(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let mut place = lab.staged(&volume, 0).await?;
    place.publish.readonly = true;
    lab.ok(place.publish.clone()).await?;
    lab.down(&volume, &place).await
}

async fn several(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    for _ in 0..3 {
        let place = lab.up(&volume, 0).await?;
        lab.down(&volume, &place).await?;
    }
    lab.delete(&volume).await
}

async fn stays_staged(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let place = lab.staged(&volume, 0).await?;
    for _ in 0..3 {
        lab.ok(place.publish.clone()).await?;
        lab.unpublish(&volume, &place).await?;
    }
    lab.down(&volume, &place).await
}

async fn extra_secrets(lab: &Lab) -> Outcome {
    let mut request = lab.create_request("v", !lab.profile().mount);
    request
        .secrets
        .insert("wavetank-unused".to_owned(), "nobody needs to know".to_owned());
    let volume = lab.make(request).await?;
    let place = lab.up(&volume, 0).await?;
    lab.down(&volume, &place).await?;
    lab.delete(&volume).await
}
