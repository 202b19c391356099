//! The machine, on Linux: each operation is a few system calls or one tool, off the async threads.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::disks::{self, Reach};
use super::store::{Store, beside, sync_directory};
use super::{errors, fs as file_systems, group, image, layer, loops, off_thread, paths};
use crate::host::{
    FsUsage, Fsck, Host, HostError, HostErrorKind, HostResult, Mount, MountEntry, NewFs, PathKind, Probe,
};
use crate::key::Key;
use crate::runtime::Runtime;
use crate::units::{Access, Bytes, DevicePath, FsKind, HostPath, PublishContext, VolumeId};

/// The real [`Host`].
#[derive(Clone)]
pub struct LinuxHost {
    inner: Arc<Inner>,
    runtime: Arc<dyn Runtime>,
}

struct Inner {
    store: Arc<Store>,
    /// One device at a time comes or goes, so that an image is never behind two.
    devices: Mutex<()>,
}

impl LinuxHost {
    /// The machine on which the store lies.
    pub fn new(store: Arc<Store>, runtime: Arc<dyn Runtime>) -> Self {
        let devices = Mutex::new(());
        Self {
            inner: Arc::new(Inner { store, devices }),
            runtime,
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> HostResult<T> + Send + 'static,
    ) -> HostResult<T> {
        let inner = Arc::clone(&self.inner);
        let done = off_thread(&self.runtime, move || job(&inner)).await;
        done.unwrap_or_else(|| Err(HostError::new(HostErrorKind::Fenced, "the process is stopping")))
    }
}

impl Inner {
    fn find(&self, volume: &VolumeId) -> HostResult<Option<loops::Loop>> {
        match self.store.shape.reach {
            Reach::Plugged => disks::find(volume, &self.store.shape.root),
            _ => find(&self.store.volume_image(volume)),
        }
    }

    fn attach(&self, volume: &VolumeId, access: Access) -> HostResult<DevicePath> {
        if self.store.shape.reach == Reach::Plugged {
            return disks::attach(volume, access, &self.store.shape.root);
        }
        let _one = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((image, export)) = self.store.exported(volume) else {
            let text = format!("volume {volume} is not exported to this node");
            return Err(HostError::new(HostErrorKind::NotFound, text));
        };
        if export.is_read_only() && !access.is_read_only() {
            let text = format!("volume {volume} is exported read-only");
            return Err(HostError::new(HostErrorKind::ReadOnly, text));
        }
        match find(&image)? {
            Some(found) if found.access == access => Ok(found.device),
            Some(found) => Err(HostError::new(
                HostErrorKind::Exists,
                format!("volume {volume} is attached as {} with other access", found.device),
            )),
            None => loops::attach(&image, access),
        }
    }

    /// Nobody else's device waits for the last user of this one.
    fn detach(&self, volume: &VolumeId) -> HostResult<()> {
        let one = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = self.find(volume)? else { return Ok(()) };
        file_systems::refuse_shown(&found.device)?;
        if self.store.shape.reach == Reach::Plugged {
            // The array takes it away.
            return Ok(());
        }
        loops::let_go(&found.device)?;
        drop(one);
        loops::see_off(&self.store.volume_image(volume), &found.device)
    }

    /// The mark stays until something is written through the layer: before, nobody could tell a blank layer from one
    /// whose bytes make no sense.
    fn encrypt(&self, device: &DevicePath, uuid: &str, key: &Key) -> HostResult<()> {
        file_systems::refuse_shown(device)?;
        refuse_unless_blank(device, &self.probe(device)?)?;
        drop(loops::open_alone(device)?);
        mark(device)?;
        let made = layer::make(device, uuid, key);
        if made.is_err() {
            self.undo_formatting(device)?;
        }
        made
    }

    /// Deriving a key takes a second or two: nobody else waits for it.
    fn unlock(&self, volume: &VolumeId, key: &Key, access: Access) -> HostResult<DevicePath> {
        let image = self.store.volume_image(volume);
        match (open_layer(&image)?, find(&image)?) {
            (Some(layer), _) if layer.access == access => Ok(layer.device),
            (Some(layer), _) => Err(HostError::new(
                HostErrorKind::Exists,
                format!(
                    "the layer of volume {volume} is open as {} with other access",
                    layer.device
                ),
            )),
            (None, None) => Err(HostError::new(
                HostErrorKind::NotFound,
                format!("volume {volume} is not attached"),
            )),
            (None, Some(found)) => match file_systems::probe(&found.device)? {
                Probe::Encrypted { .. } => layer::open(&image, &found.device, key, access),
                other => Err(HostError::new(
                    HostErrorKind::Invalid,
                    format!("{} holds {other:?}, not an encryption layer", found.device),
                )),
            },
        }
    }

    fn grow_layer(&self, volume: &VolumeId) -> HostResult<Bytes> {
        let image = self.store.volume_image(volume);
        match open_layer(&image)? {
            Some(layer) => layer::grow(&image, &layer),
            None => Err(HostError::new(
                HostErrorKind::NotFound,
                format!("volume {volume} has no open encryption layer"),
            )),
        }
    }

    fn lock(&self, volume: &VolumeId) -> HostResult<()> {
        let image = self.store.volume_image(volume);
        let Some(found) = open_layer(&image)? else {
            return Ok(());
        };
        file_systems::refuse_shown(&found.device)?;
        layer::close(&image)
    }

    fn bind_device(&self, device: &DevicePath, target: &HostPath, access: Access) -> HostResult<()> {
        // From here on somebody may write through the layer.
        if layer::below(device).is_some() && is_marked(device) {
            unmark(device)?;
        }
        file_systems::bind_device(device, target, access)
    }

    /// A crash while a file system was made leaves half of one on a device that was blank: it is made blank again.
    fn undo_formatting(&self, device: &DevicePath) -> HostResult<()> {
        if !is_marked(device) {
            return Ok(());
        }
        let file = loops::open_alone(device)?;
        let failed = |error| errors::host("undoing a formatting that was cut off", error);
        image::clear(&file, loops::size(device)?).map_err(failed)?;
        self.allocate_again(device).map_err(failed)?;
        unmark(device)
    }

    fn allocate_again(&self, device: &DevicePath) -> std::io::Result<()> {
        let Some(path) = backing(device) else { return Ok(()) };
        let thick = {
            let index = self.store.index();
            let mut files = index.volumes.values();
            files.any(|file| {
                file.provisioning == crate::pool::Provisioning::Thick && self.store.volume_image(&file.id) == path
            })
        };
        if !thick {
            return Ok(());
        }
        let file = fs::OpenOptions::new().write(true).open(&path)?;
        image::allocate(&file, Bytes(file.metadata()?.len()))
    }

    fn probe(&self, device: &DevicePath) -> HostResult<Probe> {
        if layer::below(device).is_none() {
            self.undo_formatting(device)?;
        } else if is_marked(device) {
            return Ok(Probe::Blank);
        }
        file_systems::probe(device)
    }

    fn mkfs(&self, device: &DevicePath, new: &NewFs) -> HostResult<()> {
        file_systems::refuse_shown(device)?;
        if !new.forced {
            refuse_unless_blank(device, &self.probe(device)?)?;
        }
        drop(loops::open_alone(device)?);
        mark(device)?;
        let made = file_systems::make(device.as_str(), new);
        if let Err(error) = made {
            // In a layer only the mark is left: the whole layer is made anew.
            if layer::below(device).is_none() {
                self.undo_formatting(device)?;
            }
            return Err(error);
        }
        let written = fs::File::open(device.as_str()).and_then(|file| file.sync_all());
        written.map_err(|error| errors::host("making the file system", error))?;
        unmark(device)
    }
}

fn refuse_unless_blank(device: &DevicePath, found: &Probe) -> HostResult<()> {
    match found {
        Probe::Blank => Ok(()),
        other => Err(HostError::new(
            HostErrorKind::Exists,
            format!("{device} holds {other:?}"),
        )),
    }
}

fn find(image: &Path) -> HostResult<Option<loops::Loop>> {
    loops::find(image).map_err(|error| errors::host("looking for the loop device", error))
}

fn open_layer(image: &Path) -> HostResult<Option<layer::Layer>> {
    layer::of(image).map_err(|error| errors::host("looking for the encryption layer", error))
}

/// The file behind a loop device, or behind the one under a layer.
fn backing(device: &DevicePath) -> Option<PathBuf> {
    let below = layer::below(device);
    let name = below.as_ref().unwrap_or(device).as_str().strip_prefix("/dev/")?;
    let text = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

/// What says that a file system or a layer is being made on a device.
fn marker(device: &DevicePath) -> Option<PathBuf> {
    backing(device).map(|image| beside(&image, "formatting"))
}

fn is_marked(device: &DevicePath) -> bool {
    marker(device).is_some_and(|marker| marker.exists())
}

fn mark(device: &DevicePath) -> HostResult<()> {
    let Some(marker) = marker(device) else { return Ok(()) };
    let made = fs::File::create(&marker).and_then(|_| sync_directory(&marker));
    made.map_err(|error| errors::host("marking the image", error))
}

fn unmark(device: &DevicePath) -> HostResult<()> {
    let Some(marker) = marker(device) else { return Ok(()) };
    let removed = fs::remove_file(&marker).and_then(|()| sync_directory(&marker));
    removed.map_err(|error| errors::host("taking the mark off the image", error))
}

#[async_trait]
impl Host for LinuxHost {
    async fn kind(&self, path: &HostPath) -> HostResult<Option<PathKind>> {
        let path = path.clone();
        self.run(move |_| paths::kind(&path)).await
    }

    async fn create_dir(&self, path: &HostPath) -> HostResult<()> {
        let path = path.clone();
        self.run(move |_| paths::create_dir(&path)).await
    }

    async fn remove_dir(&self, path: &HostPath) -> HostResult<()> {
        let path = path.clone();
        self.run(move |_| paths::remove_dir(&path)).await
    }

    async fn create_file(&self, path: &HostPath) -> HostResult<()> {
        let path = path.clone();
        self.run(move |_| paths::create_file(&path)).await
    }

    async fn remove_file(&self, path: &HostPath) -> HostResult<()> {
        let path = path.clone();
        self.run(move |_| paths::remove_file(&path)).await
    }

    async fn attach(&self, volume: &VolumeId, _: &PublishContext, access: Access) -> HostResult<DevicePath> {
        let volume = volume.clone();
        self.run(move |inner| inner.attach(&volume, access)).await
    }

    async fn attached(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        let volume = volume.clone();
        self.run(move |inner| Ok(inner.find(&volume)?.map(|found| found.device)))
            .await
    }

    async fn detach(&self, volume: &VolumeId) -> HostResult<()> {
        let volume = volume.clone();
        self.run(move |inner| inner.detach(&volume)).await
    }

    async fn encrypt(&self, device: &DevicePath, uuid: &str, key: &Key) -> HostResult<()> {
        let (device, uuid, key) = (device.clone(), uuid.to_owned(), key.clone());
        self.run(move |inner| inner.encrypt(&device, &uuid, &key)).await
    }

    async fn unlock(&self, volume: &VolumeId, key: &Key, access: Access) -> HostResult<DevicePath> {
        let (volume, key) = (volume.clone(), key.clone());
        self.run(move |inner| inner.unlock(&volume, &key, access)).await
    }

    async fn unlocked(&self, volume: &VolumeId) -> HostResult<Option<DevicePath>> {
        let volume = volume.clone();
        self.run(move |inner| Ok(open_layer(&inner.store.volume_image(&volume))?.map(|layer| layer.device)))
            .await
    }

    async fn grow_layer(&self, volume: &VolumeId) -> HostResult<Bytes> {
        let volume = volume.clone();
        self.run(move |inner| inner.grow_layer(&volume)).await
    }

    async fn lock(&self, volume: &VolumeId) -> HostResult<()> {
        let volume = volume.clone();
        self.run(move |inner| inner.lock(&volume)).await
    }

    async fn device_size(&self, device: &DevicePath) -> HostResult<Bytes> {
        let device = device.clone();
        self.run(move |_| loops::size(&device)).await
    }

    async fn rescan(&self, device: &DevicePath) -> HostResult<Bytes> {
        let device = device.clone();
        self.run(move |_| loops::rescan(&device)).await
    }

    async fn probe(&self, device: &DevicePath) -> HostResult<Probe> {
        let device = device.clone();
        self.run(move |inner| inner.probe(&device)).await
    }

    async fn mkfs(&self, device: &DevicePath, fs: &NewFs) -> HostResult<()> {
        let (device, fs) = (device.clone(), fs.clone());
        self.run(move |inner| inner.mkfs(&device, &fs)).await
    }

    async fn fsck(&self, device: &DevicePath, kind: FsKind) -> HostResult<Fsck> {
        let device = device.clone();
        self.run(move |_| file_systems::check(&device, kind)).await
    }

    async fn grow_idle(&self, device: &DevicePath, kind: FsKind) -> HostResult<bool> {
        let device = device.clone();
        self.run(move |_| file_systems::grow_idle(&device, kind)).await
    }

    async fn mount(&self, mount: &Mount) -> HostResult<()> {
        let mount = mount.clone();
        self.run(move |_| file_systems::mount(&mount)).await
    }

    async fn bind(&self, source: &HostPath, target: &HostPath, access: Access) -> HostResult<()> {
        let (source, target) = (source.clone(), target.clone());
        self.run(move |_| file_systems::bind(&source, &target, access)).await
    }

    async fn bind_device(&self, device: &DevicePath, target: &HostPath, access: Access) -> HostResult<()> {
        let (device, target) = (device.clone(), target.clone());
        self.run(move |inner| inner.bind_device(&device, &target, access)).await
    }

    async fn unmount(&self, target: &HostPath) -> HostResult<()> {
        let target = target.clone();
        self.run(move |_| file_systems::unmount(&target)).await
    }

    async fn mounts(&self) -> HostResult<Vec<MountEntry>> {
        self.run(|_| file_systems::table()).await
    }

    async fn mount_at(&self, target: &HostPath) -> HostResult<Option<MountEntry>> {
        let target = target.clone();
        self.run(move |_| file_systems::visible_at(&target)).await
    }

    async fn grow_fs(&self, target: &HostPath) -> HostResult<Bytes> {
        let target = target.clone();
        self.run(move |_| file_systems::grow(&target)).await
    }

    async fn set_group(&self, path: &HostPath, group: u32) -> HostResult<()> {
        let path = path.clone();
        self.run(move |_| group::give(&path, group)).await
    }

    async fn usage(&self, path: &HostPath) -> HostResult<FsUsage> {
        let path = path.clone();
        self.run(move |_| file_systems::usage(&path)).await
    }

    async fn sync(&self, path: &HostPath) -> HostResult<()> {
        let path = path.clone();
        self.run(move |_| file_systems::sync(&path)).await
    }
}
