//! The wire is that of the published interfaces: the descriptor set, written down as text, equals the fixtures.
//!
//! A number or a type that is wrong here would be wrong towards every driver and every caller, and no other test would
//! see it, since clients and servers of this workspace would agree with each other.

mod render;

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, Syntax};
use wavetank_proto::FILE_DESCRIPTOR_SET;

const CSI: &str = include_str!("fixtures/csi-v1.12-wire.txt");
const REGISTRATION: &str = include_str!("fixtures/pluginregistration-v1-wire.txt");

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build script encoded it")
}

/// Nothing, or what differs: facts that are missing, facts that are too many, and the first line that is not the same.
fn differences(want: &str, got: &str) -> String {
    let facts = |text: &str| {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (want, got) = (facts(want), facts(got));
    let (wanted, gotten): (BTreeSet<_>, BTreeSet<_>) = (want.iter().collect(), got.iter().collect());
    let mut report: Vec<String> = Vec::new();
    report.extend(wanted.difference(&gotten).map(|fact| format!("missing:    {fact}")));
    report.extend(gotten.difference(&wanted).map(|fact| format!("additional: {fact}")));
    let longest = want.len().max(got.len());
    if let Some(at) = (0..longest).find(|&at| want.get(at) != got.get(at)) {
        let line = |facts: &[String]| facts.get(at).cloned().unwrap_or_else(|| "(end)".to_owned());
        report.push(format!(
            "first difference, fact {}:\n  want {}\n  got  {}",
            at + 1,
            line(&want),
            line(&got)
        ));
    }
    report.join("\n")
}

fn assert_same(want: &str, got: &str) {
    let report = differences(want, got);
    assert!(report.is_empty(), "the wire differs from the published one\n{report}");
}

#[test]
fn csi_is_as_published() {
    assert_same(CSI, &render::package(&pool(), "csi.v1"));
}

#[test]
fn plugin_registration_is_as_published() {
    assert_same(REGISTRATION, &render::package(&pool(), "pluginregistration"));
}

#[test]
fn all_of_it_is_proto3_and_nothing_else_is_declared() {
    let pool = pool();
    let packages: BTreeSet<_> = pool.files().map(|file| file.package_name().to_owned()).collect();
    assert_eq!(
        packages,
        ["csi.v1", "google.protobuf", "pluginregistration"]
            .map(str::to_owned)
            .into()
    );
    for file in pool.files().filter(|file| file.package_name() != "google.protobuf") {
        assert_eq!(file.syntax(), Syntax::Proto3, "{}", file.name());
    }
}

/// The comparison itself is under test: each kind of slip in the interface must be seen, in both directions.
#[test]
fn every_kind_of_slip_is_seen() {
    let got = render::package(&pool(), "csi.v1");
    let slips = [
        ("Volume.volume_id = 2 : string", "Volume.volume_id = 12 : string"),
        ("Volume.capacity_bytes = 1 : int64", "Volume.capacity_bytes = 1 : int32"),
        ("  VolumeUsage.Unit.INODES = 2\n", ""),
        (
            "NodeExpandVolumeRequest.secrets = 6 : map<string,string>  [alpha_field csi_secret]",
            "a line of its own",
        ),
        (
            "VolumeCapability.block = 1 : VolumeCapability.BlockVolume oneof=access_type",
            "VolumeCapability.block = 1",
        ),
        (
            "returns stream GetMetadataDeltaResponse",
            "returns GetMetadataDeltaResponse",
        ),
        ("  [alpha_method]", ""),
        (
            "message VolumeCondition  [alpha_message=true]",
            "message VolumeCondition",
        ),
        ("FieldOptions csi_secret = 1059", "FieldOptions csi_secret = 1060"),
    ];
    for (fact, slip) in slips {
        assert!(CSI.contains(fact), "the fixture has no {fact:?}");
        let slipped = CSI.replacen(fact, slip, 1);
        assert!(!differences(&slipped, &got).is_empty(), "{fact:?} is not compared");
        assert!(
            !differences(&got, &slipped).is_empty(),
            "{fact:?} is not compared the other way"
        );
    }
}
