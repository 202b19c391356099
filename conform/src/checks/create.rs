//! Obligations of CreateVolume.

use wavetank_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use wavetank_proto::limits;

use super::prelude::*;
use crate::lab::Volume;

checks! { Controller:
    Must "create/needs-name", "CreateVolume without a name is refused.", "CreateVolumeRequest, `name` is REQUIRED", [Need::Volumes], needs_name;
    Must "create/needs-capabilities", "CreateVolume without volume_capabilities is refused.",
        "CreateVolumeRequest, `volume_capabilities` is REQUIRED", [Need::Volumes], needs_capabilities;
    Must "create/needs-access-type", "CreateVolume with a capability that is neither block nor mount is refused.",
        "VolumeCapability, `access_type` is REQUIRED", [Need::Volumes], needs_access_type;
    Should "create/needs-access-mode", "CreateVolume with a capability without an access mode is refused.",
        "VolumeCapability, `access_mode` is REQUIRED", [Need::Volumes], needs_access_mode;
    Should "create/unknown-access-mode", "CreateVolume with an access mode that does not exist is refused, never guessed.",
        "VolumeCapability.AccessMode, `mode`", [Need::Volumes], unknown_access_mode;
    Must "create/any-size", "CreateVolume without a capacity_range makes a volume; its size is not negative.",
        "CreateVolumeRequest, `capacity_range` is OPTIONAL", [Need::Volumes], any_size;
    Must "create/size-as-asked", "A volume is at least as large as required_bytes.", "CapacityRange, `required_bytes`", [Need::Volumes], size_as_asked;
    Must "create/size-within-limit", "A volume is never larger than limit_bytes.", "CapacityRange, `limit_bytes`", [Need::Volumes], within_limit;
    Should "create/impossible-range", "A limit below the required size is refused.", "CreateVolume Errors: OUT_OF_RANGE", [Need::Volumes], impossible_range;
    Should "create/negative-size", "A negative size is refused.", "CapacityRange: `required_bytes` MUST NOT be negative", [Need::Volumes], negative_size;
    Must "create/id-fits", "A volume_id has 1 to 128 bytes and a volume_context at most 4 KiB.", "Size Limits; Volume", [Need::Volumes], id_fits;
    Must "create/same-name-same-volume", "CreateVolume with the same request answers with the same volume, field by field.",
        "CreateVolume: this operation MUST be idempotent", [Need::Volumes], same_again;
    Must "create/same-name-other-size", "CreateVolume with a known name and an incompatible size is refused with ALREADY_EXISTS.",
        "CreateVolume Errors: ALREADY_EXISTS", [Need::Volumes], other_size;
    Must "create/other-name-other-volume", "Two names make two volumes.", "CreateVolumeRequest, `name`", [Need::Volumes], two_names;
    Must "create/long-name", "A name of 128 bytes is taken.", "Size Limits: 128 bytes", [Need::Volumes], long_name;
    Must "create/unicode-name", "A name of any Unicode characters but control characters is taken.", "CreateVolumeRequest, `name`: any Unicode string",
        [Need::Volumes], unicode_name;
    Should "create/control-character", "A name with a control character is refused.", "CreateVolumeRequest, `name`: U+0000-U+0008 are banned",
        [Need::Volumes], control_character;
    Must "create/unknown-snapshot", "CreateVolume from a snapshot that does not exist is refused with NOT_FOUND.", "CreateVolume Errors: source does not exist",
        [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], unknown_snapshot;
    Must "create/unknown-volume", "CreateVolume from a volume that does not exist is refused with NOT_FOUND.", "CreateVolume Errors: source does not exist",
        [Need::Volumes, Need::Controller(Rpc::CloneVolume)], unknown_volume;
    Must "create/from-snapshot", "A volume made from a snapshot says so in content_source and is at least as large.",
        "Volume, `content_source` is REQUIRED if a source was named", [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], from_snapshot;
    Must "create/from-volume", "A volume made from a volume says so in content_source and is at least as large.",
        "Volume, `content_source` is REQUIRED if a source was named", [Need::Volumes, Need::Controller(Rpc::CloneVolume)], from_volume;
    Must "create/other-source", "CreateVolume with a known name and another source is refused with ALREADY_EXISTS.", "CreateVolume Errors: ALREADY_EXISTS",
        [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], other_source;
    Must "create/larger-restore", "A restore that asks for more than the snapshot has is made as large as asked, or refused with OUT_OF_RANGE.",
        "CapacityRange, `required_bytes`", [Need::Volumes, Need::Controller(Rpc::CreateDeleteSnapshot)], larger_restore;
    Must "create/says-where", "A driver with accessibility constraints says from where a volume can be reached.",
        "Volume, `accessible_topology`", [Need::Volumes, Need::Topology], says_where;
    Must "create/where-it-is-wanted", "A volume that is required in the topology of a node can be reached from that node.",
        "TopologyRequirement, `requisite`", [Need::Volumes, Need::Topology], where_wanted;
}

fn base(lab: &Lab) -> csi::CreateVolumeRequest {
    lab.create_request("v", !lab.profile().mount)
}

async fn needs_name(lab: &Lab) -> Outcome {
    lab.refused(
        csi::CreateVolumeRequest {
            name: String::new(),
            ..base(lab)
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_capabilities(lab: &Lab) -> Outcome {
    lab.refused(
        csi::CreateVolumeRequest {
            volume_capabilities: Vec::new(),
            ..base(lab)
        },
        &[InvalidArgument],
    )
    .await
}

async fn needs_access_type(lab: &Lab) -> Outcome {
    let mut request = base(lab);
    request.volume_capabilities[0].access_type = None;
    lab.refused(request, &[InvalidArgument]).await
}

async fn needs_access_mode(lab: &Lab) -> Outcome {
    let mut request = base(lab);
    request.volume_capabilities[0].access_mode = None;
    lab.refused(request, &[InvalidArgument]).await
}

async fn unknown_access_mode(lab: &Lab) -> Outcome {
    let mut request = base(lab);
    request.volume_capabilities[0].access_mode = Some(csi::volume_capability::AccessMode { mode: 4711 });
    lab.refused(request, &[InvalidArgument, OutOfRange]).await
}

async fn any_size(lab: &Lab) -> Outcome {
    let volume = lab
        .make(csi::CreateVolumeRequest {
            capacity_range: None,
            ..base(lab)
        })
        .await?;
    expect(volume.answer.capacity_bytes >= 0, || {
        format!("capacity_bytes is {}", volume.answer.capacity_bytes)
    })
}

/// A capacity of 0 means that it is not known.
pub(super) fn at_least(what: &str, has: i64, wanted: i64) -> Outcome {
    expect(has == 0 || has >= wanted, || {
        format!("{what} is {has}, asked for were {wanted}")
    })
}

async fn size_as_asked(lab: &Lab) -> Outcome {
    let volume = lab.make(base(lab)).await?;
    at_least("capacity_bytes", volume.answer.capacity_bytes, lab.settings().size)
}

async fn within_limit(lab: &Lab) -> Outcome {
    let size = lab.settings().size;
    let capacity_range = Some(csi::CapacityRange {
        required_bytes: size,
        limit_bytes: size,
    });
    match lab
        .ok_or(
            csi::CreateVolumeRequest {
                capacity_range,
                ..base(lab)
            },
            &[OutOfRange],
        )
        .await?
    {
        None => Err(Stop::NotApplicable(format!(
            "the driver makes no volume of exactly {size} bytes"
        ))),
        Some(answer) => {
            let has = answer.volume.unwrap_or_default().capacity_bytes;
            expect(has <= size, || format!("capacity_bytes is {has}, the limit was {size}"))
        }
    }
}

async fn impossible_range(lab: &Lab) -> Outcome {
    let size = lab.settings().size;
    let capacity_range = Some(csi::CapacityRange {
        required_bytes: size,
        limit_bytes: size - 1,
    });
    lab.refused(
        csi::CreateVolumeRequest {
            capacity_range,
            ..base(lab)
        },
        &[OutOfRange, InvalidArgument],
    )
    .await
}

async fn negative_size(lab: &Lab) -> Outcome {
    lab.refused(
        csi::CreateVolumeRequest {
            capacity_range: range(-1),
            ..base(lab)
        },
        &[OutOfRange, InvalidArgument],
    )
    .await
}

async fn id_fits(lab: &Lab) -> Outcome {
    let volume = lab.make(base(lab)).await?;
    let context: usize = volume
        .answer
        .volume_context
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    expect(volume.id.len() <= limits::STRING_BYTES, || {
        format!("the volume_id has {} bytes", volume.id.len())
    })?;
    expect(context <= limits::MAP_BYTES, || {
        format!("the volume_context has {context} bytes")
    })
}

async fn same_again(lab: &Lab) -> Outcome {
    let first = lab.ok(base(lab)).await?;
    lab.again(0, base(lab), &first).await
}

async fn other_size(lab: &Lab) -> Outcome {
    let volume = lab.make(base(lab)).await?;
    if volume.answer.capacity_bytes == 0 {
        // "If not set (value of 0), it indicates that the capacity of the volume is unknown."
        return Err(Stop::NotApplicable(
            "the driver does not say how large a volume is, so none has the wrong size".to_owned(),
        ));
    }
    lab.refused(
        csi::CreateVolumeRequest {
            capacity_range: range(lab.settings().grown),
            ..base(lab)
        },
        &[AlreadyExists],
    )
    .await
}

async fn two_names(lab: &Lab) -> Outcome {
    let (one, other) = (lab.volume("one").await?, lab.volume("other").await?);
    expect(one.id != other.id, || format!("both are {}", one.id))
}

async fn long_name(lab: &Lab) -> Outcome {
    let mut request = base(lab);
    let missing = limits::STRING_BYTES.saturating_sub(request.name.len());
    request.name.push_str(&"x".repeat(missing));
    lab.make(request).await.map(drop)
}

async fn unicode_name(lab: &Lab) -> Outcome {
    let mut request = base(lab);
    request.name.push_str("-größe/\u{1F40B} \u{65E5}\u{672C}");
    let first = lab.ok(request.clone()).await?;
    lab.again(0, request, &first).await
}

async fn control_character(lab: &Lab) -> Outcome {
    let mut request = base(lab);
    request.name.push('\u{1}');
    lab.refused(request, &[InvalidArgument]).await
}

pub(super) fn snapshot_source(id: &str) -> Option<csi::VolumeContentSource> {
    Some(csi::VolumeContentSource {
        r#type: Some(Type::Snapshot(SnapshotSource {
            snapshot_id: id.to_owned(),
        })),
    })
}

pub(super) fn volume_source(id: &str) -> Option<csi::VolumeContentSource> {
    Some(csi::VolumeContentSource {
        r#type: Some(Type::Volume(VolumeSource {
            volume_id: id.to_owned(),
        })),
    })
}

async fn unknown_snapshot(lab: &Lab) -> Outcome {
    let volume_content_source = snapshot_source(NOBODY);
    lab.refused(
        csi::CreateVolumeRequest {
            volume_content_source,
            ..base(lab)
        },
        &[NotFound],
    )
    .await
}

async fn unknown_volume(lab: &Lab) -> Outcome {
    let volume_content_source = volume_source(NOBODY);
    lab.refused(
        csi::CreateVolumeRequest {
            volume_content_source,
            ..base(lab)
        },
        &[NotFound],
    )
    .await
}

/// Makes a volume from a source of the usual size, and looks at what is said of it.
async fn copy(lab: &Lab, source: Option<csi::VolumeContentSource>) -> Result<Volume, Stop> {
    let request = csi::CreateVolumeRequest {
        volume_content_source: source.clone(),
        ..lab.create_request("copy", !lab.profile().mount)
    };
    let first = lab.ok(request.clone()).await?;
    lab.again(0, request.clone(), &first).await?;
    let copy = crate::lab::volume_of(request, first)?;
    expect(copy.answer.content_source == source, || {
        format!("content_source is {:?}", copy.answer.content_source)
    })?;
    at_least("capacity_bytes", copy.answer.capacity_bytes, lab.settings().size)?;
    Ok(copy)
}

async fn from_snapshot(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    copy(lab, snapshot_source(&snapshot.snapshot_id)).await.map(drop)
}

async fn from_volume(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let copy = copy(lab, volume_source(&volume.id)).await?;
    expect(copy.id != volume.id, || "the clone is its source".to_owned())
}

async fn other_source(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    copy(lab, snapshot_source(&snapshot.snapshot_id)).await?;
    lab.refused(lab.create_request("copy", !lab.profile().mount), &[AlreadyExists])
        .await
}

async fn larger_restore(lab: &Lab) -> Outcome {
    let volume = lab.volume("v").await?;
    let snapshot = lab.snapshot("s", &volume).await?;
    let request = csi::CreateVolumeRequest {
        volume_content_source: snapshot_source(&snapshot.snapshot_id),
        capacity_range: range(lab.settings().grown),
        ..lab.create_request("copy", !lab.profile().mount)
    };
    match lab.ok_or(request, &[OutOfRange]).await? {
        None => Ok(()),
        Some(answer) => at_least(
            "capacity_bytes",
            answer.volume.unwrap_or_default().capacity_bytes,
            lab.settings().grown,
        ),
    }
}

async fn says_where(lab: &Lab) -> Outcome {
    let volume = lab.make(base(lab)).await?;
    expect(!volume.answer.accessible_topology.is_empty(), || {
        "accessible_topology is empty".to_owned()
    })
}

async fn where_wanted(lab: &Lab) -> Outcome {
    let topology = lab
        .profile()
        .nodes
        .first()
        .and_then(|info| info.accessible_topology.clone())
        .unwrap_or_default();
    let request = csi::CreateVolumeRequest {
        accessibility_requirements: Some(csi::TopologyRequirement {
            requisite: vec![topology.clone()],
            preferred: vec![topology.clone()],
        }),
        ..base(lab)
    };
    let volume = lab.make(request).await?;
    let reached = |place: &csi::Topology| {
        place
            .segments
            .iter()
            .all(|(key, value)| topology.segments.get(key) == Some(value))
    };
    expect(volume.answer.accessible_topology.iter().any(reached), || {
        format!(
            "it is reached from {:?}, not from {:?}",
            volume.answer.accessible_topology, topology.segments
        )
    })
}
