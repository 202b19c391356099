//! What pods do with their volumes, for real: they write stamped blocks, read them back, sync.
//!
//! A stamp is one line of text at the head of a block of zeroes: `wavetank <number of the write> <block> <who>`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::Path;

use wavetank_driver::linux::look;

use super::files;
use crate::wire::{Answer, BLOCK, Block, Content, Why};

/// The containers of a node: names, which die with the agent.
#[derive(Default)]
pub struct Pods {
    pub running: BTreeSet<String>,
}

/// A write of consecutive blocks.
pub struct Write<'a> {
    pub path: &'a str,
    pub file: &'a str,
    pub first: u64,
    pub count: u64,
    pub sequence: u64,
    pub label: &'a str,
    pub sync: bool,
}

impl Pods {
    /// Does `act` as a pod that runs.
    pub fn act(&self, uid: &str, act: impl FnOnce() -> io::Result<Answer>) -> Answer {
        if self.running.contains(uid) {
            files::answered(act())
        } else {
            Answer::Refused(Why::NotRunning, format!("the pod {uid} does not run"))
        }
    }
}

pub fn write(write: &Write<'_>) -> io::Result<Answer> {
    let target = Path::new(write.path).join(write.file);
    let file = match open(write, &target) {
        Ok(file) => file,
        Err(error) => return Ok(Answer::Written(0, Some(files::why(&error)))),
    };
    let mut done = 0;
    while done < write.count {
        let part = PART.min(write.count - done);
        let bytes: Vec<u8> = (done..done + part)
            .flat_map(|n| stamp(write.sequence + n, write.first + n, write.label))
            .collect();
        let (written, stopped) = put(&file, &bytes, (write.first + done) * BLOCK);
        done += written / BLOCK;
        if let Some(error) = stopped {
            return Ok(Answer::Written(done, Some(files::why(&error))));
        }
    }
    if write.sync
        && let Err(error) = file.sync_all()
    {
        return Ok(Answer::Written(write.count, Some(files::why(&error))));
    }
    Ok(Answer::Written(write.count, None))
}

/// How many blocks are written with one call.
const PART: u64 = 64;

/// Writes what goes, and says how many bytes those were, and why no more.
fn put(file: &File, bytes: &[u8], at: u64) -> (u64, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], at + written as u64) {
            Ok(0) => return (written as u64, Some(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written as u64, Some(error)),
        }
    }
    (written as u64, None)
}

fn open(write: &Write<'_>, target: &Path) -> io::Result<File> {
    if write.file.is_empty() {
        return OpenOptions::new().write(true).open(write.path);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().write(true).create(true).truncate(false).open(target)
}

pub fn sync(path: &str) -> io::Result<Answer> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        rustix::fs::syncfs(&file)?;
    } else {
        file.sync_all()?;
    }
    Ok(Answer::Done)
}

pub fn read(path: &str) -> io::Result<Answer> {
    let root = Path::new(path);
    let mut blocks = Vec::new();
    if fs::metadata(root)?.file_type().is_block_device() {
        read_file(root, "", &mut blocks)?;
        return Ok(Answer::Blocks(Some("a block device".to_owned()), blocks));
    }
    read_below(root, "", &mut blocks)?;
    let mounted = files::is_mount_root(root, true)?.then(|| source(root));
    Ok(Answer::Blocks(mounted, blocks))
}

/// What the mount table says is at a path.
fn source(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let table = look::mounts().unwrap_or_default();
    let mut here = table.iter().filter(|entry| Path::new(entry.target.as_str()) == path);
    here.next_back().map_or_else(String::new, |entry| entry.fs.clone())
}

fn read_below(directory: &Path, below: &str, blocks: &mut Vec<Block>) -> io::Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "lost+found" {
            read_below(&entry.path(), &name, blocks)?;
        } else if kind.is_file() {
            read_file(&entry.path(), &name, blocks)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path, name: &str, blocks: &mut Vec<Block>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut block = 0;
    loop {
        let filled = fill(&mut file, &mut buffer)?;
        for bytes in buffer[..filled].chunks(BLOCK as usize) {
            if bytes != &ZEROES[..bytes.len()] {
                let content = content(bytes);
                if !blocks.last_mut().is_some_and(|last| last.takes(name, block, &content)) {
                    blocks.push(Block {
                        file: name.to_owned(),
                        block,
                        count: 1,
                        content,
                    });
                }
            }
            block += 1;
        }
        if filled < buffer.len() {
            return Ok(());
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn stamp(sequence: u64, block: u64, label: &str) -> Vec<u8> {
    let mut bytes = format!("wavetank {sequence} {block} {label}\n").into_bytes();
    bytes.resize(BLOCK as usize, 0);
    bytes
}

/// An empty block. Compared as a whole: byte by byte takes a slow machine too long.
static ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];

fn content(bytes: &[u8]) -> Content {
    let line = bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
    let stamp = line.filter(|end| bytes[*end..] == ZEROES[*end..bytes.len()]);
    if let Some(stamp) = stamp.and_then(|end| parse(&bytes[..end])) {
        return stamp;
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Content::Bytes(bytes[..end].to_vec())
}

fn parse(text: &[u8]) -> Option<Content> {
    let line = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let mut words = line.strip_prefix("wavetank ")?.splitn(3, ' ');
    let (sequence, block) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let label = words.next()?.to_owned();
    Some(Content::Stamp { sequence, block, label })
}

#[cfg(test)]
mod tests {
    use super::{Write, read, write};
    use crate::wire::{Answer, Block, Content};

    #[test]
    fn what_was_written_is_read_back_and_other_bytes_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().to_str().unwrap();
        let request = Write {
            path,
            file: "a/data",
            first: 1,
            count: 2,
            sequence: 7,
            label: "default/writer on n1",
            sync: true,
        };
        assert_eq!(write(&request).unwrap(), Answer::Written(2, None));
        std::fs::write(place.path().join("other"), b"hello\0\0").unwrap();
        let stamps = Block {
            file: "a/data".into(),
            block: 1,
            count: 2,
            content: Content::Stamp {
                sequence: 7,
                block: 1,
                label: "default/writer on n1".into(),
            },
        };
        let Content::Stamp { sequence, block, .. } = stamps.nth(1) else {
            panic!("a stamp")
        };
        assert_eq!((sequence, block), (8, 2));
        let other = Block {
            file: "other".into(),
            block: 0,
            count: 1,
            content: Content::Bytes(b"hello".to_vec()),
        };
        let found = read(path).unwrap();
        assert_eq!(
            found,
            Answer::Blocks(None, vec![stamps, other]),
            "nothing is mounted there"
        );
    }
}
