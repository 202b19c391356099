//! Whether this machine can do what volumes on loop devices need: tried on small images with the code that serves real ones, and undone.
//!
//! Blind spot: that something works once, on a small image, says nothing about how much of it there is.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::{errors, fs as file_systems, image, look, loops};
use crate::host::{HostError, HostErrorKind, HostResult, Mount, NewFs};
use crate::units::{Access, Bytes, DevicePath, FsKind, HostPath};

/// What was being tried when it failed.
pub type Step = &'static str;

/// A file with its loop device and its mount. All of it goes when this goes.
struct Image {
    file: PathBuf,
    target: HostPath,
}

impl Image {
    fn new(directory: &Path, name: &str, size: Bytes) -> HostResult<Image> {
        let target = directory.join(name);
        let target = HostPath::parse(&target.to_string_lossy())
            .map_err(|error| HostError::new(HostErrorKind::Invalid, error.to_string()))?;
        let made = Image {
            file: directory.join(format!("{name}.img")),
            target,
        };
        let failed = |error| errors::host("making the image", error);
        image::make(&made.file, size, false).map_err(failed)?;
        fs::create_dir_all(made.target.as_str()).map_err(failed)?;
        Ok(made)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // What was not done cannot be undone, and says so; the next step says whether that matters.
        let _ = file_systems::unmount(&self.target);
        let _ = look::let_go(&self.file);
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(self.target.as_str());
    }
}

/// Attaches a loop device and lets it go. Gives its name.
///
/// # Errors
/// What the kernel says.
pub fn loop_device(directory: &Path) -> HostResult<DevicePath> {
    let image = Image::new(directory, "loop", Bytes(1 << 20))?;
    let device = loops::attach(&image.file, Access::ReadWrite)?;
    look::let_go(&image.file)?;
    Ok(device)
}

/// Makes a file system, mounts it, grows it while it is mounted, and takes it away.
///
/// # Errors
/// The step that failed, and why.
pub fn file_system(directory: &Path, kind: FsKind) -> Result<(), (Step, HostError)> {
    // XFS takes no less than 300 MiB; all of it is a hole in the file.
    let size = match kind {
        FsKind::Ext4 => 32,
        FsKind::Xfs => 320,
        FsKind::Btrfs => 128,
    } << 20;
    let at = |step: Step| move |error| (step, error);
    let image = Image::new(directory, kind.as_str(), Bytes(size)).map_err(at("make an image"))?;
    let device = loops::attach(&image.file, Access::ReadWrite).map_err(at("attach"))?;
    let fs = NewFs {
        kind,
        label: "wavetank".into(),
        // All are tried at once, and mkfs.btrfs refuses a UUID that another device has.
        uuid: format!("5d0c70c0-0000-4000-8000-{:012}", size >> 20),
        forced: false,
    };
    file_systems::make(device.as_str(), &fs).map_err(at("make"))?;
    let mount = Mount {
        device: device.clone(),
        target: image.target.clone(),
        kind,
        flags: Vec::new(),
        access: Access::ReadWrite,
    };
    file_systems::mount(&mount).map_err(at("mount"))?;
    let file = OpenOptions::new().write(true).open(&image.file);
    let larger = file.and_then(|file| file.set_len(size + (64 << 20)));
    larger.map_err(|error| ("grow", errors::host("growing the image", error)))?;
    loops::rescan(&device).map_err(at("grow"))?;
    file_systems::grow(&image.target).map_err(at("grow"))?;
    file_systems::unmount(&image.target).map_err(at("unmount"))?;
    file_systems::check(&device, kind).map_err(at("check"))?;
    look::let_go(&image.file).map_err(at("detach"))
}
