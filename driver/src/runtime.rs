//! Tasks, time and the disk of the ledger, as given to the driver by whoever starts it.
//!
//! The library has no runtime, no clock and no environment of its own.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use redb::{BackendError, StorageBackend};

/// What runs the driver's tasks and tells it the time.
pub trait Runtime: Send + Sync + 'static {
    /// Starts a task that runs until it ends or the process dies, whoever waits for it.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs work that may block its thread, and completes when it is done. A simulation runs it on the spot.
    fn blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> BoxFuture<'static, ()>;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Time since some fixed moment; never runs backwards.
    fn now(&self) -> Duration;

    /// Time since the Unix epoch, for stamps that people read. May jump.
    fn wall(&self) -> Duration;
}

/// A runtime for using a [`crate::Host`] or a [`crate::Pool`] without a driver: work that blocks is done on the spot, time stands still, and nothing is
/// started or waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnTheSpot;

impl Runtime for OnTheSpot {
    /// The task is dropped: hosts and pools start none.
    fn spawn(&self, _: BoxFuture<'static, ()>) {}

    fn blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> BoxFuture<'static, ()> {
        Box::pin(async move { work() })
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Duration {
        Duration::ZERO
    }
}

/// The disk on which a ledger lives: any [`StorageBackend`] of redb, shareable so that a ledger can be opened again.
#[derive(Clone)]
pub struct Disk(Arc<dyn StorageBackend>);

impl Disk {
    /// Takes a backend: a file, memory, or a modelled disk.
    pub fn new(backend: impl StorageBackend) -> Self {
        Self(Arc::new(backend))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Disk").field(&self.0).finish()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
