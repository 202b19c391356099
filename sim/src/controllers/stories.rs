//! Stories of the volume controllers in the whole tank, beside the real provisioner: the order of writes in the recorded traces, for several seeds.
//!
//! A conflict is a race between processes and differs from seed to seed, so writes that were refused are left out; how often a claim is told that it is
//! waited for differs for the same reason, so events are looked at where the trace fixes them.

use std::path::Path;

use crate::api::identity::uid;
use crate::api::{Kind, ObjKey};
use crate::play::{Options, play};
use crate::trace::{Record, What};

const CLASSES: &str = "
because: the order of writes is the recorded one
manifests:
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: imm}, provisioner: csi.wavetank.dev}
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: keep}, provisioner: csi.wavetank.dev, reclaimPolicy: Retain}
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: wffc}, provisioner: csi.wavetank.dev, volumeBindingMode: WaitForFirstConsumer}
";

fn claim(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, \
         spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}, {spec}}}}}"
    )
}

/// What the controller manager wrote about claims and volumes, or said with one of these reasons.
fn line(record: &Record, reasons: &[&str]) -> Option<String> {
    let What::Write { write, result, .. } = &record.what else {
        return None;
    };
    let object = &result.as_ref().ok()?.object;
    if &*record.process != "controller-manager" {
        return None;
    }
    let target = write.target();
    if target.kind == Kind::Event {
        let event = object.to_json();
        let reason = event["reason"].as_str().filter(|reason| reasons.contains(reason))?;
        return Some(format!("{reason} x{}", event["count"]));
    }
    let part = write.subresource().map(|part| format!(" /{part}")).unwrap_or_default();
    let phase = object.to_json()["status"]["phase"]
        .as_str()
        .map(|phase| format!(" {phase}"));
    matches!(target.kind, Kind::PersistentVolume | Kind::PersistentVolumeClaim).then(|| {
        format!(
            "{} {}{part}{}",
            write.verb(),
            target.kind.short(),
            phase.unwrap_or_default()
        )
    })
}

/// Plays the steps with several seeds and compares what the controller manager did.
fn tells(steps: &[String], reasons: &[&str], expected: &[&str]) {
    let text = format!(
        "{CLASSES}steps:\n{}",
        steps.iter().map(|step| format!("- {step}\n")).collect::<String>()
    );
    let scenario = crate::scenario::parse("story", text, Path::new(".")).unwrap();
    for seed in 0..8 {
        let options = Options {
            seed,
            ..Options::default()
        };
        let report = play(&scenario, &options);
        assert!(report.verdict.held(), "seed {seed}: {:?}", report.verdict);
        let lines: Vec<String> = report.trace.records().iter().filter_map(|r| line(r, reasons)).collect();
        assert_eq!(lines, expected, "seed {seed}");
    }
}

fn bound(name: &str) -> String {
    format!("wait: {{for: {{kind: pvc, name: {name}, phase: Bound}}, within: 30s}}")
}

fn deleted(what: &str) -> String {
    format!("delete: {{{what}, wait: 1m}}")
}

#[test]
fn a_claim_from_first_to_last() {
    // Trace 01. The phase is that after the write.
    let gone = "wait: {for: {kind: pv, claim: data, gone: true}, within: 1m}".to_owned();
    let steps = [
        format!("apply: {}", claim("data", "storageClassName: imm")),
        bound("data"),
        "run: 4s".into(),
        deleted("kind: pvc, name: data"),
        gone,
    ];
    tells(
        &steps,
        &[],
        &[
            "update pvc Pending",
            "update pv /status Bound",
            "update pvc Pending",
            "update pvc /status Bound",
            "update pvc Bound",
            "update pv /status Released",
            "update pv Released",
        ],
    );
}

#[test]
fn a_claim_that_names_a_released_volume_is_refused_at_every_resync() {
    // Trace 12: told when it is made, at each of two resyncs, and once more when it is deleted. Then the volume's object is deleted by hand.
    let volume = format!(
        "pvc-{}",
        uid(Kind::PersistentVolumeClaim, &ObjKey::new("default", "first"), 1)
    );
    let steps = [
        format!("apply: {}", claim("first", "storageClassName: keep")),
        bound("first"),
        deleted("kind: pvc, name: first"),
        format!("wait: {{for: {{kind: pv, name: {volume}, phase: Released}}, within: 30s}}"),
        format!(
            "apply: {}",
            claim("second", &format!("storageClassName: keep, volumeName: {volume}"))
        ),
        "run: 31s".into(),
        deleted("kind: pvc, name: second"),
        "run: 100ms".into(),
        deleted(&format!("kind: pv, name: {volume}")),
    ];
    tells(
        &steps,
        &["FailedBinding"],
        &[
            "update pvc Pending",
            "update pv /status Bound",
            "update pvc Pending",
            "update pvc /status Bound",
            "update pvc Bound",
            "update pv /status Released",
            "FailedBinding x1",
            "FailedBinding x2",
            "FailedBinding x3",
            "update pvc Pending",
            "FailedBinding x4",
            "update pv Released",
        ],
    );
}

#[test]
fn a_hand_made_volume_stays_released_until_its_reference_is_removed() {
    // Hidden trace 13 as the observations tell it: FailedBinding every 15 s, and Available without claimRef.
    let volume = "apply: {apiVersion: v1, kind: PersistentVolume, metadata: {name: v}, spec: {capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce], \
        storageClassName: keep, persistentVolumeReclaimPolicy: Retain, csi: {driver: csi.wavetank.dev, volumeHandle: h}, \
        claimRef: {namespace: default, name: first}}}";
    let steps = [
        volume.into(),
        format!("apply: {}", claim("first", "storageClassName: keep, volumeName: v")),
        bound("first"),
        deleted("kind: pvc, name: first"),
        "wait: {for: {kind: pv, name: v, phase: Released}, within: 30s}".into(),
        format!("apply: {}", claim("second", "storageClassName: keep, volumeName: v")),
        "run: 31s".into(),
        "patch: {kind: pv, name: v, patch: {spec: {claimRef: null}}}".into(),
        bound("second"),
    ];
    tells(
        &steps,
        &["FailedBinding"],
        &[
            "update pv /status Available",
            "update pv Available",
            "update pv /status Bound",
            "update pvc Pending",
            "update pvc /status Bound",
            "update pvc Bound",
            "update pv /status Released",
            "FailedBinding x1",
            "FailedBinding x2",
            "FailedBinding x3",
            "update pv /status Available",
            "update pv Available",
            "update pv /status Bound",
            "update pvc Pending",
            "update pvc /status Bound",
        ],
    );
}

#[test]
fn a_volume_that_comes_after_its_claim_is_released_at_once() {
    // Trace 21a3: uncertain creation goes on after the claim is gone; the claim's deletion wakes the event once more.
    let steps = [
        "inject: {call: CreateVolume, code: DEADLINE_EXCEEDED, times: 3}".into(),
        format!("apply: {}", claim("data", "storageClassName: imm")),
        "run: 1s".into(),
        deleted("kind: pvc, name: data"),
        "run: 25s".into(),
    ];
    tells(
        &steps,
        &[],
        &[
            "update pvc Pending",
            "update pvc Pending",
            "update pv /status Released",
            "update pv Released",
        ],
    );
}

#[test]
fn a_waiting_claim_is_told_so_at_every_resync() {
    // Trace 02: at the creation and on the 15 s ticks.
    let steps = [
        format!("apply: {}", claim("data", "storageClassName: wffc")),
        "run: 44s".into(),
    ];
    tells(
        &steps,
        &["WaitForFirstConsumer"],
        &[
            "WaitForFirstConsumer x1",
            "WaitForFirstConsumer x2",
            "WaitForFirstConsumer x3",
            "WaitForFirstConsumer x4",
        ],
    );
}
