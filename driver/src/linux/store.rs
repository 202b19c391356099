//! The directory of images: what is in it, where each file lies, and how a change of it becomes durable.
//!
//! ```text
//! <root>/lock                        held by the one process that works here
//! <root>/volumes/<name>.img          the bytes of a volume
//! <root>/volumes/<name>.json         what the pool knows of it: the volume exists if both are there
//! <root>/volumes/<name>.formatting   a file system is being made in it
//! <root>/snapshots/<name>.img, .json
//! ```
//!
//! A file is written beside its place, made durable, and renamed. What a crash leaves of that is swept at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::disks::Reach;
use super::{fs as file_systems, ioctl, layer, loops, paths};
use crate::host::LAYER_HEADER;
use crate::pool::{PoolVolume, Provisioning, Source};
use crate::units::{Access, Bytes, NodeId, Segments, SnapshotId, VolumeId};

/// What a store is told about itself.
#[derive(Clone, Debug)]
pub struct StoreShape {
    /// The directory; made if it is not there.
    pub root: PathBuf,
    /// The node on whose machine it lies: only there can its volumes be reached, unless it is an array.
    pub node: NodeId,
    /// Where that is.
    pub segments: Segments,
    /// Bytes that all volumes together may be promised; `None`: what the directory's file system has altogether.
    pub limit: Option<Bytes>,
    /// The storage types it offers, each with a limit of its own.
    pub kinds: BTreeMap<String, Option<Bytes>>,
    /// How its volumes reach machines.
    pub reach: Reach,
}

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("{doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process works there.
    #[error("another process works in {0}")]
    Locked(PathBuf),
    /// A file beside an image is damaged.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// A volume, as its JSON file tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct VolumeFile {
    pub(super) id: VolumeId,
    pub(super) size: Bytes,
    /// The size it was made with.
    pub(super) made: Bytes,
    pub(super) kind: String,
    pub(super) provisioning: Provisioning,
    pub(super) source: Option<Source>,
    /// Room for the header of an encryption layer lies in front.
    #[serde(default)]
    pub(super) encrypted: bool,
    pub(super) exports: BTreeMap<NodeId, Access>,
    pub(super) settings: BTreeMap<String, String>,
}

/// A snapshot, as its JSON file tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotFile {
    pub(super) id: SnapshotId,
    pub(super) volume: VolumeId,
    pub(super) size: Bytes,
    pub(super) cut_at: Duration,
    #[serde(default)]
    pub(super) encrypted: bool,
}

impl VolumeFile {
    /// The length of the image.
    pub(super) fn len(&self) -> Bytes {
        len(self.size, self.encrypted)
    }
}

/// The length of an image that shows so many bytes.
pub(super) fn len(size: Bytes, encrypted: bool) -> Bytes {
    Bytes(size.0 + if encrypted { LAYER_HEADER.0 } else { 0 })
}

/// What is in the directory.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) volumes: BTreeMap<VolumeId, VolumeFile>,
    pub(super) snapshots: BTreeMap<SnapshotId, SnapshotFile>,
    /// Room taken by volumes that are being made, by handle.
    pub(super) making: BTreeMap<VolumeId, (String, Bytes)>,
    /// Volumes and snapshots at which an operation is at work.
    pub(super) busy: BTreeSet<String>,
}

/// The directory of images.
#[derive(Debug)]
pub struct Store {
    pub(super) shape: StoreShape,
    volumes: PathBuf,
    snapshots: PathBuf,
    index: Mutex<Index>,
    /// Held as long as the store is.
    _lock: File,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

impl Store {
    /// Opens a store, sweeps what a crash left, and lets go of what it left frozen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(mut shape: StoreShape) -> Result<Self, StoreError> {
        let (volumes, snapshots) = (shape.root.join("volumes"), shape.root.join("snapshots"));
        for directory in [&volumes, &snapshots] {
            fs::create_dir_all(directory).map_err(failed("making", directory))?;
        }
        shape.root = shape.root.canonicalize().map_err(failed("finding", &shape.root))?;
        let at = shape.root.join("lock");
        let lock = File::create(&at).map_err(failed("making", &at))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::Locked(shape.root.clone()))?;
        let (volumes, snapshots) = (shape.root.join("volumes"), shape.root.join("snapshots"));
        let index = Index {
            volumes: sweep(&volumes, |file: &VolumeFile| file.id.clone())?,
            snapshots: sweep(&snapshots, |file: &SnapshotFile| file.id.clone())?,
            ..Index::default()
        };
        let store = Self {
            shape,
            volumes,
            snapshots,
            index: Mutex::new(index),
            _lock: lock,
        };
        store.thaw_all();
        Ok(store)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image of a volume.
    pub(super) fn volume_image(&self, id: &VolumeId) -> PathBuf {
        self.volumes.join(format!("{}.img", file_name(id.as_str())))
    }

    /// The image of a snapshot.
    pub(super) fn snapshot_image(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots.join(format!("{}.img", file_name(id.as_str())))
    }

    /// Writes what the pool knows of a volume; durable together with the image beside it.
    pub(super) fn put_volume(&self, file: &VolumeFile) -> io::Result<()> {
        put(&self.volume_image(&file.id), file)
    }

    /// Writes what the pool knows of a snapshot; durable together with the image beside it.
    pub(super) fn put_snapshot(&self, file: &SnapshotFile) -> io::Result<()> {
        put(&self.snapshot_image(&file.id), file)
    }

    /// The volume's image and what may be done with it, if it is exported to this store's own node.
    pub(super) fn exported(&self, id: &VolumeId) -> Option<(PathBuf, Access)> {
        let index = self.index();
        let export = *index.volumes.get(id)?.exports.get(&self.shape.node)?;
        Some((self.volume_image(id), export))
    }

    /// As the pool shows it.
    pub(super) fn shown(&self, file: &VolumeFile) -> PoolVolume {
        let len = fs::metadata(self.volume_image(&file.id)).map(|found| found.len());
        let trouble = match len {
            Err(error) => format!("the image cannot be found: {error}"),
            Ok(len) if len < file.len().0 => format!("the image has {len} bytes of {}", file.len().0),
            Ok(_) => String::new(),
        };
        PoolVolume {
            id: file.id.clone(),
            size: file.size,
            segments: self.shape.segments.clone(),
            source: file.source.clone(),
            encrypted: file.encrypted,
            exports: file.exports.clone(),
            trouble,
        }
    }

    /// A cut that a crash interrupted may have left file systems frozen.
    fn thaw_all(&self) {
        let images: Vec<PathBuf> = self.index().volumes.keys().map(|id| self.volume_image(id)).collect();
        let Ok(table) = file_systems::table() else { return };
        for image in images {
            let Ok(Some(found)) = loops::find(&image) else { continue };
            let device = match layer::above(&found.device) {
                Ok(Some(layer)) => layer.device,
                _ => found.device,
            };
            let on = table.iter().find(|entry| is_mount_of(entry, &device));
            let directory = on.map(|entry| paths::open(&entry.target, rustix::fs::OFlags::RDONLY));
            if let Some(Ok(directory)) = directory {
                // An error says that it is not frozen.
                let _ = ioctl::thaw(&directory);
            }
        }
    }
}

/// Does this entry show the file system on a device?
pub(super) fn is_mount_of(entry: &crate::host::MountEntry, device: &crate::units::DevicePath) -> bool {
    matches!(&entry.source, crate::host::MountSource::FileSystem(on) if on == device)
}

/// A handle as a file name: itself if it is plain, else a digest of it.
fn file_name(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !id.starts_with('.') && id.len() <= 128 && id.chars().all(plain) {
        return id.to_owned();
    }
    format!("%{}", blake3::hash(id.as_bytes()).to_hex())
}

/// What stands beside an image.
pub(super) fn beside(image: &Path, extension: &str) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn put<F: Serialize>(image: &Path, file: &F) -> io::Result<()> {
    let text = serde_json::to_vec(file).map_err(io::Error::other)?;
    let place = beside(image, "json");
    let draft = beside(image, "json-draft");
    let mut open = File::create(&draft)?;
    open.write_all(&text)?;
    open.sync_data()?;
    fs::rename(&draft, &place)?;
    sync_directory(image)
}

/// Makes names in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Removes an image and what stands beside it, durably. Not there: nothing to do.
pub(super) fn remove(image: &Path) -> io::Result<()> {
    for path in [beside(image, "json"), image.to_owned(), beside(image, "formatting")] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(image)
}

/// Reads every file of a directory, and removes what a crash left there: drafts, images without a file beside them, and
/// files without an image.
fn sweep<K: Ord, F: DeserializeOwned>(directory: &Path, key: impl Fn(&F) -> K) -> Result<BTreeMap<K, F>, StoreError> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(failed("reading", directory))? {
        let entry = entry.map_err(failed("reading", directory))?;
        names.extend(entry.file_name().to_str().map(str::to_owned));
    }
    let mut found = BTreeMap::new();
    for name in &names {
        let path = directory.join(name);
        if let Some(image) = name.strip_suffix(".json").filter(|image| names.contains(*image)) {
            debug_assert!(image.ends_with(".img"), "nothing else is written here");
            let text = fs::read(&path).map_err(failed("reading", &path))?;
            let file = serde_json::from_slice(&text).map_err(|source| StoreError::Damaged { path, source })?;
            found.insert(key(&file), file);
            continue;
        }
        let image = name.strip_suffix(".formatting").unwrap_or(name);
        if !(image.ends_with(".img") && names.contains(&format!("{image}.json"))) {
            fs::remove_file(&path).map_err(failed("removing", &path))?;
        }
    }
    Ok(found)
}
