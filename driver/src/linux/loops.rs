//! Loop devices: which one shows an image, and how one comes and goes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::io::Errno;

use super::{errors, ioctl};
use crate::host::{HostError, HostErrorKind, HostResult};
use crate::units::{Access, Bytes, DevicePath};

/// Free devices are raced for; so often a new one is asked for.
const TRIES: usize = 32;
/// A device that was let go of may still be open for a moment: a tool that is being started has, until it runs, all that the driver has open.
const LINGERING: [u64; 8] = [1, 5, 20, 50, 100, 200, 400, 800];

/// A loop device that shows an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loop {
    pub(super) device: DevicePath,
    pub(super) access: Access,
}

/// Where images were last seen: a hint that spares a look at every device. Sysfs alone says where they are.
static SEEN: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

/// The device that shows `image`. Sysfs tells which file is behind each; no file is behind two.
pub(super) fn find(image: &Path) -> io::Result<Option<Loop>> {
    let hint = seen().remove(image);
    if let Some(found) = hint.and_then(|name| shown(&name, image)) {
        return Ok(Some(found));
    }
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else {
            continue;
        };
        if let Some(found) = shown(name, image) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn seen() -> MutexGuard<'static, BTreeMap<PathBuf, String>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device of this name, if it shows `image`.
fn shown(name: &str, image: &Path) -> Option<Loop> {
    let of = |what: &str| std::fs::read_to_string(format!("/sys/block/{name}/{what}"));
    let backing = of("loop/backing_file").ok()?;
    if Path::new(backing.trim_end_matches('\n')) != image {
        return None;
    }
    let read_only = of("ro").is_ok_and(|text| text.trim() == "1");
    seen().insert(image.to_owned(), name.to_owned());
    Some(Loop {
        device: DevicePath::new(format!("/dev/{name}")),
        access: Access::from_readonly(read_only),
    })
}

pub(super) fn attach(image: &Path, access: Access) -> HostResult<DevicePath> {
    let failed = |error: io::Error| errors::host("attaching the image", error);
    let read_only = access.is_read_only();
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .open(image)
        .map_err(failed)?;
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .map_err(|error| errors::host("asking for a loop device", error))?;
    for _ in 0..TRIES {
        let number = ioctl::free_loop(&control).map_err(|error| errors::host("asking for a loop device", error))?;
        let path = format!("/dev/loop{number}");
        let device = OpenOptions::new().read(true).write(!read_only).open(&path);
        let device = device.map_err(|error| errors::host("opening the loop device", error))?;
        match ioctl::set_up(&device, &file, read_only) {
            Ok(()) => {
                seen().insert(image.to_owned(), format!("loop{number}"));
                return Ok(DevicePath::new(path));
            }
            Err(Errno::BUSY) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Err(HostError::new(
        HostErrorKind::NoSpace,
        "every loop device was taken by others",
    ))
}

/// Asks for the end of a device: it comes when nobody has it open any more.
pub(super) fn let_go(device: &DevicePath) -> HostResult<()> {
    let failed = |error: io::Error| errors::host("detaching the image", error);
    let device = match OpenOptions::new().read(true).open(device.as_str()) {
        Ok(device) => device,
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    match ioctl::let_go(&device) {
        Ok(()) | Err(Errno::NXIO) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Waits for the end that was asked for; `Busy` if somebody keeps the device open, and then it stays as it is.
pub(super) fn see_off(image: &Path, device: &DevicePath) -> HostResult<()> {
    let failed = |error: io::Error| errors::host("detaching the image", error);
    let path = device.as_str();
    if ends(image, device) {
        return Ok(());
    }
    let device = OpenOptions::new().read(true).open(path).map_err(failed)?;
    match ioctl::hold_on(&device) {
        Err(Errno::NXIO) => Ok(()),
        Ok(()) => Err(HostError::new(HostErrorKind::Busy, format!("{path} is open"))),
        Err(error) => Err(failed(error.into())),
    }
}

/// Whether the end that was asked for comes within a while.
pub(super) fn ends(image: &Path, device: &DevicePath) -> bool {
    let name = device.as_str().trim_start_matches("/dev/");
    LINGERING.into_iter().any(|pause| {
        let is_gone = shown(name, image).is_none();
        if !is_gone {
            pause_for(Duration::from_millis(pause));
        }
        is_gone
    })
}

/// The kernel tells nobody when the last user of a device has closed it; this runs off the async threads.
fn pause_for(pause: Duration) {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(pause.subsec_nanos()),
    };
    // An error means that a signal ended the pause early.
    let _ = poll(&mut [], Some(&pause));
}

/// Does the device take no writes?
pub(super) fn is_read_only(device: &DevicePath) -> bool {
    let name = device.as_str().trim_start_matches("/dev/");
    std::fs::read_to_string(format!("/sys/block/{name}/ro")).is_ok_and(|text| text.trim() == "1")
}

pub(super) fn size(device: &DevicePath) -> HostResult<Bytes> {
    let measured = File::open(device.as_str()).and_then(|mut file| file.seek(SeekFrom::End(0)));
    measured
        .map(Bytes)
        .map_err(|error| errors::host("measuring the device", error))
}

pub(super) fn rescan(device: &DevicePath) -> HostResult<Bytes> {
    // Other disks are told their size by whoever plugged them in.
    if !device.as_str().starts_with("/dev/loop") {
        return size(device);
    }
    let file = File::open(device.as_str()).map_err(|error| errors::host("opening the device", error))?;
    ioctl::look_again(&file).map_err(|error| errors::host("measuring the device anew", error))?;
    size(device)
}

/// Opens a device as one that nobody else has for himself: not mounted, and no tool at work on it.
pub(super) fn open_alone(device: &DevicePath) -> HostResult<File> {
    let exclusive = i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(exclusive)
        .open(device.as_str());
    file.map_err(|error| match errors::host("opening the device alone", error) {
        // The kernel calls a device that takes no writes a matter of permission.
        HostError {
            kind: HostErrorKind::Denied,
            text,
        } => HostError::new(HostErrorKind::ReadOnly, text),
        error => error,
    })
}
