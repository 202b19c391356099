//! What the tank asks an agent, and what it answers: JSON behind its length, one question at a time.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes in a block that a pod writes.
pub const BLOCK: u64 = 4096;

/// The longest message: a whole volume of stamps fits.
const LONGEST: u32 = 1 << 30;

/// A question. Paths are those of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Begins the life of a node that is a machine of its own, before anything else is asked.
    Wake {
        /// What its chance starts from.
        seed: Vec<u8>,
        /// The time, in seconds since 1970.
        now: u64,
        /// The device of its disk.
        disk: String,
    },
    /// `mkdir -p`.
    MakeDirs(String),
    /// `rmdir`.
    RemoveDir(String),
    /// `rm`; a missing file is fine.
    RemoveFile(String),
    /// `rm -r`; stops at mount points.
    RemoveAll(String),
    /// Writes a whole file.
    WriteFile(String, Vec<u8>),
    /// Reads a whole file.
    ReadFile(String),
    /// What is at a path.
    Stat(String),
    /// The names in a directory, in order.
    ListDir(String),
    /// Everything below a directory, mounts included, in order of path.
    PathsBelow(String),
    /// The mount table below a directory: target and source, oldest first.
    Mounts(String),
    /// A symbolic link.
    Link {
        /// Where it points.
        to: String,
        /// Where it is.
        at: String,
    },
    /// The containers of a pod run from now on.
    StartPod(String),
    /// The containers of a pod have ended.
    StopPod(String),
    /// The pods whose containers run, by UID.
    RunningPods,
    /// A pod writes stamped blocks.
    Write {
        /// The pod's UID.
        uid: String,
        /// The volume's path on the node.
        path: String,
        /// The file in it; empty for a raw device.
        file: String,
        /// The first block.
        first: u64,
        /// How many.
        count: u64,
        /// The number of the first; the others follow.
        sequence: u64,
        /// What each block says of its writer: one line.
        label: String,
        /// Syncs afterwards.
        sync: bool,
    },
    /// A pod reads every block of a volume that is not empty.
    Read {
        /// The pod's UID.
        uid: String,
        /// The volume's path on the node.
        path: String,
    },
    /// A pod syncs a volume.
    Sync {
        /// The pod's UID.
        uid: String,
        /// The volume's path on the node.
        path: String,
    },
    /// How many bytes the file system behind a path offers in all.
    Room(String),
    /// Writes out everything that is in memory only: `sync`.
    WriteOut,
    /// The loop devices that show files below a directory.
    Loops(String),
    /// Starts a process; one of that name that runs is refused.
    Start {
        /// Its name.
        name: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// Variables beside those of the tank.
        env: BTreeMap<String, String>,
        /// Where it works.
        directory: String,
        /// The file that its output is appended to.
        log: String,
    },
    /// Kills a process and those of its group, and waits until it is gone.
    Kill(String),
    /// How a process is.
    Health(String),
    /// Runs a command to its end.
    Run {
        /// The program and its arguments.
        command: Vec<String>,
        /// Variables beside those of the tank.
        env: BTreeMap<String, String>,
        /// Where it works.
        directory: String,
    },
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// A directory or file that something is mounted on.
    MountPoint,
    /// A file.
    File,
    /// A block device.
    Device,
    /// A symbolic link.
    Link,
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A stamp.
    Stamp {
        /// The number of the write.
        sequence: u64,
        /// The block that it was written to.
        block: u64,
        /// Who wrote.
        label: String,
    },
    /// Other bytes, without the zeroes at the end.
    Bytes(Vec<u8>),
}

/// Blocks in a row that are not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The file, by its path in the volume; empty for a raw device.
    pub file: String,
    /// The first of them.
    pub block: u64,
    /// How many. Those behind the first hold stamps of the same writer, each with the next numbers.
    pub count: u64,
    /// What the first holds.
    pub content: Content,
}

impl Block {
    /// What the `nth` of them holds, counted from 0.
    pub fn nth(&self, nth: u64) -> Content {
        match &self.content {
            Content::Bytes(bytes) => Content::Bytes(bytes.clone()),
            Content::Stamp { sequence, block, label } => Content::Stamp {
                sequence: sequence + nth,
                block: block + nth,
                label: label.clone(),
            },
        }
    }

    /// Whether this one comes next: then there is one more.
    pub fn takes(&mut self, file: &str, at: u64, content: &Content) -> bool {
        let is_stamp = matches!(content, Content::Stamp { .. });
        let next = is_stamp && self.file == file && self.block + self.count == at && self.nth(self.count) == *content;
        self.count += u64::from(next);
        next
    }
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It is not there.
    Missing,
    /// It is in use, or not empty.
    Busy,
    /// It is there already, as something else.
    Exists,
    /// No space left.
    NoSpace,
    /// It takes no writes.
    ReadOnly,
    /// Anything else.
    Io,
    /// The pod's containers do not run.
    NotRunning,
}

/// How a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its number; nothing if it is not there.
    pub pid: Option<i32>,
    /// How it ended, as a sentence's end (`with status 1`).
    pub ended: Option<String>,
    /// Memory, in KiB.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// To `Stat`.
    Path(Kind),
    /// To `PathsBelow`.
    Paths(Vec<(String, Kind)>),
    /// To `ReadFile`.
    Bytes(Vec<u8>),
    /// To `ListDir` and `RunningPods`.
    Names(Vec<String>),
    /// To `Mounts` and `Loops`: pairs.
    Pairs(Vec<(String, String)>),
    /// To `Write`: how many blocks were written, and why no more.
    Written(u64, Option<Why>),
    /// To `Read`: what is mounted there, and the blocks.
    Blocks(Option<String>, Vec<Block>),
    /// To `Room`.
    Room(u64),
    /// To `Health`.
    Health(Health),
    /// To `Run`: its status (none if a signal ended it) and what it said.
    Output(Option<i32>, String),
    /// It was refused.
    Refused(Why, String),
}

/// Sends a message.
///
/// # Errors
/// If the other side is gone, or the message is longer than a whole volume.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length < LONGEST);
    let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

/// Receives a message; nothing when the other side has closed.
///
/// # Errors
/// If the connection breaks in the middle, or what comes is no message.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match from.read(&mut length[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes(length);
    if length >= LONGEST {
        return Err(io::Error::other("a message is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::{Answer, Ask, receive, send};

    #[test]
    fn messages_travel_whole_and_an_end_is_an_end() {
        let mut wire = Vec::new();
        send(&mut wire, &Ask::Stat("/x".into())).unwrap();
        send(&mut wire, &Answer::Names(vec!["a".into()])).unwrap();
        let mut read = wire.as_slice();
        assert_eq!(receive::<Ask>(&mut read).unwrap(), Some(Ask::Stat("/x".into())));
        assert_eq!(receive(&mut read).unwrap(), Some(Answer::Names(vec!["a".into()])));
        assert_eq!(receive::<Ask>(&mut read).unwrap(), None);
        assert!(receive::<Ask>(&mut &wire[..6]).is_err(), "cut off");
    }
}
