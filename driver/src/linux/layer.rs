//! The encryption layer: LUKS2 on dm-crypt, made and opened by `cryptsetup`, found again through sysfs.
//!
//! The key goes to the tool's standard input and nowhere else. The volume key is loaded into the mapping itself, not
//! into a keyring, so that a layer that is open can grow without anyone having the key.
//!
//! Where the kernel has no device-mapper, or the tool is not installed, volumes with a layer are refused; nothing is ever
//! stored plain instead.

use std::io;
use std::path::Path;

use super::{errors, loops, tools};
use crate::host::{HostError, HostErrorKind, HostResult, LAYER_HEADER};
use crate::key::Key;
use crate::units::{Access, Bytes, DevicePath};

const TOOL: &str = "cryptsetup";
/// Sectors of the tool's arguments.
const SECTOR: u64 = 512;
/// Memory for deriving keys, in KiB: what a small node can spare for each volume that it opens.
const KEY_MEMORY: &str = "65536";

/// An open layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) device: DevicePath,
    pub(super) access: Access,
}

/// What the mapping of an image's layer is called, on the whole machine.
fn name(image: &Path) -> String {
    let digest = blake3::hash(image.as_os_str().as_encoded_bytes()).to_hex();
    format!("wavetank-{}", &digest[..32])
}

/// The open layer of an image.
pub(super) fn of(image: &Path) -> io::Result<Option<Layer>> {
    match loops::find(image)? {
        Some(found) => above(&found.device),
        None => Ok(None),
    }
}

/// The mapping that lies on a device.
pub(super) fn above(device: &DevicePath) -> io::Result<Option<Layer>> {
    let holders = format!("/sys/block/{}/holders", kernel_name(device));
    let entries = match std::fs::read_dir(holders) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let holder = entry?.file_name();
        let Some(holder) = holder.to_str() else { continue };
        let of = |what: &str| std::fs::read_to_string(format!("/sys/block/{holder}/{what}"));
        if of("dm/uuid").is_ok_and(|uuid| uuid.starts_with("CRYPT-")) {
            return Ok(Some(Layer {
                device: DevicePath::new(format!("/dev/{holder}")),
                access: Access::from_readonly(of("ro").is_ok_and(|text| text.trim() == "1")),
            }));
        }
    }
    Ok(None)
}

/// The device under a mapping; `None` if it is no mapping.
pub(super) fn below(device: &DevicePath) -> Option<DevicePath> {
    let slaves = std::fs::read_dir(format!("/sys/block/{}/slaves", kernel_name(device))).ok()?;
    let slave = slaves.flatten().next()?.file_name();
    Some(DevicePath::new(format!("/dev/{}", slave.to_str()?)))
}

fn kernel_name(device: &DevicePath) -> &str {
    device.as_str().trim_start_matches("/dev/")
}

fn run(arguments: &[&str], key: Option<&Key>) -> HostResult<()> {
    let ended = tools::run_with(TOOL, arguments, key.map(Key::bytes))?;
    // The statuses are the tool's own: 2 no key fits, 5 in use.
    let kind = match ended.status {
        Some(2) => HostErrorKind::Denied,
        Some(5) => HostErrorKind::Busy,
        _ => HostErrorKind::Io,
    };
    ended
        .among(TOOL, &[0])
        .map(drop)
        .map_err(|error| HostError::new(kind, error.text))
}

/// Puts a header on a device; whatever was there is lost.
pub(super) fn make(device: &DevicePath, uuid: &str, key: &Key) -> HostResult<()> {
    if loops::size(device)? <= LAYER_HEADER {
        let text = format!("{device} has no room for a header of {LAYER_HEADER}");
        return Err(HostError::new(HostErrorKind::NoSpace, text));
    }
    let offset = (LAYER_HEADER.0 / SECTOR).to_string();
    let cipher = ["--cipher", "aes-xts-plain64", "--key-size", "512"];
    let derivation = [
        "--pbkdf",
        "argon2id",
        "--pbkdf-memory",
        KEY_MEMORY,
        "--pbkdf-parallel",
        "1",
    ];
    let shape = ["--type", "luks2", "--offset", &offset, "--uuid", uuid];
    let how = ["luksFormat", "--batch-mode", "--key-file", "-", device.as_str()];
    run(
        &[&cipher[..], &derivation[..], &shape[..], &how[..]].concat(),
        Some(key),
    )
}

/// Opens the layer of an image that is attached as `device`.
pub(super) fn open(image: &Path, device: &DevicePath, key: &Key, access: Access) -> HostResult<DevicePath> {
    let name = name(image);
    let mut arguments = vec!["open", "--type", "luks2", "--key-file", "-", "--disable-keyring"];
    if access.is_read_only() {
        arguments.push("--readonly");
    }
    arguments.extend([device.as_str(), &name]);
    run(&arguments, Some(key))?;
    let opened = above(device).map_err(|error| errors::host("looking for the layer", error))?;
    opened.map(|layer| layer.device).ok_or_else(|| {
        let text = format!("{TOOL} opened {device}, and the kernel shows no mapping on it");
        HostError::new(HostErrorKind::Io, text)
    })
}

/// Grows an open layer to the size of the device under it.
pub(super) fn grow(image: &Path, layer: &Layer) -> HostResult<Bytes> {
    run(&["resize", "--disable-keyring", &name(image)], None)?;
    loops::size(&layer.device)
}

pub(super) fn close(image: &Path) -> HostResult<()> {
    run(&["close", &name(image)], None)
}
