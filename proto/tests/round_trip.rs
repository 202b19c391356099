//! What the generated types promise beyond the wire facts: nothing is lost on the way, values of later versions
//! survive, equal messages are equal bytes, and the descriptor set describes the bytes the types write.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use prost_reflect::{DescriptorPool, DynamicMessage};
use wavetank_proto::FILE_DESCRIPTOR_SET;
use wavetank_proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};
use wavetank_proto::csi::v1::volume_content_source::{self, SnapshotSource, VolumeSource};
use wavetank_proto::csi::v1::{
    CapacityRange, CreateVolumeRequest, GetCapacityResponse, ProbeResponse, Topology, TopologyRequirement,
    VolumeCapability, VolumeContentSource,
};
use wavetank_proto::prost::{Message, Name};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build script encoded it"));

/// Encodes, decodes as `M` and, by the descriptor set alone, as a dynamic message.
fn round_trip<M: Message + Name + Default>(message: &M) -> (M, M) {
    let bytes = message.encode_to_vec();
    let typed = M::decode(bytes.as_slice()).expect("what was encoded decodes");
    let descriptor = POOL
        .get_message_by_name(&M::full_name())
        .expect("the set describes every message");
    let dynamic = DynamicMessage::decode(descriptor, bytes.as_slice()).expect("the descriptor fits the bytes");
    assert_eq!(
        dynamic.unknown_fields().count(),
        0,
        "the type writes fields that the descriptor set does not have"
    );
    (
        typed,
        M::decode(dynamic.encode_to_vec().as_slice()).expect("what was encoded decodes"),
    )
}

fn strings() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(".{0,8}", ".{0,8}", 0..5)
}

fn capability() -> impl Strategy<Value = VolumeCapability> {
    let mount = (".{0,8}", vec(".{0,8}", 0..3), ".{0,8}").prop_map(|(fs_type, mount_flags, volume_mount_group)| {
        AccessType::Mount(MountVolume {
            fs_type,
            mount_flags,
            volume_mount_group,
        })
    });
    let access_type = option::of(prop_oneof![Just(AccessType::Block(BlockVolume {})), mount]);
    let access_mode = option::of(any::<i32>().prop_map(|mode| AccessMode { mode }));
    (access_type, access_mode).prop_map(|(access_type, access_mode)| VolumeCapability {
        access_mode,
        access_type,
    })
}

fn source() -> impl Strategy<Value = VolumeContentSource> {
    let snapshot =
        ".{0,8}".prop_map(|snapshot_id| volume_content_source::Type::Snapshot(SnapshotSource { snapshot_id }));
    let volume = ".{0,8}".prop_map(|volume_id| volume_content_source::Type::Volume(VolumeSource { volume_id }));
    option::of(prop_oneof![snapshot, volume]).prop_map(|r#type| VolumeContentSource { r#type })
}

fn topologies() -> impl Strategy<Value = Vec<Topology>> {
    vec(strings().prop_map(|segments| Topology { segments }), 0..3)
}

fn create_volume() -> impl Strategy<Value = CreateVolumeRequest> {
    let range = option::of(
        any::<(i64, i64)>().prop_map(|(required_bytes, limit_bytes)| CapacityRange {
            required_bytes,
            limit_bytes,
        }),
    );
    let requirement = option::of(
        (topologies(), topologies()).prop_map(|(requisite, preferred)| TopologyRequirement { requisite, preferred }),
    );
    let rest = (vec(capability(), 0..3), option::of(source()), requirement);
    (".{0,16}", range, rest, strings(), strings(), strings()).prop_map(
        |(name, capacity_range, rest, parameters, secrets, mutable_parameters)| CreateVolumeRequest {
            name,
            capacity_range,
            volume_capabilities: rest.0,
            volume_content_source: rest.1,
            accessibility_requirements: rest.2,
            parameters,
            secrets,
            mutable_parameters,
        },
    )
}

proptest! {
    #[test]
    fn a_request_survives(request in create_volume()) {
        let (typed, dynamic) = round_trip(&request);
        prop_assert_eq!(&typed, &request);
        prop_assert_eq!(&dynamic, &request);
        prop_assert_eq!(typed.encode_to_vec(), request.encode_to_vec());
    }
}

/// A caller may be newer than this crate: a mode it does not know must not turn into UNKNOWN on the way through.
#[test]
fn an_enum_value_of_a_later_version_survives() {
    let later = AccessMode { mode: 99 };
    let (typed, dynamic) = round_trip(&later);
    assert_eq!((typed.mode, dynamic.mode), (99, 99));
    assert!(Mode::try_from(typed.mode).is_err());
    assert_eq!(
        typed.mode(),
        Mode::Unknown,
        "the getter maps what it does not know to the default"
    );
}

/// Traces and digests are made of encoded requests: the order in which a map was filled must not show.
#[test]
fn equal_maps_are_equal_bytes() {
    let keys = ["zone", "rack", "host", "a", "B", ""];
    let encode = |keys: &mut dyn Iterator<Item = &&str>| {
        let segments = keys.map(|key| ((*key).to_owned(), key.to_uppercase())).collect();
        Topology { segments }.encode_to_vec()
    };
    assert_eq!(encode(&mut keys.iter()), encode(&mut keys.iter().rev()));
}

/// Absent and zero differ where the interface wraps a scalar: an absent `ready` means ready, a false one does not.
#[test]
fn wrapped_scalars_tell_absent_from_zero() {
    for ready in [None, Some(false), Some(true)] {
        assert_eq!(round_trip(&ProbeResponse { ready }).0.ready, ready);
    }
    for maximum_volume_size in [None, Some(0), Some(i64::MAX)] {
        let response = GetCapacityResponse {
            maximum_volume_size,
            ..GetCapacityResponse::default()
        };
        assert_eq!(round_trip(&response).1.maximum_volume_size, maximum_volume_size);
    }
}
