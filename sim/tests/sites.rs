//! Sites are a promise: whatever `wavetank sites` lists can be written into `crash: {at: …}`, and strikes there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use wavetank_sim::play::{Options, Report, Verdict, play};
use wavetank_sim::scenario::{self, Crash, Scenario, Site, Step};
use wavetank_sim::trace::{self, What};

/// A claim and a pod live and go; `{steps}` happen first.
const LIFE: &str = r#"
because: a crash at any site of a volume's life delays it and loses nothing
manifests:
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast}, provisioner: csi.wavetank.dev, allowVolumeExpansion: true}
steps:
{steps}
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
- write: {pod: web, path: /data/journal, blocks: 8}
- patch: {kind: pvc, name: data, patch: {spec: {resources: {requests: {storage: 2Gi}}}}}
- wait: {for: {kind: pvc, name: data, fields: {status.capacity.storage: 2Gi}}, within: 10m}
- verify: {pod: web, path: /data/journal}
- delete: {kind: Pod, name: web, wait: 10m}
- delete: {kind: pvc, name: data, wait: 10m}
- wait: {for: {kind: pv, claim: data, gone: true}, within: 10m}
expect:
- {leftovers: none, within: 10m}
- data: intact
"#;

fn life(steps: &str) -> Scenario {
    read(&LIFE.replace("{steps}", steps))
}

fn read(text: &str) -> Scenario {
    scenario::parse("life.yaml", text.into(), Path::new(".")).unwrap_or_else(|e| panic!("{}", e.render(100, false)))
}

fn crash_at(site: &str) -> String {
    format!("- crash: {{at: {site:?}}}")
}

fn faults(report: &Report) -> Vec<&str> {
    let records = report.trace.records().iter();
    records
        .filter_map(|record| match &record.what {
            What::Fault(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

fn sites(scenario: &Scenario) -> Vec<String> {
    let report = play(scenario, &Options::default());
    assert!(report.verdict.held(), "{:?}", report.verdict);
    trace::sites(&report.trace).iter().map(ToString::to_string).collect()
}

fn failure(report: &Report) -> String {
    if let Verdict::Broken(message) = &report.verdict {
        panic!("{message}");
    }
    let failures = report.verdict.failures().iter();
    failures.map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What Kubernetes itself leaves behind: a kubelet that dies while it unstages knows nothing of the volume afterwards, because reconstruction looks into
/// the directories of pods only. The volume is detached with its staging mount in place.
fn leak(site: &str) -> Option<&'static str> {
    site.starts_with("kubelet/")
        .then(|| site.contains("NodeUnstageVolume").then_some("the staging record"))
        .flatten()
}

#[test]
fn a_crash_at_any_site_of_a_life_strikes_there_and_loses_nothing() {
    let sites = sites(&life(""));
    assert!(sites.len() > 100, "{}", sites.len());
    assert_eq!(
        sites.iter().collect::<BTreeSet<_>>().len(),
        sites.len(),
        "each site has a name of its own"
    );
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while let Some(site) = sites.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = play(&life(&crash_at(site)), &Options::default());
                    let struck = faults(&report).iter().filter(|f| f.contains(site.as_str())).count();
                    let expected = leak(site).map_or(report.verdict.held(), |left| failure(&report).contains(left));
                    if struck != 1 || !expected {
                        wrong
                            .lock()
                            .unwrap()
                            .push(format!("{site}: struck {struck} times; {}", failure(&report)));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        sites.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_restart_does_not_begin_the_count_again() {
    let steps = format!(
        "{}\n{}",
        crash_at("provisioner / CreateVolume / pvc data / attempt 1 / before-reply"),
        crash_at("provisioner / CreateVolume / pvc data / attempt 2 / before-send")
    );
    let report = play(&life(&steps), &Options::default());
    assert!(report.verdict.held(), "{}", failure(&report));
    assert_eq!(faults(&report).len(), 2, "{:?}", faults(&report));
}

#[test]
fn an_attempt_counts_from_its_beginning_even_if_a_crash_cut_it() {
    // The first attempt never came to its answer: the answer of the second is that of attempt 2.
    let steps = format!(
        "{}\n{}",
        crash_at("provisioner / CreateVolume / pvc data / attempt 1 / before-send"),
        crash_at("provisioner / CreateVolume / pvc data / attempt 2 / after-reply")
    );
    let report = play(&life(&steps), &Options::default());
    assert!(report.verdict.held(), "{}", failure(&report));
    assert_eq!(faults(&report).len(), 2, "{:?}", faults(&report));
}

#[test]
fn a_crash_that_comes_after_its_site_fails_and_says_so() {
    let late = crash_at("provisioner / CreateVolume / pvc data / attempt 1 / before-reply");
    let text = LIFE
        .replace("{steps}", "")
        .replace("- verify", &format!("{late}\n- verify"));
    let report = play(&read(&text), &Options::default());
    let failure = failure(&report);
    assert!(failure.contains("has passed already: 1 attempt so far"), "{failure}");
    assert!(failure.contains("name attempt 2"), "{failure}");
}

#[test]
fn a_site_that_is_never_met_fails_with_the_nearest_that_was() {
    let report = play(
        &life(&crash_at(
            "provisioner / CreateVolume / pvc data / attempt 7 / before-reply",
        )),
        &Options::default(),
    );
    let failure = failure(&report);
    assert!(failure.contains("never struck"), "{failure}");
    assert!(
        failure.contains("`provisioner / CreateVolume / pvc data / attempt 1 / before-reply`"),
        "{failure}"
    );
}

#[test]
fn a_misspelt_site_is_refused_before_the_run_with_the_nearest() {
    for (site, part) in [
        (
            "provisionr / CreateVolume / pvc data / attempt 1 / received",
            "did you mean `provisioner`",
        ),
        (
            "provisioner / CreateVolum / pvc data / attempt 1 / received",
            "did you mean `CreateVolume`",
        ),
        (
            "provisioner / CreateVolume / pvc dataa / attempt 1 / received",
            "did you mean `data`",
        ),
        (
            "provisioner / CreateVolume / pvcs data / attempt 1 / received",
            "did you mean `pvc`",
        ),
        (
            "provisioner / CreateVolume / pvc data / attempt 0 / received",
            "`attempt 1`",
        ),
        (
            "provisioner / CreateVolume / pvc data / attempt 1 / recieved",
            "did you mean `received`",
        ),
        (
            "kubelet/node-9 / NodeStageVolume / pvc data / attempt 1 / received",
            "no node `node-9`",
        ),
        (
            "attacher / CreateVolume / pvc data / attempt 1 / received",
            "the provisioner sends it",
        ),
        (
            "provisioner / create / pv dataa / attempt 1 / applied",
            "did you mean `data`",
        ),
    ] {
        let text = LIFE.replace("{steps}", &crash_at(site));
        let error = scenario::parse("life.yaml", text, Path::new(".")).unwrap_err();
        let error = error.render(200, false);
        assert!(error.contains(part), "{site}: {error}");
        assert!(error.contains("life.yaml:6:"), "{site}: {error}");
    }
}

#[test]
fn a_misspelt_strike_is_refused_before_the_run_with_the_nearest() {
    let at = "provisioner / CreateVolume / pvc data / attempt 1 / received";
    for (at, fault, part) in [
        (at, "{loseAnswr: {}}", "loseAnswer"),
        (at, "{replaceAnswer: {code: INTERNL}}", "INTERNAL"),
        (at, "{replaceAnswer: {cod: INTERNAL}}", "code"),
        (at, "{delayCall: {by: soon}}", "by"),
        (at, "{crash: {process: provisionr}}", "provisioner"),
        (
            "provisionr / CreateVolume / pvc data / attempt 1 / received",
            "{loseAnswer: {}}",
            "did you mean `provisioner`",
        ),
        (
            "provisioner / CreateVolume / pvc data / attempt 1 / recieved",
            "{loseAnswer: {}}",
            "did you mean `received`",
        ),
    ] {
        let text = LIFE.replace("{steps}", &format!("- strike: {{at: {at}, fault: {fault}}}"));
        let error = scenario::parse("life.yaml", text, Path::new(".")).unwrap_err();
        let error = error.render(200, false);
        assert!(
            error.contains(part) && error.contains("life.yaml:6:"),
            "{at} {fault}: {error}"
        );
    }
}

#[test]
fn a_volume_keeps_the_name_of_its_claim_when_both_are_gone() {
    let sites = sites(&life(""));
    for site in [
        "provisioner / create / pv data / attempt 1 / applied",
        "provisioner / DeleteVolume / pvc data / attempt 1 / before-reply",
        "provisioner / delete / pv data / attempt 1 / applied",
        "controller-manager / create / va data / attempt 1 / applied",
    ] {
        assert!(
            sites.iter().any(|s| s == site),
            "{site} is not among\n{}",
            sites.join("\n")
        );
    }
    let own: Vec<_> = sites
        .iter()
        .filter(|s| s.contains("pv pvc-") || s.contains("va csi-"))
        .collect();
    assert!(own.is_empty(), "{own:?}");
}

#[test]
fn the_list_of_a_run_with_crashes_counts_the_attempts_that_they_cut() {
    let steps = crash_at("provisioner / CreateVolume / pvc data / attempt 1 / before-send");
    let sites = sites(&life(&steps));
    let of = |attempt: u32| format!("provisioner / CreateVolume / pvc data / attempt {attempt} / received");
    assert!(!sites.contains(&of(1)) && sites.contains(&of(2)), "{sites:#?}");
    let steps = format!("{steps}\n{}", crash_at(&of(2)));
    let report = play(&life(&steps), &Options::default());
    assert!(report.verdict.held(), "{}", failure(&report));
}

/// Scenarios that are more than one claim of one driver in the default namespace: each listed site can be written down, and some are tried.
#[test]
fn sites_of_other_lives_can_be_read_back_and_strike() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    for name in [
        "data/adopt-a-retained-volume",
        "limits/two-drivers",
        "ephemeral/inline",
        "binding/static-volume",
        "expand/offline",
    ] {
        let file = root.join(format!("{name}.yaml"));
        let written = scenario::load_file(&file).unwrap_or_else(|e| panic!("{}", e.render(100, false)));
        let sites = trace::sites(&play(&written, &Options::default()).trace);
        for site in &sites {
            assert_eq!(Site::parse(&site.to_string()).as_ref(), Ok(site), "{name}");
        }
        for site in sites.iter().rev().step_by(sites.len() / 3 + 1) {
            let mut again = written.clone();
            let crash = Crash {
                process: None,
                at: Some(site.clone()),
                down: None,
            };
            again.steps.insert(0, Step::Crash(crash));
            let report = play(&again, &Options::default());
            assert!(
                faults(&report).iter().any(|f| f.contains(&site.to_string())),
                "{name}: {site}: {}",
                failure(&report)
            );
        }
    }
}
