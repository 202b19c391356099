//! What people see when they write something wrong.

use std::fs;

use super::*;

#[test]
fn a_mistake_is_shown_with_its_line_and_the_way_out() {
    let text = "because: it must\nsteps:\n- run: 5s\n- aply: {file: a.yaml}\n";
    assert_eq!(
        shown(text).trim_end(),
        "  × unknown key `aply`: a step has no such key
   ╭─[s.yaml:4:3]
 3 │ - run: 5s
 4 │ - aply: {file: a.yaml}
   ·   ──┬─
   ·     ╰── steps[1].aply
   ╰────
  help: did you mean `steps[1].apply`?"
    );
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_order() {
    let text = "
becaus: x
cluster:
  nodes: 0
  kubelet: {sync-freqency: 1m}
  drivers:
  - name: a/b
    sidecars:
      provisioner: [--timeout=10, --retry-interval-strat=1s, --v=5, --csi-address=$(ADDRESS)]
      resizr: false
steps:
- run: -5s
- run: 30
- wait: {within: 5m}
- delete: {kind: Pod, nam: x}
- inject: {call: CreateVolum, code: INTERNL, times: 0}
";
    let rule = "at most 63 small letters, digits, `-` and `.`, each part beginning and ending with a letter or digit";
    assert_eq!(
        found(text),
        [
            "2:1 becaus: unknown key `becaus`: Scenario has no such key | because | did you mean `because`?",
            "4:10 cluster.nodes: `cluster.nodes` must be at least 1, not 0",
            "5:13 cluster.kubelet.sync-freqency: unknown flag `sync-freqency`: the kubelet has no such flag \
             | cluster.kubelet.sync-frequency | did you mean `cluster.kubelet.sync-frequency`?",
            &format!("7:11 cluster.drivers[0].name: `cluster.drivers[0].name`: \"a/b\" cannot be a name here: {rule}"),
            "9:21 cluster.drivers[0].sidecars.provisioner.timeout: `cluster.drivers[0].sidecars.provisioner.timeout` must be \
             a duration such as 1m30s, not the number 10 | write a unit: 10s, 10ms",
            "9:35 cluster.drivers[0].sidecars.provisioner.retry-interval-strat: unknown flag `retry-interval-strat`: the \
             external-provisioner has no such flag | cluster.drivers[0].sidecars.provisioner.retry-interval-start | did you mean \
             `cluster.drivers[0].sidecars.provisioner.retry-interval-start`?",
            "10:7 cluster.drivers[0].sidecars.resizr: unknown key `resizr`: Sidecars has no such key \
             | cluster.drivers[0].sidecars.resizer | did you mean `cluster.drivers[0].sidecars.resizer`?",
            "12:8 steps[0].run: `steps[0].run`: \"-5s\" is negative: time runs forwards only",
            "13:8 steps[1].run: `steps[1].run` must be a duration such as 1m30s, not the number 30 | write a unit: 30s, 30ms",
            "14:3 steps[2].wait.for: `steps[2].wait.for` is missing",
            "15:23 steps[3].delete.nam: unknown key `nam`: Delete has no such key | steps[3].delete.name | did you mean \
             `steps[3].delete.name`?",
            "16:18 steps[4].inject.call: `steps[4].inject.call` cannot be \"CreateVolum\" | CreateVolume | did you mean `CreateVolume`?",
            "16:37 steps[4].inject.code: `steps[4].inject.code` cannot be \"INTERNL\" | INTERNAL | did you mean `INTERNAL`?",
            "16:53 steps[4].inject.times: `steps[4].inject.times` must be at least 1, not 0",
        ]
    );
}

#[test]
fn manifests_are_as_strict_as_kubectl() {
    let text = "
because: x
manifests:
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: data, name: again, labels: {a: 1}}
  spec:
    accesModes: [ReadWriteOnce]
    storageClass: fast
    volumeMode: yes
    resources: {requests: {storage: 10GB}}
- {kind: Deployment, apiVersion: apps/v1}
- {kind: Pdo, apiVersion: v1}
- {kind: StorageClass, apiVersion: v1}
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {}, allowVolumeExpansion: \"true\"}
- apiVersion: v1
  kind: Pod
  metadata: {generateName: web-}
  spec: {containers: {name: a}, volumeMounts: []}
steps: [{run: 1s}]
";
    let found = found(text);
    let kinds = found[6].clone();
    assert!(kinds.starts_with("12:10 kind: the cluster in the tank has no Deployment: it models storage, nodes and pods | it knows: `Namespace`"));
    assert_eq!(
        found.iter().filter(|line| **line != kinds).collect::<Vec<_>>(),
        [
            "6:26 name: the key `name` is already there, in line 6 | keep one of the two",
            "6:51 metadata.labels.a: `metadata.labels.a` must be text, not the number 1 | quote it: \"1\"",
            "8:5 spec.accesModes: unknown key `accesModes`: PersistentVolumeClaimSpec has no such key | spec.accessModes | did you mean \
             `spec.accessModes`?",
            "9:5 spec.storageClass: unknown key `storageClass`: PersistentVolumeClaimSpec has no such key | spec.storageClassName | did you \
             mean `spec.storageClassName`?",
            "10:17 spec.volumeMode: `spec.volumeMode` must be text, not the boolean true | quote it: \"yes\"",
            "11:37 spec.resources.requests.storage: `spec.resources.requests.storage`: \"10GB\" is not a quantity: write a number and a \
             suffix such as 10Gi, 500Mi or 5G",
            "13:10 kind: unknown kind `Pdo` | Pod | did you mean `Pod`?",
            "14:36 apiVersion: StorageClass has the apiVersion `storage.k8s.io/v1`, not `v1` | storage.k8s.io/v1 | write `apiVersion: \
             storage.k8s.io/v1`",
            "15:3 provisioner: `provisioner` is missing",
            "15:55 metadata.name: `metadata.name` is missing",
            "15:91 allowVolumeExpansion: `allowVolumeExpansion` must be a boolean, not the text \"true\" | take the quotes away",
            "18:3 metadata.name: `metadata.name` is missing | apply cannot use generateName: give the object a name",
            "19:10 spec.containers: `spec.containers` must be a list, not a map | write each item on a line of its own behind `- `",
            "19:33 spec.volumeMounts: unknown key `volumeMounts`: PodSpec has no such key | spec.containers[].volumeMounts | in a Pod it is \
             `spec.containers[].volumeMounts`",
        ]
    );
}

#[test]
fn the_three_manifests_with_mistakes_are_refused_at_the_wrong_key() {
    let refused = |file: &str| {
        let text = format!("because: x\nmanifests: [{{file: manifests/{file}}}]\nsteps: [{{run: 1s}}]\n");
        let error = parse("s.yaml", text, &library()).expect_err("the file has mistakes");
        let line = |mistake: &Mistake| {
            let place = mistake.place().expect("it stands in a file");
            assert!(place.file.ends_with(&format!("scenarios/manifests/{file}")), "{place}");
            (
                mistake.key.clone(),
                place.line,
                mistake.suggest.clone().expect("there is a right key"),
            )
        };
        error.mistakes().iter().map(line).collect::<Vec<_>>()
    };
    let row = |key: &str, line, right: &str| (key.to_owned(), line, right.to_owned());
    let expansion = "StorageClass allowVolumeExpansion";
    assert_eq!(
        refused("csidriver-with-mistakes.yaml"),
        [
            row("spec.controllerExpand", 11, expansion),
            row("spec.nodeExpand", 12, expansion)
        ]
    );
    assert_eq!(
        refused("inline-ephemeral-with-mistakes.yaml"),
        [row(
            "spec.volumes[0].csi.volumeHandle",
            18,
            "PersistentVolume spec.csi.volumeHandle"
        )],
        "fsType is a key of inline volumes"
    );
    assert_eq!(
        refused("snapshot.yaml"),
        [row("spec.snapshotClassName", 6, "spec.volumeSnapshotClassName")]
    );
}

#[test]
fn impossible_references_are_found() {
    let text = format!(
        "
because: x
cluster: {{drivers: [{{name: a.dev, sidecars: {{resizer: false}}}}, {{name: b.dev}}, {{name: b.dev}}]}}
manifests:
-{claim}
- apiVersion: v1
  kind: Pod
  metadata: {{name: web}}
  spec:
    containers:
    - {{name: main, image: x, volumeMounts: [{{name: data, mountPath: /data}}]}}
    volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
steps:
- cordon: node-4
- delete: {{kind: pod, name: wbe}}
- delete: {{kind: pod, name: late}}
- apply: {{apiVersion: v1, kind: Pod, metadata: {{name: late}}, spec: {{containers: [{{name: a, image: b}}]}}}}
- wait: {{for: {{kind: pvc, name: data}}, within: 1m}}
- wait: {{for: {{kind: pv, name: data, phase: Bound}}, within: 1m}}
- wait: {{for: {{kind: pv, claim: data, phase: Bound}}, within: 1m}}
- write: {{pod: web, path: /date/x}}
- write: {{pod: late}}
- restart: provisioner
- restart: resizer@a.dev
- crash: {{process: kubelet/node-9}}
- inject: {{call: CreateVolume, driver: c.dev}}
- patch: {{kind: pvc, name: data, patch: {{spec: {{resources: {{request: {{storage: 2Gi}}}}}}}}}}
",
        claim = CLAIM.trim_end()
    );
    let patch = found(&text);
    assert_eq!(
        patch,
        [
            "33:61 spec.resources.request: unknown key `request`: VolumeResourceRequirements has no such key | spec.resources.requests | did you mean `spec.resources.requests`?"
        ],
        "first the keys"
    );
    assert_eq!(
        found(&text.replace("{request:", "{requests:")),
        [
            "3:86 cluster.drivers[2].name: there are two drivers named `b.dev`",
            "20:11 steps[0].cordon: the cluster has no node `node-4` | node-1 | did you mean `node-1`?",
            "21:29 steps[1].delete.name: no manifest and no step creates Pod `wbe` | web | did you mean `web`?",
            "22:29 steps[2].delete.name: Pod `late` is not there yet: step 4 creates it",
            "24:10 steps[4].wait.for: this says nothing of the object: add `phase`, `condition`, `fields`, `exists`, `gone` or `event`",
            "25:32 steps[5].wait.for.name: no manifest and no step creates PersistentVolume `data` | the volume that is made for a claim is \
             named by it: `claim: NAME`",
            "27:27 steps[7].write.path: pod `web` mounts no volume at or above \"/date/x\" | there is `/data`",
            "28:3 steps[8].write: pod `late` has 0 storage volumes: say which by `path` or `volume`",
            "29:12 steps[9].restart: the cluster has 3 drivers: write whose provisioner it is | for example `provisioner@a.dev`",
            "30:12 steps[10].restart: the driver `a.dev` is deployed without resizer",
            "31:20 steps[11].crash.process: the cluster has no node `node-9` | node-1 | did you mean `node-1`?",
            "32:3 steps[12].inject: an injection needs a `code` to answer with, or a `delay`",
            "32:40 steps[12].inject.driver: the cluster has no driver `c.dev` | a.dev | did you mean `a.dev`?",
        ]
    );
}

#[test]
fn flags_that_would_change_something_and_are_not_played_are_refused() {
    let text = "
because: x
cluster:
  kubelet: [--max-pods=20, --kube-api-qps=5]
  scheduler: {podMaxBackoffSeconds: 20, feature-gates: {NodeInclusionPolicyInPodTopologySpread: true}}
  snapshotController: {worker-threads: 3}
  drivers:
  - name: a.dev
    sidecars:
      provisioner: [--node-deployment, --leader-election, --leader-election-lease-duration=30s, --feature-gates=Topology=false]
      resizer: {feature-gates: {VolumeAttributesClass: true, RecoverVolumeExpansionFailure: true}}
      snapshotter: false
steps: [{run: 1s}]
";
    let wrong = found(text);
    assert_eq!(
        wrong,
        [
            "4:28 cluster.kubelet.kube-api-qps: `kube-api-qps` is not played: in the tank only the clients of sidecars are limited; leave it away",
            "5:41 cluster.scheduler.feature-gates: the feature gate `NodeInclusionPolicyInPodTopologySpread` is not played: of this process none is; leave it away",
            "6:40 cluster.snapshotController.worker-threads: the tank plays no snapshots yet: leave it away",
            "10:21 cluster.drivers[0].sidecars.provisioner.node-deployment: `node-deployment` is not played: the tank has one provisioner for a driver, \
             not one on each node; leave it away",
            "11:17 cluster.drivers[0].sidecars.resizer.feature-gates: the feature gate `RecoverVolumeExpansionFailure` is not played: of this process \
             only `VolumeAttributesClass` is; leave it away",
        ]
    );
}

#[test]
fn yaml_traps_end_in_a_sentence() {
    let bomb = {
        let mut text = String::from("because: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..10 {
            let row = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{row}]\n"));
        }
        text
    };
    let long = format!("because: x\nsteps: [{{cordon: {}}}]\n", "n".repeat(1 << 20));
    let key = format!("because: x\n{}: y\n", "k".repeat(1000));
    let deep = format!("because: x\nsteps: {}{}", "[".repeat(100), "]".repeat(100));
    let names = format!("because: x\nmanifests: [{}]", "a, ".repeat(300_000));
    for (text, part) in [
        ("because: x\nsteps:\n\t- run: 5s\n", "indent with spaces"),
        ("because: [x\n", "this is not YAML"),
        ("because: x\nsteps: *nothing\n", "this is not YAML"),
        ("because: x\nsteps: &a [*a]\n", "inside the value"),
        (
            "because: !secret x\nsteps: [{run: 1s}]\n",
            "the tag !secret has no meaning here",
        ),
        ("because: x\n? [a, b]\n: c\n", "a key must be plain text"),
        ("because: x\n---\nbecause: y\n", "one document"),
        ("", "the file is empty"),
        ("- a\n", "must be a map, not a list"),
        ("because: ''\nsteps: [{run: 1s}]\n", "say why the scenario exists"),
        ("because: x\n", "neither steps nor expectations"),
        (
            "kind: Pod\napiVersion: v1\n",
            "this is a Kubernetes manifest, not a scenario",
        ),
        (bomb.as_str(), "more than 200000 values"),
        (long.as_str(), "the cluster has no node"),
        (key.as_str(), "unknown key"),
        (deep.as_str(), "nested deeper than 64 levels"),
        (names.as_str(), "more than 200000 values"),
        (
            "because: x\ncluster: {nodes: 1000000000}\nsteps: [{run: 1s}]\n",
            "at most 5000",
        ),
        ("because: x\nsteps: [{run: 5s, cordon: node-1}]\n", "more than one key"),
        ("because: x\nsteps: [{}]\n", "is empty"),
        ("because: x\nsteps: [apply]\n", "must be a map, not the text"),
        (
            "because: x\nsteps: [{apply: {refused: {code: 422}}}]\n",
            "exactly one way",
        ),
        (
            "because: x\nsteps: [{apply: {file: a.yaml}}]\n",
            "cannot read no-folder/a.yaml",
        ),
        (
            "because: x\nexpect: [{kind: Pod, name: a, fields: {'{.status': 1}}]\n",
            "does not close it",
        ),
        (
            "because: x\nsteps: [{crash: {at: 'provisioner / CreateVolume'}}]\n",
            "five parts",
        ),
    ] {
        let shown = shown(text);
        assert!(
            shown.contains(part),
            "{}\nshould say {part:?}:\n{shown}",
            &text[..text.len().min(200)]
        );
        assert!(shown.len() < 20_000, "a mistake is a screen, not a book");
    }
}

#[test]
fn a_great_many_mistakes_are_cut_short() {
    let lines: Vec<String> = (0..20_000).map(|n| format!("key{n}: x")).collect();
    let error = read(&lines.join("\n")).expect_err("no key is known");
    assert_eq!(error.mistakes().len(), check::MOST_MISTAKES);
    assert!(error.render(100, false).ends_with("and 160 more mistakes\n"));
}

#[test]
fn files_that_are_no_text_or_too_large_are_refused() {
    let folder = std::env::temp_dir().join(format!("wavetank-load-{}", std::process::id()));
    fs::create_dir_all(folder.join("empty/manifests")).unwrap();
    fs::write(folder.join("latin.yaml"), b"because: caf\xe9\n").unwrap();
    fs::write(folder.join("large.yaml"), vec![b'#'; (4 << 20) + 1]).unwrap();
    fs::write(folder.join("empty/manifests/a.yaml"), "kind: Pod").unwrap();
    for (file, part) in [
        ("latin.yaml", "is not UTF-8 text: byte 12"),
        ("large.yaml", "is larger than 4194304 bytes"),
        ("missing.yaml", "cannot read"),
        ("empty", "holds no scenario"),
    ] {
        let error = load(&folder.join(file)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    fs::remove_dir_all(folder).unwrap();
}
