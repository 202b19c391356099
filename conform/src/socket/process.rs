//! One process of a driver: started from a command line with places, watched, killed at the end.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

use super::ReachError;

/// How long a process may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of a log that are shown.
const TAIL: usize = 16000;

/// A command line with places for what differs from process to process.
#[derive(Clone, Debug)]
pub struct Command {
    words: Vec<String>,
    place: Place,
}

/// Where the processes of a driver live.
#[derive(Clone, Debug)]
pub struct Place {
    /// Holds sockets, state and logs.
    pub directory: PathBuf,
    /// The directory below which staging and target paths will be, for `{root}`.
    pub root: PathBuf,
}

/// A command line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// There is nothing in it.
    #[error("the command is empty")]
    Empty,
    /// A quote without its partner.
    #[error("the command has a quote that does not end")]
    Quote,
    /// Nothing says where to serve.
    #[error("the command has no {{endpoint}}: the driver must be told where to serve")]
    NoEndpoint,
    /// Something in braces that means nothing.
    #[error("`{{{0}}}` means nothing here: there are {{endpoint}}, {{socket}}, {{state_dir}}, {{node}} and {{root}}")]
    Unknown(String),
}

/// The words that stand for something.
const PLACES: [&str; 5] = ["endpoint", "socket", "state_dir", "node", "root"];

impl Command {
    /// Reads a command line: words divided by blanks, with single and double quotes and backslashes as a shell has them, and nothing else of a shell.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn parse(line: &str, place: Place) -> Result<Command, Bad> {
        let words = split(line)?;
        if words.is_empty() {
            return Err(Bad::Empty);
        }
        for word in &words {
            for name in word
                .split('{')
                .skip(1)
                .filter_map(|rest| rest.split_once('}'))
                .map(|(name, _)| name)
            {
                if !PLACES.contains(&name) {
                    return Err(Bad::Unknown(name.to_owned()));
                }
            }
        }
        if !words
            .iter()
            .any(|word| word.contains("{endpoint}") || word.contains("{socket}"))
        {
            return Err(Bad::NoEndpoint);
        }
        Ok(Command { words, place })
    }
}

fn split(line: &str) -> Result<Vec<String>, Bad> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => word.get_or_insert_default().push(letters.next().ok_or(Bad::Quote)?),
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    if quote.is_some() { Err(Bad::Quote) } else { Ok(words) }
}

/// A process that runs, or did.
pub(super) struct Process {
    words: Vec<String>,
    line: String,
    address: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub fn start(command: &Command, nth: usize) -> Result<Process, ReachError> {
        let directory = &command.place.directory;
        let state = directory.join(format!("state-{}", nth + 1));
        for path in [directory, &state] {
            fs::create_dir_all(path).map_err(|source| ReachError::Directory {
                path: path.display().to_string(),
                source,
            })?;
        }
        let socket = directory.join(format!("csi-{}.sock", nth + 1)).display().to_string();
        let address = format!("unix://{socket}");
        let node = format!("node-{}", nth + 1);
        let root = command.place.root.display().to_string();
        let state = state.display().to_string();
        let fill = |word: &String| {
            word.replace("{endpoint}", &address)
                .replace("{socket}", &socket)
                .replace("{state_dir}", &state)
                .replace("{node}", &node)
                .replace("{root}", &root)
        };
        let words: Vec<String> = command.words.iter().map(fill).collect();
        let mut process = Process {
            line: words.join(" "),
            log: directory.join(format!("log-{}", nth + 1)),
            words,
            address,
            child: None,
        };
        process.again()?;
        Ok(process)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn command_line(&self) -> &str {
        &self.line
    }

    /// Starts it, once more.
    pub fn again(&mut self) -> Result<(), ReachError> {
        let failed = |source: io::Error| ReachError::Start {
            command: self.line.clone(),
            source,
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed)?;
        let stderr = log.try_clone().map_err(failed)?;
        let child = tokio::process::Command::new(&self.words[0])
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            // A group of its own, so that an interrupt from the keyboard does not reach it before us, and so that its children die with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        self.child = Some(child);
        Ok(())
    }

    /// Did it end by itself? Says how, and the last it said.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        let said = self.said();
        // A panic tells its reason first and its stack last.
        let reason = said
            .lines()
            .find(|line| line.starts_with("panic") || line.contains("panicked at"));
        let last = reason.or_else(|| said.lines().last()).unwrap_or_default();
        Some(if last.is_empty() {
            spell(status)
        } else {
            format!("{}; the last it said: {last}", spell(status))
        })
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..])
            .trim_end()
            .to_owned()
    }

    fn signal(&self, signal: Signal) {
        let id = self
            .child
            .as_ref()
            .and_then(Child::id)
            .and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            // A process that is gone needs no signal.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// SIGKILL, and nothing of it is left.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait().await;
        }
    }

    /// SIGTERM, and SIGKILL if that does not help.
    pub async fn end(&mut self) {
        self.signal(Signal::TERM);
        if let Some(child) = &mut self.child {
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
        }
        self.kill().await;
        let _ = fs::remove_file(Path::new(self.address.trim_start_matches("unix://")));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn spell(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Bad, Command, Place, split};

    fn parse(line: &str) -> Result<Command, Bad> {
        let place = Place {
            directory: "/d".into(),
            root: "/r".into(),
        };
        Command::parse(line, place)
    }

    #[test]
    fn a_command_line_is_divided_as_a_shell_does() {
        assert_eq!(
            split("a  'b c' \"d \\\" e\" f\\ g ''").unwrap(),
            ["a", "b c", "d \" e", "f g", ""]
        );
        assert_eq!(split("a 'b"), Err(Bad::Quote));
    }

    #[test]
    fn a_command_must_say_where_to_serve() {
        assert!(parse("driver --endpoint {endpoint} --state {state_dir}").is_ok());
        assert_eq!(parse("driver").unwrap_err(), Bad::NoEndpoint);
        assert_eq!(parse(" ").unwrap_err(), Bad::Empty);
        assert_eq!(
            parse("driver {endpoint} {nodes}").unwrap_err(),
            Bad::Unknown("nodes".to_owned())
        );
    }
}
