//! `wavetank conform` as people meet it: its mistakes, its lists, and a whole run against the reference driver's process.

#![expect(clippy::print_stdout, reason = "a test says what it did not run")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_wavetank");

struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn wavetank(args: &[&str]) -> Ran {
    let mut command = Command::new(BINARY);
    command.arg("conform").args(args).stdin(Stdio::null());
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    let output = command.output().expect("the binary can be started");
    Ran {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).expect("output is text"),
        err: String::from_utf8(output.stderr).expect("errors are text"),
    }
}

/// The reference driver's program, built beside the command.
fn driver() -> Option<PathBuf> {
    let path = PathBuf::from(BINARY).with_file_name("wavetank-driver");
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("WAVETANK_COMMANDS").is_none(),
        "this test was demanded, and needs {}",
        path.display()
    );
    println!(
        "NOT RUN: {} is not built; `cargo test --workspace` builds it",
        path.display()
    );
    None
}

fn line(driver: &std::path::Path) -> String {
    format!(
        "{} --backend memory --endpoint {{endpoint}} --node-id {{node}} --root {{root}} --state-dir {{state_dir}}",
        driver.display()
    )
}

#[test]
fn a_mistake_is_refused_with_a_sentence() {
    let cases: [(&[&str], i32, &str); 8] = [
        (&[], 64, "no driver is named"),
        (&["--endpoint", "tcp://127.0.0.1:1"], 64, "no unix socket"),
        (&["--endpoint", "unix:///nowhere/csi.sock"], 5, "nobody serves"),
        (&["--driver", "my-driver --here"], 64, "{endpoint}"),
        (&["--driver", "/no/such/driver {endpoint}"], 5, "cannot start"),
        (&["--driver", "/bin/false {endpoint}"], 5, "ended before it served"),
        (&["--list", "--only", "creat"], 64, "did you mean"),
        (&["--endpoint", "unix:///x", "--size", "0"], 64, "--size"),
    ];
    for (args, status, said) in cases {
        let ran = wavetank(args);
        assert_eq!(ran.status, Some(status), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{args:?} should say {said:?}:\n{}", ran.err);
        assert!(!ran.err.contains("panicked") && ran.out.is_empty(), "{args:?}");
    }
}

#[test]
fn secrets_of_a_file_that_is_wrong_are_not_quoted() {
    let path = std::env::temp_dir().join(format!("wavetank-secrets-{}.yaml", std::process::id()));
    for text in ["CreateVolume: [xyzzy-planted]", "CreateVolumes: {key: xyzzy-planted}"] {
        std::fs::write(&path, text).expect("a file for the test");
        let ran = wavetank(&[
            "--endpoint",
            "unix:///x",
            "--secrets",
            path.to_str().expect("a plain path"),
        ]);
        assert_eq!(ran.status, Some(64), "{}", ran.err);
        assert!(!ran.err.contains("xyzzy"), "{}", ran.err);
    }
    std::fs::remove_file(path).expect("it is there");
}

#[test]
fn the_list_names_every_check_with_its_source() {
    let ran = wavetank(&["--list"]);
    assert_eq!(ran.status, Some(0));
    assert!(
        ran.out
            .contains("create/needs-name must\n      CreateVolume without a name is refused.\n"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains('\u{1b}'), "no colours where nobody sees them");
    let ran = wavetank(&[
        "--list",
        "--format",
        "json",
        "--only",
        "create",
        "--skip",
        "create/needs-name",
    ]);
    for line in ran.out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        let name = line["name"].as_str().expect("a name");
        assert!(name.starts_with("create/") && name != "create/needs-name");
    }
}

#[test]
fn a_run_prints_a_table_and_writes_a_report() {
    let Some(driver) = driver() else { return };
    let junit = std::env::temp_dir().join(format!("wavetank-junit-{}.xml", std::process::id()));
    let report = junit.to_str().expect("a plain path");
    let line = line(&driver);
    let ran = wavetank(&[
        "--driver",
        &line,
        "--forgets",
        "--mounts",
        "ignore",
        "--only",
        "info",
        "--only",
        "restart",
        "--junit",
        report,
    ]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.out, ran.err);
    for part in [
        "Identity\n  held    info/name",
        "not applicable: the driver keeps no state over a restart",
        "keeps every obligation",
    ] {
        assert!(ran.out.contains(part), "should say {part:?}:\n{}", ran.out);
    }
    let xml = std::fs::read_to_string(&junit).expect("the report is written");
    assert!(
        xml.contains("<testsuite name=\"Identity\" tests=\"3\" failures=\"0\""),
        "{xml}"
    );
    std::fs::remove_file(junit).expect("it is there");
}

#[test]
fn a_broken_promise_is_shown_with_its_calls_and_status_2() {
    let Some(driver) = driver() else { return };
    // The driver takes paths below its root only, and is told another one: nothing can be staged.
    let line = line(&driver).replace("{root}", "/nowhere");
    let ran = wavetank(&[
        "--driver",
        &line,
        "--forgets",
        "--mounts",
        "ignore",
        "--only",
        "lifecycle/mount",
    ]);
    assert_eq!(ran.status, Some(2), "{}{}", ran.out, ran.err);
    for part in [
        "BROKEN  lifecycle/mount",
        "NodeStageVolume answered INVALID_ARGUMENT",
        "source",
        "1 obligation is not kept",
    ] {
        assert!(ran.out.contains(part), "should say {part:?}:\n{}", ran.out);
    }
}

#[test]
fn an_interrupt_ends_the_driver_as_well() {
    let Some(driver) = driver() else { return };
    let line = line(&driver);
    let mut child = Command::new(BINARY)
        .args(["conform", "--driver", &line, "--forgets", "--mounts", "ignore"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    // The first finding means that the driver runs.
    let mut out = std::io::BufReader::new(child.stdout.take().expect("its output is piped"));
    let mut first = String::new();
    std::io::BufRead::read_line(&mut out, &mut first).expect("it prints");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.expect("kill is there").success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).expect("its output ends, so nobody holds it any more");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130), "{first}{rest}");
    let directory = std::env::temp_dir().join(format!("wavetank-conform-{}", child.id()));
    let socket = directory.join("csi-1.sock");
    assert!(
        std::os::unix::net::UnixStream::connect(&socket).is_err(),
        "nobody serves at {}",
        socket.display()
    );
}

#[test]
fn what_a_driver_leaves_mounted_goes_with_the_run() {
    let newcomer = PathBuf::from(BINARY).with_file_name("newcomer-driver");
    let root = rustix::process::geteuid().is_root();
    assert!(
        (root && newcomer.exists()) || std::env::var_os("WAVETANK_ROOT_TESTS").is_none(),
        "this test was demanded, and needs root and {}",
        newcomer.display()
    );
    if !root || !newcomer.exists() {
        println!("NOT RUN: it needs root and {}", newcomer.display());
        return;
    }
    let line = format!(
        "{} --endpoint {{endpoint}} --node {{node}} --data {{state_dir}}/volumes",
        newcomer.display()
    );
    let child = Command::new(BINARY)
        .args(["conform", "--driver", &line, "--only", "concurrent/same-publish"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let directory = std::env::temp_dir().join(format!("wavetank-conform-{}", child.id()));
    let ran = child.wait_with_output().expect("it ends");
    // It mounts once for each duplicate, and one NodeUnpublishVolume undoes one.
    assert_eq!(ran.status.code(), Some(2), "{}", String::from_utf8_lossy(&ran.stdout));
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs");
    let left: Vec<&str> = table
        .lines()
        .filter(|line| line.contains(directory.to_str().expect("a plain path")))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
    assert!(!directory.exists(), "{} is left", directory.display());
}
