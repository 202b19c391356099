//! `wavetank conform`: the obligations of the CSI specification against any driver behind a socket.
//!
//! The checks are the crate `wavetank-conform`'s; here are the command line, the processes' home, and what is printed. This command alone lives in real
//! time, on tokio's runtime.

mod args;
mod junit;
mod print;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use wavetank_conform::socket::{Command, How, Look, Place, SocketDriver, ThisMachine};
use wavetank_conform::{Check, Report, Settings, Verdict, all, run};

use super::{INTERRUPTED, Stop, Streams, USAGE, width};
use crate::scenario::nearest;
pub(super) use args::ConformArgs;
use args::Mounts;
use print::Printer;

/// Exit status: a MUST of the specification is not kept.
const BROKEN: u8 = 2;
/// Exit status: the driver could not be judged.
const NOT_JUDGED: u8 = 5;

/// A sentence for the user that ends the command.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{what}")]
struct Complaint {
    what: String,
    #[help]
    help: Option<String>,
    status: u8,
}

impl Complaint {
    fn usage(what: impl Into<String>, help: Option<String>) -> Complaint {
        Complaint {
            what: what.into(),
            help,
            status: USAGE,
        }
    }
}

/// An error and its causes, on one line.
fn spell(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {}", spell(cause)))
}

/// Runs the command.
pub(super) fn conform(args: &ConformArgs, streams: &mut Streams) -> Result<u8, Stop> {
    match perform(args, streams) {
        Ok(done) => done,
        Err(complaint) => {
            let status = complaint.status;
            let theme = if streams.colour {
                miette::GraphicalTheme::unicode()
            } else {
                miette::GraphicalTheme::unicode_nocolor()
            };
            let mut text = String::new();
            let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(width());
            if handler.render_report(&mut text, &complaint).is_err() {
                text.clone_from(&complaint.what);
            }
            writeln!(streams.err, "{}", text.trim_end())?;
            Ok(status)
        }
    }
}

fn perform(args: &ConformArgs, streams: &mut Streams) -> Result<Result<u8, Stop>, Complaint> {
    let checks = chosen(args)?;
    if args.list {
        return Ok(print::list(args.format, &checks, &mut streams.out)
            .map(|()| 0)
            .map_err(Stop::from));
    }
    let settings = settings(args)?;
    let home = Home::new(args)?;
    if args.driver.is_some() {
        home.has_mounts_of_its_own();
    }
    let how = how(args, &home)?;
    let look = match args.mounts {
        Mounts::Auto => Look::Root,
        Mounts::Look => Look::Yes,
        Mounts::Ignore => Look::No,
    };
    let machine = ThisMachine::new(home.root.display().to_string(), look);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Complaint {
        what: format!("no threads can be had: {error}"),
        help: None,
        status: super::BUG,
    })?;
    let mut interrupted = interrupts();
    let mut printer = Printer::new(args, &checks);
    let done = runtime.block_on(async {
        let reached = match select(Box::pin(SocketDriver::reach(&how, machine)), interrupted.next()).await {
            Either::Left((reached, _)) => reached,
            Either::Right(_) => return Ok(Ended::Interrupted),
        };
        let driver = Arc::new(reached.map_err(|error| unreachable(&error, args))?);
        let mut failed = Ok(());
        let ended = {
            let out = &mut streams.out;
            let mut told = |finding: &wavetank_conform::Finding| {
                if failed.is_ok() {
                    failed = printer.finding(out, finding).and_then(|()| out.flush());
                }
            };
            let running = run(driver.clone(), settings, &checks, &mut told).boxed();
            match select(running, interrupted.next()).await {
                Either::Left((Ok(report), _)) => Ok(Ended::Report(report)),
                Either::Left((Err(error), _)) => Err(Complaint {
                    what: error.to_string(),
                    help: last_words(&driver).await,
                    status: NOT_JUDGED,
                }),
                Either::Right(_) => Ok(Ended::Interrupted),
            }
        };
        driver.end().await;
        match failed {
            Ok(()) => ended,
            Err(error) => Ok(Ended::Output(error)),
        }
    })?;
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(finish(args, done, &printer, streams))
}

/// How the run ended.
enum Ended {
    Report(Report),
    Interrupted,
    Output(std::io::Error),
}

fn finish(args: &ConformArgs, done: Ended, printer: &Printer, streams: &mut Streams) -> Result<u8, Stop> {
    let report = match done {
        Ended::Report(report) => report,
        Ended::Interrupted => {
            printer.interrupted(&mut streams.out)?;
            return Ok(INTERRUPTED);
        }
        Ended::Output(error) => return Err(Stop::Output(error)),
    };
    printer.summary(&mut streams.out, &report)?;
    if let Some(path) = &args.junit
        && let Err(error) = std::fs::write(path, junit::render(&report))
    {
        writeln!(streams.err, "wavetank: cannot write {}: {error}", path.display())?;
        return Err(Stop::Status(74));
    }
    let any = |wanted: fn(&Verdict) -> bool| report.findings.iter().any(|one| wanted(&one.verdict));
    Ok(if any(|verdict| matches!(verdict, Verdict::Broken(_))) {
        BROKEN
    } else if any(|verdict| matches!(verdict, Verdict::NotJudged(_))) {
        NOT_JUDGED
    } else {
        0
    })
}

async fn last_words(driver: &SocketDriver) -> Option<String> {
    let said = driver.said(0).await.filter(|said| !said.is_empty())?;
    Some(format!("the last it said: {}", said.lines().last().unwrap_or_default()))
}

fn unreachable(error: &wavetank_conform::socket::ReachError, args: &ConformArgs) -> Complaint {
    use wavetank_conform::socket::ReachError;
    let help = match error {
        ReachError::Address(_) => return Complaint::usage(error.to_string(), None),
        ReachError::Start { .. } => Some("is the program there, and on the PATH?".to_owned()),
        ReachError::Silent { .. } if args.driver.is_some() => {
            Some("does the command use {endpoint} or {socket}?".to_owned())
        }
        ReachError::Silent { .. } => Some("is the driver running, and may this user open its socket?".to_owned()),
        ReachError::Directory { .. } | ReachError::Ended { .. } => None,
    };
    Complaint {
        what: spell(error),
        help,
        status: NOT_JUDGED,
    }
}

/// The checks that are asked for, in order.
fn chosen(args: &ConformArgs) -> Result<Vec<&'static Check>, Complaint> {
    let all = all();
    let begins = |check: &Check, name: &String| {
        check.name == *name
            || check
                .name
                .strip_prefix(name.trim_end_matches('/'))
                .is_some_and(|rest| rest.starts_with('/'))
    };
    for name in args.only.iter().chain(&args.skip) {
        if !all.iter().any(|check| begins(check, name)) {
            let groups = all.iter().filter_map(|check| check.name.split('/').next());
            let near = nearest(name, all.iter().map(|check| check.name).chain(groups));
            let help = near.map_or("`wavetank conform --list` names them".to_owned(), |near| {
                format!("did you mean `{near}`?")
            });
            return Err(Complaint::usage(format!("there is no check `{name}`"), Some(help)));
        }
    }
    let wanted = |check: &&Check| {
        (args.only.is_empty() || args.only.iter().any(|name| begins(check, name)))
            && !args.skip.iter().any(|name| begins(check, name))
    };
    Ok(all.into_iter().filter(|check| wanted(&&**check)).collect())
}

fn settings(args: &ConformArgs) -> Result<Settings, Complaint> {
    let map = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<BTreeMap<_, _>>();
    let size = args.size.0;
    let grown = args.grown_size.map_or(size.saturating_mul(2), |grown| grown.0);
    if size == 0 || grown <= size || grown > i64::MAX as u64 {
        return Err(Complaint::usage(
            "--size must be above 0, and --grown-size above --size",
            None,
        ));
    }
    let mut secrets_of = BTreeMap::new();
    if let Some(path) = &args.secrets_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Complaint::usage(format!("cannot read {}: {error}", path.display()), None))?;
        // The parser's own text could quote a secret.
        let read: Result<BTreeMap<String, BTreeMap<String, String>>, _> = serde_saphyr::from_str(&text);
        secrets_of = read.map_err(|_| {
            let what = format!("{} does not hold secrets", path.display());
            Complaint::usage(
                what,
                Some("write a method and its secrets, all as text: `CreateVolume: {key: value}`".to_owned()),
            )
        })?;
        let methods = crate::link::METHODS
            .iter()
            .map(|(_, method)| *method)
            .chain(["GetMetadataAllocated", "GetMetadataDelta"]);
        let methods: Vec<&str> = methods.collect();
        if let Some(stranger) = secrets_of.keys().find(|method| !methods.contains(&method.as_str())) {
            let help = nearest(stranger, methods.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            return Err(Complaint::usage(
                format!("{} names a method `{stranger}` that CSI does not have", path.display()),
                help,
            ));
        }
    }
    Ok(Settings {
        run: format!("wt-{}", std::process::id()),
        parameters: map(&args.parameters),
        snapshot_parameters: map(&args.snapshot_parameters),
        mutable_parameters: map(&args.mutable_parameters),
        secrets: map(&args.secrets),
        secrets_of,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        grown: i64::try_from(grown).unwrap_or(i64::MAX),
        fs_type: args.fs_type.clone(),
        mount_flags: args.mount_flags.clone(),
        ephemeral: args.ephemeral.then(|| map(&args.ephemeral_attributes)),
        call_limit: Duration::from_secs(args.call_timeout),
        check_limit: Duration::from_secs(args.check_timeout),
    })
}

/// The directory of a run: sockets, state and logs of what is started here, and paths of volumes.
struct Home {
    directory: PathBuf,
    root: PathBuf,
    /// Whether nobody else sees its mounts.
    alone: std::cell::Cell<bool>,
}

impl Home {
    fn new(args: &ConformArgs) -> Result<Home, Complaint> {
        let make = |path: &Path| {
            std::fs::create_dir_all(path)
                .map_err(|error| Complaint::usage(format!("cannot make {}: {error}", path.display()), None))
        };
        let directory = std::env::temp_dir().join(format!("wavetank-conform-{}", std::process::id()));
        make(&directory)?;
        // Drivers compare paths with the mount table, which knows no links.
        let directory = directory.canonicalize().unwrap_or(directory);
        let root = args.root.clone().unwrap_or_else(|| directory.join("kubelet"));
        make(&root)?;
        Ok(Home {
            root: root.canonicalize().unwrap_or(root),
            directory,
            alone: std::cell::Cell::new(false),
        })
    }
}

impl Home {
    /// What the driver mounts from here on is seen by nobody else and goes with this process, however that ends. Before any thread is started: each has the
    /// mounts of the one that started it. Whoever may not have that may not mount either.
    fn has_mounts_of_its_own(&self) {
        self.alone.set(wavetank_agent::space::own_mounts().is_ok());
    }
}

impl Drop for Home {
    /// Removes what is ours. A mount that a driver left is taken away where nobody else sees it, and not entered elsewhere.
    fn drop(&mut self) {
        if self.alone.get() {
            // What stays mounted goes with this process.
            let kubelet = self.directory.join("kubelet");
            let _ = wavetank_agent::space::forget_mounts(&kubelet).and_then(|()| std::fs::remove_dir_all(&kubelet));
        }
        for name in ["kubelet/plugins", "kubelet/pods", "kubelet"] {
            let _ = std::fs::remove_dir(self.directory.join(name));
        }
        if !self.directory.join("kubelet").exists() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn how(args: &ConformArgs, home: &Home) -> Result<How, Complaint> {
    if let Some(line) = &args.driver {
        let place = Place {
            directory: home.directory.clone(),
            root: home.root.clone(),
        };
        let command = Command::parse(line, place).map_err(|bad| Complaint::usage(bad.to_string(), None))?;
        return Ok(How::Started {
            command,
            nodes: usize::from(args.nodes),
            keeps_state: !args.forgets,
        });
    }
    if let Some(endpoint) = &args.endpoint {
        return Ok(How::Running {
            controller: endpoint.clone(),
            nodes: vec![endpoint.clone()],
        });
    }
    match (&args.controller_endpoint, args.node_endpoint.first()) {
        (Some(controller), Some(_)) => Ok(How::Running {
            controller: controller.clone(),
            nodes: args.node_endpoint.clone(),
        }),
        // A driver without a controller: its node answers for it.
        (None, Some(node)) => Ok(How::Running {
            controller: node.clone(),
            nodes: args.node_endpoint.clone(),
        }),
        (_, None) => Err(Complaint::usage(
            "no driver is named",
            Some("give --driver COMMAND, --endpoint ADDRESS, or --controller-endpoint and --node-endpoint".to_owned()),
        )),
    }
}

/// Ctrl-C as a stream. Where no handler can be set, the usual one ends the program, and the processes with it.
fn interrupts() -> mpsc::UnboundedReceiver<()> {
    let (send, receive) = mpsc::unbounded();
    let keep = send.clone();
    let handled = ctrlc::set_handler(move || {
        let _ = send.unbounded_send(());
    });
    if handled.is_err() {
        // The stream must not end.
        std::mem::forget(keep);
    }
    receive
}
