//! The agent as the first process of a virtual machine: it makes a system of what its kernel started with, and serves the tank over virtio ports.
//!
//! ```text
//! kernel ──► mounts /proc, /sys, /dev ──► modules of /modules/order ──► port "agent": questions
//!                                                                      port "calls": connections to the driver's socket
//! ```
//!
//! A machine whose state is kept and resumed later is one that has been asked nothing yet. The first question is `Ask::Wake`: only then the disk is
//! opened, so a machine that is resumed behaves like one that has just booted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::MountFlags;
use rustix::time::{ClockId, Timespec};

use crate::{line, node};

/// Where the disk is mounted: everything of a node that outlives its power.
pub const ROOM: &str = "/var/lib";
/// The console that the driver's output goes to.
pub const LOG: &str = "/dev/hvc0";
/// The modules of the kernel, by file name, in the order in which they are loaded.
const ORDER: &str = "/modules/order";
/// How long the agent waits before it looks again.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};
/// How often it looks for a port.
const LOOKS: usize = 2000;

/// Runs the machine; never returns while it has power.
///
/// # Errors
/// If it cannot be made a node.
pub fn run(prefix: &[&str]) -> io::Result<u8> {
    system()?;
    let modules = fs::read_to_string(ORDER)?;
    for name in modules.lines() {
        let path = Path::new("/modules").join(name);
        let loaded = File::open(&path).and_then(|file| Ok(rustix::system::finit_module(&file, c"", 0)?));
        match loaded {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => say(&format!("module {name}: {error}")),
            _ => {}
        }
    }
    quiet_log();
    let calls = port("calls")?;
    std::thread::spawn(move || {
        let served = calls.try_clone().and_then(|to| line::serve(calls, to));
        if let Err(error) = served {
            say(&format!("the line for calls: {error}"));
        }
    });
    node::serve(&mut port("agent")?, prefix)
}

fn say(text: &str) {
    // Standard error is the machine's console.
    let _ = io::stderr().write_fmt(format_args!("wavetank-agent: {text}\n"));
}

fn system() -> io::Result<()> {
    let nothing = MountFlags::empty();
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(at)?;
        rustix::mount::mount(kind, at, kind, nothing, None::<&std::ffi::CStr>)?;
    }
    Ok(())
}

/// The driver writes plain lines to a console, which else makes terminal lines of them.
fn quiet_log() {
    let raw = OpenOptions::new().write(true).open(LOG).and_then(|console| {
        let mut how = rustix::termios::tcgetattr(&console)?;
        how.make_raw();
        Ok(rustix::termios::tcsetattr(
            &console,
            rustix::termios::OptionalActions::Now,
            &how,
        )?)
    });
    if let Err(error) = raw {
        say(&format!("{LOG}: {error}"));
    }
}

/// A virtio port. The other end may come later, or again.
struct Port(File);

impl Port {
    fn try_clone(&self) -> io::Result<Port> {
        self.0.try_clone().map(Port)
    }
}

impl Read for Port {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                // Nobody is at the other end yet.
                Ok(0) if !bytes.is_empty() => pause(),
                other => return other,
            }
        }
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn pause() {
    // It returns early only when a signal comes.
    let _ = rustix::thread::nanosleep(&PAUSE);
}

fn port(name: &str) -> io::Result<Port> {
    for _ in 0..LOOKS {
        if let Some(path) = find_port(name) {
            return OpenOptions::new().read(true).write(true).open(path).map(Port);
        }
        pause();
    }
    Err(io::Error::other(format!("this machine has no virtio port `{name}`")))
}

fn find_port(name: &str) -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let mut ports = ports.flatten().filter(|entry| {
        let called = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        called.trim_end() == name
    });
    let found = ports.next()?;
    Some(Path::new("/dev").join(found.file_name()))
}

/// Begins the life of a node: its own chance, the right time, its disk.
///
/// # Errors
/// If the disk cannot be mounted.
pub fn wake(seed: &[u8], now: Duration, disk: &str) -> io::Result<()> {
    // Machines that are resumed from one state would else draw the same UUIDs.
    let mut random = OpenOptions::new().write(true).open("/dev/urandom")?;
    random.write_all(seed)?;
    reseed(&random)?;
    let seconds = i64::try_from(now.as_secs()).map_err(io::Error::other)?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    rustix::time::clock_settime(ClockId::Realtime, time)?;
    fs::create_dir_all(ROOM)?;
    rustix::mount::mount(disk, ROOM, "ext4", MountFlags::empty(), None::<&std::ffi::CStr>)?;
    for name in ["state", "kubelet/pods", "kubelet/plugins", "kubelet/plugins_registry"] {
        fs::create_dir_all(Path::new(ROOM).join(name))?;
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "the control that makes the kernel draw anew takes no argument, and nothing safe offers it"
)]
fn reseed(random: &File) -> io::Result<()> {
    /// `RNDRESEEDCRNG` of `linux/random.h`.
    const RESEED: rustix::ioctl::Opcode = 0x5207;
    // SAFETY: the control takes no argument and changes nothing in this process.
    let done = unsafe { rustix::ioctl::ioctl(random, rustix::ioctl::NoArg::<RESEED>::new()) };
    Ok(done?)
}
