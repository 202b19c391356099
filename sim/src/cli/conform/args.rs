//! What `wavetank conform` is told.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use wavetank_driver::Bytes;

use super::super::args::Format;

/// Check a CSI driver against the specification: whichever it is, behind its socket.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  wavetank conform --driver 'wavetank-driver --backend memory --endpoint {endpoint} --node-id {node} --root {root}' --forgets
  sudo wavetank conform --driver 'my-driver --csi {endpoint} --data {state_dir} --node {node}' --parameter tier=fast
  sudo wavetank conform --endpoint unix:///run/csi.sock --root /var/lib/kubelet --only lifecycle --only contents
  wavetank conform --list

The driver gets volumes of its own, whose names begin with `wt-`, and keeps none of them. In the command line of --driver, {endpoint} is \
unix:///…, {socket} the same as a path, {state_dir} a directory that outlives the process, {node} a node's name, {root} the directory of --root.

Exit status: 0 every MUST is kept; 2 one is not; 5 not judged: the driver could not be reached, hung or went away; 64 usage; 130 interrupted.")]
pub(in crate::cli) struct ConformArgs {
    /// Start the driver with this command line, once for each node. It is killed at the end.
    #[arg(long, value_name = "COMMAND", group = "reach")]
    pub driver: Option<String>,
    /// A driver that runs already, all services on one socket: `unix:///path/to.sock`.
    #[arg(long, value_name = "ADDRESS", group = "reach")]
    pub endpoint: Option<String>,
    /// The controller's socket of a driver that runs already.
    #[arg(long, value_name = "ADDRESS", group = "reach", requires = "node_endpoint")]
    pub controller_endpoint: Option<String>,
    /// A node's socket of a driver that runs already. The second one is of a second node on this machine.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["driver", "endpoint"])]
    pub node_endpoint: Vec<String>,
    /// How many nodes to start, for checks that need a second one. The first is the controller as well.
    #[arg(long, value_name = "N", default_value = "1", requires = "driver", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub nodes: u8,
    /// The driver keeps nothing when it is restarted: no check restarts it.
    #[arg(long, requires = "driver")]
    pub forgets: bool,
    /// The directory below which staging and target paths are made. Default: a new one below the system's directory for temporary files.
    #[arg(long, value_name = "DIRECTORY")]
    pub root: Option<PathBuf>,
    /// Whether mounts and contents of volumes can be seen from here.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub mounts: Mounts,

    /// A parameter of the StorageClass. Can be given several times, as can each that takes KEY=VALUE.
    #[arg(long = "parameter", short = 'p', value_name = "KEY=VALUE", value_parser = pair)]
    pub parameters: Vec<(String, String)>,
    /// A parameter of the VolumeSnapshotClass.
    #[arg(long = "snapshot-parameter", value_name = "KEY=VALUE", value_parser = pair)]
    pub snapshot_parameters: Vec<(String, String)>,
    /// A mutable parameter that the driver takes (VolumeAttributesClass).
    #[arg(long = "mutable-parameter", value_name = "KEY=VALUE", value_parser = pair)]
    pub mutable_parameters: Vec<(String, String)>,
    /// A secret for every call that has a place for one. Others on this machine can read it: prefer --secrets.
    #[arg(long = "secret", value_name = "KEY=VALUE", value_parser = pair)]
    pub secrets: Vec<(String, String)>,
    /// A YAML file with secrets by method: `CreateVolume: {key: value}`.
    #[arg(long = "secrets", value_name = "FILE")]
    pub secrets_file: Option<PathBuf>,
    /// The size of volumes.
    #[arg(long, value_name = "SIZE", default_value = "64Mi")]
    pub size: Bytes,
    /// The size they grow to. Default: twice --size.
    #[arg(long, value_name = "SIZE")]
    pub grown_size: Option<Bytes>,
    /// The file system to ask for. Default: the driver's choice.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    pub fs_type: String,
    /// A mount flag.
    #[arg(long = "mount-flag", value_name = "FLAG")]
    pub mount_flags: Vec<String>,
    /// The driver serves inline ephemeral volumes.
    #[arg(long)]
    pub ephemeral: bool,
    /// An attribute of an inline ephemeral volume.
    #[arg(long = "ephemeral-attribute", value_name = "KEY=VALUE", value_parser = pair, requires = "ephemeral")]
    pub ephemeral_attributes: Vec<(String, String)>,

    /// Run only checks whose name begins so, e.g. `create` or `create/needs-name`.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Leave out checks whose name begins so.
    #[arg(long, value_name = "NAME")]
    pub skip: Vec<String>,
    /// Seconds that one call may take.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub call_timeout: u64,
    /// Seconds that one check may take.
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub check_timeout: u64,

    /// List the checks with their sources, and run none.
    #[arg(long, conflicts_with_all = ["reach", "junit"])]
    pub list: bool,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Also write a JUnit report.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Also show the calls of checks that held.
    #[arg(long, short)]
    pub verbose: bool,
    /// Print only what is not as it should be, and the summary.
    #[arg(long, short, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// Whether mounts and contents of volumes can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Mounts {
    /// Look if this user may mount.
    Auto,
    /// Look.
    Look,
    /// Do not look: the driver mounts in another mount namespace, or only pretends.
    Ignore,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
