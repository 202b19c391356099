//! The storage system, on Linux: image files in a [`Store`], reached from its own node only.
//!
//! The index is locked for moments; bytes are made and copied without it, under a mark that keeps others away from the
//! same image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::disks::{self, Reach};
use super::store::{self, SnapshotFile, Store, VolumeFile, beside, len, remove, sync_directory};
use super::{errors, fs as file_systems, image, loops, off_thread};
use crate::host::{HostErrorKind, NewFs};
use crate::pool::{
    Capacity, Extent, NewSnapshot, NewVolume, Pool, PoolError, PoolErrorKind, PoolResult, PoolSnapshot, PoolVolume,
    Provisioning, Source,
};
use crate::runtime::Runtime;
use crate::units::{Access, Bytes, FsKind, NodeId, PublishContext, Segments, SnapshotId, VolumeId};

/// The largest image that every file system takes.
const LARGEST: Bytes = Bytes(16 << 40);

/// The real [`Pool`].
#[derive(Clone)]
pub struct LinuxPool {
    store: Arc<Store>,
    runtime: Arc<dyn Runtime>,
}

impl LinuxPool {
    /// The pool of a store.
    pub fn new(store: Arc<Store>, runtime: Arc<dyn Runtime>) -> Self {
        Self { store, runtime }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Store) -> PoolResult<T> + Send + 'static,
    ) -> PoolResult<T> {
        let store = Arc::clone(&self.store);
        let done = off_thread(&self.runtime, move || job(&store)).await;
        done.unwrap_or_else(|| Err(PoolError::new(PoolErrorKind::Fenced, "the process is stopping")))
    }
}

fn refused<T>(kind: PoolErrorKind, text: impl Into<String>) -> PoolResult<T> {
    Err(PoolError::new(kind, text))
}

/// Keeps others away from an image while it is worked on.
struct Mark<'a> {
    store: &'a Store,
    names: Vec<String>,
}

impl<'a> Mark<'a> {
    fn set(store: &'a Store, names: Vec<String>) -> PoolResult<Self> {
        let mut index = store.index();
        if let Some(name) = names.iter().find(|name| index.busy.contains(*name)) {
            return refused(PoolErrorKind::Unavailable, format!("{name} is being worked on"));
        }
        index.busy.extend(names.iter().cloned());
        drop(index);
        Ok(Self { store, names })
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut index = self.store.index();
        self.names.iter().for_each(|name| {
            index.busy.remove(name);
        });
    }
}

impl Store {
    fn volume(&self, id: &VolumeId) -> PoolResult<VolumeFile> {
        let file = self.index().volumes.get(id).cloned();
        file.ok_or_else(|| PoolError::new(PoolErrorKind::NotFound, format!("no volume {id}")))
    }

    /// Bytes that may still be promised to volumes of a kind.
    fn left(&self, kind: &str) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.shape.root)?;
        let whole = found.f_blocks.saturating_mul(found.f_frsize);
        let limit = self.shape.limit.map_or(whole, |limit| limit.0);
        let of_kind = self.shape.kinds.get(kind).copied().flatten();
        let index = self.index();
        let made = index.volumes.values().map(|file| (&file.kind, file.len().0));
        let making = index.making.values().map(|(kind, size)| (kind, size.0));
        let (mut all, mut same) = (0_u64, 0_u64);
        for (other, size) in made.chain(making) {
            all = all.saturating_add(size);
            same = same.saturating_add(if other == kind { size } else { 0 });
        }
        let of_kind = of_kind.map_or(u64::MAX, |limit| limit.0.saturating_sub(same));
        Ok(limit.saturating_sub(all).min(of_kind))
    }

    fn is_here(&self, segments: &Segments) -> bool {
        let own = &self.shape.segments;
        segments
            .iter()
            .all(|(key, value)| own.get(key).is_none_or(|here| here == value))
    }

    fn create(&self, new: &NewVolume) -> PoolResult<PoolVolume> {
        let _mark = Mark::set(self, vec![new.id.to_string()])?;
        if let Ok(file) = self.volume(&new.id) {
            return if file.made == new.size && file.source == new.source {
                Ok(self.shown(&file))
            } else {
                refused(
                    PoolErrorKind::Exists,
                    format!("volume {} is there, and differs", new.id),
                )
            };
        }
        if new.size.0 == 0 || new.size > LARGEST {
            return refused(PoolErrorKind::OutOfRange, format!("no volume can have {}", new.size));
        }
        if !self.is_here(&new.segments) || !self.shape.kinds.contains_key(&new.kind) {
            let text = format!("nothing of type `{}` in {:?}", new.kind, new.segments);
            return refused(PoolErrorKind::NoSuchPlace, text);
        }
        let left = self
            .left(&new.kind)
            .map_err(|error| errors::pool("looking for room", error))?;
        let len = len(new.size, new.encrypted);
        if left < len.0 {
            return refused(PoolErrorKind::NoSpace, format!("{} of {len} are left", Bytes(left)));
        }
        self.index().making.insert(new.id.clone(), (new.kind.clone(), len));
        let made = self.make(new);
        let mut index = self.index();
        index.making.remove(&new.id);
        let file = made?;
        index.volumes.insert(new.id.clone(), file.clone());
        drop(index);
        Ok(self.shown(&file))
    }

    fn make(&self, new: &NewVolume) -> PoolResult<VolumeFile> {
        let image = self.volume_image(&new.id);
        let draft = beside(&image, "draft");
        let made = self.fill(new, &draft);
        let file = made.and_then(|()| {
            let file = VolumeFile {
                id: new.id.clone(),
                size: new.size,
                made: new.size,
                kind: new.kind.clone(),
                provisioning: new.provisioning,
                source: new.source.clone(),
                encrypted: new.encrypted,
                exports: BTreeMap::new(),
                settings: new.settings.clone(),
            };
            let placed = fs::rename(&draft, &image).and_then(|()| self.put_volume(&file));
            placed.map_err(|error| errors::pool("placing the image", error))?;
            Ok(file)
        });
        if file.is_err() {
            let _ = fs::remove_file(&draft);
            let _ = remove(&image);
        }
        file
    }

    fn fill(&self, new: &NewVolume, draft: &Path) -> PoolResult<()> {
        let failed = |error| errors::pool("making the image", error);
        let thick = new.provisioning == Provisioning::Thick;
        let len = len(new.size, new.encrypted);
        let file = match &new.source {
            None => image::make(draft, len, thick).map_err(failed)?,
            Some(source) => {
                let file = image::make(draft, Bytes(0), false).map_err(failed)?;
                self.copy_source(source, new, &file)?;
                file.set_len(len.0).map_err(failed)?;
                if thick {
                    image::allocate(&file, len).map_err(failed)?;
                }
                file
            }
        };
        if let Some(kind) = new.shared_fs.filter(|_| new.source.is_none()) {
            file_systems::make(&draft.to_string_lossy(), &shared(&new.id, kind)).map_err(|error| {
                let kind = match error.kind {
                    HostErrorKind::Unsupported => PoolErrorKind::Unsupported,
                    HostErrorKind::TimedOut => PoolErrorKind::TimedOut,
                    _ => PoolErrorKind::Io,
                };
                PoolError::new(kind, error.text)
            })?;
        }
        file.sync_all().map_err(failed)
    }

    fn copy_source(&self, source: &Source, new: &NewVolume, to: &File) -> PoolResult<()> {
        let (path, found, frozen) = match source {
            Source::Volume(id) => {
                let file = self.index().volumes.get(id).cloned();
                let path = self.volume_image(id);
                (path, file.map(|file| (file.size, file.encrypted)), true)
            }
            Source::Snapshot(id) => {
                let file = self.index().snapshots.get(id).cloned();
                (
                    self.snapshot_image(id),
                    file.map(|file| (file.size, file.encrypted)),
                    false,
                )
            }
        };
        let Some((found, encrypted)) = found else {
            return refused(PoolErrorKind::NoSuchSource, format!("{source:?} is not there"));
        };
        if new.size < found {
            return refused(PoolErrorKind::OutOfRange, format!("a copy is at least {found} large"));
        }
        if encrypted != new.encrypted {
            return refused(PoolErrorKind::Invalid, "a copy is encrypted if its source is");
        }
        let _held = if frozen {
            Some(self.hold(std::slice::from_ref(&path))?)
        } else {
            None
        };
        image::copy_at(&path, to).map_err(|error| errors::pool("copying the source", error))
    }

    /// Holds up whoever writes to the images, so that they can be copied as of one moment.
    fn hold(&self, images: &[PathBuf]) -> PoolResult<image::Frozen> {
        let failed = |error| errors::pool("holding up the file system", error);
        let mut held = image::Frozen::default();
        for path in images {
            let probe = beside(path, "share");
            if held.add(path).map_err(failed)?.is_none() && !(images.len() == 1 && shares(path, &probe)) {
                let text = "a block device that is in use can only be cut where files share blocks, one at a time";
                return refused(PoolErrorKind::InUse, text);
            }
        }
        Ok(held)
    }

    fn delete(&self, id: &VolumeId) -> PoolResult<()> {
        let _mark = Mark::set(self, vec![id.to_string()])?;
        let Ok(file) = self.volume(id) else { return Ok(()) };
        let path = self.volume_image(id);
        if let Some(node) = file.exports.keys().next() {
            return refused(PoolErrorKind::InUse, format!("volume {id} is exported to node {node}"));
        }
        self.refuse_attached(id)?;
        remove(&path).map_err(|error| errors::pool("removing the image", error))?;
        self.index().volumes.remove(id);
        Ok(())
    }

    fn refuse_attached(&self, id: &VolumeId) -> PoolResult<()> {
        let found = loops::find(&self.volume_image(id));
        match found.map_err(|error| errors::pool("looking for the loop device", error))? {
            Some(found) => refused(
                PoolErrorKind::InUse,
                format!("volume {id} is still attached as {}", found.device),
            ),
            None => Ok(()),
        }
    }

    /// Changes what the pool knows of a volume, durably.
    fn change(&self, id: &VolumeId, change: impl FnOnce(&mut VolumeFile)) -> PoolResult<VolumeFile> {
        let mut file = self.volume(id)?;
        change(&mut file);
        self.put_volume(&file)
            .map_err(|error| errors::pool("writing what is known of the volume", error))?;
        self.index().volumes.insert(id.clone(), file.clone());
        Ok(file)
    }

    fn grow(&self, id: &VolumeId, size: Bytes) -> PoolResult<Bytes> {
        let _mark = Mark::set(self, vec![id.to_string()])?;
        let file = self.volume(id)?;
        if size <= file.size {
            return Ok(file.size);
        }
        if size > LARGEST {
            return refused(PoolErrorKind::OutOfRange, format!("no volume can have {size}"));
        }
        let left = self
            .left(&file.kind)
            .map_err(|error| errors::pool("looking for room", error))?;
        if left < size.0 - file.size.0 {
            return refused(PoolErrorKind::NoSpace, format!("no room to grow volume {id} to {size}"));
        }
        let grown = fs::OpenOptions::new()
            .write(true)
            .open(self.volume_image(id))
            .and_then(|image| {
                let len = image.metadata()?.len();
                let new = store::len(size, file.encrypted);
                if len < new.0 {
                    image.set_len(new.0)?;
                }
                if file.provisioning == Provisioning::Thick {
                    image::allocate(&image, new)?;
                }
                image.sync_all()
            });
        grown.map_err(|error| errors::pool("growing the image", error))?;
        if let Reach::Array(command) = &self.shape.reach {
            for node in file.exports.keys() {
                disks::resize(command, node, id, store::len(size, file.encrypted))?;
            }
        }
        self.change(id, |file| file.size = size).map(|file| file.size)
    }

    fn modify(&self, id: &VolumeId, settings: &BTreeMap<String, String>) -> PoolResult<()> {
        let _mark = Mark::set(self, vec![id.to_string()])?;
        if settings.get("iops").is_some_and(|value| value.parse::<u64>().is_err()) {
            return refused(PoolErrorKind::Invalid, "`iops` is not a whole number");
        }
        self.change(id, |file| file.settings.extend(settings.clone())).map(drop)
    }

    fn export(&self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext> {
        let _mark = Mark::set(self, vec![id.to_string()])?;
        let file = self.volume(id)?;
        let array = match &self.shape.reach {
            Reach::Array(command) => Some(command),
            Reach::Own | Reach::Plugged => None,
        };
        if array.is_none() && *node != self.shape.node {
            return refused(
                PoolErrorKind::NoSuchNode,
                format!("volume {id} lies on node {}", self.shape.node),
            );
        }
        match file.exports.get(node) {
            Some(there) if *there == access => {}
            Some(_) => {
                let text = format!("volume {id} is exported to node {node} with other access");
                return refused(PoolErrorKind::Exists, text);
            }
            None => {
                self.change(id, |file| {
                    file.exports.insert(node.clone(), access);
                })?;
            }
        }
        if let Some(command) = array {
            let image = self.volume_image(id).display().to_string();
            let word = if access.is_read_only() { "ro" } else { "rw" };
            disks::command(command, "plug", node, id, &[&image, word])?;
        }
        Ok(PublishContext::from([("export".to_owned(), format!("{node}/{id}"))]))
    }

    fn unexport(&self, id: &VolumeId, node: &NodeId) -> PoolResult<()> {
        let _mark = Mark::set(self, vec![id.to_string()])?;
        match self.volume(id) {
            Ok(file) if file.exports.contains_key(node) => {
                match &self.shape.reach {
                    Reach::Array(command) => disks::command(command, "unplug", node, id, &[])?,
                    Reach::Own | Reach::Plugged => self.refuse_attached(id)?,
                }
                self.change(id, |file| {
                    file.exports.remove(node);
                })
                .map(drop)
            }
            _ => Ok(()),
        }
    }

    fn cut(&self, new: &[NewSnapshot], now: Duration) -> PoolResult<Vec<PoolSnapshot>> {
        let volumes: BTreeSet<&VolumeId> = new.iter().map(|cut| &cut.volume).collect();
        let names = new.iter().map(|cut| cut.id.to_string());
        let _mark = Mark::set(self, names.chain(volumes.iter().map(ToString::to_string)).collect())?;
        let mut missing = Vec::new();
        for cut in new {
            let there = self.index().snapshots.get(&cut.id).cloned();
            match there {
                Some(there) if there.volume != cut.volume => {
                    return refused(
                        PoolErrorKind::Exists,
                        format!("snapshot {} is of another volume", cut.id),
                    );
                }
                Some(_) => {}
                None => missing.push((cut, self.volume(&cut.volume)?)),
            }
        }
        let files = missing.iter().map(|(cut, volume)| SnapshotFile {
            id: cut.id.clone(),
            volume: cut.volume.clone(),
            size: volume.size,
            cut_at: now,
            encrypted: volume.encrypted,
        });
        let files: Vec<SnapshotFile> = files.collect();
        if let Err(error) = self.copy_all(&files) {
            for file in &files {
                let _ = remove(&self.snapshot_image(&file.id));
            }
            return Err(error);
        }
        let mut index = self.index();
        index
            .snapshots
            .extend(files.into_iter().map(|file| (file.id.clone(), file)));
        Ok(new
            .iter()
            .filter_map(|cut| index.snapshots.get(&cut.id))
            .map(shown)
            .collect())
    }

    fn copy_all(&self, files: &[SnapshotFile]) -> PoolResult<()> {
        let failed = |error| errors::pool("cutting the snapshot", error);
        let images: Vec<PathBuf> = files.iter().map(|file| self.volume_image(&file.volume)).collect();
        let held = self.hold(&images)?;
        for (file, image) in files.iter().zip(&images) {
            let draft = beside(&self.snapshot_image(&file.id), "draft");
            let to = image::make(&draft, Bytes(0), false).map_err(failed)?;
            let copied = image::copy_at(image, &to);
            let len = store::len(file.size, file.encrypted);
            copied.and_then(|()| to.set_len(len.0)).map_err(failed)?;
        }
        drop(held);
        for file in files {
            let image = self.snapshot_image(&file.id);
            let draft = beside(&image, "draft");
            let placed = File::open(&draft).and_then(|draft| draft.sync_all());
            let placed = placed
                .and_then(|()| fs::rename(&draft, &image))
                .and_then(|()| self.put_snapshot(file));
            placed.map_err(failed)?;
        }
        Ok(())
    }

    fn delete_snapshot(&self, id: &SnapshotId) -> PoolResult<()> {
        let _mark = Mark::set(self, vec![id.to_string()])?;
        let image = self.snapshot_image(id);
        let drafts = fs::remove_file(beside(&image, "draft"));
        if drafts.is_ok() || self.index().snapshots.contains_key(id) {
            remove(&image).map_err(|error| errors::pool("removing the snapshot", error))?;
        }
        self.index().snapshots.remove(id);
        Ok(())
    }

    fn extents(
        &self,
        base: Option<&SnapshotId>,
        target: &SnapshotId,
        offset: Bytes,
        limit: usize,
    ) -> PoolResult<Vec<Extent>> {
        let find = |id: &SnapshotId| {
            let found = self.index().snapshots.get(id).map(|file| file.encrypted);
            let missing = || PoolError::new(PoolErrorKind::NotFound, format!("no snapshot {id}"));
            Ok((self.snapshot_image(id), found.ok_or_else(missing)?))
        };
        let base = base.map(find).transpose()?;
        let (target, encrypted) = find(target)?;
        // A layer keeps every byte at its place behind the header.
        let header = store::len(Bytes(0), encrypted).0;
        let base = base.as_ref().map(|(path, _)| path.as_path());
        let found = image::extents(base, &target, Bytes(offset.0 + header), limit);
        let mut found = found.map_err(|error| errors::pool("reading the snapshot", error))?;
        found.iter_mut().for_each(|extent| extent.offset.0 -= header);
        Ok(found)
    }

    fn capacity(&self, kind: &str, segments: &Segments) -> PoolResult<Capacity> {
        if !self.is_here(segments) || !self.shape.kinds.contains_key(kind) {
            return refused(
                PoolErrorKind::NoSuchPlace,
                format!("nothing of type `{kind}` in {segments:?}"),
            );
        }
        let left = self
            .left(kind)
            .map_err(|error| errors::pool("looking for room", error))?;
        Ok(Capacity {
            available: Bytes(left),
            largest: Some(Bytes(left).min(LARGEST)),
        })
    }

    fn health(&self) -> PoolResult<()> {
        let found = fs::metadata(self.shape.root.join("volumes"));
        found
            .map(drop)
            .map_err(|error| PoolError::new(PoolErrorKind::Unavailable, error.to_string()))
    }
}

fn shares(path: &Path, probe: &Path) -> bool {
    image::can_share(path, probe)
        .and_then(|can| sync_directory(probe).map(|()| can))
        .unwrap_or(false)
}

fn shown(file: &SnapshotFile) -> PoolSnapshot {
    PoolSnapshot {
        id: file.id.clone(),
        volume: file.volume.clone(),
        size: file.size,
        cut_at: file.cut_at,
        ready: true,
    }
}

/// The file system of a volume that is mounted by several.
fn shared(volume: &VolumeId, kind: FsKind) -> NewFs {
    crate::node::new_fs(volume, kind)
}

#[async_trait]
impl Pool for LinuxPool {
    async fn health(&self) -> PoolResult<()> {
        self.run(Store::health).await
    }

    async fn create(&self, volume: &NewVolume) -> PoolResult<PoolVolume> {
        let volume = volume.clone();
        self.run(move |store| store.create(&volume)).await
    }

    async fn delete(&self, id: &VolumeId) -> PoolResult<()> {
        let id = id.clone();
        self.run(move |store| store.delete(&id)).await
    }

    async fn grow(&self, id: &VolumeId, size: Bytes) -> PoolResult<Bytes> {
        let id = id.clone();
        self.run(move |store| store.grow(&id, size)).await
    }

    async fn modify(&self, id: &VolumeId, settings: &BTreeMap<String, String>) -> PoolResult<()> {
        let (id, settings) = (id.clone(), settings.clone());
        self.run(move |store| store.modify(&id, &settings)).await
    }

    async fn get(&self, id: &VolumeId) -> PoolResult<Option<PoolVolume>> {
        let id = id.clone();
        self.run(move |store| Ok(store.volume(&id).ok().map(|file| store.shown(&file))))
            .await
    }

    async fn list(&self) -> PoolResult<Vec<PoolVolume>> {
        self.run(|store| {
            let files: Vec<VolumeFile> = store.index().volumes.values().cloned().collect();
            Ok(files.iter().map(|file| store.shown(file)).collect())
        })
        .await
    }

    async fn capacity(&self, kind: &str, segments: &Segments) -> PoolResult<Capacity> {
        let (kind, segments) = (kind.to_owned(), segments.clone());
        self.run(move |store| store.capacity(&kind, &segments)).await
    }

    async fn export(&self, id: &VolumeId, node: &NodeId, access: Access) -> PoolResult<PublishContext> {
        let (id, node) = (id.clone(), node.clone());
        self.run(move |store| store.export(&id, &node, access)).await
    }

    async fn unexport(&self, id: &VolumeId, node: &NodeId) -> PoolResult<()> {
        let (id, node) = (id.clone(), node.clone());
        self.run(move |store| store.unexport(&id, &node)).await
    }

    async fn cut(&self, snapshots: &[NewSnapshot]) -> PoolResult<Vec<PoolSnapshot>> {
        let (snapshots, now) = (snapshots.to_vec(), self.runtime.wall());
        self.run(move |store| store.cut(&snapshots, now)).await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> PoolResult<()> {
        let id = id.clone();
        self.run(move |store| store.delete_snapshot(&id)).await
    }

    async fn snapshot(&self, id: &SnapshotId) -> PoolResult<Option<PoolSnapshot>> {
        let id = id.clone();
        self.run(move |store| Ok(store.index().snapshots.get(&id).map(shown)))
            .await
    }

    async fn extents(
        &self,
        base: Option<&SnapshotId>,
        target: &SnapshotId,
        offset: Bytes,
        limit: usize,
    ) -> PoolResult<Vec<Extent>> {
        let (base, target) = (base.cloned(), target.clone());
        self.run(move |store| store.extents(base.as_ref(), &target, offset, limit))
            .await
    }
}
