//! Drivers that run outside: their profiles are read, and written by asking.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};

use super::interrupts::Interrupts;
use super::vm::{self, Nodes, NodesArgs};
use super::{INTERRUPTED, Stop, Streams, USAGE, width};
use crate::link::socket::{Facts, Outside, OutsideError, ProcessShape, Profile, ProfileError, Program, scratch};

#[derive(Debug, ClapArgs)]
pub(super) struct DriverArgs {
    #[command(subcommand)]
    pub command: DriverCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum DriverCommand {
    /// Start a driver, ask it what it can do, and write its profile.
    Init(InitArgs),
}

/// Start a driver, ask it what it can do, and write its profile.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
In the command, {endpoint} stands for the socket that wavetank will dial, {node} for the node's name, {state_dir} for a directory that survives the process,
{kubelet_dir} for kubelet's directory on that node.

Example:
  wavetank driver init --output my-driver.yaml -- my-driver --endpoint {endpoint} --node-id {node} --data {state_dir}")]
pub(super) struct InitArgs {
    /// Where the profile goes; standard output if left out. A file that exists is refused.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The command of the controller process, as one text, if it is another than the node's.
    #[arg(long, value_name = "COMMAND")]
    pub controller: Option<String>,
    /// The driver never mounts for real: no root is needed.
    #[arg(long)]
    pub no_mounts: bool,
    /// The command of the driver, or of its node process if `--controller` is given.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// The word by which this command is told that it is an agent.
pub(super) const AGENT: &str = "agent";

/// Exit status: nothing can be judged.
pub(super) const NOT_JUDGED: u8 = 5;

/// `wavetank driver …`.
pub(super) fn run(args: &DriverArgs, streams: &mut Streams) -> Result<u8, Stop> {
    match &args.command {
        DriverCommand::Init(args) => init(args, streams),
    }
}

/// The driver that is played around, if it is one that runs outside. An interrupt ends the command while a driver on this machine is asked.
pub(super) fn chosen(
    profile: Option<&Path>,
    on: &NodesArgs,
    interrupts: Option<&Interrupts>,
    streams: &mut Streams,
) -> Result<Option<Arc<Outside>>, Stop> {
    match (on.nodes, profile) {
        (Nodes::Vm, profile) => vm::open(profile, on, streams).map(Some),
        (Nodes::Tank, Some(path)) => open(path, interrupts, streams).map(Some),
        (Nodes::Tank, None) => Ok(None),
    }
}

/// Reads a profile and asks its driver what it can do.
fn open(path: &Path, interrupts: Option<&Interrupts>, streams: &mut Streams) -> Result<Arc<Outside>, Stop> {
    let (profile, agent, directory) = (read(path, streams)?, agent(streams)?, scratch("run"));
    let place = directory.clone();
    let open = move || Outside::open(profile, agent, &place);
    let opened = match interrupts {
        Some(interrupts) => interrupts.unless(open, streams)?,
        None => Some(open()),
    };
    match opened {
        Some(Ok(outside)) => Ok(outside),
        Some(Err(error)) => stop(streams, &error),
        None => {
            // The driver and its agent end with this program; what they still write is the system's to clean.
            let _ = fs::remove_dir_all(directory);
            Err(Stop::Status(INTERRUPTED))
        }
    }
}

/// Reads a profile.
pub(super) fn read(path: &Path, streams: &mut Streams) -> Result<Profile, Stop> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return refuse(streams, USAGE, &format!("{}: {error}", path.display())),
    };
    match Profile::read(&path.display().to_string(), text) {
        Ok(profile) => Ok(profile),
        Err(ProfileError::Read(error)) => {
            let text = error.render(width(), streams.colour);
            writeln!(streams.err, "{}", text.trim_end())?;
            Err(Stop::Status(USAGE))
        }
        Err(error) => refuse(streams, USAGE, &format!("{}: {error}", path.display())),
    }
}

/// This program is the agent, too.
pub(super) fn agent(streams: &mut Streams) -> Result<Program, Stop> {
    match std::env::current_exe() {
        Ok(file) => Ok(Program {
            file,
            prefix: vec![AGENT.to_owned()],
        }),
        Err(error) => refuse(streams, NOT_JUDGED, &format!("this program cannot be found: {error}")),
    }
}

pub(super) fn refuse<T>(streams: &mut Streams, status: u8, why: &str) -> Result<T, Stop> {
    writeln!(streams.err, "wavetank: {why}")?;
    Err(Stop::Status(status))
}

pub(super) fn stop<T>(streams: &mut Streams, error: &OutsideError) -> Result<T, Stop> {
    let status = match error {
        OutsideError::Name { .. } => USAGE,
        OutsideError::SetUp(_) | OutsideError::Driver { .. } | OutsideError::NoMounts(_) => NOT_JUDGED,
    };
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    refuse(streams, status, &format!("{error}{cause}"))
}

fn init(args: &InitArgs, streams: &mut Streams) -> Result<u8, Stop> {
    if let Some(output) = args.output.as_deref().filter(|output| output.exists()) {
        return refuse(
            streams,
            USAGE,
            &format!("{} exists already: it stays as it is", output.display()),
        );
    }
    let command = |command: &[String]| ProcessShape {
        command: command.to_vec(),
        ..ProcessShape::default()
    };
    let mut profile = Profile::unnamed();
    profile.mounts = !args.no_mounts;
    match &args.controller {
        None => profile.combined = Some(command(&args.command)),
        Some(controller) => {
            let words: Vec<String> = controller.split_whitespace().map(str::to_owned).collect();
            profile.controller = Some(command(&words));
            profile.node = Some(command(&args.command));
        }
    }
    if let Err(error) = profile.check() {
        return refuse(streams, USAGE, &error.to_string());
    }
    if let Some(why) = profile.deaf() {
        return refuse(streams, USAGE, &format!("{}: {why}", profile.called()));
    }
    let facts = match Outside::facts_of(profile.clone(), agent(streams)?, &scratch("init")) {
        Ok(facts) => facts,
        Err(error) => return stop(streams, &error),
    };
    profile.name.clone_from(&facts.name);
    let text = written(&profile, &facts);
    match &args.output {
        None => streams.out.write_all(text.as_bytes())?,
        Some(output) => {
            if let Err(error) = fs::write(output, text) {
                return refuse(streams, USAGE, &format!("{}: {error}", output.display()));
            }
            writeln!(
                streams.out,
                "{}: the profile of {} {}",
                output.display(),
                facts.name,
                facts.version
            )?;
        }
    }
    Ok(0)
}

/// The profile as a file that says what was asked and what is left to say.
fn written(profile: &Profile, facts: &Facts) -> String {
    let mut text = format!(
        "# The profile of {} {} for `wavetank run --driver`.\n#\n",
        facts.name, facts.version
    );
    text.push_str("# What it said of itself; it is asked again at each run:\n");
    for line in facts.lines() {
        text.push_str(&format!("#   {line}\n"));
    }
    for (key, value) in &facts.topology {
        text.push_str(&format!("#   {} is in {key}={value}\n", facts.node_id));
    }
    let yaml = serde_saphyr::to_string(profile).unwrap_or_else(|error| format!("# {error}\n"));
    text.push_str(&yaml);
    text.push_str(REST);
    text
}

/// What no driver says.
const REST: &str = "\
# More that no driver says of itself (docs/drivers.md):
#   nodes: 1               the most nodes that share its volumes
#   keepsState: false      its volumes do not survive the end of its process
#   block: false           it does no raw block volumes
#   parameters: {}         the parameters of StorageClasses for it
#   secrets: {}            what every call gets that may carry secrets
#   csiDriver: {}          the spec of its CSIDriver object
#   inventory: {command: [list-volumes]}
";
