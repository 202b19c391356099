//! Nodes as virtual machines: `wavetank vm prepare`, and what `--nodes vm` needs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::driver::{self, NOT_JUDGED};
use super::report::quoted;
use super::{Stop, Streams, USAGE};
use crate::link::socket::{Here, Outside, ProcessShape, Profile, Program, scratch};
use crate::link::vm::{self, Guest, Machines, Parts, Plug, VmError};

#[derive(Debug, ClapArgs)]
pub(super) struct VmArgs {
    #[command(subcommand)]
    pub command: VmCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum VmCommand {
    /// Prepare the virtual machine that nodes are made of (docs/vm.md).
    Prepare(PrepareArgs),
    /// Plug a disk into a node of a run, or take it away. For the reference driver's controller.
    #[command(hide = true)]
    Plug(PlugArgs),
}

/// Plug a disk into a node of a run, or take it away.
#[derive(Debug, ClapArgs)]
pub(super) struct PlugArgs {
    /// The directory of the run.
    pub run: PathBuf,
    /// What is to be done.
    #[arg(value_enum)]
    pub verb: Verb,
    /// The node.
    pub node: String,
    /// The disk's serial number.
    pub serial: String,
    /// `IMAGE rw|ro` to plug it in; its new size in bytes to resize it.
    pub more: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Verb {
    /// Give the node the disk.
    Plug,
    /// Take it away.
    Unplug,
    /// Tell the node its new size.
    Resize,
}

/// Prepare the virtual machine that nodes are made of.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
It is made of Debian's kernel package, which is downloaded and unpacked without being installed, and of this machine's own tools for file systems. \
No root is needed. If nothing has changed since the last time, nothing is done.

Example:
  wavetank vm prepare && wavetank run scenarios/expand --nodes vm")]
pub(super) struct PrepareArgs {
    /// A kernel of your own (`vmlinuz`), instead of Debian's. It must have virtio, loop devices and ext4, built in or as modules.
    #[arg(long, value_name = "FILE", requires = "modules")]
    pub kernel: Option<PathBuf>,
    /// The directory of its modules (`/lib/modules/VERSION`).
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// A program or file that nodes have at the same path, with its libraries. May be given more than once. The commands of a driver's profile need not be given.
    #[arg(long = "with", value_name = "FILE")]
    pub more: Vec<PathBuf>,
    /// Memory of each machine, in MiB.
    #[arg(long, value_name = "MIB", default_value = "512", value_parser = clap::value_parser!(u32).range(128..=65536))]
    pub memory: u32,
    #[command(flatten)]
    pub cache: CacheArgs,
}

#[derive(Clone, Debug, Default, ClapArgs)]
pub(super) struct CacheArgs {
    /// Where the prepared machine is kept. Default: `wavetank/vm` below $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR")]
    pub vm_cache: Option<PathBuf>,
}

/// What the nodes of a run are.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(super) struct NodesArgs {
    /// What nodes are: `tank`, modelled, or this machine's if there is a driver's profile; `vm`, virtual machines with kernels of their own (docs/vm.md).
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Nodes::Tank)]
    pub nodes: Nodes,
    /// Where the reference driver keeps its volumes in machines: on their node, or in an array that plugs them into any node as disks.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = Volumes::Shared)]
    pub volumes: Volumes,
    /// Each machine boots its kernel, instead of being resumed from a state just after one boot.
    #[arg(long)]
    pub cold: bool,
    #[command(flatten)]
    pub cache: CacheArgs,
}

impl NodesArgs {
    /// What to say for the same drivers and nodes again, a space before each.
    pub fn again(&self, profile: Option<&Path>) -> String {
        let driver = profile.map(|path| format!(" --driver {}", quoted(&path.display().to_string())));
        let mut again = driver.unwrap_or_default();
        if self.nodes == Nodes::Vm {
            again += " --nodes vm";
            if self.volumes == Volumes::Local && profile.is_none() {
                again += " --volumes local";
            }
            if let Some(cache) = &self.cache.vm_cache {
                again += &format!(" --vm-cache {}", quoted(&cache.display().to_string()));
            }
        }
        again
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Nodes {
    /// As ever.
    #[default]
    Tank,
    /// Virtual machines.
    Vm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Volumes {
    /// Image files on the disk of the first node, which is then the only one.
    Local,
    /// Image files on this machine.
    #[default]
    Shared,
}

/// `wavetank vm …`.
pub(super) fn run(args: &VmArgs, streams: &mut Streams) -> Result<u8, Stop> {
    match &args.command {
        VmCommand::Prepare(args) => prepare(args, streams),
        VmCommand::Plug(args) => plug(args, streams),
    }
}

fn plug(args: &PlugArgs, streams: &mut Streams) -> Result<u8, Stop> {
    let what = match (args.verb, &args.more[..]) {
        (Verb::Plug, [image, word]) => Plug::In {
            image: image.clone(),
            read_only: word == "ro",
        },
        (Verb::Unplug, []) => Plug::Out,
        (Verb::Resize, [size]) if size.parse::<u64>().is_ok() => Plug::Resize(size.parse().unwrap_or_default()),
        _ => return driver::refuse(streams, USAGE, "these arguments do not fit the verb"),
    };
    match vm::plug(&args.run, &args.node, &args.serial, &what) {
        Ok(()) => Ok(0),
        Err(why) => driver::refuse(streams, 1, &why),
    }
}

fn prepare(args: &PrepareArgs, streams: &mut Streams) -> Result<u8, Stop> {
    let directory = cache(&args.cache, streams)?;
    let parts = Parts {
        kernel: args.kernel.clone().zip(args.modules.clone()),
        agent: agent_of_machines(streams)?,
        more: args.more.clone(),
        memory: args.memory,
    };
    let mut said = Ok(());
    let made = Guest::prepare(&directory, &parts, &mut |what| {
        said = writeln!(streams.err, "wavetank: {what}");
    });
    said?;
    let (guest, is_new) = match made {
        Ok(made) => made,
        Err(error) => return stop(streams, &error),
    };
    if let Some(reference) = beside("wavetank-driver") {
        ready(&guest, &[reference], streams)?;
    }
    let what = if is_new {
        "prepared"
    } else {
        "as it was: nothing has changed"
    };
    writeln!(streams.out, "{}: {what}", directory.display())?;
    Ok(0)
}

/// A driver whose nodes are machines: that of a profile, or the reference driver.
pub(super) fn open(profile: Option<&Path>, args: &NodesArgs, streams: &mut Streams) -> Result<Arc<Outside>, Stop> {
    let is_reference = profile.is_none();
    let profile = match profile {
        Some(path) => driver::read(path, streams)?,
        None => reference(args.volumes, streams)?,
    };
    let directory = cache(&args.cache, streams)?;
    let agent = agent_of_machines(streams)?;
    let guest = match Guest::open(&directory).and_then(|guest| guest.has(&agent)) {
        Ok(guest) => guest,
        Err(error) => return stop(streams, &error),
    };
    let mut programs = Vec::new();
    for shape in [&profile.node, &profile.combined].into_iter().flatten() {
        match program(shape) {
            Ok(found) => programs.extend(found),
            Err(why) => return driver::refuse(streams, USAGE, &why),
        }
    }
    let ready = ready(&guest, &programs, streams)?;
    let patience = profile.watchdog.get();
    let machines = Machines {
        ready,
        cold: args.cold,
        array: is_reference && args.volumes == Volumes::Shared,
        patience,
        here: Here {
            program: driver::agent(streams)?,
            isolated: false,
            patience,
        },
    };
    match Outside::open_on(Box::new(machines), profile, &scratch("run")) {
        Ok(outside) => Ok(outside),
        Err(error) => driver::stop(streams, &error),
    }
}

fn ready(guest: &Guest, programs: &[PathBuf], streams: &mut Streams) -> Result<crate::link::vm::Ready, Stop> {
    let runner = driver::agent(streams)?;
    let mut said = Ok(());
    let made = guest.with(programs, &runner, &mut |what| {
        said = writeln!(streams.err, "wavetank: {what}");
    });
    said?;
    match made {
        Ok(ready) => Ok(ready),
        Err(error) => stop(streams, &error),
    }
}

/// The program of a process, to be had in machines at the same path.
fn program(shape: &ProcessShape) -> Result<Option<PathBuf>, String> {
    if shape.endpoint.is_some() {
        return Err("a process that runs already cannot be put into a machine: the profile needs a command".to_owned());
    }
    let Some(word) = shape.command.first() else {
        return Ok(None);
    };
    let path = PathBuf::from(word);
    if !path.is_absolute() || !path.is_file() {
        return Err(format!(
            "`{word}` must be the absolute path of a program, to be had in machines at the same path"
        ));
    }
    Ok(Some(path))
}

/// The profile of the reference driver.
fn reference(volumes: Volumes, streams: &mut Streams) -> Result<Profile, Stop> {
    let Some(driver) = beside("wavetank-driver") else {
        let why = "the reference driver, `wavetank-driver`, is not beside this program: build it, or give a driver with --driver";
        return driver::refuse(streams, NOT_JUDGED, why);
    };
    let own = driver::agent(streams)?.file;
    let process = |more: &[&str]| {
        let mut words = vec![driver.display().to_string()];
        let rest = "--endpoint {endpoint} --node-id {node} --state-dir {state_dir} --root {kubelet_dir}";
        words.extend(rest.split(' ').chain(more.iter().copied()).map(str::to_owned));
        Some(ProcessShape {
            command: words,
            ..ProcessShape::default()
        })
    };
    let profile = Profile {
        name: "csi.wavetank.dev".to_owned(),
        file_systems: ["ext4", "xfs", "btrfs"].map(str::to_owned).to_vec(),
        ..Profile::unnamed()
    };
    let plug = format!("{} vm plug {{state_dir}}/../..", own.display());
    Ok(match volumes {
        Volumes::Local => Profile {
            nodes: Some(1),
            combined: process(&[]),
            ..profile
        },
        Volumes::Shared => Profile {
            controller: process(&["--role", "controller", "--backend", "array", "--plug", &plug]),
            node: process(&["--role", "node", "--backend", "array"]),
            ..profile
        },
    })
}

fn beside(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    Some(own.with_file_name(name)).filter(|path| path.is_file())
}

/// The agent of machines: the small program, if it is there, else this one.
fn agent_of_machines(streams: &mut Streams) -> Result<Program, Stop> {
    match beside("wavetank-agent") {
        Some(file) => Ok(Program {
            file,
            prefix: Vec::new(),
        }),
        None => driver::agent(streams),
    }
}

fn cache(args: &CacheArgs, streams: &mut Streams) -> Result<PathBuf, Stop> {
    if let Some(directory) = &args.vm_cache {
        return Ok(directory.clone());
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.filter(|base| base.is_absolute());
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    match base.or_else(home) {
        Some(base) => Ok(base.join("wavetank/vm")),
        None => driver::refuse(
            streams,
            USAGE,
            "there is no home directory: say with --vm-cache where machines are kept",
        ),
    }
}

fn stop<T>(streams: &mut Streams, error: &VmError) -> Result<T, Stop> {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    driver::refuse(streams, NOT_JUDGED, &format!("{error}{cause}"))
}
