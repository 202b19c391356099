//! What the tests share: the commands, a place with profiles, and what is left on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Pid;

#[path = "../built/binary.rs"]
pub mod binary;

use binary::{BINARY, command};

/// The reference driver's program.
pub fn driver() -> Option<PathBuf> {
    beside("wavetank-driver")
}

/// A program that the whole workspace's build puts beside ours.
pub fn beside(name: &str) -> Option<PathBuf> {
    let file = Path::new(BINARY).with_file_name(name);
    if file.is_file() {
        return Some(file);
    }
    let demanded = std::env::var_os("WAVETANK_ROOT_TESTS").is_some();
    assert!(!demanded, "{name} is not built beside {BINARY}");
    println!("not checked: {name} is not built beside {BINARY}");
    None
}

/// Whether nodes can have mounts of their own here.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    let demanded = std::env::var_os("WAVETANK_ROOT_TESTS").is_some();
    assert!(
        root || !demanded,
        "WAVETANK_ROOT_TESTS is set, and this is no root with loop devices"
    );
    if !root {
        println!("not checked: this needs root and loop devices");
    }
    root
}

pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().expect("a directory for the test"))
    }

    pub fn profile(&self, driver: &Path, backend: &str, head: &str, more: &[&str]) -> String {
        let mut words = vec![
            driver.to_str().expect("a plain path"),
            "--endpoint",
            "{endpoint}",
            "--node-id",
            "{node}",
            "--backend",
            backend,
            "--state-dir",
            "{state_dir}",
            "--root",
            "{kubelet_dir}",
        ];
        words.extend(more);
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let text = format!(
            "name: csi.wavetank.dev\nnodes: 1\n{head}\ncombined: {{command: [{}]}}\n",
            words.join(", ")
        );
        self.file("driver.yaml", &text)
    }

    /// A profile of the newcomer's driver, whose volumes lie in `data`.
    pub fn newcomer(&self, driver: &Path, data: &str) -> String {
        self.newcomers("newcomer.yaml", driver, data, "")
    }

    /// The same with more in it.
    pub fn newcomer_with(&self, driver: &Path, more: &str) -> String {
        self.newcomers("other.yaml", driver, "{state_dir}/volumes", more)
    }

    fn newcomers(&self, name: &str, driver: &Path, data: &str, more: &str) -> String {
        let driver = driver.display();
        let block = if more.contains("block") { "" } else { "block: false" };
        // A place of all runs holds what other runs have kept.
        let inventory = match data.contains("{state_dir}") {
            true => format!("inventory: {{command: [ls, '{data}']}}"),
            false => String::new(),
        };
        let text = format!(
            "name: newcomer.csi.example.com\nnodes: 1\n{block}\n{more}\ncsiDriver: {{attachRequired: false}}\n\
             combined: {{command: ['{driver}', --endpoint, '{{endpoint}}', --node, '{{node}}', --data, '{data}']}}\n\
             {inventory}\n"
        );
        self.file(name, &text)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("a plain path").to_owned()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file for the test");
        path.to_str().expect("a plain path").to_owned()
    }
}

/// Runs the command to its end.
pub fn wavetank(args: &[&str]) -> Output {
    marked(args).0
}

/// The same, with the text by which everything of it was known on this machine.
pub fn marked(args: &[&str]) -> (Output, String) {
    let child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the binary can be started");
    let mark = format!("wavetank-{}-run/", child.id());
    (child.wait_with_output().expect("it ends"), mark)
}

pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub const MEMORY: &str = "mounts: false\nkeepsState: false";

/// Of real volumes with xfs, which every kernel grows while mounted (containers may be refused that for ext4): what the profile says, and how the driver is
/// told.
pub const XFS: (&str, &[&str]) = (
    "fileSystems: [ext4, xfs]\nsmallestVolume: 300Mi",
    &["--default-fs", "xfs"],
);

/// The processes whose command line has this text.
pub fn processes_with(text: &str) -> Vec<String> {
    let found = fs::read_dir("/proc").expect("procfs").flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text).then_some(line)
    });
    found.collect()
}

/// Their numbers.
pub fn numbers_with(text: &str) -> Vec<Pid> {
    let found = fs::read_dir("/proc").expect("procfs").flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let number = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
        number.filter(|_| line.contains(text))
    });
    found.collect()
}

/// The loop devices that show files below directories with this text.
pub fn loops_with(text: &str) -> Vec<String> {
    let found = fs::read_dir("/sys/block")
        .expect("sysfs")
        .flatten()
        .filter_map(|entry| {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            file.contains(text).then_some(file)
        });
    found.collect()
}

/// Waits for what happens outside of this process; gives up after half a minute.
pub fn comes_true(mut holds: impl FnMut() -> bool) -> bool {
    let pause = || {
        let mut nap = Command::new("sleep");
        nap.arg("0.05").status().expect("a process that sleeps");
    };
    (0..600).any(|_| {
        let held = holds();
        if !held {
            pause();
        }
        held
    })
}
