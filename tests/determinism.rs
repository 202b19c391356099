//! The law: same version, scenario, seed and faults, and the trace is the same byte for byte — in another process, with other tests beside it, after a
//! thousand other runs, and whatever else happens in the cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use wavetank_sim::play::{Options, play};
use wavetank_sim::scenario::{Scenario, load, parse};
use wavetank_sim::trace::{Trace, json};

/// The seeds with which every scenario is played twice.
const SEEDS: [u64; 3] = [0, 1, 4711];
/// With this argument the program plays one scenario and prints a digest per seed: the other process.
const CHILD: &str = "--play-in-another-process";

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(CHILD) {
        let name = arguments.next().expect("the parent names a scenario");
        print_digests(&scenario(&name), arguments.next().as_deref());
        return;
    }
    let library = load(&scenarios()).unwrap_or_else(|e| panic!("{}", e.render(120, false)));
    let mut trials: Vec<Trial> = library
        .into_iter()
        .map(|s| {
            Trial::test(format!("in_another_process::{}", s.name), move || {
                same_in_another_process(&s)
            })
        })
        .collect();
    trials.push(Trial::test(
        "the_first_and_the_thousandth_run_agree",
        first_and_thousandth,
    ));
    trials.push(Trial::test("a_stranger_moves_no_line_of_another", stranger));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn scenario(name: &str) -> Scenario {
    let library = load(&scenarios()).unwrap_or_else(|e| panic!("{}", e.render(120, false)));
    library
        .into_iter()
        .find(|s| s.name == name)
        .expect("the parent names a scenario of the library")
}

fn trace(scenario: &Scenario, seed: u64) -> Trace {
    play(
        scenario,
        &Options {
            seed,
            ..Options::default()
        },
    )
    .trace
}

fn lines(trace: &Trace) -> Vec<String> {
    let mut text = Vec::new();
    json::write(&mut text, trace, &[]).expect("memory takes what is written");
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    text.lines().map(str::to_owned).collect()
}

/// What the child prints: a digest per seed, or all lines of one seed.
#[expect(clippy::print_stdout, reason = "standard output is how the child answers its parent")]
fn print_digests(scenario: &Scenario, lines_of: Option<&str>) {
    match lines_of {
        Some(seed) => {
            let seed = seed.parse().expect("the parent names a seed");
            lines(&trace(scenario, seed)).iter().for_each(|line| println!("{line}"));
        }
        None => SEEDS
            .iter()
            .for_each(|seed| println!("{}", trace(scenario, *seed).digest())),
    }
}

fn child(arguments: &[&str]) -> Result<Vec<String>, Failed> {
    let program = std::env::current_exe()?;
    let output = Command::new(program).arg(CHILD).args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn same_in_another_process(scenario: &Scenario) -> Result<(), Failed> {
    let theirs = child(&[&scenario.name])?;
    for (nth, seed) in SEEDS.iter().enumerate() {
        let ours = trace(scenario, *seed);
        if theirs.get(nth).is_some_and(|digest| *digest == ours.digest()) {
            continue;
        }
        let other = child(&[&scenario.name, &seed.to_string()])?;
        return Err(first_difference(&lines(&ours), &other, *seed).into());
    }
    Ok(())
}

fn first_difference(ours: &[String], theirs: &[String], seed: u64) -> String {
    let at = ours
        .iter()
        .zip(theirs)
        .position(|(a, b)| a != b)
        .unwrap_or(ours.len().min(theirs.len()));
    let show = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "(the trace ends)".into());
    format!(
        "seed {seed}: line {} differs\n  here:  {}\n  there: {}",
        at + 1,
        show(ours),
        show(theirs)
    )
}

fn first_and_thousandth() -> Result<(), Failed> {
    let text = "because: one claim, many times\nmanifests:\n  - { apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: { name: fast }, provisioner: csi.wavetank.dev }\n  - { apiVersion: v1, kind: PersistentVolumeClaim, metadata: { name: data }, spec: { accessModes: [ReadWriteOnce], storageClassName: fast, resources: { requests: { storage: 1Gi } } } }\nsteps:\n  - wait: { for: { kind: pvc, name: data, phase: Bound }, within: 10s }\n  - delete: { kind: pvc, name: data, wait: 10s }\n";
    let scenario = parse("again", text.into(), Path::new(".")).map_err(|e| e.render(100, false))?;
    let first = trace(&scenario, 7);
    for _ in 0..998 {
        trace(&scenario, 7);
    }
    let last = trace(&scenario, 7);
    if first.digest() == last.digest() {
        Ok(())
    } else {
        Err(first_difference(&lines(&first), &lines(&last), 7).into())
    }
}

/// Two drivers; with `stranger` a third one that no node knows, with a claim of its own five seconds later.
fn neighbourhood(stranger: bool) -> Scenario {
    let driver = |name: &str, more: &str| format!("    - name: {name}\n{more}");
    let claim = |name: &str, class: &str| {
        format!(
            "{{ apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{ name: {name} }}, spec: {{ accessModes: [ReadWriteOnce], storageClassName: {class}, resources: {{ requests: {{ storage: 1Gi }} }} }} }}"
        )
    };
    let class = |name: &str, driver: &str| {
        format!(
            "{{ apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{ name: {name} }}, provisioner: {driver} }}"
        )
    };
    let pod = "{ apiVersion: v1, kind: Pod, metadata: { name: web }, spec: { containers: [{ name: c, image: i, volumeMounts: [{ name: v, mountPath: /data }] }], volumes: [{ name: v, persistentVolumeClaim: { claimName: data } }] } }";
    let mut text = String::from("because: neighbours\ncluster:\n  drivers:\n");
    text += &driver("csi.one.dev", "");
    text += &driver("csi.two.dev", "");
    if stranger {
        text += &driver("csi.stranger.dev", "      sidecars: { registrar: false }\n");
    }
    text += &format!(
        "manifests:\n  - {}\n  - {}\n  - {pod}\nsteps:\n  - run: 5s\n",
        class("fast", "csi.one.dev"),
        claim("data", "fast")
    );
    if stranger {
        text += &format!(
            "  - apply: {}\n  - apply: {}\n",
            class("stranger", "csi.stranger.dev"),
            claim("stranger", "stranger")
        );
    }
    text += "  - run: 120s\n";
    parse("neighbours", text, Path::new(".")).unwrap_or_else(|e| panic!("{}", e.render(120, false)))
}

fn stranger() -> Result<(), Failed> {
    let (alone, together) = (neighbourhood(false), neighbourhood(true));
    for seed in 0..100 {
        // The steps come and end a little later with the stranger's two applies: their headings and what follows the last common line are cut.
        let is_step = |line: &String| line.contains("\"type\":\"step\"");
        let ours: Vec<String> = lines(&trace(&alone, seed))
            .into_iter()
            .filter(|l| !is_step(l))
            .collect();
        let theirs: Vec<String> = lines(&trace(&together, seed))
            .into_iter()
            .filter(|l| !l.contains("stranger") && !is_step(l))
            .collect();
        let known = stranger_claims(&trace(&together, seed));
        let theirs: Vec<String> = theirs
            .into_iter()
            .filter(|l| !known.iter().any(|id| l.contains(id.as_str())))
            .collect();
        if ours.len() < 20 {
            return Err("the neighbourhood is empty: the comparison proves nothing".into());
        }
        if ours[..] != theirs[..ours.len().min(theirs.len())] {
            return Err(first_difference(&ours, &theirs, seed).into());
        }
    }
    Ok(())
}

/// Ids under which lines speak of the stranger without naming it: the name of its volume.
fn stranger_claims(trace: &Trace) -> Vec<String> {
    let named = lines(trace).into_iter().filter(|l| l.contains("\"stranger\""));
    let mut ids: Vec<String> = Vec::new();
    for line in named {
        let mut rest = line.as_str();
        while let Some(at) = rest.find("pvc-") {
            ids.push(rest[at..].chars().take(40).collect());
            rest = &rest[at + 4..];
        }
    }
    ids.sort();
    ids.dedup();
    ids
}
