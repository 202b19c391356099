//! The agent at work: one question at a time, until the tank closes the connection.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::files::{self, answered, done};
use crate::guest;
use crate::pods::{self, Pods};
use crate::processes::{Processes, Start};
use crate::wire::{Answer, Ask, receive, send};

/// Serves the socket that is standard input. When it is closed, everything that was started here is killed.
///
/// # Errors
/// If the connection breaks in the middle of a message.
pub fn serve_input(prefix: &[&str]) -> io::Result<u8> {
    serve(&mut UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?), prefix)
}

/// Serves the tank at the other end. When it goes, everything that was started here is killed.
///
/// # Errors
/// If the connection breaks in the middle of a message.
pub fn serve(tank: &mut (impl Read + Write), prefix: &[&str]) -> io::Result<u8> {
    let mut node = Node {
        prefix,
        pods: Pods::default(),
        processes: Processes::default(),
    };
    let served = loop {
        match receive::<Ask>(tank) {
            Ok(Some(ask)) => {
                let answer = node.answer(&ask);
                if let Err(error) = send(tank, &answer) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(0),
            Err(error) => break Err(error),
        }
    };
    node.processes.kill_all();
    served
}

struct Node<'a> {
    prefix: &'a [&'a str],
    pods: Pods,
    processes: Processes,
}

impl Node<'_> {
    fn answer(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::MakeDirs(path) => done(fs::create_dir_all(path)),
            Ask::RemoveDir(path) => done(fs::remove_dir(path)),
            Ask::RemoveFile(path) => done(files::remove_file(path)),
            Ask::RemoveAll(path) => done(files::remove_all(Path::new(path))),
            Ask::WriteFile(path, bytes) => done(fs::write(path, bytes)),
            Ask::ReadFile(path) => answered(fs::read(path).map(Answer::Bytes)),
            Ask::Stat(path) => answered(files::kind(Path::new(path)).map(Answer::Path)),
            Ask::ListDir(path) => answered(files::names(path).map(Answer::Names)),
            Ask::PathsBelow(path) => {
                let mut found = Vec::new();
                files::below(path, &mut found);
                Answer::Paths(found)
            }
            Ask::Mounts(path) => answered(files::mounts(path).map(Answer::Pairs)),
            Ask::Link { to, at } => done(files::link(to, at)),
            Ask::Room(path) => answered(files::room(path).map(Answer::Room)),
            Ask::WriteOut => {
                rustix::fs::sync();
                Answer::Done
            }
            Ask::Loops(path) => answered(files::loops(path).map(Answer::Pairs)),
            other => self.alive(other),
        }
    }

    /// What concerns pods and processes.
    fn alive(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::StartPod(uid) => {
                self.pods.running.insert(uid.clone());
                Answer::Done
            }
            Ask::StopPod(uid) => {
                self.pods.running.remove(uid);
                Answer::Done
            }
            Ask::RunningPods => Answer::Names(self.pods.running.iter().cloned().collect()),
            Ask::Write {
                uid,
                path,
                file,
                first,
                count,
                sequence,
                label,
                sync,
            } => self.pods.act(uid, || {
                pods::write(&pods::Write {
                    path,
                    file,
                    first: *first,
                    count: *count,
                    sequence: *sequence,
                    label,
                    sync: *sync,
                })
            }),
            Ask::Read { uid, path } => self.pods.act(uid, || pods::read(path)),
            Ask::Sync { uid, path } => self.pods.act(uid, || pods::sync(path)),
            Ask::Start {
                name,
                command,
                env,
                directory,
                log,
            } => {
                let start = Start {
                    name,
                    command,
                    env,
                    directory,
                    log,
                };
                self.processes.start(&start, self.prefix)
            }
            Ask::Kill(name) => {
                self.processes.kill(name);
                Answer::Done
            }
            Ask::Wake { seed, now, disk } => done(guest::wake(seed, Duration::from_secs(*now), disk)),
            Ask::Health(name) => Answer::Health(self.processes.health(name)),
            Ask::Run {
                command,
                env,
                directory,
            } => answered(run(command, env, directory)),
            _ => unreachable!("files are asked for elsewhere"),
        }
    }
}

fn run(command: &[String], env: &std::collections::BTreeMap<String, String>, directory: &str) -> io::Result<Answer> {
    let (program, rest) = command
        .split_first()
        .ok_or_else(|| io::Error::other("nothing to run"))?;
    let mut command = Command::new(program);
    command.args(rest).envs(env).current_dir(directory).stdin(Stdio::null());
    let output = command.output()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    Ok(Answer::Output(output.status.code(), text))
}
