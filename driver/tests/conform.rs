//! Every obligation of a CSI driver, over a real socket: with volumes in memory for any user, and on a real kernel.

#![expect(clippy::print_stdout, reason = "a test says what it found, and what it did not run")]

use std::sync::Arc;

use wavetank_conform::socket::{Command, How, Look, Place, SocketDriver, ThisMachine};
use wavetank_conform::{Need, Report, Settings, Verdict, all, run};

/// Runs every check against the process with these options.
async fn conforms(options: &str, keeps_state: bool, look: Look, settings: Settings, without: &[&str]) -> Report {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let home = directory.path().canonicalize().expect("the directory is there");
    let place = Place {
        directory: home.join("driver"),
        root: home.join("kubelet"),
    };
    let line = format!(
        "{} --endpoint {{endpoint}} --node-id {{node}} --state-dir {{state_dir}} --root {{root}} {options}",
        env!("CARGO_BIN_EXE_wavetank-driver")
    );
    let command = Command::parse(&line, place).expect("the command line is well-formed");
    let how = How::Started {
        command,
        nodes: 1,
        keeps_state,
    };
    let root = home.join("kubelet").to_str().expect("a plain path").to_owned();
    std::fs::create_dir_all(&root).expect("a directory for volumes");
    let driver = SocketDriver::reach(&how, ThisMachine::new(root, look))
        .await
        .expect("the driver serves");
    let driver = Arc::new(driver);
    let checks: Vec<_> = all()
        .into_iter()
        .filter(|check| !without.contains(&check.name))
        .collect();
    let report = run(driver.clone(), settings, &checks, &mut |_| {})
        .await
        .expect("the driver says what it is");
    driver.end().await;
    for finding in report
        .findings
        .iter()
        .filter(|one| !matches!(one.verdict, Verdict::Held))
    {
        println!("{}: {:?}", finding.check.name, finding.verdict);
    }
    report
}

fn settings() -> Settings {
    Settings {
        mutable_parameters: [("iops".to_owned(), "500".to_owned())].into(),
        ephemeral: Some([("size".to_owned(), "64Mi".to_owned())].into()),
        ..Settings::default()
    }
}

/// The names of the checks that said nothing although nothing but these needs was missing.
fn silent(report: &Report, missing: &[Need]) -> Vec<&'static str> {
    let silent = report
        .findings
        .iter()
        .filter(|one| matches!(one.verdict, Verdict::NotApplicable(_)));
    let unexplained = silent.filter(|one| !one.check.needs.iter().any(|need| missing.contains(need)));
    unexplained.map(|one| one.check.name).collect()
}

/// What no process of this driver has, alone on its machine.
const ALONE: [Need; 1] = [Need::TwoNodes];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_backend_keeps_every_obligation() {
    let report = conforms(
        "--backend memory --max-volumes-per-node 4",
        false,
        Look::No,
        settings(),
        &[],
    )
    .await;
    assert_eq!(report.troubles(), Vec::<String>::new());
    let missing = [&ALONE[..], &[Need::Contents, Need::Restart]].concat();
    assert_eq!(silent(&report, &missing), Vec::<&str>::new());
}

fn may_mount() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("WAVETANK_ROOT_TESTS").is_none(),
        "this test was demanded, and needs root"
    );
    println!("NOT RUN: loop devices and mounts need root");
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_backend_keeps_every_obligation_on_xfs() {
    if !may_mount() {
        return;
    }
    let settings = Settings {
        fs_type: "xfs".to_owned(),
        size: 320 << 20,
        grown: 640 << 20,
        ephemeral: Some([("size".to_owned(), "320Mi".to_owned())].into()),
        ..settings()
    };
    let report = conforms(
        "--backend loop --max-volumes-per-node 6",
        true,
        Look::Yes,
        settings,
        &[],
    )
    .await;
    assert_eq!(report.troubles(), Vec::<String>::new());
    assert_eq!(silent(&report, &ALONE), Vec::<&str>::new());
}

/// Growing ext4 while it is mounted needs a right that a container may lack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_backend_keeps_every_obligation_on_ext4() {
    if !may_mount() {
        return;
    }
    let without = ["expand/in-use", "contents/after-expansion"];
    let report = conforms(
        "--backend loop --max-volumes-per-node 6",
        true,
        Look::Yes,
        settings(),
        &without,
    )
    .await;
    assert_eq!(report.troubles(), Vec::<String>::new());
    assert_eq!(silent(&report, &ALONE), Vec::<&str>::new());
}
