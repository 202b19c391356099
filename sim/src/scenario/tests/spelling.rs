//! One scenario, several spellings: YAML, Rust, canonical JSON; and what is compared with what.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use super::*;
use crate::api::Kind;
use crate::faults::Fault;
use crate::host::Trouble;

const SPELLED: &str = r#"
because: a volume grows under a running pod
cluster: {nodes: 2}
manifests:
- apiVersion: storage.k8s.io/v1
  kind: StorageClass
  metadata: {name: fast}
  provisioner: csi.wavetank.dev
  allowVolumeExpansion: true
- apiVersion: v1
  kind: List
  items:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Gi}}
      storageClassName: fast
  - apiVersion: v1
    kind: Pod
    metadata: {name: web, namespace: default}
    spec:
      containers:
      - {name: main, image: busybox, volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
steps:
- wait: {for: {kind: Pod, name: web, condition: Ready}, within: 60s}
- write: {pod: web, blocks: 16}
- patch: {kind: pvc, name: data, patch: {spec: {resources: {requests: {storage: 2Gi}}}}}
- wait: {for: {kind: PersistentVolumeClaim, name: data, fields: {"{.status.capacity.storage}": 2Gi}}, within: 3m}
- verify: {pod: web}
- restart: provisioner
- delete: {kind: Pod, name: web}
- wait: {for: {kind: Pod, name: web, gone: true}, within: 1m30s}
expect:
- {kind: pvc, name: data, phase: Bound}
- calls: [ControllerExpandVolume, NodeExpandVolume]
- {call: CreateVolume, times: 1}
- leftovers: none
- data: intact
"#;

fn built() -> Scenario {
    Scenario::builder("grow")
        .because("a volume grows under a running pod")
        .nodes(2)
        .class("fast", |class| class.expandable())
        .claim("data", "1Gi", |claim| claim.class("fast"))
        .pod("web", |pod| pod.mounts("data"))
        .until("pod/web", "Ready", "1m")
        .write("web", 16)
        .grow("data", "2Gi")
        .until("pvc/data", "{.status.capacity.storage}=2Gi", "3m")
        .verify("web")
        .restart("provisioner")
        .delete("pod/web")
        .until("pod/web", "gone", "1m30s")
        .expect_state("pvc/data", "Bound")
        .expect_calls(&[Call::ControllerExpandVolume, Call::NodeExpandVolume])
        .expect_count(Call::CreateVolume, 1)
        .expect_no_leftovers()
        .expect_data_intact()
        .build()
        .unwrap()
}

#[test]
fn both_spellings_of_a_scenario_are_equal() {
    let mut spelled = read(SPELLED).unwrap();
    spelled.name = "grow".to_owned();
    assert_eq!(spelled, built());
    assert_eq!(spelled.digest(), built().digest());
    assert_eq!(
        spelled.places.step(1).map(ToString::to_string).as_deref(),
        Some("s.yaml:29:3")
    );
    assert_eq!(spelled.manifests[1].place.as_ref().map(|place| place.line), Some(13));
}

/// Every step and every kind of expectation, whether it makes sense together or not.
const EVERYTHING: &str = r#"
because: every word is known in both spellings
manifests:
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast}, provisioner: csi.wavetank.dev}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: data}
  spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 1Gi}}}
steps:
- apply:
    apiVersion: v1
    kind: Pod
    metadata: {name: web}
    spec:
      containers: [{name: main, image: busybox, volumeMounts: [{name: data, mountPath: /data}]}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
- patch: {kind: pvc, name: data, patch: {metadata: {labels: {a: b}}}, refused: {code: 422}}
- wait: {for: {call: NodeStageVolume, atLeast: 2}, within: 1m}
- wait: {for: {kind: pod, name: web, condition: Ready=False}, within: 1m}
- wait: {for: {kind: pvc, name: data, event: ProvisioningFailed}, within: 1m}
- write: {pod: web, blocks: 3}
- verify: {pod: web}
- cordon: node-1
- uncordon: node-1
- taint: {node: node-1, key: broken, effect: NoExecute}
- untaint: {node: node-1, key: broken}
- run: 90s
- restart: scheduler
- stop: kubelet/node-1
- start: kubelet/node-1
- crash: {process: attacher}
- crash: {at: provisioner / create / pv data / attempt 2 / applied}
- strike: {at: driver-node/node-1 / NodeStageVolume / pvc data / attempt 1 / after-op(2), fault: {failOperation: {trouble: io}}}
- inject: {call: NodeStageVolume, code: INTERNAL, times: 2, claim: data}
- heal: all
- expect:
  - {data: intact}
- delete: {kind: pod, name: web, force: true}
- delete: {kind: pvc, name: data}
expect:
- {kind: va, claim: data, gone: true}
- {kind: pv, claim: data, exists: true}
- {call: CreateVolume, times: 1}
- {all: [{kind: pvc, name: data, phase: Bound}, {call: DeleteVolume, times: 0}]}
- {calls: [CreateVolume, ControllerPublishVolume]}
- {leftovers: none}
- {data: intact}
"#;

fn everything() -> Scenario {
    let both = AllOf {
        all: vec![
            Condition::Object(ObjectCondition {
                phase: Some("Bound".to_owned()),
                ..ObjectCondition::on(Target {
                    kind: KindName(Kind::PersistentVolumeClaim),
                    name: Some("data".to_owned()),
                    claim: None,
                    snapshot: None,
                    node: None,
                    namespace: None,
                })
            }),
            Condition::Call(CallCondition {
                times: Some(0),
                ..CallCondition::on(Call::DeleteVolume)
            }),
        ],
    };
    Scenario::builder("everything")
        .because("every word is known in both spellings")
        .class("fast", |class| class)
        .claim("data", "1Gi", |claim| claim.class("fast"))
        .apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {
                "containers": [{"name": "main", "image": "busybox", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            },
        }))
        .patch("pvc/data", json!({"metadata": {"labels": {"a": "b"}}}))
        .refused(422)
        .until_called(Call::NodeStageVolume, 2, "1m")
        .until("pod/web", "Ready=False", "1m")
        .until("pvc/data", "event:ProvisioningFailed", "1m")
        .write("web", 3)
        .verify("web")
        .cordon("node-1")
        .uncordon("node-1")
        .taint("node-1", "broken", TaintEffect::NoExecute)
        .untaint("node-1", "broken")
        .run("1m30s")
        .restart("scheduler")
        .stop("kubelet/node-1")
        .start("kubelet/node-1")
        .crash("attacher")
        .crash_at("provisioner / create / pv data / attempt 2 / applied")
        .strike(
            "driver-node/node-1 / NodeStageVolume / pvc data / attempt 1 / after-op(2)",
            Fault::FailOperation { trouble: Trouble::Io },
        )
        .inject(two_internal_errors())
        .heal()
        .expect_now(vec![Expectation::Data(DataIntact { data: Intact::Intact })])
        .delete_now("pod/web")
        .delete("pvc/data")
        .expect_state("va/claim:data", "gone")
        .expect_state("pv/claim:data", "exists")
        .expect_count(Call::CreateVolume, 1)
        .expect(Expectation::All(both))
        .expect_calls(&[Call::CreateVolume, Call::ControllerPublishVolume])
        .expect_no_leftovers()
        .expect_data_intact()
        .build()
        .unwrap()
}

fn two_internal_errors() -> Inject {
    Inject {
        code: Some(Code::Internal),
        times: Times::Count(2),
        claim: Some("data".to_owned()),
        ..Inject::into_call(Call::NodeStageVolume)
    }
}

/// A variant that is added has to be named here, and then to be spelled both ways above.
fn expectation_word(expectation: &Expectation) -> &'static str {
    match expectation {
        Expectation::Object(_) => "object",
        Expectation::Call(_) => "call",
        Expectation::All(_) => "all",
        Expectation::Order(_) => "calls",
        Expectation::Leftovers(_) => "leftovers",
        Expectation::Data(_) => "data",
    }
}

#[test]
fn both_spellings_know_every_step_and_every_expectation() {
    let mut spelled = read(EVERYTHING).unwrap_or_else(|e| panic!("{}", e.render(100, false)));
    spelled.name = "everything".to_owned();
    let built = everything();
    for (nth, (spelled, built)) in spelled.steps.iter().zip(&built.steps).enumerate() {
        assert_eq!(spelled, built, "step {}", nth + 1);
    }
    assert_eq!(spelled, built);
    assert_eq!(spelled.digest(), built.digest());
    let said: BTreeSet<&str> = built.steps.iter().map(Step::verb).collect();
    let schema = schema();
    let forms = schema["$defs"]["Step"]["oneOf"]
        .as_array()
        .expect("a step is one of several forms");
    let known = forms.iter().filter_map(|form| form["required"][0].as_str());
    assert_eq!(said, known.collect::<BTreeSet<_>>(), "each step has its word");
    let said: BTreeSet<&str> = built.expect.iter().map(expectation_word).collect();
    assert_eq!(said.len(), 6, "{said:?}");
}

#[test]
fn a_scenario_survives_its_canonical_form() {
    for scenario in [built(), everything()] {
        let json = serde_json::to_value(&scenario).unwrap();
        let again: Scenario = serde_json::from_value(json).unwrap();
        assert_eq!(again, scenario);
    }
}

#[test]
fn the_digest_tells_what_matters_and_nothing_else() {
    let digest = |text: &str| read(text).unwrap().digest();
    let base = digest(SPELLED);
    assert_eq!(
        digest(&SPELLED.replace("a volume grows", "a claim grows")),
        base,
        "the reason changes no run"
    );
    assert_eq!(
        digest(&SPELLED.replace("within: 60s}", "within: 1m} # a comment")),
        base
    );
    assert_ne!(digest(&SPELLED.replace("nodes: 2", "nodes: 3")), base);
    assert_ne!(digest(&SPELLED.replace("blocks: 16", "blocks: 17")), base);
    assert_ne!(digest(&SPELLED.replace("storage: 1Gi", "storage: 1G")), base);
}

#[test]
fn flags_are_read_from_maps_and_from_arguments_alike() {
    let with = |sidecar: &str| {
        let text = format!(
            "because: x\ncluster: {{drivers: [{{name: a.dev, sidecars: {{provisioner: {sidecar}}}}}]}}\nsteps: [{{run: 1s}}]\n"
        );
        read(&text).unwrap().cluster.drivers.remove(0).sidecars.provisioner
    };
    let map = with("{timeout: 30s, extra-create-metadata: true, feature-gates: {Topology: true}}");
    assert_eq!(
        map,
        with("[--v=5, --timeout=30s, --extra-create-metadata, --feature-gates=Topology=true]")
    );
    let flags = map.expect("it is deployed");
    assert_eq!(
        (flags.timeout, flags.retry_interval_max),
        (GoDuration::secs(30), GoDuration::secs(300))
    );
    assert_eq!(with("false"), None);
    assert_eq!(with("true"), Some(flags::ProvisionerFlags::default()));
}

#[test]
fn the_builder_reports_what_does_not_fit() {
    let error = Scenario::builder("wrong")
        .claim("data", "1Gi", |claim| claim)
        .until("pod/web", "Ready", "1 minute")
        .restart("kublet/node-1")
        .run("1s")
        .refused(403)
        .build()
        .unwrap_err();
    let said: Vec<&str> = error
        .mistakes()
        .iter()
        .map(|mistake| mistake.message.as_str())
        .collect();
    assert_eq!(
        said,
        [
            "\"1 minute\" is not a duration: write numbers with units, such as 1m30s, 1.5h or 500ms",
            "there is no process `kublet`; did you mean `kubelet`?",
            "only an apply, patch or delete step can be refused",
            "say why the scenario exists",
            "no manifest and no step creates Pod `web`",
        ]
    );
}

#[test]
fn an_expected_refusal_is_compared_key_by_key() {
    let text = |refused: &str| {
        format!(
            "because: x\nsteps:\n- apply: {{file: manifests/csidriver-with-mistakes.yaml, refused: {{keys: [{refused}]}}}}\n"
        )
    };
    let verdict = |refused: &str| match &parse("s.yaml", text(refused), &library()).unwrap().steps[0] {
        Step::Apply(apply) => apply.judge_reading(),
        other => panic!("{other:?} is no apply step"),
    };
    let both =
        "{key: spec.controllerExpand, line: 11}, {key: spec.nodeExpand, suggest: StorageClass allowVolumeExpansion}";
    assert_eq!(verdict(both), Ok(()));
    for (refused, part) in [
        (
            "{key: spec.controllerExpand}",
            "`spec.nodeExpand` was refused, which was not expected",
        ),
        ("{key: spec.attachRequired}", "`spec.attachRequired` was not refused"),
        (
            "{key: spec.controllerExpand, line: 10}, {key: spec.nodeExpand}",
            "in line 11, not in line 10",
        ),
        (
            "{key: spec.controllerExpand, suggest: spec.x}, {key: spec.nodeExpand}",
            "not spec.x",
        ),
    ] {
        let error = verdict(refused).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn refusals_of_the_server_are_compared() {
    let expected = Refusal {
        code: Some(403),
        message: Some("only dynamically".to_owned()),
        keys: Vec::new(),
    };
    assert_eq!(Refusal::judge(None, Ok(())), Ok(()));
    assert_eq!(
        Refusal::judge(Some(&expected), Err((403, "only dynamically provisioned"))),
        Ok(())
    );
    for (expected, answer, part) in [
        (None, Err((422, "no")), "refused with 422: no"),
        (Some(&expected), Ok(()), "accepted, although"),
        (Some(&expected), Err((422, "no")), "refused with 422, not with 403"),
        (Some(&expected), Err((403, "no")), "does not say"),
    ] {
        let error = Refusal::judge(expected, answer).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_null_in_a_patch_and_in_a_field_is_kept() {
    let text = format!(
        "because: x\nmanifests:\n-{CLAIM}\nsteps:\n- patch: {{kind: pvc, name: data, type: merge, patch: {{metadata: {{finalizers: null}}}}}}\n\
         expect:\n- {{kind: pvc, name: data, fields: {{'{{.metadata.finalizers}}': null}}}}\n"
    );
    let scenario = read(&text).unwrap();
    let Step::Patch(patch) = &scenario.steps[0] else {
        panic!("a patch step")
    };
    assert_eq!(patch.patch, json!({"metadata": {"finalizers": null}}));
    let Expectation::Object(object) = &scenario.expect[0] else {
        panic!("an object")
    };
    assert_eq!(object.fields.values().collect::<Vec<_>>(), [&json!(null)]);
}

/// The published schema is the one of the types. To write it anew: `cargo run -- schema > docs/scenario.schema.json`.
#[test]
fn the_published_schema_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenario.schema.json");
    let published = fs::read_to_string(&path).unwrap_or_default();
    let now = format!("{:#}\n", schema());
    assert!(
        published == now,
        "docs/scenario.schema.json is out of date; write it anew with: cargo run -- schema > docs/scenario.schema.json"
    );
}

/// Every scenario of the library can be read, and every manifest that people start from is played by one of them.
#[test]
fn the_library_can_be_read() {
    let scenarios = load(&library()).unwrap_or_else(|error| panic!("{}", error.render(120, false)));
    assert!(scenarios.len() >= 24, "{} scenarios", scenarios.len());
    assert!(
        scenarios
            .iter()
            .any(|scenario| scenario.name == "lifecycle/dynamic-immediate")
    );
    for scenario in &scenarios {
        for step in &scenario.steps {
            if let Step::Apply(apply) = step {
                assert_eq!(apply.judge_reading(), Ok(()), "{}", scenario.name);
            }
        }
    }
    let files: Vec<_> = fs::read_dir(library().join("manifests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    for file in files
        .iter()
        .map(|file| file.to_string_lossy())
        .filter(|file| file.ends_with(".yaml"))
    {
        let reference = format!("../manifests/{file}");
        let tutorials = fs::read_dir(library().join("tutorials")).unwrap();
        let texts: Vec<String> = tutorials
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        assert!(
            texts.iter().any(|text| text.contains(&reference)),
            "no scenario plays {file}"
        );
    }
}

/// Damaged files end in mistakes, never in a panic: whole lines, single characters and pieces of YAML's own syntax go missing or are put in.
#[test]
fn damaged_files_end_in_a_sentence() {
    const PIECES: [&str; 12] = [
        "- ", ": ", "{", "}", "[", "&a ", "*a", "<<: ", "\t", "\u{e9}", "'", "|\n",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("below a usize")
    };
    for _ in 0..400 {
        let mut lines: Vec<String> = SPELLED.lines().map(str::to_owned).collect();
        for _ in 0..=pick(3) {
            let at = pick(lines.len());
            match pick(4) {
                0 => drop(lines.remove(at)),
                1 => lines[at].insert_str(0, PIECES[pick(PIECES.len())]),
                2 => lines[at].push_str(PIECES[pick(PIECES.len())]),
                _ => {
                    let end = pick(lines[at].len() + 1);
                    lines[at].truncate(end);
                }
            }
        }
        if let Err(error) = read(&lines.join("\n")) {
            assert!(!error.render(100, false).is_empty());
            assert!(error.mistakes().iter().all(|mistake| mistake.place().is_some()));
        }
    }
}
