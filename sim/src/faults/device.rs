//! The devices of a node, as its kernel and its links show them.
//!
//! **Stale link.** *May break:* a driver that takes the device to which a link leads for the volume's: it mounts, or formats, another volume; or it believes that
//! nothing is there. *Why it must survive:* numbers of ports and slots are given out again, and udev turns the links when it gets to it. A volume has an identity
//! (serial number, WWN, backing file): a driver looks at it, or fails and is called again.
//!
//! **Cached size.** *May break:* a driver that believes the size that a device shows: it makes a file system as large as the disk that was there before, or answers
//! OK to an expansion that the file system has not seen. *Why it must survive:* a kernel keeps the size of a device until it is told to look again, and the path to the
//! storage may be late even then. An error is an answer, and the caller comes again; only it must not be one that means *never* (OUT_OF_RANGE).

use super::{Fault, Spot, seconds};
use crate::scenario::{Call, PlainPhase, Role};

/// Longer than the first pauses between attempts of kubelet (0.5 s, doubled each time).
const LATE: u64 = 20;

pub(super) fn offer(spot: &Spot<'_>, menu: &mut Vec<Fault>) {
    let (Role::Kubelet, Some(node), PlainPhase::BeforeSend) = (spot.process.role, &spot.process.node, spot.phase)
    else {
        return;
    };
    let (node, lasts) = (node.clone(), seconds(LATE).into());
    if spot.effect == Call::NodeStageVolume.as_str() {
        menu.push(Fault::StaleLink {
            node: node.clone(),
            lasts,
        });
    }
    if spot.effect == Call::NodeStageVolume.as_str() || spot.effect == Call::NodeExpandVolume.as_str() {
        menu.push(Fault::CachedSize { node, lasts });
    }
}
