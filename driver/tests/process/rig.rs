//! The process `wavetank-driver` in a directory of its own, and callers on its socket.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::controller_client::ControllerClient;
use wavetank_proto::csi::v1::group_controller_client::GroupControllerClient;
use wavetank_proto::csi::v1::identity_client::IdentityClient;
use wavetank_proto::csi::v1::node_client::NodeClient;
use wavetank_proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;
use wavetank_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};

/// How long a process may take to serve, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wavetank-driver"))
}

/// A directory in which lives of the process follow one another.
pub struct Place {
    root: tempfile::TempDir,
    backend: &'static str,
    options: Vec<String>,
    lives: u32,
}

/// A process that does not outlive a test that failed.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One life of the process.
pub struct Life {
    child: Process,
    pub calls: Callers,
}

#[derive(Clone)]
pub struct Callers {
    pub identity: IdentityClient<Channel>,
    pub controller: ControllerClient<Channel>,
    pub group: GroupControllerClient<Channel>,
    pub metadata: SnapshotMetadataClient<Channel>,
    pub node: NodeClient<Channel>,
}

impl Place {
    pub fn new(backend: &'static str, options: &[&str]) -> Self {
        Self {
            root: tempfile::tempdir().expect("a directory for the test"),
            backend,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            lives: 0,
        }
    }

    /// A path in it, through no symbolic link.
    pub fn path(&self, name: &str) -> PathBuf {
        let root = self.root.path().canonicalize().expect("the directory is there");
        root.join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a plain path").to_owned()
    }

    /// Starts the process, and waits until it answers.
    pub async fn start(&mut self) -> Life {
        self.lives += 1;
        self.silence().await;
        let log = fs::File::create(self.path(&format!("log-{}", self.lives))).expect("a log");
        let endpoint = format!("unix://{}", self.text("csi.sock"));
        let (state, root, audit) = (self.text("state"), self.text("."), self.text("audit"));
        let root = root.trim_end_matches("/.").to_owned();
        let child = command()
            .args(["--endpoint", &endpoint, "--node-id", "n1", "--backend", self.backend])
            .args(["--state-dir", &state, "--root", &root, "--audit-log", &audit])
            .env("LOG_LEVEL", "trace")
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the process starts");
        let calls = connect(&endpoint).await;
        Life {
            child: Process(child),
            calls,
        }
    }

    /// Until nobody serves: between fork and exec, a tool that a killed process was about to start has its socket.
    async fn silence(&self) {
        let socket = self.path("csi.sock");
        let silence = async {
            while UnixStream::connect(&socket).is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, silence)
            .await
            .expect("the last life is over");
    }

    /// Everything that the processes said and kept, as text.
    pub fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        gather(&self.path("."), &mut found);
        found
    }

    /// What is left of volumes: loop devices, mounts, images, and paths below `pods`.
    pub fn leftovers(&self) -> Vec<String> {
        let root = self.text(".");
        let root = root.trim_end_matches("/.");
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").expect("sysfs").flatten() {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if backing.starts_with(root) {
                found.push(format!("{} shows {backing}", entry.path().display()));
            }
        }
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
        found.extend(table.lines().filter(|line| line.contains(root)).map(str::to_owned));
        for directory in ["state/volumes", "state/snapshots", "state/private", "pods"] {
            let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        found
    }
}

impl Life {
    /// SIGKILL, and nothing of the process is left.
    pub fn kill(mut self) {
        self.child.0.kill().expect("a child can be killed");
        self.child.0.wait().expect("a child can be waited for");
    }

    /// SIGTERM; its exit status.
    pub async fn end(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process has a number");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a child can be ended");
        drop(self.calls);
        // Off this thread: the callers' connections must be able to say goodbye meanwhile.
        let waited = tokio::task::spawn_blocking(move || self.child.0.wait()).await;
        waited
            .expect("the thread ends")
            .expect("a child can be waited for")
            .code()
    }
}

async fn connect(endpoint: &str) -> Callers {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("a socket's address");
    let attempts = async {
        loop {
            if let Ok(channel) = endpoint.connect().await {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let channel = tokio::time::timeout(PATIENCE, attempts)
        .await
        .expect("the process serves");
    Callers {
        identity: IdentityClient::new(channel.clone()),
        controller: ControllerClient::new(channel.clone()),
        group: GroupControllerClient::new(channel.clone()),
        metadata: SnapshotMetadataClient::new(channel.clone()),
        node: NodeClient::new(channel),
    }
}

fn gather(at: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(at).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            gather(&entry.path(), found);
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            let file = fs::File::open(entry.path()).expect("a file");
            file.take(8 << 20).read_to_end(&mut bytes).expect("its bytes");
            found.insert(entry.path(), bytes);
        }
    }
}

/// Runs the command to its end.
pub fn run(arguments: &[&str]) -> Output {
    command()
        .args(arguments)
        .env_clear()
        .output()
        .expect("the command runs")
}

pub const SECRET: &str = "xyzzy-planted-secret";

pub fn secrets() -> BTreeMap<String, String> {
    BTreeMap::from([("password".to_owned(), SECRET.to_owned())])
}

pub fn mount(fs_type: &str) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: fs_type.to_owned(),
            ..Default::default()
        })),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeMultiWriter.into(),
        }),
    }
}

pub fn size(required_bytes: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes,
        limit_bytes: 0,
    })
}
