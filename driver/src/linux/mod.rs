//! The driver's machine and storage system on real Linux: image files in one directory, shown as loop devices.
//!
//! ```text
//! LinuxPool ──► Store: images of volumes and snapshots, one JSON file beside each
//!                 ▲
//! LinuxHost ──────┘──► loop devices ──► [encryption layers ──►] file systems ──► mounts
//! ```
//!
//! Both work on the same directory, so they live in one process, which locks it. System calls go through `rustix`;
//! external tools are run only for what the kernel has no call for: making, checking and resizing file systems, and
//! encryption layers.
//!
//! Blind spots: a raw block volume is shown read-only only if its device is (the kernel lets one write to a device node
//! on a read-only mount); checks of XFS and btrfs are left to their mounting, which replays their logs.

mod disks;
mod errors;
mod fs;
mod group;
mod host;
mod image;
mod ioctl;
mod layer;
pub mod look;
mod loops;
mod mountinfo;
pub(crate) mod paths;
mod pool;
mod probe;
mod store;
mod tools;
pub mod trial;

use std::sync::Arc;

use futures::channel::oneshot;

use crate::runtime::Runtime;

pub use disks::Reach;
pub use host::LinuxHost;
pub use pool::LinuxPool;
pub use store::{Store, StoreError, StoreShape};

/// Runs work that blocks its thread where the runtime wants it; `None` if the runtime dropped it.
async fn off_thread<T: Send + 'static>(
    runtime: &Arc<dyn Runtime>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (result, waiting) = oneshot::channel();
    let work = Box::new(move || {
        let _ = result.send(job());
    });
    runtime.blocking(work).await;
    waiting.await.ok()
}
