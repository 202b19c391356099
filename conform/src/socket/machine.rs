//! This machine as kubelet and a pod use it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use async_trait::async_trait;

use crate::driver::{Kind, Machine, WriteError};

/// Where marks are in a raw device: past what a partition table or a file system's first superblock would take.
const MARK_AT: u64 = 1 << 20;
const BLOCK: usize = 4096;
const MAGIC: &str = "wavetank mark: ";
/// The file in a volume that holds the marks.
const MARKS: &str = "wavetank-marks";

/// Whether mounts and contents can be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// They can: the driver mounts in this mount namespace.
    Yes,
    /// The driver only remembers its mounts, or they are elsewhere.
    No,
    /// If this user may mount.
    Root,
}

/// This machine.
#[derive(Clone, Debug)]
pub struct ThisMachine {
    root: String,
    look: Look,
}

impl ThisMachine {
    /// This machine, with paths of volumes below `root`.
    pub fn new(root: impl Into<String>, look: Look) -> ThisMachine {
        ThisMachine {
            root: root.into(),
            look,
        }
    }
}

/// Runs what may block off the threads of the runtime.
async fn off<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn text(error: &io::Error) -> String {
    error.to_string()
}

#[async_trait]
impl Machine for ThisMachine {
    fn root(&self) -> &str {
        &self.root
    }

    fn sees_volumes(&self) -> Result<(), String> {
        match self.look {
            Look::Yes => Ok(()),
            Look::No => Err("mounts and contents cannot be seen from here".to_owned()),
            Look::Root if rustix::process::geteuid().is_root() => Ok(()),
            Look::Root => Err("this user may not mount, so no mounts are looked for".to_owned()),
        }
    }

    async fn make_dirs(&self, path: &str) -> Result<(), String> {
        fs::create_dir_all(path).map_err(|error| text(&error))
    }

    async fn remove(&self, path: &str) -> Result<(), String> {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(text(&error)),
            _ => Ok(()),
        }
    }

    async fn link(&self, to: &str, at: &str) -> Result<(), String> {
        std::os::unix::fs::symlink(to, at).map_err(|error| text(&error))
    }

    async fn kind(&self, path: &str) -> Result<Kind, String> {
        let kind = match fs::symlink_metadata(path) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kind::Missing),
            Err(error) => return Err(text(&error)),
        };
        Ok(if kind.is_dir() {
            Kind::Directory
        } else if kind.is_block_device() {
            Kind::Device
        } else if kind.is_file() {
            Kind::File
        } else {
            Kind::Other
        })
    }

    async fn mounts_below(&self, path: &str) -> Result<Vec<String>, String> {
        if self.sees_volumes().is_err() {
            return Ok(Vec::new());
        }
        let table = fs::read_to_string("/proc/self/mountinfo").map_err(|error| text(&error))?;
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
        Ok(targets.filter(|target| Path::new(target).starts_with(path)).collect())
    }

    async fn write(&self, _: &str, path: &str, mark: &str) -> Result<(), WriteError> {
        let (path, mark) = (path.to_owned(), mark.to_owned());
        let written = off(move || {
            if Path::new(&path).is_dir() {
                append(&path, &mark)
            } else {
                stamp(&path, &mark)
            }
        })
        .await;
        written.map_err(|error| match error.kind() {
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => WriteError::ReadOnly,
            _ => WriteError::Other(text(&error)),
        })
    }

    async fn read(&self, _: &str, path: &str) -> Result<Vec<String>, String> {
        let path = path.to_owned();
        let marks = off(move || {
            if Path::new(&path).is_dir() {
                lines(&path)
            } else {
                stamped(&path)
            }
        })
        .await;
        marks.map_err(|error| text(&error))
    }
}

/// The kernel writes blanks in paths as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

fn append(directory: &str, mark: &str) -> io::Result<()> {
    let path = Path::new(directory).join(MARKS);
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{mark}")?;
    file.sync_all()
}

fn lines(directory: &str) -> io::Result<Vec<String>> {
    match fs::read_to_string(Path::new(directory).join(MARKS)) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn stamp(device: &str, mark: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(device)?;
    let mut block = vec![0; BLOCK];
    let text = format!("{MAGIC}{mark}\n");
    block[..text.len()].copy_from_slice(text.as_bytes());
    file.seek(SeekFrom::Start(MARK_AT))?;
    file.write_all(&block)?;
    file.sync_all()
}

fn stamped(device: &str) -> io::Result<Vec<String>> {
    let mut file = File::open(device)?;
    let mut block = vec![0; BLOCK];
    file.seek(SeekFrom::Start(MARK_AT))?;
    file.read_exact(&mut block)?;
    let text = String::from_utf8_lossy(&block).into_owned();
    let mark = text.split('\n').next().and_then(|line| line.strip_prefix(MAGIC));
    Ok(mark.map(str::to_owned).into_iter().collect())
}
