//! Playing itself, with the processes that are there.

use std::path::Path;

use super::{Options, play};
use crate::api::{Object, fields};
use crate::faults::{Fault, Strike};
use crate::scenario::{GoDuration, Process, Site, parse};
use crate::trace::What;

#[test]
fn a_scenario_whose_fault_never_strikes_fails() {
    let text = "because: an unhit fault proves nothing\nsteps:\n  - inject: { call: CreateVolume, code: INTERNAL }\n  - run: 1s\n";
    let scenario = crate::scenario::parse("unhit", text.into(), std::path::Path::new(".")).unwrap();
    let report = play(&scenario, &Options::default());
    assert_eq!(report.verdict.status(), 1);
    assert!(
        format!("{:?}", report.verdict).contains("never struck"),
        "{:?}",
        report.verdict
    );
}

#[test]
fn an_empty_scenario_holds() {
    let text = "because: nothing happens
steps:
  - run: 1s
";
    let scenario = crate::scenario::parse("empty", text.into(), std::path::Path::new(".")).unwrap();
    let report = play(&scenario, &Options::default());
    assert!(report.verdict.held(), "{:?}", report.verdict);
}

/// Everything that a scenario can take away, and a claim and a pod that need all of it.
const DARK: &str = r"
because: when the storm is over everything is given back
cluster: {nodes: 1}
manifests:
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast}, provisioner: csi.wavetank.dev}
steps:
- inject: {call: CreateVolume, code: INTERNAL, times: always}
- stop: attacher
- stop: driver-controller
- stop: node/node-1
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
      containers: [{name: main, image: busybox, volumeMounts: [{name: data, mountPath: /data}]}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
- wait: {for: {kind: Pod, name: web, condition: Ready}, within: 10s}
- run: 1s
";

#[test]
fn when_the_storm_is_over_everything_is_given_back() {
    let scenario = parse("dark", DARK.into(), Path::new(".")).unwrap_or_else(|e| panic!("{}", e.render(100, false)));
    let strike = |at: &str, fault| Strike {
        at: Site::parse(at).unwrap(),
        fault,
    };
    let first = "provisioner / CreateVolume / pvc data / attempt 1 / before-send";
    let pause = Fault::Pause {
        process: Process::parse("scheduler").unwrap(),
        lasts: GoDuration::parse("24h").unwrap(),
    };
    let never = "provisioner / CreateVolume / pvc data / attempt 9 / before-send";
    let options = Options {
        strikes: vec![strike(first, pause), strike(never, Fault::LoseAnswer {})],
        ..Options::default()
    };
    let report = play(&scenario, &options);
    assert_eq!(report.struck.len(), 1, "{:?}", report.struck);
    let ready = report.trace.records().iter().any(|record| match &record.what {
        What::Write {
            result: Ok(written), ..
        } => {
            matches!(&written.object, Object::Pod(pod) if fields::pod_phase(pod) == "Running")
        }
        _ => false,
    });
    assert!(ready, "{:?}", report.verdict);
    // The same scenario in fair weather fails, and what it left is healed and judged.
    let fair = play(&scenario, &Options::default());
    assert_eq!(fair.verdict.status(), 1, "{:?} {:?}", fair.verdict, fair.violations);
}
