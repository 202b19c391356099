//! What a machine is late to notice, for a while: that the link of a device leads elsewhere, and how large a device is.
//!
//! Both are of the machine's memory and end with its power. Who asks for a device by the identity of its volume
//! (`Host::attached`) is never led astray, and a device that is looked at again shows its own size, though perhaps that of a while ago.
//!
//! Blind spots: links are late for all devices of a machine or for none; a link is late when a device appears, never afterwards.

use std::collections::BTreeMap;

use wavetank_driver::{Bytes, DevicePath};

use super::Machine;

/// What the kernel of a machine is late with.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// Links stay behind.
    links: bool,
    /// Sizes stay behind.
    pub sizes: bool,
    /// The device whose link was made last.
    last: Option<DevicePath>,
    /// The sizes of the devices that were at these paths before.
    shown: BTreeMap<DevicePath, Bytes>,
}

impl Lag {
    /// A device has appeared: which one its link shows. One that stays behind leads to the device that appeared before it, or to where nothing is.
    pub fn link(&mut self, device: &DevicePath) -> DevicePath {
        let before = self.last.replace(device.clone());
        if !self.links {
            return device.clone();
        }
        before
            .filter(|before| before != device)
            .unwrap_or_else(|| DevicePath::new("/dev/none"))
    }

    /// As how large a device shows itself that appears at a path, if not as large as it is.
    pub fn size_at(&self, path: &DevicePath) -> Option<Bytes> {
        self.shown.get(path).copied().filter(|_| self.sizes)
    }

    /// A device has gone.
    pub fn gone(&mut self, path: &DevicePath, size: Bytes) {
        self.shown.insert(path.clone(), size);
    }
}

impl Machine {
    /// From now on the links of devices that appear show what they showed before, or no more.
    pub fn let_links_stay_behind(&self, behind: bool) {
        self.with_lag(|lag| lag.links = behind);
    }

    /// From now on devices that appear show the size of what was there before until they are looked at again, and all devices keep the size that they
    /// show; or no more.
    pub fn let_sizes_stay_behind(&self, behind: bool) {
        self.with_lag(|lag| lag.sizes = behind);
    }
}
