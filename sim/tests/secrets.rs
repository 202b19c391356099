//! Secrets are planted wherever Kubernetes and CSI carry them, and looked for in everything that a run shows.

use std::path::Path;

use wavetank_sim::link::CsiRequest;
use wavetank_sim::play::{Options, Report, Verdict, play};
use wavetank_sim::scenario;
use wavetank_sim::trace::{Follow, TextOptions, What, json, sites, text};

/// One password for each purpose, so that a leak says where it comes from. `lunch` reaches the driver's error messages too.
const PASSWORDS: [&str; 6] = [
    "Pr0visioner-hunter2",
    "Pub1ish-hunter2",
    "St4ge-hunter2",
    "N0dePublish-hunter2",
    "Exp4nd-hunter2",
    "N0deExpand-hunter2",
];
/// Words that stand in each password, in plain text and in base64 however it is aligned.
const TRACES: [&str; 4] = ["hunter2", "aHVudGVyM", "h1bnRlcj", "odW50ZXIy"];

const SCENARIO: &str = r#"
because: drivers are told passwords, and bug reports are read by strangers
manifests:
- {apiVersion: v1, kind: Secret, metadata: {name: provision}, stringData: {password: Pr0visioner-hunter2}}
- {apiVersion: v1, kind: Secret, metadata: {name: publish}, stringData: {password: Pub1ish-hunter2}}
- {apiVersion: v1, kind: Secret, metadata: {name: stage}, data: {password: U3Q0Z2UtaHVudGVyMg==}}
- {apiVersion: v1, kind: Secret, metadata: {name: node-publish}, stringData: {password: N0dePublish-hunter2}}
- {apiVersion: v1, kind: Secret, metadata: {name: expand}, stringData: {password: to be replaced}}
- {apiVersion: v1, kind: Secret, metadata: {name: node-expand}, stringData: {password: N0deExpand-hunter2}}
- apiVersion: storage.k8s.io/v1
  kind: StorageClass
  metadata: {name: fast}
  provisioner: csi.wavetank.dev
  allowVolumeExpansion: true
  parameters:
    csi.storage.k8s.io/provisioner-secret-name: provision
    csi.storage.k8s.io/provisioner-secret-namespace: default
    csi.storage.k8s.io/controller-publish-secret-name: publish
    csi.storage.k8s.io/controller-publish-secret-namespace: default
    csi.storage.k8s.io/node-stage-secret-name: stage
    csi.storage.k8s.io/node-stage-secret-namespace: default
    csi.storage.k8s.io/node-publish-secret-name: node-publish
    csi.storage.k8s.io/node-publish-secret-namespace: default
    csi.storage.k8s.io/controller-expand-secret-name: expand
    csi.storage.k8s.io/controller-expand-secret-namespace: default
    csi.storage.k8s.io/node-expand-secret-name: node-expand
    csi.storage.k8s.io/node-expand-secret-namespace: default
steps:
- patch: {kind: secret, name: expand, patch: {stringData: {password: Exp4nd-hunter2}}}
- inject: {call: CreateVolume, code: INTERNAL, message: "login with Pr0visioner-hunter2 failed", times: 1}
- inject: {call: ControllerPublishVolume, code: INTERNAL, message: "login with Pub1ish-hunter2 failed", times: 1}
- inject: {call: NodeStageVolume, code: INTERNAL, message: "login with St4ge-hunter2 failed", times: 1}
- inject: {call: NodePublishVolume, code: INTERNAL, message: "login with N0dePublish-hunter2 failed", times: 1}
- inject: {call: ControllerExpandVolume, code: INTERNAL, message: "login with Exp4nd-hunter2 failed", times: 1}
- inject: {call: NodeExpandVolume, code: INTERNAL, message: "login with N0deExpand-hunter2 failed", times: 1}
- apply:
    apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 1Gi}}}
- apply:
    apiVersion: v1
    kind: Pod
    metadata: {name: web}
    spec:
      containers:
      - {name: main, image: busybox, volumeMounts: [{name: data, mountPath: /data}]}
      volumes:
      - {name: data, persistentVolumeClaim: {claimName: data}}
- wait: {for: {kind: Pod, name: web, condition: Ready}, within: 10m}
- patch: {kind: pvc, name: data, patch: {spec: {resources: {requests: {storage: 2Gi}}}}}
- wait: {for: {kind: pvc, name: data, fields: {status.capacity.storage: 2Gi}}, within: 10m}
- delete: {kind: Pod, name: web, wait: 10m}
- delete: {kind: pvc, name: data, wait: 10m}
- wait: {for: {kind: pv, claim: data, gone: true}, within: 10m}
"#;

fn played(more: &str) -> Report {
    let text = format!("{SCENARIO}{more}");
    let scenario = scenario::parse("secrets.yaml", text, Path::new("."));
    let scenario = scenario.unwrap_or_else(|e| panic!("{}", e.render(100, false)));
    assert_clean("the scenario's Debug", &format!("{:?}", scenario.manifests));
    play(&scenario, &Options::default())
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    for trace in TRACES {
        if let Some(line) = text.lines().find(|line| line.contains(trace)) {
            panic!("{what} shows a secret:\n{line}");
        }
    }
}

fn text(report: &Report, verbose: bool, follow: &[&str]) -> String {
    let options = TextOptions {
        verbose,
        follow: follows(follow),
    };
    let mut page = Vec::new();
    text::write(&mut page, &report.trace, &options).expect("memory takes every byte");
    String::from_utf8(page).expect("traces are text")
}

fn json(report: &Report, follow: &[&str]) -> String {
    let mut page = Vec::new();
    json::write(&mut page, &report.trace, &follows(follow)).expect("memory takes every byte");
    String::from_utf8(page).expect("traces are text")
}

fn follows(follow: &[&str]) -> Vec<Follow> {
    follow
        .iter()
        .map(|follow| follow.parse().expect("it is well formed"))
        .collect()
}

#[test]
fn the_passwords_did_travel() {
    let report = played("");
    // The driver tells them in its answers, and that is what the promise is about.
    let broken: Vec<&str> = report.violations.iter().map(|v| v.promise.name).collect();
    assert!(!broken.is_empty(), "nothing was told");
    assert!(broken.iter().all(|name| *name == "secrets"), "{broken:?}");
    let (mut seen, mut told) = (PASSWORDS.to_vec(), PASSWORDS.to_vec());
    for record in report.trace.records() {
        if let What::Reply {
            result: Err(status), ..
        } = &record.what
        {
            seen.retain(|password| !status.message().contains(password));
        }
        if let What::Call { call, .. } = &record.what {
            // The request holds it, but does not tell.
            told.retain(|password| !passwords(&call.request).any(|held| held == password));
            assert_clean("a request's Debug", &format!("{:?}", call.request));
        }
    }
    assert!(seen.is_empty(), "no driver's message told {seen:?}");
    assert!(told.is_empty(), "no driver was told {told:?}");
}

/// The passwords in a request.
fn passwords(request: &CsiRequest) -> impl Iterator<Item = &String> {
    let secrets = match request {
        CsiRequest::CreateVolume(request) => Some(&request.secrets),
        CsiRequest::ControllerPublishVolume(request) => Some(&request.secrets),
        CsiRequest::NodeStageVolume(request) => Some(&request.secrets),
        CsiRequest::NodePublishVolume(request) => Some(&request.secrets),
        CsiRequest::ControllerExpandVolume(request) => Some(&request.secrets),
        CsiRequest::NodeExpandVolume(request) => Some(&request.secrets),
        _ => None,
    };
    secrets.into_iter().flat_map(|secrets| secrets.values())
}

/// `stringData` is for writing only, in a manifest and in a patch.
#[test]
fn a_secret_is_stored_as_data() {
    let text = "because: x
manifests: [{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: YQ==, b: Yg==}, stringData: {b: c}}]
steps:
- patch: {kind: secret, name: s, patch: {stringData: {d: e}}}
expect: [{kind: secret, name: s, fields: {data.a: YQ==, data.b: Yw==, data.d: ZQ==, stringData: null, type: Opaque}}]
";
    let scenario = scenario::parse("s.yaml", text.to_owned(), Path::new(".")).unwrap();
    let report = play(&scenario, &Options::default());
    assert!(report.verdict.held(), "{:?}", report.verdict);
}

#[test]
fn no_rendering_shows_a_password() {
    let report = played("");
    let page = text(&report, false, &[]);
    assert!(page.contains("login with ***stripped*** failed"), "{page}");
    assert_clean("the trace", &page);
    assert_clean("the verbose trace", &text(&report, true, &[]));
    for follow in ["pvc/data", "pod/web", "secret/expand", "secret/stage", "node/node-1"] {
        assert_clean(follow, &text(&report, true, &[follow]));
        assert_clean(follow, &json(&report, &[follow]));
    }
    let lines = json(&report, &[]);
    assert!(lines.contains("***stripped***"));
    assert_clean("the lines of JSON", &lines);
    for site in sites(&report.trace) {
        assert_clean("a site", &site.to_string());
    }
}

#[test]
fn no_failure_shows_a_password() {
    let report = played(
        "- wait: {for: {kind: pvc, name: data, event: NoSuchReason}, within: 1s}\nexpect: [{call: CreateVolume, times: 9}]\n",
    );
    let (Verdict::Failed(failures) | Verdict::Unsafe(failures) | Verdict::Restless(failures)) = &report.verdict else {
        panic!("it cannot hold: {:?}", report.verdict)
    };
    for failure in failures {
        assert_clean("a failure", &failure.to_string());
    }
    let report = played("expect: [{kind: secret, name: stage, fields: {data.password: bm8=}}]\n");
    let failure = format!("{:?}", report.verdict);
    assert!(failure.contains("***stripped***"), "{failure}");
    assert_clean("a failed comparison", &failure);
}

#[test]
fn debug_shows_no_password() {
    let report = played("");
    assert_clean("the report's Debug", &format!("{report:?}"));
    for record in report.trace.records() {
        // What a driver says is its own; what we send and store is ours.
        if let What::Write { write, before, result } = &record.what
            && !format!("{:?}", write.target()).contains("Event")
        {
            let stored = result.as_ref().ok().map(|written| &written.object);
            if stored.is_some_and(|object| object.kind().name() == "Secret") {
                assert_clean("a write's Debug", &format!("{write:?} {before:?} {result:?}"));
            }
        }
    }
}
