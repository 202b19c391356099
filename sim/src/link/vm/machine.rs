//! One virtual machine: its QEMU, how it is started, how its state is kept, and how it loses its power.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use wavetank_agent::wire::{Answer, Ask};
use wavetank_agent::{Client, ClientError, guest};

use super::line::Line;
use super::prepare::Ready;
use super::qmp::Qmp;
use super::{VmError, gather};
use crate::link::EPOCH_SECONDS;
use crate::link::socket::{Ground, Here, Place, Powered, Program, Way, last_words};

/// How often, in real time, something is tried again.
const TRY: Duration = Duration::from_millis(5);
/// How long before QEMU itself is looked at.
const TRIES: Duration = Duration::from_millis(500);
/// From one boot of a node to the next, as its clock has it.
const DAY: u64 = 24 * 60 * 60;
/// QEMU's timer works; the kernel's own trial of it fails where the machine at hand is busy, and the kernel then panics.
const TIMER: &str = "no_timer_check";
/// The disk of a node, in its machine.
const DISK: &str = "/dev/vda";

/// The program that is a machine.
pub(super) fn qemu() -> Result<PathBuf, VmError> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(VmError::Processor(std::env::consts::ARCH));
    }
    gather::find("qemu-system-x86_64").ok_or(VmError::NoQemu)
}

/// Who carries out a machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through the kernel of this machine.
    Kvm,
    /// QEMU itself, one by one.
    Tcg,
}

impl Accelerator {
    /// Those that are worth a try here, the faster first. Whether one works, only a boot shows.
    pub fn candidates() -> Vec<Accelerator> {
        let has_device = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let all = [Accelerator::Kvm, Accelerator::Tcg];
        all.into_iter().skip(usize::from(!has_device)).collect()
    }

    /// How long a boot may take.
    pub(super) fn patience(self) -> Duration {
        match self {
            Accelerator::Kvm => Duration::from_secs(20),
            Accelerator::Tcg => Duration::from_secs(180),
        }
    }

    /// QEMU's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }

    fn processor(self) -> &'static str {
        match self {
            Accelerator::Kvm => "host",
            // Checksums in hardware, chance from the first moment, and nothing wide that would have to be played.
            Accelerator::Tcg => "Nehalem,+rdrand",
        }
    }
}

/// How machines are started.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub qemu: PathBuf,
    /// Who runs QEMU so that it dies with us.
    pub runner: Program,
    pub accelerator: Accelerator,
    pub memory: u32,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// The agent, in the machine.
    pub agent: PathBuf,
    /// What it is told.
    pub words: Vec<String>,
}

impl Shape {
    /// Starts QEMU in a directory that holds `disk.img`, and `state` if it is to be resumed from there.
    fn start(&self, directory: &Path, resume: bool) -> Result<Child, String> {
        for socket in ["agent.sock", "calls.sock", "qmp.sock"] {
            let _ = fs::remove_file(directory.join(socket));
        }
        let log = |name: &str| fs::File::options().create(true).append(true).open(directory.join(name));
        let start = || -> std::io::Result<Child> {
            let mut command = Command::new(&self.runner.file);
            command
                .args(&self.runner.prefix)
                .arg("exec")
                .arg(std::process::id().to_string());
            command.arg(&self.qemu).args(self.arguments());
            if resume {
                command.args(["-incoming", "exec:cat state"]);
            }
            command.current_dir(directory).stdin(Stdio::null());
            command.stdout(log("qemu.log")?).stderr(log("qemu.log")?).spawn()
        };
        start().map_err(|error| format!("QEMU cannot be started: {error}"))
    }

    fn arguments(&self) -> Vec<String> {
        let kernel = format!(
            "console=ttyS0 quiet panic=-1 {TIMER} random.trust_cpu=on PATH={} rdinit={} -- {}",
            gather::PATH,
            self.agent.display(),
            self.words.join(" ")
        );
        let mut words: Vec<String> = Vec::new();
        let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        add(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        add(&[
            "-machine",
            "pc",
            "-accel",
            self.accelerator.word(),
            "-cpu",
            self.accelerator.processor(),
        ]);
        add(&["-m", &self.memory.to_string(), "-smp", "1"]);
        add(&[
            "-kernel",
            &self.kernel.display().to_string(),
            "-initrd",
            &self.initrd.display().to_string(),
        ]);
        add(&["-append", &kernel]);
        // The host's memory survives the guest, so nothing has to wait for the host's disk.
        add(&[
            "-drive",
            "file=disk.img,format=raw,if=none,id=disk,cache=unsafe,discard=unmap",
        ]);
        add(&[
            "-device",
            "virtio-blk-pci,drive=disk,id=disk0",
            "-device",
            "virtio-serial-pci,id=ports",
        ]);
        for port in ["agent", "calls"] {
            add(&[
                "-chardev",
                &format!("socket,id={port},path={port}.sock,server=on,wait=off"),
            ]);
            add(&["-device", &format!("virtserialport,chardev={port},name={port}")]);
        }
        add(&[
            "-chardev",
            "file,id=log,path=driver.log,append=on",
            "-device",
            "virtconsole,chardev=log",
        ]);
        add(&[
            "-chardev",
            "file,id=console,path=agent.log,append=on",
            "-serial",
            "chardev:console",
        ]);
        add(&["-qmp", "unix:qmp.sock,server=on,wait=off"]);
        words
    }

    /// A machine that runs and whose agent can be asked.
    fn boot(&self, directory: &Path, resume: bool, patience: Duration, threads: &Handle) -> Result<Client, String> {
        let mut child = self.start(directory, resume)?;
        let tries = patience.as_millis() / TRIES.as_millis() + 1;
        for _ in 0..tries {
            if let Some(tank) = reach(directory, "agent.sock", threads) {
                return Client::adopt(child, tank, patience).map_err(|error| error.to_string());
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("QEMU ended with {status}{}", said(directory, "qemu.log")));
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err("QEMU takes no connections".to_owned())
    }
}

/// A connection to a socket that QEMU is about to serve. Real time passes on the real threads.
fn reach(directory: &Path, socket: &str, threads: &Handle) -> Option<UnixStream> {
    let (send, receive) = std::sync::mpsc::channel();
    let socket = directory.join(socket);
    threads.spawn(async move {
        let attempts = async {
            loop {
                if let Ok(stream) = UnixStream::connect(&socket) {
                    return stream;
                }
                tokio::time::sleep(TRY).await;
            }
        };
        let _ = send.send(tokio::time::timeout(TRIES, attempts).await.ok());
    });
    receive.recv().ok().flatten()
}

/// Boots a machine in `directory`, waits until its agent answers, and keeps its state there.
pub(super) fn keep_state(shape: &Shape, directory: &Path, disk: &Path) -> Result<(), VmError> {
    let patience = shape.accelerator.patience();
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let threads = threads.map_err(|error| VmError::Boot(error.to_string()))?;
    copy(disk, &directory.join("disk.img")).map_err(VmError::Boot)?;
    let mut client = shape
        .boot(directory, false, patience, threads.handle())
        .map_err(VmError::Boot)?;
    let kept = client
        .ask(&Ask::RunningPods)
        .map_err(|error| format!("{error}{}{}", said(directory, "qemu.log"), said(directory, "agent.log")))
        .and_then(|_| save(directory, threads.handle(), patience));
    client.end();
    for name in [
        "disk.img",
        "agent.sock",
        "calls.sock",
        "qmp.sock",
        "agent.log",
        "driver.log",
        "qemu.log",
    ] {
        let _ = fs::remove_file(directory.join(name));
    }
    kept.map_err(VmError::Boot)
}

/// The end of a log, as the end of a sentence; of a kernel that panicked, why it did.
fn said(directory: &Path, log: &str) -> String {
    let log = directory.join(log);
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    match text.lines().find(|line| line.contains("Kernel panic")) {
        Some(line) => format!(": {}", line.trim()),
        None => last_words(&log),
    }
}

fn save(directory: &Path, threads: &Handle, patience: Duration) -> Result<(), String> {
    let mut qmp = Qmp::connect(&directory.join("qmp.sock"))?;
    qmp.execute("migrate-set-parameters", &json!({"max-bandwidth": 1_u64 << 36}))?;
    qmp.execute("migrate", &json!({"uri": "exec:cat > state.draft"}))?;
    for _ in 0..patience.as_millis() / TRY.as_millis() {
        let now = qmp.execute("query-migrate", &json!({}))?;
        match now["status"].as_str() {
            Some("completed") => {
                let placed = fs::rename(directory.join("state.draft"), directory.join("state"));
                return placed.map_err(|error| format!("the state cannot be kept: {error}"));
            }
            Some("failed" | "cancelled") => return Err(format!("the state cannot be kept: {now}")),
            _ => threads.block_on(async { tokio::time::sleep(TRY).await }),
        }
    }
    Err("keeping the state takes too long".to_owned())
}

/// Copies a file of which little is written.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let mut command = Command::new("cp");
    command.args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to);
    super::kernel::run(&mut command).map(drop)
}

/// Nodes as machines of their own; the controller of a driver that has one runs on this machine.
pub struct Machines {
    /// What they are made of.
    pub ready: Ready,
    /// Whether each boot is one of the kernel, instead of a state that is resumed.
    pub cold: bool,
    /// How long a machine may take to answer.
    pub patience: Duration,
    /// Whether volumes are disks that this machine plugs in.
    pub array: bool,
    /// Where the controller stands.
    pub here: Here,
}

/// The place of a controller that is no node.
const CONTROLLER: &str = "controller";

impl Machines {
    fn wake(&self, place: &Place, client: &mut Client) -> Result<(), String> {
        // What differs from life to life of a node is how often it has lived, which its directory tells.
        let lives = place.directory.join("lives");
        let count = fs::read(&lives).map_or(0, |text| text.len());
        let _ = fs::write(&lives, vec![b'.'; count + 1]);
        let seed = blake3::hash(format!("{} {count}", place.node).as_bytes());
        let wake = Ask::Wake {
            seed: seed.as_bytes().to_vec(),
            // A clock that the machine at hand has no part in, and that never goes back.
            now: EPOCH_SECONDS + count as u64 * DAY,
            disk: DISK.to_owned(),
        };
        match client.ask(&wake) {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Refused(_, why)) => Err(format!("its disk cannot be used: {why}")),
            Ok(other) => Err(format!("its agent answers {other:?}")),
            Err(error) => Err(format!("{error}{}", said(&place.directory, "agent.log"))),
        }
    }
}

impl Ground for Machines {
    fn place(&self, run: &Path, node: &str) -> Place {
        if node == CONTROLLER {
            return self.here.place(run, node);
        }
        Place {
            node: node.to_owned(),
            directory: run.join(node),
            inside: PathBuf::from(guest::ROOM),
            log: guest::LOG.to_owned(),
        }
    }

    fn boot(&self, place: &Place, threads: &Handle) -> Result<Box<dyn Powered>, String> {
        if place.node == CONTROLLER {
            return self.here.boot(place, threads);
        }
        let directory = &place.directory;
        let failed = |why: String| format!("the machine of {} does not come up: {why}", place.node);
        let set_up = fs::create_dir_all(directory).map_err(|error| error.to_string());
        set_up.map_err(failed)?;
        let disk = directory.join("disk.img");
        if !disk.exists() {
            copy(&self.ready.disk, &disk).map_err(failed)?;
        }
        let state = directory.join("state");
        if !self.cold && !state.exists() {
            std::os::unix::fs::symlink(&self.ready.state, &state).map_err(|error| failed(error.to_string()))?;
        }
        let client = self.ready.shape.boot(directory, !self.cold, self.patience, threads);
        let mut client = client.map_err(failed)?;
        self.wake(place, &mut client).map_err(failed)?;
        super::plug::plug_again(directory).map_err(failed)?;
        let calls = reach(directory, "calls.sock", threads).ok_or_else(|| failed("QEMU takes no calls".to_owned()))?;
        let line = {
            let _inside = threads.enter();
            let calls = calls
                .set_nonblocking(true)
                .and_then(|()| tokio::net::UnixStream::from_std(calls));
            Line::over(calls.map_err(|error| failed(error.to_string()))?)
        };
        Ok(Box::new(Machine {
            client,
            line: Arc::new(line),
            directory: directory.clone(),
            still: false,
        }))
    }

    fn link(&self) -> &'static str {
        "vm"
    }

    fn forgets(&self) -> bool {
        true
    }

    fn can_fail_devices(&self) -> bool {
        self.array
    }

    fn fail_devices(&self, place: &Place, failing: bool) -> Result<(), String> {
        super::plug::fail(&place.directory, failing)
    }
}

struct Machine {
    client: Client,
    line: Arc<Line>,
    directory: PathBuf,
    /// Its processors stand still.
    still: bool,
}

impl Machine {
    /// Has its processors stand still, or go on.
    fn order(&self, still: bool) -> Result<(), String> {
        let mut qmp = Qmp::connect(&self.directory.join("qmp.sock"))?;
        qmp.execute(if still { "stop" } else { "cont" }, &json!({})).map(drop)
    }
}

impl Powered for Machine {
    fn ask(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        if !self.still {
            return self.client.ask(ask);
        }
        let gone = |why: String| ClientError::Gone(std::io::Error::other(why));
        self.order(false).map_err(gone)?;
        let answer = self.client.ask(ask)?;
        self.order(true).map_err(gone)?;
        Ok(answer)
    }

    fn pause(&mut self, still: bool) -> Result<(), String> {
        if self.still != still {
            self.order(still)?;
            self.still = still;
        }
        Ok(())
    }

    fn way(&self) -> Option<Way> {
        let line = Arc::clone(&self.line);
        Some(Arc::new(move |socket: String| {
            let line = Arc::clone(&line);
            Box::pin(async move { line.dial(&socket).await })
        }))
    }

    fn end(self: Box<Self>) {
        self.client.end();
    }
}
