//! The built command as people and scripts meet it: what it prints where, and with which status it ends.

mod built;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

use built::binary::{BINARY, command, root};
use built::{Ran, folder, wavetank};

/// A scenario with a life in it.
const LIFE: &str = "scenarios/lifecycle/dynamic-immediate.yaml";

/// Plays a scenario with this text.
fn run_text(name: &str, text: impl AsRef<[u8]>) -> Ran {
    let file = folder(name).join("s.yaml");
    fs::write(&file, text).expect("the target folder can be written");
    wavetank(&["run", file.to_str().expect("the path is text")])
}

fn json_lines(text: &str) -> Vec<Json> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn a_scenario_that_holds_ends_with_0_and_shows_trace_verdict_and_token() {
    let ran = wavetank(&["run", LIFE]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    for part in [
        "lifecycle/dynamic-immediate seed 0",
        "⇄ CreateVolume",
        "held lifecycle/dynamic-immediate after",
        "token: wavetank/",
    ] {
        assert!(ran.out.contains(part), "{part}:\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'), "what is piped is plain");
}

#[test]
fn an_expectation_that_fails_ends_with_1_and_the_command_that_shows_it_again() {
    let ran = run_text(
        "fails",
        "because: it cannot\nsteps: [{run: 1s}]\nexpect: [{call: CreateVolume, times: 3}]\n",
    );
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    for part in [
        "FAILED",
        "s.yaml:3:10",
        "CreateVolume",
        "again: wavetank run ",
        "--seed 0",
        "token: wavetank/",
    ] {
        assert!(ran.out.contains(part), "{part}:\n{}", ran.out);
    }
}

#[test]
fn over_several_runs_the_worst_wins_and_a_summary_counts() {
    let folder = folder("several");
    fs::write(folder.join("a.yaml"), "because: a\nsteps: [{run: 1s}]\n").unwrap();
    fs::write(
        folder.join("b.yaml"),
        "because: b\nsteps: [{run: 1s}]\nexpect: [{call: CreateVolume, times: 1}]\n",
    )
    .unwrap();
    let ran = wavetank(&["run", folder.to_str().unwrap(), "--seeds", "3"]);
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    assert!(ran.out.contains("6 runs: 3 held, 3 failed"), "{}", ran.out);
    let quiet = wavetank(&[
        "run",
        folder.join("a.yaml").to_str().unwrap(),
        "--seeds",
        "3",
        "--quiet",
    ]);
    assert_eq!((quiet.status, quiet.out.as_str()), (Some(0), ""));
}

#[test]
fn colours_come_where_they_are_wanted_and_nowhere_else() {
    let coloured = |args: &[&str], set: &[(&str, &str)]| {
        let output = command(args).envs(set.iter().copied()).output().unwrap();
        Ran::of(output).out.contains('\u{1b}')
    };
    let run = ["run", LIFE];
    assert!(!coloured(&run, &[]), "a pipe is no terminal");
    assert!(coloured(&run, &[("CLICOLOR_FORCE", "1")]));
    assert!(
        !coloured(&run, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]),
        "NO_COLOR wins"
    );
    assert!(
        coloured(&["run", LIFE, "--color", "always"], &[("NO_COLOR", "1")]),
        "whoever says always means it"
    );
    assert!(!coloured(
        &["run", LIFE, "--color", "never"],
        &[("CLICOLOR_FORCE", "1")]
    ));
    assert!(
        !coloured(&["run", LIFE, "--format", "json"], &[("CLICOLOR_FORCE", "1")]),
        "JSON has no colours"
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let plain = wavetank(&["run", LIFE]).out;
    let coloured = wavetank(&["run", LIFE, "--color", "always"]).out;
    let mut stripped = String::new();
    let mut parts = coloured.split('\u{1b}');
    stripped.push_str(parts.next().unwrap_or_default());
    for part in parts {
        stripped.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    assert_eq!(stripped, plain);
}

#[test]
fn json_lines_parse_and_carry_the_number_of_their_schema() {
    let ran = wavetank(&["run", LIFE, "--format", "json", "--digest"]);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    let lines = json_lines(&ran.out);
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    assert_eq!(
        (lines[0]["type"].as_str(), lines[0]["schema"].as_u64()),
        (Some("run"), Some(1))
    );
    assert_eq!(
        lines[0]["token"].as_str().map(|token| token.starts_with("wavetank/")),
        Some(true)
    );
    let names: Vec<_> = of("call").iter().map(|line| &line["call"]).collect();
    assert!(names.len() >= 8 && of("reply").iter().all(|line| names.contains(&&line["call"])));
    assert!(
        of("write")
            .iter()
            .all(|line| line["verb"].is_string() && line["code"].is_u64() && line["t_ms"].is_number())
    );
    let verdict = of("verdict")[0];
    assert_eq!(
        (verdict["verdict"].as_str(), verdict["status"].as_u64()),
        (Some("held"), Some(0))
    );
    assert_eq!(verdict["digest"].as_str().map(str::len), Some(64));
    assert_eq!(lines.last().map(|line| line["type"].clone()), Some("summary".into()));
    assert_eq!(
        (of("summary")[0]["runs"].as_u64(), of("summary")[0]["held"].as_u64()),
        (Some(1), Some(1))
    );
}

#[test]
fn the_digest_is_the_same_in_another_process_and_with_other_output() {
    let digest = |args: &[&str]| {
        let out = wavetank(args).out;
        let line = out
            .lines()
            .find_map(|line| line.trim().strip_prefix("digest: ").map(str::to_owned));
        line.unwrap_or_else(|| panic!("{out}"))
    };
    let whole = digest(&["run", LIFE, "--digest"]);
    assert!(
        whole.len() == 64 && whole.bytes().all(|b| b.is_ascii_hexdigit()),
        "{whole}"
    );
    assert_eq!(
        whole,
        digest(&["run", LIFE, "--digest", "--follow", "pod/web"]),
        "it is of the whole trace"
    );
    assert_eq!(whole, digest(&["run", LIFE, "--digest", "--no-trace"]));
    assert_ne!(
        whole,
        digest(&["run", LIFE, "--digest", "--seed", "1"]),
        "another seed moves times"
    );
}

#[test]
fn following_an_object_shows_its_life_and_no_other() {
    let all = wavetank(&["run", "scenarios/lifecycle/two-pods-one-node.yaml"]).out;
    let ran = wavetank(&[
        "run",
        "scenarios/lifecycle/two-pods-one-node.yaml",
        "--follow",
        "pod/one",
    ]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    assert!(!ran.out.contains("create pod two"), "{}", ran.out);
    assert!(ran.out.lines().count() < all.lines().count());
    assert!(ran.out.contains("CreateVolume"), "{}", ran.out);
}

#[test]
fn following_what_is_not_there_is_refused_with_what_was_meant() {
    wavetank(&["run", LIFE, "--follow", "pvc/dta"]).refuses(
        64,
        &["nothing that happened concerns pvc/default/dta", "did you mean `pvc/"],
    );
    wavetank(&["run", LIFE, "--follow", "pcv/data"]).refuses(64, &["there is no kind `pcv`; did you mean `pvc`?"]);
    wavetank(&["run", LIFE, "--follow", "data"]).refuses(64, &["write KIND/NAME, such as `pvc/data`"]);
    wavetank(&["run", LIFE, "--follow", "node/a/b"]).refuses(64, &["lives in no namespace"]);
}

#[test]
fn a_token_repeats_its_run_and_is_refused_anywhere_else() {
    let first = wavetank(&["run", LIFE, "--seed", "7"]);
    let token = first
        .out
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "))
        .unwrap();
    assert!(token.ends_with("/7"), "{token}");
    let again = wavetank(&["run", LIFE, "--token", token]);
    assert_eq!((again.status, again.out.as_str()), (Some(0), first.out.as_str()));
    let version = env!("CARGO_PKG_VERSION");
    wavetank(&["run", LIFE, "--token", &token.replace(version, "0.0.1")])
        .refuses(64, &["of wavetank 0.0.1", "in its own version only"]);
    wavetank(&["run", "scenarios/expand/online.yaml", "--token", token])
        .refuses(64, &["it is another scenario, or was changed since"]);
    wavetank(&["run", "scenarios/expand", "--token", token]).refuses(64, &["name one file"]);
    wavetank(&["run", LIFE, "--token", "banana"]).refuses(64, &["`banana` is no token", "looks like `wavetank/"]);
    wavetank(&["run", LIFE, "--token", token, "--seed", "1"]).refuses(64, &["cannot be used with"]);
}

#[test]
fn the_schema_is_the_published_one_and_the_legend_is_there() {
    let schema = wavetank(&["schema"]);
    let published = fs::read_to_string(root().join("docs/scenario.schema.json")).unwrap();
    assert_eq!((schema.status, schema.out), (Some(0), published));
    let schema = wavetank(&["schema", "driver"]);
    let published = fs::read_to_string(root().join("docs/driver.schema.json")).unwrap();
    assert_eq!((schema.status, schema.out), (Some(0), published));
    let legend = wavetank(&["legend"]);
    assert_eq!(legend.status, Some(0));
    assert!(legend.out.starts_with("One line for each effect"), "{}", legend.out);
}

#[test]
fn the_documentation_of_the_trace_has_the_legend_and_every_field() {
    let docs = fs::read_to_string(root().join("docs/trace.md")).unwrap();
    let shown = docs
        .split("<!-- legend:begin -->")
        .nth(1)
        .and_then(|rest| rest.split("<!-- legend:end -->").next());
    let shown = shown
        .unwrap()
        .trim()
        .trim_start_matches("```text\n")
        .trim_end_matches("```");
    assert_eq!(
        shown,
        wavetank(&["legend"]).out,
        "write the block anew with: wavetank legend"
    );
    for scenario in [
        LIFE,
        "scenarios/restart/kubelet.yaml",
        "scenarios/errors/stage-fails.yaml",
        "scenarios/refusals",
    ] {
        let ran = wavetank(&["run", scenario, "--format", "json", "--digest", "--verbose"]);
        for line in json_lines(&ran.out) {
            let row = format!("| `{}` |", line["type"].as_str().unwrap());
            assert!(docs.contains(&row) || line["t_ms"].is_number(), "{row}");
            for field in line.as_object().unwrap().keys() {
                assert!(
                    docs.contains(&format!("`{field}`")),
                    "docs/trace.md does not know the field `{field}`: {line}"
                );
            }
        }
    }
    for sign in ["──", "+", "~", "−", "=", "✗", "⇄", "→", "←", "·", "!", "▲", "▼", "↯"] {
        assert!(shown.lines().any(|line| line.trim_start().starts_with(sign)), "{sign}");
    }
}

#[test]
fn every_command_has_help_with_status_0() {
    for args in [
        &["--help"][..],
        &["help"],
        &["run", "--help"],
        &["sites", "--help"],
        &["schema", "--help"],
        &["legend", "--help"],
        &["-h"],
    ] {
        let ran = wavetank(args);
        assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(ran.out.contains("Usage: wavetank"), "{args:?}: {}", ran.out);
        assert!(
            ran.out.lines().all(|line| line.chars().count() <= 120),
            "{args:?}: {}",
            ran.out
        );
    }
    assert!(wavetank(&["--version"]).out.starts_with("wavetank "));
    assert!(wavetank(&["--help"]).out.contains("Exit status: 0 everything held"));
}

#[test]
fn wrong_usage_ends_with_64_and_a_way_out() {
    wavetank(&[]).refuses(64, &["Usage: wavetank"]);
    wavetank(&["runn", LIFE]).refuses(64, &["'runn'", "'run'"]);
    wavetank(&["run"]).refuses(64, &["<PATH>"]);
    wavetank(&["run", LIFE, "--sed", "1"]).refuses(64, &["'--sed'", "'--seed'"]);
    for seed in ["banana", "-1", "1.5", "", "18446744073709551615"] {
        wavetank(&["run", LIFE, &format!("--seed={seed}")]).refuses(64, &["a seed is a whole number from 0"]);
    }
    wavetank(&["run", LIFE, "--seeds", "9..3"]).refuses(64, &["there is no seed in it"]);
    wavetank(&["run", LIFE, "--seeds", "100000000000"]).refuses(64, &["more than"]);
    wavetank(&["run", LIFE, "--format", "yaml"]).refuses(64, &["possible values: text, json, github, junit"]);
    wavetank(&["run", LIFE, "--quiet", "--verbose"]).refuses(64, &["cannot be used with"]);
}

#[test]
fn runs_are_told_as_github_annotations_and_as_junit() {
    let wrong = "data/idle-neighbour.yaml";
    let file = format!("scenarios/{wrong}");
    let ran = wavetank(&[
        "run",
        &file,
        LIFE,
        "--mutant",
        "parent-cleanup-too-broad",
        "--format",
        "github",
    ]);
    assert_eq!(ran.status, Some(2), "{}", ran.out);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.out);
    assert!(
        lines[0]
            .starts_with("::error file=scenarios/data/idle-neighbour.yaml,title=data/idle-neighbour breaks in-use::")
    );
    assert!(
        lines[0].contains("again: wavetank run scenarios/data/idle-neighbour.yaml") && lines[0].contains("token: ")
    );
    assert_eq!(lines[1], "::notice title=wavetank run::1 of 2 runs held");
    let ran = wavetank(&[
        "run",
        &file,
        LIFE,
        "--mutant",
        "parent-cleanup-too-broad",
        "--format",
        "junit",
    ]);
    assert_eq!(ran.status, Some(2), "{}", ran.out);
    for part in [
        "<?xml",
        r#"tests="2""#,
        r#"failures="1""#,
        r#"type="in-use""#,
        "token: wavetank/",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}

#[test]
fn sites_are_listed_in_the_spelling_that_scenarios_take() {
    let ran = wavetank(&["sites", LIFE]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    let wanted = "provisioner / CreateVolume / pvc data / attempt 1 / before-reply";
    assert!(ran.out.lines().any(|line| line == wanted), "{}", ran.out);
    let faults = wavetank(&["sites", LIFE, "--faults"]).out;
    let below: Vec<&str> = faults.lines().skip_while(|line| *line != wanted).skip(1).collect();
    let menu: Vec<&str> = below
        .iter()
        .take_while(|line| line.starts_with(' '))
        .map(|line| line.trim())
        .collect();
    assert!(menu.contains(&r#"{"loseAnswer":{}}"#), "{menu:?}");
    let operations = wavetank(&["sites", LIFE, "--operations"]).out;
    let operation = "driver-controller / CreateVolume / pvc data / attempt 1 / after-op(1)";
    assert!(operations.lines().any(|line| line == operation), "{operations}");
    assert!(
        !ran.out.contains("after-op"),
        "operations are many: only when asked for"
    );
    wavetank(&["sites", "scenarios"]).refuses(64, &["several scenarios: name one file"]);
    wavetank(&["sites", "scenarios/nothing.yaml"]).refuses(64, &["cannot read scenarios/nothing.yaml"]);
}

#[test]
fn a_reader_that_goes_away_ends_it_silently() {
    let mut child = command(&["run", "scenarios/", "--seeds", "100"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.starts_with("held"), "{first}");
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
}

/// Ctrl-C, as a terminal sends it.
fn interrupt(child: &Child) {
    let kill = Command::new("sh")
        .args(["-c", &format!("kill -INT {}", child.id())])
        .status();
    assert!(kill.is_ok_and(|status| status.success()), "the shell can send a signal");
}

#[test]
fn an_interrupt_ends_with_130_and_what_was_done_so_far() {
    let mut child = command(&["run", "scenarios/lifecycle", "--seeds", "100000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    interrupt(&child);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.status, ran.err.as_str()), (Some(130), ""), "{rest}");
    let last = rest.lines().last().unwrap();
    assert!(
        last.contains("held, interrupted with") && last.contains("to go"),
        "{last}"
    );
}

#[test]
fn nobody_can_write_to_a_full_disk() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = Ran::of(command(&["run", LIFE]).stdout(full).output().unwrap());
    ran.refuses(74, &["wavetank: cannot write: "]);
}

#[test]
fn files_that_cannot_be_read_are_named_with_the_reason() {
    let folder = folder("unreadable");
    let path = |name: &str| folder.join(name).display().to_string();
    fs::create_dir_all(folder.join("empty/manifests")).unwrap();
    fs::write(folder.join("empty/manifests/pod.yaml"), "kind: Pod").unwrap();
    fs::write(folder.join("latin.yaml"), b"because: caf\xe9\n").unwrap();
    fs::write(folder.join("good.yaml"), "because: x\nsteps: [{run: 1s}]\n").unwrap();
    wavetank(&["run", &path("empty")]).refuses(64, &["holds no scenario"]);
    wavetank(&["run", &path("latin.yaml")]).refuses(64, &["is not UTF-8 text: byte 12"]);
    wavetank(&["run", &path("godo.yaml")]).refuses(64, &["cannot read", "No such file", "did you mean", "good.yaml"]);
    wavetank(&["run", &path("good.yaml/a.yaml")]).refuses(64, &["cannot read", "Not a directory"]);
    // A file that even root cannot read.
    wavetank(&["run", "/proc/self/mem"]).refuses(64, &["cannot read /proc/self/mem"]);
    wavetank(&["run", "/dev/zero"]).refuses(64, &["/dev/zero is larger than 4194304 bytes"]);
}

#[test]
fn mistakes_in_a_scenario_are_shown_with_file_line_column_and_the_nearest_key() {
    for (name, text, parts) in [
        ("malformed", "because: [x\n", &["this is not YAML", "s.yaml:"][..]),
        (
            "tabs",
            "because: x\nsteps:\n\t- run: 5s\n",
            &["indent with spaces", "s.yaml:3:"],
        ),
        (
            "typo",
            "because: x\nsteps:\n- aply: {file: a.yaml}\n",
            &["s.yaml:3:3", "unknown key `aply`", "did you mean `steps[0].apply`"],
        ),
        (
            "type",
            "because: x\nsteps: {run: 5s}\n",
            &["s.yaml:2:1", "must be a list, not a map"],
        ),
        (
            "zero-nodes",
            "because: x\ncluster: {nodes: 0}\nsteps: [{run: 1s}]\n",
            &["s.yaml:2:18", "must be at least 1, not 0"],
        ),
        (
            "many-nodes",
            "because: x\ncluster: {nodes: 1000000000000}\nsteps: [{run: 1s}]\n",
            &["at most 5000"],
        ),
        (
            "no-node",
            "because: x\nsteps: [{cordon: node-9}]\n",
            &["s.yaml:2:18", "the cluster has no node `node-9`", "did you mean `node-"],
        ),
        (
            "kind",
            "because: x\nmanifests: [{kind: Pdo, apiVersion: v1, metadata: {name: a}}]\nsteps: [{run: 1s}]\n",
            &["unknown kind `Pdo`", "did you mean `Pod`"],
        ),
        (
            "not-modelled",
            "because: x\nmanifests: [{kind: Deployment, apiVersion: apps/v1}]\nsteps: [{run: 1s}]\n",
            &["has no Deployment"],
        ),
        (
            "manifest",
            "kind: Pod\napiVersion: v1\n",
            &["this is a Kubernetes manifest, not a scenario"],
        ),
        ("empty", "", &["the file is empty"]),
    ] {
        let ran = run_text(name, text);
        ran.refuses(64, parts);
        assert!(!ran.err.contains('\u{1b}'), "a pipe gets no colours:\n{}", ran.err);
    }
}

#[test]
fn all_wrong_files_of_a_folder_are_shown_at_once() {
    let folder = folder("all-wrong");
    fs::write(folder.join("a.yaml"), "becaus: x\n").unwrap();
    fs::write(folder.join("b.yaml"), "because: x\nstep: []\n").unwrap();
    wavetank(&["run", folder.to_str().unwrap()]).refuses(64, &["a.yaml:1:1", "b.yaml:2:1"]);
}

/// Runs with at most 2 GiB of address space: what is endless must be refused before it is read whole.
fn run_bounded(file: &Path) -> Ran {
    let script = "ulimit -v 2097152; exec \"$0\" run \"$1\"";
    let output = Command::new("sh")
        .args(["-c", script, BINARY])
        .arg(file)
        .current_dir(root())
        .output();
    Ran::of(output.expect("there is a shell"))
}

#[test]
fn a_terabyte_of_names_is_refused_in_bounded_memory() {
    let folder = folder("terabyte");
    let bomb = {
        let mut text = String::from("because: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let row = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{row}]\n"));
        }
        text
    };
    let nested = format!("because: x\nsteps: {}\n", "[".repeat(1_000_000));
    let names = format!("because: x\nsteps: [{}]\n", "cordon: n, ".repeat(300_000));
    let long = format!(
        "because: x\nmanifests: [{{kind: Pod, apiVersion: v1, metadata: {{name: {}}}}}]\nsteps: [{{run: 1s}}]\n",
        "n".repeat(3 << 20)
    );
    for (name, text, part) in [
        ("bomb.yaml", bomb, "more than 200000 values"),
        ("nested.yaml", nested, "recursion limit exceeded"),
        ("names.yaml", names, "more than 200000 values"),
    ] {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        run_bounded(&file).refuses(64, &[part]);
    }
    // A name that Kubernetes refuses itself: in a few lines.
    let file = folder.join("long.yaml");
    fs::write(&file, long).unwrap();
    let ran = run_bounded(&file);
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    assert!(ran.out.contains("must be no more than 253 characters") || ran.out.contains("bytes)"));
    assert!(ran.out.len() < 20_000, "{} bytes", ran.out.len());
    run_bounded(Path::new("/dev/zero")).refuses(64, &["larger than 4194304 bytes"]);
    // A file of a terabyte, of which nothing is on the disk.
    let sparse = folder.join("sparse.yaml");
    fs::File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
    run_bounded(&sparse).refuses(64, &["larger than 4194304 bytes"]);
}

const CLASS: &str = "
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast}, provisioner: csi.wavetank.dev, allowVolumeExpansion: EXPAND}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: data}
  spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 2Gi}}}
";

#[test]
fn what_kubernetes_refuses_fails_with_its_words() {
    let play = |name: &str, expand: &str, rest: &str| {
        let text = format!("because: x\nmanifests:{}{rest}", CLASS.replace("EXPAND", expand));
        let ran = run_text(name, text);
        assert_eq!((ran.status, ran.err.as_str()), (Some(1), ""), "{name}");
        ran.out
    };
    let bound = "steps:\n- wait: {for: {kind: pvc, name: data, phase: Bound}, within: 1m}\n";
    let resize = |size: &str| {
        format!(
            "{bound}- patch: {{kind: pvc, name: data, patch: {{spec: {{resources: {{requests: {{storage: {size}}}}}}}}}}}\n"
        )
    };
    let shrinks = play("shrinks", "true", &resize("1Gi"));
    assert!(
        shrinks.contains("step 2 (patch)") && shrinks.contains("can not be less than"),
        "{shrinks}"
    );
    let fixed = play("fixed", "false", &resize("3Gi"));
    assert!(
        fixed.contains("storageclass that provisions the pvc must support resize"),
        "{fixed}"
    );
    let large = play(
        "unsatisfiable",
        "true",
        "- {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: huge}, spec: {accessModes: [ReadWriteOnce], storageClassName: slow, resources: {requests: {storage: 1Gi}}}}\nsteps:\n- wait: {for: {kind: pvc, name: huge, phase: Bound}, within: 1m}\n",
    );
    for part in [
        "step 1 (wait): not within 1m",
        "Pending",
        "storageclass.storage.k8s.io \"slow\" not found",
    ] {
        assert!(large.contains(part), "{part}:\n{large}");
    }
}

#[test]
fn the_doctor_says_what_runs_here_and_refuses_what_is_demanded_and_missing() {
    let looked = wavetank(&["doctor"]);
    assert_eq!(looked.status, Some(0), "{}{}", looked.out, looked.err);
    for ability in ["model", "processes", "sockets", "vm"] {
        let told = |line: &&str| {
            let rest = line.strip_prefix("runs").or_else(|| line.strip_prefix("does not"));
            rest.is_some_and(|rest| rest.split_whitespace().next() == Some(ability))
        };
        let line = looked.out.lines().find(told);
        let line = line.unwrap_or_else(|| panic!("{ability} is told:\n{}", looked.out));
        let runs = line.starts_with("runs");
        assert!(
            runs || line.starts_with("does not") && line.contains("lacks "),
            "{line}"
        );
        let demanded = wavetank(&["doctor", "--require", ability]);
        assert_eq!(demanded.status, Some(if runs { 0 } else { 5 }), "{}", demanded.err);
        let complaint = format!("demanded and missing here: {ability}");
        assert_eq!(demanded.err.contains(&complaint), !runs, "{}", demanded.err);
    }
    // What is missing is told with what it is for and how to get it; what is there with what was found.
    let failed = looked.out.lines().filter(|line| line.starts_with('✗')).count();
    let ways = looked
        .out
        .lines()
        .filter(|line| line.trim_start().starts_with("for "))
        .count();
    assert_eq!(failed, ways, "{}", looked.out);
    assert!(
        looked.out.lines().any(|line| line.starts_with("✓ agent")),
        "{}",
        looked.out
    );
    let json = wavetank(&["doctor", "--format", "json", "--require", "model"]);
    let told: serde_json::Value = serde_json::from_str(&json.out).expect("one line of JSON");
    assert_eq!(
        (&told["type"], &told["missing"]),
        (&"doctor".into(), &serde_json::json!([]))
    );
    wavetank(&["doctor", "--require", "xsf"]).refuses(64, &["xfs"]);
}
